//! The file of `run` and `check`: an argument, the value of `--config`, or the default. The same for the commands that run
//! one door from a file of another program.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::file::Source;
use crate::error::{Blame, Error};

/// The file that is read when none is named.
const DEFAULT: &str = "/etc/iotcpd.toml";

#[derive(Debug, Clone, Default, Args)]
pub(super) struct File {
    /// The file that describes the services, see iotcpd.toml(5), or a torc.cfg (its name ends in .cfg)
    /// [default: /etc/iotcpd.toml]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as a flag
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl File {
    /// Returns the source of the services, for the subcommand `command`.
    ///
    /// # Errors
    /// An error of the operator's if no file is named and the default one does not exist.
    pub(super) fn source(self, command: &str) -> Result<Source, Error> {
        let path = match self.file.or(self.config) {
            Some(path) => path,
            None => default_file(command, PathBuf::from(DEFAULT))?,
        };
        Ok(Source::from_path(path))
    }
}

fn default_file(command: &str, path: PathBuf) -> Result<PathBuf, Error> {
    let told = format!("no file is named, and there is no {}", path.display());
    let remedy = format_args!(
        "name the file with the services (iotcpd {command} FILE, or --config FILE), or write that one: iotcpd.toml(5) has an example"
    );
    existing(path, told, remedy)
}

/// Returns the file, if it exists. Any other mistake is reported when it is read.
fn existing(path: PathBuf, told: impl Display, remedy: impl Display) -> Result<PathBuf, Error> {
    match path.symlink_metadata() {
        Ok(_) => Ok(path),
        Err(_) => Err(Error::new(Blame::Operator, told, remedy)),
    }
}

/// The file of a command that runs one door, in the format of another program.
pub(super) struct Foreign<'f> {
    /// The name of the format: `torc.cfg`.
    pub(super) format: &'f str,
    /// The file that is read when none is named.
    pub(super) default: PathBuf,
    /// The ways to name one, for the operator.
    pub(super) remedy: &'f str,
    /// The extension of files that are certainly in another format, and the words about what to do with one.
    pub(super) other: (&'f str, fn(&Path) -> String),
}

impl Foreign<'_> {
    /// Returns the file: the one that is named, or else the default.
    ///
    /// # Errors
    /// An error of the operator's if it is in another format, or the default one does not exist.
    pub(super) fn choose(self, named: Option<PathBuf>) -> Result<PathBuf, Error> {
        let path = match named {
            Some(path) => path,
            None => {
                let told = format!("there is no {}", self.default.display());
                existing(self.default, told, self.remedy)?
            }
        };
        let (extension, remedy) = self.other;
        if path.extension().is_some_and(|own| own == extension) {
            let told = format_args!(
                "{} is no {}: its name ends in .{extension}",
                path.display(),
                self.format
            );
            return Err(Error::new(Blame::Operator, told, remedy(&path)));
        }
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Flags {
        #[command(flatten)]
        file: File,
    }

    #[test]
    fn a_file_is_named_in_either_way_but_not_in_both() {
        for line in ["run a.toml", "run --config a.toml"] {
            let flags = Flags::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(
                flags.file.source("run").unwrap(),
                Source::Toml("a.toml".into()),
                "{line}"
            );
        }
        assert!(Flags::try_parse_from(["run", "a", "--config", "b"]).is_err());
        assert!(Flags::try_parse_from(["run", "a", "b"]).is_err());
    }

    #[test]
    fn the_default_file_must_exist() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("iotcpd.toml");
        let told = default_file("run", path.clone()).unwrap_err();
        assert_eq!(told.blame(), Blame::Operator);
        let begins = format!(
            "no file is named, and there is no {}; name the file with the services (iotcpd run FILE, or --config FILE)",
            path.display()
        );
        assert!(told.to_string().starts_with(&begins), "{told}");
        std::fs::write(&path, "").unwrap();
        assert_eq!(default_file("run", path.clone()).unwrap(), path);
    }
}
