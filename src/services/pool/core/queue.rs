//! Requests that wait for a worker: first come, first served, each with its own deadline.
//!
//! Sorted by ticket, that is by arrival. A request that goes back after its worker died keeps its ticket, and so stands
//! before everybody who came later, without a second kind of insertion.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::event::RequestId;

#[derive(Debug, Default)]
pub(super) struct Queue {
    by_arrival: BTreeMap<u64, (RequestId, Instant)>,
    by_deadline: BTreeSet<(Instant, u64)>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.by_arrival.len()
    }

    pub(super) fn insert(&mut self, request: RequestId, deadline: Instant) {
        self.by_arrival.insert(request.ticket, (request, deadline));
        self.by_deadline.insert((deadline, request.ticket));
    }

    /// The one that has waited longest.
    pub(super) fn first(&self) -> Option<RequestId> {
        self.by_arrival.first_key_value().map(|(_, (request, _))| *request)
    }

    /// Takes the one that has waited longest.
    pub(super) fn pop(&mut self) -> Option<RequestId> {
        let (ticket, (request, deadline)) = self.by_arrival.pop_first()?;
        self.by_deadline.remove(&(deadline, ticket));
        Some(request)
    }

    pub(super) fn remove(&mut self, request: RequestId) {
        if let Some((_, deadline)) = self.by_arrival.remove(&request.ticket) {
            self.by_deadline.remove(&(deadline, request.ticket));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.by_deadline.first().map(|(deadline, _)| *deadline)
    }

    /// Takes one that has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<RequestId> {
        let (deadline, ticket) = *self.by_deadline.first()?;
        if deadline > now {
            return None;
        }
        self.by_deadline.pop_first();
        self.by_arrival.remove(&ticket).map(|(request, _)| request)
    }

    /// In the order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = RequestId> {
        self.by_arrival.values().map(|(request, _)| *request)
    }
}
