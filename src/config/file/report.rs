//! What is wrong in a text, and where.

use std::collections::BTreeSet;

/// Collects mistakes by their place in the text and tells them in its order.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    findings: Vec<Finding>,
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
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self {
            file,
            text,
            findings: Vec::new(),
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

    /// The mistakes as `file:line:column: text`, both counted from 1, columns in characters. A line that could not
    /// be parsed has no meaning, so what was made of it is left out. What is wrong with flags comes first.
    pub(super) fn into_lines(mut self) -> Vec<String> {
        self.findings.sort_by_key(|finding| finding.offset);
        let mut reading = Reading::begin(self.text);
        let placed: Vec<_> = self
            .findings
            .iter()
            .map(|finding| (reading.position(finding.offset), finding))
            .collect();
        let broken: BTreeSet<usize> = placed
            .iter()
            .filter(|(_, finding)| finding.source == Source::Syntax)
            .map(|((line, _), _)| *line)
            .collect();
        let mut lines: Vec<_> = placed
            .iter()
            .filter(|((line, _), finding)| finding.source == Source::Syntax || !broken.contains(line))
            .map(|((line, column), finding)| format!("{}:{line}:{column}: {}", self.file, finding.text))
            .collect();
        lines.dedup();
        self.of_flags.append(&mut lines);
        self.of_flags
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
