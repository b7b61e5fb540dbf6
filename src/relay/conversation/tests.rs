//! Conversations over real sockets, with the edges of a real poll.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

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

    /// Waits for this time at most, and takes in the events.
    fn wait(&mut self, most: Duration) {
        self.poll.poll(&mut self.events, Some(most)).unwrap();
        for event in &self.events {
            let (side, socket) = match event.token() {
                Token(0) => (Side::Client, &mut self.client),
                _ => (Side::Server, &mut self.server),
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

/// Bytes in which a lost, doubled or swapped piece shows.
fn bytes(length: usize, salt: u32) -> Vec<u8> {
    (0..u32::try_from(length).unwrap())
        .map(|number| (number ^ salt).wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect()
}

/// Sends all in the other thread and then the end, and reads to the end in a third, `step` bytes at a time.
fn talk<S>(peer: S, sent: Vec<u8>, step: usize, clone: fn(&S) -> S, end: fn(&S)) -> std::thread::JoinHandle<Vec<u8>>
where
    S: Read + Write + Send + 'static,
{
    let mut reader = clone(&peer);
    std::thread::spawn(move || {
        let mut writer = peer;
        let sending = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            end(&writer);
            writer
        });
        let (mut received, mut piece) = (Vec::new(), vec![0; step]);
        loop {
            match reader.read(&mut piece).unwrap() {
                0 => break,
                count => received.extend_from_slice(&piece[..count]),
            }
        }
        drop(sending.join().unwrap());
        received
    })
}

fn talk_tcp(peer: TcpStream, sent: Vec<u8>, step: usize) -> std::thread::JoinHandle<Vec<u8>> {
    talk(
        peer,
        sent,
        step,
        |peer| peer.try_clone().unwrap(),
        |peer| peer.shutdown(Shutdown::Write).unwrap(),
    )
}

fn talk_unix(peer: UnixStream, sent: Vec<u8>, step: usize) -> std::thread::JoinHandle<Vec<u8>> {
    talk(
        peer,
        sent,
        step,
        |peer| peer.try_clone().unwrap(),
        |peer| peer.shutdown(Shutdown::Write).unwrap(),
    )
}

const BULK: usize = 20 << 20;

#[test]
fn bulk_both_ways_arrives_whole_through_pipes_that_are_given_back() {
    let budget = budget();
    let ((client, client_peer), (server, server_peer)) = (tcp(), tcp());
    let (up, down) = (bytes(BULK, 1), bytes(BULK + 12_345, 2));
    let at_client = talk_tcp(client_peer, up.clone(), 4096);
    let at_server = talk_tcp(server_peer, down.clone(), 100_000);
    let mut relay = Relay::new(client, server, &budget);
    assert_eq!(relay.finish(), Outcome::Complete);
    let spliced = relay.conversation.up().spliced() + relay.conversation.down().spliced();
    assert!(spliced > (BULK + BULK) as u64 / 2, "{spliced} bytes went through pipes");
    assert!(budget.open().0 <= 2);
    drop(relay);
    assert_eq!(budget.open(), (0, 0));
    assert!(at_server.join().unwrap() == up);
    assert!(at_client.join().unwrap() == down);
}

#[test]
fn bulk_between_a_unix_socket_and_tcp_arrives_whole_spliced_and_copied() {
    for can_splice in [true, false] {
        let ((client, client_peer), (server, server_peer)) = (unix(), tcp());
        let (up, down) = (bytes(BULK / 4, 1), bytes(BULK / 4 + 1, 2));
        let at_client = talk_unix(client_peer, up.clone(), 30_000);
        let at_server = talk_tcp(server_peer, down.clone(), 3_000);
        let mut relay = Relay::new(client, server, &budget());
        relay.client.can_splice = can_splice;
        assert_eq!(relay.finish(), Outcome::Complete);
        assert_eq!(relay.conversation.up().spliced() > 0, can_splice);
        drop(relay);
        assert!(at_server.join().unwrap() == up);
        assert!(at_client.join().unwrap() == down);
    }
}
