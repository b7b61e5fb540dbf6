//! The syntax of torcd's configuration, which is that of libconfig: `port = 3699; processes = ( { name = "echo"; } );`.
//!
//! The life of a text: [`lexer`] splits it into tokens, `parser` builds a table of them, with the position of every key
//! and value. The table has the type into which a TOML file is parsed, so that both kinds of file are processed alike
//! from there: the same keys, the same messages. The accepted syntax is that of libconfig 1.8 (its manual,
//! "Configuration Files", and its scanner where the manual is silent), with two exceptions: a number with a leading
//! zero, which some readers take for octal, is a mistake; and a text continues after a NUL, where it would end for
//! libconfig, so that the reader of the value can refuse it as a whole. Included files (`includes`) become parts of one
//! text, so that an offset in it identifies a position in a file.
//!
//! Invariants: any text is read to its end, in time proportional to its length, on a stack that does not grow with it
//! ([`DEEPEST`]); a mistake is at a character of the text, and no mistake is ignored. The meaning of settings is
//! unknown here.

mod includes;
mod lexer;
mod number;
mod parser;

use self::includes::Gathered;
pub use self::includes::{Open, Opened, Part};
use toml::de::DeTable;

/// The depth to which groups and lists may be nested; a useful file needs four.
const DEEPEST: usize = 16;

/// A mistake in the syntax of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The offset of the mistake, in bytes from the start of the text.
    pub offset: usize,
    /// The mistake and its remedy.
    pub text: String,
}

/// A text and the files it includes, as tokens. The settings borrow numbers from it, so it has to outlive them.
#[derive(Debug)]
pub struct Document {
    gathered: Gathered,
}

impl Document {
    /// Splits a text with this name into tokens.
    #[must_use]
    pub fn new(name: &str, text: &str, open: Open<'_>) -> Self {
        let gathered = Gathered::gather(name.to_owned(), text, open);
        Self { gathered }
    }

    /// Returns the concatenated texts of all files, to which the offsets refer.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.gathered.text
    }

    /// Returns the files in that text, with their beginnings.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.gathered.parts
    }

    /// Returns the readable settings, and the mistakes in the order of the text.
    ///
    /// Groups are tables; lists and arrays are arrays. Keys are as they were written.
    #[must_use]
    pub fn settings(&self) -> (DeTable<'_>, Vec<SyntaxError>) {
        let (table, of_parser) = parser::settings(&self.gathered.text, &self.gathered.tokens);
        let mut errors = self.gathered.errors.clone();
        errors.extend(of_parser);
        errors.sort_by_key(|error| error.offset);
        (table, errors)
    }
}

#[cfg(test)]
mod tests;
