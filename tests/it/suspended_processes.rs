//! A process that was stopped itself, as by SIGSTOP or with its whole machine: when it goes on its time-outs have
//! passed, but what lies there came in time.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};

use crate::command::{Torc, torc};
use crate::exec_client::{ExecClient, door, netstring, request};
use crate::harness::{Arrival, Client, Daemon, Gate, Program, WATCHDOG, wait_zombie, worker_command};

/// Long enough for everything that has to happen before the stop.
const TIME: &str = "5s";

/// Waits until that time has passed: it has for a request that began later.
fn time_passes() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--busy-timeout", TIME, "--retries", "0"]);
    assert_eq!(daemon.ask("hang"), "ERR\n");
}

/// Waits until a process does what `/proc` shows in this file.
#[track_caller]
fn wait_for(pid: i32, file: &str, wanted: impl Fn(&str) -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    loop {
        let shown = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        if wanted(&shown) {
            return;
        }
        assert!(Instant::now() < deadline, "process {pid}: {shown}");
        std::thread::yield_now();
    }
}

/// It has written as much as the pipe takes, or waits for something that is not its gate.
fn is_writing(syscall: &str) -> bool {
    syscall.starts_with("1 0x1 ")
}

/// Clients that wait for workers at a gate, and these.
fn at_work(daemon: &Daemon, gate: &Gate, texts: &[String]) -> (Vec<Client>, Vec<Arrival>) {
    let mut clients: Vec<Client> = texts.iter().map(|_| daemon.client()).collect();
    for (client, text) in clients.iter_mut().zip(texts) {
        client.send(format!("wait {} {text}\n", gate.path()));
    }
    (clients, texts.iter().map(|_| gate.arrival()).collect())
}

/// Waits until the daemon has taken all that was sent to it. The turn in which it hears of the first signal may report
/// before it reads, the next one not.
fn wait_until_taken(daemon: &Daemon) {
    daemon.usr1();
    daemon.usr1();
}

#[test]
fn answers_given_while_the_daemon_was_suspended_arrive() {
    let gate = Gate::new();
    let times = ["--busy-timeout", TIME, "--read-timeout", TIME, "--max-request", "1M"];
    let daemon = Daemon::pool(6, &worker_command(&[]), &times);
    // One has more to say than its pipe takes, so that it cannot go on before the daemon does.
    let mut texts: Vec<String> = (0..5).map(|number| format!("answer {number}")).collect();
    texts.push("long ".repeat(100_000));
    let mut slow = daemon.watched_client();
    slow.send("echo half ");
    let (mut clients, arrivals) = at_work(&daemon, &gate, &texts);
    daemon.stop();
    let pids: Vec<i32> = arrivals.iter().map(|arrival| arrival.pid).collect();
    arrivals.into_iter().for_each(Arrival::open);
    // The workers that have answered read their input again.
    let goes_on = |syscall: &str| is_writing(syscall) || syscall.starts_with("0 0x0 ");
    pids.iter().for_each(|pid| wait_for(*pid, "syscall", goes_on));
    slow.send("and half\n");
    time_passes();
    daemon.signal(Signal::SIGCONT);
    for (client, text) in clients.iter_mut().zip(&texts) {
        let answer = client.read_to_end();
        assert_eq!(String::from_utf8_lossy(&answer).trim_end(), text.trim_end());
    }
    assert_eq!(slow.read_to_end(), b"half and half\n");
    let stats = daemon.usr1();
    let lost = ["died", "timeout", "desync"].map(|why| stats.count(&format!("restarts {why}")));
    assert_eq!((lost, stats.count("queries failed")), ([0; 3], 0));
}

/// Its turn comes as late as everything else, with a worker that has answered in time.
#[test]
fn a_request_that_waited_while_the_daemon_was_suspended_is_served() {
    let gate = Gate::new();
    for rest in ["0s", "50ms"] {
        let times = ["--busy-timeout", "60s", "--queue-timeout", TIME, "--rest", rest];
        let daemon = Daemon::pool(1, &worker_command(&[]), &times);
        let (mut clients, mut arrivals) = at_work(&daemon, &gate, &["first".to_owned()]);
        let mut second = daemon.client();
        second.send("echo second\n");
        daemon.usr1_until(|stats| stats.count("queue length") == 1);
        daemon.stop();
        let arrival = arrivals.pop().expect("one");
        let pid = arrival.pid;
        arrival.open();
        wait_for(pid, "syscall", |syscall| syscall.starts_with("0 0x0 "));
        time_passes();
        daemon.signal(Signal::SIGCONT);
        assert_eq!(clients[0].read_to_end(), b"first\n");
        assert_eq!(second.read_to_end(), b"second\n", "--rest {rest}");
    }
}

/// A worker without anything to say is stopped all the same, and soon.
#[test]
fn a_worker_that_has_not_answered_by_then_is_stopped() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--busy-timeout", TIME, "--retries", "0"]);
    let (mut clients, mut arrivals) = at_work(&daemon, &gate, &["never".to_owned()]);
    daemon.stop();
    time_passes();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(clients[0].read_to_end(), b"ERR\n");
    arrivals.pop().expect("one").wait_killed();
    assert_eq!(daemon.usr1().count("restarts timeout"), 1);
}

