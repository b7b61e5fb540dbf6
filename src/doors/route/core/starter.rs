//! The programs behind servers: each is started by the first connection that does not find its server, serves all
//! connections that come from then on, and is stopped when none has used it for a while.
//!
//! The life of a program, which may run any number of times:
//!
//! ```text
//!            a connection finds no server            one is connected
//!   Stopped ──────────────────────────────▶ Starting ────────────────▶ Up
//!    ▲   ▲                                   │  │  ▲─ finds no server ──┤
//!    │   └─ its delay is over ── Resting ◀───┘  └─ late ─┐   idle, unused│
//!    │                             ▲  it has exited      ▼               │
//!    └──────── it has exited ──────┴─────────────────── Stopping ◀───────┘
//! ```
//!
//! A connection [asks](Starter::ask) first. It may connect, or has a [`Place`] among the connections that wait, or is
//! refused. The server is tried by the connections themselves, so that a program never sees one without a client: while
//! a program is starting, one that waits is [called](Order::Call) at a time, with pauses that grow from
//! [`FIRST_PAUSE`] to [`LONGEST_PAUSE`]. When the first is [connected](Starter::connected), all others are called. One
//! that is called must [tell](Starter::called) so, one that was not connected as well ([`Starter::missed`]).
//!
//! A server that is there although its program does not run belongs to another process (an operator, the generation
//! of before an upgrade). It is used as it is, and not stopped.
//!
//! A program that fails before its server is there, or soon after, [rests](SHORTEST_REST) from the second time on.
//!
//! The invariants:
//! - A program has at most one process: a run is ordered only when the one before has ended.
//! - A connection that waits is called or refused when the run ends for which it waits; it has a deadline besides.
//! - A program is stopped only while no connection has it, unless it is late. The end of the door is no exception: its
//!   connections end first.

mod program;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::event::RouteId;
use crate::doors::jitter::Jitter;
use crate::doors::waiters::Ticket;
use program::{Program, Standing};

/// The first time between two attempts to connect to a server that is awaited.
pub const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest time between two such attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// The time that a server must have been up, for its end not to count as a failure to start.
pub const SETTLED: Duration = Duration::from_secs(10);
/// The time for which a program is not started after its second failure in a row. It doubles with each one.
pub const SHORTEST_REST: Duration = Duration::from_secs(1);
/// The longest time for which a program is not started, before jitter.
pub const LONGEST_REST: Duration = Duration::from_secs(60);

/// A program. The number is never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProgramId(pub u32);

/// The settings of a program that count here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The longest time from the start of the program until its server is there.
    pub ready_timeout: Duration,
    /// The time without a connection after which the program is stopped, if it ever is.
    pub idle: Option<Duration>,
}

/// The relation of a plan to the programs of before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Descent {
    /// There was none.
    New,
    /// This one, whose process, if there is one, runs as it should.
    Same(ProgramId),
    /// This one, whose process runs by other settings.
    Changed(ProgramId),
}

/// A place among the connections that wait for a program. It must be given back by [`Starter::leave`] or
/// [`Starter::called`].
#[derive(Debug)]
pub struct Place {
    /// The run of the program that is awaited.
    run: u64,
    ticket: Ticket,
}

/// The answer to a connection.
#[derive(Debug)]
pub enum Reply {
    /// Connect to the server. The connection has the program until [`Starter::release`] or [`Starter::missed`].
    Connect,
    /// Wait to be called.
    Wait(Place),
    /// There is no server, and none is awaited. The connection has nothing of the program.
    Refuse(Failure),
}

/// The reason for which a program has no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be started, or has exited.
    Exited,
    /// Its server was not there in time.
    Late,
}

/// A report of the shell about a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProgramEvent {
    /// It was started, as [`Order::Start`] says.
    Started,
    /// It could not be started.
    NotStarted,
    /// It has exited, or does not end by any means.
    Exited,
    /// The time of [`Starter::deadline`] may have come.
    Deadline,
}

