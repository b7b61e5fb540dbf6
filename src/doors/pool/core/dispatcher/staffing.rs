//! The life of the workers: starting them, taking them into service, replacing and stopping them.
//!
//! The way back to the list of the available, and from there to the next request in the queue, is
//! [`Dispatcher::release`] alone. It is open only to a worker whose last reply was whole, with nothing behind it, and
//! which owes no answer.

use std::time::Duration;

use super::Dispatcher;
use crate::doors::pool::core::blame::Blame;
use crate::doors::pool::core::event::{
    Action, Fault, Inspection, ProbeResult, Replacement, Restart, StopMode, WorkerId,
};
use crate::doors::pool::core::health::Health;
use crate::doors::pool::core::places::{EARLY, Loss, Vacancy};
use crate::doors::pool::core::workers::{Channels, CheckDecision, CheckKind, Phase, Place, RestReason, Worker};

impl Dispatcher {
    // ---- starting ---------------------------------------------------------------------------------------------

    /// Adds a worker for a place, whose process is started at once or after a delay.
    fn add(&mut self, place: Place, delay: Duration) -> Option<WorkerId> {
        let id = self.workers.add(place, delay, self.now)?;
        if delay.is_zero() {
            self.outbox.push(Action::Spawn(id));
        }
        Some(id)
    }

    /// The respawn delay of a worker ends, by itself or early.
    pub(super) fn spawn(&mut self, id: WorkerId) {
        self.change(id, |worker, _| worker.enter(Phase::Spawning));
        self.outbox.push(Action::Spawn(id));
    }

    /// Returns true if the shell is still to spawn this worker. It may have been stopped in the meantime.
    pub fn awaits_spawn(&self, id: WorkerId) -> bool {
        self.workers.phase(id) == Some(Phase::Spawning)
    }

    pub(super) fn started(&mut self, id: WorkerId) {
        if !self.awaits_spawn(id) {
            return;
        }
        self.counters.spawns += 1;
        let channels = self
            .policy
            .concurrency
            .map(|limit| Channels::new(limit, &mut self.jitter));
        let (start_timeout, interval) = (self.policy.start_timeout, self.policy.probe_interval);
        self.change(id, |worker, now| {
            worker.start(now, now + start_timeout, interval, channels)
        });
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId) {
        if self.awaits_spawn(id) {
            self.fail(id, Restart::SpawnFailed, Blame::NoRequest);
        }
    }

    /// The worker is up, and serves; or is probed first: its start-up lasts until it has answered.
    pub(super) fn ready(&mut self, id: WorkerId) {
        // Any other phase: it was told to stop while its ready line was on the way.
        let Some(Phase::Starting { deadline }) = self.workers.phase(id) else {
            return;
        };
        let interval = self.workers.get(id).and_then(Worker::check_interval);
        if interval.is_some() {
            self.begin_check(id, CheckKind::Initial, deadline);
        } else {
            self.activate(id);
        }
    }

    /// The worker may be used: it takes over from its predecessor, if it has one, and serves.
    fn activate(&mut self, id: WorkerId) {
        let recycle_after = self.policy.max_requests.map(|number| self.jitter.around(number));
        let max_age = self.policy.max_age.map(|age| self.jitter.around_duration(age));
        let recycle_at = max_age.map(|age| self.now + age);
        if self.change(id, |worker, _| worker.activate(recycle_after, recycle_at)) == Some(true) {
            self.outbox.push(Action::QuarantineEnded(id));
        }
        if let Some(Place::Successor(slot)) = self.workers.place(id) {
            self.take_over(slot, id);
        }
        self.begin_trial(id);
        if self.workers.get(id).is_some_and(|worker| worker.has_been_quiet()) {
            // The worker has answered its probe this moment.
            self.rest(id, RestReason::Probe);
        } else {
            self.release(id);
        }
    }

    fn take_over(&mut self, slot: usize, id: WorkerId) {
        let Some((predecessor, reason)) = self.places.take_over(slot, id) else {
            return;
        };
        self.change(id, |worker, _| worker.promote(slot));
        self.counters.count_restart(reason);
        self.outbox.push(Action::Replaced(Replacement {
            worker: predecessor,
            slot: Some(slot),
            reason,
            delay: None,
            early_deaths: 0,
        }));
        self.drain(predecessor);
        self.advance_rotation();
    }

    // ---- in service -------------------------------------------------------------------------------------------

