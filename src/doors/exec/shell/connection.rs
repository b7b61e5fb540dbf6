//! One client of the exec door as the shell holds it: its connection, its request, and the program with its pipes.
//!
//! Every method here moves bytes once, in one direction, and returns what came of it. The [`Conn`] and the [`Job`] know
//! which of their ends may give or take something, so a move that cannot do anything costs no system call.

use std::time::Instant;

use super::super::core::arguments::Arguments;
use super::super::core::client::{Client, ClientEvent, ClientState};
use super::super::core::protocol::{Reader, ReplyEncoder};
use super::super::core::reply::{self, LONGEST, MOST_PAIRS, Output, Pairs, Scratch};
use super::super::core::request::{End, Found, Wrong};
use super::super::core::sockproc::Kept;
use super::lookups::Looked;
use super::signals::Signals;
use crate::buffer::Buffer;
use crate::doors::dump::who;
use crate::doors::run::RunEvent;
use crate::doors::standstill::Watch;
use crate::net::conn::{CloseStep, Conn, Received, Sent};
use crate::net::origin::Origin;
use crate::process::job::{self, Job, Pipe};
use crate::reactor::{Alarm, READ_BUFFER};

// The output of one read of a program fits into one write to its client.
const _: () = assert!(READ_BUFFER <= MOST_PAIRS * LONGEST);

/// The outcome of one attempt to move bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing can be moved now.
    Nothing,
    /// Something was moved; there may be more.
    Some,
    /// This event must be reported to the connection's [`Client`].
    Event(ClientEvent),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) conn: Conn,
    pub(super) origin: Origin,
    pub(super) accepted: Instant,
    pub(super) client: Client,
    pub(super) reader: Reader,
    pub(super) encoder: ReplyEncoder,
    pub(super) alarm: Alarm,
    /// The program's name and its arguments, once they are complete. After the program's start only as much is kept as
    /// the log shows.
    pub(super) arguments: Arguments,
    /// The time at which the arguments were complete; `None` again once the program has written something.
    pub(super) asked: Option<Instant>,
    /// The answer of the lists to the question if the program may be run.
    pub(super) looked: Looked,
    pub(super) program: Option<Job>,
    /// The input that the program has not taken yet. Nothing is added to it once `input_ends`.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    /// The signals that the program has not been sent yet.
    pub(super) signals: Signals,
    /// The watch for a client and a program that wait for each other, with the number of bytes that may be read
    /// meanwhile.
    pub(super) watch: Watch,
    pub(super) growth: usize,
    /// True if the client had left as much output unread as may be held when the program's time was up.
    pub(super) unread_at_timeout: bool,
}

impl Connection {
    /// The client as it stands in log lines: with its user, where that is known.
    pub(super) fn who(&self) -> String {
        who(self.conn.socket(), &self.origin)
    }

    /// Returns the time at which the arguments were complete, once, when the program has written its first byte.
    pub(super) fn first_byte(&mut self) -> Option<Instant> {
        let traffic = self.program.as_ref()?.traffic();
        self.asked.take_if(|_| traffic.output > 0 || traffic.errors > 0)
    }

    // ---- to and from the client --------------------------------------------------------------------------------

    /// Writes waiting output to the client. Where not all of it fits it is cut between pairs, because a client may take
    /// a part of a pair for a broken one. The end of this side goes with the last bytes, because a client may take an
    /// answer for broken if it has read all bytes and finds no end.
    pub(super) fn write_client(&mut self) -> Moved {
        let is_last = matches!(self.client.state(), ClientState::Answered { .. });
        let first_unit = |wire: &[u8]| reply::units(wire).next().map_or(0, <[u8]>::len);
        match self.conn.flush_messages(first_unit, is_last) {
            Sent::Bytes(count) => {
                self.watch.sent(count);
                let is_flushed = self.conn.unwritten() == 0 && is_last;
                Moved::Event(if is_flushed {
                    ClientEvent::Flushed
                } else {
                    ClientEvent::Progress
                })
            }
            Sent::Nothing => Moved::Nothing,
            Sent::Failed => Moved::Event(ClientEvent::Gone),
        }
    }

    /// Reads from the client. While some of its input waits for the program nothing is read, unless more may be held
    /// because client and program wait for each other. Bytes behind the end of the input are read at all times, and
    /// dropped.
    pub(super) fn read_client(&mut self, buffer: &mut [u8], max_buffer: usize) -> Moved {
        if self.conn.is_closing() {
            return match self.conn.go_on_closing() {
                CloseStep::Waiting => Moved::Nothing,
                CloseStep::MoreLater => Moved::Some,
                CloseStep::Done => Moved::Event(ClientEvent::Left),
            };
        }
        let waits = !self.input.is_empty() && !self.reader.is_complete();
        let growth = if waits { self.growth } else { usize::MAX };
        if growth == 0 || self.client.is_starting() {
            return Moved::Nothing;
        }
        let room = buffer.len().min(max_buffer).min(growth);
        match self.conn.read(buffer.get_mut(..room).unwrap_or_default()) {
            Received::Nothing => Moved::Nothing,
            Received::Bytes(count) if waits && self.client.is_listening() => {
                self.growth -= count;
                self.take(buffer.get(..count).unwrap_or_default())
            }
            Received::Bytes(count) if self.client.is_listening() => self.take(buffer.get(..count).unwrap_or_default()),
            Received::Bytes(_) => Moved::Some,
            Received::End => self.client_ends(),
            Received::Failed => Moved::Event(ClientEvent::Gone),
        }
    }

