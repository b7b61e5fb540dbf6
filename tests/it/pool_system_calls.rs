//! The number of system calls that the daemon makes for a request over a connection without TLS: a feature that others use
//! must cost such a connection nothing.
//!
//! The least number of several requests counts, because it depends on what has arrived when the daemon looks: a call that
//! is added to the way of each request is in every one of them.

use std::fs;
use std::process::Command;

use crate::harness::{Client, Daemon, Program, temp_dir};

const REQUESTS: usize = 40;

/// Runs a pool of `cat`s under strace. `ask` asks it the requests, and returns the text by which a call begins a request.
/// Returns the least number of calls from one such call to the next.
#[track_caller]
fn least_calls(flags: &[&str], ask: impl FnOnce(&Daemon) -> &'static str) -> usize {
    let daemon = Daemon::with(["-n", "1", "-d", "cat", "-p", "0", "--queue-timeout", "60s"])
        .args(flags)
        .start();
    daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    let home = temp_dir();
    let calls = home.path().join("calls");
    let mut strace = Command::new("strace");
    let strace = Program::start(strace.args(["-p", &daemon.pid().to_string(), "-o", calls.to_str().unwrap()]));
    strace.stderr_wait("attached");
    let first = ask(&daemon);
    drop(daemon);
    strace.wait_exit();
    let calls = fs::read_to_string(calls).unwrap();
    // A debug build asks with each close whether the descriptor is open, and more often than another one whether a
    // worker has read its request.
    let is_counted = |call: &&str| !call.contains("F_GETFD") && !call.contains("FIONREAD");
    let calls: Vec<&str> = calls.lines().filter(is_counted).collect();
    let begins = |call: &str| call.starts_with(first) && !call.contains("EAGAIN");
    let places: Vec<usize> = (0..calls.len()).filter(|at| begins(calls[*at])).collect();
    assert!(places.len() >= REQUESTS, "{}", calls.join("\n"));
    let requests = places[..REQUESTS].windows(2).map(|pair| pair[1] - pair[0]);
    requests.min().unwrap()
}

/// Asks on one connection, each request behind the answer of the one before.
fn ask_on(mut client: Client, number: impl Fn(usize) -> String) -> &'static str {
    for request in 0..REQUESTS {
        let line = format!("{}request {request}", number(request));
        client.send(format!("{line}\n"));
        assert_eq!(client.read_line(), line);
    }
    "recvfrom("
}

#[test]
fn a_request_on_a_connection_of_its_own_takes_eleven() {
    let least = least_calls(&[], |daemon| {
        for request in 0..REQUESTS {
            let mut client = daemon.client();
            client.send(format!("request {request}\n"));
            assert_eq!(client.read_to_end(), format!("request {request}\n").as_bytes());
        }
        "accept4("
    });
    assert!(least <= 11, "{least}");
}

#[test]
fn a_request_on_a_connection_that_stays_takes_seven() {
    let least = least_calls(&["--persistent"], |daemon| ask_on(daemon.client(), |_| String::new()));
    assert!(least <= 7, "{least}");
}

#[test]
fn a_request_on_a_multiplexed_connection_takes_seven() {
    let least = least_calls(&[], |daemon| {
        let mut client = daemon.client();
        client.send("iotcpd-multiplex 1\n");
        client.read_line();
        ask_on(client, |request| format!("{request} "))
    });
    assert!(least <= 7, "{least}");
}
