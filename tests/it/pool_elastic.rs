//! A pool that grows under load and shrinks when idle.

use std::fs;

use nix::sys::signal::Signal;

use crate::harness::{Arrival, Client, Daemon, Gate, StatsBlock, temp_dir, worker_command};

/// A pool of scripted workers that follows its load, with the minimum ready.
#[track_caller]
fn elastic(flags: &[&str]) -> Daemon {
    let command = worker_command(&[]);
    let always = ["-d", command.as_str(), "-p", "0", "--queue-timeout", "60s"];
    let daemon = Daemon::with(always).args(flags).start();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") >= 1);
    daemon
}

/// A client whose request stands at a gate.
#[track_caller]
fn hold(daemon: &Daemon, gate: &Gate) -> (Client, Arrival) {
    let mut client = daemon.client();
    client.send(format!("wait {} held\n", gate.path()));
    (client, gate.arrival())
}

#[track_caller]
fn release((mut client, arrival): (Client, Arrival)) {
    arrival.open();
    assert_eq!(client.read_to_end(), b"held\n");
}

/// The number of each place with the process in it, as the dump has them.
#[track_caller]
fn places(daemon: &Daemon) -> Vec<(usize, i32)> {
    let dump = daemon.usr2();
    let pids = dump.iter().filter_map(|line| line.split_once("].daemon_pid = "));
    pids.map(|(number, pid)| (number.trim_start_matches("d[").parse().unwrap(), pid.parse().unwrap()))
        .collect()
}

#[test]
fn it_grows_before_a_request_waits_and_shrinks_when_idle() {
    let gate = Gate::new();
    let daemon = elastic(&[
        "--max-workers",
        "4",
        "--worker-idle-timeout",
        "100ms",
        "--alarm-interval",
        "100ms",
    ]);
    let stats = daemon.usr1();
    let limits = ["workers current", "workers min", "workers max", "workers spare"].map(|label| stats.count(label));
    assert_eq!(limits, [1, 1, 4, 1]);
    for round in 1..3 {
        let mut held = Vec::new();
        for busy in 1..4 {
            held.push(hold(&daemon, &gate));
            // The next is up before a client needs it.
            let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
            assert_eq!(stats.count("workers current"), busy + 1);
        }
        assert_eq!(daemon.usr1().count("workers shrunk"), 3 * (round - 1));
        held.into_iter().for_each(release);
        let idle =
            |block: &StatsBlock| block.count("workers shrunk") == 3 * round && block.count("workers stopping") == 0;
        let stats = daemon.usr1_until(idle);
        assert_eq!(
            (stats.count("workers current"), stats.count("workers grown")),
            (1, 3 * round)
        );
        assert_eq!(daemon.children().len(), 1);
    }
    daemon.stderr_wait("the load wants more workers: worker 1 is started, 2 of at most 4");
    daemon.stderr_wait("has not been needed for --worker-idle-timeout 100 ms and is let go; 1 are left, of at least 1");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries delayed"), stats.count("queries failed")), (0, 0));
    assert_eq!(stats.count("daemon spawns"), 7);
}

#[test]
fn requests_that_wait_make_it_grow_to_its_maximum_and_no_further() {
    let gate = Gate::new();
    let daemon = elastic(&["--max-workers", "3", "--spare-workers", "0"]);
    let mut clients: Vec<Client> = (0..5).map(|_| daemon.client()).collect();
    for client in &mut clients {
        client.send(format!("wait {} held\n", gate.path()));
    }
    let arrivals = [gate.arrival(), gate.arrival(), gate.arrival()];
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 2);
    assert_eq!((stats.count("workers current"), stats.count("workers grown")), (3, 2));
    arrivals.into_iter().for_each(Arrival::open);
    for _ in 0..2 {
        gate.arrival().open();
    }
    for client in &mut clients {
        assert_eq!(client.read_to_end(), b"held\n");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (5, 3));
}

#[test]
fn with_a_fixed_number_nothing_grows() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "60s"]);
    let held = hold(&daemon, &gate);
    let mut waiting = daemon.client();
    waiting.send("echo waited\n");
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    let numbers = ["current", "min", "max", "spare", "grown"].map(|label| stats.count(&format!("workers {label}")));
    assert_eq!(numbers, [1, 1, 1, 0, 0]);
    release(held);
    assert_eq!(waiting.read_to_end(), b"waited\n");
}

/// The one used least recently goes, wherever it stands, and the others are called what they were called before.
#[test]
fn the_places_that_stay_keep_their_numbers() {
    let gate = Gate::new();
    // Only one goes: the next would have to wait for the tick.
    let flags = ["--max-workers", "3", "--spare-workers", "0", "--alarm-interval", "1h"];
    let daemon = elastic(&[&flags[..], &["--worker-idle-timeout", "100ms"]].concat());
    let held: Vec<_> = (0..3).map(|_| hold(&daemon, &gate)).collect();
    let before = places(&daemon);
    let pids: Vec<i32> = held.iter().map(|(_, arrival)| arrival.pid).collect();
    assert_eq!(before, [(0, pids[0]), (1, pids[1]), (2, pids[2])]);
    // The second becomes free first.
    let mut held = held.into_iter();
    let (first, second, third) = (held.next().unwrap(), held.next().unwrap(), held.next().unwrap());
    release(second);
    daemon.usr1_until(|stats| stats.count("workers shrunk") == 1);
    assert_eq!(places(&daemon), [before[0], before[2]]);
    // Its number is given to the next one.
    let mut again = hold(&daemon, &gate);
    assert_eq!(places(&daemon), [before[0], (1, again.1.pid), before[2]]);
    for one in [first, third] {
        release(one);
    }
    again.1.open();
    assert_eq!(again.0.read_to_end(), b"held\n");
}

