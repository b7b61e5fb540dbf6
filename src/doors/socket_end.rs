//! A connection as one end of a relay, for the doors whose relays go from socket to socket or to a stream of a tunnel.

use std::io::{ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;

use crate::net::conn::{Conn, Received, Sent};
use crate::reactor::Readiness;
use crate::relay::direction::Event;
use crate::relay::endpoint::Endpoint;

/// A connection to a client or to a server.
#[derive(Debug)]
pub(super) struct SocketEnd {
    pub(super) conn: Conn,
    /// True if the last read has left nothing, and no event has come since.
    is_drained: bool,
    /// True if the connection is gone, as far as the poll has told.
    is_gone: bool,
    /// True if small writes leave at once although earlier ones are unacknowledged.
    has_nodelay: bool,
}

impl SocketEnd {
    /// The end of a client, whose listener has [set](crate::net::listener::Listener::set_nodelay) TCP_NODELAY.
    pub(super) fn client(conn: Conn) -> Self {
        Self {
            conn,
            is_drained: false,
            is_gone: false,
            has_nodelay: true,
        }
    }

    /// The end of a server, which has got its first bytes already. Nagle's algorithm never holds the first write back, so
    /// TCP_NODELAY is set before the second: a connection with one write saves the system call.
    pub(super) fn server(conn: Conn) -> Self {
        Self {
            conn,
            is_drained: false,
            is_gone: false,
            has_nodelay: false,
        }
    }

    /// Takes in an event of the poll.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.is_drained &= !(readiness.readable || readiness.read_closed || readiness.hung_up);
        self.is_gone |= readiness.hung_up;
        self.conn.note(readiness);
    }
}

impl Endpoint for SocketEnd {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        if self.is_drained {
            return Err(Event::SourceEmpty);
        }
        match self.conn.read(to) {
            Received::Bytes(count) => {
                self.is_drained = self.conn.is_drained();
                Ok(count)
            }
            Received::Nothing => Err(Event::SourceEmpty),
            Received::End => Err(Event::SourceEnded),
            Received::Cut | Received::Failed => Err(Event::Failed),
        }
    }

    fn is_drained(&self) -> bool {
        self.is_drained
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        if !self.has_nodelay {
            self.has_nodelay = true;
            // An error means that the peer has reset the connection, which the write tells.
            let _ = self.conn.socket().set_nodelay();
        }
        match self.conn.write_messages(&[&[IoSlice::new(bytes)]]) {
            Sent::Bytes(count) => Event::Wrote(count),
            Sent::Nothing => Event::SinkFull,
            Sent::Failed => match self.conn.error().map(std::io::Error::kind) {
                Some(ErrorKind::BrokenPipe) => Event::SinkClosed,
                Some(_) | None => Event::Failed,
            },
        }
    }

    fn say_end(&mut self) {
        // An error means that the peer has reset the connection, which the next read tells.
        let _ = self.conn.say_end();
    }

    fn ends_when_closed(&self) -> bool {
        self.conn.ends_when_closed()
    }

    fn has_unsent(&self) -> bool {
        self.conn.has_unsent() && !self.is_gone
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.conn.raw()
    }
}
