//! The map of the house: one daemon that stands between sockets and processes. See `doc/architecture.md`.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`cli`] | one file per subcommand: its flags, its help, one call |
//! | [`config`] | flags and files become the options of a door |
//! | [`daemon`] | the composition root: doors, listeners, signals, reload, drain |
//! | [`doors`] | the front doors, which do not know each other |
//! | [`client`] | programs that talk to a daemon |
//! | [`log`](mod@log) | which lines are logged, in which form, and the thread that writes them |
//! | [`net`] | addresses, listeners, accepting, access lists, limits, streams |
//! | [`process`] | what to spawn, spawning, watching and ending it |
//! | [`store`] | services that other programs write into a database: reading, believing and keeping them |
//! | [`mux`] | many streams on one connection, as a reverse tunnel has them |
//! | [`relay`] | bytes from one descriptor to another, both ways |
//! | [`framing`] | where a message ends in a stream of bytes |
//! | [`stats`] | counters, histograms, the snapshot and its renderers |
//! | [`reactor`] | the one poll, timers, run queue, signals: the order of a turn |
//!
//! Beside them stand [`error`], the reason why a command ends, [`amount`], times and sizes in the form that people
//! read, [`buffer`], bytes that wait for room, and [`regular_file`], the contents of files that an operator names.
//!
//! Imports point down this table, never up: `tests/it/house.rs` holds the map of imports. The program is [`main`].
//!
//! The rooms are private, so that the compiler finds what no room uses any more; `pub` in a room means the whole crate.
//! Tests, fuzz targets and examples reach the inside through [`internals`], which lists each item that they use.
//! Nothing here is a stable interface for other crates.

// With private rooms `missing_docs` sees nothing: this lint asks the same of every item that the crate can see.
#![deny(clippy::missing_docs_in_private_items)]
// The documentation is for developers of the crate: `cargo doc --document-private-items`.
#![allow(rustdoc::private_intra_doc_links)]

mod amount;
mod buffer;
mod cli;
mod client;
mod config;
mod daemon;
mod doors;
mod error;
mod framing;
pub mod internals;
mod log;
mod mux;
mod net;
mod process;
mod reactor;
mod regular_file;
mod relay;
mod stats;
mod store;

pub use cli::main;
