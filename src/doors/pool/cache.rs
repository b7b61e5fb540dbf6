//! The answers to requests that were asked before, and the requests under way that identical ones may share.
//!
//! A worker that is a pure function of its input need not be asked twice. The life of an answer: its request [is
//! asked](Cache::add_leader) by a leader → identical requests [join it](Cache::add_waiter) as waiters → the
//! [answer](Cache::end_request) goes to all of them and is kept → it is [found](Cache::look_up) until its time is over,
//! or room is needed and it is the one found longest ago, or all answers are [forgotten](Cache::forget_all): at the
//! operator's command, or because a worker has failed its probe or written bytes that belong to no request.
//!
//! Invariants:
//! - Requests are identical when their bytes are. Only whole answers are kept, never refusals.
//! - Keys and answers together, with the overhead of their table, never exceed the size limit.
//! - From a HUP until all workers are replaced no answer is kept, since it may come from a worker with the old data.
//!   The answer to a request that was asked before the HUP is never kept, however late it comes.
//! - A request goes on as long as one of the clients that share it waits, even if its leader has gone.
//! - The bytes of a request are stored once, however many clients wait for its answer. A waiter leaves by its
//!   [`Place`], without a search. So thousands may wait, and leave in one moment, at no cost to other clients.
//!
//! The number of waiters is limited by `--max-unanswered`, beyond which a connection is not read from, and by
//! `--max-connections`. Connections, workers and bytes on their way do not belong here.

use std::collections::HashMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::core::ClientId;
use crate::doors::waiters::{Ticket, Waiters};

/// The cost of an entry in bytes, in addition to its key and its answer: two boxes, three links, the time, and its
/// share of the table.
const OVERHEAD: usize = 160;

/// The limits on the answers that are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// The most bytes of all entries together. ≥ 1.
    pub size: usize,
    /// The time for which an answer is kept.
    pub ttl: Duration,
}

/// The cache of one pool.
#[derive(Debug)]
pub(super) struct Cache {
    limits: Option<CacheLimits>,
    entries: LruCache<Box<[u8]>, Entry>,
    bytes: usize,
    /// The numbers of the requests under way, by their bytes.
    numbers: HashMap<Rc<[u8]>, u64>,
    asked: HashMap<u64, Asked>,
    /// The number of requests asked so far.
    next_number: u64,
    /// The number of times that all answers were forgotten. An answer to a request of an earlier epoch is not kept.
    epoch: u64,
    is_rolling: bool,
}

#[derive(Debug)]
struct Entry {
    answer: Rc<[u8]>,
    until: Instant,
}

/// A request under way, in the hands of the dispatcher.
#[derive(Debug)]
struct Asked {
    request: Rc<[u8]>,
    leader: ClientId,
    /// The clients that wait for the same answer, in the order of their arrival.
    waiters: Waiters<ClientId>,
    /// True if the leader has gone, so that its request goes on for the waiters.
    is_orphan: bool,
    epoch: u64,
}

/// The place of a waiter for a request under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    number: u64,
    ticket: Ticket,
}

/// The result of looking a request up.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'c> {
    /// The answer is known.
    Answer(&'c Rc<[u8]>),
    /// The request is under way, and its client may [wait](Cache::add_waiter) at this place.
    Asked(Place),
    /// The request is not known, and its client [leads](Cache::add_leader).
    Nothing,
    /// The request is under way since before a HUP, so its client must ask for itself alone.
    Outdated,
}

/// The consequence of a client's going for the request that it shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// The request goes on for other clients.
    Shared,
    /// No client wants the request any more.
    Unwanted,
    /// No client wants the request any more. Its leader, which had gone before, is named.
    UnwantedOrphan(ClientId),
}

/// The waiters that share the end of a request.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) waiters: Waiters<ClientId>,
    /// True if the leader has gone, so that one of the waiters takes its place.
    pub(super) is_orphan: bool,
    /// The answer for the waiters. `None`: they are refused.
    pub(super) answer: Option<Rc<[u8]>>,
}

impl Cache {
    /// Returns an empty cache. Without limits it keeps no answer and shares no request.
    pub(super) fn new(limits: Option<CacheLimits>) -> Self {
        Cache {
            limits,
            entries: LruCache::unbounded(),
            bytes: 0,
            numbers: HashMap::new(),
            asked: HashMap::new(),
            next_number: 0,
            epoch: 0,
            is_rolling: false,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.limits.is_some()
    }

    /// Returns true if no request is being asked whose answer others may share.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    /// Returns the number of entries and of the bytes that they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    pub(super) fn look_up(&mut self, request: &[u8], now: Instant) -> Found<'_> {
        if self.entries.peek(request).is_some_and(|entry| entry.until <= now) {
            self.remove(request);
        }
        if let Some(number) = self.numbers.get(request)
            && let Some(asked) = self.asked.get(number)
        {
            return if asked.epoch == self.epoch {
                Found::Asked(Place {
                    number: *number,
                    ticket: asked.waiters.next_ticket(),
                })
            } else {
                Found::Outdated
            };
        }
        match self.entries.get(request) {
            Some(entry) => Found::Answer(&entry.answer),
            None => Found::Nothing,
        }
    }

