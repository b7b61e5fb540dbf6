//! `iotcpd call`: to its caller, it is the program that it calls. Most tests have a real exec door at the other end;
//! those of answers that a door never sends have a scripted one.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::pty::openpty;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::exec_client::door;
use crate::harness::{Address, Daemon, Program, TempDir, temp_dir};

/// The most memory that a call may ever have needed: a few times its need when it does nothing, far from the size of
/// the data.
const MEMORY_KIB: u64 = 40 << 10;
/// The number of bytes each way in a test of memory.
const MUCH: u64 = 100_000_000;

fn command(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    command.args(["call", address]).args(arguments);
    command
}

#[track_caller]
fn path(daemon: &Daemon) -> String {
    match daemon.addr() {
        Address::Unix(path) => path,
        other => other.to_string(),
    }
}

/// A call whose standard input is a pipe.
#[track_caller]
fn start(daemon: &Daemon, arguments: &[&str]) -> Program {
    Program::start(&mut command(&path(daemon), arguments))
}

/// One that passes on every signal it can.
#[track_caller]
fn start_forwarding(daemon: &Daemon, arguments: &[&str]) -> Program {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    command.args(["call", "--forward-all", &path(daemon)]).args(arguments);
    Program::start(&mut command)
}

/// The same with no input, to its end: status, standard output, standard error.
#[track_caller]
fn call(daemon: &Daemon, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut program = start(daemon, arguments);
    drop(program.stdin.take());
    ended(&program)
}

#[track_caller]
fn ended(program: &Program) -> (Option<i32>, String, String) {
    let (status, stdout, stderr) = program.finish();
    (status.code(), stdout, stderr)
}

#[track_caller]
fn wait_line(program: &Program, line: &str) {
    let waited = program.stdout.wait_from(0, |it| it == line);
    waited.unwrap_or_else(|why| program.fail(&format!("wanted {line:?}: {why}")));
}

fn fifo(home: &TempDir) -> String {
    let path = home.path().join("go");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn streams_and_status_are_the_programs() {
    let (daemon, _home) = door(&[]);
    let said = call(&daemon, &["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!(said, (Some(7), "out".into(), "err".into()));
    assert_eq!(call(&daemon, &["true"]).0, Some(0));
    let said = call(&daemon, &["printf", "%s|", "-n", "--help", "", "a b"]);
    assert_eq!(
        said.1, "-n|--help||a b|",
        "dashes behind the program's name are its own"
    );
    let (status, _, complaint) = call(&daemon, &["no-such-program"]);
    assert_eq!(status, Some(127));
    assert!(complaint.contains("no-such-program"), "{complaint}");
}

#[test]
fn the_end_by_a_signal_is_reported_as_existing_clients_report_it() {
    let (daemon, _home) = door(&[]);
    let said = call(&daemon, &["sh", "-c", "echo out; kill -KILL $$"]);
    assert_eq!(said, (Some(137), "out".into(), "// killed by signal 9".into()));
}

#[test]
fn input_is_streamed_as_it_comes_and_its_end_passed_on() {
    let (daemon, _home) = door(&[]);
    let mut program = start(&daemon, &["cat"]);
    for line in ["one", "two"] {
        writeln!(program.stdin.as_mut().unwrap(), "{line}").unwrap();
        wait_line(&program, line);
    }
    drop(program.stdin.take());
    assert_eq!(ended(&program), (Some(0), "one\ntwo".into(), String::new()));
    let mut null = command(&path(&daemon), &["wc", "-c"]);
    let program = Program::start_with_stdin(&mut null, Stdio::null());
    assert_eq!(ended(&program), (Some(0), "0".into(), String::new()));
}

#[test]
fn a_program_that_ends_is_not_held_up_by_input_that_goes_on() {
    let (daemon, _home) = door(&[]);
    let program = start(&daemon, &["sh", "-c", "read line; echo $line; exit 3"]);
    writeln!(program.stdin.as_ref().unwrap(), "enough").unwrap();
    assert_eq!(ended(&program), (Some(3), "enough".into(), String::new()));
}

#[test]
fn without_input_none_is_read() {
    let (daemon, _home) = door(&[]);
    let address = path(&daemon);
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    let program = Program::start(command.args(["call", "-n", address.as_str(), "wc", "-c"]));
    assert_eq!(
        ended(&program),
        (Some(0), "0".into(), String::new()),
        "its pipe is still open"
    );
}

#[test]
fn a_terminal_is_read_only_when_that_is_asked_for() {
    let (daemon, _home) = door(&[]);
    let address = path(&daemon);
    let terminal = openpty(None, None).unwrap();
    let on_terminal = |flags: &[&str], arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        command.arg("call").args(flags).arg(&address).args(arguments);
        Program::start_with_stdin(&mut command, terminal.slave.try_clone().unwrap().into())
    };
    let mut master = fs::File::from(terminal.master);
    master.write_all(b"typed\n").unwrap();
    let program = on_terminal(&[], &["wc", "-c"]);
    assert_eq!(ended(&program), (Some(0), "0".into(), String::new()));
    let program = on_terminal(&["--stdin"], &["head", "-n", "1"]);
    assert_eq!(ended(&program), (Some(0), "typed".into(), String::new()));
}

#[test]
fn it_calls_over_tcp_by_number_and_by_name() {
    let daemon = Daemon::with(["exec", "127.0.0.1:0"]).start();
    assert_eq!(call(&daemon, &["echo", "hello"]).1, "hello");
    let name = format!("localhost:{}", daemon.addr().port());
    let mut program = Program::start(&mut command(&name, &["cat"]));
    drop(program.stdin.take());
    assert_eq!(ended(&program), (Some(0), String::new(), String::new()));
}

#[test]
fn streams_that_another_program_has_made_non_blocking_are_waited_for() {
    let (daemon, _home) = door(&[]);
    let (stdin, mut to_stdin) = std::io::pipe().unwrap();
    let (mut from_stdout, stdout) = std::io::pipe().unwrap();
    for end in [
        OwnedFd::from(stdin.try_clone().unwrap()),
        stdout.try_clone().unwrap().into(),
    ] {
        nix::fcntl::fcntl(&end, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    }
    let mut command = command(&path(&daemon), &["sh", "-c", "head -c 1000000 /dev/zero; cat"]);
    let mut program = Reaped(command.stdin(stdin).stdout(stdout).spawn().unwrap());
    drop(command);
    // Its input is empty for a while, and its output full.
    daemon.usr1_until(|stats| stats.count("runs running") == 1 && stuck(program.pid()));
    from_stdout.read_exact(&mut vec![0; 1_000_000]).unwrap();
    to_stdin.write_all(b"end").unwrap();
    drop(to_stdin);
    let mut rest = String::new();
    from_stdout.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), program.0.wait().unwrap().code()), ("end", Some(0)));
}

