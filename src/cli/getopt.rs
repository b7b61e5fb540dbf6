//! The command line of a pool, parsed like getopt_long, which iotcpd 1.1 used.
//!
//! Three things differ from clap: a long flag may be abbreviated, words that belong to no flag are ignored, and `--`
//! ends the flags. [`read`] completes the abbreviations, removes the ignored words, and leaves everything else to clap,
//! including the mistakes. clap itself lets the last of several equal flags count.
//!
//! Invariant: an abbreviation that iotcpd 1.1 accepted keeps its meaning, whatever flags are added. Any other
//! abbreviation is accepted if it is the beginning of one flag only.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

use crate::config::suggest::nearest;

/// The long flags of iotcpd 1.1. This list must not be extended.
const OLD_FLAGS: [&str; 9] = [
    "help",
    "version",
    "daemon",
    "ipv4",
    "ipv6",
    "port",
    "num-daemons",
    "busy-timeout",
    "alarm-interval",
];

/// The flags of tcprouter's server, and those of its client.
const OF_TCPROUTER: [&str; 1] = ["config"];
const OF_TRC: [&str; 5] = ["remote", "secret", "local", "local-tls", "backoff"];

/// A command line for clap.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) words: Vec<OsString>,
    /// The words that belong to no flag.
    pub(super) surplus: Vec<OsString>,
}

/// Reads the words of a command line, the first of which is the program's name. The words of commands other than `pool`
/// are left as they are, except some flags of `route` and `tunnel`.
///
/// # Errors
/// The message about an abbreviation that could be one of several flags.
pub(super) fn read(cli: &Command, words: Vec<OsString>) -> Result<Line, String> {
    let mut rest = words.into_iter();
    let mut line = Line {
        words: rest.by_ref().take(1).collect(),
        surplus: Vec::new(),
    };
    let rest = move_global_flags(cli, rest.collect());
    let first = rest.first().and_then(|first| first.to_str());
    match first.and_then(|first| cli.find_subcommand(first)) {
        Some(pool) if pool.get_name() == "pool" => {
            let mut rest = rest.into_iter();
            line.words.extend(rest.next());
            take_flags(pool, rest, &mut line, |_, _| false)?;
        }
        Some(route) if route.get_name() == "route" => {
            line.words
                .extend(rest.into_iter().map(|word| with_two_dashes(word, &OF_TCPROUTER)));
        }
        Some(tunnel) if tunnel.get_name() == "tunnel" => {
            line.words
                .extend(rest.into_iter().map(|word| with_two_dashes(word, &OF_TRC)));
        }
        Some(_) => line.words.extend(rest),
        None => {
            let (alone, names) = (rest.len() == 1, cli.get_subcommands().map(Command::get_name));
            let names: Vec<_> = names.collect();
            let resembles = |word: &str| nearest(word, names.iter().copied()).is_some();
            let is_command =
                |word: &str, is_first: bool| names.contains(&word) || (is_first && (alone || resembles(word)));
            take_flags(cli, rest.into_iter(), &mut line, is_command)?;
        }
    }
    Ok(line)
}

/// Returns a word for clap. These flags may have one dash, as all flags of the language of the original.
fn with_two_dashes(word: OsString, flags: &[&str]) -> OsString {
    let text = word.to_str().and_then(|text| text.strip_prefix('-'));
    let is_flag = |text: &&str| flags.contains(&text.split('=').next().unwrap_or_default());
    match text.filter(is_flag) {
        Some(flag) => format!("--{flag}").into(),
        None => word,
    }
}

/// Moves flags that stand before the name of a command behind it. The flags that every command has may stand there;
/// clap expects them behind the name.
fn move_global_flags(cli: &Command, mut words: Vec<OsString>) -> Vec<OsString> {
    let (mut flags, mut next) = (Vec::new(), 0);
    while let Some(word) = words.get(next).and_then(|word| word.to_str()) {
        if next > 0 && cli.find_subcommand(word).is_some() {
            let rest = words.split_off(next + 1);
            let name = words.pop();
            return name.into_iter().chain(flags).chain(rest).collect();
        }
        let name = word
            .strip_prefix("--")
            .map(|word| word.split('=').next().unwrap_or(word));
        let Some(Ok(Some(arg))) = name.map(|name| find_flag(cli, name)) else {
            break;
        };
        // A flag without a value asks for the help or the version, and is left in its place.
        let (true, true, Ok((flag, wants_value))) = (arg.is_global_set(), takes_value(arg), long(cli, word.into()))
        else {
            break;
        };
        flags.push(flag);
        next += 1;
        if wants_value {
            flags.extend(words.get(next).cloned());
            next += 1;
        }
    }
    words
}

