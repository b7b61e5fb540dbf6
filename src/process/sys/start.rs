//! The vfork-like start of a program, from before its clone to its exec.
//!
//! `clone(CLONE_VM | CLONE_VFORK)` makes a process that borrows the daemon's memory instead of copying its page tables,
//! so the cost does not grow with the daemon. The calling thread stands still until the child has exec'ed or exited.
//! Between the two the child runs on this program's memory, and these rules hold for every line from [`child_main`]
//! down:
//!
//! * It has a stack of its own, so it cannot overwrite the frames of the caller, which goes on with them.
//! * No signal handler can run in it: all signals are blocked before the clone, and unblocked in the child only when
//!   every disposition is the default one. (Dispositions and mask are the child's own: no `CLONE_SIGHAND`.)
//! * It calls nothing that may lock, allocate, or unwind: other threads still run and may hold any lock. The parent has
//!   prepared everything that it needs.
//! * Its thread-local storage is the calling thread's. Of that it changes `errno` alone, which the parent, standing
//!   still, does not read across the call.
//! * Descriptors are a copy (no `CLONE_FILES`): the ones that it moves and closes are its own.
//! * `setuid` and its like are raw calls. Those of the C library would signal all threads *of the daemon* to follow.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::convert::Infallible;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

#[cfg(target_pointer_width = "64")]
use libc::{SYS_setgid, SYS_setgroups, SYS_setuid};
#[cfg(target_pointer_width = "32")]
use libc::{SYS_setgid32 as SYS_setgid, SYS_setgroups32 as SYS_setgroups, SYS_setuid32 as SYS_setuid};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;

use super::memory::ChildStack;
use crate::process::failure::Step;
use crate::process::plan::{Credentials, Plan};
use crate::process::program::is_skipped_in_path;
use crate::process::watchdog::{Watchdog, Watched};

/// A step and its errno.
type Failure = (Step, Errno);

/// A [`Plan`], further data that the child needs, and the place where it leaves its failure.
struct ChildView<'a> {
    plan: &'a Plan<'a>,
    argv: *const *const c_char,
    environment: *const *const c_char,
    failure: Option<Failure>,
    /// The progress of the child, for the parent that finds it dead.
    at: AtomicU8,
    /// The beginning of a file that exists although exec says that there is no such file.
    script: [u8; SCRIPT_LENGTH],
    script_length: usize,
}

/// The number of bytes of a script that the kernel itself reads for its first line (`BINPRM_BUF_SIZE`).
const SCRIPT_LENGTH: usize = 256;

/// The values of [`ChildView::at`]: the phases in which another process or a file system may hold a child.
const BEFORE: u8 = 0;
const IN_DIRECTORY: u8 = 1;
const IN_EXEC: u8 = 2;

/// The reason why there is no child.
#[derive(Debug)]
pub(in crate::process) struct Refusal {
    pub(in crate::process) step: Step,
    pub(in crate::process) errno: Errno,
    pub(in crate::process) detail: Detail,
}

/// Details that a step and an errno do not tell.
#[derive(Debug)]
pub(in crate::process) enum Detail {
    /// No details.
    None,
    /// The file exists and begins with these bytes.
    Script(Vec<u8>),
    /// The child took too long and was killed.
    Stuck,
}

impl Refusal {
    const fn plain((step, errno): Failure) -> Self {
        Self {
            step,
            errno,
            detail: Detail::None,
        }
    }
}

