//! Every system call of this room that no safe wrapper offers, and nothing else: the vfork-like start of a program, the
//! fork of the guard, waiting on a pidfd, the length of a pipe's content.
//!
//! **The start of a program.** `clone(CLONE_VM | CLONE_VFORK)` makes a process that borrows the daemon's memory
//! instead of copying its page tables, so the cost does not grow with the daemon; the calling thread stands still
//! until the child has exec'ed or exited. Between the two the child runs on this program's memory, and these rules
//! hold for every line from [`child_main`] down:
//!
//! * It has a stack of its own, so it cannot overwrite the frames of the caller, who goes on with them.
//! * No signal handler can run in it: all signals are blocked before the clone, and unblocked in the child only when
//!   every disposition is the default one. (Dispositions and mask are the child's own: no `CLONE_SIGHAND`.)
//! * It calls nothing that may lock, allocate, or unwind: other threads still run and may hold any lock. What it needs
//!   was laid out by the parent.
//! * Its thread-local storage is the calling thread's. Of that it changes `errno` alone, which the parent, standing
//!   still, does not read across the call.
//! * Descriptors are a copy (no `CLONE_FILES`): what it moves and closes is its own.
//! * `setuid` and its like are raw calls. Those of the C library would signal all threads *of the daemon* to follow.
//!
//! **The guard** is a plain fork with memory of its own; that part keeps the same rules, since the daemon may have
//! threads by the time that a lost guard is replaced.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

mod memory;

use std::convert::Infallible;
use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

#[cfg(target_pointer_width = "64")]
use libc::{SYS_setgid, SYS_setgroups, SYS_setuid};
#[cfg(target_pointer_width = "32")]
use libc::{SYS_setgid32 as SYS_setgid, SYS_setgroups32 as SYS_setgroups, SYS_setuid32 as SYS_setuid};
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getpid};

use super::exit_status::ExitStatus;
use super::failure::Step;
use super::guard::GroupTable;
use super::plan::{Credentials, Plan};
pub(super) use memory::{ChildStack, SharedWords};

/// A step and its errno.
pub(super) type Failure = (Step, Errno);

/// A [`Plan`] with what the child needs besides, and the place where it leaves its failure.
struct ChildView<'a> {
    plan: &'a Plan<'a>,
    argv: *const *const c_char,
    environment: *const *const c_char,
    parent: Pid,
    failure: Option<Failure>,
}

/// Starts a program. When this returns the exec has succeeded, or there is no child any more.
pub(super) fn spawn(plan: &Plan<'_>, stack: &mut ChildStack) -> Result<(Pid, OwnedFd), Failure> {
    let (argv, environment) = (pointers(plan.argv), pointers(plan.environment));
    let parent = getpid();
    let mut view = ChildView {
        plan,
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        parent,
        failure: None,
    };
    let (pid, pidfd) = clone_child(&mut view, stack).map_err(|errno| (Step::NewProcess, errno))?;
    match view.failure {
        None => Ok((pid, pidfd)),
        Some(failure) => {
            // It has written its failure and is in `_exit`, or past it: this waits for microseconds at most. An error
            // could only say that there is no such child, and then there is nothing to reap.
            while waitpid(pid, None) == Err(Errno::EINTR) {}
            Err(failure)
        }
    }
}

/// The array that `execve` wants: a pointer for each string and a null pointer behind them. Valid as long as `strings`.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain([ptr::null()])
        .collect()
}

