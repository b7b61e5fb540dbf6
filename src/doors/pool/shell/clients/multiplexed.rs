//! Multiplexed connections: many requests are under way, each behind a number of the client's choice, and each answer
//! leaves as soon as it is there. `doc/protocol.md` is the contract, [`multiplex`](crate::framing::multiplex) has the
//! lines.
//!
//! The life of such a connection: its first line is a hello → [`Clients::begin_multiplexing`] answers by the limits →
//! each line is a request, which becomes an exchange with its number, or cancels one ([`Clients::take_line`]) → an answer
//! ends its exchange and is gathered for the end of the turn ([`Clients::write_numbered`]). When the pool is to lose its
//! clients it says so ([`Clients::announce_drain`]); the connection then ends when the client has closed its side, or
//! has been given time for that, and everything under way is answered.
//!
//! Invariants:
//! - A number names at most one exchange of its connection, and gets at most one answer while it does.
//! - A wrong line costs its own number a refusal and nothing else. Only a line without a number ends the connection.
//! - A line that is too long is never kept: its number is read from its beginning, and the rest is skipped.
//! - A client gets a bounded share of each turn, counted in lines, however short they are.

use std::time::{Duration, Instant};

use super::Clients;
use super::client::{After, Kind, Phase};
use super::exchange::Asker;
use super::intake::Line;
use crate::doors::pool::core::ClientId;
use crate::doors::pool::options::{KeptLimits, Options};
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::framing::channel::{Channel, LONGEST_PREFIX, Prefix, channel};
use crate::framing::multiplex::{ClientLine, DRAIN, Welcome};
use crate::framing::{Frame, Framing, Progress};
use crate::reactor::{Key, SourceKind};

/// The lines that are taken from one client in one turn.
const LINES_PER_TURN: usize = 256;
/// The time from the announcement that a connection drains until nothing more is read from it.
const DRAIN_TIME: Duration = Duration::from_secs(1);
/// The number of bytes that are read from a client after that at most: more than the kernel holds of a connection on
/// both sides, so that all is read of a client that has sent it before. One that sends on and on is not waited for.
const MOST_LATE: usize = 16 * 1024 * 1024;
/// The room in a line for a cancellation, where requests are shorter than that.
const LONGEST_CANCELLATION: usize = 32;

/// The state of a multiplexed connection, besides its exchanges.
#[derive(Debug)]
pub(crate) struct Channels {
    /// The limits that the client was told.
    limits: KeptLimits,
    /// The length of the longest request that the client was told.
    longest: usize,
    /// True within a line that was refused before its end has come.
    is_skipping: bool,
    drain: Drain,
    turn: Turn,
}

/// The progress of a connection towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    /// The client may ask.
    No,
    /// The client was told that nothing new is taken. What it sends before `until` is taken: so of the bytes that are
    /// read `late`, which is after that time, at most [`MOST_LATE`] are.
    Announced { until: Instant, late: usize },
}

/// The share of the client in a turn of the reactor.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// The time of the turn, which no other has.
    at: Instant,
    lines: usize,
}

impl Channels {
    pub(crate) fn limits(&self) -> &KeptLimits {
        &self.limits
    }

    pub(crate) fn is_skipping(&self) -> bool {
        self.is_skipping
    }

    /// Returns the earlier of a deadline and the time until which a client is read from whose connection drains.
    pub(crate) fn earlier_of_drain(&self, deadline: Option<Instant>) -> Option<Instant> {
        match self.drain {
            Drain::No => deadline,
            Drain::Announced { until, .. } => Some(deadline.map_or(until, |deadline| deadline.min(until))),
        }
    }

    fn is_drained(&self, now: Instant) -> bool {
        matches!(self.drain, Drain::Announced { until, .. } if until <= now)
    }

    /// Counts bytes that are read now.
    pub(super) fn note_read(&mut self, length: usize, now: Instant) {
        if let Drain::Announced { until, late } = &mut self.drain
            && *until <= now
        {
            *late = late.saturating_add(length);
        }
    }

    /// Returns true if nothing more is taken of what the client has sent.
    fn has_enough(&self) -> bool {
        matches!(self.drain, Drain::Announced { late, .. } if late > MOST_LATE)
    }

    /// Counts a line that is taken now. Returns false if there were enough in this turn.
    fn count_line(&mut self, now: Instant) -> bool {
        if self.turn.at != now {
            self.turn = Turn { at: now, lines: 0 };
        }
        self.turn.lines += 1;
        self.turn.lines <= LINES_PER_TURN
    }
}

impl Clients {
    // ---- beginning ---------------------------------------------------------------------------------------------

