//! Messages in a stream, wherever it is cut, and the numbers before lines.

use super::Choices;
use iotcpd::internals::framing::{Channel, Framing, LineSearch, Prefix, Progress, channel};

/// `channel`: the number before a line is the one whose digits stand there, and nothing that is not a number is one. As
/// much of a line as has come says the same as the whole of it, or that more is needed; and what `Prefix` writes is
/// read again.
pub fn fuzz_channel(input: &[u8]) {
    let line = input.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let end = line.iter().position(|byte| b" \r\n".contains(byte));
    let digits = end.and_then(|end| std::str::from_utf8(line.get(..end)?).ok());
    let number = digits.and_then(|digits| digits.parse::<u32>().ok().filter(|number| number.to_string() == digits));
    let rest = line.get(end.unwrap_or_default()..).unwrap_or_default();
    let ended = rest.starts_with(b" ") || rest == b"\n" || rest == b"\r\n";
    let whole = channel(line);
    match (number.filter(|_| ended), end) {
        (Some(number), Some(end)) => {
            let prefix = end + usize::from(rest.starts_with(b" "));
            assert_eq!(whole, Channel::Number { number, prefix }, "{line:?}");
            let written = [Prefix::of(number).as_bytes(), b"text\n"].concat();
            let read = Channel::Number {
                number,
                prefix: written.len() - 5,
            };
            assert_eq!(channel(&written), read, "what is written is read again");
        }
        _ if line.ends_with(b"\n") => assert_eq!(whole, Channel::None, "{line:?}"),
        _ => assert!(!matches!(whole, Channel::Number { .. }), "{line:?}"),
    }
    for cut in 0..line.len() {
        let begun = channel(line.get(..cut).unwrap_or_default());
        assert!(begun == Channel::NeedMore || begun == whole, "{line:?} cut at {cut}");
    }
}

/// The end of a stream of messages.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The number of bytes left of an unfinished message.
    Unfinished(usize),
    /// A message is longer than allowed.
    TooLong,
    /// The stream goes on with something that is no message.
    Malformed(&'static str),
}

/// One message as it came, and what it says.
#[derive(Debug, PartialEq, Eq)]
struct Message {
    wire: Vec<u8>,
    payload: Vec<u8>,
}

const FRAMINGS: [Framing; 7] = [
    Framing::Line,
    Framing::Netstring,
    Framing::Nul,
    Framing::U32be,
    Framing::ContentLength,
    Framing::UntilEmptyLine,
    Framing::Eof,
];

/// `Framer` and `Framing::encode`: one byte chooses the framing, one the longest message allowed, four more cut the
/// rest. Every cut gives the messages that the stream has when it is looked at whole, none is longer than allowed, and
/// what each says is either refused by another framing or read back from it.
pub fn fuzz_framings(input: &[u8]) {
    let mut choices = Choices::new(input);
    let Some(framing) = choices.pick(&FRAMINGS) else { return };
    let longest = choices.below(256);
    let cuts = choices.take(4);
    let (whole, end) = messages(framing, longest, choices.pieces(&[]));
    assert_eq!(
        messages(framing, longest, choices.pieces(cuts)),
        (whole, end),
        "{framing}: cuts do not matter"
    );
    let (whole, _) = messages(framing, longest, choices.pieces(&[]));
    for Message { payload, .. } in whole {
        assert!(payload.len() <= longest, "{framing}: no longer than allowed");
        for other in FRAMINGS.into_iter().filter(|other| other.tells_the_end()) {
            read_back(other, &payload);
        }
    }
}

