//! The contents of a configuration file that an operator names.

use std::path::Path;

use crate::error::{Blame, Error};
use crate::regular_file::{self, Kind, Refusal};

/// A configuration file: a thousand times the longest seen at most.
const CONFIGURATION: Kind = Kind {
    largest: 16 * 1024 * 1024,
    remedy: "name the configuration file",
};

/// Returns the name of a file, for messages about it, and its contents.
///
/// # Errors
/// An error of the operator's if the file cannot be read, or is not a regular file of a reasonable size.
pub(super) fn contents(path: &Path) -> Result<(String, Vec<u8>), Error> {
    let name = path.display().to_string();
    match read(path) {
        Ok(bytes) => Ok((name, bytes)),
        Err(Refusal { cause, remedy, .. }) => Err(Error::new(
            Blame::Operator,
            format_args!("cannot read {name}: {cause}"),
            remedy,
        )),
    }
}

/// Returns the whole contents of a configuration file.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Refusal> {
    regular_file::read(path, CONFIGURATION).map(|(bytes, _)| bytes)
}
