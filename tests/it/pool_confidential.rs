//! With `--confidential` no part of requests and replies is shown to people. Each story is run twice, the
//! twice, the first time without it, to show that there would be something to see.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, Instant};
use std::{fs, thread};

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::harness::{Daemon, Gate, Program, worker_command};

/// A part of each request of a story.
const SECRET: &str = "s3cret";
/// Less than any story lets a worker take.
const SLOW: Duration = Duration::from_millis(1);

#[track_caller]
fn pool(command: &str, flags: &[&str], confidential: bool) -> Daemon {
    let flags = [&["-n", "1", "-p", "0", "--queue-timeout", "60s", "-d", command], flags].concat();
    let daemon = Daemon::with(flags).env("RUST_LOG", "trace");
    let daemon = if confidential {
        daemon.args(&["--confidential"])
    } else {
        daemon
    };
    daemon.start()
}

/// Everything that the daemon has said, from its start to its end.
#[track_caller]
fn said(daemon: &Daemon) -> String {
    daemon.signal(Signal::SIGUSR1);
    daemon.signal(Signal::SIGTERM);
    let (_, stdout, stderr) = daemon.finish();
    stdout + &stderr
}

/// Tells a story without `--confidential` and with it.
#[track_caller]
fn told_twice(story: impl Fn(bool) -> Daemon) {
    let open = said(&story(false));
    assert!(open.contains(SECRET), "this story shows nothing:\n{open}");
    let closed = said(&story(true));
    assert!(!closed.contains(SECRET), "{closed}");
    assert!(closed.contains("(confidential)"), "{closed}");
}

/// Lets a worker take longer than [`SLOW`] over a request, and looks at it meanwhile.
fn be_slow(daemon: &Daemon) {
    let gate = Gate::new();
    let mut client = daemon.client();
    client.send(format!("wait {} {SECRET}\n", gate.path()));
    let arrival = gate.arrival();
    let since = Instant::now();
    daemon.usr2();
    while since.elapsed() < SLOW * 2 {
        thread::yield_now();
    }
    arrival.open();
    assert_eq!(client.read_to_end(), format!("{SECRET}\n").as_bytes());
}

#[test]
fn a_slow_request_is_not_shown() {
    told_twice(|confidential| {
        let daemon = pool(
            &worker_command(&[]),
            &["--slow-log", "1ms", "--cache-size", "1M"],
            confidential,
        );
        be_slow(&daemon);
        daemon.stderr_wait("more than --slow-log");
        daemon
    });
}

#[test]
fn the_record_of_a_lost_worker_shows_none_of_its_requests() {
    for fatal in ["die-after-partial s3cret", "twice s3cret", "kill-self"] {
        told_twice(|confidential| {
            let daemon = pool(&worker_command(&[]), &["--retries", "0"], confidential);
            daemon.ask(&format!("echo {SECRET}"));
            daemon.ask(fatal);
            daemon.stderr_wait(" ago, ");
            daemon
        });
    }
}

#[test]
fn a_hanging_worker_is_reported_without_its_request() {
    told_twice(|confidential| {
        let gate = Gate::new();
        let daemon = pool(&worker_command(&[]), &["--busy-timeout", "1s"], confidential);
        let mut client = daemon.client();
        client.send(format!("wait {} {SECRET}\n", gate.path()));
        let arrival = gate.arrival();
        assert_eq!(client.read_to_end(), b"ERR\n");
        arrival.wait_killed();
        daemon.stderr_wait(" ago, not answered");
        daemon
    });
}

#[test]
fn an_answer_under_a_wrong_channel_is_not_shown() {
    told_twice(|confidential| {
        let worker = worker_command(&["--concurrent"]);
        let daemon = pool(
            &worker,
            &["--concurrency", "4", "--retries", "0", "--record", "0"],
            confidential,
        );
        daemon.ask("echo proven");
        daemon.ask(&format!("under 7 {SECRET}"));
        daemon.usr1_until(|stats| stats.count("restarts channel") > 0);
        daemon
    });
}

#[test]
fn neither_question_nor_answer_of_a_probe_is_shown() {
    told_twice(|confidential| {
        let flags = ["--probe", "echo s3cret", "--probe-expect", "^never$", "--record", "0"];
        let daemon = pool(&worker_command(&[]), &flags, confidential);
        daemon.usr1_until(|stats| stats.count("restarts probe") > 0);
        daemon
    });
}

