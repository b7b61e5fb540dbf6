//! Whether the pool can serve, as the operator is told it: that it can, for the first time; that it cannot any more; that this
//! is over.
//!
//! ```text
//!              a worker is to be believed, and no
//!              place is waited for any more
//!   Starting ------------------------------------> Serving
//!      |                                            ^   |
//!      |                a worker is to be believed  |   |  every place is in trouble,
//!      |                  +-------------------------+   |  and nobody serves
//!      |                  |                             |
//!      +--------------> Down <--------------------------+
//!        the same
//! ```
//!
//! **Trouble.** A worker is in trouble if the one before it in its place was lost in a way that a new start need not mend: it
//! was not ready in time, failed its probe, or is only started again after a delay. It hands that on to the next one, until one
//! is to be believed. A worker that dies after it has worked for a while is replaced at once, and nobody is in trouble; so a
//! single death, a roll or an upgrade is never told as an outage.
//!
//! **Trust.** A worker is to be believed once it has answered something, its probe included, or has said that it is ready. Of
//! one that is not asked for either it is only known that it runs: it is believed when it has done so for [`GRACE`], or, in an
//! outage or where others have died early before it, for as long as counts as early. So a program that dies as soon as it is
//! started is never taken for one that serves, and the two lines about an outage do not alternate with each of its starts.

use std::time::{Duration, Instant};

use super::event::{Action, Restart, WorkerId};
use super::respawn::EARLY;
use super::worker::{Place, Worker};
use super::{Dispatcher, Stage};

/// A worker of which nothing is known but that it runs is believed after so long.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// Whether the pool can serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It never has.
    Starting,
    /// Some worker serves, or will as far as is known.
    Serving,
    /// No worker serves, and every place is in trouble.
    Down(Outage),
}

/// A time in which nobody is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    since: Instant,
    /// How many requests had failed by then.
    failed_before: u64,
    /// Whether the pool had served before.
    has_served: bool,
}

/// What the operator is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// The pool serves, for the first time.
    Ready,
    /// No worker can serve.
    Down {
        /// Why one of them was lost.
        reason: Restart,
    },
    /// That is over.
    Over {
        /// How long it was so.
        lasted: Duration,
        /// How many requests failed meanwhile.
        failed: u64,
        /// The pool had never served before.
        first_time: bool,
    },
}

/// What is to be expected of a pool at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outlook {
    /// Every place is in trouble, and nobody serves. Why one of them is.
    Hopeless(Restart),
    /// Nobody is to be believed yet.
    Open,
    /// Somebody is, and others are waited for.
    Fair,
    /// Somebody is, and each of the others has failed.
    Settled,
}

/// Whether a worker is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing is known of it, and nobody wants to know.
    Unknown,
    /// It runs. That is enough if it still does at that time.
    OnTrial { until: Instant },
    /// It is.
    Confirmed,
}

impl Health {
    /// All there are of changes.
    fn on(self, outlook: Outlook, now: Instant, failed: u64) -> (Health, Option<HealthChange>) {
        let down = |reason, has_served| {
            let outage = Outage {
                since: now,
                failed_before: failed,
                has_served,
            };
            (Health::Down(outage), Some(HealthChange::Down { reason }))
        };
        match (self, outlook) {
            (Health::Starting, Outlook::Settled) => (Health::Serving, Some(HealthChange::Ready)),
            (Health::Starting, Outlook::Hopeless(reason)) => down(reason, false),
            (Health::Serving, Outlook::Hopeless(reason)) => down(reason, true),
            (Health::Down(outage), Outlook::Fair | Outlook::Settled) => {
                let over = HealthChange::Over {
                    lasted: now.saturating_duration_since(outage.since),
                    failed: failed.saturating_sub(outage.failed_before),
                    first_time: !outage.has_served,
                };
                (Health::Serving, Some(over))
            }
            // The start goes on, the outage too; and a pool that serves is not down for want of a single worker.
            (Health::Starting, Outlook::Open | Outlook::Fair)
            | (Health::Serving, Outlook::Open | Outlook::Fair | Outlook::Settled)
            | (Health::Down(_), Outlook::Open | Outlook::Hopeless(_)) => (self, None),
        }
    }
}

