//! The form of a line: the text that is put around a message. Pure.
//!
//! A message may have several lines, when a cause has reasons. In the text forms each of these lines carries everything
//! that the first one carries, so that a search for `ERROR` finds them all and a collector that reads lines does not
//! mistake them for something else; the lines after the first are indented. In JSON the message is one object.
//!
//! Times are in UTC, because a log is read beside the logs of other machines, and one night in autumn has an hour
//! twice. Local time would also need the table of the time zone, which a daemon in a chroot may not have.

use std::io::Write;
use std::time::SystemTime;

use log::Level;
use serde::Serialize;

use crate::amount;

/// The name in front of each line, as syslog would add it, for a reader that adds none.
const PROGRAM: &str = "iotcpd";
/// The text before each line of a message after the first.
const INDENT: &str = "  ";

/// The form of the lines of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `LEVEL message`.
    Plain,
    /// As `Plain`, after the time and the program with its pid: `2026-11-29T23:31:46.123Z iotcpd[77]: LEVEL message`.
    Time,
    /// As `Plain`, after a priority for the journal, see sd-daemon(3): `<6>LEVEL message`. The journal adds the rest.
    Journal,
    /// One JSON object per message.
    Json,
}

/// One message with everything that a line may say about it.
#[derive(Debug)]
pub struct Line<'l> {
    /// The time of the event.
    pub at: SystemTime,
    /// The importance of the event.
    pub level: Level,
    /// The room of the program that reports it.
    pub room: &'l str,
    /// The service that it concerns, if any.
    pub service: Option<&'l str>,
    /// The text, of one or more lines.
    pub message: &'l str,
}

/// The fields of a line in JSON, in their order.
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
    /// Appends the message of the process `pid` to `out`, as one or more lines, each with its newline.
    pub fn write(self, line: &Line<'_>, pid: u32, out: &mut Vec<u8>) {
        let message = line.message.trim_end_matches('\n');
        // None of these writes can fail: they go to memory, and the texts are UTF-8.
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
        // An empty line of the message would show nothing but its level.
        let parts = message.split('\n').enumerate();
        for (number, part) in parts.filter(|(number, part)| *number == 0 || !part.trim().is_empty()) {
            let indent = if number > 0 { INDENT } else { "" };
            let _ = writeln!(out, "{before}{indent}{part}");
        }
    }
}

/// Formats a time as RFC 3339 does, to the millisecond.
fn time(at: SystemTime) -> String {
    amount::moment(at, humantime::format_rfc3339_millis)
}

/// Returns the priority of a level in syslog(3).
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
    fn each_form_adds_what_its_reader_lacks() {
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
    fn times_far_from_today_can_be_formatted() {
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
