//! Signatures with slow keys, which are not made where the rest of a handshake is.
//!
//! rustls makes the signature of a server while it processes a client's hello, and cannot be interrupted there. So a
//! server with a slow key has two configurations, and a handshake begins with the one whose slow keys are [`Reserved`]:
//! they refuse to sign. A handshake that needs no such signature, because it resumes a session or the client is shown
//! another certificate, goes its way with that. Of another one, the engine stops where it was to sign, and all that it
//! has received and sent is [`Unsigned`]: a thread repeats the handshake up to there with the keys themselves. Nothing of
//! the connection but these bytes leaves its owner, so a result that comes too late can be dropped.
//!
//! The repetition says what was said before: the only message in front of the signature that may have been sent is a
//! HelloRetryRequest, which has no randomness in it. The price is a second exchange of keys, a tenth of a millisecond.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{Error, OtherError, ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::engine::Engine;
use super::error::Fault;

/// A key that chooses its signature as usual, and refuses to make it.
#[derive(Debug)]
struct Reserved(Arc<dyn SigningKey>);

impl SigningKey for Reserved {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = self.0.choose_scheme(offered)?.scheme();
        Some(Box::new(Refusing(scheme)))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

#[derive(Debug)]
struct Refusing(SignatureScheme);

impl Signer for Refusing {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, Error> {
        Err(Error::Other(OtherError(Arc::new(SignatureNeeded))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.0
    }
}

/// The handshake cannot go on without a signature.
#[derive(Debug)]
struct SignatureNeeded;

impl fmt::Display for SignatureNeeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a signature is needed")
    }
}

impl std::error::Error for SignatureNeeded {}

/// Returns a key that takes the place of this one in handshakes, and refuses to sign. Its certificate is left out: it is
/// never sent.
pub(super) fn reserved(key: &CertifiedKey) -> CertifiedKey {
    CertifiedKey::new(Vec::new(), Arc::new(Reserved(Arc::clone(&key.key))))
}

/// Returns true if rustls has stopped because a reserved key was to sign.
pub(super) fn is_needed(error: &Error) -> bool {
    matches!(error, Error::Other(OtherError(reason)) if reason.is::<SignatureNeeded>())
}

/// A handshake of a server up to the signature that it needs, as a thread can repeat it.
#[derive(Debug)]
pub struct Unsigned {
    /// The configuration with all keys.
    config: Arc<ServerConfig>,
    longest_handshake: usize,
    received: Vec<u8>,
    /// The number of bytes that the client was sent.
    sent: usize,
}

impl Unsigned {
    /// A handshake in which nothing was said yet.
    pub(super) const fn new(config: Arc<ServerConfig>, longest_handshake: usize) -> Self {
        Self {
            config,
            longest_handshake,
            received: Vec::new(),
            sent: 0,
        }
    }

    /// Must be called with all bytes that the engine takes.
    pub(super) fn note_received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    /// Must be called with the number of bytes that the engine gives away.
    pub(super) const fn note_sent(&mut self, count: usize) {
        self.sent += count;
    }

