//! Connections that route and tunnel doors hand over to another door of the file. The door must be there, and must take
//! them.
//!
//! Which doors there are is known when the whole file was read, so the references are collected until then.

use std::sync::Arc;

use toml::de::{DeTable, DeValue};

use super::Collected;
use super::report::Report;
use crate::config::quote::{Quoted, in_header};
use crate::config::suggest::nearest;
use crate::doors::Options;
use crate::doors::front::options::TlsOptions;

/// The key of a door that takes such connections. It is no flag: a door of a command line is alone.
pub(super) const HANDED_OVER: &str = "handed-over";

/// A setting that names a door.
#[derive(Debug)]
pub(super) struct Reference {
    /// The position of the name.
    pub(super) place: usize,
    /// The key.
    pub(super) key: &'static str,
    /// The name.
    pub(super) door: String,
    /// The name of the settings of the TLS that may end on the way.
    pub(super) tls: Option<Arc<str>>,
}

/// Takes the key [`HANDED_OVER`] out of a door's table, and returns its value. A wrong one is reported.
pub(super) fn take_handed_over(table: &mut DeTable<'_>, report: &mut Report<'_>) -> bool {
    let Some(value) = table.remove(HANDED_OVER) else {
        return false;
    };
    if let DeValue::Boolean(is_on) = value.get_ref() {
        return *is_on;
    }
    let text = format!("{HANDED_OVER}: this is switched on or off; write true or false");
    report.add(value.span().start, text);
    false
}

/// Reports each reference to a door that is not there, or takes no such connections.
pub(super) fn report_references(found: &mut Collected<'_>) {
    for (from, reference) in std::mem::take(&mut found.references) {
        let Reference { place, key, door, tls } = reference;
        if let Some(text) = mistake(&from, &door, tls.as_deref(), found) {
            found.report.add(place, format!("{key}: {text}"));
        }
    }
}

/// Returns the mistake in a reference of the door `from`.
fn mistake(from: &str, door: &str, tls: Option<&str>, found: &Collected<'_>) -> Option<String> {
    let (name, header) = (Quoted(door), in_header(door));
    if door == from {
        let remedy = "name another door, or write the address of a server";
        return Some(format!(
            "{name} is this very door, whose connections would come back to it; {remedy}"
        ));
    }
    let Some(options) = found.services.iter().find(|options| options.name() == door) else {
        return (!found.names.contains(door)).then(|| unknown(door, found));
    };
    let must_say = |kind: &str, more: &str| {
        format!(
            "the {kind} door {name} takes no connections that another door hands over; write {HANDED_OVER} = true in \
             [{kind}.{header}]{more}"
        )
    };
    match options {
        Options::Route(_) => Some(format!(
            "{name} is a route door, which takes no connections that another one hands over; describe the servers of the \
             service here"
        )),
        Options::Tunnel(_) => Some(format!(
            "{name} is a tunnel door, which takes the streams of its servers and no other connections; name another door"
        )),
        Options::Exec(exec) if !exec.takes_handed => {
            Some(must_say("exec", ", and say with allow-program what may be run"))
        }
        Options::Command(command) if !command.takes_handed => Some(must_say("command", "")),
        Options::Pool(_) | Options::Exec(_) | Options::Command(_) => {
            let giver = found.services.iter().find(|options| options.name() == from);
            let on_the_way = giver.zip(tls).and_then(|(giver, tls)| giver.front().named_tls.get(tls));
            asks_for_certificates(options, on_the_way)
        }
    }
}

/// Returns the mistake in a reference to a door whose clients need a certificate, if the TLS that ends on the way does not
/// ask for the same.
fn asks_for_certificates(options: &Options, on_the_way: Option<&TlsOptions>) -> Option<String> {
    let rule = options.front().tls.as_ref()?.clients.as_ref()?;
    let is_same = on_the_way.is_some_and(|tls| tls.clients.as_ref() == Some(rule));
    let name = Quoted(options.name());
    (!is_same).then(|| {
        format!(
            "clients of {name} need a certificate by its client-ca and allow-subject, and would not need the same on this \
             way; write both in the tls of the service at a route door as well, or name another door"
        )
    })
}

fn unknown(door: &str, found: &Collected<'_>) -> String {
    let takes = |options: &&Options| !options.may_hand_over();
    let known = found.services.iter().filter(takes).map(Options::name);
    let remedy = nearest(door, known).map_or_else(
        || format!("describe it in a table such as [pool.{}]", in_header(door)),
        |meant| format!("did you mean {}?", Quoted(meant)),
    );
    format!("there is no door {} in this file; {remedy}", Quoted(door))
}
