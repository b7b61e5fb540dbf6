//! The guard: it cannot be taken for the daemon, it is always there, and it leaves nothing of a daemon that was killed.

use std::fs;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Arrival, Daemon, Gate, Program, children_of, name_of, worker_command};

/// A worker that has children before it does anything else.
const BUSY_AT_ONCE: &str = "sh -c 'sleep 1000 & sleep 1000 & cat'";

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .replace('\0', " ")
}

/// A daemon killed in the middle of its starts leaves nothing; the drop of each daemon asserts it.
#[test]
fn kill_9_in_the_middle_of_starts_leaves_no_process() {
    for round in (0..25).step_by(2) {
        let daemon = Daemon::pool(64, BUSY_AT_ONCE, &[]);
        while children_of(daemon.pid()).len() < 2 + round {
            std::thread::yield_now();
        }
        daemon.signal(Signal::SIGKILL);
    }
}

/// A door whose programs are started one by one, because clients ask for them.
#[test]
fn kill_9_while_clients_have_programs_started_leaves_no_process() {
    for round in 0..10 {
        let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
        let script = "sleep 1000 & sleep 1000 & cat";
        let request = format!("1:3,2:sh,2:-c,{}:{script},", script.len());
        let _clients: Vec<_> = (0..40)
            .map(|_| {
                let mut client = daemon.client();
                client.send(&request);
                client
            })
            .collect();
        while children_of(daemon.pid()).len() < 2 + round * 3 {
            std::thread::yield_now();
        }
        daemon.signal(Signal::SIGKILL);
    }
}

#[test]
fn there_is_one_for_all_doors() {
    let home = crate::harness::temp_dir();
    let file = home.path().join("iotcpd.toml");
    let doors = (1..=3).map(|number| format!("[pool.p{number}]\nlisten = [\"127.0.0.1:0\"]\ndaemon = \"cat\"\n"));
    fs::write(&file, doors.collect::<String>()).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    daemon.nth_addr(3);
    // Asserts that there is one.
    daemon.guard();
}

/// The name by which administrators look for a daemon.
#[test]
fn it_cannot_be_taken_for_the_daemon() {
    let daemon = Daemon::pool(1, "cat", &[]);
    let guard = daemon.guard();
    assert_eq!(name_of(guard).as_deref(), Some("io-guard"));
    assert_eq!(command_line(guard), format!("guard of {}", daemon.pid()));
    let binary = env!("CARGO_BIN_EXE_iotcpd");
    for (looker, arguments) in [
        ("pidof", ["iotcpd"].as_slice()),
        ("pidof", &[binary]),
        ("pidof", &["-x", "iotcpd"]),
        ("pgrep", &["iotcpd"]),
        ("pgrep", &["-x", "iotcpd"]),
        ("pgrep", &["-f", "iotcpd"]),
    ] {
        let output = Command::new(looker).args(arguments).output();
        let output = output.unwrap_or_else(|error| panic!("{looker}: {error}; run scripts/install-peers"));
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        let found: Vec<i32> = found.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        assert!(
            found.contains(&daemon.pid()),
            "{looker} {arguments:?} finds the daemon: {found:?}"
        );
        assert!(!found.contains(&guard), "{looker} {arguments:?} finds the guard");
    }
}

/// `killall` and `pkill` by name end the daemon, and the guard does its work. In a process namespace of its own, where
/// no other daemon can be hit.
#[test]
fn a_kill_of_all_daemons_by_name_leaves_the_guard_at_work() {
    for killer in [
        "killall -9 iotcpd",
        "killall -9 $BINARY",
        "kill -9 $(pidof iotcpd)",
        "pkill -9 iotcpd",
        "kill -9 $(pidof $BINARY)",
    ] {
        let script = format!(
            "$BINARY -n 2 -d \"sh -c 'sleep 1000 & cat'\" -p 0 2>log &
             until grep -q 'listening on' log && [ $(pgrep -xc sleep) = 2 ]; do sleep 0.01; done
             {killer} || exit 1
             for i in $(seq 1000); do
                 [ $(pgrep -c '^(sleep|cat|io-guard|iotcpd)$') = 0 ] && exit 0
                 sleep 0.01
             done
             ps -ef; cat log; exit 1"
        );
        let home = crate::harness::temp_dir();
        let output = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--pid",
                "--fork",
                "--mount-proc",
                "sh",
                "-c",
                &script,
            ])
            .env("BINARY", env!("CARGO_BIN_EXE_iotcpd"))
            .current_dir(home.path())
            .output()
            .expect("unshare, of util-linux");
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{killer}: {said:?}");
    }
}

