//! One routed connection: its client, and what is held of it or connected for it.
//!
//! The life of a route: [added](RouteDoor::add_route) with a client that the door admits, read until the router knows
//! where it goes, connected, carried, and [closed](RouteDoor::close). The state that decides is the router's
//! [`Life`]; the [`Stage`] has the bytes and the sockets that go with it.

use std::io;
use std::net::IpAddr;
use std::time::Instant;

use log::Level;
use mio::Interest;

use super::super::core::balance::ClientKey;
use super::super::core::event::{Event, Side, Step};
use super::super::core::life::{self, Life};
use super::super::core::opening::Entrance;
use super::super::options::HTTP;
use super::super::report;
use super::answering::Closing;
use super::asking::Asking;
use super::carrying::{Relay, Traffic};
use super::connecting::Attempt;
use super::names::Naming;
use super::{RouteDoor, RouteSource, id};
use crate::doors::socket_end::SocketEnd;
use crate::net::addr::Mark;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::{Alarm, Context, Key, Readiness, SourceKind};

/// One routed connection.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) life: Life,
    pub(super) origin: Origin,
    pub(super) client: SocketEnd,
    pub(super) stage: Stage,
    pub(super) alarm: Alarm,
    /// True if the poll reports the events of the client.
    pub(super) is_registered: bool,
}

/// The things that a route holds besides its client.
#[derive(Debug)]
pub(super) enum Stage {
    /// The first bytes of the client: they are judged, or a server is to be connected to that gets them.
    Held(Vec<u8>),
    /// The host of a server is being looked up.
    Naming(Naming),
    /// A server is being connected to.
    Connecting(Box<Attempt>),
    /// A server is connected, and was asked for TLS.
    Asking(Box<Asking>),
    /// Bytes go both ways.
    Relaying(Box<Relay>),
    /// One side has everything; what it still sends is thrown away.
    Closing(Closing),
}

impl Stage {
    /// The bytes that were passed on so far.
    pub(super) fn traffic(&self) -> Traffic {
        match self {
            Stage::Relaying(relay) => relay.traffic(),
            Stage::Closing(closing) => closing.traffic,
            Stage::Held(_) | Stage::Naming(_) | Stage::Connecting(_) | Stage::Asking(_) => Traffic::default(),
        }
    }
}

impl Route {
    /// Closes both connections. With `breaks_off` each side learns by a reset that it has only a part.
    fn end(self, breaks_off: bool) -> Origin {
        let server = match self.stage {
            Stage::Relaying(relay) => relay.into_socket(),
            Stage::Closing(closing) => closing.into_server(),
            // Nothing of the client was sent to a server yet.
            Stage::Asking(_) | Stage::Connecting(_) | Stage::Naming(_) | Stage::Held(_) => None,
        };
        for end in [Some(self.client), server].into_iter().flatten() {
            if breaks_off {
                end.conn.reset();
            }
        }
        self.origin
    }
}

impl RouteDoor {
    // ---- in ----------------------------------------------------------------------------------------------------

    /// Adds the route of a client that has a place.
    pub(super) fn add_route(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        let life = self.router.begin(entrance(origin.mark), client_key(&origin), cx.now());
        self.insert_route(cx, life, conn, origin, |door, cx, key| {
            if let Some(by) = door.front.hastened() {
                door.tell(cx, key, Event::Stop(by));
            }
            Some(Step::Read)
        });
    }

