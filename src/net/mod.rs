//! Sockets: listening, admitting, and the connections themselves, without a word about the bytes that they carry.
//!
//! The life of a connection:
//!
//! 1. [`addr`] has parsed `--listen` into a [`Listen`](addr::Listen).
//! 2. [`listener`] binds it ([`bind`] makes the system calls, [`bind_error`] explains a failure), or takes it over from
//!    the service manager ([`inherit`]), or from the daemon of which this one is the successor ([`handover`]).
//! 3. [`accept`] takes a bounded number of connections from it in a turn, and pauses when the machine is short of
//!    descriptors or memory; [`listening`] does so for all listeners of a service, on the loop.
//! 4. If the connection begins with a header of the PROXY protocol, [`proxy`] finds in it which client it comes from.
//! 5. [`access`] decides by the connection's [`origin`] if the client may connect at all, [`limits`] if there is room
//!    for one connection more.
//! 6. From then on it is a [`Conn`](conn::Conn) over one of the transports of [`stream`], until its lingering close is
//!    over.
//!
//! The invariants: every descriptor is close-on-exec and non-blocking from the system call that makes it. Nothing here
//! waits. Every error number of every call has a decided consequence, written where it is decided. A socket file is
//! deleted only if it is certain that this daemon owns it or that it has no owner.
//!
//! [`resolving`] looks up the hosts of servers, on threads of its own.
//!
//! [`tls`] encrypts such a connection and says which names its peer has proved.
//!
//! Beside them stand the [`standard`] streams, which a program is given like an inherited socket.
//!
//! All `unsafe` of this room is in `sys`. Deadlines of requests, framing, and the words of a refusal do not belong
//! here.

pub mod accept;
pub mod access;
pub mod addr;
pub mod bind;
pub mod bind_error;
pub mod conn;
pub mod handover;
pub mod inherit;
pub mod limits;
pub mod link;
pub mod listener;
pub mod listening;
pub mod local_ports;
pub mod origin;
pub mod proxy;
pub mod resolving;
pub mod standard;
pub mod stream;
mod sys;
pub mod tls;
mod unix_file;

#[cfg(test)]
mod scaffold;
