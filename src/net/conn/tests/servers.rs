//! The facts of the kernel on which connecting by writing rests, and those by which the end of a peer is told from its
//! loss, over real sockets and a real poll.

use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use mio::{Events, Poll};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen as listen_on, socket};

use super::super::super::addr::UnixAddr;
use super::super::super::local_ports::LocalPorts;
use super::super::super::scaffold::tcp_to_itself;
use super::*;

fn connecting(address: SocketAddr) -> Conn {
    Conn::connecting(Stream::connect_tcp(address).expect("connect"))
}

fn watched(conn: &mut Conn) -> Poll {
    let poll = Poll::new().expect("a poll");
    let both = Interest::READABLE | Interest::WRITABLE;
    poll.registry().register(conn, Token(0), both).expect("register");
    poll
}

/// The next event of a poll for the one source that is registered with it.
fn event(poll: &mut Poll) -> Readiness {
    let mut events = Events::with_capacity(1);
    poll.poll(&mut events, Some(Duration::from_secs(10))).expect("poll");
    Readiness::from(events.iter().next().expect("an event within ten seconds"))
}

/// The first event with a hang-up.
fn hang_up(poll: &mut Poll) -> Readiness {
    loop {
        let readiness = event(poll);
        if readiness.hung_up {
            return readiness;
        }
    }
}

// ---- connecting by writing -------------------------------------------------------------------------------------

#[test]
fn a_server_on_the_loopback_takes_bytes_before_any_event() {
    let listener = listen("127.0.0.1:0");
    let mut conn = connecting(tcp_addr(&listener));
    assert_eq!(conn.begin_with(b"hello", None).expect("connected"), Begun::Sent(5));
    assert!(!conn.is_connecting() && conn.can_write());
    let mut served = Conn::new(accept(&listener).0);
    wait_readable(served.socket());
    assert_eq!(served.read(&mut [0; 10]), Received::Bytes(5));
}

#[test]
fn a_server_that_is_not_connected_yet_takes_no_byte_before_the_event() {
    let (listener, address, first) = full_listener();
    let mut conn = connecting(address);
    assert_eq!(conn.begin_with(b"hello", None).expect("no outcome"), Begun::Waiting);
    assert!(conn.is_connecting() && !conn.can_write());
    assert_eq!(conn.begin_with(b"hello", None).expect("no event"), Begun::Waiting);
    let mut poll = watched(&mut conn);
    let (served, _) = listener.accept().expect("the first");
    conn.note(event(&mut poll));
    assert_eq!(conn.begin_with(b"hello", None).expect("connected"), Begun::Sent(5));
    drop((served, first));
}

/// A listener whose queue is full, so that the kernel drops the next SYN, which is sent again after a second.
fn full_listener() -> (TcpListener, SocketAddr, TcpStream) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
    listen_on(&socket, Backlog::new(0).expect("a backlog")).expect("listen");
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().expect("an address");
    let first = TcpStream::connect(address).expect("the one place in the queue");
    (listener, address, first)
}

#[test]
fn a_write_tells_once_why_there_is_no_connection() {
    let address = tcp_addr(&listen("127.0.0.1:0"));
    let mut conn = connecting(address);
    let mut poll = watched(&mut conn);
    let readiness = event(&mut poll);
    assert!(
        readiness.readable && readiness.writable && readiness.hung_up,
        "{readiness:?}"
    );
    conn.note(readiness);
    let error = conn.begin_with(b"hello", None).expect_err("nothing listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert!(
        conn.socket().take_error().expect("SO_ERROR").is_none(),
        "the write has taken it"
    );
    let again = conn.begin_with(b"hello", None).expect_err("nor later");
    assert_eq!(again.kind(), ErrorKind::BrokenPipe);
}

#[test]
fn a_socket_that_is_watched_before_it_connects_seems_to_have_hung_up() {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).expect("a socket");
    let stream = mio::net::TcpStream::from_std(TcpStream::from(socket));
    let mut conn = Conn::connecting(Stream::Tcp(stream));
    let readiness = event(&mut watched(&mut conn));
    assert!(readiness.hung_up && readiness.writable, "{readiness:?}");
}

