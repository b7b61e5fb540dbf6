//! The two protocols in which a program is asked for and its end is told, each a variant of the same three values.
//!
//! A [`Protocol`] is what an operator has chosen. A connection is given a [`Reader`] and a [`ReplyEncoder`] of it when it is taken in,
//! and keeps them: what is changed later is for others. Nothing outside this file and the two that it names knows which one is
//! spoken. What does not belong here: when something is said. [`run`](super::run) decides that.

use super::reply::{self, Outcome, Output, Pairs, Scratch};
use super::request::{self, End, Found};
use super::sockproc::{self, Held, Kept};

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Netstrings both ways, outputs as they come: sockexec 3.1.
    Sockexec,
    /// A command line for a shell, outputs at the end: sockproc.
    Sockproc {
        /// How many bytes of both outputs may be held together.
        max_output: usize,
    },
}

impl Protocol {
    /// Reads a request whose arguments have at most `longest` bytes altogether,
    /// [`PER_ARGUMENT`](request::PER_ARGUMENT) more counted for each.
    #[must_use]
    pub fn reader(self, longest: usize) -> Reader {
        match self {
            Protocol::Sockexec => Reader::Sockexec(request::Reader::new(longest)),
            Protocol::Sockproc { .. } => Reader::Sockproc(sockproc::Reader::new(longest)),
        }
    }

    /// Tells what becomes of it.
    #[must_use]
    pub fn encoder(self) -> ReplyEncoder {
        match self {
            Protocol::Sockexec => ReplyEncoder::Sockexec,
            Protocol::Sockproc { max_output } => ReplyEncoder::Sockproc(Held::new(max_output)),
        }
    }
}

/// Reads one request.
#[derive(Debug, Clone)]
pub enum Reader {
    /// Of [`Protocol::Sockexec`].
    Sockexec(request::Reader),
    /// Of [`Protocol::Sockproc`].
    Sockproc(sockproc::Reader),
}

impl Reader {
    /// Reads on, up to the next thing that is found; how many bytes that took. To be called again with the rest until it says
    /// [`Found::NeedMore`], or [`Found::Wrong`] for good.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        match self {
            Reader::Sockexec(reader) => reader.advance(bytes),
            Reader::Sockproc(reader) => reader.advance(bytes),
        }
    }

    /// Whether the end of the input was read: nothing that follows has a meaning.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Reader::Sockexec(reader) => reader.is_complete(),
            Reader::Sockproc(reader) => reader.is_complete(),
        }
    }

    /// The client sends nothing more, and nothing is asked any more.
    #[must_use]
    pub fn end(&self) -> End {
        match self {
            Reader::Sockexec(reader) => reader.end(),
            Reader::Sockproc(reader) => reader.end(),
        }
    }
}

/// Writes what one client is told. Exactly one of [`conclude`](Self::conclude) and [`refuse`](Self::refuse) ends it.
#[derive(Debug)]
pub enum ReplyEncoder {
    /// Of [`Protocol::Sockexec`].
    Sockexec,
    /// Of [`Protocol::Sockproc`].
    Sockproc(Held),
}

impl ReplyEncoder {
    /// Some of a program's output, which is never empty: appended, or held until the end.
    pub fn output(&mut self, from: Output, bytes: &[u8], wire: &mut Vec<u8>) -> Kept {
        match self {
            ReplyEncoder::Sockexec => {
                reply::output(from, bytes, wire);
                Kept::All
            }
            ReplyEncoder::Sockproc(held) => held.keep(from, bytes),
        }
    }

    /// Some of a program's output as it goes over the wire, for who writes it without copying it first: see [`Pairs::of`].
    /// `None`: output is held until the end.
    pub fn pairs<'a>(&self, from: Output, bytes: &'a [u8], scratch: &'a mut Scratch) -> Option<Pairs<'a>> {
        match self {
            ReplyEncoder::Sockexec => Some(Pairs::of(from, bytes, scratch)),
            ReplyEncoder::Sockproc(_) => None,
        }
    }

    /// Appends how the program has ended, behind all its output.
    pub fn conclude(&mut self, outcome: Outcome, wire: &mut Vec<u8>) {
        match self {
            ReplyEncoder::Sockexec => reply::conclude(outcome, wire),
            ReplyEncoder::Sockproc(held) => held.conclude(outcome, wire),
        }
    }

    /// Appends why there is no program, or none any more.
    pub fn refuse(&mut self, why: &str, status: u8, wire: &mut Vec<u8>) {
        match self {
            ReplyEncoder::Sockexec => reply::refusal(why, status, wire),
            ReplyEncoder::Sockproc(held) => held.refuse(why, status, wire),
        }
    }

    /// Appends why nothing is run for the client, or its program's end cannot be told: the door's own word.
    pub fn turn_down(&mut self, why: &str, wire: &mut Vec<u8>) {
        let status = match self {
            ReplyEncoder::Sockexec => reply::REFUSED,
            ReplyEncoder::Sockproc(_) => sockproc::REFUSED,
        };
        self.refuse(why, status, wire);
    }

    /// How many bytes are held for the end.
    #[must_use]
    pub fn held(&self) -> usize {
        match self {
            ReplyEncoder::Sockexec => 0,
            ReplyEncoder::Sockproc(held) => held.len(),
        }
    }
}
