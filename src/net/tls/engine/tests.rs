//! The engine against a peer of plain rustls, all in memory.

use std::io::ErrorKind;

use proptest::prelude::*;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, ClientConnection, ServerConnection};

use super::super::provider::provider;
use super::super::scaffold::{Authority, Peer, drained};
use super::*;

const HANDSHAKE: usize = 16 * 1024;
const NAME: &str = "door.example";
const VERSIONS: [&rustls::SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A server's engine and a client.
struct Pair {
    engine: Engine,
    peer: Peer,
    received: Vec<u8>,
}

impl Pair {
    fn new(authority: &Authority, version: &'static rustls::SupportedProtocolVersion) -> Self {
        Self::of(&authority.server(&[NAME], &[version]), &authority.client(&[version]))
    }

    /// A new connection between these two, which may resume the session of one before.
    fn of(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>) -> Self {
        let client = ClientConnection::new(Arc::clone(client), NAME.try_into().unwrap());
        Self {
            engine: Engine::server(Arc::clone(server), HANDSHAKE).unwrap(),
            peer: Peer::new(client.unwrap()),
            received: Vec::new(),
        }
    }

    /// A pair that has finished its handshake.
    fn connected(version: &'static rustls::SupportedProtocolVersion) -> Self {
        let mut pair = Self::new(&Authority::new(), version);
        pair.exchange();
        assert!(!pair.engine.is_handshaking());
        pair
    }

    /// Moves bytes both ways until neither side has any.
    fn exchange(&mut self) {
        loop {
            let ciphertext = self.peer.ciphertext();
            self.feed(&ciphertext).unwrap();
            let answer = drained(&mut self.engine);
            self.peer.take(&answer).unwrap();
            if ciphertext.is_empty() && answer.is_empty() {
                return;
            }
        }
    }

    /// Feeds everything, and reads what comes out of it.
    fn feed(&mut self, mut ciphertext: &[u8]) -> Result<(), Fault> {
        while !ciphertext.is_empty() {
            let taken = self.engine.feed(ciphertext)?;
            ciphertext = &ciphertext[taken..];
            self.read(16 * 1024);
        }
        Ok(())
    }

    /// Reads until there are no bytes left, with a buffer of this size.
    fn read(&mut self, size: usize) -> Plain {
        let mut buffer = vec![0; size];
        loop {
            match self.engine.read(&mut buffer) {
                Plain::Bytes(count) => self.received.extend_from_slice(&buffer[..count]),
                outcome => {
                    assert!(!self.engine.has_plaintext());
                    return outcome;
                }
            }
        }
    }
}

fn encrypt(engine: &mut Engine, plaintext: &[u8]) -> usize {
    engine.encrypt(&[IoSlice::new(plaintext)]).unwrap()
}

/// Takes `room` bytes, and none after them.
struct Sink {
    taken: Vec<u8>,
    room: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.room);
        self.room -= count;
        self.taken.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A request, an answer and both ends. The bytes of the client come in two parts, of which the first has `split` bytes.
/// Returns the number of all of them.
fn converse(authority: &Authority, version: &'static rustls::SupportedProtocolVersion, split: usize) -> usize {
    let mut pair = Pair::new(authority, version);
    let (mut sent, mut is_answered) = (0, false);
    pair.peer.send(b"request\n");
    loop {
        let ciphertext = pair.peer.ciphertext();
        let (first, second) = ciphertext.split_at(ciphertext.len().min(split.saturating_sub(sent)));
        sent += ciphertext.len();
        for part in [first, second] {
            pair.feed(part).unwrap();
            if pair.received == b"request\n" && !is_answered {
                is_answered = true;
                pair.peer.connection.send_close_notify();
                assert_eq!(encrypt(&mut pair.engine, b"answer\n"), 7);
            }
            let answer = drained(&mut pair.engine);
            pair.peer.take(&answer).unwrap();
        }
        if pair.read(1) == Plain::End {
            pair.engine.end();
            let end = drained(&mut pair.engine);
            pair.peer.take(&end).unwrap();
            assert!(pair.peer.has_ended, "cut at {split}");
            assert_eq!(pair.peer.received, b"answer\n", "cut at {split}");
            assert_eq!(pair.received, b"request\n", "cut at {split}");
            return sent;
        }
    }
}

#[test]
fn a_conversation_that_is_cut_anywhere_is_the_same_conversation() {
    let authority = Authority::new();
    for version in VERSIONS {
        let length = converse(&authority, version, usize::MAX);
        for split in 1..length {
            converse(&authority, version, split);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_amount_passes_through_any_buffers(
        is_new in any::<bool>(),
        size in 1..200_000_usize,
        cut in 1..40_000_usize,
        buffer in 1..70_000_usize,
        room in 100..70_000_usize,
    ) {
        let mut pair = Pair::connected(if is_new { &TLS13 } else { &TLS12 });
        let bytes: Vec<u8> = (0..251).cycle().take(size).collect();
        pair.peer.send(&bytes);
        for mut piece in pair.peer.ciphertext().chunks(cut) {
            while !piece.is_empty() {
                let taken = pair.engine.feed(piece).unwrap();
                prop_assert!(pair.engine.records.waiting() <= RECORD && pair.engine.records.kept() <= RECORD + STEP);
                piece = &piece[taken..];
                prop_assert_eq!(pair.read(buffer), Plain::Nothing);
            }
        }
        prop_assert!(pair.received == bytes);

        let mut rest = &bytes[..];
        while !rest.is_empty() || pair.engine.has_unsent() {
            let taken = encrypt(&mut pair.engine, rest);
            prop_assert!(taken <= 64 * 1024);
            rest = &rest[taken..];
            let mut sink = Sink { taken: Vec::new(), room };
            let drained = pair.engine.drain(&mut sink);
            prop_assert_eq!(drained.is_err(), pair.engine.has_unsent());
            pair.peer.take(&sink.taken).unwrap();
        }
        prop_assert!(pair.peer.received == bytes);
    }
}

#[test]
fn nothing_is_taken_while_plaintext_waits() {
    let mut pair = Pair::connected(&TLS13);
    pair.peer.send(&[7; 200_000]);
    let ciphertext = pair.peer.ciphertext();
    let taken = pair.engine.feed(&ciphertext).unwrap();
    assert_eq!(taken, STEP);
    assert_eq!(pair.engine.feed(&ciphertext[taken..]).unwrap(), 0);
    assert!(pair.engine.has_plaintext());
}

#[test]
fn an_end_of_the_stream_without_a_word_is_a_cut() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.peer.send(b"half a requ");
        pair.exchange();
        pair.engine.feed_end();
        assert_eq!(pair.read(100), Plain::Cut);
        assert_eq!(pair.read(100), Plain::Cut);
        assert_eq!(pair.received, b"half a requ");

        let mut pair = Pair::connected(version);
        pair.peer.send(b"whole");
        let ciphertext = pair.peer.ciphertext();
        pair.feed(&ciphertext[..ciphertext.len() - 1]).unwrap();
        pair.engine.feed_end();
        assert_eq!(
            (pair.read(100), pair.received.len()),
            (Plain::Cut, 0),
            "inside a record"
        );
        assert_eq!(pair.engine.feed(&ciphertext[ciphertext.len() - 1..]).unwrap(), 1);
        assert_eq!(
            (pair.read(100), pair.received.len()),
            (Plain::Cut, 0),
            "nothing comes behind it"
        );
    }
}

#[test]
fn each_direction_ends_by_itself() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.peer.send(b"request");
        pair.peer.connection.send_close_notify();
        pair.exchange();
        pair.engine.feed_end();
        assert_eq!((pair.read(100), &pair.received[..]), (Plain::End, &b"request"[..]));
        assert_eq!(encrypt(&mut pair.engine, b"answer"), 6);
        pair.exchange();
        assert_eq!((&pair.peer.received[..], pair.peer.has_ended), (&b"answer"[..], false));
        pair.engine.end();
        pair.exchange();
        assert!(pair.peer.has_ended);

        let mut pair = Pair::connected(version);
        assert_eq!(encrypt(&mut pair.engine, b"greeting"), 8);
        pair.engine.end();
        pair.exchange();
        assert!(pair.peer.has_ended);
        pair.peer.send(b"still there");
        pair.exchange();
        assert_eq!(
            (pair.read(100), &pair.received[..]),
            (Plain::Nothing, &b"still there"[..])
        );
    }
}

