//! Where a message ends in a stream of bytes.
//!
//! A framer is told of all bytes of the unfinished message each time some have come and answers with [`Progress`]: it
//! needs more, has a frame, or gives up. It remembers how far it has looked and never looks twice, so that a message that
//! arrives a byte at a time costs no more than one that arrives whole. It owns no bytes and does no I/O.
//!
//! ```text
//!   |<------------- bytes ------------->|
//!   |<--- scanned --->|<-- new bytes -->|
//!                          ^ the end of the frame is searched here only
//! ```
//!
//! Another framing is one more file beside [`line`], with the same three answers. [`search`] does not cut a stream into
//! messages: it waits for one line of it and lets everything before pass by. [`channel`] reads and writes the number that
//! stands before a line where several are under way at once.

pub mod channel;
pub mod line;
pub mod search;

/// What a framer found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The message is not whole yet.
    NeedMore,
    /// The first so many bytes are one whole message, its terminator included.
    Frame(usize),
    /// The message is longer than allowed, whatever follows.
    TooLong,
}
