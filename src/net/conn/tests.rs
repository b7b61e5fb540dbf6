//! Connections over real sockets, with each transport, against a client that blocks.

mod servers;

use std::io::Write;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::super::scaffold::{
    TlsClient, accept, listen, tcp_addr, tcp_pair, tls_pair, unix_pair, wait_readable, wait_writable,
};
use super::super::tls::engine::Engine;
use super::super::tls::scaffold::Authority;
use super::*;

const LIMITS: LingerLimits = LingerLimits {
    time: Duration::from_secs(5),
    bytes: 100_000,
};

/// The client's end of a connection.
trait Client: Read + Write + Send {
    fn say_end(&self);
}

impl Client for TcpStream {
    fn say_end(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
}

impl Client for UnixStream {
    fn say_end(&self) {
        self.shutdown(Shutdown::Write).expect("shutdown");
    }
}

impl Client for TlsClient {
    fn say_end(&self) {
        Self::say_end(self);
        self.socket().shutdown(Shutdown::Write).expect("shutdown");
    }
}

/// A connection over each transport, with its client.
fn pairs() -> [(Stream, Box<dyn Client>); 3] {
    let [tcp, unix] = plain_pairs();
    let (tls, tls_client) = tls_pair();
    [tcp, unix, (tls, Box::new(tls_client))]
}

/// The same without TLS.
fn plain_pairs() -> [(Stream, Box<dyn Client>); 2] {
    let ((tcp, tcp_client), (unix, unix_client)) = (tcp_pair(), unix_pair());
    [(tcp, Box::new(tcp_client)), (unix, Box::new(unix_client))]
}

/// The event of a poll.
fn readable() -> Readiness {
    Readiness {
        readable: true,
        ..Readiness::default()
    }
}

fn writable() -> Readiness {
    Readiness {
        writable: true,
        ..Readiness::default()
    }
}

/// Everything up to the end of the client's side, read in pieces of at most `size` bytes.
fn read_to_end(conn: &mut Conn, size: usize) -> Vec<u8> {
    let (mut all, mut piece) = (Vec::new(), vec![0; size]);
    loop {
        match conn.read(&mut piece) {
            Received::Bytes(count) => all.extend_from_slice(&piece[..count]),
            Received::Nothing => {
                wait_readable(conn.socket());
                conn.note(readable());
            }
            Received::End => return all,
            Received::Cut | Received::Failed => panic!("the client has only ended its side"),
        }
    }
}

#[test]
fn a_read_that_would_block_is_made_once_and_then_after_an_event() {
    for (stream, mut client) in pairs() {
        let (mut conn, mut buffer) = (Conn::new(stream), [0; 4]);
        assert_eq!(conn.read(&mut buffer), Received::Nothing);
        client.write_all(b"sixsix").expect("write");
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut buffer), Received::Nothing, "there was no event");
        conn.note(readable());
        assert_eq!(conn.read(&mut buffer), Received::Bytes(4));
        assert_eq!(conn.read(&mut buffer), Received::Bytes(2));
        assert_eq!(conn.end(), None);
    }
}

#[test]
fn early_bytes_come_before_those_of_the_socket() {
    for (stream, mut client) in pairs() {
        client.write_all(b" and late").expect("write");
        client.say_end();
        let mut conn = Conn::with_early(stream, b"early".to_vec());
        assert!(conn.is_readable() && conn.has_unread());
        let mut buffer = [0; 3];
        assert_eq!((conn.read(&mut buffer), &buffer), (Received::Bytes(3), b"ear"));
        assert_eq!(
            conn.read(&mut buffer),
            Received::Bytes(2),
            "the early bytes alone, or more would be read than fits"
        );
        assert_eq!(read_to_end(&mut conn, 100), b" and late");
    }
}

#[test]
fn early_bytes_are_read_although_the_client_has_sent_nothing_since() {
    for (stream, client) in pairs() {
        let mut conn = Conn::with_early(stream, b"all".to_vec());
        let mut buffer = [0; 3];
        assert_eq!(conn.read(&mut buffer), Received::Bytes(3));
        assert_eq!(conn.read(&mut buffer), Received::Nothing);
        assert!(!conn.is_readable() && !conn.has_unread());
        drop(client);
    }
}

