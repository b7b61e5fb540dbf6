//! Regular expressions in the settings.

use super::{KeyRef, Mistakes};
use crate::config::quote::Quoted;
use crate::doors::pattern::{Malformed, Pattern};

/// Parses an expression. Adds a mistake with its position and returns `None` if the expression is wrong.
pub(super) fn pattern(mistakes: &mut Mistakes, origin: KeyRef, text: &str) -> Option<Pattern> {
    match Pattern::new(text) {
        Ok(pattern) => Some(pattern),
        Err(Malformed { what, at }) => {
            let place = at.map(|at| format!(" at character {at}")).unwrap_or_default();
            let what = format!("{} is not a regular expression{place}: {what}", Quoted(text));
            let remedy = "mend it there, or write a backslash before a character that stands for itself";
            mistakes.add(origin, what, remedy);
            None
        }
    }
}
