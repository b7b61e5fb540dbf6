//! The events that the shell reports to the asker, and the actions that the asker returns.

use super::super::input::Line;
use super::super::reply::Flaw;
use crate::error::Reason;
use std::fmt;

/// A line in hand: from its [`AskEvent::Line`] to the [`AskAction::Write`] of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    pub(super) index: usize,
    /// The serial number of the line, which distinguishes it from a later line at the same index.
    pub(super) ticket: u64,
}

/// One attempt to have a line answered at one address. It may travel on a connection of its own, from its
/// [`AskAction::Connect`] to its [`AskEvent::Reply`], [`AskEvent::Failed`] or [`AskAction::Cancel`], or together with
/// others, from its [`AskAction::Send`] on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId {
    pub(super) request: RequestId,
    /// Distinguishes the attempts of one line.
    pub(super) number: u32,
}

/// A connection for many lines, from its [`AskAction::Open`] to its [`AskEvent::Closed`], [`AskAction::Close`]
/// or [`AskAction::Reset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(super) index: usize,
    /// The serial number of the connection, which distinguishes it from a later one at the same index.
    pub(super) serial: u64,
}

/// An event that the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskEvent<'a> {
    /// A line was read. Only allowed while [`has_room`](super::Asker::has_room) is true.
    Line(Line),
    /// A complete reply, without its LF, of an attempt with a connection of its own, which is closed.
    Reply(AttemptId, Vec<u8>),
    /// The attempt's own connection brought no reply and is closed.
    Failed(AttemptId, Fault),
    /// A connection for many lines is established, and its hello is sent.
    Connected(ConnectionId),
    /// A complete line, with its LF, has come on a connection for many lines.
    Received(ConnectionId, &'a [u8]),
    /// A line has begun like this that is longer than a reply may be. Its rest is skipped.
    Overlong(ConnectionId, &'a [u8]),
    /// A connection for many lines is closed, or could not be established.
    Closed(ConnectionId, Fault),
    /// The time is that of [`next_deadline`](super::Asker::next_deadline), or earlier.
    Tick,
}

/// The reason why an attempt brought no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The host name could not be resolved.
    Unresolved,
    /// No connection could be made.
    Unreachable(Reason),
    /// TLS has failed on the way, as it may with a server that ends.
    Tls,
    /// The two sides do not agree on TLS: a certificate, a version, or whether it is spoken at all. Each attempt will fail
    /// until one of them is changed.
    Disagreed,
    /// The connection broke before the reply was complete.
    Lost(Reason),
    /// The reply is no answer.
    Flawed(Flaw),
    /// This machine has no descriptor, port or memory left for a connection; the address is not to blame.
    Shortage(Reason),
    /// The attempt took too long.
    TimedOut,
    /// The connection for many lines ended before this one was answered, as it does when a daemon ends in good order.
    Ended,
    /// A line came on a connection for many lines that has no place there.
    Garbled,
}

/// The way in which the lines for an address travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// No hello has been answered yet.
    Unknown,
    /// Many lines on one connection.
    Multiplexed,
    /// A connection for each line.
    Single(Refusal),
}

/// The reason why the lines for an address travel on connections of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The operator wants it so.
    Unasked,
    /// The answer to the hello was another one.
    Answered,
    /// The connection ended without an answer to the hello.
    Ended,
    /// No answer to the hello came in time.
    Silent,
}

impl Fault {
    /// Returns true if the same question may be sent to the same address again. False after the address received it and
    /// returned a bad answer or part of one: a question that makes a pool lose its workers must not be repeated. A
    /// connection closed without a byte allows a repetition: that is how a restarting pool looks, or the balancer in
    /// front of it. A certificate that is refused does not get better while a line waits.
    pub(super) fn may_ask_again(self) -> bool {
        match self {
            Fault::Unresolved | Fault::Unreachable(_) | Fault::Lost(_) | Fault::Shortage(_) => true,
            Fault::Tls | Fault::Ended | Fault::Garbled => true,
            Fault::Flawed(Flaw::Empty) => true,
            Fault::Flawed(Flaw::Unfinished | Flaw::TooLong | Flaw::Nul | Flaw::Tls) => false,
            Fault::Disagreed | Fault::TimedOut => false,
        }
    }

