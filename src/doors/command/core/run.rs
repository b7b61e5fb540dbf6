//! The life of one program: [`Happening`] in, [`Step`]s out, the time an argument.
//!
//! ```text
//! Starting ─started─▸ Running ─exit─▸ Lingering ─output ends, or linger is over─▸ over
//!    │                   │ │              ▴
//!    │                   │ └─exit, no output left────────────────────────────────▸ over
//!    │                   └─time, stop, standstill, nobody left─▸ Ending ─exit─▸ Lingering, over
//!    └─not started, outdated, nobody left─▸ over
//! ```
//!
//! Its clients are told [`Step::Tell`] exactly once, behind all output, or are not there any more.

use std::time::{Duration, Instant};

use super::event::{Cause, Refusal};

/// What has happened to a program, or what is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// It runs.
    Started,
    /// It could not be started.
    NotStarted,
    /// Its output has ended.
    OutputOver,
    /// It has exited, and is not reaped.
    Exited,
    /// Not even KILL has ended it.
    Unkillable,
    /// It may not be started any more as it was asked for.
    Outdated,
    /// Its only client waits for it, and it for its client.
    Standstill,
    /// None of its clients is left.
    Deserted,
    /// The door closes.
    Stop,
    /// The door closes at once. None of its clients is left.
    Hurry,
    /// The time is what [`Run::deadline`] said.
    Tick,
}

/// What is to be done, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// End its input.
    EndInput,
    /// TERM, then KILL.
    End(Cause),
    /// KILL.
    Kill,
    /// Let go of its streams.
    Forsake,
    /// Take what lies in its output, and close it.
    CutOutput,
    /// Its clients have everything; some are told why it is not all.
    Tell(Option<Refusal>),
    /// Kill what is left of its group, and reap it.
    Reap,
    /// It is over.
    Drop,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is about to be started.
    Starting,
    /// It runs.
    Running {
        /// When its time is up.
        until: Option<Instant>,
        /// Whether it may still put something out.
        output: bool,
    },
    /// It has been told to end.
    Ending {
        /// Why.
        cause: Cause,
        /// Whether its output is still passed on.
        output: bool,
    },
    /// It has exited; what it has started may still put something out.
    Lingering {
        /// Why it was told to end, if it was.
        cause: Option<Cause>,
        /// For so long.
        until: Instant,
    },
}

/// One program.
#[derive(Debug, Clone)]
pub struct Run {
    timeout: Option<Duration>,
    linger: Duration,
    state: State,
}

impl Run {
    /// One that is about to be started, and may run for `timeout`. From its exit its output is awaited for `linger`.
    pub fn new(timeout: Option<Duration>, linger: Duration) -> Self {
        Run {
            timeout,
            linger,
            state: State::Starting,
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether its output is all that a client who comes now wants.
    pub fn may_be_joined(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. })
    }

    /// Whether it has exited.
    pub fn has_exited(&self) -> bool {
        matches!(self.state, State::Lingering { .. })
    }

