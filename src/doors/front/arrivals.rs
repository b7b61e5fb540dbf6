//! Connections that have been accepted and are not admitted yet: their [`Preface`] is read first, and their TLS
//! handshake is made. The steps of one are in [`arrival`](super::arrival).
//!
//! The life of an arrival: its preface is read at once, for that has often come with it, and if no handshake follows it
//! never enters the table. Else it waits there, registered with the poll, until it is complete, wrong, or late. Then it leaves
//! the table and the poll. The bytes behind a preface are the first of the handshake, or the connection's early bytes.
//!
//! The invariants:
//!
//! - Each stage of an arrival has a deadline from its beginning, which nothing that the peer sends puts off. An arrival
//!   holds at most [`Preface::MOST`] bytes, or the bytes of a handshake, which have a bound of their own.
//! - The handshakes of a door have a [share](Share) of a turn, and wait for it in the run queue, in the order in
//!   which there was something to do: a flood of events keeps none of them waiting for ever.
//! - An arrival that is in the table is registered, and its alarm is armed.
//! - Arrivals have numbers in their order, which are their keys in the reactor as well and never used again. So the first
//!   in the table is the one that has waited longest, and must make room when there are too many: a proxy sends its
//!   header at once, and a client its handshake, so the newest are the likeliest to be real.
//! - The way of an arrival is decided when it is accepted: a reload changes it no more.
//! - An arrival whose handshake needs a signature with a slow key waits for that in the table, and its deadline counts.
//!   If it ends, the signature is withdrawn, or its result dropped. Nothing waits for a helper thread.
//!
//! Access lists, counts and the log do not belong here: [`admission`](super::admission) has them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::arrival::{Arrival, Awaited, End, Place, Plan, Progress, Reading, Stage};
use super::handshake::{Failure, Share};
#[cfg(doc)]
use super::preface::Preface;
use super::preface::Refusal;
use super::signatures::{Signatures, Signed};
use crate::net::access::AccessList;
use crate::net::addr::PeerAddr;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::net::tls::server::ServerTls;
use crate::net::tls::signature::Unsigned;
use crate::reactor::{Context, Key, Kind, Readiness, Source};

/// All arrivals of one door that are not complete.
#[derive(Debug)]
pub(super) struct Arrivals {
    kind: Kind,
    table: BTreeMap<u64, Arrival>,
    next_number: u64,
    signatures: Signatures,
    /// The reason why no helper thread could be started, if that was lately.
    lack: Option<io::Error>,
    /// The time by which all arrivals must be complete, once the door drains.
    hastened: Option<Instant>,
}

/// An arrival that is none any more.
#[derive(Debug)]
pub(super) struct Ended {
    /// The place that is to be given back.
    pub(super) place: Place,
    /// The origin as far as it was known at the end.
    pub(super) origin: Origin,
    pub(super) outcome: Outcome,
}

/// The end of an arrival.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its preface and its handshake are complete. The handshake, if there was one, was made with this server.
    Complete(Conn, Option<Arc<ServerTls>>),
    /// It was closed before its handshake, because the access lists refuse its client.
    NotPermitted,
    /// It was closed because of its preface.
    Refused(Refusal),
    /// It was closed because of its handshake.
    Failed(Failure),
    /// It was closed because its peer wanted nothing.
    Closed(Awaited),
    /// It was closed because the poll cannot watch it.
    Unwatchable(io::Error),
}

/// An arrival, as the dump shows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors) struct ArrivalView {
    pub(in crate::doors) peer: PeerAddr,
    pub(in crate::doors) connected: Duration,
    pub(in crate::doors) received: usize,
    pub(in crate::doors) awaited: Awaited,
}

