//! The asker: which line is asked where and when, and the answer of a line that gets no reply. Decisions only: no
//! descriptor, no clock, no randomness; the time comes with each event.
//!
//! The life of a line: [`AskEvent::Line`] → an address with room for it is chosen ([`addresses`], [`room`]) → the line
//! travels there on a connection of its own, or together with others ([`links`], [`traffic`]) → its answer is written,
//! at once if the line has a channel-ID, else when all lines before it are answered. Every line ends like that, and by
//! its deadline:
//! - After a failed attempt the line goes on to another address at once. While another address is up, an attempt may
//!   take half of the time that is left to the line; the last attempt may take all of it.
//! - When every address has failed, the line rests a little and starts another round, for half of its time-out: so it
//!   reaches a daemon that is being restarted. An address that gave a bad answer, or took too long, is left out of that
//!   round; one that closed the connection without a byte is not.
//! - When all addresses have been away for longer than a time-out, a line gets one round only and is then given up at
//!   once, so that Squid's users do not wait in vain, and the first line after the outage finds the daemon.
//! - A shortage on this machine (descriptors, ports) is not the fault of the address: the line rests and is tried again
//!   until its deadline, and fewer connections are opened from then on; each answer allows one more.
//!
//! Invariants after every event (`invariants` checks them in debug builds): every line in hand is in one [`LineState`],
//! which says what it waits for; it has an alarm unless it is answered; a waiting line is in one of the queues once; a
//! line that travels with others is known to its connection, and to no other; the number of lines with a connection of
//! their own never exceeds the limit.
//!
//! Not here: sockets, names of addresses, log lines.
//!
//! [`LineState`]: requests::LineState

mod addresses;
mod event;
mod invariants;
mod links;
mod requests;
mod room;
mod traffic;

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use slab::Slab;

pub use event::{AskAction, AskEvent, AttemptId, Cause, ConnectionId, Fault, LinkState, RequestId};

use super::options::Policy;
use super::protocol::Protocol;
use addresses::Addresses;
use links::Links;
use requests::Request;

/// The state of one run of `ask`.
#[derive(Debug)]
pub struct Asker {
    policy: Policy,
    protocol: Protocol,
    /// The time of the event at hand.
    now: Instant,
    actions: VecDeque<AskAction>,
    requests: Slab<Request>,
    /// The lines that have not been asked yet, in the order in which they will be. It may hold lines that are over
    /// already.
    waiting: VecDeque<RequestId>,
    /// The same for lines that have been asked before; these come first.
    retries: VecDeque<RequestId>,
    /// The lines whose answers have to be written in this order. Empty if the order does not matter.
    order: VecDeque<RequestId>,
    /// The next time at which each line needs attention.
    alarms: BTreeSet<(Instant, RequestId)>,
    addresses: Addresses,
    links: Links,
    /// The number of lines that are under way on a connection of their own.
    singles: usize,
    /// The number of lines that may be: the limit of the policy, or less after a shortage.
    limit: usize,
    held_bytes: usize,
    tickets: u64,
    counters: Counters,
}

/// The counts of the lines by their results.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Lines read.
    pub lines: u64,
    /// Lines answered by a pool.
    pub answered: u64,
    /// Lines that were answered with the text for failures.
    pub failed: u64,
    /// Lines that contradicted the known use of channel-IDs.
    pub contradicted: u64,
    /// Attempts that were not the first of their line.
    pub retries: u64,
    /// The cause of the last failed line.
    pub last_cause: Option<Cause>,
}

impl Asker {
    /// Creates an asker without any line.
    pub fn new(policy: Policy, now: Instant) -> Self {
        Asker {
            protocol: Protocol::new(policy.mode, policy.channel_ids),
            now,
            actions: VecDeque::new(),
            requests: Slab::new(),
            waiting: VecDeque::new(),
            retries: VecDeque::new(),
            order: VecDeque::new(),
            alarms: BTreeSet::new(),
            addresses: Addresses::new(policy.addresses),
            links: Links::new(&policy),
            singles: 0,
            limit: policy.max_singles,
            held_bytes: 0,
            tickets: 0,
            counters: Counters::default(),
            policy,
        }
    }

    /// Processes an event. The decisions are returned by [`next_action`](Self::next_action).
    pub fn handle(&mut self, now: Instant, event: AskEvent<'_>) {
        self.now = self.now.max(now);
        match event {
            AskEvent::Line(line) => self.accept(&line),
            AskEvent::Reply(attempt, reply) => self.take_reply(attempt, &reply),
            AskEvent::Failed(attempt, fault) => self.fail_attempt(attempt, fault),
            AskEvent::Connected(connection) => self.note_connected(connection),
            AskEvent::Received(connection, line) => self.take_line(connection, line),
            AskEvent::Overlong(connection, beginning) => self.take_overlong(connection, beginning),
            AskEvent::Closed(connection, fault) => self.note_closed(connection, fault),
            AskEvent::Tick => {
                self.handle_tick();
                self.handle_due_connections();
            }
        }
        self.ask_waiting();
        self.check_invariants();
    }

    /// Returns the next action, in order. Must be called after each event until it returns `None`.
    pub fn next_action(&mut self) -> Option<AskAction> {
        self.actions.pop_front()
    }

    /// Returns the time at which an [`AskEvent::Tick`] is needed. Earlier ticks do no harm.
    pub fn next_deadline(&self) -> Option<Instant> {
        let alarm = self.alarms.first().map(|(at, _)| *at);
        [alarm, self.links.next_deadline()].into_iter().flatten().min()
    }

    /// Returns the question of an attempt, without the LF; `None` once the attempt is over.
    pub fn question(&self, attempt: AttemptId) -> Option<&[u8]> {
        self.address_of(attempt)?;
        self.request(attempt.request)
            .map(|request| request.question.text.as_slice())
    }

    /// Returns the number of lines that are not answered, or whose answers wait for their turn.
    pub fn lines_in_hand(&self) -> usize {
        self.requests.len()
    }

    /// Returns the number of lines that are under way on connections of their own.
    pub fn singles(&self) -> usize {
        self.singles
    }

    /// Returns the connections that carry many lines.
    pub fn connections(&self) -> usize {
        self.links.all().count()
    }

    /// Returns the way in which the lines for an address travel.
    pub fn link_state(&self, address: usize) -> LinkState {
        self.links.state(address)
    }

    /// Returns the protocol of the asking program, as far as it is known.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Returns the counts of the lines so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}

#[cfg(test)]
mod tests;
