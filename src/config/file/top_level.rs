//! Mistakes at the top of a file: a key without a table, or a table with a wrong header.

use clap::{Arg, Command};
use toml::de::{DeTable, DeValue};

use super::DOORS;
use super::definition::Spec;
use super::keys::long_name_of;
use super::{log, router_toml};
use crate::config::advice;
use crate::config::quote::{Quoted, in_header};
use crate::config::spec::command::CommandSpec;
use crate::config::spec::exec::ExecSpec;
use crate::config::spec::pool::PoolSpec;
use crate::config::spec::route::RouteSpec;
use crate::config::spec::tunnel::TunnelSpec;
use crate::config::suggest::nearest;

/// The kinds of service: the name of the tables, the words for people, and the keys.
fn doors() -> [(&'static str, &'static str, &'static Command); 5] {
    [
        ("pool", "a pool", PoolSpec::definition()),
        ("exec", "an exec door", ExecSpec::definition()),
        ("command", "a command door", CommandSpec::definition()),
        ("route", "a route door", RouteSpec::definition()),
        ("tunnel", "a tunnel door", TunnelSpec::definition()),
    ]
}

fn has(keys: &Command, name: &str) -> bool {
    keys.get_arguments().filter_map(Arg::get_long).any(|key| key == name)
}

/// Returns the message about `written` with that value.
pub(super) fn message(written: &str, value: &DeValue<'_>) -> String {
    match value {
        DeValue::Table(table) => format!(
            "there is no kind of service called {}; {}",
            Quoted(written),
            instead_of_table(written, table)
        ),
        _ => {
            let remedy = instead_of_key(written);
            format!("{} stands outside of any table; {remedy}", Quoted(written))
        }
    }
}

/// Returns the remedy for a wrong header: the kind is misspelt, or missing.
fn instead_of_table(written: &str, table: &DeTable<'_>) -> String {
    let kinds = DOORS.iter().map(|door| door.kind);
    if let Some(meant) = nearest(written, kinds.clone().chain([log::KIND, router_toml::KIND])) {
        return format!("did you mean `{meant}`?");
    }
    let count = |keys: &Command| table.keys().filter(|key| has(keys, key.get_ref())).count();
    let likely = doors().into_iter().map(|(kind, what, keys)| (count(keys), kind, what));
    // The first of several kinds with the same number of matching keys.
    match likely.rev().max_by_key(|(count, ..)| *count) {
        Some((1.., kind, what)) => {
            let written = in_header(written);
            format!("its keys are those of {what}, whose header is [{kind}.{written}]")
        }
        _ => format!("write one of: {}", kinds.collect::<Vec<_>>().join(", ")),
    }
}

/// Returns the remedy for a key without a table.
fn instead_of_key(written: &str) -> String {
    let doors = doors();
    if let Some((kind, what, _)) = doors.iter().find(|(.., keys)| has(keys, written)) {
        return format!("it is a key of {what}: write it below a header such as [{kind}.main]");
    }
    let of_any = |name: &str| doors.iter().any(|(.., keys)| has(keys, name));
    if let Some(advice) = advice::for_key(written, of_any) {
        return advice;
    }
    let near = doors.iter().find_map(|(kind, _, keys)| {
        let known = keys.get_arguments().filter_map(Arg::get_long);
        Some((kind, long_name_of(written, keys).or_else(|| nearest(written, known))?))
    });
    match near {
        Some((kind, meant)) => format!("did you mean `{meant}`, below a header such as [{kind}.main]?"),
        None => "write the header of a service, such as [pool.main], and its keys below it".to_owned(),
    }
}
