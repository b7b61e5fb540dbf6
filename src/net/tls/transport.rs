//! TLS on a socket: the [`Engine`] with the system calls around it.
//!
//! The life of a byte from the peer: [`read`](Secured::read) receives it into the memory for the plaintext, feeds it to the
//! engine, and returns the plaintext. The engine takes no more while plaintext waits; the bytes that it leaves are kept,
//! and come first next time. A byte for the peer is encrypted by [`write_messages`](Secured::write_messages) and written
//! at once.
//!
//! The invariants:
//!
//! - A read says WouldBlock only if the socket has said so and nothing is kept, neither encrypted nor decrypted. An edge
//!   of the poll tells of whatever comes after that.
//! - Bytes are reported as written when the kernel has all of their ciphertext. Before that they are committed: the
//!   caller gets WouldBlock, and must come again with the same bytes in front, as with SSL_write(3ssl). More may follow.
//! - The words of TLS itself (the handshake, alerts, tickets, answers to key updates, the end) are
//!   [pushed](Secured::push) after each call that may have caused them, and after each event of the poll. The owner of
//!   the connection knows nothing of them.
//! - The end of this side is close_notify, and behind it the end of the socket's direction.
//!
//! The bounds of what a peer may send are the engine's; the deadlines are those of the owner of the connection.

use std::io::{self, ErrorKind, IoSlice, Write};
use std::os::fd::AsRawFd;
use std::rc::Rc;

use nix::sys::socket::{MsgFlags, recv};

use super::engine::{Engine, Plain};
use super::meter::{Account, Meter};
use super::signature::Unsigned;
use crate::buffer::Buffer;
use crate::net::origin::Origin;
use crate::net::stream::Stream;
use crate::net::sys;

/// The smallest number of bytes that one call asks for. A call asks for as many as its caller wants of plaintext, which
/// is less than its ciphertext: so nothing but the part of a record stays here.
const SMALLEST: usize = 4 << 10;

/// The number of pieces that are encrypted together at most.
const PIECES: usize = 16;

/// A connected socket with TLS on it.
#[derive(Debug)]
pub struct Secured {
    socket: Stream,
    engine: Engine,
    /// Bytes of the peer that the engine has not taken yet.
    undecrypted: Buffer,
    /// True if the last call has received all that had arrived.
    is_socket_drained: bool,
    /// The number of bytes that are encrypted and not reported as written. The owner's next write begins with them.
    committed: usize,
    /// A hash of these bytes.
    #[cfg(debug_assertions)]
    committed_hash: u64,
    /// True if the end of the socket's direction is to be said once everything is written.
    is_ending: bool,
    /// `None` if the connection is not counted.
    account: Option<Account>,
}

/// The outcome of a step of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The handshake waits for the peer. An event will say when there is more to do.
    Waiting,
    /// The peer's bytes were taken, and there may be more.
    MoreLater,
    /// The handshake has stopped for a signature with a slow key, and goes on with [another engine](Secured::go_on_with).
    NeedsSignature,
    /// The handshake is over: bytes may be read and written.
    Done,
}

impl Secured {
    /// TLS on a socket of which the bytes in `received` were read already.
    pub(in crate::net) const fn new(socket: Stream, engine: Engine, received: Buffer) -> Self {
        Self {
            socket,
            engine,
            undecrypted: received,
            is_socket_drained: false,
            committed: 0,
            #[cfg(debug_assertions)]
            committed_hash: 0,
            is_ending: false,
            account: None,
        }
    }

    /// Counts the connection by `meter` from now on, if it goes wrong. `origin` is its origin, for the log.
    pub(in crate::net) fn count_by(&mut self, meter: Rc<Meter>, origin: Origin) {
        self.account = Some(Account::new(meter, origin));
    }

    pub(in crate::net) const fn socket(&self) -> &Stream {
        &self.socket
    }

    pub(in crate::net) const fn socket_mut(&mut self) -> &mut Stream {
        &mut self.socket
    }

    pub(in crate::net) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Takes the handshake that is to be signed, if it has stopped for that.
    pub(in crate::net) fn take_unsigned(&mut self) -> Option<Unsigned> {
        self.engine.take_unsigned()
    }

