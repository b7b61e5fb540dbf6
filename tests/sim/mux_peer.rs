//! A core against a peer that sends whatever dice say, and reads when it likes.
//!
//! The headers are wrong in every way that there is: versions, kinds, sums of flags, numbers of both sides, used ones and
//! 0, lengths at each limit. The model keeps what each stream may have been sent, from the frames that were written; what
//! is held, from what was taken and consumed; and how many streams the peer can have. Whatever comes, no stream is given
//! more than its window, no more is held than the total, no number is offered twice, and the list of what is to be written
//! is bounded. After a fault nothing is taken in, and the last frame says why.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use iotcpd::internals::mux::core::{Event, FIRST_WINDOW, Fault, Input, Role, Session, Settings, StreamId};
use iotcpd::internals::mux::frame::{Flags, HEADER, Header, Kind};

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 4000;
/// The number of answers that may wait, and of resets beyond the streams of the peer, as the core has them.
const MOST_ANSWERS: usize = 128;
const MOST_RESETS: usize = 4096;
/// The code of a go-away after a fault.
const PROTOCOL_ERROR: u32 = 1;

/// A stream as the peer may use it.
#[derive(Debug, Default)]
struct Known {
    /// The number of bytes that were announced, that have come, and that were consumed.
    sent: u64,
    received: u64,
    consumed: u64,
    /// The credit that was written, besides the first window.
    credit: u64,
    has_owner: bool,
}

/// The number of what has happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    offered: u64,
    faults: [u64; 7],
    resets: u64,
    evicted: u64,
    thrown: u64,
    refused: u64,
    survived: u64,
}

struct World {
    dice: Dice,
    now: Instant,
    core: Session,
    settings: Settings,
    role: Role,
    known: BTreeMap<u32, Known>,
    /// Every number that was ever offered.
    offered: Vec<u32>,
    ours: usize,
    /// The chances of a wrong header, and of a step in which this side writes: some peers read nothing.
    wrongness: u64,
    reads: u64,
    next: u32,
    fault: Option<Fault>,
    /// The last frame that was written.
    last: Option<Header>,
    seen: Seen,
}

impl World {
    fn new(seed: u64) -> Self {
        let (mut dice, now) = (Dice::new(seed), Instant::now());
        let role = if dice.percent(50) { Role::Client } else { Role::Server };
        let settings = Settings {
            window: dice.pick(&[0, 300_000, 1 << 20]).expect("a window"),
            total: dice.pick(&[300_000, 900_000, 4 << 20]).expect("a total"),
            streams: 1 + dice.index(12),
            unaccepted: 1 + dice.index(4),
            ..Settings::default()
        };
        Self {
            core: Session::new(role, settings, now),
            wrongness: dice.pick(&[0, 1, 20]).expect("a chance"),
            reads: dice.pick(&[0, 5, 60]).expect("a chance"),
            dice,
            now,
            settings,
            role,
            known: BTreeMap::new(),
            offered: Vec::new(),
            ours: 0,
            next: 0,
            fault: None,
            last: None,
            seen: Seen::default(),
        }
    }

    /// A number of a stream: mostly one that is known, or the next one.
    fn number(&mut self, is_opening: bool) -> u32 {
        let own = u32::from(self.role == Role::Client);
        let known: Vec<u32> = self.known.keys().copied().collect();
        let opening = if self.wrongness > 0 { 0..80 } else { 0..100 };
        match self.dice.below(100) {
            chance if is_opening && opening.contains(&chance) => {
                self.next += 2;
                self.next + 1 - own
            }
            0..90 => self.dice.pick(&known).unwrap_or(1),
            90..97 => self.dice.below(u64::from(self.next) + 4) as u32,
            97 => self.dice.roll() as u32,
            98 => u32::MAX - self.dice.below(2) as u32,
            _ => 0,
        }
    }

