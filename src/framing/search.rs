//! The search for one known line among others: the line that a worker prints when it is ready, after any other output.
//!
//! The other lines may be of any length and number. No more is remembered of a line than whether it can still become
//! the wanted one.

use std::mem;

/// The search for one line in a stream. White space at the ends of lines, including a CR, does not count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineSearch {
    wanted: Vec<u8>,
    line: Line,
}

/// The state of the line that has begun and not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// The line is the first bytes of the wanted one, this number of them; or all of them, and white space.
    Same(usize),
    /// The line differs from the wanted one.
    Other,
}

impl LineSearch {
    /// Returns a search for `wanted`, which is given without its line end.
    pub fn new(wanted: &[u8]) -> Self {
        LineSearch {
            wanted: wanted.trim_ascii_end().to_vec(),
            line: Line::Same(0),
        }
    }

    /// Searches more of the stream. Once the line has arrived, returns the number of these bytes up to its end,
    /// including the LF. The next call begins a new search.
    pub fn advance(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut taken = 0;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            taken += piece.len();
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            self.line = self.continued(text);
            if text.len() < piece.len() && mem::replace(&mut self.line, Line::Same(0)) == Line::Same(self.wanted.len())
            {
                return Some(taken);
            }
        }
        None
    }

    /// Returns the state of the line when `text` is added to it.
    fn continued(&self, text: &[u8]) -> Line {
        let Line::Same(length) = self.line else {
            return Line::Other;
        };
        let missing = self.wanted.get(length..).unwrap_or_default();
        let (text, tail) = text.split_at(text.len().min(missing.len()));
        if missing.starts_with(text) && tail.iter().all(u8::is_ascii_whitespace) {
            Line::Same(length + text.len())
        } else {
            Line::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(wanted: &[u8], pieces: &[&[u8]]) -> Option<(usize, usize)> {
        let mut search = LineSearch::new(wanted);
        let piece_and_length = |(number, piece): (usize, &&[u8])| Some((number, search.advance(piece)?));
        pieces.iter().enumerate().find_map(piece_and_length)
    }

    #[test]
    fn the_line_is_found_whole_and_alone() {
        assert_eq!(found(b"up", &[b"up\nx"]), Some((0, 3)));
        assert_eq!(found(b"up", &[b"loading\nup \r\nx"]), Some((0, 13)));
        assert_eq!(found(b"up ", &[b"up\n"]), Some((0, 3)));
        for other in [&b"up"[..], b"u\n", b"up x\n", b" up\n", b"upp\n", b"\n", b"UP\n"] {
            assert_eq!(found(b"up", &[other]), None, "{other:?}");
        }
    }

    #[test]
    fn the_line_may_come_in_pieces() {
        assert_eq!(found(b"up", &[b"load", b"ing\nu", b"p", b" ", b"\n"]), Some((4, 1)));
        assert_eq!(
            found(b"up", &[b"long", b"up\n", b"up\n"]),
            Some((2, 3)),
            "a tail is no line"
        );
    }

    #[test]
    fn any_length_may_come_before_the_line() {
        let banner = [&vec![b'x'; 1 << 20][..], b"\nup\n"].concat();
        assert_eq!(found(b"up", &[&banner]), Some((0, banner.len())));
    }
}
