//! The exec door: a program of the client's choice is run for it, and its streams and exit status are framed back.
//!
//! The story of a connection. A client connects, is let in or not ([`core::permits`]), and sends arguments as netstrings
//! ([`core::request`] reads them). The program is looked up, may be run or not, and is started (`shell::programs`), what
//! follows goes into its standard input, and what it writes comes back as pairs of a type and data ([`core::reply`]), as fast
//! as both sides take it (`shell::connection`). When it has exited, and its outputs have ended or have been awaited long
//! enough, the client is told how, and let go. [`core::client`] decides all of it. What is said on the wire may also be another
//! protocol ([`core::protocol`]), with the same life behind it.
//!
//! What holds: nobody gets a program that the lists do not give him; a client that is slow slows its own program and nothing
//! else; the memory of a connection is bounded whatever passes; nothing that a program has started outlives the connection, but
//! where that is wanted. What does not belong here: who binds the listeners, and when to reload: that is the daemon's.

pub mod core;
pub mod options;
mod report;
mod shell;

pub use shell::{ExecDoor, prepare};
