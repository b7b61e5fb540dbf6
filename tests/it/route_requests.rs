//! The route door with `http = "per-request"`: each request of a connection is judged, and none goes to another service
//! than the first.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, Program, free_port, temp_dir};
use crate::real_proxies::Proxy;
use crate::route_peers::{Backend, RouteFile, Served};

const MODE: &str = "http-listen = '127.0.0.1:0'\nhttp = 'per-request'";

fn http_at(address: SocketAddr) -> String {
    format!("addr = '{}'\nhttp-port = {}", address.ip(), address.port())
}

/// A door with these keys, a service `a.example` and one `b.example`, each with a server.
#[track_caller]
fn door(keys: &str) -> (Daemon, [Backend; 2]) {
    let [a, b] = std::array::from_fn(|_| Backend::new());
    let services = [("a.example", http_at(a.address())), ("b.example", http_at(b.address()))];
    let file = RouteFile::new(&format!("{MODE}\n{keys}"), &services);
    (file.start(), [a, b])
}

#[track_caller]
fn connect(daemon: &Daemon) -> Client {
    Client::connect(&http(daemon))
}

#[track_caller]
fn http(daemon: &Daemon) -> Address {
    daemon.nth_addr(2)
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A client whose first request was answered, and its server.
#[track_caller]
fn asked(daemon: &Daemon, backend: &Backend) -> (Client, Served) {
    let mut client = connect(daemon);
    let request = get("a.example", "/first");
    client.send(&request);
    let mut served = backend.accept();
    served.expect(&request);
    served.send(answer("first"));
    client.read_text(&answer("first"));
    (client, served)
}

/// Asserts that this is a page of the door with this status, which says that the connection ends.
#[track_caller]
fn assert_page(bytes: &[u8], status: &str) {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text:?}");
    assert!(head.ends_with("\r\nConnection: close"), "{text:?}");
    assert!(
        head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())),
        "{text:?}"
    );
}

#[track_caller]
fn assert_gone(daemon: &Daemon) {
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

const MISDIRECTED: &str = "421 Misdirected Request";

// ---- requests that go through -----------------------------------------------------------------------------------

/// Requests of every form, which go to one service.
fn requests() -> [String; 6] {
    [
        get("a.example", "/1"),
        "POST /2 HTTP/1.1\r\nHost: A.example:80\r\nContent-Length: 42\r\n\r\nGET / HTTP/1.1\r\nHost: b.example\r\n\r\nabcdefg"
            .to_owned(),
        "POST /3 HTTP/1.1\r\nHost: a.example.\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n3\r\n\r\n\0\r\n0\r\nA: b\r\n\r\n"
            .to_owned(),
        "HEAD http://a.example/4 HTTP/1.1\r\nHost: a.example\r\nX: y\r\n\r\n".to_owned(),
        "GET /5 HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(),
    ]
}

/// Answers of every form, and the requests to them.
const ANSWERS: [&str; 6] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nX: y\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
    "HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
    "HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
];

/// Serves each of these requests once it has come, and nothing of the next one before.
fn serve_in_turn(mut served: Served, piece: usize) -> thread::JoinHandle<Served> {
    thread::spawn(move || {
        for (request, answer) in requests().iter().zip(ANSWERS) {
            served.expect(request);
            served.stream.set_nonblocking(true).expect("non-blocking");
            // But perhaps the end of the client.
            assert!(
                !matches!(served.stream.read(&mut [0]), Ok(1)),
                "nothing comes before the answer to {request}"
            );
            served.stream.set_nonblocking(false).expect("blocking");
            for part in answer.as_bytes().chunks(piece) {
                served.send(part);
            }
        }
        served
    })
}

