//! Looking at files with the rights of another user, on one thread.
#![allow(unsafe_code, reason = "one of the few files for it: see the crate's lints")]

use std::ptr;

#[cfg(target_pointer_width = "64")]
use libc::{SYS_getgroups, SYS_setfsgid, SYS_setfsuid, SYS_setgroups};
#[cfg(target_pointer_width = "32")]
use libc::{
    SYS_getgroups32 as SYS_getgroups, SYS_setfsgid32 as SYS_setfsgid, SYS_setfsuid32 as SYS_setfsuid,
    SYS_setgroups32 as SYS_setgroups,
};
use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};

use crate::process::plan::Credentials;

/// Calls `look` with the user, the groups and (where that takes them away) without the privileges (`capabilities(7)`,
/// "Effect of user ID changes") with which a child with these credentials would look at files. Affects this thread
/// alone, until it returns. No other user gets the right to send it signals by that.
///
/// # Errors
/// EPERM: this process may not take these rights, and `look` was not called.
pub(in crate::process) fn with_rights_of<R>(credentials: &Credentials, look: impl FnOnce() -> R) -> Result<R, Errno> {
    let own_groups = groups()?;
    set_groups(&credentials.supplementary_groups)?;
    let rights = Borrowed {
        groups: own_groups,
        // A change of credentials clears it (`PR_SET_PDEATHSIG(2const)`).
        death_signal: nix::sys::prctl::get_pdeathsig()?,
    };
    // These two do not report failures. A process that may set its groups and not these exists on Linux only under a
    // filter; then `look` is called without the change.
    // SAFETY: numbers only; they change the credentials of this thread.
    unsafe {
        libc::syscall(SYS_setfsgid, credentials.group.unwrap_or_else(|| getegid().as_raw()));
        libc::syscall(SYS_setfsuid, credentials.user.unwrap_or_else(|| geteuid().as_raw()));
    }
    let seen = look();
    drop(rights);
    Ok(seen)
}

/// The rights to restore at the end.
struct Borrowed {
    groups: Vec<libc::gid_t>,
    death_signal: Option<nix::sys::signal::Signal>,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        // SAFETY: numbers only. The effective ids may always be restored.
        unsafe {
            libc::syscall(SYS_setfsuid, geteuid().as_raw());
            libc::syscall(SYS_setfsgid, getegid().as_raw());
        }
        // The privilege for this existed a moment ago, and is not one of those for looking at files. If memory is short
        // this fails: the groups stay those of the child until the next call, and give this process no rights.
        let _ = set_groups(&self.groups);
        let _ = nix::sys::prctl::set_pdeathsig(self.death_signal);
    }
}

fn groups() -> Result<Vec<libc::gid_t>, Errno> {
    // SAFETY: with a length of 0 it writes nothing, and returns the number of groups.
    let count = Errno::result(unsafe { libc::syscall(SYS_getgroups, 0, ptr::null_mut::<libc::gid_t>()) })?;
    let mut groups = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: writes at most as many ids as the given length says.
    let count = Errno::result(unsafe { libc::syscall(SYS_getgroups, groups.len(), groups.as_mut_ptr()) })?;
    groups.truncate(usize::try_from(count).unwrap_or(0));
    Ok(groups)
}

/// Sets the groups by the raw call, because that of the C library would change every thread.
fn set_groups(groups: &[libc::gid_t]) -> Result<(), Errno> {
    // SAFETY: the kernel reads as many ids as the given length says.
    Errno::result(unsafe { libc::syscall(SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}
