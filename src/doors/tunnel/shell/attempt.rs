//! An attempt to connect, to a server or to a local service: the addresses of its host are tried one after the other, and
//! share the time that there is.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Interest;

use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::conn::{Begun, Conn};
use crate::net::local_ports::LocalPorts;
use crate::net::stream::Stream;
use crate::net::tls::engine::Engine;
use crate::reactor::{Context, Source};

/// The places that are tried.
#[derive(Debug, Clone)]
pub(super) enum Places {
    /// Addresses of TCP, with their ports; the next in front.
    Tcp(Vec<SocketAddr>),
    /// A UNIX socket.
    Unix(UnixAddr),
}

impl Places {
    /// The place of an address; `None` if its host must be looked up.
    pub(super) fn of(address: &ConnectAddr) -> Option<Places> {
        match address {
            ConnectAddr::Unix(address) => Some(Places::Unix(address.clone())),
            ConnectAddr::Tcp { .. } => address.to_socket_addr().map(|address| Places::Tcp(vec![address])),
        }
    }

    /// The places of a host that was looked up.
    pub(super) fn of_host(mut addresses: Vec<SocketAddr>, address: &ConnectAddr) -> Places {
        if let ConnectAddr::Tcp { port, .. } = address {
            addresses.iter_mut().for_each(|address| address.set_port(*port));
        }
        Places::Tcp(addresses)
    }
}

/// A connection on its way.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) conn: Conn,
    /// The port of the peer, if the connection may be one to itself.
    suspect: Option<u16>,
    /// The other addresses.
    others: Vec<SocketAddr>,
    /// The end of the time for this address.
    until: Instant,
    /// The end of the time for all of them.
    deadline: Instant,
}

/// The things that are needed to connect.
pub(super) struct Means<'a, 'b> {
    pub(super) cx: &'a mut Context<'b>,
    pub(super) local_ports: &'a LocalPorts,
    /// The source of the connection's events.
    pub(super) source: Source,
    /// Makes the TLS of a connection, if it has any.
    pub(super) engine: &'a mut dyn FnMut() -> io::Result<Option<Engine>>,
}

impl Attempt {
    /// Begins to connect to the first of these places that does not fail at once, until this time at most.
    ///
    /// # Errors
    /// The reason of the last.
    pub(super) fn begin(places: Places, deadline: Instant, means: &mut Means<'_, '_>) -> io::Result<Attempt> {
        let mut others = match places {
            Places::Unix(address) => {
                return Self::to(Stream::connect_unix(&address)?, None, Vec::new(), deadline, means);
            }
            Places::Tcp(addresses) => addresses,
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        while !others.is_empty() {
            let address = others.remove(0);
            let suspect = means.local_ports.suspect(address);
            let begun = Stream::connect_tcp(address);
            match begun.and_then(|stream| Self::to(stream, suspect, others.clone(), deadline, means)) {
                Ok(attempt) => return Ok(attempt),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn to(
        stream: Stream,
        suspect: Option<u16>,
        others: Vec<SocketAddr>,
        deadline: Instant,
        means: &mut Means<'_, '_>,
    ) -> io::Result<Attempt> {
        let mut conn = Conn::connecting(stream);
        if let Some(engine) = (means.engine)()? {
            conn = conn.secure(engine);
        }
        // The registration follows connect(2), so that its first event says no hang-up.
        means
            .cx
            .register(means.source, &mut conn, Interest::READABLE | Interest::WRITABLE)?;
        let now = means.cx.now();
        let shares = u32::try_from(1 + others.len()).unwrap_or(u32::MAX);
        Ok(Attempt {
            conn,
            suspect,
            others,
            until: now + deadline.saturating_duration_since(now) / shares,
            deadline,
        })
    }

    /// The time at which [`timeout`](Self::timeout) must be called.
    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Goes on with another address, since the time for this one is over.
    ///
    /// # Errors
    /// TimedOut if there is no other; the reason of the last address.
    pub(super) fn timeout(&mut self, means: &mut Means<'_, '_>) -> io::Result<()> {
        if self.others.is_empty() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "it did not answer within connect-timeout",
            ));
        }
        self.go_to_the_next(means)
    }

    fn go_to_the_next(&mut self, means: &mut Means<'_, '_>) -> io::Result<()> {
        let others = std::mem::take(&mut self.others);
        *self = Self::begin(Places::Tcp(others), self.deadline, means)?;
        Ok(())
    }

    /// Goes on after an event. Returns true once the connection is there; another address is tried if this one has failed.
    ///
    /// # Errors
    /// The reason of the last address.
    pub(super) fn go_on(&mut self, means: &mut Means<'_, '_>) -> io::Result<bool> {
        let outcome = if self.conn.is_plain() {
            let begun = self.conn.begin_with(b"", self.suspect);
            begun.map(|begun| matches!(begun, Begun::Sent(_)))
        } else {
            self.conn.advance_connecting()
        };
        match outcome {
            Err(_) if !self.others.is_empty() => self.go_to_the_next(means).map(|()| false),
            outcome => outcome,
        }
    }
}
