//! The route door and its tunnel clients: who is let in, and how the connections of visitors come to them.

use std::fs;
use std::thread;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::harness::{Address, Certificate, Client, Daemon, StatsBlock, WATCHDOG};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, at, client, hello};
use crate::tunnel_peers::{
    ACK, DATA, GO_AWAY, PING, RST, SYN, TunnelClient, WINDOW_UPDATE, first_stream, handshake, header,
};

/// The keys of a door that listens for HTTP as its second, and for tunnel clients as its third listener.
pub(crate) const TUNNELS: &str = "http-listen = '127.0.0.1:0'\ntunnel-listen = '127.0.0.1:0'";

/// The keys of a service that is served by tunnel clients.
pub(crate) fn with_secret(secret: &str) -> String {
    format!("client-secret = '{secret}'")
}

/// The name of most tests, and its secret.
const NAME: &str = "www.example.org";
const SECRET: &str = "TB2pbZ5FR8GQZp9W";
/// The words of the log at the end of a reload.
const RELOADED: &str = "the configuration was read again";

/// A door with one service, which is served by tunnel clients, and these keys.
#[track_caller]
pub(crate) fn door(keys: &str) -> (Daemon, RouteFile) {
    let file = RouteFile::new(&format!("{TUNNELS}\n{keys}"), &[(NAME, with_secret(SECRET))]);
    (file.start(), file)
}

/// The address for requests of HTTP.
#[track_caller]
pub(crate) fn http(daemon: &Daemon) -> Address {
    daemon.nth_addr(2)
}

/// The address for tunnel clients.
#[track_caller]
pub(crate) fn tunnels(daemon: &Daemon) -> Address {
    daemon.nth_addr(3)
}

/// A tunnel client of this door that serves.
#[track_caller]
pub(crate) fn serving(daemon: &Daemon, secret: &str) -> TunnelClient {
    let client = TunnelClient::connect(&tunnels(daemon), secret);
    daemon.stderr_wait(&format!("tunnel client {} is connected, and serves", client.name()));
    client
}

/// A visitor and its stream, by which both have said something.
#[track_caller]
pub(crate) fn visited(daemon: &Daemon, tunnel: &mut TunnelClient, name: &str) -> (Client, u32) {
    let mut visitor = client(daemon, name, "ping");
    let stream = tunnel.accept();
    tunnel.expect(stream, hello(name));
    tunnel.expect(stream, "ping");
    tunnel.send(stream, "pong");
    visitor.read_text("pong");
    (visitor, stream)
}

/// Waits until the dump shows a tunnel client that owes an answer, or none.
#[track_caller]
fn until_suspect(daemon: &Daemon, is_suspect: bool) {
    let deadline = Instant::now() + WATCHDOG;
    while daemon.usr2().iter().any(|line| line.contains("state = suspect")) != is_suspect {
        assert!(Instant::now() < deadline, "{:?}", daemon.usr2());
    }
}

#[track_caller]
fn reload(daemon: &Daemon) {
    let before = daemon.stderr.text().matches(RELOADED).count();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth(RELOADED, before + 1);
}

fn counts(block: &StatsBlock, labels: &[&str]) -> Vec<u64> {
    labels.iter().map(|label| block.count(label)).collect()
}

// ---- the way of a visitor --------------------------------------------------------------------------------------

#[test]
fn visitors_of_a_name_come_to_the_client_with_its_secret_and_each_end_is_passed_on() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    visitor.half_close();
    assert_eq!(tunnel.take_to_end(stream), b"");
    tunnel.send(stream, "behind the end of the visitor");
    tunnel.end(stream);
    assert_eq!(visitor.read_to_end(), b"behind the end of the visitor");

    // The server ends first.
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    tunnel.end(stream);
    assert_eq!(visitor.read_to_end(), b"");
    visitor.send("behind the end of the server");
    visitor.half_close();
    assert_eq!(tunnel.take_to_end(stream), b"behind the end of the server");
    let block = daemon.usr1_until(|block| block.count("tunnel streams") == 0);
    let labels = [
        "tunnels",
        "tunnels total",
        "streams total",
        "streams reset",
        "routes active",
    ];
    assert_eq!(counts(&block, &labels), [1, 1, 2, 0, 0]);
}

#[test]
fn the_first_bytes_of_a_visitor_leave_without_a_wait_for_the_client() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = client(&daemon, NAME, "");
    let stream = tunnel.await_stream();
    // The stream is not acknowledged.
    tunnel.expect(stream, hello(NAME));
    tunnel.send(stream, "pong");
    visitor.read_text("pong");
}

