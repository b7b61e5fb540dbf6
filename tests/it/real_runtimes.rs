//! The line readers of real runtimes, and that a client cannot pass two requests to one of them in one.
//!
//! A sentence of SECURITY.md about a runtime is tested here first. The programs are installed by scripts/install-peers;
//! where one is missing these tests fail.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Once;
use std::thread;

use crate::harness::{Client, Daemon};

/// A runtime takes a while to start, and works on its first request meanwhile.
const PATIENT: [&str; 4] = ["--queue-timeout", "60s", "--busy-timeout", "60s"];

const PEERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers");
/// Compiled programs are kept where cargo keeps its own.
const CLASSES: &str = env!("CARGO_TARGET_TMPDIR");

/// A program of `tests/it/peers`, ready to be started.
#[track_caller]
fn peer(words: &[&str]) -> String {
    static COMPILED: Once = Once::new();
    if words.first() == Some(&"java") {
        COMPILED.call_once(|| {
            let source = format!("{PEERS}/Lines.java");
            let compiled = Command::new("javac").args(["-d", CLASSES, &source]).status();
            let compiled = compiled.unwrap_or_else(|error| panic!("cannot run javac: {error} ({INSTALLED_BY})"));
            assert!(compiled.success(), "javac: {compiled}");
        });
    }
    let words = words.iter().map(|word| match *word {
        script if script.ends_with(".js") || script.ends_with(".py") => format!("{PEERS}/{script}"),
        word => word.to_owned(),
    });
    shell_words::join(words)
}

const INSTALLED_BY: &str = "scripts/install-peers installs it";

const JAVA_READER: &[&str] = &["java", "-XX:TieredStopAtLevel=1", "-cp", CLASSES, "Lines", "reader"];
const JAVA_SCANNER: &[&str] = &["java", "-XX:TieredStopAtLevel=1", "-cp", CLASSES, "Lines", "scanner"];
const NODE: &[&str] = &["node", "lines.js"];
const PYTHON: &[&str] = &["python3", "lines.py", "text"];
const PYTHON_STDIN: &[&str] = &["python3", "lines.py", "stdin"];
const PYTHON_CODECS: &[&str] = &["python3", "lines.py", "codecs"];

