//! The dump: the registers of iotcpd 1.1, and behind them what people read of workers, queue and clients.
//!
//! It is taken in one go on the loop, so what it costs is bounded: of clients and of waiting requests the first are
//! told, of the requests in a worker's hands some, and of the memory of processes as much as can be looked at in a
//! moment.

use std::iter;
use std::os::fd::AsRawFd;
use std::time::Instant;

use super::super::core::{Place, RequestInHand, SlotView, WaitingRequest};
use super::super::dump::{self, ClientState, ClientView, Descriptors, Load};
use super::super::recorder::Excerpt;
use super::Pool;
use super::clients::client::{Client, Phase};
use super::clients::exchange::{Asked, State};
use super::sessions::session::{Session, Stage};
use super::workers::process::WorkerProcess;
use crate::doors::dump::{Dump, FIRST, ProcessView, describe_client};
use crate::process::rss::Survey;
use crate::reactor::Key;

/// The most requests with a line beside a worker's oldest one: of one worker, and of all workers together.
const ALSO_IN_HAND: usize = 9;
const ALL_IN_HAND: usize = 1000;
/// The most requests of a connection that are looked at for the bytes they hold.
const COUNTED: usize = 100;

impl Pool {
    pub(super) fn describe(&self, now: Instant) -> String {
        let slots = self.base.dispatcher.slots();
        let registers = slots.map(|view| dump::registers(&view, self.descriptors(&view), now));
        let (places, clients) = (self.base.dispatcher.places(), self.base.front.connections());
        let most = self.base.front.options().connection_limits.total;
        let load = format_args!("workers = {places}, clients = {clients} of {most}");
        let mut dump = Dump::begin(
            self.base.front.name(),
            "pool",
            self.base.front.uptime(now),
            registers.collect(),
            load,
        );
        self.describe_workers(&mut dump, now);
        self.describe_queue(&mut dump, now);
        self.describe_clients(&mut dump, now);
        dump.front(&self.base.front, now);
        dump.text()
    }

    fn descriptors(&self, view: &SlotView) -> Descriptors {
        let process = self.workers.get(view.worker);
        let client = view.client.and_then(|client| {
            if self.has_sessions() {
                self.sessions.get(client).map(|session| session.conn.socket())
            } else {
                self.clients.of(client).map(|client| client.conn.socket())
            }
        });
        let credentials = client.and_then(|stream| stream.peer_credentials().ok().flatten());
        Descriptors {
            stdin: process
                .and_then(|process| process.child.stdin.as_ref())
                .map_or(-1, AsRawFd::as_raw_fd),
            stdout: process
                .and_then(|process| process.child.stdout.as_ref())
                .map_or(-1, AsRawFd::as_raw_fd),
            pid: process.map_or(-1, WorkerProcess::pid),
            client_pid: credentials.map_or(-1, |credentials| credentials.pid),
            client: client.map_or(-1, |stream| stream.as_raw_fd()),
        }
    }

    // ---- workers -----------------------------------------------------------------------------------------------

    fn describe_workers(&self, dump: &mut Dump<'_>, now: Instant) {
        let (survey, mut lines_left) = (Survey::begin(now), ALL_IN_HAND);
        for view in self.base.dispatcher.workers() {
            let process = self.workers.get(view.id);
            let number = match view.place {
                Place::Serving(number) | Place::Successor(number) => number,
                Place::Outgoing => process.map_or(0, |process| process.number),
            };
            let told = process.map(|process| ProcessView {
                pid: process.pid(),
                age: now.saturating_duration_since(process.started),
                memory: survey.look_at(process.child.pid()),
            });
            let worker = dump::worker(&view, number, told, now);
            let mut requests = self.base.dispatcher.requests_of(view.id);
            match requests.next() {
                None => dump.line(format_args!("{worker}")),
                Some(oldest) => {
                    let request = self.in_hand(&oldest, process, now);
                    let count = match view.in_hand {
                        1 => String::new(),
                        count => format!("in hand = {count}, "),
                    };
                    dump.line(format_args!("{worker}, {count}{request}"));
                }
            }
            let others = requests.map(|request| {
                let request = self.in_hand(&request, None, now);
                format!("worker {number} also has: {request}")
            });
            let most = ALSO_IN_HAND.min(lines_left);
            lines_left -= dump.list(most, view.in_hand.saturating_sub(1), others);
        }
    }

