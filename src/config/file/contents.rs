//! The contents of a file that an operator names.
//!
//! Only regular files are read, and links to them: a pipe may never end, a device may never begin or never end, and
//! neither can be read again at HUP and by the successor at an upgrade. A file larger than any configuration is not
//! read either, because it may be growing forever.

use std::fs::{self, FileType, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::error::{Blame, Error, error_text};

/// The largest file that is read, in bytes: a thousand times the longest configuration seen.
const LARGEST: u64 = 16 * 1024 * 1024;
const LARGEST_IN_WORDS: &str = "16 MiB";

/// Returns the name of a file, for messages about it, and its contents.
///
/// # Errors
/// An error of the operator's if the file cannot be read, or is not a regular file of a reasonable size.
pub(super) fn contents(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let name = path.display().to_string();
    match read(path) {
        Ok(bytes) => Ok((name, bytes)),
        Err(Refusal { cause, remedy, .. }) => Err(Error::new(
            Blame::Operator,
            format_args!("cannot read {name}: {cause}"),
            remedy,
        )),
    }
}

/// The reason why a file is not read.
pub(super) struct Refusal {
    pub(super) cause: String,
    pub(super) remedy: &'static str,
    /// True if there is no file of that name.
    pub(super) is_missing: bool,
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal {
            cause: error_text(&error),
            remedy: "check the path and the permissions",
            is_missing: error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// Returns the whole contents of a file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    // Opening something that is not a file may have an effect, as with a tape, or may block. The kind is checked once
    // more after opening, because the file may have been replaced.
    refuse_other_kinds(fs::metadata(path)?.file_type())?;
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    refuse_other_kinds(metadata.file_type())?;
    let mut bytes = Vec::new();
    // A file that is much too large is not read at all; one that grows meanwhile is read up to the limit.
    if metadata.len() <= LARGEST {
        file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    }
    if metadata.len().max(bytes.len() as u64) > LARGEST {
        return Err(Refusal {
            cause: format!("it is larger than {LARGEST_IN_WORDS}"),
            remedy: "name the configuration file",
            is_missing: false,
        });
    }
    Ok(bytes)
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
    })
}
