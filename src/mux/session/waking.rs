//! The streams whose conversations are to be run, and the ones that wait for room in the connection.

use super::Session;
use crate::mux::core::{Event, StreamId};
use crate::mux::next::Next;

/// The number of parked streams that are woken at once.
const WOKEN_AT_ONCE: usize = 16;

impl Session {
    pub(in crate::mux) fn take_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            match event {
                Event::Opened(stream) => self.opened.push_back(stream),
                Event::Readable(stream) | Event::Writable(stream) => self.wake(stream),
                Event::Reset(stream) | Event::Evicted(stream) => {
                    if let Some(carried) = self.streams.get_mut(&stream) {
                        carried.note_reset();
                    }
                    self.wake(stream);
                }
                Event::WentAway(code) => self.went_away = Some(code),
            }
        }
    }

    pub(in crate::mux) fn wake(&mut self, stream: StreamId) {
        if let Some(carried) = self.streams.get_mut(&stream)
            && !std::mem::replace(&mut carried.is_woken, true)
        {
            self.woken.push_back(stream);
        }
    }

    pub(super) fn next_opened(&mut self) -> Option<Next> {
        self.opened.pop_front().map(Next::Opened)
    }

    pub(super) fn next_woken(&mut self) -> Option<Next> {
        while let Some(stream) = self.woken.pop_front() {
            // Otherwise it was released.
            if let Some(carried) = self.streams.get_mut(&stream) {
                carried.is_woken = false;
                let owner = carried.owner;
                return Some(Next::Stream { stream, owner });
            }
        }
        None
    }

    /// Lets a stream wait for room in the connection.
    pub(in crate::mux) fn park(&mut self, stream: StreamId) {
        if let Some(carried) = self.streams.get_mut(&stream) {
            self.parked.add(stream, &mut carried.parked);
        }
    }

    /// Returns true if a parked stream may be woken: everything is written. A rest has found the connection full, so an event
    /// follows; woken before that, a stream whose bulk wants an empty buffer would be parked again in every turn.
    pub(super) fn can_wake_parked(&self) -> bool {
        !self.parked.is_empty() && self.has_room() && self.conn.unwritten() == 0
    }

    /// Wakes some of the parked streams, if there is room. Returns true if one was woken.
    pub(super) fn wake_parked(&mut self) -> bool {
        if self.parked.is_empty() {
            return false;
        }
        self.write_out();
        if !self.can_wake_parked() {
            return false;
        }
        for _ in 0..WOKEN_AT_ONCE {
            let Some(stream) = self.parked.first() else { break };
            let Some(carried) = self.streams.get_mut(&stream) else {
                debug_assert!(false, "a stream that is released does not wait");
                break;
            };
            self.parked.remove(&mut carried.parked);
            self.wake(stream);
        }
        !self.woken.is_empty()
    }
}
