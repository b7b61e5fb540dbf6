//! The dispatcher: which worker gets which request, and what happens on a reply, a time-out, a death or a hang-up, in
//! any order. Decisions only: no descriptor, no clock, no randomness; the time comes with each event.
//!
//! [`Dispatcher::handle`] has a place for every event, and passes on between types that own their state and know
//! nothing of each other: the [`requests`] with their queue; the [`workers`], what each is doing, and which gets the
//! next request; the [`places`] in which workers serve and are replaced; the load, which opens and closes places
//! ([`elastic`]); the [`health`] that the operator is told of. What it decides waits in the [`outbox`] until the shell
//! fetches it.
//!
//! The life of a request: [`Event::Request`] → a free worker takes it, or it waits in the queue → [`Action::Assign`] →
//! [`Event::Reply`] → [`Action::Answer`]. On the way its worker may die (it is given to another, [`blame`]), its client
//! may go (the worker's reply is then discarded), or a deadline may pass.
//!
//! After every event this holds (`dispatcher/invariants.rs` checks it in debug builds):
//! - A worker is available exactly when it is in the list of the available, and then no request waits in the queue. The
//!   one that gets a request is the best of them by the rule of `workers/available.rs`.
//! - A busy worker has requests in flight, in the order in which it was given them; each that still has a client knows
//!   that worker. A waiting request is in the queue exactly once. Without channel-IDs it answers them in that order;
//!   with them (`workers/channels.rs`) in any, and no two requests that one worker ever had were known to it by the
//!   same number.
//! - No request waits while a worker could take it: a free one, or, with `--pipeline` or `--concurrency`, one with room
//!   for more.
//! - Every place has one worker that serves or will serve in it; every other worker is a successor or on its way out.
//! - Every state that waits has a deadline, or `Phase::deadline` says why not.
//! - A worker becomes available again through `Dispatcher::release` alone.
//!
//! Bytes, descriptors, log lines and names of programs do not belong here.

mod blame;
mod counters;
mod dispatcher;
mod elastic;
mod event;
mod health;
mod outbox;
mod places;
mod queue;
mod requests;
mod workers;

pub use counters::{CacheCounters, Counters, MultiplexedCounters, Refusals, Restarts};
pub use dispatcher::{Dispatcher, RequestInHand, SlotView, WaitingRequest};
pub use event::{
    Action, AfterReply, Assignment, ChannelId, ClientId, Completion, Event, Fault, Inspection, ProbeResult, Refusal,
    RefusedRequest, Replacement, ReplyTo, RequestId, Restart, StopMode, WorkerId,
};
pub use health::{Health, HealthChange};
pub use workers::{Activity, Place, Status, StatusCounts, WorkerView};
