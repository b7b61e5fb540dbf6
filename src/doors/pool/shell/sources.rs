//! The sources of a pool's events and alarms on the reactor: every kind of source, and the number of one within its
//! kind.

use super::super::core::WorkerId;
use crate::reactor::{Key, Source, SourceKind, source_kinds};

source_kinds! {
    /// The kinds of sources a pool has.
    pub(super) enum PoolSource {
        Listener,
        Arrival,
        Client,
        WorkerOutput,
        WorkerInput,
        WorkerErrors,
        WorkerExit,
        WorkerEnding,
        Spawning,
        Dispatcher,
        Queue,
        HeldBack,
        Upkeep,
        Drain,
        Session,
    }
}

impl PoolSource {
    pub(super) fn worker(self, id: WorkerId) -> Source {
        self.at(Key::new(id.index, id.incarnation))
    }
}
