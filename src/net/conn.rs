//! A connection to a client or an upstream: the one way in which bytes are read from it and written to it.
//!
//! The life of a connection: it is made of a connected [`Stream`], with the [bytes that were read](Conn::with_early)
//! before its owner got it, if there are any. Its owner registers it with the reactor once, for reading and writing,
//! and [notes](Conn::note) every event. It [reads](Conn::read), and [appends](Conn::output_mut) what the peer is to
//! get, which [`flush`](Conn::flush) writes. When everything is written it [begins the lingering
//! close](Conn::begin_close), and drops the connection when that is done.
//!
//! The invariants:
//!
//! - The poll is edge-triggered, so readiness is kept until a system call says WouldBlock. No call is made in vain, and
//!   nothing that may have arrived is forgotten.
//! - Every error of a read or a write is decided here: EINTR is tried again, WouldBlock waits for the next event, and
//!   any other (ECONNRESET, EPIPE, ...) means that the connection has [failed](End::Failed).
//! - Early bytes come first, by the same call that reads from the socket.
//! - There is one write buffer. A direct write past it needs it to be empty, so bytes never overtake each other.
//! - The end of this side is said once, behind the last byte.
//!
//! **The lingering close.** A socket that is closed over unread bytes makes the kernel answer with a reset, which may
//! overtake the reply (RFC 1122, 4.2.2.13). A peer that may still send is therefore told that nothing more comes, and
//! what it sends is thrown away until it ends its side, for as long and for as many bytes as the door allows.
//!
//! **Transports.** [`Stream`] is the enum of transports: TCP and UNIX sockets today. TLS and WebSocket become variants
//! of it. Whatever depends on the transport is asked of the stream and never of a descriptor: how unread bytes are
//! thrown away, how the end is said together with the last bytes, how far the peer has read.
//!
//! Frames, deadlines of requests, and which client may connect at all do not belong here.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token, event};

use super::stream::{MOST_MESSAGES, Stream, Unread};
use crate::buffer::Buffer;
use crate::reactor::Readiness;

/// The number of system calls that one turn of a lingering close makes at most.
const DISCARDS_PER_TURN: usize = 4;

/// A connection; see the head of this file.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    early: Buffer,
    /// True until a read says WouldBlock.
    is_readable: bool,
    /// True until a write says WouldBlock.
    is_writable: bool,
    output: Buffer,
    /// True once the peer was told that nothing more comes.
    has_said_end: bool,
    end: Option<End>,
    lingering: Option<Lingering>,
}

/// The reason why nothing more comes from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer has ended its side. It may still read.
    Finished,
    /// The connection is in error, or closed in both directions. Nothing is read or written any more, and its owner
    /// [abandons](Conn::abandon) it.
    Failed,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Nothing has arrived; an event will say when something does.
    Nothing,
    /// This number of bytes, at least one.
    Bytes(usize),
    /// The peer has ended its side.
    End,
    /// The connection has failed.
    Failed,
}

/// The outcome of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// There is no room; an event will say when there is.
    Nothing,
    /// The kernel has taken this number of bytes.
    Bytes(usize),
    /// The connection has failed.
    Failed,
}

/// The bounds of a lingering close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LingerLimits {
    /// The longest time that a peer may go on sending.
    pub time: Duration,
    /// The number of bytes that are thrown away at most.
    pub bytes: usize,
}

/// The state of a close after one step of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum CloseStep {
    /// The peer may still send: call [`Conn::go_on_closing`] after the next event, and drop the connection at
    /// [`Conn::close_deadline`].
    Waiting,
    /// One turn's share is used up: call [`Conn::go_on_closing`] in the next turn.
    MoreLater,
    /// The connection may be dropped.
    Done,
}

/// A lingering close under way.
#[derive(Debug, Clone, Copy)]
struct Lingering {
    until: Instant,
    /// The number of bytes that may still be thrown away.
    bytes: usize,
}

impl Conn {
    /// A connection of which nothing is read yet.
    #[must_use]
    pub fn new(stream: Stream) -> Self {
        Self::with_early(stream, Vec::new())
    }

