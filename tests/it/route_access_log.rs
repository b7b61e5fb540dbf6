//! The access log of a route door: a line about each connection at its end.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use nix::sys::signal::Signal;

use crate::harness::{Client, Daemon, free_port};
use crate::route_doors::{Doors, pool, route, service};
use crate::route_peers::{
    Backend, DECODE_ERROR, INTERNAL_ERROR, RouteFile, UNRECOGNIZED_NAME, at, client, hello, hello_message, pair,
    records,
};

const KEYS: [&str; 16] = [
    "connection",
    "end",
    "client",
    "protocol",
    "name",
    "alpn",
    "ech",
    "why",
    "source",
    "service",
    "server",
    "decided",
    "connected",
    "total",
    "in",
    "out",
];

/// The values of a line, which has all keys in their order.
#[track_caller]
fn values(line: &str) -> BTreeMap<&'static str, String> {
    let mut rest = line.split_once("web: ").expect("the name of the door").1;
    let mut values = BTreeMap::new();
    for key in KEYS {
        let begin = format!("{key}=");
        let value = rest
            .strip_prefix(&*begin)
            .unwrap_or_else(|| panic!("{key} is missing in {line}"));
        let end = match value.strip_prefix('"') {
            Some(quoted) => 2 + quoted.find('"').expect("a quotation mark"),
            None => value.find(' ').unwrap_or(value.len()),
        };
        values.insert(key, value[..end].to_owned());
        rest = value[end..].trim_start();
    }
    assert_eq!(rest, "");
    values
}

/// Waits for the line about the client at this port. Checks its values against these.
#[track_caller]
fn expect(daemon: &Daemon, port: u16, expected: &[(&str, &str)]) -> BTreeMap<&'static str, String> {
    let line = daemon.stderr_wait(&format!(" client=127.0.0.1:{port} "));
    let values = values(&line);
    for (key, value) in expected {
        assert_eq!(values[key], *value, "{key} in {line}");
    }
    values
}

/// A ClientHello for this name with the extension Encrypted ClientHello.
fn encrypted_hello(name: &str) -> Vec<u8> {
    let mut message = hello_message(Some(name), &[]);
    let extension = [0xfe, 0x0d, 0, 1, 0];
    message.extend(extension);
    // The length of the message, and that of its extensions behind the 41 bytes in front of them.
    for place in [2, 4 + 41] {
        let length = u16::from_be_bytes([message[place], message[place + 1]]) + 5;
        message[place..place + 2].copy_from_slice(&length.to_be_bytes());
    }
    records(&message, 1 << 14)
}

#[test]
fn a_connection_is_told_with_its_name_its_server_its_times_and_its_bytes() {
    let [exact, wild, other] = std::array::from_fn(|_| Backend::new());
    let services = [
        ("www.example.org", at(exact.address())),
        ("*.example.org", at(wild.address())),
        ("CATCH_ALL", at(other.address())),
    ];
    let daemon = RouteFile::new("log-connections = true", &services).start();
    for (name, shown, why, service, backend) in [
        ("WWW.Example.org", "www.example.org", "exact", "www.example.org", &exact),
        ("a.example.org", "a.example.org", "suffix", "*.example.org", &wild),
        ("bad name", "\"bad name\"", "catch-all", "CATCH_ALL", &other),
    ] {
        let (mut client, mut served) = pair(&daemon, backend, name);
        let port = client.local_port();
        client.half_close();
        served.read_to_end();
        served.send("the end");
        drop(served);
        assert_eq!(client.read_to_end(), b"the end");
        let (sent, server) = (hello(name).len() + 4, backend.address().to_string());
        let values = expect(
            &daemon,
            port,
            &[
                ("end", "--"),
                ("protocol", "tls"),
                ("name", shown),
                ("alpn", "-"),
                ("ech", "-"),
                ("why", why),
                ("source", "file"),
                ("service", service),
                ("server", &server),
                ("in", &sent.to_string()),
                ("out", "11"),
            ],
        );
        let seconds = |key: &str| values[key].parse::<f64>().expect("a number");
        assert!(
            seconds("decided") + seconds("connected") <= seconds("total"),
            "{values:?}"
        );
    }
    let mut client = Client::connect(&daemon.addr());
    let port = client.local_port();
    client.send(records(&hello_message(Some("a.b"), &["h2", "a b", "c\n"]), 1 << 14));
    drop(other.accept());
    client.read_to_end_or_reset();
    drop(client);
    expect(&daemon, port, &[("alpn", "\"h2,a b,c\\\\n\""), ("name", "a.b")]);
    let mut client = Client::connect(&daemon.addr());
    let port = client.local_port();
    client.send(encrypted_hello("outer.example"));
    drop(other.accept());
    client.read_to_end_or_reset();
    drop(client);
    expect(&daemon, port, &[("ech", "outer"), ("name", "outer.example")]);
}

