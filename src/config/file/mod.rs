//! A file that describes services: a TOML file with tables `[pool.NAME]` and the keys of that door, named like its
//! flags, and a table `[server]`, which makes a router.toml (`router_toml`); or a torc.cfg (`torc`), which is one command
//! door.
//!
//! The life of a file: its text is parsed, and all syntax errors are kept ([`toml`]'s recovering parser); each table
//! `[DOOR.NAME]` goes to its entry in `DOORS`, which reads its keys one by one into the door's spec (`keys`), lowers
//! the spec, and adds the options to the list of services; mistakes are collected in the `Report`, with their positions
//! in the text. A file with one mistake yields no services at all.
//!
//! Invariants: every mistake is reported, at the key or value that it concerns, in the order of the text; nothing
//! unknown is ignored silently.

mod command;
mod contents;
mod definition;
mod foreign;
mod handing;
mod keys;
mod log;
mod needs;
mod report;
mod route;
mod router_toml;
mod spelling;
mod top_level;
mod torc;
mod tunnel;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use self::contents::contents;
use self::foreign::ReadAs;
use self::handing::{HANDED_OVER, Reference, report_references, take_handed_over};
use self::keys::{Keys, Section};
use self::needs::{Needs, Scope};
use self::report::Report;
pub use self::torc::{load as load_torc, read as read_torc};
use super::lower::{self, Lowered, Mistake};
use super::quote::{Quoted, in_header};
use super::spec::command::CommandSpec;
use super::spec::exec::ExecSpec;
use super::spec::log::LogSpec;
use super::spec::pool::PoolSpec;
use super::spec::route::RouteSpec;
use crate::doors::Options;
use crate::error::Error;
use crate::net::addr::Listen;

/// A file that describes services, and the way to read it: now, and again when it may have changed.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// A TOML file.
    Toml(PathBuf),
    /// A torc.cfg.
    Torc {
        /// The path of the file.
        path: PathBuf,
        /// The settings made by flags, which override those of the file.
        flags: Box<CommandSpec>,
    },
    /// A router.toml that is named as one: it must have a table `[server]`.
    Router {
        /// The path of the file.
        path: PathBuf,
        /// The settings made by flags, which override those of the table `[server]`.
        flags: Box<RouteSpec>,
    },
}

impl Source {
    /// Returns the source for a file without flags. The name shows the kind: the files of torcd end in `.cfg`.
    #[must_use]
    pub fn from_path(path: PathBuf) -> Self {
        if path.extension().is_some_and(|extension| extension == "cfg") {
            let flags = Box::default();
            Source::Torc { path, flags }
        } else {
            Source::Toml(path)
        }
    }

    /// Reads the services and the settings of the log.
    ///
    /// # Errors
    /// See [`load`].
    pub fn load(&self) -> Result<Contents, Error> {
        match self {
            Source::Toml(path) => load(path),
            Source::Torc { path, flags } => {
                let options = load_torc(path, flags)?;
                Ok(Contents {
                    services: vec![Options::Command(Box::new(options))],
                    // The files of torcd have no settings of the log.
                    log: LogSpec::default(),
                })
            }
            Source::Router { path, flags } => {
                let (name, bytes) = contents(path)?;
                read_bytes(&name, &bytes, Scope::Settings, Some(flags))
            }
        }
    }

    /// Checks if the services could be run, as far as that can be found out without running them.
    ///
    /// # Errors
    /// See [`load`]; and a line for each program that is missing or may not be run.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Source::Toml(path) => {
                let (name, bytes) = contents(path)?;
                read_bytes(&name, &bytes, Scope::Needs, None).map(drop)
            }
            Source::Torc { path, flags } => torc::check(path, flags),
            Source::Router { path, flags } => {
                let (name, bytes) = contents(path)?;
                read_bytes(&name, &bytes, Scope::Needs, Some(flags)).map(drop)
            }
        }
    }
}

/// The contents of a file.
#[derive(Debug)]
pub struct Contents {
    /// The services, in their order. At least one.
    pub services: Vec<Options>,
    /// The settings of the log.
    pub log: LogSpec,
}