#[test]
fn requests_on_one_connection_are_served_in_turn_however_they_come() {
    let (daemon, [backend, _]) = door("");
    let all = requests().concat();
    for piece in [all.len(), 1, 7] {
        let mut client = connect(&daemon);
        let sent = all.clone();
        let sending = thread::spawn(move || {
            for part in sent.as_bytes().chunks(piece) {
                client.send(part);
            }
            client
        });
        let serving = serve_in_turn(backend.accept(), piece);
        let mut client = sending.join().expect("a client");
        client.read_text(&ANSWERS.concat());
        let mut served = serving.join().expect("a server");
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        drop(served);
        assert_eq!(client.read_to_end(), b"");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("requests"), stats.count("routes http")), (18, 3));
    assert_eq!((stats.count("misdirected"), stats.count("head bad")), (0, 0));
    assert_eq!(stats.count("bytes in"), 3 * u64::try_from(all.len()).expect("a length"));
    assert!(!backend.has_connection());
}

#[test]
fn a_client_that_ends_behind_its_requests_gets_all_answers() {
    let (daemon, [backend, _]) = door("");
    let mut client = connect(&daemon);
    client.send(requests().concat());
    client.half_close();
    let mut served = serve_in_turn(backend.accept(), 1000).join().expect("a server");
    assert_eq!(served.read_to_end(), b"");
    drop(served);
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), ANSWERS.concat());
    assert_gone(&daemon);
}

#[test]
fn large_bodies_come_unchanged_in_both_directions() {
    let (daemon, [backend, _]) = door("");
    let body: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let head = format!(
        "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let back = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..2 {
        let mut client = connect(&daemon);
        let request = [head.as_bytes(), &body, get("b.example", "/").as_bytes()].concat();
        let sending = thread::spawn(move || {
            client.send(request);
            client
        });
        let mut served = backend.accept();
        served.expect(&head);
        served.expect(&body);
        let whole = [back.as_bytes(), &body].concat();
        let answer = whole.clone();
        let answering = thread::spawn(move || {
            served.send(answer);
            served
        });
        let mut client = sending.join().expect("a client");
        // The answer has filled every buffer on its way before a byte of it is read.
        let got = client.read_to_end();
        assert_eq!(answering.join().expect("a server").read_to_end(), b"");
        assert!(got.starts_with(&whole), "{} bytes", got.len());
        assert_page(&got[whole.len()..], MISDIRECTED);
    }
    assert_gone(&daemon);
}

#[test]
fn a_body_waits_for_the_answer_100() {
    let (daemon, [backend, _]) = door("");
    let head = "PUT / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
    let mut client = connect(&daemon);
    client.send(head);
    let mut served = backend.accept();
    served.expect(head);
    served.send("HTTP/1.1 100 Continue\r\n\r\n");
    client.read_text("HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body");
    served.expect("body");
    served.send(answer("ok"));
    client.read_text(&answer("ok"));
    client.send(get("a.example", "/next"));
    served.expect(get("a.example", "/next"));
}

#[test]
fn a_held_request_is_kept_when_another_server_is_tried() {
    let backend = Backend::new();
    let addrs = format!("addrs = ['127.0.0.1:{}', '{}']", free_port(), backend.address());
    let daemon = RouteFile::new(MODE, &[("a.example", addrs)]).start();
    // The order of the servers is not known.
    for _ in 0..2 {
        let mut client = connect(&daemon);
        client.send(requests().concat());
        serve_in_turn(backend.accept(), 1000).join().expect("a server");
        client.read_text(&ANSWERS.concat());
    }
}

