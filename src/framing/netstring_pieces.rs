//! Netstrings in pieces: the bytes of a netstring are returned before its end has arrived, so it may be longer than any
//! buffer.
//!
//! For streams in which a netstring is not a message but a piece of something longer. [`netstring`](super::netstring)
//! describes their syntax.

use std::ops::Range;

/// A reader of netstrings. It looks at each byte once and keeps none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NetstringPieces {
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// The length has this number of digits so far, and this value.
    Length { digits: u32, value: u64 },
    /// This number of bytes of data is still to come.
    Data { left: u64 },
    /// The comma is still to come.
    Comma,
}

impl Default for State {
    fn default() -> Self {
        State::Length { digits: 0, value: 0 }
    }
}

/// The result of reading some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// All bytes are read, and no piece is complete.
    NeedMore,
    /// A part of the present netstring, as a range of the given bytes. Never empty.
    Data(Range<usize>),
    /// The present netstring has ended.
    End,
    /// The present netstring is longer than allowed.
    TooLong,
    /// The bytes are no netstring, for this reason.
    Malformed(&'static str),
}

impl NetstringPieces {
    /// Returns true before the first byte of a netstring.
    #[must_use]
    pub fn is_between(&self) -> bool {
        self.state == State::default()
    }

    /// Returns true if all data of the present netstring was read, and its comma is still to come.
    #[must_use]
    pub fn is_behind_data(&self) -> bool {
        self.state == State::Comma
    }

    /// Reads up to the next piece, and returns the number of bytes that were read and the piece. Must be called again
    /// with the remaining bytes until it returns [`Piece::NeedMore`]. The present netstring may have `longest` bytes.
    /// After [`Piece::TooLong`] and [`Piece::Malformed`], whose byte does not count as read, the rest of the stream has
    /// no meaning.
    pub fn advance(&mut self, bytes: &[u8], longest: u64) -> (usize, Piece) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at).copied() {
            self.state = match self.state {
                State::Length { digits, value: 0 } if digits > 0 && byte.is_ascii_digit() => {
                    return (at, Piece::Malformed("the length of a netstring has no leading zeros"));
                }
                State::Length { digits, value } if byte.is_ascii_digit() => {
                    let value = value.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                    if value > longest {
                        return (at, Piece::TooLong);
                    }
                    let digits = digits + 1;
                    State::Length { digits, value }
                }
                State::Length { digits, value: 0 } if digits > 0 && byte == b':' => State::Comma,
                State::Length { digits, value } if digits > 0 && byte == b':' => State::Data { left: value },
                State::Length { .. } => {
                    let why = "a netstring begins with its length in digits and a colon";
                    return (at, Piece::Malformed(why));
                }
                State::Data { left } => {
                    let come = bytes.len() - at;
                    let taken = come.min(usize::try_from(left).unwrap_or(usize::MAX));
                    self.state = match left - taken as u64 {
                        0 => State::Comma,
                        left => State::Data { left },
                    };
                    return (at + taken, Piece::Data(at..at + taken));
                }
                State::Comma if byte == b',' => {
                    self.state = State::default();
                    return (at + 1, Piece::End);
                }
                State::Comma => {
                    let why = "a netstring ends with a comma where its length says";
                    return (at, Piece::Malformed(why));
                }
            };
            at += 1;
        }
        (at, Piece::NeedMore)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::netstring::{NetstringFramer, encode};
    use super::super::{Frame, Progress};
    use super::*;

    /// Returns all whole netstrings of a stream, the bytes of an unfinished one, and the error that ended the reading,
    /// if any.
    fn read<'a>(longest: u64, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, Vec<u8>, Option<Piece>) {
        let (mut reader, mut strings, mut begun) = (NetstringPieces::default(), Vec::new(), Vec::new());
        for bytes in pieces {
            let mut rest = bytes;
            loop {
                let (taken, piece) = reader.advance(rest, longest);
                match piece {
                    Piece::NeedMore => {
                        assert_eq!(taken, rest.len());
                        break;
                    }
                    Piece::Data(range) => {
                        assert!(!range.is_empty());
                        begun.extend_from_slice(&rest[range]);
                    }
                    Piece::End => strings.push(std::mem::take(&mut begun)),
                    wrong => return (strings, begun, Some(wrong)),
                }
                rest = &rest[taken..];
            }
        }
        (strings, begun, None)
    }

    #[test]
    fn data_is_returned_before_the_end_of_the_netstring() {
        let mut reader = NetstringPieces::default();
        assert_eq!(reader.advance(b"5:he", 5), (4, Piece::Data(2..4)));
        assert_eq!(reader.advance(b"llo,0:,", 5), (3, Piece::Data(0..3)));
        assert_eq!(reader.advance(b",0:,", 5), (1, Piece::End));
        assert_eq!(reader.advance(b"0:,", 5), (3, Piece::End));
        assert_eq!(reader.advance(b"", 5), (0, Piece::NeedMore));
        assert_eq!(reader.advance(b"6:", 5), (0, Piece::TooLong));
    }

    proptest! {
        /// The framer of whole netstrings is the oracle.
        #[test]
        fn pieces_and_framer_read_the_same_wherever_the_stream_is_cut(
            stream in "(([0-3]:[a,:]{0,3},)|[0-9:,a]){0,12}",
            cuts in prop::collection::vec(1usize..7, 1..40),
            longest in 0usize..20,
        ) {
            let stream = stream.as_bytes();
            let (mut framer, mut rest, mut expected) = (NetstringFramer::new(longest), stream, Vec::new());
            let wrong = loop {
                match framer.advance(rest) {
                    Progress::Frame(Frame { length, payload }) => {
                        expected.push(rest[payload].to_vec());
                        rest = &rest[length..];
                    }
                    Progress::NeedMore => break None,
                    Progress::TooLong => break Some(Piece::TooLong),
                    Progress::Malformed(why) => break Some(Piece::Malformed(why)),
                }
            };
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), stream, cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = others;
            }
            let (strings, _, found) = read(longest as u64, pieces);
            prop_assert_eq!((&strings, found), (&expected, wrong));
            let mut wire = Vec::new();
            expected.iter().for_each(|string| encode(string, &mut wire));
            prop_assert_eq!(read(longest as u64, [wire.as_slice()]), (expected, Vec::new(), None));
        }
    }
}
