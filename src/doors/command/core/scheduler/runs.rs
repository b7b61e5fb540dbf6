//! Runs: begun, shared, deserted, over.

use std::collections::BTreeSet;
use std::time::Instant;

use super::super::client::State;
use super::super::event::{Action, Cause, ClientId, Refusal, RunId};
use super::super::run::{Happening, Run, Step};
use super::{Job, Scheduler};

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
            run: Run::new(timeout, self.timing.linger),
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

    /// A run whose output is all that such a request would get. One that may not be joined never may again: it is looked at once.
    pub(super) fn joinable(&mut self, name: &[u8], arguments: &[Vec<u8>]) -> Option<RunId> {
        let good = |job: &Job| job.whole && job.run.may_be_joined() && !job.audience.is_empty();
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
        self.enter(id, State::Following { run, stalled_until });
    }

    /// A client leaves its run.
    pub(super) fn desert(&mut self, client: ClientId, run: RunId, now: Instant) {
        self.actions.push(Action::Detach { client, run });
        self.close(client);
        let Some(job) = self.jobs.get_mut(&run) else { return };
        job.audience.remove(&client);
        if job.audience.is_empty() {
            if !job.run.has_exited() {
                self.counters.vanished += 1;
            }
            self.happen(run, Happening::Deserted, now);
        } else if job.leader == client {
            self.actions.push(Action::EndInput(run));
        }
    }

    pub(super) fn happen(&mut self, id: RunId, what: Happening, now: Instant) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        for step in job.run.handle(what, now) {
            self.step(id, step, now);
        }
    }

    fn step(&mut self, id: RunId, step: Step, now: Instant) {
        match step {
            Step::EndInput => self.actions.push(Action::EndInput(id)),
            Step::End(cause) => {
                match cause {
                    Cause::Timeout(_) => self.counters.timed_out += 1,
                    Cause::Standstill => self.counters.refused += 1,
                    Cause::Stop | Cause::Vanished => {}
                }
                self.actions.push(Action::End(id, cause));
            }
            Step::Kill => self.actions.push(Action::Kill(id)),
            Step::Forsake => self.actions.push(Action::Forsake(id)),
            Step::CutOutput => self.actions.push(Action::CutOutput(id)),
            Step::Tell(why) => self.tell_audience(id, why.as_ref(), now),
            Step::Reap => self.actions.push(Action::Reap(id)),
            Step::Drop => self.drop_run(id),
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
