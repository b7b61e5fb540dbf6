//! The life of one connection: [`Event`] in, [`Action`]s out, the time an argument.
//!
//! ```text
//! Asking ─arguments─▸ Starting ─started─▸ Running ─exit─▸ Lingering ─outputs end─▸ Answered ─all sent─▸ Parting ─▸ Over
//!    │                   │                 │ │                │ linger is over           ▴
//!    │                   │                 │ └─time, error──▸ Ending ─exit─▸ Lingering   │
//!    │                   │                 │                  └──────────▸ Remains ──────┤
//!    └──── refused ──────┴── not started ──┼─────────────────────────────────────────────┘
//!                          client is gone ─┴▸ Abandoned ─exit─▸ Over
//! ```
//!
//! A program that has exited is not reaped while its output is awaited: until then its group's number is nobody else's, and
//! whatever of the group is left can be killed. Once it is reaped its pipes hold a known rest (`Remains`), which the client
//! gets at its own pace.

use std::time::{Duration, Instant};

use super::reply::Output;
use super::request::Wrong;

/// By what a run is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From accept until the arguments are complete.
    pub read_timeout: Duration,
    /// How long a program may run. `None`: as long as it likes.
    pub timeout: Option<Duration>,
    /// From a program's exit until its output is awaited no longer.
    pub linger: Duration,
    /// How long the client may read nothing of what is left once its program has ended.
    pub write_timeout: Duration,
}

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The arguments are complete.
    Arguments,
    /// The program runs.
    Started,
    /// It could not be started; why has been said.
    NotStarted,
    /// What the client sends is no request.
    Wrong(Wrong),
    /// The client has a signal for the program, which has been started.
    Signal(i32),
    /// The client has ended its side before it asked anything; or, once everything has been said, its connection may be closed.
    Left,
    /// The client can neither send nor read any more.
    Gone,
    /// An output of the program has ended, or its rest has been read.
    OutputOver(Output),
    /// The program has written more than may be held.
    Overflow,
    /// The client sends more than may be held, and reads nothing, while the program waits for that.
    Standstill,
    /// The program has exited. It is not reaped.
    Exited,
    /// Not even KILL has ended it.
    Unkillable,
    /// The client has read something.
    Progress,
    /// Everything that there was to be sent has been.
    Flushed,
    /// The door closes: programs are ended as at the end of their time.
    Stop,
    /// The door closes at once.
    Hurry,
    /// The time is what [`Run::deadline`] said. One that comes early changes nothing.
    Tick,
}

/// What is to be done, in the order given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start the program when it is its turn.
    Start,
    /// Say why, and nothing more.
    Refuse(Refusal),
    /// End its input: nobody reads it any more.
    EndInput,
    /// This signal for its group.
    Signal(i32),
    /// TERM for its group, then KILL in time.
    End(Cause),
    /// KILL for its group.
    Kill,
    /// Nobody wants its output: let go of its streams.
    Forsake,
    /// Kill what is left of its group, and reap it.
    Reap,
    /// Whoever holds its outputs open is not waited for: what lies in them now is their rest.
    CutOutput,
    /// Say how it has ended.
    Conclude,
    /// Nothing more is sent; see whether the client sends still.
    Part,
    /// It is over.
    Close,
}

/// Why a running program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its time is up.
    Timeout,
    /// Its input makes no sense.
    Wrong(Wrong),
    /// It writes more than may be held.
    Overflow,
    /// It and its client wait for each other.
    Standstill,
    /// The door closes.
    Stop,
    /// Its client has gone.
    Vanished,
}

/// Why a client gets no program, or not the end of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// What it sends is no request.
    Wrong(Wrong),
    /// It was too slow.
    TooSlow,
    /// It has sent more than may be held before it has read any of the output.
    Standstill,
    /// The door closes.
    Stop,
    /// The program could not be ended.
    Unkillable,
}

/// Which outputs of the program are still to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    stdout: bool,
    stderr: bool,
}

impl Open {
    const BOTH: Open = Open {
        stdout: true,
        stderr: true,
    };

    fn without(self, output: Output) -> Open {
        match output {
            Output::Stdout => Open { stdout: false, ..self },
            Output::Stderr => Open { stderr: false, ..self },
        }
    }

    fn none(self) -> bool {
        !self.stdout && !self.stderr
    }
}

