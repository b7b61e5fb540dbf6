//! The log lines of `ask`: one for each event at an address, throttled like every line that others can cause.

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use log::{Level, debug, error, log, warn};

use super::core::{Cause, Counters, Fault, LinkState};
use super::failures::Report;
use super::input::LONGEST_LINE;
use super::options::Privacy;
use super::protocol::Protocol;
use super::resolver::Destination;
use crate::amount;
use crate::error::error_text;
use crate::net::addr::Connect;
use crate::stats::throttle::{Throttle, Verdict};
use crate::stats::{Snapshot, Value, text};

/// The topics that are throttled independently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Topic {
    Away(usize),
    Back(usize),
    Unresolved(usize),
    Contradiction,
}

/// Writes the log lines of one run. The number of topics is bounded by the number of addresses. The count of the
/// messages that were left out is told with the next message of the topic; if none follows, nothing has happened since.
#[derive(Debug)]
pub(super) struct Reporter {
    throttle: Throttle<Topic>,
    privacy: Privacy,
    /// The error of each address whose name cannot be resolved, as it was logged: every look-up gives the same error
    /// until something changes, and it is logged once.
    unresolved: HashMap<usize, String>,
    addresses: Level,
}

impl Reporter {
    /// `addresses` is the level for failures of addresses. The report about a failed line tells the last of them in any
    /// case.
    pub(super) fn new(privacy: Privacy, addresses: Level) -> Reporter {
        Reporter {
            throttle: Throttle::default(),
            privacy,
            unresolved: HashMap::new(),
            addresses,
        }
    }

    /// Reports lines that got the text for failures, `text`.
    pub(super) fn report_failures(&self, report: Report, text: &[u8], why: &str) {
        warn!("{}", self.failure_text(report, text, why));
    }

    fn failure_text(&self, report: Report, text: &[u8], why: &str) -> String {
        let Report { lines, span, .. } = report;
        let when = span.map_or_else(String::new, |span| format!(" in the last {}", amount::span(span)));
        let noun = if lines == 1 { "line" } else { "lines" };
        let answered = String::from_utf8_lossy(text);
        let meaning = self.meaning(text, lines);
        format!("{lines} {noun} answered {answered}{when}{meaning}: {why}")
    }

    /// Reports at the end of the input the total of lines that got the text for failures. `why` is the cause of the
    /// last one, unless it was reported before.
    pub(super) fn report_failed_total(&self, counters: &Counters, text: &[u8], why: Option<&str>) {
        let Counters { failed, lines, .. } = *counters;
        let answered = String::from_utf8_lossy(text);
        let meaning = self.meaning(text, failed);
        let because = why.map_or_else(String::new, |why| format!(", the last because: {why}"));
        warn!("{failed} of {lines} lines answered {answered} since the start{meaning}{because}");
    }

    /// Reports at the end of the input the total of lines that were not asked because of their channel-IDs.
    pub(super) fn report_contradicted_total(&self, counters: &Counters) {
        let Counters {
            contradicted, lines, ..
        } = *counters;
        if contradicted > 0 {
            error!(
                "{contradicted} of {lines} lines were not asked for their channel-IDs or the lack of them; see --channel-ids"
            );
        }
    }

    /// Returns the meaning of `text` for a Squid that filters URLs. For one that checks passwords `ERR` means something
    /// else.
    fn meaning(&self, text: &[u8], lines: u64) -> &'static str {
        match (self.privacy, text, lines) {
            (Privacy::Public, b"ERR", 1) => ", its URL passed",
            (Privacy::Public, b"ERR", _) => ", their URLs passed",
            _ => "",
        }
    }

    /// Reports a line with a channel-ID where none is expected, or without one where one is expected.
    pub(super) fn report_contradiction(&mut self, now: Instant, protocol: Protocol) {
        let (what, remedy) = match protocol {
            Protocol::Concurrent => ("does not begin with a channel-ID as those before it", "no"),
            _ => (
                "begins with what looks like a channel-ID, unlike the first",
                "yes, or no if numbers are users' names",
            ),
        };
        let what = format_args!(
            "a line {what}, and is not asked; see squid.conf for concurrency= and say --channel-ids {remedy}"
        );
        self.log_throttled(now, Topic::Contradiction, Level::Error, what);
    }

    /// Reports that an address has failed. A name that cannot be resolved was reported
    /// [before](Self::report_unresolved).
    pub(super) fn report_away(&mut self, now: Instant, address: usize, destination: &Destination, fault: Fault) {
        if fault != Fault::Unresolved {
            let (name, why) = (&destination.server.name, destination.fault_text(fault));
            let what = format_args!("{name}: {why}; it is tried again later");
            self.log_throttled(now, Topic::Away(address), self.addresses, what);
        }
    }

    /// Reports that an address that had failed has answered.
    pub(super) fn report_back(&mut self, now: Instant, address: usize, name: &Connect) {
        self.log_throttled(
            now,
            Topic::Back(address),
            self.addresses.max(Level::Info),
            format_args!("{name} answers again"),
        );
    }

    /// Reports that the name of an address cannot be resolved.
    pub(super) fn report_unresolved(&mut self, now: Instant, address: usize, name: &Connect, error: &std::io::Error) {
        let why = error_text(error);
        if self.unresolved.get(&address) == Some(&why) {
            return;
        }
        let what = format_args!("cannot resolve {name}: {why}; it is tried again later");
        self.log_throttled(now, Topic::Unresolved(address), self.addresses, what);
        self.unresolved.insert(address, why);
    }

    /// Returns the reason why the name of an address cannot be resolved, unless it was logged already.
    pub(super) fn unreported_error(&self, address: usize) -> Option<&str> {
        let untold = self.addresses > Level::Warn;
        self.unresolved.get(&address).map(String::as_str).filter(|_| untold)
    }

    /// Notes that the name of an address was resolved.
    pub(super) fn note_resolved(&mut self, address: usize) {
        self.unresolved.remove(&address);
    }

    fn log_throttled(&mut self, now: Instant, topic: Topic, level: Level, what: fmt::Arguments<'_>) {
        match self.throttle.admit(topic, now) {
            Verdict::Log { left_out: 0 } => log!(level, "{what}"),
            Verdict::Log { left_out } => log!(level, "{what} ({left_out} such messages left out before)"),
            Verdict::LeaveOut => {}
        }
    }
}

