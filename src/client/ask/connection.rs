//! One question over one connection: connect, send, receive one line, close. I/O without decisions.
//!
//! Each connection is set to reset on close (SO_LINGER of 0 s). So a pool learns at once that an answer is no longer
//! wanted, even when this process is killed; and this side keeps no connections in TIME_WAIT, which at some 470
//! questions a second would use up the local ports within a minute. The reset loses nothing: a connection is closed
//! only when the reply has been read to its end, or is no longer wanted.
//!
//! Reading continues while sending is blocked, because a pool may refuse a question before it has read all of it. When
//! sending fails, the reply that the pool may have sent before is still read; only then is the connection lost. The
//! sending side is never shut down alone: many programs take that for a client that has gone.

use std::io;

use super::super::target::Target;
use super::core::{AttemptId, Fault};
use super::reply::Collector;
use crate::net::conn::{Conn, Received};

/// The number of reads that one connection gets in one turn.
const READS_PER_TURN: usize = 4;

/// One attempt under way.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) attempt: AttemptId,
    /// The index of the address among those of the operator.
    pub(super) address: usize,
    /// The number of targets of that address that have refused this attempt.
    pub(super) refused: usize,
    pub(super) conn: Conn,
    reply: Collector,
}

/// The result of one share of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AttemptProgress {
    /// Nothing more to do until the next event.
    Pending,
    /// More to do at once: the share of this turn was used up.
    More,
    /// The reply, without its LF.
    Replied(Vec<u8>),
    /// There will be no reply.
    Failed(Fault),
}

impl Connection {
    /// Begins to connect to `target`. `question` is one line without its LF.
    pub(super) fn begin(
        attempt: AttemptId,
        address: usize,
        refused: usize,
        target: &Target,
        question: &[u8],
    ) -> Result<Connection, Fault> {
        let mut conn = target.connect().map_err(|error| cannot_connect(&error))?;
        let output = conn.output_mut();
        output.reserve_exact(question.len() + 1);
        output.extend_from_slice(question);
        output.push(b'\n');
        Ok(Connection {
            attempt,
            address,
            refused,
            conn,
            reply: Collector::default(),
        })
    }

    /// Does everything that is possible without waiting, within the share of one turn. `buffer` is scratch space for
    /// reading.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> AttemptProgress {
        match self.conn.advance_connecting() {
            Ok(true) => {}
            Ok(false) => return AttemptProgress::Pending,
            Err(error) => return AttemptProgress::Failed(cannot_connect(&error)),
        }
        self.conn.flush();
        // After a failed write the reply is read first.
        match (self.receive(buffer), self.conn.error()) {
            (AttemptProgress::Pending, Some(error)) => AttemptProgress::Failed(Fault::Lost(error.into())),
            (received, _) => received,
        }
    }

    fn receive(&mut self, buffer: &mut [u8]) -> AttemptProgress {
        for _ in 0..READS_PER_TURN {
            let pushed = match self.conn.read(buffer) {
                Received::Bytes(count) => self.reply.push(buffer.get(..count).unwrap_or_default()),
                Received::End => Err(self.reply.flaw_at_end()),
                Received::Nothing | Received::Failed => return AttemptProgress::Pending,
            };
            match pushed {
                Ok(None) => {}
                Ok(Some(reply)) => return AttemptProgress::Replied(reply),
                Err(flaw) => return AttemptProgress::Failed(Fault::Flawed(flaw)),
            }
        }
        AttemptProgress::More
    }
}

/// Classifies an error of connect(2) or socket(2) by whose fault it is. EAGAIN from a UNIX socket means that the pool's
/// backlog is full. EADDRNOTAVAIL may mean that this machine has no local port left, but nearly always means that it
/// has no address of that family (`[::1]` without IPv6), and another of the operator's addresses may work.
fn cannot_connect(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Fault::Shortage(error.into()),
        _ => Fault::Unreachable(error.into()),
    }
}
