//! The manual pages against the program, in both directions: flags, defaults, keys, statistics, examples.
//!
//! The invariant: everything that `--help` or `kill -USR1` show stands in the manual, and the manual names nothing
//! else. The pages are read as mdoc source, by the conventions that their first lines tell: an entry is an `.It` line
//! and what follows it.

use std::any::TypeId;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command as Process;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, Args, Command};
use iotcpd::internals::config::Framing;
use iotcpd::internals::config::Levels;
use iotcpd::internals::config::file;
use iotcpd::internals::config::spec::command::{ArgumentSpec, EntrySpec};
use iotcpd::internals::config::spec::exec::Protocol;
use iotcpd::internals::config::spec::fail::Fail;
use iotcpd::internals::config::spec::listen::MinTls;
use iotcpd::internals::config::spec::log::{Format, LogTable};
use iotcpd::internals::config::spec::pool::{HalfClose, LineEnd, Mode};
use iotcpd::internals::config::spec::route::{
    Balance, Hidden, HttpMode, SendProxy, ServerSpec, ServiceSpec, ServiceTls, StoreKind, StoreSpec,
};
use iotcpd::internals::config::spec::yes_no::YesNo;
use iotcpd::internals::config::units::{Escaped, FileMode, Size, Time, Whole};

use crate::harness::{Certificate, Daemon, temp_dir};
use crate::house::doors_with;
use crate::route_peers::RouteFile;

const PROGRAM_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/iotcpd.1");
const FILE_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/iotcpd.toml.5");
const TLS_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/iotcpd-tls.7");
const ROUTE_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/iotcpd-route.1");
const TUNNEL_PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/iotcpd-tunnel.1");
const PAGES: [&str; 5] = [PROGRAM_PAGE, FILE_PAGE, TLS_PAGE, ROUTE_PAGE, TUNNEL_PAGE];

/// The heading under which the flags of the pool stand, with those of `iotcpd` itself.
const POOL_HEADING: &str = ".Ss iotcpd, iotcpd pool";

/// The heading under which the flags of the commands for a store stand.
const STORE_HEADING: &str = ".Ss iotcpd route put, del, list, import";

/// A manual page, line by line.
struct Page(Vec<String>);

/// The text at one `.It`: the words of that line, and the lines up to the next entry or the end of the list.
struct Entry {
    head: Vec<String>,
    body: Vec<String>,
}

impl Page {
    fn read(path: &str) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("cannot read {path}: {error}"));
        Self(text.lines().map(str::to_owned).collect())
    }

    /// The lines from a heading to the next one of `ends`.
    fn part(&self, heading: &str, ends: &[&str]) -> &[String] {
        let heading_at = self.0.iter().position(|line| line == heading);
        let begin = 1 + heading_at.unwrap_or_else(|| panic!("the page has no line {heading:?}"));
        let ends_here = |line: &String| ends.iter().any(|end| line.starts_with(end));
        let length = self.0[begin..].iter().position(ends_here);
        &self.0[begin..length.map_or(self.0.len(), |length| begin + length)]
    }

    /// The entries under a subsection heading.
    fn entries(&self, heading: &str) -> Vec<Entry> {
        entries(self.part(heading, &[".Ss ", ".Sh "]))
    }

    /// The blocks of literal text in a section, as they are shown; folded lines are joined.
    fn literal_blocks(&self, heading: &str) -> Vec<String> {
        let part = self.part(heading, &[".Sh "]).join("\n");
        let blocks = part.split("\n.Bd -literal").skip(1);
        let blocks = blocks.map(|block| block.split_once('\n').unwrap().1.split("\n.Ed").next().unwrap());
        blocks.map(|block| shown(&join_folded(block))).collect()
    }
}

fn entries(lines: &[String]) -> Vec<Entry> {
    let mut found: Vec<Entry> = Vec::new();
    for line in lines {
        if let Some(head) = line.strip_prefix(".It ") {
            let head = head.split_whitespace().map(str::to_owned).collect();
            found.push(Entry { head, body: Vec::new() });
        } else if let Some(entry) = found.last_mut() {
            entry.body.push(line.clone());
        }
    }
    found
}

impl Entry {
    /// The text behind a macro in the `.It` line, up to the next macro.
    fn words_of(&self, macro_name: &str) -> Option<String> {
        let (first, rest) = self.head.split_first()?;
        let words = rest.iter().take_while(|word| !is_macro(word)).map(String::as_str);
        (first == macro_name).then(|| words.collect::<Vec<_>>().join(" "))
    }

