//! The clients and the standard streams that they are given: closed, opened the wrong way round, full, or not waiting.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::exec_client::door;
use crate::harness::{Address, Daemon, Gate, Program, temp_dir, worker_command};

const BINARY: &str = env!("CARGO_BIN_EXE_iotcpd");

#[track_caller]
fn path(daemon: &Daemon) -> String {
    match daemon.addr() {
        Address::Unix(path) => path,
        other => other.to_string(),
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

/// `ask` on one socket as standard input and output, as Squid starts its helpers.
#[track_caller]
fn ask_on_socket(socket: impl Into<OwnedFd>, arguments: &[&str]) -> Program {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", "exec \"$0\" \"$@\" >&0", BINARY, "ask"])
        .args(arguments);
    // The command is dropped here, so that only the child's copies are left, and its end is seen.
    Program::start_with_stdin(&mut command, Stdio::from(socket.into()))
}

/// `ask` on a pair of sockets neither of whose ends blocks. Returns our end.
#[track_caller]
fn helper(arguments: &[&str]) -> (Program, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    (ask_on_socket(without_blocking(theirs), arguments), ours)
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

// ---- streams that can be polled, and others ---------------------------------------------------------------------

/// Flags of a run in which nothing is to end by a time-out.
const PATIENT: [&str; 3] = ["ask", "--timeout", "600s"];

#[track_caller]
fn patient_pool() -> (Daemon, String) {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["-b", "600s", "--queue-timeout", "600s"]);
    let address = daemon.addr().to_string();
    (daemon, address)
}

/// The number of threads. A new one bears its name only once it runs, so names would be too early here.
fn threads_of(program: &Program) -> usize {
    let tasks = fs::read_dir(format!("/proc/{}/task", program.pid()));
    tasks.expect("list threads").count()
}

/// Returns true if the open file behind this descriptor of the program has O_NONBLOCK.
fn is_without_blocking(program: &Program, descriptor: u8) -> bool {
    let path = format!("/proc/{}/fdinfo/{descriptor}", program.pid());
    let info = fs::read_to_string(path).expect("look at a descriptor");
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("an octal number");
    OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK)
}

#[test]
fn sockets_and_pipes_are_polled_without_threads_and_without_a_change_for_others() {
    let (_daemon, address) = patient_pool();
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let on_socket = ask_on_socket(theirs, &["--squid", "--timeout", "600s", &address]);
    ours.write_all(b"0 echo x\n").expect("write a line");
    let mut answer = [0; 4];
    ours.read_exact(&mut answer).expect("read an answer");
    assert_eq!(&answer, b"0 x\n");
    for confidential in [&[][..], &["--confidential"]] {
        let arguments = [&PATIENT[..], confidential, &[&address]].concat();
        let mut on_pipes = Program::start(Command::new(BINARY).args(arguments));
        let stdin = on_pipes.stdin.as_mut().expect("its standard input is open");
        stdin.write_all(b"echo x\n").expect("write a line");
        on_pipes.stdout.wait_from(0, |line| line == "x").expect("an answer");
        if confidential.is_empty() {
            assert_eq!(threads_of(&on_pipes), 2, "the loop and the log");
            assert!(!is_without_blocking(&on_pipes, 0) && !is_without_blocking(&on_pipes, 1));
        }
        drop(on_pipes.stdin.take());
        assert_eq!(on_pipes.finish().0.code(), Some(0));
    }
    assert_eq!(threads_of(&on_socket), 2, "the loop and the log");
    assert!(!is_without_blocking(&on_socket, 0), "one open file is both streams");
    drop(ours);
    assert_eq!(on_socket.finish().0.code(), Some(0));
}

