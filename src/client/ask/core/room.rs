//! The room for lines: how many may be under way at an address, and how many are read ahead.
//!
//! The time of a line begins when it is read. So a line is read only if an address can take it at once; until then it
//! stays with the program that writes it, however many there are.

use super::Asker;
use super::links::Links;

/// The claim of a line to a place at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Urgency {
    /// The line was not asked before; it waits while an address has as many lines as it should.
    First,
    /// The line was asked before, and its time runs: only a lack of connections keeps it waiting.
    Again,
}

/// Returns the test for room at an address, in view of the number of lines under way there. `singles` is the
/// number of lines that have a connection of their own, and `limit` its limit.
pub(super) fn test(
    links: &Links,
    urgency: Urgency,
    limit: usize,
    singles: usize,
) -> impl Fn(usize, usize) -> bool + use<'_> {
    move |address, outstanding| {
        let capacity = if links.is_multiplexed(address) {
            links.capacity(address)
        } else {
            links.capacity(address).min(limit)
        };
        let has_connection = !links.is_single(address) || singles < limit;
        has_connection && (urgency == Urgency::Again || outstanding < capacity)
    }
}

impl Asker {
    /// Returns true if another line may be read.
    pub fn has_room(&self) -> bool {
        // While all addresses are away for long, no line waits for another one: their times run side by side.
        let is_stalled = self.is_long_outage();
        (is_stalled || self.unanswered() < self.capacity())
            && self.requests.len() < self.policy.max_lines
            && self.held_bytes < self.policy.max_bytes
    }

    /// Returns the number of lines that the addresses can take together.
    fn capacity(&self) -> usize {
        let (mut shared, mut single) = (0_usize, 0_usize);
        for address in self.addresses.usable() {
            let capacity = self.links.capacity(address);
            if self.links.is_multiplexed(address) {
                shared = shared.saturating_add(capacity);
            } else {
                single = single.saturating_add(capacity);
            }
        }
        shared.saturating_add(single.min(self.limit))
    }

    /// Returns true if all addresses have been away for longer than a line has time.
    pub(super) fn is_long_outage(&self) -> bool {
        let since = self.addresses.all_away_since();
        since.is_some_and(|since| self.now.saturating_duration_since(since) > self.policy.timeout)
    }

    /// Returns the number of lines without an answer.
    fn unanswered(&self) -> usize {
        let super::Counters {
            lines,
            answered,
            failed,
            contradicted,
            ..
        } = self.counters;
        usize::try_from(lines - answered - failed - contradicted).unwrap_or(usize::MAX)
    }
}
