//! The thread that waits for changes of certificate files, by inotify(7), and reads them.
//!
//! It sleeps in poll(2) until the kernel reports a change of a step that leads to one of the files ([`trail`](super::trail)),
//! or that something was mounted or unmounted. Then it follows all paths again, waits until the changes have settled ([`settling`](super::settling)), and reads.
//! Nothing is looked at without such a report, save at the beginning, for what has changed since the files were read for
//! the doors, and where the machine was short of something.
//!
//! The thread may hang for ever in a file system that does not answer. Nothing waits for it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::PipeReader;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::signal::SigSet;

use super::settling::Settling;
use super::trail::{Found, Ground, follow};
use super::{Certificates, Finding, blindness};
use crate::net::tls::files::FileError;

/// The time from an event until all events are taken. A directory on the way may be busy with other things.
const LOOK_AWAY: Duration = Duration::from_millis(100);
/// The most readings of events at a time, each of some hundred events.
const MOST_READINGS: usize = 256;

/// The events of a watch. They are the same for all, since a second watch of an inode takes the place of the first.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_CREATE
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Runs the life of the thread: until the other end of `stop` is closed, or the receiver of findings is gone.
pub(super) fn run(certificates: Vec<Certificates>, report: impl Fn(Finding) -> bool, stop: &PipeReader) {
    // Signals are handled by the loop alone.
    let _ = SigSet::all().thread_block();
    if let Err(error) = watch(certificates, &report, stop) {
        report(Finding::Blind(blindness::without_inotify(error)));
    }
}

/// Watches until the thread must end.
///
/// # Errors
/// The kernel does not, or not any more.
fn watch(certificates: Vec<Certificates>, report: &impl Fn(Finding) -> bool, stop: &PipeReader) -> Result<(), Errno> {
    let files = certificates.iter().flat_map(|door| door.options.files());
    let files: BTreeSet<PathBuf> = files.collect();
    let mut doors: Vec<DoorFiles> = certificates.into_iter().map(DoorFiles::new).collect();
    let mut watches = Watches::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?);
    let (mut settling, mut told) = (Settling::default(), BTreeSet::new());
    let (mut has_changed, mut is_remounted) = (true, false);
    loop {
        if has_changed || is_remounted {
            let (leads_elsewhere, lines) = watches.follow(&files);
            if has_changed || leads_elsewhere {
                settling.note(Instant::now());
            }
            let new = lines.into_iter().filter(|line| told.insert(line.clone()));
            if !new.map(Finding::Blind).all(report) {
                return Ok(());
            }
        }
        if settling.expire(Instant::now()) {
            if !doors.iter_mut().flat_map(DoorFiles::read).all(report) {
                return Ok(());
            }
            if doors.iter().any(DoorFiles::may_recover) {
                settling.retry(Instant::now());
            }
        }
        let mut sources = watches.sources();
        if !sleep(stop, &mut sources, settling.deadline())? || !sleep(stop, &mut [], Some(Instant::now() + LOOK_AWAY))?
        {
            return Ok(());
        }
        is_remounted = sources.get(1).is_some_and(|mounts| mounts.any() == Some(true));
        has_changed = watches.take_changes()?;
    }
}

