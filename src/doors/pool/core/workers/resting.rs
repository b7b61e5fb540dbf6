//! Workers that are given nothing for a while after each answer (`--rest`), so that a line too many that they print
//! behind it meets no request, though all others are busy or there are no others.
//!
//! A resting worker has answered and has nothing in hand: a request waits in the queue rather. What it writes meanwhile
//! is an answer to nothing, and it is replaced for it. When its time is over it is free. Workers that say a number with
//! each answer (`--concurrency`) never rest: a stray line is known by its number.
//!
//! All rest for the same time, so that the first to begin is the first to end: a queue, and none is searched for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::doors::pool::core::event::WorkerId;

/// The resting workers, the one that has rested longest first; and some that did and were lost meanwhile.
#[derive(Debug, Default)]
pub(super) struct Resting {
    workers: VecDeque<(Instant, WorkerId)>,
}

impl Resting {
    pub(super) fn push(&mut self, since: Instant, id: WorkerId) {
        self.workers.push_back((since, id));
    }

    /// The end of the next one's rest, which lasts for `rest`.
    pub(super) fn next_deadline(&self, rest: Duration) -> Option<Instant> {
        self.workers.front().map(|(since, _)| *since + rest)
    }

    /// Takes out a worker that has rested for long enough.
    pub(super) fn pop(&mut self, rest: Duration, now: Instant) -> Option<(Instant, WorkerId)> {
        self.next_deadline(rest).filter(|at| *at <= now)?;
        self.workers.pop_front()
    }