#[test]
fn a_tunnel_may_be_carried_by_tls() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let keys = format!("tunnel-listen = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'");
    let file = RouteFile::new(&keys, &[(NAME, with_secret(SECRET))]);
    let daemon = file.start();
    let mut tunnel = TunnelClient::connect_by_tls(&daemon.nth_addr(2), &certificate, SECRET);
    daemon.stderr_wait("is connected, and serves");
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    let bulk = bytes(300_000, 7);
    tunnel.send(stream, &bulk);
    tunnel.end(stream);
    assert!(visitor.read_to_end() == bulk);
    // Without TLS nothing is said there.
    let mut clear = TunnelClient::silent(&daemon.nth_addr(2).without_tls());
    clear.send_raw(handshake(SECRET));
    daemon.stderr_wait("refused 127.0.0.1");
}

#[test]
fn a_handshake_is_read_in_whatever_pieces_it_comes() {
    let (daemon, _file) = door("");
    for at in 1..handshake(SECRET).len() {
        let bytes = handshake(SECRET);
        let mut tunnel = TunnelClient::silent(&tunnels(&daemon));
        tunnel.send_raw(&bytes[..at]);
        tunnel.send_raw(&bytes[at..]);
        visited(&daemon, &mut tunnel, NAME);
    }
    let mut tunnel = TunnelClient::silent(&tunnels(&daemon));
    for byte in handshake(SECRET) {
        tunnel.send_raw([byte]);
    }
    visited(&daemon, &mut tunnel, NAME);
    // The secret in several frames, with more behind it.
    let presented = [&b"\x11\x11\0\x10"[..], SECRET.as_bytes(), b"more"].concat();
    let mut tunnel = TunnelClient::silent(&tunnels(&daemon));
    tunnel.send_frame(WINDOW_UPDATE, SYN, 1, 0);
    for byte in presented {
        tunnel.send_raw([&header(DATA, 0, 1, 1)[..], &[byte]].concat());
    }
    visited(&daemon, &mut tunnel, NAME);
}

// ---- who is let in ---------------------------------------------------------------------------------------------

#[test]
fn a_client_that_cannot_serve_is_refused_with_a_reason_that_tells_no_secret() {
    let guessed = "gu3ssed-secret";
    let longest = u16::MAX.to_be_bytes();
    let cases = [
        (handshake(guessed), "no service has its secret"),
        (handshake(""), "it has an empty secret"),
        (
            first_stream(&[&[0x11, 0x11][..], &longest].concat()),
            "its secret has 65535 bytes, and the longest has 4096",
        ),
        (
            first_stream(b"\x12\x11\0\x01a"),
            "its first stream does not begin as that of a tunnel client does",
        ),
        (
            first_stream(b"\x11\x11\0\x10TB2pb"),
            "its first stream has ended before its secret was complete",
        ),
        (
            handshake(SECRET)[..20].to_vec(),
            "its handshake was not complete within --hello-timeout",
        ),
        (Vec::new(), "its handshake was not complete within --hello-timeout"),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            "it has sent bytes that are no yamux frame (version 71)",
        ),
        (
            header(WINDOW_UPDATE, RST, 1, 0),
            "its handshake was not complete within --hello-timeout",
        ),
    ];
    // Five lines of a kind are logged in a while.
    for cases in cases.chunks(5) {
        let (daemon, _file) = door("hello-timeout = '200ms'");
        for (bytes, why) in cases {
            let mut tunnel = TunnelClient::silent(&tunnels(&daemon));
            tunnel.send_raw(bytes);
            tunnel.await_end();
            daemon.stderr_wait(&format!("refused tunnel client {}: {why}", tunnel.name()));
        }
        let block = daemon.usr1();
        let refused = u64::try_from(cases.len()).expect("a short list");
        assert_eq!(counts(&block, &["tunnels", "tunnels refused"]), [0, refused]);
        let log = daemon.stderr.text();
        for secret in [guessed, SECRET, "TB2pb"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
        // Everyone else is served.
        let mut tunnel = serving(&daemon, SECRET);
        visited(&daemon, &mut tunnel, NAME);
    }
}

