//! The pool's only I/O: events from the reactor become [`core::Event`](super::core::Event)s, and the dispatcher's
//! [`Action`]s become reads, writes, processes and closed connections.
//!
//! The decisions are carried out by one `match` over [`Action`]. Three rooms have their part in it: [`clients`] reads
//! requests, keeps their order and writes answers; [`workers`] starts processes, gives them requests, reads their
//! replies and sees them end; [`sessions`] joins a connection to a worker of its own. A room is lent a [`Desk`] with
//! each call, and knows no other room. What concerns several of them stands beside them: reading (`reading`), sessions
//! with their workers (`joining`), beginning and end of the pool (`lifecycle`), the dump (`describe`), and the lines of
//! the log about the pool and its requests (`logging`). `sources` names the sources of the reactor's events.
//!
//! Invariants:
//! - After every call from the reactor the dispatcher's actions are carried out and its next deadline is armed.
//! - A reply is handed to its client while it still lies in the buffer it was read into; nothing is copied for it
//!   unless it came in pieces or the client's socket is full.
//! - A worker's output is read before its end is reported, so that an answer given with the last breath still counts.

mod clients;
mod describe;
mod desk;
mod joining;
mod lifecycle;
mod logging;
mod reading;
mod sessions;
mod sources;
mod workers;

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::core::{Action, Assignment, ClientId, Completion, Event, Refusal, Replacement, WorkerId};
use super::report::{Latencies, Topic};
use super::story::Next;
use crate::net::listening::Accepting;
use crate::reactor::{Alarm, Context, READ_BUFFER, Readiness, Service, Source, SourceKind};

use crate::doors::Door;
use clients::Clients;
use desk::{Base, Desk};
use sessions::Sessions;
use sources::PoolSource;
use workers::Workers;
use workers::process::WorkerProcess;

pub(super) use lifecycle::cannot_start;

/// A pool on the loop.
#[derive(Debug)]
pub struct Pool {
    base: Base,
    dispatcher_alarm: Alarm,
    clients: Clients,
    sessions: Sessions,
    workers: Workers,
    latencies: Latencies,
    /// Requests that came before this are confidential, whatever the options say now.
    disclosed_from: Option<Instant>,
}

/// A whole reply in the shell's hands, while the dispatcher decides whose it is.
#[derive(Debug, Clone, Copy)]
struct Reply<'a> {
    worker: WorkerId,
    bytes: &'a [u8],
    /// The text of it, without what its framing adds.
    payload: &'a [u8],
    /// The length of the read that brought its end.
    read: usize,
}

impl Reply<'_> {
    /// The worker, if it has written nothing behind what was read as far as can be known: the read did not fill the
    /// buffer, so nothing was left in the pipe.
    fn last_speaker(&self) -> Option<WorkerId> {
        (self.read < READ_BUFFER).then_some(self.worker)
    }
}

