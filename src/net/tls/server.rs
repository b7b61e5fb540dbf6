//! The side of a server: which certificates it shows, which versions it speaks, how sessions are resumed.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::Version;
use super::choice::{Choice, Reserving};
use super::engine::Engine;
use super::error::Fault;
use super::identity::Identity;
use super::provider::{provider, ticketer, versions};
use super::verifier::ClientVerifier;

/// The largest number of bytes that a client may send for a handshake. A usual one takes some hundred.
const LONGEST_HANDSHAKE: usize = 16 * 1024;

/// The same, where clients show certificates. rustls takes no longer ones.
const LONGEST_WITH_CERTIFICATES: usize = 64 * 1024;

/// All that a server needs for the handshakes with its clients.
#[derive(Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    choice: Arc<Choice>,
    /// `None` if clients need no certificate.
    clients: Option<Arc<ClientVerifier>>,
    /// The configuration whose slow keys refuse to sign; `None` if there is no slow key.
    reserving: Option<Arc<ServerConfig>>,
}

impl ServerTls {
    /// Builds the server. `lowest` is the oldest version of TLS that it speaks. With `clients`, each client must show a
    /// certificate that it accepts. Tickets that were given out with `before`, its predecessor in the same listeners, stay
    /// valid if both have the same rule about clients.
    ///
    /// # Errors
    /// The machine has no random numbers for the keys of tickets.
    pub fn build(
        choice: Choice,
        lowest: Version,
        clients: Option<Arc<ClientVerifier>>,
        before: Option<&Self>,
    ) -> Result<Self, Fault> {
        let choice = Arc::new(choice);
        let verifier = clients
            .clone()
            .map_or_else(WebPkiClientVerifier::no_client_auth, |clients| {
                clients as Arc<dyn ClientCertVerifier>
            });
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(lowest))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&choice) as Arc<_>);
        // Sessions are resumed by tickets, which the client keeps: in both versions, and without memory here. Early
        // data (0-RTT) stays off, because anyone who records it can send it again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = match before {
            Some(before) if has_same_rule(before.clients.as_deref(), clients.as_deref()) => {
                Arc::clone(&before.config.ticketer)
            }
            Some(_) | None => ticketer()?,
        };
        let is_slow = choice.identities().any(Identity::is_slow);
        let reserving = is_slow.then(|| {
            let mut reserving = config.clone();
            reserving.cert_resolver = Arc::new(Reserving(Arc::clone(&choice)));
            Arc::new(reserving)
        });
        Ok(Self {
            reserving,
            config: Arc::new(config),
            choice,
            clients,
        })
    }

    /// The same server, which agrees with each client on this protocol (ALPN), and refuses the clients that offer others
    /// alone. A server without one takes no part in that.
    #[must_use]
    pub fn with_protocol(mut self, protocol: &[u8]) -> Self {
        Arc::make_mut(&mut self.config).alpn_protocols = vec![protocol.to_vec()];
        if let Some(reserving) = &mut self.reserving {
            Arc::make_mut(reserving).alpn_protocols = vec![protocol.to_vec()];
        }
        self
    }

    /// Begins a connection. Its engine stops for a signature with a slow key.
    ///
    /// # Errors
    /// rustls cannot use the configuration.
    pub fn engine(&self) -> Result<Engine, Fault> {
        let longest = match self.clients {
            Some(_) => LONGEST_WITH_CERTIFICATES,
            None => LONGEST_HANDSHAKE,
        };
        let config = Arc::clone(&self.config);
        match &self.reserving {
            Some(reserving) => Engine::server_that_stops(Arc::clone(reserving), config, longest),
            None => Engine::server(config, longest),
        }
    }

    /// Judges a client whose handshake is done. Must be called for each whose session was resumed, since no certificate
    /// is verified then, and for each whose handshake was made with a predecessor, since its rule may have been another.
    ///
    /// # Errors
    /// The client may not connect.
    pub fn judge(&self, client: &Engine, now: SystemTime) -> Result<(), Fault> {
        match &self.clients {
            Some(rule) => rule.judge(client.peer_certificates(), now),
            None => Ok(()),
        }
    }

    /// Returns true if clients notice no difference to `other`: the same certificates and answers of OCSP are sent to them
    /// and the same rule holds for theirs.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same =
            |(one, other): (&Identity, &Identity)| one.has_same_chain(other) && one.answer() == other.answer();
        self.identities().count() == other.identities().count()
            && self.identities().zip(other.identities()).all(is_same)
            && self.has_same_rule(other)
    }

    /// Returns true if both have the same rule about the certificates of clients.
    #[must_use]
    pub fn has_same_rule(&self, other: &Self) -> bool {
        has_same_rule(self.clients.as_deref(), other.clients.as_deref())
    }

    /// The rule about the certificates of clients; `None` if they need none.
    #[must_use]
    pub const fn clients(&self) -> Option<&Arc<ClientVerifier>> {
        self.clients.as_ref()
    }

    /// The certificates, in the order in which the operator has named them.
    pub fn identities(&self) -> impl Iterator<Item = &Identity> {
        self.choice.identities()
    }

    /// Returns the certificate that expires first.
    #[must_use]
    pub fn first_to_end(&self) -> Option<&Identity> {
        self.identities().min_by_key(|identity| identity.names().not_after)
    }
}

