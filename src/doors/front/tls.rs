//! The certificates and keys of a door: read before the door is opened or changed, and when their files have changed,
//! then handed to the front. What the log says about them, at that time and as their ends come near. And the counts of
//! the door's TLS.

use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use log::Level;

use super::options::{FrontOptions, TlsOptions};
use super::{Front, Topic};
use crate::amount;
use crate::doors::preparing::{Before, ServerId};
use crate::error::{Blame, Error};
use crate::net::addr::{ListenAddr, Transport};
use crate::net::conn::Conn;
use crate::net::listener::Listener;
use crate::net::origin::Origin;
use crate::net::tls::expiry::Expiry;
use crate::net::tls::files::{FileError, IdentityFiles, Remark, answer_file, read_server, read_server_again};
use crate::net::tls::identity::Identity;
use crate::net::tls::meter::{Meter, Trouble};
use crate::net::tls::server::ServerTls;
use crate::reactor::Context;
use crate::stats::Snapshot;

const FAILED: Topic = Topic::new("TLS connections that fail");
const CUT: Topic = Topic::new("TLS connections that are cut");

/// The certificates and keys of a door, as they were read from their files.
#[derive(Debug, Clone)]
pub struct PreparedTls {
    server: Arc<ServerTls>,
    remarks: Vec<Remark>,
}

/// The TLS servers of a door, each with its name; that of the listeners has none.
pub type PreparedServers = Vec<(Option<Arc<str>>, PreparedTls)>;

/// The certificates and keys of a server that a door uses.
#[derive(Debug)]
pub(super) struct ServedTls {
    prepared: PreparedTls,
    /// One for each certificate, in their order.
    expiries: Vec<Expiry>,
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
            conn.count_by(&self.meter, origin);
        }
    }
}

impl TlsOptions {
    /// Reads the certificates and keys. `before` is the server that the door has now, if it is open: its tickets stay
    /// valid. Blocks on the file system without a limit.
    ///
    /// # Errors
    /// Every mistake in the files.
    pub fn read(&self, before: Option<&ServerTls>) -> Result<PreparedTls, Vec<FileError>> {
        let Self {
            identities,
            min_version,
            clients,
            alpn: _,
        } = self;
        let (server, remarks) = read_server(identities, *min_version, clients.as_ref(), before, SystemTime::now())?;
        Ok(PreparedTls {
            server: Arc::new(self.speaking(server)),
            remarks,
        })
    }

    /// Reads the files of `before` again, of which stays what cannot be replaced. Returns the outcome, if there is one,
    /// and every mistake in the files. Blocks on the file system without a limit.
    pub fn read_again(&self, before: &PreparedTls) -> (Option<PreparedTls>, Vec<FileError>) {
        let Self {
            identities,
            min_version,
            clients,
            alpn: _,
        } = self;
        let now = SystemTime::now();
        let (read, errors) = read_server_again(identities, *min_version, clients.as_ref(), &before.server, now);
        let prepared = read.map(|(server, remarks)| PreparedTls {
            server: Arc::new(self.speaking(server)),
            remarks,
        });
        (prepared, errors)
    }

    fn speaking(&self, server: ServerTls) -> ServerTls {
        match &self.alpn {
            Some(protocol) => server.with_protocol(protocol),
            None => server,
        }
    }

    /// The files that are read, also the ones that need not exist.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        let identities = self.identities.iter().flat_map(|IdentityFiles { certificate, key }| {
            [certificate.clone(), key.clone(), answer_file(certificate)]
        });
        identities.chain(self.clients.iter().map(|rule| rule.authorities.clone()))
    }
}

impl PreparedTls {
    /// The server of the listeners.
    pub fn server(&self) -> &Arc<ServerTls> {
        &self.server
    }

    /// Returns true if there is no difference for clients, nor for the log.
    pub fn is_same(&self, other: &Self) -> bool {
        self.server.is_same(&other.server) && self.remarks == other.remarks
    }
}

