//! `--exit-codes`: the exit statuses by which a daemon that ends tells its supervisor the reason.
//!
//! It is a flag and no key of a file: the process has one exit status, for all services of the file; and the flag is
//! also needed when the file cannot be read.

use std::ffi::OsString;

use clap::builder::PossibleValue;
use clap::{Arg, Args, Command, ValueEnum};

use super::getopt;
use crate::error::ExitCodes;

const NAME: &str = "exit-codes";

#[derive(Debug, Clone, Copy, Default, Args)]
pub(super) struct ExitCodesFlag {
    /// The numbers of its exit status: 1 and 2, or those of sockexec, 111 for failures and 100 for mistakes in flags
    /// and files [default: iotcpd]
    #[arg(long, value_name = "CODES")]
    exit_codes: Option<Codes>,
}

/// The values of the flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codes {
    Iotcpd,
    Sockexec,
}

/// Not derived, like all choices: the derived code would show the comments in the help.
impl ValueEnum for Codes {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Iotcpd, Self::Sockexec]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Iotcpd => "iotcpd",
            Self::Sockexec => "sockexec",
        }))
    }
}

impl From<Codes> for ExitCodes {
    fn from(codes: Codes) -> Self {
        match codes {
            Codes::Iotcpd => Self::Iotcpd,
            Codes::Sockexec => Self::Sockexec,
        }
    }
}

impl ExitCodesFlag {
    /// Returns the chosen set of exit statuses.
    pub(super) fn codes(self) -> ExitCodes {
        self.exit_codes.map(ExitCodes::from).unwrap_or_default()
    }
}

/// Returns the exit statuses for a command line that could not be parsed, as far as the flag can be found in it: a
/// mistake elsewhere should be reported by the chosen status as well. `command` is the command that the line was parsed
/// as.
pub(super) fn codes_in(command: &Command, words: &[OsString]) -> ExitCodes {
    let is_flag = |name: &str| {
        let flag = getopt::find_flag(command, name).ok().flatten();
        flag.and_then(Arg::get_long) == Some(NAME)
    };
    let given = getopt::values_of(words, is_flag).filter_map(|value| Codes::from_str(value, false).ok());
    given.last().map(ExitCodes::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_found_in_a_command_line_with_mistakes() {
        let program = super::super::command();
        let command = program.find_subcommand("exec").unwrap();
        let found = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            codes_in(command, &words)
        };
        for line in [
            "iotcpd exec --exit-codes sockexec",
            "iotcpd exec --exit-codes=sockexec --no-such",
            "iotcpd exec /run/x -t soon --exit-c sockexec",
            "iotcpd exec --exit-codes iotcpd --exit-codes sockexec",
            "iotcpd exec --exit-codes sockexec --exit-codes nonsense",
        ] {
            assert_eq!(found(line), ExitCodes::Sockexec, "{line}");
        }
        for line in [
            "iotcpd exec",
            "iotcpd exec --exit-codes",
            "iotcpd exec --exit-codes nonsense",
            "iotcpd exec -- --exit-codes sockexec",
            "iotcpd exec --exit-codes sockexec --exit-codes iotcpd",
        ] {
            assert_eq!(found(line), ExitCodes::Iotcpd, "{line}");
        }
        let words = ["iotcpd", "--exit-codes", "sockexec"].map(OsString::from);
        assert_eq!(codes_in(&program, &words), ExitCodes::Iotcpd, "there is no such flag");
    }
}
