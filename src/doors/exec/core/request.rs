//! Reads a request in the protocol of sockexec: netstrings, each the next thing of a fixed order.
//!
//! ```text
//! 1:2,   5:uname,2:-a,   5:hello,6:world!,   0:,
//! count  that many       input, any number   the end of the input
//! ```
//!
//! Anything behind that is read by [`trailer`](super::trailer).
//!
//! Arguments are collected, under a limit. Input is passed on as it comes, so a string of it may be longer than any
//! buffer. No byte is looked at twice, and only the arguments are kept.

use std::fmt;
use std::ops::Range;

use super::arguments::Arguments;
use super::trailer::Trailer;
use crate::framing::netstring_pieces::{NetstringPieces, Piece};

/// The longest string of input. Input is streamed, so its length costs nothing; a longer one is noise, not a length.
pub const LONGEST_INPUT: u64 = 1 << 40;
/// The bytes that are counted for each argument beside its own: a NUL and a pointer, as the kernel counts (execve(2),
/// "Limits on size of arguments and environment"). Without the pointer a request of empty arguments would take many
/// times its length in memory, and then be refused by the kernel.
pub const PER_ARGUMENT: usize = 1 + 8;
/// The digits of the longest count.
const LONGEST_COUNT: u64 = 10;

/// The next thing that was found in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All bytes are read, and nothing further was found.
    NeedMore,
    /// The arguments are complete, at least one; the first is not empty.
    Arguments(Arguments),
    /// Input, at this range of the bytes. Never empty.
    Input(Range<usize>),
    /// The input has ended.
    InputEnd,
    /// A signal for the program, by its number; one of [`PASSED_ON`](crate::framing::signals::PASSED_ON), and only
    /// behind the end of the input.
    Signal(i32),
    /// The bytes are no valid request, whatever follows.
    Wrong(Wrong),
}

/// The reason for which bytes are no valid request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// The syntax of the protocol is violated.
    Malformed(&'static str),
    /// The number of arguments is not valid.
    BadCount,
    /// The arguments are more, or longer, than allowed.
    ArgumentsTooLong,
    /// A string of input is longer than [`LONGEST_INPUT`].
    InputTooLong,
    /// An argument contains a NUL.
    Nul,
    /// The program has no name.
    NoProgram,
    /// The client has ended its side in the middle of the request.
    Unfinished,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Malformed(why) => why,
            Wrong::BadCount => "the number of arguments is to be a decimal number from 1",
            Wrong::ArgumentsTooLong => "the arguments are longer than the server allows (--max-arguments)",
            Wrong::InputTooLong => "a string of input is longer than 1 TiB",
            Wrong::Nul => "an argument contains a NUL, which no program can be given",
            Wrong::NoProgram => "the first argument, the program's name, is empty",
            Wrong::Unfinished => "the request ends in the middle",
        })
    }
}

/// The state of a request when its client has ended its side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// No byte was read.
    Nothing,
    /// The end completes the arguments, and there is no input.
    Arguments(Arguments),
    /// The request is cut off.
    Unfinished,
    /// The input has ended, explicitly or not.
    Clean,
}

/// Reads one request.
#[derive(Debug, Clone)]
pub struct Reader {
    /// The most bytes of all arguments, [`PER_ARGUMENT`] more counted for each.
    longest: usize,
    strings: NetstringPieces,
    state: State,
}

/// The meaning of the present string, or of the bytes behind all strings.
#[derive(Debug, Clone)]
enum State {
    /// The number of arguments, which has this value so far; `None` before its first digit.
    Count(Option<u64>),
    /// An argument.
    Argument(Wanted),
    /// Input, if the string is not empty.
    Input { is_empty: bool },
    /// The input has ended.
    Ended(Trailer),
    /// The bytes were no valid request.
    Refused(Wrong),
}

/// The arguments that were read so far. The last one may be growing.
#[derive(Debug, Clone)]
struct Wanted {
    count: usize,
    /// The most bytes of the rest.
    room: usize,
    given: Arguments,
}

impl Reader {
    /// Creates a reader for arguments of at most `longest` bytes altogether, with [`PER_ARGUMENT`] more counted for
    /// each.
    pub fn new(longest: usize) -> Self {
        Reader {
            longest,
            strings: NetstringPieces::default(),
            state: State::Count(None),
        }
    }

