//! Where one client is.
//!
//! ```text
//! Asking ─request complete─▸ Following ─told─▸ Answered ─all sent─▸ Parting ─▸ over
//!    │  └──all are taken──▸ Queued ─▸ ▴           ▴
//!    └── refused ─────────────┴───────────────────┘
//! ```

use std::time::Instant;

use super::event::RunId;
use crate::doors::waiters::Ticket;

/// What a client asks for, as far as it has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Which command; `None`: not yet said.
    pub name: Option<Vec<u8>>,
    /// The arguments, in their order.
    pub arguments: Vec<Vec<u8>>,
}

/// Where a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Its request is not complete.
    Asking {
        /// What has come of it.
        request: Request,
        /// When it has to be complete.
        until: Instant,
        /// When what has come of a message is all of it.
        quiet_at: Option<Instant>,
    },
    /// It waits for a program to end.
    Queued {
        /// What it has asked for.
        request: Request,
        /// Where.
        ticket: Ticket,
        /// Since when.
        since: Instant,
        /// For so long.
        until: Instant,
    },
    /// It gets the output of a program.
    Following {
        /// Of which.
        run: RunId,
        /// It holds up others, who get the same output: until when it may.
        stalled_until: Option<Instant>,
    },
    /// Everything is said; it is on its way.
    Answered {
        /// When it has to have read something.
        until: Instant,
    },
    /// It has everything; what it still sends is read away.
    Parting,
}

impl State {
    /// When to look after it again.
    pub fn deadline(&self) -> Option<Instant> {
        match self {
            State::Asking { until, quiet_at, .. } => Some(quiet_at.map_or(*until, |at| at.min(*until))),
            State::Queued { until, .. } | State::Answered { until } => Some(*until),
            // That of its program.
            State::Following { stalled_until, .. } => *stalled_until,
            // That of the lingering close.
            State::Parting => None,
        }
    }

    /// The state's name in the dump.
    pub fn name(&self) -> &'static str {
        match self {
            State::Asking { .. } => "asking",
            State::Queued { .. } => "queued",
            State::Following { .. } => "following",
            State::Answered { .. } => "answered",
            State::Parting => "parting",
        }
    }
}
