//! The pool's ability to serve, as the operator is told of it: that it can, for the first time; that it cannot any
//! more; that this is over.
//!
//! ```text
//!              a worker is trusted, and no
//!              place is waited for any more
//!   Starting ------------------------------------> Serving
//!      |                                            ^   |
//!      |                     a worker is trusted    |   |  every place is in trouble,
//!      |                  +-------------------------+   |  and no worker serves
//!      |                  |                             |
//!      +--------------> Down <--------------------------+
//!        the same
//! ```
//!
//! **Trouble.** A worker is in trouble if the one before it in its place was lost in a way that a new start need not
//! mend: it was not ready in time, failed its probe, or is only started again after a delay. It hands that on to the
//! next one, until one is trusted. A worker that dies after it has worked for a while is replaced at once, and none is
//! in trouble; so a single death, a roll or an upgrade is never told as an outage.
//!
//! **Trust.** A worker is trusted once it has answered something, its probe included, or has said that it is ready. Of
//! one that is not asked for either it is only known that it runs: it is trusted when it has done so for [`GRACE`], or,
//! in an outage or where others have died early before it, for as long as counts as early. So a program that dies as
//! soon as it is started is never taken for one that serves, and the two lines about an outage do not alternate with
//! each of its starts.

use std::time::{Duration, Instant};

use super::event::Restart;
use super::places::{EARLY, Places};
use super::workers::{Worker, Workers};

/// A worker of which nothing is known but that it runs is trusted after this time.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// The pool's ability to serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The pool has never served.
    Starting,
    /// Some worker serves, or will as far as is known.
    Serving,
    /// No worker serves, and every place is in trouble.
    Down(Outage),
}

/// A time in which no client is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outage {
    since: Instant,
    /// The number of requests that had failed by then.
    failed_before: u64,
    /// The pool had served before.
    has_served: bool,
}

/// A change of the health, as the operator is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthChange {
    /// The pool serves, for the first time.
    Ready,
    /// No worker can serve.
    Down {
        /// The reason for which one of them was lost.
        reason: Restart,
    },
    /// A worker serves again.
    Over {
        /// The length of the outage.
        lasted: Duration,
        /// The number of requests that failed meanwhile.
        failed: u64,
        /// The pool had never served before.
        first_time: bool,
    },
}

/// The prospects of a pool at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outlook {
    /// Every place is in trouble, one for this reason, and no worker serves.
    Hopeless(Restart),
    /// No worker is trusted yet.
    Open,
    /// A worker is trusted, and others are waited for.
    Fair,
    /// A worker is trusted, and each of the others has failed.
    Settled,
}

/// The trust in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Nothing is known of the worker, and nothing depends on it.
    Unknown,
    /// The worker runs. That is enough if it still does at that time.
    OnTrial { until: Instant },
    /// The worker is trusted.
    Confirmed,
}

/// The health that the operator was told of last.
#[derive(Debug)]
pub(super) struct HealthMonitor {
    pub(super) health: Health,
    /// True if the health may have changed since.
    is_due: bool,
}

