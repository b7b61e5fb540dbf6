//! Requests from clients of an exec door.

use super::Choices;
use iotcpd::internals::exec::{End, Found, PER_ARGUMENT, Protocol, Wrong};
use iotcpd::internals::framing::PASSED_ON;

/// The contents of a stream.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    arguments: Option<Vec<Vec<u8>>>,
    input: Vec<u8>,
    ended: bool,
    signals: Vec<i32>,
    wrong: Option<Wrong>,
}

/// `request::Reader`: one byte is how long the arguments may be, four more cut the rest. Every cut gives what the
/// stream gives when it is looked at whole; arguments come once, are no longer than allowed, and begin with a name;
/// what they were written from is read back from them.
pub fn fuzz_exec_request(input: &[u8]) {
    let mut choices = Choices::new(input);
    let longest = choices.below(64);
    let cuts = choices.take(4);
    let whole = read(Protocol::Sockexec, longest, choices.pieces(&[]));
    assert_eq!(
        read(Protocol::Sockexec, longest, choices.pieces(cuts)),
        whole,
        "cuts do not matter"
    );
    let Some(arguments) = &whole.0.arguments else {
        return assert!(
            whole.0.input.is_empty() && !whole.0.ended,
            "input comes behind arguments"
        );
    };
    let room: usize = arguments.iter().map(|argument| argument.len() + PER_ARGUMENT).sum();
    assert!(room <= longest, "{arguments:?} are no longer than allowed");
    assert!(
        arguments.first().is_some_and(|name| !name.is_empty()),
        "there is a program"
    );
    assert!(
        !arguments.iter().flatten().any(|byte| *byte == 0),
        "a program can be given them"
    );
    let count = arguments.len().to_string();
    let strings = std::iter::once(count.as_bytes()).chain(arguments.iter().map(Vec::as_slice));
    let mut wire = Vec::new();
    for string in strings {
        wire.extend(format!("{}:", string.len()).bytes());
        wire.extend(string);
        wire.push(b',');
    }
    let (again, end) = read(Protocol::Sockexec, longest, std::iter::once(wire.as_slice()));
    assert_eq!(
        (again.arguments.as_ref(), end),
        (Some(arguments), End::Clean),
        "read back"
    );
}

/// `sockproc::Reader`: one byte is how long the command line may be, four more cut the rest. Every cut gives what the
/// stream gives when it is looked at whole; the command line is what stands before the first CR LF, the input what
/// stands behind the second, and no more of it than was announced.
pub fn fuzz_sockproc_request(input: &[u8]) {
    let mut choices = Choices::new(input);
    // The shell and its option have room in any case.
    let longest = "/bin/sh-c".len() + 3 * PER_ARGUMENT + choices.below(64);
    let cuts = choices.take(4);
    let protocol = Protocol::Sockproc { max_output: 0 };
    let whole = read(protocol, longest, choices.pieces(&[]));
    assert_eq!(
        read(protocol, longest, choices.pieces(cuts)),
        whole,
        "cuts do not matter"
    );
    let Some(arguments) = &whole.0.arguments else {
        return assert!(
            whole.0.input.is_empty() && !whole.0.ended,
            "input comes behind a command line"
        );
    };
    let room: usize = arguments.iter().map(|argument| argument.len() + PER_ARGUMENT).sum();
    assert!(room <= longest, "{arguments:?} are no longer than allowed");
    let command = arguments.last().map(Vec::as_slice).unwrap_or_default();
    assert!(!command.contains(&0), "a program can be given it");
    let stream = choices.take(usize::MAX);
    let (first, rest) = line(stream);
    let (count, behind) = line(rest);
    assert_eq!(first, command, "what stands before the first CR LF");
    let count: usize = count.iter().fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
    assert_eq!(
        whole.0.input,
        behind.get(..count).unwrap_or(behind),
        "so much as was announced"
    );
    assert_eq!(whole.0.ended, behind.len() >= count, "and then its end");
    assert_eq!((&whole.0.signals[..], whole.1), (&[][..], End::Clean));
}

/// A line without its CR LF, and what is behind that.
fn line(stream: &[u8]) -> (&[u8], &[u8]) {
    let end = (0..stream.len()).find(|at| stream.get(*at..at + 2) == Some(b"\r\n"));
    let (line, rest) = stream.split_at(end.unwrap_or(stream.len()));
    (line, rest.get(2..).unwrap_or_default())
}

fn read<'i>(protocol: Protocol, longest: usize, pieces: impl Iterator<Item = &'i [u8]>) -> (Read, End) {
    let (mut reader, mut read) = (protocol.reader(longest), Read::default());
    for piece in pieces {
        let mut rest = piece;
        loop {
            let (taken, found) = reader.advance(rest);
            assert!(taken <= rest.len(), "only what has come is taken");
            match found {
                Found::NeedMore => {
                    assert_eq!(taken, rest.len(), "what is read is taken");
                    break;
                }
                Found::Arguments(arguments) => {
                    let words = arguments.words().map(<[u8]>::to_vec).collect();
                    assert_eq!(read.arguments.replace(words), None, "twice");
                }
                Found::Input(range) => {
                    assert!(
                        !range.is_empty() && !read.ended,
                        "input is something, and before its end"
                    );
                    read.input.extend_from_slice(rest.get(range).unwrap_or_default());
                }
                Found::InputEnd => assert!(!std::mem::replace(&mut read.ended, true), "ended twice"),
                Found::Signal(signal) => {
                    assert!(
                        read.ended && PASSED_ON.contains(&signal),
                        "one of those, behind the input"
                    );
                    read.signals.push(signal);
                }
                Found::Wrong(wrong) => {
                    read.wrong = Some(wrong);
                    return (read, reader.end());
                }
            }
            rest = rest.get(taken..).unwrap_or_default();
        }
    }
    (read, reader.end())
}
