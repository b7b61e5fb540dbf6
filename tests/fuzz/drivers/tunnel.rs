//! The session of a tunnel on a connection whose other end may send anything.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::Choices;
use iotcpd::internals::mux::core::{Role, Settings, StreamId};
use iotcpd::internals::mux::frame::{Flags, HEADER, Header, Kind};
use iotcpd::internals::mux::session::{Next, Session};
use iotcpd::internals::net::{Conn, Stream};
use iotcpd::internals::relay::{
    Budget, Conversation, Endpoint, Event, Limits, PIECE, Pipes, Readiness, Side, Standing, Tools,
};

/// The number of turns at the end in which something moves, at most: a peer may have sent megabytes.
const TURNS: usize = 5000;

/// The number of bytes after which a stream repeats itself: a prime, so that frames do not.
const PERIOD: u8 = 251;
/// The longest piece of a stream that is made or compared at once.
const LONGEST: usize = 256 << 10;

const ALL: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: false,
    hung_up: false,
};

/// The bytes from this place of a stream on, one way or the other.
fn pattern(stream: u32, place: u64, length: usize, is_ours: bool) -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    let all = BYTES.get_or_init(|| (0..PERIOD).cycle().take(LONGEST + usize::from(PERIOD)).collect());
    let sum = u64::from(stream) * 31 + place + u64::from(is_ours) * 101;
    let from = usize::try_from(sum % u64::from(PERIOD)).unwrap_or_default();
    all.get(from..from + length).unwrap_or_default()
}

/// The socket behind a stream.
#[derive(Debug)]
struct Socket(UnixStream);

impl Endpoint for Socket {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        match self.0.read(to) {
            Ok(0) => Err(Event::SourceEnded),
            Ok(count) => Ok(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(Event::SourceEmpty),
            Err(_) => Err(Event::Failed),
        }
    }

