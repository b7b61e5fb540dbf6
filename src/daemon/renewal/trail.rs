//! The way that a path takes through the file system: from directory to directory, and through symbolic links.
//!
//! Another file is found under a path when any step of the way is replaced: the file itself, a link to it (certbot), a
//! link to a directory (Kubernetes), or a directory. So each step is watched, by the directory that it is in. A step is
//! looked at only when it is watched already: what happens to it before is seen, and what happens later is an event.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

/// The number of links after which the kernel gives up (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The thing that stands at a place in the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Directory,
    /// A symbolic link, and where it points.
    Link(PathBuf),
    /// A file, or anything else that leads no further.
    File,
    /// Nothing, or nothing that can be looked at.
    Nothing,
}

/// The file system, as a walk sees it.
pub(super) trait Ground {
    /// Watches an entry of a directory: that it comes, changes, goes or is replaced.
    fn watch_entry(&mut self, directory: &Path, name: &OsStr) -> Result<(), Errno>;
    /// Watches what stands at a place: that it changes, goes or is replaced. A link is not followed.
    fn watch_itself(&mut self, place: &Path) -> Result<(), Errno>;
    /// Looks at a place. A link is not followed.
    fn look(&mut self, place: &Path) -> Found;
}

/// A step that cannot be watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unwatched {
    pub(super) directory: PathBuf,
    pub(super) error: Errno,
}

/// Watches each step of a path, up to the file, or up to the first step where there is nothing.
///
/// # Errors
/// The first step that cannot be watched. All others are.
pub(super) fn follow(path: &Path, ground: &mut impl Ground) -> Result<(), Unwatched> {
    let mut here = PathBuf::from(".");
    let mut ahead = Vec::new();
    let (mut links, mut outcome) = (0, Ok(()));
    push(&mut ahead, path);
    while let Some(step) = ahead.pop() {
        let name = match step {
            Step::Root => {
                here = PathBuf::from("/");
                continue;
            }
            Step::Up => {
                here.push("..");
                continue;
            }
            Step::Into(name) => name,
        };
        let place = here.join(&name);
        let entry = ground.watch_entry(&here, &name);
        // A directory that may not be read may still hold things that may.
        let watched = entry.or_else(|error| ground.watch_itself(&place).map_err(|_| error));
        if let Err(error) = watched
            && !is_gone(error)
            && outcome.is_ok()
        {
            let directory = here.clone();
            outcome = Err(Unwatched { directory, error });
        }
        match ground.look(&place) {
            Found::Directory => here = place,
            Found::Link(target) if links < MOST_LINKS => {
                links += 1;
                push(&mut ahead, &target);
            }
            Found::File => {
                // It may also be written under another name, or through another mount. Failing that, there is the entry.
                let _ = ground.watch_itself(&place);
                break;
            }
            Found::Link(_) | Found::Nothing => break,
        }
    }
    outcome
}

#[derive(Debug)]
enum Step {
    Root,
    Up,
    Into(OsString),
}

/// Puts the steps of a path in front of the ones ahead. The last in the list is the next one.
fn push(ahead: &mut Vec<Step>, path: &Path) {
    let steps = path.components().rev().filter_map(|component| match component {
        Component::RootDir | Component::Prefix(_) => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
        Component::CurDir => None,
    });
    ahead.extend(steps);
}

