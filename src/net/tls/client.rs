//! The side of a client: which authorities it trusts, which certificate it shows, and the sessions that it resumes.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::pki_types::{IpAddr, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};

use super::Version;
use super::engine::Engine;
use super::error::Fault;
use super::identity::Identity;
use super::provider::{provider, versions};

/// The largest number of bytes that a server may send for a handshake. Its certificates are most of them; rustls takes
/// no longer ones.
const LONGEST_HANDSHAKE: usize = 64 * 1024;

/// The number of sessions that are kept. Each is used once, and each connection brings new ones.
const SESSIONS: usize = 256;

/// All that a client needs for the handshakes with its servers. A program makes one, so that a connection resumes the
/// session of an earlier one.
#[derive(Debug)]
pub struct ClientTls {
    config: Arc<ClientConfig>,
}

impl ClientTls {
    /// Builds the client. It trusts the authorities in `roots`, and shows the certificate of `identity` to a server
    /// that asks for one. Its signatures are made on the loop, those of slow keys too: only connections of this one
    /// program to its own servers wait for them, and none is made where a session is resumed.
    ///
    /// # Errors
    /// rustls cannot speak the versions of TLS that this program speaks.
    pub fn build(roots: RootCertStore, identity: Option<&Identity>) -> Result<Self, Fault> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions(Version::V1_2))?
            .with_root_certificates(roots);
        let mut config = match identity {
            Some(identity) => {
                let shown = SingleCertAndKey::from(identity.certified(SystemTime::now()));
                config.with_client_cert_resolver(Arc::new(shown))
            }
            None => config.with_no_client_auth(),
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        Ok(Self {
            config: Arc::new(config),
        })
    }

    /// Begins a connection to a server whose certificate must have this name.
    ///
    /// # Errors
    /// rustls cannot use the configuration.
    pub fn engine(&self, name: ServerName<'static>) -> Result<Engine, Fault> {
        Engine::client(Arc::clone(&self.config), name, LONGEST_HANDSHAKE)
    }
}

