//! How long a place stays empty before its next worker is started, and when a worker has served long enough.

use std::time::Duration;

/// A worker that ends before it has lived this long and without having answered anything has died early: its start-up
/// is broken, not its request.
pub(super) const EARLY: Duration = Duration::from_secs(10);
/// No delay grows past this (or past the alarm interval, where that is longer).
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// After so many early deaths in a row there is a delay.
pub(super) const FIRST_DELAYED: u32 = 2;

/// After so many early deaths in a row: at once the first time, then `base`, doubling up to a minute.
pub(super) fn delay(early_deaths: u32, base: Duration) -> Duration {
    match early_deaths.checked_sub(FIRST_DELAYED) {
        None => Duration::ZERO,
        Some(doublings) => {
            let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
            base.saturating_mul(factor).min(LONGEST_DELAY.max(base))
        }
    }
}

/// Spreads what would otherwise come due for all workers at once: a splitmix64 sequence, seeded by the shell, so that a
/// simulation with the same seed goes the same way.
#[derive(Debug)]
pub(super) struct Jitter {
    state: u64,
}

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Jitter { state: seed }
    }

    /// Between 90 % and 110 % of a number, and at least 1.
    pub(super) fn around(&mut self, number: u64) -> u64 {
        let tenth = number / 10;
        (number - tenth).saturating_add(self.next() % (2 * tenth + 1)).max(1)
    }

    /// Between 90 % and 110 % of a duration.
    pub(super) fn around_duration(&mut self, duration: Duration) -> Duration {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4);
        Duration::from_millis(self.around(milliseconds.min(u64::MAX / 4)))
    }

    /// Any number.
    pub(super) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
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

    #[test]
    fn jitter_stays_within_a_tenth_and_is_never_zero() {
        let mut jitter = Jitter::new(1);
        let drawn: Vec<u64> = (0..1000).map(|_| jitter.around(1000)).collect();
        assert!(drawn.iter().all(|number| (900..=1100).contains(number)));
        assert!(drawn.iter().any(|number| *number < 950) && drawn.iter().any(|number| *number > 1050));
        assert_eq!(jitter.around(1), 1);
        assert_eq!(jitter.around(0), 1);
    }
}
