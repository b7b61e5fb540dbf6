//! The syntax of torcd's configuration, which is that of libconfig: `port = 3699; processes = ( { name = "echo"; } );`.
//!
//! The way of a text: [`lexer`] cuts it into tokens, `parser` makes a table of them, with the place of every key and value.
//! The table is of the kind that a TOML file is read into, so that from there on both kinds of file go one way: the same
//! keys, the same words about mistakes. What is read is what libconfig 1.8 reads (its manual, "Configuration Files", and its
//! scanner where the manual is silent), with two exceptions: a number with a leading zero, which is octal to some readers, is a
//! mistake; and a text goes on behind a NUL, where it would end for libconfig, so that whoever needs the text can refuse it as a
//! whole. Files that are included (`includes`) become parts of one text, so that a place in it is one in a file.
//!
//! What holds: any text is read to its end, in time that grows with its length, on a stack that does not ([`DEEPEST`]); a
//! mistake stands at a character of the text, and no mistake is passed over. What settings mean is not known here.

mod includes;
mod lexer;
mod number;
mod parser;

use self::includes::Whole;
pub use self::includes::{Open, Opened, Part};
use toml::de::DeTable;

/// How deeply groups and lists may stand in each other; what is to be said here needs four.
const DEEPEST: usize = 16;

/// Something in a text that libconfig's syntax does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misread {
    /// Where, in bytes from the start of the text.
    pub offset: usize,
    /// What is wrong; what to write instead.
    pub text: String,
}

/// A text and what it includes, cut into tokens. Numbers are borrowed from here by the settings, so it has to outlive them.
#[derive(Debug)]
pub struct Document {
    whole: Whole,
}

impl Document {
    /// Cuts a text, which is called `name`.
    #[must_use]
    pub fn new(name: &str, text: &str, open: Open<'_>) -> Self {
        let whole = Whole::gather(name.to_owned(), text, open);
        Self { whole }
    }

    /// The texts of all files, one behind the other: what offsets are in.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.whole.text
    }

    /// Which file is where in it.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.whole.parts
    }

    /// The settings, as many as could be read, and what could not be, in the order of the text.
    ///
    /// Groups are tables; lists and arrays are arrays. Keys are as they were written.
    #[must_use]
    pub fn settings(&self) -> (DeTable<'_>, Vec<Misread>) {
        let (table, of_parser) = parser::settings(&self.whole.text, &self.whole.tokens);
        let mut misread = self.whole.misread.clone();
        misread.extend(of_parser);
        misread.sort_by_key(|misread| misread.offset);
        (table, misread)
    }
}

#[cfg(test)]
mod tests;
