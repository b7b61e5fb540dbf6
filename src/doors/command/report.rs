//! The statistics block of a command door, the lines of its dump, and the topics of its log lines.

use std::time::{Duration, Instant};

use super::core::counters::Counters;
use super::core::scheduler::Load;
use super::options::Rule;
use crate::amount;
use crate::doors::front::{Front, Topic};
use crate::doors::job_log;
use crate::doors::programs::ProgramStatistics;
use crate::stats::Snapshot;

/// The topics of log lines that this door alone writes.
pub(super) const BUSY: Topic = Topic::new("requests for busy commands");
pub(super) const NOT_FOUND: Topic = Topic::new("requests for unknown commands");
pub(super) const SPAWN: Topic = Topic::new("failed starts");
pub(super) const TIMEOUT: Topic = Topic::new("programs over their timeout");

/// Returns a command, with its arguments if wanted, for a log line.
pub(super) fn command(name: &[u8], arguments: &[Vec<u8>], with_arguments: bool) -> String {
    let words = std::iter::once(name).chain(arguments.iter().map(Vec::as_slice));
    job_log::command(words, 1 + arguments.len(), with_arguments)
}

/// Returns all statistics of a command door.
pub(super) fn snapshot(
    counters: &Counters,
    programs: &ProgramStatistics,
    load: Load,
    front: &Front,
    now: Instant,
) -> Snapshot {
    let (refused, runs, traffic) = (front.refused(), &programs.counters, programs.traffic);
    let rows = [
        ("runs total", counters.total),
        ("runs running", as_count(load.running)),
        ("runs waiting", as_count(load.waiting)),
        ("runs joined", counters.joined),
        ("runs queued", counters.queued),
        ("runs busy", counters.busy),
        ("runs not found", counters.not_found),
        ("runs refused", counters.refused),
        ("runs not started", runs.not_started),
        ("runs timeout", runs.timed_out),
        ("runs killed", runs.killed),
        ("runs vanished", counters.vanished),
        ("runs unread", counters.unread),
        ("runs cut", runs.cut),
        ("runs background", runs.background),
        ("exit zero", runs.exit_zero),
        ("exit nonzero", runs.exit_nonzero),
        ("exit signal", runs.exit_signal),
        ("connections", as_count(front.connections())),
        ("refused denied", refused.denied),
        ("refused proxy", refused.bad_header),
        ("refused tls", refused.bad_handshake),
        ("refused subject", refused.not_listed),
        ("refused max-conn", refused.over_total + refused.over_address),
        ("bytes in", traffic.input),
        ("bytes out", traffic.output),
    ];
    programs.snapshot(&rows, front, now)
}

/// Returns the line of one command in the dump.
pub(super) fn dump_command(name: &str, rule: &Rule, load: Load) -> String {
    let (Load { running, waiting }, Rule { threads, queue, .. }) = (load, rule);
    format!("{name:?} running = {running} of {threads}, waiting = {waiting} of {queue}")
}

/// Returns the line of the queue of one command in the dump.
pub(super) fn dump_queue(name: &str, waiting: usize, longest: Duration) -> String {
    let longest = amount::span(longest);
    format!("queue of {name:?}: {waiting} waiting, the longest for {longest}")
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
