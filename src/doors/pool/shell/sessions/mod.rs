//! What the pool does in session mode: each connection gets a worker of its own, and bytes go both ways until either ends.
//!
//! To the dispatcher a session is a request of no bytes, which is answered when its worker has done its work. The
//! connection stands in this table from accept to the end of the session. Whatever is left then (a refusal to be
//! written, input to be read away) is the business of an ordinary client, which it becomes.

pub(in crate::doors::pool::shell) mod session;
pub(in crate::doors::pool::shell) mod standstill;

use log::Level;
use mio::Interest;

use crate::doors::pool::core::{AfterReply, ClientId, Event, Fault, ReplyTo, RequestId, WorkerId};
use crate::doors::pool::options::Mode;
use crate::doors::pool::report::{SessionTotals, Topic};
use crate::doors::pool::shell::clients::Farewell;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::net::origin::Origin;
use crate::net::stream::{PeerState, Stream};
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};
use crate::relay::direction::Transfer;
use session::{Running, Session, Stage, Standing, Volume, Watch};

/// All connections in session mode.
#[derive(Debug, Default)]
pub(in crate::doors::pool::shell) struct Sessions {
    table: GenerationalSlab<Session>,
    /// Sessions that have begun.
    begun: u64,
    carried: Volume,
}

impl Sessions {
    pub(in crate::doors::pool::shell) fn get(&self, id: ClientId) -> Option<&Session> {
        self.table.get(Key::from_bits(id.0))
    }

    pub(in crate::doors::pool::shell) fn origin(&self, key: Key) -> Option<&Origin> {
        self.table.get(key).map(|session| &session.origin)
    }

    pub(in crate::doors::pool::shell) fn len(&self) -> usize {
        self.table.len()
    }

    pub(in crate::doors::pool::shell) fn iter(&self) -> impl Iterator<Item = (Key, &Session)> {
        self.table.iter()
    }

    pub(in crate::doors::pool::shell) fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(in crate::doors::pool::shell) fn totals(&self) -> SessionTotals {
        let running = self
            .table
            .iter()
            .filter(|(_, session)| matches!(session.stage, Stage::Running(_)));
        SessionTotals {
            running: u64::try_from(running.count()).unwrap_or(u64::MAX),
            begun: self.begun,
            up: self.carried.up,
            down: self.carried.down,
        }
    }

    pub(in crate::doors::pool::shell) fn running(&mut self, key: Key) -> Option<(&Stream, &mut Running)> {
        let Session { stream, stage, .. } = self.table.get_mut(key)?;
        match stage {
            Stage::Running(running) => Some((stream, running)),
            Stage::Waiting(_) => None,
        }
    }
}

impl Pool {
    pub(in crate::doors::pool::shell) fn has_sessions(&self) -> bool {
        self.options.policy.mode == Mode::Session
    }

    // ---- coming ------------------------------------------------------------------------------------------------

    /// A connection that was admitted asks for a worker, whatever it has to say.
    pub(in crate::doors::pool::shell) fn welcome_session(
        &mut self,
        cx: &mut Context<'_>,
        stream: Stream,
        origin: Origin,
    ) {
        // Small pieces leave at once, and a peer that vanishes without a word is noticed some day. An error: it has gone
        // already, which the next call will tell.
        let _ = stream.set_nodelay();
        let _ = stream.set_keepalive();
        let session = Session {
            stream,
            origin,
            accepted: cx.now(),
            stage: Stage::Waiting(None),
            watch: Watch::NotYet,
            alarm: Alarm::default(),
        };
        match self.sessions.table.insert(session) {
            Ok(key) => {
                let client = ClientId(key.to_bits());
                self.report(Event::Request { client, size: 0 });
            }
            Err(session) => self.rooms().desk.release_connection(&session.origin),
        }
    }

    /// The session waits, for the first time, or again because its worker has ended before it was of any use.
    pub(in crate::doors::pool::shell) fn await_worker(
        &mut self,
        cx: &mut Context<'_>,
        client: ClientId,
        request: RequestId,
    ) {
        let key = Key::from_bits(client.0);
        self.detach(key);
        if let Some(session) = self.sessions.table.get_mut(key) {
            session.stage = Stage::Waiting(Some(request));
            self.watch_session(cx, key);
        }
    }

