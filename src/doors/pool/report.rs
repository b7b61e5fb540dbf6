//! The statistics block of a pool, and the topics and reasons of its log lines.

use std::time::{Duration, Instant};

use super::core::{Dispatcher, Refusal, Restart};
use super::options::Options;
use crate::amount;
use crate::doors::front::{self, Front};
use crate::stats::histogram::Latency;
use crate::stats::{Label, Snapshot, Value};

/// The latencies of requests that got their answer.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    /// The time from a request's arrival until a worker got it.
    wait: Latency,
    /// The time from then until the reply was whole.
    service: Latency,
    /// The sum of both.
    total: Latency,
}

impl Latencies {
    pub(super) fn record(&mut self, waited: Duration, served: Duration) {
        self.wait.record(waited);
        self.service.record(served);
        self.total.record(waited + served);
    }
}

/// The topic of a log line. Lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Refusal(Refusal),
    Restart(Restart),
    /// The loss of a worker in another way than the losses before it, whose throttling must not suppress this line.
    NewLoss(Restart),
    /// A line of a worker's standard error that workers lost before have written as well.
    Echo,
    Died,
    Background,
    RequestTooLong,
    BadRequest,
    ReadTimeout,
    WriteTimeout,
    Idle,
    Standstill,
    HungUp,
    Outgrown,
    Cleared,
    Outage,
    Recovery,
    Grown,
    Shrunk,
    Slow,
    System,
}

impl Topic {
    /// Returns the events in the plural, for the line that tells how many were suppressed.
    fn words(self) -> &'static str {
        match self {
            Topic::Refusal(_) => "refused requests",
            Topic::NewLoss(_) => "losses of workers, each in another way than the one before",
            Topic::Restart(Restart::Recycled | Restart::Spent | Restart::Asked) => "workers that are let go as planned",
            Topic::Restart(_) => "losses of workers",
            Topic::Echo => "lines that workers lost before have written as well",
            Topic::Died => "crashes in sessions",
            Topic::Background => "workers that have left something in the background",
            Topic::RequestTooLong => "requests over --max-request",
            Topic::BadRequest => "malformed requests",
            Topic::ReadTimeout => "clients over --read-timeout",
            Topic::WriteTimeout => "clients over --write-timeout",
            Topic::Idle => "idle connections",
            Topic::Standstill => "sessions whose clients sent more than --max-buffer allows and read nothing",
            Topic::HungUp => "clients that hung up",
            Topic::Outgrown => "workers over --max-rss",
            Topic::Cleared => "workers out of quarantine",
            Topic::Outage => "times in which no worker could serve",
            Topic::Recovery => "ends of such times",
            Topic::Grown => "workers started because of load",
            Topic::Shrunk => "workers let go because they were idle",
            Topic::Slow => "requests over --slow-log",
            Topic::System => "failed system calls",
        }
    }
}

impl From<Topic> for front::Topic {
    fn from(topic: Topic) -> Self {
        let variant = match topic {
            Topic::Refusal(refusal) => refusal as u8,
            Topic::Restart(restart) | Topic::NewLoss(restart) => restart as u8,
            _ => 0,
        };
        front::Topic::variant(topic.words(), variant)
    }
}

/// Returns the words for the reason why a request got no answer.
pub(super) fn refusal(reason: Refusal, options: &Options) -> String {
    let policy = &options.policy;
    match reason {
        Refusal::QueueFull => format!("{} requests wait already (--queue-size)", policy.queue_size),
        Refusal::QueueTimeout => format!(
            "no worker became free within --queue-timeout {}",
            amount::span(policy.queue_timeout)
        ),
        Refusal::BusyTimeout => format!("no answer within --busy-timeout {}", amount::span(policy.busy_timeout)),
        Refusal::WorkerDied => {
            "its worker died over it, in the middle of its reply or once too often (--retries)".to_owned()
        }
        Refusal::ReplyTooLong => format!(
            "its reply was longer than --max-reply {}",
            amount::limit(options.max_reply)
        ),
        Refusal::BadReply => format!(
            "its worker wrote no reply in --worker-reply-framing {}",
            options.framings.worker_reply
        ),
        Refusal::Shutdown => "the pool is shutting down".to_owned(),
    }
}

const WAIT: [Label; 5] = [
    "wait p50 ms",
    "wait p90 ms",
    "wait p99 ms",
    "wait p99.9 ms",
    "wait max ms",
];
const SERVICE: [Label; 5] = [
    "service p50 ms",
    "service p90 ms",
    "service p99 ms",
    "service p99.9 ms",
    "service max ms",
];
const TOTAL: [Label; 5] = [
    "total p50 ms",
    "total p90 ms",
    "total p99 ms",
    "total p99.9 ms",
    "total max ms",
];

/// The counters of sessions. They include the sessions that run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SessionTotals {
    pub(super) running: u64,
    pub(super) begun: u64,
    /// The bytes from clients to workers.
    pub(super) up: u64,
    /// The bytes from workers to clients.
    pub(super) down: u64,
}

/// The numbers that only the shell knows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    /// The number of answers that are kept, and the bytes of memory that they take.
    pub(super) cached: (usize, usize),
    pub(super) sessions: SessionTotals,
    /// The number of multiplexed connections.
    pub(super) multiplexed: usize,
}

