//! How many places the pool has: it grows under load and shrinks when idle, between `--min-workers` and `--max-workers`.
//!
//! **Growing.** As many idle workers are wanted as `--spare-workers` says, and one for each request that waits; those being
//! started count as idle ones to come. What is missing is started, with three brakes:
//! - No more are in the air than are ready already (or than spare ones are wanted), nor more than [`MOST_AT_ONCE`]: while
//!   programs take long to start, the pool at most doubles each time they are up.
//! - [`PAUSE`] lies between two batches, for programs that count as ready before they are: a rush that the present workers
//!   clear in a moment starts one batch and not all there may be.
//! - While the worker of any place waits out a respawn delay, or is tried again after one, no place is opened; and the first
//!   worker of a place opened by growth has no early death for free. A program that dies at its start is thus not started
//!   any faster because requests wait for it.
//!
//! A request never waits for a start if it can be written ahead (`--pipeline`): how long the start takes nobody knows. But
//! what is written ahead counts as waiting here, or a pool that writes ahead would never grow.
//!
//! A worker that has one request counts as busy, also with channels left (`--concurrency`): a free one is preferred as
//! long as there is one.
//!
//! **Shrinking.** Workers idle beyond the spare ones are a surplus, and so are places in back-off while there are spare ones
//! enough. A place that has been in surplus for `--worker-idle-timeout` without a break goes, one each `--alarm-interval`:
//! first those in back-off, then those whose workers were used least recently. They are free, so nobody waits for them, and
//! nobody is cut off. It is the number that is watched and not the single worker, which may be replaced meanwhile.
//!
//! In a pool of fixed size nothing here is counted and there is no deadline.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::event::{Action, WorkerId};
use super::worker::{Place, Staffing};
use super::{Dispatcher, Slot, Stage};
use crate::doors::pool::options::PoolSize;

/// No more starts than this are in the air because of load.
const MOST_AT_ONCE: usize = 32;
/// From one batch of starts to the next.
const PAUSE: Duration = Duration::from_millis(50);

/// What growing and shrinking remember. All of it is empty in a pool of fixed size.
#[derive(Debug, Default)]
pub(super) struct Elastic {
    /// Workers of places that are being started and have not failed to before.
    starting: usize,
    /// Places whose worker waits out a respawn delay.
    delayed: usize,
    /// Workers that are being started after such a delay.
    retried: usize,
    /// Workers that serve and are free but for the probe that they are asked, or rest after.
    probed: usize,
    /// No batch of starts before this.
    paused_until: Option<Instant>,
    /// More workers are wanted, and will be started at the end of the pause.
    resume: Option<Instant>,
    /// Since when there has been one place too many, two, three, and so on.
    surplus: VecDeque<Instant>,
    /// No place is closed before this.
    next_closing: Option<Instant>,
}

impl Elastic {
    /// Started and not ready: an idle worker to come.
    fn coming(&self) -> usize {
        self.starting + self.retried
    }

    /// Places that have no worker that is ready.
    fn unready(&self) -> usize {
        self.coming() + self.delayed
    }

    /// Places whose program has been failing to start.
    fn in_trouble(&self) -> usize {
        self.delayed + self.retried
    }

    fn count_of(&mut self, staffing: Staffing) -> Option<&mut usize> {
        match staffing {
            Staffing::Uncounted => None,
            Staffing::Starting => Some(&mut self.starting),
            Staffing::Delayed => Some(&mut self.delayed),
            Staffing::Retried => Some(&mut self.retried),
            Staffing::Probed => Some(&mut self.probed),
        }
    }

    /// When the next place in surplus goes.
    fn closing(&self, idle_timeout: Duration) -> Option<Instant> {
        let due = *self.surplus.front()? + idle_timeout;
        Some(self.next_closing.map_or(due, |next| next.max(due)))
    }

    /// When a tick is wanted.
    pub(super) fn deadline(&self, size: &PoolSize) -> Option<Instant> {
        self.closing(size.idle_timeout).into_iter().chain(self.resume).min()
    }
}

