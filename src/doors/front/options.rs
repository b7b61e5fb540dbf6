//! The options that every door has, whatever it does with its clients.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::drain::Allowance;
use crate::net::access::{AccessList, TrustedProxies};
use crate::net::addr::{Listen, ListenAddr};
use crate::net::bind::UnixSocketOptions;
use crate::net::limits::ConnectionLimits;
use crate::net::tls::Version;
use crate::net::tls::files::{ClientRule, IdentityFiles};

/// The part of a door's options that is about its name, its listeners and the connections that it accepts. The door and
/// its front share one.
#[derive(Debug, Clone, PartialEq)]
pub struct FrontOptions {
    /// The name in logs and statistics; unique in a daemon.
    pub name: String,
    /// The listeners that clients connect to. There are none if all connections are handed over by other doors.
    pub listen: Vec<Listen>,
    /// The settings of TLS. There are such if and only if one of the listeners has TLS.
    pub tls: Option<TlsOptions>,
    /// The settings of TLS that the door ends by itself, for some of the connections that have come without: each has a
    /// name within the door.
    pub named_tls: BTreeMap<Arc<str>, TlsOptions>,
    /// Mode and owner of the UNIX listeners among [`listen`](Self::listen).
    pub unix_socket: UnixSocketOptions,
    /// The length of the kernel's queue of connections that are not accepted yet.
    pub backlog: u32,
    /// The addresses that may connect over TCP.
    pub access: AccessList,
    /// The proxies whose PROXY headers are believed.
    pub proxies: TrustedProxies,
    /// The greatest number of connections, in total and from one address.
    pub connection_limits: ConnectionLimits,
    /// The answer to the question whether the limit on the total may be lowered.
    pub limit_kind: LimitKind,
    /// The time that work in hand may take once the daemon was told to stop.
    pub stop_timeout: Duration,
    /// The time that work in hand may take once a successor has taken over the listeners; `None` if it has no more than
    /// the stop timeout.
    pub old_generation_timeout: Option<Duration>,
}

/// The settings of a TLS server: that of the listeners, or one with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsOptions {
    /// The files of the certificates. Never empty; the first is for clients that ask for no name, or for an unknown one.
    pub identities: Vec<IdentityFiles>,
    /// The oldest version that clients may speak.
    pub min_version: Version,
    /// The rule about the certificates of clients; `None` if they need none.
    pub clients: Option<ClientRule>,
    /// The protocol that is agreed on (ALPN); `None` if the server takes no part in that.
    pub alpn: Option<Box<[u8]>>,
}

/// The strictness of a limit on all connections of a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitKind {
    /// The limit is kept, or refused if the limit on open files does not allow it: the operator has set it.
    Fixed,
    /// The limit is lowered to the number that the limit on open files allows.
    Flexible,
}

/// The descriptors that the work of a door takes, its listeners not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorNeeds {
    /// The number that does not depend on the connections.
    pub beside: usize,
    /// The number for each connection, at least 1.
    pub per_connection: usize,
}

/// Descriptors that may be needed at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptors {
    /// The number that must be there.
    pub fixed: usize,
    /// The number for connections whose limit may be lowered.
    pub flexible: usize,
}

/// A number that was lowered to what the machine allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    /// The number that was set, or is the default.
    pub from: usize,
    /// The number that is possible.
    pub to: usize,
}

impl FrontOptions {
    /// Returns the addresses of the listeners.
    pub fn addresses(&self) -> impl Iterator<Item = &ListenAddr> {
        self.listen.iter().map(|listen| &listen.address)
    }

    /// Returns true if one of the listeners has this address, whatever its transport is.
    pub fn listens_on(&self, address: &ListenAddr) -> bool {
        self.addresses().any(|own| own == address)
    }

    /// Returns the settings of every TLS server of the door, each with its name; that of the listeners has none.
    pub fn tls_servers(&self) -> impl Iterator<Item = (Option<Arc<str>>, &TlsOptions)> {
        let named = self.named_tls.iter().map(|(name, tls)| (Some(Arc::clone(name)), tls));
        self.tls.iter().map(|tls| (None, tls)).chain(named)
    }

    /// Returns the time that work in hand may take once the daemon was told to stop.
    pub(in crate::doors) fn allowance_after_stop(&self) -> Allowance {
        Allowance {
            time: self.stop_timeout,
            flag: "--stop-timeout",
        }
    }

    /// Returns the time that work in hand may take once a successor has taken over the listeners.
    pub(in crate::doors) fn allowance_after_hand_over(&self) -> Allowance {
        match self.old_generation_timeout {
            None => self.allowance_after_stop(),
            Some(time) => Allowance {
                time,
                flag: "--old-generation-timeout",
            },
        }
    }

    /// Returns the descriptors of a door with these needs.
    pub fn descriptors(&self, needs: DescriptorNeeds) -> Descriptors {
        let connections = self.connection_limits.total.saturating_mul(needs.per_connection);
        match self.limit_kind {
            LimitKind::Fixed => Descriptors {
                fixed: needs.beside.saturating_add(connections),
                flexible: 0,
            },
            LimitKind::Flexible => Descriptors {
                fixed: needs.beside,
                flexible: connections,
            },
        }
    }

    /// Lowers the limits on connections to `total`. Returns `None` if the limit was not higher.
    pub fn limit_connections(&mut self, total: usize) -> Option<Lowered> {
        let limits = &mut self.connection_limits;
        let from = limits.total;
        if from <= total {
            return None;
        }
        limits.total = total;
        limits.per_address = limits.per_address.map(|number| number.min(total));
        Some(Lowered { from, to: total })
    }

    /// Lowers the backlog to the `most` that the kernel allows. Returns `None` if it was not longer.
    pub fn limit_backlog(&mut self, most: u32) -> Option<Lowered> {
        let from = self.backlog;
        self.backlog = from.min(most);
        (from > most).then_some(Lowered {
            from: from as usize,
            to: most as usize,
        })
    }
}

#[cfg(test)]
impl FrontOptions {
    /// The options of a door named `c` that allows ten connections and listens nowhere.
    pub fn sample(limit_kind: LimitKind) -> Self {
        FrontOptions {
            name: "c".to_owned(),
            listen: Vec::new(),
            tls: None,
            named_tls: BTreeMap::new(),
            unix_socket: UnixSocketOptions::default(),
            backlog: 1,
            access: AccessList::default(),
            proxies: TrustedProxies::default(),
            connection_limits: ConnectionLimits {
                total: 10,
                per_address: None,
            },
            limit_kind,
            stop_timeout: Duration::from_secs(1),
            old_generation_timeout: None,
        }
    }
}
