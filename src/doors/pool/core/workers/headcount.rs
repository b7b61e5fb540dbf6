//! The numbers of workers in each situation that a decision depends on, kept in step with every change of a worker.

use super::check::CheckKind;
use super::phase::{Phase, Place, RestReason};
use super::worker::Worker;

/// The numbers of workers.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Headcount {
    /// Workers that have a place of their own.
    pub(in super::super) placed: usize,
    /// Workers that serve and cannot take a request at once.
    pub(in super::super) occupied: usize,
    /// Workers that are away for their periodic probe.
    pub(in super::super) away: usize,
    /// Placed workers that are being started without a respawn delay.
    pub(in super::super) starting: usize,
    /// Placed workers that wait out a respawn delay.
    pub(in super::super) delayed: usize,
    /// Placed workers that are being started after such a delay.
    pub(in super::super) retried: usize,
    /// Placed workers that serve and are free but for the probe that they are asked, or rest after.
    pub(in super::super) probed: usize,
}

impl Headcount {
    /// Must be called with a worker that is new, or was just changed.
    pub(super) fn add(&mut self, worker: &Worker) {
        self.each(worker, |number| *number += 1);
    }

    /// Must be called with a worker that is about to be changed or removed.
    pub(super) fn subtract(&mut self, worker: &Worker) {
        self.each(worker, |number| *number -= 1);
    }

    fn each(&mut self, worker: &Worker, change: impl Fn(&mut usize)) {
        if worker.phase.is_occupied() {
            change(&mut self.occupied);
        }
        let is_away = matches!(worker.phase, Phase::Probing { kind, .. } if kind == CheckKind::Periodic);
        if is_away {
            change(&mut self.away);
        }
        let Place::Serving(_) = worker.place else { return };
        change(&mut self.placed);
        match worker.phase {
            Phase::Delayed { .. } => change(&mut self.delayed),
            Phase::Probing { .. } if is_away => change(&mut self.probed),
            Phase::Resting {
                reason: RestReason::Probe,
                ..
            } => change(&mut self.probed),
            Phase::Spawning | Phase::Starting { .. } | Phase::Probing { .. } if worker.is_retry => {
                change(&mut self.retried)
            }
            Phase::Spawning | Phase::Starting { .. } | Phase::Probing { .. } => change(&mut self.starting),
            // Ready, or on its way out.
            Phase::Available
            | Phase::Busy { .. }
            | Phase::Settling { .. }
            | Phase::Resting { .. }
            | Phase::Stopping => {}
        }
    }

    /// Workers that are being started: free ones to come.
    pub(in super::super) fn coming(&self) -> usize {
        self.starting + self.retried
    }

    /// Places that have no worker that is ready.
    pub(in super::super) fn unready(&self) -> usize {
        self.coming() + self.delayed
    }

    /// Places whose program has been failing to start.
    pub(in super::super) fn in_trouble(&self) -> usize {
        self.delayed + self.retried
    }
}
