//! The syntax of a framing: a name, and for one framing a time after it.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer};

use super::units::{Numbers, Quantity, QuantityError, QuantityVisitor, Time};
use crate::doors::pool::options::Framing as Meant;

/// A framing, as an option names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing(pub Meant);

/// The framings that are a name only.
const NAMED: [Meant; 7] = [
    Meant::Line,
    Meant::Netstring,
    Meant::Nul,
    Meant::U32be,
    Meant::ContentLength,
    Meant::UntilEmptyLine,
    Meant::Eof,
];

impl Quantity for Framing {
    const WANTED: &'static str = "a framing; write line, netstring, nul, u32be, content-length, until-empty-line, eof, or for example quiet=20ms";
}

impl FromStr for Framing {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let text = text.trim();
        let meant = match text.split_once('=') {
            Some(("quiet", time)) => time.parse().ok().map(|Time(time)| Meant::Quiet(time)),
            Some(_) => None,
            None => NAMED.into_iter().find(|framing| framing.name() == text),
        };
        meant.map(Self).ok_or_else(QuantityError::wanted::<Self>)
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl<'de> Deserialize<'de> for Framing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(QuantityVisitor::new(Numbers::QuotesOnly))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_framing_is_parsed_as_it_is_printed() {
        let quiet = [20, 1500, 60_000].map(|ms| Meant::Quiet(Duration::from_millis(ms)));
        for meant in NAMED.into_iter().chain(quiet) {
            assert_eq!(meant.to_string().parse(), Ok(Framing(meant)), "{meant}");
        }
    }

    #[test]
    fn an_unknown_framing_is_refused_with_the_known_ones() {
        for text in [
            "",
            "lines",
            "Line",
            "quiet",
            "quiet=",
            "quiet=soon",
            "line=1s",
            "eof=20ms",
        ] {
            assert!(text.parse::<Framing>().is_err(), "{text}");
        }
        let error = "lines".parse::<Framing>().unwrap_err().to_string();
        assert!(
            error.starts_with("not a framing; write line, netstring, nul, "),
            "{error}"
        );
    }
}
