//! Requests and workers: which request goes to which worker, and what comes of it.
//!
//! A request ends in exactly one of the callers of
//! [`Requests::take`](crate::doors::pool::core::requests::Requests::take): its reply, its refusal, or its client's
//! departure.

use std::time::{Duration, Instant};

use super::Dispatcher;
use crate::doors::pool::core::blame::{Blame, Fate, Wreck};
use crate::doors::pool::core::event::{
    Action, AfterReply, Assignment, ClientId, Completion, Fault, Refusal, RefusedRequest, ReplyTo, RequestId, Restart,
    StopMode, WorkerId,
};
use crate::doors::pool::core::requests::RequestState;
use crate::doors::pool::core::workers::{Flight, NextStep, Phase, RestReason, SETTLE};
use crate::doors::pool::options::Mode;

impl Dispatcher {
    // ---- to a worker ------------------------------------------------------------------------------------------

    pub(super) fn submit(&mut self, client: ClientId, size: usize) {
        self.counters.total += 1;
        if self.is_stopping {
            return self.refuse_new(client, Refusal::Shutdown);
        }
        if !self.workers.can_take_at_once() {
            self.counters.delayed += 1;
        }
        // No request overtakes the waiting ones.
        let is_first = self.requests.count_waiting() == 0;
        let worker = is_first.then(|| self.workers.choose(size, self.now)).flatten();
        if worker.is_none() && self.requests.count_waiting() >= self.policy.queue_size {
            return self.refuse_new(client, Refusal::QueueFull);
        }
        let give_up = self.now + self.policy.queue_timeout + self.policy.busy_timeout;
        let Some(request) = self.requests.admit(client, size, self.now, give_up) else {
            return self.refuse_new(client, Refusal::QueueFull);
        };
        match worker {
            Some(worker) => {
                self.change(worker, |worker, now| worker.mark_in_step(now));
                self.assign(request, worker);
            }
            None => self.enqueue(request),
        }
    }

    /// The request waits, for the first time or again: either way its client is watched from now on.
    fn enqueue(&mut self, request: RequestId) {
        let deadline = self.now + self.policy.queue_timeout;
        if let Some(client) = self.requests.enqueue(request, deadline) {
            self.outbox.push(Action::Enqueued { request, client });
        }
    }

    /// Gives requests that wait to workers that can take them, the longest wait first: at the end of every event,
    /// whatever it was that has made a worker free or a place in the queue another's.
    pub(super) fn serve_queue(&mut self) {
        while let Some((request, size)) = self.requests.first_waiting().map(|request| (request.id, request.size)) {
            let Some(worker) = self.workers.choose(size, self.now) else {
                return;
            };
            self.assign(request, worker);
        }
    }

    /// Gives a request to a worker that is available, or has room for one more.
    fn assign(&mut self, id: RequestId, worker: WorkerId) {
        let (began, busy_timeout) = (self.now, self.policy.busy_timeout);
        let Some(request) = self.requests.assign(id, worker) else {
            return;
        };
        let client = request.client;
        let flight = Flight {
            request: Some(id),
            size: request.size,
            channel: None,
            began,
            give_up: request.give_up,
            reply_begun: false,
        };
        let was_free = self.workers.phase(worker) == Some(Phase::Available);
        let Some(channel) = self.change(worker, |worker, _| worker.assign(flight, busy_timeout)) else {
            return;
        };
        match channel {
            Some(_) if !was_free => self.counters.concurrent += 1,
            None if !was_free => self.counters.ahead += 1,
            Some(_) | None => {}
        }
        self.outbox.push(Action::Assign(Assignment {
            worker,
            request: id,
            client,
            channel,
        }));
    }

    // ---- replies ----------------------------------------------------------------------------------------------

    pub(super) fn reply_begun(&mut self, id: WorkerId, to: ReplyTo) {
        match self.workers.phase(id) {
            Some(Phase::Busy { .. }) if self.change(id, |worker, _| worker.begin_reply(to)) == Some(true) => {}
            // The worker's last words, for which no client waits.
            Some(Phase::Stopping) | None => {}
            Some(_) => self.broken(id, Fault::of_stray(to)),
        }
    }

    pub(super) fn reply(&mut self, id: WorkerId, to: ReplyTo, after: AfterReply) {
        let busy_timeout = self.policy.busy_timeout;
        let flight = match self.workers.phase(id) {
            Some(Phase::Busy { .. }) => self
                .change(id, |worker, now| worker.land(to, busy_timeout, now))
                .flatten(),
            // The worker's last words: its requests have been dealt with.
            Some(Phase::Stopping) | None => return,
            Some(_) => None,
        };
        let Some(flight) = flight else {
            return self.broken(id, Fault::of_stray(to));
        };
        if let Some(request) = flight.request {
            self.answer(id, request, flight.began);
        }
        self.count_answered(id);
        match after {
            AfterReply::InStep => self.go_on(id, flight.size),
            AfterReply::OutOfStep => {
                self.counters.unknown += 1;
                // The rest may belong to any of the requests that are still in flight: all of them are asked again.
                self.fail(id, Restart::Desync, Blame::NoRequest);
            }
            AfterReply::Spent => self.fail(id, Restart::Spent, Blame::NoRequest),
            AfterReply::Cut => self.end_worker(id, Restart::Spent, Blame::NoRequest, StopMode::Terminate),
        }
    }

