//! The route door as the daemon sees it: its start, its change, its end.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use log::Level;
use nix::sys::signal::SigSet;

use super::super::core::event::Event;
use super::super::core::names::Names;
use super::super::core::router::{HTTPS_PORT, Router};
use super::super::core::table::Source;
use super::super::options::{Options, TLS, TUNNEL};
use super::super::report::{self, Gauges, Times};
use super::super::tunnel_report::TunnelCounts;
use super::carrying::Traffic;
use super::launching::Prepared;
use super::passing::Passing;
use super::tunnels::Sessions;
use super::{RouteDoor, RouteSource};
use crate::doors::front::{Front, FrontKind, OverLimit};
use crate::doors::lent_pipes::LentPipes;
use crate::doors::{self, Door, HandedConnection, Listeners, Shutdown};
use crate::error::Error;
use crate::net::conn::Conn;
use crate::net::link::Link;
use crate::net::local_ports::LocalPorts;
use crate::net::origin::Origin;
use crate::net::resolving::Resolver;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, SourceKind};
use crate::stats::Snapshot;

impl RouteDoor {
    /// A door that listens already but serves no client yet.
    pub fn new(options: Options, prepared: Prepared, listeners: Listeners, now: Instant) -> RouteDoor {
        let kind = FrontKind {
            module: module_path!(),
            listener: RouteSource::Listener.kind(),
            arrival: RouteSource::Arrival.kind(),
            upkeep: RouteSource::Upkeep.only(),
            drain: RouteSource::Drain.only(),
            at_stop_timeout: "connections that are still up are cut",
            serves_at_once: true,
        };
        send_small_writes_at_once(&listeners);
        let seed = RandomState::new().hash_one(std::process::id());
        let mut router = Router::new(options.hello_timeout, seed);
        // There was none.
        drop(router.replace_table(Source::File, Arc::clone(&options.table)));
        let front = Front::new(kind, Arc::clone(&options.front), listeners, now);
        router.set_https_port(https_port(&front));
        router.keep_protocols(options.log_connections);
        router.tunnels_mut().set_patience(options.tunnel_wait);
        let mut door = RouteDoor {
            front,
            router,
            routes: GenerationalSlab::default(),
            securing: GenerationalSlab::default(),
            handed: VecDeque::new(),
            sessions: Sessions::default(),
            tunnel_counts: TunnelCounts::default(),
            passing: Passing::default(),
            programs: BTreeMap::new(),
            starts: 0,
            local_ports: LocalPorts::read(),
            names: Names::new(options.resolve_interval),
            resolver: Resolver::default(),
            probes: GenerationalSlab::default(),
            checks_alarm: Alarm::default(),
            pipes: LentPipes::new(Arc::clone(&prepared.pipes), RouteSource::Pipes.only()),
            store: None,
            traffic: Traffic::default(),
            times: Times::default(),
            options,
        };
        // No program was there, so nothing is ordered.
        door.replace_programs(prepared, now);
        door
    }
}

/// Drops a value that may hold a table of many services, which takes longer than the loop may stand still.
fn drop_on_a_thread<T: Send + 'static>(value: T) {
    let work = move || {
        // Signals are handled by the loop's thread.
        let _ = SigSet::all().thread_block();
        drop(value);
    };
    // Without a thread it was dropped here.
    let _ = thread::Builder::new().name("table".to_owned()).spawn(work);
}

/// The port at which clients that come by HTTP reach the door by https: 443 if a listener for TLS has it, or none has a
/// port, else that of the first.
fn https_port(front: &Front) -> u16 {
    let listeners = front.listening().marked(TLS);
    let ports: Vec<u16> = listeners.filter_map(|listener| listener.local_addr().port()).collect();
    match ports.first() {
        Some(first) if !ports.contains(&HTTPS_PORT) => *first,
        Some(_) | None => HTTPS_PORT,
    }
}

/// Clients get the records of a server as they come, although earlier ones are unacknowledged.
fn send_small_writes_at_once(listeners: &Listeners) {
    for (_, listener) in listeners {
        // It does not fail on an open socket, and without it nothing but time is lost.
        let _ = listener.set_nodelay();
    }
}

