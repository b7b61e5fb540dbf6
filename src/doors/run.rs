//! The life of one program that runs for a client: [`RunEvent`]s in, [`RunStep`]s and at last one [`Conclusion`] out,
//! the time an argument.
//!
//! ```text
//! Starting ─started─▸ Running ─exit─▸ Lingering ─outputs end, linger is over, stop, deserted─▸ Over
//!    │                  │ │              ▴
//!    │                  │ └─exit after the outputs──────────────────────────────────────────▸ Over
//!    │                  └─timeout, standstill, overflow, invalid, stop, deserted, abort─▸ Ending ─exit─▸ Lingering, Over
//!    │                                                                                      └─unkillable─▸ Over
//!    └─not started, invalid, stop, deserted, abort──────────────────────────────────────────▸ Over
//! ```
//!
//! The exec door and the command door have one `Run` for each program. The clients of the program, the refusals they
//! get, and the time at which their connections end are decided in the cores of these doors. This file is not in
//! `src/process`, because a core may not import that room.
//!
//! Invariants (the tests try them with random events):
//! - There is exactly one conclusion, and no step follows it.
//! - The input of a program that has to be ended ends behind the signal: the program is not to take input that was cut
//!   off for complete.
//! - A program that was started is reaped exactly once, unless it was [unkillable](Conclusion::Unkillable).
//! - A program that has exited is not reaped while its outputs are awaited: until then no other process group can get
//!   its number, so what is left of the group can be killed.
//! - Every state has a [deadline](Run::deadline), or waits for something that has one.

use std::time::{Duration, Instant};

/// An event in the life of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEvent {
    /// The program was started.
    Started,
    /// The program could not be started.
    NotStarted,
    /// An output of the program has ended. Must be reported once for each output.
    OutputOver,
    /// The program has exited. It is not reaped.
    Exited,
    /// The program has survived KILL.
    Unkillable,
    /// [`Run::deadline`] has passed. Reported early, it changes nothing.
    Tick,
    /// Program and client wait for each other, and no more of the client's input may be held.
    Standstill,
    /// The program has written more than may be held.
    Overflow,
    /// The request is not valid, or no longer valid.
    Invalid,
    /// The program has no client any more.
    Deserted,
    /// The door stops: programs are ended as at their timeout.
    Stop,
    /// The door aborts: programs are killed. Their clients are not waited for.
    Abort,
}

/// A step to take with the program or its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunStep {
    /// Close the program's standard input, and drop input that waits for it.
    EndInput,
    /// Log the cause, send TERM to its process group, and begin the escalation to KILL.
    End(EndCause),
    /// Send KILL to the program's process group.
    Kill,
    /// Close the program's input and outputs. No [`RunEvent::OutputOver`] follows.
    CloseStreams,
    /// Kill the rest of the program's process group, and reap the program.
    Reap,
    /// Wait for no output any more: the bytes in the pipes now are the rest. Follows [`Reap`](Self::Reap).
    CutOutput,
}

/// The reason for which a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndCause {
    /// The program has run for as long as it may.
    Timeout,
    /// The program and its client wait for each other.
    Standstill,
    /// The program has written more than may be held.
    Overflow,
    /// The request is not valid, or no longer valid.
    Invalid,
    /// The program has no client any more.
    Deserted,
    /// The door stops.
    Stop,
}

/// The outcome of a run. Clients are told it behind all output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    /// The program could not be started.
    NotStarted,
    /// The run was cancelled before the program was started.
    Cancelled(EndCause),
    /// The program has exited and was reaped. The cause is set if it had to be ended.
    Exited(Option<EndCause>),
    /// The program has survived KILL, and is not waited for.
    Unkillable,
}

/// The answer to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Advance {
    /// The steps to take, in this order.
    pub steps: &'static [RunStep],
    /// Set once, by the last event that has any effect.
    pub conclusion: Option<Conclusion>,
}

