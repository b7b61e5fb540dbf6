//! The choice among the free workers, and the harm that it prevents: a surplus line of the request before, and the wait
//! for a program that starts.

use nix::sys::signal::Signal;

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

/// The second request is taken in at the very moment in which the first one is answered.
const ONE_AFTER_THE_OTHER: [&str; 5] = ["--persistent", "--max-unanswered", "1", "--queue-timeout", "60s"];

/// The first `at_once` workers start at once, and all later ones wait at the gate before they read anything.
fn held_later(at_once: u32, gate: &Gate, directory: &std::path::Path) -> String {
    let script = format!(
        "n=0; while [ $n -lt {at_once} ]; do mkdir '{}'/$n 2>/dev/null && exec {}; n=$((n+1)); done; exec {}",
        directory.display(),
        worker_command(&[]),
        worker_command(&["--start-gate", gate.path()])
    );
    shell_words::join(["sh", "-c", script.as_str()])
}

/// Every worker has answered something.
fn warm_up(daemon: &Daemon, workers: usize) -> Vec<i32> {
    let gate = Gate::new();
    let mut clients: Vec<_> = (0..workers).map(|_| daemon.client()).collect();
    for client in &mut clients {
        client.send(format!("wait {} warm\n", gate.path()));
    }
    let arrivals: Vec<_> = (0..workers).map(|_| gate.arrival()).collect();
    let pids = arrivals.iter().map(|arrival| arrival.pid).collect();
    arrivals.into_iter().for_each(crate::harness::Arrival::open);
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.read_line(), "warm"));
    pids
}

/// A program that prints a line too many may lose the processor between the two writes, and is free by then.
#[test]
fn a_surplus_line_does_not_meet_the_next_request_while_another_worker_is_free() {
    for is_warm in [false, true] {
        let (gate, daemon) = (Gate::new(), Daemon::pool(4, &worker_command(&[]), &ONE_AFTER_THE_OTHER));
        // They are started one after the other. Before that is over, one that has only just been started may be no
        // choice yet.
        daemon.stderr_wait("ready, 4 of 4 workers serve");
        if is_warm {
            warm_up(&daemon, 4);
        }
        let mut client = daemon.client();
        client.send(format!("two-writes first {} stray\necho mine\n", gate.path()));
        assert_eq!(client.read_line(), "first");
        gate.arrival().open();
        assert_eq!(client.read_line(), "mine", "warm: {is_warm}");
        daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
    }
}

/// With one worker there is no choice, so there must be time.
#[test]
fn a_resting_worker_is_not_used_before_its_surplus_line_has_arrived() {
    let flags = [&ONE_AFTER_THE_OTHER[..], &["--rest", "20s"]].concat();
    let (gate, daemon) = (Gate::new(), Daemon::pool(1, &worker_command(&[]), &flags));
    let mut client = daemon.client();
    client.send(format!("two-writes first {} stray\necho mine\n", gate.path()));
    assert_eq!(client.read_line(), "first");
    let arrival = gate.arrival();
    daemon.usr1_until(|stats| stats.count("queue length") == 1 && stats.count("daemon S_BUSY") == 1);
    arrival.open();
    assert_eq!(client.read_line(), "mine");
    assert_eq!(daemon.usr1().count("restarts desync"), 1);
}

#[test]
fn a_worker_serves_on_after_its_rest() {
    let flags = [&ONE_AFTER_THE_OTHER[..], &["--rest", "50ms"]].concat();
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut client = daemon.client();
    client.send("served\nserved\nserved\n");
    assert_eq!(
        [client.read_line(), client.read_line(), client.read_line()],
        ["1", "2", "3"]
    );
    let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!(stats.count("queries delayed"), 2);
}

/// Whatever has become of the one before it.
#[test]
fn no_request_waits_for_a_start_while_a_warm_worker_is_free() {
    for (what, flags, restarts) in [
        ("die", &["--retries", "0"][..], "restarts died"),
        (
            "grow 200",
            &["--max-rss", "100M", "--alarm-interval", "100ms"],
            "restarts recycled",
        ),
    ] {
        let (gate, directory) = (Gate::new(), temp_dir());
        let daemon = Daemon::pool(4, &held_later(4, &gate, directory.path()), flags);
        warm_up(&daemon, 4);
        daemon.ask(what);
        // It is there, and is not up.
        let _held = gate.arrival();
        daemon.usr1_until(|stats| stats.count(restarts) == 1 && stats.count("daemon S_AVAILABLE") == 4);
        for number in 0..200 {
            assert_eq!(daemon.ask(&format!("echo {number}")), format!("{number}\n"), "{what}");
        }
    }
}

#[test]
fn after_a_hup_the_old_workers_serve_before_the_untried_new_ones() {
    let (gate, directory) = (Gate::new(), temp_dir());
    let marker = directory.path().display().to_string();
    // Four of the old kind, one that is ready at once, and the others are held before they are.
    let ready = ["--ready", "READY"];
    let script = format!(
        "n=0; while [ $n -lt 5 ]; do mkdir '{marker}'/$n 2>/dev/null && exec {}; n=$((n+1)); done; exec {}",
        worker_command(&ready),
        worker_command(&[&["--start-gate", gate.path()], &ready[..]].concat())
    );
    let command = shell_words::join(["sh", "-c", script.as_str()]);
    let daemon = Daemon::pool(4, &command, &["--ready-line", "READY"]);
    let old = warm_up(&daemon, 4);
    daemon.signal(Signal::SIGHUP);
    let _held = gate.arrival();
    daemon.usr1_until(|stats| stats.count("restarts asked") == 1 && stats.count("daemon S_AVAILABLE") == 4);
    for _ in 0..20 {
        let pid: i32 = daemon.ask("pid").trim_end().parse().expect("a pid");
        assert!(old.contains(&pid), "{pid} has never answered; of {old:?} three have");
    }
}
