//! An attempt to connect, to a server or to a local service: the addresses of its host are tried one after the other.

use std::io;
use std::net::SocketAddr;

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
    /// Begins to connect to the first of these places that does not fail at once.
    ///
    /// # Errors
    /// The reason of the last.
    pub(super) fn begin(places: Places, means: &mut Means<'_, '_>) -> io::Result<Attempt> {
        let mut others = match places {
            Places::Unix(address) => return Self::to(Stream::connect_unix(&address)?, None, Vec::new(), means),
            Places::Tcp(addresses) => addresses,
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        while !others.is_empty() {
            let address = others.remove(0);
            let suspect = means.local_ports.suspect(address);
            let begun = Stream::connect_tcp(address);
            match begun.and_then(|stream| Self::to(stream, suspect, others.clone(), means)) {
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
        Ok(Attempt { conn, suspect, others })
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
            Err(_) if !self.others.is_empty() => {
                let others = std::mem::take(&mut self.others);
                *self = Self::begin(Places::Tcp(others), means)?;
                Ok(false)
            }
            outcome => outcome,
        }
    }
}
