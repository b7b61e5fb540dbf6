//! The effect of `kill` on a pool: USR1 and USR2 print, HUP replaces the workers, TERM and INT end it.
//!
//! The blocks that USR1 and USR2 print are those of iotcpd 1.1, which scripts written for it read.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, Gate, worker_command};

/// The labels of iotcpd 1.1 in their order, and the column their values begin in (counted from 0).
const OLD_LABELS: [(&str, usize); 19] = [
    ("queries total", 19),
    ("queries replied", 19),
    ("queries delayed", 19),
    ("queries timeout", 19),
    ("queries failed", 19),
    ("queries unknown", 19),
    ("queries 0-100", 19),
    ("queries 100-250", 19),
    ("queries 250-500", 19),
    ("queries 500-750", 19),
    ("queries 750-1000", 19),
    ("queries 1000-", 19),
    ("daemon spawns", 19),
    ("daemon S_AVAILABLE", 19),
    ("daemon S_BUSY", 19),
    ("daemon S_SPAWNING", 19),
    ("daemon S_STARTING", 19),
    ("uptime", 9),
    ("version", 9),
];

/// The labels behind the ones of iotcpd 1.1.
const NEW_LABELS: &[&str] = &[
    "wait p50 ms",
    "wait p90 ms",
    "wait p99 ms",
    "wait p99.9 ms",
    "wait max ms",
    "service p50 ms",
    "service p90 ms",
    "service p99 ms",
    "service p99.9 ms",
    "service max ms",
    "total p50 ms",
    "total p90 ms",
    "total p99 ms",
    "total p99.9 ms",
    "total max ms",
    "restarts died",
    "restarts timeout",
    "restarts desync",
    "restarts oversize",
    "restarts probe",
    "workers quarantine",
    "probes asked",
    "restarts recycled",
    "restarts spent",
    "restarts asked",
    "refused queue-full",
    "refused queue-time",
    "refused busy-time",
    "refused died",
    "refused long-line",
    "refused shutdown",
    "refused max-conn",
    "queue length",
    "queue highest",
    "saturated seconds",
];

const LONG: &str = "600s";

// ---- USR1 ------------------------------------------------------------------------------------------------------

#[test]
fn usr1_prints_the_block_of_the_old_program_and_nothing_else() {
    let daemon = Daemon::pool(2, &worker_command(&[]), &["--queue-timeout", LONG]);
    assert_eq!(daemon.ask("echo one"), "one\n");
    let block = daemon.usr1();
    for (line, (label, column)) in block.lines.iter().zip(OLD_LABELS) {
        let value = block.get(label).unwrap_or_else(|| panic!("no {label:?} in {block:#?}"));
        assert_eq!(*line, format!("{label:<column$}{value}"));
        let is_text = label == "version";
        assert!(is_text || value.parse::<u64>().is_ok(), "{line:?}");
    }
    assert_eq!(block.get("version"), Some(env!("CARGO_PKG_VERSION")));
    for label in NEW_LABELS.iter().copied() {
        let place = block.labels().iter().position(|found| *found == label);
        assert!(
            place.is_some_and(|place| place >= OLD_LABELS.len()),
            "{label}: {place:?} in {block:#?}"
        );
    }
    for label in block.labels() {
        assert!(label.len() < OLD_LABELS[0].1, "{label} leaves no room before its value");
    }
    let whole = format!(
        " --- statistics ---- >8 -------\n{}\n --- statistics ---- 8< -------",
        block.lines.join("\n")
    );
    assert_eq!(daemon.stdout.text(), whole);
}

