//! Standard streams that the loop reads and writes itself.
//!
//! An input is registered for as long as it lives. A read that does not fill its buffer has taken all that had come, so
//! the next read waits for an event: a line costs one read, and not a second one that finds nothing. Only where the end
//! may be behind the last bytes, of which no further event tells, is it read until nothing is left.
//!
//! An output is registered only while it has no room for what is to be written. Registered for longer, it would wake
//! the loop whenever its reader takes an answer.

use std::io::{self, ErrorKind, Read};

use mio::Interest;

use super::ReadOutcome;
use crate::buffer::{Buffer, write_some};
use crate::net::standard::PolledStream;
use crate::reactor::{Context, Readiness, Source};

/// Standard input.
#[derive(Debug)]
pub(in crate::client) struct PolledInput {
    stream: PolledStream,
    reading: Reading,
}

/// The knowledge about bytes that may have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// All that had come is read: an event tells of more.
    Drained,
    /// Bytes have come. The read that does not fill its buffer takes the last of them.
    Bytes,
    /// The end may have come, behind bytes or without any.
    ToTheEnd,
}

impl PolledInput {
    /// Registers the input and puts it on the run queue, for the first read. Returns `None` if the kernel has no memory
    /// for that.
    pub(super) fn start(cx: &mut Context<'_>, mut stream: PolledStream, at: Source) -> Option<PolledInput> {
        cx.register(at, &mut stream, Interest::READABLE).ok()?;
        // A named pipe that had no writer when it was opened for this tells nothing of its end.
        cx.resume_later(at);
        Some(PolledInput {
            stream,
            reading: Reading::ToTheEnd,
        })
    }

    pub(super) fn note(&mut self, readiness: Readiness) {
        if readiness.read_closed || readiness.hung_up {
            self.reading = Reading::ToTheEnd;
        } else if readiness.readable && self.reading == Reading::Drained {
            self.reading = Reading::Bytes;
        }
    }

    pub(super) fn read(&mut self, cx: &mut Context<'_>, take: impl FnOnce(&[u8])) -> ReadOutcome {
        if self.reading == Reading::Drained {
            return ReadOutcome::Nothing;
        }
        let mut buffer = cx.lend_buffer();
        let outcome = self.read_into(&mut buffer, take);
        cx.return_buffer(buffer);
        outcome
    }

    fn read_into(&mut self, buffer: &mut [u8], take: impl FnOnce(&[u8])) -> ReadOutcome {
        let outcome = loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let is_full = outcome.as_ref().is_ok_and(|count| *count == buffer.len());
        match outcome {
            Ok(count) if count > 0 => {
                if !is_full && self.reading == Reading::Bytes {
                    self.reading = Reading::Drained;
                }
                take(buffer.get(..count).unwrap_or_default());
                ReadOutcome::Bytes
            }
            last => {
                self.reading = Reading::Drained;
                match last {
                    Ok(_) => ReadOutcome::End,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => ReadOutcome::Nothing,
                    Err(error) => ReadOutcome::Failed(error),
                }
            }
        }
    }
}

/// Standard output or standard error.
#[derive(Debug)]
pub(in crate::client) struct PolledOutput {
    stream: PolledStream,
    at: Source,
    /// The rest of a batch for which there was no room.
    rest: Buffer,
    room: Room,
}

/// The knowledge about the room for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// There is room, as far as is known. The output is not registered.
    Free,
    /// There was none. The output is registered: an event tells when there is some.
    None,
    /// The event has come. The output is still registered.
    Returned,
}

impl PolledOutput {
    pub(super) fn new(stream: PolledStream, at: Source) -> PolledOutput {
        PolledOutput {
            stream,
            at,
            rest: Buffer::default(),
            room: Room::Free,
        }
    }

    pub(super) fn note(&mut self, readiness: Readiness) {
        // After a hang-up the next write has its reason to tell.
        if self.room == Room::None && (readiness.writable || readiness.hung_up) {
            self.room = Room::Returned;
        }
    }

    pub(super) fn write(&mut self, cx: &Context<'_>, batch: &mut Vec<u8>) -> io::Result<()> {
        if self.room == Room::None {
            return Ok(());
        }
        self.rest.write_to(&mut self.stream)?;
        if self.rest.is_empty() && !batch.is_empty() {
            let count = write_some(batch, &mut self.stream)?;
            if count == batch.len() {
                batch.clear();
            } else {
                self.rest = Buffer::from(std::mem::take(batch));
                self.rest.consume(count);
            }
        }
        self.wait_for_room(cx)
    }

    /// Registers the output while there is something to write.
    fn wait_for_room(&mut self, cx: &Context<'_>) -> io::Result<()> {
        match (self.room, self.rest.is_empty()) {
            (Room::Free, false) => cx.register(self.at, &mut self.stream, Interest::WRITABLE)?,
            (Room::Returned, true) => cx.deregister(&mut self.stream)?,
            (Room::Free, true) | (Room::Returned, false) | (Room::None, _) => {}
        }
        self.room = if self.rest.is_empty() { Room::Free } else { Room::None };
        Ok(())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.rest.is_empty()
    }
}
