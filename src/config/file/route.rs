//! A route door in a file: its own keys, a section for its store, and one for each of its services. A service whose connections are told
//! apart by ALPN has several entries, which are a list of tables.
//!
//! The table `[server]` of a router.toml is read here as well, once `router_toml` has given its keys their usual names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use clap::Arg;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::definition::Spec;
use super::handing::Reference;
use super::keys::{Keys, Section};
use super::needs::Needs;
use super::report::Report;
use super::{Collected, accept};
use crate::config::lower::{self, KeyRef, LoweredService, Mistake, Programs, ServiceDefaults};
use crate::config::quote::{Quoted, in_header};
use crate::config::spec::listen::TlsSpec;
use crate::config::spec::route::{RouteSpec, ServiceSpec, StoreSpec};
use crate::doors::front::options::TlsOptions;
use crate::doors::route::options::{CATCH_ALL, Options, Pattern, Rule, StoreSettings, Table, Target};

/// The key of a door's table that holds its services.
pub(super) const SERVICES: &str = "services";

/// The key of a door's table that holds its store.
pub(super) const STORE: &str = "store";

/// The kinds of stores that are known and not served.
const OTHER_STORES: [&str; 3] = ["etcd", "boltdb", "consul"];

/// Everything that services have beside their rules.
#[derive(Default)]
struct Beside {
    /// The doors that they name.
    references: Vec<Reference>,
    /// The settings of the TLS that ends at the door.
    tls: BTreeMap<Arc<str>, TlsOptions>,
    /// The files of these, each with the position of its setting.
    files: Vec<(usize, TlsSpec)>,
    /// The programs behind their servers.
    programs: Programs,
}

/// One service as written: its name, and the keys of each entry.
struct Service<'i> {
    name: Spanned<DeString<'i>>,
    entries: Vec<Entry<'i>>,
}

/// One entry of a service: the keys, and the name of the service at the position of their header.
struct Entry<'i> {
    header: Spanned<DeString<'i>>,
    table: DeTable<'i>,
}

/// The parts of a door that the two kinds of file write in different ways.
pub(super) struct DoorParts<'t, 'i> {
    /// The keys of the door, with its services.
    pub(super) section: &'t Section<'t, 'i>,
    /// The header of the door's table, without its brackets.
    pub(super) header: String,
    /// True if every listener that was written is among the keys: if not, a mistake in it has been reported.
    pub(super) is_whole: bool,
    /// The settings made by flags, which override the keys.
    pub(super) flags: RouteSpec,
}

/// Reads a table `[route.NAME]`.
pub(super) fn read_table(section: &Section<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let written = DoorParts {
        section,
        header: format!("route.{}", in_header(section.name.get_ref())),
        is_whole: true,
        flags: RouteSpec::default(),
    };
    read(written, found)
}

/// Reads the door and its services. Returns `None` after a mistake, which has been reported.
pub(super) fn read(written: DoorParts<'_, '_>, found: &mut Collected<'_>) -> Option<Options> {
    let DoorParts {
        section,
        header,
        is_whole,
        flags,
    } = written;
    let mut own = section.table.clone();
    let written_store = own.remove_entry(STORE);
    let has_store = written_store.is_some();
    let store = written_store.and_then(|(name, value)| store(&name, &value, found));
    let report = &mut found.report;
    let services = match own.remove(SERVICES) {
        Some(services) => services_of(services, &header, report),
        None if has_store => Vec::new(),
        None => {
            let place = section.name.span().start;
            report.add(place, format!("no service is described; {}", example(&header)));
            Vec::new()
        }
    };
    let section = Section::new(section.name, &own);
    let (mut spec, keys) = Keys::read_with_others::<RouteSpec>(&section, &[SERVICES, STORE], report);
    let of_flags = flags.overlay_onto(&mut spec);
    let (table, names, beside) = table(services, &lower::service_defaults(&spec), found);
    let from = section.name.get_ref();
    let references = beside.references.into_iter();
    let references = references.map(|reference| (from.to_string(), reference));
    found.references.extend(references);
    if let Some(needs) = &mut found.needs {
        let files = beside.files.iter();
        files.for_each(|(place, spec)| needs.add_identities_at(*place, spec));
        needs.add_identities(&keys, &spec.tls);
    }
    let report = &mut found.report;
    if !lower::service_defaults(&spec).listens_for_tunnels() {
        warn_of_tunnels(&table, &names, report);
    }
    if found.needs.is_some() {
        warn_of_coalescing(&table, names, report);
    }
    let is_whole = is_whole && keys.all_read();
    let services = lower::Services {
        table,
        tls: beside.tls,
        programs: beside.programs,
        store,
    };
    let mut lowered = lower::route(section.name.get_ref(), &spec, services, is_whole);
    if let Err(mistakes) = &mut lowered {
        for mistake in mistakes.extract_if(.., |mistake| of_flags.contains(&mistake.origin.key)) {
            report.add_general(format!("iotcpd: {}", mistake.for_flags()));
        }
    }
    accept(&keys, lowered, found)
}

