//! Regular expressions over bytes, as the operator writes them.
//!
//! The syntax is that of the `regex` crate in its mode for bytes: `.` is a byte, `\w` and `(?i)` know ASCII. The time
//! of a search grows with the text alone. [`Pattern::is_in`] finds a pattern anywhere in a text unless it is anchored,
//! as grep(1) does; [`Pattern::is_all_of`] matches a text from its first byte to its last, as `grep -x` does.

use std::fmt;

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use regex_syntax::ast::Span;
use regex_syntax::hir::{Hir, Look};

/// One expression, ready for searches. Two are equal if they are written alike.
#[derive(Clone)]
pub struct Pattern {
    anywhere: Regex,
    /// The same expression, anchored on both sides. It is compiled with the first, so that a size over the limit shows
    /// at once and not with a request.
    whole: Regex,
}

/// The mistake in a text that is not an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed {
    /// The description of the mistake.
    pub what: String,
    /// The character of the text at which it stands, counted from 1. `None`: it is the text as a whole.
    pub at: Option<usize>,
}

impl Pattern {
    /// Parses and compiles an expression.
    ///
    /// # Errors
    /// The mistake and its place.
    pub fn new(text: &str) -> Result<Self, Malformed> {
        // The parser is called by itself first, because only its own error has the place of the mistake.
        let parsed = ParserBuilder::new().unicode(false).utf8(false).build().parse(text);
        let parsed = parsed.map_err(|error| match error {
            regex_syntax::Error::Parse(error) => Malformed::new(error.kind(), Some(error.span())),
            regex_syntax::Error::Translate(error) => Malformed::new(error.kind(), Some(error.span())),
            other => Malformed::new(&other, None),
        })?;
        // The anchors are added after parsing: in text, they could become part of a comment under `(?x)`.
        let whole = Hir::concat(vec![Hir::look(Look::Start), parsed, Hir::look(Look::End)]);
        Ok(Pattern {
            anywhere: compile(text)?,
            whole: compile(&whole.to_string())?,
        })
    }

    /// Returns true if the expression matches some part of these bytes.
    pub fn is_in(&self, bytes: &[u8]) -> bool {
        self.anywhere.is_match(bytes)
    }

    /// Returns true if it matches these bytes from the first to the last, anchored or not.
    pub fn is_all_of(&self, bytes: &[u8]) -> bool {
        self.whole.is_match(bytes)
    }

    /// Returns the expression as it was written.
    pub fn as_str(&self) -> &str {
        self.anywhere.as_str()
    }
}

fn compile(text: &str) -> Result<Regex, Malformed> {
    let compiled = RegexBuilder::new(text).unicode(false).build();
    compiled.map_err(|error| Malformed::new(&error, None))
}

impl Malformed {
    fn new(what: &impl fmt::Display, span: Option<&Span>) -> Self {
        Malformed {
            what: what.to_string(),
            at: span.map(|span| span.start.column),
        }
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_anywhere_unless_it_is_anchored() {
        let found = |pattern, text: &[u8]| Pattern::new(pattern).unwrap().is_in(text);
        assert!(found("status=302", b"OK status=302 url=\"x\""));
        assert!(found("^OK .*url=", b"OK status=302 url=\"x\""));
        assert!(!found("^status", b"OK status=302"));
        assert!(found("^ERR$", b"ERR") && !found("^ERR$", b"ERR message"));
        assert!(found(r"(?i)^ok \d+\b", b"Ok 17"));
    }

    #[test]
    fn the_whole_of_a_text_is_its_first_byte_to_its_last() {
        let whole = |pattern, text: &[u8]| Pattern::new(pattern).unwrap().is_all_of(text);
        assert!(whole("a|ab", b"ab") && whole("^a|b$", b"b") && !whole("^a|b$", b"ab"));
        assert!(whole("(?x) a b # )", b"ab") && !whole("(?x) a b # )", b"abc"));
        assert!(!whole("(?m)^a$", b"a\nb") && !whole("a", b"a\n"));
        assert!(whole("a.", b"a\xff") && whole(r"\xff", b"\xff") && whole("ü", "ü".as_bytes()));
        assert!(whole("(?i)OK", b"ok") && !whole("(?i)ok", "o\u{212a}".as_bytes()));
    }

    #[test]
    fn it_sees_bytes_and_not_characters() {
        let found = |pattern, text: &[u8]| Pattern::new(pattern).unwrap().is_in(text);
        assert!(found("^a.b$", b"a\xffb"));
        assert!(found(r"\xff", b"a\xffb"));
        assert!(found("ü", "für".as_bytes()));
        assert!(!found("^f.r$", "für".as_bytes()), "it is two bytes");
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let told = |pattern| {
            let Malformed { what, at } = Pattern::new(pattern).unwrap_err();
            (what, at)
        };
        assert_eq!(told("^OK (a|b"), ("unclosed group".to_owned(), Some(5)));
        assert_eq!(
            told("*"),
            ("repetition operator missing expression".to_owned(), Some(1))
        );
        assert_eq!(told("äö["), ("unclosed character class".to_owned(), Some(3)));
        let (what, at) = told(r"\p{Greek}");
        assert!(what.contains("Unicode") && at == Some(1), "{what} {at:?}");
        let (what, at) = told("((a{1000}){1000}){1000}");
        assert!(what.contains("size limit") && at.is_none(), "{what} {at:?}");
    }
}
