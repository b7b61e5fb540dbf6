//! One tunnel connection and its streams: the I/O of a [session](super::core::Session).
//!
//! **The owner of a stream** runs a [`Conversation`](crate::relay::conversation::Conversation) of which one side is the
//! stream, lent by [`end_of`](Session::end_of), and the other a socket. The door that keeps the session calls
//! [`next`](Session::next) until it has nothing more, and runs the conversations that are named.
//!
//! **From the tunnel** the bytes of a frame go straight to the owner: while the conversation runs, it reads them from the
//! connection, or splices them into its pipe, as far as the frame goes. The rest, which its sink does not take, is kept in
//! memory, so that the next frame can be read: a stream that stalls stalls no other. The peer gets credit for bytes once
//! the owner asks for more, because a carrier asks only when it has delivered everything.
//!
//! **To the tunnel** small pieces are gathered in the connection's buffer, each behind its header, and leave together at
//! the end of the turn ([`flush`](Session::flush)). Bulk is spliced behind a header that was written alone. From then on
//! the bytes of the frame are owed: nothing else may be written before them. If the owner gives the stream up meanwhile,
//! they are taken from its pipe.
//!
//! Invariants:
//! - A stream that could not write, because of the connection or of another stream's debt, is parked, and woken in its
//!   turn when there is room. One without credit is woken when the peer has granted some.
//! - Whatever is kept of a stream is within its window, and all of it within the session's total: the core sees to both.
//! - A write that fails ends nothing: what the peer has sent before is still read, and delivered. Whatever would be written
//!   from then on is dropped, and the streams are told that their peers take no more.
//! - After the end of the session each stream is woken once, and reads its failure, in as many turns as it takes.
//!
//! The modules: `waking` has the streams that wait for their turn, `writing` the way to the connection.
//!
//! The rules of the protocol are the core's; deadlines and the log are the door's.

mod waking;
mod writing;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::core::{self, Counters, Expected, Fault, Input, Role, Settings, StreamId};
use super::frame::HEADER;
pub use super::next::{Departure, End, Next};
use super::queue::Queue;
use super::stream::{Carried, StreamEnd};
use super::window::Window;
use crate::net::conn::{Conn, Received};
use crate::reactor::Readiness;
use crate::relay::pipes::Pipe;
pub(super) use writing::ROOM;

/// The number of steps, each a frame or a part of one, that a turn makes at most.
const STEPS_PER_TURN: usize = 64;
/// The number of streams that are opened or run in a turn at most: at the end of a session all of them are to be run.
const RUNS_PER_TURN: usize = 256;
/// The length of frames behind which the next header is read alone, so that the payload behind it can be spliced.
const BULK: u32 = 32 << 10;

/// One tunnel connection and its streams.
#[derive(Debug)]
pub struct Session {
    pub(super) conn: Conn,
    pub(super) core: core::Session,
    pub(super) streams: HashMap<StreamId, Carried>,
    /// The bytes that were read and are in no stream yet.
    pub(super) input: Window,
    /// True if the last frame was so long that the next one is expected to be.
    is_bulk: bool,
    /// True if more of the payload under way may have come since its stream was woken.
    has_more: bool,
    steps: usize,
    runs: usize,
    /// The streams that the peer has opened, and the door does not know yet.
    opened: VecDeque<StreamId>,
    /// The streams whose conversations are to be run.
    woken: VecDeque<StreamId>,
    /// The streams that wait for room in the connection.
    parked: Queue,
    went_away: Option<u32>,
    /// The reason for which nothing more can be written, if that is so.
    unwritable: Option<String>,
    /// True if the connection is to be read although no event of it has come.
    is_to_read: bool,
    end: Option<End>,
    has_told_end: bool,
}

impl Session {
    /// A session on a connection that is established, with its handshake if it has TLS.
    #[must_use]
    pub fn new(conn: Conn, role: Role, settings: Settings, now: Instant) -> Self {
        Self {
            conn,
            core: core::Session::new(role, settings, now),
            streams: HashMap::new(),
            input: Window::default(),
            is_bulk: false,
            has_more: false,
            steps: 0,
            runs: 0,
            opened: VecDeque::new(),
            woken: VecDeque::new(),
            parked: Queue::default(),
            went_away: None,
            unwritable: None,
            is_to_read: false,
            end: None,
            has_told_end: false,
        }
    }

    // ---- the door ----------------------------------------------------------------------------------------------

    /// The connection, to be registered with the poll, and for what the kernel knows of it. Bytes go through the session.
    pub fn conn_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Gives the connection back, of a session that has no streams.
    #[must_use]
    pub fn into_conn(self) -> Conn {
        self.conn
    }

    /// Takes in an event of the poll. [`next`](Self::next) must be called after it.
    pub fn note(&mut self, readiness: Readiness) {
        self.conn.note(readiness);
        self.has_more |= readiness.readable || readiness.read_closed || readiness.hung_up;
        if (readiness.writable || readiness.hung_up)
            && let Some((stream, _)) = self.core.owed()
        {
            self.wake(stream);
        }
    }

