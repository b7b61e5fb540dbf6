//! The file of the last good table, as the thread that follows the store keeps it: read once, and written after changes,
//! but not with each of them.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use crate::store::cache;
use crate::store::reading::Listing;

/// The shortest time between two writes.
const BETWEEN_WRITES: Duration = Duration::from_secs(10);

/// The file, if there is to be one.
#[derive(Debug)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    /// True if the table that is believed is another one than that of the file.
    pub(super) is_old: bool,
    written: Option<Instant>,
    /// True if the log knows that the file cannot be written.
    is_told: bool,
}

/// The table of a former run.
#[derive(Debug, Default)]
pub(super) struct Former {
    /// Its entries, if there are any.
    pub(super) listing: Option<Listing>,
    /// A line for the log about the file.
    pub(super) fault: Option<String>,
}

impl Kept {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Kept {
            path,
            is_old: false,
            written: None,
            is_told: false,
        }
    }

    /// Keeps the table in this file from now on.
    pub(super) fn move_to(&mut self, path: Option<PathBuf>) {
        if path != self.path {
            *self = Kept {
                is_old: true,
                ..Kept::new(path)
            };
        }
    }

    /// Reads the table of a former run.
    pub(super) fn read(&self) -> Former {
        let Some(path) = &self.path else {
            return Former::default();
        };
        let (listing, fault) = match cache::read(path) {
            Ok(None) => (None, None),
            Ok(Some(cached)) => (Some(cached.entries.into()), cached.fault),
            Err(fault) => (None, Some(fault)),
        };
        Former {
            listing: listing.filter(|listing: &Listing| !listing.is_empty()),
            fault: fault.map(|fault| format!("table-cache: {}: {fault}", path.display())),
        }
    }

    /// Returns the time at which the file was written, if it is known.
    pub(super) fn modified(&self) -> Option<Instant> {
        let file = std::fs::metadata(self.path.as_ref()?);
        let modified = file.and_then(|file| file.modified()).ok()?;
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        Instant::now().checked_sub(age)
    }

    /// Writes the table that is believed, unless the file has it or was written a moment ago. Returns a line for the
    /// log.
    pub(super) fn write(&mut self, good: &Listing, now: Instant) -> Option<String> {
        let path = self.path.as_ref().filter(|_| self.is_old)?;
        if self.written.is_some_and(|written| now < written + BETWEEN_WRITES) {
            return None;
        }
        let result = cache::write(path, good);
        self.written = Some(now);
        self.is_old = result.is_err();
        match result {
            Ok(()) => self.is_told = false,
            // Another process, which takes over from this one or from which this one does, is writing it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if !self.is_told => {
                self.is_told = true;
                return Some(format!("table-cache: {} cannot be written: {error}", path.display()));
            }
            Err(_) => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::entry::Entry;

    fn listing(names: &[&str]) -> Listing {
        let entry = |name: &&str| Entry::read(name.as_bytes(), br#"{"addr":"10.0.0.5:443"}"#).unwrap();
        names.iter().map(entry).collect()
    }

    #[test]
    fn a_table_is_written_at_once_and_the_next_one_a_while_later() {
        let home = tempfile::tempdir().unwrap();
        let mut kept = Kept::new(Some(home.path().join("table")));
        let (one, two, now) = (listing(&["a"]), listing(&["a", "b"]), Instant::now());
        assert!(kept.read().listing.is_none() && kept.modified().is_none());
        kept.is_old = true;
        assert_eq!(kept.write(&one, now), None);
        assert_eq!(kept.read().listing, Some(one.clone()));
        assert!(kept.modified().is_some());
        kept.is_old = true;
        assert_eq!(kept.write(&two, now + BETWEEN_WRITES / 2), None);
        assert_eq!(kept.read().listing, Some(one), "it is too early");
        assert_eq!(kept.write(&two, now + BETWEEN_WRITES), None);
        assert_eq!(kept.read().listing, Some(two));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_of_once_and_tried_again() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("folder");
        let mut kept = Kept::new(Some(folder.join("table")));
        let (table, now) = (listing(&["a"]), Instant::now());
        kept.is_old = true;
        let told = kept.write(&table, now).unwrap();
        assert!(told.contains("cannot be written: "), "{told}");
        assert_eq!(kept.write(&table, now + BETWEEN_WRITES), None);
        std::fs::create_dir(&folder).unwrap();
        assert_eq!(kept.write(&table, now + BETWEEN_WRITES * 2), None);
        assert_eq!(kept.read().listing, Some(table));
    }

    #[test]
    fn another_file_is_written_as_soon_as_it_is_named() {
        let home = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| Some(home.path().join(name)));
        let mut kept = Kept::new(first.clone());
        let (table, now) = (listing(&["a"]), Instant::now());
        kept.is_old = true;
        assert_eq!(kept.write(&table, now), None);
        kept.move_to(first);
        assert!(!kept.is_old);
        kept.move_to(second);
        assert_eq!(kept.write(&table, now), None);
        assert_eq!(kept.read().listing, Some(table));
    }
}
