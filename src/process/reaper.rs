//! How a child is brought to its end, decided without touching it: [`Event`] in, [`Action`]s out, the time an argument.
//!
//! A program that reads standard input ends by itself when its input ends; one that does not is told to by TERM, and
//! one that does not heed that is killed. [`Manner`] says where on this ladder to begin. A child may exit on any rung,
//! and may be hurried to a later one; nothing leads back.
//!
//! ```text
//! Running ──expected──▸ Expected ──END_GRACE──────────────▾
//! Running ──gently──▸ InputClosed ──INPUT_GRACE──▸ Terminated ──kill_timeout──▸ Killed ──GIVE_UP_AFTER──▸ GivenUp
//!    ├──────promptly────────────────────────────────▴                           ▴                           │
//!    └──────at once─────────────────────────────────────────────────────────────┘        any ──exit──▸ Ended ◂┘
//! ```
//!
//! Every state on the way has a deadline. `Running` has none of this file's making: what a running child may take time
//! for is its owner's business. `GivenUp` is for a process that even KILL does not end, since it is stuck in the kernel
//! (a dead network file system); waiting longer would make the daemon as stuck as that.

use std::time::{Duration, Instant};

/// From closing a child's input to TERM: time enough to see the end of the input and exit, not to finish work.
pub const INPUT_GRACE: Duration = Duration::from_millis(500);

/// From the sign that a child ends until it is ended: far longer than the kernel takes between closing the files of a process
/// that dies and telling of its end.
pub const END_GRACE: Duration = Duration::from_millis(500);

/// From KILL until the owner is told not to wait any longer.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// How a child is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It has closed what it needs, as one that dies does a moment before its end is known: nothing is done to it, so that its
    /// status is its own, until [`END_GRACE`] is over. Then as promptly.
    Expected,
    /// Its input ends, then TERM after [`INPUT_GRACE`], then KILL.
    Gently,
    /// TERM now, then KILL.
    Promptly,
    /// KILL now.
    AtOnce,
}

/// What happens to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its owner wants it gone.
    Stop(Manner),
    /// The time is what [`Ending::deadline`] said. One that comes early changes nothing.
    Deadline,
    /// Its pidfd is readable.
    Exited,
}

/// What is to be done to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Drop our end of its standard input.
    CloseStdin,
    /// [`Child::terminate_group`](super::child::Child::terminate_group).
    Terminate,
    /// [`Child::kill_group`](super::child::Child::kill_group) with KILL.
    Kill,
    /// [`Child::reap_with_group`](super::child::Child::reap_with_group).
    Reap,
    /// Log that it cannot be ended, and do not wait for it. If it ever exits, it is reaped.
    GiveUp,
}

/// Where a child is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It is not to be ended.
    Running,
    /// It is about to end by itself.
    Expected {
        /// When it gets TERM.
        terminate_at: Instant,
    },
    /// Its input has ended.
    InputClosed {
        /// When it gets TERM.
        terminate_at: Instant,
    },
    /// It was sent TERM.
    Terminated {
        /// When it gets KILL.
        kill_at: Instant,
    },
    /// It was sent KILL.
    Killed {
        /// When it is not waited for any longer.
        give_up_at: Instant,
    },
    /// It has not ended and will not be waited for.
    GivenUp,
    /// It has exited.
    Ended,
}

/// The ending of one child.
#[derive(Debug, Clone)]
pub struct Ending {
    kill_timeout: Duration,
    state: State,
}

impl Ending {
    /// For a child that has just been started. `kill_timeout` is the time from TERM to KILL.
    #[must_use]
    pub const fn new(kill_timeout: Duration) -> Self {
        Self {
            kill_timeout,
            state: State::Running,
        }
    }

    /// Where it is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether it was sent a signal to end it.
    #[must_use]
    pub const fn has_signalled(&self) -> bool {
        matches!(
            self.state,
            State::Terminated { .. } | State::Killed { .. } | State::GivenUp
        )
    }

