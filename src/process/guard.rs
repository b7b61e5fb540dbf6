//! The guard: a tiny process that sees to it that nothing outlives the daemon, `kill -9` included.
//!
//! The parent-death signal kills a daemon's children with it, but not their children. So the daemon forks a guard,
//! which holds nothing but the reading end of a pipe and a list of process groups. The daemon writes when a group
//! begins and when it has ended; whatever ends the daemon also closes the pipe, and then the guard kills every group
//! on the list and exits. One that ends as it should leaves an empty list.
//!
//! * A group is struck off before its leader is reaped ([`Child::reap_with_group`](super::child::Child)), so the guard
//!   does not kill a group whose id has passed on to a stranger. Only a record that the pipe had no room for, at the
//!   moment the daemon was killed, could be amiss.
//! * Between a start and [`Guard::watch`] the parent-death signal alone covers the child, which has had no time to
//!   make children of its own.
//! * A process that leaves its group (`setsid`) is not on the list and not found.
//!
//! The guard blocks every signal but KILL, is in a session of its own and keeps no descriptor but its pipe. If it is
//! killed nevertheless, its pidfd says so and [`Guard::restart_if_dead`] makes another. Start the first one before the
//! daemon has much memory or any threads; a later one may be forked from a program with threads because it allocates
//! nothing and takes no lock.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::unix::pipe::Sender;
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, pipe2, read};

use super::child::PidFd;
use super::sys::{self, Wait};

/// Bytes of a record: a group's id, negative when the group has ended, in the machine's own byte order. A read may end
/// within one.
const RECORD: usize = size_of::<i32>();

/// Bytes that may wait for a guard that does not read. It has by then left the pipe's 64 KiB unread too: something
/// has stopped it, and a new one is better.
const MAX_PENDING: usize = 64 * 1024;

/// How long a guard may take, in milliseconds, to end once its pipe has.
const LAST_MOMENTS: u8 = 250;

/// The daemon's side of the guard.
#[derive(Debug)]
pub struct Guard {
    /// Before `process`, so that a guard that is dropped sees its end, and ends, before it is waited for.
    pipe: Sender,
    process: Process,
    /// What the pipe had no room for.
    pending: Vec<u8>,
    /// The list as the guard should have it, for the next guard.
    watched: BTreeSet<Pid>,
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
    writable: Token,
}

impl Guard {
    /// Forks the guard, and waits the moment until it has let go of everything that it inherited: a daemon that is killed
    /// right after its start can then be started again at once, and finds no listening socket in use.
    ///
    /// # Errors
    /// Those of `pipe2(2)`, `fork(2)` and `pidfd_open(2)`; no process is left behind.
    pub fn start() -> io::Result<Self> {
        let (input, pipe) = pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let (let_go, inherited) = pipe2(OFlag::O_CLOEXEC)?;
        let (pid, pidfd) = sys::fork_guard(input.as_fd(), &mut GroupTable::new())?;
        drop(inherited);
        // The end comes when the guard has closed its copy, or has ended. An error would only mean not to wait.
        let _ = File::from(let_go).read(&mut [0]);
        Ok(Self {
            pipe: Sender::from(pipe),
            process: Process {
                pid,
                pidfd: PidFd::new(pidfd),
            },
            pending: Vec::new(),
            watched: BTreeSet::new(),
            registered: None,
        })
    }

    /// Registers its pidfd under `died`, answer that with [`restart_if_dead`](Self::restart_if_dead); and its pipe
    /// under `writable`, answer that with [`flush`](Self::flush). Holds for its successors as well.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, died: Token, writable: Token) -> io::Result<()> {
        self.process.pidfd.register(registry, died, Interest::READABLE)?;
        self.pipe.register(registry, writable, Interest::WRITABLE)?;
        self.registered = Some(Registration {
            registry: registry.try_clone()?,
            died,
            writable,
        });
        Ok(())
    }

    /// The guard's process id.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.process.pid
    }

    /// Puts the group that `leader` leads on the list. A guard that cannot be told has died: its pidfd says so.
    pub fn watch(&mut self, leader: Pid) {
        if self.watched.insert(leader) {
            self.send(leader.as_raw());
        }
    }

    /// Strikes a group off the list. Must come before its leader is reaped.
    pub fn forget(&mut self, leader: Pid) {
        if self.watched.remove(&leader) {
            self.send(leader.as_raw().wrapping_neg());
        }
    }

    /// Writes what the pipe had no room for.
    pub fn flush(&mut self) {
        while !self.pending.is_empty() {
            match (&self.pipe).write(&self.pending) {
                Ok(written) => drop(self.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return self.limit_pending(),
                // EPIPE: it has died, which its pidfd tells the owner; its successor is given the whole list.
                Err(_) => self.pending.clear(),
            }
        }
    }

    /// When the guard has died: starts another and gives it the whole list.
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
        let mut successor = Self::start()?;
        if let Some(Registration {
            registry,
            died,
            writable,
        }) = &self.registered
        {
            successor.register(registry, *died, *writable)?;
        }
        for &leader in &self.watched {
            successor.watch(leader);
        }
        *self = successor;
        Ok(Restart::Restarted)
    }

    fn send(&mut self, record: i32) {
        self.pending.extend_from_slice(&record.to_ne_bytes());
        self.flush();
    }

    fn limit_pending(&mut self) {
        if self.pending.len() > MAX_PENDING {
            self.pending.clear();
            // Our own unreaped child, so the id is its own. ESRCH cannot come, and a guard that is gone is what is
            // wanted.
            let _ = kill(self.process.pid, Signal::SIGKILL);
        }
    }
}

/// What [`Guard::restart_if_dead`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// The guard lives.
    NotNeeded,
    /// It had died; there is another, which knows every group.
    Restarted,
}

