//! The places of a pool: which worker serves in each, which one is to take over, and what a lost worker leaves behind.
//!
//! The life of a place: [`Places::open`] with a first worker → workers that are lost in it are followed by others
//! ([`Places::vacate`]), workers that are to be replaced by successors, one place after the other ([`rotation`]) →
//! [`Places::close`].
//!
//! A place keeps its number for as long as it is there: logs and dumps name workers by it. Where a place in the middle
//! goes, its number is vacant until another place is opened.
//!
//! Every place has one worker that serves or will serve in it, and at most one successor; in the whole pool there
//! is at most one successor because of a rotation.
//!
//! The workers themselves do not belong here, nor the number of places that is wanted.

mod respawn;
mod rotation;

use std::time::Duration;

pub(super) use respawn::{EARLY, Loss};

use super::event::{Restart, WorkerId};
use super::workers::Place;
use rotation::{Rotation, Turn};

/// The places of a pool and the order in which their workers are replaced.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// By number; the last one is never vacant.
    slots: Vec<Option<Slot>>,
    len: usize,
    rotation: Rotation,
}

/// A place in which one worker serves at a time.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) serving: WorkerId,
    pub(super) successor: Option<WorkerId>,
    /// Deaths in a row of workers that had just been started and answered nothing.
    pub(super) early_deaths: u32,
    /// A worker of this place has been trusted once, or has failed: it is not waited for any more.
    pub(super) is_settled: bool,
}

/// The fate of a lost worker's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vacancy {
    /// The worker had no place.
    NoPlace,
    /// The worker's successor is on its way already, and need not wait for it any more.
    Taken { slot: usize, by: WorkerId },
    /// A new worker is to be started in the place after a delay, and given to [`Places::fill`].
    Empty { delay: Duration },
}

