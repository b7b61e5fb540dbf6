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
            Caller::Unknown => return self.base.desk(cx).report(Event::Withdrawn(request)),
            Caller::Gone => {
                self.sessions.close(&mut self.base.desk(cx), key);
                return self.base.desk(cx).report(Event::Withdrawn(request));
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
        if self.sessions.handle_alarm(&mut self.base.desk(cx), key) {
            self.pump(cx, key);
        }
        let worker = self.sessions.worker_of(key);
        let child = worker.and_then(|worker| self.workers.child(worker));
        let outcome = self.sessions.end_overdue(&mut self.base.desk(cx), key, child);
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
        self.report_spent_worker(cx, id);
        self.settle(cx, None);
        self.pump(cx, key);
        self.settle(cx, None);
    }

    fn report_spent_worker(&mut self, cx: &mut Context<'_>, worker: WorkerId) {
        self.report_last_answer(cx, worker, AfterReply::Spent);
    }

    fn report_last_answer(&mut self, cx: &mut Context<'_>, worker: WorkerId, after: AfterReply) {
        let to = ReplyTo::Oldest;
        self.base.desk(cx).report(Event::Reply { worker, to, after });
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// Ends a session both directions of which are over, or are to be.
    fn end_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let worker = self.sessions.worker_of(key);
        self.hand_to_clients(cx, key, Farewell::Nothing);
        if let Some(worker) = worker {
            self.report_spent_worker(cx, worker);
        }
    }

    /// Ends a session whose client has gone. Its worker's input ends, and then the worker. Over TLS the end of a client
    /// is told from a cut, so the worker of one that was cut off is ended first.
    fn abort_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(session) = self.sessions.remove(cx, key) else {
            return;
        };
        drop(session.conn);
        self.base.desk(cx).release_connection(&session.origin);
        let running = match session.stage {
            Stage::Waiting(None) => return,
            Stage::Waiting(Some(request)) => return self.base.desk(cx).report(Event::Abandoned(request)),
            Stage::Running(running) => running,
        };
        self.base.desk(cx).report(Event::Abandoned(running.request));
        let Some(worker) = running.worker else { return };
        self.workers.detach_session(worker);
        if session.origin.tls.is_some() && !running.has_whole_input() {
            self.report_last_answer(cx, worker, AfterReply::Cut);
            self.settle(cx, None);
        } else {
            self.report_spent_worker(cx, worker);
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;
    use crate::doors::Door;
    use crate::doors::pool::options::Options;
    use crate::net::addr::PeerAddr;
    use crate::net::conn::Conn;
    use crate::net::origin::Origin;
    use crate::net::stream::Stream;
    use crate::process::spawn::{PreparedProgram, SpawnDefaults};
    use crate::process::spec::ProcessSpec;
    use crate::reactor::{Reactor, ServiceId};

    const IDLE: Duration = Duration::from_millis(1);

    /// A loop with one pool in session mode, whose worker runs this script of the shell, and one session.
    fn session(script: &str) -> (Reactor<Pool>, ServiceId, UnixStream) {
        let process = ProcessSpec::new(["sh", "-c", script].map(Into::into).to_vec()).unwrap();
        let program = PreparedProgram::prepare(&process, &SpawnDefaults::default()).unwrap();
        let pool = Pool::new(Options::of_sessions(process), program, Vec::new(), Instant::now());
        let mut reactor = Reactor::new(&[]).unwrap();
        let id = reactor.add(Box::new(pool)).unwrap();
        let (served, client) = UnixStream::pair().unwrap();
        served.set_nonblocking(true).unwrap();
        client.set_nonblocking(true).unwrap();
        let conn = Conn::new(Stream::Unix(mio::net::UnixStream::from_std(served)));
        let begin = |pool: &mut Pool, cx: &mut Context<'_>| {
            pool.start(cx).unwrap();
            Door::admit(pool, cx, conn, Origin::direct(PeerAddr::Unix));
        };
        reactor.with(id, begin).unwrap();
        (reactor, id, client)
    }

    fn read(mut client: &UnixStream) -> String {
        let mut buffer = [0; 100];
        match client.read(&mut buffer) {
            Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => String::new(),
            Err(error) => panic!("{error}"),
        }
    }

    /// A loop that is busy with other clients when the time is over has not heard yet of what a worker wrote before.
    #[test]
    fn output_that_is_there_when_the_idle_timeout_is_over_reaches_the_client() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("gate");
        mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        // Open for both, so that neither side waits for the other to open it.
        let mut gate = File::options().read(true).write(true).open(&path).unwrap();
        let script = "read a; echo first; read b; read go <GATE; echo second; echo >&2; read c";
        let (mut reactor, id, mut client) = session(&script.replace("GATE", &path.display().to_string()));
        client.write_all(b"a\n").unwrap();
        let mut heard = String::new();
        while heard != "first\n" {
            reactor.turn(None).unwrap();
            heard += &read(&client);
        }
        client.write_all(b"b\n").unwrap();
        let carried = |pool: &Pool| pool.sessions.totals().up;
        while reactor.with(id, |pool, _| carried(pool)) != Some(4) {
            reactor.turn(None).unwrap();
        }
        // The loop does not turn any more, whatever the worker does from now on.
        gate.write_all(b"go\n").unwrap();
        reactor.with(id, |pool, _| {
            let worker = pool.workers.iter().next().unwrap();
            let errors = worker.child.stderr.as_ref().unwrap();
            let mut wanted = [PollFd::new(errors.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut wanted, PollTimeout::from(30_000_u16)), Ok(1));
            pool.base.options.session_idle = Some(IDLE);
        });
        let since = Instant::now();
        while since.elapsed() < IDLE {}
        let ends = |pool: &mut Pool, cx: &mut Context<'_>| {
            let key = pool.sessions.keys()[0];
            pool.session_timeout(cx, key);
            pool.sessions.len() == 0
        };
        assert_eq!(reactor.with(id, ends), Some(false), "the session has ended");
        assert_eq!(read(&client), "second\n");
        let since = Instant::now();
        while since.elapsed() < IDLE {}
        assert_eq!(reactor.with(id, ends), Some(true), "the session goes on");
    }
}