/// Where a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Its arguments are not complete.
    Asking {
        /// When they have to be.
        until: Instant,
    },
    /// Its program is about to be started, in this turn of the loop or one of the next.
    Starting,
    /// It runs.
    Running {
        /// When its time is up.
        until: Option<Instant>,
        /// What it may still write to.
        open: Open,
    },
    /// It has been told to end, and its output is still passed on.
    Ending {
        /// Why.
        cause: Cause,
        /// What it may still write to.
        open: Open,
    },
    /// It has exited; what it has started may still write.
    Lingering {
        /// What is said at the end instead of how it has ended.
        refusal: Option<Refusal>,
        /// Which outputs have not ended.
        open: Open,
        /// For so long.
        until: Instant,
    },
    /// Nothing runs any more; what lies in its pipes is on its way to the client.
    Remains {
        /// What is said at the end instead of how it has ended.
        refusal: Option<Refusal>,
        /// Which pipes are not empty.
        open: Open,
        /// When the client has to have read something.
        until: Instant,
    },
    /// Everything is said; it is on its way.
    Answered {
        /// When the client has to have read something.
        until: Instant,
    },
    /// The client has everything; what it still sends is read away.
    Parting,
    /// The client has gone; its program is being ended.
    Abandoned,
    /// Nothing is left.
    Over,
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Run {
    policy: Policy,
    state: State,
}

type Step = (State, Vec<Action>);

impl Run {
    /// Of a client that has just connected.
    pub fn new(policy: Policy, now: Instant) -> Self {
        let until = now + policy.read_timeout;
        Run {
            policy,
            state: State::Asking { until },
        }
    }

    /// Where it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether what the client sends is still read as its request, and not thrown away.
    pub fn listens(&self) -> bool {
        matches!(
            self.state,
            State::Asking { .. } | State::Starting | State::Running { .. }
        )
    }

