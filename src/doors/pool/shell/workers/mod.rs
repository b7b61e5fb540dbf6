//! The processes of a pool, by the index of their worker.

pub(in crate::doors::pool::shell) mod endings;
pub(in crate::doors::pool::shell) mod health_check;
pub(in crate::doors::pool::shell) mod loss;
pub(in crate::doors::pool::shell) mod output;
pub(in crate::doors::pool::shell) mod process;
pub(in crate::doors::pool::shell) mod spawning;

use std::collections::VecDeque;

use crate::doors::pool::core::WorkerId;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::story::End;
use crate::reactor::Key;
use process::WorkerProcess;

/// All processes, by the index of their worker.
#[derive(Debug, Default)]
pub(in crate::doors::pool::shell) struct Workers {
    processes: Vec<Option<WorkerProcess>>,
    /// Workers whose process is still to be started.
    pub(in crate::doors::pool::shell) waiting: VecDeque<WorkerId>,
    /// Workers with requests that are to be written at the end of the turn.
    pub(in crate::doors::pool::shell) unsent: Vec<WorkerId>,
    /// Workers that are lost and most likely dying: their stories are not told yet. The one that was lost first is the first.
    pub(in crate::doors::pool::shell) dying: Vec<WorkerId>,
    /// Workers whose process is reaped or given up, until that is settled.
    pub(in crate::doors::pool::shell) ended: VecDeque<Ended>,
    /// Why the last start failed, until it is told.
    pub(in crate::doors::pool::shell) refusal: Option<String>,
}

/// A worker without a process, until nothing is left to be done about it.
#[derive(Debug)]
pub(in crate::doors::pool::shell) enum Ended {
    /// Its process is reaped and ended like this: the dispatcher does not know it yet.
    Reaped(WorkerId, End),
    /// The dispatcher knows, and has said all that follows: it can be removed.
    Gone(WorkerId),
}

impl Workers {
    pub(in crate::doors::pool::shell) fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerProcess> {
        self.processes
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|process| process.id == id)
    }

    pub(in crate::doors::pool::shell) fn get(&self, id: WorkerId) -> Option<&WorkerProcess> {
        self.processes
            .get(id.index as usize)?
            .as_ref()
            .filter(|process| process.id == id)
    }

    pub(in crate::doors::pool::shell) fn iter(&self) -> impl Iterator<Item = &WorkerProcess> {
        self.processes.iter().flatten()
    }

    pub(in crate::doors::pool::shell) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Whom a source belongs to, if it is still there.
    pub(in crate::doors::pool::shell) fn find(&self, key: Key) -> Option<WorkerId> {
        let process = self.processes.get(key.slot())?.as_ref()?;
        (PoolSource::WorkerExit.worker(process.id).key == key).then_some(process.id)
    }

    pub(in crate::doors::pool::shell) fn insert(&mut self, process: WorkerProcess) {
        let index = process.id.index as usize;
        if index >= self.processes.len() {
            self.processes.resize_with(index + 1, || None);
        }
        if let Some(place) = self.processes.get_mut(index) {
            *place = Some(process);
        }
    }

    pub(in crate::doors::pool::shell) fn remove(&mut self, id: WorkerId) -> Option<WorkerProcess> {
        self.get(id)?;
        self.processes.get_mut(id.index as usize)?.take()
    }

    /// What the log calls a worker, while its process is known.
    pub(in crate::doors::pool::shell) fn describe(&self, id: WorkerId) -> Option<String> {
        self.get(id).map(WorkerProcess::label)
    }
}
