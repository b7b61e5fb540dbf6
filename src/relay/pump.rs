//! Carries out the steps of a [`Direction`]: the system calls of one direction.

use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};
use nix::unistd::{read, write};

use super::direction::{Cut, Direction, Event, Todo, Transfer};
use crate::buffer::Buffer;

/// The number of bytes that one splice is asked to move. A pipe holds fewer unless its owner has widened it.
const MOVE: usize = 1 << 20;
/// The number of bytes that one read takes at most, and so the most that a direction holds unless its owner raises the
/// limit.
pub const PIECE: usize = 64 << 10;
/// The share of one direction in a turn ends at this number of bytes or of system calls, whichever comes first.
const BYTES_PER_TURN: usize = 1 << 20;
const CALLS_PER_TURN: usize = 32;

/// The reason why a run of a pump has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PumpEnd {
    /// The pump waits for the next edge of one of its ends.
    Waiting,
    /// The pump has used up its share of this turn and must be run again in the next.
    MoreLater,
    /// All bytes are delivered. The owner must tell the sink that nothing more comes, and report
    /// [`Event::EndSignalled`].
    AtEnd,
    /// Nothing will ever go this way again.
    Over,
}

/// One direction and the bytes that it holds.
#[derive(Debug)]
pub struct Pump {
    direction: Direction,
    held: Buffer,
}

impl Pump {
    /// Returns a pump that delivers `first` before any bytes of the source.
    #[must_use]
    pub fn new(transfer: Transfer, first: Vec<u8>) -> Self {
        Self {
            direction: Direction::new(transfer, first.len()),
            held: Buffer::from(first),
        }
    }

    /// Returns the state of the direction.
    #[must_use]
    pub const fn direction(&self) -> &Direction {
        &self.direction
    }

    /// Reports an event that [`run`](Self::run) does not see by itself, above all an edge of one of the ends.
    pub fn handle(&mut self, event: Event) {
        self.direction.handle(event);
        self.drop_useless();
    }

    /// Takes what was read for a sink that had closed before it took anything: another one may get it.
    pub fn take_undelivered(&mut self) -> Vec<u8> {
        let bytes = self.held.bytes().to_vec();
        self.held.clear();
        bytes
    }

    /// Drops the held bytes of a direction that is over, unless the sink has closed before it took any.
    fn drop_useless(&mut self) {
        let is_untouched = self.direction.cut() == Some(Cut::SinkClosed) && self.direction.delivered() == 0;
        if self.direction.is_over() && !is_untouched {
            self.held.clear();
        }
    }

    /// Sets the limit of [`Direction::set_hold_limit`].
    pub const fn set_hold_limit(&mut self, limit: usize) {
        self.direction.set_hold_limit(limit);
    }

    /// Moves bytes until the pump has to wait, has used up its share of the turn, or has reached the end. Both
    /// descriptors must be non-blocking. `scratch` holds bytes between a read and a write within this call.
    pub fn run(&mut self, source: impl AsFd, sink: impl AsFd, scratch: &mut [u8]) -> PumpEnd {
        self.run_steps(
            || try_splice(&source, &sink),
            |to| try_read(&source, to),
            |bytes| try_write(&sink, bytes),
            scratch,
        )
    }

    /// Does the same between ends that are not both descriptors, so all bytes are copied. `read` fills its buffer from
    /// the front, and `write` writes some of its bytes or none; each makes one attempt that does not block and returns
    /// its outcome. After [`Event::SinkFull`] the next write begins with the same bytes and may have more behind them.
    pub fn run_with(
        &mut self,
        read: impl FnMut(&mut [u8]) -> Result<usize, Event>,
        write: impl FnMut(&[u8]) -> Event,
        scratch: &mut [u8],
    ) -> PumpEnd {
        self.run_steps(|| Event::NotSpliceable, read, write, scratch)
    }

