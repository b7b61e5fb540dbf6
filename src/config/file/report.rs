//! The mistakes in a text, with their positions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::torc_cfg::Part;

/// The number of mistakes, and of warnings, that are reported. A file with more of them is the wrong file, or was
/// written by a program with one mistake.
const MOST: usize = 100;
/// The number of reported mistakes where files include others, and each file may have mistakes of its own.
const MOST_OF_PARTS: usize = 1100;
/// The number of findings that are kept until duplicates are removed, such as in a file that is included repeatedly.
const KEPT: usize = 2 * MOST_OF_PARTS;

/// Collects mistakes by position and returns them in the order of the text.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// The files in the text and their beginnings; the first begins with the text.
    parts: Vec<Part>,
    /// The number of mistakes to report.
    most: usize,
    syntax: Findings,
    meaning: Findings,
    /// Settings that are ignored, but not wrong.
    ignored: Findings,
    /// Mistakes without a position: in flags given with the file, or in the file as a whole.
    above: Vec<String>,
}

/// The first findings of a kind, in the order of the text.
#[derive(Debug, Default)]
struct Findings {
    /// By the offset in bytes from the start of the text, then in the order in which they were added.
    first: BTreeMap<(usize, usize), String>,
    /// The total number of findings.
    count: usize,
}

impl Findings {
    /// Adds a finding. `text` is called only if the finding is among the first ones so far.
    fn add(&mut self, offset: usize, text: impl FnOnce() -> String) {
        let place = (offset, self.count);
        self.count += 1;
        if self.first.len() >= KEPT {
            if self.first.last_key_value().is_some_and(|(last, _)| *last < place) {
                return;
            }
            self.first.pop_last();
        }
        self.first.insert(place, text());
    }

    fn left_out(&self) -> usize {
        self.count - self.first.len()
    }
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        let name = file.to_owned();
        Self {
            most: MOST,
            ..Self::with_parts(&[Part { start: 0, name }], text)
        }
    }

    /// Creates a report about a text that consists of several files.
    pub(super) fn with_parts(parts: &[Part], text: &'t str) -> Self {
        Self {
            text,
            parts: parts.to_vec(),
            most: MOST_OF_PARTS,
            syntax: Findings::default(),
            meaning: Findings::default(),
            ignored: Findings::default(),
            above: Vec::new(),
        }
    }

    /// Adds a mistake at `offset`.
    pub(super) fn add(&mut self, offset: usize, text: impl Into<String>) {
        self.meaning.add(offset, || text.into());
    }

    /// As [`add`](Self::add), for mistakes that may be as many as there are lines: `text` is called only if it will be
    /// reported.
    pub(super) fn add_lazily(&mut self, offset: usize, text: impl FnOnce() -> String) {
        self.meaning.add(offset, text);
    }

    /// Adds a setting at `offset` that is ignored because it has no meaning here, which is no mistake.
    pub(super) fn add_ignored(&mut self, offset: usize, text: impl FnOnce() -> String) {
        self.ignored.add(offset, text);
    }

    /// Adds a mistake in a flag, or in the file as a whole.
    pub(super) fn add_general(&mut self, text: impl Into<String>) {
        self.above.push(text.into());
    }

    /// Adds a syntax error.
    pub(super) fn add_syntax(&mut self, offset: usize, text: impl Into<String>) {
        self.syntax.add(offset, || text.into());
    }

    /// Returns true if there is a syntax error, behind which a missing setting may be hidden.
    pub(super) fn has_syntax_error(&self) -> bool {
        self.syntax.count > 0
    }

    /// Removes and returns the ignored settings, as `file:line:column: text`.
    pub(super) fn take_ignored(&mut self) -> Vec<String> {
        let ignored = std::mem::take(&mut self.ignored);
        let of_all = ignored.first.iter().map(|((offset, _), text)| (*offset, text));
        let placed = self.placed(of_all);
        let lines = placed.map(|(place, text)| format!("{place}: {text}")).collect();
        Self::truncated(
            MOST,
            lines,
            ignored.left_out(),
            "settings are passed over; see those above first",
        )
    }

    /// Returns the mistakes as `file:line:column: text`; line and column count from 1, columns in characters. A line
    /// that could not be parsed has no meaning, so other mistakes in it are left out. Mistakes in flags come first.
    /// After the last reported one comes the number of the others.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        let (syntax, meaning) = (std::mem::take(&mut self.syntax), std::mem::take(&mut self.meaning));
        let of_syntax = syntax.first.iter().map(|finding| (finding, true));
        let mut findings: Vec<_> = of_syntax
            .chain(meaning.first.iter().map(|finding| (finding, false)))
            .collect();
        findings.sort_by_key(|(((offset, _), _), _)| *offset);
        let placed = self.placed(findings.iter().map(|(((offset, _), text), _)| (*offset, *text)));
        let placed: Vec<_> = placed.zip(findings.iter().map(|(_, is_syntax)| *is_syntax)).collect();
        let broken: BTreeSet<_> = placed
            .iter()
            .filter(|(_, is_syntax)| *is_syntax)
            .map(|((place, _), _)| place.line())
            .collect();
        let lines = placed
            .iter()
            .filter(|((place, _), is_syntax)| *is_syntax || !broken.contains(&place.line()))
            .map(|((place, text), _)| format!("{place}: {text}"))
            .collect();
        let left_out = syntax.left_out() + meaning.left_out();
        let mut lines = Self::truncated(
            self.most,
            lines,
            left_out,
            "mistakes stand below; mend those above first",
        );
        self.above.append(&mut lines);
        self.above
    }

    /// Returns the first of these lines, and at the position of the last one the number of all others, including
    /// `left_out`.
    fn truncated(most: usize, mut lines: Vec<String>, left_out: usize, what: &str) -> Vec<String> {
        lines.dedup();
        let left_out = left_out + lines.len().saturating_sub(most);
        lines.truncate(most);
        let place = lines.last().and_then(|line| line.split(": ").next());
        if let Some(place) = place.filter(|_| left_out > 0) {
            lines.push(format!("{place}: {left_out} more {what}"));
        }
        lines
    }

    /// Returns findings, which must be in the order of the text, with their positions.
    fn placed<'f>(
        &'f self,
        findings: impl Iterator<Item = (usize, &'f String)>,
    ) -> impl Iterator<Item = (Position<'f>, &'f str)> {
        let mut parts = self.parts.iter().enumerate().peekable();
        let mut current = None;
        findings.filter_map(move |(offset, text)| {
            while let Some((number, part)) = parts.next_if(|(_, part)| part.start <= offset) {
                let text = self.text.get(part.start..).unwrap_or_default();
                current = Some((number, part, Scan::begin(text)));
            }
            let (number, part, reading) = current.as_mut()?;
            let (line, column) = reading.position(offset.saturating_sub(part.start));
            let place = Position {
                part: *number,
                file: &part.name,
                line,
                column,
            };
            Some((place, text.as_str()))
        })
    }
}

