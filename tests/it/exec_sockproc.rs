//! The exec door in sockproc's protocol, a test for every sentence of it.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::signal::Signal;

use crate::exec_client::door;
use crate::exec_foreign_clients::{finish, path_of};
use crate::harness::{Daemon, TempDir, WATCHDOG};

const PYTHON: &str = include_str!("peers/sockproc.py");

#[track_caller]
fn sockproc(flags: &[&str]) -> (Daemon, TempDir) {
    door(&[&["--protocol", "sockproc"], flags].concat())
}

#[track_caller]
fn connect(daemon: &Daemon) -> UnixStream {
    let socket = UnixStream::connect(path_of(daemon)).unwrap();
    socket.set_read_timeout(Some(WATCHDOG)).unwrap();
    socket
}

#[track_caller]
fn rest_of(mut socket: UnixStream) -> String {
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    String::from_utf8(all).unwrap()
}

/// Sends this, and reads to the end.
#[track_caller]
fn ask(daemon: &Daemon, wire: &str) -> String {
    let mut socket = connect(daemon);
    socket.write_all(wire.as_bytes()).unwrap();
    rest_of(socket)
}

/// The outcome of a command line without input.
#[track_caller]
fn sh(daemon: &Daemon, command: &str) -> String {
    ask(daemon, &format!("{command}\r\n0\r\n"))
}

fn answer(status: u32, stdout: &str, stderr: &str) -> String {
    format!(
        "status:{status}\r\n{}\r\n{stdout}{}\r\n{stderr}",
        stdout.len(),
        stderr.len()
    )
}

#[test]
fn a_command_line_is_run_by_a_shell_and_both_outputs_come_back_counted() {
    let (daemon, _home) = sockproc(&["--log-args", "yes"]);
    assert_eq!(sh(&daemon, "echo out; echo err >&2"), answer(0, "out\n", "err\n"));
    assert_eq!(
        sh(&daemon, "echo $((6 * 7)) | tr 4 x; echo \"a  b\""),
        answer(0, "x2\na  b\n", "")
    );
    assert_eq!(sh(&daemon, "for i in 1 2\ndo echo $i; done"), answer(0, "1\n2\n", ""));
    let line = daemon.stderr_wait("ran \"/bin/sh\" \"-c\"");
    assert!(line.contains("exit status 0"), "{line}");
}

#[test]
fn the_status_is_the_one_of_waitpid() {
    let (daemon, _home) = sockproc(&[]);
    assert_eq!(sh(&daemon, "exit 7"), answer(7 << 8, "", ""));
    assert_eq!(sh(&daemon, "kill -KILL $$"), answer(9, "", ""));
    let missing = sh(&daemon, "exec no-such-program-at-all");
    assert!(missing.starts_with("status:32512\r\n0\r\n"), "{missing}");
}

#[test]
fn the_input_has_the_announced_length_and_bytes_behind_it_are_ignored() {
    let (daemon, _home) = sockproc(&[]);
    assert_eq!(ask(&daemon, "cat\r\n5\r\nhello"), answer(0, "hello", ""));
    assert_eq!(
        ask(&daemon, "cat\r\n7\r\na\r\nb\r\nc and more"),
        answer(0, "a\r\nb\r\nc", "")
    );
    let mut socket = connect(&daemon);
    for byte in b"cat\r\n3\r\nabc" {
        socket.write_all(&[*byte]).unwrap();
    }
    assert_eq!(rest_of(socket), answer(0, "abc", ""));
}

#[test]
fn a_client_that_ends_its_side_early_ends_the_input_early() {
    let (daemon, _home) = sockproc(&[]);
    let mut socket = connect(&daemon);
    socket.write_all(b"cat\r\n500\r\nhello").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest_of(socket), answer(0, "hello", ""));
}

/// As with the original, whose clients leave out the count where there is no input.
#[test]
fn a_missing_count_is_zero() {
    let (daemon, _home) = sockproc(&[]);
    assert_eq!(ask(&daemon, "wc -c; echo up\r\n\r\n"), answer(0, "0\nup\n", ""));
    for wire in ["wc -c\r\n", "wc -c\r\n0", "wc -c\r\n12\r"] {
        let mut socket = connect(&daemon);
        socket.write_all(wire.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest_of(socket), answer(0, "0\n", ""), "{wire:?}");
    }
    // A command line that is cut off is another one.
    let mut socket = connect(&daemon);
    socket.write_all(b"echo no").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    let refused = rest_of(socket);
    assert!(
        refused.starts_with("status:25600\r\n0\r\n") && refused.contains("ends in the middle"),
        "{refused}"
    );
    assert_eq!(daemon.usr1().count("runs total"), 4);
}

/// It is what sockproc takes, and made a UNIX socket of that name here.
#[test]
fn a_port_alone_is_no_address() {
    for arguments in [
        &["exec", "--protocol", "sockproc", "13000"][..],
        &["exec", "13000"],
        &["call", "13000", "true"],
    ] {
        let (status, _, said) = Daemon::with(arguments.iter().copied()).spawn().finish();
        assert_eq!(status.code(), Some(2), "{said}");
        assert!(said.contains("write 127.0.0.1:13000"), "{said}");
    }
}

#[test]
fn input_is_streamed_and_may_be_longer_than_what_is_held() {
    let (daemon, _home) = sockproc(&["--max-output", "4KiB", "--max-buffer", "4KiB"]);
    let input = "x".repeat(1_000_000);
    assert_eq!(
        ask(&daemon, &format!("wc -c\r\n1000000\r\n{input}")),
        answer(0, "1000000\n", "")
    );
}

