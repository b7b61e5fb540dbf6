//! The statistics block of a command door, the lines of its dump, and the topics of its log lines.

use std::time::{Duration, Instant};

use super::core::counters::{Counters, Traffic};
use super::core::scheduler::Load;
use crate::amount;
use crate::doors::dump::{ProcessView, process};
use crate::doors::front::{self, Front};
use crate::doors::job_log::{self, Times};
use crate::doors::standstill;
use crate::stats::{Label, Snapshot};

/// The topic of a log line. Lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Busy,
    NotFound,
    Refusal,
    Spawn,
    Timeout,
    Standstill,
    Stop,
    Vanished,
    Unread,
    Cut,
    Background,
    System,
}

impl From<Topic> for front::Topic {
    fn from(topic: Topic) -> Self {
        front::Topic::new(match topic {
            Topic::Busy => "requests for busy commands",
            Topic::NotFound => "requests for unknown commands",
            Topic::Refusal => "refused requests",
            Topic::Spawn => "failed starts",
            Topic::Timeout => "programs over their timeout",
            Topic::Standstill => standstill::TOPIC,
            Topic::Stop => "programs ended by --stop-timeout",
            Topic::Vanished => "clients that have gone",
            Topic::Unread => "clients over --write-timeout",
            Topic::Cut => "outputs held open beyond --linger",
            Topic::Background => "programs that have left something in the background",
            Topic::System => "failed system calls",
        })
    }
}

/// Returns a command, with its arguments if wanted, for a log line.
pub(super) fn command(name: &[u8], arguments: &[Vec<u8>], with_arguments: bool) -> String {
    let words = std::iter::once(name).chain(arguments.iter().map(Vec::as_slice));
    job_log::command(words, 1 + arguments.len(), with_arguments)
}

/// Returns all statistics of a command door.
pub(super) fn snapshot(
    counters: &Counters,
    traffic: Traffic,
    times: &Times,
    load: Load,
    front: &Front,
    now: Instant,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let refused = front.refused();
    let rows: [(Label, u64); 23] = [
        ("runs total", counters.total),
        ("runs running", as_count(load.running)),
        ("runs waiting", as_count(load.waiting)),
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
        ("runs background", counters.background),
        ("exit zero", counters.exit_zero),
        ("exit nonzero", counters.exit_nonzero),
        ("exit signal", counters.exit_signal),
        ("connections", as_count(front.connections())),
        ("refused denied", refused.denied),
        ("refused max-conn", refused.over_total + refused.over_address),
        ("bytes in", traffic.input),
        ("bytes out", traffic.output),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
    front.report(&mut snapshot, now);
    times.report(&mut snapshot);
    snapshot
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
