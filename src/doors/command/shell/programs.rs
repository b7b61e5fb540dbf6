//! The programs of the commands, prepared once for all their starts.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::options::Options;
use crate::error::{Blame, Error};
use crate::process::child::Child;
use crate::process::failure::SpawnError;
use crate::process::spawn::{SpawnDefaults, Spawner, Stdio, Stream};
use crate::process::spec::{Command, ProcessSpec};
use crate::process::strings::Strings;

/// One command's program.
#[derive(Debug)]
pub struct Program {
    spawner: Spawner,
    command: Command,
}

/// The programs of all commands by the commands' names.
pub type Programs = HashMap<Vec<u8>, Program>;

impl Program {
    /// Prepares a program, and looks it up, so that a missing one is known before a client asks for it. Returns the
    /// reason for which it could not be started now beside it.
    ///
    /// # Errors
    /// The context in which it is started cannot be prepared.
    fn prepare(spec: &ProcessSpec, defaults: &SpawnDefaults) -> Result<(Self, Option<SpawnError>), SpawnError> {
        let name = spec.command.program();
        let spawner = Spawner::new(&spec.context, defaults).map_err(|error| error.of_program(name))?;
        let missing = spawner.find(name).err();
        let command = spec.command.clone();
        Ok((Self { spawner, command }, missing))
    }

    /// Starts the program with the client's arguments behind the operator's. Both outputs go into one pipe, as they
    /// went into one socket under torcd, so that they keep their order.
    pub(super) fn start(&mut self, arguments: &[Vec<u8>], asker: Strings) -> Result<Child, SpawnError> {
        let arguments = arguments.iter().cloned().map(OsString::from_vec);
        let mut command = self.command.with(arguments);
        command.client_variables = asker;
        let stdio = Stdio {
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::SameAsOutput,
        };
        self.spawner.spawn(&command, stdio)
    }
}

/// Prepares the programs of all commands. A missing program costs its own command alone: clients that ask for it are
/// refused, and it is looked up again each time.
///
/// # Errors
/// The context in which a program is started cannot be prepared.
pub fn prepare(options: &Options, defaults: &SpawnDefaults) -> Result<Programs, Error> {
    let prepared = options.commands.iter().map(|command| {
        let name = String::from_utf8_lossy(&command.name);
        let (program, missing) = Program::prepare(&command.process, defaults).map_err(|error| {
            let text = format_args!("{}: command {name:?}: {error}", options.front.name);
            Error::with_remedy(Blame::System, text)
        })?;
        if let Some(error) = missing {
            log::error!(service:% = options.front.name; "{}: command {name:?} is not available: {error}", options.front.name);
        }
        Ok((command.name.clone(), program))
    });
    prepared.collect()
}
