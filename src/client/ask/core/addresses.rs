//! The choice of the address that is asked next: health, load, and the time of the next try.
//!
//! An address is up until it fails, and away until it answers. While one is up, the addresses that are away are
//! avoided; each of them gets one line as a probe when its delay is over, and the delay doubles with every probe, up to
//! [`LONGEST_DELAY`]. A probe counts as failed from its start: so there is never more than one per delay, and only an
//! answer ends the state. A silent address costs the line of its probe half of the line's time; then another address
//! gets the line. When no address is up, all are tried: a refused attempt costs nothing, and the first line finds a
//! daemon that is back.

use std::time::{Duration, Instant};

/// The time for which an address is avoided after its first failure.
pub(super) const FIRST_DELAY: Duration = Duration::from_millis(200);
/// The longest time for which an address is avoided.
pub(super) const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// All addresses, by number.
#[derive(Debug)]
pub(super) struct Addresses {
    list: Vec<Address>,
    /// The index at which the search among equals begins, so that they take turns.
    turn: usize,
}

#[derive(Debug)]
struct Address {
    /// The number of attempts under way.
    outstanding: usize,
    health: Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Up,
    Away {
        since: Instant,
        probe_at: Instant,
        delay: Duration,
    },
}

/// The chosen address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// An address that is up, or the last one that remains.
    Usual(usize),
    /// An address that is away: this attempt finds out if it still is.
    Probe(usize),
}

/// The effect of a failure or an answer on the health of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HealthChange {
    /// No change.
    None,
    /// The address went away, or came back.
    Changed,
}

impl Addresses {
    pub(super) fn new(count: usize) -> Self {
        let fresh = || Address {
            outstanding: 0,
            health: Health::Up,
        };
        Addresses {
            list: std::iter::repeat_with(fresh).take(count).collect(),
            turn: 0,
        }
    }

    /// Chooses the address for a line that has failed at the addresses in `failed`; `None` if it has failed at all of
    /// them. A line that has not failed anywhere may become a probe.
    pub(super) fn choose(&mut self, now: Instant, failed: &[usize]) -> Option<Choice> {
        if failed.is_empty()
            && let Some(probe) = self.start_probe(now)
        {
            return Some(Choice::Probe(probe));
        }
        let chosen = self.least_loaded(failed).or_else(|| self.last_resort(failed))?;
        self.turn = chosen + 1;
        Some(Choice::Usual(chosen))
    }

    fn start_probe(&mut self, now: Instant) -> Option<usize> {
        for (number, address) in self.list.iter_mut().enumerate() {
            if let Health::Away { probe_at, delay, .. } = &mut address.health
                && *probe_at <= now
            {
                *delay = (*delay * 2).min(LONGEST_DELAY);
                *probe_at = now + *delay;
                return Some(number);
            }
        }
        None
    }

    fn least_loaded(&self, failed: &[usize]) -> Option<usize> {
        let count = self.list.len();
        self.untried(failed)
            .filter(|(_, address)| address.health == Health::Up)
            .min_by_key(|(number, address)| (address.outstanding, (number + count - self.turn % count) % count))
            .map(|(number, _)| number)
    }

    /// Returns the remaining address whose probe is due first.
    fn last_resort(&self, failed: &[usize]) -> Option<usize> {
        let due = |address: &Address| match address.health {
            Health::Up => None,
            Health::Away { probe_at, .. } => Some(probe_at),
        };
        self.untried(failed)
            .min_by_key(|(_, address)| due(address))
            .map(|(number, _)| number)
    }

    fn untried(&self, failed: &[usize]) -> impl Iterator<Item = (usize, &Address)> {
        self.list
            .iter()
            .enumerate()
            .filter(|(number, _)| !failed.contains(number))
    }

    /// Returns true if a line that goes to `chosen` and has failed at `failed` could go on to an address that is up.
    pub(super) fn has_alternative(&self, chosen: usize, failed: &[usize]) -> bool {
        self.untried(failed)
            .any(|(number, address)| number != chosen && address.health == Health::Up)
    }

    /// Counts the begin of an attempt.
    pub(super) fn begin_attempt(&mut self, number: usize) {
        if let Some(address) = self.list.get_mut(number) {
            address.outstanding += 1;
        }
    }

    /// Counts the end of an attempt.
    pub(super) fn end_attempt(&mut self, number: usize) {
        if let Some(address) = self.list.get_mut(number) {
            address.outstanding = address.outstanding.saturating_sub(1);
        }
    }