#[test]
fn bytes_behind_the_end_of_the_peer_are_dropped() {
    let later = |pair: &mut Pair| {
        pair.peer.send(b"more");
        pair.peer.ciphertext()
    };
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.peer.send(b"all");
        pair.peer.connection.send_close_notify();
        let together = [pair.peer.ciphertext(), later(&mut pair)].concat();
        pair.feed(&together).unwrap();
        assert_eq!((pair.read(100), &pair.received[..]), (Plain::End, &b"all"[..]));

        let alone = later(&mut pair);
        pair.feed(&alone).unwrap();
        pair.feed(b"and no TLS at all").unwrap();
        pair.engine.feed_end();
        assert_eq!((pair.read(100), &pair.received[..]), (Plain::End, &b"all"[..]));
        assert!(!pair.engine.has_unsent());
    }
}

#[test]
fn the_first_fault_stays_and_what_was_in_front_of_it_is_read() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        pair.peer.send(b"good");
        let mut ciphertext = pair.peer.ciphertext();
        pair.peer.send(b"bad");
        ciphertext.extend(pair.peer.ciphertext());
        *ciphertext.last_mut().unwrap() ^= 1;
        pair.peer.send(b"good again");
        ciphertext.extend(pair.peer.ciphertext());

        let fault = Fault::Tls(Error::DecryptError);
        assert_eq!(pair.engine.feed(&ciphertext), Ok(ciphertext.len()));
        assert!(pair.engine.has_plaintext());
        assert_eq!(pair.read(3), Plain::Failed(fault.clone()));
        assert_eq!(pair.received, b"good");
        let alert = drained(&mut pair.engine);
        let refusal = Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
        assert_eq!(pair.peer.take(&alert), Err(refusal));

        assert_eq!(pair.engine.feed(b"anything"), Err(fault.clone()));
        pair.engine.feed_end();
        assert_eq!(pair.engine.encrypt(&[IoSlice::new(b"answer")]), Err(fault.clone()));
        assert_eq!(pair.read(100), Plain::Failed(fault));
        assert!(!pair.engine.has_unsent());
    }
}

