//! The loss of a worker, told in one line when all is known that can be known in a moment: why, what becomes of its
//! place, its last requests, and the requests that are refused for it.
//!
//! Most reasons are known when the dispatcher gives the worker up, and are told at once. One that has closed its input
//! or output is most often dying: its successor is started at once, but its line waits for its status, for as long as
//! [`END_GRACE`](crate::process::kill_sequence::END_GRACE), in which nothing is done to the process. What it writes to
//! standard error meanwhile stands above the line. Workers that are lost after it are told of after it, and reaped no
//! sooner.
//!
//! A worker that has answered nothing is compared with those before it
//! ([`Repeats`](crate::doors::pool::repeats::Repeats)).

use std::fmt;
use std::time::{Duration, Instant};

use log::Level;

use super::Workers;
use super::process::{Stage, WorkerProcess};
use crate::doors::pool::buffering;
use crate::doors::pool::core::{Replacement, Restart, WorkerId};
use crate::doors::pool::options::{Disclosure, Options};
use crate::doors::pool::outage;

use crate::doors::pool::repeats::{Again, Words};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::story::{self, Cause, End, Next};
use crate::reactor::Context;

/// The most refusals that wait for the line which tells their cause; others are logged as they come.
const MOST_REFUSALS: usize = 8;

/// The facts of a loss when the dispatcher gives a worker up.
#[derive(Debug)]
pub(crate) struct Loss {
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

impl Workers {
    /// Takes in that a worker is lost or stopped, and logs it as soon as all is known. `next`: what becomes of its
    /// place.
    pub(crate) fn note_loss(&mut self, desk: &mut Desk<'_>, lost: Replacement, next: Next) {
        let (worker, reason) = (lost.worker, lost.reason);
        let process = self.get(worker);
        let loss = Loss {
            reason,
            slot: lost.slot,
            next,
            // It says nothing where the delay has another reason.
            early_deaths: if reason == Restart::Died { lost.early_deaths } else { 0 },
            at: desk.cx.now(),
            requests_in_hand: process.map_or(0, WorkerProcess::requests_in_hand),
            has_session: process.is_some_and(|process| process.session().is_some()),
            refusals: Vec::new(),
        };
        if matches!(reason, Restart::Recycled | Restart::Spent | Restart::Asked) {
            return self.log_planned(desk, worker, &loss);
        }
        match self.get_mut(worker) {
            Some(process) if process.stage == Stage::Lost && process.losing.end.is_none() => {
                process.losing.loss = Some(Box::new(loss));
                self.dying.push(worker);
            }
            Some(process) => {
                let end = process.losing.end.clone().unwrap_or(End::Stopped);
                self.log_loss(desk, worker, loss, &end);
            }
            None => self.log_loss(desk, worker, loss, &End::Stopped),
        }
    }

    /// The workers that were lost before this one and have ended as well, but whose end is not handled yet.
    pub(crate) fn dead_before(&self, id: WorkerId) -> Vec<WorkerId> {
        let before = self.dying.iter().take_while(|dying| **dying != id);
        let is_dead = |dying: &&WorkerId| self.get(**dying).is_some_and(|process| process.child.has_exited());
        before.filter(is_dead).copied().collect()
    }

    /// Its story is told: that of the next one may be due.
    fn remove_dying(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        self.dying.retain(|dying| *dying != id);
        let next = self.dying.first().and_then(|next| self.get(*next));
        if let Some(next) = next.filter(|next| next.losing.exit_waits) {
            cx.resume_later(PoolSource::WorkerExit.worker(next.id));
        }
    }

    /// It is not dying: it goes on, and is ended now.
    pub(crate) fn log_loss_of_living(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        let closed = process.losing.closed;
        if let Some(loss) = process.losing.loss.take() {
            self.remove_dying(&mut desk.cx, id);
            let end = closed.map_or(End::Stopped, End::Closed);
            self.log_loss(desk, id, *loss, &end);
        }
    }

