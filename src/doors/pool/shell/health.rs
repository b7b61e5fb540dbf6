//! Lines of the log about the pool as a whole: it can serve, it cannot any more, it can again. The decision is
//! `core/health`'s, the words are `outage`'s.

use log::Level;

use super::super::core::{Health, HealthChange, Status};
use super::super::outage;
use super::super::report::Topic;
use super::Pool;
use crate::amount::span;
use crate::doors::Readiness;
use crate::reactor::Context;

impl Pool {
    pub(super) fn log_health(&mut self, cx: &mut Context<'_>, change: HealthChange) {
        match change {
            HealthChange::Ready => self.log_ready(),
            HealthChange::Down { reason } => self.workers.begin_outage(&mut self.base.desk(cx), reason),
            HealthChange::Over {
                lasted,
                failed,
                first_time,
            } => {
                self.workers.log_outage(&mut self.base.desk(cx));
                let were = if failed == 1 { "request was" } else { "requests were" };
                let line = format_args!(
                    "a worker can serve again: none could for {}, and {failed} {were} refused",
                    span(lasted)
                );
                self.note(cx, Level::Info, Topic::Recovery, line);
                if first_time {
                    self.log_ready();
                }
            }
        }
    }

    fn log_ready(&self) {
        let serves = |status| matches!(status, Status::Available | Status::Busy);
        let serving = self.base.dispatcher.slots().filter(|slot| serves(slot.status)).count();
        let (name, places) = (self.base.front.name(), self.base.dispatcher.places());
        log::info!(service:% = name; "{name}: ready, {serving} of {places} workers serve");
    }

    pub(in crate::doors::pool) fn readiness(&self) -> Readiness {
        match self.base.dispatcher.health() {
            Health::Starting | Health::Down(_) => Readiness::Waiting,
            Health::Serving if self.base.dispatcher.is_in_full_force() => Readiness::Fully,
            Health::Serving => Readiness::Partly,
        }
    }

    /// The thing that keeps the pool from serving, in words.
    pub(in crate::doors::pool) fn waits_for(&self) -> String {
        match self.base.dispatcher.health() {
            Health::Down(_) => {
                let cause = self.workers.cause_of_outage(&self.base.options);
                format!("no worker can serve: {}", cause.unwrap_or_default())
            }
            Health::Starting | Health::Serving => outage::expectation(&self.base.options).to_owned(),
        }
    }
}
