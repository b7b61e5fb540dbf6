//! The ways in which the lines for each address travel: many of them on one connection, or each on a connection of its
//! own. `doc/protocol.md` describes the former.
//!
//! The life of a link: nothing is known of an address at first. The first line for it opens a connection and waits
//! there while the hello is on its way. The welcome of the pool makes the link a multiplexed one. Any other answer, an
//! end, or silence for [`GREETING`] means that the other side does not know the protocol: the lines that wait are given
//! back, and from then on each line gets a connection of its own. Now and then such an address is sent a hello again,
//! beside its lines, none of which waits for that.
//!
//! The life of a connection: [`Phase`]. A connection that is too old, or whose pool drains, takes no more lines and
//! ends when it owes no answer; the next line opens another one.
//!
//! Invariants: a line waits for an opening connection only if no open one can take it; each connection belongs to one
//! address; a number is used once on a connection.
//!
//! The lines themselves do not belong here: [`traffic`](super::traffic) moves them.

mod connection;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use slab::Slab;

use super::super::options::{Mode, Policy};
use super::event::{AskAction, AttemptId, ConnectionId, LinkState, Refusal};
use crate::framing::multiplex::Welcome;
pub(super) use connection::{Connection, Phase, Sign, UnderWay};

/// The time within which the answer to a hello has to come.
pub(super) const GREETING: Duration = Duration::from_millis(200);
/// The time after which an address that did not understand the hello is sent another one.
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// The same for an address that has understood it before, or was silent: the pool may have been too busy for a moment,
/// or not have begun to serve. The time doubles with each hello in vain.
const FIRST_DELAY: Duration = Duration::from_secs(10);

/// The links to all addresses, by number, and their connections.
#[derive(Debug)]
pub(super) struct Links {
    terms: Terms,
    ways: Vec<Way>,
    connections: Slab<Connection>,
    serials: u64,
}

/// The part of the policy that links depend on.
#[derive(Debug)]
struct Terms {
    mode: Mode,
    singles_per_address: usize,
    connections: usize,
    max_age: Option<Duration>,
    spread: u64,
}

/// The way in which the lines for one address travel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Way {
    /// No hello has been answered yet.
    Unknown,
    /// Many lines on one connection.
    Multiplexed(Welcome),
    /// A connection for each line.
    Single {
        why: Refusal,
        /// The time of the next hello, and the delay until the one behind that; `None` if there is to be none.
        retry: Option<(Instant, Duration)>,
    },
}

/// The route of one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A connection of its own.
    Single,
    /// This connection, as soon as it opens.
    Hold(ConnectionId),
    /// This connection, at once.
    Shared(ConnectionId),
}

impl Links {
    pub(super) fn new(policy: &Policy) -> Links {
        let way = if policy.connections == 0 {
            Way::Single {
                why: Refusal::Unasked,
                retry: None,
            }
        } else {
            Way::Unknown
        };
        Links {
            terms: Terms {
                mode: policy.mode,
                singles_per_address: policy.singles_per_address,
                connections: policy.connections,
                max_age: policy.max_connection_age,
                spread: policy.spread,
            },
            ways: vec![way; policy.addresses],
            connections: Slab::new(),
            serials: 0,
        }
    }

    // ---- addresses ---------------------------------------------------------------------------------------------

    /// Returns the way of an address; `None` for a number that no address has.
    pub(super) fn way(&self, address: usize) -> Option<&Way> {
        self.ways.get(address)
    }

    pub(super) fn is_multiplexed(&self, address: usize) -> bool {
        matches!(self.way(address), Some(Way::Multiplexed(_)))
    }

    /// Returns true if each line for this address needs a connection of its own, as far as is known.
    pub(super) fn is_single(&self, address: usize) -> bool {
        matches!(self.way(address), Some(Way::Single { .. }))
    }

    /// Returns the number of lines that may be under way at an address. Lines that have failed elsewhere may be more.
    pub(super) fn capacity(&self, address: usize) -> usize {
        let Terms {
            mode,
            singles_per_address,
            connections,
            ..
        } = self.terms;
        match self.way(address) {
            None | Some(Way::Unknown | Way::Single { .. }) => singles_per_address,
            Some(Way::Multiplexed(welcome)) => {
                let most = welcome.max_unanswered.saturating_mul(connections);
                match mode {
                    // As many again as the workers have in hand wait in the pool, and none waits there for long.
                    Mode::Plain => most.min(welcome.at_once.saturating_mul(2)),
                    Mode::Squid => most,
                }
            }
        }
    }

    /// Notes that an address which was away has answered: its daemon may be another one now.
    pub(super) fn note_back(&mut self, address: usize, now: Instant) {
        if let Some(Way::Single {
            retry: Some((at, _)), ..
        }) = self.ways.get_mut(address)
        {
            *at = now;
        }
    }

    /// Returns the way of an address for people.
    pub(super) fn state(&self, address: usize) -> LinkState {
        match self.way(address) {
            None | Some(Way::Unknown) => LinkState::Unknown,
            Some(Way::Multiplexed(_)) => LinkState::Multiplexed,
            Some(Way::Single { why, .. }) => LinkState::Single(*why),
        }
    }

