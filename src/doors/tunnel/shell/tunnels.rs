//! The servers: each is connected to, greeted, and its session is run.
//!
//! The life of a [`Tunnel`]: it waits for the addresses of its server, connects, makes its TLS handshake, greets by the
//! first stream, takes the streams that the server opens, and ends with its session. The server's [`Slot`] decides when
//! the next one begins.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::greeting::greeting;
use super::super::core::remote::{self, Event, PROVED, Step};
use super::super::options::Remote;
use super::super::report;
use super::attempt::{Attempt, Means, Places};
use super::hosts::{Answer, Waiter};
use super::{TunnelDoor, TunnelSource};
use crate::amount;
use crate::mux::core::{Role, Settings, StreamId};
use crate::mux::session::{End, Next, Session};
use crate::net::addr::ConnectAddr;
use crate::net::tls::engine::Engine;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};
use crate::relay::direction;
use crate::relay::endpoint::Endpoint;

/// The owner of the first stream, which has the greeting. No key has these bits.
const GREETING: u64 = u64::MAX;

/// A server.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) options: Remote,
    pub(super) state: remote::Remote,
    /// The tunnel that takes streams, or is to.
    pub(super) current: Option<Key>,
    alarm: Alarm,
}

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Tunnel {
    /// The server. It may be gone since.
    pub(super) slot: Key,
    /// Its address, for the log.
    pub(super) name: Arc<str>,
    pub(super) stage: Stage,
    pub(super) since: Instant,
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
}

impl Slot {
    pub(super) fn new(options: Remote, state: remote::Remote) -> Self {
        Slot {
            options,
            state,
            current: None,
            alarm: Alarm::default(),
        }
    }
}

impl TunnelDoor {
    // ---- the server --------------------------------------------------------------------------------------------