    /// Its process has ended in this way.
    pub(crate) fn log_loss_of_dead(&mut self, desk: &mut Desk<'_>, id: WorkerId, end: End) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        let loss = process.losing.loss.take();
        process.losing.end = Some(end.clone());
        if let Some(loss) = loss {
            self.remove_dying(&mut desk.cx, id);
            self.log_loss(desk, id, *loss, &end);
        }
    }

    /// Keeps a line for later that is an effect of a loss whose story is not told yet. `false`: there is none, and it
    /// is due.
    pub(crate) fn defer_refusal(&mut self, worker: Option<WorkerId>, topic: Topic, line: fmt::Arguments<'_>) -> bool {
        let process = worker.and_then(|worker| self.get_mut(worker));
        let Some(loss) = process.and_then(|process| process.losing.loss.as_mut()) else {
            return false;
        };
        let has_room = loss.refusals.len() < MOST_REFUSALS;
        if has_room {
            loss.refusals.push((topic, line.to_string()));
        }
        has_room
    }

    /// A worker has answered. The first time it is young no more.
    pub(crate) fn note_answer(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        if self.get(id).is_none_or(|process| !process.complaints.words.is_young()) {
            return;
        }
        let ended = self.with_words(desk, id, |repeats, _, words, tell| repeats.proven(words, tell));
        if let Some(ended) = ended.flatten().filter(|ended| ended.count > 1) {
            let (name, label) = (desk.front.name(), self.describe(id).unwrap_or_default());
            log::info!(service:% = name; "{name}: {label} answers, {}", story::after_all(&ended));
        }
    }

    /// Ends the row of equal losses: none will follow, or those to come are not to be compared with it.
    pub(crate) fn end_row(&mut self, options: &Options) {
        if let Some(line) = self.repeats.end().and_then(|ended| story::untold(&ended)) {
            log::info!(service:% = options.front.name; "{}: {line}", options.front.name);
        }
        self.echoes.end();
    }

    fn log_planned(&mut self, desk: &mut Desk<'_>, worker: WorkerId, loss: &Loss) {
        let label = self.name_of(worker, loss);
        let Cause { level, what, .. } = story::cause(loss.reason, &End::Stopped, None, desk.options);
        let next = match loss.next {
            // So it is meant to be.
            Next::Successor => "another serves in its place".to_owned(),
            ref next => next.story(0, false),
        };
        desk.note(
            level,
            Topic::Restart(loss.reason),
            format_args!("{label} {what}; {next}"),
        );
    }

    fn log_loss(&mut self, desk: &mut Desk<'_>, id: WorkerId, loss: Loss, end: &End) {
        self.read_stderr_now(desk, id);
        let label = self.name_of(id, &loss);
        let complaint = self.complaint(desk.options, id, loss.reason, end);
        let cause = story::cause(loss.reason, end, complaint.as_deref(), desk.options);
        let again = self.compare(desk, id, &loss, &cause);
        if let Some(detail) = story::as_a_cause(loss.reason, &cause) {
            self.outage.note_loss(loss.reason, detail);
        }
        if let Some(process) = self.processes.get_mut(id) {
            self.echoes.lost(&mut process.complaints.said, desk.cx.now());
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
            let process = self.get(id);
            let lived = process.map_or(Duration::ZERO, |process| {
                loss.at.saturating_duration_since(process.started)
            });
            let again = story::again(again);
            let how = match loss.reason {
                Restart::Died => story::circumstances(lived, loss.requests_in_hand, loss.has_session, &again),
                _ => again,
            };
            // Advice that was given once helps no more for being given again.
            let hint = if is_again {
                String::new()
            } else {
                self.hint(desk.options, id, loss.reason, end)
            };
            let record = self.record(desk.options.disclosure, id, loss.reason, loss.at);
            let line = format_args!("{label} {what}{how}{detail}{remark}; {next}{hint}");
            desk.note_at_length(level, topic, line, record.into_iter());
        }
        for (topic, line) in loss.refusals {
            desk.note(Level::Warn, topic, format_args!("{line}"));
        }
        self.log_outage_if_due(desk);
    }

