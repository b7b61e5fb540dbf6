//! One message, one reading: what is passed on is the same message to every reader, from the most exacting to the most
//! careless.

use std::collections::BTreeSet;

use super::Choices;
use iotcpd::internals::framing::{Framing, LineRules, Progress};

/// The characters that end a line for one reader or another.
const LINE_ENDS: [char; 10] = [
    '\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}',
];

/// The content-length framer, and `Framing::passed_on`: a stream that begins with a message begins with the same one
/// wherever it is cut in two. The bytes that are passed on of it are that message to a reader that insists on every
/// letter of a head, to a reader that takes everything that looks like a line or a length, and to the framer itself,
/// which passes it on as it is.
pub fn fuzz_heads(stream: &[u8]) {
    let whole = first(stream);
    for cut in 0..stream.len() {
        let mut framer = Framing::ContentLength.framer(LONGEST);
        let begun = framer.advance(stream.get(..cut).unwrap_or_default());
        if begun == Progress::NeedMore {
            assert_eq!(framer.advance(stream), whole, "cut at {cut}");
        } else {
            assert_eq!(begun, whole, "known after {cut} bytes");
        }
    }
    let Progress::Frame(frame) = whole else { return };
    let said = frame.payload_in(stream);
    let message = stream.get(..frame.length).unwrap_or_default();
    let passed = Framing::ContentLength.passed_on(message, said).into_owned();
    // The next message on the worker's side.
    let stream = [passed.as_slice(), b"Content-Length: 1\r\n\r\nx"].concat();
    let shown = passed.escape_ascii();
    assert_eq!(exacting(&stream), Some(said), "{shown}");
    assert_eq!(careless(&stream), Some(said), "{shown}");
    let again = match first(&stream) {
        Progress::Frame(frame) => Some((frame.length, frame.payload_in(&stream).to_vec())),
        Progress::NeedMore | Progress::TooLong | Progress::Malformed(_) => None,
    };
    assert_eq!(again, Some((passed.len(), said.to_vec())), "{shown}");
    assert_eq!(
        *Framing::ContentLength.passed_on(&passed, said),
        *passed,
        "nothing is left to be written anew"
    );
}

const LONGEST: usize = 1000;

fn first(stream: &[u8]) -> Progress {
    Framing::ContentLength.framer(LONGEST).advance(stream)
}

/// A line ends in CR LF and nothing else, a head in two of them; names are known by their capitals.
fn exacting(stream: &[u8]) -> Option<&[u8]> {
    let end = stream.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(stream.get(..end)?).ok()?;
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("Content-Length: "))?;
    let begin = end + 4;
    stream.get(begin..begin.checked_add(length.parse().ok()?)?)
}

/// Whatever may end a line does, a line of blanks is empty, and the last thing that looks like a length is the length,
/// whatever stands around it.
fn careless(stream: &[u8]) -> Option<&[u8]> {
    let (mut at, mut length) = (0, None);
    loop {
        let rest = stream.get(at..)?;
        let text = String::from_utf8_lossy(rest).into_owned();
        let end = text.find(LINE_ENDS)?;
        let line = text.get(..end)?;
        // A head that gets here is ASCII, so that characters are bytes.
        at += end + if rest.get(end..)?.starts_with(b"\r\n") { 2 } else { 1 };
        if line.trim().is_empty() {
            break;
        }
        if let Some(found) = line.to_ascii_lowercase().replace('_', "-").find("content-length") {
            let digits = line.get(found + "content-length".len()..)?;
            let digits = digits.trim_start_matches([':', ' ', '\t', '+', '0']);
            let digits = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
            length = Some(digits.parse().unwrap_or(0));
        }
    }
    stream.get(at..at.checked_add(length?)?)
}

