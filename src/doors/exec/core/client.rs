//! The life of one connection of the exec door: [`ClientEvent`]s in, [`ClientAction`]s out, the time an argument.
//!
//! ```text
//! Asking ─arguments─▸ Served ─concluded─▸ Answered ─all sent─▸ Closing ─▸ Over
//!    │                  └─client gone─▸ Abandoned ─concluded─▸ Over
//!    └──────refused──────────────────────▸ ▴
//! ```
//!
//! [`Run`] decides the life of the program; this file decides when the client is answered and when its connection ends.
//! A program whose outputs are cut has been reaped, and its pipes hold a known [`Rest`], which the client gets at its
//! own pace. A client that is gone does not end the connection before its program is concluded (`Abandoned`).

use std::time::{Duration, Instant};

use super::request::Wrong;
use crate::doors::run::{Advance, Conclusion, EndCause, Run, RunEvent, RunState, RunStep};

/// The number of pipes for a program's output: standard output and standard error.
const OUTPUTS: u8 = 2;

/// The time limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// The time from accept until the arguments must be complete.
    pub read_timeout: Duration,
    /// The time that a program may run; `None`: without limit.
    pub timeout: Option<Duration>,
    /// The time from a program's exit until its outputs are awaited no longer.
    pub linger: Duration,
    /// The time that the client may leave output unread once its program has ended.
    pub write_timeout: Duration,
}

/// An event in the life of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientEvent {
    /// The arguments are complete.
    Arguments,
    /// The bytes from the client are no valid request.
    Wrong(Wrong),
    /// The client passes a signal on to its program, which was started.
    Signal(i32),
    /// The client has ended its side before it asked anything; or the lingering close is done.
    Left,
    /// The client can neither send nor read any more.
    Gone,
    /// The client has read something.
    Progress,
    /// The client was sent everything that is to be sent.
    Flushed,
    /// The door stops: programs are ended as at their timeout.
    Stop,
    /// The door aborts: programs are killed, and connections closed.
    Abort,
    /// [`Client::deadline`] has passed. Reported early, it changes nothing.
    Tick,
    /// An event of the client's program. [`RunEvent::NotStarted`] must be reported after the client was told the
    /// reason.
    Program(RunEvent),
}

/// An action for the shell. Actions must be carried out in the given order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAction {
    /// Start the program when it is its turn.
    Start,
    /// Tell the client why it gets no program, or no exit status.
    Refuse(Refusal),
    /// Send this signal to the program's group.
    Signal(i32),
    /// Take this step of the program's run.
    Program(RunStep),
    /// Tell the client the exit status.
    Conclude,
    /// Begin the lingering close.
    BeginClose,
    /// Drop the connection.
    Close,
}

/// The reason for which a client gets no program, or no exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The bytes from the client are no valid request.
    Wrong(Wrong),
    /// The arguments were not complete in time.
    TooSlow,
    /// The client has sent more than may be held before it has read the output.
    Standstill,
    /// The door stops.
    Stop,
    /// The program has survived KILL.
    Unkillable,
}

/// The state of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    /// The arguments are not complete.
    Asking {
        /// The time at which they must be.
        until: Instant,
    },
    /// A program runs for the client, from the moment that the arguments are complete.
    Served {
        /// The program's run.
        run: Run,
        /// The reason for which the request was not valid after all.
        wrong: Option<Wrong>,
    },
    /// The end of the answer is on its way to the client.
    Answered {
        /// The part of it that is still in the pipes of the program, which is reaped.
        rest: Option<Rest>,
        /// The time at which the client must have read something.
        until: Instant,
    },
    /// The client has everything, and its connection lingers.
    Closing,
    /// The client is gone, and its program is being ended.
    Abandoned(Run),
    /// The connection is closed.
    Over,
}

/// The rest of an answer: output in the pipes of a program, and the end behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rest {
    /// The refusal that stands in for the exit status.
    refusal: Option<Refusal>,
    /// The number of pipes that are not read to their end.
    open: u8,
}

