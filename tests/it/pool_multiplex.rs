//! Multiplexed connections: the hello, requests behind numbers, answers in any order, wrong lines, cancellation, and
//! every way in which such a connection ends. `doc/protocol.md` is the contract.

use std::collections::HashMap;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Address, Client, Daemon, Gate, Installation, temp_dir, worker_command};
use crate::upgrade::upgrade;

const HELLO: &str = "iotcpd-multiplex 1\n";
const PATIENT: [&str; 4] = ["--queue-timeout", "60s", "--busy-timeout", "600s"];
/// The shortest time of `--slow-log`.
const SLOW: Duration = Duration::from_millis(1);

fn pool_of(workers: u32, worker: &[&str], flags: &[&str]) -> Daemon {
    let daemon = Daemon::pool(workers, &worker_command(worker), &[&PATIENT, flags].concat());
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == u64::from(workers));
    daemon
}

fn pool(workers: u32, flags: &[&str]) -> Daemon {
    pool_of(workers, &[], flags)
}

/// A client that has said hello and got the limits.
fn multiplexed(daemon: &Daemon) -> Client {
    let mut client = daemon.client();
    client.send(HELLO);
    let welcome = client.read_line();
    assert!(welcome.starts_with("iotcpd-multiplex 1 max-unanswered="), "{welcome}");
    client
}

/// The lines to the end of the connection.
fn rest(client: &mut Client) -> Vec<String> {
    let text = String::from_utf8(client.read_to_end()).expect("the workers write ASCII");
    text.lines().map(str::to_owned).collect()
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

// ---- the hello --------------------------------------------------------------------------------------------------

#[test]
fn the_hello_is_answered_by_the_limits_of_the_pool() {
    let of = |flags: &[&str], wanted: &str| {
        let daemon = pool(2, flags);
        let mut client = daemon.client();
        client.send(HELLO);
        assert_eq!(client.read_line(), format!("iotcpd-multiplex 1 {wanted}"));
    };
    of(&[], "max-unanswered=512 max-request=65536 at-once=2");
    of(&["--pipeline", "16"], "max-unanswered=512 max-request=65536 at-once=32");
    of(
        &["--max-unanswered", "7", "--max-request", "300", "--persistent"],
        "max-unanswered=7 max-request=300 at-once=2",
    );
    let daemon = pool_of(1, &["--concurrent"], &["--concurrency", "8"]);
    let mut client = daemon.client();
    client.send(HELLO);
    assert!(client.read_line().ends_with(" at-once=8"));
}

#[test]
fn a_hello_may_come_in_pieces_with_a_carriage_return_or_of_a_later_version() {
    let daemon = pool(1, &[]);
    for hello in [HELLO, "iotcpd-multiplex 1\r\n", "iotcpd-multiplex 2 later=1\n"] {
        let mut client = daemon.client();
        for byte in hello.as_bytes() {
            client.send([*byte]);
        }
        client.send("5 echo five\n");
        assert!(client.read_line().starts_with("iotcpd-multiplex 1 "), "{hello:?}");
        assert_eq!(client.read_line(), "5 five");
    }
    assert_eq!(daemon.usr1().count("multiplexed total"), 3);
}

#[test]
fn everything_may_be_sent_before_the_first_read() {
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    client.send(format!("{HELLO}1 echo one\n2 echo two\n3 echo three"));
    client.send("\n");
    client.half_close();
    let lines = rest(&mut client);
    assert!(lines[0].starts_with("iotcpd-multiplex 1 "));
    assert_eq!(sorted(lines[1..].to_vec()), ["1 one", "2 two", "3 three"]);
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("multiplexed"), stats.count("multiplexed lines")), (0, 3));
}

#[test]
fn a_first_line_that_is_no_hello_is_a_request_as_ever() {
    let daemon = pool(1, &[]);
    for line in [
        "iotcpd-multi",
        "iotcpd-multiplex",
        "iotcpd-multiplexer 1",
        "7 echo x",
        " iotcpd-multiplex 1",
    ] {
        assert_eq!(daemon.ask(line), format!("unknown {line}\n"));
    }
    assert_eq!(daemon.usr1().count("multiplexed total"), 0);
}