/// Starts a program. When this returns, the exec has succeeded or there is no child any more.
///
/// # Errors
/// The reason why there is no child.
pub(in crate::process) fn spawn(
    plan: &Plan<'_>,
    stack: &mut ChildStack,
    watchdog: &Watchdog,
) -> Result<(Pid, OwnedFd), Refusal> {
    let (argv, environment) = (pointers(plan.argv.iter()), pointers(plan.variables()));
    let mut view = ChildView {
        plan,
        argv: argv.as_ptr(),
        environment: environment.as_ptr(),
        failure: None,
        at: AtomicU8::new(BEFORE),
        script: [0; SCRIPT_LENGTH],
        script_length: 0,
    };
    let no_process = |errno| Refusal::plain((Step::NewProcess, errno));
    let watched = watchdog.over(|pidfd| clone_child(&mut view, stack, pidfd));
    let Watched { outcome, killed } = watched.map_err(no_process)?;
    let (pid, pidfd) = outcome.map_err(no_process)?;
    let failure = view.failure.take();
    // A child that has written its failure is in `_exit` or past it, and a child that was killed before its exec is
    // past that. A child that was killed in the moment after its exec may still be in the kernel: then it is a child
    // like any other, and the caller will notice its end.
    if failure.is_none() && !(killed && has_ended(&pidfd)) {
        return Ok((pid, pidfd));
    }
    // Before its id can be reused.
    if let Some(list) = plan.watch_list {
        list.remove(pid);
    }
    // This takes microseconds at most. An error could only mean that there is no such child, and then there is nothing
    // to reap.
    while waitpid(pid, None) == Err(Errno::EINTR) {}
    Err(view.refusal(failure))
}

impl ChildView<'_> {
    fn refusal(&self, failure: Option<Failure>) -> Refusal {
        let Some(failure) = failure else {
            let step = match self.at.load(Ordering::Relaxed) {
                BEFORE => Step::NewProcess,
                IN_DIRECTORY => Step::WorkingDirectory,
                _ => Step::Exec,
            };
            return Refusal {
                step,
                errno: Errno::ETIMEDOUT,
                detail: Detail::Stuck,
            };
        };
        let script = self.script.get(..self.script_length).unwrap_or_default();
        match failure {
            (Step::Lookup | Step::Exec, Errno::ENOENT) if !script.is_empty() => Refusal {
                step: Step::Exec,
                errno: Errno::ENOENT,
                detail: Detail::Script(script.to_vec()),
            },
            failure => Refusal::plain(failure),
        }
    }
}

/// Returns true if the child ends within moments.
fn has_ended(pidfd: &OwnedFd) -> bool {
    let mut ended = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    // A signal of this thread that ends the wait early only makes it a child like any other.
    poll(&mut ended, PollTimeout::from(END_TIMEOUT)).is_ok_and(|ready| ready > 0)
}

/// The milliseconds for which the end of a killed child is awaited.
const END_TIMEOUT: u8 = 250;

/// Returns the array that `execve` needs: a pointer for each string, and a null pointer. Valid as long as `strings`.
fn pointers<'a>(strings: impl Iterator<Item = &'a CStr>) -> Vec<*const c_char> {
    let mut pointers = Vec::with_capacity(USUAL_STRINGS);
    pointers.extend(strings.map(CStr::as_ptr));
    pointers.push(ptr::null());
    pointers
}

/// The number of strings for which there is room in one piece of memory: more than most programs have variables.
const USUAL_STRINGS: usize = 128;

