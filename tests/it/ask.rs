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
pub(crate) struct Asker {
    pub(crate) program: Program,
    seen: usize,
}

impl Asker {
    #[track_caller]
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_iotcpd"));
        Self {
            program: Program::start(command.arg("ask").args(arguments)),
            seen: 0,
        }
    }

    /// One that asks a daemon and has all the time in the world.
    #[track_caller]
    pub(crate) fn of(daemon: &Daemon, flags: &[&str]) -> Self {
        let address = daemon.addr().to_string();
        Self::start(&[flags, &["--timeout", "600s", address.as_str()]].concat())
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let stdin = self.program.stdin.as_mut().expect("its standard input is open");
        stdin.write_all(bytes.as_ref()).expect("write to ask");
    }

    /// Its next answer.
    #[track_caller]
    pub(crate) fn answer(&mut self) -> String {
        let waited = self.program.stdout.wait_from(self.seen, |_| true);
        let (_, line) = waited.unwrap_or_else(|why| self.program.fail(&format!("wanted an answer: {why}")));
        self.seen += 1;
        line
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.send(format!("{line}\n"));
        self.answer()
    }

    /// Ends its input: its exit status, the answers not waited for yet, and what it said on standard error.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<String>, String) {
        drop(self.program.stdin.take());
        let (status, stdout, stderr) = self.program.finish();
        let rest = stdout.lines().skip(self.seen).map(str::to_owned).collect();
        (status.code(), rest, stderr)
    }
}

/// A pool of workers with these flags that never refuses for want of time.
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
                // The client may have gone; the answers that matter are looked at by the test.
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
    let missing = format!("unix:{}", home.path().join("missing").display());
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
        let addresses = [missing.as_str(), closed.as_str()];
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
        assert!(stderr.contains(&missing) && stderr.contains(&closed), "{stderr}");
        assert_eq!(stderr.contains("3 of 3 lines were not answered"), !is_squid, "{stderr}");
        // The first at once, and all of them at the end of the input.
        let text = answers[0].trim_start_matches("1 ");
        let passed = if text == "ERR" { ", its URL passed" } else { "" };
        assert!(
            stderr.contains(&format!("WARN 1 line answered {text}{passed}: cannot connect to ")),
            "{stderr}"
        );
        let passed = passed.replace("its URL", "their URLs");
        let in_all = format!("WARN 3 of 3 lines answered {text} since the start{passed}");
        assert_eq!(stderr.contains(&in_all), is_squid, "{stderr}");
    }
}

