//! The route door's only I/O: events of the reactor become events of the [`Router`], and its [`Step`]s become bytes,
//! connections to servers and closed connections.
//!
//! Every step is carried out by one `match` in `follow`. The modules: `routes` is one connection with its server, and
//! adds, finds and closes it; `opening` reads its first bytes; `names` waits for the addresses of its server,
//! `connecting` connects to it, `heading` makes the header that it gets first, and `asking` asks it for TLS as
//! PostgreSQL does; `carrying` passes bytes both ways, in per-request mode by way of `filtering`; `answering` refuses, and
//! closes; `checking` asks servers whether they are there; `handing` hands clients over to other doors, and `securing` lets them make their TLS
//! handshakes with this one; `end` is one end of the relay; `tunnels` keeps the sessions of tunnel clients, `strangers` reads
//! their secrets, and `streams` has the routes that go over them; `programs` runs the programs behind
//! servers, which `launching` prepares; `store` follows the store of further services; `notes` writes the log, `describe`
//! the dump, and `lifecycle` starts, reloads and stops the door.
//!
//! Invariants: a route is known by its key, which is never used again, so the second of two events of a turn finds
//! nothing when the first has ended the route. Each call from the reactor ends in `settle`, which sets the alarm of
//! the route. A step may bring about an event, which is reported when the step is done: the router is never entered
//! from within itself.

mod answering;
mod asking;
mod carrying;
mod checking;
mod connecting;
mod describe;
mod end;
mod filtering;
mod handing;
mod heading;
mod launching;
mod lifecycle;
mod names;
mod notes;
mod opening;
mod passing;
mod programs;
mod routes;
mod securing;
mod store;
mod strangers;
mod streams;
mod tunnels;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use super::core::event::{Event, RouteId, Step};
use super::core::names::Names;
use super::core::router::Router;
use super::core::starter::ProgramId;
use super::options::Options;
use super::report::Times;
use super::tunnel_report::TunnelCounts;
use crate::doors::front::Front;
use crate::doors::lent_pipes::LentPipes;
use crate::doors::{Door, HandedConnection};
use crate::net::listening::Accepting;
use crate::net::local_ports::LocalPorts;
use crate::net::resolving::Resolver;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Readiness, Service, Source, SourceKind, source_kinds};

pub(super) use carrying::Traffic;
use checking::Probe;
pub use launching::{Prepared, prepare};
use passing::Passing;
use routes::Route;
use securing::Securing;
use store::Stored;
use tunnels::Sessions;

/// A route door on the loop.
#[derive(Debug)]
pub struct RouteDoor {
    front: Front,
    options: Options,
    router: Router,
    routes: GenerationalSlab<Route>,
    /// The clients that make their TLS handshakes with the door.
    securing: GenerationalSlab<Securing>,
    /// The clients that the daemon is to give to other doors.
    handed: VecDeque<Box<HandedConnection>>,
    /// The sessions of tunnel clients.
    sessions: Sessions,
    tunnel_counts: TunnelCounts,
    /// The links to the processes before and behind this one.
    passing: Passing,
    /// The programs behind servers.
    programs: BTreeMap<ProgramId, programs::Program>,
    /// The programs that were started in this turn.
    starts: usize,
    /// The ports at which a connection to a server may be one to itself.
    local_ports: LocalPorts,
    /// The servers that are being asked whether they are there.
    probes: GenerationalSlab<Probe>,
    /// The alarm of the next check.
    checks_alarm: Alarm,
    /// The addresses of servers that are named by their hosts.
    names: Names<SocketAddr>,
    resolver: Resolver,
    pipes: LentPipes,
    /// The store of further services, if there is one.
    store: Option<Stored>,
    traffic: Traffic,
    times: Times,
}

source_kinds! {
    /// The kinds of sources a route door has.
    enum RouteSource {
        Listener,
        Arrival,
        Client,
        Server,
        Route,
        Probe,
        Checks,
        Tunnel,
        Outlet,
        Inlet,
        Program,
        Output,
        Exit,
        Ending,
        Pipes,
        Upkeep,
        Drain,
    }
}

