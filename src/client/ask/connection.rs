//! One question over one connection: connect, send, receive one line, close. I/O without decisions.
//!
//! The kernel is told at the start that closing means a reset (SO_LINGER of 0 s). So a pool learns at once that an answer
//! is not wanted any more, also when this process is killed; and no TIME_WAIT is left on this side, of which a minute's
//! worth would use up the local ports at some 470 questions a second. Nothing is lost by it: the connection is closed
//! only when the reply is here, whole, or when it is not wanted any more.
//!
//! Reading goes on while sending does not: a pool may refuse a question that it has not read to the end. When sending fails,
//! what the pool has said before is still fetched; only then is the connection lost. There is no half-close: to many
//! programs it looks like a client that has gone.

use std::io::{self, ErrorKind, Read, Write};

use super::super::target::Target;
use super::core::{AttemptId, Fault};
use super::reply::Collector;
use crate::net::stream::Stream;

/// How many reads one connection gets in one turn.
const READS_PER_TURN: usize = 4;

/// One attempt on its way.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) attempt: AttemptId,
    /// Which address of the operator's, by number.
    pub(super) address: usize,
    /// How many targets of that address have refused this attempt.
    pub(super) refused: usize,
    pub(super) stream: Stream,
    stage: Stage,
    question: Vec<u8>,
    sent: usize,
    reply: Collector,
}

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Connected,
}

/// What came of a share of work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The next event will say when there is more to do.
    Pending,
    /// There is more to do already.
    More,
    /// The reply, without its LF.
    Replied(Vec<u8>),
    /// There will be none.
    Failed(Fault),
}

impl Connection {
    /// Begins to connect; `question` is one line, LF and all.
    pub(super) fn begin(
        attempt: AttemptId,
        address: usize,
        refused: usize,
        target: &Target,
        question: Vec<u8>,
    ) -> Result<Connection, Fault> {
        let stream = target.connect().map_err(|error| cannot_connect(&error))?;
        Ok(Connection {
            attempt,
            address,
            refused,
            stream,
            stage: Stage::Connecting,
            question,
            sent: 0,
            reply: Collector::default(),
        })
    }

    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// Does what can be done without waiting. `buffer` is for reading.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Outcome {
        if self.stage == Stage::Connecting {
            match self.stream.is_connected() {
                Ok(true) => self.stage = Stage::Connected,
                Ok(false) => return Outcome::Pending,
                Err(error) => return Outcome::Failed(cannot_connect(&error)),
            }
        }
        let sent = self.send();
        let received = self.receive(buffer);
        match (sent, received) {
            (Err(error), Outcome::Pending) => Outcome::Failed(Fault::Lost((&error).into())),
            (_, received) => received,
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some(rest) = self.question.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Outcome {
        for _ in 0..READS_PER_TURN {
            let pushed = match self.stream.read(buffer) {
                Ok(0) => Err(self.reply.flaw_at_end()),
                Ok(count) => self.reply.push(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Outcome::Pending,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Outcome::Failed(Fault::Lost((&error).into())),
            };
            match pushed {
                Ok(None) => {}
                Ok(Some(reply)) => return Outcome::Replied(reply),
                Err(flaw) => return Outcome::Failed(Fault::Flawed(flaw)),
            }
        }
        Outcome::More
    }
}

/// Sorts what connect(2) and socket(2) say by whose fault it is. EAGAIN from a UNIX socket is the pool's affair: its
/// backlog is full. EADDRNOTAVAIL may mean that this machine has no local port left, but nearly always means that it has
/// no address of that family (`[::1]` without IPv6), and another of the operator's addresses may do.
fn cannot_connect(error: &io::Error) -> Fault {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => Fault::Shortage(error.into()),
        _ => Fault::Unreachable(error.into()),
    }
}
