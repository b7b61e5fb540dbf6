//! Who gets which program, and when: [`ClientEvent`]s and [`RunEvent`]s in, [`Action`]s out, the time an argument.
//!
//! A request is complete when its name and all its arguments have come. Then a program is started for it, if one more may run; or
//! it shares the output of one that runs already, where the operator allows that; or it waits; or it is told `busy`.
//! Whenever a run is over, who waits longest is next.
//!
//! How clients come to their request is in `clients`, what becomes of programs in `runs`, who waits in `queue`.
//!
//! What holds (`invariants`, after every event where debug assertions are on): a command runs at most as often
//! as it may (a lower limit after a reload is reached as runs end); nobody waits while one more may run; who follows a run is
//! in its audience, and a run without audience is on its way out.
//!
//! What one client does costs no more for the others that are there: whoever leaves a queue or an audience is found by its place,
//! and who asks for the same by what that is. How many may wait is each command's `queue`, how many may be in an audience the
//! door's `--max-connections`.

mod clients;
mod invariants;
mod queue;
mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::client::{Request, State};
use super::counters::Counters;
use super::event::{Action, ClientEvent, ClientId, Refusal, RunId};
use crate::doors::command::options::{Argument, Timing};
use crate::doors::run::{Run, RunEvent, RunState};
use crate::doors::waiters::{Ticket, Waiters};

/// What is decided of a command by: its options, the program left out.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// How many may run at once.
    pub threads: usize,
    /// What the client sends.
    pub arguments: Vec<Argument>,
    /// How many may wait.
    pub queue: usize,
    /// How long each of them may.
    pub max_wait: Duration,
    /// Whether a client may share the output of a run with the same arguments, when as many run as may.
    pub join: bool,
    /// How long one may run.
    pub timeout: Option<Duration>,
}

impl Rule {
    /// Whether these are what a request for it consists of.
    pub(super) fn fits(&self, arguments: &[Vec<u8>]) -> bool {
        arguments.len() == self.arguments.len() && self.may_begin_with(arguments)
    }

    /// Whether each of these may stand where it stands.
    pub(super) fn may_begin_with(&self, arguments: &[Vec<u8>]) -> bool {
        let mut pairs = self.arguments.iter().zip(arguments);
        pairs.all(|(rule, argument)| rule.check(argument).is_ok())
    }
}

/// All commands by their names.
pub type Rules = HashMap<Vec<u8>, Rule>;

/// How many there are of something about one command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Runs, from the decision to start one until it is over.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
}

#[derive(Debug)]
struct Job {
    name: Vec<u8>,
    arguments: Vec<Vec<u8>>,
    run: Run,
    /// Who gets its output.
    audience: BTreeSet<ClientId>,
    /// Whose input it gets.
    leader: ClientId,
    /// Whether all of its output is kept for one who comes later.
    whole: bool,
}

/// What there is of a command.
#[derive(Debug, Default)]
struct Line {
    running: usize,
    queue: Waiters<ClientId>,
    /// Who of the queue waits for what, by arguments.
    alike: HashMap<Vec<Vec<u8>>, BTreeSet<Ticket>>,
    /// Runs that may be joined, likewise, and some that may no longer, which are found out when they are looked at.
    shared: HashMap<Vec<Vec<u8>>, BTreeSet<RunId>>,
}

/// The decisions of one command door.
#[derive(Debug)]
pub struct Scheduler {
    timing: Timing,
    list: bool,
    rules: Rules,
    lines: HashMap<Vec<u8>, Line>,
    clients: BTreeMap<ClientId, State>,
    jobs: BTreeMap<RunId, Job>,
    next_run: u64,
    /// Whether the door closes soon.
    closes: bool,
    actions: Vec<Action>,
    /// Whether `invariants` are looked at in debug builds, which costs as much as there is.
    is_checked: bool,
    /// What has happened so far. The shell counts here what it alone knows.
    pub counters: Counters,
}

impl Scheduler {
    /// One without clients. `list`: whether the name `list` is answered with all names.
    pub fn new(timing: Timing, list: bool, rules: Rules) -> Self {
        Scheduler {
            timing,
            list,
            rules,
            lines: HashMap::new(),
            clients: BTreeMap::new(),
            jobs: BTreeMap::new(),
            next_run: 0,
            closes: false,
            actions: Vec::new(),
            is_checked: cfg!(debug_assertions),
            counters: Counters::default(),
        }
    }

