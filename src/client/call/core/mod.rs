//! The decisions of `call`: [`CallEvent`] in, [`CallAction`]s out, the time an argument, no socket in sight.
//!
//! ```text
//! Connecting ─connected─▸ Running ─end, failure, EPIPE─▸ Concluding ─all written─▸ Over
//!     └─ signal ───────────┴─ second signal ─────────────┴─ signal ───────────────▸
//! ```
//!
//! Invariants, for any events in any order (`tests.rs` tries them):
//! - There is one outcome. Only an output that cannot be written changes it, and everything that came before it is
//!   written first; only a signal cuts that short.
//! - Memory is bounded: input is wanted only while most of the input before it has been sent, and the server is read
//!   only while most of its output has been written.
//! - Every wait has a deadline, except for a running program and for a reader of its output, which may take any time: a
//!   signal ends both.

mod answer;
mod connector;
mod outgoing;

use std::time::{Duration, Instant};

pub use answer::{AnswerError, AnswerReader, Finding, Output, ProgramEnd};

use crate::framing::signals::{HUP, INT, PIPE, QUIT, TERM};
use connector::Connector;
use outgoing::Outgoing;

/// The exit status of every failure that is not the program's own, as for env(1) and timeout(1).
pub const FAILED: u8 = 125;
/// The base that a shell adds to the number of a signal that killed a program.
const SIGNALLED: u8 = 128;
/// The number of bytes of unwritten output at which the server is no longer read.
const OUTPUT_LIMIT: usize = 128 * 1024;
/// The time within which a signal that is to end the program must be sent: a program that does not read its input may
/// hold up everything after that input.
const PATIENCE: Duration = Duration::from_secs(1);

/// An event that the shell reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallEvent<'a> {
    /// The address was resolved to this number of targets, at least one.
    Targets(usize),
    /// The address could not be resolved, for this reason.
    Unresolved(String),
    /// The target has accepted the connection.
    Connected,
    /// The target has not accepted the connection.
    NotConnected(ConnectError),
    /// Bytes of standard input. Only allowed while they are [wanted](Call::wants_input).
    Input(&'a [u8]),
    /// Standard input has ended.
    InputEnd,
    /// No thread could be created to read standard input, for this reason.
    InputFailed(String),
    /// This number of the [bytes to send](CallAction::Send) was sent.
    Sent(usize),
    /// The server accepts no more bytes. Its answer up to now may still arrive.
    SendFailed,
    /// Bytes from the server. Only allowed while they are [wanted](Call::wants_answer).
    Received(&'a [u8]),
    /// The connection is closed, with the error if there was one.
    Closed(Option<String>),
    /// The server or this side has found a fault in what the other does by TLS.
    TlsFailed(String),
    /// An output cannot be written.
    OutputFailed(Output, WriteError),
    /// All output that was pending has been written.
    Flushed,
    /// This process got a signal, one of [`PASSED_ON`](crate::framing::signals::PASSED_ON).
    Signal(i32),
    /// The terminal of this process is gone, and the program would have been hung up with it.
    TerminalGone,
    /// The time is that of [`Call::deadline`]. An early tick changes nothing.
    Tick,
}

/// The reason why there is no connection to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// The queue of connections is full, and may have room later.
    Full,
    /// The two sides do not agree on TLS, for this reason.
    Tls(String),
    /// A permanent failure, with its text.
    Other(String),
}

/// The reason why an output cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// The reader has closed it.
    BrokenPipe,
    /// Another error, such as a full disk.
    Other(String),
}

/// An action for the shell. Actions must be carried out in the given order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallAction {
    /// Connect to the target with this index.
    Connect(usize),
    /// Stop connecting to the present target.
    GiveUp,
    /// Send these bytes to the server, behind those before.
    Send(Vec<u8>),
    /// Start to read standard input.
    ReadInput,
    /// Close the connection, in whatever state the server is.
    HangUp,
}

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program has ended.
    Ended(ProgramEnd),
    /// This signal ended the call before the program had ended.
    Interrupted(i32),
    /// The reader of the output has gone.
    BrokenPipe,
    /// The call failed.
    Failed(Failure),
}

