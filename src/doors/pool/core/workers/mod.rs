//! The workers of a pool, and which of them gets the next request.
//!
//! The life of a worker is drawn in [`phase`]. It changes through [`Workers::update`] alone, which keeps in step with
//! it: the list of the free workers and the rule which of them is taken ([`available`]), the queue of the [`resting`],
//! the list of the busy workers that may be given one more request, the numbers of each kind ([`headcount`]), and the
//! time at which one of them is to be looked at.
//!
//! Deadlines are not kept in a sorted set: there is a time before which none is due, and all workers are looked at when
//! it has come. Giving out a request can then only lower that time, which costs nothing, and the walk takes place at
//! most once per time-out.
//!
//! The invariants:
//! - A worker is in the list of the available exactly when its phase says so.
//! - A busy worker with room for one more is listed under the number of its flights.
//! - No worker has a deadline before [`Workers::next_deadline`].
//!
//! Places, requests that wait, and the fate of a lost worker's place do not belong here.

mod available;
mod channels;
mod check;
mod headcount;
#[cfg(debug_assertions)]
mod invariants;
mod phase;
mod resting;
mod view;
mod worker;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use slab::Slab;

pub(super) use channels::Channels;
pub(super) use check::CheckKind;
pub(super) use headcount::Headcount;
pub use phase::Place;
pub(super) use phase::{Phase, RestReason};
pub use view::{Activity, Status, StatusCounts, WorkerView};
pub(super) use worker::{Due, Flight, NextStep, Worker};

use super::event::WorkerId;
use crate::doors::pool::options::Policy;
use available::{Available, Since};
use resting::Resting;
use worker::LONG_REQUEST;

/// The time for which a worker is watched before it is used again after a long request, and after a long time without a
/// pause.
pub(super) const SETTLE: Duration = Duration::from_millis(20);

/// The workers of a pool.
#[derive(Debug)]
pub(super) struct Workers {
    list: Slab<Worker>,
    incarnations: u32,
    rules: Rules,
    /// Free workers, and which of them is taken first.
    available: Available,
    resting: Resting,
    /// Busy workers that may be given one more request, those with the fewest in flight first.
    room: BTreeSet<(usize, WorkerId)>,
    pub(super) headcount: Headcount,
    /// No worker has a deadline before this.
    wake: Option<Instant>,
    /// The shortest time that a worker has taken from its start to its first answer, since the last roll: the time that
    /// a start takes, at most, as far as is known.
    start_up: Option<Duration>,
}

/// The part of the policy that decides which worker may be given a request.
#[derive(Debug, Clone, Copy)]
struct Rules {
    pipeline: usize,
    concurrency: bool,
    rest: Duration,
}

impl Rules {
    fn new(policy: &Policy) -> Self {
        Rules {
            pipeline: policy.pipeline,
            concurrency: policy.concurrency.is_some(),
            rest: policy.rest,
        }
    }
}

/// The decision about a free worker's probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckDecision {
    /// No probe is due, or the probe was put off.
    Later,
    /// The worker is to be asked now.
    Now,
}

impl Workers {
    pub(super) fn new(policy: &Policy) -> Self {
        Workers {
            list: Slab::new(),
            incarnations: 0,
            rules: Rules::new(policy),
            available: Available::default(),
            resting: Resting::default(),
            room: BTreeSet::new(),
            headcount: Headcount::default(),
            wake: None,
            start_up: None,
        }
    }

    /// Follows another policy. [`refresh_room`](Self::refresh_room) must be called once all changes are made that come
    /// with it.
    pub(super) fn reconfigure(&mut self, policy: &Policy) {
        self.rules = Rules::new(policy);
    }

    // ---- changes ----------------------------------------------------------------------------------------------

    /// Adds a worker whose process is started at once, or after a delay. Returns `None` when there are more than can be
    /// numbered.
    pub(super) fn add(&mut self, place: Place, delay: Duration, now: Instant) -> Option<WorkerId> {
        let entry = self.list.vacant_entry();
        let id = WorkerId {
            index: u32::try_from(entry.key()).ok()?,
            incarnation: self.incarnations,
        };
        self.incarnations = self.incarnations.wrapping_add(1);
        let worker = entry.insert(Worker::new(id, place, delay, now));
        self.headcount.add(worker);
        let deadline = worker.deadline();
        self.lower_wake(deadline);
        Some(id)
    }

