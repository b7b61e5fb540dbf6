//! A torc.cfg: the file of torcd, which describes one command door in libconfig's syntax.
//!
//! The settings of torcd keep their meaning: `port`, and `processes` with `name`, `threads`, `cmd` and `argc`. Beside
//! them, all keys of a command door and of a command in a TOML file are accepted, with `-` or `_` in their names.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Collected;
use super::command::{self, DoorParts, Group};
use super::contents::{self, contents};
use super::foreign::{self, ReadAs};
use super::keys::Section;
use super::needs::Scope;
use super::report::Report;
use super::spelling::{Misplaced, add_address, normalized, port_number};
use crate::config::bytes;
use crate::config::lower::Program;
use crate::config::quote::Quoted;
use crate::config::spec::command::{CommandSpec, EntrySpec};
use crate::config::torc_cfg::{Document, Open, Opened};
use crate::doors::command::options::Options;
use crate::error::Error;
use crate::regular_file::Refusal;

/// The name of the door in logs and statistics, because the file has none.
const NAME: &str = "command";
const DEFAULT_PORT: u16 = 3699;

const PORT: &str = "port";
const PROCESSES: &str = "processes";
const NAME_OF_PROCESS: &str = "name";
/// The keys of a command that torcd itself has, and ignores at the top of the file.
const TORCD_KEYS: [&str; 3] = ["cmd", "threads", "argc"];
const EXAMPLE: &str = "write for example processes = ( { name = \"uptime\"; cmd = \"/usr/bin/uptime\"; } );";

/// Reads the door that a torc.cfg describes; `flags` override the settings of the file.
///
/// # Errors
/// An error of the operator's: the file cannot be read, or there are mistakes, each a line: first those in the
/// flags, then those in the file as `file:line:column: mistake; remedy`.
pub fn load(path: &Path, flags: &CommandSpec) -> Result<Options, Error> {
    load_with(path, flags, Scope::Settings)
}

/// Implements [`Source::check`](super::Source::check) for a torc.cfg.
pub(super) fn check(path: &Path, flags: &CommandSpec) -> Result<(), Error> {
    load_with(path, flags, Scope::Needs).map(drop)
}

fn load_with(path: &Path, flags: &CommandSpec, scope: Scope) -> Result<Options, Error> {
    let (name, bytes) = contents(path)?;
    read_with(&name, &bytes, flags, scope, &mut open)
}

/// Opens a file that another one includes: next to that one, or else in the working directory, where libconfig looks.
/// `open` are the files being read, the including one last. A file among them is not read again, because it would
/// include itself without end.
fn open(file: &str, open: &[String]) -> Result<Opened, String> {
    let path = |text: &str| PathBuf::from(OsString::from_vec(bytes::bytes(text)));
    let name = |path: &Path| bytes::text(path.as_os_str().as_bytes()).into_owned();
    let file = path(file);
    let from = open.last().map(|from| path(from));
    let beside = from.and_then(|from| Some(from.parent()?.join(&file)));
    let mut places = beside.into_iter().chain([file.clone()]);
    let read = loop {
        let Some(place) = places.next() else {
            break Err((file, Refusal::from(io::Error::from_raw_os_error(nix::libc::ENOENT))));
        };
        let name = name(&place);
        if open.contains(&name) {
            return Ok(Opened::Itself(name));
        }
        match contents::read(&place) {
            Err(refusal) if refusal.is_missing => {}
            Err(refusal) => break Err((place, refusal)),
            Ok(read) => break Ok((name, read)),
        }
    };
    match read {
        Ok((name, read)) => Ok(Opened::Text(name, bytes::text(&read).into_owned())),
        Err((place, Refusal { cause, remedy, .. })) => {
            Err(format!("cannot read {}: {cause}; {remedy}", place.display()))
        }
    }
}

/// As [`load`], for a given text; `name` is the name of the file in errors. The text may not include files.
///
/// # Errors
/// See [`load`].
pub fn read(name: &str, bytes: &[u8], flags: &CommandSpec) -> Result<Options, Error> {
    let mut none =
        |_: &str, _: &[String]| Err("no other file is read from here; write its settings into this one".to_owned());
    read_with(name, bytes, flags, Scope::Settings, &mut none)
}

