//! The clients that may have programs run, and the programs that may be run: the lists of an operator, without I/O.
//!
//! [`Clients`] are users and groups, as a UNIX socket names them; [`Programs`] are paths and patterns of paths. An
//! empty list permits every client, or every program.
//!
//! A program has two paths. It is *found* at the path that the client wrote, or in a directory of PATH. Its *target* is
//! the same path without symbolic links, `.` and `..`. A user that can make links must not be able to run unlisted
//! programs by them, so a pattern is compared with the target, and the target is run ([`Verdict::Target`]). A path that
//! is written out in the list may be a link itself: the operator has named it, so a program that was found at exactly
//! that path is permitted and run by it, whatever the link leads to ([`Verdict::Found`]). It is not enough that both
//! paths lead to one file: a program such as busybox behaves by the name that it is called by. For the same reason a
//! program that was found under an unlisted name is given its target's name (`argv[0]`) when it is run by its target
//! ([`Verdict::Renamed`]): a client's own link would choose what it does.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use glob::{MatchOptions, Pattern, PatternError};

/// Users and groups that may have programs run. A client needs to be in one of the two lists. Root is no exception.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clients {
    /// User ids.
    pub users: BTreeSet<u32>,
    /// Group ids.
    pub groups: BTreeSet<u32>,
}

impl Clients {
    /// Returns true if there is a list, so that some clients are refused.
    #[must_use]
    pub fn restrict(&self) -> bool {
        !self.users.is_empty() || !self.groups.is_empty()
    }

    /// Returns true if this user is listed. `groups` are all of its groups, with the primary one.
    #[must_use]
    pub fn permit(&self, user: u32, groups: &[u32]) -> bool {
        !self.restrict() || self.users.contains(&user) || groups.iter().any(|group| self.groups.contains(group))
    }
}

/// Paths and patterns of paths.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Programs {
    patterns: Vec<Pattern>,
}

/// The decision about a program, with the path by which it is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The program is run by the path at which it was found.
    Found,
    /// The program is run by its target.
    Target,
    /// The program is run by its target, and given that path as its name.
    Renamed,
    /// The program is not run.
    Forbidden,
}

/// The rules of patterns: `*` and `?` do not match a slash; a leading dot is a character like any other.
const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Programs {
    /// Adds a path or a pattern: `*` matches any part of a name, `?` one character, `[a-z]` one of these characters,
    /// and `**` as a whole name any number of directories.
    ///
    /// # Errors
    /// The text is neither; the error says why, with a remedy.
    pub fn add(&mut self, pattern: &str) -> Result<(), BadPattern> {
        if !pattern.starts_with('/') {
            return Err(BadPattern::Relative);
        }
        if pattern.ends_with('/') {
            return Err(BadPattern::Directory);
        }
        if pattern.split('/').skip(1).any(is_odd) {
            return Err(BadPattern::NeverMatches);
        }
        self.patterns.push(Pattern::new(pattern).map_err(BadPattern::Syntax)?);
        Ok(())
    }

    /// Returns true if there is a list, so that some programs are refused.
    #[must_use]
    pub fn restrict(&self) -> bool {
        !self.patterns.is_empty()
    }

    /// Decides about a program that was found at this path and has that target. A path that is not UTF-8 matches
    /// nothing.
    #[must_use]
    pub fn verdict(&self, found: &Path, target: &Path) -> Verdict {
        let written_out = |pattern: &Pattern| found.as_os_str() == pattern.as_str() && !has_wildcard(pattern.as_str());
        if !self.restrict() || self.patterns.iter().any(written_out) {
            return Verdict::Found;
        }
        let listed = |path: &Path| self.patterns.iter().any(|it| it.matches_path_with(path, OPTIONS));
        // A pattern is compared with text: `**` would match a `..` that leads out of the pattern's directory.
        let plain = found
            .to_str()
            .is_some_and(|found| !found.split('/').skip(1).any(is_odd));
        if !listed(target) {
            Verdict::Forbidden
        } else if found.file_name() == target.file_name() || plain && listed(found) {
            Verdict::Target
        } else {
            Verdict::Renamed
        }
    }
}

/// Returns true if no path without links has such a part behind its first slash.
fn is_odd(name: &str) -> bool {
    matches!(name, "" | "." | "..")
}

fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// The reason for which a text is no pattern.
#[derive(Debug)]
pub enum BadPattern {
    /// The text does not begin with a slash.
    Relative,
    /// The text ends with a slash.
    Directory,
    /// The text has a name that occurs in no path without links.
    NeverMatches,
    /// The wildcards in the text are not valid.
    Syntax(PatternError),
}

