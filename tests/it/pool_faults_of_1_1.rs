//! The faults of iotcpd 1.1: each of these tests fails on that program.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Arrival, Client, Daemon, Gate, worker_command};

/// A wait for a worker that ends because one comes free, not because time has passed.
const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

#[test]
fn a_long_reply_goes_whole_to_its_client_and_nothing_of_it_to_the_next() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let reply = daemon.ask("big 100000");
    assert_eq!(reply.len(), 100_001);
    assert!(reply.starts_with("0123456789") && reply.ends_with("456789\n"));
    assert_eq!(daemon.ask("echo mine"), "mine\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

#[test]
fn a_reply_in_two_pieces_goes_whole_to_its_client_and_nothing_of_it_to_the_next() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut first = daemon.client();
    first.send(format!("partial front {} back\n", gate.path()));
    let arrival = gate.arrival();
    let mut second = daemon.client();
    second.send("echo second\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    arrival.open();
    assert_eq!(first.read_to_end(), b"frontback\n");
    assert_eq!(second.read_to_end(), b"second\n");
}

#[test]
fn with_every_worker_busy_the_server_goes_on_accepting_and_refusing() {
    let gate = Gate::new();
    let daemon = Daemon::pool(2, &worker_command(&[]), &PATIENT);
    let mut held: Vec<Client> = (0..2).map(|_| daemon.client()).collect();
    for client in &mut held {
        client.send(format!("wait {} held\n", gate.path()));
    }
    let arrivals = [gate.arrival(), gate.arrival()];
    let mut waiting: Vec<Client> = (0..30).map(|_| daemon.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("echo {number}\n"));
    }
    daemon.usr1_until(|stats| stats.count("queue length") == 30);
    // It needs no worker, and is served although no worker is free.
    assert_eq!(daemon.ask("a NUL: \0"), "ERR\n");
    arrivals.into_iter().for_each(Arrival::open);
    for client in &mut held {
        assert_eq!(client.read_to_end(), b"held\n");
    }
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("{number}\n").as_bytes());
    }
}

#[test]
fn a_request_without_a_worker_in_time_is_refused_while_the_worker_stays_busy() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "100ms"]);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    for _ in 0..3 {
        assert_eq!(daemon.ask("echo nobody hears this"), "ERR\n");
    }
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    assert_eq!(daemon.usr1().count("refused queue-time"), 3);
}

/// There the server closed the descriptor of the client that had gone once more when its worker was done, and by then
/// it belonged to another client.
#[test]
fn a_client_that_leaves_a_busy_worker_closes_no_other_connection() {
    let (first_gate, second_gate) = (Gate::new(), Gate::new());
    let daemon = Daemon::pool(2, &worker_command(&[]), &PATIENT);
    let mut leaver = daemon.watched_client();
    leaver.send(format!("wait {} nobody\n", first_gate.path()));
    let first = first_gate.arrival();
    leaver.reset();
    daemon.usr1_until(|stats| stats.count("queries timeout") == 1);

    let mut other = daemon.client();
    other.send(format!("wait {} other\n", second_gate.path()));
    let second = second_gate.arrival();
    first.open();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!(daemon.ask("echo third"), "third\n");
    assert!(!other.has_input(), "its connection is open and silent");
    second.open();
    assert_eq!(other.read_to_end(), b"other\n");
}

#[test]
fn a_nul_in_a_line_costs_a_refusal_and_no_worker() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    client.send("echo a\0b\n");
    assert_eq!(client.read_to_end(), b"ERR\n");
    assert_eq!(daemon.ask("served"), "1\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused bad-line"), stats.count("daemon spawns")), (1, 1));
    daemon.stderr_wait("its request holds a NUL byte");
}

#[test]
fn the_second_line_of_a_packet_reaches_no_worker() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut first = daemon.client();
    first.send("echo one\necho two\n");
    assert_eq!(first.read_to_end(), b"one\n");
    assert_eq!(daemon.ask("echo three"), "three\n");
    assert_eq!(daemon.ask("served"), "3\n");
}

#[test]
fn bytes_behind_the_line_of_a_client_are_ignored_and_cost_it_nothing() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.watched_client();
    client.send(format!("wait {} mine\n", gate.path()));
    let arrival = gate.arrival();
    client.send("echo two\n");
    client.send([b'x'; 40_000]);
    arrival.open();
    assert_eq!(client.read_to_end(), b"mine\n");
    assert_eq!(daemon.ask("served"), "2\n");
}

#[test]
fn a_worker_started_while_clients_are_connected_has_none_of_their_sockets() {
    let gate = Gate::new();
    let daemon = Daemon::pool(2, &worker_command(&[]), &PATIENT);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    let idle: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    kill(Pid::from_raw(idle), Signal::SIGKILL).unwrap();
    daemon.stderr_wait(&format!("(pid {idle}) was killed by signal 9"));
    let descriptors = daemon.ask("descriptors");
    let open: Vec<_> = descriptors.split_whitespace().collect();
    assert_eq!(open.len(), 3, "{descriptors}");
    assert!(
        open.iter().all(|descriptor| descriptor.contains("=pipe:[")),
        "{descriptors}"
    );
    // The end of its connection, although the new worker lives on.
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 3);
}

