//! Many clients at once, and the limits on how many and who.

use std::net::Ipv4Addr;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::harness::{Client, Daemon, Gate, worker_command};

const PATIENT: [&str; 4] = ["--queue-timeout", "60s", "--busy-timeout", "600s"];

/// This process holds the other ends of all the connections of its tests.
fn allow_many_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn five_hundred_clients_at_once_on_four_workers_each_get_their_own_answer() {
    allow_many_descriptors();
    let daemon = Daemon::pool(4, &worker_command(&[]), &PATIENT);
    let mut clients: Vec<Client> = (0..500).map(|_| daemon.client()).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.send(format!("echo answer {number}\n"));
    }
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("answer {number}\n").as_bytes());
    }
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("queries total"), stats.count("queries replied")),
        (500, 500)
    );
    assert_eq!((stats.count("queries failed"), stats.count("daemon spawns")), (0, 4));
}

#[test]
fn five_hundred_clients_wait_while_every_worker_is_held_and_are_all_answered() {
    allow_many_descriptors();
    let gate = Gate::new();
    let daemon = Daemon::pool(4, &worker_command(&[]), &PATIENT);
    let mut held: Vec<Client> = (0..4).map(|_| daemon.client()).collect();
    for client in &mut held {
        client.send(format!("wait {} held\n", gate.path()));
    }
    let arrivals: Vec<_> = (0..4).map(|_| gate.arrival()).collect();
    let mut waiting: Vec<Client> = (0..500).map(|_| daemon.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("echo answer {number}\n"));
    }
    daemon.usr1_until(|stats| stats.count("queue length") == 500);
    drop(arrivals);
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("answer {number}\n").as_bytes());
    }
    assert_eq!(daemon.usr1().count("queue highest"), 500);
}

#[test]
fn two_thousand_silent_connections_disturb_no_other_client() {
    allow_many_descriptors();
    let flags = [
        "--queue-timeout",
        "60s",
        "--max-connections",
        "4096",
        "--read-timeout",
        "10m",
    ];
    let daemon = Daemon::pool(2, &worker_command(&[]), &flags);
    let mut silent: Vec<Client> = (0..2000).map(|_| daemon.client()).collect();
    daemon.usr1_until(|stats| stats.count("connections") == 2000);
    for number in 0..50 {
        assert_eq!(daemon.ask(&format!("echo {number}")), format!("{number}\n"));
    }
    assert!(silent.iter_mut().all(|client| !client.has_input()));
    let mut late = silent.swap_remove(1000);
    late.send("echo at last\n");
    assert_eq!(late.read_to_end(), b"at last\n");
    drop(silent);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (51, 0));
}

#[test]
fn connections_over_the_limit_are_refused_until_one_ends() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--max-connections", "2"]);
    let mut silent = [daemon.watched_client(), daemon.watched_client()];
    assert_eq!(daemon.client().read_to_end(), b"ERR\n");
    assert_eq!(daemon.client().read_to_end(), b"ERR\n");
    daemon.stderr_wait("as many connections as --max-connections allows");
    assert!(silent.iter_mut().all(|client| !client.has_input()));
    drop(silent);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused max-conn"), stats.count("queries total")), (2, 0));
    assert_eq!(daemon.ask("echo on"), "on\n");
}

#[test]
fn one_address_may_not_take_all_connections() {
    let flags = ["--max-connections-per-ip", "2", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let greedy = [daemon.watched_client(), daemon.watched_client()];
    assert_eq!(daemon.client().read_to_end(), b"ERR\n");
    let mut other = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), &daemon.addr());
    other.send("echo other\n");
    assert_eq!(other.read_to_end(), b"other\n");
    drop(greedy);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(
        (stats.count("refused max-per-ip"), stats.count("refused max-conn")),
        (1, 0)
    );
    assert_eq!(daemon.ask("echo on"), "on\n");
}

#[test]
fn only_allowed_addresses_may_connect() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--allow", "127.0.0.2/31", "--queue-timeout", "60s"],
    );
    assert_eq!(daemon.client().read_to_end_or_reset(), b"");
    for last in [2, 3] {
        let mut allowed = Client::connect_from(Ipv4Addr::new(127, 0, 0, last), &daemon.addr());
        allowed.send("echo allowed\n");
        assert_eq!(allowed.read_to_end(), b"allowed\n");
    }
    assert_eq!(daemon.usr1().count("refused denied"), 1);
    let line = daemon.stderr_wait("not allowed by --allow and --deny");
    assert!(line.contains("refused 127.0.0.1:"), "{line}");
}

#[test]
fn denied_addresses_may_not_connect() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--deny", "127.0.0.2", "--queue-timeout", "60s"],
    );
    let mut denied = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), &daemon.addr());
    assert_eq!(denied.read_to_end_or_reset(), b"");
    assert_eq!(daemon.ask("echo on"), "on\n");
    assert_eq!(daemon.usr1().count("refused denied"), 1);
}
