//! The free workers, and the rule which of them gets the next request.
//!
//! A worker may print a line too many right behind its answer and lose the processor between the two: on a busy machine
//! it is free by then, and what it writes next would pass for the answer to the next request. So the one used last,
//! whose caches are warm, is taken only if it has been free for [`MOMENT`]; within that time a stray line shows, and
//! the worker is replaced. In this order:
//!
//! 1. of the workers that have been free for a moment, the one used last;
//! 2. if most of the free ones have answered only just now, that of them which has been free for longest: they take
//!    turns, so
//!    each has some time;
//! 3. one that has never answered, but has lived for at least half as long as another one took from its start to its
//!    first
//!    answer: it is up, as far as can be known, and has nothing to write;
//! 4. one that has answered only just now, the one that has been free for longest;
//! 5. one that has never answered and may still be starting: a request that it gets waits for that.
//!
//! No request waits while a worker is free: with one worker, or while all but one are at work, the risk remains
//! (`--rest` waits instead).
//!
//! A free worker has read all that it was written: the shell reports a reply as
//! [`AfterReply::InStep`](super::super::AfterReply::InStep) only if its standard input is empty by then, and only such
//! a worker becomes free. So that is not asked again here.
//!
//! Three lists, each in the order in which its workers became free, threaded through one table by the workers' index:
//! every step is O(1), choosing is O(1) on average, and nothing is allocated but when there are more workers than ever
//! before. Workers that have never answered stand in the order of their start.

use std::time::{Duration, Instant};

use crate::doors::pool::core::event::WorkerId;

/// For how long a worker is to have been free before it is taken again while others are: as long as one is watched
/// after a long request ([`SETTLE`](super::SETTLE)). A program that was preempted between two writes goes on after the
/// time slices of the programs that compete with it, 3 to 4 ms each on Linux. Tried with workers that always, or in one
/// of seven cases, print a line too many, on two processors with eight that wanted one: of 10,000 such requests one
/// after the other 8 got the line of another one with 5 ms, 6 with 10 ms, none with 20 ms. A longer time would have
/// more workers take turns under a light load, and leave their caches cold.
pub(super) const MOMENT: Duration = Duration::from_millis(20);

/// The free workers of a pool.
#[derive(Debug, Default)]
pub(super) struct Available {
    /// The links of the lists, by the index of their worker. `None`: the worker is not free.
    links: Vec<Option<Link>>,
    /// The workers that have never answered; the one that was started first is the first.
    untried: Ends,
    /// The workers that have been free for a moment at least, the one used last at the end.
    rested: Ends,
    /// The workers that became free after that moment; the one that has been free for longest is the first.
    fresh: Ends,
    len: usize,
    /// The number of workers in the last list.
    just_now: usize,
}

/// Since when a worker is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Since {
    /// The worker has never answered, and was started then.
    Start(Instant),
    /// The worker has answered then, or passed its probe, or the time was over in which it was watched after that.
    Answer(Instant),
}

#[derive(Debug, Clone, Copy)]
struct Link {
    id: WorkerId,
    list: List,
    at: Instant,
    before: Option<u32>,
    behind: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Untried,
    Rested,
    Fresh,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    first: Option<u32>,
    last: Option<u32>,
}

impl Available {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// A worker is free. It stands behind all that were free before; before its first answer, behind all that were
    /// started before.
    pub(super) fn insert(&mut self, id: WorkerId, since: Since, now: Instant) {
        self.remove(id);
        let (list, at) = match since {
            Since::Start(at) => (List::Untried, at),
            Since::Answer(at) if now.saturating_duration_since(at) >= MOMENT => (List::Rested, at),
            Since::Answer(at) => (List::Fresh, at),
        };
        let behind = match list {
            List::Untried => self.started_after(at),
            List::Rested | List::Fresh => None,
        };
        self.put(id, list, at, behind);
        self.len += 1;
    }

    /// Puts a worker that was chosen and not used after all, and is free again, where it stood.
    pub(super) fn put_back(&mut self, id: WorkerId) {
        let Some(link) = self.link(id.index).copied().filter(|link| link.id == id) else {
            return;
        };
        self.unlink(id.index);
        let behind = match link.list {
            List::Untried => self.untried.first,
            List::Rested => None,
            List::Fresh => self.first_since(link.at),
        };
        self.put(id, link.list, link.at, behind);
    }

