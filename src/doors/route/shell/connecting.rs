//! The connection to a server: begun, established by the first bytes of the client, or given up.
//!
//! A server on this machine is written to at once, for the kernel has commonly connected the socket by then. For others
//! the event is awaited. The write alone tells if the connection is there: see [`Conn::begin_with`].

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;

use super::super::core::event::{ConnectFault, Event};
use super::super::core::filter::Filter;
use super::super::core::opening::SSL_REQUEST;
use super::super::core::secrets::Secret;
use super::super::core::table::Address;
use super::asking::Asking;
use super::carrying::Relay;
use super::end::Server;
use super::passing::WORD;
use super::routes::{Route, Stage, register};
use super::{RouteDoor, RouteSource};
use crate::doors::socket_end::SocketEnd;
use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::conn::{Begun, Conn, Received};
use crate::net::stream::Stream;
use crate::reactor::{Context, Key};

/// A server that is being connected to.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) conn: Conn,
    /// The bytes that the server gets first: a header, and those of the client that are held and not filtered out, or a
    /// request for TLS.
    first: Vec<u8>,
    /// In per-request mode: it has the other bytes that are held.
    filter: Option<Box<Filter>>,
    /// The length of the header. Another server gets its own.
    header: usize,
    /// The bytes of the client, if the server is asked for TLS before it gets them.
    behind_request: Option<Vec<u8>>,
    /// The port of the server, if the connection may be one to itself.
    suspect: Option<u16>,
    /// The server is to say first that it takes the connection: see `passing`.
    awaits_word: bool,
    /// The address; `None` of a UNIX socket.
    address: Option<SocketAddr>,
    /// The other addresses of the host, which are tried if this one fails.
    others: Vec<SocketAddr>,
    /// The time until which this address is tried.
    pub(super) until: Option<Instant>,
}

/// The address of a server, in the form of the kernel.
pub(super) enum Target {
    /// A port of a host.
    Tcp(SocketAddr),
    /// A UNIX socket.
    Unix(UnixAddr),
}

impl Target {
    /// The address of a server in a table; `None` for one that names a host.
    pub(super) fn parse(address: &Address) -> Option<Self> {
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

    /// Begins to connect.
    pub(super) fn connect(&self) -> io::Result<Stream> {
        match self {
            Target::Tcp(address) => Stream::connect_tcp(*address),
            Target::Unix(address) => Stream::connect_unix(address),
        }
    }

    /// The address of TCP.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Target::Tcp(address) => Some(*address),
            Target::Unix(_) => None,
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
    /// Begins to connect to a server, or waits until its host is looked up. Returns the outcome, if it is known at once.
    pub(super) fn connect(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Event<'static>> {
        self.leave_name(key);
        let server = Arc::clone(&self.routes.get(key)?.life.routed()?.server);
        match Target::parse(&server) {
            Some(target) => self.connect_to(cx, key, &target, Vec::new()),
            None => self.connect_by_name(cx, key, &server),
        }
    }

    /// Begins to connect to the first of the addresses of a host.
    pub(super) fn connect_to_first(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        mut addresses: Vec<SocketAddr>,
    ) -> Option<Event<'static>> {
        if addresses.is_empty() {
            return Some(Event::ConnectFailed(ConnectFault::Server));
        }
        let target = Target::Tcp(addresses.remove(0));
        self.connect_to(cx, key, &target, addresses)
    }

