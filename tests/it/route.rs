//! The route door: TLS connections that go to a server by their names, byte for byte.
//!
//! Most clients here send a ClientHello and plain text behind it: see `route_peers`. Real clients and a real server are
//! in `route_real`.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};

use crate::harness::{Client, Daemon, Installation, free_port, temp_dir};
use crate::route_peers::{
    Backend, DECODE_ERROR, RouteFile, UNRECOGNIZED_NAME, at, client, hello, hello_message, pair, records,
};
use crate::upgrade::upgrade;

/// A door with one service for `www.example.org`, and these keys.
#[track_caller]
fn door(keys: &str) -> (Daemon, Backend, RouteFile) {
    let backend = Backend::new();
    let file = RouteFile::new(keys, &[("www.example.org", at(backend.address()))]);
    (file.start(), backend, file)
}

// ---- names -----------------------------------------------------------------------------------------------------

#[test]
fn each_name_leads_to_its_server_and_the_first_bytes_come_unchanged() {
    let [exact, wild, deeper, other] = std::array::from_fn(|_| Backend::new());
    let services = [
        ("www.example.org", at(exact.address())),
        ("*.example.org", at(wild.address())),
        ("*.b.example.org", at(deeper.address())),
        ("CATCH_ALL", at(other.address())),
    ];
    let daemon = RouteFile::new("", &services).start();
    for (name, backend) in [
        ("www.example.org", &exact),
        ("WWW.Example.ORG", &exact),
        ("www.example.org.", &exact),
        ("a.example.org", &wild),
        ("x.a.example.org", &wild),
        ("a.b.example.org", &deeper),
        ("example.org", &other),
        ("www.example.com", &other),
        ("10.0.0.1", &other),
        ("bad name", &other),
    ] {
        let (mut client, mut served) = pair(&daemon, backend, name);
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        drop(served);
        assert_eq!(client.read_to_end(), b"", "{name}");
    }
    let mut nameless = Client::connect(&daemon.addr());
    let hello = records(&hello_message(None, &[]), 1 << 14);
    nameless.send(&hello);
    other.accept().expect(hello);
}

#[test]
fn a_protocol_that_a_client_offers_chooses_among_the_entries_of_its_name() {
    let [h2, other] = std::array::from_fn(|_| Backend::new());
    let (first, second) = (at(h2.address()), at(other.address()));
    let file = RouteFile::new("", &[]);
    let text = std::fs::read_to_string(file.path()).unwrap();
    let entry = "[[route.web.services.'www.example.org']]";
    std::fs::write(
        file.path(),
        format!("{text}\n{entry}\nalpn = 'h2'\n{first}\n{entry}\n{second}\n"),
    )
    .unwrap();
    let daemon = file.start();
    for (protocols, backend) in [
        (&["h2", "http/1.1"][..], &h2),
        (&["http/1.1", "h2"], &h2),
        (&["http/1.1"], &other),
        (&["h2c"], &other),
        (&[], &other),
    ] {
        let hello = records(&hello_message(Some("www.example.org"), protocols), 1 << 14);
        let mut client = Client::connect(&daemon.addr());
        client.send(&hello);
        backend.accept().expect(&hello);
    }
}

#[test]
fn a_hello_is_read_in_whatever_pieces_it_comes() {
    let (daemon, backend, _file) = door("");
    let message = hello_message(Some("www.example.org"), &["h2"]);
    let in_records = [1 << 14, 100, 20, 3].map(|most| records(&message, most));
    for hello in &in_records {
        let mut client = Client::connect(&daemon.addr());
        client.send(hello);
        backend.accept().expect(hello);
    }
    for hello in &in_records {
        let mut client = Client::connect(&daemon.addr());
        for (number, byte) in hello.iter().enumerate() {
            assert!(!backend.has_connection(), "byte {number} of {}", hello.len());
            client.send([*byte]);
        }
        backend.accept().expect(hello);
    }
    // The most that a hello may have: 16 KiB.
    let protocols: Vec<String> = (0..64).map(|number| format!("{number:0>250}")).collect();
    let protocols: Vec<&str> = protocols.iter().map(String::as_str).collect();
    let message = hello_message(Some("www.example.org"), &protocols);
    assert!((15_000..=16_384).contains(&message.len()), "{}", message.len());
    let hello = records(&message, 1000);
    let mut client = Client::connect(&daemon.addr());
    client.send([&hello[..], b"and more"].concat());
    let mut served = backend.accept();
    served.expect(&hello);
    served.expect("and more");
}

