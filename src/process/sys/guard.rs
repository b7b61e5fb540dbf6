//! The fork of the guard: a plain fork with memory of its own. Its side neither allocates nor locks, since the daemon may
//! have threads by the time that a lost guard is replaced.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::wait::pidfd_open;
use crate::process::guard::{GroupTable, stand_watch};

/// Forks the guard, which reads `input` until its end and then kills the groups in `table`.
pub(in crate::process) fn fork_guard(input: BorrowedFd<'_>, table: &GroupTable) -> Result<(Pid, OwnedFd), Errno> {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child calls only what may be called after the fork of a program with threads: see `guard_main`.
    let result = Errno::result(unsafe { libc::fork() });
    if result == Ok(0) {
        guard_main(input, table);
    }
    // Cannot fail: the kernel refuses only an unknown operation or a bad address.
    let _ = mask.thread_set_mask();
    let pid = Pid::from_raw(result?);
    pidfd_open(pid).map(|pidfd| (pid, pidfd)).inspect_err(|_| {
        // A guard whose end nobody would notice is worth nothing. It ends at once, so waiting for it is short.
        let _ = kill(pid, Signal::SIGKILL);
        while waitpid(pid, None) == Err(Errno::EINTR) {}
    })
}

/// The guard process, from fork to exit. All signals stay blocked: a TERM for the whole control group (systemd) or a
/// Ctrl-C must not end it before the daemon. It neither allocates nor locks.
fn guard_main(input: BorrowedFd<'_>, table: &GroupTable) -> ! {
    // Each of these is for tidiness; the guard does its work without them. Its own session keeps terminal signals
    // away, `/` lets file systems be unmounted, the name is what `ps` and `top` show.
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir(c"/");
    let _ = nix::sys::prctl::set_name(c"iotcpd-guard");
    // The listening sockets and the pipe's other end must not live on in here: were the latter to, its end would never
    // come.
    let kept = keep_only(input);
    stand_watch(kept, table);
    // SAFETY: ends this process alone, without running what the daemon has registered for its own exit.
    unsafe { libc::_exit(0) }
}

/// Closes every descriptor of this process but `input`, which becomes descriptor 0.
fn keep_only(input: BorrowedFd<'_>) -> BorrowedFd<'static> {
    // SAFETY: this process is a fork that never returns to the code that owns these descriptors, and its table is its
    // own copy. Where close_range is missing or forbidden, each possible descriptor is closed by itself.
    unsafe {
        libc::dup2(input.as_raw_fd(), libc::STDIN_FILENO);
        if libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) == -1 {
            let highest = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 1 << 20);
            for descriptor in 1..highest {
                libc::syscall(libc::SYS_close, descriptor);
            }
        }
        // SAFETY: open since the dup2, and never closed in this process.
        BorrowedFd::borrow_raw(libc::STDIN_FILENO)
    }
}
