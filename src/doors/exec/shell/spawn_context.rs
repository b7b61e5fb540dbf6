//! The context in which programs are started. It is prepared at the start of the door, and again at each reload.

use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::super::options::Options;
use crate::error::{Blame, Error};
use crate::process::spawn::{SpawnDefaults, Spawner};

// The numbers of capabilities(7).
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// Prepares the context in which programs are started. It blocks for as long as the file system takes.
///
/// # Errors
/// No program could be started in it: the directory is missing, or the daemon may not change users.
pub fn prepare(options: &Options, defaults: &SpawnDefaults) -> Result<Spawner, Error> {
    let name = &options.front.name;
    let context = &options.context;
    if let Some(directory) = &context.working_directory {
        let why = match std::fs::metadata(directory) {
            Ok(found) if found.is_dir() => None,
            Ok(_) => Some("it is no directory".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = why {
            let what = format!("{name}: programs cannot be started in {directory:?}: {why}");
            return Err(Error::new(
                Blame::Operator,
                what,
                "write another directory for chdir, or make that one",
            ));
        }
    }
    let other_user = context.user.is_some_and(|user| Uid::from_raw(user) != geteuid());
    let other_group = context.group.is_some_and(|group| Gid::from_raw(group) != getegid());
    let lacks =
        (other_user && !has_capability(CAP_SETUID)) || ((other_user || other_group) && !has_capability(CAP_SETGID));
    if lacks {
        let what = format!("{name}: this daemon may not run programs as another user or group");
        let remedy = "start it as root or as that user, or leave user and group out";
        return Err(Error::new(Blame::Operator, what, remedy));
    }
    Spawner::new(context, defaults).map_err(|error| Error::with_remedy(Blame::System, format_args!("{name}: {error}")))
}

/// Returns true if this process has a capability (proc_pid_status(5), `CapEff`), or if that cannot be read: then the
/// first start shows it.
fn has_capability(number: u32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    effective.is_none_or(|effective| effective >> number & 1 == 1)
}
