//! The exec door's words: its statistics block, its dump, and what log lines are about.

use std::fmt;
use std::time::Duration;

use super::core::arguments::Arguments;
use super::core::client::Refusal;
use super::core::counters::{Counters, Traffic};
use crate::amount;
use crate::doors::dump::{ProcessView, process};
use crate::doors::on_request::{self, Times};
use crate::doors::standstill;
use crate::stats::{Label, Snapshot};

/// What there is at the moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Present {
    pub(super) connections: usize,
    pub(super) running: usize,
    pub(super) uptime: Duration,
}

/// What a log line is about; lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    Denied,
    ForbiddenClient,
    MaxConnections,
    MaxConnectionsPerIp,
    Refusal,
    Timeout,
    Overflow,
    Standstill,
    Stop,
    Vanished,
    Unread,
    Cut,
    Background,
    Accept,
    System,
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Topic::Denied => "connections that the access lists refuse",
            Topic::ForbiddenClient => "connections that --allow-user and --allow-group refuse",
            Topic::MaxConnections => "connections over --max-connections",
            Topic::MaxConnectionsPerIp => "connections over --max-connections-per-ip",
            Topic::Refusal => "refused requests",
            Topic::Timeout => "programs over --timeout",
            Topic::Overflow => "programs over --max-output",
            Topic::Standstill => standstill::TOPIC,
            Topic::Stop => "programs ended by --stop-timeout",
            Topic::Vanished => "clients that have gone",
            Topic::Unread => "clients over --write-timeout",
            Topic::Cut => "outputs held open beyond --linger",
            Topic::Background => "programs that have left something in the background",
            Topic::Accept => "pauses in accepting",
            Topic::System => "failed system calls",
        })
    }
}

/// Why a client gets no program, or not the end of one.
pub(super) fn refusal(refusal: Refusal) -> String {
    match refusal {
        Refusal::Wrong(wrong) => format!("malformed request: {wrong}"),
        Refusal::TooSlow => "the arguments were not complete in time (--read-timeout)".to_owned(),
        Refusal::Standstill => standstill::REASON.to_owned(),
        Refusal::Stop => "the server is shutting down".to_owned(),
        Refusal::Unkillable => "the program does not end, not even when it is killed".to_owned(),
    }
}

/// A program with its arguments, as a log line has it.
pub(super) fn command(arguments: &Arguments, with_arguments: bool) -> String {
    on_request::command(arguments.words(), arguments.given(), with_arguments)
}

/// Gives up whatever of them no log line shows.
pub(super) fn keep_shown(arguments: &mut Arguments) {
    // A word that is cut off is told by being longer than what is shown of it.
    arguments.shorten(on_request::SHOWN_WORDS, on_request::SHOWN_BYTES + 1);
}

/// Everything an exec door has to say.
pub(super) fn snapshot(counters: &Counters, traffic: Traffic, times: &Times, name: &str, present: Present) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let rows: [(Label, u64); 22] = [
        ("runs total", counters.total),
        ("runs running", as_count(present.running)),
        ("runs not started", counters.not_started),
        ("runs forbidden", counters.forbidden_programs),
        ("runs refused", counters.refused),
        ("runs timeout", counters.timed_out),
        ("runs overflown", counters.overflown),
        ("runs killed", counters.killed),
        ("runs vanished", counters.vanished),
        ("runs unread", counters.unread),
        ("runs cut", counters.cut),
        ("runs background", counters.background),
        ("exit zero", counters.exit_zero),
        ("exit nonzero", counters.exit_nonzero),
        ("exit signal", counters.exit_signal),
        ("connections", as_count(present.connections)),
        ("refused denied", counters.denied),
        ("refused user", counters.forbidden_clients),
        ("refused max-conn", counters.over_limit),
        ("bytes stdin", traffic.input),
        ("bytes stdout", traffic.output),
        ("bytes stderr", traffic.errors),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
    on_request::report_service(&mut snapshot, present.uptime, name);
    times.report(&mut snapshot);
    snapshot
}

/// A connection in the dump.
#[derive(Debug)]
pub(super) struct ConnectionView {
    pub(super) number: usize,
    pub(super) state: &'static str,
    pub(super) process: Option<ProcessView>,
    pub(super) connected: Duration,
    pub(super) who: String,
    /// Empty before it has asked for one.
    pub(super) program: String,
    pub(super) to_program: usize,
    pub(super) to_client: usize,
}

/// Its line.
pub(super) fn dump(view: &ConnectionView) -> String {
    let ConnectionView { number, state, who, .. } = view;
    let process = process(view.process.as_ref());
    let connected = amount::span(view.connected);
    let program = match view.program.as_str() {
        "" => "none",
        program => program,
    };
    let (to_program, to_client) = (view.to_program, view.to_client);
    format!(
        "c[{number}] state = {state}, {process}, connected for = {connected}, client = {who}, program = {program}, \
         to program = {to_program}, to client = {to_client}"
    )
}

fn as_count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
