//! The settings of a service, as they were written: one struct per kind of door, and one for each part that several
//! doors share.
//!
//! Each struct is both `clap::Args` and `serde::Deserialize`, and each field is optional, so a flag and the key of the
//! same name are one definition: command line and file accept the same settings under the same names. No default and no
//! range lives here: [`lower`](super::lower) decides the meaning of absence and of numbers.
//!
//! A shared part is included in its door with `#[command(flatten)]` and `#[serde(flatten)]`. serde cannot refuse
//! unknown keys then; [`file`](super::file) does, with the clap definition of the same struct.
//!
//! A new door is a new file here, a file in `lower/`, and one line in the table of doors in [`file`](super::file).

pub mod command;
pub mod exec;
pub mod fail;
pub mod listen;
pub mod log;
mod overlay;
pub mod pool;
pub mod process;
pub mod route;
pub mod store;
pub mod tunnel;
pub mod yes_no;
