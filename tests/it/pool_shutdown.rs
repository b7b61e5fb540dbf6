//! The end of the daemon, asked for or not: nothing of what it has started outlives it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Arrival, Client, Daemon, Gate, children_of, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

/// A pool of three workers that ignore TERM: two are at work, one is idle, and each has started a program, one of which
/// keeps its parent's pipes open. The busy workers, and every one of those programs, wait at a gate, where their end is
/// seen.
struct BusyPool {
    daemon: Daemon,
    arrivals: Vec<Arrival>,
    _at_work: [Client; 2],
    _gates: [Gate; 2],
}

impl BusyPool {
    fn new() -> Self {
        let (work, programs, turn) = (Gate::new(), Gate::new(), Gate::new());
        let daemon = Daemon::pool(3, &worker_command(&["--ignore-term"]), &PATIENT);
        daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 3);
        let mut arrivals = Vec::new();
        let start = |verb: &str| {
            daemon.ask(&format!("{verb} {}", programs.path()));
            programs.arrival()
        };
        // Each in its turn is the only one that is free.
        let mut turns: Vec<_> = (0..2)
            .map(|_| {
                let mut client = daemon.client();
                client.send(format!("wait {} turn\n", turn.path()));
                (client, turn.arrival())
            })
            .collect();
        let at_work = ["spawn-grandchild", "spawn-holding-grandchild"].map(|verb| {
            arrivals.push(start(verb));
            let mut client = daemon.client();
            client.send(format!("wait {} never\n", work.path()));
            arrivals.push(work.arrival());
            let (mut next, arrival) = turns.pop().expect("one for each");
            arrival.open();
            assert_eq!(next.read_to_end(), b"turn\n");
            client
        });
        arrivals.push(start("spawn-grandchild"));
        for worker in daemon.children() {
            assert_eq!(children_of(worker).len(), 1, "each has started one program");
        }
        Self {
            daemon,
            arrivals,
            _at_work: at_work,
            _gates: [work, programs],
        }
    }
}

#[test]
fn kill_9_leaves_no_process() {
    let pool = BusyPool::new();
    assert_eq!(pool.daemon.children().len(), 3);
    pool.daemon.signal(Signal::SIGKILL);
    pool.arrivals.into_iter().for_each(Arrival::wait_killed);
    pool.daemon.wait_exit();
    // The drop of every daemon asserts that no other process is left.
}

#[test]
fn a_second_term_leaves_no_process() {
    let pool = BusyPool::new();
    pool.daemon.signal(Signal::SIGTERM);
    pool.daemon.stderr_wait("draining");
    pool.daemon.signal(Signal::SIGTERM);
    pool.arrivals.into_iter().for_each(Arrival::wait_killed);
    assert_eq!(pool.daemon.wait_exit().code(), Some(0));
}

#[test]
fn term_leaves_no_process() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let grandchildren = Gate::new();
        let daemon = Daemon::pool(2, &worker_command(&[]), &PATIENT);
        daemon.ask(&format!("spawn-grandchild {}", grandchildren.path()));
        daemon.ask(&format!("spawn-holding-grandchild {}", grandchildren.path()));
        let arrivals = [grandchildren.arrival(), grandchildren.arrival()];
        daemon.signal(signal);
        arrivals.into_iter().for_each(Arrival::wait_killed);
        assert_eq!(daemon.wait_exit().code(), Some(0), "{signal}");
    }
}

#[test]
fn term_finishes_the_requests_in_hand() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut held = daemon.client();
    held.send(format!("wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    let mut queued = daemon.client();
    queued.send("echo queued\n");
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    arrival.open();
    assert_eq!(held.read_to_end(), b"held\n");
    assert_eq!(queued.read_to_end(), b"queued\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

#[test]
fn a_request_not_finished_within_the_stop_timeout_is_refused() {
    let gate = Gate::new();
    let flags = ["--stop-timeout", "100ms", "--kill-timeout", "100ms"];
    let daemon = Daemon::pool(1, &worker_command(&["--ignore-term"]), &[&PATIENT[..], &flags].concat());
    let mut held = daemon.client();
    held.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(held.read_to_end(), b"ERR\n");
    arrival.wait_killed();
    assert_eq!(daemon.wait_exit().code(), Some(0));
}

/// The guard ensures that nothing survives the daemon; the daemon watches the guard.
#[test]
fn kill_9_leaves_no_process_even_after_the_guard_was_killed() {
    let pool = BusyPool::new();
    kill(Pid::from_raw(pool.daemon.guard()), Signal::SIGKILL).unwrap();
    pool.daemon.stderr_wait("the guard process had died; there is another");
    pool.daemon.signal(Signal::SIGKILL);
    pool.arrivals.into_iter().for_each(Arrival::wait_killed);
}

crate::harness::over_tls! {
    kill_9_leaves_no_process,
    term_finishes_the_requests_in_hand,
    a_request_not_finished_within_the_stop_timeout_is_refused,
}