impl Service for RouteDoor {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        match RouteSource::from_source(source) {
            Some(RouteSource::Listener) => self.accept(cx, source.key),
            Some(RouteSource::Arrival) => self.arrival_ready(cx, source.key, readiness),
            Some(RouteSource::Client) => self.client_ready(cx, source.key, readiness),
            Some(RouteSource::Server) => self.server_ready(cx, source.key, readiness),
            Some(RouteSource::Probe) => self.probe_ready(cx, source.key, readiness),
            Some(RouteSource::Tunnel) => self.session_ready(cx, source.key, readiness),
            Some(RouteSource::Outlet) => self.outlet_ready(cx, readiness),
            Some(RouteSource::Inlet) => self.inlet_ready(cx, readiness),
            Some(RouteSource::Output) => self.program_writes(cx, source.key, true),
            Some(RouteSource::Exit) => self.program_exited(cx, source.key),
            // These sources are never registered with the poll.
            Some(
                RouteSource::Route
                | RouteSource::Checks
                | RouteSource::Program
                | RouteSource::Ending
                | RouteSource::Pipes
                | RouteSource::Upkeep
                | RouteSource::Drain,
            )
            | None => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        match RouteSource::from_source(source) {
            Some(RouteSource::Listener) => self.retry_accepting(cx, source.key),
            Some(RouteSource::Arrival) => self.arrival_timeout(cx, source.key),
            Some(RouteSource::Route) => self.route_timeout(cx, source.key),
            Some(RouteSource::Probe) => self.probe_timeout(cx, source.key),
            Some(RouteSource::Checks) => self.check_servers(cx),
            Some(RouteSource::Tunnel) => self.session_timeout(cx, source.key),
            Some(RouteSource::Program) => self.program_timeout(cx, source.key),
            Some(RouteSource::Ending) => self.program_kill_timeout(cx, source.key),
            Some(RouteSource::Pipes) => self.pipes.close_idle(cx),
            Some(RouteSource::Upkeep) => self.front.sum_up(cx),
            Some(RouteSource::Drain) => self.drain_timeout(cx),
            // These sources have no alarm.
            Some(
                RouteSource::Client
                | RouteSource::Server
                | RouteSource::Outlet
                | RouteSource::Inlet
                | RouteSource::Output
                | RouteSource::Exit,
            )
            | None => {}
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        match RouteSource::from_source(source) {
            Some(RouteSource::Listener) => self.accept(cx, source.key),
            Some(RouteSource::Arrival) => self.resume_arrival(cx, source.key),
            Some(RouteSource::Route) => self.resume_route(cx, source.key),
            Some(RouteSource::Tunnel) => self.run_session(cx, source.key),
            Some(RouteSource::Outlet) => self.take_visitors(cx),
            Some(RouteSource::Inlet) => self.hear_predecessor(cx),
            Some(RouteSource::Program) => self.start_program(cx, source.key),
            Some(RouteSource::Output) => self.program_writes(cx, source.key, false),
            // These sources are never resumed.
            Some(
                RouteSource::Client
                | RouteSource::Server
                | RouteSource::Probe
                | RouteSource::Checks
                | RouteSource::Exit
                | RouteSource::Ending
                | RouteSource::Pipes
                | RouteSource::Upkeep
                | RouteSource::Drain,
            )
            | None => {}
        }
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        self.take_signatures(cx);
        self.take_names(cx);
        self.take_news(cx);
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        // Bytes are written when they come, but for those of tunnels.
        self.starts = 0;
        self.flush_sessions(cx);
        self.tell_successor(cx);
    }
}

impl RouteDoor {
    /// Reports an event of a route, which borrows nothing of it, and carries out the steps that follow.
    fn tell(&mut self, cx: &mut Context<'_>, key: Key, event: Event<'static>) {
        if let Some(step) = self.advance(cx, key, event) {
            self.follow(cx, key, step);
        }
    }

    /// Carries out a step of a route, and the steps that follow from its outcome.
    fn follow(&mut self, cx: &mut Context<'_>, key: Key, step: Step) {
        let mut next = Some(step);
        while let Some(step) = next.take() {
            self.trace(key, &step);
            match step {
                Step::Nothing | Step::Hold => {}
                Step::Read => next = self.read_opening(cx, key),
                Step::Judge => next = self.judge_again(cx, key),
                Step::Reply(bytes) => next = self.reply(cx, key, bytes),
                Step::Connect => {
                    if let Some(event) = self.connect(cx, key) {
                        next = self.advance(cx, key, event);
                    }
                }
                Step::OpenStream(session) => {
                    if let Some(event) = self.open_stream(cx, key, session) {
                        next = self.advance(cx, key, event);
                    }
                }
                Step::Ask => {
                    if let Some(event) = self.read_reply(key) {
                        next = self.advance(cx, key, event);
                    }
                }
                Step::Relay => {
                    self.record_times(key);
                    self.carry(cx, key);
                }
                Step::Answer(bytes) => self.answer(cx, key, &bytes),
                Step::Secure(server) => self.secure(cx, key, server),
                Step::HandOver(door) => self.hand_over(cx, key, door),
                Step::Close { breaks_off } => self.close(cx, key, breaks_off),
            }
        }
        self.log_notices(cx);
        self.follow_orders(cx);
    }

    fn advance(&mut self, cx: &Context<'_>, key: Key, event: Event<'static>) -> Option<Step> {
        let route = self.routes.get_mut(key)?;
        Some(self.router.advance(id(key), &mut route.life, event, cx.now()))
    }
}

/// The number by which the router knows a route.
fn id(key: Key) -> RouteId {
    RouteId(key.to_bits())
}
