//! The loss of a worker, told in one line when all is known that can be known in a moment: why, what becomes of its place,
//! its last requests, and the requests that are refused for it.
//!
//! Most reasons are known when the dispatcher gives the worker up, and are told at once. One that has closed its input or
//! output is most often dying: its successor is started at once, but its line waits for its status, for as long as
//! [`END_GRACE`](crate::process::kill_sequence::END_GRACE), in which nothing is done to the process. What it writes to standard error
//! meanwhile stands above the line. Those that are lost behind it are told behind it, and reaped no sooner.
//!
//! A worker that has answered nothing is compared with those before it ([`Repeats`](crate::doors::pool::repeats::Repeats)).

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::process::{Stage, WorkerProcess};
use crate::doors::pool::buffering;
use crate::doors::pool::core::{Action, Restart, WorkerId};
use crate::doors::pool::repeats::{Again, Words};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::lifecycle::Life;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::doors::pool::story::{self, Cause, End, Next};
use crate::reactor::Context;

/// So many refusals wait for the line that tells their cause; others are told as they come.
const MOST_REFUSALS: usize = 8;

/// What is known of a loss when the dispatcher gives a worker up.
#[derive(Debug)]
pub(in crate::doors::pool::shell) struct Loss {
    reason: Restart,
    slot: Option<usize>,
    next: Next,
    /// To be said, if it is more than one.
    early_deaths: u32,
    at: Instant,
    requests_in_hand: usize,
    has_session: bool,
    /// Lines that are effects of it.
    refusals: Vec<(Topic, String)>,
}

impl Pool {
    pub(in crate::doors::pool::shell) fn note_loss(&mut self, cx: &mut Context<'_>, replaced: Action) {
        let Action::Replaced {
            worker,
            slot,
            reason,
            delay,
            early_deaths,
        } = replaced
        else {
            return;
        };
        if self
            .workers
            .get(worker)
            .is_some_and(|process| process.casts_doubt_by(reason))
        {
            self.clients.cache_mut().forget_all();
        }
        let next = self.next_in_place(worker, slot, delay);
        let process = self.workers.get(worker);
        let loss = Loss {
            reason,
            slot,
            next,
            // It says nothing where the delay has another reason.
            early_deaths: if reason == Restart::Died { early_deaths } else { 0 },
            at: cx.now(),
            requests_in_hand: process.map_or(0, WorkerProcess::requests_in_hand),
            has_session: process.is_some_and(|process| process.session.is_some()),
            refusals: Vec::new(),
        };
        if matches!(reason, Restart::Recycled | Restart::Spent | Restart::Asked) {
            return self.log_planned(cx, worker, &loss);
        }
        match self.workers.get_mut(worker) {
            Some(process) if process.stage == Stage::Lost && process.end.is_none() => {
                process.loss = Some(Box::new(loss));
                self.workers.dying.push(worker);
            }
            Some(process) => {
                let end = process.end.clone().unwrap_or(End::Stopped);
                self.log_loss(cx, worker, loss, &end);
            }
            None => self.log_loss(cx, worker, loss, &End::Stopped),
        }
    }

    /// Those that were lost before this one, and have ended as well: their end is only not heard of yet.
    pub(in crate::doors::pool::shell) fn dead_before(&self, id: WorkerId) -> Vec<WorkerId> {
        let before = self.workers.dying.iter().take_while(|dying| **dying != id);
        let is_dead = |dying: &&WorkerId| {
            self.workers
                .get(**dying)
                .is_some_and(|process| process.child.has_exited())
        };
        before.filter(is_dead).copied().collect()
    }

    /// Whether its story is due, but that of one that was lost before it is not yet.
    pub(in crate::doors::pool::shell) fn has_losses_before(&self, id: WorkerId) -> bool {
        let is_lost = self.workers.get(id).is_some_and(|process| process.loss.is_some());
        is_lost && self.workers.dying.first() != Some(&id)
    }

    /// Its story is told: that of the next one may be due.
    fn remove_dying(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        self.workers.dying.retain(|dying| *dying != id);
        let next = self.workers.dying.first().and_then(|next| self.workers.get(*next));
        if let Some(next) = next.filter(|next| next.exit_waits) {
            cx.resume_later(PoolSource::WorkerExit.worker(next.id));
        }
    }

