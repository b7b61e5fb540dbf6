//! The name by which a client asks for a service, in the one form in which names are compared.
//!
//! DNS compares names without regard to case, and a dot at their end only says that they are complete (RFC 4343, RFC
//! 1034, section 3.1). So `WWW.Example.org.` and `www.example.org` are one name here. A name from a client is parsed
//! once, into a buffer of its own: looking a name up allocates nothing.
//!
//! Bytes that cannot be a name (see [`Name::parse`]) are the name of no service. The log shows such bytes escaped; they
//! are never looked up.

use std::fmt;

/// The longest name in bytes, without a dot at its end (RFC 1035, section 2.3.4).
pub const LONGEST: usize = 253;

/// A name in lower case, without a dot at its end. Never empty.
#[derive(Clone, Copy)]
pub struct Name {
    length: u8,
    bytes: [u8; LONGEST],
}

impl Name {
    /// Returns the name that these bytes spell. `None` if they cannot be a name: they are longer than [`LONGEST`], hold
    /// a blank, a control character or what is not ASCII, or a label of it is empty.
    pub fn parse(bytes: &[u8]) -> Option<Name> {
        let bytes = bytes.strip_suffix(b".").unwrap_or(bytes);
        let length = u8::try_from(bytes.len()).ok()?;
        let mut name = Name {
            length,
            bytes: [0; LONGEST],
        };
        let place = name.bytes.get_mut(..bytes.len())?;
        place.copy_from_slice(bytes);
        place.make_ascii_lowercase();
        let is_name =
            bytes.iter().all(u8::is_ascii_graphic) && bytes.split(|byte| *byte == b'.').all(|l| !l.is_empty());
        is_name.then_some(name)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Name) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Name {}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(bytes: &[u8]) -> Option<String> {
        Name::parse(bytes).map(|name| name.to_string())
    }

    #[test]
    fn a_name_is_compared_without_regard_to_case_and_to_a_dot_at_its_end() {
        for written in [
            "www.example.org",
            "WWW.eXaMpLe.ORG",
            "www.example.org.",
            "WWW.EXAMPLE.ORG.",
        ] {
            assert_eq!(
                parsed(written.as_bytes()).as_deref(),
                Some("www.example.org"),
                "{written}"
            );
        }
        let plain = [
            "localhost",
            "_dmarc.example.org",
            "xn--bcher-kva.example",
            "10.0.0.1",
            "::1",
            "a",
        ];
        for written in plain {
            assert_eq!(parsed(written.as_bytes()).as_deref(), Some(written));
        }
    }

    #[test]
    fn bytes_that_cannot_be_a_name_are_the_name_of_no_service() {
        let none: [&[u8]; 16] = [
            b"",
            b".",
            b"..",
            b"a..",
            b"a..b",
            b".a",
            b"a b",
            b" a",
            b"a\t",
            b"a\0",
            b"\0",
            b"a\n",
            b"a\x7f",
            b"b\xc3\xbccher.example",
            b"\xff",
            b"www.example.org .",
        ];
        for bytes in none {
            assert_eq!(parsed(bytes), None, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_name_has_at_most_253_bytes_without_its_last_dot() {
        let longest = format!("{}a", "a.".repeat(126));
        assert_eq!(longest.len(), LONGEST);
        assert_eq!(parsed(longest.as_bytes()), Some(longest.clone()));
        assert_eq!(parsed(format!("{longest}.").as_bytes()), Some(longest.clone()));
        for length in [LONGEST + 1, 255, 256, 300, 509, 16_000] {
            assert_eq!(parsed("a".repeat(length).as_bytes()), None, "{length}");
        }
        assert_eq!(parsed(format!("{longest}..").as_bytes()), None);
    }
}
