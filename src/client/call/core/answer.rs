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
use crate::framing::tls_alert::is_alert;

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
pub enum ProgramEnd {
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
pub enum Finding {
    /// All bytes are read, and more are needed.
    NeedMore,
    /// Output, in this range of the bytes. Never empty.
    Output(Output, Range<usize>),
    /// The end of the program. Bytes after it are ignored.
    End(ProgramEnd),
    /// The bytes are no answer, whatever follows.
    Invalid(AnswerError),
}

/// The reason why bytes are no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerError {
    /// They are not netstrings.
    Malformed(&'static str),
    /// They are an alert of TLS.
    Tls,
    /// A string is longer than its type allows.
    TooLong,
    /// The type of a pair is unknown.
    Type,
    /// The status is no number from 0 to 255.
    Status,
    /// The signal has neither name nor number.
    Signal,
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AnswerError::Malformed(why) => why,
            AnswerError::Tls => "it speaks TLS; write tls: before its address",
            AnswerError::TooLong => "a string is longer than anything of its kind",
            AnswerError::Type => "a pair is neither stdout nor stderr, exitcode nor termsig",
            AnswerError::Status => "the exit code is no number from 0 to 255",
            AnswerError::Signal => "the signal has neither name nor number",
        })
    }
}

/// Reads one answer.
#[derive(Debug, Clone)]
pub struct AnswerReader {
    pieces: NetstringPieces,
    state: ReaderState,
}

#[derive(Debug, Clone)]
enum ReaderState {
    /// Reading a type; its bytes so far.
    Type(Vec<u8>),
    Output(Output),
    /// Reading the data of an end; its bytes so far.
    End(EndKind, Vec<u8>),
    /// The end has been read.
    Over,
    Invalid(AnswerError),
}

#[derive(Debug, Clone, Copy)]
enum EndKind {
    ExitCode,
    TermSig,
}

impl ReaderState {
    /// Returns the state that follows the type of a pair.
    fn after_type(name: &[u8]) -> ReaderState {
        let types = [
            (&b"stdout"[..], ReaderState::Output(Output::Stdout)),
            (b"stderr", ReaderState::Output(Output::Stderr)),
            (b"exitcode", ReaderState::End(EndKind::ExitCode, Vec::new())),
            (b"termsig", ReaderState::End(EndKind::TermSig, Vec::new())),
        ];
        let found = types.into_iter().find(|(known, _)| *known == name);
        found.map_or(ReaderState::Invalid(AnswerError::Type), |(_, state)| state)
    }
}

impl Default for AnswerReader {
    fn default() -> Self {
        AnswerReader {
            pieces: NetstringPieces::default(),
            state: ReaderState::Type(Vec::new()),
        }
    }
}

impl AnswerReader {
    /// Reads up to the next finding and returns it with the number of bytes read. Must be called again with the
    /// remaining bytes until it returns [`Finding::NeedMore`]. [`Finding::Invalid`] is final.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Finding) {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let longest = match &self.state {
                ReaderState::Type(_) => LONGEST_TYPE,
                ReaderState::Output(_) => LONGEST_OUTPUT,
                ReaderState::End(..) => LONGEST_END,
                ReaderState::Over => return (bytes.len(), Finding::NeedMore),
                ReaderState::Invalid(wrong) => return (at, Finding::Invalid(*wrong)),
            };
            let (taken, piece) = self.pieces.advance(rest, longest);
            match piece {
                Piece::NeedMore => return (at + taken, Finding::NeedMore),
                Piece::Data(range) => match &mut self.state {
                    ReaderState::Type(bytes) | ReaderState::End(_, bytes) => {
                        bytes.extend_from_slice(rest.get(range).unwrap_or_default());
                    }
                    ReaderState::Output(output) => {
                        let place = at + range.start..at + range.end;
                        return (at + taken, Finding::Output(*output, place));
                    }
                    ReaderState::Over | ReaderState::Invalid(_) => {}
                },
                Piece::End => {
                    if let Some(found) = self.end_string() {
                        return (at + taken, found);
                    }
                }
                Piece::TooLong => self.state = ReaderState::Invalid(AnswerError::TooLong),
                Piece::Malformed(_) if is_alert(rest) => self.state = ReaderState::Invalid(AnswerError::Tls),
                Piece::Malformed(why) => self.state = ReaderState::Invalid(AnswerError::Malformed(why)),
            }
            at += taken;
        }
    }

    /// Processes the end of the present string.
    fn end_string(&mut self) -> Option<Finding> {
        let (state, found) = match std::mem::replace(&mut self.state, ReaderState::Type(Vec::new())) {
            ReaderState::Type(name) => (ReaderState::after_type(&name), None),
            ReaderState::Output(_) => (ReaderState::Type(Vec::new()), None),
            ReaderState::End(kind, data) => match program_end(kind, &data) {
                Ok(end) => (ReaderState::Over, Some(Finding::End(end))),
                Err(wrong) => (ReaderState::Invalid(wrong), None),
            },
            ReaderState::Over => (ReaderState::Over, None),
            ReaderState::Invalid(wrong) => (ReaderState::Invalid(wrong), None),
        };
        self.state = state;
        found
    }
}

