//! The decisions of the exec door about one connection, without I/O.
//!
//! [`request`] reads the bytes from the client: the [`arguments`], then input for the program, as netstrings cut
//! anywhere; [`trailer`] reads the signals that may follow. [`client`] is the life of the connection, beside
//! [`Run`](crate::doors::run::Run), the life of its program. [`reply`] writes the answer. [`sockproc`] reads and writes
//! an older protocol, and [`protocol`] is the choice between the two. [`counters`] holds the numbers of a door,
//! [`permits`] the lists of clients and programs, and [`lookups`] gives clients turns to have a program looked up.
//!
//! Invariants, for events in any order (the tests of `client` and `Run` try them):
//! - A program is started at most once, and only with complete arguments.
//! - A client is told exactly one end, behind all output, unless it is gone or has left its answer unread for too long.
//! - A started program is reaped before its connection is over, or was given up with a line in the log.
//! - Every state that waits has a deadline, but for a program whose time the operator has not limited, and one that is
//!   being ended, whose kill sequence has deadlines of its own.

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
