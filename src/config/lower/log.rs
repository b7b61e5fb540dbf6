//! What is said about the log becomes what it is told: a flag goes over the environment, that over the file, and the file over
//! the defaults.

use crate::config::levels::Levels;
use crate::config::spec::log::{Format, LogSpec};
use crate::log::{Control, Filter, Form, Log};

/// What has been said about the log from outside of the file, which may be read again.
#[derive(Debug, Clone)]
pub struct LogSettings {
    control: Control,
    flags: LogSpec,
    /// What `RUST_LOG` says, if that can be understood.
    environment: Option<Levels>,
    is_journal: bool,
}

impl LogSettings {
    /// Starts the log, which is told nothing by a file yet. `is_journal`: whether standard error is that.
    #[must_use]
    pub fn start(flags: LogSpec, environment: Option<Levels>, is_journal: bool) -> (Log, Self) {
        let (filter, form) = lower(&flags, environment.as_ref(), &LogSpec::default(), is_journal);
        let log = crate::log::start(filter, form);
        let control = log.control();
        let settings = LogSettings {
            control,
            flags,
            environment,
            is_journal,
        };
        (log, settings)
    }

    /// From now on what the file says counts as well.
    pub fn apply(&self, file: &LogSpec) {
        let (filter, form) = lower(&self.flags, self.environment.as_ref(), file, self.is_journal);
        self.control.set(filter, form);
    }
}

fn lower(flags: &LogSpec, environment: Option<&Levels>, file: &LogSpec, is_journal: bool) -> (Filter, Form) {
    let levels = flags.level.as_ref().or(environment).or(file.level.as_ref());
    let filter = levels.map(|Levels(filter)| filter.clone()).unwrap_or_default();
    let format = flags.format.or(file.format).unwrap_or(Format::Auto);
    (filter, format.form(is_journal))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(level: Option<&str>, format: Option<Format>) -> LogSpec {
        LogSpec {
            level: level.map(|level| level.parse().unwrap()),
            format,
        }
    }

    #[test]
    fn a_flag_goes_over_the_environment_that_over_the_file_and_that_over_the_defaults() {
        let nothing = spec(None, None);
        let (debug, error) = (spec(Some("debug"), None), spec(Some("error"), Some(Format::Json)));
        let environment: Levels = "warn".parse().unwrap();
        let of = |flags, environment, file| {
            let (filter, form) = lower(flags, environment, file, false);
            (filter.most().as_str(), form)
        };
        assert_eq!(of(&nothing, None, &nothing), ("INFO", Form::Time));
        assert_eq!(of(&nothing, None, &error), ("ERROR", Form::Json));
        assert_eq!(of(&nothing, Some(&environment), &error), ("WARN", Form::Json));
        assert_eq!(of(&debug, Some(&environment), &error), ("DEBUG", Form::Json));
        assert_eq!(
            of(&spec(None, Some(Format::Plain)), None, &error),
            ("ERROR", Form::Plain)
        );
    }
}
