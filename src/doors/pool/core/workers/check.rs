//! Probes: a question with a known answer, which catches a worker that answers promptly and wrongly.
//!
//! A worker that is started while the policy wants probes is asked before it serves a client ([`CheckKind::Initial`]),
//! and again about every interval while it serves ([`CheckKind::Periodic`]). Until it has answered it is given nothing.
//! A worker that answers wrongly, not in time, or not at all fails as
//! [`Restart::Quarantined`](super::super::Restart::Quarantined): its process is ended, and its place tries another one
//! with growing delays (`core/places/respawn.rs`), at least one tick, until one passes. A successor has to pass before
//! it takes over, so that a generation that fails leaves the one before it in service.
//!
//! Requests come first: a probe of a worker that serves is put off while a request waits or the others are all at work,
//! to twice its interval; and of the serving workers no more than an eighth (but one) are away for it at a time. A
//! worker that has several requests in hand is given no more from then on, until it has answered them and is asked.
//!
//! The question and the answer are the shell's; so is the question for a worker that was started before the operator
//! changed it.

use std::time::{Duration, Instant};

/// The number of places of which one may be without its worker because that is probed.
pub(super) const SHARE: usize = 8;
/// A probe that is put off is thought of again after this part of its interval.
const PUT_OFF: u32 = 10;

/// The kind of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum CheckKind {
    /// The worker has never been asked and does not serve yet.
    Initial,
    /// The worker serves.
    Periodic,
}

/// The time of a serving worker's next probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct NextCheck {
    interval: Duration,
    /// The time when that is thought of.
    at: Instant,
    /// From then on the worker is probed as soon as it is free, though requests wait.
    latest: Instant,
}

impl NextCheck {
    pub(super) fn new(interval: Duration, now: Instant) -> Self {
        NextCheck {
            interval,
            at: now + interval,
            latest: now + 2 * interval,
        }
    }

    /// The next probe comes after this time, which is about the interval.
    pub(super) fn plan(&mut self, time: Duration, now: Instant) {
        (self.at, self.latest) = (now + time, now + 2 * time);
    }

    pub(super) fn put_off(&mut self, now: Instant) {
        self.at = now + self.interval / PUT_OFF;
    }

    pub(super) fn interval(self) -> Duration {
        self.interval
    }

    pub(super) fn at(self) -> Instant {
        self.at
    }

    pub(super) fn is_due(self, now: Instant) -> bool {
        self.at <= now
    }

