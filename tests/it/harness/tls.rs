//! TLS for the tests: a certificate with its key in files, and the clients that trust it.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{TempDir, temp_dir};

/// A certificate for `localhost`, signed by itself.
#[derive(Debug)]
pub(crate) struct Certificate {
    directory: TempDir,
    config: Arc<ClientConfig>,
}

impl Certificate {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let directory = temp_dir();
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).expect("a root");
        let certificate = Self {
            directory,
            config: config(roots, &[&TLS13, &TLS12]),
        };
        certificate.write("key.pem", &made.signing_key.serialize_pem());
        certificate.write("cert.pem", &made.cert.pem());
        certificate
    }

    /// Writes another file beside them, which no other user may read. Returns its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let file = self.file(name);
        fs::write(&file, text).expect("write a file");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("protect a file");
        self.path(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of a file: `cert.pem`, `key.pem`, or one that was written beside them.
    pub(crate) fn path(&self, name: &str) -> String {
        self.file(name).to_str().expect("temporary paths are UTF-8").to_owned()
    }

    /// The flags for a listener on a free port of 127.0.0.1 with this certificate.
    pub(crate) fn flags(&self) -> Vec<String> {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        ["--listen", "tls:127.0.0.1:0", "--cert", &cert, "--key", &key]
            .map(str::to_owned)
            .to_vec()
    }

    /// The side of a client on this socket, before its first byte.
    pub(crate) fn client(&self, socket: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        StreamOwned::new(connection, socket)
    }

    /// The first message of a client.
    pub(crate) fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        let mut hello = Vec::new();
        connection.write_tls(&mut hello).expect("a hello");
        hello
    }
}

fn config(roots: RootCertStore, versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
