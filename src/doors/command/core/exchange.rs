//! What a client sends: a name, then arguments one by one, then input for the program.
//!
//! torcd took whatever one read gave for a message, cut at the first NUL, CR or LF, and its clients rely on that: they send
//! a name without any terminator and wait for the prompt. So a message ends at LF, CR LF, CR or NUL, or when the caller
//! finds that nothing more has come for a while ([`Exchange::complete`]). A line and its NUL, or a buffer that is filled up
//! with NULs, is one message: NULs right behind an end are part of it. No byte is looked at twice.

/// What was found in the bytes at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// All of them are read; of a message that has begun the end is not there.
    NeedMore,
    /// A message, without what ended it.
    Message(Vec<u8>),
    /// A message longer than is allowed, whatever follows.
    TooLong,
}

/// Cuts what comes into messages.
#[derive(Debug, Clone)]
pub struct Exchange {
    longest: usize,
    /// What has come of a message.
    message: Vec<u8>,
    behind: Behind,
}

/// What the last byte was, as far as it matters for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// A byte of a message, or nothing.
    Message,
    /// A CR that has ended a message: an LF belongs to it, and NULs.
    Cr,
    /// An end: NULs belong to it.
    End,
}

impl Exchange {
    /// For messages of at most `longest` bytes.
    pub fn new(longest: usize) -> Self {
        Exchange {
            longest,
            message: Vec::new(),
            behind: Behind::Message,
        }
    }

    /// Whether part of a message has come.
    pub fn is_pending(&self) -> bool {
        !self.message.is_empty()
    }

    /// Reads on, up to the end of a message; how many bytes that took, all that belongs to the end and is at hand included.
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

    /// Nothing has come for a while, or nothing more will: what there is, is a message.
    pub fn complete(&mut self) -> Option<Vec<u8>> {
        self.is_pending().then(|| std::mem::take(&mut self.message))
    }

    /// The last message has come, and these are the bytes behind it that came with it: how many of them still belong to its
    /// end. What follows is none of this file's business.
    pub fn finish(&mut self, bytes: &[u8]) -> usize {
        let skipped = self.skip_rest_of_end(bytes);
        if self.behind == Behind::End {
            // NULs that come later are what they are.
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

    /// Keeps what has come of a message; whether there is room for it.
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
    fn what_c_programs_send_is_one_message() {
        assert_eq!(read(&[b"name\n\0"]).0, words(&["name"]), "a line with its NUL");
        assert_eq!(
            read(&[b"name\0\0\0\0\0\0"]).0,
            words(&["name"]),
            "a buffer of a fixed size"
        );
        assert_eq!(read(&[b"name\r", b"\n", b"\0", b"next\n"]).0, words(&["name", "next"]));
    }

    #[test]
    fn what_is_too_long_is_found_out_before_its_end() {
        let mut exchange = Exchange::new(4);
        assert_eq!(exchange.advance(b"abcd"), (4, Found::NeedMore));
        assert_eq!(exchange.advance(b"\n"), (1, Found::Message(b"abcd".to_vec())));
        assert_eq!(exchange.advance(b"abc"), (3, Found::NeedMore));
        assert_eq!(exchange.advance(b"de").1, Found::TooLong);
        assert_eq!(Exchange::new(4).advance(b"abcde\n").1, Found::TooLong);
    }

    #[test]
    fn what_follows_the_last_message_is_left_alone_but_for_the_end_of_it() {
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