    /// The text of its `Default: ...`, the full stop left out.
    fn default(&self) -> Option<String> {
        let text = self.body.join(" ");
        let (_, default) = text.split_once("Default: ")?;
        let default = default.split(" .").next().unwrap_or(default);
        Some(shown(default).trim_end_matches('.').to_owned())
    }
}

/// A folded line ends in a backslash and goes on, indented, in the next.
fn join_folded(block: &str) -> String {
    let mut joined = String::new();
    for line in block.lines() {
        match line.strip_suffix("\\e") {
            Some(begun) => joined.push_str(begun),
            None => joined.extend([line, "\n"]),
        }
    }
    joined.split_inclusive('\n').map(single_blanks).collect()
}

/// The indentation of a folded line is no part of it.
fn single_blanks(line: &str) -> String {
    let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// roff's escapes as they are shown.
fn shown(source: &str) -> String {
    let plain = source
        .replace("\\-", "-")
        .replace("\\(dq", "\"")
        .replace("\\(aq", "'")
        .replace("\\&", "");
    plain.replace("\\e", "\\")
}

fn is_macro(word: &str) -> bool {
    matches!(word.as_bytes(), [first, second] if first.is_ascii_uppercase() && second.is_ascii_lowercase())
}

/// Every flag that a macro line names by `Fl`, spelled with its dashes.
fn flags_in(words: &[String]) -> BTreeSet<String> {
    let (mut flags, mut in_flags) = (BTreeSet::new(), false);
    for word in words {
        if is_macro(word) {
            in_flags = word == "Fl";
        } else if in_flags && word.contains(|c: char| c.is_ascii_alphanumeric()) {
            flags.insert(format!("-{word}"));
        }
    }
    flags
}

fn program() -> Command {
    let mut command = iotcpd::internals::cli::command();
    command.build();
    command
}

fn subcommand(name: &str) -> Command {
    let found = program().find_subcommand(name).cloned();
    found.unwrap_or_else(|| panic!("there is no command {name}"))
}

fn flags(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|argument| !argument.is_positional())
}

/// A flag in all its spellings, aliases too.
fn spellings(flag: &Arg) -> BTreeSet<String> {
    let long = flag
        .get_long()
        .into_iter()
        .chain(flag.get_all_aliases().unwrap_or_default());
    let short = flag
        .get_short()
        .into_iter()
        .chain(flag.get_all_short_aliases().unwrap_or_default());
    let short = short.map(|letter| format!("-{letter}"));
    long.map(|name| format!("--{name}")).chain(short).collect()
}

/// The flags of the log belong to every command, and have a heading of their own.
const LOG_HEADING: &str = ".Ss The log of every command";

fn is_of_the_log(flag: &Arg) -> bool {
    matches!(flag.get_long(), Some("log-level" | "log-format"))
}

fn default_in_help(flag: &Arg) -> Option<String> {
    let help = flag.get_help().map(StyledStr::to_string)?;
    let (_, default) = help.split_once("[default: ")?;
    Some(default.trim_end_matches(']').to_owned())
}

/// The flags that have their entries under the heading of a command.
fn own_flags(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_log = command.get_name() == "log";
    flags(command).filter(move |flag| is_log || !is_of_the_log(flag))
}

/// Every command of the program with the heading of its flags.
fn headings() -> Vec<(Command, String)> {
    let commands = program()
        .get_subcommands()
        .map(|it| it.get_name().to_owned())
        .collect::<Vec<_>>();
    let others = commands.iter().filter(|name| *name != "pool");
    let others = others.map(|name| (subcommand(name), format!(".Ss iotcpd {name}")));
    let log = Command::new("log").args(flags(&program()).filter(|flag| is_of_the_log(flag)).cloned());
    let all = [
        (log, LOG_HEADING.to_owned()),
        (program(), POOL_HEADING.to_owned()),
        (store_commands(), STORE_HEADING.to_owned()),
    ];
    all.into_iter().chain(others).collect()
}

/// The commands for the store of a route door, as one with the flags of all.
fn store_commands() -> Command {
    let mut all: BTreeMap<String, Arg> = BTreeMap::new();
    for command in subcommand("route").get_subcommands() {
        all.extend(flags(command).map(|flag| (flag.get_id().to_string(), flag.clone())));
    }
    Command::new("store").args(all.into_values())
}

#[test]
fn the_pool_has_the_flags_of_the_program() {
    let of = |command: &Command| flags(command).map(spellings).collect::<BTreeSet<_>>();
    assert_eq!(of(&subcommand("pool")), of(&program()));
}

