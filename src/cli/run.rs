//! `iotcpd run [FILE]`: the services described in a file.

use clap::Args;

use super::exit_codes::ExitCodesFlag;
use super::file::File;
use crate::config::lower::log::LogSettings;
use crate::daemon::{self, Plan};
use crate::error::Error;

const EXAMPLES: &str = "\
Examples:
  iotcpd run /etc/iotcpd.toml
  iotcpd run                                   the same: it is the usual file

The file is read again at HUP, and by an upgrade (URG).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    #[command(flatten)]
    file: File,
    #[command(flatten)]
    pub(super) exit_codes: ExitCodesFlag,
}

pub(super) fn run(flags: Flags, log: LogSettings) -> Result<(), Error> {
    let source = flags.file.source("run")?;
    let contents = source.load()?;
    log.apply(&contents.log);
    daemon::run(Plan {
        services: contents.services,
        source: Some(source),
        log,
        secret: None,
    })
}
