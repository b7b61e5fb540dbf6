//! The facts about the daemon by which clients judge an answer: it was told to end, it was in the middle of an upgrade,
//! and the moment since which every serving worker must have been started.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Debug, Default)]
pub(crate) struct Timeline {
    ending: AtomicBool,
    upgrades_begun: AtomicU64,
    upgrades_done: AtomicU64,
    /// On [`crate::clock`].
    all_new_since: AtomicU64,
}

impl Timeline {
    /// Before the signal is sent.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// Before the signal is sent.
    pub(crate) fn begin_upgrade(&self) {
        self.upgrades_begun.fetch_add(1, Ordering::SeqCst);
    }

    /// After the old process has said that it accepts no more.
    pub(crate) fn upgrade_done(&self) {
        self.upgrades_done.fetch_add(1, Ordering::SeqCst);
    }

    /// For [`Self::was_upgraded_since`]; asked before a connection is begun.
    pub(crate) fn upgrades_done(&self) -> u64 {
        self.upgrades_done.load(Ordering::SeqCst)
    }

    /// Returns true if a connection begun at that count may be in the hands of a process that finishes.
    pub(crate) fn was_upgraded_since(&self, upgrades_done: u64) -> bool {
        self.upgrades_begun.load(Ordering::SeqCst) > upgrades_done
    }

    /// Records that every worker which serves now was started after `time`.
    pub(crate) fn all_new_since(&self, time: u64) {
        self.all_new_since.fetch_max(time, Ordering::SeqCst);
    }

    /// Returns the moment after which a worker must have been started to answer a request that is sent from now on.
    pub(crate) fn oldest_allowed(&self) -> u64 {
        self.all_new_since.load(Ordering::SeqCst)
    }
}
