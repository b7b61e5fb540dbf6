//! One worker's process, its pipes and what is half-read or half-written on them.

use std::collections::VecDeque;
use std::io;
use std::io::{Read, Write};
use std::time::Instant;

use super::super::core::WorkerId;
use super::super::recorder::Recorder;
use crate::framing::line::LineFramer;
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
    pub(super) framer: LineFramer,
    /// A reply that is not whole yet.
    pub(super) reply: Vec<u8>,
    /// The lengths of the requests that it was given and has not answered, oldest first.
    pub(super) given: VecDeque<usize>,
    /// What the pipe did not take of them.
    pub(super) unsent: VecDeque<u8>,
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

/// How an attempt to give a worker a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// The pipe has all of it.
    Whole,
    /// The rest waits until the pipe has room.
    Partly,
    /// The worker does not listen; not a byte has reached it.
    Refused,
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

    /// How much of the oldest of its requests it has not read; those behind it lie in the pipe by right. One whose input
    /// cannot be looked at is not to be believed.
    pub(super) fn unread_input(&self) -> Unread {
        let Some(Ok(in_pipe)) = self.child.stdin.as_ref().map(crate::process::unread_bytes) else {
            return Unread::Some;
        };
        let (all, oldest) = (
            self.given.iter().sum::<usize>(),
            self.given.front().copied().unwrap_or(0),
        );
        match in_pipe + self.unsent.len() {
            unread if unread <= all - oldest => Unread::Nothing,
            unread if unread >= all => Unread::Everything,
            _ => Unread::Some,
        }
    }

    /// Gives it a request.
    pub(super) fn give(&mut self, request: &[u8]) -> Given {
        let Some(mut stdin) = self.child.stdin.as_ref() else {
            return Given::Refused;
        };
        if !self.unsent.is_empty() {
            // Behind what waits already.
            self.unsent.extend(request);
            self.given.push_back(request.len());
            return Given::Partly;
        }
        self.given.push_back(request.len());
        match retry_interrupted(|| stdin.write(request)) {
            Ok(written) if written == request.len() => Given::Whole,
            Ok(written) => {
                self.unsent.extend(request.iter().skip(written));
                Given::Partly
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.unsent.extend(request);
                Given::Partly
            }
            // EPIPE: it has closed its input.
            Err(_) => Given::Refused,
        }
    }

    /// Writes more of a request that the pipe did not take at once. `false`: it has stopped listening.
    pub(super) fn give_rest(&mut self) -> bool {
        while !self.unsent.is_empty() {
            let Some(mut stdin) = self.child.stdin.as_ref() else {
                return false;
            };
            let (bytes, _) = self.unsent.as_slices();
            match retry_interrupted(|| stdin.write(bytes)) {
                Ok(written) => drop(self.unsent.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            }
        }
        true
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