/// The lines that a runtime reads from these bytes and the end of its input.
#[track_caller]
fn lines_read(words: &[&str], input: &str) -> Vec<String> {
    let command = shell_words::split(&peer(words)).unwrap();
    let mut child = Command::new(&command[0])
        .args(&command[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {}: {error} ({INSTALLED_BY})", command[0]));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |(number, line): (usize, &str)| {
        let (count, hex) = line.split_once(':').unwrap();
        assert_eq!(count, (number + 1).to_string());
        let digits = hex.as_bytes().chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        let bytes = digits.map(|two| u8::from_str_radix(two, 16).unwrap()).collect();
        String::from_utf8(bytes).unwrap()
    };
    text.lines().enumerate().map(line).collect()
}

/// Characters that may be taken for the end of a line, beside LF.
const ENDS: [&str; 10] = [
    "\r", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\u{85}", "\u{2028}", "\u{2029}", "\0",
];

/// A runtime ends lines at exactly these of [`ENDS`]; of `either` that depends on its version.
#[track_caller]
fn ends_lines_at(words: &[&str], these: &[&str], either: &[&str]) {
    let input: String = ENDS.iter().map(|end| format!("a{end}b\n")).collect();
    let read = lines_read(words, &(input + "a\r\nb\r\n"));
    let mut rest = read.iter().map(String::as_str);
    for end in ENDS {
        let line = rest.next().unwrap_or_default();
        let is_end = line == "a" && rest.next() == Some("b");
        assert!(is_end || line == format!("a{end}b"), "{words:?} reads {read:?}");
        assert!(
            is_end == these.contains(&end) || either.contains(&end),
            "{words:?} and {end:?}"
        );
    }
    let trimmed: Vec<_> = rest.map(|line| line.trim_end_matches('\r')).collect();
    assert_eq!(trimmed, ["a", "b"], "{words:?}: CR LF is one end");
}

#[test]
fn java_ends_lines_at_a_lone_cr_and_its_scanner_at_more() {
    ends_lines_at(JAVA_READER, &["\r"], &[]);
    ends_lines_at(JAVA_SCANNER, &["\r", "\u{85}", "\u{2028}", "\u{2029}"], &[]);
    for reader in [JAVA_READER, JAVA_SCANNER] {
        assert_eq!(lines_read(reader, "a\r\r\nb\n"), ["a", "", "b"], "two ends");
    }
}

#[test]
fn node_ends_lines_at_a_lone_cr() {
    ends_lines_at(NODE, &["\r"], &["\u{2028}", "\u{2029}"]);
    assert_eq!(lines_read(NODE, "a\r\r\nb\n"), ["a", "", "b"], "two ends");
}

#[test]
fn python_ends_lines_at_a_lone_cr_in_text_mode_and_at_more_in_its_codecs() {
    ends_lines_at(PYTHON_STDIN, &[], &[]);
    ends_lines_at(PYTHON, &["\r"], &[]);
    ends_lines_at(PYTHON_CODECS, &ENDS[..9], &[]);
    assert_eq!(lines_read(PYTHON, "a\r\r\nb\n"), ["a", "", "b"], "two ends");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// While one client sends two lines in one, again and again, all others get their own answers, and the worker stays.
#[track_caller]
fn no_other_client_is_answered_for(attack: &str, words: &[&str], flags: &[&str]) {
    for pipeline in ["1", "4"] {
        let flags = [&PATIENT[..], &["--pipeline", pipeline], flags].concat();
        let daemon = Daemon::pool(1, &peer(words), &flags);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..30 {
                    assert_eq!(daemon.ask(attack), "ERR\n", "{words:?}");
                }
            });
            for victim in 0..3 {
                let daemon = &daemon;
                scope.spawn(move || {
                    for number in 0..30 {
                        let line = format!("victim {victim} {number}");
                        let answer = daemon.ask(&line);
                        let (_, read) = answer.split_once(':').unwrap_or_default();
                        assert_eq!(read, format!("{}\n", hex(&line)), "{words:?}");
                    }
                });
            }
        });
        let stats = daemon.usr1();
        assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (90, 1));
    }
}

#[test]
fn two_lines_in_one_reach_no_java() {
    no_other_client_is_answered_for("attacker\rOWNED", JAVA_READER, &[]);
    no_other_client_is_answered_for("attacker\u{85}OWNED", JAVA_SCANNER, &["--refuse-unicode-line-ends"]);
    no_other_client_is_answered_for("attacker\u{2029}OWNED", JAVA_SCANNER, &["--refuse-unicode-line-ends"]);
}

#[test]
fn two_lines_in_one_reach_no_node_and_no_python() {
    for attack in ["attacker\rOWNED", "attacker\r\r", "\rattacker"] {
        no_other_client_is_answered_for(attack, NODE, &[]);
        no_other_client_is_answered_for(attack, PYTHON, &[]);
    }
}

/// An operator whose program reads otherwise says so with a flag.
#[test]
fn a_program_that_reads_lines_of_bytes_may_be_given_a_lone_cr() {
    let daemon = Daemon::pool(1, &peer(PYTHON_STDIN), &[&PATIENT[..], &["--allow-lone-cr"]].concat());
    assert_eq!(daemon.ask("a\rb"), format!("1:{}\n", hex("a\rb")));
    assert_eq!(
        daemon.ask("a\u{2028}\u{85}b\r"),
        format!("2:{}\n", hex("a\u{2028}\u{85}b\r"))
    );
    assert_eq!(daemon.ask("nul \0"), "ERR\n");
}

// ---- heads -----------------------------------------------------------------------------------------------------------

const JSON: [&str; 4] = [
    "--request-framing",
    "content-length",
    "--reply-framing",
    "content-length",
];

