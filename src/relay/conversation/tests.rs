//! Conversations over real sockets, with the edges of a real poll.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::sockopt::Linger;
use nix::sys::socket::{MsgFlags, send, setsockopt};
use proptest::prelude::*;

use super::*;
use crate::relay::carrier::PIECE;
use crate::relay::pipes::{Budget, Limits, Pipes};
use crate::relay::pump::{try_read, try_write};

/// The longest wait for an event. A test that waits for it has failed.
const LONG: Duration = Duration::from_secs(20);

/// A socket, and the calls that were made on it.
#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    is_drained: bool,
    /// True if a short read says nothing: the end may be behind it, of which no further event tells.
    reads_to_end: bool,
    /// False for one that encrypts.
    can_splice: bool,
    has_said_end: bool,
    reads: usize,
    writes: usize,
}

impl Socket {
    fn new(fd: impl Into<OwnedFd>) -> Self {
        Self {
            fd: fd.into(),
            is_drained: false,
            reads_to_end: false,
            can_splice: true,
            has_said_end: false,
            reads: 0,
            writes: 0,
        }
    }
}

impl Endpoint for Socket {
    fn read(&mut self, to: &mut [u8]) -> Result<usize, Event> {
        self.reads += 1;
        let outcome = try_read(&self.fd, to);
        self.is_drained = !self.reads_to_end && outcome.is_ok_and(|count| count < to.len());
        self.reads_to_end &= outcome != Err(Event::SourceEmpty);
        outcome
    }

    fn is_drained(&self) -> bool {
        self.is_drained
    }

    fn write(&mut self, bytes: &[u8]) -> Event {
        self.writes += 1;
        try_write(&self.fd, bytes)
    }

    fn say_end(&mut self) {
        assert!(!std::mem::replace(&mut self.has_said_end, true), "an end is said once");
        // NotConnected: the peer has reset the connection.
        let _ = nix::sys::socket::shutdown(self.fd.as_raw_fd(), nix::sys::socket::Shutdown::Write);
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.can_splice.then(|| self.fd.as_fd())
    }
}

/// A conversation with its poll.
struct Relay {
    poll: Poll,
    events: Events,
    client: Socket,
    server: Socket,
    conversation: Conversation,
    pipes: Pipes,
    scratch: Vec<u8>,
}

fn budget() -> Arc<Budget> {
    Arc::new(Budget::new(Limits::of_this_system()))
}

impl Relay {
    fn new(client: impl Into<OwnedFd>, server: impl Into<OwnedFd>, budget: &Arc<Budget>) -> Self {
        let (client, server) = (Socket::new(client), Socket::new(server));
        let poll = Poll::new().unwrap();
        for (token, socket) in [&client, &server].into_iter().enumerate() {
            let both = Interest::READABLE | Interest::WRITABLE;
            let mut source = SourceFd(&socket.fd.as_raw_fd());
            poll.registry().register(&mut source, Token(token), both).unwrap();
        }
        Self {
            poll,
            events: Events::with_capacity(8),
            client,
            server,
            conversation: Conversation::new(Vec::new(), Vec::new()),
            pipes: Pipes::new(Arc::clone(budget)),
            scratch: vec![0; PIECE],
        }
    }

    /// Has the poll wake up when this peer can read.
    fn watch(&mut self, peer: &impl AsRawFd) {
        let mut source = SourceFd(&peer.as_raw_fd());
        self.poll
            .registry()
            .register(&mut source, Token(2), Interest::READABLE)
            .unwrap();
    }

    /// Waits for this time at most, and takes in the events.
    fn wait(&mut self, most: Duration) {
        self.poll.poll(&mut self.events, Some(most)).unwrap();
        for event in &self.events {
            let (side, socket) = match event.token() {
                Token(0) => (Side::Client, &mut self.client),
                Token(1) => (Side::Server, &mut self.server),
                _ => continue,
            };
            let readiness = Readiness::from(event);
            socket.reads_to_end |= readiness.read_closed || readiness.hung_up;
            self.conversation.note(side, readiness);
        }
    }

    fn run(&mut self) -> Standing {
        let mut tools = Tools {
            scratch: &mut self.scratch,
            pipes: &mut self.pipes,
            now: Instant::now(),
        };
        self.conversation.run(&mut self.client, &mut self.server, &mut tools)
    }