/// One kind of service.
struct Door {
    /// The name of its tables.
    kind: &'static str,
    /// Reads one table and adds the service to those found so far.
    read: fn(&Section<'_, '_>, &mut Collected<'_>),
}

/// The doors that a file may describe.
const DOORS: [Door; 5] = [
    Door {
        kind: "pool",
        read: read_pool,
    },
    Door {
        kind: "exec",
        read: read_exec,
    },
    Door {
        kind: "command",
        read: read_command,
    },
    Door {
        kind: "route",
        read: read_route,
    },
    Door {
        kind: "tunnel",
        read: read_tunnel,
    },
];

/// The longest name of a service, in bytes; the name is part of every log line.
const LONGEST_NAME: usize = 64;

/// The results of reading so far.
struct Collected<'t> {
    services: Vec<Options>,
    log: LogSpec,
    /// The names of all services, including unreadable ones.
    names: HashSet<String>,
    /// Every listener: its service, and the position of the setting.
    listening: Vec<(String, usize, Listen)>,
    /// Every service that names another door, with the name of its own.
    references: Vec<(String, Reference)>,
    /// `None` if the needs are not checked.
    needs: Option<Needs>,
    report: Report<'t>,
}

impl<'t> Collected<'t> {
    fn new(report: Report<'t>, scope: Scope) -> Self {
        Collected {
            services: Vec::new(),
            log: LogSpec::default(),
            names: HashSet::new(),
            listening: Vec::new(),
            references: Vec::new(),
            needs: (scope == Scope::Needs).then(Needs::default),
            report,
        }
    }

    /// Ends the reading: returns the contents and the mistakes. If there are none, each ignored setting is a warning in
    /// the log.
    fn conclude(mut self) -> (Contents, Vec<String>) {
        if let Some(needs) = self.needs.take() {
            needs.check(&mut self.report);
        }
        let ignored = self.report.take_ignored();
        let lines = self.report.into_lines();
        if lines.is_empty() {
            ignored.iter().for_each(|line| ::log::warn!("{line}"));
        }
        let (services, log) = (self.services, self.log);
        (Contents { services, log }, lines)
    }
}

/// Reads a file.
///
/// # Errors
/// An error of the operator's: the file cannot be read, or it has mistakes, each a line `file:line:column:
/// mistake; remedy`.
pub fn load(path: &Path) -> Result<Contents, Error> {
    let (name, bytes) = contents(path)?;
    read_all(&name, &bytes)
}

/// As [`load`], for given contents; `name` is the name of the file in errors.
///
/// # Errors
/// See [`load`].
pub fn read_all(name: &str, bytes: &[u8]) -> Result<Contents, Error> {
    read_bytes(name, bytes, Scope::Settings, None)
}

/// As [`read_all`], but returns the services only.
///
/// # Errors
/// See [`load`].
pub fn read(name: &str, bytes: &[u8]) -> Result<Vec<Options>, Error> {
    read_all(name, bytes).map(|contents| contents.services)
}

/// Reads the contents of a TOML file. `router` are the flags that override its table `[server]`, which it must have; a
/// file that is read without them may have one.
fn read_bytes(name: &str, bytes: &[u8], scope: Scope, router: Option<&RouteSpec>) -> Result<Contents, Error> {
    let (text, not_utf_8) = decode(bytes);
    let mut found = Collected::new(Report::new(name, &text), scope);
    for offset in &not_utf_8 {
        let text = "this is not UTF-8; save the file in that encoding";
        found.report.add_syntax(*offset, text);
    }
    let (root, errors) = DeTable::parse_recoverable(&text);
    let root = root.get_ref();
    let any_errors = !errors.is_empty() || !not_utf_8.is_empty();
    let is_foreign = any_errors
        && !root.keys().any(|kind| {
            door(kind.get_ref()).is_some() || &**kind.get_ref() == log::KIND || router_toml::is_its(kind.get_ref())
        });
    if is_foreign {
        if let Some(foreign) = foreign::recognize(bytes, ReadAs::Toml) {
            return Err(Error::mistakes(vec![foreign.message(name, ReadAs::Toml)]));
        }
        if let Some(line) = foreign::unknown(name, bytes, ReadAs::Toml) {
            found.report.add_general(line);
        }
    }
    for error in errors {
        let span = error.span().unwrap_or_default();
        found
            .report
            .add_syntax(span.start, syntax_message(&error, text.get(span).unwrap_or_default()));
    }
    if router.is_some() && !any_errors && !root.keys().any(|kind| router_toml::is_its(kind.get_ref())) {
        return Err(Error::mistakes(vec![router_toml::missing(name, root)]));
    }
    let flags = router.cloned().unwrap_or_default();
    read_kinds(root, any_errors, &flags, &mut found);
    report_clashes(&mut found);
    report_references(&mut found);
    match found.conclude() {
        (contents, lines) if lines.is_empty() => Ok(contents),
        (_, lines) => Err(Error::mistakes(lines)),
    }
}