    pub(super) fn remote_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        self.tell_remote(cx, key, Event::Deadline, "no connection in time");
    }

    /// Reports an event of a server, whose reason is `why`, and does what follows.
    pub(super) fn tell_remote(&mut self, cx: &mut Context<'_>, key: Key, event: Event, why: &str) {
        let Some(slot) = self.remotes.get_mut(key) else { return };
        let step = slot.state.handle(event, cx.now(), &mut self.jitter);
        let name = slot.options.address.to_string();
        match step {
            Step::Nothing => {}
            Step::Connect => {
                slot.current = None;
                self.begin_tunnel(cx, key);
            }
            Step::GiveUp(delay) => {
                if let Some(current) = slot.current.take() {
                    self.drop_tunnel(cx, current);
                }
                self.note_failed(cx, &name, why, delay);
            }
            Step::Wait(delay) => {
                slot.current = None;
                self.note_failed(cx, &name, why, delay);
            }
        }
        self.set_remote_alarm(cx, key);
    }

    pub(super) fn set_remote_alarm(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(slot) = self.remotes.get_mut(key) {
            cx.set_alarm(&mut slot.alarm, TunnelSource::Remote.at(key), slot.state.deadline());
        }
    }

    /// Gives a server up for good.
    pub(super) fn remove_remote(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(mut slot) = self.remotes.remove(key) {
            cx.clear_alarm(&mut slot.alarm);
            if let Some(current) = slot.current {
                self.send_away(cx, current);
            }
        }
    }

    fn note_failed(&mut self, cx: &mut Context<'_>, name: &str, why: &str, delay: std::time::Duration) {
        self.counters.failed += 1;
        let delay = amount::span(delay);
        let line = format_args!("{name}: {why}; it is connected to again in {delay}");
        self.front.note(cx, Level::Error, report::REMOTE, line);
    }

    // ---- connecting --------------------------------------------------------------------------------------------

    fn begin_tunnel(&mut self, cx: &mut Context<'_>, slot: Key) {
        let Some(options) = self.remotes.get(slot).map(|slot| slot.options.clone()) else {
            return;
        };
        self.counters.connects += 1;
        let key = self.tunnels.insert(Tunnel {
            slot,
            name: options.address.to_string().into(),
            stage: Stage::Naming,
            since: cx.now(),
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
        let begun = self.with_means(cx, key, |means| Attempt::begin(places, means));
        match begun {
            None => {}
            Some(Ok(attempt)) => {
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.stage = Stage::Connecting(Box::new(attempt));
                }
            }
            Some(Err(error)) => self.fail_tunnel(cx, key, &format!("cannot connect: {error}")),
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

    /// Drops a tunnel without streams.
    fn drop_tunnel(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(mut tunnel) = self.tunnels.remove(key) {
            cx.clear_alarm(&mut tunnel.alarm);
            if let Stage::Up(session) = tunnel.stage {
                session.into_conn().say_end_before_close();
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
            Some(Stage::Naming) | None => {}
        }
    }

    fn go_on_connecting(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let Stage::Connecting(mut attempt) = std::mem::replace(&mut tunnel.stage, Stage::Naming) else {
            return;
        };
        let outcome = self.with_means(cx, key, |means| attempt.go_on(means));
        match outcome {
            None => {}
            Some(Ok(false)) => {
                if let Some(tunnel) = self.tunnels.get_mut(key) {
                    tunnel.stage = Stage::Connecting(attempt);
                }
            }
            Some(Ok(true)) => self.greet(cx, key, *attempt),
            Some(Err(error)) => self.fail_tunnel(cx, key, &format!("cannot connect: {error}")),
        }
    }

    /// Begins the session, and tells the server the secret.
    fn greet(&mut self, cx: &mut Context<'_>, key: Key, attempt: Attempt) {
        let settings = Settings {
            streams: self.front.options().connection_limits.total,
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
        loop {
            let Some(Stage::Up(session)) = self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) else {
                return;
            };
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
        self.touch(key);
        self.tidy(cx, key);
    }

    /// The first stream is over when the server has said its end.
    fn end_greeting(&mut self, key: Key, stream: StreamId) {
        if let Some(Stage::Up(session)) = self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
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
        let door = self.front.name();
        log::info!(service:% = door; "{door}: {name} takes no more streams here; it is connected to again");
        if self.remotes.get(slot).is_some_and(|slot| slot.current == Some(key)) {
            self.tell_remote(cx, slot, Event::WentAway, "");
        }
    }

    fn end_session(&mut self, cx: &mut Context<'_>, key: Key, end: &End) {
        let Some(tunnel) = self.tunnels.get(key) else { return };
        let (slot, up) = (tunnel.slot, cx.now().saturating_duration_since(tunnel.since));
        self.counters.lost += 1;
        let mut why = match end {
            End::Closed => "the server has closed the tunnel".to_owned(),
            End::Cut => "the tunnel was cut in the middle of a frame".to_owned(),
            End::Failed(error) => format!("the tunnel is lost: {error}"),
            End::Fault(fault) => format!("the tunnel is ended: the server has sent {fault}"),
            End::Unpaid => "the tunnel is ended: a frame could not be completed".to_owned(),
        };
        if *end == End::Closed && up < PROVED {
            why.push_str(", as one does that does not know the secret");
        }
        if self.remotes.get(slot).is_some_and(|slot| slot.current == Some(key)) {
            self.tell_remote(cx, slot, Event::Over, &why);
        }
    }

    /// Drops a tunnel that is over, or that was sent away and has no stream left. Sets the alarm of any other.
    fn tidy(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(tunnel) = self.tunnels.get_mut(key) else {
            return;
        };
        let Stage::Up(session) = &mut tunnel.stage else { return };
        let is_current = self
            .remotes
            .get(tunnel.slot)
            .is_some_and(|slot| slot.current == Some(key));
        if session.is_empty() && (session.is_over() || !is_current) {
            let _ = session.flush();
            return self.drop_tunnel(cx, key);
        }
        cx.set_alarm(&mut tunnel.alarm, TunnelSource::Tunnel.at(key), session.deadline());
    }

    pub(super) fn tunnel_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if let Some(Stage::Up(session)) = self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            session.timeout(cx.now());
            self.run_tunnel(cx, key);
        }
    }

    /// Lets a tunnel take no more streams. It ends with its last one.
    pub(super) fn send_away(&mut self, cx: &mut Context<'_>, key: Key) {
        match self.tunnels.get_mut(key).map(|tunnel| &mut tunnel.stage) {
            Some(Stage::Up(session)) => {
                session.go_away();
                self.touch(key);
                self.run_tunnel(cx, key);
            }
            Some(Stage::Naming | Stage::Connecting(_)) => self.drop_tunnel(cx, key),
            None => {}
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

    /// Writes the frames that this turn has made.
    pub(super) fn write_out(&mut self, cx: &mut Context<'_>) {
        for key in std::mem::take(&mut self.touched) {
            let Some(tunnel) = self.tunnels.get_mut(key) else {
                continue;
            };
            tunnel.is_touched = false;
            if let Stage::Up(session) = &mut tunnel.stage {
                let goes_on = session.flush();
                cx.set_alarm(&mut tunnel.alarm, TunnelSource::Tunnel.at(key), session.deadline());
                if goes_on {
                    cx.resume_later(TunnelSource::Tunnel.at(key));
                }
            }
        }
    }
}