fn read_with(name: &str, bytes: &[u8], flags: &CommandSpec, scope: Scope, open: Open<'_>) -> Result<Options, Error> {
    let document = Document::new(name, &bytes::text(bytes), open);
    let mut found = Collected::new(Report::with_parts(document.parts(), document.text()), scope);
    let (root, errors) = document.settings();
    let is_whole = errors.is_empty();
    let is_foreign = !is_whole && !root.keys().any(|key| key.get_ref() == PROCESSES);
    if is_foreign {
        if let Some(foreign) = foreign::recognize(bytes, ReadAs::Torc) {
            return Err(Error::mistakes(vec![foreign.message(name, ReadAs::Torc)]));
        }
        if let Some(line) = foreign::unknown(name, bytes, ReadAs::Torc) {
            found.report.add_general(line);
        }
    }
    for error in errors {
        found.report.add_syntax(error.offset, error.text);
    }
    let options = read_door(root, is_whole, flags, &mut found);
    let (_, lines) = found.conclude();
    match options {
        Some(options) if lines.is_empty() => Ok(options),
        _ => Err(Error::mistakes(lines)),
    }
}

/// Reads the door. `is_whole` is false if some of the text could not be parsed: a missing setting may be in that part.
fn read_door(root: DeTable<'_>, is_whole: bool, flags: &CommandSpec, found: &mut Collected<'_>) -> Option<Options> {
    let misplaced = Misplaced::new::<EntrySpec>(&TORCD_KEYS, "belongs to the group of a command in `processes`");
    let mut own = normalized::<CommandSpec>(root, &[PORT, PROCESSES], &misplaced, &mut found.report);
    let groups = match own.remove(PROCESSES) {
        Some(processes) => groups(processes, &mut found.report),
        None => {
            if is_whole {
                let text = format!("there is no key `{PROCESSES}`, which holds the commands; {EXAMPLE}");
                found.report.add(0, text);
            }
            Vec::new()
        }
    };
    listen_at_port(&mut own, &mut found.report);
    let name = Spanned::new(0..0, NAME.into());
    let section = Section::new(&name, &own);
    let written = DoorParts {
        section: &section,
        handed_over: false,
        others: &[PORT, PROCESSES],
        groups,
        program: Program::Path,
        flags: flags.clone(),
    };
    command::read(written, found)
}

/// Turns `port` into an address to listen on, at the position of the setting. Without any address, that of torcd is
/// added.
fn listen_at_port(table: &mut DeTable<'_>, report: &mut Report<'_>) {
    let (place, port) = match table.remove(PORT) {
        Some(port) => (port.span(), port_number(port.get_ref())),
        None => (0..0, Some(DEFAULT_PORT)),
    };
    let is_set = place != (0..0);
    if is_set && port.is_none() {
        let text = format!("{PORT}: this is not the number of a port; write a value from 0 to 65535");
        report.add(place.start, text);
    }
    let listens = table.contains_key("listen");
    if listens && (!is_set || port.is_none()) {
        return;
    }
    // torcd listens on every IPv4 address. A wrong port has been reported; the rest is read as if it were right.
    let address = format!("0.0.0.0:{}", port.unwrap_or(DEFAULT_PORT));
    add_address(table, "listen", place, address);
}

/// Returns the groups in `processes`.
fn groups<'i>(processes: Spanned<DeValue<'i>>, report: &mut Report<'_>) -> Vec<Group<'i>> {
    let place = processes.span().start;
    let list = match processes.into_inner() {
        DeValue::Array(list) if !list.is_empty() => list,
        _ => {
            report.add(place, format!("{PROCESSES}: this is not a list of commands; {EXAMPLE}"));
            return Vec::new();
        }
    };
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut names = BTreeSet::new();
    for process in list {
        let Some(group) = group(process, report) else { continue };
        let name = group.name.get_ref();
        if !names.insert(name.clone()) {
            let text = format!(
                "there is a command called {} already; give this one another name",
                Quoted(name)
            );
            report.add(group.name.span().start, text);
        }
        groups.push(group);
    }
    groups
}

/// Returns one command; `None` if it has no usable name, which has been reported.
fn group<'i>(process: Spanned<DeValue<'i>>, report: &mut Report<'_>) -> Option<Group<'i>> {
    let place = process.span().start;
    let DeValue::Table(table) = process.into_inner() else {
        report.add(place, format!("{PROCESSES}: this is not a group; {EXAMPLE}"));
        return None;
    };
    let misplaced = Misplaced::new::<CommandSpec>(&[], "belongs to the top of the file");
    let mut table = normalized::<EntrySpec>(table, &[NAME_OF_PROCESS], &misplaced, report);
    let Some(name) = table.remove(NAME_OF_PROCESS) else {
        report.add(place, "this command has no name; write for example name = \"uptime\"");
        return None;
    };
    let span = name.span();
    let DeValue::String(name) = name.into_inner() else {
        let text = format!("{NAME_OF_PROCESS}: this is not text; write for example name = \"uptime\"");
        report.add(span.start, text);
        return None;
    };
    Some(Group {
        name: Spanned::new(span, name),
        table,
    })
}

#[cfg(test)]
mod tests;
