//! Memory that is mapped, and not allocated: what a child stands on until its exec, and what a fork has in common with us.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;

/// Memory of its own, all zeros, unmapped when it is dropped.
#[derive(Debug)]
struct Mapping {
    base: *mut c_void,
    length: usize,
}

impl Mapping {
    fn new(length: usize, protection: c_int, sharing: c_int) -> Result<Self, Errno> {
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                protection,
                libc::MAP_ANONYMOUS | sharing,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            Err(Errno::last())
        } else {
            Ok(Self { base, length })
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `new`, unmapped once; what was lent of it has ended.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// Memory for a child to run on until its exec, with an inaccessible page below it: an overflow would be a fault in
/// the child instead of a change to the daemon's memory. One child after the other may use it; each that ran on it has
/// exec'ed or exited before its `clone` returned.
#[derive(Debug)]
pub(in crate::process) struct ChildStack(Mapping);

impl ChildStack {
    /// The child's frames are a few hundred bytes; this is the smallest guard that fits every page size of Linux.
    const GUARD: usize = 64 * 1024;
    const SIZE: usize = Self::GUARD + 64 * 1024;

    pub(in crate::process) fn map() -> Result<Self, Errno> {
        let stack = Mapping::new(Self::SIZE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_STACK)?;
        let usable = stack.base.wrapping_byte_add(Self::GUARD);
        // SAFETY: the range lies within the mapping just made, which nobody uses yet, and begins on a page boundary.
        let result = unsafe { libc::mprotect(usable, Self::SIZE - Self::GUARD, libc::PROT_READ | libc::PROT_WRITE) };
        Errno::result(result)?;
        Ok(Self(stack))
    }

    pub(super) fn top(&self) -> *mut c_void {
        self.0.base.wrapping_byte_add(Self::SIZE)
    }
}

/// Numbers that this process and those that it forks have in common, zeros at first. Untouched pages of them take no memory.
#[derive(Debug)]
pub(in crate::process) struct SharedWords(Mapping);

impl SharedWords {
    pub(in crate::process) fn map(count: usize) -> Result<Self, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::new(count * size_of::<AtomicU64>(), protection, libc::MAP_SHARED).map(Self)
    }

    pub(in crate::process) fn words(&self) -> &[AtomicU64] {
        let count = self.0.length / size_of::<AtomicU64>();
        // SAFETY: the mapping lives as long as `self`, is aligned to a page and initialised with zeros; whoever else has it
        // changes it by atomic operations as well.
        unsafe { std::slice::from_raw_parts(self.0.base.cast(), count) }
    }
}
