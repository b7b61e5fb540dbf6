//! The escalation that ends one child process, decided without touching it: [`KillEvent`]s in, [`KillStep`]s out, the
//! time an argument.
//!
//! A program that reads standard input exits when its input ends. One that does not is sent TERM, and one that ignores
//! TERM is sent KILL. [`Manner`] says at which of these steps to begin. A child may exit in every state, and a later
//! [`KillEvent::Stop`] may skip steps; no step is undone. Where a signal is sent, the input ends behind it: a program
//! that finds the signal waiting does not take input that was cut off for complete.
//!
//! ```text
//! Running ──expected──▸ Expected ──END_GRACE──────────────▾
//! Running ──gently──▸ InputClosed ──INPUT_GRACE──▸ Terminated ──kill_timeout──▸ Killed ──GIVE_UP_AFTER──▸ GivenUp
//!    ├──────promptly────────────────────────────────▴                           ▴                           │
//!    └──────at once─────────────────────────────────────────────────────────────┘        any ──exit──▸ Ended ◂┘
//! ```
//!
//! Every state between `Running` and the end has a deadline. `Running` has none here: how long a child may run is
//! decided by its owner. `GivenUp` is for a process that KILL does not end, because it is stuck in the kernel (a dead
//! network file system); a daemon that waited for it would be stuck as well.

use std::time::{Duration, Instant};

/// The time from closing a child's input to TERM: enough to see the end of the input and exit, not to finish work.
pub const INPUT_GRACE: Duration = Duration::from_millis(500);

/// The time from the sign that a child is exiting to TERM: far longer than the kernel takes between closing the files
/// of a dying process and reporting its exit.
pub const END_GRACE: Duration = Duration::from_millis(500);

/// The time from KILL until the child is given up.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(5);

/// The step at which the escalation begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The child has closed a stream that it needs, as a dying process does a moment before its exit is reported.
    /// Nothing is done for [`END_GRACE`], so that its exit status is its own; then as [`Promptly`](Self::Promptly).
    Expected,
    /// The child's input is closed, TERM follows after [`INPUT_GRACE`], then KILL.
    Gently,
    /// TERM now, then KILL.
    Promptly,
    /// KILL now.
    AtOnce,
}

/// An event in the life of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillEvent {
    /// The owner of the child wants it to end.
    Stop(Manner),
    /// [`KillSequence::deadline`] has passed. Reported early, it changes nothing.
    Deadline,
    /// The child's pidfd is readable.
    Exited,
}

/// One thing to do to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillStep {
    /// Drop the daemon's end of the child's standard input.
    CloseStdin,
    /// [`Child::terminate_group`](super::child::Child::terminate_group).
    Terminate,
    /// [`Child::kill_group`](super::child::Child::kill_group) with KILL.
    Kill,
    /// [`Child::reap_with_group`](super::child::Child::reap_with_group).
    Reap,
    /// Log that the child cannot be killed, and stop waiting for it. If it ever exits, it is reaped.
    GiveUp,
}

/// The state of one child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillState {
    /// No stop was asked for.
    Running,
    /// The child is expected to exit by itself.
    Expected {
        /// The time at which it gets TERM.
        terminate_at: Instant,
    },
    /// The child's input has ended.
    InputClosed {
        /// The time at which it gets TERM.
        terminate_at: Instant,
    },
    /// The child was sent TERM.
    Terminated {
        /// The time at which it gets KILL.
        kill_at: Instant,
    },
    /// The child was sent KILL.
    Killed {
        /// The time from which on it is not waited for.
        give_up_at: Instant,
    },
    /// The child has not exited and is not waited for.
    GivenUp,
    /// The child has exited.
    Ended,
}

/// The escalation for one child.
#[derive(Debug, Clone)]
pub struct KillSequence {
    kill_timeout: Duration,
    state: KillState,
}

impl KillSequence {
    /// Creates the sequence of a child that was just started. `kill_timeout` is the time from TERM to KILL.
    #[must_use]
    pub const fn new(kill_timeout: Duration) -> Self {
        Self {
            kill_timeout,
            state: KillState::Running,
        }
    }

    /// The current state.
    #[cfg(test)]
    const fn state(&self) -> KillState {
        self.state
    }

    /// Returns true if TERM or KILL was sent.
    #[must_use]
    pub const fn has_signalled(&self) -> bool {
        matches!(
            self.state,
            KillState::Terminated { .. } | KillState::Killed { .. } | KillState::GivenUp
        )
    }

