//! The counters of a tunnel door.

/// Since the start of the door.
#[derive(Debug, Default, Clone, Copy)]
pub struct Counters {
    /// Attempts to connect to a server.
    pub connects: u64,
    /// Attempts that have failed, and sessions that were lost.
    pub failed: u64,
    /// Sessions that have ended.
    pub lost: u64,
    /// Streams that a server has opened.
    pub streams: u64,
    /// Streams whose local service could not be reached.
    pub refused: u64,
    /// Streams that were ended because no byte came for too long.
    pub idle: u64,
}
