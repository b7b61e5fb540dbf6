//! Holds alarms back after the loop was away, until the events that came meanwhile have been handled.
//!
//! A daemon that was stopped (by SIGSTOP, or because the machine was suspended or gave it no processor) finds all its
//! deadlines over when it goes on, and at the same time answers that came before them. So each turn measures for how
//! long the loop was away: the part of the time since the previous turn in which it neither waited as intended nor
//! handled events. If that is longer than [`LATE`], alarms are held back for the same time again. They are held back
//! for [`HOLD_AFTER_STOP`] if it is longer than [`STOPPED`], or if the poll shows that the process was stopped. In that
//! time everything that has arrived is read, in as many turns as it takes, and a process that could not go on without
//! the loop (a worker that has filled its pipe) can catch up. If one poll could not report all events, another poll
//! comes before alarms go off.
//!
//! Invariant: alarms are held back once and then go off, however late they have become. A loop that never gets enough
//! processor time is late, and does not stand still.

use std::time::{Duration, Instant};

/// On a busy machine the loop is regularly late by less than this.
const LATE: Duration = Duration::from_millis(20);
/// A loop that was away for longer than this was stopped.
const STOPPED: Duration = Duration::from_millis(100);
/// Enough time for a few exchanges with each process that has waited for the loop.
const HOLD_AFTER_STOP: Duration = Duration::from_secs(1);
/// The most turns in a row in which alarms are held back because a poll was late or full.
const MAX_HELD_TURNS: u32 = 8;

/// The measurements from which the lateness of the loop is known.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    /// The time of the last turn.
    last_turn: Option<Instant>,
    /// No alarm goes off before this time.
    held_until: Option<Instant>,
    held_turns: u32,
}

/// The course of one poll.
#[derive(Debug, Clone, Copy)]
pub(super) struct Polled {
    /// The time at which the poll began; of an interrupted one, the time of its first attempt.
    pub(super) begun: Instant,
    /// The time until which the poll was to wait; `None` if it was to wait without limit.
    pub(super) until: Option<Instant>,
    /// True if the poll may have had more events to report than there was room for.
    pub(super) is_full: bool,
    /// True if the poll was interrupted, and by no signal that the loop receives: SIGCONT interrupts epoll_wait(2) in
    /// this way.
    pub(super) is_continued: bool,
}

impl Lateness {
    /// Returns the time at which the poll must end for the sake of an alarm.
    pub(super) fn next(&self, alarm: Option<Instant>) -> Option<Instant> {
        let alarm = alarm?;
        Some(self.held_until.map_or(alarm, |until| alarm.max(until)))
    }

    /// Returns true if alarms that are due may go off in this turn, whose time is `now`. Must be called once in each
    /// turn, after its events. `is_due` is true if there are any.
    pub(super) fn release_alarms(&mut self, polled: Polled, now: Instant, is_due: bool) -> bool {
        let away = self.away(polled, now);
        self.last_turn = Some(now);
        let is_late = away > LATE;
        let time = if polled.is_continued || away > STOPPED {
            HOLD_AFTER_STOP
        } else {
            away
        };
        // A new hold begins only while the last one has made no due alarm wait.
        let is_held = self.held_until.is_some_and(|until| now < until);
        if (is_late || polled.is_continued) && !is_held && self.held_turns == 0 {
            self.held_until = Some(now + time);
        }
        if is_due && (is_late || polled.is_full) && self.held_turns < MAX_HELD_TURNS {
            self.held_turns += 1;
            return false;
        }
        if self.held_until.is_some_and(|until| now < until) {
            return false;
        }
        (self.held_until, self.held_turns) = (None, 0);
        true
    }