    /// It is not dying: it goes on, and is ended now.
    pub(in crate::doors::pool::shell) fn log_loss_of_living(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let closed = process.closed;
        if let Some(loss) = process.loss.take() {
            self.remove_dying(cx, id);
            let end = closed.map_or(End::Stopped, End::Closed);
            self.log_loss(cx, id, *loss, &end);
        }
    }

    /// Its process has ended in this way.
    pub(in crate::doors::pool::shell) fn log_loss_of_dead(&mut self, cx: &mut Context<'_>, id: WorkerId, end: End) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let loss = process.loss.take();
        process.end = Some(end.clone());
        if let Some(loss) = loss {
            self.remove_dying(cx, id);
            self.log_loss(cx, id, *loss, &end);
        }
    }

    /// Keeps a line for later that is an effect of a loss whose story is not told yet. `false`: there is none, and it is due.
    pub(in crate::doors::pool::shell) fn defer_refusal(
        &mut self,
        worker: Option<WorkerId>,
        topic: Topic,
        line: fmt::Arguments<'_>,
    ) -> bool {
        let process = worker.and_then(|worker| self.workers.get_mut(worker));
        let Some(loss) = process.and_then(|process| process.loss.as_mut()) else {
            return false;
        };
        let has_room = loss.refusals.len() < MOST_REFUSALS;
        if has_room {
            loss.refusals.push((topic, line.to_string()));
        }
        has_room
    }

    /// A worker has answered. The first time it is young no more.
    pub(in crate::doors::pool::shell) fn note_answer(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        if self.workers.get(id).is_none_or(|process| !process.words.is_young()) {
            return;
        }
        let ended = self.with_words(cx, id, |repeats, _, words, tell| repeats.proven(words, tell));
        if let Some(ended) = ended.flatten().filter(|ended| ended.count > 1) {
            let (name, who) = (&self.options.front.name, self.workers.describe(id).unwrap_or_default());
            log::info!(service:% = name; "{name}: {who} answers, {}", story::after_all(&ended));
        }
    }

    /// Rows of losses that nobody will end any more, or that are not to be compared with those to come.
    pub(in crate::doors::pool::shell) fn end_row(&mut self) {
        if let Some(line) = self.repeats.end().and_then(|ended| story::untold(&ended)) {
            log::info!(service:% = self.options.front.name; "{}: {line}", self.options.front.name);
        }
        self.echoes.end();
    }

    fn log_planned(&mut self, cx: &mut Context<'_>, worker: WorkerId, loss: &Loss) {
        let who = self.name_of(worker, loss);
        let Cause { level, what, .. } = story::cause(loss.reason, &End::Stopped, None, &self.options);
        let next = match loss.next {
            // So it is meant to be.
            Next::Successor => "another serves in its place".to_owned(),
            ref next => next.story(0, false),
        };
        self.note(
            cx,
            level,
            Topic::Restart(loss.reason),
            format_args!("{who} {what}; {next}"),
        );
    }

    fn log_loss(&mut self, cx: &mut Context<'_>, id: WorkerId, loss: Loss, end: &End) {
        self.read_stderr_now(cx, id);
        let who = self.name_of(id, &loss);
        let complaint = self.complaint(id, loss.reason, end);
        let cause = story::cause(loss.reason, end, complaint.as_deref(), &self.options);
        let again = self.compare(cx, id, &loss, &cause);
        if let Some(detail) = story::as_a_cause(loss.reason, &cause) {
            self.outage.note_loss(loss.reason, detail);
        }
        if let Some(process) = self.workers.get_mut(id) {
            self.echoes.lost(&mut process.said, cx.now());
        }
        if again.is_none_or(|again| again.is_told) {
            let Cause {
                level,
                what,
                detail,
                remark,
            } = cause;
            let is_again = again.is_some_and(|again| again.number > 1);
            let topic = match again {
                Some(Again { number: 1, .. }) => Topic::NewLoss(loss.reason),
                _ => Topic::Restart(loss.reason),
            };
            let early_deaths = if is_again { 0 } else { loss.early_deaths };
            let next = loss.next.story(early_deaths, loss.reason == Restart::SpawnFailed);
            let process = self.workers.get(id);
            let lived = process.map_or(Duration::ZERO, |process| {
                loss.at.saturating_duration_since(process.started)
            });
            let again = story::again(again);
            let how = match loss.reason {
                Restart::Died => story::circumstances(lived, loss.requests_in_hand, loss.has_session, &again),
                _ => again,
            };
            // What has been advised once helps no more for being said again.
            let hint = if is_again {
                String::new()
            } else {
                self.hint(id, loss.reason, end)
            };
            let record = self.record(id, loss.reason, loss.at);
            let line = format_args!("{who} {what}{how}{detail}{remark}; {next}{hint}");
            self.rooms()
                .desk
                .note_at_length(cx, level, topic, line, record.into_iter());
        }
        for (topic, line) in loss.refusals {
            self.note(cx, Level::Warn, topic, format_args!("{line}"));
        }
        self.log_outage_if_due(cx);
    }

