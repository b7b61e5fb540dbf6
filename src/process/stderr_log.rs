//! A child's standard error as lines for the log: bytes go in, text comes out, and the time is an argument.
//!
//! The owner always reads everything that the child writes, so a child never blocks on its complaints. Their effect is
//! bounded: a line is cut at [`MAX_LINE`] bytes, and at most [`LINES_PER_SECOND`] lines of one child are logged; the
//! others are only counted. A line can neither forge another line of the log nor move the cursor of the terminal that
//! shows it.
//!
//! Between two calls only the unfinished line is held, at most [`MAX_LINE`] bytes, and no memory if there is none.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// The longest line in bytes. A longer one is cut there and marked.
pub const MAX_LINE: usize = 4096;

/// The number of lines that a child may log in each [`PERIOD`].
pub const LINES_PER_SECOND: u32 = 100;

/// The period over which lines are counted. A period begins with the first line after the previous one has ended.
pub const PERIOD: Duration = Duration::from_secs(1);

const CUT_MARK: &str = " [cut]";

/// The standard error of one child.
#[derive(Debug)]
pub struct StderrLog {
    line: Line,
    rate: Rate,
}

/// The line that has begun and not ended.
#[derive(Debug)]
enum Line {
    /// All of the line so far, at most [`MAX_LINE`] bytes.
    Unfinished(Vec<u8>),
    /// The beginning of the line was logged as a line that was cut. The rest is dropped.
    Cut,
}

#[derive(Debug)]
struct Rate {
    period_end: Instant,
    logged: u32,
    left_out: u64,
}

impl StderrLog {
    /// Returns the state of a child that was started at `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let rate = Rate {
            period_end: now + PERIOD,
            logged: 0,
            left_out: 0,
        };
        Self {
            line: Line::Unfinished(Vec::new()),
            rate,
        }
    }

    /// Takes bytes that were read and passes each line that is complete to `log`. Empty lines are dropped.
    pub fn feed(&mut self, bytes: &[u8], now: Instant, log: &mut dyn FnMut(&str)) {
        let mut rest = bytes;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (part, behind) = rest.split_at(end);
            self.extend(part, now, log);
            self.end_line(now, log);
            rest = behind.strip_prefix(b"\n").unwrap_or(behind);
        }
        self.extend(rest, now, log);
    }

    /// Passes the rest to `log`, after the end of the child's standard error.
    pub fn close(&mut self, now: Instant, log: &mut dyn FnMut(&str)) {
        self.end_line(now, log);
        self.rate.tell(log);
    }

    /// Returns the time at which [`on_deadline`](Self::on_deadline) must be called, if lines were left out and not
    /// reported yet.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        (self.rate.left_out > 0).then_some(self.rate.period_end)
    }

    /// Reports the number of lines that were left out, once the period is over.
    pub fn on_deadline(&mut self, now: Instant, log: &mut dyn FnMut(&str)) {
        if now >= self.rate.period_end {
            self.rate.tell(log);
        }
    }

    /// Adds to the unfinished line, and cuts it when it gets too long.
    fn extend(&mut self, part: &[u8], now: Instant, log: &mut dyn FnMut(&str)) {
        let Line::Unfinished(line) = &mut self.line else { return };
        let room = MAX_LINE - line.len();
        line.extend_from_slice(part.get(..room).unwrap_or(part));
        if part.len() > room {
            let line = std::mem::replace(&mut self.line, Line::Cut);
            if let Line::Unfinished(line) = line {
                self.rate.log(&line, CUT_MARK, now, log);
            }
        }
    }

    fn end_line(&mut self, now: Instant, log: &mut dyn FnMut(&str)) {
        if let Line::Unfinished(line) = std::mem::replace(&mut self.line, Line::Unfinished(Vec::new())) {
            let text = line.strip_suffix(b"\r").unwrap_or(&line);
            if !text.is_empty() {
                self.rate.log(text, "", now, log);
            }
        }
    }
}

impl Rate {
    fn log(&mut self, line: &[u8], mark: &str, now: Instant, log: &mut dyn FnMut(&str)) {
        if now >= self.period_end {
            self.tell(log);
            self.period_end = now + PERIOD;
            self.logged = 0;
        }
        if self.logged == LINES_PER_SECOND {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        self.logged += 1;
        log(&printable(line, mark));
    }

    fn tell(&mut self, log: &mut dyn FnMut(&str)) {
        match std::mem::take(&mut self.left_out) {
            0 => {}
            1 => log("1 further line left out"),
            count => log(&format!("{count} further lines left out")),
        }
    }
}

/// Returns a line as text, followed by `mark`. Bytes that are not UTF-8 and control characters other than tabs are
/// written as `\x1b` or `\u{85}`.
#[must_use]
pub fn printable(line: &[u8], mark: &str) -> String {
    let mut text = String::with_capacity(line.len() + mark.len());
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\t' => text.push('\t'),
                '\0'..='\x1f' | '\x7f' => escape(&mut text, u32::from(character)),
                _ if character.is_control() || is_invisible(character) => text.extend(character.escape_unicode()),
                _ => text.push(character),
            }
        }
        for &byte in chunk.invalid() {
            escape(&mut text, u32::from(byte));
        }
    }
    text.push_str(mark);
    text
}

