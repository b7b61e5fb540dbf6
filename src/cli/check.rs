//! `iotcpd check [FILE]`: says `ok`, or every mistake in a file.

use clap::Args;

use super::file::File;
use super::write_to;
use crate::error::Error;
use crate::net::standard::Standard;

#[derive(Debug, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    file: File,
}

pub(super) fn run(flags: Flags) -> Result<(), Error> {
    flags.file.source("check")?.check()?;
    write_to(&mut Standard::Output, "ok\n");
    Ok(())
}
