//! TLS on the side of a server, and the files of certificates.

use std::io::{IoSlice, Read, Write};
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::Choices;
use iotcpd::internals::tls::{
    Choice, Engine, Fault, Identity, Names, Plain, ServerTls, Subjects, Version, certificates_from_pem, ocsp, shown,
};

const CERTIFICATE: &[u8] = include_bytes!("../keys/cert.pem");
const KEY: &[u8] = include_bytes!("../keys/key.pem");

/// The time at which all this takes place, since 1970.
const NOW: Duration = Duration::from_secs(1_800_000_000);

/// The largest number of bytes that a server may have to say before the client has finished its handshake: its
/// certificate, tickets and alerts.
const MOST_SAID: usize = 16 * 1024;

static SERVER: LazyLock<Option<ServerTls>> = LazyLock::new(|| {
    let identity = Identity::from_pem(Path::new("cert.pem"), CERTIFICATE, KEY).ok()?;
    ServerTls::build(Choice::new([identity])?, Version::V1_2, None, None).ok()
});

/// The side of a server before its first byte.
fn server() -> Engine {
    let engine = SERVER.as_ref().and_then(|server| server.engine().ok());
    engine.unwrap_or_else(|| panic!("there is a server"))
}

static CLIENTS: LazyLock<[Option<Arc<ClientConfig>>; 2]> =
    LazyLock::new(|| [client_config(false), client_config(true)]);

/// The certificate is good at this time.
#[derive(Debug)]
struct Clock;

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(NOW))
    }
}

/// The settings of a client of one version, which trusts the certificate.
fn client_config(is_old: bool) -> Option<Arc<ClientConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(own_certificate()).ok()?;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let versions = [if is_old { &TLS12 } else { &TLS13 }];
    let config = ClientConfig::builder_with_details(provider, Arc::new(Clock))
        .with_protocol_versions(&versions)
        .ok()?
        .with_webpki_verifier(verifier.build().ok()?)
        .with_no_client_auth();
    Some(Arc::new(config))
}

fn client(is_old: bool) -> ClientConnection {
    let [new, old] = &*CLIENTS;
    let config = if is_old { old } else { new };
    let name = "localhost".try_into().ok();
    let connection = config
        .clone()
        .zip(name)
        .and_then(|(config, name)| ClientConnection::new(config, name).ok());
    connection.unwrap_or_else(|| panic!("there is a client"))
}

fn own_certificate() -> CertificateDer<'static> {
    let certificates = certificates_from_pem(CERTIFICATE).unwrap_or_default();
    certificates
        .into_iter()
        .next()
        .unwrap_or_else(|| panic!("there is a certificate"))
}

/// All that a client has to say now.
fn said_by(client: &mut ClientConnection) -> Vec<u8> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).unwrap_or_default();
    }
    bytes
}

/// A server's engine, and what has come out of it.
struct Server {
    engine: Engine,
    received: Vec<u8>,
    said: Vec<u8>,
}

impl Server {
    fn new() -> Self {
        Self {
            engine: server(),
            received: Vec::new(),
            said: Vec::new(),
        }
    }

    /// Feeds the bytes, and reads what comes of them. A fault is the same from then on.
    fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let was_faulty = self.engine.fault().cloned();
            let fed = self.engine.feed(bytes);
            assert!(
                was_faulty.is_none() || fed == Err(was_faulty.unwrap_or(Fault::NoCertificate)),
                "{fed:?}"
            );
            match fed {
                Ok(taken) => {
                    assert!(
                        taken > 0 || self.engine.has_plaintext(),
                        "it takes something, or has something"
                    );
                    bytes = &bytes[taken..];
                }
                Err(fault) => {
                    assert_eq!(self.engine.fault(), Some(&fault));
                    assert_eq!(self.engine.encrypt(&[IoSlice::new(b"answer")]), Err(fault.clone()));
                    let text = fault.to_string();
                    assert!(
                        !text.contains(char::is_control) && text.len() < 500,
                        "it upsets no log: {text:?}"
                    );
                    bytes = &[];
                }
            }
            self.read();
            let drained = self.engine.drain(&mut self.said);
            assert!(drained.is_ok() && !self.engine.has_unsent());
        }
    }

    /// Reads until nothing is left, and returns what is said behind the bytes.
    fn read(&mut self) -> Plain {
        let mut buffer = [0; 5000];
        loop {
            match self.engine.read(&mut buffer) {
                Plain::Bytes(count) => {
                    assert!(
                        !self.engine.is_handshaking(),
                        "nothing is believed before the handshake is done"
                    );
                    self.received.extend_from_slice(&buffer[..count]);
                }
                outcome => {
                    let is_same = outcome == self.engine.read(&mut buffer);
                    assert!(
                        is_same && !self.engine.has_plaintext(),
                        "{outcome:?} is said again and again"
                    );
                    return outcome;
                }
            }
        }
    }

    /// Makes the handshake with a true client.
    fn connect(&mut self, client: &mut ClientConnection) {
        loop {
            let bytes = said_by(client);
            self.feed(&bytes);
            let answer = std::mem::take(&mut self.said);
            hear(client, &answer);
            if bytes.is_empty() && answer.is_empty() {
                break;
            }
        }
        assert!(!self.engine.is_handshaking() && !client.is_handshaking());
    }
}