impl Dispatcher {
    /// Whether the pool can serve.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Whether a worker serves in every place, after others may have failed there too.
    pub fn is_in_full_force(&self) -> bool {
        let fine = |worker: &Worker| worker.phase.serves() && worker.trouble.is_none();
        self.health == Health::Serving && self.in_places().all(fine)
    }

    /// To be called at the end of every event.
    pub(super) fn follow_health(&mut self) {
        if !std::mem::take(&mut self.health_is_due) || self.stage == Stage::Stopping {
            return;
        }
        let (health, news) = self.health.on(self.outlook(), self.now, self.counters.failed);
        self.health = health;
        self.actions.extend(news.map(Action::Health));
    }

    /// Costs a look at one place, most often: the first one that is not in trouble.
    fn outlook(&self) -> Outlook {
        if let Some(reason) = self.hopeless() {
            return Outlook::Hopeless(reason);
        }
        if self.health == Health::Serving {
            // Nothing else would change that.
            return Outlook::Fair;
        }
        if !self.in_places().any(|worker| worker.trust == Trust::Confirmed) {
            Outlook::Open
        } else if self.slots.iter().all(|(_, slot)| slot.is_settled) {
            Outlook::Settled
        } else {
            Outlook::Fair
        }
    }

    /// Why a worker was lost, if none can serve.
    pub(super) fn hopeless(&self) -> Option<Restart> {
        let mut reason = None;
        for worker in self.in_places() {
            reason = Some(worker.trouble.filter(|_| !worker.phase.serves())?);
        }
        reason
    }

    /// Those that serve in the places, or will.
    pub(super) fn in_places(&self) -> impl Iterator<Item = &Worker> {
        self.slots.iter().filter_map(|(_, slot)| self.worker(slot.serving))
    }

    /// A worker begins to serve.
    pub(super) fn begin_trial(&mut self, id: WorkerId) {
        let (now, is_doubted) = (self.now, self.health != Health::Serving);
        let says_ready = self.policy.ready_line;
        let Some(worker) = self.worker(id) else { return };
        // Where there is a probe, it has passed.
        if says_ready || worker.next_check.is_some() {
            return self.confirm(id);
        }
        let Place::Serving(slot) = worker.place else { return };
        let is_in_trouble = worker.trouble.is_some();
        if is_in_trouble {
            // A successor that others had failed before.
            self.settle(slot);
        } else if !is_doubted {
            return;
        }
        let others_died = self.slots.get(slot).is_some_and(|slot| slot.early_deaths > 0);
        let is_down = matches!(self.health, Health::Down(_));
        let until = now + if others_died || is_down { EARLY } else { GRACE };
        if let Some(worker) = self.worker_mut(id) {
            worker.trust = Trust::OnTrial { until };
        }
        self.lower_wake(until);
    }

    pub(super) fn end_trial_if_due(&mut self, id: WorkerId) {
        let trust = self.worker(id).map(|worker| worker.trust);
        if let Some(Trust::OnTrial { until }) = trust
            && until <= self.now
        {
            self.confirm(id);
        }
    }

    /// A worker is to be believed, as long as it is there.
    pub(super) fn confirm(&mut self, id: WorkerId) {
        let Some(worker) = self.worker_mut(id).filter(|worker| worker.trust != Trust::Confirmed) else {
            return;
        };
        (worker.trust, worker.trouble) = (Trust::Confirmed, None);
        if let Place::Serving(slot) = worker.place {
            self.settle(slot);
        }
    }