    // ---- lines -------------------------------------------------------------------------------------------------

    /// Chooses the route of a line, and opens a connection if one is needed.
    pub(super) fn route(&mut self, address: usize, now: Instant, actions: &mut VecDeque<AskAction>) -> Route {
        if self.is_single(address) {
            self.try_again(address, now, actions);
            return Route::Single;
        }
        let (mut count, mut opening, mut best): (usize, _, Option<(usize, ConnectionId)>) = (0, None, None);
        for connection in self.of(address) {
            match &connection.phase {
                Phase::Connecting { .. } | Phase::Greeting { .. } => opening = opening.or(Some(connection.id)),
                Phase::Open { lines, .. } => {
                    if best.is_none_or(|(fewest, _)| lines.len() < fewest) {
                        best = Some((lines.len(), connection.id));
                    }
                }
                Phase::Retiring { .. } => continue,
            }
            count += 1;
        }
        // One more is opened when all that are open have work in hand.
        if opening.is_none() && count < self.terms.connections && best.is_none_or(|(fewest, _)| fewest > 0) {
            opening = Some(self.open(address, now, actions));
        }
        match (best, opening) {
            (Some((_, id)), _) => Route::Shared(id),
            (None, Some(id)) => Route::Hold(id),
            // Not reached: without an open connection there is an opening one, because at least one is allowed.
            (None, None) => Route::Single,
        }
    }

    /// Sends a hello to an address whose lines travel alone, when the time for that has come.
    fn try_again(&mut self, address: usize, now: Instant, actions: &mut VecDeque<AskAction>) {
        let is_opening = self.of(address).any(Connection::is_opening);
        if let Some(Way::Single {
            retry: Some((at, delay)),
            ..
        }) = self.ways.get_mut(address)
            && *at <= now
            && !is_opening
        {
            *at = now + *delay;
            self.open(address, now, actions);
        }
    }

    fn open(&mut self, address: usize, now: Instant, actions: &mut VecDeque<AskAction>) -> ConnectionId {
        let entry = self.connections.vacant_entry();
        let id = ConnectionId {
            index: entry.key(),
            serial: self.serials,
        };
        self.serials += 1;
        let held = Vec::new();
        entry.insert(Connection {
            id,
            address,
            phase: Phase::Connecting { since: now, held },
        });
        actions.push_back(AskAction::Open {
            connection: id,
            address,
        });
        id
    }

    /// Has an attempt wait for a connection to open.
    pub(super) fn hold(&mut self, id: ConnectionId, attempt: AttemptId) {
        if let Some(held) = self.get_mut(id).and_then(Connection::held_mut) {
            held.push(attempt);
        }
    }

    /// Sends a line on an open connection, and returns its number.
    pub(super) fn send(
        &mut self,
        id: ConnectionId,
        attempt: AttemptId,
        now: Instant,
        actions: &mut VecDeque<AskAction>,
    ) -> Option<u32> {
        let lines = self.get_mut(id)?.lines_mut()?;
        let number = lines.add(attempt, now);
        let is_used_up = lines.is_used_up();
        actions.push_back(AskAction::Send {
            connection: id,
            number,
            attempt,
        });
        if is_used_up {
            self.retire(id, actions);
        }
        Some(number)
    }

    /// Takes the line with this number, which was answered, off its connection.
    pub(super) fn take_answered(
        &mut self,
        id: ConnectionId,
        number: u32,
        now: Instant,
        actions: &mut VecDeque<AskAction>,
    ) -> Option<AttemptId> {
        let attempt = self.get_mut(id)?.lines_mut()?.take_answered(number, now);
        self.close_if_done(id, actions);
        attempt
    }

    /// Takes a line whose time is over off its connection, and tells the pool.
    pub(super) fn abandon(&mut self, id: ConnectionId, number: u32, actions: &mut VecDeque<AskAction>) -> Sign {
        let Some(lines) = self.get_mut(id).and_then(Connection::lines_mut) else {
            return Sign::Alive;
        };
        let sign = lines.abandon(number);
        if sign == Sign::Alive {
            actions.push_back(AskAction::Abandon { connection: id, number });
            self.close_if_done(id, actions);
        }
        sign
    }

    /// Takes a line whose time is over away from a connection that is opening. Returns the connection if it is to be
    /// closed, because it is being established for too long.
    pub(super) fn release(&mut self, id: ConnectionId, attempt: AttemptId, now: Instant) -> Option<ConnectionId> {
        let connection = self.get_mut(id)?;
        connection.held_mut()?.retain(|other| *other != attempt);
        match &connection.phase {
            Phase::Connecting { since, held } => {
                (held.is_empty() || now.saturating_duration_since(*since) >= GREETING).then_some(id)
            }
            Phase::Greeting { .. } | Phase::Open { .. } | Phase::Retiring { .. } => None,
        }
    }

    // ---- connections -------------------------------------------------------------------------------------------

