//! The transports of a connection: connected sockets, TCP or UNIX, and TLS on them, behind one type.
//!
//! A [`Conn`](super::conn::Conn) reads and writes through it, and asks it for whatever depends on the transport: how
//! unread bytes are thrown away, how the end is said together with the last bytes, how far the peer has read. All calls
//! are non-blocking: `WouldBlock` means "wait for the next event". The calls that move bytes, or end a direction, are
//! for the connection alone.
//!
//! **TLS** ([`Secured`]) encrypts all bytes and has words of its own on the wire. What the kernel knows of its socket
//! (addresses, options, the state of the peer) is asked as of any other; unread bytes are thrown away as they are on
//! the wire, so nothing can be read after that.
//!
//! **Nagle.** TCP_NODELAY is not set on accept: it would cost every connection a system call and win nothing, because a
//! reply leaves in one write and is followed by a FIN or by nothing until the client has asked again. A service that
//! writes in several pieces calls [`Stream::set_nodelay`].
//!
//! Readiness, buffers and the lingering close are the connection's.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{KeepAlive, Linger, PeerCredentials as SoPeerCred};
use nix::sys::socket::{MsgFlags, getsockopt, recv, setsockopt};

use super::addr::{PeerAddr, UnixAddr, canonical};
use super::sys;
pub(super) use super::sys::MOST_MESSAGES;
use super::tls::transport::Secured;

/// The number of bytes that one [`Stream::discard_unread`] takes from a TCP socket at most. They are not copied, so it
/// may be as much as a receive buffer commonly holds.
const DISCARD_TCP: usize = 4 << 20;

/// The same for a UNIX socket, where they are copied to the stack.
const DISCARD_UNIX: usize = 16 << 10;

/// A connected stream, or one that is being connected.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a UNIX socket.
    Unix(UnixStream),
    /// Over one of these, with TLS.
    Tls(Box<Secured>),
}

/// The socket under a stream.
enum Socket<'a> {
    Tcp(&'a TcpStream),
    Unix(&'a UnixStream),
}

/// The bytes that were still unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// Nothing; the peer has not ended its side.
    None,
    /// Nothing, and the peer sends nothing more.
    End,
    /// This number of bytes was thrown away; there may be more.
    Bytes(usize),
}

/// The state of the peer, as far as it is known without reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerState {
    /// The peer is there.
    Connected,
    /// The peer sends nothing more. Over TCP that is all that is known: it may still read, or have closed its socket.
    HalfClosed,
    /// The peer has gone: there was a reset, or the other end of a UNIX socket is closed.
    Gone,
}

/// The progress of a peer in reading the bytes that were sent to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Over a UNIX socket: the peer has read at least this number of bytes. The kernel counts the bytes that it holds
    /// with its own overhead, so the true number may be larger.
    Known(u64),
    /// Over TCP: bytes have arrived at the peer's machine. The number that it has read of them is not known.
    Arrived {
        /// The number of bytes that were acknowledged.
        bytes: u64,
        /// True if nothing is on its way although there is more to be sent: the peer's machine takes no more until the
        /// peer reads.
        is_full: bool,
    },
}

/// The process at the other end of a UNIX socket, as it was when it connected (SO_PEERCRED, unix(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCredentials {
    /// The process id. The process may have ended since.
    pub pid: i32,
    /// The effective user.
    pub uid: u32,
    /// The effective group.
    pub gid: u32,
}

impl fmt::Display for PeerCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} uid {} gid {}", self.pid, self.uid, self.gid)
    }
}

