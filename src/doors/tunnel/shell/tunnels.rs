//! The tunnels: each server is connected to, greeted, and its session is run.
//!
//! The life of a [`Tunnel`]: it waits for the addresses of its server, connects, makes its TLS handshake, greets by the
//! first stream, takes the streams that the server opens, and ends with its session. What the server still sends then is
//! thrown away for a moment, or the reset of the connection could overtake the last frames. The server's
//! [`Slot`] decides when the next one begins.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::core::greeting::greeting;
use super::super::core::remote::Event;
use super::super::report;
use super::attempt::{Attempt, Means, Places};
use super::hosts::{Answer, Waiter};
use super::remotes::Slot;
use super::{TunnelDoor, TunnelSource};
use crate::mux::core::{Role, Settings, StreamId};
use crate::mux::session::{Departure, End, Next, Session};
use crate::net::addr::ConnectAddr;
use crate::net::conn::{CloseStep, Conn, LingerLimits};
use crate::net::tls::engine::Engine;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};
use crate::relay::direction;
use crate::relay::endpoint::Endpoint;

/// The owner of the first stream, which has the greeting. No key has these bits.
const GREETING: u64 = u64::MAX;
/// The streams of one tunnel, for a server that opens them and reads nothing. The door has its own bound over all tunnels.
const MOST_STREAMS: usize = 1 << 16;
/// The bounds within which bytes of a server are thrown away whose tunnel is closed.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(1),
    bytes: 1 << 20,
};

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The server. It may be gone since.
    pub(super) slot: Key,
    /// Its address, for the log.
    pub(super) name: Arc<str>,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    /// True once the server has answered a ping.
    has_answered: bool,
    alarm: Alarm,
    is_touched: bool,
}

/// The progress of a connection to a server.
#[derive(Debug)]
pub(super) enum Stage {
    /// Its host is being looked up.
    Naming,
    /// It is being connected to.
    Connecting(Box<Attempt>),
    /// It has a session.
    Up(Box<Session>),
    /// Everything is written, and what the server still sends is thrown away.
    Closing(Box<Conn>),
}

impl Tunnel {
    /// Its session.
    pub(super) fn session(&mut self) -> Option<&mut Session> {
        match &mut self.stage {
            Stage::Up(session) => Some(session),
            Stage::Naming | Stage::Connecting(_) | Stage::Closing(_) => None,
        }
    }
}

impl TunnelDoor {
    // ---- connecting --------------------------------------------------------------------------------------------

    pub(super) fn begin_tunnel(&mut self, cx: &mut Context<'_>, slot: Key) {
        let Some(options) = self.remotes.get(slot).map(|slot| slot.options.clone()) else {
            return;
        };
        self.counters.connects += 1;
        let key = self.tunnels.insert(Tunnel {
            slot,
            name: options.address.to_string().into(),
            stage: Stage::Naming,
            since: cx.now(),
            has_answered: false,
            alarm: Alarm::default(),
            is_touched: false,
        });
        let Ok(key) = key else { return };
        if let Some(slot) = self.remotes.get_mut(slot) {
            slot.current = Some(key);
        }
        let address = &options.address.address;
        match (Places::of(address), address) {
            (Some(places), _) => self.connect_tunnel(cx, key, places),
            (None, ConnectAddr::Tcp { host, .. }) => match self.hosts.ask(cx, host, Waiter::Tunnel(key)) {
                Answer::Known(addresses) => self.connect_tunnel(cx, key, Places::of_host(addresses, address)),
                Answer::Wait => {}
                Answer::Failed(error) => self.fail_tunnel(cx, key, &format!("its host cannot be looked up: {error}")),
            },
            (None, ConnectAddr::Unix(_)) => {}
        }
    }

    /// Takes in the outcome of a look-up for a server.
    pub(super) fn tunnel_named(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        found: Result<Vec<std::net::SocketAddr>, String>,
    ) {
        let Some(tunnel) = self
            .tunnels
            .get(key)
            .filter(|tunnel| matches!(tunnel.stage, Stage::Naming))
        else {
            return;
        };
        let Some(slot) = self.remotes.get(tunnel.slot) else {
            return;
        };
        match found {
            Ok(addresses) => {
                let places = Places::of_host(addresses, &slot.options.address.address);
                self.connect_tunnel(cx, key, places);
            }
            Err(error) => self.fail_tunnel(cx, key, &format!("its host cannot be looked up: {error}")),
        }
    }