/// Separates flags with their values from words that belong to none. `is_command` returns true for a word without a
/// flag that may have been meant as the name of a command; the second argument tells if it is the first word. Such a
/// word is left to clap.
fn take_flags(
    definition: &Command,
    mut rest: impl Iterator<Item = OsString>,
    line: &mut Line,
    is_command: impl Fn(&str, bool) -> bool,
) -> Result<(), String> {
    let mut is_first = true;
    while let Some(word) = rest.next() {
        let bytes = word.as_encoded_bytes();
        let was_first = std::mem::take(&mut is_first);
        let wants_value = if bytes == b"--" {
            line.surplus.extend(rest);
            return Ok(());
        } else if bytes.starts_with(b"--") {
            let (word, wants_value) = long(definition, word)?;
            line.words.push(word);
            wants_value
        } else if bytes.starts_with(b"-") && bytes.len() > 1 {
            let wants_value = short_wants_value(definition, &word);
            line.words.push(word);
            wants_value
        } else {
            let list = if is_command(&word.to_string_lossy(), was_first) {
                // With no flag before it, it would be a command; clap is to refuse the words before it.
                if line.words.len() == 1 {
                    line.words.append(&mut line.surplus);
                }
                &mut line.words
            } else {
                &mut line.surplus
            };
            list.push(word);
            false
        };
        if wants_value {
            line.words.extend(rest.next());
        }
    }
    Ok(())
}

/// Returns a long flag without abbreviation, and true if the next word is its value.
fn long(definition: &Command, word: OsString) -> Result<(OsString, bool), String> {
    let Some(text) = word.to_str() else {
        return Ok((word, false));
    };
    let written = text.strip_prefix("--").unwrap_or(text);
    let (name, value) = match written.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (written, None),
    };
    let Some(arg) = find_flag(definition, name)? else {
        return Ok((word, false));
    };
    let full = arg.get_long().unwrap_or(name);
    let full = value.map_or_else(|| format!("--{full}"), |value| format!("--{full}={value}"));
    Ok((full.into(), takes_value(arg) && value.is_none()))
}

/// Returns the values that a command line gives to a flag, in order, even if the line as a whole has mistakes.
/// `is_flag` gets each name without its dashes. After `--` there are no flags of this program.
pub(super) fn values_of(words: &[OsString], is_flag: impl Fn(&str) -> bool) -> impl Iterator<Item = &str> {
    let texts = || {
        let texts = words.iter().map(|word| word.to_str().unwrap_or_default());
        texts.take_while(|text| *text != "--")
    };
    let following = texts().skip(1).map(Some).chain([None]);
    texts().zip(following).filter_map(move |(text, next)| {
        let written = text.strip_prefix("--")?;
        let (name, value) = match written.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (written, None),
        };
        if is_flag(name) { value.or(next) } else { None }
    })
}

/// Returns the flag with this name, or with this beginning of its name; `None` if there is none.
pub(super) fn find_flag<'c>(definition: &'c Command, name: &str) -> Result<Option<&'c Arg>, String> {
    let flags = || definition.get_arguments().filter(|arg| arg.get_long().is_some());
    let called = |arg: &&Arg| arg.get_long() == Some(name);
    let begins = |arg: &&Arg| arg.get_long().is_some_and(|long| long.starts_with(name));
    let is_old = |arg: &&Arg| arg.get_long().is_some_and(|long| OLD_FLAGS.contains(&long));
    if let Some(arg) = flags().find(called) {
        return Ok(Some(arg));
    }
    if name.is_empty() {
        return Ok(None);
    }
    let of_old: Vec<&Arg> = flags().filter(begins).filter(is_old).collect();
    let candidates = if of_old.is_empty() {
        flags().filter(begins).collect()
    } else {
        of_old
    };
    match candidates.as_slice() {
        [] => Ok(None),
        [arg] => Ok(Some(arg)),
        several => {
            let names: Vec<_> = several.iter().filter_map(|arg| arg.get_long()).collect();
            Err(format!(
                "--{name} may be one of several flags; write --{}",
                names.join(" or --")
            ))
        }
    }
}

