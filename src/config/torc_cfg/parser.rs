//! The settings in a sequence of tokens.
//!
//! After a mistake, parsing continues where something known begins: after the next `;`, at a name with `=` after it, or
//! at the bracket that closes the present group or list. So one mistake does not hide the next, and seldom causes
//! another.

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::lexer::{Bracket, Token, TokenKind};
use super::{DEEPEST, SyntaxError};
use crate::config::quote::Quoted;

/// Returns the settings that the tokens of a text form, and the mistakes.
pub(super) fn settings<'t>(text: &'t str, tokens: &'t [Token]) -> (DeTable<'t>, Vec<SyntaxError>) {
    let mut parser = Parser {
        text,
        tokens,
        at: 0,
        open: Vec::new(),
        errors: Vec::new(),
    };
    let table = parser.parse_settings();
    (table, parser.errors)
}

struct Parser<'t> {
    text: &'t str,
    /// The tokens; the last one is the end.
    tokens: &'t [Token],
    /// The index of the next token.
    at: usize,
    /// The brackets that are open, the innermost last.
    open: Vec<Bracket>,
    errors: Vec<SyntaxError>,
}

impl<'t> Parser<'t> {
    fn kind_at(&self, at: usize) -> &'t TokenKind {
        self.tokens.get(at).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn kind(&self) -> &'t TokenKind {
        self.kind_at(self.at)
    }

    /// Returns true if the next token is a name that begins a setting.
    fn is_at_setting(&self) -> bool {
        *self.kind() == TokenKind::Name && *self.kind_at(self.at.saturating_add(1)) == TokenKind::Equals
    }

    fn offset(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.text.len(), |token| token.span.start)
    }

    /// Returns the next token as it was written.
    fn written(&self) -> &'t str {
        let span = self.tokens.get(self.at).map(|token| token.span.clone());
        span.and_then(|span| self.text.get(span)).unwrap_or_default()
    }

    fn advance(&mut self) {
        self.at = self.at.saturating_add(1).min(self.tokens.len());
    }

    /// Returns the offset of the end of the previous token.
    fn end_of_last(&self) -> usize {
        let last = self.at.checked_sub(1).and_then(|last| self.tokens.get(last));
        last.map_or(0, |token| token.span.end)
    }

    fn note(&mut self, offset: usize, text: impl Into<String>) {
        let text = text.into();
        self.errors.push(SyntaxError { offset, text });
    }

    /// Parses settings up to the end of the text, or to a bracket that closes an open one.
    fn parse_settings(&mut self) -> DeTable<'t> {
        let mut table = DeTable::new();
        loop {
            match self.kind() {
                TokenKind::End => return table,
                TokenKind::Close(bracket) if self.open.contains(bracket) => return table,
                TokenKind::Close(_) => self.note_unmatched(),
                TokenKind::Semicolon | TokenKind::Comma | TokenKind::Stray => self.advance(),
                TokenKind::Name => self.parse_setting(&mut table),
                _ => {
                    let text = "no setting begins like this; write a name, `=` and a value, such as port = 3699";
                    self.note(self.offset(), text);
                    self.recover();
                }
            }
        }
    }

    fn parse_setting(&mut self, table: &mut DeTable<'t>) {
        let (name, begin) = (self.written(), self.offset());
        self.advance();
        let key = Spanned::new(begin..self.end_of_last(), name.into());
        match self.kind() {
            TokenKind::Equals => self.advance(),
            // The characters that were noted are part of the name.
            TokenKind::Stray => return self.recover(),
            _ => {
                let text = format!("{} has no value; write `=` and a value behind it", Quoted(name));
                self.note(begin, text);
                return self.recover();
            }
        }
        let Some(value) = self.parse_value() else {
            if *self.kind() == TokenKind::Equals {
                self.recover();
            }
            return;
        };
        if table.contains_key(name) {
            let text = format!("{} is set a second time; keep one of the two", Quoted(name));
            self.note(begin, text);
        } else {
            table.insert(key, value);
        }
    }

    /// Parses a value. Returns `None` after a mistake, which has been noted.
    fn parse_value(&mut self) -> Option<Spanned<DeValue<'t>>> {
        let begin = self.offset();
        let value = match self.kind() {
            TokenKind::Text(_) => self.parse_text().map(|text| DeValue::String(text.into())),
            TokenKind::Boolean(whether) => {
                self.advance();
                Some(DeValue::Boolean(*whether))
            }
            TokenKind::Number(number) => {
                self.advance();
                number.as_deref().and_then(|number| self.parse_number(begin, number))
            }
            TokenKind::Open(bracket) => self.parse_enclosed(*bracket),
            TokenKind::Name if !self.is_at_setting() => {
                let text = format!("{} is text; write it between quotes", Quoted(self.written()));
                self.note(begin, text);
                self.advance();
                None
            }
            TokenKind::Stray => {
                self.advance();
                None
            }
            _ => {
                let text = "a value is missing behind this; write one, such as 3699 or \"text\"";
                self.note(self.end_of_last().saturating_sub(1), text);
                None
            }
        }?;
        Some(Spanned::new(begin..self.end_of_last(), value))
    }

    /// Parses a number in the syntax of TOML, to which the lexer has converted it.
    fn parse_number(&mut self, begin: usize, plain: &'t str) -> Option<DeValue<'t>> {
        let value = DeValue::parse(plain).map(Spanned::into_inner);
        let noted = value.map_err(|_| self.note(begin, "this is no number; write for example 16"));
        noted.ok()
    }

    /// Parses a text. Adjacent texts form one text.
    fn parse_text(&mut self) -> Option<String> {
        let mut joined = Some(String::new());
        while let TokenKind::Text(piece) = self.kind() {
            joined = joined.zip(piece.as_ref()).map(|(joined, piece)| joined + piece);
            self.advance();
        }
        joined
    }

    /// Parses a group, a list or an array, from its opening bracket to its closing one.
    fn parse_enclosed(&mut self, bracket: Bracket) -> Option<DeValue<'t>> {
        let begin = self.offset();
        let refusal = if self.open.last() == Some(&Bracket::Array) {
            Some("an array holds single values only; write ( and ) around a list")
        } else if self.open.len() >= DEEPEST {
            Some("this stands too deeply in others; leave out some of the brackets around it")
        } else {
            None
        };
        if let Some(text) = refusal {
            self.note(begin, text);
            self.skip_enclosed();
            return None;
        }
        self.advance();
        self.open.push(bracket);
        let value = match bracket {
            Bracket::Group => DeValue::Table(self.parse_settings()),
            Bracket::List | Bracket::Array => DeValue::Array(self.parse_values()),
        };
        self.open.pop();
        if *self.kind() == TokenKind::Close(bracket) {
            self.advance();
        } else {
            let (open, close) = (bracket.open(), bracket.close());
            let text = format!("this `{open}` is not closed; write `{close}` behind the last that belongs to it");
            self.note(begin, text);
        }
        Some(value)
    }

    /// Parses values separated by commas, up to the bracket that closes them.
    fn parse_values(&mut self) -> DeArray<'t> {
        let mut values = DeArray::new();
        loop {
            match self.kind() {
                TokenKind::End => return values,
                TokenKind::Close(bracket) if self.open.contains(bracket) => return values,
                TokenKind::Close(_) => self.note_unmatched(),
                TokenKind::Comma => self.advance(),
                // A list that is not closed ends where the next setting begins.
                TokenKind::Name if self.is_at_setting() => return values,
                TokenKind::Equals | TokenKind::Semicolon => {
                    let text = format!(
                        "{} does not belong between values; write a comma",
                        Quoted(self.written())
                    );
                    self.note(self.offset(), text);
                    self.advance();
                }
                _ => {
                    if let Some(value) = self.parse_value() {
                        values.push(value);
                    }
                    self.note_missing_comma();
                }
            }
        }
    }

    fn note_missing_comma(&mut self) {
        let begins_value = matches!(
            self.kind(),
            TokenKind::Text(_) | TokenKind::Number(_) | TokenKind::Boolean(_) | TokenKind::Open(_)
        );
        if begins_value {
            self.note(
                self.offset(),
                "a comma is missing before this; write one between values",
            );
        }
    }

    fn note_unmatched(&mut self) {
        let text = format!("{} closes nothing that is open; leave it out", Quoted(self.written()));
        self.note(self.offset(), text);
        self.advance();
    }

    /// Skips a bracket with everything inside it.
    fn skip_enclosed(&mut self) {
        let mut depth = 0_usize;
        loop {
            match self.kind() {
                TokenKind::End => return,
                TokenKind::Open(_) => depth = depth.saturating_add(1),
                TokenKind::Close(_) => depth = depth.saturating_sub(1),
                _ => {}
            }
            self.advance();
            if depth == 0 {
                return;
            }
        }
    }

    /// Skips to a token where parsing can continue.
    fn recover(&mut self) {
        loop {
            match self.kind() {
                TokenKind::End | TokenKind::Close(_) => return,
                TokenKind::Name if self.is_at_setting() => return,
                TokenKind::Semicolon => return self.advance(),
                TokenKind::Open(_) => self.skip_enclosed(),
                _ => self.advance(),
            }
        }
    }
}