    /// A worker that has answered, and has nothing in hand, rests for as long as the policy wants; then it is free.
    pub(super) fn rest(&mut self, id: WorkerId, reason: RestReason) {
        let worker = self.workers.get(id);
        let may_rest = worker.is_some_and(|worker| !worker.has_channels() && worker.place != Place::Outgoing);
        if may_rest && !self.policy.rest.is_zero() {
            self.change(id, |worker, now| worker.enter(Phase::Resting { since: now, reason }));
        } else {
            self.release(id);
        }
    }

    /// A worker in step that has nothing in hand is free; or stops, if it has lost its place, or is probed.
    pub(super) fn release(&mut self, id: WorkerId) {
        if self.workers.place(id) == Some(Place::Outgoing) {
            return self.stop(id, StopMode::EndInput);
        }
        if self.check_if_due(id) == CheckDecision::Later {
            self.change(id, |worker, _| worker.enter(Phase::Available));
            self.recycle_if_worn_out(id);
        }
    }

    /// Probes a worker that serves and is free, if that is due.
    pub(super) fn check_if_due(&mut self, id: WorkerId) -> CheckDecision {
        let decision = self
            .workers
            .decide_check(id, self.requests.count_waiting() > 0, self.now);
        if decision == CheckDecision::Now {
            self.begin_check(id, CheckKind::Periodic, self.now + self.policy.busy_timeout);
        }
        decision
    }

    fn begin_check(&mut self, worker: WorkerId, kind: CheckKind, deadline: std::time::Instant) {
        self.counters.probes += 1;
        let channel = self
            .change(worker, |worker, _| worker.begin_check(kind, deadline))
            .flatten();
        self.outbox.push(Action::Probe { worker, channel });
    }

    pub(super) fn probed(&mut self, id: WorkerId, result: ProbeResult) {
        // Any other phase: it was told to stop, or its time was over, while its answer was on the way.
        let Some(Phase::Probing { kind, .. }) = self.workers.phase(id) else {
            return;
        };
        if result == ProbeResult::Failed {
            return self.fail(id, Restart::Quarantined, Blame::NoRequest);
        }
        let interval = self.workers.get(id).and_then(Worker::check_interval);
        // All workers are started together, and are not to be away together.
        let interval = interval.map(|interval| self.jitter.around_duration(interval));
        self.change(id, |worker, now| worker.pass_check(interval, now));
        match kind {
            CheckKind::Initial => self.activate(id),
            CheckKind::Periodic => self.rest(id, RestReason::Probe),
        }
    }

    pub(super) fn inspected(&mut self, id: WorkerId, inspection: Inspection) {
        let Some(Phase::Settling { .. }) = self.workers.phase(id) else {
            return;
        };
        match inspection {
            Inspection::InStep => {
                self.change(id, |worker, now| worker.mark_quiet(now));
                self.release(id);
            }
            Inspection::OutOfStep => {
                self.counters.unknown += 1;
                self.fail(id, Restart::Desync, Blame::NoRequest);
            }
        }
    }

    /// A worker has answered a request: it has started, its program works, and it is trusted.
    pub(super) fn count_answered(&mut self, id: WorkerId) {
        self.confirm(id);
        let Some(worker) = self.workers.get(id) else { return };
        let (place, age) = (worker.place, worker.age(self.now));
        if let Some(took) = age.filter(|_| worker.answered == 1) {
            self.workers.learn_start_up(took);
        }
        if let Place::Serving(slot) = place {
            self.places.excuse_deaths(slot);
        }
    }

    // ---- trust ------------------------------------------------------------------------------------------------

    /// A worker begins to serve. It is trusted at once, or after a while, or for its answers alone.
    fn begin_trial(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        // Where there is a probe, it has passed.
        if self.policy.ready_line || worker.check_interval().is_some() {
            return self.confirm(id);
        }
        let Place::Serving(slot) = worker.place else { return };
        if worker.trouble.is_some() {
            // A successor that others had failed before.
            self.settle(slot);
        } else if self.health.health == Health::Serving {
            return;
        }
        let time = self.health.trial(self.places.early_deaths(slot) > 0);
        self.change(id, |worker, now| worker.begin_trial(now + time));
    }

    /// A worker is trusted, as long as it is there.
    pub(super) fn confirm(&mut self, id: WorkerId) {
        if self.change(id, |worker, _| worker.confirm()) == Some(true)
            && let Some(Place::Serving(slot)) = self.workers.place(id)
        {
            self.settle(slot);
        }
    }

    fn settle(&mut self, slot: usize) {
        self.places.settle(slot);
        self.health.mark_due();
    }

    // ---- failing ----------------------------------------------------------------------------------------------

