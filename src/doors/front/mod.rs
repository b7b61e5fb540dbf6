//! The front: the part of a door that is the same for all of them. The door owns it, and [`Door`](super::Door) drives
//! it.
//!
//! It has the door's name, its listeners and its access list, counts its connections, keeps its event log, and knows
//! how far the door is on its way to its end. The life of a connection here: a listener accepts it while the daemon has
//! descriptors, the access list permits it or not, the door asks for a place for it ([`Front::count_in`]), and gives
//! the place back when the connection has ended ([`Front::connection_closed`]). From a trusted proxy a preface comes
//! first, and on a listener with TLS a handshake: the way of such a connection is in [`admission`].
//!
//! A door gives the front four kinds of its sources ([`FrontKind`]), and passes their events on. What does not belong
//! here: the bytes of a client, and the programs behind the door.

pub mod admission;
mod arrival;
mod arrivals;
mod drain;
pub(super) mod handshake;
mod journal;
pub mod options;
mod preface;
mod signatures;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use crate::error::{Blame, Error};
use crate::net::conn::Conn;
use crate::net::limits::{ConnectionCount, Full};
use crate::net::listening::Listening;
use crate::net::origin::Origin;
use crate::net::tls::server::ServerTls;
use crate::reactor::{Context, Key, Kind, Source};
use crate::stats::{Snapshot, Value};

use super::Listeners;
pub(super) use arrival::Awaited;
use arrivals::Arrivals;
use drain::{Allowance, Drain};
use handshake::Share;
use journal::Journal;
pub(super) use journal::Topic;
use options::FrontOptions;
use tls::{ServedTls, TlsCounts};

const DENIED: Topic = Topic::new("connections that the access lists refuse");
const MAX_CONNECTIONS: Topic = Topic::new("connections over --max-connections");
const MAX_CONNECTIONS_PER_IP: Topic = Topic::new("connections over --max-connections-per-ip");
const ACCEPT: Topic = Topic::new("pauses in accepting");

/// The properties of a front that depend on the kind of its door.
#[derive(Debug, Clone, Copy)]
pub(super) struct FrontKind {
    /// The module of the door, which is the target of its lines in the log.
    pub(super) module: &'static str,
    /// The kind of its listeners.
    pub(super) listener: Kind,
    /// The kind of its connections whose preface is read.
    pub(super) arrival: Kind,
    /// The source of the event log's alarm.
    pub(super) upkeep: Source,
    /// The source of the alarm that ends draining.
    pub(super) drain: Source,
    /// The fate of the work in hand at the end of draining, for the log.
    pub(super) at_stop_timeout: &'static str,
    /// True if the door serves as soon as it accepts, and its start is to be logged then.
    pub(super) serves_at_once: bool,
}

/// The end of a handshake that was made for a connection [of the door](Front::secure).
#[derive(Debug)]
pub(super) struct Secured {
    /// The key by which the door knows the connection.
    pub(super) key: Key,
    /// The connection, its origin with what was established, and the server that has made the handshake; `None` if the client was refused, which was counted and
    /// logged.
    pub(super) outcome: Option<(Conn, Origin, Arc<ServerTls>)>,
}

/// The front of one door.
#[derive(Debug)]
pub struct Front {
    kind: FrontKind,
    options: Arc<FrontOptions>,
    listening: Listening,
    /// The TLS servers by their names: that of the listeners, if one has TLS, has none.
    tls: BTreeMap<Option<Arc<str>>, ServedTls>,
    tls_counts: TlsCounts,
    arrivals: Arrivals,
    /// The connections of the door whose handshakes have come to their ends.
    secured: VecDeque<Secured>,
    /// The share of a turn that the handshakes of all clients have.
    pub(super) share: Share,
    count: ConnectionCount,
    refused: Refused,
    journal: Journal,
    drain: Drain,
    /// The time by which clients must have completed their requests, once the door drains.
    hasten: Option<Instant>,
    /// True if other doors may hand over more connections, although the door drains.
    expects_handed: bool,
    /// The processes of before an upgrade that still have clients.
    predecessors: usize,
    started: Instant,
}

/// The numbers of connections that were refused before the door saw them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Refused {
    /// The connections that the access lists have refused.
    pub(super) denied: u64,
    /// The connections over the limit on all connections.
    pub(super) over_total: u64,
    /// The connections over the limit on those from one address.
    pub(super) over_address: u64,
    /// The connections without the PROXY header that was asked of them.
    pub(super) bad_header: u64,
    /// The connections that have not completed their TLS handshake.
    pub(super) bad_handshake: u64,
    /// The connections whose certificate has no name on the list.
    pub(super) not_listed: u64,
}