/// The guard's list: one bit for each process id that Linux can give out, so that it is never full and nothing is
/// allocated to add to it. Untouched pages of it take no memory.
#[derive(Debug)]
pub(super) struct GroupTable(Vec<u64>);

impl GroupTable {
    /// `PID_MAX_LIMIT` of the kernel's `include/linux/threads.h`.
    const IDS: usize = 4 * 1024 * 1024;

    fn new() -> Self {
        Self(vec![0; Self::IDS / 64])
    }

    fn apply(&mut self, record: i32) {
        let id = usize::try_from(record.unsigned_abs()).unwrap_or(usize::MAX);
        let Some(word) = self.0.get_mut(id / 64) else { return };
        let bit = 1_u64 << (id % 64);
        if record > 0 { *word |= bit } else { *word &= !bit }
    }

    fn groups(&self) -> impl Iterator<Item = i32> {
        let ids = (0_i32..).step_by(64).zip(&self.0).filter(|(_, word)| **word != 0);
        ids.flat_map(|(first, word)| {
            (0..64)
                .filter(move |bit| word >> bit & 1 == 1)
                .map(move |bit| first + bit)
        })
    }
}

/// What the guard does with its life. Runs in the guard's process, after a fork: allocates nothing, takes no lock.
pub(super) fn stand_watch(input: BorrowedFd<'_>, table: &mut GroupTable) {
    let mut buffer = [0_u8; 1024 * RECORD];
    let mut kept = 0;
    while let Some(free) = buffer.get_mut(kept..) {
        match read(input, free) {
            Ok(0) => break,
            Ok(count) => kept = take_records(&mut buffer, kept + count, table),
            Err(Errno::EINTR) => {}
            // Nothing else can come from a blocking pipe; to go on without it would be to guard nothing.
            Err(_) => break,
        }
    }
    for group in table.groups() {
        // ESRCH: its processes have ended by themselves, which is as good.
        let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
    }
}

/// Applies the whole records among the first `length` bytes and moves the rest to the front; how long that is.
fn take_records(buffer: &mut [u8], length: usize, table: &mut GroupTable) -> usize {
    let (whole, _) = buffer.get(..length).unwrap_or_default().as_chunks::<RECORD>();
    for record in whole {
        table.apply(i32::from_ne_bytes(*record));
    }
    let taken = whole.len() * RECORD;
    buffer.copy_within(taken..length, 0);
    length - taken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, read_line, shell, wait_readable};
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};

    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn the_table_holds_what_began_and_has_not_ended() {
        let mut table = GroupTable::new();
        for record in [1, 64, 63, 4_194_303, -63, 1, -7] {
            table.apply(record);
        }
        assert_eq!(table.groups().collect::<Vec<_>>(), [1, 64, 4_194_303]);
        for record in [i32::MIN, i32::MAX, 0, -1, -64, -4_194_303] {
            table.apply(record);
        }
        // 0 is no group that is ever announced; it must not make the guard kill its own (killpg 0).
        assert_eq!(table.groups().collect::<Vec<_>>(), [0_i32; 0]);
    }

    #[test]
    fn records_cut_anywhere_are_put_together() {
        let stream: Vec<u8> = [5, 6, -5, 70_000]
            .iter()
            .flat_map(|record: &i32| record.to_ne_bytes())
            .collect();
        for cut in 0..=stream.len() {
            let (mut table, mut buffer, mut kept) = (GroupTable::new(), [0; 64], 0);
            for part in [&stream[..cut], &stream[cut..]] {
                buffer[kept..kept + part.len()].copy_from_slice(part);
                kept = take_records(&mut buffer, kept + part.len(), &mut table);
            }
            assert_eq!(
                (kept, table.groups().collect::<Vec<_>>()),
                (0, vec![6, 70_000]),
                "cut at {cut}"
            );
        }
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
    fn a_guard_that_died_is_replaced_and_told_everything() {
        let mut child = shell("echo ready; read end");
        read_line(&mut child);
        let mut guard = Guard::start().unwrap();
        guard.watch(child.pid());
        assert_eq!(guard.restart_if_dead().unwrap(), Restart::NotNeeded);
        let first = guard.pid();
        kill(first, Signal::SIGKILL).unwrap();
        wait_readable(&guard.process.pidfd);
        guard.watch(Pid::from_raw(4_000_000));
        guard.forget(Pid::from_raw(4_000_000));
        assert_eq!(guard.restart_if_dead().unwrap(), Restart::Restarted);
        assert_ne!(guard.pid(), first);
        let Guard { process, pipe, .. } = guard;
        drop(pipe);
        assert_eq!(testing::wait(&mut child).to_string(), "signal 9 (SIGKILL)");
        wait_readable(&process.pidfd);
        sys::wait(&process.pidfd, Wait::Reap).unwrap().unwrap();
    }

    #[test]
    fn a_guard_that_does_not_read_is_killed_in_the_end_and_loses_nothing() {
        let mut guard = Guard::start().unwrap();
        kill(guard.pid(), Signal::SIGSTOP).unwrap();
        // Until it has really stopped it may still read what the pipe holds by then.
        let stopped = waitpid(guard.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(stopped, WaitStatus::Stopped(guard.pid(), Signal::SIGSTOP));
        let records = i32::try_from((64 * 1024 + MAX_PENDING) / RECORD).unwrap();
        for group in 0..=records {
            guard.watch(Pid::from_raw(3_000_000 + group));
        }
        wait_readable(&guard.process.pidfd);
        for group in 0..=records {
            guard.forget(Pid::from_raw(3_000_000 + group));
        }
        assert_eq!(guard.restart_if_dead().unwrap(), Restart::Restarted);
        assert!(guard.pending.is_empty());
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