    pub(super) fn is_overdue(self, now: Instant) -> bool {
        self.latest <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::pool::core::dispatcher::testing::World;
    use crate::doors::pool::core::{
        Action, AfterReply, Assignment, ClientId, Dispatcher, Event, Fault, Inspection, ProbeResult, Replacement,
        ReplyTo, Restart, Status, StopMode, WorkerId,
    };
    use crate::doors::pool::options::Policy;

    const INTERVAL: Duration = Duration::from_secs(60);

    struct Pool {
        now: Instant,
        dispatcher: Dispatcher,
        actions: Vec<Action>,
    }

    impl Pool {
        fn new(workers: usize) -> Self {
            let now = Instant::now();
            let policy = Policy {
                probe_interval: Some(INTERVAL),
                queue_timeout: Duration::from_secs(100_000),
                ..Policy::for_tests(workers)
            };
            let dispatcher = Dispatcher::new(policy, now, 1);
            let mut pool = Pool {
                now,
                dispatcher,
                actions: Vec::new(),
            };
            pool.fetch();
            pool
        }

        /// One whose worker takes several requests at once, and has passed.
        fn concurrent() -> (Self, WorkerId) {
            let mut pool = Pool::new(1);
            let policy = Policy {
                concurrency: Some(2),
                ..pool.dispatcher.policy().clone()
            };
            pool.tell(Event::Reconfigure(Box::new(policy)));
            let worker = pool.start();
            pool.tell(Event::Probed(worker, ProbeResult::Passed));
            (pool, worker)
        }

        /// A pool whose workers have all passed.
        fn serving(workers: usize) -> (Self, Vec<WorkerId>) {
            let mut pool = Pool::new(workers);
            let started: Vec<WorkerId> = (0..workers).map(|_| pool.start()).collect();
            for worker in &started {
                pool.tell(Event::Probed(*worker, ProbeResult::Passed));
            }
            pool.actions.clear();
            (pool, started)
        }

        /// Every worker that is inspected is in step.
        fn fetch(&mut self) {
            while let Some(action) = self.dispatcher.next_action() {
                match action {
                    Action::Inspect(worker) => self
                        .dispatcher
                        .handle(self.now, Event::Inspected(worker, Inspection::InStep)),
                    action => self.actions.push(action),
                }
            }
        }

        /// The next of these actions, which is taken out.
        fn next<T>(&mut self, wanted: impl Fn(&Action) -> Option<T>) -> Option<T> {
            let (at, found) = self
                .actions
                .iter()
                .enumerate()
                .find_map(|(at, action)| Some((at, wanted(action)?)))?;
            self.actions.remove(at);
            Some(found)
        }

        fn asked(&mut self) -> Option<WorkerId> {
            self.next(|action| match action {
                Action::Probe { worker, .. } => Some(*worker),
                _ => None,
            })
        }

        fn given(&mut self) -> Option<WorkerId> {
            self.next(|action| match action {
                Action::Assign(Assignment { worker, .. }) => Some(*worker),
                _ => None,
            })
        }

        fn delay(&mut self) -> Option<Duration> {
            self.next(|action| match action {
                Action::Replaced(Replacement { reason, delay, .. }) => {
                    assert_eq!(*reason, Restart::Quarantined);
                    *delay
                }
                _ => None,
            })
        }

        /// Starts the next process that is to be started; it is asked before anything else.
        fn start(&mut self) -> WorkerId {
            let worker = self.next(|action| match action {
                Action::Spawn(worker) => Some(*worker),
                _ => None,
            });
            let worker = worker.expect("a process is wanted");
            self.tell(Event::Started(worker));
            self.tell(Event::Ready(worker));
            assert_eq!(self.asked(), Some(worker));
            worker
        }

        fn request(&mut self) {
            let (client, size) = (ClientId(1), 80);
            self.tell(Event::Request { client, size });
        }

        fn reply(&mut self, worker: WorkerId) {
            let after = AfterReply::InStep;
            self.tell(Event::Reply {
                worker,
                to: ReplyTo::Oldest,
                after,
            });
        }

        /// While others wait it is watched for a moment after so long a time at work.
        fn reply_and_be_watched(&mut self, worker: WorkerId) {
            self.reply(worker);
            self.pass(Duration::from_millis(20));
        }

        fn status(&self) -> Vec<Status> {
            self.dispatcher.slots().map(|slot| slot.status).collect()
        }
    }

    impl World for Pool {
        fn dispatcher(&self) -> &Dispatcher {
            &self.dispatcher
        }

        fn clock(&mut self) -> &mut Instant {
            &mut self.now
        }

        fn tell(&mut self, event: Event) {
            self.dispatcher.handle(self.now, event);
            self.fetch();
        }
    }

    #[test]
    fn a_new_worker_serves_once_it_has_passed() {
        let mut pool = Pool::new(1);
        let worker = pool.start();
        pool.request();
        assert_eq!((pool.given(), pool.status()), (None, vec![Status::Starting]));
        pool.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(pool.given(), Some(worker));
        assert_eq!(pool.dispatcher.counters().probes, 1);
        assert_eq!(pool.dispatcher.counters().total, 1, "a probe is no request");
    }

    #[test]
    fn a_worker_that_fails_is_replaced_ever_more_slowly_until_one_passes() {
        let mut pool = Pool::new(1);
        pool.request();
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            let worker = pool.start();
            pool.tell(Event::Probed(worker, ProbeResult::Failed));
            let delay = Duration::from_secs(seconds);
            assert_eq!(pool.delay(), Some(delay));
            assert!(pool.actions.contains(&Action::Stop(worker, StopMode::Terminate)));
            assert_eq!(pool.status(), [Status::Quarantined]);
            pool.tell(Event::Exited(worker));
            pool.pass(delay);
        }
        assert_eq!(pool.dispatcher.status_counts().quarantined, 1);
        assert_eq!(pool.given(), None);
        let worker = pool.start();
        pool.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(pool.given(), Some(worker));
        assert!(pool.actions.contains(&Action::QuarantineEnded(worker)));
        assert_eq!(pool.status(), [Status::Busy]);
        assert_eq!(pool.dispatcher.counters().restarts.quarantined, 7);
    }