#[test]
fn input_arrives_unchanged_whatever_the_size_of_writes_and_reads() {
    let sent: Vec<u8> = (0..=255).collect();
    for size in [1, 7, 1000] {
        for (stream, mut client) in pairs() {
            for piece in sent.chunks(size) {
                client.write_all(piece).expect("write");
            }
            client.say_end();
            // All of it is there before the first read.
            let mut conn = Conn::new(stream);
            assert_eq!(read_to_end(&mut conn, 1001 / size), sent);
            assert_eq!(conn.end(), Some(End::Finished));
        }
    }
}

#[test]
fn a_client_that_has_ended_its_side_is_still_written_to() {
    for (stream, mut client) in pairs() {
        client.say_end();
        let mut conn = Conn::new(stream);
        assert_eq!(read_to_end(&mut conn, 10), b"");
        conn.output_mut().extend_from_slice(b"answer");
        assert_eq!(conn.flush(), Sent::Bytes(6));
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Done);
        drop(conn);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer, and no reset");
        assert_eq!(answer, "answer");
    }
}

#[test]
fn buffered_bytes_wait_for_room_and_keep_their_order() {
    for (stream, mut client) in pairs() {
        let mut conn = Conn::new(stream);
        let bytes: Vec<u8> = (0..8 << 20).map(|number: u32| number.to_be_bytes()[2]).collect();
        let (first, last) = bytes.split_at(bytes.len() - 100);
        let Sent::Bytes(direct) = conn.write_messages(&[&[IoSlice::new(first)]]) else {
            panic!("a fresh socket has room for some")
        };
        conn.output_mut().extend_from_slice(&first[direct..]);
        assert!(!conn.can_write(), "it would overtake what is buffered");
        while let Sent::Bytes(_) = conn.flush() {}
        assert!(conn.unwritten() > 0, "no socket has room for all of it");
        conn.output_mut().extend_from_slice(last);
        assert_eq!(conn.flush(), Sent::Nothing, "there was no event");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("read to the end");
            all
        });
        while conn.unwritten() > 0 {
            wait_writable(conn.socket());
            conn.note(writable());
            while let Sent::Bytes(_) = conn.flush() {}
        }
        conn.say_end().expect("the end");
        assert!(reading.join().expect("the reader") == bytes, "every byte, in order");
    }
}

#[test]
fn the_last_bytes_bring_the_end_with_them_unless_some_find_no_room() {
    for (stream, mut client) in plain_pairs() {
        let (mut conn, mut come) = (Conn::new(stream), Vec::new());
        conn.output_mut().resize(8 << 20, 7);
        let Sent::Bytes(some) = conn.flush_messages(<[u8]>::len, true) else {
            panic!("a fresh socket has room for some")
        };
        assert!(conn.unwritten() > 0);
        come.resize(some, 0);
        client.read_exact(&mut come).expect("what has gone");
        conn.output.clear();
        conn.output_mut().extend_from_slice(b"last");
        assert_eq!(conn.flush_messages(<[u8]>::len, true), Sent::Bytes(4));
        come.clear();
        client.read_to_end(&mut come).expect("the end");
        assert_eq!(come, b"last");
        conn.output_mut().extend_from_slice(b"x");
        assert_eq!(conn.flush(), Sent::Failed, "behind the end nothing is written");
    }
}

/// A client takes a message for broken if it finds a part of it.
#[test]
fn a_unix_socket_takes_a_message_whole_or_not_at_all() {
    let (served, mut client) = unix_pair();
    let (head, body) = ([1; 13], [2; 32_875]);
    let message = [IoSlice::new(&head), IoSlice::new(&body)];
    let whole = head.len() + body.len();
    let (mut conn, mut sum, mut rounds) = (Conn::new(served), 0, 0);
    // The reader takes odd amounts, so that there is every kind of room.
    while rounds < 200 {
        match conn.write_messages(&[&message[..]; 3]) {
            Sent::Bytes(count) => {
                assert_eq!(count % whole, 0, "a part of a message has gone");
                sum += count;
            }
            Sent::Nothing => {
                let mut come = vec![0; sum.min(7_001)];
                client.read_exact(&mut come).expect("what has gone");
                sum -= come.len();
                conn.note(writable());
            }
            Sent::Failed => panic!("the client is there"),
        }
        rounds += 1;
    }
}

