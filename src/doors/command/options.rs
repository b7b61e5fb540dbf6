//! The options of a command door: every number is decided, every default applied, nothing is left to look up.
//!
//! The restrictions on the arguments of clients are among them: [`Argument`] judges one argument, whichever client sent
//! it. An argument that passes fits into the argument list of a program, and a restriction always applies to the whole
//! of an argument.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use crate::doors::front::options::{DescriptorNeeds, FrontOptions};
use crate::doors::pattern::Pattern;
use crate::process::spec::ProcessSpec;
use crate::process::stderr_log::printable;

/// One command door, ready to be built.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// The options that every door has.
    pub front: Arc<FrontOptions>,
    /// True if connections that other doors of the process hand over are taken.
    pub takes_handed: bool,
    /// The time-outs of a connection.
    pub timing: Timing,
    /// The time from TERM to KILL.
    pub kill_timeout: Duration,
    /// The longest name or argument, in bytes, without its terminator.
    pub max_message: usize,
    /// The most bytes of a connection that are held in memory, in each direction.
    pub max_buffer: usize,
    /// True if the name `list` is answered with the names of the commands. Then no command has that name.
    pub list: bool,
    /// True if log lines show arguments.
    pub log_arguments: bool,
    /// True if each step of a connection is logged.
    pub debug: bool,
    /// The commands that clients may ask for, each name once. Never empty.
    pub commands: Vec<Command>,
}

/// The time-outs of a connection. The time that its program may take is an option of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// The most time from a client's connecting until its last argument is complete.
    pub read_timeout: Duration,
    /// The most time that a client may leave output unread once its program has ended.
    pub write_timeout: Duration,
    /// The time for which output is awaited after a program's exit, while a process that it has started holds it open.
    pub linger: Duration,
    /// The time without a byte after which a message without a terminator is complete.
    pub quiet: Duration,
}

/// One command that clients may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The name by which clients ask for it, which is also the program's argv\[0\]. Not empty, and without CR, LF and
    /// NUL.
    pub name: Vec<u8>,
    /// The program, and the arguments that stand before the client's.
    pub process: ProcessSpec,
    /// The part that does not depend on the program.
    pub rule: Rule,
}

/// The options of a command that the scheduler decides by.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// The most runs at the same time, at least 1.
    pub threads: usize,
    /// The restrictions on the arguments that the client sends after the name, one for each, in their order.
    pub arguments: Vec<Argument>,
    /// The most requests that wait when all [`threads`](Self::threads) are taken; a further one is answered `busy`. May
    /// be 0.
    pub queue: usize,
    /// The most time that a request waits in the queue.
    pub max_wait: Duration,
    /// True if a client that asks for a run with the same arguments as one under way may share the output of that one.
    pub join: bool,
    /// The most time that one run may take. `None`: it is not limited.
    pub timeout: Option<Duration>,
}

/// The restriction on one argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// Any bytes that can be an argument of a program.
    Any,
    /// Bytes that the expression matches from the first to the last, anchored or not: an expression without `$` lets no
    /// bytes through that follow the match.
    Matching(Pattern),
    /// A whole number in this range, in decimal digits as they are usually written: no sign but `-`, no leading zero,
    /// so that no program reads another number (an octal one) than was checked here.
    Integer(RangeInclusive<i64>),
    /// One of these words.
    OneOf(Vec<String>),
}

/// The most names of commands in a log line.
const SHOWN: usize = 8;

impl Options {
    /// Returns the number and the names of the commands, for a log line.
    pub fn summary(&self) -> String {
        let names = self.commands.iter().take(SHOWN);
        let mut names: Vec<String> = names.map(|command| printable(&command.name, "")).collect();
        if let Some(more) = self.commands.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            names.push(format!("{more} more"));
        }
        let noun = if self.commands.len() == 1 {
            "command"
        } else {
            "commands"
        };
        format!("{} {noun} ({})", self.commands.len(), names.join(", "))
    }

    /// Returns the descriptors that may be open at the same time: for each connection its socket; beside them, for each
    /// program its pipes, three at the most, and a pidfd, the other ends of the pipes of the program that is being
    /// started, and a reserve.
    ///
    /// Programs are bounded by the numbers that the operator has set for each command, not by the connections: a
    /// program whose client has gone is still there until it has ended.
    pub fn descriptor_needs(&self) -> DescriptorNeeds {
        let programs = self.commands.iter().fold(0_usize, |sum, command| {
            sum.saturating_add(command.rule.threads.saturating_mul(4))
        });
        DescriptorNeeds {
            beside: programs.saturating_add(8),
            per_connection: 1,
        }
    }
}

