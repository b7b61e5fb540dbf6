//! The route door with the tunnel client of this program: from a visitor to a local server and back.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::harness::{Certificate, Client, Daemon, Installation, free_port};
use crate::route_peers::{Backend, RouteFile, Served, client, hello, pair};
use crate::route_tunnel::{TUNNELS, door, http, tunnels, with_secret};
use crate::upgrade::upgrade;

const NAME: &str = "www.example.org";
const SECRET: &str = "TB2pbZ5FR8GQZp9W";

/// A client of the tunnels at `remote` for this local server, which has connected.
#[track_caller]
fn tunnel_to(remote: &str, local: SocketAddr, more: &[&str]) -> Daemon {
    let local = local.to_string();
    let flags = ["tunnel", "--remote", remote, "--local", &local];
    Daemon::with(flags).args(more).env("TRC_SECRET", SECRET).spawn()
}

/// The same for a door, which has let it in.
#[track_caller]
fn tunnel(daemon: &Daemon, local: SocketAddr, nth: usize) -> Daemon {
    let tunnel = tunnel_to(&tunnels(daemon).to_string(), local, &[]);
    daemon.stderr_wait_nth("is connected, and serves", nth);
    tunnel
}

/// Bytes in which each position has its own.
fn bytes(length: u32, seed: u32) -> Vec<u8> {
    (0..length)
        .map(|at| at.wrapping_mul(2_654_435_761).wrapping_add(seed).to_be_bytes()[0])
        .collect()
}

/// Sends these bytes both ways at once over a connection that goes both ways, and compares what comes.
#[track_caller]
fn exchange((mut visitor, served): (Client, Served)) {
    let (up, down) = (bytes(7_000_000, 1), bytes(6_000_000, 2));
    let (sent, answered) = (up.clone(), down.clone());
    let mut reader = served.stream.try_clone().expect("another handle");
    let serving = thread::spawn(move || {
        let mut served = served;
        served.send(answered);
        served.half_close();
        served
    });
    let reading = thread::spawn(move || {
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut got).expect("the visitor's bytes");
        got
    });
    assert!(visitor.exchange(&sent) == down, "from the server");
    assert!(reading.join().expect("the server") == up, "from the visitor");
    drop(serving.join().expect("the server"));
}

#[test]
fn a_visitor_reaches_a_local_server_and_each_end_is_passed_on() {
    let ((daemon, _file), backend) = (door(""), Backend::new());
    let _tunnel = tunnel(&daemon, backend.address(), 1);
    let (mut visitor, mut served) = pair(&daemon, &backend, NAME);
    visitor.half_close();
    assert_eq!(served.read_to_end(), b"");
    served.send("behind the end of the visitor");
    drop(served);
    assert_eq!(visitor.read_to_end(), b"behind the end of the visitor");
    let (mut visitor, mut served) = pair(&daemon, &backend, NAME);
    served.half_close();
    assert_eq!(visitor.read_to_end(), b"");
    visitor.send("behind the end of the server");
    visitor.half_close();
    assert_eq!(served.read_to_end(), b"behind the end of the server");
    let (visitor, mut served) = pair(&daemon, &backend, NAME);
    visitor.reset();
    served.expect_reset();
    daemon.usr1_until(|block| block.count("tunnel streams") == 0);
}

#[test]
fn bulk_goes_both_ways_through_both_programs() {
    let ((daemon, _file), backend) = (door(""), Backend::new());
    let _tunnel = tunnel(&daemon, backend.address(), 1);
    exchange(pair(&daemon, &backend, NAME));
    let block = daemon.usr1_until(|block| block.count("tunnel streams") == 0);
    assert!(block.count("bytes spliced") > 6_000_000, "{block:?}");
}

#[test]
fn bulk_goes_both_ways_by_tls() {
    let (certificate, backend) = (Certificate::new(), Backend::new());
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let keys = format!("tunnel-listen = 'tls:127.0.0.1:0'\ncert = '{cert}'\nkey = '{key}'");
    let daemon = RouteFile::new(&keys, &[(NAME, with_secret(SECRET))]).start();
    let remote = format!("tls:{}", daemon.nth_addr(2).without_tls());
    let flags = ["--ca", &cert, "--server-name", "localhost"];
    let _tunnel = tunnel_to(&remote, backend.address(), &flags);
    daemon.stderr_wait("is connected, and serves");
    exchange(pair(&daemon, &backend, NAME));
}

