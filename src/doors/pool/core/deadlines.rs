//! What happens when time passes.
//!
//! Workers' deadlines are not kept in a sorted set: [`Dispatcher`] remembers a moment before which none is due, and looks
//! at all workers when it has come. Giving out a request can then only lower that moment, which costs nothing, and the
//! walk takes place at most once per time-out.

use std::time::{Duration, Instant};

use super::blame::Blame;
use super::event::{Action, Refusal, RequestId, WorkerId};
use super::worker::Phase;
use super::{Dispatcher, Restart};

/// A request longer than this many bytes may not fit the line buffer of a stdio program, which then reads it in pieces and
/// answers more than once: squidGuard does above 12,287 bytes (protocols.md §2), and 4,096 is what one read(2) of the C
/// library's buffered input takes from a pipe.
pub(super) const LONG_REQUEST: usize = 4096;
/// After a long request a worker is watched for so long before it is used again, and after a long time without a pause.
pub(super) const SETTLE: Duration = Duration::from_millis(20);
/// While requests wait, a worker goes from one to the next, and a stray second reply that comes late passes for the reply to
/// the next request, and so on for as long as the worker has no pause. So it is given one after this time: two parts in a
/// hundred of its work, for an end to the confusion.
pub(super) const UNWATCHED: Duration = Duration::from_secs(1);

impl Dispatcher {
    pub(super) fn tick(&mut self) {
        let before = self.actions.len();
        if self.wake.is_some_and(|wake| wake <= self.now) {
            self.tick_workers();
        }
        self.end_rests();
        // After a pause of the whole daemon everything may be due at once: whoever can be served now is not refused.
        self.serve_queue();
        let inspects = |action: &Action| matches!(action, Action::Inspect(_));
        if self.actions.iter().skip(before).any(inspects) {
            // Their workers may be free before the loop goes on. The queue is still due, so another tick comes at once.
            return;
        }
        while let Some(request) = self.queue.pop_expired(self.now) {
            self.refuse(request, Refusal::QueueTimeout, None);
        }
    }

    fn tick_workers(&mut self) {
        let now = self.now;
        let due: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(|(_, worker)| self.moment(worker).is_some_and(|at| at <= now))
            .map(|(_, worker)| worker.id)
            .collect();
        for worker in due {
            self.tick_worker(worker);
        }
        self.wake = self.workers.iter().filter_map(|(_, worker)| self.moment(worker)).min();
    }

    fn tick_worker(&mut self, worker: WorkerId) {
        self.recycle_if_due(worker);
        self.end_trial_if_due(worker);
        let now = self.now;
        match self.phase(worker) {
            Some(Phase::Delayed { until }) if until <= now => {
                self.enter(worker, Phase::Spawning);
                self.actions.push_back(Action::Spawn(worker));
            }
            Some(Phase::Starting { deadline }) if deadline <= now => {
                self.fail(worker, Restart::StartTimeout, Blame::NoRequest);
            }
            Some(Phase::Probing { deadline, .. }) if deadline <= now => {
                self.fail(worker, Restart::Quarantined, Blame::NoRequest);
            }
            Some(Phase::Available) => {
                self.probe_again(worker);
            }
            Some(Phase::Busy { deadline }) if deadline <= now => {
                self.fail(worker, Restart::BusyTimeout, Blame::NoRequest);
            }
            Some(Phase::Busy { .. }) => self.give_up_overdue(worker),
            Some(Phase::Settling { until }) if until <= now => {
                // Asked once; the shell's report ends this state before the loop goes on.
                self.actions.push_back(Action::Inspect(worker));
            }
            // Not due yet, or nothing that time could change.
            _ => {}
        }
    }

    fn give_up_overdue(&mut self, worker: WorkerId) {
        let flights = self.worker(worker).into_iter().flat_map(|worker| &worker.flights);
        let overdue = |request: &RequestId| self.give_up_at(*request).is_some_and(|at| at <= self.now);
        let overdue: Vec<RequestId> = flights.filter_map(|flight| flight.request).filter(overdue).collect();
        for request in overdue {
            self.give_up(worker, request);
        }
    }

    fn give_up_at(&self, request: RequestId) -> Option<Instant> {
        self.requests.get(request.index as usize).map(|request| request.give_up)
    }

    /// When something is due for this worker: its own deadline, or the end of its request.
    pub(super) fn moment(&self, worker: &super::Worker) -> Option<Instant> {
        let give_up = worker
            .flights
            .iter()
            .filter_map(|flight| self.give_up_at(flight.request?))
            .min();
        [worker.deadline(), give_up].into_iter().flatten().min()
    }

    pub(super) fn lower_wake(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}
