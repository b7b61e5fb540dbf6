//! The list of the daemon's present children, in memory that it shares with its [guard](super::guard).
//!
//! A child is on the list from before its exec until it is reaped. It enters itself as its last action before the exec
//! ([`sys`](super::sys)), in the daemon's own memory. If the daemon did that after the start, and were killed before,
//! the child would have had time to start unknown children. A child whose exec fails is removed when its start is given
//! up, and any other child before it is reaped ([`Child`](super::child::Child)), so that the guard never kills a group
//! whose id belongs to another process by then. Between its clone and its entry only the parent-death signal covers a
//! child, which has started no others at that time.
//!
//! **Concurrent writers.** The list has one bit for each process id that Linux can assign, so it is never full and
//! nothing is allocated to add to it. Each bit is set and cleared by one atomic operation on its word, so no change is
//! lost, whichever process changes the same word: a child on the way to its exec (its parent's thread stands still
//! until then, but another thread may start one as well), or the daemon. The guard reads the list once the daemon has
//! ended. A child in the middle of its start holds the guard's pipe open until it has exec'ed or died, so everything
//! that was written is visible to the guard, and the order between two words does not matter.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::unistd::Pid;

use super::control_group::{ControlGroup, Entrance, Leaf};
use super::procfs;
use super::signs::{self, Instance};
use super::strings::Strings;
use super::sys::SharedWords;

/// The bits of the list, in shared memory.
#[derive(Debug)]
pub(super) struct Table(SharedWords);

impl Table {
    /// `PID_MAX_LIMIT` of the kernel's `include/linux/threads.h`.
    const IDS: usize = 4 * 1024 * 1024;
    /// The index of the daemon's instance, after the bits.
    const INSTANCE: usize = Self::IDS / 64;
    const WORDS: usize = Self::INSTANCE + 1;

    pub(super) fn new() -> Result<Self, Errno> {
        Ok(Self(SharedWords::map(Self::WORDS)?))
    }

    /// Returns the table that another process has made, or `None` if the memory is too small for one.
    pub(super) fn of(words: SharedWords) -> Option<Self> {
        (words.words().len() >= Self::WORDS).then_some(Self(words))
    }

    /// Returns the descriptor by which another process can map the table, or `None` if only a fork can share it.
    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.0.descriptor().map(AsFd::as_fd)
    }

    fn set_instance(&self, instance: Instance) {
        if let Some(word) = self.0.words().get(Self::INSTANCE) {
            word.store(instance.0, Ordering::Release);
        }
    }

    /// Returns the instance of the daemon that made the table.
    pub(super) fn instance(&self) -> Instance {
        let word = self.0.words().get(Self::INSTANCE);
        Instance(word.map_or(0, |word| word.load(Ordering::Acquire)))
    }

    /// Adds a child. Neither locks nor allocates: a child calls it before its exec.
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

    pub(super) fn contains(&self, child: Pid) -> bool {
        let word = place(child).and_then(|(word, bit)| Some((self.0.words().get(word)?, bit)));
        word.is_some_and(|(word, bit)| word.load(Ordering::Acquire) & bit != 0)
    }

    /// Returns all children on the list. Neither locks nor allocates.
    pub(super) fn children(&self) -> impl Iterator<Item = Pid> {
        let words = self.0.words().iter().take(Self::INSTANCE);
        let words = words.map(|word| word.load(Ordering::Acquire));
        let ids = (0_i32..).step_by(64).zip(words).filter(|(_, word)| *word != 0);
        ids.flat_map(|(first, word)| {
            let set = (0..64).filter(move |bit| word >> bit & 1 == 1);
            set.map(move |bit| Pid::from_raw(first + bit))
        })
    }
}