#[test]
fn a_server_that_ends_takes_no_further_request() {
    let (daemon, [backend, _]) = door("");
    let (mut client, served) = asked(&daemon, &backend);
    drop(served);
    assert_eq!(client.read_to_end(), b"");
    client.try_send(get("a.example", "/late")).ok();
    assert_gone(&daemon);
    // The end is that of the answer.
    let mut client = connect(&daemon);
    client.send([get("a.example", "/1"), get("a.example", "/2")].concat());
    let mut served = backend.accept();
    served.expect(get("a.example", "/1"));
    served.send("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    drop(served);
    client.read_text("HTTP/1.1 200 OK\r\n\r\nuntil the end");
    assert_eq!(client.read_to_end(), b"");
    assert_gone(&daemon);
}

// ---- requests for another service -------------------------------------------------------------------------------

#[test]
fn a_request_for_another_service_is_answered_by_421_behind_the_answers_before() {
    let (daemon, [backend, other]) = door("");
    for host in ["b.example", "nowhere.example", "a.example.b.example"] {
        let (mut client, mut served) = asked(&daemon, &backend);
        client.send(get(host, "/"));
        assert_page(&client.read_to_end(), MISDIRECTED);
        assert_eq!(served.read_to_end(), b"");
    }
    // The answer before comes first, whenever it comes, and nothing behind the request is read.
    let mut client = connect(&daemon);
    client.send([get("a.example", "/1"), get("b.example", "/2"), get("a.example", "/3")].concat());
    let mut served = backend.accept();
    served.expect(get("a.example", "/1"));
    assert!(!client.has_bytes_within(20));
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na");
    client.read_text("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\na");
    assert!(!client.has_bytes_within(20));
    served.send("bc");
    client.read_text("bc");
    assert_page(&client.read_to_end(), MISDIRECTED);
    assert_eq!(served.read_to_end(), b"");
    assert!(!other.has_connection());
    // Without a body where the method is HEAD.
    let (mut client, _served) = asked(&daemon, &backend);
    client.send("HEAD / HTTP/1.1\r\nHost: b.example\r\n\r\n");
    let page = client.read_to_end();
    assert!(page.starts_with(b"HTTP/1.1 421 ") && page.ends_with(b"\r\n\r\n"));
    // And although the client sends on.
    let (mut client, _served) = asked(&daemon, &backend);
    client.send([get("b.example", "/").into_bytes(), vec![7; 300_000]].concat());
    assert_page(&client.read_to_end(), MISDIRECTED);
    drop(client);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("misdirected"), stats.count("requests")), (6, 6));
    daemon.stderr_wait("which asks for \"nowhere.example\": its connection has gone to another service");
}

#[test]
fn names_of_one_service_share_a_connection() {
    let backend = Backend::new();
    let services = [
        ("*.example", http_at(backend.address())),
        ("CATCH_ALL", http_at(backend.address())),
    ];
    let daemon = RouteFile::new(MODE, &services).start();
    let mut client = connect(&daemon);
    client.send(get("a.example", "/"));
    let mut served = backend.accept();
    served.expect(get("a.example", "/"));
    served.send(answer(""));
    client.send(get("x.b.example", "/"));
    served.expect(get("x.b.example", "/"));
    served.send(answer(""));
    client.read_text(&answer("").repeat(2));
    client.send(get("example.org", "/"));
    assert_page(&client.read_to_end(), MISDIRECTED);
}

#[test]
fn a_request_that_another_way_is_for_is_answered_by_421() {
    let [responder, site] = std::array::from_fn(|_| Backend::new());
    let keys = format!("{MODE}\nacme-addr = '{}'", responder.address());
    let redirecting = format!("{}\nredirect-https = true", http_at(site.address()));
    let services = [("a.example", http_at(site.address())), ("b.example", redirecting)];
    let daemon = RouteFile::new(&keys, &services).start();
    let challenge = |host| get(host, "/.well-known/acme-challenge/x");
    for (first, second, backend) in [
        (get("a.example", "/"), challenge("a.example"), &site),
        (challenge("a.example"), get("a.example", "/"), &responder),
        (challenge("b.example"), get("b.example", "/"), &responder),
    ] {
        let mut client = connect(&daemon);
        client.send(&first);
        let mut served = backend.accept();
        served.expect(&first);
        served.send(answer("x"));
        client.read_text(&answer("x"));
        client.send(second);
        assert_page(&client.read_to_end(), MISDIRECTED);
        assert_eq!(served.read_to_end(), b"");
    }
    // The first request is sent on as ever.
    let mut client = connect(&daemon);
    client.send(get("b.example", "/"));
    assert!(client.read_to_end().starts_with(b"HTTP/1.1 308 "));
}