    /// A connection of which `early` was read already. Reads return these bytes before any others.
    #[must_use]
    pub fn with_early(stream: Stream, early: Vec<u8>) -> Self {
        Self {
            stream,
            early: Buffer::from(early),
            // A fresh connection has room, and its first bytes have often arrived.
            is_readable: true,
            is_writable: true,
            output: Buffer::default(),
            has_said_end: false,
            end: None,
            lingering: None,
        }
    }

    /// The socket, for its options and for what the kernel knows of the peer. Bytes go through the connection.
    #[must_use]
    pub fn socket(&self) -> &Stream {
        &self.stream
    }

    /// Gives the stream back. Must be called before anything was read or buffered.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// Takes in an event of the poll.
    pub fn note(&mut self, readiness: Readiness) {
        if self.end == Some(End::Failed) {
            return;
        }
        // After a hang-up the next call has its reason to tell.
        self.is_readable |= readiness.readable || readiness.read_closed || readiness.hung_up;
        self.is_writable |= readiness.writable || readiness.hung_up;
    }

    /// Gives the connection up as failed. Nothing is read or written any more, and bytes that wait to be are dropped.
    pub fn abandon(&mut self) {
        self.fail();
        self.early.clear();
        self.output.clear();
    }

    fn fail(&mut self) {
        self.end = Some(End::Failed);
        self.is_readable = false;
        self.is_writable = false;
    }

