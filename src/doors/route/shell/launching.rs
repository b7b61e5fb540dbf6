//! The preparation of programs, off the loop, for all their starts.

use std::sync::Arc;

use super::super::options::{Options, ProgramOptions};
use crate::doors::preparing::Surroundings;
use crate::error::{Blame, Error};
use crate::process::child::Child;
use crate::process::failure::SpawnError;
use crate::process::spawn::{SpawnDefaults, Spawner, Stdio, Stream};
use crate::process::spec::Command;
use crate::relay::pipes::Budget;

/// The part of a route door that is made from the file system.
#[derive(Debug)]
pub struct Prepared {
    /// The pipes that bytes go through.
    pub(super) pipes: Arc<Budget>,
    /// The programs of the options, in their order.
    pub(super) launchers: Vec<Launcher>,
}

/// Starts one program any number of times.
#[derive(Debug)]
pub(super) struct Launcher {
    spawner: Spawner,
    command: Command,
}

impl Launcher {
    /// Prepares a program, and looks it up, so that a missing one is known before a client needs it. Returns the reason
    /// for which it could not be started now beside it.
    fn prepare(options: &ProgramOptions, defaults: &SpawnDefaults) -> Result<(Self, Option<SpawnError>), SpawnError> {
        let command = options.process.command.clone();
        let spawner = Spawner::new(&options.process.context, defaults);
        let spawner = spawner.map_err(|error| error.of_program(command.program()))?;
        let missing = spawner.find(command.program()).err();
        Ok((Self { spawner, command }, missing))
    }

    /// Starts the program without input. Both outputs go into one pipe, so that they keep their order.
    pub(super) fn start(&mut self) -> Result<Child, SpawnError> {
        let stdio = Stdio {
            stdin: Stream::Null,
            stdout: Stream::Pipe,
            stderr: Stream::SameAsOutput,
        };
        self.spawner.spawn(&self.command, stdio)
    }
}

/// Prepares the programs of a door. A missing program costs its own services alone: clients that ask for them are
/// refused, and it is looked up again at each start.
///
/// # Errors
/// The context in which a program is started cannot be prepared.
pub fn prepare(options: &Options, surroundings: &Surroundings) -> Result<Prepared, Error> {
    let launchers = options.programs.iter().map(|program| {
        let name = &options.front.name;
        let (launcher, missing) = Launcher::prepare(program, &surroundings.spawn)
            .map_err(|error| Error::with_remedy(Blame::System, format_args!("{name}: {program}: {error}")))?;
        if let Some(error) = missing {
            log::error!(service:% = name; "{name}: {program} is not available: {error}");
        }
        Ok(launcher)
    });
    Ok(Prepared {
        pipes: Arc::clone(&surroundings.pipes),
        launchers: launchers.collect::<Result<_, Error>>()?,
    })
}
