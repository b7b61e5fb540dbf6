//! The number of places that the load wants: the pool grows under load and shrinks when idle, between `--min-workers`
//! and `--max-workers`.
//!
//! **Growing.** As many idle workers are wanted as `--spare-workers` says, and one for each request that waits; those
//! being started count as idle ones to come. What is missing is started, with three brakes:
//! - No more are in the air than are ready already (or than spare ones are wanted), nor more than [`MOST_AT_ONCE`]:
//!   while programs take long to start, the pool at most doubles each time they are up.
//! - [`PAUSE`] lies between two batches, for programs that count as ready before they are: a rush that the present
//!   workers clear in a moment starts one batch and not all there may be.
//! - While the worker of any place waits out a respawn delay, or is tried again after one, no place is opened; and the
//!   first worker of a place opened by growth has no early death for free. A program that dies at its start is thus not
//!   started any faster because requests wait for it.
//!
//! A request never waits for a start if it can be written ahead (`--pipeline`): how long the start takes is not known.
//! But what is written ahead counts as waiting here, or a pool that writes ahead would never grow.
//!
//! A worker that has one request counts as busy, also with channels left (`--concurrency`): a free one is preferred as
//! long as there is one.
//!
//! **Shrinking.** Workers idle beyond the spare ones are a surplus, and so are places in back-off while there are spare
//! ones enough. A place that has been in surplus for `--worker-idle-timeout` without a break goes, one each
//! `--alarm-interval`: first the places in back-off, then those whose workers were used least recently. They are free,
//! so no request waits for them, and none is cut off. It is the number that is watched and not the single worker, which
//! may be replaced meanwhile.
//!
//! In a pool of fixed size nothing is remembered here and there is no deadline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::workers::Headcount;
use crate::doors::pool::options::PoolSize;

/// No more starts than this are in the air because of load.
const MOST_AT_ONCE: usize = 32;
/// From one batch of starts to the next.
const PAUSE: Duration = Duration::from_millis(50);

/// The history of the load, as far as growing and shrinking depend on it. It is empty in a pool of fixed size.
#[derive(Debug, Default)]
pub(super) struct Elastic {
    /// No batch of starts before this.
    paused_until: Option<Instant>,
    /// More workers are wanted, and will be started at the end of the pause.
    resume: Option<Instant>,
    /// The times since when there has been one place too many, two, three, and so on.
    surplus: VecDeque<Instant>,
    /// No place is closed before this.
    next_closing: Option<Instant>,
}

/// The load of a pool at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// The number of free workers.
    pub(super) free: usize,
    /// The number of requests that would have a worker of their own if there were more.
    pub(super) waiting: usize,
    pub(super) workers: Headcount,
}

impl Load {
    /// Workers that are free, or will be in a moment because a probe is no work.
    fn idle(&self) -> usize {
        self.free + self.workers.probed
    }

    /// The number of workers that are missing, without regard to the limits.
    fn missing(&self, size: &PoolSize) -> usize {
        let idle = self.idle() + self.workers.coming();
        (size.spare + self.waiting).saturating_sub(idle)
    }

    /// The number of workers that may be started besides those in the air.
    fn startable(&self, size: &PoolSize) -> usize {
        let ready = self.workers.placed.saturating_sub(self.workers.unready());
        let limit = ready.max(size.spare).clamp(1, MOST_AT_ONCE);
        limit.saturating_sub(self.workers.coming())
    }

    /// The number of places that could go with enough spare ones left.
    pub(super) fn surplus(&self, size: &PoolSize) -> usize {
        let beyond_spare = self.idle().checked_sub(size.spare + self.waiting);
        let unneeded = beyond_spare.map_or(0, |beyond| beyond + self.workers.in_trouble());
        unneeded.min(self.workers.placed.saturating_sub(size.min))
    }
}

impl Elastic {
    /// Returns the number of places to be opened now.
    pub(super) fn grow(&mut self, load: &Load, size: &PoolSize, now: Instant) -> usize {
        self.resume = None;
        let vacant = size.max.saturating_sub(load.workers.placed);
        let starts = load.missing(size).min(vacant).min(load.startable(size));
        if starts == 0 || load.workers.in_trouble() > 0 {
            return 0;
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            self.resume = Some(until);
            return 0;
        }
        self.paused_until = Some(now + PAUSE);
        starts
    }

