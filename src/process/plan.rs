//! The plan of a start as plain data: [`spawn`](super::spawn) makes it, and `sys` carries it out.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::control_group::Entrance;
use super::limits::LimitSetting;
use super::sys::SignalBits;
use super::watch_list::Table;

/// Everything that the child needs, prepared before it exists.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a Candidates,
    pub(super) argv: &'a [CString],
    pub(super) environment: &'a [CString],
    /// The signals whose disposition in the daemon is not the one of a new program.
    pub(super) signals: SignalBits,
    /// More variables, which replace others with the same names.
    pub(super) client_variables: &'a [CString],
    /// One more variable, whose name no other variable has.
    pub(super) sign: Option<&'a CString>,
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

/// The files that a program's name may mean, in the order in which the child tries them with its own rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidates {
    /// The paths, each of which ends with a NUL.
    paths: Vec<u8>,
    /// True if the next file is tried when one cannot be run. Otherwise there is only one.
    searched: bool,
}

/// `NAME_MAX` of the kernel's `include/uapi/linux/limits.h`.
const LONGEST_NAME: usize = 255;

impl Candidates {
    /// Returns this file as the only candidate.
    pub(super) fn only(path: CString) -> Self {
        Self {
            paths: path.into_bytes_with_nul(),
            searched: false,
        }
    }

    /// Returns the files of this name in these directories. Directories whose path is too long are left out, and so
    /// there may be no candidate. A file name that is too long is left to the kernel to refuse.
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

    /// Returns the paths in order. Does not allocate.
    pub(super) fn iter(&self) -> impl Iterator<Item = &CStr> {
        let mut rest = self.paths.as_slice();
        std::iter::from_fn(move || {
            let path = CStr::from_bytes_until_nul(rest).ok()?;
            rest = rest.get(path.count_bytes() + 1..)?;
            Some(path)
        })
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
