//! Messages whose end is not in their bytes: the end of the stream or a pause ends them.

use super::{Frame, Progress};

/// A framer that checks only the length.
#[derive(Debug, Clone)]
pub struct WholeFramer {
    longest: usize,
}

impl WholeFramer {
    /// Returns a framer for messages of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        WholeFramer { longest }
    }

    /// Returns [`Progress::TooLong`] or [`Progress::NeedMore`], never a frame. `bytes` must be all bytes that have
    /// arrived.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        if bytes.len() > self.longest {
            Progress::TooLong
        } else {
            Progress::NeedMore
        }
    }

    /// Returns the message, after whose bytes nothing more comes, or `None` if it is longer than allowed.
    pub fn end(&self, bytes: &[u8]) -> Option<Frame> {
        let length = bytes.len();
        (length <= self.longest).then_some(Frame {
            length,
            payload: 0..length,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Framer;
    use super::super::testing::check_cuts;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_end_of_the_stream_ends_the_message_unless_it_is_too_long() {
        let framer = WholeFramer::new(3);
        let length = |bytes: &[u8]| framer.end(bytes).map(|frame| (frame.length, frame.payload));
        assert_eq!(length(b"abc"), Some((3, 0..3)));
        assert_eq!(length(b""), Some((0, 0..0)));
        assert_eq!(length(b"abcd"), None);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in proptest::collection::vec(0u8..4, 0..30),
            cuts in proptest::collection::vec(1usize..7, 0..30),
            longest in 0usize..30,
        ) {
            check_cuts(&Framer::Whole(WholeFramer::new(longest)), &stream, &cuts);
        }
    }
}
