//! The options of a tunnel door: every number is decided, every default applied, nothing is left to look up.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::doors::lent_pipes;
pub use crate::net::addr::{Connect, ConnectAddr};
use crate::net::tls::files::IdentityFiles;
pub use crate::store::place::{Password as Source, Secret};

/// One tunnel door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has. There are no listeners. The limit on connections is that on streams.
    pub front: Arc<FrontOptions>,
    /// The servers, at least one, each once. Those with TLS have a name of a certificate.
    pub remotes: Vec<Remote>,
    /// The authorities of their certificates; `None` for the ones of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate that they are shown.
    pub identity: Option<IdentityFiles>,
    /// The secret that they are told, or its file.
    pub secret: Source,
    /// The local service for everything that is no TLS, or for everything.
    pub local: Local,
    /// The local service for TLS, if that is another one.
    pub local_tls: Option<Local>,
    /// True if each stream begins with a header of the PROXY protocol, which doors of this process are told.
    pub accept_proxy: bool,
    /// The longest time from one attempt to connect to a server to the next.
    pub backoff: Duration,
    /// The longest time of an attempt to connect.
    pub connect_timeout: Duration,
    /// The time without a byte in either direction after which a stream is ended, if it ever is.
    pub idle_timeout: Option<Duration>,
    /// True if each step of a stream is logged.
    pub debug: bool,
}

/// A place that streams are connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A service.
    Service(Arc<ConnectAddr>),
    /// Another door of the same process.
    Door(Arc<str>),
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Local::Service(address) => address.fmt(f),
            Local::Door(name) => write!(f, "door:{name}"),
        }
    }
}

/// A server of tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its address, and whether TLS is spoken there.
    pub address: Connect,
    /// The name that its certificate must have, if TLS is spoken.
    pub name: Option<ServerName<'static>>,
}

/// The descriptors that are in use for a moment, and a reserve.
const RESERVE: usize = 24;

impl Options {
    /// Returns words for a log line.
    pub fn summary(&self) -> String {
        let remotes: Vec<String> = self.remotes.iter().map(|remote| remote.address.to_string()).collect();
        format!("{} through {}", self.local, remotes.join(", "))
    }

    /// Returns the doors that streams are given to.
    pub fn targets(&self) -> BTreeSet<Arc<str>> {
        let locals = [Some(&self.local), self.local_tls.as_ref()].into_iter().flatten();
        let doors = locals.filter_map(|local| match local {
            Local::Door(name) => Some(Arc::clone(name)),
            Local::Service(_) => None,
        });
        doors.collect()
    }

    /// Returns the descriptors that may be open at the same time: the sessions, and one for each stream.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: lent_pipes::DESCRIPTORS + RESERVE + 2 * self.remotes.len(),
            per_connection: 1,
        }
    }
}
