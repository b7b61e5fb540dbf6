//! The options of a command door: [`CommandSpec`] becomes [`Options`], and each [`EntrySpec`] a [`Command`].
//!
//! A command is lowered separately, because it has keys of its own and its mistakes are reported there; the door is
//! lowered afterwards with the resulting commands.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use super::argument::{argument, ends_a_message};
use super::exec::{
    DEFAULT_CLIENT_TIMEOUT, DEFAULT_KILL_TIMEOUT, DEFAULT_LINGER, DEFAULT_MAX_BUFFER, DEFAULT_STOP_TIMEOUT, LINGER,
    MAX_BUFFER,
};
use super::listen::{MACHINE, limit_kind, listening};
use super::pool::TIMEOUT;
use super::process::process;
use super::{KEY, KeyRef, LONGEST, Lowered, Mistake, Mistakes};
use crate::config::bytes::bytes;
use crate::config::quote::Quoted;
use crate::config::spec::command::{CommandSpec, EntrySpec};
use crate::config::spec::yes_no::YesNo;
use crate::config::units::{Size, Time};
use crate::doors::command::options::{Argument, Command, Options, Rule, Timing};
use crate::process::spec::ProcessSpec;

/// Linux delays an acknowledgement by up to 40 ms. A client whose second small write waits for the acknowledgement of
/// the first (Nagle; RFC 1122 §4.2.3.4) sends the end of its line that much later, plus a round trip. 100 ms is longer
/// than both, and not noticed by a person.
const DEFAULT_QUIET_TIME: Duration = Duration::from_millis(100);
const DEFAULT_MAX_MESSAGE: u64 = 4 << 10;
/// The most careful value: the operator knows which programs may run twice at once.
const DEFAULT_THREADS: usize = 1;
const DEFAULT_MAX_WAIT: Duration = Duration::from_secs(10);

/// A shorter time could fall between two packets of one write; with a longer one the clients would wait in vain.
const QUIET_TIME: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(5);
/// Linux accepts arguments of up to 128 KiB, including their NUL (`MAX_ARG_STRLEN`, execve(2)).
const MAX_MESSAGE: RangeInclusive<u64> = 16..=(128 << 10) - 1;
const THREADS: RangeInclusive<usize> = 1..=100_000;
const ARGUMENTS: RangeInclusive<usize> = 0..=1000;
const QUEUE: RangeInclusive<usize> = 0..=1_000_000;
const MAX_WAIT: RangeInclusive<Duration> = Duration::from_millis(1)..=LONGEST;

/// The name that lists the commands.
const LIST: &str = "list";

/// One command, as written.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'s> {
    /// The name that a client sends.
    pub name: &'s str,
    /// The syntax of `cmd`.
    pub program: Program,
    /// The settings of the command.
    pub spec: &'s EntrySpec,
    /// True if the spec holds all settings that were written. If not, the missing ones were reported as mistakes
    /// already, and must not cause a second one.
    pub is_whole: bool,
}

/// The syntax of the text of `cmd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// A program and its arguments, with shell quoting.
    Words,
    /// The name or path of a program and nothing else, as for torcd.
    Path,
}

/// Lowers one command door with its commands.
///
/// # Errors
/// All mistakes in the settings of the door itself.
pub fn command(name: &str, spec: &CommandSpec, commands: Vec<Command>) -> Result<Lowered<Options>, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let listening = listening(&mut mistakes, Vec::new(), &spec.listen, &MACHINE);
    if spec.listen.listen.is_empty() && !spec.handed_over {
        let text = "there is no address to listen on";
        mistakes.add(KeyRef::key("listen"), text, "write for example 127.0.0.1:3699");
    }
    let mut timeout = |key, given, default| mistakes.time(key, given, &TIMEOUT).unwrap_or(default);
    let kill_timeout = timeout("kill-timeout", spec.kill_timeout, DEFAULT_KILL_TIMEOUT);
    let stop_timeout = timeout("stop-timeout", spec.stop_timeout, DEFAULT_STOP_TIMEOUT);
    let timing = timing(&mut mistakes, spec);
    let bytes = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    let max_buffer = mistakes.size("max-buffer", spec.max_buffer, &MAX_BUFFER);
    let (front, listen) = listening.into_front(name, limit_kind(&spec.listen.access), stop_timeout);
    let options = Options {
        front,
        takes_handed: spec.handed_over,
        timing,
        kill_timeout,
        max_message: max_message(&mut mistakes, spec.max_message, &commands),
        max_buffer: bytes(max_buffer.unwrap_or(DEFAULT_MAX_BUFFER)),
        list: lists(&mut mistakes, spec.list, &commands),
        log_arguments: spec.log_args == Some(YesNo::Yes),
        debug: spec.debug,
        commands,
    };
    mistakes.into_result(Lowered { options, listen })
}

