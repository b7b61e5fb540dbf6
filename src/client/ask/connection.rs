//! One connection to a pool: for one line, or for many. I/O without decisions.
//!
//! **One line.** Connect, send the question, receive one line, close. The sending side is never shut down alone: many
//! programs take that for a client that has gone.
//!
//! **Many lines.** Connect, send the hello, and then lines in both directions, whose meaning the [`core`](super::core)
//! knows. What was appended in a turn leaves in one write at its end. The sending side is shut down behind the last
//! line, when nothing more is sent.
//!
//! Both are set to reset on close (SO_LINGER of 0 s). So a pool learns at once that answers are no longer wanted, even
//! when this process is killed; an end might mean to it that the answers are awaited. And this side keeps no connections
//! in TIME_WAIT, which at some 470 questions a second, each on a connection of its own, would use up the local ports
//! within a minute. The reset loses nothing: a connection for one line is closed only when the reply has been read to
//! its end, or is no longer wanted, and one for many that has no line under way is [ended in good
//! order](Connection::end).
//!
//! Reading continues while sending is blocked, because a pool may refuse a question before it has read all of it. When
//! sending fails, what the pool may have sent before is still read; only then is the connection lost.

use std::io::{self, ErrorKind};

use super::super::server::{Server, is_disagreement};
use super::super::target::Target;
use super::core::{AttemptId, ConnectionId, Fault};
use super::cutter::{Cut, Cutter};
use super::reply::{Collector, Flaw};
use crate::framing::channel::Prefix;
use crate::framing::multiplex;
use crate::net::conn::{Conn, Received, Sent};

/// The number of reads that one connection gets in one turn.
const READS_PER_TURN: usize = 4;

/// The purpose of a connection, which is also its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Purpose {
    /// One line.
    Single(AttemptId),
    /// Many lines.
    Shared(ConnectionId),
}

/// A connection that is open or being established.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) purpose: Purpose,
    /// The index of the address among those of the operator.
    pub(super) address: usize,
    /// The number of targets of that address that have refused this connection.
    pub(super) refused: usize,
    pub(super) conn: Conn,
    input: Input,
    /// True if nothing more is appended.
    is_finished: bool,
}

/// The part of the pool's bytes that was received and is not complete.
#[derive(Debug)]
enum Input {
    Single(Collector),
    Shared(Cutter),
}

/// The result of one share of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing more to do until the next event.
    Pending,
    /// More to do at once: the share of this turn was used up.
    More,
    /// Nothing more will come. The connection is to be closed.
    Over(Fault),
    /// The one reply has come, without its LF. The connection is to be closed.
    Replied(Vec<u8>),
}

impl Connection {
    /// Begins to connect to `target`, which belongs to `server`. `first` is the first line to be sent, without its LF.
    pub(super) fn begin(
        purpose: Purpose,
        address: usize,
        refused: usize,
        (server, target): (&Server, &Target),
        first: &[u8],
    ) -> Result<Connection, Fault> {
        let input = match purpose {
            Purpose::Single(_) => Input::Single(Collector::default()),
            Purpose::Shared(_) => Input::Shared(Cutter::default()),
        };
        let mut conn = server.connect(target).map_err(|error| cannot_connect(&error))?;
        if server.is_secured() || matches!(purpose, Purpose::Shared(_)) {
            // Without this, a line would wait for the acknowledgment of the one before, or of the end of the handshake.
            conn.socket()
                .set_nodelay()
                .map_err(|error| Fault::Lost((&error).into()))?;
        }
        let output = conn.output_mut();
        output.reserve_exact(first.len() + 1);
        output.extend_from_slice(first);
        output.push(b'\n');
        Ok(Connection {
            purpose,
            address,
            refused,
            conn,
            input,
            is_finished: false,
        })
    }

    /// Appends a question behind its number, without writing anything.
    pub(super) fn append_line(&mut self, number: u32, question: &[u8]) {
        let output = self.conn.output_mut();
        output.extend_from_slice(Prefix::of(number).as_bytes());
        output.extend_from_slice(question);
        output.push(b'\n');
    }

    /// Appends that the answer to a question is no longer wanted.
    pub(super) fn append_cancel(&mut self, number: u32) {
        multiplex::encode_cancel(number, self.conn.output_mut());
    }

    /// Closes the connection in good order.
    pub(super) fn end(self) {
        self.conn.close_in_order();
    }

    /// Has the sending side be shut down as soon as everything is written.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// Writes what was appended, as far as there is room. Does nothing before the connection is established.
    pub(super) fn write(&mut self) -> Sent {
        if self.conn.is_connecting() {
            return Sent::Nothing;
        }
        let sent = self.conn.flush();
        if self.is_finished && self.conn.unwritten() == 0 {
            // An error means that the pool has gone, which the next read tells.
            let _ = self.conn.say_end();
        }
        sent
    }

    /// Writes and reads as far as possible without waiting, within the share of one turn. `buffer` is scratch space for
    /// reading; `take` gets the lines of a connection for many. Must be called only when the connection is established.
    pub(super) fn advance(&mut self, buffer: &mut [u8], take: impl FnMut(Cut<'_>)) -> Progress {
        self.write();
        // After a failed write, what the pool has sent before is read first.
        match (self.receive(buffer, take), self.conn.error()) {
            (Progress::Pending, Some(error)) => Progress::Over(match error.kind() {
                ErrorKind::InvalidData => tls_fault(error),
                // The end of a connection with TLS that was not said by TLS.
                ErrorKind::UnexpectedEof => Fault::Flawed(self.input.flaw_at_end()),
                _ => Fault::Lost(error.into()),
            }),
            (received, _) => received,
        }
    }

    fn receive(&mut self, buffer: &mut [u8], mut take: impl FnMut(Cut<'_>)) -> Progress {
        for _ in 0..READS_PER_TURN {
            let bytes = match self.conn.read(buffer) {
                Received::Bytes(count) => buffer.get(..count).unwrap_or_default(),
                Received::End => return Progress::Over(Fault::Flawed(self.input.flaw_at_end())),
                Received::Nothing | Received::Cut | Received::Failed => return Progress::Pending,
            };
            match &mut self.input {
                Input::Shared(cutter) => cutter.push(bytes, &mut take),
                Input::Single(reply) => match reply.push(bytes) {
                    Ok(None) => {}
                    Ok(Some(reply)) => return Progress::Replied(reply),
                    Err(flaw) => return Progress::Over(Fault::Flawed(flaw)),
                },
            }
            if self.conn.is_drained() {
                return Progress::Pending;
            }
        }
        Progress::More
    }
}

impl Input {
    fn flaw_at_end(&self) -> Flaw {
        match self {
            Input::Single(reply) => reply.flaw_at_end(),
            Input::Shared(_) => Flaw::Empty,
        }
    }
}

/// Classifies an error of connect(2) or socket(2) by whose fault it is. EAGAIN from a UNIX socket means that the pool's
/// backlog is full. EADDRNOTAVAIL may mean that this machine has no local port left, but nearly always means that it
/// has no address of that family (`[::1]` without IPv6), and another of the operator's addresses may work.
pub(super) fn cannot_connect(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        None if error.kind() == ErrorKind::InvalidData => tls_fault(error),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Fault::Shortage(error.into()),
        _ => Fault::Unreachable(error.into()),
    }
}

/// Classifies an error of TLS by the chances of another attempt.
fn tls_fault(error: &io::Error) -> Fault {
    if is_disagreement(error) {
        Fault::Disagreed
    } else {
        Fault::Tls
    }
}