    /// Adds a request that `leader` asks, which identical requests may join.
    pub(super) fn add_leader(&mut self, request: &Rc<[u8]>, leader: ClientId) {
        let asked = Asked {
            request: Rc::clone(request),
            leader,
            waiters: Waiters::default(),
            is_orphan: false,
            epoch: self.epoch,
        };
        self.next_number += 1;
        self.numbers.insert(Rc::clone(request), self.next_number);
        self.asked.insert(self.next_number, asked);
    }

    /// Adds a waiter at the place that [`look_up`](Self::look_up) has found. No other waiter may be added in between.
    pub(super) fn add_waiter(&mut self, place: Place, waiter: ClientId) {
        if let Some(asked) = self.asked.get_mut(&place.number) {
            let ticket = asked.waiters.push(waiter);
            debug_assert_eq!(ticket, place.ticket, "no request was added since the place was found");
        }
    }

    /// Ends the request of `leader`, with an answer or without, and returns the waiters that share that end.
    pub(super) fn end_request(
        &mut self,
        request: &[u8],
        leader: ClientId,
        answer: Option<&[u8]>,
        now: Instant,
    ) -> Shared {
        let asked = self.led_by(request, leader).and_then(|number| self.end(number));
        let Some(asked) = asked else {
            return Shared::default();
        };
        let is_good = asked.epoch == self.epoch && !self.is_rolling;
        let is_wanted = is_good || !asked.waiters.is_empty();
        let answer: Option<Rc<[u8]>> = answer.filter(|_| is_wanted).map(Rc::from);
        if let Some(answer) = answer.as_ref().filter(|_| is_good) {
            self.keep(request, answer, now);
        }
        Shared {
            waiters: asked.waiters,
            is_orphan: asked.is_orphan,
            answer,
        }
    }

    fn led_by(&self, request: &[u8], leader: ClientId) -> Option<u64> {
        let number = *self.numbers.get(request)?;
        let asked = self.asked.get(&number)?;
        (asked.leader == leader).then_some(number)
    }

    fn end(&mut self, number: u64) -> Option<Asked> {
        let asked = self.asked.remove(&number)?;
        self.numbers.remove(&asked.request);
        Some(asked)
    }

    /// Notes that a client has gone that asked a request, for itself alone or as a leader.
    pub(super) fn remove_leader(&mut self, request: &[u8], leader: ClientId) -> Departure {
        // It asked for itself alone, perhaps while others shared a request from before a HUP.
        let Some(number) = self.led_by(request, leader) else {
            return Departure::Unwanted;
        };
        match self.asked.get_mut(&number) {
            Some(asked) if !asked.waiters.is_empty() => {
                asked.is_orphan = true;
                Departure::Shared
            }
            _ => {
                self.end(number);
                Departure::Unwanted
            }
        }
    }

    /// Notes that a waiter has gone.
    pub(super) fn remove_waiter(&mut self, place: Place) -> Departure {
        let Some(asked) = self.asked.get_mut(&place.number) else {
            return Departure::Unwanted;
        };
        if asked.waiters.remove(place.ticket).is_none() {
            return Departure::Unwanted;
        }
        if !(asked.is_orphan && asked.waiters.is_empty()) {
            return Departure::Shared;
        }
        let leader = asked.leader;
        self.end(place.number);
        Departure::UnwantedOrphan(leader)
    }

    /// Forgets all answers and keeps none until the workers [are replaced](Self::end_roll). Must be called when the
    /// operator has changed the data of the workers.
    pub(super) fn begin_roll(&mut self) {
        self.forget_all();
        self.is_rolling = true;
    }

    /// Keeps answers again. Must be called when every worker that answers was started after
    /// [`begin_roll`](Self::begin_roll).
    pub(super) fn end_roll(&mut self) {
        self.forget_all();
        self.is_rolling = false;
    }

    /// Sets other limits and forgets all answers.
    pub(super) fn set_limits(&mut self, limits: Option<CacheLimits>) {
        self.limits = limits;
        self.forget_all();
    }