#[test]
fn a_program_that_ended_while_the_daemon_was_suspended_was_in_time() {
    let gate = Gate::new();
    let (daemon, _home) = door(&["--timeout", TIME]);
    let mut client = ExecClient::connect(&daemon);
    let worker = shell_words::split(&worker_command(&[])).expect("words");
    let words: Vec<&str> = worker.iter().map(String::as_str).collect();
    client.send(request(&words));
    client.send(netstring(format!("wait {} done\n", gate.path()).as_bytes()));
    client.send("0:,");
    let arrival = gate.arrival();
    wait_until_taken(&daemon);
    daemon.stop();
    let pid = arrival.pid;
    arrival.open();
    wait_zombie(pid);
    time_passes();
    daemon.signal(Signal::SIGCONT);
    let outcome = client.outcome();
    assert_eq!((outcome.text().as_str(), outcome.code()), ("done\n", "0"));
    assert_eq!(daemon.usr1().count("runs timeout"), 0);
}

/// A command that runs a worker, with these limits. It gets its words at its gate, and ends with its input.
fn at_command(limits: &str) -> (Torc, Daemon) {
    let group = format!("name = 'work'; cmd = '@/work'; {limits}");
    let torc = torc(&[&group]).script("work", &format!("exec {}", worker_command(&[])));
    let daemon = torc.serve(&["--quiet-time", "1s"]);
    (torc, daemon)
}

/// A client of it whose worker is to say this.
fn commanding(daemon: &Daemon, gate: &Gate, text: &str) -> Client {
    let mut client = daemon.client();
    client.send(format!("work\nwait {} {text}\n", gate.path()));
    client.half_close();
    client
}

/// More than a pipe takes, so that a program that says it cannot go on before the daemon does.
fn long_text() -> String {
    "long".repeat(100_000)
}

#[test]
fn a_command_that_answered_while_the_daemon_was_suspended_was_in_time() {
    let gate = Gate::new();
    let (_torc, daemon) = at_command("threads = 2; timeout = 5;");
    let (mut short, at_short) = (commanding(&daemon, &gate, "done"), gate.arrival());
    let (mut long, at_long) = (commanding(&daemon, &gate, &long_text()), gate.arrival());
    wait_until_taken(&daemon);
    daemon.stop();
    let pids = (at_short.pid, at_long.pid);
    at_short.open();
    at_long.open();
    wait_zombie(pids.0);
    wait_for(pids.1, "syscall", is_writing);
    time_passes();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(String::from_utf8_lossy(&short.read_to_end()), "done\n");
    let answer = String::from_utf8(long.read_to_end()).expect("text");
    assert!(
        answer.strip_suffix('\n') == Some(&long_text()),
        "{} bytes",
        answer.len()
    );
    assert_eq!(daemon.usr1().count("runs timeout"), 0);
}

/// Its turn came as late as everything else.
#[test]
fn a_client_that_waited_for_a_command_while_the_daemon_was_suspended_gets_it() {
    let gate = Gate::new();
    let (_torc, daemon) = at_command("threads = 1; queue = 1; max_wait = 5; timeout = 60;");
    let mut first = commanding(&daemon, &gate, &long_text());
    let arrival = gate.arrival();
    let mut second = commanding(&daemon, &gate, "second");
    daemon.usr1_until(|stats| stats.count("runs waiting") == 1);
    daemon.stop();
    let pid = arrival.pid;
    arrival.open();
    wait_for(pid, "syscall", is_writing);
    time_passes();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(first.read_to_end().len(), long_text().len() + 1);
    gate.arrival().open();
    assert_eq!(String::from_utf8_lossy(&second.read_to_end()), "second\n");
    assert_eq!(daemon.usr1().count("runs busy"), 0);
}

/// A listener whose queue is full, so that the kernel answers no further client before one is accepted.
fn full_listener() -> (TcpListener, TcpStream) {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("bind");
    listen(&socket, Backlog::new(0).expect("a number of the kernel's")).expect("listen");
    let listener = TcpListener::from(socket);
    let first = TcpStream::connect(listener.local_addr().expect("an address")).expect("the queue has one place");
    (listener, first)
}

/// The connection was made while it was stopped, and its time for that is over when it goes on.
#[test]
fn a_connection_made_while_call_was_suspended_is_used() {
    let (listener, _first) = full_listener();
    let address = listener.local_addr().expect("an address");
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    let caller = Program::start(command.args(["call", "--connect-timeout", TIME, &address.to_string(), "run"]));
    // Its first packet is out (state 02, SYN_SENT), and no answer comes.
    let asked = format!(" 0100007F:{:04X} 02 ", address.port());
    wait_for(caller.pid(), "net/tcp", |connections| connections.contains(&asked));
    caller.stop();
    let _waited = listener.accept().expect("the first");
    let (mut second, _) = listener.accept().expect("call, once the kernel has asked again");
    time_passes();
    caller.signal(Signal::SIGCONT);
    let mut asked = [0; 10];
    second.read_exact(&mut asked).expect("a request");
    assert_eq!(&asked, b"1:1,3:run,");
    second.write_all(b"8:exitcode,1:6,").expect("write");
    drop(second);
    let (status, _, complaint) = caller.finish();
    assert_eq!((status.code(), complaint.as_str()), (Some(6), ""));
}

#[test]
fn an_answer_that_came_while_ask_was_suspended_is_the_answer() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--busy-timeout", "60s"]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
    let address = daemon.addr().to_string();
    let mut asker = Program::start(command.args(["ask", "--squid", "--timeout", TIME, &address]));
    let stdin = asker.stdin.as_mut().expect("its standard input is open");
    std::io::Write::write_all(stdin, format!("wait {} yes\n", gate.path()).as_bytes()).expect("write to ask");
    let arrival = gate.arrival();
    asker.stop();
    arrival.open();
    daemon.usr1_until(|stats| stats.count("queries replied") == 1);
    time_passes();
    asker.signal(Signal::SIGCONT);
    asker.stdin = None;
    let (status, said, _) = asker.finish();
    assert_eq!((status.code(), said.as_str()), (Some(0), "yes"));
}
