//! The only I/O of `ask`: lines come from standard input, attempts become connections, answers go to standard output.
//!
//! One `match` over [`Action`] carries out the decisions of the asker. A line is taken from the input only while the
//! asker has room for it and standard output keeps up; so the writer at the other end waits, and memory stays bounded.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::time::Instant;

use log::Level;
use mio::Interest;

use super::super::stdio::{self, Chunk};
use super::connection::{Connection, Outcome, Stage};
use super::core::{Action, Asker, AttemptId, Cause, Counters, Event, Fault};
use super::failures::{Failures, Report};
use super::input::{Line, Splitter};
use super::options::{Mode, Policy, Privacy};
use super::resolver::{Place, Resolved};
use super::words::{self, Words};
use crate::net::addr::ConnectAddr;
use crate::net::standard::Standard;
use crate::reactor::helper::{Mailbox, Sender};
use crate::reactor::slab::GenerationalSlab;
use crate::reactor::{Alarm, Context, Key, Kind, Readiness, Service, Source};

const CONNECTION: Kind = Kind(0);
/// The timer of the asker's next deadline.
const TICK: Source = Source {
    kind: Kind(1),
    key: Key::ONLY,
};
/// The input lines that remained when their share of a turn was used up.
const INPUT: Source = Source {
    kind: Kind(2),
    key: Key::ONLY,
};
/// The timer of the next report about lines that no pool has answered.
const REPORT: Source = Source {
    kind: Kind(3),
    key: Key::ONLY,
};
/// The number of lines taken in one turn.
const LINES_PER_TURN: usize = 256;
/// The number of results of look-ups that the mailbox holds; the loop takes them all whenever it wakes.
const RESOLVED: usize = 16;
/// The number of bytes waiting for standard output at which no more lines are read.
const OUTPUT_LIMIT: usize = 1024 * 1024;

/// The service behind `iotcpd ask`.
#[derive(Debug)]
pub(super) struct Shell {
    asker: Asker,
    places: Vec<Place>,
    connections: GenerationalSlab<Connection>,
    keys: HashMap<AttemptId, Key>,
    alarm: Alarm,
    input: Splitter,
    input_state: Input,
    output: Vec<u8>,
    /// Output of USR1, for standard error.
    errors: Vec<u8>,
    /// Present after [`start`](Self::start).
    threads: Option<Threads>,
    broken_output: Option<io::Error>,
    /// The answer to a line that no pool has answered.
    on_failure: Vec<u8>,
    failures: Failures,
    report: Alarm,
    words: Words,
    /// The last cause of failures that was reported.
    told: Option<Cause>,
}

/// The loop's ends of the threads.
#[derive(Debug)]
struct Threads {
    input: stdio::Input,
    output: stdio::Output,
    errors: stdio::Output,
    resolved: Mailbox<Resolved>,
    resolved_to: Sender<Resolved>,
}

#[derive(Debug)]
enum Input {
    Open,
    Ended,
    Failed(io::Error),
}