impl ClientState {
    /// The state's name in the dump.
    pub fn name(&self) -> &'static str {
        match self {
            ClientState::Asking { .. } => "asking",
            ClientState::Served { run, .. } => match run.state() {
                RunState::Starting => "starting",
                RunState::Running { .. } => "running",
                RunState::Ending { .. } => "ending",
                RunState::Lingering { .. } => "lingering",
                RunState::Over => "over",
            },
            ClientState::Answered { rest: Some(_), .. } => "remains",
            ClientState::Answered { rest: None, .. } => "answered",
            ClientState::Closing => "parting",
            ClientState::Abandoned(_) => "abandoned",
            ClientState::Over => "over",
        }
    }
}

/// One connection.
#[derive(Debug, Clone)]
pub struct Client {
    policy: Policy,
    state: ClientState,
}

impl Client {
    /// Creates the state of a client that has just connected.
    pub fn new(policy: Policy, now: Instant) -> Self {
        let until = now + policy.read_timeout;
        Client {
            policy,
            state: ClientState::Asking { until },
        }
    }

    /// The current state.
    pub fn state(&self) -> ClientState {
        self.state
    }

    /// Returns true if bytes from the client belong to its request. In all other states they are dropped.
    pub fn is_listening(&self) -> bool {
        match self.state {
            ClientState::Asking { .. } => true,
            ClientState::Served { run, .. } => run.is_going(),
            ClientState::Answered { .. } | ClientState::Closing | ClientState::Abandoned(_) | ClientState::Over => {
                false
            }
        }
    }

    /// Returns true if the program is about to be started.
    pub fn is_starting(&self) -> bool {
        matches!(self.state, ClientState::Served { run, .. } if run.state() == RunState::Starting)
    }

