//! Flags and keys of an exec door, some of which have letters and defaults of their own.

use clap::{Args, Command, Parser};

use super::super::spec::exec::ExecSpec;
use super::super::{file, lower};
use crate::doors::exec::options::Options;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    spec: ExecSpec,
}

fn from_flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> Options {
    let flags = ["exec", "--listen=unix:/sock"].into_iter().chain(flags);
    let parsed = Flags::try_parse_from(flags).unwrap();
    lower::exec("main", &parsed.spec).unwrap().options
}

fn from_file(keys: &str) -> Options {
    let listen = if keys.starts_with("listen") {
        ""
    } else {
        "listen = 'unix:/sock'"
    };
    let mut services = file::read("f", format!("[exec.main]\n{listen}\n{keys}").as_bytes()).unwrap();
    assert_eq!(services.len(), 1);
    let crate::doors::Options::Exec(exec) = services.remove(0) else {
        panic!("an exec door is one")
    };
    *exec
}

#[test]
fn an_empty_list_of_what_is_allowed_does_not_allow_everything() {
    for key in ["allow", "allow-user", "allow-group", "allow-program"] {
        let text = format!("[exec.main]\nlisten = 'unix:/sock'\n{key} = []\n");
        let told = file::read("f", text.as_bytes()).unwrap_err().to_string();
        assert!(
            told.starts_with("f:3:") && told.contains(&format!("{key}: an empty list")),
            "{told}"
        );
    }
    assert_eq!(from_file("deny = []"), from_flags([]));
}

/// Each option: its name, as flags, as keys.
const SAMPLES: &[(&str, &[&str], &str)] = &[
    ("protocol", &["--protocol", "sockproc"], "protocol = 'sockproc'"),
    ("timeout", &["--timeout", "0"], "timeout = 0"),
    ("kill-timeout", &["--kill-timeout", "1.5"], "kill-timeout = 1.5"),
    ("linger", &["--linger", "20ms"], "linger = '20ms'"),
    ("stop-timeout", &["--stop-timeout", "5s"], "stop-timeout = 5"),
    ("max-arguments", &["--max-arguments", "64k"], "max-arguments = 65536"),
    (
        "max-output",
        &["--protocol=sockproc", "--max-output", "1MiB"],
        "protocol = 'sockproc'\nmax-output = '1M'",
    ),
    (
        "allow-program",
        &["--allow-program=/bin/a*", "--allow-program=/bin/ls"],
        "allow-program = ['/bin/a*', '/bin/ls']",
    ),
    ("log-args", &["--log-args", "yes"], "log-args = 'yes'"),
    ("debug", &["--debug"], "debug = true"),
    ("listen", &["--listen=[::1]:7"], "listen = ['unix:/sock', '[::1]:7']"),
    ("backlog", &["--backlog", "5"], "backlog = 5"),
    ("socket-mode", &["--socket-mode", "0600"], "socket-mode = '0600'"),
    ("socket-owner", &["--socket-owner", "root"], "socket-owner = 'root'"),
    ("socket-group", &["--socket-group", "7"], "socket-group = '7'"),
    ("allow", &["--allow=127.0.0.0/8"], "allow = '127.0.0.0/8'"),
    ("deny", &["--deny=127.1.0.0/16"], "deny = ['127.1.0.0/16']"),
    (
        "accept-proxy",
        &["--accept-proxy=10.0.0.5", "--allow-program=/bin/ls"],
        "accept-proxy = '10.0.0.5'\nallow-program = '/bin/ls'",
    ),
    (
        "accept-proxy-optional",
        &[
            "--accept-proxy=unix",
            "--accept-proxy-optional",
            "--allow-program=/bin/ls",
        ],
        "accept-proxy = 'unix'\naccept-proxy-optional = true\nallow-program = '/bin/ls'",
    ),
    ("max-connections", &["--max-connections", "9"], "max-connections = 9"),
    (
        "max-connections-per-ip",
        &["--max-connections-per-ip", "9"],
        "max-connections-per-ip = 9",
    ),
    (
        "cert",
        &["--listen=tls:[::1]:7", "--cert=/a", "--cert=/b"],
        "listen = ['unix:/sock', 'tls:[::1]:7']\ncert = ['/a', '/b']",
    ),
    (
        "key",
        &["--listen=tls:[::1]:7", "--cert=/a", "--key=/b"],
        "listen = ['unix:/sock', 'tls:[::1]:7']\ncert = '/a'\nkey = '/b'",
    ),
    (
        "client-ca",
        &["--listen=tls:[::1]:7", "--cert=/a", "--client-ca=/c"],
        "listen = ['unix:/sock', 'tls:[::1]:7']\ncert = '/a'\nclient-ca = '/c'",
    ),
    (
        "allow-subject",
        &[
            "--listen=tls:[::1]:7",
            "--cert=/a",
            "--client-ca=/c",
            "--allow-subject=a",
        ],
        "listen = ['unix:/sock', 'tls:[::1]:7']\ncert = '/a'\nclient-ca = '/c'\nallow-subject = 'a'",
    ),
    (
        "min-tls",
        &["--listen=tls:[::1]:7", "--cert=/a", "--min-tls=1.3"],
        "listen = ['unix:/sock', 'tls:[::1]:7']\ncert = '/a'\nmin-tls = '1.3'",
    ),
    ("allow-user", &["--allow-user=root"], "allow-user = 'root'"),
    ("allow-group", &["--allow-group=7"], "allow-group = ['7']"),
    ("read-timeout", &["--read-timeout", "1m"], "read-timeout = 60.0"),
    ("write-timeout", &["--write-timeout", "1m"], "write-timeout = 60"),
    ("user", &["--user=root"], "user = 'root'"),
    ("group", &["--group=7"], "group = '7'"),
    ("chdir", &["--chdir=/"], "chdir = '/'"),
    ("env", &["--env=A=1", "--env=B="], "env = ['A=1', 'B=']"),
    ("clear-env", &["--clear-env"], "clear-env = true"),
    ("nice", &["--nice=-5"], "nice = -5"),
    ("limit-memory", &["--limit-memory=1GiB"], "limit-memory = '1G'"),
    ("limit-cpu", &["--limit-cpu=60"], "limit-cpu = '1m'"),
    ("limit-open-files", &["--limit-open-files=64"], "limit-open-files = 64"),
    ("limit-processes", &["--limit-processes=9"], "limit-processes = 9"),
    ("no-new-privs", &["--no-new-privs"], "no-new-privs = true"),
    ("leave-background", &["--leave-background"], "leave-background = true"),
    ("sandbox", &["--sandbox"], "sandbox = true"),
    (
        "sandbox-read",
        &["--sandbox", "--sandbox-read=/usr", "--sandbox-read=/tmp"],
        "sandbox = true\nsandbox-read = ['/usr', '/tmp']",
    ),
    (
        "sandbox-write",
        &["--sandbox", "--sandbox-write=/tmp"],
        "sandbox = true\nsandbox-write = '/tmp'",
    ),
    ("max-buffer", &["--max-buffer", "1MiB"], "max-buffer = '1M'"),
];

