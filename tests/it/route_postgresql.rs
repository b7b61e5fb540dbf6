//! PostgreSQL through a route door: the request for TLS in front of a ClientHello, its answer, and the same request to
//! the server, which the test plays. Real clients and a real server are in `route_postgresql_real`.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::harness::{Client, Daemon, free_port};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, Served, UNRECOGNIZED_NAME, at, hello, pair};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
/// A StartupMessage: the version 3.0, and an empty list of parameters.
const STARTUP: &[u8] = b"\0\0\0\x09\0\x03\0\0\0";

const NAME: &str = "db.example.org";

/// A door with one service, and these keys.
#[track_caller]
fn door(keys: &str) -> (Daemon, Backend, RouteFile) {
    let backend = Backend::new();
    let file = RouteFile::new(keys, &[(NAME, at(backend.address()))]);
    (file.start(), backend, file)
}

/// A door whose service has these two servers.
#[track_caller]
fn door_to_two(keys: &str, one: SocketAddr, other: SocketAddr) -> (Daemon, RouteFile) {
    let file = RouteFile::new(keys, &[(NAME, format!("addrs = ['{one}', '{other}']"))]);
    (file.start(), file)
}

/// A client that has asked for TLS, and was told to go on.
#[track_caller]
fn invited(daemon: &Daemon) -> Client {
    let mut client = Client::connect(&daemon.addr());
    client.send(SSL_REQUEST);
    client.read_text("S");
    client
}

/// A client that has sent its hello and this behind it.
#[track_caller]
fn greeting(daemon: &Daemon, behind: &str) -> Client {
    let mut client = invited(daemon);
    client.send([&hello(NAME), behind.as_bytes()].concat());
    client
}

/// The next connection of the door, on which the server was asked for TLS and has nothing else.
#[track_caller]
fn asked(backend: &Backend) -> Served {
    let mut served = backend.accept();
    served.expect(SSL_REQUEST);
    served.stream.set_nonblocking(true).unwrap();
    let early = served.stream.read(&mut [0]);
    assert_eq!(early.expect_err("it is not asked twice").kind(), ErrorKind::WouldBlock);
    served.stream.set_nonblocking(false).unwrap();
    served
}

/// Goes on with a connection whose server was asked: it agrees, and each side hears the other.
#[track_caller]
fn agree(client: &mut Client, served: &mut Served, behind: &str) {
    served.send("S");
    served.expect(hello(NAME));
    served.expect(behind);
    served.send("pong");
    client.read_text("pong");
}

// ---- the client ------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_asks_for_tls_goes_by_the_name_in_its_hello_and_its_server_is_asked_first() {
    let (daemon, backend, _file) = door("");
    for with_gss in [false, true] {
        let mut client = Client::connect(&daemon.addr());
        if with_gss {
            client.send(GSS_REQUEST);
            client.read_text("N");
        }
        for byte in SSL_REQUEST {
            client.send([*byte]);
        }
        client.read_text("S");
        for byte in hello(NAME) {
            client.send([byte]);
        }
        client.send("ping");
        let mut served = asked(&backend);
        agree(&mut client, &mut served, "ping");
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        served.send("the end");
        drop(served);
        assert_eq!(client.read_to_end(), b"the end");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    let routes = ["routes total", "routes tls", "routes postgresql", "routes plain"].map(|row| stats.count(row));
    assert_eq!(routes, [2, 2, 2, 0]);
    let sent = 2 * (hello(NAME).len() + 4);
    assert_eq!(
        stats.count("bytes in"),
        u64::try_from(sent).unwrap(),
        "without requests"
    );
}

#[test]
fn tls_without_a_request_is_passed_on_without_one() {
    let (daemon, backend, _file) = door("");
    pair(&daemon, &backend, NAME);
    assert_eq!(daemon.usr1().count("routes postgresql"), 0);
}

