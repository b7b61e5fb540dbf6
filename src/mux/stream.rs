//! One end of a stream, as a conversation reads and writes it: see [`Session`].

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::core::{Input, StreamId};
use super::kept::Kept;
use super::queue;
use super::session::Session;
use crate::net::conn::Sent;
use crate::relay::direction::Event;
use crate::relay::endpoint::{Endpoint, splice_in, splice_out};
use crate::relay::pipes::Pipe;

/// The number of bytes in a frame that is written from memory, at most.
const PIECE: usize = 32 << 10;
/// The number of bytes in a frame that is spliced, at most: other streams wait for its end.
const SPLICED: usize = 256 << 10;

/// A stream that has an owner.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) owner: u64,
    /// The bytes that the owner did not take when they came.
    kept: Kept,
    /// The number of bytes that the owner has, and for which the peer has no credit yet.
    given: u64,
    is_reset: bool,
    /// True if it is among the streams to be run.
    pub(super) is_woken: bool,
    /// Its place among the streams that wait for room.
    pub(super) parked: queue::Place,
}

impl Carried {
    pub(super) fn new(owner: u64) -> Self {
        Self {
            owner,
            kept: Kept::default(),
            given: 0,
            is_reset: false,
            is_woken: false,
            parked: None,
        }
    }

    pub(super) fn keep(&mut self, bytes: &[u8]) {
        if !self.is_reset {
            self.kept.append(bytes);
        }
    }

    pub(super) fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// Takes in that the stream was reset: its bytes are a part of an unknown whole.
    pub(super) fn note_reset(&mut self) {
        self.is_reset = true;
        self.kept.clear();
    }
}

/// The end of a stream on this side of the tunnel.
#[derive(Debug)]
pub struct StreamEnd<'a> {
    session: &'a mut Session,
    stream: StreamId,
}

/// The place where the next bytes of a stream are.
enum Place {
    /// In its memory.
    Kept,
    /// In what the last read of the tunnel has brought.
    Brought(usize),
    /// In the connection: at most this number.
    Coming(usize),
    /// Nowhere: this has happened instead.
    None(Event),
}

impl<'a> StreamEnd<'a> {
    pub(super) fn new(session: &'a mut Session, stream: StreamId) -> Self {
        Self { session, stream }
    }

    /// Grants the peer credit for what the owner has taken. To be called when the owner asks for more, and so has
    /// delivered everything.
    fn credit(&mut self) {
        if let Some(carried) = self.session.streams.get_mut(&self.stream)
            && carried.given > 0
        {
            let count = std::mem::take(&mut carried.given);
            self.session.core.consumed(self.stream, count);
        }
    }

    fn place(&self) -> Place {
        let Some(carried) = self.session.streams.get(&self.stream) else {
            return Place::None(Event::Failed);
        };
        let input = self.session.core.input(self.stream);
        let has_ended = matches!(input, Input::Ended | Input::Gone);
        if carried.is_reset || (self.session.is_over() && !has_ended) {
            return Place::None(Event::Failed);
        }
        if !carried.kept.is_empty() {
            return Place::Kept;
        }
        match self.session.core.expected() {
            Some(expected) if expected.stream == Some(self.stream) => {
                let left = usize::try_from(expected.left).unwrap_or(usize::MAX);
                match self.session.input.bytes().len().min(left) {
                    0 => Place::Coming(left),
                    count => Place::Brought(count),
                }
            }
            _ if has_ended => Place::None(Event::SourceEnded),
            _ => Place::None(Event::SourceEmpty),
        }
    }

    fn note_given(&mut self, count: usize) {
        if let Some(carried) = self.session.streams.get_mut(&self.stream) {
            carried.given += u64::try_from(count).unwrap_or(u64::MAX);
        }
    }

    /// Returns the number of bytes that a frame of this stream may have now, at least one, when nothing is owed.
    fn room(&mut self, length: usize) -> Result<u32, Event> {
        let session = &mut *self.session;
        let is_reset = session.streams.get(&self.stream).is_none_or(Carried::is_reset);
        if is_reset || !session.is_writable() {
            return Err(Event::SinkClosed);
        }
        session.gather_control();
        if !session.has_room() || session.core.has_control() {
            session.park(self.stream);
            return Err(Event::SinkFull);
        }
        // Without credit an event of the core follows.
        match session
            .core
            .credit(self.stream)
            .min(u32::try_from(length).unwrap_or(u32::MAX))
        {
            0 => Err(Event::SinkFull),
            count => Ok(count),
        }
    }

