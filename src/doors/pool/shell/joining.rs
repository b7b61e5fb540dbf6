//! Sessions, workers and clients meet here: a connection in session mode is joined to its worker, and parted from it.

use super::Pool;
use super::clients::Farewell;
use super::sessions::session::{Running, Stage};
use super::sessions::{Caller, Outcome};
use crate::doors::pool::core::{AfterReply, Assignment, ClientId, Event, Fault, ReplyTo, RequestId, WorkerId};
use crate::doors::pool::options::Mode;
use crate::reactor::{Context, Key, Readiness};

impl Pool {
    pub(super) fn has_sessions(&self) -> bool {
        self.base.options.policy.mode == Mode::Session
    }

    // ---- coming ------------------------------------------------------------------------------------------------

    /// Lets a session wait: for the first time, or again because its worker has ended before it was of any use.
    pub(super) fn await_worker(&mut self, cx: &mut Context<'_>, client: ClientId, request: RequestId) {
        let key = Key::from_bits(client.0);
        if let Some(worker) = self.sessions.wait(key, request) {
            self.workers.detach_session(worker);
        }
        self.watch_session(cx, key);
    }

    fn watch_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let outcome = self.sessions.watch(&mut self.base.desk(cx), key);
        self.follow(cx, key, outcome);
    }

    /// Joins a session to the worker that the dispatcher has found for it.
    pub(super) fn begin_session(&mut self, cx: &mut Context<'_>, assignment: Assignment) {
        let (id, request, client) = (assignment.worker, assignment.request, assignment.client);
        let key = Key::from_bits(client.0);
        if let Some(worker) = self.sessions.wait(key, request) {
            self.workers.detach_session(worker);
        }
        match self.sessions.look_for_caller(key) {
            Caller::Present => {}
            Caller::Unknown => return self.base.report(Event::Withdrawn(request)),
            Caller::Gone => {
                self.sessions.close(&mut self.base.desk(cx), key);
                return self.base.report(Event::Withdrawn(request));
            }
        }
        if self.workers.get(id).is_none() {
            return;
        }
        let streams = self.workers.attach_session(id, key);
        let has_begun =
            streams.is_some_and(|streams| self.sessions.begin(&mut self.base.desk(cx), key, assignment, streams));
        if !has_begun {
            self.workers.detach_session(id);
            let fault = Fault::InputClosed(request);
            return self.with_process(cx, id, |process, desk| process.report_fault(desk, fault));
        }
        self.watch_session(cx, key);
        self.pump(cx, key);
    }

    // ---- running -----------------------------------------------------------------------------------------------

    pub(super) fn session_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        match self.sessions.handle_ready(key, readiness, cx.now()) {
            Ok(true) => self.pump(cx, key),
            Ok(false) => {}
            Err(outcome) => self.follow(cx, key, outcome),
        }
    }

    /// Handles an edge of a worker that has a session: there is something to be read from it, or room in its input. A
    /// worker without a session keeps what it says for the one to come.
    pub(super) fn session_worker_ready(&mut self, cx: &mut Context<'_>, id: WorkerId, edge: fn(&mut Running)) {
        if let Some(key) = self.workers.session_of(id)
            && self.sessions.mark(key, edge)
        {
            self.pump(cx, key);
        }
    }

    /// Carries what can be carried both ways, and does what follows from it.
    pub(super) fn pump(&mut self, cx: &mut Context<'_>, key: Key) {
        let worker = self.sessions.worker_of(key);
        let child = worker.and_then(|worker| self.workers.child(worker));
        let outcome = self.sessions.pump(&mut self.base.desk(cx), key, child);
        self.follow(cx, key, outcome);
    }

    pub(super) fn session_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let worker = self.sessions.worker_of(key);
        let child = worker.and_then(|worker| self.workers.child(worker));
        let outcome = self.sessions.handle_timeout(&mut self.base.desk(cx), key, child);
        self.follow(cx, key, outcome);
    }

    fn follow(&mut self, cx: &mut Context<'_>, key: Key, outcome: Outcome) {
        match outcome {
            Outcome::GoesOn => {}
            Outcome::Over => self.end_session(cx, key),
            Outcome::Vanished => self.abort_session(cx, key),
        }
    }

    /// Handles the end of a worker that has a session. What it wrote before goes to the client; if nothing has gone
    /// either way the client is none the wiser, and gets another worker as soon as the dispatcher knows.
    pub(super) fn end_worker_of_session(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(key) = self.workers.session_of(id) else {
            return;
        };
        self.session_worker_ready(cx, id, Running::mark_worker_readable);
        self.settle(cx, None);
        if self.sessions.worker_of(key) != Some(id) {
            return;
        }
        if !self.sessions.detach_ended_worker(key, cx.now()) {
            self.sessions.leave_worker(key);
            return self.workers.detach_session(id);
        }
        self.workers.detach_session(id);
        self.report_spent_worker(id);
        self.settle(cx, None);
        self.pump(cx, key);
        self.settle(cx, None);
    }

    fn report_spent_worker(&mut self, worker: WorkerId) {
        let (to, after) = (ReplyTo::Oldest, AfterReply::Spent);
        self.base.report(Event::Reply { worker, to, after });
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// Ends a session both directions of which are over, or are to be.
    fn end_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let worker = self.sessions.worker_of(key);
        self.hand_to_clients(cx, key, Farewell::Nothing);
        if let Some(worker) = worker {
            self.report_spent_worker(worker);
        }
    }

    /// Ends a session whose client has gone. Its worker's input ends, and then the worker.
    fn abort_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.sessions.remove(cx, key) else {
            return;
        };
        let (request, worker) = match session.stage {
            Stage::Waiting(request) => (request, None),
            Stage::Running(running) => (Some(running.request), running.worker),
        };
        drop(session.conn);
        self.base.desk(cx).release_connection(&session.origin);
        if let Some(request) = request {
            self.base.report(Event::Abandoned(request));
        }
        if let Some(worker) = worker {
            self.workers.detach_session(worker);
            self.report_spent_worker(worker);
        }
    }

    /// Ends a session with which the dispatcher will not go on: nothing has been said yet, or it is cut short.
    pub(super) fn refuse_session(&mut self, cx: &mut Context<'_>, client: ClientId) {
        let key = Key::from_bits(client.0);
        let farewell = if self.sessions.has_begun(key) {
            Farewell::Nothing
        } else {
            Farewell::Refusal
        };
        self.hand_to_clients(cx, key, farewell);
    }

    /// Ends a session, and hands its connection to the clients, which close it like any other.
    fn hand_to_clients(&mut self, cx: &mut Context<'_>, key: Key, farewell: Farewell) {
        let worker = self.sessions.worker_of(key);
        let Some(session) = self.sessions.remove(cx, key) else {
            return;
        };
        if let Some(worker) = worker {
            self.workers.detach_session(worker);
        }
        self.clients.adopt_finished(&mut self.base.desk(cx), session, farewell);
    }
}
