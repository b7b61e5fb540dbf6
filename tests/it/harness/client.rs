//! A client of the daemon: blocking, over TCP, TLS or a UNIX socket, with every rudeness that a client is capable of.
//!
//! Reads give up after [`patience`](super::patience) and fail the test; nothing else here knows of time.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt};

use super::tls::TlsStream;
use super::{Certificate, patience};

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Address {
    /// An address and port.
    Tcp(SocketAddr),
    /// An address and port at which clients speak TLS, with a server of this certificate.
    Tls(SocketAddr, Arc<Certificate>),
    /// The path of a socket.
    Unix(String),
}

impl Address {
    /// Reads what the daemon says behind `listening on`: `127.0.0.1:9991`, `[::1]:9991` or `unix:/run/x.sock`, with or
    /// without `tls:` in front.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix("tls:").unwrap_or(text);
        match text.strip_prefix("unix:") {
            Some(path) => Some(Self::Unix(path.to_owned())),
            None => text.parse().ok().map(Self::Tcp),
        }
    }

    /// The same address for clients that send something in front of TLS.
    pub(crate) fn without_tls(&self) -> Self {
        match self {
            Self::Tls(address, _) => Self::Tcp(*address),
            Self::Tcp(_) | Self::Unix(_) => self.clone(),
        }
    }

    /// The port, of a TCP address.
    #[track_caller]
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Tcp(address) | Self::Tls(address, _) => address.port(),
            Self::Unix(path) => panic!("{path} is a UNIX socket and has no port"),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Tls(address, _) => write!(f, "tls:{address}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream>),
}

impl Client {
    /// Connects, and where clients speak TLS makes the handshake. If that fails, so will whatever is read or sent.
    #[track_caller]
    pub(crate) fn connect(address: &Address) -> Self {
        let stream = match address {
            Address::Tcp(address) | Address::Tls(address, _) => TcpStream::connect(address).map(Stream::Tcp),
            Address::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
        };
        let stream = stream.unwrap_or_else(|error| panic!("cannot connect to {address}: {error}"));
        stream.set_watchdog();
        Self { stream }.put_on_tls(address)
    }

    /// Connects over TCP from this address of our own: on Linux all of 127.0.0.0/8 is.
    #[track_caller]
    pub(crate) fn connect_from(source: Ipv4Addr, address: &Address) -> Self {
        let (Address::Tcp(SocketAddr::V4(target)) | Address::Tls(SocketAddr::V4(target), _)) = address else {
            panic!("{address} is no address of IPv4")
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let stream = socket(AddressFamily::Inet, SockType::Stream, flags, None)
            .and_then(|socket| {
                bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
                connect(socket.as_raw_fd(), &SockaddrIn::from(*target))?;
                Ok(Stream::Tcp(TcpStream::from(socket)))
            })
            .unwrap_or_else(|error| panic!("cannot connect from {source} to {address}: {error}"));
        stream.set_watchdog();
        Self { stream }.put_on_tls(address)
    }

    /// Makes the handshake of TLS on a TCP connection, with a server of this certificate. What is sent and read from then
    /// on goes through TLS, and so does a half-close. Dropped, the connection is cut: it ends without close_notify.
    #[track_caller]
    pub(crate) fn secure(self, certificate: &Certificate) -> Self {
        let (client, made) = self.begin_tls(certificate);
        made.unwrap_or_else(|error| panic!("the handshake fails: {error}"));
        client
    }

    /// Makes the handshake of TLS where clients of this address speak it. If that fails, so will whatever is read or sent.
    /// Dropped, the connection ends as a program ends it that closes it.
    #[track_caller]
    pub(crate) fn put_on_tls(self, address: &Address) -> Self {
        match address {
            Address::Tcp(_) | Address::Unix(_) => self,
            Address::Tls(_, certificate) => {
                let mut client = self.begin_tls(certificate).0;
                if let Stream::Tls(stream) = &mut client.stream {
                    stream.says_end_when_dropped = true;
                }
                client
            }
        }
    }

    #[track_caller]
    fn begin_tls(self, certificate: &Certificate) -> (Self, io::Result<()>) {
        let Stream::Tcp(socket) = self.stream else {
            panic!("TLS goes over TCP")
        };
        let mut stream = TlsStream::new(certificate.client(socket));
        let made = stream.make_handshake();
        let stream = Stream::Tls(Box::new(stream));
        (Self { stream }, made)
    }

    /// Sends these bytes past TLS, where there is any.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = match &mut self.stream {
            Stream::Tls(stream) => stream.socket().write_all(bytes.as_ref()),
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Stream::Unix(stream) => stream.write_all(bytes.as_ref()),
        };
        sent.unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// The port of this end; only over TCP.
    #[track_caller]
    pub(crate) fn local_port(&self) -> u16 {
        let address = match &self.stream {
            Stream::Tcp(stream) => stream.local_addr(),
            Stream::Tls(stream) => stream.socket().local_addr(),
            Stream::Unix(_) => panic!("a UNIX socket has no port"),
        };
        address.expect("a connected socket has an address").port()
    }

