//! Probes: a question with a known answer, which catches a worker that answers promptly and wrongly.
//!
//! A worker that is started while the policy wants probes is asked before it serves anybody ([`CheckKind::Initial`]), and again
//! about every interval while it serves ([`CheckKind::Periodic`]). Until it has answered it is given nothing. One that answers
//! wrongly, not in time, or not at all is lost as [`Restart::Quarantined`]: its process is ended, and its place tries
//! another one with the delays of [`respawn`](super::respawn), at least one tick, until one passes. A successor has to pass
//! before it takes over, so that a generation that fails leaves the one before it in service.
//!
//! Requests come first: a probe of a worker that serves is put off while somebody waits or the others are all at work, to
//! twice its interval; and of those that serve no more than an eighth (but one) are away for it at a time. One that has
//! several requests in hand is given no more from then on, until it has answered them and is asked.
//!
//! What is asked and what is expected is the shell's; so is what was to be asked of a worker that was started before the
//! operator changed it.

use std::time::{Duration, Instant};

use super::Dispatcher;
use super::blame::Blame;
use super::event::{Action, ProbeResult, Restart, WorkerId};
use super::worker::{Phase, RestReason};

/// Of so many places one may be without its worker because that is probed.
const SHARE: usize = 8;
/// A probe that is put off is thought of again after this part of its interval.
const PUT_OFF: u32 = 10;

/// What a worker that is asked is so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckKind {
    /// It has never been asked and serves nobody yet.
    Initial,
    /// It serves.
    Periodic,
}

/// When a worker that serves is probed again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NextCheck {
    interval: Duration,
    /// When that is thought of.
    pub(super) at: Instant,
    /// From then on it is probed as soon as it is free, whoever waits.
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
}

impl Dispatcher {
    /// Asks a new worker, if those of its time are asked at all; whether it was. Its start-up lasts until it has answered.
    pub(super) fn probe_first(&mut self, id: WorkerId, deadline: Instant) -> bool {
        let wanted = self.worker(id).is_some_and(|worker| worker.next_check.is_some());
        if wanted {
            self.probe(id, deadline, CheckKind::Initial);
        }
        wanted
    }

    fn probe(&mut self, id: WorkerId, deadline: Instant, kind: CheckKind) {
        self.counters.probes += 1;
        self.enter(id, Phase::Probing { deadline, kind });
        let channel = self.worker_mut(id).and_then(super::Worker::next_channel);
        self.actions.push_back(Action::Probe { worker: id, channel });
    }

    /// Asks a worker that serves and is free, if that is due, or puts it off; whether it was asked.
    pub(super) fn probe_again(&mut self, id: WorkerId) -> bool {
        let now = self.now;
        let Some(next_check) = self.worker(id).and_then(|worker| worker.next_check) else {
            return false;
        };
        if next_check.at > now {
            return false;
        }
        if self.can_spare(id, next_check.latest <= now) {
            self.probe(id, now + self.policy.busy_timeout, CheckKind::Periodic);
            return true;
        }
        if let Some(next_check) = self.worker_mut(id).and_then(|worker| worker.next_check.as_mut()) {
            next_check.at = now + next_check.interval / PUT_OFF;
        }
        false
    }

    /// Whether no more is written to a busy worker for the sake of its probe: while others could always be given, it would
    /// never be free.
    pub(super) fn must_run_dry(&self, id: WorkerId) -> bool {
        let next_check = self.worker(id).and_then(|worker| worker.next_check);
        next_check.is_some_and(|next_check| next_check.latest <= self.now) && !self.enough_are_away()
    }

    /// Whether as many workers that serve are being probed as can be.
    fn enough_are_away(&self) -> bool {
        let away = |phase| {
            matches!(
                phase,
                Phase::Probing {
                    kind: CheckKind::Periodic,
                    ..
                }
            )
        };
        let away = self.workers.iter().filter(|(_, worker)| away(worker.phase)).count();
        away >= (self.slots.len() / SHARE).max(1)
    }

    /// Whether a free worker can be away for a moment.
    fn can_spare(&self, id: WorkerId, overdue: bool) -> bool {
        if self.enough_are_away() {
            return false;
        }
        let phase = self.phase(id);
        let others_free = self.available.len() - usize::from(phase == Some(Phase::Available));
        let others_at_work = self.occupied - usize::from(phase.is_some_and(Phase::is_occupied));
        overdue || self.queue.len() == 0 && (others_free > 0 || others_at_work == 0)
    }