#[test]
fn nothing_is_tried_again_on_a_connection_that_has_failed() {
    for (stream, client) in pairs() {
        let mut conn = Conn::with_early(stream, b"early".to_vec());
        conn.output_mut().extend_from_slice(b"answer");
        conn.abandon();
        conn.note(readable());
        conn.note(writable());
        assert_eq!(conn.read(&mut [0; 10]), Received::Nothing);
        conn.output_mut().extend_from_slice(b"more");
        assert_eq!(conn.flush(), Sent::Nothing);
        assert_eq!(conn.end(), Some(End::Failed));
        drop(client);
    }
}

#[test]
fn bytes_that_came_before_a_write_fails_are_still_read() {
    for (stream, mut client) in pairs() {
        let (mut conn, mut buffer) = (Conn::new(stream), [0; 100]);
        assert_eq!(conn.read(&mut buffer), Received::Nothing);
        client.write_all(b"refused").expect("write");
        drop(client);
        // Over TCP the first write only provokes the reset.
        while conn.send(b"request") != Sent::Failed {
            std::thread::yield_now();
        }
        let reason = conn.error().map(io::Error::kind);
        assert!(
            matches!(reason, Some(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)),
            "{reason:?}"
        );
        assert_eq!((conn.unwritten(), conn.end()), (0, None));
        assert_eq!(conn.read(&mut buffer), Received::Bytes(7), "there was no event");
        assert_ne!(conn.read(&mut buffer), Received::Nothing);
    }
}

#[test]
fn a_short_read_saves_the_next_unless_the_end_may_be_behind_it() {
    for (stream, mut client) in pairs() {
        let (mut conn, mut buffer) = (Conn::with_early(stream, b"early".to_vec()), [0; 8]);
        assert_eq!(conn.read(&mut buffer), Received::Bytes(5));
        assert!(!conn.is_drained(), "the socket was not asked");
        client.write_all(b"longer than it").expect("write");
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut buffer), Received::Bytes(8));
        assert!(!conn.is_drained(), "the buffer was filled");
        assert_eq!(conn.read(&mut buffer), Received::Bytes(6));
        assert!(conn.is_drained());
        client.write_all(b"last").expect("write");
        client.say_end();
        conn.note(Readiness {
            readable: true,
            read_closed: true,
            ..Readiness::default()
        });
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut buffer), Received::Bytes(4));
        assert!(!conn.is_drained(), "no event tells of the end again");
        wait_readable(conn.socket());
        assert_eq!(conn.read(&mut buffer), Received::End);
    }
}

#[test]
fn an_owner_that_may_have_missed_an_event_reads_all_the_same() {
    for (stream, mut client) in pairs() {
        let (mut conn, mut buffer) = (Conn::new(stream), [0; 8]);
        assert_eq!(conn.read(&mut buffer), Received::Nothing);
        client.write_all(b"x").expect("write");
        wait_readable(conn.socket());
        conn.expect_input();
        assert_eq!(conn.read(&mut buffer), Received::Bytes(1));
        assert!(!conn.is_drained());
        assert_eq!(conn.read(&mut buffer), Received::Nothing);
    }
}

#[test]
fn bytes_are_sent_at_once_and_the_rest_is_buffered() {
    for (stream, client) in pairs() {
        let mut conn = Conn::new(stream);
        assert_eq!(conn.send(b"at once"), Sent::Bytes(7));
        assert_eq!((conn.unwritten(), conn.release_memory().capacity()), (0, 0));
        let long = vec![7; 8 << 20];
        let Sent::Bytes(sent) = conn.send(&long) else {
            panic!("there is room for some")
        };
        assert_eq!(conn.unwritten(), long.len() - sent);
        assert_eq!(conn.send(b"behind"), Sent::Nothing);
        assert_eq!(conn.unwritten(), long.len() - sent + 6);
        client.say_end();
    }
}

