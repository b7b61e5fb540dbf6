//! A connection between two processes of this program, over which sockets are passed from one to the other, each with a few
//! bytes (SCM_RIGHTS of unix(7)).
//!
//! One message is one call on either side. A socket that is passed is open in both processes until the sender has closed its
//! own. The meaning of the bytes, and the way by which the other process gets its end, do not belong here.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, event};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};

use super::sys;

/// One end of the connection.
#[derive(Debug)]
pub struct Link(OwnedFd);

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The number of bytes of it, at the front of the buffer.
    pub length: usize,
    /// The socket that came with it.
    pub socket: Option<OwnedFd>,
}

impl Link {
    /// Makes a connection, and returns one end and the descriptor of the other one, which are closed at an exec.
    ///
    /// # Errors
    /// socketpair(2): EMFILE.
    pub fn pair() -> io::Result<(Link, OwnedFd)> {
        // Messages keep their bounds, and no call blocks.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Link(near), far))
    }

    /// Takes over an end that another process has made, by the number that it has there and here.
    ///
    /// # Errors
    /// EBADF: it is not open.
    pub fn take_over(number: RawFd) -> io::Result<Link> {
        sys::take_over(number).map(Link)
    }

    /// Sends these bytes, at least one, with a socket or without.
    ///
    /// # Errors
    /// WouldBlock if there is no room, of which the poll tells; EPIPE if the other end is closed.
    pub fn send(&self, bytes: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let number = socket.map(|socket| [socket.as_raw_fd()]);
        let rights = number.as_ref().map(|numbers| [ControlMessage::ScmRights(numbers)]);
        let control = rights.as_ref().map_or(&[][..], |rights| &rights[..]);
        loop {
            let sent = sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(bytes)],
                control,
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            match sent {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Receives the next message into the front of the buffer, which cuts a longer one off. `None` at the end.
    ///
    /// # Errors
    /// WouldBlock if there is none. A socket for which this process has no descriptor is missing in its message.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Option<Message>> {
        loop {
            match sys::receive_with_socket(self.0.as_fd(), buffer) {
                // No message is empty.
                Ok((0, _)) => return Ok(None),
                Ok((length, socket)) => return Ok(Some(Message { length, socket })),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl event::Source for Link {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn links() -> (Link, Link) {
        let (one, other) = Link::pair().unwrap();
        (one, Link(other))
    }

    fn is_empty(link: &Link) -> bool {
        link.receive(&mut [0; 8])
            .is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    #[test]
    fn sockets_arrive_with_the_bytes_of_their_messages() {
        let (one, other) = links();
        let (mut near, far) = UnixStream::pair().unwrap();
        assert!(is_empty(&other));
        one.send(b"first", Some(far.as_fd())).unwrap();
        one.send(b"second", None).unwrap();
        drop(far);
        let mut buffer = [0; 64];
        let message = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..message.length], b"first");
        let mut passed = UnixStream::from(message.socket.unwrap());
        passed.write_all(b"by the other").unwrap();
        drop(passed);
        let mut text = String::new();
        near.read_to_string(&mut text).unwrap();
        assert_eq!(text, "by the other");
        let message = other.receive(&mut buffer).unwrap().unwrap();
        assert_eq!(
            (&buffer[..message.length], message.socket.is_none()),
            (&b"second"[..], true)
        );
        assert!(is_empty(&other));
        drop(one);
        assert!(other.receive(&mut buffer).unwrap().is_none());
        assert_eq!(other.send(b"late", None).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_link_without_room_says_so() {
        let (one, other) = links();
        let mut sent = 0;
        while one.send(b"more", None).is_ok() {
            sent += 1;
            assert!(sent < 100_000, "there is always room");
        }
        assert!(sent > 1);
        let mut received = 0;
        while !is_empty(&other) {
            received += 1;
        }
        assert_eq!(received, sent);
    }
}
