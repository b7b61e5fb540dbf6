//! What is wrong in a text, and where.

use std::collections::BTreeSet;
use std::fmt;

use crate::config::torc_cfg::Part;

/// Collects mistakes by their place in the text and tells them in its order.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// Which file is where in the text; the first begins with it.
    parts: Vec<Part>,
    findings: Vec<Finding>,
    /// What is passed over, and not wrong.
    passed_over: Vec<Finding>,
    /// What is wrong elsewhere: in the flags that were given beside the file.
    of_flags: Vec<String>,
}

#[derive(Debug)]
struct Finding {
    /// In bytes from the start of the text.
    offset: usize,
    source: Source,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Syntax,
    Meaning,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &str, text: &'t str) -> Self {
        let name = file.to_owned();
        Self::of_parts(&[Part { start: 0, name }], text)
    }

    /// Of a text that is made of those of several files.
    pub(super) fn of_parts(parts: &[Part], text: &'t str) -> Self {
        Self {
            text,
            parts: parts.to_vec(),
            findings: Vec::new(),
            passed_over: Vec::new(),
            of_flags: Vec::new(),
        }
    }

    /// A mistake in what is said at `offset`.
    pub(super) fn add(&mut self, offset: usize, text: impl Into<String>) {
        self.findings.push(Finding {
            offset,
            source: Source::Meaning,
            text: text.into(),
        });
    }

    /// What is said at `offset` has no meaning here, which is no mistake.
    pub(super) fn add_passed_over(&mut self, offset: usize, text: impl Into<String>) {
        self.passed_over.push(Finding {
            offset,
            source: Source::Meaning,
            text: text.into(),
        });
    }

    /// A mistake in a flag.
    pub(super) fn add_of_flags(&mut self, text: impl Into<String>) {
        self.of_flags.push(text.into());
    }

    /// A mistake in how it is said.
    pub(super) fn add_syntax(&mut self, offset: usize, text: impl Into<String>) {
        self.findings.push(Finding {
            offset,
            source: Source::Syntax,
            text: text.into(),
        });
    }

    /// What was passed over, as `file:line:column: text`.
    pub(super) fn take_passed_over(&mut self) -> Vec<String> {
        let mut passed_over = std::mem::take(&mut self.passed_over);
        let placed = self.placed(&mut passed_over);
        placed
            .into_iter()
            .map(|(place, text)| format!("{place}: {text}"))
            .collect()
    }

    /// The mistakes as `file:line:column: text`, both counted from 1, columns in characters. A line that could not
    /// be parsed has no meaning, so what was made of it is left out. What is wrong with flags comes first.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        let mut findings = std::mem::take(&mut self.findings);
        findings.sort_by_key(|finding| finding.offset);
        let sources: Vec<_> = findings.iter().map(|finding| finding.source).collect();
        let placed: Vec<_> = self.placed(&mut findings).into_iter().zip(sources).collect();
        let broken: BTreeSet<(usize, usize)> = placed
            .iter()
            .filter(|(_, source)| *source == Source::Syntax)
            .map(|((place, _), _)| place.line())
            .collect();
        let mut lines: Vec<_> = placed
            .iter()
            .filter(|((place, _), source)| *source == Source::Syntax || !broken.contains(&place.line()))
            .map(|((place, text), _)| format!("{place}: {text}"))
            .collect();
        lines.dedup();
        self.of_flags.append(&mut lines);
        self.of_flags
    }

    /// Findings in the order of the text, with their places.
    fn placed<'f>(&self, findings: &'f mut [Finding]) -> Vec<(Place<'_>, &'f str)> {
        findings.sort_by_key(|finding| finding.offset);
        let mut parts = self.parts.iter().enumerate().peekable();
        let mut current = None;
        let mut placed = Vec::new();
        for finding in findings.iter() {
            while let Some((number, part)) = parts.next_if(|(_, part)| part.start <= finding.offset) {
                let text = self.text.get(part.start..).unwrap_or_default();
                current = Some((number, part, Reading::begin(text)));
            }
            let Some((number, part, reading)) = &mut current else {
                continue;
            };
            let (line, column) = reading.position(finding.offset.saturating_sub(part.start));
            let place = Place {
                part: *number,
                file: &part.name,
                line,
                column,
            };
            placed.push((place, finding.text.as_str()));
        }
        placed
    }
}

/// Where something stands.
struct Place<'p> {
    part: usize,
    file: &'p str,
    line: usize,
    column: usize,
}

impl Place<'_> {
    /// Which line of which file.
    fn line(&self) -> (usize, usize) {
        (self.part, self.line)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A text that is read once from its start to its end, to tell where things stand in it.
struct Reading<'t> {
    rest: &'t str,
    /// How many bytes are before the rest.
    offset: usize,
    /// Where the rest begins, each from 1.
    line: usize,
    column: usize,
}

impl<'t> Reading<'t> {
    fn begin(text: &'t str) -> Self {
        Reading {
            rest: text,
            offset: 0,
            line: 1,
            column: 1,
        }
    }

    /// The line and column of a byte, which is not before the last that was asked for. One behind the end is the end, one
    /// within a character is the character.
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
            let mut reading = Reading::begin(text);
            let told: Vec<_> = offsets.iter().map(|offset| reading.position(*offset)).collect();
            // One after the other, and each by itself.
            let alone = offsets.iter().map(|offset| Reading::begin(text).position(*offset));
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
    fn a_broken_line_is_told_once_and_in_order() {
        let mut report = Report::new("f", "a\nb\nc");
        report.add(4, "third; x");
        report.add(2, "made of rubble; x");
        report.add_syntax(3, "odd; x");
        report.add_of_flags("f: --x; x");
        let lines = report.into_lines();
        assert_eq!(lines, ["f: --x; x", "f:2:2: odd; x", "f:3:1: third; x"]);
    }
}
