//! The frames of this side: opening, accepting, ending and resetting streams, their data, and the order of them all.

use super::stream::{Ends, Phase, Stream};
use super::{Session, StreamId};
use crate::mux::frame::{Flags, HEADER, Header, Kind};

/// The code of a go-away without a fault.
const NORMAL: u32 = 0;

impl Session {
    /// Opens a stream. `None` if the peer has gone away, if too many wait to be accepted, or if the numbers are used up. After
    /// a go-away of this side the peer takes streams as before.
    pub fn open(&mut self) -> Option<StreamId> {
        if self.peer_went_away || self.unaccepted >= self.settings.unaccepted {
            return None;
        }
        let stream = StreamId(self.next);
        self.next = self.next.checked_add(2)?;
        self.unaccepted += 1;
        self.counters.opened += 1;
        self.add(stream, Stream::new(Phase::Asked(Ends::Neither)));
        self.offer_window(stream, |known| known.due.open = true);
        Some(stream)
    }

    /// Accepts a stream that the peer has opened.
    pub fn accept(&mut self, stream: StreamId) {
        let is_offered = self.streams.get_mut(&stream).is_some_and(|known| known.phase.accept());
        if is_offered {
            self.offer_window(stream, |known| known.due.accept = true);
        }
    }

    /// Grants the larger window of the settings, if the total allows it, with the frame that `mark` makes due.
    fn offer_window(&mut self, stream: StreamId, mark: impl FnOnce(&mut Stream)) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let more = self.settings.window.saturating_sub(known.window);
        if self.granted + u64::from(more) <= self.settings.total {
            known.window += more;
            known.returnable += more;
            self.granted += u64::from(more);
        }
        mark(known);
        self.due.add(stream, known);
    }

    /// Returns the number of bytes that may be sent on a stream; 0 for one that is not known, or whose end was said.
    #[must_use]
    pub fn credit(&self, stream: StreamId) -> u32 {
        let known = self.streams.get(&stream);
        let known = known.filter(|known| !known.phase.ends().has_ours());
        known.map_or(0, |known| known.sendable)
    }

    /// Returns the stream whose header is out, and the number of bytes that must be written before anything else.
    #[must_use]
    pub fn owed(&self) -> Option<(StreamId, u32)> {
        self.owed
    }

    /// Begins a frame, and returns its header. Nothing may be owed, no control frame due, and `length` at most the
    /// stream's [credit](Self::credit), and not 0.
    pub fn begin_data(&mut self, stream: StreamId, length: u32) -> [u8; HEADER] {
        debug_assert!(self.owed.is_none() && !self.has_control(), "in the order of the frames");
        if let Some(known) = self.streams.get_mut(&stream) {
            debug_assert!(length > 0 && length <= known.sendable, "within the credit");
            known.sendable = known.sendable.saturating_sub(length);
            known.is_short = known.sendable == 0;
        }
        self.owed = Some((stream, length));
        let header = Header {
            kind: Kind::Data,
            flags: Flags::default(),
            stream: stream.0,
            length,
        };
        header.bytes()
    }

    /// Takes in that owed bytes are written: at most as many as are owed.
    pub fn sent(&mut self, count: u32) {
        if let Some((_, left)) = &mut self.owed {
            let count = count.min(*left);
            *left -= count;
            self.counters.sent += u64::from(count);
            if *left == 0 {
                self.owed = None;
            }
        }
    }

    /// Says the end of a stream, behind everything that was begun.
    pub fn end(&mut self, stream: StreamId) {
        if let Some(known) = self.streams.get_mut(&stream)
            && known.phase.end_ours()
        {
            known.due.end = true;
            self.due.add(stream, known);
        }
    }

    /// Gives a stream up. The peer learns it by a reset, unless both ends are said. What is owed stays owed.
    pub fn reset(&mut self, stream: StreamId) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        if known.phase.ends() == Ends::Both {
            // Its end may still have to be written.
            self.held -= known.held;
            known.held = 0;
            return self.tidy(stream);
        }
        let is_told = !known.due.open;
        self.forget(stream);
        if is_told {
            let resets = if self.is_ours(stream) {
                &mut self.due.resets_of_ours
            } else {
                &mut self.due.resets_of_peers
            };
            resets.insert(stream);
        }
    }

    /// Lets the peer open no more streams, and tells it so.
    pub fn go_away(&mut self) {
        if !self.we_went_away {
            self.we_went_away = true;
            self.due.go_away = Some(NORMAL);
        }
    }

    /// Returns true if the peer takes no more streams.
    #[must_use]
    pub fn is_gone_away(&self) -> bool {
        self.peer_went_away
    }

    /// Returns the next control frame that is to be written. `None` while a payload is owed.
    pub fn next_control(&mut self) -> Option<[u8; HEADER]> {
        if self.owed.is_some() {
            return None;
        }
        if let Some(header) = self.due.of_session() {
            return Some(header.bytes());
        }
        while let Some(stream) = self.due.next_stream() {
            let Some(known) = self.streams.get_mut(&stream) else {
                debug_assert!(false, "a stream that is not known has no marks");
                break;
            };
            let header = known.next_frame(stream);
            self.due.go_on_with(stream, known);
            self.tidy(stream);
            if let Some(header) = header {
                return Some(header.bytes());
            }
        }
        self.due.of_the_end().map(Header::bytes)
    }

    /// Returns true if a control frame is due.
    #[must_use]
    pub fn has_control(&self) -> bool {
        !self.due.is_empty()
    }
}