// ---- refusals --------------------------------------------------------------------------------------------------

/// The answer to these bytes: everything up to the end.
#[track_caller]
fn answer(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut client = Client::connect(&daemon.addr());
    client.send(bytes);
    client.read_to_end()
}

#[test]
fn a_name_that_leads_nowhere_is_answered_by_an_alert() {
    let (daemon, backend, _file) = door("");
    for name in ["example.org", "a.www.example.org", "www.example.or", "bad name"] {
        assert_eq!(answer(&daemon, &hello(name)), UNRECOGNIZED_NAME, "{name}");
    }
    assert_eq!(
        answer(&daemon, &records(&hello_message(None, &[]), 1 << 14)),
        UNRECOGNIZED_NAME
    );
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("name unknown"), 5);
    assert_eq!((stats.count("routes total"), stats.count("routes active")), (5, 0));
    assert!(!backend.has_connection());
    daemon.stderr_wait("which asks for \"example.org\": no service has its name");
    daemon.stderr_wait("which asks for no name: no service has its name");
}

#[test]
fn the_alert_is_read_although_the_client_sends_on() {
    let (daemon, _backend, _file) = door("");
    let mut client = Client::connect(&daemon.addr());
    client.send([hello("nowhere.example"), vec![7; 300_000]].concat());
    assert_eq!(client.read_to_end(), UNRECOGNIZED_NAME);
    client.try_send([7; 100_000]).ok();
    drop(client);
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_hello_that_lies_is_answered_by_an_alert() {
    let (daemon, backend, _file) = door("");
    let message = hello_message(Some("www.example.org"), &[]);
    let mut longer = message.clone();
    longer[3] += 1;
    longer.push(0);
    let in_two = records(&message, 40);
    let with_alert = [&in_two[..45], b"\x15\x03\x03\x00\x02\x01\x00", &in_two[45..]].concat();
    let wrong: [&[u8]; 6] = [
        &records(&longer, 1 << 14),
        &with_alert,
        b"\x16\x03\x01\x00\x00",
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
        b"\x16\x02\x00\x00\x04\x01\x00\x00\x00",
        &records(&message, 1),
    ];
    for bytes in wrong {
        assert_eq!(answer(&daemon, bytes), DECODE_ERROR, "{}", bytes.escape_ascii());
    }
    assert!(!backend.has_connection());
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("hello bad"), 6);
}

