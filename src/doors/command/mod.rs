//! The command door: it runs one of the commands named in its options for each client that asks for it, with the
//! client's arguments, up to a number of each command at the same time.
//!
//! The story of a connection. A client connects, sends a name, and sends an argument at each prompt ([`core::exchange`]
//! cuts the messages). Each is checked against the operator's restrictions. [`core::scheduler`] then starts a program
//! for the request, or lets the request wait, or lets it share the output of a run under way, or answers `busy`. From
//! then on bytes from the client are the program's input, and the output of the program on either stream comes back as
//! it is (`shell::runs`). The connection is closed when the program has exited, and its output has ended or has been
//! awaited long enough.
//!
//! Invariants:
//! - Bytes from a client never reach a shell's command line: they are a name, which is looked up, and arguments.
//! - A slow client slows its own program and no other; if it shares a run, it slows that one only for a short time.
//! - The memory of a connection is bounded, whatever passes.
//!
//! Binding the listeners and the moment of a reload do not belong here: they are the daemon's.

pub mod core;
pub mod options;
mod report;
mod shell;

pub use shell::{CommandDoor, Programs, prepare};