fn hear(client: &mut ClientConnection, mut bytes: &[u8]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    while !bytes.is_empty() && client.read_tls(&mut bytes).is_ok_and(|taken| taken > 0) {
        if client.process_new_packets().is_err() {
            break;
        }
        // It would block at the end.
        let _ = client.reader().read_to_end(&mut plaintext);
    }
    plaintext
}

/// `Engine` as a server: whatever comes, in whatever pieces, nothing panics, a fault stays, little is said, and nothing
/// is believed of a client that does not know the keys. The first bytes choose what stands in front of the others:
/// nothing, the first message of a true client with some of its bytes changed, or its whole handshake.
pub fn fuzz_tls_server(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (kind, is_old, cuts) = (choices.below(3), choices.below(2) == 1, choices.take(3));
    let (mut server, mut client) = (Server::new(), client(is_old));
    match kind {
        0 => {}
        1 => {
            let mut hello = said_by(&mut client);
            for _ in 0..choices.below(6) {
                let (at, change) = (usize::from(choices.byte()) + choices.below(2) * 256, choices.byte());
                if let Some(byte) = hello.get_mut(at) {
                    *byte ^= change;
                }
            }
            server.feed(&hello);
        }
        _ => {
            server.connect(&mut client);
            server.said.clear();
        }
    }
    for piece in choices.pieces(cuts) {
        server.feed(piece);
    }
    server.engine.feed_end();
    let end = server.read();
    assert!(matches!(end, Plain::Cut | Plain::End | Plain::Failed(_)), "{end:?}");
    assert_eq!(server.received, b"", "nothing is made up");
    assert!(
        kind == 2 || server.engine.is_handshaking(),
        "no one gets in without the keys"
    );
    assert!(end != Plain::End, "the end of a client is its own word");
    assert!(server.said.len() <= MOST_SAID);
}

/// The records of a true client, changed on their way: what comes out is a part of what went in, from its beginning on,
/// and the end comes behind all of it.
pub fn fuzz_tls_records(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (is_old, cuts) = (choices.below(2) == 1, choices.take(3));
    let (mut server, mut client) = (Server::new(), client(is_old));
    server.connect(&mut client);
    let (mut sent, mut records) = (Vec::new(), Vec::new());
    for _ in 0..1 + choices.below(5) {
        let length = 1 + choices.below(256) * choices.below(90);
        let plaintext: Vec<u8> = (sent.len()..sent.len() + length)
            .map(|at| (at * 7 % 251).to_be_bytes()[7])
            .collect();
        let mut rest = &plaintext[..];
        while !rest.is_empty() {
            let taken = client.writer().write(rest).unwrap_or_default();
            rest = &rest[taken..];
            records.extend(split(&said_by(&mut client)));
        }
        sent.extend(plaintext);
        if !is_old && choices.below(8) == 7 {
            let refreshed = client.refresh_traffic_keys();
            assert!(refreshed.is_ok());
        }
    }
    let ends = choices.below(2) == 1;
    if ends {
        client.send_close_notify();
        records.extend(split(&said_by(&mut client)));
    }
    let changed = change(&mut choices, records.clone());
    let stream = changed.concat();
    for piece in Choices::new(&stream).pieces(cuts).collect::<Vec<_>>().chunks(16) {
        server.feed(&piece.concat());
    }
    server.engine.feed_end();
    let end = server.read();
    let is_part = sent.starts_with(&server.received);
    assert!(is_part, "{} bytes came out that did not go in", server.received.len());
    if end == Plain::End {
        assert!(ends && server.received == sent, "the end comes behind everything");
    }
    if changed == records {
        assert_eq!(end, if ends { Plain::End } else { Plain::Cut });
        assert_eq!(server.received.len(), sent.len());
    }
}

