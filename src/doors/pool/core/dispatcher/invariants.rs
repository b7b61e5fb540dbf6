//! The sentences that `core` promises, as assertions: in debug builds after every event, in both directions.

use super::Dispatcher;
use crate::doors::pool::core::health::Trust;
use crate::doors::pool::core::requests::RequestState;
use crate::doors::pool::core::workers::Place;

impl Dispatcher {
    pub(super) fn check_invariants(&self) {
        self.workers.check_invariants();
        self.check_queue();
        self.check_flights();
        self.check_requests();
        self.check_places();
        self.check_counters();
        self.check_load();
        if !self.is_stopping {
            self.health.check_invariants(&self.workers, &self.places);
        }
    }

    fn check_queue(&self) {
        let waiting = self.requests.count_waiting();
        let is_free = self.workers.count_free() > 0;
        assert!(!is_free || waiting == 0, "a request waits while a worker is free");
        let next = self.requests.first_waiting();
        let could_take = next.is_some_and(|next| self.workers.has_room_for(next.size));
        assert!(!could_take, "a request waits while a worker has room");
    }

    fn check_flights(&self) {
        for worker in self.workers.iter() {
            for flight in &worker.flights {
                let Some(id) = flight.request else { continue };
                let held = self.requests.get(id).map(|held| (held.state, held.give_up));
                let expected = (RequestState::Assigned(worker.id), flight.give_up);
                assert_eq!(held, Some(expected), "{:?} works on a request of another", worker.id);
            }
        }
    }

    fn check_requests(&self) {
        let is_waiting = |state| state == RequestState::Waiting;
        let waiting = self.requests.iter().filter(|request| is_waiting(request.state)).count();
        assert_eq!(
            waiting,
            self.requests.count_waiting(),
            "a waiting request is in the queue, once"
        );
        assert_eq!(
            waiting,
            self.requests.waiting().count(),
            "what is in the queue is in hand"
        );
        for request in self.requests.waiting() {
            assert!(is_waiting(request.state), "{:?} is in the queue", request.id);
        }
        for request in self.requests.iter() {
            if let RequestState::Assigned(worker) = request.state {
                let flights = self.workers.get(worker).into_iter().flat_map(|worker| &worker.flights);
                let is_known = flights.filter(|flight| flight.request == Some(request.id)).count() == 1;
                assert!(is_known, "{:?} is with a worker that does not know it", request.id);
            }
        }
    }

    fn check_places(&self) {
        let allowed = if self.is_stopping {
            0..=0
        } else {
            self.policy.workers.min..=self.policy.workers.max
        };
        assert!(allowed.contains(&self.places.len()), "the number of places");
        for (number, place) in self.places.iter() {
            let serving = self.workers.get(place.serving);
            let is_known = serving.is_some_and(|worker| worker.place == Place::Serving(number));
            assert!(is_known, "place {number} knows which worker serves in it");
            if let Some(successor) = place.successor {
                let expected = Some(Place::Successor(number));
                assert_eq!(
                    self.workers.place(successor),
                    expected,
                    "place {number} knows its successor"
                );
            }
            let is_decided = serving.is_some_and(|worker| worker.trouble.is_some() || worker.trust == Trust::Confirmed);
            assert!(!is_decided || place.is_settled, "place {number} is still waited for");
        }
        for worker in self.workers.iter() {
            match worker.place {
                Place::Serving(number) => {
                    assert_eq!(self.places.get(number).map(|place| place.serving), Some(worker.id));
                }
                Place::Successor(number) => {
                    assert_eq!(
                        self.places.get(number).and_then(|place| place.successor),
                        Some(worker.id)
                    );
                }
                Place::Outgoing => {}
            }
        }
    }

    fn check_counters(&self) {
        let counters = &self.counters;
        let ended = counters.replied + counters.failed + counters.hung_up;
        assert_eq!(
            counters.total,
            ended + self.requests.len() as u64,
            "every request is counted once when it ends"
        );
    }

    fn check_load(&self) {
        let size = &self.policy.workers;
        assert_eq!(self.workers.headcount.placed, self.places.len(), "each place counts");
        if size.is_fixed() || self.is_stopping {
            assert_eq!(self.elastic.deadline(size), None, "nothing grows or shrinks");
        } else {
            let is_queue_empty = self.requests.count_waiting() == 0;
            self.elastic.check_invariants(&self.load(), size, is_queue_empty);
        }
    }
}
