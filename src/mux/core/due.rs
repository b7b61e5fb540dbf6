//! The control frames that are to be written, kept as what is due, until the connection has room for them.

use std::collections::{BTreeSet, VecDeque};

use super::StreamId;
use super::stream::Stream;
use crate::mux::frame::{Flags, Header, Kind};
use crate::mux::queue::{Place, Queue};

/// The frames that are due for one stream. Each is written at most once at a time, whatever has made it due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub(super) open: bool,
    pub(super) accept: bool,
    pub(super) update: bool,
    pub(super) end: bool,
    /// The stream's place among those with marks.
    place: Place,
}

impl Marks {
    pub(super) const fn is_any(self) -> bool {
        self.open || self.accept || self.update || self.end
    }
}

/// The frames that are due.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// The numbers of the pings to be answered.
    pub(super) answers: VecDeque<u32>,
    /// The number of the ping to be sent.
    pub(super) question: Option<u32>,
    /// The streams of this side that are to be reset, and are not known any more.
    pub(super) resets_of_ours: BTreeSet<StreamId>,
    /// The same of the peer's.
    pub(super) resets_of_peers: BTreeSet<StreamId>,
    /// The code of the go-away to be sent.
    pub(super) go_away: Option<u32>,
    /// The streams with marks.
    streams: Queue,
}

impl Due {
    /// Lists a stream that has got a mark.
    pub(super) fn add(&mut self, stream: StreamId, known: &mut Stream) {
        self.streams.add(stream, &mut known.due.place);
    }

    pub(super) fn next_stream(&self) -> Option<StreamId> {
        self.streams.first()
    }

    /// Goes on to the next stream, if this one has no more marks.
    pub(super) fn go_on_with(&mut self, stream: StreamId, known: &mut Stream) {
        debug_assert_eq!(self.streams.first(), Some(stream), "the one in front");
        if !known.due.is_any() {
            self.drop_marks(known);
        }
    }

    /// Drops what is due for a stream that is to be forgotten.
    pub(super) fn drop_marks(&mut self, known: &mut Stream) {
        self.streams.remove(&mut known.due.place);
        known.due = Marks::default();
    }

    /// Drops the reset of a stream, if one is due.
    pub(super) fn drop_reset(&mut self, stream: StreamId) {
        self.resets_of_ours.remove(&stream);
        self.resets_of_peers.remove(&stream);
    }

    /// Returns the next frame that concerns no stream and must not wait.
    pub(super) fn of_session(&mut self) -> Option<Header> {
        if let Some(number) = self.answers.pop_front() {
            return Some(about_session(Kind::Ping, Flags::ACK, number));
        }
        let number = self.question.take()?;
        Some(about_session(Kind::Ping, Flags::SYN, number))
    }

    /// Returns the next reset, and behind them the go-away.
    pub(super) fn of_the_end(&mut self) -> Option<Header> {
        let reset = self.resets_of_peers.pop_first();
        if let Some(stream) = reset.or_else(|| self.resets_of_ours.pop_first()) {
            return Some(Header {
                kind: Kind::WindowUpdate,
                flags: Flags::RST,
                stream: stream.0,
                length: 0,
            });
        }
        let code = self.go_away.take()?;
        Some(about_session(Kind::GoAway, Flags::default(), code))
    }

    /// Returns the number of entries for streams.
    #[cfg(test)]
    pub(super) fn streams(&self) -> usize {
        self.streams.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
            && self.question.is_none()
            && self.resets_of_ours.is_empty()
            && self.resets_of_peers.is_empty()
            && self.go_away.is_none()
            && self.streams.is_empty()
    }
}

fn about_session(kind: Kind, flags: Flags, length: u32) -> Header {
    Header {
        kind,
        flags,
        stream: 0,
        length,
    }
}