/// The records in some bytes.
fn split(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    while let [_, _, _, high, low, ..] = bytes {
        let length = 5 + usize::from(u16::from_be_bytes([*high, *low]));
        let (record, rest) = bytes.split_at(length.min(bytes.len()));
        records.push(record.to_vec());
        bytes = rest;
    }
    records
}

/// Records as they arrive over a network in the hands of an attacker.
fn change(choices: &mut Choices<'_>, mut records: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    while !choices.is_empty() && !records.is_empty() {
        let (what, at) = (choices.below(7), choices.below(records.len()));
        match what {
            0 => {
                let record = &mut records[at];
                let place = (usize::from(choices.byte()) * 256 + usize::from(choices.byte())) % record.len().max(1);
                let change = choices.byte();
                record.get_mut(place).into_iter().for_each(|byte| *byte ^= change);
            }
            1 => drop(records.remove(at)),
            2 => {
                let again = records[at].clone();
                records.insert(choices.below(records.len() + 1), again);
            }
            3 => {
                let other = choices.below(records.len());
                records.swap(at, other);
            }
            4 => {
                let length = usize::from(choices.byte());
                records[at].truncate(length);
                records.truncate(at + 1);
            }
            5 => records.insert(at, choices.take(16).to_vec()),
            // As they are.
            _ => {}
        }
    }
    records
}

/// The readers of certificates, of their names, and of answers of OCSP: what is read upsets no log, and an answer is of
/// use only for a while. The first byte chooses the reader, and if the others are a file or changes of a good one.
pub fn fuzz_certificate_file(input: &[u8]) {
    let mut choices = Choices::new(input);
    let (kind, is_change) = (choices.below(3), choices.below(2) == 1);
    let der = own_certificate();
    let good = if kind == 0 { CERTIFICATE } else { &der };
    let bytes = if is_change {
        changed(&mut choices, good)
    } else {
        choices.take(usize::MAX).to_vec()
    };
    match kind {
        0 => {
            let read = Identity::from_pem(Path::new("a.pem"), &bytes, KEY);
            match read {
                Ok(identity) => look_at(identity.names()),
                Err(wrong) => assert!(!format!("{wrong:?}").contains(char::is_control), "{wrong:?}"),
            }
        }
        1 => match Names::read(&bytes) {
            Ok(names) => look_at(&names),
            Err(error) => {
                let text = error.to_string();
                assert!(!text.contains(char::is_control) && text.len() < 500, "{text:?}");
            }
        },
        _ => {
            let now = UNIX_EPOCH + NOW;
            if let Ok(until) = ocsp::good_until(&bytes, &der, now) {
                assert!(until >= now);
                let later = ocsp::good_until(&bytes, &der, until + Duration::from_secs(1));
                assert_eq!(later, Err(ocsp::Useless::Old(until)));
            }
        }
    }
}

/// The bytes with some of them changed.
fn changed(choices: &mut Choices<'_>, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while !choices.is_empty() {
        let at = (usize::from(choices.byte()) * 256 + usize::from(choices.byte())) % bytes.len().max(1);
        match choices.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.splice(at..at, choices.take(4).iter().copied()).for_each(drop),
            _ => {
                let other = choices.byte();
                bytes.get_mut(at).into_iter().for_each(|byte| *byte = other);
            }
        }
    }
    bytes
}

fn look_at(names: &Names) {
    let is_clean = |text: &str| !text.contains(|c: char| c.is_ascii_control());
    assert!(is_clean(&names.subject), "it upsets no log: {:?}", names.subject);
    assert_eq!(names.last_day().len(), 10);
    let text = shown(names);
    assert!(!text.contains(char::is_control) && text.len() < 4000, "{text:?}");
    let mut subjects = Subjects::default();
    assert!(subjects.permit(names), "an empty list permits all");
    let added = subjects.add("*");
    let has_names = [&names.common_names, &names.dns, &names.uris, &names.emails]
        .iter()
        .any(|kind| !kind.is_empty());
    assert!(added.is_ok() && subjects.permit(names) == has_names);
    let _ = names.days_left(SystemTime::now());
}