    pub(super) fn probed(&mut self, id: WorkerId, result: ProbeResult) {
        // Any other phase: it was told to go, or its time was over, while its answer was on the way.
        let Some(Phase::Probing { kind, .. }) = self.phase(id) else {
            return;
        };
        if result == ProbeResult::Failed {
            return self.fail(id, Restart::Quarantined, Blame::NoRequest);
        }
        self.plan_probe(id);
        self.mark_quiet(id);
        match kind {
            CheckKind::Initial => self.activate(id),
            CheckKind::Periodic => self.rest(id, RestReason::Probe),
        }
    }

    fn plan_probe(&mut self, id: WorkerId) {
        let now = self.now;
        let Some(interval) = self.worker(id).and_then(|worker| Some(worker.next_check?.interval)) else {
            return;
        };
        // All workers are started together, and are not to be away together.
        let interval = self.jitter.around_duration(interval);
        if let Some(next_check) = self.worker_mut(id).and_then(|worker| worker.next_check.as_mut()) {
            (next_check.at, next_check.latest) = (now + interval, now + 2 * interval);
        }
    }

    /// Whoever is to serve where a worker has failed is in quarantine until he has passed, however many that takes.
    pub(super) fn inherit_quarantine(&mut self, lost: WorkerId, reason: Restart, next: WorkerId) {
        let inherited = self.worker(lost).is_some_and(|worker| worker.quarantined);
        if reason != Restart::Quarantined && !inherited {
            return;
        }
        if let Some(next) = self.worker_mut(next) {
            next.quarantined = true;
        }
    }

