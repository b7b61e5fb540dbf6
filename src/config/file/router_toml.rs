//! The table `[server]` of a router.toml, the file of tcprouter: one route door.
//!
//! The settings of tcprouter keep their meaning: the address and the three ports of the listeners, and the services
//! with `addr`, `tlsport`, `httpport` and `clientsecret`; `dbbackend` is the store of a route door. Beside them, all keys of a route door and of its services are
//! accepted, with `-` or `_` in their names. Here the keys get their usual names and the ports become addresses; then
//! the table is read as any other route door (`route`).
//!
//! tcprouter gives a port that is missing any free number; here it is a mistake. A setting of a service that is empty
//! or 0 counts as absent, as it does there.

use std::net::IpAddr;

use clap::Arg;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::definition::Spec;
use super::keys::Section;
use super::report::Report;
use super::route::{self, DoorParts, SERVICES, STORE};
use super::spelling::{add_address, port_number};
use super::{Collected, check_unique, door};
use crate::config::quote::Quoted;
use crate::config::spec::route::{RouteSpec, ServiceSpec, StoreSpec};
use crate::doors::Options;

/// The name of the table.
pub(super) const KIND: &str = "server";
/// Returns true if a table has this name, in whatever case tcprouter's parser takes.
pub(super) fn is_its(kind: &str) -> bool {
    kind.eq_ignore_ascii_case(KIND)
}

/// The name of the door in logs and statistics, because the file has none.
const NAME: &str = "route";

const ADDR: &str = "addr";
/// The key of tcprouter for the store.
const BACKEND: &str = "dbbackend";
/// The key of a store for its kind.
const TYPE: &str = "type";
/// The key of a store that has no meaning for Redis.
const TOKEN: &str = "token";

/// A key of tcprouter for the port of a listener.
struct Port {
    key: &'static str,
    example: u16,
    /// The key of the addresses that the port is one of.
    listen: &'static str,
}

const PORTS: [Port; 3] = [
    Port {
        key: "port",
        example: 443,
        listen: "tls-listen",
    },
    Port {
        key: "httpport",
        example: 80,
        listen: "http-listen",
    },
    Port {
        key: "clientsport",
        example: 18000,
        listen: "tunnel-listen",
    },
];

/// The keys of a service in tcprouter, and their usual names.
const OF_SERVICE: [(&str, &str); 4] = [
    ("addr", "addr"),
    ("tlsport", "tls-port"),
    ("httpport", "http-port"),
    ("clientsecret", "client-secret"),
];

/// Returns the line about a file without the table, which is no router.toml.
pub(super) fn missing(file: &str, root: &DeTable<'_>) -> String {
    let is_for_run = root.keys().any(|kind| door(kind.get_ref()).is_some());
    let remedy = if is_for_run {
        format!("what it describes is run with iotcpd run --config {file}")
    } else {
        "write [server], and below it port = 443 and the other keys of iotcpd-route(1)".to_owned()
    };
    format!("{file}:1:1: there is no table [server], so this is no router.toml; {remedy}")
}

/// Reads the table and adds its door to `found`. `flags` override its settings.
pub(super) fn read(
    kind: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
    flags: &RouteSpec,
    found: &mut Collected<'_>,
) {
    let Some(table) = value.get_ref().as_table() else {
        let text = "`server` is one table, that of a router.toml; write [server], and below it port = 443";
        found.report.add(kind.span().start, text);
        return;
    };
    let name = Spanned::new(kind.span(), NAME.into());
    check_unique(&name, found);
    let report = &mut found.report;
    let mut own = spelled(table.clone(), own_name, report);
    let is_whole = listen_at_ports(&mut own, kind, flags, report);
    adopt_store(&mut own, report);
    if let Some((key, services)) = own.remove_entry(SERVICES) {
        own.insert(key, spelled_services(services, report));
    }
    let written = DoorParts {
        section: &Section::new(&name, &own),
        header: KIND.to_owned(),
        is_whole,
        flags: flags.clone(),
    };
    if let Some(options) = route::read(written, found) {
        found.services.push(Options::Route(Box::new(options)));
    }
}

/// Returns the usual name of a key of the table, if it is known.
fn own_name(key: &str) -> Option<&'static str> {
    let ports = PORTS.iter().map(|port| port.key);
    let others = [ADDR, BACKEND, STORE, SERVICES].into_iter().chain(ports);
    known::<RouteSpec>(key, others)
}

/// Returns the usual name of a key of a service, if it is known.
fn name_of_service(key: &str) -> Option<&'static str> {
    let original = OF_SERVICE.iter().find(|(original, _)| *original == key);
    original.map_or_else(|| known::<ServiceSpec>(key, []), |(_, usual)| Some(usual))
}

fn known<S: Spec>(key: &str, others: impl IntoIterator<Item = &'static str>) -> Option<&'static str> {
    let keys = S::definition().get_arguments().filter_map(Arg::get_long);
    keys.chain(others).find(|known| *known == key)
}

/// Returns the table with its keys in the usual spelling. Keys are compared without regard to case, as in tcprouter;
/// unknown ones are left as they are.
fn spelled<'i>(
    table: DeTable<'i>,
    usual: impl Fn(&str) -> Option<&'static str>,
    report: &mut Report<'_>,
) -> DeTable<'i> {
    let mut spelled = DeTable::new();
    let mut settings: Vec<_> = table.into_iter().collect();
    settings.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in settings {
        let place = key.span();
        let name = match usual(&key.get_ref().to_ascii_lowercase().replace('_', "-")) {
            Some(usual) => Spanned::new(place.clone(), usual.into()),
            None => key,
        };
        if spelled.contains_key(&**name.get_ref()) {
            let text = format!("{} is set a second time; keep one of the two", Quoted(name.get_ref()));
            report.add(place.start, text);
        } else {
            spelled.insert(name, value);
        }
    }
    spelled
}

