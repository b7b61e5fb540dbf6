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
    /// Where it belongs.
    pub position: Position,
    /// What it does.
    pub doing: Doing,
    /// The last worker in its place has failed its probe, and none has passed since.
    pub quarantined: bool,
    /// How many requests it has answered, whoever got that.
    pub served: u64,
    /// How many requests it has in hand, those included whose client has gone.
    pub in_hand: usize,
}

/// Where a worker belongs, by the number of the place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// It serves there, or will.
    Serves(usize),
    /// It is to take over there.
    TakesOver(usize),
    /// It has lost its place to another.
    Leaves,
}

impl Position {
    /// Whoever serves in a place comes before its successor, and those without a place at the end.
    fn order(self) -> (usize, u8) {
        match self {
            Position::Serves(slot) => (slot, 0),
            Position::TakesOver(slot) => (slot, 1),
            Position::Leaves => (usize::MAX, 2),
        }
    }
}

/// What a worker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    /// There is no process, and the next one is started at this time.
    WaitsForItsStart(Instant),
    /// It is being started, or is not ready yet.
    Starts,
    /// It is asked the question with the known answer.
    IsProbed,
    /// It is free.
    Nothing,
    /// It works.
    Works,
    /// It works, and whoever asked has gone: the answer is for nobody.
    WorksForNobody,
    /// It has answered a long request, or many without a pause, and is watched for a second answer.
    IsWatched,
    /// It has answered, and is left alone for a while.
    Rests,
    /// It has been told to end.
    Stops,
}

/// A request that a worker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHand {
    /// Whose; `None`: the client has gone.
    pub client: Option<ClientId>,
    /// When it came; `None`: the client has gone.
    pub arrived: Option<Instant>,
    /// Since when the worker works on it; or, of one that is behind others, since when it has it.
    pub since: Instant,
}

/// A request that waits for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
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
        workers.sort_by_key(|worker| (worker.position.order(), worker.id.incarnation));
        workers
    }

    /// What a worker has in hand, what it has had longest first.
    pub fn requests_of(&self, id: WorkerId) -> impl Iterator<Item = InHand> {
        let flights = self.worker(id).into_iter().flat_map(|worker| &worker.flights);
        flights.map(|flight| {
            let request = flight.request.and_then(|id| self.request(id));
            InHand {
                client: request.map(|request| request.client),
                arrived: request.map(|request| request.arrived),
                since: flight.began,
            }
        })
    }

    /// Whose requests wait, the one that came first at the beginning.
    pub fn queued(&self) -> impl Iterator<Item = Waiting> {
        let requests = self.queue.iter().filter_map(|id| self.request(id));
        requests.map(|request| Waiting {
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
        position: match worker.place {
            Place::Serving(slot) => Position::Serves(slot),
            Place::Successor(slot) => Position::TakesOver(slot),
            Place::Outgoing => Position::Leaves,
        },
        doing: doing(worker),
        quarantined: worker.quarantined,
        served: worker.answered,
        in_hand: worker.flights.len(),
    }
}

fn doing(worker: &Worker) -> Doing {
    let for_nobody = worker.flights.iter().all(|flight| flight.request.is_none());
    match worker.phase {
        Phase::Delayed { until } => Doing::WaitsForItsStart(until),
        Phase::Spawning | Phase::Starting { .. } => Doing::Starts,
        Phase::Probing { .. } => Doing::IsProbed,
        Phase::Available => Doing::Nothing,
        Phase::Busy { .. } if for_nobody => Doing::WorksForNobody,
        Phase::Busy { .. } => Doing::Works,
        Phase::Settling { .. } => Doing::IsWatched,
        Phase::Resting { .. } => Doing::Rests,
        Phase::Stopping => Doing::Stops,
    }
}