    /// Forgets all answers, which may be wrong, and keeps no answer to a request under way.
    pub(super) fn forget_all(&mut self) {
        self.epoch += 1;
        self.entries.clear();
        self.bytes = 0;
    }

    fn keep(&mut self, request: &[u8], answer: &Rc<[u8]>, now: Instant) {
        let Some(CacheLimits { size, ttl }) = self.limits else {
            return;
        };
        let cost = cost(request, answer);
        if cost > size {
            return;
        }
        self.remove(request);
        while self.bytes + cost > size {
            let Some((old, entry)) = self.entries.pop_lru() else {
                break;
            };
            self.bytes -= self::cost(&old, &entry.answer);
        }
        let entry = Entry {
            answer: Rc::clone(answer),
            until: now + ttl,
        };
        self.entries.put(request.into(), entry);
        self.bytes += cost;
    }

    fn remove(&mut self, request: &[u8]) {
        if let Some(entry) = self.entries.pop(request) {
            self.bytes -= cost(request, &entry.answer);
        }
    }
}

fn cost(request: &[u8], answer: &[u8]) -> usize {
    request.len() + answer.len() + OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doors::waiters::comparisons;
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(10);

    fn cache(entries: usize) -> Cache {
        Cache::new(Some(CacheLimits {
            size: entries * cost(b"a", b"A"),
            ttl: TTL,
        }))
    }

    fn ask(cache: &mut Cache, request: &[u8], client: u64, now: Instant) {
        assert_eq!(cache.look_up(request, now), Found::Nothing);
        cache.add_leader(&request.into(), ClientId(client));
    }

    #[track_caller]
    fn follow(cache: &mut Cache, request: &[u8], client: u64, now: Instant) -> Place {
        let Found::Asked(place) = cache.look_up(request, now) else {
            panic!("{request:?} is not being asked");
        };
        cache.add_waiter(place, ClientId(client));
        place
    }

    fn store(cache: &mut Cache, request: &[u8], now: Instant) {
        ask(cache, request, 0, now);
        cache.end_request(request, ClientId(0), Some(&request.to_ascii_uppercase()), now);
    }

    fn text<'c>(found: Found<'c>) -> Option<&'c [u8]> {
        match found {
            Found::Answer(answer) => Some(answer),
            Found::Asked(_) | Found::Nothing | Found::Outdated => None,
        }
    }

    fn all(mut shared: Shared) -> Vec<ClientId> {
        shared.waiters.take_all().collect()
    }

    #[test]
    fn a_client_that_asks_for_itself_alone_leaves_without_effect_on_a_shared_request() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        let third = follow(&mut cache, b"a", 3, now);
        cache.begin_roll();
        assert_eq!(cache.look_up(b"a", now), Found::Outdated);
        assert_eq!(cache.remove_leader(b"a", ClientId(2)), Departure::Unwanted);
        assert_eq!(cache.remove_leader(b"a", ClientId(1)), Departure::Shared);
        assert_eq!(cache.remove_leader(b"a", ClientId(2)), Departure::Unwanted);
        assert_eq!(cache.remove_waiter(third), Departure::UnwantedOrphan(ClientId(1)));
        assert_eq!(cache.remove_waiter(third), Departure::Unwanted);
    }

    #[test]
    fn an_answer_is_found_until_its_time_is_over() {
        let (mut cache, now) = (cache(9), Instant::now());
        store(&mut cache, b"a", now);
        assert_eq!(
            text(cache.look_up(b"a", now + TTL - Duration::from_nanos(1))),
            Some(&b"A"[..])
        );
        assert_eq!(cache.look_up(b"A", now), Found::Nothing);
        assert_eq!(cache.look_up(b"a", now + TTL), Found::Nothing);
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn the_answer_that_was_not_found_for_longest_makes_room() {
        let (mut cache, now) = (cache(2), Instant::now());
        store(&mut cache, b"a", now);
        store(&mut cache, b"b", now);
        assert_eq!(text(cache.look_up(b"a", now)), Some(&b"A"[..]));
        store(&mut cache, b"c", now);
        assert_eq!(cache.look_up(b"b", now), Found::Nothing);
        assert_eq!(text(cache.look_up(b"a", now)), Some(&b"A"[..]));
        ask(&mut cache, b"d", 1, now);
        cache.end_request(b"d", ClientId(1), Some(&[7; 1000]), now);
        assert_eq!(cache.size().0, 2, "what is larger than all of it moves nobody");
    }

    #[test]
    fn identical_requests_share_one_answer() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        let places = [2, 3, 4].map(|waiter| follow(&mut cache, b"a", waiter, now));
        assert_eq!(cache.remove_waiter(places[1]), Departure::Shared);
        let shared = cache.end_request(b"a", ClientId(1), Some(b"A"), now);
        assert_eq!((shared.answer.as_deref(), shared.is_orphan), (Some(&b"A"[..]), false));
        assert_eq!(all(shared), [ClientId(2), ClientId(4)]);
        assert_eq!(text(cache.look_up(b"a", now)), Some(&b"A"[..]));
    }

    #[test]
    fn a_refusal_is_shared_but_not_kept() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        follow(&mut cache, b"a", 2, now);
        assert_eq!(all(cache.end_request(b"a", ClientId(1), None, now)), [ClientId(2)]);
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
    }

    #[test]
    fn a_request_goes_on_as_long_as_a_client_waits() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        let second = follow(&mut cache, b"a", 2, now);
        assert_eq!(cache.remove_leader(b"a", ClientId(1)), Departure::Shared);
        let third = follow(&mut cache, b"a", 3, now);
        assert_eq!(cache.remove_waiter(second), Departure::Shared);
        assert_eq!(cache.remove_waiter(third), Departure::UnwantedOrphan(ClientId(1)));
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        ask(&mut cache, b"a", 4, now);
        assert_eq!(cache.remove_leader(b"a", ClientId(4)), Departure::Unwanted);
    }

    #[test]
    fn nothing_of_before_a_roll_is_kept_or_shared_after_it() {
        let (mut cache, now) = (cache(9), Instant::now());
        store(&mut cache, b"a", now);
        ask(&mut cache, b"b", 1, now);
        cache.begin_roll();
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        assert_eq!(cache.look_up(b"b", now), Found::Outdated);
        // Asked and answered while old workers and new ones serve side by side.
        store(&mut cache, b"a", now);
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        cache.end_roll();
        cache.end_request(b"b", ClientId(1), Some(b"B"), now);
        assert_eq!(cache.look_up(b"b", now), Found::Nothing);
        store(&mut cache, b"a", now);
        assert_eq!(text(cache.look_up(b"a", now)), Some(&b"A"[..]));
    }

    /// The leader and all waiters leave in one moment, in the order that would be the worst for a search.
    #[test]
    fn thousands_of_clients_that_leave_together_cost_each_the_logarithm_of_their_number() {
        const MANY: u64 = 50_000;
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 0, now);
        let places: Vec<_> = (1..=MANY).map(|client| follow(&mut cache, b"a", client, now)).collect();
        let before = comparisons();
        assert_eq!(cache.remove_leader(b"a", ClientId(0)), Departure::Shared);
        let left: Vec<_> = places
            .into_iter()
            .rev()
            .map(|place| cache.remove_waiter(place))
            .collect();
        assert_eq!(left.last(), Some(&Departure::UnwantedOrphan(ClientId(0))));
        assert!(cache.is_idle());
        let spent = comparisons() - before;
        assert!(spent < 100 * MANY, "{spent} comparisons for {MANY} that went");
    }

    #[test]
    fn the_bytes_of_a_request_are_kept_once_however_many_wait() {
        let (mut cache, now) = (cache(9), Instant::now());
        let request: Rc<[u8]> = vec![b'a'; 60_000].into();
        cache.add_leader(&request, ClientId(0));
        for client in 1..1000 {
            follow(&mut cache, &request, client, now);
        }
        // This variable, the key, and the request under way.
        assert_eq!(Rc::strong_count(&request), 3);
        assert!(size_of::<Place>() <= 16);
    }

    proptest! {
        /// The size holds, and an answer belongs to its own request, for any sequence of stores and searches.
        #[test]
        fn the_size_holds_and_answers_belong_to_their_requests(
            steps in proptest::collection::vec((0u8..20, 0usize..300, 0u64..15), 1..200)
        ) {
            let (mut cache, mut now) = (Cache::new(Some(CacheLimits { size: 2000, ttl: TTL })), Instant::now());
            for (name, length, seconds) in steps {
                now += Duration::from_secs(seconds);
                let (request, answer) = ([name], vec![name; length]);
                match cache.look_up(&request, now) {
                    Found::Answer(found) => prop_assert!(found.iter().all(|byte| *byte == name)),
                    _ => {
                        cache.add_leader(&request.into(), ClientId(1));
                        cache.end_request(&request, ClientId(1), Some(&answer), now);
                    }
                }
                let (_, bytes) = cache.size();
                let real: usize = cache.entries.iter().map(|(key, entry)| cost(key, &entry.answer)).sum();
                prop_assert!(bytes <= 2000 && bytes == real);
            }
        }
    }
}
