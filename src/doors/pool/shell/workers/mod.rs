//! The workers of a pool: their processes are started ([`spawning`]), given requests ([`requests`]) in the way of their
//! [`protocol`], read from ([`output`], [`stderr`]), checked ([`health_check`]), ended ([`endings`]) and, when they are
//! lost, told of ([`loss`]). [`sessions`] lends a worker's streams to a session.

mod endings;
mod health_check;
pub(crate) mod loss;
pub(crate) mod output;
pub(crate) mod process;
mod protocol;
mod requests;
pub(crate) mod sessions;
mod spawning;
mod stderr;

use std::collections::VecDeque;
use std::time::Instant;

use crate::doors::pool::core::WorkerId;
use crate::doors::pool::echoes::Echoes;
use crate::doors::pool::outage::Outage;
use crate::doors::pool::repeats::Repeats;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::story::End;
use crate::process::spawn::PreparedProgram;
use crate::reactor::Key;
use process::WorkerProcess;

/// All workers of a pool that have a process, and what is known of lost ones.
#[derive(Debug)]
pub(crate) struct Workers {
    /// Workers are started with this.
    pub(crate) program: PreparedProgram,
    processes: Processes,
    /// Workers whose process is still to be started.
    waiting: VecDeque<WorkerId>,
    /// Workers with requests that are to be written at the end of the turn.
    unsent: Vec<WorkerId>,
    /// Workers that are lost and most likely dying, whose loss is not logged yet; the one that was lost first is the
    /// first.
    dying: Vec<WorkerId>,
    /// Workers whose process is reaped or given up, until that is settled.
    ended: VecDeque<Ended>,
    /// Why the last start failed, until it is logged.
    refusal: Option<String>,
    repeats: Repeats,
    outage: Outage,
    echoes: Echoes,
    /// The turn in which the loop has [stepped back](Self::yield_to_writer) for a worker; once is enough for all of
    /// them.
    stepped_back: Option<Instant>,
}

/// The processes, by the index of their worker.
#[derive(Debug, Default)]
struct Processes(Vec<Option<WorkerProcess>>);

impl Processes {
    fn get(&self, id: WorkerId) -> Option<&WorkerProcess> {
        let process = self.0.get(id.index as usize)?.as_ref();
        process.filter(|process| process.id == id)
    }

    fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerProcess> {
        let process = self.0.get_mut(id.index as usize)?.as_mut();
        process.filter(|process| process.id == id)
    }
}

/// A worker without a process, until nothing is left to be done about it.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its process is reaped and ended like this: the dispatcher does not know it yet.
    Reaped(WorkerId, End),
    /// The dispatcher knows, and has said all that follows: it can be removed.
    Gone(WorkerId),
}

impl Workers {
    pub(crate) fn new(program: PreparedProgram) -> Self {
        Workers {
            program,
            processes: Processes::default(),
            waiting: VecDeque::new(),
            unsent: Vec::new(),
            dying: Vec::new(),
            ended: VecDeque::new(),
            refusal: None,
            repeats: Repeats::default(),
            outage: Outage::default(),
            echoes: Echoes::default(),
            stepped_back: None,
        }
    }

    pub(crate) fn get(&self, id: WorkerId) -> Option<&WorkerProcess> {
        self.processes.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: WorkerId) -> Option<&mut WorkerProcess> {
        self.processes.get_mut(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WorkerProcess> {
        self.processes.0.iter().flatten()
    }

    pub(crate) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The worker that a source belongs to, if it is still there.
    pub(crate) fn find(&self, key: Key) -> Option<WorkerId> {
        let process = self.processes.0.get(key.slot())?.as_ref()?;
        (PoolSource::WorkerExit.worker(process.id).key == key).then_some(process.id)
    }

    fn insert(&mut self, process: WorkerProcess) {
        let (index, places) = (process.id.index as usize, &mut self.processes.0);
        if index >= places.len() {
            places.resize_with(index + 1, || None);
        }
        if let Some(place) = places.get_mut(index) {
            *place = Some(process);
        }
    }

    fn remove(&mut self, id: WorkerId) -> Option<WorkerProcess> {
        self.get(id)?;
        self.processes.0.get_mut(id.index as usize)?.take()
    }

    /// The name of a worker in the log, while its process is known.
    pub(crate) fn describe(&self, id: WorkerId) -> Option<String> {
        self.get(id).map(WorkerProcess::label)
    }
}
