//! The commands' programs, laid out once for all their starts.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::super::options::Options;
use crate::error::{Blame, Error};
use crate::process::child::Child;
use crate::process::failure::SpawnError;
use crate::process::spawn::{Launcher, SpawnDefaults, Stdio, Stream};
use crate::process::spec::{Command, ProcessSpec};

/// One command's program.
#[derive(Debug)]
pub(super) struct Program {
    launcher: Launcher,
    command: Command,
}

/// Every command's program by the command's name.
pub(super) type Programs = HashMap<Vec<u8>, Program>;

impl Program {
    /// Looks it up as well, so that one that is not there is known before anybody asks for it.
    fn prepare(spec: &ProcessSpec, defaults: &SpawnDefaults) -> Result<Self, SpawnError> {
        let name = spec.command.program();
        let launcher = Launcher::new(&spec.surroundings, defaults).map_err(|error| error.of_program(name))?;
        launcher.find(name)?;
        Ok(Self {
            launcher,
            command: spec.command.clone(),
        })
    }

    /// Starts it with the client's arguments behind the operator's. Both outputs go into one pipe, as they went into one
    /// socket under torcd, so that what is written to the two keeps its order.
    pub(super) fn start(&mut self, arguments: &[Vec<u8>]) -> Result<Child, SpawnError> {
        let arguments = arguments.iter().cloned().map(OsString::from_vec);
        let command = self.command.with(arguments);
        let stdio = Stdio {
            stdin: Stream::Pipe,
            stdout: Stream::Pipe,
            stderr: Stream::SameAsOutput,
        };
        self.launcher.spawn(&command, stdio)
    }
}

/// Lays out the programs of all commands.
pub(super) fn prepare(options: &Options, defaults: &SpawnDefaults) -> Result<Programs, Error> {
    let prepared = options.commands.iter().map(|command| {
        let program = Program::prepare(&command.process, defaults).map_err(|error| {
            let text = format_args!("{}: command {:?}: {error}", options.name, command.name);
            Error::with_remedy(Blame::System, text)
        })?;
        Ok((command.name.clone().into_bytes(), program))
    });
    prepared.collect()
}

/// Whether such a door could be opened, without opening it.
///
/// # Errors
/// A program that cannot be started.
pub fn preflight(options: &Options, defaults: &SpawnDefaults) -> Result<(), Error> {
    prepare(options, defaults).map(drop)
}
