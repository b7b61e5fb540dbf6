//! The tokens of a text: the parts between blanks and comments.

use std::ops::Range;

use super::SyntaxError;
use super::number::number;
use crate::config::bytes;
use crate::config::quote::Quoted;

/// A part of the text with a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    /// Its range in the text, in bytes; never empty, except for [`TokenKind::End`].
    pub(super) span: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TokenKind {
    /// A word that may be the name of a setting.
    Name,
    /// `=` or `:`.
    Equals,
    Comma,
    Semicolon,
    Open(Bracket),
    Close(Bracket),
    Boolean(bool),
    /// A number in the syntax of TOML; `None` after a mistake in it, which has been noted.
    Number(Option<String>),
    /// The value of a quoted text; `None` after a mistake in it, which has been noted.
    Text(Option<String>),
    /// The name of a file whose tokens belong here.
    Include(String),
    /// Characters that are no token, which has been noted.
    Stray,
    /// The end of the text.
    End,
}

/// The kind of brackets around settings or values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    /// `{}`
    Group,
    /// `()`
    List,
    /// `[]`
    Array,
}

impl Bracket {
    pub(super) const fn open(self) -> char {
        match self {
            Bracket::Group => '{',
            Bracket::List => '(',
            Bracket::Array => '[',
        }
    }

    pub(super) const fn close(self) -> char {
        match self {
            Bracket::Group => '}',
            Bracket::List => ')',
            Bracket::Array => ']',
        }
    }
}

/// Returns all tokens of a text, the last of them its end, and the mistakes.
pub(super) fn tokens(text: &str) -> (Vec<Token>, Vec<SyntaxError>) {
    let mut lexer = Lexer {
        text,
        at: 0,
        errors: Vec::new(),
    };
    // Some editors write a byte order mark at the start of a file.
    if text.starts_with('\u{feff}') {
        lexer.skip('\u{feff}'.len_utf8());
    }
    let mut tokens = Vec::new();
    while let Some(first) = lexer.peek() {
        let start = lexer.at;
        if let Some(kind) = lexer.read_token(first) {
            tokens.push(Token {
                kind,
                span: start..lexer.at,
            });
        }
    }
    tokens.push(Token {
        kind: TokenKind::End,
        span: text.len()..text.len(),
    });
    (tokens, lexer.errors)
}