#[test]
fn a_hello_never_reaches_a_worker_where_it_is_not_offered_or_comes_late() {
    let daemon = pool(1, &["--no-multiplex"]);
    let mut client = daemon.client();
    client.send(HELLO);
    assert_eq!(client.read_to_end(), b"ERR\n");
    assert_eq!(daemon.usr1().count("refused bad-line"), 1);

    let daemon = pool(
        1,
        &["--no-multiplex", "--request-framing", "eof", "--reply-framing", "eof"],
    );
    let mut client = daemon.client();
    client.send(HELLO);
    client.half_close();
    assert_eq!(client.read_to_end(), b"ERR\n");

    let daemon = pool(1, &["--persistent"]);
    let mut client = daemon.client();
    client.send(format!("echo one\n{HELLO}echo two\n"));
    client.half_close();
    assert_eq!(client.read_to_end(), b"one\nERR\ntwo\n");
    let mut client = multiplexed(&daemon);
    client.send("1 iotcpd-multiplex 1\n2 echo two\n");
    client.half_close();
    assert_eq!(sorted(rest(&mut client)), ["1 ERR", "2 two"]);
    assert_eq!(daemon.usr1().count("refused bad-line"), 2);
}

#[test]
fn the_hello_may_stand_behind_the_header_of_a_proxy() {
    let daemon = pool(1, &["--accept-proxy", "127.0.0.1"]);
    let mut client = daemon.client();
    client.send(format!(
        "PROXY TCP4 192.0.2.7 192.0.2.8 1234 80\r\n{HELLO}1 echo one\nwrong\n"
    ));
    assert!(client.read_line().starts_with("iotcpd-multiplex 1 "));
    assert_eq!(client.read_to_end(), b"1 one\n");
    daemon.stderr_wait("refused 192.0.2.7:1234 (by way of 127.0.0.1");
}

// ---- requests and answers ---------------------------------------------------------------------------------------

#[test]
fn answers_come_as_soon_as_they_are_there() {
    let gate = Gate::new();
    let daemon = pool(2, &[]);
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} slow\n2 echo fast\n", gate.path()));
    assert_eq!(client.read_line(), "2 fast");
    client.send("3 echo later\n");
    assert_eq!(client.read_line(), "3 later");
    gate.arrival().open();
    assert_eq!(client.read_line(), "1 slow");
}

#[test]
fn numbers_belong_to_their_connection_alone() {
    let (gate, other_gate) = (Gate::new(), Gate::new());
    let daemon = pool(2, &[]);
    let (mut one, mut other) = (multiplexed(&daemon), multiplexed(&daemon));
    one.send(format!("7 wait {} mine\n", gate.path()));
    let arrival = gate.arrival();
    other.send(format!("7 wait {} yours\n", other_gate.path()));
    other_gate.arrival().open();
    assert_eq!(other.read_line(), "7 yours");
    arrival.open();
    assert_eq!(one.read_line(), "7 mine");
}

#[test]
fn every_number_is_good_and_an_empty_request_is_one() {
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    for number in [0, 10, u32::MAX] {
        client.send(format!("{number} echo x\r\n"));
        assert_eq!(client.read_line(), format!("{number} x\r"));
    }
    client.send("5\n");
    assert_eq!(client.read_line(), "5 unknown ");
    client.send("6 \n");
    assert_eq!(client.read_line(), "6 unknown ");
    client.send("8 bare\n");
    assert_eq!(client.read_line(), "8 ");
}

#[test]
fn four_thousand_requests_are_under_way_at_once() {
    const MANY: u32 = 4096;
    let daemon = pool(
        4,
        &["--max-unanswered", "4096", "--queue-size", "5000", "--pipeline", "64"],
    );
    let mut client = multiplexed(&daemon);
    let lines: String = (0..MANY)
        .map(|number| format!("{number} echo {}\n", number ^ 0x55))
        .collect();
    client.send(lines);
    client.half_close();
    let answers: HashMap<u32, u32> = rest(&mut client)
        .iter()
        .map(|line| {
            let (number, answer) = line.split_once(' ').expect("a number and an answer");
            (number.parse().expect("a number"), answer.parse().expect("a number"))
        })
        .collect();
    assert_eq!(answers.len(), MANY as usize);
    assert!(answers.iter().all(|(number, answer)| answer ^ 0x55 == *number));
}