#[test]
fn every_flag_has_its_entry_and_every_entry_its_flag() {
    let page = Page::read(PROGRAM_PAGE);
    for (command, heading) in headings() {
        let entries = page.entries(&heading);
        let entries = entries
            .iter()
            .filter(|entry| entry.head.first().is_some_and(|first| first == "Fl"));
        let in_page: BTreeSet<_> = entries.map(|entry| flags_in(&entry.head)).collect();
        let in_help: BTreeSet<_> = own_flags(&command).map(spellings).collect();
        assert_eq!(in_page, in_help, "{heading}");
    }
}

#[test]
fn the_page_speaks_of_no_flag_that_does_not_exist() {
    let known: BTreeSet<String> = headings()
        .iter()
        .flat_map(|(it, _)| flags(it).flat_map(spellings).collect::<Vec<_>>())
        .collect();
    for path in PAGES {
        for line in Page::read(path)
            .0
            .iter()
            .filter(|line| line.starts_with('.') && !line.starts_with(".\\\""))
        {
            let words: Vec<String> = line[1..].split_whitespace().map(str::to_owned).collect();
            let unknown: Vec<_> = flags_in(&words).difference(&known).cloned().collect();
            assert!(unknown.is_empty(), "{line} speaks of {unknown:?}");
        }
    }
}

#[test]
fn defaults_are_those_of_the_help() {
    let page = Page::read(PROGRAM_PAGE);
    for (command, heading) in headings() {
        let entries = page.entries(&heading);
        for flag in own_flags(&command) {
            let spelled = spellings(flag);
            let entry = entries.iter().find(|entry| flags_in(&entry.head) == spelled);
            let entry = entry.unwrap_or_else(|| panic!("{heading} has no entry {spelled:?}"));
            assert_eq!(entry.default(), default_in_help(flag), "{spelled:?} under {heading}");
        }
    }
}

/// The name of a key's type in the page of the file.
fn type_of(flag: &Arg) -> &'static str {
    let value = flag.get_value_parser().type_id();
    match flag.get_action() {
        ArgAction::SetTrue => "(switch)",
        ArgAction::Append if value == TypeId::of::<ArgumentSpec>() => "(list of arguments)",
        ArgAction::Append if value == TypeId::of::<ServerSpec>() => "(list of servers)",
        ArgAction::Append => "(list of text)",
        _ if value == TypeId::of::<Time>() => "(time)",
        _ if value == TypeId::of::<Size>() => "(size)",
        _ if value == TypeId::of::<Whole>() => "(number)",
        _ if value == TypeId::of::<bool>() => "(switch)",
        _ if value == TypeId::of::<FileMode>() => "(mode)",
        _ if value == TypeId::of::<Escaped>() => "(bytes)",
        _ if value == TypeId::of::<Framing>() || value == TypeId::of::<LineEnd>() => "(text)",
        _ if value == TypeId::of::<String>() || value == TypeId::of::<HalfClose>() => "(text)",
        _ if value == TypeId::of::<Levels>() || value == TypeId::of::<Format>() => "(text)",
        _ if value == TypeId::of::<Mode>() || value == TypeId::of::<YesNo>() => "(text)",
        _ if value == TypeId::of::<Protocol>() || value == TypeId::of::<Fail>() => "(text)",
        _ if value == TypeId::of::<MinTls>() || value == TypeId::of::<Balance>() => "(text)",
        _ if value == TypeId::of::<HttpMode>() => "(text)",
        _ if value == TypeId::of::<SendProxy>() || value == TypeId::of::<StoreKind>() => "(text)",
        _ if value == TypeId::of::<ServiceTls>() => "(table)",
        _ if value == TypeId::of::<Hidden>() => "(text)",
        _ => panic!("the page has no word for the type of {flag}"),
    }
}

