//! The command door's words: its statistics block, its dump, and what log lines are about.

use std::time::{Duration, Instant};

use super::core::counters::{Counters, Traffic};
use super::core::scheduler::Load;
use crate::amount;
use crate::doors::dump::{ProcessView, process};
use crate::doors::front::{self, Front};
use crate::doors::job_log::{self, Times};
use crate::doors::standstill;
use crate::stats::{Label, Snapshot};

/// What a log line is about; lines on one topic are throttled together.
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

/// A command with its arguments, as a log line has it.
pub(super) fn command(name: &[u8], arguments: &[Vec<u8>], with_arguments: bool) -> String {
    let words = std::iter::once(name).chain(arguments.iter().map(Vec::as_slice));
    job_log::command(words, 1 + arguments.len(), with_arguments)
}

/// Everything a command door has to say.
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

/// One command's line in the dump.
pub(super) fn dump_command(name: &str, threads: usize, queue: usize, load: Load) -> String {
    let Load { running, waiting } = load;
    format!("{name:?} running = {running} of {threads}, waiting = {waiting} of {queue}")
}

/// The queue of one command in the dump, if there is any.
pub(super) fn dump_queue(name: &str, waiting: usize, longest: Duration) -> String {
    let longest = amount::span(longest);
    format!("queue of {name:?}: {waiting} waiting, the longest for {longest}")
}

/// A connection in the dump.
#[derive(Debug)]
pub(super) struct ClientView {
    pub(super) number: u64,
    pub(super) state: &'static str,
    /// How long it has waited for a program, if it does.
    pub(super) waits: Option<Duration>,
    pub(super) connected: Duration,
    pub(super) who: String,
    /// What it has asked for, or has; empty before it has said so.
    pub(super) command: String,
    pub(super) to_program: usize,
    pub(super) to_client: usize,
}

/// Its line.
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

/// A run in the dump.
#[derive(Debug)]
pub(super) struct RunView {
    pub(super) number: u64,
    pub(super) command: String,
    pub(super) process: Option<ProcessView>,
    /// Who has asked for it first; empty where nobody is known yet.
    pub(super) leader: String,
    pub(super) clients: usize,
}

/// Its line.
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