// ---- a lot of it -----------------------------------------------------------------------------------------------

/// The most memory that a process has had, in KiB.
#[track_caller]
fn peak(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A child that is killed if the test fails; its streams are the test's.
struct Reaped(Child);

impl Reaped {
    fn pid(&self) -> i32 {
        self.0.id().try_into().unwrap()
    }

    /// With pipes for its input and output.
    #[track_caller]
    fn piped(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(piped.spawn().expect("start iotcpd"))
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        // It may have ended, which is what was wanted.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn memory_is_flat_whatever_passes_each_way() {
    let (daemon, home) = door(&[]);
    let go = fifo(&home);
    let script = format!("cat; read line < {go}");
    let mut program = Reaped::piped(&mut command(&path(&daemon), &["sh", "-c", &script]));
    let mut stdin = program.0.stdin.take().unwrap();
    let sender = thread::spawn(move || {
        let mut source = std::io::repeat(b'x').take(MUCH);
        std::io::copy(&mut source, &mut stdin).unwrap()
    });
    let mut stdout = program.0.stdout.take().unwrap();
    let come = std::io::copy(&mut (&mut stdout).take(MUCH), &mut std::io::sink()).unwrap();
    assert_eq!((come, sender.join().unwrap()), (MUCH, MUCH));
    let needed = peak(program.pid());
    fs::write(go, "go\n").unwrap();
    assert_eq!(stdout.read(&mut [0]).unwrap(), 0, "not a byte more");
    assert!(program.0.wait().unwrap().success());
    assert!(needed < MEMORY_KIB, "{needed} KiB");
}

#[test]
fn a_reader_that_does_not_read_slows_the_program_without_growth_of_memory() {
    let (daemon, home) = door(&["--max-buffer", "64KiB"]);
    let (go, done) = (fifo(&home), home.path().join("done"));
    let script = format!(
        "head -c {MUCH} /dev/zero; echo done > {}; read line < {go}",
        done.display()
    );
    let mut program = Reaped::piped(&mut command(&path(&daemon), &["sh", "-c", &script]));
    let mut stdout = program.0.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1000]).unwrap();
    // The door holds as much as it may, again and again: then the call takes nothing more. A moment of it proves
    // nothing.
    let held = |line: &String| {
        let bytes = line.split_once("to client = ").map(|(_, bytes)| bytes.parse().unwrap());
        bytes.is_some_and(|bytes: usize| bytes >= 64 << 10)
    };
    let mut seen = 0;
    while seen < 20 && !done.exists() {
        let full = daemon.usr2().iter().any(held) && stuck(program.pid());
        seen = if full { seen + 1 } else { 0 };
    }
    assert!(!done.exists(), "the program waits");
    let rest = std::io::copy(&mut (&mut stdout).take(MUCH - 1000), &mut std::io::sink()).unwrap();
    assert_eq!(rest + 1000, MUCH);
    let needed = peak(program.pid());
    fs::write(go, "go\n").unwrap();
    assert!(program.0.wait().unwrap().success());
    assert!(needed < MEMORY_KIB, "{needed} KiB");
}

