//! TLS in front of every door: whatever a plain connection can do works over it, and a client that does not complete its
//! handshake costs no one else anything.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use rustls::{ClientConnection, StreamOwned};

use crate::command::{ECHO, torc};
use crate::exec_client::{netstring, request};
use crate::harness::{Address, Certificate, Client, Daemon, Gate, WATCHDOG, done, worker_command};
use crate::upgrade::upgrade;

/// A daemon with a listener on TLS, and the certificate for it.
pub(crate) struct Door {
    pub(crate) daemon: Daemon,
    pub(crate) certificate: Certificate,
}

impl Door {
    /// A pool of `workers` that wait for their orders.
    #[track_caller]
    pub(crate) fn pool(workers: u32, flags: &[&str]) -> Self {
        let (workers, command) = (workers.to_string(), worker_command(&[]));
        let arguments = ["-n", &workers, "-d", &command, "--queue-timeout", "60s"];
        Self::with(&[&arguments[..], flags].concat())
    }

    #[track_caller]
    pub(crate) fn with(arguments: &[&str]) -> Self {
        let certificate = Certificate::new();
        let tls = certificate.flags();
        let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
        let daemon = Daemon::with(arguments.iter().copied()).args(&tls).start();
        Self { daemon, certificate }
    }

    /// A pool of two shells with this script, in session mode.
    #[track_caller]
    pub(crate) fn sessions(script: &str) -> Self {
        let command = shell_words::join(["sh", "-c", script]);
        Self::with(&["-n", "2", "-d", &command, "--mode", "session", "--queue-timeout", "60s"])
    }

    /// An exec door for programs of this name.
    #[track_caller]
    pub(crate) fn exec(program: &str) -> Self {
        let certificate = Certificate::new();
        let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
        let daemon = Daemon::with(["exec", "tls:127.0.0.1:0", "--allow-program", program])
            .args(&["--cert", &cert, "--key", &key])
            .start();
        Self { daemon, certificate }
    }

    /// A connection without a byte of TLS on it.
    #[track_caller]
    pub(crate) fn socket(&self) -> TcpStream {
        let Address::Tcp(address) = self.daemon.addr() else {
            panic!("TLS goes over TCP")
        };
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(WATCHDOG)).unwrap();
        socket
    }

    /// The side of a client before its first byte.
    #[track_caller]
    pub(crate) fn stream(&self) -> StreamOwned<ClientConnection, TcpStream> {
        self.certificate.client(self.socket())
    }

    #[track_caller]
    pub(crate) fn client(&self) -> Client {
        self.daemon.client().secure(&self.certificate)
    }

    /// A client that has sent all but the last byte of its first message.
    #[track_caller]
    pub(crate) fn half_handshake(&self) -> Half {
        let mut client = self.daemon.client();
        let hello = self.certificate.hello();
        let (last, first) = hello.split_last().expect("it is not empty");
        client.send(first);
        Half { client, last: *last }
    }

    #[track_caller]
    pub(crate) fn ask(&self, line: &str) -> String {
        let mut client = self.client();
        client.send(format!("{line}\n"));
        String::from_utf8_lossy(&client.read_to_end()).into_owned()
    }
}

pub(crate) struct Half {
    pub(crate) client: Client,
    pub(crate) last: u8,
}

/// Bytes of no pattern that a block size could hide.
fn noise(length: u32) -> Vec<u8> {
    let byte = |number: u32| number.wrapping_mul(2_654_435_761).to_be_bytes()[0];
    (0..length).map(byte).collect()
}

pub(crate) fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

// ---- the pool --------------------------------------------------------------------------------------------------

#[test]
fn a_request_on_a_connection_of_its_own_is_answered_with_a_clean_end() {
    let door = Door::pool(2, &[]);
    for number in 0..20 {
        assert_eq!(door.ask(&format!("echo {number}")), format!("{number}\n"));
    }
    let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries replied"), stats.count("queries failed")), (20, 0));
}

#[test]
fn the_end_of_a_client_is_close_notify_and_anything_else_is_a_cut() {
    let door = Door::pool(1, &["--persistent"]);
    let mut client = door.client();
    client.send("echo one\necho two\n");
    client.half_close();
    assert_eq!(text(client.read_to_end()), "one\ntwo\n");
    // A request that was cut in the middle is none.
    let mut cut = door.client();
    cut.send("echo not");
    drop(cut);
    let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("queries total"), stats.count("queries replied")), (2, 2));
}

