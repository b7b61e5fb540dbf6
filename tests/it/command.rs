//! The command door, a test for every sentence about the protocol of torcd in COMMANDS BY NAME of iotcpd(1), and for
//! the
//! additions to it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::{Client, Daemon, StatsBlock, TempDir, WATCHDOG, temp_dir};

/// A torc.cfg with its programs in a directory of its own.
pub(crate) struct Torc {
    home: TempDir,
}

impl Torc {
    /// One with these groups in `processes`; `@` stands for the directory.
    pub(crate) fn new(groups: &[&str]) -> Self {
        let torc = Self { home: temp_dir() };
        torc.write(groups);
        torc
    }

    pub(crate) fn write(&self, groups: &[&str]) {
        let groups: Vec<_> = groups.iter().map(|group| format!("  {{ {group} }}")).collect();
        let text = format!(
            "// as torcd has it\nport = 3699;\nprocesses = (\n{}\n);\n",
            groups.join(",\n")
        );
        fs::write(
            self.path("torc.cfg"),
            text.replace('@', self.home.path().to_str().unwrap()),
        )
        .unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn script(self, name: &str, text: &str) -> Self {
        let text = text.replace('@', self.home.path().to_str().unwrap());
        fs::write(self.path(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    #[track_caller]
    pub(crate) fn serve(&self, flags: &[&str]) -> Daemon {
        let file = self.path("torc.cfg");
        let arguments = ["command", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
        Daemon::with(arguments).args(flags).start()
    }
}

pub(crate) const ECHO: &str = "name = 'echo'; cmd = '/bin/echo'; argc = 2; threads = 50;";
pub(crate) const CAT: &str = "name = 'cat'; cmd = '/bin/cat'; threads = 50;";

/// libconfig knows double quotes alone.
pub(crate) fn quoted(group: &str) -> String {
    group.replace('\'', "\"")
}

pub(crate) fn torc(groups: &[&str]) -> Torc {
    let groups: Vec<_> = groups.iter().map(|group| quoted(group)).collect();
    Torc::new(&groups.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Sends all of it, ends its side, and reads to the end.
#[track_caller]
pub(crate) fn ask(daemon: &Daemon, wire: impl AsRef<[u8]>) -> String {
    let mut client = daemon.client();
    client.send(wire);
    client.half_close();
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

/// A client whose program says `up` and then echoes its input.
#[track_caller]
pub(crate) fn holding(daemon: &Daemon, wire: &str) -> Client {
    let mut client = daemon.client();
    client.send(wire);
    client.read_text("up\n");
    client
}

pub(crate) fn hold(limits: &str) -> Torc {
    let group = format!("name = 'hold'; cmd = '@/hold'; {limits}");
    torc(&[&group, CAT]).script("hold", "echo up; exec cat")
}

#[test]
fn a_client_that_ends_nothing_is_prompted_for_each_argument() {
    let daemon = torc(&[ECHO]).serve(&[]);
    let mut client = daemon.client();
    client.send("echo");
    client.read_text("torcd>");
    client.send("hello");
    client.read_text("torcd>");
    client.send("world");
    assert_eq!(client.read_to_end(), b"hello world\n");
}

#[test]
fn lines_may_end_in_any_way_and_come_in_one_packet() {
    let daemon = torc(&[ECHO]).serve(&[]);
    for wire in [
        "echo\na\nb\n",
        "echo\r\na\r\nb\r\n",
        "echo\0a\0b\0",
        "echo\n\0a\n\0b\n\0",
        "echo\na\nb",
    ] {
        assert_eq!(ask(&daemon, wire), "torcd>torcd>a b\n", "{wire:?}");
    }
    // One byte at a time, which is no end of anything as long as more comes: only ends count.
    let mut client = daemon.client();
    client.send("echo\n");
    client.read_text("torcd>");
    client.send("a b\r");
    client.read_text("torcd>");
    client.send("\nc\n");
    assert_eq!(client.read_to_end(), b"a b c\n");
}

#[test]
fn an_unknown_command_name_is_refused_in_the_words_of_torcd() {
    let daemon = torc(&[ECHO]).serve(&[]);
    assert_eq!(ask(&daemon, "nonsense\n"), "torcd: nonsense:Not found!\n");
    assert_eq!(ask(&daemon, "nonsense"), "torcd: nonsense:Not found!\n");
    let mut client = daemon.client();
    client.send("ech");
    assert_eq!(
        client.read_to_end(),
        b"torcd: ech:Not found!\n",
        "without an end of any kind"
    );
    assert_eq!(daemon.usr1().count("runs not found"), 3);
}

#[test]
fn runs_beyond_the_threads_are_refused_as_busy_and_a_freed_slot_serves_again() {
    let torc = hold("threads = 2;");
    let daemon = torc.serve(&[]);
    let (mut first, _second) = (holding(&daemon, "hold\n"), holding(&daemon, "hold\n"));
    assert_eq!(ask(&daemon, "hold\n"), "torcd: busy");
    assert_eq!(
        ask(&daemon, "cat\nother commands are not\n"),
        "other commands are not\n"
    );
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs busy"), stats.count("runs running")), (1, 2));
    first.half_close();
    assert_eq!(first.read_to_end(), b"");
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    let _third = holding(&daemon, "hold\n");
}

#[test]
fn the_program_gets_its_name_and_arguments_without_a_shell() {
    let daemon = torc(&["name = 'my cat'; cmd = '/bin/cat'; argc = 1;", ECHO]).serve(&[]);
    assert_eq!(
        ask(&daemon, "my cat\n/proc/self/cmdline\n"),
        "torcd>my cat\0/proc/self/cmdline\0"
    );
    assert_eq!(
        ask(&daemon, "echo\n$HOME; `id` > x\n | 'a  b' *\n"),
        "torcd>torcd>$HOME; `id` > x  | 'a  b' *\n"
    );
    assert_eq!(
        ask(&daemon, "echo\n\n\n"),
        "torcd>torcd> \n",
        "empty arguments are arguments"
    );
}

#[test]
fn both_outputs_come_in_their_order_and_input_streams() {
    let torc = torc(&["name = 'both'; cmd = '@/both';"]).script(
        "both",
        "echo out; echo err >&2; echo more; while read line; do echo \"got $line\" >&2; done; echo end",
    );
    let daemon = torc.serve(&[]);
    let mut client = daemon.client();
    client.send("both\none\n");
    client.read_text("out\nerr\nmore\ngot one\n");
    client.send("two\n");
    client.read_text("got two\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"end\n");
}

#[test]
fn input_may_come_with_the_request_and_holds_any_bytes() {
    let daemon = torc(&[CAT]).serve(&[]);
    let input: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let mut client = daemon.client();
    client.send([b"cat\n!", &input[..]].concat());
    client.half_close();
    assert_eq!(client.read_to_end(), [b"!", &input[..]].concat());
    // Behind a name without an end it is input only once the name has been taken for complete.
    let mut client = daemon.client();
    client.send("cat");
    daemon.usr1_until(|stats| stats.count("runs running") == 1);
    client.send("\0\0binary");
    client.half_close();
    assert_eq!(client.read_to_end(), b"\0\0binary");
}

#[test]
fn arguments_are_restricted_by_their_positions() {
    let group = "name = 'echo'; cmd = '/bin/echo'; args = ('^[a-z0-9.-]+$', 'int 1..100', ('start', 'stop'));";
    let daemon = torc(&[group]).serve(&[]);
    let told = |wire: &str| ask(&daemon, wire).replace("torcd>", "");
    assert_eq!(told("echo\nwww.example.org\n7\nstop\n"), "www.example.org 7 stop\n");
    for (wire, refusal) in [
        ("echo\nA\n", "argument 1 has to be matched as a whole by ^[a-z0-9.-]+$"),
        (
            "echo\na;b\n1\nstop\n",
            "argument 1 has to be matched as a whole by ^[a-z0-9.-]+$",
        ),
        (
            "echo\na\n101\nstop\n",
            "argument 2 has to be a whole number from 1 to 100",
        ),
        ("echo\na\n1\nrestart\n", "argument 3 has to be one of: start, stop"),
        ("echo\na\n1\n", "takes 3 arguments, and 2 have come"),
    ] {
        assert_eq!(told(wire), format!("torcd: echo: {refusal}\n"));
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs refused"), stats.count("runs total")), (5, 1));
}

#[test]
fn the_list_can_be_had_and_switched_off() {
    let daemon = torc(&[ECHO, CAT]).serve(&[]);
    assert_eq!(ask(&daemon, "list\n"), "echo\ncat\n");
    let daemon = torc(&[ECHO]).serve(&["--list", "no"]);
    assert_eq!(ask(&daemon, "list\n"), "torcd: list:Not found!\n");
}

#[test]
fn waiting_clients_are_served_in_order_or_refused_as_busy_in_time() {
    let torc = hold("threads = 1; queue = 2; max_wait = 600;");
    let daemon = torc.serve(&[]);
    let mut first = holding(&daemon, "hold\n");
    let waiting = |wire: &str, number: u64| {
        let mut client = daemon.client();
        client.send(wire);
        daemon.usr1_until(|stats| stats.count("runs waiting") == number);
        client
    };
    let (mut second, mut third) = (waiting("hold\nsecond", 1), waiting("hold\nthird", 2));
    assert_eq!(ask(&daemon, "hold\n"), "torcd: busy");
    first.half_close();
    assert_eq!(first.read_to_end(), b"");
    second.read_text("up\nsecond");
    assert!(!third.has_input(), "one at a time");
    second.half_close();
    third.read_text("up\nthird");
    drop(second);
    let torc = hold("threads = 1; queue = 2; max_wait = 0.1;");
    let daemon = torc.serve(&[]);
    let _first = holding(&daemon, "hold\n");
    assert_eq!(ask(&daemon, "hold\n"), "torcd: busy");
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs queued"), stats.count("runs busy")), (1, 1));
}

#[test]
fn a_waiting_client_that_goes_leaves_the_queue() {
    let torc = hold("threads = 1; queue = 1; max_wait = 600;");
    let daemon = torc.serve(&[]);
    let _first = holding(&daemon, "hold\n");
    let mut second = daemon.client();
    second.send("hold\n");
    daemon.usr1_until(|stats| stats.count("runs waiting") == 1);
    second.reset();
    daemon.usr1_until(|stats| stats.count("runs waiting") == 0);
}

#[test]
fn the_same_request_shares_the_output_of_the_one_that_runs() {
    let group = "name = 'slow'; cmd = '@/slow'; argc = 1; threads = 1; join = true;";
    let torc = torc(&[group]).script(
        "slow",
        "echo ran >> @/traces; echo begin $1; read line < @/go; echo end $1",
    );
    mkfifo(&torc.path("go"), Mode::S_IRWXU).unwrap();
    let daemon = torc.serve(&[]);
    let mut clients: Vec<Client> = (0..3)
        .map(|_| {
            let mut client = daemon.client();
            client.send("slow\nx\n");
            client.read_text("torcd>begin x\n");
            client
        })
        .collect();
    assert_eq!(ask(&daemon, "slow\ny\n"), "torcd>torcd: busy", "other arguments");
    // The first may go; the others have their answer all the same.
    clients.remove(0).reset();
    daemon.usr1_until(|stats| stats.count("connections") == 2);
    fs::write(torc.path("go"), "go\n").unwrap();
    for mut client in clients {
        assert_eq!(client.read_to_end(), b"end x\n");
    }
    assert_eq!(fs::read_to_string(torc.path("traces")).unwrap(), "ran\n");
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs joined"), stats.count("exit zero")), (2, 1));
    daemon.stderr_wait("shared with 2 more");
}

#[test]
fn a_program_over_its_time_is_killed_and_its_client_informed() {
    let torc = torc(&["name = 'slow'; cmd = '@/slow'; timeout = 0.2;"])
        .script("slow", "trap '' TERM; echo begin; sleep 1000 & wait; sleep 1000");
    let daemon = torc.serve(&["--kill-timeout", "100ms"]);
    assert_eq!(
        ask(&daemon, "slow\n"),
        "begin\ntorcd: slow: ended, because it took longer than 200ms\n"
    );
    let stats = daemon.usr1();
    assert_eq!((stats.count("runs timeout"), stats.count("runs killed")), (1, 1));
    assert_eq!(daemon.children(), Vec::<i32>::new());
}

/// Receives a message when the program that has opened this FIFO for writing, and its children, have gone.
fn holders(path: &Path) -> mpsc::Receiver<()> {
    mkfifo(path, Mode::S_IRWXU).unwrap();
    let (sender, gone) = mpsc::channel();
    let path = path.to_owned();
    thread::spawn(move || {
        File::open(path).unwrap().read_to_end(&mut Vec::new()).unwrap();
        sender.send(()).ok();
    });
    gone
}

#[test]
fn a_client_that_goes_takes_its_program_and_its_children_along() {
    let torc = torc(&["name = 'stubborn'; cmd = '@/stubborn';"]).script(
        "stubborn",
        "exec 3>@/fifo; trap '' TERM; sleep 1000 & echo up; cat; wait",
    );
    let gone = holders(&torc.path("fifo"));
    let daemon = torc.serve(&["--kill-timeout", "100ms"]);
    let client = holding(&daemon, "stubborn\n");
    client.reset();
    gone.recv_timeout(WATCHDOG).expect("the group is ended");
    let stats = daemon.usr1_until(|stats| stats.count("runs running") == 0);
    assert_eq!((stats.count("runs vanished"), stats.count("runs killed")), (1, 1));
}

#[test]
fn a_grandchild_that_holds_the_output_is_not_waited_for_and_does_not_survive() {
    let torc = torc(&["name = 'leave'; cmd = '@/leave';"]).script("leave", "exec 3>@/fifo; sleep 1000 & echo done");
    let gone = holders(&torc.path("fifo"));
    let daemon = torc.serve(&["--linger", "100ms"]);
    assert_eq!(ask(&daemon, "leave\n"), "done\n");
    gone.recv_timeout(WATCHDOG).expect("the group is ended");
    assert_eq!(daemon.usr1().count("runs cut"), 1);
}

#[test]
fn a_client_that_does_not_read_slows_its_program_and_not_the_daemon() {
    let torc = torc(&["name = 'much'; cmd = '@/much';", CAT]).script("much", "exec head -c 5000000 /dev/zero");
    let daemon = torc.serve(&["--max-buffer", "64KiB"]);
    let mut client = daemon.client();
    client.send("much\n");
    let held = || -> usize {
        let dump = daemon.usr2();
        let line = dump.iter().find_map(|line| line.split_once("to client = "));
        line.map_or(0, |(_, bytes)| bytes.parse().unwrap())
    };
    daemon.usr1_until(|_| held() >= 64 << 10);
    assert_eq!(ask(&daemon, "cat\nfine\n"), "fine\n");
    // The kernel may have found room for some of it meanwhile.
    assert!(held() <= 64 << 10);
    assert_eq!(client.read_to_end().len(), 5_000_000);
}

#[test]
fn a_client_of_a_shared_run_that_does_not_read_does_not_delay_the_other() {
    let group = "name = 'much'; cmd = '@/much'; join = true;";
    let torc = torc(&[group]).script("much", "echo up; read line < @/go; exec head -c 5000000 /dev/zero");
    mkfifo(&torc.path("go"), Mode::S_IRWXU).unwrap();
    let daemon = torc.serve(&["--max-buffer", "64KiB", "--write-timeout", "200ms"]);
    let (_idle, mut reader) = (holding(&daemon, "much\n"), holding(&daemon, "much\n"));
    fs::write(torc.path("go"), "go\n").unwrap();
    assert_eq!(reader.read_to_end().len(), 5_000_000);
    assert_eq!(daemon.usr1().count("runs unread"), 1);
}

#[test]
fn a_request_that_never_comes_is_refused_in_time() {
    let daemon = torc(&[ECHO]).serve(&["--read-timeout", "200ms", "--quiet-time", "50ms"]);
    let mut client = daemon.client();
    client.send("echo\na\n");
    client.read_text("torcd>torcd>");
    let told = String::from_utf8(client.read_to_end()).unwrap();
    assert_eq!(
        told,
        "torcd: echo: the request was not complete in time (--read-timeout)\n"
    );
}

#[test]
fn a_message_that_is_too_long_is_refused() {
    let daemon = torc(&[ECHO]).serve(&["--max-message", "1KiB"]);
    assert!(ask(&daemon, "x".repeat(2000)).contains("max-message"));
    assert_eq!(ask(&daemon, "echo\na\nb\n"), "torcd>torcd>a b\n");
}

#[test]
fn connections_over_the_limit_are_refused_as_busy() {
    let torc = hold("threads = 5;");
    let daemon = torc.serve(&["--max-connections", "1"]);
    let mut first = holding(&daemon, "hold\n");
    assert_eq!(daemon.client().read_to_end_or_reset(), b"torcd: busy");
    first.half_close();
    assert_eq!(first.read_to_end(), b"");
    assert_eq!(daemon.usr1().count("refused max-conn"), 1);
}

#[test]
fn running_programs_and_waiting_clients_are_finished_before_the_daemon_ends() {
    let torc = hold("threads = 1; queue = 1; max_wait = 600;");
    let daemon = torc.serve(&[]);
    let mut first = holding(&daemon, "hold\n");
    let mut second = daemon.client();
    second.send("hold\nlast words");
    second.half_close();
    daemon.usr1_until(|stats| stats.count("runs waiting") == 1);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining, 2 clients connected");
    first.half_close();
    assert_eq!(first.read_to_end(), b"");
    assert_eq!(second.read_to_end(), b"up\nlast words");
    assert!(daemon.wait_exit().success());
}

#[test]
fn when_stopping_takes_too_long_programs_are_killed_and_clients_informed() {
    let torc = hold("threads = 1;");
    let daemon = torc.serve(&["--stop-timeout", "100ms"]);
    let mut client = holding(&daemon, "hold\n");
    daemon.signal(Signal::SIGTERM);
    let told = String::from_utf8(client.read_to_end()).unwrap();
    assert_eq!(told, "torcd: hold: the server is shutting down\n");
    assert!(daemon.wait_exit().success());
}

#[test]
fn the_file_is_read_again_and_what_runs_goes_on() {
    let torc = hold("threads = 1;");
    let daemon = torc.serve(&[]);
    let mut client = holding(&daemon, "hold\n");
    torc.write(&[&quoted(ECHO)]);
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
    assert_eq!(ask(&daemon, "hold\n"), "torcd: hold:Not found!\n");
    assert_eq!(ask(&daemon, "echo\na\nb\n"), "torcd>torcd>a b\n");
    client.send("still here");
    client.half_close();
    assert_eq!(client.read_to_end(), b"still here");
}

/// Other commands are there all the same, and it may come: see `command_torc_cfg`.
#[test]
fn a_program_that_is_not_there_does_not_end_the_daemon_but_what_it_is_started_in_does() {
    let daemon = torc(&["name = 'none'; cmd = '/no/such/program';"]).serve(&[]);
    daemon.stderr_wait("command \"none\" is not available: cannot start \"/no/such/program\"");
    let missing = torc(&["name = 'none'; cmd = '/bin/echo'; user = 'no-such-user';"]);
    let file = missing.path("torc.cfg");
    let arguments = ["command", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let (status, _, stderr) = Daemon::with(arguments).spawn().finish();
    assert_eq!(status.code(), Some(2), "{stderr}");
}

#[test]
fn a_program_that_goes_missing_later_costs_one_client_a_word() {
    let torc = torc(&["name = 'gone'; cmd = '@/gone';", CAT]).script("gone", "echo here");
    let daemon = torc.serve(&[]);
    assert_eq!(ask(&daemon, "gone\n"), "here\n");
    fs::remove_file(torc.path("gone")).unwrap();
    let told = ask(&daemon, "gone\n");
    assert_eq!(
        told,
        "torcd: gone: the program cannot be started; the server's log says why\n"
    );
    daemon.stderr_wait("No such file or directory");
    assert_eq!(ask(&daemon, "cat\nfine\n"), "fine\n");
    assert_eq!(daemon.usr1().count("runs not started"), 1);
}

#[test]
fn each_run_is_a_line_in_the_log_without_its_arguments_unless_they_are_asked_for() {
    let daemon = torc(&[ECHO]).serve(&["--log-args", "yes"]);
    ask(&daemon, "echo\nsecret\nword\n");
    let line = daemon.stderr_wait(" ran ");
    assert!(
        line.contains("ran \"echo\" \"secret\" \"word\": exit status 0 after "),
        "{line}"
    );
    assert!(line.ends_with(", 0 bytes in, 12 out"), "{line}");
    let daemon = torc(&[ECHO]).serve(&[]);
    ask(&daemon, "echo\nsecret\nword\n");
    let line = daemon.stderr_wait(" ran ");
    assert!(
        line.contains("ran \"echo\": exit status 0") && !line.contains("secret"),
        "{line}"
    );
}

#[test]
fn the_statistics_know_times_and_ends() {
    let torc = torc(&["name = 'bad'; cmd = '@/bad';", "name = 'dead'; cmd = '@/dead';"])
        .script("bad", "echo no; exit 3")
        .script("dead", "kill -KILL $$");
    let daemon = torc.serve(&[]);
    assert_eq!(ask(&daemon, "bad\n"), "no\n");
    assert_eq!(ask(&daemon, "dead\n"), "");
    let stats = daemon.usr1();
    assert_eq!((stats.count("exit nonzero"), stats.count("exit signal")), (1, 1));
    for label in ["spawn max ms", "first max ms", "run max ms"] {
        assert!(stats.get(label).unwrap().parse::<f64>().unwrap() > 0.0, "{label}");
    }
    let dump = daemon.usr2();
    assert!(
        dump.iter()
            .any(|line| line == "\"bad\" running = 0 of 1, waiting = 0 of 0"),
        "{dump:#?}"
    );
}

#[test]
fn nc_and_a_python_client_that_sends_the_name_without_a_newline_are_served() {
    let daemon = torc(&[ECHO]).serve(&[]);
    let port = daemon.addr().port().to_string();
    let nc = format!("printf 'echo\\nfrom\\nnc\\n' | nc -N 127.0.0.1 {port}");
    let output = Command::new("sh").args(["-c", &nc]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "torcd>torcd>from nc\n");
    let script = "
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
s.sendall(b'echo')
for word in (b'from', b'python'):
    assert s.recv(6, socket.MSG_WAITALL) == b'torcd>'
    s.sendall(word)
answer = b''
while True:
    more = s.recv(4096)
    if not more: break
    answer += more
sys.stdout.write(answer.decode())
";
    let output = Command::new("python3").args(["-c", script, &port]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "from python\n",
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_crowd_gets_its_own_and_never_more_than_threads_run() {
    let group = "name = 'count'; cmd = '@/count'; argc = 1; threads = 3; queue = 1000; max_wait = 600;";
    let torc = torc(&[group]).script("count", "echo begin >> @/log; echo $1; cat; echo end >> @/log");
    let daemon = torc.serve(&[]);
    thread::scope(|scope| {
        for worker in 0..8 {
            let daemon = &daemon;
            scope.spawn(move || {
                for number in 0..25 {
                    let word = format!("{worker}-{number}");
                    let told = ask(daemon, format!("count\n{word}\ninput of {word}"));
                    assert_eq!(told, format!("torcd>{word}\ninput of {word}"));
                }
            });
        }
    });
    let (mut running, mut most, mut runs) = (0, 0, 0);
    for line in fs::read_to_string(torc.path("log")).unwrap().lines() {
        if line == "begin" {
            (running, runs) = (running + 1, runs + 1);
            most = running.max(most);
        } else {
            running -= 1;
        }
    }
    assert_eq!((running, runs), (0, 200));
    assert!(most <= 3, "{most} at once");
    daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(daemon.children(), Vec::<i32>::new(), "no process, and no zombie");
}

#[test]
fn clients_that_vanish_at_any_moment_leave_nothing_behind() {
    let torc = hold("threads = 4; queue = 4; max_wait = 1;");
    let daemon = torc.serve(&["--kill-timeout", "100ms"]);
    let open = || fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
    let before = open();
    let wire = b"hold\nsome input";
    thread::scope(|scope| {
        for worker in 0..8 {
            let (daemon, wire) = (&daemon, &wire[..]);
            scope.spawn(move || {
                for number in 0..25 {
                    let mut client = daemon.client();
                    let length = (worker * 25 + number) % (wire.len() + 4);
                    client.send(&wire[..length.min(wire.len())]);
                    if number % 2 == 0 {
                        client.reset();
                    }
                }
            });
        }
    });
    // A client that has left before it was accepted, or in its handshake, is no connection yet, and has a descriptor.
    let is_over = |stats: &StatsBlock| stats.count("connections") == 0 && stats.count("runs running") == 0;
    let stats = daemon.usr1_until(|stats| is_over(stats) && open() == before);
    assert_eq!(stats.count("runs waiting"), 0);
    assert_eq!(daemon.children(), Vec::<i32>::new(), "no process, and no zombie");
}

crate::harness::over_tls! {
    a_client_that_ends_nothing_is_prompted_for_each_argument,
    lines_may_end_in_any_way_and_come_in_one_packet,
    an_unknown_command_name_is_refused_in_the_words_of_torcd,
    runs_beyond_the_threads_are_refused_as_busy_and_a_freed_slot_serves_again,
    both_outputs_come_in_their_order_and_input_streams,
    input_may_come_with_the_request_and_holds_any_bytes,
    waiting_clients_are_served_in_order_or_refused_as_busy_in_time,
    a_waiting_client_that_goes_leaves_the_queue,
    the_same_request_shares_the_output_of_the_one_that_runs,
    a_program_over_its_time_is_killed_and_its_client_informed,
    a_client_that_does_not_read_slows_its_program_and_not_the_daemon,
    a_client_of_a_shared_run_that_does_not_read_does_not_delay_the_other,
    a_request_that_never_comes_is_refused_in_time,
    a_message_that_is_too_long_is_refused,
    running_programs_and_waiting_clients_are_finished_before_the_daemon_ends,
    when_stopping_takes_too_long_programs_are_killed_and_clients_informed,
    the_file_is_read_again_and_what_runs_goes_on,
    clients_that_vanish_at_any_moment_leave_nothing_behind,
}