fn read_back(framing: Framing, payload: &[u8]) {
    let mut wire = Vec::new();
    if framing.encode(payload, &mut wire).is_err() {
        return assert!(wire.is_empty(), "{framing}: nothing is left of what was refused");
    }
    let (messages, end) = messages(framing, payload.len() + 1, std::iter::once(wire.as_slice()));
    assert_eq!(
        messages.len(),
        1,
        "{framing}: {payload:?} is one message, not {messages:?} {end:?}"
    );
    let Some(message) = messages.first() else { return };
    assert_eq!((&message.wire, end), (&wire, End::Unfinished(0)), "{framing}");
    // Where a byte ends the message, one at the end of what is said is that one.
    let end = match framing {
        Framing::Line | Framing::UntilEmptyLine => &b"\n"[..],
        Framing::Nul => &b"\0"[..],
        _ => &b"the end of nothing"[..],
    };
    let kernel = |text: &[u8]| text.strip_suffix(end).unwrap_or(text).to_vec();
    assert_eq!(kernel(&message.payload), kernel(payload), "{framing}");
}

/// `LineFramer`: the first byte is the longest line allowed, four more cut the rest. Every cut gives the frames that
/// the stream has when it is looked at whole; too long is exactly a line with more bytes than allowed before its LF.
pub fn fuzz_line(input: &[u8]) {
    let mut choices = Choices::new(input);
    let longest = choices.below(64);
    let cuts = choices.take(4);
    let whole = lines_of(messages(Framing::Line, longest, choices.pieces(&[])));
    let cut = lines_of(messages(Framing::Line, longest, choices.pieces(cuts)));
    assert_eq!(whole, lines(longest, choices.take(usize::MAX)), "frames are lines");
    assert_eq!(cut, whole, "cuts do not matter");
}

fn lines_of((messages, end): (Vec<Message>, End)) -> (Vec<Vec<u8>>, End) {
    (messages.into_iter().map(|message| message.wire).collect(), end)
}

/// The way of all users of a framer: bytes are kept until a frame is whole.
fn messages<'i>(framing: Framing, longest: usize, pieces: impl Iterator<Item = &'i [u8]>) -> (Vec<Message>, End) {
    let (mut framer, mut held, mut messages) = (framing.framer(longest), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        while !held.is_empty() {
            match framer.advance(&held) {
                Progress::NeedMore => break,
                Progress::TooLong => return (messages, End::TooLong),
                Progress::Malformed(reason) => return (messages, End::Malformed(reason)),
                Progress::Frame(frame) => {
                    assert!(frame.length <= held.len(), "a frame is made of bytes that have come");
                    assert!(frame.payload.end <= frame.length, "its payload lies in it");
                    messages.push(Message {
                        payload: frame.payload_in(&held).to_vec(),
                        wire: held.drain(..frame.length).collect(),
                    });
                }
            }
        }
    }
    (messages, End::Unfinished(held.len()))
}

fn lines(longest: usize, stream: &[u8]) -> (Vec<Vec<u8>>, End) {
    let mut lines = Vec::new();
    for line in stream.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n");
        if text.unwrap_or(line).len() > longest {
            return (lines, End::TooLong);
        }
        if text.is_none() {
            return (lines, End::Unfinished(line.len()));
        }
        lines.push(line.to_vec());
    }
    (lines, End::Unfinished(0))
}

/// `LineSearch`: two bytes say how long the wanted line is and how the rest is cut. Wherever it is cut, the first line
/// that is the wanted one (but for white space at their ends) is found, and what lies behind it is left.
pub fn fuzz_ready_line(input: &[u8]) {
    let mut choices = Choices::new(input);
    let length = choices.below(16);
    let cuts = choices.take(2);
    let wanted = choices.take(length);
    let mut search = LineSearch::new(wanted);
    let mut before = 0;
    let found = choices.pieces(cuts).find_map(|piece| {
        let taken = search.advance(piece);
        assert!(
            taken.is_none_or(|taken| 0 < taken && taken <= piece.len()),
            "within the piece"
        );
        let end = taken.map(|taken| before + taken);
        before += piece.len();
        end
    });
    let mut end = 0;
    let expected = choices
        .take(usize::MAX)
        .split_inclusive(|byte| *byte == b'\n')
        .find_map(|line| {
            end += line.len();
            let same = line.ends_with(b"\n") && line.trim_ascii_end() == wanted.trim_ascii_end();
            same.then_some(end)
        });
    assert_eq!(found, expected, "the ready line {wanted:?}");
}
