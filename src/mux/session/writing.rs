//! The way to the connection: control frames, gathered pieces, and the bytes that are owed.

use std::io::{self, ErrorKind};

use super::Session;
use crate::mux::core::StreamId;
use crate::mux::next::End;
use crate::net::conn::Sent;
use crate::relay::pipes::Pipe;

/// The number of bytes in the connection's buffer above which streams wait for room.
pub(in crate::mux) const ROOM: usize = 64 << 10;

impl Session {
    /// Returns true if a stream may write: nothing is owed, and the connection's buffer has room.
    pub(in crate::mux) fn has_room(&self) -> bool {
        self.is_writable() && self.core.owed().is_none() && self.conn.unwritten() < ROOM
    }

    /// Returns true unless nothing can be written any more.
    pub(in crate::mux) fn is_writable(&self) -> bool {
        self.end.is_none() && self.unwritable.is_none()
    }

    /// Puts the control frames into the connection's buffer, unless a payload is owed.
    pub(in crate::mux) fn gather_control(&mut self) {
        while self.conn.unwritten() < ROOM
            && let Some(frame) = self.core.next_control()
        {
            self.conn.output_mut().extend_from_slice(&frame);
        }
    }

    /// Writes what was gathered, as far as the connection takes it.
    pub(in crate::mux) fn write_out(&mut self) {
        if self.unwritable.is_some() {
            return self.drop_output();
        }
        self.gather_control();
        if self.conn.flush() == Sent::Failed {
            self.note_unwritable(self.error());
        }
    }

    /// Drops what is to be written to a peer that takes nothing more. What it has asked for is answered nowhere.
    pub(super) fn drop_output(&mut self) {
        if let Some((_, left)) = self.core.owed() {
            self.core.sent(left);
        }
        while self.core.next_control().is_some() {}
    }

    /// Pays what a stream owes that is given up: its bytes are moved from the pipe in which they lie.
    pub(super) fn pay(&mut self, stream: StreamId, left: u32, rest: Option<Pipe>) {
        debug_assert!(self.core.owed() == Some((stream, left)), "the debt of this stream");
        if self.unwritable.is_some() {
            return self.core.sent(left);
        }
        // At the end of the session too: the go-away would be taken for bytes of the stream.
        let wanted = usize::try_from(left).unwrap_or(usize::MAX);
        match rest.map(|pipe| read_all(&pipe, wanted)) {
            Some(Ok(bytes)) => {
                self.conn.output_mut().extend_from_slice(&bytes);
                self.core.sent(left);
            }
            Some(Err(_)) | None => self.end(End::Unpaid),
        }
    }
}

/// Reads this number of bytes from a pipe that holds as many.
fn read_all(pipe: &Pipe, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; count];
    let mut have = 0;
    while let Some(to) = bytes.get_mut(have..).filter(|to| !to.is_empty()) {
        match nix::unistd::read(&pipe.out, to) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(more) => have += more,
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(bytes)
}