/// A position in a file.
struct Position<'p> {
    part: usize,
    file: &'p str,
    line: usize,
    column: usize,
}

impl Position<'_> {
    /// Returns the part and the line of the position.
    fn line(&self) -> (usize, usize) {
        (self.part, self.line)
    }
}

impl fmt::Display for Position<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A text that is scanned once from start to end, to convert offsets to positions.
struct Scan<'t> {
    rest: &'t str,
    /// The number of bytes before the rest.
    offset: usize,
    /// Line and column of the beginning of the rest, both from 1.
    line: usize,
    column: usize,
}

impl<'t> Scan<'t> {
    fn begin(text: &'t str) -> Self {
        Scan {
            rest: text,
            offset: 0,
            line: 1,
            column: 1,
        }
    }

    /// Returns line and column of a byte, which must not be before that of the previous call. An offset beyond the end
    /// means the end, an offset within a character means that character.
    fn position(&mut self, offset: usize) -> (usize, usize) {
        let length = self.rest.len().min(offset.saturating_sub(self.offset));
        let length = (0..=length).rev().find(|length| self.rest.is_char_boundary(*length));
        let length = length.unwrap_or(0);
        let (passed, rest) = self.rest.split_at(length);
        for character in passed.chars() {
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.rest = rest;
        self.offset += length;
        (self.line, self.column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_in_characters() {
        let positions = |text, offsets: &[usize]| {
            let mut reading = Scan::begin(text);
            let told: Vec<_> = offsets.iter().map(|offset| reading.position(*offset)).collect();
            // One scan for all positions, and a new one for each.
            let alone = offsets.iter().map(|offset| Scan::begin(text).position(*offset));
            assert!(alone.eq(told.iter().copied()));
            told
        };
        assert_eq!(positions("", &[0, 5]), [(1, 1), (1, 1)]);
        assert_eq!(
            positions("ab\ncd", &[1, 2, 3, 3, 5, 99]),
            [(1, 2), (1, 3), (2, 1), (2, 1), (2, 3), (2, 3)]
        );
        assert_eq!(positions("ü = 1", &[0, 1, 3]), [(1, 1), (1, 1), (1, 3)]);
    }

    #[test]
    fn of_many_mistakes_the_first_are_reported_and_the_others_counted() {
        let text = "x\n".repeat(5000);
        let mut report = Report::new("f", &text);
        let mut made = 0;
        for line in 0..5000 {
            report.add_lazily(2 * line, || {
                made += 1;
                "odd; x".to_owned()
            });
        }
        report.add(0, "odd; x");
        assert!(made <= KEPT, "{made}");
        let lines = report.into_lines();
        assert_eq!(lines.len(), 101);
        // Of two equal messages at one position, one is reported.
        assert_eq!(
            (lines[0].as_str(), lines[1].as_str()),
            ("f:1:1: odd; x", "f:2:1: odd; x")
        );
        assert_eq!(
            lines[100],
            "f:100:1: 4900 more mistakes stand below; mend those above first"
        );
    }

    #[test]
    fn a_line_with_a_syntax_error_is_reported_once_and_in_order() {
        let mut report = Report::new("f", "a\nb\nc");
        report.add(4, "third; x");
        report.add(2, "made of rubble; x");
        report.add_syntax(3, "odd; x");
        report.add_general("f: --x; x");
        let lines = report.into_lines();
        assert_eq!(lines, ["f: --x; x", "f:2:2: odd; x", "f:3:1: third; x"]);
    }
}
