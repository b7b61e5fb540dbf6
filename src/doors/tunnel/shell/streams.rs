//! The streams: each is one client of the server, and is carried to a local service.
//!
//! The life of a stream: its first bytes are read if there are two local services, the service of its kind is connected to
//! ([`reaching`](super::reaching)), and the bytes go both ways until both sides have ended. A service that takes no more
//! while the client may still be sending is closed, and what still comes is thrown away for a moment, so that the client
//! gets what the service has said.

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::super::core::opening::{Local as Kind, choose};
use super::super::options::Options;
use super::super::report;
use super::reaching::Reaching;
use super::tunnels::Tunnel;
use super::{TunnelDoor, TunnelSource};
use crate::doors::socket_end::SocketEnd;
use crate::mux::core::StreamId;
use crate::net::conn::Conn;
use crate::net::proxy::{Parsed, parse};
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};
use crate::relay::carrier::Tools;
use crate::relay::conversation::{Conversation, Outcome, Side, Standing};
use crate::relay::direction::Event;
use crate::relay::endpoint::Endpoint;

/// The longest time for the first bytes of a stream.
const OPENING: Duration = Duration::from_secs(10);
/// The longest time for which bytes are thrown away that a service does not take.
const DRAINING: Duration = Duration::from_secs(2);
/// A stream.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) tunnel: Key,
    pub(super) stream: StreamId,
    pub(super) stage: Stage,
    alarm: Alarm,
    /// The time of the last byte.
    last: Instant,
    counted: Traffic,
}

/// The progress of a stream.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its first bytes decide where it goes.
    Opening(Vec<u8>),
    /// Its service is being connected to.
    Reaching(Box<Reaching>),
    /// Bytes go both ways.
    Relaying(Box<(Conversation, SocketEnd)>),
    /// The service has ended, and what the client still sends is thrown away.
    Draining,
}

/// The numbers of bytes that were passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Traffic {
    /// From clients to services.
    pub(in super::super) input: u64,
    /// From services to clients.
    pub(in super::super) output: u64,
    /// Both ways, past the memory of this process.
    pub(in super::super) spliced: u64,
}

impl Carried {
    /// A word for its stage.
    pub(super) fn stage(&self) -> &'static str {
        match &self.stage {
            Stage::Opening(_) => "opening",
            Stage::Reaching(reaching) => reaching.stage(),
            Stage::Relaying(_) => "relaying",
            Stage::Draining => "draining",
        }
    }

    /// The bytes that were passed on so far.
    pub(super) fn traffic(&self) -> Traffic {
        self.counted
    }
}

/// Returns the service of a stream by its first bytes; `None` if more of them are needed.
fn opening_of(options: &Options, held: &[u8]) -> Option<Kind> {
    if options.accept_proxy && matches!(parse(held), Parsed::NeedMore { .. }) {
        return None;
    }
    match &options.local_tls {
        None => Some(Kind::Plain),
        Some(_) => choose(held),
    }
}

impl TunnelDoor {
    /// Takes a stream that the server has opened.
    pub(super) fn take_stream(&mut self, cx: &mut Context<'_>, tunnel: Key, stream: StreamId) {
        let Some(session) = self.tunnels.get_mut(tunnel).and_then(Tunnel::session) else {
            return;
        };
        let most = self.front.options().connection_limits.total;
        if self.streams.len() >= most {
            session.refuse(stream);
            self.counters.turned_away += 1;
            let line = format_args!("a client was turned away: there are {most}, as many as max-streams allows");
            self.front.note(cx, Level::Warn, report::LIMIT, line);
            return;
        }
        let key = self.streams.insert(Carried {
            tunnel,
            stream,
            stage: Stage::Opening(Vec::new()),
            alarm: Alarm::default(),
            last: cx.now(),
            counted: Traffic::default(),
        });
        let Ok(key) = key else { return session.refuse(stream) };
        session.accept(stream, key.to_bits());
        self.counters.streams += 1;
        self.opening += 1;
        self.trace(key, format_args!("a client has come"));
        if opening_of(&self.options, b"").is_some() {
            return self.leave_opening(cx, key, Kind::Plain);
        }
        self.set_stream_alarm(cx, key, Some(cx.now() + OPENING));
    }

    pub(super) fn set_stream_alarm(&mut self, cx: &mut Context<'_>, key: Key, at: Option<Instant>) {
        if let Some(carried) = self.streams.get_mut(key) {
            cx.set_alarm(&mut carried.alarm, TunnelSource::Stream.at(key), at);
        }
    }