impl Health {
    /// The one place where it changes.
    fn after(self, outlook: Outlook, now: Instant, failed: u64) -> (Health, Option<HealthChange>) {
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

impl HealthMonitor {
    pub(super) fn new() -> Self {
        HealthMonitor {
            health: Health::Starting,
            is_due: false,
        }
    }

    /// Notes that a worker was lost, or a place opened, closed or settled.
    pub(super) fn mark_due(&mut self) {
        self.is_due = true;
    }

    /// Must be called at the end of every event, with the number of failed requests. Returns what the operator is told.
    pub(super) fn update(
        &mut self,
        workers: &Workers,
        places: &Places,
        failed: u64,
        now: Instant,
    ) -> Option<HealthChange> {
        if !std::mem::take(&mut self.is_due) {
            return None;
        }
        let (health, change) = self.health.after(self.outlook(workers, places), now, failed);
        self.health = health;
        change
    }

    /// Costs a look at one place, most often: the first one that is not in trouble.
    fn outlook(&self, workers: &Workers, places: &Places) -> Outlook {
        if let Some(reason) = hopeless(workers, places) {
            return Outlook::Hopeless(reason);
        }
        if self.health == Health::Serving {
            // Nothing else would change that.
            return Outlook::Fair;
        }
        if !in_places(workers, places).any(|worker| worker.trust == Trust::Confirmed) {
            Outlook::Open
        } else if places.all_settled() {
            Outlook::Settled
        } else {
            Outlook::Fair
        }
    }

    /// The time for which a worker has to run until it is trusted, where nothing else is known of it. `others_died`:
    /// those before it in its place have died early.
    pub(super) fn trial(&self, others_died: bool) -> Duration {
        let is_down = matches!(self.health, Health::Down(_));
        if others_died || is_down { EARLY } else { GRACE }
    }

    /// Returns true if a worker serves in every place, after others may have failed there too.
    pub(super) fn is_in_full_force(&self, workers: &Workers, places: &Places) -> bool {
        let is_fine = |worker: &Worker| worker.phase.is_serving() && worker.trouble.is_none();
        self.health == Health::Serving && in_places(workers, places).all(is_fine)
    }

    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self, workers: &Workers, places: &Places) {
        let is_down = matches!(self.health, Health::Down(_));
        assert!(
            is_down || hopeless(workers, places).is_none(),
            "no worker can serve, and the operator is not told"
        );
        let is_trusted = in_places(workers, places).any(|worker| worker.trust == Trust::Confirmed);
        assert!(
            !(is_down && is_trusted),
            "a worker serves, and the operator is not told"
        );
    }
}

/// The workers that serve in the places, or will.
fn in_places<'a>(workers: &'a Workers, places: &'a Places) -> impl Iterator<Item = &'a Worker> {
    places.iter().filter_map(|(_, slot)| workers.get(slot.serving))
}

/// The reason for which a worker was lost, if none can serve.
fn hopeless(workers: &Workers, places: &Places) -> Option<Restart> {
    let mut reason = None;
    for worker in in_places(workers, places) {
        reason = Some(worker.trouble.filter(|_| !worker.phase.is_serving())?);
    }
    reason
}

#[cfg(test)]
mod tests {
    use super::super::dispatcher::testing::World;
    use super::super::{Action, AfterReply, ClientId, Dispatcher, Event, ProbeResult, ReplyTo, StopMode, WorkerId};
    use super::*;
    use crate::doors::pool::options::Policy;

    const SECOND: Duration = Duration::from_secs(1);
    const TICK: Duration = Duration::from_secs(2);

    struct Pool {
        now: Instant,
        dispatcher: Dispatcher,
        spawns: Vec<WorkerId>,
        changes: Vec<HealthChange>,
    }

