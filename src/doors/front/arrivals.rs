//! Connections that have been accepted and are not admitted yet: their [`Preface`] is read first.
//!
//! The life of an arrival: it is read once at once, for its preface has often come with it, and then it never enters
//! the table. Else it waits there, registered for reading, until the preface is complete, wrong, or late. Then it
//! leaves the table and the poll, and the bytes behind the preface are the connection's early bytes.
//!
//! The invariants:
//!
//! - Each arrival has a deadline from its accept on, which nothing that it sends puts off, and holds at most
//!   [`Preface::MOST`] bytes.
//! - An arrival that is in the table is registered, and its alarm is armed.
//! - Arrivals have numbers in their order, which are their keys in the reactor as well and never used again. So the first
//!   in the table is the one that has waited longest, and must make room when there are too many: a proxy sends its
//!   header at once, so the newest are the likeliest to be real.
//!
//! Access lists, counts and the log do not belong here: [`admission`](super::admission) has them.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use mio::Interest;

use super::preface::{Ending, Preface, Refusal, Verdict};
use crate::net::addr::PeerAddr;
use crate::net::conn::{Conn, Received};
use crate::net::origin::Origin;
use crate::reactor::{Alarm, Context, Key, Kind, Readiness, Source};

/// The time from accept to the end of the preface. A proxy sends it at once: this leaves room for a lost packet, which
/// is sent again after one second and after three.
const PATIENCE: Duration = Duration::from_secs(5);

/// All arrivals of one door that wait for more of their preface.
#[derive(Debug)]
pub(super) struct Arrivals {
    kind: Kind,
    table: BTreeMap<u64, Arrival>,
    next_number: u64,
}

#[derive(Debug)]
struct Arrival {
    conn: Conn,
    peer: PeerAddr,
    accepted: Instant,
    /// The bytes that were read; once the preface is complete, the ones behind it.
    received: Vec<u8>,
    alarm: Alarm,
}

/// The end of an arrival. A step returns none if the arrival goes on waiting, or has ended before.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its preface is complete.
    Complete(Conn, Origin),
    /// It was closed for this reason.
    Refused(PeerAddr, Refusal),
    /// It was closed because its peer wanted nothing.
    Closed(PeerAddr),
    /// It was closed because the poll cannot watch it.
    Unwatchable(PeerAddr, io::Error),
}

/// An arrival, as the dump shows it.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors) struct ArrivalView {
    pub(in crate::doors) peer: PeerAddr,
    pub(in crate::doors) connected: Duration,
    pub(in crate::doors) received: usize,
}

