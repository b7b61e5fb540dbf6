//! The signal dispositions of a process, which a child would inherit: an ignored signal stays ignored through an exec,
//! and until the exec a handler of the daemon could run in the child, in the daemon's memory.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::c_long;
use std::ptr;

use nix::errno::Errno;

/// A set of signals: bit N − 1 stands for signal N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::process) struct SignalBits(u64);

/// The kernel's `struct sigaction`, which is no longer than this on any architecture. Its first word is the disposition
/// on all architectures but MIPS, where it is the flags. All zeros mean SIG_DFL, no flags and an empty mask.
type Action = [usize; 16];
static DEFAULT: Action = [0; 16];
/// The index of the disposition itself. The rest has no effect where it is SIG_DFL.
const DISPOSITION: usize = if cfg!(any(target_arch = "mips", target_arch = "mips64")) {
    1
} else {
    0
};
/// The kernel's masks are 64 bits long.
const MASK: usize = size_of::<u64>();

impl SignalBits {
    /// Returns the signals whose dispositions are not the default now, inherited or set. A caller that asks once for
    /// many children must set no others in between: this program sets dispositions only at its start.
    ///
    /// Uses raw calls, because the C library's `sigaction` refuses the two signals that it keeps for itself, and the
    /// process that started the daemon may have left those ignored as well.
    pub(in crate::process) fn with_dispositions() -> Self {
        let is_changed = |signal: &c_long| {
            let mut action = DEFAULT;
            // SAFETY: the kernel writes one `struct sigaction`, for which there is room, and changes nothing.
            let result = unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    *signal,
                    ptr::null::<Action>(),
                    &raw mut action,
                    MASK,
                )
            };
            // A disposition that cannot be read is reset.
            Errno::result(result).is_err() || action.get(DISPOSITION) != Some(&libc::SIG_DFL)
        };
        let bits = (1..=c_long::from(libc::SIGRTMAX()))
            .filter(is_changed)
            .map(|signal| 1 << (signal - 1));
        Self(bits.fold(0, |all, bit: u64| all | bit))
    }

    fn iter(self) -> impl Iterator<Item = c_long> {
        (0..c_long::from(u64::BITS))
            .filter(move |bit| self.0 >> bit & 1 == 1)
            .map(|bit| bit + 1)
    }

    /// Resets the dispositions of these signals to the default. Neither locks nor allocates.
    ///
    /// # Safety
    /// Only in a process that needs no handler any more: between a clone without `CLONE_SIGHAND` and an exec.
    pub(super) unsafe fn reset(self) {
        for signal in self.iter() {
            // SAFETY: the kernel reads one `struct sigaction`, and changes a disposition of this process alone. It
            // refuses SIGKILL and SIGSTOP, whose dispositions are always the default.
            unsafe {
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    &raw const DEFAULT,
                    ptr::null_mut::<Action>(),
                    MASK,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dispositions_that_were_changed_are_reset() {
        // The standard library ignores SIGPIPE, before `main`.
        let changed: Vec<_> = SignalBits::with_dispositions().iter().collect();
        assert!(changed.contains(&c_long::from(libc::SIGPIPE)), "{changed:?}");
        assert!(!changed.contains(&c_long::from(libc::SIGKILL)) && !changed.contains(&c_long::from(libc::SIGVTALRM)));
    }
}
