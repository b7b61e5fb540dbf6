//! The requests in hand: from their arrival to their one end, and the queue in which they wait for a worker.
//!
//! The life of a request: [`Requests::admit`] → [`Requests::assign`] to a worker, or [`Requests::enqueue`] until there
//! is one; back to the queue, at the place of its arrival, each time that its worker is lost → [`Requests::take`], when
//! it has its reply or its refusal, or its client has gone.
//!
//! Workers do not belong here, nor the requests that each has in flight.

use std::time::Instant;

use slab::Slab;

use super::event::{ClientId, RequestId, WorkerId};
use super::queue::Queue;

/// The requests in hand.
#[derive(Debug, Default)]
pub(super) struct Requests {
    held: Slab<Request>,
    queue: Queue,
    tickets: u64,
    queue_peak: usize,
}

/// A request in hand.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) id: RequestId,
    pub(super) client: ClientId,
    pub(super) size: usize,
    pub(super) arrived: Instant,
    /// The latest time of its end, whatever happens.
    pub(super) give_up: Instant,
    /// The number of workers that have died over it.
    pub(super) deaths: u32,
    pub(super) state: RequestState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestState {
    /// The request waits for a worker, in the queue once it has found none.
    Waiting,
    /// The worker has the request in flight.
    Assigned(WorkerId),
}

impl Requests {
    /// Takes in a request that arrives now. Returns `None` when there are more than can be numbered.
    pub(super) fn admit(&mut self, client: ClientId, size: usize, now: Instant, give_up: Instant) -> Option<RequestId> {
        let entry = self.held.vacant_entry();
        let id = RequestId {
            index: u32::try_from(entry.key()).ok()?,
            ticket: self.tickets,
        };
        self.tickets += 1;
        entry.insert(Request {
            id,
            client,
            size,
            arrived: now,
            give_up,
            deaths: 0,
            state: RequestState::Waiting,
        });
        Some(id)
    }

    /// Puts a request into the queue, for the first time or again, until `deadline` or its end. Returns its client.
    pub(super) fn enqueue(&mut self, id: RequestId, deadline: Instant) -> Option<ClientId> {
        let request = self.get_mut(id)?;
        request.state = RequestState::Waiting;
        let (client, deadline) = (request.client, deadline.min(request.give_up));
        self.queue.insert(id, deadline);
        self.queue_peak = self.queue_peak.max(self.queue.len());
        Some(client)
    }

    /// Notes that a request is with a worker from now on.
    pub(super) fn assign(&mut self, id: RequestId, worker: WorkerId) -> Option<&Request> {
        self.queue.remove(id);
        let request = self.get_mut(id)?;
        request.state = RequestState::Assigned(worker);
        Some(request)
    }

    /// Notes the number of workers that have died over a request.
    pub(super) fn set_deaths(&mut self, id: RequestId, deaths: u32) {
        if let Some(request) = self.get_mut(id) {
            request.deaths = deaths;
        }
    }

    /// Takes out a request that comes to its end: its one way out.
    pub(super) fn take(&mut self, id: RequestId) -> Option<Request> {
        self.get(id)?;
        let request = self.held.try_remove(id.index as usize)?;
        if request.state == RequestState::Waiting {
            self.queue.remove(id);
        }
        Some(request)
    }

    /// Returns a request that has waited for too long, as long as there is one; to be taken out.
    pub(super) fn next_expired(&mut self, now: Instant) -> Option<RequestId> {
        self.queue.pop_expired(now)
    }

    /// The time at which the next waiting request may have waited for too long.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.queue.next_deadline()
    }

    /// The request that has waited longest.
    pub(super) fn first_waiting(&self) -> Option<&Request> {
        self.get(self.queue.first()?)
    }

    /// The waiting requests, in the order of their arrival.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter().filter_map(|id| self.get(id))
    }

    /// The number of requests that wait for a worker.
    pub(super) fn count_waiting(&self) -> usize {
        self.queue.len()
    }

    /// The most that ever waited.
    pub(super) fn queue_peak(&self) -> usize {
        self.queue_peak
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    pub(super) fn get(&self, id: RequestId) -> Option<&Request> {
        self.held.get(id.index as usize).filter(|request| request.id == id)
    }

    fn get_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        self.held.get_mut(id.index as usize).filter(|request| request.id == id)
    }

    /// All requests in hand.
    #[cfg(debug_assertions)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.held.iter().map(|(_, request)| request)
    }
}
