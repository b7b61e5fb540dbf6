//! Gives clients turns to have a program looked up. A file system may never answer, and then the thread that asked it
//! is lost.
//!
//! ```text
//! asked ─▸ waiting ─a thread is free─▸ under way ─answered─▸ over
//!    │        │                           └─its time is up─▸ stuck ─answered after all─▸ over
//!    └────────┴── refused: a similar look-up is stuck
//! ```
//!
//! Invariants: there are at most [`MOST`] look-ups under way, and at most [`EACH`] of one peer, stuck ones included, so
//! that a client that names programs on a dead file system harms itself alone; no further look-up is made in a
//! directory where one is stuck. Peers take turns. No cost grows with the number of look-ups that wait, but for that of
//! a waiting one whose client goes.

use std::collections::{BTreeMap, VecDeque};

/// The most look-ups under way, stuck ones included.
pub const MOST: usize = 32;
/// The most look-ups of one peer under way, stuck ones included.
pub const EACH: usize = 4;

/// The peer that a look-up is counted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// A user of this machine.
    User(u32),
    /// The clients whose addresses have these bits.
    Network(u128),
    /// A peer that is not known.
    Unknown,
}

/// The number of one look-up. Numbers are never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

/// The answer to a request for a look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// The look-up is made, now or when it is its turn.
    Under(Id),
    /// The look-up is not made: one in its directory is stuck, or the most of its peer, or of all.
    Refused,
}

#[derive(Debug)]
struct Question<T> {
    id: Id,
    peer: Peer,
    place: Vec<u8>,
    what: T,
}

#[derive(Debug)]
struct UnderWay {
    peer: Peer,
    place: Vec<u8>,
    stuck: bool,
}

/// All look-ups of a door. A thread is given a `T`.
#[derive(Debug)]
pub struct Lookups<T> {
    next: u64,
    under_way: BTreeMap<Id, UnderWay>,
    /// The number of look-ups that each peer has under way, and the number of stuck ones.
    peers: BTreeMap<Peer, (usize, usize)>,
    /// The number of stuck look-ups in each directory.
    stuck: BTreeMap<Vec<u8>, usize>,
    waiting: BTreeMap<Peer, VecDeque<Question<T>>>,
    /// The peers of waiting look-ups, each once.
    turns: VecDeque<Peer>,
}

