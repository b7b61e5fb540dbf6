//! All that a start needs, as plain data: what [`spawn`](super::spawn) lays out and `sys` carries out.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::control_group::Entrance;
use super::limits::LimitSetting;
use super::sys::SignalBits;
use super::watch_list::Table;

/// All that the child needs, laid out before it exists.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a Candidates,
    pub(super) argv: &'a [CString],
    pub(super) environment: &'a [CString],
    /// Those that the daemon does something else on than a new program is to.
    pub(super) signals: SignalBits,
    /// More variables, in place of those of the same names.
    pub(super) client_variables: &'a [CString],
    /// One more variable, of the name that no other has.
    pub(super) sign: Option<&'a CString>,
    /// Standard input, output and error, in this order.
    pub(super) stdio: [BorrowedFd<'a>; 3],
    pub(super) nice: Option<i32>,
    pub(super) limits: &'a [LimitSetting],
    pub(super) credentials: Option<&'a Credentials>,
    pub(super) directory: Option<&'a CStr>,
    /// Whether standard input is a terminal that is to be the child's controlling one.
    pub(super) terminal: bool,
    pub(super) no_new_privileges: bool,
    /// The rules of its sandbox.
    pub(super) sandbox: Option<BorrowedFd<'a>>,
    /// Of the control group that it is to be in.
    pub(super) entrance: Option<&'a Entrance>,
    /// Where it enters itself before its exec.
    pub(super) watch_list: Option<&'a Table>,
}

impl Plan<'_> {
    /// All of its variables, each name once. The sign comes first, where it is found at once.
    pub(super) fn variables(&self) -> impl Iterator<Item = &CString> {
        let replaced = |variable: &CString| {
            self.client_variables
                .iter()
                .any(|given| name_of(given) == name_of(variable))
        };
        let others = self.environment.iter().filter(move |variable| !replaced(variable));
        self.sign.into_iter().chain(others).chain(self.client_variables)
    }
}

fn name_of(variable: &CStr) -> &[u8] {
    let bytes = variable.to_bytes();
    let end = bytes.iter().position(|byte| *byte == b'=');
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

/// The files that a program's name may mean, in the order in which they are tried by a process with the child's rights: the
/// child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    /// Each ends with a NUL.
    paths: Vec<u8>,
    /// Whether a file that cannot be run gives way to the next; else there is one, which has to be it.
    searched: bool,
}

/// `NAME_MAX` of the kernel's `include/uapi/linux/limits.h`.
const LONGEST_NAME: usize = 255;

impl Candidates {
    /// This file and no other.
    pub(super) fn only(path: CString) -> Self {
        Self {
            paths: path.into_bytes_with_nul(),
            searched: false,
        }
    }

    /// A file of this name in one of these directories. Those whose own name is too long are left out, and so all may be; of a
    /// file's name the kernel says so.
    pub(super) fn search<'a>(directories: impl Iterator<Item = &'a [u8]>, name: &CStr) -> Self {
        let mut paths = Vec::with_capacity(256);
        for directory in directories {
            // With a slash and a NUL.
            let length = directory.len() + name.count_bytes().min(LONGEST_NAME) + 2;
            if length <= libc::PATH_MAX as usize && !directory.contains(&0) {
                paths.extend_from_slice(directory);
                if !directory.ends_with(b"/") {
                    paths.push(b'/');
                }
                paths.extend_from_slice(name.to_bytes_with_nul());
            }
        }
        Self { paths, searched: true }
    }

    pub(super) const fn are_searched(&self) -> bool {
        self.searched
    }

    /// Allocates nothing.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CStr> {
        let mut rest = self.paths.as_slice();
        std::iter::from_fn(move || {
            let path = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(path.count_bytes() + 1..)?;
            Some(path)
        })
    }

    /// The first of them.
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
