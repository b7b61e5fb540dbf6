//! The numbers of one command door, since its start. Whoever decides that something has happened counts it.

/// How often what has happened. Each is a line of the statistics, and told there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that were complete and allowed.
    pub total: u64,
    /// Those that shared the output of a run that was there already.
    pub joined: u64,
    /// Those that waited in a queue.
    pub queued: u64,
    /// Clients told `busy`, at once or when they had waited long enough.
    pub busy: u64,
    /// Names that no command has.
    pub not_found: u64,
    /// Requests refused otherwise: a wrong argument, too long, too slow, incomplete, too late, outdated; sent, and
    /// nothing read.
    pub refused: u64,
    /// Programs that could not be started.
    pub not_started: u64,
    /// Programs that ran out of their time.
    pub timed_out: u64,
    /// Programs that needed a KILL.
    pub killed: u64,
    /// Programs whose clients were all gone before they had ended.
    pub vanished: u64,
    /// Clients that left their output unread.
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
}

/// How many bytes have passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Into standard inputs.
    pub input: u64,
    /// Out of programs.
    pub output: u64,
}
