//! All deadlines, in one ordered set on the monotonic clock.
//!
//! The owner of a deadline keeps an [`Alarm`]. Arming it again moves its one entry and disarming it removes the entry,
//! so the set holds exactly the deadlines that exist and no stale ones. An entry carries the token by which its owner
//! is found; a token whose owner no longer exists is dropped by the owner's service like any other late event.

use std::collections::BTreeSet;
use std::time::Instant;

use super::token::Token;

/// A deadline as its owner keeps it. Must be disarmed before its owner is dropped.
#[derive(Debug, Default)]
pub struct Alarm {
    at: Option<Instant>,
}

impl Alarm {
    /// Returns the time at which the alarm goes off, if it is armed.
    pub fn at(&self) -> Option<Instant> {
        self.at
    }
}

#[derive(Debug, Default)]
pub(super) struct Timers {
    entries: BTreeSet<(Instant, Token)>,
}

impl Timers {
    /// Arms, moves or (with `None`) disarms an alarm.
    pub(super) fn set(&mut self, alarm: &mut Alarm, token: Token, at: Option<Instant>) {
        if alarm.at == at {
            return;
        }
        if let Some(old) = alarm.at {
            self.entries.remove(&(old, token));
        }
        if let Some(new) = at {
            self.entries.insert((new, token));
        }
        alarm.at = at;
    }

    pub(super) fn next(&self) -> Option<Instant> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Removes one entry that is due and returns its token. The owner's alarm keeps its time until
    /// [`clear`](Self::clear), or until the next `set`, which finds nothing to remove.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Token> {
        let (at, token) = *self.entries.first()?;
        if at > now {
            return None;
        }
        self.entries.pop_first();
        Some(token)
    }

    /// Disarms an alarm whose entry has been removed by [`pop_due`](Self::pop_due).
    pub(super) fn clear(alarm: &mut Alarm) {
        alarm.at = None;
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::token::{Key, Kind, ServiceId, Source};
    use super::*;

    fn token(slot: u32) -> Token {
        Token {
            service: ServiceId(1),
            source: Source {
                kind: Kind(0),
                key: Key::numbered(slot),
            },
        }
    }

    #[test]
    fn the_earliest_goes_off_first_and_only_when_due() {
        let (start, mut timers) = (Instant::now(), Timers::default());
        let mut alarms = [Alarm::default(), Alarm::default()];
        timers.set(&mut alarms[0], token(0), Some(start + Duration::from_secs(2)));
        timers.set(&mut alarms[1], token(1), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.next(), Some(start + Duration::from_secs(1)));
        assert_eq!(timers.pop_due(start), None);
        assert_eq!(timers.pop_due(start + Duration::from_secs(3)), Some(token(1)));
        assert_eq!(timers.pop_due(start + Duration::from_secs(3)), Some(token(0)));
        assert_eq!(timers.pop_due(start + Duration::from_secs(3)), None);
    }

    #[test]
    fn moving_and_disarming_leave_nothing_behind() {
        let (start, mut timers, mut alarm) = (Instant::now(), Timers::default(), Alarm::default());
        for seconds in 0..100 {
            timers.set(&mut alarm, token(0), Some(start + Duration::from_secs(seconds)));
        }
        assert_eq!(timers.len(), 1);
        timers.set(&mut alarm, token(0), None);
        assert_eq!((timers.len(), alarm.at()), (0, None));
    }
}