#[test]
fn every_line_is_answered_from_a_file_to_a_file_and_from_a_pipe_to_a_pipe() {
    let (_daemon, address) = patient_pool();
    let home = temp_dir();
    let (lines, answers) = (home.path().join("lines"), home.path().join("answers"));
    // More than a pipe, a chunk or a turn holds.
    let rest = "x".repeat(400);
    let expected: Vec<String> = (0..600).map(|number| format!("{number} {rest}")).collect();
    let asked: String = expected.iter().map(|line| format!("echo {line}\n")).collect();
    fs::write(&lines, &asked).expect("write lines");
    let redirection = format!("<{} >{}", lines.display(), answers.display());
    let (status, _, stderr) = redirected(&redirection, &[&PATIENT[..], &[&address]].concat());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let written = fs::read_to_string(&answers).expect("read answers");
    assert!(written.lines().eq(&expected), "{} bytes", written.len());
    let mut program = Program::start(Command::new(BINARY).args(PATIENT).arg(&address));
    let mut stdin = program.stdin.take().expect("its standard input is open");
    stdin.write_all(asked.as_bytes()).expect("write lines");
    drop(stdin);
    let (status, stdout, stderr) = program.finish();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(stdout.lines().eq(&expected), "{} bytes", stdout.len());
}

#[test]
fn lines_come_in_pieces_of_a_byte_and_the_last_one_without_its_end() {
    let (_daemon, address) = patient_pool();
    let pieces = |to: &mut dyn Write| {
        for byte in b"echo a\n\necho b" {
            to.write_all(&[*byte]).expect("write a byte");
        }
    };
    let expected = "a\nunknown \nb";
    let mut program = Program::start(Command::new(BINARY).args(PATIENT).arg(&address));
    pieces(&mut program.stdin.take().expect("its standard input is open"));
    let (status, stdout, stderr) = program.finish();
    assert_eq!((status.code(), stdout.as_str()), (Some(0), expected), "{stderr}");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let program = ask_on_socket(theirs, &["--timeout", "600s", &address]);
    pieces(&mut ours);
    ours.shutdown(Shutdown::Write).expect("end the input");
    let mut answers = String::new();
    ours.read_to_string(&mut answers).expect("read answers");
    assert_eq!((program.finish().0.code(), answers.trim_end()), (Some(0), expected));
}

/// Reads to the end in small pieces: the number of bytes, and of line ends.
#[track_caller]
fn read_slowly(mut from: impl Read) -> (usize, usize) {
    let (mut bytes, mut lines, mut piece) = (0, 0, [0; 1000]);
    loop {
        match from.read(&mut piece).expect("read answers") {
            0 => return (bytes, lines),
            count => {
                bytes += count;
                lines += piece[..count].iter().filter(|byte| **byte == b'\n').count();
            }
        }
    }
}

#[test]
fn a_slow_reader_gets_every_answer_and_holds_up_the_lines_meanwhile() {
    let (daemon, address) = patient_pool();
    // Of the first 30 answers the streams hold seven, and of all 120 the memory of `ask` holds a third.
    let lines = "big 30000\n".repeat(120);
    let expected = (120 * 30_001, 120);
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let program = ask_on_socket(theirs, &["--timeout", "600s", &address]);
    ours.write_all(lines.as_bytes()).expect("write lines");
    ours.shutdown(Shutdown::Write).expect("end the input");
    daemon.usr1_until(|stats| stats.count("queries replied") >= 30);
    assert_eq!(read_slowly(ours), expected);
    assert_eq!(program.finish().0.code(), Some(0));
    // The same through a pipe that has a name.
    let home = temp_dir();
    let fifo = home.path().join("answers");
    mkfifo(&fifo, Mode::S_IRWXU).expect("make a pipe with a name");
    let redirection = format!("exec \"$0\" \"$@\" >{}", fifo.display());
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &redirection, BINARY]).args(PATIENT);
    let mut program = Program::start(shell.arg(&address));
    let answers = fs::File::open(&fifo).expect("open the pipe");
    let mut stdin = program.stdin.take().expect("its standard input is open");
    stdin.write_all(lines.as_bytes()).expect("write lines");
    drop(stdin);
    daemon.usr1_until(|stats| stats.count("queries replied") >= 150);
    assert_eq!(read_slowly(answers), expected);
    assert_eq!(program.finish().0.code(), Some(0));
}

