//! The statistics block of a route door, and the topics and words of its log lines.

use std::time::{Duration, Instant};

use super::core::counters::Counters;
use super::core::starter;
use super::shell::Traffic;
use super::tunnel_report::TunnelCounts;
use crate::doors::front::{Front, Topic};
use crate::stats::histogram::Latency;
use crate::stats::{Label, Labels, Snapshot};

/// The topics of log lines.
pub(super) const SYSTEM: Topic = Topic::new("failed system calls");
pub(super) const OPENING: Topic = Topic::new("connections with bad first bytes");
pub(super) const NAME: Topic = Topic::new("connections for unknown names");
pub(super) const REQUEST: Topic = Topic::new("connections with bad requests");
pub(super) const ANSWER: Topic = Topic::new("connections with bad answers");
pub(super) const SERVER: Topic = Topic::new("changes of servers");
pub(super) const HOST: Topic = Topic::new("hosts that cannot be looked up");
pub(super) const HAND_OVER: Topic = Topic::new("connections that another door could not take");
pub(super) const STORE: Topic = Topic::new("remarks on the store");
pub(super) const ENTRY: Topic = Topic::new("remarks on entries of the store");
pub(super) const PROGRAM: Topic = Topic::new("programs of servers that have failed");
pub(super) const TUNNEL: Topic = Topic::new("remarks on tunnel clients");
pub(super) const TUNNEL_BEGUN: Topic = Topic::new("tunnel clients that have connected");
pub(super) const TUNNEL_ENDED: Topic = Topic::new("tunnel clients that have left");
pub(super) const TUNNEL_REFUSED: Topic = Topic::new("refused tunnel clients");
pub(super) const CONNECT: Topic = Topic::new("connections whose server was not reached");

const HELLO_TIMES: Labels = [
    "hello p50 ms",
    "hello p90 ms",
    "hello p99 ms",
    "hello p99.9 ms",
    "hello max ms",
];
const CONNECT_TIMES: Labels = [
    "connect p50 ms",
    "connect p90 ms",
    "connect p99 ms",
    "connect p99.9 ms",
    "connect max ms",
];

const PING_TIMES: Labels = [
    "ping p50 ms",
    "ping p90 ms",
    "ping p99 ms",
    "ping p99.9 ms",
    "ping max ms",
];

/// The times that connections took.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// From the accept until the server was chosen.
    pub(super) hello: Latency,
    /// From then on until a server was connected.
    pub(super) connect: Latency,
    /// From a ping through a tunnel to its answer.
    pub(super) ping: Latency,
}

impl Times {
    fn report(&self, snapshot: &mut Snapshot) {
        snapshot.latency(HELLO_TIMES, &self.hello);
        snapshot.latency(CONNECT_TIMES, &self.connect);
        snapshot.latency(PING_TIMES, &self.ping);
    }
}

/// The numbers that the door has beside its counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gauges {
    /// The routes that go both ways.
    pub(super) active: usize,
    /// The names in the table of the file.
    pub(super) names: usize,
    /// The servers in use, and those of them that are out.
    pub(super) backends: (usize, usize),
    /// The servers that are checked.
    pub(super) checked: usize,
    /// The numbers of programs, and the programs that run.
    pub(super) programs: (starter::Counts, usize),
    /// The pipes that are open, and the large ones of them.
    pub(super) pipes: (usize, usize),
    /// The number of times that the kernel had no pipe.
    pub(super) shortages: u64,
    /// The look-ups of hosts that have ended, and those of them that have failed.
    pub(super) names_looked_up: (u64, u64),
    pub(super) traffic: Traffic,
    pub(super) store: StoreCounts,
    /// The sessions of tunnel clients, and the streams that connections have of them.
    pub(super) tunnels: (usize, usize),
    pub(super) tunnel_counts: TunnelCounts,
}

/// The numbers of the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StoreCounts {
    /// The names in its table.
    pub(super) names: usize,
    /// The time since its table was last known to be that of the store; none without a table.
    pub(super) age: Duration,
    /// The readings, full ones and those of changes.
    pub(super) readings: u64,
    /// The readings that were not believed.
    pub(super) doubted: u64,
    /// The attempts to connect and the connections that have failed.
    pub(super) errors: u64,
    /// The entries that cannot be used.
    pub(super) bad: usize,
}