/// Makes the child. Another thread may read `pidfd` meanwhile: the kernel stores it before this thread stands still.
fn clone_child(view: &mut ChildView<'_>, stack: &mut ChildStack, pidfd: &AtomicI32) -> Result<(Pid, OwnedFd), Errno> {
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD;
    let unused = ptr::null_mut::<c_void>();
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: `child_main` gets the `ChildView` it expects, which no one else touches while the child may: CLONE_VFORK
    // keeps this thread here until the child no longer uses this memory, so `view`, all that it borrows, `pidfd` and
    // the stack outlive the child's use of them. The stack is mapped, page-aligned, grows down from its top and has no
    // other user: it is borrowed mutably until then. The child's use of the shared memory follows the rules at the head
    // of this file. The flags do not request the thread pointer and the child's thread id, so their arguments are not
    // used.
    let result = unsafe {
        libc::clone(
            child_main,
            stack.top(),
            flags,
            ptr::from_mut(view).cast(),
            pidfd.as_ptr(),
            unused,
            unused,
        )
    };
    let outcome = Errno::result(result);
    // Cannot fail: the kernel refuses only an unknown operation or a bad address.
    let _ = mask.thread_set_mask();
    let pid = Pid::from_raw(outcome?);
    // SAFETY: clone succeeded, so CLONE_PIDFD has stored a new descriptor without another owner.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd.load(Ordering::Relaxed)) }))
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

/// Turns the child into the program. The order matters. Limits and niceness come before the credentials, because
/// raising them may need the privilege that is given up there. The directory comes after them, because the child's user
/// must be able to enter it, and so does the parent-death signal, because a change of credentials clears it
/// (`PR_SET_PDEATHSIG(2const)`). The sandbox is last, because it requires a process without privileges to have given up
/// new ones, and would apply to the files that are opened here.
///
/// # Safety
/// Only in a child of [`clone_child`], with all signals blocked.
unsafe fn become_program(view: &mut ChildView<'_>) -> Result<Infallible, Failure> {
    let plan = view.plan;
    // SAFETY: the caller's promise is that of each of these.
    unsafe {
        plan.signals.reset();
        // A terminal of the daemon then belongs to another session: the child can neither open it as `/dev/tty` nor be
        // stopped by it. The child also leads a group of its own then.
        let session = call(Step::Session, libc::SYS_setsid, [0, 0, 0, 0])?;
        // Before it has started anything, and while it has the daemon's rights.
        if let Some(entrance) = plan.entrance {
            entrance.enter();
        }
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
            view.at.store(IN_DIRECTORY, Ordering::Relaxed);
            call(
                Step::WorkingDirectory,
                libc::SYS_chdir,
                [address(directory.as_ptr()), 0, 0, 0],
            )?;
        }
        die_with_parent(plan.parent)?;
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
        // From here on the guard knows it, whatever happens to the daemon; see `watch_list`.
        if let Some(list) = plan.watch_list {
            // The session has the number of the process, which always fits.
            list.insert(Pid::from_raw(libc::pid_t::try_from(session).unwrap_or_default()));
        }
        unblock_signals();
        view.at.store(IN_EXEC, Ordering::Relaxed);
        let (step, errno) = run(view);
        if errno == Errno::ENOENT {
            look_for_script(view);
        }
        Err((step, errno))
    }
}

/// Runs the first candidate that can be run, as `execvp(3)` does, but does not give a script without a `#!` line to a
/// shell. Returns only if there is none.
///
/// # Safety
/// Only in a child of [`clone_child`], as its last step.
unsafe fn run(view: &ChildView<'_>) -> Failure {
    let candidates = view.plan.program;
    let mut denied = false;
    for path in candidates.iter() {
        // This call reports a missing file in half the time of execve, and the file is missing in most directories of
        // PATH. Everything else, above all the rights, is for execve to decide.
        let arguments = [
            c_long::from(libc::AT_FDCWD),
            address(path.as_ptr()),
            c_long::from(libc::F_OK),
            0,
        ];
        // SAFETY: a string that the parent has prepared.
        let is_there = || unsafe { call(Step::Lookup, libc::SYS_faccessat, arguments) };
        if candidates.are_searched() && matches!(is_there(), Err((_, Errno::ENOENT | Errno::ENOTDIR))) {
            continue;
        }
        let arguments = [address(path.as_ptr()), address(view.argv), address(view.environment), 0];
        // SAFETY: the parent has prepared the strings and arrays, which live until it goes on. execve returns only if
        // it fails.
        let Err((step, errno)) = (unsafe { call(Step::Exec, libc::SYS_execve, arguments) }) else {
            return (Step::Exec, Errno::UnknownErrno);
        };
        match errno {
            _ if !candidates.are_searched() => return (step, errno),
            Errno::EACCES => denied = true,
            errno if is_skipped_in_path(errno) => {}
            errno => return (step, errno),
        }
    }
    (Step::Lookup, if denied { Errno::EACCES } else { Errno::ENOENT })
}

