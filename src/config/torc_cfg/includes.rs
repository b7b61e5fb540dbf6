//! A text together with the files that it includes: `@include "file"` stands for the tokens of that file.
//!
//! All texts are concatenated, each with a name and the offset where it begins, so that an offset in the whole
//! identifies the file and the position in it. The tokens are in the order in which they are read.
//!
//! Invariants: a file that includes itself, directly or through others, is a mistake at that place; so is a depth above
//! [`DEEPEST_INCLUDE`], as in libconfig. Each file may include others many times, so the total is limited by
//! [`LARGEST`] and [`MOST_INCLUDES`]: exceeding a limit is one mistake, and no file is opened after it.

use super::SyntaxError;
use super::lexer::{self, Token, TokenKind};

/// The depth to which files may include each other: `MAX_INCLUDE_DEPTH` of libconfig.
const DEEPEST_INCLUDE: usize = 10;
/// The largest total length of all texts, in bytes.
const LARGEST: usize = 16 * 1024 * 1024;
/// The largest total number of included files; a file that is included twice counts twice.
const MOST_INCLUDES: usize = 1000;

/// One text in the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The offset of its beginning, in bytes.
    pub start: usize,
    /// The name of its file in messages.
    pub name: String,
}

/// Opens an included file: the arguments are its name as written, and the names of the files being read, each included
/// by the one before it. An error is the message about the mistake, with its remedy.
pub type Open<'o> = &'o mut dyn FnMut(&str, &[String]) -> Result<Opened, String>;

/// The result of opening an included file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// The name of the file, and its text.
    Text(String, String),
    /// The file with this name is being read already, so it includes itself.
    Itself(String),
}

/// The texts and tokens gathered so far.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) text: String,
    pub(super) parts: Vec<Part>,
    pub(super) tokens: Vec<Token>,
    pub(super) errors: Vec<SyntaxError>,
    /// The names of the files being read, each included by the one before it.
    open: Vec<String>,
    /// The number of files that were to be opened, successfully or not.
    opened: usize,
    /// True after a limit was exceeded: nothing more is included.
    is_over: bool,
}

impl Gathered {
    /// Returns the tokens of a text, and of everything that it includes.
    pub(super) fn gather(name: String, text: &str, open: Open<'_>) -> Self {
        let mut gathered = Gathered::default();
        gathered.add(name, text, open);
        // The end is that of the first text, because something missing there is missing at its end.
        let end = text.len();
        gathered.tokens.push(Token {
            kind: TokenKind::End,
            span: end..end,
        });
        gathered
    }

    fn add(&mut self, name: String, text: &str, open: Open<'_>) {
        let start = self.text.len();
        self.parts.push(Part {
            start,
            name: name.clone(),
        });
        self.text.push_str(text);
        // The newline separates the last token of a text from the first of the next.
        self.text.push('\n');
        let (tokens, errors) = lexer::tokens(text);
        self.errors.extend(errors.into_iter().map(|error| SyntaxError {
            offset: error.offset.saturating_add(start),
            text: error.text,
        }));
        self.open.push(name);
        for Token { kind, span } in tokens {
            let place = span.start.saturating_add(start);
            match kind {
                TokenKind::End => {}
                TokenKind::Include(file) => {
                    if let Err(text) = self.include(&file, open) {
                        self.errors.push(SyntaxError { offset: place, text });
                    }
                }
                kind => self.tokens.push(Token {
                    kind,
                    span: place..span.end.saturating_add(start),
                }),
            }
        }
        self.open.pop();
    }

    fn include(&mut self, file: &str, open: Open<'_>) -> Result<(), String> {
        if self.open.len() > DEEPEST_INCLUDE {
            return Err(format!(
                "files include each other more than {DEEPEST_INCLUDE} deep here; write these settings into this file"
            ));
        }
        if self.is_over {
            return Ok(());
        }
        if self.opened >= MOST_INCLUDES {
            self.is_over = true;
            return Err(format!(
                "more than {MOST_INCLUDES} files are included; leave some of them out"
            ));
        }
        self.opened += 1;
        let (name, text) = match open(file, &self.open)? {
            Opened::Text(name, text) => (name, text),
            Opened::Itself(name) => return Err(format!("{name} includes itself in this way; leave this out")),
        };
        if self.text.len().saturating_add(text.len()) > LARGEST {
            self.is_over = true;
            return Err("all that is included is more than 16 MiB; leave some of it out".to_owned());
        }
        self.add(name, &text, open);
        Ok(())
    }
}
