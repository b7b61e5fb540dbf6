//! Requests that wait for a worker: first come, first served, each with its own deadline.
//!
//! Sorted by ticket, that is by arrival. A request that goes back after its worker died keeps its ticket, and so stands
//! before all that came later, without a second kind of insertion.
//!
//! Under load every request passes through here, so both ends cost next to nothing: the one that comes is nearly always
//! the youngest and the one that goes the oldest. One that leaves from the middle leaves a gap behind, which goes when
//! it comes to an end of the queue, or with all others once there are more gaps than requests.
//!
//! Deadlines come in order too, since all wait equally long, but for the few that were given back: those are kept
//! apart, in a tree. So a request whose time is over is found without a look at the others, however many wait. What a
//! request leaves behind in the middle of the list of deadlines is passed over when its turn comes.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use super::event::RequestId;

/// A number of gaps that is never worth a walk.
const FEW: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Queue {
    places: VecDeque<Place>,
    waiting: usize,
    /// The deadlines of the requests, each with its ticket. Not all of the requests wait any more.
    deadlines: VecDeque<(Instant, u64)>,
    /// The deadlines of the requests that came with one before another of these. All of these requests wait.
    early: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Place {
    ticket: u64,
    /// `None`: a gap.
    waits: Option<(RequestId, Instant)>,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn insert(&mut self, request: RequestId, deadline: Instant) {
        let place = Place {
            ticket: request.ticket,
            waits: Some((request, deadline)),
        };
        if self.places.back().is_none_or(|last| last.ticket < request.ticket) {
            self.places.push_back(place);
        } else {
            match self.find(request.ticket) {
                Ok(at) => self
                    .places
                    .iter_mut()
                    .skip(at)
                    .take(1)
                    .for_each(|gap| gap.waits = place.waits),
                Err(at) => self.places.insert(at, place),
            }
        }
        self.waiting += 1;
        if self.deadlines.back().is_none_or(|(last, _)| *last <= deadline) {
            self.deadlines.push_back((deadline, request.ticket));
        } else {
            self.early.insert((deadline, request.ticket));
        }
    }

    /// The one that has waited longest.
    pub(super) fn first(&self) -> Option<RequestId> {
        self.places.front()?.waits.map(|(request, _)| request)
    }

    pub(super) fn remove(&mut self, request: RequestId) {
        let at = if self.first() == Some(request) {
            Ok(0)
        } else {
            self.find(request.ticket)
        };
        let Some(place) = at.ok().and_then(|at| self.places.get_mut(at)) else {
            return;
        };
        if let Some((_, deadline)) = place.waits.take() {
            self.waiting -= 1;
            let entry = (deadline, request.ticket);
            if self.deadlines.front() == Some(&entry) {
                self.deadlines.pop_front();
            }
            self.early.remove(&entry);
        }
        self.close_gaps();
    }

    /// The time at which a request may have waited too long; none has before.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let ends = [self.deadlines.front(), self.early.first()];
        ends.into_iter().flatten().map(|(deadline, _)| *deadline).min()
    }

    /// Takes one that has waited too long.
    pub(super) fn pop_expired(&mut self, now: Instant) -> Option<RequestId> {
        loop {
            let first = self.early.first().filter(|(deadline, _)| *deadline <= now).copied();
            let entry = match first {
                Some(early) => early,
                None => {
                    let first = self.deadlines.front().filter(|(deadline, _)| *deadline <= now);
                    *first?
                }
            };
            if let Some(request) = self.waits_until(entry) {
                self.remove(request);
                return Some(request);
            }
            // The request left the queue before.
            if first.is_some() {
                self.early.pop_first();
            } else {
                self.deadlines.pop_front();
            }
        }
    }

    /// The request with this ticket, if it still waits, and until then.
    fn waits_until(&self, (deadline, ticket): (Instant, u64)) -> Option<RequestId> {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        let place = self.places.get(self.find(ticket).ok()?)?;
        place
            .waits
            .filter(|(_, its)| *its == deadline)
            .map(|(request, _)| request)
    }

    /// In the order of arrival.
    pub(super) fn iter(&self) -> impl Iterator<Item = RequestId> {
        self.places
            .iter()
            .filter_map(|place| place.waits.map(|(request, _)| request))
    }

    fn find(&self, ticket: u64) -> Result<usize, usize> {
        self.places.binary_search_by_key(&ticket, |place| place.ticket)
    }

    /// There is no gap at either end, so that the first place is that of the first request.
    fn close_gaps(&mut self) {
        while self.places.front().is_some_and(|place| place.waits.is_none()) {
            self.places.pop_front();
        }
        while self.places.back().is_some_and(|place| place.waits.is_none()) {
            self.places.pop_back();
        }
        if self.places.len() > 2 * self.waiting + FEW {
            self.places.retain(|place| place.waits.is_some());
        }
        if self.waiting == 0 {
            self.deadlines.clear();
            self.early.clear();
        } else if self.deadlines.len() > 2 * self.waiting + FEW {
            let mut deadlines = std::mem::take(&mut self.deadlines);
            deadlines.retain(|entry| self.waits_until(*entry).is_some());
            self.deadlines = deadlines;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// The number of looks at a request in the queue.
        pub(super) static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    /// The time of each is over at a moment of its own, and some have gone before, or were given back with another.
    #[test]
    fn an_expired_request_is_found_without_a_look_at_the_others() {
        const MANY: usize = 20_000;
        let (mut queue, start) = (Queue::default(), Instant::now());
        let at = |number: usize| start + Duration::from_millis(number as u64);
        for number in 0..MANY {
            queue.insert(request(number as u64), at(number + 1));
        }
        for number in (0..MANY).step_by(3) {
            queue.remove(request(number as u64));
        }
        for number in (0..MANY).step_by(6) {
            queue.insert(request(number as u64), at(number + 2));
        }
        let before = LOOKS.with(std::cell::Cell::get);
        let mut expired = 0;
        for number in 0..MANY + 3 {
            while queue.pop_expired(at(number)).is_some() {
                expired += 1;
            }
        }
        assert_eq!((expired, queue.len()), (MANY - MANY.div_ceil(3) + MANY.div_ceil(6), 0));
        let looks = LOOKS.with(std::cell::Cell::get) - before;
        assert!(looks < 5 * MANY, "{looks} looks for {MANY}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// The next one to arrive, with this much time.
        Arrive(u64),
        /// One that was there before comes back.
        Return(usize, u64),
        Pop,
        Leave(usize),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (1u64..50).prop_map(Step::Arrive),
            1 => (any::<usize>(), 1u64..50).prop_map(|(which, time)| Step::Return(which, time)),
            2 => Just(Step::Pop),
            2 => any::<usize>().prop_map(Step::Leave),
            1 => (1u64..30).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 1..400)
    }

    fn request(ticket: u64) -> RequestId {
        RequestId { index: 0, ticket }
    }

    fn nth(map: &BTreeMap<u64, Instant>, which: usize) -> Option<u64> {
        map.keys().nth(which.checked_rem(map.len())?).copied()
    }

    proptest! {
        /// Against a map by ticket: the same order, the same numbers, and no deadline passes unnoticed.
        #[test]
        fn it_is_a_map_by_arrival(steps in steps()) {
            let (mut queue, mut model, mut gone) = (Queue::default(), BTreeMap::new(), BTreeMap::new());
            let (mut now, mut tickets) = (Instant::now(), 0);
            for step in steps {
                match step {
                    Step::Arrive(time) => {
                        let deadline = now + Duration::from_millis(time);
                        queue.insert(request(tickets), deadline);
                        model.insert(tickets, deadline);
                        tickets += 1;
                    }
                    Step::Return(which, time) => if let Some(ticket) = nth(&gone, which) {
                        let deadline = now + Duration::from_millis(time);
                        gone.remove(&ticket);
                        queue.insert(request(ticket), deadline);
                        model.insert(ticket, deadline);
                    },
                    Step::Pop => {
                        let first = model.pop_first();
                        prop_assert_eq!(queue.first(), first.map(|(ticket, _)| request(ticket)));
                        queue.first().into_iter().for_each(|first| queue.remove(first));
                        gone.extend(first);
                    }
                    Step::Leave(which) => if let Some(ticket) = nth(&model, which) {
                        queue.remove(request(ticket));
                        gone.extend(model.remove_entry(&ticket));
                    },
                    Step::Pass(time) => {
                        now += Duration::from_millis(time);
                        while let Some(expired) = queue.pop_expired(now) {
                            let deadline = model.remove(&expired.ticket);
                            prop_assert!(deadline.is_some_and(|deadline| deadline <= now));
                        }
                        prop_assert!(model.values().all(|deadline| *deadline > now));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert_eq!(queue.first(), model.keys().next().map(|ticket| request(*ticket)));
                prop_assert!(queue.iter().map(|request| request.ticket).eq(model.keys().copied()));
                let wake = queue.next_deadline();
                prop_assert!(model.values().all(|deadline| wake.is_some_and(|wake| wake <= *deadline)));
                prop_assert_eq!(wake.is_none(), model.is_empty());
                prop_assert!(queue.places.len() <= 2 * queue.len() + FEW);
                prop_assert!(queue.deadlines.len() <= 2 * queue.len() + FEW && queue.early.len() <= queue.len());
            }
        }
    }
}
