//! The two protocols of the door, each a variant of the same three types.
//!
//! A [`Protocol`] is the operator's choice. A connection is given its [`Reader`] and its [`ReplyEncoder`] when it is
//! accepted, and keeps them over a reload. Outside of this file, only the two files of the protocols know of a
//! particular one. This file does not decide when a client gets an answer: [`client`](super::client) does.

use super::reply::{self, Outcome, Output, Pairs, Scratch};
use super::request::{self, End, Found};
use super::sockproc::{self, Held, Kept};

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// The protocol of sockexec 3.1: netstrings both ways, outputs as they come.
    Sockexec,
    /// The protocol of sockproc: a command line for a shell, outputs at the end.
    Sockproc {
        /// The most bytes of both outputs together that are held.
        max_output: usize,
    },
}

impl Protocol {
    /// Creates the reader of a request whose arguments have at most `longest` bytes altogether, with
    /// [`PER_ARGUMENT`](request::PER_ARGUMENT) more counted for each.
    #[must_use]
    pub fn reader(self, longest: usize) -> Reader {
        match self {
            Protocol::Sockexec => Reader::Sockexec(request::Reader::new(longest)),
            Protocol::Sockproc { .. } => Reader::Sockproc(sockproc::Reader::new(longest)),
        }
    }

    /// Creates the encoder of the reply.
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
    /// That of [`Protocol::Sockexec`].
    Sockexec(request::Reader),
    /// That of [`Protocol::Sockproc`].
    Sockproc(sockproc::Reader),
}

impl Reader {
    /// Reads up to the next thing that is found. Returns the number of bytes taken. Must be called again with the rest
    /// until it returns [`Found::NeedMore`], or [`Found::Wrong`] for good.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        match self {
            Reader::Sockexec(reader) => reader.advance(bytes),
            Reader::Sockproc(reader) => reader.advance(bytes),
        }
    }

    /// Returns true if the end of the input was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match self {
            Reader::Sockexec(reader) => reader.is_complete(),
            Reader::Sockproc(reader) => reader.is_complete(),
        }
    }

    /// The state of the request when the client has ended its side.
    #[must_use]
    pub fn end(&self) -> End {
        match self {
            Reader::Sockexec(reader) => reader.end(),
            Reader::Sockproc(reader) => reader.end(),
        }
    }
}

/// Encodes the reply to one client. It must be ended by exactly one of [`conclude`](Self::conclude) and
/// [`refuse`](Self::refuse).
#[derive(Debug)]
pub enum ReplyEncoder {
    /// That of [`Protocol::Sockexec`].
    Sockexec,
    /// That of [`Protocol::Sockproc`].
    Sockproc(Held),
}

impl ReplyEncoder {
    /// Appends some of a program's output, which must not be empty, or holds it until the end.
    pub fn output(&mut self, from: Output, bytes: &[u8], wire: &mut Vec<u8>) -> Kept {
        match self {
            ReplyEncoder::Sockexec => {
                reply::output(from, bytes, wire);
                Kept::All
            }
            ReplyEncoder::Sockproc(held) => held.keep(from, bytes),
        }
    }

    /// Returns some of a program's output as it goes over the wire, to be written without a copy ([`Pairs::of`]).
    /// `None`: output is held until the end.
    pub fn pairs<'a>(&self, from: Output, bytes: &'a [u8], scratch: &'a mut Scratch) -> Option<Pairs<'a>> {
        match self {
            ReplyEncoder::Sockexec => Some(Pairs::of(from, bytes, scratch)),
            ReplyEncoder::Sockproc(_) => None,
        }
    }

    /// Appends the exit of the program. Must be called behind all its output.
    pub fn conclude(&mut self, outcome: Outcome, wire: &mut Vec<u8>) {
        match self {
            ReplyEncoder::Sockexec => reply::conclude(outcome, wire),
            ReplyEncoder::Sockproc(held) => held.conclude(outcome, wire),
        }
    }

    /// Appends the reason for which the client gets no program, or no exit status.
    pub fn refuse(&mut self, why: &str, status: u8, wire: &mut Vec<u8>) {
        match self {
            ReplyEncoder::Sockexec => reply::refusal(why, status, wire),
            ReplyEncoder::Sockproc(held) => held.refuse(why, status, wire),
        }
    }

    /// Appends a refusal with the status that stands for the door's own.
    pub fn turn_down(&mut self, why: &str, wire: &mut Vec<u8>) {
        let status = match self {
            ReplyEncoder::Sockexec => reply::REFUSED,
            ReplyEncoder::Sockproc(_) => sockproc::REFUSED,
        };
        self.refuse(why, status, wire);
    }

    /// The number of bytes that are held for the end.
    #[must_use]
    pub fn held(&self) -> usize {
        match self {
            ReplyEncoder::Sockexec => 0,
            ReplyEncoder::Sockproc(held) => held.len(),
        }
    }
}
