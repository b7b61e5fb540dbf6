//! One program: the states between a connection that finds no server and the end of the process, and every pair of
//! state and event. See [`starter`](super) for the words.

use std::time::{Duration, Instant};

use super::{
    FIRST_PAUSE, Failure, LONGEST_PAUSE, LONGEST_REST, Order, Outbox, Place, Plan, ProgramEvent, ProgramId, Reply,
    SETTLED, SHORTEST_REST, Stage, StopCause,
};
use crate::doors::route::core::event::RouteId;
use crate::doors::waiters::Waiters;

#[derive(Debug, Clone, Copy)]
enum State {
    /// There is no process.
    Stopped,
    /// There is no process, and none is started before this time.
    Resting { until: Instant },
    /// The server is awaited.
    Starting(Awaited),
    /// A connection has reached the server.
    Up {
        since: Instant,
        /// The time since which no connection uses it.
        idle_since: Option<Instant>,
    },
    /// The process is being ended. `is_late`: this is the end of a failure.
    Stopping { is_late: bool },
}

/// A server that is awaited.
#[derive(Debug, Clone, Copy)]
struct Awaited {
    began: Instant,
    until: Instant,
    /// The time from which on the next connection tries the server; `None` before the process was started.
    trial: Option<Instant>,
    pause: Duration,
    /// The connection that was called to try it.
    called: Option<RouteId>,
    /// The time since which the server was up, if it was there before in this run.
    up_since: Option<Instant>,
}

/// The relation of a process to the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It runs as it should.
    Wanted,
    /// It runs by other settings than the next one will.
    Outdated,
    /// There are no settings for it any more.
    Retired,
}

#[derive(Debug)]
pub(super) struct Program {
    pub(super) plan: Plan,
    state: State,
    pub(super) standing: Standing,
    /// The connections that wait, were called, or have the server.
    pub(super) users: usize,
    /// Those of them that connect or are connected.
    pub(super) active: usize,
    pub(super) waiting: Waiters<RouteId>,
    /// The number of runs that were ordered.
    run: u64,
    /// The last run that has failed. Connections that wait for it or for an earlier one are refused.
    failed_run: u64,
    failure: Failure,
    /// The failures in a row.
    failures: u32,
}

impl Program {
    /// A program that was never started.
    pub(super) fn new(plan: Plan) -> Program {
        Program {
            plan,
            state: State::Stopped,
            standing: Standing::Wanted,
            users: 0,
            active: 0,
            waiting: Waiters::default(),
            run: 0,
            failed_run: 0,
            failure: Failure::Exited,
            failures: 0,
        }
    }

    pub(super) fn reply(&mut self, route: RouteId, waited_for: Option<u64>, now: Instant) -> Reply {
        if waited_for.is_some_and(|run| run <= self.failed_run) {
            return self.refuse();
        }
        match &mut self.state {
            State::Stopped | State::Up { .. } => self.give(),
            State::Resting { until } if *until <= now => {
                self.state = State::Stopped;
                self.give()
            }
            State::Resting { .. } => self.refuse(),
            State::Starting(awaited) => {
                if awaited.takes(route, now) {
                    self.give()
                } else {
                    self.wait(route, self.run)
                }
            }
            State::Stopping { .. } => self.wait(route, self.run + 1),
        }
    }

    pub(super) fn missed(&mut self, id: ProgramId, route: RouteId, now: Instant, outbox: &mut Outbox) -> Reply {
        self.active = self.active.saturating_sub(1);
        match self.state {
            State::Stopped => {
                self.start(id, now, outbox);
                self.wait(route, self.run)
            }
            State::Resting { until } if until <= now => {
                self.start(id, now, outbox);
                self.wait(route, self.run)
            }
            State::Resting { .. } => self.refuse(),
            State::Starting(_) => self.wait(route, self.run),
            // The server of the next run may have another address.
            State::Up { .. } if self.standing == Standing::Outdated => self.wait(route, self.run + 1),
            State::Up { since, .. } => {
                let mut awaited = Awaited::new(now, self.plan.ready_timeout);
                awaited.trial = Some(now + FIRST_PAUSE);
                awaited.up_since = Some(since);
                self.state = State::Starting(awaited);
                self.wait(route, self.run)
            }
            State::Stopping { .. } => self.wait(route, self.run + 1),
        }
    }