#[test]
fn a_visitor_without_a_client_is_told_so() {
    let (daemon, _file) = door("tunnel-wait = 0");
    let mut visitor = client(&daemon, NAME, "");
    assert_eq!(visitor.read_to_end(), INTERNAL_ERROR);
    let mut visitor = Client::connect(&http(&daemon));
    visitor.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let answer = visitor.read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
    daemon.stderr_wait("was not served: its service has no server, or no tunnel client");
}

/// The clients of a daemon that has started are on their way to it, and so is one that was restarted.
#[test]
fn visitors_wait_for_a_client_that_is_expected() {
    let (daemon, _file) = door("");
    for _ in 0..2 {
        let mut early = client(&daemon, NAME, "");
        let mut other = Client::connect(&http(&daemon));
        other.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
        daemon.usr1_until(|stats| stats.count("connections") >= 2);
        let mut gone = client(&daemon, NAME, "");
        gone.send("more");
        gone.reset();
        let mut tunnel = TunnelClient::connect(&tunnels(&daemon), SECRET);
        let (first, second) = (tunnel.accept(), tunnel.accept());
        for stream in [first, second] {
            tunnel.send(stream, "served");
        }
        early.read_text("served");
        other.read_text("served");
        // It comes to its end, and its visitors with it.
        drop(tunnel);
        daemon.usr1_until(|stats| stats.count("connections") == 0);
    }
    assert!(daemon.usr1().count("connect expected") >= 4);
}

#[test]
fn a_client_that_stays_away_is_expected_for_so_long_alone() {
    let (daemon, _file) = door("tunnel-wait = '300ms'");
    let mut early = client(&daemon, NAME, "");
    assert_eq!(early.read_to_end(), INTERNAL_ERROR);
    let mut late = client(&daemon, NAME, "");
    assert_eq!(late.read_to_end(), INTERNAL_ERROR);
    // The first has waited, unless the machine was slow: the second has not.
    assert!(daemon.usr1().count("connect expected") <= 1);
}

#[test]
fn two_hundred_silent_connections_cost_the_others_nothing() {
    let (daemon, _file) = door("");
    let mut silent: Vec<_> = (0..200).map(|_| TunnelClient::silent(&tunnels(&daemon))).collect();
    let mut tunnel = serving(&daemon, SECRET);
    visited(&daemon, &mut tunnel, NAME);
    assert_eq!(daemon.usr1().count("tunnels"), 201);
    // Over 256 strangers the oldest has to go.
    silent.extend((0..100).map(|_| TunnelClient::silent(&tunnels(&daemon))));
    silent[0].await_end();
    daemon.stderr_wait("too many others connect, and its handshake was not complete");
    visited(&daemon, &mut tunnel, NAME);
}

#[test]
fn a_client_waits_with_its_secret_until_the_store_was_read() {
    // Nothing listens there: the first failure ends the wait.
    let store = "[route.web.store]\naddr = '127.0.0.1:1'\n";
    let file = RouteFile::new(TUNNELS, &[(NAME, with_secret(SECRET))]);
    let text = fs::read_to_string(file.path()).unwrap();
    fs::write(file.path(), text + store).unwrap();
    let daemon = file.start();
    let mut stranger = TunnelClient::connect(&tunnels(&daemon), "other");
    let mut tunnel = serving(&daemon, SECRET);
    stranger.await_end();
    visited(&daemon, &mut tunnel, NAME);
}

// ---- several clients -------------------------------------------------------------------------------------------

#[test]
fn clients_with_one_secret_share_the_visitors() {
    let (daemon, _file) = door("");
    let [mut old, mut new] = std::array::from_fn(|_| serving(&daemon, SECRET));
    let first = visited(&daemon, &mut new, NAME);
    let second = visited(&daemon, &mut old, NAME);
    let third = visited(&daemon, &mut new, NAME);
    second.0.reset();
    old.await_reset(second.1);
    visited(&daemon, &mut old, NAME);
    drop((first, third));
}

#[test]
fn the_client_that_has_come_last_serves_alone_where_the_operator_wants_it() {
    let service = format!("{}\nreplace = true", with_secret(SECRET));
    let file = RouteFile::new(TUNNELS, &[(NAME, service)]);
    let daemon = file.start();
    let mut old = serving(&daemon, SECRET);
    let visit = visited(&daemon, &mut old, NAME);
    let mut new = serving(&daemon, SECRET);
    let visits = [(); 3].map(|()| visited(&daemon, &mut new, NAME));
    // The visitor of the old one stays.
    let (mut visitor, stream) = visit;
    old.send(stream, "still here");
    visitor.read_text("still here");
    drop(new);
    daemon.usr1_until(|block| block.count("tunnels") == 1);
    visited(&daemon, &mut old, NAME);
    drop(visits);
}

