//! The tree of processes below one process, wherever these have moved to while their ancestors live.

use std::os::fd::AsFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::procfs::{self, Stat};
use super::sys;

/// The most processes of a tree. When the others lose their parents they are found as
/// [orphans](super::descendants::Orphans).
const MAX_PROCESSES: usize = 256;

/// The descendants of a process, as they were at one moment.
#[derive(Debug, Default)]
pub(super) struct Tree(pub(super) Vec<(i32, Stat)>);

impl Tree {
    /// Reads the descendants of a process. For a process without children this takes a few system calls.
    pub(super) fn below(root: Pid) -> Self {
        let (mut tree, mut from) = (Vec::new(), 0);
        let mut parents = vec![root.as_raw()];
        while let Some(parent) = parents.get(from).copied()
            && tree.len() < MAX_PROCESSES
        {
            from += 1;
            let room = MAX_PROCESSES.saturating_sub(tree.len());
            for child in procfs::children(parent).unwrap_or_default().into_iter().take(room) {
                if let Some(stat) = procfs::stat(child).filter(|stat| !stat.has_ended) {
                    tree.push((child, stat));
                    parents.push(child);
                }
            }
        }
        Self(tree)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Kills the members that are still the same processes.
    pub(super) fn kill(&self) {
        for (pid, was) in &self.0 {
            // The descriptor stands for one process even if its id is reused. Whether it is the right one is checked
            // next.
            let Ok(process) = sys::pidfd_open(Pid::from_raw(*pid)) else {
                continue;
            };
            if procfs::stat(*pid).is_some_and(|stat| stat.started == was.started) {
                let _ = sys::signal(process.as_fd(), Signal::SIGKILL);
            }
        }
    }
}