#[test]
fn every_key_has_its_entry_with_type_and_default_and_every_entry_its_key() {
    let page = Page::read(FILE_PAGE);
    for door in doors_with("options.rs") {
        let heading = format!(".Ss Keys of {}", with_article(&door));
        let mut keys = keys_of(&subcommand(&door));
        // On a command line a door is alone.
        if door != "route" && door != "tunnel" {
            let file_only = ("(switch)".to_owned(), Some("off".to_owned()));
            keys.insert("handed-over".to_owned(), file_only);
        }
        assert_eq!(keys_in_page(&page, &heading), keys, "{heading}");
    }
    let log = LogTable::augment_args(Command::new("log"));
    assert_eq!(keys_in_page(&page, ".Ss Keys of the log"), keys_of(&log));
    let entry = EntrySpec::augment_args(Command::new("entry"));
    assert_eq!(keys_in_page(&page, ".Ss Keys of a command"), keys_of(&entry));
    let service = ServiceSpec::augment_args(Command::new("service"));
    assert_eq!(keys_in_page(&page, ".Ss Keys of a routed service"), keys_of(&service));
    let store = StoreSpec::augment_args(Command::new("store"));
    assert_eq!(keys_in_page(&page, ".Ss Keys of a store"), keys_of(&store));
}

/// The door as the headings name it.
fn with_article(door: &str) -> String {
    match door {
        "pool" => "a pool".to_owned(),
        "exec" => "an exec door".to_owned(),
        _ => format!("a {door} door"),
    }
}

/// Each key with its type and default.
type Keys = BTreeMap<String, (String, Option<String>)>;

fn keys_in_page(page: &Page, heading: &str) -> Keys {
    let entries = page.entries(heading);
    let keys = entries.iter().filter_map(|entry| {
        let kind = entry
            .head
            .iter()
            .skip_while(|word| *word != "No")
            .skip(1)
            .cloned()
            .collect::<Vec<_>>();
        Some((entry.words_of("Cm")?, (kind.join(" "), entry.default())))
    });
    keys.collect()
}

fn keys_of(door: &Command) -> Keys {
    // The exit status is the process's, and not a service's; a question is answered without any.
    let is_key = |name: &str| !matches!(name, "help" | "version" | "config" | "exit-codes");
    let is_question = |flag: &Arg| flag.get_help_heading() == Some("Questions");
    let keys = flags(door).filter(|flag| !is_of_the_log(flag) && !is_question(flag));
    let keys = keys.filter(|flag| flag.get_long().is_some_and(is_key));
    let keys = keys.map(|flag| {
        // A file has no flags, so the page says `ipv6` where the help says `--ipv6`.
        let default = default_in_help(flag).map(|default| default.replace("--", ""));
        (flag.get_long().unwrap().to_owned(), (type_of(flag).to_owned(), default))
    });
    keys.collect()
}

#[test]
fn every_line_of_the_statistics_and_of_the_dump_is_documented_in_its_order() {
    let page = Page::read(PROGRAM_PAGE);
    let told = |part: &[String]| {
        entries(part)
            .iter()
            .filter_map(|entry| entry.words_of("Li"))
            .collect::<Vec<_>>()
    };
    // One line is there only with a certificate.
    let certificate = Certificate::new();
    let tls = certificate.flags();
    let tls: Vec<&str> = tls.iter().map(String::as_str).collect();
    let daemon = Daemon::pool(1, "cat", &tls);
    let block = daemon.usr1();
    assert_eq!(told(page.part(".Sh STATISTICS", &[".Ss ", ".Sh "])), block.labels());
    let dump = daemon.usr2();
    let labels = dump
        .iter()
        .filter_map(|line| line.strip_prefix("d[0].")?.split(" = ").next());
    assert_eq!(told(page.part(".Ss The dump", &[".Sh "])), labels.collect::<Vec<_>>());
}

#[test]
fn every_line_of_the_statistics_of_the_other_doors_is_documented_in_its_order() {
    let page = Page::read(PROGRAM_PAGE);
    let home = temp_dir();
    let file = home.path().join("torc.cfg");
    std::fs::write(&file, "processes = ( { name = \"cat\"; cmd = \"/bin/cat\"; } );").unwrap();
    let file = file.to_str().unwrap();
    let certificate = Certificate::new();
    let tls = certificate.flags();
    // The others have pages of their own.
    let is_on_page = |door: &String| !["pool", "route", "tunnel"].contains(&door.as_str());
    for door in doors_with("report.rs").into_iter().filter(is_on_page) {
        let arguments = match door.as_str() {
            "exec" => &["exec", "127.0.0.1:0"][..],
            "command" => &["command", "--config", file, "--listen", "127.0.0.1:0"],
            _ => panic!("this test knows no command line of the {door} door"),
        };
        let heading = format!(".Ss Statistics of {}", with_article(&door));
        let entries = page.entries(&heading);
        let told: Vec<_> = entries.iter().filter_map(|entry| entry.words_of("Li")).collect();
        let arguments = arguments.iter().copied().chain(tls.iter().map(String::as_str));
        let daemon = Daemon::with(arguments).start();
        assert_eq!(told, daemon.usr1().labels(), "{heading}");
    }
}