impl Rule {
    /// Returns true if these are the arguments of a complete and valid request.
    pub(super) fn fits(&self, arguments: &[Vec<u8>]) -> bool {
        arguments.len() == self.arguments.len() && self.may_begin_with(arguments)
    }

    /// Returns true if each of these arguments is valid in its place.
    pub(super) fn may_begin_with(&self, arguments: &[Vec<u8>]) -> bool {
        let mut pairs = self.arguments.iter().zip(arguments);
        pairs.all(|(rule, argument)| rule.check(argument).is_ok())
    }
}

impl Argument {
    /// Checks the bytes of an argument as a client has sent it.
    ///
    /// # Errors
    /// The restriction that they break, in words for the client: `has to be a whole number from 1 to 100`.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        // No argument of a program can hold a NUL (execve(2)), whatever the restriction says.
        if bytes.contains(&0) {
            return Err("has to be without NUL bytes".to_owned());
        }
        let fits = match self {
            Argument::Any => true,
            Argument::Matching(pattern) => pattern.is_all_of(bytes),
            Argument::Integer(range) => whole_number(bytes).is_some_and(|number| range.contains(&number)),
            Argument::OneOf(words) => words.iter().any(|word| word.as_bytes() == bytes),
        };
        if fits { Ok(()) } else { Err(format!("has to be {self}")) }
    }
}

/// Writes the words that follow "has to be" in an answer to a client.
impl fmt::Display for Argument {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Argument::Any => out.write_str("anything"),
            Argument::Matching(pattern) => write!(out, "matched as a whole by {}", pattern.as_str()),
            Argument::Integer(range) => write!(out, "a whole number from {} to {}", range.start(), range.end()),
            Argument::OneOf(words) => write!(out, "one of: {}", words.join(", ")),
        }
    }
}