    pub(super) fn broken(&mut self, id: WorkerId, fault: Fault) {
        match (self.workers.phase(id), fault) {
            // The worker stops anyway, or has gone.
            (None | Some(Phase::Stopping | Phase::Delayed { .. } | Phase::Spawning), _) => {}
            (Some(_), Fault::OutputClosed) => self.fail(id, Restart::Died, Blame::Working),
            (Some(_), Fault::InputClosed(request)) => self.fail(id, Restart::Died, Blame::WorkingBefore(request)),
            (Some(_), Fault::Unasked) => {
                self.counters.unknown += 1;
                self.fail(id, Restart::Desync, Blame::NoRequest);
            }
            (Some(_), Fault::UnknownChannel) => {
                self.counters.unknown += 1;
                self.fail(id, Restart::UnknownChannel, Blame::Working);
            }
            (Some(_), Fault::ReplyTooLong(to)) => {
                self.change(id, |worker, _| worker.begin_reply(to));
                self.fail(id, Restart::Oversize, Blame::NoRequest);
            }
            (Some(_), Fault::Malformed) => self.fail(id, Restart::Malformed, Blame::Working),
        }
    }

    /// A worker is of no use any more. Its place gets another one, its requests other workers or refusals, its process
    /// (if there is one) is ended.
    pub(super) fn fail(&mut self, id: WorkerId, reason: Restart, blame: Blame) {
        let mode = if reason == Restart::Spent {
            StopMode::EndInput
        } else {
            StopMode::Terminate
        };
        self.end_worker(id, reason, blame, mode);
    }

    /// The same, with the manner in which the process is ended.
    pub(super) fn end_worker(&mut self, id: WorkerId, reason: Restart, blame: Blame, mode: StopMode) {
        let Some(phase) = self.workers.phase(id) else { return };
        let reason = phase.restart(reason);
        self.replace(id, reason);
        self.change(id, |worker, _| worker.give_up_place());
        if !phase.has_process() {
            return self.workers.remove(id, self.now);
        }
        self.stop(id, mode);
        self.end_flights(id, reason, blame);
    }

    pub(super) fn exited(&mut self, id: WorkerId) {
        let Some(phase) = self.workers.phase(id) else { return };
        if phase != Phase::Stopping {
            self.replace(id, phase.restart(Restart::Died));
            self.change(id, |worker, _| {
                worker.give_up_place();
                worker.enter(Phase::Stopping);
            });
            self.end_flights(id, Restart::Died, Blame::Working);
        }
        self.workers.remove(id, self.now);
    }

    /// Fills the place that a lost worker leaves.
    fn replace(&mut self, lost: WorkerId, reason: Restart) {
        self.counters.count_restart(reason);
        let Some(worker) = self.workers.get(lost) else { return };
        let place = worker.place;
        let is_early = worker.answered == 0 && worker.age(self.now).is_none_or(|age| age < EARLY);
        let is_over_request = self.policy.single_use && !worker.flights.is_empty();
        let (was_in_trouble, was_quarantined) = (worker.trouble.is_some(), worker.is_quarantined);
        let loss = Loss::new(reason, is_early, is_over_request);
        let vacancy = self.places.vacate(place, lost, loss, self.policy.alarm_interval);
        let (slot, early_deaths) = match place {
            Place::Serving(slot) | Place::Successor(slot) => (Some(slot), self.places.early_deaths(slot)),
            Place::Outgoing => (None, 0),
        };
        let delay = match vacancy {
            Vacancy::Empty { delay } => Some(delay),
            Vacancy::Taken { .. } | Vacancy::NoPlace => None,
        };
        if let Vacancy::Taken { slot, by } = vacancy {
            self.change(by, |worker, _| worker.promote(slot));
            self.advance_rotation();
        }
        self.outbox.push(Action::Replaced(Replacement {
            worker: lost,
            slot,
            reason,
            delay,
            early_deaths,
        }));
        let next = match vacancy {
            Vacancy::NoPlace => None,
            Vacancy::Taken { by, .. } => Some(by),
            Vacancy::Empty { delay } => self.add(place, delay).inspect(|added| self.places.fill(place, *added)),
        };
        let Some(next) = next else { return };
        let is_quarantined = was_quarantined || reason == Restart::Quarantined;
        let is_unmended = matches!(reason, Restart::StartTimeout | Restart::Quarantined)
            || delay.is_some_and(|delay| !delay.is_zero());
        let trouble = (was_in_trouble || is_unmended).then_some(reason);
        let is_in_trouble = self.change(next, |worker, _| worker.inherit(is_quarantined, trouble));
        // The lost one may have been the last that was not in trouble.
        self.health.mark_due();
        if let (Some(true), Some(Place::Serving(slot))) = (is_in_trouble, self.workers.place(next)) {
            self.settle(slot);
        }
    }