fn example(header: &str) -> String {
    format!("write a table with a name, such as [{header}.{SERVICES}.\"www.example.org\"]")
}

/// Reads the table of a store. Returns `None` after a mistake, which has been reported.
fn store(
    name: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    found: &mut Collected<'_>,
) -> Option<StoreSettings> {
    let key = name.get_ref();
    let Some(table) = value.get_ref().as_table() else {
        let text = format!("{key}: this is not a table; write {key} = {{ addr = \"127.0.0.1\" }}");
        found.report.add(value.span().start, text);
        return None;
    };
    let kind = table.get("type");
    if let Some((place, kind)) = kind.and_then(|kind| Some((kind.span().start, kind.get_ref().as_str()?)))
        && OTHER_STORES.contains(&kind)
    {
        let text = format!(
            "type: names in {kind} are not served; keep them in a Redis, or write them into this file and leave the \
             table out"
        );
        found.report.add(place, text);
        return None;
    }
    let section = Section::new(name, table);
    let (spec, keys) = Keys::read::<StoreSpec>(&section, &mut found.report);
    match lower::store(&spec) {
        Ok(store) => {
            if let Some(needs) = &mut found.needs {
                needs.add_store(&keys, &store);
            }
            Some(store)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                found.report.add(keys.place(mistake.origin), mistake.to_string());
            }
            None
        }
    }
}

/// Returns the tables below `services`.
fn services_of<'i>(services: Spanned<DeValue<'i>>, header: &str, report: &mut Report<'_>) -> Vec<Service<'i>> {
    let place = services.span().start;
    let tables = match services.into_inner() {
        DeValue::Table(tables) if !tables.is_empty() => tables,
        _ => {
            report.add(
                place,
                format!("{SERVICES}: no service is described; {}", example(header)),
            );
            return Vec::new();
        }
    };
    let mut services = Vec::new();
    for (name, value) in tables {
        if let Some((place, text)) = value
            .get_ref()
            .as_table()
            .and_then(|table| in_pieces(&name, table, header))
        {
            report.add_lazily(place, || text);
            continue;
        }
        match entries(&name, value.into_inner()) {
            Some(entries) => services.push(Service { name, entries }),
            None => {
                let text = format!("{} is not a service; {}", Quoted(name.get_ref()), example(header));
                report.add_lazily(name.span().start, || text);
            }
        }
    }
    // The parser sorts a table by its names; a mistake that two services make together is the second one's.
    services.sort_by_key(|service| service.name.span().start);
    services
}

/// Returns the mistake in a name with dots that stands in a header without quotes, which TOML reads as a table in a
/// table.
fn in_pieces(name: &Spanned<DeString<'_>>, table: &DeTable<'_>, header: &str) -> Option<(usize, String)> {
    let definition = ServiceSpec::definition();
    let is_key = |key: &str| {
        let mut known = definition.get_arguments().filter_map(Arg::get_long);
        known.any(|known| known == key)
    };
    let (mut host, mut table, mut place) = (name.get_ref().to_string(), table, None);
    while let Some((key, below)) = table
        .iter()
        .find_map(|(key, value)| Some((key, value.get_ref().as_table().filter(|_| !is_key(key.get_ref()))?)))
    {
        place.get_or_insert_with(|| key.span().start);
        host = format!("{host}.{}", key.get_ref());
        table = below;
    }
    let header = format!("[{header}.{SERVICES}.{}]", in_header(&host));
    Some((place?, format!("a name with dots stands in quotes; write {header}")))
}