    impl Pool {
        /// One in which workers do not say that they are ready.
        fn new(workers: usize, change: impl FnOnce(&mut Policy)) -> Self {
            let mut policy = Policy {
                ready_line: false,
                alarm_interval: TICK,
                ..Policy::for_tests(workers)
            };
            change(&mut policy);
            let now = Instant::now();
            let mut pool = Pool {
                now,
                dispatcher: Dispatcher::new(policy, now, 1),
                spawns: Vec::new(),
                changes: Vec::new(),
            };
            pool.fetch();
            pool
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

        /// Starts whatever is to be started, and all of it runs.
        fn start(&mut self) -> Vec<WorkerId> {
            let started = std::mem::take(&mut self.spawns);
            for worker in &started {
                self.tell(Event::Started(*worker));
                if !self.dispatcher.policy().ready_line {
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
        let mut pool = Pool::new(2, |_| {});
        let workers = pool.start();
        pool.pass(GRACE - Duration::from_millis(1));
        assert_eq!((pool.heard(), pool.dispatcher.health()), (vec![], Health::Starting));
        pool.pass(Duration::from_millis(1));
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        let mut pool = Pool::new(1, |_| {});
        let started = pool.start();
        pool.request(1);
        pool.each(&started, reply);
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        assert_eq!(workers.len(), 2);
    }

    #[test]
    fn a_ready_line_is_believed_at_once_and_all_workers_are_waited_for() {
        let mut pool = Pool::new(2, |policy| policy.ready_line = true);
        let workers = pool.start();
        pool.tell(Event::Ready(workers[0]));
        pool.pass(60 * SECOND);
        assert_eq!(pool.heard(), []);
        pool.tell(Event::Ready(workers[1]));
        assert_eq!(pool.heard(), [HealthChange::Ready]);
    }

    #[test]
    fn a_worker_that_fails_while_another_serves_is_not_waited_for() {
        let mut pool = Pool::new(2, |policy| policy.probe_interval = Some(60 * SECOND));
        let workers = pool.start();
        pool.tell(Event::Probed(workers[0], ProbeResult::Failed));
        assert_eq!(pool.heard(), []);
        pool.tell(Event::Probed(workers[1], ProbeResult::Passed));
        assert_eq!(pool.heard(), [HealthChange::Ready]);
    }

    #[test]
    fn a_program_that_dies_at_each_start_is_an_outage_that_is_told_once() {
        let mut pool = Pool::new(3, |policy| policy.queue_timeout = SECOND);
        for _ in 0..12 {
            let started = pool.start();
            pool.each(&started, Event::Exited);
            pool.pass(60 * SECOND);
        }
        assert_eq!(pool.heard(), down(Restart::Died));
        let before = pool.dispatcher.counters().failed;
        (0..5).for_each(|client| pool.request(client));
        pool.pass(TICK);
        assert_eq!(pool.dispatcher.counters().failed, before + 5);
        // Mended. A worker that is started after many deaths is trusted when it answers.
        let Health::Down(outage) = pool.dispatcher.health() else {
            panic!("it is down")
        };
        pool.tell(Event::Roll);
        let started = pool.start();
        pool.request(9);
        pool.each(&started, reply);
        let lasted = pool.now - outage.since;
        assert_eq!(pool.heard(), over(lasted, 5, true));
    }

    #[test]
    fn a_worker_started_after_early_deaths_must_outlive_them_to_be_trusted() {
        let mut pool = Pool::new(1, |_| {});
        for _ in 0..2 {
            let started = pool.start();
            pool.each(&started, Event::Exited);
        }
        assert_eq!(pool.heard(), down(Restart::Died));
        pool.pass(TICK);
        pool.start();
        pool.pass(EARLY - SECOND);
        assert_eq!(pool.heard(), []);
        pool.pass(SECOND);
        assert_eq!(pool.heard(), over(TICK + EARLY, 0, true));
    }

    #[test]
    fn every_way_to_fail_at_the_start_is_an_outage() {
        type Way = (Restart, fn(&mut Pool));
        let ways: [Way; 4] = [
            (Restart::SpawnFailed, |pool| {
                let spawns = std::mem::take(&mut pool.spawns);
                pool.each(&spawns, Event::SpawnFailed);
            }),
            (Restart::StartTimeout, |pool| {
                pool.dispatcher.policy_mut().ready_line = true;
                pool.start();
                pool.pass(3600 * SECOND);
            }),
            (Restart::Quarantined, |pool| {
                let started = pool.start();
                pool.each(&started, |worker| Event::Probed(worker, ProbeResult::Failed));
            }),
            (Restart::Desync, |pool| {
                let started = pool.start();
                pool.each(&started, |worker| Event::Broken(worker, super::super::Fault::Unasked));
            }),
        ];
        for (reason, fail) in ways {
            let mut pool = Pool::new(2, |policy| {
                policy.probe_interval = (reason == Restart::Quarantined).then_some(60 * SECOND);
            });
            for _ in 0..2 {
                fail(&mut pool);
            }
            assert_eq!(pool.heard(), down(reason), "{reason:?}");
        }
    }

    #[test]
    fn all_that_serve_fail_their_probe_and_one_passes_again() {
        let mut pool = Pool::new(2, |policy| {
            (policy.probe_interval, policy.queue_timeout) = (Some(60 * SECOND), SECOND);
        });
        let started = pool.start();
        pool.each(&started, |worker| Event::Probed(worker, ProbeResult::Passed));
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        // One after the other is asked again.
        for worker in &started {
            pool.tell(Event::Broken(*worker, super::super::Fault::Unasked));
        }
        assert_eq!(pool.heard(), [], "they are replaced at once");
        let started = pool.start();
        pool.tell(Event::Probed(started[0], ProbeResult::Failed));
        assert_eq!(pool.heard(), [], "the other one may pass");
        pool.tell(Event::Probed(started[1], ProbeResult::Failed));
        assert_eq!(pool.heard(), down(Restart::Quarantined));
        pool.request(1);
        pool.pass(TICK);
        let started = pool.start();
        pool.tell(Event::Probed(started[0], ProbeResult::Passed));
        assert_eq!(pool.heard(), over(TICK, 1, false));
    }

    #[test]
    fn a_death_after_work_a_roll_a_spent_worker_and_an_end_are_no_outage() {
        let mut pool = Pool::new(1, |_| {});
        let started = pool.start();
        pool.request(1);
        pool.each(&started, reply);
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        pool.each(&started, Event::Exited);
        let started = pool.start();
        pool.pass(20 * SECOND);
        pool.tell(Event::Roll);
        let successors = pool.start();
        pool.each(&started, Event::Exited);
        pool.request(2);
        pool.tell(Event::Reply {
            worker: successors[0],
            to: ReplyTo::Oldest,
            after: AfterReply::Spent,
        });
        pool.start();
        pool.tell(Event::Shutdown(StopMode::EndInput));
        assert_eq!(pool.heard(), []);
    }

    /// The old one serves, and what is wrong with the new ones costs no client an answer.
    #[test]
    fn a_new_generation_that_fails_behind_the_old_one_is_no_outage_until_that_dies() {
        let mut pool = Pool::new(1, |policy| policy.probe_interval = Some(3600 * SECOND));
        let old = pool.start();
        pool.each(&old, |worker| Event::Probed(worker, ProbeResult::Passed));
        pool.tell(Event::Roll);
        for _ in 0..3 {
            let new = pool.start();
            pool.each(&new, |worker| Event::Probed(worker, ProbeResult::Failed));
            pool.pass(60 * SECOND);
        }
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        pool.each(&old, Event::Exited);
        assert_eq!(pool.heard(), down(Restart::Quarantined));
    }

    #[test]
    fn a_successor_that_others_had_failed_before_is_no_longer_waited_for() {
        let mut pool = Pool::new(1, |policy| policy.alarm_interval = GRACE / 10);
        pool.start();
        pool.tell(Event::Roll);
        for _ in 0..2 {
            let spawns = std::mem::take(&mut pool.spawns);
            pool.each(&spawns, Event::SpawnFailed);
        }
        pool.pass(GRACE / 10);
        pool.start();
        assert_eq!(pool.heard(), [], "the one before them was not to be believed yet");
        pool.pass(EARLY);
        assert_eq!(pool.heard(), [HealthChange::Ready]);
        assert!(pool.dispatcher.is_in_full_force());
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
        let reached = |health: Health| outlooks.map(|outlook| health.after(outlook, now, 3).0);
        let down: Vec<Health> = healths.iter().flat_map(|health| reached(*health)).collect();
        healths.extend(down);
        for (health, outlook) in healths
            .iter()
            .flat_map(|health| outlooks.map(|outlook| (*health, outlook)))
        {
            let (next, news) = health.after(outlook, now, 3);
            assert_eq!(news.is_some(), next != health, "{health:?} {outlook:?}");
            let starts_anew = next == Health::Starting && health != next;
            assert!(!starts_anew, "{health:?} {outlook:?}");
        }
    }
}
