//! Starting workers, replacing them in good order, and what happens when they cannot be started.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

#[test]
fn a_worker_is_asked_nothing_before_its_ready_line() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "I am up"]);
    let daemon = Daemon::pool(1, &command, &[&PATIENT[..], &["--ready-line", "I am up"]].concat());
    let arrival = gate.arrival();
    let mut early = daemon.client();
    early.send("served\n");
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(
        (stats.count("daemon S_STARTING"), stats.count("daemon S_AVAILABLE")),
        (1, 0)
    );
    arrival.open();
    assert_eq!(early.read_to_end(), b"1\n");
    assert_eq!(daemon.ask("echo I am up"), "I am up\n");
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

#[test]
fn output_before_the_ready_line_is_no_answer() {
    let talk = format!(
        "echo loading; echo still loading; exec {}",
        worker_command(&["--ready", "ready"])
    );
    let command = shell_words::join(["sh", "-c", &talk]);
    let daemon = Daemon::pool(1, &command, &[&PATIENT[..], &["--ready-line", "ready"]].concat());
    assert_eq!(daemon.ask("served"), "1\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts desync"), stats.count("daemon spawns")), (0, 1));
}

/// A greeting that no flag announces is output without a request.
#[test]
fn a_greeting_without_a_ready_line_answers_no_request() {
    let directory = temp_dir();
    let greeted = directory.path().join("greeted");
    let script = format!(
        "test -e {0} || {{ touch {0}; echo hello; }}; exec {1}",
        greeted.display(),
        worker_command(&[])
    );
    let command = shell_words::join(["sh", "-c", &script]);
    let daemon = Daemon::pool(1, &command, &PATIENT);
    daemon.stderr_wait("see --ready-line");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_eq!(daemon.usr1().count("restarts desync"), 1);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_replaced() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let flags = ["--ready-line", "up", "--start-timeout", "1s", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &command, &flags);
    let first = gate.arrival();
    let pid = first.pid;
    first.wait_killed();
    daemon.stderr_wait("was not ready within --start-timeout 1 s");
    let second = gate.arrival();
    assert_ne!(second.pid, pid);
    second.open();
    assert_eq!(daemon.ask("served"), "1\n");
    assert!(daemon.usr1().count("restarts start") >= 1);
}

#[test]
fn workers_are_replaced_after_max_requests_and_no_request_is_lost() {
    let daemon = Daemon::pool(
        2,
        &worker_command(&[]),
        &[&PATIENT[..], &["--max-requests", "10"]].concat(),
    );
    let stats = daemon.usr1_until(|stats| {
        for number in 0..10 {
            assert_eq!(daemon.ask(&format!("echo {number}")), format!("{number}\n"));
        }
        stats.count("restarts recycled") >= 4
    });
    assert_eq!((stats.count("queries failed"), stats.count("restarts died")), (0, 0));
    // Replaced, and not one more or less of them.
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2 && stats.count("workers stopping") == 0);
}

#[test]
fn an_old_worker_is_replaced_before_it_goes() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let flags = ["--ready-line", "up", "--max-age", "1s", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &command, &flags);
    let first = gate.arrival();
    let old = first.pid;
    first.open();
    // It is old now: its successor stands at the gate, and it serves until that is ready.
    let successor = gate.arrival();
    assert_eq!(daemon.ask("pid"), format!("{old}\n"));
    let new = successor.pid;
    successor.open();
    daemon.stderr_wait("has served long enough");
    // The next successor will stand at the gate as well, so this one serves on, however old it gets.
    assert_eq!(daemon.ask("pid"), format!("{new}\n"));
}

#[test]
fn a_worker_that_has_grown_too_large_is_replaced() {
    let flags = [
        "--max-rss",
        "64MiB",
        "--alarm-interval",
        "100ms",
        "--queue-timeout",
        "60s",
    ];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let worker = daemon.ask("pid");
    assert_eq!(daemon.ask("grow 100"), "ok\n");
    daemon.stderr_wait("more than --max-rss 64 MiB");
    daemon.stderr_wait("has served long enough");
    assert_ne!(daemon.ask("pid"), worker);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts recycled"), stats.count("queries failed")),
        (1, 0)
    );
}

#[test]
fn a_worker_that_dies_at_its_start_is_started_again_ever_more_slowly() {
    let flags = ["--alarm-interval", "100ms", "--queue-timeout", "100ms"];
    let daemon = Daemon::pool(1, &worker_command(&["--die-at-start"]), &flags);
    for (place, delay) in ["at once", "in 100 ms", "in 200 ms", "in 400 ms"]
        .into_iter()
        .enumerate()
    {
        let line = daemon.stderr_wait_nth("started again", place + 1);
        assert!(line.ends_with(delay), "{line}");
    }
    // Meanwhile it answers, if only that it cannot.
    assert_eq!(daemon.ask("echo x"), "ERR\n");
    assert!(daemon.usr1().count("restarts died") >= 4);
    daemon.stderr_wait("exited with status 3");
}

/// It is mended while the daemon runs, and serves.
#[test]
fn a_crash_loop_ends_when_its_cause_does() {
    let directory = temp_dir();
    let broken = directory.path().join("broken");
    std::fs::write(&broken, "").unwrap();
    let command = worker_command(&["--die-if", broken.to_str().unwrap()]);
    let flags = ["--alarm-interval", "100ms", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, &command, &flags);
    let mut client = daemon.client();
    client.send("served\n");
    daemon.stderr_wait("started again in 100 ms");
    std::fs::remove_file(&broken).unwrap();
    assert_eq!(client.read_to_end(), b"1\n");
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn a_command_that_cannot_be_started_at_all_ends_the_program() {
    let directory = temp_dir();
    let plain = directory.path().join("no-program");
    std::fs::write(&plain, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&plain, std::fs::Permissions::from_mode(0o644)).unwrap();
    let plain = plain.to_str().unwrap();
    for (command, why) in [
        ("/nonexistent/checker -c x.conf", "No such file"),
        ("no-such-checker-anywhere", "no-such-checker-anywhere"),
        (plain, "ermission"),
    ] {
        let daemon = Daemon::with(["-n", "2", "-p", "0", "-d", command]).spawn();
        let (status, _, stderr) = daemon.finish();
        assert_eq!(status.code(), Some(1), "{stderr}");
        let program = command.split(' ').next().unwrap();
        assert!(stderr.contains(program) && stderr.contains(why), "{stderr}");
    }
}

/// The program has gone since the daemon was started: it is tried again, and nothing else changes.
#[test]
fn a_command_that_vanishes_later_costs_only_the_place_it_was_for() {
    let directory = temp_dir();
    let program = directory.path().join("checker");
    let original = shell_words::split(&worker_command(&[])).unwrap().remove(0);
    std::os::unix::fs::symlink(&original, &program).unwrap();
    let flags = ["--alarm-interval", "100ms", "--queue-timeout", "60s"];
    let daemon = Daemon::pool(1, program.to_str().unwrap(), &flags);
    assert_eq!(daemon.ask("served"), "1\n");
    std::fs::remove_file(&program).unwrap();
    let mut client = daemon.client();
    client.send("kill-self\n");
    daemon.stderr_wait("could not be started");
    assert!(daemon.usr1().count("restarts spawn") >= 1);
    // The request is still in hand, and kills the next one too: that one had never answered anything.
    client.reset();
    daemon.usr1_until(|stats| stats.count("queue length") == 0);
    std::os::unix::fs::symlink(&original, &program).unwrap();
    assert_eq!(daemon.ask("served"), "1\n");
}