#[test]
fn a_client_that_is_killed_costs_its_own_visitors_and_another_serves_the_next() {
    let ((daemon, _file), backend) = (door(""), Backend::new());
    let _stays = tunnel(&daemon, backend.address(), 1);
    let killed = tunnel(&daemon, backend.address(), 2);
    // It has come last, and is the first to be chosen.
    let (mut cut, _served) = pair(&daemon, &backend, NAME);
    let (mut kept, mut served) = pair(&daemon, &backend, NAME);
    killed.signal(Signal::SIGKILL);
    cut.expect_cut();
    pair(&daemon, &backend, NAME);
    served.send("untouched");
    kept.read_text("untouched");
    let _back = tunnel(&daemon, backend.address(), 3);
    pair(&daemon, &backend, NAME);
}

/// Both windows and all sockets on the way are full before the other one comes.
#[test]
fn a_local_server_that_reads_nothing_stalls_its_own_visitor_alone() {
    let ((daemon, _file), backend) = (door(""), Backend::new());
    let _tunnel = tunnel(&daemon, backend.address(), 1);
    let (visitor, mut stalled) = pair(&daemon, &backend, NAME);
    let bulk = bytes(40_000_000, 3);
    let sent = bulk.clone();
    let (done, is_done) = mpsc::channel();
    let sending = thread::spawn(move || {
        let mut visitor = visitor;
        visitor.send(sent);
        done.send(()).expect("the test");
        visitor.half_close();
        visitor
    });
    exchange(pair(&daemon, &backend, NAME));
    assert!(is_done.try_recv().is_err(), "all of it lies on the way");
    let mut got = vec![0; bulk.len()];
    std::io::Read::read_exact(&mut stalled.stream, &mut got).expect("the visitor's bytes");
    assert!(got == bulk);
    assert_eq!(stalled.read_to_end(), b"");
    drop(sending.join().expect("the visitor"));
}

#[test]
fn a_local_server_that_is_down_is_told_to_the_visitor() {
    let ((daemon, _file), port) = (door(""), free_port());
    let _tunnel = tunnel(&daemon, SocketAddr::from(([127, 0, 0, 1], port)), 1);
    let mut visitor = Client::connect(&http(&daemon));
    visitor.send(format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n"));
    let answer = visitor.read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 502 "), "{}", answer.escape_ascii());
    // The tunnel is as good as before.
    let backend = Backend::at(port);
    pair(&daemon, &backend, NAME);
}

#[test]
fn a_client_comes_back_to_a_door_that_was_started_again_while_visitors_were_there() {
    let backend = Backend::new();
    let (port, visitors) = (free_port(), 100);
    let keys = format!("tunnel-listen = '127.0.0.1:{port}'");
    let file = RouteFile::new(&keys, &[(NAME, with_secret(SECRET))]);
    let daemon = file.start();
    let _tunnel = tunnel_to(&format!("127.0.0.1:{port}"), backend.address(), &[]);
    daemon.stderr_wait("is connected, and serves");
    let mut pairs: Vec<_> = (0..visitors).map(|_| pair(&daemon, &backend, NAME)).collect();
    daemon.signal(Signal::SIGKILL);
    daemon.wait_exit();
    for (visitor, served) in &mut pairs {
        visitor.read_to_end_or_reset();
        served.expect_reset();
    }
    let daemon = file.start();
    daemon.stderr_wait("is connected, and serves");
    pair(&daemon, &backend, NAME);
}

#[test]
fn a_client_comes_to_the_successor_at_once_and_old_visitors_stay() {
    let (file, backend) = (RouteFile::new(TUNNELS, &[(NAME, with_secret(SECRET))]), Backend::new());
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", file.path()])
        .installed_at(&installation.program())
        .start();
    let _tunnel = tunnel(&daemon, backend.address(), 1);
    let (mut old, mut served) = pair(&daemon, &backend, NAME);
    upgrade(&daemon, daemon.pid(), 1);
    daemon.stderr_wait_nth("is connected, and serves", 2);
    pair(&daemon, &backend, NAME);
    served.send("still here");
    old.read_text("still here");
    drop(served);
    assert_eq!(old.read_to_end(), b"");
}

#[test]
fn a_thousand_visitors_share_a_tunnel_and_each_has_its_own_answer() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("a higher limit");
    let ((daemon, _file), backend) = (door(""), Backend::new());
    let _tunnel = tunnel(&daemon, backend.address(), 1);
    let mut visitors: Vec<Client> = (0..1000).map(|at| client(&daemon, NAME, &format!("{at:04}"))).collect();
    for _ in 0..1000 {
        let mut served = backend.accept();
        served.expect(hello(NAME));
        let mut number = [0; 4];
        std::io::Read::read_exact(&mut served.stream, &mut number).expect("a number");
        served.send([b"to ", &number[..]].concat());
    }
    for (at, visitor) in visitors.iter_mut().enumerate() {
        assert_eq!(visitor.read_to_end().escape_ascii().to_string(), format!("to {at:04}"));
    }
}
