//! A message has a head that tells its length, as language servers and debug adapters speak: `Content-Length: 5`, whatever
//! other headers, an empty line, and so many bytes. Lines end in CR LF, or in LF alone.
//!
//! The headers themselves are read by `httparse`; here is what it takes to call it once, when the head is whole.

use std::io::Write;

use super::{Frame, Progress};

/// A head is at most so many bytes and headers; those of language servers have two.
const LONGEST_HEAD: usize = 8 << 10;
const MOST_HEADERS: usize = 32;

/// Reads one head and message after another.
#[derive(Debug, Clone)]
pub struct ContentLengthFramer {
    longest: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The unfinished line of the head begins there, and its end has been searched so far.
    Head { line: usize, scanned: usize },
    /// The message begins there and has so many bytes.
    Message { start: usize, length: usize },
}

const AT_THE_START: State = State::Head { line: 0, scanned: 0 };

impl ContentLengthFramer {
    /// `longest`: how many bytes a message may have, its head not counted.
    pub fn new(longest: usize) -> Self {
        ContentLengthFramer {
            longest,
            state: AT_THE_START,
        }
    }

    /// `bytes` are all bytes since the last frame's end. After a frame the next call starts afresh behind it.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        if let State::Head { line, scanned } = self.state {
            let end = match head_end(bytes, line, scanned) {
                Head::Ends(end) if end <= LONGEST_HEAD => end,
                Head::Ends(_) => return Progress::Malformed(HEAD_TOO_LONG),
                Head::Unfinished { .. } if bytes.len() > LONGEST_HEAD => return Progress::Malformed(HEAD_TOO_LONG),
                Head::Unfinished { line } => {
                    let scanned = bytes.len();
                    self.state = State::Head { line, scanned };
                    return Progress::NeedMore;
                }
            };
            match content_length(bytes.get(..end).unwrap_or_default()) {
                Ok(length) if length > self.longest => return Progress::TooLong,
                Ok(length) => self.state = State::Message { start: end, length },
                Err(reason) => return Progress::Malformed(reason),
            }
        }
        let State::Message { start, length } = self.state else {
            return Progress::NeedMore;
        };
        let end = start.saturating_add(length);
        if bytes.len() < end {
            return Progress::NeedMore;
        }
        self.state = AT_THE_START;
        Progress::Frame(Frame {
            length: end,
            payload: start..end,
        })
    }
}

const HEAD_TOO_LONG: &str = "its head is longer than 8192 bytes";

/// How far a head has come.
enum Head {
    /// It has so many bytes, its empty line included.
    Ends(usize),
    /// Its last line begins there.
    Unfinished { line: usize },
}

/// Searches the empty line, from `scanned` on, in the line that begins at `line`.
fn head_end(bytes: &[u8], mut line: usize, mut scanned: usize) -> Head {
    while let Some(at) = memchr::memchr(b'\n', bytes.get(scanned..).unwrap_or_default()) {
        let end = scanned + at;
        if matches!(bytes.get(line..end), Some([] | [b'\r'])) {
            return Head::Ends(end + 1);
        }
        (line, scanned) = (end + 1, end + 1);
    }
    Head::Unfinished { line }
}

/// The length that a whole head tells.
fn content_length(head: &[u8]) -> Result<usize, &'static str> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(head, &mut headers) else {
        return Err("its head is not made of `Name: value` lines");
    };
    let mut lengths = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("content-length"));
    let (Some(length), None) = (lengths.next(), lengths.next()) else {
        return Err("its head does not have one Content-Length");
    };
    match length.value.trim_ascii() {
        digits if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let value = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            Ok(digits.iter().fold(0, value))
        }
        _ => Err("its Content-Length is not a number"),
    }
}

/// Appends a message with its head.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(wire, "Content-Length: {}\r\n\r\n", payload.len());
    wire.extend_from_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::super::Framer;
    use super::super::testing::check_cuts;
    use super::*;
    use proptest::prelude::*;

    fn first(longest: usize, bytes: &[u8]) -> Progress {
        ContentLengthFramer::new(longest).advance(bytes)
    }

    fn message(bytes: &[u8]) -> Vec<u8> {
        match first(100, bytes) {
            Progress::Frame(frame) => frame.payload_in(bytes).to_vec(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn its_head_says_where_it_ends() {
        assert_eq!(message(b"Content-Length: 5\r\n\r\nhellorest"), b"hello");
        assert_eq!(message(b"Content-Length: 0\r\n\r\n"), b"");
        assert_eq!(
            message(b"Content-Type: application/x; charset=utf-8\r\ncontent-length:2\r\n\r\n\n\n"),
            b"\n\n"
        );
        assert_eq!(message(b"Content-Length: 5\n\nhello"), b"hello");
        for begun in [
            &b""[..],
            b"Content-Length: 5",
            b"Content-Length: 5\r\n\r",
            b"Content-Length: 5\r\n\r\nhell",
        ] {
            assert_eq!(first(100, begun), Progress::NeedMore, "{begun:?}");
        }
    }

    #[test]
    fn one_that_is_too_long_is_told_by_its_head() {
        assert_eq!(first(4, b"Content-Length: 5\r\n\r\n"), Progress::TooLong);
        assert_eq!(
            first(usize::MAX - 1, b"Content-Length: 99999999999999999999999\r\n\r\n"),
            Progress::TooLong
        );
    }

    #[test]
    fn a_head_that_tells_no_length_is_malformed() {
        let reason = |head: &[u8]| match first(100, head) {
            Progress::Malformed(reason) => reason,
            other => panic!("{other:?}"),
        };
        for head in [
            &b"\r\n"[..],
            b"A: b\r\n\r\n",
            b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        ] {
            assert_eq!(reason(head), "its head does not have one Content-Length", "{head:?}");
        }
        for head in [
            &b"Content-Length: \r\n\r\n"[..],
            b"Content-Length: -1\r\n\r\n",
            b"Content-Length: 5x\r\n\r\n",
        ] {
            assert_eq!(reason(head), "its Content-Length is not a number", "{head:?}");
        }
        assert_eq!(reason(b"{\"a\":1}\n\n"), "its head is not made of `Name: value` lines");
        assert_eq!(reason(&[b'x'; LONGEST_HEAD + 1]), HEAD_TOO_LONG);
        let long = [
            b"A: ".to_vec(),
            vec![b'x'; LONGEST_HEAD],
            b"\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        ]
        .concat();
        assert_eq!(reason(&long), HEAD_TOO_LONG);
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in "((Content-Length: [0-3]\r?\n(A: b\n)?\r?\n[a\n]{0,3})|[A:\r\n0-9]){0,4}",
            cuts in proptest::collection::vec(1usize..20, 0..60),
            longest in 0usize..4,
        ) {
            check_cuts(&Framer::ContentLength(ContentLengthFramer::new(longest)), stream.as_bytes(), &cuts);
        }
    }
}
