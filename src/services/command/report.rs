//! The command door's words: its statistics block, its dump, and what log lines are about.

use std::fmt;
use std::time::Duration;

use super::core::counters::{Counters, Traffic};
use super::core::scheduler::Load;
use crate::stats::histogram::Latency;
use crate::stats::{Label, Snapshot, Value};

/// A name or an argument is shown up to so many bytes, and so many of them.
const SHOWN_BYTES: usize = 200;
const SHOWN_ARGUMENTS: usize = 16;

/// How long things took.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// Starting a program: until its exec had succeeded.
    pub(super) spawn: Latency,
    /// From a program's start until it was reaped.
    pub(super) run: Latency,
    /// From the decision to start a program until the first byte that it put out, if it put out any.
    pub(super) first_byte: Latency,
}

/// What there is at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) connections: usize,
    pub(super) load: Load,
    pub(super) uptime: Duration,
}

/// What a log line is about; lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Denied,
    MaxConnections,
    MaxConnectionsPerIp,
    Busy,
    NotFound,
    Refusal,
    Spawn,
    Timeout,
    Stop,
    Vanished,
    Unread,
    Cut,
    Accept,
    Guard,
    System,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Topic::Denied => "connections that the access lists refuse",
            Topic::MaxConnections => "connections over max-connections",
            Topic::MaxConnectionsPerIp => "connections over max-connections-per-ip",
            Topic::Busy => "requests for busy commands",
            Topic::NotFound => "requests for unknown commands",
            Topic::Refusal => "refused requests",
            Topic::Spawn => "failed starts",
            Topic::Timeout => "programs over their timeout",
            Topic::Stop => "programs ended by stop-timeout",
            Topic::Vanished => "clients that have gone",
            Topic::Unread => "clients over write-timeout",
            Topic::Cut => "outputs held open beyond linger",
            Topic::Accept => "pauses in accepting",
            Topic::Guard => "messages about the guard process",
            Topic::System => "failed system calls",
        })
    }
}

/// A command with its arguments, as a log line has it: nothing in it breaks the line, and its length is bounded.
pub(super) fn command(name: &[u8], arguments: &[Vec<u8>], with_arguments: bool) -> String {
    let number = if with_arguments { SHOWN_ARGUMENTS } else { 0 };
    let words = std::iter::once(name).chain(arguments.iter().take(number).map(Vec::as_slice));
    let shown = words.map(|word| match word.get(..SHOWN_BYTES) {
        Some(begin) => format!("{:?}...", String::from_utf8_lossy(begin)),
        None => format!("{:?}", String::from_utf8_lossy(word)),
    });
    let mut text = shown.collect::<Vec<_>>().join(" ");
    if with_arguments && arguments.len() > number {
        text.push_str(&format!(" and {} more", arguments.len() - number));
    }
    text
}

/// Everything a command door has to say.
pub(super) fn snapshot(counters: &Counters, traffic: Traffic, times: &Times, name: &str, present: Present) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let rows: [(Label, u64); 23] = [
        ("runs total", counters.total),
        ("runs running", as_count(present.load.running)),
        ("runs waiting", as_count(present.load.waiting)),
        ("runs joined", counters.joined),
        ("runs queued", counters.queued),
        ("runs busy", counters.busy),
        ("runs not found", counters.not_found),
        ("runs refused", counters.refused),
        ("runs not started", counters.not_started),
        ("runs timeout", counters.timed_out),
        ("runs killed", counters.killed),
        ("runs vanished", counters.vanished),
        ("runs unread", counters.unread),
        ("runs cut", counters.cut),
        ("exit zero", counters.exit_zero),
        ("exit nonzero", counters.exit_nonzero),
        ("exit signal", counters.exit_signal),
        ("connections", as_count(present.connections)),
        ("refused denied", counters.denied),
        ("refused max-conn", counters.over_limit),
        ("bytes in", traffic.input),
        ("bytes out", traffic.output),
        ("uptime", present.uptime.as_secs()),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
    snapshot.push("version", Value::Text(env!("CARGO_PKG_VERSION").to_owned()));
    snapshot.push("name", Value::Text(name.to_owned()));
    let labels = [
        [
            "spawn p50 ms",
            "spawn p90 ms",
            "spawn p99 ms",
            "spawn p99.9 ms",
            "spawn max ms",
        ],
        [
            "first p50 ms",
            "first p90 ms",
            "first p99 ms",
            "first p99.9 ms",
            "first max ms",
        ],
        ["run p50 ms", "run p90 ms", "run p99 ms", "run p99.9 ms", "run max ms"],
    ];
    for (labels, latency) in labels.into_iter().zip([&times.spawn, &times.first_byte, &times.run]) {
        let seen = latency.percentiles();
        let values = [seen.p50, seen.p90, seen.p99, seen.p999, seen.max];
        for (label, value) in labels.into_iter().zip(values) {
            snapshot.push(label, Value::Milliseconds(value));
        }
    }
    snapshot
}

/// One command's line in the dump.
pub(super) fn dump_command(name: &str, threads: usize, queue: usize, load: Load) -> String {
    let Load { running, waiting } = load;
    format!("{name:?} running = {running} of {threads}, waiting = {waiting} of {queue}\n")
}

/// One connection's line in the dump.
pub(super) fn dump_client(number: u64, state: &str, to_program: usize, to_client: usize) -> String {
    format!("c[{number}] state = {state}, to program = {to_program}, to client = {to_client}\n")
}

/// One run's line in the dump.
pub(super) fn dump_run(number: u64, command: &str, pid: i32, age: Duration, clients: usize) -> String {
    let age = age.as_secs_f64();
    format!("r[{number}] command = {command}, pid = {pid}, seconds = {age:.3}, clients = {clients}\n")
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_one_bounded_line_without_its_arguments_if_so_wished() {
        let words = |text: &str| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(command(b"a", &words("b\nc"), true), r#""a" "b\nc""#);
        assert_eq!(command(b"a", &words("b\nc"), false), r#""a""#);
        let long = vec![vec![b'x'; 10_000]; 100];
        let text = command(b"x", &long, true);
        assert!(text.len() < 4000 && text.ends_with("... and 84 more"), "{text}");
    }
}
