//! Every framing, towards clients and towards workers: real programs behind each, what happens to messages that one
//! side cannot carry, and workers that serve once.

use crate::harness::{Daemon, Gate, temp_dir, worker_command};

const PATIENT: [&str; 2] = ["--queue-timeout", "60s"];

/// A program that speaks as language servers do, and tells how often it was asked.
const LANGUAGE_SERVER: &str = r#"
import json, sys
stdin, stdout = sys.stdin.buffer, sys.stdout.buffer
asked = 0
while True:
    length = None
    while (line := stdin.readline().strip()):
        name, value = line.split(b": ")
        if name == b"Content-Length":
            length = int(value)
    if length is None:
        break
    asked += 1
    request = json.loads(stdin.read(length))
    answer = {"jsonrpc": "2.0", "id": request["id"], "result": [request["method"], asked]}
    text = json.dumps(answer, indent=1).encode()
    stdout.write(b"Content-Type: application/vscode-jsonrpc\r\nContent-Length: %d\r\n\r\n" % len(text))
    stdout.flush()
    stdout.write(text)
    stdout.flush()
"#;

/// The same message in every framing that tells where one ends.
const HELLO: [(&str, &[u8]); 6] = [
    ("line", b"hello\n"),
    ("netstring", b"5:hello,"),
    ("nul", b"hello\0"),
    ("u32be", b"\0\0\0\x05hello"),
    ("content-length", b"Content-Length: 5\r\n\r\nhello"),
    ("until-empty-line", b"hello\n\n"),
];

#[track_caller]
fn pool(command: &str, flags: &[&str]) -> Daemon {
    Daemon::pool(1, command, &[&PATIENT[..], flags].concat())
}

/// A shell's command line for `--daemon`.
fn shell(script: &str) -> String {
    shell_words::join(["sh", "-c", script])
}

/// Sends these bytes over a connection of its own; everything until the daemon closes.
#[track_caller]
fn ask(daemon: &Daemon, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut client = daemon.client();
    client.send(request);
    client.read_to_end()
}

/// The same for a client that says where its request ends by ending its input.
#[track_caller]
fn ask_and_end(daemon: &Daemon, request: impl AsRef<[u8]>) -> Vec<u8> {
    let mut client = daemon.client();
    client.send(request);
    client.half_close();
    client.read_to_end()
}

/// `cat` speaks every framing: what it is given comes back, byte for byte, if it is given and taken as it is.
#[test]
fn between_equal_framings_every_byte_passes_as_it_came() {
    let odd = b"X-Odd:  yes\r\nContent-Length: 5\r\n\r\nhello".as_slice();
    let requests = HELLO.into_iter().chain([
        ("content-length", odd),
        ("line", b"a\r\n"),
        ("until-empty-line", b"a\r\n\r\n"),
    ]);
    for (framing, hello) in requests {
        let daemon = pool("cat", &["--request-framing", framing, "--reply-framing", framing]);
        assert_eq!(ask(&daemon, hello), hello, "{framing}");
        let mut slow = daemon.client();
        hello.iter().for_each(|byte| slow.send([*byte]));
        assert_eq!(slow.read_to_end(), hello, "{framing}, byte by byte");
        assert_eq!(daemon.usr1().count("daemon spawns"), 1, "{framing}");
    }
}

#[test]
fn each_framing_is_translated_into_each() {
    for (number, (client, hello)) in HELLO.into_iter().enumerate() {
        let (worker, _) = HELLO[(number + 1) % HELLO.len()];
        let (reply, answer) = HELLO[(number + 2) % HELLO.len()];
        let flags = [
            ["--request-framing", client],
            ["--worker-request-framing", worker],
            ["--worker-reply-framing", worker],
            ["--reply-framing", reply],
        ];
        let daemon = pool("cat", &flags.concat());
        for _ in 0..3 {
            assert_eq!(ask(&daemon, hello), answer, "{client} to {worker} to {reply}");
        }
        assert_eq!(daemon.usr1().count("daemon spawns"), 1);
    }
}