    /// Notes that a connection is established and its hello sent.
    pub(super) fn note_connected(&mut self, id: ConnectionId, now: Instant) {
        if let Some(connection) = self.get_mut(id)
            && let Phase::Connecting { held, .. } = &mut connection.phase
        {
            let (until, held) = (now + GREETING, std::mem::take(held));
            connection.phase = Phase::Greeting { until, held };
        }
    }

    /// Notes the pool's welcome, and returns the attempts that have waited for it.
    pub(super) fn welcome(
        &mut self,
        id: ConnectionId,
        welcome: Welcome,
        now: Instant,
        actions: &mut VecDeque<AskAction>,
    ) -> Vec<AttemptId> {
        let retire_at = self.lifetime(id).and_then(|age| now.checked_add(age));
        let Some(connection) = self.get_mut(id) else {
            return Vec::new();
        };
        let held = connection.held_mut().map(std::mem::take).unwrap_or_default();
        let lines = UnderWay::default();
        connection.phase = Phase::Open { retire_at, lines };
        let address = connection.address;
        if let Some(way) = self.ways.get_mut(address) {
            if !matches!(way, Way::Multiplexed(_)) {
                let state = LinkState::Multiplexed;
                actions.push_back(AskAction::LinkChanged { address, state });
            }
            *way = Way::Multiplexed(welcome);
        }
        held
    }

    /// Notes that the other side of a connection, which is [removed](Self::remove) already, did not understand the
    /// hello. The open connections to the same address take no more lines.
    pub(super) fn refuse(&mut self, address: usize, why: Refusal, now: Instant, actions: &mut VecDeque<AskAction>) {
        let Some(way) = self.ways.get_mut(address) else { return };
        let delay = match way {
            Way::Multiplexed(_) => FIRST_DELAY,
            Way::Unknown if why == Refusal::Silent => FIRST_DELAY,
            Way::Unknown | Way::Single { retry: None, .. } => LONGEST_DELAY,
            Way::Single {
                retry: Some((_, delay)),
                ..
            } => LONGEST_DELAY.min(*delay * 2),
        };
        if !matches!(way, Way::Single { .. }) {
            let state = LinkState::Single(why);
            actions.push_back(AskAction::LinkChanged { address, state });
        }
        let retry = Some((now + delay, delay));
        *way = Way::Single { why, retry };
        let others: Vec<ConnectionId> = self.of(address).map(|connection| connection.id).collect();
        for other in others {
            self.retire(other, actions);
        }
    }

    /// Has an open connection take no more lines. It ends when it owes no answer.
    pub(super) fn retire(&mut self, id: ConnectionId, actions: &mut VecDeque<AskAction>) {
        let Some(connection) = self.get_mut(id) else { return };
        let Phase::Open { lines, .. } = &mut connection.phase else {
            return;
        };
        let (has_work, lines) = (!lines.is_empty(), std::mem::take(lines));
        connection.phase = Phase::Retiring { lines };
        if has_work {
            actions.push_back(AskAction::Finish { connection: id });
        }
        self.close_if_done(id, actions);
    }

    fn close_if_done(&mut self, id: ConnectionId, actions: &mut VecDeque<AskAction>) {
        if self.get(id).is_some_and(Connection::is_done) {
            self.remove(id);
            actions.push_back(AskAction::Close { connection: id });
        }
    }

    /// Forgets a connection and returns it.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        self.get(id)?;
        self.connections.try_remove(id.index)
    }

    /// Notes that the pool has said something on a connection.
    pub(super) fn note_sign(&mut self, id: ConnectionId, now: Instant) {
        if let Some(lines) = self.get_mut(id).and_then(Connection::lines_mut) {
            lines.note_sign(now);
        }
    }

    /// Returns the time until which a connection takes lines; `None` if its age does not matter. Connections that were
    /// opened together do not end together, nor do those of several processes.
    fn lifetime(&self, id: ConnectionId) -> Option<Duration> {
        let age = self.terms.max_age?;
        let mixed = self
            .terms
            .spread
            .wrapping_add(id.serial)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Between 80 % and 100 % of the age.
        let percent = 80 + u32::try_from((mixed >> 32) % 21).unwrap_or_default();
        Some(age * percent / 100)
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Returns the time at which a connection needs attention.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.connections.iter().filter_map(|(_, it)| it.deadline()).min()
    }

    /// Returns a connection whose deadline has come.
    pub(super) fn due(&self, now: Instant) -> Option<&Connection> {
        let mut connections = self.connections.iter().map(|(_, it)| it);
        connections.find(|it| it.deadline().is_some_and(|at| at <= now))
    }

    // ---- access ------------------------------------------------------------------------------------------------

    pub(super) fn get(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections.get(id.index).filter(|connection| connection.id == id)
    }

    fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        self.connections
            .get_mut(id.index)
            .filter(|connection| connection.id == id)
    }

    fn of(&self, address: usize) -> impl Iterator<Item = &Connection> {
        self.all().filter(move |connection| connection.address == address)
    }

    /// Returns all connections.
    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().map(|(_, connection)| connection)
    }
}
