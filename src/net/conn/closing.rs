//! The end of a connection: turning a peer away, telling it that nothing more comes, and the lingering close.
//!
//! A socket that is closed over unread bytes makes the kernel answer with a reset, which may overtake the reply (RFC
//! 1122, 4.2.2.13). A peer that may still send is therefore told that nothing more comes, and
//! what it sends is thrown away until it ends its side, for as long and for as many bytes as the door allows.
//!
//! A peer over TLS is always told: it takes a connection that is closed without a word for one that was cut. And it may
//! always be about to send, because its own end is a record of its own.

use std::io::{self, IoSlice};
use std::time::{Duration, Instant};

use super::super::stream::Unread;
use super::{Conn, End};

/// The number of system calls that one turn of a lingering close makes at most.
const DISCARDS_PER_TURN: usize = 4;

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
pub(super) struct Lingering {
    until: Instant,
    /// The number of bytes that may still be thrown away.
    bytes: usize,
}

impl Conn {
    /// Turns the peer away with a few last bytes, and closes the connection at once. What has arrived is thrown away
    /// first; what the peer sends later may be answered with a reset that overtakes the bytes. To wait for that would
    /// be to keep the connection after all. With `with_end`, the end of this side is said together with the last byte,
    /// for a peer that takes bytes for broken behind which it finds no end; that costs a system call.
    pub fn turn_away(mut self, last: &[u8], with_end: bool) {
        // An error means that the peer has gone. A fresh socket has room for so little.
        let _ = self.stream.discard_unread();
        let with_end = with_end || !self.stream.ends_when_closed();
        let _ = self.stream.send_messages(&[&[IoSlice::new(last)]], with_end);
    }

    /// Tells the peer that nothing more comes. Must be called once everything is written. An error means that the peer
    /// has reset the connection, which the next read tells.
    pub fn say_end(&mut self) -> io::Result<()> {
        if !self.has_said_end {
            self.stream.shutdown_write()?;
            self.has_said_end = true;
        }
        Ok(())
    }

    /// Returns true if closing the connection tells the peer that nothing more comes. With TLS that must be
    /// [said](Self::say_end).
    #[must_use]
    pub fn ends_when_closed(&self) -> bool {
        self.stream.ends_when_closed()
    }

    /// Returns true if the transport has something to write, such as the end that was said, and the socket had no room: it
    /// is written with the event that tells of room.
    #[must_use]
    pub fn has_unsent(&self) -> bool {
        self.stream.has_unsent()
    }

    /// Tells the peer that nothing more comes, if closing the connection does not tell it. Must be called before a
    /// connection is dropped on which nothing is owed to a peer that has said its end, or is not about to send.
    pub fn say_end_before_close(&mut self) {
        if !self.stream.ends_when_closed() {
            // An error means that the peer has gone.
            let _ = self.say_end();
        }
    }

    /// Closes a connection in good order that [would be reset](super::super::stream::Stream::reset_on_close) otherwise. An error means that
    /// the peer has gone.
    pub fn close_in_order(mut self) {
        self.say_end_before_close();
        let _ = self.stream.end_on_close();
    }

    /// Ends the connection with a reset, for a peer that must not take what it has for the whole. What the peer has
    /// not read yet may be lost to it.
    pub fn reset(self) {
        // An error means that the peer has gone.
        let _ = self.stream.reset_on_close();
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
            // The end may have been said by TLS, and not to the kernel.
            Ok(Unread::None) if self.end == Some(End::Finished) => true,
            Ok(Unread::None) => !may_send && self.stream.ends_when_closed(),
            Ok(Unread::End) | Err(_) => true,
        };
        if is_quiet && self.stream.ends_when_closed() {
            return CloseStep::Done;
        }
        // An error of the shutdown means that the peer has reset the connection.
        if self.say_end().is_err() || (is_quiet && !self.stream.has_unsent()) {
            return CloseStep::Done;
        }
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
                // Each event tells of the peer's end again, also the one for room.
                Ok(Unread::End) if self.stream.has_unsent() => self.is_readable = false,
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
