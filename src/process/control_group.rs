//! A control group for the children, where a piece of the hierarchy was delegated to this daemon (`Delegate=yes` of systemd).
//!
//! A process leaves the control group that it was started in neither by a new session nor by another environment, and so those
//! are found that [`descendants`](super::descendants) does not find. The daemon makes `iotcpd-PID` in its own group, and in
//! that a leaf for each child, named by the number of its run, which the child enters before its exec ([`sys`](super::sys)).
//! `cgroup.kill` ends all that a leaf holds at once, and that of `iotcpd-PID` all that the daemon has started: the
//! [guard](super::guard) writes to it. What is to go on in the background gets no leaf. The daemon, its guard and its successor
//! stay outside, where they were.
//!
//! Nothing depends on it: whatever fails, the child runs all the same and is ended as where there are no control groups. No
//! controller is enabled, so that processes may stay beside the groups (`cgroups(7)`, "no internal processes"). A process that
//! owns the hierarchy (systemd) is not to be disturbed: a group that was not delegated is left alone.
//!
//! A daemon and its guard hold a lock on the group as long as one of them lives: one that can be locked is a dead one's, and
//! is removed by the next daemon that starts there, if it is empty.

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

/// What the name of a daemon's group begins with; its process id follows.
const PREFIX: &str = "iotcpd-";
/// So many names are tried: others may have been left by a process of the same id.
const NAMES: u8 = 4;
/// Says that a group was delegated (systemd's CGROUP_DELEGATION); the second is for kernels before 5.7, which only root reads.
const MARKS: [&std::ffi::CStr; 2] = [c"user.delegate", c"trusted.delegate"];
/// Below a leaf there are groups only where a daemon ran in it.
const DEPTH: u8 = 8;
/// The most of `cgroup.procs` that is read at once, in bytes.
const MOST: u64 = 64 * 1024;
/// So many leaves are looked at in one look.
const MOST_AT_ONCE: usize = 256;
/// A leaf that was killed and is not empty is tried again so often, after this time and then twice the last.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);
/// The same for the guard, which has nothing else to do.
const LAST_TRIES: u32 = 100;
const MOMENT: Duration = Duration::from_millis(5);