#[test]
fn a_client_without_tls_goes_to_the_service_for_all_names_also_behind_a_request_that_is_denied() {
    let (tls, plain) = (Backend::new(), Backend::new());
    let catch_all = format!("addr = '127.0.0.1'\nhttp-port = {}", plain.address().port());
    let daemon = RouteFile::new("", &[(NAME, at(tls.address())), ("CATCH_ALL", catch_all)]).start();
    for with_gss in [false, true] {
        let mut client = Client::connect(&daemon.addr());
        if with_gss {
            client.send(GSS_REQUEST);
            client.read_text("N");
        }
        client.send(STARTUP);
        let mut served = plain.accept();
        served.expect(STARTUP);
        served.send("R");
        client.read_text("R");
    }
    assert_eq!(daemon.usr1().count("routes plain"), 2);
}

#[test]
fn a_client_that_does_not_wait_or_goes_on_with_anything_but_tls_is_closed() {
    let (daemon, backend, _file) = door("");
    let mut refused = 0;
    let mut expect_end = |mut client: Client| {
        assert_eq!(client.read_to_end_or_reset(), b"");
        refused += 1;
        daemon.usr1_until(|stats| stats.count("hello bad") == refused);
    };
    for early in [&hello(NAME)[..], SSL_REQUEST, GSS_REQUEST, b"\0"] {
        for request in [SSL_REQUEST, GSS_REQUEST] {
            let mut client = Client::connect(&daemon.addr());
            client.send([request, early].concat());
            expect_end(client);
        }
    }
    for behind in [SSL_REQUEST, GSS_REQUEST, STARTUP, b"G"] {
        let mut client = invited(&daemon);
        client.send(behind);
        expect_end(client);
    }
    let mut client = Client::connect(&daemon.addr());
    client.send(GSS_REQUEST);
    client.read_text("N");
    client.send(GSS_REQUEST);
    expect_end(client);
    assert!(!backend.has_connection());
    daemon.stderr_wait("it did not wait for the answer to its SSLRequest or GSSENCRequest");
}

#[test]
fn a_name_that_leads_nowhere_is_answered_by_an_alert_behind_the_invitation() {
    let (daemon, _backend, _file) = door("");
    let mut client = invited(&daemon);
    client.send(hello("other.example"));
    assert_eq!(client.read_to_end(), UNRECOGNIZED_NAME);
}

#[test]
fn a_request_gives_a_client_no_more_time_for_its_hello() {
    let (daemon, _backend, _file) = door("hello-timeout = '300ms'");
    invited(&daemon).read_to_end_or_reset();
    let mut client = invited(&daemon);
    client.send(&hello(NAME)[..20]);
    client.read_to_end_or_reset();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("hello slow"), 2);
}

// ---- the server ------------------------------------------------------------------------------------------------

#[test]
fn a_server_that_declines_ends_the_connection_and_stays_in_use() {
    let (one, other) = (Backend::new(), Backend::new());
    let (daemon, _file) = door_to_two("", one.address(), other.address());
    let answers: [&[u8]; 6] = [
        b"N",
        b"EFATAL\0",
        b"S\x16\x03\x03",
        b"SS",
        b"HTTP/1.1 400 Bad Request",
        b"\0",
    ];
    for (number, answer) in answers.into_iter().enumerate() {
        let mut client = greeting(&daemon, "");
        let backend = if number % 2 == 0 { &one } else { &other };
        let mut served = asked(backend);
        served.send(answer);
        assert_eq!(client.read_to_end(), INTERNAL_ERROR, "{}", answer.escape_ascii());
        // A reset, if it has sent more than is read.
        served.stream.read_to_end(&mut Vec::new()).ok();
    }
    assert!(!one.has_connection() && !other.has_connection(), "no other is tried");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    let counts = ["connect no tls", "connect failed", "connect again", "backends out"].map(|row| stats.count(row));
    assert_eq!(counts, [6, 0, 0, 0]);
    let address = one.address();
    daemon.stderr_wait(&format!(
        "was not served: server {address} has no TLS (it answered N to an SSLRequest)"
    ));
    daemon.stderr_wait("has answered an SSLRequest by neither S nor N alone");
}

