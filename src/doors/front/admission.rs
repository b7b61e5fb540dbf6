//! The way of a connection from accept to its door, where something comes first: a preface, from the proxies that the
//! operator trusts, and a TLS handshake, on the listeners that have it.
//!
//! The order of the checks:
//!
//! 1. The peer of the socket is held against the access lists. A proxy must not be in `--deny`, and need not be in
//!    `--allow`: `--accept-proxy` is what lets it connect.
//! 2. The connection takes a place: of the total while its client is not known, else under the client's address as well.
//!    Connections that are not admitted take at most half of the places: one more, and the one that has waited longest
//!    is refused.
//! 3. The preface is read ([`arrivals`](super::arrivals)). The client that it asserts is held against the access lists
//!    before it may begin a handshake; a proxy that speaks for itself is not.
//! 4. The handshake is made. It verifies the certificate that the client shows, if the door asks for one.
//! 5. The client is held against the access lists again, which a reload may have changed, and its certificate is verified
//!    again if the rule about it may have changed, or if the client has resumed a session. The place is given back: a place
//!    of its own is the door's to ask for, as for any other connection.
//!
//! A client that is refused in step 5 is closed without a word, and without the end of TLS: it is not to take that for
//! an empty answer.
//!
//! Before its handshake a connection is refused without a word of the door's protocol, which would leave in the clear.
//!
//! A proxy that speaks for itself, as health checks do, and is not in `--allow`, is closed without a word in step 5: it
//! has seen that the door answers, and that it does so by TLS.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use log::Level;

use super::arrival::{Awaited, Place, Plan};
use super::arrivals::{ArrivalView, Ended, Outcome};
use super::handshake::Failure;
use super::preface::Preface;
use super::{Front, OverLimit, Secured, Topic};
use crate::net::addr::{PeerAddr, Transport};
use crate::net::conn::Conn;
use crate::net::limits::Full;
use crate::net::origin::{Asserted, Origin};
use crate::net::tls::error::Fault;
use crate::net::tls::server::ServerTls;
use crate::reactor::{Context, Key, Readiness};

const BAD_HEADERS: Topic = Topic::new("connections without a valid PROXY header");
const HEALTH_CHECKS: Topic = Topic::new("health checks of proxies");
const FAILED_HANDSHAKES: Topic = Topic::new("connections whose TLS handshake fails");
const NOT_LISTED: Topic = Topic::new("connections that --allow-subject refuses");
const HEALTH_CHECKS_OF_TLS: Topic = Topic::new("connections that close before their TLS handshake");
const NO_HELPER: Topic = Topic::new("signatures that no helper thread makes");
const UNWATCHABLE: Topic = Topic::new("connections that cannot be watched");

impl Place {
    /// The key of a connection that the door knows already.
    fn key(self) -> Option<Key> {
        match self {
            Place::Unidentified | Place::Direct => None,
            Place::Kept(key) => Some(key),
        }
    }
}

/// Judges the certificate of a client by the rule of today, unless its handshake has just done so. The servers are the one
/// that has made it, and that of today.
fn judge_again(conn: &Conn, origin: &Origin, servers: Option<(&Arc<ServerTls>, &Arc<ServerTls>)>) -> Result<(), Fault> {
    let Some((made_with, today)) = servers else {
        return Ok(());
    };
    let is_resumed = origin.tls.as_ref().is_none_or(|established| established.is_resumed);
    if is_resumed || !Arc::ptr_eq(made_with, today) {
        conn.judge_client(today, SystemTime::now())
    } else {
        Ok(())
    }
}

