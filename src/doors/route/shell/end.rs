//! The server of a relay, as a socket or a stream.

use super::streams::Stream;
use crate::doors::socket_end::SocketEnd;

/// The server of a relay.
#[derive(Debug)]
pub(super) enum Server {
    /// A connection to it.
    Socket(SocketEnd),
    /// A stream of the session of a tunnel client.
    Stream(Stream),
}