#[test]
fn kept_connections_speak_every_framing() {
    for (framing, hello) in HELLO {
        let flags = [
            "--persistent",
            "--pipeline",
            "4",
            "--request-framing",
            framing,
            "--reply-framing",
            framing,
        ];
        let daemon = pool("cat", &flags);
        let mut client = daemon.client();
        client.send(hello.repeat(50));
        client.half_close();
        assert_eq!(client.read_to_end(), hello.repeat(50), "{framing}");
    }
}

#[test]
fn a_language_server_is_shared_by_clients_that_speak_as_it_does() {
    let directory = temp_dir();
    let script = directory.path().join("server.py");
    std::fs::write(&script, LANGUAGE_SERVER).unwrap();
    let command = shell_words::join(["python3", script.to_str().unwrap()]);
    let flags = [
        "--request-framing",
        "content-length",
        "--reply-framing",
        "content-length",
    ];
    let daemon = pool(&command, &flags);
    for asked in 1..=3 {
        let request = format!("{{\"jsonrpc\": \"2.0\",\n\"id\": {asked}, \"method\": \"initialize\"}}");
        let reply = ask(&daemon, format!("Content-Length: {}\r\n\r\n{request}", request.len()));
        let (head, body) = std::str::from_utf8(&reply).unwrap().split_once("\r\n\r\n").unwrap();
        assert!(
            head.starts_with("Content-Type: application/vscode-jsonrpc\r\n"),
            "{head}"
        );
        assert!(
            body.contains(&format!("\"id\": {asked}")) && body.ends_with(&format!("  {asked}\n ]\n}}")),
            "{body}"
        );
    }
    // The same with workers that do not.
    drop(daemon);
    let daemon = pool(
        &command,
        &[
            "--worker-request-framing",
            "content-length",
            "--worker-reply-framing",
            "content-length",
            "--reply-framing",
            "nul",
        ],
    );
    let answer = ask(&daemon, b"{\"id\": 7, \"method\": \"shutdown\"}\n");
    assert!(answer.starts_with(b"{\n \"jsonrpc\": \"2.0\",\n \"id\": 7,") && answer.ends_with(b"}\0"));
}

// ---- workers that serve once ---------------------------------------------------------------------------------------

/// A filter reads to the end of its input, answers, and exits: a process for each request, started beforehand.
#[test]
fn a_filter_answers_once_and_is_replaced_at_once() {
    let daemon = pool(
        "sha256sum",
        &["--worker-request-framing", "eof", "--worker-reply-framing", "eof"],
    );
    let digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824  -\n";
    for _ in 0..10 {
        assert_eq!(daemon.ask("hello"), digest);
    }
    let stats = daemon.usr1_until(|stats| stats.count("daemon S_AVAILABLE") == 1);
    assert_eq!((stats.count("restarts spent"), stats.count("restarts died")), (10, 0));
    assert_eq!((stats.count("daemon spawns"), stats.count("queries replied")), (11, 10));
    assert!(
        !daemon.stderr.text().contains("exited with"),
        "an end that was expected is no death"
    );
}

#[test]
fn a_client_may_end_its_request_by_the_end_of_its_input() {
    let daemon = pool("sort", &["--request-framing", "eof", "--reply-framing", "eof"]);
    assert_eq!(ask_and_end(&daemon, "b\nc\na\n"), b"a\nb\nc\n");
    // More than a pipe holds, each way.
    let numbers: String = (0..100_000).rev().map(|number| format!("{number:06}\n")).collect();
    let sorted: String = (0..100_000).map(|number| format!("{number:06}\n")).collect();
    let daemon = pool(
        "sort",
        &[
            "--request-framing",
            "eof",
            "--reply-framing",
            "eof",
            "--max-request",
            "1MiB",
        ],
    );
    assert!(ask_and_end(&daemon, numbers) == sorted.into_bytes());
    // It only knocked.
    assert_eq!(ask_and_end(&daemon, ""), b"");
    assert_eq!(daemon.usr1().count("queries total"), 1);
}

