//! The tunnel door's only I/O.
//!
//! The modules: `remotes` has the servers, `tunnels` connects to them and runs the sessions with them, `streams` has their
//! streams, which `reaching` connects to local services, or `handing` gives to other doors, and which are carried there; `attempt` connects, `hosts` looks up;
//! `describe` writes the dump, and `lifecycle` starts, reloads and stops the door.
//!
//! Invariants: a tunnel and a stream are known by keys that are never used again. Each call from the reactor that has touched
//! a session leaves it in the list of those whose frames are written at the end of the turn.

mod attempt;
mod describe;
mod handing;
mod hosts;
mod lifecycle;
mod reaching;
mod remotes;
mod streams;
mod tunnels;

use std::collections::VecDeque;
use std::sync::Arc;

use self::hosts::Hosts;
use self::reaching::Locals;
use self::remotes::Slot;
use self::streams::Carried;
use self::tunnels::Tunnel;
use super::core::counters::Counters;
use super::options::Options;
use crate::doors::front::Front;
use crate::doors::jitter::Jitter;
use crate::doors::lent_pipes::LentPipes;
use crate::doors::{Door, HandedConnection};
use crate::net::local_ports::LocalPorts;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, Readiness, Service, Source, SourceKind, source_kinds};

pub use lifecycle::{Prepared, prepare};
pub(super) use streams::Traffic;

/// A tunnel door on the loop.
#[derive(Debug)]
pub struct TunnelDoor {
    front: Front,
    options: Options,
    locals: Locals,
    prepared: Arc<lifecycle::Credentials>,
    remotes: GenerationalSlab<Slot>,
    tunnels: GenerationalSlab<Tunnel>,
    streams: GenerationalSlab<Carried>,
    /// The number of streams whose first bytes are awaited.
    opening: usize,
    /// The connections for other doors, with their streams, until the daemon passes them on.
    handed: VecDeque<(Key, Box<HandedConnection>)>,
    /// The stream of the connection that the daemon passes on.
    handing: Option<Key>,
    /// The tunnels whose sessions were touched in this turn.
    touched: Vec<Key>,
    hosts: Hosts,
    /// The ports at which a connection may be one to itself.
    local_ports: LocalPorts,
    pipes: LentPipes,
    jitter: Jitter,
    counters: Counters,
    traffic: Traffic,
}

source_kinds! {
    /// The kinds of sources a tunnel door has.
    enum TunnelSource {
        Listener,
        Arrival,
        Remote,
        Tunnel,
        Stream,
        Pipes,
        Upkeep,
        Drain,
    }
}

impl Service for TunnelDoor {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        match TunnelSource::from_source(source) {
            Some(TunnelSource::Tunnel) => self.tunnel_ready(cx, source.key, readiness),
            Some(TunnelSource::Stream) => self.stream_ready(cx, source.key, readiness),
            // The door listens nowhere, and the other sources are never registered with the poll.
            Some(
                TunnelSource::Listener
                | TunnelSource::Arrival
                | TunnelSource::Remote
                | TunnelSource::Pipes
                | TunnelSource::Upkeep
                | TunnelSource::Drain,
            )
            | None => {}
        }
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        match TunnelSource::from_source(source) {
            Some(TunnelSource::Remote) => self.remote_timeout(cx, source.key),
            Some(TunnelSource::Tunnel) => self.tunnel_timeout(cx, source.key),
            Some(TunnelSource::Stream) => self.stream_timeout(cx, source.key),
            Some(TunnelSource::Pipes) => self.pipes.close_idle(cx),
            Some(TunnelSource::Upkeep) => self.front.sum_up(cx),
            Some(TunnelSource::Drain) => self.drain_timeout(cx),
            // These sources have no alarm.
            Some(TunnelSource::Listener | TunnelSource::Arrival) | None => {}
        }
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        match TunnelSource::from_source(source) {
            Some(TunnelSource::Tunnel) => self.tunnel_resumed(cx, source.key),
            Some(TunnelSource::Stream) => self.carry(cx, source.key),
            // These sources are never resumed.
            Some(
                TunnelSource::Listener
                | TunnelSource::Arrival
                | TunnelSource::Remote
                | TunnelSource::Pipes
                | TunnelSource::Upkeep
                | TunnelSource::Drain,
            )
            | None => {}
        }
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        self.take_hosts(cx);
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.write_out(cx);
    }
}