    #[test]
    fn whatever_befalls_a_worker_in_its_probe_is_a_failure() {
        let fates: [fn(&mut Pool, WorkerId); 6] = [
            |pool, worker| pool.tell(Event::Probed(worker, ProbeResult::Failed)),
            |pool, worker| pool.tell(Event::Exited(worker)),
            |pool, worker| pool.tell(Event::Broken(worker, Fault::OutputClosed)),
            |pool, worker| pool.tell(Event::Broken(worker, Fault::ReplyTooLong(ReplyTo::Oldest))),
            |pool, worker| pool.reply(worker),
            |pool, _| pool.pass(Duration::from_secs(3600)),
        ];
        for fate in fates {
            let mut pool = Pool::new(1);
            let worker = pool.start();
            fate(&mut pool, worker);
            assert_eq!(pool.delay(), Some(Duration::from_secs(2)));
            assert_eq!(pool.status(), [Status::Quarantined]);
            assert_eq!(pool.dispatcher.counters().restarts.quarantined, 1);
        }
    }

    #[test]
    fn a_free_worker_is_asked_again_and_not_used_meanwhile() {
        let (mut pool, workers) = Pool::serving(1);
        pool.pass(INTERVAL - INTERVAL / 5);
        assert_eq!(pool.asked(), None);
        pool.pass(INTERVAL);
        assert_eq!(pool.asked(), Some(workers[0]));
        pool.request();
        assert_eq!((pool.given(), pool.status()), (None, vec![Status::Busy]));
        pool.tell(Event::Probed(workers[0], ProbeResult::Passed));
        assert_eq!(pool.given(), Some(workers[0]));
    }

    #[test]
    fn a_serving_worker_that_fails_is_replaced_and_its_place_stays_empty_for_a_while() {
        let (mut pool, workers) = Pool::serving(1);
        pool.pass(2 * INTERVAL);
        assert_eq!(pool.asked(), Some(workers[0]));
        pool.tell(Event::Probed(workers[0], ProbeResult::Failed));
        pool.request();
        assert_eq!(pool.delay(), Some(Duration::from_secs(2)));
        pool.pass(Duration::from_secs(2));
        let next = pool.start();
        assert_eq!(pool.given(), None);
        pool.tell(Event::Probed(next, ProbeResult::Passed));
        assert_eq!(pool.given(), Some(next));
    }