#[test]
fn every_line_of_the_statistics_of_a_tunnel_door_is_documented_in_its_order() {
    let page = Page::read(TUNNEL_PAGE);
    let told = entries(page.part(".Sh STATISTICS", &[".Sh "]));
    let told: Vec<_> = told.iter().filter_map(|entry| entry.words_of("Li")).collect();
    // No server is there.
    let flags = [
        "tunnel",
        "--remote",
        "127.0.0.1:1",
        "--secret",
        "s",
        "--local",
        "127.0.0.1:1",
    ];
    let daemon = Daemon::with(flags).spawn();
    daemon.stderr_wait("ready");
    assert_eq!(told, daemon.usr1().labels());
}

#[test]
fn every_line_of_the_statistics_of_a_route_door_is_documented_in_its_order() {
    let page = Page::read(ROUTE_PAGE);
    let told = entries(page.part(".Sh STATISTICS", &[".Sh "]));
    let told: Vec<_> = told.iter().filter_map(|entry| entry.words_of("Li")).collect();
    // One line is there only with a certificate.
    let certificate = Certificate::new();
    let (cert, key) = (certificate.path("cert.pem"), certificate.path("key.pem"));
    let keys = format!("addr = '127.0.0.1:1'\ntls = {{ cert = '{cert}', key = '{key}' }}");
    let services = [("CATCH_ALL", keys)];
    let daemon = RouteFile::new("", &services).start();
    assert_eq!(told, daemon.usr1().labels());
}

#[test]
fn the_examples_of_a_route_door_have_no_mistake() {
    for heading in [".Sh DESCRIPTION", ".Sh FROM TCPROUTER"] {
        let blocks = Page::read(ROUTE_PAGE).literal_blocks(heading);
        let files: Vec<_> = blocks.iter().filter(|block| block.starts_with('[')).collect();
        assert!(!files.is_empty(), "{blocks:#?}");
        for example in files {
            file::read("example", example.as_bytes()).unwrap_or_else(|error| panic!("{example}\n{error}"));
        }
    }
}

/// The command lines in a block: in a shell, behind a pipe, in squid.conf, in a unit.
fn command_lines(block: &str) -> Vec<String> {
    let lines = block.lines().filter_map(|line| {
        let line = line.rsplit("| ").next()?;
        let line = ["url_rewrite_program ", "ExecStart=", "ExecReload=", "/usr/local/bin/"]
            .iter()
            .fold(line, |line, prefix| line.strip_prefix(prefix).unwrap_or(line));
        line.starts_with("iotcpd ").then(|| line.to_owned())
    });
    lines.collect()
}

#[test]
fn the_examples_are_understood() {
    let blocks = Page::read(PROGRAM_PAGE).literal_blocks(".Sh EXAMPLES");
    let lines: Vec<String> = blocks.iter().flat_map(|block| command_lines(block)).collect();
    assert!(lines.len() >= 10, "the examples were not found: {lines:#?}");
    let tls = Page::read(TLS_PAGE);
    let headings = tls.0.iter().filter(|line| line.starts_with(".Sh "));
    let blocks = headings.flat_map(|heading| tls.literal_blocks(heading));
    let of_tls: Vec<String> = blocks.flat_map(|block| command_lines(&block)).collect();
    assert!(of_tls.len() >= 4, "the examples of TLS were not found: {of_tls:#?}");
    for line in lines.into_iter().chain(of_tls) {
        let words = shell_words::split(&line).unwrap();
        if let Err(error) = program().try_get_matches_from(words) {
            panic!("{line}\n{error}");
        }
    }
}

#[test]
fn the_example_of_a_file_has_no_mistake() {
    let [example] = Page::read(FILE_PAGE).literal_blocks(".Sh EXAMPLES").try_into().unwrap();
    let services = file::read("example", example.as_bytes()).unwrap_or_else(|error| panic!("{example}\n{error}"));
    assert_eq!(
        services.iter().map(|it| it.name()).collect::<Vec<_>>(),
        ["ads", "tokens", "policy", "jobs", "admin"]
    );
}

#[test]
fn mistakes_in_a_file_are_reported_as_the_page_shows_it() {
    let text = "[pool.main]\ndeamon = \"cat\"\nbusy-timeout = \"soon\"\nnum-daemons = 0\n\n\n[pol.x]\n";
    let said = file::read("bad.toml", text.as_bytes()).unwrap_err().for_terminal();
    assert_eq!(Page::read(FILE_PAGE).literal_blocks(".Sh DIAGNOSTICS"), [said]);
}

