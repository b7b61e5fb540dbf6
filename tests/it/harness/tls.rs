//! TLS for the tests: a certificate with its key in files, the clients that trust it, and tests that run once more with
//! their clients over TLS.

use std::cell::Cell;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, LazyLock};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion};

use super::{TempDir, temp_dir};

/// A certificate for one host, signed by itself.
#[derive(Debug)]
pub(crate) struct Certificate {
    directory: TempDir,
    host: String,
    config: Arc<ClientConfig>,
}

impl Certificate {
    /// One for `localhost`.
    pub(crate) fn new() -> Self {
        Self::of_host("localhost")
    }

    pub(crate) fn of_host(host: &str) -> Self {
        let made = rcgen::generate_simple_self_signed([host.to_owned()]).expect("a certificate");
        let certificate = Self::from_pem(&made.cert.pem(), &made.signing_key.serialize_pem(), false);
        Self {
            host: host.to_owned(),
            ..certificate
        }
    }

    /// One with a key of RSA, of 4096 bits: a signature takes milliseconds. All tests share the key.
    pub(crate) fn rsa() -> Self {
        let (certificate, key) = &*RSA;
        Self::from_pem(certificate, key, false)
    }

    /// One with this common name, which clients show as well: it is its own authority.
    pub(crate) fn of_clients(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        let made = params.self_signed(&key).expect("a certificate");
        Self::from_pem(&made.pem(), &key.serialize_pem(), true)
    }

    fn from_pem(pem: &str, key: &str, is_shown_by_clients: bool) -> Self {
        let own = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
        let shown = is_shown_by_clients.then(|| PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key"));
        let certificate = Self {
            directory: temp_dir(),
            host: "localhost".to_owned(),
            config: config(own, shown, &[&TLS13, &TLS12]),
        };
        certificate.write("key.pem", key);
        certificate.write("cert.pem", pem);
        certificate
    }

    /// Puts another certificate into the files.
    pub(crate) fn replace_by(&self, other: &Self) {
        for name in ["key.pem", "cert.pem"] {
            let text = fs::read_to_string(other.file(name)).expect("read a file");
            self.write(name, &text);
        }
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
        let name = ServerName::try_from(self.host.clone()).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name).expect("a client");
        StreamOwned::new(connection, socket)
    }

    /// The same for a client that speaks one version, and has no session of an earlier one.
    pub(crate) fn client_of(
        &self,
        version: &'static SupportedProtocolVersion,
        socket: TcpStream,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let own = CertificateDer::from_pem_file(self.file("cert.pem")).expect("the certificate");
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(config(own, None, &[version]), name).expect("a client");
        StreamOwned::new(connection, socket)
    }

    /// The side of a client that offers these protocols, before its first byte.
    pub(crate) fn connection_offering(&self, protocols: &[&str]) -> ClientConnection {
        let mut config = (*self.config).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(self.host.clone()).expect("a name");
        ClientConnection::new(Arc::new(config), name).expect("a client")
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

/// A certificate for `localhost` with a key of RSA, and the key: rcgen cannot make one.
static RSA: LazyLock<(String, String)> = LazyLock::new(|| {
    let directory = temp_dir();
    let [certificate, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:4096", "-nodes", "-days", "100", "-subj"])
        .args(["/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-out"])
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output()
        .expect("openssl is installed");
    assert!(made.status.success(), "{made:?}");
    let read = |file| fs::read_to_string(file).expect("openssl has written it");
    (read(certificate), read(key))
});

/// The settings of clients that trust this certificate, and show it if they have its key.
fn config(
    own: CertificateDer<'static>,
    key: Option<PrivateKeyDer<'static>>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(own.clone()).expect("a root");
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match key {
        Some(key) => config
            .with_client_auth_cert(vec![own], key)
            .expect("a certificate with its key"),
        None => config.with_no_client_auth(),
    };
    // Some tests forge records.
    config.enable_secret_extraction = true;
    Arc::new(config)
}

/// Certificates are the same if they are in the same files.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.directory.path() == other.directory.path()
    }
}

impl Eq for Certificate {}

/// The connection of a client.
#[derive(Debug)]
pub(super) struct TlsStream {
    stream: StreamOwned<ClientConnection, TcpStream>,
    /// True if the end is said when the connection is dropped, if that is possible at once.
    pub(super) says_end_when_dropped: bool,
}

impl TlsStream {
    pub(super) const fn new(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self {
            stream,
            says_end_when_dropped: false,
        }
    }

    pub(super) fn make_handshake(&mut self) -> io::Result<()> {
        while self.stream.conn.is_handshaking() {
            self.stream.conn.complete_io(&mut self.stream.sock)?;
        }
        Ok(())
    }

