//! Workers that live but do not behave: none of them may hold the pool, or give a client an answer that is not its own.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, Gate, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

#[test]
fn a_worker_that_ignores_term_is_killed() {
    let gate = Gate::new();
    let flags = ["--busy-timeout", "1s", "--kill-timeout", "100ms"];
    let daemon = Daemon::pool(1, &worker_command(&["--ignore-term"]), &flags);
    let mut client = daemon.client();
    client.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(client.read_to_end(), b"ERR\n");
    arrival.wait_killed();
    let stats = daemon.usr1_until(|stats| stats.count("workers stopping") == 0);
    assert_eq!(
        (stats.count("restarts timeout"), stats.count("refused busy-time")),
        (1, 1)
    );
    assert_eq!(
        (stats.count("daemon spawns"), stats.count("daemon S_AVAILABLE")),
        (2, 1)
    );
}

#[test]
fn a_worker_that_closes_its_output_but_lives_is_replaced() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&PATIENT[..], &["--retries", "0"]].concat());
    let worker = daemon.ask("pid");
    assert_eq!(daemon.ask("close-stdout"), "ERR\n");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_ne!(daemon.ask("pid"), worker);
    daemon.usr1_until(|stats| stats.count("workers stopping") == 0);
    assert_eq!(daemon.children().len(), 1);
}

/// Not a byte of the request has reached it, so another worker gets it.
#[test]
fn a_worker_that_closes_its_input_but_lives_costs_no_answer() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&PATIENT[..], &["--retries", "0"]].concat());
    assert_eq!(daemon.ask("close-stdin"), "ok\n");
    assert_eq!(daemon.ask("served"), "1\n");
    let stats = daemon.usr1_until(|stats| stats.count("workers stopping") == 0);
    assert_eq!((stats.count("restarts died"), stats.count("queries failed")), (1, 0));
    assert_eq!(daemon.children().len(), 1);
}

/// A stopped process acts on TERM only once it is continued.
#[test]
fn a_worker_that_was_stopped_can_still_end() {
    let gate = Gate::new();
    let flags = ["--busy-timeout", "1s", "--kill-timeout", "1h"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut client = daemon.client();
    client.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    kill(Pid::from_raw(arrival.pid), Signal::SIGSTOP).unwrap();
    assert_eq!(client.read_to_end(), b"ERR\n");
    arrival.wait_killed();
}

#[test]
fn a_worker_that_writes_unasked_is_replaced_before_it_answers_a_request() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    assert_eq!(daemon.ask(&format!("unasked {} surprise", gate.path())), "ok\n");
    let worker = daemon.ask("pid");
    gate.arrival().open();
    daemon.stderr_wait("has lost step");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_ne!(daemon.ask("pid"), worker);
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts desync"), stats.count("queries unknown")), (1, 1));
    assert_eq!(stats.count("queries failed"), 0);
}

#[test]
fn a_second_reply_goes_to_no_client() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    for _ in 0..3 {
        assert_eq!(daemon.ask("two first second"), "first\n");
        assert_eq!(daemon.ask("served"), "1\n");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts desync"), stats.count("queries unknown")), (3, 3));
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (6, 0));
}

/// The request that waits is the first that the next answer could go to.
#[test]
fn a_second_reply_does_not_go_to_the_client_that_waits() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut first = daemon.client();
    first.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    let mut waiting: Vec<_> = (0..5).map(|_| daemon.client()).collect();
    for (number, client) in waiting.iter_mut().enumerate() {
        client.send(format!("two {number} stray\n"));
        daemon.usr1_until(|stats| stats.count("queue length") == number as u64 + 1);
    }
    arrival.open();
    assert_eq!(first.read_to_end(), b"first\n");
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.read_to_end(), format!("{number}\n").as_bytes());
    }
    assert_eq!(daemon.usr1().count("restarts desync"), 5);
}