fn timing(mistakes: &mut Mistakes, spec: &CommandSpec) -> Timing {
    let mut timeout = |key, given| mistakes.time(key, given, &TIMEOUT).unwrap_or(DEFAULT_CLIENT_TIMEOUT);
    let read_timeout = timeout("read-timeout", spec.read_timeout);
    let write_timeout = timeout("write-timeout", spec.write_timeout);
    let quiet = mistakes.time("quiet-time", spec.quiet_time, &QUIET_TIME);
    if let Some(quiet) = quiet.filter(|quiet| *quiet >= read_timeout) {
        let (quiet, read) = (Time(quiet), Time(read_timeout));
        let text = format!("{quiet} never pass within the {KEY}read-timeout, which is {read}");
        mistakes.add(
            KeyRef::key("quiet-time"),
            text,
            format!("write a shorter time, or a longer {KEY}read-timeout"),
        );
    }
    Timing {
        read_timeout,
        write_timeout,
        linger: mistakes.time("linger", spec.linger, &LINGER).unwrap_or(DEFAULT_LINGER),
        // An operator who shortens the read time-out need not think of the quiet time.
        quiet: quiet.unwrap_or_else(|| DEFAULT_QUIET_TIME.min(read_timeout / 2)),
    }
}

/// Returns the longest message. Every name of a command has to fit.
fn max_message(mistakes: &mut Mistakes, given: Option<Size>, commands: &[Command]) -> usize {
    let longest = mistakes.size("max-message", given, &MAX_MESSAGE);
    let longest = usize::try_from(longest.unwrap_or(DEFAULT_MAX_MESSAGE)).unwrap_or(usize::MAX);
    if let Some(command) = commands.iter().find(|command| command.name.len() > longest) {
        let (name, length) = (String::from_utf8_lossy(&command.name), command.name.len());
        let name = Quoted(&name);
        let text = format!("nobody can ask for {name}, which is longer");
        mistakes.add(KeyRef::key("max-message"), text, format!("write at least {length}"));
    }
    longest
}

/// Returns true if the door lists its commands. By default it does not if a command has the name of the list, because a
/// file of torcd may have such a command, and has to work as it is.
fn lists(mistakes: &mut Mistakes, given: Option<YesNo>, commands: &[Command]) -> bool {
    let is_taken = commands.iter().any(|command| command.name == LIST.as_bytes());
    if is_taken && given == Some(YesNo::Yes) {
        let text = format!("there is a command called {}", Quoted(LIST));
        mistakes.add(KeyRef::key("list"), text, "write no, or give the command another name");
    }
    given.map_or(!is_taken, |given| given == YesNo::Yes)
}

/// Returns the program of a command, even if the command has other mistakes; `None` if the program itself has one.
#[must_use]
pub fn program_of_entry(entry: Entry<'_>) -> Option<ProcessSpec> {
    let mut mistakes = Mistakes::default();
    let process = process(&mut mistakes, "cmd", &command_line(entry), &entry.spec.process);
    process.filter(|_| mistakes.0.is_empty() && entry.spec.cmd.is_some())
}

/// Returns the words of a command; none if `cmd` is missing.
fn command_line(entry: Entry<'_>) -> String {
    match (&entry.spec.cmd, entry.program) {
        (Some(cmd), Program::Words) => cmd.clone(),
        (Some(cmd), Program::Path) => shell_words::quote(cmd).into_owned(),
        (None, _) => String::new(),
    }
}