    fn connect_tunnel(&mut self, cx: &mut Context<'_>, key: Key, places: Places) {
        let deadline = self.tunnels.get(key).and_then(|tunnel| {
            let slot = self.remotes.get(tunnel.slot)?;
            slot.state.deadline()
        });
        let deadline = deadline.unwrap_or_else(|| cx.now() + self.options.connect_timeout);
        let begun = self.with_means(cx, key, |means| Attempt::begin(places, deadline, means));
        match begun {
            None => {}
            Some(Ok(attempt)) => self.set_connecting(cx, key, Box::new(attempt)),
            Some(Err(error)) => self.fail_tunnel(cx, key, &format!("cannot connect: {error}")),
        }
    }

    fn set_connecting(&mut self, cx: &mut Context<'_>, key: Key, attempt: Box<Attempt>) {
        if let Some(tunnel) = self.tunnels.get_mut(key) {
            let source = TunnelSource::Tunnel.at(key);
            cx.set_alarm(&mut tunnel.alarm, source, Some(attempt.until()));
            tunnel.stage = Stage::Connecting(attempt);
        }
    }

    /// Calls with everything that is needed to connect a tunnel. `None` if it is gone.
    fn with_means<T>(&self, cx: &mut Context<'_>, key: Key, call: impl FnOnce(&mut Means<'_, '_>) -> T) -> Option<T> {
        let tunnel = self.tunnels.get(key)?;
        let name = self.remotes.get(tunnel.slot)?.options.name.clone();
        let tls = self.prepared.tls.as_ref();
        let mut engine = || -> io::Result<Option<Engine>> {
            match (tls, &name) {
                (Some(tls), Some(name)) => Ok(Some(tls.engine(name.clone())?)),
                (Some(_) | None, _) => Ok(None),
            }
        };
        Some(call(&mut Means {
            cx,
            local_ports: &self.local_ports,
            source: TunnelSource::Tunnel.at(key),
            engine: &mut engine,
        }))
    }

    /// An attempt to connect has failed for this reason.
    fn fail_tunnel(&mut self, cx: &mut Context<'_>, key: Key, why: &str) {
        self.counters.failed += 1;
        let Some(slot) = self.tunnels.get(key).map(|tunnel| tunnel.slot) else {
            return;
        };
        self.drop_tunnel(cx, key);
        if let Some(Slot { options, .. }) = self.remotes.get(slot)
            && let ConnectAddr::Tcp { host, .. } = &options.address.address
        {
            self.hosts.forget(host);
        }
        self.tell_remote(cx, slot, Event::Failed, why);
    }

    /// Closes a tunnel without streams, of which everything is written that can be.
    pub(super) fn drop_tunnel(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let step = match std::mem::replace(&mut tunnel.stage, Stage::Naming) {
            Stage::Up(session) => {
                let mut conn = Box::new(session.into_conn());
                let step = conn.begin_close(true, LINGER, cx.now());
                tunnel.stage = Stage::Closing(conn);
                step
            }
            Stage::Naming | Stage::Connecting(_) | Stage::Closing(_) => CloseStep::Done,
        };
        self.follow_close(cx, key, step);
    }

    /// Does what follows from a step of the close.
    fn follow_close(&mut self, cx: &mut Context<'_>, key: Key, step: CloseStep) {
        let source = TunnelSource::Tunnel.at(key);
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        match (step, &tunnel.stage) {
            (CloseStep::Done, _) | (_, Stage::Naming | Stage::Connecting(_) | Stage::Up(_)) => {
                cx.clear_alarm(&mut tunnel.alarm);
                self.tunnels.remove(key);
            }
            (CloseStep::Waiting, Stage::Closing(conn)) => {
                cx.set_alarm(&mut tunnel.alarm, source, conn.close_deadline());
            }
            (CloseStep::MoreLater, Stage::Closing(conn)) => {
                cx.set_alarm(&mut tunnel.alarm, source, conn.close_deadline());
                cx.resume_later(source);
            }
        }
    }

    /// Closes every tunnel without waiting. Must be called behind the end of all streams.
    pub(super) fn drop_tunnels(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<Key> = self.tunnels.iter().map(|(key, _)| key).collect();
        for key in keys {
            let Some(mut tunnel) = self.tunnels.remove(key) else {
                continue;
            };
            cx.clear_alarm(&mut tunnel.alarm);
            if let Stage::Up(mut session) = tunnel.stage {
                let _ = session.flush();
                session.into_conn().close_in_order();
            }
        }
    }

    // ---- the session -------------------------------------------------------------------------------------------

