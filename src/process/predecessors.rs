//! The processes that have served before this one, from upgrade to upgrade, and may still have clients.
//!
//! A process is known by its number and the time of its start, so that another one that has been given the number later
//! is not taken for it. Where `/proc` belongs to other process numbers, nothing is known.

use super::procfs;

/// The most processes that are remembered: the latest.
const MOST: usize = 64;

/// A process that has served before this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Earlier {
    /// Its process id.
    pub pid: i32,
    /// The time of its start, in ticks since that of the machine.
    pub started: u64,
}

impl Earlier {
    /// Returns the process with this id, or `None` if there is none, or it has ended.
    fn find(pid: i32) -> Option<Earlier> {
        let stat = procfs::stat(pid)?;
        let started = stat.started;
        (!stat.has_ended).then_some(Earlier { pid, started })
    }

    fn is_running(self) -> bool {
        Earlier::find(self.pid) == Some(self)
    }
}

/// The processes that have served before this one, the latest first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Predecessors(Vec<Earlier>);

impl Predecessors {
    /// Returns the predecessors of a process that takes over from the one with this id, which must be running and have
    /// told of the others.
    #[must_use]
    pub fn of(parent: i32, earlier: Vec<Earlier>) -> Self {
        let latest = procfs::is_own().then(|| Earlier::find(parent)).flatten();
        let mut all: Vec<Earlier> = latest.into_iter().chain(earlier).collect();
        all.truncate(MOST);
        Predecessors(all)
    }

    /// Returns the ones that are running. The others are forgotten.
    pub fn running(&mut self) -> &[Earlier] {
        self.0.retain(|process| process.is_running());
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{getpid, getppid};

    #[test]
    fn a_process_that_runs_counts_and_another_one_with_its_number_does_not() {
        let parent = Earlier::find(getppid().as_raw()).unwrap();
        let reborn = Earlier {
            started: parent.started + 1,
            ..parent
        };
        let own = getpid().as_raw();
        let mut predecessors = Predecessors::of(own, vec![reborn, parent]);
        let running: Vec<i32> = predecessors.running().iter().map(|process| process.pid).collect();
        assert_eq!(running, [own, parent.pid]);
        assert_eq!(Predecessors::default().running(), []);
    }

    #[test]
    fn only_the_latest_are_remembered() {
        let own = Earlier::find(getpid().as_raw()).unwrap();
        assert_eq!(Predecessors::of(own.pid, vec![own; 100]).running().len(), MOST);
    }
}
