//! The decisions of `call`: [`Event`] in, [`Action`]s out, the time an argument, no socket in sight.
//!
//! ```text
//! Connecting ─connected─▸ Running ─end told, failure, EPIPE─▸ Concluding ─all written─▸ Over
//!     └─ signal ───────────┴─ second signal ──────────────────┴─ signal ───────────────▸
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
mod connecting;
mod sending;

use std::time::{Duration, Instant};

pub use answer::{End, Found, Output, Reader, Wrong};

use crate::framing::signals::{HUP, INT, PIPE, QUIT, TERM};
use connecting::Connecting;
use sending::Sending;

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
pub enum Event<'a> {
    /// The address was resolved to this number of targets, at least one.
    Targets(usize),
    /// The address could not be resolved, for this reason.
    Unresolved(String),
    /// The target has accepted the connection.
    Connected,
    /// The target has not accepted the connection.
    NotConnected(Refused),
    /// Bytes of standard input. Only allowed while they are [wanted](Call::wants_input).
    Input(&'a [u8]),
    /// Standard input has ended.
    InputEnd,
    /// No thread could be created to read standard input, for this reason.
    InputFailed(String),
    /// This number of the [bytes to send](Call::to_send) was sent.
    Sent(usize),
    /// The server accepts no more bytes. Its answer up to now may still arrive.
    SendFailed,
    /// Bytes from the server. Only allowed while they are [wanted](Call::wants_answer).
    Received(&'a [u8]),
    /// The connection is closed, with the error if there was one.
    Closed(Option<String>),
    /// An output cannot be written.
    OutputFailed(Output, Broken),
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
pub enum Refused {
    /// The queue of connections is full, and may have room later.
    Full,
    /// A permanent failure, with its text.
    Other(String),
}

/// The reason why an output cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// The reader has closed it.
    Pipe,
    /// Another error, such as a full disk.
    Other(String),
}

/// An action for the shell. Actions must be carried out in the given order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to the target with this index.
    Connect(usize),
    /// Stop connecting to the present target.
    GiveUp,
    /// Start to read standard input.
    ReadInput,
    /// Close the connection, in whatever state the server is.
    HangUp,
}

/// The outcome of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program has ended.
    Ended(End),
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
    /// There was no connection within the time-out.
    TimedOut,
    /// The queue of connections stayed full.
    Full,
    /// The connection ended before the end of the program was reported.
    Lost(Option<String>),
    /// The bytes of the server are no answer.
    Malformed(Wrong),
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
            Outcome::Ended(End::Exit(status)) => *status,
            Outcome::Ended(End::Killed { number, .. }) => signalled(number.unwrap_or(0)),
            Outcome::Interrupted(number) => signalled(u8::try_from(*number).unwrap_or(0)),
            Outcome::BrokenPipe => signalled(u8::try_from(PIPE).unwrap_or(0)),
            Outcome::Failed(_) => FAILED,
        }
    }
}

/// The input for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Standard input, as it comes.
    Standard,
    /// No input: it ends at once.
    None,
}

/// One call: from the request for a program to the end of it.
#[derive(Debug)]
pub struct Call {
    state: State,
    /// The output to be written next, to standard output and standard error.
    batches: [Vec<u8>; 2],
    /// True for each output that cannot be written any more.
    broken: [bool; 2],
}

#[derive(Debug)]
enum State {
    Connecting {
        way: Connecting,
        request: Sending,
        input: Input,
    },
    Running(Running),
    /// The outcome is settled; the output that came before it is being written.
    Concluding(Outcome),
    Over(Outcome),
}

#[derive(Debug)]
struct Running {
    /// `None` after the server stopped accepting bytes.
    sending: Option<Sending>,
    answer: Reader,
    /// The signals by which the program was asked to end.
    asked: Vec<i32>,
    /// The time by which the last of them must have been sent.
    until: Option<Instant>,
}

impl Call {
    /// Creates a call of the program with these arguments, the first of which is its name.
    pub fn new(arguments: &[Vec<u8>], input: Input, connect_timeout: Duration, now: Instant) -> Call {
        let mut request = Sending::of(arguments);
        if input == Input::None {
            request.end_input();
        }
        Call {
            state: State::Connecting {
                way: Connecting::new(connect_timeout, now),
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
            State::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Returns the time at which [`Event::Tick`] is needed.
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { way, .. } => Some(way.deadline()),
            State::Running(running) => running.until,
            State::Concluding(_) | State::Over(_) => None,
        }
    }

    /// Returns true if more of standard input may be read.
    pub fn wants_input(&self) -> bool {
        self.sending().is_some_and(Sending::wants_input)
    }

    /// Returns true if more of the server's answer may be read.
    pub fn wants_answer(&self) -> bool {
        let held: usize = self.batches.iter().map(Vec::len).sum();
        matches!(self.state, State::Running(_)) && held < OUTPUT_LIMIT
    }

    /// Returns the next bytes to send to the server.
    pub fn to_send(&self) -> &[u8] {
        self.sending().map(Sending::bytes).unwrap_or_default()
    }

    /// Returns the output to be written next. The caller must leave it empty after it has taken the bytes.
    pub fn batch(&mut self, output: Output) -> &mut Vec<u8> {
        let [stdout, stderr] = &mut self.batches;
        match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }
    }

    fn sending(&self) -> Option<&Sending> {
        match &self.state {
            State::Running(running) => running.sending.as_ref(),
            _ => None,
        }
    }

    // ---- events ------------------------------------------------------------------------------------------------

