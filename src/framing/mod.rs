//! Framings: where a message ends in a stream of bytes, and how one is written so that its end is known.
//!
//! A framer is given all bytes of the unfinished message each time some have arrived, and answers with [`Progress`]: it
//! needs more, has a frame, or refuses the stream. It remembers how far it has searched and never searches a byte
//! twice, so a message that arrives a byte at a time costs no more than one that arrives whole. It owns no bytes and
//! does no I/O.
//!
//! ```text
//!   |<------------- bytes ------------->|
//!   |<--- scanned --->|<-- new bytes -->|
//!                          ^ the end of the frame is searched here only
//! ```
//!
//! A [`Frame`] says where its payload lies, which is the message without what the framing adds to it. The payload of
//! one framing, given to [`Framing::encode`] of another, is the same message in that framing, or is refused if that
//! framing cannot express it ([`Unfit`]). A message that is encoded by a framing is read back by its framer as one
//! frame.
//!
//! [`Framing`] names a framing, and [`Framer`] is a framer of any of them. Another framing is one more file beside
//! [`line`](mod@line), with the same functions. [`line_rules`] has the bytes that a request to a reader of lines must
//! not hold, because the reader might take it for two.
//!
//! Six modules do not cut a stream into messages. [`search`] waits for one line of a stream and skips everything
//! before it. [`channel`] reads and writes the number before a line where several requests are under way at a time;
//! [`multiplex`] has the other lines of a client's connection with such numbers.
//! [`netstring_pieces`] reads netstrings that are pieces of something longer, [`signals`] has the names of signals
//! that some of these carry, and [`tls_alert`] recognizes a server that speaks TLS.

pub mod channel;
pub mod content_length;
pub mod empty_line;
pub mod line;
pub mod line_rules;
pub mod multiplex;
pub mod netstring;
pub mod netstring_pieces;
pub mod nul;
pub mod search;
pub mod signals;
mod terminated;
#[cfg(test)]
mod testing;
pub mod tls_alert;
pub mod u32be;
pub mod whole;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use content_length::ContentLengthFramer;
use empty_line::EmptyLineFramer;
use line::LineFramer;
use netstring::NetstringFramer;
use nul::NulFramer;
use u32be::U32beFramer;
use whole::WholeFramer;

/// The result of a framer's search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The message is not complete.
    NeedMore,
    /// There is one whole message at the beginning of the bytes.
    Frame(Frame),
    /// The message is longer than allowed, whatever follows.
    TooLong,
    /// The bytes are no message of this framing, whatever follows. The reason is text to follow "it is malformed: ".
    Malformed(&'static str),
}

/// One message within the bytes that have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The number of its bytes, including everything that its framing adds.
    pub length: usize,
    /// The range of the payload in these bytes.
    pub payload: Range<usize>,
}

impl Frame {
    /// Returns the payload, given the bytes that the framer was given.
    pub fn payload_in<'b>(&self, bytes: &'b [u8]) -> &'b [u8] {
        bytes.get(self.payload.clone()).unwrap_or_default()
    }
}

/// The reason why a framing cannot carry a message, as text to follow "its payload".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfit(pub &'static str);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The ways in which a stream is cut into messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// Each message is a line.
    Line,
    /// `5:hello,`: a length in digits, then the message.
    Netstring,
    /// A NUL byte ends a message.
    Nul,
    /// Four bytes of length, the most significant first, then the message.
    U32be,
    /// `Content-Length: 5`, an empty line, then the message.
    ContentLength,
    /// An empty line ends a message of any number of lines.
    UntilEmptyLine,
    /// The end of the stream ends the only message.
    Eof,
    /// A message ends when nothing has arrived for this time.
    Quiet(Duration),
}

