//! Runs: started, joined, deserted, concluded.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::client::ClientState;
use super::super::event::{Action, ClientId, Refusal, RunId};
use super::{Job, Scheduler};
use crate::doors::run::{Advance, Conclusion, EndCause, Run, RunEvent, RunStep};

/// The number of pipes for a program's output: both of its outputs go into one.
const OUTPUTS: u8 = 1;

impl Scheduler {
    pub(super) fn start(&mut self, client: ClientId, name: Vec<u8>, arguments: Vec<Vec<u8>>) {
        let run = RunId(self.next_run);
        self.next_run += 1;
        let rule = self.rules.get(&name);
        let (timeout, whole) = (rule.and_then(|rule| rule.timeout), rule.is_some_and(|rule| rule.join));
        let line = self.lines.entry(name.clone()).or_default();
        line.running += 1;
        if whole {
            line.shared.entry(arguments.clone()).or_default().insert(run);
        }
        let job = Job {
            name: name.clone(),
            arguments: arguments.clone(),
            run: Run::new(OUTPUTS, timeout, self.timing.linger),
            audience: BTreeSet::from([client]),
            leader: client,
            whole,
        };
        self.jobs.insert(run, job);
        self.follow(client, run);
        self.actions.push(Action::Start { run, name, arguments });
        self.actions.push(Action::Attach {
            client,
            run,
            leads: true,
        });
    }

    /// Returns a run whose output is exactly what such a request would get. A run that may not be joined is removed
    /// from the index: it never may again.
    pub(super) fn joinable(&mut self, name: &[u8], arguments: &[Vec<u8>]) -> Option<RunId> {
        let good = |job: &Job| job.whole && job.run.is_going() && !job.audience.is_empty();
        let line = self.lines.get_mut(name)?;
        let runs = line.shared.get_mut(arguments)?;
        while let Some(first) = runs.first().copied() {
            if self.jobs.get(&first).is_some_and(good) {
                return Some(first);
            }
            runs.pop_first();
        }
        line.shared.remove(arguments);
        None
    }

    pub(super) fn join(&mut self, client: ClientId, run: RunId) {
        self.counters.joined += 1;
        if let Some(job) = self.jobs.get_mut(&run) {
            job.audience.insert(client);
        }
        self.follow(client, run);
        let leads = false;
        self.actions.push(Action::Attach { client, run, leads });
    }

    fn follow(&mut self, id: ClientId, run: RunId) {
        let stalled_until = None;
        self.enter(id, ClientState::Following { run, stalled_until });
    }

    /// Takes a client that is gone out of its run's audience. The run ends with its last client, its input with its
    /// leader.
    pub(super) fn desert(&mut self, client: ClientId, run: RunId, now: Instant) {
        self.actions.push(Action::Detach { client, run });
        self.close(client);
        let Some(job) = self.jobs.get_mut(&run) else { return };
        job.audience.remove(&client);
        if job.audience.is_empty() {
            if !job.run.has_exited() {
                self.counters.vanished += 1;
            }
            self.advance_run(run, RunEvent::Deserted, now);
        } else if job.leader == client {
            self.actions.push(Action::Program(run, RunStep::EndInput));
        }
    }

    /// Advances a run by an event, and tells its clients the conclusion.
    pub(super) fn advance_run(&mut self, id: RunId, event: RunEvent, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Advance { steps, conclusion } = job.run.handle(event, now);
        let why = conclusion.and_then(|conclusion| refusal(conclusion, &job.run));
        for step in steps {
            if *step == RunStep::End(EndCause::Standstill) {
                self.counters.refused += 1;
            }
            self.actions.push(Action::Program(id, *step));
        }
        if conclusion.is_some() {
            self.tell_audience(id, why.as_ref(), now);
            self.drop_run(id);
        }
    }

    fn tell_audience(&mut self, id: RunId, why: Option<&Refusal>, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let (audience, name) = (std::mem::take(&mut job.audience), job.name.clone());
        for client in audience {
            self.actions.push(Action::Detach { client, run: id });
            match why {
                None => self.answer(client, now),
                Some(why) => self.refuse(client, name.clone(), why.clone(), now),
            }
        }
    }

    fn drop_run(&mut self, id: RunId) {
        self.actions.push(Action::Drop(id));
        let Some(job) = self.jobs.remove(&id) else { return };
        if let Some(line) = self.lines.get_mut(&job.name) {
            line.running -= 1;
            line.unshare(id, &job.arguments);
        }
        self.serve_queue(&job.name);
    }
}

/// The refusal that the clients of a concluded run get behind its output. `None`: the output is all that they asked
/// for.
fn refusal(conclusion: Conclusion, run: &Run) -> Option<Refusal> {
    match conclusion {
        Conclusion::NotStarted => Some(Refusal::NotStarted),
        Conclusion::Unkillable => Some(Refusal::Unkillable),
        Conclusion::Exited(None) => None,
        Conclusion::Cancelled(cause) | Conclusion::Exited(Some(cause)) => match cause {
            EndCause::Timeout => Some(Refusal::TimedOut(run.timeout().unwrap_or_default())),
            EndCause::Standstill => Some(Refusal::Standstill),
            EndCause::Stop => Some(Refusal::Stop),
            EndCause::Invalid => Some(Refusal::Changed),
            // No client is left; a command's output has no limit.
            EndCause::Deserted | EndCause::Overflow => None,
        },
    }
}