#[test]
fn a_server_that_is_lost_before_it_answers_is_followed_by_another_that_is_asked_as_well() {
    let (one, other) = (Backend::new(), Backend::new());
    for is_reset in [false, true] {
        let (daemon, _file) = door_to_two("send-proxy = 'v1'", one.address(), other.address());
        let to = daemon.addr().port();
        let mut client = greeting(&daemon, "ping");
        let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {to}\r\n", client.local_port());
        let mut lost = one.accept();
        lost.expect(&header);
        lost.expect(SSL_REQUEST);
        if is_reset {
            lost.reset();
        } else {
            drop(lost);
        }
        let mut served = other.accept();
        served.expect(&header);
        served.expect(SSL_REQUEST);
        agree(&mut client, &mut served, "ping");
        let stats = daemon.usr1();
        let counts = ["connect failed", "connect again", "backends out"].map(|row| stats.count(row));
        assert_eq!(counts, [1, 1, 1]);
    }
}

#[test]
fn a_server_that_cannot_be_reached_is_followed_by_another_with_header_and_request() {
    let backend = Backend::new();
    let nothing = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (daemon, _file) = door_to_two("send-proxy = 'v1'", nothing, backend.address());
    let to = daemon.addr().port();
    let mut client = greeting(&daemon, "ping");
    let mut served = backend.accept();
    served.expect(format!(
        "PROXY TCP4 127.0.0.1 127.0.0.1 {} {to}\r\n",
        client.local_port()
    ));
    served.expect(SSL_REQUEST);
    agree(&mut client, &mut served, "ping");
}

#[test]
fn a_server_that_does_not_answer_costs_no_more_than_the_time_for_connecting() {
    let (daemon, backend, _file) = door("connect-timeout = '200ms'");
    let mut client = greeting(&daemon, "");
    let mut served = asked(&backend);
    assert_eq!(client.read_to_end(), INTERNAL_ERROR);
    assert_eq!(served.read_to_end(), b"");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("connect late"), stats.count("backends out")), (1, 1));
}

#[test]
fn an_answer_that_comes_late_is_still_an_answer() {
    let (daemon, backend, _file) = door("connect-timeout = '600s'");
    let mut client = greeting(&daemon, "ping");
    let mut served = asked(&backend);
    // Others are served meanwhile.
    pair(&daemon, &backend, NAME);
    let dump = daemon.usr2();
    assert!(dump.iter().any(|line| line.contains("state = asking, ")), "{dump:#?}");
    agree(&mut client, &mut served, "ping");
}

// ---- meanwhile -------------------------------------------------------------------------------------------------

#[test]
fn a_client_that_is_lost_while_its_server_is_asked_leaves_nothing_behind() {
    let (daemon, backend, _file) = door("connect-timeout = '600s'");
    let client = greeting(&daemon, "");
    let mut served = asked(&backend);
    client.reset();
    assert_eq!(served.read_to_end(), b"");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("connect failed"), stats.count("backends out")), (0, 0));
}

#[test]
fn bytes_and_end_of_a_client_that_come_before_the_answer_are_kept() {
    let (daemon, backend, _file) = door("");
    let mut client = greeting(&daemon, "more");
    let mut served = asked(&backend);
    let many = vec![7; 200_000];
    client.send(&many);
    client.half_close();
    served.send("S");
    served.expect([&hello(NAME)[..], b"more", &many].concat());
    assert_eq!(served.read_to_end(), b"");
    served.send("an answer");
    drop(served);
    assert_eq!(client.read_to_end(), b"an answer");
}

#[test]
fn a_changed_table_touches_no_connection_whose_server_is_asked() {
    let (daemon, backend, file) = door("connect-timeout = '600s'");
    let mut client = greeting(&daemon, "ping");
    let mut served = asked(&backend);
    let after = Backend::new();
    file.write("", &[(NAME, at(after.address()))]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    agree(&mut client, &mut served, "ping");
    assert!(!after.has_connection());
}

#[test]
fn a_door_that_drains_lets_a_server_answer_and_cuts_one_that_does_not() {
    for does_answer in [true, false] {
        let stop = if does_answer { "600s" } else { "200ms" };
        let (daemon, backend, _file) = door(&format!("connect-timeout = '600s'\nstop-timeout = '{stop}'"));
        let mut client = greeting(&daemon, "ping");
        let mut served = asked(&backend);
        daemon.signal(Signal::SIGTERM);
        daemon.stderr_wait("draining");
        if does_answer {
            agree(&mut client, &mut served, "ping");
            drop(served);
        }
        assert_eq!(client.read_to_end_or_reset(), b"");
        drop(client);
        assert_eq!(daemon.wait_exit().code(), Some(0));
    }
}
