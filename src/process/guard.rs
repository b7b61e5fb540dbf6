//! The guard: a tiny process that sees to it that nothing outlives the daemon, `kill -9` included.
//!
//! The parent-death signal kills a daemon's children with it, but not their children. So the daemon forks a guard,
//! which holds nothing but the reading end of a pipe and a list of process groups. The list lies in memory that the two
//! share: a group is put on it, and struck off, by the daemon alone, without a system call and without waking the guard. Nothing
//! is ever written into the pipe. Whatever ends the daemon also closes it, and then the guard kills every group on the list
//! and exits. One that ends as it should leaves an empty list.
//!
//! * What the daemon has put on the list is there, whatever becomes of it in the next moment: the memory is the guard's as well.
//! * A group is struck off before its leader is reaped ([`Child::reap_with_group`](super::child::Child)), so the guard
//!   does not kill a group whose id has passed on to a stranger.
//! * Between a start and [`Guard::watch`] the parent-death signal alone covers the child, which has had no time to
//!   make children of its own.
//! * A process that leaves its group (`setsid`) is not on the list and not found.
//!
//! The guard blocks every signal but KILL, is in a session of its own and keeps no descriptor but its pipe. If it is
//! killed nevertheless, its pidfd says so and [`Guard::restart_if_dead`] makes another. Start the first one before the
//! daemon has much memory or any threads; a later one may be forked from a program with threads because it allocates
//! nothing and takes no lock.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;

use mio::event::Source;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, pipe2, read};

use super::child::PidFd;
use super::sys::{self, SharedWords, Wait};

/// How long a guard may take, in milliseconds, to end once its pipe has.
const LAST_MOMENTS: u8 = 250;

/// The daemon's side of the guard.
#[derive(Debug)]
pub struct Guard {
    /// Before `process`, so that a guard that is dropped sees its end, and ends, before it is waited for.
    pipe: OwnedFd,
    process: Process,
    /// Every guard has the same, one after the other.
    table: GroupTable,
    registered: Option<Registration>,
}

/// The guard itself; reaped when it is dropped, for a daemon may have had many services, and each has a guard.
#[derive(Debug)]
struct Process {
    pid: Pid,
    pidfd: PidFd,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It ends within microseconds of its pipe. One that somebody has stopped is left to the daemon's own end.
        let mut ended = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut ended, PollTimeout::from(LAST_MOMENTS));
        // ECHILD: it had died and was reaped before.
        let _ = sys::wait(&self.pidfd, Wait::Reap);
    }
}

/// How the owner listens to the guard, kept for the next guard.
#[derive(Debug)]
struct Registration {
    registry: Registry,
    died: Token,
}

impl Guard {
    /// Forks the guard, and waits the moment until it has let go of everything that it inherited: a daemon that is killed
    /// right after its start can then be started again at once, and finds no listening socket in use.
    ///
    /// # Errors
    /// Those of `mmap(2)`, `pipe2(2)`, `fork(2)` and `pidfd_open(2)`; no process is left behind.
    pub fn start() -> io::Result<Self> {
        let table = GroupTable::new()?;
        let (pipe, process) = start_process(&table)?;
        Ok(Self {
            pipe,
            process,
            table,
            registered: None,
        })
    }

    /// Registers its pidfd under `died`; answer that with [`restart_if_dead`](Self::restart_if_dead). Holds for its successors
    /// as well.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, died: Token) -> io::Result<()> {
        self.process.pidfd.register(registry, died, Interest::READABLE)?;
        self.registered = Some(Registration {
            registry: registry.try_clone()?,
            died,
        });
        Ok(())
    }

    /// The guard's process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Puts the group that `leader` leads on the list.
    pub fn watch(&mut self, leader: Pid) {
        self.table.insert(leader);
    }

    /// Strikes a group off the list. Must come before its leader is reaped.
    pub fn forget(&mut self, leader: Pid) {
        self.table.remove(leader);
    }

    /// When the guard has died: starts another, which has the same list.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`register`](Self::register). Then the daemon has no guard until this succeeds.
    pub fn restart_if_dead(&mut self) -> io::Result<Restart> {
        // ECHILD: an earlier call reaped it and then failed to start another.
        match sys::wait(&self.process.pidfd, Wait::Reap) {
            Ok(None) => return Ok(Restart::NotNeeded),
            Ok(Some(_)) => {}
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {}
            Err(error) => return Err(error),
        }
        let (pipe, mut process) = start_process(&self.table)?;
        if let Some(Registration { registry, died }) = &self.registered {
            process.pidfd.register(registry, *died, Interest::READABLE)?;
        }
        (self.pipe, self.process) = (pipe, process);
        Ok(Restart::Restarted)
    }
}

