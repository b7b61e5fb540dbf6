//! Shared by the tests of this room: waiting for a socket, and connected pairs.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::addr::{ListenAddr, PeerAddr};
use super::bind::UnixSocketOptions;
use super::listener::Listener;
use super::stream::Stream;

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

/// The served end of a UNIX connection and its client.
pub(super) fn unix_pair() -> (Stream, std::os::unix::net::UnixStream) {
    let (served, client) = std::os::unix::net::UnixStream::pair().expect("socketpair");
    served.set_nonblocking(true).expect("non-blocking");
    (Stream::Unix(mio::net::UnixStream::from_std(served)), client)
}