    /// Returns true if there is something to be read right now, be it the end.
    pub(crate) fn has_input(&mut self) -> bool {
        match &mut self.stream {
            Stream::Tls(stream) => stream.has_input(),
            Stream::Tcp(_) | Stream::Unix(_) => self.has_bytes_within(0),
        }
    }

    /// Waits this number of milliseconds for bytes on the wire, or for the end, and returns true if they come.
    pub(crate) fn has_bytes_within(&self, milliseconds: u8) -> bool {
        let mut wanted = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut wanted, PollTimeout::from(milliseconds)).expect("poll a connection") == 1
    }

    /// Sends these bytes and nothing else; on TCP as a packet of their own, over TLS as records of their own.
    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes)
            .unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    /// Does the same to a daemon that may have gone.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes.as_ref()),
            Stream::Unix(stream) => stream.write_all(bytes.as_ref()),
            Stream::Tls(stream) => stream.write_all(bytes.as_ref()),
        }
    }

    /// Sends all of these bytes and ends its side, while it reads to the end.
    #[track_caller]
    pub(crate) fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        let exchanged = match &mut self.stream {
            Stream::Tls(stream) => stream.exchange(bytes),
            Stream::Tcp(stream) => {
                let shutdown = |sender: &TcpStream| sender.shutdown(Shutdown::Write);
                exchange(stream.try_clone().expect("another handle"), stream, shutdown, bytes)
            }
            Stream::Unix(stream) => {
                let shutdown = |sender: &UnixStream| sender.shutdown(Shutdown::Write);
                exchange(stream.try_clone().expect("another handle"), stream, shutdown, bytes)
            }
        };
        exchanged.unwrap_or_else(|error| panic!("{error} in the middle of {} bytes", bytes.len()))
    }

    /// Another handle on the same UNIX socket, for a thread that sends.
    #[track_caller]
    pub(crate) fn unix(&self) -> UnixStream {
        match &self.stream {
            Stream::Unix(stream) => stream.try_clone().expect("another handle"),
            Stream::Tcp(_) | Stream::Tls(_) => panic!("it is no UNIX socket"),
        }
    }

    /// Says that nothing more will be sent.
    #[track_caller]
    pub(crate) fn half_close(&mut self) {
        let closed = match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => stream.say_end(),
        };
        closed.unwrap_or_else(|error| panic!("cannot close the sending side: {error}"));
    }

    /// Reads until the daemon closes. A reset fails the test: an answer may have been lost to it.
    #[track_caller]
    pub(crate) fn read_to_end(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Err(error) = self.stream.read_to_end(&mut bytes) {
            panic!(
                "{error} after {} bytes: {:?}",
                bytes.len(),
                String::from_utf8_lossy(&bytes)
            );
        }
        bytes
    }

    /// The same for a daemon that may also answer with a reset, or cut TLS: what came before it.
    #[track_caller]
    pub(crate) fn read_to_end_or_reset(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.stream.read_to_end(&mut bytes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof) => {}
            Err(error) => panic!("{error} after {} bytes", bytes.len()),
        }
        bytes
    }

    /// Reads until the connection is reset.
    #[track_caller]
    pub(crate) fn expect_reset(&mut self) {
        let error = self.stream.read_to_end(&mut Vec::new()).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    /// Reads until the connection is cut: it ends without the end of TLS, or is reset.
    #[track_caller]
    pub(crate) fn expect_cut(&mut self) {
        let error = self.stream.read_to_end(&mut Vec::new()).expect_err("no end");
        let is_cut = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof);
        assert!(is_cut, "{error}");
    }

    /// Reads one line, its newline taken off, and nothing behind it.
    #[track_caller]
    pub(crate) fn read_line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        loop {
            let read = self
                .stream
                .read(&mut byte)
                .unwrap_or_else(|error| panic!("{error} after {line:?}"));
            assert_eq!(read, 1, "the daemon closed after {:?}", String::from_utf8_lossy(&line));
            match byte[0] {
                b'\n' => return String::from_utf8_lossy(&line).into_owned(),
                other => line.push(other),
            }
        }
    }

    /// Reads exactly this text.
    #[track_caller]
    pub(crate) fn read_text(&mut self, expected: &str) {
        let mut bytes = vec![0; expected.len()];
        let mut read = 0;
        while read < bytes.len() {
            match self.stream.read(&mut bytes[read..]) {
                Ok(0) => panic!("the daemon closed after {:?}", String::from_utf8_lossy(&bytes[..read])),
                Ok(count) => read += count,
                Err(error) => panic!("{error} after {:?}", String::from_utf8_lossy(&bytes[..read])),
            }
        }
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
    }

    /// Goes away with a reset instead of a farewell (on TCP; a UNIX socket has none).
    #[track_caller]
    pub(crate) fn reset(self) {
        match self.stream {
            Stream::Tcp(stream) => reset_on_close(&stream),
            Stream::Tls(mut stream) => {
                reset_on_close(stream.socket());
                stream.says_end_when_dropped = false;
            }
            Stream::Unix(_) => {}
        }
    }
}