/// There one failed accept was the last one.
#[test]
fn when_descriptors_are_used_up_it_serves_again_once_connections_end() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    assert_eq!(daemon.ask("echo before"), "before\n");
    leave_descriptors(4, &daemon);
    let silent: Vec<Client> = (0..20).map(|_| daemon.client()).collect();
    let mut last = daemon.client();
    last.send("echo last\n");
    daemon.stderr_wait("accepting pauses");
    assert!(!last.has_input());
    // The signal handlers, the statistics and the loop itself go on without a descriptor to spare.
    assert_eq!(daemon.usr1().count("queries total"), 1);
    drop(silent);
    assert_eq!(last.read_to_end(), b"last\n");
    assert_eq!(daemon.ask("echo after"), "after\n");
}

/// Clients may take the descriptors that a worker needs to start; it is started as soon as it can be.
#[test]
fn a_worker_that_dies_while_descriptors_are_used_up_is_replaced_once_they_are_not() {
    let flags = [&PATIENT[..], &["--alarm-interval", "100ms"]].concat();
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let worker: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    leave_descriptors(4, &daemon);
    let silent: Vec<Client> = (0..20).map(|_| daemon.client()).collect();
    daemon.stderr_wait("accepting pauses");
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    daemon.stderr_wait(&format!("(pid {worker}) was killed by signal 9"));
    drop(silent);
    assert_eq!(daemon.ask("served"), "1\n");
}

/// Lowers the soft limit only: workers are started with the hard one as it was.
fn leave_descriptors(left: usize, daemon: &Daemon) {
    let limit = limit_that_leaves(left, daemon.pid());
    let limited = std::process::Command::new("prlimit")
        .args(["--pid", &daemon.pid().to_string(), &format!("--nofile={limit}:")])
        .status();
    assert!(limited.unwrap().success());
}

/// The limit on open files under which a process can open `left` more: the limit is one on their numbers.
fn limit_that_leaves(left: usize, pid: i32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: BTreeSet<usize> = open
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let free = (0..).filter(|number| !open.contains(number)).nth(left);
    free.unwrap()
}

/// A socket that is closed with input unread sends a reset, and a reset destroys what is under way.
#[test]
fn a_refusal_is_not_lost_to_a_reset_when_input_is_left_unread() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    let mut endless = daemon.client();
    endless.send(vec![b'x'; 1 << 20]);
    assert_eq!(endless.read_to_end(), b"ERR\n");
    let mut line = vec![b'x'; 1 << 20];
    line.push(b'\n');
    let mut long = daemon.client();
    long.send(&line);
    assert_eq!(long.read_to_end(), b"ERR\n");
    let mut two = daemon.client();
    two.send([b"echo one\n", line.as_slice()].concat());
    assert_eq!(two.read_to_end(), b"one\n");
    assert_eq!(daemon.usr1().count("refused long-line"), 2);
    daemon.stderr_wait("longer than --max-request 64 KiB");
}

#[test]
fn a_client_that_never_ends_its_line_is_closed() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--read-timeout", "200ms"]);
    let mut unfinished = daemon.client();
    unfinished.send("echo x");
    assert_eq!(unfinished.read_to_end(), b"ERR\n");
    let mut silent = daemon.client();
    assert_eq!(silent.read_to_end(), b"");
    drop((unfinished, silent));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("refused slow-read"), 2);
}

#[test]
fn a_client_that_sends_without_end_is_closed_as_well() {
    let flags = ["--read-timeout", "200ms", "--max-request", "1GiB"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut client = daemon.client();
    while !client.has_input() {
        client.send("x");
    }
    assert_eq!(client.read_line(), "ERR");
    assert_eq!(daemon.usr1().count("refused slow-read"), 1);
}

/// There it was 3.5 s without service. Here the old workers serve until the new ones are up, however long that takes.
#[test]
fn at_hup_the_old_workers_serve_until_the_new_ones_are_up() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let daemon = Daemon::pool(2, &command, &["--ready-line", "up", "--queue-timeout", "60s"]);
    let first = [gate.arrival(), gate.arrival()];
    let old = [first[0].pid, first[1].pid];
    first.into_iter().for_each(Arrival::open);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    daemon.signal(Signal::SIGHUP);
    for _ in 0..2 {
        let successor = gate.arrival();
        let pid: i32 = daemon.ask("pid").trim_end().parse().unwrap();
        assert!(old.contains(&pid) || pid != successor.pid, "{pid} is up already");
        successor.open();
    }
    daemon.stderr_wait("every worker has been replaced");
    let pid: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    assert!(!old.contains(&pid));
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries failed"), stats.count("restarts asked")), (0, 2));
}

#[test]
fn hup_under_load_loses_no_request_and_refuses_none() {
    let daemon = Daemon::pool(3, &worker_command(&[]), &PATIENT);
    let over = AtomicBool::new(false);
    let asked: u64 = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|client| {
                let (daemon, over) = (&daemon, &over);
                scope.spawn(move || {
                    let mut asked = 0;
                    while !over.load(Ordering::Relaxed) {
                        let text = format!("{client} {asked}");
                        assert_eq!(daemon.ask(&format!("echo {text}")), format!("{text}\n"));
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        for round in 1..=3 {
            daemon.signal(Signal::SIGHUP);
            daemon.stderr_wait_nth("every worker has been replaced", round);
        }
        over.store(true, Ordering::Relaxed);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("queries total"), stats.count("queries replied")),
        (asked, asked)
    );
    assert_eq!((stats.count("queries failed"), stats.count("restarts asked")), (0, 9));
}