    /// The reason why nothing more comes from the peer; `None` while something may come.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// Returns true if a read may find something.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.is_readable || !self.early.is_empty()
    }

    /// Returns true if the peer has sent something that is not read yet. Asks the kernel.
    #[must_use]
    pub fn has_unread(&self) -> bool {
        !self.early.is_empty() || self.stream.has_unread()
    }

    /// Reads once. `buffer` must not be empty.
    pub fn read(&mut self, buffer: &mut [u8]) -> Received {
        if !self.early.is_empty() {
            return self.read_early(buffer);
        }
        if !self.is_readable {
            return Received::Nothing;
        }
        match retried(|| self.stream.read(buffer)) {
            Ok(0) => {
                self.is_readable = false;
                self.end = Some(End::Finished);
                Received::End
            }
            Ok(count) => Received::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                Received::Nothing
            }
            Err(_) => {
                self.fail();
                Received::Failed
            }
        }
    }

    fn read_early(&mut self, buffer: &mut [u8]) -> Received {
        let count = self.early.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(self.early.bytes()) {
            *place = *byte;
        }
        self.early.consume(count);
        if self.early.is_empty() {
            self.early.clear();
        }
        Received::Bytes(count)
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    /// The end of the write buffer, to append to. [`flush`](Self::flush) writes it.
    pub fn output_mut(&mut self) -> &mut Vec<u8> {
        self.output.end()
    }

    /// The number of bytes in the write buffer.
    #[must_use]
    pub fn unwritten(&self) -> usize {
        self.output.len()
    }

    /// Returns true if a direct write may be taken: nothing waits in the write buffer, and the socket had room lately.
    #[must_use]
    pub fn can_write(&self) -> bool {
        self.is_writable && self.output.is_empty()
    }

    /// Writes as much of the write buffer as the kernel takes.
    pub fn flush(&mut self) -> Sent {
        if !self.is_writable || self.output.is_empty() {
            return Sent::Nothing;
        }
        let outcome = retried(|| self.stream.write(self.output.bytes()));
        self.take_flushed(outcome)
    }

    /// Writes the write buffer in messages, in one system call: see [`Stream::send_messages`]. `first` returns the
    /// length of the message in front of the bytes that it is given, 0 if there is none. With `is_last`, the end of
    /// this side is said with the last byte of the buffer.
    pub fn flush_messages(&mut self, first: impl Fn(&[u8]) -> usize, is_last: bool) -> Sent {
        if !self.is_writable || self.output.is_empty() {
            return Sent::Nothing;
        }
        let bytes = self.output.bytes();
        let (mut messages, mut count, mut length) = ([[IoSlice::new(&[])]; MOST_MESSAGES], 0, 0);
        for place in &mut messages {
            let rest = bytes.get(length..).unwrap_or_default();
            let message = rest.get(..first(rest)).unwrap_or_default();
            if message.is_empty() {
                break;
            }
            *place = [IoSlice::new(message)];
            count += 1;
            length += message.len();
        }
        let with_end = is_last && length == bytes.len();
        let messages = messages.each_ref().map(<[_; 1]>::as_slice);
        let messages = messages.get(..count).unwrap_or_default();
        let outcome = retried(|| self.stream.send_messages(messages, with_end));
        self.has_said_end |= with_end && outcome.as_ref().is_ok_and(|sent| *sent == length);
        self.take_flushed(outcome)
    }

    /// Writes messages past the write buffer, which must be empty, in one system call: see [`Stream::send_messages`].
    /// The caller appends what was not taken to the buffer.
    pub fn write_messages(&mut self, messages: &[&[IoSlice<'_>]]) -> Sent {
        debug_assert!(self.output.is_empty(), "bytes would overtake others");
        if !self.is_writable {
            return Sent::Nothing;
        }
        let outcome = retried(|| self.stream.send_messages(messages, false));
        self.take_sent(outcome)
    }

    fn take_flushed(&mut self, outcome: io::Result<usize>) -> Sent {
        let sent = self.take_sent(outcome);
        if let Sent::Bytes(count) = sent {
            self.output.consume(count);
        }
        sent
    }

    fn take_sent(&mut self, outcome: io::Result<usize>) -> Sent {
        match outcome {
            Ok(count) => Sent::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_writable = false;
                Sent::Nothing
            }
            Err(_) => {
                self.fail();
                Sent::Failed
            }
        }
    }

    // ---- closing -----------------------------------------------------------------------------------------------

    /// Turns the peer away with a few last bytes, and closes the connection at once. What has arrived is thrown away
    /// first; what the peer sends later may be answered with a reset that overtakes the bytes. To wait for that would
    /// be to keep the connection after all.
    pub fn turn_away(self, last: &[u8]) {
        // An error means that the peer has gone. A fresh socket has room for so little.
        let _ = self.stream.discard_unread();
        let _ = self.stream.send_messages(&[&[IoSlice::new(last)]], true);
    }

    /// Begins to close. Must be called once everything is written. With `may_send` the peer may be about to send
    /// something although nothing has arrived.
    pub fn begin_close(&mut self, may_send: bool, limits: LingerLimits, now: Instant) -> CloseStep {
        self.early.clear();
        let unread = self.stream.discard_unread();
        // More may have arrived behind what was thrown away.
        self.is_readable = matches!(unread, Ok(Unread::Bytes(_)));
        let is_quiet = match unread {
            Ok(Unread::Bytes(_)) => false,
            Ok(Unread::None) => !may_send,
            Ok(Unread::End) | Err(_) => true,
        };
        // An error of the shutdown means that the peer has reset the connection.
        if is_quiet || (!self.has_said_end && self.stream.shutdown_write().is_err()) {
            return CloseStep::Done;
        }
        self.has_said_end = true;
        self.lingering = Some(Lingering {
            until: now + limits.time,
            bytes: limits.bytes,
        });
        self.go_on_closing()
    }

    /// Throws away what the peer sends, a bounded share in each turn. Does nothing before
    /// [`begin_close`](Self::begin_close).
    pub fn go_on_closing(&mut self) -> CloseStep {
        let Some(lingering) = &mut self.lingering else {
            return CloseStep::Waiting;
        };
        for _ in 0..DISCARDS_PER_TURN {
            if !self.is_readable {
                return CloseStep::Waiting;
            }
            match self.stream.discard_unread() {
                Ok(Unread::Bytes(count)) if count < lingering.bytes => lingering.bytes -= count,
                Ok(Unread::None) => self.is_readable = false,
                // The end of its side, an error, or a peer that never stops.
                Ok(Unread::Bytes(_) | Unread::End) | Err(_) => return CloseStep::Done,
            }
        }
        CloseStep::MoreLater
    }

    /// Returns true from [`begin_close`](Self::begin_close) on, if that has found a peer that may still send.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.lingering.is_some()
    }

    /// The time at which a connection that is being closed is dropped, whatever its peer does.
    #[must_use]
    pub fn close_deadline(&self) -> Option<Instant> {
        self.lingering.map(|lingering| lingering.until)
    }
}

fn retried(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

/// Registered once, for reading and writing.
impl event::Source for Conn {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream.deregister(registry)
    }
}

#[cfg(test)]
mod tests;