/// Sends all of these bytes by one handle, while it reads to the end by the other.
fn exchange<S: Read + Write + Send>(
    mut sender: S,
    receiver: &mut S,
    shutdown: fn(&S) -> io::Result<()>,
    bytes: &[u8],
) -> io::Result<Vec<u8>> {
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || sender.write_all(bytes).and_then(|()| shutdown(&sender)));
        let mut received = Vec::new();
        let read = receiver.read_to_end(&mut received);
        sending.join().expect("it does not panic")?;
        read.map(|_| received)
    })
}

/// Has a later close reset the connection instead of ending it.
#[track_caller]
pub(crate) fn reset_on_close(stream: &TcpStream) {
    let at_once = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(stream, sockopt::Linger, &at_once).unwrap_or_else(|error| panic!("cannot set linger: {error}"));
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.socket().as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Read for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Stream {
    #[track_caller]
    fn set_watchdog(&self) {
        let patience = Some(patience());
        let set = match self {
            Self::Tcp(stream) => stream
                .set_nodelay(true)
                .and_then(|()| stream.set_read_timeout(patience))
                .and_then(|()| stream.set_write_timeout(patience)),
            Self::Unix(stream) => stream
                .set_read_timeout(patience)
                .and_then(|()| stream.set_write_timeout(patience)),
            Self::Tls(_) => Ok(()),
        };
        set.unwrap_or_else(|error| panic!("cannot prepare a connection: {error}"));
    }
}

#[test]
fn addresses_are_read_and_said_the_same_way() {
    for text in ["127.0.0.1:9991", "[::1]:9991", "unix:/run/x.sock"] {
        assert_eq!(Address::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(Address::parse("localhost"), None);
}

#[test]
fn a_reset_is_seen_as_one_and_a_half_close_as_the_end() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let mut client = Client::connect(&address);
    let (mut served, _) = listener.accept().unwrap();
    client.send("abc\n");
    client.half_close();
    let mut received = String::new();
    served.read_to_string(&mut received).unwrap();
    assert_eq!(received, "abc\n");
    served.write_all(b"one\ntwo").unwrap();
    drop(served);
    assert_eq!(client.read_line(), "one");
    assert_eq!(client.read_to_end(), b"two");

    let client = Client::connect(&address);
    let (mut served, _) = listener.accept().unwrap();
    client.reset();
    assert_eq!(served.read(&mut [0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
}
