//! The check of the invariants that the comment of the scheduler names.

use super::super::client::{ClientState, Queued};
use super::super::event::ClientId;
use super::Scheduler;

impl Scheduler {
    /// Checks the invariants in debug builds. Must be called after every event.
    pub(super) fn check(&self) {
        if !self.is_checked {
            return;
        }
        for (name, line) in &self.lines {
            let running = self.jobs.values().filter(|job| job.name == *name).count();
            debug_assert_eq!(running, line.running, "{name:?}");
            let rule = self.rules.get(name);
            let one_more = rule.is_some_and(|rule| line.running < rule.threads);
            debug_assert!(
                line.queue.is_empty() || (rule.is_some() && !one_more),
                "{name:?} waits in vain"
            );
            let queued = |id: &ClientId| matches!(self.clients.get(id), Some(ClientState::Queued(_)));
            debug_assert!(
                line.queue.iter().all(queued),
                "{name:?}: a client is in the queue that does not wait"
            );
            let fits = |id: &ClientId| {
                let (Some(ClientState::Queued(Queued { request, .. })), Some(rule)) = (self.clients.get(id), rule)
                else {
                    return false;
                };
                rule.fits(&request.arguments)
            };
            debug_assert!(
                line.queue.iter().all(fits),
                "{name:?}: a client waits for a request that is not valid"
            );
        }
        for (id, state) in &self.clients {
            if let ClientState::Following { run, .. } = state {
                let job = self.jobs.get(run);
                debug_assert!(
                    job.is_some_and(|job| job.audience.contains(id)),
                    "{id:?} follows nothing"
                );
            }
        }
        for (id, job) in &self.jobs {
            let ends = !job.run.is_going();
            debug_assert!(!job.audience.is_empty() || ends, "{id:?} runs without a client");
        }
    }
}
