//! What an exec door is told: every number decided, every default applied, nothing left to look up.

pub use super::core::permits::{Clients, Programs};
pub use super::core::protocol::Protocol;
pub use super::core::run::Policy;
use crate::doors::Descriptors;
use crate::net::access::AccessList;
use crate::net::addr::ListenAddr;
use crate::net::bind::UnixSocketOptions;
use crate::net::limits::ConnectionLimits;
use crate::process::spec::SpawnContext;
use std::time::Duration;

/// What one connection holds while its program runs: its socket, three pipes, a pidfd.
pub const DESCRIPTORS_PER_CONNECTION: usize = 5;
/// The rules of the sandbox, the other ends of the pipes of the one program that is just being started, and some to spare.
const DESCRIPTORS_BESIDE: usize = 9;

/// One exec door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The name in logs and statistics; unique in a daemon.
    pub name: String,
    /// Where clients connect. Never empty; a TCP address that other machines reach only with a list of [`programs`](Self::programs).
    pub listen: Vec<ListenAddr>,
    /// Mode and owner of the UNIX listeners among [`listen`](Self::listen).
    pub unix_socket: UnixSocketOptions,
    /// Length of the kernel's queue of connections not yet accepted.
    pub backlog: u32,
    /// Who may connect over TCP.
    pub access: AccessList,
    /// Who may connect over UNIX sockets. With a list there is no TCP address.
    pub clients: Clients,
    /// What may be run.
    pub programs: Programs,
    /// How many may be connected, in total and from one address.
    pub connection_limits: ConnectionLimits,
    /// How programs are asked for.
    pub protocol: Protocol,
    /// What each connection is decided by.
    pub policy: Policy,
    /// What programs are started with, no terminal among it.
    pub context: SpawnContext,
    /// From TERM to KILL.
    pub kill_timeout: Duration,
    /// How long programs may run on once the daemon was told to stop.
    pub stop_timeout: Duration,
    /// The most bytes of all arguments of a program, [`PER_ARGUMENT`](super::core::request::PER_ARGUMENT) more counted for each.
    pub max_arguments: usize,
    /// How much of a connection may be held in memory, each way.
    pub max_buffer: usize,
    /// Whether log lines show arguments.
    pub log_arguments: bool,
    /// Whether each step of a connection is logged.
    pub debug: bool,
}

impl Options {
    /// In a few words.
    pub fn summary(&self) -> String {
        let programs = if self.programs.restrict() {
            "programs of a list, as clients name them"
        } else {
            "whatever program a client names"
        };
        programs.to_owned()
    }

    /// Descriptors that may be open at the same time.
    pub fn descriptors(&self) -> Descriptors {
        Descriptors {
            fixed: DESCRIPTORS_BESIDE,
            // Also where the operator has set it: as with sockexec, there are as many as the machine has.
            flexible: self.connection_limits.total.saturating_mul(DESCRIPTORS_PER_CONNECTION),
        }
    }
}

/// Whether other machines may reach this address. Whoever reaches an exec door can run anything.
pub fn is_exposed(address: &ListenAddr) -> bool {
    match address {
        ListenAddr::Tcp(address) => !address.ip().is_loopback(),
        ListenAddr::TcpAny { .. } => true,
        // A socket that is handed over is looked at when it is there.
        ListenAddr::Unix(_) | ListenAddr::Inherited(_) => false,
    }
}
