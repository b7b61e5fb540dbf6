//! One incarnation of a worker: its place, its phase, its requests and the trust in it.
//!
//! The phases of its life are drawn in [`phase`](super::phase).
//!
//! Every change of a worker is a method here, called through [`Workers::update`](super::Workers::update) alone, which
//! keeps the lists of workers in step with it; the fields that others read are only read there.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::available::Since;
use super::channels::Channels;
use super::check::{CheckKind, NextCheck};
use super::phase::{Phase, Place};
use crate::doors::pool::core::event::{ChannelId, ReplyTo, RequestId, Restart, WorkerId};
use crate::doors::pool::core::health::Trust;

/// A request longer than this many bytes may not fit the line buffer of a stdio program, which then reads it in pieces
/// and answers more than once: squidGuard 1.6 does above 12,287 bytes (`tests/it/real_squidguard.rs`), and 4,096 is
/// what one read(2) of the C library's buffered input takes from a pipe.
pub(in super::super) const LONG_REQUEST: usize = 4096;
/// The time without a pause after which a worker is given one. While requests wait, a worker goes from one to the next,
/// and a stray second reply that comes late passes for the reply to the next request, and so on for as long as the
/// worker has no pause. A pause of [`SETTLE`](super::SETTLE) is two parts in a hundred of its work, for an end to the
/// confusion.
const UNWATCHED: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(in super::super) struct Worker {
    pub(in super::super) id: WorkerId,
    pub(in super::super) place: Place,
    pub(in super::super) phase: Phase,
    /// The time of its exec; `None` before.
    started: Option<Instant>,
    /// The requests that it was given and has not answered, oldest first: without channels it answers in this order.
    /// Never empty while it is busy, and always while it is not.
    pub(in super::super) flights: VecDeque<Flight>,
    /// Set at its start, for as long as it lives: it is told a number with each request and may answer in any order.
    channels: Option<Channels>,
    /// True if the worker's process is started after a respawn delay.
    pub(super) is_retry: bool,
    /// The number of flights under which it is listed as having room for one more.
    pub(super) room_listed: Option<usize>,
    /// The last time when it was known to be in step: it was free, or watched, and wrote nothing.
    in_step_at: Instant,
    /// The beginning of its silence: it has answered, passed its probe, or was watched for a while and wrote nothing.
    /// `None`: it has never answered, and may still be starting.
    quiet_since: Option<Instant>,
    /// The number of its replies, those to clients that had gone included.
    pub(in super::super) answered: u64,
    /// The number of replies after which the worker is replaced.
    recycle_after: Option<u64>,
    /// The time at which the worker is replaced; `None` also once that has been asked for.
    recycle_at: Option<Instant>,
    /// Set at its start; `None`: it is never probed.
    pub(super) next_check: Option<NextCheck>,
    /// True if the worker's predecessor has failed its probe, and the worker has not passed yet.
    pub(in super::super) is_quarantined: bool,
    /// The reason for which its predecessor was lost, if another start need not have helped and no worker of the place
    /// has been trusted since.
    pub(in super::super) trouble: Option<Restart>,
    pub(in super::super) trust: Trust,
}

/// A request on its way through a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Flight {
    /// `None`: its client has gone, and the reply is discarded.
    pub(in super::super) request: Option<RequestId>,
    pub(in super::super) size: usize,
    /// The number that the worker was told, if it is told any.
    pub(in super::super) channel: Option<ChannelId>,
    /// The time when the worker began to work on it: when it was given, or, in a worker without channels, when all
    /// before it were answered.
    pub(in super::super) began: Instant,
    /// The time when the request ends, whatever its worker does.
    pub(in super::super) give_up: Instant,
    /// The beginning of its reply has come.
    pub(in super::super) reply_begun: bool,
}

/// Something that is due for a worker because time has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Due {
    /// The worker's respawn delay is over.
    Spawn,
    /// The worker has taken too long.
    Failure(Restart),
    /// The worker is free, and its next probe may be due.
    Check,
    /// Some requests of the worker come to their end, and the worker goes on without them.
    Expiry(Vec<RequestId>),
    /// The worker has been watched for long enough.
    Inspection,
}

/// The next thing that a worker in step does after a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum NextStep {
    /// The worker goes on with its next request.
    Continue,
    /// The worker is watched for a second answer.
    Settle,
    Rest,
}