#[test]
fn when_its_output_is_closed_it_ends_as_the_program_would_and_ends_the_program() {
    let (daemon, _home) = door(&[]);
    let mut program = Reaped::piped(&mut command(&path(&daemon), &["yes"]));
    let mut stdout = program.0.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 2]).unwrap();
    drop(stdout);
    assert_eq!(program.0.wait().unwrap().code(), Some(141));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("runs vanished"), stats.count("exit signal")), (1, 1));
}

// ---- signals ---------------------------------------------------------------------------------------------------

#[test]
fn signals_reach_the_program_whose_status_comes_back() {
    let (daemon, _home) = door(&[]);
    for (signal, name) in [
        (Signal::SIGINT, "INT"),
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGQUIT, "QUIT"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGUSR2, "USR2"),
    ] {
        let script = format!("trap 'echo got {name}; exit 9' {name}; echo up; sleep 1000 & wait");
        let program = start_forwarding(&daemon, &["sh", "-c", &script]);
        wait_line(&program, "up");
        program.signal(signal);
        assert_eq!(ended(&program), (Some(9), format!("up\ngot {name}"), String::new()));
    }
    let program = start(&daemon, &["sh", "-c", "echo up; exec sleep 1000"]);
    wait_line(&program, "up");
    program.signal(Signal::SIGINT);
    assert_eq!(
        ended(&program),
        (Some(130), "up".into(), "// killed by signal 2".into())
    );
    assert_eq!(daemon.usr1().count("runs vanished"), 0);
}

#[test]
fn a_signal_that_is_for_the_program_may_come_again_and_ends_its_input() {
    let (daemon, _home) = door(&[]);
    let script =
        "trap 'echo one' USR1; trap 'echo two' HUP; echo up; cat; echo ended; sleep 1000 & while :; do wait; done";
    let program = start_forwarding(&daemon, &["sh", "-c", script]);
    wait_line(&program, "up");
    // The shell runs a trap when cat has ended, by the end of its input.
    program.signal(Signal::SIGHUP);
    wait_line(&program, "ended");
    for nth in 1..=2 {
        program.signal(Signal::SIGUSR1);
        let mut from = 0;
        for _ in 0..nth {
            from = program.stdout.wait_from(from, |line| line == "one").unwrap().0 + 1;
        }
    }
    program.signal(Signal::SIGTERM);
    assert_eq!(ended(&program).0, Some(143));
}

#[test]
fn the_second_of_a_kind_hangs_up_and_the_door_ends_the_program() {
    let (daemon, _home) = door(&["-k", "100ms"]);
    let script = "trap 'echo not yet' INT; trap '' TERM; echo up; while :; do sleep 1000 & wait; done";
    let program = start(&daemon, &["sh", "-c", script]);
    wait_line(&program, "up");
    program.signal(Signal::SIGINT);
    wait_line(&program, "not yet");
    program.signal(Signal::SIGINT);
    assert_eq!(ended(&program).0, Some(130));
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("runs vanished"), stats.count("runs killed")), (1, 1));
}

