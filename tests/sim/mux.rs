//! Two sides of a tunnel that are made of dice, each with its core, joined by two queues that deliver in pieces.
//!
//! A wire carries headers byte for byte, and for payloads the stream and the place of each byte in it, so a byte that is
//! lost, doubled or given to another stream is seen at once. The shadow model of a side knows of each stream what was
//! granted, begun, received, consumed and said. From that follow, after each step: the credit, the bytes that are held and
//! their sum, the streams that are known, every event, and every control frame with its length. Between two honest sides no
//! fault is ever found. At the end everything is accepted and consumed, and each sender must have the whole window again,
//! less what its peer may keep back; then everything is ended, and nothing may be left on either side.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use iotcpd::internals::mux::core::{Event, Expected, FIRST_WINDOW, Input, Role, Session, Settings, StreamId};
use iotcpd::internals::mux::frame::{Flags, HEADER, Header, Kind};

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 3000;
/// The longest jump of the clock.
const JUMP: Duration = Duration::from_secs(2);
/// The sizes of pieces, of which one is the bound on the next.
const SIZES: [u64; 6] = [1, 40, 3000, 40_000, 300_000, 3_000_000];

/// A part of what is under way.
#[derive(Debug)]
enum Segment {
    Header([u8; HEADER]),
    /// Bytes of a stream, from this place in it.
    Payload {
        stream: u32,
        from: u64,
        left: u32,
    },
}

/// The bytes under way to one side.
#[derive(Debug, Default)]
struct Wire {
    segments: VecDeque<Segment>,
    length: u64,
    /// The number of bytes that have arrived and are not read.
    arrived: u64,
}

impl Wire {
    fn put_header(&mut self, header: [u8; HEADER]) {
        self.segments.push_back(Segment::Header(header));
        self.length += HEADER as u64;
    }

    fn put_payload(&mut self, stream: u32, from: u64, left: u32) {
        self.segments.push_back(Segment::Payload { stream, from, left });
        self.length += u64::from(left);
    }

    /// Takes the next header, if all of it has arrived.
    fn take_header(&mut self) -> Option<[u8; HEADER]> {
        if self.arrived < HEADER as u64 {
            return None;
        }
        let Some(Segment::Header(header)) = self.segments.pop_front() else {
            panic!("a header is read where a payload is");
        };
        self.length -= HEADER as u64;
        self.arrived -= HEADER as u64;
        Some(header)
    }

    /// Takes bytes of a payload, and returns their stream and place.
    fn take_payload(&mut self, count: u32) -> (u32, u64) {
        let Some(Segment::Payload { stream, from, left }) = self.segments.front_mut() else {
            panic!("a payload is read where a header is");
        };
        let taken = (*stream, *from);
        *from += u64::from(count);
        *left = left
            .checked_sub(count)
            .expect("a payload that goes as far as its header says");
        if *left == 0 {
            self.segments.pop_front();
        }
        self.length -= u64::from(count);
        self.arrived -= u64::from(count);
        taken
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asked,
    Offered,
    Up,
}

/// A stream as one side knows it.
#[derive(Debug)]
struct Half {
    phase: Phase,
    has_ended: bool,
    has_peer_ended: bool,
    /// The window of the peer.
    window: u32,
    /// The credit that has come from the peer, and the bytes of the frames that were begun.
    credited: u64,
    begun: u64,
    is_short: bool,
    received: u64,
    consumed: u64,
    /// Bytes that left without a consumer.
    dropped: u64,
    /// The credit that was written.
    returned: u64,
    owes_open: bool,
    owes_accept: bool,
    owes_update: bool,
    owes_end: bool,
}

impl Half {
    fn new(phase: Phase) -> Self {
        Self {
            phase,
            has_ended: false,
            has_peer_ended: false,
            window: FIRST_WINDOW,
            credited: 0,
            begun: 0,
            is_short: false,
            received: 0,
            consumed: 0,
            dropped: 0,
            returned: 0,
            owes_open: false,
            owes_accept: false,
            owes_update: false,
            owes_end: false,
        }
    }

    fn credit(&self) -> u64 {
        u64::from(FIRST_WINDOW) + self.credited - self.begun
    }

    fn held(&self) -> u64 {
        self.received - self.consumed - self.dropped
    }

    fn returnable(&self) -> u64 {
        u64::from(self.window - FIRST_WINDOW) + self.consumed - self.returned
    }