    /// The time at which [`KillEvent::Deadline`] is due; `None` while nothing is waited for.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            KillState::Expected { terminate_at: at }
            | KillState::InputClosed { terminate_at: at }
            | KillState::Terminated { kill_at: at }
            | KillState::Killed { give_up_at: at } => Some(at),
            KillState::Running | KillState::GivenUp | KillState::Ended => None,
        }
    }

    /// Returns the steps that `event` at `now` calls for, to be taken in this order.
    #[must_use]
    pub fn handle(&mut self, event: KillEvent, now: Instant) -> &'static [KillStep] {
        let (next, actions): (KillState, &'static [KillStep]) = match (self.state, event) {
            (KillState::Ended, _) => return &[],
            (_, KillEvent::Exited) => (KillState::Ended, &[KillStep::Reap]),

            (KillState::Running, KillEvent::Stop(Manner::Expected)) => (
                KillState::Expected {
                    terminate_at: now + END_GRACE,
                },
                &[],
            ),
            (KillState::Running | KillState::Expected { .. }, KillEvent::Stop(Manner::Gently)) => (
                KillState::InputClosed {
                    terminate_at: now + INPUT_GRACE,
                },
                &[KillStep::CloseStdin],
            ),
            (KillState::Running | KillState::Expected { .. }, KillEvent::Stop(Manner::Promptly)) => {
                (self.terminated(now), &[KillStep::Terminate, KillStep::CloseStdin])
            }
            (KillState::Expected { terminate_at }, KillEvent::Deadline) if now >= terminate_at => {
                (self.terminated(now), &[KillStep::Terminate, KillStep::CloseStdin])
            }
            (KillState::Running | KillState::Expected { .. }, KillEvent::Stop(Manner::AtOnce)) => {
                (killed(now), &[KillStep::Kill, KillStep::CloseStdin])
            }

            (KillState::InputClosed { .. }, KillEvent::Stop(Manner::Promptly)) => {
                (self.terminated(now), &[KillStep::Terminate])
            }
            (KillState::InputClosed { terminate_at }, KillEvent::Deadline) if now >= terminate_at => {
                (self.terminated(now), &[KillStep::Terminate])
            }
            (KillState::InputClosed { .. } | KillState::Terminated { .. }, KillEvent::Stop(Manner::AtOnce)) => {
                (killed(now), &[KillStep::Kill])
            }
            (KillState::Terminated { kill_at }, KillEvent::Deadline) if now >= kill_at => {
                (killed(now), &[KillStep::Kill])
            }
            (KillState::Killed { give_up_at }, KillEvent::Deadline) if now >= give_up_at => {
                (KillState::GivenUp, &[KillStep::GiveUp])
            }

            // The escalation has reached that step already.
            (KillState::Expected { .. }, KillEvent::Stop(Manner::Expected))
            | (KillState::InputClosed { .. }, KillEvent::Stop(Manner::Expected | Manner::Gently))
            | (KillState::Terminated { .. }, KillEvent::Stop(Manner::Expected | Manner::Gently | Manner::Promptly))
            | (KillState::Killed { .. } | KillState::GivenUp, KillEvent::Stop(_)) => return &[],
            // The deadline is early, or is that of a former state.
            (_, KillEvent::Deadline) => return &[],
        };
        self.state = next;
        actions
    }

    fn terminated(&self, now: Instant) -> KillState {
        KillState::Terminated {
            kill_at: now + self.kill_timeout,
        }
    }
}

