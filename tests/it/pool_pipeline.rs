//! Requests written ahead to a busy worker: their order, and what becomes of them when something happens to the worker.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Arrival, Client, Daemon, Gate, worker_command};

/// One worker, held at a gate with the first of four requests; the other three are written ahead.
fn held(gate: &Gate, flags: &[&str]) -> (Daemon, Arrival, Vec<Client>) {
    let flags = [&["--pipeline", "4", "--queue-timeout", "60s"], flags].concat();
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    // It has proven itself: what happens to it now is counted.
    assert_eq!(daemon.ask("echo first"), "first\n");
    let mut clients = vec![daemon.client()];
    clients[0].send(format!("wait {} 0\n", gate.path()));
    let arrival = gate.arrival();
    for number in 1..4 {
        let mut client = daemon.client();
        client.send(format!("echo {number}\n"));
        daemon.usr1_until(|stats| stats.count("queries ahead") == number);
        clients.push(client);
    }
    (daemon, arrival, clients)
}

fn expect_answers(clients: &mut [Client], first: usize) {
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("{}\n", number + first).into_bytes());
    }
}

#[test]
fn each_client_gets_its_own_answer_and_no_more_than_the_limit_is_written_ahead() {
    let gate = Gate::new();
    let (daemon, arrival, mut clients) = held(&gate, &[]);
    let mut fifth = daemon.client();
    fifth.send("echo 4\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    clients.push(fifth);
    arrival.open();
    expect_answers(&mut clients, 0);
    let stats = daemon.usr1();
    assert_eq!(stats.count("queries replied"), 6);
    assert_eq!((stats.count("queries retried"), stats.count("restarts desync")), (0, 0));
}

#[test]
fn an_idle_worker_is_preferred() {
    let gates = [Gate::new(), Gate::new()];
    let daemon = Daemon::pool(2, &worker_command(&[]), &["--pipeline", "8"]);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    let mut clients = [daemon.client(), daemon.client()];
    let arrivals: Vec<Arrival> = (0..2)
        .map(|number| {
            clients[number].send(format!("wait {} {number}\n", gates[number].path()));
            gates[number].arrival()
        })
        .collect();
    assert_ne!(arrivals[0].pid, arrivals[1].pid);
    assert_eq!(daemon.usr1().count("queries ahead"), 0);
    arrivals.into_iter().for_each(Arrival::open);
    expect_answers(&mut clients, 0);
}

#[test]
fn requests_behind_the_blamed_one_go_to_other_workers_when_a_worker_dies() {
    let gate = Gate::new();
    let (daemon, arrival, mut clients) = held(&gate, &["--retries", "0"]);
    kill(Pid::from_raw(arrival.pid), Signal::SIGKILL).unwrap();
    assert_eq!(clients[0].read_to_end(), b"ERR\n");
    expect_answers(&mut clients[1..], 1);
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts died"), stats.count("refused died")), (1, 1));
    assert_eq!(stats.count("queries failed"), 1);
}

#[test]
fn the_busy_timeout_is_for_the_oldest_alone() {
    let gate = Gate::new();
    let (daemon, _arrival, mut clients) = held(&gate, &["--busy-timeout", "300ms"]);
    assert_eq!(clients[0].read_to_end(), b"ERR\n");
    expect_answers(&mut clients[1..], 1);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts timeout"), stats.count("refused busy-time")),
        (1, 1)
    );
}

#[test]
fn the_answer_to_a_client_that_has_gone_goes_to_no_other() {
    let gate = Gate::new();
    let (daemon, arrival, mut clients) = held(&gate, &[]);
    drop(clients.remove(1));
    arrival.open();
    assert_eq!(clients[0].read_to_end(), b"0\n");
    expect_answers(&mut clients[1..], 2);
    assert_eq!(daemon.ask("echo after"), "after\n");
}

#[test]
fn one_answer_too_many_behind_the_last_is_noticed() {
    let gate = Gate::new();
    let (daemon, arrival, mut clients) = held(&gate, &[]);
    drop(clients.pop());
    arrival.open();
    expect_answers(&mut clients, 0);
    assert_eq!(daemon.ask("two once twice"), "once\n");
    assert_eq!(daemon.ask("echo mine"), "mine\n");
    daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
}

crate::harness::over_tls! {
    each_client_gets_its_own_answer_and_no_more_than_the_limit_is_written_ahead,
    the_answer_to_a_client_that_has_gone_goes_to_no_other,
}
