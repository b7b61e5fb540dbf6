//! The request of a client: the arguments at once, then input as it is read, the end of the input, and signals after
//! that.
//!
//! The bytes wait in the write buffer of the connection; here they are only counted, because input is taken only while
//! few of them wait.

use crate::framing::netstring::encode;
use crate::framing::signals::name_of;

/// The number of unsent bytes at which no more input is accepted.
const LIMIT: usize = 64 * 1024;
/// The longest string of input, in bytes: one read from standard input.
const LONGEST_STRING: usize = 64 * 1024;

/// Makes the bytes of the request, and counts those on their way to the server.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// The number of bytes that were made and are not sent yet.
    unsent: usize,
    input: InputState,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InputState {
    Open,
    Ended,
}

impl Outgoing {
    /// Begins a request. Returns its first bytes: the number of arguments, and the arguments.
    pub(super) fn new(arguments: &[Vec<u8>]) -> (Outgoing, Vec<u8>) {
        let mut outgoing = Outgoing {
            unsent: 0,
            input: InputState::Open,
        };
        let count = arguments.len().to_string();
        let strings = std::iter::once(count.as_bytes()).chain(arguments.iter().map(Vec::as_slice));
        let request = outgoing.netstrings(strings);
        (outgoing, request)
    }

    /// Notes that this number of bytes was sent.
    pub(super) fn note_sent(&mut self, count: usize) {
        self.unsent = self.unsent.saturating_sub(count);
    }

    /// Returns true if everything is sent.
    pub(super) fn is_empty(&self) -> bool {
        self.unsent == 0
    }

    pub(super) fn wants_input(&self) -> bool {
        self.input == InputState::Open && self.unsent < LIMIT
    }

    /// Returns the bytes for a piece of input; none after the end of the input.
    pub(super) fn input(&mut self, bytes: &[u8]) -> Vec<u8> {
        match self.input {
            InputState::Open => self.netstrings(bytes.chunks(LONGEST_STRING)),
            InputState::Ended => Vec::new(),
        }
    }

    /// Returns the bytes for the end of the input; none if it has ended.
    pub(super) fn end_input(&mut self) -> Vec<u8> {
        match std::mem::replace(&mut self.input, InputState::Ended) {
            InputState::Open => self.netstrings([&b""[..]].into_iter()),
            InputState::Ended => Vec::new(),
        }
    }

    /// Returns the bytes for a signal, behind the end of the input, because a signal is understood only after it. The
    /// signal is dropped while too much is unsent: one more would add nothing, and memory is bounded.
    pub(super) fn signal(&mut self, number: i32) -> Vec<u8> {
        let mut wire = self.end_input();
        if let Some(name) = name_of(number).filter(|_| self.unsent < LIMIT + 2 * LONGEST_STRING) {
            wire.extend(self.netstrings([&b"signal"[..], name.as_bytes()].into_iter()));
        }
        wire
    }

    fn netstrings<'a>(&mut self, strings: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
        let mut wire = Vec::new();
        for string in strings {
            encode(string, &mut wire);
        }
        self.unsent += wire.len();
        wire
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_request_follows_the_protocol() {
        let (mut outgoing, request) = Outgoing::new(&[b"uname".to_vec(), Vec::new(), b"-a".to_vec()]);
        assert_eq!(text(request), "1:3,5:uname,0:,2:-a,");
        assert_eq!(text(outgoing.input(b"hello")), "5:hello,");
        assert_eq!(text(outgoing.input(b"")), "", "it would be the end");
        assert_eq!(text(outgoing.end_input()), "0:,");
        assert_eq!(text(outgoing.end_input()), "");
        assert_eq!(text(outgoing.input(b"late")), "");
        assert_eq!(text(outgoing.signal(2)), "6:signal,3:INT,");
        assert_eq!(text(outgoing.signal(15)), "6:signal,4:TERM,");
    }

    #[test]
    fn a_signal_ends_the_input() {
        let (mut outgoing, _) = Outgoing::new(&[b"cat".to_vec()]);
        assert_eq!(text(outgoing.signal(10)), "0:,6:signal,4:USR1,");
        assert!(!outgoing.wants_input());
    }

    #[test]
    fn unsent_bytes_are_bounded() {
        let (mut outgoing, request) = Outgoing::new(&[b"cat".to_vec()]);
        let mut unsent = request.len();
        while outgoing.wants_input() {
            unsent += outgoing.input(&[b'x'; LONGEST_STRING + 1]).len();
        }
        assert!(unsent < LIMIT + LONGEST_STRING + 100);
        for _ in 0..100_000 {
            unsent += outgoing.signal(10).len();
        }
        assert!(unsent < LIMIT + 2 * LONGEST_STRING + 100);
        outgoing.note_sent(unsent - 1);
        assert!(!outgoing.is_empty());
        outgoing.note_sent(1);
        assert!(outgoing.is_empty());
    }
}