// ---- wrong lines ------------------------------------------------------------------------------------------------

#[test]
fn a_wrong_request_costs_its_number_a_refusal_and_nothing_else() {
    let gate = Gate::new();
    let daemon = pool(1, &["--max-request", "300"]);
    let mut client = multiplexed(&daemon);
    client.send(format!("9 wait {} held\n", gate.path()));
    let arrival = gate.arrival();
    for wrong in ["a\0b", "a\rb", &"x".repeat(301), &"x".repeat(400), &"x".repeat(200_000)] {
        client.send(format!("1 {wrong}\n"));
        assert_eq!(client.read_line(), "1 ERR");
    }
    client.send("9 echo twice\n");
    assert_eq!(client.read_line(), "9 ERR");
    let longest = "x".repeat(300 - "length ".len());
    client.send(format!("4294967295 length {longest}\n"));
    arrival.open();
    let lines = [client.read_line(), client.read_line()];
    assert_eq!(sorted(lines.to_vec()), ["4294967295 300", "9 held"]);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused long-line"), stats.count("refused bad-line")),
        (3, 3)
    );
    assert_eq!(stats.count("multiplexed lines"), 8);
    daemon.stderr_wait("its request has the number 9, as one under way has");
}

#[test]
fn a_line_that_is_too_long_is_skipped_in_whatever_pieces_it_comes() {
    let daemon = pool(1, &["--max-request", "50"]);
    for size in [1, 7, 63, 64, 65, 1000] {
        let mut client = multiplexed(&daemon);
        let text = format!("1 echo a\n2 {}\n3 echo c\n", "y".repeat(500));
        for piece in text.as_bytes().chunks(size) {
            client.send(piece);
        }
        client.half_close();
        assert_eq!(sorted(rest(&mut client)), ["1 a", "2 ERR", "3 c"], "{size}");
    }
}

#[test]
fn a_line_without_a_number_ends_the_connection_behind_all_answers() {
    for wrong in [
        "http://a/",
        "",
        "01 x",
        "4294967296 x",
        "-1 x",
        "!drain",
        "!cancel",
        "!cancel x",
        &"z".repeat(90_000),
    ] {
        let gate = Gate::new();
        let daemon = pool(1, &[]);
        let mut client = multiplexed(&daemon);
        client.send(format!("1 wait {} one\n2 echo two\n", gate.path()));
        let arrival = gate.arrival();
        client.send(format!("{wrong}\n3 echo never\n"));
        daemon.stderr_wait("its line has no number, so the connection ends");
        arrival.open();
        assert_eq!(sorted(rest(&mut client)), ["1 one", "2 two"], "{wrong:?}");
    }
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    client.send("nothing under way\n");
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn an_unfinished_line_costs_the_connection() {
    let daemon = pool(1, &["--read-timeout", "300ms", "--max-request", "100"]);
    for unfinished in ["2 echo tw", &format!("2 {}", "x".repeat(500))] {
        let mut client = multiplexed(&daemon);
        client.send(format!("1 echo one\n{unfinished}"));
        assert_eq!(sorted(rest(&mut client)), ["1 one", "2 ERR"]);
        let mut client = multiplexed(&daemon);
        client.send(format!("1 echo one\n{unfinished}"));
        client.half_close();
        assert_eq!(sorted(rest(&mut client)), ["1 one", "2 ERR"]);
    }
    let mut client = multiplexed(&daemon);
    client.send("no number");
    assert_eq!(client.read_to_end(), b"");
}

#[test]
fn a_refusal_is_the_first_line_of_the_error_reply() {
    for (text, wanted) in [
        ("BH", "1 BH"),
        ("BH\\n", "1 BH"),
        ("a\\nb\\n", "1 a"),
        ("", "1 "),
        ("\\nx", "1 "),
    ] {
        let daemon = pool(1, &["--error-reply", text, "--retries", "0"]);
        let mut client = multiplexed(&daemon);
        client.send("1 echo up\n");
        assert_eq!(client.read_line(), "1 up");
        client.send("1 a\0b\n");
        assert_eq!(client.read_line(), wanted, "{text:?}");
        client.send("1 die\n");
        assert_eq!(client.read_line(), wanted, "{text:?}");
    }
}

// ---- refusals, workers, features --------------------------------------------------------------------------------

#[test]
fn every_refusal_of_the_pool_comes_behind_its_number() {
    let gate = Gate::new();
    let daemon = pool(1, &["--queue-size", "1", "--retries", "0", "--max-reply", "1000"]);
    let mut client = multiplexed(&daemon);
    client.send("1 echo up\n");
    assert_eq!(client.read_line(), "1 up");
    client.send(format!("1 wait {} held\n2 die\n3 echo too many\n", gate.path()));
    assert_eq!(client.read_line(), "3 ERR");
    gate.arrival().open();
    assert_eq!(client.read_line(), "1 held");
    assert_eq!(client.read_line(), "2 ERR");
    client.send("4 big 2000\n");
    assert_eq!(client.read_line(), "4 ERR");
    let stats = daemon.usr1();
    let refused = ["refused queue-full", "refused died", "refused long-reply"].map(|label| stats.count(label));
    assert_eq!(refused, [1, 1, 1]);
}

#[test]
fn a_killed_worker_costs_no_request() {
    let gate = Gate::new();
    let daemon = pool(2, &["--pipeline", "8"]);
    let mut client = multiplexed(&daemon);
    let lines: String = (1..40).map(|number| format!("{number} echo {number}\n")).collect();
    client.send(format!(
        "100 wait {} a\n101 wait {} b\n{lines}",
        gate.path(),
        gate.path()
    ));
    let (one, other) = (gate.arrival(), gate.arrival());
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(one.pid), Signal::SIGKILL).expect("it is there");
    one.wait_killed();
    let again = gate.arrival();
    other.open();
    again.open();
    client.half_close();
    let mut wanted: Vec<String> = (1..40).map(|number| format!("{number} {number}")).collect();
    wanted.extend(["100 a".to_owned(), "101 b".to_owned()]);
    assert_eq!(sorted(rest(&mut client)), sorted(wanted));
}

