//! One stream: which ends are said, what may be sent both ways, and which frames are due.

use super::due::Marks;
use super::{FIRST_WINDOW, StreamId};
use crate::mux::frame::{Flags, Header, Kind};

/// The ends that are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Neither,
    Ours,
    Peers,
    Both,
}

impl Ends {
    pub(super) const fn has_ours(self) -> bool {
        matches!(self, Ends::Ours | Ends::Both)
    }

    pub(super) const fn has_peers(self) -> bool {
        matches!(self, Ends::Peers | Ends::Both)
    }
}

/// The way of a stream. One that is reset is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// This side has opened it, and the peer has not acknowledged it.
    Asked(Ends),
    /// The peer has opened it, and it has no owner here yet.
    Offered(Ends),
    /// Both sides have it.
    Up(Ends),
}

impl Phase {
    pub(super) const fn ends(self) -> Ends {
        match self {
            Phase::Asked(ends) | Phase::Offered(ends) | Phase::Up(ends) => ends,
        }
    }

    fn ends_mut(&mut self) -> &mut Ends {
        match self {
            Phase::Asked(ends) | Phase::Offered(ends) | Phase::Up(ends) => ends,
        }
    }

    /// The peer acknowledges it. Returns true if that was awaited.
    pub(super) fn acknowledge(&mut self) -> bool {
        let Phase::Asked(ends) = *self else { return false };
        *self = Phase::Up(ends);
        true
    }

    /// This side takes it. Returns true if that was awaited.
    pub(super) fn accept(&mut self) -> bool {
        let Phase::Offered(ends) = *self else { return false };
        *self = Phase::Up(ends);
        true
    }

    /// The peer says its end.
    pub(super) fn end_peers(&mut self) {
        let ends = self.ends_mut();
        *ends = if ends.has_ours() { Ends::Both } else { Ends::Peers };
    }

    /// This side says its end. Returns false if it has said it before.
    pub(super) fn end_ours(&mut self) -> bool {
        let ends = self.ends_mut();
        let is_first = !ends.has_ours();
        *ends = if ends.has_peers() { Ends::Both } else { Ends::Ours };
        is_first
    }
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) phase: Phase,
    /// The number of bytes that may be sent.
    pub(super) sendable: u32,
    /// True if something was to be sent and there was no credit left.
    pub(super) is_short: bool,
    /// The most bytes that the peer may have under way or here: what it may send, what is held, and what can be returned.
    pub(super) window: u32,
    /// The number of bytes that the peer may send.
    pub(super) receivable: u32,
    /// The number of bytes that can be returned to the peer as credit.
    pub(super) returnable: u32,
    /// The number of bytes that have come and have not left.
    pub(super) held: u64,
    pub(super) due: Marks,
}

impl Stream {
    pub(super) fn new(phase: Phase) -> Self {
        Self {
            phase,
            sendable: FIRST_WINDOW,
            is_short: false,
            window: FIRST_WINDOW,
            receivable: FIRST_WINDOW,
            returnable: 0,
            held: 0,
            due: Marks::default(),
        }
    }

    /// Takes in credit of the peer. Returns true if the stream has waited for it; `None` if there is more than can be
    /// counted.
    pub(super) fn grant(&mut self, more: u32) -> Option<bool> {
        self.sendable = self.sendable.checked_add(more)?;
        let has_waited = self.is_short && self.sendable > 0;
        self.is_short &= !has_waited;
        Some(has_waited)
    }

    /// Returns the next frame that is due, one for each call.
    pub(super) fn next_frame(&mut self, stream: StreamId) -> Option<Header> {
        let flags = if std::mem::take(&mut self.due.open) {
            Flags::SYN
        } else if std::mem::take(&mut self.due.accept) {
            Flags::ACK
        } else if std::mem::take(&mut self.due.update) {
            Flags::default()
        } else if std::mem::take(&mut self.due.end) {
            return Some(Self::update(stream, Flags::FIN, 0));
        } else {
            return None;
        };
        self.due.update = false;
        let more = std::mem::take(&mut self.returnable);
        self.receivable += more;
        (flags != Flags::default() || more > 0).then(|| Self::update(stream, flags, more))
    }

    fn update(stream: StreamId, flags: Flags, length: u32) -> Header {
        Header {
            kind: Kind::WindowUpdate,
            flags,
            stream: stream.0,
            length,
        }
    }
}
