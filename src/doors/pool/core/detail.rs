//! What the dump tells of each worker and of those that wait, beyond the registers of iotcpd 1.1 ([`view`](super::view)).

use std::time::Instant;

use super::Dispatcher;
use super::event::{ClientId, RequestId, WorkerId};
use super::worker::{Phase, Place, Worker};

/// One incarnation of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerView {
    /// Which.
    pub id: WorkerId,
    /// Its place.
    pub place: Place,
    /// What it is doing.
    pub activity: Activity,
    /// The last worker in its place has failed its probe, and none has passed since.
    pub quarantined: bool,
    /// How many requests it has answered, whoever got that.
    pub served: u64,
    /// How many requests it has in hand, those included whose client has gone.
    pub in_hand: usize,
}

impl Place {
    /// Whoever serves in a place comes before its successor, and those without a place at the end.
    fn order(self) -> (usize, u8) {
        match self {
            Place::Serving(slot) => (slot, 0),
            Place::Successor(slot) => (slot, 1),
            Place::Outgoing => (usize::MAX, 2),
        }
    }
}

/// The activity of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// There is no process, and the next one is started at this time.
    Delayed(Instant),
    /// It is being started, or is not ready yet.
    Starting,
    /// It is asked the question with the known answer.
    Probing,
    /// It is free.
    Idle,
    /// It works.
    Busy,
    /// It works, and all of its clients have gone: the answers are discarded.
    Draining,
    /// It has answered a long request, or many without a pause, and is watched for a second answer.
    Settling,
    /// It has answered, and is given nothing for a while.
    Resting,
    /// Its process has been told to end.
    Stopping,
}

/// A request that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestInHand {
    /// Whose; `None`: the client has gone.
    pub client: Option<ClientId>,
    /// When it came; `None`: the client has gone.
    pub arrived: Option<Instant>,
    /// Since when the worker works on it; or, of one that is behind others, since when it has it.
    pub since: Instant,
}

/// A request that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingRequest {
    /// Whose.
    pub client: ClientId,
    /// When it came.
    pub arrived: Instant,
    /// How many workers have died over it.
    pub deaths: u32,
}

impl Dispatcher {
    /// Every worker: place by place, and then those that have none any more, the youngest last.
    pub fn workers(&self) -> Vec<WorkerView> {
        let mut workers: Vec<_> = self.workers.iter().map(|(_, worker)| view(worker)).collect();
        workers.sort_by_key(|worker| (worker.place.order(), worker.id.incarnation));
        workers
    }

    /// What a worker has in hand, what it has had longest first.
    pub fn requests_of(&self, id: WorkerId) -> impl Iterator<Item = RequestInHand> {
        let flights = self.worker(id).into_iter().flat_map(|worker| &worker.flights);
        flights.map(|flight| {
            let request = flight.request.and_then(|id| self.request(id));
            RequestInHand {
                client: request.map(|request| request.client),
                arrived: request.map(|request| request.arrived),
                since: flight.began,
            }
        })
    }

    /// Whose requests wait, the one that came first at the beginning.
    pub fn queued(&self) -> impl Iterator<Item = WaitingRequest> {
        let requests = self.queue.iter().filter_map(|id| self.request(id));
        requests.map(|request| WaitingRequest {
            client: request.client,
            arrived: request.arrived,
            deaths: request.deaths,
        })
    }

    /// When a request came; `None`: it has come to its end.
    pub fn arrival(&self, id: RequestId) -> Option<Instant> {
        self.request(id).map(|request| request.arrived)
    }
}

fn view(worker: &Worker) -> WorkerView {
    WorkerView {
        id: worker.id,
        place: worker.place,
        activity: activity(worker),
        quarantined: worker.quarantined,
        served: worker.answered,
        in_hand: worker.flights.len(),
    }
}

fn activity(worker: &Worker) -> Activity {
    let is_draining = worker.flights.iter().all(|flight| flight.request.is_none());
    match worker.phase {
        Phase::Delayed { until } => Activity::Delayed(until),
        Phase::Spawning | Phase::Starting { .. } => Activity::Starting,
        Phase::Probing { .. } => Activity::Probing,
        Phase::Available => Activity::Idle,
        Phase::Busy { .. } if is_draining => Activity::Draining,
        Phase::Busy { .. } => Activity::Busy,
        Phase::Settling { .. } => Activity::Settling,
        Phase::Resting { .. } => Activity::Resting,
        Phase::Stopping => Activity::Stopping,
    }
}
