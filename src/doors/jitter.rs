//! Chance as a core needs it: from a seed that the shell gives it, so that the same events lead to the same decisions.

use std::time::Duration;

/// Spreads what would otherwise come due at once: a splitmix64 sequence.
#[derive(Debug)]
pub struct Jitter {
    state: u64,
}

impl Jitter {
    /// Begins a sequence. The same seed begins the same one.
    pub fn new(seed: u64) -> Self {
        Jitter { state: seed }
    }

    /// Returns between 90 % and 110 % of a number, and at least 1.
    pub fn around(&mut self, number: u64) -> u64 {
        let tenth = number / 10;
        (number - tenth).saturating_add(self.next() % (2 * tenth + 1)).max(1)
    }

    /// Returns between 90 % and 110 % of a duration.
    pub fn around_duration(&mut self, duration: Duration) -> Duration {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4);
        Duration::from_millis(self.around(milliseconds.min(u64::MAX / 4)))
    }

    /// Returns any number.
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.state)
    }
}

/// Returns a number all of whose bits depend on all bits of the other, and always the same one.
pub fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

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
