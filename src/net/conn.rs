//! A connection to a client or an upstream: the one way in which bytes are read from it and written to it.
//!
//! The life of a connection: a client's is made of a connected [`Stream`], with the [bytes that were
//! read](Conn::with_early) before its owner got it, if there are any; one to a server begins by
//! [connecting](Conn::connecting). Its owner registers it with the reactor once, for reading and writing, and
//! [notes](Conn::note) every event. It [reads](Conn::read), and [appends](Conn::output_mut) what the peer is to
//! get, which [`flush`](Conn::flush) writes. When everything is written it [begins the lingering
//! close](Conn::begin_close), and drops the connection when that is done.
//!
//! The invariants:
//!
//! - The poll is edge-triggered, so readiness is kept until a system call says WouldBlock. No call is made in vain, and
//!   nothing that may have arrived is forgotten.
//! - Every error of a read or a write is decided here: EINTR is tried again, and WouldBlock waits for the next event.
//!   After any other error (ECONNRESET, EPIPE, ...) of a read the connection has [failed](End::Failed); after one of a
//!   write nothing more is written, but what the peer has sent before may still be read. What the peer sends may also be
//!   [cut off](Received::Cut). The [error](Conn::error) is kept for an owner that tells of it.
//! - Early bytes come first, by the same call that reads from the socket.
//! - There is one write buffer. A direct write past it needs it to be empty, so bytes never overtake each other.
//! - The end of this side is said once, behind the last byte.
//!
//! **Transports.** [`Stream`] is the enum of transports: TCP, UNIX sockets, and TLS, which a connection may
//! [begin](Conn::secure) once it is there. WebSocket becomes another variant. Whatever depends on the transport is asked
//! of the stream and never of a descriptor: how unread bytes are thrown away, how the end is said together with the last
//! bytes, how far the peer has read.
//!
//! Frames, deadlines of requests, and which client may connect at all do not belong here.

mod closing;
mod connecting;
mod securing;
mod splicing;

use std::io::{self, ErrorKind, IoSlice, Read};

use mio::{Interest, Registry, Token, event};

use super::stream::{MOST_MESSAGES, Stream};
use crate::buffer::{Buffer, write_some};
use crate::reactor::Readiness;

use closing::Lingering;
pub use closing::{CloseStep, LingerLimits};
pub use connecting::Begun;
use connecting::Connecting;

/// A connection; see the head of this file.
#[derive(Debug)]
pub struct Conn {
    stream: Stream,
    early: Buffer,
    /// True until a read says WouldBlock.
    is_readable: bool,
    /// True if the last read has left nothing, as far as that is known without another system call.
    is_drained: bool,
    /// True if a read that does not fill its buffer says nothing: the end may be behind it, of which no further event
    /// tells.
    reads_to_end: bool,
    /// True until a write says WouldBlock.
    is_writable: bool,
    connecting: Connecting,
    output: Buffer,
    /// True once the peer was told that nothing more comes.
    has_said_end: bool,
    end: Option<End>,
    /// The error of the last read or write that has failed.
    error: Option<io::Error>,
    lingering: Option<Lingering>,
}

