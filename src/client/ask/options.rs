//! What `ask` is told: every default applied, nothing left to look up. `cli::ask` is the only writer.

use std::time::Duration;

use crate::net::addr::ConnectAddr;

/// What one run of `ask` does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The pools to ask; at least one.
    pub addresses: Vec<ConnectAddr>,
    /// The kind of program at the other end of standard input and output.
    pub mode: Mode,
    /// Every line is answered within this time after it was read. Positive.
    pub timeout: Duration,
    /// Whether Squid's lines begin with channel-IDs.
    pub channel_ids: ChannelIds,
    /// What a line gets that no pool has answered, without its LF.
    pub on_failure: Vec<u8>,
    /// What a line gets that contradicts what is known of channel-IDs, without its LF.
    pub on_contradiction: Vec<u8>,
    /// Whether lines and answers are secrets.
    pub privacy: Privacy,
}

/// Whether lines and answers are secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// They are URLs and the like.
    Public,
    /// They hold passwords: no core dump of this process may be written, nor its memory be read by other processes of its user.
    Confidential,
}

/// Whether Squid's lines begin with channel-IDs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelIds {
    /// The first line tells.
    Auto,
    /// Each line does.
    Yes,
    /// None does.
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

/// The numbers that [`core`](super::core) decides by. All are positive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The kind of program at the other end of standard input and output.
    pub mode: Mode,
    /// Every line is answered within this time after it was read.
    pub timeout: Duration,
    /// Whether Squid's lines begin with channel-IDs.
    pub channel_ids: ChannelIds,
    /// What a line gets that no pool has answered, without its LF.
    pub on_failure: Vec<u8>,
    /// What a line gets that contradicts what is known of channel-IDs, without its LF.
    pub on_contradiction: Vec<u8>,
    /// How many addresses there are; they are named 0 to `addresses` - 1.
    pub addresses: usize,
    /// How many connections may be open at once.
    pub max_in_flight: usize,
    /// How many lines may be unanswered, with a connection or waiting for one, before no more are read.
    pub max_unanswered: usize,
    /// How many lines may be in hand, those counted that are answered and wait for their turn, before no more are read.
    pub max_lines: usize,
    /// How many bytes of questions and answers may be in hand before no more lines are read.
    pub max_bytes: usize,
}
