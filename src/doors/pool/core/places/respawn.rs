//! The time for which a place stays empty before its next worker is started.

use std::time::Duration;

use crate::doors::pool::core::event::Restart;

/// A worker that ends before it has lived this long and without having answered anything has died early: its start-up
/// is broken, not its request.
pub(in super::super) const EARLY: Duration = Duration::from_secs(10);
/// No delay grows past this (or past the alarm interval, where that is longer).
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// The number of early deaths in a row from which on there is a delay.
const FIRST_DELAYED: u32 = 2;

/// The meaning of a worker's loss for the starts in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Loss {
    /// Nothing: the request is to blame.
    OfRequest,
    /// The program is broken for longer than a moment, so there is always a delay.
    OfProbe,
    /// The start failed, as far as is known.
    Early,
    /// The start had succeeded.
    Late,
}

impl Loss {
    /// `is_over_request`: a worker that serves once had its request in hand. Such a one has never answered anything
    /// before, and each of these losses counts against the request, so there are no more starts than requests and their
    /// retries.
    pub(in super::super) fn new(reason: Restart, is_early: bool, is_over_request: bool) -> Self {
        let may_be_request = matches!(reason, Restart::Died | Restart::Oversize | Restart::Malformed);
        // In the first case the request took too long, not the start.
        if reason == Restart::BusyTimeout || is_over_request && may_be_request {
            Loss::OfRequest
        } else if reason == Restart::Quarantined {
            Loss::OfProbe
        } else if is_early {
            Loss::Early
        } else {
            Loss::Late
        }
    }

    /// The number of early deaths in a row, of which there were `before`.
    pub(super) fn count(self, before: u32) -> u32 {
        match self {
            Loss::OfRequest => before,
            Loss::OfProbe => before.saturating_add(1).max(FIRST_DELAYED),
            Loss::Early => before.saturating_add(1),
            Loss::Late => 0,
        }
    }
}

/// The delay after this number of early deaths in a row: none the first time, then `base`, doubling up to a minute.
pub(super) fn delay(early_deaths: u32, base: Duration) -> Duration {
    match early_deaths.checked_sub(FIRST_DELAYED) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
            base.saturating_mul(factor).min(LONGEST_DELAY.max(base))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_starts_at_nothing_and_grows_to_its_cap() {
        let base = Duration::from_secs(2);
        let delays: Vec<u64> = (0..9).map(|deaths| delay(deaths, base).as_secs()).collect();
        assert_eq!(delays, [0, 0, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(u32::MAX, base), LONGEST_DELAY);
        assert_eq!(delay(40, Duration::from_secs(90)), Duration::from_secs(90));
    }
}
