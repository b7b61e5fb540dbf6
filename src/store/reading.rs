//! All services that a store holds at one moment.
//!
//! One name may stand under several keys, in two spellings of the folder or in two cases, and in the older form the key
//! does not say the name at all. So a [`Reading`] is kept by key, as the store is, and follows it key by key. The
//! [`Listing`] that is made of it has one entry for each name: that of the first key in the [order of
//! keys](super::key::Key), so that it does not depend on the order in which the keys were read.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::entry::Entry;
use super::key::Key;

/// The largest number of keys in a reading.
pub const MOST: usize = 1_000_000;

/// The entries that count, one for each name, in the order of their names. Never changed, and shared by the thread that
/// follows the store, the keeper and the file.
pub type Listing = Arc<[Entry]>;

/// The entries by their keys.
#[derive(Debug, Default, Clone)]
pub struct Reading {
    entries: BTreeMap<Key, Entry>,
}

impl Reading {
    /// Puts an entry under its key, in the place of the one that was there. Returns false, and changes nothing, if the
    /// reading has [`MOST`] other keys already.
    #[must_use]
    pub fn put(&mut self, key: Key, entry: Entry) -> bool {
        let has_room = self.entries.len() < MOST || self.entries.contains_key(&key);
        if has_room {
            self.entries.insert(key, entry);
        }
        has_room
    }

    /// Removes a key that is no longer in the store, or whose value can no longer be read.
    pub fn remove(&mut self, key: &Key) {
        self.entries.remove(key);
    }

    /// Returns the entry under a key.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Returns the entries that count. Takes a time in proportion to the number of keys.
    pub fn listing(&self) -> Listing {
        let mut by_name: BTreeMap<String, &Entry> = BTreeMap::new();
        for entry in self.entries.values() {
            by_name.entry(folded(&entry.name)).or_insert(entry);
        }
        by_name.into_values().cloned().collect()
    }
}

/// Returns the name in the form in which two names of one service are equal.
fn folded(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Returns true if both listings have the same names.
pub fn have_the_same_names(one: &Listing, other: &Listing) -> bool {
    let names = |listing: &Listing| -> Vec<String> { listing.iter().map(|entry| folded(&entry.name)).collect() };
    one.len() == other.len() && names(one) == names(other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::entry::Target;

    fn key(text: &str) -> Key {
        Key::parse(text.as_bytes()).unwrap()
    }

    fn entry(name: &str, port: u16) -> Entry {
        let (host, tls_port) = ("10.0.0.5".into(), Some(port));
        Entry {
            name: name.into(),
            target: Target::Server {
                host,
                tls_port,
                http_port: None,
            },
        }
    }

    fn names(reading: &Reading) -> Vec<String> {
        reading.listing().iter().map(|entry| entry.name.to_string()).collect()
    }

    #[test]
    fn one_entry_counts_for_a_name_under_several_keys() {
        let mut reading = Reading::default();
        let pairs = [
            ("//tcprouter/services/a.example", "a.example", 1),
            ("/tcprouter/service/A.example", "A.example", 2),
            ("/tcprouter/service/label", "b.example.", 3),
            ("tcprouter/service/b.example", "b.example", 4),
        ];
        for (at, name, port) in pairs {
            assert!(reading.put(key(at), entry(name, port)));
        }
        assert_eq!(*reading.listing(), [entry("A.example", 2), entry("b.example.", 3)]);
        reading.remove(&key("/tcprouter/service/A.example"));
        assert_eq!(reading.listing()[0], entry("a.example", 1), "the other key counts now");
        reading.remove(&key("/tcprouter/service/A.example"));
    }

    #[test]
    fn a_key_that_changes_its_name_takes_the_former_name_along() {
        let mut reading = Reading::default();
        assert!(reading.put(key("/tcprouter/service/x"), entry("a", 1)));
        assert!(reading.put(key("/tcprouter/service/x"), entry("b", 1)));
        assert_eq!(names(&reading), ["b"]);
    }

    proptest! {
        #[test]
        fn the_order_of_reading_does_not_count(
            pairs in proptest::collection::btree_map("/{0,2}tcprouter/services?/[a-cA-C]", ("[a-cA-C]\\.?", 1..9_u16), 0..12),
            turn in any::<usize>(),
        ) {
            let pairs: Vec<(Key, Entry)> = pairs.iter().map(|(at, (name, port))| (key(at), entry(name, *port))).collect();
            let mut turned = pairs.clone();
            turned.rotate_left(turn % pairs.len().max(1));
            let mut readings = [Reading::default(), Reading::default()];
            for (reading, pairs) in readings.iter_mut().zip([pairs, turned]) {
                for (key, entry) in pairs {
                    prop_assert!(reading.put(key, entry));
                }
            }
            let [one, other] = readings.map(|reading| reading.listing());
            prop_assert_eq!(&one, &other);
            let mut folded: Vec<String> = one.iter().map(|entry| super::folded(&entry.name)).collect();
            folded.dedup();
            prop_assert_eq!(folded.len(), one.len(), "each name once");
            prop_assert!(have_the_same_names(&one, &other));
        }
    }
}