/// Returns true if the value of the last flag in a word such as `-n` or `-vn` is the next word.
fn short_wants_value(definition: &Command, word: &OsStr) -> bool {
    let text = word.to_string_lossy();
    let mut letters = text.chars().skip(1).peekable();
    while let Some(letter) = letters.next() {
        let is_called = |arg: &&Arg| {
            arg.get_short() == Some(letter) || arg.get_all_short_aliases().is_some_and(|all| all.contains(&letter))
        };
        match definition.get_arguments().find(is_called) {
            Some(arg) if takes_value(arg) => return letters.peek().is_none(),
            Some(_) => {}
            // clap refuses it.
            None => return false,
        }
    }
    false
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(line: &str) -> (String, String) {
        let words = line.split(' ').map(|word| OsString::from(word.trim_matches('\'')));
        let mut cli = crate::cli::command();
        cli.build();
        let line = read(&cli, words.collect()).unwrap();
        let join = |words: &[OsString]| words.join(OsStr::new(" ")).into_string().unwrap();
        (join(&line.words), join(&line.surplus))
    }

    #[track_caller]
    fn means(line: &str, words: &str) {
        assert_eq!(sorted(line), (words.to_owned(), String::new()));
    }

    fn mistake(line: &str) -> String {
        let mut cli = crate::cli::command();
        cli.build();
        read(&cli, line.split(' ').map(OsString::from).collect()).unwrap_err()
    }

    /// Every abbreviation that was unique among the flags of 1.1.
    #[test]
    fn an_abbreviation_of_1_1_keeps_its_meaning() {
        for old in OLD_FLAGS {
            for length in 1..=old.len() {
                let begin = &old[..length];
                let alone = OLD_FLAGS.iter().filter(|other| other.starts_with(begin)).count() == 1;
                let line = format!("iotcpd --{begin}");
                if alone {
                    means(&line, &format!("iotcpd --{old}"));
                } else if !OLD_FLAGS.contains(&begin) {
                    let told = mistake(&line);
                    assert_eq!(
                        told,
                        format!("--{begin} may be one of several flags; write --ipv4 or --ipv6")
                    );
                }
            }
        }
        means("iotcpd --num 2 --p=9 pool", "iotcpd --num-daemons 2 --port=9 pool");
        means("iotcpd pool --num 2 --da x", "iotcpd pool --num-daemons 2 --daemon x");
    }

    #[test]
    fn an_abbreviation_of_a_new_flag_must_be_unique() {
        means("iotcpd --queue-s 5", "iotcpd --queue-size 5");
        means("iotcpd --persist -n 2", "iotcpd --persistent -n 2");
        assert_eq!(
            mistake("iotcpd --queue 5"),
            "--queue may be one of several flags; write --queue-size or --queue-timeout"
        );
        means("iotcpd --pipeline 3", "iotcpd --pipeline 3");
        means("iotcpd --no-such-flag", "iotcpd --no-such-flag");
        means("iotcpd ---num=2", "iotcpd ---num=2");
    }

    #[test]
    fn words_without_a_flag_are_removed() {
        let cases = [
            ("iotcpd -n 2 x -p 9 y", "iotcpd -n 2 -p 9", "x y"),
            ("iotcpd x -n2", "iotcpd -n2", "x"),
            ("iotcpd -n 2 -- -p 9", "iotcpd -n 2", "-p 9"),
            ("iotcpd -vn 2 -", "iotcpd -vn 2", "-"),
            ("iotcpd -4 x --persistent y", "iotcpd -4 x --persistent", "y"),
            ("iotcpd pool -n 2 x", "iotcpd pool -n 2", "x"),
            ("iotcpd -i '' -I ::1", "iotcpd -i  -I ::1", ""),
        ];
        for (line, words, surplus) in cases {
            assert_eq!(sorted(line), (words.to_owned(), surplus.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_global_flag_may_stand_before_the_command() {
        for (line, words) in [
            ("iotcpd --log-level debug run F", "iotcpd run --log-level debug F"),
            (
                "iotcpd --log-level=debug --log-f json run F",
                "iotcpd run --log-level=debug --log-format json F",
            ),
            ("iotcpd --log-level run run F", "iotcpd run --log-level run F"),
            (
                "iotcpd --log-level debug pool -n 2",
                "iotcpd pool --log-level debug -n 2",
            ),
            ("iotcpd --log-level debug -n 2", "iotcpd --log-level debug -n 2"),
            ("iotcpd --log-level debug", "iotcpd --log-level debug"),
            ("iotcpd --log-level", "iotcpd --log-level"),
            ("iotcpd run --log-level debug F", "iotcpd run --log-level debug F"),
        ] {
            means(line, words);
        }
        // Other flags may not stand before a command; clap refuses them.
        assert_eq!(
            sorted("iotcpd -n 8 --log-level debug check").0,
            "iotcpd -n 8 --log-level debug check"
        );
    }

    #[test]
    fn a_word_that_resembles_a_command_is_left_to_clap() {
        for line in [
            "iotcpd serve",
            "iotcpd chek --config x",
            "iotcpd -n 8 check",
            "iotcpd ask x --squid y",
            "iotcpd help exec",
            "iotcpd a b check",
        ] {
            let (words, _) = sorted(line);
            assert!(line.starts_with(&words) || words == line, "{words}");
            assert!(words.split(' ').count() > 1, "{line}");
        }
    }
}