/// The operator looks for the line of the log, word by word.
#[test]
fn the_page_of_tls_explains_lines_that_the_program_writes() {
    let page = Page::read(TLS_PAGE);
    let explained: Vec<String> = entries(page.part(".Sh DIAGNOSTICS", &[".Sh "]))
        .iter()
        .filter_map(|entry| entry.words_of("Li"))
        .collect();
    assert!(explained.len() >= 10, "{explained:#?}");
    let sources = [
        "src/net/tls/error.rs",
        "src/net/tls/meter.rs",
        "src/doors/front/handshake.rs",
    ];
    let sources =
        sources.map(|file| std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap());
    for line in explained {
        let is_written = sources.iter().any(|source| source.contains(&format!("\"{line}")));
        assert!(is_written, "no line of the log begins with {line:?}");
    }
}

#[test]
fn mandoc_has_nothing_to_complain_about() {
    for page in PAGES {
        let run = Process::new("mandoc")
            .args(["-T", "lint", "-W", "warning", page])
            .output();
        let run = run.unwrap_or_else(|error| panic!("cannot run mandoc: {error} (scripts/install-peers installs it)"));
        let said = String::from_utf8_lossy(&run.stdout);
        assert!(
            run.status.success() && said.is_empty(),
            "{page}:\n{said}{}",
            String::from_utf8_lossy(&run.stderr)
        );
    }
}

/// Squid's configuration and the flag have to agree, so no example leaves it to a guess.
#[test]
fn each_example_for_squid_says_whether_there_are_channel_ids() {
    let mut examples = 0;
    for file in [
        "man/iotcpd.1",
        "man/iotcpd-tls.7",
        "README.md",
        "src/cli/ask.rs",
        "src/cli/mod.rs",
    ] {
        let text = std::fs::read_to_string(format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for line in text.lines().filter(|line| line.contains("bin/iotcpd ask --squid")) {
            assert!(line.contains("--channel-ids "), "{file}: {line}");
            examples += 1;
        }
    }
    assert!(examples >= 8, "{examples} were found");
}

/// On a terminal of 80 characters an example stays as it can be copied, and no paragraph has breaks of its own beside
/// the ones that are made for it.
#[test]
fn the_text_below_the_flags_fits_a_terminal() {
    for (command, _) in headings() {
        let below = command.get_after_help().map(StyledStr::to_string).unwrap_or_default();
        let lines = below.lines().collect::<Vec<_>>();
        for (line, next) in lines.iter().zip(lines.iter().skip(1).chain([&""])) {
            let is_example = line.starts_with(' ');
            assert!(
                line.len() <= 80 || !is_example && next.is_empty(),
                "{}: {line}",
                command.get_name()
            );
        }
    }
}

/// `.Pq`, `.Ql` and their like go on to the end of their line, and a bracket that stands alone loses the blank before
/// it.
#[test]
fn quotes_and_parentheses_of_the_pages_end_where_they_should() {
    for page in PAGES {
        for line in Page::read(page).0.iter().filter(|line| line.starts_with('.')) {
            let words = line.split_whitespace().collect::<Vec<_>>();
            let is_quote = |word: &&str| ["Ql", "Dq", "Sq", ".Ql", ".Dq", ".Sq"].contains(word);
            let quoted = words.iter().skip_while(|word| !is_quote(word));
            let quoted = quoted.collect::<Vec<_>>();
            assert!(
                !quoted.contains(&&"No"),
                "{page}: the quote does not end before No: {line}"
            );
            let last_word = words.iter().rposition(|word| !is_delimiter(word)).unwrap_or(0);
            let behind = words.len() - last_word - 1;
            let inside = &quoted[..quoted.len().saturating_sub(behind)];
            assert!(
                !inside.iter().any(|word| [")", "]"].contains(word)),
                "{page}: write \\&] or \\&) for the blank before it: {line}"
            );
            if words[0] == ".Pq" || words.contains(&"Pq") {
                let ends = |word: &&str| *word == ";";
                assert!(
                    !words[..last_word].iter().any(ends),
                    "{page}: the parenthesis goes on behind the semicolon: {line}"
                );
            }
        }
    }
}

fn is_delimiter(word: &&str) -> bool {
    [".", ",", ":", ";", ")", "]", "?", "!"].contains(word)
}
