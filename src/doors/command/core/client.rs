//! The states of one client.
//!
//! ```text
//! Asking ─request complete─▸ Following ─concluded─▸ Answered ─all sent─▸ Closing ─▸ over
//!    │  └──no free program──▸ Queued ─▸ ▴                ▴
//!    └── refused ─────────────┴──────────────────────────┘
//! ```

use std::time::Instant;

use super::event::RunId;
use crate::doors::waiters::Ticket;

/// A request, as far as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// The name of the command; `None` until it is read.
    pub name: Option<Vec<u8>>,
    /// The arguments, in their order.
    pub arguments: Vec<Vec<u8>>,
}

/// A request that is being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asking {
    /// The part that was read.
    pub request: Request,
    /// The time at which it must be complete.
    pub until: Instant,
    /// The time at which a message that has begun is taken for complete.
    pub quiet_at: Option<Instant>,
}

/// A complete request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queued {
    /// The complete request.
    pub request: Request,
    /// Its place in the queue.
    pub ticket: Ticket,
    /// The time since which it waits.
    pub since: Instant,
    /// The time until which it waits.
    pub until: Instant,
}

/// The state of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientState {
    /// The request is not complete.
    Asking(Asking),
    /// The request waits until a further program of its command may run.
    Queued(Queued),
    /// The client gets the output of a program.
    Following {
        /// The run of the program.
        run: RunId,
        /// The time until which it may hold up the other clients of the run, by leaving output unread.
        stalled_until: Option<Instant>,
    },
    /// The end of the answer is on its way to the client.
    Answered {
        /// The time at which the client must have read something.
        until: Instant,
    },
    /// The client has everything, and its connection lingers.
    Closing,
}

impl ClientState {
    /// The time at which [`ClientEvent::Tick`](super::event::ClientEvent::Tick) is due.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            ClientState::Asking(Asking { until, quiet_at, .. }) => Some(quiet_at.map_or(*until, |at| at.min(*until))),
            ClientState::Queued(Queued { until, .. }) | ClientState::Answered { until } => Some(*until),
            // The run has a deadline of its own.
            ClientState::Following { stalled_until, .. } => *stalled_until,
            // The lingering close has a deadline of its own.
            ClientState::Closing => None,
        }
    }

    /// The state's name in the dump.
    pub fn name(&self) -> &'static str {
        match self {
            ClientState::Asking(_) => "asking",
            ClientState::Queued(_) => "queued",
            ClientState::Following { .. } => "following",
            ClientState::Answered { .. } => "answered",
            ClientState::Closing => "parting",
        }
    }
}
