//! The way of a connection from accept to its door, where a preface is read first: from the proxies that the operator
//! trusts.
//!
//! The order of the checks:
//!
//! 1. The peer of the socket must not be in `--deny`. It need not be in `--allow`: `--accept-proxy` is what lets a proxy
//!    connect.
//! 2. The connection takes a place of the total. Connections whose preface is awaited take at most half of the places:
//!    one more, and the one that has waited longest is refused.
//! 3. The preface is read ([`arrivals`](super::arrivals)).
//! 4. The client that it asserts is held against the access lists. Its own place, and the limit for its address, is the
//!    door's to ask for, as for any other connection.
//!
//! A proxy that speaks for itself, as health checks do, and is not in `--allow`, is closed without a word: it has seen
//! that the door answers.

use std::time::Instant;

use log::Level;

use super::arrivals::{ArrivalView, Outcome};
use super::preface::Preface;
use super::{Front, OverLimit, Topic};
use crate::net::addr::PeerAddr;
use crate::net::conn::Conn;
use crate::net::origin::{Asserted, Origin};
use crate::reactor::{Context, Key, Readiness};

const BAD_HEADERS: Topic = Topic::new("connections without a valid PROXY header");
const HEALTH_CHECKS: Topic = Topic::new("health checks of proxies");
const UNWATCHABLE: Topic = Topic::new("connections that cannot be watched");

/// The decision about a connection whose preface is read.
#[derive(Debug)]
pub enum Admission {
    /// The door may have it.
    Granted(Conn, Origin),
    /// There is no place for it: the door is to turn it away.
    Full(Conn, Origin, OverLimit),
    /// Nothing is to be done with it for now, or it was closed.
    Nothing,
}

impl Front {
    /// Returns true if a preface is awaited of a connection from this peer.
    pub(in crate::doors) fn awaits_preface(&self, peer: PeerAddr) -> bool {
        self.options.proxies.include(peer)
    }

    /// Takes in a connection that was accepted this moment, and of which a preface is awaited.
    pub(in crate::doors) fn receive(&mut self, cx: &mut Context<'_>, conn: Conn, peer: PeerAddr) -> Admission {
        let origin = Origin::direct(peer);
        if self.options.access.denies(peer) {
            self.deny(cx, &origin, "not allowed by --deny, not as a proxy either");
            return Admission::Nothing;
        }
        if let Err(full) = self.count.count_unidentified() {
            return Admission::Full(conn, origin, self.over_limit(full));
        }
        let (preface, most) = (self.preface(), self.options.connection_limits.total.div_ceil(2));
        let outcome = self.arrivals.begin(cx, conn, peer, preface);
        let admission = self.conclude(cx, outcome);
        let displaced = self.arrivals.make_room(cx, most);
        self.conclude(cx, displaced);
        admission
    }

    /// Handles an event of a connection whose preface is read.
    pub(in crate::doors) fn arrival_ready(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        readiness: Readiness,
    ) -> Admission {
        let preface = self.preface();
        let outcome = self.arrivals.ready(cx, key, readiness, preface);
        self.conclude(cx, outcome)
    }

    /// Goes on with a connection of which more may have come than was read.
    pub(in crate::doors) fn resume_arrival(&mut self, cx: &mut Context<'_>, key: Key) -> Admission {
        let preface = self.preface();
        let outcome = self.arrivals.resume(cx, key, preface);
        self.conclude(cx, outcome)
    }

    /// Handles the deadline of a preface.
    pub(in crate::doors) fn arrival_timeout(&mut self, cx: &mut Context<'_>, key: Key) -> Admission {
        let preface = self.preface();
        let outcome = self.arrivals.expire(cx, key, preface);
        self.conclude(cx, outcome)
    }

    fn preface(&self) -> Preface {
        Preface::ProxyHeader {
            is_optional: self.options.proxies.is_optional,
        }
    }

    /// Counts and logs the end of a preface, if it has ended, and holds the client against the access lists.
    fn conclude(&mut self, cx: &mut Context<'_>, outcome: Option<Outcome>) -> Admission {
        let Some(outcome) = outcome else {
            return Admission::Nothing;
        };
        self.count.release_unidentified();
        match outcome {
            Outcome::Complete(conn, origin) if self.options.access.permits(&origin) => {
                return Admission::Granted(conn, origin);
            }
            Outcome::Complete(_, origin) if origin.asserted == Some(Asserted::Proxy) => {
                let line =
                    format_args!("closed {origin}: --allow does not name it, and it has seen that the door answers");
                self.note(cx, Level::Debug, HEALTH_CHECKS, line);
            }
            Outcome::Complete(_, origin) => self.deny(cx, &origin, "not allowed by --allow and --deny"),
            Outcome::Refused(peer, refusal) => {
                self.refused.bad_header += 1;
                self.note(cx, Level::Warn, BAD_HEADERS, format_args!("refused {peer}: {refusal}"));
            }
            Outcome::Closed(peer) => {
                let line = format_args!("{peer} has closed before its PROXY header, as health checks do");
                self.note(cx, Level::Debug, HEALTH_CHECKS, line);
            }
            Outcome::Unwatchable(peer, error) => {
                self.note(
                    cx,
                    Level::Error,
                    UNWATCHABLE,
                    format_args!("cannot watch {peer}: {error}"),
                );
            }
        }
        self.descriptor_freed(cx);
        Admission::Nothing
    }

    // ---- change and end ----------------------------------------------------------------------------------------

    /// Refuses the connections whose peer is not trusted any more, or is denied now. Must be called when the options have
    /// changed.
    pub(super) fn close_untrusted(&mut self, cx: &mut Context<'_>) {
        let (proxies, access) = (&self.options.proxies, &self.options.access);
        let closed = self
            .arrivals
            .close(cx, |peer| proxies.include(peer) && !access.denies(peer));
        for peer in closed {
            self.count.release_unidentified();
            self.deny(cx, &Origin::direct(peer), "no longer allowed to send a PROXY header");
            self.descriptor_freed(cx);
        }
    }

    /// Closes all connections whose preface is awaited, since the door ends.
    pub(super) fn close_arrivals(&mut self, cx: &mut Context<'_>) {
        for _ in self.arrivals.close(cx, |_| false) {
            self.count.release_unidentified();
        }
    }

    /// Gives connections whose preface is awaited, and the requests of clients that are admitted from now on, no longer
    /// than `by`.
    pub(in crate::doors) fn hasten_arrivals(&mut self, cx: &mut Context<'_>, by: Instant) {
        self.hasten = Some(by);
        self.arrivals.hasten(cx, by);
    }

    /// The deadline of incomplete requests, while the door drains and clients are hastened.
    pub(in crate::doors) fn hastened(&self) -> Option<Instant> {
        self.hasten.filter(|_| self.is_draining())
    }

    /// Returns true if the preface of a connection is awaited, so that a client may still come.
    pub(in crate::doors) fn has_arrivals(&self) -> bool {
        self.arrivals.len() > 0
    }

    /// The number of connections whose preface is awaited, and what the dump shows of each.
    pub(in crate::doors) fn arrivals(&self, now: Instant) -> (usize, impl Iterator<Item = ArrivalView>) {
        (self.arrivals.len(), self.arrivals.views(now))
    }
}