#[test]
fn the_table_of_the_moment_decides_about_a_request() {
    let [a, b] = std::array::from_fn(|_| Backend::new());
    let file = RouteFile::new(MODE, &[("*.example", http_at(a.address()))]);
    let daemon = file.start();
    let (mut client, mut served) = asked(&daemon, &a);
    // The service stays, and its servers do not count for a connection that is up.
    file.write(MODE, &[("*.example", http_at(b.address()))]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    client.send(get("a.example", "/second"));
    served.expect(get("a.example", "/second"));
    served.send(answer("second"));
    client.read_text(&answer("second"));
    let services = [("a.example", http_at(a.address())), ("*.example", http_at(a.address()))];
    file.write(MODE, &services);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", 2);
    client.send(get("a.example", "/third"));
    assert_page(&client.read_to_end(), MISDIRECTED);
    assert_eq!(served.read_to_end(), b"");
}

#[test]
fn a_service_has_a_mode_of_its_own() {
    let [each, first] = std::array::from_fn(|_| Backend::new());
    let services = [
        ("a.example", http_at(each.address())),
        (
            "b.example",
            format!("{}\nhttp = 'per-connection'", http_at(first.address())),
        ),
    ];
    let daemon = RouteFile::new(MODE, &services).start();
    let both = [get("b.example", "/"), get("a.example", "/")].concat();
    let mut client = connect(&daemon);
    client.send(&both);
    first.accept().expect(&both);
    let (mut client, _served) = asked(&daemon, &each);
    client.send(get("b.example", "/"));
    assert_page(&client.read_to_end(), MISDIRECTED);
}

// ---- bad requests -----------------------------------------------------------------------------------------------

/// Requests by which something is smuggled past a reader that finds other ends or another host in them.
const SMUGGLED: [&str; 22] = [
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 4, 4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0x4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length:\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent_Length: 4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length : 4\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding : chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: identity\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding:\r\n chunked\r\n\r\n",
    "POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
    "GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\nX: y\nHost: b.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\nX: y\rHost: b.example\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a.example\r\nX: \0\r\n\r\n",
];

#[test]
fn a_request_that_programs_read_differently_is_answered_by_400_and_goes_nowhere() {
    let (daemon, [backend, other]) = door("");
    for request in SMUGGLED {
        let mut client = connect(&daemon);
        client.send(request);
        assert_page(&client.read_to_end(), "400 Bad Request");
        assert!(!backend.has_connection(), "{request}");
        let (mut client, mut served) = asked(&daemon, &backend);
        client.send(format!("{request}{}", get("b.example", "/")));
        assert_page(&client.read_to_end(), "400 Bad Request");
        assert_eq!(served.read_to_end(), b"", "{request}");
    }
    assert!(!other.has_connection());
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("head bad"), stats.count("requests")), (44, 22));
    daemon.stderr_wait(": its request says the length of its body twice");
}

#[test]
fn a_fault_in_a_body_is_answered_by_400_if_no_answer_has_begun() {
    let (daemon, [backend, _]) = door("");
    let head = "POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad) in [
        ("2\r\nok\r\n", "\r\n"),
        ("2\r\nok\r\n", "-1\r\n"),
        ("2\r\nok", "no\r\n"),
        ("", "2\nok\r\n"),
        ("", "2;a=\"\n\"\r\nok\r\n"),
        ("", "10000000000000000\r\n"),
        ("0\r\n", "Content-Length: 4\r\n\r\n"),
        ("0\r\n", " folded: x\r\n\r\n"),
        ("0\r\n", "X: y\n\r\n"),
    ] {
        let mut client = connect(&daemon);
        client.send(format!("{head}{good}{bad}{}", get("b.example", "/")));
        let mut served = backend.accept();
        served.expect(format!("{head}{good}"));
        assert_page(&client.read_to_end(), "400 Bad Request");
        assert_eq!(served.read_to_end(), b"", "{bad:?}");
    }
    // A client that has a part of an answer must not take it for the whole, and one that has the whole keeps it.
    let mut client = connect(&daemon);
    client.send(head);
    let mut served = backend.accept();
    served.expect(head);
    served.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    client.read_text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel");
    client.send("x\r\n");
    client.expect_reset();
    let mut client = connect(&daemon);
    client.send(head);
    let mut served = backend.accept();
    served.expect(head);
    served.send(answer("early"));
    client.read_text(&answer("early"));
    client.send("x\r\n");
    assert_eq!(client.read_to_end(), b"");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("head bad"), stats.count("answers bad")), (11, 0));
    daemon.stderr_wait(": its request has a chunk with a malformed size");
}