    // ---- stopping ---------------------------------------------------------------------------------------------

    /// A worker in good standing loses its place: it finishes what it has in hand, then stops.
    pub(super) fn drain(&mut self, id: WorkerId) {
        self.change(id, |worker, _| worker.give_up_place());
        match self.workers.phase(id) {
            Some(Phase::Busy { .. } | Phase::Settling { .. } | Phase::Stopping) | None => {}
            Some(Phase::Delayed { .. } | Phase::Spawning) => self.workers.remove(id, self.now),
            Some(Phase::Starting { .. } | Phase::Probing { .. } | Phase::Available | Phase::Resting { .. }) => {
                self.stop(id, StopMode::EndInput);
            }
        }
    }

    pub(super) fn stop(&mut self, id: WorkerId, mode: StopMode) {
        self.change(id, |worker, _| worker.enter(Phase::Stopping));
        self.outbox.push(Action::Stop(id, mode));
    }

    // ---- replacing in good order ------------------------------------------------------------------------------

    pub(super) fn recycle_if_worn_out(&mut self, id: WorkerId) {
        if self.workers.get(id).is_some_and(|worker| worker.is_worn_out(self.now)) {
            self.recycle(id);
        }
    }

    /// A worker has served long enough, or grown too large.
    pub(super) fn recycle(&mut self, id: WorkerId) {
        self.change(id, |worker, _| worker.forget_recycling());
        // Successors are young, and one that has lost its place is replaced already.
        let Some(Place::Serving(slot)) = self.workers.place(id) else {
            return;
        };
        if !self.is_stopping && self.places.recycle(slot, id) {
            self.advance_rotation();
        }
    }

    /// Adds the next successor, unless one is on its way.
    pub(super) fn advance_rotation(&mut self) {
        if self.places.has_successor() {
            return;
        }
        while let Some((slot, worker)) = self.places.next_turn() {
            let phase = self.workers.phase(worker);
            if let Some(Phase::Delayed { .. }) = phase {
                // The process to come will be of the new kind anyway; only, an operator does not wait for it.
                self.spawn(worker);
            } else if phase.is_some_and(Phase::has_process)
                && let Some(successor) = self.add(Place::Successor(slot), Duration::ZERO)
            {
                self.places.fill(Place::Successor(slot), successor);
                break;
            }
        }
        if self.places.end_roll() {
            self.outbox.push(Action::Rolled);
        }
    }

    // ---- places -----------------------------------------------------------------------------------------------

    /// Brings the number of places within what the policy allows. Load decides about the rest.
    pub(super) fn fit_places(&mut self) {
        while self.places.len() < self.policy.workers.min && self.open_place(0).is_some() {}
        while let Some(last) = self
            .places
            .last()
            .filter(|_| self.places.len() > self.policy.workers.max)
        {
            self.close_place(last);
        }
    }

    pub(super) fn open_place(&mut self, early_deaths: u32) -> Option<usize> {
        let number = self.places.vacancy();
        let serving = self.add(Place::Serving(number), Duration::ZERO)?;
        self.places.open(serving, early_deaths);
        self.health.mark_due();
        Some(number)
    }

    /// A place goes; its workers finish what they have in hand.
    fn close_place(&mut self, number: usize) {
        let Some(place) = self.places.close(number) else { return };
        self.health.mark_due();
        self.drain(place.serving);
        place.successor.into_iter().for_each(|successor| self.drain(successor));
    }

    /// Closes the last place in back-off, or else that of the free worker that was used least recently, or never.
    /// Returns false if there is none.
    pub(super) fn close_least_needed(&mut self) -> bool {
        let Some((slot, worker)) = self.least_needed() else {
            return false;
        };
        self.close_place(slot);
        self.counters.shrunk += 1;
        let places = self.places.len();
        self.outbox.push(Action::Shrunk { worker, slot, places });
        // A roll that was waiting for its successor goes on with the next.
        self.advance_rotation();
        true
    }

    fn least_needed(&self) -> Option<(usize, WorkerId)> {
        let is_in_back_off = |id| self.workers.get(id).is_some_and(Worker::is_in_back_off);
        let serving = self.places.iter().map(|(slot, place)| (slot, place.serving));
        let in_back_off = serving.rev().find(|(_, worker)| is_in_back_off(*worker));
        in_back_off.or_else(|| {
            let idle = self.workers.least_needed()?;
            Some((self.slot_of(idle)?, idle))
        })
    }
}
