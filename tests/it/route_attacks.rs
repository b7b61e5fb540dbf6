//! A route door with clients and servers that mean it no good: each costs itself alone, a bounded memory, and a few lines in
//! the log. In every test a client in good faith is served beside them.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;

use crate::harness::{Client, Daemon, reset_on_close};
use crate::route_peers::{Backend, INTERNAL_ERROR, RouteFile, Served, at, client, hello, pair};

/// A door with a service for `www.example.org` at this server, and these keys.
#[track_caller]
fn door(keys: &str, backend: &Backend) -> (Daemon, RouteFile) {
    let file = RouteFile::new(keys, &[("www.example.org", at(backend.address()))]);
    (file.start(), file)
}

/// Ends the daemon, whose log must not be long.
#[track_caller]
fn assert_log_is_short(daemon: &Daemon) {
    daemon.signal(Signal::SIGTERM);
    let (status, _, log) = daemon.finish();
    assert!(status.success() && log.lines().count() < 20, "{log}");
}

#[test]
fn four_thousand_clients_that_send_a_byte_at_a_time_cost_little_and_hinder_no_other() {
    const CLIENTS: usize = 4000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let backend = Backend::new();
    let keys = "max-connections = 4200\nmax-connections-per-ip = 4200\nhello-timeout = '600s'";
    let (daemon, _file) = door(keys, &backend);
    let hello = hello("www.example.org");
    let before = daemon.resident();
    let mut slow: Vec<Client> = (0..CLIENTS).map(|_| Client::connect(&daemon.addr())).collect();
    for byte in &hello[..3] {
        for client in &mut slow {
            client.send([*byte]);
        }
        pair(&daemon, &backend, "www.example.org");
    }
    daemon.usr1_until(|stats| stats.count("connections") >= 4000);
    let each = daemon.resident().saturating_sub(before) / CLIENTS;
    assert!(each < 2048, "{each} bytes each");
    drop(slow);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("hello left"), stats.count("routes total")), (4000, 4003));
    assert_log_is_short(&daemon);
}

#[test]
fn hundreds_of_clients_without_a_complete_hello_are_closed_in_time_and_told_in_a_few_lines() {
    let backend = Backend::new();
    let keys = "max-connections = 600\nmax-connections-per-ip = 600\nhello-timeout = '300ms'";
    let (daemon, _file) = door(keys, &backend);
    let half = &hello("www.example.org")[..40];
    let begin = || {
        let mut client = Client::connect(&daemon.addr());
        client.send(half);
        client
    };
    let slow: Vec<Client> = (0..500).map(|_| begin()).collect();
    for mut client in slow {
        client.read_to_end_or_reset();
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("hello slow"), 500);
    pair(&daemon, &backend, "www.example.org");
    assert_log_is_short(&daemon);
}

// ---- servers ---------------------------------------------------------------------------------------------------

/// A server that treats a connection in its own way costs that connection alone, and each client learns of the end.
#[test]
fn servers_that_break_off_end_their_own_connection_alone() {
    let backend = Backend::new();
    let (daemon, _file) = door("", &backend);
    let (mut other, mut served_other) = pair(&daemon, &backend, "www.example.org");
    let reset = |served: Served| reset_on_close(&served.stream);
    let ways: [(&str, &dyn Fn(Served)); 4] = [
        ("a reset at once", &reset),
        ("a reset behind an answer", &|mut served| {
            served.send("part of an answer");
            reset(served);
        }),
        ("a reset behind the hello", &|mut served| {
            served.expect(hello("www.example.org"));
            reset(served);
        }),
        ("a close with bytes unread", &|served| drop(served)),
    ];
    for (way, treat) in ways {
        let mut client = client(&daemon, "www.example.org", "ping");
        treat(backend.accept());
        let seen = client.read_to_end_or_reset();
        // A server that resets before it has got anything could not be reached.
        assert!(
            b"part of an answer".starts_with(&seen) || seen == INTERNAL_ERROR,
            "{way}: {}",
            seen.escape_ascii()
        );
        served_other.send(way);
        other.read_text(way);
    }
    drop((other, served_other));
    daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_log_is_short(&daemon);
}

/// The events of a conversation: each side sends something, and ends its output.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Move {
    ClientSends,
    ClientEnds,
    ServerSends,
    ServerEnds,
}

#[test]
fn each_side_gets_the_bytes_and_the_end_of_the_other_in_every_order() {
    use Move::{ClientEnds, ClientSends, ServerEnds, ServerSends};
    let backend = Backend::new();
    let (daemon, _file) = door("", &backend);
    for moves in [
        [ClientSends, ClientEnds, ServerSends, ServerEnds],
        [ClientSends, ServerSends, ClientEnds, ServerEnds],
        [ClientSends, ServerSends, ServerEnds, ClientEnds],
        [ServerSends, ServerEnds, ClientSends, ClientEnds],
        [ServerSends, ClientSends, ServerEnds, ClientEnds],
        [ServerSends, ClientSends, ClientEnds, ServerEnds],
    ] {
        let (mut client, mut served) = pair(&daemon, &backend, "www.example.org");
        for step in moves {
            match step {
                ClientSends => {
                    client.send("from the client");
                    served.expect("from the client");
                }
                ClientEnds => {
                    client.half_close();
                    assert_eq!(served.read_to_end(), b"", "{moves:?}");
                }
                ServerSends => {
                    served.send("from the server");
                    client.read_text("from the server");
                }
                ServerEnds => {
                    served.half_close();
                    assert_eq!(client.read_to_end(), b"", "{moves:?}");
                }
            }
        }
    }
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(
        (stats.count("relay cut client"), stats.count("relay cut server")),
        (0, 0)
    );
}