#[test]
fn a_later_head_has_the_time_of_the_first_once_it_has_begun() {
    let (daemon, [backend, _]) = door("hello-timeout = '300ms'");
    let (mut client, mut served) = asked(&daemon, &backend);
    // Between requests there is time.
    assert!(!client.has_bytes_within(200) && !client.has_bytes_within(200));
    // A byte now and then does not put it off.
    for byte in get("a.example", &"x".repeat(100_000)).bytes() {
        if client.has_bytes_within(10) {
            break;
        }
        client.send([byte]);
    }
    assert_page(&client.read_to_end(), "408 Request Timeout");
    assert_eq!(served.read_to_end(), b"");
    // While the answer before is awaited the time does not count.
    let mut client = connect(&daemon);
    client.send(format!("{}{}", get("a.example", "/"), "GET /second"));
    let mut served = backend.accept();
    served.expect(get("a.example", "/"));
    assert!(!client.has_bytes_within(200) && !client.has_bytes_within(200));
    served.send(answer("late"));
    client.read_text(&answer("late"));
    client.send(" HTTP/1.1\r\nHost: a.example\r\n\r\n");
    served.expect(get("a.example", "/second"));
    drop((client, served));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("head slow"), 1);
    daemon.stderr_wait(": the head of its next request was not complete within --hello-timeout");
}

#[test]
fn a_connection_between_requests_has_the_time_of_an_idle_one() {
    let (daemon, [backend, _]) = door("idle-timeout = '300ms'");
    let (mut client, mut served) = asked(&daemon, &backend);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(served.read_to_end(), b"");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("relay idle"), stats.count("head slow")), (1, 0));
}

#[test]
fn a_client_that_leaves_in_a_head_leaves_nothing_behind() {
    let (daemon, [backend, _]) = door("");
    let (mut client, mut served) = asked(&daemon, &backend);
    client.send("GET / HT");
    client.half_close();
    assert_eq!(served.read_to_end(), b"");
    drop(served);
    assert_eq!(client.read_to_end(), b"");
    let (mut client, mut served) = asked(&daemon, &backend);
    client.send("GET / HT");
    client.reset();
    served.expect_reset();
    assert_gone(&daemon);
}

#[test]
fn a_client_that_is_lost_is_noticed_although_no_more_is_read_of_it() {
    let (daemon, [backend, _]) = door("");
    let mut client = connect(&daemon);
    client.send(get("a.example", "/first"));
    let mut served = backend.accept();
    served.expect(get("a.example", "/first"));
    client.send(get("a.example", "/next").repeat(2_000));
    // The answer is awaited, and so are those requests.
    let line = format!("out = 0, http = per-request, name = {:?}", "a.example");
    let dump = daemon.usr2();
    assert!(dump.iter().any(|told| told.contains(&line)), "{dump:?}");
    client.reset();
    served.expect_reset();
    assert_gone(&daemon);
}

// ---- servers ----------------------------------------------------------------------------------------------------

#[test]
fn an_answer_that_is_none_is_replaced_by_502_or_cut() {
    let (daemon, [backend, _]) = door("");
    for wrong in [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let mut client = connect(&daemon);
        client.send(get("a.example", "/"));
        let mut served = backend.accept();
        served.expect(get("a.example", "/"));
        served.send(wrong);
        assert_page(&client.read_to_end(), "502 Bad Gateway");
    }
    let mut client = connect(&daemon);
    client.send(get("a.example", "/"));
    let mut served = backend.accept();
    served.expect(get("a.example", "/"));
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
    served.send(part);
    client.read_text(part);
    served.send("x\r\n");
    client.expect_reset();
    // The client keeps an answer that is whole, and gets nothing that it has not asked for.
    let mut client = connect(&daemon);
    client.send(get("a.example", "/"));
    let mut served = backend.accept();
    served.expect(get("a.example", "/"));
    served.send([answer("whole"), answer("unasked")].concat());
    assert_eq!(String::from_utf8_lossy(&client.read_to_end()), answer("whole"));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("answers bad"), stats.count("head bad")), (7, 0));
    daemon.stderr_wait("its answer has a header that is malformed");
}

