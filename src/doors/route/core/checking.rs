//! The part of the router that checks servers: it lets [`Checker`] ask, and tells the health of
//! each server what was found out.

use std::sync::Arc;
use std::time::Instant;

use super::checks::{CheckId, Checker, Outcome, Subject};
use super::event::Notice;
use super::health::HealthEvent;
use super::router::Router;
use super::table::Address;

impl Router {
    /// Checks these servers, and no others. A server that was out by its check, and has none any more, is back.
    pub fn replace_checks(&mut self, subjects: &[Subject], now: Instant) {
        for subject in self.checker.replace(subjects, now) {
            self.tell(&subject, HealthEvent::Unchecked, None, now);
        }
    }

    /// Returns the next server that is to be asked now. Its outcome must be [reported](Self::end_check).
    pub fn begin_check(&mut self, now: Instant) -> Option<(CheckId, Subject)> {
        let (id, subject) = self.checker.begin(now)?;
        Some((id, subject.clone()))
    }

    /// Takes in the outcome of a check.
    pub fn end_check(&mut self, id: CheckId, outcome: Outcome, now: Instant) {
        let Some(subject) = self.checker.end(id, &outcome, now).cloned() else {
            return;
        };
        let (event, why) = match outcome {
            Outcome::Passed => (HealthEvent::Passed, None),
            Outcome::Failed(why) => (HealthEvent::Missed, Some(why)),
            Outcome::Unknown => return,
        };
        self.counters.checks += 1;
        self.counters.checks_failed += u64::from(event == HealthEvent::Missed);
        self.tell(&subject, event, why.as_deref(), now);
    }

    /// Returns the time at which the next check may begin.
    pub fn next_check(&self) -> Option<Instant> {
        self.checker.next_time()
    }

    /// Returns the servers that are checked.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    /// Tells the health of each server that a subject is for of an event.
    fn tell(&mut self, subject: &Subject, event: HealthEvent, why: Option<&str>, now: Instant) {
        let generation = self.tables.generation();
        let mut named: Vec<&Arc<Address>> = Vec::new();
        for told in &subject.told {
            let change = self.upstreams.report_check(subject, told, generation, event, now);
            // A server that has one port for both ways is named once.
            if let Some(change) = change.filter(|_| !named.contains(&&told.address)) {
                named.push(&told.address);
                self.notices.push_back(Notice {
                    service: Arc::clone(&subject.service),
                    server: Arc::clone(&told.address),
                    change,
                    why: why.map(Into::into),
                });
            }
        }
    }
}
