//! Requests: taking them in, giving them to workers, ending them.
//!
//! A request ends in exactly one of [`Dispatcher::finish`]'s callers: its reply, its refusal, or its client's departure.

use std::time::Instant;

use super::blame::Blame;
use super::deadlines::{LONG_REQUEST, SETTLE, UNWATCHED};
use super::event::{Action, AfterReply, ClientId, Refusal, ReplyTo, RequestId, WorkerId};
use super::worker::{Flight, Phase, Place, RestReason};
use super::{Dispatcher, Fault, Restart, Stage};
use crate::doors::pool::options::Mode;

/// A request in hand.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) client: ClientId,
    pub(super) size: usize,
    pub(super) arrived: Instant,
    /// By then it ends, whatever happens: queue time-out plus busy time-out after its arrival.
    pub(super) give_up: Instant,
    /// Workers that have died over it.
    pub(super) deaths: u32,
    pub(super) state: RequestState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestState {
    /// In the queue.
    Waiting,
    /// With that worker, which is busy with it.
    Assigned(WorkerId),
}

impl Dispatcher {
    pub(super) fn submit(&mut self, client: ClientId, size: usize) {
        self.counters.total += 1;
        if self.stage == Stage::Stopping {
            return self.refuse_new(client, Refusal::Shutdown);
        }
        if !self.can_take_at_once() {
            self.counters.delayed += 1;
        }
        // Nobody overtakes those who wait already.
        let first = self.queue.len() == 0;
        let worker = if first { self.worker_for(size) } else { None };
        if worker.is_none() && self.queue.len() >= self.policy.queue_size {
            return self.refuse_new(client, Refusal::QueueFull);
        }
        let Some(request) = self.admit(client, size) else {
            return self.refuse_new(client, Refusal::QueueFull);
        };
        match worker {
            Some(worker) => {
                self.mark_in_step(worker);
                self.assign(request, worker);
            }
            None => self.enqueue(request),
        }
    }

    /// Who takes the next request: a free worker, always, the best of them; with none free, the one with the fewest requests in
    /// flight among those that may be given one more. A long request is never written ahead: its worker is to be watched after
    /// it, with nothing behind it. Where a stray answer is known by its number, nothing has to be watched.
    fn worker_for(&mut self, size: usize) -> Option<WorkerId> {
        if let Some(free) = self.available.choose(self.now, self.start_up) {
            return Some(free);
        }
        let fits = |worker: &WorkerId| size <= LONG_REQUEST || self.has_channels(*worker);
        self.room.first().map(|(_, worker)| *worker).filter(fits)
    }

    pub(super) fn has_channels(&self, id: WorkerId) -> bool {
        self.worker(id).is_some_and(|worker| worker.channels.is_some())
    }

    fn admit(&mut self, client: ClientId, size: usize) -> Option<RequestId> {
        let entry = self.requests.vacant_entry();
        let id = RequestId {
            index: u32::try_from(entry.key()).ok()?,
            ticket: self.tickets,
        };
        self.tickets += 1;
        entry.insert(Request {
            id,
            client,
            size,
            arrived: self.now,
            give_up: self.now + self.policy.queue_timeout + self.policy.busy_timeout,
            deaths: 0,
            state: RequestState::Waiting,
        });
        Some(id)
    }

    /// The request waits, for the first time or again: either way its client is watched from now on.
    fn enqueue(&mut self, id: RequestId) {
        let deadline = self.now + self.policy.queue_timeout;
        let Some(request) = self.request_mut(id) else { return };
        request.state = RequestState::Waiting;
        let (client, deadline) = (request.client, deadline.min(request.give_up));
        self.queue.insert(id, deadline);
        self.queue_peak = self.queue_peak.max(self.queue.len());
        self.actions.push_back(Action::Enqueued { request: id, client });
    }

