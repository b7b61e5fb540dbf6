//! Knowledge of one program, squidGuard, for which iotcpd 1.1 was made and which is the default worker.
//!
//! A squidGuard whose configuration is missing or unreadable starts and lets every URL pass. So the file is looked for
//! before squidGuard is started. Without it the default worker is refused, because the operator did not choose it; a
//! squidGuard that the operator has named is started with a warning. The content of the file is not checked: a probe
//! does that.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::process::spawn;
use crate::process::spec::ProcessSpec;

/// The command of the default worker.
pub const DEFAULT_COMMAND: &str = "squidGuard -c sg/adblock.conf";

/// The flags of squidGuard that take a value.
const WITH_VALUE: &[u8] = b"cCt";

/// A squidGuard without a readable configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfigured {
    file: PathBuf,
    lack: Lack,
    /// True if it exits without its configuration (`-P`).
    exits: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lack {
    NotThere,
    NotReadable,
}

impl fmt::Display for Unconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.lack {
            Lack::NotThere => write!(f, "there is no {:?}", self.file)?,
            Lack::NotReadable => write!(f, "the user of the worker may not read {:?}", self.file)?,
        }
        f.write_str(if self.exits {
            ", and squidGuard -P exits without its configuration"
        } else {
            ", and a squidGuard without its configuration lets every URL pass (with -P it exits instead)"
        })
    }
}

/// Checks whether a worker is a squidGuard whose configuration is missing, or unreadable for its user. Returns `None`
/// for any other worker, and if the file system reports another error. Blocks on the file system without a limit.
pub fn look(process: &ProcessSpec) -> Option<Unconfigured> {
    let (file, exits) = configuration(process)?;
    let lack = match spawn::may_read(process, &file) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Lack::NotThere,
        Err(Errno::EACCES) => Lack::NotReadable,
        Ok(()) | Err(_) => return None,
    };
    Some(Unconfigured { file, lack, exits })
}

/// Returns the configuration file of a squidGuard, relative to the daemon's working directory, and true if it exits
/// without it.
fn configuration(process: &ProcessSpec) -> Option<(PathBuf, bool)> {
    let (program, arguments) = process.command.words().split_first()?;
    if Path::new(program).file_name()? != "squidGuard" {
        return None;
    }
    let arguments = arguments.iter().map(|word| word.as_bytes());
    let (file, exits) = flags(arguments);
    let file = Path::new(OsStr::from_bytes(file?));
    let file = match &process.context.working_directory {
        Some(directory) => directory.join(file),
        None => file.to_owned(),
    };
    Some((file, exits))
}

/// Parses flags as getopt(3) does. Returns the file of the last `-c FILE`, `-cFILE` or `-Pc FILE`, and true if there is
/// a `-P`.
fn flags<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> (Option<&'a [u8]>, bool) {
    let (mut found, mut exits) = (None, false);
    while let Some(word) = arguments.next() {
        let letters = match word {
            b"--" => break,
            [b'-', letters @ ..] => letters,
            _ => continue,
        };
        let with_value = letters.iter().position(|letter| WITH_VALUE.contains(letter));
        let (alone, rest) = letters.split_at(with_value.unwrap_or(letters.len()));
        exits |= alone.contains(&b'P');
        let Some((flag, attached)) = rest.split_first() else {
            continue;
        };
        let value = if attached.is_empty() {
            arguments.next()
        } else {
            Some(attached)
        };
        if *flag == b'c' && value.is_some() {
            found = value;
        }
    }
    (found, exits)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use nix::unistd::geteuid;

    use super::*;

    fn process(words: &[&str]) -> ProcessSpec {
        ProcessSpec::new(words.iter().map(Into::into).collect()).unwrap()
    }

    #[test]
    fn the_file_is_found_where_getopt_would_find_it() {
        for (words, file, exits) in [
            (&["squidGuard", "-c", "a.conf"][..], Some("a.conf"), false),
            (&["/usr/bin/squidGuard", "-d", "-ca.conf"], Some("a.conf"), false),
            (&["squidGuard", "-Pc", "a", "-c", "b"], Some("b"), true),
            (&["squidGuard", "-c", "a", "-P"], Some("a"), true),
            (&["squidGuard", "-c", "-P"], Some("-P"), false),
            (&["squidGuard", "-t", "-c", "-dPbc", "a"], Some("a"), true),
            (&["squidGuard", "-C", "all"], None, false),
            (&["squidGuard", "--", "-c", "a"], None, false),
            (&["squidGuard", "-c"], None, false),
            (&["squidGuard"], None, false),
            (&["squidguard.sh", "-c", "a"], None, false),
        ] {
            let expected = file.map(|file| (file.into(), exits));
            assert_eq!(configuration(&process(words)), expected, "{words:?}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_or_may_not_be_read_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = process(&["squidGuard", "-c", "sub/f.conf"]);
        guard.context.working_directory = Some(directory.path().to_owned());
        let file = directory.path().join("sub/f.conf");
        let told = look(&guard).unwrap().to_string();
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(look(&guard), None);
        let set_mode = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set_mode(directory.path(), 0o755);
        set_mode(&file, 0o000);
        if geteuid().is_root() {
            assert_eq!(look(&guard), None, "root may read everything");
            (guard.context.user, guard.context.group) = (Some(54321), Some(54321));
        }
        let told = look(&guard).unwrap().to_string();
        assert!(told.starts_with("the user of the worker may not read "), "{told}");
        assert!(
            told.ends_with("lets every URL pass (with -P it exits instead)"),
            "{told}"
        );
        let below = process(&["squidGuard", "-P", "-c", file.join("x").to_str().unwrap()]);
        let told = look(&below).unwrap().to_string();
        assert!(
            told.ends_with(", and squidGuard -P exits without its configuration"),
            "{told}"
        );
        let below = process(&["squidGuard", "-c", file.join("x").to_str().unwrap()]);
        assert!(look(&below).is_some());
    }
}