    /// Gives a client that has a place a route, and takes the step that `begin` returns.
    pub(super) fn insert_route(
        &mut self,
        cx: &mut Context<'_>,
        life: Life,
        conn: Conn,
        origin: Origin,
        begin: impl FnOnce(&mut Self, &mut Context<'_>, Key) -> Option<Step>,
    ) {
        let route = Route {
            life,
            client: SocketEnd::client(conn),
            stage: Stage::Held(Vec::new()),
            alarm: Alarm::default(),
            is_registered: false,
            origin,
        };
        let key = match self.routes.insert(route) {
            Ok(key) => key,
            // The limit on connections is far below the number of keys.
            Err(mut route) => {
                self.router
                    .advance(id(Key::ONLY), &mut route.life, Event::Abort, cx.now());
                return self.front.connection_closed(cx, &route.origin);
            }
        };
        // The hello has often come already. The registration with the poll follows, so that its first event reports
        // nothing that is known.
        if let Some(step) = begin(self, cx, key) {
            self.follow(cx, key, step);
        }
        let Some(route) = self.routes.get_mut(key) else { return };
        if let Err(error) = register(cx, &mut route.client.conn, RouteSource::Client, key) {
            let line = format_args!("cannot watch {}: {error}", route.origin);
            self.front.note(cx, Level::Error, report::SYSTEM, line);
            return self.tell(cx, key, Event::Abort);
        }
        route.is_registered = true;
        self.settle(cx, key);
    }

    // ---- events ------------------------------------------------------------------------------------------------

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(route) = self.routes.get_mut(key) else { return };
        route.client.note(readiness);
        match &mut route.stage {
            Stage::Relaying(relay) => relay.note(Side::Client, readiness),
            // This side has not ended, so a hang-up is a reset. An end alone is none, and is found when its turn comes.
            Stage::Connecting(_) | Stage::Asking(_) | Stage::Naming(_) if readiness.hung_up => {
                self.tell(cx, key, Event::Lost(Side::Client));
                return self.settle(cx, key);
            }
            // Its program is awaited, a tunnel client, or room for its stream.
            Stage::Held(_)
                if readiness.hung_up
                    && matches!(
                        route.life.stage(),
                        life::Stage::Starting | life::Stage::Expecting | life::Stage::Connecting
                    ) =>
            {
                self.tell(cx, key, Event::Lost(Side::Client));
                return self.settle(cx, key);
            }
            Stage::Connecting(_) | Stage::Asking(_) | Stage::Naming(_) | Stage::Held(_) | Stage::Closing(_) => {}
        }
        self.go_on(cx, key);
    }

    /// Goes on with a route in its turn.
    pub(super) fn resume_route(&mut self, cx: &mut Context<'_>, key: Key) {
        let event = match self.routes.get(key).map(|route| route.life.stage()) {
            Some(life::Stage::Starting) => Event::Called,
            Some(life::Stage::Expecting) => Event::ClientCame,
            _ => return self.go_on(cx, key),
        };
        self.tell(cx, key, event);
        self.settle(cx, key);
    }

