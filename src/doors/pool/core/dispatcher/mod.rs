//! The coordinator: every event has its place in [`Dispatcher::handle`]. It asks the types that own the state of the
//! pool, and applies what they decide: it alone takes actions down, counts, and tells one of them what another has
//! decided.
//!
//! The dispatcher's methods stand here, for time and for the pool as a whole; in [`assigning`], for requests; and in
//! [`staffing`], for the life of the workers.

mod assigning;
#[cfg(debug_assertions)]
mod invariants;
mod staffing;
mod view;

use std::time::Instant;

use super::blame::Blame;
use super::counters::{Counters, Saturation};
use super::elastic::{Elastic, Load};
use super::event::{Action, Event, Refusal, StopMode, WorkerId};
use super::health::HealthMonitor;
use super::outbox::Outbox;
use super::places::Places;
use super::requests::Requests;
use super::workers::{Due, Phase, Worker, Workers};
use crate::doors::jitter::Jitter;
use crate::doors::pool::options::Policy;

pub use view::{RequestInHand, SlotView, WaitingRequest};

/// The state of one pool.
#[derive(Debug)]
pub struct Dispatcher {
    policy: Policy,
    /// The time of the event at hand.
    now: Instant,
    is_stopping: bool,
    outbox: Outbox,
    workers: Workers,
    requests: Requests,
    places: Places,
    elastic: Elastic,
    health: HealthMonitor,
    jitter: Jitter,
    counters: Counters,
    saturation: Saturation,
}

impl Dispatcher {
    /// A pool whose workers are all still to be spawned: the first actions say so. `seed` feeds the jitter.
    pub fn new(policy: Policy, now: Instant, seed: u64) -> Self {
        let mut dispatcher = Dispatcher {
            workers: Workers::new(&policy),
            policy,
            now,
            is_stopping: false,
            outbox: Outbox::default(),
            requests: Requests::default(),
            places: Places::default(),
            elastic: Elastic::default(),
            health: HealthMonitor::new(),
            jitter: Jitter::new(seed),
            counters: Counters::default(),
            saturation: Saturation::default(),
        };
        dispatcher.fit_places();
        #[cfg(debug_assertions)]
        dispatcher.check_invariants();
        dispatcher
    }

    /// Must be called before the first event. Begins with this number of places, as far as the policy allows: a
    /// predecessor had them, and its load comes over in one moment. What becomes of them is for the load to decide.
    pub fn begin_with(&mut self, places: usize) {
        while self.places.len() < places.min(self.policy.workers.max) && self.open_place(0).is_some() {}
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// Takes in what has happened. [`next_action`](Self::next_action) tells what is to be done about it.
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Request { client, size } => self.submit(client, size),
            Event::Abandoned(request) => self.abandon(request, false),
            Event::Withdrawn(request) => self.abandon(request, true),
            Event::Started(worker) => self.started(worker),
            Event::SpawnFailed(worker) => self.spawn_failed(worker),
            Event::Ready(worker) => self.ready(worker),
            Event::ReplyBegun(worker, to) => self.reply_begun(worker, to),
            Event::Reply { worker, to, after } => self.reply(worker, to, after),
            Event::Broken(worker, fault) => self.broken(worker, fault),
            Event::Inspected(worker, inspection) => self.inspected(worker, inspection),
            Event::Probed(worker, result) => self.probed(worker, result),
            Event::Exited(worker) => self.exited(worker),
            Event::Outgrown(worker) => self.recycle(worker),
            Event::Tick => self.tick(),
            Event::Roll => self.roll(),
            Event::Reconfigure(policy) => self.reconfigure(*policy),
            Event::Shutdown(mode) => self.shut_down(mode),
        }
        self.serve_queue();
        self.follow_load();
        self.follow_health();
        let is_saturated = !self.workers.can_take_at_once() && self.workers.headcount.occupied > 0;
        self.saturation.update(is_saturated, self.now);
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// The next thing to do, in order; must be fetched until there is none before the loop goes on.
    pub fn next_action(&mut self) -> Option<Action> {
        self.outbox.pop()
    }

