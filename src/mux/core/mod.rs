//! The rules of a session without I/O: twelve bytes of a header go in, events and frames come out. Time is an argument.
//!
//! The life of a frame of the peer: its [`header`](Session::header) is judged. The bytes behind it are
//! [expected](Session::expected) before the next header, and reported as they are [taken](Session::received). Once they
//! have left to the stream's sink they are reported as [consumed](Session::consumed), and the peer gets credit for as
//! many.
//!
//! The life of a frame of ours: [`begin_data`](Session::begin_data) returns its header, and from then on its bytes are
//! [owed](Session::owed): neither another header nor a [control frame](Session::next_control) may be written before
//! they were [sent](Session::sent). Control frames are kept as what is due (an amount, a mark, a number), not as frames, so
//! a peer that reads nothing costs no memory.
//!
//! Invariants:
//! - A stream is known from its opening until both its ends are said and all its bytes are consumed, or until it is reset.
//! - The peer never has more credit on a stream than its window less the bytes that are held of it.
//! - `held` is the sum over the streams, and at most the total of the settings; `granted` is the sum of the windows.
//! - Whatever the peer sends, the lists are bounded: the streams by the settings, the answers by [`MOST_ANSWERS`], the resets
//!   of its streams by their number and [`MOST_RESETS`]. Those of our streams are as many as we have opened.
//! - A number of the peer names one stream for the life of the session, so an owner that has not heard of a reset is given
//!   no bytes of another.
//! - Behind a fault nothing is taken in.
//!
//! Reading and writing, and the owners of streams, do not belong here.

mod due;
mod numbers;
mod outgoing;
mod ping;
mod stream;
mod words;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::frame::{Flags, HEADER, Header, Kind};
use due::Due;
use numbers::{Numbers, Seen};
use ping::Ping;
use stream::{Ends, Phase, Stream};
pub use words::{Counters, Event, Expected, FIRST_WINDOW, Fault, Input, Role, Settings, StreamId};

/// The number of answers to pings that may wait to be written: more than the frames that the shell takes in one turn, or a
/// peer would be at fault that reads every answer.
const MOST_ANSWERS: usize = 128;
/// The number of resets of the peer's streams that may wait to be written, beyond one for each stream that it may have: as
/// many are due at once when the server behind them goes.
const MOST_RESETS: usize = 4096;
/// The code of a go-away after a fault of the peer.
const PROTOCOL_ERROR: u32 = 1;

/// The state of a session. See the module.
#[derive(Debug)]
pub struct Session {
    role: Role,
    settings: Settings,
    streams: HashMap<StreamId, Stream>,
    next: u32,
    /// The payload that comes next; true if the stream ends behind it.
    inbound: Option<(Expected, bool)>,
    owed: Option<(StreamId, u32)>,
    due: Due,
    ping: Ping,
    events: VecDeque<Event>,
    held: u64,
    granted: u64,
    /// The streams that the peer has opened, and ours that it has not acknowledged.
    of_peer: usize,
    unaccepted: usize,
    /// The numbers that the peer has used.
    used: Numbers,
    we_went_away: bool,
    peer_went_away: bool,
    fault: Option<Fault>,
    counters: Counters,
}

impl Session {
    /// A session that begins now.
    #[must_use]
    pub fn new(role: Role, settings: Settings, now: Instant) -> Self {
        Self {
            role,
            settings,
            streams: HashMap::new(),
            next: match role {
                Role::Client => 1,
                Role::Server => 2,
            },
            inbound: None,
            owed: None,
            due: Due::default(),
            ping: Ping::new(now + settings.ping_interval),
            events: VecDeque::new(),
            held: 0,
            granted: 0,
            of_peer: 0,
            unaccepted: 0,
            used: Numbers::default(),
            we_went_away: false,
            peer_went_away: false,
            fault: None,
            counters: Counters::default(),
        }
    }

    // ---- from the wire -----------------------------------------------------------------------------------------

    /// Takes in the next twelve bytes. No payload may be expected.
    ///
    /// # Errors
    /// The fault of the peer, from then on always this one. The session is over; a go-away that says so is due.
    pub fn header(&mut self, header: [u8; HEADER], now: Instant) -> Result<(), Fault> {
        debug_assert!(self.inbound.is_none(), "the payload comes first");
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        self.ping.hear(now);
        let outcome = match Header::parse(header) {
            Err(error) => Err(Fault::NoHeader(error)),
            Ok(header) => match header.kind {
                Kind::Data | Kind::WindowUpdate => self.take_frame(header),
                Kind::Ping => self.take_ping(header, now),
                Kind::GoAway => {
                    self.peer_went_away = true;
                    self.events.push_back(Event::WentAway(header.length));
                    Ok(())
                }
            },
        };
        if let Err(fault) = outcome {
            self.fault = Some(fault);
            self.we_went_away = true;
            self.due.go_away = Some(PROTOCOL_ERROR);
        }
        outcome
    }