    /// Begins to connect to an address. `others` are tried after it.
    fn connect_to(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        target: &Target,
        others: Vec<SocketAddr>,
    ) -> Option<Event<'static>> {
        let suspect = match target {
            Target::Tcp(address) => self.local_ports.suspect(*address),
            Target::Unix(_) => None,
        };
        let stream = match target.connect() {
            Ok(stream) => stream,
            Err(error) => return self.connect_to_next(cx, key, &error, target.address(), others),
        };
        let route = self.routes.get_mut(key)?;
        let mut attempt = route.begin_attempt(stream, suspect);
        attempt.address = target.address();
        attempt.until = share(route.life.deadline(), others.len(), cx.now());
        attempt.others = others;
        let outcome = if target.is_near() { attempt.go_on() } else { Ok(None) };
        // The registration follows connect(2), so that its first event says no hang-up.
        let outcome = outcome.and_then(|sent| {
            register(cx, &mut attempt.conn, RouteSource::Server, key)?;
            Ok(sent)
        });
        route.stage = Stage::Connecting(attempt);
        self.take_outcome(cx, key, outcome)
    }

    /// Passes a route on to the process before this one, which has the tunnel clients with this secret.
    pub(super) fn connect_elsewhere(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        secret: Secret,
    ) -> Option<Event<'static>> {
        let stream = match self.passing.pass(secret) {
            Ok(stream) => stream,
            Err(error) => return Some(Event::ConnectFailed(fault(&error))),
        };
        let route = self.routes.get_mut(key)?;
        let mut attempt = route.begin_attempt(stream, None);
        attempt.awaits_word = true;
        let outcome = register(cx, &mut attempt.conn, RouteSource::Server, key).map(|()| None);
        route.stage = Stage::Connecting(attempt);
        self.take_outcome(cx, key, outcome)
    }

    /// Goes on with connecting after an event of the server.
    pub(super) fn go_on_connecting(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Event<'static>> {
        let stage = &mut self.routes.get_mut(key)?.stage;
        let Stage::Connecting(attempt) = stage else { return None };
        let outcome = attempt.go_on();
        self.take_outcome(cx, key, outcome)
    }

    /// Gives up an address of a host whose time is over, and tries the next one.
    pub(super) fn give_up_address(&mut self, cx: &mut Context<'_>, key: Key) -> Option<Event<'static>> {
        let stage = &mut self.routes.get_mut(key)?.stage;
        match stage {
            Stage::Connecting(attempt) if attempt.until.is_some_and(|until| until <= cx.now()) => {
                attempt.until = None;
                let (address, others) = (attempt.address, std::mem::take(&mut attempt.others));
                if others.is_empty() {
                    // The route's own time is over with it, which the router finds.
                    self.put_last(key, address);
                    return None;
                }
                *stage = Stage::Held(stage.take_held());
                self.connect_to_next(cx, key, &io::ErrorKind::TimedOut.into(), address, others)
            }
            _ => None,
        }
    }

    /// Takes in the outcome of a try: the number of bytes that an established connection has taken.
    fn take_outcome(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        outcome: io::Result<Option<usize>>,
    ) -> Option<Event<'static>> {
        let stage = &mut self.routes.get_mut(key)?.stage;
        let error = match outcome {
            Ok(None) => return None,
            Ok(Some(sent)) => {
                stage.begin_conversation(sent);
                return Some(Event::Connected);
            }
            Err(error) => error,
        };
        let (address, others) = match stage {
            Stage::Connecting(attempt) => (attempt.address, std::mem::take(&mut attempt.others)),
            _ => (None, Vec::new()),
        };
        *stage = Stage::Held(stage.take_held());
        self.connect_to_next(cx, key, &error, address, others)
    }

    /// Tries the next address of a host after one that has failed. Each call has one address less, of the few that a
    /// host may have.
    fn connect_to_next(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        error: &io::Error,
        failed: Option<SocketAddr>,
        others: Vec<SocketAddr>,
    ) -> Option<Event<'static>> {
        let fault = fault(error);
        if fault == ConnectFault::Daemon {
            return Some(Event::ConnectFailed(fault));
        }
        self.put_last(key, failed);
        if others.is_empty() {
            return Some(Event::ConnectFailed(fault));
        }
        self.connect_to_first(cx, key, others)
    }
}

