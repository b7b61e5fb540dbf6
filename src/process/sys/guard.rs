//! The fork of the guard, and its exec. The forked process neither allocates nor locks, because the daemon may have
//! threads by the time at which a lost guard is replaced.
//!
//! The guard runs this same program, but from a copy of it in memory that has no name. So it does not run the daemon's
//! file (`pidof /usr/bin/iotcpd`, `killall` and `fuser` do not find it), it holds none of the daemon's memory, and it
//! may allocate. If such memory may not be executed (`vm.memfd_noexec`, a security module), the guard runs the daemon's
//! file. If that cannot be run either (no `/proc`), it stays a fork, which ends processes by the list alone.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::{CStr, c_char, c_int, c_long};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, getppid};

use super::image::copy_of_this_program;
use super::memory::SharedWords;
use crate::process::control_group::kill_all;
use crate::process::guard::{NAME, ROLE, kill_groups, wait_for_end};
use crate::process::watch_list::Table;

/// The things that a guard is given.
#[derive(Debug, Clone, Copy)]
pub(in crate::process) struct GuardStart<'a> {
    /// A pipe that is closed at the end of the daemon.
    pub(in crate::process) input: BorrowedFd<'a>,
    pub(in crate::process) table: &'a Table,
    /// The directory of the daemon's control group.
    pub(in crate::process) group: Option<BorrowedFd<'a>>,
    /// A pipe that the guard closes once it is ready.
    pub(in crate::process) ready: Option<BorrowedFd<'a>>,
    /// True if the guard must exec. False is for programs other than this one, such as tests.
    pub(in crate::process) runs_program: bool,
}

/// The descriptors at which the guard finds these.
const INPUT: RawFd = libc::STDIN_FILENO;
const TABLE: RawFd = libc::STDOUT_FILENO;
const READY: RawFd = libc::STDERR_FILENO;
const GROUP: RawFd = 3;

/// Forks the guard, which waits for the end of its input and then kills the groups in the table.
pub(in crate::process) fn fork_guard(start: GuardStart<'_>) -> Result<Pid, Errno> {
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the child calls only functions that may be called after the fork of a program with threads: see
    // `guard_main`.
    let result = Errno::result(unsafe { libc::fork() });
    if result == Ok(0) {
        guard_main(start);
    }
    // Cannot fail: the kernel refuses only an unknown operation or a bad address.
    let _ = mask.thread_set_mask();
    result.map(Pid::from_raw)
}

/// The guard's process from its fork to its exec, or to its exit. All signals stay blocked: a TERM for the whole
/// control group (systemd) or a Ctrl-C must not end it before the daemon. Neither allocates nor locks.
fn guard_main(start: GuardStart<'_>) -> ! {
    // The guard works without these calls too. A session of its own keeps terminal signals away, `/` lets file systems
    // be unmounted, and the name is shown by `ps` and `top`.
    let _ = nix::sys::prctl::set_name(NAME);
    let _ = nix::unistd::setsid();
    let _ = nix::unistd::chdir(c"/");
    // The listening sockets and the other end of the pipe must not stay open here. With the latter, the end of the pipe
    // would never come.
    let is_shared = keep_only(start);
    if start.runs_program && is_shared {
        become_program();
        // The exec has failed, and the guard goes on as a fork.
    }
    // SAFETY: this process's own table, of which only `INPUT` and `GROUP` are used from here on.
    let (input, group) = unsafe {
        libc::close(TABLE);
        libc::close(READY);
        // SAFETY: open since `keep_only`, the second one if there is a group, and never closed in this process.
        (
            BorrowedFd::borrow_raw(INPUT),
            start.group.map(|_| BorrowedFd::borrow_raw(GROUP)),
        )
    };
    wait_for_end(input);
    kill_groups(start.table);
    if let Some(group) = group {
        kill_all(group);
    }
    // SAFETY: ends this process alone, without running what the daemon has registered for its own exit.
    unsafe { libc::_exit(0) }
}

