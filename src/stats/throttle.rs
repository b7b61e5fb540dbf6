//! Repeated events are logged a few times and then counted, so that a flood does not fill the log.
//!
//! Each topic has a window of time. The first few events in it are logged, the others are counted, and the first event
//! after it carries the count of the omitted ones. Pure: the time is an argument.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(10);
const PER_WINDOW: u32 = 5;

/// The decision about one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Log the event, and with it the number of events on its topic that were left out since the last logged one.
    Log {
        /// 0 if none were left out.
        left_out: u64,
    },
    /// Only count the event.
    LeaveOut,
}

/// Counts events by topic. The caller must bound the number of topics.
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
    /// Counts an event on a topic and decides whether it is logged.
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

    /// Removes and returns the counts of topics whose window is over and on which no later event came that would have
    /// carried the count.
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

    /// Removes and returns all counts. For the end of a service, after which no events come.
    pub fn drain(&mut self) -> Vec<(T, u64)> {
        let windows = std::mem::take(&mut self.windows).into_iter();
        let left_out = windows.filter(|(_, window)| window.left_out > 0);
        left_out.map(|(topic, window)| (topic, window.left_out)).collect()
    }

    /// Returns the time at which [`take_overdue`](Self::take_overdue) may next return a count.
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
