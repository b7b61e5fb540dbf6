//! What clients of an exec door send.

use super::Choices;
use crate::framing::signals::PASSED_ON;
use crate::services::exec::core::request::{End, Found, Reader, Wrong};

/// All that a stream has come to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read {
    arguments: Option<Vec<Vec<u8>>>,
    input: Vec<u8>,
    ended: bool,
    signals: Vec<i32>,
    wrong: Option<Wrong>,
}

/// `Reader`: one byte is how long the arguments may be, four more cut the rest. Every cut gives what the stream gives when it is
/// looked at whole; arguments come once, are no longer than allowed, and begin with a name; what they were written from is
/// read back from them.
pub fn fuzz_exec_request(input: &[u8]) {
    let mut choices = Choices::new(input);
    let longest = choices.below(64);
    let cuts = choices.take(4);
    let whole = read(longest, choices.pieces(&[]));
    assert_eq!(read(longest, choices.pieces(cuts)), whole, "cuts do not matter");
    let Some(arguments) = &whole.0.arguments else {
        return assert!(
            whole.0.input.is_empty() && !whole.0.ended,
            "input comes behind arguments"
        );
    };
    let room: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
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
    let (again, end) = read(longest, std::iter::once(wire.as_slice()));
    assert_eq!(
        (again.arguments.as_ref(), end),
        (Some(arguments), End::Clean),
        "read back"
    );
}

fn read<'i>(longest: usize, pieces: impl Iterator<Item = &'i [u8]>) -> (Read, End) {
    let (mut reader, mut read) = (Reader::new(longest), Read::default());
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
                Found::Arguments(arguments) => assert_eq!(read.arguments.replace(arguments), None, "twice"),
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
