//! The control group of the daemon's children, where a part of the hierarchy was delegated to the daemon
//! (`Delegate=yes` of systemd).
//!
//! A process cannot leave its control group by starting a new session or changing its environment, so this finds
//! descendants that [`descendants`](super::descendants) does not. The daemon makes `iotcpd-PID` in its own group, and
//! in that a leaf for each child, named after the number of its run, which the child enters before its exec ([`sys`]).
//! `cgroup.kill` of a leaf ends all processes in it, and that of `iotcpd-PID` ends everything that the daemon has
//! started: the [guard](super::guard) writes to it. A child whose background processes may go on gets no leaf. The
//! daemon, its guard and its successor stay outside, where they were.
//!
//! Nothing depends on control groups: if anything fails, the child runs all the same and is ended as without them. No
//! controller is enabled, so that processes may stay beside the groups (`cgroups(7)`, "no internal processes"). A group
//! that was not delegated is left alone, because it belongs to another manager of the hierarchy, such as systemd.
//!
//! The daemon and its guard hold a lock on the group while one of them lives. A group that can be locked belonged to a
//! dead daemon, and the next daemon that starts there removes it if it is empty.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::{AccessFlags, eaccess, geteuid};

use super::{procfs, sys};

/// The beginning of the name of a daemon's group. Its process id follows.
const PREFIX: &str = "iotcpd-";
/// The number of names that are tried. Others may have been left by a process with the same id.
const MAX_NAMES: u8 = 4;
/// The attributes of a delegated group (systemd's CGROUP_DELEGATION). The second one is for kernels before 5.7, and
/// only root can read it.
const DELEGATION_MARKS: [&std::ffi::CStr; 2] = [c"user.delegate", c"trusted.delegate"];
/// The depth to which groups below a leaf are removed. There are such groups only if a daemon ran in the leaf.
const MAX_DEPTH: u8 = 8;
/// The most bytes of `cgroup.procs` that are read.
const MAX_PROCS_BYTES: u64 = 64 * 1024;
/// The number of leaves that one scan examines.
const MAX_PER_SCAN: usize = 256;
/// The attempts to remove a leaf that was killed and is not empty. The pause before each is twice the previous one.
const MAX_TRIES: u32 = 10;
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// The same for the guard, which has nothing else to do.
const MAX_GUARD_TRIES: u32 = 100;
const GUARD_RETRY_INTERVAL: Duration = Duration::from_millis(5);

/// The reason why there is no control group for the children.
#[derive(Debug)]
pub enum Unusable {
    /// No hierarchy of version 2 with this process is mounted, or `/proc` does not show it.
    NoHierarchy,
    /// The daemon's own group belongs to another manager.
    NotDelegated(PathBuf),
    /// The kernel is older than 5.14 and has no `cgroup.kill`.
    NoKill,
    /// The group cannot be made there.
    Failed(PathBuf, io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::NoHierarchy => write!(f, "no control group of version 2 is found for this process"),
            Unusable::NotDelegated(path) => write!(f, "the control group {} is not delegated", path.display()),
            Unusable::NoKill => write!(f, "this kernel has no cgroup.kill"),
            Unusable::Failed(path, error) => write!(f, "cannot make a control group in {}: {error}", path.display()),
        }
    }
}

/// The group of all children of a daemon.
#[derive(Debug)]
pub struct ControlGroup {
    path: PathBuf,
    directory: Flock<OwnedFd>,
}

