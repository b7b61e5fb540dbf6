//! The words that a client has a program started with: its name, then its arguments.
//!
//! They lie in one buffer, one behind the other with a NUL behind each, as the kernel has them: a word costs its bytes and one
//! more, however many there are. A program is started with all of them; from then on a log line is all that they are for, and
//! what that does not show is given up ([`Arguments::shorten`]).

/// Words without a NUL. The last one may be growing, until [`end_word`](Self::end_word).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    bytes: Vec<u8>,
    /// How many were given, those that are no longer held among them.
    given: usize,
}

impl Arguments {
    /// More of the word that is growing; it is the caller who sees to it that there is no NUL among the bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The word that is growing is complete; the next one begins.
    pub fn end_word(&mut self) {
        self.bytes.push(0);
        self.given += 1;
    }

    /// No more come: what is held is as much as they need.
    pub fn complete(mut self) -> Self {
        self.bytes.shrink_to_fit();
        self
    }

    /// How many words were given.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The complete words, as far as they are held.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> {
        let complete = memchr::memrchr(0, &self.bytes).and_then(|end| self.bytes.get(..end));
        complete.into_iter().flat_map(|words| words.split(|byte| *byte == 0))
    }

    /// Gives up all but so many words, and of each all but so many bytes.
    pub fn shorten(&mut self, words: usize, bytes: usize) {
        let mut kept = Vec::new();
        for word in self.words().take(words) {
            kept.extend_from_slice(word.get(..bytes).unwrap_or(word));
            kept.push(0);
        }
        kept.shrink_to_fit();
        self.bytes = kept;
    }

    /// How much memory they take.
    pub fn size(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&[u8]]) -> Arguments {
        let mut arguments = Arguments::default();
        for word in words {
            arguments.extend(word);
            arguments.end_word();
        }
        arguments.complete()
    }

    fn words(arguments: &Arguments) -> Vec<&[u8]> {
        arguments.words().collect()
    }

    #[test]
    fn words_are_read_as_they_were_given() {
        for given in [
            &[][..],
            &[&b""[..]],
            &[b"ls"],
            &[b"", b"", b""],
            &[b"printf", b"", b"%s\n", b"x"],
        ] {
            let held = arguments(given);
            assert_eq!((words(&held), held.given()), (given.to_vec(), given.len()));
        }
        let mut growing = arguments(&[b"ls"]);
        growing.extend(b"-");
        assert_eq!(words(&growing), [b"ls"]);
    }

    /// 95,000 words of one byte took 5.3 MB, each in a buffer of its own.
    #[test]
    fn a_word_costs_its_bytes_and_one_more() {
        let many = vec![&b"x"[..]; 95_000];
        let mut held = arguments(&many);
        assert_eq!((held.size(), held.words().count()), (190_000, 95_000));
        held.shorten(16, 200);
        assert_eq!((held.size(), held.given()), (32, 95_000));
        assert_eq!(words(&held), [b"x"; 16]);
        let mut long = arguments(&[&b"y".repeat(100_000), b"z"]);
        long.shorten(16, 200);
        assert_eq!((long.size(), words(&long)), (203, vec![&b"y".repeat(200)[..], b"z"]));
    }
}
