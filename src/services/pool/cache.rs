//! Answers that are known already, and requests that are being asked already.
//!
//! A worker that is a pure function of its input need not be asked twice. The life of an answer: its request
//! [is asked](Cache::lead) → others that are identical [join it](Cache::follow) → [its answer](Cache::answered) goes to all
//! of them and is kept → it is [found](Cache::look_up) until its time is over, or it is the one found longest ago when room is
//! needed, or everything is [forgotten](Cache::forget_all): the operator wants it so, or a worker has failed its probe or
//! written what belongs to no request.
//!
//! What holds:
//! - Requests are identical when their bytes are. Only whole answers are kept, never refusals.
//! - Keys and answers together, with what their table needs, take no more than the size that was allowed.
//! - From a HUP until all workers are replaced nothing is kept: it might be an answer of before. An answer to what was
//!   asked before that is never kept, however late it comes.
//! - A request goes on as long as one of those waits that share it, even if the one who asked first has gone.
//!
//! What does not belong here: connections, workers, bytes on their way.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use lru::LruCache;

use super::core::ClientId;

/// What an entry costs beside its bytes: two boxes, three links, the time, and its share of the table.
const OVERHEAD: usize = 160;

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// In bytes, over all entries. ≥ 1.
    pub size: usize,
    /// From the answer on.
    pub ttl: Duration,
}

/// The cache of one pool.
#[derive(Debug)]
pub(super) struct Cache {
    limits: Option<CacheLimits>,
    entries: LruCache<Box<[u8]>, Entry>,
    bytes: usize,
    asked: HashMap<Box<[u8]>, Asked>,
    /// Counts what makes older answers worthless.
    epoch: u64,
    is_rolling: bool,
}

#[derive(Debug)]
struct Entry {
    answer: Box<[u8]>,
    until: Instant,
}

/// A request in the hands of the dispatcher.
#[derive(Debug)]
struct Asked {
    leader: ClientId,
    /// Those who wait for the same answer, in the order in which they came.
    followers: Vec<ClientId>,
    /// The leader has gone; its request goes on for the others.
    is_orphan: bool,
    epoch: u64,
}

/// What is known of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'c> {
    /// Its answer.
    Answer(&'c [u8]),
    /// It is being asked: who asks now may [follow](Cache::follow).
    Asked,
    /// Nothing: who asks now [leads](Cache::lead).
    Nothing,
    /// It is being asked, but since before a HUP: who asks now asks for himself alone.
    Outdated,
}

/// What becomes of the request of one who has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Departure {
    /// It goes on, for others.
    Shared,
    /// Nobody wants it any more.
    Unwanted,
    /// Nobody wants that request of another who has gone before.
    UnwantedOrphan(ClientId),
}

/// Who gets an answer or a refusal beside the one who asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shared {
    pub(super) followers: Vec<ClientId>,
    /// The one who asked has gone, so that one of the followers stands for him.
    pub(super) is_orphan: bool,
}

impl Cache {
    /// `None`: nothing is kept, and nothing shared.
    pub(super) fn new(limits: Option<CacheLimits>) -> Self {
        Cache {
            limits,
            entries: LruCache::unbounded(),
            bytes: 0,
            asked: HashMap::new(),
            epoch: 0,
            is_rolling: false,
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.limits.is_some()
    }

    /// Nobody waits for an answer that others may share.
    pub(super) fn asks_nothing(&self) -> bool {
        self.asked.is_empty()
    }

    /// Entries, and the bytes they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }

    pub(super) fn look_up(&mut self, request: &[u8], now: Instant) -> Found<'_> {
        if self.entries.peek(request).is_some_and(|entry| entry.until <= now) {
            self.remove(request);
        }
        if let Some(asked) = self.asked.get(request) {
            return if asked.epoch == self.epoch {
                Found::Asked
            } else {
                Found::Outdated
            };
        }
        match self.entries.get(request) {
            Some(entry) => Found::Answer(&entry.answer),
            None => Found::Nothing,
        }
    }

    /// This one asks, and others may join.
    pub(super) fn lead(&mut self, request: &[u8], leader: ClientId) {
        let asked = Asked {
            leader,
            followers: Vec::new(),
            is_orphan: false,
            epoch: self.epoch,
        };
        self.asked.insert(request.into(), asked);
    }

