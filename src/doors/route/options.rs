//! The options of a route door: every number is decided, every default applied, nothing is left to look up.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::core::checks;
pub use super::core::checks::{Check, Question, Subject, subjects};
pub use super::core::secrets::{LONGEST_SECRET, Secret as TunnelSecret, Tunnel};
use super::core::starter::Plan;
pub use super::core::table::{
    Address, Balance, CATCH_ALL, EndedTls, Pattern, ProxyVersion, Rule, Server, Servers, Service, Table, Target, Way,
};
use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::doors::lent_pipes;
use crate::net::addr::Mark;
use crate::process::spec::ProcessSpec;
pub use crate::store::place::{Password, Place as StorePlace, Secret, Settings as StoreSettings, StoreTls};

/// The mark of listeners for TLS.
pub const TLS: Mark = Mark(0);
/// The mark of listeners for HTTP.
pub const HTTP: Mark = Mark(1);
/// The mark of listeners for tunnel clients.
pub const TUNNEL: Mark = Mark(2);

/// One route door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has. Only listeners for tunnel clients may have TLS: that of other clients goes through
    /// to its server, or ends by a rule of the table, whose TLS server is among those with names.
    pub front: Arc<FrontOptions>,
    /// The services of the file, whose doors all exist and take connections. The time-outs of a connection to a server are those of its rule.
    pub table: Arc<Table>,
    /// The names of the doors that services of the table name.
    pub targets: Arc<BTreeSet<Arc<str>>>,
    /// The store of further services, if there is one.
    pub store: Option<StoreOptions>,
    /// The servers of the table that are checked.
    pub checks: Arc<[Subject]>,
    /// The programs that rules name by their numbers.
    pub programs: Vec<Arc<ProgramOptions>>,
    /// The most time from a client's connecting until the name of its server has come.
    pub hello_timeout: Duration,
    /// The time for which the addresses of a server's host are good.
    pub resolve_interval: Duration,
    /// The time from one sign of life of a tunnel client to the next question for one.
    pub tunnel_ping: Duration,
    /// The time without an answer after which its session is over.
    pub tunnel_ping_timeout: Duration,
    /// The time for which connections wait for a tunnel client of their service, after the last one has left and after the
    /// start of the door; zero: not at all.
    pub tunnel_wait: Duration,
    /// True if each connection is logged at its end.
    pub log_connections: bool,
    /// True if each step of a connection is logged.
    pub debug: bool,
}

/// The store of a door.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreOptions {
    /// The place of the store, and how it is followed.
    pub settings: StoreSettings,
    /// The rule of each of its services. The target is that of the entry.
    pub rule: Rule,
}

/// A program behind servers, which is started by the first connection to one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramOptions {
    /// The program, and what it is started with.
    pub process: ProcessSpec,
    /// The addresses at which it listens. No other program has one of them.
    pub addresses: BTreeSet<Address>,
    /// The most time from its start until it listens.
    pub ready_timeout: Duration,
    /// The time without a connection after which it is ended, if it ever is.
    pub idle: Option<Duration>,
    /// The time from TERM to KILL.
    pub kill_timeout: Duration,
}

impl ProgramOptions {
    /// Returns the part that the core knows.
    pub(super) fn plan(&self) -> Plan {
        Plan {
            ready_timeout: self.ready_timeout,
            idle: self.idle,
        }
    }

    /// Returns true if a process that was started by the others runs as these say.
    pub(super) fn runs_as(&self, others: &ProgramOptions) -> bool {
        self.process == others.process && self.addresses == others.addresses
    }

    /// Returns true if it listens at an address of the other.
    pub fn has_an_address_of(&self, other: &ProgramOptions) -> bool {
        !self.addresses.is_disjoint(&other.addresses)
    }
}

/// The form in log lines.
impl fmt::Display for ProgramOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "program {}", self.process.command)
    }
}

/// The descriptors for a store: two connections, the file of its table, and one of TLS or of a password.
const STORE: usize = 4;
/// The descriptors of a program: its pidfd, its output, and the context of its start.
const PER_PROGRAM: usize = 3;
/// The descriptors that are in use for a moment, also by look-ups of hosts, and a reserve.
const RESERVE: usize = 24;

impl Options {
    /// Returns the number of services, for a log line.
    pub fn summary(&self) -> String {
        let services = match self.table.len() {
            1 => "1 service".to_owned(),
            count => format!("{count} services"),
        };
        match &self.store {
            Some(store) => format!("{services}, and those of the store at {}", store.settings.place),
            None => services,
        }
    }

    /// Returns the descriptors that may be open at the same time: for each connection its socket and that to its
    /// server; beside them the pipes, the programs and a reserve.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: lent_pipes::DESCRIPTORS
                + RESERVE
                + self.checks.len().min(checks::MOST)
                + self.store.as_ref().map_or(0, |_| STORE)
                + PER_PROGRAM * self.programs.len(),
            per_connection: 2,
        }
    }
}
