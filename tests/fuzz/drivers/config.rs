//! The operator's files and quantities.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use iotcpd::internals::config::file;
use iotcpd::internals::config::spec::command::CommandSpec;
use iotcpd::internals::config::units::{Escaped, FileMode, Size, Time, Whole};
use iotcpd::internals::error::Blame;

/// `config::file::read`: it gives services or mistakes. Each mistake is one line, free of control characters, which
/// begins with a place inside the text and says what to do.
pub fn fuzz_config_file(input: &[u8]) {
    match file::read("file", input) {
        Ok(services) => assert!(!services.is_empty(), "a file without a service is a mistake"),
        Err(error) => {
            assert_eq!(error.blame(), Blame::Operator, "it is the operator's to mend");
            let text = String::from_utf8_lossy(input);
            for line in error.to_string().split('\n') {
                check_mistake(line, &text);
            }
        }
    }
}

/// `config::file::read_torc`: the same for a torc.cfg. What it gives is a door that can be opened, with commands that
/// can be asked for by their names.
pub fn fuzz_torc_cfg(input: &[u8]) {
    match file::read_torc("file", input, &CommandSpec::default()) {
        Ok(door) => {
            assert!(
                !door.front.listen.is_empty() && !door.commands.is_empty(),
                "it has an address and a command"
            );
            for (index, command) in door.commands.iter().enumerate() {
                let name = &command.name;
                let is_sendable = !name.is_empty()
                    && !name.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0))
                    && name.len() <= door.max_message;
                assert!(is_sendable, "nobody can ask for {name:?}");
                let others = door.commands.iter().take(index);
                assert!(
                    !others.map(|other| &other.name).any(|other| other == name),
                    "{name:?} is there twice"
                );
                assert!(command.rule.threads > 0, "{name:?} can run");
            }
        }
        Err(error) => {
            assert_eq!(error.blame(), Blame::Operator, "it is the operator's to mend");
            // A byte that is no part of a character counts as one.
            let text: String = input.iter().copied().map(char::from).collect();
            for line in error.to_string().split('\n') {
                check_mistake(line, &text);
            }
        }
    }
}

fn check_mistake(mistake: &str, text: &str) {
    let place = mistake.strip_prefix("file:").and_then(|rest| rest.split_once(": "));
    let numbers = place.and_then(|(place, said)| Some((place.split_once(':')?, said)));
    let parsed = numbers
        .and_then(|((line, column), said)| Some((line.parse::<usize>().ok()?, column.parse::<usize>().ok()?, said)));
    let (line, column, said) = parsed.unwrap_or_default();
    assert!(line > 0, "it begins with its place: {mistake:?}");
    let at = text.split('\n').nth(line - 1).map(|line| line.chars().count() + 1);
    assert!(
        at.is_some_and(|longest| (1..=longest).contains(&column)),
        "the place is in the text: {mistake:?}"
    );
    assert!(!said.contains(char::is_control), "it upsets no terminal: {mistake:?}");
    assert!(said.contains("; "), "it says what to do: {mistake:?}");
}

/// The quantities of `config::units`: what can be read is written back as text that means the same.
pub fn fuzz_quantities(input: &[u8]) {
    let text = &*String::from_utf8_lossy(input);
    reads_back::<Time>(text);
    reads_back::<Size>(text);
    reads_back::<Whole>(text);
    reads_back::<FileMode>(text);
    reads_back::<Escaped>(text);
}

fn reads_back<T>(text: &str)
where
    T: FromStr + Display + Debug + PartialEq,
    T::Err: Debug + PartialEq,
{
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert_eq!(written.parse(), Ok(value), "{text:?} is written as {written:?}");
    }
}