/// Returns the entries of a service; `None` if its value is neither a table nor a list of tables.
fn entries<'i>(name: &Spanned<DeString<'i>>, value: DeValue<'i>) -> Option<Vec<Entry<'i>>> {
    match value {
        DeValue::Table(table) => Some(vec![Entry {
            header: name.clone(),
            table,
        }]),
        DeValue::Array(list) if !list.is_empty() => {
            let entry = |value: Spanned<DeValue<'i>>| match (value.span(), value.into_inner()) {
                (span, DeValue::Table(table)) => Some(Entry {
                    header: Spanned::new(span, name.get_ref().clone()),
                    table,
                }),
                _ => None,
            };
            list.into_iter().map(entry).collect()
        }
        _ => None,
    }
}

/// Reads the services into a table. Returns it, the name of each service with its position, and what they name.
/// After a mistake, which has been reported, the service is not in the table.
fn table(
    services: Vec<Service<'_>>,
    defaults: &ServiceDefaults,
    found: &mut Collected<'_>,
) -> (Table, Vec<(usize, Pattern)>, Beside) {
    let (mut table, mut beside) = (Table::default(), Beside::default());
    let mut names = Vec::with_capacity(services.len());
    // The name of each service as it is written.
    let mut written: HashMap<String, String> = HashMap::new();
    for service in services {
        let name = service.name.get_ref();
        let rules = rules(&service, defaults, &mut beside, found);
        let report = &mut found.report;
        let place = service.name.span().start;
        let pattern = match lower::service_name(name) {
            Ok(pattern) => pattern,
            Err(text) => {
                report.add(place, text);
                continue;
            }
        };
        if let Some(before) = written.insert(pattern.to_string(), name.to_string()) {
            let (before, name) = (Quoted(&before), Quoted(name));
            let text = format!("{before} and {name} are one name, whatever their letters; leave out one of the two");
            report.add(place, text);
        }
        names.push((place, pattern.clone()));
        table.insert(pattern, rules);
    }
    (table, names, beside)
}

/// Warns once of the services that tunnel clients are to serve, where no such client can connect.
fn warn_of_tunnels(table: &Table, names: &[(usize, Pattern)], report: &mut Report<'_>) {
    let mut tunnels = names.iter().filter(|(_, name)| {
        let rules = table.get(name).map(|service| &service.rules);
        rules.is_some_and(|rules| rules.iter().any(|rule| matches!(rule.target, Target::Tunnel(_))))
    });
    let Some((place, first)) = tunnels.next() else { return };
    let others = match tunnels.count() {
        0 => String::new(),
        1 => " and of one other service".to_owned(),
        others => format!(" and of {others} other services"),
    };
    report.add_ignored(*place, || {
        let first = first.to_string();
        let first = Quoted(&first);
        format!(
            "client-secret: no tunnel client can connect, so clients of {first}{others} are refused; write tunnel-listen as \
             well, for example \"*:18000\""
        )
    });
}

fn warn_of_coalescing(table: &Table, names: Vec<(usize, Pattern)>, report: &mut Report<'_>) {
    let (places, names): (Vec<usize>, Vec<Pattern>) = names.into_iter().unzip();
    for (index, text) in lower::coalescing(table, &names) {
        let place = places.get(index).copied().unwrap_or_default();
        report.add_ignored(place, || text);
    }
}