fn program_end(kind: EndKind, data: &[u8]) -> Result<ProgramEnd, AnswerError> {
    let text = std::str::from_utf8(data).ok();
    let digits = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let number: Option<u8> = digits.and_then(|digits| digits.parse().ok());
    match kind {
        EndKind::ExitCode => number.map(ProgramEnd::Exit).ok_or(AnswerError::Status),
        EndKind::TermSig => {
            let name = text.filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()));
            let name = name.ok_or(AnswerError::Signal)?.to_owned();
            let named = number_of(data).and_then(|number| u8::try_from(number).ok());
            let number = number.or(named).filter(|number| (1..=LAST_SIGNAL).contains(number));
            Ok(ProgramEnd::Killed { name, number })
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
        end: Option<ProgramEnd>,
        wrong: Option<AnswerError>,
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Read {
        let (mut reader, mut read) = (AnswerReader::default(), Read::default());
        for mut rest in pieces {
            loop {
                let (taken, found) = reader.advance(rest);
                match found {
                    Finding::NeedMore => break assert_eq!(taken, rest.len(), "what is read is taken"),
                    Finding::Output(Output::Stdout, place) => read.stdout.extend_from_slice(&rest[place]),
                    Finding::Output(Output::Stderr, place) => read.stderr.extend_from_slice(&rest[place]),
                    Finding::End(end) => assert_eq!(read.end.replace(end), None, "one end"),
                    Finding::Invalid(wrong) => {
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
                end: Some(ProgramEnd::Exit(7)),
                wrong: None,
            };
            assert_eq!(read([left, right]), expected, "{cut}");
        }
    }

    #[test]
    fn a_signal_may_be_a_name_a_number_or_an_unknown_name() {
        for (data, number) in [
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
            let name = data.split_once(':').unwrap().1.to_owned();
            let end = read([format!("7:termsig,{data},").as_bytes()]).end;
            assert_eq!(end, Some(ProgramEnd::Killed { name, number }), "{data}");
        }
    }

    #[test]
    fn an_invalid_answer_is_refused_at_its_first_wrong_byte() {
        for (answer, wrong) in [
            ("6:stdin", None),
            ("5:stdin,", Some(AnswerError::Type)),
            ("0:,", Some(AnswerError::Type)),
            ("17", Some(AnswerError::TooLong)),
            ("6:stdout,1099511627777", Some(AnswerError::TooLong)),
            ("8:exitcode,33", Some(AnswerError::TooLong)),
            ("8:exitcode,0:,", Some(AnswerError::Status)),
            ("8:exitcode,3:256,", Some(AnswerError::Status)),
            ("8:exitcode,2:-1,", Some(AnswerError::Status)),
            ("8:exitcode,2:+1,", Some(AnswerError::Status)),
            ("7:termsig,0:,", Some(AnswerError::Signal)),
            ("7:termsig,3:A B,", Some(AnswerError::Signal)),
            ("7:termsig,2:\u{e9},", Some(AnswerError::Signal)),
        ] {
            assert_eq!(read([answer.as_bytes()]).wrong, wrong, "{answer}");
        }
        for answer in ["HTTP/1.1 400 Bad Request", "6:stdout;", "6:stdout,2:abc,", "06:"] {
            let read = read([answer.as_bytes()]);
            assert!(
                matches!(read.wrong, Some(AnswerError::Malformed(_))),
                "{answer}: {read:?}"
            );
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