    /// Gives a request to a worker that is available, or has room for one more.
    fn assign(&mut self, id: RequestId, to: WorkerId) {
        let Some(request) = self.request_mut(id) else {
            return;
        };
        request.state = RequestState::Assigned(to);
        let (client, size, give_up) = (request.client, request.size, request.give_up);
        // Behind others, or on its second worker, it may have to be given up before that worker's time is over.
        self.lower_wake(give_up);
        let began = self.now;
        let Some(worker) = self.worker_mut(to) else {
            return;
        };
        let channel = worker.next_channel();
        let flight = Flight {
            request: Some(id),
            size,
            channel,
            began,
            reply_begun: false,
        };
        worker.flights.push_back(flight);
        if worker.phase == Phase::Available {
            self.turn_to_oldest(to);
        } else {
            match channel {
                Some(_) => self.counters.concurrent += 1,
                None => self.counters.ahead += 1,
            }
            self.list_room(to);
        }
        let action = Action::Assign {
            worker: to,
            request: id,
            client,
            channel,
        };
        self.actions.push_back(action);
    }

    /// The worker has another flight for its oldest: the one whose time is over first. That time begins now, unless the
    /// worker has been at it, as at all the others, since it was given it.
    fn turn_to_oldest(&mut self, id: WorkerId) {
        let (now, busy_timeout) = (self.now, self.policy.busy_timeout);
        let Some(worker) = self.worker_mut(id) else { return };
        let at_once = worker.channels.is_some();
        let Some(oldest) = worker.flights.front_mut() else {
            return;
        };
        if !at_once {
            oldest.began = now;
        }
        let deadline = oldest.began + busy_timeout;
        self.enter(id, Phase::Busy { deadline });
    }

    /// Keeps the list of those with room for one more in step with a worker: it serves, it is busy, with nothing long, and
    /// is not waited for to be probed.
    pub(super) fn list_room(&mut self, id: WorkerId) {
        let (pipeline, now) = (self.policy.pipeline, self.now);
        let must_run_dry = self.must_run_dry(id);
        let Some(worker) = self.worker_mut(id) else {
            return;
        };
        let in_step = || {
            // After a second without a pause it is left to run dry, and watched.
            now.saturating_duration_since(worker.in_step_at) < UNWATCHED
                && worker.flights.iter().all(|flight| flight.size <= LONG_REQUEST)
        };
        let may = matches!(worker.phase, Phase::Busy { .. })
            && matches!(worker.place, Place::Serving(_))
            && worker.flights.len() < worker.most_flights(pipeline)
            && !must_run_dry
            && (worker.channels.is_some() || in_step());
        let wanted = may.then_some(worker.flights.len());
        let listed = std::mem::replace(&mut worker.room_listed, wanted);
        if listed != wanted {
            listed.map(|load| self.room.remove(&(load, id)));
            wanted.map(|load| self.room.insert((load, id)));
        }
    }

    /// The way back to the list of the available, and from there to the next request in the queue. It is open only to a worker
    /// whose last reply was whole, with nothing behind it, and who owes nobody anything: its callers are
    /// [`activate`](Self::activate) and [`inspected`](Self::inspected), where each of these was seen, [`rest`](Self::rest)
    /// and [`end_rests`](Self::end_rests) after a [`reply`](Self::reply) or [`probe`](Self::probed), where it was too, and
    /// [`unassign`](Self::unassign), where it was so before and nothing has been given to the worker since.
    pub(super) fn release(&mut self, worker: WorkerId) {
        if self.place(worker) == Some(Place::Outgoing) {
            return self.stop_gently(worker);
        }
        if self.probe_again(worker) {
            return;
        }
        self.enter(worker, Phase::Available);
        self.recycle_if_due(worker);
    }

    /// Gives requests that wait to workers that can take them, the longest wait first: at the end of every event, whatever
    /// it was that has made a worker free or a place in the queue another's.
    pub(super) fn serve_queue(&mut self) {
        while let Some(next) = self.queue.first() {
            let size = self.request_mut(next).map_or(0, |request| request.size);
            let Some(worker) = self.worker_for(size) else { return };
            self.queue.remove(next);
            self.assign(next, worker);
        }
    }