    // ---- the first bytes ---------------------------------------------------------------------------------------

    /// Reads the first bytes of a stream, until they tell where it goes.
    fn read_opening(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut scratch = cx.lend_buffer();
        let ended = self.fill_opening(key, &mut scratch);
        cx.return_buffer(scratch);
        let Some(Stage::Opening(held)) = self.streams.get(key).map(|carried| &carried.stage) else {
            return;
        };
        match (opening_of(&self.options, held), ended) {
            (Some(kind), _) => self.leave_opening(cx, key, kind),
            (None, Some(Event::SourceEnded)) if !held.is_empty() => self.leave_opening(cx, key, Kind::Plain),
            // A client that says nothing.
            (None, Some(_)) => self.finish(cx, key, false),
            (None, None) => {}
        }
    }

    /// Returns the event that has ended the stream, if one has.
    fn fill_opening(&mut self, key: Key, scratch: &mut [u8]) -> Option<Event> {
        let carried = self.streams.get_mut(key)?;
        let Stage::Opening(held) = &mut carried.stage else {
            return None;
        };
        let session = self.tunnels.get_mut(carried.tunnel).and_then(Tunnel::session)?;
        while opening_of(&self.options, held).is_none() {
            match session.end_of(carried.stream).read(scratch) {
                Ok(count) => held.extend_from_slice(scratch.get(..count).unwrap_or_default()),
                Err(Event::SourceEmpty) => return None,
                Err(event) => return Some(event),
            }
        }
        None
    }

    // ---- the relay ---------------------------------------------------------------------------------------------