/// The worker is held for exactly as long as another request waits in vain, so that something is known about the times.
#[test]
fn usr1_counts_what_has_happened() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "1010ms", "-b", LONG]);
    for number in 0..3 {
        assert_eq!(daemon.ask(&format!("echo {number}")), format!("{number}\n"));
    }
    let mut slow = daemon.client();
    slow.send(format!("wait {} slow\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.ask("echo in vain"), "ERR\n");
    arrival.open();
    assert_eq!(slow.read_to_end(), b"slow\n");
    // Two packets: the connection is watched from then on, and its end noticed while its worker is still busy.
    let mut gone = daemon.client();
    gone.send("wait ");
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    gone.send(format!("{} gone\n", gate.path()));
    let arrival = gate.arrival();
    gone.reset();
    daemon.usr1_until(|stats| stats.count("queries timeout") == 1);
    arrival.open();

    let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!(stats.count("queries total"), 6);
    assert_eq!(stats.count("queries replied"), 4);
    assert_eq!(stats.count("queries delayed"), 1);
    assert_eq!(stats.count("queries timeout"), 1);
    assert_eq!(stats.count("queries failed"), 1);
    assert_eq!(stats.count("queries unknown"), 0);
    assert_eq!(stats.count("refused queue-time"), 1);
    assert_eq!(stats.count("queue highest"), 1);
    assert_eq!(stats.count("queue length"), 0);
    assert_eq!(stats.measured(), 4, "{stats:#?}");
    assert!(stats.count("queries 1000-") >= 1, "the slow one: {stats:#?}");
    let decimal = |label| stats.get(label).and_then(|value| value.parse::<f64>().ok()).unwrap();
    assert!(decimal("service max ms") >= 1010.0, "{stats:#?}");
    assert!(decimal("total max ms") >= 1010.0, "{stats:#?}");
    assert!(decimal("saturated seconds") >= 1.01, "{stats:#?}");
}

#[test]
fn usr1_of_several_pools_is_a_block_for_each() {
    let home = crate::harness::temp_dir();
    let file = home.path().join("two.toml");
    let command = worker_command(&[]);
    let pool = |name| format!("[pool.{name}]\ndaemon = {command:?}\nnum-daemons = 1\nport = 0\n");
    fs::write(&file, pool("first") + &pool("second")).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    daemon.nth_addr(2);
    daemon.usr1();
    let text = daemon
        .stdout
        .wait_from(0, |line| line.starts_with("name") && line.ends_with(" second"));
    assert!(text.is_ok(), "{text:?}");
    assert!(
        daemon
            .stdout
            .text()
            .lines()
            .any(|line| line.starts_with("name") && line.ends_with(" first"))
    );
}

// ---- USR2 ------------------------------------------------------------------------------------------------------

const DUMP_ROWS: [&str; 8] = [
    "status",
    "producer_pipe_fd[PIPE_END_WRITE]",
    "consumer_pipe_fd[PIPE_END_READ]",
    "daemon_pid",
    "client_pid",
    "client_fd",
    "start.tv_sec",
    "start.tv_nsec",
];

/// The values of one worker in a dump, in the order of [`DUMP_ROWS`].
#[track_caller]
fn dumped(dump: &[String], number: usize) -> Vec<i64> {
    let lines: Vec<&String> = dump.iter().skip(number * 9).take(9).collect();
    assert_eq!(lines.len(), 9, "{dump:#?}");
    assert_eq!(lines[8], "", "{dump:#?}");
    let value = |(line, row): (&&String, &&str)| {
        let value = line.strip_prefix(&format!("d[{number}].{row} = "));
        value
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{line:?} is not d[{number}].{row}"))
    };
    lines.iter().zip(&DUMP_ROWS).map(value).collect()
}

#[test]
fn usr2_dumps_every_worker() {
    let gate = Gate::new();
    let home = crate::harness::temp_dir();
    let listen = format!("unix:{}", home.path().join("s").display());
    let daemon = Daemon::pool(
        2,
        &worker_command(&[]),
        &["--listen", &listen, "--queue-timeout", LONG, "-b", LONG],
    );
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    let mut client = Client::connect(&daemon.nth_addr(2));
    client.send(format!("wait {} x\n", gate.path()));
    let arrival = gate.arrival();

    let dump = daemon.usr2();
    assert!(!dump[18].starts_with("d["), "{dump:#?}");
    let (mut workers, mut busy) = (BTreeSet::new(), 0);
    for values in [dumped(&dump, 0), dumped(&dump, 1)] {
        let pid = i32::try_from(values[3]).unwrap();
        workers.insert(pid);
        for descriptor in &values[1..=2] {
            let target = fs::read_link(format!("/proc/{}/fd/{descriptor}", daemon.pid())).unwrap();
            assert!(target.to_str().unwrap().starts_with("pipe:"), "{target:?}");
        }
        if pid == arrival.pid {
            busy += 1;
            assert_eq!(values[0], 2);
            assert_eq!(values[4], i64::from(std::process::id()));
            let socket = fs::read_link(format!("/proc/{}/fd/{}", daemon.pid(), values[5])).unwrap();
            assert!(socket.to_str().unwrap().starts_with("socket:"), "{socket:?}");
            assert!(values[6] > 0 && (0..1_000_000_000).contains(&values[7]), "{values:?}");
        } else {
            assert_eq!((values[0], &values[4..]), (1, &[-1, -1, 0, 0][..]));
        }
    }
    assert_eq!(busy, 1, "{dump:#?}");
    assert_eq!(workers, daemon.children().into_iter().collect());
    arrival.open();
    assert_eq!(client.read_to_end(), b"x\n");
}

// ---- HUP -------------------------------------------------------------------------------------------------------

#[test]
fn hup_replaces_workers_one_by_one_and_each_new_one_is_up_before_the_old_one_goes() {
    let gate = Gate::new();
    let command = worker_command(&["--start-gate", gate.path(), "--ready", "up"]);
    let daemon = Daemon::pool(
        2,
        &command,
        &["--ready-line", "up", "--start-timeout", LONG, "--queue-timeout", LONG],
    );
    let old: BTreeSet<i32> = [gate.arrival(), gate.arrival()]
        .iter()
        .map(|arrival| arrival.pid)
        .collect();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);

    daemon.signal(Signal::SIGHUP);
    let first = gate.arrival();
    let children: BTreeSet<i32> = daemon.children().into_iter().collect();
    assert!(
        children.is_superset(&old),
        "both old ones serve while {} starts: {children:?}",
        first.pid
    );
    assert_eq!(children.len(), 3, "one new one at a time: {children:?}");
    let answerer: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    assert!(old.contains(&answerer), "{answerer} answers, of {old:?}");
    let first_pid = first.pid;
    first.open();

    let second = gate.arrival();
    let serving: BTreeSet<i32> = (0..2)
        .map(|number| i32::try_from(dumped(&daemon.usr2(), number)[3]).unwrap())
        .collect();
    assert!(
        serving.contains(&first_pid),
        "{first_pid} has taken its place among {serving:?}"
    );
    assert_eq!(
        serving.intersection(&old).count(),
        1,
        "the second old one still serves: {serving:?}"
    );
    let second_pid = second.pid;
    second.open();

    daemon.stderr_wait("every worker has been replaced");
    daemon.usr1_until(|stats| stats.count("workers stopping") + stats.count("workers draining") == 0);
    let children: BTreeSet<i32> = daemon.children().into_iter().collect();
    assert_eq!(children, BTreeSet::from([first_pid, second_pid]));
    assert_eq!(daemon.usr1().count("restarts asked"), 2);
}