#[test]
fn output_over_the_limit_ends_the_program_and_is_said_to_be_cut() {
    let (daemon, _home) = sockproc(&["--max-output", "64KiB"]);
    let exactly = sh(
        &daemon,
        "head -c 60000 /dev/zero | tr '\\0' x; head -c 5536 /dev/zero | tr '\\0' y >&2",
    );
    // No assert_eq: its message would be too long to read.
    assert!(exactly == answer(0, &"x".repeat(60_000), &"y".repeat(5536)));
    let cut = sh(&daemon, "exec yes");
    let complaint = "iotcpd: the output is longer than --max-output, and was cut\n";
    assert!(cut == answer(15, &"y\n".repeat(32768), complaint), "{}", &cut[..20]);
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs overflown"), stats.count("exit signal")), (1, 1));
    daemon.stderr_wait("is ended: its output is longer than --max-output");
}

#[test]
fn a_program_that_goes_on_writing_though_it_is_to_end_is_killed() {
    let (daemon, _home) = sockproc(&["--max-output", "4KiB", "-k", "100ms"]);
    let cut = sh(&daemon, "trap '' TERM; while :; do echo yes || exit; done");
    assert!(cut.starts_with("status:9\r\n4096\r\n"), "{}", &cut[..40]);
    assert_eq!(daemon.usr1().count("runs killed"), 1);
}

#[test]
fn refusals_are_status_100_with_their_reason() {
    let (daemon, _home) = sockproc(&["--max-arguments", "1KiB", "--read-timeout", "200ms"]);
    for (wire, why) in [
        (format!("{}\r\n0\r\n", "x".repeat(989)), "--max-arguments"),
        ("true\r\nmany\r\n".to_owned(), "the number of bytes of input"),
        ("true\r\n99999999999999\r\n".to_owned(), "longer than 1 TiB"),
        ("tr\0ue\r\n0\r\n".to_owned(), "NUL"),
        ("true\r\n".to_owned(), "--read-timeout"),
    ] {
        let refused = ask(&daemon, &wire);
        assert!(
            refused.starts_with("status:25600\r\n0\r\n") && refused.contains(why),
            "{wire:?}: {refused}"
        );
    }
    let longest = format!("#{}", "x".repeat(987));
    assert_eq!(sh(&daemon, &longest), answer(0, "", ""));
    assert_eq!(daemon.usr1().count("runs refused"), 5);
}

#[test]
fn a_connection_over_the_limit_is_refused_in_the_same_words() {
    let (daemon, _home) = sockproc(&["-m", "1"]);
    let mut socket = connect(&daemon);
    socket.write_all(b"cat\r\n4\r\n").unwrap();
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    let refused = rest_of(connect(&daemon));
    assert!(
        refused.starts_with("status:25600\r\n0\r\n") && refused.contains("--max-connections"),
        "{refused}"
    );
    socket.write_all(b"done").unwrap();
    assert_eq!(rest_of(socket), answer(0, "done", ""));
}

#[test]
fn a_client_that_leaves_takes_its_program_along() {
    let (daemon, _home) = sockproc(&[]);
    let mut socket = connect(&daemon);
    socket.write_all(b"sleep 1000\r\n0\r\n").unwrap();
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    drop(socket);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("runs vanished"), 1);
    assert_eq!(daemon.children(), Vec::<i32>::new());
}

#[test]
fn a_python_client_and_nc_are_served() {
    let (daemon, _home) = sockproc(&[]);
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON, &path_of(&daemon), "cat; echo oops >&2; exit 1"]);
    let (status, said, complaint) = finish(&mut python, b"given");
    assert_eq!((status, complaint.as_str()), (Some(0), ""));
    assert_eq!(said, "b'status:256\\r\\n'\nb'given'\nb'oops\\n'\nb''");
    let mut nc = Command::new("nc");
    nc.args(["-N", "-U", &path_of(&daemon)]);
    let (_, said, _) = finish(&mut nc, b"echo hello\r\n0\r\n");
    assert_eq!(said, answer(0, "hello\n", "").trim_end_matches('\n'));
}

#[test]
fn a_list_of_programs_has_no_meaning_where_a_shell_runs_them() {
    let daemon = Daemon::with([
        "exec",
        "--protocol",
        "sockproc",
        "--allow-program",
        "/bin/ls",
        "unix:@never",
    ])
    .spawn();
    let (status, _, said) = daemon.finish();
    assert_eq!(status.code(), Some(2));
    assert!(said.contains("the one program is /bin/sh"), "{said}");
    let daemon = Daemon::with(["exec", "--protocol", "sockproc", "0.0.0.0:0"]).spawn();
    assert_eq!(daemon.finish().0.code(), Some(2), "and so it is for this machine alone");
}

#[test]
fn a_connection_keeps_the_protocol_that_it_began_with() {
    let home = crate::harness::temp_dir();
    let (file, socket) = (home.path().join("f.toml"), home.path().join("s"));
    let text = |protocol: &str| {
        format!(
            "[exec.jobs]\nlisten = 'unix:{}'\nprotocol = '{protocol}'\n",
            socket.display()
        )
    };
    std::fs::write(&file, text("sockproc")).unwrap();
    let daemon = Daemon::with(["run", "--config", file.to_str().unwrap()]).start();
    let mut early = connect(&daemon);
    early.write_all(b"cat\r\n4\r\n").unwrap();
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    std::fs::write(&file, text("sockexec")).unwrap();
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(crate::exec_client::sh(&daemon, "echo new").text(), "new\n");
    early.write_all(b"done").unwrap();
    assert_eq!(rest_of(early), answer(0, "done", ""));
}
