//! The statistics block of a command door, the lines of its dump, and the topics of its log lines.

use std::time::{Duration, Instant};

use super::core::counters::Counters;
use super::core::scheduler::Load;
use crate::amount;
use crate::doors::dump::{ProcessView, process};
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
        ("refused max-conn", refused.over_total + refused.over_address),
        ("bytes in", traffic.input),
        ("bytes out", traffic.output),
    ];
    programs.snapshot(&rows, front, now)
}

/// Returns the line of one command in the dump.
pub(super) fn dump_command(name: &str, threads: usize, queue: usize, load: Load) -> String {
    let Load { running, waiting } = load;
    format!("{name:?} running = {running} of {threads}, waiting = {waiting} of {queue}")
}

/// Returns the line of the queue of one command in the dump.
pub(super) fn dump_queue(name: &str, waiting: usize, longest: Duration) -> String {
    let longest = amount::span(longest);
    format!("queue of {name:?}: {waiting} waiting, the longest for {longest}")
}

/// A connection, as the dump describes it.
#[derive(Debug)]
pub(super) struct ClientView {
    pub(super) number: u64,
    pub(super) state: &'static str,
    /// The time that it has waited for a program, if it still waits.
    pub(super) waits: Option<Duration>,
    pub(super) connected: Duration,
    pub(super) who: String,
    /// The command that it has asked for; empty before its name is complete.
    pub(super) command: String,
    pub(super) to_program: usize,
    pub(super) to_client: usize,
}

/// Returns the line of a connection in the dump.
pub(super) fn dump_client(view: &ClientView) -> String {
    let ClientView { number, state, who, .. } = view;
    let waits = view.waits.map(|waits| format!(", since = {} ago", amount::span(waits)));
    let (waits, connected) = (waits.unwrap_or_default(), amount::span(view.connected));
    let command = match view.command.as_str() {
        "" => "none",
        command => command,
    };
    let (to_program, to_client) = (view.to_program, view.to_client);
    format!(
        "c[{number}] state = {state}{waits}, connected for = {connected}, client = {who}, command = {command}, \
         to program = {to_program}, to client = {to_client}"
    )
}

/// A run, as the dump describes it.
#[derive(Debug)]
pub(super) struct RunView {
    pub(super) number: u64,
    pub(super) command: String,
    pub(super) process: Option<ProcessView>,
    /// The client that asked for it first; empty before one is known.
    pub(super) leader: String,
    pub(super) clients: usize,
}

/// Returns the line of a run in the dump.
pub(super) fn dump_run(view: &RunView) -> String {
    let RunView {
        number,
        command,
        clients,
        leader,
        ..
    } = view;
    let process = process(view.process.as_ref());
    format!("r[{number}] command = {command}, {process}, client = {leader}, clients = {clients}")
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