    /// What is to be done now; to be asked for after every call, until there is nothing.
    pub fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    // ---- looking at it -----------------------------------------------------------------------------------------

    /// Where a client is; `None`: it is over.
    pub fn client(&self, id: ClientId) -> Option<&State> {
        self.clients.get(&id)
    }

    /// Where a program is; `None`: it is over.
    pub fn run(&self, id: RunId) -> Option<RunState> {
        self.jobs.get(&id).map(|job| job.run.state())
    }

    /// When to come back with [`ClientEvent::Tick`].
    pub fn client_deadline(&self, id: ClientId) -> Option<Instant> {
        self.clients.get(&id).and_then(State::deadline)
    }

    /// When to come back with [`RunEvent::Tick`].
    pub fn run_deadline(&self, id: RunId) -> Option<Instant> {
        self.jobs.get(&id).and_then(|job| job.run.deadline())
    }

    /// How much there is of a command.
    pub fn load(&self, name: &[u8]) -> Load {
        let line = self.lines.get(name);
        line.map_or_else(Load::default, |line| Load {
            running: line.running,
            waiting: line.queue.len(),
        })
    }

    /// How much there is of all.
    pub fn total_load(&self) -> Load {
        Load {
            running: self.jobs.len(),
            waiting: self.lines.values().map(|line| line.queue.len()).sum(),
        }
    }

    /// Whether nothing runs and nobody is there but who has been told everything.
    pub fn is_idle(&self) -> bool {
        let parts = |state: &State| *state == State::Parting;
        self.jobs.is_empty() && self.clients.values().all(parts)
    }

    // ---- what happens ------------------------------------------------------------------------------------------

    /// Somebody has connected.
    pub fn connect(&mut self, id: ClientId, now: Instant) {
        let asking = State::Asking {
            request: Request::default(),
            until: now + self.timing.read_timeout,
            quiet_at: None,
        };
        self.clients.insert(id, asking);
    }

    /// Something has happened to a client.
    pub fn client_event(&mut self, id: ClientId, event: ClientEvent, now: Instant) {
        let Some(state) = self.clients.remove(&id) else {
            return;
        };
        match state {
            State::Asking {
                request,
                until,
                quiet_at,
            } => self.asking(id, request, (until, quiet_at), event, now),
            State::Queued {
                request,
                ticket,
                since,
                until,
            } => self.queued(id, request, (ticket, since, until), event, now),
            State::Following { run, stalled_until } => self.following(id, run, stalled_until, event, now),
            State::Answered { until } => self.answered(id, until, &event, now),
            State::Parting => match event {
                ClientEvent::Left | ClientEvent::Gone => self.close(id),
                // Of what is past.
                _ => self.enter(id, State::Parting),
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

    /// The operator has changed the rules. Who waits for a command that is not there any more, or has asked for what is not
    /// allowed any more, is told so; the rest, and what runs, stay.
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

    /// The door closes soon: who has not asked yet has until then.
    pub fn hasten(&mut self, by: Instant) {
        self.closes = true;
        for state in self.clients.values_mut() {
            if let State::Asking { until, .. } = state {
                *until = by.min(*until);
            }
        }
    }

    /// The door closes: what runs is ended, and who waits is told.
    pub fn stop(&mut self, now: Instant) {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            let name = match self.clients.get(&id) {
                Some(State::Asking { request, .. } | State::Queued { request, .. }) => request.name.clone(),
                _ => continue,
            };
            self.counters.refused += 1;
            self.refuse(id, name.unwrap_or_default(), Refusal::Stop, now);
        }
        self.lines.values_mut().for_each(Line::forget_queue);
        self.all_runs(RunEvent::Stop, now);
    }

    /// The door closes at once.
    pub fn abort(&mut self, now: Instant) {
        self.lines.values_mut().for_each(Line::forget_queue);
        let ids: Vec<_> = self.clients.keys().copied().collect();
        for id in ids {
            if let Some(State::Following { run, .. }) = self.clients.get(&id) {
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
