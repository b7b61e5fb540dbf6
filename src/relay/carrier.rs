//! Carries one direction from socket to socket: small pieces by way of memory, bulk by way of a borrowed pipe.
//!
//! The [`Direction`] takes bytes, puts all of them, and only then takes more. The place where the taken bytes lie is
//! decided here:
//!
//! - **A piece** of at most [`PIECE`] bytes is read into memory and written at once: two system calls. A short read
//!   proves that the source has nothing more, so none is made in vain. Only a rest that the sink did not take is kept.
//! - **Bulk** begins when a read fills its piece. A pipe is borrowed, filled by one splice, and drained by splices until
//!   it is empty. Small fills end it again. Without a pipe, or with an end that has no descriptor, pieces are copied.
//!
//! A splice that would block does not say which end blocks it. Here that is always known: a pipe is filled only while it
//! is empty, and an empty pipe has room; it is drained only while it holds bytes. The capacity of a pipe is never asked,
//! because the kernel counts slots and not bytes, and a slot may hold a single byte. A short fill proves nothing.
//!
//! A fill that finds no bytes, or the end, is verified by a read. A splice stops in front of urgent data for good
//! (`MSG_OOB`, tcp(7)), and after the end of the source it reports that end although bytes are left; a read skips the
//! urgent byte.
//!
//! Invariant: a pipe is kept between two runs only while it holds bytes, and one that still holds bytes when the
//! direction is over is closed with the carrier, unless the owner [takes](Carrier::take_rest) it.

use std::time::Instant;

use nix::errno::Errno;

use super::direction::{Direction, Event, Todo, Transfer};
use super::endpoint::Endpoint;
use super::pipes::{Pipe, Pipes};
use super::pump::PumpEnd;
use crate::buffer::Buffer;

/// The number of bytes that one read takes at most, and so the most that a direction holds in memory besides the bytes
/// that it was given at the start.
pub const PIECE: usize = 16 << 10;
/// The number of bytes that one fill is asked to move.
const FILL: usize = 1 << 20;
/// The number of fills below [`PIECE`] in a row after which pieces are copied again.
const SMALL_FILLS: u8 = 2;
/// The share of one direction in a turn ends at this number of bytes or of steps, whichever comes first. A step makes
/// at most three system calls.
const BYTES_PER_TURN: u64 = 1 << 20;
const STEPS_PER_TURN: usize = 32;

/// The things that a run needs and its owner keeps.
#[derive(Debug)]
pub struct Tools<'a> {
    /// Memory for one piece. Holds nothing between two runs. Should have [`PIECE`] bytes, and must have one.
    pub scratch: &'a mut [u8],
    /// The pipes that may be borrowed.
    pub pipes: &'a mut Pipes,
    /// The current time.
    pub now: Instant,
}

/// The end at which a direction has [failed](super::direction::Cut::Failed).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedEnd {
    /// A read has failed.
    Source,
    /// A write has failed, and not because the peer wants no more.
    Sink,
}

/// The kind of traffic, as far as the last pieces tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gauge {
    Pieces,
    Bulk {
        small_fills: u8,
    },
    /// The kernel cannot splice from this source.
    Unspliceable,
}

impl Gauge {
    /// Returns the gauge after a fill of this number of bytes.
    const fn after_fill(self, count: usize) -> Self {
        match self {
            _ if count >= PIECE => Gauge::Bulk { small_fills: 0 },
            Gauge::Bulk { small_fills } if small_fills + 1 < SMALL_FILLS => Gauge::Bulk {
                small_fills: small_fills + 1,
            },
            Gauge::Bulk { .. } | Gauge::Pieces | Gauge::Unspliceable => Gauge::Pieces,
        }
    }
}

/// The place of the bytes that the sink has not taken.
#[derive(Debug)]
enum Held<P> {
    Nothing,
    Memory(Buffer),
    Pipe(P),
    /// The direction is over, and these bytes were not taken.
    Rest(P),
}

/// One direction, and the bytes that it holds. The parameter is for the tests of this module.
#[derive(Debug)]
pub struct Carrier<P = Pipe> {
    direction: Direction,
    held: Held<P>,
    gauge: Gauge,
    failed: Option<FailedEnd>,
    spliced: u64,
}

/// The system calls of a run. Each makes one attempt.
trait Calls {
    type Pipe;
    /// Borrows a pipe, if both ends can be spliced and there is one.
    fn borrow(&mut self) -> Option<Self::Pipe>;
    fn give_back(&mut self, pipe: Self::Pipe);
    /// Reads a piece into the scratch memory.
    fn read(&mut self) -> Result<usize, Event>;
    fn is_drained(&self) -> bool;
    /// The first bytes of the scratch memory.
    fn piece(&self, length: usize) -> &[u8];
    /// Writes the piece of this length in the scratch memory.
    fn write_piece(&mut self, length: usize) -> Event;
    fn write(&mut self, bytes: &[u8]) -> Event;
    /// Splices from the source into the pipe, which is empty.
    fn fill(&mut self, pipe: &Self::Pipe) -> Result<usize, Errno>;
    /// Splices up to this number of bytes from the pipe to the sink.
    fn drain(&mut self, pipe: &Self::Pipe, held: usize) -> Result<usize, Errno>;
}

