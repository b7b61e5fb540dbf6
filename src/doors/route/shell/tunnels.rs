//! The sessions of tunnel clients: each is a tunnel connection, from its handshake to its end.
//!
//! The life of a session: it is [added](RouteDoor::add_session) with a client that the door admits, its first stream is
//! read until its secret is complete (`strangers`), and from then on routes open streams of it (`streams`). When it is over, its routes
//! are told by their streams, and the last one to give its stream back [removes](RouteDoor::remove_session_if_over) it.
//!
//! Invariants:
//! - Before its handshake is done a session has no route, and its client has [`hello_timeout`](super::super::options::Options::hello_timeout)
//!   for it: see `strangers`.
//! - What was written in a turn leaves at its end: every session that was touched is in `touched`.
//! - A secret is in no line of the log.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use log::Level;
use mio::Interest;

use super::super::core::handshake::Handshake;
use super::super::core::secrets::Secret;
use super::super::core::tunnels::SessionId;
use super::super::report;
use super::super::tunnel_report::{departed, stranger_ended};
use super::strangers::HANDSHAKE;
use super::streams::Stream;
use super::{RouteDoor, RouteSource};
use crate::amount;
use crate::mux::core::{Counters, Role, Settings, StreamId};
use crate::mux::session::{Departure, End, Next, Session};
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// The time for which the answer to a ping may be owed before new streams go to other sessions first.
const SUSPICION: Duration = Duration::from_secs(1);

/// The sessions of a door.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) list: GenerationalSlab<Tunnel>,
    /// The sessions whose handshakes are not done, the oldest first, and others that have been among them.
    pub(super) strangers: VecDeque<Key>,
    /// The sessions that may have something to write.
    touched: Vec<Key>,
    /// The secrets of the tables have changed, and it is not known yet which sessions they have left without a name.
    pub(super) has_new_secrets: bool,
    /// The door drains, and its clients were told to go away. A session without a stream is closed from then on.
    are_sent_away: bool,
}

/// One tunnel connection.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) session: Session,
    pub(super) origin: Origin,
    pub(super) state: State,
    /// The stream of the handshake, until both of its ends are said.
    pub(super) handshake: Option<StreamId>,
    /// The routes that wait until the client takes more streams, and others that have waited.
    pub(super) waiting: VecDeque<Key>,
    begun: Instant,
    /// The time of the last ping that a new stream has caused.
    pinged: Option<Instant>,
    alarm: Alarm,
    is_touched: bool,
    /// The streams that were given up because the session is over.
    pub(super) cut: usize,
    /// A stream was given up in this turn, so that there may be room for another one.
    pub(super) has_released: bool,
    is_suspect: bool,
    /// The answer to a ping was awaited at the end of the last turn.
    is_asked: bool,
    /// The part of its counters that the statistics of the door have already.
    counted: Counters,
}

/// The state of a session.
#[derive(Debug)]
pub(super) enum State {
    /// Its handshake is awaited.
    Strange { handshake: Handshake, until: Instant },
    /// No table has its secret, and the first reading of the store is awaited.
    Undecided { secret: Secret, until: Instant },
    /// It serves the names with its secret.
    Serving,
    /// It is over, and waits until its last stream is given back.
    Over,
}

impl State {
    /// The time at which the client is given up.
    fn until(&self) -> Option<Instant> {
        match self {
            State::Strange { until, .. } | State::Undecided { until, .. } => Some(*until),
            State::Serving | State::Over => None,
        }
    }
}

impl Sessions {
    /// Takes note that a session may have something to write.
    pub(super) fn touch(&mut self, key: Key) {
        if let Some(tunnel) = self.list.get_mut(key)
            && !std::mem::replace(&mut tunnel.is_touched, true)
        {
            self.touched.push(key);
        }
    }

    /// The edges of a stream, or a hang-up if its session is gone.
    pub(super) fn edges_of(&self, stream: Stream) -> Readiness {
        match self.list.get(stream.session) {
            Some(tunnel) => tunnel.session.edges_of(stream.id),
            None => Readiness {
                readable: true,
                writable: true,
                read_closed: true,
                hung_up: true,
            },
        }
    }
}