    pub(super) fn reply_begun(&mut self, worker: WorkerId, to: ReplyTo) {
        match self.phase(worker) {
            Some(Phase::Busy { .. }) if self.mark_reply_begun(worker, to) => {}
            // Its last words; nobody waits for them.
            Some(Phase::Stopping) | None => {}
            Some(_) => self.broken(worker, Fault::of_stray(to)),
        }
    }

    /// One of a worker's flights has landed.
    pub(super) fn reply(&mut self, worker: WorkerId, to: ReplyTo, after: AfterReply) {
        match self.phase(worker) {
            Some(Phase::Busy { .. }) => {}
            // Its last words; it is on its way out and its requests have been dealt with.
            Some(Phase::Stopping) | None => return,
            Some(_) => return self.broken(worker, Fault::of_stray(to)),
        }
        let Some(flight) = self.worker_mut(worker).and_then(|worker| worker.land(to)) else {
            return self.broken(worker, Fault::of_stray(to));
        };
        if let Some(request) = flight.request {
            self.answer(worker, request, flight.began);
        }
        self.count_answered(worker);
        if self.in_flight(worker) > 0 {
            self.turn_to_oldest(worker);
        }
        match after {
            AfterReply::OutOfStep => {
                self.counters.unknown += 1;
                // Which of what is still in flight the rest belongs to, nobody knows: all of it is asked again.
                self.fail(worker, Restart::Desync, Blame::NoRequest);
            }
            AfterReply::Spent => self.fail(worker, Restart::Spent, Blame::NoRequest),
            AfterReply::InStep => self.go_on(worker, flight.size),
        }
    }

    /// A worker in step turns to what it has been given meanwhile, or is watched for a moment, or is free.
    fn go_on(&mut self, worker: WorkerId, size: usize) {
        if self.in_flight(worker) > 0 {
            self.recycle_if_due(worker);
        } else if (size > LONG_REQUEST || self.is_unwatched(worker)) && !self.has_channels(worker) {
            let until = self.now + SETTLE.max(self.policy.rest);
            self.enter(worker, Phase::Settling { until });
        } else {
            self.rest(worker, RestReason::Request);
        }
    }

    /// Whether a worker would be given one request after the other for longer than is good: one that is out of step shows
    /// it only when it has nothing to do.
    fn is_unwatched(&self, id: WorkerId) -> bool {
        self.queue.len() > 0
            && self
                .worker(id)
                .is_some_and(|worker| self.now.saturating_duration_since(worker.in_step_at) >= UNWATCHED)
    }

    /// A worker that was free, and had written nothing meanwhile (the shell looks before it gives it anything), or that was
    /// watched and found clean, is in step at this moment.
    pub(super) fn mark_in_step(&mut self, id: WorkerId) {
        let now = self.now;
        if let Some(worker) = self.worker_mut(id) {
            worker.in_step_at = now;
        }
    }

    fn answer(&mut self, worker: WorkerId, request: RequestId, began: Instant) {
        let Some(request) = self.finish(request) else { return };
        let served = self.now.saturating_duration_since(began);
        let waited = began.saturating_duration_since(request.arrived);
        self.counters.count_reply(served);
        self.actions.push_back(Action::Answer {
            client: request.client,
            worker,
            waited,
            served,
        });
    }

    pub(super) fn abandon(&mut self, id: RequestId) {
        // None: its answer or refusal was on the way when the client went.
        let Some(request) = self.finish(id) else { return };
        self.counters.hung_up += 1;
        let called_back = self.cancel_actions(id);
        match request.state {
            RequestState::Waiting => self.queue.remove(id),
            RequestState::Assigned(worker) if called_back => self.unassign(worker, id),
            RequestState::Assigned(worker) => self.orphan(worker, id),
        }
    }

    pub(super) fn withdraw(&mut self, id: RequestId) {
        let Some(request) = self.finish(id) else { return };
        self.counters.hung_up += 1;
        match request.state {
            RequestState::Waiting => self.queue.remove(id),
            RequestState::Assigned(worker) => self.unassign(worker, id),
        }
    }