#[test]
fn a_client_that_goes_away_takes_no_more_visitors_and_keeps_its_own() {
    let (daemon, _file) = door("");
    let [mut stays, mut leaves] = std::array::from_fn(|_| serving(&daemon, SECRET));
    let (mut visitor, stream) = visited(&daemon, &mut leaves, NAME);
    leaves.send_frame(GO_AWAY, 0, 0, 0);
    daemon.stderr_wait("takes no more connections");
    let visits = [(); 3].map(|()| visited(&daemon, &mut stays, NAME));
    leaves.send(stream, "still here");
    leaves.end(stream);
    assert_eq!(visitor.read_to_end(), b"still here");
    drop(visits);
}

#[test]
fn a_client_that_is_lost_costs_its_own_visitors_and_the_next_is_served_by_another() {
    let (daemon, _file) = door("");
    let mut stays = serving(&daemon, SECRET);
    let mut lost = serving(&daemon, SECRET);
    let (mut cut, stream) = visited(&daemon, &mut lost, NAME);
    let (mut other, kept) = visited(&daemon, &mut stays, NAME);
    // In the middle of a frame.
    lost.send_raw([&header(DATA, 0, stream, 1000)[..], b"a part"].concat());
    cut.read_text("a part");
    drop(lost);
    cut.expect_cut();
    daemon.stderr_wait("1 connection was cut");
    let visits = [(); 2].map(|()| visited(&daemon, &mut stays, NAME));
    stays.send(kept, "untouched");
    other.read_text("untouched");
    let mut back = serving(&daemon, SECRET);
    visited(&daemon, &mut back, NAME);
    let block = daemon.usr1();
    assert_eq!(counts(&block, &["tunnels", "tunnels total", "tunnels lost"]), [2, 3, 1]);
    drop(visits);
}

// ---- the data path ---------------------------------------------------------------------------------------------

#[test]
fn a_client_that_answers_nothing_is_noticed_by_its_first_visitor_and_the_next_go_to_another() {
    let (daemon, _file) = door("tunnel-ping-timeout = '2s'");
    let mut stays = serving(&daemon, SECRET);
    let mut dead = serving(&daemon, SECRET);
    dead.answers_pings = false;
    let mut waits = client(&daemon, NAME, "");
    // The first visitor has caused a ping, which is not answered.
    dead.await_pings(1);
    daemon.stderr_wait("no answer to a ping through the tunnel within --tunnel-ping-timeout; 1 connection was cut");
    assert_eq!(waits.read_to_end(), INTERNAL_ERROR);
    let visits = [(); 3].map(|()| visited(&daemon, &mut stays, NAME));
    dead.await_end();
    let block = daemon.usr1();
    assert_eq!(counts(&block, &["tunnels", "tunnels silent"]), [1, 1]);
    assert!(block.get("ping p50 ms").is_some());
    drop(visits);
}

#[test]
fn a_suspect_client_gets_visitors_last() {
    let (daemon, _file) = door("tunnel-ping-timeout = '20s'");
    let mut stays = serving(&daemon, SECRET);
    let mut suspect = serving(&daemon, SECRET);
    suspect.answers_pings = false;
    let first = client(&daemon, NAME, "");
    suspect.await_pings(1);
    until_suspect(&daemon, true);
    let visits = [(); 3].map(|()| visited(&daemon, &mut stays, NAME));
    // It answers again.
    suspect.send_frame(PING, ACK, 0, 0);
    until_suspect(&daemon, false);
    suspect.answers_pings = true;
    suspect.accept();
    visited(&daemon, &mut suspect, NAME);
    drop((first, visits));
}

#[test]
fn a_client_is_asked_for_a_sign_of_life_now_and_then() {
    let (daemon, _file) = door("tunnel-ping = '1s'");
    let mut tunnel = serving(&daemon, SECRET);
    tunnel.await_pings(2);
    // And may ask itself.
    tunnel.send_frame(PING, SYN, 0, 77);
    loop {
        let frame = tunnel.next_frame().expect("an answer");
        if frame.kind == PING && frame.flags == ACK {
            assert_eq!(frame.length, 77);
            break;
        }
    }
    visited(&daemon, &mut tunnel, NAME);
}