    /// Makes a connection, on which nothing but the hello has come, a multiplexed one.
    pub(super) fn begin_multiplexing(&mut self, desk: &mut Desk<'_>, key: Key, limits: KeptLimits) {
        let (options, now) = (desk.options, desk.cx.now());
        let Some(client) = self.get_mut(key) else {
            return;
        };
        // Answers leave one after the other: see `add`.
        let _ = client.conn.socket().set_nodelay();
        let longest = options.max_request;
        client.framer = line_framer(longest);
        client.kind = Kind::Multiplexed(Box::new(Channels {
            limits,
            longest,
            is_skipping: false,
            drain: Drain::No,
            turn: Turn { at: now, lines: 0 },
        }));
        client.read_by = now + limits.idle_timeout;
        self.multiplexed += 1;
        desk.counters.multiplexed.connections += 1;
        let mut line = self.spare.take();
        welcome(options, limits).encode(&mut line);
        self.gather(desk, key, &[&line]);
        self.spare.keep(line);
        if !desk.front.is_serving() {
            self.drain_connection(desk, key);
        }
    }

    // ---- lines -------------------------------------------------------------------------------------------------

    /// Takes the line at the beginning of `bytes`, which must not be empty. Returns the number of bytes that are done
    /// with; 0 if there is no whole line, or this turn's share is used up.
    pub(super) fn take_line(&mut self, desk: &mut Desk<'_>, key: Key, bytes: &[u8]) -> usize {
        let now = desk.cx.now();
        let Some(client) = self.table.get_mut(key) else {
            return 0;
        };
        let Kind::Multiplexed(channels) = &mut client.kind else {
            return 0;
        };
        if channels.has_enough() {
            self.finish(desk, key, After::Linger);
            return 0;
        }
        if channels.is_skipping {
            let end = memchr::memchr(b'\n', bytes);
            channels.is_skipping = end.is_none();
            return end.map_or(bytes.len(), |end| end + 1);
        }
        if !channels.count_line(now) {
            client.phase = Phase::Full;
            desk.cx.resume_later(PoolSource::Client.at(key));
            return 0;
        }
        let frame = match client.framer.advance(bytes) {
            Progress::Frame(frame) => frame,
            Progress::NeedMore => return 0,
            Progress::TooLong | Progress::Malformed(_) => return self.refuse_long_line(desk, key, bytes),
        };
        client.read_by = now + channels.limits.idle_timeout;
        let line = bytes.get(..frame.length).unwrap_or_default();
        match ClientLine::parse(line) {
            ClientLine::Request { number, prefix } => self.take_numbered(desk, key, number, line, prefix),
            ClientLine::Cancel(number) => self.cancel(desk, key, number),
            ClientLine::Unknown => self.end_multiplexing(desk, key, Line::Unnumbered),
        }
        frame.length
    }

    /// Takes in the request in a line, behind its number.
    fn take_numbered(&mut self, desk: &mut Desk<'_>, key: Key, number: u32, line: &[u8], prefix: usize) {
        let Some(client) = self.get(key) else {
            return;
        };
        let asker = Asker {
            client: key,
            number: Some(number),
        };
        desk.counters.multiplexed.requests += 1;
        if client.owed.numbered(number).is_some() {
            return self.refuse_request(desk, asker, Line::NumberInUse(number));
        }
        let request = line.get(prefix..).unwrap_or_default();
        let payload = request.len().saturating_sub(1);
        if let Kind::Multiplexed(channels) = &client.kind
            && payload > channels.longest
        {
            return self.refuse_request(desk, asker, Line::TooLong);
        }
        let frame = Frame {
            length: request.len(),
            payload: 0..payload,
        };
        self.take_request(desk, asker, &frame, request);
    }

    /// Refuses a line that is too long, whether its end is there or not. Returns the number of its bytes in `bytes`.
    fn refuse_long_line(&mut self, desk: &mut Desk<'_>, key: Key, bytes: &[u8]) -> usize {
        let Channel::Number { number, .. } = channel(bytes) else {
            self.end_multiplexing(desk, key, Line::Unnumbered);
            return 0;
        };
        let end = memchr::memchr(b'\n', bytes);
        if let Some(client) = self.get_mut(key)
            && let Kind::Multiplexed(channels) = &mut client.kind
        {
            channels.is_skipping = end.is_none();
            client.framer = line_framer(channels.longest);
            client.read_by = desk.cx.now() + desk.options.read_timeout;
        }
        desk.counters.multiplexed.requests += 1;
        let asker = Asker {
            client: key,
            number: Some(number),
        };
        self.refuse_request(desk, asker, Line::TooLong);
        end.map_or(bytes.len(), |end| end + 1)
    }

