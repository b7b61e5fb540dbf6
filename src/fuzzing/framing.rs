//! Lines in a stream, wherever it is cut, and the numbers before them.

use super::Choices;
use crate::framing::Progress;
use crate::framing::channel::{Channel, Prefix, channel};
use crate::framing::line::LineFramer;
use crate::framing::search::LineSearch;

/// `channel`: the number before a line is the one whose digits stand there, and nothing that is not a number is one. As much of
/// a line as has come says the same as the whole of it, or that more is needed; and what `Prefix` writes is read again.
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

/// How a stream of lines ends.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// So many bytes of an unfinished line are left.
    Unfinished(usize),
    /// A line is longer than allowed.
    TooLong,
}

/// `LineFramer`: the first byte is the longest line allowed, four more cut the rest. Every cut gives the frames that the
/// stream has when it is looked at whole; too long is exactly a line with more bytes than allowed before its LF.
pub fn fuzz_line(input: &[u8]) {
    let mut choices = Choices::new(input);
    let longest = choices.below(64);
    let cuts = choices.take(4);
    let whole = frames(longest, choices.pieces(&[]));
    let cut = frames(longest, choices.pieces(cuts));
    assert_eq!(whole, lines(longest, choices.take(usize::MAX)), "frames are lines");
    assert_eq!(cut, whole, "cuts do not matter");
}

/// The way of all users of a framer: bytes are kept until a frame is whole.
fn frames<'i>(longest: usize, pieces: impl Iterator<Item = &'i [u8]>) -> (Vec<Vec<u8>>, End) {
    let (mut framer, mut held, mut frames) = (LineFramer::new(longest), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        loop {
            match framer.advance(&held) {
                Progress::NeedMore => break,
                Progress::TooLong => return (frames, End::TooLong),
                Progress::Frame(length) => {
                    assert!(length <= held.len(), "a frame is made of bytes that have come");
                    frames.push(held.drain(..length).collect());
                }
            }
        }
    }
    (frames, End::Unfinished(held.len()))
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

/// `LineSearch`: two bytes say how long the wanted line is and how the rest is cut. Wherever it is cut, the first line that
/// is the wanted one (but for white space at their ends) is found, and what lies behind it is left.
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