    fn is_drained(&self) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        match self.0.write(bytes) {
            Ok(count) => Event::Wrote(count),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Event::SinkFull,
            Err(_) => Event::SinkClosed,
        }
    }

    fn say_end(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A stream with an owner, and the program behind it.
struct Owned {
    stream: StreamId,
    socket: Socket,
    conversation: Conversation,
    program: UnixStream,
    sent: u64,
    got: u64,
}

/// The session, its door, and the peer.
struct World {
    session: Session,
    owned: BTreeMap<u64, Owned>,
    next: u64,
    now: Instant,
    pipes: Pipes,
    scratch: Vec<u8>,
    peer: UnixStream,
    /// The bytes that the peer is about to send, and the ones that it has got and not read.
    to_send: Vec<u8>,
    got: Vec<u8>,
    /// The number of bytes that the peer has sent and got on each stream.
    places: BTreeMap<u32, (u64, u64)>,
    /// The bytes of a payload that are still to come to the peer.
    payload: Option<(u32, u32)>,
    /// The streams that one side has opened.
    opened: BTreeSet<u32>,
    /// True if the peer has sent bytes of which it does not know whether a program gets them, or which.
    is_wild: bool,
}

fn budget() -> Arc<Budget> {
    static BUDGET: OnceLock<Arc<Budget>> = OnceLock::new();
    let budget = BUDGET.get_or_init(|| {
        // libFuzzer leaves the signal of a write to a closed socket deadly.
        let flag = Arc::new(AtomicBool::new(false));
        let _ = signal_hook::flag::register(signal_hook::consts::SIGPIPE, flag);
        Arc::new(Budget::new(Limits::of_this_system()))
    });
    Arc::clone(budget)
}

fn pair() -> Option<(UnixStream, UnixStream)> {
    let (near, far) = UnixStream::pair().ok()?;
    near.set_nonblocking(true).ok()?;
    far.set_nonblocking(true).ok()?;
    Some((near, far))
}

/// `mux::session::Session` over a real connection: the first byte makes the role, and each further one is a step of the peer
/// (frames, wild bytes, its end), of a program behind a stream, of the door, or a turn. Every byte that a program gets is
/// the one that the peer has sent at that place of that stream, and the other way round; what the session writes are whole
/// frames; and nothing is left when every stream is released.
pub fn fuzz_tunnel_session(input: &[u8]) {
    let mut choices = Choices::new(input);
    let role = if choices.byte() & 1 == 0 {
        Role::Server
    } else {
        Role::Client
    };
    let Some((near, peer)) = pair() else { return };
    let settings = Settings {
        total: 600_000,
        streams: 6,
        ..Settings::default()
    };
    let now = Instant::now();
    let conn = Conn::new(Stream::Unix(mio::net::UnixStream::from_std(near)));
    let mut world = World {
        session: Session::new(conn, role, settings, now),
        owned: BTreeMap::new(),
        next: 0,
        now,
        pipes: Pipes::new(budget()),
        scratch: vec![0; PIECE],
        peer,
        to_send: Vec::new(),
        got: Vec::new(),
        places: BTreeMap::new(),
        payload: None,
        opened: BTreeSet::new(),
        is_wild: false,
    };
    while !choices.is_empty() {
        world.step(&mut choices);
    }
    world.finish();
}

impl World {
    fn step(&mut self, choices: &mut Choices<'_>) {
        match choices.below(10) {
            0 => {
                let count = choices.below(40);
                self.to_send.extend_from_slice(choices.take(count));
                self.is_wild = true;
            }
            1..4 => self.send_frame(choices),
            4 | 5 => self.turn(),
            6 => {
                self.hear();
            }
            7 => self.use_program(choices),
            8 => self.use_door(choices),
            _ => match choices.below(8) {
                0 => {
                    let _ = self.peer.shutdown(Shutdown::Write);
                }
                1 => {
                    let _ = self.peer.shutdown(Shutdown::Both);
                }
                seconds => {
                    self.now += Duration::from_secs(5 * seconds as u64);
                    self.session.timeout(self.now);
                }
            },
        }
        self.speak();
    }

    // ---- the peer ----------------------------------------------------------------------------------------------

    fn send_frame(&mut self, choices: &mut Choices<'_>) {
        let kinds = [Kind::Data, Kind::Data, Kind::WindowUpdate, Kind::Ping, Kind::GoAway];
        let kind = choices.pick(&kinds).unwrap_or(Kind::Data);
        let flags = Flags(u16::from(choices.byte() & 15));
        let stream = u32::from(choices.byte() & 15);
        let length = match choices.below(5) {
            0 => 0,
            1 => 1000 * u32::from(choices.byte()),
            2 => 256 << 10,
            _ => u32::from(choices.byte()),
        };
        let header = Header {
            kind,
            flags,
            stream,
            length,
        };
        self.to_send.extend_from_slice(&header.bytes());
        if flags.has(Flags::SYN) {
            self.opened.insert(stream);
        }
        // It is thrown away, and the stream begins behind it.
        self.is_wild |= kind == Kind::Data && !self.opened.contains(&stream);
        if kind == Kind::Data {
            let (place, _) = self.places.entry(stream).or_default();
            let count = usize::try_from(length).unwrap_or_default();
            self.to_send.extend_from_slice(pattern(stream, *place, count, false));
            *place += u64::from(length);
        }
    }

    /// The peer writes as much as there is room for, and returns the number of bytes.
    fn speak(&mut self) -> usize {
        let before = self.to_send.len();
        while !self.to_send.is_empty()
            && let Ok(count @ 1..) = self.peer.write(&self.to_send)
        {
            self.to_send.drain(..count);
        }
        before - self.to_send.len()
    }

    /// The peer reads everything that has come, checks it, and returns the number of bytes.
    fn hear(&mut self) -> usize {
        let before = self.got.len();
        let mut bytes = vec![0; 16 << 10];
        while let Ok(count @ 1..) = self.peer.read(&mut bytes) {
            self.got.extend(bytes.iter().take(count));
        }
        let got = std::mem::take(&mut self.got);
        let count = got.len() - before;
        let mut rest = got.as_slice();
        loop {
            if let Some((stream, left)) = self.payload {
                let (now, later) = rest.split_at(rest.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
                self.check_payload(stream, now);
                rest = later;
                let left = left - u32::try_from(now.len()).unwrap_or(left);
                self.payload = (left > 0).then_some((stream, left));
                if left > 0 {
                    break;
                }
            }
            let Some((header, behind)) = rest.split_first_chunk::<HEADER>() else {
                break;
            };
            let Ok(header) = Header::parse(*header) else {
                panic!("{header:?} is no header");
            };
            rest = behind;
            if header.kind == Kind::Data {
                assert!(header.length > 0, "{header:?}");
                self.payload = Some((header.stream, header.length));
            }
        }
        self.got.extend_from_slice(rest);
        count
    }

    fn check_payload(&mut self, stream: u32, bytes: &[u8]) {
        let (_, place) = self.places.entry(stream).or_default();
        for piece in bytes.chunks(LONGEST) {
            let is_right = piece == pattern(stream, *place, piece.len(), true);
            assert!(is_right, "from {place} of {stream}");
            *place += u64::try_from(piece.len()).unwrap_or_default();
        }
    }

    // ---- the programs ------------------------------------------------------------------------------------------

    fn use_program(&mut self, choices: &mut Choices<'_>) {
        let keys: Vec<u64> = self.owned.keys().copied().collect();
        let (what, key) = (choices.below(6), choices.pick(&keys));
        let Some(owned) = key.and_then(|key| self.owned.get_mut(&key)) else {
            return;
        };
        let count = usize::from(choices.byte()) << (choices.byte() % 11);
        match what {
            0 | 1 => owned.speak(count),
            2 | 3 => {
                owned.hear(count, self.is_wild);
            }
            4 => {
                let _ = owned.program.shutdown(Shutdown::Write);
            }
            _ => {
                let _ = owned.program.shutdown(Shutdown::Both);
            }
        }
    }

    // ---- the door ----------------------------------------------------------------------------------------------

    fn use_door(&mut self, choices: &mut Choices<'_>) {
        let keys: Vec<u64> = self.owned.keys().copied().collect();
        match choices.below(6) {
            0 => self.session.go_away(),
            1 => self.session.ping_now(self.now),
            2 => {
                if let Some(key) = choices.pick(&keys) {
                    self.release(key);
                }
            }
            _ => {
                self.next += 1;
                if let Some(stream) = self.session.open(self.next) {
                    self.own(stream, self.next);
                }
            }
        }
    }

    fn own(&mut self, stream: StreamId, owner: u64) {
        let Some((near, program)) = pair() else { return };
        let owned = Owned {
            stream,
            socket: Socket(near),
            conversation: Conversation::new(Vec::new(), Vec::new()),
            program,
            sent: 0,
            got: 0,
        };
        self.opened.insert(stream.0);
        self.owned.insert(owner, owned);
    }

    fn run(&mut self, owner: u64) {
        let Some(owned) = self.owned.get_mut(&owner) else {
            return;
        };
        owned.conversation.note(Side::Client, ALL);
        let edges = self.session.edges_of(owned.stream);
        owned.conversation.note(Side::Server, edges);
        let mut tools = Tools {
            scratch: &mut self.scratch,
            pipes: &mut self.pipes,
            now: self.now,
        };
        let mut end = self.session.end_of(owned.stream);
        let standing = owned.conversation.run(&mut owned.socket, &mut end, &mut tools);
        if let Standing::Over(_) = standing {
            self.release(owner);
        }
    }

    fn release(&mut self, owner: u64) {
        if let Some(mut owned) = self.owned.remove(&owner) {
            let rest = owned.conversation.take_rest(Side::Server);
            self.session.release(owned.stream, rest);
        }
    }

    fn turn(&mut self) {
        self.session.note(ALL);
        for owner in self.owned.keys().copied().collect::<Vec<_>>() {
            self.run(owner);
        }
        loop {
            match self.session.next(self.now) {
                Next::Idle | Next::MoreLater => break,
                Next::Opened(stream) if self.owned.len() > 4 => self.session.refuse(stream),
                Next::Opened(stream) => {
                    self.next += 1;
                    self.session.accept(stream, self.next);
                    self.own(stream, self.next);
                }
                Next::Stream { owner, .. } => self.run(owner),
                Next::WentAway(_) | Next::Over(_) => {}
            }
        }
        let _ = self.session.flush();
    }

    /// Turns until nothing moves any more.
    fn settle(&mut self) {
        let mut quiet = 0;
        for _ in 0..TURNS {
            self.turn();
            let mut moved = self.hear() + self.speak();
            for owned in self.owned.values_mut() {
                moved += owned.hear(usize::MAX, self.is_wild);
            }
            // The session tells of its end in a turn of its own, and wakes some streams only in the next.
            quiet = if moved > 0 { 0 } else { quiet + 1 };
            if quiet > 3 {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn finish(&mut self) {
        self.settle();
        for owner in self.owned.keys().copied().collect::<Vec<_>>() {
            self.release(owner);
        }
        assert!(self.session.is_empty(), "every stream is released");
        self.settle();
        let is_whole = self.payload.is_none() && self.got.is_empty();
        assert!(is_whole || self.session.is_gone_away(), "the last frame is whole");
    }
}

impl Owned {
    fn speak(&mut self, count: usize) {
        let StreamId(stream) = self.stream;
        if let Ok(count) = self.program.write(pattern(stream, self.sent, count, true)) {
            self.sent += u64::try_from(count).unwrap_or_default();
        }
    }

    /// The program reads once, checks that, and returns the number of bytes.
    fn hear(&mut self, most: usize, is_wild: bool) -> usize {
        let mut bytes = vec![0; most.min(32 << 10)];
        let count = self.program.read(&mut bytes).unwrap_or_default();
        let StreamId(stream) = self.stream;
        let got = bytes.get(..count).unwrap_or_default();
        let is_right = is_wild || got == pattern(stream, self.got, count, false);
        assert!(is_right, "from {} of {stream}", self.got);
        self.got += u64::try_from(count).unwrap_or_default();
        count
    }
}
