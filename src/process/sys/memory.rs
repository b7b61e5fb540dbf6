//! Memory that is mapped and not allocated: the stack of a child until its exec, and words that are shared with other
//! processes.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// A mapping that is unmapped when it is dropped, all zeros if it is not of a file.
#[derive(Debug)]
struct Mapping {
    base: *mut c_void,
    length: usize,
}

// SAFETY: it is made once and unmapped once, by whichever thread owns it then. The owner is responsible for every use
// of the memory in between.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a file, or anonymous memory if there is none.
    fn new(length: usize, protection: c_int, sharing: c_int, file: Option<&OwnedFd>) -> Result<Self, Errno> {
        let (anonymous, descriptor) = match file {
            Some(file) => (0, file.as_raw_fd()),
            None => (libc::MAP_ANONYMOUS, -1),
        };
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists. The mapped part of a
        // file is used only as atomic numbers, and every other process with the file changes it as such as well.
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
        // SAFETY: this is exactly the mapping made by `new`, unmapped once, and all borrows of it have ended.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// The stack of a child until its exec, with an inaccessible page below it: an overflow is a fault in the child and
/// does not change the daemon's memory. Children may use it one after another, because each has exec'ed or exited
/// before its `clone` returns.
#[derive(Debug)]
pub(in crate::process) struct ChildStack(Mapping);

impl ChildStack {
    /// The child's frames are a few hundred bytes. This is the smallest guard area that fits every page size of Linux.
    const GUARD: usize = 64 * 1024;
    const SIZE: usize = Self::GUARD + 64 * 1024;

    pub(in crate::process) fn map() -> Result<Self, Errno> {
        let stack = Mapping::new(Self::SIZE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_STACK, None)?;
        let usable = stack.base.wrapping_byte_add(Self::GUARD);
        // SAFETY: the range lies within the mapping just made, which is not used yet, and begins on a page boundary.
        let result = unsafe { libc::mprotect(usable, Self::SIZE - Self::GUARD, libc::PROT_READ | libc::PROT_WRITE) };
        Errno::result(result)?;
        Ok(Self(stack))
    }

    pub(super) fn top(&self) -> *mut c_void {
        self.0.base.wrapping_byte_add(Self::SIZE)
    }
}

/// Numbers that this process shares with others, zeros at first. Untouched pages of them take no memory.
///
/// They are in a memory file, so that a process that runs another program can map them too. If there is no memory file
/// (a filter of system calls), they are shared with forks alone.
#[derive(Debug)]
pub(in crate::process) struct SharedWords {
    memory: Mapping,
    file: Option<OwnedFd>,
}

// SAFETY: only atomic numbers are exposed, which threads may use as other processes do.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    const PROTECTION: c_int = libc::PROT_READ | libc::PROT_WRITE;

    pub(in crate::process) fn map(count: usize) -> Result<Self, Errno> {
        let length = count * size_of::<AtomicU64>();
        let file = memory_file(length).ok();
        let memory = Mapping::new(length, Self::PROTECTION, libc::MAP_SHARED, file.as_ref())?;
        Ok(Self { memory, file })
    }

    /// Maps the words of another process. All of the file is mapped, and it must not become shorter.
    pub(super) fn of(file: OwnedFd) -> Result<Self, Errno> {
        let length = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::EFBIG)?;
        let memory = Mapping::new(length, Self::PROTECTION, libc::MAP_SHARED, Some(&file))?;
        Ok(Self { memory, file: None })
    }

    /// Returns the file, if there is one.
    pub(in crate::process) const fn descriptor(&self) -> Option<&OwnedFd> {
        self.file.as_ref()
    }

    pub(in crate::process) fn words(&self) -> &[AtomicU64] {
        let count = self.memory.length / size_of::<AtomicU64>();
        // SAFETY: the mapping lives as long as `self`, is aligned to a page and initialised with zeros. Any other
        // process that has it changes it by atomic operations as well, and none makes its file shorter: it has no name,
        // and only the guard is given it.
        unsafe { std::slice::from_raw_parts(self.memory.base.cast(), count) }
    }
}

fn memory_file(length: usize) -> Result<OwnedFd, Errno> {
    let file = memfd_create(c"io-guard-list", MFdFlags::MFD_CLOEXEC)?;
    ftruncate(&file, i64::try_from(length).map_err(|_| Errno::EFBIG)?)?;
    Ok(file)
}