    /// Returns true if the next lines should go to another address.
    pub(super) fn blames_address(self) -> bool {
        match self {
            Fault::Unresolved | Fault::Unreachable(_) | Fault::Lost(_) | Fault::TimedOut | Fault::Garbled => true,
            Fault::Tls | Fault::Disagreed | Fault::Flawed(Flaw::Empty | Flaw::Unfinished | Flaw::Tls) => true,
            // The address answers, only not this question.
            Fault::Flawed(Flaw::TooLong | Flaw::Nul) => false,
            Fault::Shortage(_) | Fault::Ended => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Unresolved => f.write_str("its name cannot be resolved"),
            Fault::Unreachable(reason) => write!(f, "cannot connect: {reason}"),
            Fault::Tls => f.write_str("TLS fails"),
            Fault::Disagreed => f.write_str("no agreement on TLS"),
            Fault::Lost(reason) => write!(f, "connection lost: {reason}"),
            Fault::Flawed(Flaw::Empty) => f.write_str("connection closed without an answer"),
            Fault::Flawed(Flaw::Unfinished) => f.write_str("connection closed within the answer"),
            Fault::Flawed(Flaw::TooLong) => f.write_str("the answer is too long"),
            Fault::Flawed(Flaw::Nul) => f.write_str("the answer holds a NUL"),
            Fault::Flawed(Flaw::Tls) => f.write_str("it speaks TLS; write tls: before its address"),
            Fault::Shortage(reason) => write!(f, "no connection to be had on this machine: {reason}"),
            Fault::TimedOut => f.write_str("no answer in time"),
            Fault::Ended => f.write_str("connection ended before the answer"),
            Fault::Garbled => f.write_str("a line came that is no answer"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Unasked => "--connections 0",
            Refusal::Answered => "another answer to the hello",
            Refusal::Ended => "no answer to the hello, the connection was closed",
            Refusal::Silent => "no answer to the hello in time",
        })
    }
}

/// The reason why a line got the text for failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The line is longer than a line may be.
    LineTooLong,
    /// The line had no connection before its deadline.
    NoConnection,
    /// The fault of its last attempt, after the index of the address.
    Fault(usize, Fault),
}

/// An action for the shell. Actions must be carried out in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskAction {
    /// Connect, send the [`question`](super::Asker::question), and report [`AskEvent::Reply`] or [`AskEvent::Failed`].
    Connect {
        /// The identity of the attempt.
        attempt: AttemptId,
        /// The index of the address.
        address: usize,
    },
    /// An attempt with a connection of its own is no longer needed: close that, so that the pool learns of it at once.
    Cancel(AttemptId),
    /// Connect, send the hello, and report [`AskEvent::Connected`], the lines that come, and [`AskEvent::Closed`].
    Open {
        /// The identity of the connection.
        connection: ConnectionId,
        /// The index of the address.
        address: usize,
    },
    /// Send the [`question`](super::Asker::question) behind this number.
    Send {
        /// The connection, which is open.
        connection: ConnectionId,
        /// The number of the line on this connection.
        number: u32,
        /// The identity of the attempt.
        attempt: AttemptId,
    },
    /// Tell the pool that the answer to a line is not wanted any more.
    Abandon {
        /// The connection on which the line was sent.
        connection: ConnectionId,
        /// The number of the line.
        number: u32,
    },
    /// Nothing more is sent on this connection: say so to the pool, behind the last line.
    Finish {
        /// The connection.
        connection: ConnectionId,
    },
    /// Close a connection that has no line under way, in good order. There is no report.
    Close {
        /// The connection.
        connection: ConnectionId,
    },
    /// Close a connection, so that the pool learns at once that nothing is wanted of it any more. There is no report.
    Reset {
        /// The connection.
        connection: ConnectionId,
    },
    /// Write this line, which includes its LF, to standard output.
    Write(Vec<u8>),
    /// For the log: an address has failed. It is avoided from now on while another one is up.
    Away {
        /// The index of the address.
        address: usize,
        /// The fault of the address.
        fault: Fault,
    },
    /// An address that was away is tried once more. Its host name may resolve differently by now.
    Probe {
        /// The index of the address.
        address: usize,
    },
    /// For the log: an address that was away has answered.
    Back {
        /// The index of the address.
        address: usize,
    },
    /// For the log: a line got the text for failures.
    GaveUp {
        /// The cause.
        cause: Cause,
    },
    /// For the log: a line that contradicts the known use of channel-IDs got the text for that.
    Contradicted,
    /// For the log: the lines for an address travel in another way from now on.
    LinkChanged {
        /// The index of the address.
        address: usize,
        /// The new way.
        state: LinkState,
    },
}
