//! Connections in session mode: each gets a worker of its own, and bytes go both ways until either ends.
//!
//! To the dispatcher a session is a request of no bytes, which is answered when its worker has done its work. The
//! connection stands in this table from accept to the end of the session. What is left then (a refusal to be written,
//! input to be read away) is done by the clients' room, to which the pool hands the connection (`shell::joining`).
//!
//! A session knows its worker by name and has its streams; everything else about a worker is the workers' room's.

pub(crate) mod session;
mod standstill;

use std::time::Instant;

use log::Level;
use mio::Interest;

use crate::doors::pool::core::{Assignment, ClientId, Event, RequestId, WorkerId};
use crate::doors::pool::report::{SessionTotals, Topic};
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::shell::workers::sessions::Streams;
use crate::doors::standstill::Hoard;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::net::stream::PeerState;
use crate::process::child::Child;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};
use session::{Running, Session, Stage, Standing, Volume};

/// All connections in session mode.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    table: GenerationalSlab<Session>,
    /// Sessions that have begun.
    begun: u64,
    carried: Volume,
    /// The bytes that are held of sessions whose clients and workers wait for each other.
    hoard: Hoard,
}

/// The consequence for a session of what was done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    GoesOn,
    /// Nothing is to go either way any more.
    Over,
    /// The client has gone.
    Vanished,
}

/// The client of a session for which a worker is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    Present,
    /// It has gone, and is still in the table.
    Gone,
    Unknown,
}

impl Sessions {
    pub(crate) fn get(&self, id: ClientId) -> Option<&Session> {
        self.table.get(Key::from_bits(id.0))
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Session)> {
        self.table.iter()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.table.iter().map(|(key, _)| key).collect()
    }

