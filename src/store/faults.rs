//! The entries of a store that cannot be used, and which of them the log has not been told of yet.

use std::collections::BTreeMap;
use std::fmt::Display;

/// The largest number of lines about the faults of one reading.
const MOST_LINES: usize = 4;

/// The faults by the names of their entries, each in words that follow the name.
#[derive(Debug)]
pub struct Faults<K> {
    by_entry: BTreeMap<K, String>,
}

impl<K> Default for Faults<K> {
    fn default() -> Self {
        Faults {
            by_entry: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Display> Faults<K> {
    /// Takes note of an entry that cannot be used.
    pub fn note(&mut self, entry: K, fault: impl Display) {
        self.by_entry.insert(entry, fault.to_string());
    }

    /// Takes note of an entry that can be used, or is no longer there.
    pub fn forget(&mut self, entry: &K) {
        self.by_entry.remove(entry);
    }

    /// Adds the faults of `newer`, which go before those of the same entries.
    pub fn add(&mut self, newer: Faults<K>) {
        self.by_entry.extend(newer.by_entry);
    }

    /// Returns the number of entries that cannot be used.
    pub fn len(&self) -> usize {
        self.by_entry.len()
    }

    /// Returns a line for each fault that was not there `before`, and of many only the first and their number.
    pub fn lines(&self, before: &Faults<K>) -> Vec<String> {
        let is_new = |entry: &&(&K, &String)| before.by_entry.get(entry.0) != Some(entry.1);
        let new = || self.by_entry.iter().filter(|entry| is_new(&entry));
        let mut lines: Vec<String> = new()
            .take(MOST_LINES)
            .map(|(entry, fault)| format!("the entry {entry} of the store cannot be used: {fault}"))
            .collect();
        let others = new().skip(MOST_LINES).count();
        if others > 0 {
            lines.push(format!("{others} other entries of the store cannot be used either"));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(entries: &[(u32, &str)]) -> Faults<u32> {
        let mut faults = Faults::default();
        for (entry, fault) in entries {
            faults.note(*entry, fault);
        }
        faults
    }

    #[test]
    fn a_fault_is_told_once_and_again_when_it_is_another() {
        let first = faults(&[(1, "a"), (2, "b")]);
        assert_eq!(first.lines(&Faults::default()).len(), 2);
        let second = faults(&[(1, "a"), (2, "c"), (3, "d")]);
        let told = second.lines(&first);
        assert_eq!(
            told,
            [
                "the entry 2 of the store cannot be used: c",
                "the entry 3 of the store cannot be used: d"
            ]
        );
        assert!(second.lines(&second).is_empty());
    }

    #[test]
    fn of_many_faults_the_first_are_told_and_the_others_counted() {
        let mut many = Faults::default();
        for entry in 0..1_000 {
            many.note(entry, "bad");
        }
        let told = many.lines(&Faults::default());
        assert_eq!(told.len(), MOST_LINES + 1);
        assert_eq!(told[MOST_LINES], "996 other entries of the store cannot be used either");
    }

    #[test]
    fn an_entry_that_is_mended_is_told_of_when_it_breaks_again() {
        let mut all = faults(&[(1, "a"), (2, "b")]);
        all.forget(&1);
        assert_eq!(all.len(), 1);
        let newer = faults(&[(1, "a")]);
        assert_eq!(newer.lines(&all).len(), 1);
        all.add(newer);
        assert_eq!(all.len(), 2);
    }
}
