//! What an exec door is told: every number decided, every default applied, nothing left to look up.

pub use super::core::client::Policy;
pub use super::core::permits::{Clients, Programs};
pub use super::core::protocol::Protocol;
use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::net::addr::ListenAddr;
use crate::process::spec::SpawnContext;
use std::time::Duration;

/// One exec door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has. Among the addresses a TCP address that other machines reach is only with a list of
    /// [`programs`](Self::programs).
    pub front: FrontOptions,
    /// Who may connect over UNIX sockets. With a list there is no TCP address.
    pub clients: Clients,
    /// What may be run.
    pub programs: Programs,
    /// How programs are asked for.
    pub protocol: Protocol,
    /// What each connection is decided by.
    pub policy: Policy,
    /// What programs are started with, no terminal among it.
    pub context: SpawnContext,
    /// From TERM to KILL.
    pub kill_timeout: Duration,
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

    /// Returns the descriptors that may be open at the same time: for each connection its socket, three pipes, a pidfd;
    /// beside them the rules of the sandbox, the other ends of the pipes of the program that is being started, and a reserve.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: 9,
            per_connection: 5,
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
