//! Which file a program's name means, by the rules of `execvp(3)`, asked of the file system before there is a child.
//!
//! The answer may be out of date by the time of the exec (an upgrade replaces the file), so the kernel has the last
//! word there, and the question is asked again when it says that the file is gone.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{SFlag, stat};
use nix::unistd::{AccessFlags, faccessat};

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
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT) => {}
                Err(other) => return Err(other),
            }
        }
        Err(if denied { Errno::EACCES } else { Errno::ENOENT })
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

    /// Whether a candidate is a file that this process may execute. A child that runs as another user may still be
    /// refused, by the kernel, at its exec.
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

/// What a call of the standard library has failed with.
pub(super) fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw)
}

/// The interpreter that the first line of a script asks for (`execve(2)`, "Interpreter scripts").
pub(super) fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut first = Vec::new();
    fs::File::open(script).ok()?.take(256).read_to_end(&mut first).ok()?;
    let line = first.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
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
    fn without_a_path_the_default_one_is_searched() {
        let search = Search {
            path: None,
            directory: None,
        };
        assert_eq!(search.resolve(OsStr::new("sh")), Ok("/bin/sh".into()));
    }

    #[test]
    fn a_file_is_known_by_its_own_path_through_links_to_it_and_to_its_directory() {
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
        let root = tree();
        let script = root.path().join("script");
        for (text, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! \t/opt/perl5 -w\nrest", Some("/opt/perl5")),
            ("#!", None),
            ("plain", None),
        ] {
            fs::write(&script, text).unwrap();
            assert_eq!(interpreter(&script), expected.map(PathBuf::from), "{text:?}");
        }
    }
}