    /// Goes on with the engine that has made the signature.
    ///
    /// # Errors
    /// InvalidData with the [`Fault`](super::error::Fault) of that engine, of which the peer is told if it can be.
    pub(in crate::net) fn go_on_with(&mut self, signed: Engine) -> io::Result<()> {
        self.engine = signed;
        // An error shows in the next read.
        let _ = self.push();
        match self.engine.fault() {
            Some(fault) => Err(fault.clone().into()),
            None => Ok(()),
        }
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// Makes a step of the handshake: one call that receives, and whatever the engine does with its bytes.
    ///
    /// # Errors
    /// InvalidData with a [`Fault`](super::error::Fault) in it, of which the peer is told if it can be, or an error of
    /// the socket.
    pub(in crate::net) fn step(&mut self) -> io::Result<Step> {
        let step = self.try_step();
        // An error shows in the next read.
        let _ = self.push();
        step
    }

    fn try_step(&mut self) -> io::Result<Step> {
        if !self.engine.is_handshaking() {
            return Ok(Step::Done);
        }
        match self.take_in(&mut []) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Step::Waiting),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(Step::MoreLater),
            Err(error) => return Err(error),
        }
        match self.engine.fault() {
            Some(fault) => Err(fault.clone().into()),
            None if self.engine.needs_signature() => Ok(Step::NeedsSignature),
            None if self.engine.is_handshaking() => Ok(Step::MoreLater),
            None => Ok(Step::Done),
        }
    }

    /// Reads plaintext, and returns the number of bytes; 0 if the peer has said its end.
    ///
    /// # Errors
    /// UnexpectedEof if the connection has ended and the peer has not said its end. InvalidData with a
    /// [`Fault`](super::error::Fault) in it. An error of the socket, WouldBlock among them.
    pub(in crate::net) fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let outcome = self.try_read(to);
        if let Some(account) = &mut self.account {
            account.note_read(&outcome);
        }
        // An error shows in the next write.
        let _ = self.push();
        outcome
    }

    /// Each turn but the last takes in bytes without plaintext, of which the engine allows a bounded number.
    fn try_read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.engine.read(to) {
                Plain::Bytes(count) => return Ok(count),
                Plain::End => return Ok(0),
                Plain::Cut => return Err(ErrorKind::UnexpectedEof.into()),
                Plain::Failed(fault) => return Err(fault.into()),
                Plain::Nothing => self.take_in(to)?,
            }
        }
    }

    /// Gives the engine the bytes that are kept, or else what one call receives, for which `room` is used. The engine
    /// keeps its faults.
    fn take_in(&mut self, room: &mut [u8]) -> io::Result<()> {
        if !self.undecrypted.is_empty() {
            let taken = self.engine.feed(self.undecrypted.bytes());
            self.undecrypted.consume(taken.unwrap_or(self.undecrypted.len()));
            if self.undecrypted.is_empty() {
                self.undecrypted.clear();
            }
            return Ok(());
        }
        if room.len() < SMALLEST {
            self.receive(&mut [0; SMALLEST])
        } else {
            self.receive(room)
        }
    }

    /// Gives the engine what one call receives into `room`.
    fn receive(&mut self, room: &mut [u8]) -> io::Result<()> {
        let count = recv(self.socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?;
        self.is_socket_drained = count < room.len();
        let received = room.get(..count).unwrap_or_default();
        if received.is_empty() {
            self.engine.feed_end();
        } else if let Ok(taken) = self.engine.feed(received) {
            let rest = received.get(taken..).unwrap_or_default();
            if !rest.is_empty() {
                self.undecrypted.end().extend_from_slice(rest);
            }
        }
        Ok(())
    }

    /// Returns true if the last read has taken all that had arrived, so that there will be an event for whatever comes.
    pub(in crate::net) fn is_drained(&self) -> bool {
        self.is_socket_drained && self.undecrypted.is_empty() && self.engine.is_drained()
    }

    /// Returns true if bytes of the peer were received and not read.
    pub(in crate::net) fn has_received(&self) -> bool {
        !self.undecrypted.is_empty() || self.engine.has_plaintext()
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    /// Writes messages, whose bytes are taken as those of a stream, and returns the number of bytes written. If that is
    /// not all of them, the socket has no more room. With `end`, the end of this side is said with the last byte.
    ///
    /// # Errors
    /// WouldBlock: the next write must begin with the same bytes. InvalidData with a [`Fault`](super::error::Fault) in
    /// it. An error of the socket.
    pub(in crate::net) fn write_messages(&mut self, messages: &[&[IoSlice<'_>]], end: bool) -> io::Result<usize> {
        let outcome = self.try_write(messages, end);
        if let Some(account) = &mut self.account {
            account.note_write(&outcome);
        }
        outcome
    }

    fn try_write(&mut self, messages: &[&[IoSlice<'_>]], end: bool) -> io::Result<usize> {
        let length: usize = messages.iter().copied().flatten().map(|piece| piece.len()).sum();
        let mut written = 0;
        #[cfg(debug_assertions)]
        if self.committed > 0 {
            let hash = hash(messages, 0, self.committed);
            assert_eq!(hash, self.committed_hash, "the bytes are others than those before");
        }
        let outcome = loop {
            if let Err(error) = self.drain(end) {
                break Err(error);
            }
            written += std::mem::take(&mut self.committed);
            if written >= length {
                break Ok(());
            }
            let (pieces, count) = pieces_behind(messages, written);
            match self.engine.encrypt(pieces.get(..count).unwrap_or_default()) {
                Ok(0) => break Err(ErrorKind::BrokenPipe.into()),
                Ok(taken) => {
                    self.committed = taken;
                    #[cfg(debug_assertions)]
                    (self.committed_hash = hash(messages, written, taken));
                }
                Err(fault) => break Err(fault.into()),
            }
            if end && written + self.committed >= length {
                self.engine.end();
            }
        };
        match outcome {
            Ok(()) => {
                if end {
                    // An error means that the peer has reset the connection, which the next read tells.
                    let _ = self.end();
                }
                Ok(written)
            }
            // The next write meets the same error.
            Err(_) if written > 0 => Ok(written),
            Err(error) => Err(error),
        }
    }

    /// Says the end of this side, behind the last byte. Must be called once everything is written. The end goes out
    /// [later](Self::push) if the socket has no room for it.
    ///
    /// # Errors
    /// Those of the socket, but not WouldBlock.
    pub(in crate::net) fn end(&mut self) -> io::Result<()> {
        self.engine.end();
        self.is_ending = true;
        match self.push() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            outcome => outcome,
        }
    }

    /// Returns true if something is to be written of which the owner of the connection knows nothing.
    pub(in crate::net) fn has_unsent(&self) -> bool {
        self.engine.has_unsent()
    }

    /// Writes what TLS has to say, and the end behind it.
    ///
    /// # Errors
    /// Those of the socket, WouldBlock among them.
    pub(in crate::net) fn push(&mut self) -> io::Result<()> {
        self.drain(false)?;
        if std::mem::take(&mut self.is_ending) {
            self.socket.shutdown_write()?;
        }
        Ok(())
    }

    /// Writes all ciphertext. With `more`, its last segment may wait for what follows.
    fn drain(&mut self, more: bool) -> io::Result<()> {
        let socket = &self.socket;
        let more = more && !socket.keeps_messages();
        self.engine.drain(&mut Sink { socket, more })
    }
}

/// Returns the pieces of some messages behind their first `skipped` bytes, and the number of pieces: as many as fit.
fn pieces_behind<'a>(messages: &'a [&[IoSlice<'a>]], skipped: usize) -> ([IoSlice<'a>; PIECES], usize) {
    let (mut pieces, mut count, mut skipped) = ([IoSlice::new(&[]); PIECES], 0, skipped);
    for piece in messages.iter().copied().flatten() {
        let Some(rest) = piece.get(skipped..).filter(|rest| !rest.is_empty()) else {
            skipped -= piece.len();
            continue;
        };
        skipped = 0;
        let Some(place) = pieces.get_mut(count) else { break };
        *place = IoSlice::new(rest);
        count += 1;
    }
    (pieces, count)
}

/// Returns a hash of `count` bytes of some messages behind the first `skipped`.
#[cfg(debug_assertions)]
fn hash(messages: &[&[IoSlice<'_>]], skipped: usize, count: usize) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let (mut hasher, mut skipped, mut left) = (DefaultHasher::new(), skipped, count);
    for piece in messages.iter().copied().flatten() {
        let start = skipped.min(piece.len());
        let end = piece.len().min(start + left);
        hasher.write(piece.get(start..end).unwrap_or_default());
        (skipped, left) = (skipped - start, left - (end - start));
    }
    hasher.finish()
}

/// A socket as the engine writes to it.
struct Sink<'a> {
    socket: &'a Stream,
    more: bool,
}

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::send_messages(self.socket.fd(), &[pieces], self.more)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
