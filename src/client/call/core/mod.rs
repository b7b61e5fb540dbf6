//! What `call` decides: [`Event`] in, [`Action`]s out, the time an argument, and no socket in sight.
//!
//! ```text
//! Connecting ─connected─▸ Running ─end told, failure, EPIPE─▸ Concluding ─all written─▸ Over
//!     └─ signal ───────────┴─ second signal ──────────────────┴─ signal ───────────────▸
//! ```
//!
//! What holds, whatever comes in whatever order (`tests.rs` tries it):
//! - There is one outcome, it never changes but for an output that breaks, and everything that came before it is written
//!   first; a signal alone cuts that short.
//! - What is held is bounded: input is wanted only while what came before is nearly sent, and the server is read only
//!   while what it has said is nearly written.
//! - Every wait has a deadline, but for a program that runs and a reader of its output, which may take their time: both can
//!   be ended by a signal.

mod answer;
mod connecting;
mod sending;

use std::time::{Duration, Instant};

pub use answer::{End, Found, Output, Reader, Wrong};

use crate::framing::signals::{HUP, INT, PIPE, QUIT, TERM};
use connecting::Connecting;
use sending::Sending;

/// The exit status of everything that is not the program's doing, as env(1) and timeout(1) have it.
pub const FAILED: u8 = 125;
/// What a shell adds to the number of a signal that has ended a program.
const SIGNALLED: u8 = 128;
/// While so much output is not written yet, the server is not read.
const OUTPUT_LIMIT: usize = 128 * 1024;
/// A signal that is to end the program has to be on its way after so long: a program that does not read its input may hold up
/// everything behind that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'a> {
    /// The address stands for so many targets, at least one.
    Targets(usize),
    /// Why it cannot be found out what it stands for.
    Unresolved(String),
    /// The target has accepted the connection.
    Connected,
    /// It has not.
    NotConnected(Refused),
    /// Standard input has brought this; only while it is [wanted](Call::wants_input).
    Input(&'a [u8]),
    /// Standard input has ended.
    InputEnd,
    /// No thread could be had to read it; why.
    InputFailed(String),
    /// So many of the [bytes to be sent](Call::to_send) have been.
    Sent(usize),
    /// The server takes nothing more. What it has said before may still come.
    SendFailed,
    /// The server has said this; only while it is [wanted](Call::wants_answer).
    Received(&'a [u8]),
    /// The server says nothing more; why, unless it has simply closed the connection.
    Closed(Option<String>),
    /// An output cannot be written.
    OutputFailed(Output, Broken),
    /// All output that there was has been written.
    Flushed,
    /// We have got this signal, one of [`PASSED_ON`](crate::framing::signals::PASSED_ON).
    Signal(i32),
    /// The terminal that we were started from is gone, and the program would have been hung up with it.
    TerminalGone,
    /// The time is what [`Call::deadline`] said. One that comes early changes nothing.
    Tick,
}

/// Why there is no connection to a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// Its queue of connections is full, and may not be later.
    Full,
    /// For good.
    Other(String),
}

/// Why an output cannot be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// It is not read any more.
    Pipe,
    /// The disk is full, or the like.
    Other(String),
}

/// What is to be done, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Connect to the target of this number.
    Connect(usize),
    /// Do not wait for the present target any longer.
    GiveUp,
    /// Read standard input from now on.
    ReadInput,
    /// Close the connection, whatever the server makes of it.
    HangUp,
}

/// What it has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The program has ended.
    Ended(End),
    /// This signal has ended us before that.
    Interrupted(i32),
    /// The output is not read.
    BrokenPipe,
    /// Something else has gone wrong.
    Failed(Failure),
}

/// What has gone wrong that is not the program's doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// What the address stands for could not be found out.
    Unresolved(String),
    /// There was no connection.
    Unreachable(String),
    /// There was none in time.
    TimedOut,
    /// Too many others wait for one.
    Full,
    /// The connection was over before the end of the program was told.
    Lost(Option<String>),
    /// What the server says is no answer.
    Malformed(Wrong),
    /// There was no thread to read standard input.
    Input(String),
    /// An output cannot be written.
    Output(Output, String),
}

impl Outcome {
    /// The exit status.
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

/// Whether there is any input for the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// Standard input, as it comes.
    Standard,
    /// It ends at once.
    None,
}

/// One call: a program asked for, and everything until its end.
#[derive(Debug)]
pub struct Call {
    state: State,
    /// What is to be written next, to standard output and standard error.
    batches: [Vec<u8>; 2],
    /// Which of them cannot be written to any more.
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
    /// What it has come to is settled; what was said before is written.
    Concluding(Outcome),
    Over(Outcome),
}

#[derive(Debug)]
struct Running {
    /// `None`: the server takes nothing more.
    sending: Option<Sending>,
    answer: Reader,
    /// The signals that the program was asked to end by.
    asked: Vec<i32>,
    /// When the last of them has to have left.
    until: Option<Instant>,
}

impl Call {
    /// Asks for the program of these arguments, the first of which is its name.
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

    // ---- asked by the shell ------------------------------------------------------------------------------------

    /// What it has come to, once there is nothing left to be done.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Over(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// When to come back with [`Event::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Connecting { way, .. } => Some(way.deadline()),
            State::Running(running) => running.until,
            State::Concluding(_) | State::Over(_) => None,
        }
    }

    /// Whether more of standard input is to be fetched.
    pub fn wants_input(&self) -> bool {
        self.sending().is_some_and(Sending::wants_input)
    }

    /// Whether more of the server's answer is to be fetched.
    pub fn wants_answer(&self) -> bool {
        let held: usize = self.batches.iter().map(Vec::len).sum();
        matches!(self.state, State::Running(_)) && held < OUTPUT_LIMIT
    }

    /// What the server is to be sent next.
    pub fn to_send(&self) -> &[u8] {
        self.sending().map(Sending::bytes).unwrap_or_default()
    }

    /// What is to be written next to an output. It is empty after it was taken.
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

    // ---- what happens ------------------------------------------------------------------------------------------

    /// What `event`, happening at `now`, calls for.
    pub fn handle(&mut self, event: Event<'_>, now: Instant) -> Vec<Action> {
        match event {
            Event::OutputFailed(output, broken) => self.output_failed(output, broken),
            Event::TerminalGone if self.outcome().is_none() => self.interrupted(HUP),
            event => match &mut self.state {
                State::Connecting { .. } => self.connecting(event, now),
                State::Running(_) => self.running(event, now),
                State::Concluding(_) => self.concluding(event),
                // Nothing matters any more.
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
            // There is no program that could get it.
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
            // It may have said why.
            Event::SendFailed => running.sending = None,
            Event::InputFailed(why) => return self.conclude(Outcome::Failed(Failure::Input(why))),
            Event::Received(bytes) => return self.received(bytes),
            Event::Closed(why) => return self.conclude(Outcome::Failed(Failure::Lost(why))),
            Event::Signal(number) => return self.signal(number, now),
            Event::Tick if running.until.is_some_and(|until| now >= until) => {
                let last = running.asked.last().copied().unwrap_or(TERM);
                return self.interrupted(last);
            }
            // Early; of the time before; of output, more of which may come.
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

    /// Passes a signal on. One that is to end the program, and comes again while it has not, ends us; so does one that cannot
    /// be passed on. The others mean whatever the program makes of them, as often as they come.
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
            // The reader of the output does not read, and there is nothing else to be ended.
            Event::Signal(number) => self.interrupted(number),
            // The connection and the input are no longer of interest.
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