/// Returns the number that these bytes stand for, if it would be printed as just these bytes.
fn whole_number(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use proptest::prelude::*;

    use super::*;
    use crate::doors::front::options::{Descriptors, LimitKind};

    fn matching(text: &str) -> Argument {
        Argument::Matching(Pattern::new(text).unwrap())
    }

    fn words() -> Argument {
        Argument::OneOf(vec!["start".to_owned(), "stop".to_owned()])
    }

    fn refusal(argument: &Argument, bytes: &[u8]) -> String {
        argument.check(bytes).unwrap_err()
    }

    #[test]
    fn a_refusal_says_what_it_has_to_be() {
        let percent = Argument::Integer(1..=100);
        assert_eq!(refusal(&percent, b"101"), "has to be a whole number from 1 to 100");
        assert_eq!(refusal(&words(), b"status"), "has to be one of: start, stop");
        assert_eq!(
            refusal(&matching("^[a-z]+$"), b"A"),
            "has to be matched as a whole by ^[a-z]+$"
        );
        assert_eq!(refusal(&Argument::Any, b"a\0b"), "has to be without NUL bytes");
    }

    #[test]
    fn a_number_is_written_in_one_way() {
        let range = Argument::Integer(-5..=100);
        for good in ["-5", "0", "7", "100"] {
            assert_eq!(range.check(good.as_bytes()), Ok(()), "{good}");
        }
        let bad = [
            "-6",
            "101",
            "",
            "-",
            "-0",
            "+7",
            "07",
            " 7",
            "7 ",
            "7\n",
            "0x7",
            "7.0",
            "1e1",
            "9999999999999999999999",
            "\u{664}",
        ];
        for bad in bad {
            assert!(range.check(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(range.check(b"7\xff").is_err());
        let all = Argument::Integer(i64::MIN..=i64::MAX);
        assert_eq!(all.check(i64::MIN.to_string().as_bytes()), Ok(()));
    }

    #[test]
    fn an_expression_matches_the_whole_argument() {
        for pattern in ["[a-z]+", "^[a-z]+", "[a-z]+$", "^[a-z]+$", "a|ab|abc", "(?m)^[a-z]+$"] {
            let argument = matching(pattern);
            assert_eq!(argument.check(b"abc"), Ok(()), "{pattern}");
            for bad in [&b"abc; rm"[..], b"1abc", b"abc\n", b"\nabc", b"abc\n-x", b"", b"--abc"] {
                assert!(argument.check(bad).is_err(), "{pattern} {bad:?}");
            }
        }
        assert_eq!(matching("^.*$").check(b""), Ok(()));
        assert_eq!(matching("^.*$").check(b"\xff"), Ok(()));
    }

    #[test]
    fn no_restriction_lets_a_nul_through() {
        for argument in [Argument::Any, matching("(?s).*"), matching(r"a\x00")] {
            assert!(argument.check(b"a\0").is_err(), "{argument:?}");
        }
    }

    fn command(threads: usize) -> Command {
        Command {
            name: b"echo".to_vec(),
            process: ProcessSpec::new(vec![OsString::from("echo")]).unwrap(),
            rule: Rule {
                threads,
                arguments: Vec::new(),
                queue: 0,
                max_wait: Duration::from_secs(1),
                join: false,
                timeout: None,
            },
        }
    }

    #[test]
    fn descriptors_are_those_of_the_connections_and_of_all_commands() {
        let second = Duration::from_secs(1);
        let mut options = Options {
            takes_handed: false,
            front: Arc::new(FrontOptions::sample(LimitKind::Fixed)),
            timing: Timing {
                read_timeout: second,
                write_timeout: second,
                linger: second,
                quiet: second,
            },
            kill_timeout: second,
            max_message: 1,
            max_buffer: 1,
            list: true,
            log_arguments: true,
            debug: false,
            commands: vec![command(3), command(2)],
        };
        let told = |options: &Options| {
            let Descriptors { fixed, flexible } = options.front.descriptors(options.descriptor_needs());
            (fixed, flexible)
        };
        assert_eq!(told(&options), (8 + 5 * 4 + 10, 0));
        Arc::make_mut(&mut options.front).limit_kind = LimitKind::Flexible;
        assert_eq!(told(&options), (8 + 5 * 4, 10));
        options.commands.push(command(usize::MAX));
        assert_eq!(told(&options).0, usize::MAX);
    }

    proptest! {
        #[test]
        fn an_argument_that_passes_fits_into_an_argument_list(bytes in any::<Vec<u8>>()) {
            for argument in [Argument::Any, matching("(?s).*"), Argument::Integer(0..=9), words()] {
                if argument.check(&bytes).is_ok() {
                    prop_assert!(!bytes.contains(&0));
                }
            }
        }

        #[test]
        fn a_number_passes_exactly_in_its_range(number in any::<i64>(), one in any::<i64>(), other in any::<i64>()) {
            let range = one.min(other)..=one.max(other);
            let passes = Argument::Integer(range.clone()).check(number.to_string().as_bytes()).is_ok();
            prop_assert_eq!(passes, range.contains(&number));
        }

        #[test]
        fn nothing_stands_before_or_behind_what_is_matched(
            before in "[a-z0-9;\n -]{0,5}", middle in "[a-z]{1,5}", behind in "[a-z0-9;\n -]{0,5}"
        ) {
            let text = format!("{before}{middle}{behind}");
            let all_letters = text.bytes().all(|byte| byte.is_ascii_lowercase());
            prop_assert_eq!(matching("[a-z]+").check(text.as_bytes()).is_ok(), all_letters);
            prop_assert_eq!(matching("^[a-z]+").check(text.as_bytes()).is_ok(), all_letters);
        }

        #[test]
        fn only_the_words_themselves_pass(text in "(start|stop|[a-z ]{0,6})") {
            prop_assert_eq!(words().check(text.as_bytes()).is_ok(), text == "start" || text == "stop");
        }
    }
}