#[test]
fn nothing_is_sent_behind_the_end_of_this_side() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        assert_eq!(encrypt(&mut pair.engine, b"answer"), 6);
        pair.engine.end();
        pair.engine.end();
        assert_eq!(encrypt(&mut pair.engine, b"more"), 0);
        let mut full = Sink {
            taken: Vec::new(),
            room: 3,
        };
        assert_eq!(pair.engine.drain(&mut full).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(pair.engine.has_unsent(), "the end waits for room");
        let answer = [full.taken, drained(&mut pair.engine)].concat();
        pair.peer.take(&answer).unwrap();
        assert!(pair.peer.has_ended);

        // Records that cannot be decrypted call for an alert.
        let garbage = [&[23, 3, 3, 0, 40][..], &[9; 40]].concat();
        assert_eq!(pair.engine.feed(&garbage), Err(Fault::Tls(Error::DecryptError)));
        assert!(!pair.engine.has_unsent());
    }
}

#[test]
fn a_sink_may_take_any_number_of_bytes() {
    for version in VERSIONS {
        let mut pair = Pair::connected(version);
        for room in 1..200 {
            assert_eq!(encrypt(&mut pair.engine, &[7; 100]), 100);
            while pair.engine.has_unsent() {
                let mut sink = Sink {
                    taken: Vec::new(),
                    room,
                };
                let drained = pair.engine.drain(&mut sink);
                assert_eq!(drained.is_err(), pair.engine.has_unsent());
                pair.peer.take(&sink.taken).unwrap();
            }
        }
        assert_eq!(pair.peer.received, [7; 199 * 100]);
    }
}

