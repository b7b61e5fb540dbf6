//! Clients at an address of this machine at which nothing listens, where the kernel gives a connection the port that it
//! is to reach for its own end.

use std::process::Command;

use crate::harness::Program;

/// Runs a client in a network of its own, where connections have two ports to choose from, and returns its exit status, its output
/// and its errors.
#[track_caller]
fn run(script: &str) -> (Option<i32>, String, String) {
    const PREPARE: &str = "ip link set lo up && echo 40000 40001 >/proc/sys/net/ipv4/ip_local_port_range && ";
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--net", "sh", "-c"]);
    command.arg(format!("{PREPARE}{script}"));
    command.env("BINARY", env!("CARGO_BIN_EXE_iotcpd"));
    let (status, output, errors) = Program::start(&mut command).finish();
    (status.code(), output, errors)
}

#[test]
fn ask_does_not_take_its_own_line_for_the_answer() {
    let (code, output, errors) = run("echo hello | \"$BINARY\" ask --on-failure none --timeout 1s 127.0.0.1:40000");
    assert_eq!((code, output.as_str()), (Some(1), "none"), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
}

#[test]
fn call_does_not_read_its_own_command() {
    let (code, _, errors) = run("\"$BINARY\" call 127.0.0.1:40000 true");
    assert_eq!(code, Some(125), "{errors}");
    assert!(errors.contains("refused"), "{errors}");
}