    /// Goes on, and returns the thing to do. Must be called again until there is [none](Next::Idle) or the session's
    /// [share](Next::MoreLater) is used up.
    pub fn next(&mut self, now: Instant) -> Next {
        loop {
            self.take_events();
            if self.runs >= RUNS_PER_TURN {
                return self.pause(Next::MoreLater);
            }
            if let Some(next) = self.next_opened().or_else(|| self.next_woken()) {
                self.runs += 1;
                return next;
            }
            if let Some(code) = self.went_away.take() {
                return Next::WentAway(code);
            }
            if let Some(end) = &self.end {
                if std::mem::replace(&mut self.has_told_end, true) {
                    return self.pause(Next::Idle);
                }
                return Next::Over(end.clone());
            }
            if self.steps >= STEPS_PER_TURN {
                // Once a turn, or input that never ends would leave the parked ones waiting for good.
                if self.steps == STEPS_PER_TURN && self.wake_parked() {
                    self.steps += 1;
                    continue;
                }
                return self.pause(Next::MoreLater);
            }
            self.steps += 1;
            let has_moved = match self.core.expected() {
                Some(expected) => self.go_on_with(expected),
                None => self.read_header(now),
            };
            if !has_moved && !self.wake_parked() && !std::mem::take(&mut self.is_to_read) {
                return self.pause(Next::Idle);
            }
        }
    }

    fn pause(&mut self, next: Next) -> Next {
        (self.steps, self.runs) = (0, 0);
        next
    }

    /// Writes what was gathered. Must be called at the end of each turn in which the session or one of its streams was
    /// touched. Returns true if [`next`](Self::next) must be called again, in the next turn.
    #[must_use]
    pub fn flush(&mut self) -> bool {
        self.write_out();
        let is_to_tell = self.end.is_some() && !self.has_told_end;
        let has_streams = !self.woken.is_empty() || !self.opened.is_empty() || self.can_wake_parked();
        has_streams || is_to_tell || self.is_to_read
    }

    /// Opens a stream for this owner. `None` if the peer takes no more.
    pub fn open(&mut self, owner: u64) -> Option<StreamId> {
        if !self.is_writable() {
            return None;
        }
        let stream = self.core.open()?;
        self.streams.insert(stream, Carried::new(owner));
        Some(stream)
    }

    /// Takes a stream that the peer has opened for this owner, whose conversation will be run when bytes have come.
    pub fn accept(&mut self, stream: StreamId, owner: u64) {
        self.core.accept(stream);
        self.streams.insert(stream, Carried::new(owner));
        // Its first bytes may have come with it, before it had an owner.
        self.wake(stream);
    }

    /// Refuses a stream that the peer has opened.
    pub fn refuse(&mut self, stream: StreamId) {
        self.core.reset(stream);
    }

    /// The edges of a stream that was [named](Next::Stream), for its conversation. A stream whose peer takes no more has hung
    /// up, although bytes of it may be left.
    #[must_use]
    pub fn edges_of(&self, stream: StreamId) -> Readiness {
        let is_reset = self.streams.get(&stream).is_none_or(Carried::is_reset);
        Readiness {
            readable: true,
            writable: true,
            read_closed: false,
            hung_up: is_reset || !self.is_writable(),
        }
    }