impl Stream {
    fn socket(&self) -> Socket<'_> {
        match self {
            Stream::Tcp(stream) => Socket::Tcp(stream),
            Stream::Unix(stream) => Socket::Unix(stream),
            Stream::Tls(secured) => secured.socket().socket(),
        }
    }

    /// Begins to connect. The stream becomes writable when the outcome is known: see
    /// [`is_connected`](Self::is_connected).
    ///
    /// # Errors
    /// connect(2), where it fails at once: no route, no free local port, no descriptor.
    pub fn connect_tcp(address: SocketAddr) -> io::Result<Stream> {
        TcpStream::connect(address).map(Stream::Tcp)
    }

    /// Connects at once: a UNIX socket has no handshake to wait for.
    ///
    /// # Errors
    /// connect(2). WouldBlock means that the server's backlog is full: no event will say when it has room, so try again
    /// after a while. ConnectionRefused: nothing listens there (any more).
    pub fn connect_unix(address: &UnixAddr) -> io::Result<Stream> {
        UnixStream::connect_addr(&address.to_socket_addr()?).map(Stream::Unix)
    }

    /// Returns true if a connection that was begun is established. Must be called after an event for the stream; false
    /// means that the event was a spurious one and another will come.
    ///
    /// A connection [to itself](super::local_ports) is a refusal.
    ///
    /// # Errors
    /// The reason why connecting has failed: ConnectionRefused, TimedOut, HostUnreachable, ...
    pub(super) fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.take_error()? {
            return Err(error);
        }
        let Stream::Tcp(stream) = self else { return Ok(true) };
        match stream.peer_addr() {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
            Ok(peer) if peer == stream.local_addr()? => Err(io::ErrorKind::ConnectionRefused.into()),
            Ok(_) => Ok(true),
        }
    }

    /// Returns true if a connection of TCP to this port is connected [to itself](super::local_ports). Must be called once
    /// the connection is established.
    ///
    /// # Errors
    /// getsockname(2) and getpeername(2): NotConnected when the connection is gone.
    pub(super) fn has_reached_itself(&self, port: u16) -> io::Result<bool> {
        let Stream::Tcp(stream) = self else { return Ok(false) };
        let own = stream.local_addr()?;
        // A server elsewhere may listen at the same port by chance.
        Ok(own.port() == port && stream.peer_addr()? == own)
    }

    /// The pending error of the socket (SO_ERROR), which this clears.
    ///
    /// # Errors
    /// getsockopt(2), which does not fail on an open socket.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self.socket() {
            Socket::Tcp(stream) => stream.take_error(),
            Socket::Unix(stream) => stream.take_error(),
        }
    }

    /// The address of the other end.
    ///
    /// # Errors
    /// getpeername(2): NotConnected when the connection is gone or not yet there.
    pub fn peer_addr(&self) -> io::Result<PeerAddr> {
        match self.socket() {
            Socket::Tcp(stream) => stream.peer_addr().map(PeerAddr::tcp),
            Socket::Unix(_) => Ok(PeerAddr::Unix),
        }
    }

    /// The address of this end of a TCP connection, never IPv4-mapped; `None` for a UNIX socket.
    ///
    /// # Errors
    /// getsockname(2), which does not fail on an open socket.
    pub fn local_addr(&self) -> io::Result<Option<SocketAddr>> {
        match self.socket() {
            Socket::Tcp(stream) => stream.local_addr().map(|address| Some(canonical(address))),
            Socket::Unix(_) => Ok(None),
        }
    }

    /// The process at the other end of a UNIX socket; `None` over TCP.
    ///
    /// # Errors
    /// getsockopt(2), which does not fail on an open socket.
    pub fn peer_credentials(&self) -> io::Result<Option<PeerCredentials>> {
        let Stream::Unix(stream) = self else { return Ok(None) };
        let found = getsockopt(stream, SoPeerCred)?;
        Ok(Some(PeerCredentials {
            pid: found.pid(),
            uid: found.uid(),
            gid: found.gid(),
        }))
    }

    /// All groups of the process at the other end as they were when it connected, its effective one first; `None` over
    /// TCP.
    ///
    /// # Errors
    /// getsockopt(2), which does not fail on an open socket.
    pub fn peer_groups(&self) -> io::Result<Option<Vec<u32>>> {
        let (Stream::Unix(stream), Some(peer)) = (self, self.peer_credentials()?) else {
            return Ok(None);
        };
        let mut groups = vec![peer.gid];
        groups.extend(sys::peer_groups(stream.as_fd())?);
        Ok(Some(groups))
    }

    /// Tells the peer that nothing more comes, and leaves reading possible. TLS may have to say it
    /// [later](Self::push).
    ///
    /// # Errors
    /// NotConnected when the peer has reset the connection. It is over in both directions then, and nothing is lost.
    pub(super) fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(secured) => secured.end(),
        }
    }

    /// Returns true if closing the socket says the end of this side. With TLS it does not: the peer would take what it
    /// has read for a part.
    pub(super) fn ends_when_closed(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => true,
            Stream::Tls(_) => false,
        }
    }

    /// Writes what the transport has to say by itself, if there is anything and the socket has room. Must be called when
    /// it has room again. An error shows in the next read or write.
    pub(super) fn push(&mut self) {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => {}
            Stream::Tls(secured) => drop(secured.push()),
        }
    }

    /// Returns true if the transport has something to [push](Self::push).
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => false,
            Stream::Tls(secured) => secured.has_unsent(),
        }
    }

    /// Returns true if a message is taken whole or not at all: see [`send_messages`](Self::send_messages).
    pub fn keeps_messages(&self) -> bool {
        matches!(self, Stream::Unix(_))
    }

    /// Sends these messages, each made of pieces, in one system call, and returns the number of bytes taken. A UNIX
    /// socket takes each message whole or not at all, if it is no longer than its buffer keeps in one piece: 32 KiB and
    /// a little, with the usual buffer. Over TCP messages are bytes like any other. Of more than [`MOST_MESSAGES`] the
    /// rest is left; empty ones at the end are none.
    ///
    /// With `end` they are the last, and if all of them are taken, the end of this side is said with them, so that a
    /// peer that has read the last byte finds the end behind it. Over TCP the two travel in one segment, because the
    /// bytes are sent with MSG_MORE (send(2)) and wait for the FIN. A UNIX socket has no such flag: two calls follow
    /// each other with nothing in between, so a reader can see the bytes without the end only if this thread loses its
    /// processor between them.
    ///
    /// # Errors
    /// Those of a write. Nothing was taken then, and after WouldBlock the next write must begin with the same bytes: TLS
    /// may have encrypted them. An end that cannot be said means that the peer has reset the connection, which the next
    /// read tells.
    pub(super) fn send_messages(&mut self, messages: &[&[IoSlice<'_>]], end: bool) -> io::Result<usize> {
        if let Stream::Tls(secured) = self {
            return secured.write_messages(messages, end);
        }
        let more = end && !self.keeps_messages();
        let sent = sys::send_messages(self.fd(), messages, more)?;
        let length: usize = messages.iter().copied().flatten().map(|piece| piece.len()).sum();
        if end && sent == length {
            let _ = self.shutdown_write();
        }
        Ok(sent)
    }

    /// Returns true if the last read, which has filled `count` bytes of a buffer of `room`, has taken all that had
    /// arrived, so that there will be an event for whatever comes (epoll(7)).
    pub(super) fn is_drained(&self, count: usize, room: usize) -> bool {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => count < room,
            Stream::Tls(secured) => secured.is_drained(),
        }
    }

    /// Returns true if the peer has sent something that is not read yet. With TLS that may be no data.
    pub(super) fn has_unread(&self) -> bool {
        if let Stream::Tls(secured) = self
            && secured.has_received()
        {
            return true;
        }
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let looked = recv(self.as_raw_fd(), &mut [0], flags);
        looked.is_ok_and(|count| count > 0)
    }

    /// Returns how far the peer has read the `sent` bytes that were written here. After an error of the kernel it is
    /// assumed to have read none. With TLS the kernel counts the bytes on the wire, which are more, so the number is a
    /// little less than the true one.
    pub fn read_by_peer(&self, sent: u64) -> Reading {
        let less = |unread: usize| sent.saturating_sub(unread as u64);
        match self.socket() {
            Socket::Tcp(stream) => match sys::outgoing(stream.as_fd()) {
                Ok((unacknowledged, unsent)) => Reading::Arrived {
                    bytes: less(unacknowledged),
                    is_full: unsent > 0 && unsent == unacknowledged,
                },
                Err(_) => Reading::Arrived {
                    bytes: 0,
                    is_full: false,
                },
            },
            Socket::Unix(stream) => Reading::Known(sys::unread_by_peer(stream.as_fd()).map_or(0, less)),
        }
    }

    /// Sends small writes at once although earlier ones are unacknowledged (TCP_NODELAY). A UNIX socket does so anyway.
    ///
    /// # Errors
    /// setsockopt(2): InvalidInput when the peer has reset the connection.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Makes the kernel probe the peer of a silent connection now and then (SO_KEEPALIVE, tcp(7)). The peer of a UNIX
    /// socket cannot vanish unseen.
    ///
    /// # Errors
    /// setsockopt(2), which does not fail on an open socket.
    pub fn set_keepalive(&self) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(stream) => Ok(setsockopt(stream, KeepAlive, &true)?),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Makes a later close reset the connection instead of ending it (SO_LINGER of 0 s): the server learns at once that
    /// no client waits for its answer, and no TIME_WAIT is left behind. This is for clients that give up. Over a UNIX
    /// socket every close is seen at once.
    ///
    /// # Errors
    /// setsockopt(2), which does not fail on an open socket.
    pub fn reset_on_close(&self) -> io::Result<()> {
        self.set_linger(libc::linger {
            l_onoff: 1,
            l_linger: 0,
        })
    }

    /// Makes a later close end the connection in good order again, after [`reset_on_close`](Self::reset_on_close).
    ///
    /// # Errors
    /// setsockopt(2), which does not fail on an open socket.
    pub fn end_on_close(&self) -> io::Result<()> {
        self.set_linger(libc::linger {
            l_onoff: 0,
            l_linger: 0,
        })
    }

    fn set_linger(&self, linger: libc::linger) -> io::Result<()> {
        match self.socket() {
            Socket::Tcp(stream) => Ok(setsockopt(stream, Linger, &linger)?),
            Socket::Unix(_) => Ok(()),
        }
    }

    /// Asks for the state of the peer, in one system call. This is for a caller that has not registered the stream with
    /// a poll.
    pub fn peer_state(&self) -> PeerState {
        let told = sys::poll_now(self.fd(), libc::POLLRDHUP);
        if told & (libc::POLLHUP | libc::POLLERR) != 0 {
            PeerState::Gone
        } else if told & libc::POLLRDHUP != 0 {
            PeerState::HalfClosed
        } else {
            PeerState::Connected
        }
    }

    /// Throws away unread bytes of the peer, in one system call. Nothing may be read after that: with TLS the rest could
    /// not be decrypted.
    ///
    /// # Errors
    /// recv(2): ConnectionReset and its like. The connection is over and must be closed.
    pub(super) fn discard_unread(&self) -> io::Result<Unread> {
        let outcome = match self.socket() {
            Socket::Tcp(stream) => sys::discard_tcp(stream.as_fd(), DISCARD_TCP),
            Socket::Unix(stream) => {
                let mut scratch = [0; DISCARD_UNIX];
                recv(stream.as_raw_fd(), &mut scratch, MsgFlags::MSG_DONTWAIT).map_err(Errno::into)
            }
        };
        match outcome {
            Ok(0) => Ok(Unread::End),
            Ok(count) => Ok(Unread::Bytes(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Unread::None),
            Err(error) => Err(error),
        }
    }
}

impl Stream {
    /// The socket, if bytes may be moved past the connection; `None` if the transport carries them in another form.
    pub(super) fn plain_socket(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Stream::Tcp(_) | Stream::Unix(_) => Some(self.fd()),
            Stream::Tls(_) => None,
        }
    }

    /// The socket, for what the kernel knows of it. The bytes on it may be in another form than the owner's.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        match self.socket() {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }

    /// The source of its events.
    pub(super) fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
            Stream::Tls(secured) => secured.socket_mut().source(),
        }
    }
}

