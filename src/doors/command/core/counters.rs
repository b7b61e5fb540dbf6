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
    /// The programs whose clients had all gone before the end.
    pub vanished: u64,
    /// The clients that left their output unread.
    pub unread: u64,
}
