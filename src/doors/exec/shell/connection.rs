//! One client of the exec door as the shell holds it: its connection, its request, and the program with its pipes.
//!
//! Every method here moves bytes once, in one direction, and returns what came of it. The
//! [`Conn`](crate::net::conn::Conn) and the [`Job`] know which of their ends may give or take something, so a move that
//! cannot do anything costs no system call.

use std::time::Instant;

use super::super::core::arguments::Arguments;
use super::super::core::client::{Client, ClientEvent, ClientState};
use super::super::core::protocol::{Reader, ReplyEncoder};
use super::super::core::reply::{self, LONGEST, MOST_PAIRS, Output, Pairs, Scratch};
use super::super::core::request::{End, Found, Wrong};
use super::super::core::sockproc::Kept;
use super::lookups::Looked;
use super::signals::Signals;
use crate::doors::program_client::ProgramClient;
use crate::doors::run::RunEvent;
use crate::doors::standstill::Hoard;
use crate::net::conn::{CloseStep, Received, Sent};
use crate::process::job::{self, Job, Pipe};
use crate::reactor::READ_BUFFER;

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
    pub(super) peer: ProgramClient,
    pub(super) client: Client,
    pub(super) reader: Reader,
    pub(super) encoder: ReplyEncoder,
    /// The program's name and its arguments, once they are complete. After the program's start only as much is kept as
    /// the log shows.
    pub(super) arguments: Arguments,
    /// The time at which the arguments were complete; `None` again once the program has written something.
    pub(super) asked: Option<Instant>,
    /// The answer of the lists to the question if the program may be run.
    pub(super) looked: Looked,
    pub(super) program: Option<Job>,
    /// The signals that the program has not been sent yet.
    pub(super) signals: Signals,
    /// True if the client had left as much output unread as may be held when the program's time was up.
    pub(super) unread_at_timeout: bool,
}

impl Connection {
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
        let is_last = matches!(self.client.state(), ClientState::Answered { rest: None, .. });
        let first_unit = |wire: &[u8]| reply::units(wire).next().map_or(0, <[u8]>::len);
        match self.peer.conn.flush_messages(first_unit, is_last) {
            Sent::Bytes(count) => {
                self.peer.watch.sent(count);
                let is_flushed = self.peer.conn.unwritten() == 0 && is_last;
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

    /// Reads from the client as much as may be held. Bytes behind the end of the input are read at all times, and
    /// dropped.
    pub(super) fn read_client(&mut self, buffer: &mut [u8], max_buffer: usize, hoard: &Hoard) -> Moved {
        if self.peer.conn.is_closing() {
            return match self.peer.conn.go_on_closing() {
                CloseStep::Waiting => Moved::Nothing,
                CloseStep::MoreLater => Moved::Some,
                CloseStep::Done => Moved::Event(ClientEvent::Left),
            };
        }
        let room = buffer.len().min(self.peer.room(hoard, max_buffer));
        // A request is read up to the end of the client's side, which may leave it unfinished. While a program runs, the
        // next event tells of the end soon enough.
        let is_drained = self.program.is_some() && self.peer.is_drained();
        if room == 0 || is_drained || self.client.is_starting() {
            return Moved::Nothing;
        }
        match self.peer.read(buffer.get_mut(..room).unwrap_or_default()) {
            Received::Nothing => Moved::Nothing,
            Received::Bytes(count) if self.client.is_listening() => self.take(buffer.get(..count).unwrap_or_default()),
            Received::Bytes(_) => Moved::Some,
            Received::End => self.client_ends(),
            Received::Cut | Received::Failed => Moved::Event(ClientEvent::Gone),
        }
    }

    /// Handles the end of the client's side.
    fn client_ends(&mut self) -> Moved {
        if !self.client.is_listening() {
            return Moved::Event(ClientEvent::Left);
        }
        match self.reader.end() {
            End::Nothing => {
                self.peer.conn.say_end_before_close();
                Moved::Event(ClientEvent::Left)
            }
            End::Unfinished => Moved::Event(ClientEvent::Wrong(Wrong::Unfinished)),
            End::Arguments(arguments) => {
                self.arguments = arguments;
                self.peer.input_ends = true;
                Moved::Event(ClientEvent::Arguments)
            }
            End::Clean => {
                self.peer.input_ends = true;
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
                Found::Input(range) => self
                    .peer
                    .input
                    .end()
                    .extend_from_slice(rest.get(range).unwrap_or_default()),
                Found::InputEnd => self.peer.input_ends = true,
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

    // ---- to and from the program -------------------------------------------------------------------------------

    /// Writes the client's input to the program, and ends the program's input behind it.
    pub(super) fn write_stdin(&mut self) -> Moved {
        let peer = &mut self.peer;
        match self.program.as_mut().is_some_and(|program| peer.write_input(program)) {
            true => Moved::Some,
            false => Moved::Nothing,
        }
    }

    pub(super) fn end_input(&mut self) {
        self.peer.input.clear();
        if let Some(program) = &mut self.program {
            program.end_input();
        }
    }

    /// Reads one output of the program while fewer than `max_buffer` bytes wait for the client.
    pub(super) fn read_output(&mut self, from: Output, buffer: &mut [u8], max_buffer: usize) -> Moved {
        let room = max_buffer.saturating_sub(self.peer.conn.unwritten()).min(buffer.len());
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
                if self.peer.conn.can_write()
                    && let Some(pairs) = self.encoder.pairs(from, come, &mut scratch)
                {
                    return self.write_through(&pairs);
                }
                match self.encoder.output(from, come, self.peer.conn.output_mut()) {
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
        let (first, second) = match self.peer.conn.socket().keeps_messages() {
            true => pairs.units(),
            false => (pairs.pieces(), &[][..]),
        };
        let written = match self.peer.conn.write_messages(&[first, second]) {
            Sent::Bytes(written) => written,
            Sent::Nothing => 0,
            Sent::Failed => return Moved::Event(ClientEvent::Gone),
        };
        pairs.rest(written, self.peer.conn.output_mut());
        match written {
            0 => Moved::Some,
            _ => {
                self.peer.watch.sent(written);
                Moved::Event(ClientEvent::Progress)
            }
        }
    }
}
