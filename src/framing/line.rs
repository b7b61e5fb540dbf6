//! Messages of one line: everything before the first LF. A CR before the LF belongs to the message.

use super::terminated::{self, Terminated};
use super::{Progress, Unfit};

/// A framer for lines.
#[derive(Debug, Clone)]
pub struct LineFramer(Terminated);

impl LineFramer {
    /// Returns a framer for lines of at most `longest` bytes, not counting the LF.
    pub fn new(longest: usize) -> Self {
        LineFramer(Terminated::by(b'\n', longest))
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        self.0.advance(bytes)
    }
}

/// Appends a message as a line.
///
/// # Errors
/// The message is more than one line.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
    terminated::encode(payload, b'\n', Unfit("is more than one line"), wire)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, cut_frames};
    use super::super::{Frame, Framer};
    use super::*;
    use proptest::prelude::*;

    fn line(length: usize) -> Progress {
        Progress::Frame(Frame {
            length,
            payload: 0..length - 1,
        })
    }

    #[test]
    fn a_line_may_be_as_long_as_allowed_and_no_longer() {
        assert_eq!(LineFramer::new(3).advance(b"abc\n"), line(4));
        assert_eq!(LineFramer::new(3).advance(b"abc"), Progress::NeedMore);
        assert_eq!(LineFramer::new(3).advance(b"abcd"), Progress::TooLong);
        assert_eq!(LineFramer::new(3).advance(b"abcd\n"), Progress::TooLong);
        assert_eq!(LineFramer::new(3).advance(b"\nabc"), line(1));
    }

    #[test]
    fn a_nul_and_a_cr_are_bytes_like_any_other() {
        assert_eq!(LineFramer::new(9).advance(b"a\0b\r\nrest"), line(5));
    }

    #[test]
    fn a_line_end_ends_the_line_and_may_not_stand_within() {
        let encoded = |payload: &[u8]| {
            let mut wire = b"before".to_vec();
            encode(payload, &mut wire).map(|()| wire)
        };
        assert_eq!(encoded(b"a\r"), Ok(b"beforea\r\n".to_vec()));
        assert_eq!(encoded(b"a\n"), Ok(b"beforea\n".to_vec()));
        assert_eq!(encoded(b""), Ok(b"before\n".to_vec()));
        assert_eq!(encoded(b"a\nb"), Err(Unfit("is more than one line")));
        assert_eq!(encoded(b"a\n\n"), Err(Unfit("is more than one line")));
    }

    proptest! {
        /// The same frames come out however the stream is cut.
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in "[a-c\n]{0,60}",
            cuts in proptest::collection::vec(1usize..7, 0..60),
            longest in 0usize..60,
        ) {
            check_cuts(&Framer::Line(LineFramer::new(longest)), stream.as_bytes(), &cuts);
            let (frames, _) = cut_frames(Framer::Line(LineFramer::new(60)), stream.as_bytes(), &cuts);
            let whole: Vec<&[u8]> =
                stream.as_bytes().split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n")).collect();
            prop_assert_eq!(frames, whole);
        }
    }
}
