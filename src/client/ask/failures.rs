//! Reports about lines that no pool has answered: the first line is reported at once, the following ones every ten
//! seconds, with their number and the cause of the last. Pure: the time is an argument.
//!
//! Such a line is a URL that has passed its filter, or a user who was refused, and no daemon knows of it: so it is
//! always reported here, but without a log line for each.

use std::time::{Duration, Instant};

use super::core::Cause;

/// The time over which lines are gathered.
pub(super) const WINDOW: Duration = Duration::from_secs(10);

/// One report for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) lines: u64,
    /// The time over which the lines failed; `None` for a line that has just failed.
    pub(super) span: Option<Duration>,
    /// The cause of the last line's failure.
    pub(super) cause: Cause,
}

/// The failures that have not been reported yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// The window since the last report; `None` after a window without a failed line.
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u64,
    cause: Cause,
}

impl Failures {
    /// Counts a failed line. Returns the report to be made at once, if any.
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

    /// Returns the time at which [`due`](Self::due) has to be called next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.window.as_ref().map(|window| window.began + WINDOW)
    }

    /// Ends the window that is over, and returns the report about the lines that failed in it, if any did.
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
    fn the_first_failed_line_is_reported_at_once_and_the_others_together() {
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
        /// Every line is reported once, and at most two messages fall into ten seconds, whatever the distances of the
        /// lines.
        #[test]
        fn each_failed_line_is_reported_once(pauses in prop::collection::vec(0u64..15_000, 1..60)) {
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