/// Reads the entries of a service. An entry with a mistake, which has been reported, is left out.
fn rules(
    service: &Service<'_>,
    defaults: &ServiceDefaults,
    beside: &mut Beside,
    found: &mut Collected<'_>,
) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for (index, entry) in service.entries.iter().enumerate() {
        let report = &mut found.report;
        let section = Section::new(&entry.header, &entry.table);
        let (spec, keys) = Keys::read::<ServiceSpec>(&section, report);
        let place = keys.place(KeyRef::key("alpn"));
        let id = match index {
            0 => service.name.get_ref().to_string(),
            _ => format!("{}, entry {}", service.name.get_ref(), index + 1),
        };
        let at = |key| keys.place(KeyRef::key(key));
        beside
            .files
            .extend(spec.tls.iter().map(|tls| (at("tls"), tls.to_spec())));
        if let Some(door) = &spec.door {
            check_entered(service.name.get_ref(), &spec, at("door"), defaults, report);
            beside.references.push(Reference {
                key: "door",
                place: at("door"),
                door: door.clone(),
                tls: Some(id.as_str().into()),
            });
        }
        if spec.client_secret.is_some() && (spec.addr.is_some() || !spec.addrs.is_empty()) {
            let key = if spec.addr.is_some() { "addr" } else { "addrs" };
            report.add_ignored(at(key), || {
                format!("{key}: it counts for nothing, because a tunnel client serves a name with `client-secret`")
            });
        }
        if let Some(needs) = &mut found.needs {
            add_program(needs, &keys, &spec);
        }
        let lowered = lower::service(&id, &spec, keys.all_read(), defaults);
        match lowered.and_then(|lowered| with_program(&spec, lowered, &mut beside.programs)) {
            Ok(LoweredService { rule, tls }) => {
                beside.tls.extend(tls);
                check_reached(&rules, &rule, place, report);
                let is_last = index + 1 == service.entries.len();
                if is_last && rule.alpn.is_some() {
                    report.add_ignored(place, || no_other(service.name.get_ref()));
                }
                rules.push(rule);
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    report.add(keys.place(mistake.origin), mistake.to_string());
                }
            }
        }
    }
    rules
}

/// Reports a door that no client reaches: it takes no TLS, and nothing else comes for this name.
fn check_entered(name: &str, spec: &ServiceSpec, place: usize, defaults: &ServiceDefaults, report: &mut Report<'_>) {
    if spec.tls.is_none() && !defaults.listens_for_http() && name != CATCH_ALL {
        let text = "door: it takes no TLS, and only TLS comes for this name; write tls = { cert = \"FILE\", key = \"FILE\" } as \
                    well, so that TLS ends here, or http-listen for HTTP";
        report.add(place, text);
    }
}

/// Adds what the program of a service needs, if it has one.
fn add_program(needs: &mut Needs, keys: &Keys<'_, '_>, spec: &ServiceSpec) {
    needs.add_directory(keys, spec.process.chdir.as_deref());
    if let Some(process) = lower::program_of_service(spec) {
        needs.add_process(keys, "start", &process);
    }
}

/// Adds the program of a service to those of the door, and its number to the rule.
fn with_program(
    spec: &ServiceSpec,
    lowered: LoweredService,
    programs: &mut Programs,
) -> Result<LoweredService, Vec<Mistake>> {
    let program = match lower::start(spec, &lowered.rule)? {
        Some(program) => Some(programs.add(program).map_err(|mistake| vec![mistake])?),
        None => None,
    };
    let rule = Rule {
        program,
        ..lowered.rule
    };
    Ok(LoweredService { rule, ..lowered })
}

/// The warning that a service takes only clients that offer a protocol.
fn no_other(name: &str) -> String {
    let name = Quoted(name);
    format!(
        "a client of {name} that does not offer this protocol is refused; add an entry without `alpn` if one should serve it"
    )
}

/// Reports an entry that no connection reaches, because one `before` it takes all that it would take.
fn check_reached(before: &[Rule], rule: &Rule, place: usize, report: &mut Report<'_>) {
    let takes = |other: &&Rule| other.alpn.is_none() || other.alpn == rule.alpn;
    if let Some(other) = before.iter().find(takes) {
        let text = match &other.alpn {
            None => "an entry above it without `alpn` takes every connection, so none comes here; put that one last",
            Some(_) => "an entry above it has the same `alpn`, so no connection comes here; leave out one of the two",
        };
        report.add(place, text);
    }
}

#[cfg(test)]
mod tests;
