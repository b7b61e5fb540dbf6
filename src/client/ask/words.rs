//! What the log hears: a line for each thing that happens to an address, throttled like everything that others can cause.

use std::fmt;
use std::time::Instant;

use log::{Level, log};

use super::core::{Cause, Counters, Fault};
use super::input::LONGEST_LINE;
use crate::net::addr::ConnectAddr;
use crate::stats::throttle::{Throttle, Verdict};
use crate::stats::{Snapshot, text};

/// What is throttled by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Away(usize),
    Back(usize),
    Unresolved(usize),
}

/// The voice of one run. The topics are bounded by the number of addresses; what was left out is told with the next
/// message of its topic, or never: then nothing has happened since.
#[derive(Debug, Default)]
pub(super) struct Words {
    throttle: Throttle<Topic>,
}

impl Words {
    /// An address has failed.
    pub(super) fn away(&mut self, now: Instant, address: usize, name: &ConnectAddr, fault: Fault) {
        let what = format_args!("{name}: {fault}; it is tried again later");
        self.say(now, Topic::Away(address), Level::Warn, what);
    }

    /// An address that had failed has answered.
    pub(super) fn back(&mut self, now: Instant, address: usize, name: &ConnectAddr) {
        self.say(
            now,
            Topic::Back(address),
            Level::Info,
            format_args!("{name} answers again"),
        );
    }

    /// A name stands for nothing, or nobody could say for what.
    pub(super) fn unresolved(&mut self, now: Instant, address: usize, name: &ConnectAddr, error: &std::io::Error) {
        let what = format_args!("cannot resolve {name}: {error}; it is tried again later");
        self.say(now, Topic::Unresolved(address), Level::Warn, what);
    }

    fn say(&mut self, now: Instant, topic: Topic, level: Level, what: fmt::Arguments<'_>) {
        match self.throttle.admit(topic, now) {
            Verdict::Log { left_out: 0 } => log!(level, "{what}"),
            Verdict::Log { left_out } => log!(level, "{what} ({left_out} such messages left out before)"),
            Verdict::LeaveOut => {}
        }
    }
}

/// Why a line got the text for failures; `name` is that of the address in the cause.
pub(super) fn why(cause: Cause, name: Option<&ConnectAddr>) -> String {
    match (cause, name) {
        (Cause::LineTooLong, _) => format!("it has more than {LONGEST_LINE} bytes"),
        (Cause::NoConnection, _) => "no connection came free in time".to_owned(),
        (Cause::Fault(_, fault), Some(name)) => format!("{name}: {fault}"),
        (Cause::Fault(_, fault), None) => fault.to_string(),
    }
}

/// What USR1 prints: what became of the lines so far, as a daemon prints its statistics.
pub(super) fn counts(counters: &Counters, in_hand: usize, in_flight: usize) -> String {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut snapshot = Snapshot::default();
    snapshot.count("lines total", counters.lines);
    snapshot.count("lines answered", counters.answered);
    snapshot.count("lines failed", counters.failed);
    snapshot.count("lines in hand", number(in_hand));
    snapshot.count("connections", number(in_flight));
    text::block(&snapshot)
}