/// Returns the word and the bit of a child. 0 is no process's id; to `killpg` it would mean the guard's own group.
fn place(child: Pid) -> Option<(usize, u64)> {
    let id = usize::try_from(child.as_raw())
        .ok()
        .filter(|id| (1..Table::IDS).contains(id))?;
    Some((id / 64, 1 << (id % 64)))
}

/// The data about all children of a daemon.
#[derive(Debug)]
pub(super) struct ChildRegistry {
    pub(super) table: Table,
    pub(super) instance: Instance,
    /// The signs that this process itself has.
    outer: String,
    /// True if `/proc` shows this daemon's children.
    pub(super) has_procfs: bool,
    /// The control group in which each child has a leaf.
    pub(super) group: Option<ControlGroup>,
    runs: Mutex<Runs>,
}

/// The children by the numbers of their runs. Numbers are never reused, unlike process ids.
#[derive(Debug, Default)]
struct Runs {
    last: u64,
    alive: BTreeSet<u64>,
    /// The sessions of runs that have ended since the last scan.
    ended: Vec<i32>,
    /// The control groups of these runs.
    leaves: Vec<Arc<Leaf>>,
    /// The reason why the latest child is in no leaf although there is a control group.
    failure: Option<String>,
}

impl ChildRegistry {
    /// # Errors
    /// Those of `mmap(2)`.
    pub(super) fn new(group: Option<ControlGroup>) -> Result<Self, Errno> {
        let (table, instance) = (Table::new()?, Instance::new());
        table.set_instance(instance);
        Ok(Self {
            table,
            instance,
            outer: signs::of_this_process(),
            has_procfs: procfs::is_own(),
            group,
            runs: Mutex::default(),
        })
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_alive(&self, run: u64) -> bool {
        self.runs().alive.contains(&run)
    }

    /// Removes and returns the sessions of children that were reaped since the last call.
    pub(super) fn take_ended(&self) -> Vec<i32> {
        std::mem::take(&mut self.runs().ended)
    }

    pub(super) fn has_ended(&self) -> bool {
        let runs = self.runs();
        !runs.ended.is_empty() || !runs.leaves.is_empty()
    }

    /// Removes and returns the leaves of children that were reaped, or did not start, since the last call.
    pub(super) fn take_leaves(&self) -> Vec<Arc<Leaf>> {
        std::mem::take(&mut self.runs().leaves)
    }

    /// Removes and returns the reason why a child has had no leaf since the last call.
    pub(super) fn take_failure(&self) -> Option<String> {
        self.runs().failure.take()
    }

    fn leaf(&self, run: u64) -> Option<(Arc<Leaf>, Entrance)> {
        match self.group.as_ref()?.leaf(run) {
            Ok((leaf, entrance)) => Some((Arc::new(leaf), entrance)),
            Err(error) => {
                self.record_failure("make the control group of a child", &error);
                None
            }
        }
    }

    fn record_failure(&self, attempted: &str, error: &dyn Display) {
        self.runs().failure = Some(format!("cannot {attempted}: {error}"));
    }
}

/// A handle on a daemon's list, for the parts that start children. The default is no list, for a program without a
/// guard.
#[derive(Debug, Clone, Default)]
pub struct WatchList(Option<Arc<ChildRegistry>>);

impl WatchList {
    pub(super) fn of(registry: &Arc<ChildRegistry>) -> Self {
        Self(Some(Arc::clone(registry)))
    }

    pub(super) fn table(&self) -> Option<&Table> {
        self.0.as_deref().map(|registry| &registry.table)
    }

    /// Registers a child that is about to be started. With `with_descendants`, its descendants are to end with it.
    pub(super) fn register(&self, with_descendants: bool) -> (Registration, Option<Entrance>) {
        let run = self.0.as_ref().map(|registry| {
            let mut runs = registry.runs();
            runs.last += 1;
            let run = runs.last;
            runs.alive.insert(run);
            (Arc::clone(registry), run)
        });
        let leaf = run.as_ref().filter(|_| with_descendants);
        let (leaf, entrance) = leaf.and_then(|(registry, run)| registry.leaf(*run)).unzip();
        let registration = Registration {
            run,
            with_descendants,
            leaf,
        };
        (registration, entrance)
    }

