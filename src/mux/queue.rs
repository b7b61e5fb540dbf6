//! Streams that wait for their turn, first come, first served, each at most once. One that has gone leaves its place.

use std::collections::BTreeMap;

use super::core::StreamId;

/// A place in a [`Queue`]. The stream keeps it, and has none while it does not wait.
pub(super) type Place = Option<u64>;

/// The streams that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: BTreeMap<u64, StreamId>,
    next: u64,
}

impl Queue {
    /// Puts a stream at the end, unless it has a place.
    pub(super) fn add(&mut self, stream: StreamId, place: &mut Place) {
        if place.is_none() {
            self.waiting.insert(self.next, stream);
            *place = Some(self.next);
            self.next += 1;
        }
    }

    /// Takes a stream out, if it waits.
    pub(super) fn remove(&mut self, place: &mut Place) {
        if let Some(number) = place.take() {
            self.waiting.remove(&number);
        }
    }

    /// Returns the stream that has waited longest.
    pub(super) fn first(&self) -> Option<StreamId> {
        self.waiting.first_key_value().map(|(_, stream)| *stream)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns the number of streams that wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}
