//! Connections of every kind over a tunnel: HTTP, each request by itself, TLS that ends at the door, PostgreSQL, PROXY
//! headers, the service for all other names; many at once; and a tunnel over an upgrade.

use std::fs;

use crate::harness::{Certificate, Client, Daemon, Installation};
use crate::route_peers::{RouteFile, client, hello};
use crate::route_tunnel::{TUNNELS, door, http, serving, tunnels, visited, with_secret};
use crate::tunnel_peers::{DATA, FIN, SYN, TunnelClient, header};
use crate::upgrade::upgrade;

const NAME: &str = "www.example.org";
const SECRET: &str = "TB2pbZ5FR8GQZp9W";

/// The request of PostgreSQL for TLS.
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

fn request(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

#[test]
fn a_request_of_http_and_every_other_name_come_to_a_tunnel() {
    let file = RouteFile::new(TUNNELS, &[("CATCH_ALL", with_secret(SECRET))]);
    let daemon = file.start();
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = Client::connect(&http(&daemon));
    visitor.send(request("any.example"));
    let stream = tunnel.accept();
    tunnel.expect(stream, request("any.example"));
    tunnel.send(stream, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
    tunnel.end(stream);
    let answer = visitor.read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 204 "), "{}", answer.escape_ascii());
    visited(&daemon, &mut tunnel, "other.example");
}

#[test]
fn each_request_is_judged_on_its_way_to_a_tunnel() {
    let service = format!("{}\nhttp = 'per-request'", with_secret(SECRET));
    let file = RouteFile::new(TUNNELS, &[(NAME, service), ("other.example", with_secret("other"))]);
    let daemon = file.start();
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = Client::connect(&http(&daemon));
    visitor.send(request(NAME).repeat(2) + &request("other.example"));
    let stream = tunnel.accept();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    for _ in 0..2 {
        tunnel.expect(stream, request(NAME));
        tunnel.send(stream, answer);
        visitor.read_text(answer);
    }
    let refused = visitor.read_to_end();
    assert!(refused.starts_with(b"HTTP/1.1 421 "), "{}", refused.escape_ascii());
    tunnel.await_reset(stream);
    assert_eq!(daemon.usr1().count("misdirected"), 1);
}

#[test]
fn tls_may_end_in_front_of_a_tunnel() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let service = format!("{}\ntls = {{ cert = '{cert}', key = '{key}' }}", with_secret(SECRET));
    let file = RouteFile::new(TUNNELS, &[("localhost", service)]);
    let daemon = file.start();
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = Client::connect(&daemon.addr()).secure(&certificate);
    visitor.send("ping");
    let stream = tunnel.accept();
    tunnel.expect(stream, "ping");
    tunnel.send(stream, "pong");
    visitor.read_text("pong");
    visitor.half_close();
    assert_eq!(tunnel.take_to_end(stream), b"");
    tunnel.end(stream);
    assert_eq!(visitor.read_to_end(), b"");
}

#[test]
fn a_server_of_postgresql_is_asked_for_tls_through_its_tunnel() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = Client::connect(&daemon.addr());
    visitor.send(SSL_REQUEST);
    visitor.read_text("S");
    visitor.send(hello(NAME));
    let stream = tunnel.accept();
    tunnel.expect(stream, SSL_REQUEST);
    tunnel.send(stream, "S");
    tunnel.expect(stream, hello(NAME));
    tunnel.send(stream, "pong");
    visitor.read_text("pong");
    // One that declines, and one that is not reached.
    for has_answer in [true, false] {
        let mut visitor = Client::connect(&daemon.addr());
        visitor.send(SSL_REQUEST);
        visitor.read_text("S");
        visitor.send(hello(NAME));
        let stream = tunnel.accept();
        tunnel.expect(stream, SSL_REQUEST);
        if has_answer {
            tunnel.send(stream, "N");
        } else {
            tunnel.reset(stream);
        }
        assert_eq!(visitor.read_to_end(), crate::route_peers::INTERNAL_ERROR);
    }
    assert_eq!(daemon.usr1().count("connect no tls"), 1);
}

