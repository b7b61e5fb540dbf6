//! Memory that is mapped, and not allocated: what a child stands on until its exec, and what a fork has in common with us.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// Memory of its own, all zeros, unmapped when it is dropped.
#[derive(Debug)]
struct Mapping {
    base: *mut c_void,
    length: usize,
}

// SAFETY: it is made once and unmapped once, by whatever thread has it then; what is done with the memory in between is
// up to those who own one.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Of a file, or of nothing.
    fn new(length: usize, protection: c_int, sharing: c_int, file: Option<&OwnedFd>) -> Result<Self, Errno> {
        let (anonymous, descriptor) = match file {
            Some(file) => (0, file.as_raw_fd()),
            None => (libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. What it shows of a file
        // is used as atomic numbers alone, which every other process with the file changes as such as well.
        let base = unsafe { libc::mmap(ptr::null_mut(), length, protection, sharing | anonymous, descriptor, 0) };
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
        let stack = Mapping::new(Self::SIZE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_STACK, None)?;
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

/// Numbers that this process and others have in common, zeros at first. Untouched pages of them take no memory.
///
/// They lie in a memory file, so that a process which runs another program can have them too; where there is none to be had
/// (a filter of system calls) they are shared with forks alone.
#[derive(Debug)]
pub(in crate::process) struct SharedWords {
    memory: Mapping,
    file: Option<OwnedFd>,
}

// SAFETY: nothing of it is shown but atomic numbers, which threads may use as other processes do.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    const PROTECTION: c_int = libc::PROT_READ | libc::PROT_WRITE;

    pub(in crate::process) fn map(count: usize) -> Result<Self, Errno> {
        let length = count * size_of::<AtomicU64>();
        let file = memory_file(length).ok();
        let memory = Mapping::new(length, Self::PROTECTION, libc::MAP_SHARED, file.as_ref())?;
        Ok(Self { memory, file })
    }

    /// Those that another process has made; the whole file, which must not become shorter.
    pub(super) fn of(file: OwnedFd) -> Result<Self, Errno> {
        let length = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::EFBIG)?;
        let memory = Mapping::new(length, Self::PROTECTION, libc::MAP_SHARED, Some(&file))?;
        Ok(Self { memory, file: None })
    }

    /// The file, where there is one.
    pub(in crate::process) const fn descriptor(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    pub(in crate::process) fn words(&self) -> &[AtomicU64] {
        let count = self.memory.length / size_of::<AtomicU64>();
        // SAFETY: the mapping lives as long as `self`, is aligned to a page and initialised with zeros; any other process that
        // has it changes it by atomic operations as well, and nobody makes its file shorter: it has no name, and only the guard
        // is given it.
        unsafe { std::slice::from_raw_parts(self.memory.base.cast(), count) }
    }
}

fn memory_file(length: usize) -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"io-guard-list", MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&file, i64::try_from(length).map_err(|_| Errno::EFBIG)?)?;
    Ok(file)
}