/// The pipe whose end is the guard's signal, and the guard.
fn start_process(table: &GroupTable) -> io::Result<(OwnedFd, Process)> {
    let (input, pipe) = pipe2(OFlag::O_CLOEXEC)?;
    let (let_go, inherited) = pipe2(OFlag::O_CLOEXEC)?;
    let (pid, pidfd) = sys::fork_guard(input.as_fd(), table)?;
    drop(inherited);
    // The end comes when the guard has closed its copy, or has ended. An error would only mean not to wait.
    let _ = File::from(let_go).read(&mut [0]);
    let pidfd = PidFd::new(pidfd);
    Ok((pipe, Process { pid, pidfd }))
}

/// What [`Guard::restart_if_dead`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The guard lives.
    NotNeeded,
    /// It had died; there is another, which knows every group.
    Restarted,
}

/// The list: one bit for each process id that Linux can give out, so that it is never full and nothing is allocated to add to
/// it. The daemon writes, and the guard reads once the daemon has gone, so no order between two of its words matters.
#[derive(Debug)]
pub(super) struct GroupTable(SharedWords);

impl GroupTable {
    /// `PID_MAX_LIMIT` of the kernel's `include/linux/threads.h`.
    const IDS: usize = 4 * 1024 * 1024;

    fn new() -> io::Result<Self> {
        Ok(Self(SharedWords::map(Self::IDS / 64)?))
    }

    fn insert(&self, group: Pid) {
        self.change(group, |word, bit| word | bit);
    }

    fn remove(&self, group: Pid) {
        self.change(group, |word, bit| word & !bit);
    }

    /// There is one writer, so that no change is lost between a load and its store.
    fn change(&self, group: Pid, change: impl FnOnce(u64, u64) -> u64) {
        let id = usize::try_from(group.as_raw()).unwrap_or(usize::MAX);
        if let Some(word) = self.0.words().get(id / 64) {
            word.store(change(word.load(Ordering::Relaxed), 1 << (id % 64)), Ordering::Release);
        }
    }

    fn groups(&self) -> impl Iterator<Item = i32> {
        let words = self.0.words().iter().map(|word| word.load(Ordering::Acquire));
        let ids = (0_i32..).step_by(64).zip(words).filter(|(_, word)| *word != 0);
        let groups = ids.flat_map(|(first, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| first + bit)
        });
        // Nobody's group; for killpg it would be the guard's own.
        groups.filter(|group| *group != 0)
    }
}

