//! The only I/O of `ask`: lines come from standard input, attempts become connections, answers go to standard output.
//!
//! One `match` over [`AskAction`] carries out the decisions of the asker. A line is taken from the input only while the
//! asker has room for it and standard output keeps up ([`streams`](super::streams)).

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use log::Level;
use mio::Interest;

use super::connection::{AttemptProgress, Connection};
use super::core::{AskAction, AskEvent, Asker, AttemptId, Cause, Counters, Fault};
use super::failures::{Failures, Report};
use super::options::{Mode, Policy, Privacy};
use super::reporter::{self, Reporter};
use super::resolver::{Destination, Resolved};
use super::streams::{Ends, INPUT, NextLine, RunEnd, STREAM, Streams};
use crate::net::addr::ConnectAddr;
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
    keys: HashMap<AttemptId, Key>,
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
    pub(super) fn new(addresses: Vec<ConnectAddr>, policy: Policy, privacy: Privacy, now: Instant) -> Shell {
        // Few questions go to one pool: the reports about failed lines suffice, without one about the address.
        let loudness = match (policy.mode, addresses.as_slice()) {
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
            destinations: addresses.into_iter().map(Destination::new).collect(),
            connections: GenerationalSlab::default(),
            keys: HashMap::new(),
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
        self.streams.take_end(self.asker.lines_in_hand() == 0)
    }

    /// Returns the counts of the lines so far.
    pub(super) fn counters(&self) -> Counters {
        *self.asker.counters()
    }

    /// Prints the counts of the lines so far on standard error.
    pub(super) fn print_counts(&mut self, cx: &mut Context<'_>) {
        let text = reporter::counts_text(
            self.asker.counters(),
            self.asker.lines_in_hand(),
            self.asker.in_flight(),
        );
        self.streams.print_counts(cx, &text);
    }

    fn handle(&mut self, cx: &mut Context<'_>, event: AskEvent) {
        self.asker.handle(cx.now(), event);
        self.carry_out(cx);
    }

    fn carry_out(&mut self, cx: &mut Context<'_>) {
        while let Some(action) = self.asker.next_action() {
            match action {
                AskAction::Connect { attempt, address } => self.connect(cx, attempt, address, 0),
                AskAction::Cancel(attempt) => self.cancel(attempt),
                AskAction::Write(line) => self.streams.answer(&line),
                AskAction::Away { address, fault } => self.note_away(cx.now(), address, fault),
                AskAction::Probe { address } => self.look_up(cx.now(), address),
                AskAction::Back { address } => self.note_back(cx.now(), address),
                AskAction::GaveUp { cause } => self.count_failure(cx.now(), cause),
                AskAction::Contradicted => self.reporter.report_contradiction(cx.now(), self.asker.protocol()),
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

    // ---- connections -----------------------------------------------------------------------------------------

    /// Connects to the target of that address that follows `refused` others.
    fn connect(&mut self, cx: &mut Context<'_>, attempt: AttemptId, address: usize, refused: usize) {
        let Some(question) = self.asker.question(attempt) else {
            return;
        };
        let Some(destination) = self.destinations.get_mut(address) else {
            return;
        };
        if !destination.has_targets() {
            destination.park(attempt);
            return self.look_up(cx.now(), address);
        }
        let mut last = Fault::Unresolved;
        for refused in refused.. {
            let Some(target) = destination.target(refused) else {
                break;
            };
            match Connection::begin(attempt, address, refused, target, question) {
                Ok(connection) => return self.watch(cx, connection),
                Err(fault) => last = fault,
            }
        }
        self.asker.handle(cx.now(), AskEvent::Failed(attempt, last));
    }

    fn watch(&mut self, cx: &mut Context<'_>, connection: Connection) {
        let attempt = connection.attempt;
        let Ok(key) = self.connections.insert(connection) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        match cx.register(source(key), &mut connection.conn, interest) {
            Ok(()) => {
                self.keys.insert(attempt, key);
            }
            Err(error) => {
                self.connections.remove(key);
                self.asker
                    .handle(cx.now(), AskEvent::Failed(attempt, Fault::Shortage((&error).into())));
            }
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let was_connecting = connection.conn.is_connecting();
        let mut buffer = cx.lend_buffer();
        let outcome = connection.advance(&mut buffer);
        cx.return_buffer(buffer);
        let is_established = was_connecting && !connection.conn.is_connecting();
        if is_established && let Some(destination) = self.destinations.get_mut(connection.address) {
            destination.prefer_next(connection.refused);
        }
        match outcome {
            AttemptProgress::Pending => {}
            AttemptProgress::More => cx.resume_later(source(key)),
            AttemptProgress::Replied(reply) => {
                if let Some(connection) = self.close(key) {
                    self.handle(cx, AskEvent::Reply(connection.attempt, reply));
                }
            }
            AttemptProgress::Failed(fault) => self.fail_attempt(cx, key, fault),
        }
    }

    fn fail_attempt(&mut self, cx: &mut Context<'_>, key: Key, fault: Fault) {
        let Some(connection) = self.close(key) else { return };
        let Connection {
            attempt,
            address,
            refused,
            ..
        } = connection;
        let destination = self.destinations.get(address);
        let another = destination.is_some_and(|destination| destination.target(refused + 1).is_some());
        if matches!(fault, Fault::Unreachable(_)) && another {
            self.connect(cx, attempt, address, refused + 1);
            self.carry_out(cx);
        } else {
            self.handle(cx, AskEvent::Failed(attempt, fault));
        }
    }

    fn cancel(&mut self, attempt: AttemptId) {
        if let Some(key) = self.keys.get(&attempt).copied() {
            if let Some(connection) = self.close(key)
                && connection.conn.is_connecting()
                && let Some(destination) = self.destinations.get_mut(connection.address)
            {
                // Its packets seem to get lost: the next attempt begins with another target.
                destination.prefer_next(connection.refused + 1);
            }
        } else {
            let _parked = self.destinations.iter_mut().any(|it| it.unpark(attempt));
        }
    }

    fn close(&mut self, key: Key) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        self.keys.remove(&connection.attempt);
        Some(connection)
    }

    // ---- addresses -------------------------------------------------------------------------------------------

    fn look_up(&mut self, now: Instant, address: usize) {
        let (Some(destination), Some(look_ups)) = (self.destinations.get_mut(address), &self.look_ups) else {
            return;
        };
        if let Err(error) = destination.look_up(address, &look_ups.resolved_to) {
            // The next failure or probe starts it again; a line that is parked meanwhile has a deadline.
            self.reporter.report_unresolved(now, address, &destination.name, &error);
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
                .report_unresolved(cx.now(), address, &destination.name, error),
            None => self.reporter.note_resolved(address),
        }
        let unreachable = !destination.has_targets();
        for attempt in parked {
            if unreachable {
                self.asker
                    .handle(cx.now(), AskEvent::Failed(attempt, Fault::Unresolved));
            } else {
                self.connect(cx, attempt, address, 0);
            }
        }
        self.carry_out(cx);
    }

    fn note_away(&mut self, now: Instant, address: usize, fault: Fault) {
        if let Some(destination) = self.destinations.get(address) {
            self.reporter.report_away(now, address, &destination.name, fault);
        }
        self.look_up(now, address);
    }

    fn note_back(&mut self, now: Instant, address: usize) {
        if let Some(destination) = self.destinations.get(address) {
            self.reporter.report_back(now, address, &destination.name);
        }
    }

    /// Returns the cause of a line's failure, for people.
    fn cause_text(&self, cause: Cause) -> String {
        let (name, unresolved) = match cause {
            Cause::Fault(address, _) => (
                self.destinations.get(address).map(|destination| &destination.name),
                self.reporter.unreported_error(address),
            ),
            Cause::LineTooLong | Cause::NoConnection => (None, None),
        };
        reporter::cause_text(cause, name, unresolved)
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
        self.streams.write(cx);
        cx.set_alarm(&mut self.alarm, TICK, self.asker.next_deadline());
        cx.set_alarm(&mut self.report_alarm, REPORT, self.failures.next_deadline());
    }
}
