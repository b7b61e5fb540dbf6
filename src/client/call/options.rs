//! The options of `call`, with every default applied. Only `cli::call` creates them.

use std::time::Duration;

use crate::client::TlsOptions;
use crate::net::addr::Connect;

/// The options of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The address of the exec door.
    pub address: Connect,
    /// The choices for TLS.
    pub tls: TlsOptions,
    /// The name of the program and its arguments; never empty.
    pub arguments: Vec<Vec<u8>>,
    /// The use of standard input.
    pub stdin: Stdin,
    /// The time within which there must be a connection. Positive.
    pub connect_timeout: Duration,
    /// The signals that are passed on.
    pub signals: Signals,
}

/// The signals that are passed on to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// INT, QUIT and TERM: the other ones are probably meant for a daemon.
    ToEnd,
    /// HUP, USR1 and USR2 as well.
    All,
}

/// The use of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// Sent to the program, unless it is a terminal.
    UnlessTerminal,
    /// Sent to the program.
    Sent,
    /// Not read.
    Ignored,
}
