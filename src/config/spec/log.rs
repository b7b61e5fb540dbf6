//! What is said about the log, with flags or in the table `[log]` of a file.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde::Deserialize;

use crate::config::levels::Levels;
use crate::log::Form;

/// What is logged, and how.
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

/// The same as keys of the table `[log]`, whose name says what they are about.
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

/// What lines look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// As the journal wants them where standard error is that, and else with the time.
    Auto,
    /// Level and message.
    Plain,
    /// These behind time, name of the program and pid.
    Time,
    /// Level and message behind a priority.
    Journal,
    /// An object for each.
    Json,
}

impl Format {
    /// The form of lines. `is_journal`: whether they go to the journal.
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

/// By hand for the reason told at [`HalfClose`](super::pool::HalfClose).
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
