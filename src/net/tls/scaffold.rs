//! Shared by the tests of this room: certificates, and the configurations that use them.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, ClientConnection, Connection, Error, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};

use super::engine::Engine;
use super::error::Fault;
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

    /// A certificate with these parameters for this key, which is in PEM, too.
    pub(super) fn sign_pem(&self, params: &CertificateParams, key: &KeyPair) -> (String, String) {
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// A certificate for these names and its key, in PEM.
    pub(super) fn certify_pem(&self, names: &[&str]) -> (String, String) {
        self.sign_pem(&for_names(names), &KeyPair::generate().expect("a key"))
    }

    /// The same with an RSA key.
    pub(super) fn certify_rsa_pem(&self, names: &[&str]) -> (String, String) {
        self.sign_pem(&for_names(names), &KeyPair::from_pem(RSA_KEY).expect("a key"))
    }

    /// A certificate for these names, and its key.
    pub(in crate::net) fn certify(&self, names: &[&str]) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        self.sign(&for_names(names))
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

    /// The same for the other side: the engine of the client, and a server of plain rustls.
    pub(in crate::net) fn sides_for_a_client(&self) -> (Engine, ServerConnection) {
        let name = ServerName::try_from("localhost").expect("a name");
        let engine = Engine::client(self.client(&[&TLS13]), name, 16 << 10).expect("a client");
        let server = ServerConnection::new(self.server(&["localhost"], &[&TLS13]));
        (engine, server.expect("a server"))
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

fn for_names(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().copied().map(str::to_owned).collect();
    CertificateParams::new(names).expect("names")
}

/// The other side, which is rustls alone.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) connection: Connection,
    pub(super) received: Vec<u8>,
    pub(super) has_ended: bool,
}

impl Peer {
    pub(super) fn new(connection: impl Into<Connection>) -> Self {
        let mut connection = connection.into();
        connection.set_buffer_limit(None);
        Self {
            connection,
            received: Vec::new(),
            has_ended: false,
        }
    }

    pub(super) fn send(&mut self, plaintext: &[u8]) {
        self.connection.writer().write_all(plaintext).unwrap();
    }

    /// Everything that it has to say.
    pub(super) fn ciphertext(&mut self) -> Vec<u8> {
        let mut ciphertext = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut ciphertext).unwrap();
        }
        ciphertext
    }

    pub(super) fn take(&mut self, mut ciphertext: &[u8]) -> Result<(), Error> {
        while !ciphertext.is_empty() && !self.has_ended {
            self.connection.read_tls(&mut ciphertext).unwrap();
            let state = self.connection.process_new_packets()?;
            self.has_ended = state.peer_has_closed();
            let read = self.connection.reader().read_to_end(&mut self.received);
            assert!(read.is_ok() || read.unwrap_err().kind() == ErrorKind::WouldBlock);
        }
        Ok(())
    }
}

/// All that the engine has to send.
pub(super) fn drained(engine: &mut Engine) -> Vec<u8> {
    let mut ciphertext = Vec::new();
    engine.drain(&mut ciphertext).unwrap();
    assert!(!engine.has_unsent());
    ciphertext
}

/// Moves bytes both ways until neither side has any. A signature that is needed is made.
pub(super) fn exchange(engine: &mut Engine, peer: &mut Peer) -> Result<(), Fault> {
    loop {
        let ciphertext = peer.ciphertext();
        let taken = engine.feed(&ciphertext)?;
        if let Some(unsigned) = engine.take_unsigned() {
            *engine = unsigned.sign()?;
            engine.feed(&ciphertext[taken..])?;
        }
        let answer = drained(engine);
        // Its failure is told by an alert.
        let _ = peer.take(&answer);
        if ciphertext.is_empty() && answer.is_empty() {
            return Ok(());
        }
    }
}

