//! A TOML file that describes services: `[pool.NAME]` and the keys of that door, named like its flags.
//!
//! The way of a file: its text is parsed with every syntax error kept ([`toml`]'s recovering parser); each table
//! `[DOOR.NAME]` goes to its entry in [`DOORS`], which reads its keys one by one into the door's spec
//! ([`keys`]), lowers the spec, and adds the options to [`Services`]; whatever was wrong has meanwhile gone into the
//! [`Report`](report::Report), with its place in the text. A file with one mistake gives no services at all.
//!
//! What holds: every mistake is reported, each at the key or value it is about, in the order of the text; nothing unknown is passed
//! over in silence.

mod keys;
mod report;

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use self::keys::Place;
use self::report::Report;
use super::lower::{self, Lowered, Mistake};
use super::suggest::nearest;
use crate::error::{Blame, Error};
use crate::net::addr::ListenAddr;
use crate::services::pool;

/// The services of one file, in its order.
#[derive(Debug, Default, PartialEq)]
pub struct Services {
    /// From `[pool.NAME]` tables.
    pub pools: Vec<pool::options::Options>,
}

/// One kind of service.
struct Door {
    /// What its tables are called.
    kind: &'static str,
    /// Reads one table and adds the service to those found so far.
    read: fn(&Place<'_, '_>, &mut Found<'_>),
}

/// The doors a file may describe.
const DOORS: [Door; 1] = [Door {
    kind: "pool",
    read: read_pool,
}];

/// The longest name a service may have; it stands in every log line.
const LONGEST_NAME: usize = 64;

/// What reading has come to so far.
struct Found<'t> {
    services: Services,
    /// Every address listened on: by which service, and where that is said.
    listening: Vec<(String, usize, ListenAddr)>,
    report: Report<'t>,
}

/// Reads the services that a file describes.
///
/// # Errors
/// The operator's to mend: the file cannot be read, or one line `file:line:column: what; what to write instead` for
/// each mistake in it.
pub fn load(path: &Path) -> Result<Services, Error> {
    let name = path.display().to_string();
    let bytes = fs::read(path).map_err(|error| {
        Error::new(
            Blame::Operator,
            format_args!("cannot read {name}: {error}"),
            "check the path and its permissions",
        )
    })?;
    read(&name, &bytes)
}

/// [`load`] for a text at hand; `name` stands for the file in errors.
///
/// # Errors
/// As [`load`].
pub fn read(name: &str, bytes: &[u8]) -> Result<Services, Error> {
    match std::str::from_utf8(bytes) {
        Ok(text) => read_text(name, text),
        Err(error) => {
            let (readable, _) = bytes.split_at(error.valid_up_to());
            let mut report = Report::new(name, std::str::from_utf8(readable).unwrap_or_default());
            report.add(readable.len(), "the text is not UTF-8; save the file in that encoding");
            Err(Error::mistakes(report.into_lines()))
        }
    }
}

fn read_text(name: &str, text: &str) -> Result<Services, Error> {
    let mut found = Found {
        services: Services::default(),
        listening: Vec::new(),
        report: Report::new(name, text),
    };
    let (root, errors) = DeTable::parse_recoverable(text);
    let any_errors = !errors.is_empty();
    for error in errors {
        found
            .report
            .add_syntax(error.span().map_or(0, |span| span.start), error.message());
    }
    let mut any_service = false;
    for (kind, named) in root.get_ref() {
        any_service |= read_kind(kind, named, &mut found);
    }
    if !any_service && !any_errors {
        found.report.add(
            0,
            "no service is described; write a table such as [pool.main] and its keys below it",
        );
    }
    report_clashes(&mut found);
    match found.report.into_lines() {
        lines if lines.is_empty() => Ok(found.services),
        lines => Err(Error::mistakes(lines)),
    }
}

/// Reads every service of one kind. Returns whether there was anything that means to be a service.
fn read_kind(kind: &Spanned<DeString<'_>>, named: &Spanned<DeValue<'_>>, found: &mut Found<'_>) -> bool {
    let Some(door) = DOORS.iter().find(|door| door.kind == kind.get_ref()) else {
        let known = DOORS.iter().map(|door| door.kind);
        let remedy = match nearest(kind.get_ref(), known.clone()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write one of: {}", known.collect::<Vec<_>>().join(", ")),
        };
        found.report.add(
            kind.span().start,
            format!("there is no kind of service called `{}`; {remedy}", kind.get_ref()),
        );
        return true;
    };
    let Some(tables) = named.get_ref().as_table().filter(|table| !table.is_empty()) else {
        let text = format!(
            "`{0}` has to hold a named table; write for example [{0}.main]",
            door.kind
        );
        found.report.add(kind.span().start, text);
        return true;
    };
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in tables {
        match value.get_ref().as_table() {
            Some(table) => {
                check_name(name, found);
                (door.read)(&Place { name, table }, found);
            }
            None => {
                let text = "a key needs a service to belong to; write a table with a name above it, such as";
                found.report.add(
                    name.span().start,
                    format!("{}: {text} [{}.main]", name.get_ref(), door.kind),
                );
            }
        }
    }
    true
}

fn check_name(name: &Spanned<DeString<'_>>, found: &mut Found<'_>) {
    let written = name.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if written.is_empty() || written.len() > LONGEST_NAME || !written.chars().all(plain) {
        let text = format!(
            "`{}` cannot be the name of a service; write 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.`",
            written.escape_debug()
        );
        found.report.add(name.span().start, text);
    }
}

fn read_pool(place: &Place<'_, '_>, found: &mut Found<'_>) {
    let spec = keys::spec(place, &mut found.report);
    let lowered = lower::pool(place.name.get_ref(), &spec);
    if let Some(options) = accept(place, lowered, found) {
        found.services.pools.push(options);
    }
}

/// Takes over what lowering came to: the addresses, or the mistakes at their places.
fn accept<O>(place: &Place<'_, '_>, lowered: Result<Lowered<O>, Vec<Mistake>>, found: &mut Found<'_>) -> Option<O> {
    match lowered {
        Ok(Lowered { options, listen }) => {
            let name = place.name.get_ref();
            let listen = listen
                .into_iter()
                .map(|(origin, address)| (name.to_string(), place.of(origin), address));
            found.listening.extend(listen);
            Some(options)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                found.report.add(place.of(mistake.origin), mistake.to_string());
            }
            None
        }
    }
}

/// No two services may listen on the same address.
fn report_clashes(found: &mut Found<'_>) {
    found.listening.sort_by_key(|(_, offset, _)| *offset);
    for (index, (service, offset, address)) in found.listening.iter().enumerate() {
        let before = found
            .listening
            .iter()
            .take(index)
            .filter(|(other, ..)| other != service);
        if let Some((other, ..)) = before.into_iter().find(|(_, _, taken)| lower::clash(taken, address)) {
            let text = format!("`{other}` listens on {address} already; give `{service}` another address or port");
            found.report.add(*offset, text);
        }
    }
}
