//! Writes into the memory of this process by address: all `unsafe` of the clients.
#![allow(unsafe_code)]

use std::ptr::with_exposed_provenance_mut;

/// Replaces the NUL between the first two words of this process's command line by a dash, as other processes see it.
/// `begin` is the address of the command line according to the kernel (arg_start in proc(5)), and `offset` the distance
/// to the NUL after its first word; both must have been read from this process's own entries in /proc since its start.
pub(super) fn join_arguments(begin: usize, offset: usize) {
    let Some(address) = begin.checked_add(offset) else {
        return;
    };
    let byte = with_exposed_provenance_mut::<u8>(address);
    // SAFETY: the kernel laid out the command line at `begin` when it made this process, in the writable pages above
    // its stack, which stay for its whole life, and /proc has just shown a NUL at `offset`, with more words after it:
    // so this is one live byte. std has pointers into it and reads through them only in std::env::args, which has been
    // called before for the command line and which no thread calls at the same time; a later call would find a longer
    // first word, which still ends in a NUL. No reference to it exists.
    unsafe { byte.write_volatile(b'-') };
}