/// Returns the name that the certificate of a host must have: the host's name or its address, without the zone. `None`
/// if no certificate can have it.
#[must_use]
pub fn server_name(host: &str) -> Option<ServerName<'static>> {
    let name = match host.split_once('%') {
        Some((address, _)) => ServerName::IpAddress(IpAddr::try_from(address).ok()?),
        None => ServerName::try_from(host).ok()?,
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::server::WebPkiClientVerifier;
    use rustls::version::{TLS12, TLS13};
    use rustls::{ServerConfig, ServerConnection, SupportedProtocolVersion};

    use super::super::names::Names;
    use super::super::scaffold::{Authority, Peer, exchange};
    use super::*;

    const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

    /// A handshake with a server. Returns both sides.
    fn connect(client: &ClientTls, server: &Arc<ServerConfig>, name: &str) -> Result<(Engine, Peer), Fault> {
        let mut engine = client.engine(server_name(name).unwrap())?;
        let mut peer = Peer::new(ServerConnection::new(Arc::clone(server)).unwrap());
        exchange(&mut engine, &mut peer)?;
        Ok((engine, peer))
    }

    fn refusal(client: &ClientTls, server: &Arc<ServerConfig>, name: &str) -> String {
        connect(client, server, name).unwrap_err().to_string()
    }

    /// A server that asks for a certificate of this authority.
    fn asking(authority: &Authority, version: &'static SupportedProtocolVersion) -> Arc<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authority.roots()), provider());
        let (certificate, key) = authority.certify(&["a"]);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }

    /// A server that shows this certificate.
    fn showing((certificate, key): (CertificateDer<'static>, PrivateKeyDer<'static>)) -> Arc<ServerConfig> {
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&VERSIONS)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }

    fn identity(authority: &Authority) -> Identity {
        let (certificate, key) = authority.certify_pem(&["squid-1"]);
        Identity::from_pem(Path::new("a.pem"), certificate.as_bytes(), key.as_bytes()).unwrap()
    }

    #[test]
    fn a_server_of_a_trusted_authority_is_connected_to() {
        let authority = Authority::new();
        let client = ClientTls::build(authority.roots(), None).unwrap();
        for version in VERSIONS {
            let server = authority.server(&["a", "127.0.0.1", "::1"], &[version]);
            for name in ["a", "127.0.0.1", "::1"] {
                let (mut engine, mut peer) = connect(&client, &server, name).unwrap();
                peer.send(b"greeting");
                exchange(&mut engine, &mut peer).unwrap();
                assert!(engine.has_plaintext());
            }
        }
    }

    #[test]
    fn any_other_server_is_refused() {
        let (ours, foreign) = (Authority::new(), Authority::named("another"));
        let client = ClientTls::build(ours.roots(), None).unwrap();
        let server = ours.server(&["a"], &VERSIONS);
        assert_eq!(
            refusal(&client, &server, "b"),
            "its certificate is not for b, but for a"
        );
        assert_eq!(
            refusal(&client, &server, "127.0.0.1"),
            "its certificate is not for 127.0.0.1, but for a"
        );
        let server = foreign.server(&["a"], &VERSIONS);
        assert_eq!(
            refusal(&client, &server, "a"),
            "its certificate comes from no authority that is trusted here"
        );
        let trusts_none = ClientTls::build(RootCertStore::empty(), None).unwrap();
        assert!(connect(&trusts_none, &server, "a").is_err());
    }

    #[test]
    fn a_server_whose_certificate_has_no_time_left_or_not_begun_is_refused() {
        let authority = Authority::new();
        let client = ClientTls::build(authority.roots(), None).unwrap();
        for (from, to, expected) in [
            (2000, 2001, "its certificate has expired"),
            (4000, 4001, "its certificate is not valid yet"),
        ] {
            let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
            params.not_before = rcgen::date_time_ymd(from, 1, 1);
            params.not_after = rcgen::date_time_ymd(to, 1, 1);
            let server = showing(authority.sign(&params));
            assert_eq!(refusal(&client, &server, "a"), expected);
        }
    }

    /// `openssl req -x509` makes such a certificate where nothing else is said.
    #[test]
    fn a_server_with_the_certificate_of_an_authority_is_refused_with_the_remedy() {
        let authority = Authority::new();
        let client = ClientTls::build(authority.roots(), None).unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let reason = refusal(&client, &showing(authority.sign(&params)), "a");
        assert!(reason.contains("basicConstraints=CA:FALSE"), "{reason}");
    }

    #[test]
    fn a_server_of_another_authority_of_the_same_name_is_refused_with_the_reason() {
        let client = ClientTls::build(Authority::new().roots(), None).unwrap();
        let server = Authority::new().server(&["a"], &VERSIONS);
        let reason = refusal(&client, &server, "a");
        assert!(reason.contains("another authority of the same name"), "{reason}");
    }

    #[test]
    fn a_server_that_asks_for_a_certificate_is_shown_it() {
        let authority = Authority::new();
        let client = ClientTls::build(authority.roots(), Some(&identity(&authority))).unwrap();
        for version in VERSIONS {
            let (_, peer) = connect(&client, &asking(&authority, version), "a").unwrap();
            let shown = &peer.connection.peer_certificates().unwrap()[0];
            assert_eq!(Names::read(shown).unwrap().dns, ["squid-1"]);
            // No other server sees it.
            let (_, peer) = connect(&client, &authority.server(&["a"], &[version]), "a").unwrap();
            assert_eq!(peer.connection.peer_certificates(), None);
        }
    }

    /// In TLS 1.3, a client has finished its handshake before the server has judged its certificate.
    #[test]
    fn a_client_without_the_certificate_that_is_asked_for_hears_of_it() {
        let (ours, foreign) = (Authority::new(), Authority::named("another"));
        let none = ClientTls::build(ours.roots(), None).unwrap();
        let wrong = ClientTls::build(ours.roots(), Some(&identity(&foreign))).unwrap();
        for version in VERSIONS {
            let server = asking(&ours, version);
            let reason = refusal(&none, &server, "a");
            assert!(reason.ends_with("(alert CertificateRequired)"), "{reason}");
            let reason = refusal(&wrong, &server, "a");
            assert!(reason.ends_with("(alert UnknownCA)"), "{reason}");
        }
    }

    #[test]
    fn a_farm_of_connections_pays_one_handshake() {
        let authority = Authority::new();
        let client = ClientTls::build(authority.roots(), None).unwrap();
        for version in VERSIONS {
            let server = authority.server(&["a"], &[version]);
            for number in 0..20 {
                let (engine, _) = connect(&client, &server, "a").unwrap();
                assert_eq!(engine.established().unwrap().is_resumed, number > 0, "{number}");
            }
        }
    }

    #[test]
    fn the_name_of_a_host_is_the_name_of_its_certificate() {
        for (host, expected) in [
            ("a.example", Some("a.example")),
            ("a_b.example", Some("a_b.example")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("fe80::1%2", Some("fe80::1")),
            ("fe80::1%eth0", Some("fe80::1")),
            ("", None),
            ("a b", None),
            ("-", None),
            ("a..b", None),
            ("a%b", None),
        ] {
            let name = server_name(host);
            assert_eq!(name.as_ref().map(|name| name.to_str()).as_deref(), expected, "{host}");
        }
    }
}