    fn owes(&self) -> bool {
        self.owes_open || self.owes_accept || self.owes_update || self.owes_end
    }

    fn is_done(&self) -> bool {
        self.has_ended && self.has_peer_ended && self.held() == 0 && !self.owes()
    }
}

/// The number of what has happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    opened: u64,
    accepted: u64,
    refused: u64,
    full: u64,
    unaccepted: u64,
    short: u64,
    updates: u64,
    ends: u64,
    resets: u64,
    unheard: u64,
    evicted: u64,
    thrown: u64,
    small_windows: u64,
    pings: u64,
    went_away: u64,
    compared: u64,
}

struct Side {
    core: Session,
    settings: Settings,
    role: Role,
    streams: BTreeMap<u32, Half>,
    /// Every stream that was known or refused.
    past: BTreeSet<u32>,
    next: u32,
    resets: BTreeSet<u32>,
    answers: VecDeque<u32>,
    has_question: bool,
    is_asked: bool,
    owes_go_away: bool,
    has_gone: bool,
    has_peer_gone: bool,
    /// The payload that is being written, and the one that is being read.
    owed: Option<(u32, u32)>,
    expected: Option<(u32, u32)>,
    seen: Seen,
}

impl Side {
    fn new(role: Role, dice: &mut Dice, now: Instant) -> Self {
        let settings = Settings {
            window: dice.pick(&[0, 300_000, 1 << 20]).expect("a window"),
            total: dice.pick(&[600_000, 2 << 20, 8 << 20]).expect("a total"),
            streams: 2 + dice.index(10),
            unaccepted: 1 + dice.index(8),
            ..Settings::default()
        };
        Self {
            core: Session::new(role, settings, now),
            settings,
            role,
            streams: BTreeMap::new(),
            past: BTreeSet::new(),
            next: if role == Role::Client { 1 } else { 2 },
            resets: BTreeSet::new(),
            answers: VecDeque::new(),
            has_question: false,
            is_asked: false,
            owes_go_away: false,
            has_gone: false,
            has_peer_gone: false,
            owed: None,
            expected: None,
            seen: Seen::default(),
        }
    }

    fn is_ours(&self, stream: u32) -> bool {
        (stream % 2 == 1) == (self.role == Role::Client)
    }

    fn held(&self) -> u64 {
        self.streams.values().map(Half::held).sum()
    }

    fn of_peer(&self) -> usize {
        self.streams.keys().filter(|stream| !self.is_ours(**stream)).count()
    }

    fn unaccepted(&self) -> usize {
        self.streams.values().filter(|half| half.phase == Phase::Asked).count()
    }

    fn has_control(&self) -> bool {
        let of_session = self.has_question || self.owes_go_away || !self.answers.is_empty() || !self.resets.is_empty();
        of_session || self.streams.values().any(Half::owes)
    }

    /// Compares the events of the core with the ones that must have happened.
    fn expect_events(&mut self, expected: &[Event]) {
        let events: Vec<Event> = std::iter::from_fn(|| self.core.next_event()).collect();
        assert_eq!(events, expected);
    }

    fn tidy(&mut self, stream: u32) {
        if self.streams.get(&stream).is_some_and(Half::is_done) {
            self.streams.remove(&stream);
        }
    }

    /// Compares everything that the core shows with the model.
    fn check(&self) {
        assert_eq!(self.core.streams(), self.streams.len());
        assert_eq!(self.core.held(), self.held());
        assert!(self.core.held() <= self.settings.total, "{} are held", self.core.held());
        assert_eq!(
            self.core.owed(),
            self.owed.map(|(stream, left)| (StreamId(stream), left))
        );
        assert_eq!(self.core.has_control(), self.has_control());
        let expected = self.expected.map(|(stream, left)| Expected {
            stream: self.streams.contains_key(&stream).then_some(StreamId(stream)),
            left,
        });
        assert_eq!(self.core.expected(), expected);
        for (stream, half) in &self.streams {
            let input = if half.has_peer_ended { Input::Ended } else { Input::Open };
            assert_eq!(self.core.input(StreamId(*stream)), input, "stream {stream}");
            let credit = if half.has_ended { 0 } else { half.credit() };
            assert_eq!(
                u64::from(self.core.credit(StreamId(*stream))),
                credit,
                "stream {stream}"
            );
        }
    }

    // ---- the streams -------------------------------------------------------------------------------------------

    fn streams_that(&self, of: impl Fn(&Half) -> bool) -> Vec<u32> {
        let chosen = self.streams.iter().filter(|(_, half)| of(half));
        chosen.map(|(stream, _)| *stream).collect()
    }