#[test]
fn a_unix_server_with_a_full_queue_is_a_failure_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    listen_on(&listener, Backlog::new(0).expect("a backlog")).expect("listen");
    let address = UnixAddr::Path(path);
    let mut conn = Conn::connecting(Stream::connect_unix(&address).expect("the one place in the queue"));
    assert_eq!(conn.begin_with(b"hello", None).expect("connected"), Begun::Sent(5));
    let full = Stream::connect_unix(&address).expect_err("no place");
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_connection_to_itself_is_refused_where_it_can_happen() {
    let (stream, address) = tcp_to_itself();
    let mut conn = Conn::connecting(stream);
    let suspect = LocalPorts::read().suspect(address);
    assert_eq!(suspect, Some(address.port()), "the kernel has chosen it");
    let error = conn.begin_with(b"hello", suspect).expect_err("it is no server");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    // A server at the same port is one.
    let listener = listen("127.0.0.1:0");
    let mut conn = connecting(tcp_addr(&listener));
    let begun = conn.begin_with(b"hello", Some(tcp_addr(&listener).port()));
    assert_eq!(begun.expect("a server"), Begun::Sent(5));
}

#[test]
fn a_server_that_takes_a_part_has_no_room_until_the_next_event() {
    let listener = listen("127.0.0.1:0");
    let mut conn = connecting(tcp_addr(&listener));
    let many = vec![7; 64 << 20];
    let Begun::Sent(count) = conn.begin_with(&many, None).expect("connected") else {
        panic!("the loopback connects at once");
    };
    assert!(count < many.len() && !conn.can_write());
}

// ---- ends ------------------------------------------------------------------------------------------------------

#[test]
fn the_end_of_a_peer_is_no_hang_up_until_this_side_has_ended_too() {
    let (stream, client) = tcp_pair();
    let mut conn = Conn::new(stream);
    let mut poll = watched(&mut conn);
    client.shutdown(Shutdown::Write).expect("shutdown");
    let readiness = std::iter::repeat_with(|| event(&mut poll)).find(|it| it.read_closed);
    assert!(!readiness.expect("an end").hung_up, "{readiness:?}");
    conn.say_end().expect("it is there");
    let readiness = hang_up(&mut poll);
    assert!(readiness.read_closed, "{readiness:?}");
}

#[test]
fn bytes_before_both_ends_are_read_after_the_hang_up() {
    let (stream, mut client) = tcp_pair();
    let mut conn = Conn::new(stream);
    let mut poll = watched(&mut conn);
    conn.say_end().expect("it is there");
    client.write_all(b"last words").expect("write");
    drop(client);
    conn.note(hang_up(&mut poll));
    assert_eq!(read_to_end(&mut conn, 4), b"last words");
}

#[test]
fn a_reset_of_the_peer_is_a_hang_up() {
    let (stream, client) = tcp_pair();
    let mut conn = Conn::new(stream);
    let mut poll = watched(&mut conn);
    Conn::new(Stream::Tcp(mio::net::TcpStream::from_std(client))).reset();
    conn.note(hang_up(&mut poll));
    assert_eq!(conn.read(&mut [0; 1]), Received::Failed);
    assert_eq!(conn.error().expect("a reason").kind(), ErrorKind::ConnectionReset);
}

#[test]
fn bytes_that_have_arrived_survive_a_close_over_unread_input() {
    let (stream, mut client) = tcp_pair();
    let mut conn = Conn::new(stream);
    client.write_all(b"a hello that is refused").expect("write");
    wait_readable(conn.socket());
    assert_eq!(conn.send(b"alert"), Sent::Bytes(5));
    assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Waiting);
    client.write_all(b"and more, which nothing reads").expect("write");
    wait_readable(conn.socket());
    drop(conn);
    let mut alert = [0; 5];
    client.read_exact(&mut alert).expect("the alert, in spite of the reset");
    assert_eq!(&alert, b"alert");
}