#[test]
fn an_answer_that_is_broken_off_is_replaced_by_502_or_cut() {
    let (daemon, [backend, _]) = door("");
    for beginning in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let mut client = connect(&daemon);
        client.send(get("a.example", "/"));
        let mut served = backend.accept();
        served.expect(get("a.example", "/"));
        served.send(beginning);
        drop(served);
        assert_page(&client.read_to_end(), "502 Bad Gateway");
    }
    for part in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
    ] {
        let mut client = connect(&daemon);
        client.send(get("a.example", "/"));
        let mut served = backend.accept();
        served.expect(get("a.example", "/"));
        served.send(part);
        client.read_text(part);
        served.half_close();
        client.expect_reset();
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("answers bad"), 4);
    daemon.stderr_wait("its answer is not there, or is broken off");
}

/// The request was on its way when the server closed an idle connection. A client repeats it after an end, and would show
/// a page.
#[test]
fn a_server_that_ends_between_two_requests_is_no_fault() {
    let (daemon, [backend, _]) = door("");
    let (mut client, mut served) = asked(&daemon, &backend);
    client.send(get("a.example", "/next"));
    served.expect(get("a.example", "/next"));
    drop(served);
    assert_eq!(client.read_to_end(), b"");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("answers bad"), 0);
}

#[test]
fn another_protocol_that_the_server_agrees_to_is_not_read() {
    let (daemon, [backend, _]) = door("");
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let connect_to = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    let switching = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    for (request, agreed) in [(upgrade, switching), (connect_to, "HTTP/1.1 200 OK\r\n\r\n")] {
        let mut client = connect(&daemon);
        // The client does not wait for the answer.
        client.send(format!("{request}{}", get("b.example", "/")));
        let mut served = backend.accept();
        served.expect(request);
        served.send(format!("{agreed}\0\r\n"));
        client.read_text(&format!("{agreed}\0\r\n"));
        served.expect(get("b.example", "/"));
        let bulk: Vec<u8> = (0..4_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let sent = bulk.clone();
        let sending = thread::spawn(move || {
            client.send(sent);
            client.half_close();
            client
        });
        assert_eq!(served.read_to_end(), bulk);
        let mut client = sending.join().expect("a client");
        served.send("behind the end");
        drop(served);
        assert_eq!(client.read_to_end(), b"behind the end");
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert!(stats.count("bytes spliced") > 0);
    assert_eq!((stats.count("misdirected"), stats.count("requests")), (0, 2));
}

#[test]
fn behind_a_protocol_that_the_server_refuses_requests_are_judged_on() {
    let (daemon, [backend, _]) = door("");
    let upgrade = "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let connect_to = "CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n";
    for (request, refused) in [
        (upgrade, answer("no")),
        (connect_to, "HTTP/1.1 405 No\r\nContent-Length: 0\r\n\r\n".to_owned()),
    ] {
        let mut client = connect(&daemon);
        client.send(format!("{request}{}", get("b.example", "/")));
        let mut served = backend.accept();
        served.expect(request);
        served.send(&refused);
        client.read_text(&refused);
        assert_page(&client.read_to_end(), MISDIRECTED);
        assert_eq!(served.read_to_end(), b"");
    }
}

#[test]
fn http_2_with_prior_knowledge_goes_to_the_catch_all_unread() {
    let backend = Backend::new();
    let daemon = RouteFile::new(MODE, &[("CATCH_ALL", http_at(backend.address()))]).start();
    let bytes = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"\0\0\0\x04\0\0\0\0\0",
        get("b", "/").as_bytes(),
    ]
    .concat();
    let mut client = connect(&daemon);
    client.send(&bytes);
    let mut served = backend.accept();
    served.expect(&bytes);
    served.send("settings");
    client.read_text("settings");
    assert_eq!(daemon.usr1().count("requests"), 0);
}

// ---- real programs ----------------------------------------------------------------------------------------------

#[test]
fn curl_reaches_sites_of_nginx_request_by_request() {
    let configure = |[port]: [u16; 1]| {
        let site = |name: &str| {
            format!(
                "server {{\nlisten 127.0.0.1:{port};\nserver_name {name};\nclient_max_body_size 0;\n\
                 location / {{ return 200 \"{name} $uri $connection_requests\\n\"; }}\n\
                 location /files/ {{ root .; dav_methods PUT; create_full_put_path on; }}\n}}\n"
            )
        };
        format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path body;\nproxy_temp_path proxy;\nfastcgi_temp_path fastcgi;\nuwsgi_temp_path uwsgi;\n\
             scgi_temp_path scgi;\n{}{}}}\n",
            site("a.example"),
            site("b.example")
        )
    };
    let server = Proxy::start("nginx", configure, |command, file| {
        command.args(["-e", "stderr", "-p", ".", "-c", file]);
    });
    let nginx = SocketAddr::from((Ipv4Addr::LOCALHOST, server.addresses[0].port()));
    let daemon = RouteFile::new(MODE, &[("a.example", http_at(nginx)), ("b.example", http_at(nginx))]).start();
    let door = http(&daemon);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--fail-early",
            "--max-time",
            "60",
            "--noproxy",
            "*",
        ]);
        let (status, output, errors) = Program::start(command.args(arguments)).finish();
        assert_eq!((status.code(), &*errors), (Some(0), ""), "{arguments:?}: {output}");
        output
    };
    let connect_to = format!("::{door}");
    // Three requests on one connection, and one on another, for curl keeps a connection for each name.
    let told = curl(&[
        "--connect-to",
        &connect_to,
        "http://a.example/1",
        "http://a.example/2",
        "http://b.example/3",
        "http://a.example/4",
    ]);
    assert_eq!(told, "a.example /1 1\na.example /2 2\nb.example /3 1\na.example /4 3");
    // Two names on one connection.
    let url = format!("http://{door}");
    let code = ["--write-out", "%{http_code}\n"];
    let told = curl(
        &[
            &["-H", "Host: a.example", &format!("{url}/1"), "--next", "--silent"][..],
            &code,
            &["-H", "Host: b.example", &format!("{url}/2"), "--next", "--silent"],
            &code,
            &["-H", "Host: b.example", &format!("{url}/3")],
        ]
        .concat(),
    );
    let refused = "421: this connection has gone to the service of another name\n421\n";
    assert_eq!(told, format!("a.example /1 1\n{refused}b.example /3 1\n200"));
    // Uploads with a length, for which curl waits for the answer 100, and in chunks; then the file comes back.
    let home = temp_dir();
    let path = home.path().join("upload");
    let text: String = (0..300_000).map(|number| format!("{number:07}\n")).collect();
    std::fs::write(&path, &text).expect("write the file");
    let path = path.to_str().expect("temporary paths are UTF-8");
    for flags in [
        &["-H", "Expect: 100-continue"][..],
        &["-H", "Transfer-Encoding: chunked"],
    ] {
        let to = [
            "--connect-to",
            &connect_to,
            "--upload-file",
            path,
            "http://a.example/files/x",
        ];
        let back = [
            "--next",
            "--silent",
            "--connect-to",
            &connect_to,
            "http://a.example/files/x",
        ];
        let told = curl(&[flags, &code, &to, &back].concat());
        let (code, rest) = told.split_once('\n').expect("a line");
        assert!(["201", "204"].contains(&code), "{code}");
        assert!(rest == text.trim_end(), "{} bytes", rest.len());
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("requests"), stats.count("misdirected")), (10, 1));
    assert_eq!((stats.count("answers bad"), stats.count("head bad")), (0, 0));
}
