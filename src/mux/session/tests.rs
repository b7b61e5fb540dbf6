//! Two sessions over a real connection, whose streams are carried to and from real sockets.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::{Linger, RcvBuf, SndBuf};

use super::*;
use crate::mux::frame::{Flags, Header, Kind};
use crate::net::stream::Stream;
use crate::relay::carrier::{PIECE, Tools};
use crate::relay::conversation::{Conversation, Outcome, Side, Standing};
use crate::relay::direction;
use crate::relay::endpoint::Endpoint;
use crate::relay::pipes::{Budget, Limits, Pipes};
use crate::relay::pump::{try_read, try_write};

/// The longest time for everything that a test waits for.
const LONG: Duration = Duration::from_secs(20);

/// The socket behind a stream.
#[derive(Debug)]
struct Socket(TcpStream);

impl Endpoint for Socket {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, direction::Event> {
        try_read(&self.0, to)
    }

    fn is_drained(&self) -> bool {
        false
    }

    fn write(&mut self, bytes: &[u8]) -> direction::Event {
        try_write(&self.0, bytes)
    }

    fn say_end(&mut self) {
        let _ = self.0.shutdown(Shutdown::Write);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }
}

/// A stream with its socket. The stream is the side of the server.
#[derive(Debug)]
struct Carried {
    stream: StreamId,
    socket: Socket,
    conversation: Conversation,
}

/// One end of the tunnel, as a door has it.
struct Door {
    session: Session,
    carried: BTreeMap<u64, Carried>,
    /// The outcomes of the streams that are over.
    outcomes: BTreeMap<StreamId, Outcome>,
    /// The number of bytes of ended streams that were spliced.
    spliced: u64,
    /// The sockets for the streams of the peer.
    waiting: Vec<TcpStream>,
    next: u64,
    pipes: Pipes,
    scratch: Vec<u8>,
    end: Option<End>,
    went_away: Option<u32>,
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (far, _) = listener.accept().unwrap();
    near.set_nonblocking(true).unwrap();
    far.set_nonblocking(true).unwrap();
    (near, far)
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(Limits::of_this_system()))
}

const ALL: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: false,
    hung_up: false,
};

impl Door {
    fn new(socket: TcpStream, role: Role, budget: &Arc<Budget>) -> Self {
        let conn = Conn::new(Stream::Tcp(mio::net::TcpStream::from_std(socket)));
        Self {
            session: Session::new(conn, role, Settings::default(), Instant::now()),
            carried: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            spliced: 0,
            waiting: Vec::new(),
            next: 0,
            pipes: Pipes::new(Arc::clone(budget)),
            scratch: vec![0; PIECE],
            end: None,
            went_away: None,
        }
    }

    fn carry(&mut self, stream: StreamId, owner: u64, socket: TcpStream) {
        let carried = Carried {
            stream,
            socket: Socket(socket),
            conversation: Conversation::new(Vec::new(), Vec::new()),
        };
        self.carried.insert(owner, carried);
    }

    /// Opens a stream for this socket.
    fn open(&mut self, socket: TcpStream) -> u64 {
        self.next += 1;
        let stream = self.session.open(self.next).expect("a stream");
        self.carry(stream, self.next, socket);
        self.next
    }

    fn run(&mut self, owner: u64) {
        let Some(carried) = self.carried.get_mut(&owner) else {
            return;
        };
        carried.conversation.note(Side::Client, ALL);
        carried
            .conversation
            .note(Side::Server, self.session.edges_of(carried.stream));
        let mut tools = Tools {
            scratch: &mut self.scratch,
            pipes: &mut self.pipes,
            now: Instant::now(),
        };
        let mut end = self.session.end_of(carried.stream);
        if let Standing::Over(outcome) = carried.conversation.run(&mut carried.socket, &mut end, &mut tools) {
            let both = &carried.conversation;
            self.spliced += both.up().spliced() + both.down().spliced();
            self.outcomes.insert(carried.stream, outcome);
            self.abort(owner);
        }
    }

    /// Gives a stream up, and closes its socket.
    fn abort(&mut self, owner: u64) {
        let mut carried = self.carried.remove(&owner).expect("a stream");
        let rest = carried.conversation.take_rest(Side::Server);
        self.session.release(carried.stream, rest);
    }

    /// One turn, in which every socket has had an edge.
    fn turn(&mut self) {
        self.session.note(ALL);
        for owner in self.carried.keys().copied().collect::<Vec<_>>() {
            self.run(owner);
        }
        self.go_on();
    }

