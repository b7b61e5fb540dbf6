//! What statistics and dumps see of the dispatcher.

use std::time::{Duration, Instant};

use super::event::{ClientId, WorkerId};
use super::worker::{Phase, Worker};
use super::{Counters, Dispatcher};

/// A worker's state as iotcpd 1.1 numbers it (protocols.md §1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Free.
    Available = 1,
    /// At work, for somebody or for nobody, or watched after a long request, or at rest, or probed once more.
    Busy = 2,
    /// No process: it is being made, or waits out a respawn delay.
    Spawning = 4,
    /// Its process is not ready yet, or has not passed its first probe.
    Starting = 8,
    /// Its process has been told to end (new in 2.0; never the state of a place).
    Stopping = 16,
    /// The last worker in this place has failed its probe; another one is waited for, started or asked.
    Quarantined = 32,
}

/// How many workers are in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusCounts {
    /// Free.
    pub available: u64,
    /// With their hands full.
    pub busy: u64,
    /// Of these: for nobody, their client has gone.
    pub draining: u64,
    /// Without a process.
    pub spawning: u64,
    /// Not ready yet.
    pub starting: u64,
    /// Told to end.
    pub stopping: u64,
    /// In places whose last worker has failed its probe, where none has passed since: whatever else they are.
    pub quarantined: u64,
}

/// One place and who serves in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// The number of the place.
    pub number: usize,
    /// Who.
    pub worker: WorkerId,
    /// Its state.
    pub status: Status,
    /// For whom it works.
    pub client: Option<ClientId>,
    /// Since when it works on its (oldest) request.
    pub busy_since: Option<Instant>,
}

impl Dispatcher {
    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How many requests wait for a worker.
    pub fn queue_length(&self) -> usize {
        self.queue.len()
    }

    /// How many places there are.
    pub fn places(&self) -> usize {
        self.slots.len()
    }

    /// How many requests a worker has been given and has not answered.
    pub fn in_flight(&self, id: WorkerId) -> usize {
        self.worker(id).map_or(0, |worker| worker.flights.len())
    }

    /// The most that ever waited.
    pub fn queue_peak(&self) -> usize {
        self.queue_peak
    }

    /// Requests taken in and not ended yet.
    pub fn requests_in_hand(&self) -> usize {
        self.requests.len()
    }

    /// For how long, all told, every worker that could serve was busy.
    pub fn saturated(&self, now: Instant) -> Duration {
        self.saturation.total(now)
    }

    /// The number of the place a worker serves in; `None` for one that has lost its place.
    pub fn slot_of(&self, id: WorkerId) -> Option<usize> {
        use super::worker::Place;
        match self.place(id)? {
            Place::Serving(slot) | Place::Successor(slot) => Some(slot),
            Place::Outgoing => None,
        }
    }

    /// Who serves in a place: not one that is still to be started, or starts.
    pub fn in_service(&self, slot: usize) -> Option<WorkerId> {
        let serving = self.slots.get(slot)?.serving;
        self.phase(serving)?.serves().then_some(serving)
    }

    /// How many workers are in each state.
    pub fn status_counts(&self) -> StatusCounts {
        let mut counts = StatusCounts::default();
        for (_, worker) in &self.workers {
            match status(worker) {
                Status::Available => counts.available += 1,
                Status::Busy => counts.busy += 1,
                Status::Spawning => counts.spawning += 1,
                Status::Starting => counts.starting += 1,
                Status::Stopping => counts.stopping += 1,
                Status::Quarantined => counts.quarantined += 1,
            }
            let is_draining = worker.flights.iter().all(|flight| flight.request.is_none());
            counts.draining += u64::from(matches!(worker.phase, Phase::Busy { .. }) && is_draining);
        }
        counts
    }

    /// All places, in order.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        self.slots.iter().filter_map(|(number, slot)| {
            let worker = self.worker(slot.serving)?;
            let oldest = worker.flights.iter().find_map(|flight| flight.request);
            let client = oldest
                .and_then(|request| self.requests.get(request.index as usize))
                .map(|request| request.client);
            let busy_since = worker.flights.front().map(|flight| flight.began);
            Some(SlotView {
                number,
                worker: worker.id,
                status: status(worker),
                client,
                busy_since,
            })
        })
    }
}

fn status(worker: &Worker) -> Status {
    match worker.phase {
        Phase::Stopping => Status::Stopping,
        _ if worker.quarantined => Status::Quarantined,
        Phase::Available => Status::Available,
        phase if phase.is_occupied() => Status::Busy,
        Phase::Delayed { .. } | Phase::Spawning => Status::Spawning,
        // Until it has passed its first probe it is not up.
        _ => Status::Starting,
    }
}
