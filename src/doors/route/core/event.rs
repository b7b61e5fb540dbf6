//! The events of a route and the steps that the router decides: the words between it and the shell.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use super::exchange::{Fault, Given};
use super::health::HealthChange;
use super::opening::NoTls;
use super::table::Address;
use super::tunnels::SessionId;

/// A route, named by the shell. The router only hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RouteId(pub u64);

/// One of the two connections of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client's.
    Client,
    /// The server's.
    Server,
}

impl Side {
    /// Returns the other side.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }
}

/// A report of the shell about one route.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The client has sent something: all of its bytes that are held, from the first on. Also the response to
    /// [`Step::Judge`]. While bytes are relayed: the filter of the route has found the next request
    /// [unfit](super::filter::Finding::Unfit), and everything before it is answered.
    Bytes(&'a [u8]),
    /// This side has ended its output, and everything before the end was passed on; while the first bytes are awaited,
    /// the client has ended its output before they were complete.
    Ended(Side),
    /// This side has broken the connection, or it was lost. A server that was not connected yet, or that has not answered
    /// after [`Step::Ask`], is reported by [`Event::ConnectFailed`] instead.
    Lost(Side),
    /// The filter of the route has found bytes of this side that are no valid message, and `given` of the last answer
    /// was passed on.
    Garbled {
        /// The side that has sent them.
        side: Side,
        /// The fault in them.
        fault: Fault,
        /// The part of the last answer that the client has.
        given: Given,
    },
    /// The TLS handshake of the client is done: what comes from now on is what it sends by TLS.
    Secured,
    /// The client was refused in its handshake, or has left in it, and is closed.
    NotSecured,
    /// The table that the route waits for is there. Must be reported for each route from
    /// [`Router::woken`](super::router::Router::woken).
    TableCame,
    /// The route was called, which waits for the program of its server. Must be reported for each
    /// [`Order::Call`](super::starter::Order::Call).
    Called,
    /// A tunnel client may have come that the route waits for. Must be reported for each route from
    /// [`Router::next_expectant`](super::router::Router::next_expectant).
    ClientCame,
    /// The server is connected.
    Connected,
    /// The server could not be connected to, or is lost before it has answered a request for TLS; or the client of a tunnel
    /// has reset its stream although the client of the route has got nothing by it.
    ConnectFailed(ConnectFault),
    /// The server has answered a request for TLS.
    Replied(Result<(), NoTls>),
    /// The answer is written, and the client has taken it or has had its time.
    Answered,
    /// The time of [`Life::deadline`](super::life::Life::deadline) may have come.
    Deadline,
    /// The door drains: a client whose first bytes are not complete by this time is closed.
    Stop(Instant),
    /// The time for draining is over.
    Abort,
}

/// The side on which an attempt to connect has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectFault {
    /// Nothing listens at the address of the server, or it takes no more connections for now.
    Absent,
    /// The server breaks the connection off, cannot be reached, or has a name that cannot be resolved.
    Server,
    /// The daemon lacks a descriptor, a port or memory. The server is not blamed, and no other is tried.
    Daemon,
}

/// An order to the shell. The client is read only after [`Step::Read`] and while bytes are relayed; in between,
/// everything that it sends and its end stay in the kernel, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Go on as before.
    Nothing,
    /// Read from the client, and report all bytes that are held by [`Event::Bytes`].
    Read,
    /// Report the bytes that are held once more by [`Event::Bytes`], without reading.
    Judge,
    /// Drop the bytes that are held, which were a request, write this answer to the client, and read on as by
    /// [`Step::Read`].
    Reply(&'static [u8]),
    /// Hold the bytes and do not read until the next step.
    Hold,
    /// Make the TLS handshake, which begins with the bytes that are held, as the server of this name, and report
    /// [`Event::Secured`] or [`Event::NotSecured`]. The handshake has a deadline of its own.
    Secure(Arc<str>),
    /// Drop the attempt to connect before this one, if there was one. Connect to the server of
    /// [`Life::routed`](super::life::Life::routed), and report [`Event::Connected`] or [`Event::ConnectFailed`]. A server
    /// that is [asked for TLS](super::life::Asked::starts_tls) gets the request with that.
    Connect,
    /// Drop the connection to the server, if there is one. Open a stream of this session, by which the bytes leave first
    /// that are held, and report [`Event::Connected`] or [`Event::ConnectFailed`]. A server that is
    /// [asked for TLS](super::life::Asked::starts_tls) gets the request with that.
    OpenStream(SessionId),
    /// Wait for the answer of the server to the request for TLS, and report [`Event::Replied`] or
    /// [`Event::ConnectFailed`]. The bytes that are held are not sent before.
    Ask,
    /// Send the bytes that are held to the server, then relay in both directions.
    Relay,
    /// Drop the connection to the server, if there is one. Write the answer to the client, which may be empty, throw away
    /// what it still sends, and report [`Event::Answered`].
    Answer(Cow<'static, [u8]>),
    /// The route is over here: hand the client over to the door of this name, with the bytes that are held.
    HandOver(Arc<str>),
    /// The route is over: close what is open. With `breaks_off`, reset both connections, so that neither side takes the
    /// part that it has for the whole.
    Close {
        /// True if bytes are missing on a side.
        breaks_off: bool,
    },
}

/// A change of a server, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The service that the server belongs to.
    pub service: Arc<str>,
    /// The server.
    pub server: Arc<Address>,
    /// The change.
    pub change: HealthChange,
    /// The reason for which the last check has failed, if a check has taken the server out.
    pub why: Option<Box<str>>,
}
