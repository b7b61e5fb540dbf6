//! A slab whose keys go stale: a key from before a removal never finds the next value in the same slot.

use super::token::{GENERATION_MASK, Key, SLOT_MASK};

/// Values by [`Key`]. A generation is reused after 2^22 insertions, which takes longer than any event stays in flight.
#[derive(Debug)]
pub struct GenerationalSlab<T> {
    entries: slab::Slab<(u32, T)>,
    next_generation: u32,
}

impl<T> Default for GenerationalSlab<T> {
    fn default() -> Self {
        GenerationalSlab {
            entries: slab::Slab::new(),
            next_generation: 1,
        }
    }
}

impl<T> GenerationalSlab<T> {
    /// Stores a value and returns its key, which is valid until [`remove`](Self::remove). Returns the value if all 2^22
    /// slots are taken.
    pub fn insert(&mut self, value: T) -> Result<Key, T> {
        let entry = self.entries.vacant_entry();
        let Some(slot) = u32::try_from(entry.key()).ok().filter(|slot| *slot <= SLOT_MASK) else {
            return Err(value);
        };
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1) & GENERATION_MASK;
        entry.insert((generation, value));
        Ok(Key { slot, generation })
    }

    /// Returns the value, if it is still the one that the key was made for.
    pub fn get(&self, key: Key) -> Option<&T> {
        let (generation, value) = self.entries.get(key.slot())?;
        (*generation == key.generation).then_some(value)
    }

    /// Returns the value, if it is still the one that the key was made for.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(key.slot())?;
        (*generation == key.generation).then_some(value)
    }

    /// Removes and returns the value. Its key and all copies of it are stale from then on.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        self.entries.try_remove(key.slot()).map(|(_, value)| value)
    }

    /// Returns the number of values.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns all values with their keys.
    #[expect(clippy::cast_possible_truncation, reason = "insert lets no slot past 22 bits in")]
    pub fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().map(|(slot, (generation, value))| {
            (
                Key {
                    slot: slot as u32,
                    generation: *generation,
                },
                value,
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_never_finds_the_successor_in_its_slot() {
        let mut slab = GenerationalSlab::default();
        let first = slab.insert("first").unwrap();
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second").unwrap();
        assert_eq!(first.slot(), second.slot());
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&"second"));
    }
}
