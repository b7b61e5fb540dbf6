//! `iotcpd run --config FILE`: the services described in a file.

use std::path::PathBuf;

use clap::Args;

use crate::config::file::Source;
use crate::daemon::{self, Plan};
use crate::error::Error;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The file that describes the services, see iotcpd.toml(5), or a torc.cfg (its name ends in .cfg); read again at HUP
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(flags: Flags) -> Result<(), Error> {
    let source = Source::of(flags.config);
    daemon::run(Plan {
        services: source.load()?,
        source: Some(source),
    })
}