/// A failure that is not the program's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The address could not be resolved.
    Unresolved(String),
    /// No connection could be made.
    Unreachable(String),
    /// The two sides do not agree on TLS, for this reason. With TLS 1.3 the server judges the certificate of this side
    /// only when this side takes the connection for established.
    Tls(String),
    /// There was no connection within the time-out.
    TimedOut,
    /// The queue of connections stayed full.
    Full,
    /// The connection ended before the end of the program was reported.
    Lost(Option<String>),
    /// The bytes of the server are no answer.
    Malformed(AnswerError),
    /// There was no thread to read standard input.
    Input(String),
    /// An output cannot be written.
    Output(Output, String),
}

impl Outcome {
    /// Returns the exit status.
    pub fn status(&self) -> u8 {
        let signalled = |number| SIGNALLED.saturating_add(number);
        match self {
            Outcome::Ended(ProgramEnd::Exit(status)) => *status,
            Outcome::Ended(ProgramEnd::Killed { number, .. }) => signalled(number.unwrap_or(0)),
            Outcome::Interrupted(number) => signalled(u8::try_from(*number).unwrap_or(0)),
            Outcome::BrokenPipe => signalled(u8::try_from(PIPE).unwrap_or(0)),
            Outcome::Failed(_) => FAILED,
        }
    }
}

/// The input for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputSource {
    /// Standard input, as it comes.
    Standard,
    /// No input: it ends at once.
    None,
}

/// One call: from the request for a program to the end of it.
#[derive(Debug)]
pub struct Call {
    state: CallState,
    /// The output to be written next, to standard output and standard error.
    batches: [Vec<u8>; 2],
    /// True for each output that cannot be written any more.
    broken: [bool; 2],
}

#[derive(Debug)]
enum CallState {
    Connecting {
        connector: Connector,
        outgoing: Outgoing,
        /// The bytes to be sent first.
        request: Vec<u8>,
        input: InputSource,
    },
    Running(Running),
    /// The outcome is settled; the output that came before it is being written.
    Concluding(Outcome),
    Over(Outcome),
}

#[derive(Debug)]
struct Running {
    /// `None` after the server stopped accepting bytes.
    outgoing: Option<Outgoing>,
    answer: AnswerReader,
    /// The signals by which the program was asked to end.
    sent_signals: Vec<i32>,
    /// The time by which the last of them must have been sent.
    send_by: Option<Instant>,
}

impl Call {
    /// Creates a call of the program with these arguments, the first of which is its name.
    pub fn new(arguments: &[Vec<u8>], input: InputSource, connect_timeout: Duration, now: Instant) -> Call {
        let (mut outgoing, mut request) = Outgoing::new(arguments);
        if input == InputSource::None {
            request.extend(outgoing.end_input());
        }
        Call {
            state: CallState::Connecting {
                connector: Connector::new(connect_timeout, now),
                outgoing,
                request,
                input,
            },
            batches: [Vec::new(), Vec::new()],
            broken: [false, false],
        }
    }

    // ---- queries of the shell ----------------------------------------------------------------------------------