impl Front {
    /// The front of a door that listens already, but serves no client yet.
    pub(super) fn new(kind: FrontKind, options: Arc<FrontOptions>, listeners: Listeners, now: Instant) -> Self {
        Front {
            listening: Listening::new(kind.listener, listeners),
            tls: BTreeMap::new(),
            tls_counts: TlsCounts::default(),
            arrivals: Arrivals::new(kind.arrival),
            secured: VecDeque::new(),
            share: Share::default(),
            count: ConnectionCount::new(options.connection_limits.clone()),
            refused: Refused::default(),
            journal: Journal::new(kind.module, kind.upkeep),
            drain: Drain::new(kind.drain),
            hasten: None,
            expects_handed: false,
            predecessors: 0,
            started: now,
            kind,
            options,
        }
    }

    /// The name in logs and statistics.
    pub(super) fn name(&self) -> &str {
        &self.options.name
    }

    /// The options in force.
    pub(super) fn options(&self) -> &FrontOptions {
        &self.options
    }

    /// The time since the door was opened.
    pub(super) fn uptime(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Takes on new options. `new` are the listeners for addresses that were not listened on before; listeners whose
    /// address is not named any more are closed.
    pub(super) fn reload(&mut self, cx: &mut Context<'_>, options: Arc<FrontOptions>, new: Listeners) {
        self.options = options;
        self.count.set_limits(self.options.connection_limits.clone());
        let FrontOptions { name, listen, .. } = &*self.options;
        self.listening.replace(cx, name, listen, new);
        self.close_untrusted(cx);
    }

    // ---- listeners ---------------------------------------------------------------------------------------------

    /// The listeners, each with its address as it was written.
    pub fn listening(&self) -> &Listening {
        &self.listening
    }

    pub(super) fn listening_mut(&mut self) -> &mut Listening {
        &mut self.listening
    }

    /// Begins to accept. Must be called once, after the door was started.
    ///
    /// # Errors
    /// The kernel watches no more descriptors.
    pub fn begin_accepting(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        let name = &self.options.name;
        self.listening
            .register(cx, name)
            .map_err(|error| cannot_watch(&error))?;
        if self.kind.serves_at_once {
            log::info!(target: self.kind.module, service:% = name; "{name}: ready");
        }
        Ok(())
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// Returns true if the access list permits a connection of this origin; else it is counted and logged.
    pub(super) fn permits(&mut self, cx: &mut Context<'_>, origin: &Origin) -> bool {
        let is_permitted = self.options.access.permits(origin);
        if !is_permitted {
            self.deny(cx, origin, "not allowed by --allow and --deny");
        }
        is_permitted
    }

    /// Counts and logs a connection of an origin that may not connect.
    pub(super) fn deny(&mut self, cx: &mut Context<'_>, origin: &Origin, why: &str) {
        self.refused.denied += 1;
        self.note(cx, Level::Warn, DENIED, format_args!("refused {origin}: {why}"));
    }

    /// Takes a place for a connection. Must be followed by [`connection_closed`](Self::connection_closed) when it has
    /// ended.
    ///
    /// # Errors
    /// The limit that is reached; it was counted, and the caller logs it.
    pub(super) fn count_in(&mut self, origin: &Origin) -> Result<(), OverLimit> {
        self.count.admit(origin).map_err(|full| self.over_limit(full))
    }

    /// Counts a connection over this limit.
    fn over_limit(&mut self, full: Full) -> OverLimit {
        match full {
            Full::Total => self.refused.over_total += 1,
            Full::Address => self.refused.over_address += 1,
        }
        OverLimit(full)
    }

    /// Gives the place of a connection back.
    pub(super) fn release(&mut self, origin: &Origin) {
        self.count.release(origin);
    }

    /// Must be called when a connection that was counted has been closed: its place and its descriptor are free.
    pub(super) fn connection_closed(&mut self, cx: &mut Context<'_>, origin: &Origin) {
        self.release(origin);
        self.descriptor_freed(cx);
    }

    /// Must be called when a descriptor has been closed: a listener that paused for want of one may continue. Logs what
    /// had gone wrong with TLS on it.
    pub(super) fn descriptor_freed(&mut self, cx: &mut Context<'_>) {
        self.tell_troubles(cx);
        self.listening.descriptor_freed(cx);
    }

    /// The number of connections.
    pub(super) fn connections(&self) -> usize {
        self.count.total()
    }

    /// The connections that were refused before the door saw them.
    pub(super) fn refused(&self) -> Refused {
        self.refused
    }

    // ---- event log ---------------------------------------------------------------------------------------------

    /// Writes one line to the log, unless too many on its topic came lately. Returns true if it was written.
    pub(super) fn note(
        &mut self,
        cx: &mut Context<'_>,
        level: Level,
        topic: impl Into<Topic>,
        line: fmt::Arguments<'_>,
    ) -> bool {
        let is_written = self.write(cx.now(), level, topic, line);
        if !is_written {
            self.plan_upkeep(cx, None);
        }
        is_written
    }

    /// Does the same without planning a summary: if it returns false, [`plan_upkeep`](Self::plan_upkeep) must follow.
    pub(super) fn write(
        &mut self,
        now: Instant,
        level: Level,
        topic: impl Into<Topic>,
        line: fmt::Arguments<'_>,
    ) -> bool {
        let name = &self.options.name;
        self.journal.write(now, name, level, topic.into(), line)
    }

    /// Logs that accepting has to pause.
    pub(super) fn log_pause(&mut self, cx: &mut Context<'_>, line: fmt::Arguments<'_>) {
        self.note(cx, Level::Error, ACCEPT, line);
    }

    /// Must be called when the alarm of the event log has gone off.
    pub(super) fn sum_up(&mut self, cx: &mut Context<'_>) {
        self.journal.sum_up(cx, &self.options.name);
    }

    /// Arms the alarm of the event log for its next summary, or for `tick` if that is earlier.
    pub(super) fn plan_upkeep(&mut self, cx: &mut Context<'_>, tick: Option<Instant>) {
        self.journal.plan(cx, tick);
    }

    /// Sums up all lines that were left out, since the door has ended.
    pub(super) fn finish_log(&mut self) {
        self.journal.drain(&self.options.name);
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    pub(super) fn is_serving(&self) -> bool {
        self.drain.is_serving()
    }

    pub(super) fn is_draining(&self) -> bool {
        self.drain.is_draining()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.drain.is_stopping()
    }

    /// Begins to drain, after accepting has ended. A door that drains already gets no more time than it has.
    pub(super) fn begin_draining(&mut self, cx: &mut Context<'_>, allowance: Allowance) {
        let (is_first, name, clients) = (self.is_serving(), &self.options.name, self.count.total());
        self.drain.begin(cx, allowance);
        if is_first {
            log::info!(target: self.kind.module, service:% = name; "{name}: draining, {clients} clients connected");
        }
    }

    /// Must be told, before the door drains, if other doors may hand over more connections to it; and when that is over.
    /// A door that expects some has not finished.
    pub fn expect_handed(&mut self, expects_handed: bool) {
        self.expects_handed = expects_handed && !self.is_stopping();
    }

    /// Returns true if other doors may hand over more connections, although the door drains.
    pub fn expects_handed(&self) -> bool {
        self.expects_handed && self.is_draining()
    }

    /// Must be called when the alarm of draining has gone off. Returns true if the rest of the work is to be stopped
    /// now.
    pub(super) fn expire_drain(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(flag) = self.drain.expire(cx) else {
            return false;
        };
        self.close_arrivals(cx);
        self.expects_handed = false;
        let (name, fate) = (&self.options.name, self.kind.at_stop_timeout);
        log::warn!(target: self.kind.module, service:% = name; "{name}: {flag} is over; {fate}");
        true
    }

    /// Stops accepting and draining, and closes connections that are not admitted yet.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        self.listening.close();
        self.close_arrivals(cx);
        self.expects_handed = false;
        self.drain.stop(cx);
    }

    /// Disarms the alarm of the event log, for a door that has nothing more to log.
    pub(super) fn stop_upkeep(&mut self, cx: &mut Context<'_>) {
        self.journal.stop(cx);
    }

    // ---- statistics --------------------------------------------------------------------------------------------

    /// Takes note of the number of processes of before an upgrade that still run. Must be called before statistics are
    /// made.
    pub fn note_predecessors(&mut self, count: usize) {
        self.predecessors = count;
    }

    /// Returns the number of those processes.
    pub(super) fn predecessors(&self) -> usize {
        self.predecessors
    }

    /// Adds the rows about the door itself: the time that it has been open, the version of the program, its name.
    pub(super) fn report(&self, snapshot: &mut Snapshot, now: Instant) {
        snapshot.count("uptime", self.uptime(now).as_secs());
        snapshot.push("version", Value::Text(env!("CARGO_PKG_VERSION").to_owned()));
        snapshot.push("name", Value::Text(self.options.name.clone()));
    }
}

/// A limit on connections that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverLimit(Full);

impl OverLimit {
    pub(super) fn topic(self) -> Topic {
        match self.0 {
            Full::Total => MAX_CONNECTIONS,
            Full::Address => MAX_CONNECTIONS_PER_IP,
        }
    }

    /// The flag that sets the limit.
    pub(super) fn flag(self) -> &'static str {
        match self.0 {
            Full::Total => "--max-connections",
            Full::Address => "--max-connections-per-ip",
        }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn cannot_watch(error: &io::Error) -> Error {
    let what = format!("cannot watch descriptors: {error}");
    Error::new(Blame::System, what, "raise fs.epoll.max_user_watches")
}
