//! The events of clients, and the actions that the scheduler answers with.

use std::fmt;
use std::time::Duration;

use crate::doors::run::RunStep;
use crate::doors::standstill;

/// The number of one connection. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// The number of one run of a program. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// An event in the life of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// A name or an argument is complete.
    Message(Vec<u8>),
    /// A name or an argument has begun, and its end is not read.
    Pending,
    /// A name or an argument is longer than allowed.
    TooLong,
    /// The client sends nothing more. A message that had begun was reported before.
    Left,
    /// The client can neither send nor read any more.
    Gone,
    /// The client has left as much output unread as may be held.
    Full,
    /// The client has left as much output unread as may be held, while its program takes no input before output is read
    /// and no more input can be held.
    Standstill,
    /// The client has read something.
    Progress,
    /// The client was sent everything that is to be sent.
    Flushed,
    /// [`Scheduler::client_deadline`](super::scheduler::Scheduler::client_deadline) has passed. Reported early, it
    /// changes nothing.
    Tick,
}

/// An action for the shell. Actions must be carried out in the given order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for the next argument.
    Prompt(ClientId),
    /// Take the bytes of a message that has begun for all of it, and report it.
    Complete(ClientId),
    /// Tell the client the reason, and nothing more.
    Refuse {
        /// The client.
        client: ClientId,
        /// The name of the command that it has asked for.
        name: Vec<u8>,
        /// The reason.
        why: Refusal,
    },
    /// Tell the client the names of all commands, and nothing more.
    List(ClientId),
    /// Start a program when it is its turn.
    Start {
        /// The number of the new run.
        run: RunId,
        /// The name of the command.
        name: Vec<u8>,
        /// The arguments that the client has sent.
        arguments: Vec<Vec<u8>>,
    },
    /// Give the client the output of a run from here on, and before that all output so far.
    Attach {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
        /// True if the client sends the program's input.
        leads: bool,
    },
    /// Give the client no more output of a run.
    Detach {
        /// The client.
        client: ClientId,
        /// The run.
        run: RunId,
    },
    /// Take this step of a run's program.
    Program(RunId, RunStep),
    /// Drop a run that is over, and log it.
    Drop(RunId),
    /// Begin the lingering close.
    BeginClose(ClientId),
    /// Log that the client has left its output unread for too long.
    LeftUnread(ClientId),
    /// Drop the connection.
    Close(ClientId),
}

/// The reason for which a client gets no program, or not all of its output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No command has that name.
    NotFound,
    /// The limits on programs that run and on requests that wait are both reached.
    Busy,
    /// An argument is not valid for the command.
    Argument {
        /// The number of the argument, from 1.
        number: usize,
        /// The form that it must have.
        why: String,
    },
    /// The client has ended its side before all arguments were read.
    Missing {
        /// The number of arguments that the command takes.
        wanted: usize,
        /// The number of arguments that were read.
        come: usize,
    },
    /// A name or argument is too long.
    TooLong,
    /// The request was not complete in time.
    TooSlow,
    /// A reload has changed the command, and the request is no longer valid.
    Changed,
    /// The door stops.
    Stop,
    /// The program could not be started.
    NotStarted,
    /// The program has run for as long as it may, and was ended.
    TimedOut(Duration),
    /// The client has sent more than may be held before it has read the output.
    Standstill,
    /// The program has survived KILL.
    Unkillable,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NotFound => f.write_str("no command has that name"),
            Refusal::Busy => f.write_str("busy"),
            Refusal::Argument { number, why } => write!(f, "argument {number} {why}"),
            Refusal::Missing { wanted, come } => write!(f, "takes {wanted} arguments, and {come} have come"),
            Refusal::TooLong => f.write_str("a name or argument is longer than the server allows (--max-message)"),
            Refusal::TooSlow => f.write_str("the request was not complete in time (--read-timeout)"),
            Refusal::Changed => f.write_str("the command was changed meanwhile; ask again"),
            Refusal::Stop => f.write_str("the server is shutting down"),
            Refusal::NotStarted => f.write_str("the program cannot be started; the server's log says why"),
            Refusal::TimedOut(limit) => write!(f, "ended, because it took longer than {limit:?}"),
            Refusal::Standstill => f.write_str(standstill::REASON),
            Refusal::Unkillable => f.write_str("the program does not end, not even when it is killed"),
        }
    }
}