    /// The part of a turn that follows from the tunnel alone.
    fn go_on(&mut self) {
        loop {
            match self.session.next(Instant::now()) {
                Next::Idle | Next::MoreLater => break,
                Next::Opened(stream) => match self.waiting.pop() {
                    None => self.session.refuse(stream),
                    Some(socket) => {
                        self.next += 1;
                        self.session.accept(stream, self.next);
                        self.carry(stream, self.next, socket);
                    }
                },
                Next::Stream { owner, .. } => self.run(owner),
                Next::WentAway(code) => self.went_away = Some(code),
                Next::Over(end) => self.end = Some(end),
            }
        }
        let _ = self.session.flush();
    }
}

/// A tunnel with both of its doors. The near one opens streams.
struct Tunnel {
    near: Door,
    far: Door,
    budget: Arc<Budget>,
}

impl Tunnel {
    fn new() -> Self {
        let (budget, (near, far)) = (budget(), tcp());
        Self {
            near: Door::new(near, Role::Server, &budget),
            far: Door::new(far, Role::Client, &budget),
            budget,
        }
    }

    /// Gives the tunnel small buffers.
    fn narrow(&mut self) {
        let buffer = 32 << 10;
        setsockopt(&self.near.session.conn.raw().unwrap(), SndBuf, &buffer).unwrap();
        setsockopt(&self.far.session.conn.raw().unwrap(), RcvBuf, &buffer).unwrap();
    }

    /// Opens a stream. Returns its owner at the near door, and the two outer sockets.
    fn open(&mut self) -> (u64, TcpStream, TcpStream) {
        let ((visitor, near), (far, service)) = (tcp(), tcp());
        self.far.waiting.push(far);
        let owner = self.near.open(near);
        while !self.far.waiting.is_empty() {
            self.turn();
        }
        (owner, visitor, service)
    }

    fn turn(&mut self) {
        self.near.turn();
        self.far.turn();
    }

    /// Turns until this holds.
    fn until(&mut self, mut holds: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + LONG;
        while !holds(self) {
            assert!(Instant::now() < end, "it never holds");
            self.turn();
        }
    }
}

/// The bytes that a test sends: each position has its own.
fn bytes(length: usize, seed: u32) -> Vec<u8> {
    (0..u32::try_from(length).unwrap())
        .map(|at| (at.wrapping_mul(2_654_435_761).wrapping_add(seed) >> 24) as u8)
        .collect()
}

/// Sends bytes through a socket in pieces, and says the end.
struct Sender<'a> {
    socket: &'a TcpStream,
    bytes: &'a [u8],
    has_ended: bool,
}

impl Sender<'_> {
    fn go_on(&mut self) {
        while let Ok(count @ 1..) = self.socket.write(self.bytes) {
            self.bytes = &self.bytes[count..];
        }
        if self.bytes.is_empty() && !std::mem::replace(&mut self.has_ended, true) {
            self.socket.shutdown(Shutdown::Write).unwrap();
        }
    }
}

fn sender<'a>(socket: &'a TcpStream, bytes: &'a [u8]) -> Sender<'a> {
    Sender {
        socket,
        bytes,
        has_ended: false,
    }
}