/// Returns all statistics of a pool. The lines of iotcpd 1.1 come first, in its order; the lines that it did not have
/// follow `version`.
pub(super) fn snapshot(
    dispatcher: &Dispatcher,
    latencies: &Latencies,
    options: &Options,
    held: &Held,
    front: &Front,
    now: Instant,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    old_rows(&mut snapshot, dispatcher);
    front.report(&mut snapshot, now);
    snapshot.latency(WAIT, &latencies.wait);
    snapshot.latency(SERVICE, &latencies.service);
    snapshot.latency(TOTAL, &latencies.total);
    restart_rows(&mut snapshot, dispatcher);
    refusal_rows(&mut snapshot, dispatcher, front);
    snapshot.count("queries ahead", dispatcher.counters().ahead);
    snapshot.count("queries concurrent", dispatcher.counters().concurrent);
    snapshot.count("queries retried", dispatcher.counters().retried);
    snapshot.count("queue length", as_count(dispatcher.queue_length()));
    snapshot.count("queue highest", as_count(dispatcher.queue_peak()));
    snapshot.push("saturated seconds", Value::Seconds(dispatcher.saturated(now)));
    let workers = dispatcher.status_counts();
    snapshot.count("workers draining", workers.draining);
    snapshot.count("workers stopping", workers.stopping);
    snapshot.count("workers quarantine", workers.quarantined);
    snapshot.count("probes asked", dispatcher.counters().probes);
    size_rows(&mut snapshot, dispatcher, options);
    snapshot.count("connections", as_count(front.connections()));
    snapshot.count("closed idle", dispatcher.counters().idle_closed);
    cache_rows(&mut snapshot, dispatcher, held.cached);
    let sessions = held.sessions;
    snapshot.count("sessions", sessions.running);
    snapshot.count("sessions total", sessions.begun);
    snapshot.count("session bytes in", sessions.up);
    snapshot.count("session bytes out", sessions.down);
    multiplexed_rows(&mut snapshot, dispatcher, held.multiplexed);
    front.report_tls(&mut snapshot);
    snapshot
}

fn size_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher, options: &Options) {
    let (size, counters) = (options.policy.workers, dispatcher.counters());
    let rows: [(Label, u64); 7] = [
        ("workers current", as_count(dispatcher.places())),
        ("workers min", as_count(size.min)),
        ("workers max", as_count(size.max)),
        ("workers spare", as_count(size.spare)),
        ("workers grown", counters.grown),
        ("workers shrunk", counters.shrunk),
        ("left background", counters.background),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
}

fn old_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher) {
    let (counters, workers) = (dispatcher.counters(), dispatcher.status_counts());
    let [below_100, below_250, below_500, below_750, below_1000, longer] = counters.by_time;
    let rows: [(Label, u64); 17] = [
        ("queries total", counters.total),
        ("queries replied", counters.replied),
        ("queries delayed", counters.delayed),
        ("queries timeout", counters.hung_up),
        ("queries failed", counters.failed),
        ("queries unknown", counters.unknown),
        ("queries 0-100", below_100),
        ("queries 100-250", below_250),
        ("queries 250-500", below_500),
        ("queries 500-750", below_750),
        ("queries 750-1000", below_1000),
        ("queries 1000-", longer),
        ("daemon spawns", counters.spawns),
        ("daemon S_AVAILABLE", workers.available),
        ("daemon S_BUSY", workers.busy),
        ("daemon S_SPAWNING", workers.spawning),
        ("daemon S_STARTING", workers.starting),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
}

fn restart_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher) {
    let restarts = &dispatcher.counters().restarts;
    let rows: [(Label, u64); 12] = [
        ("restarts died", restarts.died),
        ("restarts spawn", restarts.spawn_failed),
        ("restarts start", restarts.start_timeout),
        ("restarts timeout", restarts.busy_timeout),
        ("restarts desync", restarts.desync),
        ("restarts channel", restarts.unknown_channel),
        ("restarts oversize", restarts.oversize),
        ("restarts malformed", restarts.malformed),
        ("restarts probe", restarts.quarantined),
        ("restarts recycled", restarts.recycled),
        ("restarts spent", restarts.spent),
        ("restarts asked", restarts.asked),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
}

fn refusal_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher, front: &Front) {
    let (refusals, refused) = (&dispatcher.counters().refusals, front.refused());
    let rows: [(Label, u64); 17] = [
        ("refused queue-full", refusals.queue_full),
        ("refused queue-time", refusals.queue_timeout),
        ("refused busy-time", refusals.busy_timeout),
        ("refused died", refusals.worker_died),
        ("refused long-reply", refusals.reply_too_long),
        ("refused bad-reply", refusals.bad_reply),
        ("refused shutdown", refusals.shutdown),
        ("refused long-line", refusals.request_too_long),
        ("refused bad-line", refusals.bad_request),
        ("refused slow-read", refusals.read_timeout),
        ("refused slow-write", refusals.write_timeout),
        ("refused max-conn", refused.over_total),
        ("refused max-per-ip", refused.over_address),
        ("refused denied", refused.denied),
        ("refused proxy", refused.bad_header),
        ("refused tls", refused.bad_handshake),
        ("refused subject", refused.not_listed),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
}

fn multiplexed_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher, connections: usize) {
    let counters = &dispatcher.counters().multiplexed;
    snapshot.count("multiplexed", as_count(connections));
    snapshot.count("multiplexed total", counters.connections);
    snapshot.count("multiplexed lines", counters.requests);
    snapshot.count("queries cancelled", counters.cancelled);
}

fn cache_rows(snapshot: &mut Snapshot, dispatcher: &Dispatcher, (entries, bytes): (usize, usize)) {
    let cache = &dispatcher.counters().cache;
    snapshot.count("cache hits", cache.hits);
    snapshot.count("cache misses", cache.misses);
    snapshot.count("cache shared", cache.shared);
    snapshot.count("cache entries", as_count(entries));
    snapshot.count("cache bytes", as_count(bytes));
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