impl Worker {
    pub(super) fn new(id: WorkerId, place: Place, delay: Duration, now: Instant) -> Self {
        let is_retry = !delay.is_zero();
        let until = now + delay;
        Worker {
            id,
            place,
            phase: if is_retry {
                Phase::Delayed { until }
            } else {
                Phase::Spawning
            },
            started: None,
            flights: VecDeque::new(),
            channels: None,
            is_retry,
            room_listed: None,
            in_step_at: now,
            quiet_since: None,
            answered: 0,
            recycle_after: None,
            recycle_at: None,
            next_check: None,
            is_quarantined: false,
            trouble: None,
            trust: Trust::Unknown,
        }
    }

    // ---- its life ---------------------------------------------------------------------------------------------

    /// Puts the worker into a phase that needs no other change.
    pub(in super::super) fn enter(&mut self, phase: Phase) {
        self.phase = phase;
    }

    /// Notes that the exec of the worker's process has succeeded.
    pub(in super::super) fn start(
        &mut self,
        now: Instant,
        deadline: Instant,
        probe_interval: Option<Duration>,
        channels: Option<Channels>,
    ) {
        self.phase = Phase::Starting { deadline };
        (self.started, self.in_step_at, self.channels) = (Some(now), now, channels);
        self.next_check = probe_interval.map(|interval| NextCheck::new(interval, now));
    }

    /// Notes that the worker is asked its probe, and returns the number of that question, for a worker that is told
    /// numbers.
    pub(in super::super) fn begin_check(&mut self, kind: CheckKind, deadline: Instant) -> Option<ChannelId> {
        self.phase = Phase::Probing { deadline, kind };
        self.next_channel()
    }

    /// Notes that the worker has passed its probe; the next one comes after `interval`.
    pub(in super::super) fn pass_check(&mut self, interval: Option<Duration>, now: Instant) {
        if let Some((check, interval)) = self.next_check.as_mut().zip(interval) {
            check.plan(interval, now);
        }
        self.quiet_since = Some(now);
    }

    /// Lets the worker serve, until it has served enough. Returns true if that ends a quarantine.
    pub(in super::super) fn activate(&mut self, recycle_after: Option<u64>, recycle_at: Option<Instant>) -> bool {
        (self.recycle_after, self.recycle_at) = (recycle_after, recycle_at);
        std::mem::take(&mut self.is_quarantined)
    }

    /// Makes the worker the one that serves, or will serve, in this place.
    pub(in super::super) fn promote(&mut self, slot: usize) {
        self.place = Place::Serving(slot);
    }

    /// Takes the worker's place away.
    pub(in super::super) fn give_up_place(&mut self) {
        self.place = Place::Outgoing;
    }

    /// Notes that the worker was free, and had written nothing meanwhile (the shell looks before it gives a worker
    /// anything), or was watched and found in step.
    pub(in super::super) fn mark_in_step(&mut self, now: Instant) {
        self.in_step_at = now;
    }

    /// Notes that the worker has nothing to do from now on, and was seen to say nothing.
    pub(in super::super) fn mark_quiet(&mut self, now: Instant) {
        (self.in_step_at, self.quiet_since) = (now, Some(now));
    }

    /// Forgets when the worker is to be replaced, since its replacement has been asked for.
    pub(in super::super) fn forget_recycling(&mut self) {
        (self.recycle_after, self.recycle_at) = (None, None);
    }

    // ---- its requests -----------------------------------------------------------------------------------------

    /// Gives the worker a request, for which it has `busy_timeout`. Returns the number of the request, for a worker
    /// that is told numbers.
    pub(in super::super) fn assign(&mut self, flight: Flight, busy_timeout: Duration) -> Option<ChannelId> {
        let channel = self.next_channel();
        let now = flight.began;
        self.flights.push_back(Flight { channel, ..flight });
        if self.phase == Phase::Available {
            self.turn_to_oldest(busy_timeout, now);
        }
        channel
    }

    /// Must be called when another flight has become the oldest: the one whose time is over first. That time begins
    /// now, unless the worker has worked on all of its flights since it was given them.
    fn turn_to_oldest(&mut self, busy_timeout: Duration, now: Instant) {
        let Some(oldest) = self.flights.front_mut() else { return };
        if self.channels.is_none() {
            oldest.began = now;
        }
        self.phase = Phase::Busy {
            deadline: oldest.began + busy_timeout,
        };
    }