    /// Changes a worker, and keeps all lists and numbers in step. Returns `None` if it is not there any more.
    pub(super) fn update<T>(&mut self, id: WorkerId, now: Instant, change: impl FnOnce(&mut Worker) -> T) -> Option<T> {
        let worker = self.list.get_mut(id.index as usize).filter(|worker| worker.id == id)?;
        self.headcount.subtract(worker);
        let before = (worker.phase, worker.place, worker.flights.len());
        let result = change(worker);
        let after = (worker.phase, worker.place, worker.flights.len());
        self.headcount.add(worker);
        let (deadline, free_since) = (worker.deadline(), worker.free_since());
        if before.0 != after.0 {
            self.list_phase(id, before.0, after.0, free_since, now);
        }
        if before != after {
            self.list_room(id, now);
        }
        self.lower_wake(deadline);
        Some(result)
    }

    fn list_phase(&mut self, id: WorkerId, before: Phase, after: Phase, free_since: Since, now: Instant) {
        if before == Phase::Available {
            self.available.remove(id);
        }
        if after == Phase::Available {
            self.available.insert(id, free_since, now);
        }
        if let Phase::Resting { since, .. } = after {
            self.resting.push(since, id);
        }
    }

    /// Keeps the list of the workers with room for one more in step with a worker. One whose probe is overdue has none:
    /// while others could always be given, it would never be free.
    fn list_room(&mut self, id: WorkerId, now: Instant) {
        let (pipeline, enough_are_away) = (self.rules.pipeline, self.enough_are_away());
        let Some(worker) = self.list.get_mut(id.index as usize) else {
            return;
        };
        let must_run_dry = worker.next_check.is_some_and(|check| check.is_overdue(now)) && !enough_are_away;
        let has_room = !must_run_dry && worker.has_room(pipeline, now);
        let wanted = has_room.then_some(worker.flights.len());
        let listed = std::mem::replace(&mut worker.room_listed, wanted);
        if listed != wanted {
            listed.map(|load| self.room.remove(&(load, id)));
            wanted.map(|load| self.room.insert((load, id)));
        }
    }

    /// Lists all workers with room afresh: the number of requests that they may have is another one.
    pub(super) fn refresh_room(&mut self, now: Instant) {
        for id in self.ids() {
            self.list_room(id, now);
        }
    }

    /// Forgets a worker: its process has ended, or there was none.
    pub(super) fn remove(&mut self, id: WorkerId, now: Instant) {
        if self.update(id, now, |worker| worker.enter(Phase::Stopping)).is_some()
            && let Some(worker) = self.list.try_remove(id.index as usize)
        {
            self.headcount.subtract(&worker);
        }
    }

    // ---- which worker gets a request --------------------------------------------------------------------------

    /// The worker for the next request: a free one, always, the best of them; with none free, the one with the fewest
    /// requests in flight of all that may be given one more. A long request is never written ahead: its worker is to be
    /// watched after it, with nothing behind it. Where a stray answer is known by its number, nothing has to be
    /// watched.
    pub(super) fn choose(&mut self, size: usize, now: Instant) -> Option<WorkerId> {
        if let Some(free) = self.available.choose(now, self.start_up) {
            return Some(free);
        }
        let (_, id) = *self.room.first()?;
        let fits = size <= LONG_REQUEST || self.get(id).is_some_and(Worker::has_channels);
        fits.then_some(id)
    }

    /// A worker that was chosen and not used after all, and is free again, stands where it stood.
    pub(super) fn put_back(&mut self, id: WorkerId) {
        self.available.put_back(id);
    }

    /// The free worker that can be missed most easily.
    pub(super) fn least_needed(&self) -> Option<WorkerId> {
        self.available.least_needed()
    }

    /// The number of free workers.
    pub(super) fn count_free(&self) -> usize {
        self.available.len()
    }

    /// Returns true if the next request would be worked on at once: by a worker that is free, or by one that takes
    /// several. One to which it could only be written ahead does not count.
    pub(super) fn can_take_at_once(&self) -> bool {
        self.count_free() > 0 || self.rules.concurrency && !self.room.is_empty()
    }

