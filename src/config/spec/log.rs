//! The settings of the log, as flags or in the table `[log]` of a file.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::config::levels::Levels;
use crate::log::Form;

/// The flags of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct LogSpec {
    /// What is logged: error, warn, info, debug, trace or off; for a room alone warn,pool=debug. Goes over RUST_LOG
    /// [default: info]
    #[arg(long = "log-level", value_name = "LEVEL", global = true)]
    pub level: Option<Levels>,
    /// How a line looks: plain, or with time and pid, with priorities for the journal, as JSON; auto is journal or time
    /// [default: auto]
    #[arg(long = "log-format", value_name = "FORMAT", global = true)]
    pub format: Option<Format>,
}

/// The same settings as keys of the table `[log]`, without the prefix `log-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct LogTable {
    /// What is logged [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub level: Option<Levels>,
    /// How a line looks [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
}

impl From<LogTable> for LogSpec {
    fn from(LogTable { level, format }: LogTable) -> Self {
        LogSpec { level, format }
    }
}

/// The form of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// The form for the journal if standard error is the journal, and with the time otherwise.
    Auto,
    /// Level and message.
    Plain,
    /// Time, name of the program and pid, then level and message.
    Time,
    /// A priority, then level and message.
    Journal,
    /// One JSON object per message.
    Json,
}

impl Format {
    /// Returns the form of the lines. `is_journal` tells if standard error is the journal.
    #[must_use]
    pub const fn form(self, is_journal: bool) -> Form {
        match self {
            Format::Auto if is_journal => Form::Journal,
            Format::Auto | Format::Time => Form::Time,
            Format::Plain => Form::Plain,
            Format::Journal => Form::Journal,
            Format::Json => Form::Json,
        }
    }
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Plain, Self::Time, Self::Journal, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Plain => "plain",
            Self::Time => "time",
            Self::Journal => "journal",
            Self::Json => "json",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_journal_or_has_the_time() {
        assert_eq!(Format::Auto.form(true), Form::Journal);
        assert_eq!(Format::Auto.form(false), Form::Time);
        for (format, form) in [
            (Format::Plain, Form::Plain),
            (Format::Time, Form::Time),
            (Format::Json, Form::Json),
        ] {
            assert_eq!((format.form(true), format.form(false)), (form, form));
        }
        assert_eq!(Format::Journal.form(false), Form::Journal);
    }
}
