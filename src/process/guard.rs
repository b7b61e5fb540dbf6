//! The guard: a tiny process that ends all children of the daemon when the daemon ends, even by `kill -9`.
//!
//! The parent-death signal kills a daemon's children with it, but not their children. So the daemon forks a guard,
//! which holds only the reading end of a pipe, the daemon's [list of children](super::watch_list) in memory that the
//! two share, and, where there is one, the directory of the children's [control group](super::control_group). Nothing
//! is ever written into the pipe. The end of the daemon, whatever its reason, closes it. Then the guard kills the group
//! of every child on the list, everything in the control group, and [all other descendants that it can
//! find](super::descendants::end_all), and exits. A daemon that ends in good order leaves an empty list.
//!
//! There is one guard for all doors. A part of the program that starts children holds the [list](Guard::watch_list).
//!
//! The guard runs as a program of its own, under a name and with arguments that differ from the daemon's, so that
//! neither a signal meant for the daemon nor `kill -9 $(pidof iotcpd)` reaches it ([`sys`]). It blocks every signal but
//! KILL and STOP and is in a session of its own. If it is killed nevertheless, the daemon receives SIGCHLD and
//! [`Guard::check`] starts another; if it is stopped, it is resumed. A replacement takes no descriptor, because a
//! shortage of descriptors would leave a busy daemon without a guard. A fork that fails is tried again.
//!
//! The first guard must be started before the daemon has much memory or any threads. A later one may be forked from a
//! program with threads, because its fork allocates nothing and takes no lock.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, pipe2, read};

use super::control_group::{self, ControlGroup};
use super::descendants::{self, Orphans};
use super::sys::{self, GuardStart, GuardState};
use super::watch_list::{ChildRegistry, Table, WatchList};

/// The guard's name in the list of processes.
pub(super) const NAME: &CStr = c"io-guard";
/// The beginning of the guard's `argv[0]`. The daemon's process id follows.
pub(super) const ROLE: &str = "guard of ";

/// The time in which a guard must end once its pipe is closed, and the milliseconds between two looks at it.
const END_TIMEOUT: Duration = Duration::from_millis(250);
const POLL_MILLISECONDS: u8 = 1;
/// The milliseconds for which the daemon waits at its start until its guard is ready. It takes two or three.
const READY_TIMEOUT: u16 = 1000;
/// The time between two attempts to replace a guard.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The daemon's side of the guard.
#[derive(Debug)]
pub struct Guard {
    /// The writing end, whose closing is the guard's signal. `None` while this daemon ends.
    pipe: Option<OwnedFd>,
    /// The guard's end of the pipe, for the next guard.
    input: OwnedFd,
    /// Shared by all guards, one after another.
    registry: Arc<ChildRegistry>,
    kind: Kind,
    /// The guard's process id; `None` if there is no guard.
    process: Option<Pid>,
    again: Option<Instant>,
}

/// The ways to make a guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The guard runs this program again, whose `main` calls [`called_as_guard`] first.
    Program,
    /// The guard is a fork alone, for a program with another `main`.
    Fork,
}

/// The result of a check of the guard.
#[derive(Debug)]
pub enum GuardStatus {
    /// The guard runs.
    Running,
    /// The guard had died and was replaced by another, which knows every child.
    Replaced,
    /// Another process had stopped the guard, and it was resumed.
    Resumed,
    /// The guard has died and could not be replaced. The next attempt is at the [deadline](Guard::deadline).
    Missing(io::Error),
}

