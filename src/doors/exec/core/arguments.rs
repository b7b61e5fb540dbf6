//! The words that a program is started with: its name, then its arguments.
//!
//! They lie in one buffer, each with a NUL behind it, as the kernel has them: a word costs its bytes and one more,
//! however many words there are. Once the program is started, they are needed for log lines alone, and the bytes that
//! no log line shows are dropped ([`Arguments::shorten`]).

/// Words without a NUL. The last one may be growing, until [`end_word`](Self::end_word).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments {
    bytes: Vec<u8>,
    /// The number of words that were given, with the ones that were dropped.
    given: usize,
}

impl Arguments {
    /// Appends to the word that is growing. The bytes must hold no NUL.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Ends the word that is growing, and begins the next one.
    pub fn end_word(&mut self) {
        self.bytes.push(0);
        self.given += 1;
    }

    /// Frees unused memory. Must be called when the last word has ended.
    pub fn complete(mut self) -> Self {
        self.bytes.shrink_to_fit();
        self
    }

    /// The number of words that were given.
    pub fn given(&self) -> usize {
        self.given
    }

    /// The first word: the name of the program.
    pub fn name(&self) -> Option<&[u8]> {
        self.words().next()
    }

    /// The complete words that are held.
    pub fn words(&self) -> impl Iterator<Item = &[u8]> + Clone {
        let complete = memchr::memrchr(0, &self.bytes).and_then(|end| self.bytes.get(..end));
        complete.into_iter().flat_map(|words| words.split(|byte| *byte == 0))
    }

    /// Drops all but the first `words` words, and of each all but its first `bytes` bytes.
    pub fn shorten(&mut self, words: usize, bytes: usize) {
        if self.given <= words && self.bytes.len() <= bytes {
            return;
        }
        let mut kept = Vec::new();
        for word in self.words().take(words) {
            kept.extend_from_slice(word.get(..bytes).unwrap_or(word));
            kept.push(0);
        }
        kept.shrink_to_fit();
        self.bytes = kept;
    }

    /// The memory that they take, in bytes.
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
