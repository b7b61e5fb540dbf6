//! The things that a session asks its door to do, and the reasons for which it ends.

use super::core::{Fault, StreamId};

/// The thing to do next.
#[derive(Debug)]
pub enum Next {
    /// Nothing before the next event, alarm or write.
    Idle,
    /// The session has used up its share of the turn: the door comes again in the next.
    MoreLater,
    /// The peer has opened a stream: [`accept`](super::session::Session::accept) or
    /// [`refuse`](super::session::Session::refuse) must be called at once.
    Opened(StreamId),
    /// The conversation of this stream is to be run, after every edge was noted for the side of the stream.
    Stream {
        /// The stream.
        stream: StreamId,
        /// Its owner, as the door has named it.
        owner: u64,
    },
    /// The peer opens no streams any more, and takes no new ones, for this reason: 0 for none.
    WentAway(u32),
    /// The session is over; said once. The streams that had not ended have been woken, and fail. The session must be kept
    /// until its last stream is released.
    Over(End),
}

/// The reason for which a session is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// The peer has ended the connection between two frames.
    Closed,
    /// The peer has ended the connection in the middle of a frame.
    Cut,
    /// The connection has failed, for this reason.
    Failed(String),
    /// The peer does not keep to the protocol, or does not answer.
    Fault(Fault),
    /// The frame that was begun for a stream cannot be completed.
    Unpaid,
}

/// The kinds of reasons, as they are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// The peer has closed the connection.
    Closed,
    /// The connection has failed, or was cut.
    Lost,
    /// The peer did not answer a ping.
    Silent,
    /// The peer did not keep to the protocol.
    Faulty,
}

impl End {
    /// Returns the kind of the reason.
    #[must_use]
    pub const fn departure(&self) -> Departure {
        match self {
            End::Closed => Departure::Closed,
            End::Cut | End::Failed(_) | End::Unpaid => Departure::Lost,
            End::Fault(Fault::Silent) => Departure::Silent,
            End::Fault(_) => Departure::Faulty,
        }
    }
}
