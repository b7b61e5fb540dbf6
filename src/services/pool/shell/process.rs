//! One worker's process, its pipes and what is half-read or half-written on them.

use std::collections::VecDeque;
use std::io;
use std::io::{Read, Write};
use std::time::Instant;

use super::super::core::{RequestId, WorkerId};
use super::super::recorder::Recorder;
use super::outgoing::Outgoing;
use crate::framing::Framer;
use crate::framing::search::LineSearch;
use crate::process::child::Child;
use crate::process::reaper;
use crate::process::stderr_log::StderrLog;
use crate::reactor::Alarm;

/// A process from its exec until it is reaped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: WorkerId,
    /// The number of its place when it was started: what logs and statistics call it.
    pub(super) number: usize,
    pub(super) child: Child,
    pub(super) stage: Stage,
    pub(super) framer: Framer,
    /// A reply that is not whole yet.
    pub(super) reply: Vec<u8>,
    /// When it will be whole if nothing more comes, where a pause is what ends it.
    pub(super) reply_alarm: Alarm,
    pub(super) input: Input,
    /// The requests that it was given and has not answered, oldest first.
    pub(super) given: VecDeque<Given>,
    /// What the pipe has not taken of them.
    pub(super) unsent: Outgoing,
    pub(super) stdin_watched: StdinWatch,
    pub(super) ending: reaper::Ending,
    pub(super) ending_alarm: Alarm,
    pub(super) stderr: StderrLog,
    pub(super) stderr_alarm: Alarm,
    pub(super) started: Instant,
    /// Whether a byte has come from its standard output.
    pub(super) has_written: bool,
    pub(super) recorder: Recorder,
}

/// How long its standard input is held open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Input {
    /// As long as it serves.
    Stays,
    /// Until it has its one request: the end of the input is the end of that.
    EndsWithRequest,
    /// It has had it.
    Ended,
}

/// Whether the poll knows its standard input. Most workers always take a request whole and never need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StdinWatch {
    NotYet,
    Registered,
}

/// What its output means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Start-up talk, until the ready line comes.
    Starting(LineSearch),
    /// Replies.
    Serving,
    /// Nothing any more: it was told to end.
    Ending,
    /// Nothing any more: it has closed its input or output of its own accord, as a process that dies does a moment before
    /// its end is known. However that end comes, it is told as a death.
    Lost,
}

/// A request that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) request: RequestId,
    pub(super) length: usize,
}

/// How an attempt to write to a worker went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// The pipe has all of it.
    Whole,
    /// The rest waits until the pipe has room.
    Partly,
    /// The worker does not listen, and not a byte of this request, its oldest, has reached it.
    Nothing(RequestId),
    /// The worker does not listen any more; what has reached it, nobody knows.
    Lost,
}

/// How much of the oldest of its requests a worker has left unread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    Nothing,
    Some,
    /// All of it: what it has written cannot be an answer to that.
    Everything,
}

/// What an idle worker's output shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing was written.
    Kept,
    /// Something was, unasked.
    Broken,
    /// It has closed its output.
    Closed,
}

impl Process {
    pub(super) fn pid(&self) -> i32 {
        self.child.pid().as_raw()
    }

    /// It serves, and has been given what it has not answered.
    pub(super) fn owes_a_reply(&self) -> bool {
        self.stage == Stage::Serving && !self.given.is_empty()
    }

    /// Reads from its output once.
    pub(super) fn read_output(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut stdout) = self.child.stdout.as_ref() else {
            return Ok(0);
        };
        retry_interrupted(|| stdout.read(buffer))
    }

    /// Looks whether it has written anything since it was last read.
    pub(super) fn silence(&self) -> Silence {
        match self.read_output(&mut [0; 1]) {
            Ok(0) => Silence::Closed,
            Ok(_) => Silence::Broken,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Silence::Kept,
            Err(_) => Silence::Closed,
        }
    }

    /// How many bytes its standard input holds that it has not read. `None`: it cannot be looked at.
    pub(super) fn bytes_in_pipe(&self) -> Option<usize> {
        let stdin = self.child.stdin.as_ref()?;
        crate::process::unread_bytes(stdin).ok()
    }

    /// How much of the oldest of its requests it had not read while its input held so many bytes; those behind it lie there
    /// by right. One whose input cannot be looked at is not to be believed, unless that is because it was closed on purpose.
    pub(super) fn unread_input(&self, in_pipe: Option<usize>) -> Unread {
        if self.input == Input::Ended {
            return Unread::Nothing;
        }
        let Some(in_pipe) = in_pipe else {
            return Unread::Some;
        };
        let all: usize = self.given.iter().map(|given| given.length).sum();
        let oldest = self.given.front().map_or(0, |given| given.length);
        match in_pipe + self.unsent.len() {
            unread if unread <= all - oldest => Unread::Nothing,
            unread if unread >= all => Unread::Everything,
            _ => Unread::Some,
        }
    }

    /// Takes a request for it; [`send`](Self::send) writes it.
    pub(super) fn take(&mut self, request: RequestId, bytes: &[u8]) {
        let length = bytes.len();
        self.given.push_back(Given { request, length });
        self.unsent.push(bytes);
    }

    /// Writes what it has not been sent, as far as the pipe takes it.
    pub(super) fn send(&mut self) -> Sent {
        if self.input == Input::Ended {
            return Sent::Whole;
        }
        let unsent_before = self.unsent.len();
        let Some(mut stdin) = self.child.stdin.as_ref() else {
            return self.not_sent(unsent_before);
        };
        match self.unsent.write(|bytes| stdin.write(bytes)) {
            Ok(_) if self.unsent.is_empty() => {
                self.has_its_request();
                Sent::Whole
            }
            Ok(_) => Sent::Partly,
            // EPIPE: it has closed its input.
            Err(_) => self.not_sent(unsent_before),
        }
    }

    /// Where the end of its input is what tells it that it has all of its request, now is the time.
    fn has_its_request(&mut self) {
        if self.input == Input::EndsWithRequest && !self.given.is_empty() {
            self.input = Input::Ended;
            self.child.stdin = None;
        }
    }

    fn not_sent(&self, unsent: usize) -> Sent {
        let given: usize = self.given.iter().map(|given| given.length).sum();
        match self.given.front() {
            Some(oldest) if unsent >= given => Sent::Nothing(oldest.request),
            _ => Sent::Lost,
        }
    }
}

/// read(2) and write(2) on a non-blocking descriptor are interrupted only before they have moved a byte.
fn retry_interrupted(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}
