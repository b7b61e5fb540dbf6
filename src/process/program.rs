//! The file that a program's name means, by the rules of `execvp(3)`.
//!
//! Usually the child finds it, among the [candidates](Search::candidates) that are prepared for it. Only the child has
//! the rights of its user, the [watchdog](super::watchdog) bounds the time of a search on a file system that does not
//! answer, and the result is never out of date. If the file must be known earlier, because a list says which files may
//! be run or because an operator should learn of a missing program, the file system is asked before there is a child,
//! with the rights of its user ([`Finder`]). The file may be replaced between that and the exec; the kernel decides in
//! the end.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

use super::failure::{SpawnError, Step};
use super::plan::{Candidates, Credentials};
use super::sys;

/// The PATH of `execvp` of the GNU C library when there is no PATH.
const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// The meaning of a program's name: the file that was found, or the files that a child tries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    name: OsString,
    candidates: Candidates,
}

impl Program {
    pub(super) fn new(name: &OsStr, candidates: Candidates) -> Self {
        Self {
            name: name.to_owned(),
            candidates,
        }
    }

    pub(super) fn found(name: &OsStr, path: &Path) -> Result<Self, SpawnError> {
        let candidates = Candidates::only(path.as_os_str());
        let candidates = candidates.map_err(|errno| SpawnError::new(Step::Arguments, name, errno))?;
        Ok(Self::new(name, candidates))
    }

    /// Returns the name by which the program was asked for.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Returns the file that is run if it is known already, or else the first file that is tried. A relative path
    /// begins in the child's working directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.candidates.first()
    }

    pub(super) const fn candidates(&self) -> &Candidates {
        &self.candidates
    }
}

/// The settings that the meaning of a program's name depends on.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// The child's PATH.
    pub(super) path: Option<OsString>,
    /// The directory in which relative paths begin; `None` for the daemon's.
    pub(super) directory: Option<PathBuf>,
}

impl Search {
    /// Returns the path to exec. It is relative only if the name or an element of PATH is, and begins then in the
    /// child's directory.
    ///
    /// EACCES, for a candidate that exists and may not be run, takes precedence over ENOENT.
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

    /// Returns the files that a child tries for this name. Does not touch the file system.
    ///
    /// # Errors
    /// EINVAL: the name holds a NUL.
    pub(super) fn candidates(&self, name: &OsStr) -> Result<Candidates, Errno> {
        if name.as_bytes().contains(&b'/') {
            return Candidates::only(name);
        }
        // An empty element is the current directory (POSIX, "Environment Variables", PATH).
        let directories = self
            .elements()
            .map(|element| if element.is_empty() { b".".as_slice() } else { element });
        Candidates::search(directories, name)
    }

    /// Returns the real path of the same file: absolute, and without symbolic links.
    pub(super) fn resolve_links(&self, name: &OsStr) -> Result<PathBuf, Errno> {
        let path = self.seen_from_here(&self.resolve(name)?);
        fs::canonicalize(path).map_err(|error| errno_of(&error))
    }

    fn elements(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let path = self.path.as_deref().unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
        path.as_bytes().split(|&byte| byte == b':')
    }

    /// Checks that a candidate is a file that this process may execute.
    fn check(&self, candidate: &Path) -> Result<(), Errno> {
        let seen_from_here = self.seen_from_here(candidate);
        let kind = SFlag::from_bits_truncate(stat(&seen_from_here)?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFREG {
            return Err(Errno::EACCES);
        }
        faccessat(AT_FDCWD, &seen_from_here, AccessFlags::X_OK, AtFlags::AT_EACCESS)
    }

    /// Returns a path of the child as a path of the daemon.
    pub(super) fn seen_from_here(&self, path: &Path) -> PathBuf {
        self.directory
            .as_deref()
            .map_or_else(|| path.to_owned(), |directory| directory.join(path))
    }
}

/// Returns true if a search of PATH goes on after this error. These are the errors of `execvp(3)` of the GNU C library,
/// and ENOTCONN, which a FUSE mount returns when its server has ended. EACCES is not among them, because the search
/// remembers it.
pub(super) const fn is_skipped_in_path(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT | Errno::ENOTCONN
    )
}

/// The search for a program's file, with the rights of the child's user.
#[derive(Debug, Clone)]
pub(super) struct Finder {
    pub(super) search: Search,
    /// The user and groups of the child; `None` for the daemon's own.
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

    /// Checks that the child's user may read a file, given as a path of the daemon.
    pub(super) fn may_read(&self, path: &Path) -> Result<(), Errno> {
        self.with_its_rights(|| faccessat(AT_FDCWD, path, AccessFlags::R_OK, AtFlags::AT_EACCESS))
    }

    /// Calls `look` with the rights of the child's user. A daemon that may not take these rights looks with its own; a
    /// start would fail for the same reason.
    fn with_its_rights<R>(&self, look: impl Fn() -> R) -> R {
        match &self.credentials {
            Some(credentials) => sys::with_rights_of(credentials, &look).unwrap_or_else(|_| look()),
            None => look(),
        }
    }
}

/// The look-up of names as a [`Spawner`](super::spawn::Spawner) does it, independent of the spawner's life.
#[derive(Debug, Clone)]
pub struct Lookup(Finder);

/// The meaning of a name: one file, by two of its paths.
#[derive(Debug)]
pub struct Found {
    /// The path at which it was found: see [`Spawner::find`](super::spawn::Spawner::find).
    pub program: Program,
    /// The path without links: see [`Spawner::find_real`](super::spawn::Spawner::find_real).
    pub target: Program,
}

impl Lookup {
    pub(super) const fn new(finder: Finder) -> Self {
        Self(finder)
    }

    /// Looks a name up. Waits for the file system.
    ///
    /// # Errors
    /// There is no such file, or none that may be run, at [`Step::Lookup`].
    pub fn look(&self, name: &OsStr) -> Result<Found, SpawnError> {
        let program = self.0.resolve(name);
        let target = program.and_then(|program| Ok((program, self.0.resolve_links(name)?)));
        let (program, target) = target.map_err(|errno| SpawnError::new(Step::Lookup, name, errno))?;
        Ok(Found {
            program: Program::found(name, &program)?,
            target: Program::found(name, &target)?,
        })
    }
}

/// Returns the errno of an error of the standard library.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// Returns the interpreter that the first line of a script names (`execve(2)`, "Interpreter scripts"), given the first
/// bytes of the script.
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
            let found = search(path).candidates(OsStr::new(name)).unwrap();
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
