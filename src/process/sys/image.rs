//! A copy of the program that this process runs, in memory that has no name. Neither allocates nor locks.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ffi::{c_int, c_long, c_uint};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::sendfile::sendfile;
use nix::sys::stat::{Mode, fstat};
use nix::sys::uio::pread;

use super::guard::OWN_FILE;

/// Returns the copy, which can be executed.
pub(super) fn copy_of_this_program() -> Result<OwnedFd, Errno> {
    let file = open(OWN_FILE, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let size = usize::try_from(fstat(&file)?.st_size).map_err(|_| Errno::EFBIG)?;
    // The parts that the kernel loads come first in the file. The data for debuggers behind them is left out.
    let length = loaded_part(&file).filter(|length| *length <= size).unwrap_or(size);
    let copy = executable_memory()?;
    let mut copied = 0;
    while copied < length {
        match sendfile(&copy, &file, None, length - copied)? {
            0 => return Err(Errno::EIO),
            count => copied += count,
        }
    }
    Ok(copy)
}

fn executable_memory() -> Result<OwnedFd, Errno> {
    // The name is shown by `/proc/PID/exe`, and by `comm` until the guard has set its own.
    let make = |flags: c_uint| {
        // SAFETY: the name ends with a zero.
        let made = unsafe { libc::syscall(libc::SYS_memfd_create, c"io-guard".as_ptr(), c_long::from(flags)) };
        Errno::result(made)
    };
    // A kernel before 6.3 does not know MFD_EXEC, and behaves as if it were set.
    let made = make(libc::MFD_CLOEXEC | libc::MFD_EXEC).or_else(|_| make(libc::MFD_CLOEXEC))?;
    let descriptor = c_int::try_from(made).map_err(|_| Errno::EBADF)?;
    // SAFETY: the descriptor is new and has no other owner.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Returns the number of bytes from the beginning of an ELF file up to the end of its segments, or `None` if it is not
/// for this kind of machine.
fn loaded_part(file: &OwnedFd) -> Option<usize> {
    let mut header = [0_u8; HEADER];
    read_exactly(file, &mut header, 0)?;
    let is_own_kind = header.starts_with(b"\x7fELF") && header.get(4) == Some(&CLASS);
    let table = number(&header, AT_TABLE, WORD)?;
    let (size, count) = (
        number(&header, AT_ENTRY_SIZE, 2)?,
        number(&header, AT_ENTRY_SIZE + 2, 2)?,
    );
    if !is_own_kind || size < ENTRY || count == 0 || count > 128 {
        return None;
    }
    let mut end = table.checked_add(size.checked_mul(count)?)?;
    for index in 0..count {
        let mut entry = [0_u8; ENTRY];
        read_exactly(file, &mut entry, table.checked_add(size.checked_mul(index)?)?)?;
        let (offset, length) = (
            number(&entry, AT_OFFSET, WORD)?,
            number(&entry, AT_OFFSET + 3 * WORD, WORD)?,
        );
        end = end.max(offset.checked_add(length)?);
    }
    Some(end)
}

const WORD: usize = size_of::<usize>();
/// `ELFCLASS32` and `ELFCLASS64` of elf(5), and the positions of the fields in its two headers.
const CLASS: u8 = if WORD == 8 { 2 } else { 1 };
const HEADER: usize = if WORD == 8 { 64 } else { 52 };
const ENTRY: usize = if WORD == 8 { 56 } else { 32 };
const AT_TABLE: usize = 24 + WORD;
const AT_ENTRY_SIZE: usize = 24 + 3 * WORD + 4 + 2;
const AT_OFFSET: usize = if WORD == 8 { 8 } else { 4 };

/// Reads a number in the machine's byte order.
fn number(bytes: &[u8], at: usize, length: usize) -> Option<usize> {
    let mut whole = [0_u8; WORD];
    let place = if cfg!(target_endian = "little") {
        0
    } else {
        WORD - length
    };
    let bytes = bytes.get(at..at.checked_add(length)?)?;
    whole.get_mut(place..place + length)?.copy_from_slice(bytes);
    Some(usize::from_ne_bytes(whole))
}

fn read_exactly(file: &OwnedFd, buffer: &mut [u8], at: usize) -> Option<()> {
    let at = i64::try_from(at).ok()?;
    (pread(file, buffer, at) == Ok(buffer.len())).then_some(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Seek};
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_copy_is_the_loaded_part_and_it_runs() {
        let copy = copy_of_this_program().unwrap();
        let own = std::fs::read(OWN_FILE.to_str().unwrap()).unwrap();
        let mut file = File::from(copy.try_clone().unwrap());
        let mut copied = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut copied).unwrap();
        assert!(copied.len() <= own.len() && copied == own[..copied.len()]);
        // The test program has much data for debuggers.
        assert!(copied.len() < own.len(), "{} of {}", copied.len(), own.len());
        let path = format!("/proc/self/fd/{}", copy.as_raw_fd());
        let mut listing = Command::new(path);
        listing.arg0("copy").args(["--list", "the_copy_is_the_loaded_part"]);
        nix::fcntl::fcntl(&copy, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let output = listing.output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 test"), "{output:?}");
    }

    #[test]
    fn a_file_that_is_no_program_of_this_machine_has_no_loaded_part() {
        let (dev, mut text) = (File::open("/dev/null").unwrap(), tempfile::tempfile().unwrap());
        assert_eq!(loaded_part(&dev.into()), None);
        std::io::Write::write_all(&mut text, &[0x7f; 4096]).unwrap();
        assert_eq!(loaded_part(&text.into()), None);
    }
}
