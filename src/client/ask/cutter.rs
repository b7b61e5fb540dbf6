//! The stream of a connection that carries many lines is cut into these lines, where they lie: only a line that spans
//! two reads is copied.

use super::reply::LONGEST_REPLY;
use crate::framing::channel::LONGEST_PREFIX;

/// The largest number of bytes of a line without its LF.
pub const LONGEST: usize = LONGEST_REPLY + LONGEST_PREFIX;

/// A line from a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut<'a> {
    /// The complete line, with its LF.
    Whole(&'a [u8]),
    /// The beginning of a line that is longer than [`LONGEST`]. Its rest is skipped.
    Overlong(&'a [u8]),
}

/// Cuts a stream into lines.
#[derive(Debug, Default)]
pub struct Cutter {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// True if the line at hand was too long: the rest of it is skipped.
    is_skipping: bool,
}

impl Cutter {
    /// Passes each line that ends within the next `bytes` of the stream to `take`, and each that becomes too long there.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Cut<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            self.end_line(line, &mut take);
        }
        self.begin_line(bytes, &mut take);
    }

    fn end_line(&mut self, end: &[u8], take: &mut impl FnMut(Cut<'_>)) {
        if std::mem::take(&mut self.is_skipping) {
            return;
        }
        let length = self.begun.len() + end.len();
        let cut = if length > LONGEST + 1 {
            Cut::Overlong
        } else {
            Cut::Whole
        };
        if self.begun.is_empty() {
            return take(cut(end));
        }
        self.begun.extend_from_slice(end);
        take(cut(&self.begun));
        self.begun.clear();
    }

    fn begin_line(&mut self, part: &[u8], take: &mut impl FnMut(Cut<'_>)) {
        if self.is_skipping {
            return;
        }
        self.begun.extend_from_slice(part);
        if self.begun.len() > LONGEST {
            take(Cut::Overlong(&self.begun));
            self.begun = Vec::new();
            self.is_skipping = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
        let (mut cutter, mut lines) = (Cutter::default(), Vec::new());
        for piece in pieces {
            cutter.push(piece, |line| {
                lines.push(match line {
                    Cut::Whole(line) => (true, line.to_vec()),
                    Cut::Overlong(line) => (false, line.to_vec()),
                });
            });
        }
        lines
    }

    #[test]
    fn a_line_that_is_too_long_is_passed_on_once_and_the_next_is_whole() {
        let long = [b"1 ", vec![b'x'; LONGEST - 2].as_slice()].concat();
        let line = [long.as_slice(), b"\n"].concat();
        assert_eq!(cut(&[&line]), [(true, line.clone())]);
        for rest in [&b"y\n"[..], b"yy\n"] {
            for pieces in [&[&long, rest, b"2 z\n"][..], &[&[&long, rest, b"2 z\n"].concat()]] {
                let lines = cut(pieces);
                assert_eq!(lines.len(), 2);
                assert!(!lines[0].0 && lines[0].1.starts_with(&long));
                assert_eq!(lines[1], (true, b"2 z\n".to_vec()));
            }
        }
    }

    proptest! {
        /// The same lines are found, independent of the sizes of the pieces, and an unfinished line is none.
        #[test]
        fn the_cuts_do_not_matter(stream in "[a-c\n]{0,60}", size in 1usize..9) {
            let pieces: Vec<&[u8]> = stream.as_bytes().chunks(size).collect();
            let lines: Vec<(bool, Vec<u8>)> = stream
                .split_inclusive('\n')
                .filter(|line| line.ends_with('\n'))
                .map(|line| (true, line.as_bytes().to_vec()))
                .collect();
            prop_assert_eq!(cut(&pieces), lines);
        }
    }
}
