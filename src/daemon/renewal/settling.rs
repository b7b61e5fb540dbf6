//! The time between a change of files and the reading of them. A certificate and its key are replaced one after the
//! other, and a file is written in parts: what is read in between does not fit together. And the time until another
//! reading, where the machine has kept the files from being read and no change will tell that it is over.

use std::time::{Duration, Instant};

/// The time without a change after which files are read.
const SILENCE: Duration = Duration::from_secs(1);
/// The time from the first change on after which they are read in any case: one of them may be written all the time.
const LONGEST: Duration = Duration::from_secs(10);
/// The time after which files are read again that the machine could not read.
const RETRY: Duration = Duration::from_secs(60);

/// The reasons for which files are to be read.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// The changes that have not led to a reading yet.
    changes: Option<Changes>,
    /// The time of another try.
    retry: Option<Instant>,
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

    /// Notes that the machine could not read a file.
    pub(super) fn retry(&mut self, now: Instant) {
        self.retry = Some(now + RETRY);
    }

    /// Returns the time at which files are to be read, if there is a reason.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let settled = |Changes { first, last }: Changes| (last + SILENCE).min(first + LONGEST);
        self.changes.map(settled).into_iter().chain(self.retry).min()
    }

    /// Ends the wait if it is over. Returns true if so: files are to be read now, once for all reasons so far.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        let is_over = self.deadline().is_some_and(|deadline| deadline <= now);
        if is_over {
            *self = Self::default();
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

    #[test]
    fn files_that_the_machine_could_not_read_are_read_again() {
        let (mut settling, start) = (Settling::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        settling.retry(at(0));
        assert_eq!(settling.deadline(), Some(at(60)));
        assert!(!settling.expire(at(59)) && settling.expire(at(60)) && !settling.expire(at(200)));
        settling.retry(at(200));
        settling.note(at(210));
        assert!(settling.expire(at(211)));
        assert_eq!(settling.deadline(), None, "the reading was both");
    }
}