/// An order to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Start the program, and report [`ProgramEvent::Started`] or [`ProgramEvent::NotStarted`].
    Start(ProgramId),
    /// End the program, and report [`ProgramEvent::Exited`].
    Stop(ProgramId, StopCause),
    /// Report [`Event::Called`](super::event::Event::Called) for the route, in a later turn.
    Call(RouteId),
    /// Log that the server of a program is there, this time after the start.
    TellReady(ProgramId, Duration),
    /// The [deadline](Starter::deadline) of the program is earlier than before.
    SetAlarm(ProgramId),
    /// The program is not there any more.
    Forget(ProgramId),
}

/// The reason for which a program is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// No connection has used it for its idle time.
    Idle,
    /// Its server was not there in time.
    Late,
    /// Its settings have changed, it is not wanted any more, or the door ends; and no connection uses it.
    Unwanted,
}

/// The state of a program, for the dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It does not run.
    Stopped,
    /// It does not run, and is not started before its time.
    Resting,
    /// Its server is awaited.
    Starting,
    /// Its server is there.
    Up,
    /// It is being ended.
    Stopping,
}

/// The numbers of the programs of a door since its start.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Programs that were started.
    pub started: u64,
    /// Programs that could not be started, have exited although they were wanted, or were late.
    pub failed: u64,
}

/// The state of all programs. See the module.
#[derive(Debug)]
pub struct Starter {
    programs: BTreeMap<ProgramId, Program>,
    /// The programs of the newest plans, in their order.
    planned: Vec<ProgramId>,
    next: u32,
    outbox: Outbox,
}

/// The effects of an event beside the state of its program.
#[derive(Debug)]
struct Outbox {
    orders: VecDeque<Order>,
    counts: Counts,
    jitter: Jitter,
}

impl Starter {
    /// `seed` feeds the jitter of delays.
    pub fn new(seed: u64) -> Starter {
        Starter {
            programs: BTreeMap::new(),
            planned: Vec::new(),
            next: 0,
            outbox: Outbox {
                orders: VecDeque::new(),
                counts: Counts::default(),
                jitter: Jitter::new(seed),
            },
        }
    }

    /// Puts other plans in the place of those of before. Returns the program of each, in their order. A program without
    /// a plan ends when no connection uses it.
    pub fn replace(&mut self, plans: &[(Plan, Descent)], now: Instant) -> Vec<ProgramId> {
        self.planned.clear();
        for (plan, descent) in plans {
            let id = match descent {
                Descent::New => self.add(*plan),
                Descent::Same(id) | Descent::Changed(id) => *id,
            };
            self.planned.push(id);
            self.with(id, now, |program, _| {
                program.plan = *plan;
                program.standing = match descent {
                    Descent::Changed(_) if program.has_process() => Standing::Outdated,
                    Descent::New | Descent::Same(_) | Descent::Changed(_) => Standing::Wanted,
                };
            });
        }
        let unplanned = self.programs.keys().filter(|id| !self.planned.contains(id));
        for id in unplanned.copied().collect::<Vec<_>>() {
            self.with(id, now, |program, _| program.standing = Standing::Retired);
        }
        self.planned.clone()
    }

    /// Has every program end when no connection uses it. Connections that wait are served before.
    pub fn retire_all(&mut self, now: Instant) {
        for id in self.programs.keys().copied().collect::<Vec<_>>() {
            self.with(id, now, |program, _| program.standing = Standing::Retired);
        }
    }

    /// Returns the program of the plan with this index.
    pub fn planned(&self, plan: usize) -> Option<ProgramId> {
        self.planned.get(plan).copied()
    }

    /// Returns the longest time for which a connection waits for a program.
    pub fn patience(&self, id: ProgramId) -> Duration {
        self.programs
            .get(&id)
            .map_or(Duration::ZERO, |program| program.plan.ready_timeout)
    }

    /// Tells a new connection if it is to connect.
    pub fn ask(&mut self, id: ProgramId, route: RouteId, now: Instant) -> Reply {
        let reply = self.with(id, now, |program, _| {
            program.users += 1;
            program.reply(route, None, now)
        });
        reply.unwrap_or(Reply::Refuse(Failure::Exited))
    }