    /// Notes the time that a worker took from its start to its first answer: by then it had started, however long it
    /// waited for its request.
    pub(super) fn learn_start_up(&mut self, took: Duration) {
        self.start_up = Some(self.start_up.map_or(took, |known| known.min(took)));
    }

    /// The workers that are started from now on may take longer.
    pub(super) fn forget_start_up(&mut self) {
        self.start_up = None;
    }

    // ---- probes -----------------------------------------------------------------------------------------------

    /// Returns true if as many serving workers are being probed as can be.
    fn enough_are_away(&self) -> bool {
        self.headcount.away >= (self.headcount.placed / check::SHARE).max(1)
    }

    /// Decides about the periodic probe of a worker that serves and has nothing in hand. One that is due and has to be
    /// missed too much, while others wait or none does, is put off.
    pub(super) fn decide_check(&mut self, id: WorkerId, others_wait: bool, now: Instant) -> CheckDecision {
        let check = self.get(id).and_then(|worker| Some((worker.phase, worker.next_check?)));
        let Some((phase, mut check)) = check.filter(|(_, check)| check.is_due(now)) else {
            return CheckDecision::Later;
        };
        let others_free = self.count_free() - usize::from(phase == Phase::Available);
        let others_at_work = self.headcount.occupied - usize::from(phase.is_occupied());
        let can_spare = check.is_overdue(now) || !others_wait && (others_free > 0 || others_at_work == 0);
        if can_spare && !self.enough_are_away() {
            return CheckDecision::Now;
        }
        check.put_off(now);
        self.update(id, now, |worker| worker.next_check = Some(check));
        CheckDecision::Later
    }

    // ---- time -------------------------------------------------------------------------------------------------

    /// The time of the next tick: no worker is due before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        [self.wake, self.next_rest_end()].into_iter().flatten().min()
    }

    /// The time when the next worker's rest ends.
    pub(super) fn next_rest_end(&self) -> Option<Instant> {
        self.resting.next_deadline(self.rules.rest)
    }

    /// The workers whose deadline has come. [`find_next_deadline`](Self::find_next_deadline) must be called once they
    /// were looked at.
    pub(super) fn all_due(&self, now: Instant) -> Vec<WorkerId> {
        if self.wake.is_none_or(|wake| wake > now) {
            return Vec::new();
        }
        let is_due = |worker: &&Worker| worker.deadline().is_some_and(|at| at <= now);
        self.iter().filter(is_due).map(|worker| worker.id).collect()
    }

    pub(super) fn find_next_deadline(&mut self, now: Instant) {
        if self.wake.is_some_and(|wake| wake <= now) {
            self.wake = self.iter().filter_map(Worker::deadline).min();
        }
    }

    fn lower_wake(&mut self, at: Option<Instant>) {
        self.wake = self.wake.into_iter().chain(at).min();
    }

    /// Returns a worker whose rest is over, as long as there is one. It has written nothing meanwhile, or it would not
    /// rest.
    pub(super) fn next_rested(&mut self, now: Instant) -> Option<WorkerId> {
        while let Some((since, id)) = self.resting.pop(self.rules.rest, now) {
            let rests = |worker: &Worker| matches!(worker.phase, Phase::Resting { since: began, .. } if began == since);
            if self.get(id).is_some_and(rests) {
                return Some(id);
            }
        }
        None
    }

    // ---- looking up -------------------------------------------------------------------------------------------

    pub(super) fn get(&self, id: WorkerId) -> Option<&Worker> {
        self.list.get(id.index as usize).filter(|worker| worker.id == id)
    }

    pub(super) fn phase(&self, id: WorkerId) -> Option<Phase> {
        self.get(id).map(|worker| worker.phase)
    }

    pub(super) fn place(&self, id: WorkerId) -> Option<Place> {
        self.get(id).map(|worker| worker.place)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Worker> {
        self.list.iter().map(|(_, worker)| worker)
    }

    pub(super) fn ids(&self) -> Vec<WorkerId> {
        self.iter().map(|worker| worker.id).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Workers {
        /// The free workers, in the order in which they can be missed.
        pub(in super::super) fn free(&self) -> impl Iterator<Item = WorkerId> {
            self.available.iter()
        }
    }
}
