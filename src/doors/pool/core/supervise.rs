//! Workers: starting them, taking them into service, losing them, letting them go.

use std::time::Duration;

use super::blame::Blame;
use super::event::{Action, Fault, Inspection, Refusal, Restart, StopMode, WorkerId};
use super::probe::NextCheck;
use super::respawn::{self, EARLY};
use super::worker::{Phase, Place, RestReason, Worker};
use super::{Dispatcher, Stage};
use crate::doors::pool::options::Policy;

impl Dispatcher {
    // ---- looking up -------------------------------------------------------------------------------------------

    pub(super) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(id.index as usize).filter(|worker| worker.id == id)
    }

    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(id.index as usize).filter(|worker| worker.id == id)
    }

    pub(super) fn phase(&self, id: WorkerId) -> Option<Phase> {
        self.worker(id).map(|worker| worker.phase)
    }

    pub(super) fn place(&self, id: WorkerId) -> Option<Place> {
        self.worker(id).map(|worker| worker.place)
    }

    /// The only writer of a worker's phase: keeps the list of the available, the number of the occupied and the next
    /// deadline in step with it.
    pub(super) fn enter(&mut self, id: WorkerId, phase: Phase) {
        let Some(worker) = self.worker_mut(id) else { return };
        let before = std::mem::replace(&mut worker.phase, phase);
        let (deadline, free_since) = (worker.deadline(), worker.free_since());
        if before == Phase::Available {
            self.available.remove(id);
        }
        if phase == Phase::Available {
            self.available.insert(id, free_since, self.now);
        }
        self.occupied = self.occupied + usize::from(phase.is_occupied()) - usize::from(before.is_occupied());
        if let Some(at) = deadline {
            self.lower_wake(at);
        }
        self.list_room(id);
        if !self.policy.workers.is_fixed() {
            self.note_staffing(id);
        }
    }

    // ---- starting ---------------------------------------------------------------------------------------------

    /// A new worker for a place: at once, or after a delay.
    pub(super) fn add_worker(&mut self, place: Place, delay: Duration) -> Option<WorkerId> {
        let entry = self.workers.vacant_entry();
        let id = WorkerId {
            index: u32::try_from(entry.key()).ok()?,
            incarnation: self.incarnations,
        };
        self.incarnations = self.incarnations.wrapping_add(1);
        if delay.is_zero() {
            entry.insert(Worker::new(id, place, Phase::Spawning, self.now));
            self.actions.push_back(Action::Spawn(id));
        } else {
            let until = self.now + delay;
            entry.insert(Worker::new(id, place, Phase::Delayed { until }, self.now));
            self.lower_wake(until);
        }
        if let Some(worker) = self.worker_mut(id) {
            worker.retry = !delay.is_zero();
        }
        self.note_staffing(id);
        Some(id)
    }

    /// Whether the shell is still to spawn this worker. It may have been let go in the meantime.
    pub fn awaits_spawn(&self, id: WorkerId) -> bool {
        self.phase(id) == Some(Phase::Spawning)
    }

    pub(super) fn started(&mut self, id: WorkerId) {
        let (now, deadline) = (self.now, self.now + self.policy.start_timeout);
        let next_check = self.policy.probe_interval.map(|interval| NextCheck::new(interval, now));
        let Some(worker) = self.worker_mut(id).filter(|worker| worker.phase == Phase::Spawning) else {
            return;
        };
        (worker.started, worker.in_step_at, worker.next_check) = (Some(now), now, next_check);
        self.counters.spawns += 1;
        self.open_channels(id);
        self.enter(id, Phase::Starting { deadline });
    }

    pub(super) fn spawn_failed(&mut self, id: WorkerId) {
        if self.awaits_spawn(id) {
            self.fail(id, Restart::SpawnFailed, Blame::NoRequest);
        }
    }

    /// The worker is up, and serves; or is probed first.
    pub(super) fn ready(&mut self, id: WorkerId) {
        // Any other phase: it was told to go while its ready line was on the way.
        let Some(Phase::Starting { deadline }) = self.phase(id) else {
            return;
        };
        if !self.probe_first(id, deadline) {
            self.activate(id);
        }
    }

    /// The worker may be believed: it takes over from its predecessor, if it has one, and serves.
    pub(super) fn activate(&mut self, id: WorkerId) {
        self.end_quarantine(id);
        let recycle_after = self.policy.max_requests.map(|number| self.jitter.around(number));
        let recycle_at = self
            .policy
            .max_age
            .map(|age| self.now + self.jitter.around_duration(age));
        if let Some(worker) = self.worker_mut(id) {
            (worker.recycle_after, worker.recycle_at) = (recycle_after, recycle_at);
        }
        if let Some(at) = recycle_at {
            self.lower_wake(at);
        }
        if let Some(Place::Successor(slot)) = self.place(id) {
            self.take_over(slot, id);
        }
        self.begin_trial(id);
        match self.worker(id).and_then(|worker| worker.quiet) {
            // It has answered its probe this moment.
            Some(_) => self.rest(id, RestReason::Probe),
            None => self.release(id),
        }
    }

    fn take_over(&mut self, slot: usize, id: WorkerId) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let predecessor = std::mem::replace(&mut place.serving, id);
        place.successor = None;
        place.early_deaths = 0;
        if let Some(worker) = self.worker_mut(id) {
            worker.place = Place::Serving(slot);
        }
        let reason = self.rotation.current_reason();
        self.count_restart(reason);
        self.actions.push_back(Action::Replaced {
            worker: predecessor,
            slot: Some(slot),
            reason,
            delay: None,
            early_deaths: 0,
        });
        self.drain(predecessor);
        self.advance_rotation();
    }

    // ---- ending -----------------------------------------------------------------------------------------------

    /// A worker in good standing loses its place: it finishes what it has in hand, then goes.
    pub(super) fn drain(&mut self, id: WorkerId) {
        let Some(worker) = self.worker_mut(id) else { return };
        worker.place = Place::Outgoing;
        match worker.phase {
            // It has lost its place, and is given nothing more.
            Phase::Busy { .. } | Phase::Settling { .. } | Phase::Stopping => self.list_room(id),
            Phase::Delayed { .. } | Phase::Spawning => self.remove_worker(id),
            Phase::Starting { .. } | Phase::Probing { .. } | Phase::Available | Phase::Resting { .. } => {
                self.stop_gently(id)
            }
        }
    }

    pub(super) fn stop_gently(&mut self, id: WorkerId) {
        self.stop(id, StopMode::EndInput);
    }

    fn stop(&mut self, id: WorkerId, ending: StopMode) {
        self.enter(id, Phase::Stopping);
        self.actions.push_back(Action::Stop(id, ending));
    }

    pub(super) fn broken(&mut self, id: WorkerId, fault: Fault) {
        match (self.phase(id), fault) {
            // It is going anyway, or has gone.
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
                self.mark_reply_begun(id, to);
                self.fail(id, Restart::Oversize, Blame::NoRequest);
            }
            (Some(_), Fault::Malformed) => self.fail(id, Restart::Malformed, Blame::Working),
        }
    }

    pub(super) fn inspected(&mut self, id: WorkerId, inspection: Inspection) {
        let Some(Phase::Settling { .. }) = self.phase(id) else {
            return;
        };
        match inspection {
            Inspection::InStep => {
                self.mark_in_step(id);
                self.mark_quiet(id);
                self.release(id);
            }
            Inspection::OutOfStep => {
                self.counters.unknown += 1;
                self.fail(id, Restart::Desync, Blame::NoRequest);
            }
        }
    }

    pub(super) fn exited(&mut self, id: WorkerId) {
        match self.phase(id) {
            None => return,
            Some(Phase::Stopping) => {}
            Some(phase) => {
                self.replace(id, phase.loss(Restart::Died));
                if let Some(worker) = self.worker_mut(id) {
                    worker.place = Place::Outgoing;
                }
                self.enter(id, Phase::Stopping);
                self.end_flights_of(id, phase, Restart::Died, Blame::Working);
            }
        }
        self.remove_worker(id);
    }

    /// A worker is of no use any more. Its place gets another one, its requests other workers or refusals, its process
    /// (if there is one) is ended.
    pub(super) fn fail(&mut self, id: WorkerId, reason: Restart, blame: Blame) {
        let reason = self.phase(id).map_or(reason, |phase| phase.loss(reason));
        self.replace(id, reason);
        let ending = match reason {
            Restart::Spent => StopMode::EndInput,
            _ => StopMode::Terminate,
        };
        if let Some(phase) = self.take_out_of_service(id, ending) {
            self.end_flights_of(id, phase, reason, blame);
        }
    }

    /// Sends a lost worker away and returns what it was doing.
    fn take_out_of_service(&mut self, id: WorkerId, ending: StopMode) -> Option<Phase> {
        let worker = self.worker_mut(id)?;
        worker.place = Place::Outgoing;
        let phase = worker.phase;
        if phase.has_process() {
            self.stop(id, ending);
        } else {
            self.remove_worker(id);
        }
        Some(phase)
    }

    /// Fills the place that a lost worker leaves.
    fn replace(&mut self, id: WorkerId, reason: Restart) {
        self.count_restart(reason);
        let Some(place) = self.place(id) else { return };
        let (Place::Serving(slot) | Place::Successor(slot)) = place else {
            self.actions.push_back(Action::Replaced {
                worker: id,
                slot: None,
                reason,
                delay: None,
                early_deaths: 0,
            });
            return;
        };
        let delay = self.respawn_delay(id, slot, reason);
        let early_deaths = self.slots.get(slot).map_or(0, |slot| slot.early_deaths);
        let successor = self
            .slots
            .get(slot)
            .and_then(|slot| slot.successor)
            .filter(|successor| *successor != id);
        if let (Place::Serving(_), Some(successor)) = (place, successor) {
            // One is on its way already, and need not wait for the other any more.
            self.inherit_quarantine(id, reason, successor);
            self.promote(slot, successor);
            self.inherit_trouble(id, reason, Duration::ZERO, successor);
            self.actions.push_back(Action::Replaced {
                worker: id,
                slot: Some(slot),
                reason,
                delay: None,
                early_deaths,
            });
            return;
        }
        self.actions.push_back(Action::Replaced {
            worker: id,
            slot: Some(slot),
            reason,
            delay: Some(delay),
            early_deaths,
        });
        let Some(added) = self.add_worker(place, delay) else {
            return;
        };
        self.inherit_quarantine(id, reason, added);
        self.inherit_trouble(id, reason, delay, added);
        let Some(slot) = self.slots.get_mut(slot) else { return };
        match place {
            Place::Serving(_) => slot.serving = added,
            Place::Successor(_) | Place::Outgoing => slot.successor = Some(added),
        }
    }

    fn promote(&mut self, slot: usize, successor: WorkerId) {
        if let Some(slot) = self.slots.get_mut(slot) {
            (slot.serving, slot.successor) = (successor, None);
        }
        if let Some(worker) = self.worker_mut(successor) {
            worker.place = Place::Serving(slot);
        }
        self.note_staffing(successor);
        self.advance_rotation();
    }

    fn respawn_delay(&mut self, id: WorkerId, slot: usize, reason: Restart) -> Duration {
        let now = self.now;
        let early = self.worker(id).is_some_and(|worker| {
            worker.answered == 0
                && worker
                    .started
                    .is_none_or(|started| now.saturating_duration_since(started) < EARLY)
        });
        // One that serves once has never answered anything before. Each of these losses counts against its request, so there
        // are no more starts than requests and their retries.
        let over_its_request = self.policy.single_use
            && self.in_flight(id) > 0
            && matches!(reason, Restart::Died | Restart::Oversize | Restart::Malformed);
        let Some(slot) = self.slots.get_mut(slot) else {
            return Duration::ZERO;
        };
        slot.early_deaths = match reason {
            // The request took too long, not the start.
            Restart::BusyTimeout => slot.early_deaths,
            _ if over_its_request => slot.early_deaths,
            // What is wrong is not over in a moment, so there is always a delay.
            Restart::Quarantined => slot.early_deaths.saturating_add(1).max(respawn::FIRST_DELAYED),
            _ if early => slot.early_deaths.saturating_add(1),
            _ => 0,
        };
        respawn::delay(slot.early_deaths, self.policy.alarm_interval)
    }

    fn remove_worker(&mut self, id: WorkerId) {
        if self.worker(id).is_some() {
            self.enter(id, Phase::Stopping);
            self.workers.try_remove(id.index as usize);
        }
    }

    // ---- the pool as a whole ----------------------------------------------------------------------------------

    pub(super) fn reconfigure(&mut self, policy: Policy) {
        self.policy = policy;
        self.reset_load();
        if self.stage == Stage::Serving {
            self.fit_slots();
            self.advance_rotation();
            // How many requests a worker may have may be another number now.
            let all: Vec<WorkerId> = self.workers.iter().map(|(_, worker)| worker.id).collect();
            all.into_iter().for_each(|worker| self.list_room(worker));
        }
    }

    pub(super) fn shutdown(&mut self, ending: StopMode) {
        self.stage = Stage::Stopping;
        self.rotation = super::Rotation::default();
        self.reset_load();
        self.slots.clear();
        while let Some(request) = self.queue.pop() {
            self.refuse(request, Refusal::Shutdown, None);
        }
        let all: Vec<WorkerId> = self.workers.iter().map(|(_, worker)| worker.id).collect();
        for id in all {
            self.shut_down_worker(id, ending);
        }
    }

    fn shut_down_worker(&mut self, id: WorkerId, ending: StopMode) {
        let Some(worker) = self.worker_mut(id) else { return };
        worker.place = Place::Outgoing;
        match worker.phase {
            Phase::Delayed { .. } | Phase::Spawning => return self.remove_worker(id),
            Phase::Starting { .. }
            | Phase::Probing { .. }
            | Phase::Available
            | Phase::Busy { .. }
            | Phase::Settling { .. }
            | Phase::Resting { .. }
            | Phase::Stopping => {}
        }
        for request in std::mem::take(&mut worker.flights)
            .into_iter()
            .filter_map(|flight| flight.request)
        {
            self.refuse(request, Refusal::Shutdown, Some(id));
        }
        self.stop(id, ending);
    }

    pub(super) fn count_answered(&mut self, id: WorkerId) {
        self.mark_quiet(id);
        self.confirm(id);
        self.learn_start_up(id);
        if let Some(worker) = self.worker_mut(id) {
            worker.answered += 1;
            // While a successor is on its way the count is of those before it, which this one's work does not excuse.
            if let Place::Serving(slot) = worker.place
                && let Some(slot) = self.slots.get_mut(slot).filter(|slot| slot.successor.is_none())
            {
                slot.early_deaths = 0;
            }
        }
    }

    /// A worker has nothing to do from now on, and nothing more to say.
    pub(super) fn mark_quiet(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.worker_mut(id) {
            worker.quiet = Some(now);
        }
    }

    /// A worker answers for the first time: by then it had started, however long it has waited for its request.
    fn learn_start_up(&mut self, id: WorkerId) {
        let first = self.worker(id).filter(|worker| worker.answered == 0);
        if let Some(started) = first.and_then(|worker| worker.started) {
            let took = self.now.saturating_duration_since(started);
            self.start_up = Some(self.start_up.map_or(took, |known| known.min(took)));
        }
    }

    fn count_restart(&mut self, reason: Restart) {
        let restarts = &mut self.counters.restarts;
        let count = match reason {
            Restart::Died => &mut restarts.died,
            Restart::SpawnFailed => &mut restarts.spawn_failed,
            Restart::StartTimeout => &mut restarts.start_timeout,
            Restart::BusyTimeout => &mut restarts.busy_timeout,
            Restart::Desync => &mut restarts.desync,
            Restart::UnknownChannel => &mut restarts.unknown_channel,
            Restart::Oversize => &mut restarts.oversize,
            Restart::Quarantined => &mut restarts.quarantined,
            Restart::Malformed => &mut restarts.malformed,
            Restart::Recycled => &mut restarts.recycled,
            Restart::Spent => &mut restarts.spent,
            Restart::Asked => &mut restarts.asked,
        };
        *count += 1;
    }
}
