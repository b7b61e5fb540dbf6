//! Workers as the statistics and the dump show them.

use std::time::Instant;

use super::Workers;
use super::check::CheckKind;
use super::phase::{Phase, Place};
use super::worker::Worker;
use crate::doors::pool::core::event::WorkerId;

/// The status of a worker in the dump. The first four have the numbers that iotcpd 1.1 printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Free.
    Available = 1,
    /// At work, also for a client that has gone, or watched after a long request, or at rest, or probed once more.
    Busy = 2,
    /// No process: it is being made, or waits out a respawn delay.
    Spawning = 4,
    /// The worker's process is not ready yet, or has not passed its first probe.
    Starting = 8,
    /// The worker's process has been told to end (new in 2.0; never the state of a place).
    Stopping = 16,
    /// The last worker in this place has failed its probe; another one is waited for, started or asked.
    Quarantined = 32,
}

/// The numbers of workers in each state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StatusCounts {
    /// The number of workers that are free.
    pub available: u64,
    /// The number of workers that work.
    pub busy: u64,
    /// The number of the busy that work for clients that have gone.
    pub draining: u64,
    /// The number of workers without a process.
    pub spawning: u64,
    /// The number of workers that are not ready yet.
    pub starting: u64,
    /// The number of workers that have been told to end.
    pub stopping: u64,
    /// The number of workers in places whose last worker has failed its probe, where none has passed since: whatever
    /// else they are.
    pub quarantined: u64,
}

/// One incarnation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// The worker's name.
    pub id: WorkerId,
    /// The worker's place.
    pub place: Place,
    /// The worker's activity.
    pub activity: Activity,
    /// The last worker in its place has failed its probe, and none has passed since.
    pub quarantined: bool,
    /// The number of requests that it has answered, also of clients that had gone.
    pub served: u64,
    /// The number of requests that it has in hand, also of clients that have gone.
    pub in_hand: usize,
}

/// The activity of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// There is no process, and the next one is started at this time.
    Delayed(Instant),
    /// The worker is being started, or is not ready yet.
    Starting,
    /// The worker is asked the question with the known answer.
    Probing,
    /// The worker is free.
    Idle,
    /// The worker works.
    Busy,
    /// The worker works, and all of its clients have gone: the answers are discarded.
    Draining,
    /// The worker has answered a long request, or many without a pause, and is watched for a second answer.
    Settling,
    /// The worker has answered, and is given nothing for a while.
    Resting,
    /// The worker's process has been told to end.
    Stopping,
}

impl Place {
    /// The worker that serves in a place comes before its successor, and those without a place at the end.
    fn order(self) -> (usize, u8) {
        match self {
            Place::Serving(slot) => (slot, 0),
            Place::Successor(slot) => (slot, 1),
            Place::Outgoing => (usize::MAX, 2),
        }
    }
}

impl Workers {
    /// Every worker: place by place, and then the workers that have none any more, the youngest last.
    pub(in super::super) fn views(&self) -> Vec<WorkerView> {
        let mut workers: Vec<_> = self.iter().map(view).collect();
        workers.sort_by_key(|worker| (worker.place.order(), worker.id.incarnation));
        workers
    }

    /// The numbers of workers in each state.
    pub(in super::super) fn status_counts(&self) -> StatusCounts {
        let mut counts = StatusCounts::default();
        for worker in self.iter() {
            match worker.status() {
                Status::Available => counts.available += 1,
                Status::Busy => counts.busy += 1,
                Status::Spawning => counts.spawning += 1,
                Status::Starting => counts.starting += 1,
                Status::Stopping => counts.stopping += 1,
                Status::Quarantined => counts.quarantined += 1,
            }
            counts.draining += u64::from(activity(worker) == Activity::Draining);
        }
        counts
    }
}

impl Worker {
    pub(in super::super) fn status(&self) -> Status {
        if self.is_quarantined && self.phase != Phase::Stopping {
            return Status::Quarantined;
        }
        match self.phase {
            Phase::Stopping => Status::Stopping,
            Phase::Available => Status::Available,
            Phase::Busy { .. } | Phase::Settling { .. } | Phase::Resting { .. } => Status::Busy,
            Phase::Delayed { .. } | Phase::Spawning => Status::Spawning,
            Phase::Probing {
                kind: CheckKind::Periodic,
                ..
            } => Status::Busy,
            // Until it has passed its first probe it is not up.
            Phase::Starting { .. } | Phase::Probing { .. } => Status::Starting,
        }
    }
}

fn view(worker: &Worker) -> WorkerView {
    WorkerView {
        id: worker.id,
        place: worker.place,
        activity: activity(worker),
        quarantined: worker.is_quarantined,
        served: worker.answered,
        in_hand: worker.flights.len(),
    }
}

fn activity(worker: &Worker) -> Activity {
    match worker.phase {
        Phase::Delayed { until } => Activity::Delayed(until),
        Phase::Spawning | Phase::Starting { .. } => Activity::Starting,
        Phase::Probing { .. } => Activity::Probing,
        Phase::Available => Activity::Idle,
        Phase::Busy { .. } if worker.is_draining() => Activity::Draining,
        Phase::Busy { .. } => Activity::Busy,
        Phase::Settling { .. } => Activity::Settling,
        Phase::Resting { .. } => Activity::Resting,
        Phase::Stopping => Activity::Stopping,
    }
}