/// Waits until one of the sources has something, or until a time. Returns false if `stop` is closed.
fn sleep<'s>(stop: &'s PipeReader, sources: &mut [PollFd<'s>], until: Option<Instant>) -> Result<bool, Errno> {
    let timeout = until.map_or(PollTimeout::NONE, |until| {
        let left = until.saturating_duration_since(Instant::now());
        // In whole milliseconds, and not too early.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    });
    let mut polled = vec![PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
    polled.extend_from_slice(sources);
    match poll(&mut polled, timeout) {
        Ok(_) => {
            let (stop, others) = polled.split_at(1);
            sources.clone_from_slice(others);
            Ok(stop.iter().all(|stop| stop.any() == Some(false)))
        }
        Err(Errno::EINTR) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The certificates of a door, and the mistakes in changed files that were reported.
#[derive(Debug)]
struct DoorFiles {
    certificates: Certificates,
    refused: Vec<FileError>,
}

impl DoorFiles {
    const fn new(certificates: Certificates) -> Self {
        Self {
            certificates,
            refused: Vec::new(),
        }
    }

    /// Reads the files. Returns what the loop must know, if there is anything new.
    fn read(&mut self) -> Vec<Finding> {
        let Certificates { id, options, tls } = &mut self.certificates;
        let (read, errors) = options.read_again(tls);
        let earlier = std::mem::replace(&mut self.refused, errors);
        let mut findings = Vec::new();
        let is_new = |error: &&FileError| !earlier.contains(error);
        let new: Vec<FileError> = self.refused.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            findings.push(Finding::Refused(id.clone(), new));
        }
        if let Some(read) = read.filter(|read| !read.is_same(tls)) {
            *tls = read.clone();
            findings.push(Finding::Renewed(id.clone(), read));
        } else if self.refused.is_empty() && !earlier.is_empty() {
            findings.push(Finding::Restored(id.clone()));
        }
        findings
    }

    /// Returns true if another reading may succeed although no file has changed.
    fn may_recover(&self) -> bool {
        self.refused.iter().any(|mistake| mistake.is_passing)
    }
}

/// The watches of an inotify instance. Each has the names that matter, if it is of a directory.
struct Watches {
    inotify: Inotify,
    names: BTreeMap<WatchDescriptor, BTreeSet<OsString>>,
    /// The table of mounts, which can be polled for its changes (proc_pid_mountinfo(5)): inotify does not report what is
    /// mounted over a directory or file. `None` without /proc.
    mounts: Option<File>,
}

impl Watches {
    fn new(inotify: Inotify) -> Self {
        Self {
            inotify,
            names: BTreeMap::new(),
            mounts: File::open("/proc/self/mountinfo").ok(),
        }
    }

    /// The descriptors to wait for: of events, and of the table of mounts, if there is one.
    fn sources(&self) -> Vec<PollFd<'_>> {
        let events = PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN);
        let mounts = self.mounts.iter();
        let mounts = mounts.map(|mounts| PollFd::new(mounts.as_fd(), PollFlags::POLLPRI));
        std::iter::once(events).chain(mounts).collect()
    }

    /// Watches the ways to these files, and nothing else. Returns true if they lead through other directories or files
    /// than before, with what the log should say about changes that will not be seen.
    fn follow(&mut self, files: &BTreeSet<PathBuf>) -> (bool, Vec<String>) {
        let before = std::mem::take(&mut self.names);
        let unwatched = files.iter().filter_map(|file| Some((file, follow(file, self).err()?)));
        let unwatched: Vec<_> = unwatched.collect();
        for watch in before.keys().filter(|watch| !self.names.contains_key(watch)) {
            // It may be gone with what it has watched.
            let _ = self.inotify.rm_watch(*watch);
        }
        let remote = files
            .iter()
            .filter_map(|file| Some((&**file, blindness::network(file)?)));
        let lines = blindness::lines(&unwatched, &remote.collect::<Vec<_>>());
        (self.names != before, lines)
    }

    /// Takes the events that the kernel has. Returns true if one of them matters.
    fn take_changes(&self) -> Result<bool, Errno> {
        let mut has_changed = false;
        for _ in 0..MOST_READINGS {
            match self.inotify.read_events() {
                Ok(events) => has_changed |= events.iter().any(|event| self.matters(event)),
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(has_changed)
    }

    fn matters(&self, event: &InotifyEvent) -> bool {
        if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return true;
        }
        match (self.names.get(&event.wd), &event.name) {
            (None, _) => false,
            (Some(names), Some(name)) => names.contains(name),
            // Of what is watched itself.
            (Some(_), None) => true,
        }
    }

    fn add(&mut self, place: &Path, flags: AddWatchFlags) -> Result<&mut BTreeSet<OsString>, Errno> {
        let watch = self.inotify.add_watch(place, EVENTS | flags)?;
        Ok(self.names.entry(watch).or_default())
    }
}

impl Ground for Watches {
    fn watch_entry(&mut self, directory: &Path, name: &OsStr) -> Result<(), Errno> {
        self.add(directory, AddWatchFlags::IN_ONLYDIR)?.insert(name.to_owned());
        Ok(())
    }

    fn watch_itself(&mut self, place: &Path) -> Result<(), Errno> {
        self.add(place, AddWatchFlags::IN_DONT_FOLLOW)?;
        Ok(())
    }

    fn look(&mut self, place: &Path) -> Found {
        let Ok(metadata) = fs::symlink_metadata(place) else {
            return Found::Nothing;
        };
        if metadata.is_dir() {
            Found::Directory
        } else if metadata.is_symlink() {
            fs::read_link(place).map_or(Found::Nothing, Found::Link)
        } else {
            Found::File
        }
    }
}