    pub(super) const fn socket(&self) -> &TcpStream {
        &self.stream.sock
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    pub(super) fn say_end(&mut self) -> io::Result<()> {
        self.stream.conn.send_close_notify();
        self.stream.flush()
    }

    /// Returns true if there are bytes to be read right now, or the end. Tickets and other words of TLS are none.
    pub(super) fn has_input(&mut self) -> bool {
        self.set_nonblocking(true);
        let StreamOwned { conn, sock } = &mut self.stream;
        let has_input = loop {
            match conn.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                Ok(_) | Err(_) => break true,
            }
            match done(conn.read_tls(sock)) {
                Ok(None) => break false,
                Ok(Some(1..)) => {}
                Ok(Some(0)) | Err(_) => break true,
            }
        };
        self.set_nonblocking(false);
        has_input
    }

    /// Sends all of these bytes and says the end, while it reads to the end.
    pub(super) fn exchange(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        self.set_nonblocking(true);
        let received = self.exchange_at_once(bytes);
        self.set_nonblocking(false);
        received
    }

    fn exchange_at_once(&mut self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let StreamOwned { conn, sock } = &mut self.stream;
        let (mut unsent, mut received, mut piece, mut has_ended) = (bytes, Vec::new(), vec![0; 50_000], false);
        loop {
            let encrypted = conn.writer().write(unsent)?;
            unsent = unsent.get(encrypted..).unwrap_or_default();
            if unsent.is_empty() && !std::mem::replace(&mut has_ended, true) {
                conn.send_close_notify();
            }
            if conn.wants_write() {
                done(conn.write_tls(sock))?;
            }
            if done(conn.read_tls(sock))?.is_some() {
                conn.process_new_packets().map_err(io::Error::other)?;
            }
            match done(conn.reader().read(&mut piece))? {
                Some(0) => return Ok(received),
                Some(count) => received.extend_from_slice(&piece[..count]),
                None => {
                    let wanted = if conn.wants_write() {
                        PollFlags::POLLIN | PollFlags::POLLOUT
                    } else {
                        PollFlags::POLLIN
                    };
                    poll(&mut [PollFd::new(sock.as_fd(), wanted)], PollTimeout::NONE)?;
                }
            }
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) {
        self.socket().set_nonblocking(nonblocking).expect("a flag of a socket");
    }
}

/// The result of a call that does not block; `None` if it would.
pub(crate) fn done(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        result => result.map(Some),
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if self.says_end_when_dropped {
            self.set_nonblocking(true);
            // A peer that has gone, or does not read, does not learn of it.
            let _ = self.say_end();
        }
    }
}

// ---- tests over TLS ----------------------------------------------------------------------------------------------

thread_local! {
    static IS_OVER_TLS: Cell<bool> = const { Cell::new(false) };
    /// The number of daemons of the test that speak TLS.
    static SPEAKING: Cell<u32> = const { Cell::new(0) };
}

/// Returns true in a test that runs over TLS: its daemons speak TLS where they would listen on a free port of 127.0.0.1,
/// and its clients do there.
pub(crate) fn is_over_tls() -> bool {
    IS_OVER_TLS.get()
}

/// Runs a test over TLS. At least one of its daemons must speak it.
#[track_caller]
pub(crate) fn run_over_tls(test: fn()) {
    struct Over;
    impl Drop for Over {
        fn drop(&mut self) {
            IS_OVER_TLS.set(false);
        }
    }
    let _over = Over;
    IS_OVER_TLS.set(true);
    SPEAKING.set(0);
    test();
    assert!(SPEAKING.get() > 0, "no daemon had an address that could be put on TLS");
}

/// Must be called in a test that runs once more in another process, which starts its daemons.
pub(crate) fn leave_daemons_to_another_process() {
    SPEAKING.set(SPEAKING.get() + 1);
}

/// Puts the arguments of a daemon on TLS, if the test runs over it and they name an address for that.
pub(super) fn put_on_tls(arguments: &mut Vec<String>) -> Option<Arc<Certificate>> {
    if !is_over_tls() {
        return None;
    }
    let before = std::mem::take(arguments);
    let mut words = before.iter().map(String::as_str).peekable();
    let mut addresses = 0;
    while let Some(word) = words.next() {
        if word == "-p" && words.next_if_eq(&"0").is_some() {
            arguments.extend(["--listen", "tls:127.0.0.1:0"].map(str::to_owned));
            addresses += 1;
        } else if word == "127.0.0.1:0" {
            arguments.push(format!("tls:{word}"));
            addresses += 1;
        } else {
            arguments.push(word.to_owned());
        }
    }
    if addresses == 0 {
        return None;
    }
    SPEAKING.set(SPEAKING.get() + 1);
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    arguments.extend(["--cert", &cert, "--key", &key].map(str::to_owned));
    Some(Arc::new(certificate))
}

/// Runs tests of a module once more, over TLS.
macro_rules! over_tls {
    ($($test:ident),+ $(,)?) => {
        mod over_tls {
            $(
                #[test]
                fn $test() {
                    crate::harness::run_over_tls(super::$test);
                }
            )+
        }
    };
}
pub(crate) use over_tls;