#[test]
fn each_end_has_its_letters() {
    let backend = Backend::new();
    let nothing = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let services = [
        ("www.example.org", at(backend.address())),
        ("down.example.org", at(nothing)),
        ("idle.example.org", at(backend.address()) + "\nidle-timeout = '200ms'"),
    ];
    let keys = "log-connections = true\nhello-timeout = '400ms'";
    let daemon = RouteFile::new(keys, &services).start();

    let mut asking = client(&daemon, "other.example", "");
    let port = asking.local_port();
    assert_eq!(asking.read_to_end(), UNRECOGNIZED_NAME);
    drop(asking);
    let told = [
        ("end", "PR"),
        ("name", "other.example"),
        ("service", "-"),
        ("why", "-"),
        ("in", "0"),
    ];
    expect(&daemon, port, &told);

    let mut wrong = Client::connect(&daemon.addr());
    let port = wrong.local_port();
    wrong.send(b"\x16\x03\x01\0\0");
    assert_eq!(wrong.read_to_end(), DECODE_ERROR);
    drop(wrong);
    let told = [("end", "PR"), ("protocol", "tls"), ("name", "-"), ("decided", "-")];
    expect(&daemon, port, &told);

    let mut down = client(&daemon, "down.example.org", "");
    let port = down.local_port();
    assert_eq!(down.read_to_end(), INTERNAL_ERROR);
    drop(down);
    let server = nothing.to_string();
    let told = [
        ("end", "SC"),
        ("service", "down.example.org"),
        ("server", &server),
        ("connected", "-"),
    ];
    expect(&daemon, port, &told);

    let mut slow = Client::connect(&daemon.addr());
    let port = slow.local_port();
    slow.read_to_end_or_reset();
    expect(&daemon, port, &[("end", "cR"), ("protocol", "plain"), ("name", "-")]);

    let left = Client::connect(&daemon.addr());
    let port = left.local_port();
    drop(left);
    expect(&daemon, port, &[("end", "CR")]);

    let (lost, mut served) = pair(&daemon, &backend, "www.example.org");
    let port = lost.local_port();
    lost.reset();
    served.expect_reset();
    expect(&daemon, port, &[("end", "CD"), ("out", "4")]);

    let (mut client, served) = pair(&daemon, &backend, "www.example.org");
    let port = client.local_port();
    served.reset();
    client.expect_reset();
    expect(&daemon, port, &[("end", "SD"), ("out", "4")]);

    let (mut idle, _served) = pair(&daemon, &backend, "idle.example.org");
    let port = idle.local_port();
    idle.read_to_end_or_reset();
    expect(&daemon, port, &[("end", "cD")]);
}

#[test]
fn what_is_no_tls_is_told_as_what_it_is() {
    let backend = Backend::new();
    let address = backend.address();
    let services = [
        ("www.example.org", at(address)),
        (
            "CATCH_ALL",
            format!("addr = '{}'\nhttp-port = {}", address.ip(), address.port()),
        ),
    ];
    let daemon = RouteFile::new("log-connections = true", &services).start();
    let mut plain = Client::connect(&daemon.addr());
    let port = plain.local_port();
    plain.send("HELO");
    drop(backend.accept());
    plain.read_to_end_or_reset();
    drop(plain);
    expect(
        &daemon,
        port,
        &[("protocol", "plain"), ("why", "catch-all"), ("name", "-")],
    );
    let mut postgres = Client::connect(&daemon.addr());
    let port = postgres.local_port();
    postgres.send(b"\0\0\0\x08\x04\xd2\x16\x2f");
    postgres.read_text("S");
    postgres.send(hello("www.example.org"));
    backend.accept().send("N");
    assert_eq!(postgres.read_to_end_or_reset(), INTERNAL_ERROR);
    drop(postgres);
    let told = [
        ("end", "PH"),
        ("protocol", "postgresql"),
        ("name", "www.example.org"),
        ("in", "0"),
    ];
    expect(&daemon, port, &told);
}

#[test]
fn it_is_off_until_the_file_says_so_and_again_when_it_does_not() {
    let backend = Backend::new();
    let services = [("www.example.org", at(backend.address()))];
    let file = RouteFile::new("", &services);
    let daemon = file.start();
    let connect = || {
        let (client, served) = pair(&daemon, &backend, "www.example.org");
        let port = client.local_port();
        drop((client, served));
        daemon.usr1_until(|stats| stats.count("connections") == 0);
        port
    };
    let mut silent = vec![connect()];
    for (nth, keys) in ["log-connections = true", ""].into_iter().enumerate() {
        file.write(keys, &services);
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait_nth("the configuration was read again", nth + 1);
        let port = connect();
        if keys.is_empty() {
            silent.push(port);
        } else {
            expect(&daemon, port, &[("name", "www.example.org")]);
        }
    }
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    let log = daemon.stderr.text();
    for port in silent {
        assert!(!log.contains(&format!("client=127.0.0.1:{port}")), "{log}");
    }
}

#[test]
fn a_connection_for_another_door_is_told_when_it_is_handed_over() {
    let text = [
        route("log-connections = true"),
        service("CATCH_ALL", "door = 'main'"),
        pool("main", ""),
    ];
    let doors = Doors::new(&text.concat());
    let daemon = doors.start();
    let mut client = Client::connect(&daemon.addr());
    let port = client.local_port();
    client.send("a line\n");
    assert!(!client.read_to_end().is_empty());
    let told = [
        ("end", "LR"),
        ("protocol", "plain"),
        ("server", "door:main"),
        ("in", "0"),
    ];
    expect(&daemon, port, &told);
}
