//! Connections that stay: requests one after the other and ahead of their answers, refusals in their place, and every
//! way in which such a connection ends.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::{Client, Daemon, Gate, temp_dir, worker_command};

const PATIENT: [&str; 5] = ["--persistent", "--queue-timeout", "60s", "--busy-timeout", "600s"];

fn pool(workers: u32, flags: &[&str]) -> Daemon {
    let daemon = Daemon::pool(workers, &worker_command(&[]), &[&PATIENT, flags].concat());
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == u64::from(workers));
    daemon
}

/// One request on a connection of its own, which ends behind it.
fn ask(daemon: &Daemon, line: &str) -> String {
    let mut client = daemon.client();
    client.send(format!("{line}\n"));
    client.half_close();
    String::from_utf8_lossy(&client.read_to_end()).into_owned()
}

fn expect_lines(client: &mut Client, lines: impl IntoIterator<Item = impl AsRef<str>>) {
    for line in lines {
        assert_eq!(client.read_line(), line.as_ref());
    }
}

#[test]
fn one_connection_is_good_for_many_requests() {
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    for number in 0..50 {
        client.send(format!("echo {number}\n"));
        assert_eq!(client.read_line(), number.to_string());
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("connections")), (50, 1));
    assert_eq!(stats.count("daemon spawns"), 1);
}

#[test]
fn answers_come_in_the_order_of_the_requests_whichever_worker_is_faster() {
    let gate = Gate::new();
    let daemon = pool(3, &[]);
    let mut client = daemon.client();
    client.send(format!("wait {} first\n", gate.path()));
    let arrival = gate.arrival();
    let requests: String = (1..40).map(|number| format!("echo {number}\n")).collect();
    client.send(requests);
    daemon.usr1_until(|stats| stats.count("queries replied") == 39);
    assert!(!client.has_input(), "nothing goes out before the first answer");
    arrival.open();
    expect_lines(&mut client, ["first".to_owned()]);
    expect_lines(&mut client, (1..40).map(|number| number.to_string()));
}

#[test]
fn many_connections_get_each_its_own_answers() {
    let daemon = pool(3, &["--pipeline", "4"]);
    let mut clients: Vec<Client> = (0..20).map(|_| daemon.client()).collect();
    for round in 0..5 {
        for (number, client) in clients.iter_mut().enumerate() {
            let requests: String = (0..10).map(|n| format!("echo {number}/{round}/{n}\n")).collect();
            client.send(requests);
        }
        for (number, client) in clients.iter_mut().enumerate() {
            expect_lines(client, (0..10).map(|n| format!("{number}/{round}/{n}")));
        }
    }
    assert_eq!(daemon.usr1().count("queries failed"), 0);
}

#[test]
fn a_request_may_come_in_pieces_and_with_the_next() {
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    client.send("echo o");
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    client.send("ne\necho two\necho thr");
    expect_lines(&mut client, ["one", "two"]);
    client.send("ee\n");
    expect_lines(&mut client, ["three"]);
}

#[test]
fn a_refusal_stands_in_its_place_and_the_connection_goes_on() {
    let daemon = pool(2, &["--retries", "0"]);
    let mut client = daemon.client();
    client.send("echo warm\necho up\n");
    expect_lines(&mut client, ["warm", "up"]);
    client.send("echo before\ndie\necho a\0b\necho after\n");
    expect_lines(&mut client, ["before", "ERR", "ERR", "after"]);
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused died"), stats.count("refused bad-line")), (1, 1));
}

#[test]
fn a_line_that_is_too_long_ends_the_connection_behind_all_answers() {
    let gate = Gate::new();
    let daemon = pool(1, &["--max-request", "300"]);
    let mut client = daemon.client();
    client.send(format!("wait {} held\necho next\n", gate.path()));
    let arrival = gate.arrival();
    client.send([b"x".repeat(400), b"\necho never\n".to_vec()].concat());
    daemon.usr1_until(|stats| stats.count("refused long-line") == 1);
    arrival.open();
    assert_eq!(client.read_to_end(), b"held\nnext\nERR\n");
}

#[test]
fn the_end_of_input_is_the_end_of_requests_and_every_answer_is_still_given() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    client.send(format!("wait {} 0\necho 1\necho 2\n", gate.path()));
    client.half_close();
    gate.arrival().open();
    assert_eq!(client.read_to_end(), b"0\n1\n2\n");
    let mut unended = daemon.client();
    unended.send("echo whole\necho not");
    unended.half_close();
    assert_eq!(unended.read_to_end(), b"whole\nERR\n");
}