/// `LineRules::check`: one byte chooses framing and rules, the rest is a message. One that passes is one message to all
/// readers, except the readers that the operator has ruled out by these flags.
pub fn fuzz_line_rules(input: &[u8]) {
    let mut choices = Choices::new(input);
    let bits = choices.below(16);
    let framing = if bits & 1 == 0 {
        Framing::Line
    } else {
        Framing::UntilEmptyLine
    };
    let rules = LineRules {
        allow_lone_cr: bits & 2 != 0,
        allow_blank_lines: bits & 4 != 0,
        refuse_unicode: bits & 8 != 0,
        ..LineRules::default()
    };
    let text = String::from_utf8_lossy(choices.take(usize::MAX)).into_owned();
    let mut message = Vec::new();
    if framing.encode(text.as_bytes(), &mut message).is_err() || rules.check(framing, &message).is_err() {
        return;
    }
    let message = String::from_utf8_lossy(&message).into_owned();
    assert!(!message.contains('\0'), "{message:?}: nobody is given a NUL");
    let mut ends = BTreeSet::from(['\n']);
    if !rules.allow_lone_cr {
        ends.insert('\r');
    }
    if rules.refuse_unicode {
        ends.extend(LINE_ENDS.into_iter().filter(|end| *end != '\r'));
    }
    let lines = lines(&message, &ends);
    let last = lines.len().checked_sub(1);
    if framing == Framing::Line {
        return assert_eq!(last, Some(0), "{message:?} is one line: {lines:?}");
    }
    let is_empty = |line: &&str| {
        if rules.allow_blank_lines {
            matches!(*line, "" | "\r")
        } else {
            line.trim().is_empty()
        }
    };
    assert_eq!(
        lines.iter().position(is_empty),
        last,
        "{message:?} ends where it ends: {lines:?}"
    );
}

/// The lines of a message that ends in one of these, of which CR LF is one.
fn lines<'m>(message: &'m str, ends: &BTreeSet<char>) -> Vec<&'m str> {
    let (mut lines, mut rest) = (Vec::new(), message);
    while let Some(end) = rest.find(|c| ends.contains(&c)) {
        let (line, behind) = rest.split_at(end);
        lines.push(line);
        rest = behind.strip_prefix("\r\n").unwrap_or_else(|| {
            let mut behind = behind.chars();
            behind.next();
            behind.as_str()
        });
    }
    assert_eq!(rest, "", "{message:?} ends with the end of a line");
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PARTS: [&str; 27] = [
        "Content-Length: 3",
        "content-length:3",
        "Content-Length:  3 ",
        "Content-Length: 03",
        "Content-Length: +3",
        "Content-Length: 3, 4",
        "CONTENT_LENGTH: 4",
        "X-Content-Length: 4",
        "X: Content-Length: 4",
        "Content-Length : 4",
        " Content-Length: 4",
        "A: b",
        "A_b:\tc",
        "Transfer-Encoding: chunked",
        "no colon",
        ":",
        " ",
        "\t",
        "\r",
        "\0",
        "\x0b",
        "\u{85}",
        "\u{2028}",
        "{a}",
        "\r\n",
        "\n",
        "\r\n\r\n",
    ];
    const ENDS: [&str; 7] = ["\r\n", "\n", "\r\n\r\n", "\n\n", "\r", "", "\r\r\n"];

    proptest! {
        #[test]
        fn heads_made_of_what_is_doubtful(
            parts in proptest::collection::vec(proptest::sample::select(&PARTS[..]), 1..6),
            ends in proptest::collection::vec(proptest::sample::select(&ENDS[..]), 6),
        ) {
            let mut stream: String = parts.iter().zip(&ends).flat_map(|(part, end)| [*part, *end]).collect();
            stream.push_str("\r\n\r\nabcdefgh\nij");
            fuzz_heads(stream.as_bytes());
        }

        #[test]
        fn lines_made_of_what_is_doubtful(
            rules in 0u8..16,
            text in "[ab \r\n\t\0\u{b}\u{c}\u{1c}\u{85}\u{a0}\u{2028}\u{2029}]{0,12}",
        ) {
            fuzz_line_rules(&[&[rules], text.as_bytes()].concat());
        }
    }
}