    /// Takes in what has happened, and runs until nothing is to be done.
    fn turn(&mut self) -> Standing {
        self.wait(Duration::ZERO);
        loop {
            match self.run() {
                Standing::MoreLater => {}
                standing => return standing,
            }
        }
    }

    /// Runs until this peer, which is watched, has read to this number of bytes, or to the end of what it is sent.
    fn read_by(&mut self, peer: &mut impl Read, most: usize) -> (Vec<u8>, bool) {
        let (mut received, mut piece) = (Vec::new(), [0; 5000]);
        while received.len() < most {
            let room = piece.len().min(most - received.len());
            match peer.read(&mut piece[..room]) {
                Ok(0) => return (received, true),
                Ok(count) => received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => match self.run() {
                    Standing::MoreLater => {}
                    Standing::Waiting | Standing::Over(_) => {
                        self.wait(LONG);
                        assert!(!self.events.is_empty(), "asleep: {:?}", self.conversation);
                    }
                },
                Err(error) => panic!("{error}"),
            }
        }
        (received, false)
    }

    /// Runs until the conversation is over.
    fn finish(&mut self) -> Outcome {
        loop {
            match self.run() {
                Standing::Over(outcome) => return outcome,
                Standing::MoreLater => {}
                Standing::Waiting => {
                    self.wait(LONG);
                    assert!(!self.events.is_empty(), "asleep: {:?}", self.conversation);
                }
            }
        }
    }
}

fn unix() -> (UnixStream, UnixStream) {
    let (ours, peer) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, peer)
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ours.set_nonblocking(true).unwrap();
    (ours, peer)
}

