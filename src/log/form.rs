//! How a line looks: what is put around a message. Pure.
//!
//! A message may have several lines, when a cause has reasons. As text each of them has all that the first has, so that a search
//! for `ERROR` finds them, and a collector that reads lines does not take them for something else; those behind the first are
//! indented. As JSON the message is one object.
//!
//! Times are in UTC: a log is read beside others, from other machines, and a night in autumn has one hour twice. Local time would
//! also need the table of the time zone, which a daemon in a chroot may not have.

use std::io::Write;
use std::time::SystemTime;

use log::Level;
use serde::Serialize;

use crate::amount;

/// The name in front of each line that nobody else puts one to, as syslog would.
const PROGRAM: &str = "iotcpd";
/// Before each line of a message behind the first.
const INDENT: &str = "  ";

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `LEVEL message`.
    Plain,
    /// The same behind the time, and the program with its pid: `2026-11-29T23:31:46.123Z iotcpd[77]: LEVEL message`.
    Time,
    /// The same as plain behind a priority for the journal: `<6>LEVEL message`, see sd-daemon(3). It adds the rest.
    Journal,
    /// An object.
    Json,
}

/// Something that has happened.
#[derive(Debug)]
pub struct Line<'l> {
    /// When.
    pub at: SystemTime,
    /// How loudly it is said.
    pub level: Level,
    /// Which part of the program says it.
    pub room: &'l str,
    /// The service that it is about, where that is one.
    pub service: Option<&'l str>,
    /// What it is.
    pub message: &'l str,
}

/// A line as JSON has it.
#[derive(Serialize)]
struct Object<'l> {
    time: String,
    level: &'static str,
    pid: u32,
    room: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<&'l str>,
    message: &'l str,
}

impl Form {
    /// Writes a line of the process `pid`, or several, each with its end.
    pub fn write(self, line: &Line<'_>, pid: u32, out: &mut Vec<u8>) {
        let message = line.message.trim_end_matches('\n');
        // None of these writes can fail: they are into memory, and the texts are UTF-8.
        if self == Form::Json {
            let object = Object {
                time: time(line.at),
                level: line.level.as_str(),
                pid,
                room: line.room,
                service: line.service,
                message,
            };
            let _ = serde_json::to_writer(&mut *out, &object);
            out.push(b'\n');
            return;
        }
        let before = match self {
            Form::Time => format!("{} {PROGRAM}[{pid}]: {} ", time(line.at), line.level),
            Form::Journal => format!("<{}>{} ", priority(line.level), line.level),
            Form::Plain | Form::Json => format!("{} ", line.level),
        };
        // A line of nothing would only be a level.
        let parts = message.split('\n').enumerate();
        for (number, part) in parts.filter(|(number, part)| *number == 0 || !part.trim().is_empty()) {
            let indent = if number > 0 { INDENT } else { "" };
            let _ = writeln!(out, "{before}{indent}{part}");
        }
    }
}

/// As RFC 3339 has it, to the millisecond.
fn time(at: SystemTime) -> String {
    amount::moment(at, humantime::format_rfc3339_millis)
}

/// The number that syslog(3) has for it.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn written(form: Form, level: Level, message: &str) -> String {
        let line = Line {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_995_106_123),
            level,
            room: "pool",
            service: Some("main"),
            message,
        };
        let mut out = Vec::new();
        form.write(&line, 77, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_has_what_nobody_else_adds() {
        for (form, expected) in [
            (Form::Plain, "WARN main: full\n"),
            (Form::Time, "2026-11-29T23:31:46.123Z iotcpd[77]: WARN main: full\n"),
            (Form::Journal, "<4>WARN main: full\n"),
            (
                Form::Json,
                "{\"time\":\"2026-11-29T23:31:46.123Z\",\"level\":\"WARN\",\"pid\":77,\"room\":\"pool\",\
                 \"service\":\"main\",\"message\":\"main: full\"}\n",
            ),
        ] {
            assert_eq!(written(form, Level::Warn, "main: full"), expected);
        }
    }

    #[test]
    fn each_line_of_a_message_has_its_level() {
        let message = "refused:\nf:1:1: a\nf:2:1: b\n";
        for (form, before) in [
            (Form::Plain, "ERROR "),
            (Form::Time, "2026-11-29T23:31:46.123Z iotcpd[77]: ERROR "),
            (Form::Journal, "<3>ERROR "),
        ] {
            let expected = format!("{before}refused:\n{before}  f:1:1: a\n{before}  f:2:1: b\n");
            assert_eq!(written(form, Level::Error, message), expected);
        }
        let json = written(Form::Json, Level::Error, message);
        assert!(
            json.ends_with(",\"message\":\"refused:\\nf:1:1: a\\nf:2:1: b\"}\n"),
            "{json}"
        );
    }

    #[test]
    fn priorities_are_those_of_syslog() {
        let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
        let priorities = levels.map(|level| written(Form::Journal, level, "x")[..3].to_owned());
        assert_eq!(priorities, ["<3>", "<4>", "<6>", "<7>", "<7>"]);
    }

    #[test]
    fn a_clock_that_is_far_off_upsets_nothing() {
        let day = Duration::from_secs(86_400);
        assert_eq!(time(SystemTime::UNIX_EPOCH - day), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(SystemTime::UNIX_EPOCH + day * 4_000_000), "");
    }

    proptest! {
        #[test]
        fn every_message_is_one_object_that_reads_back(message in any::<String>()) {
            let json = written(Form::Json, Level::Info, &message);
            prop_assert_eq!(json.matches('\n').count(), 1);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read["message"].as_str(), Some(message.trim_end_matches('\n')));
        }

        #[test]
        fn no_line_is_without_its_level(message in any::<String>()) {
            let text = written(Form::Journal, Level::Info, &message);
            prop_assert!(text.ends_with('\n'));
            prop_assert!(text[..text.len() - 1].split('\n').all(|line| line.starts_with("<6>INFO ")));
        }
    }
}