#[test]
fn hup_under_load_refuses_no_request() {
    let daemon = Daemon::pool(3, &worker_command(&[]), &["--queue-timeout", LONG]);
    let old: BTreeSet<i32> = daemon.children().into_iter().collect();
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|client| {
            let (stop, asked, address) = (Arc::clone(&stop), Arc::clone(&asked), daemon.addr());
            thread::spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::SeqCst) {
                    number += 1;
                    let mut connection = Client::connect(&address);
                    connection.send(format!("echo {client}-{number}\n"));
                    assert_eq!(connection.read_to_end(), format!("{client}-{number}\n").into_bytes());
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    for round in 1..=3 {
        daemon.signal(Signal::SIGHUP);
        daemon.stderr_wait_nth("every worker has been replaced", round);
    }
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.join().expect("a client got its own answer every time");
    }
    let stats = daemon.usr1_until(|stats| stats.count("workers stopping") + stats.count("workers draining") == 0);
    assert_eq!(stats.count("queries failed"), 0);
    assert_eq!(stats.count("queries replied"), asked.load(Ordering::SeqCst));
    let new: BTreeSet<i32> = daemon.children().into_iter().collect();
    assert_eq!((new.len(), new.intersection(&old).count()), (3, 0), "{old:?} {new:?}");
}

