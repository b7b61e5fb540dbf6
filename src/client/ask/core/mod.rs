//! The asker: which line is asked where and when, and what it gets without an answer. Decisions only: no descriptor, no
//! clock, no randomness; the time comes with each event.
//!
//! The life of a line: [`Event::Line`] → it waits for a connection, if as many as allowed are open → an address is chosen
//! ([`addresses`]), [`Action::Connect`] → [`Event::Reply`] → its answer is written, in any order if the line has a
//! channel-ID, else when all lines before it are answered. Every line ends like that, and by its deadline:
//! - An attempt that fails goes on to another address at once. While there is another one that is up, an attempt may take
//!   half of the time that is left to the line, the last one all of it.
//! - When every address has failed, the line rests a little and goes round again, for half of its time-out: a daemon that is
//!   being restarted is reached. An address that gave a bad answer, or took too long over one, is left out then; one that
//!   has closed the connection without a byte is not.
//! - When all addresses have been away for longer than a time-out, lines do not go round: each is tried once everywhere
//!   and then given up at once, so that Squid's users wait for nothing, and the first line after the end of the outage finds
//!   the daemon.
//! - A shortage on this machine (descriptors, ports) is not the address's fault: the line rests and tries again until its
//!   deadline, and fewer connections are opened from then on; each answer allows one more.
//!
//! What holds, after every event (`invariants` checks it in debug builds): every line in hand is in one [`State`], which
//! says what it waits for; it has an alarm unless it is answered; a line that waits is in the queue once; as many
//! connections are counted as lines are being asked, and never more than allowed.
//!
//! What does not belong here: sockets, names of addresses, log lines.
//!
//! [`State`]: requests::State

mod addresses;
mod event;
mod invariants;
mod requests;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use slab::Slab;

pub use event::{Action, AttemptId, Cause, Event, Fault, RequestId};

use super::dialect::Dialect;
use super::options::Policy;
use addresses::Addresses;
use requests::Request;

/// The state of one run of `ask`.
#[derive(Debug)]
pub struct Asker {
    policy: Policy,
    dialect: Dialect,
    /// The time of the event at hand.
    now: Instant,
    actions: VecDeque<Action>,
    requests: Slab<Request>,
    /// Lines without a connection, in the order in which they get one. A line whose time was up before is still here.
    waiting: VecDeque<RequestId>,
    /// Lines whose answers have to be written in this order. Empty if the order does not matter.
    order: VecDeque<RequestId>,
    /// When something is due for a line.
    alarms: BTreeSet<(Instant, RequestId)>,
    addresses: Addresses,
    in_flight: usize,
    /// How many may be in flight: what the policy says, or less after a shortage.
    limit: usize,
    held_bytes: usize,
    tickets: u64,
    counters: Counters,
}

/// What became of the lines.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Lines read.
    pub lines: u64,
    /// Lines answered by a pool.
    pub answered: u64,
    /// Lines that got the text for failures.
    pub failed: u64,
    /// Lines that contradicted what is known of channel-IDs.
    pub contradicted: u64,
    /// Attempts that were not the first of their line.
    pub retries: u64,
    /// Why the last of these got it.
    pub last_cause: Option<Cause>,
}

impl Asker {
    /// An asker without any line.
    pub fn new(policy: Policy, now: Instant) -> Self {
        Asker {
            dialect: Dialect::new(policy.mode, policy.channel_ids),
            now,
            actions: VecDeque::new(),
            requests: Slab::new(),
            waiting: VecDeque::new(),
            order: VecDeque::new(),
            alarms: BTreeSet::new(),
            addresses: Addresses::new(policy.addresses),
            in_flight: 0,
            limit: policy.max_in_flight,
            held_bytes: 0,
            tickets: 0,
            counters: Counters::default(),
            policy,
        }
    }

    /// Takes in what has happened. What is to be done about it stands in [`next_action`](Self::next_action).
    pub fn handle(&mut self, now: Instant, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Line(line) => self.take_in(&line),
            Event::Reply(attempt, reply) => self.reply(attempt, reply),
            Event::Failed(attempt, fault) => self.failed(attempt, fault),
            Event::Tick => self.tick(),
        }
        self.fill_connections();
        self.check_invariants();
    }

    /// The next thing to do, in order; to be fetched until there is none before the loop goes on.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When an [`Event::Tick`] is wanted. Earlier ticks do no harm.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// What is to be sent for an attempt, without the LF; `None` once it is not waited for.
    pub fn question(&self, attempt: AttemptId) -> Option<&[u8]> {
        self.attempted(attempt)?;
        self.request(attempt.request)
            .map(|request| request.question.text.as_slice())
    }

    /// Whether another line may be read.
    pub fn has_room(&self) -> bool {
        self.unanswered() < self.policy.max_unanswered
            && self.requests.len() < self.policy.max_lines
            && self.held_bytes < self.policy.max_bytes
    }

    fn unanswered(&self) -> usize {
        let Counters {
            lines,
            answered,
            failed,
            contradicted,
            ..
        } = self.counters;
        usize::try_from(lines - answered - failed - contradicted).unwrap_or(usize::MAX)
    }

    /// How many lines have not been answered, or not in their turn.
    pub fn lines_in_hand(&self) -> usize {
        self.requests.len()
    }

    /// How many connections are open as far as the asker knows.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether there are channel-IDs, as far as that is known.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What became of the lines so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
