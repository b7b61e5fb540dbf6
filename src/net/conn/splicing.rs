//! Bytes that are moved past a connection, by splice(2) above all: the descriptor for that, and what must be told.

use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use super::super::sys;
use super::{Conn, Sent, retried, some};

impl Conn {
    /// The descriptor, if bytes may be moved past this connection both ways: nothing that was read is left, nothing
    /// waits to be written, and the transport is a plain socket.
    #[must_use]
    pub fn raw(&self) -> Option<BorrowedFd<'_>> {
        self.raw_source().filter(|_| self.output.is_empty())
    }

    /// The descriptor, if what the peer sends may be taken past this connection: as [`raw`](Self::raw), but something
    /// may wait to be written.
    #[must_use]
    pub fn raw_source(&self) -> Option<BorrowedFd<'_>> {
        self.stream.plain_socket().filter(|_| self.early.is_empty())
    }

    /// Returns true if the transport is a plain socket, so that there is a descriptor as soon as nothing waits.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.stream.plain_socket().is_some()
    }

    /// Writes bytes behind which others are moved past this connection at once (MSG_MORE, send(2)). The transport must be
    /// a plain socket, and nothing may wait to be written. Bytes for which there is no room are appended to the write
    /// buffer.
    pub fn send_ahead(&mut self, bytes: &[u8]) -> Sent {
        debug_assert!(self.raw().is_some(), "others are to follow past the buffer");
        let socket = self.stream.fd();
        let outcome = retried(|| sys::send_messages(socket, &[&[IoSlice::new(bytes)]], true));
        let sent = match self.take_sent(outcome) {
            Sent::Failed => return Sent::Failed,
            Sent::Nothing => 0,
            Sent::Bytes(count) => count,
        };
        if let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
            self.output.end().extend_from_slice(rest);
        }
        some(sent)
    }

    /// Takes in that a write past this connection has found no room.
    pub fn note_full(&mut self) {
        self.is_writable = false;
    }
}