    /// Goes on to the local service of a stream whose first bytes are there.
    fn leave_opening(&mut self, cx: &mut Context<'_>, key: Key, kind: Kind) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        if let Stage::Opening(held) = std::mem::replace(&mut carried.stage, Stage::Draining) {
            self.opening -= 1;
            self.reach(cx, key, held, kind);
        }
    }

    /// Carries a stream whose service is connected, and gets the held bytes first.
    pub(super) fn begin_relay(&mut self, cx: &mut Context<'_>, key: Key, conn: Conn, held: Vec<u8>) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        let relay = (Conversation::new(held, Vec::new()), SocketEnd::server(conn));
        carried.stage = Stage::Relaying(Box::new(relay));
        carried.last = cx.now();
        self.trace(key, format_args!("its service is connected"));
        let idle = self.options.idle_timeout.map(|idle| cx.now() + idle);
        self.set_stream_alarm(cx, key, idle);
        self.carry(cx, key);
    }

    pub(super) fn stream_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        match self.streams.get_mut(key).map(|carried| &mut carried.stage) {
            Some(Stage::Reaching(reaching)) => {
                reaching.note(readiness);
                self.go_on_reaching(cx, key);
            }
            Some(Stage::Relaying(relay)) => {
                let (conversation, local) = &mut **relay;
                local.note(readiness);
                conversation.note(Side::Server, readiness);
                self.run_relay(cx, key);
            }
            Some(Stage::Opening(_) | Stage::Draining) | None => {}
        }
    }

    /// Goes on with a stream for which the tunnel has something, or has room.
    pub(super) fn carry(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        let Some(session) = self.tunnels.get_mut(carried.tunnel).and_then(Tunnel::session) else {
            return;
        };
        match &mut carried.stage {
            Stage::Opening(_) => self.read_opening(cx, key),
            Stage::Relaying(relay) => {
                relay.0.note(Side::Client, session.edges_of(carried.stream));
                self.run_relay(cx, key);
            }
            Stage::Draining => self.drain(cx, key),
            // Whatever has come is found when the service is there, but no service is connected for a client that is gone.
            Stage::Reaching(_) => {
                if session.is_broken_off(carried.stream) {
                    self.finish(cx, key, false);
                }
            }
        }
    }

    fn run_relay(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        let Stage::Relaying(relay) = &mut carried.stage else {
            return;
        };
        let Some(session) = self.tunnels.get_mut(carried.tunnel).and_then(Tunnel::session) else {
            return;
        };
        let (conversation, local) = &mut **relay;
        let mut scratch = cx.lend_buffer();
        let mut tools = Tools {
            scratch: &mut scratch,
            pipes: &mut self.pipes.pipes,
            now: cx.now(),
        };
        let standing = conversation.run(&mut session.end_of(carried.stream), local, &mut tools);
        let (up, down) = (conversation.up(), conversation.down());
        let seen = Traffic {
            input: up.direction().delivered(),
            output: down.direction().delivered(),
            spliced: up.spliced() + down.spliced(),
        };
        let before = std::mem::replace(&mut carried.counted, seen);
        if seen != before {
            carried.last = cx.now();
            self.traffic.input += seen.input - before.input;
            self.traffic.output += seen.output - before.output;
            self.traffic.spliced += seen.spliced - before.spliced;
        }
        let tunnel = carried.tunnel;
        cx.return_buffer(scratch);
        self.touch(tunnel);
        self.pipes.tend(cx, &mut self.front);
        match standing {
            Standing::Waiting => {}
            Standing::MoreLater => cx.resume_later(TunnelSource::Stream.at(key)),
            Standing::Over(Outcome::Complete) => self.finish(cx, key, false),
            Standing::Over(Outcome::Failed(_) | Outcome::Closed(Side::Client)) => self.finish(cx, key, true),
            Standing::Over(Outcome::Closed(Side::Server)) => self.begin_draining(cx, key),
        }
    }

    /// The service takes no more, and the client has everything: what the client still sends is thrown away.
    fn begin_draining(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(carried) = self.streams.get_mut(key) {
            carried.stage = Stage::Draining;
        }
        self.set_stream_alarm(cx, key, Some(cx.now() + DRAINING));
        self.drain(cx, key);
    }

    fn drain(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut scratch = cx.lend_buffer();
        let is_over = self.streams.get(key).is_some_and(|carried| {
            let session = self.tunnels.get_mut(carried.tunnel).and_then(Tunnel::session);
            session.is_none_or(|session| {
                let mut end = session.end_of(carried.stream);
                loop {
                    match end.read(&mut scratch) {
                        Ok(_) => {}
                        Err(Event::SourceEmpty) => return false,
                        Err(_) => return true,
                    }
                }
            })
        });
        cx.return_buffer(scratch);
        if is_over {
            self.finish(cx, key, false);
        }
    }

    pub(super) fn stream_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(carried) = self.streams.get(key) else { return };
        match (&carried.stage, self.options.idle_timeout) {
            (Stage::Opening(_), _) => self.finish(cx, key, true),
            (Stage::Reaching(_), _) => self.reaching_timeout(cx, key),
            (Stage::Relaying(_), Some(idle)) if cx.now() < carried.last + idle => {
                let at = carried.last + idle;
                self.set_stream_alarm(cx, key, Some(at));
            }
            (Stage::Relaying(_), Some(_)) => {
                self.counters.idle += 1;
                self.finish(cx, key, true);
            }
            (Stage::Relaying(_), None) => {}
            (Stage::Draining, _) => self.finish(cx, key, false),
        }
    }

    /// Ends a stream. With `breaks_off` each side learns by a reset that it has only a part.
    pub(super) fn finish(&mut self, cx: &mut Context<'_>, key: Key, breaks_off: bool) {
        let Some(mut carried) = self.streams.remove(key) else {
            return;
        };
        cx.clear_alarm(&mut carried.alarm);
        let rest = match carried.stage {
            Stage::Relaying(relay) => {
                let (mut conversation, local) = *relay;
                let rest = conversation.take_rest(Side::Client);
                if breaks_off {
                    local.conn.reset();
                }
                rest
            }
            Stage::Opening(_) => {
                self.opening -= 1;
                None
            }
            Stage::Reaching(_) | Stage::Draining => None,
        };
        if let Some(session) = self.tunnels.get_mut(carried.tunnel).and_then(Tunnel::session) {
            session.release(carried.stream, rest);
        }
        self.touch(carried.tunnel);
    }

    /// Writes one step of a stream to the log, with `debug`.
    fn trace(&self, key: Key, words: fmt::Arguments<'_>) {
        let Some(carried) = self.streams.get(key).filter(|_| self.options.debug) else {
            return;
        };
        let tunnel = self
            .tunnels
            .get(carried.tunnel)
            .map_or("a tunnel that is gone", |tunnel| &tunnel.name);
        let (name, number) = (self.front.name(), carried.stream.0);
        log::info!(service:% = name; "{name}: {tunnel}, stream {number}: {words}");
    }
}