    /// The time when an [`Event::Tick`] is wanted at the latest. Earlier ticks do no harm.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.workers.next_deadline(),
            self.requests.next_deadline(),
            self.elastic.deadline(&self.policy.workers),
        ];
        deadlines.into_iter().flatten().min()
    }

    // ---- time -------------------------------------------------------------------------------------------------

    fn tick(&mut self) {
        let decided_before = self.outbox.len();
        for worker in self.workers.all_due(self.now) {
            self.tick_worker(worker);
        }
        self.workers.find_next_deadline(self.now);
        while let Some(worker) = self.workers.next_rested(self.now) {
            self.change(worker, |worker, now| worker.mark_quiet(now));
            self.release(worker);
        }
        // After a pause of the whole daemon everything may be due at once: a request that can be served now is not
        // refused.
        self.serve_queue();
        if self.outbox.has_inspection_after(decided_before) {
            // The inspected workers may be free before the loop goes on. The queue is still due, so another tick comes
            // at once.
            return;
        }
        while let Some(request) = self.requests.next_expired(self.now) {
            self.refuse(request, Refusal::QueueTimeout, None);
        }
    }

    fn tick_worker(&mut self, id: WorkerId) {
        self.recycle_if_worn_out(id);
        let worker = self.workers.get(id);
        if worker.is_some_and(|worker| worker.has_passed_trial(self.now)) {
            self.confirm(id);
        }
        match self.workers.get(id).and_then(|worker| worker.due(self.now)) {
            Some(Due::Spawn) => self.spawn(id),
            Some(Due::Failure(reason)) => self.fail(id, reason, Blame::NoRequest),
            Some(Due::Check) => {
                self.check_if_due(id);
            }
            Some(Due::Expiry(requests)) => {
                for request in requests {
                    self.change(id, |worker, _| worker.orphan(request));
                    self.refuse(request, Refusal::BusyTimeout, Some(id));
                }
            }
            Some(Due::Inspection) => self.outbox.push(Action::Inspect(id)),
            None => {}
        }
    }

    // ---- the pool as a whole ----------------------------------------------------------------------------------

    /// Replaces all workers, also the starting ones (they may have read what the operator has changed since) and
    /// successors on their way.
    fn roll(&mut self) {
        if self.is_stopping {
            return;
        }
        for successor in self.places.begin_roll() {
            self.drain(successor);
        }
        self.workers.forget_start_up();
        self.advance_rotation();
    }

    fn reconfigure(&mut self, policy: Policy) {
        self.workers.reconfigure(&policy);
        self.policy = policy;
        // The load that was seen under the old policy decides nothing any more.
        self.elastic = Elastic::default();
        if !self.is_stopping {
            self.fit_places();
            self.advance_rotation();
            self.workers.refresh_room(self.now);
        }
    }

    fn shut_down(&mut self, mode: StopMode) {
        self.is_stopping = true;
        self.elastic = Elastic::default();
        self.places.close_all();
        while let Some(request) = self.requests.first_waiting().map(|request| request.id) {
            self.refuse(request, Refusal::Shutdown, None);
        }
        for id in self.workers.ids() {
            self.change(id, |worker, _| worker.give_up_place());
            if self.workers.phase(id).is_some_and(Phase::has_process) {
                let flights = self.change(id, |worker, _| worker.take_flights());
                for request in flights.into_iter().flatten().filter_map(|flight| flight.request) {
                    self.refuse(request, Refusal::Shutdown, Some(id));
                }
                self.stop(id, mode);
            } else {
                self.workers.remove(id, self.now);
            }
        }
    }

    /// Opens and closes places as the load wants it.
    fn follow_load(&mut self) {
        if self.policy.workers.is_fixed() || self.is_stopping {
            return;
        }
        let (load, alarm) = (self.load(), self.policy.alarm_interval);
        for _ in 0..self.elastic.grow(&load, &self.policy.workers, self.now) {
            let Some(slot) = self.open_place(1) else { break };
            self.counters.grown += 1;
            let places = self.places.len();
            self.outbox.push(Action::Grown { slot, places });
        }
        let load = self.load();
        // If all that are idle are being probed, it is tried again.
        if self.elastic.shrink(&load, &self.policy.workers, alarm, self.now) && self.close_least_needed() {
            self.elastic.note_closed();
        }
    }

    fn load(&self) -> Load {
        let (waiting, workers) = (self.requests.count_waiting(), self.workers.headcount);
        let free = self.workers.count_free();
        let waiting = if self.policy.pipeline == 1 || free > 0 {
            waiting
        } else {
            // Requests that were written ahead wait too.
            self.requests.len().saturating_sub(workers.occupied).max(waiting)
        };
        Load { free, waiting, workers }
    }

    fn follow_health(&mut self) {
        let (workers, places) = (&self.workers, &self.places);
        if let Some(change) = self.health.update(workers, places, self.counters.failed, self.now) {
            self.outbox.push(Action::Health(change));
        }
    }

    /// Changes a worker at the time of the event at hand. Returns `None` if it is not there any more.
    fn change<T>(&mut self, id: WorkerId, change: impl FnOnce(&mut Worker, Instant) -> T) -> Option<T> {
        let now = self.now;
        self.workers.update(id, now, |worker| change(worker, now))
    }
}

#[cfg(test)]
pub(super) mod testing;
