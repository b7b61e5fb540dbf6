//! Gives programs to clients: [`ClientEvent`]s and [`RunEvent`]s in, [`Action`]s out, the time an argument.
//!
//! A request is complete when its name and all its arguments are read. Then a program is started for it, if one more
//! may run; or it shares the output of a running one, where the operator allows that; or it waits; or its client is
//! told `busy`. When a run is over, the request that has waited longest is next.
//!
//! `clients` holds the way to a complete request and to a sent answer, `runs` the programs, `queue` the requests that
//! wait.
//!
//! Invariants (checked in `invariants` after every event, where debug assertions are on): a command runs at most as
//! often at once as it may (after a reload with a lower limit, once enough runs are over); no request waits while one
//! more may run; a client that follows a run is in its audience; a run without audience is ending.
//!
//! The cost of an event does not grow with the number of clients: a client that leaves a queue or an audience is found
//! by its place, and equal requests by their arguments. The length of a queue is bounded by the command's `queue`, that
//! of an audience by the door's `--max-connections`.

mod clients;
mod invariants;
mod queue;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use super::client::{Asking, ClientState, Queued, Request};
use super::counters::Counters;
use super::event::{Action, ClientEvent, ClientId, Refusal, RunId};
use crate::doors::command::options::{Rule, Timing};
use crate::doors::run::{Run, RunEvent, RunState};
use crate::doors::waiters::{Ticket, Waiters};

/// All commands by their names.
pub type Rules = HashMap<Vec<u8>, Rule>;

/// The load of one command, or of all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// The number of runs, from the decision to start a program until its conclusion.
    pub running: usize,
    /// The number of requests that wait.
    pub waiting: usize,
}

#[derive(Debug)]
struct Job {
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    run: Run,
    /// The clients that get its output.
    audience: BTreeSet<ClientId>,
    /// The client that sends its input.
    leader: ClientId,
    /// True while the shell keeps all of its output for clients that join.
    whole: bool,
}

/// The runs and the queue of one command.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    queue: Waiters<ClientId>,
    /// The queued requests by their arguments.
    alike: HashMap<Vec<Vec<u8>>, BTreeSet<Ticket>>,
    /// The runs that may be joined, by their arguments. A run that may no longer be joined is removed when it is found.
    shared: HashMap<Vec<Vec<u8>>, BTreeSet<RunId>>,
}

/// The decisions of one command door.
#[derive(Debug)]
pub struct Scheduler {
    timing: Timing,
    list: bool,
    rules: Rules,
    lines: HashMap<Vec<u8>, Line>,
    clients: BTreeMap<ClientId, ClientState>,
    jobs: BTreeMap<RunId, Job>,
    next_run: u64,
    /// The time by which clients must have completed their requests, once the door drains.
    closes: Option<Instant>,
    actions: Vec<Action>,
    /// True if the invariants are checked in debug builds. The check looks at every client and run.
    is_checked: bool,
    /// The counters of the door. The shell adds the events that only it sees.
    pub counters: Counters,
}

impl Scheduler {
    /// Creates a scheduler without clients. With `list`, the name `list` is answered with the names of all commands.
    pub fn new(timing: Timing, list: bool, rules: Rules) -> Self {
        Scheduler {
            timing,
            list,
            rules,
            lines: HashMap::new(),
            clients: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_run: 0,
            closes: None,
            actions: Vec::new(),
            is_checked: cfg!(debug_assertions),
            counters: Counters::default(),
        }
    }

    /// Takes the actions that are due. Must be called after every event, until it returns none.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    // ---- views -------------------------------------------------------------------------------------------------

    /// The state of a client; `None` after its end.
    pub fn client(&self, id: ClientId) -> Option<&ClientState> {
        self.clients.get(&id)
    }

    /// The state of a run; `None` after its conclusion.
    pub fn run(&self, id: RunId) -> Option<RunState> {
        self.jobs.get(&id).map(|job| job.run.state())
    }

    /// The time at which [`ClientEvent::Tick`] is due.
    pub fn client_deadline(&self, id: ClientId) -> Option<Instant> {
        self.clients.get(&id).and_then(ClientState::deadline)
    }

    /// The time at which [`RunEvent::Tick`] is due.
    pub fn run_deadline(&self, id: RunId) -> Option<Instant> {
        self.jobs.get(&id).and_then(|job| job.run.deadline())
    }

    /// The load of a command.
    pub fn load(&self, name: &[u8]) -> Load {
        let line = self.lines.get(name);
        line.map_or_else(Load::default, |line| Load {
            running: line.running,
            waiting: line.queue.len(),
        })
    }

    /// The load of all commands together.
    pub fn total_load(&self) -> Load {
        Load {
            running: self.jobs.len(),
            waiting: self.lines.values().map(|line| line.queue.len()).sum(),
        }
    }

