//! What an operator wrote becomes what a door is told.
//!
//! The way of one setting: it is written as a flag or as a key of a file (the two are one definition, [`spec`]), its text
//! becomes a quantity ([`units`]), and [`lower`] turns the whole spec into the door's `Options`: defaults applied, ranges and
//! cross-checks done, names looked up. [`mod@file`] does this for every service of a TOML file and knows where each value
//! stands, so that a mistake is told with file, line and column.
//!
//! What holds: everything wrong is reported at once, each [`Mistake`](lower::Mistake) with what to write instead; options that
//! came out of here need no further check that does not depend on the running system; a flag and its key cannot differ
//! in name, meaning or range.
//!
//! Not here: opening anything, limits of the system against the sum of all services (that is `daemon`), and the words
//! of `--help` around the flags (that is `cli`).

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
