//! `iotcpd check --config FILE`: says `ok`, or every mistake in a file.

use std::path::PathBuf;

use clap::Args;

use super::say;
use crate::config::file::Source;
use crate::error::Error;
use crate::net::standard::Standard;

#[derive(Debug, Args)]
pub(super) struct Flags {
    /// The file to be checked, see iotcpd.toml(5), or a torc.cfg (its name ends in .cfg)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub(super) fn run(flags: Flags) -> Result<(), Error> {
    Source::of(flags.config).check()?;
    say(&mut Standard::Output, "ok\n");
    Ok(())
}