#[test]
fn bytes_that_are_no_tls_are_closed_without_a_word_of_it() {
    let (daemon, backend, _file) = door("");
    assert_eq!(answer(&daemon, b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"), b"");
    assert!(!backend.has_connection());
}

#[test]
fn a_client_that_does_not_complete_its_hello_is_closed_in_time() {
    let (daemon, backend, _file) = door("hello-timeout = '200ms'");
    let mut silent = Client::connect(&daemon.addr());
    let mut slow = Client::connect(&daemon.addr());
    slow.send(&hello("www.example.org")[..30]);
    silent.read_to_end_or_reset();
    slow.read_to_end_or_reset();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("hello slow"), 2);
    assert!(!backend.has_connection());
}

#[test]
fn a_client_that_leaves_before_its_hello_is_whole_leaves_nothing_behind() {
    let (daemon, backend, _file) = door("");
    let hello = hello("www.example.org");
    for length in [0, 1, 30, hello.len() - 1] {
        let mut client = Client::connect(&daemon.addr());
        client.send(&hello[..length]);
        client.half_close();
        client.read_to_end_or_reset();
        let mut client = Client::connect(&daemon.addr());
        client.send(&hello[..length]);
        client.reset();
    }
    daemon.usr1_until(|stats| stats.count("connections") == 0 && stats.count("hello left") == 8);
    assert!(!backend.has_connection());
}

#[test]
fn a_server_that_cannot_be_reached_ends_the_connection_and_no_other() {
    let backend = Backend::new();
    let home = temp_dir();
    let socket = home.path().join("nothing");
    let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let unix = format!("addr = 'unix:{}'", socket.display());
    let services = [
        ("up.example", at(backend.address())),
        ("down.example", at(refused)),
        ("unix.example", unix),
    ];
    let daemon = RouteFile::new("", &services).start();
    for name in ["down.example", "unix.example", "down.example"] {
        let mut client = client(&daemon, name, "and more");
        let answer = client.read_to_end_or_reset();
        assert!(
            answer.is_empty() || answer.starts_with(&[21, 3, 3]),
            "{}",
            answer.escape_ascii()
        );
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert!(stats.count("connect failed") >= 3, "{stats:#?}");
    pair(&daemon, &backend, "up.example");
}

#[test]
fn a_client_of_a_server_that_cannot_be_reached_gets_another_one() {
    let backend = Backend::new();
    let refused = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let addrs = format!("addrs = ['{refused}', '{}']", backend.address());
    let daemon = RouteFile::new("", &[("www.example.org", addrs)]).start();
    for _ in 0..4 {
        pair(&daemon, &backend, "www.example.org");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("connect failed"), stats.count("connect again")), (1, 1));
    assert_eq!((stats.count("backends known"), stats.count("backends out")), (2, 1));
    daemon.stderr_wait(&format!("service \"www.example.org\": server {refused} is out for "));
}

#[test]
fn the_only_server_is_tried_although_it_is_out_and_its_return_is_told() {
    let port = free_port();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let daemon = RouteFile::new("", &[("www.example.org", at(address))]).start();
    client(&daemon, "www.example.org", "").read_to_end_or_reset();
    daemon.stderr_wait(&format!("server {address} is out for "));
    let backend = Backend::at(port);
    pair(&daemon, &backend, "www.example.org");
    daemon.stderr_wait(&format!("service \"www.example.org\": server {address} is back after "));
    assert_eq!(daemon.usr1().count("backends out"), 0);
}

#[test]
fn a_server_at_a_unix_socket_is_reached() {
    let home = temp_dir();
    let path = home.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let file = RouteFile::new("", &[("a.example", format!("addr = 'unix:{}'", path.display()))]);
    let daemon = file.start();
    let mut client = client(&daemon, "a.example", "ping");
    let (mut served, _) = listener.accept().unwrap();
    let mut first = vec![0; hello("a.example").len() + 4];
    served.read_exact(&mut first).unwrap();
    assert_eq!(first, [hello("a.example"), b"ping".to_vec()].concat());
    served.write_all(b"pong").unwrap();
    drop(served);
    assert_eq!(client.read_to_end(), b"pong");
}

// ---- the relay -------------------------------------------------------------------------------------------------

#[test]
fn the_end_of_each_side_is_passed_on_and_the_other_side_goes_on() {
    let (daemon, backend, _file) = door("");
    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    client.half_close();
    assert_eq!(served.read_to_end(), b"");
    served.send("the answer comes behind the end of the client");
    drop(served);
    assert_eq!(client.read_to_end(), b"the answer comes behind the end of the client");

    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    served.half_close();
    assert_eq!(client.read_to_end(), b"");
    client.send("the client goes on behind the end of the server");
    client.half_close();
    assert_eq!(served.read_to_end(), b"the client goes on behind the end of the server");

    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    served.half_close();
    client.half_close();
    assert_eq!((client.read_to_end(), served.read_to_end()), (vec![], vec![]));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("routes total"), stats.count("routes active")), (3, 0));
}