/// Reports the way in which the lines for an address travel from now on.
pub(super) fn report_link(name: &Connect, state: LinkState) {
    match state {
        LinkState::Unknown => debug!("{name} is not known yet"),
        LinkState::Multiplexed => debug!("{name} takes many lines on one connection"),
        LinkState::Single(why) => debug!("{name} gets a connection for each line: {why}"),
    }
}

/// Returns the cause of a line's failure for people. `destination` is the address in the cause; `unresolved` is the reason why
/// it cannot be resolved, unless that was logged already.
pub(super) fn cause_text(cause: Cause, destination: Option<&Destination>, unresolved: Option<&str>) -> String {
    match (cause, destination.map(|it| (&it.server.name, it))) {
        (Cause::Fault(_, Fault::Unresolved), Some((name, _))) => unresolved.map_or_else(
            || format!("{name}: {}", Fault::Unresolved),
            |why| format!("cannot resolve {name}: {why}"),
        ),
        (Cause::LineTooLong, _) => format!("it has more than {}", amount::limit(LONGEST_LINE)),
        (Cause::NoConnection, _) => "no connection came free in time".to_owned(),
        (Cause::Fault(_, Fault::Unreachable(reason)), Some((name, _))) => format!("cannot connect to {name}: {reason}"),
        (Cause::Fault(_, fault), Some((name, destination))) => format!("{name}: {}", destination.fault_text(fault)),
        (Cause::Fault(_, fault), None) => fault.to_string(),
    }
}

/// Returns the text that USR1 prints: the counts of the lines so far, in the form of a daemon's statistics, and the way in
/// which the lines for each address travel.
pub(super) fn counts_text<'a>(
    counters: &Counters,
    in_hand: usize,
    connections: usize,
    links: impl Iterator<Item = (&'a Connect, LinkState)>,
) -> String {
    let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let mut snapshot = Snapshot::default();
    snapshot.count("lines total", counters.lines);
    snapshot.count("lines answered", counters.answered);
    snapshot.count("lines failed", counters.failed);
    snapshot.count("lines misread", counters.contradicted);
    snapshot.count("lines in hand", number(in_hand));
    snapshot.count("connections", number(connections));
    snapshot.count("tried again", counters.retries);
    for (name, state) in links {
        let (label, text) = match state {
            LinkState::Unknown => ("not known yet", name.to_string()),
            LinkState::Multiplexed => ("multiplexed", name.to_string()),
            LinkState::Single(why) => ("line by line", format!("{name}: {why}")),
        };
        snapshot.push(label, Value::Text(text));
    }
    text::block(&snapshot)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::failures::WINDOW;
    use super::*;

    #[test]
    fn failed_lines_are_reported_with_their_number_and_its_meaning() {
        let told = |privacy, lines, span: Option<Duration>, text: &[u8]| {
            let cause = Cause::NoConnection;
            let report = Report { lines, span, cause };
            Reporter::new(privacy, Level::Warn).failure_text(
                report,
                text,
                "cannot connect to 10.0.0.5:9991: connection refused",
            )
        };
        let why = "cannot connect to 10.0.0.5:9991: connection refused";
        let open = Privacy::Public;
        assert_eq!(
            told(open, 37, Some(WINDOW), b"ERR"),
            format!("37 lines answered ERR in the last 10 s, their URLs passed: {why}")
        );
        assert_eq!(
            told(open, 1, None, b"ERR"),
            format!("1 line answered ERR, its URL passed: {why}")
        );
        assert_eq!(told(open, 2, None, b"BH"), format!("2 lines answered BH: {why}"));
        assert_eq!(
            told(Privacy::Confidential, 1, None, b"ERR"),
            format!("1 line answered ERR: {why}")
        );
    }
}
