//! Multiplexed connections: the hello, requests behind numbers, answers in any order, wrong lines, cancellation, and
//! every way in which such a connection ends. `doc/protocol.md` is the contract.

use std::collections::HashMap;

use crate::harness::{Client, Daemon, Gate, worker_command};

const HELLO: &str = "iotcpd-multiplex 1\n";
const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

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
    of(&[], "max-unanswered=256 max-request=65536 at-once=2");
    of(&["--pipeline", "16"], "max-unanswered=256 max-request=65536 at-once=32");
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