fn said(client: &mut Client) -> String {
    let reply = String::from_utf8(client.read_to_end()).unwrap();
    let (head, said) = reply
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no head: {reply:?}"));
    assert_eq!(head, format!("Content-Length: {}", said.len()));
    said.to_owned()
}

/// Its head ends at CR LF CR LF alone: given one with bare LFs it would read on, into the next client's request.
#[test]
fn a_head_is_one_to_the_most_exacting_reader_however_its_client_writes_it() {
    let heads = [
        "Content-Length: #\n\n",
        "content-length:#\r\n\n",
        "X: y\nCONTENT-LENGTH: \t# \n\r\n",
        "Content-Length: #\r\n\r\n",
    ];
    for worker in [&["node", "exacting.js"][..], &["python3", "careless.py"]] {
        let daemon = Daemon::pool(1, &peer(worker), &[&PATIENT[..], &JSON, &["--pipeline", "4"]].concat());
        thread::scope(|scope| {
            for (client, head) in heads.iter().enumerate() {
                let daemon = &daemon;
                scope.spawn(move || {
                    for number in 0..15 {
                        let body = format!("{client} says {number}\n\n");
                        let mut client = daemon.client();
                        client.send(head.replace('#', &body.len().to_string()) + &body);
                        assert_eq!(said(&mut client), body, "{worker:?} {head:?}");
                    }
                });
            }
        });
        let stats = daemon.usr1();
        assert_eq!((stats.count("queries replied"), stats.count("daemon spawns")), (60, 1));
    }
}

/// Heads that one program reads like this and another like that reach neither.
#[test]
fn a_head_with_two_readings_is_refused() {
    let daemon = Daemon::pool(
        1,
        &peer(&["python3", "careless.py"]),
        &[&PATIENT[..], &JSON, &["--pipeline", "4"]].concat(),
    );
    let doubtful = [
        "Content-Length: 5\r\nContent-Length: 0",
        "Content-Length: 5\r\nX: y\rContent-Length: 0",
        "Content-Length: 5\r\n\r",
        "X: y\r\n Content-Length: 0\r\nContent-Length: 5",
        "Content-Length : 5",
        "Content-Length: +5",
        "Content-Length: 05",
        "Content-Length: 5, 5",
        "Content-Length: 0x5",
        "Content-Length: 5\r\nContent_Length: 0",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\n: nameless",
        "Content-Length: 5\r\nX: \0",
        "Content-Length: 5\r\nX: \u{85}Content-Length: 0",
    ];
    for head in doubtful {
        let mut client = daemon.client();
        client.send(format!("{head}\r\n\r\nhello"));
        assert_eq!(client.read_to_end(), b"Content-Length: 3\r\n\r\nERR", "{head:?}");
    }
    let mut client = daemon.client();
    client.send("Content-Length: 5\r\n\r\nhello");
    assert_eq!(said(&mut client), "hello");
    let stats = daemon.usr1();
    assert_eq!(
        (stats.count("refused bad-line"), stats.count("daemon spawns")),
        (doubtful.len() as u64, 1)
    );
}

/// An answer that cannot be read for certain is dropped, and its worker is replaced.
#[test]
fn an_ambiguous_reply_goes_to_no_client() {
    for head in [
        "Content-Length: 5\\r\\nContent-Length: 5",
        "Content-Length: 5\\r\\nX: y\\rz",
        "Content-Length: 5\\r\\nX: y\\r\\n z",
        "Content-Length : 5",
        "Content-Length: +5",
    ] {
        let script = format!("read line; printf '{head}\\r\\n\\r\\nhello'; exec cat >/dev/null");
        let command = shell_words::join(["sh", "-c", &script]);
        let flags = ["--worker-reply-framing", "content-length", "--retries", "0"];
        let daemon = Daemon::pool(1, &command, &[&PATIENT[..], &flags].concat());
        assert_eq!(daemon.ask("q"), "ERR\n", "{head}");
        daemon.stderr_wait("wrote what is no reply");
        assert_eq!(daemon.usr1().count("queries replied"), 0, "{head}");
    }
}

