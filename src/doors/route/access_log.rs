//! The access log of a route door: the line about one connection, at its end.
//!
//! A line is a list of `key=value`, for programs: always all keys, in the same order, with `-` where there is nothing to
//! say. A value with blanks, quotation marks or control characters stands in quotation marks, with `\` in front of what
//! it could be mistaken for. Times are in seconds, counts in bytes.
//!
//! The decision when a line is written does not belong here, nor do its letters: they are those of the
//! [ending](super::core::ending::Ending::letters).

use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use super::core::life::{Asked, Life, Protocol};
use super::core::table::{Source, Why};
use super::shell::Traffic;
use crate::net::origin::Origin;

/// One connection that has ended.
#[derive(Debug)]
pub(super) struct Record<'r> {
    /// The number of the connection in other lines of the log, and in the dump.
    pub(super) number: u64,
    pub(super) client: &'r Origin,
    pub(super) life: &'r Life,
    /// The door that it was handed over to.
    pub(super) door: Option<&'r str>,
    pub(super) traffic: Traffic,
    /// The time of the end.
    pub(super) ended: Instant,
}

impl Display for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (asked, times, routed) = (self.life.asked(), self.life.times(), self.life.routed());
        let choice = routed.map(|routed| &routed.choice);
        let ending = self.life.ending().map(|ending| ending.letters());
        write!(f, "connection={} end={}", self.number, Text(ending))?;
        write!(f, " client={}", Text(Some(self.client)))?;
        write!(f, " protocol={} name={}", protocol(asked), Text(asked.name.as_deref()))?;
        write!(f, " alpn={}", Text(asked.protocols.as_deref()))?;
        write!(f, " ech={}", Text(asked.has_ech.then_some("outer")))?;
        write!(f, " why={}", Text(choice.map(|choice| why(choice.why))))?;
        write!(f, " source={}", Text(choice.map(|choice| source(choice.source))))?;
        write!(f, " service={}", Text(choice.map(|choice| &choice.service)))?;
        match self.door {
            Some(door) => write!(f, " server={}", Text(Some(format_args!("door:{door}"))))?,
            None => write!(f, " server={}", Text(routed.map(|routed| &routed.server)))?,
        }
        let decided = times.decided.map(|at| at.saturating_duration_since(times.accepted));
        let begun = times.decided.unwrap_or(times.accepted);
        let connected = times.connected.map(|at| at.saturating_duration_since(begun));
        let total = self.ended.saturating_duration_since(times.accepted);
        write!(f, " decided={} connected={}", Seconds(decided), Seconds(connected))?;
        write!(f, " total={}", Seconds(Some(total)))?;
        write!(f, " in={} out={}", self.traffic.input, self.traffic.output)
    }
}

fn protocol(asked: &Asked) -> &'static str {
    match asked.protocol {
        Protocol::Tls if asked.starts_tls => "postgresql",
        Protocol::Tls => "tls",
        Protocol::Http { .. } => "http",
        Protocol::Plain => "plain",
    }
}

fn why(why: Why) -> &'static str {
    match why {
        Why::Exact => "exact",
        Why::Suffix => "suffix",
        Why::CatchAll => "catch-all",
    }
}

fn source(source: Source) -> &'static str {
    match source {
        Source::File => "file",
        Source::Store => "store",
    }
}

/// A value that is a text.
struct Text<T>(Option<T>);

impl<T: Display> Display for Text<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(value) = &self.0 else { return f.write_str("-") };
        let text = value.to_string();
        let is_word = text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if is_word && !matches!(&*text, "" | "-") {
            f.write_str(&text)
        } else {
            write!(f, "{text:?}")
        }
    }
}

/// A value that is a time.
struct Seconds(Option<Duration>);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(time) => write!(f, "{}.{:06}", time.as_secs(), time.subsec_micros()),
            None => f.write_str("-"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_word_or_in_quotation_marks() {
        for (text, written) in [
            (Some("www.example.org"), "www.example.org"),
            (Some("[::1]:443"), "[::1]:443"),
            (None, "-"),
            (Some("-"), "\"-\""),
            (Some(""), "\"\""),
            (Some("bad name"), "\"bad name\""),
            (Some("a\"b"), "\"a\\\"b\""),
            (Some("a\\nb"), "\"a\\\\nb\""),
            (Some("a\nend=--"), "\"a\\nend=--\""),
            (Some("ü"), "\"ü\""),
        ] {
            assert_eq!(Text(text).to_string(), written);
        }
    }

    #[test]
    fn a_time_has_its_microseconds() {
        for (time, written) in [
            (Some(Duration::ZERO), "0.000000"),
            (Some(Duration::from_micros(1_000_042)), "1.000042"),
            (Some(Duration::from_secs(90_000)), "90000.000000"),
            (None, "-"),
        ] {
            assert_eq!(Seconds(time).to_string(), written);
        }
    }
}