    /// Returns the outcome, once there is nothing left to do.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            CallState::Over(outcome) => Some(outcome),
            CallState::Connecting { .. } | CallState::Running(_) | CallState::Concluding(_) => None,
        }
    }

    /// Returns the time at which [`CallEvent::Tick`] is needed.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            CallState::Connecting { connector, .. } => Some(connector.deadline()),
            CallState::Running(running) => running.send_by,
            CallState::Concluding(_) | CallState::Over(_) => None,
        }
    }

    /// Returns true if more of standard input may be read.
    pub fn wants_input(&self) -> bool {
        match &self.state {
            CallState::Running(running) => running.outgoing.as_ref().is_some_and(Outgoing::wants_input),
            CallState::Connecting { .. } | CallState::Concluding(_) | CallState::Over(_) => false,
        }
    }

    /// Returns true if more of the server's answer may be read.
    pub fn wants_answer(&self) -> bool {
        let held: usize = self.batches.iter().map(Vec::len).sum();
        matches!(self.state, CallState::Running(_)) && held < OUTPUT_LIMIT
    }

    /// Returns the output to be written next. The caller must leave it empty after it has taken the bytes.
    pub fn batch(&mut self, output: Output) -> &mut Vec<u8> {
        let [stdout, stderr] = &mut self.batches;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    // ---- events ------------------------------------------------------------------------------------------------

    /// Processes an event at the time `now` and returns the actions to take.
    pub fn handle(&mut self, event: CallEvent<'_>, now: Instant) -> Vec<CallAction> {
        match event {
            CallEvent::OutputFailed(output, broken) => self.fail_output(output, broken),
            CallEvent::TerminalGone if self.outcome().is_none() => self.interrupt(HUP),
            event => match &mut self.state {
                CallState::Connecting { .. } => self.handle_connecting(event, now),
                CallState::Running(_) => self.handle_running(event, now),
                CallState::Concluding(_) => self.handle_concluding(event),
                // The call is over.
                CallState::Over(_) => Vec::new(),
            },
        }
    }

    fn handle_connecting(&mut self, event: CallEvent<'_>, now: Instant) -> Vec<CallAction> {
        let CallState::Connecting {
            connector,
            outgoing,
            request,
            input,
        } = &mut self.state
        else {
            return Vec::new();
        };
        let step = match event {
            CallEvent::Targets(count) => connector.start(count, now),
            CallEvent::NotConnected(refused) => connector.handle_refused(refused, now),
            CallEvent::Tick => connector.handle_tick(now),
            CallEvent::Unresolved(why) => Err(Failure::Unresolved(why)),
            // No program runs yet that could get the signal.
            CallEvent::Signal(number) => return self.interrupt(number),
            CallEvent::Connected => {
                let mut actions = vec![CallAction::Send(std::mem::take(request))];
                if *input == InputSource::Standard {
                    actions.push(CallAction::ReadInput);
                }
                self.state = CallState::Running(Running {
                    outgoing: Some(outgoing.clone()),
                    answer: AnswerReader::default(),
                    sent_signals: Vec::new(),
                    send_by: None,
                });
                return actions;
            }
            // Nothing is read, sent or written yet. The last two do not come here.
            CallEvent::Input(_)
            | CallEvent::InputEnd
            | CallEvent::InputFailed(_)
            | CallEvent::Sent(_)
            | CallEvent::SendFailed
            | CallEvent::Received(_)
            | CallEvent::Closed(_)
            | CallEvent::TlsFailed(_)
            | CallEvent::Flushed
            | CallEvent::OutputFailed(..)
            | CallEvent::TerminalGone => Ok(Vec::new()),
        };
        step.unwrap_or_else(|failure| self.conclude(Outcome::Failed(failure)))
    }

    fn handle_running(&mut self, event: CallEvent<'_>, now: Instant) -> Vec<CallAction> {
        let CallState::Running(running) = &mut self.state else {
            return Vec::new();
        };
        match event {
            CallEvent::Input(bytes) => return running.send(|outgoing| outgoing.input(bytes)),
            CallEvent::InputEnd => return running.send(Outgoing::end_input),
            CallEvent::Sent(count) => {
                if let Some(outgoing) = &mut running.outgoing {
                    outgoing.note_sent(count);
                    if outgoing.is_empty() {
                        running.send_by = None;
                    }
                }
            }
            // The server may have sent its reason before.
            CallEvent::SendFailed => running.outgoing = None,
            CallEvent::InputFailed(why) => return self.conclude(Outcome::Failed(Failure::Input(why))),
            CallEvent::Received(bytes) => return self.take_received(bytes),
            CallEvent::TlsFailed(why) => return self.conclude(Outcome::Failed(Failure::Tls(why))),
            CallEvent::Closed(why) => return self.conclude(Outcome::Failed(Failure::Lost(why))),
            CallEvent::Signal(number) => return self.pass_signal(number, now),
            CallEvent::Tick if running.send_by.is_some_and(|until| now >= until) => {
                let last = running.sent_signals.last().copied().unwrap_or(TERM);
                return self.interrupt(last);
            }
            // An early tick.
            CallEvent::Tick => {}
            // More output may follow.
            CallEvent::Flushed => {}
            // The connection is there already.
            CallEvent::Targets(_) | CallEvent::Unresolved(_) | CallEvent::Connected | CallEvent::NotConnected(_) => {}
            // These do not come here.
            CallEvent::OutputFailed(..) | CallEvent::TerminalGone => {}
        }
        Vec::new()
    }

    fn take_received(&mut self, bytes: &[u8]) -> Vec<CallAction> {
        let mut rest = bytes;
        while let CallState::Running(running) = &mut self.state {
            let (taken, found) = running.answer.advance(rest);
            match found {
                Finding::NeedMore => break,
                Finding::Output(output, place) => self.append(output, rest.get(place).unwrap_or_default()),
                Finding::End(end) => {
                    if let ProgramEnd::Killed { name, number } = &end {
                        let number = number.map(|number| number.to_string());
                        let line = format!("// killed by signal {}\n", number.as_ref().unwrap_or(name));
                        self.append(Output::Stderr, line.as_bytes());
                    }
                    return self.conclude(Outcome::Ended(end));
                }
                Finding::Invalid(wrong) => return self.conclude(Outcome::Failed(Failure::Malformed(wrong))),
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        Vec::new()
    }

    /// Passes a signal on. A signal that is to end the program ends the call when it is repeated, and so does a signal
    /// that cannot be passed on. All other signals are passed on as often as they come.
    fn pass_signal(&mut self, number: i32, now: Instant) -> Vec<CallAction> {
        let CallState::Running(running) = &mut self.state else {
            return Vec::new();
        };
        if running.outgoing.is_none() || running.sent_signals.contains(&number) {
            return self.interrupt(number);
        }
        if [INT, QUIT, TERM].contains(&number) {
            running.sent_signals.push(number);
            running.send_by.get_or_insert(now + PATIENCE);
        }
        running.send(|outgoing| outgoing.signal(number))
    }

    fn handle_concluding(&mut self, event: CallEvent<'_>) -> Vec<CallAction> {
        match event {
            CallEvent::Flushed => {
                if let CallState::Concluding(outcome) = &self.state {
                    self.state = CallState::Over(outcome.clone());
                }
                Vec::new()
            }
            // The reader of the output does not read, and nothing else is left that could be ended.
            CallEvent::Signal(number) => self.interrupt(number),
            // The connection and the input no longer matter. The last two do not come here.
            CallEvent::Targets(_)
            | CallEvent::Unresolved(_)
            | CallEvent::Connected
            | CallEvent::NotConnected(_)
            | CallEvent::Input(_)
            | CallEvent::InputEnd
            | CallEvent::InputFailed(_)
            | CallEvent::Sent(_)
            | CallEvent::SendFailed
            | CallEvent::Received(_)
            | CallEvent::Closed(_)
            | CallEvent::TlsFailed(_)
            | CallEvent::Tick
            | CallEvent::OutputFailed(..)
            | CallEvent::TerminalGone => Vec::new(),
        }
    }

    fn fail_output(&mut self, output: Output, broken: WriteError) -> Vec<CallAction> {
        let [stdout, stderr] = &mut self.broken;
        *(match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }) = true;
        self.batch(output).clear();
        let outcome = match broken {
            WriteError::BrokenPipe => Outcome::BrokenPipe,
            WriteError::Other(why) => Outcome::Failed(Failure::Output(output, why)),
        };
        match &self.state {
            CallState::Over(_) | CallState::Concluding(Outcome::Failed(_) | Outcome::BrokenPipe) => Vec::new(),
            CallState::Connecting { .. }
            | CallState::Running(_)
            | CallState::Concluding(Outcome::Ended(_) | Outcome::Interrupted(_)) => self.conclude(outcome),
        }
    }

    fn append(&mut self, output: Output, bytes: &[u8]) {
        let [stdout, stderr] = self.broken;
        let broken = match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        };
        if !broken {
            self.batch(output).extend_from_slice(bytes);
        }
    }

    fn conclude(&mut self, outcome: Outcome) -> Vec<CallAction> {
        self.state = CallState::Concluding(outcome);
        vec![CallAction::HangUp]
    }

    fn interrupt(&mut self, number: i32) -> Vec<CallAction> {
        self.state = CallState::Over(Outcome::Interrupted(number));
        vec![CallAction::HangUp]
    }
}

impl Running {
    /// Sends the bytes that `make` returns, unless the server accepts no more.
    fn send(&mut self, make: impl FnOnce(&mut Outgoing) -> Vec<u8>) -> Vec<CallAction> {
        let bytes = self.outgoing.as_mut().map(make).unwrap_or_default();
        if bytes.is_empty() {
            return Vec::new();
        }
        vec![CallAction::Send(bytes)]
    }
}

#[cfg(test)]
mod tests;
