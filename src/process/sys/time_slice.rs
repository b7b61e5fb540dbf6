//! The time for which the scheduler leaves a processor to one thread.
//!
//! A thread whose slice is shorter than that of the running process may take its place when it wakes up (EEVDF, Linux
//! 6.12; `sched_setattr(2)`, `sched_runtime` of `SCHED_OTHER`). With equal slices, a new session leader, whose account
//! with the scheduler is new, keeps the processor until its slice is over, and the loop waits although another
//! processor is idle.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::mem;

use nix::errno::Errno;

/// The shortest slice that Linux grants, in nanoseconds.
const SHORTEST: u64 = 100_000;

/// Gives this thread, but no process or thread that it starts, the shortest slice. An older kernel accepts and ignores
/// it.
///
/// Does nothing and returns false if the thread has another policy than `SCHED_OTHER` or a nice value below 0: its
/// children must inherit those, and the flag that keeps them from inheriting the slice would reset these as well.
///
/// # Errors
/// A filter refuses the system calls (EPERM, ENOSYS).
pub fn shorten() -> Result<bool, Errno> {
    let mut attributes = of_this_thread()?;
    if attributes.sched_policy != libc::SCHED_OTHER.cast_unsigned() || attributes.sched_nice < 0 {
        return Ok(false);
    }
    attributes.sched_flags = RESET_ON_FORK;
    attributes.sched_runtime = SHORTEST;
    // SAFETY: the kernel reads `size` bytes of a structure of that size, which lives through the call.
    let set = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(set).map(|_| true)
}

/// `SCHED_FLAG_RESET_ON_FORK` of `linux/sched.h`.
const RESET_ON_FORK: u64 = 0x01;

fn of_this_thread() -> Result<libc::sched_attr, Errno> {
    // SAFETY: a structure of integers, for which all bits clear is a value.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let size = mem::size_of_val(&attributes);
    // SAFETY: the kernel writes no more than `size` bytes there, and only integers.
    let got = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    Errno::result(got).map(|_| attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice() -> u64 {
        of_this_thread().expect("no filter is in force").sched_runtime
    }

    #[test]
    fn children_of_a_thread_with_a_short_slice_have_the_usual_one() {
        let usual = slice();
        let (own, started) = std::thread::spawn(|| {
            // SAFETY: numbers only. On Linux this is the priority of the calling thread, which the test may have been
            // started with below 0; raising the number needs no privilege.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) };
            assert_eq!(shorten(), Ok(true));
            (slice(), std::thread::spawn(slice).join())
        })
        .join()
        .expect("the thread ends");
        assert_eq!(started.expect("the thread ends"), usual);
        // A kernel without slices per thread reports 0 for every thread.
        assert_eq!(own, if usual == 0 { 0 } else { SHORTEST });
    }
}