    /// A request that a worker has. Of one whose client has gone, `worker`'s record tells what it was.
    fn in_hand(&self, request: &RequestInHand, worker: Option<&WorkerProcess>, now: Instant) -> String {
        let since = now.saturating_duration_since(request.since);
        let Some(id) = request.client else {
            let kept = worker.and_then(|worker| worker.recorder.in_hand());
            let kept = kept.map(|entry| entry.excerpt(self.base.options.disclosure));
            return dump::request(since, "gone", kept.as_ref());
        };
        if let Some(session) = self.sessions.get(id) {
            return dump::request(since, &describe_client(session.conn.socket(), &session.origin), None);
        }
        let bytes = self.clients.request_bytes(id);
        let excerpt = bytes.map(|bytes| Excerpt::of(bytes, self.disclosure_of(request.arrived)));
        let client = self
            .clients
            .of(id)
            .map(|client| describe_client(client.conn.socket(), &client.origin));
        let client = client.as_deref().unwrap_or("gone (others wait for the answer)");
        dump::request(since, client, excerpt.as_ref())
    }

    // ---- queue -------------------------------------------------------------------------------------------------

    fn describe_queue(&self, dump: &mut Dump<'_>, now: Instant) {
        let length = self.base.dispatcher.queue_length();
        let longest = self.base.dispatcher.queued().next();
        let longest = longest.map(|waiting| now.saturating_duration_since(waiting.arrived));
        dump.line(format_args!("{}", dump::queue(length, longest)));
        let waiting = self.base.dispatcher.queued().zip(1..);
        let lines = waiting.map(|(waiting, place)| format!("waiting {place}: {}", self.in_queue(&waiting, now)));
        dump.list(FIRST, length, lines);
    }

    fn in_queue(&self, waiting: &WaitingRequest, now: Instant) -> String {
        let request = RequestInHand {
            client: Some(waiting.client),
            arrived: Some(waiting.arrived),
            since: waiting.arrived,
        };
        let request = self.in_hand(&request, None, now);
        match waiting.deaths {
            0 => request,
            deaths => format!("workers lost over it = {deaths}, {request}"),
        }
    }

    // ---- clients -----------------------------------------------------------------------------------------------

    fn describe_clients(&self, dump: &mut Dump<'_>, now: Instant) {
        let total = self.base.front.connections();
        dump.line(format_args!("clients: {total} connected"));
        let sessions = self.sessions.iter();
        let sessions = sessions.map(|(key, session)| session_view(key, session, now));
        let clients = self.clients.iter();
        let clients = clients.map(|(key, client)| self.client_view(key, client, now));
        dump.list(FIRST, total, sessions.chain(clients).map(|view| dump::client(&view)));
    }

    fn client_view(&self, key: Key, client: &Client, now: Instant) -> ClientView {
        let owed = || self.clients.owed(client);
        let state = match client.phase {
            Phase::Lingering => ClientState::Leaving,
            Phase::Taking | Phase::Full | Phase::Finishing(_) if client.conn.unwritten() > 0 => ClientState::Writing,
            Phase::Taking | Phase::Full | Phase::Finishing(_) if client.owed.count() > 0 => ClientState::Waiting,
            Phase::Taking if client.kind.kept().is_some() && !client.has_unfinished_request() => ClientState::Idle,
            Phase::Taking | Phase::Full | Phase::Finishing(_) => ClientState::Reading,
        };
        let oldest = owed().next().and_then(|exchange| match exchange.state {
            State::Asked(ref asked) => self.base.dispatcher.arrival(asked.request?),
            State::Coalesced(_) | State::Answered(_) => None,
        });
        let since = oldest.filter(|_| state == ClientState::Waiting);
        let bytes = owed().take(COUNTED).map(|exchange| match &exchange.state {
            State::Asked(Asked { bytes, .. }) | State::Answered(bytes) => bytes.len(),
            State::Coalesced(_) => 0,
        });
        let held = bytes
            .chain(iter::once(client.input.len() + client.conn.unwritten()))
            .sum();
        let unanswered = client.owed.count();
        ClientView {
            number: key.slot(),
            state,
            since: now.saturating_duration_since(since.unwrap_or(client.active)),
            age: now.saturating_duration_since(client.accepted),
            client: describe_client(client.conn.socket(), &client.origin),
            load: match client.kind.is_multiplexed() {
                true => Load::NumberedRequests { unanswered, held },
                false => Load::Requests { unanswered, held },
            },
        }
    }
}

fn session_view(key: Key, session: &Session, now: Instant) -> ClientView {
    let (state, since, load) = match &session.stage {
        Stage::Waiting(_) => (
            ClientState::Waiting,
            session.accepted,
            Load::Requests { unanswered: 1, held: 0 },
        ),
        Stage::Running(running) => {
            let volume = running.volume();
            let state = match running.worker {
                Some(_) => ClientState::Session,
                None => ClientState::SessionEnds,
            };
            let load = Load::Session {
                up: volume.up,
                down: volume.down,
                held: running.held(),
            };
            (state, running.active, load)
        }
    };
    ClientView {
        number: key.slot(),
        state,
        since: now.saturating_duration_since(since),
        age: now.saturating_duration_since(session.accepted),
        client: describe_client(session.conn.socket(), &session.origin),
        load,
    }
}
