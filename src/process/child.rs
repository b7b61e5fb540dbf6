//! A running child: its pidfd, and the daemon's ends of its pipes.
//!
//! The exit of a child is an event: its pidfd becomes readable, once. From then until it is reaped the child is a
//! zombie, and the kernel gives its process id, and so the id of its group, to no other process. Every signal in this
//! file relies on that: it goes to a child that is not reaped, or to the group with its id, and so cannot reach another
//! process. Hence the order in [`Child::reap_with_group`].
//!
//! The owner of a child decides when to read and write its pipes.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Source;
use mio::unix::SourceFd;
use mio::unix::pipe::{Receiver, Sender};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::exit_status::ExitStatus;
use super::leftovers::{self, Left};
use super::sys::{self, Wait};
use super::terminal;
use super::tree::Tree;
use super::watch_list::Registration;

/// A descriptor that stands for a process and is readable once that process has exited. A mio source, to be registered
/// with [`Interest::READABLE`].
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    pub(super) const fn new(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Source for PidFd {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.0.as_raw_fd()).deregister(registry)
    }
}

/// The fate of the rest of a child's group when the child has exited by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Background {
    /// The rest is ended as well.
    Ends,
    /// The rest, if there is one, goes on.
    GoesOn,
    /// There was a rest, and it goes on.
    Left,
}

/// A child that is not reaped yet, or was reaped by this handle.
///
/// If it is dropped before it is reaped, its whole group is killed. A child that the kernel cannot end at once then
/// stays a zombie until the daemon ends.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: PidFd,
    /// True if standard input and output are a terminal.
    terminal: bool,
    background: Background,
    /// The entry in the list of children, given up when the child is reaped.
    registration: Registration,
    /// The exit status, once the child is reaped.
    status: Option<ExitStatus>,
    /// Our end of its standard input, non-blocking. Dropping it ends the child's input.
    pub stdin: Option<Sender>,
    /// Our end of its standard output, non-blocking.
    pub stdout: Option<Receiver>,
    /// Our end of its standard error, non-blocking.
    pub stderr: Option<Receiver>,
}

impl Child {
    pub(super) const fn new(
        pid: Pid,
        pidfd: PidFd,
        registration: Registration,
        stdin: Option<Sender>,
        stdout: Option<Receiver>,
        stderr: Option<Receiver>,
    ) -> Self {
        Self {
            pid,
            pidfd,
            terminal: false,
            background: Background::Ends,
            registration,
            status: None,
            stdin,
            stdout,
            stderr,
        }
    }

    /// Marks the child as one on a terminal, whose side both of our ends are.
    pub(super) const fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// Lets the rest of its group go on once the child has exited.
    pub(super) const fn leaving_background(mut self) -> Self {
        self.background = Background::GoesOn;
        self
    }

    /// Returns true if the child has exited and left processes that go on.
    #[must_use]
    pub const fn has_left_background(&self) -> bool {
        matches!(self.background, Background::Left)
    }

    /// Returns the number of processes that the child has started and that go on, if it has exited and is not reaped
    /// yet. Reads a line of `/proc` for each orphan of the daemon.
    #[must_use]
    pub fn left_running(&self) -> Option<Left> {
        leftovers::left_by(self.pid, &self.registration)
    }

    /// Returns true if our ends of its standard input and output are one side of a terminal and not two pipes.
    #[must_use]
    pub const fn is_on_terminal(&self) -> bool {
        self.terminal
    }

    /// Ends the child's input: closes our end of the pipe or, on a terminal, enters an end of file as well as that is
    /// possible ([`SpawnContext::terminal`](super::spec::SpawnContext::terminal)).
    pub fn end_input(&mut self) {
        if let Some(stdin) = self.stdin.take().filter(|_| self.terminal) {
            self.enter_end_of_file(stdin);
        }
    }

    /// Enters an end of file on the child's terminal, of which `ours` is our side; see
    /// [`END_AGAIN`](terminal::END_AGAIN).
    pub fn enter_end_of_file(&self, ours: impl AsFd) {
        let restart = || {
            self.kill_group(Signal::SIGSTOP)?;
            self.kill_group(Signal::SIGCONT)
        };
        // An error: the child has exited, or leaves all input unread and would not see an end either. A caller that
        // ends the input has other means to end the child.
        let _ = terminal::end_input(ours, restart);
    }

    /// Returns the process id, which is the id of its group as well.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Returns the source that becomes readable when the child has exited.
    pub const fn pidfd(&mut self) -> &mut PidFd {
        &mut self.pidfd
    }

