//! The two sides of a routed connection: a client whose first message is a ClientHello, and the server that it is for.
//!
//! The router reads nothing but the hello, so the two go on in plain text: each byte of it is the test's.

use std::fmt::Write as _;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;

use crate::harness::{Address, Client, Daemon, TempDir, WATCHDOG, reset_on_close, temp_dir};

/// The alert `unrecognized_name`: a record (21, 3.3, 2 bytes) with a fatal alert (2, 112).
pub(crate) const UNRECOGNIZED_NAME: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
/// The alert `decode_error`.
pub(crate) const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];
/// The alert `internal_error`.
pub(crate) const INTERNAL_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 80];

/// The message of a ClientHello without a record, with this name and these protocols.
pub(crate) fn hello_message(name: Option<&str>, protocols: &[&str]) -> Vec<u8> {
    let mut extensions = Vec::new();
    let vector = |bytes: &[u8]| [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
    if let Some(name) = name {
        let entry = [&[0], vector(name.as_bytes()).as_slice()].concat();
        extensions.extend([&[0, 0], vector(&vector(&entry)).as_slice()].concat());
    }
    if !protocols.is_empty() {
        let counted = |protocol: &&str| [&[u8::try_from(protocol.len()).unwrap()], protocol.as_bytes()].concat();
        let list: Vec<u8> = protocols.iter().flat_map(counted).collect();
        extensions.extend([&[0, 16], vector(&vector(&list)).as_slice()].concat());
    }
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    // No session, one cipher suite, no compression.
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(vector(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &length[1..], &body].concat()
}

/// The message in records that hold this number of bytes of it at most.
pub(crate) fn records(message: &[u8], most: usize) -> Vec<u8> {
    let record = |part: &[u8]| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], length.as_slice(), part].concat()
    };
    message.chunks(most).flat_map(record).collect()
}

/// A ClientHello for this name in one record.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    records(&hello_message(Some(name), &[]), 1 << 14)
}

/// A server behind the router.
#[derive(Debug)]
pub(crate) struct Backend {
    listener: TcpListener,
}

impl Backend {
    pub(crate) fn new() -> Self {
        Self::at(0)
    }

    /// A server at this port of 127.0.0.1.
    pub(crate) fn at(port: u16) -> Self {
        Self::on((Ipv4Addr::LOCALHOST, port).into())
    }

    pub(crate) fn on(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).expect("listen");
        Self { listener }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// The next connection from the router.
    #[track_caller]
    pub(crate) fn accept(&self) -> Served {
        let (stream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a watchdog");
        Served { stream }
    }

    /// Returns true if a connection waits to be accepted.
    pub(crate) fn has_connection(&self) -> bool {
        self.listener.set_nonblocking(true).expect("non-blocking");
        let found = self.listener.accept().is_ok();
        self.listener.set_nonblocking(false).expect("blocking");
        found
    }
}

/// The server's end of a routed connection.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) stream: TcpStream,
}

impl Served {
    /// Reads exactly these bytes.
    #[track_caller]
    pub(crate) fn expect(&mut self, expected: impl AsRef<[u8]>) {
        let mut bytes = vec![0; expected.as_ref().len()];
        self.stream
            .read_exact(&mut bytes)
            .unwrap_or_else(|error| panic!("{error} instead of {:?}", String::from_utf8_lossy(expected.as_ref())));
        assert_eq!(
            bytes.escape_ascii().to_string(),
            expected.as_ref().escape_ascii().to_string()
        );
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("send");
    }

    #[track_caller]
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Reads to the end of the client.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.read_to_end(&mut bytes).expect("the end of the client");
        bytes
    }

    /// Reads until the connection is reset.
    #[track_caller]
    pub(crate) fn expect_reset(&mut self) {
        let mut bytes = Vec::new();
        let error = self.stream.read_to_end(&mut bytes).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    pub(crate) fn reset(self) {
        reset_on_close(&self.stream);
    }
}

/// A file with one route door on a free port of 127.0.0.1, which can be written again.
#[derive(Debug)]
pub(crate) struct RouteFile {
    _home: TempDir,
    path: PathBuf,
}

impl RouteFile {
    /// With these keys of the door, and these services: a name and the keys of it.
    pub(crate) fn new(keys: &str, services: &[(&str, String)]) -> Self {
        let home = temp_dir();
        let file = Self {
            path: home.path().join("iotcpd.toml"),
            _home: home,
        };
        file.write(keys, services);
        file
    }

    pub(crate) fn write(&self, keys: &str, services: &[(&str, String)]) {
        let mut text = format!("[route.web]\ntls-listen = '127.0.0.1:0'\n{keys}\n");
        for (name, keys) in services {
            writeln!(text, "[route.web.services.'{name}']\n{keys}").expect("a string");
        }
        fs::write(&self.path, text).expect("write the file");
    }

    pub(crate) fn path(&self) -> &str {
        self.path.to_str().expect("temporary paths are UTF-8")
    }

    #[track_caller]
    pub(crate) fn start(&self) -> Daemon {
        Daemon::with(["run", "--config", self.path()]).start()
    }
}

/// The keys of a service that is reached here by TLS.
pub(crate) fn at(address: SocketAddr) -> String {
    format!("addr = '{}'\ntls-port = {}", address.ip(), address.port())
}

/// A client that has sent its hello for this name, and this behind it.
#[track_caller]
pub(crate) fn client(daemon: &Daemon, name: &str, behind: &str) -> Client {
    client_at(&daemon.addr(), name, behind)
}

#[track_caller]
pub(crate) fn client_at(address: &Address, name: &str, behind: &str) -> Client {
    let mut client = Client::connect(address);
    client.send([&hello(name), behind.as_bytes()].concat());
    client
}

/// The two sides of a connection that goes both ways.
#[track_caller]
pub(crate) fn pair(daemon: &Daemon, backend: &Backend, name: &str) -> (Client, Served) {
    let mut client = client(daemon, name, "ping");
    let mut served = backend.accept();
    served.expect(hello(name));
    served.expect("ping");
    served.send("pong");
    client.read_text("pong");
    (client, served)
}