impl Framing {
    /// Returns a framer for messages of at most `longest` bytes, not counting what the framing adds.
    pub fn framer(self, longest: usize) -> Framer {
        match self {
            Framing::Line => Framer::Line(LineFramer::new(longest)),
            Framing::Netstring => Framer::Netstring(NetstringFramer::new(longest)),
            Framing::Nul => Framer::Nul(NulFramer::new(longest)),
            Framing::U32be => Framer::U32be(U32beFramer::new(longest)),
            Framing::ContentLength => Framer::ContentLength(ContentLengthFramer::new(longest)),
            Framing::UntilEmptyLine => Framer::UntilEmptyLine(EmptyLineFramer::new(longest)),
            Framing::Eof | Framing::Quiet(_) => Framer::Whole(WholeFramer::new(longest)),
        }
    }

    /// Appends the message to `wire` as this framing writes it. A message that already ends in the byte or the line
    /// that is the terminator of this framing is not given a second one.
    ///
    /// # Errors
    /// The reason why this framing cannot carry the message; `wire` is unchanged then.
    pub fn encode(self, payload: &[u8], wire: &mut Vec<u8>) -> Result<(), Unfit> {
        match self {
            Framing::Line => line::encode(payload, wire),
            Framing::Nul => nul::encode(payload, wire),
            Framing::U32be => u32be::encode(payload, wire),
            Framing::UntilEmptyLine => empty_line::encode(payload, wire),
            Framing::Netstring => {
                netstring::encode(payload, wire);
                Ok(())
            }
            Framing::ContentLength => {
                content_length::encode(payload, wire);
                Ok(())
            }
            Framing::Eof | Framing::Quiet(_) => {
                wire.extend_from_slice(payload);
                Ok(())
            }
        }
    }

    /// Returns a whole message that was read in this framing as it is given to the next reader in the same framing:
    /// unchanged, unless that reader might find its end elsewhere. `payload` is its payload.
    pub fn passed_on<'m>(self, message: &'m [u8], payload: &[u8]) -> Cow<'m, [u8]> {
        match self {
            Framing::ContentLength => content_length::passed_on(message, payload),
            Framing::Line
            | Framing::Netstring
            | Framing::Nul
            | Framing::U32be
            | Framing::UntilEmptyLine
            | Framing::Eof
            | Framing::Quiet(_) => Cow::Borrowed(message),
        }
    }

    /// Returns the name, as it is written in options.
    pub fn name(self) -> &'static str {
        match self {
            Framing::Line => "line",
            Framing::Netstring => "netstring",
            Framing::Nul => "nul",
            Framing::U32be => "u32be",
            Framing::ContentLength => "content-length",
            Framing::UntilEmptyLine => "until-empty-line",
            Framing::Eof => "eof",
            Framing::Quiet(_) => "quiet",
        }
    }

    /// Returns true if the bytes alone tell where a message ends. In any other framing a stream that stays open tells
    /// its reader nothing about the end.
    pub fn tells_the_end(self) -> bool {
        !matches!(self, Framing::Eof | Framing::Quiet(_))
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Framing::Quiet(time) => write!(f, "={time:?}"),
            _ => Ok(()),
        }
    }
}

/// A framer of any framing.
#[derive(Debug, Clone)]
pub enum Framer {
    /// See [`LineFramer`].
    Line(LineFramer),
    /// See [`NetstringFramer`].
    Netstring(NetstringFramer),
    /// See [`NulFramer`].
    Nul(NulFramer),
    /// See [`U32beFramer`].
    U32be(U32beFramer),
    /// See [`ContentLengthFramer`].
    ContentLength(ContentLengthFramer),
    /// See [`EmptyLineFramer`].
    UntilEmptyLine(EmptyLineFramer),
    /// See [`WholeFramer`].
    Whole(WholeFramer),
}

impl Framer {
    /// Searches for the end of the message. `bytes` must be all bytes after the last frame. After a frame the next call
    /// begins behind it. Must not be called again after [`Progress::TooLong`] or [`Progress::Malformed`].
    pub fn advance(&mut self, bytes: &[u8]) -> Progress {
        match self {
            Framer::Line(framer) => framer.advance(bytes),
            Framer::Netstring(framer) => framer.advance(bytes),
            Framer::Nul(framer) => framer.advance(bytes),
            Framer::U32be(framer) => framer.advance(bytes),
            Framer::ContentLength(framer) => framer.advance(bytes),
            Framer::UntilEmptyLine(framer) => framer.advance(bytes),
            Framer::Whole(framer) => framer.advance(bytes),
        }
    }

