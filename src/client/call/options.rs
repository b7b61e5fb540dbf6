//! What `call` is told: every default applied, nothing left to look up. `cli::call` is the only writer.

use std::time::Duration;

use crate::net::addr::ConnectAddr;

/// What one `call` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the exec door is.
    pub address: ConnectAddr,
    /// The program's name and its arguments; at least the name.
    pub arguments: Vec<Vec<u8>>,
    /// What becomes of standard input.
    pub stdin: Stdin,
    /// How long it may take until there is a connection. Positive.
    pub connect_timeout: Duration,
    /// Which signals are passed on.
    pub signals: Signals,
}

/// Which signals are passed on to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signals {
    /// INT, QUIT and TERM: the others are likely to be meant for a daemon.
    ToEnd,
    /// HUP, USR1 and USR2 as well.
    All,
}

/// What becomes of standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stdin {
    /// It goes to the program, unless it is a terminal.
    UnlessTerminal,
    /// It goes to the program.
    Sent,
    /// It is not read.
    Ignored,
}