    /// Notes that an attempt has failed through the fault of this address.
    pub(super) fn note_failure(&mut self, number: usize, now: Instant) -> HealthChange {
        let Some(address) = self.list.get_mut(number) else {
            return HealthChange::None;
        };
        match address.health {
            Health::Up => {
                address.health = Health::Away {
                    since: now,
                    probe_at: now + FIRST_DELAY,
                    delay: FIRST_DELAY,
                };
                HealthChange::Changed
            }
            // Away already: an attempt from before, one for lack of others, or the probe, which counts as failed from
            // its start.
            Health::Away { .. } => HealthChange::None,
        }
    }

    /// Notes that this address has answered.
    pub(super) fn note_answer(&mut self, number: usize) -> HealthChange {
        let Some(address) = self.list.get_mut(number) else {
            return HealthChange::None;
        };
        match std::mem::replace(&mut address.health, Health::Up) {
            Health::Up => HealthChange::None,
            Health::Away { .. } => HealthChange::Changed,
        }
    }

    /// Returns the time since which all addresses are away; `None` while one is up.
    pub(super) fn all_away_since(&self) -> Option<Instant> {
        let since = |address: &Address| match address.health {
            Health::Up => None,
            Health::Away { since, .. } => Some(since),
        };
        let all: Option<Vec<Instant>> = self.list.iter().map(since).collect();
        all?.into_iter().max()
    }

    /// Returns the numbers of attempts under way at the addresses, for the invariants.
    #[cfg(debug_assertions)]
    pub(super) fn outstanding(&self) -> impl Iterator<Item = usize> {
        self.list.iter().map(|address| address.outstanding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(addresses: &mut Addresses, now: Instant, failed: &[usize]) -> Option<Choice> {
        let choice = addresses.choose(now, failed);
        if let Some(Choice::Usual(number) | Choice::Probe(number)) = choice {
            addresses.begin_attempt(number);
        }
        choice
    }

    #[test]
    fn equal_addresses_take_turns_and_a_busy_one_is_avoided() {
        let (now, mut addresses) = (Instant::now(), Addresses::new(3));
        for expected in [0, 1, 2, 0] {
            assert_eq!(ask(&mut addresses, now, &[]), Some(Choice::Usual(expected)));
        }
        addresses.end_attempt(2);
        assert_eq!(ask(&mut addresses, now, &[]), Some(Choice::Usual(2)));
        for expected in [0, 1, 2] {
            addresses.end_attempt(expected);
            assert_eq!(ask(&mut addresses, now, &[]), Some(Choice::Usual(expected)));
        }
    }

    #[test]
    fn an_address_that_fails_is_avoided_and_probed_with_growing_delay() {
        let (start, mut addresses) = (Instant::now(), Addresses::new(2));
        assert_eq!(addresses.note_failure(0, start), HealthChange::Changed);
        assert_eq!(
            addresses.note_failure(0, start),
            HealthChange::None,
            "one failure, seen by many"
        );
        let mut at = start + FIRST_DELAY;
        for delay in [0.4, 0.8, 1.6, 3.2, 5.0, 5.0] {
            let early = at.checked_sub(Duration::from_millis(1)).unwrap();
            assert_eq!(addresses.choose(early, &[]), Some(Choice::Usual(1)));
            assert_eq!(
                addresses.choose(at, &[1]),
                Some(Choice::Usual(0)),
                "the last that is left"
            );
            assert_eq!(addresses.choose(at, &[]), Some(Choice::Probe(0)));
            assert_eq!(addresses.choose(at, &[]), Some(Choice::Usual(1)), "one probe at a time");
            at += Duration::from_secs_f64(delay);
        }
        assert_eq!(addresses.note_answer(0), HealthChange::Changed);
        assert_eq!(addresses.note_answer(0), HealthChange::None);
        assert_eq!(addresses.choose(at, &[1]), Some(Choice::Usual(0)));
    }

    #[test]
    fn when_all_are_away_each_is_tried_once() {
        let (now, mut addresses) = (Instant::now(), Addresses::new(2));
        assert_eq!(addresses.all_away_since(), None);
        addresses.note_failure(1, now);
        assert_eq!(addresses.all_away_since(), None);
        let later = now + Duration::from_millis(10);
        addresses.note_failure(0, later);
        assert_eq!(addresses.all_away_since(), Some(later));
        assert_eq!(addresses.choose(later, &[]), Some(Choice::Usual(1)));
        assert_eq!(addresses.choose(later, &[1]), Some(Choice::Usual(0)));
        assert_eq!(addresses.choose(later, &[1, 0]), None);
    }
}
