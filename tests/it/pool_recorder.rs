//! The flight recorder: the log of a lost worker, and of slow requests.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Daemon, Gate, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];
const HINT: &str = "it has written nothing since its start";

fn one_worker(flags: &[&str]) -> Daemon {
    Daemon::pool(1, &worker_command(&[]), &[&PATIENT, flags].concat())
}

/// The lines of records in a log.
fn stories(log: &str) -> Vec<&str> {
    log.lines().filter(|line| line.contains(" ago, ")).collect()
}

/// Ends the daemon, so that its log is whole.
fn whole_log(daemon: &Daemon) -> String {
    daemon.signal(Signal::SIGTERM);
    let (status, _, log) = daemon.finish();
    assert!(status.success(), "{status}: {log}");
    log
}

#[test]
fn a_worker_that_takes_too_long_is_reported_with_its_request_and_the_ones_before() {
    let gate = Gate::new();
    let daemon = one_worker(&["--busy-timeout", "1s", "--record", "2"]);
    daemon.ask("echo one");
    daemon.ask("echo two\x1b[31m");
    let mut client = daemon.client();
    client.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    let worker = format!("worker 0 (pid {})", arrival.pid);
    assert_eq!(client.read_to_end(), b"ERR\n");
    arrival.wait_killed();
    let (log, request) = (whole_log(&daemon), format!("\"wait {} never\"", gate.path()));
    let story = format!("pool: {worker} took longer than --busy-timeout 1 s and is stopped; started again at once");
    let below: Vec<_> = log.lines().skip_while(|line| !line.ends_with(&story)).collect();
    assert_eq!(stories(&log), below[1..3], "{log}");
    // The oldest of the three was dropped for the newest.
    let [before, last] = stories(&log)[..] else {
        panic!("{log}")
    };
    assert!(before.contains(&format!("pool: {worker}: given ")), "{log}");
    assert!(before.contains(" ago, answered after "), "{log}");
    assert!(before.ends_with(": \"echo two\\x1b[31m\""), "{log}");
    assert!(last.ends_with(&format!(" ago, not answered: {request}")), "{log}");
}

#[test]
fn a_worker_that_dies_is_reported_once_with_the_request_that_it_died_over() {
    let daemon = one_worker(&["--retries", "0"]);
    daemon.ask("echo before");
    assert_eq!(daemon.ask("kill-self"), "ERR\n");
    daemon.stderr_wait("its worker died over it");
    let log = whole_log(&daemon);
    let story = "was killed by signal 9 (SIGKILL) while it had a request in hand; started again at once";
    assert_eq!(log.matches(story).count(), 1, "{log}");
    let [before, last] = stories(&log)[..] else {
        panic!("{log}")
    };
    assert!(before.ends_with(": \"echo before\""), "{log}");
    assert!(last.ends_with(" ago, not answered: \"kill-self\""), "{log}");
}

#[test]
fn a_worker_that_dies_at_rest_is_reported_without_blaming_a_request() {
    let daemon = one_worker(&[]);
    let pid = daemon.ask("pid").trim_end().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    daemon.stderr_wait("was killed");
    let log = whole_log(&daemon);
    let story = format!("worker 0 (pid {pid}) was killed by signal 9 (SIGKILL); started again at once");
    assert_eq!(log.matches(&story).count(), 1, "{log}");
    assert_eq!(stories(&log).len(), 1, "{log}");
}

#[test]
fn a_worker_out_of_step_is_reported_with_the_request_that_it_answered_twice() {
    let daemon = one_worker(&[]);
    daemon.ask("two one two");
    daemon.stderr_wait("has lost step and is stopped");
    let log = whole_log(&daemon);
    let [only] = stories(&log)[..] else { panic!("{log}") };
    assert!(
        only.contains(" answered after ") && only.ends_with(": \"two one two\""),
        "{log}"
    );
}

#[test]
fn workers_that_are_stopped_on_purpose_are_not_reported() {
    let daemon = one_worker(&["--max-requests", "3"]);
    for number in 0..10 {
        daemon.ask(&format!("echo {number}"));
    }
    daemon.stderr_wait("has served long enough");
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    daemon.ask("echo last");
    let log = whole_log(&daemon);
    assert!(!log.contains(" ago, ") && !log.contains("in hand"), "{log}");
}

#[test]
fn nothing_is_recorded_with_record_zero() {
    let daemon = one_worker(&["--retries", "0", "--record", "0"]);
    daemon.ask("echo before");
    assert_eq!(daemon.ask("kill-self"), "ERR\n");
    daemon.stderr_wait("was killed");
    let log = whole_log(&daemon);
    assert!(!log.contains("kill-self"), "{log}");
}

/// Records are lines of one topic: the log gets five of them in ten seconds, whole, and of the others only
/// their number.
#[test]
fn many_records_are_throttled_as_one_topic() {
    let daemon = one_worker(&["--retries", "0"]);
    for _ in 0..12 {
        daemon.ask("echo before");
        assert_eq!(daemon.ask("kill-self"), "ERR\n");
    }
    let stats = daemon.usr1();
    assert_eq!(stats.count("restarts died"), 12);
    let log = whole_log(&daemon);
    let headlines = log.matches(" was killed by signal 9").count();
    assert!((5..12).contains(&headlines), "{log}");
    assert_eq!(
        stories(&log).len(),
        2 * headlines,
        "a record is whole or not there: {log}"
    );
}

/// A request that is answered after another one has waited in vain for as long as `--queue-timeout`.
fn slow_request(flags: &[&str]) -> String {
    let gate = Gate::new();
    let flags = [&["--queue-timeout", "300ms"], flags].concat();
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut slow = daemon.client();
    slow.send(format!("wait {} done\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.ask("echo late"), "ERR\n");
    arrival.open();
    assert_eq!(slow.read_to_end(), b"done\n");
    whole_log(&daemon).replace(gate.path(), "GATE")
}

#[test]
fn a_slow_request_is_reported_with_the_flag_for_it() {
    let log = slow_request(&["--slow-log", "200ms"]);
    let told: Vec<_> = log.lines().filter(|line| line.contains("--slow-log")).collect();
    let [line] = told[..] else { panic!("{log}") };
    assert!(line.contains("pool: worker 0 (pid "), "{line}");
    assert!(line.contains(", more than --slow-log 200 ms, for 127.0.0.1:"), "{line}");
    assert!(line.contains(", which had waited "), "{line}");
    assert!(line.ends_with(": \"wait GATE done\""), "{line}");
    for flags in [&[][..], &["--slow-log", "1h"]] {
        let log = slow_request(flags);
        assert!(!log.contains("wait GATE done"), "{log}");
    }
}

#[test]
fn a_worker_that_never_wrote_anything_is_suspected_of_buffering() {
    let gate = Gate::new();
    let daemon = one_worker(&["--busy-timeout", "1s"]);
    let hang = |nth| {
        let mut client = daemon.client();
        client.send(format!("wait {} never\n", gate.path()));
        let arrival = gate.arrival();
        assert_eq!(client.read_to_end(), b"ERR\n");
        arrival.wait_killed();
        daemon.stderr_wait_nth("took longer than --busy-timeout", nth)
    };
    let line = hang(1);
    assert!(line.contains(HINT), "{line}");
    daemon.ask("echo something");
    let line = hang(2);
    assert!(!line.contains(HINT), "{line}");
}