    fn length(&mut self, is_data: bool, stream: u32) -> u32 {
        let known = self.known.get(&stream);
        let room = known.map_or(FIRST_WINDOW, |known| {
            (u64::from(FIRST_WINDOW) + known.credit - known.sent) as u32
        });
        let room = if is_data { room } else { FIRST_WINDOW };
        if is_data && self.wrongness == 0 && self.core.input(StreamId(stream)) == Input::Ended {
            return 0;
        }
        match self.dice.below(if self.wrongness > 0 { 100 } else { 97 }) {
            0..30 => self.dice.below(u64::from(room.min(4000)) + 1) as u32,
            30..80 => self.dice.below(u64::from(room) + 1) as u32,
            80..90 => room,
            90..97 => 0,
            97 => room.wrapping_add(1),
            98 => u32::MAX - self.dice.below(2) as u32,
            _ => self.dice.roll() as u32,
        }
    }

    fn header(&mut self) -> [u8; HEADER] {
        let is_wrong = self.dice.percent(self.wrongness);
        let kind = match self.dice.below(40) {
            0 => Kind::Ping,
            1 => [Kind::GoAway, Kind::Data][usize::from(self.dice.percent(90))],
            2..20 => Kind::WindowUpdate,
            _ => Kind::Data,
        };
        let flags = match (is_wrong, self.dice.below(10)) {
            (true, 0..9) => Flags(self.dice.below(16) as u16),
            (true, _) => Flags(self.dice.roll() as u16),
            (false, 0..2) => Flags::SYN,
            (false, 2) => Flags::ACK,
            (false, 3) => [Flags::FIN, Flags::RST][self.dice.index(2)],
            (false, _) => Flags(0),
        };
        let stream = match kind {
            Kind::Ping | Kind::GoAway => 0,
            Kind::Data | Kind::WindowUpdate => self.number(flags.has(Flags::SYN)),
        };
        let length = self.length(kind == Kind::Data, stream);
        let header = Header {
            kind,
            flags,
            stream,
            length,
        };
        let mut bytes = header.bytes();
        if is_wrong && self.dice.percent(3) {
            bytes[self.dice.index(2)] = self.dice.roll() as u8;
        }
        bytes
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            // The shell does nothing more on a session that is over but write.
            60..82 if self.fault.is_some() => self.receive(),
            0..60 => self.receive(),
            60..75 => self.own(),
            75..80 => self.send(),
            80..82 => {
                self.now += Duration::from_secs(self.dice.below(20));
                let _ = self.core.timeout(self.now);
            }
            _ if self.dice.percent(self.reads) => self.write(20),
            _ => {}
        }
        self.check();
    }

    /// The peer sends a header, or a part of the payload that it has announced.
    fn receive(&mut self) {
        let Some(expected) = self.core.expected() else {
            return self.receive_header();
        };
        let most = self.dice.pick(&[1, 5000, expected.left]).expect("a length");
        let count = most.min(expected.left);
        match expected.stream {
            Some(StreamId(stream)) => self.known.get_mut(&stream).expect("a stream").received += u64::from(count),
            None => self.seen.thrown += 1,
        }
        self.core.received(count);
        self.take_events();
    }

    fn receive_header(&mut self) {
        let bytes = self.header();
        let before = *self.core.counters();
        let outcome = self.core.header(bytes, self.now);
        if self.fault.is_some() {
            assert_eq!(outcome, self.fault.map_or(Ok(()), Err), "the same fault again");
            assert_eq!((self.core.next_event(), *self.core.counters()), (None, before));
            return;
        }
        self.take_events();
        match outcome {
            Err(fault) => self.note_fault(fault),
            Ok(()) => {
                let header = Header::parse(bytes).expect("one that was taken");
                if let (Kind::Data, Some(known)) = (header.kind, self.known.get_mut(&header.stream)) {
                    known.sent += u64::from(header.length);
                    let most = u64::from(FIRST_WINDOW) + known.credit;
                    assert!(known.sent <= most, "{header:?} is over the window");
                }
            }
        }
    }

    fn note_fault(&mut self, fault: Fault) {
        self.fault = Some(fault);
        let place = match fault {
            Fault::NoHeader(_) => 0,
            Fault::Number(_) => 1,
            Fault::Again(_) => 2,
            Fault::OverWindow(_) => 3,
            Fault::BehindEnd(_) => 4,
            Fault::Credit(_) => 5,
            Fault::Flood => 6,
            Fault::Silent => panic!("no header is silence"),
        };
        self.seen.faults[place] += 1;
        assert!(self.core.has_control(), "a go-away is due");
    }

    fn take_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            match event {
                Event::Opened(StreamId(stream)) => {
                    assert!(!self.offered.contains(&stream), "{stream} is offered twice");
                    self.offered.push(stream);
                    self.known.insert(stream, Known::default());
                    self.seen.offered += 1;
                }
                Event::Reset(StreamId(stream)) => {
                    assert!(self.known.remove(&stream).is_some());
                    self.seen.resets += 1;
                }
                Event::Evicted(StreamId(stream)) => {
                    let held = |known: &Known| known.received - known.consumed;
                    let evicted = self.known.get(&stream).map(held);
                    assert_eq!(evicted, self.known.values().map(held).max(), "the largest");
                    if let Some(known) = self.known.get_mut(&stream) {
                        known.consumed = known.received;
                    }
                    self.seen.evicted += 1;
                }
                Event::Readable(_) | Event::Writable(_) | Event::WentAway(_) => {}
            }
        }
        self.forget();
    }

    /// Streams that the core has forgotten.
    fn forget(&mut self) {
        let core = &self.core;
        self.known
            .retain(|stream, _| core.input(StreamId(*stream)) != Input::Gone);
    }

    /// An owner on this side goes on.
    fn own(&mut self) {
        let known: Vec<u32> = self.known.keys().copied().collect();
        let Some(stream) = self.dice.pick(&known) else { return };
        let id = StreamId(stream);
        let known = self.known.get_mut(&stream).expect("a stream");
        match self.dice.below(12) {
            0..4 => {
                self.core.accept(id);
                known.has_owner = true;
            }
            4..9 if known.has_owner => {
                let count = 1 + self.dice.below(400_000);
                self.core.consumed(id, count);
                known.consumed = known.received.min(known.consumed + count);
            }
            9 if known.has_owner => self.core.end(id),
            10 => {
                self.core.reset(id);
                known.consumed = known.received;
            }
            _ => {
                if let Some(StreamId(stream)) = self.core.open() {
                    self.ours += 1;
                    let has_owner = true;
                    self.known.insert(
                        stream,
                        Known {
                            has_owner,
                            ..Known::default()
                        },
                    );
                }
            }
        }
        self.forget();
    }

    fn send(&mut self) {
        if let Some((_, left)) = self.core.owed() {
            let count = self.dice.below(u64::from(left) + 1) as u32;
            return self.core.sent(count);
        }
        let known: Vec<u32> = self.known.keys().copied().collect();
        let Some(stream) = self.dice.pick(&known) else { return };
        let credit = self.core.credit(StreamId(stream));
        if credit > 0 && self.known[&stream].has_owner && !self.core.has_control() {
            let length = 1 + self.dice.below(u64::from(credit)) as u32;
            let _ = self.core.begin_data(StreamId(stream), length);
        }
    }

    /// Writes up to this number of control frames, and returns the last one.
    fn write(&mut self, most: usize) {
        for _ in 0..most {
            let Some(bytes) = self.core.next_control() else { break };
            self.note_written(Header::parse(bytes).expect("a header"));
        }
    }

    fn note_written(&mut self, header: Header) {
        self.last = Some(header);
        if header.kind == Kind::WindowUpdate
            && let Some(known) = self.known.get_mut(&header.stream)
        {
            assert!(!header.flags.has(Flags::RST), "a stream that is known is reset");
            known.credit += u64::from(header.length);
        }
        self.forget();
    }

    fn check(&mut self) {
        let held: u64 = self.known.values().map(|known| known.received - known.consumed).sum();
        assert_eq!(self.core.held(), held);
        assert!(held <= self.settings.total, "{held} bytes are held");
        assert_eq!(self.core.streams(), self.known.len());
        let of_peer = |stream: &&u32| (**stream % 2 == 1) != (self.role == Role::Client);
        assert!(self.known.keys().filter(of_peer).count() <= self.settings.streams);
    }

    /// Everything is written: that is bounded, and ends with the fault.
    fn finish(&mut self) {
        if let Some((_, left)) = self.core.owed() {
            self.core.sent(left);
        }
        let (mut answers, mut resets, mut others) = (0, 0, 0);
        while let Some(bytes) = self.core.next_control() {
            let header = Header::parse(bytes).expect("a header");
            self.note_written(header);
            match (header.kind, header.flags) {
                (Kind::Ping, Flags::ACK) => answers += 1,
                (Kind::WindowUpdate, Flags::RST) => resets += 1,
                _ => others += 1,
            }
        }
        self.seen.refused = self.core.counters().refused;
        assert!(answers <= MOST_ANSWERS, "{answers} answers");
        assert!(
            resets <= self.settings.streams + MOST_RESETS + self.ours,
            "{resets} resets"
        );
        assert!(others <= 3 * (self.settings.streams + self.ours) + 2, "{others} frames");
        self.seen.survived = u64::from(self.fault.is_none());
        if self.fault.is_some() {
            let last = self.last.expect("a go-away");
            assert_eq!((last.kind, last.length), (Kind::GoAway, PROTOCOL_ERROR));
        }
    }
}