/// The state of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// The program is about to be started.
    Starting,
    /// The program runs.
    Running {
        /// The time at which it is ended; `None`: it may run without limit.
        until: Option<Instant>,
    },
    /// The program was sent TERM or KILL. Its output is still passed on, unless its streams were closed.
    Ending {
        /// The reason.
        cause: EndCause,
    },
    /// The program has exited, and other processes have its outputs open.
    Lingering {
        /// The reason for which it was ended, if it was.
        cause: Option<EndCause>,
        /// The time until which the outputs are awaited.
        until: Instant,
    },
    /// The run is concluded.
    Over,
}

/// The run of one program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    timeout: Option<Duration>,
    linger: Duration,
    open_outputs: u8,
    state: RunState,
}

/// An event that changes nothing.
const NOTHING: Advance = steps(&[]);

const fn steps(steps: &'static [RunStep]) -> Advance {
    Advance {
        steps,
        conclusion: None,
    }
}

impl Run {
    /// Creates the run of a program that is about to be started with `outputs` pipes for its output. It may run for
    /// `timeout`, and its outputs are awaited for `linger` after its exit.
    pub fn new(outputs: u8, timeout: Option<Duration>, linger: Duration) -> Self {
        Run {
            timeout,
            linger,
            open_outputs: outputs,
            state: RunState::Starting,
        }
    }

    /// The current state.
    pub fn state(&self) -> RunState {
        self.state
    }

    /// Returns true if nothing has ended or cancelled the run: input and signals reach the program, now or once it is
    /// started.
    pub fn is_going(&self) -> bool {
        matches!(self.state, RunState::Starting | RunState::Running { .. })
    }

    /// Returns true if the program has exited and its outputs are awaited.
    pub fn has_exited(&self) -> bool {
        matches!(self.state, RunState::Lingering { .. })
    }

    /// The number of outputs that have neither ended nor been closed. It is greater than 0 at the conclusion if outputs
    /// were [cut](RunStep::CutOutput): their rest is still to be read.
    pub fn open_outputs(&self) -> u8 {
        self.open_outputs
    }