    /// Takes a session's worker away from it, if it has one.
    fn detach(&mut self, key: Key) {
        let Some((_, running)) = self.sessions.running(key) else {
            return;
        };
        running.standstill.watch.leave(&mut self.hoard);
        let (worker, request) = (running.worker, running.request);
        if let Some(worker) = worker {
            self.workers.detach_session(worker);
        }
        if let Some(session) = self.sessions.table.get_mut(key) {
            session.stage = Stage::Waiting(Some(request));
        }
    }

    fn report_fault(&mut self, id: WorkerId, fault: Fault) {
        let mut rooms = self.rooms();
        rooms.workers.report_fault(&mut rooms.desk, id, fault);
    }

    fn watch_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.sessions.table.get_mut(key) else {
            return;
        };
        if session.watch == Watch::Registered {
            return;
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        match cx.register(PoolSource::Session.at(key), &mut session.stream, interest) {
            Ok(()) => session.watch = Watch::Registered,
            Err(error) => {
                let origin = session.origin.clone();
                let line = format_args!("closed {origin}: cannot watch its connection: {error}");
                self.note(cx, Level::Error, Topic::System, line);
                self.abort_session(cx, key);
            }
        }
    }

    /// The dispatcher has found a worker.
    pub(in crate::doors::pool::shell) fn begin_session(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        request: RequestId,
        client: ClientId,
    ) {
        let key = Key::from_bits(client.0);
        self.detach(key);
        let Some(session) = self.sessions.table.get_mut(key) else {
            return self.report(Event::Withdrawn(request));
        };
        session.stage = Stage::Waiting(Some(request));
        // One that waited, or had a worker before, may have gone since; there may be no further event to tell it.
        let has_left = match session.watch {
            Watch::NotYet => has_failed(&session.stream),
            Watch::Registered => session.stream.peer_state() == PeerState::Gone,
        };
        if has_left {
            self.remove_session(cx, key);
            return self.report(Event::Withdrawn(request));
        }
        let Some(streams) = self.workers.attach_session(id, key) else {
            return self.report_fault(id, Fault::InputClosed(request));
        };
        let transfer = if streams.is_on_terminal {
            Transfer::Copy
        } else {
            Transfer::Splice
        };
        let ends = (streams.stdin, streams.stdout);
        let mut running = Running::new(request, id, ends, transfer, streams.said, cx.now());
        let watched = running.stdin_mut().map_or(Ok(()), |stdin| {
            cx.register(PoolSource::WorkerInput.worker(id), stdin, Interest::WRITABLE)
        });
        if let Err(error) = watched {
            self.workers.detach_session(id);
            let line = format_args!("cannot watch a worker: {error}");
            self.note(cx, Level::Error, Topic::System, line);
            return self.report_fault(id, Fault::InputClosed(request));
        }
        session.stage = Stage::Running(Box::new(running));
        self.sessions.begun += 1;
        self.watch_session(cx, key);
        self.pump(cx, key);
    }

    // ---- running -----------------------------------------------------------------------------------------------

    pub(in crate::doors::pool::shell) fn session_ready(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        readiness: Readiness,
    ) {
        let Some(session) = self.sessions.table.get_mut(key) else {
            return;
        };
        // That both directions are over is no failure: what was sent before is still to be read, by a worker that is there.
        let waits = matches!(session.stage, Stage::Waiting(_));
        if readiness.hung_up && (waits || has_failed(&session.stream)) {
            return self.abort_session(cx, key);
        }
        let Stage::Running(running) = &mut session.stage else {
            return;
        };
        if readiness.hung_up {
            running.mark_client_gone(cx.now());
        }
        if readiness.readable || readiness.read_closed || readiness.hung_up {
            running.mark_client_readable();
        }
        if readiness.writable || readiness.hung_up {
            running.mark_client_writable();
        }
        self.pump(cx, key);
    }