#[test]
fn a_pool_that_hangs_costs_the_time_out_and_no_more() {
    let daemon = pool(1, &["--never-read"]);
    // The kernel accepts for it; the socket is never read.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind a port");
    for address in [
        daemon.addr().to_string(),
        silent.local_addr().expect("its address").to_string(),
    ] {
        let mut asker = Asker::start(&["--squid", "--timeout", "100ms", &address]);
        asker.send("1 echo a\n8 echo b\n9 echo c\n");
        let answers: BTreeSet<String> = (0..3).map(|_| asker.answer()).collect();
        assert_eq!(answers, ["1 ERR", "8 ERR", "9 ERR"].map(str::to_owned).into());
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
fn output_behind_an_answer_goes_to_no_client() {
    let fake = Fake::that_says(b"OK\r\nERR\n7 ERR\n");
    let mut asker = Asker::start(&["--squid", &fake.address()]);
    for number in 0..10 {
        assert_eq!(asker.ask(&format!("{number} echo x")), format!("{number} OK"));
    }
    assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
}

/// A pool that closes the first connections without a byte, as one does that is being restarted, or the balancer before
/// it.
#[test]
fn a_connection_closed_without_a_byte_is_tried_again() {
    let home = temp_dir();
    let path = home.path().join("pool");
    let listener = UnixListener::bind(&path).expect("bind a pool");
    let pool = thread::spawn(move || {
        for number in 0..5 {
            let (mut connection, _) = listener.accept().expect("accept");
            let mut line = String::new();
            BufReader::new(&connection).read_line(&mut line).expect("a line");
            if number == 4 {
                connection.write_all(format!("re {line}").as_bytes()).expect("answer");
            }
        }
    });
    let address = format!("unix:{}", path.display());
    let mut asker = Asker::start(&["--squid", "--timeout", "60s", &address]);
    assert_eq!(asker.ask("1 a"), "1 re a");
    pool.join().expect("it was asked five times");
    let (status, rest, stderr) = asker.end();
    assert_eq!((status, rest), (Some(0), nothing()));
    assert!(!stderr.contains("answered ERR"), "{stderr}");
}

#[test]
fn one_word_says_what_a_failure_means_to_squid() {
    let home = temp_dir();
    let missing = format!("unix:{}", home.path().join("missing").display());
    for (flags, answer) in [
        (&["--fail", "open"][..], "ERR"),
        (&["--fail", "closed"], "302:http://url-filter-unavailable.invalid/"),
        (
            &["--fail", "closed", "--fail-url", "http://a/denied"],
            "302:http://a/denied",
        ),
    ] {
        let mut asker = Asker::start(&[&["--squid", "--timeout", "100ms"], flags, &[missing.as_str()]].concat());
        assert_eq!(asker.ask("1 http://x/"), format!("1 {answer}"));
        let (_, _, stderr) = asker.end();
        assert_eq!(stderr.contains("URL passed"), answer == "ERR", "{stderr}");
        assert!(stderr.contains(&format!("1 line answered {answer}")), "{stderr}");
    }
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
fn a_number_is_a_channel_id_only_where_squid_begins_with_it() {
    let daemon = pool(1, &[]);
    // Names and passwords in the form of auth_param basic.
    let lines = ["1042 pw1042", "1043 pw1043", "42 x y"];
    for flags in [&["--squid"][..], &["--squid", "--channel-ids", "no"]] {
        let mut asker = Asker::of(&daemon, flags);
        for line in lines {
            assert_eq!(asker.ask(line), format!("unknown {line}"), "{flags:?}");
        }
        assert_eq!(asker.end(), (Some(0), nothing(), String::new()));
    }
    let mut told = Asker::of(&daemon, &["--squid", "--channel-ids", "yes"]);
    assert_eq!(told.ask("1042 echo x"), "1042 x");
    let mut told = Asker::of(&daemon, &["--squid", "--channel-ids", "no"]);
    assert_eq!(told.ask("1 pw1"), "unknown 1 pw1");
}

#[test]
fn a_line_that_contradicts_the_first_is_an_error_and_asks_squid_to_ask_again() {
    let daemon = pool(1, &[]);
    for (flags, first, answer, wrong, told) in [
        (&["--squid"][..], "1 echo x", "1 x", "echo x", "BH"),
        (&["--squid"], "0 echo x", "0 x", "http://a/", "BH"),
        (&["--squid", "--channel-ids", "yes"], "7 echo x", "7 x", "echo x", "BH"),
        (&["--squid"], "echo x", "x", "1 echo x", "1 BH"),
        (&["--squid"], "echo x", "x", "0 echo x", "0 BH"),
        (
            &["--squid", "--fail", "closed"],
            "echo x",
            "x",
            "0 x",
            "0 302:http://url-filter-unavailable.invalid/",
        ),
    ] {
        let before = daemon.usr1().count("queries total");
        let mut asker = Asker::of(&daemon, flags);
        assert_eq!(asker.ask(first), answer);
        assert_eq!(asker.ask(wrong), told);
        assert_eq!(asker.ask(first), answer, "the next is as good as ever");
        let (status, _, stderr) = asker.end();
        assert_eq!(status, Some(0));
        assert!(
            stderr.contains("ERROR a line ") && stderr.contains("--channel-ids"),
            "{stderr}"
        );
        assert!(!stderr.contains("http://a/"), "{stderr}");
        assert_eq!(daemon.usr1().count("queries total"), before + 2, "it was asked nowhere");
    }
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
fn it_ends_when_the_reader_of_its_answers_has_gone() {
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