    /// The time that the program may run, from its start.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// The time at which [`RunEvent::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            RunState::Running { until } => until,
            RunState::Lingering { until, .. } => Some(until),
            // The start comes in this turn of the loop or one of the next, the kill sequence has deadlines of its own,
            // and nothing follows the conclusion.
            RunState::Starting | RunState::Ending { .. } | RunState::Over => None,
        }
    }

    /// Advances the run by an event that happens at `now`.
    pub fn handle(&mut self, event: RunEvent, now: Instant) -> Advance {
        match self.state {
            RunState::Starting => self.starting(event, now),
            RunState::Running { until } => self.running(until, event, now),
            RunState::Ending { cause } => self.ending(cause, event, now),
            RunState::Lingering { cause, until } => self.lingering(cause, until, event, now),
            RunState::Over => NOTHING,
        }
    }

    fn starting(&mut self, event: RunEvent, now: Instant) -> Advance {
        match event {
            RunEvent::Started => {
                let until = self.timeout.map(|timeout| now + timeout);
                self.state = RunState::Running { until };
                NOTHING
            }
            RunEvent::NotStarted => self.cancel(Conclusion::NotStarted),
            RunEvent::Invalid => self.cancel(Conclusion::Cancelled(EndCause::Invalid)),
            RunEvent::Stop => self.cancel(Conclusion::Cancelled(EndCause::Stop)),
            RunEvent::Deserted | RunEvent::Abort => self.cancel(Conclusion::Cancelled(EndCause::Deserted)),
            // There is no program that could do any of this.
            RunEvent::OutputOver
            | RunEvent::Exited
            | RunEvent::Unkillable
            | RunEvent::Tick
            | RunEvent::Standstill
            | RunEvent::Overflow => NOTHING,
        }
    }

    fn running(&mut self, until: Option<Instant>, event: RunEvent, now: Instant) -> Advance {
        match event {
            RunEvent::OutputOver => self.end_output(),
            RunEvent::Exited => self.exit(None, now),
            RunEvent::Tick if until.is_some_and(|until| now >= until) => self.end(EndCause::Timeout),
            RunEvent::Standstill => self.end(EndCause::Standstill),
            RunEvent::Overflow => self.end(EndCause::Overflow),
            RunEvent::Invalid => self.end(EndCause::Invalid),
            RunEvent::Stop => self.end(EndCause::Stop),
            RunEvent::Deserted => {
                self.open_outputs = 0;
                self.end(EndCause::Deserted)
            }
            RunEvent::Abort => self.abort(EndCause::Deserted),
            // The program was started, no signal was sent yet, and the tick is early.
            RunEvent::Started | RunEvent::NotStarted | RunEvent::Unkillable | RunEvent::Tick => NOTHING,
        }
    }

    fn ending(&mut self, cause: EndCause, event: RunEvent, now: Instant) -> Advance {
        match event {
            RunEvent::OutputOver => self.end_output(),
            RunEvent::Exited => self.exit(Some(cause), now),
            RunEvent::Unkillable => {
                self.open_outputs = 0;
                self.conclude(&[RunStep::CloseStreams], Conclusion::Unkillable)
            }
            RunEvent::Deserted => {
                self.open_outputs = 0;
                steps(&[RunStep::CloseStreams])
            }
            RunEvent::Abort => self.abort(cause),
            // The program was started, and is being ended already.
            RunEvent::Started
            | RunEvent::NotStarted
            | RunEvent::Tick
            | RunEvent::Standstill
            | RunEvent::Overflow
            | RunEvent::Invalid
            | RunEvent::Stop => NOTHING,
        }
    }

    fn lingering(&mut self, cause: Option<EndCause>, until: Instant, event: RunEvent, now: Instant) -> Advance {
        let exited = Conclusion::Exited(cause);
        match event {
            RunEvent::OutputOver => {
                let nothing = self.end_output();
                if self.open_outputs > 0 {
                    return nothing;
                }
                self.conclude(&[RunStep::Reap], exited)
            }
            RunEvent::Tick if now < until => NOTHING,
            RunEvent::Tick | RunEvent::Stop => self.conclude(&[RunStep::Reap, RunStep::CutOutput], exited),
            RunEvent::Deserted | RunEvent::Abort => {
                self.open_outputs = 0;
                self.conclude(&[RunStep::Reap], exited)
            }
            // The program has exited: nothing has to be ended, and its input is not read.
            RunEvent::Started
            | RunEvent::NotStarted
            | RunEvent::Exited
            | RunEvent::Unkillable
            | RunEvent::Standstill
            | RunEvent::Overflow
            | RunEvent::Invalid => NOTHING,
        }
    }

    fn end_output(&mut self) -> Advance {
        self.open_outputs = self.open_outputs.saturating_sub(1);
        NOTHING
    }

    fn exit(&mut self, cause: Option<EndCause>, now: Instant) -> Advance {
        if self.open_outputs == 0 {
            return self.conclude(&[RunStep::EndInput, RunStep::Reap], Conclusion::Exited(cause));
        }
        let until = now + self.linger;
        self.state = RunState::Lingering { cause, until };
        steps(&[RunStep::EndInput])
    }

    fn end(&mut self, cause: EndCause) -> Advance {
        use RunStep::{CloseStreams, End, EndInput};
        self.state = RunState::Ending { cause };
        steps(match cause {
            EndCause::Timeout => &[End(EndCause::Timeout), EndInput],
            EndCause::Standstill => &[End(EndCause::Standstill), EndInput],
            EndCause::Overflow => &[End(EndCause::Overflow), EndInput],
            EndCause::Invalid => &[End(EndCause::Invalid), EndInput],
            EndCause::Stop => &[End(EndCause::Stop), EndInput],
            EndCause::Deserted => &[End(EndCause::Deserted), CloseStreams],
        })
    }

    fn abort(&mut self, cause: EndCause) -> Advance {
        self.open_outputs = 0;
        self.state = RunState::Ending { cause };
        steps(&[RunStep::Kill, RunStep::CloseStreams])
    }

    fn cancel(&mut self, conclusion: Conclusion) -> Advance {
        self.open_outputs = 0;
        self.conclude(&[], conclusion)
    }

    fn conclude(&mut self, steps: &'static [RunStep], conclusion: Conclusion) -> Advance {
        self.state = RunState::Over;
        Advance {
            steps,
            conclusion: Some(conclusion),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RunEvent::{
        Abort, Deserted, Exited, Invalid, NotStarted, OutputOver, Overflow, Standstill, Started, Stop, Tick, Unkillable,
    };
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);
    const LINGER: Duration = Duration::from_secs(1);
    const EVENTS: [RunEvent; 12] = [
        Started, NotStarted, OutputOver, Exited, Unkillable, Tick, Standstill, Overflow, Invalid, Deserted, Stop, Abort,
    ];

    /// A run with two outputs after these events, the steps taken so far and the last conclusion.
    fn after(events: &[RunEvent], now: Instant) -> (Run, Vec<RunStep>, Option<Conclusion>) {
        let mut run = Run::new(2, Some(TIMEOUT), LINGER);
        let (mut taken, mut conclusion) = (Vec::new(), None);
        for event in events {
            let advance = run.handle(*event, now);
            taken.extend_from_slice(advance.steps);
            conclusion = conclusion.or(advance.conclusion);
        }
        (run, taken, conclusion)
    }

    #[test]
    fn the_conclusion_comes_behind_all_output_and_the_exit_in_any_order() {
        for order in [
            [OutputOver, OutputOver, Exited],
            [OutputOver, Exited, OutputOver],
            [Exited, OutputOver, OutputOver],
        ] {
            let now = Instant::now();
            let (run, taken, conclusion) = after(&[&[Started], &order[..]].concat(), now);
            assert_eq!(taken, [RunStep::EndInput, RunStep::Reap], "{order:?}");
            assert_eq!(conclusion, Some(Conclusion::Exited(None)), "{order:?}");
            assert_eq!(run.state(), RunState::Over);
            let (_, _, before) = after(&[&[Started], &order[..2]].concat(), now);
            assert_eq!(before, None, "{order:?}");
        }
    }

    #[test]
    fn outputs_that_others_hold_open_are_cut_when_linger_is_over() {
        let now = Instant::now();
        let (mut run, ..) = after(&[Started, Exited], now);
        assert_eq!(run.deadline(), Some(now + LINGER));
        assert_eq!(run.handle(Tick, now), NOTHING, "early");
        let cut = run.handle(Tick, now + LINGER);
        assert_eq!(cut.steps, [RunStep::Reap, RunStep::CutOutput]);
        assert_eq!(cut.conclusion, Some(Conclusion::Exited(None)));
        assert_eq!(run.open_outputs(), 2, "their rest is to be read");
    }

    #[test]
    fn each_reason_ends_a_running_program_once_and_is_part_of_the_conclusion() {
        for (event, cause) in [
            (Standstill, EndCause::Standstill),
            (Overflow, EndCause::Overflow),
            (Invalid, EndCause::Invalid),
            (Stop, EndCause::Stop),
            (Tick, EndCause::Timeout),
        ] {
            let now = Instant::now();
            let (mut run, ..) = after(&[Started], now);
            let due = run.deadline().unwrap();
            assert_eq!(due, now + TIMEOUT);
            let end = [RunStep::End(cause), RunStep::EndInput];
            assert_eq!(run.handle(event, due).steps, end, "{event:?}");
            for again in [Standstill, Overflow, Invalid, Stop, Tick] {
                assert_eq!(run.handle(again, due), NOTHING, "{again:?} after {event:?}");
            }
            let _ = (run.handle(OutputOver, due), run.handle(OutputOver, due));
            let exit = run.handle(Exited, due);
            assert_eq!(exit.conclusion, Some(Conclusion::Exited(Some(cause))), "{event:?}");
        }
    }

    #[test]
    fn a_program_that_lost_its_clients_is_ended_and_its_streams_are_closed() {
        let now = Instant::now();
        let (_, taken, conclusion) = after(&[Started, Deserted, Exited], now);
        let end = [RunStep::End(EndCause::Deserted), RunStep::CloseStreams];
        assert_eq!(taken, [&end[..], &[RunStep::EndInput, RunStep::Reap]].concat());
        assert_eq!(conclusion, Some(Conclusion::Exited(Some(EndCause::Deserted))));
        let (_, taken, _) = after(&[Started, Exited, Deserted], now);
        assert_eq!(taken, [RunStep::EndInput, RunStep::Reap], "nothing is left to be ended");
        let (_, taken, conclusion) = after(&[Deserted], now);
        assert_eq!(
            (taken, conclusion),
            (vec![], Some(Conclusion::Cancelled(EndCause::Deserted)))
        );
    }

    #[test]
    fn an_unkillable_program_is_concluded_without_being_reaped() {
        let (run, taken, conclusion) = after(&[Started, Stop, Unkillable, Exited], Instant::now());
        assert_eq!(taken.last(), Some(&RunStep::CloseStreams));
        assert_eq!(conclusion, Some(Conclusion::Unkillable));
        assert_eq!(run.state(), RunState::Over);
    }

    proptest! {
        /// The promises of the module comment, for a shell that reports what can happen.
        #[test]
        fn random_events_lead_to_one_conclusion_and_one_reap(
            story in prop::collection::vec((prop::sample::select(EVENTS.to_vec()), 0_u64..40), 0..60),
            outputs in 1_u8..3,
        ) {
            let mut now = Instant::now();
            let mut run = Run::new(outputs, Some(TIMEOUT), LINGER);
            let (mut started, mut exited, mut signalled, mut given_up) = (false, false, false, false);
            let (mut open, mut reaped, mut conclusion) = (outputs, false, None);
            // Whatever has happened, the program exits, its outputs end, and the run has to be over.
            let ends = [(Started, 0), (Exited, 0), (OutputOver, 0), (OutputOver, 0)];
            for (event, wait) in story.into_iter().chain(ends) {
                now += Duration::from_secs(wait);
                let can_happen = match event {
                    Started | NotStarted => !started && conclusion.is_none(),
                    OutputOver => started && open > 0,
                    Exited => started && !exited,
                    Unkillable => signalled && !exited && !given_up,
                    Tick | Standstill | Overflow | Invalid | Deserted | Stop | Abort => true,
                };
                if !can_happen { continue }
                started |= event == Started;
                exited |= event == Exited;
                given_up |= event == Unkillable;
                open -= u8::from(event == OutputOver);
                let advance = run.handle(event, now);
                prop_assert!(conclusion.is_none() || advance == NOTHING, "after the conclusion");
                for step in advance.steps {
                    match step {
                        RunStep::EndInput => prop_assert!(started),
                        RunStep::End(_) => {
                            prop_assert!(started && !exited && !signalled, "ended once");
                            signalled = true;
                        }
                        RunStep::Kill => {
                            prop_assert!(started && !exited);
                            signalled = true;
                        }
                        RunStep::CloseStreams => open = 0,
                        RunStep::Reap => {
                            prop_assert!(exited && !reaped, "reaped once, behind the exit");
                            reaped = true;
                        }
                        RunStep::CutOutput => prop_assert!(reaped && open > 0),
                    }
                }
                conclusion = conclusion.or(advance.conclusion);
                prop_assert_eq!(conclusion.is_some(), run.state() == RunState::Over);
                match conclusion {
                    Some(Conclusion::Exited(_)) => prop_assert!(reaped),
                    Some(Conclusion::Unkillable) => prop_assert!(given_up && !reaped),
                    Some(Conclusion::NotStarted | Conclusion::Cancelled(_)) => prop_assert!(!started),
                    None => {}
                }
                let has_deadline = match run.state() {
                    RunState::Running { .. } | RunState::Lingering { .. } => run.deadline().is_some(),
                    RunState::Starting | RunState::Over => true,
                    RunState::Ending { .. } => signalled,
                };
                prop_assert!(has_deadline, "{:?} has a deadline, or a reason to have none", run.state());
            }
            prop_assert!(conclusion.is_some(), "{:?}", run);
        }
    }
}
