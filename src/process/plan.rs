//! The plan of a start as plain data: [`spawn`](super::spawn) makes it, and `sys` carries it out.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::Pid;

use super::control_group::Entrance;
use super::limits::LimitSetting;
use super::strings::Strings;
use super::sys::SignalBits;
use super::watch_list::Table;

/// Everything that the child needs, prepared before it exists.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a Candidates,
    /// The process that starts the child.
    pub(super) parent: Pid,
    pub(super) argv: &'a Strings,
    /// The variables that no client variable replaces.
    pub(super) environment: &'a [CString],
    /// The variables that [tell of a client](super::spec::tells_of_a_client), in case nothing is known of this one.
    pub(super) about_clients: &'a [CString],
    /// The signals whose disposition in the daemon is not the one of a new program.
    pub(super) signals: SignalBits,
    /// The variables that tell of this client, and replace others with the same names.
    pub(super) client_variables: &'a Strings,
    /// One more variable, whose name no other variable has, or none.
    pub(super) sign: &'a Strings,
    /// Standard input, output and error, in this order.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) nice: Option<i32>,
    pub(super) limits: &'a [LimitSetting],
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) directory: Option<&'a CStr>,
    /// True if standard input is a terminal that becomes the child's controlling terminal.
    pub(super) terminal: bool,
    pub(super) no_new_privileges: bool,
    /// The rules of the sandbox.
    pub(super) sandbox: Option<BorrowedFd<'a>>,
    /// The entrance of the control group that the child enters.
    pub(super) entrance: Option<&'a Entrance>,
    /// The table into which the child enters itself before its exec.
    pub(super) watch_list: Option<&'a Table>,
}

impl Plan<'_> {
    /// Returns all variables, each name once. The sign comes first, so that it is found at once.
    pub(super) fn variables(&self) -> impl Iterator<Item = &CStr> {
        let replaced = |variable: &CStr| self.client_variables.iter().any(|given| have_one_name(given, variable));
        let kept = self.about_clients.iter().map(CString::as_c_str);
        let kept = kept.filter(move |variable| !replaced(variable));
        let environment = self.environment.iter().map(CString::as_c_str);
        let own = self.sign.iter().chain(self.client_variables.iter());
        own.chain(kept).chain(environment)
    }
}

/// Returns true if two assignments are to the same variable.
fn have_one_name(one: &CStr, other: &CStr) -> bool {
    let (one, other) = (one.to_bytes(), other.to_bytes());
    let first_difference = one
        .iter()
        .zip(other)
        .position(|(one, other)| one != other || *one == b'=');
    first_difference.map_or(one.len() == other.len(), |at| one.get(at) == other.get(at))
}

/// The files that a program's name may mean, in the order in which the child tries them with its own rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    paths: Strings,
    /// True if the next file is tried when one cannot be run. Otherwise there is only one.
    searched: bool,
}

/// `NAME_MAX` of the kernel's `include/uapi/linux/limits.h`.
const LONGEST_NAME: usize = 255;

impl Candidates {
    /// Returns this file as the only candidate.
    ///
    /// # Errors
    /// EINVAL: its path holds a NUL.
    pub(super) fn only(path: &OsStr) -> Result<Self, Errno> {
        let mut paths = Strings::with_capacity(path.len() + 1);
        paths.push(&[path.as_bytes()])?;
        Ok(Self { paths, searched: false })
    }

    /// Returns the files of this name in these directories. Directories whose path is too long are left out, and so
    /// there may be no candidate. A file name that is too long is left to the kernel to refuse.
    ///
    /// # Errors
    /// EINVAL: the name holds a NUL.
    pub(super) fn search<'a>(directories: impl Iterator<Item = &'a [u8]> + Clone, name: &OsStr) -> Result<Self, Errno> {
        let name = name.as_bytes();
        if name.contains(&0) {
            return Err(Errno::EINVAL);
        }
        // Each with a slash and a NUL.
        let sizes = directories.clone().map(|directory| directory.len() + name.len() + 2);
        let mut paths = Strings::with_capacity(sizes.sum());
        for directory in directories {
            let length = directory.len() + name.len().min(LONGEST_NAME) + 2;
            if length <= libc::PATH_MAX as usize {
                let slash = if directory.ends_with(b"/") { &b""[..] } else { b"/" };
                // A directory with a NUL is none.
                let _ = paths.push(&[directory, slash, name]);
            }
        }
        Ok(Self { paths, searched: true })
    }

    pub(super) const fn are_searched(&self) -> bool {
        self.searched
    }

    /// Returns the paths in order. Does not allocate.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CStr> {
        self.paths.iter()
    }

    /// Returns the first path.
    pub(super) fn first(&self) -> &Path {
        let first = self.iter().next().map_or(&b""[..], CStr::to_bytes);
        Path::new(OsStr::from_bytes(first))
    }
}

/// The user and the groups that the child gets.
#[derive(Debug, Clone)]
pub(super) struct Credentials {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) supplementary_groups: Vec<libc::gid_t>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_is_replaced_by_its_whole_name() {
        for (one, other, is_same) in [
            (c"PROTO=TCP", c"PROTO=IPC", true),
            (c"PROTO=", c"PROTO=IPC", true),
            (c"PROTO=TCP", c"PROTOCOL=TCP", false),
            (c"PROTO=TCP", c"PATH=TCP", false),
            (c"A=B=C", c"A=D", true),
            (c"A=", c"", false),
        ] {
            assert_eq!(have_one_name(one, other), is_same, "{one:?} {other:?}");
            assert_eq!(have_one_name(other, one), is_same, "{other:?} {one:?}");
        }
    }
}