    /// Returns true if the child has exited, reaped or not.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.status.is_some() || matches!(sys::wait(&self.pidfd, Wait::Look), Ok(Some(_)))
    }

    /// Returns the exit status, or `None` before the child is reaped.
    #[must_use]
    pub const fn status(&self) -> Option<ExitStatus> {
        self.status
    }

    /// Asks the whole group to end: with TERM, and with CONT behind it, because a stopped process does not act on TERM
    /// before it goes on.
    ///
    /// # Errors
    /// As [`kill_group`](Self::kill_group).
    pub fn terminate_group(&self) -> io::Result<()> {
        self.kill_group(Signal::SIGTERM)?;
        self.kill_group(Signal::SIGCONT)
    }

    /// Sends a signal to the child and to every process in its group. KILL is sent to all its descendants, wherever
    /// they have moved to. Nothing is sent once the child is reaped.
    ///
    /// # Errors
    /// EPERM if every process of the group has taken another user's id and the daemon is not root.
    pub fn kill_group(&self, signal: Signal) -> io::Result<()> {
        if self.status.is_some() {
            return Ok(());
        }
        let moved = match signal {
            Signal::SIGKILL if self.registration.finds_descendants() => Tree::below(self.pid),
            _ => Tree::default(),
        };
        // The child cannot have left its group, because it leads a session (setpgid(2), setsid(2): EPERM). Its children
        // can.
        let sent = killpg(self.pid, signal);
        moved.kill();
        if signal == Signal::SIGKILL {
            self.registration.kill_leaf();
        }
        match sent {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Reaps a child that has exited: ends the rest of its group, unless that is meant to go on, removes the child from
    /// the list and takes its status. Returns `None` while it runs, and the same status again afterwards. The order
    /// matters: the id of the group cannot be reused only until the child is reaped, and the guard may read its list at
    /// any moment.
    ///
    /// # Errors
    /// Those of `waitid(2)`: ECHILD if something else in this process has reaped the child.
    pub fn reap_with_group(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() || sys::wait(&self.pidfd, Wait::Look)?.is_none() {
            return Ok(self.status);
        }
        if self.background == Background::Ends {
            // If the rest can be found as orphans, these are asked to end first (`descendants`). Otherwise this is the
            // last moment to kill them. EPERM: processes that became another user's. The guard could not kill them
            // either.
            if !self.registration.finds_descendants() {
                let _ = killpg(self.pid, Signal::SIGKILL);
            }
            return self.take_status();
        }
        let status = self.take_status()?;
        // Only now is its leader no member of the group any more. As long as the group has others, its id is not
        // reused. No signal is sent here.
        if killpg(self.pid, None) != Err(Errno::ESRCH) {
            self.background = Background::Left;
        }
        Ok(status)
    }

    /// Reaps a child that cannot have left anything behind. Returns `None` while it runs. Otherwise see
    /// [`reap_with_group`](Self::reap_with_group).
    ///
    /// # Errors
    /// Those of `waitid(2)`.
    pub fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.status.is_some() || sys::wait(&self.pidfd, Wait::Look)?.is_none() {
            return Ok(self.status);
        }
        self.take_status()
    }

    /// Reaps a child that has exited. Its id may be reused as soon as the status is taken.
    fn take_status(&mut self) -> io::Result<Option<ExitStatus>> {
        self.registration.deregister(self.pid);
        self.status = sys::wait(&self.pidfd, Wait::Reap)?;
        Ok(self.status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A failure cannot be reported here. Both calls leave a reaped child alone.
        let _ = self.kill_group(Signal::SIGKILL);
        if matches!(self.reap(), Ok(None)) {
            // The status is not needed any more, and KILL has been sent.
            self.registration.deregister(self.pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::testing::{self, read_line, rest_of_output, shell, shell_spec, wait_readable};
    use super::super::unread_bytes;
    use super::*;

    #[test]
    fn an_exit_is_an_event_and_the_status_stays_the_same() {
        let mut child = shell("read end; exit 7");
        assert_eq!((child.reap().unwrap(), child.has_exited()), (None, false));
        drop(child.stdin.take());
        wait_readable(child.pidfd());
        assert!(child.has_exited());
        assert_eq!(child.reap().unwrap(), Some(ExitStatus::Code(7)));
        assert_eq!(child.reap().unwrap(), Some(ExitStatus::Code(7)));
    }

    #[test]
    fn the_group_is_killed_before_its_dead_leader_is_reaped() {
        let mut child = shell("sleep 1000 & echo ready");
        read_line(&mut child);
        wait_readable(child.pidfd());
        assert_eq!(child.reap_with_group().unwrap(), Some(ExitStatus::Code(0)));
        // The grandchild held the pipe, so the end of the pipe shows that it has ended.
        assert_eq!(rest_of_output(&mut child), "");
        assert_eq!(child.reap_with_group().unwrap(), Some(ExitStatus::Code(0)));
    }

    #[test]
    fn background_processes_go_on_where_allowed_and_are_reported() {
        for (script, left) in [("sleep 1000 >/dev/null 2>&1 & echo $!", true), ("echo 0", false)] {
            let mut spec = shell_spec(script);
            spec.context.leave_background = true;
            let mut child = testing::start(&spec);
            let pid = Pid::from_raw(read_line(&mut child).parse().unwrap());
            wait_readable(child.pidfd());
            assert!(!child.has_left_background());
            assert_eq!(child.reap_with_group().unwrap(), Some(ExitStatus::Code(0)));
            assert_eq!(child.has_left_background(), left);
            drop(child);
            if left {
                nix::sys::signal::kill(pid, Signal::SIGKILL).unwrap();
            }
        }
    }

    #[test]
    fn a_child_cannot_leave_its_group_and_is_ended() {
        // Into the group of its own child, which ends with its input; and into a session of its own.
        let mut child = shell(
            r#"exec perl -e '
                use POSIX "setsid";
                $other = fork // die; $other or do { <STDIN>; exit };
                setpgrp($other, $other); setpgrp(0, $other); setsid();
                $| = 1; print getpgrp() == $$ ? "stays" : "left", "\n"; sleep 1000'"#,
        );
        assert_eq!(read_line(&mut child), "stays");
        child.kill_group(Signal::SIGTERM).unwrap();
        assert_eq!(testing::wait(&mut child).to_string(), "signal 15 (SIGTERM)");
    }

    #[test]
    fn a_group_is_left_alone_while_its_leader_runs() {
        let mut child = shell("read end; exit 3");
        assert_eq!(child.reap_with_group().unwrap(), None);
        drop(child.stdin.take());
        assert_eq!(testing::wait(&mut child), ExitStatus::Code(3));
    }

    #[test]
    fn a_stopped_child_dies_of_term() {
        let mut child = shell("echo ready; kill -STOP $$; echo never");
        read_line(&mut child);
        while !std::fs::read_to_string(format!("/proc/{}/stat", child.pid()))
            .unwrap()
            .contains(") T ")
        {
            std::thread::yield_now();
        }
        child.terminate_group().unwrap();
        assert_eq!(testing::wait(&mut child).to_string(), "signal 15 (SIGTERM)");
    }

    #[test]
    fn a_death_by_a_real_time_signal_is_reported_by_its_number() {
        let mut child = shell("kill -40 $$");
        assert_eq!(testing::wait(&mut child).to_string(), "signal 40");
    }

    #[test]
    fn a_status_is_not_lost_when_the_daemon_was_started_with_sigchld_ignored() {
        const ROLE: &str = "IOTCPD_TEST_SIGCHLD";
        if std::env::var_os(ROLE).is_some() {
            super::super::claim_children().unwrap();
            return assert_eq!(testing::wait(&mut shell("exit 7")), ExitStatus::Code(7));
        }
        let name = "process::child::tests::a_status_is_not_lost_when_the_daemon_was_started_with_sigchld_ignored";
        let output = testing::other_part(name, ROLE, &["env", "--ignore-signal=CHLD"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    }

    #[test]
    fn nothing_is_sent_to_a_reaped_child() {
        let mut child = shell("exit 0");
        testing::wait(&mut child);
        child.kill_group(Signal::SIGKILL).unwrap();
    }

    #[test]
    fn dropping_a_child_kills_its_group() {
        let mut child = shell("sleep 1000 & echo ready; wait");
        read_line(&mut child);
        let stdout = child.stdout.take().unwrap();
        drop(child);
        wait_readable(&stdout);
        assert_eq!(nix::unistd::read(&stdout, &mut [0; 16]), Ok(0));
    }

    #[test]
    fn unread_input_is_counted() {
        let mut child = shell("echo ready; read first; echo $first; read second; echo $second");
        read_line(&mut child);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"one\n").unwrap();
        assert_eq!(read_line(&mut child), "one");
        assert_eq!(unread_bytes(&stdin).unwrap(), 0);
        child.kill_group(Signal::SIGSTOP).unwrap();
        stdin.write_all(b"two\n").unwrap();
        stdin.write_all(b"three\n").unwrap();
        let unread = unread_bytes(&stdin).unwrap();
        child.kill_group(Signal::SIGCONT).unwrap();
        assert_eq!(read_line(&mut child), "two");
        assert!((6..=10).contains(&unread), "{unread}");
    }

    #[test]
    fn our_ends_do_not_block() {
        let mut child = shell("read end");
        let error = nix::unistd::read(child.stdout.as_ref().unwrap(), &mut [0; 1]).unwrap_err();
        assert_eq!(error, Errno::EAGAIN);
        let mut stdin = child.stdin.take().unwrap();
        let full = loop {
            if let Err(error) = stdin.write(&[b'x'; 65536]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn mio_reports_an_exit() {
        let mut child = shell("read end");
        let mut poll = mio::Poll::new().unwrap();
        poll.registry()
            .register(child.pidfd(), Token(5), Interest::READABLE)
            .unwrap();
        drop(child.stdin.take());
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::from_secs(30)))
            .unwrap();
        assert_eq!(events.iter().map(|event| event.token()).collect::<Vec<_>>(), [Token(5)]);
        assert_eq!(child.reap().unwrap(), Some(ExitStatus::Code(1)));
    }
}
