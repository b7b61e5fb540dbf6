//! A message is all that comes: its end is told by something else than its bytes, the end of the stream or a pause.

use super::{Frame, Progress};

/// Watches over the length alone.
#[derive(Debug, Clone)]
pub struct WholeFramer {
    longest: usize,
}

impl WholeFramer {
    /// `longest`: how many bytes a message may have.
    pub fn new(longest: usize) -> Self {
        WholeFramer { longest }
    }

    /// `bytes` are all that have come. Never a frame.
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        if bytes.len() > self.longest {
            Progress::TooLong
        } else {
            Progress::NeedMore
        }
    }

    /// Nothing more comes. `None`: it is longer than allowed.
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