impl ControlGroup {
    /// Makes the group inside this process's own group. Waits for the file system, and so belongs into the start of a
    /// daemon.
    ///
    /// # Errors
    /// There can be no such group here.
    pub fn make() -> Result<Self, Unusable> {
        if !procfs::is_own() {
            return Err(Unusable::NoHierarchy);
        }
        let told = |path| fs::read(path).map_err(|_| Unusable::NoHierarchy);
        let (mounts, membership) = (told("/proc/self/mountinfo")?, told("/proc/self/cgroup")?);
        // A later mount may hide an earlier one.
        let mut places = places(&mounts, &membership).into_iter().rev();
        let own = places.find(|path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC));
        let own = own.ok_or(Unusable::NoHierarchy)?;
        if !is_delegated(&own) {
            return Err(Unusable::NotDelegated(own));
        }
        remove_stale(&own);
        Self::make_in(&own)
    }

    fn make_in(own: &Path) -> Result<Self, Unusable> {
        let failed = |error| Unusable::Failed(own.to_owned(), error);
        // Without this permission, no child could enter.
        eaccess(&own.join("cgroup.procs"), AccessFlags::W_OK).map_err(|errno| failed(errno.into()))?;
        let pid = std::process::id();
        for number in 0..MAX_NAMES {
            let suffix = if number == 0 {
                String::new()
            } else {
                format!("-{number}")
            };
            let path = own.join(format!("{PREFIX}{pid}{suffix}"));
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failed(error)),
            }
            if !path.join("cgroup.kill").exists() {
                let _ = fs::remove_dir(&path);
                return Err(Unusable::NoKill);
            }
            match hold(&path) {
                Some(directory) => return Ok(Self { path, directory }),
                // Another daemon that starts has taken it for a dead daemon's before it was locked.
                None => drop(fs::remove_dir(&path)),
            }
        }
        Err(failed(Errno::EEXIST.into()))
    }

    /// Returns the path of the group.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the group's directory, for the guard.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Makes a leaf for a run, and opens its entrance.
    ///
    /// # Errors
    /// Those of `mkdir(2)` and `open(2)`. No leaf is left behind.
    pub(super) fn leaf(&self, run: u64) -> io::Result<(Leaf, Entrance)> {
        let path = self.path.join(run.to_string());
        fs::create_dir(&path)?;
        match File::options().write(true).open(path.join("cgroup.procs")) {
            Ok(procs) => Ok((Leaf { path }, Entrance::new(procs.into()))),
            Err(error) => {
                let _ = fs::remove_dir(&path);
                Err(error)
            }
        }
    }

    /// Kills all processes in the group and removes it, at the end of the daemon. The guard removes what cannot be
    /// removed yet.
    pub(super) fn end(&self) {
        kill_all(self.directory());
        let _ = remove_tree(&self.path, MAX_DEPTH);
    }
}

/// Locks the group for as long as the descriptor, or a copy of it, is open. Returns `None` if the group was removed
/// meanwhile.
fn hold(path: &Path) -> Option<Flock<OwnedFd>> {
    let directory = Flock::lock(OwnedFd::from(File::open(path).ok()?), FlockArg::LockSharedNonblock).ok()?;
    let (found, held) = (fs::metadata(path).ok()?, fstat(&*directory).ok()?);
    (found.ino() == held.st_ino).then_some(directory)
}

fn is_delegated(path: &Path) -> bool {
    let us = geteuid();
    if !us.is_root() && fs::metadata(path).is_ok_and(|found| found.uid() == us.as_raw()) {
        return true;
    }
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else {
        return false;
    };
    let mut byte = [0_u8; 1];
    let mut is_set = |mark| sys::extended_attribute(&path, mark, &mut byte) == Ok(1) && byte == *b"1";
    DELEGATION_MARKS.into_iter().any(&mut is_set)
}

/// Removes the empty groups of dead daemons.
fn remove_stale(own: &Path) {
    for path in groups_in(own).unwrap_or_default() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let number = name.strip_prefix(PREFIX).unwrap_or_default();
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let lock = File::open(&path).map(|opened| Flock::lock(OwnedFd::from(opened), FlockArg::LockExclusiveNonblock));
        if let Ok(Ok(_held)) = lock {
            let _ = remove_tree(&path, MAX_DEPTH);
        }
    }
}

fn groups_in(path: &Path) -> io::Result<Vec<PathBuf>> {
    let groups = fs::read_dir(path)?.filter_map(|entry| {
        let entry = entry.ok()?;
        entry.file_type().is_ok_and(|kind| kind.is_dir()).then(|| entry.path())
    });
    Ok(groups.collect())
}

