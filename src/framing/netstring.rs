//! Netstrings: the length in decimal digits, a colon, the bytes, a comma. `5:hello,` is `hello`, and `0:,` is empty.
//! (D. J. Bernstein, <https://cr.yp.to/proto/netstrings.txt>; a length has no leading zeros.)

use std::io::Write;

use super::{Frame, Progress};

/// A framer for netstrings.
#[derive(Debug, Clone)]
pub struct NetstringFramer {
    longest: usize,
    state: State,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// The length has this number of digits so far, and this value.
    Length { digits: usize, value: usize },
    /// The message begins at `start` and has `length` bytes.
    Message { start: usize, length: usize },
}

const AT_THE_START: State = State::Length { digits: 0, value: 0 };

impl NetstringFramer {
    /// Returns a framer for messages of at most `longest` bytes, not counting length and comma.
    pub fn new(longest: usize) -> Self {
        NetstringFramer {
            longest,
            state: AT_THE_START,
        }
    }

    /// See [`Framer::advance`](super::Framer::advance).
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        while let State::Length { digits, value } = self.state {
            self.state = match bytes.get(digits).copied() {
                None => return Progress::NeedMore,
                Some(b':') if digits > 0 => State::Message {
                    start: digits + 1,
                    length: value,
                },
                Some(b'0'..=b'9') if digits > 0 && value == 0 => {
                    return Progress::Malformed("the length of a netstring has no leading zeros");
                }
                Some(digit @ b'0'..=b'9') => {
                    let value = value.saturating_mul(10).saturating_add(usize::from(digit - b'0'));
                    if value > self.longest {
                        return Progress::TooLong;
                    }
                    State::Length {
                        digits: digits + 1,
                        value,
                    }
                }
                Some(_) => return Progress::Malformed("a netstring begins with its length in digits and a colon"),
            };
        }
        self.message(bytes)
    }

    fn message(&mut self, bytes: &[u8]) -> Progress {
        let State::Message { start, length } = self.state else {
            return Progress::NeedMore;
        };
        let end = start.saturating_add(length);
        match bytes.get(end) {
            None => Progress::NeedMore,
            Some(b',') => {
                self.state = AT_THE_START;
                Progress::Frame(Frame {
                    length: end + 1,
                    payload: start..end,
                })
            }
            Some(_) => Progress::Malformed("a netstring ends with a comma where its length says"),
        }
    }
}

/// Appends a message as a netstring.
pub fn encode(payload: &[u8], wire: &mut Vec<u8>) {
    begin(payload.len(), wire);
    wire.extend_from_slice(payload);
    wire.extend_from_slice(END);
}

/// Appends the beginning of a netstring of `length` bytes. The caller must append these bytes and then [`END`].
pub fn begin(length: usize, wire: &mut Vec<u8>) {
    // Writing to a vector cannot fail.
    let _ = write!(wire, "{length}:");
}

/// The last byte of a netstring.
pub const END: &[u8] = b",";

#[cfg(test)]
mod tests {
    use super::super::Framer;
    use super::super::testing::check_cuts;
    use super::*;
    use proptest::prelude::*;

    fn first(longest: usize, bytes: &[u8]) -> Progress {
        NetstringFramer::new(longest).advance(bytes)
    }

    fn frame(length: usize, payload: std::ops::Range<usize>) -> Progress {
        Progress::Frame(Frame { length, payload })
    }

    #[test]
    fn the_length_gives_the_end_of_the_message() {
        assert_eq!(first(5, b"5:hello,rest"), frame(8, 2..7));
        assert_eq!(first(5, b"0:,"), frame(3, 2..2));
        assert_eq!(first(12, b"12:a,\n\0bcdefghi,"), frame(16, 3..15));
        for begun in [&b""[..], b"5", b"5:", b"5:hello"] {
            assert_eq!(first(5, begun), Progress::NeedMore, "{begun:?}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_by_its_length() {
        assert_eq!(first(5, b"6"), Progress::TooLong);
        assert_eq!(first(10, b"11"), Progress::TooLong);
        assert_eq!(
            first(usize::MAX - 1, b"99999999999999999999999999999999"),
            Progress::TooLong
        );
    }

    #[test]
    fn a_malformed_netstring_is_refused_at_its_first_wrong_byte() {
        for wrong in [
            &b":,"[..],
            b"x",
            b"5;",
            b"-1:",
            b" 5:",
            b"05:",
            b"00:,",
            b"1\n",
            b"5:hello;",
            b"2:abc,",
        ] {
            assert!(matches!(first(9, wrong), Progress::Malformed(_)), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_the_stream_gives_the_same_frames(
            stream in "(([0-3]:[a,:]{0,3},)|[0-9:,a]){0,12}",
            cuts in proptest::collection::vec(1usize..7, 0..60),
            longest in 0usize..20,
        ) {
            check_cuts(&Framer::Netstring(NetstringFramer::new(longest)), stream.as_bytes(), &cuts);
        }
    }
}
