//! One connected client, from accept to close.
//!
//! ```text
//!   Reading --line whole--> Asked --answer, refusal--> Writing --all written--> closed
//!      |                                                  |
//!      +--refused in the middle of its line---------------+--input unread--> Lingering --> closed
//! ```
//!
//! What is waited for, by when, and whether events are wanted at all follows from the phase alone.

use std::time::Instant;

use super::super::core::RequestId;
use crate::framing::line::LineFramer;
use crate::net::addr::PeerAddr;
use crate::net::stream::Stream;
use crate::reactor::Alarm;

/// A connection and what is known of it. It owns memory only while a line is unfinished or a request in hand.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: Stream,
    pub(super) peer: PeerAddr,
    pub(super) phase: Phase,
    /// The request line, as far as it has come; kept until the answer, for another worker may need it.
    pub(super) input: Vec<u8>,
    pub(super) alarm: Alarm,
    pub(super) watch: Watch,
}

/// Whether the poll knows the connection. A client whose line is there at once and whose answer fits into one write
/// never needs it: two system calls saved of ten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    NotYet,
    Registered,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// Its line is not whole.
    Reading { framer: LineFramer, deadline: Instant },
    /// Its request is with the dispatcher, which names it at once.
    Asked {
        request: Option<RequestId>,
        queue: QueuePlace,
    },
    /// Its answer or refusal does not fit into the socket.
    Writing {
        unsent: Vec<u8>,
        written: usize,
        deadline: Instant,
        after: After,
    },
    /// It has its answer and our end of stream; what it still sends is read away, because input left unread when a
    /// socket is closed makes the kernel send a reset, which may destroy the answer (RFC 1122, 4.2.2.13).
    Lingering { deadline: Instant, budget: usize },
}

/// Where a request is, as far as its connection must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QueuePlace {
    /// With a worker: the answer will find its way, or the write will tell that nobody is there.
    WithWorker,
    /// Waiting: a client that goes is to be noticed, so that its request costs no worker anything.
    Waiting,
}

/// What is known of a client's input when its answer is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It has said all it had to say, as far as is known.
    LookForInput,
    /// It was refused in the middle of its line.
    Linger,
}

impl Client {
    /// By when something must have happened. None while its request is in hand: the dispatcher keeps that deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Reading { deadline, .. } | Phase::Writing { deadline, .. } | Phase::Lingering { deadline, .. } => {
                Some(deadline)
            }
            Phase::Asked { .. } => None,
        }
    }

    /// Whether an event would tell anything.
    pub(super) fn wants_events(&self) -> bool {
        match self.phase {
            Phase::Asked { queue, .. } => queue == QueuePlace::Waiting,
            Phase::Reading { .. } | Phase::Writing { .. } | Phase::Lingering { .. } => true,
        }
    }

    /// The request it waits for.
    pub(super) fn request(&self) -> Option<RequestId> {
        match self.phase {
            Phase::Asked { request, .. } => request,
            Phase::Reading { .. } | Phase::Writing { .. } | Phase::Lingering { .. } => None,
        }
    }
}
