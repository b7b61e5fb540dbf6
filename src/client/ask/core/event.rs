//! What can happen to `ask` and what it decides to do: the words between the asker and the shell.

use super::super::input::Line;
use super::super::reply::Flaw;
use crate::error::Reason;
use std::fmt;

/// A line in hand: from its [`Event::Line`] to the [`Action::Write`] of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    pub(super) index: usize,
    /// The number of the line: what tells successors in an index apart.
    pub(super) ticket: u64,
}

/// One connection for one line: from its [`Action::Connect`] to its [`Event::Reply`], [`Event::Failed`] or
/// [`Action::Cancel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub(super) request: RequestId,
    /// Tells the attempts at one line apart.
    pub(super) number: u32,
}

/// What the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A line was read; wanted only while [`has_room`](super::Asker::has_room).
    Line(Line),
    /// One whole reply, without its LF; the connection is closed.
    Reply(AttemptId, Vec<u8>),
    /// The connection brought no reply and is closed.
    Failed(AttemptId, Fault),
    /// The time of [`next_deadline`](super::Asker::next_deadline) has come.
    Tick,
}

/// Why an attempt brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What its name stands for could not be found out.
    Unresolved,
    /// There was no connection.
    Unreachable(Reason),
    /// The connection broke before the reply was whole.
    Lost(Reason),
    /// What came back is no answer.
    Flawed(Flaw),
    /// This machine has no descriptor, port or memory left for a connection; the address is not to blame.
    Shortage(Reason),
    /// It took too long.
    TimedOut,
}

impl Fault {
    /// Whether the same question may go to the same address again. Not after an address had it and gave a bad answer or part of
    /// one: a question that a pool loses its workers over must not go round and round. One that was closed without a byte may:
    /// so a pool looks that is being restarted, or the balancer before it.
    pub(super) fn may_ask_again(self) -> bool {
        match self {
            Fault::Unresolved | Fault::Unreachable(_) | Fault::Lost(_) | Fault::Shortage(_) => true,
            Fault::Flawed(Flaw::Empty) => true,
            Fault::Flawed(Flaw::Unfinished | Flaw::TooLong | Flaw::Nul) | Fault::TimedOut => false,
        }
    }

    /// Whether the next lines had better go to another address.
    pub(super) fn blames_address(self) -> bool {
        match self {
            Fault::Unresolved | Fault::Unreachable(_) | Fault::Lost(_) | Fault::TimedOut => true,
            Fault::Flawed(Flaw::Empty | Flaw::Unfinished) => true,
            // It answers, only not this question.
            Fault::Flawed(Flaw::TooLong | Flaw::Nul) => false,
            Fault::Shortage(_) => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unresolved => f.write_str("its name cannot be resolved"),
            Fault::Unreachable(reason) => write!(f, "cannot connect: {reason}"),
            Fault::Lost(reason) => write!(f, "connection lost: {reason}"),
            Fault::Flawed(Flaw::Empty) => f.write_str("connection closed without an answer"),
            Fault::Flawed(Flaw::Unfinished) => f.write_str("connection closed within the answer"),
            Fault::Flawed(Flaw::TooLong) => f.write_str("the answer is too long"),
            Fault::Flawed(Flaw::Nul) => f.write_str("the answer holds a NUL"),
            Fault::Shortage(reason) => write!(f, "no connection to be had on this machine: {reason}"),
            Fault::TimedOut => f.write_str("no answer in time"),
        }
    }
}

/// Why a line got the text for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It is longer than any line may be.
    LineTooLong,
    /// It had no connection before its time was up.
    NoConnection,
    /// What came of its last attempt, and where.
    Fault(usize, Fault),
}

/// What the shell is to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Connect, send the [`question`](super::Asker::question), and report [`Event::Reply`] or [`Event::Failed`].
    Connect {
        /// Which attempt this is.
        attempt: AttemptId,
        /// To whom.
        address: usize,
    },
    /// This attempt is not waited for any more: close its connection so that the pool knows at once.
    Cancel(AttemptId),
    /// This line, LF and all, goes to standard output.
    Write(Vec<u8>),
    /// For the log: an address has failed and is avoided from now on, as far as there are others.
    Away {
        /// Which.
        address: usize,
        /// What it did.
        fault: Fault,
    },
    /// An address that was away is tried once more. What its name stands for may have changed meanwhile.
    Probe {
        /// Which.
        address: usize,
    },
    /// For the log: an address that was away has answered.
    Back {
        /// Which.
        address: usize,
    },
    /// For the log: a line got the text for failures.
    GaveUp {
        /// Why.
        cause: Cause,
    },
    /// For the log: a line that contradicts what is known of channel-IDs got the text for that.
    Contradicted,
}
