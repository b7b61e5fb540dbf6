//! A text with the files that it includes, as one: `@include "file"` stands for the tokens of that file.
//!
//! All texts are laid one behind the other, each with a name and the place where it begins, so that an offset in the whole says
//! which file it is in, and where. The tokens are in the order in which they are read.
//!
//! What holds: a file that is included by itself, or by what it includes, is a mistake where that is written; so is a depth over
//! [`DEEPEST_INCLUDE`], as in libconfig. Each file may include others many times, so there is an end to what is read altogether,
//! [`LARGEST`] and [`MOST_INCLUDES`]: what would be beyond is one mistake, and no file is opened after it.

use super::Misread;
use super::lexer::{self, Kind, Token};

/// How deeply files may include each other: `MAX_INCLUDE_DEPTH` of libconfig.
const DEEPEST_INCLUDE: usize = 10;
/// How long all texts may be together.
const LARGEST: usize = 16 * 1024 * 1024;
/// How many files may be included altogether, one that is included twice counted twice.
const MOST_INCLUDES: usize = 1000;

/// One text in the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where it begins, in bytes.
    pub start: usize,
    /// What its file is called in messages.
    pub name: String,
}

/// How a file is opened that another names: its name as written, and what the files are called whose text is being gone through,
/// each included by the one before it; the last is that other. If there is none, what comes back is why, with what to do.
pub type Open<'o> = &'o mut dyn FnMut(&str, &[String]) -> Result<Opened, String>;

/// A file that another names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opened {
    /// What it is called, and its text.
    Text(String, String),
    /// It is the one of that name whose text is being gone through: there is no use in reading it again.
    Itself(String),
}

/// What gathering has come to.
#[derive(Debug, Default)]
pub(super) struct Whole {
    pub(super) text: String,
    pub(super) parts: Vec<Part>,
    pub(super) tokens: Vec<Token>,
    pub(super) misread: Vec<Misread>,
    /// The files whose text is being gone through, each included by the one before it.
    open: Vec<String>,
    /// How often a file was to be opened, whatever came of it.
    opened: usize,
    /// There is more than may be read: nothing more is included.
    is_over: bool,
}

impl Whole {
    /// The tokens of a text, and of all that it includes.
    pub(super) fn gather(name: String, text: &str, open: Open<'_>) -> Self {
        let mut whole = Whole::default();
        whole.add(name, text, open);
        // Of the first, behind everything: what is missing there is missing at its end.
        let end = text.len();
        whole.tokens.push(Token {
            kind: Kind::End,
            span: end..end,
        });
        whole
    }

    fn add(&mut self, name: String, text: &str, open: Open<'_>) {
        let start = self.text.len();
        self.parts.push(Part {
            start,
            name: name.clone(),
        });
        self.text.push_str(text);
        // So that the end of one is not the beginning of the next.
        self.text.push('\n');
        let (tokens, misread) = lexer::tokens(text);
        self.misread.extend(misread.into_iter().map(|misread| Misread {
            offset: misread.offset.saturating_add(start),
            text: misread.text,
        }));
        self.open.push(name);
        for Token { kind, span } in tokens {
            let place = span.start.saturating_add(start);
            match kind {
                Kind::End => {}
                Kind::Include(file) => {
                    if let Err(text) = self.include(&file, open) {
                        self.misread.push(Misread { offset: place, text });
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