/// Removes a group and the groups below it, as far as they are empty.
fn remove_tree(path: &Path, depth: u8) -> io::Result<()> {
    match fs::remove_dir(path) {
        Err(error) if depth > 0 && matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => {
            for below in groups_in(path)? {
                remove_tree(&below, depth - 1)?;
            }
            fs::remove_dir(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

// ---- the guard's part ------------------------------------------------------------------------------------------

/// Kills all processes in a group and below it. Neither locks nor allocates.
pub(super) fn kill_all(directory: BorrowedFd<'_>) {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    if let Ok(file) = openat(directory, c"cgroup.kill", flags, Mode::empty()) {
        let _ = nix::unistd::write(file, b"1");
    }
}

/// Kills all processes in a group and removes it once they have ended, which takes half a second at most.
pub(super) fn remove_all(directory: BorrowedFd<'_>) {
    let Ok(path) = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())) else {
        return;
    };
    for _ in 0..MAX_GUARD_TRIES {
        kill_all(directory);
        if remove_tree(&path, MAX_DEPTH).is_ok() {
            return;
        }
        thread::sleep(GUARD_RETRY_INTERVAL);
    }
}

// ---- leaves ----------------------------------------------------------------------------------------------------

/// The group of one run.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// Kills all processes in the leaf.
    pub(super) fn kill(&self) {
        // An error: the guard or an administrator has removed it.
        let opened = File::options().write(true).open(self.path.join("cgroup.kill"));
        let _ = opened.and_then(|mut file| file.write_all(b"1"));
    }

    /// Returns the processes in the leaf itself, not in groups below it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut list = String::new();
        let opened = File::open(self.path.join("cgroup.procs"));
        let _ = opened.and_then(|file| file.take(MAX_PROCS_BYTES).read_to_string(&mut list));
        // A last line that is cut off would be another process's number.
        let whole = list.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// The entrance of a leaf: kept open from before a child's start until that has returned.
#[derive(Debug)]
pub(super) struct Entrance {
    procs: OwnedFd,
    /// The errno of a child that could not enter; 0 if it has entered.
    refused: AtomicI32,
}

impl Entrance {
    const fn new(procs: OwnedFd) -> Self {
        Self {
            procs,
            refused: AtomicI32::new(0),
        }
    }

    /// Moves this process into the leaf. Neither locks nor allocates: a child calls it before its exec, in the daemon's
    /// memory.
    pub(super) fn enter(&self) {
        if let Err(errno) = nix::unistd::write(&self.procs, b"0") {
            self.refused.store(errno as i32, Ordering::Relaxed);
        }
    }

    /// Returns the reason why the child is not in the leaf, if it is not.
    pub(super) fn refusal(&self) -> Option<Errno> {
        let errno = self.refused.load(Ordering::Relaxed);
        (errno != 0).then(|| Errno::from_raw(errno))
    }
}

/// The leaves of runs that have ended, until they are removed.
#[derive(Debug, Default)]
pub(super) struct Leaves(Vec<EndedLeaf>);

#[derive(Debug)]
struct EndedLeaf {
    leaf: Arc<Leaf>,
    stage: Stage,
    /// The time of the next attempt.
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The leaf may be empty.
    New,
    /// The leaf was not empty, and its processes were asked to end.
    Terminating,
    /// The leaf's processes were killed, this number of times before.
    Killed(u32),
}

impl Leaves {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|ended| ended.due).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes empty leaves, and kills the processes in the others once `grace` has passed. Returns the processes that
    /// must be asked to end before that, as far as they are children of this process.
    pub(super) fn scan(&mut self, new: Vec<Arc<Leaf>>, now: Instant, grace: Duration) -> BTreeSet<i32> {
        let begin = |leaf| EndedLeaf {
            leaf,
            stage: Stage::New,
            due: now,
        };
        self.0.extend(new.into_iter().map(begin));
        let mut asked = BTreeSet::new();
        let mut turns = MAX_PER_SCAN;
        self.0.retain_mut(|ended| {
            let has_turn = ended.due <= now && turns > 0;
            if has_turn {
                turns -= 1;
                if !ended.advance(now, grace) {
                    return false;
                }
            }
            if ended.stage == Stage::Terminating && asked.len() < MAX_PER_SCAN {
                asked.extend(ended.leaf.processes());
            }
            true
        });
        asked
    }
}

impl EndedLeaf {
    /// Takes the next step with the leaf. Returns false if nothing is left to do.
    fn advance(&mut self, now: Instant, grace: Duration) -> bool {
        let depth = if matches!(self.stage, Stage::Killed(_)) {
            MAX_DEPTH
        } else {
            0
        };
        if remove_tree(&self.leaf.path, depth).is_ok() {
            return false;
        }
        let (stage, pause) = match self.stage {
            Stage::New => (Stage::Terminating, grace),
            Stage::Terminating => (Stage::Killed(0), RETRY_INTERVAL),
            // The kernel does not let the leaf be removed. The end of the daemon is the next opportunity.
            Stage::Killed(MAX_TRIES..) => return false,
            Stage::Killed(times) => (Stage::Killed(times + 1), RETRY_INTERVAL * 2_u32.saturating_pow(times)),
        };
        if matches!(stage, Stage::Killed(_)) {
            self.leaf.kill();
        }
        (self.stage, self.due) = (stage, now + pause);
        true
    }
}