#[test]
fn every_flag_is_a_key_and_means_the_same() {
    let command = ExecSpec::augment_args(Command::new("exec"));
    let mut defaults = 0;
    for option in command.get_arguments() {
        let name = option.get_long().expect("every option has a long name");
        let found = SAMPLES.iter().find(|(sample, ..)| *sample == name);
        let (_, flags, keys) = found.unwrap_or_else(|| panic!("--{name} is new: show above how it is written"));
        let flagged = from_flags(flags.iter().copied());
        assert_eq!(flagged, from_file(keys), "{name}");
        assert_ne!(flagged, from_flags([]), "--{name} changes nothing");
        assert!(option.get_help_heading().is_some(), "{name}");
        let help = option.get_help().unwrap().to_string().replace('\n', " ");
        let Some((_, default)) = help.split_once("[default: ") else {
            continue;
        };
        let default = default.trim_end_matches(']');
        if ["the ", "all", "no limit"]
            .iter()
            .any(|prose| default.starts_with(prose))
        {
            continue;
        }
        let flag = format!("--{name}={default}");
        let beside: &[&str] = match name {
            "protocol" => &[],
            // The key belongs to one protocol only.
            "max-output" => &["--protocol=sockproc"],
            "min-tls" => &["--protocol=sockexec", "--listen=tls:[::1]:7", "--cert=/a"],
            _ => &["--protocol=sockexec"],
        };
        let said = from_flags(beside.iter().copied().chain([flag.as_str()]));
        assert_eq!(said, from_flags(beside.iter().copied()), "{flag}");
        defaults += 1;
    }
    assert_eq!(defaults, 15);
}
