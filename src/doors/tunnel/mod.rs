//! The tunnel door: it connects out to a server, and the server sends connections of its clients back through that
//! connection, to a local service that cannot be reached from outside.
//!
//! The story of a tunnel. A remote server is connected to (`shell::connecting`), over TLS if its address says so, and gets
//! the secret of the services that are served here ([`core::greeting`]). From then on it opens streams of the session
//! ([`mux`](crate::mux)), one for each client. The first byte of a stream chooses between two local services
//! ([`core::opening`]); the service is connected to, and the bytes go both ways (`shell::streams`) like those of two
//! sockets. When a session ends its streams end with it, and the server is connected to again after a delay that grows
//! ([`core::remote`]).
//!
//! Invariants:
//! - Each remote server has at most one session that takes streams. One that has been told to go away keeps its streams
//!   beside the next session.
//! - A local service that is slow, or away, costs the stream that it is for and no other.
//! - The secret is in no log line, no statistic and no dump.
//!
//! The door listens nowhere: the clients are the server's.

pub mod core;
pub mod options;
mod report;
mod shell;

pub use shell::{Prepared, TunnelDoor, prepare};
