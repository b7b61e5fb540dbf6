//! Messages with their length in front: four bytes, the most significant first. The length does not count these bytes.

use super::{Frame, Progress, Unfit};

/// The number of bytes of the length.
const HEAD: usize = 4;

/// A framer for messages with their length in front. It looks only at the bytes of the length, so it has no state.
#[derive(Debug, Clone)]
pub struct U32beFramer {
    longest: usize,
}

impl U32beFramer {
    /// Returns a framer for messages of at most `longest` bytes, not counting those of the length.
    pub fn new(longest: usize) -> Self {
        U32beFramer { longest }
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        let Some(head) = bytes.first_chunk::<HEAD>() else {
            return Progress::NeedMore;
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > self.longest {
            return Progress::TooLong;
        }
        let end = HEAD + length;
        if bytes.len() < end {
            return Progress::NeedMore;
        }
        Progress::Frame(Frame {
            length: end,
            payload: HEAD..end,
        })
    }
}

/// Appends a message with its length in front.
///
/// # Errors
/// The message is longer than four bytes of length can express.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
    let length = u32::try_from(payload.len()).map_err(|_| Unfit("is longer than four bytes of length can say"))?;
    wire.extend_from_slice(&length.to_be_bytes());
    wire.extend_from_slice(payload);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::Framer;
    use super::super::testing::check_cuts;
    use super::*;
    use proptest::prelude::*;

    fn first(longest: usize, bytes: &[u8]) -> Progress {
        U32beFramer::new(longest).advance(bytes)
    }

    #[test]
    fn the_length_gives_the_end_of_the_message() {
        let frame = |length: usize| {
            Progress::Frame(Frame {
                length,
                payload: 4..length,
            })
        };
        assert_eq!(first(3, b"\0\0\0\x03abcrest"), frame(7));
        assert_eq!(first(3, b"\0\0\0\0"), frame(4));
        assert_eq!(first(3, b"\0\0\0\x03ab"), Progress::NeedMore);
        assert_eq!(first(3, b"\0\0\0"), Progress::NeedMore);
        assert_eq!(first(1000, &[&b"\0\0\x01\x02"[..], &[b'x'; 258]].concat()), frame(262));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_length() {
        assert_eq!(first(3, b"\0\0\0\x04"), Progress::TooLong);
        // Text that is read as a length.
        assert_eq!(first(1 << 30, b"GET /"), Progress::TooLong);
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            messages in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..9), 0..6),
            torn in 0usize..4,
            cuts in proptest::collection::vec(1usize..7, 0..60),
            longest in 0usize..9,
        ) {
            let mut stream = Vec::new();
            messages.iter().for_each(|message| encode(message, &mut stream).unwrap());
            stream.truncate(stream.len().saturating_sub(torn));
            check_cuts(&Framer::U32be(U32beFramer::new(longest)), &stream, &cuts);
        }
    }
}