    fn open(&mut self) {
        if self.has_gone {
            return;
        }
        let is_full = self.unaccepted() >= self.settings.unaccepted;
        let stream = self.core.open();
        if is_full || self.has_peer_gone {
            self.seen.unaccepted += u64::from(is_full);
            assert_eq!(stream, None);
            return;
        }
        assert_eq!(stream, Some(StreamId(self.next)));
        let mut half = Half::new(Phase::Asked);
        half.owes_open = true;
        self.past.insert(self.next);
        self.streams.insert(self.next, half);
        self.offer_window(self.next);
        self.next += 2;
        self.seen.opened += 1;
    }

    fn accept(&mut self, stream: u32) {
        self.core.accept(StreamId(stream));
        let half = self.streams.get_mut(&stream).expect("one that is offered");
        half.phase = Phase::Up;
        half.owes_accept = true;
        self.offer_window(stream);
        self.seen.accepted += 1;
    }

    /// The larger window is granted if the sum of all allows it.
    fn offer_window(&mut self, stream: u32) {
        let granted: u64 = self.streams.values().map(|half| u64::from(half.window)).sum();
        let half = self.streams.get_mut(&stream).expect("a new stream");
        let more = self.settings.window.saturating_sub(FIRST_WINDOW);
        if granted + u64::from(more) <= self.settings.total {
            half.window += more;
        } else {
            self.seen.small_windows += 1;
        }
    }

    fn consume(&mut self, stream: u32, count: u64) {
        self.core.consumed(StreamId(stream), count);
        let half = self.streams.get_mut(&stream).expect("a stream that holds something");
        half.consumed += count;
        half.owes_update |= half.returnable() >= u64::from(half.window / 2) && !half.has_peer_ended;
        self.tidy(stream);
    }

    fn end(&mut self, stream: u32) {
        self.core.end(StreamId(stream));
        let half = self.streams.get_mut(&stream).expect("a stream that is up");
        half.has_ended = true;
        half.owes_end = true;
        self.seen.ends += 1;
    }

    fn reset(&mut self, stream: u32) {
        self.core.reset(StreamId(stream));
        self.note_reset(stream);
    }

    /// The stream is given up on this side.
    fn note_reset(&mut self, stream: u32) {
        let half = self.streams.get_mut(&stream).expect("a stream that is known");
        if half.has_ended && half.has_peer_ended {
            half.dropped += half.held();
            return self.tidy(stream);
        }
        if half.owes_open {
            self.seen.unheard += 1;
        } else {
            self.resets.insert(stream);
        }
        self.streams.remove(&stream);
    }

    // ---- writing -----------------------------------------------------------------------------------------------

    /// Writes a control frame, if one is due.
    fn write_control(&mut self, wire: &mut Wire) -> bool {
        let Some(bytes) = self.core.next_control() else {
            assert!(self.owed.is_some() || !self.has_control(), "something is due");
            return false;
        };
        assert_eq!(self.owed, None, "a frame in the middle of a payload");
        wire.put_header(bytes);
        let header = Header::parse(bytes).expect("a header");
        match header.kind {
            Kind::Data => panic!("{header:?} is no control frame"),
            Kind::GoAway => assert!(std::mem::take(&mut self.owes_go_away) && header.length == 0),
            Kind::Ping if header.flags == Flags::ACK => assert_eq!(self.answers.pop_front(), Some(header.length)),
            Kind::Ping => assert!(std::mem::take(&mut self.has_question) && header.flags == Flags::SYN),
            Kind::WindowUpdate if header.flags == Flags::RST => assert!(self.resets.remove(&header.stream)),
            Kind::WindowUpdate => self.write_update(header),
        }
        true
    }

    fn write_update(&mut self, header: Header) {
        let half = self.streams.get_mut(&header.stream).expect("a stream that is known");
        let (mark, is_end) = match header.flags {
            Flags::SYN => (&mut half.owes_open, false),
            Flags::ACK => (&mut half.owes_accept, false),
            Flags::FIN => (&mut half.owes_end, true),
            Flags(0) => (&mut half.owes_update, false),
            Flags(_) => panic!("{header:?}"),
        };
        assert!(std::mem::take(mark), "{header:?} is not due");
        if is_end {
            assert!(!half.owes_open && !half.owes_accept, "an end comes behind");
            assert_eq!(header.length, 0);
        } else {
            assert_eq!(u64::from(header.length), half.returnable(), "{header:?}");
            if header.flags == Flags(0) {
                assert!(header.length >= half.window / 2, "a small update");
                self.seen.updates += 1;
            }
            half.returned += u64::from(header.length);
            half.owes_update = false;
        }
        self.tidy(header.stream);
    }

