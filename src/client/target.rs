//! Where a connection goes: an address without names, and how one with a name becomes some.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;

use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::stream::Stream;
use crate::reactor::helper::Sender;

/// An address without names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

impl Target {
    /// The one target of an address that has no name in it; `None` if there is one to be [looked up](look_up).
    pub(super) fn of(address: &ConnectAddr) -> Option<Target> {
        match address {
            ConnectAddr::Unix(path) => Some(Target::Unix(path.clone())),
            ConnectAddr::Tcp { .. } => address.to_socket_addr().map(Target::Tcp),
        }
    }

    /// Begins to connect. A client that hangs up is seen at once: closing resets the connection.
    ///
    /// # Errors
    /// See [`Stream::connect_tcp`] and [`Stream::connect_unix`].
    pub(super) fn connect(&self) -> io::Result<Stream> {
        let stream = match self {
            Target::Tcp(address) => Stream::connect_tcp(*address),
            Target::Unix(address) => Stream::connect_unix(address),
        }?;
        stream.reset_on_close()?;
        Ok(stream)
    }
}

/// Looks a name up on a thread of its own, because getaddrinfo(3) waits; what it stands for, one or more, or why that cannot
/// be said, comes by mail.
///
/// # Errors
/// The thread could not be made: EAGAIN.
pub(super) fn look_up<T: Send + 'static>(
    (host, port): (String, u16),
    to: Sender<T>,
    report: impl FnOnce(io::Result<Vec<SocketAddr>>) -> T + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name("resolver".into()).spawn(move || {
        // There is nothing to send it to: the program ends.
        let _ = to.send(report(resolve(&host, port)));
    })?;
    Ok(())
}

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    if found.is_empty() {
        return Err(ErrorKind::NotFound.into());
    }
    Ok(found)
}