/// A key for tests, which ring can use and not make.
pub(super) const RSA_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCJXfQn5Z5+rjiK
S8ci9xXQ4TcC5F1o71/mdXADsgW4WAVuXLQXmIB25bgUntBW+UjIveuDiMKZ2t9x
zAD18iSlWBWSrZa3pc26LSglcjYT1mTHPZtuXis+JVO+EUmiDSLG+fU/UbWC3TIQ
i6TsZ4/n9V+ZYs5lAn94Kw6Oq+xJtNpBIo7lUysX1uDFPXmDRhIZqV2pWVau/y0T
4qoNpQrlu6XOToMYhFAVGRNz5+tdqHqiDtudtKRmB9WN4+quURiRb7BZDDfmgpBg
na5p2/nWJ28GXedoddOQwsF3jdBJTOq02AqRHDuZUyB8Le58YDNurGR+XhW+9wz4
OCjeoBVlAgMBAAECggEABk2ioLsLXw5BB22LPXo/jMZs1wviEmjbinBsm6rNUuRt
GV+VHvkPOgV4ATA5aKhHM/jtB+vcXCF8O9VL3P1Hu7OTR9gB0LsBue+NBkzbmOTv
WmokCfg1vUQKt+/EpHQ8WouJOqbV8KOUQsiZoIRvCMqMYLY1ONLYxQuavya58LbT
z9B82+Vakr0ihBto8mV6XU/2x4pc5b4vo+SPz0+WeUrKPQ212V29awhF/a1pKVNU
uoGG8jt7fbOU1yj7RGDOOnJX981+7rlz/sMFe3Dc3uvZFGfDNVaW+yBc00Vr3K3Q
K3Uz2o+xu3MSPhN3NSL4wRRsPLLGxNk42JJJQuUZMQKBgQC+OP5V3sG9ZlZyMHnQ
pq5H83+b1wxBDAHFCVdeiWJ0i0oBD6wSy3uw0zMLI4er/gySK7mQuJ2y4MbL5Fgb
s4UAHnCLLeOg7qWywMWBv7EcBwHQHg/kirOxq0nEgTGEa0G9JoNpXyXFq96wsPuW
JufRdCKAbleRPrX1wa/zg+xjsQKBgQC43gqrcnL/fOAHpChMEVtu6P4D1mrtUdss
fNpySCW/VMghbWfmg+70BXaDaaVdFYxz6kbISXuAsIOVKnc8MGZxrxymMDSYDl4S
G8nv+NE4yVGBAY75pIGDwOGM2/Mx6orh2r5U5ft1TFMzBXhWn2NodxuaND8ApiMG
KZpKfju99QKBgQCG/83IxWl78FgjfDHHmbOQTsheojUJKOtMmf+OkTP1gDEKJcQ6
Jn1nFcxg+Fs9/fOP/UYZ5lvM6mdLpoe9SR934SKANBYbTaL9BIBnP9MDEBoCSIOA
78rtqaGVuxaYYsJp6h5TNvqImhxWC5TRkFTvOluOCEFPTFE407f6u8KVUQKBgAI+
F00LH2AACMuu7xo1H7HRu7saL8PfOVRp01CNlX+jrKXTKO5/7TcildR0RKBDcae6
UM9/LLNb8MyvbjDZuXRplmRhs1Gg4v0/PwzdLNSOhKGW/kADAdsyTMojpOiXGsYw
nBx1ib5bharZxyLt3gvXXgtZ1OXSHhymBoweyeS9AoGBALCV5GCQq+YtY2J3kzj8
Mxu63M/i25DhylfVXGCWSekgfgGF1hP1XW/deG9I8F8NLQVexMTNLrqEQG6lirFC
k8xlhpAObDru2AMNqWHhtxc/0csAt7jyRxu48oai4KApQfX2tG3kxRumgV5FNJM5
cnJJ4n+0uiOvLrT/aU2z2LO/
-----END PRIVATE KEY-----
";
