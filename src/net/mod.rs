//! Sockets: where to listen, whom to let in, and the two ends of a byte stream, without a word about what is said on them.
//!
//! The life of a connection, from here:
//!
//! 1. [`addr`] has read `--listen` into a [`ListenAddr`](addr::ListenAddr).
//! 2. [`listener`] binds it ([`bind`] has the steps, [`bind_error`] the words when one fails), or takes over what the
//!    service manager has bound already ([`inherit`]), or a daemon of which this is the successor ([`handover`]).
//! 3. [`accept`] takes connections from it, so many a turn, and stops for a while when the machine has no more
//!    descriptors or memory to give; [`listening`] does so for all listeners of a service, on the loop.
//! 4. [`access`] says whether the peer may come in at all, [`limits`] whether there is room for one more.
//! 5. From then on it is a [`Stream`](stream::Stream), TCP or UNIX alike, registered with the reactor by its service;
//!    [`edges`] keeps what it may be good for.
//!
//! What holds everywhere: every descriptor is close-on-exec and non-blocking from the system call that makes it; nothing
//! here waits; every error number of every call has a decided consequence, written where it is decided. A socket file is
//! deleted only if it is certain to be ours or to have no owner.
//!
//! Beside them stand the [`standard`] streams, which a program is given like an inherited socket.
//!
//! All `unsafe` of this room is in `sys`. Not here: deadlines, buffers, framing, what to tell a peer that is refused.

pub mod accept;
pub mod access;
pub mod addr;
pub mod bind;
pub mod bind_error;
pub mod conn;
pub mod edges;
pub mod handover;
pub mod inherit;
pub mod limits;
pub mod listener;
pub mod listening;
pub mod standard;
pub mod stream;
mod sys;
mod unix_file;

#[cfg(test)]
mod scaffold;
