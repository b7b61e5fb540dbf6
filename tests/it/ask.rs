//! `iotcpd ask`: for people and scripts (replies byte for byte, in order), and as Squid's helper (one answer for every
//! line, whatever becomes of the pools).

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tempfile::TempDir;

use crate::harness::{Daemon, Gate, Program, WATCHDOG, temp_dir, worker_command};

/// `iotcpd ask` at work: lines go in, answers are waited for one by one.
struct Asker {
    program: Program,
    seen: usize,
}

impl Asker {
    #[track_caller]
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        Self {
            program: Program::start(command.arg("ask").args(arguments)),
            seen: 0,
        }
    }

    /// One that asks a daemon and has all the time in the world.
    #[track_caller]
    fn of(daemon: &Daemon, flags: &[&str]) -> Self {
        let address = daemon.addr().to_string();
        Self::start(&[flags, &["--timeout", "600s", address.as_str()]].concat())
    }

    #[track_caller]
    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.program.stdin.as_mut().expect("its standard input is open");
        stdin.write_all(bytes.as_ref()).expect("write to ask");
    }

    /// Its next answer.
    #[track_caller]
    fn answer(&mut self) -> String {
        let waited = self.program.stdout.wait_from(self.seen, |_| true);
        let (_, line) = waited.unwrap_or_else(|why| self.program.fail(&format!("wanted an answer: {why}")));
        self.seen += 1;
        line
    }

    #[track_caller]
    fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.answer()
    }

    /// Ends its input: its exit status, the answers not waited for yet, and what it said on standard error.
    #[track_caller]
    fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        drop(self.program.stdin.take());
        let (status, stdout, stderr) = self.program.finish();
        let rest = stdout.lines().skip(self.seen).map(str::to_owned).collect();
        (status.code(), rest, stderr)
    }
}

/// A pool of workers with these flags that nobody is ever refused by for want of time.
#[track_caller]
fn pool(workers: u32, flags: &[&str]) -> Daemon {
    Daemon::pool(
        workers,
        &worker_command(flags),
        &["-b", "600s", "--queue-timeout", "600s"],
    )
}

fn nothing() -> Vec<String> {
    Vec::new()
}