/// Returns true for characters that break a line, or change the direction of the text around them, in a viewer of the
/// log.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &mut String, byte: u32) {
    // Writing to a String does not fail.
    let _ = write!(text, "\\x{byte:02x}");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(parts: &[&[u8]]) -> Vec<String> {
        let now = Instant::now();
        let (mut splitter, mut got) = (StderrLog::new(now), Vec::new());
        for part in parts {
            splitter.feed(part, now, &mut |line| got.push(line.to_owned()));
        }
        splitter.close(now, &mut |line| got.push(line.to_owned()));
        got
    }

    #[test]
    fn lines_are_put_together_and_the_last_needs_no_end() {
        assert_eq!(
            lines(&[b"one\ntw", b"", b"o\r\n\n\r\nthr", b"ee"]),
            ["one", "two", "three"]
        );
        assert_eq!(lines(&[]), [""; 0]);
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(
            lines(&["caf\u{e9}\t\u{1b}[31m\0 \u{85} \u{202e}".as_bytes()]),
            ["caf\u{e9}\t\\x1b[31m\\x00 \\u{85} \\u{202e}"]
        );
        assert_eq!(lines(&[b"a\xffb\xe2\x82\n"]), ["a\\xffb\\xe2\\x82"]);
    }

    #[test]
    fn a_line_is_cut_where_it_gets_too_long_and_the_next_is_whole() {
        let exact = vec![b'x'; MAX_LINE];
        let full = "x".repeat(MAX_LINE);
        let cut = format!("{full}{CUT_MARK}");
        assert_eq!(lines(&[&exact, b"\nnext\n"]), [full.as_str(), "next"]);
        assert_eq!(lines(&[&exact, b"y", b"yy\nnext\n"]), [cut.as_str(), "next"]);
        assert_eq!(lines(&[&exact, &exact, &exact]), [cut.as_str()]);
    }

    #[test]
    fn a_flood_is_counted_and_reported_when_its_second_is_over() {
        let start = Instant::now();
        let mut splitter = StderrLog::new(start);
        let mut got = Vec::new();
        splitter.feed(&b"x\n".repeat(100), start, &mut |line| got.push(line.to_owned()));
        assert_eq!((got.len(), splitter.deadline()), (100, None));
        splitter.feed(&b"y\n".repeat(317), start, &mut |line| got.push(line.to_owned()));
        let over = start + PERIOD;
        assert_eq!((got.len(), splitter.deadline()), (100, Some(over)));
        splitter.on_deadline(start, &mut |line| got.push(line.to_owned()));
        assert_eq!(got.len(), 100, "not before the second is over");
        splitter.on_deadline(over, &mut |line| got.push(line.to_owned()));
        assert_eq!(
            (got.last().unwrap().as_str(), splitter.deadline()),
            ("317 further lines left out", None)
        );
        splitter.feed(b"again\n", over, &mut |line| got.push(line.to_owned()));
        assert_eq!(got.last().unwrap(), "again");
    }

    #[test]
    fn the_count_comes_before_the_next_line_and_before_the_end() {
        let start = Instant::now();
        let mut splitter = StderrLog::new(start);
        let mut got = Vec::new();
        splitter.feed(&b"x\n".repeat(101), start, &mut |_| {});
        splitter.feed(b"next\n", start + PERIOD, &mut |line| got.push(line.to_owned()));
        splitter.feed(&b"x\n".repeat(101), start + PERIOD, &mut |_| {});
        splitter.close(start + PERIOD, &mut |line| got.push(line.to_owned()));
        assert_eq!(got, ["1 further line left out", "next", "2 further lines left out"]);
    }

    proptest! {
        #[test]
        fn cutting_the_bytes_elsewhere_changes_nothing(bytes: Vec<u8>, cut: prop::sample::Index) {
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(lines(&[first, second]), lines(&[&bytes]));
        }

        #[test]
        fn no_line_has_a_control_character(bytes: Vec<u8>) {
            for line in lines(&[&bytes]) {
                prop_assert!(!line.chars().any(|character| character.is_control() && character != '\t'), "{:?}", line);
            }
        }
    }
}
