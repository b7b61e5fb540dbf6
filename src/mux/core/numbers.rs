//! The numbers that the peer has used for its streams.
//!
//! Every peer gives its numbers in a rising order and none twice, but one with threads may write the openings in another
//! order: it takes a number first, and the turn to write later. So a number below the highest is no fault, and which of
//! the last ones were used is kept.

use super::StreamId;

/// The number of streams, below the one with the highest number, of which it is known whether they were opened: far more
/// than a peer opens at once.
const KNOWN: u32 = 2048;
const BITS: u32 = u64::BITS;

/// The numbers of one side, of which all are odd or all are even.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// One more than the place of the highest number among those of its side.
    end: u32,
    /// A ring with a bit for each of the last places. It has no memory before the first number.
    used: Box<[u64]>,
}

/// The past of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// It was not used.
    Never,
    /// It was used.
    Before,
    /// It is so far below the highest that this is not known.
    TooOld,
}

impl Numbers {
    /// Takes in that a number is used, and returns its past.
    pub(super) fn note(&mut self, stream: StreamId) -> Seen {
        let place = stream.0 / 2;
        if self.used.is_empty() {
            self.used = (0..KNOWN / BITS).map(|_| 0).collect();
        }
        if place >= self.end {
            // The places between are new, and take those of the oldest.
            let first = self.end.max((place + 1).saturating_sub(KNOWN));
            for new in first..=place {
                self.set(new, false);
            }
            self.end = place + 1;
        } else if self.end - place > KNOWN {
            return Seen::TooOld;
        }
        if self.set(place, true) {
            Seen::Before
        } else {
            Seen::Never
        }
    }

    /// Sets the bit of a place, and returns the one before.
    fn set(&mut self, place: u32, is_used: bool) -> bool {
        let word = usize::try_from(place % KNOWN / BITS).unwrap_or(usize::MAX);
        let bit = 1 << (place % BITS);
        let Some(word) = self.used.get_mut(word) else {
            return false;
        };
        let was_used = *word & bit != 0;
        if is_used {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        was_used
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_highest_number_that_there_is_can_be_used_once() {
        let mut numbers = Numbers::default();
        assert_eq!(numbers.note(StreamId(u32::MAX)), Seen::Never);
        assert_eq!(numbers.note(StreamId(u32::MAX)), Seen::Before);
        assert_eq!(numbers.note(StreamId(1)), Seen::TooOld);
    }

    proptest! {
        #[test]
        fn each_number_is_new_once(steps in prop::collection::vec((0..3_u32, 0..3 * KNOWN), 0..300)) {
            let (mut numbers, mut used, mut highest) = (Numbers::default(), HashSet::new(), 0);
            for (way, distance) in steps {
                let place: u32 = match way {
                    0 => highest + distance % 5,
                    1 => highest + distance,
                    _ => u32::saturating_sub(highest, distance),
                };
                highest = highest.max(place);
                let expected = if highest - place >= KNOWN {
                    Seen::TooOld
                } else if used.insert(place) {
                    Seen::Never
                } else {
                    Seen::Before
                };
                prop_assert_eq!(numbers.note(StreamId(2 * place + 1)), expected);
            }
        }
    }
}
