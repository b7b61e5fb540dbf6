//! The harness and the daemon shake hands: if one of these fails, look here before anywhere else.

use std::net::TcpListener;
use std::os::unix::fs::FileTypeExt;

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, Gate, children_of, free_port, name_of, worker_command};

#[test]
fn a_pool_answers_prints_its_statistics_and_ends() {
    let daemon = Daemon::pool(2, &worker_command(&[]), &[]);
    assert_eq!(daemon.ask("echo hello"), "hello\n");
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 2);
    assert_eq!(daemon.children().len(), 2);
    let worker: i32 = daemon.ask("pid").trim_end().parse().unwrap();
    assert_eq!(name_of(worker).as_deref(), Some("scripted-worker"));
    assert!(daemon.children().contains(&worker));
    let stats = daemon.usr1();
    assert_eq!(stats.count("queries total"), 2);
    assert_eq!(stats.labels()[0], "queries total");
    assert!(daemon.usr2().iter().any(|line| line.starts_with("d[1].status")));
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.wait_exit().code(), Some(0));
    assert_eq!(children_of(daemon.pid()), Vec::<i32>::new());
}

#[test]
fn a_worker_is_held_at_a_gate_while_another_request_waits() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "60s"]);
    let mut first = daemon.client();
    first.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(daemon.children(), [arrival.pid]);
    let mut second = daemon.client();
    second.send("echo second\n");
    daemon.usr1_until(|stats| stats.count("queries delayed") == 1);
    arrival.open();
    assert_eq!(first.read_to_end_or_reset(), b"first\n");
    assert_eq!(second.read_to_end(), b"second\n");
}

#[test]
fn a_daemon_of_several_listeners() {
    let directory = crate::harness::temp_dir();
    let socket = directory.path().join("pool");
    let listen = format!("unix:{}", socket.display());
    let port = free_port();
    let tcp = format!("127.0.0.1:{port}");
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", command.as_str(), "--listen", &listen, "--listen", &tcp])
        .env("IOTCPD_TEST_WORD", "word")
        .open_files(256)
        .stdin(std::process::Stdio::null())
        .start();
    assert_eq!(daemon.nth_addr(1), Address::Unix(socket.display().to_string()));
    assert_eq!(daemon.nth_addr(2).port(), port);
    assert!(socket.metadata().unwrap().file_type().is_socket());
    assert_eq!(daemon.ask("env IOTCPD_TEST_WORD"), "word\n");
    assert_eq!(
        daemon.ask("env IOTCPD_TEST_HOME"),
        format!("{}\n", daemon.home().display())
    );
}

#[test]
fn a_daemon_that_inherits_its_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::Tcp(listener.local_addr().unwrap());
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", command.as_str(), "--listen", "systemd"])
        .inherit(listener)
        .start();
    assert_eq!(daemon.addr(), address);
    let mut client = Client::connect(&address);
    client.send("echo x\n");
    assert_eq!(client.read_to_end(), b"x\n");
}

#[test]
fn a_daemon_that_refuses_says_so_and_exits() {
    let daemon = Daemon::with(["--no-such-flag"]).spawn();
    let (status, _, stderr) = daemon.finish();
    assert_eq!(status.code(), Some(2));
    assert!(stderr.contains("--no-such-flag"), "{stderr}");
}