#[test]
fn bytes_and_end_of_a_client_that_come_before_its_server_is_connected_are_kept() {
    let (listener, address, place) = full_listener();
    let daemon = RouteFile::new("", &[("www.example.org", at(address))]).start();
    let mut client = client(&daemon, "www.example.org", "a request");
    client.send(" in two packets");
    client.half_close();
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    // The kernel sends the SYN again after a second, and finds a place then.
    drop(listener.accept().unwrap());
    drop(place);
    let (mut served, _) = listener.accept().unwrap();
    let mut all = Vec::new();
    served.read_to_end(&mut all).unwrap();
    assert_eq!(
        all,
        [&hello("www.example.org")[..], b"a request in two packets"].concat()
    );
    served.write_all(b"the answer").unwrap();
    drop(served);
    assert_eq!(client.read_to_end(), b"the answer");
}

/// A listener whose queue is full, so that connecting to it lasts.
fn full_listener() -> (TcpListener, SocketAddr, TcpStream) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::empty(), None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let place = TcpStream::connect(address).unwrap();
    (listener, address, place)
}

#[test]
fn a_server_that_does_not_answer_is_given_up_in_time() {
    let (_listener, address, _place) = full_listener();
    let daemon = RouteFile::new("connect-timeout = '200ms'", &[("www.example.org", at(address))]).start();
    let mut client = client(&daemon, "www.example.org", "");
    client.read_to_end_or_reset();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert!(stats.count("connect late") >= 1, "{stats:#?}");
}

