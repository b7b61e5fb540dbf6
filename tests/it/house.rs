//! The rules of the house, held by a machine: the map of imports, the length of files and functions, the place of
//! `unsafe`, the ignorance of a core, plain words, that every counter is counted and shown, and that paths exist. No
//! room has an exception.

mod paths;
mod source;
mod words;

use std::path::Path;

pub(crate) use source::doors_with;
use source::{File, report, sources};

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 60;

/// The rooms that a room may import from. Each may use itself and [`FOR_ALL`].
const MAY_IMPORT: &[(&str, &[&str])] = &[
    // The options of a door are what a command line becomes; addresses and their errors are part of them.
    ("cli", &["config", "daemon", "client", "doors", "net", "log"]),
    // Of the processes, the guard that the daemon shares among its doors, and what surrounds it.
    ("daemon", &["config", "doors", "stats", "net", "process", "reactor"]),
    ("config", &["doors", "net", "process", "log"]),
    (
        "doors",
        &["net", "process", "mux", "relay", "store", "framing", "stats", "reactor"],
    ),
    ("client", &["net", "relay", "store", "framing", "stats", "reactor"]),
    // Its lines go to a standard stream.
    ("log", &["net"]),
    ("mux", &["net", "relay", "reactor"]),
    ("net", &["reactor"]),
    ("process", &["reactor"]),
    ("relay", &["reactor"]),
    ("store", &["net", "reactor"]),
    ("framing", &[]),
    ("stats", &[]),
    ("reactor", &[]),
];

/// Modules of a door, beside its `options`, that the configuration may name: the types of some options, and a default.
const DOORS_INTERNALS_FOR_CONFIG: [&str; 3] = ["exec::core::permits", "exec::core::sockproc", "pool::squidguard"];

/// The outcome of a command, the forms of times and sizes, bytes that wait for room, and reading an operator's files.
const FOR_ALL: [&str; 4] = ["error", "amount", "buffer", "regular_file"];

/// I/O, clocks and chance, which a core may not know.
const NOT_IN_A_CORE: [&str; 15] = [
    "mio::",
    "nix::",
    "libc::",
    "log::",
    "std::net",
    "std::fs",
    "std::os",
    "std::thread",
    "Instant::now",
    "SystemTime",
    "crate::net",
    "crate::process",
    "crate::relay",
    "crate::reactor",
    "crate::config",
];

/// `crate::ROOM` in a line of code, as often as it is there.
fn rooms_named(line: &str) -> impl Iterator<Item = &str> {
    line.split("crate::")
        .skip(1)
        .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap())
}

#[test]
fn imports_point_down() {
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| file.path.components().count() > 1) {
        let (_, allowed) = MAY_IMPORT
            .iter()
            .find(|(room, _)| *room == file.room())
            .expect("a room of the map");
        for (number, line) in file.code() {
            for named in rooms_named(line).filter(|named| *named != file.room() && !FOR_ALL.contains(named)) {
                if !allowed.contains(&named) {
                    offences.push(format!(
                        "{}:{number}: {} imports {named}",
                        file.path.display(),
                        file.room()
                    ));
                }
            }
        }
    }
    report(&offences);
}

/// A door can be changed without the configuration as long as its options stay.
#[test]
fn config_knows_of_a_door_only_its_options() {
    let (doors, mut offences) = (doors_with("options.rs"), Vec::new());
    for file in sources().iter().filter(|file| file.room() == "config") {
        for (number, line) in file.code() {
            for path in line.split("crate::doors::").skip(1) {
                let first = path.split("::").next().unwrap_or_default();
                let is_inside_a_door = path.len() > first.len() && doors.iter().any(|door| door == first);
                let is_of_options = path.split("::").nth(1).is_some_and(|module| module == "options");
                let is_allowed = DOORS_INTERNALS_FOR_CONFIG.iter().any(|module| path.starts_with(module));
                if is_inside_a_door && !is_of_options && !is_allowed {
                    offences.push(format!("src/{}: config names {path}", file.place(number)));
                }
            }
        }
    }
    report(&offences);
}

#[test]
fn doors_do_not_know_each_other() {
    let (doors, mut offences) = (doors_with("options.rs"), Vec::new());
    // The files beside `mod.rs` that are in no folder of a door are shared by all doors, and know none either.
    let is_inside = |file: &&File| file.path.starts_with("doors") && file.path != Path::new("doors/mod.rs");
    for file in sources().iter().filter(is_inside) {
        for other in doors
            .iter()
            .filter(|door| !file.path.starts_with(format!("doors/{door}")))
        {
            let name = format!("doors::{other}");
            let knows = file.code().filter(|(_, line)| line.contains(&name));
            offences.extend(knows.map(|(number, _)| format!("{}:{number}: knows {name}", file.path.display())));
        }
    }
    report(&offences);
}