/// Returns true if the directory was removed during the walk, which is an event in the one that it was in.
fn is_gone(error: Errno) -> bool {
    matches!(error, Errno::ENOENT | Errno::ENOTDIR)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// A file system of things at places, which writes down what is watched.
    #[derive(Default)]
    struct Invented {
        things: BTreeMap<&'static str, Found>,
        unreadable: BTreeSet<&'static str>,
        /// The steps of the walk, in their order.
        steps: Vec<String>,
    }

    impl Invented {
        fn new(files: &[&'static str], links: &[(&'static str, &str)]) -> Self {
            let mut things = BTreeMap::new();
            for place in files.iter().copied().chain(links.iter().map(|(place, _)| *place)) {
                for (end, _) in place.match_indices('/').filter(|(end, _)| *end > 0) {
                    things.insert(&place[..end], Found::Directory);
                }
            }
            things.extend(files.iter().map(|file| (*file, Found::File)));
            things.extend(links.iter().map(|(place, target)| (*place, Found::Link(target.into()))));
            Self {
                things,
                ..Self::default()
            }
        }
    }

    impl Ground for Invented {
        fn watch_entry(&mut self, directory: &Path, name: &OsStr) -> Result<(), Errno> {
            let place = directory.to_str().unwrap();
            if self.unreadable.contains(place) {
                return Err(Errno::EACCES);
            }
            self.steps.push(format!("{place}: {}", name.to_str().unwrap()));
            Ok(())
        }

        fn watch_itself(&mut self, place: &Path) -> Result<(), Errno> {
            let place = place.to_str().unwrap();
            let thing = self.things.get(place).ok_or(Errno::ENOENT)?;
            if self.unreadable.contains(place) || *thing == Found::Nothing {
                return Err(Errno::EACCES);
            }
            self.steps.push(place.to_owned());
            Ok(())
        }

        fn look(&mut self, place: &Path) -> Found {
            let name = place.file_name().unwrap().to_str().unwrap();
            let is_watched = self.steps.last().is_some_and(|last| last.ends_with(name));
            assert!(
                is_watched || !self.unreadable.is_empty(),
                "{place:?} is looked at before it is watched"
            );
            self.things
                .get(place.to_str().unwrap())
                .cloned()
                .unwrap_or(Found::Nothing)
        }
    }

    fn steps(ground: &mut Invented, path: &str) -> Vec<String> {
        assert_eq!(follow(Path::new(path), ground), Ok(()));
        std::mem::take(&mut ground.steps)
    }

    #[test]
    fn a_file_is_watched_with_all_directories_above_it() {
        let mut ground = Invented::new(&["/etc/tls/a.pem"], &[]);
        let expected = ["/: etc", "/etc: tls", "/etc/tls: a.pem", "/etc/tls/a.pem"];
        assert_eq!(steps(&mut ground, "/etc/tls/a.pem"), expected);
        assert_eq!(steps(&mut ground, "//etc/./tls/a.pem"), expected);
    }

    #[test]
    fn what_is_missing_is_waited_for_where_it_will_come() {
        let mut ground = Invented::new(&["/etc/tls/a.pem"], &[]);
        assert_eq!(
            steps(&mut ground, "/etc/tls/a.pem.ocsp"),
            ["/: etc", "/etc: tls", "/etc/tls: a.pem.ocsp"]
        );
        assert_eq!(steps(&mut ground, "/etc/new/a.pem"), ["/: etc", "/etc: new"]);
        let below_a_file = steps(&mut ground, "/etc/tls/a.pem/b");
        assert_eq!(below_a_file.last().unwrap(), "/etc/tls/a.pem");
    }

    #[test]
    fn certbot_links_to_the_newest_file_of_an_archive() {
        let mut ground = Invented::new(
            &["/le/archive/a/cert1.pem"],
            &[("/le/live/a/cert.pem", "../../archive/a/cert1.pem")],
        );
        let up = "/le/live/a/../..";
        for place in ["/archive", "/archive/a"] {
            let place: &'static str = format!("{up}{place}").leak();
            ground.things.insert(place, Found::Directory);
        }
        ground
            .things
            .insert("/le/live/a/../../archive/a/cert1.pem", Found::File);
        assert_eq!(
            steps(&mut ground, "/le/live/a/cert.pem"),
            [
                "/: le",
                "/le: live",
                "/le/live: a",
                "/le/live/a: cert.pem",
                "/le/live/a/../..: archive",
                "/le/live/a/../../archive: a",
                "/le/live/a/../../archive/a: cert1.pem",
                "/le/live/a/../../archive/a/cert1.pem",
            ]
        );
    }

    #[test]
    fn kubernetes_swaps_a_link_to_a_directory() {
        let mut ground = Invented::new(
            &["/tls/..1/tls.crt"],
            &[("/tls/..data", "..1"), ("/tls/tls.crt", "..data/tls.crt")],
        );
        assert_eq!(
            steps(&mut ground, "/tls/tls.crt"),
            [
                "/: tls",
                "/tls: tls.crt",
                "/tls: ..data",
                "/tls: ..1",
                "/tls/..1: tls.crt",
                "/tls/..1/tls.crt",
            ]
        );
    }

    #[test]
    fn a_path_without_a_root_begins_in_the_working_directory() {
        let mut ground = Invented::default();
        ground.things.insert("./tls", Found::Directory);
        assert_eq!(steps(&mut ground, "tls/a.pem"), [".: tls", "./tls: a.pem"]);
        assert_eq!(steps(&mut ground, "../a.pem"), ["./..: a.pem"]);
    }

    #[test]
    fn links_in_a_circle_end_the_walk() {
        let mut ground = Invented::new(&[], &[("/a", "b"), ("/b", "/a")]);
        let steps = steps(&mut ground, "/a");
        assert_eq!(steps.len(), MOST_LINKS + 1);
    }

    /// As the private keys of Debian: the group of the daemon may pass the directory, but not list it.
    #[test]
    fn a_directory_that_may_not_be_read_has_its_things_watched_themselves() {
        let mut ground = Invented::new(&["/ssl/private/a.key"], &[("/ssl/private/link", "a.key")]);
        ground.unreadable.insert("/ssl/private");
        assert_eq!(
            steps(&mut ground, "/ssl/private/link"),
            [
                "/: ssl",
                "/ssl: private",
                "/ssl/private/link",
                "/ssl/private/a.key",
                "/ssl/private/a.key",
            ]
        );
        let unwatched = Unwatched {
            directory: "/ssl/private".into(),
            error: Errno::EACCES,
        };
        let missing = follow(Path::new("/ssl/private/b.key"), &mut ground);
        assert_eq!(missing, Err(unwatched.clone()), "no event will tell that it has come");
        ground.unreadable.insert("/ssl/private/a.key");
        assert_eq!(follow(Path::new("/ssl/private/a.key"), &mut ground), Err(unwatched));
    }
}