    pub(super) fn tunnel_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        match self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            Some(Stage::Connecting(attempt)) => {
                attempt.conn.note(readiness);
                self.go_on_connecting(cx, key);
            }
            Some(Stage::Up(session)) => {
                session.note(readiness);
                self.run_tunnel(cx, key);
            }
            Some(Stage::Closing(conn)) => {
                conn.note(readiness);
                self.go_on_closing(cx, key);
            }
            Some(Stage::Naming) | None => {}
        }
    }

    pub(super) fn tunnel_resumed(&mut self, cx: &mut Context<'_>, key: Key) {
        match self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            Some(Stage::Up(_)) => self.run_tunnel(cx, key),
            Some(Stage::Closing(_)) => self.go_on_closing(cx, key),
            Some(Stage::Naming | Stage::Connecting(_)) | None => {}
        }
    }

    fn go_on_closing(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(Stage::Closing(conn)) = self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            let step = conn.go_on_closing();
            self.follow_close(cx, key, step);
        }
    }

    fn go_on_connecting(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let Stage::Connecting(mut attempt) = std::mem::replace(&mut tunnel.stage, Stage::Naming) else {
            return;
        };
        match self.with_means(cx, key, |means| attempt.go_on(means)) {
            None => {}
            Some(Ok(false)) => self.set_connecting(cx, key, attempt),
            Some(Ok(true)) => self.greet(cx, key, *attempt),
            Some(Err(error)) => self.fail_tunnel(cx, key, &format!("cannot connect: {error}")),
        }
    }

    /// The time for one of the addresses is over.
    fn address_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let Stage::Connecting(mut attempt) = std::mem::replace(&mut tunnel.stage, Stage::Naming) else {
            return;
        };
        match self.with_means(cx, key, |means| attempt.timeout(means)) {
            None => {}
            Some(Ok(())) => self.set_connecting(cx, key, attempt),
            Some(Err(error)) => self.fail_tunnel(cx, key, &format!("cannot connect: {error}")),
        }
    }

    /// Begins the session, and tells the server the secret.
    fn greet(&mut self, cx: &mut Context<'_>, key: Key, attempt: Attempt) {
        let settings = Settings {
            streams: MOST_STREAMS,
            ..Settings::default()
        };
        let _ = attempt.conn.socket().set_nodelay();
        let _ = attempt.conn.socket().set_keepalive();
        let mut session = Session::new(attempt.conn, Role::Client, settings, cx.now());
        // The length was checked.
        let words = greeting(self.prepared.secret.reveal().as_bytes()).unwrap_or_default();
        let Some(stream) = session.open(GREETING) else { return };
        let mut end = session.end_of(stream);
        // A new session has credit and room for it.
        let _ = end.write(&words);
        end.say_end();
        // Its answer tells that the path is there both ways.
        session.ping_now(cx.now());
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        tunnel.stage = Stage::Up(Box::new(session));
        tunnel.since = cx.now();
        let (slot, name) = (tunnel.slot, Arc::clone(&tunnel.name));
        let door = self.front.name();
        log::info!(service:% = door; "{door}: connected to {name}");
        self.tell_remote(cx, slot, Event::Connected, "");
        self.run_tunnel(cx, key);
    }

    /// Goes on with a session, and does what it says.
    pub(super) fn run_tunnel(&mut self, cx: &mut Context<'_>, key: Key) {
        while let Some(session) = self.tunnels.get_mut(key).and_then(Tunnel::session) {
            match session.next(cx.now()) {
                Next::Idle => break,
                Next::MoreLater => {
                    cx.resume_later(TunnelSource::Tunnel.at(key));
                    break;
                }
                Next::Opened(stream) => self.take_stream(cx, key, stream),
                Next::Stream {
                    stream,
                    owner: GREETING,
                } => self.end_greeting(key, stream),
                Next::Stream { owner, .. } => self.carry(cx, Key::from_bits(owner)),
                Next::WentAway(_) => self.follow_away(cx, key),
                Next::Over(end) => self.end_session(cx, key, &end),
            }
        }
        self.note_answered(cx, key);
        self.touch(key);
    }

    /// Takes note of the first answer through a tunnel.
    fn note_answered(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let has_answered = tunnel.session().is_some_and(|session| session.round_trip().is_some());
        if has_answered && !std::mem::replace(&mut tunnel.has_answered, true) {
            let slot = tunnel.slot;
            self.tell_current(cx, slot, key, Event::Answered, "");
        }
    }

    /// The first stream is over when the server has said its end.
    fn end_greeting(&mut self, key: Key, stream: StreamId) {
        if let Some(session) = self.tunnels.get_mut(key).and_then(Tunnel::session) {
            let mut nothing = [0; 64];
            loop {
                match session.end_of(stream).read(&mut nothing) {
                    // It has nothing to say.
                    Ok(_) => {}
                    Err(direction::Event::SourceEmpty) => break,
                    Err(_) => return session.release(stream, None),
                }
            }
        }
    }

    fn follow_away(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let (slot, name) = (tunnel.slot, Arc::clone(&tunnel.name));
        self.counters.went_away += 1;
        let door = self.front.name();
        log::info!(service:% = door; "{door}: {name} takes no more streams here");
        let mut why = "the server has gone away".to_owned();
        why.push_str(self.suspicion(cx, slot));
        self.tell_current(cx, slot, key, Event::WentAway, &why);
    }

    fn end_session(&mut self, cx: &mut Context<'_>, key: Key, end: &End) {
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let slot = tunnel.slot;
        match end.departure() {
            Departure::Closed => self.counters.closed += 1,
            Departure::Lost => self.counters.lost += 1,
            Departure::Silent => self.counters.silent += 1,
            Departure::Faulty => self.counters.faulty += 1,
        }
        let mut why = report::ended(end);
        if *end == End::Closed {
            why.push_str(self.suspicion(cx, slot));
        }
        self.tell_current(cx, slot, key, Event::Over, &why);
    }

    /// Words for a server that may not know the secret, which it never says.
    fn suspicion(&self, cx: &Context<'_>, slot: Key) -> &'static str {
        match self.remotes.get(slot) {
            Some(slot) if !slot.state.has_proved(cx.now()) => ", as one does that does not know the secret",
            Some(_) | None => "",
        }
    }

    /// Tells the server's place an event of a tunnel, if it is the one that takes streams.
    fn tell_current(&mut self, cx: &mut Context<'_>, slot: Key, tunnel: Key, event: Event, why: &str) {
        if self.remotes.get(slot).is_some_and(|slot| slot.current == Some(tunnel)) {
            self.tell_remote(cx, slot, event, why);
        }
    }

    /// Returns true if a tunnel is over, or was sent away and has no stream and nothing to write.
    fn is_done(&self, key: Key) -> bool {
        let Some(tunnel) = self.tunnels.get(key) else {
            return false;
        };
        let Stage::Up(session) = &tunnel.stage else {
            return false;
        };
        let is_current = self
            .remotes
            .get(tunnel.slot)
            .is_some_and(|slot| slot.current == Some(key));
        session.is_empty() && (session.is_over() || !is_current && session.is_written())
    }

    pub(super) fn tunnel_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        match self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            Some(Stage::Connecting(_)) => self.address_timeout(cx, key),
            Some(Stage::Up(session)) => {
                session.timeout(cx.now());
                self.run_tunnel(cx, key);
            }
            Some(Stage::Closing(_)) => self.follow_close(cx, key, CloseStep::Done),
            Some(Stage::Naming) | None => {}
        }
    }

    /// Lets a tunnel take no more streams. It ends with its last one.
    pub(super) fn send_away(&mut self, cx: &mut Context<'_>, key: Key) {
        match self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            Some(Stage::Up(session)) => {
                session.go_away();
                self.run_tunnel(cx, key);
            }
            Some(Stage::Naming | Stage::Connecting(_)) => self.drop_tunnel(cx, key),
            Some(Stage::Closing(_)) | None => {}
        }
    }

    // ---- the end of the turn -----------------------------------------------------------------------------------

    /// Lists a tunnel whose frames are to be written at the end of the turn.
    pub(super) fn touch(&mut self, key: Key) {
        if let Some(tunnel) = self.tunnels.get_mut(key)
            && !std::mem::replace(&mut tunnel.is_touched, true)
        {
            self.touched.push(key);
        }
    }

    /// Writes the frames that this turn has made, and closes the tunnels that have nothing more to do.
    pub(super) fn write_out(&mut self, cx: &mut Context<'_>) {
        for key in std::mem::take(&mut self.touched) {
            let Some(tunnel) = self.tunnels.get_mut(key) else {
                continue;
            };
            tunnel.is_touched = false;
            let Stage::Up(session) = &mut tunnel.stage else {
                continue;
            };
            let goes_on = session.flush();
            cx.set_alarm(&mut tunnel.alarm, TunnelSource::Tunnel.at(key), session.deadline());
            if goes_on {
                cx.resume_later(TunnelSource::Tunnel.at(key));
            } else if self.is_done(key) {
                self.drop_tunnel(cx, key);
            }
        }
    }
}