#[test]
fn hup_lets_a_busy_worker_finish() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", LONG, "-b", LONG]);
    let mut client = daemon.client();
    client.send(format!("wait {} done\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("every worker has been replaced");
    let successor: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    assert_ne!(successor, arrival.pid);
    arrival.open();
    assert_eq!(client.read_to_end(), b"done\n");
}

// ---- TERM and INT ----------------------------------------------------------------------------------------------

#[test]
fn term_and_int_finish_what_is_in_hand() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let gate = Gate::new();
        let daemon = Daemon::pool(
            1,
            &worker_command(&[]),
            // An address of its own: the port it gives up would be the next free one of 127.0.0.1 for other tests.
            &[
                "-i",
                "127.8.8.8",
                "--queue-timeout",
                LONG,
                "-b",
                LONG,
                "--stop-timeout",
                LONG,
            ],
        );
        let Address::Tcp(address) = daemon.addr() else {
            panic!("a TCP pool")
        };
        let (mut busy, mut waiting, idle) = (daemon.client(), daemon.client(), daemon.client());
        busy.send(format!("wait {} busy\n", gate.path()));
        let arrival = gate.arrival();
        waiting.send("echo waiting\n");
        daemon.usr1_until(|stats| stats.count("queue length") == 1);
        daemon.signal(signal);
        daemon.stderr_wait("draining");
        assert_eq!(
            TcpStream::connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        arrival.open();
        assert_eq!(busy.read_to_end(), b"busy\n");
        assert_eq!(waiting.read_to_end(), b"waiting\n");
        let (status, _, _) = daemon.finish();
        assert_eq!(status.code(), Some(0), "{signal}");
        drop(idle);
    }
}

/// Stopped, the daemon can neither accept nor hear of the signal: when it goes on, it finds both at once.
#[test]
fn term_serves_the_clients_that_connected_before_it() {
    let daemon = Daemon::pool(2, &worker_command(&[]), &["--queue-timeout", LONG]);
    daemon.signal(Signal::SIGSTOP);
    let clients: Vec<Client> = (0..200)
        .map(|number| {
            let mut client = daemon.client();
            client.send(format!("echo {number}\n"));
            client
        })
        .collect();
    daemon.signal(Signal::SIGTERM);
    daemon.signal(Signal::SIGCONT);
    for (number, mut client) in clients.into_iter().enumerate() {
        assert_eq!(client.read_to_end(), format!("{number}\n").into_bytes());
    }
    assert_eq!(daemon.finish().0.code(), Some(0));
}

#[test]
fn stop_timeout_ends_the_wait_for_what_is_in_hand() {
    let gate = Gate::new();
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--queue-timeout", LONG, "-b", LONG, "--stop-timeout", "100ms"],
    );
    let mut client = daemon.client();
    client.send(format!("wait {} never\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(client.read_to_end(), b"ERR\n");
    arrival.wait_killed();
    let (status, _, stderr) = daemon.finish();
    assert_eq!(status.code(), Some(0));
    assert!(stderr.contains("--stop-timeout"), "{stderr}");
}

#[test]
fn a_second_signal_hurries() {
    for second in [Signal::SIGTERM, Signal::SIGINT] {
        let gate = Gate::new();
        let flags = [
            "--queue-timeout",
            LONG,
            "-b",
            LONG,
            "--stop-timeout",
            LONG,
            "--kill-timeout",
            LONG,
        ];
        let daemon = Daemon::pool(1, &worker_command(&["--ignore-term"]), &flags);
        let mut client = daemon.client();
        client.send(format!("wait {} never\n", gate.path()));
        let arrival = gate.arrival();
        daemon.signal(Signal::SIGTERM);
        daemon.stderr_wait("draining");
        daemon.signal(second);
        assert_eq!(client.read_to_end(), b"ERR\n");
        arrival.wait_killed();
        assert_eq!(daemon.finish().0.code(), Some(0));
    }
}

#[test]
fn a_second_signal_hurries_workers_that_will_not_go() {
    let flags = ["--stop-timeout", LONG, "--kill-timeout", LONG];
    let daemon = Daemon::pool(2, &worker_command(&["--ignore-term", "--never-read"]), &flags);
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.finish().0.code(), Some(0));
}

#[test]
fn a_worker_that_ignores_term_is_killed_after_its_time() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&["--ignore-term", "--never-read"]),
        &["--kill-timeout", "100ms"],
    );
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.finish().0.code(), Some(0));
}

crate::harness::over_tls! {
    hup_under_load_refuses_no_request,
    hup_lets_a_busy_worker_finish,
    stop_timeout_ends_the_wait_for_what_is_in_hand,
    a_second_signal_hurries,
}
