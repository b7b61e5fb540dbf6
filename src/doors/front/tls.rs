//! The certificates and keys of a door: read before the door is opened or changed, then handed to the front. And the
//! counts of its TLS.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use super::Front;
use super::options::{FrontOptions, TlsOptions};
use crate::error::{Blame, Error};
use crate::net::addr::{ListenAddr, Transport};
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::origin::Origin;
use crate::net::tls::files::{Remark, read_server};
use crate::net::tls::meter::Meter;
use crate::net::tls::server::ServerTls;
use crate::stats::Snapshot;

/// The certificates and keys of a door, as they were read from their files.
#[derive(Debug)]
pub struct PreparedTls {
    server: Arc<ServerTls>,
    remarks: Vec<Remark>,
}

/// The counts of connections with TLS, from the end of their handshakes on.
#[derive(Debug, Default)]
pub(super) struct TlsCounts {
    handshakes: u64,
    /// The ones among them that have resumed an earlier session.
    resumed: u64,
    meter: Rc<Meter>,
}

impl TlsCounts {
    /// Counts the handshake of a connection, if there was one, and later its going wrong.
    pub(super) fn count(&mut self, conn: &mut Conn, origin: &Origin) {
        if let Some(established) = &origin.tls {
            self.handshakes += 1;
            self.resumed += u64::from(established.is_resumed);
            conn.count_by(&self.meter);
        }
    }
}

impl FrontOptions {
    /// Reads the certificates and keys; returns `None` if no listener has TLS. `before` is the server that the door has
    /// now, if it is open: its tickets stay valid. Blocks on the file system without a limit.
    ///
    /// # Errors
    /// Every mistake in the files.
    pub fn prepare_tls(&self, before: Option<&ServerTls>) -> Result<Option<PreparedTls>, Error> {
        let Some(TlsOptions {
            identities,
            min_version,
            clients,
        }) = &self.tls
        else {
            return Ok(None);
        };
        let read = read_server(identities, *min_version, clients.as_ref(), before, SystemTime::now());
        let (server, remarks) = read.map_err(|errors| {
            let lines: Vec<_> = errors.iter().map(|error| format!("{}: {error}", self.name)).collect();
            Error::with_remedy(Blame::Operator, lines.join("\n"))
        })?;
        Ok(Some(PreparedTls {
            server: Arc::new(server),
            remarks,
        }))
    }

    /// Checks that every listener with TLS has a TCP socket, and that other machines reach none without TLS if clients
    /// need a certificate. Only of an inherited socket is that not known before.
    ///
    /// # Errors
    /// One is a UNIX socket, or exposed without TLS.
    pub fn check_transports<'l>(
        &self,
        listeners: impl Iterator<Item = (&'l ListenAddr, &'l Listener)>,
    ) -> Result<(), Error> {
        let asks = self.tls.as_ref().is_some_and(|tls| tls.clients.is_some());
        for (address, listener) in listeners {
            let (name, socket) = (&self.name, listener.local_addr());
            let Some(listen) = self.listen.iter().find(|listen| listen.address == *address) else {
                continue;
            };
            let (what, remedy) = match (listen.transport, socket) {
                (Transport::Tls, ListenAddr::Unix(_)) => (
                    "what goes through a UNIX socket does not leave this machine and needs no TLS",
                    "give the socket a TCP address, or leave out tls:",
                ),
                (Transport::Plain, socket) if asks && socket.is_exposed() => (
                    "whoever reached it from another machine would need no certificate of client-ca",
                    "write tls: in front, or give the socket a loopback address or a path",
                ),
                _ => continue,
            };
            return Err(Error::new(
                Blame::Operator,
                format!("{name}: {listen} is {socket}: {what}"),
                remedy,
            ));
        }
        Ok(())
    }
}

impl Front {
    /// Takes on the certificates that were prepared for its options, for connections that are accepted from now on.
    /// Logs the names that they are for, and when they end.
    pub fn set_tls(&mut self, prepared: Option<PreparedTls>) {
        let Some(PreparedTls { server, remarks }) = prepared else {
            self.tls = None;
            return;
        };
        let (module, name) = (self.kind.module, self.name());
        for identity in server.identities() {
            let (file, names) = (identity.file().display(), identity.names());
            let hosts = names.hosts().join(", ");
            log::info!(
                target: module, service:% = name; "{name}: certificate {file} is for {}, until {}",
                hosts.escape_debug(), names.last_day()
            );
        }
        for Remark { level, text } in remarks {
            log::log!(target: module, level, service:% = name; "{name}: {text}");
        }
        self.tls = Some(server);
    }

    /// Adds the rows about TLS. The days until the first certificate ends are there only if there is one, and 0 if it
    /// has ended.
    pub(in crate::doors) fn report_tls(&self, snapshot: &mut Snapshot) {
        let counts = &self.tls_counts;
        snapshot.count("tls handshakes", counts.handshakes);
        snapshot.count("tls resumed", counts.resumed);
        snapshot.count("tls failed", counts.meter.failed());
        snapshot.count("tls cut", counts.meter.cut());
        snapshot.count("tls waiting", self.arrivals.handshaking());
        if let Some(first) = self.tls.as_deref().and_then(ServerTls::first_to_end) {
            let days = first.names().days_left(SystemTime::now());
            snapshot.count("tls days left", days.unwrap_or(0));
        }
    }

    /// The server of the listeners with TLS, if there are any.
    pub fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls.as_ref()
    }
}
