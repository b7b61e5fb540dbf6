//! Attacks on the listeners with TLS. Each costs the attacker its connection and nothing else: another client is served
//! beside it, the log says why, the statistics count it, and no descriptor and no process is left.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, setsockopt, socket, sockopt};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use crate::command::{CAT, quoted, torc};
use crate::exec_client::{netstring, request};
use crate::harness::{Address, Certificate, Client, Daemon, StatsBlock, WATCHDOG, temp_dir, worker_command};
use crate::tls::{Door, text};
use crate::tls_wire::{
    ALERT, CHANGE_CIPHER, DATA, EARLY_DATA, Forger, GROUPS, HANDSHAKE, HEARTBEAT, Hello, SERVER_NAME, SIGNATURES,
    VERSIONS, alert, in_records, message, payload, record,
};

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

/// The first worker takes nothing of the client's input, which is decrypted by then.
#[test]
fn a_session_loses_nothing_when_its_worker_ends_before_it_has_read() {
    let home = temp_dir();
    let (first, gate) = (home.path().join("first"), home.path().join("gate"));
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let script = format!(
        "mkdir {} 2>/dev/null || exec cat; exec <&-; read line <{}",
        first.display(),
        gate.display()
    );
    let command = shell_words::join(["sh", "-c", &script]);
    let flags = ["-n", "1", "-d", &command, "--mode", "session", "--queue-timeout", "60s"];
    let door = Door::with(&flags);
    // Its input is closed by now, for it opens the gate behind that.
    let mut gate = fs::OpenOptions::new().write(true).open(&gate).unwrap();
    let mut client = door.client();
    client.send("all of it\n");
    door.daemon.usr1_until(|stats| stats.count("sessions") == 1);
    client.send("and this\n");
    gate.write_all(b"go\n").unwrap();
    assert_eq!(client.read_line(), "all of it");
    assert_eq!(client.read_line(), "and this");
    client.half_close();
    assert_eq!(client.read_to_end(), b"");
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

/// However many of the arguments have come: a program with fewer of them, or with a part of one, would do something else.
#[test]
fn a_request_that_is_cut_off_within_its_arguments_runs_nothing() {
    let home = temp_dir();
    let door = Door::exec("/bin/sh");
    let script = format!("touch {}/$#", home.path().display());
    let whole = request(&["/bin/sh", "-c", &script, "name", "one", "two"]);
    for length in 1..whole.len() {
        let mut client = door.client();
        client.send(&whole[..length]);
        drop(client);
    }
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
    let mut client = door.client();
    client.send(whole);
    client.half_close();
    assert!(text(client.read_to_end()).ends_with("8:exitcode,1:0,"));
    assert!(home.path().join("2").exists());
    assert_eq!(door.daemon.usr1().count("runs total"), 1);
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

// ---- what stands -----------------------------------------------------------------------------------------------

/// A pool under attack, and a client that is served all the while.
struct Besieged {
    door: Door,
    other: Client,
    asked: u32,
    /// The number of requests besides.
    others: u64,
    descriptors: Vec<String>,
    processes: Vec<i32>,
}

impl Besieged {
    #[track_caller]
    fn pool(flags: &[&str]) -> Self {
        let door = Door::pool(1, &[&["--persistent"], flags].concat());
        let mut other = door.client();
        other.send("echo up\n");
        assert_eq!(other.read_line(), "up");
        let (descriptors, processes) = (descriptors(&door), door.daemon.children());
        Self {
            door,
            other,
            asked: 0,
            others: 1,
            descriptors,
            processes,
        }
    }

    /// Sends these bytes on a connection of their own, whose client is refused for this reason, in a sentence that holds
    /// no control character. What it is told is TLS.
    #[track_caller]
    fn refuses(&mut self, bytes: &[u8], why: &str) {
        let mut client = self.door.daemon.client();
        let port = client.local_port();
        client.send(bytes);
        assert_tls(&client.read_to_end_or_reset());
        drop(client);
        let line = self.door.daemon.stderr_wait(&format!("refused 127.0.0.1:{port}: "));
        assert!(line.contains(why), "{line} {why} {bytes:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        self.serves();
    }

    #[track_caller]
    fn serves(&mut self) {
        self.asked += 1;
        self.other.send(format!("echo {}\n", self.asked));
        assert_eq!(self.other.read_line(), self.asked.to_string());
    }

    /// The attackers have gone: nothing of theirs is left, and not one of their requests was made.
    #[track_caller]
    fn stands(mut self, refused: u64, failed: u64) {
        self.serves();
        let is_quiet = |stats: &StatsBlock| {
            (stats.count("connections"), stats.count("tls waiting")) == (1, 0)
                && (stats.count("refused tls"), stats.count("tls failed")) == (refused, failed)
        };
        let stats = self.door.daemon.usr1_until(is_quiet);
        assert_eq!(stats.count("queries total"), u64::from(self.asked) + self.others);
        assert_eq!(descriptors(&self.door), self.descriptors);
        assert_eq!(self.door.daemon.children(), self.processes);
    }

    /// A client of this version behind its handshake that forges its records from now on.
    #[track_caller]
    fn forger(&mut self, version: &'static SupportedProtocolVersion) -> Forger {
        let mut stream = self.door.certificate.client_of(version, self.door.socket());
        stream.write_all(b"echo true\n").unwrap();
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"true\n");
        self.others += 1;
        Forger::new(stream)
    }
}

/// The sockets that the daemon has open.
fn descriptors(door: &Door) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{}/fd", door.daemon.pid())).unwrap();
    let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let targets = targets.map(|target| target.display().to_string());
    let mut sockets: Vec<String> = targets.filter(|target| target.starts_with("socket:")).collect();
    sockets.sort();
    sockets
}

/// Checks that these bytes are records of TLS, the last of them perhaps cut.
#[track_caller]
fn assert_tls(mut bytes: &[u8]) {
    while let [kind, major, _, high, low, rest @ ..] = bytes {
        assert!((20..=23).contains(kind) && *major == 3, "{bytes:?}");
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        bytes = rest.get(length..).unwrap_or_default();
    }
}

/// Attacks with the sentence for each, against doors of their own, since the log leaves out the sixth of a kind.
fn refuse_each(attacks: &[(Vec<u8>, &str)]) {
    for some in attacks.chunks(5) {
        let mut besieged = Besieged::pool(&[]);
        for (bytes, why) in some {
            besieged.refuses(bytes, why);
        }
        besieged.stands(some.len() as u64, 0);
    }
}

// ---- the first message -----------------------------------------------------------------------------------------

const VERSION: &str = "it offers no version of TLS that is allowed here";

#[test]
fn old_versions_and_weak_ciphers_are_refused() {
    let old = |version: u16| Hello {
        version,
        ..Hello::v1_2()
    };
    let without_extensions = |version: u16| Hello {
        version,
        extensions: None,
        ..Hello::v1_2()
    };
    let suites = |suites: &[u16]| Hello {
        suites: suites.to_vec(),
        ..Hello::v1_2()
    };
    let ssl2 = [&[0x80, 28, 1, 3, 1, 0, 3, 0, 0, 0, 16, 1, 0, 128][..], &[7; 16]].concat();
    refuse_each(&[
        (ssl2, "it speaks no TLS: it begins with \"\\x80"),
        (without_extensions(0x0300).bytes(), VERSION),
        (without_extensions(0x0301).bytes(), VERSION),
        (old(0x0301).bytes(), VERSION),
        (old(0x0302).bytes(), VERSION),
        (Hello::v1_2().with(VERSIONS, &[4, 3, 2, 3, 1]).bytes(), VERSION),
        (Hello::v1_2().with(VERSIONS, &[2, 3, 5]).bytes(), VERSION),
        // RC4, 3DES, export, NULL, anonymous, static RSA, CBC.
        (
            suites(&[5, 10, 3, 2, 0x34, 0x9c, 0xc013, 0xc009]).bytes(),
            "it has no cipher suite in common with this side",
        ),
        (suites(&[]).bytes(), "malformed"),
        (
            Hello::v1_3().with_share(0x0100).bytes(),
            "it has no key exchange in common with this side",
        ),
        (
            Hello::v1_2().with_list(GROUPS, &[0x0100, 1, 2]).bytes(),
            "it has no key exchange in common with this side",
        ),
        // RSA and DSA with SHA-1 and MD5.
        (
            Hello::v1_3().with_list(SIGNATURES, &[0x0201, 0x0202, 0x0101]).bytes(),
            "it accepts no signature that this side's key can make",
        ),
        (
            Hello {
                compressions: vec![1],
                ..Hello::v1_2()
            }
            .bytes(),
            "it lacks what this side requires (NullCompressionRequired)",
        ),
    ]);
}

#[test]
fn a_name_that_is_none_is_refused_or_left_alone_and_never_in_the_log() {
    let forged = b"a\n2026-01-01 main: ready";
    let why = "it breaks the rules of TLS (ServerNameMustContainOneHostName)";
    refuse_each(&[
        (Hello::v1_3().with_names(&[b""]).bytes(), "malformed"),
        (Hello::v1_3().with_names(&[b"a\0b"]).bytes(), why),
        (Hello::v1_3().with_names(&[forged]).bytes(), why),
        (Hello::v1_3().with_names(&[&[b'a'; 255]]).bytes(), why),
        (Hello::v1_3().with_names(&[&[b'a'; 10_000]]).bytes(), why),
        (
            Hello::v1_3().with_names(&[b"a.example", b"b.example"]).bytes(),
            "malformed",
        ),
        (Hello::v1_3().with(SERVER_NAME, &[0, 0]).bytes(), "malformed"),
        (
            Hello::v1_3().with(SERVER_NAME, &[0, 9, 0, 0, 1, b'a']).bytes(),
            "malformed",
        ),
    ]);
    let besieged = Besieged::pool(&[]);
    for name in ["127.0.0.1", "unknown.example", "LOCALHOST"] {
        let mut client = besieged.door.daemon.client();
        client.send(Hello::v1_3().with_names(&[name.as_bytes()]).bytes());
        client.read_text("\u{16}\u{3}\u{3}");
    }
    besieged.stands(3, 0);
}

#[test]
fn a_first_message_of_any_wrong_form_is_refused() {
    let body = |length: usize| vec![0; length];
    let long = in_records(&message(1, &body(30_000)), 1000);
    let twice = Hello::v1_3().message();
    let time = "it sends a message at the wrong time";
    let decrypted = "it sends a record that cannot be decrypted";
    refuse_each(&[
        (long, "it sends more than 16384 bytes without data"),
        ([&[22, 3, 1, 0x48, 1][..], &body(100)].concat(), "malformed"),
        (record(HANDSHAKE, &message(1, &[])), "malformed"),
        (record(HANDSHAKE, &[]), "malformed"),
        (record(HANDSHAKE, &message(2, &body(40))), time),
        (record(HANDSHAKE, &message(99, &body(40))), time),
        (record(HANDSHAKE, &message(0, &[])), time),
        (record(HEARTBEAT, &[1, 0x40, 0]), "it speaks no TLS"),
        (record(DATA, b"echo early\n"), time),
        (record(CHANGE_CIPHER, &[1]).repeat(40), time),
        (record(CHANGE_CIPHER, &[2]), "it sends a malformed message (InvalidCcs)"),
        (record(ALERT, &alert(2, 40)), "(alert HandshakeFailure)"),
        (
            record(ALERT, &alert(1, 90)).repeat(10),
            "(TooManyWarningAlertsReceived)",
        ),
        (record(ALERT, &alert(9, 9)), "(alert AlertDescription(0x9))"),
        (record(ALERT, &[1]), "malformed"),
        ([Hello::v1_3().bytes(), twice.clone()].concat(), "malformed"),
        ([Hello::v1_3().bytes(), record(HANDSHAKE, &twice)].concat(), decrypted),
        ([Hello::v1_2().bytes(), record(HANDSHAKE, &twice)].concat(), time),
        ([Hello::v1_2().bytes(), record(DATA, b"in the clear\n")].concat(), time),
        (
            [Hello::v1_3().bytes(), record(ALERT, &alert(1, 0))].concat(),
            "(alert CloseNotify)",
        ),
        (
            [Hello::v1_3().bytes(), record(HEARTBEAT, &[1, 0x40, 0])].concat(),
            decrypted,
        ),
        (
            [Hello::v1_3().bytes(), record(CHANGE_CIPHER, &[1]).repeat(9)].concat(),
            "(IllegalMiddleboxChangeCipherSpec)",
        ),
    ]);
}

/// Early data was never allowed, so what cannot be decrypted behind it is passed over. The word of an end in the clear
/// means nothing: anyone may have said it.
#[test]
fn what_is_passed_over_gets_a_client_no_further() {
    let mut besieged = Besieged::pool(&[]);
    let hello = Hello::v1_3().with(EARLY_DATA, &[]).bytes();
    let data = record(DATA, &[7; 1000]);
    let end = record(ALERT, &alert(1, 0));
    let some = [
        [&hello[..], &data].concat(),
        end.clone(),
        [&Hello::v1_2().bytes()[..], &end].concat(),
        [&end[..], &Hello::v1_3().bytes()].concat(),
    ];
    for bytes in &some {
        let mut client = besieged.door.daemon.client();
        let port = client.local_port();
        client.send(bytes);
        client.half_close();
        assert_tls(&client.read_to_end_or_reset());
        let line = besieged.door.daemon.stderr_wait(&format!("refused 127.0.0.1:{port}: "));
        assert!(
            line.ends_with("it has closed the connection within the handshake"),
            "{line}"
        );
        besieged.serves();
    }
    besieged.refuses(&[hello, data.repeat(40)].concat(), "");
    besieged.stands(5, 0);
}

#[test]
fn every_alert_at_every_stage_of_the_handshake_ends_it() {
    let besieged = Besieged::pool(&[]);
    let mut count = 0;
    for before in [Vec::new(), Hello::v1_2().bytes(), Hello::v1_3().bytes()] {
        for description in (0..=255).step_by(5) {
            let mut client = besieged.door.daemon.client();
            let alert = record(ALERT, &alert(2, description));
            client.send([&before[..], &alert].concat());
            assert_tls(&client.read_to_end_or_reset());
            count += 1;
        }
    }
    besieged.stands(count, 0);
}

#[test]
fn a_first_message_in_the_smallest_pieces_is_understood() {
    let door = Door::pool(1, &[]);
    for version in [&TLS12, &TLS13] {
        let mut stream = door.certificate.client_of(version, door.socket());
        stream.sock.set_nodelay(true).unwrap();
        let mut hello = Vec::new();
        stream.conn.write_tls(&mut hello).unwrap();
        let in_pieces = in_records(&payload(&hello), 1);
        assert!(in_pieces.len() > hello.len() * 5);
        for byte in in_pieces {
            stream.sock.write_all(&[byte]).unwrap();
        }
        stream.write_all(b"echo in pieces\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "in pieces\n");
    }
}

// ---- behind the handshake --------------------------------------------------------------------------------------

/// A way to break the rules of TLS: the records, each with its type.
type Breach = (&'static str, Vec<(u8, Vec<u8>)>);

fn breaches(version: &'static SupportedProtocolVersion) -> Vec<Breach> {
    let hello = if version == &TLS13 {
        Hello::v1_3()
    } else {
        Hello::v1_2()
    };
    vec![
        ("empty records", vec![(DATA, Vec::new()); 40]),
        ("a heartbeat", vec![(HEARTBEAT, vec![1, 0x40, 0])]),
        ("an unknown type", vec![(99, vec![1])]),
        (
            "a new handshake, again and again",
            vec![(HANDSHAKE, hello.message()); 10],
        ),
        ("the end of a handshake", vec![(HANDSHAKE, message(20, &[7; 12]))]),
        ("an unknown message", vec![(HANDSHAKE, message(99, &[7; 12]))]),
        (
            "half a message, and data",
            vec![(HANDSHAKE, vec![24, 0]), (DATA, b"echo\n".to_vec())],
        ),
        (
            "a long message",
            vec![(HANDSHAKE, [&[24, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat()); 5],
        ),
        ("a change of cipher", vec![(CHANGE_CIPHER, vec![1]); 9]),
        ("an alert", vec![(ALERT, alert(2, 80).to_vec())]),
        ("a long alert", vec![(ALERT, vec![2; 9])]),
        ("warnings", vec![(ALERT, alert(1, 90).to_vec()); 20]),
        ("a malformed change of keys", vec![(HANDSHAKE, message(24, &[9]))]),
        ("a record that is too long", vec![(DATA, vec![b'a'; 16 * 1024 + 300])]),
    ]
}

#[test]
fn rules_that_are_broken_behind_the_handshake_end_the_connection() {
    for version in [&TLS12, &TLS13] {
        for some in breaches(version).chunks(5) {
            let mut besieged = Besieged::pool(&[]);
            for (name, records) in some {
                let mut forger = besieged.forger(version);
                let port = forger.socket.local_addr().unwrap().port();
                for (kind, payload) in records {
                    // The daemon may have closed by now.
                    let _ = forger.send(*kind, payload);
                }
                let mut rest = Vec::new();
                let _ = forger.socket.read_to_end(&mut rest);
                assert_tls(&rest);
                let line = besieged.door.daemon.stderr_wait(&format!("127.0.0.1:{port} ("));
                assert!(line.contains("its TLS connection fails: "), "{name}: {line}");
                besieged.serves();
            }
            besieged.stands(0, some.len() as u64);
        }
    }
}

#[test]
fn requests_behind_the_word_of_the_end_are_dropped() {
    for version in [&TLS12, &TLS13] {
        let mut besieged = Besieged::pool(&[]);
        let mut forger = besieged.forger(version);
        let records = [
            forger.record(DATA, b"echo first\n"),
            forger.record(ALERT, &alert(1, 0)),
            forger.record(DATA, b"echo second\n"),
            b"echo in the clear\n".to_vec(),
        ];
        forger.socket.write_all(&records.concat()).unwrap();
        let mut rest = Vec::new();
        forger.socket.read_to_end(&mut rest).unwrap_or_default();
        assert_tls(&rest);
        drop(forger);
        besieged.others += 1;
        besieged.stands(0, 0);
    }
}

/// Each change of keys costs some work and carries nothing.
#[test]
fn a_storm_of_new_keys_without_data_ends_and_one_with_data_keeps_no_other_client_waiting() {
    let mut besieged = Besieged::pool(&[]);
    let mut alone = besieged.door.certificate.client_of(&TLS13, besieged.door.socket());
    // Served, so that its handshake is over for the daemon as well, and what follows is not refused with it.
    alone.write_all(b"echo true\n").unwrap();
    alone.read_exact(&mut [0; 5]).unwrap();
    besieged.others += 1;
    let outcome = (0..10_000).try_for_each(|_| {
        alone.conn.refresh_traffic_keys().unwrap();
        alone.conn.write_tls(&mut alone.sock).map(drop)
    });
    // It may have gone into the buffers of the kernel.
    drop((outcome, alone));
    besieged.door.daemon.stderr_wait("(TooManyKeyUpdateRequests)");
    let mut with_data = besieged.door.certificate.client_of(&TLS13, besieged.door.socket());
    with_data.conn.complete_io(&mut with_data.sock).unwrap();
    for number in 0..200 {
        for _ in 0..30 {
            with_data.conn.refresh_traffic_keys().unwrap();
        }
        with_data.write_all(b"x").unwrap();
        if number % 20 == 0 {
            besieged.serves();
        }
    }
    with_data.write_all(b"\n").unwrap();
    let mut answer = [0; 8];
    with_data.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"unknown ");
    drop(with_data);
    besieged.others += 1;
    besieged.stands(0, 1);
}

#[test]
fn openssl_gets_no_renegotiation() {
    let mut besieged = Besieged::pool(&[]);
    let Address::Tcp(address) = besieged.door.daemon.addr() else {
        panic!("TLS goes over TCP")
    };
    let mut openssl = Command::new("openssl")
        .args(["s_client", "-tls1_2", "-connect", &address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("openssl is installed");
    let mut stdin = openssl.stdin.take().unwrap();
    stdin.write_all(b"R\n").unwrap();
    let output = openssl.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(
        said.contains("RENEGOTIATING") && said.contains("no renegotiation"),
        "{said}"
    );
    drop(stdin);
    besieged.serves();
    let quiet = |stats: &StatsBlock| stats.count("connections") == 1;
    assert_eq!(besieged.door.daemon.usr1_until(quiet).count("refused tls"), 0);
}

// ---- clients that go, and clients that stay ----------------------------------------------------------------------

#[test]
fn a_reset_anywhere_in_the_handshake_leaves_nothing() {
    let mut besieged = Besieged::pool(&[]);
    let hello = besieged.door.certificate.hello();
    let mut count = 0;
    for length in (1..hello.len()).step_by(17).chain([hello.len()]) {
        let mut client = besieged.door.daemon.client();
        client.send(&hello[..length]);
        besieged.door.daemon.usr1_until(|stats| stats.count("tls waiting") == 1);
        client.reset();
        count += 1;
        besieged
            .door
            .daemon
            .usr1_until(|stats| stats.count("refused tls") == count);
    }
    // Behind the answer of the daemon.
    let mut client = besieged.door.daemon.client();
    client.send(Hello::v1_3().bytes());
    client.read_text("\u{16}\u{3}\u{3}");
    client.reset();
    besieged.serves();
    besieged.stands(count + 1, 0);
}

/// While the daemon drains, a handshake has half a second, and each byte would have its own if the deadline were put off.
#[test]
fn bytes_that_drop_in_do_not_put_off_the_deadline_of_a_handshake() {
    let door = Door::pool(1, &[]);
    let mut hello = in_records(&message(1, &[0; 16_000]), 16_000).into_iter();
    let mut client = door.daemon.client();
    client.send([hello.next().unwrap()]);
    door.daemon.usr1_until(|stats| stats.count("tls waiting") == 1);
    door.daemon.signal(Signal::SIGTERM);
    door.daemon.stderr_wait("draining");
    // A byte each 5 ms, or the end.
    while !client.has_bytes_within(5) {
        client.send([hello.next().expect("the deadline comes before 16,000 bytes")]);
    }
    assert_tls(&client.read_to_end_or_reset());
    door.daemon.stderr_wait("its TLS handshake was not complete in time");
    assert!(door.daemon.finish().0.success());
}

#[test]
fn a_client_that_never_reads_is_closed_and_one_that_reads_slowly_is_served() {
    let flags = ["--write-timeout", "1s", "--max-reply", "9000000"];
    let mut besieged = Besieged::pool(&flags);
    let mut deaf = besieged.door.client();
    deaf.send("big 8000000\n");
    let mut slow = besieged.door.client();
    slow.send("big 300000\n");
    for place in 0..300_000 {
        slow.read_text(&(place % 10).to_string());
        if place % 50_000 == 0 {
            besieged.serves();
        }
    }
    slow.read_text("\n");
    drop(slow);
    besieged
        .door
        .daemon
        .usr1_until(|stats| stats.count("refused slow-write") == 1);
    drop(deaf);
    besieged.others += 2;
    besieged.stands(0, 0);
}

/// The certificates are more than the buffers of both sockets may hold.
#[test]
fn a_client_that_does_not_read_the_handshake_waits_for_its_own_end_alone() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let own = fs::read_to_string(&cert).unwrap();
    fs::write(&cert, own.repeat(120)).unwrap();
    let command = worker_command(&[]);
    let arguments = [
        "-n",
        "1",
        "-d",
        &command,
        "--listen",
        "tls:127.0.0.1:0",
        "--cert",
        &cert,
        "--key",
        &key,
    ];
    let daemon = Daemon::with(arguments).start();
    let door = Door { daemon, certificate };
    let narrow = || {
        let Address::Tcp(SocketAddr::V4(address)) = door.daemon.addr() else {
            panic!("an address of IPv4")
        };
        let narrow = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        setsockopt(&narrow, sockopt::RcvBuf, &2048).unwrap();
        connect(narrow.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
        let narrow = TcpStream::from(narrow);
        narrow.set_read_timeout(Some(WATCHDOG)).unwrap();
        narrow
    };
    let mut deaf = narrow();
    deaf.write_all(&Hello::v1_3().bytes()).unwrap();
    let mut client = door.certificate.client(narrow());
    client.write_all(b"echo served\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "served\n");
    door.daemon.usr1_until(|stats| stats.count("tls waiting") == 1);
    drop(deaf);
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
}

#[test]
fn ten_thousand_half_handshakes_take_a_bounded_memory_and_keep_no_client_waiting() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut besieged = Besieged::pool(&[]);
    let before = besieged.door.daemon.resident();
    // All but the last byte of 16 KiB.
    let long = in_records(&message(1, &[0; 16_300]), 16_384);
    let half = &long[..16_200];
    let mut halves = VecDeque::new();
    for number in 0..10_000 {
        let mut socket = besieged.door.socket();
        socket.write_all(half).unwrap();
        halves.push_back(socket);
        // The oldest were refused to make room.
        if halves.len() > 3000 {
            halves.pop_front();
        }
        if number % 1000 == 0 {
            besieged.serves();
        }
    }
    besieged
        .door
        .daemon
        .usr1_until(|stats| stats.count("refused tls") >= 10_000 - 2048);
    let stats = besieged.door.daemon.usr1();
    assert!(stats.count("connections") <= 2049, "{stats:#?}");
    let each = (besieged.door.daemon.resident() - before) / 2048;
    assert!(each < 40 * 1024, "{each} bytes each");

    let mut new = besieged.door.client();
    new.send("echo new\n");
    assert_eq!(new.read_line(), "new");
    besieged.others += 1;
    drop((new, halves));
    besieged.stands(10_000, 0);
}

/// Every event of a flood calls for a step of a handshake, and a turn makes only some.
#[test]
fn a_flood_of_events_in_other_handshakes_keeps_no_client_waiting() {
    let door = Door::pool(1, &[]);
    let is_over = AtomicBool::new(false);
    let long = in_records(&message(1, &[0; 16_000]), 16_000);
    let flood = || {
        let connect = || (door.socket(), 0);
        let mut attackers: Vec<_> = (0..200).map(|_| connect()).collect();
        while !is_over.load(Ordering::Relaxed) {
            for attacker in &mut attackers {
                let (socket, sent) = attacker;
                let is_sent = long.get(*sent).is_some_and(|byte| socket.write_all(&[*byte]).is_ok());
                *sent += 1;
                if !is_sent {
                    *attacker = connect();
                }
            }
        }
    };
    thread::scope(|scope| {
        let flooding = scope.spawn(flood);
        door.daemon.usr1_until(|stats| stats.count("tls waiting") == 200);
        for number in 0..20 {
            assert_eq!(door.ask(&format!("echo {number}")), format!("{number}\n"));
        }
        is_over.store(true, Ordering::Relaxed);
        flooding.join().unwrap();
    });
    door.daemon.usr1_until(|stats| stats.count("connections") == 0);
}

/// A client that has said its end waits for the daemon's, and takes anything else for a cut.
#[test]
fn a_client_that_ends_and_is_owed_nothing_finds_a_clean_end_at_every_door() {
    let pool = Door::pool(1, &["--persistent"]);
    let mut asked = pool.client();
    asked.send("echo up\n");
    assert_eq!(asked.read_line(), "up");
    let mut many = pool.client();
    many.send("iotcpd-multiplex 1\n");
    assert!(many.read_line().starts_with("iotcpd-multiplex 1 "));
    let exec = Door::exec("/bin/echo");
    let certificate = Certificate::new();
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let command = torc(&[CAT]).serve(&flags);
    let at_command = Client::connect(&command.nth_addr(2)).secure(&certificate);
    for mut client in [asked, many, pool.client(), exec.client(), at_command] {
        client.half_close();
        assert_eq!(client.read_to_end(), b"");
    }
}

// ---- the wrong door --------------------------------------------------------------------------------------------

#[test]
fn tls_on_a_door_without_it_harms_nothing() {
    let daemon = Daemon::pool(1, &worker_command(&[]), &["--persistent"]);
    let certificate = Certificate::new();
    let mut client = daemon.client();
    client.send(certificate.hello());
    client.half_close();
    client.read_to_end_or_reset();
    let mut other = daemon.client();
    other.send("echo up\n");
    assert_eq!(other.read_line(), "up");
    drop(client);
    daemon.usr1_until(|stats| stats.count("connections") == 1);
}

#[test]
fn a_proxy_header_within_tls_is_data() {
    let header = "PROXY TCP4 192.0.2.7 203.0.113.1 5 443\r\n";
    let door = Door::pool(1, &["--persistent", "--accept-proxy", "127.0.0.1", "--allow-lone-cr"]);
    let mut client = door.daemon.client();
    client.send("PROXY TCP4 192.0.2.9 203.0.113.1 5 443\r\n");
    let mut client = client.secure(&door.certificate);
    client.send(header);
    client.send("echo up\n");
    assert!(client.read_line().starts_with("unknown PROXY TCP4 192.0.2.7"));
    assert_eq!(client.read_line(), "up");
    let dump = door.daemon.usr2();
    assert!(
        dump.iter()
            .any(|line| line.contains("client = 192.0.2.9:5 (by way of ")),
        "{dump:#?}"
    );
    assert!(
        !dump.iter().any(|line| line.contains("client = 192.0.2.7")),
        "{dump:#?}"
    );
}