    /// Returns the message when something other than its bytes says that nothing more of it comes: the end of the
    /// stream, or a pause. Returns `None` if the message is incomplete and will stay so.
    pub fn end(&self, bytes: &[u8]) -> Option<Frame> {
        match self {
            Framer::Whole(framer) => framer.end(bytes),
            Framer::Line(_)
            | Framer::Netstring(_)
            | Framer::Nul(_)
            | Framer::U32be(_)
            | Framer::ContentLength(_)
            | Framer::UntilEmptyLine(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::cut_frames;
    use super::*;
    use proptest::prelude::*;

    const ALL: [Framing; 8] = [
        Framing::Line,
        Framing::Netstring,
        Framing::Nul,
        Framing::U32be,
        Framing::ContentLength,
        Framing::UntilEmptyLine,
        Framing::Eof,
        Framing::Quiet(Duration::from_millis(20)),
    ];

    #[test]
    fn a_framing_is_shown_as_it_is_written() {
        assert_eq!(Framing::UntilEmptyLine.to_string(), "until-empty-line");
        assert_eq!(Framing::Quiet(Duration::from_millis(20)).to_string(), "quiet=20ms");
    }

    #[test]
    fn framings_without_an_end_in_their_bytes_are_ended_from_outside() {
        for framing in ALL.into_iter().filter(|framing| !framing.tells_the_end()) {
            let mut framer = framing.framer(3);
            assert_eq!(framer.advance(b"abc"), Progress::NeedMore);
            assert_eq!(framer.end(b"abc").unwrap().payload_in(b"abc"), b"abc");
            assert_eq!(framer.end(b"").unwrap().length, 0, "an empty message is one");
            assert_eq!(framer.advance(b"abcd"), Progress::TooLong);
        }
        for framing in ALL.into_iter().filter(|framing| framing.tells_the_end()) {
            assert_eq!(framing.framer(3).end(b"abc"), None, "{framing}");
        }
    }

    proptest! {
        /// All messages that a framing can write are read back unchanged, however the stream is cut.
        #[test]
        fn encoded_messages_are_read_back(
            payloads in proptest::collection::vec("[a,:0-2\r\n\0]{0,8}", 1..6),
            cuts in proptest::collection::vec(1usize..9, 0..80),
        ) {
            for framing in ALL.into_iter().filter(|framing| framing.tells_the_end()) {
                let (mut wire, mut said) = (Vec::new(), Vec::new());
                for payload in &payloads {
                    let before = wire.len();
                    match framing.encode(payload.as_bytes(), &mut wire) {
                        Ok(()) => said.push(with_end(framing, payload.as_bytes())),
                        Err(_) => prop_assert_eq!(wire.len(), before, "nothing is left of what was refused"),
                    }
                }
                let (read, rest) = cut_frames(framing.framer(100), &wire, &cuts);
                prop_assert_eq!(&read, &said, "{}", framing);
                prop_assert_eq!(rest, Ok(0), "{}", framing);
            }
        }
    }

    /// Returns the payload as it is read back: a terminator at its end belongs to the framing, and each of several
    /// lines has an end.
    fn with_end(framing: Framing, payload: &[u8]) -> Vec<u8> {
        match framing {
            Framing::Line => payload.strip_suffix(b"\n").unwrap_or(payload).to_vec(),
            Framing::Nul => payload.strip_suffix(b"\0").unwrap_or(payload).to_vec(),
            Framing::UntilEmptyLine if !payload.is_empty() && !payload.ends_with(b"\n") => [payload, b"\n"].concat(),
            _ => payload.to_vec(),
        }
    }
}
