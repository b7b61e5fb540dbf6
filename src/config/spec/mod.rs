//! What may be written about a service, as it was written: one struct per kind of door, and one for each part that
//! several doors share.
//!
//! Each struct is both `clap::Args` and `serde::Deserialize`, and each field is optional, so a flag and the key of the
//! same name are one definition: what can be said on the command line can be said in a file, with the same words, and
//! nothing else can. No default and no range lives here: [`lower`](super::lower) decides what absence and numbers mean.
//!
//! The part a key belongs to is `#[command(flatten)]`ed and `#[serde(flatten)]`ed into its door. serde cannot
//! refuse unknown keys then; [`file`](super::file) does, from the clap definition of the same struct.
//!
//! A new door is a new file here, a file in `lower/`, and one line in the table of doors in [`file`](super::file).

pub mod command;
pub mod exec;
pub mod fail;
pub mod listen;
pub mod log;
pub mod pool;
pub mod process;
pub mod whether;
