//! A setting with the values yes and no. A switch could not be turned off explicitly, and a file could not take one
//! back.

use clap::ValueEnum;
use clap::builder::PossibleValue;
use serde::Deserialize;

/// The value of such a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum YesNo {
    /// The effect is wanted.
    Yes,
    /// The effect is not wanted.
    No,
}

/// Not derived, for the reason given at [`HalfClose`](super::pool::HalfClose).
impl ValueEnum for YesNo {
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
