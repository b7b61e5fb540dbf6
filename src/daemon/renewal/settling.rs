//! The time between a change of files and the reading of them. A certificate and its key are replaced one after the
//! other, and a file is written in parts: what is read in between does not fit together.

use std::time::{Duration, Instant};

/// The time without a change after which files are read.
const SILENCE: Duration = Duration::from_secs(1);
/// The time from the first change on after which they are read in any case: one of them may be written all the time.
const LONGEST: Duration = Duration::from_secs(10);

/// The changes that have not led to a reading yet.
#[derive(Debug, Default)]
pub(super) struct Settling {
    changes: Option<Changes>,
}

#[derive(Debug, Clone, Copy)]
struct Changes {
    first: Instant,
    last: Instant,
}

impl Settling {
    /// Notes a change.
    pub(super) fn note(&mut self, now: Instant) {
        let first = self.changes.map_or(now, |changes| changes.first);
        self.changes = Some(Changes { first, last: now });
    }

    /// Returns the time at which files are to be read, if there was a change.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let Changes { first, last } = self.changes?;
        Some((last + SILENCE).min(first + LONGEST))
    }

    /// Ends the wait if it is over. Returns true if so: files are to be read now, once for these changes.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_over {
            self.changes = None;
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once_when_nothing_has_changed_for_a_second() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(settling.deadline(), None);
        assert!(!settling.expire(at(0)));
        settling.note(at(0));
        settling.note(at(900));
        assert_eq!(settling.deadline(), Some(at(1900)));
        assert!(!settling.expire(at(1899)));
        assert!(settling.expire(at(1900)));
        assert!(!settling.expire(at(9999)));
        settling.note(at(20_000));
        assert_eq!(settling.deadline(), Some(at(21_000)));
    }

    #[test]
    fn a_file_that_is_written_all_the_time_is_read_all_the_same() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        let mut readings = Vec::new();
        for second in 0..600 {
            for part in [0, 500] {
                let now = start + Duration::from_secs(second) + Duration::from_millis(part);
                if settling.expire(now) {
                    readings.push(second);
                }
                settling.note(now);
            }
        }
        assert_eq!(readings, (10..600).step_by(10).collect::<Vec<_>>());
    }
}