impl<T> Default for Lookups<T> {
    fn default() -> Self {
        Lookups {
            next: 0,
            under_way: BTreeMap::new(),
            peers: BTreeMap::new(),
            stuck: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T> Lookups<T> {
    /// Asks for a name to be looked up.
    pub fn ask(&mut self, peer: Peer, name: &[u8], what: T) -> Asked {
        let place = place_of(name).to_vec();
        let (_, stuck) = self.peers.get(&peer).copied().unwrap_or_default();
        let all_stuck: usize = self.stuck.values().sum();
        if self.stuck.contains_key(&place) || stuck >= EACH || all_stuck >= MOST {
            return Asked::Refused;
        }
        let id = Id(self.next);
        self.next += 1;
        let waiting = self.waiting.entry(peer).or_default();
        if waiting.is_empty() {
            self.turns.push_back(peer);
        }
        waiting.push_back(Question { id, peer, place, what });
        Asked::Under(id)
    }

    /// Takes the next look-up for a free thread.
    pub fn give_out(&mut self) -> Option<(Id, T)> {
        if self.under_way.len() >= MOST {
            return None;
        }
        for _ in 0..self.turns.len() {
            let peer = self.turns.pop_front()?;
            let (under_way, _) = self.peers.get(&peer).copied().unwrap_or_default();
            if under_way >= EACH {
                self.turns.push_back(peer);
                continue;
            }
            let Some(waiting) = self.waiting.get_mut(&peer) else {
                continue;
            };
            let question = waiting.pop_front();
            if waiting.is_empty() {
                self.waiting.remove(&peer);
            } else {
                self.turns.push_back(peer);
            }
            let Question { id, peer, place, what } = question?;
            self.peers.entry(peer).or_default().0 += 1;
            let stuck = false;
            self.under_way.insert(id, UnderWay { peer, place, stuck });
            return Some((id, what));
        }
        None
    }

    /// Marks a look-up as stuck, or takes it out of the queue, because its time is up.
    pub fn give_up(&mut self, peer: Peer, id: Id) {
        if let Some(under_way) = self.under_way.get_mut(&id).filter(|it| !it.stuck) {
            under_way.stuck = true;
            self.peers.entry(peer).or_default().1 += 1;
            *self.stuck.entry(under_way.place.clone()).or_default() += 1;
        } else if let Some(waiting) = self.waiting.get_mut(&peer) {
            waiting.retain(|question| question.id != id);
            if waiting.is_empty() {
                self.waiting.remove(&peer);
                self.turns.retain(|other| *other != peer);
            }
        }
    }

    /// Withdraws the look-up of a client that is gone. A waiting one is not made; one that is under way is still
    /// counted for its peer until it is answered.
    pub fn withdraw(&mut self, peer: Peer, id: Id) {
        if !self.under_way.contains_key(&id) {
            self.give_up(peer, id);
        }
    }

    /// Ends a look-up whose thread has an answer, also one that was given up.
    pub fn answered(&mut self, id: Id) {
        let Some(UnderWay { peer, place, stuck }) = self.under_way.remove(&id) else {
            return;
        };
        if let Some((under_way, its_stuck)) = self.peers.get_mut(&peer) {
            *under_way -= 1;
            *its_stuck -= usize::from(stuck);
            if *under_way == 0 {
                self.peers.remove(&peer);
            }
        }
        if let Some(count) = self.stuck.get_mut(&place).filter(|_| stuck) {
            *count -= 1;
            if *count == 0 {
                self.stuck.remove(&place);
            }
        }
    }
}

/// The directory of a name, as it was written. A name that is searched for in PATH stands for itself.
fn place_of(name: &[u8]) -> &[u8] {
    let slash = name.iter().rposition(|byte| *byte == b'/');
    slash.and_then(|slash| name.get(..slash)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const EVE: Peer = Peer::User(666);
    const BOB: Peer = Peer::User(7);

    fn under(asked: Asked) -> Id {
        match asked {
            Asked::Under(id) => id,
            Asked::Refused => panic!("refused"),
        }
    }

    #[test]
    fn a_peer_that_names_programs_on_a_dead_file_system_harms_itself_alone() {
        let mut lookups = Lookups::default();
        let asked: Vec<Id> = (0..100)
            .map(|n| under(lookups.ask(EVE, format!("/hang/{n}/x").as_bytes(), ())))
            .collect();
        let bobs = under(lookups.ask(BOB, b"ls", ()));
        let mut given = Vec::new();
        while let Some((id, ())) = lookups.give_out() {
            given.push(id);
        }
        assert_eq!(given, [asked[0], bobs, asked[1], asked[2], asked[3]]);
        lookups.answered(bobs);
        for id in asked {
            lookups.give_up(EVE, id);
        }
        assert_eq!(lookups.give_out(), None);
        assert_eq!(lookups.ask(EVE, b"ls", ()), Asked::Refused, "four are stuck");
        assert_eq!(lookups.ask(BOB, b"/hang/2/y", ()), Asked::Refused, "it is known there");
        let bobs = under(lookups.ask(BOB, b"/hang/9/y", ()));
        assert_eq!(lookups.give_out(), Some((bobs, ())));
        lookups.answered(given[0]);
        assert!(
            matches!(lookups.ask(EVE, b"/hang/0/y", ()), Asked::Under(_)),
            "it has answered"
        );
    }

    proptest! {
        /// Whatever happens in whatever order: the bounds hold, the counts agree, and a look-up that waits gets a
        /// thread as soon as one is free for its peer.
        #[test]
        fn the_bounds_hold(deeds in vec((0..4_u8, 0..12_u32, 0..6_u8, any::<prop::sample::Index>()), 0..300)) {
            let mut lookups = Lookups::default();
            let mut open: Vec<(Peer, Id)> = Vec::new();
            let mut given: Vec<Id> = Vec::new();
            for (deed, user, place, which) in deeds {
                match deed {
                    0 | 1 => {
                        let peer = Peer::User(user);
                        if let Asked::Under(id) = lookups.ask(peer, format!("/{place}/x").as_bytes(), ()) {
                            open.push((peer, id));
                        }
                    }
                    2 if !open.is_empty() => {
                        let (peer, id) = open.remove(which.index(open.len()));
                        lookups.give_up(peer, id);
                    }
                    3 if !given.is_empty() => {
                        let id = given.remove(which.index(given.len()));
                        open.retain(|(_, other)| *other != id);
                        lookups.answered(id);
                    }
                    _ => {}
                }
                while let Some((id, ())) = lookups.give_out() {
                    given.push(id);
                }
                prop_assert_eq!(given.len(), lookups.under_way.len());
                prop_assert!(given.len() <= MOST);
                prop_assert!(lookups.peers.values().all(|(all, stuck)| *all <= EACH && stuck <= all));
                let stuck = lookups.under_way.values().filter(|it| it.stuck).count();
                prop_assert_eq!(stuck, lookups.stuck.values().sum::<usize>());
                prop_assert_eq!(stuck, lookups.peers.values().map(|(_, stuck)| stuck).sum::<usize>());
                for peer in lookups.waiting.keys() {
                    let full = lookups.peers.get(peer).is_some_and(|(all, _)| *all == EACH);
                    prop_assert!(full || given.len() == MOST, "nobody waits for nothing");
                }
                prop_assert_eq!(lookups.turns.len(), lookups.waiting.len());
            }
            for id in given {
                lookups.answered(id);
                while lookups.give_out().is_some() {}
            }
        }
    }
}
