//! The decision whether a reading of the store is believed, or the last good one stays.
//!
//! A store that was emptied by mistake, or that has lost its data in a failover, looks like one whose services were all
//! removed on purpose. So a listing with less than half of the names is doubted first: it is believed if a second full
//! reading, begun at least one `refresh` later, finds the same names. The last good listing stays until then.
//!
//! Changes that are heard of between two full readings add up: they are measured against the largest number of names
//! since the last full reading, not against the listing just before them. They can begin a doubt and never end it,
//! unless half of the names are there again.
//!
//! Two readings agree if they have the same names. Addresses may change meanwhile, as they do in a busy store; the
//! names of one that is being filled again do not agree until it holds half of them or is complete.

use std::mem;
use std::time::{Duration, Instant};

use super::reading::{Listing, have_the_same_names};

/// The part of the store that was read for a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// All keys.
    Full,
    /// The keys that have changed since the last full reading; the others are as they were.
    Changes,
}

/// The decision about a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the place of the last good one.
    Take,
    /// The last good one stays, because the new one has too few names.
    Doubt {
        /// The number of names that it was measured against.
        instead_of: usize,
        /// False if the same names were doubted before, so that this was told already.
        is_new: bool,
    },
}

/// The memory of the last good listing.
#[derive(Debug)]
pub struct Keeper {
    /// The time between two full readings.
    refresh: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// There was no listing yet.
    Nothing,
    /// The last listing was believed.
    Good(Believed),
    /// The last listing was not believed.
    Doubted {
        believed: Believed,
        doubted: Listing,
        /// The time at which the first reading of these names began.
        since: Instant,
    },
}

/// The largest number of names of the good listings since the last full one, including that one.
type Believed = usize;

impl Keeper {
    /// Returns the keeper of a store that is read in full every `refresh`.
    pub fn new(refresh: Duration) -> Self {
        Keeper {
            refresh,
            state: State::Nothing,
        }
    }

    /// Sets the time between two full readings.
    pub fn set_refresh(&mut self, refresh: Duration) {
        self.refresh = refresh;
    }

    /// Believes a listing that was good in a former run.
    pub fn resume(&mut self, listing: &Listing) {
        self.state = State::Good(listing.len());
    }

    /// Decides about a listing. `now` is the time at which its reading began.
    pub fn offer(&mut self, listing: &Listing, extent: Extent, now: Instant) -> Verdict {
        let (verdict, state) = match mem::replace(&mut self.state, State::Nothing) {
            State::Nothing => (Verdict::Take, State::Good(listing.len())),
            State::Good(believed) | State::Doubted { believed, .. } if has_half(listing, believed) => {
                (Verdict::Take, State::Good(after(believed, listing, extent)))
            }
            State::Good(believed) => doubted(believed, listing, now),
            State::Doubted {
                believed,
                doubted: former,
                ..
            } if !have_the_same_names(listing, &former) => doubted(believed, listing, now),
            State::Doubted { since, .. }
                if extent == Extent::Full && now.saturating_duration_since(since) >= self.refresh =>
            {
                (Verdict::Take, State::Good(listing.len()))
            }
            State::Doubted {
                believed,
                doubted,
                since,
            } => {
                let verdict = Verdict::Doubt {
                    instead_of: believed,
                    is_new: false,
                };
                (
                    verdict,
                    State::Doubted {
                        believed,
                        doubted,
                        since,
                    },
                )
            }
        };
        self.state = state;
        verdict
    }
}

fn has_half(listing: &Listing, believed: Believed) -> bool {
    listing.len() >= believed.div_ceil(2)
}

/// Returns the number that later listings are measured against, after this one was believed.
fn after(believed: Believed, listing: &Listing, extent: Extent) -> Believed {
    match extent {
        Extent::Full => listing.len(),
        Extent::Changes => believed.max(listing.len()),
    }
}

