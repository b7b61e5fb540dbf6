//! The last good table of a store in a file, for a start while the store is away.
//!
//! The first line says the kind of file and the number of entries, and each other line is an
//! [entry](Entry::line). The file may hold secrets, so that only its owner may read it.
//!
//! It is written beside its place first (`FILE.new`), and renamed when all bytes are on the disk: a reader finds the
//! old table or the new one, whatever happens meanwhile. During an upgrade two processes may write; the file beside is
//! locked by the one of them that writes, and the other one leaves its table out. A lock also tells a file that is
//! being written from one that a crash has left behind, which is used again.
//!
//! A fault in the file costs the entries on its bad lines alone, and never a start: it is for a warning.

use std::ffi::OsString;
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::libc;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::reading::{Listing, MOST};
use crate::regular_file::{self, Kind};

/// The largest file in bytes that is written and read.
pub const LARGEST: u64 = 256 << 20;

/// The version of the format.
const VERSION: u32 = 1;

/// The first line of the file.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    /// The version of the format.
    #[serde(rename = "iotcpd-table")]
    version: u32,
    /// The number of entries.
    names: usize,
}

/// The contents of a file.
#[derive(Debug, Default)]
pub struct Cached {
    /// The entries that could be read, in the order of the file.
    pub entries: Vec<Entry>,
    /// The first fault, in words that follow the name of the file.
    pub fault: Option<String>,
}

/// Reads a file. Returns `None` if there is no file of that name.
///
/// # Errors
/// The file cannot be read at all, for the returned reason.
pub fn read(path: &Path) -> Result<Option<Cached>, String> {
    let kind = Kind {
        largest: LARGEST,
        remedy: "remove it",
    };
    match regular_file::read(path, kind) {
        Ok((bytes, _)) => Ok(Some(parse(&bytes))),
        Err(refusal) if refusal.is_missing => Ok(None),
        Err(refusal) => Err(refusal.cause),
    }
}

/// Reads the contents of a file.
pub fn parse(bytes: &[u8]) -> Cached {
    let mut cached = Cached::default();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let header = lines
        .next()
        .and_then(|line| serde_json::from_slice::<Header>(line).ok());
    let Some(header) = header.filter(|header| header.version == VERSION) else {
        cached.fault = Some("it is no table that this version has written".to_owned());
        return cached;
    };
    for (line, number) in lines.zip(2_usize..).take(MOST) {
        match line.strip_suffix(b"\n").map(|line| Entry::read(b"", line)) {
            Some(Ok(entry)) => cached.entries.push(entry),
            Some(Err(fault)) => note(&mut cached, || format!("line {number} is no entry: {fault}")),
            None => note(&mut cached, || format!("line {number} is cut off")),
        }
    }
    let found = cached.entries.len();
    if found != header.names {
        note(&mut cached, || {
            format!("it has {found} entries instead of {}", header.names)
        });
    }
    cached
}

fn note(cached: &mut Cached, fault: impl FnOnce() -> String) {
    cached.fault.get_or_insert_with(fault);
}

/// Writes a file in the place of the former one. May take long, for all bytes are written to the disk.
///
/// # Errors
/// The file cannot be written, or is too large; or another process writes it at the moment ([`ErrorKind::WouldBlock`]).
/// The former one is still there.
pub fn write(path: &Path, listing: &Listing) -> io::Result<()> {
    let beside = beside(path);
    let file = lock(&beside)?;
    let result = fill(&file, listing).and_then(|()| fs::rename(&beside, path));
    if result.is_err() {
        // There is nothing else to be done about a file that cannot be removed.
        let _ = fs::remove_file(&beside);
    }
    result
}

/// Returns the name under which the new file is written.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".new");
    name.into()
}

/// Opens or creates the file, and locks it.
fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(path)?;
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
    let locked = file.metadata()?;
    if !is_at(&locked, path)? {
        return Err(ErrorKind::WouldBlock.into());
    }
    if !locked.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