    /// Answers the request with this number by the refusal, unless it is answered already, and gives it up.
    fn cancel(&mut self, desk: &mut Desk<'_>, key: Key, number: u32) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        let Some(id) = client.owed.numbered(number) else {
            return;
        };
        let mut owed = std::mem::take(&mut client.owed);
        self.abandon(desk, &mut owed, id);
        if let Some(client) = self.get_mut(key) {
            client.owed = owed;
        }
        desk.counters.multiplexed.cancelled += 1;
        self.write_numbered_refusal(desk, key, number);
    }

    // ---- answers -----------------------------------------------------------------------------------------------

    /// Returns the client and the number of a request on a multiplexed connection.
    pub(super) fn number_of(&self, id: ClientId) -> Option<(Key, u32)> {
        let asker = self.exchanges.get(id)?.asker?;
        Some((asker.client, asker.number?))
    }

    /// Ends the exchange of a request that is answered now.
    pub(super) fn end_exchange(&mut self, key: Key, id: ClientId) {
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if let Some(state) = self.exchanges.close(&mut client.owed, id) {
            self.keep_bytes_of(state);
        }
    }

    /// Gathers an answer, which must be a line, behind its number.
    pub(super) fn write_numbered(&mut self, desk: &mut Desk<'_>, key: Key, number: u32, answer: &[u8]) {
        self.gather(desk, key, &[Prefix::of(number).as_bytes(), answer]);
    }

    /// Gathers the refusal behind a number: its first line, which may be empty.
    pub(super) fn write_numbered_refusal(&mut self, desk: &mut Desk<'_>, key: Key, number: u32) {
        let text = &desk.options.error_reply;
        let end = memchr::memchr(b'\n', text).unwrap_or(text.len());
        let line = text.get(..end).unwrap_or_default();
        self.gather(desk, key, &[Prefix::of(number).as_bytes(), line, b"\n"]);
    }

    // ---- end ---------------------------------------------------------------------------------------------------

    /// Tells the clients of all multiplexed connections, each once, that nothing new is taken from them.
    pub(crate) fn announce_drain(&mut self, desk: &mut Desk<'_>) {
        if self.multiplexed == 0 {
            return;
        }
        for key in self.keys() {
            if self.drain_connection(desk, key) {
                self.flush(desk, key);
            }
        }
    }

    /// Tells a client that nothing new is taken from it. Returns false if it is told already, or cannot be.
    fn drain_connection(&mut self, desk: &mut Desk<'_>, key: Key) -> bool {
        let until = desk.cx.now() + DRAIN_TIME;
        let Some(client) = self.get_mut(key) else {
            return false;
        };
        if let Phase::Taking | Phase::Full = client.phase
            && let Kind::Multiplexed(channels) = &mut client.kind
            && channels.drain == Drain::No
        {
            channels.drain = Drain::Announced { until, late: 0 };
            self.gather(desk, key, &[DRAIN]);
            self.touch(key);
            return true;
        }
        false
    }

    /// Takes nothing more from a client that was read from until now, if the time of its connection is over and nothing
    /// of what it has sent before is unread. Returns true if the time is over.
    pub(super) fn end_drained(&mut self, desk: &mut Desk<'_>, key: Key) -> bool {
        let Some(client) = self.get(key) else {
            return false;
        };
        let is_over = match &client.kind {
            Kind::Multiplexed(channels) => client.phase == Phase::Taking && channels.is_drained(desk.cx.now()),
            Kind::OneShot | Kind::Persistent(_) => false,
        };
        if is_over && !client.conn.has_unread() {
            self.finish(desk, key, After::Linger);
        }
        is_over
    }

    /// Ends a connection by reason of a line that is wrong, and of which no further line tells anything: it gets the
    /// answers that are under way. The number of a line that has begun with one is refused.
    pub(super) fn end_multiplexing(&mut self, desk: &mut Desk<'_>, key: Key, line: Line) {
        let Some(client) = self.get(key) else {
            return;
        };
        let number = match channel(&client.input) {
            Channel::Number { number, .. } => Some(number),
            Channel::NeedMore | Channel::None => None,
        };
        self.log_wrong_line(desk, key, line);
        if let Some(number) = number {
            self.write_numbered_refusal(desk, key, number);
        }
        self.finish(desk, key, After::Linger);
    }

    /// Takes nothing more of a client, which goes when it has got all its answers.
    fn finish(&mut self, desk: &mut Desk<'_>, key: Key, after: After) {
        self.take_nothing_more(key, after);
        let Some(client) = self.get(key) else {
            return;
        };
        if client.is_idle() {
            self.lingering_close(desk, key, after);
        } else {
            self.touch(key);
        }
    }
}

fn line_framer(longest: usize) -> crate::framing::Framer {
    Framing::Line.framer(longest.saturating_add(LONGEST_PREFIX).max(LONGEST_CANCELLATION))
}

fn welcome(options: &Options, limits: KeptLimits) -> Welcome {
    let policy = &options.policy;
    Welcome {
        max_unanswered: limits.max_unanswered,
        max_request: options.max_request,
        at_once: policy
            .workers
            .max
            .saturating_mul(policy.concurrency.unwrap_or(policy.pipeline)),
    }
}
