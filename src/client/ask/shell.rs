//! The only I/O of `ask`: lines come from standard input, travel on [`connections`], and answers go to standard output.
//!
//! One `match` over [`AskAction`] carries out the decisions of the asker. A line is taken from the input only while the
//! asker has room for it and standard output keeps up ([`streams`](super::streams)).

mod connections;

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use log::Level;

use super::super::server::Server;
use super::connection::{Connection, Purpose};
use super::core::{AskAction, AskEvent, Asker, Cause, Counters, Fault, LinkState};
use super::failures::{Failures, Report};
use super::options::{Mode, Policy, Privacy};
use super::reporter::{self, Reporter};
use super::resolver::{Destination, Resolved};
use super::streams::{Ends, INPUT, NextLine, RunEnd, STREAM, Streams};
use crate::reactor::helper::{Mailbox, Sender};
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Kind, Readiness, Service, Source};

const CONNECTION: Kind = Kind(0);
/// The timer of the asker's next deadline.
const TICK: Source = Source {
    kind: Kind(1),
    key: Key::ONLY,
};
/// The timer of the next report about lines that no pool has answered.
const REPORT: Source = Source {
    kind: Kind(3),
    key: Key::ONLY,
};
/// The number of lines taken in one turn, and of reads that complete none.
const LINES_PER_TURN: usize = 256;
/// The number of results of look-ups that the mailbox holds; the loop takes them all whenever it wakes.
const RESOLVED: usize = 16;

/// The service behind `iotcpd ask`.
#[derive(Debug)]
pub(super) struct Shell {
    asker: Asker,
    destinations: Vec<Destination>,
    connections: GenerationalSlab<Connection>,
    keys: HashMap<Purpose, Key>,
    /// The connections to which something was appended in this turn.
    appended: Vec<Key>,
    alarm: Alarm,
    streams: Streams,
    /// Present after [`start`](Self::start).
    look_ups: Option<LookUps>,
    /// The answer to a line that no pool has answered.
    on_failure: Vec<u8>,
    failures: Failures,
    report_alarm: Alarm,
    reporter: Reporter,
    /// The last cause of failures that was reported.
    reported: Option<Cause>,
}

/// Both ends of the channel from the threads that look up names.
#[derive(Debug)]
struct LookUps {
    resolved: Mailbox<Resolved>,
    resolved_to: Sender<Resolved>,
}

impl Shell {
    pub(super) fn new(servers: Vec<Server>, policy: Policy, privacy: Privacy, now: Instant) -> Shell {
        // Few questions go to one pool: the reports about failed lines suffice, without one about the address.
        let loudness = match (policy.mode, servers.as_slice()) {
            (Mode::Plain, [_]) => Level::Debug,
            _ => Level::Warn,
        };
        Shell {
            on_failure: policy.on_failure.clone(),
            failures: Failures::default(),
            report_alarm: Alarm::default(),
            reporter: Reporter::new(privacy, loudness),
            reported: None,
            asker: Asker::new(policy, now),
            destinations: servers.into_iter().map(Destination::new).collect(),
            connections: GenerationalSlab::default(),
            keys: HashMap::new(),
            appended: Vec::new(),
            alarm: Alarm::default(),
            streams: Streams::default(),
            look_ups: None,
        }
    }

