//! The statistics block of a tunnel door, and the topics and words of its log lines.

use std::time::{Duration, Instant};

use super::core::counters::Counters;
use super::shell::Traffic;
use crate::doors::front::{Front, Topic};
use crate::mux::core::Fault;
use crate::mux::session::End;
use crate::stats::Snapshot;

/// The topics of log lines.
pub(super) const REMOTE: Topic = Topic::new("servers that are not connected");
pub(super) const LOCAL: Topic = Topic::new("clients whose local service was not reached");
pub(super) const LIMIT: Topic = Topic::new("clients over max-streams");

/// The numbers that the door has beside its counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    /// The servers, and the ones that have a session.
    pub(super) remotes: usize,
    pub(super) up: usize,
    /// The streams that are up.
    pub(super) streams: usize,
    /// The longest of the times that the last pings took.
    pub(super) round_trip: Option<Duration>,
    pub(super) traffic: Traffic,
    /// The pipes that are open, and the large ones of them.
    pub(super) pipes: (usize, usize),
    /// The number of times that the kernel had no pipe.
    pub(super) shortages: u64,
}

/// Returns all statistics of a tunnel door.
pub(super) fn snapshot(counters: &Counters, gauges: &Gauges, front: &Front, now: Instant) -> Snapshot {
    let trip = gauges.round_trip.unwrap_or_default().as_millis();
    let rows = [
        ("remotes", as_count(gauges.remotes)),
        ("remotes up", as_count(gauges.up)),
        ("connects", counters.connects),
        ("connects failed", counters.failed),
        ("servers gone away", counters.went_away),
        ("tunnels closed", counters.closed),
        ("tunnels lost", counters.lost),
        ("tunnels silent", counters.silent),
        ("tunnels faulty", counters.faulty),
        ("round trip ms", u64::try_from(trip).unwrap_or(u64::MAX)),
        ("streams total", counters.streams),
        ("streams active", as_count(gauges.streams)),
        ("streams limited", counters.turned_away),
        ("streams refused", counters.refused),
        ("streams idle", counters.idle),
        ("bytes in", gauges.traffic.input),
        ("bytes out", gauges.traffic.output),
        ("bytes spliced", gauges.traffic.spliced),
        ("pipes", as_count(gauges.pipes.0)),
        ("pipes large", as_count(gauges.pipes.1)),
        ("pipes short", gauges.shortages),
        ("old processes", as_count(front.predecessors())),
    ];
    let mut snapshot = Snapshot::default();
    for (label, value) in rows {
        snapshot.count(label, value);
    }
    front.report(&mut snapshot, now);
    snapshot
}

/// The reason for the end of a session, for the log.
pub(super) fn ended(end: &End) -> String {
    match end {
        End::Closed => "the server has closed the tunnel".to_owned(),
        End::Cut => "the tunnel was cut in the middle of a frame".to_owned(),
        End::Failed(error) => format!("the tunnel is lost: {error}"),
        End::Fault(Fault::Silent) => "the tunnel is ended: the server does not answer through it".to_owned(),
        End::Fault(fault) => format!("the tunnel is ended: the server has sent {fault}"),
        End::Unpaid => "the tunnel is ended: a frame could not be completed".to_owned(),
    }
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