// ---- what the kernel reports -----------------------------------------------------------------------------------

/// Returns the paths at which the group of a process may be seen, given `/proc/PID/mountinfo` and `/proc/PID/cgroup`,
/// in the order of the mounts.
fn places(mounts: &[u8], membership: &[u8]) -> Vec<PathBuf> {
    let own = membership
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .map(|path| Path::new(OsStr::from_bytes(path)));
    // A group outside of this process's cgroup namespace begins with `/..`.
    let is_plain = |path: &&Path| path.is_absolute() && !path.components().any(|part| part == Component::ParentDir);
    let Some(own) = own.filter(is_plain) else {
        return Vec::new();
    };
    let mounts = mounts.split(|byte| *byte == b'\n').filter_map(mounted);
    let seen = mounts.filter_map(|(root, at)| {
        let below = own.strip_prefix(&root).ok()?;
        Some(if below.as_os_str().is_empty() {
            at
        } else {
            at.join(below)
        })
    });
    seen.collect()
}

/// Parses a line of mountinfo. For a cgroup2, returns the group that is mounted and the mount point (proc(5)).
fn mounted(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    // Any number of optional fields, and a hyphen after them.
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    (behind.next()? == b"cgroup2").then(|| (unescaped(root), unescaped(at)))
}

/// Decodes a path in which a blank, a tabulator, a line feed or a backslash is written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.first_chunk::<3>().filter(|_| *first == b'\\');
        let number = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = behind.get(if number.is_some() { 3 } else { 0 }..).unwrap_or_default();
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(mounts: &str, membership: &str) -> Vec<String> {
        let places = places(mounts.as_bytes(), membership.as_bytes());
        places.into_iter().map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_own_group_is_found_below_every_mount_that_shows_it() {
        let mounts = "\
25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 master:2 - cgroup2 cgroup2 rw,nsdelegate
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
50 25 0:28 /system.slice /mnt/a\\040b\\134 rw - cgroup2 none rw
51 25 0:28 /system.slice/x.service /mnt/own rw - cgroup2 none rw
52 25 0:28 /system.slice/x /mnt/other rw - cgroup2 none rw
53 25 0:28 /../.. /mnt/outside rw - cgroup2 none rw
54 25 0:28 /
";
        let membership = "9:name=systemd:/system.slice\n0::/system.slice/x.service\n";
        let expected = [
            "/sys/fs/cgroup/system.slice/x.service",
            "/mnt/a b\\/x.service",
            "/mnt/own",
        ];
        assert_eq!(found(mounts, membership), expected);
        assert_eq!(found(mounts, "0::/\n"), ["/sys/fs/cgroup"]);
    }

    #[test]
    fn no_group_is_found_where_the_kernel_reports_none() {
        let mount = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        for (mounts, membership) in [
            (mount, ""),
            (mount, "9:name=systemd:/x\n4:memory:/y\n"),
            (mount, "0::/../x\n"),
            (mount, "0::x\n"),
            ("", "0::/x\n"),
            ("31 23 0:28 / /sys/fs/cgroup rw - cgroup cgroup rw\n", "0::/x\n"),
            ("31 23 0:28 / /cgroup2 rw - tmpfs cgroup2 rw\n", "0::/x\n"),
            ("31 23 0:28 / /sys/fs/cgroup rw -\n31 23\n\n", "0::/x\n"),
        ] {
            assert_eq!(found(mounts, membership), [""; 0], "{mounts} {membership}");
        }
    }

    #[test]
    fn a_name_is_unescaped_and_other_backslashes_stay() {
        for (field, path) in [
            ("/a\\011b\\012", "/a\tb\n"),
            ("/\\04", "/\\04"),
            ("/\\999\\", "/\\999\\"),
            ("/\\777", "/\\777"),
            ("/\\0401", "/ 1"),
        ] {
            assert_eq!(unescaped(field.as_bytes()), Path::new(path));
        }
    }
}
