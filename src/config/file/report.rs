//! What is wrong in a text, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::config::torc_cfg::Part;

/// How many mistakes are told, and how many warnings. Whoever has more than that has named another file, or made one mistake
/// in a program that writes it.
const MOST: usize = 100;
/// The same where files include others, of which each may be a mistake of its own.
const MOST_OF_PARTS: usize = 1100;
/// How many are kept until it is known which of them say the same, as in a file that is included again and again.
const KEPT: usize = 2 * MOST_OF_PARTS;

/// Collects mistakes by their place in the text and tells them in its order.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    /// Which file is where in the text; the first begins with it.
    parts: Vec<Part>,
    /// How many are told.
    most: usize,
    syntax: Findings,
    meaning: Findings,
    /// What is passed over, and not wrong.
    passed_over: Findings,
    /// What is wrong elsewhere: in the flags that were given beside the file, or with the file as a whole.
    above: Vec<String>,
}

/// The first few of what there is to be said, in the order of the text.
#[derive(Debug, Default)]
struct Findings {
    /// By their offset in bytes from the start of the text, and of those at one place in the order in which they came.
    first: BTreeMap<(usize, usize), String>,
    /// How many there are in all.
    count: usize,
}

impl Findings {
    /// `text` is asked for only if it will be told, as far as can be known by now.
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
            ..Self::of_parts(&[Part { start: 0, name }], text)
        }
    }

    /// Of a text that is made of those of several files.
    pub(super) fn of_parts(parts: &[Part], text: &'t str) -> Self {
        Self {
            text,
            parts: parts.to_vec(),
            most: MOST_OF_PARTS,
            syntax: Findings::default(),
            meaning: Findings::default(),
            passed_over: Findings::default(),
            above: Vec::new(),
        }
    }

    /// A mistake in what is said at `offset`.
    pub(super) fn add(&mut self, offset: usize, text: impl Into<String>) {
        self.meaning.add(offset, || text.into());
    }

    /// The same, of which there may be as many as there are lines: the text is made only if it is told.
    pub(super) fn add_lazily(&mut self, offset: usize, text: impl FnOnce() -> String) {
        self.meaning.add(offset, text);
    }

    /// What is said at `offset` has no meaning here, which is no mistake.
    pub(super) fn add_passed_over(&mut self, offset: usize, text: impl FnOnce() -> String) {
        self.passed_over.add(offset, text);
    }

    /// A mistake in a flag, or in the file as a whole.
    pub(super) fn add_above(&mut self, text: impl Into<String>) {
        self.above.push(text.into());
    }

    /// A mistake in how it is said.
    pub(super) fn add_syntax(&mut self, offset: usize, text: impl Into<String>) {
        self.syntax.add(offset, || text.into());
    }

    /// What was passed over, as `file:line:column: text`.
    pub(super) fn take_passed_over(&mut self) -> Vec<String> {
        let passed_over = std::mem::take(&mut self.passed_over);
        let of_all = passed_over.first.iter().map(|((offset, _), text)| (*offset, text));
        let placed = self.placed(of_all);
        let lines = placed.map(|(place, text)| format!("{place}: {text}")).collect();
        Self::first_of(
            MOST,
            lines,
            passed_over.left_out(),
            "settings are passed over; see those above first",
        )
    }

    /// The mistakes as `file:line:column: text`, both counted from 1, columns in characters. A line that could not
    /// be parsed has no meaning, so what was made of it is left out. What is wrong with flags comes first. Behind the
    /// first hundred stands how many more there are.
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
        let mut lines = Self::first_of(
            self.most,
            lines,
            left_out,
            "mistakes stand below; mend those above first",
        );
        self.above.append(&mut lines);
        self.above
    }

    /// The first of these lines, and at the place of the last of them how many there are beyond, `left_out` and others.
    fn first_of(most: usize, mut lines: Vec<String>, left_out: usize, what: &str) -> Vec<String> {
        lines.dedup();
        let left_out = left_out + lines.len().saturating_sub(most);
        lines.truncate(most);
        let place = lines.last().and_then(|line| line.split(": ").next());
        if let Some(place) = place.filter(|_| left_out > 0) {
            lines.push(format!("{place}: {left_out} more {what}"));
        }
        lines
    }

    /// Findings, which come in the order of the text, with their places.
    fn placed<'f>(
        &'f self,
        findings: impl Iterator<Item = (usize, &'f String)>,
    ) -> impl Iterator<Item = (Place<'f>, &'f str)> {
        let mut parts = self.parts.iter().enumerate().peekable();
        let mut current = None;
        findings.filter_map(move |(offset, text)| {
            while let Some((number, part)) = parts.next_if(|(_, part)| part.start <= offset) {
                let text = self.text.get(part.start..).unwrap_or_default();
                current = Some((number, part, Reading::begin(text)));
            }
            let (number, part, reading) = current.as_mut()?;
            let (line, column) = reading.position(offset.saturating_sub(part.start));
            let place = Place {
                part: *number,
                file: &part.name,
                line,
                column,
            };
            Some((place, text.as_str()))
        })
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
    fn of_many_the_first_are_told_and_the_others_counted() {
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
        // Of two that say the same at one place one is told.
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
    fn a_broken_line_is_told_once_and_in_order() {
        let mut report = Report::new("f", "a\nb\nc");
        report.add(4, "third; x");
        report.add(2, "made of rubble; x");
        report.add_syntax(3, "odd; x");
        report.add_above("f: --x; x");
        let lines = report.into_lines();
        assert_eq!(lines, ["f: --x; x", "f:2:2: odd; x", "f:3:1: third; x"]);
    }
}
