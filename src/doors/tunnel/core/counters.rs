//! The counters of a tunnel door.

/// Since the start of the door.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Attempts to connect to a server.
    pub connects: u64,
    /// Attempts that have failed.
    pub failed: u64,
    /// Sessions that their servers have closed.
    pub closed: u64,
    /// Sessions whose connections have failed.
    pub lost: u64,
    /// Sessions whose servers did not answer.
    pub silent: u64,
    /// Sessions whose servers did not keep to the protocol.
    pub faulty: u64,
    /// Servers that have said that they take no more streams.
    pub went_away: u64,
    /// Streams that a server has opened.
    pub streams: u64,
    /// Streams that were refused because as many as may be were up.
    pub turned_away: u64,
    /// Streams whose local service could not be reached.
    pub refused: u64,
    /// Streams that were ended because no byte came for too long.
    pub idle: u64,
}