fn clone_child(view: &mut ChildView<'_>, stack: &mut ChildStack) -> Result<(Pid, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let unused = ptr::null_mut::<c_void>();
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: `child_main` gets the `ChildView` it expects, which no one else touches while the child may: CLONE_VFORK
    // keeps this thread here until the child has let go of this memory, so `view`, all that it borrows, `pidfd` and the
    // stack outlive the child's use of them. The stack is mapped, page-aligned, grows down from its top and is used by
    // nobody else: it is borrowed mutably until then. What the child does with the shared memory keeps to the rules at the head of this file. The thread
    // pointer and the child's thread id are not asked for by the flags, so their arguments are not used.
    let result = unsafe {
        libc::clone(
            child_main,
            stack.top(),
            flags,
            ptr::from_mut(view).cast(),
            &raw mut pidfd,
            unused,
            unused,
        )
    };
    let outcome = Errno::result(result);
    // Cannot fail: the kernel refuses only an unknown operation or a bad address.
    let _ = mask.thread_set_mask();
    let pid = Pid::from_raw(outcome?);
    // SAFETY: clone succeeded, so CLONE_PIDFD has stored a new descriptor that nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// The child, from its first instruction to its exec or exit.
extern "C" fn child_main(view: *mut c_void) -> c_int {
    // SAFETY: `clone_child` passes a pointer to a live `ChildView` that only this child uses until it has exec'ed or
    // exited.
    let view = unsafe { &mut *view.cast::<ChildView<'_>>() };
    // SAFETY: this is the child, on its own stack, with all signals blocked.
    let Err(failure) = unsafe { become_program(view) };
    view.failure = Some(failure);
    // SAFETY: ends this process alone, without running anything of the daemon's (atexit, destructors, buffers).
    unsafe { libc::_exit(127) }
}

/// The order matters. Limits and niceness come before the credentials, as raising them may need the privilege that is
/// given up there; the directory after, as it is the child's user that must be able to enter it; the parent-death
/// signal after, as a change of credentials clears it (`PR_SET_PDEATHSIG(2const)`); the sandbox last, since it asks a
/// process without privileges to have given up new ones, and would rule over what is opened here.
///
/// # Safety
/// Only in a child of [`clone_child`], with all signals blocked.
unsafe fn become_program(view: &ChildView<'_>) -> Result<Infallible, Failure> {
    let plan = view.plan;
    // SAFETY: the caller's promise is that of each of these.
    unsafe {
        reset_signals();
        let leader = if plan.terminal {
            libc::SYS_setsid
        } else {
            libc::SYS_setpgid
        };
        call(Step::ProcessGroup, leader, [0, 0, 0, 0])?;
        connect_stdio(plan.stdio)?;
        if plan.terminal {
            let arguments = [c_long::from(libc::STDIN_FILENO), libc::TIOCSCTTY as c_long, 0, 0];
            call(Step::Terminal, libc::SYS_ioctl, arguments)?;
        }
        apply_limits(plan)?;
        if let Some(credentials) = plan.credentials {
            assume(credentials)?;
        }
        if let Some(directory) = plan.directory {
            call(
                Step::WorkingDirectory,
                libc::SYS_chdir,
                [address(directory.as_ptr()), 0, 0, 0],
            )?;
        }
        die_with_parent(view.parent)?;
        if plan.no_new_privileges {
            call(
                Step::NoNewPrivileges,
                libc::SYS_prctl,
                [c_long::from(libc::PR_SET_NO_NEW_PRIVS), 1, 0, 0],
            )?;
        }
        if let Some(rules) = plan.sandbox {
            let arguments = [c_long::from(rules.as_raw_fd()), 0, 0, 0];
            call(Step::Sandbox, libc::SYS_landlock_restrict_self, arguments)?;
        }
        unblock_signals();
        let arguments = [
            address(plan.program.as_ptr()),
            address(view.argv),
            address(view.environment),
            0,
        ];
        call(Step::Exec, libc::SYS_execve, arguments)?;
    }
    // execve does not return but to fail.
    Err((Step::Exec, Errno::UnknownErrno))
}

/// A pointer as an argument of [`call`].
fn address<T>(pointer: *const T) -> c_long {
    pointer.expose_provenance().cast_signed() as c_long
}

/// One raw system call: neither a cancellation point nor, as some of the C library's wrappers, more than the call.
///
/// # Safety
/// As the call's manual page has it; pointers among the arguments must be valid for what it does.
unsafe fn call(step: Step, number: c_long, [a, b, c, d]: [c_long; 4]) -> Result<c_long, Failure> {
    // SAFETY: the caller's promise. `fifth` arguments (prctl) must be zero where there are any.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0) };
    if result == -1 {
        Err((step, Errno::last()))
    } else {
        Ok(result)
    }
}

/// Raw calls, since the C library's `sigaction` refuses the two signals it keeps for itself; and whoever started the
/// daemon may have left those ignored as well.
///
/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn reset_signals() {
    // The kernel's `struct sigaction` of any architecture is shorter; all zeros are SIG_DFL, no flags, an empty mask.
    let default = [0_u64; 8];
    for signal in 1..=c_long::from(libc::SIGRTMAX()) {
        let arguments = [signal, address(default.as_ptr()), 0, size_of::<u64>() as c_long];
        // SAFETY: the kernel reads `default`, whose mask is 64 bits long, and changes a disposition of this process
        // alone. It refuses SIGKILL and SIGSTOP, whose dispositions are always the default ones.
        let _ = unsafe { call(Step::Exec, libc::SYS_rt_sigaction, arguments) };
    }
}

/// # Safety
/// Only in a child of [`clone_child`] whose signal dispositions are the default ones: a signal that waits is delivered
/// here.
unsafe fn unblock_signals() {
    let mut none = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: `none` is written by the first call before the second reads it; neither can fail on valid addresses.
    unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), ptr::null_mut());
    }
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn connect_stdio(sources: [BorrowedFd<'_>; 3]) -> Result<(), Failure> {
    let mut sources = sources.map(|source| source.as_raw_fd());
    // A source that lies among 0 to 2 would be overwritten by an earlier target, or keep its close-on-exec flag when
    // it is its own target: move it away first.
    for source in &mut sources {
        if *source <= libc::STDERR_FILENO {
            // SAFETY: duplicates an open descriptor of this process's own table.
            *source = unsafe { libc::fcntl(*source, libc::F_DUPFD_CLOEXEC, 3) };
            if *source == -1 {
                return Err((Step::StandardStreams, Errno::last()));
            }
        }
    }
    for (source, target) in sources.into_iter().zip(libc::STDIN_FILENO..) {
        // SAFETY: this process's own table; what `target` was is not needed any more.
        if unsafe { libc::dup2(source, target) } == -1 {
            return Err((Step::StandardStreams, Errno::last()));
        }
    }
    // What this program opens is close-on-exec; what was left open in it by whoever started it may not be. A kernel
    // before 5.11 or a seccomp filter refuses this, and then a child inherits those, as under any other parent.
    // SAFETY: changes a flag in this process's own table.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn apply_limits(plan: &Plan<'_>) -> Result<(), Failure> {
    if let Some(nice) = plan.nice {
        let arguments = [c_long::from(libc::PRIO_PROCESS as c_int), 0, c_long::from(nice), 0];
        // SAFETY: numbers only; the process named is the caller (0).
        unsafe { call(Step::Nice, libc::SYS_setpriority, arguments) }?;
    }
    for setting in plan.limits {
        let limit = libc::rlimit64 {
            rlim_cur: setting.soft,
            rlim_max: setting.hard,
        };
        let arguments = [0, setting.resource as c_long, address(&raw const limit), 0];
        // SAFETY: the kernel reads `limit`, of the layout it expects, and is given no place for the old value.
        unsafe { call(Step::Limit(setting.resource), libc::SYS_prlimit64, arguments) }?;
    }
    Ok(())
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn assume(credentials: &Credentials) -> Result<(), Failure> {
    let groups = &credentials.supplementary_groups;
    // Allocations are no larger than `isize::MAX`, so the length fits.
    let arguments = [groups.len().cast_signed() as c_long, address(groups.as_ptr()), 0, 0];
    // SAFETY: the kernel reads as many ids as it is told there are. The user comes last: from then on this process may
    // lack the privilege for the others.
    unsafe {
        call(Step::SupplementaryGroups, SYS_setgroups, arguments)?;
        if let Some(group) = credentials.group {
            call(Step::Group, SYS_setgid, [id(group), 0, 0, 0])?;
        }
        if let Some(user) = credentials.user {
            call(Step::User, SYS_setuid, [id(user), 0, 0, 0])?;
        }
    }
    Ok(())
}

/// An id as an argument of [`call`]; the kernel looks at 32 bits.
fn id(number: u32) -> c_long {
    number.cast_signed() as c_long
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn die_with_parent(parent: Pid) -> Result<(), Failure> {
    let arguments = [c_long::from(libc::PR_SET_PDEATHSIG), c_long::from(libc::SIGKILL), 0, 0];
    // SAFETY: numbers only.
    unsafe { call(Step::ParentDeathSignal, libc::SYS_prctl, arguments) }?;
    // The parent may have died before the call above: then nobody would send the signal.
    if nix::unistd::getppid() != parent {
        // SAFETY: ends this process alone. Nobody is left to read a failure.
        unsafe { libc::_exit(127) };
    }
    Ok(())
}

/// Forks the guard, which reads `input` until its end and then kills the groups in `table`.
pub(super) fn fork_guard(input: BorrowedFd<'_>, table: &GroupTable) -> Result<(Pid, OwnedFd), Errno> {
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
    super::guard::stand_watch(kept, table);
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

/// A descriptor for a child that is not reaped yet.
pub(super) fn pidfd_open(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: numbers only.
    let result = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let descriptor = RawFd::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: new, and owned by nobody else. The kernel has set close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Whether a look at an exited child also takes it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// It stays a zombie, and its id its own.
    Look,
    /// It is gone, and its id free.
    Reap,
}

/// The status of the child behind `pidfd`; `None` while it runs.
///
/// Not nix's `waitid`: that one loses the status of a child ended by a real-time signal, after having reaped it.
pub(super) fn wait(pidfd: impl AsFd, wait: Wait) -> io::Result<Option<ExitStatus>> {
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
    // SAFETY: the kernel writes one `siginfo_t` to the place it is given. WNOHANG: EINTR cannot come.
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

/// Makes the exits of children known to this process alone, whatever it was started with: while SIGCHLD is ignored,
/// which is inherited, the kernel reaps children by itself, their status is lost and their ids pass on while we still
/// use them. Call it before the first child.
///
/// # Errors
/// None that Linux knows.
pub fn claim_children() -> nix::Result<()> {
    // SAFETY: the default disposition runs no code of ours, and no handler of this program is lost: it has none for
    // SIGCHLD, since every exit is a pidfd's event.
    unsafe { signal(Signal::SIGCHLD, SigHandler::SigDfl) }.map(drop)
}

/// How many bytes lie in a pipe unread. On Linux either end may be asked.
///
/// # Errors
/// Those of `ioctl(2)`: ENOTTY for a descriptor that is not a pipe.
pub fn unread_bytes(pipe: impl AsFd) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one int to the place it is given.
    Errno::result(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    // A pipe holds far less than 2 GiB, so the count is never negative.
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Sets the size of a terminal's window, in characters.
pub(super) fn set_window_size(terminal: BorrowedFd<'_>, lines: u16, columns: u16) -> Result<(), Errno> {
    // `struct winsize`, whose last two numbers, in pixels, nobody knows.
    let size = [lines, columns, 0_u16, 0];
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives through the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}
