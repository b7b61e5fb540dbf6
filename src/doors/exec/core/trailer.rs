//! Reads the bytes behind the end of the input: signals for the program, each a pair of netstrings.
//!
//! ```text
//! 6:signal,3:INT,   any number of times
//! ```
//!
//! sockexec has no such pairs, and ignores all bytes in this place. So pairs of another type are skipped, and after
//! bytes that are no netstrings everything is ignored, without harm to the program.

use crate::framing::netstring_pieces::{NetstringPieces, Piece};
use crate::framing::signals::{PASSED_ON, name_of};

/// The type of a pair that holds a signal.
const KIND: &[u8] = b"signal";
/// The longest netstring that is looked into. A longer one is skipped.
const SHOWN: usize = 8;
/// The longest netstring that is skipped. A longer one is noise, not a length.
const LONGEST: u64 = 1 << 40;

/// The reader of the bytes behind the end of the input.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trailer {
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The part of a netstring that was read and is looked into.
    String {
        pieces: NetstringPieces,
        begun: Vec<u8>,
        item: Item,
    },
    /// All bytes that follow are ignored.
    Deaf,
}

/// The place of a netstring in its pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Item {
    Kind,
    /// The data behind [`KIND`].
    Name,
    /// The data behind another type.
    Other,
}

impl Default for State {
    fn default() -> Self {
        State::String {
            pieces: NetstringPieces::default(),
            begun: Vec::new(),
            item: Item::Kind,
        }
    }
}

impl Trailer {
    /// Reads up to the next signal that a program may be sent, one of [`PASSED_ON`]. Returns the number of bytes taken,
    /// and the signal; `None` if all bytes are read.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Option<i32>) {
        let mut at = 0;
        while let State::String { pieces, begun, item } = &mut self.state {
            let rest = bytes.get(at..).unwrap_or_default();
            let (taken, piece) = pieces.advance(rest, LONGEST);
            at += taken;
            match piece {
                Piece::NeedMore => return (at, None),
                Piece::Data(range) => {
                    let shown = range.len().min(SHOWN.saturating_sub(begun.len()));
                    begun.extend(rest.get(range).unwrap_or_default().iter().take(shown));
                }
                Piece::End => {
                    let signal = match item {
                        Item::Name => PASSED_ON.into_iter().find(|it| is_name_of(begun, *it)),
                        Item::Kind | Item::Other => None,
                    };
                    *item = match item {
                        Item::Kind if begun == KIND => Item::Name,
                        Item::Kind => Item::Other,
                        Item::Name | Item::Other => Item::Kind,
                    };
                    begun.clear();
                    if signal.is_some() {
                        return (at, signal);
                    }
                }
                Piece::TooLong | Piece::Malformed(_) => self.state = State::Deaf,
            }
        }
        (bytes.len(), None)
    }
}

fn is_name_of(name: &[u8], signal: i32) -> bool {
    name_of(signal).is_some_and(|known| known.as_bytes() == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<i32> {
        let (mut trailer, mut signals) = (Trailer::default(), Vec::new());
        for mut rest in pieces {
            loop {
                let (taken, signal) = trailer.advance(rest);
                rest = &rest[taken..];
                match signal {
                    Some(signal) => signals.push(signal),
                    None => break,
                }
            }
            assert!(rest.is_empty(), "what is read is taken");
        }
        signals
    }

    #[test]
    fn signals_are_read_at_every_split_point() {
        let stream = b"6:signal,3:INT,6:signal,4:TERM,5:hello,6:signal,0:,0:,6:signal,4:USR1,6:signal,3:INT,";
        let expected = [2, 15, 10, 2];
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(read([left, right]), expected, "{cut}");
        }
        assert_eq!(read(stream.chunks(1)), expected);
    }

    #[test]
    fn whatever_else_stands_there_is_passed_by() {
        let wrong: [&[u8]; 10] = [
            b"whatever follows 6:signal,3:INT,",
            b"6:signal,4:KILL,",
            b"6:signal,6:SIGINT,",
            b"6:signal,1:2,",
            b"6:signal,3:int,",
            b"7:signals,3:INT,",
            b"8:signal\0\0,3:INT,",
            b"6:signal;3:INT,",
            b"6:signal,9:INTERRUPT,",
            b"99999999999999:x6:signal,3:INT,",
        ];
        for stream in wrong {
            assert_eq!(read([stream]), Vec::<i32>::new(), "{}", String::from_utf8_lossy(stream));
        }
        let behind_others = b"5:resize,6:signal,3:INT,";
        assert_eq!(
            read([&behind_others[..]]),
            Vec::<i32>::new(),
            "this is the data of a pair"
        );
        assert_eq!(read([&b"1000:"[..], &[b'x'; 1000], b",0:,6:signal,3:HUP,"]), [1]);
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in "(6:signal,|3:INT,|4:TERM,|4:KILL,|2:ab,|[0-9:,a]?){0,12}",
            cuts in prop::collection::vec(1usize..7, 1..40),
        ) {
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), stream.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = others;
            }
            prop_assert_eq!(read(pieces), read([stream.as_bytes()]));
        }
    }
}
