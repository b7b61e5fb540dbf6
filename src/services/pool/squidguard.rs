//! What is known of one program, squidGuard, for which iotcpd 1.1 was made and which is the worker where no other is named.
//!
//! A squidGuard whose configuration is missing starts, and lets every URL pass. So the file is looked for before one is
//! started: the default worker is refused without it, for nobody has chosen that; one that was named is started, and its
//! lack is told. That it is there says nothing of what stands in it: that is what a probe is for.

use std::ffi::OsStr;
use std::fmt;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::process::spec::ProcessSpec;

/// The command of the worker where no other is named.
pub const DEFAULT_COMMAND: &str = "squidGuard -c sg/adblock.conf";

/// Its flags that take a value.
const WITH_VALUE: &[u8] = b"cCt";

/// A squidGuard without a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfigured {
    file: PathBuf,
}

impl fmt::Display for Unconfigured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "there is no {:?}, and a squidGuard without its configuration lets every URL pass (with -P it exits instead)",
            self.file
        )
    }
}

/// Asks the file system, for as long as that takes, whether a worker is a squidGuard that is told a configuration which is not
/// there. What cannot be found out is taken to be in order.
pub fn look(process: &ProcessSpec) -> Option<Unconfigured> {
    let file = configuration(process)?;
    let is_missing = |error: std::io::Error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory);
    let missing = file.metadata().is_err_and(is_missing);
    missing.then_some(Unconfigured { file })
}

/// The file that it is told to read, from where the daemon is.
fn configuration(process: &ProcessSpec) -> Option<PathBuf> {
    let (program, arguments) = process.command.words().split_first()?;
    if Path::new(program).file_name()? != "squidGuard" {
        return None;
    }
    let arguments = arguments.iter().map(|word| word.as_bytes());
    let file = Path::new(OsStr::from_bytes(value_of_c(arguments)?));
    match &process.surroundings.working_directory {
        Some(directory) => Some(directory.join(file)),
        None => Some(file.to_owned()),
    }
}

/// What getopt(3) makes of `-c FILE`, `-cFILE` and `-Pc FILE`; the last one counts.
fn value_of_c<'a>(mut arguments: impl Iterator<Item = &'a [u8]>) -> Option<&'a [u8]> {
    let mut found = None;
    while let Some(word) = arguments.next() {
        let letters = match word {
            b"--" => break,
            [b'-', letters @ ..] => letters,
            _ => continue,
        };
        let Some(at) = letters.iter().position(|letter| WITH_VALUE.contains(letter)) else {
            continue;
        };
        let (flag, attached) = letters.get(at..)?.split_first()?;
        let value = if attached.is_empty() {
            arguments.next()?
        } else {
            attached
        };
        if *flag == b'c' {
            found = Some(value);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(words: &[&str]) -> ProcessSpec {
        ProcessSpec::new(words.iter().map(Into::into).collect()).unwrap()
    }

    #[test]
    fn the_file_is_found_where_getopt_would_find_it() {
        for (words, file) in [
            (&["squidGuard", "-c", "a.conf"][..], Some("a.conf")),
            (&["/usr/bin/squidGuard", "-d", "-ca.conf"], Some("a.conf")),
            (&["squidGuard", "-Pc", "a", "-c", "b"], Some("b")),
            (&["squidGuard", "-t", "-c", "-dPbc", "a"], Some("a")),
            (&["squidGuard", "-C", "all"], None),
            (&["squidGuard", "--", "-c", "a"], None),
            (&["squidGuard", "-c"], None),
            (&["squidGuard"], None),
            (&["squidguard.sh", "-c", "a"], None),
        ] {
            assert_eq!(configuration(&process(words)), file.map(Into::into), "{words:?}");
        }
    }

    #[test]
    fn only_a_file_that_is_not_there_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let mut guard = process(&["squidGuard", "-c", "sub/f.conf"]);
        guard.surroundings.working_directory = Some(directory.path().to_owned());
        let file = directory.path().join("sub/f.conf");
        let told = look(&guard).unwrap().to_string();
        assert!(told.contains(file.to_str().unwrap()), "{told}");
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(&file, "").unwrap();
        assert_eq!(look(&guard), None);
        let below = process(&["squidGuard", "-c", file.join("x").to_str().unwrap()]);
        assert!(look(&below).is_some());
    }
}
