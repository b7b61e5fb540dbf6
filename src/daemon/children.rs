//! What the daemon owes to the processes that its doors start, whichever door it was: one [guard](crate::process::guard).

use std::time::Instant;

use crate::error::{Blame, Error};
use crate::process::guard::{Finding, Guard, Kind};
use crate::process::watch_list::WatchList;

#[derive(Debug)]
pub(super) struct Children {
    guard: Guard,
    /// It has been told that there is no guard.
    told: bool,
}

impl Children {
    /// To be called before the daemon has much memory, threads, or a socket.
    ///
    /// # Errors
    /// The guard cannot be started.
    pub(super) fn new() -> Result<Children, Error> {
        let guard = Guard::start(Kind::Program).map_err(|error| {
            let what = format!("cannot start the guard process: {error}");
            let remedy = "see whether the machine is short of processes or memory";
            Error::new(Blame::System, what, remedy)
        })?;
        Ok(Children { guard, told: false })
    }

    /// For the doors.
    pub(super) fn watch_list(&self) -> WatchList {
        self.guard.watch_list()
    }

    /// When they are to be [looked after](Self::look_after) at the latest.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.guard.deadline()
    }

    /// Does what has become due.
    pub(super) fn look_after_overdue(&mut self, now: Instant) {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.look_after(now);
        }
    }

    /// Some child has changed; or there is reason to try again what has failed.
    pub(super) fn look_after(&mut self, now: Instant) {
        match self.guard.look_after(now) {
            Finding::Stands => {}
            Finding::Replaced => {
                self.told = false;
                log::warn!("the guard process had died; there is another");
            }
            Finding::Woken => log::warn!("the guard process had been stopped; it goes on"),
            Finding::Missing(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    log::error!(
                        "the guard process has died and cannot be started again: {error}; it is tried every second; \
                         if this daemon is killed meanwhile, what its children have started may outlive it"
                    );
                }
            }
        }
    }
}
