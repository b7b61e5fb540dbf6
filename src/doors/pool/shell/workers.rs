//! The processes of a pool, by the index of their worker.

use std::collections::VecDeque;

use super::super::core::WorkerId;
use super::PoolSource;
use super::process::WorkerProcess;
use crate::reactor::Key;

/// All processes, by the index of their worker.
#[derive(Debug, Default)]
pub(super) struct Workers {
    processes: Vec<Option<WorkerProcess>>,
    /// Workers whose process is still to be started.
    pub(super) waiting: VecDeque<WorkerId>,
    /// Workers with requests that are to be written at the end of the turn.
    pub(super) unsent: Vec<WorkerId>,
    /// Workers that are lost and most likely dying: their stories are not told yet. The one that was lost first is the first.
    pub(super) dying: Vec<WorkerId>,
    /// Why the last start failed, until it is told.
    pub(super) refusal: Option<String>,
}

impl Workers {
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerProcess> {
        self.processes
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|process| process.id == id)
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&WorkerProcess> {
        self.processes
            .get(id.index as usize)?
            .as_ref()
            .filter(|process| process.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &WorkerProcess> {
        self.processes.iter().flatten()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whom a source belongs to, if it is still there.
    pub(super) fn find(&self, key: Key) -> Option<WorkerId> {
        let process = self.processes.get(key.slot())?.as_ref()?;
        (PoolSource::WorkerExit.worker(process.id).key == key).then_some(process.id)
    }

    pub(super) fn insert(&mut self, process: WorkerProcess) {
        let index = process.id.index as usize;
        if index >= self.processes.len() {
            self.processes.resize_with(index + 1, || None);
        }
        if let Some(place) = self.processes.get_mut(index) {
            *place = Some(process);
        }
    }

    pub(super) fn remove(&mut self, id: WorkerId) -> Option<WorkerProcess> {
        self.get(id)?;
        self.processes.get_mut(id.index as usize)?.take()
    }

    /// What the log calls a worker, while its process is known.
    pub(super) fn describe(&self, id: WorkerId) -> Option<String> {
        self.get(id).map(WorkerProcess::label)
    }
}
