//! The counters of one command door since its start. The code that decides about an event counts it.

/// The number of events of each kind. Each field is a line of the statistics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// The requests that were complete and allowed.
    pub total: u64,
    /// The requests among these that shared the output of a run under way.
    pub joined: u64,
    /// The requests among these that waited in a queue.
    pub queued: u64,
    /// The clients that were answered `busy`, at once or at the end of their time in the queue.
    pub busy: u64,
    /// The requests for a name that no command has.
    pub not_found: u64,
    /// The requests that were refused for another reason: an argument was wrong; the request was too long, too slow,
    /// incomplete, too late or outdated; or the client sent input without reading any output.
    pub refused: u64,
    /// The programs that could not be started.
    pub not_started: u64,
    /// The programs that ran out of their time.
    pub timed_out: u64,
    /// The programs that needed a KILL.
    pub killed: u64,
    /// The programs whose clients had all gone before the end.
    pub vanished: u64,
    /// The clients that left their output unread.
    pub unread: u64,
    /// The outputs that another process held open beyond the program's end.
    pub cut: u64,
    /// The programs that left processes in the background.
    pub background: u64,
    /// The exits with status 0.
    pub exit_zero: u64,
    /// The exits with another status.
    pub exit_nonzero: u64,
    /// The ends by a signal.
    pub exit_signal: u64,
}

/// The numbers of bytes that have passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// The bytes written to standard inputs.
    pub input: u64,
    /// The bytes read from standard outputs and errors.
    pub output: u64,
}