#[test]
fn a_core_knows_no_io_no_clock_and_no_chance() {
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| file.is_in_a_core()) {
        for (number, line) in file.code() {
            let known = NOT_IN_A_CORE.iter().filter(|word| line.contains(**word));
            offences.extend(known.map(|word| format!("{}:{number}: {word}", file.path.display())));
        }
    }
    report(&offences);
}

#[test]
fn unsafe_stands_in_the_sys_files_alone() {
    let homes = [
        "client/sys.rs",
        "net/sys.rs",
        "process/sys.rs",
        "process/sys/",
        "reactor/sys.rs",
    ]
    .map(Path::new);
    let is_home = |file: &&File| homes.iter().any(|home| file.path.starts_with(home));
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| !is_home(file)) {
        let unsafe_code = |line: &str| {
            line.split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
        };
        let found = file.code().filter(|(_, line)| unsafe_code(line));
        offences.extend(found.map(|(number, _)| format!("{}:{number}: unsafe", file.path.display())));
    }
    report(&offences);
}

/// An arm that takes whatever the other arms do not, with a condition or without.
fn is_wildcard(line: &str) -> bool {
    line.match_indices("_ =>")
        .chain(line.match_indices("_ if "))
        .any(|(at, _)| {
            let before = line[..at].chars().next_back();
            before.is_none_or(|c| c == ' ')
        })
}

/// A new state or event must be decided everywhere, so each is written out.
#[test]
fn a_core_decides_every_case() {
    assert!(is_wildcard("    _ => {}") && is_wildcard("A | _ if b => {}") && !is_wildcard("Some(_) => {}"));
    let mut offences = Vec::new();
    for file in sources().iter().filter(|file| file.is_in_a_core()) {
        let found = file.code().filter(|(_, line)| is_wildcard(line));
        offences.extend(found.map(|(number, line)| format!("src/{}: a wildcard: {}", file.place(number), line.trim())));
    }
    report(&offences);
}

/// A function that has begun and not ended.
struct Function {
    name: String,
    start: usize,
    /// Its last line.
    end: String,
    /// A trait's method may have none.
    has_body: bool,
}

impl Function {
    fn begins(number: usize, line: &str) -> Option<Function> {
        let words = line.trim_start();
        let indent = &line[..line.len() - words.len()];
        let (before, rest) = without_visibility(words).split_once("fn ")?;
        let mut before = before.split_whitespace();
        let is_function = before.all(|word| ["const", "unsafe", "extern", "\"C\""].contains(&word))
            && !words.trim_end().ends_with(['}', ';']);
        is_function.then(|| Function {
            name: rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect(),
            start: number,
            end: format!("{indent}}}"),
            has_body: line.trim_end().ends_with('{'),
        })
    }

    fn offence(&self, file: &File, end: usize) -> Option<String> {
        let lines = end - self.start;
        (lines > LONGEST_FUNCTION)
            .then(|| format!("{}: {}, a function of {lines} lines", file.place(self.start), self.name))
    }
}

/// The line without a `pub`, `pub(crate)` or `pub(in path)` at its beginning.
fn without_visibility(line: &str) -> &str {
    let Some(rest) = line.strip_prefix("pub") else {
        return line;
    };
    match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest.trim_start(),
    }
}

#[test]
fn files_and_functions_are_about_one_thing() {
    let mut offences = Vec::new();
    for file in &sources() {
        let length = file.lines_without_tests().count();
        if length > LONGEST_FILE {
            offences.push(format!("{}: {length} lines without its tests", file.path.display()));
        }
        let mut began: Option<Function> = None;
        for (number, line) in file.code() {
            match &mut began {
                None => began = Function::begins(number, line),
                Some(function) if line.trim_end() == function.end => {
                    offences.extend(function.offence(file, number));
                    began = None;
                }
                Some(function) => {
                    function.has_body |= line.trim_end().ends_with('{');
                    if !function.has_body && line.trim_end().ends_with(';') {
                        began = None;
                    }
                }
            }
        }
    }
    report(&offences);
}