#[test]
fn a_local_server_learns_of_its_client_by_a_header_through_the_tunnel() {
    let (daemon, _file) = door("send-proxy = 'v1'");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitor = client(&daemon, NAME, "ping");
    let stream = tunnel.accept();
    let to = daemon.addr();
    tunnel.expect(
        stream,
        format!(
            "PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\n",
            visitor.local_port(),
            to.port()
        ),
    );
    tunnel.expect(stream, hello(NAME));
    tunnel.expect(stream, "ping");
    tunnel.end(stream);
    assert_eq!(visitor.read_to_end(), b"");
    visitor.half_close();
    tunnel.take_to_end(stream);
    // The header counts for nothing.
    let sent = u64::try_from(hello(NAME).len() + 4).expect("a short hello");
    let block = daemon.usr1_until(|block| block.count("tunnel streams") == 0);
    assert_eq!(block.count("bytes in"), sent);
}

#[test]
fn visitors_wait_for_a_client_that_leaves_too_many_streams_unanswered() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitors: Vec<Client> = (0..300).map(|_| client(&daemon, NAME, "")).collect();
    let mut streams: Vec<u32> = (0..256).map(|_| tunnel.await_stream()).collect();
    assert!(tunnel.is_quiet(), "more than 256 streams");
    let leaves = visitors.pop().expect("a visitor");
    leaves.reset();
    for stream in &streams[..100] {
        tunnel.send_frame(crate::tunnel_peers::WINDOW_UPDATE, crate::tunnel_peers::ACK, *stream, 0);
    }
    streams.extend((256..299).map(|_| tunnel.accept()));
    for (visitor, stream) in visitors.iter_mut().zip(&streams) {
        tunnel.send(*stream, "pong");
        tunnel.end(*stream);
        assert_eq!(visitor.read_to_end(), b"pong");
    }
}

#[test]
fn a_visitor_that_leaves_makes_room_for_one_that_waits() {
    let (daemon, _file) = door("");
    let mut tunnel = serving(&daemon, SECRET);
    let mut visitors: Vec<Client> = (0..257).map(|_| client(&daemon, NAME, "")).collect();
    let streams: Vec<u32> = (0..256).map(|_| tunnel.await_stream()).collect();
    assert!(tunnel.is_quiet(), "more than 256 streams");
    visitors.remove(0).reset();
    tunnel.await_reset(streams[0]);
    let stream = tunnel.await_stream();
    tunnel.send(stream, "pong");
    visitors[255].read_text("pong");
}

#[test]
fn a_handshake_in_one_frame_with_its_end_leaves_no_stream() {
    let (daemon, _file) = door("");
    let presented = [&b"\x11\x11\0\x10"[..], SECRET.as_bytes()].concat();
    let mut tunnel = TunnelClient::silent(&tunnels(&daemon));
    tunnel.send_raw([&header(DATA, SYN | FIN, 1, 20)[..], &presented].concat());
    daemon.stderr_wait("is connected, and serves");
    let (_visitor, _stream) = visited(&daemon, &mut tunnel, NAME);
    let dump = daemon.usr2();
    let line = dump
        .iter()
        .find(|line| line.contains(": tunnel "))
        .unwrap_or_else(|| panic!("{dump:#?}"));
    assert!(
        line.contains("state = serving") && line.contains("streams = 1,"),
        "{line}"
    );
}

#[test]
fn a_reload_of_the_times_is_for_the_tunnels_that_come() {
    let (daemon, file) = door("tunnel-ping = '1h'");
    let text = fs::read_to_string(file.path()).unwrap();
    fs::write(file.path(), text.replace("'1h'", "'1s'")).unwrap();
    daemon.signal(nix::sys::signal::Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    let mut tunnel = serving(&daemon, SECRET);
    tunnel.await_pings(1);
}

#[test]
fn at_an_upgrade_clients_are_sent_away_and_their_visitors_stay_until_their_end() {
    let file = RouteFile::new(TUNNELS, &[(NAME, with_secret(SECRET))]);
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", file.path()])
        .installed_at(&installation.program())
        .start();
    let mut used = serving(&daemon, SECRET);
    let (mut visitor, stream) = visited(&daemon, &mut used, NAME);
    let mut unused = serving(&daemon, SECRET);
    upgrade(&daemon, daemon.pid(), 1);
    assert_eq!(used.await_go_away(), 0);
    unused.await_end();
    // A client that knows the word comes to the successor at once.
    let mut back = TunnelClient::connect(&tunnels(&daemon), SECRET);
    daemon.stderr_wait(&format!("tunnel client {} is connected, and serves", back.name()));
    visited(&daemon, &mut back, NAME);
    used.send(stream, "still here");
    visitor.read_text("still here");
    used.end(stream);
    visitor.half_close();
    used.take_to_end(stream);
    // The old session is closed behind its last stream.
    used.await_end();
    visited(&daemon, &mut back, NAME);
}
