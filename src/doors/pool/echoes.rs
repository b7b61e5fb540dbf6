//! Lines of standard error that echo those of lost workers: a worker that answers a request and fails in the same way
//! behind it, at each restart, would fill the log, for no pause comes before its next start.
//!
//! The last lines of a worker are remembered ([`Said`]) until it is known what becomes of it. Those of lost workers are
//! counted ([`Echoes`]): a line that several have left behind within [`MEMORY`] is an echo, and so are lines of any
//! worker that say the same from then on. Of these few are told and the others counted, which is for the shell to do. A
//! pool that has lost one worker, or none for a while, has none.
//!
//! The lines of workers that have answered nothing are compared more closely ([`repeats`](super::repeats)), and come
//! here when they are to be told. Held: a number a line ([`gist`](super::gist)), [`LAST`] of a worker and [`MOST`] of
//! all. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

/// The number of a worker's last lines that are remembered.
const LAST: usize = 32;
/// The number of lines of lost workers that are remembered.
const MOST: usize = 256;
/// For how long, since a worker was last lost with them.
const MEMORY: Duration = Duration::from_secs(60);
/// The number of workers that have to be lost with a line.
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
    /// A worker has a line to tell. Whether it is an echo.
    pub(super) fn hear(&self, said: &mut Said, gist: u64, now: Instant) -> bool {
        said.add(gist);
        let left = self.0.get(&gist);
        left.is_some_and(|left| left.workers >= SEVERAL && !left.is_over(now))
    }

    /// A worker is lost that has said this.
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

    /// Forgets all: lines from now on are not to be compared with earlier ones.
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

    /// A worker that says this and is lost; which of it was an echo.
    fn flaps(echoes: &mut Echoes, lines: &[u64], now: Instant) -> Vec<u64> {
        let mut said = Said::default();
        let echo = lines.iter().filter(|line| echoes.hear(&mut said, **line, now));
        let echo = echo.copied().collect();
        echoes.lost(&mut said, now);
        echo
    }

    #[test]
    fn what_several_have_left_behind_is_an_echo_until_none_was_lost_with_it_for_a_while() {
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
    fn memory_is_bounded_and_what_is_over_makes_room() {
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