#[test]
fn workers_with_channel_ids_get_numbers_of_the_pool_and_never_those_of_a_client() {
    let gate = Gate::new();
    let daemon = pool_of(1, &["--concurrent"], &["--concurrency", "8"]);
    let (mut one, mut other) = (multiplexed(&daemon), multiplexed(&daemon));
    one.send(format!("1 wait {} slow\n", gate.path()));
    let arrival = gate.arrival();
    other.send("1 echo fast\n2 id\n");
    assert_eq!(sorted(vec![other.read_line(), other.read_line()])[0], "1 fast");
    arrival.open();
    assert_eq!(one.read_line(), "1 slow");
}

#[test]
fn workers_of_another_framing_serve_it_and_a_reply_of_two_lines_is_refused() {
    let worker = r#"sh -c 'while read -r x; do case $x in two) printf "3:a\nb,";; *) printf "2:ok,";; esac; done'"#;
    let daemon = Daemon::pool(
        1,
        worker,
        &[&PATIENT[..], &["--worker-reply-framing", "netstring"]].concat(),
    );
    let mut client = multiplexed(&daemon);
    client.send("1 one\n");
    assert_eq!(client.read_line(), "1 ok");
    client.send("2 two\n");
    assert_eq!(client.read_line(), "2 ERR");
    daemon.stderr_wait("which --reply-framing line cannot carry");
    client.send("2 three\n");
    assert_eq!(client.read_line(), "2 ok");
}

#[test]
fn known_and_shared_answers_come_behind_their_own_numbers() {
    let gate = Gate::new();
    let daemon = pool(1, &["--cache-size", "1M"]);
    let (mut one, mut other) = (multiplexed(&daemon), multiplexed(&daemon));
    let request = format!("wait {} shared", gate.path());
    one.send(format!("1 {request}\n2 {request}\n"));
    let arrival = gate.arrival();
    other.send(format!("3 {request}\n"));
    daemon.usr1_until(|stats| stats.count("cache shared") == 2);
    arrival.open();
    assert_eq!(sorted(vec![one.read_line(), one.read_line()]), ["1 shared", "2 shared"]);
    assert_eq!(other.read_line(), "3 shared");
    other.send(format!("4 {request}\n"));
    assert_eq!(other.read_line(), "4 shared");
    let stats = daemon.usr1();
    assert_eq!((stats.count("cache hits"), stats.count("queries replied")), (1, 4));
}