impl FrontOptions {
    /// Reads the certificates and keys of every server. `before` has the servers of the doors that are open. See
    /// [`TlsOptions::read`].
    ///
    /// # Errors
    /// Every mistake in the files.
    pub fn prepare_tls(&self, before: &Before) -> Result<PreparedServers, Error> {
        let (mut prepared, mut lines) = (PreparedServers::new(), Vec::new());
        for (name, tls) in self.tls_servers() {
            let before = before.tls.get(&ServerId::new(&self.name, name.clone()));
            match tls.read(before.map(|before| &**before)) {
                Ok(server) => prepared.push((name, server)),
                Err(errors) => lines.extend(errors.iter().map(|error| format!("{}: {error}", self.name))),
            }
        }
        if lines.is_empty() {
            Ok(prepared)
        } else {
            // Several servers may have one file.
            lines.dedup();
            Err(Error::with_remedy(Blame::Operator, lines.join("\n")))
        }
    }

    /// Checks that every listener with TLS has a TCP socket, and that other machines reach none without TLS, not even by a
    /// proxy, if clients need a certificate. Only of an inherited socket is that not known before.
    ///
    /// # Errors
    /// One is a UNIX socket, or is reached without TLS.
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
                (Transport::Plain, socket) if asks && self.proxies.may_reach_local(socket) => (
                    "whoever reached the proxy from another machine would need no certificate of client-ca",
                    "take the socket over in a service of its own, or leave that proxy out of accept-proxy",
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
    pub fn set_tls(&mut self, servers: PreparedServers) {
        self.tls.clear();
        for (name, prepared) in servers {
            for identity in prepared.server.identities() {
                let file = identity.file().display();
                self.log_tls(Level::Info, format_args!("certificate {file} is {}", purpose(identity)));
            }
            self.log_remarks(&prepared.remarks);
            let expiries = prepared.server.identities().map(|_| Expiry::default()).collect();
            self.tls.insert(name, ServedTls { prepared, expiries });
        }
    }

    /// Takes on certificates of files that have changed, in the place of the ones that the server of this name has. Logs
    /// the changes.
    pub fn renew_tls(&mut self, name: &Option<Arc<str>>, prepared: PreparedTls) {
        let Some(before) = self.tls.remove(name) else {
            return;
        };
        let server = &prepared.server;
        let pairs = before.prepared.server.identities().zip(before.expiries);
        let expiries = pairs.zip(server.identities()).map(|((earlier, expiry), identity)| {
            self.log_change(earlier, identity);
            match (identity.has_same_chain(earlier), identity.answer() == earlier.answer()) {
                (true, true) => expiry,
                (true, false) => expiry.with_new_answer(),
                (false, _) => Expiry::default(),
            }
        });
        let expiries = expiries.collect();
        let mut options = self.options.tls_servers();
        if let Some((_, tls)) = options.find(|(other, _)| other == name)
            && let Some(rule) = &tls.clients
            && !server.has_same_rule(&before.prepared.server)
        {
            let file = rule.authorities.display();
            self.log_tls(Level::Info, format_args!("CA certificate {file} was read again"));
        }
        let is_new = |remark: &&Remark| !before.prepared.remarks.contains(remark);
        self.log_remarks(prepared.remarks.iter().filter(is_new));
        self.tls.insert(name.clone(), ServedTls { prepared, expiries });
    }

    fn log_change(&self, earlier: &Identity, identity: &Identity) {
        let file = identity.file().display();
        if !identity.has_same_chain(earlier) {
            let purpose = purpose(identity);
            self.log_tls(
                Level::Info,
                format_args!("certificate {file} was read again: it is {purpose}"),
            );
        }
        if identity.answer() != earlier.answer() {
            let answer = answer_file(identity.file());
            let (answer, until) = (answer.display(), identity.answer_until());
            match until.map(|until| amount::moment(until, humantime::format_rfc3339_seconds)) {
                Some(until) => self.log_tls(
                    Level::Info,
                    format_args!("OCSP answer {answer} was read again: it is good until {until}"),
                ),
                None => self.log_tls(
                    Level::Info,
                    format_args!("certificate {file} has no OCSP answer any more"),
                ),
            }
        }
    }

    /// Logs that files have changed in a way that is of no use. What the door has of them stays.
    pub fn refuse_tls(&self, errors: &[FileError]) {
        for error in errors {
            self.log_tls(
                Level::Error,
                format_args!("a changed file is refused and the old one stays: {error}"),
            );
        }
    }

    /// Logs that files that were refused are again those of the certificates that the door has.
    pub fn restore_tls(&self) {
        self.log_tls(
            Level::Info,
            format_args!("the files of certificates are again as they were before"),
        );
    }

    /// Logs what there is to say about the ends of certificates and of answers of OCSP. Returns the time after which it
    /// must be called again; `None` without TLS.
    pub fn remark_on_ends(&mut self, now: SystemTime) -> Option<Duration> {
        let pairs = self.tls.values_mut().flat_map(|tls| {
            let identities = tls.prepared.server.identities();
            identities.zip(&mut tls.expiries)
        });
        let looks: Vec<_> = pairs.map(|(identity, expiry)| expiry.look(identity, now)).collect();
        for look in &looks {
            self.log_remarks(&look.remarks);
        }
        looks.into_iter().map(|look| look.again).min()
    }

    fn log_remarks<'r>(&self, remarks: impl IntoIterator<Item = &'r Remark>) {
        for Remark { level, text } in remarks {
            self.log_tls(*level, format_args!("{text}"));
        }
    }

