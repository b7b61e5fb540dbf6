//! The memory that processes use.

use std::fmt;
use std::fs;
use std::io;
use std::time::{Duration, Instant};

use nix::unistd::{Pid, SysconfVar, sysconf};

use super::procfs;
use crate::amount;

/// Returns the resident memory of a process in bytes: the second field of `/proc/PID/statm`, which is in pages
/// (`proc_pid_statm(5)`).
///
/// The kernel makes this file at little cost. Its count may be late, by some dozens of pages for each thread. The
/// process must be a child that is not reaped, or its id may belong to another process. A zombie uses 0 bytes.
///
/// # Errors
/// ENOENT if there is no such process; `InvalidData` if the file does not have its documented form.
pub fn resident_bytes(pid: Pid) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = resident_pages(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "malformed statm"))?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| u64::try_from(size).ok());
    Ok(pages.saturating_mul(page.unwrap_or(4096)))
}

/// The time in which a thread with other work examines many processes: enough for some thousands.
const SURVEY_TIMEOUT: Duration = Duration::from_millis(50);

/// A survey of the memory of many processes, for people. It ends after a time limit, however many processes there are.
#[derive(Debug)]
pub struct Survey {
    /// The end of its time; `None` if `/proc` does not show this process's own namespace.
    until: Option<Instant>,
}

/// The memory of one process in a [`Survey`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// The process uses this number of bytes; 0 if it has ended.
    Holds(u64),
    /// The memory cannot be read.
    Unknown,
    /// The process was not examined, because there were too many before it.
    NotLookedAt,
}

impl Survey {
    /// Starts a survey.
    #[must_use]
    pub fn begin(now: Instant) -> Self {
        Self {
            until: procfs::is_own().then(|| now + SURVEY_TIMEOUT),
        }
    }

    /// Reads the memory of a child that is not reaped.
    #[must_use]
    pub fn look_at(&self, pid: Pid) -> Memory {
        match self.until {
            None => Memory::Unknown,
            Some(until) if Instant::now() >= until => Memory::NotLookedAt,
            Some(_) => resident_bytes(pid).map_or(Memory::Unknown, Memory::Holds),
        }
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Memory::Holds(bytes) => amount::size(*bytes).fmt(out),
            Memory::Unknown => out.write_str("unknown"),
            Memory::NotLookedAt => out.write_str("not looked at"),
        }
    }
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
    fn a_survey_ends_within_its_time_however_many_processes_there_are() {
        let (now, own) = (Instant::now(), nix::unistd::getpid());
        assert!(matches!(Survey::begin(now).look_at(own), Memory::Holds(bytes) if bytes > 100 * 1024));
        let over = Survey::begin(now.checked_sub(SURVEY_TIMEOUT).unwrap());
        assert_eq!(over.look_at(own), Memory::NotLookedAt);
        assert_eq!(Survey { until: None }.look_at(own), Memory::Unknown);
        assert_eq!(
            Survey::begin(Instant::now()).look_at(Pid::from_raw(i32::MAX)),
            Memory::Unknown
        );
        assert_eq!(Memory::Holds(3 << 19).to_string(), "1.5 MiB");
    }

    #[test]
    fn no_processes_hold_no_memory() {
        assert_eq!(
            resident_bytes(Pid::from_raw(i32::MAX)).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }
}
