//! All system calls of this room that no safe wrapper offers, and nothing else, one topic in each file: the vfork-like
//! [start] of a program, the fork of the [guard] and the [image] that it runs, [waiting](mod@wait) on a pidfd, the
//! [rights] for looking at files, mapped [memory], the [time slice](time_slice) of a thread, and in this file the calls
//! for pipes and terminals.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

mod dispositions;
mod guard;
mod image;
mod memory;
mod rights;
mod start;
mod time_slice;
mod wait;

use std::ffi::{CStr, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;

pub(super) use dispositions::SignalBits;
pub(super) use guard::{GuardStart, GuardState, fork_guard, state_of_guard, take_over_as_guard};
pub(super) use memory::{ChildStack, SharedWords};
pub(super) use rights::with_rights_of;
pub(super) use start::{Detail, Refusal, spawn};
pub use time_slice::shorten as shorten_time_slice;
pub use wait::claim_children;
pub(super) use wait::{Wait, any_exited, borrow, pidfd_open, reap, signal, wait};

/// Returns the number of bytes in a pipe that were not read. On Linux either end may be asked.
///
/// # Errors
/// Those of `ioctl(2)`: ENOTTY for a descriptor that is not a pipe.
pub fn unread_bytes(pipe: impl AsFd) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: FIONREAD writes one int to the given address.
    Errno::result(unsafe { libc::ioctl(pipe.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    // A pipe holds far less than 2 GiB, so the count is never negative.
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Reads an extended attribute into `value` and returns its length.
///
/// # Errors
/// Those of `getxattr(2)`: ENODATA, ENOTSUP, and ERANGE if there is not enough room.
pub(super) fn extended_attribute(path: &CStr, name: &CStr, value: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: both strings end with a zero, and the kernel writes at most as many bytes as `value` has.
    let length = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    // A negative value is an error and was returned.
    Errno::result(length).map(|length| usize::try_from(length).unwrap_or(0))
}

/// Sets the size of a terminal's window, in characters.
pub(super) fn set_window_size(terminal: BorrowedFd<'_>, lines: u16, columns: u16) -> Result<(), Errno> {
    // `struct winsize`, whose last two numbers, in pixels, are not known.
    let size = [lines, columns, 0_u16, 0];
    // SAFETY: TIOCSWINSZ reads one `winsize`, which lives through the call.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}