    /// Takes out a flight that has been answered; the worker turns to the next.
    pub(in super::super) fn land(&mut self, to: ReplyTo, busy_timeout: Duration, now: Instant) -> Option<Flight> {
        let at = self.position(to)?;
        let flight = self.flights.remove(at)?;
        self.quiet_since = Some(now);
        self.answered += 1;
        self.turn_to_oldest(busy_timeout, now);
        Some(flight)
    }

    /// Notes that a reply has begun. Returns false if it is to no request that this worker has.
    pub(in super::super) fn begin_reply(&mut self, to: ReplyTo) -> bool {
        let flight = self.position(to).and_then(|at| self.flights.get_mut(at));
        flight.map(|flight| flight.reply_begun = true).is_some()
    }

    /// Notes that the client of a request has gone; the worker goes on with the request all the same.
    pub(in super::super) fn orphan(&mut self, id: RequestId) {
        let mut flights = self.flights.iter_mut();
        if let Some(flight) = flights.find(|flight| flight.request == Some(id)) {
            flight.request = None;
        }
    }

    /// Takes back a flight of which not a byte has reached the worker. Returns true if it was the only one.
    pub(in super::super) fn unassign(&mut self, id: RequestId) -> bool {
        self.flights.retain(|flight| flight.request != Some(id));
        self.flights.is_empty()
    }

    /// Takes out all flights of a worker that is lost or stopped.
    pub(in super::super) fn take_flights(&mut self) -> VecDeque<Flight> {
        std::mem::take(&mut self.flights)
    }

    /// Returns the number for the next request that the worker is given; `None` if it is told no numbers.
    fn next_channel(&mut self) -> Option<ChannelId> {
        let channels = self.channels.as_mut()?;
        Some(channels.allot(&self.flights))
    }

    fn position(&self, to: ReplyTo) -> Option<usize> {
        match (to, &self.channels) {
            (ReplyTo::Oldest, None) => (!self.flights.is_empty()).then_some(0),
            (ReplyTo::Channel(channel), Some(_)) => {
                self.flights.iter().position(|flight| flight.channel == Some(channel))
            }
            // The shell reads the worker's output in the other way.
            (ReplyTo::Oldest, Some(_)) | (ReplyTo::Channel(_), None) => None,
        }
    }

    // ---- trust ------------------------------------------------------------------------------------------------

    /// Puts the worker on trial: it is trusted if it still runs at that time.
    pub(in super::super) fn begin_trial(&mut self, until: Instant) {
        self.trust = Trust::OnTrial { until };
    }

    /// Trusts the worker, as long as it is there. Returns true if it was not trusted before.
    pub(in super::super) fn confirm(&mut self) -> bool {
        self.trouble = None;
        std::mem::replace(&mut self.trust, Trust::Confirmed) != Trust::Confirmed
    }

    /// Notes what the worker inherits from the lost worker before it: a quarantine, or a trouble. Returns true if the
    /// worker is in trouble.
    pub(in super::super) fn inherit(&mut self, is_quarantined: bool, trouble: Option<Restart>) -> bool {
        self.is_quarantined |= is_quarantined;
        self.trouble = trouble.or(self.trouble);
        self.trouble.is_some()
    }

    // ---- what it is -------------------------------------------------------------------------------------------

    /// Returns true if its program has been failing to start, as far as is known.
    pub(in super::super) fn is_in_back_off(&self) -> bool {
        self.is_retry && !self.phase.is_serving() && self.phase != Phase::Stopping
    }

    pub(in super::super) fn has_channels(&self) -> bool {
        self.channels.is_some()
    }

    /// The time from one of its probes to the next; `None`: it is never probed.
    pub(in super::super) fn check_interval(&self) -> Option<Duration> {
        self.next_check.map(NextCheck::interval)
    }

    /// Returns true if it has been silent since an answer or a probe: it is up.
    pub(in super::super) fn has_been_quiet(&self) -> bool {
        self.quiet_since.is_some()
    }

    /// Returns true if all of its clients have gone.
    pub(in super::super) fn is_draining(&self) -> bool {
        self.flights.iter().all(|flight| flight.request.is_none())
    }

    /// The time that it has lived since its exec; `None` before.
    pub(in super::super) fn age(&self, now: Instant) -> Option<Duration> {
        self.started.map(|started| now.saturating_duration_since(started))
    }

