//! `iotcpd command [FILE] [flags]`: one command door, described in a torc.cfg, like torcd.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;

use super::file::Foreign;
use crate::config::file::Source;
use crate::config::lower::log::LogSettings;
use crate::config::spec::command::CommandSpec;
use crate::daemon::{self, Plan};
use crate::error::Error;

/// The variable that names the directory in which torcd looks for its file.
const HOME: &str = "TORC_HOME";
const FILE: &str = "torc.cfg";

const EXAMPLES: &str = "\
Example:
  cat > torc.cfg <<'END'
  processes = ( { name = \"hello\"; cmd = \"/usr/bin/echo\"; argc = 1; } );
  END
  iotcpd command torc.cfg --listen 127.0.0.1:3699
  printf 'hello\\nworld\\n' | nc -N 127.0.0.1 3699

Flags go over what the file says under the same name; --listen also over its port.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Flags {
    /// The file that describes the door and its commands, see iotcpd.toml(5); read again at HUP
    /// [default: torc.cfg in the directory that TORC_HOME names, or else in this one]
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// The same, as a flag
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    spec: CommandSpec,
}

pub(super) fn run(flags: Flags, log: LogSettings) -> Result<(), Error> {
    let source = source(flags, env::var_os(HOME))?;
    daemon::run(Plan {
        services: source.load()?.services,
        source: Some(source),
        log,
        secret: None,
    })
}

/// Returns the file, with the flags that override it. `home` is the value of the variable.
fn source(flags: Flags, home: Option<OsString>) -> Result<Source, Error> {
    let home = home.filter(|home| !home.is_empty());
    let file = Foreign {
        format: FILE,
        default: home.map_or_else(|| PathBuf::from(FILE), |home| PathBuf::from(home).join(FILE)),
        remedy: &format!("name the file with --config, or its directory in {HOME}"),
        other: ("toml", |path| format!("write iotcpd run --config {}", path.display())),
    };
    let path = file.choose(flags.file.or(flags.config))?;
    Ok(Source::Torc {
        path,
        flags: Box::new(flags.spec),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::error::Blame;

    #[derive(Debug, Parser)]
    #[command(name = "command")]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }

    fn source_of(line: &str, home: Option<&str>) -> Result<Source, String> {
        let words = std::iter::once("command").chain(line.split_whitespace());
        let flags = Command::try_parse_from(words).unwrap().flags;
        source(flags, home.map(OsString::from)).map_err(|error| {
            assert_eq!(error.blame(), Blame::Operator);
            error.to_string()
        })
    }

    fn torc(path: impl Into<PathBuf>) -> Source {
        Source::Torc {
            path: path.into(),
            flags: Box::default(),
        }
    }

    #[test]
    fn the_file_is_that_of_torcd_unless_one_is_named() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("torc.cfg");
        let home = home.path().to_str().unwrap();
        let told = source_of("", Some(home)).unwrap_err();
        let remedy = "name the file with --config, or its directory in TORC_HOME";
        assert_eq!(told, format!("there is no {home}/torc.cfg; {remedy}"));
        std::fs::write(&path, "").unwrap();
        assert_eq!(source_of("", Some(home)), Ok(torc(&path)));
        assert_eq!(source_of("--config x", Some(home)), Ok(torc("x")));
        assert_eq!(source_of("x", Some(home)), Ok(torc("x")));
        for nowhere in [None, Some("")] {
            let told = source_of("", nowhere).unwrap_err();
            assert_eq!(told, format!("there is no torc.cfg; {remedy}"));
        }
    }

    #[test]
    fn flags_are_kept_with_the_file() {
        let Ok(Source::Torc { flags, .. }) = source_of("--config x --quiet-time 20ms --listen unix:/x -d", None) else {
            panic!("it is a torc.cfg")
        };
        assert!(flags.quiet_time.is_some() && flags.debug && flags.listen.listen == ["unix:/x"]);
    }

    #[test]
    fn a_toml_file_is_for_another_command() {
        let told = source_of("--config /etc/iotcpd.toml", None).unwrap_err();
        assert_eq!(
            told,
            "/etc/iotcpd.toml is no torc.cfg: its name ends in .toml; write iotcpd run --config /etc/iotcpd.toml"
        );
    }
}