/// However many requests wait, and however many spare ones are wanted.
#[test]
fn a_program_that_dies_at_its_start_is_not_started_in_a_storm() {
    let command = worker_command(&["--die-at-start"]);
    let flags = [
        "--max-workers",
        "64",
        "--spare-workers",
        "8",
        "--alarm-interval",
        "1h",
        "--queue-timeout",
        "60s",
    ];
    let daemon = Daemon::with(["-d", command.as_str(), "-p", "0"]).args(&flags).start();
    // The first place has one early death for free, the others have none; then all of them wait for an hour.
    let given_up = daemon.usr1_until(|stats| {
        let places = stats.count("workers current");
        stats.count("restarts died") == places + 1 && stats.count("daemon S_SPAWNING") == places
    });
    let (spawns, places) = (given_up.count("daemon spawns"), given_up.count("workers current"));
    assert!(places <= 9 && spawns == places + 1, "{given_up:#?}");
    let mut waiting: Vec<Client> = (0..20).map(|_| daemon.client()).collect();
    for client in &mut waiting {
        client.send("echo x\n");
    }
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 20);
    assert_eq!(
        (stats.count("daemon spawns"), stats.count("workers current")),
        (spawns, places)
    );
}

/// No request is held back for a start that may take long; but the pool grows.
#[test]
fn requests_written_ahead_make_the_pool_grow() {
    let gate = Gate::new();
    let daemon = elastic(&["--max-workers", "2", "--spare-workers", "0", "--pipeline", "4"]);
    let held = hold(&daemon, &gate);
    let mut behind = daemon.client();
    behind.send("echo behind\n");
    let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    let numbers = ["queries ahead", "queue length", "workers grown"].map(|label| stats.count(label));
    assert_eq!(numbers, [1, 0, 1]);
    assert_eq!(daemon.ask("echo free"), "free\n");
    release(held);
    assert_eq!(behind.read_to_end(), b"behind\n");
}

#[test]
fn hup_changes_the_limits() {
    let (gate, directory) = (Gate::new(), temp_dir());
    let path = directory.path().join("iotcpd.toml");
    let write = |size: &str| {
        let daemon = worker_command(&[]);
        let text = format!("[pool.main]\ndaemon = \"{daemon}\"\nport = 0\nqueue-timeout = '60s'\n{size}\n");
        fs::write(&path, text).unwrap();
    };
    write("max-workers = 3\nspare-workers = 0");
    let daemon = Daemon::with(["run", "--config", path.to_str().unwrap()]).start();
    let mut reloads = 0;
    let mut reload = |size: &str| {
        write(size);
        reloads += 1;
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait_nth("every worker has been replaced", reloads);
    };
    let limits = || {
        let stats = daemon.usr1();
        ["current", "min", "max", "spare"].map(|label| stats.count(&format!("workers {label}")))
    };
    assert_eq!(limits(), [1, 1, 3, 0]);
    reload("min-workers = 2\nmax-workers = 5\nspare-workers = 3");
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 3);
    assert_eq!(limits(), [3, 2, 5, 3]);
    // A busy worker finishes first when there are to be fewer.
    let held: Vec<_> = (0..4).map(|_| hold(&daemon, &gate)).collect();
    daemon.usr1_until(|stats| stats.count("workers current") == 5);
    reload("num-daemons = 1");
    assert_eq!(limits(), [1, 1, 1, 0]);
    held.into_iter().for_each(release);
    daemon.usr1_until(|stats| stats.count("workers stopping") == 0 && stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!(daemon.children().len(), 1);
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn contradicting_flags_are_refused_with_their_remedy() {
    for (flags, told) in [
        (
            ["-n", "4", "--max-workers", "8"],
            "--num-daemons: it fixes the number of workers, and --max-workers lets it follow the load; \
             leave out one of the two",
        ),
        (
            ["-n", "4", "--spare-workers", "2"],
            "--spare-workers: without --max-workers the number of workers is fixed; \
             give --max-workers as well, and no --num-daemons, or leave it out",
        ),
        (
            ["--min-workers", "9", "--max-workers", "8"],
            "--min-workers: 9 is more than --max-workers 8; write at most 8, or raise --max-workers",
        ),
    ] {
        let (status, _, stderr) = Daemon::with(flags).spawn().finish();
        assert_ne!(status.code(), Some(0));
        assert!(stderr.contains(told), "{stderr}");
    }
}