    /// The end of a stream, for one run of its conversation.
    pub fn end_of(&mut self, stream: StreamId) -> StreamEnd<'_> {
        StreamEnd::new(self, stream)
    }

    /// Gives a stream up. The peer gets a reset, unless both sides have said their ends. `rest` is what the conversation
    /// [held](crate::relay::conversation::Conversation::take_rest) for the stream.
    pub fn release(&mut self, stream: StreamId, rest: Option<Pipe>) {
        if let Some((owing, left)) = self.core.owed().filter(|(owing, _)| *owing == stream) {
            self.pay(owing, left, rest);
        }
        self.core.reset(stream);
        if let Some(mut carried) = self.streams.remove(&stream) {
            self.parked.remove(&mut carried.parked);
        }
    }

    /// Returns true if no stream is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Lets the peer open no more streams, and tells it so. The streams that are up go on, and it takes new ones.
    pub fn go_away(&mut self) {
        self.core.go_away();
    }

    /// Returns true if the peer takes no more streams.
    #[must_use]
    pub fn is_gone_away(&self) -> bool {
        !self.is_writable() || self.core.is_gone_away()
    }

    /// Returns true if more of a stream would have to come, and never will.
    #[must_use]
    pub fn is_broken_off(&self, stream: StreamId) -> bool {
        let is_reset = self.streams.get(&stream).is_none_or(Carried::is_reset);
        is_reset || self.end.is_some() && self.core.input(stream) == Input::Open
    }

    /// Returns true if nothing is left to be written, or nothing more can be.
    #[must_use]
    pub fn is_written(&self) -> bool {
        let is_empty = self.conn.unwritten() == 0 && self.core.owed().is_none() && !self.core.has_control();
        is_empty || !self.is_writable()
    }

    /// Returns true once the session is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.end.is_some()
    }

    /// Checks the path to the peer now.
    pub fn ping_now(&mut self, now: Instant) {
        self.core.ping_now(now);
    }

    /// The time at which [`timeout`](Self::timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.core.deadline().filter(|_| self.end.is_none())
    }

    /// Takes in that time has passed. [`next`](Self::next) and [`flush`](Self::flush) must be called after it.
    pub fn timeout(&mut self, now: Instant) {
        if self.end.is_none()
            && let Err(fault) = self.core.timeout(now)
        {
            self.end(End::Fault(fault));
        }
    }

    /// The time at which the ping was sent whose answer is awaited, if one is.
    #[must_use]
    pub fn asked_at(&self) -> Option<Instant> {
        self.core.asked_at().filter(|_| self.end.is_none())
    }

    /// The time that the last answered ping took.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.core.round_trip()
    }

    /// The counters of the session.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        self.core.counters()
    }

    /// The number of streams that have owners.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    // ---- from the tunnel ---------------------------------------------------------------------------------------

    /// Reads the next header, and hands it to the core. Returns false if it has not come.
    fn read_header(&mut self, now: Instant) -> bool {
        let Some(header) = self.input.take::<HEADER>() else {
            let most = if self.is_bulk { HEADER } else { usize::MAX };
            let Session { conn, input, .. } = self;
            let outcome = input.read(most, |to| conn.read(to));
            return self.note_received(outcome).is_some() || self.end.is_some();
        };
        if let Err(fault) = self.core.header(header, now) {
            self.end(End::Fault(fault));
        }
        self.is_bulk = self.core.expected().is_some_and(|expected| expected.left >= BULK);
        self.has_more = false;
        true
    }

    /// Goes on with a payload: more of it is offered to its stream, and what is not taken then is kept or thrown away.
    /// Returns false if nothing has come.
    fn go_on_with(&mut self, expected: Expected) -> bool {
        let stream = expected.stream.filter(|stream| self.streams.contains_key(stream));
        if let Some(stream) = stream
            && std::mem::take(&mut self.has_more)
        {
            self.wake(stream);
            return true;
        }
        let left = usize::try_from(expected.left).unwrap_or(usize::MAX);
        if self.input.is_empty() {
            let Session { conn, input, .. } = self;
            let outcome = input.read(left, |to| conn.read(to));
            if self.note_received(outcome).is_none() {
                return self.end.is_some();
            }
        }
        let bytes = self.input.bytes();
        let bytes = bytes.get(..left).unwrap_or(bytes);
        let count = bytes.len();
        if let Some(carried) = stream.and_then(|stream| self.streams.get_mut(&stream)) {
            carried.keep(bytes);
        }
        self.input.consume(count);
        self.note_taken(count);
        true
    }

    /// Takes in that bytes of the payload under way were taken from the wire.
    pub(super) fn note_taken(&mut self, count: usize) {
        self.core.received(u32::try_from(count).unwrap_or(u32::MAX));
        // A stream that was reset for what it holds must not be taken for one that has ended.
        self.take_events();
    }

    /// Takes in the outcome of a read of the connection. Returns the number of bytes, if there are any.
    pub(super) fn note_received(&mut self, outcome: Received) -> Option<usize> {
        match outcome {
            Received::Bytes(count) => return Some(count),
            Received::Nothing => {}
            Received::End if self.core.expected().is_none() && self.input.is_empty() => self.end(End::Closed),
            Received::End | Received::Cut => self.end(End::Cut),
            Received::Failed => {
                let why = self.error();
                self.end(End::Failed(why));
            }
        }
        None
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// The words of the connection's error.
    pub(super) fn error(&self) -> String {
        let error = self.conn.error();
        error.map_or_else(|| "the connection has failed".to_owned(), ToString::to_string)
    }

    /// Takes in that a write has failed for this reason, of which the connection may tell no more.
    pub(super) fn note_unwritable(&mut self, why: String) {
        if self.unwritable.is_none() && self.end.is_none() {
            self.unwritable = Some(why);
            self.drop_output();
            self.conn.expect_input();
            self.is_to_read = true;
            self.wake_all();
        }
    }

    fn end(&mut self, end: End) {
        if self.end.is_some() {
            return;
        }
        // A connection whose write has failed once ends for that.
        let end = match (self.unwritable.take(), end) {
            (Some(why), End::Closed | End::Cut | End::Failed(_) | End::Unpaid | End::Fault(Fault::Silent)) => {
                End::Failed(why)
            }
            (Some(_) | None, end) => end,
        };
        // The peer learns the reason, if it still reads.
        self.gather_control();
        let _ = self.conn.flush();
        self.end = Some(end);
        self.wake_all();
    }

    fn wake_all(&mut self) {
        let streams: Vec<StreamId> = self.streams.keys().copied().collect();
        streams.into_iter().for_each(|stream| self.wake(stream));
    }
}

#[cfg(test)]
mod tests;
