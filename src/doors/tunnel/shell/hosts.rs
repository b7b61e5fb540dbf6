//! The addresses of hosts, looked up on helper threads, and the connections that wait for them.
//!
//! A host is looked up when it is needed and its addresses are older than [`FRESH`]. Where there are older ones, these are
//! used meanwhile; else the connection waits. An address to which nothing could connect makes its host be looked up again.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TunnelDoor;
use crate::net::resolving::Resolver;
use crate::reactor::{Context, Key};

/// The time for which addresses are good.
const FRESH: Duration = Duration::from_secs(60);

/// A connection that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiter {
    /// One to a server.
    Tunnel(Key),
    /// One to a local service.
    Stream(Key),
}

/// The answer to a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// These addresses, with port 0; at least one.
    Known(Vec<SocketAddr>),
    /// The waiter is named by [`Hosts::take`] when they are there.
    Wait,
    /// It cannot be looked up.
    Failed(io::Error),
}

/// A waiter whose wait is over, and the outcome.
pub(super) type Found = (Waiter, Result<Vec<SocketAddr>, String>);

/// All hosts of a door.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    resolver: Resolver,
    known: HashMap<Arc<str>, (Instant, Vec<SocketAddr>)>,
    waiting: HashMap<Arc<str>, Vec<Waiter>>,
}

impl Hosts {
    /// Asks for the addresses of a host, on behalf of this waiter.
    pub(super) fn ask(&mut self, cx: &Context<'_>, host: &str, waiter: Waiter) -> Answer {
        let known = self.known.get(host);
        if let Some((_, addresses)) = known.filter(|(at, _)| cx.now() < *at + FRESH) {
            return Answer::Known(addresses.clone());
        }
        let before = known.map(|(_, addresses)| addresses.clone());
        let host: Arc<str> = host.into();
        let begun = self.resolver.look_up(cx, &host);
        match (before, begun) {
            (Some(addresses), _) => Answer::Known(addresses),
            (None, Err(error)) => Answer::Failed(error),
            (None, Ok(())) => {
                self.waiting.entry(host).or_default().push(waiter);
                Answer::Wait
            }
        }
    }

    /// Lets a host be looked up again at the next question, because none of its addresses was of use.
    pub(super) fn forget(&mut self, host: &str) {
        self.known.remove(host);
    }

    /// Takes in the outcomes of look-ups, and returns the waiters that need wait no longer.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Found> {
        let mut woken = Vec::new();
        while let Some(found) = self.resolver.take() {
            let outcome = found.addresses.map_err(|error| error.to_string());
            if let Ok(addresses) = &outcome {
                self.known.insert(Arc::clone(&found.host), (now, addresses.clone()));
            }
            let waiters = self.waiting.remove(&found.host).unwrap_or_default();
            woken.extend(waiters.into_iter().map(|waiter| (waiter, outcome.clone())));
        }
        woken
    }
}

impl TunnelDoor {
    /// Wakes the connections whose hosts were looked up.
    pub(super) fn take_hosts(&mut self, cx: &mut Context<'_>) {
        for (waiter, found) in self.hosts.take(cx.now()) {
            match waiter {
                Waiter::Tunnel(key) => self.tunnel_named(cx, key, found),
                Waiter::Stream(key) => self.stream_named(cx, key, found),
            }
        }
    }
}