impl Carrier {
    /// Moves bytes until the direction has to wait, has used up its share of the turn, or has reached the end.
    pub fn run(&mut self, source: &mut impl Endpoint, sink: &mut impl Endpoint, tools: &mut Tools<'_>) -> PumpEnd {
        self.run_with(&mut Kernel { source, sink, tools })
    }
}

impl<P> Carrier<P> {
    /// Returns a carrier that delivers `first` before any bytes of the source.
    #[must_use]
    pub fn new(first: Vec<u8>) -> Self {
        Self {
            direction: Direction::new(Transfer::Copy, first.len()),
            held: if first.is_empty() {
                Held::Nothing
            } else {
                Held::Memory(Buffer::from(first))
            },
            gauge: Gauge::Pieces,
            failed: None,
            spliced: 0,
        }
    }

    /// Returns the state of the direction.
    #[must_use]
    pub const fn direction(&self) -> &Direction {
        &self.direction
    }

    /// Returns the end that has failed, if the direction was cut short for that.
    #[must_use]
    pub const fn failed(&self) -> Option<FailedEnd> {
        self.failed
    }

    /// Returns the number of delivered bytes that went through a pipe.
    #[must_use]
    pub const fn spliced(&self) -> u64 {
        self.spliced
    }

    /// Returns true if held bytes lie in a pipe.
    #[must_use]
    pub const fn holds_pipe(&self) -> bool {
        matches!(self.held, Held::Pipe(_))
    }

    /// Reports an event that [`run`](Carrier::run) does not see by itself, above all an edge of one of the ends.
    pub fn handle(&mut self, event: Event) {
        self.direction.handle(event);
        if self.direction.is_over() {
            self.held = match std::mem::replace(&mut self.held, Held::Nothing) {
                // It may have bytes in it, so it is not given back.
                Held::Pipe(pipe) | Held::Rest(pipe) => Held::Rest(pipe),
                Held::Nothing | Held::Memory(_) => Held::Nothing,
            };
        }
    }

    /// Takes the pipe with the bytes that the sink has not taken, if they lie in one: for a sink that was told of them
    /// already. It must not be lent again. The direction is over with that.
    pub fn take_rest(&mut self) -> Option<P> {
        self.handle(Event::Failed);
        match std::mem::replace(&mut self.held, Held::Nothing) {
            Held::Pipe(pipe) | Held::Rest(pipe) => Some(pipe),
            Held::Nothing | Held::Memory(_) => None,
        }
    }

    fn run_with(&mut self, calls: &mut impl Calls<Pipe = P>) -> PumpEnd {
        let before = self.direction.delivered();
        for _ in 0..STEPS_PER_TURN {
            match self.direction.next() {
                Todo::Read => self.take(calls),
                Todo::Write => self.put(calls),
                Todo::Splice | Todo::Hold(_) | Todo::SignalEnd | Todo::Wait | Todo::Nothing => break,
            }
            if self.direction.delivered() - before >= BYTES_PER_TURN {
                break;
            }
        }
        if self.direction.held() == 0 {
            match std::mem::replace(&mut self.held, Held::Nothing) {
                Held::Pipe(pipe) => calls.give_back(pipe),
                held @ (Held::Nothing | Held::Memory(_) | Held::Rest(_)) => self.held = held,
            }
        }
        match self.direction.next() {
            Todo::SignalEnd => PumpEnd::AtEnd,
            Todo::Nothing => PumpEnd::Over,
            Todo::Read | Todo::Write => PumpEnd::MoreLater,
            // Neither splices past memory nor more to hold is asked of a direction that copies up to no limit.
            Todo::Splice | Todo::Hold(_) | Todo::Wait => PumpEnd::Waiting,
        }
    }

    /// Takes bytes from the source, and puts them at once.
    fn take(&mut self, calls: &mut impl Calls<Pipe = P>) {
        let pipe = match (self.gauge, std::mem::replace(&mut self.held, Held::Nothing)) {
            (Gauge::Bulk { .. }, Held::Pipe(pipe)) => Some(pipe),
            (Gauge::Bulk { .. }, Held::Nothing | Held::Memory(_) | Held::Rest(_)) => calls.borrow(),
            (Gauge::Pieces | Gauge::Unspliceable, Held::Pipe(pipe)) => {
                calls.give_back(pipe);
                None
            }
            (Gauge::Pieces | Gauge::Unspliceable, Held::Nothing | Held::Memory(_) | Held::Rest(_)) => None,
        };
        match pipe {
            Some(pipe) => self.fill(calls, pipe),
            None => self.copy(calls),
        }
    }

