//! The numbers of one exec door, since its start. Whoever decides that something has happened counts it.

/// How often what has happened. Each is a line of the statistics, and told there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests whose arguments came complete.
    pub total: u64,
    /// Programs that could not be started.
    pub not_started: u64,
    /// Programs that may not be run.
    pub forbidden_programs: u64,
    /// Requests refused: malformed, too slow, too late.
    pub refused: u64,
    /// Programs that ran out of their time.
    pub timed_out: u64,
    /// Programs that wrote more than may be held.
    pub overflown: u64,
    /// Programs that needed a KILL.
    pub killed: u64,
    /// Clients that were gone before their program had ended.
    pub vanished: u64,
    /// Clients that left the end of their answer unread.
    pub unread: u64,
    /// Outputs that somebody held open beyond the program's end.
    pub cut: u64,
    /// Programs that have left something in the background.
    pub background: u64,
    /// Ends with status 0.
    pub exit_zero: u64,
    /// Ends with another status.
    pub exit_nonzero: u64,
    /// Ends by a signal.
    pub exit_signal: u64,
    /// Connections that the access lists refuse.
    pub denied: u64,
    /// Connections of users that may not have anything run.
    pub forbidden_clients: u64,
    /// Connections over a limit.
    pub over_limit: u64,
}

/// How many bytes have passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Into standard inputs.
    pub input: u64,
    /// Out of standard outputs.
    pub output: u64,
    /// Out of standard errors.
    pub errors: u64,
}