/// Reads the tables of a file. `any_errors` is true if some of the text could not be parsed.
fn read_kinds(root: &DeTable<'_>, any_errors: bool, flags: &RouteSpec, found: &mut Collected<'_>) {
    let mut kinds: Vec<_> = root.iter().collect();
    kinds.sort_by_key(|(kind, _)| kind.span().start);
    let is_log = |kind: &Spanned<DeString<'_>>| kind.get_ref() == log::KIND;
    let describes_nothing = kinds.iter().all(|(kind, _)| is_log(kind));
    for (kind, value) in kinds {
        if is_log(kind) {
            log::read(kind, value, found);
        } else if router_toml::is_its(kind.get_ref()) {
            router_toml::read(kind, value, flags, found);
        } else {
            read_kind(kind, value, found);
        }
    }
    if describes_nothing && !any_errors {
        found.report.add(
            0,
            "no service is described; write a table such as [pool.main] and its keys below it",
        );
    }
}

/// Returns the message about a syntax error in `written`.
fn syntax_message(error: &toml::de::Error, written: &str) -> String {
    match error.message() {
        "duplicate key" => {
            let written = Quoted(written.trim());
            format!("{written} is written a second time; keep one of the two, or give this one another name")
        }
        message => format!("this is not TOML: {message}; see toml.io or iotcpd.toml(5)"),
    }
}

/// Returns the text of a file, and the offsets in it of the characters that replace invalid bytes.
fn decode(bytes: &[u8]) -> (String, Vec<usize>) {
    let (mut text, mut wrong) = (String::with_capacity(bytes.len()), Vec::new());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            wrong.push(text.len());
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    (text, wrong)
}

/// Returns the kind of service with this name.
fn door(kind: &str) -> Option<&'static Door> {
    DOORS.iter().find(|door| door.kind == kind)
}

/// Reads every service of one kind.
fn read_kind(kind: &Spanned<DeString<'_>>, named: &Spanned<DeValue<'_>>, found: &mut Collected<'_>) {
    let Some(door) = door(kind.get_ref()) else {
        let text = || top_level::message(kind.get_ref(), named.get_ref());
        return found.report.add_lazily(kind.span().start, text);
    };
    let Some(tables) = named.get_ref().as_table().filter(|table| !table.is_empty()) else {
        let text = format!(
            "`{0}` has to hold a named table; write for example [{0}.main]",
            door.kind
        );
        found.report.add(kind.span().start, text);
        return;
    };
    let mut tables: Vec<_> = tables.iter().collect();
    tables.sort_by_key(|(name, _)| name.span().start);
    for (name, value) in tables {
        if let Some(table) = value.get_ref().as_table() {
            check_name(name, found);
            check_unique(name, found);
            (door.read)(&Section::new(name, table), found);
        } else if value.get_ref().is_array() {
            let text = format!(
                "each service has one table; write [{}.{}], in single brackets",
                door.kind,
                in_header(name.get_ref())
            );
            found.report.add(name.span().start, text);
        } else {
            let text = "a key needs a service to belong to; write a table with a name above it, such as";
            let text = format!("{}: {text} [{}.main]", Quoted(name.get_ref()), door.kind);
            found.report.add(name.span().start, text);
        }
    }
}

fn check_name(name: &Spanned<DeString<'_>>, found: &mut Collected<'_>) {
    let written = name.get_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if written.is_empty() || written.len() > LONGEST_NAME || !written.chars().all(plain) {
        let text = format!(
            "{} cannot be the name of a service; write 1 to {LONGEST_NAME} letters, digits, `-`, `_` or `.`",
            Quoted(written)
        );
        found.report.add(name.span().start, text);
    }
}

