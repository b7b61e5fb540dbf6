//! The data of `/proc` about processes. Valid only if `/proc` shows this process's own namespace: otherwise its numbers
//! mean other processes.
//!
//! Reading an [`environment`] may take for ever, because it reads the memory of that process, which may be mapped from
//! a file system that does not answer. So the loop must not do it ([`signs`](super::signs)). The other functions do not
//! read the memory of a process.

use std::fs::{self, File};
use std::io::{self, Read};

use nix::unistd::getpid;

/// The most bytes that are read of a file about one process. Environment and arguments have at most 6 MiB.
const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// The fields of `/proc/PID/stat` that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// True if the process has ended and is not reaped.
    pub(super) has_ended: bool,
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    /// The start time in ticks. It distinguishes the process from an earlier one with the same id.
    pub(super) started: u64,
}

/// Returns true if the numbers in `/proc` are the ones that this process knows.
pub(super) fn is_own() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else {
        return false;
    };
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    let is_us = |numbers: &str| numbers.trim() == getpid().to_string();
    // NSpid has a number for each namespace from the one of `/proc` to ours. A kernel without namespaces has no such
    // line.
    field("NSpid:").or_else(|| field("Pid:")).is_some_and(is_us)
}

/// Returns the fields for a process, or `None` if there is no such process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    let mut line = String::new();
    // The name in it may be any bytes, and is not used.
    let bytes = fs::read(format!("/proc/{pid}/stat")).ok()?;
    line.push_str(&String::from_utf8_lossy(&bytes));
    parse_stat(&line)
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The name stands in parentheses and may hold anything, including parentheses.
    let mut fields = line.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    let started = fields.nth(15)?.parse().ok()?;
    let id = |number: i64| i32::try_from(number).ok();
    Some(Stat {
        has_ended: matches!(state, "Z" | "X"),
        parent: id(parent)?,
        group: id(group)?,
        session: id(session)?,
        started,
    })
}

/// Returns the name of a process, of at most 15 bytes, for a log line.
pub(super) fn name(pid: i32) -> String {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().escape_default().to_string()
}

/// Returns the variables of a process as they were at its exec, each with a NUL behind it.
///
/// # Errors
/// The process has ended, or belongs to another user.
pub(super) fn environment(pid: i32) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/environ"))?
        .take(MAX_FILE_BYTES)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the children of a process, of all its threads. Takes time in proportion to both.
///
/// # Errors
/// The process has ended, or the kernel does not list children (`CONFIG_PROC_CHILDREN`).
pub(super) fn children(pid: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let list = match fs::read_to_string(task?.path().join("children")) {
            Ok(list) => list,
            // A thread may have ended meanwhile, but not all of them can.
            Err(error) if error.kind() == io::ErrorKind::NotFound && tells_children() => continue,
            Err(error) => return Err(error),
        };
        children.extend(numbers(&list));
    }
    Ok(children)
}

fn tells_children() -> bool {
    let own = getpid();
    fs::metadata(format!("/proc/self/task/{own}/children")).is_ok()
}

/// Returns the children of this process's first thread, which starts all children and inherits all orphans. Also works
/// if the kernel does not list children.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn own_children() -> io::Result<Vec<i32>> {
    let own = getpid().as_raw();
    let list = File::open(format!("/proc/self/task/{own}/children")).and_then(|mut file| {
        // Without asking for the length, which this file does not have.
        let mut list = Vec::with_capacity(512);
        file.read_to_end(&mut list).map(|_| list)
    });
    match list {
        Ok(list) => Ok(numbers(&String::from_utf8_lossy(&list)).collect()),
        Err(_) => children_by_parents(own),
    }
}

fn numbers(list: &str) -> impl Iterator<Item = i32> {
    list.split_ascii_whitespace().filter_map(|number| number.parse().ok())
}

fn children_by_parents(parent: i32) -> io::Result<Vec<i32>> {
    let is_child = |pid: &i32| stat(*pid).is_some_and(|stat| stat.parent == parent);
    Ok(all()?.into_iter().filter(is_child).collect())
}

/// Returns all processes.
///
/// # Errors
/// `/proc` cannot be read.
pub(super) fn all() -> io::Result<Vec<i32>> {
    let ids = fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(ids.collect())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, read_line, shell};
    use super::*;

    #[test]
    fn a_line_is_read_behind_whatever_the_name_holds() {
        let line = "77 (a) Z 1 (b) S 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2 3";
        let stat = parse_stat(line).unwrap();
        let expected = Stat {
            has_ended: false,
            parent: 5,
            group: 6,
            session: 7,
            started: 12345,
        };
        assert_eq!(stat, expected);
        assert!(
            parse_stat("77 (a) Z 5 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1 2 3")
                .unwrap()
                .has_ended
        );
        for nonsense in [
            "",
            "77",
            "77 (a)",
            "77 (a) S 1 2",
            "77 (a) S x 6 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 1",
        ] {
            assert_eq!(parse_stat(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn children_are_those_of_all_threads_by_either_way() {
        assert!(is_own());
        let mut child = shell("sleep 1000 & echo $!; sleep 1000 & echo $!; read end");
        let own = getpid().as_raw();
        let grandchildren: Vec<i32> = (0..2).map(|_| read_line(&mut child).parse().unwrap()).collect();
        assert_eq!(children(child.pid().as_raw()).unwrap(), grandchildren);
        assert_eq!(children_by_parents(child.pid().as_raw()).unwrap(), grandchildren);
        // This thread may not be the first one. Then the child is not in that one's list.
        assert!(own_children().is_ok());
        assert_eq!(stat(child.pid().as_raw()).unwrap().parent, own);
        child.kill_group(nix::sys::signal::Signal::SIGKILL).unwrap();
        testing::wait(&mut child);
        assert_eq!(stat(child.pid().as_raw()), None);
        assert!(children(child.pid().as_raw()).is_err());
    }
}
