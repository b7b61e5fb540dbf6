//! The statistics block of an exec door, the lines of its dump, and the topics of its log lines.

use std::time::{Duration, Instant};

use super::core::arguments::Arguments;
use super::core::client::Refusal;
use super::core::counters::{Counters, Traffic};
use crate::amount;
use crate::doors::dump::{ProcessView, process};
use crate::doors::front::{self, Front};
use crate::doors::job_log::{self, Times};
use crate::doors::standstill;
use crate::stats::{Label, Snapshot};

/// The topic of a log line. Lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    ForbiddenClient,
    Refusal,
    Timeout,
    Overflow,
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
            Topic::ForbiddenClient => "connections that --allow-user and --allow-group refuse",
            Topic::Refusal => "refused requests",
            Topic::Timeout => "programs over --timeout",
            Topic::Overflow => "programs over --max-output",
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

/// Everything an exec door has to say.
pub(super) fn snapshot(
    counters: &Counters,
    traffic: Traffic,
    times: &Times,
    running: usize,
    front: &Front,
    now: Instant,
) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let refused = front.refused();
    let rows: [(Label, u64); 22] = [
        ("runs total", counters.total),
        ("runs running", as_count(running)),
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
        ("connections", as_count(front.connections())),
        ("refused denied", refused.denied),
        ("refused user", counters.forbidden_clients),
        ("refused max-conn", refused.over_total + refused.over_address),
        ("bytes stdin", traffic.input),
        ("bytes stdout", traffic.output),
        ("bytes stderr", traffic.errors),
    ];
    for (label, value) in rows {
        snapshot.count(label, value);
    }
    front.report(&mut snapshot, now);
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
