//! The file of a UNIX socket: which socket owns the path now, and when it may be deleted.
//!
//! A socket file outlives the process that bound it, so a path may hold the socket of a server that runs, the remains
//! of one that was killed, or something else altogether. connect(2) tells the first two apart without a doubt: on a
//! socket that is not listened on any more it answers ECONNREFUSED.
//!
//! Deleting is tied to device and inode, never to the path alone: a path that another process has bound meanwhile is
//! left alone. The number cannot be used again for another file while we are alive, because a bound socket holds its
//! inode. A process that is handed the socket is told the number with it ([`handover`](super::handover)), and holds
//! that inode as well.

use std::fmt;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SigSet;

use super::addr::UnixAddr;
use super::stream::Stream;
use crate::amount;

/// The identity of a file, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

/// `DEVICE:INODE`.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

impl FromStr for FileId {
    type Err = ();

    fn from_str(text: &str) -> Result<FileId, ()> {
        let (device, inode) = text.split_once(':').ok_or(())?;
        Ok(FileId {
            device: device.parse().map_err(drop)?,
            inode: inode.parse().map_err(drop)?,
        })
    }
}

impl FileId {
    fn of(metadata: &Metadata) -> FileId {
        FileId {
            device: metadata.dev(),
            inode: metadata.ino(),
        }
    }
}

/// The longest time that the deletion of a file is waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// A socket file that this process has bound; deleted when this is dropped, if it is still the same file.
#[derive(Debug)]
pub(super) struct OwnedFile {
    path: PathBuf,
    id: FileId,
}

impl OwnedFile {
    /// Takes responsibility for the file that bind(2) has just made.
    ///
    /// # Errors
    /// lstat(2); then the file is left behind, and the next start finds it stale.
    pub(super) fn new(path: &Path) -> io::Result<OwnedFile> {
        let id = FileId::of(&fs::symlink_metadata(path)?);
        Ok(OwnedFile {
            path: path.to_path_buf(),
            id,
        })
    }

    /// Takes responsibility for the file that another process has bound, and has given this one with its socket.
    pub(super) fn inherited(path: &Path, id: FileId) -> OwnedFile {
        OwnedFile {
            path: path.to_path_buf(),
            id,
        }
    }

    /// The identity of the file.
    pub(super) fn id(&self) -> FileId {
        self.id
    }

    /// Leaves the file to another process, which has been given the socket: it is not deleted here.
    pub(super) fn disown(self) {
        std::mem::forget(self);
    }
}

impl Drop for OwnedFile {
    /// A file that cannot be looked at or deleted (directory gone, rights given up since, a file system that does not
    /// answer) is left: the next start finds it stale, and an error on the way out would help no one who reads it.
    fn drop(&mut self) {
        let (path, id) = (std::mem::take(&mut self.path), self.id);
        let (done, wait) = mpsc::sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let (at_work, too_late) = (path.clone(), Arc::clone(&given_up));
        let delete = move || {
            // Signals are the loop's.
            let _ = SigSet::all().thread_block();
            delete_if_it_is(&at_work, id, &too_late);
            let _ = done.send(());
        };
        match thread::Builder::new().name("unlink".to_owned()).spawn(delete) {
            Ok(_) => match wait.recv_timeout(PATIENCE) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) => {
                    given_up.store(true, Ordering::Release);
                    log::warn!(
                        "{} is not deleted within {} and is left; see why the file system that it is on does not answer",
                        path.display(),
                        amount::span(PATIENCE)
                    );
                }
            },
            Err(_) => delete_if_it_is(&path, id, &given_up),
        }
    }
}

/// Not any more once that was given up: the socket may have been closed since, and the number be another file's.
fn delete_if_it_is(path: &Path, id: FileId, given_up: &AtomicBool) {
    let is_it = fs::symlink_metadata(path).is_ok_and(|found| FileId::of(&found) == id);
    if is_it && !given_up.load(Ordering::Acquire) {
        let _ = fs::remove_file(path);
    }
}

/// The reason why a path cannot be bound.
#[derive(Debug)]
pub(super) enum Taken {
    /// A server answers there.
    Running,
    /// Something that is no socket is there.
    NotASocket,
    /// Looking, asking or deleting failed: with this.
    Unknown(io::Error),
}

/// Makes sure that nothing is at `path`, deleting the remains of a server that is no more.
///
/// Two daemons that are started for one path in the same instant may both find the same remains. The file is looked at
/// once more just before it is deleted, so that the later one finds the earlier one's new socket and asks again.
pub(super) fn clear(path: &Path) -> Result<(), Taken> {
    loop {
        let Some(found) = look(path)? else {
            return Ok(());
        };
        match Stream::connect_unix(&UnixAddr::Path(path.to_path_buf())) {
            Ok(_probe) => return Err(Taken::Running),
            Err(error) => match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
                Errno::ECONNREFUSED => {}
                // Its backlog is full, or it is alive but of another type (datagrams).
                Errno::EAGAIN | Errno::EPROTOTYPE => return Err(Taken::Running),
                // Deleted by its server meanwhile: look again.
                Errno::ENOENT => continue,
                _ => return Err(Taken::Unknown(error)),
            },
        }
        if look(path)? == Some(found) {
            return match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Taken::Unknown(error)),
                _ => Ok(()),
            };
        }
    }
}

/// The socket at `path`, if there is one. A symbolic link is not followed and is not a socket.
fn look(path: &Path) -> Result<Option<FileId>, Taken> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => Ok(Some(FileId::of(&found))),
        Ok(_) => Err(Taken::NotASocket),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Taken::Unknown(error)),
    }
}
