//! A listening socket, TCP or UNIX, wherever it came from.
//!
//! It is born bound and listening ([`Listener::bind`]) or is taken over from the service manager
//! ([`inherit`](super::inherit)); [`Listener::open`] does whichever the address asks for. It is registered once with the
//! reactor for reading. Whoever accepts from it must go on until `WouldBlock` or remember that there is more:
//! [`Acceptor`](super::accept::Acceptor) does that.
//!
//! A listener that has made a socket file deletes it when it is dropped, before its socket closes, so that a client
//! finds either a server or nothing; not if the file is somebody else's by then, and not after
//! [`disown_file`](Listener::disown_file), which is for a socket that another process has been given.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token, event};

use super::addr::{ListenAddr, PeerAddr, UnixAddr};
use super::bind::{self, UnixSocketOptions};
use super::bind_error::{Attempt, BindError, Cause};
use super::inherit::Inherited;
use super::stream::Stream;
use super::unix_file::OwnedFile;

/// A socket that connections are accepted from.
#[derive(Debug)]
pub struct Listener {
    // Before `socket`, so that it is dropped before it: see the head of this file.
    file: Option<OwnedFile>,
    socket: Socket,
    local: ListenAddr,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What kind of address a socket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Tcp,
    Unix,
}

impl Listener {
    /// The listeners that `address` stands for: one bound here, or those (one or more) that the service manager has
    /// handed over under that name. `backlog`: how many connections may wait to be accepted; the kernel caps it at
    /// net.core.somaxconn. What was inherited keeps the backlog, mode and owner that it came with.
    ///
    /// # Errors
    /// One line that says what failed and what to do.
    pub fn open(
        address: &ListenAddr,
        options: &UnixSocketOptions,
        backlog: u32,
        inherited: &mut Inherited,
    ) -> Result<Vec<Listener>, BindError> {
        let ListenAddr::Inherited(name) = address else {
            return Listener::bind(address, options, backlog).map(|listener| vec![listener]);
        };
        let claimed = inherited.claim(name.as_deref());
        claimed.map_err(|error| BindError::new(address, Cause::Inherited(error)))
    }

    /// Binds `address` and listens. A stale socket file is deleted first; a file that is anything else never is.
    ///
    /// # Errors
    /// One line that says what failed and what to do; also for [`ListenAddr::Inherited`], which cannot be bound.
    pub fn bind(address: &ListenAddr, options: &UnixSocketOptions, backlog: u32) -> Result<Listener, BindError> {
        Listener::try_bind(address, options, backlog).map_err(|cause| BindError::new(address, cause))
    }

    fn try_bind(address: &ListenAddr, options: &UnixSocketOptions, backlog: u32) -> Result<Listener, Cause> {
        let (socket, file, family) = match address {
            ListenAddr::Tcp(address) => (bind::tcp(*address, backlog)?, None, Family::Tcp),
            ListenAddr::TcpAny { port } => (bind::tcp_any(*port, backlog)?, None, Family::Tcp),
            ListenAddr::Unix(name) => {
                let (socket, file) = bind::unix(name, options, backlog)?;
                (socket, file, Family::Unix)
            }
            ListenAddr::Inherited(_) => return Err(Cause::NotBound),
        };
        let listener = Listener::from_socket(socket, family);
        let mut listener = listener.map_err(|error| Attempt::Name.failed()(bind::errno(&error)))?;
        listener.file = file;
        // Unless it has become IPv4 alone, for want of IPv6: then it says so.
        if let (ListenAddr::TcpAny { .. }, ListenAddr::Tcp(SocketAddr::V6(local))) = (address, &listener.local) {
            listener.local = ListenAddr::TcpAny { port: local.port() };
        }
        Ok(listener)
    }

    /// A socket that listens already, is non-blocking and close-on-exec, and whose file, if any, belongs to others.
    pub(super) fn from_socket(socket: OwnedFd, family: Family) -> io::Result<Listener> {
        let socket = match family {
            Family::Tcp => Socket::Tcp(TcpListener::from(socket)),
            Family::Unix => Socket::Unix(UnixListener::from(socket)),
        };
        let local = match &socket {
            Socket::Tcp(listener) => ListenAddr::tcp(listener.local_addr()?),
            Socket::Unix(listener) => {
                let name = UnixAddr::from_socket_addr(&listener.local_addr()?);
                ListenAddr::Unix(name.ok_or(io::ErrorKind::AddrNotAvailable)?)
            }
        };
        Ok(Listener {
            file: None,
            socket,
            local,
        })
    }

    /// Where it listens, as the kernel says: port 0 has become the port chosen, an inherited socket the address that it
    /// is bound to. `*:PORT` is still that, or `0.0.0.0:PORT` on a machine without IPv6.
    pub fn local_addr(&self) -> &ListenAddr {
        &self.local
    }

    /// One connection, with one system call (accept4): non-blocking, close-on-exec, TCP_NODELAY not set.
    ///
    /// # Errors
    /// accept(2), all of it; [`accept::verdict`](super::accept::verdict) says what each means.
    pub fn accept(&self) -> io::Result<(Stream, PeerAddr)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), PeerAddr::tcp(peer)))
            }
            Socket::Unix(listener) => {
                let (stream, _unnamed) = listener.accept()?;
                Ok((Stream::Unix(stream), PeerAddr::Unix))
            }
        }
    }

    /// Another process has been given this socket: its file is not deleted when this end of it is dropped.
    pub fn disown_file(&mut self) {
        if let Some(file) = self.file.take() {
            file.disown();
        }
    }

    fn source(&mut self) -> &mut dyn event::Source {
        match &mut self.socket {
            Socket::Tcp(listener) => listener,
            Socket::Unix(listener) => listener,
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl event::Source for Listener {
    fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}
