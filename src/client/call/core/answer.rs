//! The answer of an exec door: pairs of netstrings, a type and its data, of which the last pair is the end.
//!
//! ```text
//! 6:stdout,5:hello,   6:stderr,4:oops,   8:exitcode,1:0,   or   7:termsig,4:KILL,
//! ```
//!
//! Output is passed on piece by piece, so a string of output may be longer than any buffer. No byte is read twice, and
//! only the bytes of a type or an end are kept.

use std::fmt;
use std::ops::Range;

use crate::framing::netstring_pieces::{NetstringPieces, Piece};
use crate::framing::signals::number_of;

/// The longest name of a type, in bytes.
const LONGEST_TYPE: u64 = 16;
/// The longest data of an end, in bytes.
const LONGEST_END: u64 = 32;
/// The longest string of output, in bytes. It costs no memory; a larger number is noise, not a length.
const LONGEST_OUTPUT: u64 = 1 << 40;
/// The highest number of a signal in Linux.
const LAST_SIGNAL: u8 = 64;

/// One of the two outputs of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The end of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It exited with this status.
    Exit(u8),
    /// It was killed by a signal.
    Killed {
        /// The server's word for the signal: a name without SIG, or a number.
        name: String,
        /// The number of the signal, 1 to 64; `None` for an unknown name.
        number: Option<u8>,
    },
}

/// The next thing found in the bytes at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All bytes are read, and more are needed.
    NeedMore,
    /// Output, in this range of the bytes. Never empty.
    Output(Output, Range<usize>),
    /// The end of the program. Bytes after it are ignored.
    End(End),
    /// The bytes are no answer, whatever follows.
    Wrong(Wrong),
}

/// The reason why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// They are not netstrings.
    Malformed(&'static str),
    /// A string is longer than its type allows.
    TooLong,
    /// The type of a pair is unknown.
    Type,
    /// The status is no number from 0 to 255.
    Status,
    /// The signal has neither name nor number.
    Signal,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Wrong::Malformed(why) => why,
            Wrong::TooLong => "a string is longer than anything of its kind",
            Wrong::Type => "a pair is neither stdout nor stderr, exitcode nor termsig",
            Wrong::Status => "the exit code is no number from 0 to 255",
            Wrong::Signal => "the signal has neither name nor number",
        })
    }
}

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct Reader {
    pieces: NetstringPieces,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Reading a type; its bytes so far.
    Type(Vec<u8>),
    Output(Output),
    /// Reading the data of an end; its bytes so far.
    End(Kind, Vec<u8>),
    /// The end has been read.
    Over,
    Refused(Wrong),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    ExitCode,
    TermSig,
}

impl Default for Reader {
    fn default() -> Self {
        Reader {
            pieces: NetstringPieces::default(),
            state: State::Type(Vec::new()),
        }
    }
}

impl Reader {
    /// Reads up to the next finding and returns it with the number of bytes read. Must be called again with the
    /// remaining bytes until it returns [`Found::NeedMore`]. [`Found::Wrong`] is final.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let longest = match &self.state {
                State::Type(_) => LONGEST_TYPE,
                State::Output(_) => LONGEST_OUTPUT,
                State::End(..) => LONGEST_END,
                State::Over => return (bytes.len(), Found::NeedMore),
                State::Refused(wrong) => return (at, Found::Wrong(*wrong)),
            };
            let (taken, piece) = self.pieces.advance(rest, longest);
            match piece {
                Piece::NeedMore => return (at + taken, Found::NeedMore),
                Piece::Data(range) => match &mut self.state {
                    State::Type(come) | State::End(_, come) => {
                        come.extend_from_slice(rest.get(range).unwrap_or_default());
                    }
                    State::Output(output) => {
                        let place = at + range.start..at + range.end;
                        return (at + taken, Found::Output(*output, place));
                    }
                    State::Over | State::Refused(_) => {}
                },
                Piece::End => {
                    if let Some(found) = self.complete() {
                        return (at + taken, found);
                    }
                }
                Piece::TooLong => self.state = State::Refused(Wrong::TooLong),
                Piece::Malformed(why) => self.state = State::Refused(Wrong::Malformed(why)),
            }
            at += taken;
        }
    }

    /// Processes the end of the present string.
    fn complete(&mut self) -> Option<Found> {
        let (state, found) = match std::mem::replace(&mut self.state, State::Type(Vec::new())) {
            State::Type(name) => match name.as_slice() {
                b"stdout" => (State::Output(Output::Stdout), None),
                b"stderr" => (State::Output(Output::Stderr), None),
                b"exitcode" => (State::End(Kind::ExitCode, Vec::new()), None),
                b"termsig" => (State::End(Kind::TermSig, Vec::new()), None),
                _ => (State::Refused(Wrong::Type), None),
            },
            State::Output(_) => (State::Type(Vec::new()), None),
            State::End(kind, said) => match end(kind, &said) {
                Ok(end) => (State::Over, Some(Found::End(end))),
                Err(wrong) => (State::Refused(wrong), None),
            },
            State::Over => (State::Over, None),
            State::Refused(wrong) => (State::Refused(wrong), None),
        };
        self.state = state;
        found
    }
}

