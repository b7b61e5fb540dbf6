//! Shared by the tests of this room: waiting for a socket, and connected pairs.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, getsockname, socket};
use rustls::{ClientConnection, StreamOwned};

use super::addr::{ListenAddr, PeerAddr};
use super::bind::UnixSocketOptions;
use super::listener::Listener;
use super::stream::Stream;
use super::tls::scaffold::Authority;
use super::tls::transport::{Secured, Step};
use crate::buffer::Buffer;

/// A test may wait for a stream by its descriptor, which the program does not.
impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

/// Waits until reading (accepting) does not block. Ten seconds without it are a failure, not a delay.
pub(super) fn wait_readable(socket: &impl AsFd) {
    wait(socket, PollFlags::POLLIN);
}

/// Waits until writing does not block, or a connection attempt has an outcome.
pub(super) fn wait_writable(socket: &impl AsFd) {
    wait(socket, PollFlags::POLLOUT);
}

fn wait(socket: &impl AsFd, what: PollFlags) {
    let mut fds = [PollFd::new(socket.as_fd(), what)];
    let count = poll(&mut fds, PollTimeout::from(10_000_u16)).expect("poll");
    assert_eq!(count, 1, "nothing has happened on the socket for ten seconds");
}

/// A listener on `address`, with the defaults.
pub(super) fn listen(address: &str) -> Listener {
    let address = address.parse().expect("an address");
    Listener::bind(&address, &UnixSocketOptions::default(), 16).expect("bind")
}

/// The address at which a client reaches a listener on a loopback address.
pub(super) fn tcp_addr(listener: &Listener) -> SocketAddr {
    match listener.local_addr() {
        ListenAddr::Tcp(address) => *address,
        other => panic!("{other} is no TCP address"),
    }
}

/// The next connection, which is known to come.
pub(super) fn accept(listener: &Listener) -> (Stream, PeerAddr) {
    wait_readable(listener);
    listener.accept().expect("accept")
}

/// The served end of a TCP connection and its client.
pub(super) fn tcp_pair() -> (Stream, std::net::TcpStream) {
    let listener = listen("127.0.0.1:0");
    let client = std::net::TcpStream::connect(tcp_addr(&listener)).expect("connect");
    (accept(&listener).0, client)
}

/// A TCP connection to itself, and its address.
pub(super) fn tcp_to_itself() -> (Stream, SocketAddr) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind it to a port");
    let own: SockaddrIn = getsockname(socket.as_raw_fd()).expect("its address");
    connect(socket.as_raw_fd(), &own).expect("connect it to its own port");
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true).expect("non-blocking");
    let address = stream.local_addr().expect("an address");
    (Stream::Tcp(mio::net::TcpStream::from_std(stream)), address)
}

/// The served end of a UNIX connection and its client.
pub(super) fn unix_pair() -> (Stream, std::os::unix::net::UnixStream) {
    let (served, client) = std::os::unix::net::UnixStream::pair().expect("socketpair");
    served.set_nonblocking(true).expect("non-blocking");
    (Stream::Unix(mio::net::UnixStream::from_std(served)), client)
}

/// The served end of a TCP connection with TLS, after the handshake, and its client.
pub(super) fn tls_pair() -> (Stream, TlsClient) {
    let (served, socket) = tcp_pair();
    let (engine, connection) = Authority::new().sides();
    let mut served = Secured::new(served, engine, Buffer::default());
    let mut client = StreamOwned::new(connection, socket);
    client.conn.write_tls(&mut client.sock).expect("a hello");
    wait_readable(served.socket());
    while served.step().expect("the first flight") != Step::Waiting {}
    client.conn.complete_io(&mut client.sock).expect("the handshake");
    while served.step().expect("the second flight") != Step::Done {
        wait_readable(served.socket());
    }
    (Stream::Tls(Box::new(served)), TlsClient(RefCell::new(client)))
}

/// A client over TLS that blocks.
pub(super) struct TlsClient(RefCell<StreamOwned<ClientConnection, std::net::TcpStream>>);

impl TlsClient {
    /// Says that it sends nothing more, by TLS alone.
    pub(super) fn say_end(&self) {
        let client = &mut *self.0.borrow_mut();
        client.conn.send_close_notify();
        client.conn.write_tls(&mut client.sock).expect("the end");
    }

    /// The connection below.
    pub(super) fn socket(&self) -> std::net::TcpStream {
        self.0.borrow().sock.try_clone().expect("a socket")
    }
}

impl Read for TlsClient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.get_mut().read(buffer)
    }
}

impl Write for TlsClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let client = self.0.get_mut();
        let count = client.write(bytes)?;
        client.flush()?;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