    /// There is something to be read from the worker of a session, or room in its input.
    pub(in crate::doors::pool::shell) fn session_worker_ready(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        edge: fn(&mut Running),
    ) {
        // A worker without a session keeps what it says for the one to come.
        let Some(key) = self.workers.session_of(id) else {
            return;
        };
        if let Some((_, running)) = self.sessions.running(key) {
            edge(running);
            self.pump(cx, key);
        }
    }

    /// Carries what can be carried, and does what follows from it.
    pub(in crate::doors::pool::shell) fn pump(&mut self, cx: &mut Context<'_>, key: Key) {
        self.let_session_hold(key);
        let Some((stream, running)) = self.sessions.running(key) else {
            return;
        };
        let child = running.worker.and_then(|worker| self.workers.child(worker));
        let (before, held) = (running.volume(), running.held());
        let mut scratch = cx.lend_buffer();
        let standing = running.carry(stream, child, &mut scratch, cx.now());
        cx.return_buffer(scratch);
        let after = running.volume();
        let moved = Volume {
            up: after.up - before.up,
            down: after.down - before.down,
        };
        if moved != Volume::default() || running.held() > held {
            running.active = cx.now();
        }
        running.standstill.note(moved, cx.now());
        self.sessions.carried.up += moved.up;
        self.sessions.carried.down += moved.down;
        match standing {
            Standing::Waiting => {
                self.look_at_standstill(cx, key);
                self.settle_session(cx, key);
            }
            Standing::MoreLater => {
                cx.resume_later(PoolSource::Session.at(key));
                self.look_at_standstill(cx, key);
            }
            Standing::Over => self.end_session(cx, key),
            Standing::Vanished => self.abort_session(cx, key),
        }
    }

    /// The process of a session's worker has ended. What it wrote before goes to the client; if nothing has gone either way
    /// the client is none the wiser, and gets another worker as soon as the dispatcher knows.
    pub(in crate::doors::pool::shell) fn end_worker_of_session(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(key) = self.workers.session_of(id) else {
            return;
        };
        self.session_worker_ready(cx, id, Running::mark_worker_readable);
        self.settle(cx, None);
        let Some((_, running)) = self.sessions.running(key) else {
            return;
        };
        if running.worker != Some(id) {
            return;
        }
        if !running.has_begun() {
            return self.detach(key);
        }
        running.detach_worker(cx.now());
        self.workers.detach_session(id);
        self.report_spent_worker(id);
        self.settle(cx, None);
        self.pump(cx, key);
        self.settle(cx, None);
    }

    fn report_spent_worker(&mut self, worker: WorkerId) {
        let (to, after) = (ReplyTo::Oldest, AfterReply::Spent);
        self.report(Event::Reply { worker, to, after });
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// Both directions are over, or are to be.
    pub(in crate::doors::pool::shell) fn end_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let worker = self.sessions.running(key).and_then(|(_, running)| running.worker);
        self.hand_to_clients(cx, key, Farewell::Nothing);
        if let Some(worker) = worker {
            self.report_spent_worker(worker);
        }
    }