    fn take_ping(&mut self, header: Header, now: Instant) -> Result<(), Fault> {
        if header.flags.has(Flags::SYN) {
            if self.due.answers.len() >= MOST_ANSWERS {
                return Err(Fault::Flood);
            }
            self.due.answers.push_back(header.length);
        } else if header.flags.has(Flags::ACK) {
            self.ping.answer(header.length, now, self.settings.ping_interval);
        }
        Ok(())
    }

    fn take_frame(&mut self, header: Header) -> Result<(), Fault> {
        let stream = StreamId(header.stream);
        if header.flags.has(Flags::SYN) {
            self.take_opening(stream, header.flags.has(Flags::RST))?;
        }
        let is_data = header.kind == Kind::Data;
        let length = if is_data { header.length } else { 0 };
        // Of a stream that was reset here a moment ago, or refused, a frame may still come.
        let unknown = self.settings.window.max(FIRST_WINDOW);
        if length > self.streams.get(&stream).map_or(unknown, |known| known.receivable) {
            return Err(Fault::OverWindow(header.stream));
        }
        if header.flags.has(Flags::RST) {
            self.take_reset(stream);
        }
        if !self.streams.contains_key(&stream) {
            self.expect(None, length, false);
            return Ok(());
        }
        let Some(known) = self.streams.get_mut(&stream) else {
            return Ok(());
        };
        if header.flags.has(Flags::ACK) && known.phase.acknowledge() {
            self.unaccepted -= 1;
        }
        let ends = header.flags.has(Flags::FIN);
        if !is_data {
            if known.grant(header.length).ok_or(Fault::Credit(header.stream))? {
                self.events.push_back(Event::Writable(stream));
            }
            if ends {
                self.take_end(stream);
            }
            return Ok(());
        }
        if header.length > 0 && known.phase.ends().has_peers() {
            return Err(Fault::BehindEnd(header.stream));
        }
        known.receivable -= header.length;
        if header.length > 0 {
            self.events.push_back(Event::Readable(stream));
        }
        self.expect(Some(stream), header.length, ends);
        Ok(())
    }

    /// Takes in that the peer opens a stream, which it may give up with the same frame.
    fn take_opening(&mut self, stream: StreamId, is_given_up: bool) -> Result<(), Fault> {
        let is_odd = stream.0 % 2 == 1;
        if stream.0 == 0 || is_odd == (self.role == Role::Client) {
            return Err(Fault::Number(stream.0));
        }
        let seen = self.used.note(stream);
        if seen == Seen::Before || self.streams.contains_key(&stream) {
            return Err(Fault::Again(stream.0));
        }
        if self.due.resets_of_peers.len() >= self.settings.streams.saturating_add(MOST_RESETS) {
            return Err(Fault::Flood);
        }
        self.counters.taken += 1;
        if is_given_up {
            self.counters.resets += 1;
            return Ok(());
        }
        if seen == Seen::TooOld || self.we_went_away || self.of_peer >= self.settings.streams {
            self.counters.refused += 1;
            self.due.resets_of_peers.insert(stream);
            return Ok(());
        }
        self.of_peer += 1;
        self.add(stream, Stream::new(Phase::Offered(Ends::Neither)));
        self.events.push_back(Event::Opened(stream));
        Ok(())
    }

    /// Takes in that the peer gives a stream up, of which it needs no reset then.
    fn take_reset(&mut self, stream: StreamId) {
        self.due.drop_reset(stream);
        if self.streams.contains_key(&stream) {
            self.forget(stream);
            self.counters.resets += 1;
            self.events.push_back(Event::Reset(stream));
        }
    }

    fn expect(&mut self, stream: Option<StreamId>, length: u32, ends: bool) {
        if length > 0 {
            self.inbound = Some((Expected { stream, left: length }, ends));
        } else if let (Some(stream), true) = (stream, ends) {
            self.take_end(stream);
        }
    }

