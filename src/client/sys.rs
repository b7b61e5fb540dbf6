//! What the clients do to the memory of their process by its address: all of their `unsafe`.
#![allow(unsafe_code)]

use std::ptr::with_exposed_provenance_mut;

/// Joins the first two words of this process's command line, as other processes see it, by a dash. `begin` is the address that
/// the kernel has for the command line (arg_start in proc(5)), and `offset` the distance to the NUL behind its first word; both
/// must have been read from this process's own entries in /proc since it was started.
pub(super) fn join_arguments(begin: usize, offset: usize) {
    let Some(address) = begin.checked_add(offset) else {
        return;
    };
    let byte = with_exposed_provenance_mut::<u8>(address);
    // SAFETY: the kernel has laid the command line out at `begin` when it made this process, in the writable pages above its
    // stack, which stay for its whole life, and /proc has just been read to show a NUL `offset` bytes on, with more words
    // behind it: so this is one live byte. std has pointers into it and reads through them only in std::env::args, which the
    // command line has been taken from before and no thread calls at the same time; a later call would find a longer first word,
    // which still ends in a NUL. No reference to it exists.
    unsafe { byte.write_volatile(b'-') };
}