    #[cfg(debug_assertions)]
    pub(super) fn holds(&self, since: Instant, id: WorkerId) -> bool {
        self.workers.contains(&(since, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::pool::core::{
        Action, AfterReply, Assignment, ClientId, Dispatcher, Event, Fault, Replacement, ReplyTo, Restart,
    };
    use crate::doors::pool::options::Policy;

    const REST: Duration = Duration::from_millis(100);

    struct Pool {
        dispatcher: Dispatcher,
        start: Instant,
        clients: u64,
        told: Vec<Action>,
    }

    impl Pool {
        /// All of its workers are up.
        fn new(workers: usize, change: impl Fn(Policy) -> Policy) -> Self {
            let start = Instant::now();
            let policy = change(Policy {
                rest: REST,
                ..Policy::for_tests(workers)
            });
            let mut pool = Pool {
                dispatcher: Dispatcher::new(policy, start, 1),
                start,
                clients: 0,
                told: Vec::new(),
            };
            pool.fetch();
            for action in std::mem::take(&mut pool.told) {
                if let Action::Spawn(worker) = action {
                    pool.at(0, Event::Started(worker));
                    pool.at(0, Event::Ready(worker));
                }
            }
            pool.told.clear();
            pool
        }

        fn fetch(&mut self) {
            self.told.extend(std::iter::from_fn(|| self.dispatcher.next_action()));
        }

        /// Tells of an event at this number of milliseconds after the start.
        fn at(&mut self, at: u64, event: Event) {
            self.dispatcher.handle(self.start + Duration::from_millis(at), event);
            self.fetch();
        }

        fn ask(&mut self, at: u64) {
            let client = ClientId(self.clients);
            self.clients += 1;
            self.at(at, Event::Request { client, size: 80 });
        }

        fn answer(&mut self, at: u64, worker: WorkerId) {
            let (to, after) = (ReplyTo::Oldest, AfterReply::InStep);
            self.at(at, Event::Reply { worker, to, after });
        }

        /// The workers that have been given something since the last call.
        fn given(&mut self) -> Vec<WorkerId> {
            let told = std::mem::take(&mut self.told).into_iter();
            told.filter_map(|action| match action {
                Action::Assign(Assignment { worker, .. }) => Some(worker),
                _ => None,
            })
            .collect()
        }

        fn wanted_at(&self) -> Option<u128> {
            let at = self.dispatcher.next_deadline()?;
            Some((at - self.start).as_millis())
        }
    }

    #[test]
    fn a_request_waits_until_the_only_worker_has_rested() {
        let mut pool = Pool::new(1, |policy| policy);
        pool.ask(0);
        let worker = pool.given()[0];
        pool.ask(1);
        pool.answer(10, worker);
        assert_eq!((pool.given(), pool.wanted_at()), (vec![], Some(110)));
        pool.at(109, Event::Tick);
        assert_eq!(pool.given(), []);
        pool.at(110, Event::Tick);
        assert_eq!(pool.given(), [worker]);
    }

    #[test]
    fn others_are_given_what_comes_meanwhile() {
        let mut pool = Pool::new(2, |policy| policy);
        pool.ask(0);
        let first = pool.given()[0];
        pool.answer(10, first);
        pool.ask(10);
        let second = pool.given()[0];
        assert_ne!(first, second);
        pool.answer(20, second);
        pool.ask(30);
        assert_eq!(pool.given(), []);
        pool.at(110, Event::Tick);
        assert_eq!(pool.given(), [first]);
    }

    #[test]
    fn output_of_a_resting_worker_is_an_answer_to_nothing() {
        let mut pool = Pool::new(1, |policy| policy);
        pool.ask(0);
        let worker = pool.given()[0];
        pool.answer(10, worker);
        pool.told.clear();
        pool.ask(15);
        pool.answer(20, worker);
        let lost = pool.told.iter().any(|action| {
            matches!(action, Action::Replaced(Replacement { worker: lost, reason: Restart::Desync, .. }) if *lost == worker)
        });
        assert!(lost, "{:?}", pool.told);
        assert!(!pool.told.iter().any(|action| matches!(action, Action::Answer(_))));
        // Nor is it free when its time would have been over.
        pool.at(200, Event::Tick);
        assert_eq!(pool.given(), []);
    }

    #[test]
    fn a_worker_that_is_lost_or_stopped_while_it_rests_leaves_nothing_behind() {
        let mut pool = Pool::new(2, |policy| policy);
        pool.ask(0);
        pool.ask(0);
        let workers = pool.given();
        workers.iter().for_each(|worker| pool.answer(10, *worker));
        pool.at(20, Event::Broken(workers[0], Fault::OutputClosed));
        let smaller = Policy {
            rest: REST,
            ..Policy::for_tests(1)
        };
        pool.at(30, Event::Reconfigure(Box::new(smaller)));
        let stopped = |worker| {
            let stop = |action: &Action| matches!(action, Action::Stop(other, _) if *other == worker);
            pool.told.iter().filter(|action| stop(action)).count()
        };
        assert_eq!(
            workers.iter().map(|worker| stopped(*worker)).collect::<Vec<_>>(),
            [1, 1]
        );
        pool.at(110, Event::Tick);
        assert_eq!(pool.dispatcher.next_rest_end(), None);
    }

    #[test]
    fn a_shorter_rest_applies_to_workers_at_rest() {
        let mut pool = Pool::new(1, |policy| policy);
        pool.ask(0);
        let worker = pool.given()[0];
        pool.answer(10, worker);
        pool.ask(10);
        let policy = Policy {
            rest: Duration::ZERO,
            ..Policy::for_tests(1)
        };
        pool.at(20, Event::Reconfigure(Box::new(policy)));
        assert_eq!(pool.wanted_at(), Some(10), "which is now");
        pool.at(20, Event::Tick);
        assert_eq!(pool.given(), [worker]);
    }

    #[test]
    fn a_worker_that_says_numbers_needs_no_rest() {
        let mut pool = Pool::new(1, |policy| Policy {
            concurrency: Some(1),
            ..policy
        });
        pool.ask(0);
        let Some(Action::Assign(Assignment {
            worker,
            channel: Some(channel),
            ..
        })) = pool.told.last().copied()
        else {
            panic!("{:?}", pool.told)
        };
        pool.ask(1);
        pool.told.clear();
        let (to, after) = (ReplyTo::Channel(channel), AfterReply::InStep);
        pool.at(10, Event::Reply { worker, to, after });
        assert_eq!(pool.given(), [worker]);
    }
}