    /// Starts to look up names, and opens the standard streams, after which lines arrive.
    ///
    /// # Errors
    /// EAGAIN if a thread cannot be created.
    pub(super) fn start(
        &mut self,
        cx: &mut Context<'_>,
        open: impl FnOnce(&mut Context<'_>) -> io::Result<Ends>,
    ) -> io::Result<()> {
        let (resolved_to, resolved) = cx.mailbox(RESOLVED);
        for (address, destination) in self.destinations.iter_mut().enumerate() {
            destination.look_up(address, &resolved_to)?;
        }
        self.look_ups = Some(LookUps { resolved, resolved_to });
        self.streams.attach(open(cx)?);
        Ok(())
    }

    /// Returns the end of the run, when it has ended.
    pub(super) fn take_end(&mut self) -> Option<RunEnd> {
        let is_answered = self.asker.lines_in_hand() == 0;
        let end = self.streams.take_end(is_answered)?;
        if is_answered {
            self.end_all();
        }
        Some(end)
    }

    /// Returns the counts of the lines so far.
    pub(super) fn counters(&self) -> Counters {
        *self.asker.counters()
    }

    /// Prints the counts of the lines so far on standard error.
    pub(super) fn print_counts(&mut self, cx: &mut Context<'_>) {
        let numbered = self.destinations.iter().enumerate();
        let links = numbered.map(|(address, destination)| (&destination.server.name, self.asker.link_state(address)));
        let text = reporter::counts_text(
            self.asker.counters(),
            self.asker.lines_in_hand(),
            self.connections.len(),
            links,
        );
        self.streams.print_counts(cx, &text);
    }

    fn handle(&mut self, cx: &mut Context<'_>, event: AskEvent<'_>) {
        self.asker.handle(cx.now(), event);
        self.carry_out(cx);
    }

    fn carry_out(&mut self, cx: &mut Context<'_>) {
        while let Some(action) = self.asker.next_action() {
            match action {
                AskAction::Connect { attempt, address } => self.connect(cx, Purpose::Single(attempt), address, 0),
                AskAction::Cancel(attempt) => self.drop_connection(Purpose::Single(attempt)),
                AskAction::Open { connection, address } => self.connect(cx, Purpose::Shared(connection), address, 0),
                AskAction::Send {
                    connection,
                    number,
                    attempt,
                } => self.append_line(connection, number, attempt),
                AskAction::Abandon { connection, number } => self.append_cancel(connection, number),
                AskAction::Finish { connection } => self.finish(connection),
                AskAction::Close { connection } => self.end_connection(connection),
                AskAction::Reset { connection } => self.drop_connection(Purpose::Shared(connection)),
                AskAction::Write(line) => self.streams.answer(&line),
                AskAction::Away { address, fault } => self.note_away(cx.now(), address, fault),
                AskAction::Probe { address } => self.look_up(cx.now(), address),
                AskAction::Back { address } => self.note_back(cx.now(), address),
                AskAction::GaveUp { cause } => self.count_failure(cx.now(), cause),
                AskAction::Contradicted => self.reporter.report_contradiction(cx.now(), self.asker.protocol()),
                AskAction::LinkChanged { address, state } => self.note_link(address, state),
            }
        }
    }

    // ---- lines without an answer -----------------------------------------------------------------------------

    fn count_failure(&mut self, now: Instant, cause: Cause) {
        if let Some(report) = self.failures.count(now, cause) {
            self.report_failures(report);
        }
    }

    fn report_failures(&mut self, report: Report) {
        let why = self.cause_text(report.cause);
        self.reported = Some(report.cause);
        self.reporter.report_failures(report, &self.on_failure, &why);
    }

    /// Reports at the end of the input how many lines no pool has answered, and how many were not asked, if any.
    pub(super) fn report_totals(&self) {
        let counters = self.asker.counters();
        self.reporter.report_contradicted_total(counters);
        if let Some(cause) = counters.last_cause {
            let why = self.unreported_cause(cause);
            self.reporter
                .report_failed_total(counters, &self.on_failure, why.as_deref());
        }
    }

    // ---- addresses -------------------------------------------------------------------------------------------

    fn look_up(&mut self, now: Instant, address: usize) {
        let (Some(destination), Some(look_ups)) = (self.destinations.get_mut(address), &self.look_ups) else {
            return;
        };
        if let Err(error) = destination.look_up(address, &look_ups.resolved_to) {
            // The next failure or probe starts it again; a line that is parked meanwhile has a deadline.
            self.reporter
                .report_unresolved(now, address, &destination.server.name, &error);
        }
    }

    fn take_resolved(&mut self, cx: &mut Context<'_>, Resolved { address, targets }: Resolved) {
        let Some(destination) = self.destinations.get_mut(address) else {
            return;
        };
        let (parked, error) = destination.take_resolved(targets);
        match &error {
            Some(error) => self
                .reporter
                .report_unresolved(cx.now(), address, &destination.server.name, error),
            None => self.reporter.note_resolved(address),
        }
        let unreachable = !destination.has_targets();
        for purpose in parked {
            if unreachable {
                self.asker.handle(cx.now(), failure(purpose, Fault::Unresolved));
            } else {
                self.connect(cx, purpose, address, 0);
            }
        }
        self.carry_out(cx);
    }

    fn note_away(&mut self, now: Instant, address: usize, fault: Fault) {
        if let Some(destination) = self.destinations.get(address) {
            self.reporter.report_away(now, address, destination, fault);
        }
        self.look_up(now, address);
    }

    fn note_back(&mut self, now: Instant, address: usize) {
        if let Some(destination) = self.destinations.get(address) {
            self.reporter.report_back(now, address, &destination.server.name);
        }
    }

    fn note_link(&self, address: usize, state: LinkState) {
        if let Some(destination) = self.destinations.get(address) {
            reporter::report_link(&destination.server.name, state);
        }
    }

    /// Returns the cause of a line's failure, for people.
    fn cause_text(&self, cause: Cause) -> String {
        let (destination, unresolved) = match cause {
            Cause::Fault(address, _) => (self.destinations.get(address), self.reporter.unreported_error(address)),
            Cause::LineTooLong | Cause::NoConnection => (None, None),
        };
        reporter::cause_text(cause, destination, unresolved)
    }

    /// Returns the cause of the last line's failure, unless the same cause was reported before.
    pub(super) fn unreported_cause(&self, cause: Cause) -> Option<String> {
        (self.reported != Some(cause)).then(|| self.cause_text(cause))
    }

    // ---- standard input --------------------------------------------------------------------------------------

    fn take_lines(&mut self, cx: &mut Context<'_>) {
        for _ in 0..LINES_PER_TURN {
            if !self.asker.has_room() || self.streams.is_full() {
                // Resumed by the answer that makes room, or when the output is written.
                return;
            }
            match self.streams.next_line(cx) {
                NextLine::Line(line) => self.handle(cx, AskEvent::Line(line)),
                NextLine::Unfinished => {}
                NextLine::Nothing => return,
            }
        }
        cx.resume_later(INPUT);
    }
}

fn source(key: Key) -> Source {
    Source { kind: CONNECTION, key }
}

/// Returns the event that a connection has failed.
fn failure(purpose: Purpose, fault: Fault) -> AskEvent<'static> {
    match purpose {
        Purpose::Single(attempt) => AskEvent::Failed(attempt, fault),
        Purpose::Shared(connection) => AskEvent::Closed(connection, fault),
    }
}