#[test]
fn the_descriptor_is_given_out_only_while_no_byte_is_held() {
    for (stream, client) in plain_pairs() {
        let mut conn = Conn::with_early(stream, b"early".to_vec());
        assert!(conn.raw().is_none());
        assert_eq!(conn.take_early(), b"early");
        assert!(conn.raw().is_some());
        conn.output_mut().extend_from_slice(b"answer");
        assert!(conn.raw().is_none());
        assert_eq!(conn.flush(), Sent::Bytes(6));
        assert!(conn.raw().is_some());
        drop(client);
    }
}

// ---- connecting ------------------------------------------------------------------------------------------------

#[test]
fn a_connection_to_a_server_is_used_once_it_is_established() {
    let listener = listen("127.0.0.1:0");
    let mut conn = Conn::connecting(Stream::connect_tcp(tcp_addr(&listener)).expect("connect"));
    conn.output_mut().extend_from_slice(b"question");
    while !conn.advance_connecting().expect("connect") {
        assert!(conn.is_connecting());
        wait_writable(conn.socket());
        conn.note(writable());
    }
    assert!(!conn.is_connecting());
    assert_eq!(conn.flush(), Sent::Bytes(8));
    assert_eq!(conn.read(&mut [0; 8]), Received::Nothing, "there was no event");
    let (served, _) = accept(&listener);
    let mut served = Conn::new(served);
    wait_readable(served.socket());
    assert_eq!(served.read(&mut [0; 10]), Received::Bytes(8));
    assert_eq!(served.send(b"answer"), Sent::Bytes(6));
    wait_readable(conn.socket());
    conn.note(readable());
    assert_eq!(conn.read(&mut [0; 10]), Received::Bytes(6));
}

#[test]
fn a_connection_to_a_server_with_tls_is_used_once_the_handshake_is_over() {
    let (engine, server) = Authority::new().sides_for_a_client();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let mut conn = connecting_by_tls(&listener, engine);
    conn.output_mut().extend_from_slice(b"question");
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("accept");
        let mut server = rustls::StreamOwned::new(server, stream);
        let mut question = [0; 8];
        server.read_exact(&mut question).expect("read");
        // The tickets come before the answer.
        server.write_all(b"answer").expect("write");
        (question, server)
    });
    while !conn.advance_connecting().expect("connect") {
        assert!(conn.is_connecting());
        assert_eq!(conn.established(), None);
        wait_readable_or_writable(&mut conn);
    }
    assert!(conn.established().is_some());
    assert_eq!(conn.flush(), Sent::Bytes(8));
    let mut answer = [0; 10];
    while conn.read(&mut answer) == Received::Nothing {
        wait_readable(conn.socket());
        conn.note(readable());
    }
    assert_eq!(&answer[..6], b"answer");
    let (question, mut server) = serving.join().expect("served");
    assert_eq!(&question, b"question");
    conn.close_in_order();
    assert_eq!(server.read(&mut answer).expect("the end is said"), 0);
}

