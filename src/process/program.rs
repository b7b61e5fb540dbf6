//! Which file a program's name means, by the rules of `execvp(3)`.
//!
//! What is run is found by the child itself, among the [candidates](Search::candidates) that are laid out for it: it alone
//! has the rights of its user, it is [watched over](super::watchdog) where a file system does not answer, and its answer is
//! never out of date. Where somebody has to know beforehand, since a list says what may be run, or since an operator is to
//! be told of a program that is not there, the file system is asked before there is a child, with the rights of its user
//! ([`Finder`]). Between that and the exec the file may be replaced; the kernel has the last word.

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use super::plan::{Candidates, Credentials};
use super::sys;

/// Where `execvp` of the GNU C library looks when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What the meaning of a program's name depends on.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// The child's PATH.
    pub(super) path: Option<OsString>,
    /// The directory that relative paths start from; `None`: the daemon's.
    pub(super) directory: Option<PathBuf>,
}

impl Search {
    /// The path to exec, relative only where name or PATH were: then to the child's directory.
    ///
    /// EACCES, when some candidate exists and may not be run, outweighs ENOENT.
    pub(super) fn resolve(&self, name: &OsStr) -> Result<PathBuf, Errno> {
        if name.as_bytes().contains(&b'/') {
            let path = PathBuf::from(name);
            return self.check(&path).map(|()| path);
        }
        let mut denied = false;
        for element in self.elements() {
            // An empty element is the current directory (POSIX, "Environment Variables", PATH).
            let start = if element.is_empty() { b".".as_slice() } else { element };
            let candidate = Path::new(OsStr::from_bytes(start)).join(name);
            match self.check(&candidate) {
                Ok(()) => return Ok(candidate),
                Err(Errno::EACCES) => denied = true,
                Err(errno) if is_skipped_in_path(errno) => {}
                Err(other) => return Err(other),
            }
        }
        Err(if denied { Errno::EACCES } else { Errno::ENOENT })
    }

    /// What a child is to try for this name; nothing is asked of any file.
    pub(super) fn candidates(&self, name: CString) -> Candidates {
        if name.to_bytes().contains(&b'/') {
            return Candidates::only(name);
        }
        // An empty element is the current directory (POSIX, "Environment Variables", PATH).
        let directories = self
            .elements()
            .map(|element| if element.is_empty() { b".".as_slice() } else { element });
        Candidates::search(directories, &name)
    }

    /// The same file by its own path: absolute, and with no symbolic link in it.
    pub(super) fn resolve_links(&self, name: &OsStr) -> Result<PathBuf, Errno> {
        let path = self.seen_from_here(&self.resolve(name)?);
        fs::canonicalize(path).map_err(|error| errno_of(&error))
    }

    fn elements(&self) -> impl Iterator<Item = &[u8]> {
        let path = self.path.as_deref().unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
        path.as_bytes().split(|&byte| byte == b':')
    }

    /// Whether a candidate is a file that the asking process may execute.
    fn check(&self, candidate: &Path) -> Result<(), Errno> {
        let seen_from_here = self.seen_from_here(candidate);
        let kind = SFlag::from_bits_truncate(stat(&seen_from_here)?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            return Err(Errno::EACCES);
        }
        faccessat(AT_FDCWD, &seen_from_here, AccessFlags::X_OK, AtFlags::AT_EACCESS)
    }

    /// `path` of the child as a path of the daemon's.
    pub(super) fn seen_from_here(&self, path: &Path) -> PathBuf {
        self.directory
            .as_deref()
            .map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }
}

/// Whether a directory of PATH in which this is met is passed over, besides EACCES, which is remembered: as `execvp(3)` of
/// the GNU C library has it, and ENOTCONN, which a FUSE mount gives whose server has gone.
pub(super) const fn is_skipped_in_path(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT | Errno::ENOTCONN
    )
}

/// Asks the file system which file a name means, with the rights of a child's user.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    pub(super) search: Search,
    /// The user and the groups that the child gets; `None`: what the daemon is.
    pub(super) credentials: Option<Credentials>,
}

impl Finder {
    /// See [`Search::resolve`].
    pub(super) fn resolve(&self, name: &OsStr) -> Result<PathBuf, Errno> {
        self.with_its_rights(|| self.search.resolve(name))
    }

    /// See [`Search::resolve_links`].
    pub(super) fn resolve_links(&self, name: &OsStr) -> Result<PathBuf, Errno> {
        self.with_its_rights(|| self.search.resolve_links(name))
    }

    /// Whether the child's user may read a file, a path of the daemon's.
    pub(super) fn may_read(&self, path: &Path) -> Result<(), Errno> {
        self.with_its_rights(|| faccessat(AT_FDCWD, path, AccessFlags::R_OK, AtFlags::AT_EACCESS))
    }

    /// A daemon that may not take the user's rights looks with its own; a start would fail by that as well.
    fn with_its_rights<R>(&self, look: impl Fn() -> R) -> R {
        match &self.credentials {
            Some(credentials) => sys::with_rights_of(credentials, &look).unwrap_or_else(|_| look()),
            None => look(),
        }
    }
}

