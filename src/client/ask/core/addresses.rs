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

/// The choice for a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Choice {
    /// An address that is up, or the last one that remains.
    Usual(usize),
    /// An address that is away: this attempt finds out if it still is.
    Probe(usize),
    /// None at present: the addresses that may get the line have no room for it.
    Full,
    /// None: the line has failed at all of them.
    None,
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

    /// Chooses the address for a line that has failed at the addresses in `failed`. A line that has not failed anywhere
    /// may become a probe. `has_room` returns true for an address that may get one more line, in view of the number of
    /// lines that are under way there.
    pub(super) fn choose(
        &mut self,
        now: Instant,
        failed: &[usize],
        has_room: &impl Fn(usize, usize) -> bool,
    ) -> Choice {
        if failed.is_empty()
            && let Some(probe) = self.start_probe(now, has_room)
        {
            return Choice::Probe(probe);
        }
        let choice = self.find(failed, has_room);
        if let Choice::Usual(number) = choice {
            self.turn = number + 1;
        }
        choice
    }

    fn start_probe(&mut self, now: Instant, has_room: &impl Fn(usize, usize) -> bool) -> Option<usize> {
        for (number, address) in self.list.iter_mut().enumerate() {
            if let Health::Away { probe_at, delay, .. } = &mut address.health
                && *probe_at <= now
                && has_room(number, address.outstanding)
            {
                *delay = (*delay * 2).min(LONGEST_DELAY);
                *probe_at = now + *delay;
                return Some(number);
            }
        }
        None
    }

    /// Returns the address with the fewest lines, of all that are up; or else the one whose probe is due first.
    pub(super) fn find(&self, failed: &[usize], has_room: &impl Fn(usize, usize) -> bool) -> Choice {
        let count = self.list.len();
        let is_up = |address: &Address| address.health == Health::Up;
        let candidates = || {
            self.untried(failed)
                .filter(|(number, address)| has_room(*number, address.outstanding))
        };
        let least_loaded = candidates()
            .filter(|(_, address)| is_up(address))
            .min_by_key(|(number, address)| (address.outstanding, (number + count - self.turn % count) % count));
        if let Some((number, _)) = least_loaded {
            return Choice::Usual(number);
        }
        if self.untried(failed).any(|(_, address)| is_up(address)) {
            return Choice::Full;
        }
        let due = |address: &Address| match address.health {
            Health::Up => None,
            Health::Away { probe_at, .. } => Some(probe_at),
        };
        match candidates().min_by_key(|(_, address)| due(address)) {
            Some((number, _)) => Choice::Usual(number),
            None if self.untried(failed).next().is_some() => Choice::Full,
            None => Choice::None,
        }
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

    /// Notes that an attempt was taken back before it was sent. If the address is away, its next probe is due.
    pub(super) fn note_unsent(&mut self, number: usize, now: Instant) {
        if let Some(Address {
            health: Health::Away { probe_at, .. },
            ..
        }) = self.list.get_mut(number)
        {
            *probe_at = now;
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

    /// Returns the addresses that are up; all of them if none is.
    pub(super) fn usable(&self) -> impl Iterator<Item = usize> {
        let is_none_up = !self.list.iter().any(|address| address.health == Health::Up);
        let numbered = self.list.iter().enumerate();
        let usable = numbered.filter(move |(_, address)| is_none_up || address.health == Health::Up);
        usable.map(|(number, _)| number)
    }

    /// Returns the time since which all addresses are away; `None` while one is up.
    pub(super) fn all_away_since(&self) -> Option<Instant> {
        let mut latest = None;
        for address in &self.list {
            match address.health {
                Health::Up => return None,
                Health::Away { since, .. } => latest = latest.max(Some(since)),
            }
        }
        latest
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

    fn ask(addresses: &mut Addresses, now: Instant, failed: &[usize]) -> Choice {
        let choice = choose(addresses, now, failed);
        if let Choice::Usual(number) | Choice::Probe(number) = choice {
            addresses.begin_attempt(number);
        }
        choice
    }

    /// Each address has room for two lines.
    fn choose(addresses: &mut Addresses, now: Instant, failed: &[usize]) -> Choice {
        addresses.choose(now, failed, &|_, outstanding| outstanding < 2)
    }

    #[test]
    fn an_address_without_room_is_passed_over_and_not_taken_for_one_that_has_failed() {
        let (now, mut addresses) = (Instant::now(), Addresses::new(2));
        for expected in [0, 1, 0, 1] {
            assert_eq!(ask(&mut addresses, now, &[]), Choice::Usual(expected));
        }
        assert_eq!(ask(&mut addresses, now, &[]), Choice::Full);
        assert_eq!(ask(&mut addresses, now, &[0]), Choice::Full);
        assert_eq!(ask(&mut addresses, now, &[0, 1]), Choice::None);
        addresses.end_attempt(1);
        assert_eq!(ask(&mut addresses, now, &[]), Choice::Usual(1));
        addresses.note_failure(0, now);
        assert_eq!(
            ask(&mut addresses, now, &[]),
            Choice::Full,
            "one that is away is no substitute"
        );
        addresses.note_failure(1, now);
        assert_eq!(ask(&mut addresses, now, &[]), Choice::Full);
    }

    #[test]
    fn equal_addresses_take_turns_and_a_busy_one_is_avoided() {
        let (now, mut addresses) = (Instant::now(), Addresses::new(3));
        for expected in [0, 1, 2, 0] {
            assert_eq!(ask(&mut addresses, now, &[]), Choice::Usual(expected));
        }
        addresses.end_attempt(2);
        assert_eq!(ask(&mut addresses, now, &[]), Choice::Usual(2));
        for expected in [0, 1, 2] {
            addresses.end_attempt(expected);
            assert_eq!(ask(&mut addresses, now, &[]), Choice::Usual(expected));
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
            assert_eq!(choose(&mut addresses, early, &[]), Choice::Usual(1));
            assert_eq!(
                choose(&mut addresses, at, &[1]),
                Choice::Usual(0),
                "the last that is left"
            );
            assert_eq!(choose(&mut addresses, at, &[]), Choice::Probe(0));
            assert_eq!(choose(&mut addresses, at, &[]), Choice::Usual(1), "one probe at a time");
            at += Duration::from_secs_f64(delay);
        }
        assert_eq!(addresses.note_answer(0), HealthChange::Changed);
        assert_eq!(addresses.note_answer(0), HealthChange::None);
        assert_eq!(choose(&mut addresses, at, &[1]), Choice::Usual(0));
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
        assert_eq!(choose(&mut addresses, later, &[]), Choice::Usual(1));
        assert_eq!(choose(&mut addresses, later, &[1]), Choice::Usual(0));
        assert_eq!(choose(&mut addresses, later, &[1, 0]), Choice::None);
    }
}