impl Service for Pool {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        let Some(kind) = PoolSource::from_source(source) else {
            return;
        };
        match kind {
            PoolSource::Client => self.client_ready(cx, source.key, readiness),
            PoolSource::WorkerOutput => self.read_worker(cx, source.key, readiness.read_closed || readiness.hung_up),
            PoolSource::Session => self.session_ready(cx, source.key, readiness),
            PoolSource::Listener => self.accept(cx, source.key),
            PoolSource::Arrival => self.arrival_ready(cx, source.key, readiness),
            PoolSource::WorkerInput => self.input_ready(cx, source.key),
            PoolSource::WorkerErrors => self.workers.stderr_ready(&mut self.base.desk(cx), source.key),
            PoolSource::WorkerExit => self.exit_ready(cx, source.key),
            // These are alarms and leftovers, never registered with the poll.
            PoolSource::WorkerEnding
            | PoolSource::Spawning
            | PoolSource::Dispatcher
            | PoolSource::Queue
            | PoolSource::HeldBack
            | PoolSource::Upkeep
            | PoolSource::Drain => {}
        }
        self.end_step(cx);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        let Some(kind) = PoolSource::from_source(source) else {
            return;
        };
        match kind {
            PoolSource::Client => self.client_timeout(cx, source.key),
            PoolSource::Session => self.session_timeout(cx, source.key),
            PoolSource::Dispatcher => {
                cx.clear_alarm(&mut self.dispatcher_alarm);
                self.base.desk(cx).report(Event::Tick);
            }
            PoolSource::Queue => self.clients.watch_waiting(&mut self.base.desk(cx)),
            PoolSource::WorkerEnding => self.workers.ending_timeout(&mut self.base.desk(cx), source.key),
            PoolSource::Listener => self.retry_accepting(cx, source.key),
            PoolSource::Arrival => self.arrival_timeout(cx, source.key),
            PoolSource::WorkerOutput => self.reply_timeout(cx, source.key),
            PoolSource::WorkerErrors => self.workers.stderr_timeout(&mut self.base.desk(cx), source.key),
            PoolSource::Upkeep => self.upkeep(cx),
            PoolSource::Drain => self.drain_timeout(cx),
            // These have no alarm.
            PoolSource::WorkerInput | PoolSource::WorkerExit | PoolSource::Spawning | PoolSource::HeldBack => {}
        }
        self.end_step(cx);
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        let Some(kind) = PoolSource::from_source(source) else {
            return;
        };
        match kind {
            PoolSource::Listener => self.accept(cx, source.key),
            PoolSource::Arrival => self.resume_arrival(cx, source.key),
            PoolSource::Session => self.pump(cx, source.key),
            PoolSource::Client => self.resume_client(cx, source.key),
            PoolSource::WorkerOutput => self.read_worker(cx, source.key, true),
            PoolSource::WorkerErrors => self.workers.stderr_ready(&mut self.base.desk(cx), source.key),
            PoolSource::WorkerInput => self.read_after_closed_input(cx, source.key),
            PoolSource::Spawning => self.spawn_waiting(cx),
            PoolSource::WorkerExit => self.exit_ready(cx, source.key),
            // These never leave anything over.
            PoolSource::WorkerEnding
            | PoolSource::Dispatcher
            | PoolSource::Queue
            | PoolSource::Upkeep
            | PoolSource::Drain => {}
            // It is written at the end of this turn.
            PoolSource::HeldBack => {}
        }
        self.end_step(cx);
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        if self.take_signatures(cx) {
            self.end_step(cx);
        }
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.clients.stop_holding_back();
        // A write may find out that its reader has gone, whose worker then gets more to do; each can find it out once.
        while self.clients.has_unflushed() || self.workers.has_unsent() {
            // Workers come first: they work while the clients are written what has been answered.
            self.send_all(cx);
            self.flush_all(cx);
            self.end_step(cx);
        }
        if self.clients.has_held_back() {
            cx.resume_later(PoolSource::HeldBack.only());
            // A worker that is to give an answer may wait for this processor.
            std::thread::yield_now();
        }
        debug_assert!(
            self.clients.is_consistent(),
            "requests are left, and their clients have gone"
        );
        if !self.base.front.is_serving() {
            self.advance_drain(cx);
            self.end_step(cx);
        }
    }
}

impl Pool {
    /// Gives all reported events to the dispatcher and carries out its actions, one after the other, until neither is
    /// left. An action may report more events: they are handled before the next action. `reply` is the reply of which
    /// the last event tells, if it tells of one. Must be called after every event on whose consequences the caller
    /// depends; it is never called by what carries out an action.
    fn settle(&mut self, cx: &mut Context<'_>, reply: Option<Reply<'_>>) {
        let mut is_changed = false;
        loop {
            if let Some(event) = self.base.outbox.events.pop_front() {
                self.base.dispatcher.handle(cx.now(), event);
            } else if let Some(action) = self.base.dispatcher.next_action() {
                self.act(cx, action, reply);
            } else if let Some(ended) = self.workers.next_ended() {
                self.workers.settle_ended(&mut self.base.desk(cx), ended);
            } else {
                break;
            }
            is_changed = true;
        }
        if !is_changed {
            return;
        }
        let next = self.base.dispatcher.next_deadline();
        cx.set_alarm(&mut self.dispatcher_alarm, PoolSource::Dispatcher.only(), next);
    }

    /// Ends every call from the reactor: what has been found out is settled, and then each client that was touched.
    fn end_step(&mut self, cx: &mut Context<'_>) {
        loop {
            self.settle(cx, None);
            match self.clients.next_touched() {
                Some(key) => self.clients.settle_client(&mut self.base.desk(cx), key),
                None => break,
            }
        }
        if std::mem::take(&mut self.base.outbox.has_freed_descriptor) {
            self.base.front.descriptor_freed(cx);
        }
    }

    /// Carries out one action. `reply` is in the shell's hands at the moment.
    fn act(&mut self, cx: &mut Context<'_>, action: Action, reply: Option<Reply<'_>>) {
        match action {
            Action::Answer(completion) => self.complete(cx, completion, reply),
            Action::Assign(assignment) => {
                let speaking = reply.and_then(|reply| reply.last_speaker());
                self.assign(cx, assignment, speaking);
            }
            Action::Enqueued { request, client } if self.has_sessions() => self.await_worker(cx, client, request),
            Action::Enqueued { request, client } => self.clients.mark_waiting(&mut self.base.desk(cx), client, request),
            Action::Refuse(refused) => {
                self.log_refusal(cx, refused);
                self.refuse(cx, refused.client);
            }
            Action::Spawn(worker) => self.workers.queue_spawn(cx, worker),
            Action::Inspect(worker) => self.with_process(cx, worker, WorkerProcess::inspect),
            Action::Probe { worker, channel } => {
                self.with_process(cx, worker, |process, desk| process.probe(desk, channel))
            }
            Action::Stop(worker, mode) => self.workers.stop_worker(&mut self.base.desk(cx), worker, mode),
            Action::QuarantineEnded(worker) => self.workers.log_cleared(&mut self.base.desk(cx), worker),
            Action::Replaced(replacement) => self.note_loss(cx, replacement),
            Action::Grown { slot, places } => self.log_growth(cx, slot, places),
            Action::Shrunk { worker, slot, places } => self.log_shrinking(cx, worker, slot, places),
            Action::Rolled => self.announce_rolled(),
            Action::Health(change) => self.log_health(cx, change),
        }
    }

