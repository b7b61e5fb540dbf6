//! Lines of the log about a pool that grows under load and shrinks when idle. The decision is `core/elastic`'s.

use log::Level;

use super::super::core::{Action, WorkerId};
use super::super::report::Topic;
use super::Pool;
use crate::amount;
use crate::reactor::Context;

impl Pool {
    pub(super) fn log_resizing(&mut self, cx: &mut Context<'_>, action: Action) {
        match action {
            Action::Grown { slot, places } => self.log_growth(cx, slot, places),
            Action::Shrunk { worker, slot, places } => self.log_shrinking(cx, worker, slot, places),
            // Nothing else changes the size.
            _ => {}
        }
    }

    fn log_growth(&mut self, cx: &mut Context<'_>, slot: usize, places: usize) {
        let most = self.base.options.policy.workers.max;
        let line = format_args!("the load wants more workers: worker {slot} is started, {places} of at most {most}");
        self.note(cx, Level::Info, Topic::Grown, line);
    }

    fn log_shrinking(&mut self, cx: &mut Context<'_>, worker: WorkerId, slot: usize, places: usize) {
        let label = self
            .workers
            .describe(worker)
            .unwrap_or_else(|| format!("worker {slot}"));
        let size = self.base.options.policy.workers;
        let line = format_args!(
            "{label} has not been needed for --worker-idle-timeout {} and is let go; {places} are left, of at least {}",
            amount::span(size.idle_timeout),
            size.min
        );
        self.note(cx, Level::Info, Topic::Shrunk, line);
    }
}
