//! What may be said either way: a switch would have no word for "off", nor one that a file takes back.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Deserialize;

/// Whether something is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Whether {
    /// It is.
    Yes,
    /// It is not.
    No,
}

/// By hand for the reason told at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for Whether {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Yes, Self::No]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Yes => "yes",
            Self::No => "no",
        }))
    }
}