/// Returns the services with the keys of each in the usual spelling.
fn spelled_services<'i>(services: Spanned<DeValue<'i>>, report: &mut Report<'_>) -> Spanned<DeValue<'i>> {
    let mut entry = |value: Spanned<DeValue<'i>>| {
        let span = value.span();
        let value = match value.into_inner() {
            DeValue::Table(table) => DeValue::Table(spelled_service(table, report)),
            other => other,
        };
        Spanned::new(span, value)
    };
    let span = services.span();
    let services = match services.into_inner() {
        DeValue::Table(services) => {
            let services = services.into_iter().map(|(name, value)| {
                let span = value.span();
                let value = match value.into_inner() {
                    DeValue::Array(list) => {
                        let list = list.into_iter().map(&mut entry).collect();
                        Spanned::new(span, DeValue::Array(list))
                    }
                    other => entry(Spanned::new(span, other)),
                };
                (name, value)
            });
            DeValue::Table(services.collect())
        }
        other => other,
    };
    Spanned::new(span, services)
}

fn spelled_service<'i>(table: DeTable<'i>, report: &mut Report<'_>) -> DeTable<'i> {
    let mut service = spelled(table, name_of_service, report);
    for (_, key) in OF_SERVICE {
        if service.get(key).is_some_and(|value| is_zero(value.get_ref())) {
            service.remove(key);
        }
    }
    service
}

/// Returns true for the value that stands for an absent one in tcprouter.
fn is_zero(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::String(text) => text.is_empty(),
        other => port_number(other) == Some(0),
    }
}

/// Turns the ports and their address into addresses to listen on. Returns false if a listener is left out because of a
/// mistake, which has been reported.
fn listen_at_ports(
    table: &mut DeTable<'_>,
    kind: &Spanned<DeString<'_>>,
    flags: &RouteSpec,
    report: &mut Report<'_>,
) -> bool {
    let host = host(table, report);
    let mut is_whole = true;
    for Port { key, example, listen } in PORTS {
        let Some(port) = table.remove(key) else {
            let by_flags = match listen {
                "tls-listen" => &flags.tls_listen,
                "http-listen" => &flags.http_listen,
                _ => &flags.tunnel_listen,
            };
            let is_listening = !by_flags.is_empty() || table.contains_key(listen);
            if !is_listening {
                is_whole = false;
            }
            if !is_listening && !report.has_syntax_error() {
                let text = format!("there is no key `{key}`; write {key} = {example}, or 0 for no such listener");
                report.add(kind.span().start, text);
            }
            continue;
        };
        match port_number(port.get_ref()) {
            None => {
                is_whole = false;
                let text = format!("{key}: this is not the number of a port; write a value from 0 to 65535");
                report.add(port.span().start, text);
            }
            Some(0) => {}
            Some(number) => add_address(table, listen, port.span(), format!("{host}:{number}")),
        }
    }
    is_whole
}

/// Returns the host of the listeners, in the syntax of addresses. The default is every address of the machine.
fn host(table: &mut DeTable<'_>, report: &mut Report<'_>) -> String {
    let Some(addr) = table.remove(ADDR) else {
        return "*".to_owned();
    };
    let ip = match addr.get_ref().as_str() {
        Some("") => return "*".to_owned(),
        text => text.and_then(|text| text.parse::<IpAddr>().ok()),
    };
    match ip {
        Some(IpAddr::V4(ip)) => ip.to_string(),
        Some(IpAddr::V6(ip)) => format!("[{ip}]"),
        None => {
            let text = "addr: this is not the IP address of a listener; write for example addr = \"0.0.0.0\"";
            report.add(addr.span().start, text);
            "*".to_owned()
        }
    }
}

/// Gives the table of the store its usual name, and its keys theirs. A setting that is empty or 0 counts as absent.
fn adopt_store(table: &mut DeTable<'_>, report: &mut Report<'_>) {
    let of_original = table.remove_entry(BACKEND);
    let is_twice = of_original.is_some() && table.contains_key(STORE);
    let Some((key, store)) = of_original.or_else(|| table.remove_entry(STORE)) else {
        return;
    };
    if is_twice {
        let text = format!("{BACKEND}: there is {STORE} as well, which is the same; keep one of the two");
        report.add(key.span().start, text);
        return;
    }
    let span = store.span();
    let store = match store.into_inner() {
        DeValue::Table(store) => {
            let others = [TOKEN];
            let spelled = spelled(store, |key| known::<StoreSpec>(key, others), report);
            let settings = spelled.into_iter().filter(|(_, value)| !is_zero(value.get_ref()));
            let mut store: DeTable<'_> = settings.collect();
            lower_type(&mut store);
            if let Some((token, _)) = store.remove_entry(TOKEN) {
                let text = || format!("{TOKEN}: Redis knows none, so it is passed over; leave it out");
                report.add_ignored(token.span().start, text);
            }
            DeValue::Table(store)
        }
        other => other,
    };
    table.insert(Spanned::new(key.span(), STORE.into()), Spanned::new(span, store));
}

/// Writes the kind of the store in lower case, of which tcprouter takes any.
fn lower_type(store: &mut DeTable<'_>) {
    if let Some(value) = store.get_mut(TYPE)
        && let Some(text) = value.get_ref().as_str()
    {
        let lower = text.to_ascii_lowercase();
        *value = Spanned::new(value.span(), DeValue::String(lower.into()));
    }
}

#[cfg(test)]
mod tests;