    /// Goes on with the payload under way.
    fn write_payload(&mut self, wire: &mut Wire, count: u32) {
        let (stream, left) = self.owed.expect("a payload");
        let count = count.min(left);
        self.core.sent(count);
        self.owed = (left > count).then_some((stream, left - count));
        // It is on the wire as a whole, and arrives as it is paid.
        wire.length += u64::from(count);
    }

    fn begin_data(&mut self, wire: &mut Wire, stream: u32, length: u32) {
        let bytes = self.core.begin_data(StreamId(stream), length);
        let expected = Header {
            kind: Kind::Data,
            flags: Flags(0),
            stream,
            length,
        };
        assert_eq!(Header::parse(bytes), Ok(expected));
        wire.put_header(bytes);
        let half = self.streams.get_mut(&stream).expect("a stream with credit");
        wire.put_payload(stream, half.begun, length);
        wire.length -= u64::from(length);
        half.begun += u64::from(length);
        half.is_short = half.credit() == 0;
        self.owed = Some((stream, length));
    }

    // ---- reading -----------------------------------------------------------------------------------------------

    /// Reads a header, or a part of a payload, if it has arrived.
    fn read(&mut self, wire: &mut Wire, most: u64, now: Instant) -> bool {
        let Some((stream, left)) = self.expected else {
            let Some(bytes) = wire.take_header() else { return false };
            let header = Header::parse(bytes).expect("a header");
            let outcome = self.core.header(bytes, now);
            assert_eq!(outcome, Ok(()), "{header:?} of an honest peer");
            let events = self.take_header(header);
            self.expect_events(&events);
            return true;
        };
        let count = most.min(u64::from(left)).min(wire.arrived) as u32;
        if count == 0 {
            return false;
        }
        let (of, from) = wire.take_payload(count);
        assert_eq!(of, stream, "the payload of another stream");
        self.expected = (left > count).then_some((stream, left - count));
        if let Some(half) = self.streams.get_mut(&stream) {
            assert_eq!(from, half.received, "in order, and none twice");
            half.received += u64::from(count);
        } else {
            self.seen.thrown += 1;
        }
        self.core.received(count);
        self.take_evictions();
        true
    }

    fn take_evictions(&mut self) {
        while self.held() > self.settings.total {
            let Some(Event::Evicted(StreamId(stream))) = self.core.next_event() else {
                panic!("too much is held, and no stream is reset");
            };
            let largest = self.streams.values().map(Half::held).max();
            assert_eq!(self.streams.get(&stream).map(Half::held), largest, "the largest");
            self.note_reset(stream);
            self.seen.evicted += 1;
        }
        self.expect_events(&[]);
    }

    fn take_header(&mut self, header: Header) -> Vec<Event> {
        match header.kind {
            Kind::Ping if header.flags == Flags::SYN => self.answers.push_back(header.length),
            Kind::Ping => {
                assert!(std::mem::take(&mut self.is_asked), "an answer to a question");
                self.seen.pings += 1;
            }
            Kind::GoAway => {
                self.has_peer_gone = true;
                self.seen.went_away += 1;
                return vec![Event::WentAway(0)];
            }
            Kind::Data | Kind::WindowUpdate => return self.take_frame(header),
        }
        Vec::new()
    }

    fn take_frame(&mut self, header: Header) -> Vec<Event> {
        let (stream, id) = (header.stream, StreamId(header.stream));
        let mut events = Vec::new();
        if header.flags.has(Flags::SYN) {
            assert!(self.past.insert(stream), "a number is used once");
            if self.has_gone || self.of_peer() >= self.settings.streams {
                self.seen.full += 1;
                self.resets.insert(stream);
                return events;
            }
            self.streams.insert(stream, Half::new(Phase::Offered));
            events.push(Event::Opened(id));
        }
        assert!(self.past.contains(&stream), "a stream that nobody has opened");
        if header.flags.has(Flags::RST) {
            self.resets.remove(&stream);
            if self.streams.remove(&stream).is_some() {
                self.seen.resets += 1;
                events.push(Event::Reset(id));
            }
            return events;
        }
        if header.kind == Kind::Data {
            self.expected = Some((stream, header.length));
        }
        let Some(half) = self.streams.get_mut(&stream) else {
            return events;
        };
        if header.flags.has(Flags::ACK) {
            assert_eq!(half.phase, Phase::Asked);
            half.phase = Phase::Up;
        }
        if header.kind == Kind::Data {
            events.push(Event::Readable(id));
            return events;
        }
        half.credited += u64::from(header.length);
        if header.length > 0 && std::mem::take(&mut half.is_short) {
            self.seen.short += 1;
            events.push(Event::Writable(id));
        }
        if header.flags.has(Flags::FIN) {
            half.has_peer_ended = true;
            events.push(Event::Readable(id));
            self.tidy(stream);
        }
        events
    }
}

