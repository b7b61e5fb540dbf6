//! The way of a stream to its local service.
//!
//! A stream for another door of the process goes there by `handing`. The service is chosen once, when the stream's first bytes have come: a change of the options meanwhile concerns the next
//! streams. The look-up of its host and all attempts to connect share one time, the door's connect-timeout.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use log::Level;

use super::super::core::opening::Local as Kind;
use super::super::options::{Local, Options};
use super::super::report;
use super::attempt::{Attempt, Means, Places};
use super::hosts::{Answer, Waiter};
use super::streams::Stage;
use super::{TunnelDoor, TunnelSource};
use crate::net::addr::ConnectAddr;
use crate::reactor::{Context, Key, Readiness, SourceKind};

/// The local services of a door.
#[derive(Debug)]
pub(super) struct Locals {
    plain: Local,
    /// The one for TLS, which may be the same.
    tls: Local,
}

impl Locals {
    pub(super) fn of(options: &Options) -> Locals {
        Locals {
            plain: options.local.clone(),
            tls: options.local_tls.as_ref().unwrap_or(&options.local).clone(),
        }
    }

    fn of_kind(&self, kind: Kind) -> Local {
        match kind {
            Kind::Tls => self.tls.clone(),
            Kind::Plain => self.plain.clone(),
        }
    }

    /// Returns true if streams go to the door of this name.
    pub(super) fn has_door(&self, door: &str) -> bool {
        [&self.plain, &self.tls]
            .into_iter()
            .any(|local| matches!(local, Local::Door(name) if **name == *door))
    }
}

/// A stream whose service is being connected to.
#[derive(Debug)]
pub(super) struct Reaching {
    local: Arc<ConnectAddr>,
    /// The bytes that the service gets first.
    held: Vec<u8>,
    /// The end of the time for it.
    deadline: Instant,
    /// The attempt to connect; none while the host of the service is being looked up.
    attempt: Option<Attempt>,
}

impl Reaching {
    /// A word for the dump.
    pub(super) fn stage(&self) -> &'static str {
        match self.attempt {
            None => "naming",
            Some(_) => "connecting",
        }
    }

    /// Takes in an event of the poll.
    pub(super) fn note(&mut self, readiness: Readiness) {
        if let Some(attempt) = &mut self.attempt {
            attempt.conn.note(readiness);
        }
    }
}

impl TunnelDoor {
    /// Connects to the local service of this kind, which gets the held bytes first.
    pub(super) fn reach(&mut self, cx: &mut Context<'_>, key: Key, held: Vec<u8>, kind: Kind) {
        match self.locals.of_kind(kind) {
            Local::Service(address) => self.reach_service(cx, key, held, address),
            Local::Door(door) => self.hand_over(cx, key, held, door),
        }
    }

    fn reach_service(&mut self, cx: &mut Context<'_>, key: Key, held: Vec<u8>, local: Arc<ConnectAddr>) {
        let Some(carried) = self.streams.get_mut(key) else {
            return;
        };
        let deadline = cx.now() + self.options.connect_timeout;
        carried.stage = Stage::Reaching(Box::new(Reaching {
            local: Arc::clone(&local),
            held,
            deadline,
            attempt: None,
        }));
        self.set_stream_alarm(cx, key, Some(deadline));
        match (Places::of(&local), &*local) {
            (Some(places), _) => self.connect_local(cx, key, places),
            (None, ConnectAddr::Tcp { host, .. }) => match self.hosts.ask(cx, host, Waiter::Stream(key)) {
                Answer::Known(addresses) => self.connect_local(cx, key, Places::of_host(addresses, &local)),
                Answer::Wait => {}
                Answer::Failed(error) => self.fail_local(cx, key, &error.to_string()),
            },
            (None, ConnectAddr::Unix(_)) => {}
        }
    }

