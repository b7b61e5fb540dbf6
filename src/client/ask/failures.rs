//! What is said of the lines that no pool has answered: the first at once, those that follow once in ten seconds, with their
//! number and the reason of the last. Pure: the time is an argument.
//!
//! Such a line is a URL that has passed its filter, or a user who was not let in, and no daemon knows of it: so it is said here,
//! always, and without a line of log for each.

use std::time::{Duration, Instant};

use super::core::Cause;

/// How long lines are gathered.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// What is to be said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) lines: u64,
    /// Over how long; `None`: it has just happened.
    pub(super) span: Option<Duration>,
    /// Why, in the case of the last.
    pub(super) cause: Cause,
}

/// What has not been said yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// From the moment that something was said on, until a window goes by without a line.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u64,
    cause: Cause,
}

impl Failures {
    /// A line has failed. What is to be said of it at once.
    pub(super) fn count(&mut self, now: Instant, cause: Cause) -> Option<Report> {
        if let Some(window) = &mut self.window {
            window.lines += 1;
            window.cause = cause;
            return None;
        }
        self.window = Some(Window {
            began: now,
            lines: 0,
            cause,
        });
        Some(Report {
            lines: 1,
            span: None,
            cause,
        })
    }

    /// When [`due`](Self::due) is to be asked again.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.window.as_ref().map(|window| window.began + WINDOW)
    }

    /// What is to be said of the window that is over, if one is and lines have failed in it.
    pub(super) fn due(&mut self, now: Instant) -> Option<Report> {
        let window = self.window.as_mut().filter(|window| now >= window.began + WINDOW)?;
        let (lines, cause) = (window.lines, window.cause);
        let span = now.saturating_duration_since(window.began);
        if lines == 0 {
            self.window = None;
            return None;
        }
        (window.began, window.lines) = (now, 0);
        Some(Report {
            lines,
            span: Some(span),
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::core::Fault;
    use super::*;

    const CAUSE: Cause = Cause::NoConnection;

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_is_told_at_once_and_the_others_together() {
        let (start, mut failures) = (Instant::now(), Failures::default());
        assert_eq!(failures.next_deadline(), None);
        let report = |lines, span, cause| Some(Report { lines, span, cause });
        assert_eq!(failures.count(start, CAUSE), report(1, None, CAUSE));
        let last = Cause::Fault(0, Fault::TimedOut);
        for _ in 0..36 {
            assert_eq!(failures.count(at(start, 3), CAUSE), None);
        }
        assert_eq!(failures.count(at(start, 4), last), None);
        assert_eq!(failures.due(at(start, 9)), None);
        assert_eq!(failures.next_deadline(), Some(at(start, 10)));
        assert_eq!(failures.due(at(start, 10)), report(37, Some(WINDOW), last));
        assert_eq!(failures.next_deadline(), Some(at(start, 20)));
        assert_eq!(failures.due(at(start, 20)), None);
        assert_eq!(failures.next_deadline(), None, "the flood is over");
        assert_eq!(failures.count(at(start, 21), CAUSE), report(1, None, CAUSE));
    }

    proptest! {
        /// However they come, each line is told once, and at most two messages fall into ten seconds.
        #[test]
        fn each_is_told_once(pauses in prop::collection::vec(0u64..15_000, 1..60)) {
            let (start, mut failures) = (Instant::now(), Failures::default());
            let (mut now, mut told, mut said) = (start, 0, Vec::new());
            let count = u64::try_from(pauses.len()).unwrap();
            for pause in pauses.into_iter().map(Duration::from_millis).chain([WINDOW * 2]) {
                let end = now + pause;
                while let Some(due) = failures.next_deadline().filter(|due| *due <= end) {
                    now = due;
                    let report = failures.due(now);
                    told += report.map_or(0, |report| report.lines);
                    said.extend(report.map(|_| now));
                }
                now = end;
                if pause < WINDOW * 2 {
                    let report = failures.count(now, CAUSE);
                    told += report.map_or(0, |report| report.lines);
                    said.extend(report.map(|_| now));
                }
            }
            prop_assert_eq!(told, count);
            prop_assert!(said.windows(3).all(|three| three[2] - three[0] >= WINDOW));
        }
    }
}
