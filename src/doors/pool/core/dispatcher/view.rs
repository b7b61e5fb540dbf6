//! The dispatcher as statistics, logs and dumps see it. Nothing here changes it but the shell's own counts.

use std::time::{Duration, Instant};

use super::Dispatcher;
use crate::doors::pool::core::counters::Counters;
use crate::doors::pool::core::event::{ClientId, RequestId, WorkerId};
use crate::doors::pool::core::health::Health;
use crate::doors::pool::core::workers::{Place, Status, StatusCounts, WorkerView};

/// One place and the worker that serves in it, or will.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotView {
    /// The number of the place.
    pub number: usize,
    /// The worker.
    pub worker: WorkerId,
    /// The worker's state.
    pub status: Status,
    /// The client that the worker works for.
    pub client: Option<ClientId>,
    /// The time since when the worker works on its (oldest) request.
    pub busy_since: Option<Instant>,
}

/// A request that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestInHand {
    /// The client that has sent the request; `None`: the client has gone.
    pub client: Option<ClientId>,
    /// The time of its arrival; `None`: the client has gone.
    pub arrived: Option<Instant>,
    /// The time since when the worker works on it; or, of one that is behind others, since when it has it.
    pub since: Instant,
}

/// A request that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingRequest {
    /// The client that has sent the request.
    pub client: ClientId,
    /// The time of its arrival.
    pub arrived: Instant,
    /// The number of workers that have died over it.
    pub deaths: u32,
}

impl Dispatcher {
    // ---- the pool ---------------------------------------------------------------------------------------------

    /// Returns true if the pool was shut down and its last process has gone.
    pub fn is_finished(&self) -> bool {
        self.is_stopping && self.workers.is_empty()
    }

    /// The pool's ability to serve.
    pub fn health(&self) -> Health {
        self.health.health
    }

    /// Returns true if a worker serves in every place, after others may have failed there too.
    pub fn is_in_full_force(&self) -> bool {
        self.health.is_in_full_force(&self.workers, &self.places)
    }

    /// The counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The counters, for events that only the shell sees: refusals before a request was whole.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }

    /// The time for which every worker that could serve was busy, all such times together.
    pub fn saturated(&self, now: Instant) -> Duration {
        self.saturation.total(now)
    }

    // ---- requests ---------------------------------------------------------------------------------------------

    /// The number of requests that wait for a worker.
    pub fn queue_length(&self) -> usize {
        self.requests.count_waiting()
    }

    /// The greatest number of requests that ever waited.
    pub fn queue_peak(&self) -> usize {
        self.requests.queue_peak()
    }

    /// The number of requests taken in and not ended yet.
    pub fn requests_in_hand(&self) -> usize {
        self.requests.len()
    }

    /// The requests that wait, the one that came first at the beginning.
    pub fn queued(&self) -> impl Iterator<Item = WaitingRequest> {
        self.requests.waiting().map(|request| WaitingRequest {
            client: request.client,
            arrived: request.arrived,
            deaths: request.deaths,
        })
    }

    /// The time of a request's arrival; `None`: it has come to its end.
    pub fn arrival(&self, id: RequestId) -> Option<Instant> {
        self.requests.get(id).map(|request| request.arrived)
    }

    // ---- workers ----------------------------------------------------------------------------------------------

    /// Every worker: place by place, and then the workers that have none any more, the youngest last.
    pub fn workers(&self) -> Vec<WorkerView> {
        self.workers.views()
    }

    /// The numbers of workers in each state.
    pub fn status_counts(&self) -> StatusCounts {
        self.workers.status_counts()
    }

    /// The requests that a worker has in hand, the one that it has had longest first.
    pub fn requests_of(&self, id: WorkerId) -> impl Iterator<Item = RequestInHand> {
        let flights = self.workers.get(id).into_iter().flat_map(|worker| &worker.flights);
        flights.map(|flight| {
            let request = flight.request.and_then(|id| self.requests.get(id));
            RequestInHand {
                client: request.map(|request| request.client),
                arrived: request.map(|request| request.arrived),
                since: flight.began,
            }
        })
    }

    // ---- places -----------------------------------------------------------------------------------------------

    /// The number of places.
    pub fn places(&self) -> usize {
        self.places.len()
    }

    /// The number of the place a worker serves in, or will; `None` for one that has lost its place.
    pub fn slot_of(&self, id: WorkerId) -> Option<usize> {
        match self.workers.place(id)? {
            Place::Serving(slot) | Place::Successor(slot) => Some(slot),
            Place::Outgoing => None,
        }
    }

    /// The worker that serves in a place: not one that is still to be started, or starts.
    pub fn in_service(&self, slot: usize) -> Option<WorkerId> {
        let serving = self.places.get(slot)?.serving;
        self.workers.phase(serving)?.is_serving().then_some(serving)
    }

    /// All places, in order.
    pub fn slots(&self) -> impl Iterator<Item = SlotView> {
        self.places.iter().filter_map(|(number, slot)| {
            let worker = self.workers.get(slot.serving)?;
            let oldest = worker.flights.iter().find_map(|flight| flight.request);
            let request = oldest.and_then(|request| self.requests.get(request));
            Some(SlotView {
                number,
                worker: slot.serving,
                status: worker.status(),
                client: request.map(|request| request.client),
                busy_since: worker.flights.front().map(|flight| flight.began),
            })
        })
    }
}