    /// When to come back with [`Event::Tick`].
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Asking { until }
            | State::Lingering { until, .. }
            | State::Remains { until, .. }
            | State::Answered { until } => Some(until),
            State::Running { until, .. } => until,
            // The next turn, the ladder of ending a process, the lingering close, nothing.
            State::Starting | State::Ending { .. } | State::Parting | State::Abandoned | State::Over => None,
        }
    }

    /// The door closes soon: who has not asked yet has until then.
    pub fn hasten(&mut self, by: Instant) {
        if let State::Asking { until } = &mut self.state {
            *until = by.min(*until);
        }
    }

    /// What `event`, happening at `now`, calls for.
    pub fn handle(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let stays = (self.state, Vec::new());
        let (state, actions) = match self.state {
            State::Asking { until } => self.asking(until, event, now),
            State::Starting => self.starting(event, now),
            State::Running { until, open } => self.running(until, open, event, now),
            State::Ending { cause, open } => self.ending(cause, open, event, now),
            State::Lingering { refusal, open, until } => self.lingering(refusal, open, until, event, now),
            State::Remains { refusal, open, until } => self.remaining(refusal, open, until, event, now),
            State::Answered { until } => self.answered(until, event, now),
            State::Parting => match event {
                Event::Left | Event::Gone | Event::Hurry => over(),
                // Of what is past.
                _ => stays,
            },
            State::Abandoned => match event {
                Event::Exited => (State::Over, vec![Action::Reap, Action::Close]),
                Event::Unkillable => over(),
                Event::Hurry => (State::Abandoned, vec![Action::Kill]),
                // Its client is not there, and its program is on its way out already.
                _ => stays,
            },
            State::Over => stays,
        };
        self.state = state;
        actions
    }

    fn asking(&self, until: Instant, event: Event, now: Instant) -> Step {
        match event {
            Event::Arguments => (State::Starting, vec![Action::Start]),
            Event::Wrong(wrong) => self.refuse(Refusal::Wrong(wrong), now),
            Event::Tick if now >= until => self.refuse(Refusal::TooSlow, now),
            Event::Stop => self.refuse(Refusal::Stop, now),
            Event::Left | Event::Gone | Event::Hurry => over(),
            // Early; nothing has been sent to it; there is no program.
            _ => (self.state, Vec::new()),
        }
    }

    fn starting(&self, event: Event, now: Instant) -> Step {
        match event {
            Event::Started => (
                State::Running {
                    until: self.policy.timeout.map(|timeout| now + timeout),
                    open: Open::BOTH,
                },
                Vec::new(),
            ),
            Event::NotStarted => (self.answer(now), Vec::new()),
            Event::Wrong(wrong) => self.refuse(Refusal::Wrong(wrong), now),
            Event::Stop => self.refuse(Refusal::Stop, now),
            Event::Gone | Event::Hurry => over(),
            // There is no program yet, and nothing to be sent.
            _ => (self.state, Vec::new()),
        }
    }

    fn running(&self, until: Option<Instant>, open: Open, event: Event, now: Instant) -> Step {
        let end = |cause| {
            (
                State::Ending { cause, open },
                vec![Action::EndInput, Action::End(cause)],
            )
        };
        match event {
            Event::OutputOver(output) => {
                let open = open.without(output);
                (State::Running { until, open }, Vec::new())
            }
            Event::Exited => self.exited(None, open, now),
            // Its time goes on: whoever means to end it by this has the means to hang up.
            Event::Signal(signal) => (self.state, vec![Action::Signal(signal)]),
            Event::Tick if until.is_some_and(|until| now >= until) => end(Cause::Timeout),
            Event::Wrong(wrong) => end(Cause::Wrong(wrong)),
            Event::Overflow => end(Cause::Overflow),
            Event::Standstill => end(Cause::Standstill),
            Event::Stop => end(Cause::Stop),
            Event::Gone => abandoned(),
            Event::Hurry => (State::Abandoned, vec![Action::Forsake, Action::Kill]),
            // Its input has ended, which is the shell's to pass on; what it has written was sent.
            _ => (self.state, Vec::new()),
        }
    }

    fn ending(&self, cause: Cause, open: Open, event: Event, now: Instant) -> Step {
        let refusal = match cause {
            Cause::Wrong(wrong) => Some(Refusal::Wrong(wrong)),
            Cause::Standstill => Some(Refusal::Standstill),
            Cause::Timeout | Cause::Overflow | Cause::Stop | Cause::Vanished => None,
        };
        match event {
            Event::OutputOver(output) => {
                let open = open.without(output);
                (State::Ending { cause, open }, Vec::new())
            }
            Event::Exited => self.exited(refusal, open, now),
            Event::Unkillable => {
                let (state, actions) = self.refuse(Refusal::Unkillable, now);
                (state, [vec![Action::Forsake], actions].concat())
            }
            // Its end is under way already.
            Event::Gone => (State::Abandoned, vec![Action::Forsake]),
            Event::Hurry => (State::Abandoned, vec![Action::Forsake, Action::Kill]),
            _ => (self.state, Vec::new()),
        }
    }

    fn exited(&self, refusal: Option<Refusal>, open: Open, now: Instant) -> Step {
        if open.none() {
            return (
                self.answer(now),
                vec![Action::EndInput, Action::Reap, conclusion(refusal)],
            );
        }
        let until = now + self.policy.linger;
        (State::Lingering { refusal, open, until }, vec![Action::EndInput])
    }

    fn lingering(&self, refusal: Option<Refusal>, open: Open, until: Instant, event: Event, now: Instant) -> Step {
        match event {
            Event::OutputOver(output) => match open.without(output) {
                open if open.none() => (self.answer(now), vec![Action::Reap, conclusion(refusal)]),
                open => (State::Lingering { refusal, open, until }, Vec::new()),
            },
            Event::Tick if now < until => (self.state, Vec::new()),
            Event::Tick | Event::Stop => {
                let until = now + self.policy.write_timeout;
                let actions = vec![Action::Reap, Action::CutOutput];
                (State::Remains { refusal, open, until }, actions)
            }
            Event::Gone | Event::Hurry => (State::Over, vec![Action::Reap, Action::Close]),
            // What its client sends is nobody's.
            _ => (self.state, Vec::new()),
        }
    }

    fn remaining(&self, refusal: Option<Refusal>, open: Open, until: Instant, event: Event, now: Instant) -> Step {
        match event {
            Event::OutputOver(output) => match open.without(output) {
                open if open.none() => (self.answer(now), vec![conclusion(refusal)]),
                open => (State::Remains { refusal, open, until }, Vec::new()),
            },
            Event::Progress => {
                let until = now + self.policy.write_timeout;
                (State::Remains { refusal, open, until }, Vec::new())
            }
            Event::Tick if now >= until => over(),
            Event::Gone | Event::Hurry => over(),
            // Nothing runs that could be ended.
            _ => (self.state, Vec::new()),
        }
    }

    fn answered(&self, until: Instant, event: Event, now: Instant) -> Step {
        match event {
            Event::Flushed => (State::Parting, vec![Action::Part]),
            Event::Progress => (self.answer(now), Vec::new()),
            Event::Tick if now >= until => over(),
            Event::Gone | Event::Hurry => over(),
            // It may end its side and still read.
            _ => (self.state, Vec::new()),
        }
    }

    fn refuse(&self, refusal: Refusal, now: Instant) -> Step {
        (self.answer(now), vec![Action::Refuse(refusal)])
    }

    fn answer(&self, now: Instant) -> State {
        State::Answered {
            until: now + self.policy.write_timeout,
        }
    }
}

