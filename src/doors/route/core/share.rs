//! The share of a server that a route has from the choice of the server until it is given back: see `Router::choose` and
//! `Router::give_back`.

use super::tunnels::SessionId;
use super::upstreams::BackendId;

/// The share of a server that a route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// A connection to it.
    Backend(BackendId),
    /// A stream of a tunnel client's session.
    Stream(SessionId),
}

impl Share {
    /// The backend, if the server is one.
    pub(super) fn backend(self) -> Option<BackendId> {
        match self {
            Share::Backend(backend) => Some(backend),
            Share::Stream(_) => None,
        }
    }

    /// The session, if the server is a tunnel client.
    pub(super) fn session(self) -> Option<SessionId> {
        match self {
            Share::Stream(session) => Some(session),
            Share::Backend(_) => None,
        }
    }
}
