//! Standard input, chunk by chunk, is split into lines.
//!
//! A line ends at its LF, which is removed; the last line also ends where the input ends, unless it is empty. A line
//! longer than [`LONGEST_LINE`] is cut: its beginning is returned at once, marked as cut, and its rest is skipped. So
//! memory is bounded by one line and one chunk, and even such a line gets its one answer.

/// The largest number of bytes of a line without its LF: sixteen times the longest line that a pool takes by default,
/// and a hundred times the longest that Squid sends.
pub const LONGEST_LINE: usize = 1024 * 1024;

/// One line from standard input, without its LF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The complete line.
    Whole(Vec<u8>),
    /// The first [`LONGEST_LINE`] bytes of a longer line.
    Cut(Vec<u8>),
}

impl Line {
    /// Returns the bytes that were kept of the line.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Line::Whole(bytes) | Line::Cut(bytes) => bytes,
        }
    }
}

/// Splits chunks into lines. The caller takes the lines one at a time, and leaves them here while it has no room for
/// more.
#[derive(Debug, Default)]
pub struct Splitter {
    /// The bytes that were read, of which those before `taken` are taken.
    bytes: Vec<u8>,
    taken: usize,
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
    state: SplitState,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SplitState {
    #[default]
    Reading,
    /// The beginning of this line was returned; the rest is skipped.
    Skipping,
}

impl Splitter {
    /// Adds the next part of the input. All complete lines must have been taken, so that no more than this is held.
    pub fn push(&mut self, bytes: &[u8]) {
        debug_assert_eq!(self.taken, self.bytes.len(), "some bytes are not taken");
        self.bytes.clear();
        self.bytes.extend_from_slice(bytes);
        self.taken = 0;
    }

    /// Returns the next complete line, or the beginning of one that is too long, even before its end was read.
    pub fn next_line(&mut self) -> Option<Line> {
        while self.taken < self.bytes.len() {
            let rest = self.bytes.get(self.taken..).unwrap_or_default();
            let end = memchr::memchr(b'\n', rest);
            let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
            if self.state == SplitState::Reading {
                let room = LONGEST_LINE - self.begun.len();
                self.begun.extend_from_slice(part.get(..room).unwrap_or(part));
                if part.len() > room {
                    // Its bytes stay as they are: the next iteration skips its part of this line.
                    self.state = SplitState::Skipping;
                    return Some(Line::Cut(std::mem::take(&mut self.begun)));
                }
            }
            self.taken += part.len() + usize::from(end.is_some());
            if end.is_some() {
                match std::mem::take(&mut self.state) {
                    SplitState::Reading => return Some(Line::Whole(std::mem::take(&mut self.begun))),
                    SplitState::Skipping => {}
                }
            }
        }
        None
    }

    /// Returns the last line, which has no LF. Must be called after the end of the input, when
    /// [`next_line`](Self::next_line) has returned `None`.
    pub fn last_line(&mut self) -> Option<Line> {
        let rest = std::mem::take(&mut self.begun);
        (!rest.is_empty()).then_some(Line::Whole(rest))
    }

    /// Returns true if nothing is left here, not even the beginning of a line.
    pub fn is_drained(&self) -> bool {
        self.taken == self.bytes.len() && self.begun.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<Line> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for chunk in chunks {
            splitter.push(chunk);
            lines.extend(std::iter::from_fn(|| splitter.next_line()));
        }
        lines.extend(splitter.last_line());
        assert!(splitter.is_drained());
        lines
    }

    fn whole(line: &[u8]) -> Line {
        Line::Whole(line.to_vec())
    }

    #[test]
    fn the_last_line_may_lack_its_end_and_an_empty_one_counts() {
        assert_eq!(split(&[b"a\n\nb"]), [whole(b"a"), whole(b""), whole(b"b")]);
        assert_eq!(split(&[b"a\n"]), [whole(b"a")]);
        assert_eq!(split(&[]), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_returned_once_and_does_not_harm_the_others() {
        let long = vec![b'x'; LONGEST_LINE];
        assert_eq!(
            split(&[b"a\n", &long, b"\nb\n"]),
            [whole(b"a"), whole(&long), whole(b"b")]
        );
        let cut = Line::Cut(long.clone());
        assert_eq!(
            split(&[b"a\n", &long, b"y", b"zz\nb\n"]),
            [whole(b"a"), cut.clone(), whole(b"b")]
        );
        assert_eq!(split(&[&long, b"y"]), [cut]);
    }

    proptest! {
        /// The same lines are found, independent of the sizes of the chunks.
        #[test]
        fn the_cuts_do_not_matter(stream in "[a-c\n]{0,60}", size in 1usize..9) {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let lines: Vec<Line> = stream.lines().map(|line| whole(line.as_bytes())).collect();
            prop_assert_eq!(split(&pieces), lines);
        }
    }
}
