//! The sentences that `core` promises, as assertions: in debug builds after every event, in both directions.

use super::health::{Health, Trust};
use super::requests::RequestState;
use super::worker::{Phase, Place};
use super::{Dispatcher, Stage};

impl Dispatcher {
    pub(super) fn check_invariants(&self) {
        self.check_workers();
        self.check_slots();
        self.check_requests();
        self.check_wake();
        self.check_counters();
        self.check_elastic();
        self.check_health();
    }

    fn check_health(&self) {
        for (_, worker) in &self.workers {
            let is_believed = worker.trust == Trust::Confirmed;
            assert!(
                !(is_believed && worker.trouble.is_some()),
                "{:?} is believed",
                worker.id
            );
        }
        for (number, slot) in self.slots.iter() {
            let worker = self.worker(slot.serving);
            let known = worker.is_some_and(|worker| worker.trouble.is_some() || worker.trust == Trust::Confirmed);
            assert!(!known || slot.is_settled, "place {number} is still waited for");
        }
        if self.stage == Stage::Stopping {
            return;
        }
        let down = matches!(self.health, Health::Down(_));
        assert!(
            down || self.hopeless().is_none(),
            "no worker can serve, and nobody is told"
        );
        let believed = self.in_places().any(|worker| worker.trust == Trust::Confirmed);
        assert!(!(down && believed), "somebody serves, and nobody is told");
    }

    fn check_workers(&self) {
        let free = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.phase == Phase::Available)
            .count();
        assert_eq!(
            free,
            self.available.len(),
            "the list of the available holds the available and nobody else"
        );
        assert_eq!(free, self.available.iter().count(), "as many as are counted");
        for id in self.available.iter() {
            assert_eq!(self.phase(id), Some(Phase::Available), "{id:?} is listed as available");
            assert!(
                matches!(self.place(id), Some(Place::Serving(_))),
                "{id:?} is available but serves nowhere"
            );
        }
        assert!(
            self.available.is_empty() || self.queue.len() == 0,
            "somebody waits while a worker is free"
        );
        let next = self
            .queue
            .first()
            .and_then(|next| self.requests.get(next.index as usize));
        let first_room = self.room.first().and_then(|(_, worker)| self.worker(*worker));
        let could_take = next
            .zip(first_room)
            .is_some_and(|(next, worker)| next.size <= super::deadlines::LONG_REQUEST || worker.channels.is_some());
        assert!(!could_take, "somebody waits while a worker has room");
        let occupied = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.phase.is_occupied())
            .count();
        assert_eq!(occupied, self.occupied, "the number of the occupied");
        for (index, worker) in &self.workers {
            assert_eq!(index, worker.id.index as usize, "a worker is where its id says");
            assert!(
                !(worker.phase.serves() && worker.quarantined),
                "{:?} serves in quarantine",
                worker.id
            );
            if let Phase::Resting { since, .. } = worker.phase {
                assert!(self.resting.holds(since, worker.id), "{:?} rests for ever", worker.id);
            }
            self.check_flights(worker);
        }
        let listed = self
            .workers
            .iter()
            .filter(|(_, worker)| worker.room_listed.is_some())
            .count();
        assert_eq!(
            listed,
            self.room.len(),
            "the list of those with room holds them and nobody else"
        );
    }

    fn check_flights(&self, worker: &super::Worker) {
        let busy = matches!(worker.phase, Phase::Busy { .. });
        assert_eq!(
            busy,
            !worker.flights.is_empty(),
            "{:?} is busy exactly with what it was given",
            worker.id
        );
        for flight in &worker.flights {
            let told = flight.channel.is_some() == worker.channels.is_some();
            assert!(told, "{:?} is told a number with each request or with none", worker.id);
            let same = worker.flights.iter().filter(|other| other.channel == flight.channel);
            let alone = flight.channel.is_none() || same.count() == 1;
            assert!(alone, "{:?} has two requests under one number", worker.id);
        }
        for request in worker.flights.iter().filter_map(|flight| flight.request) {
            let held = self
                .requests
                .get(request.index as usize)
                .filter(|held| held.id == request);
            let state = held.map(|held| held.state);
            assert_eq!(
                state,
                Some(RequestState::Assigned(worker.id)),
                "{:?} works on a request of somebody else",
                worker.id
            );
        }
        if let Some(load) = worker.room_listed {
            assert!(
                busy && matches!(worker.place, Place::Serving(_)),
                "{:?} cannot take any more",
                worker.id
            );
            assert_eq!(load, worker.flights.len(), "{:?} is listed by its load", worker.id);
            assert!(
                load < worker.most_flights(self.policy.pipeline),
                "{:?} has room for one more",
                worker.id
            );
            assert!(self.room.contains(&(load, worker.id)), "{:?} is listed", worker.id);
        }
    }

    fn check_slots(&self) {
        let allowed = match self.stage {
            Stage::Serving => self.policy.workers.min..=self.policy.workers.max,
            Stage::Stopping => 0..=0,
        };
        assert!(allowed.contains(&self.slots.len()), "the number of places");
        for (number, slot) in self.slots.iter() {
            assert_eq!(
                self.place(slot.serving),
                Some(Place::Serving(number)),
                "place {number} knows who serves in it"
            );
            if let Some(successor) = slot.successor {
                assert_eq!(
                    self.place(successor),
                    Some(Place::Successor(number)),
                    "place {number} knows its successor"
                );
            }
        }
        for (_, worker) in &self.workers {
            match worker.place {
                Place::Serving(number) => assert_eq!(self.slots.get(number).map(|slot| slot.serving), Some(worker.id)),
                Place::Successor(number) => {
                    assert_eq!(self.slots.get(number).and_then(|slot| slot.successor), Some(worker.id));
                }
                Place::Outgoing => assert!(matches!(
                    worker.phase,
                    Phase::Busy { .. } | Phase::Settling { .. } | Phase::Stopping
                )),
            }
            if worker.phase == Phase::Stopping {
                assert_eq!(worker.place, Place::Outgoing, "who has been told to go has no place");
            }
        }
    }

    fn check_requests(&self) {
        let waiting = self
            .requests
            .iter()
            .filter(|(_, request)| request.state == RequestState::Waiting)
            .count();
        assert_eq!(waiting, self.queue.len(), "who waits is in the queue, once");
        for id in self.queue.iter() {
            let state = self
                .requests
                .get(id.index as usize)
                .filter(|held| held.id == id)
                .map(|held| held.state);
            assert_eq!(state, Some(RequestState::Waiting), "{id:?} is in the queue");
        }
        for (_, request) in &self.requests {
            if let RequestState::Assigned(worker) = request.state {
                let flights = self.worker(worker).into_iter().flat_map(|worker| &worker.flights);
                let busy_with_it = flights.filter(|flight| flight.request == Some(request.id)).count() == 1;
                assert!(busy_with_it, "{:?} is with a worker that does not know it", request.id);
            }
        }
    }

    fn check_wake(&self) {
        for (_, worker) in &self.workers {
            if let Some(at) = self.moment(worker) {
                assert!(
                    self.wake.is_some_and(|wake| wake <= at),
                    "nobody would wake up for {:?}",
                    worker.id
                );
            }
        }
    }

    fn check_counters(&self) {
        let Dispatcher { counters, requests, .. } = self;
        let ended = counters.replied + counters.failed + counters.hung_up;
        assert_eq!(
            counters.total,
            ended + requests.len() as u64,
            "every request is counted once when it ends"
        );
    }
}