#[test]
fn a_function_is_seen_whatever_its_visibility() {
    for line in [
        "fn a() {",
        "    pub fn a(",
        "pub(crate) const fn a() {",
        "pub(in crate::doors::pool) unsafe fn a(b: C) {",
    ] {
        assert_eq!(
            Function::begins(1, line).map(|function| function.name),
            Some("a".to_owned()),
            "{line}"
        );
    }
    assert!(Function::begins(1, "fn a(&self);").is_none() && Function::begins(1, "b(fn a() {").is_none());
}

/// Files that write times for programs: the statistics, flags and keys as they are typed, answers to clients, the access
/// log.
const TIMES_FOR_PROGRAMS: [&str; 6] = [
    "amount.rs",
    "stats/text.rs",
    "config/units.rs",
    "framing/mod.rs",
    "doors/command/core/event.rs",
    "doors/route/access_log.rs",
];

/// Words in the names of times. A name in capitals is looked at in small ones.
const NAMES_OF_TIMES: [&str; 14] = [
    "time", "timeout", "delay", "pause", "patience", "duration", "limit", "elapsed", "waited", "served", "took", "age",
    "ran", "lived",
];

/// A time that a line of code writes by itself: one in the form of `Debug`, or a number cut at a fixed count of
/// decimals.
fn writes_a_time(line: &str) -> bool {
    let is_time = |name: &str| {
        let name = name.to_lowercase();
        let mut words = name.split(|c: char| !c.is_ascii_alphabetic());
        words.any(|word| NAMES_OF_TIMES.contains(&word))
    };
    line.match_indices('{').any(|(at, _)| {
        let Some((name, form)) = line[at + 1..].split('}').next().and_then(|hole| hole.split_once(':')) else {
            return false;
        };
        let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
        let has_decimals = form.starts_with('.') && form[1..].starts_with(|c: char| c.is_ascii_digit());
        // Without a name what is written stands behind, often on the same line.
        let named = if name.is_empty() { &line[at..] } else { name };
        is_name && (has_decimals || (form.ends_with('?') && is_time(named)))
    })
}

