//! The contents of a file that an operator names.
//!
//! Only regular files are read, and links to them: a pipe may never end, a device may never begin or never end, and
//! neither can be read again at HUP and by the successor at an upgrade. A file larger than any of its [`Kind`]
//! is not read either, because it may be growing forever.

use std::fs::{self, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::libc;

use crate::amount;
use crate::error::error_text;

/// The errors of a machine that is short of something, or of a file system that cannot be reached.
const PASSING: [i32; 8] = [
    libc::EMFILE,
    libc::ENFILE,
    libc::ENOMEM,
    libc::EIO,
    libc::ESTALE,
    libc::ETIMEDOUT,
    libc::EHOSTDOWN,
    libc::ENOTCONN,
];

/// The kind of file that is expected.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// The largest file that is read, in bytes.
    pub largest: u64,
    /// The remedy if the file is larger.
    pub remedy: &'static str,
}

/// The reason why a file is not read.
#[derive(Debug)]
pub struct Refusal {
    /// The reason, which follows a colon.
    pub cause: String,
    /// The advice to the operator.
    pub remedy: &'static str,
    /// True if there is no file of that name.
    pub is_missing: bool,
    /// True if the reason is not the file but the machine at this moment: another try may succeed.
    pub is_passing: bool,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal {
            cause: error_text(&error),
            remedy: "check the path and the permissions",
            is_missing: error.kind() == io::ErrorKind::NotFound,
            is_passing: error.raw_os_error().is_some_and(|number| PASSING.contains(&number)),
        }
    }
}

/// Returns the whole contents of a file, and the metadata of this very file.
///
/// # Errors
/// It cannot be read, is no regular file, or is larger than its kind allows.
pub fn read(path: &Path, kind: Kind) -> Result<(Vec<u8>, Metadata), Refusal> {
    // Opening something that is not a file may have an effect, as with a tape, or may block. The kind is checked once
    // more after opening, because the file may have been replaced.
    refuse_other_kinds(fs::metadata(path)?.file_type())?;
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY | libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    refuse_other_kinds(metadata.file_type())?;
    let mut bytes = Vec::new();
    // A file that is much too large is not read at all; one that grows meanwhile is read up to the limit.
    if metadata.len() <= kind.largest {
        file.take(kind.largest + 1).read_to_end(&mut bytes)?;
    }
    if metadata.len().max(bytes.len() as u64) > kind.largest {
        return Err(Refusal {
            cause: format!("it is larger than {}", amount::limit(kind.largest)),
            remedy: kind.remedy,
            is_missing: false,
            is_passing: false,
        });
    }
    Ok((bytes, metadata))
}

fn refuse_other_kinds(kind: FileType) -> Result<(), Refusal> {
    let (cause, remedy) = match () {
        () if kind.is_file() => return Ok(()),
        () if kind.is_dir() => ("it is a directory", "name the file in it"),
        () if kind.is_fifo() => (
            "it is a pipe, which cannot be read again at HUP",
            "write what comes out of it to a file, and name that",
        ),
        () if kind.is_socket() => ("it is a socket", "name a regular file"),
        () => ("it is a device", "name a regular file"),
    };
    Err(Refusal {
        cause: cause.to_owned(),
        remedy,
        is_missing: false,
        is_passing: false,
    })
}
