//! The options of `ask`, with every default applied. Only `cli::ask` creates them.

use std::time::Duration;

use crate::client::TlsOptions;
use crate::net::addr::Connect;

/// The options of one run of `ask`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The pools to ask. At least one.
    pub addresses: Vec<Connect>,
    /// The choices for those with TLS.
    pub tls: TlsOptions,
    /// The kind of program at the other end of standard input and output.
    pub mode: Mode,
    /// The time within which every line is answered after it was read. Positive.
    pub timeout: Duration,
    /// Tells if Squid's lines begin with channel-IDs.
    pub channel_ids: ChannelIds,
    /// The answer to a line that no pool has answered, without its LF.
    pub on_failure: Vec<u8>,
    /// The answer to a line that contradicts the known use of channel-IDs, without its LF.
    pub on_contradiction: Vec<u8>,
    /// Tells if lines and answers are secret.
    pub privacy: Privacy,
    /// The largest number of connections to each pool that carry many lines; 0: each line gets a connection of its own.
    pub connections: usize,
    /// The age at which such a connection is replaced; `None` if it is not.
    pub max_connection_age: Option<Duration>,
}

/// The secrecy of lines and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Lines and answers are URLs and the like.
    Public,
    /// Lines and answers hold passwords: this process must not write a core dump, and other processes of its user must
    /// not read its memory.
    Confidential,
}

/// The use of channel-IDs in Squid's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelIds {
    /// The first line decides.
    Auto,
    /// Every line begins with one.
    Yes,
    /// No line begins with one.
    No,
}

/// The kind of program at the other end of standard input and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// A person or a script: replies byte for byte, in the order of the lines.
    Plain,
    /// Squid, with or without channel-IDs.
    Squid,
}

/// The limits and texts that [`core`](super::core) works with. All numbers but `connections` and `spread` are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The kind of program at the other end of standard input and output.
    pub mode: Mode,
    /// The time within which every line is answered after it was read.
    pub timeout: Duration,
    /// Tells if Squid's lines begin with channel-IDs.
    pub channel_ids: ChannelIds,
    /// The answer to a line that no pool has answered, without its LF.
    pub on_failure: Vec<u8>,
    /// The answer to a line that contradicts the known use of channel-IDs, without its LF.
    pub on_contradiction: Vec<u8>,
    /// The number of addresses; they are numbered from 0 to `addresses` - 1.
    pub addresses: usize,
    /// The number of lines that may be under way on connections of their own, together.
    pub max_singles: usize,
    /// The same for one address.
    pub singles_per_address: usize,
    /// The largest number of connections to each address that carry many lines; 0: each line gets a connection of its
    /// own.
    pub connections: usize,
    /// The age at which such a connection is replaced; `None` if it is not.
    pub max_connection_age: Option<Duration>,
    /// A number by which processes differ, so that they do not replace their connections at the same moment.
    pub spread: u64,
    /// The number of lines in hand, including answered ones that wait for their turn, at which no more lines are read.
    pub max_lines: usize,
    /// The number of bytes of questions and answers in hand at which no more lines are read.
    pub max_bytes: usize,
}