fn conclusion(refusal: Option<Refusal>) -> Action {
    refusal.map_or(Action::Conclude, Action::Refuse)
}

fn over() -> Step {
    (State::Over, vec![Action::Close])
}

fn abandoned() -> Step {
    let end = Action::End(Cause::Vanished);
    (State::Abandoned, vec![Action::Forsake, end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: Policy = Policy {
        read_timeout: Duration::from_secs(30),
        timeout: Some(Duration::from_secs(60)),
        linger: Duration::from_secs(1),
        write_timeout: Duration::from_secs(20),
    };

    fn after(events: &[Event], now: Instant) -> (Run, Vec<Action>) {
        let mut run = Run::new(POLICY, now);
        let actions = events.iter().flat_map(|event| run.handle(*event, now)).collect();
        (run, actions)
    }

    const RUNNING: [Event; 2] = [Event::Arguments, Event::Started];

    #[test]
    fn the_end_is_told_behind_all_output_whichever_comes_first() {
        use Event::{Exited, OutputOver};
        let (out, err) = (OutputOver(Output::Stdout), OutputOver(Output::Stderr));
        let now = Instant::now();
        for order in [
            [out, err, Exited],
            [out, Exited, err],
            [Exited, err, out],
            [err, Exited, out],
        ] {
            let (run, actions) = after(&[&RUNNING[..], &order].concat(), now);
            assert_eq!(
                actions,
                [Action::Start, Action::EndInput, Action::Reap, Action::Conclude],
                "{order:?}"
            );
            assert!(matches!(run.state(), State::Answered { .. }));
        }
    }

    #[test]
    fn a_grandchild_that_holds_the_output_is_not_waited_for() {
        let now = Instant::now();
        let (mut run, _) = after(&[&RUNNING[..], &[Event::Exited]].concat(), now);
        assert_eq!(run.deadline(), Some(now + POLICY.linger));
        assert_eq!(run.handle(Event::Tick, now), [], "early");
        let cut = run.handle(Event::Tick, now + POLICY.linger);
        assert_eq!(cut, [Action::Reap, Action::CutOutput]);
        assert_eq!(run.handle(Event::OutputOver(Output::Stdout), now), []);
        assert_eq!(run.handle(Event::OutputOver(Output::Stderr), now), [Action::Conclude]);
    }

    #[test]
    fn a_program_is_ended_when_its_time_is_up_and_its_client_told_how() {
        let now = Instant::now();
        let (mut run, _) = after(&RUNNING, now);
        let up = run.deadline().unwrap();
        assert_eq!(up, now + Duration::from_secs(60));
        assert_eq!(
            run.handle(Event::Tick, up),
            [Action::EndInput, Action::End(Cause::Timeout)]
        );
        run.handle(Event::OutputOver(Output::Stdout), up);
        run.handle(Event::OutputOver(Output::Stderr), up);
        assert!(run.handle(Event::Exited, up).ends_with(&[Action::Conclude]));
    }

    #[test]
    fn a_program_that_writes_too_much_is_ended_once_and_its_client_told_how() {
        let now = Instant::now();
        let (mut run, actions) = after(&[&RUNNING[..], &[Event::Overflow]].concat(), now);
        assert!(actions.ends_with(&[Action::EndInput, Action::End(Cause::Overflow)]));
        assert_eq!(run.handle(Event::Overflow, now), [], "it is being ended");
        run.handle(Event::OutputOver(Output::Stdout), now);
        run.handle(Event::OutputOver(Output::Stderr), now);
        assert!(run.handle(Event::Exited, now).ends_with(&[Action::Conclude]));
        let (mut run, _) = after(&[&RUNNING[..], &[Event::Exited]].concat(), now);
        assert_eq!(run.handle(Event::Overflow, now), [], "it has ended by itself");
    }

    #[test]
    fn nonsense_behind_the_arguments_ends_the_program_and_is_refused() {
        let wrong = Wrong::Malformed("x");
        let now = Instant::now();
        let (mut run, actions) = after(&[&RUNNING[..], &[Event::Wrong(wrong)]].concat(), now);
        assert!(actions.ends_with(&[Action::End(Cause::Wrong(wrong))]));
        run.handle(Event::Exited, now);
        run.handle(Event::OutputOver(Output::Stdout), now);
        let end = run.handle(Event::OutputOver(Output::Stderr), now);
        assert_eq!(end, [Action::Reap, Action::Refuse(Refusal::Wrong(wrong))]);
    }

    #[test]
    fn a_signal_is_for_a_program_that_runs_and_does_not_prolong_its_time() {
        let now = Instant::now();
        let (mut run, _) = after(&RUNNING, now);
        let (state, later) = (run.state(), now + Duration::from_secs(5));
        assert_eq!(run.handle(Event::Signal(2), later), [Action::Signal(2)]);
        assert_eq!(run.state(), state);
        run.handle(Event::Exited, later);
        assert_eq!(run.handle(Event::Signal(2), later), []);
    }

    #[test]
    fn whoever_leaves_the_end_unread_is_let_go() {
        let now = Instant::now();
        let (mut run, _) = after(&[Event::Arguments, Event::NotStarted], now);
        let later = now + POLICY.write_timeout;
        run.handle(Event::Progress, now + Duration::from_secs(5));
        assert_eq!(run.handle(Event::Tick, later), []);
        assert_eq!(run.handle(Event::Tick, later + Duration::from_secs(5)), [Action::Close]);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop::sample::select(vec![
            Event::Arguments,
            Event::Started,
            Event::NotStarted,
            Event::Wrong(Wrong::BadCount),
            Event::Overflow,
            Event::Signal(2),
            Event::Left,
            Event::Gone,
            Event::OutputOver(Output::Stdout),
            Event::OutputOver(Output::Stderr),
            Event::Exited,
            Event::Unkillable,
            Event::Progress,
            Event::Flushed,
            Event::Stop,
            Event::Hurry,
            Event::Tick,
        ])
    }

    proptest! {
        /// A shell that can do what it is told, and events in any order: the promises of `core/mod.rs`.
        #[test]
        fn whatever_happens_every_program_is_reaped_and_every_client_told_once(
            story in prop::collection::vec((event(), 0u64..40), 0..60),
        ) {
            let mut now = Instant::now();
            let mut run = Run::new(POLICY, now);
            let (mut started, mut exited, mut reaped, mut given_up) = (false, false, false, false);
            let (mut outputs, mut told, mut closed, mut signalled) = (2, 0, 0, false);
            let mut ended = [false; 2];
            for (event, wait) in story {
                // What cannot happen does not: there is one start, one exit, and an output ends once.
                let index = usize::from(event == Event::OutputOver(Output::Stderr));
                let possible = match event {
                    Event::Started => run.state() == State::Starting,
                    Event::NotStarted => run.state() == State::Starting,
                    Event::Exited => started && !exited && !given_up,
                    Event::Unkillable => started && !exited && signalled && !given_up,
                    Event::OutputOver(_) => started && outputs > 0 && !ended[index],
                    Event::Arguments => matches!(run.state(), State::Asking { .. }),
                    _ => true,
                };
                if !possible { continue }
                now += Duration::from_secs(wait);
                started |= event == Event::Started;
                exited |= event == Event::Exited;
                given_up |= event == Event::Unkillable;
                if let Event::OutputOver(_) = event {
                    ended[index] = true;
                    outputs -= 1;
                }
                told += usize::from(event == Event::NotStarted);
                for action in run.handle(event, now) {
                    match action {
                        Action::Start => prop_assert!(!started),
                        Action::Refuse(_) | Action::Conclude => {
                            told += 1;
                            prop_assert!(!started || given_up || (reaped && outputs == 0), "behind all output");
                        }
                        Action::Reap => {
                            prop_assert!(exited && !reaped);
                            reaped = true;
                        }
                        Action::Signal(_) => prop_assert!(started && !exited, "it runs, and is not about to end"),
                        Action::End(_) | Action::Kill => {
                            prop_assert!(started && !reaped);
                            signalled = true;
                        }
                        Action::CutOutput => prop_assert!(reaped && outputs > 0),
                        Action::Close => {
                            closed += 1;
                            prop_assert!(!started || reaped || given_up, "nothing is left behind");
                        }
                        Action::Forsake => outputs = 0,
                        Action::EndInput | Action::Part => {}
                    }
                }
                prop_assert!(told <= 1 && closed <= 1);
                prop_assert_eq!(closed == 1, run.state() == State::Over);
            }
        }
    }
}