/// A pattern in which a lost, doubled or swapped piece shows, of a length that no buffer has.
fn pattern(salt: u32) -> Vec<u8> {
    (0..99_991_u32)
        .map(|number| (number ^ salt).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// The bytes of a stream of this length that repeats the pattern.
fn bytes(length: usize, salt: u32) -> Vec<u8> {
    pattern(salt).into_iter().cycle().take(length).collect()
}

/// A peer in threads of its own. It sends this number of bytes and its end, and reads to the end of the other side,
/// `step` bytes at a time. Returns the number of bytes that it has read, all of them as the other peer has sent them.
fn talk<S>(peer: S, length: usize, salt: u32, step: usize, clone: fn(&S) -> S, end: fn(&S)) -> JoinHandle<usize>
where
    S: Read + Write + Send + 'static,
{
    let mut reader = clone(&peer);
    std::thread::spawn(move || {
        let mut writer = peer;
        let sending = std::thread::spawn(move || {
            let (pattern, mut left) = (pattern(salt), length);
            while left > 0 {
                let piece = &pattern[..pattern.len().min(left)];
                writer.write_all(piece).unwrap();
                left -= piece.len();
            }
            end(&writer);
            writer
        });
        let expected = pattern(1 - salt);
        let (mut received, mut piece) = (0, vec![0; step]);
        loop {
            let room = step.min(expected.len() - received % expected.len());
            let count = reader.read(&mut piece[..room]).unwrap();
            if count == 0 {
                drop(sending.join().unwrap());
                return received;
            }
            let at = received % expected.len();
            assert!(piece[..count] == expected[at..at + count], "behind {received} bytes");
            received += count;
        }
    })
}

fn talk_tcp(peer: TcpStream, length: usize, salt: u32, step: usize) -> JoinHandle<usize> {
    let end = |peer: &TcpStream| peer.shutdown(Shutdown::Write).unwrap();
    talk(peer, length, salt, step, |peer| peer.try_clone().unwrap(), end)
}

fn talk_unix(peer: UnixStream, length: usize, salt: u32, step: usize) -> JoinHandle<usize> {
    let end = |peer: &UnixStream| peer.shutdown(Shutdown::Write).unwrap();
    talk(peer, length, salt, step, |peer| peer.try_clone().unwrap(), end)
}

#[test]
fn bulk_both_ways_to_slow_readers_arrives_whole_through_pipes_that_are_given_back() {
    const BULK: usize = 100 << 20;
    let budget = budget();
    let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
    let at_client = talk_tcp(client_peer, BULK, 0, 4096);
    let at_server = talk_tcp(server_peer, BULK + 12_345, 1, 10_000);
    let mut relay = Relay::new(client, server, &budget);
    assert_eq!(relay.finish(), Outcome::Complete);
    let spliced = relay.conversation.up().spliced() + relay.conversation.down().spliced();
    assert!(spliced > BULK as u64, "{spliced} bytes went through pipes");
    assert!(budget.open().0 <= 2);
    drop(relay);
    assert_eq!(budget.open(), (0, 0));
    assert_eq!(
        (at_server.join().unwrap(), at_client.join().unwrap()),
        (BULK, BULK + 12_345)
    );
}

#[test]
fn bulk_between_a_unix_socket_and_tcp_arrives_whole_spliced_and_copied() {
    for can_splice in [true, false] {
        let ((client, client_peer), (server, server_peer)) = (unix(), tcp());
        let at_client = talk_unix(client_peer, 5_000_000, 0, 30_000);
        let at_server = talk_tcp(server_peer, 5_000_001, 1, 3_000);
        let mut relay = Relay::new(client, server, &budget());
        relay.client.can_splice = can_splice;
        assert_eq!(relay.finish(), Outcome::Complete);
        assert_eq!(relay.conversation.up().spliced() > 0, can_splice);
        drop(relay);
        assert_eq!(
            (at_server.join().unwrap(), at_client.join().unwrap()),
            (5_000_000, 5_000_001)
        );
    }
}

/// Each byte is a segment, and takes a slot of the pipe: it is full long before its bytes are many.
#[test]
fn segments_of_one_byte_arrive_whole_behind_bulk() {
    let ((client, mut client_peer), (server, mut server_peer)) = (unix(), unix());
    client_peer.set_nonblocking(true).unwrap();
    server_peer.set_nonblocking(true).unwrap();
    let mut relay = Relay::new(client, server, &budget());
    relay.watch(&server_peer);
    let sent = bytes(20_000, 0);
    client_peer.write_all(&sent).unwrap();
    let mut all = sent;
    for round in 0..20_u8 {
        let mut number = 0_u8;
        while client_peer.write(&[round ^ number]).is_ok() {
            all.push(round ^ number);
            number = number.wrapping_add(1);
        }
        if round == 10 {
            // Bulk again, into the midst of them.
            while relay.turn() != Standing::Waiting {}
        }
        let expected = std::mem::take(&mut all);
        let (received, _) = relay.read_by(&mut server_peer, expected.len());
        assert!(received == expected, "round {round}");
        let more = bytes(40_000, 0);
        client_peer.write_all(&more).unwrap();
        all = more;
    }
    let relayed = relay.conversation.up().spliced();
    assert!(relayed > 0);
}

/// A download whose client does not read, until its bytes lie in a pipe. Neither peer blocks.
struct Stalled {
    relay: Relay,
    client_peer: TcpStream,
    server_peer: TcpStream,
    pattern: Vec<u8>,
    sent: usize,
    received: Vec<u8>,
}

impl Stalled {
    fn new(budget: &Arc<Budget>) -> Self {
        let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
        client_peer.set_nonblocking(true).unwrap();
        server_peer.set_nonblocking(true).unwrap();
        let mut stalled = Self {
            relay: Relay::new(client, server, budget),
            client_peer,
            server_peer,
            pattern: pattern(1),
            sent: 0,
            received: Vec::new(),
        };
        while !stalled.relay.conversation.down().holds_pipe() {
            stalled.send();
            let _ = stalled.relay.turn();
            if stalled.relay.conversation.down().direction().held() > 0
                && !stalled.relay.conversation.down().holds_pipe()
            {
                // The sink was full at the moment of a small piece.
                stalled.receive();
            }
        }
        stalled
    }

    /// Has the server send as much as there is room for.
    fn send(&mut self) {
        while let Ok(count) = self.server_peer.write(&self.pattern[self.sent % self.pattern.len()..]) {
            self.sent += count;
        }
    }

    /// Has the client read once.
    fn receive(&mut self) {
        let mut piece = [0; 100_000];
        let count = self.client_peer.read(&mut piece).unwrap();
        self.received.extend_from_slice(&piece[..count]);
    }
}

#[test]
fn a_stalled_sink_keeps_one_pipe_and_gets_every_byte_when_it_reads_again() {
    let budget = budget();
    let mut stalled = Stalled::new(&budget);
    assert_eq!(budget.open().0, 1);
    let relay = &mut stalled.relay;
    assert!(relay.conversation.down().direction().held() > 0);
    // The other way is not held up.
    relay.watch(&stalled.server_peer);
    stalled.client_peer.write_all(&bytes(50_000, 0)).unwrap();
    let (received, _) = relay.read_by(&mut stalled.server_peer, 50_000);
    assert!(received == bytes(50_000, 0));
    assert!(relay.conversation.down().holds_pipe());
    stalled.server_peer.shutdown(Shutdown::Write).unwrap();
    relay.watch(&stalled.client_peer);
    let (rest, _) = relay.read_by(&mut stalled.client_peer, usize::MAX);
    assert!([stalled.received, rest].concat() == bytes(stalled.sent, 1));
    stalled.client_peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(relay.finish(), Outcome::Complete);
}

fn reset(stream: TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, Linger, &at_once).unwrap();
}

/// Such a pipe is closed: its bytes must not reach the next connection.
#[test]
fn a_reset_by_the_sink_with_bytes_in_the_pipe_closes_the_pipe() {
    let budget = budget();
    let mut stalled = Stalled::new(&budget);
    reset(stalled.client_peer);
    assert_eq!(stalled.relay.finish(), Outcome::Failed(Side::Client));
    assert!(!stalled.relay.server.has_said_end);
    drop(stalled.relay);
    assert_eq!(budget.open(), (0, 0));
}

/// A sink that has announced how many bytes come must get them, although nothing more will come behind them.
#[test]
fn the_bytes_in_the_pipe_of_a_direction_that_was_cut_can_be_taken() {
    let budget = budget();
    let mut stalled = Stalled::new(&budget);
    reset(stalled.client_peer);
    assert_eq!(stalled.relay.finish(), Outcome::Failed(Side::Client));
    let pipe = stalled
        .relay
        .conversation
        .take_rest(Side::Client)
        .expect("a pipe with bytes");
    let mut rest = vec![0; 2 << 20];
    let count = nix::unistd::read(&pipe.out, &mut rest).unwrap();
    // The client and its socket have taken others before.
    let all = bytes(stalled.sent, 1);
    assert!(
        all.windows(count).any(|window| window == &rest[..count]),
        "bytes of the server, in order"
    );
    assert!(stalled.relay.conversation.take_rest(Side::Client).is_none());
    drop(pipe);
    assert_eq!(budget.open(), (0, 0));
}

#[test]
fn a_reset_by_the_source_with_bytes_in_the_pipe_is_told_behind_those_bytes() {
    let budget = budget();
    let mut stalled = Stalled::new(&budget);
    let held = stalled.relay.conversation.down().direction().held();
    let delivered = stalled.relay.conversation.down().direction().delivered();
    reset(stalled.server_peer);
    stalled.client_peer.set_nonblocking(false).unwrap();
    let reading = std::thread::spawn(move || {
        let (mut client_peer, mut received) = (stalled.client_peer, stalled.received);
        client_peer.read_to_end(&mut received).unwrap();
        received
    });
    assert_eq!(stalled.relay.finish(), Outcome::Failed(Side::Server));
    let all = stalled.relay.conversation.down().direction().delivered();
    assert!(all >= delivered + held as u64);
    assert!(!stalled.relay.client.has_said_end);
    // The owner resets it; an end shows what has come.
    stalled.relay.client.say_end();
    assert!(reading.join().unwrap() == bytes(usize::try_from(all).unwrap(), 1));
    drop(stalled.relay);
    assert_eq!(budget.open(), (0, 0));
}

/// The answer is worth more to the client than the bytes that the server did not want.
#[test]
fn an_answer_before_a_reset_is_delivered_although_the_server_takes_no_more() {
    let ((client, mut client_peer), (server, mut server_peer)) = (tcp(), tcp());
    let mut relay = Relay::new(client, server, &budget());
    client_peer.set_nonblocking(true).unwrap();
    relay.watch(&client_peer);
    client_peer.write_all(&bytes(100_000, 0)).unwrap();
    let _ = relay.turn();
    server_peer.write_all(b"413\r\n").unwrap();
    // Closed over unread bytes: a reset.
    drop(server_peer);
    let outcome = relay.finish();
    assert_eq!(outcome, Outcome::Failed(Side::Server));
    let (received, _) = relay.read_by(&mut client_peer, 5);
    assert_eq!(received, b"413\r\n");
}

/// A splice stops in front of urgent data for good, and after the end it even reports an end that is not there.
#[test]
fn urgent_data_does_not_hold_up_or_cut_off_what_follows() {
    for ends_at_once in [false, true] {
        let ((client, mut client_peer), (server, mut server_peer)) = (tcp(), tcp());
        let mut relay = Relay::new(client, server, &budget());
        server_peer.set_nonblocking(true).unwrap();
        relay.watch(&server_peer);
        let (first, second) = (bytes(40_000, 0), bytes(30_000, 1));
        client_peer.write_all(&first).unwrap();
        send(client_peer.as_raw_fd(), b"!", MsgFlags::MSG_OOB).unwrap();
        client_peer.write_all(&second).unwrap();
        if ends_at_once {
            client_peer.shutdown(Shutdown::Write).unwrap();
        }
        let (received, _) = relay.read_by(&mut server_peer, 70_000);
        assert!(received == [first, second].concat(), "{} bytes", received.len());
    }
}

#[test]
fn each_small_piece_costs_a_read_and_a_write_and_an_end_a_read() {
    let ((client, mut client_peer), (server, mut server_peer)) = (tcp(), tcp());
    let mut relay = Relay::new(client, server, &budget());
    relay.watch(&server_peer);
    server_peer.set_nonblocking(true).unwrap();
    // Nothing has come yet: one read finds that out each way.
    assert_eq!(relay.run(), Standing::Waiting);
    for round in 1..=10 {
        client_peer.write_all(&[7; 1000]).unwrap();
        assert_eq!(relay.read_by(&mut server_peer, 1000).0, [7; 1000]);
        assert_eq!((relay.client.reads, relay.server.writes), (1 + round, round));
    }
    client_peer.shutdown(Shutdown::Write).unwrap();
    assert!(relay.read_by(&mut server_peer, 1).1);
    assert_eq!((relay.client.reads, relay.server.reads), (12, 1));
    server_peer.shutdown(Shutdown::Write).unwrap();
    assert_eq!(relay.finish(), Outcome::Complete);
    assert_eq!((relay.server.reads, relay.client.writes), (2, 0));
    assert!(
        relay.server.has_said_end && !relay.client.has_said_end,
        "closing says the second end"
    );
    assert_eq!(budget().open(), (0, 0));
}

/// The end of one side, with any number of bytes in front of it, leaves the other way open.
#[test]
fn each_side_may_end_first_and_the_other_goes_on() {
    for first in [Side::Client, Side::Server] {
        for length in [0, 10, 70_000] {
            let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
            let (mut early, mut late) = match first {
                Side::Client => (client_peer, server_peer),
                Side::Server => (server_peer, client_peer),
            };
            let mut relay = Relay::new(client, server, &budget());
            for peer in [&early, &late] {
                peer.set_nonblocking(true).unwrap();
                relay.watch(peer);
            }
            early.write_all(&bytes(length, 0)).unwrap();
            early.shutdown(Shutdown::Write).unwrap();
            assert_eq!(
                relay.read_by(&mut late, usize::MAX),
                (bytes(length, 0), true),
                "{first:?}"
            );
            // Twice, to see that the way back does not end with the first bytes.
            for salt in [1, 2] {
                late.write_all(&bytes(length, salt)).unwrap();
                assert!(
                    relay.read_by(&mut early, length) == (bytes(length, salt), false),
                    "{first:?}"
                );
            }
            late.shutdown(Shutdown::Write).unwrap();
            assert_eq!(relay.finish(), Outcome::Complete);
            drop(relay);
            early.set_nonblocking(false).unwrap();
            assert_eq!(early.read(&mut [0]).unwrap(), 0);
        }
    }
}

#[test]
fn a_side_that_takes_no_more_may_still_send() {
    let ((client, mut client_peer), (server, mut server_peer)) = (unix(), unix());
    let mut relay = Relay::new(client, server, &budget());
    client_peer.set_nonblocking(true).unwrap();
    relay.watch(&client_peer);
    server_peer.shutdown(Shutdown::Read).unwrap();
    client_peer.write_all(b"unwanted").unwrap();
    assert_eq!(relay.turn(), Standing::Waiting);
    server_peer.write_all(b"answer").unwrap();
    drop(server_peer);
    assert_eq!(relay.read_by(&mut client_peer, 6).0, b"answer");
    assert_eq!(relay.finish(), Outcome::Closed(Side::Server));
}

/// A server that has nothing to say would never be found without its client.
#[test]
fn a_side_that_hangs_up_behind_its_end_is_not_waited_for() {
    for first in [Side::Client, Side::Server] {
        let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
        let mut relay = Relay::new(client, server, &budget());
        let (mut early, mut late) = match first {
            Side::Client => (client_peer, server_peer),
            Side::Server => (server_peer, client_peer),
        };
        late.set_nonblocking(true).unwrap();
        relay.watch(&late);
        early.write_all(b"all").unwrap();
        early.shutdown(Shutdown::Write).unwrap();
        assert_eq!(relay.read_by(&mut late, usize::MAX), (b"all".to_vec(), true));
        assert_eq!(relay.turn(), Standing::Waiting);
        reset(early);
        assert_eq!(relay.finish(), Outcome::Closed(first));
    }
}

/// The hang-up may come with the end, and with bytes that are not read yet.
#[test]
fn a_side_that_hangs_up_at_once_gives_all_that_it_has_sent() {
    let ((client, mut client_peer), (server, mut server_peer)) = (unix(), unix());
    let mut relay = Relay::new(client, server, &budget());
    server_peer.set_nonblocking(true).unwrap();
    relay.watch(&server_peer);
    let sent = bytes(100_000, 0);
    client_peer.write_all(&sent).unwrap();
    drop(client_peer);
    assert!(relay.read_by(&mut server_peer, usize::MAX) == (sent, true));
    assert_eq!(relay.finish(), Outcome::Closed(Side::Client));
}

/// An operation of one of the peers, or a turn of the relay.
#[derive(Debug, Clone, Copy)]
enum Operation {
    Send(Side, usize),
    Take(Side, usize),
    End(Side),
    Turn,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let side = || any::<bool>().prop_map(|is_client| if is_client { Side::Client } else { Side::Server });
    let operation = prop_oneof![
        4 => (side(), prop_oneof![1usize..200, 1usize..300_000]).prop_map(|(side, length)| Operation::Send(side, length)),
        4 => (side(), 1usize..200_000).prop_map(|(side, length)| Operation::Take(side, length)),
        1 => side().prop_map(Operation::End),
        5 => Just(Operation::Turn),
    ];
    proptest::collection::vec(operation, 0..60)
}

/// A peer that does not block, with what it has sent and received.
struct Peer<S> {
    stream: S,
    sent: Vec<u8>,
    received: Vec<u8>,
    has_ended: bool,
    has_seen_end: bool,
}

impl<S: Read + Write + AsFd> Peer<S> {
    fn new(stream: S) -> Self {
        let flags = fcntl(&stream, FcntlArg::F_GETFL).unwrap();
        let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
        fcntl(&stream, FcntlArg::F_SETFL(flags)).unwrap();
        Self {
            stream,
            sent: Vec::new(),
            received: Vec::new(),
            has_ended: false,
            has_seen_end: false,
        }
    }

    /// Sends as much of this as there is room for.
    fn send(&mut self, length: usize) {
        if !self.has_ended {
            let salt = u32::try_from(self.sent.len()).unwrap();
            let bytes = bytes(length, salt);
            let count = self.stream.write(&bytes).unwrap_or(0);
            self.sent.extend_from_slice(&bytes[..count]);
        }
    }

    /// Returns true if there was something.
    fn take(&mut self, most: usize) -> bool {
        let mut piece = vec![0; most];
        match self.stream.read(&mut piece) {
            Ok(0) => !std::mem::replace(&mut self.has_seen_end, true),
            Ok(count) => {
                self.received.extend_from_slice(&piece[..count]);
                true
            }
            Err(_) => false,
        }
    }

    fn end(&mut self) {
        if !std::mem::replace(&mut self.has_ended, true) {
            // An error: the connection was reset.
            let _ = nix::sys::socket::shutdown(self.stream.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Write);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Over UNIX sockets everything that one call does is there for the next, so a relay that sleeps with work to do
    /// is seen without waiting.
    #[test]
    fn every_byte_arrives_both_ways_in_any_order_of_sends_reads_and_ends(operations in operations()) {
        let budget = budget();
        let ((client, client_peer), (server, server_peer)) = (unix(), unix());
        let mut relay = Relay::new(client, server, &budget);
        let mut peers = [Peer::new(client_peer), Peer::new(server_peer)];
        let mut standing = relay.run();
        for operation in operations {
            match operation {
                Operation::Send(side, length) => peers[side as usize].send(length),
                Operation::Take(side, length) => drop(peers[side as usize].take(length)),
                Operation::End(side) => peers[side as usize].end(),
                Operation::Turn => standing = relay.turn(),
            }
        }
        peers.iter_mut().for_each(Peer::end);
        while !matches!(standing, Standing::Over(_)) {
            let before = [relay.conversation.up(), relay.conversation.down()].map(|it| it.direction().delivered());
            standing = relay.turn();
            let after = [relay.conversation.up(), relay.conversation.down()].map(|it| it.direction().delivered());
            let has_read = peers[0].take(100_000) | peers[1].take(100_000);
            prop_assert!(before != after || has_read || standing != Standing::Waiting, "asleep: {:?}", relay.conversation);
        }
        prop_assert_eq!(standing, Standing::Over(Outcome::Complete));
        drop(relay);
        prop_assert_eq!(budget.open(), (0, 0));
        while peers[0].take(100_000) | peers[1].take(100_000) {}
        let [client, server] = &peers;
        prop_assert!(client.received == server.sent && server.received == client.sent);
        prop_assert!(client.has_seen_end && server.has_seen_end);
    }

    /// The other side has a beginning of what was sent, it is told no end that was never said, and no pipe is left.
    #[test]
    fn a_reset_at_any_moment_ends_the_conversation_and_loses_nothing_before_it(
        operations in operations(), resets_client in any::<bool>(),
    ) {
        let budget = budget();
        let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
        let mut relay = Relay::new(client, server, &budget);
        let mut peers = [Peer::new(client_peer), Peer::new(server_peer)];
        for operation in operations {
            match operation {
                Operation::Send(side, length) => peers[side as usize].send(length),
                Operation::Take(side, length) => drop(peers[side as usize].take(length)),
                Operation::End(side) => peers[side as usize].end(),
                Operation::Turn => drop(relay.turn()),
            }
        }
        let [client, server] = peers;
        let (resetting, mut other, side) = match resets_client {
            true => (client, server, Side::Client),
            false => (server, client, Side::Server),
        };
        let (sent, had_ended) = (resetting.sent, resetting.has_ended);
        reset(resetting.stream);
        other.stream.set_nonblocking(false).unwrap();
        let reading = std::thread::spawn(move || {
            // Closing a socket over unread bytes is a reset as well.
            let was_reset = !other.has_seen_end && other.stream.read_to_end(&mut other.received).is_err();
            other.end();
            (other.received, was_reset)
        });
        let outcome = relay.finish();
        prop_assert!(had_ended || outcome == Outcome::Failed(side), "{:?}", outcome);
        let way = if resets_client { relay.conversation.up() } else { relay.conversation.down() };
        let delivered = usize::try_from(way.direction().delivered()).unwrap();
        let has_ended = way.direction().has_ended();
        let to_other = if resets_client { &mut relay.server } else { &mut relay.client };
        prop_assert!(had_ended || !to_other.has_said_end);
        prop_assert!(has_ended || !to_other.has_said_end);
        drop(relay);
        let (received, was_reset) = reading.join().unwrap();
        prop_assert!(sent[..delivered].starts_with(&received));
        prop_assert!(was_reset || received.len() == delivered, "{} bytes of {}", received.len(), delivered);
        prop_assert_eq!(budget.open(), (0, 0));
    }
}

/// A relay has many idle conversations.
#[test]
fn an_idle_conversation_is_small() {
    assert!(size_of::<Conversation>() <= 256, "{}", size_of::<Conversation>());
}