#[test]
fn an_idle_connection_is_closed_in_the_end_and_an_unfinished_request_is_refused() {
    let daemon = pool(1, &["--idle-timeout", "300ms", "--read-timeout", "300ms"]);
    let mut idle = daemon.client();
    idle.send("echo hello\n");
    assert_eq!(idle.read_to_end(), b"hello\n");
    let mut slow = daemon.client();
    slow.send("echo one\necho tw");
    assert_eq!(slow.read_to_end(), b"one\nERR\n");
    let stats = daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("closed idle"), stats.count("refused slow-read")), (1, 1));
}

#[test]
fn a_connection_with_too_much_open_is_not_read_from() {
    let gate = Gate::new();
    let daemon = pool(1, &["--max-unanswered", "2"]);
    let mut client = daemon.client();
    client.send(format!("wait {} 0\necho 1\necho 2\necho 3\necho 4\n", gate.path()));
    let arrival = gate.arrival();
    let stats = daemon.usr1_until(|stats| stats.count("queue length") == 1);
    assert_eq!(stats.count("queries total"), 2);
    // Bytes that were read and not taken in wait, and so does the end behind them.
    client.half_close();
    arrival.open();
    assert_eq!(client.read_to_end(), b"0\n1\n2\n3\n4\n");
}

#[test]
fn answers_that_are_not_taken_stop_the_reading_and_nothing_is_lost() {
    const SIZE: usize = 200_000;
    let daemon = pool(2, &["--max-unanswered", "4096"]);
    let mut client = daemon.client();
    client.send(format!("big {SIZE}\n").repeat(100));
    // More than the kernel takes for us: the rest is not even asked.
    let stats = daemon.usr1_until(|stats| stats.count("queries replied") >= 10);
    assert_eq!(stats.count("queries failed"), 0);
    client.half_close();
    let answer: Vec<u8> = (b'0'..=b'9').cycle().take(SIZE).chain(*b"\n").collect();
    assert!(client.read_to_end() == answer.repeat(100), "every byte, in order");
}

#[test]
fn a_client_that_never_reads_its_answers_is_closed() {
    let daemon = pool(1, &["--write-timeout", "300ms", "--max-unanswered", "4"]);
    let mut client = daemon.client();
    client.send("big 1000000\n".repeat(40));
    let stats = daemon.usr1_until(|stats| stats.count("refused slow-write") == 1 && stats.count("connections") == 0);
    assert!(
        stats.count("queries total") < 40,
        "{} were asked",
        stats.count("queries total")
    );
    assert_eq!(ask(&daemon, "echo still here"), "still here\n");
}

#[test]
fn the_queued_requests_of_a_client_go_with_it() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    client.send(format!("wait {} 0\necho 1\necho 2\n", gate.path()));
    let arrival = gate.arrival();
    daemon.usr1_until(|stats| stats.count("queue length") == 2);
    client.reset();
    daemon.usr1_until(|stats| stats.count("queue length") == 0 && stats.count("queries timeout") == 3);
    arrival.open();
    assert_eq!(ask(&daemon, "served"), "2\n", "only the first had reached the worker");
}

#[test]
fn a_drain_answers_what_was_asked_and_closes() {
    let gate = Gate::new();
    let daemon = pool(1, &[]);
    let mut client = daemon.client();
    let mut silent = daemon.client();
    silent.send("echo hello\n");
    assert_eq!(silent.read_line(), "hello");
    client.send(format!("wait {} 0\necho 1\n", gate.path()));
    let arrival = gate.arrival();
    daemon.usr1_until(|stats| stats.count("queue length") == 1);
    daemon.signal(Signal::SIGTERM);
    assert_eq!(silent.read_to_end(), b"", "nothing is owed on it");
    arrival.open();
    assert_eq!(client.read_to_end(), b"0\n1\n");
    assert!(daemon.wait_exit().success());
}