    /// Returns true if no program runs, and every client that is left has got its answer.
    pub fn is_idle(&self) -> bool {
        let parts = |state: &ClientState| *state == ClientState::Closing;
        self.jobs.is_empty() && self.clients.values().all(parts)
    }

    // ---- events ------------------------------------------------------------------------------------------------

    /// Adds a client that has connected.
    pub fn connect(&mut self, id: ClientId, now: Instant) {
        let until = now + self.timing.read_timeout;
        let asking = Asking {
            request: Request::default(),
            until: self.closes.map_or(until, |by| by.min(until)),
            quiet_at: None,
        };
        self.clients.insert(id, ClientState::Asking(asking));
    }

    /// Takes an event in the life of a client.
    pub fn client_event(&mut self, id: ClientId, event: ClientEvent, now: Instant) {
        let Some(state) = self.clients.remove(&id) else {
            return;
        };
        match state {
            ClientState::Asking(asking) => self.asking(id, asking, event, now),
            ClientState::Queued(queued) => self.queued(id, queued, &event, now),
            ClientState::Following { run, stalled_until } => self.following(id, run, stalled_until, event, now),
            ClientState::Answered { until } => self.answered(id, until, &event, now),
            ClientState::Closing => match event {
                ClientEvent::Left | ClientEvent::Gone => self.close(id),
                // The request and its answer are past.
                ClientEvent::Message(_)
                | ClientEvent::Pending
                | ClientEvent::TooLong
                | ClientEvent::Full
                | ClientEvent::Standstill
                | ClientEvent::Progress
                | ClientEvent::Flushed
                | ClientEvent::Tick => self.enter(id, ClientState::Closing),
            },
        }
        self.check();
    }

    /// Takes an event in the life of a run's program.
    pub fn run_event(&mut self, id: RunId, event: RunEvent, now: Instant) {
        self.advance_run(id, event, now);
        self.check();
    }

    /// Lets no more clients join a run. Must be called when its output is more than the shell keeps for them.
    pub fn close_to_joining(&mut self, id: RunId) {
        if let Some(job) = self.jobs.get_mut(&id) {
            job.whole = false;
        }
    }

    /// Replaces the rules. A client whose command is gone, or whose request is no longer valid, is refused, unless its
    /// program was started. All others stay.
    pub fn reconfigure(&mut self, timing: Timing, list: bool, rules: Rules, now: Instant) {
        (self.timing, self.list, self.rules) = (timing, list, rules);
        self.turn_down_outdated(now);
        let names: Vec<_> = self.lines.keys().cloned().collect();
        for name in names {
            if !self.rules.contains_key(&name) {
                for id in self.leave_queue(&name) {
                    self.counters.not_found += 1;
                    self.refuse(id, name.clone(), Refusal::NotFound, now);
                }
            }
            self.serve_queue(&name);
        }
        self.check();
    }

    /// Bounds the time to complete a request, also for clients that connect from now on. The door calls it when it drains.
    pub fn hasten(&mut self, by: Instant) {
        self.closes = Some(by);
        for state in self.clients.values_mut() {
            if let ClientState::Asking(asking) = state {
                asking.until = by.min(asking.until);
            }
        }
    }

    /// Ends all programs, and refuses the requests that wait.
    pub fn stop(&mut self, now: Instant) {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            let name = match self.clients.get(&id) {
                Some(ClientState::Asking(Asking { request, .. }) | ClientState::Queued(Queued { request, .. })) => {
                    request.name.clone()
                }
                Some(ClientState::Following { .. } | ClientState::Answered { .. } | ClientState::Closing) | None => {
                    continue;
                }
            };
            self.counters.refused += 1;
            self.refuse(id, name.unwrap_or_default(), Refusal::Stop, now);
        }
        self.lines.values_mut().for_each(Line::forget_queue);
        self.all_runs(RunEvent::Stop, now);
    }

    /// Kills all programs, and closes all connections.
    pub fn abort(&mut self, now: Instant) {
        self.lines.values_mut().for_each(Line::forget_queue);
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            if let Some(ClientState::Following { run, .. }) = self.clients.get(&id) {
                let run = *run;
                self.actions.push(Action::Detach { client: id, run });
            }
            self.clients.remove(&id);
            self.close(id);
        }
        self.jobs.values_mut().for_each(|job| job.audience.clear());
        self.all_runs(RunEvent::Abort, now);
    }

    fn all_runs(&mut self, event: RunEvent, now: Instant) {
        let ids: Vec<_> = self.jobs.keys().copied().collect();
        for id in ids {
            self.advance_run(id, event, now);
        }
        self.check();
    }
}
