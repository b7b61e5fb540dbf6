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
//! | [`relay`] | bytes from one descriptor to another, both ways |
//! | [`framing`] | where a message ends in a stream of bytes |
//! | [`stats`] | counters, histograms, the snapshot and its renderers |
//! | [`reactor`] | the one poll, timers, run queue, signals: the order of a turn |
//!
//! Beside them stand [`error`], the reason why a command ends, [`amount`], times and sizes in the form that people
//! read, and [`buffer`], bytes that wait for room.
//!
//! Imports point down this table, never up: `tests/it/house.rs` holds the map of imports. The program is [`main`]. The
//! library exists so that tests, fuzz targets and examples reach the cores; they do so through [`internals`], which lists
//! each item that they use, and nothing here is a stable interface for other crates.

pub mod amount;
pub mod buffer;
pub mod cli;
pub mod client;
pub mod config;
pub mod daemon;
pub mod doors;
pub mod error;
pub mod framing;
pub mod internals;
pub mod log;
pub mod net;
pub mod process;
pub mod reactor;
pub mod relay;
pub mod stats;

pub use cli::main;
