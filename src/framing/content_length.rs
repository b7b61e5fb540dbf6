//! Messages with a head that gives their length, as in the protocols of language servers and debug adapters:
//! `Content-Length: 5`, any other headers, an empty line, and that number of bytes. Lines end in CR LF or in LF alone.
//!
//! Programs read such heads in different ways: one ends a line at LF, another only at CR LF, a third also at a lone CR;
//! one knows `Content-Length` only in these capitals, another finds it anywhere in the head. If two programs find
//! different lengths, one of them takes the rest of a message for the beginning of another message. So a head is
//! accepted only if every program finds the same length in it once it is written in the form that all of them read
//! ([`passed_on`]): lines end in CR LF, the length is `Content-Length: 5`, and all other headers are unchanged. A head
//! that would be ambiguous even then is refused, from either side.
//!
//! The headers are parsed by `httparse`. This module calls it once, when the head is complete.

use std::borrow::Cow;
use std::io::Write;

use super::{Frame, Progress};

/// The limits of a head, in bytes and in headers, measured in the form in which it is passed on. The heads of language
/// servers have two headers.
const LONGEST_HEAD: usize = 8 << 10;
const MAX_HEADERS: usize = 32;

/// A framer for messages with a `Content-Length` head.
#[derive(Debug, Clone)]
pub struct ContentLengthFramer {
    longest: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The unfinished line of the head begins at `line`, and its end was searched up to `scanned`.
    Head { line: usize, scanned: usize },
    /// The message begins at `start` and has `length` bytes.
    Message { start: usize, length: usize },
}

const AT_THE_START: State = State::Head { line: 0, scanned: 0 };

impl ContentLengthFramer {
    /// Returns a framer for messages of at most `longest` bytes, not counting the head.
    pub fn new(longest: usize) -> Self {
        ContentLengthFramer {
            longest,
            state: AT_THE_START,
        }
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        if let State::Head { line, scanned } = self.state {
            let end = match head_end(bytes, line, scanned) {
                Head::Ends(end) if written_length(bytes.get(..end).unwrap_or_default()) <= LONGEST_HEAD => end,
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

const HEAD_TOO_LONG: &str = "its head is longer than 8 KiB";

/// The extent of a head.
enum Head {
    /// The head has this number of bytes, including its empty line.
    Ends(usize),
    /// The last line of the unfinished head begins at `line`.
    Unfinished { line: usize },
}

/// Searches the empty line from `scanned` on, in the line that begins at `line`.
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

const NAME: &str = "Content-Length";

/// Returns the length that every program finds in a complete head.
fn content_length(head: &[u8]) -> Result<usize, &'static str> {
    // Beyond ASCII there are further line ends, in one character set or another.
    if !head
        .iter()
        .all(|byte| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n'))
    {
        return Err("its head holds a control character, or what is not ASCII");
    }
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    // This refuses a CR without a LF after it, a line that continues in the next one, and a blank before the colon.
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(head, &mut headers) else {
        return Err("its head is not made of `Name: value` lines");
    };
    let mut length = None;
    for header in headers.iter() {
        // Some programs compare only the letters of a name, and some find this one anywhere in the head.
        let name = header.name.replace('_', "-");
        if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err("its head has a Transfer-Encoding, which tells the length in another way");
        }
        if header.name.eq_ignore_ascii_case(NAME) && length.is_none() {
            length = Some(header.value);
        } else if names_the_length(name.as_bytes()) || names_the_length(header.value) {
            return Err("its head says Content-Length more than once");
        }
    }
    match length.ok_or("its head does not have a Content-Length")?.trim_ascii() {
        digits @ ([b'0'] | [b'1'..=b'9', ..]) if digits.iter().all(u8::is_ascii_digit) => {
            let value = |sum: usize, digit: &u8| sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
            Ok(digits.iter().fold(0, value))
        }
        _ => Err("its Content-Length is not a number in digits, without zeros before it"),
    }
}

fn names_the_length(text: &[u8]) -> bool {
    text.windows(NAME.len())
        .any(|part| part.eq_ignore_ascii_case(NAME.as_bytes()))
}

/// Returns the lines of a complete head as they are passed on, including the empty one, without their ends.
fn written_lines(head: &[u8]) -> impl Iterator<Item = Cow<'_, [u8]>> {
    let lines = head.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.split_at_checked(NAME.len()) {
            Some((name, [b':', value @ ..])) if name.eq_ignore_ascii_case(NAME.as_bytes()) => {
                Cow::Owned([NAME.as_bytes(), b": ", value.trim_ascii()].concat())
            }
            _ => Cow::Borrowed(line),
        }
    })
}