#[test]
fn nothing_of_a_confidential_request_is_shown() {
    let gate = Gate::new();
    let daemon = pool(1, &["--confidential", "--slow-log", "1ms"]);
    let mut client = multiplexed(&daemon);
    client.send(format!("77 wait {} secret\n78 echo secret\n", gate.path()));
    let arrival = gate.arrival();
    let since = Instant::now();
    let dump = daemon.usr2().join("\n");
    assert!(
        dump.contains("multiplexed, unanswered = 2, ") && !dump.contains("secret"),
        "{dump}"
    );
    while since.elapsed() < SLOW * 2 {
        thread::yield_now();
    }
    arrival.open();
    assert_eq!(
        sorted(vec![client.read_line(), client.read_line()]),
        ["77 secret", "78 secret"]
    );
    daemon.stderr_wait("more than --slow-log");
    assert!(!daemon.stderr.text().contains("secret"));
}

#[test]
fn the_statistics_and_the_dump_tell_of_multiplexed_connections() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut one_shot = daemon.client();
    one_shot.send(format!("wait {} x\n", gate.path()));
    let arrival = gate.arrival();
    let mut client = multiplexed(&daemon);
    client.send("1 echo a\n2 echo b\n3 \0\n");
    assert_eq!(client.read_line(), "3 ERR");
    let stats = daemon.usr1();
    let labels = ["multiplexed", "multiplexed total", "multiplexed lines", "queue length"];
    assert_eq!(labels.map(|label| stats.count(label)), [1, 1, 3, 2]);
    let dump = daemon.usr2();
    let line = |word: &str| {
        dump.iter()
            .filter(|line| line.starts_with("pool: client ") && line.contains(word))
            .count()
    };
    assert_eq!(
        (line("multiplexed, unanswered = 2, "), line(", unanswered = 1, ")),
        (1, 1),
        "{dump:#?}"
    );
    arrival.open();
    assert_eq!(one_shot.read_to_end(), b"x\n");
    client.half_close();
    assert_eq!(sorted(rest(&mut client)), ["1 a", "2 b"]);
    daemon.usr1_until(|stats| stats.count("multiplexed") == 0);
}

// ---- cancelling -------------------------------------------------------------------------------------------------

#[test]
fn a_cancelled_request_that_waits_costs_no_worker_anything() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} held\n2 served\n3 served\n", gate.path()));
    let arrival = gate.arrival();
    client.send("!cancel 2\n");
    assert_eq!(client.read_line(), "2 ERR");
    let stats = daemon.usr1();
    let labels = ["queue length", "queries cancelled", "queries timeout"];
    assert_eq!(labels.map(|label| stats.count(label)), [1, 1, 1]);
    client.send("2 served\n");
    arrival.open();
    let lines = vec![client.read_line(), client.read_line(), client.read_line()];
    assert_eq!(lines, ["1 held", "3 2", "2 3"], "the worker has had three requests");
}

#[test]
fn the_late_answer_to_a_cancelled_request_goes_to_no_client() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} late\n", gate.path()));
    let arrival = gate.arrival();
    client.send("!cancel 1\n1 echo again\n");
    assert_eq!(client.read_line(), "1 ERR");
    arrival.open();
    assert_eq!(client.read_line(), "1 again");
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("restarts desync")), (1, 0));
}

#[test]
fn of_a_number_that_is_not_under_way_nothing_follows() {
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    client.send("1 echo one\n");
    assert_eq!(client.read_line(), "1 one");
    client.send("!cancel 1\n!cancel 4294967295\r\n2 echo two\n");
    assert_eq!(client.read_line(), "2 two");
    assert_eq!(daemon.usr1().count("queries cancelled"), 0);
}