// ---- up to an empty line -------------------------------------------------------------------------------------------

/// A program that strips its lines, as many do that end their loop with an empty one.
const STRIPS: &str = r#"
import sys
said = []
for line in sys.stdin.buffer:
    line = line.strip()
    if line:
        said.append(line)
        continue
    print(b"|".join(said).decode("latin-1"), end="\n\n", flush=True)
    said = []
"#;

/// A program to which a line with a CR is not empty, and one to which a line without one does not end.
const KNOWS_LF: &str = "import sys\nsaid = []\nfor line in sys.stdin.buffer:\n  said.append(line)\n  if line == b'\\n':\n    \
                        sys.stdout.write(repr(b''.join(said)) + '\\n\\n')\n    sys.stdout.flush()\n    said = []";
const KNOWS_CR_LF: &str = "import sys\nsaid = b''\nwhile more := sys.stdin.buffer.read1(1000):\n  said += more\n  while \
                           b'\\r\\n\\r\\n' in said:\n    one, _, said = said.partition(b'\\r\\n\\r\\n')\n    \
                           sys.stdout.write(repr(one) + '\\n\\n')\n    sys.stdout.flush()";

#[test]
fn a_program_that_knows_one_line_end_is_given_no_other() {
    let framings = [
        "--request-framing",
        "until-empty-line",
        "--reply-framing",
        "until-empty-line",
    ];
    for (script, flags, answer) in [
        (KNOWS_LF, &["--worker-line-end", "lf"][..], "b'a=1\\nb=#\\n\\n'"),
        // Without a flag for it, where requests are written ahead.
        (KNOWS_LF, &[], "b'a=1\\nb=#\\n\\n'"),
        (KNOWS_CR_LF, &["--worker-line-end", "crlf"], "b'a=1\\r\\nb=#'"),
    ] {
        let command = shell_words::join(["python3", "-c", script]);
        let daemon = Daemon::pool(
            1,
            &command,
            &[&PATIENT[..], &framings, &["--pipeline", "4"], flags].concat(),
        );
        thread::scope(|scope| {
            for (number, message) in [
                "a=1\nb=#\n\n",
                "a=1\r\nb=#\r\n\r\n",
                "a=1\nb=#\r\n\n",
                "a=1\r\nb=#\n\r\n",
            ]
            .iter()
            .enumerate()
            {
                let daemon = &daemon;
                scope.spawn(move || {
                    for _ in 0..10 {
                        let mut client = daemon.client();
                        client.send(message.replace('#', &number.to_string()));
                        let said = String::from_utf8(client.read_to_end()).unwrap();
                        assert_eq!(said, answer.replace('#', &number.to_string()) + "\n\n", "{message:?}");
                    }
                });
            }
        });
        assert_eq!(daemon.usr1().count("daemon spawns"), 1);
    }
}

#[test]
fn a_line_of_blanks_ends_no_message() {
    let command = shell_words::join(["python3", "-c", STRIPS]);
    let framings = [
        "--request-framing",
        "until-empty-line",
        "--reply-framing",
        "until-empty-line",
    ];
    let daemon = Daemon::pool(1, &command, &[&PATIENT[..], &framings, &["--pipeline", "4"]].concat());
    let ask = |message: &str| {
        let mut client = daemon.client();
        client.send(message);
        String::from_utf8(client.read_to_end()).unwrap()
    };
    for attack in [
        "a=1\n \nOWNED=1\n\n",
        "a=1\n\t\r\nOWNED=1\n\n",
        "a=1\n\x0c\nOWNED=1\n\n",
        "a=1\n\rOWNED=1\n\n",
        "a\0=1\n\n",
    ] {
        assert_eq!(ask(attack), "ERR\n\n", "{attack:?}");
        assert_eq!(ask("a=2\r\n b=3\r\n\r\n"), "a=2|b=3\n\n");
    }
    assert_eq!(daemon.usr1().count("daemon spawns"), 1);
}
