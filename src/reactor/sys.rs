//! The system call of this room that no wrapper has: all of its `unsafe`.
#![allow(unsafe_code)]

/// The amount by which the nice value of a helper thread is higher than that of the loop: a tenth of its weight with the
/// scheduler.
const NICER: libc::c_int = 10;

/// Lowers the priority of the calling thread, and of no other: on Linux a nice value belongs to a thread (setpriority(2),
/// "C library/kernel differences"). It needs no privilege and has a bound of its own, so there is nothing to fail.
pub(super) fn lower_priority() {
    // SAFETY: nice takes a number and touches no memory of ours.
    let _ = unsafe { libc::nice(NICER) };
}

#[cfg(test)]
mod tests {
    use std::thread;

    fn nice() -> i32 {
        // SAFETY: numbers only. On Linux this is the value of the calling thread.
        unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
    }

    #[test]
    fn the_priority_of_other_threads_stays() {
        let before = nice();
        let lowered = thread::spawn(|| {
            super::lower_priority();
            nice()
        });
        assert_eq!(lowered.join().unwrap(), (before + super::NICER).min(19));
        assert_eq!(nice(), before);
    }
}
