//! The configuration: the settings that an operator wrote become the options of a door.
//!
//! The life of a setting: it is written as a flag or as a key of a file (the two are one definition, [`spec`]), its
//! text becomes a quantity ([`units`]), and [`lower`] turns the whole spec into the `Options` of the door: with
//! defaults applied, ranges and cross-checks done, names looked up. [`mod@file`] does this for every service of a TOML
//! file and knows the position of each value, so that a mistake is reported with file, line and column.
//!
//! Invariants: all mistakes are reported at once, each [`Mistake`](lower::Mistake) with its remedy; the resulting
//! options need no further check, except against the running system; a flag and its key cannot differ in name, meaning
//! or range.
//!
//! Not here: opening anything, limits of the system for all services together (that is `daemon`), and the text of
//! `--help` around the flags (that is `cli`).

pub mod advice;
mod bytes;
pub mod file;
pub mod framing;
pub mod levels;
pub mod lower;
mod quote;
pub mod spec;
pub mod suggest;
pub mod torc_cfg;
pub mod units;

#[cfg(test)]
mod tests;