    pub(crate) fn totals(&self) -> SessionTotals {
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

    fn running(&mut self, key: Key) -> Option<(&mut Conn, &mut Running)> {
        let Session { conn, stage, .. } = self.table.get_mut(key)?;
        match stage {
            Stage::Running(running) => Some((conn, running)),
            Stage::Waiting(_) => None,
        }
    }

    /// The worker that a session has.
    pub(crate) fn worker_of(&self, key: Key) -> Option<WorkerId> {
        match &self.table.get(key)?.stage {
            Stage::Running(running) => running.worker,
            Stage::Waiting(_) => None,
        }
    }

    /// Returns true if anything has gone either way.
    pub(crate) fn has_begun(&self, key: Key) -> bool {
        let session = self.table.get(key);
        session.is_some_and(|session| matches!(&session.stage, Stage::Running(running) if running.has_begun()))
    }

    // ---- coming ------------------------------------------------------------------------------------------------

    /// Takes in a connection that was counted; it asks for a worker, whatever it has to say.
    pub(crate) fn add(&mut self, desk: &mut Desk<'_>, conn: Conn, origin: Origin) {
        // Small pieces leave at once, and a peer that vanishes without a word is noticed some day. An error: it has
        // gone already, which the next call will tell.
        let _ = conn.socket().set_nodelay();
        let _ = conn.socket().set_keepalive();
        let session = Session {
            conn,
            origin,
            accepted: desk.cx.now(),
            stage: Stage::Waiting(None),
            is_watched: false,
            alarm: Alarm::default(),
        };
        match self.table.insert(session) {
            Ok(key) => {
                let client = ClientId(key.to_bits());
                desk.report(Event::Request { client, size: 0 });
            }
            Err(session) => desk.release_connection(&session.origin),
        }
    }

    /// Lets a session wait for a worker, for its first or for another. Returns the worker that it has had.
    pub(crate) fn wait(&mut self, key: Key, request: RequestId) -> Option<WorkerId> {
        let worker = self.leave_worker(key);
        if let Some(session) = self.table.get_mut(key) {
            session.stage = Stage::Waiting(Some(request));
        }
        worker
    }

    /// Ends what a session has with its worker, which is returned. What was read for it and not delivered is for the next.
    pub(crate) fn leave_worker(&mut self, key: Key) -> Option<WorkerId> {
        let Session { conn, stage, .. } = self.table.get_mut(key)?;
        let Stage::Running(running) = stage else {
            return None;
        };
        running.standstill.watch.leave(&mut self.hoard);
        conn.put_back(&running.take_undelivered());
        let (worker, request) = (running.worker, running.request);
        *stage = Stage::Waiting(Some(request));
        worker
    }

    /// Makes a connection known to the poll. [`Outcome::Vanished`]: that failed, and nothing would be heard of it.
    pub(crate) fn watch(&mut self, desk: &mut Desk<'_>, key: Key) -> Outcome {
        let Some(session) = self.table.get_mut(key) else {
            return Outcome::GoesOn;
        };
        let (conn, is_watched) = (&mut session.conn, &mut session.is_watched);
        if desk.watch(PoolSource::Session.at(key), conn, &session.origin, is_watched) {
            Outcome::GoesOn
        } else {
            Outcome::Vanished
        }
    }

    /// Looks whether the client of a session is still there. One that waited, or had a worker before, may have gone
    /// since, and there may be no further event to tell it.
    pub(crate) fn look_for_caller(&self, key: Key) -> Caller {
        let Some(session) = self.table.get(key) else {
            return Caller::Unknown;
        };
        let has_left = if session.is_watched {
            session.conn.socket().peer_state() == PeerState::Gone
        } else {
            has_failed(&session.conn)
        };
        if has_left { Caller::Gone } else { Caller::Present }
    }

    /// Begins a session with a worker. Returns false if the worker's input cannot be watched.
    pub(crate) fn begin(&mut self, desk: &mut Desk<'_>, key: Key, begun: Assignment, mut streams: Streams) -> bool {
        let Some(session) = self.table.get_mut(key) else {
            return false;
        };
        let source = PoolSource::WorkerInput.worker(begun.worker);
        if let Err(error) = desk.cx.register(source, &mut streams.stdin, Interest::WRITABLE) {
            let line = format_args!("cannot watch a worker: {error}");
            desk.note(Level::Error, Topic::System, line);
            return false;
        }
        let running = Running::new(begun, session.conn.take_early(), streams, desk.cx.now());
        session.stage = Stage::Running(Box::new(running));
        self.begun += 1;
        true
    }

    // ---- running -----------------------------------------------------------------------------------------------

    /// Handles an event of a session's connection. Returns true if it is to be [pumped](Self::pump).
    pub(crate) fn handle_ready(&mut self, key: Key, readiness: Readiness, now: Instant) -> Result<bool, Outcome> {
        let Some(session) = self.table.get_mut(key) else {
            return Ok(false);
        };
        session.conn.note(readiness);
        // That both directions are over is no failure: what was sent before is still to be read, by a worker that is
        // there.
        let waits = matches!(session.stage, Stage::Waiting(_));
        if readiness.hung_up && (waits || has_failed(&session.conn)) {
            return Err(Outcome::Vanished);
        }
        let Stage::Running(running) = &mut session.stage else {
            return Ok(false);
        };
        if readiness.hung_up {
            running.mark_client_gone(now);
        }
        if readiness.readable || readiness.read_closed || readiness.hung_up {
            running.mark_client_readable();
        }
        if readiness.writable || readiness.hung_up {
            running.mark_client_writable();
        }
        Ok(true)
    }

    /// Notes an edge of the worker of a session. Returns true if the session is to be [pumped](Self::pump).
    pub(crate) fn mark(&mut self, key: Key, edge: fn(&mut Running)) -> bool {
        match self.running(key) {
            Some((_, running)) => {
                edge(running);
                true
            }
            None => false,
        }
    }

    /// Carries what can be carried. `child`: the process of the session's worker, while there is one.
    pub(crate) fn pump(&mut self, desk: &mut Desk<'_>, key: Key, child: Option<&Child>) -> Outcome {
        self.let_hold(desk.options, key);
        let Some((conn, running)) = self.running(key) else {
            return Outcome::GoesOn;
        };
        let (before, held) = (running.volume(), running.held());
        let mut scratch = desk.cx.lend_buffer();
        let standing = running.carry(conn, child, &mut scratch, desk.cx.now());
        desk.cx.return_buffer(scratch);
        let after = running.volume();
        let moved = Volume {
            up: after.up - before.up,
            down: after.down - before.down,
        };
        if moved != Volume::default() || running.held() > held {
            running.active = desk.cx.now();
        }
        running.standstill.note(moved, desk.cx.now());
        self.carried.up += moved.up;
        self.carried.down += moved.down;
        match standing {
            Standing::Waiting => {
                let outcome = self.look_at_standstill(desk, key);
                self.settle(desk, key);
                outcome
            }
            Standing::MoreLater => {
                desk.cx.resume_later(PoolSource::Session.at(key));
                self.look_at_standstill(desk, key)
            }
            Standing::Over => Outcome::Over,
            Standing::Vanished => Outcome::Vanished,
        }
    }

    /// Takes the worker from a session, because its process has ended. What it wrote before goes to the client. Returns
    /// false if nothing has gone either way: the client is none the wiser, and gets another worker.
    pub(crate) fn detach_ended_worker(&mut self, key: Key, now: Instant) -> bool {
        match self.running(key) {
            Some((_, running)) if running.has_begun() => {
                running.detach_worker(now);
                true
            }
            _ => false,
        }
    }

    /// Handles the alarm of a session. Returns true if the session is overdue: it is to be [pumped](Self::pump) once more
    /// before [`end_overdue`](Self::end_overdue), because bytes may have come in time of which no event has told yet.
    pub(crate) fn handle_alarm(&mut self, desk: &mut Desk<'_>, key: Key) -> bool {
        let Some(session) = self.table.get_mut(key) else {
            return false;
        };
        desk.cx.clear_alarm(&mut session.alarm);
        let Session { conn, stage, .. } = session;
        let Stage::Running(running) = stage else {
            return false;
        };
        let is_overdue = running.is_overdue(desk.options, desk.cx.now());
        if is_overdue {
            running.expect_edges(conn);
        }
        is_overdue
    }

    /// Ends a session whose deadline has passed, and does what else is due. `child`: the process of its worker, while
    /// there is one.
    pub(crate) fn end_overdue(&mut self, desk: &mut Desk<'_>, key: Key, child: Option<&Child>) -> Outcome {
        let Some(session) = self.table.get_mut(key) else {
            return Outcome::GoesOn;
        };
        let (origin, now) = (session.origin.clone(), desk.cx.now());
        if let Stage::Running(running) = &mut session.stage {
            if running.take_by(desk.options).is_some_and(|at| at <= now) {
                if running.worker.is_some() {
                    let line = format_args!("{origin} had gone, and its worker went on for --write-timeout");
                    desk.note(Level::Debug, Topic::HungUp, line);
                    return Outcome::Vanished;
                }
                desk.counters.refusals.write_timeout += 1;
                let line =
                    format_args!("closed {origin}: it took nothing of what its worker has left within --write-timeout");
                desk.note(Level::Warn, Topic::WriteTimeout, line);
                return Outcome::Vanished;
            }
            if running.idle_at(desk.options).is_some_and(|at| at <= now) {
                desk.counters.idle_closed += 1;
                let line = format_args!("ended the session of {origin}: no byte for --idle-timeout");
                desk.note(Level::Info, Topic::Idle, line);
                return Outcome::Over;
            }
            if let Some(child) = child {
                running.on_deadline(child, now);
            }
        }
        let outcome = self.look_at_standstill(desk, key);
        self.settle(desk, key);
        outcome
    }

    /// Brings the alarm in line with the stage.
    fn settle(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(session) = self.table.get_mut(key) else {
            return;
        };
        let deadline = match &session.stage {
            Stage::Waiting(_) => None,
            Stage::Running(running) => {
                // With both there is no other: a session lasts as long as both ends want it to, and the dispatcher
                // keeps --busy-timeout.
                let looked = running.standstill.deadline();
                let (taken_by, idle_at) = (running.take_by(desk.options), running.idle_at(desk.options));
                [running.deadline(), looked, taken_by, idle_at]
                    .into_iter()
                    .flatten()
                    .min()
            }
        };
        desk.cx
            .set_alarm(&mut session.alarm, PoolSource::Session.at(key), deadline);
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// Takes a session out of the table and closes its connection.
    pub(crate) fn close(&mut self, desk: &mut Desk<'_>, key: Key) {
        if let Some(session) = self.remove(&mut desk.cx, key) {
            desk.release_connection(&session.origin);
        }
    }

    /// Takes a session out of the table. Its connection is still counted, and its worker knows it still.
    pub(crate) fn remove(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Session> {
        if let Some(Session {
            stage: Stage::Running(running),
            ..
        }) = self.table.get_mut(key)
        {
            running.standstill.watch.leave(&mut self.hoard);
        }
        let mut session = self.table.remove(key)?;
        cx.set_alarm(&mut session.alarm, PoolSource::Session.at(key), None);
        Some(session)
    }
}

/// Returns true if the connection is in error: reset, or given up by the kernel. The error is fetched, and told once.
fn has_failed(conn: &Conn) -> bool {
    !matches!(conn.socket().take_error(), Ok(None))
}
