//! The connection to a server: begun, established by the first bytes of the client, or given up.
//!
//! A server on this machine is written to at once, for the kernel has commonly connected the socket by then. For others
//! the event is awaited. The write alone tells if the connection is there: see [`Conn::begin_with`].

use std::io;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;

use super::super::core::event::{ConnectFault, Event};
use super::super::core::table::Address;
use super::carrying::Relay;
use super::end::End;
use super::routes::{Stage, register};
use super::{RouteDoor, RouteSource};
use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::conn::{Begun, Conn};
use crate::net::stream::Stream;
use crate::reactor::{Context, Key};

/// A server that is being connected to.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) conn: Conn,
    /// The bytes that the server gets first: a header, and those of the client that are held.
    first: Vec<u8>,
    /// The length of the header, which the next server gets anew.
    header: usize,
    /// The port of the server, if the connection may be one to itself.
    suspect: Option<u16>,
}

/// The address of a server, in the form of the kernel.
enum Target {
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

impl Target {
    /// The address of a server in a table; `None` for one that names a host.
    fn parse(address: &Address) -> Option<Self> {
        if let Address::Network { host, port } = address
            && let Ok(ip) = host.parse::<IpAddr>()
        {
            return Some(Target::Tcp(SocketAddr::new(ip, *port)));
        }
        // An address with a scope, or of a UNIX socket.
        let address: ConnectAddr = address.to_string().parse().ok()?;
        match address.to_socket_addr() {
            Some(address) => Some(Target::Tcp(address)),
            None => match address {
                ConnectAddr::Unix(address) => Some(Target::Unix(address)),
                ConnectAddr::Tcp { .. } => None,
            },
        }
    }

    fn connect(&self) -> io::Result<Stream> {
        match self {
            Target::Tcp(address) => Stream::connect_tcp(*address),
            Target::Unix(address) => Stream::connect_unix(address),
        }
    }

    /// Returns true if connecting has commonly come to its end when connect(2) returns.
    fn is_near(&self) -> bool {
        match self {
            Target::Tcp(address) => address.ip().is_loopback(),
            Target::Unix(_) => true,
        }
    }
}

impl RouteDoor {
    /// Begins to connect to a server. Returns the outcome, if it is known at once.
    pub(super) fn connect(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Event<'static>> {
        let route = self.routes.get_mut(key)?;
        let target = Target::parse(&route.life.routed()?.server);
        let held = route.stage.take_held();
        let header = route.header(&held);
        let stream = match &target {
            Some(target) => target.connect(),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        };
        let conn = match stream {
            Ok(stream) => Conn::connecting(stream),
            Err(error) => {
                route.stage = Stage::Held(held);
                return Some(Event::ConnectFailed(fault(&error)));
            }
        };
        let suspect = match &target {
            Some(Target::Tcp(address)) => self.local_ports.suspect(*address),
            Some(Target::Unix(_)) | None => None,
        };
        let mut attempt = Box::new(Attempt::new(conn, header, held, suspect));
        let is_near = target.is_some_and(|target| target.is_near());
        let outcome = if is_near { attempt.go_on() } else { Ok(None) };
        // The registration follows connect(2), so that its first event says no hang-up.
        let outcome = outcome.and_then(|sent| {
            register(cx, &mut attempt.conn, RouteSource::Server, key)?;
            Ok(sent)
        });
        route.stage = Stage::Connecting(attempt);
        route.stage.take_outcome(outcome)
    }

    /// Goes on with connecting after an event of the server.
    pub(super) fn go_on_connecting(&mut self, key: Key) -> Option<Event<'static>> {
        let stage = &mut self.routes.get_mut(key)?.stage;
        let Stage::Connecting(attempt) = stage else { return None };
        let outcome = attempt.go_on();
        stage.take_outcome(outcome)
    }
}

impl Attempt {
    fn new(conn: Conn, header: Option<Vec<u8>>, held: Vec<u8>, suspect: Option<u16>) -> Attempt {
        let (first, header) = match header {
            None => (held, 0),
            Some(header) => ([&header[..], &held].concat(), header.len()),
        };
        Attempt {
            conn,
            first,
            header,
            suspect,
        }
    }

    /// Gives the connection up, and returns the bytes of the client.
    fn into_held(mut self) -> Vec<u8> {
        self.first.drain(..self.header);
        self.first
    }

    /// Writes the first bytes to the server. Returns their number once the server is connected.
    fn go_on(&mut self) -> io::Result<Option<usize>> {
        match self.conn.begin_with(&self.first, self.suspect)? {
            Begun::Waiting => Ok(None),
            Begun::Sent(count) => Ok(Some(count)),
        }
    }
}

impl Stage {
    /// Takes the bytes that a server is to get first. A server that is being connected to is given up.
    fn take_held(&mut self) -> Vec<u8> {
        match std::mem::replace(self, Stage::Held(Vec::new())) {
            Stage::Held(held) => held,
            Stage::Connecting(attempt) => attempt.into_held(),
            Stage::Relaying(_) | Stage::Closing(_) => Vec::new(),
        }
    }

    /// Takes in the outcome of a try: the number of bytes that an established connection has taken.
    fn take_outcome(&mut self, outcome: io::Result<Option<usize>>) -> Option<Event<'static>> {
        let error = match outcome {
            Ok(None) => return None,
            Ok(Some(sent)) => {
                self.begin_relay(sent);
                return Some(Event::Connected);
            }
            Err(error) => error,
        };
        *self = Stage::Held(self.take_held());
        Some(Event::ConnectFailed(fault(&error)))
    }

    /// Goes over from an established connection to the relay.
    fn begin_relay(&mut self, sent: usize) {
        if let Stage::Connecting(attempt) = std::mem::replace(self, Stage::Held(Vec::new())) {
            let Attempt {
                conn, first, header, ..
            } = *attempt;
            let rest = first.get(sent..).unwrap_or_default().to_vec();
            // The header counts for nothing in the statistics.
            let sent = sent.saturating_sub(header);
            *self = Stage::Relaying(Box::new(Relay::new(End::server(conn), sent, rest)));
        }
    }
}

/// Returns the side to which an error of connecting belongs.
fn fault(error: &io::Error) -> ConnectFault {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL | Errno::ENOSPC) => {
            ConnectFault::Daemon
        }
        Some(_) | None => ConnectFault::Server,
    }
}
