//! The way of a route to its destination: from the decision to a server, from a server that fails to another one, and to
//! the relay.

use std::sync::Arc;
use std::time::Instant;

use super::ending::Ending;
use super::event::{Notice, RouteId, Side, Step};
use super::health::HealthEvent;
use super::life::{Connecting, Destination, Life, Relaying, Routed, State};
use super::router::Router;
use super::share::Share;
use super::table::{Address, Choice};
use super::turn::{Turn, connecting_to};

impl Router {
    /// Lets a client that holds nothing go on to its destination.
    pub(super) fn go_to(&mut self, id: RouteId, life: &mut Life, destination: Destination, now: Instant) -> Turn {
        match destination {
            Destination::Servers(choice) => self.connect(id, life, choice, now),
            Destination::Door(door) => self.hand_over(life, door),
        }
    }

    pub(super) fn connect_failed(
        &mut self,
        id: RouteId,
        life: &mut Life,
        connecting: Connecting,
        now: Instant,
    ) -> Turn {
        self.counters.connect_failed += 1;
        self.connect_again(id, life, connecting, Ending::ServerFailed, now)
    }

    pub(super) fn connect_late(&mut self, id: RouteId, life: &mut Life, connecting: Connecting, now: Instant) -> Turn {
        self.counters.connect_late += 1;
        self.connect_again(id, life, connecting, Ending::ServerLate, now)
    }

    /// The server could not be reached: another one is tried, once.
    fn connect_again(
        &mut self,
        id: RouteId,
        life: &mut Life,
        connecting: Connecting,
        ending: Ending,
        now: Instant,
    ) -> Turn {
        let (share, is_first) = (connecting.share, connecting.tried.is_none());
        self.report(&connecting.routed, share, HealthEvent::Failed, now);
        let routed = self.leave(State::Connecting(connecting), now);
        let Some(Routed { choice, server }) = routed else {
            return self.end(life, ending, None, now);
        };
        let other = if is_first {
            self.choose(life, &choice, Some(share), now)
        } else {
            None
        };
        match other {
            Some((other, server)) => {
                self.counters.connect_again += 1;
                // A server with a program is the only one.
                connecting_to(Routed { choice, server }, other, None, Some(share), now)
            }
            None if self.is_without_clients(&choice, share) => match self.expect_client(id, choice, now) {
                Ok(turn) => turn,
                Err(choice) => self.end(life, ending, Some(Routed { choice, server }), now),
            },
            None => self.end(life, ending, Some(Routed { choice, server }), now),
        }
    }

    /// The server is connected, and bytes are relayed from now on.
    pub(super) fn relay(&mut self, life: &mut Life, connecting: Connecting, now: Instant) -> Turn {
        let Connecting {
            routed, share, program, ..
        } = connecting;
        self.report(&routed, share, HealthEvent::Connected, now);
        life.times.connected = Some(now);
        let relaying = Relaying {
            routed,
            share,
            program,
            ended: None,
            // The bytes of the client that are held.
            last: (Side::Client, now),
            head_until: None,
        };
        self.counters.requests += u64::from(life.asked.is_filtered(&relaying.routed.choice));
        (State::Relaying(relaying), Step::Relay)
    }

    /// Chooses a server for a route, which has its share of it until [`give_back`](Self::give_back). `tried` is the one that
    /// could not be reached.
    pub(super) fn choose(
        &mut self,
        life: &Life,
        choice: &Choice,
        tried: Option<Share>,
        now: Instant,
    ) -> Option<(Share, Arc<Address>)> {
        match choice.tunnel() {
            Some(tunnel) => {
                let tried = tried.and_then(Share::session);
                let (session, address) = self.tunnels.choose(tunnel, tried)?;
                Some((Share::Stream(session), address))
            }
            None => {
                let tried = tried.and_then(Share::backend);
                let (backend, address) = self.upstreams.choose(choice, life.client, tried, now)?;
                Some((Share::Backend(backend), address))
            }
        }
    }

    /// Gives the share of a server back.
    pub(super) fn give_back(&mut self, share: Share, now: Instant) {
        match share {
            Share::Backend(backend) => self.upstreams.release(backend, now),
            Share::Stream(session) => self.tunnels.release(session, now),
        }
    }

    /// Tells a server's health of an event, and the log of what comes of it. A tunnel client has no health: its path is
    /// proved by pings.
    pub(super) fn report(&mut self, routed: &Routed, share: Share, event: HealthEvent, now: Instant) {
        let Share::Backend(backend) = share else { return };
        if let Some(change) = self.upstreams.report(backend, event, now) {
            self.notices.push_back(Notice {
                service: Arc::clone(&routed.choice.service),
                server: Arc::clone(&routed.server),
                change,
                why: None,
            });
        }
    }
}
