//! The decisions of a command door, without I/O.
//!
//! [`exchange`] cuts the bytes from a client into messages. [`scheduler`] decides everything else: the clients
//! ([`client`] has their states), the programs ([`Run`](crate::doors::run::Run) has their life), and the queues;
//! [`event`] has its events and actions. [`reply`] writes the replies to clients. [`counters`] holds the numbers of a
//! door.
//!
//! Invariants, for events in any order (the tests of the scheduler try them):
//! - A command runs at most as often at once as its operator allows, and the request that has waited longest is next.
//! - A program is started only for a complete request with valid arguments, and is given these.
//! - A client is told exactly one end, behind all output, unless it is gone or has left output unread for too long.
//! - A started program is reaped before its run is over, or was given up with a line in the log.
//! - Every state that waits for a client or a program has a deadline, but for a program whose time the operator has not
//!   limited.

pub mod client;
pub mod counters;
pub mod event;
pub mod exchange;
pub mod reply;
pub mod scheduler;