/// Writes the reason, then the remedy.
impl fmt::Display for BadPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPattern::Relative => f.write_str("it is no path from the root; write for example /usr/bin/git"),
            BadPattern::Directory => f.write_str("it is a directory; write for example /opt/tools/* for what is in it"),
            BadPattern::NeverMatches => {
                f.write_str("it can match nothing, since paths are compared without //, /./ and /../; leave these out")
            }
            BadPattern::Syntax(error) => {
                write!(f, "its wildcards are wrong at byte {}: {}; ", error.pos, error.msg)?;
                f.write_str("write * ? [a-z], and ** between slashes")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(patterns: &[&str]) -> Programs {
        let mut programs = Programs::default();
        for pattern in patterns {
            programs
                .add(pattern)
                .unwrap_or_else(|error| panic!("{pattern}: {error}"));
        }
        programs
    }

    fn verdict(patterns: &[&str], found: &str, target: &str) -> Verdict {
        list(patterns).verdict(Path::new(found), Path::new(target))
    }

    #[test]
    fn a_client_in_either_list_is_permitted_and_root_is_no_exception() {
        let clients = Clients {
            users: [7].into(),
            groups: [20, 21].into(),
        };
        for (user, groups, permitted) in [
            (7, &[1][..], true),
            (8, &[1, 21], true),
            (8, &[20], true),
            (8, &[1, 7], false),
            (20, &[], false),
            (0, &[0], false),
        ] {
            assert_eq!(clients.permit(user, groups), permitted, "{user} {groups:?}");
        }
        assert!(Clients::default().permit(8, &[]), "nobody is listed, so everybody may");
        let users = Clients {
            users: [7].into(),
            ..Clients::default()
        };
        assert!(users.restrict() && !users.permit(8, &[8]));
    }

    #[test]
    fn patterns_are_held_against_the_target_and_their_stars_keep_to_their_directory() {
        for (pattern, target, permitted) in [
            ("/usr/bin/*", "/usr/bin/git", true),
            ("/usr/bin/*", "/usr/bin/.hidden", true),
            ("/usr/bin/*", "/usr/bin/sub/git", false),
            ("/usr/bin/*", "/usr/bin", false),
            ("/usr/bin/*", "/opt/usr/bin/git", false),
            ("/usr/bin/git*", "/usr/bin/git-shell", true),
            ("/usr/bin/gi?", "/usr/bin/git", true),
            ("/usr/bin/gi?", "/usr/bin/gi/", false),
            ("/usr/*/git", "/usr/bin/git", true),
            ("/usr/*/git", "/usr/a/b/git", false),
            ("/usr/**/git", "/usr/git", true),
            ("/usr/**/git", "/usr/a/b/git", true),
            ("/usr/**/git", "/usr/a/b/agit", false),
            ("/opt/**", "/opt/a/b", true),
            ("/opt/**", "/opta", false),
            ("/opt/[a-c]", "/opt/b", true),
            ("/opt/[!a-c]", "/opt/b", false),
            ("/opt/[!a-c]", "/opt//", false),
            ("/usr/bin/git", "/usr/bin/git", true),
            ("/usr/bin/git", "/usr/bin/gitk", false),
            ("/usr/bin/GIT", "/usr/bin/git", false),
        ] {
            let expected = if permitted {
                Verdict::Renamed
            } else {
                Verdict::Forbidden
            };
            assert_eq!(verdict(&[pattern], "/link", target), expected, "{pattern} {target}");
        }
    }

    #[test]
    fn a_link_among_what_is_permitted_leads_nowhere_else() {
        assert_eq!(verdict(&["/opt/*"], "/opt/evil", "/usr/bin/dash"), Verdict::Forbidden);
        assert_eq!(verdict(&["/opt/*"], "/tmp/link", "/opt/tool"), Verdict::Renamed);
    }

    #[test]
    fn a_name_that_is_not_listed_is_not_told_to_the_program() {
        for (pattern, found, target, expected) in [
            ("/bin/ls", "/tmp/sh", "/bin/ls", Verdict::Renamed),
            ("/bin/*", "/tmp/sh", "/bin/ls", Verdict::Renamed),
            ("/bin/*", "/bin/sh", "/bin/ls", Verdict::Target),
            ("/bin/*", "/usr/linked/ls", "/bin/ls", Verdict::Target),
            ("/bin/*", "./ls", "/bin/ls", Verdict::Target),
            ("/bin/*", "/bin/../bin/ls", "/bin/ls", Verdict::Target),
            ("/bin/**", "/bin/../tmp/sh", "/bin/ls", Verdict::Renamed),
            ("/bin/**", "/bin//sh", "/bin/ls", Verdict::Renamed),
        ] {
            assert_eq!(verdict(&[pattern], found, target), expected, "{pattern} {found}");
        }
    }

    #[test]
    fn a_path_that_is_written_out_may_be_a_link_and_permits_only_itself() {
        let busybox = |found| verdict(&["/bin/ls"], found, "/bin/busybox");
        assert_eq!(busybox("/bin/ls"), Verdict::Found);
        for found in ["/bin/sh", "/bin//ls", "/bin/./ls", "bin/ls", "/bin/ls/"] {
            assert_eq!(busybox(found), Verdict::Forbidden, "{found}");
        }
        assert_eq!(
            verdict(&["/a/*"], "/a/*", "/b"),
            Verdict::Forbidden,
            "a pattern is no path"
        );
    }

    #[test]
    fn without_a_list_everything_is_run_where_it_was_found() {
        assert_eq!(verdict(&[], "x", "/y"), Verdict::Found);
    }

    #[test]
    fn a_text_that_is_no_pattern_is_refused_with_a_remedy() {
        for (pattern, why) in [
            ("git", "no path from the root"),
            ("", "no path from the root"),
            ("/opt/", "a directory"),
            ("/", "a directory"),
            ("/opt/../bin/sh", "nothing"),
            ("/opt//sh", "nothing"),
            ("/opt/./sh", "nothing"),
            ("/opt/[a", "wildcards are wrong at byte 5"),
            ("/opt/a**", "wildcards are wrong"),
            ("/opt/***", "wildcards are wrong"),
        ] {
            let said = Programs::default().add(pattern).unwrap_err().to_string();
            assert!(said.contains(why) && said.contains("; "), "{pattern}: {said}");
        }
    }

    #[test]
    fn a_path_that_is_no_text_is_not_permitted_by_a_pattern() {
        use std::os::unix::ffi::OsStrExt;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/opt/\xff"));
        assert_eq!(list(&["/opt/*"]).verdict(odd, odd), Verdict::Forbidden);
    }
}