/// One turn of the daemon's loop hears of 1024 events: it hears of the answer, but not yet of what was asked behind it.
#[test]
fn a_drain_serves_what_has_come_by_the_time_of_the_last_answer() {
    let (gate, behind) = (Gate::new(), Gate::new());
    let daemon = pool(1, &["--max-unanswered", "2"]);
    let mut client = daemon.client();
    client.send(format!("wait-twice {} {} 0\n", gate.path(), behind.path()));
    let arrival = gate.arrival();
    let mut others: Vec<Client> = (0..1100).map(|_| daemon.client()).collect();
    daemon.usr1_until(|stats| stats.count("connections") == 1101);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    daemon.signal(Signal::SIGSTOP);
    arrival.open();
    let replied = behind.arrival();
    for other in &mut others {
        // On a machine that is very slow the drain has closed it already.
        let _ = other.try_send("e");
    }
    client.send("echo 1\necho 2\necho 3\n");
    daemon.signal(Signal::SIGCONT);
    replied.open();
    assert_eq!(client.read_to_end(), b"0\n1\n2\n3\n");
    drop(others);
    assert!(daemon.wait_exit().success());
}

/// Of 1101 requests that came in time one turn hears of 1024, and by then the time of the others is over.
#[test]
fn a_request_sent_in_time_is_served_though_it_is_read_late() {
    let daemon = pool(1, &["--idle-timeout", "60s"]);
    let mut others: Vec<Client> = (0..1100).map(|_| daemon.client()).collect();
    let mut client = daemon.watched_client();
    daemon.usr1_until(|stats| stats.count("connections") == 1101);
    daemon.signal(Signal::SIGTERM);
    daemon.stderr_wait("draining");
    daemon.signal(Signal::SIGSTOP);
    let told = Instant::now();
    for other in &mut others {
        // On a machine that is very slow the drain has closed it already.
        let _ = other.try_send("e");
    }
    client.send("echo 1\n");
    // The drain gives half a second to silent clients; the event is its end.
    while told.elapsed() < Duration::from_millis(600) {
        std::thread::yield_now();
    }
    daemon.signal(Signal::SIGCONT);
    assert_eq!(client.read_to_end(), b"1\n");
    drop(others);
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_roll_of_the_workers_is_not_felt() {
    let daemon = pool(2, &[]);
    let mut client = daemon.client();
    for round in 1..=3 {
        client.send("echo a\necho b\n");
        daemon.signal(Signal::SIGHUP);
        expect_lines(&mut client, ["a", "b"]);
        daemon.usr1_until(|stats| stats.count("restarts asked") == 2 * round);
    }
    assert_eq!(daemon.usr1().count("connections"), 1);
}

/// A request that is sent at the moment when its connection is closed finds no reader, which is no reason for a reset:
/// over a UNIX socket the end of input would not be seen for it.
#[test]
fn a_client_that_sends_on_while_its_connection_is_closed_sees_the_end_and_no_reset() {
    let directory = temp_dir();
    let socket = format!("unix:{}/pool", directory.path().display());
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "--listen", &socket])
        .args(&["--persistent", "--idle-timeout", "100ms"])
        .start();
    let mut idle = daemon.client();
    assert!(idle.read_to_end().is_empty());
    // The daemon is still there to read this away: else it would be a broken pipe.
    idle.send("echo late\n");

    let mut served = daemon.client();
    served.send("echo last\n");
    assert_eq!(served.read_line(), "last");
    assert!(served.read_to_end().is_empty());
    served.send("echo late\n");
    assert_eq!(daemon.usr1().count("queries total"), 1);
}

crate::harness::over_tls! {
    one_connection_is_good_for_many_requests,
    answers_come_in_the_order_of_the_requests_whichever_worker_is_faster,
    a_request_may_come_in_pieces_and_with_the_next,
    a_refusal_stands_in_its_place_and_the_connection_goes_on,
    a_line_that_is_too_long_ends_the_connection_behind_all_answers,
    the_end_of_input_is_the_end_of_requests_and_every_answer_is_still_given,
    an_idle_connection_is_closed_in_the_end_and_an_unfinished_request_is_refused,
    a_connection_with_too_much_open_is_not_read_from,
    answers_that_are_not_taken_stop_the_reading_and_nothing_is_lost,
    a_client_that_never_reads_its_answers_is_closed,
    the_queued_requests_of_a_client_go_with_it,
    a_drain_answers_what_was_asked_and_closes,
    a_drain_serves_what_has_come_by_the_time_of_the_last_answer,
    a_request_sent_in_time_is_served_though_it_is_read_late,
}