    fn reaching(&mut self, key: Key) -> Option<&mut Reaching> {
        match self.streams.get_mut(key).map(|carried| &mut carried.stage) {
            Some(Stage::Reaching(reaching)) => Some(reaching),
            Some(Stage::Opening(_) | Stage::Relaying(_) | Stage::Draining) | None => None,
        }
    }

    /// Takes in the outcome of a look-up for a stream.
    pub(super) fn stream_named(&mut self, cx: &mut Context<'_>, key: Key, found: Result<Vec<SocketAddr>, String>) {
        let Some(reaching) = self.reaching(key).filter(|reaching| reaching.attempt.is_none()) else {
            return;
        };
        match found {
            Ok(addresses) => {
                let places = Places::of_host(addresses, &reaching.local);
                self.connect_local(cx, key, places);
            }
            Err(error) => self.fail_local(cx, key, &error),
        }
    }

    fn connect_local(&mut self, cx: &mut Context<'_>, key: Key, places: Places) {
        let Some(deadline) = self.reaching(key).map(|reaching| reaching.deadline) else {
            return;
        };
        let begun = self.with_local_means(cx, key, |means| Attempt::begin(places, deadline, means));
        match (begun, self.reaching(key)) {
            (Ok(attempt), Some(reaching)) => {
                let until = attempt.until();
                reaching.attempt = Some(attempt);
                self.set_stream_alarm(cx, key, Some(until));
                self.go_on_reaching(cx, key);
            }
            (Err(error), _) => self.fail_local(cx, key, &error.to_string()),
            (Ok(_), None) => {}
        }
    }

    fn with_local_means<T>(&self, cx: &mut Context<'_>, key: Key, call: impl FnOnce(&mut Means<'_, '_>) -> T) -> T {
        call(&mut Means {
            cx,
            local_ports: &self.local_ports,
            source: TunnelSource::Stream.at(key),
            engine: &mut || Ok(None),
        })
    }

    /// Goes on with an attempt by this call, which returns true once the connection is there.
    fn try_local(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        call: impl FnOnce(&mut Attempt, &mut Means<'_, '_>) -> std::io::Result<bool>,
    ) {
        let Some(mut attempt) = self.reaching(key).and_then(|reaching| reaching.attempt.take()) else {
            return;
        };
        let outcome = self.with_local_means(cx, key, |means| call(&mut attempt, means));
        let Some(reaching) = self.reaching(key) else { return };
        match outcome {
            Ok(false) => {
                let until = attempt.until();
                reaching.attempt = Some(attempt);
                self.set_stream_alarm(cx, key, Some(until));
            }
            Ok(true) => {
                let held = std::mem::take(&mut reaching.held);
                self.begin_relay(cx, key, attempt.conn, held);
            }
            Err(error) => self.fail_local(cx, key, &error.to_string()),
        }
    }

    pub(super) fn go_on_reaching(&mut self, cx: &mut Context<'_>, key: Key) {
        self.try_local(cx, key, Attempt::go_on);
    }

    /// The time for the host, or for one of its addresses, is over.
    pub(super) fn reaching_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.reaching(key).is_some_and(|reaching| reaching.attempt.is_none()) {
            return self.fail_local(cx, key, "its host was not looked up within connect-timeout");
        }
        self.try_local(cx, key, |attempt, means| attempt.timeout(means).map(|()| false));
    }

    /// The local service could not be reached: this stream ends, and no other.
    fn fail_local(&mut self, cx: &mut Context<'_>, key: Key, why: &str) {
        let Some(local) = self.reaching(key).map(|reaching| Arc::clone(&reaching.local)) else {
            return;
        };
        self.counters.refused += 1;
        if let ConnectAddr::Tcp { host, .. } = &*local {
            self.hosts.forget(host);
        }
        let line = format_args!("a client was not served: the local service {local} cannot be reached: {why}");
        self.front.note(cx, Level::Error, report::LOCAL, line);
        self.finish(cx, key, true);
    }
}
