//! Which children the daemon has at this moment, in memory that it shares with its [guard](super::guard).
//!
//! A child is on the list from before its exec until it is reaped. It puts itself there as the last thing before its exec
//! ([`sys`](super::sys)), on the daemon's own memory: were the daemon to do it when the start has returned, a child whose
//! daemon is killed in between would have had time to make children that nobody knows. One whose exec fails is struck off
//! when the start is given up; every other one before it is reaped ([`Child`](super::child::Child)), so that the guard never
//! kills a group whose id has passed on to a stranger. Between its clone and its entry the parent-death signal alone covers
//! a child, and then it has made none of its own.
//!
//! **Who writes.** The list is one bit for each process id that Linux can give out, so that it is never full and nothing is
//! allocated to add to it. A bit is set and cleared by one atomic operation on its word, so that no change is lost, whoever
//! else changes the word: a child on the way to its exec (its parent's thread stands still until then, but another
//! thread may start one as well), or the daemon. The guard reads once the daemon has gone, and a child that was in the middle
//! of its start holds the guard's pipe open until it has exec'ed or died: so all that was written is there to be read, and
//! no order between two words matters.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::sys::SharedWords;

/// The table itself.
#[derive(Debug)]
pub(super) struct Table(SharedWords);

impl Table {
    /// `PID_MAX_LIMIT` of the kernel's `include/linux/threads.h`.
    const IDS: usize = 4 * 1024 * 1024;
    const WORDS: usize = Self::IDS / 64;

    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self(SharedWords::map(Self::WORDS)?))
    }

    /// The table that another process has made; `None`: this is no such table.
    pub(super) fn of(words: SharedWords) -> Option<Self> {
        (words.words().len() >= Self::WORDS).then_some(Self(words))
    }

    /// By which another process can have it as well; `None`: only a fork can.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor().map(AsFd::as_fd)
    }

    /// Neither locks nor allocates: a child calls it before its exec.
    pub(super) fn insert(&self, child: Pid) {
        if let Some((word, bit)) = place(child) {
            self.0.words().get(word).inspect(|word| {
                word.fetch_or(bit, Ordering::Release);
            });
        }
    }

    pub(super) fn remove(&self, child: Pid) {
        if let Some((word, bit)) = place(child) {
            self.0.words().get(word).inspect(|word| {
                word.fetch_and(!bit, Ordering::Release);
            });
        }
    }

    #[cfg(test)]
    pub(super) fn contains(&self, child: Pid) -> bool {
        let word = place(child).and_then(|(word, bit)| Some((self.0.words().get(word)?, bit)));
        word.is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// All that are on it. Neither locks nor allocates.
    pub(super) fn children(&self) -> impl Iterator<Item = Pid> {
        let words = self.0.words().iter().map(|word| word.load(Ordering::Acquire));
        let ids = (0_i32..).step_by(64).zip(words).filter(|(_, word)| *word != 0);
        ids.flat_map(|(first, word)| {
            let set = (0..64).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| Pid::from_raw(first + bit))
        })
    }
}

/// Where the bit of a child is. 0 is nobody's id; for `killpg` it would be the guard's own group.
fn place(child: Pid) -> Option<(usize, u64)> {
    let id = usize::try_from(child.as_raw()).ok().filter(|id| *id > 0)?;
    Some((id / 64, 1 << (id % 64)))
}

/// A daemon's list, as those hold it that start children. The default is no list: children of a program that has no guard.
#[derive(Debug, Clone, Default)]
pub struct WatchList(Option<Arc<Table>>);

impl WatchList {
    pub(super) fn of(table: &Arc<Table>) -> Self {
        Self(Some(Arc::clone(table)))
    }

    pub(super) fn table(&self) -> Option<&Table> {
        self.0.as_deref()
    }

    /// Strikes a child off. Must come before it is reaped.
    pub(super) fn forget(&self, child: Pid) {
        if let Some(table) = &self.0 {
            table.remove(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_what_began_and_has_not_ended() {
        let table = Table::new().unwrap();
        let children = || table.children().map(Pid::as_raw).collect::<Vec<_>>();
        let insert = |ids: &[i32]| ids.iter().for_each(|id| table.insert(Pid::from_raw(*id)));
        let remove = |ids: &[i32]| ids.iter().for_each(|id| table.remove(Pid::from_raw(*id)));
        insert(&[1, 64, 63, 4_194_303, 1]);
        remove(&[63, 7]);
        assert_eq!(children(), [1, 64, 4_194_303]);
        assert!(table.contains(Pid::from_raw(64)) && !table.contains(Pid::from_raw(63)));
        // 0 is no child that ever enters itself; it must not make the guard kill its own group (killpg 0).
        insert(&[i32::MIN, -1, 0, 4_194_304, i32::MAX]);
        remove(&[1, 64, 4_194_303]);
        assert_eq!(children(), [0_i32; 0]);
    }

    #[test]
    fn no_change_is_lost_where_several_write_at_once() {
        let table = Table::new().unwrap();
        std::thread::scope(|scope| {
            for thread in 1..=4 {
                let table = &table;
                scope.spawn(move || {
                    for _ in 0..20_000 {
                        table.insert(Pid::from_raw(thread));
                        assert!(table.contains(Pid::from_raw(thread)));
                        table.remove(Pid::from_raw(thread));
                        assert!(!table.contains(Pid::from_raw(thread)));
                    }
                });
            }
        });
        assert_eq!(table.children().count(), 0);
    }
}