    /// Tells a connection that was called if it is to connect. It may have to wait again.
    pub fn called(&mut self, id: ProgramId, place: &Place, route: RouteId, now: Instant) -> Reply {
        let reply = self.with(id, now, |program, _| {
            program.waiting.remove(place.ticket);
            program.reply(route, Some(place.run), now)
        });
        reply.unwrap_or(Reply::Refuse(Failure::Exited))
    }

    /// Takes note that a connection, which was to connect, has found no server. It never has to connect at once.
    pub fn missed(&mut self, id: ProgramId, route: RouteId, now: Instant) -> Reply {
        let reply = self.with(id, now, |program, outbox| program.missed(id, route, now, outbox));
        reply.unwrap_or(Reply::Refuse(Failure::Exited))
    }

    /// Takes note that a connection, which was to connect, has reached the server.
    pub fn connected(&mut self, id: ProgramId, now: Instant) {
        self.with(id, now, |program, outbox| program.connected(id, now, outbox));
    }

    /// Takes note that a connection that waits has ended.
    pub fn leave(&mut self, id: ProgramId, place: &Place, now: Instant) {
        self.with(id, now, |program, _| {
            program.waiting.remove(place.ticket);
            program.users = program.users.saturating_sub(1);
        });
    }

    /// Takes note that a connection, which was to connect, has ended.
    pub fn release(&mut self, id: ProgramId, now: Instant) {
        self.with(id, now, |program, _| {
            program.active = program.active.saturating_sub(1);
            program.users = program.users.saturating_sub(1);
        });
    }

    /// Moves a program on by an event.
    pub fn handle(&mut self, id: ProgramId, event: ProgramEvent, now: Instant) {
        self.outbox.counts.started += u64::from(event == ProgramEvent::Started);
        self.with(id, now, |program, outbox| program.handle(id, event, now, outbox));
    }

    /// Returns the time at which [`ProgramEvent::Deadline`] must be reported.
    pub fn deadline(&self, id: ProgramId) -> Option<Instant> {
        self.programs.get(&id)?.deadline()
    }

    /// Returns the next order. Must be called until it returns `None` after each event.
    pub fn next_order(&mut self) -> Option<Order> {
        self.outbox.orders.pop_front()
    }

    /// Returns the numbers since the start of the door.
    pub fn counts(&self) -> Counts {
        self.outbox.counts
    }

    /// Returns the state of a program, and the connections that wait for it and that have it.
    pub fn view(&self, id: ProgramId) -> Option<(Stage, usize, usize)> {
        let program = self.programs.get(&id)?;
        let waiting = program.users.saturating_sub(program.active);
        Some((program.stage(), waiting, program.active))
    }

    /// Returns the number of connections that wait, were called, or have a server.
    #[cfg(debug_assertions)]
    pub(super) fn users(&self) -> (usize, usize) {
        let all = self.programs.values();
        all.fold((0, 0), |(waiting, active), program| {
            (waiting + program.users - program.active, active + program.active)
        })
    }

    fn add(&mut self, plan: Plan) -> ProgramId {
        let id = ProgramId(self.next);
        self.next += 1;
        self.programs.insert(id, Program::new(plan));
        id
    }

    /// Changes a program, and does what follows from its new state. Every change comes through here.
    fn with<R>(
        &mut self,
        id: ProgramId,
        now: Instant,
        change: impl FnOnce(&mut Program, &mut Outbox) -> R,
    ) -> Option<R> {
        let program = self.programs.get_mut(&id)?;
        let before = program.deadline();
        let outcome = change(program, &mut self.outbox);
        program.settle(id, now, &mut self.outbox);
        if program
            .deadline()
            .is_some_and(|time| before.is_none_or(|before| time < before))
        {
            self.outbox.orders.push_back(Order::SetAlarm(id));
        }
        // One with a plan may be started again, although the door drains.
        if program.is_over() && !self.planned.contains(&id) {
            self.programs.remove(&id);
            self.outbox.orders.push_back(Order::Forget(id));
        }
        Some(outcome)
    }
}

#[cfg(test)]
mod tests;