/// Returns all statistics of a route door.
pub(super) fn snapshot(counters: &Counters, gauges: &Gauges, times: &Times, front: &Front, now: Instant) -> Snapshot {
    let (refused, traffic, store) = (front.refused(), gauges.traffic, gauges.store);
    let rows = [
        ("connect failed", counters.connect_failed),
        ("connect late", counters.connect_late),
        ("connect again", counters.connect_again),
        ("connect expected", counters.expected),
        ("connect passed", counters.passed),
        ("connect no tls", counters.connect_no_tls),
        ("backends known", as_count(gauges.backends.0)),
        ("backends out", as_count(gauges.backends.1)),
        ("checked", as_count(gauges.checked)),
        ("checks", counters.checks),
        ("checks failed", counters.checks_failed),
        ("programs started", gauges.programs.0.started),
        ("programs running", as_count(gauges.programs.1)),
        ("programs failed", gauges.programs.0.failed),
    ];
    let others = [
        ("relay idle", counters.relay_idle),
        ("relay cut client", counters.relay_cut_client),
        ("relay cut server", counters.relay_cut_server),
        ("bytes in", traffic.input),
        ("bytes out", traffic.output),
        ("bytes spliced", traffic.spliced),
        ("pipes", as_count(gauges.pipes.0)),
        ("pipes large", as_count(gauges.pipes.1)),
        ("pipes short", gauges.shortages),
        ("table names", as_count(gauges.names)),
        ("store names", as_count(store.names)),
        ("store age s", store.age.as_secs()),
        ("store readings", store.readings),
        ("store doubted", store.doubted),
        ("store errors", store.errors),
        ("store bad", as_count(store.bad)),
        ("names looked up", gauges.names_looked_up.0),
        ("names failed", gauges.names_looked_up.1),
        ("old processes", as_count(front.predecessors())),
        ("connections", as_count(front.connections())),
        ("refused denied", refused.denied),
        ("refused proxy", refused.bad_header),
        ("refused tls", refused.bad_handshake),
        ("refused subject", refused.not_listed),
        ("refused max-conn", refused.over_total + refused.over_address),
    ];
    let mut snapshot = Snapshot::default();
    let rows = rows.into_iter().chain(of_tunnels(gauges)).chain(others);
    for (label, value) in decided(counters, gauges).into_iter().chain(rows) {
        snapshot.count(label, value);
    }
    front.report(&mut snapshot, now);
    times.report(&mut snapshot);
    front.report_tls(&mut snapshot);
    snapshot
}

/// The statistics of the decisions about connections and requests.
fn decided(counters: &Counters, gauges: &Gauges) -> [(Label, u64); 20] {
    [
        ("routes total", counters.total),
        ("routes active", as_count(gauges.active)),
        ("routes tls", counters.tls),
        ("routes http", counters.http),
        ("routes plain", counters.plain),
        ("routes postgresql", counters.postgres),
        ("routes catch-all", counters.catch_all),
        ("routes ech", counters.ech),
        ("routes redirected", counters.redirected),
        ("routes handed over", counters.handed_over),
        ("hand-overs failed", counters.hand_over_failed),
        ("requests", counters.requests),
        ("misdirected", counters.misdirected),
        ("answers bad", counters.answers_bad),
        ("hello bad", counters.hello_bad),
        ("hello slow", counters.hello_slow),
        ("hello left", counters.hello_left),
        ("head bad", counters.head_bad),
        ("head slow", counters.head_slow),
        ("name unknown", counters.name_unknown),
    ]
}

/// The statistics of tunnel clients.
fn of_tunnels(gauges: &Gauges) -> [(Label, u64); 13] {
    let tunnels = &gauges.tunnel_counts;
    [
        ("tunnels", as_count(gauges.tunnels.0)),
        ("tunnel streams", as_count(gauges.tunnels.1)),
        ("tunnels total", tunnels.total),
        ("tunnels refused", tunnels.refused),
        ("tunnels closed", tunnels.closed),
        ("tunnels lost", tunnels.lost),
        ("tunnels silent", tunnels.silent),
        ("tunnels faulty", tunnels.faulty),
        ("streams total", tunnels.streams),
        ("streams reset", tunnels.resets),
        ("streams evicted", tunnels.evicted),
        ("tunnel bytes in", tunnels.input),
        ("tunnel bytes out", tunnels.output),
    ]
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