impl Arrivals {
    /// No arrivals. `kind` is the kind of their sources.
    pub(super) fn new(kind: Kind) -> Self {
        Arrivals {
            kind,
            table: BTreeMap::new(),
            next_number: 0,
            signatures: Signatures::default(),
            lack: None,
            hastened: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The number of arrivals that are in their handshake, and of those among them that wait for a signature.
    pub(super) fn handshaking(&self) -> (u64, u64) {
        let (mut handshakes, mut signatures) = (0, 0);
        for arrival in self.table.values() {
            match arrival.awaited() {
                Awaited::Preface => continue,
                Awaited::Handshake => {}
                Awaited::Signature => signatures += 1,
            }
            handshakes += 1;
        }
        (handshakes, signatures)
    }

    pub(super) fn views(&self, now: Instant) -> impl Iterator<Item = ArrivalView> {
        self.table.values().map(move |arrival| ArrivalView {
            peer: arrival.origin.peer,
            connected: now.saturating_duration_since(arrival.accepted),
            received: match &arrival.stage {
                Stage::Preface(reading) => reading.received.len(),
                Stage::Handshake | Stage::Signature => 0,
            },
            awaited: arrival.awaited(),
        })
    }

    /// Takes in a connection that was accepted this moment.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        (place, origin): (Place, Origin),
        plan: Plan,
        access: &AccessList,
    ) -> Option<Ended> {
        let arrival = Arrival::new(self.next_number, conn, place, origin, cx.now());
        self.next_number += 1;
        let progress = arrival.begin(plan, cx, access);
        self.settle(cx, progress)
    }

    /// Puts an arrival that goes on into the table, and ends one that does not.
    fn settle(&mut self, cx: &mut Context<'_>, progress: Progress) -> Option<Ended> {
        let (arrival, resumes) = match progress {
            Progress::Waits(arrival) => (arrival, false),
            Progress::MoreLater(arrival) => (arrival, true),
            Progress::NeedsSignature(arrival, unsigned) => return self.order_signature(cx, arrival, unsigned),
            Progress::Ends(arrival, end) => return Some(self.end(cx, arrival, end)),
        };
        let number = arrival.number;
        let ended = self.add(cx, arrival);
        if resumes && ended.is_none() {
            cx.resume_later(self.source(number));
        }
        ended
    }

    /// Has a signature made for an arrival. May refuse another one, which has waited longest for its own.
    fn order_signature(&mut self, cx: &mut Context<'_>, arrival: Arrival, unsigned: Unsigned) -> Option<Ended> {
        if let Err(error) = cx.prepare_tasks() {
            self.lack = Some(error);
            let progress = arrival.take_signature(unsigned.sign());
            return self.settle(cx, progress);
        }
        let number = arrival.number;
        let ended = self.add(cx, arrival);
        if ended.is_some() {
            return ended;
        }
        let displaced = self.signatures.order(cx, number, unsigned)?;
        let displaced = self.table.remove(&displaced)?;
        Some(self.end(cx, displaced, End::Fail(Failure::Unsigned)))
    }

    /// Takes the next signature that was made, and goes on with its arrival. `None` if there is none.
    pub(super) fn take_signature(&mut self, cx: &mut Context<'_>) -> Option<Option<Ended>> {
        let Signed { number, engine } = self.signatures.take()?;
        // The arrival may have ended.
        let ended = self.table.remove(&number).and_then(|arrival| {
            let progress = arrival.take_signature(engine);
            self.settle(cx, progress)
        });
        Some(ended)
    }

    /// Takes the reason why signatures were made here and not by a helper thread, if they were lately.
    pub(super) fn take_lack(&mut self) -> Option<io::Error> {
        self.lack.take()
    }

    fn add(&mut self, cx: &mut Context<'_>, mut arrival: Arrival) -> Option<Ended> {
        let at = self.source(arrival.number);
        if !arrival.is_registered {
            let interest = arrival.interest();
            if let Err(error) = cx.register(at, &mut arrival.conn, interest) {
                let Arrival { place, origin, .. } = arrival;
                let outcome = Outcome::Unwatchable(error);
                return Some(Ended { place, origin, outcome });
            }
            arrival.is_registered = true;
        }
        let until = self.hastened.map_or(arrival.until, |by| by.min(arrival.until));
        if arrival.alarm.at() != Some(until) {
            cx.set_alarm(&mut arrival.alarm, at, Some(until));
        }
        self.table.insert(arrival.number, arrival);
        None
    }

    /// Refuses the arrival that has waited longest, if more than `most` wait.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>, most: usize) -> Option<Ended> {
        if self.table.len() <= most {
            return None;
        }
        let (_, oldest) = self.table.pop_first()?;
        let end = match oldest.awaited() {
            Awaited::Preface => End::Refuse(Refusal::Displaced),
            Awaited::Handshake | Awaited::Signature => End::Fail(Failure::Displaced),
        };
        Some(self.end(cx, oldest, end))
    }

