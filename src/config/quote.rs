//! The text of an operator, as a message shows it: quoted, or as part of a header to be written.

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

/// Returns a name as it stands between the dots of a header of TOML: in quotes where it needs them, and with control
/// characters as escapes.
pub(super) fn in_header(name: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(is_bare) {
        name.to_owned()
    } else {
        format!("{name:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_a_header_has_the_quotes_that_toml_wants() {
        for (name, written) in [
            ("main", "main"),
            ("a-b_2", "a-b_2"),
            ("", "\"\""),
            ("ads.v2", "\"ads.v2\""),
            ("a\n\"", r#""a\n\"""#),
        ] {
            assert_eq!(in_header(name), written);
        }
    }

    #[test]
    fn only_control_characters_are_changed() {
        assert_eq!(Quoted("a 'b' \"c\" ü").to_string(), "`a 'b' \"c\" ü`");
        assert_eq!(Quoted("a\nb\x1b[31m").to_string(), "`a\\nb\\u{1b}[31m`");
    }
}
