//! One end of a [`Conversation`](super::conversation::Conversation) or [`Carrier`](super::carrier::Carrier): a socket
//! of any kind, or something that stands for one.
//!
//! The calls report their outcomes in the words of [`Direction`](super::direction::Direction). Each call makes one
//! attempt and never blocks.

use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{SpliceFFlags, splice};

use super::direction::Event;
use super::pipes::Pipe;

/// An end that is read and written. Its owner keeps it, and lends it for each run.
pub trait Endpoint {
    /// Reads once into the front of `to`, which is not empty, and returns the number of bytes: at least one.
    ///
    /// # Errors
    /// The event that happened instead: [`Event::SourceEmpty`], [`Event::SourceEnded`] or [`Event::Failed`].
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event>;

    /// Returns true if the last read has left nothing, so that an edge will come for whatever arrives. False is always
    /// right, and costs another read.
    fn is_drained(&self) -> bool;

    /// Writes once. Returns [`Event::Wrote`] with at least one byte taken, [`Event::SinkFull`], [`Event::SinkClosed`]
    /// if the peer wants no more bytes (EPIPE), or [`Event::Failed`] after any other error. After `SinkFull` the next
    /// write begins with the same bytes.
    fn write(&mut self, bytes: &[u8]) -> Event;

    /// Tells the peer that nothing more comes. It can still be read. An error shows in the next read.
    fn say_end(&mut self);

    /// Returns true if closing the end says that nothing more comes. Where that is false, as with TLS, it must be
    /// [said](Self::say_end).
    fn ends_when_closed(&self) -> bool {
        true
    }

    /// Returns true if what was said last has not left, for want of room: an edge will come when there is some.
    fn has_unsent(&self) -> bool {
        false
    }

    /// Returns the descriptor of a non-blocking socket, if bytes may be spliced past the calls above. An end that has
    /// once taken or given spliced bytes must have it until the end of the conversation.
    fn fd(&self) -> Option<BorrowedFd<'_>>;

    /// Returns true if [`fill`](Self::fill) and [`drain`](Self::drain) may be called.
    fn can_splice(&self) -> bool {
        self.fd().is_some()
    }

    /// Splices at most this number of bytes from this end into an empty pipe, once.
    ///
    /// # Errors
    /// EINVAL, ENOSYS or EOPNOTSUPP if this end cannot be spliced from at all. After any other error, and after 0 bytes, a
    /// read finds out more.
    fn fill(&mut self, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
        splice_in(self.fd().ok_or(Errno::EINVAL)?, pipe, most)
    }

    /// Splices from a pipe with `held` bytes to this end, once.
    ///
    /// # Errors
    /// EAGAIN if this end takes none at the moment, EPIPE if its peer wants no more bytes, and others as a failed write.
    fn drain(&mut self, pipe: &Pipe, held: usize) -> Result<usize, Errno> {
        splice_out(pipe, self.fd().ok_or(Errno::EINVAL)?, held)
    }
}

/// Splices this number of bytes at most from a pipe to a socket, once. It must hold as many: with a larger number the kernel
/// holds the last segment back, because more is said to come.
///
/// # Errors
/// Those of splice(2).
pub fn splice_out(pipe: &Pipe, sink: impl AsFd, count: usize) -> Result<usize, Errno> {
    splice(&pipe.out, None, sink, None, count, FLAGS)
}

/// Splices this number of bytes at most from a socket into a pipe, once.
///
/// # Errors
/// Those of splice(2).
pub fn splice_in(source: impl AsFd, pipe: &Pipe, most: usize) -> Result<usize, Errno> {
    splice(source, None, &pipe.into, None, most, FLAGS)
}

const FLAGS: SpliceFFlags = SpliceFFlags::SPLICE_F_NONBLOCK.union(SpliceFFlags::SPLICE_F_MOVE);