    /// Makes the signature, and returns the engine that goes on with the connection. Its fault, if it has one, is that of
    /// the connection. Takes as long as the signature, some milliseconds.
    ///
    /// # Errors
    /// rustls cannot use the configuration.
    pub fn sign(self) -> Result<Engine, Fault> {
        let mut engine = Engine::server(self.config, self.longest_handshake)?;
        // The engine keeps its fault.
        let _ = engine.feed(&self.received);
        // There is room for exactly what was sent before. The rest is kept, with an error that says so.
        let _ = engine.drain(&mut Discard(self.sent));
        Ok(engine)
    }
}

/// A writer that has room for some bytes and throws them away.
struct Discard(usize);

impl Write for Discard {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let count = bytes.len().min(self.0);
        self.0 -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup};
    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, HandshakeKind, NamedGroup, SupportedProtocolVersion};

    use super::super::Version;
    use super::super::choice::Choice;
    use super::super::identity::Identity;
    use super::super::provider::provider;
    use super::super::scaffold::{Authority, Peer, drained, exchange};
    use super::super::server::ServerTls;
    use super::super::subjects::Subjects;
    use super::super::verifier::ClientVerifier;
    use super::*;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    fn identity((certificate, key): (String, String)) -> Identity {
        Identity::from_pem(Path::new("a.pem"), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn server(identities: impl IntoIterator<Item = Identity>) -> ServerTls {
        ServerTls::build(Choice::new(identities).unwrap(), Version::V1_2, None, None).unwrap()
    }

    /// A server with an RSA key.
    fn slow(authority: &Authority) -> ServerTls {
        server([identity(authority.certify_rsa_pem(&["a"]))])
    }

    fn peer(client: &Arc<ClientConfig>) -> Peer {
        Peer::new(ClientConnection::new(Arc::clone(client), "a".try_into().unwrap()).unwrap())
    }

    /// A client that supports this provider's cryptography.
    fn client_with(
        authority: &Authority,
        provider: CryptoProvider,
        version: &'static SupportedProtocolVersion,
    ) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        Arc::new(config)
    }

    /// Completes a handshake, and sends a request and an answer.
    fn complete(engine: &mut Engine, peer: &mut Peer) {
        exchange(engine, peer).unwrap();
        assert!(!engine.is_handshaking() && !peer.connection.is_handshaking());
        peer.send(b"request");
        exchange(engine, peer).unwrap();
        let mut request = [0; 7];
        let _ = engine.read(&mut request);
        assert_eq!(&request, b"request");
        engine.encrypt(&[io::IoSlice::new(b"answer")]).unwrap();
        exchange(engine, peer).unwrap();
        assert_eq!(peer.received, b"answer");
    }

    /// Returns true if the handshake of this client stops for a signature. It is completed.
    fn stops(server: &ServerTls, client: &Arc<ClientConfig>) -> bool {
        let (mut engine, mut peer) = (server.engine().unwrap(), peer(client));
        let hello = peer.ciphertext();
        assert_eq!(engine.feed(&hello).unwrap(), hello.len());
        let stops = engine.needs_signature();
        if stops {
            engine = engine.take_unsigned().unwrap().sign().unwrap();
        }
        complete(&mut engine, &mut peer);
        stops
    }

    #[test]
    fn a_handshake_stops_for_a_signature_and_says_nothing_until_it_is_there() {
        let authority = Authority::new();
        for version in VERSIONS {
            let (mut engine, mut peer) = (slow(&authority).engine().unwrap(), peer(&authority.client(&[version])));
            let hello = peer.ciphertext();
            for byte in &hello {
                assert!(!engine.needs_signature());
                assert_eq!(engine.feed(&[*byte]), Ok(1));
            }
            assert!(engine.needs_signature() && engine.is_handshaking() && engine.fault().is_none());
            assert_eq!(drained(&mut engine), b"");
            assert_eq!(engine.feed(b"what comes meanwhile"), Ok(0));
            let unsigned = engine.take_unsigned().unwrap();
            assert!(engine.take_unsigned().is_none() && engine.needs_signature());
            let mut engine = unsigned.sign().unwrap();
            assert!(!engine.needs_signature() && engine.has_unsent());
            complete(&mut engine, &mut peer);
        }
    }

    #[test]
    fn a_session_is_resumed_without_a_signature() {
        let authority = Authority::new();
        let server = slow(&authority);
        for version in VERSIONS {
            let client = authority.client(&[version]);
            assert!(stops(&server, &client));
            assert!(!stops(&server, &client));
        }
    }

    #[test]
    fn only_a_client_that_is_shown_the_slow_key_waits_for_it() {
        let authority = Authority::new();
        let of_both_kinds = || {
            let fast = identity(authority.certify_pem(&["a"]));
            server([fast, identity(authority.certify_rsa_pem(&["a"]))])
        };
        for version in VERSIONS {
            assert!(!stops(&of_both_kinds(), &authority.client(&[version])));
            let mut provider = (*provider()).clone();
            let accepted = &mut provider.signature_verification_algorithms;
            let is_rsa = |scheme: &SignatureScheme| scheme.as_str().is_some_and(|name| name.starts_with("RSA"));
            let rsa = accepted.mapping.iter().filter(|(scheme, _)| is_rsa(scheme));
            accepted.mapping = rsa.copied().collect::<Vec<_>>().leak();
            assert!(stops(&of_both_kinds(), &client_with(&authority, provider, version)));
        }
    }

    /// TLS 1.2 has cipher suites for one kind of key.
    #[test]
    fn a_client_whose_cipher_suites_are_for_the_slow_key_does_not_have_it_sign_at_once() {
        let authority = Authority::new();
        let server = server([
            identity(authority.certify_pem(&["a"])),
            identity(authority.certify_rsa_pem(&["a"])),
        ]);
        let mut provider = (*provider()).clone();
        provider.cipher_suites.retain(|suite| {
            let name = suite.suite().as_str().unwrap_or_default();
            name.starts_with("TLS_ECDHE_RSA")
        });
        assert!(stops(&server, &client_with(&authority, provider, &TLS12)));
    }

    /// A group that the server does not have.
    #[derive(Debug)]
    struct Foreign(&'static dyn SupportedKxGroup);

    impl SupportedKxGroup for Foreign {
        fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
            self.0.start().map(|started| Box::new(Started(started)) as Box<_>)
        }

        fn name(&self) -> NamedGroup {
            NamedGroup::secp521r1
        }
    }

    struct Started(Box<dyn ActiveKeyExchange>);

    impl ActiveKeyExchange for Started {
        fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
            self.0.complete(peer)
        }

        fn pub_key(&self) -> &[u8] {
            self.0.pub_key()
        }

        fn group(&self) -> NamedGroup {
            NamedGroup::secp521r1
        }
    }

    /// A client that is asked for a second hello: with the first, it sends its part of a key for a foreign group.
    fn client_of_two_hellos(authority: &Authority) -> Arc<ClientConfig> {
        let mut provider = (*provider()).clone();
        let foreign = Foreign(provider.kx_groups[0]);
        provider.kx_groups.insert(0, Box::leak(Box::new(foreign)));
        client_with(authority, provider, &TLS13)
    }

    #[test]
    fn what_was_said_before_the_signature_is_not_said_again() {
        let authority = Authority::new();
        let client = client_of_two_hellos(&authority);
        let (mut engine, mut peer) = (slow(&authority).engine().unwrap(), peer(&client));
        engine.feed(&peer.ciphertext()).unwrap();
        assert!(!engine.needs_signature());
        let retry = drained(&mut engine);
        assert!(!retry.is_empty());
        peer.take(&retry).unwrap();
        engine.feed(&peer.ciphertext()).unwrap();
        let mut engine = engine.take_unsigned().unwrap().sign().unwrap();
        complete(&mut engine, &mut peer);
        assert_eq!(
            peer.connection.handshake_kind(),
            Some(HandshakeKind::FullWithHelloRetryRequest)
        );
    }

    #[test]
    fn both_hellos_of_a_handshake_may_come_before_the_answer_to_the_first() {
        let authority = Authority::new();
        let client = client_of_two_hellos(&authority);
        let server = slow(&authority);
        // The answer has no randomness in it: one that another connection has got will do.
        let (mut engine, mut peer) = (server.engine().unwrap(), peer(&client));
        let mut hellos = peer.ciphertext();
        engine.feed(&hellos).unwrap();
        let retry = drained(&mut engine);
        assert!(!retry.is_empty());
        peer.take(&retry).unwrap();
        hellos.extend(peer.ciphertext());
        let mut engine = server.engine().unwrap();
        engine.feed(&hellos).unwrap();
        assert_eq!(drained(&mut engine), b"");
        let mut engine = engine.take_unsigned().unwrap().sign().unwrap();
        let answer = drained(&mut engine);
        assert!(answer.starts_with(&retry) && answer.len() > retry.len());
        peer.take(&answer[retry.len()..]).unwrap();
        complete(&mut engine, &mut peer);
    }

    #[test]
    fn a_fault_behind_the_hello_is_found_with_the_signature() {
        let authority = Authority::new();
        for version in VERSIONS {
            let (mut engine, mut peer) = (slow(&authority).engine().unwrap(), peer(&authority.client(&[version])));
            let mut bytes = peer.ciphertext();
            bytes.extend(b"\x17\x03\x03\x00\x05never");
            let taken = engine.feed(&bytes).unwrap();
            let mut engine = engine.take_unsigned().unwrap().sign().unwrap();
            let fault = engine.feed(&bytes[taken..]).err().or_else(|| engine.fault().cloned());
            assert!(fault.is_some());
            assert!(peer.take(&drained(&mut engine)).is_err(), "an alert");
        }
    }

    #[test]
    fn a_client_shows_its_certificate_behind_the_signature() {
        let authority = Authority::new();
        let rule = ClientVerifier::new(authority.roots(), Subjects::default()).unwrap();
        let choice = Choice::new([identity(authority.certify_rsa_pem(&["a"]))]).unwrap();
        let server = ServerTls::build(choice, Version::V1_2, Some(rule.into()), None).unwrap();
        for version in VERSIONS {
            let (certificate, key) = authority.certify(&["client"]);
            let config = ClientConfig::builder_with_provider(provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(authority.roots())
                .with_client_auth_cert(vec![certificate], key);
            let client = Arc::new(config.unwrap());
            for stops_for_it in [true, false] {
                assert_eq!(stops(&server, &client), stops_for_it);
            }
            let (mut engine, mut peer) = (server.engine().unwrap(), peer(&authority.client(&[version])));
            assert_eq!(exchange(&mut engine, &mut peer), Err(Fault::NoCertificate));
        }
    }
}
