//! Lines of standard error that repeat the lines of lost workers. A worker that answers a request and then fails, in
//! the same way after each restart, would fill the log, because it is started again without a delay.
//!
//! The last lines of a worker are remembered ([`Said`]) until it is lost. The lines of lost workers are counted
//! ([`Echoes`]): a line that several workers have left behind within [`MEMORY`] is an echo, and so is the same line of
//! any worker from then on. The shell logs a few echoes and counts the others. A pool that has lost only one worker, or
//! none for a while, has no echoes.
//!
//! The lines of workers that have not answered yet are compared more closely ([`repeats`](super::repeats)), and come
//! here when they are to be logged. The memory is bounded: a number for each line ([`gist`](super::gist)), [`LAST`] of
//! a worker and [`MOST`] of all. Pure: the time is an argument.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The number of a worker's last lines that are remembered.
const LAST: usize = 32;
/// The number of lines of lost workers that are remembered.
const MOST: usize = 256;
/// The time for which a line is remembered after the last loss of a worker with it.
const MEMORY: Duration = Duration::from_secs(60);
/// The number of lost workers from which on their common line is an echo.
const SEVERAL: u32 = 2;

/// The last lines of one worker.
#[derive(Debug, Default)]
pub(super) struct Said(VecDeque<u64>);

/// The lines that lost workers of a pool have left behind.
#[derive(Debug, Default)]
pub(super) struct Echoes(HashMap<u64, Left>);

#[derive(Debug)]
struct Left {
    workers: u32,
    last: Instant,
}

impl Said {
    fn add(&mut self, gist: u64) {
        if self.0.contains(&gist) {
            return;
        }
        if self.0.len() == LAST {
            self.0.pop_front();
        }
        self.0.push_back(gist);
    }
}

impl Echoes {
    /// Takes a line that a worker has written. Returns true if it is an echo.
    pub(super) fn hear(&self, said: &mut Said, gist: u64, now: Instant) -> bool {
        said.add(gist);
        let left = self.0.get(&gist);
        left.is_some_and(|left| left.workers >= SEVERAL && !left.is_over(now))
    }

    /// Takes the lines of a worker that is lost.
    pub(super) fn lost(&mut self, said: &mut Said, now: Instant) {
        for gist in std::mem::take(&mut said.0) {
            if self.0.len() == MOST && !self.0.contains_key(&gist) {
                self.0.retain(|_, left| !left.is_over(now));
                if self.0.len() == MOST {
                    return;
                }
            }
            let left = self.0.entry(gist).or_insert(Left { workers: 0, last: now });
            let before = if left.is_over(now) { 0 } else { left.workers };
            *left = Left {
                workers: before.saturating_add(1),
                last: now,
            };
        }
    }

    /// Forgets all lines, so that later ones are not compared with them.
    pub(super) fn end(&mut self) {
        self.0.clear();
    }
}

impl Left {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) > MEMORY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets a worker write these lines and be lost, and returns the echoes among them.
    fn flaps(echoes: &mut Echoes, lines: &[u64], now: Instant) -> Vec<u64> {
        let mut said = Said::default();
        let echo = lines.iter().filter(|line| echoes.hear(&mut said, **line, now));
        let echo = echo.copied().collect();
        echoes.lost(&mut said, now);
        echo
    }

    #[test]
    fn a_line_of_several_lost_workers_is_an_echo_until_no_worker_was_lost_with_it_for_a_while() {
        let (mut echoes, now) = (Echoes::default(), Instant::now());
        assert!(flaps(&mut echoes, &[1, 1, 2], now).is_empty());
        assert!(flaps(&mut echoes, &[1, 2], now).is_empty());
        assert_eq!(flaps(&mut echoes, &[1, 3, 2], now), [1, 2]);
        let later = now + MEMORY;
        assert_eq!(flaps(&mut echoes, &[1], later), [1]);
        assert!(flaps(&mut echoes, &[2], later + MEMORY).is_empty());
        assert_eq!(flaps(&mut echoes, &[1], later + MEMORY), [1]);
        let much_later = later + MEMORY * 3;
        assert!(flaps(&mut echoes, &[1], much_later).is_empty());
        assert!(flaps(&mut echoes, &[1], much_later).is_empty());
        assert_eq!(flaps(&mut echoes, &[1], much_later), [1]);
        echoes.end();
        assert!(flaps(&mut echoes, &[1], much_later).is_empty());
    }

    #[test]
    fn a_worker_that_repeats_itself_and_lives_is_no_echo() {
        let (mut echoes, now, mut said) = (Echoes::default(), Instant::now(), Said::default());
        flaps(&mut echoes, &[7], now);
        assert!((0..1000).all(|_| !echoes.hear(&mut said, 7, now)));
    }

    #[test]
    fn memory_is_bounded_and_old_lines_make_room() {
        let (mut echoes, now, mut said) = (Echoes::default(), Instant::now(), Said::default());
        assert!((0..1000).all(|line| !echoes.hear(&mut said, line, now)));
        assert_eq!(said.0.len(), LAST);
        for line in 0..1000 {
            flaps(&mut echoes, &[line], now);
        }
        assert_eq!(echoes.0.len(), MOST);
        let later = now + MEMORY * 2;
        let told: Vec<_> = (0..3).map(|_| flaps(&mut echoes, &[5000], later).len()).collect();
        assert_eq!(told, [0, 0, 1]);
    }
}
