//! The dispatcher: which worker gets which request, and what happens on a reply, a time-out, a death or a hang-up, in
//! any order. Decisions only: no descriptor, no clock, no randomness; the time comes with each event.
//!
//! The life of a request: [`Event::Request`] → a free worker takes it ([`requests`]), or it waits in the [`queue`] →
//! [`Action::Assign`] → [`Event::Reply`] → [`Action::Answer`]. On the way its worker may die (it is given to another),
//! its client may go (the worker's reply is then for nobody), or a deadline may pass ([`deadlines`]).
//!
//! The life of a worker is drawn in [`worker`]; which of the free ones is taken is in [`available`], which of them is left
//! alone for a while in [`rest`]; who replaces it, and when, is in [`supervise`]; how many there are, in [`elastic`]; which
//! are asked a question with a known answer first, and what becomes of those that fail, in [`probe`]; whether any of them
//! can serve, in [`health`].
//!
//! What holds, after every event (`invariants` checks it in debug builds):
//! - A worker is available exactly when it is in the list of the available, and then nobody waits in the queue. The one that
//!   gets a request is the best of them by the rule of [`available`].
//! - A busy worker has requests in flight, in the order in which it was given them; each that still has a client knows that
//!   worker. A waiting request is in the queue exactly once. Without channel-IDs it answers them in that order; with
//!   them ([`channels`]) in any, and no two requests that one worker ever had were known to it by the same number.
//! - Nobody waits while a worker could take what he has: a free one, or, with `--pipeline` or `--concurrency`, one with room
//!   for more.
//! - Every place has one worker that serves or will serve in it; every other worker is a successor or on its way out.
//! - Every state that waits has a deadline, or `worker::Phase::deadline` says why not.
//! - A worker becomes available again through [`Dispatcher::release`] alone.
//!
//! What does not belong here: bytes, descriptors, log lines, names of programs.

mod available;
mod blame;
mod channels;
mod counters;
mod deadlines;
mod detail;
mod elastic;
mod event;
mod health;
#[cfg(debug_assertions)]
mod invariants;
mod probe;
mod queue;
mod requests;
mod respawn;
mod rest;
mod rotation;
mod slots;
mod supervise;
mod view;
mod worker;

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use slab::Slab;

pub use counters::{CacheCounters, Counters, Refusals, Restarts};
pub use detail::{Activity, RequestInHand, WaitingRequest, WorkerView};
pub use event::{
    Action, AfterReply, ChannelId, ClientId, Event, Fault, Inspection, ProbeResult, Refusal, ReplyTo, RequestId,
    Restart, StopMode, WorkerId,
};
pub use health::{Health, HealthChange};
pub use view::{SlotView, Status, StatusCounts};
pub use worker::Place;

use super::options::Policy;
use available::Available;
use counters::Saturation;
use elastic::Elastic;
use queue::Queue;
use requests::Request;
use respawn::Jitter;
use rest::Resting;
use rotation::Rotation;
use slots::Slots;
use worker::Worker;

/// The state of one pool.
#[derive(Debug)]
pub struct Dispatcher {
    policy: Policy,
    /// The time of the event at hand.
    now: Instant,
    actions: VecDeque<Action>,
    workers: Slab<Worker>,
    slots: Slots,
    /// Free workers, and which of them is taken first.
    available: Available,
    /// Workers that are left alone for a while after an answer.
    resting: Resting,
    /// Busy workers that may be given one more request, those with the fewest in flight first.
    room: BTreeSet<(usize, WorkerId)>,
    /// How many workers have their hands full.
    occupied: usize,
    requests: Slab<Request>,
    queue: Queue,
    rotation: Rotation,
    elastic: Elastic,
    stage: Stage,
    /// Whether anybody can be served, as the operator was told.
    health: Health,
    /// That may have changed.
    health_is_due: bool,
    /// No worker has a deadline before this; looked up afresh when it has come.
    wake: Option<Instant>,
    incarnations: u32,
    tickets: u64,
    jitter: Jitter,
    counters: Counters,
    saturation: Saturation,
    queue_peak: usize,
    /// The shortest time that a worker has taken from its start to its first answer, since the last roll: how long a start
    /// takes, at most, as far as is known.
    start_up: Option<Duration>,
}