#[test]
fn times_are_written_in_one_form() {
    for offender in [
        r#"format!("after {ran:?}")"#,
        r#"format!("after {:.3} s", ran)"#,
        r#"format!("after {:?}", options.busy_timeout)"#,
        r#"format!("after {PATIENCE:?}")"#,
    ] {
        assert!(writes_a_time(offender), "{offender}");
    }
    assert!(!writes_a_time(r#"format!("{name:?} {} {:>9}: {}", a, b, c)"#));
    let mut offences = Vec::new();
    let is_for_people = |file: &&File| !TIMES_FOR_PROGRAMS.iter().any(|path| file.path == Path::new(path));
    for file in sources().iter().filter(is_for_people) {
        let found = file.code().filter(|(_, line)| writes_a_time(line));
        offences.extend(found.map(|(number, _)| {
            let path = file.path.display();
            format!("{path}:{number}: writes a time by itself; see src/amount.rs")
        }));
    }
    report(&offences);
}

/// A level can be given to each room that logs.
#[test]
fn every_room_that_logs_has_a_name_for_its_level() {
    let mut offences = Vec::new();
    for file in &sources() {
        let logs = |(_, line): &(usize, &str)| {
            let levels = ["error", "warn", "info", "debug", "trace", "log"];
            levels.iter().any(|level| line.contains(&format!("log::{level}!(")))
        };
        let path = file.path.with_extension("").display().to_string().replace('/', "::");
        let path = format!("iotcpd::{}", path.trim_end_matches("::mod"));
        let room = iotcpd::internals::log::room(&path);
        if file.code().any(|line| logs(&line)) && !iotcpd::internals::log::ROOMS.iter().any(|(name, _)| *name == room) {
            offences.push(format!("{}: room {room}", file.path.display()));
        }
    }
    report(&offences);
}

/// A line that begins with the name of a service says so to collectors as well.
#[test]
fn lines_about_a_service_name_it() {
    let mut offences = Vec::new();
    for file in &sources() {
        let code: String = file.code().map(|(_, line)| format!("{line}\n")).collect();
        for macro_call in code.split("log::").skip(1) {
            let Some((before, message)) = macro_call.split_once('"') else {
                continue;
            };
            let is_one = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "log!("]
                .iter()
                .any(|name| before.starts_with(name));
            let names = ["{}: ", "{name}: ", "{door}: ", "{service}: "]
                .iter()
                .any(|hole| message.starts_with(hole));
            if is_one && names && !before.contains("service") {
                let line = message.lines().next().unwrap_or_default();
                offences.push(format!("{}: log::{before}\"{line}", file.path.display()));
            }
        }
    }
    report(&offences);
}

/// A test waits for an event: a sleep is either too short on a loaded machine or too long on every other.
#[test]
fn tests_never_sleep() {
    let mut offences = Vec::new();
    for file in &source::files_in("tests") {
        let sleeps = file
            .code()
            .filter(|(_, line)| line.contains(concat!("thread::", "sleep(")));
        offences.extend(sleeps.map(|(number, _)| format!("tests/{}: sleeps", file.place(number))));
    }
    report(&offences);
}

#[test]
fn main_is_short() {
    let main = sources()
        .into_iter()
        .find(|file| file.path == Path::new("main.rs"))
        .unwrap();
    assert!(main.text.lines().count() < 40);
}

/// Each counter is written by the room that it belongs to, and shown in the statistics of every door that has it.
#[test]
fn every_counter_is_counted_and_shown() {
    let doors: Vec<_> = doors_with("report.rs")
        .iter()
        .map(|door| format!("doors/{door}"))
        .collect();
    let doors: Vec<&str> = doors.iter().map(String::as_str).collect();
    let mut offences = Vec::new();
    for &door in &doors {
        let at_least = match door {
            "doors/pool" => 23,
            "doors/exec" => 6,
            "doors/command" => 8,
            "doors/route" => 15,
            "doors/tunnel" => 6,
            _ => 1,
        };
        let text = text_of(&format!("{door}/core/counters.rs"));
        let counters = text.split("impl Counters").next().unwrap();
        let counters = counters.split("pub struct Traffic").next().unwrap();
        offences.extend(forgotten_counters(counters, at_least, &[door], &[door]));
    }
    let refused = struct_in("doors/front/mod.rs", "Refused");
    // A tunnel door has no listeners.
    let listening: Vec<_> = doors.iter().copied().filter(|door| *door != "doors/tunnel").collect();
    offences.extend(forgotten_counters(&refused, 3, &["doors/front"], &listening));
    let programs = struct_in("doors/programs.rs", "ProgramCounters");
    let (exec_alone, in_both): (Vec<_>, Vec<_>) = programs.lines().partition(|line| line.contains("overflown"));
    let (exec, both) = (["doors/exec"], ["doors/exec", "doors/command"]);
    let rooms = ["doors/programs.rs", "doors/exec/shell", "doors/command/shell"];
    offences.extend(forgotten_counters(&exec_alone.join("\n"), 1, &rooms, &exec));
    offences.extend(forgotten_counters(&in_both.join("\n"), 8, &rooms, &both));
    report(&offences);
}

/// The fields of a struct.
fn struct_in(path: &str, name: &str) -> String {
    let text = text_of(path);
    let fields = text.split(&format!("struct {name} {{")).nth(1).unwrap();
    fields.split('}').next().unwrap().to_owned()
}

fn text_of(path: &str) -> String {
    let file = sources().into_iter().find(|file| file.path == Path::new(path));
    file.unwrap_or_else(|| panic!("{path} exists")).text
}

/// The fields among these lines, at least this number, that no file of these rooms counts, or the report of one of the
/// doors does not show.
fn forgotten_counters(lines: &str, at_least: usize, rooms: &[&str], doors: &[&str]) -> Vec<String> {
    let fields: Vec<&str> = lines
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("pub"))
        .filter_map(|line| Some(without_visibility(line).split_once(": u64")?.0))
        .collect();
    assert!(fields.len() >= at_least, "the counters of {rooms:?} were found");
    let files = sources();
    let code: Vec<(usize, &str)> = files
        .iter()
        .filter(|file| rooms.iter().any(|room| file.path.starts_with(room)))
        .flat_map(File::code)
        .collect();
    let reports: Vec<String> = doors.iter().map(|door| text_of(&format!("{door}/report.rs"))).collect();
    let mut offences = Vec::new();
    for field in fields {
        let counted = |line: &str| {
            line.contains(&format!("&mut refusals.{field}"))
                || line.contains(&format!("&mut restarts.{field}"))
                || line.contains(&format!("&mut counters.refusals.{field}"))
                || line.contains(&format!("&mut self.{field}"))
                || line.contains(&format!("{field} += "))
        };
        if !code.iter().any(|(_, line)| counted(line)) {
            offences.push(format!("{rooms:?}: {field} is never counted"));
        }
        for (door, report) in doors.iter().zip(&reports) {
            if !report.contains(&format!(".{field}")) {
                offences.push(format!("{rooms:?}: {field} is not in the report of {door}"));
            }
        }
    }
    offences
}