    /// Handles the end of the client's side.
    fn client_ends(&mut self) -> Moved {
        if !self.client.is_listening() {
            return Moved::Event(ClientEvent::Left);
        }
        match self.reader.end() {
            End::Nothing => Moved::Event(ClientEvent::Left),
            End::Unfinished => Moved::Event(ClientEvent::Wrong(Wrong::Unfinished)),
            End::Arguments(arguments) => {
                self.arguments = arguments;
                self.input_ends = true;
                Moved::Event(ClientEvent::Arguments)
            }
            End::Clean => {
                self.input_ends = true;
                Moved::Some
            }
        }
    }

    /// Parses bytes of the client. Input behind complete arguments is kept until the program is started.
    fn take(&mut self, bytes: &[u8]) -> Moved {
        let (mut at, mut event) = (0, None);
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let (taken, found) = self.reader.advance(rest);
            at += taken;
            match found {
                Found::NeedMore => break,
                Found::Input(range) => self.input.end().extend_from_slice(rest.get(range).unwrap_or_default()),
                Found::InputEnd => self.input_ends = true,
                Found::Signal(signal) => self.signals.keep(signal),
                Found::Arguments(arguments) => {
                    self.arguments = arguments;
                    event = Some(ClientEvent::Arguments);
                }
                // The arguments came in the same read: they are not run for the sake of what follows them.
                Found::Wrong(wrong) => return Moved::Event(ClientEvent::Wrong(wrong)),
            }
        }
        event.map_or(Moved::Some, Moved::Event)
    }

    /// Returns true if client and program wait for each other: the client for its input to be taken, the program for
    /// its output. Must be called after everything was moved that could be.
    pub(super) fn is_jammed(&self, max_buffer: usize) -> bool {
        let takes_input = self.program.as_ref().is_some_and(Job::takes_input);
        let input_waits =
            takes_input && !self.input.is_empty() && !self.reader.is_complete() && self.conn.end().is_none();
        input_waits && self.conn.unwritten() >= max_buffer
    }

    // ---- to and from the program -------------------------------------------------------------------------------

    /// Writes the client's input to the program, and ends the program's input behind it.
    pub(super) fn write_stdin(&mut self) -> Moved {
        let Some(program) = &mut self.program else {
            return Moved::Nothing;
        };
        if !program.takes_input() {
            // The program's input has ended already. What the client sends is read and dropped, so that the client's
            // end is seen.
            self.input.clear();
            return Moved::Nothing;
        }
        if self.input.is_empty() {
            if self.input_ends {
                program.end_input();
            }
            return Moved::Nothing;
        }
        match program.write_input(self.input.bytes()) {
            job::Moved::Bytes(count) => {
                self.watch.taken();
                self.input.consume(count);
                Moved::Some
            }
            job::Moved::Nothing => Moved::Nothing,
            job::Moved::Over => {
                self.end_input();
                Moved::Some
            }
        }
    }

    pub(super) fn end_input(&mut self) {
        self.input.clear();
        self.input_ends = true;
        if let Some(program) = &mut self.program {
            program.end_input();
        }
    }

    /// Reads one output of the program while fewer than `max_buffer` bytes wait for the client.
    pub(super) fn read_output(&mut self, from: Output, buffer: &mut [u8], max_buffer: usize) -> Moved {
        let room = max_buffer.saturating_sub(self.conn.unwritten()).min(buffer.len());
        let Some(program) = self.program.as_mut().filter(|_| room > 0) else {
            return Moved::Nothing;
        };
        let pipe = match from {
            Output::Stdout => Pipe::Stdout,
            Output::Stderr => Pipe::Stderr,
        };
        match program.read_output(pipe, buffer.get_mut(..room).unwrap_or_default()) {
            job::Moved::Bytes(count) => {
                let come = buffer.get(..count).unwrap_or_default();
                let mut scratch = Scratch::default();
                if self.conn.can_write()
                    && let Some(pairs) = self.encoder.pairs(from, come, &mut scratch)
                {
                    return self.write_through(&pairs);
                }
                match self.encoder.output(from, come, self.conn.output_mut()) {
                    Kept::All | Kept::CutAgain => Moved::Some,
                    Kept::Cut => Moved::Event(ClientEvent::Program(RunEvent::Overflow)),
                }
            }
            job::Moved::Nothing => Moved::Nothing,
            job::Moved::Over => Moved::Event(ClientEvent::Program(RunEvent::OutputOver)),
        }
    }

    /// Writes output to a client for which nothing else waits, without copying it. Bytes that find no room are kept.
    fn write_through(&mut self, pairs: &Pairs<'_>) -> Moved {
        let (first, second) = match self.conn.socket().keeps_messages() {
            true => pairs.units(),
            false => (pairs.pieces(), &[][..]),
        };
        let written = match self.conn.write_messages(&[first, second]) {
            Sent::Bytes(written) => written,
            Sent::Nothing => 0,
            Sent::Failed => return Moved::Event(ClientEvent::Gone),
        };
        pairs.rest(written, self.conn.output_mut());
        match written {
            0 => Moved::Some,
            _ => {
                self.watch.sent(written);
                Moved::Event(ClientEvent::Progress)
            }
        }
    }
}
