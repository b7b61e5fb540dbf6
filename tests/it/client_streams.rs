//! The clients and the standard streams that they are given: closed, opened the wrong way round, full, or not waiting.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;

use crate::exec_client::door;
use crate::harness::{Address, Daemon, Gate, Program, temp_dir, worker_command};

const BINARY: &str = env!("CARGO_BIN_EXE_iotcpd");

#[track_caller]
fn path(daemon: &Daemon) -> String {
    match daemon.addr() {
        Address::Unix(path) => path,
        Address::Tcp(address) => address.to_string(),
    }
}

/// Runs `iotcpd` with these arguments under a shell that redirects its streams: status, standard output, standard
/// error.
#[track_caller]
fn redirected(redirection: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}"), BINARY]);
    let program = Program::start(shell.args(arguments));
    let (status, stdout, stderr) = program.finish();
    (status.code(), stdout, stderr)
}

// ---- input that cannot be read ---------------------------------------------------------------------------------

#[test]
fn an_input_that_cannot_be_read_is_an_empty_one_for_the_program() {
    let (daemon, home) = door(&[]);
    let address = path(&daemon);
    let file = home.path().join("write-only");
    let write_only = format!("0>{}", file.display());
    for redirection in [&write_only, "</", "<&-"] {
        // The program goes on after the end of its input: it is not killed for it.
        let called = redirected(
            redirection,
            &["call", &address, "sh", "-c", "cat; sleep 0.1; echo whole; exit 3"],
        );
        assert_eq!(
            (called.0, called.1.as_str()),
            (Some(3), "whole"),
            "{redirection}: {}",
            called.2
        );
        assert!(
            called.2.contains("WARN cannot read standard input: "),
            "{redirection}: {}",
            called.2
        );
        let called = redirected(redirection, &["call", "-n", &address, "echo", "whole"]);
        assert_eq!(called, (Some(0), "whole".into(), String::new()), "{redirection}");
    }
    assert_eq!(daemon.usr1().count("runs vanished"), 0);
}

#[test]
fn a_program_is_called_under_nohup() {
    let (daemon, _home) = door(&[]);
    let address = path(&daemon);
    let terminal = nix::pty::openpty(None, None).expect("make a terminal");
    let mut nohup = Command::new("nohup");
    nohup.args([BINARY, "call", &address, "sh", "-c", "cat; echo whole"]);
    let program = Program::start_with_stdin(&mut nohup, terminal.slave.into());
    let (status, stdout, stderr) = program.finish();
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "whole"), "{stderr}");
}

#[test]
fn lines_that_cannot_be_read_are_an_error_to_people_and_scripts() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    let address = daemon.addr().to_string();
    for redirection in ["</", "<&-"] {
        let (status, _, stderr) = redirected(redirection, &["ask", &address]);
        assert_eq!(status, Some(1), "{redirection}: {stderr}");
        assert!(stderr.contains("cannot read standard input"), "{redirection}: {stderr}");
    }
}

// ---- outputs that cannot be written ----------------------------------------------------------------------------

#[test]
fn output_that_is_lost_is_a_failure() {
    let (daemon, home) = door(&[]);
    let address = path(&daemon);
    let file = home.path().join("read-only");
    fs::write(&file, "").expect("make a file");
    let (out, err) = (format!("1<{}", file.display()), format!("2<{}", file.display()));
    for (redirection, script, which) in [
        (">&-", "echo out", "standard output"),
        (">/dev/full", "echo out", "standard output"),
        (out.as_str(), "echo out", "standard output"),
        ("2>&-", "echo err >&2", ""),
        ("2>/dev/full", "echo err >&2", ""),
        (err.as_str(), "echo err >&2", ""),
    ] {
        let (status, stdout, stderr) = redirected(redirection, &["call", &address, "sh", "-c", script]);
        assert_eq!((status, stdout.as_str()), (Some(125), ""), "{redirection}: {stderr}");
        assert!(stderr.contains(which), "{redirection}: {stderr}");
    }
    for redirection in [">&-", "2>&-", ">&- 2>&-"] {
        let called = redirected(redirection, &["call", &address, "sh", "-c", "exit 7"]);
        assert_eq!(
            called.0,
            Some(7),
            "nothing is lost where nothing is said: {redirection}"
        );
    }
    assert_eq!(redirected("2>/dev/null", &["call", &address, "echo", "out"]).1, "out");
    // Opened in both directions, as by std for a closed one, and by Python for DEVNULL.
    let called = redirected("1<>/dev/null", &["call", &address, "echo", "out"]);
    assert_eq!(called, (Some(0), String::new(), String::new()));
}