/// squidGuard does this with lines of more than 12,287 bytes; its second answer comes a moment after the first.
#[test]
fn a_long_line_taken_for_two_costs_the_worker_and_no_clients_answer() {
    let daemon = Daemon::pool(1, &worker_command(&["--max-line", "12287"]), &PATIENT);
    let long = "x".repeat(12_400);
    for round in 1..=3 {
        let answer = daemon.ask(&format!("echo {long}"));
        assert_eq!(answer.len(), 12_287 - "echo ".len() + 1);
        daemon.usr1_until(|stats| stats.count("restarts desync") == round);
        assert_eq!(daemon.ask("echo mine"), "mine\n");
    }
}

#[test]
fn a_worker_that_never_reads_is_stopped_and_the_rest_served_meanwhile() {
    let flags = [
        "--busy-timeout",
        "1s",
        "--max-request",
        "1MiB",
        "--queue-timeout",
        "100ms",
    ];
    let daemon = Daemon::pool(1, &worker_command(&["--never-read"]), &flags);
    let mut large = daemon.client();
    large.send(format!("{}\n", "x".repeat(500_000)));
    daemon.usr1_until(|stats| stats.count("daemon S_BUSY") == 1);
    // No worker is free while the pipe is full, but the request is accepted, read and refused.
    assert_eq!(daemon.ask("echo x"), "ERR\n");
    assert_eq!(large.read_to_end(), b"ERR\n");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused busy-time"), stats.count("restarts timeout")),
        (1, 1)
    );
}

#[test]
fn a_worker_that_answers_before_it_has_read_everything_is_out_of_step() {
    // More than its pipe holds, and more than one read of most programs takes.
    for length in [500_000, 5_000] {
        let flags = ["--queue-timeout", "60s", "--max-request", "1MiB"];
        let daemon = Daemon::pool(1, &worker_command(&["--reply-early", "early"]), &flags);
        assert_eq!(daemon.ask(&"x".repeat(length)), "early\n");
        let stats = daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
        assert_eq!(stats.count("queries replied"), 1, "{length}");
        // The next one is asked afresh, of a worker that has nothing left over.
        assert_eq!(daemon.ask(&"x".repeat(length)), "early\n");
        daemon.usr1_until(|stats| stats.count("restarts desync") == 2);
    }
}

/// It was asked only behind its output what it had left unread, and had read the rest by then.
#[test]
fn a_worker_that_reads_the_rest_while_its_early_answer_is_read_is_out_of_step() {
    const ROUNDS: u64 = 100;
    let daemon = Daemon::pool(1, &worker_command(&["--reply-first", "early"]), &PATIENT);
    for round in 1..=ROUNDS {
        assert_eq!(daemon.ask("some line"), "early\n");
        daemon.usr1_until(|stats| stats.count("restarts desync") == round);
    }
    assert_eq!(daemon.usr1().count("queries replied"), ROUNDS);
}

#[test]
fn the_standard_error_of_a_worker_is_logged_with_its_number() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let worker = daemon.ask("pid");
    assert_eq!(daemon.ask("stderr the list is out of date"), "ok\n");
    let line = daemon.stderr_wait("the list is out of date");
    assert!(
        line.contains(&format!("worker 0 (pid {})", worker.trim_end())),
        "{line}"
    );
}

#[test]
fn a_worker_that_complains_without_end_is_never_blocked() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    assert_eq!(daemon.ask("flood-stderr 20000000"), "ok\n");
    assert_eq!(daemon.ask("served"), "2\n");
    daemon.stderr_wait("further lines left out");
}

#[test]
fn a_grandchild_that_holds_the_pipes_does_not_hide_the_death_of_its_parent() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&PATIENT[..], &["--retries", "0"]].concat());
    let grandchild = daemon.ask(&format!("spawn-holding-grandchild {}", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(format!("{}\n", arrival.pid), grandchild);
    assert_eq!(daemon.ask("kill-self"), "ERR\n");
    arrival.wait_killed();
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.usr1().count("restarts died"), 1);
}

#[test]
fn the_descendants_of_a_worker_end_with_it() {
    let gate = Gate::new();
    let flags = ["--busy-timeout", "1s", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut client = daemon.client();
    client.send(format!("spawn-grandchild {}\n", gate.path()));
    client.read_to_end();
    let grandchild = gate.arrival();
    assert_eq!(daemon.ask("hang"), "ERR\n");
    grandchild.wait_killed();
}