/// A handshake in which one byte of the client is another. Returns the pair, and the number of the client's bytes.
fn damaged(authority: &Authority, version: &'static rustls::SupportedProtocolVersion, place: usize) -> (Pair, usize) {
    let mut pair = Pair::new(authority, version);
    let mut passed = 0;
    loop {
        let mut ciphertext = pair.peer.ciphertext();
        if let Some(byte) = place.checked_sub(passed).and_then(|offset| ciphertext.get_mut(offset)) {
            *byte ^= 0x10;
        }
        passed += ciphertext.len();
        let fed = pair.feed(&ciphertext);
        let answer = drained(&mut pair.engine);
        // Its own fault is told to the engine by an alert.
        let _ = pair.peer.take(&answer);
        if fed.is_err() || !pair.peer.connection.wants_write() {
            return (pair, passed);
        }
    }
}

#[test]
fn a_handshake_that_is_damaged_anywhere_fails_or_is_waited_for() {
    let authority = Authority::new();
    for version in VERSIONS {
        let mut finished = 0;
        for place in 0.. {
            let (mut pair, length) = damaged(&authority, version, place);
            if !pair.engine.is_handshaking() {
                finished += 1;
                pair.peer.send(b"request");
                pair.exchange();
                assert_eq!(pair.received, b"request");
            }
            if place >= length {
                break;
            }
        }
        // The lower half of the version in front of each record means nothing.
        assert!((1..=8).contains(&finished), "{finished}");
    }
}

#[test]
fn a_handshake_has_a_greatest_length() {
    // A ClientHello that says to have 60000 bytes, in records of 1000.
    let mut hello = vec![1, 0, 0xea, 0x60];
    hello.resize(60_000, 0);
    let records: Vec<u8> = hello
        .chunks(1000)
        .flat_map(|chunk| [&[22, 3, 1, 0x03, 0xe8][..], chunk].concat())
        .collect();
    let mut pair = Pair::new(&Authority::new(), &TLS13);
    pair.feed(&records[..HANDSHAKE]).unwrap();
    let fault = pair.engine.feed(&records[HANDSHAKE..=HANDSHAKE]).unwrap_err();
    assert_eq!(fault, Fault::TooLong(HANDSHAKE));
    assert_eq!(fault.to_string(), "it sends more than 16384 bytes without data");
}

#[test]
fn a_peer_that_sends_no_data_is_not_listened_to_for_ever() {
    let mut pair = Pair::connected(&TLS13);
    pair.peer.send(b"data");
    pair.exchange();
    assert_eq!(pair.engine.quiet, 0);
    pair.peer.connection.refresh_traffic_keys().unwrap();
    pair.exchange();
    assert!(pair.engine.quiet > 0);
    pair.engine.quiet = Engine::LONGEST_QUIET;
    pair.peer.connection.refresh_traffic_keys().unwrap();
    let update = pair.peer.ciphertext();
    assert_eq!(pair.feed(&update), Err(Fault::TooLong(Engine::LONGEST_QUIET)));

    let mut pair = Pair::connected(&TLS13);
    let storm = (0..100).try_for_each(|_| {
        pair.peer.connection.refresh_traffic_keys().unwrap();
        let update = pair.peer.ciphertext();
        pair.feed(&update)
    });
    assert!(matches!(storm, Err(Fault::Tls(Error::PeerMisbehaved(_)))), "{storm:?}");
}

#[test]
fn a_peer_that_changes_its_keys_is_understood() {
    let mut pair = Pair::connected(&TLS13);
    for _ in 0..20 {
        pair.peer.connection.refresh_traffic_keys().unwrap();
        pair.peer.send(b"question ");
        pair.exchange();
        assert_eq!(encrypt(&mut pair.engine, b"answer "), 7);
        pair.exchange();
    }
    assert_eq!(pair.received, b"question ".repeat(20));
    assert_eq!(pair.peer.received, b"answer ".repeat(20));
}