/// A place in which one worker serves at a time.
#[derive(Debug)]
struct Slot {
    serving: WorkerId,
    successor: Option<WorkerId>,
    /// Deaths in a row of workers that had just been started and answered nothing.
    early_deaths: u32,
    /// A worker of this place has been believed once, or has failed: it is not waited for any more.
    is_settled: bool,
}

/// How far the pool's life has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Nothing is served and nobody respawned any more.
    Stopping,
}

impl Dispatcher {
    /// A pool whose workers are all still to be spawned: the first actions say so. `seed` feeds the jitter.
    pub fn new(policy: Policy, now: Instant, seed: u64) -> Self {
        let mut dispatcher = Dispatcher {
            policy,
            now,
            actions: VecDeque::new(),
            workers: Slab::new(),
            slots: Slots::default(),
            available: Available::default(),
            resting: Resting::default(),
            room: BTreeSet::new(),
            occupied: 0,
            requests: Slab::new(),
            queue: Queue::default(),
            rotation: Rotation::default(),
            elastic: Elastic::default(),
            stage: Stage::Serving,
            health: Health::Starting,
            health_is_due: false,
            wake: None,
            incarnations: 0,
            tickets: 0,
            jitter: Jitter::new(seed),
            counters: Counters::default(),
            saturation: Saturation::default(),
            queue_peak: 0,
            start_up: None,
        };
        dispatcher.fit_slots();
        #[cfg(debug_assertions)]
        dispatcher.check_invariants();
        dispatcher
    }

    /// Takes in what has happened. What is to be done about it stands in [`next_action`](Self::next_action).
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Request { client, size } => self.submit(client, size),
            Event::Abandoned(request) => self.abandon(request),
            Event::Withdrawn(request) => self.withdraw(request),
            Event::Started(worker) => self.started(worker),
            Event::SpawnFailed(worker) => self.spawn_failed(worker),
            Event::Ready(worker) => self.ready(worker),
            Event::ReplyBegun(worker, to) => self.reply_begun(worker, to),
            Event::Reply { worker, to, after } => self.reply(worker, to, after),
            Event::Broken(worker, fault) => self.broken(worker, fault),
            Event::Inspected(worker, inspection) => self.inspected(worker, inspection),
            Event::Probed(worker, result) => self.probed(worker, result),
            Event::Exited(worker) => self.exited(worker),
            Event::Outgrown(worker) => self.outgrown(worker),
            Event::Tick => self.tick(),
            Event::Roll => self.roll(),
            Event::Reconfigure(policy) => self.reconfigure(*policy),
            Event::Shutdown(ending) => self.shutdown(ending),
        }
        self.serve_queue();
        self.follow_load();
        self.follow_health();
        self.saturation
            .update(!self.can_take_at_once() && self.occupied > 0, self.now);
        #[cfg(debug_assertions)]
        self.check_invariants();
    }

    /// The next thing to do, in order; to be fetched until there is none before the loop goes on.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When an [`Event::Tick`] is wanted at the latest. Earlier ticks do no harm.
    pub fn next_deadline(&self) -> Option<Instant> {
        let deadlines = [
            self.wake,
            self.queue.next_deadline(),
            self.resting.next_deadline(self.policy.rest),
            self.elastic.deadline(&self.policy.workers),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Whether the pool was shut down and its last process has gone.
    pub fn is_finished(&self) -> bool {
        self.stage == Stage::Stopping && self.workers.is_empty()
    }

    /// For what the shell counts itself: refusals before a request was whole.
    pub fn counters_mut(&mut self) -> &mut Counters {
        &mut self.counters
    }
}