    #[test]
    fn of_eight_workers_one_is_away_at_a_time() {
        let (mut pool, workers) = Pool::serving(8);
        pool.pass(3 * INTERVAL);
        let first = pool.asked().expect("one is due");
        assert_eq!(pool.asked(), None);
        // The others are put off and not forgotten.
        let mut asked = vec![first];
        while asked.len() < workers.len() {
            let last = *asked.last().unwrap();
            pool.tell(Event::Probed(last, ProbeResult::Passed));
            pool.pass(INTERVAL / PUT_OFF);
            asked.push(pool.asked().expect("the next is due"));
        }
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, workers);
    }

    #[test]
    fn the_last_free_one_is_left_to_the_requests_for_a_while() {
        let (mut pool, workers) = Pool::serving(2);
        pool.request();
        let busy = pool.given().unwrap();
        let free = *workers.iter().find(|worker| **worker != busy).unwrap();
        pool.pass(INTERVAL + INTERVAL / 2);
        assert_eq!(pool.asked(), None);
        // Until it is too long, whatever the other does.
        pool.pass(INTERVAL);
        assert_eq!(pool.asked(), Some(free));
    }

    #[test]
    fn a_busy_worker_is_asked_when_no_request_waits_and_at_last_though_some_do() {
        let (mut pool, workers) = Pool::serving(1);
        let worker = workers[0];
        pool.request();
        pool.request();
        pool.pass(INTERVAL + INTERVAL / 5);
        assert_eq!(pool.given(), Some(worker));
        pool.reply_and_be_watched(worker);
        assert_eq!(
            (pool.asked(), pool.given()),
            (None, Some(worker)),
            "a waiting request comes first"
        );
        pool.pass(INTERVAL / PUT_OFF);
        pool.reply_and_be_watched(worker);
        assert_eq!(pool.asked(), Some(worker), "no request waits");
        pool.tell(Event::Probed(worker, ProbeResult::Passed));
        (0..50).for_each(|_| pool.request());
        let replies = (1..50).find(|_| {
            assert_eq!(pool.given(), Some(worker));
            pool.pass(INTERVAL / 4);
            pool.reply_and_be_watched(worker);
            pool.asked().is_some()
        });
        let replies = replies.expect("it is asked before all have been served");
        assert!(
            (7..=10).contains(&replies),
            "at twice the interval, not after {replies} replies"
        );
    }

    #[test]
    fn a_successor_that_fails_leaves_its_predecessor_in_service() {
        let (mut pool, workers) = Pool::serving(1);
        pool.tell(Event::Roll);
        for seconds in [2, 4, 8] {
            let successor = pool.start();
            pool.request();
            assert_eq!(pool.given(), Some(workers[0]));
            pool.reply(workers[0]);
            pool.tell(Event::Probed(successor, ProbeResult::Failed));
            assert_eq!(pool.dispatcher.in_service(0), Some(workers[0]));
            assert_eq!(
                (pool.status(), pool.dispatcher.status_counts().quarantined),
                (vec![Status::Available], 1)
            );
            let delay = pool.delay();
            assert_eq!(delay, Some(Duration::from_secs(seconds)));
            pool.pass(Duration::from_secs(seconds));
        }
        let successor = pool.start();
        pool.tell(Event::Probed(successor, ProbeResult::Passed));
        assert!(pool.actions.contains(&Action::Stop(workers[0], StopMode::EndInput)));
        assert!(pool.actions.contains(&Action::Rolled));
        pool.request();
        assert_eq!(pool.given(), Some(successor));
    }

    #[test]
    fn a_worker_that_was_started_without_a_probe_is_never_asked() {
        let mut pool = Pool::new(1);
        let policy = |probe_interval| {
            let policy = Policy {
                probe_interval,
                ..Policy::for_tests(1)
            };
            Event::Reconfigure(Box::new(policy))
        };
        pool.tell(policy(None));
        let worker = pool.next(|action| match action {
            Action::Spawn(worker) => Some(*worker),
            _ => None,
        });
        let worker = worker.unwrap();
        pool.tell(Event::Started(worker));
        pool.tell(policy(Some(INTERVAL)));
        pool.tell(Event::Ready(worker));
        pool.pass(10 * INTERVAL);
        assert_eq!((pool.asked(), pool.status()), (None, vec![Status::Available]));
    }
    /// Or it would never be asked where there is always something to do: it takes the next before it has answered the
    /// last.
    #[test]
    fn a_worker_with_several_requests_is_left_to_run_dry_when_its_probe_is_overdue() {
        let (mut pool, worker) = Pool::concurrent();
        pool.request();
        let mut given = std::collections::VecDeque::new();
        for _ in 0..40 {
            pool.request();
            while let Some(channel) = pool.next(|action| match action {
                Action::Assign(Assignment { channel, .. }) => *channel,
                _ => None,
            }) {
                given.push_back(channel);
            }
            pool.pass(INTERVAL / 10);
            let Some(channel) = given.pop_front() else { break };
            let (to, after) = (ReplyTo::Channel(channel), AfterReply::InStep);
            pool.tell(Event::Reply { worker, to, after });
        }
        assert_eq!(pool.asked(), Some(worker));
        pool.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!((pool.given(), pool.given()), (Some(worker), Some(worker)));
    }
}
