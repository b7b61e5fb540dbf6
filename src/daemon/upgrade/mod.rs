//! Binary upgrade: the running daemon starts its program anew, gives it the listening sockets, and goes.
//!
//! The two are called predecessor and successor. What passes between them, on a connection made for it ([`link`]):
//!
//! ```text
//!  predecessor                                          successor
//!  URG: looks at the program's file (file_check.rs) and
//!       starts it, as it is now,
//!       with its sockets and an invitation       ---->  reads flags and file, opens its doors, starts its workers
//!  serves all the while                                 accepts nobody
//!                                                <----  READY: every worker is up
//!  GO                                            ---->  is independent, takes charge of the socket files, accepts
//!                                                <----  SERVING
//!  lets go of the sockets, finishes what it
//!  has accepted, exits
//! ```
//!
//! A socket is never without somebody who accepts: for a moment both do. A client in the backlog waits in the kernel's socket,
//! which is the same for both; it neither closes nor changes.
//!
//! What holds: until GO the successor is a child in hand. If it ends, says anything else or takes too long, it is killed, the
//! log tells why, and the predecessor serves as if nothing had been; if the predecessor ends, the successor does too. The
//! decisions are in [`stage`], without I/O; [`predecessor`] and [`candidate`] carry them out; [`invitation`] is what the
//! successor is told at its start.

pub(super) mod candidate;
mod file_check;
mod invitation;
mod link;
pub(super) mod predecessor;
mod stage;

/// The words on the connection.
mod message {
    /// Successor: all my workers are up.
    pub(super) const READY: u8 = b'R';
    /// Predecessor: serve.
    pub(super) const GO: u8 = b'G';
    /// Successor: I accept.
    pub(super) const SERVING: u8 = b'S';
}
