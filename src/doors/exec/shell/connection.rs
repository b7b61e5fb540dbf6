//! One connection as the shell holds it: the client's socket, what is on its way, and the program with its pipes.
//!
//! Edges are kept ([`Edges`], and those of the [`Job`]): a source that has not said WouldBlock since its last event may have
//! something.

use std::io::IoSlice;
use std::time::{Duration, Instant};

use super::super::core::arguments::Arguments;
use super::super::core::dialect::{Reader, Teller};
use super::super::core::reply::{self, LONGEST, MOST_PAIRS, Output, Pairs, Scratch};
use super::super::core::request::{End, Found, Wrong};
use super::super::core::run::{Event, Run, State};
use super::super::core::sockproc::Kept;
use super::lookups::Looked;
use super::signals::Signals;
use crate::buffer::Buffer;
use crate::doors::dump::who;
use crate::doors::standstill::Watch;
use crate::net::addr::PeerAddr;
use crate::net::edges::{Edges, Taken, Written};
use crate::net::stream::{MOST_MESSAGES, Stream};
use crate::process::exit_status::ExitStatus;
use crate::process::job::{self, Job, Pipe};
use crate::reactor::{Alarm, READ_BUFFER};

// What one read brings is told by one write.
const _: () = assert!(READ_BUFFER <= MOST_PAIRS * LONGEST);

/// What one step of moving bytes came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Nothing can be moved.
    Nothing,
    /// Something was; there may be more.
    Some,
    /// Something has happened.
    Event(Event),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: Stream,
    pub(super) peer: PeerAddr,
    pub(super) accepted: Instant,
    pub(super) run: Run,
    pub(super) reader: Reader,
    pub(super) teller: Teller,
    pub(super) edges: Edges,
    pub(super) alarm: Alarm,
    /// The program's name and its arguments, once they are complete; from the program's start on, as much as the log shows.
    pub(super) arguments: Arguments,
    /// When they were complete, until the program has written something.
    pub(super) asked: Option<Instant>,
    /// Whether it may be run, where a list says what may be.
    pub(super) looked: Looked,
    pub(super) program: Option<Job>,
    /// What the program has not taken yet of its input, and whether more may come.
    pub(super) input: Buffer,
    pub(super) input_ends: bool,
    /// What the program has not been sent yet.
    pub(super) signals: Signals,
    /// Whether the client has ended its side.
    pub(super) left: bool,
    /// What the client has not taken yet.
    pub(super) output: Buffer,
    /// How the program has ended, once it is reaped.
    pub(super) status: Option<ExitStatus>,
    /// How long it ran, from when it is reaped until the log is told.
    pub(super) ran: Option<Duration>,
    pub(super) bytes: Bytes,
    /// Whether client and program wait for each other, what is held for that, and how much more may be.
    pub(super) watch: Watch,
    pub(super) growth: usize,
    /// Whether as much output as may be held was unread when the program's time was up.
    pub(super) unread_at_timeout: bool,
}

/// How many bytes have passed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bytes {
    pub(super) input: u64,
    pub(super) output: u64,
    pub(super) errors: u64,
}

impl Connection {
    /// The client as log lines have it: with its user, where that is known.
    pub(super) fn who(&self) -> String {
        who(&self.stream, &self.peer)
    }

    /// When its arguments were complete, if the program has just written its first byte.
    pub(super) fn first_byte(&mut self) -> Option<Instant> {
        let written = self.bytes.output > 0 || self.bytes.errors > 0;
        self.asked.take_if(|_| written)
    }

    // ---- to and from the client --------------------------------------------------------------------------------

    /// Writes to the client what it is owed, cut between pairs where it does not fit: a client may take a pair for broken of
    /// which it finds a part. Once that is all there will be, the end of this side goes with it, as an answer may be taken for
    /// broken whose end is not there when the rest has been read.
    pub(super) fn write_client(&mut self) -> Moved {
        if self.output.is_empty() {
            return Moved::Nothing;
        }
        let last = matches!(self.run.state(), State::Answered { .. });
        let (mut units, mut count) = ([[IoSlice::new(&[])]; MOST_MESSAGES], 0);
        for (place, unit) in units.iter_mut().zip(reply::units(self.output.bytes())) {
            *place = [IoSlice::new(unit)];
            count += 1;
        }
        let messages = units.each_ref().map(<[_; 1]>::as_slice);
        let messages = messages.get(..count).unwrap_or_default();
        let sent: usize = messages.iter().copied().flatten().map(|unit| unit.len()).sum();
        let end = last && sent == self.output.len();
        match self.edges.write_messages(&self.stream, messages, end) {
            Written::Bytes(count) => {
                self.watch.sent(count);
                self.output.consume(count);
                let flushed = self.output.is_empty() && last;
                Moved::Event(if flushed { Event::Flushed } else { Event::Progress })
            }
            Written::Nothing => Moved::Nothing,
            Written::Gone => Moved::Event(Event::Gone),
        }
    }