#[test]
fn a_key_of_tls_1_2_encrypts_a_limited_number_of_records() {
    for (version, outcome) in [(&TLS12, Err(Fault::KeyIsUsedUp)), (&TLS13, Ok(1))] {
        let mut pair = Pair::connected(version);
        assert_eq!(encrypt(&mut pair.engine, &[7; 50_000]), 50_000);
        assert_eq!(pair.engine.encrypted, 4);
        pair.exchange();
        pair.engine.encrypted = RECORDS_OF_1_2;
        assert_eq!(pair.engine.encrypt(&[IoSlice::new(b"1")]), outcome);
        assert_eq!(pair.engine.feed(b"\x17").is_err(), outcome.is_err());
    }
}

#[test]
fn a_client_that_speaks_no_tls_gets_an_alert_and_nothing_else() {
    for (bytes, quoted) in [
        (&b"GET / HTTP/1.1\r\nHost: a\r\n"[..], "GET / HTTP/1.1\\r\\n"),
        (b"line\n", "line\\n"),
        (b"\x80\x2e\x01\x03\x01", "\\x80.\\x01\\x03\\x01"),
    ] {
        let mut pair = Pair::new(&Authority::new(), &TLS13);
        let fault = pair.engine.feed(bytes).unwrap_err();
        assert_eq!(
            fault.to_string(),
            format!("it speaks no TLS: it begins with \"{quoted}\"")
        );
        let mut said = Vec::new();
        pair.engine.drain(&mut said).unwrap();
        assert_eq!(said, b"\x15\x03\x03\x00\x02\x02\x46");
        assert!(pair.engine.feed(bytes).is_err() && !pair.engine.has_unsent());
    }
}

#[test]
fn a_peer_that_leaves_within_the_handshake_is_told_from_one_that_never_began() {
    let mut pair = Pair::new(&Authority::new(), &TLS13);
    pair.engine.feed_end();
    assert_eq!(pair.read(100), Plain::Failed(Fault::Left { has_begun: false }));

    let mut pair = Pair::new(&Authority::new(), &TLS13);
    let hello = pair.peer.ciphertext();
    pair.feed(&hello[..1]).unwrap();
    pair.engine.feed_end();
    assert_eq!(pair.read(100), Plain::Failed(Fault::Left { has_begun: true }));
}

#[test]
fn nothing_is_encrypted_before_the_handshake_is_over() {
    let mut pair = Pair::new(&Authority::new(), &TLS13);
    assert_eq!(encrypt(&mut pair.engine, b"early"), 0);
    assert_eq!(pair.engine.established(), Err(Fault::Tls(Error::HandshakeNotComplete)));
    let hello = pair.peer.ciphertext();
    pair.feed(&hello).unwrap();
    assert_eq!(encrypt(&mut pair.engine, b"early"), 0);
    pair.exchange();
    assert!(pair.peer.received.is_empty());
}

#[test]
fn a_handshake_says_what_was_agreed() {
    for (version, expected) in [(&TLS12, Version::V1_2), (&TLS13, Version::V1_3)] {
        let authority = Authority::new();
        let (server, client) = (authority.server(&[NAME], &[version]), authority.client(&[version]));
        for is_resumed in [false, true] {
            let mut pair = Pair::of(&server, &client);
            pair.exchange();
            let expected = Established {
                version: expected,
                subject: None,
                is_resumed,
            };
            assert_eq!(pair.engine.established(), Ok(expected));
        }
    }
}

#[test]
fn a_server_learns_the_subject_of_its_client_and_again_when_a_session_is_resumed() {
    for version in VERSIONS {
        let authority = Authority::new();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "web");
        let (certificate, key) = authority.sign(&params);
        let (own, own_key) = authority.certify(&[NAME]);
        let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots().into(), provider());
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![own], own_key);
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_client_auth_cert(vec![certificate], key);
        let (server, client) = (Arc::new(server.unwrap()), Arc::new(client.unwrap()));
        for is_resumed in [false, true] {
            let mut pair = Pair::of(&server, &client);
            pair.exchange();
            let established = pair.engine.established().unwrap();
            assert_eq!(
                (established.subject.as_deref(), established.is_resumed),
                (Some("CN=web"), is_resumed)
            );
        }
    }
}