// ---- bad peers -------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_breaks_the_protocol_is_given_up_and_the_others_are_served() {
    let four = header(DATA, 0, 2, u32::MAX);
    let cases = [
        (four, "more than the window of stream 2"),
        (header(DATA, 0, 2, (1 << 20) + 1), "more than the window of stream 2"),
        (header(9, 0, 0, 0), "a frame of the unknown type 9"),
        (
            header(WINDOW_UPDATE, SYN, 4, 0),
            "a stream with the number 4, which is not its to give",
        ),
        (vec![1; 12], "bytes that are no yamux frame (version 1)"),
    ];
    // Five lines of a kind are logged in a while.
    for cases in cases.chunks(3) {
        let (daemon, _file) = door("");
        let mut good = serving(&daemon, SECRET);
        for (frames, why) in cases {
            let mut bad = serving(&daemon, SECRET);
            let (mut visitor, stream) = visited(&daemon, &mut bad, NAME);
            assert_eq!(stream, 2);
            bad.send_raw(frames);
            visitor.expect_cut();
            bad.await_end();
            assert_eq!(bad.went_away, Some(1), "{why}");
            daemon.stderr_wait(&format!("it has sent {why}; 1 connection was cut"));
        }
        visited(&daemon, &mut good, NAME);
        let faulty = u64::try_from(cases.len()).expect("a short list");
        assert_eq!(daemon.usr1().count("tunnels faulty"), faulty);
    }
}

#[test]
fn streams_that_a_client_opens_by_itself_are_reset() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    for stream in [3, 5, 7] {
        tunnel.send_raw([&header(DATA, SYN, stream, 5)[..], b"hello"].concat());
        loop {
            let frame = tunnel.next_frame().expect("a reset");
            if frame.flags & RST != 0 {
                assert_eq!(frame.stream, stream);
                break;
            }
        }
    }
    visited(&daemon, &mut tunnel, NAME);
}

#[test]
fn a_local_server_that_a_client_does_not_reach_is_told_as_one_that_is_down() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = Client::connect(&http(&daemon));
    visitor.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let stream = tunnel.await_stream();
    tunnel.reset(stream);
    let answer = visitor.read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
    // One that was answered already is cut.
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    tunnel.reset(stream);
    visitor.expect_cut();
    let block = daemon.usr1();
    assert_eq!(
        counts(&block, &["connect failed", "relay cut server", "streams reset"]),
        [1, 1, 2]
    );
}

#[test]
fn a_visitor_that_leaves_resets_its_stream_alone() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let (mut stays, kept) = visited(&daemon, &mut tunnel, NAME);
    let (leaves, left) = visited(&daemon, &mut tunnel, NAME);
    leaves.reset();
    tunnel.await_reset(left);
    // Bytes that are on their way for the stream are thrown away.
    tunnel.send_raw([&header(DATA, 0, left, 4)[..], b"late"].concat());
    tunnel.send(kept, "untouched");
    stays.read_text("untouched");
}

// ---- much of everything ----------------------------------------------------------------------------------------

/// Bytes in which each position has its own.
fn bytes(length: usize, seed: u32) -> Vec<u8> {
    (0..u32::try_from(length).expect("a short length"))
        .map(|at| at.wrapping_mul(2_654_435_761).wrapping_add(seed).to_be_bytes()[0])
        .collect()
}

#[test]
fn bulk_goes_both_ways_at_the_same_time() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    let (up, down) = (bytes(6_000_000, 1), bytes(5_000_000, 2));
    let sent = up.clone();
    let talking = thread::spawn(move || visitor.exchange(&sent));
    // A client of its time: it takes what comes while it waits for credit.
    tunnel.send(stream, &down);
    tunnel.end(stream);
    let got = tunnel.take_to_end(stream);
    assert!(got == up, "{} bytes", got.len());
    assert!(talking.join().expect("the visitor") == down);
    let block = daemon.usr1_until(|block| block.count("tunnel streams") == 0);
    assert!(block.count("bytes spliced") > 5_000_000);
}

