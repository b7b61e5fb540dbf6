//! The options of a route door: every number is decided, every default applied, nothing is left to look up.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

pub use super::core::table::{
    Address, Balance, CATCH_ALL, EndedTls, Pattern, ProxyVersion, Rule, Server, Servers, Service, Table, Target, Way,
};
use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::net::addr::Mark;
pub use crate::store::place::{Password, Place as StorePlace, Secret, Settings as StoreSettings, StoreTls};

/// The mark of listeners for TLS.
pub const TLS: Mark = Mark(0);
/// The mark of listeners for HTTP.
pub const HTTP: Mark = Mark(1);

/// One route door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has. None of the listeners has TLS: that of a client goes through to its server, or
    /// ends by a rule of the table, whose server is among those with names.
    pub front: Arc<FrontOptions>,
    /// The services of the file, whose doors all exist and take connections. The time-outs of a connection to a server are those of its rule.
    pub table: Arc<Table>,
    /// The names of the doors that services of the table name.
    pub targets: Arc<BTreeSet<Arc<str>>>,
    /// The store of further services, if there is one.
    pub store: Option<StoreOptions>,
    /// The most time from a client's connecting until the name of its server has come.
    pub hello_timeout: Duration,
    /// The time for which the addresses of a server's host are good.
    pub resolve_interval: Duration,
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

/// The descriptors for pipes between sockets: the two ends of each.
const PIPES: usize = 2 * 160;
/// The descriptors for a store: two connections, the file of its table, and one of TLS or of a password.
const STORE: usize = 4;
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
    /// server; beside them the pipes and a reserve.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: PIPES + RESERVE + self.store.as_ref().map_or(0, |_| STORE),
            per_connection: 2,
        }
    }
}