/// Closes every descriptor of this process except the guard's, which are moved to the numbers at which the guard
/// expects them. Returns false if the table has no descriptor.
fn keep_only(start: GuardStart<'_>) -> bool {
    let table = start.table.descriptor();
    let given = [(Some(start.input), INPUT), (table, TABLE), (start.ready, READY)];
    // SAFETY: this process is a fork that never returns to the code that owns these descriptors, and its table is its
    // own copy. The descriptors are above the standard ones, which the runtime of Rust opens at the start if they were
    // closed, so none is overwritten before it is duplicated. If close_range is missing or forbidden, each possible
    // descriptor is closed by itself.
    unsafe {
        for (source, target) in given {
            match source {
                Some(source) => libc::dup2(source.as_raw_fd(), target),
                None => libc::close(target),
            };
        }
        // The last one, because one of the others may have had its number. It may have that number itself, and then
        // keeps its flag.
        let mut first = GROUP;
        if let Some(group) = start.group {
            libc::dup2(group.as_raw_fd(), GROUP);
            libc::fcntl(GROUP, libc::F_SETFD, 0);
            first += 1;
        }
        if libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) == -1 {
            let highest = libc::sysconf(libc::_SC_OPEN_MAX).clamp(1024, 1 << 20);
            for descriptor in c_long::from(first)..highest {
                libc::syscall(libc::SYS_close, descriptor);
            }
        }
    }
    table.is_some()
}

/// Runs this program as the guard. Returns only if it cannot be run.
fn become_program() {
    // "guard of 4194304" at most.
    let mut name = [0_u8; 32];
    // Cannot fail: there is enough room, and the last byte stays zero.
    let _ = write!(name.get_mut(..31).unwrap_or_default(), "{ROLE}{}", getppid());
    let arguments: [*const c_char; 2] = [name.as_ptr().cast(), ptr::null()];
    let image = copy_of_this_program();
    unsafe extern "C" {
        static environ: *const *const c_char;
    }
    // SAFETY: the arrays end with a null pointer and their strings with a zero. The environment is the daemon's,
    // because the program's interpreter may need it (LD_LIBRARY_PATH); this program never changes it.
    unsafe {
        if let Ok(image) = &image {
            let flags = libc::AT_EMPTY_PATH;
            libc::syscall(
                libc::SYS_execveat,
                c_long::from(image.as_raw_fd()),
                c"".as_ptr(),
                arguments.as_ptr(),
                environ,
                flags,
            );
        }
        libc::execve(OWN_FILE.as_ptr(), arguments.as_ptr(), environ);
    }
}

/// The file that this process runs.
pub(super) const OWN_FILE: &CStr = c"/proc/self/exe";

/// Takes over the descriptors of a process that was started as a guard. Must be called once, before anything else.
///
/// # Errors
/// The process was not given these descriptors.
pub(in crate::process) fn take_over_as_guard() -> Result<(OwnedFd, Table, Option<OwnedFd>), Errno> {
    let _ = nix::sys::prctl::set_name(NAME);
    // SAFETY: the daemon that starts this program under that name leaves these to it, and nothing else in it uses them.
    let (input, table, ready, group) = unsafe { (own(INPUT)?, own(TABLE)?, own(READY), own(GROUP)) };
    let table = Table::of(SharedWords::of(table)?).ok_or(Errno::EINVAL)?;
    // Reports that the guard is ready. If there was no such pipe, this closes what the runtime has opened in its place.
    drop(ready);
    Ok((input, table, group.ok()))
}

/// # Safety
/// The descriptor must have no other owner.
unsafe fn own(descriptor: RawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: reads the flags of a number in this process's table.
    Errno::result(unsafe { libc::fcntl(descriptor, libc::F_GETFD) })?;
    // SAFETY: it is open, and by the caller's promise it has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// The state of the guard's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum GuardState {
    /// The process runs, as far as can be seen.
    Runs,
    /// Another process has stopped the guard. Reported once for each stop.
    Stopped,
    /// The process has ended and is reaped. `by_itself` is false if a signal has ended it.
    Ended { by_itself: bool },
}

/// Returns the state of a child of which only the number is known.
///
/// # Errors
/// ECHILD: there is no such child.
pub(in crate::process) fn state_of_guard(pid: Pid) -> Result<GuardState, Errno> {
    let mut status: c_int = 0;
    // SAFETY: the kernel writes one int to the given address. With WNOHANG there is no EINTR.
    let found =
        Errno::result(unsafe { libc::waitpid(pid.as_raw(), &raw mut status, libc::WNOHANG | libc::WUNTRACED) })?;
    Ok(if found == 0 {
        GuardState::Runs
    } else if libc::WIFSTOPPED(status) {
        GuardState::Stopped
    } else {
        GuardState::Ended {
            by_itself: libc::WIFEXITED(status),
        }
    })
}
