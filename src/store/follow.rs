//! The thread that follows a store: it reads all entries and then their changes, and sends the loop a table of what it
//! believes.
//!
//! The life of a table: an [ear](super::ear) listens to the changes first, then all keys are read. The
//! [keeper](super::keeper) decides if the listing of what was read is believed; if it is, and if it differs from the last
//! one, a table is made of it here, and comes to the loop by mail. A table that the loop has replaced comes back to be
//! dropped here: to build and to drop a hundred thousand entries takes longer than the loop may stand still. The believed
//! listing is written to the file of the last good table, but not with each change (`kept`).
//!
//! Invariants:
//!
//! * Changes are listened to before the first key is read, so none is missed. A key that has changed is read again; a
//!   notification says only its name.
//! * Any error ends both connections. Both are made again after a delay that grows, and then everything is read. Until
//!   then the last table stays.
//! * Every wait has an end; the thread looks for what the loop says after each of them. No thread is waited for.
//! * What was heard and not looked at yet has a bound: over it everything is read again.

mod kept;
mod thread;

use std::io;
use std::sync::mpsc;
use std::thread::Builder;
use std::time::Instant;

use nix::sys::signal::SigSet;

use self::thread::Thread;
use super::ear::Heard;
use super::faults::Faults;
use super::keeper::Verdict;
use super::place::Settings;
use super::reading::Listing;
use crate::reactor::Context;
use crate::reactor::helper::Mailbox;

/// The largest number of news that wait for the loop. With more the thread waits.
const MOST_NEWS: usize = 64;

/// The maker of tables.
pub type Make<T> = Box<dyn Fn(&Listing) -> Made<T> + Send>;

/// A table, and what is to be said about it.
#[derive(Debug)]
pub struct Made<T> {
    /// The table.
    pub table: T,
    /// The entries that are not in it, by their names.
    pub faults: Faults<Box<str>>,
}

/// A report of the thread.
#[derive(Debug)]
pub enum News<T> {
    /// The table of a former run, from the file.
    Cached {
        /// The table.
        table: T,
        /// The time at which it was written, as far as it is known.
        written: Option<Instant>,
    },
    /// The store is connected; its entries will follow.
    Connected,
    /// The store is not reached, or is lost, for this reason.
    Failed(String),
    /// The store was read.
    Read(Report<T>),
    /// The table of the listing that is believed, by other rules.
    Remade(T),
    /// A line for the log about the store.
    Remark(String),
    /// A line for the log about an entry that cannot be used.
    Fault(String),
}

/// The outcome of a reading.
#[derive(Debug)]
pub struct Report<T> {
    /// The time at which it began.
    pub begun: Instant,
    /// The number of names.
    pub names: usize,
    /// The number of entries that cannot be used.
    pub bad: usize,
    /// The decision about the listing.
    pub verdict: Verdict,
    /// The table of it; `None` if it is not believed, or the same as before.
    pub table: Option<T>,
}

/// A word to the thread.
#[derive(Debug)]
pub(super) enum Word<T> {
    /// The thread must end.
    Stop,
    /// Other settings are in force.
    Change(Box<Settings>, Orders<T>),
    /// A table is to be dropped.
    Discard(T),
    /// The ear of this number has heard something.
    Heard(u64, Heard),
}

/// [`Make`], which cannot be shown.
pub(super) struct Orders<T>(Make<T>);

impl<T> std::fmt::Debug for Orders<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Orders")
    }
}

/// The loop's side of the thread. Dropping it ends the thread, without waiting for it.
#[derive(Debug)]
pub struct Follower<T> {
    words: mpsc::Sender<Word<T>>,
    mailbox: Mailbox<News<T>>,
}

impl<T: Send + 'static> Follower<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// clone(2).
    pub fn start(cx: &Context<'_>, settings: Settings, make: Make<T>) -> io::Result<Self> {
        let (news, mailbox) = cx.mailbox(MOST_NEWS);
        let (words, heard) = mpsc::channel();
        let mut thread = Thread::new(settings, make, heard, words.clone(), news);
        let life = move || {
            // Signals are handled by the loop's thread.
            let _ = SigSet::all().thread_block();
            thread.run();
        };
        Builder::new().name("store".to_owned()).spawn(life)?;
        Ok(Follower { words, mailbox })
    }

    /// Takes the next report, if there is one. Must be called until there is none when mail has come.
    pub fn take(&self) -> Option<News<T>> {
        self.mailbox.take()
    }

    /// Follows by other settings from now on. The last good table stays good if the store is at the same place.
    pub fn change(&self, settings: Settings, make: Make<T>) {
        // It fails only if the thread has ended, which it does when this is dropped.
        let _ = self.words.send(Word::Change(Box::new(settings), Orders(make)));
    }

    /// Drops a table on the thread.
    pub fn discard(&self, table: T) {
        // Without the thread it is dropped here.
        let _ = self.words.send(Word::Discard(table));
    }
}

impl<T> Drop for Follower<T> {
    fn drop(&mut self) {
        // It fails only if the thread has ended.
        let _ = self.words.send(Word::Stop);
    }
}
