//! The command door: one of the commands named in its options is run for each client that asks for it, with the client's
//! arguments, and so many of each at once.
//!
//! The story of a connection. A client connects and sends a name, is prompted for each argument, and sends those
//! ([`core::exchange`] cuts the messages). Each is held against what the operator allows. [`core::scheduler`] starts a program
//! for the request, or has it wait, or share the output of one that runs, or be told `busy`. From then on what the client
//! sends is the program's input, and what the program puts out on either of its streams comes back as it is (`shell::runs`).
//! When it has exited, and its output has ended or has been awaited long enough, the client is let go.
//!
//! What holds: what a client sends is never a shell's text, only a name that is looked up and arguments that are passed on; a
//! client that is slow slows its own program and nothing else, unless it shares one, and then not for long; the memory of a
//! connection is bounded whatever passes. What does not belong here: who binds the listeners, and when to reload: that is the
//! daemon's.

pub mod core;
pub mod options;
mod report;
mod shell;

pub use shell::{CommandDoor, Programs, prepare};