    /// The time at which [`ClientEvent::Tick`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            ClientState::Asking { until } | ClientState::Answered { until, .. } => Some(until),
            ClientState::Served { run, .. } | ClientState::Abandoned(run) => run.deadline(),
            // The lingering close has a deadline of its own.
            ClientState::Closing | ClientState::Over => None,
        }
    }

    /// Bounds the time to complete a request. The door calls it when it drains.
    pub fn hasten(&mut self, by: Instant) {
        if let ClientState::Asking { until } = &mut self.state {
            *until = by.min(*until);
        }
    }

    /// Advances the connection by an event that happens at `now`. Returns the actions to take.
    pub fn handle(&mut self, event: ClientEvent, now: Instant) -> Vec<ClientAction> {
        match self.state {
            ClientState::Asking { until } => self.asking(until, event, now),
            ClientState::Served { run, wrong } => self.served(run, wrong, event, now),
            ClientState::Abandoned(run) => self.served(run, None, event, now),
            ClientState::Answered { rest, until } => self.answered(rest, until, event, now),
            ClientState::Closing => self.closing(event),
            ClientState::Over => Vec::new(),
        }
    }

    fn asking(&mut self, until: Instant, event: ClientEvent, now: Instant) -> Vec<ClientAction> {
        match event {
            ClientEvent::Arguments => {
                let run = Run::new(OUTPUTS, self.policy.timeout, self.policy.linger);
                self.state = ClientState::Served { run, wrong: None };
                vec![ClientAction::Start]
            }
            ClientEvent::Wrong(wrong) => self.refuse(Refusal::Wrong(wrong), now),
            ClientEvent::Tick if now >= until => self.refuse(Refusal::TooSlow, now),
            ClientEvent::Stop => self.refuse(Refusal::Stop, now),
            ClientEvent::Left | ClientEvent::Gone | ClientEvent::Abort => vec![self.close()],
            // There is no program, and nothing was sent; the tick is early.
            ClientEvent::Signal(_)
            | ClientEvent::Progress
            | ClientEvent::Flushed
            | ClientEvent::Tick
            | ClientEvent::Program(_) => Vec::new(),
        }
    }

    /// Passes an event on to the run of the program, also if the client is gone.
    fn served(
        &mut self,
        mut run: Run,
        mut wrong: Option<Wrong>,
        event: ClientEvent,
        now: Instant,
    ) -> Vec<ClientAction> {
        let run_event = match event {
            ClientEvent::Program(event) => event,
            ClientEvent::Wrong(why) => {
                wrong = Some(why).filter(|_| run.is_going()).or(wrong);
                RunEvent::Invalid
            }
            ClientEvent::Stop => RunEvent::Stop,
            ClientEvent::Tick => RunEvent::Tick,
            ClientEvent::Gone => RunEvent::Deserted,
            ClientEvent::Abort => RunEvent::Abort,
            // The program's time goes on: a client that wants to end it can hang up.
            ClientEvent::Signal(signal) if matches!(run.state(), RunState::Running { .. }) => {
                return vec![ClientAction::Signal(signal)];
            }
            // The program is ending or not started. The request is complete, the end of its input is passed on by the
            // shell, and output that was sent changes nothing.
            ClientEvent::Signal(_)
            | ClientEvent::Arguments
            | ClientEvent::Left
            | ClientEvent::Progress
            | ClientEvent::Flushed => return Vec::new(),
        };
        let was_abandoned = matches!(self.state, ClientState::Abandoned(_));
        let is_abandoned = was_abandoned || matches!(event, ClientEvent::Gone | ClientEvent::Abort);
        let Advance { steps, conclusion } = run.handle(run_event, now);
        let mut actions = program_actions(steps, conclusion);
        match conclusion {
            None if is_abandoned => self.state = ClientState::Abandoned(run),
            None => self.state = ClientState::Served { run, wrong },
            Some(_) if is_abandoned => actions.push(self.close()),
            Some(conclusion) => actions.extend(self.conclude(run, conclusion, wrong, now)),
        }
        actions
    }

    /// Answers the client whose program is concluded.
    fn conclude(
        &mut self,
        run: Run,
        conclusion: Conclusion,
        wrong: Option<Wrong>,
        now: Instant,
    ) -> Option<ClientAction> {
        let refusal = match conclusion {
            // The client was told the reason already.
            Conclusion::NotStarted => {
                self.answer(None, now);
                return None;
            }
            Conclusion::Unkillable => Some(Refusal::Unkillable),
            Conclusion::Cancelled(EndCause::Stop) => Some(Refusal::Stop),
            Conclusion::Cancelled(cause) | Conclusion::Exited(Some(cause)) => refusal(cause, wrong),
            Conclusion::Exited(None) => None,
        };
        let open = run.open_outputs();
        let rest = (open > 0).then_some(Rest { refusal, open });
        self.answer(rest, now);
        rest.is_none().then(|| final_action(refusal))
    }

    fn answered(&mut self, rest: Option<Rest>, until: Instant, event: ClientEvent, now: Instant) -> Vec<ClientAction> {
        match (event, rest) {
            (ClientEvent::Program(RunEvent::OutputOver), Some(Rest { refusal, open: ..=1 })) => {
                self.answer(None, now);
                vec![final_action(refusal)]
            }
            (ClientEvent::Program(RunEvent::OutputOver), Some(Rest { refusal, open })) => {
                let rest = Some(Rest {
                    refusal,
                    open: open - 1,
                });
                self.state = ClientState::Answered { rest, until };
                Vec::new()
            }
            (ClientEvent::Progress, _) => {
                self.answer(rest, now);
                Vec::new()
            }
            (ClientEvent::Flushed, None) => {
                self.state = ClientState::Closing;
                vec![ClientAction::BeginClose]
            }
            (ClientEvent::Tick, _) if now >= until => vec![self.close()],
            (ClientEvent::Gone | ClientEvent::Abort, _) => vec![self.close()],
            // A client may end its side and still read. Nothing runs that could be ended, and the conclusion is still
            // to be sent; the tick is early.
            (
                ClientEvent::Arguments
                | ClientEvent::Wrong(_)
                | ClientEvent::Signal(_)
                | ClientEvent::Left
                | ClientEvent::Flushed
                | ClientEvent::Stop
                | ClientEvent::Tick
                | ClientEvent::Program(_),
                _,
            ) => Vec::new(),
        }
    }

    fn closing(&mut self, event: ClientEvent) -> Vec<ClientAction> {
        match event {
            ClientEvent::Left | ClientEvent::Gone | ClientEvent::Abort => vec![self.close()],
            // The request and its answer are past.
            ClientEvent::Arguments
            | ClientEvent::Wrong(_)
            | ClientEvent::Signal(_)
            | ClientEvent::Progress
            | ClientEvent::Flushed
            | ClientEvent::Stop
            | ClientEvent::Tick
            | ClientEvent::Program(_) => Vec::new(),
        }
    }

    fn refuse(&mut self, refusal: Refusal, now: Instant) -> Vec<ClientAction> {
        self.answer(None, now);
        vec![ClientAction::Refuse(refusal)]
    }

    /// Waits for the client to read the rest of its answer, or some of it.
    fn answer(&mut self, rest: Option<Rest>, now: Instant) {
        let until = now + self.policy.write_timeout;
        self.state = ClientState::Answered { rest, until };
    }

    fn close(&mut self) -> ClientAction {
        self.state = ClientState::Over;
        ClientAction::Close
    }
}

