//! The numbers of one exec door, since its start. Each is counted where the event is decided or seen.

/// The numbers of events. Each is a line of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests whose arguments were complete.
    pub total: u64,
    /// Programs that could not be started.
    pub not_started: u64,
    /// Programs that may not be run.
    pub forbidden_programs: u64,
    /// Requests refused: malformed, too slow, too late.
    pub refused: u64,
    /// Programs that ran for as long as they might.
    pub timed_out: u64,
    /// Programs that wrote more than may be held.
    pub overflown: u64,
    /// Programs that needed a KILL.
    pub killed: u64,
    /// Clients that were gone before their program had ended.
    pub vanished: u64,
    /// Clients that left the end of their answer unread.
    pub unread: u64,
    /// Outputs that another process held open beyond the program's end.
    pub cut: u64,
    /// Programs that have left something in the background.
    pub background: u64,
    /// Exits with status 0.
    pub exit_zero: u64,
    /// Exits with another status.
    pub exit_nonzero: u64,
    /// Exits by a signal.
    pub exit_signal: u64,
    /// Connections of users that may have no program run.
    pub forbidden_clients: u64,
}

/// The numbers of bytes that were passed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes into standard inputs.
    pub input: u64,
    /// Bytes out of standard outputs.
    pub output: u64,
    /// Bytes out of standard errors.
    pub errors: u64,
}