#[test]
fn a_refused_connection_with_tls_fails_for_the_reason_of_its_socket() {
    let listener = listen("127.0.0.1:0");
    let address = tcp_addr(&listener);
    drop(listener);
    let (engine, _) = Authority::new().sides_for_a_client();
    let error = match Stream::connect_tcp(address) {
        Err(error) => error,
        Ok(stream) => refusal(&mut Conn::connecting(stream).secure(engine)),
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_server_that_speaks_no_tls_is_told_by_its_first_bytes() {
    let (engine, _) = Authority::new().sides_for_a_client();
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let mut conn = connecting_by_tls(&listener, engine);
    let (mut stream, _) = listener.accept().expect("accept");
    stream.write_all(b"220 mail.example").expect("write");
    let error = refusal(&mut conn);
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert_eq!(
        error.to_string(),
        "it speaks no TLS: it begins with \"220 mail.example\""
    );
}

fn connecting_by_tls(listener: &TcpListener, engine: Engine) -> Conn {
    let stream = Stream::connect_tcp(listener.local_addr().expect("an address")).expect("connect");
    Conn::connecting(stream).secure(engine)
}

/// Goes on with a connection that is never established, and returns the reason.
fn refusal(conn: &mut Conn) -> io::Error {
    loop {
        match conn.advance_connecting() {
            Err(error) => return error,
            Ok(is_established) => assert!(!is_established),
        }
        wait_readable_or_writable(conn);
    }
}

/// Waits for the event that a connection in its beginning waits for.
fn wait_readable_or_writable(conn: &mut Conn) {
    if conn.connecting == Connecting::Socket {
        wait_writable(conn.socket());
        conn.note(writable());
    } else {
        wait_readable(conn.socket());
        conn.note(readable());
    }
}

#[test]
fn a_server_that_does_not_listen_is_told_from_one_that_is_slow() {
    let address = tcp_addr(&listen("127.0.0.1:0"));
    // The loopback may say so at once or with an event.
    let error = match Stream::connect_tcp(address) {
        Err(error) => error,
        Ok(stream) => refusal(&mut Conn::connecting(stream)),
    };
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

// ---- closing ---------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_sends_on_reads_its_answer_and_then_the_end() {
    for (stream, mut client) in pairs() {
        let mut conn = Conn::new(stream);
        client.write_all(b"a request that is not read").expect("write");
        wait_readable(conn.socket());
        conn.output_mut().extend_from_slice(b"answer");
        assert_eq!(conn.flush(), Sent::Bytes(6));
        let now = Instant::now();
        assert_eq!(conn.begin_close(false, LIMITS, now), CloseStep::Waiting);
        assert_eq!(conn.close_deadline(), Some(now + LIMITS.time));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the answer and its end");
        assert_eq!(answer, "answer");
        client.write_all(b"more").expect("the connection is there still");
        drop(client);
        loop {
            wait_readable(conn.socket());
            conn.note(readable());
            match conn.go_on_closing() {
                CloseStep::Done => break,
                CloseStep::Waiting | CloseStep::MoreLater => {}
            }
        }
    }
}

#[test]
fn a_client_that_has_nothing_to_send_is_not_waited_for() {
    for (stream, client) in plain_pairs() {
        let mut conn = Conn::new(stream);
        assert_eq!(conn.begin_close(false, LIMITS, Instant::now()), CloseStep::Done);
        assert!(!conn.is_closing());
        drop(client);
    }
}

#[test]
fn a_client_that_may_be_about_to_send_is_waited_for() {
    for (stream, mut client) in pairs() {
        let mut conn = Conn::new(stream);
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Waiting);
        assert!(conn.is_closing());
        assert_eq!(client.read(&mut [0; 1]).expect("the end"), 0);
        client.say_end();
        wait_readable(conn.socket());
        conn.note(readable());
        assert_eq!(conn.go_on_closing(), CloseStep::Done);
    }
}

#[test]
fn a_client_that_never_stops_is_dropped_at_the_limit() {
    for (stream, mut client) in pairs() {
        let mut conn = Conn::new(stream);
        let sending = std::thread::spawn(move || {
            let (piece, mut sent) = ([7; 10_000], 0);
            while client.write_all(&piece).is_ok() {
                sent += piece.len();
            }
            sent
        });
        let mut step = conn.begin_close(true, LIMITS, Instant::now());
        while step != CloseStep::Done {
            if step == CloseStep::Waiting {
                wait_readable(conn.socket());
                conn.note(readable());
            }
            step = conn.go_on_closing();
        }
        drop(conn);
        assert!(sending.join().expect("the sender") >= LIMITS.bytes);
    }
}

#[test]
fn a_close_does_not_say_the_end_twice() {
    for (stream, mut client) in pairs() {
        let mut conn = Conn::new(stream);
        conn.output_mut().extend_from_slice(b"last");
        assert_eq!(conn.flush_messages(<[u8]>::len, true), Sent::Bytes(4));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("the end");
        assert_eq!(conn.begin_close(true, LIMITS, Instant::now()), CloseStep::Waiting);
        assert!(conn.has_said_end);
    }
}

#[test]
fn a_client_that_is_turned_away_reads_why() {
    for with_end in [false, true] {
        for (stream, mut client) in pairs() {
            let conn = Conn::new(stream);
            client.write_all(b"a request").expect("write");
            wait_readable(conn.socket());
            conn.turn_away(b"no\n", with_end);
            let mut answer = String::new();
            client.read_to_string(&mut answer).expect("the refusal, and no reset");
            assert_eq!(answer, "no\n");
        }
    }
}
