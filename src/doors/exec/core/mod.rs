//! What one connection of the exec door comes to, decided without I/O.
//!
//! [`request`] reads what the client sends: the [`arguments`], then input for the program, as netstrings cut anywhere; and
//! [`trailer`] the signals that may follow. [`run`] is the connection's life as a machine: what has happened in, what is to be
//! done out, the time an argument. [`reply`] writes what the client is told. [`sockproc`] does both in an older protocol, and
//! [`protocol`] is the choice between the two. [`counters`] are the numbers of a door; [`permits`] says who may have what run, and
//! [`lookups`] whose turn it is to have a name looked up.
//!
//! What holds, whatever comes in whatever order (`run`'s tests try it):
//! - A program is started at most once, and only with complete arguments.
//! - A client is told exactly one end, behind all output, or has gone or left its answer unread for too long.
//! - A started program is reaped before its connection is over, or has been given up by name.
//! - Every state that waits for somebody else has a deadline, but for a program whose time the operator has not limited, and
//!   one that is being ended, whose deadlines are those of its ending.

pub mod arguments;
pub mod client;
pub mod counters;
pub mod lookups;
pub mod permits;
pub mod protocol;
pub mod reply;
pub mod request;
pub mod sockproc;
pub mod trailer;
