//! The command door, a test for each mistake that was found by trying to break it.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::{ask, hold, holding, quoted, torc};
use crate::harness::{Daemon, wait_zombie};

/// Has the daemon read its file again.
#[track_caller]
fn reload(daemon: &Daemon) {
    daemon.signal(Signal::SIGHUP);
    daemon.stderr_wait("the configuration was read again");
}

#[test]
fn an_argument_is_held_against_the_rules_of_the_moment_when_its_program_starts() {
    let restricted = |limits: &str| {
        quoted(&format!(
            "name = 'hold'; cmd = '@/hold'; queue = 3; max_wait = 600; {limits}"
        ))
    };
    let torc = hold("argc = 2; queue = 3; max_wait = 600;");
    let daemon = torc.serve(&[]);
    let mut first = daemon.client();
    first.send("hold\na\na\n");
    first.read_text("torcd>torcd>up\n");
    let mut asking = daemon.client();
    asking.send("hold\na\n");
    asking.read_text("torcd>torcd>");
    let [mut good, mut bad] = ["a\na\n", "a\nb\n"].map(|arguments| {
        let mut client = daemon.client();
        client.send(format!("hold\n{arguments}"));
        client.read_text("torcd>torcd>");
        client
    });
    daemon.usr1_until(|stats| stats.count("runs waiting") == 2);
    torc.write(&[&restricted("args = ('^a$', '^a$');")]);
    reload(&daemon);
    let changed = "torcd: hold: the command was changed meanwhile; ask again\n";
    assert_eq!(String::from_utf8_lossy(&bad.read_to_end()), changed);
    // One that was asked for a second argument, which is none any more.
    torc.write(&[&restricted("args = ('^a$');")]);
    reload(&daemon);
    assert_eq!(String::from_utf8_lossy(&asking.read_to_end()), changed);
    assert_eq!(String::from_utf8_lossy(&good.read_to_end()), changed);
    first.send("still here");
    first.half_close();
    assert_eq!(first.read_to_end(), b"still here");
    assert_eq!(daemon.usr1().count("runs refused"), 3);
}

#[test]
fn a_run_from_before_it_could_be_joined_is_not_joined() {
    let torc = hold("");
    let daemon = torc.serve(&[]);
    let _first = holding(&daemon, "hold\n");
    torc.write(&[&quoted("name = 'hold'; cmd = '@/hold'; join = true;")]);
    reload(&daemon);
    assert_eq!(ask(&daemon, "hold\n"), "torcd: busy", "its beginning was not kept");
}

#[test]
fn input_ends_for_the_clients_of_a_run_whose_first_client_left_before_its_start() {
    let torc = hold("argc = 1; join = true; queue = 2; max_wait = 600;");
    let daemon = torc.serve(&[]);
    let mut first = daemon.client();
    first.send("hold\nx\n");
    first.read_text("torcd>up\n");
    let [leader, mut other] = [1, 2].map(|number| {
        let mut client = daemon.client();
        client.send("hold\ny\n");
        client.read_text("torcd>");
        daemon.usr1_until(|stats| stats.count("runs waiting") == number);
        client
    });
    // In one turn: the program that runs ends, the next is to be started, and its first client has gone.
    let program = daemon.children()[0];
    daemon.stop();
    kill(Pid::from_raw(program), Signal::SIGKILL).unwrap();
    wait_zombie(program);
    leader.reset();
    daemon.signal(Signal::SIGCONT);
    assert_eq!(other.read_to_end(), b"up\n");
}

/// The number of bytes that the daemon holds for a client.
fn held(daemon: &Daemon) -> usize {
    let dump = daemon.usr2();
    let line = dump.iter().find_map(|line| line.split_once("to client = "));
    line.map_or(0, |(_, bytes)| bytes.parse().unwrap())
}

#[test]
fn a_client_that_reads_late_is_not_taken_for_a_process_that_holds_the_output() {
    let torc = torc(&["name = 'yes'; cmd = '/usr/bin/yes';"]);
    let daemon = torc.serve(&["--linger", "1ms", "--max-buffer", "64KiB"]);
    let mut client = daemon.client();
    client.send("yes\n");
    daemon.usr1_until(|_| held(&daemon) >= 64 << 10);
    kill(Pid::from_raw(daemon.children()[0]), Signal::SIGKILL).unwrap();
    daemon.usr1_until(|stats| stats.count("exit signal") == 1);
    assert_eq!(daemon.usr1().count("runs cut"), 0);
    assert!(client.read_to_end().len() > 64 << 10, "also what lay in the pipe");
}

#[test]
fn a_client_without_a_request_when_the_door_closes_is_told_that_it_closes() {
    let daemon = hold("").serve(&[]);
    let mut client = daemon.client();
    daemon.usr1_until(|stats| stats.count("connections") == 1);
    daemon.signal(Signal::SIGTERM);
    let told = String::from_utf8(client.read_to_end()).unwrap();
    assert_eq!(told, "torcd: the server is shutting down\n");
    assert!(daemon.wait_exit().success());
}

#[test]
fn a_line_about_a_refusal_is_bounded_and_nothing_in_a_name_breaks_it() {
    let daemon = hold("").serve(&[]);
    let name = format!("\u{1b}[31m{}", "x".repeat(4000));
    assert_eq!(ask(&daemon, &name), format!("torcd: {name}:Not found!\n"));
    let line = daemon.stderr_wait("no command has that name");
    assert!(line.len() < 400 && !line.contains('\u{1b}'), "{line}");
}

#[test]
fn debug_logs_each_step_of_a_connection_without_what_was_sent() {
    let torc = hold("argc = 1;");
    let daemon = torc.serve(&["--debug"]);
    assert_eq!(ask(&daemon, "hold\nsecret\n"), "torcd>up\n");
    for step in [
        "connected",
        "prompted for an argument",
        "begins run 0",
        "gets nothing more of run 0",
        "has everything",
    ] {
        daemon.stderr_wait(&format!("connection 0: {step}"));
    }
    let line = daemon.stderr_wait("connection 0: closed");
    assert!(!line.contains("secret"), "{line}");
}

crate::harness::over_tls! {
    input_ends_for_the_clients_of_a_run_whose_first_client_left_before_its_start,
    a_client_without_a_request_when_the_door_closes_is_told_that_it_closes,
}
