//! What holds between events.

use super::super::client::State;
use super::super::event::ClientId;
use super::Scheduler;

impl Scheduler {
    /// See the head of this file.
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
            let queued = |id: &ClientId| matches!(self.clients.get(id), Some(State::Queued { .. }));
            debug_assert!(line.queue.iter().all(queued), "{name:?}: somebody waits who does not");
            let fits = |id: &ClientId| match (self.clients.get(id), rule) {
                (Some(State::Queued { request, .. }), Some(rule)) => rule.fits(&request.arguments),
                _ => false,
            };
            debug_assert!(
                line.queue.iter().all(fits),
                "{name:?}: somebody waits for what is not allowed"
            );
        }
        for (id, state) in &self.clients {
            if let State::Following { run, .. } = state {
                let job = self.jobs.get(run);
                debug_assert!(
                    job.is_some_and(|job| job.audience.contains(id)),
                    "{id:?} follows nothing"
                );
            }
        }
        for (id, job) in &self.jobs {
            let ends = !job.run.is_going();
            debug_assert!(!job.audience.is_empty() || ends, "{id:?} runs for nobody");
        }
    }
}