impl RouteDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    /// Adds the session of a tunnel client that has a place.
    pub(super) fn add_session(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        let settings = Settings {
            // That of the handshake.
            streams: 1,
            ping_interval: self.options.tunnel_ping,
            ping_timeout: self.options.tunnel_ping_timeout,
            ..Settings::default()
        };
        let tunnel = Tunnel {
            session: Session::new(conn, Role::Server, settings, cx.now()),
            origin,
            state: State::Strange {
                handshake: Handshake::default(),
                until: cx.now() + self.options.hello_timeout,
            },
            handshake: None,
            waiting: VecDeque::new(),
            begun: cx.now(),
            pinged: None,
            alarm: Alarm::default(),
            is_touched: false,
            cut: 0,
            has_released: false,
            is_suspect: false,
            is_asked: false,
            counted: Counters::default(),
        };
        self.tunnel_counts.total += 1;
        let key = match self.sessions.list.insert(tunnel) {
            Ok(key) => key,
            // The limit on connections is far below the number of keys.
            Err(tunnel) => return self.front.connection_closed(cx, &tunnel.origin),
        };
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        let source = RouteSource::Tunnel.at(key);
        if let Err(error) = cx.register(
            source,
            tunnel.session.conn_mut(),
            Interest::READABLE | Interest::WRITABLE,
        ) {
            let line = format!("cannot watch tunnel client {}: {error}", tunnel.origin);
            self.front
                .note(cx, Level::Error, report::SYSTEM, format_args!("{line}"));
            return self.drop_session(cx, key);
        }
        self.sessions.strangers.push_back(key);
        self.make_room_for_strangers(cx);
        // TLS may have brought bytes already, of which the poll tells nothing.
        self.run_session(cx, key);
    }

    // ---- events ------------------------------------------------------------------------------------------------

    pub(super) fn session_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        if let Some(tunnel) = self.sessions.list.get_mut(key) {
            tunnel.session.note(readiness);
            self.run_session(cx, key);
        }
    }

    /// Goes on with a session until it has nothing more to do, or has used up its share of the turn.
    pub(super) fn run_session(&mut self, cx: &mut Context<'_>, key: Key) {
        self.sessions.touch(key);
        while let Some(tunnel) = self.sessions.list.get_mut(key) {
            match tunnel.session.next(cx.now()) {
                Next::Idle => break,
                Next::MoreLater => {
                    cx.resume_later(RouteSource::Tunnel.at(key));
                    break;
                }
                Next::Opened(stream) => tunnel.take_stream(stream),
                Next::Stream {
                    stream,
                    owner: HANDSHAKE,
                } => self.read_handshake(cx, key, stream),
                Next::Stream { owner, .. } => self.stream_ready(cx, Key::from_bits(owner)),
                Next::WentAway(_) => self.note_gone_away(cx, key),
                Next::Over(end) => self.session_ended(cx, key, &end),
            }
        }
        self.open_waiting(cx, key);
        self.note_answered(key);
        self.remove_session_if_over(cx, key);
    }

    pub(super) fn session_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        cx.clear_alarm(&mut tunnel.alarm);
        match &tunnel.state {
            State::Strange { until, .. } if *until <= cx.now() => {
                return self.turn_client_away(cx, key, "its handshake was not complete within --hello-timeout");
            }
            State::Undecided { until, .. } if *until <= cx.now() => return self.judge_client(cx, key),
            State::Strange { .. } | State::Undecided { .. } | State::Serving | State::Over => {}
        }
        let suspicion = tunnel.suspicion();
        if suspicion.is_some_and(|at| at <= cx.now()) {
            tunnel.is_suspect = true;
            self.router.tunnels_mut().note_suspect(session_id(key), true);
        }
        if tunnel.session.deadline().is_some_and(|at| at <= cx.now()) {
            tunnel.session.timeout(cx.now());
        }
        self.run_session(cx, key);
    }

    /// Takes note that the path of a session is proved again.
    fn note_answered(&mut self, key: Key) {
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        if tunnel.is_suspect && tunnel.session.asked_at().is_none() {
            tunnel.is_suspect = false;
            self.router.tunnels_mut().note_suspect(session_id(key), false);
        }
        if tunnel.session.asked_at().is_none()
            && std::mem::take(&mut tunnel.is_asked)
            && let Some(time) = tunnel.session.round_trip()
        {
            self.times.ping.record(time);
        }
    }

    /// The client takes no more streams.
    fn note_gone_away(&mut self, cx: &mut Context<'_>, key: Key) {
        self.router.tunnels_mut().note_gone_away(session_id(key), cx.now());
        if let Some(tunnel) = self.sessions.list.get(key) {
            let line = format!("tunnel client {} takes no more connections", tunnel.origin);
            self.front.note(cx, Level::Info, report::TUNNEL, format_args!("{line}"));
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// The session is over. Its streams have been reported, or are about to be.
    fn session_ended(&mut self, cx: &mut Context<'_>, key: Key, end: &End) {
        let Some(tunnel) = self.sessions.list.get_mut(key) else {
            return;
        };
        let origin = &tunnel.origin;
        let (level, topic, line) = match std::mem::replace(&mut tunnel.state, State::Over) {
            State::Strange { .. } | State::Undecided { .. } => {
                self.tunnel_counts.refused += 1;
                let line = format!("refused tunnel client {origin}: {}", stranger_ended(end));
                // Health checks connect and close.
                let has_spoken = tunnel.session.counters().taken > 0;
                let is_check = *end == End::Closed && !has_spoken;
                let level = if is_check { Level::Debug } else { Level::Warn };
                (level, report::TUNNEL_REFUSED, line)
            }
            State::Serving | State::Over => {
                let departure = end.departure();
                self.tunnel_counts.count(departure);
                let up = amount::span(cx.now().saturating_duration_since(tunnel.begun));
                let cut = match tunnel.cut {
                    0 => String::new(),
                    1 => "; 1 connection was cut".to_owned(),
                    cut => format!("; {cut} connections were cut"),
                };
                let line = format!("tunnel client {origin} has left after {up}: {}{cut}", departed(end));
                let level = if departure == Departure::Closed {
                    Level::Info
                } else {
                    Level::Warn
                };
                (level, report::TUNNEL_ENDED, line)
            }
        };
        self.router.tunnels_mut().note_gone_away(session_id(key), cx.now());
        self.front.note(cx, level, topic, format_args!("{line}"));
        self.open_waiting(cx, key);
    }

    /// Must be called when a stream was given back: removes a session that is over without any.
    pub(super) fn remove_session_if_over(&mut self, cx: &mut Context<'_>, key: Key) {
        let is_done = |tunnel: &Tunnel| tunnel.session.is_over() && tunnel.session.is_empty();
        if self.sessions.list.get(key).is_some_and(is_done) {
            self.drop_session(cx, key);
        }
    }

    /// Closes a session without streams of routes, and gives its place back.
    pub(super) fn drop_session(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut tunnel) = self.sessions.list.remove(key) else {
            return;
        };
        if let Some(stream) = tunnel.handshake.take() {
            tunnel.session.release(stream, None);
        }
        // The reason for the end, if there is one to tell.
        let _ = tunnel.session.flush();
        cx.set_alarm(&mut tunnel.alarm, RouteSource::Tunnel.at(key), None);
        let more = tunnel.take_uncounted();
        self.tunnel_counts.add(&more);
        self.router.tunnels_mut().leave(session_id(key), cx.now());
        tunnel.session.into_conn().close_in_order();
        self.front.connection_closed(cx, &tunnel.origin);
    }

    // ---- the end of the turn, and of the door --------------------------------------------------------------------

    /// Writes what was gathered for tunnels in this turn.
    pub(super) fn flush_sessions(&mut self, cx: &mut Context<'_>) {
        if !self.front.is_serving() && !self.sessions.are_sent_away {
            self.send_clients_away();
        }
        for key in std::mem::take(&mut self.sessions.touched) {
            let Some(tunnel) = self.sessions.list.get_mut(key) else {
                continue;
            };
            tunnel.is_touched = false;
            let is_unfinished = tunnel.session.flush();
            let may_open = std::mem::take(&mut tunnel.has_released) && !tunnel.waiting.is_empty();
            if is_unfinished || may_open {
                cx.resume_later(RouteSource::Tunnel.at(key));
            }
            tunnel.is_asked = tunnel.session.asked_at().is_some();
            let more = tunnel.take_uncounted();
            self.tunnel_counts.add(&more);
            let is_done = tunnel.session.is_over() && tunnel.session.is_empty();
            let is_sent_away = self.sessions.are_sent_away && tunnel.is_unused() && tunnel.session.is_written();
            if !is_unfinished && (is_done || is_sent_away) {
                self.drop_session(cx, key);
                continue;
            }
            let deadline = [tunnel.state.until(), tunnel.suspicion(), tunnel.session.deadline()];
            let deadline = deadline.into_iter().flatten().min();
            if tunnel.alarm.at() != deadline {
                cx.set_alarm(&mut tunnel.alarm, RouteSource::Tunnel.at(key), deadline);
            }
        }
    }

    /// Sends the tunnel clients of a door that drains away, once no connection may need a new stream: one that knows the
    /// word comes to the successor at once. They still take the visitors that the successor passes on.
    fn send_clients_away(&mut self) {
        let census = self.router.census();
        let undecided =
            census.opening + census.waiting + census.securing + census.starting + census.expecting + census.connecting;
        if undecided > 0 || self.front.has_arrivals() {
            return;
        }
        self.sessions.are_sent_away = true;
        let keys: Vec<Key> = self.sessions.list.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(tunnel) = self.sessions.list.get_mut(key) {
                tunnel.session.go_away();
                self.sessions.touch(key);
            }
        }
    }

    /// Closes every session without waiting. Must be called behind the end of all routes.
    pub(super) fn drop_sessions(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<Key> = self.sessions.list.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(tunnel) = self.sessions.list.get_mut(key) {
                tunnel.session.go_away();
            }
            self.drop_session(cx, key);
        }
    }

    /// Returns the lines of the dump.
    pub(super) fn describe_sessions(&self, now: Instant) -> impl Iterator<Item = String> {
        self.sessions
            .list
            .iter()
            .map(move |(key, tunnel)| tunnel.describe(key, now))
    }
}