/// Reports a second service of the same name. Logs, statistics and a reload identify a service by its name alone, so
/// services of two kinds cannot share one.
fn check_unique(name: &Spanned<DeString<'_>>, found: &mut Collected<'_>) {
    let written = name.get_ref();
    if !found.names.insert(written.to_string()) {
        let text = format!(
            "there is a service called {} already; give this one another name",
            Quoted(written)
        );
        found.report.add(name.span().start, text);
    }
}

fn read_pool(section: &Section<'_, '_>, found: &mut Collected<'_>) {
    let mut own = section.table.clone();
    let handed_over = take_handed_over(&mut own, &mut found.report);
    let section = &Section::new(section.name, &own);
    let (mut spec, keys) = Keys::read_with_others::<PoolSpec>(section, &[HANDED_OVER], &mut found.report);
    spec.handed_over = handed_over;
    let lowered = lower::pool(section.name.get_ref(), &spec);
    // The needs are checked in spite of other mistakes, so that both are reported.
    if let Some(needs) = &mut found.needs {
        needs.add_directory(&keys, spec.process.chdir.as_deref());
        needs.add_identities(&keys, &spec.listen.tls);
        if let Some(process) = lower::program_of_pool(&spec)
            && keys.is_read("daemon")
        {
            needs.add_process(&keys, "daemon", &process);
        }
    }
    if let Some(options) = accept(&keys, lowered, found) {
        if let Some(needs) = &mut found.needs {
            needs.add_configuration(&keys, &options);
        }
        found.services.push(Options::Pool(Box::new(options)));
    }
}

fn read_exec(section: &Section<'_, '_>, found: &mut Collected<'_>) {
    let mut own = section.table.clone();
    let handed_over = take_handed_over(&mut own, &mut found.report);
    let section = &Section::new(section.name, &own);
    let (mut spec, keys) = Keys::read_with_others::<ExecSpec>(section, &[HANDED_OVER], &mut found.report);
    spec.handed_over = handed_over;
    let lowered = lower::exec(section.name.get_ref(), &spec);
    if let Some(needs) = &mut found.needs {
        needs.add_directory(&keys, spec.process.chdir.as_deref());
        needs.add_permitted(&keys, &spec.allow_program);
        needs.add_identities(&keys, &spec.listen.tls);
    }
    if let Some(options) = accept(&keys, lowered, found) {
        found.services.push(Options::Exec(Box::new(options)));
    }
}

fn read_command(section: &Section<'_, '_>, found: &mut Collected<'_>) {
    if let Some(options) = command::read_table(section, found) {
        found.services.push(Options::Command(Box::new(options)));
    }
}

fn read_route(section: &Section<'_, '_>, found: &mut Collected<'_>) {
    if let Some(options) = route::read_table(section, found) {
        found.services.push(Options::Route(Box::new(options)));
    }
}

fn read_tunnel(section: &Section<'_, '_>, found: &mut Collected<'_>) {
    if let Some(options) = tunnel::read_table(section, found) {
        found.services.push(Options::Tunnel(Box::new(options)));
    }
}

/// Takes the result of lowering: records the addresses, or reports the mistakes at their positions.
fn accept<O>(keys: &Keys<'_, '_>, lowered: Result<Lowered<O>, Vec<Mistake>>, found: &mut Collected<'_>) -> Option<O> {
    match lowered {
        Ok(Lowered { options, listen }) => {
            // If a key is unreadable, an address may be a default that is not wanted.
            if keys.all_read() {
                let service = keys.service();
                let listen = listen
                    .into_iter()
                    .map(|(origin, listen)| (service.to_owned(), keys.place(origin), listen));
                found.listening.extend(listen);
            }
            Some(options)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                found.report.add(keys.place(mistake.origin), mistake.to_string());
            }
            None
        }
    }
}

