//! Dice that fall the same way for the same seed (splitmix64). Each client, and the fault injector, has dice of its
//! own.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Dice {
    state: u64,
}

impl Dice {
    /// The dice of one stream: other players of the same seed have others, whatever the threads do.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = Self { state: seed };
        let own = mixer.roll() ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93);
        Self { state: own }
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// 0 to `bound` - 1.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.roll() % bound).unwrap_or_default()
    }

    /// Returns true with a probability of `chance` percent.
    pub(crate) fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// Returns a time of less than `milliseconds`.
    pub(crate) fn pause(&mut self, milliseconds: u64) -> Duration {
        Duration::from_millis(self.roll() % milliseconds.max(1))
    }

    /// One of the values, each as often as its weight says. `None`: there is none with a weight.
    pub(crate) fn weighted<T: Copy>(&mut self, choices: &[(T, usize)]) -> Option<T> {
        let all = choices.iter().map(|(_, weight)| weight).sum();
        let mut place = self.below(all);
        choices.iter().find_map(|(value, weight)| {
            let found = place < *weight;
            place = place.saturating_sub(*weight);
            found.then_some(*value)
        })
    }
}
