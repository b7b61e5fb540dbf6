//! The settings of the log: a flag overrides the environment, the environment the file, and the file the defaults.

use crate::config::levels::Levels;
use crate::config::spec::log::{Format, LogSpec};
use crate::log::{Control, Filter, Form, Log};

/// The settings of the log from outside the file, kept because the file may be read again.
#[derive(Debug, Clone)]
pub struct LogSettings {
    control: Control,
    flags: LogSpec,
    /// The levels of `RUST_LOG`, if they can be parsed.
    environment: Option<Levels>,
    is_journal: bool,
}

impl LogSettings {
    /// Starts the log without the settings of a file. `is_journal` tells if standard error is the journal.
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

    /// Applies the settings of the file, from now on.
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
    fn a_flag_overrides_the_environment_which_overrides_the_file() {
        let nothing = spec(None, None);
        let (debug, error) = (spec(Some("debug"), None), spec(Some("error"), Some(Format::Json)));
        let environment: Levels = "warn".parse().unwrap();
        let of = |flags, environment, file| {
            let (filter, form) = lower(flags, environment, file, false);
            (filter.max_level().as_str(), form)
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
