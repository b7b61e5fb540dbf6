//! A local service as one end of a relay.

use std::io::{ErrorKind, IoSlice};
use std::os::fd::BorrowedFd;

use crate::net::conn::{Conn, Received, Sent};
use crate::reactor::Readiness;
use crate::relay::direction::Event;
use crate::relay::endpoint::Endpoint;

/// A connection to a local service. Small writes leave at once, although earlier ones are unacknowledged.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) conn: Conn,
    /// True if the last read has left nothing, and no event has come since.
    is_drained: bool,
}

impl Local {
    pub(super) fn new(conn: Conn) -> Self {
        // An error means that the service has reset the connection, which the first read tells.
        let _ = conn.socket().set_nodelay();
        Self {
            conn,
            is_drained: false,
        }
    }

    /// Takes in an event of the poll.
    pub(super) fn note(&mut self, readiness: Readiness) {
        self.is_drained &= !(readiness.readable || readiness.read_closed || readiness.hung_up);
        self.conn.note(readiness);
    }
}

impl Endpoint for Local {
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
        // An error means that the service has reset the connection, which the next read tells.
        let _ = self.conn.say_end();
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.conn.raw()
    }
}