/// A handshake of a client's engine with a server of plain rustls.
fn connect(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (Pair, Result<(), Fault>) {
    let mut pair = Pair {
        engine: Engine::client(client, NAME.try_into().unwrap(), HANDSHAKE).unwrap(),
        peer: Peer::new(ServerConnection::new(server).unwrap()),
        received: Vec::new(),
    };
    assert!(pair.engine.has_unsent(), "a client speaks first");
    for _ in 0..3 {
        // Its failure is the outcome of the engine: an alert.
        let _ = pair.peer.take(&drained(&mut pair.engine));
        let answer = pair.peer.ciphertext();
        if let Err(fault) = pair.feed(&answer) {
            return (pair, Err(fault));
        }
    }
    (pair, Ok(()))
}

#[test]
fn a_client_is_such_an_engine_too() {
    for version in VERSIONS {
        let authority = Authority::new();
        let (mut pair, outcome) = connect(authority.client(&[version]), authority.server(&[NAME], &[version]));
        assert_eq!(outcome, Ok(()));
        assert!(pair.engine.established().is_ok());
        assert_eq!(encrypt(&mut pair.engine, b"request"), 7);
        pair.peer.send(b"answer");
        pair.exchange();
        assert_eq!(
            (&pair.peer.received[..], &pair.received[..]),
            (&b"request"[..], &b"answer"[..])
        );
    }
}

#[test]
fn a_server_that_is_not_the_right_one_is_refused_by_name() {
    let (ours, foreign) = (Authority::new(), Authority::named("another"));
    let client = |versions| ours.client(versions);
    for (server, client, expected) in [
        (
            foreign.server(&[NAME], &[&TLS13]),
            client(&[&TLS13]),
            "its certificate comes from no authority that is trusted here",
        ),
        (
            ours.server(&["a", "b", "c", "d"], &[&TLS13]),
            client(&[&TLS13]),
            "its certificate is not for door.example, but for a, b, c and others",
        ),
        (
            ours.server(&[NAME], &[&TLS12]),
            client(&[&TLS13]),
            "it allows no version of TLS that this side does (alert ProtocolVersion)",
        ),
    ] {
        let (pair, outcome) = connect(client, server);
        assert_eq!(outcome.unwrap_err().to_string(), expected);
        assert!(matches!(pair.engine.receiving, Receiving::Failed(_)));
    }
}

#[test]
fn faults_of_a_client_are_told_to_it_and_in_words() {
    let (ours, foreign) = (Authority::new(), Authority::named("another"));
    let mut pair = Pair {
        engine: Engine::server(ours.server(&[NAME], &[&TLS13]), HANDSHAKE).unwrap(),
        peer: Peer::new(ClientConnection::new(ours.client(&[&TLS12]), NAME.try_into().unwrap()).unwrap()),
        received: Vec::new(),
    };
    let hello = pair.peer.ciphertext();
    let fault = pair.feed(&hello).unwrap_err();
    assert_eq!(fault.to_string(), "it offers no version of TLS that is allowed here");
    let alert = drained(&mut pair.engine);
    let refusal = Error::AlertReceived(rustls::AlertDescription::ProtocolVersion);
    assert_eq!(pair.peer.take(&alert), Err(refusal));

    let mut pair = Pair {
        engine: Engine::server(ours.server(&[NAME], &[&TLS13]), HANDSHAKE).unwrap(),
        peer: Peer::new(ClientConnection::new(foreign.client(&[&TLS13]), NAME.try_into().unwrap()).unwrap()),
        received: Vec::new(),
    };
    let hello = pair.peer.ciphertext();
    pair.feed(&hello).unwrap();
    let refusal = pair.peer.take(&drained(&mut pair.engine)).unwrap_err();
    assert_eq!(refusal, Error::InvalidCertificate(CertificateError::UnknownIssuer));
    let alert = pair.peer.ciphertext();
    assert_eq!(
        pair.feed(&alert).unwrap_err().to_string(),
        "it does not trust the authority of this side's certificate (alert UnknownCA)"
    );
}

#[test]
fn an_engine_may_work_on_another_thread() {
    fn is_send<T: Send>(_: &T) {}
    is_send(&Pair::new(&Authority::new(), &TLS13).engine);
}
