//! The statistics block of an exec door, the lines of its dump, and the topics of its log lines.

use std::time::Instant;

use super::core::arguments::Arguments;
use super::core::client::Refusal;
use super::core::counters::Counters;
use crate::doors::front::{Front, Topic};
use crate::doors::programs::ProgramStatistics;
use crate::doors::{job_log, standstill};
use crate::stats::Snapshot;

/// The topics of log lines that this door alone writes.
pub(super) const FORBIDDEN_CLIENT: Topic = Topic::new("connections that --allow-user and --allow-group refuse");
pub(super) const TIMEOUT: Topic = Topic::new("programs over --timeout");

/// Returns the reason why a client gets no program, or not all of one's output.
pub(super) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::Wrong(wrong) => format!("malformed request: {wrong}"),
        Refusal::TooSlow => "the arguments were not complete in time (--read-timeout)".to_owned(),
        Refusal::Standstill => standstill::REASON.to_owned(),
        Refusal::Stop => "the server is shutting down".to_owned(),
        Refusal::Unkillable => "the program does not end, not even when it is killed".to_owned(),
    }
}

/// Returns a program, with its arguments if wanted, for a log line.
pub(super) fn command(arguments: &Arguments, with_arguments: bool) -> String {
    job_log::command(arguments.words(), arguments.given(), with_arguments)
}

/// Gives up whatever of them no log line shows.
pub(super) fn keep_shown(arguments: &mut Arguments) {
    // A word that is cut off is told by being longer than what is shown of it.
    arguments.shorten(job_log::SHOWN_WORDS, job_log::SHOWN_BYTES + 1);
}

/// Returns all statistics of an exec door, in which this number of programs runs.
pub(super) fn snapshot(
    counters: &Counters,
    programs: &ProgramStatistics,
    running: usize,
    front: &Front,
    now: Instant,
) -> Snapshot {
    let (refused, runs, traffic) = (front.refused(), &programs.counters, programs.traffic);
    let rows = [
        ("runs total", counters.total),
        ("runs running", as_count(running)),
        ("runs not started", runs.not_started),
        ("runs forbidden", counters.forbidden_programs),
        ("runs refused", counters.refused),
        ("runs timeout", runs.timed_out),
        ("runs overflown", runs.overflown),
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
        ("refused user", counters.forbidden_clients),
        ("refused max-conn", refused.over_total + refused.over_address),
        ("bytes stdin", traffic.input),
        ("bytes stdout", traffic.output),
        ("bytes stderr", traffic.errors),
    ];
    programs.snapshot(&rows, front, now)
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