#[test]
fn an_input_that_ends_leaves_its_lines_to_be_answered() {
    let (_daemon, address) = patient_pool();
    let gate = Gate::new();
    let line = format!("wait {} late\n", gate.path());
    let mut program = Program::start(Command::new(BINARY).args(PATIENT).arg(&address));
    let mut stdin = program.stdin.take().expect("its standard input is open");
    stdin.write_all(line.as_bytes()).expect("write a line");
    let arrival = gate.arrival();
    drop(stdin);
    arrival.open();
    let (status, stdout, stderr) = program.finish();
    assert_eq!((status.code(), stdout.as_str()), (Some(0), "late"), "{stderr}");
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    let program = ask_on_socket(theirs, &["--timeout", "600s", &address]);
    ours.write_all(line.as_bytes()).expect("write a line");
    let arrival = gate.arrival();
    ours.shutdown(Shutdown::Write).expect("end the input");
    arrival.open();
    let mut answers = String::new();
    ours.read_to_string(&mut answers).expect("read the answer");
    assert_eq!((program.finish().0.code(), answers.as_str()), (Some(0), "late\n"));
}

#[test]
fn an_input_that_has_ended_before_it_is_read_is_an_empty_one() {
    let (_daemon, address) = patient_pool();
    let home = temp_dir();
    let fifo = home.path().join("lines");
    mkfifo(&fifo, Mode::S_IRWXU).expect("make a pipe with a name");
    let (pipe, _) = std::io::pipe().expect("make a pipe");
    let (socket, _) = UnixStream::pair().expect("a pair of sockets");
    let ended: [(Stdio, &str); 4] = [
        (OwnedFd::from(pipe).into(), ""),
        (OwnedFd::from(socket).into(), ""),
        (Stdio::null(), ""),
        // A pipe with a name that has lost its only writer when `ask` starts.
        (Stdio::null(), &format!("3<>{0} <{0} 3<&-", fifo.display())),
    ];
    for (stdin, redirection) in ended {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!("exec \"$0\" \"$@\" {redirection}"), BINARY]);
        let program = Program::start_with_stdin(shell.args(PATIENT).arg(&address), stdin);
        let (status, stdout, stderr) = program.finish();
        assert_eq!(
            (status.code(), stdout.as_str(), stderr.as_str()),
            (Some(0), "", ""),
            "{redirection}"
        );
    }
}

#[test]
fn answers_for_a_pipe_that_has_lost_its_reader_are_lost() {
    let (_daemon, address) = patient_pool();
    let home = temp_dir();
    let fifo = home.path().join("answers");
    mkfifo(&fifo, Mode::S_IRWXU).expect("make a pipe with a name");
    for (flags, expected) in [(&[][..], 1), (&["--squid"], 0)] {
        let redirection = format!("exec \"$0\" \"$@\" >{}", fifo.display());
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &redirection, BINARY]).args(PATIENT).args(flags);
        let mut program = Program::start(shell.arg(&address));
        let mut answers = fs::File::open(&fifo).expect("open the pipe");
        let mut stdin = program.stdin.take().expect("its standard input is open");
        stdin.write_all(b"0 echo x\n").expect("write a line");
        // One answer is read, so that the pipe is open twice when it loses its reader.
        assert_eq!(answers.read(&mut [0; 1]).expect("read an answer"), 1);
        drop(answers);
        stdin.write_all(b"0 echo x\n").expect("write a line");
        let (status, _, stderr) = program.finish();
        assert_eq!(status.code(), Some(expected), "{stderr}");
        assert_eq!(
            stderr.contains("cannot write to standard output"),
            expected == 1,
            "{stderr}"
        );
    }
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
