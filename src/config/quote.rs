//! The text of an operator, quoted in a message.

use std::fmt;

/// Prints a text between backquotes as it was written, with control characters as escapes: a message stays one line,
/// and sends no escape sequences to a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("`")?;
        for character in self.0.chars() {
            if character.is_control() {
                write!(out, "{}", character.escape_default())?;
            } else {
                write!(out, "{character}")?;
            }
        }
        out.write_str("`")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_control_characters_are_changed() {
        assert_eq!(Quoted("a 'b' \"c\" ü").to_string(), "`a 'b' \"c\" ü`");
        assert_eq!(Quoted("a\nb\x1b[31m").to_string(), "`a\\nb\\u{1b}[31m`");
    }
}