    fn name_of(&self, id: WorkerId, loss: &Loss) -> String {
        let place = || match loss.slot {
            Some(slot) => format!("worker {slot}"),
            None => "a worker on its way out".to_owned(),
        };
        self.workers.describe(id).unwrap_or_else(place)
    }

    /// What is known beyond the reason.
    fn complaint(&mut self, id: WorkerId, reason: Restart, end: &End) -> Option<String> {
        if reason == Restart::SpawnFailed {
            return self.workers.refusal.take();
        }
        let process = self.workers.get(id)?;
        match reason {
            Restart::UnknownChannel => process.stray.clone(),
            Restart::Quarantined => {
                let stray = process.stray.as_deref().map(|stray| story::stray(Some(stray)));
                let story = process.health_check.story(self.options.disclosure, end)?;
                Some(format!("{story}{}", stray.unwrap_or_default()))
            }
            _ => process.complaint.clone(),
        }
    }

    /// Compares a worker that has answered nothing with those before it; `None`: it had answered.
    fn compare(&mut self, cx: &mut Context<'_>, id: WorkerId, loss: &Loss, cause: &Cause) -> Option<Again> {
        let (now, cause) = (cx.now(), (cause.what.as_str(), cause.detail.as_str()));
        let (again, ended) = match self.workers.get(id) {
            Some(process) if !process.words.is_young() => return None,
            Some(process) => {
                let which = (process.pid(), process.number);
                self.with_words(cx, id, |repeats, _, words, tell| {
                    let compared = repeats.lost(words, cause, which, now, tell);
                    *words = Words::of_grown();
                    compared
                })?
            }
            // It was never started.
            None => {
                let (which, mut none) = ((0, loss.slot?), Words::default());
                self.repeats.lost(&mut none, cause, which, now, &mut |_| {})
            }
        };
        if let Some(line) = ended.and_then(|ended| story::untold(&ended)) {
            let name = &self.options.front.name;
            log::info!(service:% = name; "{name}: {line}");
        }
        Some(again)
    }

    fn hint(&self, id: WorkerId, reason: Restart, end: &End) -> String {
        let is_asked = matches!(reason, Restart::BusyTimeout | Restart::Quarantined) && *end == End::Stopped;
        let is_silent = |process: &WorkerProcess| !process.has_written && !process.child.is_on_terminal();
        if is_asked && self.workers.get(id).is_some_and(is_silent) {
            buffering::hint(self.options.process.command.argv())
        } else {
            String::new()
        }
    }

    fn next_in_place(&self, lost: WorkerId, slot: Option<usize>, delay: Option<Duration>) -> Next {
        match (slot, delay) {
            (None, _) if self.life == Life::Stopping => Next::TheEnd,
            (None, _) => Next::Nothing,
            (Some(_), None) => Next::Successor,
            (Some(slot), Some(delay)) => {
                // Who serves on where a successor is lost: so a broken new generation is told from an outage.
                let serving = self.dispatcher.in_service(slot).filter(|serving| *serving != lost);
                let stays = serving.and_then(|serving| self.workers.describe(serving));
                Next::Start { delay, stays }
            }
        }
    }
}