fn doubted(believed: Believed, listing: &Listing, now: Instant) -> (Verdict, State) {
    let verdict = Verdict::Doubt {
        instead_of: believed,
        is_new: true,
    };
    let state = State::Doubted {
        believed,
        doubted: listing.clone(),
        since: now,
    };
    (verdict, state)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::entry::{Entry, Target};

    const REFRESH: Duration = Duration::from_secs(5);

    /// A listing of this number of names, which begin with `prefix`, at a port.
    fn listing(prefix: &str, names: usize, port: u16) -> Listing {
        let entry = |number| Entry {
            name: format!("{prefix}{number:06}.example").into(),
            target: Target::Server {
                host: "10.0.0.5".into(),
                tls_port: Some(port),
                http_port: None,
            },
        };
        (0..names).map(entry).collect()
    }

    fn good(names: usize) -> (Keeper, Instant) {
        let (mut keeper, now) = (Keeper::new(REFRESH), Instant::now());
        assert_eq!(keeper.offer(&listing("a", names, 1), Extent::Full, now), Verdict::Take);
        (keeper, now)
    }

    fn doubt(instead_of: usize, is_new: bool) -> Verdict {
        Verdict::Doubt { instead_of, is_new }
    }

    #[test]
    fn the_first_reading_is_believed_even_if_it_is_empty() {
        let (mut keeper, now) = good(0);
        assert_eq!(keeper.offer(&listing("a", 0, 1), Extent::Full, now), Verdict::Take);
        assert_eq!(keeper.offer(&listing("a", 7, 1), Extent::Changes, now), Verdict::Take);
    }

    #[test]
    fn half_of_the_names_are_believed_at_once_and_less_are_not() {
        for (names, half) in [(1, 1), (2, 1), (3, 2), (10, 5), (11, 6)] {
            for extent in [Extent::Full, Extent::Changes] {
                let (mut keeper, now) = good(names);
                assert_eq!(
                    keeper.offer(&listing("a", half, 1), extent, now),
                    Verdict::Take,
                    "{half}"
                );
                let (mut keeper, now) = good(names);
                let less = listing("a", half - 1, 1);
                assert_eq!(keeper.offer(&less, extent, now), doubt(names, true), "{half}");
            }
        }
    }

    #[test]
    fn an_emptied_store_is_believed_one_refresh_later_and_not_before() {
        let (mut keeper, now) = good(10);
        let empty = listing("a", 0, 1);
        let almost = now + REFRESH - Duration::from_millis(1);
        assert_eq!(keeper.offer(&empty, Extent::Full, now), doubt(10, true));
        assert_eq!(keeper.offer(&empty, Extent::Full, almost), doubt(10, false));
        assert_eq!(
            keeper.offer(&empty, Extent::Changes, now + REFRESH),
            doubt(10, false),
            "not all was read"
        );
        assert_eq!(keeper.offer(&empty, Extent::Full, now + REFRESH), Verdict::Take);
        assert_eq!(
            keeper.offer(&listing("a", 1, 1), Extent::Full, now + REFRESH),
            Verdict::Take
        );
    }

    #[test]
    fn two_readings_that_differ_do_not_confirm_each_other() {
        let (mut keeper, now) = good(10);
        let at = |refreshes: u32| now + REFRESH * refreshes;
        assert_eq!(keeper.offer(&listing("a", 1, 1), Extent::Full, at(1)), doubt(10, true));
        assert_eq!(
            keeper.offer(&listing("b", 1, 1), Extent::Full, at(2)),
            doubt(10, true),
            "another name"
        );
        assert_eq!(
            keeper.offer(&listing("b", 2, 1), Extent::Full, at(3)),
            doubt(10, true),
            "one more"
        );
        assert_eq!(
            keeper.offer(&listing("b", 2, 2), Extent::Full, at(4)),
            Verdict::Take,
            "another port"
        );
    }

    #[test]
    fn a_doubt_ends_as_soon_as_half_of_the_names_are_there_again() {
        let (mut keeper, now) = good(10);
        assert_eq!(keeper.offer(&listing("a", 0, 1), Extent::Full, now), doubt(10, true));
        assert_eq!(keeper.offer(&listing("b", 5, 1), Extent::Changes, now), Verdict::Take);
        assert_eq!(keeper.offer(&listing("b", 4, 1), Extent::Changes, now), doubt(10, true));
    }

    #[test]
    fn services_that_go_one_by_one_add_up() {
        let (mut keeper, now) = good(8);
        for names in (4..8).rev() {
            assert_eq!(
                keeper.offer(&listing("a", names, 1), Extent::Changes, now),
                Verdict::Take
            );
        }
        assert_eq!(keeper.offer(&listing("a", 3, 1), Extent::Changes, now), doubt(8, true));
        let (mut keeper, now) = good(8);
        assert_eq!(keeper.offer(&listing("a", 100, 1), Extent::Changes, now), Verdict::Take);
        assert_eq!(
            keeper.offer(&listing("a", 49, 1), Extent::Changes, now),
            doubt(100, true)
        );
    }

    #[test]
    fn the_table_of_a_former_run_is_a_good_one() {
        let (mut keeper, now) = (Keeper::new(REFRESH), Instant::now());
        keeper.resume(&listing("a", 10, 1));
        assert_eq!(keeper.offer(&listing("a", 4, 1), Extent::Full, now), doubt(10, true));
    }

    proptest! {
        /// Against the rule as the manual says it, with full readings alone.
        #[test]
        fn the_rule_holds_for_any_readings(readings in proptest::collection::vec((0..6_usize, 0..8_u64), 1..40)) {
            let (mut keeper, mut now) = (Keeper::new(REFRESH), Instant::now());
            let mut history: Vec<(usize, Instant)> = Vec::new();
            let mut good: Option<usize> = None;
            for (names, pause) in readings {
                now += Duration::from_secs(pause);
                let verdict = keeper.offer(&listing("a", names, 1), Extent::Full, now);
                let agreeing = history.iter().rev().take_while(|(former, _)| *former == names).last();
                let is_confirmed = agreeing.is_some_and(|(_, at)| now - *at >= REFRESH);
                let is_good = good.is_none_or(|good| names * 2 >= good) || is_confirmed;
                prop_assert_eq!(verdict == Verdict::Take, is_good, "{} names after {:?}", names, good);
                if is_good {
                    good = Some(names);
                    history.clear();
                }
                history.push((names, now));
            }
        }
    }
}
