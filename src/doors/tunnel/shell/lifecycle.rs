//! The tunnel door as the daemon sees it: its start, its change, its end.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use log::log;

use super::super::core::counters::Counters;
use super::super::core::remote::Event;
use super::super::options::{Options, Secret};
use super::super::report::{self, Gauges};
use super::hosts::Hosts;
use super::reaching::Locals;
use super::streams::Traffic;
use super::{TunnelDoor, TunnelSource};
use crate::doors::front::{Front, FrontKind, OverLimit};
use crate::doors::jitter::Jitter;
use crate::doors::lent_pipes::LentPipes;
use crate::doors::preparing::Surroundings;
use crate::doors::{self, Door, HandedConnection, Listeners, Shutdown};
use crate::error::{Blame, Error};
use crate::net::conn::Conn;
use crate::net::local_ports::LocalPorts;
use crate::net::origin::Origin;
use crate::net::tls::client::ClientTls;
use crate::net::tls::files::read_client;
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Context, Key, SourceKind};
use crate::relay::pipes::Budget;
use crate::stats::Snapshot;

/// The part of a tunnel door that is made from the file system.
#[derive(Debug)]
pub struct Prepared {
    pipes: Arc<Budget>,
    credentials: Arc<Credentials>,
}

/// The things by which a server and this side know each other.
#[derive(Debug)]
pub(super) struct Credentials {
    /// The secret.
    pub(super) secret: Secret,
    /// TLS, if a server speaks it.
    pub(super) tls: Option<ClientTls>,
}

/// Reads the files of a door.
///
/// # Errors
/// A file that cannot be read or used.
pub fn prepare(options: &Options, surroundings: &Surroundings) -> Result<Prepared, Error> {
    let name = &options.front.name;
    let wrong = |text: String| Error::with_remedy(Blame::Operator, format_args!("{name}: {text}"));
    let secret = options
        .secret
        .read()
        .map_err(|text| wrong(format!("secret-file: {text}")))?;
    let speaks_tls = options.remotes.iter().any(|remote| remote.name.is_some());
    let tls = if speaks_tls {
        let (authorities, identity) = (options.authorities.as_deref(), options.identity.as_ref());
        let (tls, remarks) = read_client(authorities, identity, SystemTime::now()).map_err(|errors| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            wrong(errors.join("; "))
        })?;
        for remark in remarks {
            log!(remark.level, "{name}: {}", remark.text);
        }
        Some(tls)
    } else {
        None
    };
    Ok(Prepared {
        pipes: Arc::clone(&surroundings.pipes),
        credentials: Arc::new(Credentials { secret, tls }),
    })
}

impl TunnelDoor {
    /// A door that has not connected yet.
    pub fn new(options: Options, prepared: Prepared, listeners: Listeners, now: Instant) -> TunnelDoor {
        let kind = FrontKind {
            module: module_path!(),
            listener: TunnelSource::Listener.kind(),
            arrival: TunnelSource::Arrival.kind(),
            upkeep: TunnelSource::Upkeep.only(),
            drain: TunnelSource::Drain.only(),
            at_stop_timeout: "streams that are still up are cut",
            serves_at_once: true,
        };
        TunnelDoor {
            front: Front::new(kind, Arc::clone(&options.front), listeners, now),
            prepared: prepared.credentials,
            remotes: GenerationalSlab::default(),
            tunnels: GenerationalSlab::default(),
            streams: GenerationalSlab::default(),
            opening: 0,
            handed: VecDeque::new(),
            handing: None,
            touched: Vec::new(),
            hosts: Hosts::default(),
            local_ports: LocalPorts::read(),
            pipes: LentPipes::new(prepared.pipes, TunnelSource::Pipes.only()),
            jitter: Jitter::new(RandomState::new().hash_one(std::process::id())),
            counters: Counters::default(),
            traffic: Traffic::default(),
            locals: Locals::of(&options),
            options,
        }
    }
}

