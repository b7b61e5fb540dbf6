//! How the log is started, and what is told beside it.
//!
//! What is logged is said by `--log-level`, else by `RUST_LOG`, else by the file that `run` is given; what lines look like by
//! `--log-format`, else by the file. A mistake in a flag ends the program, as any other. One in the variable does not: it may
//! have been set for another program. It is told, and passed over.
//!
//! Not everything is a line of the log: what ends a program, and what is wrong with its command line, is told to whoever has
//! written that. On a terminal, in a pipe and in a file such a text stands by itself, since people read it, and editors do. To
//! the journal, and to a collector of objects, it is a line like any other, since these would take it for something else. What
//! ends a daemon is a line of its log as well, unless it is on a terminal: by then whoever has started it may be gone, and asks
//! when that was.

use std::ffi::{OsStr, OsString};
use std::io::{self, IsTerminal};
use std::time::SystemTime;

use clap::ValueEnum;
use log::Level;

use super::{getopt, say};
use crate::config::levels::Levels;
use crate::config::lower::log::LogSettings;
use crate::config::spec::log::{Format, LogSpec};
use crate::error::{Blame, Error};
use crate::log::{Form, Line, Log};
use crate::net::standard::Standard;

/// What chooses lines where no flag does.
pub(super) const VARIABLE: &str = "RUST_LOG";

/// What chooses how they look.
const FORMAT: &str = "log-format";

/// Starts the log. `environment`: what the variable holds, if it is set. `instead`: what is logged when that is of no use.
pub(super) fn start(flags: LogSpec, environment: Option<OsString>, instead: &str) -> (Log, LogSettings) {
    // Where a flag says it, nobody asks the variable.
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

/// What lines look like where the flags cannot be read, for one of them is wrong: as this one says, if it can be found among the
/// program's arguments and is right itself.
pub(super) fn form_at_start(arguments: &[OsString]) -> Form {
    wished(arguments)
        .unwrap_or(Format::Auto)
        .form(crate::log::is_standard_error())
}

/// The last that is said counts.
fn wished(arguments: &[OsString]) -> Option<Format> {
    let given = getopt::values_of(arguments, |name| name == FORMAT);
    given.filter_map(|value| Format::from_str(value, false).ok()).last()
}

/// Tells something that is no line of the log: `text` as it stands by itself, ended, or `message` as a line.
pub(super) fn tell(form: Form, level: Level, text: &str, message: &str) {
    match form {
        Form::Plain | Form::Time => say(&mut Standard::Error, text),
        Form::Journal | Form::Json => put(form, level, message),
    }
}

/// Tells why a command ends. `serves`: it is a daemon.
pub(super) fn tell_end(form: Form, error: &Error, serves: bool) {
    // A mistake in words or in a file is shown as editors read it.
    let is_line = serves && error.blame() != Blame::Operator && !io::stderr().is_terminal();
    let message = error.to_string();
    if is_line {
        put(form, Level::Error, &message);
    } else {
        tell(form, Level::Error, &error.for_terminal(), &message);
    }
}

fn put(form: Form, level: Level, message: &str) {
    let line = Line {
        at: SystemTime::now(),
        level,
        room: "cli",
        service: None,
        message,
    };
    let mut lines = Vec::new();
    form.write(&line, std::process::id(), &mut lines);
    say(&mut Standard::Error, String::from_utf8_lossy(&lines));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_found_in_a_line_that_cannot_be_read() {
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
            assert_eq!(wished(&arguments), format, "{line}");
        }
    }

    #[test]
    fn a_variable_that_says_nothing_is_told_with_what_is_used_instead() {
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
