//! Shared by the tests of this room: certificates, and the configurations that use them.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::engine::Engine;
use super::provider::provider;

/// An authority that tests let sign certificates.
pub(in crate::net) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(in crate::net) certificate: rcgen::Certificate,
}

impl Authority {
    pub(in crate::net) fn new() -> Self {
        Self::named("authority")
    }

    /// Authorities of different names are strangers to each other.
    pub(in crate::net) fn named(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    /// A certificate with these parameters, and its key.
    pub(in crate::net) fn sign(&self, params: &CertificateParams) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        (certificate.der().clone(), key.into())
    }

    /// A certificate for these names, and its key.
    pub(in crate::net) fn certify(&self, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
        self.sign(&CertificateParams::new(names).expect("names"))
    }

    pub(in crate::net) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a root");
        roots
    }

    /// A server for these names that speaks these versions.
    pub(in crate::net) fn server(
        &self,
        names: &[&str],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ServerConfig> {
        let (certificate, key) = self.certify(names);
        let config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key);
        Arc::new(config.expect("a configuration"))
    }

    /// Both sides of a connection with TLS 1.3: the engine of the server, and a client of plain rustls.
    pub(in crate::net) fn sides(&self) -> (Engine, ClientConnection) {
        let server = self.server(&["localhost"], &[&TLS13]);
        let name = ServerName::try_from("localhost").expect("a name");
        let client = ClientConnection::new(self.client(&[&TLS13]), name).expect("a client");
        (Engine::server(server, 16 << 10).expect("a server"), client)
    }

    /// A client that trusts this authority and speaks these versions.
    pub(in crate::net) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(self.roots())
            .with_no_client_auth();
        Arc::new(config)
    }
}
