//! What is wrong in a text, and where.

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
        let placed: Vec<_> = self
            .findings
            .iter()
            .map(|finding| (position(self.text, finding.offset), finding))
            .collect();
        let broken = |line| {
            placed
                .iter()
                .any(|((at, _), found)| *at == line && found.source == Source::Syntax)
        };
        let mut lines: Vec<_> = placed
            .iter()
            .filter(|((line, _), finding)| finding.source == Source::Syntax || !broken(*line))
            .map(|((line, column), finding)| format!("{}:{line}:{column}: {}", self.file, finding.text))
            .collect();
        lines.dedup();
        self.of_flags.append(&mut lines);
        self.of_flags
    }
}

/// The line and column of a byte, each from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(line_start..).map_or(0, |line| line.chars().count());
    (before.matches('\n').count() + 1, column + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_in_characters() {
        assert_eq!(position("", 0), (1, 1));
        assert_eq!(position("ab\ncd", 1), (1, 2));
        assert_eq!(position("ab\ncd", 3), (2, 1));
        assert_eq!(position("ü = 1", 3), (1, 3));
        assert_eq!(position("ab", 99), (1, 3));
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
