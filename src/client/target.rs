//! The target of a connection: an address without a host name, and the look-up that turns a host name into such
//! addresses.

use std::io;
use std::net::SocketAddr;
use std::thread;

use crate::net::addr::{ConnectAddr, UnixAddr};
use crate::net::conn::Conn;
use crate::net::resolving::resolve;
use crate::net::stream::Stream;
use crate::reactor::helper::Sender;

/// An address to which a connection can be made without a look-up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Tcp(SocketAddr),
    Unix(UnixAddr),
}

impl Target {
    /// Returns the target of an address that holds no host name; `None` if it holds one, which has to be [looked
    /// up](look_up).
    pub(super) fn without_look_up(address: &ConnectAddr) -> Option<Target> {
        match address {
            ConnectAddr::Unix(path) => Some(Target::Unix(path.clone())),
            ConnectAddr::Tcp { .. } => address.to_socket_addr().map(Target::Tcp),
        }
    }

    /// Begins to connect. Dropping the connection will reset it, so that the other side learns of it at once.
    ///
    /// # Errors
    /// See [`Stream::connect_tcp`] and [`Stream::connect_unix`].
    pub(super) fn connect(&self) -> io::Result<Conn> {
        let stream = match self {
            Target::Tcp(address) => Stream::connect_tcp(*address),
            Target::Unix(address) => Stream::connect_unix(address),
        }?;
        stream.reset_on_close()?;
        Ok(Conn::connecting(stream))
    }
}

/// Looks up a host name on a thread of its own, because getaddrinfo(3) blocks. The result is sent to `to`: one or more
/// addresses, or the error.
///
/// # Errors
/// EAGAIN if the thread cannot be created.
pub(super) fn look_up<T: Send + 'static>(
    (host, port): (String, u16),
    to: Sender<T>,
    report: impl FnOnce(io::Result<Vec<SocketAddr>>) -> T + Send + 'static,
) -> io::Result<()> {
    thread::Builder::new().name("resolver".into()).spawn(move || {
        // Sending fails only when the program ends and has dropped the mailbox.
        let _ = to.send(report(resolve(&host, port)));
    })?;
    Ok(())
}
