//! The request of a client: the arguments at once, then input as it is read, the end of the input, and signals after
//! that.

use std::collections::VecDeque;

use crate::framing::netstring::encode;
use crate::framing::signals::name_of;

/// The number of unsent bytes at which no more input is accepted.
const LIMIT: usize = 64 * 1024;
/// The longest string of input, in bytes: one read from standard input.
const LONGEST_STRING: usize = 64 * 1024;

/// The bytes on their way to the server.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    wire: VecDeque<u8>,
    input: InputState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputState {
    Open,
    Ended,
}

impl Outgoing {
    /// Creates a request: the number of arguments, and the arguments.
    pub(super) fn new(arguments: &[Vec<u8>]) -> Outgoing {
        let mut wire = Vec::new();
        encode(arguments.len().to_string().as_bytes(), &mut wire);
        for argument in arguments {
            encode(argument, &mut wire);
        }
        Outgoing {
            wire: wire.into(),
            input: InputState::Open,
        }
    }

    /// Returns some of the bytes to send; empty only if there are none.
    pub(super) fn bytes(&self) -> &[u8] {
        self.wire.as_slices().0
    }

    /// Removes the given number of sent bytes.
    pub(super) fn remove_sent(&mut self, count: usize) {
        self.wire.drain(..count.min(self.wire.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    pub(super) fn wants_input(&self) -> bool {
        self.input == InputState::Open && self.wire.len() < LIMIT
    }

    pub(super) fn add_input(&mut self, bytes: &[u8]) {
        if self.input == InputState::Open {
            for string in bytes.chunks(LONGEST_STRING) {
                self.add_netstring(string);
            }
        }
    }

    pub(super) fn end_input(&mut self) {
        if self.input == InputState::Open {
            self.input = InputState::Ended;
            self.add_netstring(b"");
        }
    }

    /// Ends the input, because a signal is understood only after it, and adds the signal. The signal is dropped while
    /// too much is unsent: one more would add nothing, and memory is bounded.
    pub(super) fn add_signal(&mut self, number: i32) {
        self.end_input();
        if let Some(name) = name_of(number).filter(|_| self.wire.len() < LIMIT + 2 * LONGEST_STRING) {
            self.add_netstring(b"signal");
            self.add_netstring(name.as_bytes());
        }
    }

    fn add_netstring(&mut self, string: &[u8]) {
        let mut wire = Vec::with_capacity(string.len() + 8);
        encode(string, &mut wire);
        self.wire.extend(&wire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut outgoing: Outgoing) -> String {
        String::from_utf8(outgoing.wire.make_contiguous().to_vec()).unwrap()
    }

    #[test]
    fn a_request_follows_the_protocol() {
        let mut outgoing = Outgoing::new(&[b"uname".to_vec(), Vec::new(), b"-a".to_vec()]);
        assert_eq!(all(outgoing.clone()), "1:3,5:uname,0:,2:-a,");
        outgoing.add_input(b"hello");
        outgoing.add_input(b"");
        outgoing.end_input();
        outgoing.end_input();
        outgoing.add_input(b"late");
        outgoing.add_signal(2);
        outgoing.add_signal(15);
        assert_eq!(
            all(outgoing),
            "1:3,5:uname,0:,2:-a,5:hello,0:,6:signal,3:INT,6:signal,4:TERM,"
        );
    }

    #[test]
    fn a_signal_ends_the_input() {
        let mut outgoing = Outgoing::new(&[b"cat".to_vec()]);
        outgoing.remove_sent(usize::MAX);
        outgoing.add_signal(10);
        assert!(!outgoing.wants_input());
        assert_eq!(all(outgoing), "0:,6:signal,4:USR1,");
    }

    #[test]
    fn unsent_bytes_are_bounded() {
        let mut outgoing = Outgoing::new(&[b"cat".to_vec()]);
        while outgoing.wants_input() {
            outgoing.add_input(&[b'x'; LONGEST_STRING + 1]);
        }
        assert!(outgoing.wire.len() < LIMIT + LONGEST_STRING + 100);
        for _ in 0..100_000 {
            outgoing.add_signal(10);
        }
        assert!(outgoing.wire.len() < LIMIT + 2 * LONGEST_STRING + 100);
        while !outgoing.is_empty() {
            let count = outgoing.bytes().len();
            assert!(count > 0);
            outgoing.remove_sent(count);
        }
    }
}