/// Returns the time until which one of several addresses is tried: each has the same share of the time that is left.
/// `None` if there is no other.
fn share(until: Option<Instant>, others: usize, now: Instant) -> Option<Instant> {
    let shares = u32::try_from(others).ok()?.checked_add(1)?;
    Some(now + until?.saturating_duration_since(now) / shares)
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
            filter: None,
            header,
            behind_request: None,
            suspect,
            awaits_word: false,
            address: None,
            others: Vec::new(),
            until: None,
        }
    }

    /// An attempt that asks the server for TLS, and holds the bytes of the client back.
    fn asking(conn: Conn, header: Option<Vec<u8>>, held: Vec<u8>, suspect: Option<u16>) -> Attempt {
        Attempt {
            behind_request: Some(held),
            ..Attempt::new(conn, header, SSL_REQUEST.to_vec(), suspect)
        }
    }

    /// An attempt in per-request mode: the server gets the bytes of the first request, as far as they are there.
    fn filtered(conn: Conn, header: Option<Vec<u8>>, held: Vec<u8>, suspect: Option<u16>) -> Attempt {
        let (filter, first) = Filter::open(held);
        Attempt {
            filter: Some(Box::new(filter)),
            ..Attempt::new(conn, header, first, suspect)
        }
    }

    /// Gives the connection up, and returns the bytes of the client.
    fn into_held(mut self) -> Vec<u8> {
        self.behind_request.unwrap_or_else(|| {
            self.first.drain(..self.header);
            if let Some(filter) = &self.filter {
                self.first.extend_from_slice(filter.held());
            }
            self.first
        })
    }

    /// Writes the first bytes to the server. Returns their number once the server is connected.
    fn go_on(&mut self) -> io::Result<Option<usize>> {
        if self.awaits_word {
            let mut word = [0; WORD.len()];
            match self.conn.read(&mut word) {
                Received::Bytes(_) => self.awaits_word = false,
                Received::Nothing => return Ok(None),
                Received::End | Received::Cut | Received::Failed => {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
            }
        }
        match self.conn.begin_with(&self.first, self.suspect)? {
            Begun::Waiting => Ok(None),
            Begun::Sent(count) => Ok(Some(count)),
        }
    }
}

impl Route {
    /// Begins to connect by a stream, over which the bytes that are held go first.
    fn begin_attempt(&mut self, stream: Stream, suspect: Option<u16>) -> Box<Attempt> {
        let held = self.stage.take_held();
        let (conn, header) = (Conn::connecting(stream), self.header(&held));
        Box::new(match (self.life.asked().starts_tls, self.life.is_filtered()) {
            (true, _) => Attempt::asking(conn, header, held, suspect),
            (false, true) => Attempt::filtered(conn, header, held, suspect),
            (false, false) => Attempt::new(conn, header, held, suspect),
        })
    }
}

impl Stage {
    /// Takes the bytes that a server is to get first. A server that is being connected to is given up.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        match std::mem::replace(self, Stage::Held(Vec::new())) {
            Stage::Held(held) => held,
            Stage::Naming(naming) => naming.held,
            Stage::Connecting(attempt) => attempt.into_held(),
            Stage::Asking(asking) => asking.held,
            Stage::Relaying(_) | Stage::Closing(_) => Vec::new(),
        }
    }

    /// Goes over from an established connection to the answer of the server, or to the relay at once.
    fn begin_conversation(&mut self, sent: usize) {
        if let Stage::Connecting(attempt) = std::mem::replace(self, Stage::Held(Vec::new())) {
            let Attempt {
                conn,
                first,
                filter,
                header,
                behind_request,
                ..
            } = *attempt;
            if let Some(held) = behind_request {
                *self = Stage::Asking(Box::new(Asking::new(conn, &first, sent, held)));
                return;
            }
            let rest = first.get(sent..).unwrap_or_default().to_vec();
            // The header counts for nothing in the statistics.
            let sent = sent.saturating_sub(header);
            *self = Stage::Relaying(Box::new(Relay::new(
                Server::Socket(SocketEnd::server(conn)),
                sent,
                rest,
                filter,
            )));
        }
    }
}

/// Returns the side to which an error of connecting belongs.
pub(super) fn fault(error: &io::Error) -> ConnectFault {
    match (error.raw_os_error().map(Errno::from_raw), error.kind()) {
        (
            Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL | Errno::ENOSPC),
            _,
        ) => ConnectFault::Daemon,
        // A socket that has connected to itself is refused as well, without an error of the system.
        (_, io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {
            ConnectFault::Absent
        }
        (Some(_) | None, _) => ConnectFault::Server,
    }
}
