//! Identical events are logged a few times, then counted: a flood costs its sender, not the log.
//!
//! Each topic has a window: the first few events in it are let through, the rest are counted, and the first event after
//! it carries the count of those left out before. Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
const PER_WINDOW: u32 = 5;

/// What to do with an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Log it, and say how many like it were left out since the last one.
    Log {
        /// 0: none.
        left_out: u64,
    },
    /// Only count it.
    LeaveOut,
}

/// Events by topic; the number of topics is the caller's to bound.
#[derive(Debug)]
pub struct Throttle<T> {
    windows: HashMap<T, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    logged: u32,
    left_out: u64,
}

impl<T> Default for Throttle<T> {
    fn default() -> Self {
        Throttle {
            windows: HashMap::new(),
        }
    }
}

impl<T: Eq + Hash + Copy> Throttle<T> {
    /// An event on this topic has come.
    pub fn admit(&mut self, topic: T, now: Instant) -> Verdict {
        let window = self.windows.entry(topic).or_insert(Window {
            began: now,
            logged: 0,
            left_out: 0,
        });
        if now.saturating_duration_since(window.began) >= WINDOW {
            (window.began, window.logged) = (now, 0);
        }
        if window.logged == PER_WINDOW {
            window.left_out += 1;
            return Verdict::LeaveOut;
        }
        window.logged += 1;
        Verdict::Log {
            left_out: std::mem::take(&mut window.left_out),
        }
    }

    /// Takes out the counts of topics whose window is over: nothing came after them that would have carried their count.
    pub fn take_overdue(&mut self, now: Instant) -> Vec<(T, u64)> {
        let over = |window: &Window| now.saturating_duration_since(window.began) >= WINDOW;
        let told = self
            .windows
            .iter()
            .filter(|(_, window)| over(window) && window.left_out > 0);
        let told = told.map(|(topic, window)| (*topic, window.left_out)).collect();
        self.windows.retain(|_, window| !over(window));
        told
    }

    /// Takes out all counts: there will be no other events.
    pub fn drain(&mut self) -> Vec<(T, u64)> {
        let windows = std::mem::take(&mut self.windows).into_iter();
        let left_out = windows.filter(|(_, window)| window.left_out > 0);
        left_out.map(|(topic, window)| (topic, window.left_out)).collect()
    }

    /// When [`take_overdue`](Self::take_overdue) may have something to tell.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.windows
            .values()
            .filter(|window| window.left_out > 0)
            .map(|window| window.began + WINDOW)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_the_count_is_reported() {
        let (start, mut throttle) = (Instant::now(), Throttle::default());
        let logged = (0..100)
            .filter(|_| throttle.admit("full", start) != Verdict::LeaveOut)
            .count();
        assert_eq!(logged, 5);
        assert_eq!(throttle.admit("other", start), Verdict::Log { left_out: 0 });
        assert_eq!(throttle.next_deadline(), Some(start + WINDOW));
        assert_eq!(throttle.admit("full", start + WINDOW), Verdict::Log { left_out: 95 });
    }

    #[test]
    fn a_count_without_a_later_event_is_reported_once() {
        let (start, mut throttle) = (Instant::now(), Throttle::default());
        for _ in 0..7 {
            throttle.admit("full", start);
        }
        assert_eq!(throttle.take_overdue(start), []);
        assert_eq!(throttle.take_overdue(start + WINDOW), [("full", 2)]);
        assert_eq!(throttle.take_overdue(start + WINDOW), []);
        assert_eq!(throttle.next_deadline(), None);
        for _ in 0..7 {
            throttle.admit("full", start);
        }
        assert_eq!((throttle.drain(), throttle.drain()), (vec![("full", 2)], vec![]));
    }
}