fn has_same_rule(one: Option<&ClientVerifier>, other: Option<&ClientVerifier>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same(other),
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::version::{TLS12, TLS13};
    use rustls::{ClientConfig, ClientConnection, SignatureScheme, SupportedProtocolVersion};

    use super::super::names::Names;
    use super::super::scaffold::{Authority, Peer, exchange};
    use super::*;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    fn identity((certificate, key): (String, String)) -> Identity {
        Identity::from_pem(Path::new("a.pem"), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    fn server(identities: impl IntoIterator<Item = Identity>, before: Option<&ServerTls>) -> ServerTls {
        ServerTls::build(Choice::new(identities).unwrap(), Version::V1_2, None, before).unwrap()
    }

    /// A handshake; returns both sides.
    fn connect(server: &ServerTls, client: &Arc<ClientConfig>, name: &str) -> Result<(Engine, Peer), Fault> {
        let client = ClientConnection::new(Arc::clone(client), name.to_owned().try_into().unwrap());
        let (mut engine, mut peer) = (server.engine()?, Peer::new(client.unwrap()));
        exchange(&mut engine, &mut peer)?;
        Ok((engine, peer))
    }

    #[test]
    fn a_server_with_a_protocol_agrees_on_it_and_on_no_other() {
        let authority = Authority::new();
        let plain = server([identity(authority.certify_pem(&["a"]))], None);
        let speaking = server([identity(authority.certify_pem(&["a"]))], None).with_protocol(b"h2");
        let agreed = |server: &ServerTls, offered: &[&str]| {
            let mut client = (*authority.client(&VERSIONS)).clone();
            client.alpn_protocols = offered.iter().map(|it| it.as_bytes().to_vec()).collect();
            let (_, peer) = connect(server, &Arc::new(client), "a").ok()?;
            Some(peer.connection.alpn_protocol().map(<[u8]>::to_vec))
        };
        assert_eq!(agreed(&plain, &["h2", "http/1.1"]), Some(None));
        assert_eq!(agreed(&speaking, &["http/1.1", "h2"]), Some(Some(b"h2".to_vec())));
        assert_eq!(agreed(&speaking, &[]), Some(None));
        assert_eq!(agreed(&speaking, &["http/1.1"]), None);
    }

    fn is_resumed(server: &ServerTls, client: &Arc<ClientConfig>) -> bool {
        let (engine, _) = connect(server, client, "a").unwrap();
        engine.established().unwrap().is_resumed
    }

    #[test]
    fn each_client_is_shown_the_certificate_of_the_name_it_asks_for() {
        let authority = Authority::new();
        let names = ["first", "a", "*.b.example"];
        let server = server(names.map(|name| identity(authority.certify_pem(&[name]))), None);
        for version in VERSIONS {
            let client = authority.client(&[version]);
            for (asked, shown) in [("a", "a"), ("x.b.example", "*.b.example"), ("first", "first")] {
                let (_, peer) = connect(&server, &client, asked).unwrap();
                let certificate = &peer.connection.peer_certificates().unwrap()[0];
                assert_eq!(Names::read(certificate).unwrap().dns, [shown]);
            }
            let outcome = connect(&server, &client, "unknown");
            let refusal = outcome.unwrap_err().to_string();
            assert_eq!(
                refusal,
                "it does not accept this side's certificate (alert BadCertificate)"
            );
        }
    }

    #[test]
    fn a_client_that_cannot_check_the_first_key_is_shown_the_second() {
        let authority = Authority::new();
        let (fast, slow) = (
            identity(authority.certify_pem(&["a"])),
            identity(authority.certify_rsa_pem(&["a"])),
        );
        let server = server([fast, slow], None);
        let mut provider = (*provider()).clone();
        let accepted = &mut provider.signature_verification_algorithms;
        let is_rsa = |scheme: &SignatureScheme| scheme.as_str().is_some_and(|name| name.starts_with("RSA"));
        let rsa = accepted.mapping.iter().filter(|(scheme, _)| is_rsa(scheme));
        accepted.mapping = rsa.copied().collect::<Vec<_>>().leak();
        let client = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(versions(Version::V1_2))
            .unwrap()
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        connect(&server, &Arc::new(client), "a").unwrap();
    }

    #[test]
    fn sessions_are_resumed_by_tickets_that_outlive_new_certificates() {
        let authority = Authority::new();
        let new = |before: Option<&ServerTls>| server([identity(authority.certify_pem(&["a"]))], before);
        for version in VERSIONS {
            let client = authority.client(&[version]);
            let first = new(None);
            assert!(!is_resumed(&first, &client));
            assert!(is_resumed(&first, &client));
            let renewed = new(Some(&first));
            assert!(is_resumed(&renewed, &client));
            assert!(!is_resumed(&new(None), &client), "keys of tickets are not shared");
        }
    }

    #[test]
    fn a_session_is_resumed_for_its_own_name_only() {
        let authority = Authority::new();
        let server = server([identity(authority.certify_pem(&["a", "b"]))], None);
        for version in VERSIONS {
            let client = authority.client(&[version]);
            for name in ["a", "b"] {
                let (engine, _) = connect(&server, &client, name).unwrap();
                assert!(!engine.established().unwrap().is_resumed);
            }
        }
    }

    #[test]
    fn the_lowest_version_is_held() {
        let authority = Authority::new();
        let choice = Choice::new([identity(authority.certify_pem(&["a"]))]).unwrap();
        let server = ServerTls::build(choice, Version::V1_3, None, None).unwrap();
        connect(&server, &authority.client(&[&TLS13]), "a").unwrap();
        let outcome = connect(&server, &authority.client(&[&TLS12]), "a");
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "it offers no version of TLS that is allowed here"
        );
    }

    #[test]
    fn early_data_is_not_accepted() {
        let authority = Authority::new();
        let server = server([identity(authority.certify_pem(&["a"]))], None);
        let mut client = (*authority.client(&[&TLS13])).clone();
        client.enable_early_data = true;
        let client = Arc::new(client);
        connect(&server, &client, "a").unwrap();
        let mut again = ClientConnection::new(client, "a".try_into().unwrap()).unwrap();
        assert!(again.early_data().is_none(), "the ticket allows none");
    }

    #[test]
    fn the_first_end_is_the_earliest() {
        let authority = Authority::new();
        let until = |year| {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            identity(authority.sign_pem(&params, &rcgen::KeyPair::generate().unwrap()))
        };
        let server = server([until(2030), until(2028), until(2029)], None);
        let ends = server.identities().map(|identity| identity.names().last_day());
        assert_eq!(ends.collect::<Vec<_>>(), ["2030-01-01", "2028-01-01", "2029-01-01"]);
        let earliest = server.identities().nth(1).unwrap().names().not_after;
        let first = server.first_to_end().map(|identity| identity.names().not_after);
        assert_eq!(first, Some(earliest));
    }
}
