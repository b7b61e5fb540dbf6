//! The active checks of servers behind a route door.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Daemon, WATCHDOG, reset_on_close};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, at, client, pair};

const GOOD: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The thing that a server does with each connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// It sends this, and closes.
    Answer(&'static [u8]),
    /// It sends this, and keeps the connection.
    Begin(&'static [u8]),
    /// It resets the connection.
    Reset,
}

/// A server that is asked how it is.
struct Health {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    /// The bytes of each question.
    asked: Receiver<Vec<u8>>,
}

impl Health {
    fn new(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let (manner, (sender, asked)) = (Arc::new(Mutex::new(manner)), channel());
        let health = Self {
            address: listener.local_addr().expect("an address"),
            manner: Arc::clone(&manner),
            asked,
        };
        thread::spawn(move || serve(&listener, &manner, &sender));
        health
    }

    fn now(&self, manner: Manner) {
        *self.manner.lock().expect("no panic") = manner;
    }

    /// The keys of a service whose server is checked here.
    fn checks(&self, backend: SocketAddr, keys: &str) -> String {
        let (service, port) = (at(backend), self.address.port());
        format!("{service}\ncheck = '/health'\ncheck-port = {port}\ncheck-interval = '150ms'\n{keys}")
    }
}

/// Serves until the test is over, which drops the receiver.
fn serve(listener: &TcpListener, manner: &Mutex<Manner>, asked: &Sender<Vec<u8>>) {
    let mut kept = Vec::new();
    for stream in listener.incoming() {
        let mut stream = stream.expect("a connection");
        stream.set_read_timeout(Some(WATCHDOG)).expect("a watchdog");
        let mut question = Vec::new();
        while !question.ends_with(b"\r\n\r\n") {
            let mut piece = [0; 1000];
            match stream.read(&mut piece) {
                Ok(count @ 1..) => question.extend_from_slice(&piece[..count]),
                // A check of the port alone, or one that was given up.
                Ok(_) | Err(_) => break,
            }
        }
        match *manner.lock().expect("no panic") {
            Manner::Answer(answer) => drop(stream.write_all(answer)),
            Manner::Begin(beginning) => {
                let _ = stream.write_all(beginning);
                kept.push(stream);
            }
            Manner::Reset => reset_on_close(&stream),
        }
        if asked.send(question).is_err() {
            return;
        }
    }
}

#[track_caller]
fn out(daemon: &Daemon, count: u64) {
    daemon.usr1_until(|stats| stats.count("backends out") == count);
}

#[test]
fn a_server_is_out_while_its_checks_fail_and_back_when_they_pass() {
    let (first, second) = (Backend::new(), Backend::new());
    let health = Health::new(Manner::Answer(GOOD));
    let both = format!(
        "addrs = ['{}', '{}']\ncheck = '/health'\ncheck-port = {}\ncheck-interval = '100ms'",
        first.address(),
        second.address(),
        health.address.port()
    );
    // Both servers are on one host, so both are out by one check, and each is one for TLS and one for HTTP.
    let services = [
        ("both.example", both),
        ("one.example", health.checks(first.address(), "")),
        ("other.example", at(second.address())),
    ];
    let daemon = RouteFile::new("", &services).start();
    daemon.usr1_until(|stats| stats.count("checks") >= 4);
    let stats = daemon.usr1();
    let counts = ["checked", "checks failed", "backends out"].map(|label| stats.count(label));
    assert_eq!(counts, [2, 0, 0], "before any client has come");
    let question = health.asked.recv().expect("a question");
    let question = String::from_utf8(question).expect("text");
    let expected =
        |name: &str| format!("GET /health HTTP/1.1\r\nHost: {name}\r\nUser-Agent: iotcpd\r\nConnection: close\r\n\r\n");
    assert!(
        [expected("both.example"), expected("one.example")].contains(&question),
        "{question}"
    );
    health.now(Manner::Answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
    out(&daemon, 5);
    daemon.stderr_wait(&format!(
        "service \"one.example\": server {} is out: 3 checks in a row have failed (it has answered 503); it gets no \
         connections until 2 have passed",
        first.address()
    ));
    let dump = daemon.usr2();
    let has = |part: &str| dump.iter().any(|line| line.contains(part));
    assert!(has("state = out by its checks"), "{dump:?}");
    let check = format!(
        "check of \"one.example\": address = {}, check = /health, state = failed for ",
        health.address
    );
    assert!(has(&check) && has("(it has answered 503)"), "{dump:?}");
    // The only server, or the last of several, is tried all the same; and a connection does not bring it back.
    pair(&daemon, &first, "one.example");
    pair(&daemon, &second, "other.example");
    out(&daemon, 5);
    health.now(Manner::Answer(GOOD));
    out(&daemon, 0);
    daemon.stderr_wait(&format!(
        "service \"one.example\": server {} is back after",
        first.address()
    ));
    pair(&daemon, &first, "one.example");
}

#[test]
fn a_server_that_a_client_has_found_away_is_left_to_its_checks_when_they_fail_as_well() {
    let gone = Backend::new();
    let address = gone.address();
    drop(gone);
    let health = Health::new(Manner::Answer(GOOD));
    let daemon = RouteFile::new("", &[("www.example", health.checks(address, ""))]).start();
    daemon.usr1_until(|stats| stats.count("checks") >= 2);
    let mut refused = client(&daemon, "www.example", "ping");
    assert_eq!(refused.read_to_end(), INTERNAL_ERROR);
    daemon.stderr_wait(&format!("service \"www.example\": server {address} is out for"));
    health.now(Manner::Answer(b"HTTP/1.1 503 Service Unavailable\r\n\r\n"));
    daemon.stderr_wait("3 checks in a row have failed (it has answered 503)");
    // It takes connections again, and the one that succeeds does not bring it back.
    let back = Backend::at(address.port());
    pair(&daemon, &back, "www.example");
    out(&daemon, 1);
    health.now(Manner::Answer(GOOD));
    out(&daemon, 0);
}

#[test]
fn clients_go_to_the_servers_whose_checks_pass() {
    let (sick, well) = (Backend::new(), Backend::on("127.0.0.2:0".parse().expect("an address")));
    let health = Health::new(Manner::Begin(b""));
    // A port of 127.0.0.1 alone, so nothing answers at that of 127.0.0.2.
    let service = |check: &str| {
        format!(
            "addrs = ['{}', '{}']\n{check}\ncheck-interval = '100ms'\nconnect-timeout = '5s'",
            sick.address(),
            well.address()
        )
    };
    let check = format!("check = 'tcp'\ncheck-port = {}", health.address.port());
    let daemon = RouteFile::new("", &[("www.example", service(&check))]).start();
    daemon.stderr_wait(&format!(
        "server {} is out: 3 checks in a row have failed",
        well.address()
    ));
    for _ in 0..4 {
        pair(&daemon, &sick, "www.example");
    }
    assert!(!well.has_connection());
}

#[test]
fn every_way_to_fail_is_told_by_its_reason() {
    let manners = [
        (Manner::Answer(b"HTTP/1.1 500 No\r\n\r\n"), "it has answered 500"),
        (
            Manner::Answer(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\n\r\n"),
            "it has answered 500",
        ),
        (Manner::Answer(b"220 mail ESMTP\r\n"), "its answer is no HTTP"),
        (Manner::Answer(b""), "the connection was closed without an answer"),
        (
            Manner::Answer(b"HTTP/1.1 2"),
            "the connection was closed without an answer",
        ),
        (Manner::Begin(b""), "no answer within 100 ms"),
        (Manner::Begin(b"HTTP/1.1"), "no answer within 100 ms"),
        (Manner::Reset, "no answer: Connection reset by peer"),
    ];
    let backend = Backend::new();
    for (manner, reason) in manners {
        let health = Health::new(manner);
        fails(health.checks(backend.address(), "check-timeout = '100ms'"), reason);
    }
    let closed = Health {
        address: Backend::new().address(),
        ..Health::new(Manner::Reset)
    };
    fails(
        closed.checks(backend.address(), ""),
        "Connection refused (os error 111)",
    );
    let socket = "addr = 'unix:/no/such/socket'\ncheck = 'tcp'\ncheck-interval = '100ms'";
    fails(socket.to_owned(), "No such file or directory (os error 2)");
}

/// Starts a door whose only service has these keys, and expects its server to be out for this reason.
#[track_caller]
fn fails(keys: String, reason: &str) {
    let daemon = RouteFile::new("", &[("www.example", keys)]).start();
    let line = daemon.stderr_wait("checks in a row have failed");
    assert!(line.contains(&format!("({reason}")), "{line}");
}

#[test]
fn a_check_of_a_port_takes_a_server_out_before_a_client_has_come_and_brings_it_back() {
    let gone = Backend::new();
    let address = gone.address();
    drop(gone);
    let service = format!("{}\ncheck = 'tcp'\ncheck-interval = '100ms'", at(address));
    let daemon = RouteFile::new("", &[("www.example", service)]).start();
    out(&daemon, 1);
    let mut refused = client(&daemon, "www.example", "ping");
    assert_eq!(
        refused.read_to_end(),
        INTERNAL_ERROR,
        "the only server is tried all the same"
    );
    let back = Backend::at(address.port());
    out(&daemon, 0);
    while back.has_connection() {}
    let stats = daemon.usr1();
    assert!(stats.count("checks") > stats.count("checks failed"));
}

#[test]
fn a_server_that_wants_a_header_gets_one_for_the_check_itself() {
    let health = Health::new(Manner::Answer(GOOD));
    let binary = [
        &b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"[..],
        b"GET /health HTTP/1.1\r\nHost: ",
    ]
    .concat();
    for (version, header) in [
        ("v1", &b"PROXY UNKNOWN\r\nGET /health HTTP/1.1\r\nHost: "[..]),
        ("v2", &binary),
    ] {
        let service = format!(
            "addr = '{}'\nhttp-port = {}\ncheck = '/health'\nsend-proxy = '{version}'",
            health.address.ip(),
            health.address.port()
        );
        // The certificate for many names is asked for the host itself.
        let daemon = RouteFile::new("http-listen = '127.0.0.1:0'", &[("*.example", service)]).start();
        let question = health.asked.recv().expect("a question");
        let question = question.escape_ascii().to_string();
        let expected = format!("{}{}\\r\\n", header.escape_ascii(), health.address);
        assert!(question.starts_with(&expected), "{question} instead of {expected}");
        drop(daemon);
    }
}

#[test]
fn hup_changes_and_ends_checks() {
    let (backend, health) = (Backend::new(), Health::new(Manner::Begin(b"")));
    let checked = health.checks(backend.address(), "check-timeout = '100ms'");
    let file = RouteFile::new("", &[("a.example", checked.clone()), ("b.example", checked.clone())]);
    let daemon = file.start();
    out(&daemon, 2);
    // The server of a service without a check is back.
    file.write("", &[("a.example", at(backend.address())), ("b.example", checked)]);
    daemon.signal(Signal::SIGHUP);
    out(&daemon, 1);
    daemon.stderr_wait(&format!("service \"a.example\": server {} is back", backend.address()));
    assert_eq!(daemon.usr1().count("checked"), 1);
    // And so is that of a service that is gone; nothing is asked any more.
    file.write("", &[("c.example", at(backend.address()))]);
    daemon.signal(Signal::SIGHUP);
    out(&daemon, 0);
    assert_eq!(daemon.usr1().count("checked"), 0);
    pair(&daemon, &backend, "c.example");
}

#[test]
fn a_door_ends_at_once_although_servers_are_being_asked() {
    let (backend, health) = (Backend::new(), Health::new(Manner::Begin(b"")));
    let slow = format!(
        "{}\ncheck = '/'\ncheck-port = {}\ncheck-interval = '60s'\ncheck-timeout = '60s'",
        at(backend.address()),
        health.address.port()
    );
    let daemon = RouteFile::new("stop-timeout = '60s'", &[("www.example", slow)]).start();
    health.asked.recv().expect("a question");
    daemon.signal(Signal::SIGTERM);
    let (status, _, _) = daemon.finish();
    assert!(status.success(), "{status}");
}

/// Twenty servers that never answer, and one that does: a few are asked at a time, and each has its turn.
#[test]
fn a_few_servers_are_asked_at_a_time_and_each_has_its_turn() {
    let (backend, silent) = (Backend::new(), Health::new(Manner::Begin(b"")));
    let well = Health::new(Manner::Answer(GOOD));
    let names: Vec<String> = (0..20).map(|at| format!("s{at}.example")).collect();
    let mut services: Vec<_> = names
        .iter()
        .map(|name| (&**name, silent.checks(backend.address(), "check-timeout = '100ms'")))
        .collect();
    services.push(("well.example", well.checks(backend.address(), "")));
    let daemon = RouteFile::new("", &services).start();
    out(&daemon, 20);
    let seen = |daemon: &Daemon| daemon.usr2().iter().filter(|line| line.contains("state = up")).count();
    assert_eq!(seen(&daemon), 1);
    for _ in 0..3 {
        well.asked.recv().expect("a question");
    }
}

#[test]
fn a_lack_of_descriptors_blames_no_server() {
    let (backend, health) = (Backend::new(), Health::new(Manner::Answer(GOOD)));
    let service = health.checks(backend.address(), "");
    let daemon = RouteFile::new("", &[("www.example", service)]).start();
    daemon.usr1_until(|stats| stats.count("checks") >= 2);
    let limit = |number: &str| {
        let pid = format!("--pid={}", daemon.pid());
        let status = Command::new("prlimit")
            .args([pid, format!("--nofile={number}:4096")])
            .status();
        assert!(status.expect("prlimit, of util-linux").success());
    };
    limit("4");
    while health.asked.try_recv().is_ok() {}
    let before = daemon.usr1().count("checks");
    // Nothing is found out, and the next checks come when there are descriptors again.
    limit("1024");
    let stats = daemon.usr1_until(|stats| stats.count("checks") >= before + 2);
    assert_eq!((stats.count("checks failed"), stats.count("backends out")), (0, 0));
}

#[test]
fn wrong_checks_are_refused_with_a_remedy() {
    let rows = [
        (
            "tls-port = 1\ncheck = 'http'",
            "`http` is neither tcp nor the path of a page",
        ),
        (
            "tls-port = 1\ncheck = '/a b'",
            "`/a b` is neither tcp nor the path of a page",
        ),
        (
            "tls-port = 1\ncheck = '/'",
            "a check of HTTP needs a port for HTTP, and the servers have one for TLS alone",
        ),
        (
            "tls-port = 1\ncheck-interval = '1s'",
            "no server of this service is checked",
        ),
        (
            "tls-port = 1\ncheck = 'tcp'\ncheck-interval = '1s'\ncheck-timeout = '2s'",
            "an answer may take longer",
        ),
        ("tls-port = 1\ncheck = 'tcp'\ncheck-port = 0", "check-port"),
        ("tls-port = 1\ncheck = 'tcp'\ncheck-interval = '10ms'", "check-interval"),
        (
            "tls-port = 1\ncheck = 'tcp'\nstart = 'cat'",
            "runs only while it is used, so it is not checked",
        ),
    ];
    for (keys, expected) in rows {
        let file = RouteFile::new("", &[("www.example", format!("addr = '127.0.0.1'\n{keys}"))]);
        let (status, _, told) = Daemon::with(["check", "--config", file.path()]).spawn().finish();
        assert!(!status.success() && told.contains(expected), "{keys}: {told}");
    }
    let socket = "addr = 'unix:/run/x'\ncheck = 'tcp'\ncheck-port = 1".to_owned();
    let file = RouteFile::new("", &[("www.example", socket)]);
    let (_, _, told) = Daemon::with(["check", "--config", file.path()]).spawn().finish();
    assert!(told.contains("a UNIX socket has no port"), "{told}");
}

#[test]
fn a_check_is_no_connection_of_a_client() {
    let (backend, health) = (Backend::new(), Health::new(Manner::Answer(GOOD)));
    let daemon = RouteFile::new(
        "max-connections = 1",
        &[("www.example", health.checks(backend.address(), ""))],
    )
    .start();
    let (client, _served) = pair(&daemon, &backend, "www.example");
    daemon.usr1_until(|stats| stats.count("checks") >= 3);
    let stats = daemon.usr1();
    assert_eq!((stats.count("connections"), stats.count("routes total")), (1, 1));
    drop(client);
}