/// The reason why nothing more comes from the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer has ended its side. It may still read.
    Finished,
    /// The peer's bytes were cut off, see [`Received::Cut`].
    Cut,
    /// A read has failed, or the owner has [abandoned](Conn::abandon) the connection. Nothing is read or written any
    /// more.
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
    /// The peer's side of the connection has ended, and the peer has not said so by TLS: bytes may be missing. It may
    /// still read.
    Cut,
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
    /// The peer takes nothing more, and the write buffer is dropped. What the peer has sent before may still be read:
    /// the owner reads it, or [abandons](Conn::abandon) the connection.
    Failed,
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
            is_drained: false,
            reads_to_end: false,
            is_writable: true,
            connecting: Connecting::Over,
            output: Buffer::default(),
            has_said_end: false,
            end: None,
            error: None,
            lingering: None,
        }
    }

    /// The same connection for its next owner, as if nothing had been read of it: reads return `early` first, and then
    /// ask the socket. Must be called before anything was written, and while it is not registered.
    #[must_use]
    pub fn restart(self, early: Vec<u8>) -> Self {
        Self::with_early(self.stream, early)
    }

    /// The socket, for its options and for what the kernel knows of the peer. Bytes go through the connection.
    #[must_use]
    pub fn socket(&self) -> &Stream {
        &self.stream
    }

    /// Takes in an event of the poll.
    pub fn note(&mut self, readiness: Readiness) {
        if self.end == Some(End::Failed) {
            return;
        }
        // After a hang-up the next call has its reason to tell.
        self.is_readable |= readiness.readable || readiness.read_closed || readiness.hung_up;
        self.reads_to_end |= readiness.read_closed || readiness.hung_up;
        self.is_writable |= readiness.writable || readiness.hung_up;
        // Before the socket is connected, a write would take the error that says why it cannot be.
        if readiness.writable && self.connecting != Connecting::Socket {
            self.stream.push();
        }
    }

    /// Makes the next reads ask the socket up to its end, for an owner that may have missed an event.
    pub fn expect_input(&mut self) {
        self.is_readable = true;
        self.reads_to_end = true;
    }

    /// Takes the early bytes, for an owner that moves bytes past this connection.
    pub fn take_early(&mut self) -> Vec<u8> {
        let early = self.early.bytes().to_vec();
        self.early.clear();
        early
    }

    /// Puts bytes back that were read last: the next reads return them first.
    pub fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            let behind = self.take_early();
            self.early = Buffer::from([bytes, &behind].concat());
        }
    }

    /// Gives the connection up as failed. Nothing is read or written any more, and bytes that wait to be are dropped.
    pub fn abandon(&mut self) {
        self.end = Some(End::Failed);
        self.is_readable = false;
        self.is_writable = false;
        self.early.clear();
        self.output.clear();
    }

    fn fail_reading(&mut self, error: io::Error) -> Received {
        self.abandon();
        self.error = Some(error);
        Received::Failed
    }

    fn fail_writing(&mut self, error: io::Error) -> Sent {
        self.is_writable = false;
        self.output.clear();
        self.error = Some(error);
        // The peer may have said why before it stopped reading, and the event for that may have been taken in already.
        self.expect_input();
        Sent::Failed
    }

    /// The reason why nothing more comes from the peer; `None` while something may come.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The error of the last read or write that has failed.
    #[must_use]
    pub fn error(&self) -> Option<&io::Error> {
        self.error.as_ref()
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
            Ok(count) => {
                self.is_drained = !self.reads_to_end && self.stream.is_drained(count, buffer.len());
                Received::Bytes(count)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_readable = false;
                self.reads_to_end = false;
                Received::Nothing
            }
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                self.is_readable = false;
                self.end = Some(End::Cut);
                self.error = Some(error);
                Received::Cut
            }
            Err(error) => self.fail_reading(error),
        }
    }

    /// Returns true if the last read has left nothing, as far as the transport knows without another system call: there
    /// will be an event for whatever comes. A caller that stops reading then saves the read that would block.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    fn read_early(&mut self, buffer: &mut [u8]) -> Received {
        // A slice is read without errors.
        let count = self.early.bytes().read(buffer).unwrap_or_default();
        self.early.consume(count);
        self.is_drained = false;
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
        match self.output.write_to(&mut self.stream) {
            Ok(count) => {
                self.is_writable = self.output.is_empty();
                some(count)
            }
            Err(error) => self.fail_writing(error),
        }
    }

    /// Writes these bytes behind those in the write buffer. Bytes for which there is no room are appended to it.
    pub fn send(&mut self, bytes: &[u8]) -> Sent {
        let mut sent = 0;
        if self.can_write() {
            match write_some(bytes, &mut self.stream) {
                Ok(count) => sent = count,
                Err(error) => return self.fail_writing(error),
            }
            self.is_writable = sent == bytes.len();
        }
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.output.end().extend_from_slice(rest);
        }
        some(sent)
    }

    /// Gives the write buffer memory, unless it has some.
    pub fn lend_memory(&mut self, memory: impl FnOnce() -> Vec<u8>) {
        self.output.lend_memory(memory);
    }

    /// Takes the memory of the write buffer, if that is empty.
    pub fn release_memory(&mut self) -> Vec<u8> {
        self.output.release_memory()
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
        let sent = self.take_sent(outcome);
        if let Sent::Bytes(count) = sent {
            self.has_said_end |= with_end && count == length;
            self.output.consume(count);
        }
        sent
    }

    /// Writes messages past the write buffer, which must be empty, in one system call: see [`Stream::send_messages`].
    /// The caller appends what was not taken to the buffer, or comes again with the same bytes in front.
    pub fn write_messages(&mut self, messages: &[&[IoSlice<'_>]]) -> Sent {
        debug_assert!(self.output.is_empty(), "bytes would overtake others");
        if !self.is_writable {
            return Sent::Nothing;
        }
        let outcome = retried(|| self.stream.send_messages(messages, false));
        self.take_sent(outcome)
    }

    fn take_sent(&mut self, outcome: io::Result<usize>) -> Sent {
        match outcome {
            Ok(count) => Sent::Bytes(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_writable = false;
                Sent::Nothing
            }
            Err(error) => self.fail_writing(error),
        }
    }
}

/// The outcome of a write of which this number of bytes was taken.
fn some(count: usize) -> Sent {
    match count {
        0 => Sent::Nothing,
        count => Sent::Bytes(count),
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
        self.stream.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.stream.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.stream.source().deregister(registry)
    }
}

#[cfg(test)]
mod tests;