/// nginx passes the end of a client on in this way.
#[test]
fn the_whole_requests_of_a_client_that_is_cut_off_are_answered() {
    for flags in [&[][..], &["--persistent"]] {
        let door = Door::pool(1, flags);
        let mut stream = door.stream();
        stream.write_all(b"echo one\necho two\necho not").unwrap();
        stream.sock.shutdown(Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        assert!(
            answers == if flags.is_empty() { "one\n" } else { "one\ntwo\n" },
            "{answers}"
        );
        let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
        let replied = answers.lines().count() as u64;
        assert_eq!(
            (stats.count("queries total"), stats.count("queries replied")),
            (replied, replied)
        );
    }
}

#[test]
fn a_connection_is_good_for_many_requests_ahead_of_their_answers() {
    let door = Door::pool(2, &["--persistent"]);
    let mut client = door.client();
    let requests: String = (0..200).map(|number| format!("echo {number}\n")).collect();
    client.send(requests);
    for number in 0..200 {
        assert_eq!(client.read_line(), number.to_string());
    }
    for byte in b"echo slowly\n" {
        client.send([*byte]);
    }
    assert_eq!(client.read_line(), "slowly");
}

#[test]
fn a_long_line_goes_both_ways() {
    let flags = ["--max-request", "3000000", "--max-reply", "3000000"];
    let door = Door::pool(1, &flags);
    let line = "0123456789".repeat(200_000);
    assert_eq!(door.ask(&format!("echo {line}")), line + "\n");
}

#[test]
fn a_multiplexed_connection_drains_over_tls() {
    let gate = Gate::new();
    let door = Door::pool(2, &[]);
    let mut client = door.client();
    client.send("iotcpd-multiplex 1\n");
    assert!(client.read_line().starts_with("iotcpd-multiplex 1 max-unanswered="));
    client.send(format!("7 wait {} last\n8 echo first\n", gate.path()));
    let arrival = gate.arrival();
    assert_eq!(client.read_line(), "8 first");
    door.daemon.signal(Signal::SIGTERM);
    door.daemon.stderr_wait("draining, 1 clients connected");
    arrival.open();
    let rest = text(client.read_to_end());
    assert!(rest.contains("7 last\n"), "{rest}");
    assert!(door.daemon.finish().0.success());
}

/// Sends everything and reads everything at the same time, with a pause in reading now and then, and ends its side
/// behind the last byte. Returns the bytes up to the daemon's end.
fn exchange(door: &Door, bytes: &[u8]) -> Vec<u8> {
    let mut stream = door.stream();
    stream.sock.set_nonblocking(true).unwrap();
    let (mut sent, mut received, mut piece, mut has_ended) = (0, Vec::new(), vec![0; 50_000], false);
    for round in 0_usize.. {
        if sent < bytes.len() {
            let end = bytes.len().min(sent + 30_000);
            sent += stream.conn.writer().write(&bytes[sent..end]).unwrap();
        } else if !has_ended {
            stream.conn.send_close_notify();
            has_ended = true;
        }
        if stream.conn.wants_write() {
            done(stream.conn.write_tls(&mut stream.sock)).unwrap();
        }
        // A reader that pauses fills the buffers on the way, and more is encrypted than the socket takes.
        if sent < bytes.len() && round % 400 < 200 {
            continue;
        }
        if done(stream.conn.read_tls(&mut stream.sock)).unwrap().is_some() {
            stream.conn.process_new_packets().unwrap();
        }
        match done(stream.conn.reader().read(&mut piece)).unwrap() {
            Some(0) => return received,
            Some(count) => received.extend_from_slice(&piece[..count]),
            None => std::thread::yield_now(),
        }
    }
    received
}

#[test]
fn a_session_carries_both_directions_at_once_and_each_to_its_end() {
    let door = Door::sessions("cat; echo behind");
    let mut bytes = noise(20_000_000);
    let received = exchange(&door, &bytes);
    bytes.extend_from_slice(b"behind\n");
    assert_eq!(received.len(), bytes.len());
    assert!(received == bytes);
}

#[test]
fn the_end_of_a_worker_is_passed_on_while_its_client_goes_on() {
    let door = Door::sessions("head -c 20000000 /dev/zero; exec >&-; sum=$(wc -c); echo had $sum bytes >&2");
    let mut client = door.client();
    client.send("a");
    assert_eq!(client.read_to_end().len(), 20_000_000);
    for piece in noise(20_000_000).chunks(1_000_003) {
        client.send(piece);
    }
    client.half_close();
    door.daemon.stderr_wait("had 20000001 bytes");
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_session_whose_client_is_cut_off_ends_with_its_worker() {
    let door = Door::sessions("read line; echo got $line; read more; echo more $more; exec sleep 600");
    let mut client = door.client();
    client.send("a line\n");
    assert_eq!(client.read_line(), "got a line");
    drop(client);
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
}

// ---- the other doors -------------------------------------------------------------------------------------------

#[test]
fn an_exec_door_runs_programs_for_clients_over_tls() {
    let door = Door::exec("/bin/echo");
    let mut client = door.client();
    client.send(request(&["/bin/echo", "hello"]));
    let answer = text(client.read_to_end());
    assert!(
        answer.contains("6:hello\n,") && answer.ends_with("8:exitcode,1:0,"),
        "{answer}"
    );
    let mut refused = door.client();
    refused.send(request(&["/bin/ls"]));
    assert!(!text(refused.read_to_end()).contains("8:exitcode,1:0,"));
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn a_program_whose_client_is_cut_off_is_ended() {
    let door = Door::exec("/bin/sleep");
    let mut client = door.client();
    client.send(request(&["/bin/sleep", "600"]));
    door.daemon.usr1_until(|stats| stats.count("runs running") == 1);
    drop(client);
    door.daemon.usr1_until(|stats| stats.count("runs running") == 0);
}

#[test]
fn a_command_door_prompts_clients_over_tls() {
    let certificate = Certificate::new();
    let tls = certificate.flags();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let daemon = torc(&[ECHO]).serve(&tls);
    let mut client = Client::connect(&daemon.nth_addr(2)).secure(&certificate);
    client.send("echo\na\nb\n");
    client.half_close();
    assert_eq!(text(client.read_to_end()), "torcd>torcd>a b\n");
}

// ---- what the administrator and the programs learn -------------------------------------------------------------

#[test]
fn the_log_and_the_dump_name_the_version_of_tls_and_the_dump_the_certificates() {
    let door = Door::pool(1, &["--persistent"]);
    let mut client = door.client();
    client.send("echo one\n");
    assert_eq!(client.read_line(), "one");
    let named = format!("127.0.0.1:{} (TLSv1.3)", client.local_port());
    let dump = door.daemon.usr2();
    assert!(
        dump.iter().any(|line| line.ends_with(&format!("client = {named}"))),
        "{dump:#?}"
    );
    let certificate = format!(
        "pool: tls: certificate = {}, names = localhost, ends = 4096-01-01",
        door.certificate.path("cert.pem")
    );
    assert!(dump.contains(&certificate), "{dump:#?}");
    client.send(vec![b'x'; 1_000_000]);
    door.daemon.stderr_wait(&named);
}

#[test]
fn behind_a_proxy_the_log_names_the_client_the_proxy_and_the_version_of_tls() {
    let door = Door::pool(1, &["--persistent", "--accept-proxy", "127.0.0.1"]);
    let mut client = door.daemon.client();
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 5 6\r\n");
    let mut client = client.secure(&door.certificate);
    client.send("echo one\n");
    assert_eq!(client.read_line(), "one");
    let named = format!("192.0.2.7:5 (by way of 127.0.0.1:{}, TLSv1.3)", client.local_port());
    let dump = door.daemon.usr2();
    assert!(
        dump.iter().any(|line| line.ends_with(&format!("client = {named}"))),
        "{dump:#?}"
    );
}

#[test]
fn a_program_learns_the_version_of_tls_and_nothing_of_it_without_tls() {
    let tls = |lines: &str| -> Vec<String> {
        let lines = lines.lines().filter(|line| line.contains("IOTCPD_TLS_"));
        lines.map(str::to_owned).collect()
    };
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let daemon = Daemon::with(["exec", "127.0.0.1:0", "--allow-program", "/usr/bin/env"])
        .args(&flags)
        .env("IOTCPD_TLS_VERSION", "stale")
        .env("IOTCPD_TLS_SUBJECT", "stale")
        .start();
    let mut plain = daemon.client();
    plain.send(request(&["/usr/bin/env"]));
    assert_eq!(tls(&text(plain.read_to_end())), [""; 0]);
    let mut client = Client::connect(&daemon.nth_addr(2)).secure(&certificate);
    client.send(request(&["/usr/bin/env"]));
    assert_eq!(tls(&text(client.read_to_end())), ["IOTCPD_TLS_VERSION=TLSv1.3"]);
}

/// The whole days until the end of the certificates that the tests make.
fn days_left() -> u64 {
    let end = humantime::parse_rfc3339("4096-01-01T00:00:00Z").unwrap();
    end.duration_since(std::time::SystemTime::now()).unwrap().as_secs() / (24 * 60 * 60)
}

#[test]
fn the_statistics_count_handshakes_and_their_refusals() {
    let door = Door::pool(1, &["--persistent"]);
    let before = days_left();
    let stats = door.daemon.usr1();
    assert!(
        (days_left()..=before).contains(&stats.count("tls days left")),
        "{stats:#?}"
    );
    for (number, resumed) in [(1, 0), (2, 1), (3, 2)] {
        let mut client = door.client();
        client.send("echo one\n");
        assert_eq!(client.read_line(), "one");
        let stats = door.daemon.usr1();
        assert_eq!(
            (stats.count("tls handshakes"), stats.count("tls resumed")),
            (number, resumed)
        );
    }
    let half = door.half_handshake();
    door.daemon.usr1_until(|stats| stats.count("tls waiting") == 1);
    assert_eq!(door.daemon.usr1().count("refused tls"), 0);
    drop(half);
    door.daemon.usr1_until(|stats| stats.count("refused tls") == 1);
    let mut plain = door.daemon.client();
    plain.send("echo in the clear\n");
    plain.read_to_end_or_reset();
    let stats = door.daemon.usr1_until(|stats| stats.count("refused tls") == 2);
    let others = ["tls handshakes", "tls waiting", "tls failed", "tls cut"];
    assert_eq!(others.map(|label| stats.count(label)), [3, 0, 0, 0]);
}

#[test]
fn the_statistics_count_connections_that_go_wrong_behind_their_handshake() {
    let door = Door::pool(1, &["--persistent"]);
    let mut answered = door.client();
    answered.send("echo one\n");
    assert_eq!(answered.read_line(), "one");
    let answered_as = format!("127.0.0.1:{} ", answered.local_port());
    drop(answered);
    let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("tls cut"), 0, "it had its answer");
    let mut cut = door.client();
    cut.send("echo not");
    let named = format!("127.0.0.1:{} (TLSv1.3): its TLS connection was cut", cut.local_port());
    drop(cut);
    door.daemon.usr1_until(|stats| stats.count("tls cut") == 1);
    door.daemon.stderr_wait(&named);
    let mut garbage = door.client();
    garbage.send("echo two\n");
    assert_eq!(garbage.read_line(), "two");
    garbage.send_raw("echo in the clear\n");
    let named = format!("127.0.0.1:{} (TLSv1.3): its TLS connection fails", garbage.local_port());
    let stats = door.daemon.usr1_until(|stats| stats.count("tls failed") == 1);
    assert_eq!((stats.count("tls cut"), stats.count("refused tls")), (1, 0));
    door.daemon.stderr_wait(&named);
    assert!(!door.daemon.stderr.text().contains(&answered_as), "it had its answer");
}

/// An exec and a command door with this certificate, each of which has served a client over TLS, at its second address.
pub(crate) fn other_doors(certificate: &Certificate) -> [Daemon; 2] {
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let exec = Daemon::with(["exec", "127.0.0.1:0", "--allow-program", "/bin/echo"])
        .args(&flags)
        .start();
    let doors = [
        (exec, request(&["/bin/echo", "hello"])),
        (torc(&[ECHO]).serve(&flags), b"echo\na\n".to_vec()),
    ];
    doors.map(|(daemon, request)| {
        let mut client = Client::connect(&daemon.nth_addr(2)).secure(certificate);
        client.send(request);
        client.half_close();
        assert_ne!(client.read_to_end(), b"");
        daemon
    })
}

#[test]
fn the_other_doors_count_the_same() {
    for daemon in other_doors(&Certificate::new()) {
        let mut plain = Client::connect(&daemon.nth_addr(2));
        plain.send("in the clear\n");
        plain.read_to_end_or_reset();
        let stats = daemon.usr1_until(|stats| stats.count("refused tls") == 1);
        assert_eq!((stats.count("tls handshakes"), stats.count("tls cut")), (1, 0));
        assert!(stats.count("tls days left") > 0);
    }
}

// ---- refusals --------------------------------------------------------------------------------------------------

#[test]
fn bytes_that_are_no_tls_are_refused_without_a_word_in_the_clear() {
    let door = Door::pool(1, &[]);
    for (bytes, why) in [
        (
            &b"GET / HTTP/1.0\r\n\r\n"[..],
            "it speaks no TLS: it begins with \"GET / HTTP/1.0",
        ),
        (
            b"echo in the clear\n",
            "it speaks no TLS: it begins with \"echo in the clea\"",
        ),
        (
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "it speaks no TLS: it begins with \"PROXY",
        ),
        (
            &[0x16, 3, 1, 0xff, 0xff],
            "it sends a malformed message (MessageTooLarge)",
        ),
    ] {
        let mut client = door.daemon.client();
        client.send(bytes);
        let answer = client.read_to_end_or_reset();
        assert!(!answer.windows(3).any(|three| three == b"ERR"), "{answer:?}");
        let line = door.daemon.stderr_wait(why);
        assert!(line.contains("refused 127.0.0.1:"), "{line}");
    }
    assert_eq!(door.ask("echo on"), "on\n");
    let stats = door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(stats.count("queries total"), 1);
}

#[test]
fn garbage_behind_the_handshake_ends_the_connection_and_no_other() {
    let door = Door::pool(1, &["--persistent"]);
    let mut other = door.client();
    let mut client = door.client();
    client.send("echo one\n");
    assert_eq!(client.read_line(), "one");
    client.send_raw("echo two\n");
    door.daemon.usr1_until(|stats| stats.count("connections") == 1);
    other.send("echo other\n");
    assert_eq!(other.read_line(), "other");
    assert_eq!(door.daemon.usr1().count("queries total"), 2);
}

#[test]
fn a_client_that_does_not_trust_the_certificate_says_so_in_the_log() {
    let door = Door::pool(1, &[]);
    let stranger = Certificate::new();
    let Address::Tcp(address) = door.daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    let mut client = stranger.client(TcpStream::connect(address).unwrap());
    client.conn.complete_io(&mut client.sock).unwrap_err();
    door.daemon.stderr_wait("(alert ");
}

#[test]
fn access_lists_are_held_before_the_first_byte_of_tls() {
    let door = Door::pool(1, &["--deny", "127.0.0.2"]);
    let mut denied = Client::connect_from(Ipv4Addr::new(127, 0, 0, 2), &door.daemon.addr());
    assert_eq!(denied.read_to_end_or_reset(), b"");
    door.daemon.stderr_wait("not allowed by --allow and --deny");
    assert_eq!(door.daemon.usr1().count("refused denied"), 1);
    assert_eq!(door.ask("echo in"), "in\n");
}

#[test]
fn over_a_limit_a_client_is_refused_before_its_handshake_or_in_the_protocol_behind_it() {
    let door = Door::pool(1, &["--persistent", "--max-connections-per-ip", "2"]);
    let (mut one, half) = (door.client(), door.half_handshake());
    one.send("echo one\n");
    assert_eq!(one.read_line(), "one");
    door.daemon.usr1_until(|stats| stats.count("connections") == 2);
    assert_eq!(
        door.daemon.client().read_to_end_or_reset(),
        b"",
        "half a handshake counts"
    );
    let line = door
        .daemon
        .stderr_wait("as many connections as --max-connections-per-ip allows");
    assert!(line.contains("refused 127.0.0.1:"), "{line}");
    drop(half);
    door.daemon.usr1_until(|stats| stats.count("connections") == 1);
    let mut next = door.client();
    next.send("echo next\n");
    assert_eq!(next.read_line(), "next");
}

#[test]
fn a_health_check_that_connects_and_closes_is_no_refusal() {
    let door = Door::pool(1, &["--log-level", "debug"]);
    drop(door.daemon.client());
    door.daemon
        .stderr_wait("has closed before its TLS handshake, as health checks do");
    drop(door.half_handshake());
    door.daemon
        .stderr_wait("it has closed the connection within the handshake");
}

#[test]
fn a_handshake_that_is_never_completed_has_a_deadline() {
    let door = Door::pool(1, &["--read-timeout", "600s"]);
    let (mut silent, mut half) = (door.daemon.client(), door.half_handshake());
    // An alert may come before the end.
    silent.read_to_end();
    half.client.read_to_end();
    door.daemon
        .stderr_wait_nth("its TLS handshake was not complete in time", 2);
    assert_eq!(door.daemon.usr1().count("connections"), 0);
}

// ---- many ------------------------------------------------------------------------------------------------------

#[test]
fn half_handshakes_do_not_keep_a_client_waiting() {
    let door = Door::pool(1, &[]);
    let halves: Vec<Half> = (0..200).map(|_| door.half_handshake()).collect();
    door.daemon.usr1_until(|stats| stats.count("connections") == 200);
    assert_eq!(door.ask("echo served"), "served\n");
    let dump = door.daemon.usr2();
    let wanted = "pool: arrivals: 200 whose PROXY header or TLS handshake is awaited";
    assert!(dump.iter().any(|line| line == wanted), "{dump:#?}");
    assert!(dump.iter().any(|line| line.ends_with("stage = handshake")), "{dump:#?}");
    for mut half in halves {
        half.client.send([half.last]);
        half.client.read_text("\u{16}\u{3}\u{3}");
    }
    assert_eq!(door.ask("echo served"), "served\n");
}

#[test]
fn half_handshakes_take_at_most_half_of_the_places_and_the_oldest_makes_room() {
    let door = Door::pool(1, &["--max-connections", "4"]);
    let mut oldest = door.half_handshake();
    door.daemon.usr1_until(|stats| stats.count("connections") == 1);
    let _others = [door.half_handshake(), door.half_handshake()];
    oldest.client.read_to_end();
    door.daemon
        .stderr_wait("its TLS handshake was not complete, and as many wait for theirs as half of --max-connections");
    assert_eq!(door.ask("echo served"), "served\n");
}

#[test]
fn many_handshakes_at_once_are_all_completed() {
    let door = Door::pool(2, &[]);
    let answers: Vec<String> = std::thread::scope(|scope| {
        let clients = (0..64).map(|number| {
            let door = &door;
            scope.spawn(move || door.ask(&format!("echo {number}")))
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for (number, answer) in answers.iter().enumerate() {
        assert_eq!(*answer, format!("{number}\n"));
    }
}

// ---- the PROXY protocol in front -------------------------------------------------------------------------------

#[test]
fn a_proxy_header_comes_in_front_of_the_handshake() {
    let door = Door::pool(1, &["--accept-proxy", "127.0.0.1", "--deny", "192.0.2.66"]);
    let mut client = door.daemon.client();
    client.send("PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n");
    let mut client = client.secure(&door.certificate);
    client.send("echo behind\n");
    assert_eq!(client.read_to_end(), b"behind\n");
    // In one packet with the first message of the handshake.
    let header = b"PROXY TCP4 192.0.2.7 203.0.113.1 56324 443\r\n";
    let mut together = door.daemon.client();
    together.send([&header[..], &door.certificate.hello()].concat());
    together.read_text("\u{16}\u{3}\u{3}");
    // In pieces of one byte.
    let mut slow = door.daemon.client();
    header.iter().for_each(|byte| slow.send([*byte]));
    let mut slow = slow.secure(&door.certificate);
    slow.send("echo slow\n");
    assert_eq!(slow.read_to_end(), b"slow\n");
    // A client that may not connect gets no handshake.
    let mut denied = door.daemon.client();
    denied.send("PROXY TCP4 192.0.2.66 203.0.113.1 56324 443\r\n");
    assert_eq!(denied.read_to_end_or_reset(), b"");
    door.daemon
        .stderr_wait("refused 192.0.2.66:56324 (by way of 127.0.0.1:");
    let mut missing = door.daemon.client();
    missing.send(door.certificate.hello());
    assert_eq!(missing.read_to_end_or_reset(), b"");
    door.daemon.stderr_wait("it begins without a PROXY header");
}

#[test]
fn a_proxy_that_speaks_for_itself_makes_the_handshake_and_is_served_where_it_may_connect() {
    let header = |family: u8, body: &[u8]| {
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        [b"\r\n\r\n\0\r\nQUIT\n", &[0x20, family][..], &length, body].concat()
    };
    let headers = [
        header(0x00, b""),
        header(0x11, &[192, 0, 2, 7, 203, 0, 113, 1, 0xdc, 4, 1, 187]),
        header(0x31, &[0; 216]),
        header(0xff, b"ignored"),
    ];
    let door = Door::pool(1, &["--accept-proxy", "127.0.0.1"]);
    let closed = Door::pool(
        1,
        &[
            "--accept-proxy",
            "127.0.0.1",
            "--allow",
            "192.0.2.0/24",
            "--log-level",
            "debug",
        ],
    );
    for header in headers {
        // The client that such a header may name is ignored, so that no list of addresses lets it in.
        for (door, answer) in [(&door, "alive\n"), (&closed, "")] {
            let mut check = door.daemon.client();
            check.send(&header);
            let mut check = check.secure(&door.certificate);
            check.send("echo alive\n");
            assert_eq!(text(check.read_to_end_or_reset()), answer, "{header:?}");
        }
    }
    closed
        .daemon
        .stderr_wait("(the proxy itself, TLSv1.3): --allow does not name it, and it has seen that the door answers");
    let stats = closed.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!((stats.count("refused denied"), stats.count("refused tls")), (0, 0));
}

// ---- change and end --------------------------------------------------------------------------------------------

#[test]
fn a_client_that_rests_finds_a_clean_end_when_the_daemon_drains() {
    let door = Door::pool(1, &["--persistent"]);
    let mut client = door.client();
    client.send("echo one\n");
    assert_eq!(client.read_line(), "one");
    door.daemon.signal(Signal::SIGTERM);
    assert_eq!(client.read_to_end(), b"");
    drop(client);
    assert!(door.daemon.finish().0.success());
}

#[test]
fn half_a_handshake_does_not_keep_a_daemon_from_ending() {
    let door = Door::pool(1, &[]);
    let mut half = door.half_handshake();
    door.daemon.usr1_until(|stats| stats.count("connections") == 1);
    door.daemon.signal(Signal::SIGTERM);
    half.client.read_to_end();
    assert!(door.daemon.finish().0.success());
}

#[test]
fn a_handshake_that_was_begun_is_completed_after_hup() {
    let door = Door::pool(1, &["--persistent"]);
    let mut before = door.client();
    let mut half = door.stream();
    half.conn.write_tls(&mut half.sock).unwrap();
    half.sock.peek(&mut [0]).unwrap();
    door.daemon.signal(Signal::SIGHUP);
    door.daemon.stderr_wait("replacing every worker");
    half.write_all(b"echo whole\n").unwrap();
    let mut answer = [0; 6];
    half.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"whole\n");
    before.send("echo before\n");
    assert_eq!(before.read_line(), "before");
}

#[test]
fn a_connection_stays_with_the_old_process_after_an_upgrade_until_it_ends() {
    let cat = [request(&["cat"]), netstring(b"ser")].concat();
    let begun: [(&[u8], &str); 4] = [
        (b"echo ser", ""),
        (b"ser", "ser"),
        (&cat, "6:stdout,3:ser,"),
        (b"echo\n", "torcd>"),
    ];
    let end = [netstring(b"ved"), b"0:,".to_vec()].concat();
    let ends: [(&[u8], &str); 4] = [
        (b"ved\n", "served\n"),
        (b"ved", "ved"),
        (&end, "6:stdout,3:ved,8:exitcode,1:0,"),
        (b"served\nb\n", "torcd>served b\n"),
    ];
    for (((door, whole, answer), (first, said)), (rest, last)) in doors(&[]).into_iter().zip(begun).zip(ends) {
        let mut old = door.client();
        old.send(first);
        old.read_text(said);
        upgrade(&door.daemon, door.daemon.pid(), 1);
        let mut new = door.client();
        new.send(whole);
        new.half_close();
        assert!(text(new.read_to_end()).ends_with(answer));
        old.send(rest);
        old.half_close();
        assert_eq!(text(old.read_to_end()), last);
        assert!(door.daemon.wait_exit().success());
    }
}

// ---- others ----------------------------------------------------------------------------------------------------

#[test]
fn openssl_is_served_with_both_versions() {
    let door = Door::pool(1, &[]);
    let Address::Tcp(address) = door.daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = Command::new("openssl")
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-servername",
                "localhost",
                version,
            ])
            .args([
                "-connect",
                &address.to_string(),
                "-CAfile",
                &door.certificate.path("cert.pem"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed");
        openssl.stdin.take().unwrap().write_all(b"echo by openssl\n").unwrap();
        let output = openssl.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "by openssl\n",
            "{version}: {said}"
        );
    }
}

// ---- ends ------------------------------------------------------------------------------------------------------

/// A door of each kind with these flags, and one with sessions, that may be upgraded. Beside each a request, and the end
/// of its answer.
fn doors(flags: &[&str]) -> [(Door, Vec<u8>, &'static str); 4] {
    let command = worker_command(&[]);
    let commands = fs::read_to_string(torc(&[ECHO]).path("torc.cfg")).unwrap();
    let door = |arguments: &[&str], flags: &[&str]| {
        let certificate = Certificate::new();
        let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
        let file = certificate.write("torc.cfg", &commands);
        let arguments = arguments
            .iter()
            .map(|word| if *word == "FILE" { &*file } else { *word });
        let daemon = Daemon::with(arguments)
            .args(&["--cert", &cert, "--key", &key])
            .args(flags)
            .installed_at(Path::new(env!("CARGO_BIN_EXE_iotcpd")))
            .start();
        Door { daemon, certificate }
    };
    const LISTEN: [&str; 2] = ["--listen", "tls:127.0.0.1:0"];
    let pool = [&["-n", "1", "-d", &command][..], &LISTEN].concat();
    let session = [&["-n", "1", "-d", "cat", "--mode", "session"][..], &LISTEN].concat();
    let command = [&["command", "--config", "FILE"][..], &LISTEN].concat();
    [
        (door(&pool, flags), b"echo served\n".to_vec(), "served\n"),
        (door(&session, &[]), b"served".to_vec(), "served"),
        (
            door(&["exec", "tls:127.0.0.1:0"], flags),
            request(&["echo", "served"]),
            "7:served\n,8:exitcode,1:0,",
        ),
        (door(&command, flags), b"echo\nserved\nb\n".to_vec(), "served b\n"),
    ]
}

#[test]
fn a_request_with_both_ends_behind_it_in_one_packet_is_answered_with_a_clean_end() {
    for (door, request, answer) in doors(&[]) {
        for is_cut_into_bytes in [false, true] {
            let mut stream = door.stream();
            while stream.conn.is_handshaking() {
                stream.conn.complete_io(&mut stream.sock).unwrap();
            }
            stream.conn.writer().write_all(&request).unwrap();
            stream.conn.send_close_notify();
            let mut wire = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut wire).unwrap();
            }
            if is_cut_into_bytes {
                stream.sock.set_nodelay(true).unwrap();
                wire.iter().for_each(|byte| stream.sock.write_all(&[*byte]).unwrap());
            } else {
                stream.sock.write_all(&wire).unwrap();
            }
            stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
            let mut read = String::new();
            stream.read_to_string(&mut read).unwrap();
            assert!(read.ends_with(answer), "{read:?}");
        }
    }
}

#[test]
fn an_answer_that_is_cut_off_has_no_clean_end() {
    let door = Door::pool(
        1,
        &[
            "--max-reply",
            "100MiB",
            "--write-timeout",
            "100ms",
            "--busy-timeout",
            "600s",
        ],
    );
    let mut client = door.client();
    client.send("big 20000000\n");
    door.daemon
        .stderr_wait("it took nothing of its answer within --write-timeout");
    let mut rest = Vec::new();
    let error = Read::read_to_end(&mut client, &mut rest).unwrap_err();
    assert!(
        matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
        "{error}"
    );
    assert!(rest.len() < 20_000_000, "{}", rest.len());
}

#[test]
fn a_client_that_wants_nothing_finds_a_clean_end() {
    for (door, ..) in doors(&[]) {
        let mut client = door.client();
        client.half_close();
        client.read_to_end();
        door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    }
}

#[test]
fn a_client_that_says_nothing_in_time_finds_a_clean_end() {
    // A session waits for no byte of its client.
    let [pool, _, exec, command] = doors(&["--read-timeout", "100ms"]);
    for (door, ..) in [pool, exec, command] {
        door.client().read_to_end();
    }
}