/// The number of the descriptor, for the dump.
impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.fd().as_raw_fd()
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buffer),
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tls(secured) => secured.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.write(bytes),
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tls(secured) => secured.write_messages(&[&[IoSlice::new(bytes)]], false),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::scaffold::{
        accept, listen, tcp_addr, tcp_pair, tcp_to_itself, unix_pair, wait_readable, wait_writable,
    };
    use super::*;

    /// Writes until nothing more is taken; how many bytes that were.
    fn fill(stream: &mut Stream) -> u64 {
        let (piece, mut sent) = ([7; 10_000], 0);
        while let Ok(count) = stream.write(&piece) {
            sent += count as u64;
        }
        sent
    }

    #[test]
    fn a_connection_to_itself_is_a_refusal() {
        let (stream, _) = tcp_to_itself();
        let error = stream.is_connected().expect_err("it is no server");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn the_progress_of_a_tcp_peer_shows_once_its_machine_was_full() {
        let (mut served, mut client) = tcp_pair();
        let mut sent = fill(&mut served);
        let full_at = loop {
            if let Reading::Arrived { bytes, is_full: true } = served.read_by_peer(sent) {
                break bytes;
            }
            sent += fill(&mut served);
        };
        assert!(full_at < sent, "{full_at} of {sent} have arrived");
        let mut piece = vec![0; 300_000];
        client.read_exact(&mut piece).expect("read");
        loop {
            match served.read_by_peer(sent) {
                Reading::Arrived { bytes, .. } if bytes > full_at + 100_000 => break,
                Reading::Arrived { .. } => {}
                known @ Reading::Known(_) => panic!("{known:?} over TCP"),
            }
        }
    }

    #[test]
    fn the_progress_of_a_unix_peer_is_known() {
        let (mut served, mut client) = unix_pair();
        let sent = fill(&mut served);
        assert_eq!(served.read_by_peer(sent), Reading::Known(0));
        let mut piece = vec![0; 50_000];
        client.read_exact(&mut piece).expect("read");
        let Reading::Known(read) = served.read_by_peer(sent) else {
            panic!("it is a UNIX socket")
        };
        assert!((1..=50_000).contains(&read), "{read}");
    }

    #[test]
    fn bytes_go_both_ways_and_a_half_close_is_seen() {
        let (mut served, mut client) = tcp_pair();
        client.write_all(b"question").expect("write");
        wait_readable(&served);
        let mut buffer = [0; 32];
        assert_eq!(served.read(&mut buffer).expect("read"), 8);
        assert_eq!(
            served.read(&mut buffer).expect_err("drained").kind(),
            io::ErrorKind::WouldBlock
        );
        assert_eq!(served.write(b"answer").expect("write"), 6);
        served.shutdown_write().expect("shutdown");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("read to the end");
        assert_eq!(answer, "answer");
    }

    #[test]
    fn unread_bytes_are_counted_and_discarded() {
        let (served, mut client) = tcp_pair();
        assert_eq!(served.discard_unread().expect("discard"), Unread::None);
        client.write_all(&[7; 100_000]).expect("write");
        drop(client);
        assert_eq!(discard_to_the_end(&served), 100_000);
        let (served, mut client) = unix_pair();
        assert_eq!(served.discard_unread().expect("discard"), Unread::None);
        client.write_all(&[7; 50_000]).expect("write");
        drop(client);
        assert_eq!(discard_to_the_end(&served), 50_000);
    }

    fn discard_to_the_end(stream: &Stream) -> usize {
        let mut sum = 0;
        loop {
            wait_readable(stream);
            match stream.discard_unread().expect("discard") {
                Unread::Bytes(count) => sum += count,
                Unread::End => return sum,
                Unread::None => {}
            }
        }
    }

    #[test]
    fn a_peer_that_closes_is_told_from_one_that_resets() {
        let (served, client) = tcp_pair();
        assert_eq!(served.peer_state(), PeerState::Connected);
        client.shutdown(std::net::Shutdown::Write).expect("shutdown");
        wait_readable(&served);
        assert_eq!(served.peer_state(), PeerState::HalfClosed);
        setsockopt(
            &client,
            Linger,
            &libc::linger {
                l_onoff: 1,
                l_linger: 0,
            },
        )
        .expect("linger");
        drop(client);
        // The reset is behind the half-close on the loopback's queue: it has come when the connection is writable no
        // more.
        while served.peer_state() == PeerState::HalfClosed {
            std::thread::yield_now();
        }
        assert_eq!(served.peer_state(), PeerState::Gone);
        let (served, client) = unix_pair();
        assert_eq!(served.peer_state(), PeerState::Connected);
        drop(client);
        assert_eq!(served.peer_state(), PeerState::Gone);
    }

    /// The reason for `discard_unread`: without it the reply is lost to the reset (the C program lost its `ERR` so).
    #[test]
    fn a_reply_survives_input_that_is_never_read() {
        let (mut served, mut client) = tcp_pair();
        client.write_all(b"far too long a request").expect("write");
        wait_readable(&served);
        served.write_all(b"ERR\n").expect("write");
        assert_eq!(served.discard_unread().expect("discard"), Unread::Bytes(22));
        drop(served);
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .expect("the reply and its end, no reset");
        assert_eq!(answer, "ERR\n");
    }

    #[test]
    fn a_client_that_gives_up_is_noticed_as_a_reset() {
        let listener = listen("127.0.0.1:0");
        let client = Stream::connect_tcp(tcp_addr(&listener)).expect("connect");
        let (served, _) = accept(&listener);
        wait_writable(&client);
        assert!(client.is_connected().expect("connected"));
        client.set_nodelay().expect("nodelay");
        client.reset_on_close().expect("linger");
        drop(client);
        wait_readable(&served);
        let error = served.discard_unread().expect_err("a reset");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_unix_peer_is_known_by_its_process() {
        let (served, _client) = unix_pair();
        let found = served.peer_credentials().expect("credentials").expect("of a UNIX peer");
        assert_eq!(found.pid, nix::unistd::getpid().as_raw());
        assert_eq!(found.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(served.peer_addr().expect("a peer"), PeerAddr::Unix);
        assert_eq!(tcp_pair().0.peer_credentials().expect("nothing to ask"), None);
    }
}
