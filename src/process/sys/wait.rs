//! Children as pidfds, and their exits.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::c_int;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{self as disposition, SigHandler, Signal};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::process::exit_status::ExitStatus;

/// Returns a descriptor for a child that is not reaped yet.
pub(in crate::process) fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let descriptor = RawFd::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new and has no other owner. The kernel has set close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Returns a descriptor of this process by its number, or `None` for a negative number.
///
/// The caller must know that it is open and stays so while the returned value is used. Otherwise a call with it fails
/// with EBADF, or uses another file that has got the number.
pub(in crate::process) fn borrow<'a>(number: RawFd) -> Option<BorrowedFd<'a>> {
    // SAFETY: not -1, the one value that is forbidden; open by the caller's promise.
    (number >= 0).then(|| unsafe { BorrowedFd::borrow_raw(number) })
}

/// Sends a signal to the process behind a pidfd.
pub(in crate::process) fn signal(pidfd: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    let (descriptor, number, flags) = (pidfd.as_raw_fd(), signal as c_int, 0);
    let information = ptr::null::<libc::siginfo_t>();
    // SAFETY: numbers, and a null pointer, for which the kernel fills in what kill(2) would.
    Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, descriptor, number, information, flags) })
        .map(drop)
}

/// The effect of [`wait`] on a child that has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) enum Wait {
    /// The child stays a zombie, and keeps its id.
    Look,
    /// The child is reaped, and its id may be reused.
    Reap,
}

/// Returns the status of the child behind `pidfd`, or `None` while it runs.
///
/// Does not use nix's `waitid`, which reaps a child that was ended by a real-time signal and loses its status.
pub(in crate::process) fn wait(pidfd: impl AsFd, wait: Wait) -> io::Result<Option<ExitStatus>> {
    let fd = pidfd.as_fd().as_raw_fd();
    let number = libc::id_t::try_from(fd).map_err(|_| Errno::EBADF)?;
    let options = libc::WEXITED
        | libc::WNOHANG
        | match wait {
            Wait::Look => libc::WNOWAIT,
            Wait::Reap => 0,
        };
    // SAFETY: all-zero is a valid `siginfo_t`.
    let mut info = unsafe { MaybeUninit::<libc::siginfo_t>::zeroed().assume_init() };
    // SAFETY: the kernel writes one `siginfo_t` to the given address. With WNOHANG there is no EINTR.
    Errno::result(unsafe { libc::waitid(libc::P_PIDFD, number, &raw mut info, options) })?;
    // SAFETY: waitid succeeded, so the fields of a child's siginfo are set, or zero as they were.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    Ok((pid != 0).then_some(match info.si_code {
        libc::CLD_EXITED => ExitStatus::Code(status),
        code => ExitStatus::Signal {
            number: status,
            core_dumped: code == libc::CLD_DUMPED,
        },
    }))
}

/// Returns a child that has exited and is not reaped, or `None` if there is none. The child stays a zombie.
pub(in crate::process) fn any_exited() -> Option<Pid> {
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: all-zero is a valid `siginfo_t`.
    let mut info = unsafe { MaybeUninit::<libc::siginfo_t>::zeroed().assume_init() };
    // SAFETY: the kernel writes one `siginfo_t` to the given address. With WNOHANG there is no EINTR.
    let found = Errno::result(unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) });
    // SAFETY: a child's siginfo has this field; without a child it is zero, as it was.
    let pid = unsafe { info.si_pid() };
    // ECHILD: there is no child at all.
    (found.is_ok() && pid != 0).then(|| Pid::from_raw(pid))
}

/// Reaps a child whose status is not needed, if it has exited.
pub(in crate::process) fn reap(pid: Pid) {
    // ECHILD: it is no child any more.
    let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
}

/// Makes this process the only one to reap its children: while SIGCHLD is ignored, which is inherited, the kernel reaps
/// children by itself, their status is lost, and their ids are reused while the daemon still uses them. Must be called
/// before the first child is started.
///
/// # Errors
/// None that Linux knows.
pub fn claim_children() -> nix::Result<()> {
    // SAFETY: the default disposition runs no code of ours, and no handler of this program is lost: it has none for
    // SIGCHLD yet.
    unsafe { disposition::signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}