#[test]
fn a_signal_that_input_holds_up_hangs_up() {
    let (daemon, _home) = door(&[]);
    let mut program = start(&daemon, &["sh", "-c", "echo up; exec sleep 1000"]);
    wait_line(&program, "up");
    let mut stdin = program.stdin.take().unwrap();
    // Until the whole way to the program is full: then the next write would wait, which a pipe without blocking says.
    nix::fcntl::fcntl(&stdin, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    // The amount that the door holds. A dump comes behind everything that the door could do.
    let held = || {
        let dump = daemon.usr2();
        let line = dump.iter().find_map(|line| line.split_once("to program = "))?;
        let amount = line.1.split(',').next()?.to_owned();
        (amount != "0").then_some(amount)
    };
    let (mut full, mut written) = (false, 0);
    while !full {
        let before = held();
        while stdin.write(&[b'x'; 4096]).is_ok() {
            written += 4096;
            assert!(written < MUCH, "somewhere there is an end to what is held");
        }
        // The call has all that it takes, and would have taken more if the door had since made room for it.
        full = stuck(program.pid()) && before.is_some() && held() == before;
        full = full && stdin.write(&[b'x'; 4096]).is_err() && stuck(program.pid());
    }
    program.signal(Signal::SIGTERM);
    let said = ended(&program);
    assert_eq!(
        said,
        (Some(143), "up".into(), String::new()),
        "it was not the signal that has ended the program"
    );
    drop(stdin);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("runs vanished"), 1);
}

/// Returns true if all threads of a process sleep.
fn stuck(pid: i32) -> bool {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
    })
}

#[test]
fn signals_ignored_at_the_start_stay_ignored() {
    let (daemon, _home) = door(&[]);
    let mut shell = Command::new("sh");
    let script = "trap '' HUP; exec \"$0\" call \"$@\"";
    shell.args(["-c", script, env!("CARGO_BIN_EXE_iotcpd"), &path(&daemon)]);
    let mut program = Program::start(shell.args(["sh", "-c", "echo up; cat"]));
    wait_line(&program, "up");
    program.signal(Signal::SIGHUP);
    writeln!(program.stdin.as_ref().unwrap(), "still there").unwrap();
    wait_line(&program, "still there");
    drop(program.stdin.take());
    assert_eq!(ended(&program).0, Some(0));
}

// ---- what goes wrong -------------------------------------------------------------------------------------------

/// Something that is no exec door: it reads until the end of the input, says fixed bytes and hangs up.
struct Fake {
    home: TempDir,
    thread: JoinHandle<Vec<u8>>,
}

