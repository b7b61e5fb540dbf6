//! The exec door: it runs a program of the client's choice, and sends its streams and its exit status back in frames.
//!
//! The story of a connection. A client connects, is permitted or refused ([`core::permits`]), and sends arguments as
//! netstrings ([`core::request`] reads them). The program is looked up, checked against the list, and started
//! (`shell::programs`). The bytes that follow go into its standard input, and its output comes back as pairs of a type
//! and data ([`core::reply`]), as fast as both sides take them (`shell::connection`). When the program has exited, and
//! its outputs have ended or have been awaited long enough, the last pair tells the exit status and the connection is
//! closed. [`core::client`] decides all of it. The wire may also carry another protocol ([`core::protocol`]), with the
//! same life behind it.
//!
//! Invariants:
//! - A client gets only a program that the lists permit.
//! - A slow client slows its own program and no other.
//! - The memory of a connection is bounded, whatever passes.
//! - No process that a program has started outlives the connection, unless the operator wants it.
//!
//! Binding the listeners and the moment of a reload do not belong here: they are the daemon's.

pub mod core;
pub mod options;
mod report;
mod shell;

pub use shell::{ExecDoor, prepare};
