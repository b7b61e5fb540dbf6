//! What happens to clients and runs, and what is to be done about it.

use std::fmt;
use std::time::Duration;

use crate::doors::run::RunStep;
use crate::doors::standstill;

/// One connection, for as long as it is there. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub u64);

/// One start of a program. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

/// What has happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// A name or an argument has come.
    Message(Vec<u8>),
    /// Part of one has come, and not its end.
    Pending,
    /// What comes is longer than any may be.
    TooLong,
    /// It sends nothing more. What there was of a message has been told.
    Left,
    /// It can neither send nor read any more.
    Gone,
    /// It holds as much unread output as it may.
    Full,
    /// So it is, its program takes none of its input until it is read, and no more of that can be held.
    Standstill,
    /// It has read something.
    Progress,
    /// It has read everything that there was to be sent.
    Flushed,
    /// The time is what [`Scheduler::client_deadline`](super::scheduler::Scheduler::client_deadline) said. One that comes
    /// early changes nothing.
    Tick,
}

/// What is to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for the next argument.
    Prompt(ClientId),
    /// What has come of a message is all of it: tell it.
    Complete(ClientId),
    /// Say why, and nothing more.
    Refuse {
        /// To whom.
        client: ClientId,
        /// What it has asked for.
        name: Vec<u8>,
        /// Why.
        why: Refusal,
    },
    /// Say which commands there are, and nothing more.
    List(ClientId),
    /// Start a program, when it is its turn.
    Start {
        /// From now on that is what it is called.
        run: RunId,
        /// Which command.
        name: Vec<u8>,
        /// What the client has sent.
        arguments: Vec<Vec<u8>>,
    },
    /// This client gets its output from here on, and before that all that there was.
    Attach {
        /// Who.
        client: ClientId,
        /// Of which.
        run: RunId,
        /// Whether what it sends is its input.
        leads: bool,
    },
    /// It gets nothing more of its run.
    Detach {
        /// Who.
        client: ClientId,
        /// From which.
        run: RunId,
    },
    /// Take this step of a run's program.
    Program(RunId, RunStep),
    /// It is over.
    Drop(RunId),
    /// Nothing more is sent; see whether the client sends still.
    Part(ClientId),
    /// It has left what it is owed unread for too long: say so in the log.
    LeftUnread(ClientId),
    /// It is over.
    Close(ClientId),
}

/// Why a client gets no program, or not all of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No command has that name.
    NotFound,
    /// As many run as may, and as many wait.
    Busy,
    /// What it sent is no argument of this command.
    Argument {
        /// Which, from 1.
        number: usize,
        /// What it has to be.
        why: String,
    },
    /// It has ended its side before all arguments had come.
    Missing {
        /// How many the command takes.
        wanted: usize,
        /// How many have come.
        come: usize,
    },
    /// A name or argument is too long.
    TooLong,
    /// It was too slow.
    TooSlow,
    /// The operator has changed the command, and what has come is no request for it any more.
    Changed,
    /// The door closes.
    Stop,
    /// The program could not be started.
    NotStarted,
    /// It ran out of its time.
    TimedOut(Duration),
    /// Its client sent, and did not read.
    Standstill,
    /// It could not be ended.
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