    /// Returns the time in which the loop neither waited as intended nor handled events.
    fn away(&self, polled: Polled, now: Instant) -> Duration {
        let Polled { begun, until, .. } = polled;
        let working = begun.saturating_duration_since(self.last_turn.unwrap_or(begun));
        let waited_until = until.map_or(now, |until| until.clamp(begun.min(now), now));
        working + now.saturating_duration_since(waited_until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop with one alarm. Times are in milliseconds from its start.
    struct Loop {
        lateness: Lateness,
        start: Instant,
        alarm: Instant,
        is_continued: bool,
    }

    impl Loop {
        fn new(alarm: u64) -> Self {
            let start = Instant::now();
            Loop {
                lateness: Lateness::default(),
                start,
                alarm: start + Duration::from_millis(alarm),
                is_continued: false,
            }
        }

        fn at(&self, milliseconds: u64) -> Instant {
            self.start + Duration::from_millis(milliseconds)
        }

        fn next(&self) -> u128 {
            (self.lateness.next(Some(self.alarm)).unwrap() - self.start).as_millis()
        }

        /// Runs one turn at `now` whose poll began at `begun`. Returns true if alarms may go off.
        fn turn(&mut self, begun: u64, now: u64) -> bool {
            self.turn_with(begun, now, false)
        }

        fn turn_with(&mut self, begun: u64, now: u64, is_full: bool) -> bool {
            let polled = Polled {
                begun: self.at(begun),
                until: self.lateness.next(Some(self.alarm)),
                is_full,
                is_continued: self.is_continued,
            };
            let is_due = self.alarm <= self.at(now);
            self.lateness.release_alarms(polled, self.at(now), is_due)
        }
    }

    #[test]
    fn an_alarm_goes_off_when_it_is_due() {
        let mut turning = Loop::new(1000);
        assert_eq!(turning.next(), 1000);
        turning.turn(0, 400);
        assert!(turning.turn(401, 1001), "a poll may be a little late");
    }

    #[test]
    fn waiting_events_are_handled_before_alarms_that_fell_due_meanwhile() {
        let mut turning = Loop::new(1000);
        turning.turn(0, 10);
        assert!(!turning.turn(10, 1090));
        assert_eq!(turning.next(), 1180, "for as long again");
        assert!(!turning.turn(1091, 1092));
        assert!(!turning.turn(1093, 1179));
        assert!(turning.turn(1179, 1180));
        assert_eq!(turning.next(), 1000, "and is not held back any more");
    }

    #[test]
    fn alarms_are_held_back_for_a_second_after_a_stop() {
        let mut turning = Loop::new(1000);
        turning.turn(0, 10);
        assert!(!turning.turn(10, 1101));
        assert_eq!(turning.next(), 2101);
        turning = Loop::new(1000);
        assert!(!turning.turn(10, 3_600_000));
        assert_eq!(turning.next(), 3_601_000);
    }

    /// The process may be stopped at any place.
    #[test]
    fn a_stop_while_the_loop_works_counts_as_well() {
        let mut turning = Loop::new(1000);
        turning.turn(0, 10);
        assert!(!turning.turn(1500, 1500));
        assert!(turning.turn(1501, 2500));
    }

    #[test]
    fn a_second_stop_while_alarms_are_held_back_is_noticed_too() {
        let mut turning = Loop::new(1000);
        turning.turn(0, 10);
        assert!(!turning.turn(10, 2000));
        assert!(!turning.turn(2001, 9000));
        assert!(turning.turn(9001, 9001));
    }

    /// The length of this stop is not known.
    #[test]
    fn sigcont_counts_as_a_stop_even_if_the_loop_is_not_late() {
        for continued in [600, 1001] {
            let mut turning = Loop::new(1000);
            turning.turn(0, 10);
            turning.is_continued = true;
            turning.turn(10, continued);
            turning.is_continued = false;
            assert_eq!(turning.next(), u128::from(continued + 1000));
            assert!(!turning.turn(continued, continued + 999));
            assert!(turning.turn(continued + 999, continued + 1000));
        }
    }

    #[test]
    fn a_poll_that_was_full_is_followed_by_another() {
        let mut turning = Loop::new(1000);
        turning.turn(0, 999);
        assert!(!turning.turn_with(1000, 1000, true));
        assert!(turning.turn(1001, 1001));
    }

    /// Such a loop is late and goes on all the same.
    #[test]
    fn a_loop_that_is_always_late_or_always_full_has_alarms_all_the_same() {
        for is_full in [false, true] {
            let mut turning = Loop::new(1000);
            let gone_off = (1..200).filter(|turn| {
                let begun = 900 + turn * 100;
                turning.turn_with(begun, begun + 50, is_full)
            });
            assert!(gone_off.count() > 15, "full: {is_full}");
        }
    }

    #[test]
    fn each_of_several_stops_is_noticed() {
        let mut turning = Loop::new(10_000);
        turning.turn(0, 10);
        turning.turn(1000, 1000);
        turning.turn(1001, 10_200);
        assert_eq!(turning.next(), 11_200);
    }

    /// A worker that could not go on without the loop has little time left.
    #[test]
    fn alarms_due_soon_after_a_stop_are_held_back_and_later_ones_are_not() {
        let mut turning = Loop::new(5500);
        turning.turn(0, 10);
        turning.turn(4900, 4900);
        assert_eq!(turning.next(), 5900);
        assert!(!turning.turn(4901, 5501));
        assert!(turning.turn(5502, 5900));
        let mut turning = Loop::new(10_000);
        turning.turn(0, 10);
        turning.turn(5000, 5001);
        assert_eq!(turning.next(), 10_000);
        assert!(turning.turn(5002, 10_000));
    }
}
