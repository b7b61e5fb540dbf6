//! The frames of a tunnel's peer.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Choices;
use iotcpd::internals::mux::core::{Event, FIRST_WINDOW, Fault, Input, Role, Session, Settings, StreamId};
use iotcpd::internals::mux::frame::{Flags, HEADER, Header, Kind};

/// A stream as its peer may use it.
#[derive(Debug, Default)]
struct Known {
    sent: u64,
    received: u64,
    consumed: u64,
    /// The credit that was written, besides the first window.
    credit: u64,
}

/// A core, and what is known of it from outside.
struct Watched {
    core: Session,
    settings: Settings,
    role: Role,
    known: BTreeMap<u32, Known>,
    offered: Vec<u32>,
    fault: Option<Fault>,
    now: Instant,
}

/// `mux::core::Session`: the first byte makes the settings, and each further one is a step, with bytes of its own: a header,
/// whole or made of few bytes, a part of its payload, something that an owner does, or frames that are written. Whatever
/// comes, no stream is sent more than its window, no more is held than the total, and by the sum over the streams; no
/// number is offered twice; and behind a fault nothing is taken in.
pub fn fuzz_mux_frames(input: &[u8]) {
    let mut choices = Choices::new(input);
    let made = choices.byte();
    let settings = Settings {
        window: if made & 1 == 0 { FIRST_WINDOW } else { 1 << 20 },
        total: if made & 2 == 0 { 300_000 } else { 2 << 20 },
        streams: 1 + usize::from(made >> 4),
        unaccepted: 2,
        ..Settings::default()
    };
    let role = if made & 4 == 0 { Role::Server } else { Role::Client };
    let now = Instant::now();
    let mut watched = Watched {
        core: Session::new(role, settings, now),
        settings,
        role,
        known: BTreeMap::new(),
        offered: Vec::new(),
        fault: None,
        now,
    };
    while !choices.is_empty() {
        watched.step(&mut choices);
        watched.check();
    }
    watched.finish();
}

