//! Clients are not found where an administrator looks for the daemon.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;

use crate::exec_client::door;
use crate::harness::{Address, Daemon, Program, WATCHDOG, worker_command};

const BINARY: &str = env!("CARGO_BIN_EXE_iotcpd");

/// The processes that a program names.
#[track_caller]
fn found(program: &str, arguments: &[&str]) -> BTreeSet<i32> {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {program}: {error} (scripts/install-peers)"));
    let text = String::from_utf8(output.stdout).expect("numbers");
    text.split_whitespace()
        .map(|pid| pid.parse().expect("a process number"))
        .collect()
}

/// Each way of finding the processes called `iotcpd`.
fn by_name() -> [(&'static str, BTreeSet<i32>); 3] {
    [
        ("pidof", found("pidof", &["iotcpd"])),
        ("pgrep -x", found("pgrep", &["-x", "iotcpd"])),
        ("ps -C", found("ps", &["-C", "iotcpd", "-o", "pid="])),
    ]
}

#[track_caller]
fn assert_called(client: &Program, daemon: &Daemon, comm: &str, first_word: &str) {
    let pid = client.pid();
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).expect("its command line");
    let first = command_line.split(|byte| *byte == 0).next().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(first), first_word);
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).expect("its name");
    assert_eq!(name.trim_end(), comm);
    // pidof passes over a process that waits for a disk at that moment.
    let deadline = Instant::now() + WATCHDOG;
    let found_daemon = loop {
        let found = by_name();
        for (way, pids) in &found {
            assert!(!pids.contains(&pid), "{way} finds the client");
        }
        let missed: Vec<_> = found.iter().filter(|(_, pids)| !pids.contains(&daemon.pid())).collect();
        if missed.is_empty() || Instant::now() > deadline {
            break missed.is_empty();
        }
    };
    assert!(found_daemon, "each way finds the daemon");
    assert!(
        found("pidof", &[comm]).contains(&pid) || first_word.starts_with('('),
        "its own name finds it"
    );
    assert!(found("pgrep", &["-x", comm]).contains(&pid));
}

#[test]
fn ask_has_a_name_of_its_own() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    let address = daemon.addr().to_string();
    // Started as by a shell, and as by Squid.
    for name in [BINARY, "iotcpd", "(iotcpd)"] {
        let mut client = Program::start(Command::new(BINARY).arg0(name).args(["ask", "--squid", &address]));
        std::io::Write::write_all(client.stdin.as_mut().expect("a pipe"), b"0 echo x\n").expect("write a line");
        client.stdout.wait_from(0, |line| line == "0 x").expect("an answer");
        assert_called(&client, &daemon, "iotcpd-ask", &format!("{name}-ask"));
        drop(client.stdin.take());
        assert_eq!(client.finish().0.code(), Some(0));
    }
}

#[test]
fn call_has_a_name_of_its_own() {
    let (daemon, _home) = door(&[]);
    let Address::Unix(address) = daemon.addr() else {
        panic!("the door is on a UNIX socket")
    };
    let client =
        Program::start(Command::new(BINARY).args(["call", "-n", &address, "sh", "-c", "echo up; exec sleep 1000"]));
    wait_until_up(&client);
    assert_called(&client, &daemon, "iotcpd-call", &format!("{BINARY}-call"));
    client.signal(Signal::SIGTERM);
    assert_eq!(client.finish().0.code(), Some(143));
}

/// Returns when the program behind `client` has said `up`.
#[track_caller]
fn wait_until_up(client: &Program) {
    client
        .stdout
        .wait_from(0, |line| line == "up")
        .expect("the program runs");
}

/// A flag meant for a daemon reaches no program, unless that is wanted.
#[test]
fn call_keeps_the_signals_of_daemons_to_itself() {
    let (daemon, _home) = door(&[]);
    let Address::Unix(address) = daemon.addr() else {
        panic!("the door is on a UNIX socket")
    };
    let script = "for it in HUP USR1 USR2; do trap \"echo got $it\" $it; done; trap 'exit 9' TERM; echo up; \
                  sleep 1000 & while :; do wait; done";
    let meant_for_daemons = [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2];
    let client = Program::start(Command::new(BINARY).args(["call", "-n", &address, "sh", "-c", script]));
    wait_until_up(&client);
    for signal in meant_for_daemons {
        client.signal(signal);
    }
    client.signal(Signal::SIGTERM);
    let (status, stdout, stderr) = client.finish();
    assert_eq!((status.code(), stdout.as_str(), stderr.as_str()), (Some(9), "up", ""));

    let client =
        Program::start(Command::new(BINARY).args(["call", "-n", "--forward-all", &address, "sh", "-c", script]));
    wait_until_up(&client);
    for signal in meant_for_daemons {
        client.signal(signal);
        let wanted = format!("got {}", signal.as_str().trim_start_matches("SIG"));
        client
            .stdout
            .wait_from(0, |line| line == wanted)
            .expect("the signal has come");
    }
    client.signal(Signal::SIGTERM);
    assert_eq!(client.finish().0.code(), Some(9));
}

/// A terminal that is closed takes along what runs on it, as it does with any program, and `kill -HUP` does not.
#[test]
fn call_goes_with_its_terminal() {
    let (daemon, _home) = door(&[]);
    let Address::Unix(address) = daemon.addr() else {
        panic!("the door is on a UNIX socket")
    };
    // Close-on-exec from the start, so that no other process holds it open.
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).expect("make a terminal");
    grantpt(&master)
        .and_then(|()| unlockpt(&master))
        .expect("let it be used");
    let name = ptsname_r(&master).expect("its name");
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let slave = options.open(name).expect("open the terminal");
    let mut setsid = Command::new("setsid");
    setsid.args([
        "--ctty",
        BINARY,
        "call",
        "-n",
        &address,
        "sh",
        "-c",
        "echo up; read -r line; exec sleep 1000",
    ]);
    let client = Program::start_with_stdin(&mut setsid, slave.into());
    drop(setsid);
    wait_until_up(&client);
    client.signal(Signal::SIGHUP);
    client.signal(Signal::SIGUSR1);
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    drop(master);
    assert_eq!(client.finish().0.code(), Some(129));
    daemon.usr1_until(|stats| stats.count("runs vanished") == 1);
}