/// What the guard does with its life. Runs in the guard's process, after a fork: allocates nothing, takes no lock.
pub(super) fn stand_watch(input: BorrowedFd<'_>, table: &GroupTable) {
    // Nothing but the end, or a signal that the kernel does not deliver, can come from this pipe.
    while matches!(read(input, &mut [0]), Ok(1..) | Err(Errno::EINTR)) {}
    for group in table.groups() {
        // ESRCH: its processes have ended by themselves, which is as good.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, read_line, shell, wait_readable};
    use nix::sys::signal::kill;

    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn the_table_holds_what_began_and_has_not_ended() {
        let table = GroupTable::new().unwrap();
        let groups = || table.groups().collect::<Vec<_>>();
        let insert = |ids: &[i32]| ids.iter().for_each(|id| table.insert(Pid::from_raw(*id)));
        let remove = |ids: &[i32]| ids.iter().for_each(|id| table.remove(Pid::from_raw(*id)));
        insert(&[1, 64, 63, 4_194_303, 1]);
        remove(&[63, 7]);
        assert_eq!(groups(), [1, 64, 4_194_303]);
        // 0 is no group that is ever announced; it must not make the guard kill its own (killpg 0).
        insert(&[i32::MIN, -1, 0, 4_194_304, i32::MAX]);
        remove(&[1, 64, 4_194_303]);
        assert_eq!(groups(), [0_i32; 0]);
    }

    #[test]
    fn losing_the_daemon_kills_the_groups_on_the_list_alone() {
        let mut watched = shell("sleep 1000 & echo ready; wait");
        let mut forgotten = shell("echo ready; read end");
        assert_eq!(
            (read_line(&mut watched).as_str(), read_line(&mut forgotten).as_str()),
            ("ready", "ready")
        );
        let mut guard = Guard::start().unwrap();
        guard.watch(watched.pid());
        guard.watch(forgotten.pid());
        guard.forget(forgotten.pid());
        let Guard { process, pipe, .. } = guard;
        drop(pipe);
        wait_readable(&process.pidfd);
        assert_eq!(testing::wait(&mut watched).to_string(), "signal 9 (SIGKILL)");
        // Its grandchild held the pipe open as well.
        assert_eq!(testing::rest_of_output(&mut watched), "");
        drop(forgotten.stdin.take());
        assert_eq!(testing::wait(&mut forgotten).to_string(), "exit status 1");
        assert!(sys::wait(&process.pidfd, Wait::Reap).unwrap().unwrap().success());
    }

    #[test]
    fn a_guard_that_is_dropped_leaves_no_zombie() {
        let guard = Guard::start().unwrap();
        let pid = guard.pid();
        drop(guard);
        assert_eq!(kill(pid, None), Err(Errno::ESRCH));
    }

    #[test]
    fn a_guard_that_died_is_replaced_by_one_that_has_its_list() {
        let mut child = shell("echo ready; read end");
        read_line(&mut child);
        let mut guard = Guard::start().unwrap();
        guard.watch(child.pid());
        assert_eq!(guard.restart_if_dead().unwrap(), Restart::NotNeeded);
        let first = guard.pid();
        kill(first, Signal::SIGKILL).unwrap();
        wait_readable(&guard.process.pidfd);
        assert_eq!(guard.restart_if_dead().unwrap(), Restart::Restarted);
        assert_ne!(guard.pid(), first);
        let Guard { process, pipe, .. } = guard;
        drop(pipe);
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
        wait_readable(&process.pidfd);
        sys::wait(&process.pidfd, Wait::Reap).unwrap().unwrap();
    }

    #[test]
    fn the_guard_keeps_its_pipe_alone_and_heeds_no_signal() {
        let guard = Guard::start().unwrap();
        let proc = format!("/proc/{}", guard.pid());
        kill(guard.pid(), Signal::SIGTERM).unwrap();
        kill(guard.pid(), Signal::SIGINT).unwrap();
        // It is done with setting itself up when it waits for its pipe; its name comes before it closes descriptors.
        let descriptors = || std::fs::read_dir(format!("{proc}/fd")).unwrap().count();
        while descriptors() != 1 {
            std::thread::yield_now();
        }
        assert_eq!(
            std::fs::read_to_string(format!("{proc}/comm")).unwrap(),
            "iotcpd-guard\n"
        );
        let Guard { process, pipe, .. } = guard;
        drop(pipe);
        wait_readable(&process.pidfd);
        assert!(sys::wait(&process.pidfd, Wait::Reap).unwrap().unwrap().success());
    }

    const VICTIM: &str = "IOTCPD_TEST_VICTIM";
    const PROCESSES: &str = "processes: ";

    /// Run by the test below in a process of its own, which it kills; run by itself it has nothing to do.
    fn be_the_victim() {
        let mut guard = Guard::start().unwrap();
        let mut child = shell("sleep 1000 & echo $!; read end");
        guard.watch(child.pid());
        let grandchild = read_line(&mut child);
        eprintln!("{PROCESSES}{} {grandchild} {}", child.pid(), guard.pid());
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
        let processes: Vec<_> = pids.map(|pid| sys::pidfd_open(pid).unwrap()).collect();
        assert_eq!(processes.len(), 3);
        victim.kill().unwrap();
        victim.wait().unwrap();
        for process in &processes {
            wait_readable(process);
        }
    }
}