    /// When to come back with [`Event::Deadline`].
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Expected { terminate_at: at }
            | State::InputClosed { terminate_at: at }
            | State::Terminated { kill_at: at }
            | State::Killed { give_up_at: at } => Some(at),
            State::Running | State::GivenUp | State::Ended => None,
        }
    }

    /// What `event`, happening at `now`, calls for; to be done in the order given.
    #[must_use]
    pub fn handle(&mut self, event: Event, now: Instant) -> &'static [Action] {
        let (next, actions): (State, &'static [Action]) = match (self.state, event) {
            (State::Ended, _) => return &[],
            (_, Event::Exited) => (State::Ended, &[Action::Reap]),

            (State::Running, Event::Stop(Manner::Expected)) => (
                State::Expected {
                    terminate_at: now + END_GRACE,
                },
                &[],
            ),
            (State::Running | State::Expected { .. }, Event::Stop(Manner::Gently)) => (
                State::InputClosed {
                    terminate_at: now + INPUT_GRACE,
                },
                &[Action::CloseStdin],
            ),
            (State::Running | State::Expected { .. }, Event::Stop(Manner::Promptly)) => {
                (self.terminated(now), &[Action::CloseStdin, Action::Terminate])
            }
            (State::Expected { terminate_at }, Event::Deadline) if now >= terminate_at => {
                (self.terminated(now), &[Action::CloseStdin, Action::Terminate])
            }
            (State::Running | State::Expected { .. }, Event::Stop(Manner::AtOnce)) => {
                (killed(now), &[Action::CloseStdin, Action::Kill])
            }

            (State::InputClosed { .. }, Event::Stop(Manner::Promptly)) => (self.terminated(now), &[Action::Terminate]),
            (State::InputClosed { terminate_at }, Event::Deadline) if now >= terminate_at => {
                (self.terminated(now), &[Action::Terminate])
            }
            (State::InputClosed { .. } | State::Terminated { .. }, Event::Stop(Manner::AtOnce)) => {
                (killed(now), &[Action::Kill])
            }
            (State::Terminated { kill_at }, Event::Deadline) if now >= kill_at => (killed(now), &[Action::Kill]),
            (State::Killed { give_up_at }, Event::Deadline) if now >= give_up_at => (State::GivenUp, &[Action::GiveUp]),

            // Already as far as asked, or further.
            (State::Expected { .. }, Event::Stop(Manner::Expected))
            | (State::InputClosed { .. }, Event::Stop(Manner::Expected | Manner::Gently))
            | (State::Terminated { .. }, Event::Stop(Manner::Expected | Manner::Gently | Manner::Promptly))
            | (State::Killed { .. } | State::GivenUp, Event::Stop(_)) => return &[],
            // Early, or left over from a state that had one.
            (_, Event::Deadline) => return &[],
        };
        self.state = next;
        actions
    }

    fn terminated(&self, now: Instant) -> State {
        State::Terminated {
            kill_at: now + self.kill_timeout,
        }
    }
}