/// Lowers one command.
///
/// # Errors
/// All mistakes in its settings. Those of its name are found by [`wrong_name`].
pub fn entry(entry: Entry<'_>) -> Result<Command, Vec<Mistake>> {
    let mut mistakes = Mistakes::default();
    let spec = entry.spec;
    let words = command_line(entry);
    let process = match &spec.cmd {
        Some(_) => process(&mut mistakes, "cmd", &words, &spec.process),
        None => {
            if entry.is_whole {
                let remedy = "write for example cmd = \"/usr/bin/uptime\"";
                mistakes.add(KeyRef::key("cmd"), "it is not said which program to run", remedy);
            }
            // The other settings of the command are checked as well.
            process(&mut mistakes, "cmd", "true", &spec.process)
        }
    };
    let threads = mistakes.count("threads", spec.threads, THREADS);
    let arguments = arguments(&mut mistakes, &entry);
    let queue = mistakes.count("queue", spec.queue, QUEUE).unwrap_or(0);
    let max_wait = mistakes.time("max-wait", spec.max_wait, &MAX_WAIT);
    if max_wait.is_some() && queue == 0 && entry.is_whole {
        let text = "without a queue nobody waits, so this decides nothing";
        mistakes.add(
            KeyRef::key("max-wait"),
            text,
            "write queue = 10 as well, or leave it out",
        );
    }
    let timeout = mistakes.limit("timeout", spec.timeout, None);
    let process = mistakes.into_result(process)?;
    // A command without a program has caused a mistake already.
    let mut process = process.ok_or_else(Vec::new)?;
    process.command.argv0 = Some(OsString::from_vec(bytes(entry.name)));
    Ok(Command {
        name: bytes(entry.name),
        process,
        rule: Rule {
            threads: threads.unwrap_or(DEFAULT_THREADS),
            arguments,
            queue,
            max_wait: max_wait.unwrap_or(DEFAULT_MAX_WAIT),
            join: spec.join,
            timeout,
        },
    })
}

fn arguments(mistakes: &mut Mistakes, entry: &Entry<'_>) -> Vec<Argument> {
    let written = &entry.spec.args;
    let arguments: Vec<_> = written
        .iter()
        .enumerate()
        .filter_map(|(index, spec)| argument(mistakes, KeyRef::element("args", index), spec))
        .collect();
    let count = mistakes.count("argc", entry.spec.argc, ARGUMENTS);
    match count {
        Some(count) if written.is_empty() => vec![Argument::Any; count],
        Some(count) if count != written.len() && entry.is_whole => {
            let text = format!("{count} arguments are announced, and args tells of {}", written.len());
            mistakes.add(
                KeyRef::key("argc"),
                text,
                "leave it out, or add to args what is missing",
            );
            arguments
        }
        _ => arguments,
    }
}