/// Its exit status is part of the answer: a reply cut off by a crash is none.
#[test]
fn a_reply_that_ends_in_a_failure_is_none() {
    let flags = [
        "--worker-reply-framing",
        "eof",
        "--worker-request-framing",
        "eof",
        "--reply-framing",
        "nul",
    ];
    for script in ["cat; exit 1", "cat; kill -KILL $$", "cat >&2; exit 3"] {
        let daemon = pool(&shell(script), &flags);
        assert_eq!(ask(&daemon, "half\n"), b"ERR\0", "{script}");
        let stats = daemon.usr1();
        assert_eq!(
            (stats.count("refused died"), stats.count("queries failed")),
            (1, 1),
            "{script}"
        );
        assert_eq!(stats.count("restarts spent"), 0, "{script}");
        // Not a byte of a reply was written, so another worker was asked, once.
        let retried = u64::from(script.starts_with("cat >&2"));
        assert_eq!(stats.count("queries retried"), retried, "{script}");
    }
    // Nothing at all, and no failure, is an answer.
    let daemon = pool(&shell("cat >/dev/null"), &flags);
    assert_eq!(ask(&daemon, "hello\n"), b"\0");
}

/// A program that cannot work is not started as fast as it dies.
#[test]
fn a_filter_that_dies_before_it_is_asked_is_started_more_slowly_each_time() {
    let daemon = pool("true", &["--worker-reply-framing", "eof", "--alarm-interval", "1h"]);
    daemon.stderr_wait("started again in 1 h");
    let stats = daemon.usr1();
    assert_eq!((stats.count("daemon spawns"), stats.count("restarts spent")), (2, 0));
}

/// The one request a worker takes may end with its input while its reply is framed: it goes when it has answered.
#[test]
fn a_worker_with_one_request_may_frame_its_reply() {
    let script = "text=$(cat); printf '%s:%s,' ${#text} \"$text\"; exec cat /dev/null";
    let daemon = pool(
        &shell(script),
        &["--worker-request-framing", "eof", "--worker-reply-framing", "netstring"],
    );
    for _ in 0..3 {
        assert_eq!(daemon.ask("hello"), "hello\n");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts spent"), stats.count("restarts died")), (3, 0));
}

/// One that reads a line and answers with all that follows.
#[test]
fn a_worker_with_one_reply_may_be_given_a_line() {
    let script = "read number; seq $number";
    let daemon = pool(
        &shell(script),
        &["--worker-reply-framing", "eof", "--reply-framing", "netstring"],
    );
    assert_eq!(ask(&daemon, "3\n"), b"6:1\n2\n3\n,");
    let gate = temp_dir();
    let fifo = gate.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // The reply is whole only with the end, however long it pauses.
    let script = format!("read x; echo begun; read y <'{}'; echo done", fifo.display());
    let daemon = pool(
        &shell(&script),
        &["--worker-reply-framing", "eof", "--reply-framing", "eof"],
    );
    let mut client = daemon.client();
    client.send("go\n");
    std::fs::write(&fifo, "now\n").unwrap();
    assert_eq!(client.read_to_end(), b"begun\ndone\n");
}

// ---- programs without any framing ----------------------------------------------------------------------------------

#[test]
fn a_calculator_has_answered_when_it_says_nothing_more() {
    let daemon = pool(
        "bc -q",
        &["--worker-reply-framing", "quiet=300ms", "--reply-framing", "eof"],
    );
    assert_eq!(daemon.ask("6 * 7"), "42\n");
    // More than fits its lines.
    let power = daemon.ask("2 ^ 300").replace("\\\n", "");
    assert_eq!(power.len(), 92);
    assert!(
        power.starts_with("20370359763344860862684456884093781610514683936659"),
        "{power}"
    );
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}

#[test]
fn a_reply_ends_after_the_quiet_time() {
    let daemon = pool("sh", &["--reply-framing", "quiet=300ms"]);
    assert_eq!(daemon.ask("echo one; echo two"), "one\ntwo\n");
    assert_eq!(daemon.ask("x=7; printf %s $x"), "7");
    assert_eq!(daemon.ask("seq 30000 | tail -n 2"), "29999\n30000\n");
    let daemon = pool(
        "sh",
        &["--worker-reply-framing", "quiet=300ms", "--reply-framing", "netstring"],
    );
    assert_eq!(ask(&daemon, "echo one; echo two\n"), b"8:one\ntwo\n,");
    let stats = daemon.usr1();
    assert_eq!((stats.count("daemon spawns"), stats.count("queries replied")), (1, 1));
}

#[test]
fn a_program_without_framing_that_writes_later_is_not_believed_again() {
    let gate = Gate::new();
    let daemon = pool(&worker_command(&[]), &["--reply-framing", "quiet=20ms"]);
    assert_eq!(daemon.ask(&format!("unasked {} surprise", gate.path())), "ok\n");
    gate.arrival().open();
    daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
    assert_eq!(daemon.ask("served"), "1\n");
}

/// The busy time-out is for a reply that never comes, and for one that never ends.
#[test]
fn a_program_without_framing_is_timed_out_as_any() {
    let flags = [
        "--reply-framing",
        "quiet=400ms",
        "--busy-timeout",
        "500ms",
        "--max-reply",
        "1GiB",
    ];
    let daemon = Daemon::pool(1, "sh", &flags);
    for script in ["true", "while :; do echo on and on; done"] {
        assert_eq!(daemon.ask(script), "ERR\n", "{script}");
    }
    assert_eq!(daemon.usr1().count("refused busy-time"), 2);
}

// ---- what cannot be ------------------------------------------------------------------------------------------------

#[test]
fn a_request_that_no_worker_can_be_given_is_refused_and_harms_no_other() {
    let flags = [
        "--request-framing",
        "netstring",
        "--worker-request-framing",
        "line",
        "--persistent",
    ];
    let daemon = pool("cat", &flags);
    let mut client = daemon.client();
    client.send(b"1:a,3:b\nc,3:d\0e,1:f,");
    client.half_close();
    assert_eq!(client.read_to_end(), b"a\nERR\nERR\nf\n");
    daemon.stderr_wait("its request is more than one line, which workers are not given");
    daemon.stderr_wait("its request holds a NUL byte, which workers are not given");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused bad-line"), stats.count("queries replied")),
        (2, 2)
    );
    assert_eq!(stats.count("daemon spawns"), 1);
}

