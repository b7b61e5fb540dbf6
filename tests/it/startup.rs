//! The beginning of the program: its message without arguments, and its refusals of what cannot work.
//!
//! Every refusal names the attempt, its object, and the remedy; its exit status says which side has to act.

use std::fs;
use std::net::TcpListener;

use crate::harness::{Daemon, Program, temp_dir, worker_command, worker_path};

/// Runs it to its end.
#[track_caller]
fn outcome(arguments: &[&str]) -> (Option<i32>, String, String) {
    let (status, stdout, stderr) = Daemon::with(arguments.iter().copied()).spawn().finish();
    (status.code(), stdout, stderr)
}

#[test]
fn without_arguments_it_prints_the_help() {
    let (status, stdout, stderr) = outcome(&[]);
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("Usage: iotcpd [OPTIONS]"), "{stdout}");
    assert!(stdout.contains("--busy-timeout"), "{stdout}");
    for flag in ["-h", "--help"] {
        assert_eq!(outcome(&[flag]), (Some(0), stdout.clone(), String::new()), "{flag}");
    }
}

#[test]
fn it_says_its_version() {
    for flag in ["-v", "--version"] {
        let version = format!("iotcpd {}", env!("CARGO_PKG_VERSION"));
        assert_eq!(outcome(&[flag]), (Some(0), version, String::new()), "{flag}");
    }
}

#[test]
fn a_command_line_that_makes_no_sense_is_status_2() {
    for (arguments, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["-n", "many"], "many"),
        (&["-n", "0"], "--num-daemons"),
        (&["--busy-timeout", "soon"], "soon"),
        (&["-d", "unended 'quote"], "--daemon"),
        (&["--listen", "nowhere"], "--listen"),
        (&["--allow", "10.0.0.0/99"], "--allow"),
        (&["run"], "--config"),
        (&["ask"], "ADDRESS"),
        (&["serve"], "serve"),
    ] {
        let (status, stdout, stderr) = outcome(arguments);
        assert_eq!((status, stdout.as_str()), (Some(2), ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(named), "{arguments:?}: {stderr}");
    }
}

#[test]
fn an_address_in_use_is_named_with_what_to_do() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    let command = worker_command(&[]);
    let (status, _, stderr) = outcome(&["-n", "1", "-d", &command, "-p", &port]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains(&format!("127.0.0.1:{port}")), "{stderr}");
    assert!(stderr.contains("in use") && stderr.contains("ss -ltnp"), "{stderr}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    for program in ["no-such-program-here", "/no/such/program"] {
        let (status, _, stderr) = outcome(&["-n", "2", "-d", &format!("{program} -x"), "-p", "0"]);
        assert_eq!(status, Some(1), "{stderr}");
        assert!(stderr.contains(program) && stderr.contains("install it"), "{stderr}");
    }
}

/// The kernel runs no file that is open for writing (ETXTBSY).
#[test]
fn a_program_that_is_being_written_is_started_once_it_is_whole() {
    let home = temp_dir();
    let program = home.path().join("worker");
    fs::copy(worker_path(), &program).unwrap();
    let writer = fs::OpenOptions::new().append(true).open(&program).unwrap();
    let command = program.to_str().unwrap();
    let flags = [
        "-n",
        "1",
        "-a",
        "100ms",
        "--queue-timeout",
        "600s",
        "-p",
        "0",
        "-d",
        command,
    ];
    let daemon = Daemon::with(flags).start();
    daemon.stderr_wait("worker 0 could not be started: ");
    drop(writer);
    assert_eq!(daemon.ask("echo whole"), "whole\n");
}

#[test]
fn a_program_that_may_not_be_run_is_named() {
    let (status, _, stderr) = outcome(&["-d", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "-p", "0"]);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr.contains("Cargo.toml") && stderr.contains("executable"),
        "{stderr}"
    );
}

#[test]
fn a_limit_on_open_files_that_is_too_low_for_what_was_asked_is_refused() {
    let command = worker_command(&[]);
    let daemon = Daemon::with([
        "-n",
        "2",
        "-d",
        command.as_str(),
        "-p",
        "0",
        "--max-connections",
        "5000",
    ])
    .open_files(256)
    .spawn();
    let (status, _, stderr) = daemon.finish();
    assert_eq!(status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("open files, 256,") && stderr.contains("ulimit -Hn"),
        "{stderr}"
    );
    assert!(stderr.contains("max-connections"), "{stderr}");
}

#[test]
fn a_limit_on_open_files_below_the_default_is_a_warning() {
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "2", "--queue-timeout", "600s", "-d", command.as_str(), "-p", "0"])
        .open_files(256)
        .start();
    let warning = daemon.stderr_wait("open files, 256,");
    assert!(warning.contains("]: WARN pool: "), "{warning}");
    let room = warning
        .split_once("leaves room for ")
        .and_then(|(_, rest)| rest.split(' ').next());
    let room: usize = room
        .and_then(|room| room.parse().ok())
        .unwrap_or_else(|| panic!("{warning}"));
    assert!(room > 100 && room < 256, "{warning}");
    // Exactly the reported number is served, and one more is refused.
    let mut idle: Vec<_> = (0..room).map(|_| daemon.client()).collect();
    assert_eq!(daemon.client().read_to_end_or_reset(), b"ERR\n");
    daemon.usr1_until(|stats| stats.count("refused max-conn") == 1);
    let last = idle.last_mut().expect("there is room for some");
    last.send("echo still\n");
    assert_eq!(last.read_to_end(), b"still\n");
}

#[test]
fn a_limit_on_open_files_that_is_only_soft_is_raised() {
    let command = worker_command(&[]);
    let script = "ulimit -S -n 64; exec \"$0\" \"$@\"";
    let arguments = ["-n", "1", "-d", command.as_str(), "-p", "0", "--max-connections", "200"];
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_iotcpd")]).args(arguments);
    let daemon = Program::start(&mut shell);
    daemon.stderr_wait("listening on");
    daemon.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(daemon.finish().0.code(), Some(0));
}