impl Places {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, number: usize) -> Option<&Slot> {
        self.slots.get(number)?.as_ref()
    }

    fn get_mut(&mut self, number: usize) -> Option<&mut Slot> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// All places with their numbers, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    // ---- how many there are -----------------------------------------------------------------------------------

    /// The number that the next place will have: the lowest that is vacant.
    pub(super) fn vacancy(&self) -> usize {
        self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len())
    }

    /// The highest number there is.
    pub(super) fn last(&self) -> Option<usize> {
        self.slots.len().checked_sub(1)
    }

    /// Opens a place at the [`vacancy`](Self::vacancy), in which this worker will serve.
    pub(super) fn open(&mut self, serving: WorkerId, early_deaths: u32) {
        let slot = Some(Slot {
            serving,
            successor: None,
            early_deaths,
            is_settled: false,
        });
        match self.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(vacant) => *vacant = slot,
            None => self.slots.push(slot),
        }
        self.len += 1;
    }

    /// Closes a place. Returns it, with the workers that lose it.
    pub(super) fn close(&mut self, number: usize) -> Option<Slot> {
        let closed = self.slots.get_mut(number)?.take()?;
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        self.len -= 1;
        Some(closed)
    }

    /// Closes all places; no worker is replaced any more.
    pub(super) fn close_all(&mut self) {
        *self = Places::default();
    }

    // ---- lost workers -----------------------------------------------------------------------------------------

    /// Decides about the place of a lost worker. `base` is the shortest respawn delay.
    pub(super) fn vacate(&mut self, place: Place, lost: WorkerId, loss: Loss, base: Duration) -> Vacancy {
        let (Place::Serving(number) | Place::Successor(number)) = place else {
            return Vacancy::NoPlace;
        };
        let Some(slot) = self.get_mut(number) else {
            return Vacancy::Empty { delay: Duration::ZERO };
        };
        slot.early_deaths = loss.count(slot.early_deaths);
        let successor = slot.successor.filter(|successor| *successor != lost);
        if let (Place::Serving(slot), Some(by)) = (place, successor) {
            self.promote(slot, by);
            return Vacancy::Taken { slot, by };
        }
        let delay = respawn::delay(slot.early_deaths, base);
        Vacancy::Empty { delay }
    }

    /// Puts a new worker into the place that a lost one has left, or that one is to take over.
    pub(super) fn fill(&mut self, place: Place, worker: WorkerId) {
        let (Place::Serving(number) | Place::Successor(number)) = place else {
            return;
        };
        let Some(slot) = self.get_mut(number) else { return };
        match place {
            Place::Serving(_) => slot.serving = worker,
            Place::Successor(_) | Place::Outgoing => slot.successor = Some(worker),
        }
    }

    fn promote(&mut self, number: usize, successor: WorkerId) {
        if let Some(slot) = self.get_mut(number) {
            (slot.serving, slot.successor) = (successor, None);
        }
    }

    /// The worker that serves in a place has answered. While a successor is on its way the count of early deaths is of
    /// those before it, which this one's work does not excuse.
    pub(super) fn excuse_deaths(&mut self, number: usize) {
        if let Some(slot) = self.get_mut(number).filter(|slot| slot.successor.is_none()) {
            slot.early_deaths = 0;
        }
    }

    pub(super) fn early_deaths(&self, number: usize) -> u32 {
        self.get(number).map_or(0, |slot| slot.early_deaths)
    }

    /// Notes that what becomes of a place is known: a worker is trusted there, or has failed.
    pub(super) fn settle(&mut self, number: usize) {
        if let Some(slot) = self.get_mut(number) {
            slot.is_settled = true;
        }
    }

    pub(super) fn all_settled(&self) -> bool {
        self.iter().all(|(_, slot)| slot.is_settled)
    }

    // ---- replacing in good order ------------------------------------------------------------------------------

    /// A successor serves in its place from now on. Returns the worker that it replaces, and why.
    pub(super) fn take_over(&mut self, number: usize, successor: WorkerId) -> Option<(WorkerId, Restart)> {
        let slot = self.get_mut(number)?;
        let predecessor = slot.serving;
        slot.early_deaths = 0;
        self.promote(number, successor);
        Some((predecessor, self.rotation.current_reason()))
    }

    /// Has all workers replaced that serve or will serve. Returns the successors on their way, which have lost their
    /// places.
    pub(super) fn begin_roll(&mut self) -> Vec<WorkerId> {
        let successors = self
            .slots
            .iter_mut()
            .flatten()
            .filter_map(|slot| slot.successor.take())
            .collect();
        self.slots.iter_mut().flatten().for_each(|slot| slot.early_deaths = 0);
        let turns = self
            .iter()
            .map(|(slot, place)| Turn::new(slot, place.serving, Restart::Asked));
        self.rotation = Rotation::roll(turns.collect());
        successors
    }

    /// Has a worker replaced that has served long enough, or grown too large, when its turn comes. Returns false if it
    /// has a turn already.
    pub(super) fn recycle(&mut self, number: usize, worker: WorkerId) -> bool {
        self.rotation.add(Turn::new(number, worker, Restart::Recycled))
    }

    /// Returns true if a successor is on its way: no other turn begins before it has taken over.
    pub(super) fn has_successor(&self) -> bool {
        self.iter().any(|(_, slot)| slot.successor.is_some())
    }

    /// The next worker to be replaced, with its place; `None` when there is none. A successor for it must be given to
    /// [`fill`](Self::fill); without one it is passed over by the next call.
    pub(super) fn next_turn(&mut self) -> Option<(usize, WorkerId)> {
        loop {
            let turn = self.rotation.next()?;
            if self.get(turn.slot).map(|slot| slot.serving) == Some(turn.worker) {
                return Some((turn.slot, turn.worker));
            }
        }
    }

    /// Ends a roll whose last worker is replaced. Returns true if there was one.
    pub(super) fn end_roll(&mut self) -> bool {
        self.rotation.end_roll()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(number: u32) -> Places {
        let mut places = Places::default();
        (0..number).for_each(|index| open(&mut places, index));
        places
    }

    fn open(places: &mut Places, index: u32) {
        places.open(WorkerId { index, incarnation: 0 }, 0);
    }

    fn numbers(places: &Places) -> Vec<(usize, u32)> {
        places
            .iter()
            .map(|(number, slot)| (number, slot.serving.index))
            .collect()
    }

    #[test]
    fn a_place_keeps_its_number_and_the_lowest_vacant_one_is_taken_first() {
        let mut places = opened(4);
        assert_eq!(places.close(1).map(|slot| slot.serving.index), Some(1));
        assert_eq!(places.close(2).map(|slot| slot.serving.index), Some(2));
        assert_eq!((numbers(&places), places.len()), (vec![(0, 0), (3, 3)], 2));
        assert_eq!(places.vacancy(), 1);
        open(&mut places, 9);
        assert_eq!(numbers(&places), [(0, 0), (1, 9), (3, 3)]);
        assert!(places.get(2).is_none() && places.close(2).is_none());
    }

    #[test]
    fn the_last_number_is_never_vacant() {
        let mut places = opened(3);
        places.close(1);
        places.close(2);
        assert_eq!((places.last(), places.vacancy(), places.len()), (Some(0), 1, 1));
        places.close(0);
        assert_eq!((places.last(), places.vacancy(), places.len()), (None, 0, 0));
    }
}