    /// Reads up to the next thing that is found. Returns the number of bytes taken. Must be called again with the rest
    /// until it returns [`Found::NeedMore`], or [`Found::Wrong`] for good.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let longest = match &mut self.state {
                State::Count(_) => LONGEST_COUNT,
                State::Argument(wanted) => wanted.room as u64,
                State::Input { .. } => LONGEST_INPUT,
                State::Ended(trailer) => {
                    let (taken, signal) = trailer.advance(rest);
                    return (at + taken, signal.map_or(Found::NeedMore, Found::Signal));
                }
                State::Refused(wrong) => return (at, Found::Wrong(*wrong)),
            };
            let (taken, piece) = self.strings.advance(rest, longest);
            let found = match piece {
                // A count without digits is refused before its comma is read.
                Piece::NeedMore | Piece::Malformed(_) if self.is_empty_count() => self.refuse(Wrong::BadCount),
                Piece::NeedMore => Some(Found::NeedMore),
                Piece::Data(range) => {
                    let part = rest.get(range.clone()).unwrap_or_default();
                    self.data(part, at + range.start..at + range.end)
                }
                Piece::End => self.end_string(),
                Piece::TooLong => self.refuse_length(),
                Piece::Malformed(why) => self.refuse(Wrong::Malformed(why)),
            };
            at += taken;
            if let Some(found) = found {
                return (at, found);
            }
        }
    }

    /// Returns true if the end of the input was read.
    pub fn is_complete(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// The state of the request when the client has ended its side.
    pub fn end(&self) -> End {
        match self.state {
            State::Ended(_) => End::Clean,
            State::Input { .. } if self.strings.is_between() => End::Clean,
            State::Count(_) if self.strings.is_between() => End::Nothing,
            State::Count(_) | State::Argument(_) | State::Input { .. } | State::Refused(_) => End::Unfinished,
        }
    }

    /// Returns true if the present string is to be a count and turns out to be empty.
    fn is_empty_count(&self) -> bool {
        matches!(self.state, State::Count(None)) && self.strings.is_behind_data()
    }

    /// Takes a part of the present string. `range` is its place in the bytes from the client.
    fn data(&mut self, part: &[u8], range: Range<usize>) -> Option<Found> {
        match &mut self.state {
            State::Count(_) if !part.iter().all(u8::is_ascii_digit) => return self.refuse(Wrong::BadCount),
            State::Argument(_) if memchr::memchr(0, part).is_some() => return self.refuse(Wrong::Nul),
            State::Count(number) => {
                let value = |number: u64, byte: &u8| number * 10 + u64::from(byte - b'0');
                *number = Some(part.iter().fold(number.unwrap_or(0), value));
            }
            State::Argument(wanted) => {
                wanted.room = wanted.room.saturating_sub(part.len());
                wanted.given.extend(part);
            }
            State::Input { is_empty } => {
                *is_empty = false;
                return Some(Found::Input(range));
            }
            // No string is read any more.
            State::Ended(_) | State::Refused(_) => {}
        }
        None
    }

    /// Ends the present string, whose comma was read.
    fn end_string(&mut self) -> Option<Found> {
        match std::mem::replace(&mut self.state, State::Input { is_empty: true }) {
            State::Count(number) => self.begin_arguments(number.unwrap_or(0)),
            State::Argument(mut wanted) => {
                wanted.given.end_word();
                if wanted.given.given() < wanted.count {
                    self.state = State::Argument(wanted);
                    return None;
                }
                if wanted.given.words().next().is_none_or(<[u8]>::is_empty) {
                    return self.refuse(Wrong::NoProgram);
                }
                Some(Found::Arguments(wanted.given.complete()))
            }
            State::Input { is_empty: false } => None,
            State::Input { is_empty: true } => {
                self.state = State::Ended(Trailer::default());
                Some(Found::InputEnd)
            }
            // No string is read any more.
            over @ (State::Ended(_) | State::Refused(_)) => {
                self.state = over;
                None
            }
        }
    }

    fn begin_arguments(&mut self, count: u64) -> Option<Found> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count == 0 {
            return self.refuse(Wrong::BadCount);
        }
        let Some(room) = self.longest.checked_sub(count.saturating_mul(PER_ARGUMENT)) else {
            return self.refuse(Wrong::ArgumentsTooLong);
        };
        let given = Arguments::default();
        self.state = State::Argument(Wanted { count, room, given });
        None
    }

    /// Refuses the request for the length of the present string.
    fn refuse_length(&mut self) -> Option<Found> {
        self.refuse(match self.state {
            State::Count(_) => Wrong::BadCount,
            State::Argument(_) => Wrong::ArgumentsTooLong,
            State::Input { .. } | State::Ended(_) | State::Refused(_) => Wrong::InputTooLong,
        })
    }

    fn refuse(&mut self, wrong: Wrong) -> Option<Found> {
        self.state = State::Refused(wrong);
        Some(Found::Wrong(wrong))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// For two arguments of 7 bytes.
    const ROOM: usize = 7 + 2 * PER_ARGUMENT;

    /// Everything that a request comes to, however it was cut: its input joined.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        arguments: Option<Vec<Vec<u8>>>,
        input: Vec<u8>,
        ended: bool,
        signals: Vec<i32>,
        wrong: Option<Wrong>,
    }

    fn read<'a>(longest: usize, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Read, End) {
        let (mut reader, mut read) = (Reader::new(longest), Read::default());
        'pieces: for piece in pieces {
            let mut at = 0;
            loop {
                let (taken, found) = reader.advance(&piece[at..]);
                let rest = &piece[at..];
                at += taken;
                match found {
                    Found::NeedMore => break,
                    Found::Arguments(arguments) => {
                        let words = arguments.words().map(<[u8]>::to_vec).collect();
                        assert_eq!(read.arguments.replace(words), None, "twice");
                    }
                    Found::Input(range) => read.input.extend_from_slice(&rest[range]),
                    Found::InputEnd => assert!(!std::mem::replace(&mut read.ended, true), "ended twice"),
                    Found::Signal(signal) => {
                        assert!(read.ended, "behind the end of the input");
                        read.signals.push(signal);
                    }
                    Found::Wrong(wrong) => {
                        read.wrong = Some(wrong);
                        break 'pieces;
                    }
                }
            }
            assert_eq!(at, piece.len(), "what is read is taken");
        }
        (read, reader.end())
    }

    fn words(words: &[&str]) -> Option<Vec<Vec<u8>>> {
        Some(words.iter().map(|word| word.as_bytes().to_vec()).collect())
    }

    #[test]
    fn a_request_is_read_at_every_split_point() {
        let request = b"1:3,5:uname,0:,2:-a,5:hello,12:world, 0:,!!,0:,6:signal,3:INT,6:signal,4:TERM,whatever follows";
        let whole = Read {
            arguments: words(&["uname", "", "-a"]),
            input: b"helloworld, 0:,!!".to_vec(),
            ended: true,
            signals: vec![2, 15],
            wrong: None,
        };
        for cut in 0..=request.len() {
            let (left, right) = request.split_at(cut);
            assert_eq!(
                read(100, [left, right]),
                (Read { ..whole_of(&whole) }, End::Clean),
                "{cut}"
            );
        }
        let bytes = request.chunks(1);
        assert_eq!(read(100, bytes), (whole_of(&whole), End::Clean));
    }

    fn whole_of(read: &Read) -> Read {
        Read {
            arguments: read.arguments.clone(),
            input: read.input.clone(),
            ended: read.ended,
            signals: read.signals.clone(),
            wrong: read.wrong,
        }
    }

    #[test]
    fn a_malformed_request_is_refused_at_its_first_wrong_byte() {
        let malformed =
            |text: &[u8]| matches!(text, wrong if matches!(read(ROOM, [wrong]).0.wrong, Some(Wrong::Malformed(_))));
        for text in [
            &b"x"[..],
            b":",
            b" 1:1,",
            b"-1:",
            b"01:1,",
            b"1:1;",
            b"1:1,3:catx",
            b"1:1,3:cat,x",
            b"1:1,3:cat,5:hello;",
        ] {
            assert!(malformed(text), "{text:?}");
        }
        for (text, wrong) in [
            (&b"1:0,"[..], Wrong::BadCount),
            (b"0:,", Wrong::BadCount),
            (b"1:x,", Wrong::BadCount),
            (b"2:-1,", Wrong::BadCount),
            (b"11", Wrong::BadCount),
            (b"2:10,", Wrong::ArgumentsTooLong),
            (b"10:4294967296,", Wrong::ArgumentsTooLong),
            (b"1:1,17", Wrong::ArgumentsTooLong),
            (b"1:2,4:abcd,4", Wrong::ArgumentsTooLong),
            (b"1:1,99999999999999999999999999", Wrong::ArgumentsTooLong),
            (b"1:1,3:cat,1099511627777:", Wrong::InputTooLong),
            (b"1:2,3:cat,3:a\0b,", Wrong::Nul),
            (b"1:2,0:,1:a,", Wrong::NoProgram),
        ] {
            assert_eq!(read(ROOM, [text]).0.wrong, Some(wrong), "{text:?}");
        }
        assert_eq!(
            read(ROOM, [&b"1:2,4:abcd,3:efg,"[..]]).0.arguments,
            words(&["abcd", "efg"])
        );
    }

    #[test]
    fn the_end_of_the_stream_is_the_end_of_the_input_only_between_strings() {
        let ends: [(&[u8], End); 9] = [
            (b"", End::Nothing),
            (b"1", End::Unfinished),
            (b"1:1,", End::Unfinished),
            (b"1:1,3:cat", End::Unfinished),
            (b"1:1,3:cat,", End::Clean),
            (b"1:1,3:cat,2:a", End::Unfinished),
            (b"1:1,3:cat,2:ab", End::Unfinished),
            (b"1:1,3:cat,2:ab,", End::Clean),
            (b"1:1,3:cat,2:ab,0:,", End::Clean),
        ];
        for (text, end) in ends {
            assert_eq!(read(ROOM, [text]).1, end, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            stream in "1:[0-3],([0-3]:[a,:]{0,3},|[0-9:,a]|0:,6:signal,3:INT,){0,12}",
            cuts in proptest::collection::vec(1usize..7, 1..40),
            longest in 0usize..12 + 3 * PER_ARGUMENT,
        ) {
            let stream = stream.as_bytes();
            let mut pieces = Vec::new();
            let (mut rest, mut cuts) = (stream, cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = others;
            }
            let (whole, end) = read(longest, [stream]);
            let room: usize = whole.arguments.iter().flatten().map(|argument| argument.len() + PER_ARGUMENT).sum();
            prop_assert!(room <= longest, "no longer than allowed");
            prop_assert_eq!(read(longest, pieces), (whole, end));
        }
    }
}