#[test]
fn a_cancelled_request_leaves_the_requests_that_share_its_answer_alone() {
    for (cancelled, stays) in [(1, 2), (2, 1)] {
        let gate = Gate::new();
        let daemon = pool(1, &["--cache-size", "1M"]);
        let mut client = multiplexed(&daemon);
        let request = format!("wait {} shared", gate.path());
        client.send(format!("1 {request}\n"));
        let arrival = gate.arrival();
        client.send(format!("2 {request}\n!cancel {cancelled}\n"));
        assert_eq!(client.read_line(), format!("{cancelled} ERR"));
        arrival.open();
        assert_eq!(client.read_line(), format!("{stays} shared"));
        let stats = daemon.usr1();
        assert_eq!((stats.count("queries replied"), stats.count("queries timeout")), (1, 1));
    }
    let (gate, other_gate) = (Gate::new(), Gate::new());
    let daemon = pool(1, &["--cache-size", "1M"]);
    let mut client = multiplexed(&daemon);
    client.send(format!("9 wait {} other\n", other_gate.path()));
    let arrival = other_gate.arrival();
    let request = format!("wait {} shared", gate.path());
    client.send(format!("1 {request}\n2 {request}\n!cancel 1\n!cancel 2\n"));
    assert_eq!([client.read_line(), client.read_line()], ["1 ERR", "2 ERR"]);
    daemon.usr1_until(|stats| stats.count("queue length") == 0);
    arrival.open();
    assert_eq!(client.read_line(), "9 other");
}

// ---- limits and fairness ----------------------------------------------------------------------------------------

#[test]
fn a_connection_with_too_much_under_way_is_not_read_from() {
    let gate = Gate::new();
    let daemon = pool(1, &["--max-unanswered", "2"]);
    let mut client = multiplexed(&daemon);
    let lines: String = (1..100).map(|number| format!("{number} echo {number}\n")).collect();
    client.send(format!("0 wait {} 0\n{lines}", gate.path()));
    let arrival = gate.arrival();
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(stats.count("queries total"), 2);
    client.half_close();
    arrival.open();
    let wanted: Vec<String> = (0..100).map(|number| format!("{number} {number}")).collect();
    assert_eq!(sorted(rest(&mut client)), sorted(wanted));
}

#[test]
fn answers_that_are_not_taken_stop_the_reading_and_nothing_is_lost() {
    const SIZE: usize = 200_000;
    let daemon = pool(2, &["--max-unanswered", "4096"]);
    let mut client = multiplexed(&daemon);
    let lines: String = (100..200).map(|number| format!("{number} big {SIZE}\n")).collect();
    client.send(lines);
    let stats = daemon.usr1_until(|stats| stats.count("queries replied") >= 10);
    assert_eq!(stats.count("queries failed"), 0);
    client.half_close();
    let answer: String = ('0'..='9').cycle().take(SIZE).collect();
    let wanted: Vec<String> = (100..200).map(|number| format!("{number} {answer}")).collect();
    assert!(
        sorted(rest(&mut client)) == wanted,
        "every byte, behind the right number"
    );
}

#[test]
fn a_client_that_never_reads_its_answers_is_closed() {
    let daemon = pool(1, &["--write-timeout", "300ms", "--max-unanswered", "4"]);
    let mut client = multiplexed(&daemon);
    let lines: String = (1..40).map(|number| format!("{number} big 1000000\n")).collect();
    client.send(lines);
    let stats = daemon.usr1_until(|stats| stats.count("refused slow-write") == 1 && stats.count("connections") == 0);
    assert!(stats.count("queries total") < 40);
    assert_eq!(daemon.ask("echo still here"), "still here\n");
}

#[test]
fn an_idle_connection_is_closed_and_one_that_is_owed_an_answer_is_not() {
    let gate = Gate::new();
    let daemon = pool(1, &["--idle-timeout", "300ms"]);
    let mut owed = multiplexed(&daemon);
    owed.send(format!("1 wait {} late\n", gate.path()));
    let arrival = gate.arrival();
    let mut idle = multiplexed(&daemon);
    assert_eq!(idle.read_to_end(), b"");
    daemon.usr1_until(|stats| stats.count("closed idle") == 1);
    arrival.open();
    assert_eq!(owed.read_to_end(), b"1 late\n");
}