/// Reads the beginning of a script, because the file that does not exist may be its interpreter.
///
/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn look_for_script(view: &mut ChildView<'_>) {
    let flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;
    for path in view.plan.program.iter() {
        let arguments = [
            c_long::from(libc::AT_FDCWD),
            address(path.as_ptr()),
            c_long::from(flags),
            0,
        ];
        // SAFETY: opens a file in this process's own table, for reading. A file that cannot be read gives no details.
        let Ok(file) = (unsafe { call(Step::Exec, libc::SYS_openat, arguments) }) else {
            continue;
        };
        let arguments = [file, address(view.script.as_mut_ptr()), SCRIPT_LENGTH as c_long, 0];
        // SAFETY: the kernel writes at most as many bytes as there are. The descriptor is closed with this process.
        let read = unsafe { call(Step::Exec, libc::SYS_read, arguments) };
        view.script_length = read.ok().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
        return;
    }
}

/// Returns a pointer as an argument of [`call`].
fn address<T>(pointer: *const T) -> c_long {
    pointer.expose_provenance().cast_signed() as c_long
}

/// Makes one raw system call: no cancellation point, and no more than the call, unlike some of the C library's
/// wrappers.
///
/// # Safety
/// As on the call's manual page; pointers among the arguments must be valid for its use of them.
unsafe fn call(step: Step, number: c_long, [a, b, c, d]: [c_long; 4]) -> Result<c_long, Failure> {
    // SAFETY: the caller's promise. A fifth argument (prctl) must be zero if there is one.
    let result = unsafe { libc::syscall(number, a, b, c, d, 0) };
    if result == -1 {
        Err((step, Errno::last()))
    } else {
        Ok(result)
    }
}

/// # Safety
/// Only in a child of [`clone_child`] whose signal dispositions are the default ones: a pending signal is delivered
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
    // A source with a number from 0 to 2 would be overwritten by an earlier target, or would keep its close-on-exec
    // flag if it is its own target. So it is moved first.
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
        // SAFETY: this process's own table; the former `target` is not needed any more.
        if unsafe { libc::dup2(source, target) } == -1 {
            return Err((Step::StandardStreams, Errno::last()));
        }
    }
    // This program's own descriptors are close-on-exec, but descriptors that its parent left open in it may not be. A
    // kernel before 5.11 or a seccomp filter refuses this call, and then a child inherits those, as from any parent.
    // SAFETY: changes a flag in this process's own table.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn apply_limits(plan: &Plan<'_>) -> Result<(), Failure> {
    if let Some(nice) = plan.nice {
        let arguments = [c_long::from(libc::PRIO_PROCESS as c_int), 0, c_long::from(nice), 0];
        // SAFETY: numbers only; the process is the caller (0).
        unsafe { call(Step::Nice, libc::SYS_setpriority, arguments) }?;
    }
    for setting in plan.limits {
        let limit = libc::rlimit64 {
            rlim_cur: setting.soft,
            rlim_max: setting.hard,
        };
        let arguments = [0, setting.resource as c_long, address(&raw const limit), 0];
        // SAFETY: the kernel reads `limit`, which has the expected layout, and is given no address for the old value.
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
    // SAFETY: the kernel reads as many ids as the given length says. The user comes last: from then on this process may
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

/// Returns an id as an argument of [`call`]. The kernel reads 32 bits.
fn id(number: u32) -> c_long {
    number.cast_signed() as c_long
}

/// # Safety
/// Only in a child of [`clone_child`].
unsafe fn die_with_parent(parent: Pid) -> Result<(), Failure> {
    let arguments = [c_long::from(libc::PR_SET_PDEATHSIG), c_long::from(libc::SIGKILL), 0, 0];
    // SAFETY: numbers only.
    unsafe { call(Step::ParentDeathSignal, libc::SYS_prctl, arguments) }?;
    // The parent may have died before the call above: then the signal would not be sent.
    if nix::unistd::getppid() != parent {
        // SAFETY: ends this process alone. A failure cannot be reported any more.
        unsafe { libc::_exit(127) };
    }
    Ok(())
}
