//! The places of a pool, by number.
//!
//! A place keeps its number for as long as it is there: logs and dumps name workers by it. Where a place in the middle
//! goes, its number is vacant until another place is opened, which takes the lowest.

use super::Slot;

#[derive(Debug, Default)]
pub(super) struct Slots {
    /// The last one is never vacant.
    slots: Vec<Option<Slot>>,
    len: usize,
}

impl Slots {
    /// How many places there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn get(&self, number: usize) -> Option<&Slot> {
        self.slots.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Slot> {
        self.slots.get_mut(number)?.as_mut()
    }

    /// All places with their numbers, in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (usize, &Slot)> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.slots.iter_mut().flatten()
    }

    /// The number that the next place will have.
    pub(super) fn vacancy(&self) -> usize {
        self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len())
    }

    /// The highest number there is.
    pub(super) fn last(&self) -> Option<usize> {
        self.slots.len().checked_sub(1)
    }

    /// A new place at the [`vacancy`](Self::vacancy).
    pub(super) fn open(&mut self, slot: Slot) {
        match self.slots.iter_mut().find(|slot| slot.is_none()) {
            Some(vacant) => *vacant = Some(slot),
            None => self.slots.push(Some(slot)),
        }
        self.len += 1;
    }

    pub(super) fn close(&mut self, number: usize) -> Option<Slot> {
        let closed = self.slots.get_mut(number)?.take()?;
        while let Some(None) = self.slots.last() {
            self.slots.pop();
        }
        self.len -= 1;
        Some(closed)
    }

    pub(super) fn clear(&mut self) {
        *self = Slots::default();
    }
}

#[cfg(test)]
mod tests {
    use super::super::WorkerId;
    use super::*;

    fn slot(index: u32) -> Slot {
        Slot {
            serving: WorkerId { index, incarnation: 0 },
            successor: None,
            early_deaths: 0,
            is_settled: false,
        }
    }

    fn numbers(slots: &Slots) -> Vec<(usize, u32)> {
        slots
            .iter()
            .map(|(number, slot)| (number, slot.serving.index))
            .collect()
    }

    #[test]
    fn a_place_keeps_its_number_and_the_lowest_vacant_one_is_taken_first() {
        let mut slots = Slots::default();
        (0..4).for_each(|index| slots.open(slot(index)));
        assert_eq!(slots.close(1).map(|slot| slot.serving.index), Some(1));
        assert_eq!(slots.close(2).map(|slot| slot.serving.index), Some(2));
        assert_eq!((numbers(&slots), slots.len()), (vec![(0, 0), (3, 3)], 2));
        assert_eq!(slots.vacancy(), 1);
        slots.open(slot(9));
        assert_eq!(numbers(&slots), [(0, 0), (1, 9), (3, 3)]);
        assert!(slots.get(2).is_none() && slots.close(2).is_none());
    }

    #[test]
    fn the_last_number_is_never_vacant() {
        let mut slots = Slots::default();
        (0..3).for_each(|index| slots.open(slot(index)));
        slots.close(1);
        slots.close(2);
        assert_eq!((slots.last(), slots.vacancy(), slots.len()), (Some(0), 1, 1));
        slots.close(0);
        assert_eq!((slots.last(), slots.vacancy(), slots.len()), (None, 0, 0));
    }
}