/// Reports each address on which two services would listen.
fn report_clashes(found: &mut Collected<'_>) {
    found.listening.sort_by_key(|(_, offset, _)| *offset);
    // Only addresses with the same port can conflict, or addresses without a port.
    let mut before: HashMap<Option<u16>, Vec<(&str, &Listen)>> = HashMap::new();
    for (service, offset, listen) in &found.listening {
        let like = before.entry(listen.address.port()).or_default();
        let in_the_way =
            |(other, taken): &&(&str, &Listen)| *other != service && lower::clash(&taken.address, &listen.address);
        if let Some((other, taken)) = like.iter().find(in_the_way) {
            let (other, service) = (Quoted(other), Quoted(service));
            let text = format!("{other} listens on {taken} already; give {service} another address or port");
            found.report.add(*offset, text);
        }
        like.push((service, listen));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Blame;

    /// Returns the mistakes of a text, a line each, without the name of the file.
    fn told(text: &str) -> Vec<String> {
        let error = read("f", text.as_bytes()).unwrap_err();
        assert_eq!(error.blame(), Blame::Operator);
        error
            .to_string()
            .lines()
            .map(|line| line.strip_prefix("f:").unwrap().to_owned())
            .collect()
    }

    #[test]
    fn services_keep_their_order() {
        let services = read("f", b"[pool.b]\nport = 1\n[pool.a]\nport = 2\n[pool.'c.d']\nport = 3\n").unwrap();
        let names: Vec<_> = services.iter().map(Options::name).collect();
        assert_eq!(names, ["b", "a", "c.d"]);
    }

    #[test]
    fn every_mistake_of_a_file_is_reported_at_its_position() {
        let text = r#"
[pool.proxy]
queue-timout = "500ms"
port = 70_000
  busy-timeout = "soon"
listen = ["127.0.0.1:1", "nonsense", "unix:/x", 5]
clear-env = "yes"
daemon = 5
half-close = "hangup"
socket-mode = 660
nice = [1]
colour = "blue"

[pol.x]
"#;
        let told = told(text);
        let expected = [
            "3:1: there is no key `queue-timout`; did you mean `queue-timeout`?",
            "4:8: port: 70000 is out of range; write a value from 0 to 65535",
            "5:18: busy-timeout: `soon` is not a length of time; write for example 15 (seconds), 500ms, 1.5s, 2m or 1h",
            "NONSENSE",
            "6:49: listen: an integer is not what belongs here; write listen = \"ADDR\"",
            "7:13: clear-env: this is switched on or off; write true or false",
            "8:10: daemon: an integer is not what belongs here; write daemon = \"CMD\"",
            "9:14: half-close: `hangup` is not known here; write \"answer\" or \"hang-up\"",
            "10:15: socket-mode: the bare number 660 is not permission bits in octal; write for example \"0660\"",
            "11:8: nice: this takes one value, not a list; keep one of them",
            "12:1: there is no key `colour`; see iotcpd.toml(5) for those there are",
            "14:2: there is no kind of service called `pol`; did you mean `pool`?",
        ];
        let nonsense = format!("6:26: listen: {}", "nonsense".parse::<Listen>().unwrap_err());
        let expected: Vec<_> = expected
            .iter()
            .map(|line| line.replace("NONSENSE", &nonsense))
            .collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn an_unreadable_key_causes_no_second_mistake() {
        assert_eq!(told("[pool.a]\n[pool.b]\nport = true").len(), 1);
        assert_eq!(told("[pool.a]\nlisten = ['nonsense']\nsocket-mode = '0660'").len(), 1);
    }

    #[test]
    fn wrong_elements_of_a_list_are_reported_one_by_one() {
        let told = told("[pool.a]\nlisten = [\"127.0.0.1:1\",\n  \"nonsense\", \"127.0.0.1:1\"]\nallow = ['10/8']");
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("3:3: listen: "), "{told:?}");
        assert_eq!(
            told[1],
            "3:15: listen: 127.0.0.1:1 and 127.0.0.1:1 are in each other's way; leave out one of the two"
        );
        assert!(
            told[2].starts_with("4:10: allow: \"10/8\" is not a network; write an address such as "),
            "{told:?}"
        );
    }

    #[test]
    fn a_mistake_about_a_default_is_reported_at_the_header() {
        let told = told("[pool.a]\n[pool.b]\nnum-daemons = 2\n");
        assert_eq!(
            told,
            ["2:7: `a` listens on 127.0.0.1:9991 already; give `b` another address or port"]
        );
    }

    #[test]
    fn services_may_not_share_an_address() {
        let told = told("[pool.z]\nlisten = ['unix:/x', '[::1]:1']\n[pool.a]\nlisten = [\n'unix:/y',\n'unix:/x']\n");
        assert_eq!(
            told,
            ["6:1: `z` listens on unix:/x already; give `a` another address or port"]
        );
        assert!(read("f", b"[pool.a]\nport = 0\n[pool.b]\nport = 0").is_ok());
    }

    #[test]
    fn a_line_feed_in_a_name_breaks_no_message() {
        let told = told("[pool.\"a\\nb\"]\n[pool.c]\n");
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("2:7: `a\\nb` listens on "), "{told:?}");
    }

    #[test]
    fn syntax_errors_are_reported_together_with_other_mistakes() {
        let told = told("[pool.a]\nport = \nqueue-size = -1\nretries = = 1\n[pool.a]\n");
        let places: Vec<_> = told.iter().map(|line| line.split(": ").next().unwrap()).collect();
        assert!(
            told[0].starts_with("2:") && told[0].contains(": this is not TOML: "),
            "{told:?}"
        );
        assert!(
            told.contains(&"3:14: queue-size: -1 is out of range; write a value from 0 to 1000000".to_owned()),
            "{told:?}"
        );
        assert!(places.iter().any(|place| place.starts_with("4:")), "{told:?}");
        assert!(places.iter().any(|place| place.starts_with("5:")), "{told:?}");
    }

    #[test]
    fn a_number_beyond_all_ranges_gets_a_remedy() {
        for number in [
            "99999999999999999999",
            "0xfffffffffffffffffffffffffffffffffff",
            "-9999999999999999999",
            "1e999",
        ] {
            let remedy = format!("2:8: nice: `{number}` is too large, or no number; write a smaller one");
            assert_eq!(told(&format!("[pool.a]\nnice = {number}")), [remedy]);
        }
    }

    #[test]
    fn a_file_without_a_service_is_refused() {
        let nothing = "1:1: no service is described; write a table such as [pool.main] and its keys below it";
        assert_eq!(told(""), [nothing]);
        assert_eq!(told("# only a comment\n"), [nothing]);
    }

    #[test]
    fn a_service_needs_a_name() {
        let unnamed = "a key needs a service to belong to; write a table with a name above it, such as [pool.main]";
        assert_eq!(told("[pool]\nport = 1\n"), [format!("2:1: `port`: {unnamed}")]);
        assert_eq!(
            told("pool = 1"),
            ["1:1: `pool` has to hold a named table; write for example [pool.main]"]
        );
        assert_eq!(
            told("[pool]"),
            ["1:2: `pool` has to hold a named table; write for example [pool.main]"]
        );
        let bad = "cannot be the name of a service; write 1 to 64 letters, digits, `-`, `_` or `.`";
        assert_eq!(told("[pool.'a b']"), [format!("1:7: `a b` {bad}")]);
        assert_eq!(told("[pool.'']"), [format!("1:7: `` {bad}")]);
    }

    #[test]
    fn services_of_two_kinds_cannot_share_a_name_or_an_address() {
        let told = told("[pool.a]\nport = 1\n[exec.a]\nlisten = '127.0.0.1:1'\n");
        assert_eq!(
            told,
            ["3:7: there is a service called `a` already; give this one another name"]
        );
        let services = read(
            "f",
            b"[pool.a]\nport = 1\n[exec.b]\nlisten = '127.0.0.1:2'\ntimeout = 0\n",
        )
        .unwrap();
        assert_eq!(services.iter().map(Options::name).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn an_unknown_door_gets_the_list_of_doors() {
        assert_eq!(
            told("[frobnicate.x]\n[pool.a]\n"),
            ["1:2: there is no kind of service called `frobnicate`; write one of: pool, exec, command, route, tunnel"]
        );
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_reported_at_their_position() {
        let error = read("f", b"[pool.a]\n# caf\xe9\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "f:2:6: this is not UTF-8; save the file in that encoding"
        );
    }

    #[test]
    fn a_missing_file_is_a_mistake_of_the_operator() {
        let error = load(Path::new("/nowhere/iotcpd.toml")).unwrap_err();
        assert_eq!(error.blame(), Blame::Operator);
        let text = error.to_string();
        assert!(
            text.starts_with("cannot read /nowhere/iotcpd.toml: ")
                && text.ends_with("; check the path and the permissions")
        );
    }
}