    /// What was decided for a request and is not carried out yet never will be. Whether it had been given to a worker so.
    fn cancel_actions(&mut self, id: RequestId) -> bool {
        let mut assigned = false;
        self.actions.retain(|action| match action {
            Action::Assign { request, .. } if *request == id => {
                assigned = true;
                false
            }
            Action::Enqueued { request, .. } => *request != id,
            _ => true,
        });
        assigned
    }

    /// Nobody waits any more for one of a worker's flights; the worker goes on with it all the same.
    fn orphan(&mut self, worker: WorkerId, id: RequestId) {
        let Some(worker) = self.worker_mut(worker) else {
            return;
        };
        if let Some(flight) = worker.flights.iter_mut().find(|flight| flight.request == Some(id)) {
            flight.request = None;
        }
    }

    /// A flight that has not begun: the worker has not been given a byte of it.
    fn unassign(&mut self, worker: WorkerId, id: RequestId) {
        let Some(held) = self.worker_mut(worker) else {
            return;
        };
        held.flights.retain(|flight| flight.request != Some(id));
        if held.flights.is_empty() {
            self.release(worker);
            self.available.put_back(worker);
        } else {
            self.list_room(worker);
        }
    }

    /// The request's end is due, but its worker has still time: the worker goes on, for nobody.
    pub(super) fn give_up(&mut self, worker: WorkerId, request: RequestId) {
        self.orphan(worker, request);
        self.refuse(request, Refusal::BusyTimeout, Some(worker));
    }

    /// What becomes of a request whose worker is lost. `Delivered::No`: not a byte of it reached that worker.
    pub(super) fn requeue(&mut self, id: RequestId, worker: WorkerId, delivered: Delivered) {
        let retries = self.policy.retries;
        // One that serves once has nothing to prove itself by.
        let serves_once = self.policy.single_use || self.policy.mode == Mode::Session;
        let proven = serves_once || self.worker(worker).is_some_and(|worker| worker.answered > 0);
        let (now, Some(request)) = (self.now, self.request_mut(id)) else {
            return;
        };
        if delivered == Delivered::Yes && proven {
            request.deaths += 1;
        }
        if request.deaths > retries || request.give_up <= now {
            return self.refuse(id, Refusal::WorkerDied, Some(worker));
        }
        self.counters.retried += 1;
        // Back to where it stood by its arrival; from there to a worker, if one can take it.
        self.enqueue(id);
    }

    pub(super) fn refuse(&mut self, id: RequestId, reason: Refusal, worker: Option<WorkerId>) {
        let Some(request) = self.finish(id) else { return };
        let waited = self.now.saturating_duration_since(request.arrived);
        self.count_refusal(reason);
        self.actions.push_back(Action::Refuse {
            client: request.client,
            reason,
            worker,
            waited,
        });
    }

    fn refuse_new(&mut self, client: ClientId, reason: Refusal) {
        self.count_refusal(reason);
        self.actions.push_back(Action::Refuse {
            client,
            reason,
            worker: None,
            waited: std::time::Duration::ZERO,
        });
    }

    fn count_refusal(&mut self, reason: Refusal) {
        self.counters.failed += 1;
        let refusals = &mut self.counters.refusals;
        let count = match reason {
            Refusal::QueueFull => &mut refusals.queue_full,
            Refusal::QueueTimeout => &mut refusals.queue_timeout,
            Refusal::BusyTimeout => &mut refusals.busy_timeout,
            Refusal::WorkerDied => &mut refusals.worker_died,
            Refusal::ReplyTooLong => &mut refusals.reply_too_long,
            Refusal::BadReply => &mut refusals.bad_reply,
            Refusal::Shutdown => &mut refusals.shutdown,
        };
        *count += 1;
    }

    /// Forgets a request: its one end.
    fn finish(&mut self, id: RequestId) -> Option<Request> {
        self.request_mut(id)?;
        self.requests.try_remove(index(id))
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(index(id)).filter(|request| request.id == id)
    }

    pub(super) fn request_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.requests.get_mut(index(id)).filter(|request| request.id == id)
    }
}

/// Whether a lost worker had been given any byte of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivered {
    Yes,
    No,
}

fn index(id: RequestId) -> usize {
    id.index as usize
}