    /// A worker is not free any more.
    pub(super) fn remove(&mut self, id: WorkerId) {
        let is_listed = self.link(id.index).is_some_and(|link| link.id == id);
        if is_listed {
            self.unlink(id.index);
            self.len -= 1;
        }
    }

    /// Returns the worker that gets the next request, and is to be taken out for it. `start_up` is the time that a
    /// worker takes at most from its start to its first answer, as far as that has been seen.
    pub(super) fn choose(&mut self, now: Instant, start_up: Option<Duration>) -> Option<WorkerId> {
        self.collect_rested(now);
        let untried = self.untried.first.and_then(|index| self.link(index)).copied();
        let age = untried.map(|link| now.saturating_duration_since(link.at));
        let is_up = age.zip(start_up).is_some_and(|(age, start_up)| 2 * age >= start_up);
        let untried = untried.map(|link| link.id);
        let take_turns = 2 * self.just_now > self.len;
        let fresh = self.worker_at(self.fresh.first);
        self.worker_at(self.rested.last)
            .or_else(|| fresh.filter(|_| take_turns))
            .or_else(|| untried.filter(|_| is_up))
            .or(fresh)
            .or(untried)
    }

    /// The worker that can be missed most easily: one that was never used, else the one that was not for longest.
    pub(super) fn least_needed(&self) -> Option<WorkerId> {
        let lists = [self.untried, self.rested, self.fresh];
        lists.into_iter().find_map(|ends| self.worker_at(ends.first))
    }

    /// Workers that have been free for a moment by now are put behind the others of the rested list.
    fn collect_rested(&mut self, now: Instant) {
        while let Some(Link { id, at, .. }) = self.fresh.first.and_then(|index| self.link(index)).copied() {
            if now.saturating_duration_since(at) < MOMENT {
                return;
            }
            self.unlink(id.index);
            self.put(id, List::Rested, at, None);
        }
    }