#[test]
fn a_request_that_is_malformed_is_refused() {
    let framed = |framing: &'static str| {
        pool(
            "cat",
            &[
                "--request-framing",
                framing,
                "--reply-framing",
                framing,
                "--max-request",
                "9",
            ],
        )
    };
    let daemon = framed("netstring");
    for wrong in ["x", "05:hello,", "5:hello;", "10:0123456789,"] {
        assert_eq!(ask(&daemon, wrong), b"3:ERR,", "{wrong}");
    }
    daemon.stderr_wait("its request is malformed: the length of a netstring has no leading zeros");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused bad-line"), stats.count("refused long-line")),
        (3, 1)
    );
    assert_eq!(ask_and_end(&daemon, "5:hel"), b"3:ERR,");
    let refused = b"Content-Length: 3\r\n\r\nERR";
    assert_eq!(ask(&framed("content-length"), b"GET / HTTP/1.1\r\n\r\n"), refused);
    assert_eq!(ask(&framed("u32be"), b"GET / HTTP/1.1\r\n\r\n"), b"\0\0\0\x03ERR");
}

#[test]
fn a_reply_that_its_client_cannot_be_given_costs_that_client_alone() {
    let flags = [
        "--worker-request-framing",
        "netstring",
        "--worker-reply-framing",
        "netstring",
        "--request-framing",
        "nul",
    ];
    let daemon = pool("cat", &flags);
    assert_eq!(ask(&daemon, b"a\nb\0"), b"ERR\n");
    daemon.stderr_wait("is more than one line, which --reply-framing line cannot carry");
    assert_eq!(ask(&daemon, b"fine\0"), b"fine\n");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused bad-reply"), stats.count("queries failed")),
        (1, 1)
    );
    assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (1, 1));
    assert_eq!(stats.measured(), 1);
}