impl Dispatcher {
    // ---- places -----------------------------------------------------------------------------------------------

    /// Brings the number of places within what the policy allows. Load decides about the rest.
    pub(super) fn fit_slots(&mut self) {
        while self.slots.len() < self.policy.workers.min {
            if self.open_slot(0).is_none() {
                return;
            }
        }
        while self.slots.len() > self.policy.workers.max {
            let Some(last) = self.slots.last() else { return };
            self.close_slot(last);
        }
    }

    /// To be called before the first event. Begins with so many places, as far as the policy allows: a predecessor had them,
    /// and its load comes over in one moment. What becomes of them is for the load to decide.
    pub fn begin_with(&mut self, places: usize) {
        while self.slots.len() < places.min(self.policy.workers.max) {
            if self.open_slot(0).is_none() {
                return;
            }
        }
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    fn open_slot(&mut self, early_deaths: u32) -> Option<usize> {
        let number = self.slots.vacancy();
        let serving = self.add_worker(Place::Serving(number), Duration::ZERO)?;
        self.slots.open(Slot {
            serving,
            successor: None,
            early_deaths,
            is_settled: false,
        });
        self.health_is_due = true;
        Some(number)
    }

    /// A place goes; whoever serves in it finishes what he has in hand.
    fn close_slot(&mut self, number: usize) {
        let Some(Slot { serving, successor, .. }) = self.slots.close(number) else {
            return;
        };
        self.health_is_due = true;
        self.drain(serving);
        successor.into_iter().for_each(|successor| self.drain(successor));
    }

    // ---- counting ---------------------------------------------------------------------------------------------

    /// Keeps the counts of places without a ready worker in step with a worker.
    pub(super) fn note_staffing(&mut self, id: WorkerId) {
        let elastic = !self.policy.workers.is_fixed();
        let Some(worker) = self.worker_mut(id) else { return };
        let staffing = if elastic {
            worker.staffing()
        } else {
            Staffing::Uncounted
        };
        let before = std::mem::replace(&mut worker.counted, staffing);
        if before != staffing {
            self.elastic.count_of(before).into_iter().for_each(|count| *count -= 1);
            self.elastic
                .count_of(staffing)
                .into_iter()
                .for_each(|count| *count += 1);
        }
    }

    /// The policy is another one, or the pool ends: what was seen under the old one decides nothing any more, and whether
    /// workers are counted at all may have changed. Comes before anything is done under the new one.
    pub(super) fn reset_load(&mut self) {
        let all: Vec<WorkerId> = self.workers.iter().map(|(_, worker)| worker.id).collect();
        all.into_iter().for_each(|worker| self.note_staffing(worker));
        self.elastic.surplus.clear();
        (
            self.elastic.paused_until,
            self.elastic.resume,
            self.elastic.next_closing,
        ) = (None, None, None);
    }

    // ---- load -------------------------------------------------------------------------------------------------

    /// Opens and closes places as the load wants it: at the end of every event.
    pub(super) fn follow_load(&mut self) {
        if self.policy.workers.is_fixed() || self.stage == Stage::Stopping {
            return;
        }
        self.grow();
        self.shrink();
    }

    fn grow(&mut self) {
        self.elastic.resume = None;
        let idle = self.idle() + self.elastic.coming();
        let missing = (self.policy.workers.spare + self.waiting()).saturating_sub(idle);
        let vacant = self.policy.workers.max.saturating_sub(self.slots.len());
        let starts = missing.min(vacant).min(self.startable());
        if starts == 0 || self.elastic.in_trouble() > 0 {
            return;
        }
        if let Some(until) = self.elastic.paused_until.filter(|until| *until > self.now) {
            self.elastic.resume = Some(until);
            return;
        }
        self.elastic.paused_until = Some(self.now + PAUSE);
        for _ in 0..starts {
            let Some(slot) = self.open_slot(1) else { return };
            self.counters.grown += 1;
            let places = self.slots.len();
            self.actions.push_back(Action::Grown { slot, places });
        }
    }

    /// Requests that would have a worker of their own if there were more: those in the queue, and, while nobody is free,
    /// those written ahead.
    fn waiting(&self) -> usize {
        if self.policy.pipeline == 1 || !self.available.is_empty() {
            return self.queue.len();
        }
        self.requests.len().saturating_sub(self.occupied).max(self.queue.len())
    }

    /// How many may be started besides those in the air.
    fn startable(&self) -> usize {
        let ready = self.slots.len().saturating_sub(self.elastic.unready());
        let limit = ready.max(self.policy.workers.spare).clamp(1, MOST_AT_ONCE);
        limit.saturating_sub(self.elastic.coming())
    }

    fn shrink(&mut self) {
        let (now, present) = (self.now, self.surplus());
        self.elastic.surplus.resize(present, now);
        let idle_timeout = self.policy.workers.idle_timeout;
        if self.elastic.closing(idle_timeout).is_some_and(|at| at <= now) {
            self.elastic.next_closing = Some(now + self.policy.alarm_interval);
            // If all that are idle are being probed, it is tried again.
            if self.close_least_needed() {
                self.elastic.surplus.pop_front();
            }
        }
    }

    /// Workers that are free, or will be in a moment because a probe is no work.
    fn idle(&self) -> usize {
        self.available.len() + self.elastic.probed
    }

    /// How many places could go with enough spare ones left.
    fn surplus(&self) -> usize {
        let wanted = self.policy.workers.spare + self.waiting();
        let beyond_spare = self.idle().checked_sub(wanted);
        let unneeded = beyond_spare.map_or(0, |beyond| beyond + self.elastic.in_trouble());
        unneeded.min(self.slots.len().saturating_sub(self.policy.workers.min))
    }

    /// The last place in back-off, or else that of the free worker that was used least recently, or never.
    fn close_least_needed(&mut self) -> bool {
        let is_in_trouble = |id| {
            self.worker(id)
                .is_some_and(|worker| matches!(worker.counted, Staffing::Delayed | Staffing::Retried))
        };
        let in_trouble = self.slots.iter().rev().find(|(_, slot)| is_in_trouble(slot.serving));
        let in_trouble = in_trouble.map(|(number, slot)| (number, slot.serving));
        let idle = self.available.least_needed();
        let idle = idle.and_then(|id| Some((self.slot_of(id)?, id)));
        let Some((slot, worker)) = in_trouble.or(idle) else {
            return false;
        };
        self.close_slot(slot);
        self.counters.shrunk += 1;
        let places = self.slots.len();
        self.actions.push_back(Action::Shrunk { worker, slot, places });
        // A roll that was waiting for its successor goes on with the next.
        self.advance_rotation();
        true
    }

    #[cfg(debug_assertions)]
    pub(super) fn check_elastic(&self) {
        let (elastic, size) = (&self.elastic, &self.policy.workers);
        let count = |wanted| {
            self.workers
                .iter()
                .filter(|(_, worker)| worker.counted == wanted)
                .count()
        };
        let counts = [
            Staffing::Starting,
            Staffing::Delayed,
            Staffing::Retried,
            Staffing::Probed,
        ]
        .map(count);
        assert_eq!(
            counts,
            [elastic.starting, elastic.delayed, elastic.retried, elastic.probed],
            "{elastic:?}"
        );
        for (_, worker) in &self.workers {
            let staffing = if size.is_fixed() {
                Staffing::Uncounted
            } else {
                worker.staffing()
            };
            assert_eq!(worker.counted, staffing, "{:?} is counted for what it is", worker.id);
        }
        if size.is_fixed() || self.stage == Stage::Stopping {
            assert_eq!(elastic.deadline(size), None, "nothing grows or shrinks");
            return;
        }
        let may_grow = self.slots.len() < size.max && elastic.in_trouble() == 0;
        assert!(
            !may_grow || self.queue.len() == 0 || elastic.coming() + elastic.probed > 0 || elastic.resume.is_some(),
            "somebody waits, and no worker is started for him: {elastic:?}"
        );
        assert_eq!(
            self.surplus(),
            elastic.surplus.len(),
            "what is in surplus has its time, and nothing else"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AfterReply, ClientId, Event, ReplyTo};
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

        /// One with so many ready and idle.
        fn ready(policy: Policy) -> Self {
            let mut pool = Self::new(policy);
            pool.come_up();
            pool
        }

        fn tell(&mut self, event: Event) {
            self.dispatcher.handle(self.now, event);
            self.act();
        }

        fn act(&mut self) {
            while let Some(action) = self.dispatcher.next_action() {
                match action {
                    Action::Spawn(worker) => self.starting.push(worker),
                    Action::Assign { worker, .. } => self.busy.push(worker),
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

        /// So long, with a tick whenever one is wanted.
        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.tell(Event::Tick);
            }
            self.now = end;
        }

        fn numbers(&self) -> Vec<usize> {
            self.dispatcher.slots().map(|slot| slot.number).collect()
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
    fn the_minimum_starts_at_once_and_a_spare_one_before_anybody_waits() {
        let mut pool = Pool::new(policy(PoolSize { min: 2, ..ELASTIC }));
        assert_eq!(pool.starting.len(), 2);
        pool.come_up();
        pool.ask(1);
        assert_eq!((pool.busy.len(), pool.grown.len()), (1, 0), "one is idle still");
        pool.ask(1);
        assert_eq!(
            (pool.busy.len(), &pool.grown[..]),
            (2, &[2][..]),
            "nobody waits, and one is started"
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
    fn never_more_than_so_many_are_in_the_air() {
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
    fn a_rush_that_is_over_before_the_pause_starts_nobody_more() {
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
    fn what_is_not_needed_goes_after_its_time_one_each_tick_least_recently_used_first() {
        let mut pool = after_a_rush(ELASTIC, 5);
        assert_eq!(pool.numbers().len(), 6);
        // Idle longest is the spare one, then the others in the order of their answers.
        let order: Vec<WorkerId> = pool.dispatcher.available.iter().collect();
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
    fn what_was_needed_in_the_meantime_stays() {
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
        // It had a death for free only before it was opened; it dies on.
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
        let first = pool.dispatcher.available.least_needed().unwrap();
        let number = pool.dispatcher.slot_of(first).unwrap();
        pool.pass(60 * SECOND);
        assert!(!pool.numbers().contains(&number) && pool.numbers().len() == 2);
        pool.ask(3);
        pool.come_up();
        assert_eq!(pool.numbers(), [0, 1, 2]);
    }

    /// Requests written ahead are no longer in the queue, but they wait all the same.
    #[test]
    fn what_is_written_ahead_makes_the_pool_grow() {
        let mut pool = Pool::ready(Policy {
            pipeline: 16,
            ..policy(PoolSize { spare: 0, ..ELASTIC })
        });
        pool.ask(3);
        assert_eq!(pool.busy.len(), 3, "nobody waits for a start");
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
        assert_eq!(pool.dispatcher.elastic.deadline(&PoolSize::fixed(2)), None);
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
    fn what_was_counted_is_forgotten_with_the_policy() {
        let mut pool = Pool::ready(policy(ELASTIC));
        pool.ask(1);
        assert_eq!((pool.die_at_start(), pool.dispatcher.elastic.in_trouble()), (1, 1));
        pool.tell(Event::Reconfigure(Box::new(policy(PoolSize::fixed(1)))));
        assert_eq!((pool.numbers(), pool.dispatcher.elastic.in_trouble()), (vec![0], 0));
        pool.tell(Event::Reconfigure(Box::new(policy(ELASTIC))));
        assert_eq!(pool.dispatcher.elastic.unready(), 1, "a spare one is started");
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