    fn log_tls(&self, level: Level, line: fmt::Arguments<'_>) {
        let name = self.name();
        log::log!(target: self.kind.module, level, service:% = name; "{name}: {line}");
    }

    /// Logs the connections with TLS that have gone wrong since the last call.
    pub(super) fn tell_troubles(&mut self, cx: &mut Context<'_>) {
        for (origin, trouble) in self.tls_counts.meter.take_troubles() {
            let topic = match trouble {
                Trouble::Failed(_) => FAILED,
                Trouble::Cut => CUT,
            };
            self.note(cx, Level::Warn, topic, format_args!("{origin}: {trouble}"));
        }
    }

    /// Adds the rows about TLS. The days until the first certificate ends are there only if there is one, and 0 if it
    /// has ended.
    pub(in crate::doors) fn report_tls(&self, snapshot: &mut Snapshot) {
        let counts = &self.tls_counts;
        snapshot.count("tls handshakes", counts.handshakes);
        snapshot.count("tls resumed", counts.resumed);
        snapshot.count("tls failed", counts.meter.failed());
        snapshot.count("tls cut", counts.meter.cut());
        let (handshakes, signatures) = self.arrivals.handshaking();
        snapshot.count("tls waiting", handshakes);
        snapshot.count("tls signing", signatures);
        let firsts = self.tls.values().filter_map(|tls| tls.prepared.server.first_to_end());
        if let Some(first) = firsts.min_by_key(|identity| identity.names().not_after) {
            let days = first.names().days_left(SystemTime::now());
            snapshot.count("tls days left", days.unwrap_or(0));
        }
    }

    /// The server of the listeners with TLS, if there are any.
    pub fn tls(&self) -> Option<&Arc<ServerTls>> {
        self.tls_of(&None)
    }

    /// The server of this name, if there is one.
    pub(in crate::doors) fn tls_of(&self, name: &Option<Arc<str>>) -> Option<&Arc<ServerTls>> {
        self.tls.get(name).map(|tls| tls.prepared.server())
    }

    /// The certificates and keys of every server, in the order of their names; the server of the listeners is the first.
    pub fn prepared_servers(&self) -> impl Iterator<Item = (&Option<Arc<str>>, &PreparedTls)> {
        self.tls.iter().map(|(name, tls)| (name, &tls.prepared))
    }
}

/// Returns what a certificate is for, and how long, for the log.
fn purpose(identity: &Identity) -> String {
    let hosts = identity.names().all_hosts().join(", ");
    let hosts = if hosts.is_empty() { "no host" } else { &hosts };
    format!("for {}, until {}", hosts.escape_debug(), identity.names().last_day())
}