impl Door for RouteDoor {
    fn front(&self) -> &Front {
        &self.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.front
    }

    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.watch_predecessor(cx);
        self.follow_store(cx);
        self.router.replace_checks(&self.options.checks, cx.now());
        self.check_servers(cx);
        Ok(())
    }

    /// The tunnel clients of the process before are on their way, or those of a machine that has started.
    fn begin_serving(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.router.tunnels_mut().expect_all(cx.now());
        self.front.begin_accepting(cx)
    }

    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        match self.front.count_in(&origin) {
            Ok(()) if origin.mark == TUNNEL => self.add_session(cx, conn, origin),
            Ok(()) => self.add_route(cx, conn, origin),
            Err(over) => self.turn_away(cx, conn, &origin, over),
        }
    }

    /// A client that has said nothing yet understands no refusal but the end of its connection.
    fn turn_away(&mut self, cx: &mut Context<'_>, conn: Conn, origin: &Origin, over: OverLimit) {
        conn.turn_away(b"", false);
        let line = format_args!("refused {origin}: as many connections as {} allows", over.flag());
        self.front.note(cx, Level::Warn, over.topic(), line);
    }

    /// The options and the table are for connections whose way is decided from now on.
    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: doors::Options,
        prepared: doors::Prepared,
        new: Listeners,
    ) -> Result<(), Error> {
        let (options, prepared) = match (options, prepared) {
            (doors::Options::Route(options), doors::Prepared::Route(prepared)) => (*options, *prepared),
            (other, _) => return Err(doors::other_kind(self.front.name(), &other)),
        };
        send_small_writes_at_once(&new);
        self.front.reload(cx, Arc::clone(&options.front), new);
        // Clients that may not connect any more were closed in their handshakes.
        self.take_secured(cx);
        self.router.set_hello_timeout(options.hello_timeout);
        self.router.tunnels_mut().set_patience(options.tunnel_wait);
        self.router.set_https_port(https_port(&self.front));
        self.router.keep_protocols(options.log_connections);
        self.names.set_interval(options.resolve_interval);
        let table = self.router.replace_table(Source::File, Arc::clone(&options.table));
        self.sessions.has_new_secrets = true;
        self.look_at_secrets(cx);
        self.local_ports = LocalPorts::read();
        let before = std::mem::replace(&mut self.options, options);
        self.replace_programs(prepared, cx.now());
        self.follow_orders(cx);
        self.follow_store_again(cx, before.store.as_ref());
        self.router.replace_checks(&self.options.checks, cx.now());
        self.log_notices(cx);
        self.check_servers(cx);
        drop_on_a_thread((table, before));
        // No turn follows before the next event.
        self.flush_sessions(cx);
        Ok(())
    }

    fn set_prepared(&mut self, prepared: doors::Prepared) {
        if let doors::Prepared::Route(prepared) = prepared {
            self.set_launchers(*prepared);
        }
    }

    /// The store is not followed any more; its table stays for the clients that are still there.
    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        self.leave_store(cx);
        self.stop_checks(cx);
        match how {
            Shutdown::Drain { hasten: None } => {}
            Shutdown::Drain { hasten: Some(by) } => self.tell_all(cx, Event::Stop(by)),
            Shutdown::Stop | Shutdown::Abort => {
                self.give_up_all_securing(cx);
                self.tell_all(cx, Event::Abort);
                self.drop_sessions(cx);
                self.drop_outlet(cx);
            }
        }
        // A program ends behind the last connection that uses it.
        self.router.retire_programs(cx.now());
        self.follow_orders(cx);
        if how == Shutdown::Abort {
            self.kill_programs(cx);
        }
        // No turn follows before the next event.
        self.flush_sessions(cx);
    }

    fn is_idle(&self) -> bool {
        self.routes.len() == 0
            && self.sessions.list.len() == 0
            && self.securing.len() == 0
            && self.handed.is_empty()
            && self.has_no_program()
            && !self.passing.is_between()
    }

    fn go_on_with_secured(&mut self, cx: &mut Context<'_>) {
        self.take_secured(cx);
    }

    fn offer_link(&mut self, cx: &mut Context<'_>) -> Option<OwnedFd> {
        self.make_link(cx)
    }

    fn take_link(&mut self, link: Link) {
        self.set_link(link);
    }

    fn next_handed(&mut self) -> Option<Box<HandedConnection>> {
        self.handed.pop_front()
    }

    fn may_hand_to(&self, door: &str) -> bool {
        self.may_still_hand_to(door)
    }

    fn refuse_handed(&mut self, cx: &mut Context<'_>, handed: Box<HandedConnection>, why: &str) {
        self.refuse(cx, handed, why);
    }

    fn statistics(&self, now: Instant) -> Snapshot {
        let upstreams = self.router.upstreams();
        let gauges = Gauges {
            active: self.router.census().relaying,
            names: self.options.table.len(),
            store: self.store_counts(now),
            backends: (upstreams.known(), upstreams.out()),
            checked: self.router.checker().count(),
            programs: (self.router.program_counts(), self.programs_running()),
            pipes: self.pipes.pipes.budget().open(),
            shortages: self.pipes.pipes.shortages(),
            names_looked_up: self.names.counts,
            traffic: self.traffic,
            tunnels: (self.sessions.list.len(), self.router.tunnels().streams()),
            tunnel_counts: self.tunnel_counts,
        };
        report::snapshot(self.router.counters(), &gauges, &self.times, &self.front, now)
    }

    fn dump(&self, now: Instant) -> String {
        self.describe(now)
    }
}