/// A guard with a daemon whose worker has started a program that stands at a gate.
fn household() -> (Daemon, Gate, Arrival) {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    daemon.ask(&format!("spawn-grandchild {}", gate.path()));
    let arrival = gate.arrival();
    (daemon, gate, arrival)
}

#[test]
fn a_killed_guard_is_replaced_where_there_are_no_descriptors() {
    let (daemon, _gate, grandchild) = household();
    // It has more than that, so that no number is free; a guard needs fewer.
    let prlimit = Command::new("prlimit")
        .args([format!("--pid={}", daemon.pid()), "--nofile=8".to_owned()])
        .output()
        .expect("prlimit, of util-linux");
    assert!(prlimit.status.success(), "{prlimit:?}");
    for round in 1..=3 {
        kill(Pid::from_raw(daemon.guard()), Signal::SIGKILL).unwrap();
        daemon.stderr_wait_nth("the guard process had died; there is another", round);
    }
    daemon.signal(Signal::SIGKILL);
    grandchild.wait_killed();
}

/// A user's limit on processes keeps one away, which does not hold for root.
#[test]
fn a_guard_that_could_not_be_replaced_is_tried_again() {
    let unprivileged = || {
        let mut command = Command::new("setpriv");
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command
    };
    let mut command = unprivileged();
    command.args([env!("CARGO_BIN_EXE_iotcpd"), "-n", "1", "-d", "cat", "-p", "0"]);
    let daemon = Program::start(&mut command);
    daemon.stderr_wait("listening on");
    let guard = children_of(daemon.pid())
        .into_iter()
        .find(|pid| name_of(*pid).as_deref() == Some("io-guard"));
    let limit = |limit: &str| {
        let arguments = [
            "prlimit".to_owned(),
            format!("--pid={}", daemon.pid()),
            format!("--nproc={limit}"),
        ];
        let output = unprivileged().args(arguments).output();
        let output = output.expect("setpriv and prlimit, of util-linux");
        assert!(output.status.success(), "{output:?}");
    };
    limit("1:");
    kill(Pid::from_raw(guard.unwrap()), Signal::SIGKILL).unwrap();
    daemon.stderr_wait("the guard process has died and cannot be started again");
    limit("4096:");
    daemon.stderr_wait("the guard process had died; there is another");
    daemon.signal(Signal::SIGTERM);
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_stopped_guard_is_continued() {
    let (daemon, _gate, grandchild) = household();
    kill(Pid::from_raw(daemon.guard()), Signal::SIGSTOP).unwrap();
    daemon.stderr_wait("the guard process had been stopped; it goes on");
    daemon.signal(Signal::SIGKILL);
    grandchild.wait_killed();
}

#[test]
fn signals_to_all_processes_except_kill_do_not_end_it() {
    let (daemon, _gate, grandchild) = household();
    let guard = Pid::from_raw(daemon.guard());
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGALRM,
        Signal::SIGSEGV,
    ] {
        kill(guard, signal).unwrap();
    }
    daemon.usr1();
    assert_eq!(daemon.guard(), guard.as_raw());
    daemon.signal(Signal::SIGKILL);
    grandchild.wait_killed();
}

/// Its session and its group are its own.
#[test]
fn it_is_out_of_reach_of_the_terminal() {
    let daemon = Daemon::pool(1, "cat", &[]);
    let guard = daemon.guard();
    let stat = fs::read_to_string(format!("/proc/{guard}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    let guard = guard.to_string();
    assert_eq!(
        (fields[2], fields[3], fields[4]),
        (guard.as_str(), guard.as_str(), "0"),
        "{stat}"
    );
}