/// Why there is no control group for the children.
#[derive(Debug)]
pub enum Unusable {
    /// No hierarchy of version 2 is mounted that this process is in, or `/proc` does not tell.
    NoHierarchy,
    /// Its own group belongs to somebody else.
    NotDelegated(PathBuf),
    /// The kernel, before 5.14, has no `cgroup.kill`.
    NoKill,
    /// It cannot be made there.
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
    /// Makes it in this process's own group. Waits for the file system: for the start of a daemon.
    ///
    /// # Errors
    /// It is not to be had here.
    pub fn make() -> Result<Self, Unusable> {
        if !procfs::is_own() {
            return Err(Unusable::NoHierarchy);
        }
        let told = |path| fs::read(path).map_err(|_| Unusable::NoHierarchy);
        let (mounts, membership) = (told("/proc/self/mountinfo")?, told("/proc/self/cgroup")?);
        // A later mount may lie over an earlier one.
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
        // A child could not enter without it.
        eaccess(&own.join("cgroup.procs"), AccessFlags::W_OK).map_err(|errno| failed(errno.into()))?;
        let pid = std::process::id();
        for number in 0..NAMES {
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
                // Somebody else's start has taken it for a dead one's in the moment before it was locked.
                None => drop(fs::remove_dir(&path)),
            }
        }
        Err(failed(Errno::EEXIST.into()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// For the guard.
    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// A leaf for a run, and the way into it.
    ///
    /// # Errors
    /// Those of `mkdir(2)` and `open(2)`; no leaf is left.
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

    /// The daemon ends. What cannot be removed yet is left to the guard.
    pub(super) fn end(&self) {
        kill_all(self.directory());
        let _ = remove_tree(&self.path, DEPTH);
    }
}

/// Locks it for as long as the descriptor, or a copy of it, lives. `None`: it has been removed meanwhile.
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
    MARKS.into_iter().any(&mut is_set)
}

/// Removes the groups of dead daemons that hold nothing.
fn remove_stale(own: &Path) {
    for path in groups_in(own).unwrap_or_default() {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let number = name.strip_prefix(PREFIX).unwrap_or_default();
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let lock = File::open(&path).map(|opened| Flock::lock(OwnedFd::from(opened), FlockArg::LockExclusiveNonblock));
        if let Ok(Ok(_held)) = lock {
            let _ = remove_tree(&path, DEPTH);
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

/// Removes a group and those below it, as far as they are empty.
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

/// Kills all that is in a group and below it. Neither locks nor allocates.
pub(super) fn kill_all(directory: BorrowedFd<'_>) {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    if let Ok(file) = openat(directory, c"cgroup.kill", flags, Mode::empty()) {
        let _ = nix::unistd::write(file, b"1");
    }
}

/// Kills all that is in a group, and removes it as soon as that has ended, which is waited for half a second at most.
pub(super) fn remove_all(directory: BorrowedFd<'_>) {
    let Ok(path) = fs::read_link(format!("/proc/self/fd/{}", directory.as_raw_fd())) else {
        return;
    };
    for _ in 0..LAST_TRIES {
        kill_all(directory);
        if remove_tree(&path, DEPTH).is_ok() {
            return;
        }
        thread::sleep(MOMENT);
    }
}

// ---- leaves ----------------------------------------------------------------------------------------------------

/// The group of one run.
#[derive(Debug)]
pub(super) struct Leaf {
    path: PathBuf,
}

impl Leaf {
    /// Kills all that is in it.
    pub(super) fn kill(&self) {
        // An error: it has been removed, by the guard or an administrator.
        let opened = File::options().write(true).open(self.path.join("cgroup.kill"));
        let _ = opened.and_then(|mut file| file.write_all(b"1"));
    }

    /// All that are in it, and in none below it.
    pub(super) fn processes(&self) -> Vec<i32> {
        let mut list = String::new();
        let opened = File::open(self.path.join("cgroup.procs"));
        let _ = opened.and_then(|file| file.take(MOST).read_to_string(&mut list));
        // A last line that was cut off would be another's number.
        let whole = list.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().filter_map(|line| line.parse().ok()).collect()
    }
}

/// The way into a leaf, from before a child's start until that has returned.
#[derive(Debug)]
pub(super) struct Entrance {
    procs: OwnedFd,
    /// The errno of the child that could not enter.
    refused: AtomicI32,
}

impl Entrance {
    const fn new(procs: OwnedFd) -> Self {
        Self {
            procs,
            refused: AtomicI32::new(0),
        }
    }

    /// Moves this process into the leaf. Neither locks nor allocates: a child calls it before its exec, on the daemon's memory.
    pub(super) fn enter(&self) {
        if let Err(errno) = nix::unistd::write(&self.procs, b"0") {
            self.refused.store(errno as i32, Ordering::Relaxed);
        }
    }

    /// Why the child is not in it.
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
    /// When it is looked at next.
    due: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It may be empty.
    New,
    /// It was not: those in it are being asked to end.
    Terminating,
    /// They have been killed so often.
    Killed(u32),
}

impl Leaves {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.0.iter().map(|ended| ended.due).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Removes those that are empty, and kills what is in the others once `grace` has passed. The processes that are to be
    /// asked to end before that, as far as they are this process's children.
    pub(super) fn scan(&mut self, new: Vec<Arc<Leaf>>, now: Instant, grace: Duration) -> BTreeSet<i32> {
        let begin = |leaf| EndedLeaf {
            leaf,
            stage: Stage::New,
            due: now,
        };
        self.0.extend(new.into_iter().map(begin));
        let mut asked = BTreeSet::new();
        let mut turns = MOST_AT_ONCE;
        self.0.retain_mut(|ended| {
            let has_turn = ended.due <= now && turns > 0;
            if has_turn {
                turns -= 1;
                if !ended.advance(now, grace) {
                    return false;
                }
            }
            if ended.stage == Stage::Terminating && asked.len() < MOST_AT_ONCE {
                asked.extend(ended.leaf.processes());
            }
            true
        });
        asked
    }
}

impl EndedLeaf {
    /// False: it is done with.
    fn advance(&mut self, now: Instant, grace: Duration) -> bool {
        let depth = if matches!(self.stage, Stage::Killed(_)) {
            DEPTH
        } else {
            0
        };
        if remove_tree(&self.leaf.path, depth).is_ok() {
            return false;
        }
        let (stage, pause) = match self.stage {
            Stage::New => (Stage::Terminating, grace),
            Stage::Terminating => (Stage::Killed(0), PAUSE),
            // The kernel does not let go of it. The end of the daemon is another occasion.
            Stage::Killed(TRIES..) => return false,
            Stage::Killed(times) => (Stage::Killed(times + 1), PAUSE * 2_u32.saturating_pow(times)),
        };
        if matches!(stage, Stage::Killed(_)) {
            self.leaf.kill();
        }
        (self.stage, self.due) = (stage, now + pause);
        true
    }
}

// ---- what the kernel tells -------------------------------------------------------------------------------------

/// Where the group of a process may be seen, by `/proc/PID/mountinfo` and `/proc/PID/cgroup`, in the order of the mounts.
fn places(mounts: &[u8], membership: &[u8]) -> Vec<PathBuf> {
    let own = membership
        .split(|byte| *byte == b'\n')
        .find_map(|line| line.strip_prefix(b"0::"))
        .map(|path| Path::new(OsStr::from_bytes(path)));
    // One that lies outside of this process's namespace of groups begins with `/..`.
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

/// Of a line of mountinfo, where that is a cgroup2: which of its groups is seen, and where (proc(5)).
fn mounted(line: &[u8]) -> Option<(PathBuf, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(3);
    let (root, at) = (fields.next()?, fields.next()?);
    // Any number of optional fields, and a hyphen behind them.
    let mut behind = fields.skip_while(|field| *field != b"-").skip(1);
    (behind.next()? == b"cgroup2").then(|| (unescaped(root), unescaped(at)))
}

/// A blank, a tabulator, a line feed and a backslash are written as three octal digits.
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