    /// Fills the empty pipe, and drains it at once.
    fn fill(&mut self, calls: &mut impl Calls<Pipe = P>, pipe: P) {
        let outcome = calls.fill(&pipe);
        if let Ok(count @ 1..) = outcome {
            self.held = Held::Pipe(pipe);
            self.gauge = self.gauge.after_fill(count);
            self.direction.handle(Event::Read(count));
            return self.put(calls);
        }
        calls.give_back(pipe);
        match outcome {
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOMEM | Errno::ENOBUFS) => self.copy(calls),
            Err(Errno::EINVAL | Errno::ENOSYS | Errno::EOPNOTSUPP) => {
                self.gauge = Gauge::Unspliceable;
                self.copy(calls);
            }
            // ECONNRESET, ETIMEDOUT: the socket has told its error, and would tell a read that it has ended.
            Err(_) => self.fail(FailedEnd::Source),
        }
    }

    /// Reads a piece and writes it at once. The bytes that the sink does not take are held.
    fn copy(&mut self, calls: &mut impl Calls<Pipe = P>) {
        let count = match calls.read() {
            Ok(count) => count,
            Err(Event::Failed) => return self.fail(FailedEnd::Source),
            Err(event) => return self.handle(event),
        };
        self.direction.handle(Event::Read(count));
        if count >= PIECE && self.gauge == Gauge::Pieces {
            self.gauge = Gauge::Bulk { small_fills: 0 };
        }
        let event = calls.write_piece(count);
        let written = if let Event::Wrote(written) = event { written } else { 0 };
        let rest = calls.piece(count).get(written..).unwrap_or_default();
        if !rest.is_empty() {
            self.held = Held::Memory(Buffer::from(rest.to_vec()));
        }
        self.note_put(event);
        if calls.is_drained() {
            self.direction.handle(Event::SourceEmpty);
        }
    }

    /// Puts held bytes to the sink.
    fn put(&mut self, calls: &mut impl Calls<Pipe = P>) {
        let event = match &mut self.held {
            // Held bytes lie somewhere, and a direction that is over has none.
            Held::Nothing | Held::Rest(_) => Event::Failed,
            Held::Memory(buffer) => {
                let event = calls.write(buffer.bytes());
                if let Event::Wrote(count) = event {
                    buffer.consume(count);
                    if buffer.is_empty() {
                        self.held = Held::Nothing;
                    }
                }
                event
            }
            Held::Pipe(pipe) => match calls.drain(pipe, self.direction.held()) {
                Ok(count) if count > 0 => {
                    self.spliced += u64::try_from(count).unwrap_or(u64::MAX);
                    Event::Wrote(count)
                }
                Err(Errno::EINTR) => Event::Wrote(0),
                Err(Errno::EAGAIN) => Event::SinkFull,
                Err(Errno::EPIPE) => Event::SinkClosed,
                // ECONNRESET, ETIMEDOUT and similar errors. A pipe that is empty too early is none of the kernel's.
                Ok(_) | Err(_) => Event::Failed,
            },
        };
        self.note_put(event);
    }

    fn note_put(&mut self, event: Event) {
        match event {
            Event::Failed => self.fail(FailedEnd::Sink),
            event => self.handle(event),
        }
    }

    /// Cuts the direction short because this end has failed.
    pub(super) fn fail(&mut self, end: FailedEnd) {
        if !self.direction.is_over() {
            self.failed = Some(end);
        }
        self.handle(Event::Failed);
    }
}

/// The calls as the kernel carries them out.
struct Kernel<'a, 'b, S, T> {
    source: &'a mut S,
    sink: &'a mut T,
    tools: &'a mut Tools<'b>,
}

impl<S: Endpoint, T: Endpoint> Calls for Kernel<'_, '_, S, T> {
    type Pipe = Pipe;

    fn borrow(&mut self) -> Option<Pipe> {
        let can_splice = self.source.can_splice() && self.sink.can_splice();
        can_splice.then(|| self.tools.pipes.borrow(self.tools.now)).flatten()
    }

    fn give_back(&mut self, pipe: Pipe) {
        self.tools.pipes.give_back(pipe, self.tools.now);
    }

    fn read(&mut self) -> Result<usize, Event> {
        let most = self.tools.scratch.len().min(PIECE);
        self.source.read(self.tools.scratch.get_mut(..most).unwrap_or_default())
    }

    fn is_drained(&self) -> bool {
        self.source.is_drained()
    }

    fn piece(&self, length: usize) -> &[u8] {
        self.tools.scratch.get(..length).unwrap_or_default()
    }

    fn write_piece(&mut self, length: usize) -> Event {
        self.sink.write(self.tools.scratch.get(..length).unwrap_or_default())
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        self.sink.write(bytes)
    }

    fn fill(&mut self, pipe: &Pipe) -> Result<usize, Errno> {
        self.source.fill(pipe, FILL)
    }

    fn drain(&mut self, pipe: &Pipe, held: usize) -> Result<usize, Errno> {
        self.sink.drain(pipe, held)
    }
}

#[cfg(test)]
mod tests;
