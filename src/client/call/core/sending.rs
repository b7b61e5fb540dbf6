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
pub(super) struct Sending {
    wire: VecDeque<u8>,
    input: Input,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    Ended,
}

impl Sending {
    /// Creates a request: the number of arguments, and the arguments.
    pub(super) fn of(arguments: &[Vec<u8>]) -> Sending {
        let mut wire = Vec::new();
        encode(arguments.len().to_string().as_bytes(), &mut wire);
        for argument in arguments {
            encode(argument, &mut wire);
        }
        Sending {
            wire: wire.into(),
            input: Input::Open,
        }
    }

    /// Returns some of the bytes to send; empty only if there are none.
    pub(super) fn bytes(&self) -> &[u8] {
        self.wire.as_slices().0
    }

    /// Removes the given number of sent bytes.
    pub(super) fn sent(&mut self, count: usize) {
        self.wire.drain(..count.min(self.wire.len()));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wire.is_empty()
    }

    pub(super) fn wants_input(&self) -> bool {
        self.input == Input::Open && self.wire.len() < LIMIT
    }

    pub(super) fn input(&mut self, bytes: &[u8]) {
        if self.input == Input::Open {
            for string in bytes.chunks(LONGEST_STRING) {
                self.netstring(string);
            }
        }
    }

    pub(super) fn end_input(&mut self) {
        if self.input == Input::Open {
            self.input = Input::Ended;
            self.netstring(b"");
        }
    }

    /// Ends the input, because a signal is understood only after it, and adds the signal. The signal is dropped while
    /// too much is unsent: one more would add nothing, and memory is bounded.
    pub(super) fn signal(&mut self, number: i32) {
        self.end_input();
        if let Some(name) = name_of(number).filter(|_| self.wire.len() < LIMIT + 2 * LONGEST_STRING) {
            self.netstring(b"signal");
            self.netstring(name.as_bytes());
        }
    }

    fn netstring(&mut self, string: &[u8]) {
        let mut wire = Vec::with_capacity(string.len() + 8);
        encode(string, &mut wire);
        self.wire.extend(&wire);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(mut sending: Sending) -> String {
        String::from_utf8(sending.wire.make_contiguous().to_vec()).unwrap()
    }

    #[test]
    fn a_request_is_as_the_protocol_has_it() {
        let mut sending = Sending::of(&[b"uname".to_vec(), Vec::new(), b"-a".to_vec()]);
        assert_eq!(all(sending.clone()), "1:3,5:uname,0:,2:-a,");
        sending.input(b"hello");
        sending.input(b"");
        sending.end_input();
        sending.end_input();
        sending.input(b"late");
        sending.signal(2);
        sending.signal(15);
        assert_eq!(
            all(sending),
            "1:3,5:uname,0:,2:-a,5:hello,0:,6:signal,3:INT,6:signal,4:TERM,"
        );
    }

    #[test]
    fn a_signal_ends_the_input() {
        let mut sending = Sending::of(&[b"cat".to_vec()]);
        sending.sent(usize::MAX);
        sending.signal(10);
        assert!(!sending.wants_input());
        assert_eq!(all(sending), "0:,6:signal,4:USR1,");
    }

    #[test]
    fn no_more_is_wanted_and_kept_than_has_room() {
        let mut sending = Sending::of(&[b"cat".to_vec()]);
        while sending.wants_input() {
            sending.input(&[b'x'; LONGEST_STRING + 1]);
        }
        assert!(sending.wire.len() < LIMIT + LONGEST_STRING + 100);
        for _ in 0..100_000 {
            sending.signal(10);
        }
        assert!(sending.wire.len() < LIMIT + 2 * LONGEST_STRING + 100);
        while !sending.is_empty() {
            let count = sending.bytes().len();
            assert!(count > 0);
            sending.sent(count);
        }
    }
}
