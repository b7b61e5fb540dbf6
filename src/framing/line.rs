//! A message is a line: everything up to and including the first LF. A CR before it belongs to the message.

use super::Progress;

/// Finds the end of one line after another.
#[derive(Debug, Clone)]
pub struct LineFramer {
    longest: usize,
    scanned: usize,
}

impl LineFramer {
    /// `longest`: how many bytes a line may have, its LF not counted.
    pub fn new(longest: usize) -> Self {
        LineFramer { longest, scanned: 0 }
    }

    /// `bytes` are all bytes since the last frame's end. After a frame the next call starts afresh behind it.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let new = bytes.get(self.scanned..).unwrap_or_default();
        match memchr::memchr(b'\n', new).map(|at| self.scanned + at) {
            Some(length) if length > self.longest => Progress::TooLong,
            Some(length) => {
                self.scanned = 0;
                Progress::Frame(length + 1)
            }
            None if bytes.len() > self.longest => Progress::TooLong,
            None => {
                self.scanned = bytes.len();
                Progress::NeedMore
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_may_be_as_long_as_allowed_and_no_longer() {
        assert_eq!(LineFramer::new(3).advance(b"abc\n"), Progress::Frame(4));
        assert_eq!(LineFramer::new(3).advance(b"abc"), Progress::NeedMore);
        assert_eq!(LineFramer::new(3).advance(b"abcd"), Progress::TooLong);
        assert_eq!(LineFramer::new(3).advance(b"abcd\n"), Progress::TooLong);
        assert_eq!(LineFramer::new(3).advance(b"\nabc"), Progress::Frame(1));
    }

    #[test]
    fn a_nul_is_a_byte_like_any_other() {
        assert_eq!(LineFramer::new(9).advance(b"a\0b\nrest"), Progress::Frame(4));
    }

    proptest! {
        /// However a stream is cut, the same frames come out.
        #[test]
        fn the_cuts_do_not_matter(stream in "[a-c\n]{0,60}", cuts in proptest::collection::vec(1usize..7, 0..60)) {
            let stream = stream.as_bytes();
            let (mut framer, mut pending, mut frames, mut fed) = (LineFramer::new(60), Vec::new(), Vec::new(), 0);
            for cut in cuts.into_iter().chain([60]) {
                let end = stream.len().min(fed + cut);
                pending.extend_from_slice(&stream[fed..end]);
                fed = end;
                while let Progress::Frame(length) = framer.advance(&pending) {
                    frames.push(pending.drain(..length).collect::<Vec<u8>>());
                }
            }
            let whole: Vec<Vec<u8>> =
                stream.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(frames, whole);
        }
    }
}
