//! Shared by the tests of this room: a door without a protocol, which keeps each connection that it is given.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::front::options::FrontOptions;
use super::front::{Front, FrontKind, OverLimit};
use super::{Door, Listeners, Options, Prepared, Shutdown};
use crate::error::Error;
use crate::net::addr::{Listen, ListenAddr};
use crate::net::bind::UnixSocketOptions;
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::listening::Accepting;
use crate::net::origin::Origin;
use crate::reactor::{Context, Reactor, Readiness, Service, ServiceId, Source, SourceKind, source_kinds};
use crate::stats::Snapshot;

/// A door that keeps its connections until it is stopped. It never reads or writes.
pub(super) struct Keeper {
    pub(super) front: Front,
    /// The connections that were admitted, in their order.
    pub(super) kept: Vec<(Conn, Origin)>,
    /// The steps to its end that it was given.
    pub(super) steps: Vec<Shutdown>,
}

source_kinds! {
    enum KeeperSource {
        Listener,
        Arrival,
        Upkeep,
        Drain,
    }
}

/// A loop with one keeper.
pub(super) struct Kept {
    pub(super) reactor: Reactor<Keeper>,
    pub(super) id: ServiceId,
}

impl Kept {
    /// A keeper that accepts from UNIX sockets at these addresses.
    pub(super) fn begin(options: FrontOptions) -> Self {
        let kind = FrontKind {
            module: module_path!(),
            listener: KeeperSource::Listener.kind(),
            arrival: KeeperSource::Arrival.kind(),
            upkeep: KeeperSource::Upkeep.only(),
            drain: KeeperSource::Drain.only(),
            at_stop_timeout: "all connections are closed",
            serves_at_once: true,
        };
        let listeners = open(&options.listen);
        let keeper = Keeper {
            front: Front::new(kind, Arc::new(options), listeners, Instant::now()),
            kept: Vec::new(),
            steps: Vec::new(),
        };
        let mut reactor = Reactor::new(&[]).expect("a loop");
        let id = reactor.add(Box::new(keeper)).expect("a place on the loop");
        let mut kept = Kept { reactor, id };
        kept.with(|door, cx| door.front.begin_accepting(cx)).expect("a poll");
        kept
    }

    /// Calls the door between turns.
    pub(super) fn with<R>(&mut self, call: impl FnOnce(&mut Keeper, &mut Context<'_>) -> R) -> R {
        self.reactor.with(self.id, call).expect("the door")
    }

    /// Turns until `found` returns something.
    pub(super) fn turn_until<R>(&mut self, found: impl Fn(&mut Keeper) -> Option<R>) -> R {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(found) = self.with(|door, _| found(door)) {
                return found;
            }
            assert!(Instant::now() < until, "nothing has happened for ten seconds");
            self.reactor.turn(Some(until)).expect("a turn");
        }
    }

    /// Connects to a UNIX socket, and returns the client and the origin with which the door has admitted it.
    pub(super) fn connect(&mut self, address: &ListenAddr, says: &[u8]) -> (UnixStream, Origin) {
        use std::io::Write;
        let path = address.to_string();
        let path = path.strip_prefix("unix:").expect("a path");
        let before = self.with(|door, _| door.kept.len());
        let mut client = UnixStream::connect(path).expect("a connection");
        client.write_all(says).expect("a connection that takes bytes");
        let admitted = |door: &mut Keeper| door.kept.get(before).map(|(_, origin)| origin.clone());
        (client, self.turn_until(admitted))
    }
}

/// Opens UNIX sockets.
pub(super) fn open(listen: &[Listen]) -> Listeners {
    let open = |listen: &Listen| {
        let listener = Listener::bind(&listen.address, &UnixSocketOptions::default(), 16);
        (listen.clone(), listener.expect("a socket"))
    };
    listen.iter().map(open).collect()
}

impl Service for Keeper {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        match KeeperSource::from_source(source) {
            Some(KeeperSource::Listener) => self.accept(cx, source.key),
            Some(KeeperSource::Arrival) => self.arrival_ready(cx, source.key, readiness),
            Some(KeeperSource::Upkeep | KeeperSource::Drain) | None => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        match KeeperSource::from_source(source) {
            Some(KeeperSource::Listener) => self.retry_accepting(cx, source.key),
            Some(KeeperSource::Arrival) => self.arrival_timeout(cx, source.key),
            Some(KeeperSource::Upkeep) => self.front.sum_up(cx),
            Some(KeeperSource::Drain) => self.drain_timeout(cx),
            None => {}
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        match KeeperSource::from_source(source) {
            Some(KeeperSource::Listener) => self.accept(cx, source.key),
            Some(KeeperSource::Arrival) => self.resume_arrival(cx, source.key),
            Some(KeeperSource::Upkeep | KeeperSource::Drain) | None => {}
        }
    }

    fn end_turn(&mut self, _cx: &mut Context<'_>) {}
}

impl Door for Keeper {
    fn front(&self) -> &Front {
        &self.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.front
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        match self.front.count_in(&origin) {
            Ok(()) => self.kept.push((conn, origin)),
            Err(over) => self.turn_away(cx, conn, &origin, over),
        }
    }

    fn turn_away(&mut self, _cx: &mut Context<'_>, conn: Conn, _origin: &Origin, _over: OverLimit) {
        conn.turn_away(b"full", true);
    }

    fn reload(&mut self, _: &mut Context<'_>, _: Options, _: Prepared, _: Listeners) -> Result<(), Error> {
        unreachable!("its front alone is changed")
    }

    fn set_prepared(&mut self, _: Prepared) {}

    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        self.steps.push(how);
        match how {
            Shutdown::Drain { .. } => {}
            Shutdown::Stop | Shutdown::Abort => {
                for (_, origin) in self.kept.drain(..) {
                    self.front.connection_closed(cx, &origin);
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.kept.is_empty()
    }

    fn statistics(&self, _: Instant) -> Snapshot {
        Snapshot::default()
    }

    fn dump(&self, _: Instant) -> String {
        String::new()
    }
}
