//! Messages from clients of a command door.

use super::Choices;
use iotcpd::internals::command::{Exchange, Found};

/// `exchange::Exchange`: one byte is how long a message may be, four more cut the rest. Every cut gives the messages
/// that the stream gives when it is looked at whole; none is longer than allowed, or holds what would have ended it.
pub fn fuzz_command_exchange(input: &[u8]) {
    let mut choices = Choices::new(input);
    let longest = choices.below(64);
    let cuts = choices.take(4);
    let whole = read(longest, choices.pieces(&[]));
    assert_eq!(read(longest, choices.pieces(cuts)), whole, "cuts do not matter");
    for message in &whole.0 {
        assert!(message.len() <= longest, "{message:?} is no longer than allowed");
        let ends = message.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
        assert!(!ends, "{message:?} has ended before");
    }
}

/// The messages, and whether one was too long.
fn read<'i>(longest: usize, pieces: impl Iterator<Item = &'i [u8]>) -> (Vec<Vec<u8>>, bool) {
    let (mut exchange, mut messages) = (Exchange::new(longest), Vec::new());
    for piece in pieces {
        let mut rest = piece;
        loop {
            let (taken, found) = exchange.advance(rest);
            rest = rest.get(taken..).unwrap_or_default();
            match found {
                Found::Message(message) => messages.push(message),
                Found::TooLong => return (messages, true),
                Found::NeedMore => {
                    assert!(rest.is_empty(), "what is read is taken");
                    break;
                }
            }
        }
    }
    messages.extend(exchange.complete());
    (messages, false)
}
