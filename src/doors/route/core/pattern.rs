//! The names of services: one name, all names below a suffix, or every other name.

use std::fmt;
use std::str::FromStr;

use super::name::Name;

/// The name of the service for every name that no other service has.
pub const CATCH_ALL: &str = "CATCH_ALL";

/// The names that a service has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// This name alone.
    Exact(Box<str>),
    /// Every name that ends with a dot and this suffix: `*.example.org` has the suffix `example.org`.
    Suffix(Box<str>),
    /// Every name that no other service has, and connections without a name.
    CatchAll,
}

/// The reason for which a text is no name of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternError {
    /// A `*` stands elsewhere than alone in the first label.
    Asterisk,
    /// The text, or the part behind `*.`, cannot be a name: see [`Name::parse`].
    NoName,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PatternError::Asterisk => "a * may only be the whole first label, as in *.example.org",
            PatternError::NoName => {
                "a name has 1 to 253 letters, digits and signs of ASCII, no blank, and no two dots in a row"
            }
        })
    }
}

impl std::error::Error for PatternError {}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        if text == CATCH_ALL {
            return Ok(Pattern::CatchAll);
        }
        match text.strip_prefix("*.") {
            Some(suffix) => Ok(Pattern::Suffix(normal(suffix)?)),
            None => Ok(Pattern::Exact(normal(text)?)),
        }
    }
}

/// Returns the name in the form in which it is looked up.
fn normal(name: &str) -> Result<Box<str>, PatternError> {
    if name.contains('*') {
        return Err(PatternError::Asterisk);
    }
    let name = Name::parse(name.as_bytes()).ok_or(PatternError::NoName)?;
    Ok(name.as_str().into())
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(name) => f.write_str(name),
            Pattern::Suffix(suffix) => write!(f, "*.{suffix}"),
            Pattern::CatchAll => f.write_str(CATCH_ALL),
        }
    }
}
