//! Cuts the bytes from a client into messages: a name, then arguments one by one, then input for the program.
//!
//! torcd took the bytes of one read for a message, cut at the first NUL, CR or LF, and its clients rely on that: they
//! send a name without a terminator and wait for the prompt. So a message ends at LF, CR LF, CR or NUL, or when the
//! caller finds that nothing more has come for a while ([`Exchange::complete`]). A line with its NUL is one message,
//! and so is a buffer that is filled up with NULs: NULs right behind an end are part of it. No byte is looked at twice.

/// The result of reading some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All bytes are read. A message that has begun has not ended.
    NeedMore,
    /// A message, without its terminator.
    Message(Vec<u8>),
    /// The message is longer than allowed, whatever follows.
    TooLong,
}

/// Cuts bytes into messages.
#[derive(Debug, Clone)]
pub struct Exchange {
    longest: usize,
    /// The bytes of a message that has not ended.
    message: Vec<u8>,
    behind: Behind,
}

/// The meaning of the last byte for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// A byte of a message, or nothing.
    Message,
    /// A CR that has ended a message: an LF and NULs that follow belong to it.
    Cr,
    /// An end of a message: NULs that follow belong to it.
    End,
}

impl Exchange {
    /// Creates an exchange for messages of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Exchange {
            longest,
            message: Vec::new(),
            behind: Behind::Message,
        }
    }

    /// Returns true if a message has begun and not ended.
    pub fn is_pending(&self) -> bool {
        !self.message.is_empty()
    }

    /// Reads up to the end of a message. Returns the number of bytes taken, including all that belong to the end.
    pub fn advance(&mut self, bytes: &[u8]) -> (usize, Found) {
        let start = self.skip_rest_of_end(bytes);
        let rest = bytes.get(start..).unwrap_or_default();
        let Some(length) = rest.iter().position(|byte| matches!(byte, 0 | b'\r' | b'\n')) else {
            let found = if self.keep(rest) {
                Found::NeedMore
            } else {
                Found::TooLong
            };
            return (bytes.len(), found);
        };
        let (come, end) = rest.split_at(length);
        if !self.keep(come) {
            return (bytes.len(), Found::TooLong);
        }
        self.behind = if end.first() == Some(&b'\r') {
            Behind::Cr
        } else {
            Behind::End
        };
        let behind = end.get(1..).unwrap_or_default();
        let taken = start + length + 1 + self.skip_rest_of_end(behind);
        (taken, Found::Message(std::mem::take(&mut self.message)))
    }

    /// Takes the bytes of a message that has begun for all of it. Must be called when nothing has come for a while, or
    /// nothing more will.
    pub fn complete(&mut self) -> Option<Vec<u8>> {
        self.is_pending().then(|| std::mem::take(&mut self.message))
    }

    /// Returns the number of bytes that belong to the end of the last message. Must be called with the bytes that came
    /// behind it in the same read. The bytes after those are input for the program.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let skipped = self.skip_rest_of_end(bytes);
        if self.behind == Behind::End {
            // NULs of a later read are input.
            self.behind = Behind::Message;
        }
        skipped
    }

    fn skip_rest_of_end(&mut self, bytes: &[u8]) -> usize {
        let mut skipped = 0;
        if self.behind == Behind::Cr && !bytes.is_empty() {
            skipped = usize::from(bytes.first() == Some(&b'\n'));
            self.behind = Behind::End;
        }
        if self.behind == Behind::End {
            let rest = bytes.get(skipped..).unwrap_or_default();
            let nuls = rest.iter().take_while(|byte| **byte == 0).count();
            if nuls < rest.len() {
                self.behind = Behind::Message;
            }
            skipped += nuls;
        }
        skipped
    }

    /// Keeps bytes of a message. Returns false if it gets too long.
    fn keep(&mut self, come: &[u8]) -> bool {
        if self.message.len() + come.len() > self.longest {
            self.message.clear();
            return false;
        }
        if !come.is_empty() {
            self.behind = Behind::Message;
            self.message.extend_from_slice(come);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All messages of a text that comes in these pieces, with what is left at the end, if anything is.
    fn read(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut exchange, mut messages) = (Exchange::new(100), Vec::new());
        for piece in pieces {
            let mut rest = *piece;
            loop {
                let (taken, found) = exchange.advance(rest);
                rest = &rest[taken..];
                match found {
                    Found::NeedMore => break,
                    Found::Message(message) => messages.push(message),
                    Found::TooLong => panic!("nothing here is long"),
                }
            }
        }
        (messages, exchange.complete())
    }

    fn words(words: &[&str]) -> Vec<Vec<u8>> {
        words.iter().map(|word| word.as_bytes().to_vec()).collect()
    }

    #[test]
    fn a_message_ends_at_any_line_end_or_nul_and_may_have_none() {
        assert_eq!(
            read(&[b"a\nb\r\nc\0d\re"]),
            (words(&["a", "b", "c", "d"]), Some(b"e".to_vec()))
        );
        assert_eq!(read(&[b"na", b"me"]), (vec![], Some(b"name".to_vec())));
        assert_eq!(
            read(&[b"\n\nx\n"]),
            (words(&["", "", "x"]), None),
            "empty arguments are arguments"
        );
    }

    #[test]
    fn a_message_of_a_c_program_is_one_with_the_nuls_behind_it() {
        assert_eq!(read(&[b"name\n\0"]).0, words(&["name"]), "a line with its NUL");
        assert_eq!(
            read(&[b"name\0\0\0\0\0\0"]).0,
            words(&["name"]),
            "a buffer of a fixed size"
        );
        assert_eq!(read(&[b"name\r", b"\n", b"\0", b"next\n"]).0, words(&["name", "next"]));
    }

    #[test]
    fn a_message_that_is_too_long_is_noticed_before_its_end() {
        let mut exchange = Exchange::new(4);
        assert_eq!(exchange.advance(b"abcd"), (4, Found::NeedMore));
        assert_eq!(exchange.advance(b"\n"), (1, Found::Message(b"abcd".to_vec())));
        assert_eq!(exchange.advance(b"abc"), (3, Found::NeedMore));
        assert_eq!(exchange.advance(b"de").1, Found::TooLong);
        assert_eq!(Exchange::new(4).advance(b"abcde\n").1, Found::TooLong);
    }

    #[test]
    fn bytes_behind_the_end_of_the_last_message_are_input() {
        let behind = |first: &[u8], then: &[&[u8]]| {
            let mut exchange = Exchange::new(100);
            let (mut at, found) = exchange.advance(first);
            assert_eq!(found, Found::Message(b"name".to_vec()));
            let mut input = Vec::new();
            for piece in std::iter::once(&first[at..]).chain(then.iter().copied()) {
                at = exchange.finish(piece);
                input.extend_from_slice(&piece[at..]);
            }
            input
        };
        assert_eq!(behind(b"name\r\n\0\0input", &[b"\0more"]), b"input\0more");
        assert_eq!(
            behind(b"name\r", &[b"\ninput"]),
            b"input",
            "the LF of a CR that came alone"
        );
        assert_eq!(
            behind(b"name\n", &[b"\0\0binary"]),
            b"\0\0binary",
            "no padding: it came by itself"
        );
        assert_eq!(behind(b"name\n\ninput", &[]), b"\ninput");
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_bytes_are_cut(
            text in prop::collection::vec(prop::sample::select(vec![b'a', b'b', 0, b'\r', b'\n']), 0..30),
            first in 0usize..30,
            second in 0usize..30,
        ) {
            let (first, second) = (first.min(text.len()), second.min(text.len()));
            let (first, second) = (first.min(second), first.max(second));
            let whole = read(&[&text]);
            prop_assert_eq!(read(&[&text[..first], &text[first..second], &text[second..]]), whole.clone());
            let single: Vec<_> = text.iter().map(std::slice::from_ref).collect();
            prop_assert_eq!(read(&single), whole);
        }
    }
}