    /// This one waits for the answer to what is being asked.
    pub(super) fn follow(&mut self, request: &[u8], follower: ClientId) {
        if let Some(asked) = self.asked.get_mut(request) {
            asked.followers.push(follower);
        }
    }

    /// The request of `leader` has come to its end, with an answer or without; who else gets that.
    pub(super) fn answered(&mut self, request: &[u8], leader: ClientId, answer: Option<&[u8]>, now: Instant) -> Shared {
        if self.asked.get(request).is_none_or(|asked| asked.leader != leader) {
            return Shared::default();
        }
        let Some(asked) = self.asked.remove(request) else {
            return Shared::default();
        };
        if let Some(answer) = answer
            && asked.epoch == self.epoch
            && !self.is_rolling
        {
            self.keep(request, answer, now);
        }
        Shared {
            followers: asked.followers,
            is_orphan: asked.is_orphan,
        }
    }

    /// One who waited has gone.
    pub(super) fn leave(&mut self, request: &[u8], who: ClientId) -> Departure {
        let Some(asked) = self.asked.get_mut(request) else {
            return Departure::Unwanted;
        };
        if asked.leader == who {
            asked.is_orphan = !asked.followers.is_empty();
            if asked.is_orphan {
                return Departure::Shared;
            }
        } else {
            let before = asked.followers.len();
            asked.followers.retain(|follower| *follower != who);
            if asked.followers.len() == before {
                // He asked for himself alone, while others shared what had been asked before a HUP.
                return Departure::Unwanted;
            }
            if !(asked.is_orphan && asked.followers.is_empty()) {
                return Departure::Shared;
            }
        }
        let leader = asked.leader;
        self.asked.remove(request);
        if leader == who {
            Departure::Unwanted
        } else {
            Departure::UnwantedOrphan(leader)
        }
    }

    /// Everything that is known may be wrong from now on, until the workers [are replaced](Self::rolled).
    pub(super) fn roll(&mut self) {
        self.forget_all();
        self.is_rolling = true;
    }

    /// Who answers from now on knows what the operator has changed.
    pub(super) fn rolled(&mut self) {
        self.forget_all();
        self.is_rolling = false;
    }

    /// Other limits; what is kept under the old ones is forgotten.
    pub(super) fn limit(&mut self, limits: Option<CacheLimits>) {
        self.limits = limits;
        self.forget_all();
    }

    /// What is known may be wrong; so may be what is being asked now.
    pub(super) fn forget_all(&mut self) {
        self.epoch += 1;
        self.entries.clear();
        self.bytes = 0;
    }

    fn keep(&mut self, request: &[u8], answer: &[u8], now: Instant) {
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
            answer: answer.into(),
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
    use proptest::prelude::*;

    const TTL: Duration = Duration::from_secs(10);

    fn cache(entries: usize) -> Cache {
        Cache::new(Some(CacheLimits {
            size: entries * cost(b"a", b"A"),
            ttl: TTL,
        }))
    }

    fn ask(cache: &mut Cache, request: &[u8], who: u64, now: Instant) {
        assert_eq!(cache.look_up(request, now), Found::Nothing);
        cache.lead(request, ClientId(who));
    }

    fn store(cache: &mut Cache, request: &[u8], now: Instant) {
        ask(cache, request, 0, now);
        cache.answered(request, ClientId(0), Some(&request.to_ascii_uppercase()), now);
    }

    #[test]
    fn who_asks_for_himself_alone_leaves_alone() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        cache.roll();
        assert_eq!(cache.look_up(b"a", now), Found::Outdated);
        assert_eq!(cache.leave(b"a", ClientId(2)), Departure::Unwanted);
        cache.follow(b"a", ClientId(3));
        assert_eq!(cache.leave(b"a", ClientId(2)), Departure::Unwanted);
        assert_eq!(cache.leave(b"a", ClientId(1)), Departure::Shared);
        assert_eq!(cache.leave(b"a", ClientId(3)), Departure::UnwantedOrphan(ClientId(1)));
    }

