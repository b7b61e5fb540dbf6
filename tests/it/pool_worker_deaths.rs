//! Workers that die: before, during and after a reply, over a request or before they ever answered one.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, Gate, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

fn kill_worker(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

/// A pool of two workers that have both answered before, so that a death is the request's doing.
fn two_proven(flags: &[&str]) -> Daemon {
    let gate = Gate::new();
    let daemon = Daemon::pool(2, &worker_command(&[]), &[&PATIENT, flags].concat());
    let mut clients = [daemon.client(), daemon.client()];
    for client in &mut clients {
        client.send(format!("wait {} proven\n", gate.path()));
    }
    let arrivals = [gate.arrival(), gate.arrival()];
    drop(arrivals);
    for client in &mut clients {
        assert_eq!(client.read_to_end(), b"proven\n");
    }
    daemon
}

#[test]
fn a_worker_killed_before_its_reply_is_followed_by_another_for_the_same_request() {
    let gate = Gate::new();
    let daemon = two_proven(&[]);
    let mut client = daemon.client();
    client.send(format!("wait {} answer\n", gate.path()));
    let first = gate.arrival();
    kill_worker(first.pid);
    let second = gate.arrival();
    assert_ne!(first.pid, second.pid);
    assert!(!client.has_input());
    second.open();
    assert_eq!(client.read_to_end(), b"answer\n");
    let line = daemon.stderr_wait(&format!("(pid {}) was killed by signal 9 (SIGKILL)", first.pid));
    assert!(line.contains("WARN pool: worker "), "{line}");
    assert!(
        line.ends_with(" while it had a request in hand; started again at once"),
        "{line}"
    );
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries retried"), stats.count("restarts died")), (1, 1));
    assert_eq!((stats.count("queries failed"), stats.count("queries replied")), (0, 3));
}

#[test]
fn a_request_that_kills_two_workers_is_refused_and_logged() {
    let daemon = two_proven(&[]);
    assert_eq!(daemon.ask("kill-self"), "ERR\n");
    let line = daemon.stderr_wait("its worker died over it");
    assert!(line.contains("refused 127.0.0.1:"), "{line}");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused died"), stats.count("queries failed")), (1, 1));
    assert_eq!((stats.count("queries retried"), stats.count("restarts died")), (1, 2));
    assert_eq!(daemon.ask("served"), "1\n");
}

#[test]
fn more_retries_are_more_workers() {
    let directory = crate::harness::temp_dir();
    let daemon = two_proven(&["--retries", "2"]);
    let file = directory.path().join("once");
    assert_eq!(daemon.ask(&format!("die-first {} again", file.display())), "again\n");
    // Two proven workers and one that is new: its death does not count, but it answers.
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries retried"), stats.count("queries failed")), (1, 0));
}

#[test]
fn without_retries_the_first_death_is_the_last() {
    let daemon = two_proven(&["--retries", "0"]);
    assert_eq!(daemon.ask("die 7"), "ERR\n");
    daemon.stderr_wait("exited with status 7 while it had a request in hand");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused died"), stats.count("queries retried")), (1, 0));
    assert_eq!(stats.count("restarts died"), 1);
    assert_eq!(daemon.ask("echo on"), "on\n");
}

#[test]
fn a_worker_that_dies_before_it_has_ever_answered_gives_its_request_back_uncounted() {
    let directory = crate::harness::temp_dir();
    let file = directory.path().join("once");
    let daemon = Daemon::pool(1, &worker_command(&[]), &[&PATIENT[..], &["--retries", "0"]].concat());
    assert_eq!(daemon.ask(&format!("die-first {} again", file.display())), "again\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (1, 0));
    assert_eq!((stats.count("queries retried"), stats.count("restarts died")), (1, 1));
    assert_eq!(stats.count("queries total"), 1);
}

/// It goes to the head of the queue, not to its end.
#[test]
fn a_request_given_back_goes_before_later_requests() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut first = daemon.client();
    first.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    let mut second = daemon.client();
    second.send("served\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    kill_worker(arrival.pid);
    gate.arrival().open();
    assert_eq!(first.read_to_end(), b"first\n");
    assert_eq!(second.read_to_end(), b"2\n");
}

#[test]
fn a_reply_cut_off_by_a_death_is_refused_and_not_tried_again() {
    let daemon = two_proven(&[]);
    assert_eq!(daemon.ask("die-after-partial half an answ"), "ERR\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused died"), stats.count("queries retried")), (1, 0));
    assert_eq!(stats.count("restarts died"), 1);
    assert_eq!(daemon.ask("echo on"), "on\n");
}

#[test]
fn a_worker_killed_in_the_middle_of_its_reply_costs_a_refusal_and_no_more() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    client.send(format!("partial half {} whole\n", gate.path()));
    let arrival = gate.arrival();
    kill_worker(arrival.pid);
    assert_eq!(client.read_to_end(), b"ERR\n");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.usr1().count("restarts died"), 1);
}

#[test]
fn a_reply_given_with_the_last_breath_counts() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    for number in 1..=5 {
        let words = format!("last words {number}");
        assert_eq!(daemon.ask(&format!("die-after {words}")), format!("{words}\n"));
        daemon.stderr_wait_nth("exited with status 0; started again at once", number);
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (5, 0));
    assert_eq!((stats.count("restarts died"), stats.count("queries retried")), (5, 0));
}

#[test]
fn an_idle_worker_that_is_killed_is_replaced_at_once() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let worker: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    kill_worker(worker);
    let line = daemon.stderr_wait("was killed");
    let story = format!("worker 0 (pid {worker}) was killed by signal 9 (SIGKILL); started again at once");
    assert!(line.ends_with(&story), "{line}");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries failed"), stats.count("restarts died")), (0, 1));
    assert_eq!(daemon.ask("served"), "1\n");
}

/// The result is the same whether the daemon sees the request or the death first.
#[test]
fn a_request_sent_to_a_worker_that_is_just_dying_is_answered() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    for _ in 0..10 {
        let worker = daemon.ask("pid").trim_end().parse().unwrap();
        let mut client = daemon.watched_client();
        kill_worker(worker);
        client.send("served\n");
        assert_eq!(client.read_to_end(), b"1\n");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries failed"), stats.count("restarts died")), (0, 10));
}

crate::harness::over_tls! {
    a_worker_killed_before_its_reply_is_followed_by_another_for_the_same_request,
    a_request_that_kills_two_workers_is_refused_and_logged,
    a_reply_cut_off_by_a_death_is_refused_and_not_tried_again,
    a_worker_killed_in_the_middle_of_its_reply_costs_a_refusal_and_no_more,
    a_reply_given_with_the_last_breath_counts,
}