    fn run_steps(
        &mut self,
        mut splice: impl FnMut() -> Event,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, Event>,
        mut write: impl FnMut(&[u8]) -> Event,
        scratch: &mut [u8],
    ) -> PumpEnd {
        let before = self.direction.delivered();
        for _ in 0..CALLS_PER_TURN {
            match self.direction.next() {
                Todo::Splice => self.direction.handle(splice()),
                Todo::Read => self.read(&mut read, &mut write, scratch),
                Todo::Hold(most) => self.hold(&mut read, scratch, most),
                Todo::Write => self.write(&mut write),
                Todo::SignalEnd => return PumpEnd::AtEnd,
                Todo::Wait => return PumpEnd::Waiting,
                Todo::Nothing => {
                    self.drop_useless();
                    return PumpEnd::Over;
                }
            }
            if self.direction.delivered() - before >= BYTES_PER_TURN as u64 {
                break;
            }
        }
        match self.direction.next() {
            Todo::SignalEnd => PumpEnd::AtEnd,
            Todo::Wait => PumpEnd::Waiting,
            Todo::Nothing => PumpEnd::Over,
            Todo::Splice | Todo::Read | Todo::Hold(_) | Todo::Write => PumpEnd::MoreLater,
        }
    }

    /// Reads a piece and writes it at once. Bytes that the sink does not take are held.
    fn read(
        &mut self,
        read: impl FnMut(&mut [u8]) -> Result<usize, Event>,
        write: &mut impl FnMut(&[u8]) -> Event,
        scratch: &mut [u8],
    ) {
        let piece = match read_piece(read, scratch, PIECE) {
            Ok(piece) => piece,
            Err(event) => return self.handle(event),
        };
        self.direction.handle(Event::Read(piece.len()));
        let event = write(piece);
        let count = if let Event::Wrote(count) = event { count } else { 0 };
        let rest = piece.get(count..).unwrap_or_default();
        if !rest.is_empty() {
            self.held.end().extend_from_slice(rest);
        }
        self.handle(event);
    }

    /// Reads at most `most` bytes and holds them.
    fn hold(&mut self, read: impl FnMut(&mut [u8]) -> Result<usize, Event>, scratch: &mut [u8], most: usize) {
        let event = match read_piece(read, scratch, most) {
            Ok(piece) => {
                self.held.end().extend_from_slice(piece);
                Event::Read(piece.len())
            }
            Err(event) => event,
        };
        self.handle(event);
    }

    fn write(&mut self, write: &mut impl FnMut(&[u8]) -> Event) {
        let event = write(self.held.bytes());
        if let Event::Wrote(count) = event {
            self.held.consume(count);
            if self.held.is_empty() {
                self.held.clear();
            }
        }
        self.handle(event);
    }
}

/// Reads at most `most` bytes, or returns the event that happened instead.
fn read_piece(
    mut read: impl FnMut(&mut [u8]) -> Result<usize, Event>,
    scratch: &mut [u8],
    most: usize,
) -> Result<&[u8], Event> {
    let limit = scratch.len().min(PIECE).min(most);
    let count = read(scratch.get_mut(..limit).unwrap_or_default())?;
    Ok(scratch.get(..count).unwrap_or_default())
}

/// Reads into `to` once and returns the number of bytes.
///
/// # Errors
/// The event that happened instead of the read.
pub fn try_read(source: &impl AsFd, to: &mut [u8]) -> Result<usize, Event> {
    match read(source, to) {
        // EIO: the other side of a terminal has hung up, which is how its output ends.
        Ok(0) | Err(Errno::EIO) => Err(Event::SourceEnded),
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN) => Err(Event::SourceEmpty),
        Err(Errno::EINTR) => Err(Event::Read(0)),
        Err(_) => Err(Event::Failed),
    }
}

/// Tries a splice and returns its outcome.
fn try_splice(source: impl AsFd, sink: impl AsFd) -> Event {
    let flags = SpliceFFlags::SPLICE_F_NONBLOCK | SpliceFFlags::SPLICE_F_MOVE;
    match splice(source, None, sink, None, MOVE, flags) {
        Ok(0) => Event::SourceEnded,
        Ok(count) => Event::Spliced(count),
        Err(Errno::EAGAIN) => Event::Stuck,
        Err(Errno::EINTR) => Event::Spliced(0),
        // This kernel cannot splice between these two.
        Err(Errno::EINVAL | Errno::ENOSYS) => Event::NotSpliceable,
        Err(Errno::EPIPE) => Event::SinkClosed,
        // ECONNRESET, ETIMEDOUT and similar errors.
        Err(_) => Event::Failed,
    }
}

