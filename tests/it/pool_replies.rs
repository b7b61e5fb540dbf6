//! Requests and replies of every size and cut, and what is said about them in the statistics.

use crate::harness::{Client, Daemon, Gate, worker_command};

const PATIENT: [&str; 4] = ["--queue-timeout", "60s", "--busy-timeout", "600s"];
/// The default of `--max-reply`.
const MAX_REPLY: usize = 1 << 20;

/// The reply of the scripted worker to `big N`, newline included.
fn digits(count: usize) -> Vec<u8> {
    (b'0'..=b'9').cycle().take(count).chain(*b"\n").collect()
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    for byte in b"echo in very small pieces\n" {
        client.send([*byte]);
    }
    assert_eq!(client.read_to_end(), b"in very small pieces\n");
}

#[test]
fn a_request_may_come_in_two_pieces_with_others_in_between() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut halves: Vec<Client> = (0..10).map(|_| daemon.watched_client()).collect();
    for (number, client) in halves.iter_mut().enumerate() {
        client.send(format!("echo half {number}"));
    }
    assert_eq!(daemon.ask("echo whole"), "whole\n");
    for (number, client) in halves.iter_mut().enumerate().rev() {
        client.send(", and the other\n");
        let expected = format!("half {number}, and the other\n");
        assert_eq!(client.read_to_end(), expected.as_bytes());
    }
}

#[test]
fn a_request_of_exactly_the_limit_is_asked_and_one_byte_more_is_refused() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--queue-timeout", "60s", "--max-request", "100"],
    );
    let request = |length: usize| format!("length {}", "x".repeat(length - "length ".len()));
    assert_eq!(daemon.ask(&request(100)), "100\n");
    assert_eq!(daemon.ask(&request(101)), "ERR\n");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused long-line"), stats.count("queries failed")),
        (1, 1)
    );
    assert_eq!(stats.count("daemon spawns"), 1);
}

#[test]
fn a_long_request_goes_to_its_worker_whole() {
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--queue-timeout", "60s", "--max-request", "2MiB"],
    );
    let request = format!("length {}", "x".repeat(1 << 20));
    for _ in 0..3 {
        assert_eq!(daemon.ask(&request), format!("{}\n", request.len()));
    }
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

#[test]
fn an_empty_request_is_one() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    assert_eq!(daemon.ask(""), "unknown \n");
}

#[test]
fn a_line_without_its_end_is_refused() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    client.send("echo unended");
    client.half_close();
    assert_eq!(client.read_to_end(), b"ERR\n");
    let mut knocking = daemon.client();
    knocking.half_close();
    assert_eq!(knocking.read_to_end(), b"");
    let stats = daemon.usr1();
    assert_eq!((stats.count("refused bad-line"), stats.count("queries failed")), (1, 1));
}

#[test]
fn a_reply_is_passed_on_byte_for_byte() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    client.send(b"raw  a\\0b\xff\\r\\n\n");
    assert_eq!(client.read_to_end(), b" a\0b\xff\r\n");
}

#[test]
fn a_reply_of_exactly_the_limit_reaches_its_client() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let mut client = daemon.client();
    client.send(format!("big {MAX_REPLY}\n"));
    assert!(client.read_to_end() == digits(MAX_REPLY));
    let stats = daemon.usr1();
    assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (1, 1));
}

#[test]
fn a_reply_of_one_byte_more_is_refused_and_its_worker_replaced() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &PATIENT);
    let worker = daemon.ask("pid");
    assert_eq!(daemon.ask(&format!("big {}", MAX_REPLY + 1)), "ERR\n");
    assert_eq!(daemon.ask("served"), "1\n");
    assert_ne!(daemon.ask("pid"), worker);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused long-reply"), stats.count("restarts oversize")),
        (1, 1)
    );
    assert_eq!((stats.count("queries failed"), stats.count("queries replied")), (1, 3));
    daemon.stderr_wait("longer than --max-reply 1 MiB and is stopped");
    daemon.stderr_wait("its reply was longer than --max-reply 1 MiB");
}

/// A reply without any end is cut off at the limit, not collected.
#[test]
fn a_worker_that_never_ends_its_reply_is_stopped_at_the_limit() {
    let gate = Gate::new();
    let daemon = Daemon::pool(
        1,
        &worker_command(&[]),
        &["--queue-timeout", "60s", "--max-reply", "1000"],
    );
    let head = "x".repeat(1001);
    let request = format!("partial {head} {} tail", gate.path());
    // The gate never opens: if the end of the line were waited for, so would this.
    assert_eq!(daemon.ask(&request), "ERR\n");
    assert_eq!(daemon.ask("served"), "1\n");
}

#[test]
fn a_client_that_reads_slowly_holds_no_worker() {
    let flags = ["--queue-timeout", "60s", "--max-reply", "16MiB"];
    let daemon = Daemon::pool(1, &worker_command(&[]), &flags);
    let mut slow = daemon.client();
    slow.send("big 12000000\n");
    // One worker for both: it has answered the first before it has the second.
    assert_eq!(daemon.ask("served"), "2\n");
    assert!(slow.read_to_end() == digits(12_000_000));
}

#[test]
fn a_client_that_never_reads_is_closed() {
    let directory = crate::harness::temp_dir();
    let listen = format!("unix:{}/pool", directory.path().display());
    let command = worker_command(&[]);
    let daemon = Daemon::with(["-n", "1", "-d", &command, "--listen", &listen])
        .args(&["--write-timeout", "200ms", "--max-reply", "16MiB"])
        .start();
    let mut deaf = daemon.client();
    deaf.send("big 12000000\n");
    daemon.stderr_wait("took nothing of its answer within --write-timeout");
    let cut = deaf.read_to_end();
    assert!(digits(12_000_000).starts_with(&cut) && cut.len() < 12_000_000);
    assert_eq!(daemon.usr1().count("refused slow-write"), 1);
}

#[test]
fn the_refusal_has_the_text_that_the_operator_chose() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--error-reply", "BH message=\"no\"\\n"]);
    assert_eq!(daemon.ask("a NUL \0"), "BH message=\"no\"\n");
    let silent = Daemon::pool(1, &worker_command(&[]), &["--error-reply", ""]);
    assert_eq!(silent.ask("a NUL \0"), "");
}

crate::harness::over_tls! {
    a_request_may_come_byte_by_byte,
    a_request_may_come_in_two_pieces_with_others_in_between,
    a_request_of_exactly_the_limit_is_asked_and_one_byte_more_is_refused,
    a_long_request_goes_to_its_worker_whole,
    a_line_without_its_end_is_refused,
    a_reply_is_passed_on_byte_for_byte,
    a_reply_of_exactly_the_limit_reaches_its_client,
    a_reply_of_one_byte_more_is_refused_and_its_worker_replaced,
    a_client_that_reads_slowly_holds_no_worker,
    the_refusal_has_the_text_that_the_operator_chose,
}