struct Lexer<'t> {
    text: &'t str,
    /// The offset of the next character to read.
    at: usize,
    errors: Vec<SyntaxError>,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// Moves past the first `length` bytes of the rest.
    fn skip(&mut self, length: usize) {
        self.at = self.text.len().min(self.at.saturating_add(length));
    }

    /// Moves past the characters that `belongs` accepts, and returns them.
    fn skip_while(&mut self, belongs: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let rest = self.rest();
        let length = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.skip(length);
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn note(&mut self, offset: usize, text: impl Into<String>) {
        let text = text.into();
        self.errors.push(SyntaxError { offset, text });
    }

    /// Reads the token that begins with `first`; `None` for blanks and comments.
    fn read_token(&mut self, first: char) -> Option<TokenKind> {
        match first {
            ' ' | '\t' | '\n' | '\r' | '\u{c}' => {
                self.skip(1);
                None
            }
            '#' => self.skip_comment(),
            '/' if self.rest().starts_with("//") => self.skip_comment(),
            '/' if self.rest().starts_with("/*") => self.skip_long_comment(),
            '"' => Some(self.read_string()),
            '@' => self.read_include(),
            '=' | ':' => self.read_single(TokenKind::Equals),
            ',' => self.read_single(TokenKind::Comma),
            ';' => self.read_single(TokenKind::Semicolon),
            '{' => self.read_single(TokenKind::Open(Bracket::Group)),
            '(' => self.read_single(TokenKind::Open(Bracket::List)),
            '[' => self.read_single(TokenKind::Open(Bracket::Array)),
            '}' => self.read_single(TokenKind::Close(Bracket::Group)),
            ')' => self.read_single(TokenKind::Close(Bracket::List)),
            ']' => self.read_single(TokenKind::Close(Bracket::Array)),
            '0'..='9' | '+' | '-' | '.' => Some(self.read_number()),
            'A'..='Z' | 'a'..='z' | '*' => Some(self.read_name()),
            other => Some(self.read_stray(other)),
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is an arm of `read_token`")]
    fn read_single(&mut self, kind: TokenKind) -> Option<TokenKind> {
        self.skip(1);
        Some(kind)
    }

    fn skip_comment(&mut self) -> Option<TokenKind> {
        self.skip_while(|c| c != '\n');
        None
    }

    fn skip_long_comment(&mut self) -> Option<TokenKind> {
        let start = self.at;
        self.skip(2);
        match self.rest().find("*/") {
            Some(length) => self.skip(length.saturating_add(2)),
            None => {
                self.note(start, "this comment does not end; write `*/` behind it");
                self.at = self.text.len();
            }
        }
        None
    }

    fn read_include(&mut self) -> Option<TokenKind> {
        const WORD: &str = "@include";
        let start = self.at;
        if !self.rest().starts_with(WORD) {
            self.skip_while(|c| c != '\n');
            let text = "`@` does not belong here; leave it out, or write quotes around the text";
            self.note(start, text);
            return None;
        }
        self.skip(WORD.len());
        self.skip_while(|c| matches!(c, ' ' | '\t'));
        if self.peek() == Some('"') {
            // `None` after a mistake, which has been noted.
            return match self.read_string() {
                TokenKind::Text(Some(file)) => Some(TokenKind::Include(file)),
                _ => None,
            };
        }
        self.skip_while(|c| c != '\n');
        self.note(
            start,
            "the name of a file is missing behind this; write for example @include \"more.cfg\"",
        );
        None
    }

    /// Reads everything up to the next character with a meaning, as one mistake.
    fn read_stray(&mut self, first: char) -> TokenKind {
        let start = self.at;
        self.skip(first.len_utf8());
        self.skip_while(|c| !c.is_ascii() || matches!(c, '!' | '$' | '%' | '&' | '\'' | '<' | '>' | '?' | '\\' | '^'));
        let written = self.text.get(start..self.at).unwrap_or_default();
        let text = format!(
            "{} does not belong here; write \" around text, or leave it out",
            Quoted(written)
        );
        self.note(start, text);
        TokenKind::Stray
    }

    fn read_name(&mut self) -> TokenKind {
        let name = self.skip_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '*'));
        if name.eq_ignore_ascii_case("true") {
            TokenKind::Boolean(true)
        } else if name.eq_ignore_ascii_case("false") {
            TokenKind::Boolean(false)
        } else {
            TokenKind::Name
        }
    }

    /// Reads digits with all characters directly after them, so that `12abc` is one mistake and not two tokens.
    fn read_number(&mut self) -> TokenKind {
        let start = self.at;
        let signs = |c| matches!(c, '+' | '-');
        self.skip_while(signs);
        let begun = self.skip_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        // A sign continues a number only in an exponent, and `e` is a digit in a hexadecimal number.
        let hexadecimal = begun.starts_with("0x") || begun.starts_with("0X");
        if begun.ends_with(['e', 'E']) && !hexadecimal && self.rest().starts_with(signs) {
            self.skip(1);
            self.skip_while(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        }
        let written = self.text.get(start..self.at).unwrap_or_default();
        let number = number(written).map_err(|text| self.note(start, text));
        TokenKind::Number(number.ok())
    }

    /// Reads the text between two quotes; it may have several lines.
    fn read_string(&mut self) -> TokenKind {
        let start = self.at;
        self.skip(1);
        let mut said = Vec::new();
        loop {
            let plain = self.skip_while(|c| !matches!(c, '"' | '\\'));
            said.extend(bytes::bytes(plain));
            match self.peek() {
                Some('\\') => self.read_escape(&mut said),
                Some(_) => break self.skip(1),
                None => {
                    self.note(start, "this text does not end; write \" behind it");
                    return TokenKind::Text(None);
                }
            }
        }
        TokenKind::Text(Some(bytes::text(&said).into_owned()))
    }

    /// Reads an escape sequence. A backslash before any other character is literal, as in libconfig, so a regular
    /// expression needs no doubled backslashes.
    fn read_escape(&mut self, bytes: &mut Vec<u8>) {
        self.skip(1);
        let (byte, length) = match self.peek() {
            Some('n') => (b'\n', 1),
            Some('r') => (b'\r', 1),
            Some('t') => (b'\t', 1),
            Some('f') => (0x0c, 1),
            Some('"') => (b'"', 1),
            Some('\\') => (b'\\', 1),
            Some('x' | 'X') => match self.rest().get(1..3).and_then(hexadecimal) {
                Some(byte) => (byte, 3),
                None => (b'\\', 0),
            },
            _ => (b'\\', 0),
        };
        bytes.push(byte);
        self.skip(length);
    }
}

fn hexadecimal(digits: &str) -> Option<u8> {
    let all_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    all_digits.then(|| u8::from_str_radix(digits, 16).ok())?
}
