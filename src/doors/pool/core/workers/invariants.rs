//! The sentences that `workers` promises, as assertions.

use super::Workers;
use super::headcount::Headcount;
use super::phase::{Phase, Place};
use super::worker::Worker;
use crate::doors::pool::core::health::Trust;

impl Workers {
    /// Returns true if a busy worker has room for a request of this size.
    pub(in super::super) fn has_room_for(&self, size: usize) -> bool {
        let first = self.room.first().and_then(|(_, worker)| self.get(*worker));
        first.is_some_and(|worker| size <= super::LONG_REQUEST || worker.has_channels())
    }

    pub(in super::super) fn check_invariants(&self) {
        self.check_free();
        self.check_counts();
        for (index, worker) in &self.list {
            assert_eq!(index, worker.id.index as usize, "a worker is where its id says");
            let (id, is_trusted) = (worker.id, worker.trust == Trust::Confirmed);
            assert!(!(is_trusted && worker.trouble.is_some()), "{id:?} is trusted");
            let serves = worker.phase.is_serving();
            assert!(!(serves && worker.is_quarantined), "{id:?} serves in quarantine");
            if let Phase::Resting { since, .. } = worker.phase {
                assert!(self.resting.holds(since, id), "{id:?} rests for ever");
            }
            if let Some(at) = worker.deadline() {
                let is_woken = self.wake.is_some_and(|wake| wake <= at);
                assert!(is_woken, "no tick would come for {id:?}");
            }
            check_place(worker);
            check_flights(worker);
            self.check_room(worker);
        }
    }

    fn check_free(&self) {
        let free = self.iter().filter(|worker| worker.phase == Phase::Available).count();
        assert_eq!(
            free,
            self.available.len(),
            "the list of the available holds them and no others"
        );
        assert_eq!(free, self.available.iter().count(), "as many as are counted");
        for id in self.available.iter() {
            assert_eq!(self.phase(id), Some(Phase::Available), "{id:?} is listed as available");
            let serves = matches!(self.place(id), Some(Place::Serving(_)));
            assert!(serves, "{id:?} is available but serves nowhere");
        }
    }

    fn check_counts(&self) {
        let mut headcount = Headcount::default();
        self.iter().for_each(|worker| headcount.add(worker));
        assert_eq!(headcount, self.headcount, "every worker is counted for what it is");
        let listed = self.iter().filter(|worker| worker.room_listed.is_some()).count();
        assert_eq!(
            listed,
            self.room.len(),
            "the list of those with room holds them and no others"
        );
    }

    fn check_room(&self, worker: &Worker) {
        let Some(load) = worker.room_listed else { return };
        let id = worker.id;
        let takes = matches!((worker.phase, worker.place), (Phase::Busy { .. }, Place::Serving(_)));
        assert!(takes, "{id:?} cannot take any more");
        assert_eq!(load, worker.flights.len(), "{id:?} is listed by its load");
        assert!(
            load < worker.most_flights(self.rules.pipeline),
            "{id:?} has room for one more"
        );
        assert!(self.room.contains(&(load, id)), "{id:?} is listed");
    }
}

fn check_place(worker: &Worker) {
    let id = worker.id;
    if worker.phase == Phase::Stopping {
        assert_eq!(
            worker.place,
            Place::Outgoing,
            "{id:?} has been told to end and has a place"
        );
    }
    if worker.place == Place::Outgoing {
        let ends = matches!(
            worker.phase,
            Phase::Busy { .. } | Phase::Settling { .. } | Phase::Stopping
        );
        assert!(ends, "{id:?} has no place and neither finishes nor ends");
    }
}

fn check_flights(worker: &Worker) {
    let (id, flights) = (worker.id, &worker.flights);
    let is_busy = matches!(worker.phase, Phase::Busy { .. });
    assert_eq!(
        is_busy,
        !flights.is_empty(),
        "{id:?} is busy exactly with what it was given"
    );
    for flight in flights {
        let is_told = flight.channel.is_some() == worker.has_channels();
        assert!(is_told, "{id:?} is told a number with each request or with none");
        let same = flights.iter().filter(|other| other.channel == flight.channel);
        let is_alone = flight.channel.is_none() || same.count() == 1;
        assert!(is_alone, "{id:?} has two requests under one number");
    }
}
