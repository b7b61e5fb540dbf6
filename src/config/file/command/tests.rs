//! A table `[command.NAME]` with the tables of its commands.

use toml::de::DeTable as Table;

use super::*;
use crate::config::file::Scope;
use crate::doors::command::options::Argument;

/// Returns the options from a text with one such table, and the mistakes, a line each, without the name of the file.
fn read_text(text: &str) -> Result<Options, Vec<String>> {
    let root = Table::parse(text).unwrap();
    let doors = root.get_ref().get("command").unwrap().get_ref().as_table().unwrap();
    let (name, door) = doors.iter().next().unwrap();
    let mut found = Collected::new(Report::new("f", text), Scope::Settings);
    let section = Section::new(name, door.get_ref().as_table().unwrap());
    let options = read_table(&section, &mut found);
    let lines: Vec<_> = found.report.into_lines();
    if lines.is_empty() {
        return Ok(options.unwrap());
    }
    Err(lines
        .iter()
        .map(|line| line.strip_prefix("f:").unwrap().to_owned())
        .collect())
}

#[test]
fn a_door_has_its_commands_in_their_order() {
    let options = read_text(
        "[command.main]\nlisten = '127.0.0.1:1'\nquiet-time = '20ms'\nlist = 'no'\n\
         [command.main.commands.zebra]\ncmd = \"stripe -n 'a b'\"\nthreads = 3\nargs = ['any', ['on', 'off'], 'int 1..5']\nargc = 3\n\
         [command.main.commands.'a b']\ncmd = 'true'\njoin = true\nuser = '0'\n",
    )
    .unwrap();
    assert_eq!((options.front.name.as_str(), options.list), ("main", false));
    let [zebra, other] = options.commands.try_into().unwrap();
    assert_eq!((&zebra.name[..], &other.name[..]), (&b"zebra"[..], &b"a b"[..]));
    assert_eq!(zebra.process.command.words(), ["stripe", "-n", "a b"]);
    assert!(zebra.process.command.argv().eq(["zebra", "-n", "a b"]));
    let words = Argument::OneOf(["on", "off"].map(str::to_owned).to_vec());
    assert_eq!(zebra.rule.arguments, [Argument::Any, words, Argument::Integer(1..=5)]);
    assert!(other.rule.join && other.process.context.user == Some(0));
}

#[test]
fn every_mistake_is_reported_at_its_position() {
    let told = read_text(
        "[command.main]\nquiet_time = 1\nport = 5\n\
         [command.main.commands.b]\nmax_wait = 1\nthreads = 0\n\
         [command.main.commands.a]\ncmd = \"x '\"\nargs = ['on', 'off']\nargc = 3\nport = 1\n\
         [command.main.commands]\nc = 5\n'' = { cmd = 'x', name = 'y' }\n",
    );
    let expected = [
        "1:10: listen: there is no address to listen on; write for example 127.0.0.1:3699",
        "2:1: there is no key `quiet_time`; did you mean `quiet-time`?",
        "3:1: there is no key `port`; where clients connect is said by listen, for example by 127.0.0.1:9991 or \
             unix:/run/iotcpd.sock behind it",
        "5:1: there is no key `max_wait`; did you mean `max-wait`?",
        "6:11: threads: 0 is out of range; write a value from 1 to 100000",
        "8:7: cmd: the quotes of `x '` are not closed; close each quote, or put a backslash before one that is meant literally",
        "9:9: args: `on` does not say what an argument may be; write any, int 1..100, an expression that begins with ^, or a list \
         of words",
        "9:15: args: `off` does not say what an argument may be; write any, int 1..100, an expression that begins with ^, or a list \
         of words",
        "11:1: there is no key `port`; see iotcpd.toml(5) for those there are",
        "13:1: `c` is not a command; write a table with a name, such as [command.main.commands.uptime]",
        "14:1: a command needs a name; write for example \"uptime\"",
        "14:19: there is no key `name`; see iotcpd.toml(5) for those there are",
    ];
    assert_eq!(told.unwrap_err(), expected);
}

#[test]
fn a_door_without_commands_is_refused() {
    let listen = "listen = 'unix:/x'";
    let none = read_text(&format!("[command.a]\n{listen}\n")).unwrap_err();
    assert_eq!(
        none,
        ["1:10: no command is described; write a table such as [command.a.commands.uptime]"]
    );
    for (line, place) in [
        ("commands = 5", "3:12"),
        ("[command.a.commands]", "3:1"),
        ("commands = {}", "3:12"),
    ] {
        let told = read_text(&format!("[command.a]\n{listen}\n{line}\n")).unwrap_err();
        let text = "commands: no command is described; write a table with a name, such as [command.a.commands.uptime]";
        assert_eq!(told, [format!("{place}: {text}")]);
    }
}
