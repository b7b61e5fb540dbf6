//! Clients that send everything before they read: their programs wait for them, and they for their programs.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::thread;

use crate::exec_client::{ExecClient, Outcome, door, netstring, request};
use crate::exec_foreign_clients::{PERL, finish, path_of};
use crate::harness::{Address, Daemon, TempDir, WATCHDOG, temp_dir};

/// Sends everything, then reads everything, as sockexec.client and the Lua client for nginx do.
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
fn a_client_that_sends_everything_before_it_reads_gets_everything_back() {
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
fn many_clients_send_everything_before_they_read_at_once() {
    let (daemon, _home) = door(&["-t", "0"]);
    let input = noise(3_000_000);
    thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| assert!(all_at_once(&daemon, &["cat"], &input).stdout == input));
        }
    });
}

#[test]
fn a_client_that_sends_more_than_may_be_held_is_refused_and_the_log_names_the_flag() {
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

/// A client that only reads late, with nothing more to say, delays no other.
#[test]
fn a_client_that_reads_late_is_waited_for() {
    let (daemon, _home) = door(&["--max-buffer", "64KiB"]);
    let path = path_of(&daemon);
    let mut silent = UnixStream::connect(&path).unwrap();
    let script = request(&["sh", "-c", "head -c 4000000 /dev/zero; cat"]);
    std::io::Write::write_all(&mut silent, &[script, netstring(&noise(300_000))].concat()).unwrap();
    // The pause lasts until another client, which began later, has been given up.
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

/// As `iotcpd call ... | less` does: it has read some, then no more, and it has still more to send.
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
    // The pause lasts until another client, which began later, has been given up.
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

/// More than fits into the sockets of TCP, whose buffers grow with what is read.
const LOTS: usize = 64 << 20;

/// A door on a UNIX socket and on TCP.
fn two_doors(flags: &[&str]) -> (Daemon, TempDir) {
    let home = temp_dir();
    let socket = format!("unix:{}", home.path().join("sock").display());
    let arguments = ["exec", "--listen", "127.0.0.1:0", &socket];
    (Daemon::with(arguments).args(flags).start(), home)
}

/// A TCP client that is not read from until it has sent everything, by a thread of this scope.
fn over_tcp<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    daemon: &Daemon,
    input: &'scope [u8],
) -> (TcpStream, thread::ScopedJoinHandle<'scope, std::io::Result<()>>) {
    let Address::Tcp(address) = daemon.nth_addr(2) else {
        panic!("the second address is one of TCP")
    };
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(WATCHDOG)).unwrap();
    client.set_write_timeout(Some(WATCHDOG)).unwrap();
    let mut writer = client.try_clone().unwrap();
    let sending = scope.spawn(move || {
        writer.write_all(&[request(&["cat"]), netstring(input)].concat())?;
        writer.write_all(b"0:,")
    });
    (client, sending)
}

/// It has read nothing, or too little to tell, and still more to send. Over a UNIX socket that is enough after 5 s.
#[test]
fn a_tcp_client_that_pauses_goes_on_afterwards() {
    let (daemon, _home) = two_doors(&["-t", "0", "--max-buffer", "64KiB"]);
    let input = noise(LOTS);
    thread::scope(|scope| {
        let (mut client, sending) = over_tcp(scope, &daemon, &input);
        until_held(&daemon, 2_000_000);
        // The pause lasts until another client, which began later, has been given up.
        assert_eq!(all_at_once(&daemon, &["cat"], &noise(8_000_000)).code(), "125");
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).unwrap();
        sending.join().unwrap().unwrap();
        whole(&answer, &input);
    });
}

/// Its machine was full, and took more later, so it reads, and is waited for although another is given up.
#[test]
fn a_tcp_client_that_went_on_after_a_pause_may_pause_for_longer() {
    let (daemon, _home) = two_doors(&["-t", "0", "--max-buffer", "64KiB", "--write-timeout", "100ms"]);
    let input = noise(LOTS);
    thread::scope(|scope| {
        let (mut client, sending) = over_tcp(scope, &daemon, &input);
        until_held(&daemon, 2_000_000);
        let mut answer = vec![0; 400_000];
        client.read_exact(&mut answer).unwrap();
        let (mut silent, also) = over_tcp(scope, &daemon, &input);
        daemon.stderr_wait("--max-buffer");
        let mut back = Vec::new();
        silent.read_to_end(&mut back).unwrap();
        assert!(back.len() < input.len() && back.ends_with(b"8:exitcode,3:125,"));
        also.join().unwrap().unwrap();
        client.read_to_end(&mut answer).unwrap();
        sending.join().unwrap().unwrap();
        whole(&answer, &input);
    });
}

/// Waits until a connection holds so much of its input, as USR2 tells.
fn until_held(daemon: &Daemon, bytes: usize) {
    let held = |line: &String| {
        let behind = line.split(", to program = ").nth(1)?;
        behind.split(',').next()?.parse::<usize>().ok()
    };
    while !daemon.usr2().iter().filter_map(held).any(|held| held >= bytes) {}
}

/// An answer is this output, in as many pairs as it may be, and success.
fn whole(mut answer: &[u8], output: &[u8]) {
    let mut came = Vec::new();
    while let Some(rest) = answer.strip_prefix(b"6:stdout,") {
        let colon = rest.iter().position(|byte| *byte == b':').unwrap();
        let length: usize = std::str::from_utf8(&rest[..colon]).unwrap().parse().unwrap();
        came.extend_from_slice(&rest[colon + 1..][..length]);
        answer = &rest[colon + 1 + length + 1..];
    }
    assert_eq!(String::from_utf8_lossy(answer), "8:exitcode,1:0,");
    assert!(came == output, "{} bytes", came.len());
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