#[test]
fn a_worker_that_does_not_keep_to_its_framing_is_replaced() {
    let daemon = pool("cat", &["--worker-reply-framing", "netstring"]);
    assert_eq!(daemon.ask("garbage"), "ERR\n");
    daemon.stderr_wait("wrote what is no reply: a netstring begins with its length in digits and a colon");
    daemon.stderr_wait("its worker wrote no reply in --worker-reply-framing netstring");
    assert_eq!(daemon.ask("2:ok,"), "ok\n");
    // The line end behind it is too much of an answer.
    daemon.usr1_until(|stats| stats.count("restarts desync") == 1);
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("restarts malformed"), stats.count("refused bad-reply")),
        (1, 1)
    );
    assert_eq!(daemon.ask("10000000:"), "ERR\n");
    assert_eq!(daemon.usr1().count("restarts oversize"), 1);
}

/// A long line may be taken for two by its worker, so it is never written ahead; a message whose length is sent ahead
/// is not.
#[test]
fn a_long_request_with_its_length_is_written_ahead_like_any_other() {
    for (framing, ahead) in [("netstring", 1), ("line", 0)] {
        let directory = temp_dir();
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let script = format!("cat '{}'; exec cat", fifo.display());
        let flags = [
            ["--worker-request-framing", framing],
            ["--worker-reply-framing", framing],
            ["--pipeline", "2"],
        ];
        let daemon = pool(&shell(&script), &flags.concat());
        let long = "x".repeat(6000) + "\n";
        let mut clients = [daemon.client(), daemon.client()];
        clients.iter_mut().for_each(|client| client.send(&long));
        let stats = daemon.usr1_until(|stats| stats.count("queries ahead") + stats.count("queue length") == 1);
        assert_eq!(stats.count("queries ahead"), ahead, "{framing}");
        std::fs::write(&fifo, "").unwrap();
        for client in &mut clients {
            assert_eq!(client.read_to_end(), long.as_bytes(), "{framing}");
        }
    }
}

#[test]
fn limits_count_what_is_said() {
    let flags = [
        "--worker-request-framing",
        "content-length",
        "--worker-reply-framing",
        "content-length",
        "--max-request",
        "5",
        "--max-reply",
        "5",
    ];
    let daemon = pool("cat", &flags);
    assert_eq!(daemon.ask("hello"), "hello\n");
    assert_eq!(daemon.ask("hello!"), "ERR\n");
}

/// Otherwise a few requests that a program does not like would leave all other clients without workers.
#[test]
fn a_worker_that_dies_over_its_only_request_has_not_died_at_its_start() {
    let framings = ["--worker-request-framing", "eof", "--worker-reply-framing", "eof"];
    let command = shell("read -r line; [ \"$line\" = good ] && echo fine");
    let flags = [&framings[..], &["--alarm-interval", "1h", "--retries", "0"]].concat();
    let daemon = pool(&command, &flags);
    for _ in 0..5 {
        assert_eq!(ask(&daemon, "bad\n"), b"ERR\n");
    }
    assert_eq!(ask(&daemon, "good\n"), b"fine\n");
    assert_eq!(daemon.usr1().count("refused died"), 5);
}

/// Writing the rest of the request fails; that is no death, for the worker says by its exit status whether it has
/// answered.
#[test]
fn a_worker_that_serves_once_need_not_read_all_of_its_request() {
    let framings = ["--worker-request-framing", "eof", "--reply-framing", "eof"];
    let daemon = pool("head -c 10", &[&framings[..], &["--max-request", "8MiB"]].concat());
    let request = ["0123456789", &"x".repeat(4_000_000), "\n"].concat();
    for _ in 0..10 {
        assert_eq!(ask(&daemon, &request), b"0123456789");
    }
    let stats = daemon.usr1();
    assert_eq!((stats.count("restarts died"), stats.count("queries retried")), (0, 0));
}

crate::harness::over_tls! {
    between_equal_framings_every_byte_passes_as_it_came,
    each_framing_is_translated_into_each,
    kept_connections_speak_every_framing,
    a_client_may_end_its_request_by_the_end_of_its_input,
    a_reply_ends_after_the_quiet_time,
    a_request_that_is_malformed_is_refused,
    a_reply_that_its_client_cannot_be_given_costs_that_client_alone,
}
