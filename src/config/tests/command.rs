//! Flags and keys of a command door: a flag, a key of a TOML file and a setting of a torc.cfg have the same meaning.

use std::sync::Arc;

use clap::{Args, Command, Parser};

use super::super::file;
use super::super::spec::command::{CommandSpec, EntrySpec};
use crate::doors::command::options::Options;
use crate::doors::front::options::LimitKind;

#[derive(Debug, Parser)]
struct Flags {
    #[command(flatten)]
    spec: CommandSpec,
}

const COMMANDS: &str = "processes = ( { name = \"c\"; cmd = \"c\"; } );";

fn from_flags<'a>(flags: impl IntoIterator<Item = &'a str>) -> Options {
    let parsed = Flags::try_parse_from(std::iter::once("command").chain(flags)).unwrap();
    let text = format!("listen = \"unix:/sock\"; {COMMANDS}");
    file::read_torc("f", text.as_bytes(), &parsed.spec).unwrap()
}

fn from_torc(settings: &str) -> Options {
    let listen = if settings.starts_with("listen") {
        ""
    } else {
        "listen = \"unix:/sock\";"
    };
    file::read_torc(
        "f",
        format!("{listen} {settings}; {COMMANDS}").as_bytes(),
        &CommandSpec::default(),
    )
    .unwrap()
}

fn from_toml(keys: &str) -> Options {
    from_toml_with(keys, "")
}

/// Returns a door with one command; `entry` are keys of the command.
fn from_toml_with(keys: &str, entry: &str) -> Options {
    let listen = if keys.starts_with("listen") {
        ""
    } else {
        "listen = \"unix:/sock\""
    };
    let cmd = if entry.starts_with("cmd") { "" } else { "cmd = 'c'" };
    let text = format!("[command.command]\n{listen}\n{keys}\n[command.command.commands.c]\n{cmd}\n{entry}");
    let mut services = file::read("f", text.as_bytes()).unwrap();
    assert_eq!(services.len(), 1);
    let crate::doors::Options::Command(door) = services.remove(0) else {
        panic!("a command door is one")
    };
    *door
}

/// Each option: its name, as flags, and as a key, which has the same form in both kinds of file.
const SAMPLES: &[(&str, &[&str], &str)] = &[
    ("list", &["--list", "no"], "list = \"no\""),
    ("kill-timeout", &["--kill-timeout", "1.5"], "kill-timeout = 1.5"),
    ("linger", &["--linger", "20ms"], "linger = \"20ms\""),
    ("stop-timeout", &["--stop-timeout", "5s"], "stop-timeout = 5"),
    ("log-args", &["--log-args", "yes"], "log-args = \"yes\""),
    ("debug", &["--debug"], "debug = true"),
    ("listen", &["--listen=[::1]:7"], "listen = [\"[::1]:7\"]"),
    ("backlog", &["--backlog", "5"], "backlog = 5"),
    ("socket-mode", &["--socket-mode", "0600"], "socket-mode = \"0600\""),
    ("socket-owner", &["--socket-owner", "root"], "socket-owner = \"root\""),
    ("socket-group", &["--socket-group", "7"], "socket-group = \"7\""),
    ("allow", &["--allow=127.0.0.0/8"], "allow = \"127.0.0.0/8\""),
    ("deny", &["--deny=127.1.0.0/16"], "deny = [\"127.1.0.0/16\"]"),
    (
        "accept-proxy",
        &["--accept-proxy=10.0.0.0/24"],
        "accept-proxy = [\"10.0.0.0/24\"]",
    ),
    (
        "accept-proxy-optional",
        &["--accept-proxy=unix", "--accept-proxy-optional"],
        "accept-proxy-optional = true\naccept-proxy = \"unix\"",
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
        "listen = \"tls:[::1]:7\"\ncert = [\"/a\", \"/b\"]",
    ),
    (
        "key",
        &["--listen=tls:[::1]:7", "--cert=/a", "--key=/b"],
        "listen = \"tls:[::1]:7\"\nkey = \"/b\"\ncert = \"/a\"",
    ),
    (
        "client-ca",
        &["--listen=tls:[::1]:7", "--cert=/a", "--client-ca=/c"],
        "listen = \"tls:[::1]:7\"\nclient-ca = \"/c\"\ncert = \"/a\"",
    ),
    (
        "allow-subject",
        &[
            "--listen=tls:[::1]:7",
            "--cert=/a",
            "--client-ca=/c",
            "--allow-subject=a",
        ],
        "listen = \"tls:[::1]:7\"\nallow-subject = \"a\"\nclient-ca = \"/c\"\ncert = \"/a\"",
    ),
    (
        "min-tls",
        &["--listen=tls:[::1]:7", "--cert=/a", "--min-tls=1.3"],
        "listen = \"tls:[::1]:7\"\nmin-tls = \"1.3\"\ncert = \"/a\"",
    ),
    ("read-timeout", &["--read-timeout", "1m"], "read-timeout = 60.0"),
    ("write-timeout", &["--write-timeout", "1m"], "write-timeout = 60"),
    ("quiet-time", &["--quiet-time", "50ms"], "quiet-time = 0.05"),
    ("max-message", &["--max-message", "1k"], "max-message = 1024"),
    ("max-buffer", &["--max-buffer", "1MiB"], "max-buffer = \"1M\""),
];

