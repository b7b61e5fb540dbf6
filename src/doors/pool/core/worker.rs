//! One incarnation of a worker: where it stands and what it is doing.
//!
//! ```text
//!             Spawn             exec             ready            assign
//!  Delayed ----------> Spawning ----> Starting --------> Available -----> Busy --+
//!     ^                                                    ^  ^            |  ^  | reply, and more in flight;
//!     | a place is empty                             clean |  | last reply |  +--+ one more request
//!     |                                                Settling <----------+
//!     +---- died, or out of step ---- any state            (long request)
//!                                         |
//!                                         v  end of process
//!                                      Stopping --------------> forgotten
//! ```
//!
//! With probes there is a stop, Probing, between Starting and Available, and another one on the way back to Available now
//! and then; who fails there has its place in quarantine until another one has passed ([`probe`](super::probe)).
//!
//! With `--rest` it is Resting for a while after each last reply, before it is Available ([`rest`](super::rest)).
//!
//! A busy worker whose client has gone stays busy, for nobody, until it has replied: only then is it in step again.

use std::collections::VecDeque;
use std::time::Instant;

use super::available::Since;
use super::channels::Channels;
use super::event::{ChannelId, RequestId, Restart, WorkerId};
use super::health::Trust;
use super::probe::{CheckKind, NextCheck};

#[derive(Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) place: Place,
    pub(super) phase: Phase,
    /// Since its exec; `None` before.
    pub(super) started: Option<Instant>,
    /// What it was given and has not answered, oldest first: without channels it answers in this order. Never empty
    /// while it is busy, and always while it is not.
    pub(super) flights: VecDeque<Flight>,
    /// It is told a number with each request and may answer in any order; so its process was started, and stays so.
    pub(super) channels: Option<Channels>,
    /// Its process is started after a respawn delay.
    pub(super) retry: bool,
    /// As what it is counted by [`elastic`](super::elastic).
    pub(super) counted: Staffing,
    /// Under which number of flights it stands in the list of those with room for more.
    pub(super) room_listed: Option<usize>,
    /// When it was last known to be in step: it was free, or watched, and wrote nothing.
    pub(super) in_step_at: Instant,
    /// Since when it has nothing to do and nothing to say: it has answered, passed its probe, or was watched for a while and
    /// wrote nothing. `None`: it has never answered, and may still be starting.
    pub(super) quiet: Option<Instant>,
    /// Replies it has given, whoever got them.
    pub(super) answered: u64,
    /// It is replaced once it has given so many.
    pub(super) recycle_after: Option<u64>,
    /// It is replaced at that time; `None` also once that has been asked for.
    pub(super) recycle_at: Option<Instant>,
    /// Set at its start: when it is probed; `None`: never.
    pub(super) next_check: Option<NextCheck>,
    /// Its predecessor has failed its probe, and it has not passed yet.
    pub(super) quarantined: bool,
    /// Why the one before it was lost, if another start need not have helped and none has been believed since.
    pub(super) trouble: Option<Restart>,
    /// Whether it is to be believed.
    pub(super) trust: Trust,
}

/// What a worker means for the number of workers that are ready, or soon will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staffing {
    /// It is ready, or has no place of its own.
    Uncounted,
    /// It is being started, for a place that waits for it.
    Starting,
    /// It is to be started when its respawn delay is over.
    Delayed,
    /// It is being started after such a delay.
    Retried,
    /// It serves and is free but for the probe that it is asked, or rests after.
    Probed,
}

/// A request on its way through a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flight {
    /// `None`: nobody waits for it any more; its reply is for nobody.
    pub(super) request: Option<RequestId>,
    pub(super) size: usize,
    /// The number that it was told, if it is told any.
    pub(super) channel: Option<ChannelId>,
    /// Since when the worker works on it: since it was given, or, in a worker without channels, since all before it were
    /// answered.
    pub(super) began: Instant,
    /// The beginning of its reply has come.
    pub(super) reply_begun: bool,
}

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

/// What a worker is doing; each variant owns what only matters then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// No process: the place waits out its respawn delay.
    Delayed { until: Instant },
    /// No process yet: the shell has been asked for one.
    Spawning,
    /// A process that is not ready yet.
    Starting { deadline: Instant },
    /// Asked the question with the known answer.
    Probing { deadline: Instant, kind: CheckKind },
    /// Ready and in step. In the list of the available exactly then.
    Available,
    /// It works on its flights: on the oldest, or on all of them at once. By then the oldest has to be answered.
    Busy { deadline: Instant },
    /// It has answered a long request and is watched for a second answer.
    Settling { until: Instant },
    /// It has answered and is left alone for a while.
    Resting { since: Instant, reason: RestReason },
    /// Its process has been told to end.
    Stopping,
}

