//! Clients that send everything before they read: their programs wait for them, and they for their programs.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use crate::exec_client::{ExecClient, Outcome, door, netstring, request};
use crate::exec_clients::{PERL, finish, path_of};
use crate::harness::Daemon;

/// As sockexec.client and the Lua client for nginx do it: everything out, then everything in.
fn all_at_once(daemon: &Daemon, arguments: &[&str], input: &[u8]) -> Outcome {
    let mut client = ExecClient::connect(daemon);
    client.send([request(arguments), netstring(input), b"0:,".to_vec()].concat());
    client.outcome()
}

pub(crate) fn noise(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0])
        .collect()
}

#[test]
fn what_is_sent_before_anything_is_read_comes_back_whole() {
    let (daemon, _home) = door(&["-t", "0"]);
    let input = noise(7_000_000);
    for script in ["cat", "cat >&2", "tee /dev/stderr"] {
        let outcome = all_at_once(&daemon, &["sh", "-c", script], &input);
        let both = [&outcome.stdout, &outcome.stderr];
        assert_eq!(outcome.code(), "0", "{script}");
        assert!(
            both.iter().all(|bytes| bytes.is_empty() || **bytes == input),
            "{script}"
        );
    }
    let input = "x".repeat(7_000_000);
    let mut perl = Command::new("perl");
    let (status, stdout, stderr) = finish(perl.args(["-e", PERL, &path_of(&daemon), "cat"]), input.as_bytes());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    assert!(stdout == input, "{} bytes", stdout.len());
}

/// It writes far more than it is sent, so holding its output would not help: its client has an end, it has none.
#[test]
fn a_program_without_an_end_does_not_keep_its_client_from_reading() {
    let (daemon, _home) = door(&[]);
    let mut client = ExecClient::connect(&daemon);
    client.send([request(&["yes"]), netstring(&noise(5_000_000))].concat());
    for _ in 0..1000 {
        client.wait_output_begun();
    }
}

#[test]
fn many_do_so_at_once() {
    let (daemon, _home) = door(&["-t", "0"]);
    let input = noise(3_000_000);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert!(all_at_once(&daemon, &["cat"], &input).stdout == input));
        }
    });
}

#[test]
fn who_sends_more_than_may_be_held_is_told_and_the_log_names_the_flag() {
    let (daemon, _home) = door(&["-t", "0", "--max-buffer", "64KiB"]);
    let input = noise(8_000_000);
    let outcome = all_at_once(&daemon, &["cat"], &input);
    assert_eq!(outcome.code(), "125");
    assert!(outcome.complaint().contains("--max-buffer"), "{}", outcome.complaint());
    assert!(input.starts_with(&outcome.stdout) && outcome.stdout.len() > 100_000);
    let line = daemon.stderr_wait("--max-buffer");
    assert!(line.contains("\"cat\" is ended"), "{line}");
    // The next one has all of the room again.
    let input = noise(2_000_000);
    assert!(all_at_once(&daemon, &["cat"], &input).stdout == input);
}

/// Who only reads late, with nothing more to say, is not in anybody's way.
#[test]
fn a_client_that_reads_late_is_waited_for() {
    let (daemon, _home) = door(&["--max-buffer", "64KiB"]);
    let path = path_of(&daemon);
    let mut silent = UnixStream::connect(&path).unwrap();
    let script = request(&["sh", "-c", "head -c 4000000 /dev/zero; cat"]);
    std::io::Write::write_all(&mut silent, &[script, netstring(&noise(300_000))].concat()).unwrap();
    // As long as another takes that is given up.
    assert_eq!(all_at_once(&daemon, &["cat"], &noise(8_000_000)).code(), "125");
    std::io::Write::write_all(&mut silent, b"0:,").unwrap();
    let mut all = Vec::new();
    silent.read_to_end(&mut all).unwrap();
    assert!(
        all.len() > 4_300_000 && all.ends_with(b"8:exitcode,1:0,"),
        "{} bytes",
        all.len()
    );
}

/// As `iotcpd call ... | less` does: it has read some, then nobody turns the page, and it has still more to send.
#[test]
fn a_client_that_reads_while_it_sends_may_pause() {
    let (daemon, _home) = door(&["-t", "0", "--max-buffer", "64KiB"]);
    let input = noise(8_000_000);
    let mut client = UnixStream::connect(path_of(&daemon)).unwrap();
    let mut writer = client.try_clone().unwrap();
    let all = [request(&["cat"]), netstring(&input), b"0:,".to_vec()].concat();
    let writing = thread::spawn(move || std::io::Write::write_all(&mut writer, &all));
    let mut answer = vec![0; 400_000];
    client.read_exact(&mut answer).unwrap();
    // As long as another takes that is given up.
    assert_eq!(all_at_once(&daemon, &["cat"], &input).code(), "125");
    client.read_to_end(&mut answer).unwrap();
    assert!(writing.join().unwrap().is_ok());
    let end = answer.len().saturating_sub(20);
    assert!(
        answer.len() > input.len() && answer.ends_with(b"8:exitcode,1:0,"),
        "{} bytes: {}",
        answer.len(),
        String::from_utf8_lossy(&answer[end..])
    );
}

#[test]
fn an_output_that_a_timeout_cuts_while_it_waits_to_be_read_is_said_to_be_cut() {
    // Enough for a program on a busy machine to fill everything there is.
    let (daemon, _home) = door(&["-t", "3s", "--max-buffer", "64KiB"]);
    let outcome = all_at_once(&daemon, &["yes"], &noise(100_000));
    assert_eq!(outcome.end, ("termsig".to_owned(), "TERM".to_owned()));
    // A client that had read would not be told so.
    let late = {
        let mut client = ExecClient::connect(&daemon);
        client.send(request(&["yes"]));
        daemon.usr1_until(|stats| stats.count("runs timeout") == 2);
        client.outcome()
    };
    let said = "iotcpd: the program was ended by --timeout while its output waited to be read\n";
    assert_eq!(late.complaint(), said);
    daemon.stderr_wait("left unread as much as --max-buffer allows");
}