impl Guard {
    /// Starts the guard of a daemon with this control group. Waits for the moment until the guard has closed everything
    /// that it inherited: only then can a daemon that is killed right after its start be started again at once and find
    /// no listening socket in use.
    ///
    /// # Errors
    /// Those of `mmap(2)`, `pipe2(2)` and `fork(2)`. No process is left behind.
    pub fn start(kind: Kind, group: Option<ControlGroup>) -> io::Result<Self> {
        let (input, pipe) = pipe2(OFlag::O_CLOEXEC)?;
        let mut guard = Self {
            pipe: Some(pipe),
            input,
            registry: Arc::new(ChildRegistry::new(group)?),
            kind,
            process: None,
            again: None,
        };
        let (ready, theirs) = pipe2(OFlag::O_CLOEXEC)?;
        guard.fork(Some(theirs))?;
        // The end of the pipe comes when the guard is ready or has died. A guard that is late is checked like any
        // other.
        let mut watched = [PollFd::new(ready.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut watched, PollTimeout::from(READY_TIMEOUT));
        if let GuardStatus::Missing(error) = guard.check(Instant::now()) {
            return Err(error);
        }
        Ok(guard)
    }

    /// Returns the list, for the parts of the program that start children.
    #[must_use]
    pub fn watch_list(&self) -> WatchList {
        WatchList::of(&self.registry)
    }

    /// Returns the record of orphans of the children on the list.
    #[must_use]
    pub fn orphans(&self) -> Orphans {
        Orphans::new(&self.registry)
    }

    /// Returns the guard's process id, while there is one.
    #[must_use]
    pub const fn pid(&self) -> Option<Pid> {
        self.process
    }

    /// Returns the time at which [`check`](Self::check) must be called at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        self.again
    }

    /// Replaces or resumes the guard if necessary. Must be called when some child has changed its state (SIGCHLD) and
    /// at the deadline, and should be called when a failed start may succeed now.
    pub fn check(&mut self, now: Instant) -> GuardStatus {
        let state = match self.process.map(sys::state_of_guard) {
            // ECHILD: something else in this process has reaped it.
            None | Some(Err(_)) => GuardState::Ended { by_itself: false },
            Some(Ok(state)) => state,
        };
        match state {
            GuardState::Runs => GuardStatus::Running,
            GuardState::Stopped => {
                let _ = self.process.map(|guard| kill(guard, Signal::SIGCONT));
                GuardStatus::Resumed
            }
            GuardState::Ended { by_itself } => self.replace(now, by_itself),
        }
    }

    /// Starts another guard. A guard exits by itself only if this program cannot be run again; then a fork must do.
    fn replace(&mut self, now: Instant, by_itself: bool) -> GuardStatus {
        if by_itself {
            self.kind = Kind::Fork;
        }
        self.process = None;
        match self.fork(None) {
            Ok(()) => {
                self.again = None;
                GuardStatus::Replaced
            }
            Err(error) => {
                self.again = Some(now + RETRY_INTERVAL);
                GuardStatus::Missing(error)
            }
        }
    }

    fn fork(&mut self, ready: Option<OwnedFd>) -> io::Result<()> {
        let start = GuardStart {
            input: self.input.as_fd(),
            table: &self.registry.table,
            group: self.registry.group.as_ref().map(ControlGroup::directory),
            ready: ready.as_ref().map(AsFd::as_fd),
            runs_program: self.kind == Kind::Program,
        };
        self.process = Some(sys::fork_guard(start)?);
        Ok(())
    }
}

impl Drop for Guard {
    /// Waits for the guard's end, so that it leaves no zombie.
    fn drop(&mut self) {
        self.pipe = None;
        let Some(guard) = self.process else { return };
        // It may have been stopped, and is not checked any more.
        let _ = kill(guard, Signal::SIGCONT);
        let until = Instant::now() + END_TIMEOUT;
        while !matches!(sys::state_of_guard(guard), Ok(GuardState::Ended { .. }) | Err(_)) && Instant::now() < until {
            let _ = poll(&mut [], PollTimeout::from(POLL_MILLISECONDS));
        }
    }
}

