//! The options of an exec door: every number is decided, every default applied, nothing is left to look up.

pub use super::core::client::Policy;
pub use super::core::permits::{Clients, Programs};
pub use super::core::protocol::Protocol;
use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::process::spec::SpawnContext;
use std::sync::Arc;
use std::time::Duration;

/// One exec door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has. A TCP address that other machines reach is among the listeners only if there is
    /// a list of [`programs`](Self::programs).
    pub front: Arc<FrontOptions>,
    /// The users and groups that may connect over UNIX sockets. With a list there is no TCP address.
    pub clients: Clients,
    /// The programs that may be run.
    pub programs: Programs,
    /// True if connections that other doors of the process hand over are taken. Then there is a list of programs, and
    /// none of clients.
    pub takes_handed: bool,
    /// The protocol of requests and answers.
    pub protocol: Protocol,
    /// The numbers by which the core decides about each connection.
    pub policy: Policy,
    /// The environment, user, limits and so on of the programs. It has no terminal.
    pub context: SpawnContext,
    /// The time from TERM to KILL.
    pub kill_timeout: Duration,
    /// The most bytes of all arguments of a program, to each of which
    /// [`PER_ARGUMENT`](super::core::request::PER_ARGUMENT) bytes are added.
    pub max_arguments: usize,
    /// The most bytes of a connection that are held in memory, in each direction.
    pub max_buffer: usize,
    /// True if log lines show arguments.
    pub log_arguments: bool,
    /// True if each step of a connection is logged.
    pub debug: bool,
}

impl Options {
    /// Returns the kind of programs that may be run, for a log line.
    pub fn summary(&self) -> String {
        let programs = if self.programs.restrict() {
            "programs of a list, as clients name them"
        } else {
            "whatever program a client names"
        };
        programs.to_owned()
    }

    /// Returns the descriptors that may be open at the same time: for each connection its socket, three pipes, a pidfd;
    /// beside them the rules of the sandbox, the other ends of the pipes of the program that is being started, and a
    /// reserve.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        DescriptorNeeds {
            beside: 9,
            per_connection: 5,
        }
    }
}