/// The end of a run.
#[derive(Debug)]
pub(super) enum End {
    /// The input has ended, and every line is answered.
    Done(Counters),
    /// Every line is answered, but the input could not be read to its end.
    InputFailed(io::Error),
    /// Standard output cannot be written.
    OutputFailed(io::Error),
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
            report: Alarm::default(),
            words: Words::new(privacy, loudness),
            told: None,
            asker: Asker::new(policy, now),
            places: addresses.into_iter().map(Place::new).collect(),
            connections: GenerationalSlab::default(),
            keys: HashMap::new(),
            alarm: Alarm::default(),
            input: Splitter::default(),
            input_state: Input::Open,
            output: Vec::new(),
            errors: Vec::new(),
            threads: None,
            broken_output: None,
        }
    }

    /// Starts the threads, after which lines arrive.
    ///
    /// # Errors
    /// EAGAIN if a thread cannot be created.
    pub(super) fn start(
        &mut self,
        cx: &Context<'_>,
        input: impl Read + Send + 'static,
        output: impl Write + Send + 'static,
    ) -> io::Result<()> {
        let (resolved_to, resolved) = cx.mailbox(RESOLVED);
        for (address, place) in self.places.iter_mut().enumerate() {
            place.look_up(address, &resolved_to)?;
        }
        self.threads = Some(Threads {
            input: stdio::Input::start(cx, input)?,
            output: stdio::Output::start(cx, "stdout", output)?,
            errors: stdio::Output::start(cx, "stderr", Standard::Error)?,
            resolved,
            resolved_to,
        });
        Ok(())
    }

    /// Returns the end of the run, when it has ended.
    pub(super) fn end(&mut self) -> Option<End> {
        if let Some(error) = self.broken_output.take() {
            return Some(End::OutputFailed(error));
        }
        let written = self.output.is_empty() && self.threads.as_ref().is_some_and(|it| it.output.is_idle());
        if !written || self.asker.lines_in_hand() > 0 || !self.input.is_drained() {
            return None;
        }
        match std::mem::replace(&mut self.input_state, Input::Ended) {
            Input::Open => {
                self.input_state = Input::Open;
                None
            }
            Input::Ended => Some(End::Done(*self.asker.counters())),
            Input::Failed(error) => Some(End::InputFailed(error)),
        }
    }

    /// Prints the counts of the lines so far on standard error.
    pub(super) fn tell_counts(&mut self) {
        let text = words::counts(
            self.asker.counters(),
            self.asker.lines_in_hand(),
            self.asker.in_flight(),
        );
        self.errors.extend_from_slice(text.as_bytes());
        self.offer_errors();
    }

    fn offer_errors(&mut self) {
        if let Some(threads) = &mut self.threads {
            threads.errors.offer(&mut self.errors);
        }
    }

    fn tell(&mut self, cx: &mut Context<'_>, event: Event) {
        self.asker.handle(cx.now(), event);
        self.act(cx);
    }

    fn act(&mut self, cx: &mut Context<'_>) {
        while let Some(action) = self.asker.next_action() {
            match action {
                Action::Connect { attempt, address } => self.connect(cx, attempt, address, 0),
                Action::Cancel(attempt) => self.cancel(attempt),
                Action::Write(line) => self.output.extend_from_slice(&line),
                Action::Away { address, fault } => self.away(cx.now(), address, fault),
                Action::Probe { address } => self.look_up(cx.now(), address),
                Action::Back { address } => self.back(cx.now(), address),
                Action::GaveUp { cause } => self.failed_line(cx.now(), cause),
                Action::Contradicted => self.words.contradicted(cx.now(), self.asker.dialect()),
            }
        }
    }

    // ---- lines without an answer -----------------------------------------------------------------------------

    fn failed_line(&mut self, now: Instant, cause: Cause) {
        if let Some(report) = self.failures.count(now, cause) {
            self.tell_failures(report);
        }
    }

    fn tell_failures(&mut self, report: Report) {
        let why = self.why(report.cause);
        self.told = Some(report.cause);
        self.words.failed(report, &self.on_failure, &why);
    }

    /// Reports at the end of the input how many lines no pool has answered, and how many were not asked, if any.
    pub(super) fn tell_the_end(&self) {
        let counters = self.asker.counters();
        self.words.contradicted_in_all(counters);
        if let Some(cause) = counters.last_cause {
            let why = self.why_untold(cause);
            self.words.failed_in_all(counters, &self.on_failure, why.as_deref());
        }
    }

    // ---- connections -----------------------------------------------------------------------------------------

    /// Connects to the target of that address that follows `refused` others.
    fn connect(&mut self, cx: &mut Context<'_>, attempt: AttemptId, address: usize, refused: usize) {
        let Some(question) = self.asker.question(attempt) else {
            return;
        };
        let Some(place) = self.places.get_mut(address) else {
            return;
        };
        if !place.has_targets() {
            place.park(attempt);
            return self.look_up(cx.now(), address);
        }
        let mut last = Fault::Unresolved;
        for refused in refused.. {
            let Some(target) = place.target(refused) else { break };
            let line = [question, b"\n"].concat();
            match Connection::begin(attempt, address, refused, target, line) {
                Ok(connection) => return self.watch(cx, connection),
                Err(fault) => last = fault,
            }
        }
        self.asker.handle(cx.now(), Event::Failed(attempt, last));
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
        match cx.register(source(key), &mut connection.stream, interest) {
            Ok(()) => {
                self.keys.insert(attempt, key);
            }
            Err(error) => {
                self.connections.remove(key);
                self.asker
                    .handle(cx.now(), Event::Failed(attempt, Fault::Shortage((&error).into())));
            }
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let before = connection.stage();
        let mut buffer = cx.lend_buffer();
        let outcome = connection.advance(&mut buffer);
        cx.return_buffer(buffer);
        if let (Stage::Connecting, Stage::Connected, Some(place)) =
            (before, connection.stage(), self.places.get_mut(connection.address))
        {
            place.prefer_next(connection.refused);
        }
        match outcome {
            Outcome::Pending => {}
            Outcome::More => cx.resume_later(source(key)),
            Outcome::Replied(reply) => {
                if let Some(connection) = self.close(key) {
                    self.tell(cx, Event::Reply(connection.attempt, reply));
                }
            }
            Outcome::Failed(fault) => self.failed(cx, key, fault),
        }
    }

    fn failed(&mut self, cx: &mut Context<'_>, key: Key, fault: Fault) {
        let Some(connection) = self.close(key) else { return };
        let Connection {
            attempt,
            address,
            refused,
            ..
        } = connection;
        let place = self.places.get(address);
        let another = place.is_some_and(|place| place.target(refused + 1).is_some());
        if matches!(fault, Fault::Unreachable(_)) && another {
            self.connect(cx, attempt, address, refused + 1);
            self.act(cx);
        } else {
            self.tell(cx, Event::Failed(attempt, fault));
        }
    }

    fn cancel(&mut self, attempt: AttemptId) {
        if let Some(key) = self.keys.get(&attempt).copied() {
            if let Some(connection) = self.close(key)
                && connection.stage() == Stage::Connecting
                && let Some(place) = self.places.get_mut(connection.address)
            {
                // Its packets seem to get lost: the next attempt begins with another target.
                place.prefer_next(connection.refused + 1);
            }
        } else {
            let _parked = self.places.iter_mut().any(|place| place.unpark(attempt));
        }
    }

    fn close(&mut self, key: Key) -> Option<Connection> {
        let connection = self.connections.remove(key)?;
        self.keys.remove(&connection.attempt);
        Some(connection)
    }

    // ---- addresses -------------------------------------------------------------------------------------------

    fn look_up(&mut self, now: Instant, address: usize) {
        let (Some(place), Some(threads)) = (self.places.get_mut(address), &self.threads) else {
            return;
        };
        if let Err(error) = place.look_up(address, &threads.resolved_to) {
            // The next failure or probe starts it again; a line that is parked meanwhile has a deadline.
            self.words.unresolved(now, address, &place.name, &error);
        }
    }

    fn resolved(&mut self, cx: &mut Context<'_>, Resolved { address, targets }: Resolved) {
        let Some(place) = self.places.get_mut(address) else {
            return;
        };
        let (parked, error) = place.resolved(targets);
        match &error {
            Some(error) => self.words.unresolved(cx.now(), address, &place.name, error),
            None => self.words.resolved(address),
        }
        let unreachable = !place.has_targets();
        for attempt in parked {
            if unreachable {
                self.asker.handle(cx.now(), Event::Failed(attempt, Fault::Unresolved));
            } else {
                self.connect(cx, attempt, address, 0);
            }
        }
        self.act(cx);
    }

    fn away(&mut self, now: Instant, address: usize, fault: Fault) {
        if let Some(place) = self.places.get(address) {
            self.words.away(now, address, &place.name, fault);
        }
        self.look_up(now, address);
    }

    fn back(&mut self, now: Instant, address: usize) {
        if let Some(place) = self.places.get(address) {
            self.words.back(now, address, &place.name);
        }
    }

    /// Returns the cause of a line's failure, for people.
    fn why(&self, cause: Cause) -> String {
        let (name, unresolved) = match cause {
            Cause::Fault(address, _) => (
                self.places.get(address).map(|place| &place.name),
                self.words.why_unresolved(address),
            ),
            Cause::LineTooLong | Cause::NoConnection => (None, None),
        };
        words::why(cause, name, unresolved)
    }

    /// Returns the cause of the last line's failure, unless the same cause was reported before.
    pub(super) fn why_untold(&self, cause: Cause) -> Option<String> {
        (self.told != Some(cause)).then(|| self.why(cause))
    }

    // ---- standard input and output ---------------------------------------------------------------------------

    fn take_lines(&mut self, cx: &mut Context<'_>) {
        for _ in 0..LINES_PER_TURN {
            if !self.asker.has_room() || self.output.len() >= OUTPUT_LIMIT {
                // Resumed by the answer that makes room, or by the report of the writer.
                return;
            }
            let Some(line) = self.next_line() else { return };
            self.tell(cx, Event::Line(line));
        }
        cx.resume_later(INPUT);
    }

    fn next_line(&mut self) -> Option<Line> {
        loop {
            if let Some(line) = self.input.next_line() {
                return Some(line);
            }
            if !matches!(self.input_state, Input::Open) {
                return self.input.last_line();
            }
            match self.threads.as_ref()?.input.take()? {
                Chunk::Bytes(bytes) => self.input.push(bytes),
                Chunk::End => self.input_state = Input::Ended,
                Chunk::Failed(error) => self.input_state = Input::Failed(error),
            }
        }
    }

    fn written(&mut self, written: io::Result<Vec<u8>>) {
        match written {
            Ok(buffer) if self.output.is_empty() => self.output = buffer,
            Ok(_) => {}
            Err(error) => self.broken_output = Some(error),
        }
    }
}