    pub(super) fn connected(&mut self, id: ProgramId, now: Instant, outbox: &mut Outbox) {
        match self.state {
            State::Starting(awaited) => {
                if awaited.up_since.is_none() {
                    let after = now.saturating_duration_since(awaited.began);
                    outbox.orders.push_back(Order::TellReady(id, after));
                }
                self.state = State::Up {
                    since: awaited.up_since.unwrap_or(now),
                    idle_since: None,
                };
                self.call_all(outbox);
            }
            // The server of another process, one that is known to be there, or one that is about to go.
            State::Stopped | State::Resting { .. } | State::Up { .. } | State::Stopping { .. } => {}
        }
    }

    pub(super) fn handle(&mut self, id: ProgramId, event: ProgramEvent, now: Instant, outbox: &mut Outbox) {
        match (event, self.state) {
            (ProgramEvent::Started, State::Starting(awaited)) => {
                self.state = State::Starting(Awaited {
                    trial: Some(now + FIRST_PAUSE),
                    ..awaited
                });
            }
            (ProgramEvent::NotStarted | ProgramEvent::Exited, State::Starting(Awaited { up_since: None, .. })) => {
                self.fail(Failure::Exited, now, outbox);
            }
            (
                ProgramEvent::NotStarted | ProgramEvent::Exited,
                State::Starting(Awaited {
                    up_since: Some(since), ..
                })
                | State::Up { since, .. },
            ) => self.die(since, now, outbox),
            (ProgramEvent::NotStarted | ProgramEvent::Exited, State::Stopping { is_late }) => {
                self.failures = if is_late { self.failures } else { 0 };
                self.rest(now, outbox);
            }
            (ProgramEvent::Deadline, State::Starting(awaited)) => self.await_on(id, awaited, now, outbox),
            (ProgramEvent::Deadline, State::Up { .. }) => {
                if self.deadline().is_some_and(|time| time <= now) {
                    self.stop(id, StopCause::Idle, outbox);
                }
            }
            // The server was there already, or its process is not wanted any more; or an alarm is late. Nothing ends that
            // was not started.
            (
                ProgramEvent::Started,
                State::Stopped | State::Resting { .. } | State::Up { .. } | State::Stopping { .. },
            )
            | (ProgramEvent::NotStarted | ProgramEvent::Exited, State::Stopped | State::Resting { .. })
            | (ProgramEvent::Deadline, State::Stopped | State::Resting { .. } | State::Stopping { .. }) => {}
        }
    }

    /// A server is awaited, and a time has come: that of the next attempt, or the last.
    fn await_on(&mut self, id: ProgramId, mut awaited: Awaited, now: Instant, outbox: &mut Outbox) {
        if now < awaited.until {
            if awaited.trial.is_some_and(|trial| trial <= now)
                && let Some(route) = self.waiting.pop()
            {
                awaited.called = Some(route);
                awaited.put_off(now);
                outbox.orders.push_back(Order::Call(route));
            }
            self.state = State::Starting(awaited);
            return;
        }
        // Without a connection it was not tried; and it keeps the connections that it has although it refuses others.
        let is_spared = self.users == 0 || (awaited.up_since.is_some() && self.active > 0);
        if is_spared {
            self.state = State::Up {
                since: awaited.up_since.unwrap_or(awaited.began),
                idle_since: None,
            };
            self.call_all(outbox);
            return;
        }
        outbox.counts.failed += 1;
        self.failures = self.failures.saturating_add(1);
        (self.failed_run, self.failure) = (self.run, Failure::Late);
        self.call_all(outbox);
        self.stop(id, StopCause::Late, outbox);
    }

    fn start(&mut self, id: ProgramId, now: Instant, outbox: &mut Outbox) {
        self.run += 1;
        if self.standing == Standing::Outdated {
            self.standing = Standing::Wanted;
        }
        self.state = State::Starting(Awaited::new(now, self.plan.ready_timeout));
        outbox.orders.push_back(Order::Start(id));
    }

    /// A run has failed before its server was there.
    fn fail(&mut self, failure: Failure, now: Instant, outbox: &mut Outbox) {
        outbox.counts.failed += 1;
        self.failures = self.failures.saturating_add(1);
        (self.failed_run, self.failure) = (self.run, failure);
        self.rest(now, outbox);
    }

    /// A run has ended by itself. Connections that wait start the next one, unless it has to rest.
    fn die(&mut self, since: Instant, now: Instant, outbox: &mut Outbox) {
        outbox.counts.failed += 1;
        self.failure = Failure::Exited;
        let is_settled = now.saturating_duration_since(since) >= SETTLED;
        self.failures = if is_settled { 1 } else { self.failures.saturating_add(1) };
        self.rest(now, outbox);
    }

