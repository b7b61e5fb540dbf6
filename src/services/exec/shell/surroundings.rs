//! What programs are started with: laid out once, and anew when the options change or a HUP asks for it.

use log::Level;
use nix::unistd::{Uid, geteuid};

use super::super::options::Options;
use super::super::report::Topic;
use super::ExecDoor;
use crate::error::{Blame, Error};
use crate::process::spawn::{Launcher, SpawnDefaults};
use crate::reactor::Context;

impl ExecDoor {
    /// Reads the daemon's environment and limits again. If that fails, programs are started as before.
    pub(in crate::services::exec) fn lay_out_anew(&mut self, cx: &mut Context<'_>) {
        match launcher(&self.options, &self.spawn_defaults) {
            Ok(launcher) => self.launcher = launcher,
            Err(error) => {
                let line = format_args!("programs are started with what was there before: {error}");
                self.note(cx, Level::Error, Topic::System, line);
            }
        }
    }
}

/// Lays out what programs are started with.
///
/// # Errors
/// No program could be started with it: there is no such directory, or it takes another user to become that user.
pub(in crate::services::exec) fn launcher(options: &Options, defaults: &SpawnDefaults) -> Result<Launcher, Error> {
    let name = &options.name;
    let surroundings = &options.surroundings;
    if let Some(directory) = &surroundings.working_directory {
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
    let own = geteuid();
    if let Some(user) = surroundings
        .user
        .filter(|user| !own.is_root() && Uid::from_raw(*user) != own)
    {
        let what = format!("{name}: a daemon that runs as user {own} cannot run programs as user {user}");
        return Err(Error::new(
            Blame::Operator,
            what,
            "start it as root or as that user, or leave user out",
        ));
    }
    Launcher::new(surroundings, defaults)
        .map_err(|error| Error::with_remedy(Blame::System, format_args!("{name}: {error}")))
}