fn source(key: Key) -> Source {
    Source { kind: CONNECTION, key }
}

impl Service for Shell {
    fn ready(&mut self, cx: &mut Context<'_>, source: Source, _: Readiness) {
        self.advance(cx, source.key);
    }

    fn timeout(&mut self, cx: &mut Context<'_>, source: Source) {
        if source == REPORT {
            cx.alarm_fired(&mut self.report);
            if let Some(report) = self.failures.due(cx.now()) {
                self.tell_failures(report);
            }
            return;
        }
        cx.alarm_fired(&mut self.alarm);
        self.tell(cx, Event::Tick);
    }

    fn resume(&mut self, cx: &mut Context<'_>, source: Source) {
        if source.kind == CONNECTION {
            self.advance(cx, source.key);
        }
        // The rest of the input is taken at the end of every turn.
    }

    fn mail(&mut self, cx: &mut Context<'_>) {
        while let Some(written) = self.threads.as_mut().and_then(|it| it.output.report()) {
            self.written(written);
        }
        // An error of standard error cannot be reported anywhere.
        while self.threads.as_mut().and_then(|it| it.errors.report()).is_some() {}
        self.offer_errors();
        while let Some(resolved) = self.threads.as_ref().and_then(|it| it.resolved.take()) {
            self.resolved(cx, resolved);
        }
    }

    fn turn_end(&mut self, cx: &mut Context<'_>) {
        self.take_lines(cx);
        if let Some(threads) = &mut self.threads {
            threads.output.offer(&mut self.output);
        }
        cx.set_alarm(&mut self.alarm, TICK, self.asker.next_deadline());
        cx.set_alarm(&mut self.report, REPORT, self.failures.next_deadline());
    }
}