/// Something that is no pool: it accepts, reads a line, writes fixed bytes and closes.
struct Fake {
    home: TempDir,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    fn that_says(bytes: &'static [u8]) -> Self {
        let home = temp_dir();
        let listener = UnixListener::bind(home.path().join("fake")).expect("bind a fake");
        let ending = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ending);
        let thread = thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.expect("accept as a fake");
                if flag.load(Ordering::SeqCst) {
                    return;
                }
                let mut line = Vec::new();
                BufReader::new(&connection).read_until(b'\n', &mut line).ok();
                // Whoever asked may have gone; the answers that matter are looked at by the test.
                connection.write_all(bytes).ok();
            }
        });
        Self {
            home,
            ending,
            thread: Some(thread),
        }
    }

    fn address(&self) -> String {
        format!("unix:{}", self.home.path().join("fake").display())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, which then sees the flag.
        UnixStream::connect(self.home.path().join("fake")).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

// ---- plainly ---------------------------------------------------------------------------------------------------

#[test]
fn replies_come_in_the_order_of_the_lines() {
    let gate = Gate::new();
    let daemon = pool(4, &[]);
    let mut asker = Asker::of(&daemon, &[]);
    asker.send(format!("wait {} 0\n", gate.path()));
    let arrival = gate.arrival();
    for number in 1..200 {
        asker.send(format!("echo {number}\n"));
    }
    daemon.usr1_until(|stats| stats.count("queries replied") >= 3);
    assert_eq!(asker.program.stdout.text(), "", "the first reply is still to come");
    arrival.open();
    for number in 0..200 {
        assert_eq!(asker.answer(), number.to_string());
    }
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

#[test]
fn a_reply_of_a_mebibyte_comes_whole() {
    let daemon = pool(1, &[]);
    let mut asker = Asker::of(&daemon, &[]);
    let reply = asker.ask("big 1048576");
    assert_eq!(reply.len(), 1_048_576);
    assert!(
        reply
            .bytes()
            .zip((b'0'..=b'9').cycle())
            .all(|(got, wanted)| got == wanted)
    );
    assert_eq!(asker.ask("echo after"), "after");
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

#[test]
fn the_last_line_needs_no_newline_and_no_line_no_answer() {
    let daemon = pool(1, &[]);
    let mut asker = Asker::of(&daemon, &[]);
    asker.send("echo one\necho two");
    assert_eq!(
        asker.end(),
        (Some(0), vec!["one".to_owned(), "two".to_owned()], String::new())
    );
    for flags in [&[][..], &["--squid"]] {
        assert_eq!(Asker::of(&daemon, flags).end(), (Some(0), nothing(), String::new()));
    }
    assert_eq!(daemon.usr1().count("queries total"), 2);
}

#[test]
fn a_carriage_return_is_part_of_a_plain_line() {
    let daemon = pool(1, &[]);
    let mut asker = Asker::of(&daemon, &[]);
    assert_eq!(asker.ask("length x\r"), "9");
    assert_eq!(asker.ask("echo x\r"), "x\r");
    assert_eq!(asker.ask(""), "unknown ");
}

// ---- pools that are away ---------------------------------------------------------------------------------------

#[test]
fn the_next_address_is_asked_when_one_is_away_and_the_first_again_when_it_is_back() {
    let home = temp_dir();
    let first = format!("unix:{}", home.path().join("first").display());
    let (old, new) = (worker_command(&["old"]), worker_command(&["new"]));
    let daemon = Daemon::with(["-n", "1", "-d", old.as_str(), "--listen", &first]).start();
    let other = pool(1, &["second"]);
    let mut asker = Asker::start(&["--timeout", "600s", &first, &other.addr().to_string()]);
    let mut answers: BTreeSet<String> = (0..10).map(|_| asker.ask("arguments")).collect();
    assert!(answers.remove("\"old\""), "{answers:?}");

    drop(daemon);
    for _ in 0..10 {
        assert_eq!(asker.ask("arguments"), "\"second\"");
    }
    asker.program.stderr_wait(&format!("{first}: "));

    let daemon = Daemon::with(["-n", "1", "-d", new.as_str(), "--listen", &first]).start();
    let deadline = Instant::now() + WATCHDOG;
    while asker.ask("arguments") != "\"new\"" {
        assert!(Instant::now() < deadline, "the first address is never asked again");
    }
    asker.program.stderr_wait(&format!("{first} answers again"));
    assert_eq!(asker.end().0, Some(0));
    drop(daemon);
}

#[test]
fn every_line_gets_the_text_for_failures_while_all_pools_are_away() {
    let home = temp_dir();
    let nobody = format!("unix:{}", home.path().join("nobody").display());
    // An address that no other test uses: one of them might get the port.
    let closed = TcpListener::bind("127.10.10.10:0")
        .expect("bind a port")
        .local_addr()
        .expect("its address")
        .to_string();
    for (flags, answers) in [
        (&[][..], ["ERR", "ERR", "ERR"]),
        (
            &["--on-failure", "BH message=\"no pool\""],
            ["BH message=\"no pool\""; 3],
        ),
        (&["--squid"], ["1 ERR", "22 ERR", "333 ERR"]),
        (&["--squid", "--on-failure", "BH"], ["1 BH", "22 BH", "333 BH"]),
    ] {
        let addresses = [nobody.as_str(), closed.as_str()];
        let mut asker = Asker::start(&[&["--timeout", "200ms"], flags, &addresses].concat());
        for (line, answer) in ["1 echo x", "22 echo x", "333 echo x"].into_iter().zip(answers) {
            assert_eq!(asker.ask(line), answer, "{flags:?}");
        }
        let (status, rest, stderr) = asker.end();
        let is_squid = flags.contains(&"--squid");
        assert_eq!(
            (status, rest),
            (Some(i32::from(!is_squid)), nothing()),
            "{flags:?}: {stderr}"
        );
        assert!(stderr.contains(&nobody) && stderr.contains(&closed), "{stderr}");
        assert_eq!(stderr.contains("3 of 3 lines were not answered"), !is_squid, "{stderr}");
    }
}

#[test]
fn a_pool_that_hangs_costs_the_time_out_and_no_more() {
    let daemon = pool(1, &["--never-read"]);
    // The kernel accepts for it; nobody ever reads.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    for address in [
        daemon.addr().to_string(),
        deaf.local_addr().expect("its address").to_string(),
    ] {
        let mut asker = Asker::start(&["--squid", "--timeout", "100ms", &address]);
        asker.send("7 echo a\n8 echo b\n9 echo c\n");
        let answers: BTreeSet<String> = (0..3).map(|_| asker.answer()).collect();
        assert_eq!(answers, ["7 ERR", "8 ERR", "9 ERR"].map(str::to_owned).into());
        assert_eq!(asker.ask("10 echo d"), "10 ERR");
        assert_eq!(asker.end().0, Some(0));
        let mut asker = Asker::start(&["--timeout", "100ms", "--on-failure", "gone", &address]);
        assert_eq!(asker.ask("echo e"), "gone");
        assert_eq!(asker.end().0, Some(1));
    }
}

#[test]
fn half_an_answer_is_none() {
    let daemon = pool(1, &[]);
    for says in [&b""[..], b"OK rewrite-url=\"http://ha"] {
        let fake = Fake::that_says(says);
        let mut alone = Asker::start(&["--squid", "--timeout", "300ms", &fake.address()]);
        assert_eq!(alone.ask("1 echo x"), "1 ERR", "{says:?}");
        let mut both = Asker::start(&[
            "--squid",
            "--timeout",
            "600s",
            &fake.address(),
            &daemon.addr().to_string(),
        ]);
        for number in 0..10 {
            assert_eq!(
                both.ask(&format!("{number} echo x{number}")),
                format!("{number} x{number}"),
                "{says:?}"
            );
        }
    }
}

#[test]
fn what_comes_behind_an_answer_is_for_nobody() {
    let fake = Fake::that_says(b"OK\r\nERR\n7 ERR\n");
    let mut asker = Asker::start(&["--squid", &fake.address()]);
    for number in 0..10 {
        assert_eq!(asker.ask(&format!("{number} echo x")), format!("{number} OK"));
    }
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

// ---- for Squid -------------------------------------------------------------------------------------------------

#[test]
fn with_channel_ids_answers_come_as_they_are_ready() {
    let gate = Gate::new();
    let daemon = pool(2, &[]);
    let mut asker = Asker::of(&daemon, &["--squid"]);
    asker.send(format!("0 wait {} slow\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(asker.ask("1 echo quick"), "1 quick");
    // Opaque: never counted with, whatever their size.
    for channel in ["007", "18446744073709551616", "99999999999999999999999999999999999999"] {
        assert_eq!(asker.ask(&format!("{channel} echo x")), format!("{channel} x"));
    }
    assert_eq!(asker.ask("2 echo a b  c "), "2 a b  c ");
    assert_eq!(asker.ask("3 echo crlf\r"), "3 crlf");
    arrival.open();
    assert_eq!(asker.answer(), "0 slow");
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

#[test]
fn hundreds_in_flight_each_get_their_own() {
    let daemon = pool(4, &[]);
    let mut asker = Asker::of(&daemon, &["--squid"]);
    let lines: String = (0..2000)
        .map(|number| format!("{number} echo answer-{number}\n"))
        .collect();
    asker.send(lines);
    let answers: BTreeSet<String> = (0..2000).map(|_| asker.answer()).collect();
    assert_eq!(
        answers,
        (0..2000).map(|number| format!("{number} answer-{number}")).collect()
    );
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
    assert_eq!(daemon.usr1().count("queries replied"), 2000);
}

#[test]
fn without_channel_ids_answers_come_in_order() {
    let gate = Gate::new();
    let daemon = pool(2, &[]);
    let mut asker = Asker::of(&daemon, &["--squid"]);
    assert_eq!(asker.ask("echo first\r"), "first");
    asker.send(format!("wait {} 0\necho 1\necho 2\n", gate.path()));
    gate.arrival().open();
    for number in 0..3 {
        assert_eq!(asker.answer(), number.to_string());
    }
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

#[test]
fn input_that_ends_is_answered_to_the_last_line() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut asker = Asker::of(&daemon, &["--squid"]);
    asker.send(format!("1 wait {} a\n2 echo b", gate.path()));
    let arrival = gate.arrival();
    drop(asker.program.stdin.take());
    daemon.usr1_until(|stats| stats.count("queries total") == 2);
    arrival.open();
    assert_eq!(
        asker.end(),
        (Some(0), vec!["1 a".to_owned(), "2 b".to_owned()], String::new())
    );
}

/// The shell opens the pipe that the test reads, says so, and becomes `ask`.
#[test]
fn it_ends_when_nobody_reads_its_answers() {
    let daemon = pool(1, &[]);
    let home = temp_dir();
    let pipe = home.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).expect("make a pipe");
    let reader = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&pipe)
        .expect("open the pipe");
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "exec >\"$1\"; echo open >&2; exec \"$0\" ask --squid \"$2\""]);
    shell
        .arg(env!("CARGO_BIN_EXE_iotcpd"))
        .arg(&pipe)
        .arg(daemon.addr().to_string());
    let mut asker = Program::start(&mut shell);
    asker.stderr_wait("open");
    drop(reader);
    asker
        .stdin
        .as_mut()
        .expect("a pipe")
        .write_all(b"1 echo x\n")
        .expect("write to ask");
    let status = asker.wait_exit();
    // Squid ends its helpers like that.
    assert_eq!(status.code(), Some(0));
}