    /// Begins a frame whose payload is spliced, unless one was begun. Returns the number of bytes that it still wants.
    fn begin_spliced(&mut self, held: usize) -> Result<u32, Event> {
        match self.session.core.owed() {
            Some((stream, left)) if stream == self.stream => return Ok(left),
            Some(_) | None => {}
        }
        let count = self.room(held.min(SPLICED))?;
        // The header goes past the buffer.
        self.session.write_out();
        if !self.session.is_writable() {
            return Err(Event::SinkClosed);
        }
        if self.session.conn.unwritten() > 0 {
            self.session.park(self.stream);
            return Err(Event::SinkFull);
        }
        let header = self.session.core.begin_data(self.stream, count);
        match self.session.conn.send_ahead(&header) {
            Sent::Failed => {
                let why = self.session.error();
                self.session.note_unwritable(why);
                Err(Event::SinkClosed)
            }
            Sent::Bytes(_) | Sent::Nothing => Ok(count),
        }
    }

    /// Splices bytes that are owed.
    fn pay(&mut self, pipe: &Pipe, held: usize, left: u32) -> Result<usize, Errno> {
        let session = &mut *self.session;
        session.write_out();
        if !session.is_writable() {
            return Err(Errno::EPIPE);
        }
        let most = held.min(usize::try_from(left).unwrap_or(usize::MAX));
        // Behind a rest of the header that waits for room.
        let socket = session.conn.raw().ok_or(Errno::EAGAIN)?;
        match splice_out(pipe, socket, most) {
            Ok(count) => {
                session.core.sent(u32::try_from(count).unwrap_or(u32::MAX));
                Ok(count)
            }
            Err(Errno::EAGAIN) => {
                session.conn.note_full();
                Err(Errno::EAGAIN)
            }
            Err(Errno::EINTR) => Err(Errno::EINTR),
            Err(errno) => {
                session.note_unwritable(io::Error::from(errno).to_string());
                Err(Errno::EPIPE)
            }
        }
    }
}

impl Endpoint for StreamEnd<'_> {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        self.credit();
        let count = match self.place() {
            Place::None(event) => return Err(event),
            Place::Kept => {
                let carried = self.session.streams.get_mut(&self.stream);
                carried.map_or(0, |carried| carried.kept.take(to))
            }
            Place::Brought(count) => {
                let bytes = self.session.input.bytes();
                let count = copy(bytes.get(..count).unwrap_or(bytes), to);
                self.session.input.consume(count);
                self.session.note_taken(count);
                count
            }
            Place::Coming(left) => {
                let most = to.len().min(left);
                let received = self.session.conn.read(to.get_mut(..most).unwrap_or_default());
                let Some(count) = self.session.note_received(received) else {
                    return Err(if self.session.is_over() {
                        Event::Failed
                    } else {
                        Event::SourceEmpty
                    });
                };
                self.session.note_taken(count);
                count
            }
        };
        self.note_given(count);
        Ok(count)
    }

    /// The next read finds it out without a system call, and grants the peer credit.
    fn is_drained(&self) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        let count = match self.room(bytes.len().min(PIECE)) {
            Ok(count) => count,
            Err(event) => return event,
        };
        let header = self.session.core.begin_data(self.stream, count);
        let taken = usize::try_from(count).unwrap_or(usize::MAX);
        let output = self.session.conn.output_mut();
        output.extend_from_slice(&header);
        output.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        self.session.core.sent(count);
        if self.session.conn.unwritten() >= super::session::ROOM {
            self.session.write_out();
        }
        Event::Wrote(taken)
    }

    fn say_end(&mut self) {
        self.session.core.end(self.stream);
    }

    /// A stream that is given up without its end is reset.
    fn ends_when_closed(&self) -> bool {
        false
    }

    /// Its bytes lie behind headers.
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn can_splice(&self) -> bool {
        self.session.conn.is_plain()
    }

    fn fill(&mut self, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        self.credit();
        let Place::Coming(left) = self.place() else {
            // A read takes what is in memory, or finds that there is nothing.
            return Err(Errno::EAGAIN);
        };
        let Some(socket) = self.session.conn.raw_source() else {
            return Err(Errno::EAGAIN);
        };
        let count = splice_in(socket, pipe, most.min(left))?;
        self.session.note_taken(count);
        self.note_given(count);
        Ok(count)
    }

    fn drain(&mut self, pipe: &Pipe, held: usize) -> Result<usize, Errno> {
        match self.begin_spliced(held) {
            Ok(left) => self.pay(pipe, held, left),
            Err(Event::SinkFull) => Err(Errno::EAGAIN),
            Err(_) => Err(Errno::EPIPE),
        }
    }
}

/// Copies as many bytes as fit, and returns their number.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..count), to.get_mut(..count)) {
        to.copy_from_slice(from);
    }
    count
}
