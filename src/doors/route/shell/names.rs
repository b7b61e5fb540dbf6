//! The names of hosts that servers have: a route waits here until its host is looked up, within the time that it has for
//! connecting.
//!
//! [`Names`](super::super::core::names::Names) decides what is looked up when, the
//! [`Resolver`](crate::net::resolving::Resolver) does it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::event::{ConnectFault, Event};
use super::super::core::names::{Place, Reply};
use super::super::core::table::Address;
use super::super::report;
use super::routes::Stage;
use super::{RouteDoor, RouteSource, id};
use crate::reactor::{Context, Key, SourceKind};

/// A route that waits for the addresses of its server.
#[derive(Debug)]
pub(super) struct Naming {
    /// The bytes that the server gets first.
    pub(super) held: Vec<u8>,
    place: Option<Place>,
    /// The time until which it waits, if addresses of before are there.
    pub(super) until: Option<Instant>,
}

impl RouteDoor {
    /// Begins to connect to a server that is named by its host, or waits until the host is looked up.
    pub(super) fn connect_by_name(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        server: &Address,
    ) -> Option<Event<'static>> {
        let failed = Some(Event::ConnectFailed(ConnectFault::Server));
        let Address::Network { host, port } = server else {
            return failed;
        };
        match self.ask_name(cx, host) {
            Reply::Known(mut addresses) => {
                for address in &mut addresses {
                    address.set_port(*port);
                }
                self.connect_to_first(cx, key, addresses)
            }
            Reply::Wait(until) => {
                let place = self.names.wait(host, id(key));
                let stage = &mut self.routes.get_mut(key)?.stage;
                let held = stage.take_held();
                *stage = Stage::Naming(Naming { held, place, until });
                None
            }
            // A look-up has just been begun, or has failed.
            Reply::Failed | Reply::LookUp(_) => failed,
        }
    }

    /// Asks for the addresses of a host, and begins its look-up if that is due.
    pub(super) fn ask_name(&mut self, cx: &mut Context<'_>, host: &str) -> Reply<SocketAddr> {
        match self.names.ask(host, cx.now()) {
            Reply::LookUp(name) => {
                if let Err(error) = self.resolver.look_up(cx, &name) {
                    self.enter_name(cx, &name, Err(error));
                }
                self.names.ask(host, cx.now())
            }
            reply @ (Reply::Known(_) | Reply::Wait(_) | Reply::Failed) => reply,
        }
    }

    /// Takes a route out of the list of routes that wait for its host.
    pub(super) fn leave_name(&mut self, key: Key) {
        let Some(route) = self.routes.get_mut(key) else { return };
        if let Stage::Naming(naming) = &mut route.stage
            && let Some(place) = naming.place.take()
        {
            self.names.leave(&place);
        }
    }

    /// Takes note of an address of the server's host that could not be connected to.
    pub(super) fn put_last(&mut self, key: Key, address: Option<SocketAddr>) {
        let server = self.routes.get(key).and_then(|route| route.life.routed());
        if let (Some(mut address), Some(Address::Network { host, .. })) =
            (address, server.map(|routed| &*routed.server))
        {
            address.set_port(0);
            self.names.put_last(host, &address);
        }
    }

    /// Takes in the outcomes of look-ups.
    pub(super) fn take_names(&mut self, cx: &mut Context<'_>) {
        while let Some(found) = self.resolver.take() {
            self.enter_name(cx, &found.host, found.addresses);
        }
    }

    /// Enters the outcome of a look-up, and wakes the routes that have waited for it.
    fn enter_name(&mut self, cx: &mut Context<'_>, host: &Arc<str>, found: io::Result<Vec<SocketAddr>>) {
        let (found, error) = match found {
            Ok(found) => (Some(found), None),
            Err(error) => (None, Some(error)),
        };
        let is_known = self.names.enter(host, found, cx.now());
        if let Some(error) = error {
            let stay = if is_known { "; its last addresses stay" } else { "" };
            let line = format_args!("the host {host:?} of a server cannot be looked up: {error}{stay}");
            self.front.note(cx, Level::Error, report::HOST, line);
        }
        while let Some(route) = self.names.woken(host) {
            cx.resume_later(RouteSource::Route.at(Key::from_bits(route.0)));
        }
    }
}
