//! Flags and keys side by side: every setting can be written in both ways, with the same meaning.

mod command;
mod exec;

use std::sync::Arc;

use clap::{Arg, Args, Command, Parser};

use super::spec::pool::PoolSpec;
use super::{file, lower};
use crate::doors::front::options::LimitKind;
use crate::doors::pool::options::Options;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    spec: PoolSpec,
}

fn from_flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> Options {
    let parsed = Flags::try_parse_from(std::iter::once("iotcpd").chain(flags)).unwrap();
    lower::pool("main", &parsed.spec).unwrap().options
}

fn from_file(keys: &str) -> Options {
    let mut services = file::read("f", format!("[pool.main]\n{keys}").as_bytes()).unwrap();
    assert_eq!(services.len(), 1);
    let crate::doors::Options::Pool(pool) = services.remove(0) else {
        panic!("a pool is a pool")
    };
    *pool
}

/// The forms of an option: its name, as flags, as keys, and the settings without which it has no effect.
type Sample = (&'static str, &'static [&'static str], &'static str, Beside);
type Beside = (&'static [&'static str], &'static str);

const NOTHING: Beside = (&[], "");
const TLS: Beside = (
    &["--listen=tls:[::1]:7", "--cert=/a"],
    "listen = 'tls:[::1]:7'\ncert = '/a'",
);
const UNIX: Beside = (&["--listen=unix:/x"], "listen = ['unix:/x']");
const PROXIED: Beside = (&["--accept-proxy=unix"], "accept-proxy = 'unix'");
const KEPT_ALONE: Beside = (
    &["--persistent", "--no-multiplex"],
    "persistent = true\nno-multiplex = true",
);
const SESSION: Beside = (&["--mode=session"], "mode = 'session'");
const CACHE: Beside = (&["--cache-size=1M"], "cache-size = '1M'");
const SANDBOX: Beside = (&["--sandbox"], "sandbox = true");
const CLOSED: Beside = (&["--fail=closed"], "fail = 'closed'");
const PARAGRAPHS: Beside = (
    &["--worker-request-framing=until-empty-line"],
    "worker-request-framing = 'until-empty-line'",
);
const READY: Beside = (&["--ready-line=up"], "ready-line = 'up'");
const ELASTIC: Beside = (&["--max-workers=8"], "max-workers = 8");

const PROBED: Beside = (&["--probe=q", "--probe-expect=OK"], "probe = 'q'\nprobe-expect = 'OK'");

const SAMPLES: &[Sample] = &[
    (
        "daemon",
        &["--daemon", "cat -u 'a b'"],
        r#"daemon = "cat -u 'a b'""#,
        NOTHING,
    ),
    ("num-daemons", &["--num-daemons", "7"], "num-daemons = 7", NOTHING),
    ("max-workers", &["--max-workers", "64"], "max-workers = 64", NOTHING),
    ("min-workers", &["--min-workers", "2"], "min-workers = 2", ELASTIC),
    ("spare-workers", &["--spare-workers", "0"], "spare-workers = 0", ELASTIC),
    (
        "worker-idle-timeout",
        &["--worker-idle-timeout", "5m"],
        "worker-idle-timeout = '300s'",
        ELASTIC,
    ),
    (
        "ready-line",
        &["--ready-line", "- up -"],
        "ready-line = '- up -'",
        NOTHING,
    ),
    ("start-timeout", &["--start-timeout", "5"], "start-timeout = 5", READY),
    (
        "probe",
        &["--probe", "-q 1", "--probe-expect", "^OK"],
        "probe = '-q 1'\nprobe-expect = '^OK'",
        NOTHING,
    ),
    (
        "probe-expect",
        &["--probe=q", "--probe-expect", r"-\d"],
        "probe = 'q'\nprobe-expect = '-\\d'",
        NOTHING,
    ),
    (
        "probe-interval",
        &["--probe-interval", "5m"],
        "probe-interval = 300",
        PROBED,
    ),
    (
        "alarm-interval",
        &["--alarm-interval", "1"],
        "alarm-interval = '1s'",
        NOTHING,
    ),
    (
        "max-requests",
        &["--max-requests", "1000"],
        "max-requests = 1000",
        NOTHING,
    ),
    ("max-age", &["--max-age", "1h"], "max-age = '60m'", NOTHING),
    ("mode", &["--mode", "session"], "mode = 'session'", NOTHING),
    ("pty", &["--pty"], "pty = true", NOTHING),
    ("record", &["--record", "0"], "record = 0", NOTHING),
    ("confidential", &["--confidential"], "confidential = true", NOTHING),
    ("slow-log", &["--slow-log", "500ms"], "slow-log = 0.5", NOTHING),
    ("max-rss", &["--max-rss", "64MiB"], "max-rss = '64M'", NOTHING),
    (
        "kill-timeout",
        &["--kill-timeout", "1.5"],
        "kill-timeout = 1.5",
        NOTHING,
    ),
    ("stop-timeout", &["--stop-timeout", "5s"], "stop-timeout = 5", NOTHING),
    ("ipv4", &["--ipv4", "0.0.0.0"], "ipv4 = '0.0.0.0'", NOTHING),
    ("ipv6", &["--ipv6", "::1"], "ipv6 = '::1'", NOTHING),
    ("port", &["--port", "80"], "port = 80", NOTHING),
    (
        "listen",
        &["--listen=[::1]:7", "--listen=unix:/x"],
        "listen = ['[::1]:7', 'unix:/x']",
        NOTHING,
    ),
    ("backlog", &["--backlog", "5"], "backlog = 5", NOTHING),
    ("socket-mode", &["--socket-mode", "0660"], "socket-mode = '0660'", UNIX),
    (
        "socket-owner",
        &["--socket-owner", "root"],
        "socket-owner = 'root'",
        UNIX,
    ),
    ("socket-group", &["--socket-group", "7"], "socket-group = '7'", UNIX),
    (
        "allow",
        &["--allow=10.0.0.0/8", "--allow", "::1"],
        "allow = ['10.0.0.0/8', '::1']",
        NOTHING,
    ),
    ("deny", &["--deny=10.1.0.0/16"], "deny = '10.1.0.0/16'", NOTHING),
    (
        "accept-proxy",
        &["--accept-proxy=10.0.0.5", "--accept-proxy", "unix"],
        "accept-proxy = ['10.0.0.5', 'unix']",
        NOTHING,
    ),
    (
        "accept-proxy-optional",
        &["--accept-proxy-optional"],
        "accept-proxy-optional = true",
        PROXIED,
    ),
    (
        "max-connections",
        &["--max-connections", "9"],
        "max-connections = 9",
        NOTHING,
    ),
    (
        "max-connections-per-ip",
        &["--max-connections-per-ip", "9"],
        "max-connections-per-ip = 9",
        NOTHING,
    ),
    (
        "cert",
        &["--listen=tls:[::1]:7", "--cert=/a", "--cert=/b"],
        "listen = 'tls:[::1]:7'\ncert = ['/a', '/b']",
        NOTHING,
    ),
    ("key", &["--key=/b"], "key = '/b'", TLS),
    ("client-ca", &["--client-ca=/c"], "client-ca = '/c'", TLS),
    (
        "allow-subject",
        &["--client-ca=/c", "--allow-subject=a", "--allow-subject=*.b"],
        "client-ca = '/c'\nallow-subject = ['a', '*.b']",
        TLS,
    ),
    ("min-tls", &["--min-tls=1.3"], "min-tls = '1.3'", TLS),
    (
        "busy-timeout",
        &["--busy-timeout", "500ms"],
        "busy-timeout = '0.5s'",
        NOTHING,
    ),
    ("queue-size", &["--queue-size", "0"], "queue-size = 0", NOTHING),
    ("queue-timeout", &["--queue-timeout", "1"], "queue-timeout = 1", NOTHING),
    ("retries", &["--retries", "0"], "retries = 0", NOTHING),
    ("pipeline", &["--pipeline", "16"], "pipeline = 16", NOTHING),
    ("concurrency", &["--concurrency", "8"], "concurrency = 8", NOTHING),
    ("rest", &["--rest", "5ms"], "rest = '5ms'", NOTHING),
    (
        "request-framing",
        &["--request-framing", "content-length"],
        "request-framing = 'content-length'",
        NOTHING,
    ),
    (
        "reply-framing",
        &["--reply-framing", "quiet=0.5"],
        "reply-framing = 'quiet=500ms'",
        NOTHING,
    ),
    (
        "worker-request-framing",
        &["--worker-request-framing", "eof"],
        "worker-request-framing = 'eof'",
        NOTHING,
    ),
    (
        "worker-reply-framing",
        &["--worker-reply-framing", "netstring"],
        "worker-reply-framing = 'netstring'",
        NOTHING,
    ),
    (
        "max-request",
        &["--max-request", "12000"],
        "max-request = 12000",
        NOTHING,
    ),
    ("max-reply", &["--max-reply", "64k"], "max-reply = 65536", NOTHING),
    (
        "read-timeout",
        &["--read-timeout", "1m"],
        "read-timeout = 60.0",
        NOTHING,
    ),
    (
        "write-timeout",
        &["--write-timeout", "1m"],
        "write-timeout = 60",
        NOTHING,
    ),
    (
        "error-reply",
        &["--error-reply", r"-BH\n"],
        r#"error-reply = "-BH\n""#,
        NOTHING,
    ),
    ("fail", &["--fail", "closed"], "fail = 'closed'", NOTHING),
    (
        "fail-url",
        &["--fail-url", "http://a/"],
        "fail-url = 'http://a/'",
        CLOSED,
    ),
    (
        "worker-line-end",
        &["--worker-line-end", "crlf"],
        "worker-line-end = 'crlf'",
        NOTHING,
    ),
    ("allow-lone-cr", &["--allow-lone-cr"], "allow-lone-cr = true", NOTHING),
    (
        "allow-blank-lines",
        &["--allow-blank-lines"],
        "allow-blank-lines = true",
        PARAGRAPHS,
    ),
    (
        "refuse-unicode-line-ends",
        &["--refuse-unicode-line-ends"],
        "refuse-unicode-line-ends = true",
        NOTHING,
    ),
    (
        "half-close",
        &["--half-close", "hang-up"],
        "half-close = 'hang-up'",
        NOTHING,
    ),
    ("persistent", &["--persistent"], "persistent = true", NOTHING),
    ("no-multiplex", &["--no-multiplex"], "no-multiplex = true", NOTHING),
    ("idle-timeout", &["--idle-timeout", "1m"], "idle-timeout = 60", NOTHING),
    ("max-buffer", &["--max-buffer", "1MiB"], "max-buffer = '1M'", SESSION),
    (
        "max-unanswered",
        &["--max-unanswered", "8"],
        "max-unanswered = 8",
        KEPT_ALONE,
    ),
    ("cache-size", &["--cache-size", "2MiB"], "cache-size = '2MiB'", NOTHING),
    ("cache-ttl", &["--cache-ttl", "5m"], "cache-ttl = 300", CACHE),
    (
        "cache-skip",
        &["--cache-skip", "-^POST"],
        "cache-skip = '-^POST'",
        CACHE,
    ),
    ("user", &["--user", "3999999999"], "user = '3999999999'", NOTHING),
    ("group", &["--group", "7"], "group = '7'", NOTHING),
    ("chdir", &["--chdir", "/"], "chdir = '/'", NOTHING),
    ("env", &["--env=A=1", "--env=B=2"], "env = ['A=1', 'B=2']", NOTHING),
    ("clear-env", &["--clear-env"], "clear-env = true", NOTHING),
    ("nice", &["--nice", "-5"], "nice = -5", NOTHING),
    (
        "limit-memory",
        &["--limit-memory", "1GiB"],
        "limit-memory = '1G'",
        NOTHING,
    ),
    ("limit-cpu", &["--limit-cpu", "60"], "limit-cpu = 60", NOTHING),
    (
        "limit-open-files",
        &["--limit-open-files", "64"],
        "limit-open-files = 64",
        NOTHING,
    ),
    (
        "limit-processes",
        &["--limit-processes", "9"],
        "limit-processes = 9",
        NOTHING,
    ),
    ("no-new-privs", &["--no-new-privs"], "no-new-privs = true", NOTHING),
    (
        "leave-background",
        &["--leave-background"],
        "leave-background = true",
        NOTHING,
    ),
    ("sandbox", &["--sandbox"], "sandbox = true", NOTHING),
    (
        "sandbox-read",
        &["--sandbox-read=/usr", "--sandbox-read=/tmp"],
        "sandbox-read = ['/usr', '/tmp']",
        SANDBOX,
    ),
    (
        "sandbox-write",
        &["--sandbox-write", "/tmp"],
        "sandbox-write = '/tmp'",
        SANDBOX,
    ),
];

fn sample(option: &str) -> Sample {
    let found = SAMPLES.iter().find(|(name, ..)| *name == option);
    *found.unwrap_or_else(|| panic!("--{option} is new: show above how it is written"))
}

fn options() -> Vec<Arg> {
    PoolSpec::augment_args(Command::new("pool"))
        .get_arguments()
        .cloned()
        .collect()
}

#[test]
fn every_flag_is_a_key_and_means_the_same() {
    let options = options();
    assert!(options.len() > 40);
    for option in &options {
        let name = option.get_long().expect("every option has a long name");
        let (_, flags, keys, beside) = sample(name);
        let flagged = from_flags(beside.0.iter().chain(flags).copied());
        assert_eq!(flagged, from_file(&format!("{}\n{keys}", beside.1)), "{name}");
        assert_ne!(
            flagged,
            from_flags(beside.0.iter().copied()),
            "--{name} changes nothing"
        );
    }
}

#[test]
fn every_option_has_help_and_a_heading() {
    for option in options() {
        let name = option.get_long().unwrap();
        assert!(
            option.get_help().is_some_and(|help| help.to_string().len() > 20),
            "{name}"
        );
        assert!(option.get_help_heading().is_some(), "{name}");
    }
}

#[test]
fn the_letters_of_1_1_work() {
    let pairs = [
        ("-d", "--daemon", "cat"),
        ("-i", "--ipv4", "0.0.0.0"),
        ("-4", "--ipv4", "0.0.0.0"),
        ("-I", "--ipv6", "::1"),
        ("-6", "--ipv6", "::1"),
        ("-p", "--port", "80"),
        ("-n", "--num-daemons", "64"),
        ("-b", "--busy-timeout", "3"),
        ("-a", "--alarm-interval", "1"),
    ];
    for (short, long, value) in pairs {
        assert_eq!(from_flags([short, value]), from_flags([long, value]), "{short}");
        assert_ne!(from_flags([short, value]), from_flags([]), "{short}");
    }
}

/// The defaults are written twice, in the help and in `lower`; this test compares them.
#[test]
fn the_defaults_in_the_help_are_true() {
    let mut checked = 0;
    for option in options() {
        let name = option.get_long().unwrap();
        let help = option.get_help().unwrap().to_string().replace('\n', " ");
        let Some((_, default)) = help.split_once("[default: ") else {
            continue;
        };
        let default = default.trim_end_matches(']');
        let default = [", unless", ", or "]
            .iter()
            .fold(default, |default, but| default.split(but).next().unwrap());
        let prose = ["the ", "never", "no limit", "none", "once ", "what ", "all"];
        if prose.iter().any(|start| default.starts_with(start)) {
            continue;
        }
        let (.., beside) = sample(name);
        let flag = format!("--{name}={default}");
        let mut said = from_flags(beside.0.iter().copied().chain([flag.as_str()]));
        // An explicit number is not lowered silently, even if it is the default.
        Arc::make_mut(&mut said.front).limit_kind = LimitKind::Flexible;
        // An explicit worker is the operator's choice, even if it is the default.
        assert_eq!(said.has_default_worker, name != "daemon", "{flag}");
        said.has_default_worker = true;
        assert_eq!(said, from_flags(beside.0.iter().copied()), "{flag}");
        checked += 1;
    }
    assert_eq!(checked, 38);
}