#[test]
fn a_stream_that_stalls_stalls_no_other() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let (mut stalled, slow) = visited(&daemon, &mut tunnel, NAME);
    let (mut busy, fast) = visited(&daemon, &mut tunnel, NAME);
    // As much as the window allows, to a visitor that reads nothing.
    let bulk = bytes(16_000_000, 3);
    let mut sent = 0;
    while sent < bulk.len() {
        let credit = usize::try_from(tunnel.credit(slow)).expect("a credit");
        let next = bulk.len().min(sent + credit);
        tunnel.send(slow, &bulk[sent..next]);
        sent = next;
        if tunnel.credit(slow) == 0 {
            if !tunnel.has_input_within(200) {
                break;
            }
            tunnel.next_frame().expect("credit");
        }
    }
    assert!(sent < bulk.len(), "a visitor that reads nothing takes everything");
    let flowing = bytes(3_000_000, 4);
    let (expected, reading) = (flowing.clone(), thread::spawn(move || busy.read_to_end()));
    tunnel.send(fast, &flowing);
    tunnel.end(fast);
    assert!(reading.join().expect("the visitor") == expected);
    // Then the other one reads.
    let reading = thread::spawn(move || stalled.read_to_end());
    tunnel.send(slow, &bulk[sent..]);
    tunnel.end(slow);
    assert!(reading.join().expect("the visitor") == bulk);
}

#[test]
fn a_thousand_visitors_share_one_tunnel() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitors: Vec<Client> = (0..1000)
        .map(|at| client(&daemon, NAME, &format!("from {at:04}")))
        .collect();
    let mut streams = Vec::new();
    for _ in 0..1000 {
        let stream = tunnel.accept();
        tunnel.expect(stream, hello(NAME));
        let said = tunnel.take_bytes(stream, 9);
        tunnel.send(stream, [b"to ", &said[5..]].concat());
        streams.push(stream);
    }
    for (at, visitor) in visitors.iter_mut().enumerate() {
        visitor.read_text(&format!("to {at:04}"));
    }
    assert_eq!(
        counts(&daemon.usr1(), &["tunnel streams", "streams total"]),
        [1000, 1000]
    );
    drop(tunnel);
    for visitor in &mut visitors {
        visitor.expect_cut();
    }
    daemon.stderr_wait("1000 connections were cut");
}

// ---- changes ---------------------------------------------------------------------------------------------------

#[test]
fn a_reload_changes_secrets_and_services_and_cuts_no_tunnel() {
    let (daemon, file) = door("tunnel-wait = 0");
    let mut tunnel = serving(&daemon, SECRET);
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    file.write(
        TUNNELS,
        &[(NAME, with_secret("another")), ("new.example", with_secret(SECRET))],
    );
    reload(&daemon);
    // The same tunnel serves another name now.
    let visit = visited(&daemon, &mut tunnel, "new.example");
    assert_eq!(client(&daemon, NAME, "").read_to_end(), INTERNAL_ERROR);
    let mut another = serving(&daemon, "another");
    visited(&daemon, &mut another, NAME);
    file.write(TUNNELS, &[(NAME, with_secret("another"))]);
    reload(&daemon);
    daemon.stderr_wait(&format!(
        "no service has the secret of tunnel client {} any more",
        tunnel.name()
    ));
    tunnel.send(stream, "through all of it");
    visitor.read_text("through all of it");
    assert_eq!(daemon.usr1().count("tunnels"), 2);
    drop(visit);
}

#[test]
fn at_its_end_a_door_says_go_away_and_gives_the_visitors_their_time() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut unused = TunnelClient::connect(&tunnels(&daemon), SECRET);
    daemon.stderr_wait(&format!("tunnel client {} is connected", unused.name()));
    let mut visit = visited(&daemon, &mut unused, NAME);
    let (mut visitor, stream) = visited(&daemon, &mut tunnel, NAME);
    unused.end(visit.1);
    visit.0.half_close();
    unused.take_to_end(visit.1);
    daemon.usr1_until(|block| block.count("tunnel streams") == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(tunnel.await_go_away(), 0);
    unused.await_end();
    tunnel.send(stream, "the last words");
    visitor.read_text("the last words");
    tunnel.end(stream);
    visitor.half_close();
    tunnel.take_to_end(stream);
    assert!(daemon.wait_exit().success());
    tunnel.await_end();
}

#[test]
fn connections_to_servers_and_tunnels_live_side_by_side() {
    let backend = Backend::new();
    let services = [(NAME, with_secret(SECRET)), ("near.example", at(backend.address()))];
    let daemon = RouteFile::new(TUNNELS, &services).start();
    let mut tunnel = serving(&daemon, SECRET);
    visited(&daemon, &mut tunnel, NAME);
    crate::route_peers::pair(&daemon, &backend, "near.example");
}