/// Returns the mistake in the name of a command, if any, with its remedy.
#[must_use]
pub fn wrong_name(name: &str) -> Option<String> {
    if name.is_empty() {
        return Some("a command needs a name; write for example \"uptime\"".to_owned());
    }
    let wrong = if ends_a_message(name) {
        "a CR, LF or NUL ends what a client sends"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else {
        return None;
    };
    Some(format!(
        "{} cannot be the name of a command: {wrong}; leave it out",
        Quoted(name)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::units::Whole;
    use crate::doors::front::options::LimitKind;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn spec() -> CommandSpec {
        let mut spec = CommandSpec::default();
        spec.listen.listen = vec!["unix:/x".to_owned()];
        spec
    }

    fn runs(cmd: &str) -> EntrySpec {
        EntrySpec {
            cmd: Some(cmd.to_owned()),
            ..EntrySpec::default()
        }
    }

    fn texts(mistakes: &[Mistake]) -> Vec<String> {
        mistakes.iter().map(ToString::to_string).collect()
    }

    fn lower_entry(name: &str, program: Program, spec: &EntrySpec) -> Result<Command, Vec<String>> {
        let written = Entry {
            name,
            program,
            spec,
            is_whole: true,
        };
        entry(written).map_err(|all| texts(&all))
    }

    fn echo(name: &str) -> Command {
        lower_entry(name, Program::Words, &runs("echo")).unwrap()
    }

    fn lower(spec: &CommandSpec, commands: Vec<Command>) -> Result<Options, Vec<String>> {
        command("main", spec, commands)
            .map(|lowered| lowered.options)
            .map_err(|all| texts(&all))
    }

    #[test]
    fn a_door_has_its_defaults() {
        let options = lower(&spec(), vec![echo("a")]).unwrap();
        assert_eq!((options.front.name.as_str(), options.front.listen.len()), ("main", 1));
        assert_eq!(options.front.limit_kind, LimitKind::Flexible);
        let (second, half_a_minute) = (Duration::from_secs(1), Duration::from_secs(30));
        let timing = Timing {
            read_timeout: half_a_minute,
            write_timeout: half_a_minute,
            linger: second,
            quiet: Duration::from_millis(100),
        };
        assert_eq!(options.timing, timing);
        assert_eq!(
            (options.kill_timeout, options.front.stop_timeout),
            (10 * second, half_a_minute)
        );
        assert_eq!((options.max_message, options.max_buffer), (4096, 256 << 10));
        assert!(options.list && !options.log_arguments && !options.debug);
    }

    #[test]
    fn a_command_has_its_defaults() {
        let command = lower_entry("up", Program::Words, &runs("/usr/bin/uptime -p 'a b'")).unwrap();
        assert_eq!(command.name, b"up");
        let words = ["/usr/bin/uptime", "-p", "a b"];
        assert_eq!(command.process.command.words(), words);
        assert!(command.process.command.argv().eq(["up", "-p", "a b"]));
        let rule = &command.rule;
        assert_eq!((rule.threads, rule.queue, rule.timeout), (1, 0, None));
        assert!(rule.arguments.is_empty() && !rule.join);
        assert_eq!(rule.max_wait, Duration::from_secs(10));
    }

    #[test]
    fn a_program_of_torcd_is_one_word() {
        for path in ["/opt/my tools/it's", "/x -y", "$HOME/`a`", "\\"] {
            let command = lower_entry("c", Program::Path, &runs(path)).unwrap();
            assert_eq!(command.process.command.words(), [path]);
        }
        let told = lower_entry("c", Program::Path, &runs("")).unwrap_err();
        assert!(told[0].starts_with("cmd: the command names no program; "), "{told:?}");
    }

    #[test]
    fn argc_and_args_must_agree() {
        let with = |argc: Option<i64>, args: &[&str]| {
            let spec = EntrySpec {
                argc: argc.map(Whole),
                args: args.iter().map(|text| (*text).into()).collect(),
                ..runs("x")
            };
            lower_entry("c", Program::Words, &spec).map(|command| command.rule.arguments)
        };
        assert_eq!(with(None, &[]), Ok(vec![]));
        assert_eq!(with(Some(2), &[]), Ok(vec![Argument::Any, Argument::Any]));
        assert_eq!(with(Some(1), &["int 1..5"]), Ok(vec![Argument::Integer(1..=5)]));
        assert_eq!(
            with(None, &["any", "int 1..5"]),
            Ok(vec![Argument::Any, Argument::Integer(1..=5)])
        );
        let told = with(Some(1), &["any", "any"]).unwrap_err();
        assert_eq!(
            told,
            ["argc: 1 arguments are announced, and args tells of 2; leave it out, or add to args what is missing"]
        );
        let told = with(Some(1001), &["nothing", "int"]).unwrap_err();
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn unreadable_settings_cause_no_second_mistake() {
        let spec = EntrySpec {
            argc: Some(Whole(2)),
            args: vec!["any".into()],
            max_wait: Some(Time(Duration::from_secs(1))),
            ..EntrySpec::default()
        };
        let written = |is_whole| Entry {
            name: "c",
            program: Program::Words,
            spec: &spec,
            is_whole,
        };
        assert_eq!(entry(written(true)).unwrap_err().len(), 3);
        assert!(entry(written(false)).is_ok());
    }

    #[test]
    fn each_mistake_of_a_command_is_reported() {
        let spec = EntrySpec {
            threads: Some(Whole(0)),
            argc: Some(Whole(-1)),
            args: vec!["x".into(), "^(".into()],
            max_wait: Some(Time(Duration::ZERO)),
            timeout: Some(Time(NANOSECOND)),
            ..EntrySpec::default()
        };
        let told = lower_entry("c", Program::Words, &spec).unwrap_err();
        let keys: Vec<_> = told.iter().map(|line| line.split(':').next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "cmd", "threads", "args", "args", "argc", "argc", "max-wait", "max-wait", "timeout"
            ]
        );
        assert!(told.iter().all(|line| line.contains("; ")), "{told:?}");
        assert_eq!(
            told[0],
            "cmd: it is not said which program to run; write for example cmd = \"/usr/bin/uptime\""
        );
        let queue = EntrySpec {
            queue: Some(Whole(1)),
            max_wait: spec.max_wait,
            ..runs("x")
        };
        assert_eq!(
            lower_entry("c", Program::Words, &queue),
            Err(vec![
                "max-wait: 0s is out of range; write a value from 1ms to 366d".to_owned()
            ])
        );
    }

    #[test]
    fn a_command_called_list_replaces_the_listing() {
        let lists = |given, name: &str| {
            let spec = CommandSpec { list: given, ..spec() };
            lower(&spec, vec![echo(name)]).map(|options| options.list)
        };
        assert_eq!(lists(None, "a"), Ok(true));
        assert_eq!(lists(None, "list"), Ok(false));
        assert_eq!(lists(Some(YesNo::No), "a"), Ok(false));
        assert_eq!(lists(Some(YesNo::No), "list"), Ok(false));
        let told = lists(Some(YesNo::Yes), "list").unwrap_err();
        assert_eq!(
            told,
            ["list: there is a command called `list`; write no, or give the command another name"]
        );
    }

    #[test]
    fn a_door_needs_an_address_and_times_that_go_together() {
        let told = lower(&CommandSpec::default(), vec![]).unwrap_err();
        assert_eq!(
            told,
            ["listen: there is no address to listen on; write for example 127.0.0.1:3699"]
        );
        let times = |quiet: Option<u64>, read| {
            let spec = CommandSpec {
                quiet_time: quiet.map(|time| Time(Duration::from_millis(time))),
                read_timeout: Some(Time(Duration::from_millis(read))),
                ..spec()
            };
            lower(&spec, vec![]).map(|options| options.timing.quiet.as_millis())
        };
        assert_eq!(times(Some(4999), 5000), Ok(4999));
        let told = times(Some(5000), 5000).unwrap_err();
        assert_eq!(
            told,
            [
                "quiet-time: 5s never pass within the read-timeout, which is 5s; write a shorter time, or a longer \
              read-timeout"
            ]
        );
        assert_eq!((times(None, 200), times(None, 100)), (Ok(100), Ok(50)));
    }

    #[test]
    fn every_name_fits_into_a_message() {
        let short = CommandSpec {
            max_message: Some(Size(16)),
            ..spec()
        };
        assert!(lower(&short, vec![echo(&"x".repeat(16))]).is_ok());
        let told = lower(&short, vec![echo(&"x".repeat(17))]).unwrap_err();
        let name = "x".repeat(17);
        assert_eq!(
            told,
            [format!(
                "max-message: nobody can ask for `{name}`, which is longer; write at least 17"
            )]
        );
    }

    #[test]
    fn a_name_is_what_a_client_can_send() {
        for good in ["echo", "a b", "ü", "x.y/z", "\"", "list"] {
            assert_eq!(wrong_name(good), None, "{good}");
        }
        for bad in ["", "a\r", "a\nb", "\0", "\t", "\u{1b}[m", "\u{85}"] {
            let told = wrong_name(bad).unwrap();
            assert!(told.contains("; ") && !told.contains(char::is_control), "{told}");
        }
    }

    #[test]
    fn the_ends_of_the_ranges_are_accepted() {
        let mut door = spec();
        for (good, bad, key) in [
            (*QUIET_TIME.start(), *QUIET_TIME.start() - NANOSECOND, "quiet-time"),
            (*QUIET_TIME.end(), *QUIET_TIME.end() + NANOSECOND, "quiet-time"),
        ] {
            door.quiet_time = Some(Time(good));
            assert!(lower(&door, vec![]).is_ok());
            door.quiet_time = Some(Time(bad));
            assert!(lower(&door, vec![]).unwrap_err()[0].starts_with(key));
        }
        door.quiet_time = None;
        for (good, bad) in [(16, 15), ((128 << 10) - 1, 128 << 10)] {
            door.max_message = Some(Size(good));
            assert!(lower(&door, vec![]).is_ok());
            door.max_message = Some(Size(bad));
            assert!(lower(&door, vec![]).unwrap_err()[0].starts_with("max-message"));
        }
        let whole = |set: fn(&mut EntrySpec, Whole), ends: [(i64, i64); 2]| {
            for (good, bad) in ends {
                let mut spec = runs("x");
                set(&mut spec, Whole(good));
                assert!(lower_entry("c", Program::Words, &spec).is_ok(), "{good}");
                set(&mut spec, Whole(bad));
                assert_eq!(lower_entry("c", Program::Words, &spec).unwrap_err().len(), 1, "{bad}");
            }
        };
        whole(|spec, n| spec.threads = Some(n), [(1, 0), (100_000, 100_001)]);
        whole(|spec, n| spec.argc = Some(n), [(0, -1), (1000, 1001)]);
        whole(|spec, n| spec.queue = Some(n), [(0, -1), (1_000_000, 1_000_001)]);
    }
}