/// Returns true for the `argv[0]` of a process that was started as a guard.
#[must_use]
pub fn called_as_guard(name: &OsStr) -> bool {
    let number = name.as_bytes().strip_prefix(ROLE.as_bytes());
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

/// Runs the life of a process that was started as a guard. Returns false if the process does not have a guard's
/// descriptors.
#[must_use]
pub fn live_as_guard() -> bool {
    let Ok((input, table, group)) = sys::take_over_as_guard() else {
        return false;
    };
    wait_for_end(input.as_fd());
    kill_groups(&table);
    if let Some(group) = &group {
        control_group::kill_all(group.as_fd());
    }
    descendants::end_all(&table);
    if let Some(group) = &group {
        control_group::remove_all(group.as_fd());
    }
    true
}

/// Waits until the daemon has ended. Neither locks nor allocates.
pub(super) fn wait_for_end(input: BorrowedFd<'_>) {
    // Only its end, or an interruption, can come from this pipe.
    while matches!(read(input, &mut [0]), Ok(1..) | Err(Errno::EINTR)) {}
}

/// Kills the group of each child on the list. Neither locks nor allocates.
pub(super) fn kill_groups(table: &Table) {
    for child in table.children() {
        // ESRCH: the processes of the group have ended by themselves.
        let _ = killpg(child, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::super::child::Child;
    use super::super::spawn::{PreparedProgram, SpawnDefaults, Stdio};
    use super::super::sys::pidfd_open;
    use super::super::testing::{self, read_line, shell_spec, wait_readable};
    use super::*;

    fn start() -> Guard {
        Guard::start(Kind::Fork, None).unwrap()
    }

    /// Returns a child that is on the list.
    fn shell(guard: &Guard, script: &str) -> Child {
        let defaults = SpawnDefaults {
            watch_list: guard.watch_list(),
            ..SpawnDefaults::default()
        };
        let program = PreparedProgram::prepare(&shell_spec(script), &defaults);
        program.unwrap().spawn(Stdio::piped()).unwrap()
    }

    /// Closes the pipe, as the kernel does at the end of the daemon.
    fn lose_daemon(mut guard: Guard) -> Guard {
        guard.pipe = None;
        guard
    }

    fn wait_gone(guard: &Guard) {
        while !matches!(
            sys::state_of_guard(guard.pid().unwrap()),
            Ok(GuardState::Ended { .. }) | Err(_)
        ) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn losing_the_daemon_kills_the_groups_on_the_list_alone() {
        let guard = start();
        let mut watched = shell(&guard, "sleep 1000 & echo ready; wait");
        let mut forgotten = shell(&guard, "echo ready; read end");
        assert_eq!(
            (read_line(&mut watched).as_str(), read_line(&mut forgotten).as_str()),
            ("ready", "ready")
        );
        guard.registry.table.remove(forgotten.pid());
        let guard = lose_daemon(guard);
        assert_eq!(testing::wait(&mut watched).to_string(), "signal 9 (SIGKILL)");
        // Its grandchild held the pipe open as well.
        assert_eq!(testing::rest_of_output(&mut watched), "");
        drop(forgotten.stdin.take());
        assert_eq!(testing::wait(&mut forgotten).to_string(), "exit status 1");
        wait_gone(&guard);
    }

    #[test]
    fn a_child_is_on_the_list_while_it_lives_and_no_longer() {
        let guard = start();
        let listed = |pid| guard.registry.table.contains(pid);
        let mut child = shell(&guard, "read end");
        assert!(listed(child.pid()));
        drop(child.stdin.take());
        wait_readable(child.pidfd());
        // The id of a zombie is still its own.
        assert!(listed(child.pid()));
        child.reap_with_group().unwrap();
        assert!(!listed(child.pid()));
        let dropped = shell(&guard, "read end");
        let pid = dropped.pid();
        drop(dropped);
        assert!(!listed(pid));
        assert_eq!(guard.registry.table.children().count(), 0);
    }

    #[test]
    fn a_child_that_cannot_be_started_is_struck_off() {
        let guard = start();
        let defaults = SpawnDefaults {
            watch_list: guard.watch_list(),
            ..SpawnDefaults::default()
        };
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "#!/no/such/interpreter").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = file.into_temp_path();
        let spec = super::super::spec::ProcessSpec::new(vec![path.to_path_buf().into()]).unwrap();
        let mut program = PreparedProgram::prepare(&spec, &defaults).unwrap();
        assert!(program.spawn(Stdio::piped()).is_err());
        assert_eq!(guard.registry.table.children().count(), 0);
    }

    #[test]
    fn a_guard_that_is_dropped_leaves_no_zombie() {
        let guard = start();
        let pid = guard.pid().unwrap();
        drop(guard);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_guard_that_died_is_replaced_by_one_that_has_its_list_and_takes_no_descriptor() {
        let mut guard = start();
        let mut child = shell(&guard, "echo ready; read end");
        read_line(&mut child);
        assert!(matches!(guard.check(Instant::now()), GuardStatus::Running));
        let first = guard.pid().unwrap();
        let died = pidfd_open(first).unwrap();
        kill(first, Signal::SIGKILL).unwrap();
        wait_readable(&died);
        assert!(matches!(guard.check(Instant::now()), GuardStatus::Replaced));
        assert_ne!(guard.pid(), Some(first));
        let guard = lose_daemon(guard);
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
        wait_gone(&guard);
    }

    #[test]
    fn a_stopped_guard_is_resumed() {
        let mut guard = start();
        kill(guard.pid().unwrap(), Signal::SIGSTOP).unwrap();
        while !matches!(guard.check(Instant::now()), GuardStatus::Resumed) {
            std::thread::yield_now();
        }
        let guard = lose_daemon(guard);
        wait_gone(&guard);
    }

    #[test]
    fn the_guard_keeps_only_its_pipe_and_ignores_signals() {
        let guard = start();
        let pid = guard.pid().unwrap();
        kill(pid, Signal::SIGTERM).unwrap();
        kill(pid, Signal::SIGINT).unwrap();
        let proc = format!("/proc/{pid}");
        assert_eq!(std::fs::read_dir(format!("{proc}/fd")).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(format!("{proc}/comm")).unwrap(), "io-guard\n");
        let guard = lose_daemon(guard);
        wait_gone(&guard);
    }

    #[test]
    fn a_guard_is_recognised_by_its_name() {
        for (name, is_guard) in [
            ("guard of 1234", true),
            ("guard of ", false),
            ("guard of x", false),
            ("iotcpd", false),
            ("/usr/bin/guard of 1", false),
        ] {
            assert_eq!(called_as_guard(OsStr::new(name)), is_guard, "{name}");
        }
    }

    const VICTIM: &str = "IOTCPD_TEST_VICTIM";
    const PROCESSES: &str = "processes: ";

    /// Run by the test below in a process of its own, which it kills; does nothing in an ordinary run of the tests.
    fn be_the_victim() {
        let guard = start();
        let mut child = shell(&guard, "sleep 1000 & echo $!; read end");
        let grandchild = read_line(&mut child);
        eprintln!("{PROCESSES}{} {grandchild} {}", child.pid(), guard.pid().unwrap());
        let _ = io::stdin().read_line(&mut String::new());
    }

    #[test]
    fn kill_9_of_the_daemon_leaves_neither_child_nor_grandchild_nor_guard() {
        if std::env::var_os(VICTIM).is_some() {
            return be_the_victim();
        }
        let name = "process::guard::tests::kill_9_of_the_daemon_leaves_neither_child_nor_grandchild_nor_guard";
        let mut victim = testing::other_part(name, VICTIM, &[]);
        let piped = std::process::Stdio::piped;
        let mut victim = victim.stdin(piped()).stderr(piped()).stdout(piped()).spawn().unwrap();
        let mut lines = BufReader::new(victim.stderr.take().unwrap())
            .lines()
            .map(Result::unwrap);
        let line = lines
            .find_map(|line| line.strip_prefix(PROCESSES).map(str::to_owned))
            .unwrap();
        let pids = line.split(' ').map(|pid| Pid::from_raw(pid.parse().unwrap()));
        let processes: Vec<_> = pids.map(|pid| pidfd_open(pid).unwrap()).collect();
        assert_eq!(processes.len(), 3);
        victim.kill().unwrap();
        victim.wait().unwrap();
        for process in &processes {
            wait_readable(process);
        }
    }
}