impl Fake {
    fn that_says(bytes: &'static [u8]) -> Self {
        let home = temp_dir();
        let listener = UnixListener::bind(home.path().join("fake")).unwrap();
        let thread = thread::spawn(move || {
            let (mut connection, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"0:,") {
                let mut byte = [0];
                connection.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            // The caller may have read enough.
            connection.write_all(bytes).ok();
            request
        });
        Self { home, thread }
    }

    /// The outcome that `call` gives for it.
    #[track_caller]
    fn called(self, input: &str) -> (Option<i32>, String, String) {
        let address = self.home.path().join("fake");
        let mut program = Program::start(&mut command(address.to_str().unwrap(), &["run", "it"]));
        write!(program.stdin.as_mut().unwrap(), "{input}").unwrap();
        drop(program.stdin.take());
        let said = ended(&program);
        let request = String::from_utf8(self.thread.join().unwrap()).unwrap();
        let input = if input.is_empty() {
            String::new()
        } else {
            format!("{}:{input},", input.len())
        };
        assert_eq!(request, format!("1:2,3:run,2:it,{input}0:,"));
        said
    }
}

#[test]
fn an_answer_is_accepted_from_any_server() {
    let said = Fake::that_says(b"6:stderr,2:no,6:stdout,3:yes,8:exitcode,1:4,and more").called("hello");
    assert_eq!(said, (Some(4), "yes".into(), "no".into()));
    let said = Fake::that_says(b"7:termsig,2:15,").called("");
    assert_eq!(said, (Some(143), String::new(), "// killed by signal 15".into()));
    let said = Fake::that_says(b"7:termsig,6:FUTURE,").called("");
    assert_eq!(said, (Some(128), String::new(), "// killed by signal FUTURE".into()));
}

#[test]
fn a_malformed_answer_is_reported_behind_the_output_before_it() {
    for (bytes, why) in [
        (&b"6:stdout,3:yes,"[..], "has hung up before the end"),
        (b"6:stdout,3:yes,6:std", "has hung up before the end"),
        (b"6:stdout,10:yes", "has hung up before the end"),
        (b"6:stdout,3:yes,HTTP/1.1 400 Bad Request", "no answer of an exec door"),
        (b"6:stdout,3:yes,5:stdin,1:x,", "neither stdout nor stderr"),
        (b"6:stdout,3:yes,8:exitcode,3:999,", "from 0 to 255"),
    ] {
        let (status, stdout, complaint) = Fake::that_says(bytes).called("");
        assert_eq!((status, stdout.as_str()), (Some(125), "yes"), "{complaint}");
        assert!(complaint.contains(why) && complaint.contains("; "), "{complaint}");
        assert!(complaint.starts_with("iotcpd: "), "{complaint}");
    }
}

#[test]
fn a_door_that_is_killed_is_a_loss_and_no_end() {
    let (daemon, _home) = door(&[]);
    let program = start(&daemon, &["sh", "-c", "echo up; exec sleep 1000"]);
    wait_line(&program, "up");
    daemon.signal(Signal::SIGKILL);
    let (status, _, complaint) = ended(&program);
    assert_eq!(status, Some(125));
    assert!(complaint.contains("has hung up before the end"), "{complaint}");
}

#[track_caller]
fn fails_to_connect(address: &str, flags: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    let program = Program::start(command.arg("call").args(flags).args([address, "true"]));
    let (status, stdout, complaint) = ended(&program);
    assert_eq!((status, stdout.as_str()), (Some(125), ""), "{complaint}");
    assert!(complaint.starts_with("iotcpd: cannot connect to "), "{complaint}");
    complaint
}

#[test]
fn a_failed_connection_is_reported_with_its_reason() {
    let home = temp_dir();
    let missing = home.path().join("missing");
    let complaint = fails_to_connect(missing.to_str().unwrap(), &[]);
    assert!(complaint.contains("No such file"), "{complaint}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let complaint = fails_to_connect(&address, &[]);
    assert!(complaint.contains("refused"), "{complaint}");
}

/// A UNIX socket whose queue of connections is full, and the connections that fill it.
fn full_queue(path: &Path) -> (OwnedFd, Vec<UnixStream>) {
    let listener = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(
        std::os::fd::AsRawFd::as_raw_fd(&listener),
        &UnixAddr::new(path).unwrap(),
    )
    .unwrap();
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    (listener, vec![UnixStream::connect(path).unwrap()])
}

#[test]
fn a_full_queue_is_tried_again_until_the_deadline() {
    let home = temp_dir();
    let socket = home.path().join("full");
    let (listener, waiting) = full_queue(&socket);
    let complaint = fails_to_connect(socket.to_str().unwrap(), &["--connect-timeout", "50ms"]);
    assert!(complaint.contains("stays full"), "{complaint}");
    // It has room as soon as one is accepted: the waiting one gets through.
    let program = Program::start(&mut command(socket.to_str().unwrap(), &["run"]));
    let listener = UnixListener::from(listener);
    let (first, _) = listener.accept().unwrap();
    let (mut second, _) = listener.accept().unwrap();
    let mut request = [0; 10];
    second.read_exact(&mut request).unwrap();
    assert_eq!(&request, b"1:1,3:run,");
    second.write_all(b"8:exitcode,1:6,").unwrap();
    assert_eq!(ended(&program).0, Some(6));
    drop((first, waiting));
}

#[test]
fn a_signal_ends_it_while_it_connects() {
    let home = temp_dir();
    let socket = home.path().join("full");
    let (_listener, _waiting) = full_queue(&socket);
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    command.args(["call", "--connect-timeout", "1h", socket.to_str().unwrap(), "true"]);
    let program = Program::start(&mut command);
    // Caught or not, it ends by it.
    program.signal(Signal::SIGTERM);
    let (status, _, _) = program.finish();
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert!(status.code() == Some(143) || signal == Some(15), "{status}");
}

#[test]
fn mistakes_in_the_command_line_are_status_2() {
    for (arguments, why) in [
        (&["call", "127.0.0.1:99999", "true"][..], "ADDRESS: "),
        (
            &["call", "--connect-timeout", "0", "/run/x", "true"],
            "--connect-timeout: ",
        ),
        (&["call", "/run/x"], "ARGV"),
        (&["call", "-i", "-n", "/run/x", "true"], "cannot be used with"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        let (status, _, complaint) = ended(&Program::start(command.args(arguments)));
        assert_eq!(status, Some(2), "{complaint}");
        assert!(complaint.contains(why), "{complaint}");
    }
}
