//! The start of the log, and the messages besides it.
//!
//! `--log-level`, else `RUST_LOG`, else the file of `run` decides which lines are logged; `--log-format`, else the
//! file, decides their form. A mistake in a flag ends the program, as for any flag. A mistake in the variable does not,
//! because the variable may have been set for another program: it is reported and ignored.
//!
//! Some messages are not lines of the log: the reason why a program ends, and mistakes in its command line, are for the
//! caller. On a terminal, in a pipe and in a file such a text stands alone, because people and editors read it. For the
//! journal, and for a collector of JSON objects, it is formatted as a line, because these would misread anything else.
//! The reason why a daemon ends is also a line of the log, except on a terminal: by then the operator may be gone, and
//! will need the time of the event.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::time::SystemTime;

use clap::ValueEnum;
use log::Level;

use super::{getopt, write_to};
use crate::config::levels::Levels;
use crate::config::lower::log::LogSettings;
use crate::config::spec::log::{Format, LogSpec};
use crate::error::{Blame, Error};
use crate::log::{Form, Line, Log};
use crate::net::standard::Standard;

/// The variable that chooses the levels if no flag does.
pub(super) const VARIABLE: &str = "RUST_LOG";

/// The flag that chooses the form.
const FORMAT: &str = "log-format";

/// Starts the log. `environment` is the value of the variable, if it is set; `instead` describes the levels that apply
/// when the value is wrong.
pub(super) fn start(flags: LogSpec, environment: Option<OsString>, instead: &str) -> (Log, LogSettings) {
    // A flag overrides the variable, even a wrong one.
    let environment = environment.filter(|_| flags.level.is_none());
    let (levels, mistake) = match environment.as_deref().map(|text| understand(text, instead)) {
        Some(Ok(levels)) => (Some(levels), None),
        Some(Err(mistake)) => (None, Some(mistake)),
        None => (None, None),
    };
    let (log, settings) = LogSettings::start(flags, levels, crate::log::is_standard_error());
    if let Some(mistake) = mistake {
        log::warn!("{mistake}");
    }
    (log, settings)
}

fn understand(text: &OsStr, instead: &str) -> Result<Levels, String> {
    let text = text.to_string_lossy();
    text.parse::<Levels>().map_err(|mistake| {
        let text = text.escape_debug();
        format!("{VARIABLE} is `{text}`, which is passed over, and {instead} is logged: {mistake}")
    })
}

/// Returns the form of messages about a wrong command line: that of the format flag, if it is found among the program's
/// arguments and has a right value.
pub(super) fn form_at_start(arguments: &[OsString]) -> Form {
    format_in(arguments)
        .unwrap_or(Format::Auto)
        .form(crate::log::is_standard_error())
}

/// Returns the value of the last format flag that has a right value.
fn format_in(arguments: &[OsString]) -> Option<Format> {
    let given = getopt::values_of(arguments, |name| name == FORMAT);
    given.filter_map(|value| Format::from_str(value, false).ok()).last()
}

/// Writes a message that is no line of the log: `text`, which includes its line end, as it is, or `message` formatted
/// as a line.
pub(super) fn print_message(form: Form, level: Level, text: &str, message: &str) {
    match form {
        Form::Plain | Form::Time => write_to(&mut Standard::Error, text),
        Form::Journal | Form::Json => print_line(form, level, message),
    }
}

/// Reports the error that ends a command. `serves` is true for a daemon.
pub(super) fn report_end(form: Form, error: &Error, serves: bool) {
    // A mistake in flags or in a file is always printed in the form that editors read.
    let is_line = serves && error.blame() != Blame::Operator && !io::stderr().is_terminal();
    let message = error.to_string();
    if is_line {
        print_line(form, Level::Error, &message);
    } else {
        print_message(form, Level::Error, &error.for_terminal(), &message);
    }
}

fn print_line(form: Form, level: Level, message: &str) {
    let line = Line {
        at: SystemTime::now(),
        level,
        room: "cli",
        service: None,
        message,
    };
    let mut lines = Vec::new();
    form.write(&line, std::process::id(), &mut lines);
    write_to(&mut Standard::Error, String::from_utf8_lossy(&lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_found_in_a_command_line_with_mistakes() {
        for (line, format) in [
            ("iotcpd pool --bad", None),
            ("iotcpd pool --log-format json --bad", Some(Format::Json)),
            ("iotcpd --log-format=journal pool --bad", Some(Format::Journal)),
            (
                "iotcpd --log-format=journal pool --bad --log-format plain",
                Some(Format::Plain),
            ),
            ("iotcpd --log-format", None),
            ("iotcpd --log-format xml", None),
            ("iotcpd call --bad -- x --log-format json", None),
        ] {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            assert_eq!(format_in(&arguments), format, "{line}");
        }
    }

    #[test]
    fn a_wrong_variable_is_reported_with_the_level_used_instead() {
        let told = |text: &str| understand(OsStr::new(text), "info").unwrap_err();
        assert_eq!(
            told("inf"),
            "RUST_LOG is `inf`, which is passed over, and info is logged: there is no level `inf`; did you mean `info`?"
        );
        assert_eq!(
            told(""),
            "RUST_LOG is ``, which is passed over, and info is logged: it is empty; write for example info, or warn,pool=debug"
        );
        assert!(told("\x1b[31m").starts_with("RUST_LOG is `\\u{1b}[31m`"));
        assert_eq!(understand(OsStr::new("debug"), "info"), Ok("debug".parse().unwrap()));
    }
}