    fn answer(&mut self, worker: WorkerId, id: RequestId, began: Instant) {
        let Some(request) = self.requests.take(id) else { return };
        let served = self.now.saturating_duration_since(began);
        let waited = began.saturating_duration_since(request.arrived);
        self.counters.count_reply(served);
        self.outbox.push(Action::Answer(Completion {
            client: request.client,
            worker,
            waited,
            served,
        }));
    }

    /// A worker in step turns to what it has been given meanwhile, or is watched for a moment, or rests.
    fn go_on(&mut self, id: WorkerId, size: usize) {
        let others_wait = self.requests.count_waiting() > 0;
        let worker = self.workers.get(id);
        match worker.map(|worker| worker.next_step(size, others_wait, self.now)) {
            Some(NextStep::Continue) => self.recycle_if_worn_out(id),
            Some(NextStep::Settle) => {
                let until = self.now + SETTLE.max(self.policy.rest);
                self.change(id, |worker, _| worker.enter(Phase::Settling { until }));
            }
            Some(NextStep::Rest) => self.rest(id, RestReason::Request),
            None => {}
        }
    }

    // ---- other ends -------------------------------------------------------------------------------------------

    /// The client of a request has gone. `is_untouched`: its worker has not had a byte of it.
    pub(super) fn abandon(&mut self, id: RequestId, is_untouched: bool) {
        // None: its answer or refusal was on the way when the client went.
        let Some(request) = self.requests.take(id) else { return };
        self.counters.hung_up += 1;
        let is_untouched = is_untouched || self.outbox.cancel(id);
        match request.state {
            RequestState::Waiting => {}
            RequestState::Assigned(worker) if is_untouched => self.unassign(id, worker),
            RequestState::Assigned(worker) => {
                self.change(worker, |worker, _| worker.orphan(id));
            }
        }
    }

    fn unassign(&mut self, id: RequestId, worker: WorkerId) {
        if self.change(worker, |worker, _| worker.unassign(id)) == Some(true) {
            self.release(worker);
            self.workers.put_back(worker);
        }
    }

    pub(super) fn refuse(&mut self, id: RequestId, reason: Refusal, worker: Option<WorkerId>) {
        let Some(request) = self.requests.take(id) else { return };
        self.counters.count_refusal(reason);
        self.outbox.push(Action::Refuse(RefusedRequest {
            client: request.client,
            reason,
            worker,
            waited: self.now.saturating_duration_since(request.arrived),
        }));
    }

    fn refuse_new(&mut self, client: ClientId, reason: Refusal) {
        self.counters.count_refusal(reason);
        self.outbox.push(Action::Refuse(RefusedRequest {
            client,
            reason,
            worker: None,
            waited: Duration::ZERO,
        }));
    }

    /// Ends all flights of a worker that is lost.
    pub(super) fn end_flights(&mut self, id: WorkerId, reason: Restart, blame: Blame) {
        let Some(worker) = self.workers.get(id) else { return };
        // A worker that serves once has nothing to prove itself by.
        let serves_once = self.policy.single_use || self.policy.mode == Mode::Session;
        let (at_once, is_proven) = (worker.has_channels(), serves_once || worker.answered > 0);
        let flights = self.change(id, |worker, _| worker.take_flights()).unwrap_or_default();
        if flights.is_empty() {
            return;
        }
        let mut wreck = Wreck {
            reason,
            blame,
            at_once,
            overdue: self.now.checked_sub(self.policy.busy_timeout),
            unwritten: self.outbox.cancel_assignments(id),
        };
        for (number, flight) in flights.iter().enumerate() {
            let Some(request) = flight.request else { continue };
            match wreck.decide(number, flight, request) {
                Fate::Refused(refusal) => self.refuse(request, refusal, Some(id)),
                Fate::AskedAgain { is_suspect } => self.ask_again(request, id, is_suspect && is_proven),
            }
        }
    }

    /// A request whose worker is lost goes to another one, as often as the policy says. `is_death`: that loss counts.
    fn ask_again(&mut self, id: RequestId, worker: WorkerId, is_death: bool) {
        let Some(request) = self.requests.get(id) else { return };
        let (deaths, is_over) = (request.deaths + u32::from(is_death), request.give_up <= self.now);
        if deaths > self.policy.retries || is_over {
            return self.refuse(id, Refusal::WorkerDied, Some(worker));
        }
        self.counters.retried += 1;
        self.requests.set_deaths(id, deaths);
        // Back to where it stood by its arrival; from there to a worker, if one can take it.
        self.enqueue(id);
    }
}