    // ---- lists ------------------------------------------------------------------------------------------------

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.get(index as usize)?.as_ref()
    }

    fn link_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.links.get_mut(index as usize)?.as_mut()
    }

    fn worker_at(&self, index: Option<u32>) -> Option<WorkerId> {
        index.and_then(|index| self.link(index)).map(|link| link.id)
    }

    fn ends(&self, list: List) -> &Ends {
        match list {
            List::Untried => &self.untried,
            List::Rested => &self.rested,
            List::Fresh => &self.fresh,
        }
    }

    fn ends_mut(&mut self, list: List) -> &mut Ends {
        match list {
            List::Untried => &mut self.untried,
            List::Rested => &mut self.rested,
            List::Fresh => &mut self.fresh,
        }
    }

    /// The first of the workers that have never answered and were started later: none, nearly always, since the first
    /// to start is the first to be ready.
    fn started_after(&self, at: Instant) -> Option<u32> {
        let indexes = std::iter::successors(self.untried.last, |index| self.link(*index)?.before);
        let is_later = |index: &u32| self.link(*index).is_some_and(|link| link.at > at);
        indexes.take_while(is_later).last()
    }

    /// The first that has not been free for longer than since then, of the workers that are free since just now. Nearly
    /// always it is the first of all: those before it have come back at the same time.
    fn first_since(&self, at: Instant) -> Option<u32> {
        let mut indexes = std::iter::successors(self.fresh.first, |index| self.link(*index)?.behind);
        indexes.find(|index| self.link(*index).is_some_and(|link| link.at >= at))
    }

    /// Puts a worker before another one, or at the end.
    fn put(&mut self, id: WorkerId, list: List, at: Instant, behind: Option<u32>) {
        let index = id.index as usize;
        if index >= self.links.len() {
            self.links.resize(index + 1, None);
        }
        let before = match behind.and_then(|behind| self.link(behind)) {
            Some(behind) => behind.before,
            None => self.ends(list).last,
        };
        let link = Link {
            id,
            list,
            at,
            before,
            behind,
        };
        if let Some(place) = self.links.get_mut(index) {
            *place = Some(link);
        }
        self.just_now += usize::from(list == List::Fresh);
        self.join(list, before, Some(id.index));
        self.join(list, Some(id.index), behind);
    }

    fn unlink(&mut self, index: u32) {
        let Some(link) = self.links.get_mut(index as usize).and_then(Option::take) else {
            return;
        };
        self.just_now -= usize::from(link.list == List::Fresh);
        self.join(link.list, link.before, link.behind);
    }

    /// Makes two neighbours of each other; `None` is the end of the list.
    fn join(&mut self, list: List, before: Option<u32>, behind: Option<u32>) {
        match before.and_then(|index| self.link_mut(index)) {
            Some(link) => link.behind = behind,
            None => self.ends_mut(list).first = behind,
        }
        match behind.and_then(|index| self.link_mut(index)) {
            Some(link) => link.before = before,
            None => self.ends_mut(list).last = before,
        }
    }

    /// In the order in which they can be missed.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn iter(&self) -> impl Iterator<Item = WorkerId> {
        let lists = [self.untried, self.rested, self.fresh].into_iter();
        lists.flat_map(|ends| {
            let links = std::iter::successors(ends.first, |index| self.link(*index)?.behind);
            links.filter_map(|index| self.worker_at(Some(index)))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn worker(index: u32) -> WorkerId {
        WorkerId { index, incarnation: 7 }
    }

    #[derive(Debug, Clone)]
    enum Step {
        /// A worker is free, and has never answered since it was started that long ago.
        Start(u32, u64),
        /// A worker is free, after an answer.
        Answer(u32),
        /// A worker is lost.
        Lose(u32),
        /// The worker that is chosen gets a request.
        Take,
        /// A number of workers get a request each, and all of the requests are taken back at once.
        Return(usize),
        Pass(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0u32..9, 0u64..9).prop_map(|(index, age)| Step::Start(index, age)),
            5 => (0u32..9).prop_map(Step::Answer),
            1 => (0u32..9).prop_map(Step::Lose),
            4 => Just(Step::Take),
            1 => (1usize..4).prop_map(Step::Return),
            3 => (0u64..25).prop_map(Step::Pass),
        ];
        proptest::collection::vec(step, 1..300)
    }

    /// In the order in which they became free.
    type Model = Vec<(u32, Since)>;

    /// The rule as it is written above, and nothing else.
    fn chosen(model: &Model, now: Instant, start_up: Option<Duration>) -> Option<u32> {
        let answered = |since: &Since| match since {
            Since::Answer(at) => Some(*at),
            Since::Start(_) => None,
        };
        let answered = model
            .iter()
            .filter_map(|(index, since)| Some((*index, answered(since)?)));
        let untried = model.iter().filter_map(|(index, since)| match since {
            Since::Start(at) => Some((*index, *at)),
            Since::Answer(_) => None,
        });
        let untried = untried.min_by_key(|(_, at)| *at);
        let mut rested = answered.clone().filter(|(_, at)| now - *at >= MOMENT);
        let mut fresh = answered.filter(|(_, at)| now - *at < MOMENT);
        let up = untried.filter(|(_, at)| start_up.is_some_and(|start_up| 2 * (now - *at) >= start_up));
        let take_turns = 2 * fresh.clone().count() > model.len();
        let fresh = fresh.next();
        let chosen = rested
            .next_back()
            .or_else(|| fresh.filter(|_| take_turns))
            .or(up)
            .or(fresh)
            .or(untried);
        chosen.map(|(index, _)| index)
    }

    proptest! {
        #[test]
        fn it_chooses_by_the_rule(steps in steps(), start_up in proptest::option::of(0u64..20)) {
            let (mut available, mut model) = (Available::default(), Model::new());
            let mut now = Instant::now() + Duration::from_secs(1);
            let start_up = start_up.map(Duration::from_millis);
            for step in steps {
                match step {
                    Step::Start(index, _) | Step::Answer(index) => {
                        let since = match step {
                            Step::Start(_, age) => Since::Start(now - Duration::from_millis(age)),
                            _ => Since::Answer(now),
                        };
                        model.retain(|(other, _)| *other != index);
                        model.push((index, since));
                        available.insert(worker(index), since, now);
                    }
                    Step::Lose(index) => {
                        model.retain(|(other, _)| *other != index);
                        available.remove(worker(index));
                        available.remove(WorkerId { index, incarnation: 8 });
                    }
                    Step::Take => {
                        let wanted = chosen(&model, now, start_up);
                        prop_assert_eq!(available.choose(now, start_up), wanted.map(worker));
                        wanted.into_iter().for_each(|index| {
                            model.retain(|(other, _)| *other != index);
                            available.remove(worker(index));
                        });
                    }
                    Step::Return(taken) => {
                        let mut out = Vec::new();
                        for _ in 0..taken {
                            let Some(index) = chosen(&model, now, start_up) else { break };
                            prop_assert_eq!(available.choose(now, start_up), Some(worker(index)));
                            let at = model.iter().position(|(other, _)| *other == index).unwrap();
                            out.push((at, model.remove(at)));
                            available.remove(worker(index));
                        }
                        for (at, (index, since)) in out.into_iter().rev() {
                            model.insert(at, (index, since));
                            available.insert(worker(index), since, now);
                            available.put_back(worker(index));
                        }
                    }
                    Step::Pass(time) => now += Duration::from_millis(time),
                }
                prop_assert_eq!(available.len(), model.len());
                let mut listed: Vec<u32> = available.iter().map(|id| id.index).collect();
                listed.sort_unstable();
                let mut expected: Vec<u32> = model.iter().map(|(index, _)| *index).collect();
                expected.sort_unstable();
                prop_assert_eq!(listed, expected);
            }
        }
    }

    #[test]
    fn the_worker_used_last_is_left_alone_for_a_moment() {
        let (mut available, start) = (Available::default(), Instant::now());
        for index in 0..3 {
            available.insert(worker(index), Since::Answer(start), start);
        }
        available.insert(worker(3), Since::Answer(start + MOMENT), start + MOMENT);
        assert_eq!(available.choose(start + MOMENT, None), Some(worker(2)));
        assert_eq!(
            available.choose(start + 2 * MOMENT - MILLISECOND, None),
            Some(worker(2))
        );
        assert_eq!(available.choose(start + 2 * MOMENT, None), Some(worker(3)));
    }

    #[test]
    fn a_worker_that_has_never_answered_is_chosen_last_until_it_passes_for_up() {
        let (mut available, start) = (Available::default(), Instant::now());
        available.insert(worker(0), Since::Start(start), start);
        assert_eq!(available.choose(start, None), Some(worker(0)), "better than none");
        let now = start + Duration::from_secs(9);
        available.insert(worker(1), Since::Answer(now), now);
        assert_eq!(
            available.choose(now, None),
            Some(worker(1)),
            "it is not known how long it takes"
        );
        assert_eq!(available.choose(now, Some(Duration::from_secs(19))), Some(worker(1)));
        assert_eq!(available.choose(now, Some(Duration::from_secs(18))), Some(worker(0)));
        assert_eq!(
            available.choose(now + MOMENT, Some(MILLISECOND)),
            Some(worker(1)),
            "a warm one is better"
        );
        assert_eq!(available.least_needed(), Some(worker(0)));
    }

    /// A worker that only seems to be up would keep its request waiting.
    #[test]
    fn as_long_as_most_are_warm_they_take_turns() {
        let (mut available, now, start_up) = (Available::default(), Instant::now(), Some(Duration::ZERO));
        available.insert(worker(0), Since::Start(now), now);
        for index in 1..4 {
            available.insert(worker(index), Since::Answer(now), now);
        }
        for index in [1, 2, 3, 1] {
            assert_eq!(available.choose(now, start_up), Some(worker(index)));
            available.remove(worker(index));
            available.insert(worker(index), Since::Answer(now), now);
        }
        available.insert(worker(4), Since::Start(now), now);
        available.insert(worker(5), Since::Start(now), now);
        assert_eq!(available.choose(now, start_up), Some(worker(0)));
    }
}