fn end(kind: Kind, said: &[u8]) -> Result<End, Wrong> {
    let text = std::str::from_utf8(said).ok();
    let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u8> = digits.and_then(|digits| digits.parse().ok());
    match kind {
        Kind::ExitCode => number.map(End::Exit).ok_or(Wrong::Status),
        Kind::TermSig => {
            let name = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let name = name.ok_or(Wrong::Signal)?.to_owned();
            let named = number_of(said).and_then(|number| u8::try_from(number).ok());
            let number = number.or(named).filter(|number| (1..=LAST_SIGNAL).contains(number));
            Ok(End::Killed { name, number })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The findings of a whole answer, however it was cut.
    #[derive(Debug, Default, PartialEq, Eq)]
    struct Read {
        stdout: Vec<u8>,
        stderr: Vec<u8>,
        end: Option<End>,
        wrong: Option<Wrong>,
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let (mut reader, mut read) = (Reader::default(), Read::default());
        for mut rest in pieces {
            loop {
                let (taken, found) = reader.advance(rest);
                match found {
                    Found::NeedMore => break assert_eq!(taken, rest.len(), "what is read is taken"),
                    Found::Output(Output::Stdout, place) => read.stdout.extend_from_slice(&rest[place]),
                    Found::Output(Output::Stderr, place) => read.stderr.extend_from_slice(&rest[place]),
                    Found::End(end) => assert_eq!(read.end.replace(end), None, "one end"),
                    Found::Wrong(wrong) => {
                        read.wrong = Some(wrong);
                        return read;
                    }
                }
                rest = &rest[taken..];
            }
        }
        read
    }

    #[test]
    fn an_answer_is_read_at_every_split_point() {
        let answer = b"6:stdout,5:hello,6:stderr,7:a,\n0:,b,6:stdout,0:,6:stdout,3:end,8:exitcode,1:7,6:stdout,4:late,";
        for cut in 0..=answer.len() {
            let (left, right) = answer.split_at(cut);
            let expected = Read {
                stdout: b"helloend".to_vec(),
                stderr: b"a,\n0:,b".to_vec(),
                end: Some(End::Exit(7)),
                wrong: None,
            };
            assert_eq!(read([left, right]), expected, "{cut}");
        }
    }

    #[test]
    fn a_signal_is_told_by_its_name_by_its_number_or_by_a_name_that_nobody_knows() {
        for (said, number) in [
            ("4:KILL", Some(9)),
            ("3:CLD", Some(17)),
            ("1:9", Some(9)),
            ("2:34", Some(34)),
            ("1:0", None),
            ("2:65", None),
            ("20:99999999999999999999", None),
            ("7:SIGKILL", None),
            ("6:FUTURE", None),
        ] {
            let name = said.split_once(':').unwrap().1.to_owned();
            let end = read([format!("7:termsig,{said},").as_bytes()]).end;
            assert_eq!(end, Some(End::Killed { name, number }), "{said}");
        }
    }

    #[test]
    fn what_is_none_is_refused_at_the_first_wrong_byte() {
        for (answer, wrong) in [
            ("6:stdin", None),
            ("5:stdin,", Some(Wrong::Type)),
            ("0:,", Some(Wrong::Type)),
            ("17", Some(Wrong::TooLong)),
            ("6:stdout,1099511627777", Some(Wrong::TooLong)),
            ("8:exitcode,33", Some(Wrong::TooLong)),
            ("8:exitcode,0:,", Some(Wrong::Status)),
            ("8:exitcode,3:256,", Some(Wrong::Status)),
            ("8:exitcode,2:-1,", Some(Wrong::Status)),
            ("8:exitcode,2:+1,", Some(Wrong::Status)),
            ("7:termsig,0:,", Some(Wrong::Signal)),
            ("7:termsig,3:A B,", Some(Wrong::Signal)),
            ("7:termsig,2:\u{e9},", Some(Wrong::Signal)),
        ] {
            assert_eq!(read([answer.as_bytes()]).wrong, wrong, "{answer}");
        }
        for answer in ["HTTP/1.1 400 Bad Request", "6:stdout;", "6:stdout,2:abc,", "06:"] {
            let read = read([answer.as_bytes()]);
            assert!(matches!(read.wrong, Some(Wrong::Malformed(_))), "{answer}: {read:?}");
        }
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_matter(
            answer in "(6:stdout,|6:stderr,|2:ab,|8:exitcode,|7:termsig,|1:1,|[0-9:,a]?){0,12}",
            cuts in prop::collection::vec(1usize..7, 1..40),
        ) {
            let (mut pieces, mut rest, mut cuts) = (Vec::new(), answer.as_bytes(), cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, others) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                pieces.push(piece);
                rest = others;
            }
            prop_assert_eq!(read(pieces), read([answer.as_bytes()]));
        }
    }
}