/// Writes these bytes once and returns the outcome.
pub fn try_write(sink: impl AsFd, bytes: &[u8]) -> Event {
    match write(sink, bytes) {
        Ok(count) => Event::Wrote(count),
        Err(Errno::EAGAIN) => Event::SinkFull,
        Err(Errno::EINTR) => Event::Wrote(0),
        // EIO: the other side of a terminal is closed.
        Err(Errno::EPIPE | Errno::EIO) => Event::SinkClosed,
        Err(_) => Event::Failed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use nix::fcntl::OFlag;
    use nix::unistd::pipe2;

    use super::*;

    fn pair() -> (UnixStream, UnixStream) {
        let (ours, peer) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (ours, peer)
    }

    fn pipe() -> (OwnedFd, OwnedFd) {
        pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).unwrap()
    }

    /// A megabyte passes through a socket, a pipe and a socket, and the readers stop again and again.
    #[test]
    fn a_megabyte_arrives_unchanged_by_splice_and_by_copy() {
        let bytes: Vec<u8> = (0..1_000_000_u32)
            .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        for transfer in [Transfer::Splice, Transfer::Copy] {
            let (source, mut sender) = pair();
            let (sink, mut receiver) = pair();
            let (out, into) = pipe();
            let (mut first, mut second) = (Pump::new(transfer, b"first".to_vec()), Pump::new(transfer, Vec::new()));
            let to_send = bytes.clone();
            let sending = std::thread::spawn(move || {
                sender.write_all(&to_send).unwrap();
                sender.shutdown(Shutdown::Write).unwrap();
                sender
            });
            let receiving = std::thread::spawn(move || {
                let mut received = Vec::new();
                receiver.read_to_end(&mut received).unwrap();
                received
            });
            let (mut into, mut scratch) = (Some(into), vec![0; PIECE]);
            while !second.direction().is_over() {
                // Edges are reported all the time: a step that failed is tried again.
                for pump in [&mut first, &mut second] {
                    pump.handle(Event::SourceReady);
                    pump.handle(Event::SinkReady);
                }
                if let Some(pipe) = &into
                    && first.run(&source, pipe, &mut scratch) == PumpEnd::AtEnd
                {
                    into = None;
                    first.handle(Event::EndSignalled);
                }
                if second.run(&out, &sink, &mut scratch) == PumpEnd::AtEnd {
                    sink.shutdown(Shutdown::Write).unwrap();
                    second.handle(Event::EndSignalled);
                }
            }
            let received = receiving.join().unwrap();
            drop(sending.join().unwrap());
            assert_eq!(received.get(..5), Some(&b"first"[..]), "{transfer:?}");
            assert!(
                received.get(5..) == Some(&bytes[..]),
                "{transfer:?}: {} bytes",
                received.len()
            );
            assert_eq!(second.direction().delivered(), 1_000_005, "{transfer:?}");
        }
    }

    #[test]
    fn bytes_for_a_sink_that_took_none_are_there_for_another() {
        let (mut scratch, mut unread) = (vec![0; PIECE], &b"second"[..]);
        for first in [&b""[..], b"first "] {
            let mut pump = Pump::new(Transfer::Copy, first.to_vec());
            let mut read = |to: &mut [u8]| unread.read(to).map_err(|_| Event::Failed);
            let end = pump.run_with(&mut read, |_| Event::SinkClosed, &mut scratch);
            assert_eq!(end, PumpEnd::Over);
            let expected = if first.is_empty() { &b"second"[..] } else { first };
            assert_eq!(pump.take_undelivered(), expected);
            assert_eq!(pump.take_undelivered(), b"");
        }
        let mut pump = Pump::new(Transfer::Copy, b"first".to_vec());
        let mut outcomes = [Event::Wrote(2), Event::SinkClosed].into_iter();
        let write = |_: &[u8]| outcomes.next().unwrap_or(Event::Failed);
        pump.run_with(|_| Err(Event::SourceEmpty), write, &mut scratch);
        assert_eq!(pump.take_undelivered(), b"", "a part of it was taken");
    }

    /// A connection that encrypts has taken bytes that its socket has not: it wants to see them again until they are gone.
    #[test]
    fn a_sink_that_is_full_is_offered_the_same_bytes_again() {
        let bytes: Vec<u8> = (0..300_000_u32)
            .map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0])
            .collect();
        let (mut pump, mut scratch) = (Pump::new(Transfer::Splice, b"first".to_vec()), vec![0; PIECE]);
        let (mut unread, mut taken, mut committed) = (bytes.as_slice(), Vec::new(), Vec::new());
        let mut calls = 0_usize;
        pump.set_hold_limit(2 * PIECE);
        while !pump.direction().is_over() {
            pump.handle(Event::SourceReady);
            pump.handle(Event::SinkReady);
            let read = |to: &mut [u8]| match unread.read(to) {
                Ok(0) => Err(Event::SourceEnded),
                Ok(count) => Ok(count),
                Err(_) => Err(Event::Failed),
            };
            let write = |offered: &[u8]| {
                calls += 1;
                if committed.is_empty() && !calls.is_multiple_of(3) {
                    committed = offered[..offered.len().min(calls * 1000)].to_vec();
                    return Event::SinkFull;
                }
                let count = if committed.is_empty() {
                    offered.len()
                } else {
                    committed.len()
                };
                assert_eq!(offered[..committed.len()], committed[..]);
                committed.clear();
                taken.extend_from_slice(&offered[..count]);
                Event::Wrote(count)
            };
            if pump.run_with(read, write, &mut scratch) == PumpEnd::AtEnd {
                pump.handle(Event::EndSignalled);
            }
        }
        assert_eq!(taken.get(..5), Some(&b"first"[..]));
        assert!(taken.get(5..) == Some(&bytes[..]), "{} bytes", taken.len());
    }

    #[test]
    fn a_closed_sink_is_distinguished_from_a_full_one() {
        for transfer in [Transfer::Splice, Transfer::Copy] {
            let (source, mut sender) = pair();
            let (out, into) = pipe();
            let mut pump = Pump::new(transfer, Vec::new());
            let mut scratch = vec![0; PIECE];
            sender.write_all(&[7; 100_000]).unwrap();
            assert_eq!(pump.run(&source, &into, &mut scratch), PumpEnd::Waiting);
            let so_far = pump.direction().delivered();
            assert!(so_far > 0 && pump.direction().cut().is_none());
            drop(out);
            pump.handle(Event::SinkReady);
            assert_eq!(pump.run(&source, &into, &mut scratch), PumpEnd::Over, "{transfer:?}");
            assert_eq!(pump.direction().cut(), Some(Cut::SinkClosed));
            assert_eq!(pump.direction().delivered(), so_far);
        }
    }

    #[test]
    fn one_direction_does_not_take_the_whole_turn() {
        let endless = std::fs::File::open("/dev/zero").unwrap();
        let bottomless = std::fs::File::options().write(true).open("/dev/null").unwrap();
        let (mut pump, mut scratch) = (Pump::new(Transfer::Copy, Vec::new()), vec![0; PIECE]);
        for turn in 1..4 {
            assert_eq!(pump.run(&endless, &bottomless, &mut scratch), PumpEnd::MoreLater);
            assert_eq!(pump.direction().delivered(), turn * BYTES_PER_TURN as u64);
        }
    }

    /// Neither a file nor a terminal is a pipe, so their bytes are copied.
    #[test]
    fn ends_that_cannot_be_spliced_are_read_and_written() {
        let mut source = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut source, b"by hand").unwrap();
        std::io::Seek::rewind(&mut source).unwrap();
        let (sink, mut receiver) = pair();
        let (mut pump, mut scratch) = (Pump::new(Transfer::Splice, Vec::new()), vec![0; PIECE]);
        assert_eq!(pump.run(&source, &sink, &mut scratch), PumpEnd::AtEnd);
        drop(sink);
        let mut received = String::new();
        receiver.read_to_string(&mut received).unwrap();
        assert_eq!(received, "by hand");
    }
}