/// A refusal is logged with its client and the reason, never with its bytes.
#[test]
fn a_refused_request_is_never_shown() {
    for confidential in [false, true] {
        let daemon = pool(
            &worker_command(&[]),
            &["--max-request", "100", "--persistent"],
            confidential,
        );
        for request in [format!("{}\n", SECRET.repeat(50)), format!("{SECRET}\0x\n")] {
            let mut client = daemon.client();
            client.send(request);
            assert_eq!(client.read_line(), "ERR");
        }
        let said = said(&daemon);
        assert!(!said.contains(SECRET), "{said}");
    }
}

/// A process whose memory may not be read belongs to root as far as /proc is concerned, whichever user it runs as.
#[test]
fn no_core_dump_is_written_and_no_other_process_reads_the_memory() {
    // Where another user reaches it.
    let home = crate::harness::temp_dir();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("open the directory");
    let binary = home.path().join("iotcpd");
    let built = env!("CARGO_BIN_EXE_iotcpd");
    if fs::hard_link(built, &binary).is_err() {
        fs::copy(built, &binary).expect("copy the program");
    }
    // Where another user reaches it.
    let home = crate::harness::temp_dir();
    fs::set_permissions(home.path(), Permissions::from_mode(0o755)).expect("open the directory");
    let binary = home.path().join("iotcpd");
    let built = env!("CARGO_BIN_EXE_iotcpd");
    if fs::hard_link(built, &binary).is_err() {
        fs::copy(built, &binary).expect("copy the program");
    }
    // To root the owner shows nothing; another user looks at its own.
    let owner_of = |program: &Program| fs::metadata(format!("/proc/{}/environ", program.pid())).map(|it| it.uid());
    let user = if geteuid().is_root() { 54321 } else { geteuid().as_raw() };
    let start = |arguments: &[&str]| {
        let mut command = if geteuid().is_root() {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--reuid=54321", "--regid=54321", "--clear-groups"]);
            setpriv.arg(&binary);
            setpriv
        } else {
            Command::new(&binary)
        };
        Program::start(command.args(arguments).current_dir("/"))
    };
    for (flags, owner) in [(&[][..], user), (&["--confidential"], 0)] {
        let daemon = start(&[&["-n", "1", "-p", "0", "-d", "cat"], flags].concat());
        let line = daemon.stderr_wait(": listening on ");
        assert_eq!(owner_of(&daemon).ok(), Some(owner), "{flags:?}");
        let address = line.rsplit(' ').next().expect("an address").to_owned();
        let mut client = start(&[&["ask", "--squid"], flags, &[address.as_str()]].concat());
        std::io::Write::write_all(client.stdin.as_mut().expect("a pipe"), b"0 x\n").expect("write a line");
        client.stdout.wait_from(0, |line| line == "0 x").expect("an answer");
        assert_eq!(owner_of(&client).ok(), Some(owner), "{flags:?}");
        daemon.signal(Signal::SIGTERM);
    }
}

/// It holds from the reload on, for workers of before as well.
#[test]
fn a_reload_hides_what_was_recorded_before() {
    let home = crate::harness::temp_dir();
    let file = home.path().join("iotcpd.toml");
    let write = |more: &str| {
        let command = worker_command(&[]);
        let text =
            format!("[pool.p]\ndaemon = '''{command}'''\nlisten = '127.0.0.1:0'\nnum-daemons = 1\nretries = 0\n{more}");
        fs::write(&file, text).expect("write a configuration");
    };
    write("");
    let daemon = Daemon::with(["run", "--config", file.to_str().expect("UTF-8")]).start();
    daemon.ask(&format!("echo {SECRET}"));
    write("confidential = true\n");
    // Held at a gate, the worker of before goes on while the file is read.
    let gate = Gate::new();
    let mut client = daemon.client();
    client.send(format!("wait {} {SECRET}\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("read again");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(arrival.pid), Signal::SIGKILL).expect("kill the worker");
    daemon.stderr_wait(" ago, ");
    let said = said(&daemon);
    assert!(!said.contains(SECRET) && said.contains("(confidential)"), "{said}");
}