    /// Returns a line for each of the last requests of a lost worker, the requests in hand among them. `lost` is the
    /// time of the loss.
    fn record(&mut self, disclosure: Disclosure, id: WorkerId, reason: Restart, lost: Instant) -> Vec<String> {
        let Some(process) = self.get_mut(id) else {
            return Vec::new();
        };
        let (label, record) = (process.label(), std::mem::take(&mut process.recorder));
        // A probe that was the first thing it was asked is told with its loss.
        if reason == Restart::Quarantined && record.entries().count() == 1 {
            return Vec::new();
        }
        let stories = record.entries().map(|entry| entry.story(lost, disclosure));
        stories.map(|story| format!("{label}: {story}")).collect()
    }

    fn name_of(&self, id: WorkerId, loss: &Loss) -> String {
        let place = || match loss.slot {
            Some(slot) => format!("worker {slot}"),
            None => "a worker on its way out".to_owned(),
        };
        self.describe(id).unwrap_or_else(place)
    }

    /// Facts beyond the reason.
    fn complaint(&mut self, options: &Options, id: WorkerId, reason: Restart, end: &End) -> Option<String> {
        if reason == Restart::SpawnFailed {
            return self.refusal.take();
        }
        let process = self.get(id)?;
        match reason {
            Restart::UnknownChannel => process.losing.stray.clone(),
            Restart::Quarantined => {
                let stray = process.losing.stray.as_deref().map(|stray| story::stray(Some(stray)));
                let story = process.health_check.story(options.disclosure, end)?;
                Some(format!("{story}{}", stray.unwrap_or_default()))
            }
            _ => process.losing.complaint.clone(),
        }
    }

    /// Compares a worker that has answered nothing with those before it; `None`: it had answered.
    fn compare(&mut self, desk: &mut Desk<'_>, id: WorkerId, loss: &Loss, cause: &Cause) -> Option<Again> {
        let (now, cause) = (desk.cx.now(), (cause.what.as_str(), cause.detail.as_str()));
        let (again, ended) = match self.get(id) {
            Some(process) if !process.complaints.words.is_young() => return None,
            Some(process) => {
                let which = (process.pid(), process.number);
                self.with_words(desk, id, |repeats, _, words, tell| {
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
            let name = desk.front.name();
            log::info!(service:% = name; "{name}: {line}");
        }
        Some(again)
    }

    fn hint(&self, options: &Options, id: WorkerId, reason: Restart, end: &End) -> String {
        let is_asked = matches!(reason, Restart::BusyTimeout | Restart::Quarantined) && *end == End::Stopped;
        let is_silent = |process: &WorkerProcess| !process.has_written && !process.child.is_on_terminal();
        if is_asked && self.get(id).is_some_and(is_silent) {
            buffering::hint(options.process.command.argv())
        } else {
            String::new()
        }
    }

    // ---- outages -----------------------------------------------------------------------------------------------

    /// Takes in that no worker can serve.
    pub(crate) fn begin_outage(&mut self, desk: &mut Desk<'_>, reason: Restart) {
        self.outage.begin(reason);
        self.log_outage_if_due(desk);
    }

    /// Logs an outage below the losses that have led to it: the story of one may be waited for.
    fn log_outage_if_due(&mut self, desk: &mut Desk<'_>) {
        if !self.iter().any(|process| process.losing.loss.is_some()) {
            self.log_outage(desk);
        }
    }

    pub(crate) fn log_outage(&mut self, desk: &mut Desk<'_>) {
        let Some(cause) = self.outage.take_untold(desk.options.policy.start_timeout) else {
            return;
        };
        let meanwhile = outage::meanwhile(desk.options);
        let line = format_args!(
            "no worker can serve: {cause}; until one can, {meanwhile}; mend that and send HUP, or wait: it is tried again by \
             itself"
        );
        desk.note(Level::Error, Topic::Outage, line);
    }

    /// The cause of the outage that lasts, in words.
    pub(crate) fn cause_of_outage(&self, options: &Options) -> Option<String> {
        self.outage.cause(options.policy.start_timeout)
    }
}
