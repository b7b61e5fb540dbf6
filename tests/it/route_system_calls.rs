//! The number of system calls of the daemon for a routed connection.
//!
//! The least number of several connections counts, because it depends on what has arrived when the daemon looks.

use std::fs;
use std::process::Command;

use crate::harness::{Program, free_port, temp_dir};
use crate::route_peers::{Backend, RouteFile, at, client, hello};

const CONNECTIONS: usize = 40;

/// The calls of the daemon while clients come one after the other, from each accept to the next.
#[track_caller]
fn calls(keys: &str) -> Vec<Vec<String>> {
    // A connection to a port that the kernel gives to connections is looked at, because it may be one to itself.
    let backend = Backend::at(free_port());
    let file = RouteFile::new(keys, &[("www.example.org", at(backend.address()))]);
    let daemon = file.start();
    let home = temp_dir();
    let path = home.path().join("calls");
    let mut strace = Command::new("strace");
    let strace = Program::start(strace.args(["-p", &daemon.pid().to_string(), "-o", path.to_str().unwrap()]));
    strace.stderr_wait("attached");
    for _ in 0..CONNECTIONS {
        let mut client = client(&daemon, "www.example.org", "a request");
        let mut served = backend.accept();
        served.expect(hello("www.example.org"));
        served.expect("a request");
        served.send("the answer");
        client.read_text("the answer");
        client.half_close();
        assert_eq!(served.read_to_end(), b"");
        drop(served);
        assert_eq!(client.read_to_end(), b"");
    }
    drop(daemon);
    strace.wait_exit();
    let calls = fs::read_to_string(path).unwrap();
    // A debug build asks with each close whether the descriptor is open.
    let calls: Vec<&str> = calls.lines().filter(|call| !call.contains("F_GETFD")).collect();
    let begins = |call: &str| call.starts_with("accept4(") && !call.contains("EAGAIN");
    let places: Vec<usize> = (0..calls.len()).filter(|at| begins(calls[*at])).collect();
    assert!(places.len() >= CONNECTIONS, "{}", calls.join("\n"));
    let connections = places.windows(2).map(|pair| &calls[pair[0]..pair[1]]);
    connections
        .map(|calls| calls.iter().map(|call| (*call).to_owned()).collect())
        .collect()
}

/// The daemon may look before anything has come.
fn works(call: &&String) -> bool {
    !call.starts_with("epoll_wait(") && !call.contains("EAGAIN")
}

/// The calls of the connection that took the fewest.
#[track_caller]
fn least(keys: &str) -> Vec<String> {
    let all = calls(keys);
    let least = all.into_iter().min_by_key(|calls| calls.iter().filter(works).count());
    least.unwrap().iter().filter(works).cloned().collect()
}

#[test]
fn a_routed_connection_takes_fourteen_besides_waiting() {
    let least = least("");
    assert!(least.len() <= 14, "{}:\n{}", least.len(), least.join("\n"));
    for (call, most) in [
        ("getsockopt(", 0),
        ("getpeername(", 0),
        ("getsockname(", 0),
        ("setsockopt(", 0),
        ("connect(", 1),
        ("shutdown(", 1),
        ("recvfrom(", 4),
    ] {
        let number = least.iter().filter(|line| line.starts_with(call)).count();
        assert!(number <= most, "{call} {number}:\n{}", least.join("\n"));
    }
}

#[test]
fn a_line_of_the_access_log_is_written_by_another_thread() {
    let least = least("log-connections = true");
    // That thread is woken, unless it is awake.
    let is_wake = |call: &&String| call.starts_with("futex(");
    let others = least.iter().filter(|call| !is_wake(call)).count();
    assert!(others <= 14 && least.len() <= 15, "{}", least.join("\n"));
}
