//! Everything that a door is prepared from, beside its options: the surroundings that all doors of a daemon share, and
//! the TLS servers that were there before.

use std::collections::HashMap;
use std::sync::Arc;

use crate::net::tls::server::ServerTls;
use crate::process::spawn::SpawnDefaults;
use crate::relay::pipes::{Budget, Limits};

/// The part of a daemon that all its doors share.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The settings of every child process.
    pub spawn: SpawnDefaults,
    /// The pipes that the process may have for bytes which go from socket to socket.
    pub pipes: Arc<Budget>,
}

impl Surroundings {
    /// Returns the surroundings with these settings of children, and with the pipes that this system allows.
    pub fn new(spawn: SpawnDefaults) -> Self {
        Surroundings {
            spawn,
            pipes: Arc::new(Budget::new(Limits::of_this_system())),
        }
    }
}

/// The name of a TLS server, which is unique in a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerId {
    /// The name of the door.
    pub service: String,
    /// The name within the door; `None` for the server of its listeners.
    pub name: Option<Arc<str>>,
}

/// The TLS servers of the doors that are open. A server that is prepared again goes on with the tickets of the one that
/// it replaces.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// Each server by its name.
    pub tls: HashMap<ServerId, Arc<ServerTls>>,
}

impl ServerId {
    /// Returns the name of a server of a door: `None` is that of its listeners.
    pub fn new(service: &str, name: Option<Arc<str>>) -> Self {
        ServerId {
            service: service.to_owned(),
            name,
        }
    }
}