    /// Records the reason if a child could not enter its control group. Must be called after its start.
    pub(super) fn record_refusal(&self, entrance: &Entrance) {
        if let (Some(registry), Some(errno)) = (&self.0, entrance.refusal()) {
            registry.record_failure("move a child into its control group", &errno.desc());
        }
    }
}

/// The registration of one child, from before its start until it is reaped or could not be started.
#[derive(Debug)]
pub(super) struct Registration {
    run: Option<(Arc<ChildRegistry>, u64)>,
    with_descendants: bool,
    /// The control group of the child.
    leaf: Option<Arc<Leaf>>,
}

impl Registration {
    /// Returns the variable by which the child's descendants are recognised, if they are to end with it.
    pub(super) fn sign(&self) -> Strings {
        match self.run.as_ref().filter(|_| self.with_descendants) {
            Some((registry, run)) => signs::entry(&registry.outer, registry.instance, *run),
            None => Strings::default(),
        }
    }

    /// Returns true if the child's descendants are to end with it and can be found.
    pub(super) fn finds_descendants(&self) -> bool {
        self.with_descendants && self.run.as_ref().is_some_and(|(registry, _)| registry.has_procfs)
    }

    /// Returns the processes in the child's control group, if it has one.
    pub(super) fn leaf_processes(&self) -> Option<Vec<i32>> {
        self.leaf.as_ref().map(|leaf| leaf.processes())
    }

    /// Returns true if a process is on the list, and so is a child and no orphan.
    pub(super) fn is_child(&self, pid: i32) -> bool {
        let registry = self.run.as_ref().map(|(registry, _)| registry);
        registry.is_some_and(|registry| registry.table.contains(Pid::from_raw(pid)))
    }

    /// Kills all processes in the child's control group, if it has one.
    pub(super) fn kill_leaf(&self) {
        if let Some(leaf) = &self.leaf {
            leaf.kill();
        }
    }

    /// Removes the child from the list and marks the rest of its session to be ended. Must be called before the child
    /// is reaped.
    pub(super) fn deregister(&self, child: Pid) {
        if let Some((registry, run)) = &self.run {
            registry.table.remove(child);
            let mut runs = registry.runs();
            if runs.alive.remove(run) && self.finds_descendants() {
                runs.ended.push(child.as_raw());
                runs.leaves.extend(self.leaf.clone());
            }
        }
    }
}

impl Drop for Registration {
    /// Ends the run of a child that could not be started.
    fn drop(&mut self) {
        if let Some((registry, run)) = &self.run {
            let mut runs = registry.runs();
            if runs.alive.remove(run) {
                runs.leaves.extend(self.leaf.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_children_that_began_and_have_not_ended() {
        let table = Table::new().unwrap();
        let children = || table.children().map(Pid::as_raw).collect::<Vec<_>>();
        let insert = |ids: &[i32]| ids.iter().for_each(|id| table.insert(Pid::from_raw(*id)));
        let remove = |ids: &[i32]| ids.iter().for_each(|id| table.remove(Pid::from_raw(*id)));
        insert(&[1, 64, 63, 4_194_303, 1]);
        remove(&[63, 7]);
        assert_eq!(children(), [1, 64, 4_194_303]);
        assert!(table.contains(Pid::from_raw(64)) && !table.contains(Pid::from_raw(63)));
        // 0 is no child that ever enters itself. It must not make the guard kill its own group (killpg 0).
        insert(&[i32::MIN, -1, 0, 4_194_304, i32::MAX]);
        remove(&[1, 64, 4_194_303]);
        assert_eq!(children(), [0_i32; 0]);
    }

    #[test]
    fn concurrent_changes_are_not_lost() {
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
