//! The place of a worker and the phases of its life.
//!
//! ```text
//!             Spawn             exec             ready            assign
//!  Delayed ----------> Spawning ----> Starting --------> Available -----> Busy --+
//!     ^                                                    ^  ^            |  ^  | reply, and more in flight;
//!     | a place is empty                           in step |  | last reply |  +--+ one more request
//!     |                                                Settling <----------+
//!     +---- failed ----------------- any state         (long request)
//!                                         |
//!                                         v  end of process
//!                                      Stopping --------------> removed
//! ```
//!
//! With probes there is a stop, Probing, between Starting and Available, and another one on the way back to Available
//! now and then; the place of a worker that fails there is in quarantine until another one has passed
//! ([`check`](super::check)). With `--rest` a worker is Resting for a while after each last reply, before it is
//! Available ([`resting`](super::resting)).
//!
//! A busy worker whose client has gone stays busy until it has replied: only then is it in step again.

use std::time::Instant;

use super::check::CheckKind;
use crate::doors::pool::core::event::Restart;

/// A worker's place, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The worker serves (or will serve) in this place.
    Serving(usize),
    /// The worker starts up behind the one that serves there, and takes over when it is ready.
    Successor(usize),
    /// The worker has no place any more: it finishes what it has in hand and stops.
    Outgoing,
}

/// The activity of a worker; each variant owns what only matters then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Phase {
    /// No process: the place waits out its respawn delay.
    Delayed { until: Instant },
    /// No process yet: the shell has been asked for one.
    Spawning,
    /// A process that is not ready yet.
    Starting { deadline: Instant },
    /// The worker is asked the question with the known answer.
    Probing { deadline: Instant, kind: CheckKind },
    /// The worker is ready and in step. Only in this phase is it in the list of the available.
    Available,
    /// The worker works on its flights: on the oldest, or on all of them at once. At the deadline the oldest has to be
    /// answered.
    Busy { deadline: Instant },
    /// The worker has answered a long request and is watched for a second answer.
    Settling { until: Instant },
    /// The worker has answered and is given nothing for a while.
    Resting { since: Instant, reason: RestReason },
    /// The worker's process has been told to end.
    Stopping,
}

/// The work after which a worker rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum RestReason {
    Request,
    Probe,
}

impl Phase {
    /// The time at which the dispatcher must look at the worker again at the latest.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Phase::Delayed { until: at }
            | Phase::Starting { deadline: at }
            | Phase::Probing { deadline: at, .. }
            | Phase::Busy { deadline: at }
            | Phase::Settling { until: at } => Some(at),
            // Spawning ends in this turn or the next, by the shell's report. Available waits for work, by design. The
            // kill sequence keeps the deadlines of Stopping, and the queue of the resting workers theirs.
            Phase::Spawning | Phase::Available | Phase::Resting { .. } | Phase::Stopping => None,
        }
    }

    /// Returns true if it has a process that serves and cannot take a request at once.
    pub(in super::super) fn is_occupied(self) -> bool {
        match self {
            Phase::Busy { .. } | Phase::Settling { .. } | Phase::Resting { .. } => true,
            Phase::Probing { kind, .. } => kind == CheckKind::Periodic,
            Phase::Delayed { .. } | Phase::Spawning | Phase::Starting { .. } | Phase::Available | Phase::Stopping => {
                false
            }
        }
    }

    /// Returns true if it has a process that serves.
    pub(in super::super) fn is_serving(self) -> bool {
        self == Phase::Available || self.is_occupied()
    }

    /// The reason for which a worker is replaced that is lost for `reason`: in its probe, whatever befalls it, it has
    /// failed.
    pub(in super::super) fn restart(self, reason: Restart) -> Restart {
        if matches!(self, Phase::Probing { .. }) {
            Restart::Quarantined
        } else {
            reason
        }
    }

    /// Returns true if there is a process, or will be one before the shell returns to the loop.
    pub(in super::super) fn has_process(self) -> bool {
        !matches!(self, Phase::Delayed { .. } | Phase::Spawning)
    }
}
