//! The route door: it connects each client to the server of the name that the client asks for, in its TLS ClientHello
//! or in the head of its first HTTP request, and passes bytes both ways.
//!
//! The story of a connection. Its first bytes are read and held until they name a server ([`core::opening`],
//! [`core::hello`], [`core::head`]); [`core::table`] says which service has the name, [`core::upstreams`] which of its
//! servers is next. The server is connected, gets the bytes that are held, and from then on both sides send what they
//! like (`shell::carrying`), until both have ended or one is lost. A client whose name leads nowhere gets an alert or a
//! page. [`core::router`] decides all of it, the shell acts. In per-request mode a [`core::filter`] stands in the relay, and
//! later requests are judged as well.
//!
//! The TLS of a service may end here: its clients make their handshakes first (`shell::securing`). A server may be a
//! program of the door, which is started by its first client and awaited by all ([`core::starter`]). And a service may
//! lead to another door of the process, which is handed the client (`shell::handing`).
//!
//! Some services may stand in a store ([`crate::store`]), which a thread follows; what it believes becomes a second table
//! (`stored`, `shell::store`), behind that of the file.
//!
//! Invariants:
//! - Bytes reach the server unchanged, from the first one on; nothing is decrypted, but for a service whose TLS ends here.
//! - After the first bytes a client is not read before its server is connected: what it sends, and its end, keep their
//!   order in the kernel.
//! - A side that has only a part of what the other has sent learns so by a reset.
//! - The memory of a connection is bounded, whatever passes, and each of its states has a deadline; a relay may have
//!   none if the operator says so.
//!
//! Binding the listeners and the moment of a reload do not belong here: they are the daemon's.

mod access_log;
pub mod core;
pub mod explain;
pub mod options;
mod report;
mod shell;
mod stored;
mod tunnel_report;

pub use shell::{Prepared, RouteDoor, prepare};