struct World {
    dice: Dice,
    now: Instant,
    start: Instant,
    sides: [Side; 2],
    /// The bytes to each side.
    wires: [Wire; 2],
    /// The chance that a step consumes: some sides are slow.
    hunger: u64,
    trace: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut dice, now) = (Dice::new(seed), Instant::now());
        let sides = [Role::Client, Role::Server].map(|role| Side::new(role, &mut dice, now));
        Self {
            hunger: dice.pick(&[2, 10, 30]).expect("a chance"),
            dice,
            now,
            start: now,
            sides,
            wires: Default::default(),
            trace: Vec::new(),
        }
    }

    fn size(&mut self) -> u64 {
        let bound = self.dice.pick(&SIZES).expect("a size");
        1 + self.dice.below(bound)
    }

    fn step(&mut self) {
        let place = self.dice.index(2);
        match self.dice.below(100) {
            0..6 => self.sides[place].open(),
            6..12 => self.take_offered(place),
            12..40 => self.write(place),
            40..52 => {
                let more = self.size();
                let wire = &mut self.wires[place];
                wire.arrived = wire.length.min(wire.arrived + more);
            }
            52..82 => {
                let most = self.size();
                self.sides[place].read(&mut self.wires[place], most, self.now);
            }
            82..94 => self.use_one(place),
            94..97 => self.pass(),
            97..99 => self.ask(place),
            _ => self.leave(place),
        }
        for side in &self.sides {
            side.check();
        }
        let [client, server] = &self.sides;
        self.trace
            .push(format!("{:?} {:?}", client.core.counters(), server.core.counters()));
    }

    fn take_offered(&mut self, place: usize) {
        let side = &mut self.sides[place];
        let offered = side.streams_that(|half| half.phase == Phase::Offered);
        let Some(stream) = self.dice.pick(&offered) else { return };
        if self.dice.percent(85) {
            side.accept(stream);
        } else {
            side.seen.refused += 1;
            side.reset(stream);
        }
    }

    fn write(&mut self, place: usize) {
        let count = self.size() as u32;
        let (side, wire) = (&mut self.sides[place], &mut self.wires[1 - place]);
        if side.owed.is_some() {
            assert!(!side.write_control(wire), "nothing comes before what is owed");
            side.write_payload(wire, count);
        } else if !side.write_control(wire) {
            let ready = side.streams_that(|half| half.phase != Phase::Offered && !half.has_ended && half.credit() > 0);
            if let Some(stream) = self.dice.pick(&ready) {
                let credit = side.core.credit(StreamId(stream));
                side.begin_data(wire, stream, count.min(credit));
            }
        }
    }

    /// The owner of a stream goes on.
    fn use_one(&mut self, place: usize) {
        let (count, side) = (self.size(), &mut self.sides[place]);
        let owned = side.streams_that(|half| half.phase != Phase::Offered);
        let Some(stream) = self.dice.pick(&owned) else { return };
        let half = &side.streams[&stream];
        let (held, has_ended) = (half.held(), half.has_ended);
        match self.dice.below(100) {
            0..4 => side.reset(stream),
            4..12 if !has_ended => side.end(stream),
            _ if held > 0 && self.dice.percent(3 * self.hunger) => side.consume(stream, count.min(held)),
            _ => {}
        }
    }

    fn ask(&mut self, place: usize) {
        let side = &mut self.sides[place];
        side.core.ping_now(self.now);
        side.has_question |= !std::mem::replace(&mut side.is_asked, true);
    }

    fn leave(&mut self, place: usize) {
        if self.dice.percent(5) {
            let side = &mut self.sides[place];
            side.core.go_away();
            side.owes_go_away |= !std::mem::replace(&mut side.has_gone, true);
        }
    }

    /// Time passes, but no side is silent for longer than it may be.
    fn pass(&mut self) {
        let late = |side: &Side, now| side.is_asked && side.core.deadline().is_some_and(|at| at <= now);
        let now = self.now + Duration::from_millis(self.dice.below(JUMP.as_millis() as u64));
        if self.sides.iter().any(|side| late(side, now + JUMP)) {
            self.settle();
        }
        self.now = now;
        for side in &mut self.sides {
            let is_due = !side.is_asked && side.core.deadline().is_some_and(|at| at <= now);
            assert_eq!(side.core.timeout(now), Ok(()));
            side.has_question |= is_due;
            side.is_asked |= is_due;
        }
    }

    /// Everything that is due is written, arrives and is read.
    fn settle(&mut self) {
        loop {
            let mut has_moved = false;
            for place in 0..2 {
                let (side, wire) = (&mut self.sides[place], &mut self.wires[1 - place]);
                if side.owed.is_some() {
                    side.write_payload(wire, u32::MAX);
                }
                while side.write_control(wire) {}
                wire.arrived = wire.length;
                while self.sides[1 - place].read(&mut self.wires[1 - place], u64::MAX, self.now) {
                    has_moved = true;
                }
                self.sides.iter().for_each(Side::check);
            }
            if !has_moved && self.sides.iter().all(|side| !side.has_control()) {
                return;
            }
        }
    }

    /// Everything is accepted and consumed: each sender has its window.
    fn rest(&mut self) {
        self.settle();
        for side in &mut self.sides {
            for stream in side.streams_that(|half| half.phase == Phase::Offered) {
                side.accept(stream);
            }
            for stream in side.streams_that(|half| half.held() > 0) {
                side.consume(stream, side.streams[&stream].held());
            }
        }
        self.settle();
        let [client, server] = &mut self.sides;
        assert!(
            client.streams.keys().eq(server.streams.keys()),
            "both know the same streams"
        );
        for (stream, half) in &client.streams {
            let other = &server.streams[stream];
            for (sender, receiver) in [(half, other), (other, half)] {
                assert_eq!(sender.begun, receiver.received, "nothing is under way");
                let kept_back = u64::from(receiver.window) - sender.credit();
                // An end that has come makes updates vain.
                assert!(sender.has_ended || kept_back < u64::from(receiver.window.div_ceil(2)));
                assert_eq!(kept_back, receiver.returnable(), "stream {stream}");
                client.seen.compared += 1;
            }
        }
    }

    fn end_all(&mut self) {
        for side in &mut self.sides {
            for stream in side.streams_that(|half| !half.has_ended) {
                side.end(stream);
            }
        }
        self.settle();
        for side in &self.sides {
            assert_eq!((side.core.streams(), side.core.held()), (0, 0));
            assert!(!side.core.has_control() && side.core.asked_at().is_none());
            assert_eq!(side.core.round_trip().is_some(), side.seen.pings > 0);
            let counters = side.core.counters();
            assert_eq!(counters.evicted, side.seen.evicted);
            assert_eq!((counters.opened, counters.refused), (side.seen.opened, side.seen.full));
            assert_eq!(counters.resets, side.seen.resets);
        }
        assert!(self.now >= self.start);
    }
}

fn simulate(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    world.rest();
    world.end_all();
    world
}

#[test]
fn every_byte_of_a_stream_arrives_and_every_byte_of_credit_returns() {
    let seen: Vec<Seen> = seeds::each(|seed| simulate(seed).sides.map(|side| side.seen)).concat();
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let sums = [
        sum(|seen| seen.opened),
        sum(|seen| seen.accepted),
        sum(|seen| seen.refused),
        sum(|seen| seen.full),
        sum(|seen| seen.unaccepted),
        sum(|seen| seen.short),
        sum(|seen| seen.updates),
        sum(|seen| seen.ends),
        sum(|seen| seen.resets),
        sum(|seen| seen.unheard),
        sum(|seen| seen.evicted),
        sum(|seen| seen.thrown),
        sum(|seen| seen.small_windows),
        sum(|seen| seen.pings),
        sum(|seen| seen.went_away),
        sum(|seen| seen.compared),
    ];
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}: that shows nothing");
}

#[test]
fn the_same_seed_goes_the_same_way() {
    assert_eq!(simulate(7).trace, simulate(7).trace);
    assert_ne!(simulate(7).trace, simulate(8).trace);
}