    /// The time since when it is free, if it is.
    pub(super) fn free_since(&self) -> Since {
        let start = self.started.unwrap_or(self.in_step_at);
        self.quiet_since.map_or(Since::Start(start), Since::Answer)
    }

    /// The number of requests it may have; `pipeline` is the number that is written to one that answers in order.
    pub(super) fn most_flights(&self, pipeline: usize) -> usize {
        self.channels.as_ref().map_or(pipeline, Channels::limit)
    }

    /// Returns true if it would be given one request after the other for longer than is good: a worker that is out of
    /// step shows it only when it has nothing to do.
    fn is_unwatched(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.in_step_at) >= UNWATCHED
    }

    /// Returns true if it serves and may be given a request behind those it has: nothing long, and, where a stray
    /// answer is not known by its number, not after a second without a pause: it is then left to run dry, and watched.
    pub(super) fn has_room(&self, pipeline: usize, now: Instant) -> bool {
        let is_in_step = || !self.is_unwatched(now) && self.flights.iter().all(|flight| flight.size <= LONG_REQUEST);
        matches!((self.phase, self.place), (Phase::Busy { .. }, Place::Serving(_)))
            && !self.flights.is_empty()
            && self.flights.len() < self.most_flights(pipeline)
            && (self.has_channels() || is_in_step())
    }

    /// Returns the next thing that it does, in step, after the reply to a request of this size; `others_wait`: requests
    /// are in the queue.
    pub(in super::super) fn next_step(&self, size: usize, others_wait: bool, now: Instant) -> NextStep {
        if !self.flights.is_empty() {
            NextStep::Continue
        } else if !self.has_channels() && (size > LONG_REQUEST || others_wait && self.is_unwatched(now)) {
            NextStep::Settle
        } else {
            NextStep::Rest
        }
    }

    // ---- time -------------------------------------------------------------------------------------------------

    /// The time at which the dispatcher must look at it again, for whatever reason.
    pub(in super::super) fn deadline(&self) -> Option<Instant> {
        // A check that is due at another time is thought of when the worker becomes available.
        let check = self.next_check.filter(|_| self.phase == Phase::Available);
        let trial = match self.trust {
            Trust::OnTrial { until } => Some(until),
            Trust::Unknown | Trust::Confirmed => None,
        };
        let give_up = self.flights.iter().filter(|flight| flight.request.is_some());
        let give_up = give_up.map(|flight| flight.give_up).min();
        let times = [
            self.phase.deadline(),
            self.recycle_at,
            check.map(NextCheck::at),
            trial,
            give_up,
        ];
        times.into_iter().flatten().min()
    }

    /// Returns true if it has served as much as one worker should.
    pub(in super::super) fn is_worn_out(&self, now: Instant) -> bool {
        self.recycle_after.is_some_and(|limit| self.answered >= limit) || self.recycle_at.is_some_and(|at| now >= at)
    }

    /// Returns true if it has run for as long as it was to.
    pub(in super::super) fn has_passed_trial(&self, now: Instant) -> bool {
        matches!(self.trust, Trust::OnTrial { until } if until <= now)
    }

    /// Returns what is due for it now in its phase, if anything is.
    pub(in super::super) fn due(&self, now: Instant) -> Option<Due> {
        let is_over = self.phase.deadline().is_some_and(|at| at <= now);
        match self.phase {
            Phase::Delayed { .. } if is_over => Some(Due::Spawn),
            Phase::Starting { .. } if is_over => Some(Due::Failure(Restart::StartTimeout)),
            Phase::Probing { .. } if is_over => Some(Due::Failure(Restart::Quarantined)),
            Phase::Busy { .. } if is_over => Some(Due::Failure(Restart::BusyTimeout)),
            // The shell's report ends this before the loop goes on.
            Phase::Settling { .. } if is_over => Some(Due::Inspection),
            Phase::Busy { .. } => {
                let overdue = self.flights.iter().filter(|flight| flight.give_up <= now);
                Some(Due::Expiry(overdue.filter_map(|flight| flight.request).collect()))
            }
            Phase::Available => Some(Due::Check),
            // Not due yet.
            Phase::Delayed { .. } | Phase::Starting { .. } | Phase::Probing { .. } | Phase::Settling { .. } => None,
            // No deadline.
            Phase::Spawning | Phase::Resting { .. } | Phase::Stopping => None,
        }
    }
}