/// The decision about an arrival.
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

    /// Takes in a connection that was accepted this moment, and of which a preface or a handshake is awaited.
    pub(in crate::doors) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        origin: Origin,
        transport: Transport,
    ) -> Admission {
        let (peer, awaits_preface) = (origin.peer, self.awaits_preface(origin.peer));
        let tls = match transport {
            Transport::Plain => None,
            Transport::Tls => self.tls().cloned(),
        };
        let (place, plan) = match (awaits_preface, tls) {
            (true, tls) => (Place::Unidentified, Plan::Preface(self.preface(), tls)),
            (false, Some(tls)) => (Place::Direct, Plan::Handshake(tls)),
            // A door with such a listener has a server for it.
            (false, None) => return Admission::Nothing,
        };
        if awaits_preface && self.options.access.denies(peer) {
            self.deny(cx, &origin, "not allowed by --deny, not as a proxy either");
            return Admission::Nothing;
        }
        if !awaits_preface && !self.permits(cx, &origin) {
            return Admission::Nothing;
        }
        if let Err(full) = self.take_place(place, &origin) {
            let over = self.over_limit(full);
            return self.refuse_over_limit(cx, conn, origin, over, transport);
        }
        let (options, most) = (
            Arc::clone(&self.options),
            self.options.connection_limits.total.div_ceil(2),
        );
        let ended = self.arrivals.begin(cx, conn, (place, origin), plan, &options.access);
        let admission = self.conclude(cx, ended);
        let displaced = self.arrivals.make_room(cx, most);
        self.conclude(cx, displaced);
        admission
    }

    /// Refuses a connection over a limit. Before a handshake there is no way to say so: the words of the door's protocol
    /// would leave in the clear.
    fn refuse_over_limit(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        origin: Origin,
        over: OverLimit,
        transport: Transport,
    ) -> Admission {
        match transport {
            Transport::Plain => return Admission::Full(conn, origin, over),
            Transport::Tls => {}
        }
        let line = format_args!("refused {origin}: as many connections as {} allows", over.flag());
        self.note(cx, Level::Warn, over.topic(), line);
        Admission::Nothing
    }

    /// Makes the TLS handshake of a connection that the door has admitted, that is not registered, and of which nothing is
    /// read but its early bytes, as a server of its own. The connection counts as an arrival until that is done, but keeps
    /// its place. Its end is told by [`take_secured`](Self::take_secured) with this key.
    pub(in crate::doors) fn secure(
        &mut self,
        cx: &mut Context<'_>,
        (conn, origin): (Conn, Origin),
        server: Arc<ServerTls>,
        key: Key,
    ) {
        let (options, most) = (
            Arc::clone(&self.options),
            self.options.connection_limits.total.div_ceil(2),
        );
        let (place, plan) = (Place::Kept(key), Plan::Handshake(server));
        let ended = self.arrivals.begin(cx, conn, (place, origin), plan, &options.access);
        self.conclude(cx, ended);
        let displaced = self.arrivals.make_room(cx, most);
        self.conclude(cx, displaced);
    }

    /// Returns the next connection of the door whose handshake has come to its end. Must be called until it returns `None`
    /// whenever arrivals have been dealt with.
    pub(in crate::doors) fn take_secured(&mut self) -> Option<Secured> {
        self.secured.pop_front()
    }

    fn take_place(&mut self, place: Place, origin: &Origin) -> Result<(), Full> {
        match place {
            Place::Unidentified => self.count.count_unidentified(),
            Place::Direct => self.count.admit(origin),
            Place::Kept(_) => Ok(()),
        }
    }

    fn give_back(&mut self, place: Place, origin: &Origin) {
        match place {
            Place::Unidentified => self.count.release_unidentified(),
            Place::Direct => self.count.release(origin),
            Place::Kept(_) => {}
        }
    }

    /// Handles an event of an arrival.
    pub(in crate::doors) fn arrival_ready(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        readiness: Readiness,
    ) -> Admission {
        let options = Arc::clone(&self.options);
        let ended = self.arrivals.ready(cx, key, readiness, &options.access);
        self.conclude(cx, ended)
    }

    /// Goes on with an arrival of which more may have come than was read, or that found no share of the last turn left.
    pub(in crate::doors) fn resume_arrival(&mut self, cx: &mut Context<'_>, key: Key) -> Admission {
        let options = Arc::clone(&self.options);
        let ended = self.arrivals.resume(cx, key, &mut self.share, &options.access);
        self.conclude(cx, ended)
    }

    /// Handles the deadline of an arrival.
    pub(in crate::doors) fn arrival_timeout(&mut self, cx: &mut Context<'_>, key: Key) -> Admission {
        let options = Arc::clone(&self.options);
        let ended = self.arrivals.expire(cx, key, &mut self.share, &options.access);
        self.conclude(cx, ended)
    }

    /// Goes on with the arrival of the next signature that a helper thread has made. `None` if there is none.
    pub(in crate::doors) fn take_signature(&mut self, cx: &mut Context<'_>) -> Option<Admission> {
        let ended = self.arrivals.take_signature(cx)?;
        Some(self.conclude(cx, ended))
    }

    fn preface(&self) -> Preface {
        Preface::ProxyHeader {
            is_optional: self.options.proxies.is_optional,
        }
    }

    /// Counts and logs the end of an arrival, if it has ended, and holds the client against the access lists. They may
    /// have changed since the preface.
    fn conclude(&mut self, cx: &mut Context<'_>, ended: Option<Ended>) -> Admission {
        if let Some(error) = self.arrivals.take_lack() {
            let line = format_args!("no helper thread can be started, and signatures make all clients wait: {error}");
            self.note(cx, Level::Error, NO_HELPER, line);
        }
        let Some(Ended {
            place,
            origin,
            mut outcome,
        }) = ended
        else {
            return Admission::Nothing;
        };
        if let Outcome::Complete(conn, _) = &mut outcome {
            self.tls_counts.count(conn, &origin);
        }
        self.give_back(place, &origin);
        let (peer, key) = (origin.peer, place.key());
        match outcome {
            // The door knows the name of the server, and asks for the second judgement.
            Outcome::Complete(conn, made_with) if key.is_some() && self.options.access.permits(&origin) => {
                let outcome = made_with.map(|made_with| (conn, origin, made_with));
                self.secured.extend(key.map(|key| Secured { key, outcome }));
                return Admission::Nothing;
            }
            Outcome::Complete(conn, made_with) if self.options.access.permits(&origin) => {
                let today = self.tls();
                match judge_again(&conn, &origin, made_with.as_ref().zip(today)) {
                    Ok(()) => return Admission::Granted(conn, origin),
                    Err(fault) => self.refuse_handshake(cx, &origin, &Failure::Fault(fault)),
                }
            }
            Outcome::Complete(_, _) | Outcome::NotPermitted => self.deny_client(cx, &origin),
            Outcome::Refused(refusal) => {
                self.refused.bad_header += 1;
                self.note(cx, Level::Warn, BAD_HEADERS, format_args!("refused {peer}: {refusal}"));
            }
            Outcome::Failed(failure) => self.refuse_handshake(cx, &origin, &failure),
            Outcome::Closed(Awaited::Preface) => {
                let line = format_args!("{peer} has closed before its PROXY header, as health checks do");
                self.note(cx, Level::Debug, HEALTH_CHECKS, line);
            }
            Outcome::Closed(Awaited::Handshake | Awaited::Signature) => {
                let line = format_args!("{peer} has closed before its TLS handshake, as health checks do");
                self.note(cx, Level::Debug, HEALTH_CHECKS_OF_TLS, line);
            }
            Outcome::Unwatchable(error) => {
                let line = format_args!("cannot watch {peer}: {error}");
                self.note(cx, Level::Error, UNWATCHABLE, line);
            }
        }
        self.secured.extend(key.map(|key| Secured { key, outcome: None }));
        self.descriptor_freed(cx);
        Admission::Nothing
    }

    /// Holds the client of a connection of the door whose handshake is done against the rule about certificates that the
    /// server of this name has today. `made_with` is the one that has made it. If it may not connect, that was counted and
    /// logged, and it must be closed.
    pub(in crate::doors) fn permits_secured(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Conn,
        origin: &Origin,
        (made_with, name): (&Arc<ServerTls>, &Option<Arc<str>>),
    ) -> bool {
        let today = self.tls_of(name).map(|today| (made_with, today));
        match judge_again(conn, origin, today) {
            Ok(()) => true,
            Err(fault) => {
                self.refuse_handshake(cx, origin, &Failure::Fault(fault));
                false
            }
        }
    }

    /// Counts and logs a client that is refused because of its handshake.
    fn refuse_handshake(&mut self, cx: &mut Context<'_>, origin: &Origin, failure: &Failure) {
        let topic = if let Failure::Fault(Fault::NotListed(_)) = failure {
            self.refused.not_listed += 1;
            NOT_LISTED
        } else {
            self.refused.bad_handshake += 1;
            FAILED_HANDSHAKES
        };
        self.note(cx, Level::Warn, topic, format_args!("refused {origin}: {failure}"));
    }

    /// Logs that the access lists refuse the client of an arrival.
    fn deny_client(&mut self, cx: &mut Context<'_>, origin: &Origin) {
        if origin.asserted == Some(Asserted::Proxy) {
            let line = format_args!("closed {origin}: --allow does not name it, and it has seen that the door answers");
            self.note(cx, Level::Debug, HEALTH_CHECKS, line);
        } else {
            self.deny(cx, origin, "not allowed by --allow and --deny");
        }
    }

    // ---- change and end ----------------------------------------------------------------------------------------

    /// Refuses the connections whose peer is not trusted any more, or is denied now. Must be called when the options have
    /// changed.
    pub(super) fn close_untrusted(&mut self, cx: &mut Context<'_>) {
        let (proxies, access) = (&self.options.proxies, &self.options.access);
        let closed = self.arrivals.close(cx, |place, origin| match place {
            Place::Unidentified => proxies.include(origin.peer) && !access.denies(origin.peer),
            Place::Direct | Place::Kept(_) => access.permits(origin),
        });
        for (place, origin) in closed {
            self.give_back(place, &origin);
            self.secured
                .extend(place.key().map(|key| Secured { key, outcome: None }));
            let why = match place {
                Place::Unidentified => "no longer allowed to send a PROXY header",
                Place::Direct | Place::Kept(_) => "not allowed by --allow and --deny",
            };
            // It is the peer that is refused, also if its client is known by now.
            self.deny(cx, &Origin::direct(origin.peer), why);
            self.descriptor_freed(cx);
        }
    }

    /// Closes all connections whose preface is awaited, since the door ends.
    pub(super) fn close_arrivals(&mut self, cx: &mut Context<'_>) {
        for (place, origin) in self.arrivals.close(cx, |_, _| false) {
            self.give_back(place, &origin);
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

    /// Returns true if a client may still come although nothing is accepted any more: its preface is awaited, or another
    /// door has it.
    pub(in crate::doors) fn has_arrivals(&self) -> bool {
        self.arrivals.len() > 0 || self.expects_handed()
    }

    /// The number of connections whose preface is awaited, and what the dump shows of each.
    pub(in crate::doors) fn arrivals(&self, now: Instant) -> (usize, impl Iterator<Item = ArrivalView>) {
        (self.arrivals.len(), self.arrivals.views(now))
    }
}
