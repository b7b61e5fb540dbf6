//! Attacks on the listeners with TLS. Each costs the attacker its connection and nothing else: another client is served
//! beside it, the log says why, the statistics count it, and no descriptor and no process is left.

use std::fs;
use std::path::Path;

use crate::command::{quoted, torc};
use crate::exec_client::{netstring, request};
use crate::harness::{Certificate, Client, temp_dir};
use crate::tls::{Door, text};

// ---- input that is cut off -------------------------------------------------------------------------------------

/// Reads its input to the end, and then leaves a file with this name.
fn reader(file: &Path) -> String {
    format!("echo up; cat >/dev/null; echo whole >{}", file.display())
}

#[test]
fn the_worker_of_a_session_does_not_take_a_part_of_its_input_for_the_whole() {
    let (home, whole) = (temp_dir(), "whole");
    let file = home.path().join(whole);
    let door = Door::sessions(&reader(&file));
    let mut cut = door.client();
    assert_eq!(cut.read_line(), "up");
    cut.send("a part\n");
    drop(cut);
    let gone = |restarts: u64| {
        door.daemon.usr1_until(|stats| {
            stats.count("restarts spent") == restarts
                && stats.count("workers stopping") == 0
                && stats.count("connections") == 0
        });
    };
    gone(1);
    assert!(
        !file.exists(),
        "the end of a client that was cut off is no end of its input"
    );
    let line = door.daemon.stderr_wait("its TLS connection was cut");
    assert!(line.contains(" 127.0.0.1:") && line.contains("(TLSv1.3)"), "{line}");
    let mut client = door.client();
    assert_eq!(client.read_line(), "up");
    client.send("the whole\n");
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    assert!(file.exists());
    drop(client);
    gone(2);
    assert_eq!(door.daemon.usr1().count("tls cut"), 1);
}

#[test]
fn a_program_does_not_take_a_part_of_its_input_for_the_whole() {
    let home = temp_dir();
    let door = Door::exec("/bin/sh");
    let start = |file: &Path| {
        let mut client = door.client();
        client.send(request(&["/bin/sh", "-c", &reader(file)]));
        client.read_text(&text([netstring(b"stdout"), netstring(b"up\n")].concat()));
        client.send(netstring(b"a part"));
        client
    };
    // The signal and the end of the input race each other if they are sent in the wrong order.
    for number in 0..20 {
        let file = home.path().join(number.to_string());
        drop(start(&file));
        door.daemon.usr1_until(|stats| stats.count("connections") == 0);
        assert!(!file.exists(), "{number}");
    }
    let whole = home.path().join("whole");
    let mut client = start(&whole);
    client.send("0:,");
    assert!(text(client.read_to_end()).ends_with("8:exitcode,1:0,"));
    assert!(whole.exists());
}

#[test]
fn input_that_ends_within_a_pair_is_not_taken_for_the_whole() {
    let home = temp_dir();
    let door = Door::exec("/bin/sh");
    for number in 0..20 {
        let file = home.path().join(number.to_string());
        let mut client = door.client();
        client.send(request(&["/bin/sh", "-c", &reader(&file)]));
        client.read_text(&text([netstring(b"stdout"), netstring(b"up\n")].concat()));
        client.send("6:a par");
        client.half_close();
        assert!(!text(client.read_to_end()).ends_with("8:exitcode,1:0,"));
        assert!(!file.exists(), "{number}");
    }
}

#[test]
fn a_program_behind_a_command_does_not_take_a_part_of_its_input_for_the_whole() {
    let (home, certificate) = (temp_dir(), Certificate::new());
    let script = |text: &str| {
        let file = home.path().join("reader");
        fs::write(&file, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        file
    };
    let whole = home.path().join("whole");
    let command = script(&reader(&whole));
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let group = quoted(&format!("name = 'reader'; cmd = '{}'; threads = 5;", command.display()));
    let daemon = torc(&[&group]).serve(&flags);
    let start = || {
        let mut client = Client::connect(&daemon.nth_addr(2)).secure(&certificate);
        client.send("reader\n");
        client.read_text("up\n");
        client.send("a part");
        client
    };
    for number in 0..20 {
        drop(start());
        daemon.usr1_until(|stats| stats.count("connections") == 0);
        assert!(!whole.exists(), "{number}");
    }
    let mut client = start();
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
    assert!(whole.exists());
}

#[test]
fn a_request_that_ends_with_the_input_is_none_if_that_is_cut_off() {
    let home = temp_dir();
    let file = home.path().join("asked");
    let command = shell_words::join(["sh", "-c", &format!("cat >>{}; echo done", file.display())]);
    let door = Door::with(&[
        "-n",
        "1",
        "-d",
        &command,
        "--request-framing",
        "eof",
        "--reply-framing",
        "eof",
        "--queue-timeout",
        "60s",
    ]);
    let mut cut = door.client();
    cut.send("a part");
    drop(cut);
    door.daemon.stderr_wait("its TLS connection was cut");
    let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries total"), stats.count("tls cut")), (0, 1));
    let mut client = door.client();
    client.send("the whole");
    client.half_close();
    assert_eq!(client.read_to_end(), b"done\n");
    assert_eq!(fs::read_to_string(&file).unwrap(), "the whole");
}