#[test]
fn a_client_that_leaves_by_a_reset_while_its_server_is_awaited_leaves_nothing_behind() {
    let (_listener, address, _place) = full_listener();
    let daemon = RouteFile::new("connect-timeout = '600s'", &[("www.example.org", at(address))]).start();
    let client = client(&daemon, "www.example.org", "");
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    client.reset();
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_reset_is_passed_on_so_that_a_part_is_not_taken_for_the_whole() {
    let (daemon, backend, _file) = door("");
    let (client, mut served) = pair(&daemon, &backend, "www.example.org");
    client.reset();
    served.expect_reset();

    let (mut client, served) = pair(&daemon, &backend, "www.example.org");
    served.reset();
    client.expect_reset();
    daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn many_bytes_go_both_ways_at_once_unchanged() {
    const LENGTH: usize = 40 << 20;
    let (daemon, backend, _file) = door("");
    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    let pattern = |seed: u64| -> Vec<u8> {
        let mut state = seed;
        let words = (0..LENGTH / 8).flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()
        });
        words.collect()
    };
    let (up, down) = (pattern(1), pattern(2));
    let (sent_up, sent_down) = (up.clone(), down.clone());
    let mut sender = served.stream.try_clone().unwrap();
    let sending = thread::spawn(move || {
        sender.write_all(&sent_down).unwrap();
        sender.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let reading = thread::spawn(move || served.read_to_end());
    let received = client.exchange(&sent_up);
    assert!(received == down, "{} of {LENGTH} bytes", received.len());
    assert!(reading.join().unwrap() == up);
    sending.join().unwrap();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert!(stats.count("bytes in") >= LENGTH as u64 && stats.count("bytes out") >= LENGTH as u64);
    assert!(stats.count("bytes spliced") > LENGTH as u64, "{stats:#?}");
}

#[test]
fn a_silent_connection_is_cut_and_a_busy_one_is_not() {
    let (daemon, backend, _file) = door("idle-timeout = '500ms'");
    let (mut silent, mut silent_served) = pair(&daemon, &backend, "www.example.org");
    silent.read_to_end_or_reset();
    silent_served.stream.read_to_end(&mut Vec::new()).ok();
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("relay idle"), 1);
}

#[test]
fn clients_that_send_a_byte_now_and_then_hinder_no_other() {
    let (daemon, backend, _file) = door("");
    let hello = hello("www.example.org");
    let mut slow: Vec<Client> = (0..500).map(|_| Client::connect(&daemon.addr())).collect();
    for byte in &hello[..20] {
        for client in &mut slow {
            client.send([*byte]);
        }
        pair(&daemon, &backend, "www.example.org");
    }
    for mut client in slow {
        client.send(&hello[20..]);
        backend.accept().expect(&hello);
    }
}

#[test]
fn a_client_that_does_not_read_holds_its_server_and_no_other_connection() {
    let (daemon, backend, _file) = door("");
    let (client, served) = pair(&daemon, &backend, "www.example.org");
    served.stream.set_nonblocking(true).unwrap();
    let (piece, mut sent) = (vec![7; 1 << 20], 0);
    // Until no more is taken on the way, and nothing moves any more.
    let mut seen = 0;
    loop {
        match (&served.stream).write(&piece) {
            Ok(count) => sent += count,
            Err(_)
                if daemon.usr1().count("bytes out")
                    == std::mem::replace(&mut seen, daemon.usr1().count("bytes out")) =>
            {
                break;
            }
            Err(_) => {}
        }
    }
    pair(&daemon, &backend, "www.example.org");
    let reading = thread::spawn(move || {
        let mut client = client;
        client.read_to_end().len()
    });
    drop(served);
    assert_eq!(reading.join().unwrap(), sent);
}

// ---- what the door tells ---------------------------------------------------------------------------------------

#[test]
fn the_dump_shows_the_table_the_servers_and_the_connections() {
    let (daemon, backend, _file) = door("");
    let (client, _served) = pair(&daemon, &backend, "WWW.example.org");
    let _opening = Client::connect(&daemon.addr());
    daemon.usr1_until(|stats| stats.count("connections") == 2);
    let dump = daemon.usr2();
    let shows = |begin: &str, end: &str| {
        let shown = dump.iter().any(|line| line.starts_with(begin) && line.ends_with(end));
        assert!(shown, "{begin}...{end}: {dump:#?}");
    };
    let address = backend.address();
    shows("web: route door of iotcpd ", "clients = 2 of 4096");
    shows("web: table: names = 1", "");
    let server = format!(
        "web: backend of \"www.example.org\": way = tls, address = {address}, weight = 1, active = 1, state = up"
    );
    shows(&server, "");
    let ports = format!("client = 127.0.0.1:{}, server = {address}, ", client.local_port());
    let bytes = format!(
        "in = {}, out = 4, name = \"www.example.org\"",
        hello("www.example.org").len() + 4
    );
    shows("web: route ", &format!("{ports}{bytes}"));
    shows("web: route ", "server = none, in = 0, out = 0, name = \"none\"");
    assert!(
        dump.iter()
            .any(|line| line.contains("state = opening, connected for = ")),
        "{dump:#?}"
    );
}

#[test]
fn with_debug_each_step_of_a_connection_is_told() {
    let (daemon, backend, _file) = door("debug = true");
    let (client, served) = pair(&daemon, &backend, "www.example.org");
    drop((client, served));
    let address = backend.address();
    for step in [
        ": its first bytes are awaited".to_owned(),
        format!(": service \"www.example.org\", server {address}"),
        ": connected".to_owned(),
        ": closed (--)".to_owned(),
    ] {
        daemon.stderr_wait(&step);
    }
}

// ---- in front of the door --------------------------------------------------------------------------------------

#[test]
fn the_access_list_decides_who_is_routed() {
    let (daemon, backend, _file) = door("deny = ['127.0.0.66']");
    let mut denied = Client::connect_from(Ipv4Addr::new(127, 0, 0, 66), &daemon.addr());
    denied.try_send(hello("www.example.org")).ok();
    assert_eq!(denied.read_to_end_or_reset(), b"");
    daemon.usr1_until(|stats| stats.count("refused denied") == 1);
    assert!(!backend.has_connection());
    pair(&daemon, &backend, "www.example.org");
}

#[test]
fn the_header_of_a_trusted_proxy_comes_before_the_hello_and_is_not_passed_on() {
    let (daemon, backend, _file) = door("accept-proxy = ['127.0.0.1']\ndeny = ['192.0.2.66']");
    let header = "PROXY TCP4 192.0.2.7 198.51.100.1 4321 443\r\n";
    let hello = hello("www.example.org");
    for cut in [0, 10, header.len(), header.len() + 5] {
        let bytes = [header.as_bytes(), &hello].concat();
        let mut client = Client::connect(&daemon.addr());
        client.send(&bytes[..cut]);
        client.send(&bytes[cut..]);
        let mut served = backend.accept();
        served.expect(&hello);
        assert!(daemon.usr2().iter().any(|line| line.contains("192.0.2.7:4321")));
    }
    let mut denied = Client::connect(&daemon.addr());
    denied.send("PROXY TCP4 192.0.2.66 198.51.100.1 4321 443\r\n");
    assert_eq!(denied.read_to_end_or_reset(), b"");
}

#[test]
fn a_connection_over_the_limit_is_closed_and_a_place_is_free_again_when_one_ends() {
    let (daemon, backend, _file) = door("max-connections = 2");
    let first = pair(&daemon, &backend, "www.example.org");
    let _second = pair(&daemon, &backend, "www.example.org");
    let mut third = Client::connect(&daemon.addr());
    third.try_send(hello("www.example.org")).ok();
    third.read_to_end_or_reset();
    daemon.usr1_until(|stats| stats.count("refused max-conn") == 1);
    drop(first);
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    pair(&daemon, &backend, "www.example.org");
}

// ---- changes and ends ------------------------------------------------------------------------------------------

#[test]
fn a_changed_table_decides_new_connections_and_touches_none_that_is_up() {
    let (daemon, before, file) = door("");
    let (mut old, mut served) = pair(&daemon, &before, "www.example.org");
    let after = Backend::new();
    let services = [
        ("www.example.org", at(after.address())),
        ("new.example.org", at(after.address())),
    ];
    file.write("", &services);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    pair(&daemon, &after, "www.example.org");
    pair(&daemon, &after, "new.example.org");
    file.write("", &services[1..]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait_nth("the configuration was read again", 2);
    assert_eq!(answer(&daemon, &hello("www.example.org")), UNRECOGNIZED_NAME);
    old.send("still here");
    served.expect("still here");
    served.send("so am I");
    old.read_text("so am I");
}

#[test]
fn a_door_that_drains_waits_for_its_connections_and_takes_no_more() {
    let (daemon, backend, _file) = door("stop-timeout = '600s'");
    let address = daemon.addr();
    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    let mut opening = Client::connect(&address);
    opening.send(&hello("www.example.org")[..20]);
    daemon.usr1_until(|stats| stats.count("connections") == 2);
    daemon.signal(Signal::SIGTERM);
    opening.read_to_end_or_reset();
    client.send("more");
    served.expect("more");
    served.send("an answer");
    client.read_text("an answer");
    drop(served);
    assert_eq!(client.read_to_end(), b"");
    drop(client);
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn at_the_end_of_the_stop_timeout_connections_are_cut() {
    let (daemon, backend, _file) = door("stop-timeout = '300ms'");
    let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
    daemon.signal(Signal::SIGTERM);
    client.read_to_end_or_reset();
    served.stream.read_to_end(&mut Vec::new()).ok();
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_predecessor_serves_its_connections_beyond_the_stop_timeout() {
    let backend = Backend::new();
    let keys = "stop-timeout = '100ms'\nold-generation-timeout = '600s'\nhello-timeout = '500ms'";
    let file = RouteFile::new(keys, &[("www.example.org", at(backend.address()))]);
    let installation = Installation::new();
    let daemon = Daemon::with(["run", "--config", file.path()])
        .installed_at(&installation.program())
        .start();
    let (mut old, mut served) = pair(&daemon, &backend, "www.example.org");
    let address = daemon.addr();
    let successor = upgrade(&daemon, daemon.pid(), 1);
    let (mut new, mut new_served) = pair(&daemon, &backend, "www.example.org");
    let old_processes = |pid| daemon.usr1_of_process(pid).count("old processes");
    assert_eq!((old_processes(daemon.pid()), old_processes(successor)), (0, 1));
    // A third one counts both.
    let third = upgrade(&daemon, successor, 2);
    assert_eq!(old_processes(third), 2);
    // The time that the successor gives a silent client is longer than the one that TERM would give the old one.
    Client::connect(&address).read_to_end_or_reset();
    for (client, served) in [(&mut old, &mut served), (&mut new, &mut new_served)] {
        client.send("are you there?");
        served.expect("are you there?");
        served.send("yes");
        client.read_text("yes");
    }
    drop((old, served));
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(old_processes(third), 1);
}