/// Reads what there is, at most this number of bytes. Returns true at the end.
fn read(mut socket: &TcpStream, to: &mut Vec<u8>, most: usize) -> bool {
    let mut piece = vec![0; most.min(1 << 16)];
    let mut have = 0;
    while have < most {
        match socket.read(&mut piece) {
            Ok(0) => return true,
            Ok(count) => {
                to.extend_from_slice(&piece[..count]);
                have += count;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    false
}

#[test]
fn small_bytes_and_both_ends_go_through() {
    let mut tunnel = Tunnel::new();
    let (_, mut visitor, mut service) = tunnel.open();
    visitor.write_all(b"hello").unwrap();
    visitor.shutdown(Shutdown::Write).unwrap();
    let mut got = Vec::new();
    tunnel.until(|_| read(&service, &mut got, usize::MAX));
    assert_eq!(got, b"hello");
    service.write_all(b"answer behind the end of the other side").unwrap();
    drop(service);
    got.clear();
    tunnel.until(|_| read(&visitor, &mut got, usize::MAX));
    assert_eq!(got, b"answer behind the end of the other side");
    tunnel.until(|tunnel| tunnel.near.session.is_empty() && tunnel.far.session.is_empty());
    for door in [&tunnel.near, &tunnel.far] {
        assert_eq!(door.outcomes[&StreamId(2)], Outcome::Complete);
        assert_eq!((door.session.core.streams(), door.session.core.held()), (0, 0));
    }
}

/// Eight streams with megabytes both ways, whose readers take them at different paces.
#[test]
fn bulk_of_several_streams_goes_both_ways_and_is_spliced() {
    let mut tunnel = Tunnel::new();
    let sent: Vec<Vec<u8>> = (0..16)
        .map(|seed| bytes(3_000_000 + 77_777 * seed as usize, seed))
        .collect();
    let pairs: Vec<_> = (0..8).map(|_| tunnel.open()).collect();
    let mut got = vec![Vec::new(); 16];
    let mut ended = [false; 16];
    let mut senders: Vec<_> = pairs
        .iter()
        .flat_map(|(_, visitor, service)| [visitor, service])
        .zip(&sent)
        .map(|(socket, bytes)| sender(socket, bytes))
        .collect();
    tunnel.until(|_| {
        senders.iter_mut().for_each(Sender::go_on);
        for (at, (_, visitor, service)) in pairs.iter().enumerate() {
            let pace = 10_000 << at;
            ended[2 * at] |= read(service, &mut got[2 * at], pace);
            ended[2 * at + 1] |= read(visitor, &mut got[2 * at + 1], pace);
        }
        ended.iter().all(|ended| *ended)
    });
    assert!(got == sent, "every byte, once, in order");
    for door in [&tunnel.near, &tunnel.far] {
        let counters = door.session.counters();
        let half = (counters.sent + counters.received) / 2;
        assert!(door.spliced > half, "{} of {counters:?}", door.spliced);
    }
}

#[test]
fn a_stream_that_stalls_stalls_no_other_and_goes_on_later() {
    let mut tunnel = Tunnel::new();
    let (_, stalled_visitor, stalled_service) = tunnel.open();
    let (_, visitor, service) = tunnel.open();
    // More than the windows of all sockets on the way take.
    let (stalling, flowing) = (bytes(60_000_000, 1), bytes(5_000_000, 2));
    let (mut first, mut second) = (sender(&stalled_visitor, &stalling), sender(&visitor, &flowing));
    // As much as goes in.
    let mut got = Vec::new();
    tunnel.until(|_| {
        first.go_on();
        second.go_on();
        read(&service, &mut got, usize::MAX)
    });
    assert!(got == flowing);
    let left = first.bytes.len();
    assert!(left > 0, "the window bounds what is kept");
    assert!(tunnel.far.session.core.held() <= 2 << 20);
    let mut got = Vec::new();
    tunnel.until(|_| {
        first.go_on();
        read(&stalled_service, &mut got, usize::MAX)
    });
    assert!(got == stalling);
}

/// The header of a frame is out, the connection is full, and the door gives the stream up.
#[test]
fn the_frame_of_a_stream_that_is_given_up_is_completed() {
    let mut tunnel = Tunnel::new();
    tunnel.narrow();
    let (owner, visitor, service) = tunnel.open();
    let (_, mut other, other_service) = tunnel.open();
    let sent = bytes(30_000_000, 3);
    let mut sending = sender(&visitor, &sent);
    // Only the near side turns, so that its connection fills up.
    let end = Instant::now() + LONG;
    while tunnel.near.session.core.owed().is_none() {
        assert!(Instant::now() < end, "nothing is owed");
        sending.go_on();
        tunnel.near.turn();
        if tunnel.near.session.core.owed().is_none() && tunnel.near.session.core.credit(StreamId(2)) == 0 {
            // The window was too small to fill it: let it be opened.
            let mut got = Vec::new();
            tunnel.far.turn();
            read(&service, &mut got, usize::MAX);
        }
    }
    tunnel.near.abort(owner);
    other.write_all(b"behind it").unwrap();
    let mut got = Vec::new();
    tunnel.until(|_| {
        read(&other_service, &mut got, usize::MAX);
        got.len() >= 9
    });
    assert_eq!(got, b"behind it");
    assert_eq!((&tunnel.near.end, &tunnel.far.end), (&None, &None));
    assert_eq!(tunnel.far.outcomes[&StreamId(2)], Outcome::Failed(Side::Server));
}

/// The go-away that says why the session is over must not be taken for bytes of the frame that was begun.
#[test]
fn a_session_that_ends_in_the_middle_of_a_frame_completes_it() {
    let (near, mut far) = tcp();
    let mut door = Door::new(near, Role::Server, &budget());
    setsockopt(&door.session.conn.raw().unwrap(), SndBuf, &(32 << 10)).unwrap();
    let (visitor, socket) = tcp();
    door.open(socket);
    let sent = vec![7; 1 << 20];
    let mut sending = sender(&visitor, &sent);
    let end = Instant::now() + LONG;
    let mut got = Vec::new();
    while door.session.core.owed().is_none() {
        assert!(Instant::now() < end, "nothing is owed");
        sending.go_on();
        door.turn();
    }
    far.write_all(&[9; HEADER]).unwrap();
    while door.end.is_none() || door.session.conn.unwritten() > 0 {
        assert!(Instant::now() < end, "the end is never told");
        door.turn();
        read(&far, &mut got, usize::MAX);
    }
    drop(door);
    while !read(&far, &mut got, usize::MAX) {
        assert!(Instant::now() < end, "the connection never ends");
    }
    let (mut rest, mut last) = (got.as_slice(), None);
    while let Some((header, behind)) = rest.split_first_chunk::<HEADER>() {
        let header = Header::parse(*header).expect("whole frames");
        let length = if header.kind == Kind::Data {
            header.length as usize
        } else {
            0
        };
        assert!(
            behind[..length].iter().all(|byte| *byte == 7),
            "the bytes of the visitor"
        );
        (rest, last) = (&behind[length..], Some(header.kind));
    }
    assert_eq!((rest.len(), last), (0, Some(Kind::GoAway)));
}

#[test]
fn a_session_that_is_cut_fails_its_streams_at_once() {
    let mut tunnel = Tunnel::new();
    let pairs: Vec<_> = (0..10).map(|_| tunnel.open()).collect();
    let Tunnel { near, far, budget } = &mut tunnel;
    drop(std::mem::replace(far, Door::new(tcp().0, Role::Client, budget)));
    let end = Instant::now() + LONG;
    while near.end.is_none() {
        assert!(Instant::now() < end, "the end is never noticed");
        near.session.note(ALL);
        near.go_on();
    }
    assert!(matches!(near.end, Some(End::Closed | End::Failed(_))), "{:?}", near.end);
    assert!(near.session.is_empty(), "all have been run and released");
    assert_eq!(near.outcomes.len(), 10);
    assert!(
        near.outcomes
            .values()
            .all(|outcome| *outcome == Outcome::Failed(Side::Server))
    );
    drop(pairs);
}

/// The service has nothing to say, and would never learn that its client is gone.
#[test]
fn a_reset_behind_the_end_of_a_stream_is_told_to_a_silent_service() {
    let mut tunnel = Tunnel::new();
    let (owner, visitor, service) = tunnel.open();
    visitor.shutdown(Shutdown::Write).unwrap();
    tunnel.until(|_| read(&service, &mut Vec::new(), usize::MAX));
    tunnel.near.abort(owner);
    tunnel.until(|tunnel| tunnel.far.session.is_empty());
    assert_eq!(tunnel.far.outcomes[&StreamId(2)], Outcome::Closed(Side::Server));
}

/// The peer has answered and has reset its connection, and a write finds that out first.
#[test]
fn an_answer_that_has_come_is_delivered_although_nothing_can_be_written_any_more() {
    let (budget, (near, mut peer)) = (budget(), tcp());
    let mut door = Door::new(near, Role::Server, &budget);
    let (mut visitor, socket) = tcp();
    let owner = door.open(socket);
    door.go_on();
    let answer = [&header(Kind::Data, Flags::default(), 2, 6)[..], b"answer"].concat();
    peer.write_all(&answer).unwrap();
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&peer, Linger, &at_once).unwrap();
    drop(peer);
    visitor.write_all(&bytes(100_000, 1)).unwrap();
    door.run(owner);
    assert!(!door.session.is_writable(), "the write comes first");
    let (mut got, end) = (Vec::new(), Instant::now() + LONG);
    while door.end.is_none() {
        assert!(Instant::now() < end, "the end is never noticed");
        // No event follows the one that the write has taken.
        door.go_on();
        read(&visitor, &mut got, usize::MAX);
    }
    assert_eq!(got, b"answer");
    assert!(matches!(door.end, Some(End::Failed(_))), "{:?}", door.end);
    assert_eq!(door.outcomes[&StreamId(2)], Outcome::Failed(Side::Server));
}

#[test]
fn the_end_is_told_to_many_streams_in_several_turns() {
    const STREAMS: usize = 3 * RUNS_PER_TURN;
    let (budget, (near, mut peer)) = (budget(), tcp());
    let mut door = Door::new(near, Role::Server, &budget);
    let mut streams = Vec::new();
    while streams.len() < STREAMS {
        match door.session.open(7) {
            Some(stream) => {
                streams.push(stream);
                peer.write_all(&header(Kind::WindowUpdate, Flags::ACK, stream.0, 0))
                    .unwrap();
            }
            // It leaves only this number unacknowledged.
            None => door.turn(),
        }
    }
    drop(peer);
    let (mut told, mut turns, end) = (0, 0, Instant::now() + LONG);
    loop {
        door.session.note(ALL);
        let in_turn = std::iter::from_fn(|| match door.session.next(Instant::now()) {
            Next::Stream { .. } => Some(1),
            Next::Over(end) => {
                door.end = Some(end);
                None
            }
            _ => None,
        });
        let count: usize = in_turn.sum();
        assert!(count <= RUNS_PER_TURN, "{count} streams in a turn");
        told += count;
        turns += usize::from(count > 0);
        if door.end.is_some() {
            break;
        }
        assert!(Instant::now() < end, "the end is never told");
        let _ = door.session.flush();
    }
    assert!(told >= STREAMS && turns >= 3, "{told} streams in {turns} turns");
}

fn header(kind: Kind, flags: Flags, stream: u32, length: u32) -> [u8; HEADER] {
    let header = Header {
        kind,
        flags,
        stream,
        length,
    };
    header.bytes()
}

#[test]
fn bytes_that_are_no_frames_end_the_session_with_a_reason() {
    let (budget, (near, mut peer)) = (budget(), tcp());
    let mut door = Door::new(near, Role::Server, &budget);
    peer.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let end = Instant::now() + LONG;
    while door.end.is_none() {
        assert!(Instant::now() < end);
        door.turn();
    }
    let reason = match door.end {
        Some(End::Fault(fault)) => fault.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(reason, "bytes that are no yamux frame (version 71)");
    let mut got = Vec::new();
    drop(door.session);
    while !read(&peer, &mut got, usize::MAX) {}
    assert_eq!(got, [0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "a go-away for an error");
}

#[test]
fn many_streams_live_side_by_side() {
    let mut tunnel = Tunnel::new();
    let mut pairs = Vec::new();
    while pairs.len() < 200 {
        pairs.push(tunnel.open());
    }
    for (at, (_, visitor, service)) in pairs.iter_mut().enumerate() {
        visitor.write_all(format!("to {at}").as_bytes()).unwrap();
        service.write_all(format!("from {at}").as_bytes()).unwrap();
    }
    let mut got = vec![(Vec::new(), Vec::new()); pairs.len()];
    tunnel.until(|_| {
        for ((_, visitor, service), (to, from)) in pairs.iter().zip(&mut got) {
            read(service, to, usize::MAX);
            read(visitor, from, usize::MAX);
        }
        got.iter()
            .enumerate()
            .all(|(at, (to, from))| to == format!("to {at}").as_bytes() && from == format!("from {at}").as_bytes())
    });
}

/// The first stream owes a frame, the second waits behind it, and from then on the tunnel is never without input.
#[test]
fn a_stream_that_waits_for_room_gets_its_turn_although_the_tunnel_never_rests() {
    let (budget, (near, mut peer)) = (budget(), tcp());
    let buffer = 32 << 10;
    setsockopt(&near, SndBuf, &buffer).unwrap();
    setsockopt(&peer, RcvBuf, &buffer).unwrap();
    let mut door = Door::new(near, Role::Server, &budget);
    let ((bulk, first), (mut small, second)) = (tcp(), tcp());
    let sent = bytes(250_000, 1);
    let mut sending = sender(&bulk, &sent);
    door.open(first);
    let end = Instant::now() + LONG;
    while door.session.core.owed().is_none() {
        assert!(Instant::now() < end, "nothing is owed");
        sending.go_on();
        door.turn();
    }
    door.open(second);
    small.write_all(b"small").unwrap();
    while door.session.parked.is_empty() {
        assert!(Instant::now() < end, "nothing waits");
        door.turn();
    }
    // Frames that mean nothing: credit for a stream that is not known.
    let idle = [0, 1, 0, 0, 0, 0, 0, 99, 0, 0, 0, 0].repeat(40_000);
    let (mut rest, mut got, mut turns) = (&idle[..], Vec::new(), 0);
    while !door.session.parked.is_empty() {
        if let Ok(count) = peer.write(rest) {
            rest = &rest[count..];
        }
        read(&peer, &mut got, usize::MAX);
        door.session.note(ALL);
        door.go_on();
        turns += 1;
        assert!(turns < 300, "it waits for the end of all input");
    }
}