    /// Returns true if a place is to be closed now. [`note_closed`](Self::note_closed) must be called if one could be;
    /// else it is tried again after the alarm interval `alarm`.
    pub(super) fn shrink(&mut self, load: &Load, size: &PoolSize, alarm: Duration, now: Instant) -> bool {
        self.surplus.resize(load.surplus(size), now);
        let is_due = self.next_closing(size).is_some_and(|at| at <= now);
        if is_due {
            self.next_closing = Some(now + alarm);
        }
        is_due
    }

    /// The place that was longest in surplus is closed.
    pub(super) fn note_closed(&mut self) {
        self.surplus.pop_front();
    }

    /// The time when the next place in surplus goes.
    fn next_closing(&self, size: &PoolSize) -> Option<Instant> {
        let due = *self.surplus.front()? + size.idle_timeout;
        Some(self.next_closing.map_or(due, |next| next.max(due)))
    }

    /// The time when a tick is wanted.
    pub(super) fn deadline(&self, size: &PoolSize) -> Option<Instant> {
        self.next_closing(size).into_iter().chain(self.resume).min()
    }

    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self, load: &Load, size: &PoolSize, is_queue_empty: bool) {
        let may_grow = load.workers.placed < size.max && load.workers.in_trouble() == 0;
        let is_coming = load.workers.coming() + load.workers.probed > 0 || self.resume.is_some();
        assert!(
            !may_grow || is_queue_empty || is_coming,
            "a request waits, and no worker is started for it: {self:?}"
        );
        assert_eq!(
            load.surplus(size),
            self.surplus.len(),
            "what is in surplus has its time, and nothing else"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::dispatcher::testing::World;
    use super::super::{Action, AfterReply, Assignment, ClientId, Dispatcher, Event, ReplyTo, WorkerId};
    use super::*;
    use crate::doors::pool::options::{Policy, PoolSize};

    const SECOND: Duration = Duration::from_secs(1);
    const ELASTIC: PoolSize = PoolSize {
        min: 1,
        max: 8,
        spare: 1,
        idle_timeout: Duration::from_secs(60),
    };

    fn policy(workers: PoolSize) -> Policy {
        Policy {
            single_use: false,
            mode: crate::doors::pool::options::Mode::Request,
            workers,
            queue_size: 1000,
            queue_timeout: 3600 * SECOND,
            busy_timeout: 3600 * SECOND,
            retries: 0,
            pipeline: 1,
            alarm_interval: 2 * SECOND,
            ready_line: false,
            start_timeout: 600 * SECOND,
            max_requests: None,
            max_age: None,
            probe_interval: None,
            rest: Duration::ZERO,
            concurrency: None,
        }
    }

    struct Pool {
        dispatcher: Dispatcher,
        now: Instant,
        clients: u64,
        /// Told to start, and not reported on yet.
        starting: Vec<WorkerId>,
        /// In the order in which they were given something.
        busy: Vec<WorkerId>,
        grown: Vec<usize>,
        shrunk: Vec<usize>,
        gone: Vec<WorkerId>,
        rolled: bool,
    }

    impl Pool {
        fn new(policy: Policy) -> Self {
            let now = Instant::now();
            let mut pool = Pool {
                dispatcher: Dispatcher::new(policy, now, 1),
                now,
                clients: 0,
                starting: Vec::new(),
                busy: Vec::new(),
                grown: Vec::new(),
                shrunk: Vec::new(),
                gone: Vec::new(),
                rolled: false,
            };
            pool.act();
            pool
        }

        /// One whose workers are all ready and idle.
        fn ready(policy: Policy) -> Self {
            let mut pool = Self::new(policy);
            pool.come_up();
            pool
        }

        fn act(&mut self) {
            while let Some(action) = self.dispatcher.next_action() {
                match action {
                    Action::Spawn(worker) => self.starting.push(worker),
                    Action::Assign(Assignment { worker, .. }) => self.busy.push(worker),
                    Action::Grown { slot, .. } => self.grown.push(slot),
                    Action::Shrunk { slot, .. } => self.shrunk.push(slot),
                    Action::Stop(worker, _) => self.gone.push(worker),
                    Action::Rolled => self.rolled = true,
                    _ => {}
                }
            }
        }

        fn come_up(&mut self) {
            for worker in std::mem::take(&mut self.starting) {
                self.tell(Event::Started(worker));
                self.tell(Event::Ready(worker));
            }
        }

        fn die_at_start(&mut self) -> usize {
            let dying = std::mem::take(&mut self.starting);
            for worker in &dying {
                self.tell(Event::Started(*worker));
                self.tell(Event::Exited(*worker));
            }
            dying.len()
        }

        fn ask(&mut self, requests: usize) {
            for _ in 0..requests {
                let client = ClientId(self.clients);
                self.clients += 1;
                self.tell(Event::Request { client, size: 80 });
            }
        }

        fn answer(&mut self, requests: usize) {
            for worker in self.busy.drain(..requests).collect::<Vec<_>>() {
                let after = AfterReply::InStep;
                self.tell(Event::Reply {
                    worker,
                    to: ReplyTo::Oldest,
                    after,
                });
            }
        }

        fn numbers(&self) -> Vec<usize> {
            self.dispatcher.slots().map(|slot| slot.number).collect()
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
            self.act();
        }
    }

    /// As many busy at once, all answered; the pool has grown for it.
    fn after_a_rush(size: PoolSize, requests: usize) -> Pool {
        let mut pool = Pool::ready(policy(size));
        pool.ask(requests);
        while pool.busy.len() < requests || pool.dispatcher.status_counts().available < size.spare as u64 {
            pool.pass(PAUSE);
            pool.come_up();
        }
        pool.answer(requests);
        pool
    }

    #[test]
    fn it_may_begin_as_large_as_a_predecessor_was_within_its_limits() {
        for (workers, places, expected) in [
            (ELASTIC, 5, 5),
            (ELASTIC, 100, 8),
            (ELASTIC, 0, 1),
            (PoolSize::fixed(3), 5, 3),
        ] {
            let mut dispatcher = Dispatcher::new(policy(workers), Instant::now(), 1);
            dispatcher.begin_with(places);
            assert_eq!(dispatcher.places(), expected, "{workers:?} {places}");
        }
    }

    #[test]
    fn the_minimum_starts_at_once_and_a_spare_one_before_a_request_waits() {
        let mut pool = Pool::new(policy(PoolSize { min: 2, ..ELASTIC }));
        assert_eq!(pool.starting.len(), 2);
        pool.come_up();
        pool.ask(1);
        assert_eq!((pool.busy.len(), pool.grown.len()), (1, 0), "one is idle still");
        pool.ask(1);
        assert_eq!(
            (pool.busy.len(), &pool.grown[..]),
            (2, &[2][..]),
            "no request waits, and one is started"
        );
        pool.pass(SECOND);
        assert_eq!(pool.grown, [2], "it counts as idle while it starts");
        pool.come_up();
        pool.pass(SECOND);
        assert_eq!((pool.grown.len(), pool.dispatcher.counters().delayed), (1, 0));
    }

    #[test]
    fn a_rush_doubles_the_pool_and_no_more_at_a_time() {
        let mut pool = Pool::ready(policy(PoolSize {
            spare: 0,
            max: 12,
            ..ELASTIC
        }));
        pool.ask(100);
        let mut batches = vec![pool.starting.len()];
        for _ in 0..4 {
            pool.pass(SECOND);
            assert_eq!(
                pool.starting.len(),
                batches[batches.len() - 1],
                "those in the air count"
            );
            pool.come_up();
            pool.pass(SECOND);
            batches.push(pool.starting.len());
        }
        assert_eq!(batches, [1, 2, 4, 4, 0], "up to the maximum");
        assert_eq!(pool.dispatcher.places(), 12);
    }

    #[test]
    fn no_more_starts_than_the_limit_are_in_the_air() {
        let mut pool = Pool::ready(policy(PoolSize {
            min: 100,
            max: 4096,
            ..ELASTIC
        }));
        pool.ask(1000);
        pool.pass(SECOND);
        assert_eq!(pool.starting.len(), MOST_AT_ONCE);
    }

    /// A program that counts as ready at once would else bring the pool to its maximum within one turn.
    #[test]
    fn a_pause_lies_between_two_batches_and_ends_by_itself() {
        let mut pool = Pool::ready(policy(PoolSize { spare: 0, ..ELASTIC }));
        pool.ask(9);
        let begun = pool.now;
        pool.come_up();
        assert_eq!((pool.grown.len(), pool.starting.len()), (1, 0));
        assert_eq!(pool.dispatcher.next_deadline(), Some(begun + PAUSE));
        pool.pass(PAUSE);
        assert_eq!((pool.grown.len(), pool.starting.len()), (3, 2));
    }

    #[test]
    fn a_rush_that_is_over_before_the_pause_starts_no_worker_more() {
        let mut pool = Pool::ready(policy(PoolSize { spare: 0, ..ELASTIC }));
        pool.ask(9);
        pool.come_up();
        for _ in 0..9 {
            pool.answer(1);
        }
        pool.pass(SECOND);
        assert_eq!(pool.grown.len(), 1);
    }

    /// No faster than a pool that always has as many as are wanted idle here.
    #[test]
    fn a_program_that_dies_at_its_start_is_started_no_faster_because_requests_wait() {
        let starts_in_a_minute = |size| {
            let mut pool = Pool::new(policy(size));
            pool.ask(500);
            let starts = (0..600).map(|_| {
                pool.pass(SECOND / 10);
                pool.die_at_start()
            });
            (starts.sum::<usize>(), pool.dispatcher.places())
        };
        for spare in [0, 1, 16] {
            let wanted = spare.max(1);
            let (of_fixed, _) = starts_in_a_minute(PoolSize::fixed(wanted));
            let (starts, places) = starts_in_a_minute(PoolSize {
                max: 4096,
                spare,
                ..ELASTIC
            });
            assert!(starts <= of_fixed, "{starts} starts, {of_fixed} of a fixed pool");
            assert_eq!(places, wanted);
        }
    }

    #[test]
    fn while_one_place_is_in_back_off_none_is_opened() {
        let mut pool = Pool::ready(policy(ELASTIC));
        pool.ask(1);
        assert_eq!((pool.grown.len(), pool.die_at_start()), (1, 1));
        assert!(
            pool.starting.is_empty(),
            "a place opened by growth has no early death for free"
        );
        pool.ask(10);
        pool.pass(2 * SECOND);
        assert_eq!(
            (pool.grown.len(), pool.starting.len()),
            (1, 1),
            "it is tried again, alone"
        );
        pool.come_up();
        pool.pass(PAUSE);
        assert!(pool.grown.len() > 1, "all is well again");
    }

    #[test]
    fn idle_workers_end_after_their_time_one_each_tick_least_recently_used_first() {
        let mut pool = after_a_rush(ELASTIC, 5);
        assert_eq!(pool.numbers().len(), 6);
        // Idle longest is the spare one, then the others in the order of their answers.
        let order: Vec<WorkerId> = pool.dispatcher.free_workers();
        pool.pass(60 * SECOND);
        assert_eq!(pool.gone, order[..1]);
        pool.pass(2 * SECOND - Duration::from_millis(1));
        assert_eq!(pool.gone.len(), 1, "one a tick");
        pool.pass(Duration::from_millis(1));
        assert_eq!(pool.gone, order[..2]);
        pool.pass(600 * SECOND);
        assert_eq!(pool.gone, order[..5], "down to the minimum");
        assert_eq!(pool.numbers().len(), 1);
        assert_eq!(pool.dispatcher.next_deadline(), None, "nothing is left to wait for");
        let counters = pool.dispatcher.counters();
        assert_eq!((counters.grown, counters.shrunk), (5, 5));
    }

    #[test]
    fn spare_ones_stay_above_the_minimum() {
        let mut pool = after_a_rush(PoolSize { spare: 3, ..ELASTIC }, 5);
        pool.pass(3600 * SECOND);
        assert_eq!((pool.numbers().len(), pool.dispatcher.next_deadline()), (3, None));
    }

    #[test]
    fn workers_that_were_needed_in_the_meantime_stay() {
        let mut pool = after_a_rush(ELASTIC, 5);
        pool.pass(30 * SECOND);
        // Three of six at work, for a moment: beside them and the spare one two were not needed.
        pool.ask(3);
        pool.answer(3);
        pool.pass(40 * SECOND);
        assert_eq!(pool.numbers().len(), 4, "two go");
        pool.pass(60 * SECOND);
        assert_eq!(pool.numbers().len(), 1, "and the others after a time of their own");
    }

    #[test]
    fn a_pool_that_works_at_its_size_keeps_it() {
        let mut pool = after_a_rush(ELASTIC, 5);
        for _ in 0..100 {
            pool.ask(5);
            pool.pass(20 * SECOND);
            pool.answer(5);
            pool.pass(20 * SECOND);
        }
        assert_eq!((pool.numbers().len(), pool.gone.len(), pool.grown.len()), (6, 0, 5));
    }

    #[test]
    fn places_in_back_off_are_the_first_to_go() {
        let mut pool = after_a_rush(ELASTIC, 1);
        assert_eq!(pool.numbers(), [0, 1]);
        let dying = pool.dispatcher.slots().nth(1).unwrap().worker;
        pool.tell(Event::Exited(dying));
        // A place has a death for free only when it has just been opened; this one's workers die on.
        for _ in 0..700 {
            pool.die_at_start();
            pool.pass(SECOND / 10);
        }
        assert_eq!((pool.numbers(), &pool.shrunk[..]), (vec![0], &[1][..]));
        assert!(pool.gone.is_empty(), "there was no process to be ended");
    }

    #[test]
    fn a_number_that_is_vacant_is_given_out_again() {
        let mut pool = after_a_rush(PoolSize { spare: 0, ..ELASTIC }, 3);
        assert_eq!(pool.numbers(), [0, 1, 2]);
        let first = pool.dispatcher.free_workers()[0];
        let number = pool.dispatcher.slot_of(first).unwrap();
        pool.pass(60 * SECOND);
        assert!(!pool.numbers().contains(&number) && pool.numbers().len() == 2);
        pool.ask(3);
        pool.come_up();
        assert_eq!(pool.numbers(), [0, 1, 2]);
    }

    /// Requests written ahead are no longer in the queue, but they wait all the same.
    #[test]
    fn requests_that_are_written_ahead_make_the_pool_grow() {
        let mut pool = Pool::ready(Policy {
            pipeline: 16,
            ..policy(PoolSize { spare: 0, ..ELASTIC })
        });
        pool.ask(3);
        assert_eq!(pool.busy.len(), 3, "no request waits for a start");
        assert_eq!((pool.dispatcher.counters().ahead, pool.grown.len()), (2, 1));
        pool.come_up();
        pool.ask(1);
        assert_ne!(pool.busy[3], pool.busy[0], "the new one is free");
        assert_eq!(pool.dispatcher.counters().ahead, 2);
    }

    #[test]
    fn a_fixed_pool_neither_grows_nor_shrinks_nor_wakes() {
        let mut pool = Pool::ready(policy(PoolSize::fixed(2)));
        pool.ask(50);
        pool.pass(SECOND);
        assert!(pool.starting.is_empty() && pool.grown.is_empty());
        assert_eq!(pool.dispatcher.load_deadline(), None);
    }

    #[test]
    fn a_new_policy_is_followed() {
        let mut pool = after_a_rush(ELASTIC, 5);
        let mut become_sized = |size| {
            pool.tell(Event::Reconfigure(Box::new(policy(size))));
            pool.come_up();
            pool.numbers()
        };
        assert_eq!(become_sized(PoolSize { max: 4, ..ELASTIC }), [0, 1, 2, 3], "at once");
        assert_eq!(become_sized(PoolSize::fixed(2)), [0, 1]);
        assert_eq!(become_sized(PoolSize { min: 3, ..ELASTIC }), [0, 1, 2]);
        pool.ask(4);
        pool.come_up();
        pool.pass(PAUSE);
        assert_eq!((pool.busy.len(), pool.numbers().len()), (4, 5));
        pool.answer(4);
        pool.pass(600 * SECOND);
        assert_eq!(pool.numbers().len(), 3);
    }

    /// A place in back-off is counted in a pool that follows its load, and not in one of fixed size.
    #[test]
    fn counts_are_forgotten_with_the_policy() {
        let mut pool = Pool::ready(policy(ELASTIC));
        pool.ask(1);
        assert_eq!((pool.die_at_start(), pool.dispatcher.headcount().in_trouble()), (1, 1));
        pool.tell(Event::Reconfigure(Box::new(policy(PoolSize::fixed(1)))));
        assert_eq!((pool.numbers(), pool.dispatcher.headcount().in_trouble()), (vec![0], 0));
        pool.tell(Event::Reconfigure(Box::new(policy(ELASTIC))));
        assert_eq!(pool.dispatcher.headcount().unready(), 1, "a spare one is started");
    }

    /// The place whose successor is on its way may be the one that goes.
    #[test]
    fn a_roll_goes_on_when_its_place_is_closed() {
        let mut pool = after_a_rush(PoolSize { spare: 0, ..ELASTIC }, 2);
        pool.pass(59 * SECOND);
        pool.tell(Event::Roll);
        assert_eq!(pool.starting.len(), 1, "a successor");
        pool.pass(SECOND);
        assert_eq!((pool.shrunk.len(), pool.numbers().len()), (1, 1));
        for _ in 0..2 {
            pool.come_up();
        }
        assert!(pool.rolled, "the other is replaced, and that is all there was to do");
    }
}
