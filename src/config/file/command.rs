//! A command door in a file: its own keys, and a section for each of its commands.
//!
//! The two kinds of file differ in the place of the commands and in the syntax of a program; both are read into options
//! here.

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::handing::{HANDED_OVER, take_handed_over};
use super::keys::{Keys, Section};
use super::report::Report;
use super::{Collected, accept};
use crate::config::lower::{self, Entry, Program};
use crate::config::quote::{Quoted, in_header};
use crate::config::spec::command::{CommandSpec, EntrySpec};
use crate::doors::command::options::{Command, Options};

/// The key of a TOML table that holds the commands.
const COMMANDS: &str = "commands";

/// The settings of one command.
pub(super) struct Group<'i> {
    /// The name of the command for the clients, with its position.
    pub(super) name: Spanned<DeString<'i>>,
    /// The keys of the command.
    pub(super) table: DeTable<'i>,
}

/// The parts of a door that the two kinds of file write in different ways.
pub(super) struct DoorParts<'t, 'i> {
    /// The keys of the door.
    pub(super) section: &'t Section<'t, 'i>,
    /// True if the key `handed-over` is set.
    pub(super) handed_over: bool,
    /// Keys beside these, which have been read already.
    pub(super) others: &'t [&'static str],
    /// The commands of the door.
    pub(super) groups: Vec<Group<'i>>,
    /// The syntax of their programs.
    pub(super) program: Program,
    /// The settings made by flags, which override the keys.
    pub(super) flags: CommandSpec,
}

/// Reads a table `[command.NAME]`.
pub(super) fn read_table(section: &Section<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let mut own = section.table.clone();
    let commands = own.remove(COMMANDS);
    let handed_over = take_handed_over(&mut own, &mut found.report);
    let groups = match commands {
        Some(commands) => groups(commands, section.name.get_ref(), &mut found.report),
        None => Vec::new(),
    };
    if !section.table.contains_key(COMMANDS) {
        let text = format!(
            "no command is described; write a table such as [command.{}.{COMMANDS}.uptime]",
            in_header(section.name.get_ref())
        );
        found.report.add(section.name.span().start, text);
    }
    let section = Section::new(section.name, &own);
    let written = DoorParts {
        section: &section,
        handed_over,
        others: &[COMMANDS, HANDED_OVER],
        groups,
        program: Program::Words,
        flags: CommandSpec::default(),
    };
    read(written, found)
}

/// Returns the tables below `commands`.
fn groups<'i>(commands: Spanned<DeValue<'i>>, door: &str, report: &mut Report<'_>) -> Vec<Group<'i>> {
    let place = commands.span().start;
    let door = in_header(door);
    let example = format!("write a table with a name, such as [command.{door}.{COMMANDS}.uptime]");
    let tables = match commands.into_inner() {
        DeValue::Table(tables) if !tables.is_empty() => tables,
        _ => {
            report.add(place, format!("{COMMANDS}: no command is described; {example}"));
            return Vec::new();
        }
    };
    let mut groups = Vec::new();
    for (name, value) in tables {
        match value.into_inner() {
            DeValue::Table(table) => groups.push(Group { name, table }),
            _ => report.add(
                name.span().start,
                format!("{} is not a command; {example}", Quoted(name.get_ref())),
            ),
        }
    }
    // The parser sorts a table by its names; the commands are listed in the order of the file.
    groups.sort_by_key(|group| group.name.span().start);
    groups
}

/// Reads the door and its commands. Returns `None` after a mistake, which has been reported.
pub(super) fn read(written: DoorParts<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let DoorParts {
        section,
        handed_over,
        others,
        groups,
        program,
        flags,
    } = written;
    let commands: Vec<Option<Command>> = groups.iter().map(|group| read_group(group, program, found)).collect();
    let (mut spec, keys) = Keys::read_with_others::<CommandSpec>(section, others, &mut found.report);
    spec.handed_over = handed_over;
    let of_flags = flags.overlay_onto(&mut spec);
    if let Some(needs) = &mut found.needs {
        needs.add_identities(&keys, &spec.listen.tls);
    }
    let all_read = commands.iter().all(Option::is_some);
    let mut lowered = lower::command(section.name.get_ref(), &spec, commands.into_iter().flatten().collect());
    if let Err(mistakes) = &mut lowered {
        // An unreadable address has been reported; that there is no address would be a second report.
        let listens = section.table.contains_key("listen") && !keys.all_read();
        mistakes.retain(|mistake| !(listens && mistake.origin == lower::KeyRef::key("listen")));
        for mistake in mistakes.extract_if(.., |mistake| of_flags.contains(&mistake.origin.key)) {
            found.report.add_general(format!("iotcpd: {}", mistake.for_flags()));
        }
    }
    accept(&keys, lowered, found).filter(|_| all_read)
}

/// Reads one command. Returns `None` after a mistake, which has been reported.
fn read_group(group: &Group<'_>, program: Program, found: &mut Collected<'_>) -> Option<Command> {
    let report = &mut found.report;
    let name = group.name.get_ref();
    let wrong_name = lower::wrong_name(name);
    if let Some(text) = &wrong_name {
        report.add(group.name.span().start, text);
    }
    let section = Section {
        suffix: match program {
            Program::Words => String::new(),
            // The name of the command may be anywhere among its keys, so the message names it.
            Program::Path => format!(" (in the command {})", Quoted(name)),
        },
        ..Section::new(&group.name, &group.table)
    };
    let (spec, keys) = Keys::read::<EntrySpec>(&section, report);
    let entry = Entry {
        name,
        program,
        spec: &spec,
        is_whole: keys.all_read(),
    };
    if let Some(needs) = &mut found.needs {
        needs.add_directory(&keys, spec.process.chdir.as_deref());
        if let Some(process) = lower::program_of_entry(entry) {
            needs.add_process(&keys, "cmd", &process);
        }
    }
    match lower::entry(entry) {
        Ok(command) => Some(command).filter(|_| wrong_name.is_none() && keys.all_read()),
        Err(mistakes) => {
            for mistake in mistakes {
                report.add(keys.place(mistake.origin), mistake.to_string());
            }
            None
        }
    }
}

#[cfg(test)]
mod tests;