    /// Processes an event at the time `now` and returns the actions to take.
    pub fn handle(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        match event {
            Event::OutputFailed(output, broken) => self.output_failed(output, broken),
            Event::TerminalGone if self.outcome().is_none() => self.interrupted(HUP),
            event => match &mut self.state {
                State::Connecting { .. } => self.connecting(event, now),
                State::Running(_) => self.running(event, now),
                State::Concluding(_) => self.concluding(event),
                // The call is over.
                State::Over(_) => Vec::new(),
            },
        }
    }

    fn connecting(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        let State::Connecting { way, request, input } = &mut self.state else {
            return Vec::new();
        };
        let step = match event {
            Event::Targets(count) => way.found(count, now),
            Event::NotConnected(refused) => way.refused(refused, now),
            Event::Tick => way.tick(now),
            Event::Unresolved(why) => Err(Failure::Unresolved(why)),
            // No program runs yet that could get the signal.
            Event::Signal(number) => return self.interrupted(number),
            Event::Connected => {
                let running = Running {
                    sending: Some(request.clone()),
                    answer: Reader::default(),
                    asked: Vec::new(),
                    until: None,
                };
                let reads = *input == Input::Standard;
                self.state = State::Running(running);
                return if reads { vec![Action::ReadInput] } else { Vec::new() };
            }
            // Nothing is read, sent or written yet.
            _ => Ok(Vec::new()),
        };
        step.unwrap_or_else(|failure| self.conclude(Outcome::Failed(failure)))
    }

    fn running(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        let State::Running(running) = &mut self.state else {
            return Vec::new();
        };
        match event {
            Event::Input(bytes) => running.send(|sending| sending.input(bytes)),
            Event::InputEnd => running.send(Sending::end_input),
            Event::Sent(count) => {
                running.send(|sending| sending.sent(count));
                if running.sending.as_ref().is_some_and(Sending::is_empty) {
                    running.until = None;
                }
            }
            // The server may have sent its reason before.
            Event::SendFailed => running.sending = None,
            Event::InputFailed(why) => return self.conclude(Outcome::Failed(Failure::Input(why))),
            Event::Received(bytes) => return self.received(bytes),
            Event::Closed(why) => return self.conclude(Outcome::Failed(Failure::Lost(why))),
            Event::Signal(number) => return self.signal(number, now),
            Event::Tick if running.until.is_some_and(|until| now >= until) => {
                let last = running.asked.last().copied().unwrap_or(TERM);
                return self.interrupted(last);
            }
            // An early tick; events of connecting; `Flushed` while more output may follow.
            _ => {}
        }
        Vec::new()
    }

    fn received(&mut self, bytes: &[u8]) -> Vec<Action> {
        let mut rest = bytes;
        while let State::Running(running) = &mut self.state {
            let (taken, found) = running.answer.advance(rest);
            match found {
                Found::NeedMore => break,
                Found::Output(output, place) => self.append(output, rest.get(place).unwrap_or_default()),
                Found::End(end) => {
                    if let End::Killed { name, number } = &end {
                        let number = number.map(|number| number.to_string());
                        let line = format!("// killed by signal {}\n", number.as_ref().unwrap_or(name));
                        self.append(Output::Stderr, line.as_bytes());
                    }
                    return self.conclude(Outcome::Ended(end));
                }
                Found::Wrong(wrong) => return self.conclude(Outcome::Failed(Failure::Malformed(wrong))),
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
        Vec::new()
    }

    /// Passes a signal on. A signal that is to end the program ends the call when it is repeated, and so does a signal
    /// that cannot be passed on. All other signals are passed on as often as they come.
    fn signal(&mut self, number: i32, now: Instant) -> Vec<Action> {
        let State::Running(running) = &mut self.state else {
            return Vec::new();
        };
        let Some(sending) = running.sending.as_mut().filter(|_| !running.asked.contains(&number)) else {
            return self.interrupted(number);
        };
        sending.signal(number);
        if [INT, QUIT, TERM].contains(&number) {
            running.asked.push(number);
            running.until.get_or_insert(now + PATIENCE);
        }
        Vec::new()
    }

    fn concluding(&mut self, event: Event<'_>) -> Vec<Action> {
        match event {
            Event::Flushed => {
                if let State::Concluding(outcome) = &self.state {
                    self.state = State::Over(outcome.clone());
                }
                Vec::new()
            }
            // The reader of the output does not read, and nothing else is left that could be ended.
            Event::Signal(number) => self.interrupted(number),
            // The connection and the input no longer matter.
            _ => Vec::new(),
        }
    }

    fn output_failed(&mut self, output: Output, broken: Broken) -> Vec<Action> {
        let [stdout, stderr] = &mut self.broken;
        *(match output {
            Output::Stdout => stdout,
            Output::Stderr => stderr,
        }) = true;
        self.batch(output).clear();
        let outcome = match broken {
            Broken::Pipe => Outcome::BrokenPipe,
            Broken::Other(why) => Outcome::Failed(Failure::Output(output, why)),
        };
        match &self.state {
            State::Over(_) | State::Concluding(Outcome::Failed(_) | Outcome::BrokenPipe) => Vec::new(),
            _ => self.conclude(outcome),
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

    fn conclude(&mut self, outcome: Outcome) -> Vec<Action> {
        self.state = State::Concluding(outcome);
        vec![Action::HangUp]
    }

    fn interrupted(&mut self, number: i32) -> Vec<Action> {
        self.state = State::Over(Outcome::Interrupted(number));
        vec![Action::HangUp]
    }
}

impl Running {
    fn send(&mut self, what: impl FnOnce(&mut Sending)) {
        if let Some(sending) = &mut self.sending {
            what(sending);
        }
    }
}

#[cfg(test)]
mod tests;