/// What a worker rests after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RestReason {
    Request,
    Probe,
}

impl Phase {
    /// When the dispatcher must look at the worker again at the latest.
    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Phase::Delayed { until: at }
            | Phase::Starting { deadline: at }
            | Phase::Probing { deadline: at, .. }
            | Phase::Busy { deadline: at }
            | Phase::Settling { until: at } => Some(at),
            // Spawning ends in this turn or the next, by the shell's report. Available waits for work, by design. The
            // kill sequence keeps the deadlines of Stopping, and the queue of those that rest theirs.
            Phase::Spawning | Phase::Available | Phase::Resting { .. } | Phase::Stopping => None,
        }
    }

    /// It has a process that serves, and that process has its hands full.
    pub(super) fn is_occupied(self) -> bool {
        match self {
            Phase::Busy { .. } | Phase::Settling { .. } | Phase::Resting { .. } => true,
            Phase::Probing { kind, .. } => kind == CheckKind::Periodic,
            _ => false,
        }
    }

    /// It has a process that serves.
    pub(super) fn serves(self) -> bool {
        self == Phase::Available || self.is_occupied()
    }

    /// Why a worker is replaced that is lost for this reason: whatever befalls it in its probe, it has not passed.
    pub(super) fn loss(self, reason: Restart) -> Restart {
        match self {
            Phase::Probing { .. } => Restart::Quarantined,
            _ => reason,
        }
    }

    /// There is a process, or will be one before the shell returns to the loop.
    pub(super) fn has_process(self) -> bool {
        !matches!(self, Phase::Delayed { .. } | Phase::Spawning)
    }
}

impl Worker {
    pub(super) fn new(id: WorkerId, place: Place, phase: Phase, now: Instant) -> Self {
        Worker {
            id,
            place,
            phase,
            started: None,
            flights: VecDeque::new(),
            channels: None,
            retry: false,
            counted: Staffing::Uncounted,
            room_listed: None,
            in_step_at: now,
            quiet: None,
            answered: 0,
            recycle_after: None,
            recycle_at: None,
            next_check: None,
            quarantined: false,
            trouble: None,
            trust: Trust::Unknown,
        }
    }

    pub(super) fn staffing(&self) -> Staffing {
        let Place::Serving(_) = self.place else {
            return Staffing::Uncounted;
        };
        match self.phase {
            Phase::Delayed { .. } => Staffing::Delayed,
            Phase::Probing {
                kind: CheckKind::Periodic,
                ..
            }
            | Phase::Resting {
                reason: RestReason::Probe,
                ..
            } => Staffing::Probed,
            Phase::Spawning | Phase::Starting { .. } | Phase::Probing { .. } if self.retry => Staffing::Retried,
            Phase::Spawning | Phase::Starting { .. } | Phase::Probing { .. } => Staffing::Starting,
            Phase::Available
            | Phase::Busy { .. }
            | Phase::Settling { .. }
            | Phase::Resting { .. }
            | Phase::Stopping => Staffing::Uncounted,
        }
    }

    /// Since when it is free, if it is.
    pub(super) fn free_since(&self) -> Since {
        let start = self.started.unwrap_or(self.in_step_at);
        self.quiet.map_or(Since::Start(start), Since::Answer)
    }

    /// When the dispatcher must look at it again, whatever for.
    pub(super) fn deadline(&self) -> Option<Instant> {
        // Any other one is thought of when it becomes available.
        let next_check = self.next_check.filter(|_| self.phase == Phase::Available);
        let probe = next_check.map(|next_check| next_check.at);
        let trial = match self.trust {
            Trust::OnTrial { until } => Some(until),
            Trust::Unknown | Trust::Confirmed => None,
        };
        [self.phase.deadline(), self.recycle_at, probe, trial]
            .into_iter()
            .flatten()
            .min()
    }

    /// Whether it has served as much as one worker should.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.recycle_after.is_some_and(|limit| self.answered >= limit) || self.recycle_at.is_some_and(|at| now >= at)
    }
}
