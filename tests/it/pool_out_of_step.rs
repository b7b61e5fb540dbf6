//! Workers that have lost step with their requests: their output answers no request.

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

/// The first worker is started with the first flags, all later ones with the others.
fn first_then(first: &[&str], later: &[&str], marker: &std::path::Path) -> String {
    let script = format!(
        "if mkdir '{}' 2>/dev/null; then exec {}; else exec {}; fi",
        marker.display(),
        worker_command(first),
        worker_command(later)
    );
    shell_words::join(["sh", "-c", script.as_str()])
}

#[test]
fn output_behind_the_ready_line_is_not_taken_for_an_answer() {
    let (gate, directory) = (Gate::new(), temp_dir());
    let command = first_then(
        &["--start-gate", gate.path(), "--ready", "READY\njunk"],
        &["--ready", "READY"],
        &directory.path().join("marker"),
    );
    let daemon = Daemon::pool(1, &command, &["--ready-line", "READY", "--queue-timeout", "60s"]);
    let mut client = daemon.client();
    client.send("echo mine\n");
    daemon.usr1_until(|stats| stats.count("queries delayed") == 1);
    gate.arrival().open();
    assert_eq!(client.read_to_end(), b"mine\n");
    assert_eq!(daemon.usr1().count("restarts desync"), 1);
}

#[test]
fn the_ready_line_is_found_behind_a_line_that_is_too_long() {
    let talk = format!("{}\nREADY", "x".repeat(40));
    let command = worker_command(&["--ready", &talk]);
    let flags = ["--ready-line", "READY", "--max-reply", "20", "--queue-timeout", "10s"];
    let daemon = Daemon::pool(1, &command, &flags);
    assert_eq!(daemon.ask("echo up"), "up\n");
}

/// Otherwise every client after that would get its predecessor's answer as long as there are clients.
#[test]
fn a_line_written_before_the_request_was_read_is_not_its_answer() {
    let gate = Gate::new();
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--queue-timeout", "60s"]);
    assert_eq!(daemon.ask(&format!("unasked {} late", gate.path())), "ok\n");
    let talker = gate.arrival();
    assert_eq!(daemon.ask("stop-reading"), "ok\n");
    let mut client = daemon.client();
    client.send("echo mine\n");
    daemon.usr1_until(|stats| stats.count("daemon S_BUSY") == 1);
    talker.open();
    assert_eq!(client.read_to_end(), b"mine\n");
    assert_eq!(daemon.usr1().count("restarts desync"), 1);
}
