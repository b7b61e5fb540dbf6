//! What a command door decides, without I/O.
//!
//! [`exchange`] cuts what a client sends into messages. [`scheduler`] is the whole of it: clients ([`client`] has their
//! states), programs ([`Run`](crate::doors::run::Run) has their life), and who waits for what; [`event`] is what it is told and what it wants done. [`reply`]
//! is what clients are told. [`counters`] are the numbers of a door.
//!
//! What holds, whatever comes in whatever order (the scheduler's tests try it):
//! - A command runs at most as often at once as its operator allows, and who waits longest is next.
//! - A program is started only for a complete request whose arguments have passed, and those are what it gets.
//! - A client is told exactly one end, behind all output, or has gone or left its output unread for too long.
//! - A started program is reaped before its run is over, or has been given up by name.
//! - Every state that waits for somebody else has a deadline, but for a program whose time the operator has not limited.

pub mod client;
pub mod counters;
pub mod event;
pub mod exchange;
pub mod reply;
pub mod scheduler;