    pub(super) fn server_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(route) = self.routes.get_mut(key) else { return };
        match &mut route.stage {
            Stage::Relaying(relay) => relay.note_server(readiness),
            Stage::Connecting(attempt) => attempt.conn.note(readiness),
            Stage::Asking(asking) => asking.note(readiness),
            Stage::Closing(closing) => match closing.server() {
                Some(server) => server.note(readiness),
                // An event of a server that was given up.
                None => return,
            },
            // The same.
            Stage::Held(_) | Stage::Naming(_) => return,
        }
        self.go_on(cx, key);
    }

    /// Goes on with a route after an event or in its turn.
    pub(super) fn go_on(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(route) = self.routes.get(key) else { return };
        match (&route.stage, route.life.stage()) {
            (Stage::Held(_), life::Stage::Opening) => self.follow(cx, key, Step::Read),
            (Stage::Held(_), life::Stage::Waiting) if !self.router.awaits_store() => {
                self.tell(cx, key, Event::TableCame);
            }
            // The client waits, and is not read.
            (Stage::Held(_), _) => {}
            (Stage::Naming(_), _) => {
                if let Some(event) = self.connect(cx, key) {
                    self.tell(cx, key, event);
                }
            }
            (Stage::Connecting(_), _) => {
                if let Some(event) = self.go_on_connecting(cx, key) {
                    self.tell(cx, key, event);
                }
            }
            (Stage::Asking(_), _) => {
                if let Some(event) = self.read_reply(key) {
                    self.tell(cx, key, event);
                }
            }
            (Stage::Relaying(_), _) => self.carry(cx, key),
            (Stage::Closing(_), _) => self.go_on_closing(cx, key),
        }
        self.settle(cx, key);
    }

    /// Sets the alarm of a route. One that is set already is put off by nothing: when it goes off too early, nothing is
    /// due.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(route) = self.routes.get_mut(key) else { return };
        let deadline = route.deadline();
        if deadline.is_some_and(|deadline| route.alarm.at().is_none_or(|at| deadline < at)) {
            cx.set_alarm(&mut route.alarm, RouteSource::Route.at(key), deadline);
        }
    }

    pub(super) fn route_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(route) = self.routes.get_mut(key) else { return };
        cx.clear_alarm(&mut route.alarm);
        if route.close_deadline().is_some_and(|deadline| deadline <= cx.now()) {
            self.finish_closing(cx, key);
        } else {
            if let Some(event) = self.stage_timeout(cx, key) {
                self.tell(cx, key, event);
            }
            self.tell(cx, key, Event::Deadline);
        }
        self.settle(cx, key);
    }

    /// Goes on with the addresses of a server's host after the time of one of them, or of the look-up, is over.
    fn stage_timeout(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Event<'static>> {
        match &self.routes.get(key)?.stage {
            Stage::Naming(naming) if naming.until.is_some_and(|until| until <= cx.now()) => self.connect(cx, key),
            Stage::Connecting(_) => self.give_up_address(cx, key),
            Stage::Naming(_) | Stage::Asking(_) | Stage::Held(_) | Stage::Relaying(_) | Stage::Closing(_) => None,
        }
    }

    /// Reports an event to every route.
    pub(super) fn tell_all(&mut self, cx: &mut Context<'_>, event: Event<'static>) {
        let keys: Vec<Key> = self.routes.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.tell(cx, key, event);
            self.settle(cx, key);
        }
    }

    // ---- out ---------------------------------------------------------------------------------------------------

    /// Closes a route, and gives its place back.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, key: Key, breaks_off: bool) {
        self.leave_name(key);
        self.leave_stream(key);
        let Some(mut route) = self.routes.remove(key) else {
            return;
        };
        cx.set_alarm(&mut route.alarm, RouteSource::Route.at(key), None);
        self.log_end(cx, &route);
        self.log_connection(key, &route, None, cx.now());
        let origin = route.end(breaks_off);
        self.front.connection_closed(cx, &origin);
    }
}

impl Route {
    /// The time at which the route must be looked at, whatever happens.
    fn deadline(&self) -> Option<Instant> {
        let stage = match &self.stage {
            Stage::Naming(naming) => naming.until,
            Stage::Connecting(attempt) => attempt.until,
            Stage::Held(_) | Stage::Asking(_) | Stage::Relaying(_) | Stage::Closing(_) => self.close_deadline(),
        };
        [self.life.deadline(), stage].into_iter().flatten().min()
    }
}

/// The entrance to which the listeners with this mark lead.
fn entrance(mark: Mark) -> Entrance {
    match mark {
        HTTP => Entrance::Http,
        _ => Entrance::Tls,
    }
}

/// The part of a client's address by which it is given the same server each time.
fn client_key(origin: &Origin) -> ClientKey {
    ClientKey(match origin.ip() {
        Some(IpAddr::V4(ip)) => u64::from(ip.to_bits()),
        Some(IpAddr::V6(ip)) => u64::try_from(ip.to_bits() >> 64).unwrap_or_default(),
        None => 0,
    })
}

/// Registers one side of a route with the poll.
pub(super) fn register(cx: &Context<'_>, conn: &mut Conn, side: RouteSource, key: Key) -> io::Result<()> {
    cx.register(side.at(key), conn, Interest::READABLE | Interest::WRITABLE)
}