    #[test]
    fn an_answer_is_found_until_its_time_is_over() {
        let (mut cache, now) = (cache(9), Instant::now());
        store(&mut cache, b"a", now);
        assert_eq!(
            cache.look_up(b"a", now + TTL - Duration::from_nanos(1)),
            Found::Answer(b"A")
        );
        assert_eq!(cache.look_up(b"A", now), Found::Nothing);
        assert_eq!(cache.look_up(b"a", now + TTL), Found::Nothing);
        assert_eq!(cache.size(), (0, 0));
    }

    #[test]
    fn the_one_that_was_not_found_for_longest_makes_room() {
        let (mut cache, now) = (cache(2), Instant::now());
        store(&mut cache, b"a", now);
        store(&mut cache, b"b", now);
        assert_eq!(cache.look_up(b"a", now), Found::Answer(b"A"));
        store(&mut cache, b"c", now);
        assert_eq!(cache.look_up(b"b", now), Found::Nothing);
        assert_eq!(cache.look_up(b"a", now), Found::Answer(b"A"));
        ask(&mut cache, b"d", 1, now);
        cache.answered(b"d", ClientId(1), Some(&[7; 1000]), now);
        assert_eq!(cache.size().0, 2, "what is larger than all of it moves nobody");
    }

    #[test]
    fn identical_requests_share_one_answer() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        for follower in [2, 3, 4] {
            assert_eq!(cache.look_up(b"a", now), Found::Asked);
            cache.follow(b"a", ClientId(follower));
        }
        assert_eq!(cache.leave(b"a", ClientId(3)), Departure::Shared);
        let shared = cache.answered(b"a", ClientId(1), Some(b"A"), now);
        assert_eq!(
            (shared.followers, shared.is_orphan),
            (vec![ClientId(2), ClientId(4)], false)
        );
        assert_eq!(cache.look_up(b"a", now), Found::Answer(b"A"));
    }

    #[test]
    fn a_refusal_is_shared_but_not_kept() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        cache.follow(b"a", ClientId(2));
        assert_eq!(cache.answered(b"a", ClientId(1), None, now).followers, [ClientId(2)]);
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
    }

    #[test]
    fn a_request_goes_on_as_long_as_somebody_waits() {
        let (mut cache, now) = (cache(9), Instant::now());
        ask(&mut cache, b"a", 1, now);
        cache.follow(b"a", ClientId(2));
        assert_eq!(cache.leave(b"a", ClientId(1)), Departure::Shared);
        assert_eq!(cache.look_up(b"a", now), Found::Asked);
        cache.follow(b"a", ClientId(3));
        assert_eq!(cache.leave(b"a", ClientId(2)), Departure::Shared);
        assert_eq!(cache.leave(b"a", ClientId(3)), Departure::UnwantedOrphan(ClientId(1)));
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        ask(&mut cache, b"a", 4, now);
        assert_eq!(cache.leave(b"a", ClientId(4)), Departure::Unwanted);
    }

    #[test]
    fn nothing_of_before_a_roll_is_kept_or_shared_after_it() {
        let (mut cache, now) = (cache(9), Instant::now());
        store(&mut cache, b"a", now);
        ask(&mut cache, b"b", 1, now);
        cache.roll();
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        assert_eq!(cache.look_up(b"b", now), Found::Outdated);
        // Asked and answered while old workers and new ones serve side by side.
        store(&mut cache, b"a", now);
        assert_eq!(cache.look_up(b"a", now), Found::Nothing);
        cache.rolled();
        cache.answered(b"b", ClientId(1), Some(b"B"), now);
        assert_eq!(cache.look_up(b"b", now), Found::Nothing);
        store(&mut cache, b"a", now);
        assert_eq!(cache.look_up(b"a", now), Found::Answer(b"A"));
    }

    proptest! {
        /// Whatever is stored and looked up: the size holds, and what is found is the answer to that very request.
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
                        cache.lead(&request, ClientId(1));
                        cache.answered(&request, ClientId(1), Some(&answer), now);
                    }
                }
                let (_, bytes) = cache.size();
                let real: usize = cache.entries.iter().map(|(key, entry)| cost(key, &entry.answer)).sum();
                prop_assert!(bytes <= 2000 && bytes == real);
            }
        }
    }
}