impl Tunnel {
    /// The time from which on the session is suspect, unless it is already.
    fn suspicion(&self) -> Option<Instant> {
        let asked = self.session.asked_at().filter(|_| !self.is_suspect);
        asked.map(|at| at + SUSPICION)
    }

    /// Checks the path of a session that is about to be used, unless that was done just now.
    pub(super) fn prove_path(&mut self, now: Instant) {
        if self.pinged.is_none_or(|at| at + SUSPICION <= now) {
            self.pinged = Some(now);
            self.session.ping_now(now);
        }
    }

    /// Returns true if no route has a stream of it.
    fn is_unused(&self) -> bool {
        self.session.streams() == usize::from(self.handshake.is_some())
    }

    /// Returns the part of its counters that was not counted before.
    fn take_uncounted(&mut self) -> Counters {
        let seen = *self.session.counters();
        let before = std::mem::replace(&mut self.counted, seen);
        Counters {
            opened: seen.opened - before.opened,
            taken: seen.taken - before.taken,
            refused: seen.refused - before.refused,
            sent: seen.sent - before.sent,
            received: seen.received - before.received,
            resets: seen.resets - before.resets,
            evicted: seen.evicted - before.evicted,
        }
    }

    fn describe(&self, key: Key, now: Instant) -> String {
        let state = match &self.state {
            State::Strange { .. } => "handshake",
            State::Undecided { .. } => "waiting",
            State::Serving if self.session.is_gone_away() => "leaving",
            State::Serving if self.is_suspect => "suspect",
            State::Serving => "serving",
            State::Over => "over",
        };
        let (origin, counters) = (&self.origin, self.session.counters());
        let streams = self.session.streams() - usize::from(self.handshake.is_some());
        let up = amount::span(now.saturating_duration_since(self.begun));
        let round_trip = match self.session.round_trip() {
            Some(time) => amount::span(time).to_string(),
            None => "unknown".to_owned(),
        };
        let (sent, received) = (counters.sent, counters.received);
        format!(
            "tunnel {}: state = {state}, connected for = {up}, client = {origin}, streams = {streams}, in = {received}, \
             out = {sent}, round trip = {round_trip}",
            session_id(key).0
        )
    }
}

/// The number by which the router knows a session.
pub(super) fn session_id(key: Key) -> SessionId {
    SessionId(key.to_bits())
}
