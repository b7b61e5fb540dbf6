//! The numbers of one exec door, since its start. Each is counted where the event is decided or seen.

/// The numbers of events. Each is a line of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests whose arguments were complete.
    pub total: u64,
    /// Programs that may not be run.
    pub forbidden_programs: u64,
    /// Requests refused: malformed, too slow, too late.
    pub refused: u64,
    /// Clients that were gone before their program had ended.
    pub vanished: u64,
    /// Clients that left the end of their answer unread.
    pub unread: u64,
    /// Connections of users that may have no program run.
    pub forbidden_clients: u64,
}
