//! The programs that talk to a daemon: one folder each, on the same event loop and the same
//! connections as the daemon.
//!
//! [`ask`] asks a pool, for people, scripts and Squid; [`call`] has an exec door run a program; [`store`] writes and shows
//! the store of a route door, and blocks. Shared by the first two: the
//! standard streams (`stdio`), the server with its TLS (`server`), the target of a connection (`target`), and the name of the process (`name`).
//! Not here: anything that a daemon does to answer.

pub mod ask;
pub mod call;
mod name;
mod server;
mod stdio;
pub mod store;
mod sys;
mod target;

pub use server::{TlsOptions, nameless_text};