impl Arrivals {
    /// No arrivals. `kind` is the kind of their sources.
    pub(super) fn new(kind: Kind) -> Self {
        Arrivals {
            kind,
            table: BTreeMap::new(),
            next_number: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn views(&self, now: Instant) -> impl Iterator<Item = ArrivalView> {
        self.table.values().map(move |arrival| ArrivalView {
            peer: arrival.peer,
            connected: now.saturating_duration_since(arrival.accepted),
            received: arrival.received.len(),
        })
    }

    /// Takes in a connection that was accepted this moment.
    pub(super) fn begin(
        &mut self,
        cx: &mut Context<'_>,
        conn: Conn,
        peer: PeerAddr,
        preface: Preface,
    ) -> Option<Outcome> {
        let mut arrival = Arrival {
            conn,
            peer,
            accepted: cx.now(),
            received: Vec::new(),
            alarm: Alarm::default(),
        };
        match arrival.read(cx, preface) {
            Verdict::NeedMore => self.add(cx, arrival),
            verdict => arrival.end(verdict),
        }
    }

    fn add(&mut self, cx: &mut Context<'_>, mut arrival: Arrival) -> Option<Outcome> {
        let number = self.next_number;
        let at = self.source(number);
        if let Err(error) = cx.register(at, &mut arrival.conn, Interest::READABLE) {
            return Some(Outcome::Unwatchable(arrival.peer, error));
        }
        cx.set_alarm(&mut arrival.alarm, at, Some(arrival.accepted + PATIENCE));
        self.next_number += 1;
        self.table.insert(number, arrival);
        None
    }

    /// Refuses the arrival that has waited longest, if more than `most` wait.
    pub(super) fn make_room(&mut self, cx: &mut Context<'_>, most: usize) -> Option<Outcome> {
        let oldest = self.table.first_key_value().map(|(number, _)| *number);
        let oldest = oldest.filter(|_| self.table.len() > most)?;
        self.end(cx, oldest, Verdict::Refuse(Refusal::Displaced))
    }

    /// Handles an event of an arrival.
    pub(super) fn ready(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        readiness: Readiness,
        preface: Preface,
    ) -> Option<Outcome> {
        if let Some(arrival) = self.table.get_mut(&key.to_bits()) {
            arrival.conn.note(readiness);
        }
        self.resume(cx, key, preface)
    }

    /// Goes on reading an arrival.
    pub(super) fn resume(&mut self, cx: &mut Context<'_>, key: Key, preface: Preface) -> Option<Outcome> {
        let number = key.to_bits();
        let at = self.source(number);
        let arrival = self.table.get_mut(&number)?;
        match arrival.read(cx, preface) {
            Verdict::NeedMore => {
                // A short read has taken all that had come; else no event tells of the rest.
                if arrival.conn.is_readable() && !arrival.conn.is_drained() {
                    cx.resume_later(at);
                }
                None
            }
            verdict => self.end(cx, number, verdict),
        }
    }

    /// Handles the deadline of an arrival. A preface that has come in time, and was not read yet, counts.
    pub(super) fn expire(&mut self, cx: &mut Context<'_>, key: Key, preface: Preface) -> Option<Outcome> {
        let number = key.to_bits();
        let arrival = self.table.get_mut(&number)?;
        cx.clear_alarm(&mut arrival.alarm);
        arrival.conn.expect_input();
        let verdict = match arrival.read(cx, preface) {
            Verdict::NeedMore => preface.judge_rest(&arrival.received, Ending::Deadline),
            verdict => verdict,
        };
        self.end(cx, number, verdict)
    }

    /// Ends an arrival that is in the table.
    fn end(&mut self, cx: &mut Context<'_>, number: u64, verdict: Verdict) -> Option<Outcome> {
        let mut arrival = self.remove(cx, number)?;
        // Its next owner registers it for events of its own. An error would mean that it is not registered.
        let _ = cx.deregister(&mut arrival.conn);
        arrival.end(verdict)
    }

    /// Gives all arrivals no longer than `by`.
    pub(super) fn hasten(&mut self, cx: &mut Context<'_>, by: Instant) {
        let kind = self.kind;
        for (number, arrival) in &mut self.table {
            let until = arrival.alarm.at().map_or(by, |until| by.min(until));
            cx.set_alarm(&mut arrival.alarm, source(kind, *number), Some(until));
        }
    }

    /// Closes the arrivals whose peer is not to stay, and returns their peers.
    pub(super) fn close(&mut self, cx: &mut Context<'_>, stays: impl Fn(PeerAddr) -> bool) -> Vec<PeerAddr> {
        let leaving = self.table.iter().filter(|(_, arrival)| !stays(arrival.peer));
        let leaving: Vec<u64> = leaving.map(|(number, _)| *number).collect();
        let closed = leaving.into_iter().filter_map(|number| self.remove(cx, number));
        closed.map(|arrival| arrival.peer).collect()
    }

    fn remove(&mut self, cx: &mut Context<'_>, number: u64) -> Option<Arrival> {
        let mut arrival = self.table.remove(&number)?;
        cx.set_alarm(&mut arrival.alarm, self.source(number), None);
        Some(arrival)
    }

    fn source(&self, number: u64) -> Source {
        source(self.kind, number)
    }
}

fn source(kind: Kind, number: u64) -> Source {
    let key = Key::from_bits(number);
    Source { kind, key }
}

impl Arrival {
    /// Reads once, and judges what has come so far.
    fn read(&mut self, cx: &mut Context<'_>, preface: Preface) -> Verdict {
        let mut buffer = cx.lend_buffer();
        let room = Preface::MOST.saturating_sub(self.received.len());
        let verdict = match self.conn.read(buffer.get_mut(..room).unwrap_or_default()) {
            Received::Nothing => Verdict::NeedMore,
            Received::Bytes(count) => self.take(buffer.get(..count).unwrap_or_default(), preface),
            Received::End => preface.judge_rest(&self.received, Ending::Closed),
            Received::Failed => Verdict::Close,
        };
        cx.return_buffer(buffer);
        verdict
    }

    fn take(&mut self, new: &[u8], preface: Preface) -> Verdict {
        self.received.extend_from_slice(new);
        let verdict = preface.judge(&self.received);
        if let Verdict::Complete { taken, .. } = verdict {
            self.received.drain(..taken);
        }
        verdict
    }

    fn end(self, verdict: Verdict) -> Option<Outcome> {
        let outcome = match verdict {
            Verdict::NeedMore => return None,
            Verdict::Complete { client, details, .. } => {
                let origin = Origin {
                    asserted: client,
                    details: details.map(Into::into),
                    ..Origin::direct(self.peer)
                };
                Outcome::Complete(self.conn.restart(self.received), origin)
            }
            Verdict::Refuse(refusal) => {
                self.conn.turn_away(&[], true);
                Outcome::Refused(self.peer, refusal)
            }
            Verdict::Close => Outcome::Closed(self.peer),
        };
        Some(outcome)
    }
}
