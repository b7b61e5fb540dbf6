//! The processes that a child has left running at its exit, for a line in the log: a program that puts itself into the
//! background exits in its first process and goes on in another.
//!
//! They are counted while the child is a zombie, when its own children are already the daemon's. Processes in its
//! control group, if it has one, or in its session certainly come from it. A process in a session of its own can be
//! attributed only by its start time, because its environment must not be read on the loop
//! ([`descendants`](super::descendants) reads it a moment later).

use nix::unistd::{Pid, getpid, getsid};

use super::guard;
use super::procfs;
use super::tree::Tree;
use super::watch_list::Registration;

/// The most children of the daemon that are examined.
const MAX_CHILDREN: usize = 256;

/// The number of processes that go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// Exactly this number, all started by the child or its children.
    Exactly(usize),
    /// At most this number: children that exit at the same time may have left some of them.
    AtMost(usize),
}

/// Counts the processes that a child has left which has exited and is not reaped. Returns `None` if there are none, or
/// if that cannot be known.
pub(super) fn left_by(child: Pid, registration: &Registration) -> Option<Left> {
    let exited = procfs::stat(child.as_raw()).filter(|stat| stat.has_ended)?;
    if let Some(processes) = registration.leaf_processes() {
        let alive = processes
            .into_iter()
            .filter(|pid| *pid != child.as_raw() && is_alive(*pid));
        return Some(alive.count()).filter(|count| *count > 0).map(Left::Exactly);
    }
    let own_session = getsid(None).map_or(0, Pid::as_raw);
    let own_name = procfs::name(getpid().as_raw());
    let (mut certain, mut possible) = (0, 0);
    let orphans = procfs::own_children().unwrap_or_default().into_iter();
    for orphan in orphans.filter(|pid| !registration.is_child(*pid)).take(MAX_CHILDREN) {
        let stat = procfs::stat(orphan).filter(|stat| !stat.has_ended && stat.started >= exited.started);
        let Some(stat) = stat else { continue };
        let family = 1 + Tree::below(Pid::from_raw(orphan)).len();
        if stat.session == child.as_raw() {
            certain += family;
        } else if stat.session != own_session && !registration.is_child(stat.session) && !is_daemons(orphan, &own_name)
        {
            possible += family;
        }
    }
    match (certain, possible) {
        (0, 0) => None,
        (certain, 0) => Some(Left::Exactly(certain)),
        (certain, possible) => Some(Left::AtMost(certain + possible)),
    }
}

/// Returns true for the daemon's guard or successor.
fn is_daemons(pid: i32, own_name: &str) -> bool {
    let name = procfs::name(pid);
    name == own_name || guard::NAME.to_bytes() == name.as_bytes()
}

fn is_alive(pid: i32) -> bool {
    procfs::stat(pid).is_some_and(|stat| !stat.has_ended)
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::waitpid;

    use super::super::descendants::become_reaper;
    use super::super::testing::{other_part, read_line, shell, wait_readable};
    use super::*;

    #[test]
    fn processes_left_running_are_counted() {
        const ROLE: &str = "IOTCPD_TEST_LEFTOVERS";
        if std::env::var_os(ROLE).is_none() {
            // In a process of its own, so that orphans of other tests are not among its children.
            let name = "process::leftovers::tests::processes_left_running_are_counted";
            let output = other_part(name, ROLE, &["env"]).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            return assert!(output.status.success() && said.contains("1 passed"), "{said}");
        }
        become_reaper().unwrap();
        assert_eq!(shell("read end").left_running(), None, "it runs");
        for (script, expected) in [
            ("sleep 1000 & sleep 1000 & echo ready", Some(Left::Exactly(2))),
            ("echo ready", None),
            // The process in a session of its own prints the line.
            ("setsid sh -c 'echo ready; exec sleep 1000' &", Some(Left::AtMost(1))),
        ] {
            let mut child = shell(script);
            read_line(&mut child);
            wait_readable(child.pidfd());
            assert_eq!(child.left_running(), expected, "{script}");
            for orphan in procfs::own_children().unwrap() {
                let _ = nix::sys::signal::kill(Pid::from_raw(orphan), nix::sys::signal::Signal::SIGKILL);
            }
            drop(child);
            while waitpid(None, None).is_ok() {}
        }
    }
}