fn killed(now: Instant) -> State {
    State::Killed {
        give_up_at: now + GIVE_UP_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KILL_TIMEOUT: Duration = Duration::from_secs(3);
    const STOPS: [Event; 4] = [
        Event::Stop(Manner::Expected),
        Event::Stop(Manner::Gently),
        Event::Stop(Manner::Promptly),
        Event::Stop(Manner::AtOnce),
    ];

    fn at(state: State) -> Ending {
        Ending {
            kill_timeout: KILL_TIMEOUT,
            state,
        }
    }

    #[test]
    fn every_pair_of_state_and_event_is_as_the_table_says() {
        use Action::{CloseStdin, GiveUp, Kill, Reap, Terminate};
        let now = Instant::now();
        let expected = State::Expected { terminate_at: now };
        let closed = State::InputClosed { terminate_at: now };
        let terminated = State::Terminated { kill_at: now };
        let killed = State::Killed { give_up_at: now };
        let to_expected = State::Expected {
            terminate_at: now + END_GRACE,
        };
        let (to_closed, to_terminated, to_killed) = (
            State::InputClosed {
                terminate_at: now + INPUT_GRACE,
            },
            State::Terminated {
                kill_at: now + KILL_TIMEOUT,
            },
            State::Killed {
                give_up_at: now + GIVE_UP_AFTER,
            },
        );
        type Cell = (State, &'static [Action]);
        // state: expected, gently, promptly, at once, its deadline, its exit
        let table: [(State, [Cell; 6]); 7] = [
            (
                State::Running,
                [
                    (to_expected, &[]),
                    (to_closed, &[CloseStdin]),
                    (to_terminated, &[CloseStdin, Terminate]),
                    (to_killed, &[CloseStdin, Kill]),
                    (State::Running, &[]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (
                expected,
                [
                    (expected, &[]),
                    (to_closed, &[CloseStdin]),
                    (to_terminated, &[CloseStdin, Terminate]),
                    (to_killed, &[CloseStdin, Kill]),
                    (to_terminated, &[CloseStdin, Terminate]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (
                closed,
                [
                    (closed, &[]),
                    (closed, &[]),
                    (to_terminated, &[Terminate]),
                    (to_killed, &[Kill]),
                    (to_terminated, &[Terminate]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (
                terminated,
                [
                    (terminated, &[]),
                    (terminated, &[]),
                    (terminated, &[]),
                    (to_killed, &[Kill]),
                    (to_killed, &[Kill]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (
                killed,
                [
                    (killed, &[]),
                    (killed, &[]),
                    (killed, &[]),
                    (killed, &[]),
                    (State::GivenUp, &[GiveUp]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (
                State::GivenUp,
                [
                    (State::GivenUp, &[]),
                    (State::GivenUp, &[]),
                    (State::GivenUp, &[]),
                    (State::GivenUp, &[]),
                    (State::GivenUp, &[]),
                    (State::Ended, &[Reap]),
                ],
            ),
            (State::Ended, [(State::Ended, &[]); 6]),
        ];
        for (state, row) in table {
            let events = STOPS.into_iter().chain([Event::Deadline, Event::Exited]);
            for (event, (next, actions)) in events.zip(row) {
                let mut ending = at(state);
                assert_eq!(
                    (ending.handle(event, now), ending.state()),
                    (actions, next),
                    "{state:?} and {event:?}"
                );
            }
        }
    }

    #[test]
    fn a_deadline_that_comes_early_changes_nothing() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        for state in [
            State::Expected { terminate_at: later },
            State::InputClosed { terminate_at: later },
            State::Terminated { kill_at: later },
            State::Killed { give_up_at: later },
        ] {
            let mut ending = at(state);
            assert_eq!((ending.handle(Event::Deadline, now), ending.state()), (&[][..], state));
        }
    }

    /// 0 to 3: a stop; 4: its deadline; 5: a deadline of nobody's; 6: its exit.
    fn story() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0_u8..7, 0_u64..4000), 0..40)
    }

    proptest! {
        #[test]
        fn whatever_happens_the_ladder_is_climbed_in_order(story in story()) {
            let mut now = Instant::now();
            let mut ending = Ending::new(KILL_TIMEOUT);
            let (mut done, mut hurried, mut stopped) = (Vec::new(), false, false);
            for (choice, wait_ms) in story {
                now += Duration::from_millis(wait_ms);
                let event = match choice {
                    stop @ 0..=3 => STOPS[usize::from(stop)],
                    4 => {
                        now = ending.deadline().map_or(now, |deadline| now.max(deadline));
                        Event::Deadline
                    }
                    5 => Event::Deadline,
                    _ => Event::Exited,
                };
                hurried |= event == Event::Stop(Manner::AtOnce);
                stopped |= matches!(event, Event::Stop(_));
                done.extend_from_slice(ending.handle(event, now));
                let waits = matches!(
                    ending.state(),
                    State::Expected { .. }
                        | State::InputClosed { .. }
                        | State::Terminated { .. }
                        | State::Killed { .. }
                );
                prop_assert_eq!(ending.deadline().is_some(), waits);
            }
            let place = |action| done.iter().position(|&other| other == action);
            for action in [Action::CloseStdin, Action::Terminate, Action::Kill, Action::Reap, Action::GiveUp] {
                prop_assert!(done.iter().filter(|&&other| other == action).count() <= 1, "{:?} twice", action);
            }
            if let Some(kill) = place(Action::Kill) {
                prop_assert!(hurried || place(Action::Terminate).is_some_and(|terminate| terminate < kill));
            }
            if let Some(give_up) = place(Action::GiveUp) {
                prop_assert!(place(Action::Kill).is_some_and(|kill| kill < give_up));
            }
            if done.iter().any(|&action| action != Action::Reap) {
                prop_assert!(stopped && place(Action::CloseStdin) == Some(0));
            }
            prop_assert_eq!(place(Action::Reap).is_some(), ending.state() == State::Ended);
        }

        #[test]
        fn once_stopped_it_is_over_in_three_deadlines(manner in 0_usize..4) {
            let mut now = Instant::now();
            let mut ending = Ending::new(KILL_TIMEOUT);
            let _ = ending.handle(STOPS[manner], now);
            for _ in 0..[3, 3, 2, 1][manner] {
                now = ending.deadline().unwrap();
                prop_assert!(!ending.handle(Event::Deadline, now).is_empty());
            }
            prop_assert_eq!(ending.state(), State::GivenUp);
        }
    }
}