    /// When to come back with [`Happening::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Running { until, .. } => until,
            State::Lingering { until, .. } => Some(until),
            // The next turn; the ladder of ending a process.
            State::Starting | State::Ending { .. } => None,
        }
    }

    /// What it calls for. [`Step::Drop`] is the last of all.
    pub fn handle(&mut self, what: Happening, now: Instant) -> Vec<Step> {
        match self.state {
            State::Starting => self.starting(what, now),
            State::Running { until, output } => self.running(until, output, what, now),
            State::Ending { cause, output } => self.ending(cause, output, what, now),
            State::Lingering { cause, until } => lingering(cause, until, what, now),
        }
    }

    fn starting(&mut self, what: Happening, now: Instant) -> Vec<Step> {
        match what {
            Happening::Started => {
                let until = self.timeout.map(|timeout| now + timeout);
                self.state = State::Running { until, output: true };
                Vec::new()
            }
            Happening::NotStarted => vec![Step::Tell(Some(Refusal::NotStarted)), Step::Drop],
            Happening::Outdated => vec![Step::Tell(Some(Refusal::Changed)), Step::Drop],
            Happening::Stop => vec![Step::Tell(Some(Refusal::Stop)), Step::Drop],
            Happening::Deserted | Happening::Hurry => vec![Step::Drop],
            // There is no program yet.
            Happening::OutputOver
            | Happening::Exited
            | Happening::Unkillable
            | Happening::Standstill
            | Happening::Tick => Vec::new(),
        }
    }

    fn running(&mut self, until: Option<Instant>, output: bool, what: Happening, now: Instant) -> Vec<Step> {
        match what {
            Happening::OutputOver => {
                self.state = State::Running { until, output: false };
                Vec::new()
            }
            Happening::Exited => self.exited(None, output, now),
            Happening::Tick if until.is_some_and(|until| now >= until) => {
                self.end(Cause::Timeout(self.timeout.unwrap_or_default()), output)
            }
            Happening::Standstill => self.end(Cause::Standstill, output),
            Happening::Stop => self.end(Cause::Stop, output),
            Happening::Deserted => self.forsake(Step::End(Cause::Vanished)),
            Happening::Hurry => self.forsake(Step::Kill),
            // It has started; nothing has tried to end it; early.
            Happening::Started
            | Happening::NotStarted
            | Happening::Outdated
            | Happening::Unkillable
            | Happening::Tick => Vec::new(),
        }
    }

    fn ending(&mut self, cause: Cause, output: bool, what: Happening, now: Instant) -> Vec<Step> {
        match what {
            Happening::OutputOver => {
                self.state = State::Ending { cause, output: false };
                Vec::new()
            }
            Happening::Exited => self.exited(Some(cause), output, now),
            Happening::Unkillable => vec![Step::Forsake, Step::Tell(Some(Refusal::Unkillable)), Step::Drop],
            // Its end is under way already.
            Happening::Deserted => {
                self.state = State::Ending { cause, output: false };
                vec![Step::Forsake]
            }
            Happening::Hurry => {
                self.state = State::Ending { cause, output: false };
                vec![Step::Forsake, Step::Kill]
            }
            Happening::Started
            | Happening::NotStarted
            | Happening::Outdated
            | Happening::Standstill
            | Happening::Stop
            | Happening::Tick => Vec::new(),
        }
    }

    fn exited(&mut self, cause: Option<Cause>, output: bool, now: Instant) -> Vec<Step> {
        if !output {
            return vec![Step::EndInput, Step::Reap, Step::Tell(refusal(cause)), Step::Drop];
        }
        let until = now + self.linger;
        self.state = State::Lingering { cause, until };
        vec![Step::EndInput]
    }

    fn end(&mut self, cause: Cause, output: bool) -> Vec<Step> {
        self.state = State::Ending { cause, output };
        vec![Step::EndInput, Step::End(cause)]
    }

    fn forsake(&mut self, then: Step) -> Vec<Step> {
        self.state = State::Ending {
            cause: Cause::Vanished,
            output: false,
        };
        vec![Step::Forsake, then]
    }
}

fn lingering(cause: Option<Cause>, until: Instant, what: Happening, now: Instant) -> Vec<Step> {
    match what {
        Happening::OutputOver => vec![Step::Reap, Step::Tell(refusal(cause)), Step::Drop],
        Happening::Tick if now >= until => cut(cause),
        Happening::Stop => cut(cause),
        Happening::Deserted | Happening::Hurry => vec![Step::Reap, Step::Drop],
        // It has exited; early.
        Happening::Started
        | Happening::NotStarted
        | Happening::Outdated
        | Happening::Standstill
        | Happening::Exited
        | Happening::Unkillable
        | Happening::Tick => Vec::new(),
    }
}

/// What holds its output open is killed with the group when it is reaped, so what lies in it then is all there will be.
fn cut(cause: Option<Cause>) -> Vec<Step> {
    vec![Step::Reap, Step::CutOutput, Step::Tell(refusal(cause)), Step::Drop]
}

fn refusal(cause: Option<Cause>) -> Option<Refusal> {
    match cause? {
        Cause::Timeout(limit) => Some(Refusal::TimedOut(limit)),
        Cause::Standstill => Some(Refusal::Standstill),
        Cause::Stop => Some(Refusal::Stop),
        Cause::Vanished => None,
    }
}