    /// There is no process any more. Everything that waits is called.
    fn rest(&mut self, now: Instant, outbox: &mut Outbox) {
        self.state = match self.failures.checked_sub(2) {
            None => State::Stopped,
            Some(doublings) => {
                let rest = SHORTEST_REST.saturating_mul(1 << doublings.min(16)).min(LONGEST_REST);
                State::Resting {
                    until: now + outbox.jitter.around_duration(rest),
                }
            }
        };
        if self.standing == Standing::Outdated {
            self.standing = Standing::Wanted;
        }
        self.call_all(outbox);
    }

    fn stop(&mut self, id: ProgramId, cause: StopCause, outbox: &mut Outbox) {
        self.state = State::Stopping {
            is_late: cause == StopCause::Late,
        };
        outbox.orders.push_back(Order::Stop(id, cause));
    }

    /// Does what follows from a change: a program that no connection uses is idle, or stopped if it is not wanted.
    pub(super) fn settle(&mut self, id: ProgramId, now: Instant, outbox: &mut Outbox) {
        let is_unused = self.users == 0;
        let is_in_the_way = self.standing == Standing::Outdated && self.active == 0;
        match &mut self.state {
            State::Up { .. } if is_in_the_way || (is_unused && self.standing == Standing::Retired) => {
                self.stop(id, StopCause::Unwanted, outbox);
            }
            State::Up { idle_since, .. } => {
                *idle_since = if is_unused { idle_since.or(Some(now)) } else { None };
            }
            State::Starting(_) if is_unused && self.standing == Standing::Retired => {
                self.stop(id, StopCause::Unwanted, outbox);
            }
            State::Starting(_) | State::Stopped | State::Resting { .. } | State::Stopping { .. } => {}
        }
    }

    fn call_all(&mut self, outbox: &mut Outbox) {
        while let Some(route) = self.waiting.pop() {
            outbox.orders.push_back(Order::Call(route));
        }
    }

    fn give(&mut self) -> Reply {
        self.active += 1;
        Reply::Connect
    }

    fn wait(&mut self, route: RouteId, run: u64) -> Reply {
        let ticket = self.waiting.push(route);
        Reply::Wait(Place { run, ticket })
    }

    fn refuse(&mut self) -> Reply {
        self.users = self.users.saturating_sub(1);
        Reply::Refuse(self.failure)
    }

    pub(super) fn has_process(&self) -> bool {
        match self.state {
            State::Starting(_) | State::Up { .. } => true,
            State::Stopped | State::Resting { .. } | State::Stopping { .. } => false,
        }
    }

    /// Returns true if nothing is left of a program that is not wanted.
    pub(super) fn is_over(&self) -> bool {
        let has_ended = matches!(self.state, State::Stopped | State::Resting { .. });
        has_ended && self.users == 0 && self.standing == Standing::Retired
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Starting(awaited) if self.waiting.is_empty() => Some(awaited.until),
            State::Starting(awaited) => Some(awaited.trial.map_or(awaited.until, |trial| trial.min(awaited.until))),
            State::Up { idle_since, .. } => Some((*idle_since)? + self.plan.idle?),
            // The end of a process has deadlines of its own.
            State::Stopped | State::Resting { .. } | State::Stopping { .. } => None,
        }
    }

    pub(super) fn stage(&self) -> Stage {
        match self.state {
            State::Stopped => Stage::Stopped,
            State::Resting { .. } => Stage::Resting,
            State::Starting(_) => Stage::Starting,
            State::Up { .. } => Stage::Up,
            State::Stopping { .. } => Stage::Stopping,
        }
    }
}

impl Awaited {
    fn new(now: Instant, ready_timeout: Duration) -> Awaited {
        Awaited {
            began: now,
            until: now + ready_timeout,
            trial: None,
            pause: FIRST_PAUSE,
            called: None,
            up_since: None,
        }
    }

    /// Returns true if this connection is the one that tries the server now.
    fn takes(&mut self, route: RouteId, now: Instant) -> bool {
        if self.called == Some(route) {
            self.called = None;
            return true;
        }
        let is_due = self.trial.is_some_and(|trial| trial <= now);
        if is_due {
            self.put_off(now);
        }
        is_due
    }

    /// The next attempt follows after a pause, and the one behind it after a longer one.
    fn put_off(&mut self, now: Instant) {
        self.trial = Some(now + self.pause);
        self.pause = (self.pause + self.pause / 2).min(LONGEST_PAUSE);
    }
}