fn simulate(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
        // Behind the fault a little more is tried.
        if world.fault.is_some() && world.dice.percent(5) {
            break;
        }
    }
    world.finish();
    world
}

#[test]
fn a_peer_of_bad_will_gets_no_more_than_its_share() {
    let seen = seeds::each(|seed| simulate(seed).seen);
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let mut sums = vec![
        sum(|seen| seen.offered),
        sum(|seen| seen.resets),
        sum(|seen| seen.evicted),
        sum(|seen| seen.thrown),
        sum(|seen| seen.refused),
        sum(|seen| seen.survived),
    ];
    // A flood takes more steps than a seed has, and is made below.
    sums.extend((0..6).map(|place| seen.iter().map(|seen| seen.faults[place]).sum::<u64>()));
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}: that shows nothing");
}

/// A peer that reads nothing, with each kind of frame that has an answer.
#[test]
fn a_flood_ends_in_a_fault_before_its_answers_take_memory() {
    let now = Instant::now();
    let update = |flags, stream| Header {
        kind: Kind::WindowUpdate,
        flags,
        stream,
        length: 0,
    };
    let question = Header {
        kind: Kind::Ping,
        flags: Flags::SYN,
        stream: 0,
        length: 0,
    };
    for is_question in [true, false] {
        let settings = Settings {
            streams: 10,
            ..Settings::default()
        };
        let mut core = Session::new(Role::Server, settings, now);
        let mut frames = (1..).step_by(2).map(|stream| match is_question {
            true => question,
            false => update(Flags::SYN, stream),
        });
        let most = if is_question {
            MOST_ANSWERS
        } else {
            2 * 10 + MOST_RESETS
        };
        let taken = frames
            .by_ref()
            .take_while(|header| core.header(header.bytes(), now).is_ok())
            .take(most + 1)
            .count();
        assert_eq!(taken, most, "questions: {is_question}");
        let frames = std::iter::from_fn(|| core.next_control()).count();
        assert!(frames <= most + 1, "{frames} frames");
    }
}