impl Service for Shell {
    fn handle_ready(&mut self, cx: &mut Context<'_>, source: Source, readiness: Readiness) {
        if source.kind == STREAM {
            return self.streams.note(source, readiness);
        }
        if let Some(connection) = self.connections.get_mut(source.key) {
            connection.conn.note(readiness);
        }
        self.advance(cx, source.key);
    }

    fn handle_timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        if source == REPORT {
            cx.clear_alarm(&mut self.report_alarm);
            if let Some(report) = self.failures.due(cx.now()) {
                self.report_failures(report);
            }
            return;
        }
        cx.clear_alarm(&mut self.alarm);
        self.handle(cx, AskEvent::Tick);
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        if source.kind == CONNECTION {
            self.advance(cx, source.key);
        }
        // The rest of the input is taken at the end of every turn.
    }

    fn receive_mail(&mut self, cx: &mut Context<'_>) {
        // The streams take their mail at the end of the turn.
        while let Some(resolved) = self.look_ups.as_ref().and_then(|it| it.resolved.take()) {
            self.take_resolved(cx, resolved);
        }
    }

    fn end_turn(&mut self, cx: &mut Context<'_>) {
        self.take_lines(cx);
        self.write_appended(cx);
        self.streams.write(cx);
        cx.set_alarm(&mut self.alarm, TICK, self.asker.next_deadline());
        cx.set_alarm(&mut self.report_alarm, REPORT, self.failures.next_deadline());
    }
}