    /// The client has gone. Its worker's input ends, and then the worker.
    fn abort_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.remove_session(cx, key) else {
            return;
        };
        let (request, worker) = match session.stage {
            Stage::Waiting(request) => (request, None),
            Stage::Running(running) => (Some(running.request), running.worker),
        };
        drop(session.stream);
        if let Some(request) = request {
            self.report(Event::Abandoned(request));
        }
        if let Some(worker) = worker {
            self.report_spent_worker(worker);
        }
    }

    /// The dispatcher will not go on with it: nothing has been said yet, or it is cut short.
    pub(in crate::doors::pool::shell) fn refuse_session(&mut self, cx: &mut Context<'_>, client: ClientId) {
        let key = Key::from_bits(client.0);
        let begun = self
            .sessions
            .running(key)
            .is_some_and(|(_, running)| running.has_begun());
        self.hand_to_clients(cx, key, if begun { Farewell::Nothing } else { Farewell::Refusal });
    }

    pub(in crate::doors::pool::shell) fn session_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.sessions.table.get_mut(key) else {
            return;
        };
        cx.alarm_fired(&mut session.alarm);
        let (origin, now) = (session.origin.clone(), cx.now());
        if let Stage::Running(running) = &session.stage
            && running.is_one_sided()
            && running.active + self.options.write_timeout <= now
        {
            if running.worker.is_some() {
                let line = format_args!("{origin} had gone, and its worker went on for --write-timeout");
                self.note(cx, Level::Debug, Topic::HungUp, line);
                return self.abort_session(cx, key);
            }
            self.dispatcher.counters_mut().refusals.write_timeout += 1;
            let line =
                format_args!("closed {origin}: it took nothing of what its worker has left within --write-timeout");
            self.note(cx, Level::Warn, Topic::WriteTimeout, line);
            return self.abort_session(cx, key);
        }
        if let (Stage::Running(running), Some(idle)) = (&session.stage, self.options.session_idle)
            && running.active + idle <= now
        {
            self.dispatcher.counters_mut().idle_closed += 1;
            self.note(
                cx,
                Level::Info,
                Topic::Idle,
                format_args!("ended the session of {origin}: no byte for --idle-timeout"),
            );
            return self.end_session(cx, key);
        }
        if let Stage::Running(running) = &mut session.stage
            && let Some(child) = running.worker.and_then(|worker| self.workers.child(worker))
        {
            running.on_deadline(child, cx.now());
        }
        self.look_at_standstill(cx, key);
        self.settle_session(cx, key);
    }

    /// Brings the alarm in line with the stage.
    fn settle_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.sessions.table.get_mut(key) else {
            return;
        };
        let deadline = match &session.stage {
            Stage::Waiting(_) => None,
            Stage::Running(running) => {
                // With both there is no other: a session lasts as long as both ends want it to, and the dispatcher keeps
                // --busy-timeout.
                let write_timeout = self.options.write_timeout;
                let taken_by = running.is_one_sided().then(|| running.active + write_timeout);
                let idle_at = self.options.session_idle.map(|idle| running.active + idle);
                let looked = running.standstill.deadline();
                [running.deadline(), looked, taken_by, idle_at]
                    .into_iter()
                    .flatten()
                    .min()
            }
        };
        cx.set_alarm(&mut session.alarm, PoolSource::Session.at(key), deadline);
    }

    /// Takes a session out of the table, and its worker away from it; the connection is still counted.
    fn take_out(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Session> {
        if let Some((_, running)) = self.sessions.running(key) {
            running.standstill.watch.leave(&mut self.hoard);
            if let Some(worker) = running.worker {
                self.workers.detach_session(worker);
            }
        }
        let mut session = self.sessions.table.remove(key)?;
        cx.set_alarm(&mut session.alarm, PoolSource::Session.at(key), None);
        Some(session)
    }

    /// The same for a connection that is to be closed.
    fn remove_session(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Session> {
        let session = self.take_out(cx, key)?;
        self.rooms().desk.release_connection(&session.origin);
        Some(session)
    }

    /// Ends a session, and hands its connection to the clients, which close it like any other.
    fn hand_to_clients(&mut self, cx: &mut Context<'_>, key: Key, farewell: Farewell) {
        let Some(session) = self.take_out(cx, key) else { return };
        // Our ends of the worker's streams are closed here, before anything else happens to it.
        drop(session.stage);
        let is_registered = session.watch == Watch::Registered;
        let mut rooms = self.rooms();
        rooms.clients.adopt_finished(
            cx,
            &mut rooms.desk,
            session.stream,
            session.origin,
            is_registered,
            farewell,
        );
    }

    /// Everybody, whatever is still on its way.
    pub(in crate::doors::pool::shell) fn close_sessions(&mut self, cx: &mut Context<'_>) {
        for key in self.sessions.keys() {
            self.remove_session(cx, key);
        }
    }
}

/// Whether the connection is in error: reset, or given up by the kernel. The error is fetched, and told once.
fn has_failed(stream: &Stream) -> bool {
    !matches!(stream.take_error(), Ok(None))
}