/// The actions for the steps of a run, with room for one that answers the conclusion.
fn program_actions(steps: &[RunStep], conclusion: Option<Conclusion>) -> Vec<ClientAction> {
    let mut actions = Vec::with_capacity(steps.len() + usize::from(conclusion.is_some()));
    actions.extend(steps.iter().copied().map(ClientAction::Program));
    actions
}

/// The last thing that a client is told.
fn final_action(refusal: Option<Refusal>) -> ClientAction {
    refusal.map_or(ClientAction::Conclude, ClientAction::Refuse)
}

/// The refusal that stands in for the exit status of a program that was ended for this reason. `None`: the client is
/// told the exit status.
fn refusal(cause: EndCause, wrong: Option<Wrong>) -> Option<Refusal> {
    match cause {
        EndCause::Invalid => wrong.map(Refusal::Wrong),
        EndCause::Standstill => Some(Refusal::Standstill),
        EndCause::Timeout | EndCause::Overflow | EndCause::Stop | EndCause::Deserted => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ClientEvent::Program;
    use super::*;

    const POLICY: Policy = Policy {
        read_timeout: Duration::from_secs(30),
        timeout: Some(Duration::from_secs(60)),
        linger: Duration::from_secs(1),
        write_timeout: Duration::from_secs(20),
    };
    const STARTED: ClientEvent = Program(RunEvent::Started);
    const EXITED: ClientEvent = Program(RunEvent::Exited);
    const OUTPUT_OVER: ClientEvent = Program(RunEvent::OutputOver);
    const RUNNING: [ClientEvent; 2] = [ClientEvent::Arguments, STARTED];
    const END_INPUT: ClientAction = ClientAction::Program(RunStep::EndInput);
    const REAP: ClientAction = ClientAction::Program(RunStep::Reap);

    fn after(events: &[ClientEvent], now: Instant) -> (Client, Vec<ClientAction>) {
        let mut client = Client::new(POLICY, now);
        let actions = events.iter().flat_map(|event| client.handle(*event, now)).collect();
        (client, actions)
    }

    fn end(cause: EndCause) -> [ClientAction; 2] {
        [ClientAction::Program(RunStep::End(cause)), END_INPUT]
    }

    #[test]
    fn the_exit_status_is_told_behind_all_output_in_any_order() {
        for order in [
            [OUTPUT_OVER, OUTPUT_OVER, EXITED],
            [OUTPUT_OVER, EXITED, OUTPUT_OVER],
            [EXITED, OUTPUT_OVER, OUTPUT_OVER],
        ] {
            let (client, actions) = after(&[&RUNNING[..], &order].concat(), Instant::now());
            let expected = [ClientAction::Start, END_INPUT, REAP, ClientAction::Conclude];
            assert_eq!(actions, expected, "{order:?}");
            assert!(matches!(client.state(), ClientState::Answered { .. }));
        }
    }

    #[test]
    fn the_rest_of_a_cut_output_is_sent_before_the_exit_status() {
        let now = Instant::now();
        let (mut client, _) = after(&[&RUNNING[..], &[EXITED]].concat(), now);
        assert_eq!(client.deadline(), Some(now + POLICY.linger));
        assert_eq!(client.handle(ClientEvent::Tick, now), [], "early");
        let cut = client.handle(ClientEvent::Tick, now + POLICY.linger);
        assert_eq!(cut, [REAP, ClientAction::Program(RunStep::CutOutput)]);
        assert_eq!(client.handle(OUTPUT_OVER, now), []);
        assert_eq!(client.handle(OUTPUT_OVER, now), [ClientAction::Conclude]);
    }

    #[test]
    fn a_program_is_ended_at_its_timeout_and_its_client_told_the_exit_status() {
        let now = Instant::now();
        let (mut client, _) = after(&RUNNING, now);
        let due = client.deadline().unwrap();
        assert_eq!(due, now + Duration::from_secs(60));
        assert_eq!(client.handle(ClientEvent::Tick, due), end(EndCause::Timeout));
        client.handle(OUTPUT_OVER, due);
        client.handle(OUTPUT_OVER, due);
        assert!(client.handle(EXITED, due).ends_with(&[ClientAction::Conclude]));
    }

    #[test]
    fn a_program_that_writes_too_much_is_ended_once_and_its_client_told_the_exit_status() {
        let (now, overflow) = (Instant::now(), Program(RunEvent::Overflow));
        let (mut client, actions) = after(&[&RUNNING[..], &[overflow]].concat(), now);
        assert!(actions.ends_with(&end(EndCause::Overflow)));
        assert_eq!(client.handle(overflow, now), [], "it is being ended");
        client.handle(OUTPUT_OVER, now);
        client.handle(OUTPUT_OVER, now);
        assert!(client.handle(EXITED, now).ends_with(&[ClientAction::Conclude]));
        let (mut client, _) = after(&[&RUNNING[..], &[EXITED]].concat(), now);
        assert_eq!(client.handle(overflow, now), [], "it has ended by itself");
    }

    #[test]
    fn invalid_bytes_behind_the_arguments_end_the_program_and_are_refused() {
        let (wrong, now) = (Wrong::Malformed("x"), Instant::now());
        let (mut client, actions) = after(&[&RUNNING[..], &[ClientEvent::Wrong(wrong)]].concat(), now);
        assert!(actions.ends_with(&end(EndCause::Invalid)));
        client.handle(ClientEvent::Wrong(Wrong::BadCount), now);
        client.handle(EXITED, now);
        client.handle(OUTPUT_OVER, now);
        let answer = client.handle(OUTPUT_OVER, now);
        assert_eq!(answer, [REAP, ClientAction::Refuse(Refusal::Wrong(wrong))]);
    }

    #[test]
    fn a_request_that_turns_out_invalid_before_the_start_is_refused() {
        let (wrong, now) = (Wrong::Malformed("x"), Instant::now());
        let (mut client, _) = after(&[ClientEvent::Arguments], now);
        let refusal = [ClientAction::Refuse(Refusal::Wrong(wrong))];
        assert_eq!(client.handle(ClientEvent::Wrong(wrong), now), refusal);
        let (mut client, _) = after(&[ClientEvent::Arguments], now);
        let refusal = [ClientAction::Refuse(Refusal::Stop)];
        assert_eq!(client.handle(ClientEvent::Stop, now), refusal);
        assert_eq!(client.handle(ClientEvent::Stop, now), []);
    }

    #[test]
    fn a_signal_reaches_a_running_program_alone_and_does_not_prolong_its_time() {
        let now = Instant::now();
        let (mut client, _) = after(&RUNNING, now);
        let (state, later) = (client.state(), now + Duration::from_secs(5));
        assert_eq!(client.handle(ClientEvent::Signal(2), later), [ClientAction::Signal(2)]);
        assert_eq!(client.state(), state);
        client.handle(EXITED, later);
        assert_eq!(client.handle(ClientEvent::Signal(2), later), []);
    }

    #[test]
    fn a_client_that_leaves_its_answer_unread_is_closed() {
        let now = Instant::now();
        let (mut client, _) = after(&[ClientEvent::Arguments, Program(RunEvent::NotStarted)], now);
        let later = now + POLICY.write_timeout;
        client.handle(ClientEvent::Progress, now + Duration::from_secs(5));
        assert_eq!(client.handle(ClientEvent::Tick, later), []);
        let later = later + Duration::from_secs(5);
        assert_eq!(client.handle(ClientEvent::Tick, later), [ClientAction::Close]);
    }

    fn event() -> impl Strategy<Value = ClientEvent> {
        prop::sample::select(vec![
            ClientEvent::Arguments,
            STARTED,
            Program(RunEvent::NotStarted),
            ClientEvent::Wrong(Wrong::BadCount),
            Program(RunEvent::Overflow),
            Program(RunEvent::Standstill),
            ClientEvent::Signal(2),
            ClientEvent::Left,
            ClientEvent::Gone,
            OUTPUT_OVER,
            OUTPUT_OVER,
            EXITED,
            Program(RunEvent::Unkillable),
            ClientEvent::Progress,
            ClientEvent::Flushed,
            ClientEvent::Stop,
            ClientEvent::Abort,
            ClientEvent::Tick,
        ])
    }

    proptest! {
        /// The promises of `core/mod.rs`, for random events and a shell that does what it is told.
        #[test]
        fn random_events_reap_every_program_and_answer_every_client_once(
            story in prop::collection::vec((event(), 0u64..40), 0..60),
        ) {
            let mut now = Instant::now();
            let mut client = Client::new(POLICY, now);
            let (mut started, mut exited, mut reaped, mut given_up) = (false, false, false, false);
            let (mut outputs, mut told, mut closed, mut signalled) = (2, 0, 0, false);
            for (event, wait) in story {
                // There is one start and one exit, and each output ends once.
                let can_happen = match event {
                    STARTED | Program(RunEvent::NotStarted) => client.is_starting(),
                    EXITED => started && !exited && !given_up,
                    Program(RunEvent::Unkillable) => started && !exited && signalled && !given_up,
                    OUTPUT_OVER => started && outputs > 0,
                    ClientEvent::Arguments => matches!(client.state(), ClientState::Asking { .. }),
                    _ => true,
                };
                if !can_happen { continue }
                now += Duration::from_secs(wait);
                started |= event == STARTED;
                exited |= event == EXITED;
                given_up |= event == Program(RunEvent::Unkillable);
                outputs -= usize::from(event == OUTPUT_OVER);
                told += usize::from(event == Program(RunEvent::NotStarted));
                for action in client.handle(event, now) {
                    match action {
                        ClientAction::Start => prop_assert!(!started),
                        ClientAction::Refuse(_) | ClientAction::Conclude => {
                            told += 1;
                            prop_assert!(!started || given_up || (reaped && outputs == 0), "behind all output");
                        }
                        REAP => {
                            prop_assert!(exited && !reaped);
                            reaped = true;
                        }
                        ClientAction::Signal(_) => prop_assert!(started && !exited, "it runs, and is not about to end"),
                        ClientAction::Program(RunStep::End(_) | RunStep::Kill) => {
                            prop_assert!(started && !reaped);
                            signalled = true;
                        }
                        ClientAction::Program(RunStep::CutOutput) => prop_assert!(reaped && outputs > 0),
                        ClientAction::Close => {
                            closed += 1;
                            prop_assert!(!started || reaped || given_up, "nothing is left behind");
                        }
                        ClientAction::Program(RunStep::CloseStreams) => outputs = 0,
                        END_INPUT | ClientAction::BeginClose => {}
                    }
                }
                prop_assert!(told <= 1 && closed <= 1);
                prop_assert_eq!(closed == 1, client.state() == ClientState::Over);
            }
        }
    }
}