/// The requests of the flood are refused at once, so that nothing but the share of a turn bounds them.
#[test]
fn a_flood_on_one_connection_starves_no_other_client() {
    let daemon = pool(2, &["--max-unanswered", "4096"]);
    let Address::Tcp(address) = daemon.addr() else {
        panic!("a pool listens on TCP by default")
    };
    let mut flood = TcpStream::connect(address).expect("connect");
    flood.write_all(HELLO.as_bytes()).expect("send");
    let mut answers = flood.try_clone().expect("the same connection");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut answers, &mut io::sink()));
        scope.spawn(|| {
            let piece = "1 \0\n".repeat(10_000);
            while !is_over.load(Ordering::Relaxed) {
                flood.write_all(piece.as_bytes()).expect("the daemon reads on");
            }
            flood.shutdown(Shutdown::Both).expect("it is connected");
        });
        let mut lines = daemon
            .usr1_until(|stats| stats.count("multiplexed lines") > 0)
            .count("multiplexed lines");
        for _ in 0..20 {
            assert_eq!(daemon.ask("echo served"), "served\n");
            let now = daemon.usr1_until(|stats| stats.count("multiplexed lines") > lines);
            lines = now.count("multiplexed lines");
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

// ---- the end ----------------------------------------------------------------------------------------------------

#[test]
fn the_answer_for_a_connection_that_has_gone_is_for_no_client() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut gone = multiplexed(&daemon);
    gone.send(format!("1 wait {} mine\n2 served\n", gate.path()));
    let arrival = gate.arrival();
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    gone.reset();
    daemon.usr1_until(|stats| stats.count("queue length") == 0 && stats.count("queries timeout") == 2);
    let mut next = multiplexed(&daemon);
    next.send("1 served\n");
    arrival.open();
    assert_eq!(next.read_line(), "1 2");
}

#[test]
fn a_drain_is_announced_and_what_crosses_it_is_served() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} one\n2 echo two\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(client.read_line(), "!drain");
    client.send("3 echo three\n");
    client.half_close();
    arrival.open();
    assert_eq!(sorted(rest(&mut client)), ["1 one", "2 two", "3 three"]);
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_client_that_does_not_follow_a_drain_is_closed_when_it_is_served() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let (mut idle, mut busy) = (multiplexed(&daemon), multiplexed(&daemon));
    busy.send(format!("1 wait {} one\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(idle.read_to_end(), b"!drain\n");
    assert_eq!(busy.read_line(), "!drain");
    arrival.open();
    assert_eq!(busy.read_to_end(), b"1 one\n");
    assert!(daemon.wait_exit().success());
}

/// The lines are long, so that it takes few of them to send more than could have been on its way before the drain.
#[test]
fn a_client_that_sends_on_and_on_after_a_drain_is_not_waited_for() {
    let daemon = pool(2, &["--stop-timeout", "600s"]);
    let Address::Tcp(address) = daemon.addr() else {
        panic!("a pool listens on TCP by default")
    };
    let mut flood = TcpStream::connect(address).expect("connect");
    flood.write_all(HELLO.as_bytes()).expect("send");
    let mut answers = flood.try_clone().expect("the same connection");
    thread::scope(|scope| {
        scope.spawn(move || io::copy(&mut answers, &mut io::sink()));
        scope.spawn(move || {
            let line = format!("1 {}\n", "x".repeat(1 << 20));
            while flood.write_all(line.as_bytes()).is_ok() {}
        });
        daemon.usr1_until(|stats| stats.count("multiplexed lines") > 0);
        daemon.signal(Signal::SIGTERM);
        assert!(daemon.wait_exit().success());
    });
}

#[test]
fn a_reload_asks_clients_to_connect_again_and_serves_them_there() {
    let gate = Gate::new();
    let daemon = pool(2, &[]);
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} one\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGHUP);
    assert_eq!(client.read_line(), "!drain");
    client.send("2 echo two\n");
    assert_eq!(client.read_line(), "2 two");
    let mut next = multiplexed(&daemon);
    next.send("1 echo new\n");
    assert_eq!(next.read_line(), "1 new");
    daemon.usr1_until(|stats| stats.count("restarts asked") >= 1);
    daemon.signal(Signal::SIGHUP);
    assert_eq!(
        next.read_line(),
        "!drain",
        "which the first client has been told already"
    );
    client.half_close();
    arrival.open();
    assert_eq!(client.read_to_end(), b"1 one\n");
    next.send("2 echo stays\n");
    assert_eq!(next.read_line(), "2 stays");
}