impl Door for TunnelDoor {
    fn front(&self) -> &Front {
        &self.front
    }

    fn front_mut(&mut self) -> &mut Front {
        &mut self.front
    }

    /// A server that is away is no reason not to start: it is waited for.
    fn start(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        self.follow_remotes(cx);
        Ok(())
    }

    /// No client connects to this door.
    fn admit(&mut self, cx: &mut Context<'_>, conn: Conn, _origin: Origin) {
        drop(conn);
        self.front.descriptor_freed(cx);
    }

    fn turn_away(&mut self, _cx: &mut Context<'_>, conn: Conn, _origin: &Origin, _over: OverLimit) {
        conn.turn_away(b"", false);
    }

    fn next_handed(&mut self) -> Option<Box<HandedConnection>> {
        self.take_handed()
    }

    fn may_hand_to(&self, door: &str) -> bool {
        self.may_still_hand_to(door)
    }

    fn refuse_handed(&mut self, cx: &mut Context<'_>, handed: Box<HandedConnection>, why: &str) {
        self.refuse(cx, &handed, why);
    }

    /// Servers that stay keep their sessions, unless the secret or the certificates are others.
    fn reload(
        &mut self,
        cx: &mut Context<'_>,
        options: doors::Options,
        prepared: doors::Prepared,
        new: Listeners,
    ) -> Result<(), Error> {
        let (options, prepared) = match (options, prepared) {
            (doors::Options::Tunnel(options), doors::Prepared::Tunnel(prepared)) => (*options, *prepared),
            (other, _) => return Err(doors::other_kind(self.front.name(), &other)),
        };
        self.front.reload(cx, Arc::clone(&options.front), new);
        let is_known = options.authorities == self.options.authorities
            && options.identity == self.options.identity
            && prepared.credentials.secret == self.prepared.secret;
        self.prepared = prepared.credentials;
        self.local_ports = LocalPorts::read();
        self.locals = Locals::of(&options);
        self.options = options;
        if !is_known {
            let all: Vec<Key> = self.remotes.iter().map(|(key, _)| key).collect();
            all.into_iter().for_each(|key| self.remove_remote(cx, key));
        }
        self.follow_remotes(cx);
        Ok(())
    }

    fn set_prepared(&mut self, prepared: doors::Prepared) {
        if let doors::Prepared::Tunnel(prepared) = prepared {
            self.prepared = prepared.credentials;
        }
    }

    fn shutdown(&mut self, cx: &mut Context<'_>, how: Shutdown) {
        let all: Vec<Key> = self.remotes.iter().map(|(key, _)| key).collect();
        for key in all {
            self.tell_remote(cx, key, Event::Stop, "");
            self.remove_remote(cx, key);
        }
        match how {
            Shutdown::Drain { .. } => {}
            Shutdown::Stop | Shutdown::Abort => {
                let streams: Vec<Key> = self.streams.iter().map(|(key, _)| key).collect();
                streams.into_iter().for_each(|key| self.finish(cx, key, true));
                self.drop_tunnels(cx);
            }
        }
        // The door may be over with this turn.
        self.write_out(cx);
    }

    /// The last frames of a tunnel are to be written as well.
    fn is_idle(&self) -> bool {
        self.streams.len() == 0 && self.tunnels.len() == 0
    }

    fn statistics(&self, now: Instant) -> Snapshot {
        let up = self
            .remotes
            .iter()
            .filter(|(_, slot)| slot.state.up_since().is_some())
            .count();
        let gauges = Gauges {
            remotes: self.remotes.len(),
            up,
            streams: self.streams.len(),
            round_trip: self.round_trip(),
            traffic: self.traffic,
            pipes: self.pipes.pipes.budget().open(),
            shortages: self.pipes.pipes.shortages(),
        };
        report::snapshot(&self.counters, &gauges, &self.front, now)
    }

    fn dump(&self, now: Instant) -> String {
        self.describe(now)
    }
}