    /// Whoever comes after a worker that was lost is in trouble if that one was, or if another start need not help.
    pub(super) fn inherit_trouble(&mut self, lost: WorkerId, reason: Restart, delay: Duration, next: WorkerId) {
        let inherited = self.worker(lost).is_some_and(|worker| worker.trouble.is_some());
        let fails = !delay.is_zero() || matches!(reason, Restart::StartTimeout | Restart::Quarantined);
        // The one that was lost may have been the last that was not.
        self.health_is_due = true;
        let Some(next) = self.worker_mut(next) else { return };
        if inherited || fails {
            next.trouble = Some(reason);
        }
        if let (Place::Serving(slot), Some(_)) = (next.place, next.trouble) {
            self.settle(slot);
        }
    }

    /// What becomes of a place is known: somebody serves there, or has failed to.
    fn settle(&mut self, slot: usize) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.is_settled = true;
        }
        self.health_is_due = true;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AfterReply, ClientId, Event, ProbeResult, ReplyTo, StopMode};
    use super::*;
    use crate::doors::pool::options::Policy;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_secs(2);

    struct World {
        now: Instant,
        dispatcher: Dispatcher,
        spawns: Vec<WorkerId>,
        changes: Vec<HealthChange>,
    }

    impl World {
        /// One in which workers do not say that they are ready.
        fn new(workers: usize, change: impl FnOnce(&mut Policy)) -> Self {
            let mut policy = Policy {
                ready_line: false,
                alarm_interval: TICK,
                ..Policy::for_tests(workers)
            };
            change(&mut policy);
            let now = Instant::now();
            let mut world = World {
                now,
                dispatcher: Dispatcher::new(policy, now, 1),
                spawns: Vec::new(),
                changes: Vec::new(),
            };
            world.fetch();
            world
        }

        fn fetch(&mut self) {
            while let Some(action) = self.dispatcher.next_action() {
                match action {
                    Action::Spawn(worker) => self.spawns.push(worker),
                    Action::Health(change) => self.changes.push(change),
                    _ => {}
                }
            }
        }

        fn tell(&mut self, event: Event) {
            self.dispatcher.handle(self.now, event);
            self.fetch();
        }

        fn pass(&mut self, span: Duration) {
            let end = self.now + span;
            while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
                self.tell(Event::Tick);
            }
            self.now = end;
        }

        /// Starts whatever is to be started, and all of it runs.
        fn start(&mut self) -> Vec<WorkerId> {
            let started = std::mem::take(&mut self.spawns);
            for worker in &started {
                self.tell(Event::Started(*worker));
                if !self.dispatcher.policy.ready_line {
                    self.tell(Event::Ready(*worker));
                }
            }
            started
        }

        fn each(&mut self, workers: &[WorkerId], event: impl Fn(WorkerId) -> Event) {
            for worker in workers {
                self.tell(event(*worker));
            }
        }

        fn request(&mut self, client: u64) {
            let client = ClientId(client);
            self.tell(Event::Request { client, size: 80 });
        }

        fn heard(&mut self) -> Vec<HealthChange> {
            std::mem::take(&mut self.changes)
        }
    }

    fn reply(worker: WorkerId) -> Event {
        Event::Reply {
            worker,
            to: ReplyTo::Oldest,
            after: AfterReply::InStep,
        }
    }

    fn over(lasted: Duration, failed: u64, first_time: bool) -> Vec<HealthChange> {
        vec![HealthChange::Over {
            lasted,
            failed,
            first_time,
        }]
    }

    fn down(reason: Restart) -> Vec<HealthChange> {
        vec![HealthChange::Down { reason }]
    }

    #[test]
    fn a_program_that_runs_is_believed_after_a_second_or_when_it_has_answered() {
        let mut world = World::new(2, |_| {});
        let workers = world.start();
        world.pass(GRACE - Duration::from_millis(1));
        assert_eq!((world.heard(), world.dispatcher.health()), (vec![], Health::Starting));
        world.pass(Duration::from_millis(1));
        assert_eq!(world.heard(), [HealthChange::Ready]);
        let mut world = World::new(1, |_| {});
        let started = world.start();
        world.request(1);
        world.each(&started, reply);
        assert_eq!(world.heard(), [HealthChange::Ready]);
        assert_eq!(workers.len(), 2);
    }

    #[test]
    fn one_that_says_so_is_believed_at_once_and_all_are_waited_for() {
        let mut world = World::new(2, |policy| policy.ready_line = true);
        let workers = world.start();
        world.tell(Event::Ready(workers[0]));
        world.pass(60 * SECOND);
        assert_eq!(world.heard(), []);
        world.tell(Event::Ready(workers[1]));
        assert_eq!(world.heard(), [HealthChange::Ready]);
    }

    #[test]
    fn one_that_fails_while_another_serves_is_not_waited_for() {
        let mut world = World::new(2, |policy| policy.probe_interval = Some(60 * SECOND));
        let workers = world.start();
        world.tell(Event::Probed(workers[0], ProbeResult::Failed));
        assert_eq!(world.heard(), []);
        world.tell(Event::Probed(workers[1], ProbeResult::Passed));
        assert_eq!(world.heard(), [HealthChange::Ready]);
    }

    #[test]
    fn a_program_that_dies_at_each_start_is_an_outage_that_is_told_once() {
        let mut world = World::new(3, |policy| policy.queue_timeout = SECOND);
        for _ in 0..12 {
            let started = world.start();
            world.each(&started, Event::Exited);
            world.pass(60 * SECOND);
        }
        assert_eq!(world.heard(), down(Restart::Died));
        let before = world.dispatcher.counters().failed;
        (0..5).for_each(|client| world.request(client));
        world.pass(TICK);
        assert_eq!(world.dispatcher.counters().failed, before + 5);
        // Mended. What is started after so many deaths is believed when it answers.
        let Health::Down(outage) = world.dispatcher.health() else {
            panic!("it is down")
        };
        world.tell(Event::Roll);
        let started = world.start();
        world.request(9);
        world.each(&started, reply);
        let lasted = world.now - outage.since;
        assert_eq!(world.heard(), over(lasted, 5, true));
    }

    #[test]
    fn what_is_started_after_early_deaths_has_to_live_on_for_longer_than_those_did() {
        let mut world = World::new(1, |_| {});
        for _ in 0..2 {
            let started = world.start();
            world.each(&started, Event::Exited);
        }
        assert_eq!(world.heard(), down(Restart::Died));
        world.pass(TICK);
        world.start();
        world.pass(EARLY - SECOND);
        assert_eq!(world.heard(), []);
        world.pass(SECOND);
        assert_eq!(world.heard(), over(TICK + EARLY, 0, true));
    }

    #[test]
    fn every_way_to_fail_at_the_start_is_an_outage() {
        type Way = (Restart, fn(&mut World));
        let ways: [Way; 4] = [
            (Restart::SpawnFailed, |world| {
                let spawns = std::mem::take(&mut world.spawns);
                world.each(&spawns, Event::SpawnFailed);
            }),
            (Restart::StartTimeout, |world| {
                world.dispatcher.policy.ready_line = true;
                world.start();
                world.pass(3600 * SECOND);
            }),
            (Restart::Quarantined, |world| {
                let started = world.start();
                world.each(&started, |worker| Event::Probed(worker, ProbeResult::Failed));
            }),
            (Restart::Desync, |world| {
                let started = world.start();
                world.each(&started, |worker| Event::Broken(worker, super::super::Fault::Unasked));
            }),
        ];
        for (reason, fail) in ways {
            let mut world = World::new(2, |policy| {
                policy.probe_interval = (reason == Restart::Quarantined).then_some(60 * SECOND);
            });
            for _ in 0..2 {
                fail(&mut world);
            }
            assert_eq!(world.heard(), down(reason), "{reason:?}");
        }
    }

    #[test]
    fn all_that_serve_fail_their_probe_and_one_passes_again() {
        let mut world = World::new(2, |policy| {
            (policy.probe_interval, policy.queue_timeout) = (Some(60 * SECOND), SECOND);
        });
        let started = world.start();
        world.each(&started, |worker| Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(world.heard(), [HealthChange::Ready]);
        // One after the other is asked again.
        for worker in &started {
            world.tell(Event::Broken(*worker, super::super::Fault::Unasked));
        }
        assert_eq!(world.heard(), [], "they are replaced at once");
        let started = world.start();
        world.tell(Event::Probed(started[0], ProbeResult::Failed));
        assert_eq!(world.heard(), [], "the other one may pass");
        world.tell(Event::Probed(started[1], ProbeResult::Failed));
        assert_eq!(world.heard(), down(Restart::Quarantined));
        world.request(1);
        world.pass(TICK);
        let started = world.start();
        world.tell(Event::Probed(started[0], ProbeResult::Passed));
        assert_eq!(world.heard(), over(TICK, 1, false));
    }

    #[test]
    fn a_death_after_work_a_roll_a_spent_worker_and_an_end_are_no_outage() {
        let mut world = World::new(1, |_| {});
        let started = world.start();
        world.request(1);
        world.each(&started, reply);
        assert_eq!(world.heard(), [HealthChange::Ready]);
        world.each(&started, Event::Exited);
        let started = world.start();
        world.pass(20 * SECOND);
        world.tell(Event::Roll);
        let successors = world.start();
        world.each(&started, Event::Exited);
        world.request(2);
        world.tell(Event::Reply {
            worker: successors[0],
            to: ReplyTo::Oldest,
            after: AfterReply::Spent,
        });
        world.start();
        world.tell(Event::Shutdown(StopMode::EndInput));
        assert_eq!(world.heard(), []);
    }

    /// The old one serves, and what is wrong with the new ones costs nobody an answer.
    #[test]
    fn a_new_generation_that_fails_behind_the_old_one_is_no_outage_until_that_dies() {
        let mut world = World::new(1, |policy| policy.probe_interval = Some(3600 * SECOND));
        let old = world.start();
        world.each(&old, |worker| Event::Probed(worker, ProbeResult::Passed));
        world.tell(Event::Roll);
        for _ in 0..3 {
            let new = world.start();
            world.each(&new, |worker| Event::Probed(worker, ProbeResult::Failed));
            world.pass(60 * SECOND);
        }
        assert_eq!(world.heard(), [HealthChange::Ready]);
        world.each(&old, Event::Exited);
        assert_eq!(world.heard(), down(Restart::Quarantined));
    }

    #[test]
    fn a_successor_that_others_had_failed_before_is_no_longer_waited_for() {
        let mut world = World::new(1, |policy| policy.alarm_interval = GRACE / 10);
        world.start();
        world.tell(Event::Roll);
        for _ in 0..2 {
            let spawns = std::mem::take(&mut world.spawns);
            world.each(&spawns, Event::SpawnFailed);
        }
        world.pass(GRACE / 10);
        world.start();
        assert_eq!(world.heard(), [], "the one before them was not to be believed yet");
        world.pass(EARLY);
        assert_eq!(world.heard(), [HealthChange::Ready]);
        assert!(world.dispatcher.is_in_full_force());
    }

    /// All there are: no change is told twice, and none that is none.
    #[test]
    fn each_pair_of_state_and_outlook_is_decided() {
        let now = Instant::now();
        let outlooks = [
            Outlook::Hopeless(Restart::Died),
            Outlook::Open,
            Outlook::Fair,
            Outlook::Settled,
        ];
        let mut healths = vec![Health::Starting, Health::Serving];
        let reached = |health: Health| outlooks.map(|outlook| health.on(outlook, now, 3).0);
        let down: Vec<Health> = healths.iter().flat_map(|health| reached(*health)).collect();
        healths.extend(down);
        for (health, outlook) in healths
            .iter()
            .flat_map(|health| outlooks.map(|outlook| (*health, outlook)))
        {
            let (next, news) = health.on(outlook, now, 3);
            assert_eq!(news.is_some(), next != health, "{health:?} {outlook:?}");
            let starts_anew = next == Health::Starting && health != next;
            assert!(!starts_anew, "{health:?} {outlook:?}");
        }
    }
}
