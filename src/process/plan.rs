//! All that a start needs, as plain data: what [`spawn`](super::spawn) lays out and `sys` carries out.

use std::ffi::{CStr, CString};
use std::os::fd::BorrowedFd;

use super::limits::LimitSetting;
use super::watch_list::Table;

/// All that the child needs, laid out before it exists.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) program: &'a CStr,
    pub(super) argv: &'a [CString],
    pub(super) environment: &'a [CString],
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
    /// Where it enters itself before its exec.
    pub(super) watch_list: Option<&'a Table>,
}

/// Who the child becomes.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
    pub(super) supplementary_groups: Vec<libc::gid_t>,
}