    /// Counts and logs a request that a worker has answered, and gives `reply` to its client.
    fn complete(&mut self, cx: &mut Context<'_>, completion: Completion, reply: Option<Reply<'_>>) {
        let Completion {
            client, worker, served, ..
        } = completion;
        self.latencies.record(completion.waited, served);
        self.workers.note_answer(&mut self.base.desk(cx), worker);
        self.log_if_slow(cx, completion);
        // The dispatcher answers with the reply it was just told of, and with no other.
        if let Some(reply) = reply.filter(|reply| reply.worker == worker) {
            self.answer(cx, client, reply, served);
        }
    }

    /// Calls `call` with the process of a worker and a desk. Returns the default if the worker has gone.
    fn with_process<T: Default>(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        call: impl FnOnce(&mut WorkerProcess, &mut Desk<'_>) -> T,
    ) -> T {
        let process = self.workers.get_mut(id);
        process.map_or_else(T::default, |process| call(process, &mut self.base.desk(cx)))
    }

    /// Gives a worker a request, unless its client has gone.
    fn assign(&mut self, cx: &mut Context<'_>, assignment: Assignment, speaking: Option<WorkerId>) {
        if self.has_sessions() {
            return self.begin_session(cx, assignment);
        }
        let Assignment { client, request, .. } = assignment;
        if self.clients.start_request(&mut self.base.desk(cx), client, request) {
            // A client that vanished in this very turn has been abandoned, or will be.
            let bytes = self.clients.request_bytes(client).unwrap_or_default();
            self.workers.give(&mut self.base.desk(cx), assignment, bytes, speaking);
        }
    }

    /// Takes in that a worker is lost or stopped, and what becomes of its place.
    fn note_loss(&mut self, cx: &mut Context<'_>, lost: Replacement) {
        let process = self.workers.get(lost.worker);
        if process.is_some_and(|process| process.casts_doubt_by(lost.reason)) {
            self.clients.cache.forget_all();
        }
        let next = match (lost.slot, lost.delay) {
            (None, _) if self.base.front.is_stopping() => Next::TheEnd,
            (None, _) => Next::Nothing,
            (Some(_), None) => Next::Successor,
            (Some(slot), Some(delay)) => {
                // The worker that serves on where a successor is lost: so a broken new generation is told from an
                // outage.
                let serving = self.base.dispatcher.in_service(slot);
                let serving = serving.filter(|serving| *serving != lost.worker);
                let stays = serving.and_then(|serving| self.workers.describe(serving));
                Next::Start { delay, stays }
            }
        };
        self.workers.note_loss(&mut self.base.desk(cx), lost, next);
    }

    /// Answers a request with a worker's reply, or refuses it where its client's framing cannot carry that.
    fn answer(&mut self, cx: &mut Context<'_>, client: ClientId, reply: Reply<'_>, served: Duration) {
        let Err(unfit) = self.clients.send_reply(&mut self.base.desk(cx), client, reply, served) else {
            return;
        };
        self.base.dispatcher.counters_mut().count_unfit_answer(served);
        let (origin, worker) = (
            self.peer_name(client),
            self.workers.describe(reply.worker).unwrap_or_default(),
        );
        let wanted = self.base.options.framings.reply;
        let line = format_args!(
            "refused {origin}: the reply of {worker} {unfit}, which --reply-framing {wanted} cannot carry"
        );
        self.note(cx, Level::Warn, Topic::Refusal(Refusal::BadReply), line);
        self.refuse(cx, client);
    }

    fn refuse(&mut self, cx: &mut Context<'_>, client: ClientId) {
        if self.has_sessions() {
            return self.refuse_session(cx, client);
        }
        self.clients.refuse_all(&mut self.base.desk(cx), client);
    }

    /// Writes one line to the log, unless too many like it came lately.
    fn note(&mut self, cx: &mut Context<'_>, level: Level, topic: Topic, line: fmt::Arguments<'_>) {
        self.base.front.note(cx, level, topic, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A read that filled the buffer may have left something behind, so the worker must be looked at again.
    #[test]
    fn only_a_reply_that_left_room_in_the_buffer_vouches_for_its_worker() {
        let worker = WorkerId {
            index: 0,
            incarnation: 0,
        };
        let line = vec![b'\n'; READ_BUFFER];
        let speaker = |read| {
            Reply {
                worker,
                bytes: &line,
                payload: &line,
                read,
            }
            .last_speaker()
        };
        assert_eq!(speaker(READ_BUFFER - 1), Some(worker));
        assert_eq!(speaker(READ_BUFFER), None);
    }
}
