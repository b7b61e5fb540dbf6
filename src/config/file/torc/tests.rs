//! A torc.cfg, from its text to the options of a door.

use std::time::Duration;

use super::*;
use crate::config::units::{FileMode, Time};
use crate::doors::command::options::{Argument, Command};
use crate::error::Blame;

#[track_caller]
fn door(text: &str) -> Options {
    read("f", text.as_bytes(), &CommandSpec::default()).unwrap()
}

fn told_with(text: &str, flags: &CommandSpec) -> Vec<String> {
    let error = read("f", text.as_bytes(), flags).unwrap_err();
    assert_eq!(error.blame(), Blame::Operator);
    error.to_string().lines().map(str::to_owned).collect()
}

fn told(text: &str) -> Vec<String> {
    let lines = told_with(text, &CommandSpec::default());
    lines
        .iter()
        .map(|line| line.strip_prefix("f:").unwrap().to_owned())
        .collect()
}

fn listens(options: &Options) -> Vec<String> {
    options.front.listen.iter().map(ToString::to_string).collect()
}

const ECHO: &str = "processes = ( { name = \"echo\"; cmd = \"/bin/echo\"; } );";

#[test]
fn a_file_of_torcd_keeps_its_meaning() {
    let options = door(
        "port = 3699; processes = ( { name = \"echo\"; threads = 50; cmd = \"/usr/bin/my echo\"; argc = 2; },
         { name = \"date\", threads = 1, cmd = \"/bin/date\" } );",
    );
    assert_eq!(
        (options.front.name.as_str(), listens(&options)),
        ("command", vec!["0.0.0.0:3699".to_owned()])
    );
    let [echo, date] = options.commands.try_into().unwrap();
    let told = |it: &Command| (it.name.clone(), it.rule.threads, it.rule.arguments.clone());
    assert_eq!(told(&echo), (b"echo".to_vec(), 50, vec![Argument::Any, Argument::Any]));
    assert_eq!(told(&date), (b"date".to_vec(), 1, vec![]));
    assert_eq!(echo.process.command.words(), ["/usr/bin/my echo"]);
    assert!(echo.process.command.argv().eq(["echo"]));
}

#[test]
fn addresses_are_those_of_port_and_listen() {
    assert_eq!(listens(&door(ECHO)), ["0.0.0.0:3699"]);
    assert_eq!(listens(&door(&format!("port = 0x10; {ECHO}"))), ["0.0.0.0:16"]);
    assert_eq!(listens(&door(&format!("listen = \"unix:/x\"; {ECHO}"))), ["unix:/x"]);
    let both = door(&format!("listen = (\"unix:/x\", \"[::1]:7\"); port = 7; {ECHO}"));
    assert_eq!(listens(&both), ["0.0.0.0:7", "unix:/x", "[::1]:7"]);
    let one = door(&format!("listen = \"unix:/x\"; port = 7; {ECHO}"));
    assert_eq!(listens(&one), ["0.0.0.0:7", "unix:/x"]);
}

#[test]
fn all_other_keys_are_accepted_in_both_spellings() {
    let with = |hyphen: &str| {
        format!(
            "quiet{hyphen}time = \"50ms\"; log-args = \"yes\"; max{hyphen}connections = 7; processes = ( {{ name = \"c\"; cmd = \"/c\";
             queue = 3; max{hyphen}wait = 2.5; join = TRUE; timeout = 9; clear{hyphen}env = true; env = [\"A=1\", \"B=2\"];
             args = (\"^a\\d$\", (\"on\", \"off\"), \"int 1..5\"); }} )"
        )
    };
    let options = door(&with("-"));
    assert_eq!(options, door(&with("_")));
    assert_eq!(options.timing.quiet, Duration::from_millis(50));
    assert!(options.log_arguments && options.front.connection_limits.total == 7);
    let [command] = options.commands.try_into().unwrap();
    assert_eq!(
        (command.rule.queue, command.rule.max_wait, command.rule.join),
        (3, Duration::from_millis(2500), true)
    );
    assert_eq!(command.rule.timeout, Some(Duration::from_secs(9)));
    assert_eq!(command.process.context.environment.set.len(), 2);
    let words = Argument::OneOf(["on", "off"].map(str::to_owned).to_vec());
    assert_eq!(command.rule.arguments[1..], [words, Argument::Integer(1..=5)]);
    assert!(command.rule.arguments[0].check(b"a5").is_ok() && command.rule.arguments[0].check(b"ad").is_err());
}

#[test]
fn every_mistake_of_a_file_is_reported_at_its_position() {
    let text = r#"prot = 3699;
port = 70000;
quiet_time = "soon";
max_bufer = 5;
processes = (
  { name = "a"; cmd = "/a"; threads = 0; argz = 1; max_wait = 5;
    args = ( "^(", 5, ("x", 1), "start" ); argc = 7; },
  { cmd = "/b" },
  { name = "a"; thread = 1 },
  { name = "x\n"; cmd = "" },
  { name = 5; cmd = "/c" },
  7, { name = "d"; cmd = "/d", max_wait = 1, max-wait = 2, queue = 1 },
);
"#;
    let expected = [
        "2:8: port: this is not the number of a port; write a value from 0 to 65535",
        "3:14: quiet-time: `soon` is not a length of time; write for example 15 (seconds), 500ms, 1.5s, 2m or 1h",
        "6:39: threads: 0 is out of range; write a value from 1 to 100000",
        "7:14: args: `^(` is not a regular expression at character 2: unclosed group; mend it there, or write a backslash before \
         a character that stands for itself",
        "7:20: args: this says nothing about an argument; write \"any\", \"int 1..100\", \"^EXPRESSION$\", or a list of words (in the command `a`)",
        "7:23: args: this says nothing about an argument; write \"any\", \"int 1..100\", \"^EXPRESSION$\", or a list of words (in the command `a`)",
        "7:33: args: `start` does not say what an argument may be; write any, int 1..100, an expression that begins with ^, or a \
         list of words",
        "8:3: this command has no name; write for example name = \"uptime\"",
        "9:12: there is a command called `a` already; give this one another name",
        "9:12: cmd: it is not said which program to run; write for example cmd = \"/usr/bin/uptime\"",
        "10:12: `x\\n` cannot be the name of a command: a CR, LF or NUL ends what a client sends; leave it out",
        "10:25: cmd: the command names no program; write a program and its arguments, for example squidGuard -c sg.conf",
        "11:12: name: this is not text; write for example name = \"uptime\"",
        "12:3: processes: this is not a group; write for example processes = ( { name = \"uptime\"; cmd = \"/usr/bin/uptime\"; } );",
        "12:46: `max-wait` is set a second time; keep one of the two",
    ];
    assert_eq!(told(text), expected);
}

#[test]
fn a_missing_include_is_reported_once() {
    let nothing = "1:1: there is no key `processes`, which holds the commands; write for example processes = ( { name = \
                   \"uptime\"; cmd = \"/usr/bin/uptime\"; } );";
    assert_eq!(told(""), [nothing]);
    assert_eq!(told("port = 5\n"), [nothing]);
    for empty in ["processes = ()", "processes = \"x\"", "processes = {}"] {
        let told = told(empty);
        assert!(
            told.len() == 1 && told[0].starts_with("1:13: processes: this is not a list of commands; "),
            "{told:?}"
        );
    }
    let mistakes = told("processes ( { name = \"a\" } )");
    assert_eq!(
        mistakes,
        ["1:1: `processes` has no value; write `=` and a value behind it"]
    );
    let told = told("processes = (\n{ name = \"a\" }\n);");
    assert_eq!(
        told,
        ["2:10: cmd: it is not said which program to run; write for example cmd = \"/usr/bin/uptime\""]
    );
}

#[test]
fn a_wrong_address_is_reported_where_it_was_written() {
    let clash = told(&format!("port = 7;\nlisten = \"127.0.0.1:7\";\n{ECHO}"));
    assert_eq!(
        clash,
        ["2:10: listen: 127.0.0.1:7 and 0.0.0.0:7 are in each other's way; leave out one of the two"]
    );
    let mistakes = told(&format!("listen = 5;\n{ECHO}"));
    assert_eq!(
        mistakes,
        ["1:10: listen: an integer is not what belongs here; write listen = \"ADDR\""]
    );
    let switch = told(&format!("list = true;\n{ECHO}"));
    assert_eq!(
        switch,
        ["1:8: list: a boolean is not what belongs here; write \"yes\" or \"no\""]
    );
    let none = told(&format!("listen = [];\n{ECHO}"));
    assert_eq!(
        none,
        ["1:10: listen: there is no address to listen on; write for example 127.0.0.1:3699"]
    );
}

#[test]
fn flags_override_the_file() {
    let mut flags = CommandSpec {
        quiet_time: Some(Time(Duration::from_millis(20))),
        debug: true,
        ..CommandSpec::default()
    };
    flags.listen.listen = vec!["unix:/y".to_owned()];
    let text = format!("port = 7; quiet-time = 1; linger = 3; {ECHO}");
    let options = read("f", text.as_bytes(), &flags).unwrap();
    assert_eq!(listens(&options), ["unix:/y"]);
    assert_eq!(options.timing.quiet, Duration::from_millis(20));
    assert_eq!(options.timing.linger, Duration::from_secs(3));
    assert!(options.debug);
}

#[test]
fn a_mistake_in_a_flag_is_reported_for_the_flag() {
    let mut flags = CommandSpec {
        quiet_time: Some(Time(Duration::from_secs(20))),
        ..CommandSpec::default()
    };
    flags.listen.listen = vec!["unix:/y".to_owned(), "nonsense".to_owned()];
    flags.listen.sockets.socket_mode = Some(FileMode(0o7777));
    let told = told_with(&format!("quiet-time = 1;\nlinger = 0;\n{ECHO}"), &flags);
    assert_eq!(told.len(), 4, "{told:?}");
    assert!(told[0].starts_with("iotcpd: --listen: "), "{told:?}");
    assert!(told[1].starts_with("iotcpd: --socket-mode: "), "{told:?}");
    assert_eq!(
        told[2],
        "iotcpd: --quiet-time: 20s is out of range; write a value from 10ms to 5s"
    );
    assert!(told[3].starts_with("f:2:10: linger: "), "{told:?}");
}

#[test]
fn a_missing_or_binary_file_is_a_mistake_of_the_operator() {
    let flags = CommandSpec::default();
    let error = load(Path::new("/nowhere/torc.cfg"), &flags).unwrap_err();
    assert!(
        error.to_string().starts_with("cannot read /nowhere/torc.cfg: "),
        "{error}"
    );
    let error = read("f", b"port = 1;\n\xff", &flags).unwrap_err();
    assert!(error.to_string().starts_with("f:2:1: "), "{error}");
}

#[test]
fn a_file_that_includes_itself_is_not_read_again() {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    // None of these programs exists, which would be a mistake if the needs were checked.
    let reading = names(&["/nowhere/torc.cfg", "here.cfg", "/nowhere/more/b.cfg"]);
    for (file, itself) in [
        ("b.cfg", "/nowhere/more/b.cfg"),
        ("/nowhere/torc.cfg", "/nowhere/torc.cfg"),
        // A path in the working directory.
        ("here.cfg", "here.cfg"),
    ] {
        assert_eq!(open(file, &reading), Ok(Opened::Itself(itself.to_owned())));
    }
    let told = open("c.cfg", &reading).unwrap_err();
    assert!(told.starts_with("cannot read c.cfg: No such file"), "{told}");
}