    /// Takes in that the peer has said the end of a stream.
    fn take_end(&mut self, stream: StreamId) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.phase.end_peers();
            self.events.push_back(Event::Readable(stream));
            self.tidy(stream);
        }
    }

    /// Returns the payload that comes before the next header.
    #[must_use]
    pub fn expected(&self) -> Option<Expected> {
        let (expected, _) = self.inbound?;
        let stream = expected.stream.filter(|stream| self.streams.contains_key(stream));
        Some(Expected { stream, ..expected })
    }

    /// Takes in that bytes of the expected payload were taken from the wire: at most as many as are left.
    pub fn received(&mut self, count: u32) {
        let Some((expected, ends)) = &mut self.inbound else {
            return;
        };
        let count = count.min(expected.left);
        expected.left -= count;
        let (stream, is_last, ends) = (expected.stream, expected.left == 0, *ends);
        self.counters.received += u64::from(count);
        self.ping.hear_payload();
        if is_last {
            self.inbound = None;
        }
        let Some(stream) = stream else { return };
        if let Some(known) = self.streams.get_mut(&stream) {
            known.held += u64::from(count);
            self.held += u64::from(count);
        }
        if is_last && ends {
            self.take_end(stream);
        }
        while self.held > self.settings.total {
            self.evict();
        }
    }

    /// Resets the stream of which most is held.
    fn evict(&mut self) {
        let largest = self.streams.iter().max_by_key(|(stream, known)| (known.held, stream.0));
        let Some(stream) = largest.map(|(stream, _)| *stream) else {
            self.held = 0;
            return;
        };
        self.counters.evicted += 1;
        self.reset(stream);
        self.events.push_back(Event::Evicted(stream));
    }

    /// Takes in that bytes of a stream have left to its sink: at most as many as are held.
    pub fn consumed(&mut self, stream: StreamId, count: u64) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let count = count.min(known.held);
        known.held -= count;
        self.held -= count;
        known.returnable += u32::try_from(count).unwrap_or(u32::MAX);
        if known.returnable >= known.window / 2 && !known.phase.ends().has_peers() {
            known.due.update = true;
            self.due.add(stream, known);
        }
        self.tidy(stream);
    }

    /// Returns the next event.
    pub fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns the state of the bytes that come on a stream.
    #[must_use]
    pub fn input(&self, stream: StreamId) -> Input {
        match self.streams.get(&stream) {
            None => Input::Gone,
            Some(known) if known.phase.ends().has_peers() => Input::Ended,
            Some(_) => Input::Open,
        }
    }

    // ---- time --------------------------------------------------------------------------------------------------

    /// Returns the time at which [`timeout`](Self::timeout) must be called.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        Some(self.ping.deadline(self.settings.ping_timeout))
    }

    /// Takes in that time has passed.
    ///
    /// # Errors
    /// [`Fault::Silent`]: the peer has not answered a ping, and has sent nothing else, for as long as it may.
    pub fn timeout(&mut self, now: Instant) -> Result<(), Fault> {
        if now < self.ping.deadline(self.settings.ping_timeout) {
            return Ok(());
        }
        if self.ping.asked_at().is_none() {
            self.ping_now(now);
        } else if !self.ping.put_off(now) {
            return Err(Fault::Silent);
        }
        Ok(())
    }

    /// Asks the peer for an answer, unless one is awaited.
    pub fn ping_now(&mut self, now: Instant) {
        if let Some(number) = self.ping.ask(now) {
            self.due.question = Some(number);
        }
    }

    /// Returns the time at which the ping was sent whose answer is awaited.
    #[must_use]
    pub fn asked_at(&self) -> Option<Instant> {
        self.ping.asked_at()
    }

    /// Returns the time that the last answered ping took.
    #[must_use]
    pub fn round_trip(&self) -> Option<Duration> {
        self.ping.round_trip()
    }

    /// Returns the counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the number of streams that are known.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Returns the number of bytes that are held for all streams.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    // ---- the streams -------------------------------------------------------------------------------------------

    fn add(&mut self, stream: StreamId, new: Stream) {
        self.granted += u64::from(new.window);
        self.streams.insert(stream, new);
    }

    /// Forgets a stream that has nothing more to do or to get.
    fn tidy(&mut self, stream: StreamId) {
        let known = self.streams.get(&stream);
        if known.is_some_and(|known| known.phase.ends() == Ends::Both && known.held == 0 && !known.due.is_any()) {
            self.forget(stream);
        }
    }

    /// Forgets a stream, and frees everything that is counted for it.
    fn forget(&mut self, stream: StreamId) {
        let Some(mut known) = self.streams.remove(&stream) else {
            return;
        };
        self.due.drop_marks(&mut known);
        self.held -= known.held;
        self.granted -= u64::from(known.window);
        match known.phase {
            Phase::Asked(_) => self.unaccepted -= 1,
            Phase::Offered(_) | Phase::Up(_) => {}
        }
        if !self.is_ours(stream) {
            self.of_peer -= 1;
        }
    }

    fn is_ours(&self, stream: StreamId) -> bool {
        (stream.0 % 2 == 1) == (self.role == Role::Client)
    }
}

#[cfg(test)]
mod tests;
