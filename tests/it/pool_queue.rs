//! Waiting for a worker: how many, how long, in what order; and how long a worker may take.

use crate::harness::{Client, Daemon, Gate, worker_command};

#[test]
fn the_queue_is_bounded() {
    let gate = Gate::new();
    let flags = ["--queue-timeout", "60s", "--queue-size", "2"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    let mut waiting = [daemon.client(), daemon.client()];
    for client in &mut waiting {
        client.send("echo waited\n");
    }
    daemon.usr1_until(|stats| stats.count("queue length") == 2);
    assert_eq!(daemon.ask("echo one too many"), "ERR\n");
    daemon.stderr_wait("2 requests wait already (--queue-size)");
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    for client in &mut waiting {
        assert_eq!(client.read_to_end(), b"waited\n");
    }
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused queue-full"), stats.count("queries delayed")),
        (1, 3)
    );
    assert_eq!((stats.count("queries failed"), stats.count("queue highest")), (1, 2));
}

#[test]
fn a_queue_of_none_refuses_at_once() {
    let gate = Gate::new();
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--queue-timeout", "60s", "--queue-size", "0"],
    );
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.ask("echo x"), "ERR\n");
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    assert_eq!(daemon.usr1().count("refused queue-full"), 1);
}

#[test]
fn a_request_that_waits_too_long_is_refused_and_the_others_are_not() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "200ms"]);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    let mut waiting: Vec<Client> = (0..3).map(|_| daemon.client()).collect();
    for client in &mut waiting {
        client.send("echo x\n");
    }
    for client in &mut waiting {
        assert_eq!(client.read_to_end(), b"ERR\n");
    }
    daemon.stderr_wait("no worker became free within --queue-timeout 200 ms");
    assert!(!held.has_input());
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused queue-time"), stats.count("queue length")), (3, 0));
    assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (1, 1));
}

#[test]
fn first_come_first_served() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "60s"]);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    let mut waiting: Vec<Client> = Vec::new();
    for before in 0..10 {
        let mut client = daemon.client();
        client.send("served\n");
        daemon.usr1_until(|stats| stats.count("queue length") == before + 1);
        waiting.push(client);
    }
    arrival.open();
    for (place, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("{}\n", place + 2).as_bytes());
    }
}

#[test]
fn a_request_that_takes_too_long_is_refused_and_its_worker_replaced() {
    let gate = Gate::new();
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--busy-timeout", "1s", "--queue-timeout", "60s"],
    );
    let mut slow = daemon.client();
    slow.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    let mut next = daemon.client();
    next.send("served\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(slow.read_to_end(), b"ERR\n");
    // Its own answer, from a worker that was never asked before.
    assert_eq!(next.read_to_end(), b"1\n");
    arrival.wait_killed();
    daemon.stderr_wait("took longer than --busy-timeout 1 s and is stopped");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused busy-time"), stats.count("restarts timeout")),
        (1, 1)
    );
    assert_eq!((stats.count("queries failed"), stats.count("daemon spawns")), (1, 2));
}

/// A worker that uses the processor without end is stopped like one that waits.
#[test]
fn a_worker_that_spins_is_replaced_too() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--busy-timeout", "300ms"]);
    assert_eq!(daemon.ask("burn"), "ERR\n");
    let stats = daemon.usr1_until(|stats| stats.count("workers stopping") == 0);
    assert_eq!((stats.count("restarts timeout"), stats.count("daemon spawns")), (1, 2));
}

/// Its time-out goes on when its client has gone, and what it has had does not.
#[test]
fn a_worker_left_by_its_client_is_still_bound_by_the_busy_timeout() {
    let gate = Gate::new();
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--busy-timeout", "1s", "--queue-timeout", "60s"],
    );
    let mut leaver = daemon.watched_client();
    leaver.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    leaver.reset();
    assert_eq!(daemon.ask("served"), "1\n");
    arrival.wait_killed();
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts timeout"), stats.count("queries timeout")),
        (1, 1)
    );
    assert_eq!(stats.count("queries failed"), 0);
}

crate::harness::over_tls! {
    the_queue_is_bounded,
    a_request_that_waits_too_long_is_refused_and_the_others_are_not,
    a_request_that_takes_too_long_is_refused_and_its_worker_replaced,
}