impl Watched {
    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(8) {
            0 => {
                let mut header = [0; HEADER];
                let bytes = choices.take(HEADER);
                header.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
                self.header(header);
            }
            1 | 2 => {
                let header = self.made_header(choices);
                self.header(header);
            }
            3 => self.receive((u32::from(choices.byte()) << 10) | 1),
            4 => {
                let _ = self.write(choices.below(64));
            }
            5 if self.fault.is_none() => self.own(choices),
            6 if self.fault.is_none() => self.send(choices),
            7 if self.fault.is_none() => {
                self.now += Duration::from_secs(choices.byte().into());
                let _ = self.core.timeout(self.now);
            }
            _ => {}
        }
    }

    fn made_header(&self, choices: &mut Choices<'_>) -> [u8; HEADER] {
        let kinds = [Kind::Data, Kind::WindowUpdate, Kind::Ping, Kind::GoAway];
        let kind = choices.pick(&kinds).unwrap_or(Kind::Data);
        let flags = Flags(choices.byte().into());
        let stream = u32::from(choices.byte());
        let room = self.known.get(&stream).map_or(FIRST_WINDOW, Known::room);
        let length = match choices.below(8) {
            0 => 0,
            1 => room,
            2 => room.saturating_add(1),
            3 => u32::MAX,
            4 => room / 2,
            _ => u32::from(choices.byte()),
        };
        let header = Header {
            kind,
            flags,
            stream,
            length,
        };
        header.bytes()
    }

    /// The next header comes, behind the payload that was announced.
    fn header(&mut self, bytes: [u8; HEADER]) {
        self.receive(u32::MAX);
        let before = *self.core.counters();
        let outcome = self.core.header(bytes, self.now);
        if let Some(fault) = self.fault {
            assert_eq!(outcome, Err(fault), "it is over");
            assert_eq!((self.core.next_event(), *self.core.counters()), (None, before));
            assert_eq!(self.core.expected(), None);
            return;
        }
        self.take_events();
        if let Err(fault) = outcome {
            assert!(self.core.has_control(), "a go-away is due");
            self.fault = Some(fault);
            return;
        }
        let Ok(header) = Header::parse(bytes) else {
            panic!("{bytes:?} was taken for a header");
        };
        if header.kind == Kind::Data
            && let Some(known) = self.known.get_mut(&header.stream)
        {
            known.sent += u64::from(header.length);
            let most = u64::from(FIRST_WINDOW) + known.credit;
            assert!(known.sent <= most, "{header:?} is within the window");
        }
        let left = self.core.expected().map_or(0, |expected| expected.left);
        let announced = if header.kind == Kind::Data { header.length } else { 0 };
        assert_eq!(left, announced, "{header:?}");
    }

    fn receive(&mut self, most: u32) {
        let Some(expected) = self.core.expected() else { return };
        let count = most.min(expected.left);
        let known = expected.stream.and_then(|StreamId(stream)| self.known.get_mut(&stream));
        assert_eq!(known.is_some(), expected.stream.is_some(), "a stream that is known");
        if let Some(known) = known {
            known.received += u64::from(count);
        }
        self.core.received(count);
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.core.next_event() {
            match event {
                Event::Opened(StreamId(stream)) => {
                    assert!(!self.offered.contains(&stream), "{stream} is offered once");
                    self.offered.push(stream);
                    self.known.insert(stream, Known::default());
                }
                Event::Reset(StreamId(stream)) => assert!(self.known.remove(&stream).is_some()),
                Event::Evicted(StreamId(stream)) => {
                    let largest = self.known.values().map(Known::held).max();
                    let evicted = self.known.get_mut(&stream);
                    assert_eq!(evicted.as_deref().map(Known::held), largest, "the largest");
                    if let Some(evicted) = evicted {
                        evicted.consumed = evicted.received;
                    }
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

    fn own(&mut self, choices: &mut Choices<'_>) {
        let (what, stream) = (choices.below(6), u32::from(choices.byte()));
        let (id, known) = (StreamId(stream), self.known.get_mut(&stream));
        match (what, known) {
            (0, _) => self.core.accept(id),
            (1, Some(known)) => {
                let count = u64::from(choices.byte()) << 10;
                self.core.consumed(id, count);
                known.consumed = known.received.min(known.consumed + count);
            }
            (2, _) => self.core.end(id),
            (3, known) => {
                self.core.reset(id);
                if let Some(known) = known {
                    known.consumed = known.received;
                }
            }
            (4, _) => self.core.go_away(),
            _ => {
                if let Some(StreamId(stream)) = self.core.open() {
                    self.known.insert(stream, Known::default());
                }
            }
        }
        self.forget();
    }

    fn send(&mut self, choices: &mut Choices<'_>) {
        let stream = StreamId(choices.byte().into());
        if let Some((_, left)) = self.core.owed() {
            assert_eq!(self.core.next_control(), None, "a payload is owed");
            return self.core.sent(left / 2 + 1);
        }
        let credit = self.core.credit(stream);
        if credit > 0 && !self.core.has_control() {
            let _ = self.core.begin_data(stream, credit / 2 + 1);
        }
    }

    /// Writes up to this number of control frames, and returns the last.
    fn write(&mut self, most: usize) -> Option<Header> {
        let mut last = None;
        for _ in 0..most {
            let Some(bytes) = self.core.next_control() else { break };
            let Ok(header) = Header::parse(bytes) else {
                panic!("{bytes:?} is no header");
            };
            if header.kind == Kind::WindowUpdate
                && let Some(known) = self.known.get_mut(&header.stream)
            {
                assert!(!header.flags.has(Flags::RST), "{header:?} for a stream that is known");
                known.credit += u64::from(header.length);
            }
            last = Some(header);
        }
        self.forget();
        last
    }

    fn check(&self) {
        let held: u64 = self.known.values().map(Known::held).sum();
        assert_eq!(self.core.held(), held);
        assert!(held <= self.settings.total, "{held} bytes are held");
        assert_eq!(self.core.streams(), self.known.len());
        let is_peers = |stream: &&u32| (**stream % 2 == 1) != (self.role == Role::Client);
        assert!(self.known.keys().filter(is_peers).count() <= self.settings.streams);
    }

    /// Everything is written, and ends with the reason.
    fn finish(&mut self) {
        self.core.sent(u32::MAX);
        let last = self.write(usize::MAX);
        assert!(!self.core.has_control());
        if let (Some(last), Some(_)) = (last, self.fault) {
            assert!(last.kind != Kind::GoAway || last.length == 1, "{last:?}");
        }
    }
}

impl Known {
    fn held(&self) -> u64 {
        self.received - self.consumed
    }

    /// The number of bytes that the stream may be sent.
    fn room(&self) -> u32 {
        u32::try_from(u64::from(FIRST_WINDOW) + self.credit - self.sent).unwrap_or(u32::MAX)
    }
}