fn killed(now: Instant) -> KillState {
    KillState::Killed {
        give_up_at: now + GIVE_UP_AFTER,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KILL_TIMEOUT: Duration = Duration::from_secs(3);
    const STOPS: [KillEvent; 4] = [
        KillEvent::Stop(Manner::Expected),
        KillEvent::Stop(Manner::Gently),
        KillEvent::Stop(Manner::Promptly),
        KillEvent::Stop(Manner::AtOnce),
    ];

    fn at(state: KillState) -> KillSequence {
        KillSequence {
            kill_timeout: KILL_TIMEOUT,
            state,
        }
    }

    #[test]
    fn every_pair_of_state_and_event_is_as_the_table_says() {
        use KillStep::{CloseStdin, GiveUp, Kill, Reap, Terminate};
        let now = Instant::now();
        let expected = KillState::Expected { terminate_at: now };
        let closed = KillState::InputClosed { terminate_at: now };
        let terminated = KillState::Terminated { kill_at: now };
        let killed = KillState::Killed { give_up_at: now };
        let to_expected = KillState::Expected {
            terminate_at: now + END_GRACE,
        };
        let (to_closed, to_terminated, to_killed) = (
            KillState::InputClosed {
                terminate_at: now + INPUT_GRACE,
            },
            KillState::Terminated {
                kill_at: now + KILL_TIMEOUT,
            },
            KillState::Killed {
                give_up_at: now + GIVE_UP_AFTER,
            },
        );
        type Cell = (KillState, &'static [KillStep]);
        // state: expected, gently, promptly, at once, its deadline, its exit
        let table: [(KillState, [Cell; 6]); 7] = [
            (
                KillState::Running,
                [
                    (to_expected, &[]),
                    (to_closed, &[CloseStdin]),
                    (to_terminated, &[Terminate, CloseStdin]),
                    (to_killed, &[Kill, CloseStdin]),
                    (KillState::Running, &[]),
                    (KillState::Ended, &[Reap]),
                ],
            ),
            (
                expected,
                [
                    (expected, &[]),
                    (to_closed, &[CloseStdin]),
                    (to_terminated, &[Terminate, CloseStdin]),
                    (to_killed, &[Kill, CloseStdin]),
                    (to_terminated, &[Terminate, CloseStdin]),
                    (KillState::Ended, &[Reap]),
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
                    (KillState::Ended, &[Reap]),
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
                    (KillState::Ended, &[Reap]),
                ],
            ),
            (
                killed,
                [
                    (killed, &[]),
                    (killed, &[]),
                    (killed, &[]),
                    (killed, &[]),
                    (KillState::GivenUp, &[GiveUp]),
                    (KillState::Ended, &[Reap]),
                ],
            ),
            (
                KillState::GivenUp,
                [
                    (KillState::GivenUp, &[]),
                    (KillState::GivenUp, &[]),
                    (KillState::GivenUp, &[]),
                    (KillState::GivenUp, &[]),
                    (KillState::GivenUp, &[]),
                    (KillState::Ended, &[Reap]),
                ],
            ),
            (KillState::Ended, [(KillState::Ended, &[]); 6]),
        ];
        for (state, row) in table {
            let events = STOPS.into_iter().chain([KillEvent::Deadline, KillEvent::Exited]);
            for (event, (next, actions)) in events.zip(row) {
                let mut sequence = at(state);
                assert_eq!(
                    (sequence.handle(event, now), sequence.state()),
                    (actions, next),
                    "{state:?} and {event:?}"
                );
            }
        }
    }

    #[test]
    fn an_early_deadline_changes_nothing() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        for state in [
            KillState::Expected { terminate_at: later },
            KillState::InputClosed { terminate_at: later },
            KillState::Terminated { kill_at: later },
            KillState::Killed { give_up_at: later },
        ] {
            let mut sequence = at(state);
            assert_eq!(
                (sequence.handle(KillEvent::Deadline, now), sequence.state()),
                (&[][..], state)
            );
        }
    }

    /// 0 to 3: a stop; 4: the deadline; 5: a deadline that may be early; 6: the exit.
    fn story() -> impl Strategy<Value = Vec<(u8, u64)>> {
        prop::collection::vec((0_u8..7, 0_u64..4000), 0..40)
    }

    proptest! {
        #[test]
        fn random_events_never_skip_or_repeat_a_step(story in story()) {
            let mut now = Instant::now();
            let mut sequence = KillSequence::new(KILL_TIMEOUT);
            let (mut done, mut at_once, mut stopped) = (Vec::new(), false, false);
            for (choice, wait_ms) in story {
                now += Duration::from_millis(wait_ms);
                let event = match choice {
                    stop @ 0..=3 => STOPS[usize::from(stop)],
                    4 => {
                        now = sequence.deadline().map_or(now, |deadline| now.max(deadline));
                        KillEvent::Deadline
                    }
                    5 => KillEvent::Deadline,
                    _ => KillEvent::Exited,
                };
                at_once |= event == KillEvent::Stop(Manner::AtOnce);
                stopped |= matches!(event, KillEvent::Stop(_));
                done.extend_from_slice(sequence.handle(event, now));
                let waits = matches!(
                    sequence.state(),
                    KillState::Expected { .. }
                        | KillState::InputClosed { .. }
                        | KillState::Terminated { .. }
                        | KillState::Killed { .. }
                );
                prop_assert_eq!(sequence.deadline().is_some(), waits);
            }
            let place = |action| done.iter().position(|&other| other == action);
            for action in [KillStep::CloseStdin, KillStep::Terminate, KillStep::Kill, KillStep::Reap, KillStep::GiveUp] {
                prop_assert!(done.iter().filter(|&&other| other == action).count() <= 1, "{:?} twice", action);
            }
            if let Some(kill) = place(KillStep::Kill) {
                prop_assert!(at_once || place(KillStep::Terminate).is_some_and(|terminate| terminate < kill));
            }
            if let Some(give_up) = place(KillStep::GiveUp) {
                prop_assert!(place(KillStep::Kill).is_some_and(|kill| kill < give_up));
            }
            if done.iter().any(|&action| action != KillStep::Reap) {
                // The input ends with the first step, and behind the signal if that is one.
                let first = usize::from(done.first() != Some(&KillStep::CloseStdin));
                prop_assert!(stopped && place(KillStep::CloseStdin) == Some(first));
            }
            prop_assert_eq!(place(KillStep::Reap).is_some(), sequence.state() == KillState::Ended);
        }

        #[test]
        fn a_stopped_child_is_given_up_after_at_most_three_deadlines(manner in 0_usize..4) {
            let mut now = Instant::now();
            let mut sequence = KillSequence::new(KILL_TIMEOUT);
            let _ = sequence.handle(STOPS[manner], now);
            for _ in 0..[3, 3, 2, 1][manner] {
                now = sequence.deadline().unwrap();
                prop_assert!(!sequence.handle(KillEvent::Deadline, now).is_empty());
            }
            prop_assert_eq!(sequence.state(), KillState::GivenUp);
        }
    }
}