#[test]
fn answers_that_are_lost_are_a_failure() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    let address = daemon.addr().to_string();
    let home = temp_dir();
    let lines = home.path().join("lines");
    fs::write(&lines, "0 echo x\n").expect("write lines");
    for redirection in [">&-", ">/dev/full", "1</dev/null"] {
        for flags in [&["ask"][..], &["ask", "--squid"]] {
            let redirection = format!("<{} {redirection}", lines.display());
            let (status, _, stderr) = redirected(&redirection, &[flags, &[address.as_str()]].concat());
            assert_eq!(status, Some(1), "{redirection}: {stderr}");
            assert!(
                stderr.contains("cannot write to standard output"),
                "{redirection}: {stderr}"
            );
        }
    }
}

#[test]
fn the_refusals_of_a_door_differ_from_the_exit_statuses_of_programs() {
    let (daemon, _home) = door(&["--allow-program", "/bin/echo", "--max-arguments", "1KiB"]);
    let address = path(&daemon);
    let long = "x".repeat(2000);
    for (arguments, expected) in [(&["echo", &long][..], 125), (&["cat"], 126)] {
        let (status, _, stderr) = redirected("</dev/null", &[&["call", &address], arguments].concat());
        assert_eq!(status, Some(expected), "{stderr}");
    }
    let (daemon, _home) = door(&["--allow-user", "54321"]);
    let (status, _, stderr) = redirected("</dev/null", &["call", &path(&daemon), "echo"]);
    assert_eq!(status, Some(125), "{stderr}");
}

// ---- streams that do not wait ----------------------------------------------------------------------------------

fn without_blocking(stream: impl Into<OwnedFd>) -> OwnedFd {
    let stream = stream.into();
    fcntl(&stream, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("set O_NONBLOCK");
    stream
}

/// `ask` on a pair of sockets, as Squid starts its helpers, neither of whose ends blocks. Returns our end.
#[track_caller]
fn helper(arguments: &[&str]) -> (Program, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let theirs = without_blocking(theirs);
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" >&0", BINARY, "ask"])
        .args(arguments);
    let program = Program::start_with_stdin(&mut command, Stdio::from(theirs));
    // Only the child's copies are left: its end is seen.
    drop(command);
    (program, ours)
}

#[test]
fn lines_and_answers_wait_for_streams_that_do_not_block() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["-b", "600s", "--queue-timeout", "600s"]);
    for flags in [&[][..], &["--squid"]] {
        let address = daemon.addr().to_string();
        let (program, mut squid) = helper(&[flags, &["--timeout", "600s", &address]].concat());
        // More than the socket holds, so that writing has to be waited for, as reading was before.
        let lines = "big 30000\n".repeat(30);
        let mut writer = squid.try_clone().expect("clone a socket");
        writer.write_all(lines.as_bytes()).expect("write lines");
        writer.shutdown(Shutdown::Write).expect("end the input");
        let asked = if flags.is_empty() { 30 } else { 60 };
        daemon.usr1_until(|stats| stats.count("queries replied") == asked);
        let mut answers = String::new();
        squid.read_to_string(&mut answers).expect("read answers");
        assert_eq!((answers.lines().count(), answers.len()), (30, 30 * 30_001));
        let (status, _, stderr) = program.finish();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn a_squid_that_hangs_up_is_the_end_and_no_error() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["-b", "600s", "--queue-timeout", "600s"]);
    let address = daemon.addr().to_string();
    // With an answer that Squid has not read, which makes it a reset.
    let (program, mut squid) = helper(&["--squid", "--timeout", "600s", &address]);
    squid.write_all(b"0 echo unread\n").expect("write a line");
    let mut byte = [0; 2];
    squid.read_exact(&mut byte).expect("the answer has come");
    drop(squid);
    let (status, _, stderr) = program.finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    // The same with a line that comes when Squid has gone.
    let (program, mut squid) = helper(&["--squid", "--timeout", "600s", &address]);
    squid
        .write_all(format!("0 wait {} late\n", gate.path()).as_bytes())
        .expect("write a line");
    let arrival = gate.arrival();
    drop(squid);
    arrival.open();
    let (status, _, stderr) = program.finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}

// ---- signals ---------------------------------------------------------------------------------------------------

#[test]
fn ask_prints_statistics_at_usr1_and_ignores_the_signals_of_daemons() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &[]);
    let address = daemon.addr().to_string();
    let mut program = Program::start(Command::new(BINARY).args(["ask", &address]));
    let mut seen = 0;
    let mut ask = |program: &mut Program| {
        let stdin = program.stdin.as_mut().expect("its standard input is open");
        stdin.write_all(b"echo x\n").expect("write a line");
        program.stdout.wait_from(seen, |line| line == "x").expect("an answer");
        seen += 1;
    };
    ask(&mut program);
    program.signal(Signal::SIGHUP);
    program.signal(Signal::SIGUSR2);
    ask(&mut program);
    program.signal(Signal::SIGUSR1);
    program.stderr_wait("statistics ---- 8<");
    let said = program.stderr.text();
    for line in ["lines total        2", "lines answered     2", "lines failed       0"] {
        assert!(said.contains(line), "{said}");
    }
    ask(&mut program);
    drop(program.stdin.take());
    assert_eq!(program.finish().0.code(), Some(0));
}