/// Requests beyond `--max-unanswered` are read only when others are answered, which may be long after the drain.
#[test]
fn a_request_that_was_sent_before_a_drain_is_served_however_late_it_is_read() {
    let gate = Gate::new();
    let daemon = pool(1, &["--max-unanswered", "2"]);
    let mut idle = multiplexed(&daemon);
    let mut client = multiplexed(&daemon);
    client.send(format!("0 wait {} 0\n1 echo 1\n2 echo 2\n3 echo 3\n", gate.path()));
    let arrival = gate.arrival();
    daemon.signal(Signal::SIGTERM);
    assert_eq!(idle.read_to_end(), b"!drain\n", "the time that the drain gives is over");
    arrival.open();
    assert_eq!(sorted(rest(&mut client)), ["!drain", "0 0", "1 1", "2 2", "3 3"]);
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_hello_that_comes_in_a_drain_is_answered_and_told_of_it() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut holder = daemon.client();
    holder.send(format!("wait {} x\n", gate.path()));
    let arrival = gate.arrival();
    let mut client = daemon.client();
    daemon.usr1_until(|stats| stats.count("connections") == 2);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    client.send(format!("{HELLO}1 echo one\n"));
    assert!(client.read_line().starts_with("iotcpd-multiplex 1 "));
    assert_eq!(client.read_line(), "!drain");
    arrival.open();
    client.half_close();
    assert_eq!(client.read_to_end(), b"1 one\n");
    assert!(daemon.wait_exit().success());
}

#[test]
fn an_upgrade_asks_clients_to_connect_again_to_the_new_process() {
    let (installation, home, gate) = (Installation::new(), temp_dir(), Gate::new());
    let socket = format!("unix:{}/s", home.path().display());
    let daemon = installation.pool(&["--listen", &socket]).args(&PATIENT).start();
    let mut client = multiplexed(&daemon);
    client.send(format!("1 wait {} one\n", gate.path()));
    let arrival = gate.arrival();
    let new = upgrade(&daemon, daemon.pid(), 1);
    assert_eq!(client.read_line(), "!drain");
    client.half_close();
    let mut next = multiplexed(&daemon);
    next.send("1 echo new\n");
    assert_eq!(next.read_line(), "1 new");
    arrival.open();
    assert_eq!(client.read_to_end(), b"1 one\n");
    assert_eq!(daemon.wait_exit().code(), Some(0));
    next.send("2 echo stays\n");
    assert_eq!(next.read_line(), "2 stays");
    assert_ne!(new, daemon.pid());
}

crate::harness::over_tls! {
    a_hello_may_come_in_pieces_with_a_carriage_return_or_of_a_later_version,
    everything_may_be_sent_before_the_first_read,
    a_first_line_that_is_no_hello_is_a_request_as_ever,
    answers_come_as_soon_as_they_are_there,
    four_thousand_requests_are_under_way_at_once,
    a_line_that_is_too_long_is_skipped_in_whatever_pieces_it_comes,
    a_line_without_a_number_ends_the_connection_behind_all_answers,
    an_unfinished_line_costs_the_connection,
    a_killed_worker_costs_no_request,
    a_cancelled_request_that_waits_costs_no_worker_anything,
    a_connection_with_too_much_under_way_is_not_read_from,
    answers_that_are_not_taken_stop_the_reading_and_nothing_is_lost,
    a_client_that_never_reads_its_answers_is_closed,
    an_idle_connection_is_closed_and_one_that_is_owed_an_answer_is_not,
    the_answer_for_a_connection_that_has_gone_is_for_no_client,
    a_drain_is_announced_and_what_crosses_it_is_served,
    a_client_that_does_not_follow_a_drain_is_closed_when_it_is_served,
    a_reload_asks_clients_to_connect_again_and_serves_them_there,
    a_request_that_was_sent_before_a_drain_is_served_however_late_it_is_read,
    a_hello_that_comes_in_a_drain_is_answered_and_told_of_it,
}