    /// Handles an event of an arrival.
    pub(super) fn ready(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        readiness: Readiness,
        access: &AccessList,
    ) -> Option<Ended> {
        let mut arrival = self.table.remove(&key.to_bits())?;
        arrival.conn.note(readiness);
        let progress = arrival.read(cx, access);
        self.settle(cx, progress)
    }

    /// Goes on with an arrival.
    pub(super) fn resume(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        share: &mut Share,
        access: &AccessList,
    ) -> Option<Ended> {
        let arrival = self.table.remove(&key.to_bits())?;
        let progress = arrival.advance(cx, share, access);
        self.settle(cx, progress)
    }

    /// Handles the deadline of an arrival. What has come in time, and was not read yet, counts.
    pub(super) fn expire(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        share: &mut Share,
        access: &AccessList,
    ) -> Option<Ended> {
        let mut arrival = self.table.remove(&key.to_bits())?;
        cx.clear_alarm(&mut arrival.alarm);
        arrival.conn.expect_input();
        let awaited = arrival.awaited();
        let progress = match arrival.advance(cx, share, access) {
            Progress::Waits(arrival) | Progress::MoreLater(arrival) if arrival.awaited() == awaited => {
                arrival.expire(access, cx)
            }
            progress => progress,
        };
        self.settle(cx, progress)
    }

    /// Ends an arrival that is not in the table.
    fn end(&mut self, cx: &mut Context<'_>, mut arrival: Arrival, end: End) -> Ended {
        if arrival.is_registered {
            self.detach(cx, &mut arrival);
            // Its next owner registers it for events of its own. An error would mean that it is not registered.
            let _ = cx.deregister(&mut arrival.conn);
        }
        let awaited = arrival.awaited();
        let Arrival {
            conn,
            place,
            origin,
            stage,
            tls,
            ..
        } = arrival;
        let outcome = match end {
            End::Complete => {
                let early = match stage {
                    Stage::Preface(Reading { received, .. }) => received,
                    Stage::Handshake | Stage::Signature => Vec::new(),
                };
                Outcome::Complete(conn.restart(early), tls)
            }
            End::NotPermitted => Outcome::NotPermitted,
            End::Refuse(refusal) => {
                conn.turn_away(&[], true);
                Outcome::Refused(refusal)
            }
            End::Fail(failure) => {
                conn.turn_away(&[], true);
                Outcome::Failed(failure)
            }
            End::Close => Outcome::Closed(awaited),
        };
        Ended { place, origin, outcome }
    }

    /// Gives all arrivals no longer than `by`.
    pub(super) fn hasten(&mut self, cx: &mut Context<'_>, by: Instant) {
        self.hastened = Some(by);
        let kind = self.kind;
        for (number, arrival) in &mut self.table {
            let until = arrival.alarm.at().map_or(by, |until| by.min(until));
            cx.set_alarm(&mut arrival.alarm, source(kind, *number), Some(until));
        }
    }

    /// Closes the arrivals that are not to stay, and returns the place and the origin of each.
    pub(super) fn close(
        &mut self,
        cx: &mut Context<'_>,
        stays: impl Fn(Place, &Origin) -> bool,
    ) -> Vec<(Place, Origin)> {
        let leaving = self
            .table
            .iter()
            .filter(|(_, arrival)| !stays(arrival.place, &arrival.origin));
        let leaving: Vec<u64> = leaving.map(|(number, _)| *number).collect();
        let mut closed = Vec::new();
        for number in leaving {
            if let Some(mut arrival) = self.table.remove(&number) {
                self.detach(cx, &mut arrival);
                closed.push((arrival.place, arrival.origin));
            }
        }
        closed
    }

    /// Disarms the alarm of an arrival, and withdraws its signature.
    fn detach(&self, cx: &mut Context<'_>, arrival: &mut Arrival) {
        cx.set_alarm(&mut arrival.alarm, self.source(arrival.number), None);
        if arrival.awaited() == Awaited::Signature {
            cx.withdraw_task(arrival.number);
        }
    }

    fn source(&self, number: u64) -> Source {
        source(self.kind, number)
    }
}

fn source(kind: Kind, number: u64) -> Source {
    let key = Key::from_bits(number);
    Source { kind, key }
}