    /// A worker begins to serve: no quarantine outlasts that.
    pub(super) fn end_quarantine(&mut self, id: WorkerId) {
        let Some(worker) = self.worker_mut(id) else { return };
        if std::mem::take(&mut worker.quarantined) {
            self.actions.push_back(Action::QuarantineEnded(id));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::pool::core::ReplyTo;
    use crate::doors::pool::core::{AfterReply, ClientId, Event, Fault, Inspection, Status, StopMode};
    use crate::doors::pool::options::Policy;

    const INTERVAL: Duration = Duration::from_secs(60);

    struct World {
        now: Instant,
        dispatcher: Dispatcher,
        actions: Vec<Action>,
    }

    impl World {
        fn new(workers: usize) -> Self {
            let now = Instant::now();
            let policy = Policy {
                probe_interval: Some(INTERVAL),
                queue_timeout: Duration::from_secs(100_000),
                ..Policy::for_tests(workers)
            };
            let dispatcher = Dispatcher::new(policy, now, 1);
            let mut world = World {
                now,
                dispatcher,
                actions: Vec::new(),
            };
            world.fetch();
            world
        }

        /// One whose worker takes several requests at once, and has passed.
        fn concurrent() -> (Self, WorkerId) {
            let mut world = World::new(1);
            let policy = Policy {
                concurrency: Some(2),
                ..world.dispatcher.policy.clone()
            };
            world.tell(Event::Reconfigure(Box::new(policy)));
            let worker = world.start();
            world.tell(Event::Probed(worker, ProbeResult::Passed));
            (world, worker)
        }

        /// One with so many workers that have passed.
        fn serving(workers: usize) -> (Self, Vec<WorkerId>) {
            let mut world = World::new(workers);
            let started: Vec<WorkerId> = (0..workers).map(|_| world.start()).collect();
            for worker in &started {
                world.tell(Event::Probed(*worker, ProbeResult::Passed));
            }
            world.actions.clear();
            (world, started)
        }

        /// Whoever is looked at is in step.
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

        fn tell(&mut self, event: Event) {
            self.dispatcher.handle(self.now, event);
            self.fetch();
        }

        /// Every deadline on the way is kept.
        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.tell(Event::Tick);
            }
            self.now = end;
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
                Action::Assign { worker, .. } => Some(*worker),
                _ => None,
            })
        }

        fn delay(&mut self) -> Option<Duration> {
            self.next(|action| match action {
                Action::Replaced { reason, delay, .. } => {
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

    #[test]
    fn a_new_worker_serves_once_it_has_passed() {
        let mut world = World::new(1);
        let worker = world.start();
        world.request();
        assert_eq!((world.given(), world.status()), (None, vec![Status::Starting]));
        world.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(world.given(), Some(worker));
        assert_eq!(world.dispatcher.counters().probes, 1);
        assert_eq!(world.dispatcher.counters().total, 1, "a probe is no request");
    }

    #[test]
    fn who_fails_is_replaced_ever_more_slowly_until_one_passes() {
        let mut world = World::new(1);
        world.request();
        for seconds in [2, 4, 8, 16, 32, 60, 60] {
            let worker = world.start();
            world.tell(Event::Probed(worker, ProbeResult::Failed));
            let delay = Duration::from_secs(seconds);
            assert_eq!(world.delay(), Some(delay));
            assert!(world.actions.contains(&Action::Stop(worker, StopMode::Terminate)));
            assert_eq!(world.status(), [Status::Quarantined]);
            world.tell(Event::Exited(worker));
            world.pass(delay);
        }
        assert_eq!(world.dispatcher.status_counts().quarantined, 1);
        assert_eq!(world.given(), None);
        let worker = world.start();
        world.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(world.given(), Some(worker));
        assert!(world.actions.contains(&Action::QuarantineEnded(worker)));
        assert_eq!(world.status(), [Status::Busy]);
        assert_eq!(world.dispatcher.counters().restarts.quarantined, 7);
    }

    #[test]
    fn whatever_befalls_a_worker_in_its_probe_is_a_failure() {
        let fates: [fn(&mut World, WorkerId); 6] = [
            |world, worker| world.tell(Event::Probed(worker, ProbeResult::Failed)),
            |world, worker| world.tell(Event::Exited(worker)),
            |world, worker| world.tell(Event::Broken(worker, Fault::OutputClosed)),
            |world, worker| world.tell(Event::Broken(worker, Fault::ReplyTooLong(ReplyTo::Oldest))),
            |world, worker| world.reply(worker),
            |world, _| world.pass(Duration::from_secs(3600)),
        ];
        for fate in fates {
            let mut world = World::new(1);
            let worker = world.start();
            fate(&mut world, worker);
            assert_eq!(world.delay(), Some(Duration::from_secs(2)));
            assert_eq!(world.status(), [Status::Quarantined]);
            assert_eq!(world.dispatcher.counters().restarts.quarantined, 1);
        }
    }

    #[test]
    fn a_free_worker_is_asked_again_and_not_used_meanwhile() {
        let (mut world, workers) = World::serving(1);
        world.pass(INTERVAL - INTERVAL / 5);
        assert_eq!(world.asked(), None);
        world.pass(INTERVAL);
        assert_eq!(world.asked(), Some(workers[0]));
        world.request();
        assert_eq!((world.given(), world.status()), (None, vec![Status::Busy]));
        world.tell(Event::Probed(workers[0], ProbeResult::Passed));
        assert_eq!(world.given(), Some(workers[0]));
    }

    #[test]
    fn who_fails_later_is_replaced_too_and_its_place_stays_empty_for_a_while() {
        let (mut world, workers) = World::serving(1);
        world.pass(2 * INTERVAL);
        assert_eq!(world.asked(), Some(workers[0]));
        world.tell(Event::Probed(workers[0], ProbeResult::Failed));
        world.request();
        assert_eq!(world.delay(), Some(Duration::from_secs(2)));
        world.pass(Duration::from_secs(2));
        let next = world.start();
        assert_eq!(world.given(), None);
        world.tell(Event::Probed(next, ProbeResult::Passed));
        assert_eq!(world.given(), Some(next));
    }

    #[test]
    fn of_eight_workers_one_is_away_at_a_time() {
        let (mut world, workers) = World::serving(8);
        world.pass(3 * INTERVAL);
        let first = world.asked().expect("one is due");
        assert_eq!(world.asked(), None);
        // The others are put off and not forgotten.
        let mut asked = vec![first];
        while asked.len() < workers.len() {
            let last = *asked.last().unwrap();
            world.tell(Event::Probed(last, ProbeResult::Passed));
            world.pass(INTERVAL / PUT_OFF);
            asked.push(world.asked().expect("the next is due"));
        }
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, workers);
    }

    #[test]
    fn the_last_free_one_is_left_to_the_requests_for_a_while() {
        let (mut world, workers) = World::serving(2);
        world.request();
        let busy = world.given().unwrap();
        let free = *workers.iter().find(|worker| **worker != busy).unwrap();
        world.pass(INTERVAL + INTERVAL / 2);
        assert_eq!(world.asked(), None);
        // Until it is too long, whatever the other does.
        world.pass(INTERVAL);
        assert_eq!(world.asked(), Some(free));
    }

    #[test]
    fn a_busy_worker_is_asked_when_nobody_waits_and_at_last_though_somebody_does() {
        let (mut world, workers) = World::serving(1);
        let worker = workers[0];
        world.request();
        world.request();
        world.pass(INTERVAL + INTERVAL / 5);
        assert_eq!(world.given(), Some(worker));
        world.reply_and_be_watched(worker);
        assert_eq!(
            (world.asked(), world.given()),
            (None, Some(worker)),
            "who waits comes first"
        );
        world.pass(INTERVAL / PUT_OFF);
        world.reply_and_be_watched(worker);
        assert_eq!(world.asked(), Some(worker), "nobody waits");
        world.tell(Event::Probed(worker, ProbeResult::Passed));
        (0..50).for_each(|_| world.request());
        let replies = (1..50).find(|_| {
            assert_eq!(world.given(), Some(worker));
            world.pass(INTERVAL / 4);
            world.reply_and_be_watched(worker);
            world.asked().is_some()
        });
        let replies = replies.expect("it is asked before all have been served");
        assert!(
            (7..=10).contains(&replies),
            "at twice the interval, not after {replies} replies"
        );
    }

    #[test]
    fn a_successor_that_fails_leaves_its_predecessor_in_service() {
        let (mut world, workers) = World::serving(1);
        world.tell(Event::Roll);
        for seconds in [2, 4, 8] {
            let successor = world.start();
            world.request();
            assert_eq!(world.given(), Some(workers[0]));
            world.reply(workers[0]);
            world.tell(Event::Probed(successor, ProbeResult::Failed));
            assert_eq!(world.dispatcher.in_service(0), Some(workers[0]));
            assert_eq!(
                (world.status(), world.dispatcher.status_counts().quarantined),
                (vec![Status::Available], 1)
            );
            let delay = world.delay();
            assert_eq!(delay, Some(Duration::from_secs(seconds)));
            world.pass(Duration::from_secs(seconds));
        }
        let successor = world.start();
        world.tell(Event::Probed(successor, ProbeResult::Passed));
        assert!(world.actions.contains(&Action::Stop(workers[0], StopMode::EndInput)));
        assert!(world.actions.contains(&Action::Rolled));
        world.request();
        assert_eq!(world.given(), Some(successor));
    }

    #[test]
    fn who_was_started_without_a_probe_is_never_asked() {
        let mut world = World::new(1);
        let policy = |probe_interval| {
            let policy = Policy {
                probe_interval,
                ..Policy::for_tests(1)
            };
            Event::Reconfigure(Box::new(policy))
        };
        world.tell(policy(None));
        let worker = world.next(|action| match action {
            Action::Spawn(worker) => Some(*worker),
            _ => None,
        });
        let worker = worker.unwrap();
        world.tell(Event::Started(worker));
        world.tell(policy(Some(INTERVAL)));
        world.tell(Event::Ready(worker));
        world.pass(10 * INTERVAL);
        assert_eq!((world.asked(), world.status()), (None, vec![Status::Available]));
    }
    /// Or it would never be asked where there is always something to do: it takes the next before it has answered the last.
    #[test]
    fn a_worker_with_several_requests_is_left_to_run_dry_when_its_probe_is_overdue() {
        let (mut world, worker) = World::concurrent();
        world.request();
        let mut given = std::collections::VecDeque::new();
        for _ in 0..40 {
            world.request();
            while let Some(channel) = world.next(|action| match action {
                Action::Assign { channel, .. } => *channel,
                _ => None,
            }) {
                given.push_back(channel);
            }
            world.pass(INTERVAL / 10);
            let Some(channel) = given.pop_front() else { break };
            let (to, after) = (ReplyTo::Channel(channel), AfterReply::InStep);
            world.tell(Event::Reply { worker, to, after });
        }
        assert_eq!(world.asked(), Some(worker));
        world.tell(Event::Probed(worker, ProbeResult::Passed));
        assert_eq!((world.given(), world.given()), (Some(worker), Some(worker)));
    }
}
