//! How much memory a process holds.

use std::fs;
use std::io;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// Resident memory of a process in bytes: the second field of `/proc/PID/statm`, in pages (`proc_pid_statm(5)`).
///
/// The file costs the kernel little to make, and counts a little behind (it is exact to some dozens of pages per
/// thread). The process must be an unreaped child, or its id may be another's; a zombie holds 0.
///
/// # Errors
/// ENOENT when there is no such process; `InvalidData` when the file is not as the manual has it.
pub fn resident_bytes(pid: Pid) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = resident_pages(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed statm"))?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    Ok(pages.saturating_mul(page.unwrap_or(4096)))
}

fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_field_counts() {
        assert_eq!(resident_pages("1000 250 30 4 0 50 0\n"), Some(250));
        assert_eq!(resident_pages("1000"), None);
        assert_eq!(resident_pages("1000 many"), None);
    }

    #[test]
    fn this_process_holds_some_memory() {
        let bytes = resident_bytes(nix::unistd::getpid()).unwrap();
        assert!((100 * 1024..1024 * 1024 * 1024 * 1024).contains(&bytes), "{bytes}");
    }

    #[test]
    fn nobody_holds_none() {
        assert_eq!(
            resident_bytes(Pid::from_raw(i32::MAX)).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
