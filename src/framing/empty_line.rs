//! Messages of any number of lines that end with an empty line, as in the policy protocol of Postfix. The payload is
//! the lines, each with its end, without the empty one. A line of CR LF is empty too.

use super::{Frame, Progress, Unfit};

/// A framer for messages that end with an empty line.
#[derive(Debug, Clone)]
pub struct EmptyLineFramer {
    longest: usize,
    /// The index at which the unfinished line begins.
    line: usize,
    /// The index up to which its end was searched.
    scanned: usize,
}

impl EmptyLineFramer {
    /// Returns a framer for messages whose lines have at most `longest` bytes together, not counting the empty line.
    pub fn new(longest: usize) -> Self {
        EmptyLineFramer {
            longest,
            line: 0,
            scanned: 0,
        }
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        while let Some(at) = memchr::memchr(b'\n', bytes.get(self.scanned..).unwrap_or_default()) {
            let (end, begin) = (self.scanned + at, self.line);
            if is_empty(bytes.get(begin..end).unwrap_or_default()) {
                (self.line, self.scanned) = (0, 0);
                return Progress::Frame(Frame {
                    length: end + 1,
                    payload: 0..begin,
                });
            }
            if end + 1 > self.longest {
                return Progress::TooLong;
            }
            (self.line, self.scanned) = (end + 1, end + 1);
        }
        self.scanned = bytes.len();
        // Bytes that do not begin an empty line belong to the message, and so will their line end.
        let unfinished = bytes.get(self.line..).unwrap_or_default();
        if !is_empty(unfinished) && bytes.len() >= self.longest {
            return Progress::TooLong;
        }
        Progress::NeedMore
    }
}

/// Returns true if a line, given without its LF, is empty.
fn is_empty(line: &[u8]) -> bool {
    matches!(line, [] | [b'\r'])
}

/// Appends a message and an empty line. A last line without an end is given one.
///
/// # Errors
/// The message holds an empty line.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
    let mut lines = payload.split_inclusive(|byte| *byte == b'\n');
    if lines.any(|line| is_empty(line.strip_suffix(b"\n").unwrap_or(line))) {
        return Err(Unfit("holds an empty line"));
    }
    wire.extend_from_slice(payload);
    if !payload.is_empty() && !payload.ends_with(b"\n") {
        wire.push(b'\n');
    }
    wire.push(b'\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Framer;
    use super::super::testing::{check_cuts, cut_frames};
    use super::*;
    use proptest::prelude::*;

    fn first(longest: usize, bytes: &[u8]) -> Progress {
        EmptyLineFramer::new(longest).advance(bytes)
    }

    fn frame(length: usize, payload: usize) -> Progress {
        Progress::Frame(Frame {
            length,
            payload: 0..payload,
        })
    }

    #[test]
    fn an_empty_line_ends_a_message() {
        assert_eq!(first(9, b"a=1\nb=2\n\nrest"), frame(9, 8));
        assert_eq!(first(9, b"a=1\r\n\r\nrest"), frame(7, 5));
        assert_eq!(first(9, b"\nrest"), frame(1, 0));
        assert_eq!(first(9, b"a\n\r"), Progress::NeedMore);
        assert_eq!(first(9, b"a\n\rb\n"), Progress::NeedMore);
    }

    #[test]
    fn a_message_may_be_as_long_as_allowed_and_no_longer() {
        assert_eq!(first(4, b"abc\n\n"), frame(5, 4));
        assert_eq!(first(4, b"abc\n\r"), Progress::NeedMore);
        assert_eq!(first(4, b"abcd"), Progress::TooLong);
        assert_eq!(first(4, b"a\nbc\n\n"), Progress::TooLong);
        assert_eq!(first(4, b"abc\nd"), Progress::TooLong);
    }

    #[test]
    fn every_line_gets_its_end_and_none_may_be_empty() {
        let encoded = |payload: &[u8]| {
            let mut wire = Vec::new();
            encode(payload, &mut wire).map(|()| wire)
        };
        assert_eq!(encoded(b"a\nb"), Ok(b"a\nb\n\n".to_vec()));
        assert_eq!(encoded(b"a\nb\n"), Ok(b"a\nb\n\n".to_vec()));
        assert_eq!(encoded(b""), Ok(b"\n".to_vec()));
        for unfit in [&b"\n"[..], b"a\n\nb", b"a\r\n\r\n", b"\r"] {
            assert_eq!(encoded(unfit), Err(Unfit("holds an empty line")), "{unfit:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in "[ab\r\n]{0,60}",
            cuts in proptest::collection::vec(1usize..7, 0..60),
            longest in 0usize..30,
        ) {
            check_cuts(&Framer::UntilEmptyLine(EmptyLineFramer::new(longest)), stream.as_bytes(), &cuts);
            let (frames, _) = cut_frames(Framer::UntilEmptyLine(EmptyLineFramer::new(100)), stream.as_bytes(), &cuts);
            prop_assert_eq!(frames, slowly(&stream));
        }
    }

    fn slowly(stream: &str) -> Vec<Vec<u8>> {
        let (mut frames, mut frame) = (Vec::new(), String::new());
        for line in stream.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            if line == "\n" || line == "\r\n" {
                frames.push(std::mem::take(&mut frame).into_bytes());
            } else {
                frame.push_str(line);
            }
        }
        frames
    }
}
