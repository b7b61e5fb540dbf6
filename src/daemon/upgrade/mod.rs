//! Binary upgrade: the running daemon starts its program again, hands its listening sockets to the new process, and
//! ends.
//!
//! The two processes are called predecessor and successor. They exchange messages on a connection of their own
//! ([`link`]):
//!
//! ```text
//!  predecessor                                          successor
//!  URG: checks the program's file (file_check.rs) and
//!       starts it, as it is now,
//!       with its sockets and an invitation       ---->  reads flags and file, opens its doors, starts its workers
//!  goes on serving                                      accepts no clients
//!                                                <----  READY: every worker is up
//!  GO                                            ---->  becomes independent, takes charge of the socket files, accepts
//!                                                <----  SERVING
//!  closes its sockets, finishes the clients that
//!  it has accepted, exits
//! ```
//!
//! At every moment at least one of the two accepts from each socket, and for a moment both do. A client in the backlog
//! waits in the kernel's socket, which is the same for both and stays open.
//!
//! Invariant: until GO the successor is a child that can be given up. If it ends, sends an unexpected message or takes
//! too long, it is killed, the log says why, and the predecessor serves on as before. If the predecessor ends, the
//! successor does too.
//!
//! The decisions are in [`stage`], without I/O. [`predecessor`] and [`candidate`] carry them out, and [`invitation`] is
//! the information that the successor gets at its start.

pub(super) mod candidate;
mod file_check;
mod invitation;
mod link;
pub(super) mod predecessor;
mod stage;

/// The messages on the connection.
mod message {
    /// The successor reports that all its workers are up.
    pub(super) const READY: u8 = b'R';
    /// The predecessor tells the successor to accept clients.
    pub(super) const GO: u8 = b'G';
    /// The successor reports that it accepts clients.
    pub(super) const SERVING: u8 = b'S';
}