/// What a call of the standard library has failed with.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// The interpreter that the first line of a script asks for (`execve(2)`, "Interpreter scripts"), of which these are the first
/// bytes.
pub(super) fn interpreter(script: &[u8]) -> Option<PathBuf> {
    let line = script.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let mut words = line
        .split(|byte| matches!(byte, b' ' | b'\t'))
        .filter(|word| !word.is_empty());
    Some(PathBuf::from(OsString::from_vec(words.next()?.to_vec())))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// `empty/`, `denied/tool` without x, `good/tool`, `dir/tool/`.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in ["empty", "denied", "good", "dir/tool"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        for (file, mode) in [("denied/tool", 0o644), ("good/tool", 0o755)] {
            fs::write(root.path().join(file), "").unwrap();
            fs::set_permissions(root.path().join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        root
    }

    fn resolve(root: &Path, name: &str, path: &str, directory: Option<&str>) -> Result<PathBuf, Errno> {
        let path = Some(path.replace('@', root.to_str().unwrap()).into());
        Search {
            path,
            directory: directory.map(|name| root.join(name)),
        }
        .resolve(OsStr::new(name))
    }

    #[test]
    fn the_first_runnable_candidate_wins() {
        let root = tree();
        let good = Ok(root.path().join("good/tool"));
        assert_eq!(resolve(root.path(), "tool", "@/empty:@/good", None), good);
        assert_eq!(
            resolve(root.path(), "tool", "@/denied:@/dir:@/none:@/good/tool:@/good", None),
            good
        );
    }

    #[test]
    fn permission_denied_outweighs_not_found() {
        let root = tree();
        assert_eq!(
            resolve(root.path(), "tool", "@/denied:@/empty", None),
            Err(Errno::EACCES)
        );
        assert_eq!(resolve(root.path(), "tool", "@/empty:@/dir", None), Err(Errno::EACCES));
        assert_eq!(resolve(root.path(), "tool", "@/empty", None), Err(Errno::ENOENT));
    }

    #[test]
    fn an_empty_element_is_the_childs_directory() {
        let root = tree();
        for path in ["", "@/empty:", ":@/empty", "@/empty::@/empty"] {
            assert_eq!(
                resolve(root.path(), "tool", path, Some("good")),
                Ok("./tool".into()),
                "PATH={path}"
            );
        }
    }

    #[test]
    fn a_name_with_a_slash_is_not_searched_for() {
        let root = tree();
        assert_eq!(
            resolve(root.path(), "./tool", "@/good", Some("empty")),
            Err(Errno::ENOENT)
        );
        assert_eq!(
            resolve(root.path(), "./tool", "@/empty", Some("good")),
            Ok("./tool".into())
        );
        assert_eq!(
            resolve(root.path(), "./tool", "@/good", Some("dir")),
            Err(Errno::EACCES)
        );
    }

    #[test]
    fn a_child_is_given_every_directory_to_try() {
        let search = |path: &str| Search {
            path: Some(path.into()),
            directory: None,
        };
        let candidates = |path: &str, name: &str| {
            let found = search(path).candidates(CString::new(name).unwrap());
            let paths: Vec<_> = found.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
            (found.are_searched(), paths)
        };
        let long = "d".repeat(5000);
        assert_eq!(
            candidates(&format!("/a:/b/::{long}:c"), "tool"),
            (
                true,
                ["/a/tool", "/b/tool", "./tool", "c/tool"].map(str::to_owned).to_vec()
            )
        );
        assert_eq!(candidates("/a:/b", "./tool"), (false, vec!["./tool".to_owned()]));
        assert_eq!(candidates(&long, "tool"), (true, vec![]));
        assert_eq!(candidates("/a", &long).1, [format!("/a/{long}")]);
    }

    #[test]
    fn without_a_path_the_default_one_is_searched() {
        let search = Search {
            path: None,
            directory: None,
        };
        assert_eq!(search.resolve(OsStr::new("sh")), Ok("/bin/sh".into()));
    }

    #[test]
    fn a_real_path_is_found_through_links_to_the_file_and_to_its_directory() {
        let root = tree();
        let real = fs::canonicalize(root.path()).unwrap().join("good/tool");
        std::os::unix::fs::symlink("good", root.path().join("linked")).unwrap();
        std::os::unix::fs::symlink("../good/tool", root.path().join("empty/other")).unwrap();
        let search = |directory: Option<&str>| Search {
            path: Some(root.path().join("linked").into()),
            directory: directory.map(|name| root.path().join(name)),
        };
        for (name, directory) in [
            ("tool", None),
            ("tool", Some("empty")),
            ("./other", Some("empty")),
            ("../linked/tool", Some("empty")),
        ] {
            let found = search(directory).resolve_links(OsStr::new(name));
            assert_eq!(found, Ok(real.clone()), "{name} from {directory:?}");
        }
        assert_eq!(search(None).resolve_links(OsStr::new("other")), Err(Errno::ENOENT));
    }

    #[test]
    fn the_interpreter_is_the_first_word_after_the_mark() {
        for (text, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! \t/opt/perl5 -w\nrest", Some("/opt/perl5")),
            ("#!", None),
            ("plain", None),
        ] {
            assert_eq!(interpreter(text.as_bytes()), expected.map(PathBuf::from), "{text:?}");
        }
    }
}
