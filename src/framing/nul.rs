//! Messages that end in a NUL byte, as `find -print0` writes and `xargs -0` reads them. A LF is an ordinary byte.

use super::terminated::{self, Terminated};
use super::{Progress, Unfit};

/// A framer for messages that end in a NUL.
#[derive(Debug, Clone)]
pub struct NulFramer(Terminated);

impl NulFramer {
    /// Returns a framer for messages of at most `longest` bytes, not counting the NUL.
    pub fn new(longest: usize) -> Self {
        NulFramer(Terminated::by(0, longest))
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        self.0.advance(bytes)
    }
}

/// Appends a message and a NUL.
///
/// # Errors
/// The message holds a NUL before its end.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
    terminated::encode(payload, 0, Unfit("holds a NUL byte"), wire)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{check_cuts, cut_frames};
    use super::super::{Frame, Framer};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_a_nul_ends_a_message() {
        let whole = Progress::Frame(Frame {
            length: 4,
            payload: 0..3,
        });
        assert_eq!(NulFramer::new(3).advance(b"a\nb\0rest"), whole);
        assert_eq!(NulFramer::new(3).advance(b"abc"), Progress::NeedMore);
        assert_eq!(NulFramer::new(3).advance(b"abcd"), Progress::TooLong);
        let mut wire = Vec::new();
        assert_eq!(encode(b"a\0b", &mut wire), Err(Unfit("holds a NUL byte")));
        assert_eq!((encode(b"a\n", &mut wire), wire.as_slice()), (Ok(()), &b"a\n\0"[..]));
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in "[a-c\n\0]{0,60}",
            cuts in proptest::collection::vec(1usize..7, 0..60),
            longest in 0usize..60,
        ) {
            check_cuts(&Framer::Nul(NulFramer::new(longest)), stream.as_bytes(), &cuts);
            let (frames, rest) = cut_frames(Framer::Nul(NulFramer::new(60)), stream.as_bytes(), &cuts);
            let mut pieces: Vec<&[u8]> = stream.as_bytes().split(|byte| *byte == 0).collect();
            let unfinished = pieces.pop().unwrap();
            prop_assert_eq!((frames, rest), (pieces.iter().map(|piece| piece.to_vec()).collect(), Ok(unfinished.len())));
        }
    }
}