/// Returns the default in a help text, if it is a value that can be written.
fn default_in(help: &str) -> Option<&str> {
    let (_, default) = help.split_once("[default: ")?;
    let default = default.trim_end_matches(']');
    let is_prose = ["the ", "all", "no limit", "what the ", "as many", "anything"]
        .iter()
        .any(|prose| default.starts_with(prose));
    // The default of `list` is "yes, unless …".
    let default = default.split(',').next()?;
    (!is_prose).then_some(default)
}

#[test]
fn every_flag_is_a_key_and_means_the_same() {
    let command = CommandSpec::augment_args(Command::new("command"));
    let mut defaults = 0;
    for option in command.get_arguments() {
        let name = option.get_long().expect("every option has a long name");
        let found = SAMPLES.iter().find(|(sample, ..)| *sample == name);
        let (_, flags, key) = found.unwrap_or_else(|| panic!("--{name} is new: show above how it is written"));
        let flagged = from_flags(flags.iter().copied());
        assert_eq!(flagged, from_torc(key), "{name}");
        assert_eq!(
            flagged,
            from_torc(&key.replacen('-', "_", name.matches('-').count())),
            "{name}"
        );
        assert_eq!(flagged.front.listen, from_toml(key).front.listen, "{name}");
        assert_eq!(flagged, from_toml(key), "{name}");
        assert_ne!(flagged, from_flags([]), "--{name} changes nothing");
        assert!(option.get_help_heading().is_some(), "{name}");
        let help = option.get_help().unwrap().to_string().replace('\n', " ");
        let Some(default) = default_in(&help) else { continue };
        let flag = format!("--{name}={default}");
        let beside: &[&str] = match name {
            "min-tls" => &["--listen=tls:[::1]:7", "--cert=/a"],
            _ => &[],
        };
        let mut said = from_flags(beside.iter().copied().chain([flag.as_str()]));
        // An explicit number is not lowered silently, even if it is the default.
        Arc::make_mut(&mut said.front).limit_kind = LimitKind::Flexible;
        assert_eq!(said, from_flags(beside.iter().copied()), "{flag}");
        defaults += 1;
    }
    assert_eq!(defaults, 13);
}

/// Each key of a command, with the settings without which it has no effect.
const ENTRY_SAMPLES: &[(&str, &str, &str)] = &[
    ("cmd", "cmd = \"cat\"", ""),
    ("threads", "threads = 7", ""),
    ("argc", "argc = 1", ""),
    ("args", "args = [\"any\"]", ""),
    ("queue", "queue = 3", ""),
    ("max-wait", "max-wait = \"5s\"", "queue = 3"),
    ("join", "join = true", ""),
    ("timeout", "timeout = 9", ""),
    ("user", "user = \"0\"", ""),
    ("group", "group = \"7\"", ""),
    ("chdir", "chdir = \"/\"", ""),
    ("env", "env = [\"A=1\"]", ""),
    ("clear-env", "clear-env = true", ""),
    ("nice", "nice = 5", ""),
    ("limit-memory", "limit-memory = \"1G\"", ""),
    ("limit-cpu", "limit-cpu = 60", ""),
    ("limit-open-files", "limit-open-files = 64", ""),
    ("limit-processes", "limit-processes = 9", ""),
    ("no-new-privs", "no-new-privs = true", ""),
    ("leave-background", "leave-background = true", ""),
    ("sandbox", "sandbox = true", ""),
    ("sandbox-read", "sandbox-read = [\"/srv\"]", "sandbox = true"),
    ("sandbox-write", "sandbox-write = [\"/srv\"]", "sandbox = true"),
];

#[test]
fn every_key_of_a_command_means_the_same_in_both_kinds_of_file() {
    let keys = EntrySpec::augment_args(Command::new("entry"));
    let torc = |settings: &str| {
        let cmd = if settings.starts_with("cmd") {
            ""
        } else {
            "cmd = \"c\";"
        };
        let text = format!("listen = \"unix:/sock\"; processes = ( {{ name = \"c\"; {cmd} {settings} }} );");
        file::read_torc("f", text.as_bytes(), &CommandSpec::default()).unwrap()
    };
    let mut defaults = 0;
    for key in keys.get_arguments() {
        let name = key.get_long().unwrap();
        let found = ENTRY_SAMPLES.iter().find(|(sample, ..)| *sample == name);
        let (_, sample, beside) = found.unwrap_or_else(|| panic!("{name} is new: show above how it is written"));
        let keys = |key: &str| from_toml_with("", &format!("{key}\n{beside}"));
        let said = keys(sample);
        assert_eq!(said, torc(&format!("{sample}; {beside}")), "{name}");
        assert_eq!(said, torc(&format!("{}; {beside}", sample.replace('-', "_"))), "{name}");
        assert_ne!(said, keys(""), "{name} changes nothing");
        let help = key.get_help().unwrap().to_string().replace('\n', " ");
        let Some(default) = default_in(&help) else { continue };
        assert_eq!(keys(&format!("{name} = \"{default}\"")), keys(""), "{name}");
        defaults += 1;
    }
    assert_eq!(defaults, 4);
}