    /// Reads from the client, while the program takes what has been read before, or more may be held because the two wait for
    /// each other; behind the end of the input always, for nothing of that is held.
    pub(super) fn read_client(&mut self, buffer: &mut [u8], max_buffer: usize) -> Moved {
        let waits = !self.input.is_empty() && !self.reader.is_complete();
        let growth = if waits { self.growth } else { usize::MAX };
        if growth == 0 || self.run.state() == State::Starting {
            return Moved::Nothing;
        }
        let room = buffer.len().min(max_buffer).min(growth);
        match self
            .edges
            .read(&self.stream, buffer.get_mut(..room).unwrap_or_default())
        {
            Taken::Nothing => Moved::Nothing,
            Taken::Bytes(count) if waits && self.run.listens() => {
                self.growth -= count;
                self.take(buffer.get(..count).unwrap_or_default())
            }
            Taken::Bytes(count) if self.run.listens() => self.take(buffer.get(..count).unwrap_or_default()),
            Taken::Bytes(_) => Moved::Some,
            Taken::End => {
                self.left = true;
                self.client_ends()
            }
            Taken::Gone => Moved::Event(Event::Gone),
        }
    }

    /// The client sends nothing more.
    fn client_ends(&mut self) -> Moved {
        if !self.run.listens() {
            return Moved::Event(Event::Left);
        }
        match self.reader.end() {
            End::Nothing => Moved::Event(Event::Left),
            End::Unfinished => Moved::Event(Event::Wrong(Wrong::Unfinished)),
            End::Arguments(arguments) => {
                self.arguments = arguments;
                self.input_ends = true;
                Moved::Event(Event::Arguments)
            }
            End::Clean => {
                self.input_ends = true;
                Moved::Some
            }
        }
    }

    /// Takes in what has been read. Input behind complete arguments waits for the program to be started.
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
                    event = Some(Event::Arguments);
                }
                // The arguments came in the same read: they are not run for the sake of what follows them.
                Found::Wrong(wrong) => return Moved::Event(Event::Wrong(wrong)),
            }
        }
        event.map_or(Moved::Some, Moved::Event)
    }

    /// Whether client and program wait for each other, after everything was moved that could be: the one for its input to be
    /// taken, the other for its output.
    pub(super) fn is_jammed(&self, max_buffer: usize) -> bool {
        let takes_input = self.program.as_ref().is_some_and(Job::takes_input);
        let input_waits = takes_input && !self.input.is_empty() && !self.reader.is_complete() && !self.left;
        input_waits && self.output.len() >= max_buffer
    }

    // ---- to and from the program -------------------------------------------------------------------------------

    /// Writes to the program what the client has sent, and ends its input behind that.
    pub(super) fn write_stdin(&mut self) -> Moved {
        let Some(program) = &mut self.program else {
            return Moved::Nothing;
        };
        if !program.takes_input() {
            // It has been told, or has closed it: what comes is read and dropped, so that the client's end is seen.
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
                self.bytes.input += count as u64;
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

    /// Reads one output of the program, while the client has room for it.
    pub(super) fn read_output(&mut self, from: Output, buffer: &mut [u8], max_buffer: usize) -> Moved {
        let room = max_buffer.saturating_sub(self.output.len()).min(buffer.len());
        let Some(program) = self.program.as_mut().filter(|_| room > 0) else {
            return Moved::Nothing;
        };
        let (pipe, bytes) = match from {
            Output::Stdout => (Pipe::Stdout, &mut self.bytes.output),
            Output::Stderr => (Pipe::Stderr, &mut self.bytes.errors),
        };
        match program.read_output(pipe, buffer.get_mut(..room).unwrap_or_default()) {
            job::Moved::Bytes(count) => {
                *bytes += count as u64;
                let come = buffer.get(..count).unwrap_or_default();
                let mut scratch = Scratch::default();
                if self.output.is_empty()
                    && self.edges.writable()
                    && let Some(pairs) = self.teller.pairs(from, come, &mut scratch)
                {
                    return self.write_through(&pairs);
                }
                match self.teller.output(from, come, self.output.end()) {
                    Kept::All | Kept::CutAgain => Moved::Some,
                    Kept::Cut => Moved::Event(Event::Overflow),
                }
            }
            job::Moved::Nothing => Moved::Nothing,
            job::Moved::Over => Moved::Event(Event::OutputOver(from)),
        }
    }

    /// Writes output to a client that is owed nothing else, without copying it. What the client has no room for is kept.
    fn write_through(&mut self, pairs: &Pairs<'_>) -> Moved {
        let (first, second) = match self.stream.keeps_messages() {
            true => pairs.units(),
            false => (pairs.pieces(), &[][..]),
        };
        let written = match self.edges.write_messages(&self.stream, &[first, second], false) {
            Written::Bytes(written) => written,
            Written::Nothing => 0,
            Written::Gone => return Moved::Event(Event::Gone),
        };
        pairs.rest(written, self.output.end());
        match written {
            0 => Moved::Some,
            _ => {
                self.watch.sent(written);
                Moved::Event(Event::Progress)
            }
        }
    }
}