fn written_length(head: &[u8]) -> usize {
    written_lines(head).map(|line| line.len() + 2).sum()
}

/// Returns a whole message as it is passed on to the next reader: its head in the form that every program reads, then
/// its payload. Most messages have that form already and are borrowed.
pub fn passed_on<'m>(message: &'m [u8], payload: &[u8]) -> Cow<'m, [u8]> {
    let head = message.len().saturating_sub(payload.len());
    let (head, rest) = message.split_at(head);
    let mut written = Vec::with_capacity(written_length(head));
    for line in written_lines(head) {
        written.extend_from_slice(&line);
        written.extend_from_slice(b"\r\n");
    }
    if written == head {
        return Cow::Borrowed(message);
    }
    written.extend_from_slice(rest);
    Cow::Owned(written)
}

/// Appends a message with its head.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(wire, "{NAME}: {}\r\n\r\n", payload.len());
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
    fn the_head_gives_the_end_of_the_message() {
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
    fn a_message_that_is_too_long_is_refused_by_its_head() {
        assert_eq!(first(4, b"Content-Length: 5\r\n\r\n"), Progress::TooLong);
        assert_eq!(
            first(usize::MAX - 1, b"Content-Length: 99999999999999999999999\r\n\r\n"),
            Progress::TooLong
        );
    }

    #[test]
    fn a_head_without_a_length_is_malformed() {
        let reason = |head: &[u8]| match first(100, head) {
            Progress::Malformed(reason) => reason,
            other => panic!("{other:?}"),
        };
        for head in [&b"\r\n"[..], b"\n", b"A: b\r\n\r\n"] {
            assert_eq!(reason(head), "its head does not have a Content-Length", "{head:?}");
        }
        for twice in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\ncontent-length: 1",
            "Content-Length: 1\nContent_Length: 2",
            "content_length: 2\nContent-Length: 1",
            "X-Content-Length: 2\r\nContent-Length: 1",
            "X: Content-Length: 2\r\nContent-Length: 1",
            "Content-Length: 1\r\nX: CONTENT-LENGTH: 2",
        ] {
            let head = format!("{twice}\r\n\r\nxx");
            assert_eq!(
                reason(head.as_bytes()),
                "its head says Content-Length more than once",
                "{twice:?}"
            );
        }
        for length in [
            "", "-1", "+1", "5x", "0x5", "05", "00", "5, 5", "5,5", "5;q=1", "5 5", "1e1", "5.0", "\"5\"",
        ] {
            let head = format!("Content-Length: {length}\r\n\r\nhello");
            let why = "its Content-Length is not a number in digits, without zeros before it";
            assert_eq!(reason(head.as_bytes()), why, "{length:?}");
        }
        for encoding in [
            "Transfer-Encoding: chunked",
            "transfer-encoding:identity",
            "Transfer_Encoding: chunked",
        ] {
            let head = format!("Content-Length: 5\r\n{encoding}\r\n\r\nhello");
            assert!(
                reason(head.as_bytes()).starts_with("its head has a Transfer-Encoding"),
                "{encoding:?}"
            );
        }
        for line in [
            "{\"a\":1}",
            "POST / HTTP/1.1",
            "no colon",
            ": no name",
            " ",
            "\t",
            " Folded: line",
            "X: y\r\n folded",
            "X: y\n\tfolded",
            "Blank : before the colon",
            "X: y\rContent-Type: z",
            "X\r: y",
            "X: y\r",
            "\r",
            "(X): y",
        ] {
            let head = format!("Content-Length: 5\r\n{line}\r\n\r\nhello");
            assert_eq!(
                reason(head.as_bytes()),
                "its head is not made of `Name: value` lines",
                "{line:?}"
            );
            // The length may also stand after that line.
            let head = format!("{line}\r\nContent-Length: 5\n\nhello");
            assert!(
                matches!(first(100, head.as_bytes()), Progress::Malformed(_)),
                "{line:?}"
            );
        }
        for byte in ["\0", "\x0b", "\x0c", "\x1c", "\x7f", "\u{85}", "\u{2028}", "\u{e4}"] {
            for head in [
                format!("Content-Length: 5\r\nX: {byte}\r\n\r\nhello"),
                format!("{byte}Content-Length: 5\r\n\r\nhello"),
            ] {
                assert!(
                    reason(head.as_bytes()).starts_with("its head holds a control character"),
                    "{head:?}"
                );
            }
        }
        assert_eq!(reason(&[b'x'; LONGEST_HEAD + 1]), HEAD_TOO_LONG);
        let long = [
            b"A: ".to_vec(),
            vec![b'x'; LONGEST_HEAD],
            b"\r\nContent-Length: 1\r\n\r\nx".to_vec(),
        ]
        .concat();
        assert_eq!(reason(&long), HEAD_TOO_LONG);
    }

    fn read(stream: &[u8]) -> Vec<u8> {
        match first(100, stream) {
            Progress::Frame(frame) => {
                let message = stream.get(..frame.length).unwrap();
                passed_on(message, frame.payload_in(stream)).into_owned()
            }
            other => panic!("{other:?} for {}", stream.escape_ascii()),
        }
    }

    #[test]
    fn the_head_is_passed_on_in_the_form_that_every_program_reads() {
        let rewritten: [(&str, &str); 5] = [
            ("Content-Length: 5\n\nhello", "Content-Length: 5\r\n\r\nhello"),
            ("content-length:5\r\n\r\nhello", "Content-Length: 5\r\n\r\nhello"),
            ("CONTENT-LENGTH:\t 5 \t\n\r\nhello", "Content-Length: 5\r\n\r\nhello"),
            (
                "X-Odd:  yes \r\ncontent-length:5\nA_b:\n\nhello",
                "X-Odd:  yes \r\nContent-Length: 5\r\nA_b:\r\n\r\nhello",
            ),
            ("Content-Length: 2\n\n\n\nrest", "Content-Length: 2\r\n\r\n\n\n"),
        ];
        for (came, passes) in rewritten {
            assert_eq!(read(came.as_bytes()), passes.as_bytes(), "{came:?}");
        }
        let usual = b"Content-Length: 2\r\nContent-Type: application/vscode-jsonrpc; charset=utf-8\r\n\r\n{}";
        assert_eq!(read(usual), usual);
        assert!(matches!(passed_on(usual, b"{}"), Cow::Borrowed(_)), "nothing is copied");
    }

    /// Otherwise a worker that repeats the head of a request would be treated as broken.
    #[test]
    fn the_longest_head_is_measured_as_it_is_passed_on() {
        let head = |end: &str, filling: usize| format!("X: {}{end}Content-Length: 1{end}{end}x", "y".repeat(filling));
        let longest = LONGEST_HEAD + 1 - head("\r\n", 0).len();
        for end in ["\n", "\r\n"] {
            assert_eq!(read(head(end, longest).as_bytes()), head("\r\n", longest).as_bytes());
            assert_eq!(
                first(100, head(end, longest + 1).as_bytes()),
                Progress::Malformed(HEAD_TOO_LONG)
            );
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in "((Content-Length: [0-3]\r?\n(A: b\n)?\r?\n[a\n]{0,3})|[A:\r\n0-9]){0,4}",
            cuts in proptest::collection::vec(1usize..20, 0..60),
            longest in 0usize..4,
        ) {
            check_cuts(&Framer::ContentLength(ContentLengthFramer::new(longest)), stream.as_bytes(), &cuts);
        }
    }
}