/// Returns true if a file that was opened by this path is still there. The process that had its lock may have renamed it
/// since.
fn is_at(opened: &Metadata, path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((opened.dev(), opened.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn fill(file: &File, listing: &Listing) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.set_len(0)?;
    let mut out = BufWriter::new(file);
    let header = Header {
        version: VERSION,
        names: listing.len(),
    };
    let lines = std::iter::once(serde_json::to_string(&header)?).chain(listing.iter().map(Entry::line));
    let mut size = 0;
    for line in lines {
        size += line.len() as u64 + 1;
        if size > LARGEST {
            return Err(ErrorKind::FileTooLarge.into());
        }
        out.write_all(line.as_bytes())?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    drop(out);
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::store::entry::{Secret, Target};

    fn listing(names: usize) -> Listing {
        let entry = |number| Entry {
            name: format!("a{number}.example").into(),
            target: match number % 3 {
                0 => Target::Tunnel(Secret::new("TB2pb\"\n").unwrap()),
                1 => Target::Server {
                    host: "10.0.0.5".into(),
                    tls_port: Some(443),
                    http_port: Some(80),
                },
                _ => Target::Server {
                    host: "::1".into(),
                    tls_port: None,
                    http_port: Some(8080),
                },
            },
        };
        (0..names).map(entry).collect()
    }

    fn names_in(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn a_table_comes_back_from_its_file_and_nothing_else_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        for names in [0, 1, 1_000, 3] {
            write(&path, &listing(names)).unwrap();
            let cached = read(&path).unwrap().unwrap();
            assert_eq!(cached.fault, None);
            assert_eq!(*cached.entries, *listing(names));
            assert_eq!(names_in(folder.path()), ["table"]);
        }
    }

    #[test]
    fn only_the_owner_may_read_the_file_whatever_was_there_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let beside = beside(&path);
        fs::write(&beside, "left by a crash\n".repeat(10_000)).unwrap();
        fs::set_permissions(&beside, Permissions::from_mode(0o666)).unwrap();
        write(&path, &listing(2)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert_eq!(*read(&path).unwrap().unwrap().entries, *listing(2));
    }

    #[test]
    fn the_former_table_stays_if_the_new_one_cannot_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("table"), folder.path().join("elsewhere"));
        write(&path, &listing(2)).unwrap();
        fs::write(&elsewhere, "precious").unwrap();
        symlink(&elsewhere, beside(&path)).unwrap();
        assert!(write(&path, &listing(3)).is_err(), "a link is not followed");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"precious");
        fs::remove_file(beside(&path)).unwrap();
        fs::create_dir(beside(&path)).unwrap();
        assert!(write(&path, &listing(3)).is_err());
        assert_eq!(*read(&path).unwrap().unwrap().entries, *listing(2));
        assert!(write(Path::new("/proc/nothing/table"), &listing(1)).is_err());
        let occupied = folder.path().join("folder");
        fs::create_dir_all(occupied.join("x")).unwrap();
        assert!(write(&occupied, &listing(1)).is_err());
        assert!(!beside(&occupied).exists(), "what cannot be renamed is removed");
    }

    /// The other process of an upgrade renames its file between the opening and the look: that is no fault of the disk.
    #[test]
    fn a_file_that_was_renamed_or_replaced_meanwhile_is_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let (path, elsewhere) = (folder.path().join("t.new"), folder.path().join("t"));
        let opened = File::create(&path).unwrap().metadata().unwrap();
        assert!(is_at(&opened, &path).unwrap());
        fs::rename(&path, &elsewhere).unwrap();
        assert!(!is_at(&opened, &path).unwrap());
        fs::write(&path, "").unwrap();
        assert!(!is_at(&opened, &path).unwrap());
    }

    #[test]
    fn a_file_that_another_process_writes_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        let other = lock(&beside(&path)).unwrap();
        let error = write(&path, &listing(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(beside(&path).exists() && !path.exists());
        drop(other);
        write(&path, &listing(1)).unwrap();
    }

    #[test]
    fn a_bad_line_costs_its_own_entry() {
        let good = listing(2);
        let text = format!(
            "{{\"iotcpd-table\":1,\"names\":3}}\n{}\nrubbish\n{}\n",
            good[0].line(),
            good[1].line()
        );
        let cached = parse(text.as_bytes());
        assert_eq!(*cached.entries, *good);
        assert_eq!(
            cached.fault.as_deref(),
            Some("line 3 is no entry: it is no JSON (line 1, column 1)")
        );
        for end in 0..text.len() {
            let cached = parse(&text.as_bytes()[..end]);
            assert!(
                cached.entries.len() <= 2 && cached.fault.is_some(),
                "{end} bytes are not all"
            );
        }
    }

    #[test]
    fn what_is_no_table_is_a_fault_and_no_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        assert!(read(&path).unwrap().is_none());
        for contents in ["", "\n", "{}", "{\"iotcpd-table\":2,\"names\":0}\n", "\0\u{ff}"] {
            fs::write(&path, contents).unwrap();
            let cached = read(&path).unwrap().unwrap();
            assert!(cached.entries.is_empty() && cached.fault.is_some(), "{contents:?}");
        }
        assert_eq!(read(folder.path()).unwrap_err(), "it is a directory");
    }
}
