//! One connection as the shell holds it: the client's socket, and what is on its way to and from it.
//!
//! Edges are kept (`Edges`): a socket that has not said WouldBlock since its last event may have something.

use std::io::{ErrorKind, Read};

use super::super::core::event::RunId;
use super::super::core::exchange::Exchange;
use crate::net::addr::PeerAddr;
use crate::net::stream::Stream;
use crate::reactor::Alarm;
use crate::relay::buffer::Buffer;

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: PeerAddr,
    pub(super) exchange: Exchange,
    pub(super) edges: Edges,
    pub(super) alarm: Alarm,
    /// The program that it gets the output of.
    pub(super) follows: Option<RunId>,
    /// What its program has not taken yet of what it has sent, and whether more may come.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    /// What it has not taken yet.
    pub(super) output: Buffer,
}

/// What the client's socket may be good for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Edges {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

/// What reading from a client has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Nothing is there.
    Nothing,
    /// So many bytes.
    Bytes(usize),
    /// It has ended its side.
    End,
    /// It has gone.
    Gone,
}

/// What writing to a client has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    /// There is nothing to be written, or no room.
    Nothing,
    /// Some of it.
    Some,
    /// Everything.
    All,
    /// It has gone.
    Gone,
}

impl Connection {
    /// Writes to the client what it is owed.
    pub(super) fn write(&mut self) -> Written {
        if self.output.is_empty() || !self.edges.writable {
            return Written::Nothing;
        }
        loop {
            match self.output.write_to(&self.stream) {
                Ok(_) if self.output.is_empty() => return Written::All,
                Ok(_) => return Written::Some,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.edges.writable = false;
                    return Written::Nothing;
                }
                // EPIPE, ECONNRESET: it does not read any more.
                Err(_) => return Written::Gone,
            }
        }
    }

    /// Reads from the client.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Taken {
        if !self.edges.readable {
            return Taken::Nothing;
        }
        loop {
            match (&self.stream).read(buffer) {
                Ok(0) => {
                    self.edges.readable = false;
                    return Taken::End;
                }
                Ok(count) => return Taken::Bytes(count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.edges.readable = false;
                    return Taken::Nothing;
                }
                Err(_) => return Taken::Gone,
            }
        }
    }
}
