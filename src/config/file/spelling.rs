//! The keys of a file that another program reads as well: spelled with `_` or `-`, passed over with a warning where that
//! program ignores them, or with a port in the place of an address.

use std::collections::BTreeSet;
use std::ops::Range;

use clap::{Arg, Command};
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::definition::Spec;
use super::keys;
use super::report::Report;
use crate::config::quote::Quoted;

/// Settings that count elsewhere in the file. In the wrong place they are ignored, as by torcd; but the warning tells
/// the right place, because an ignored `user` leaves programs with the daemon's rights.
pub(super) struct Misplaced {
    keys: &'static Command,
    except: &'static [&'static str],
    remedy: &'static str,
}

impl Misplaced {
    /// The keys of `S`, except `except`, which torcd ignores there.
    pub(super) fn new<S: Spec>(except: &'static [&'static str], remedy: &'static str) -> Self {
        Self {
            keys: S::definition(),
            except,
            remedy,
        }
    }

    fn has(&self, name: &str) -> bool {
        let mut keys = self.keys.get_arguments().filter_map(Arg::get_long);
        !self.except.contains(&name) && keys.any(|key| key == name)
    }
}

/// Returns the table with its keys in the usual spelling, and without the keys that have no meaning here, which torcd
/// ignores as well. `others` are known in addition to the keys of `S`.
pub(super) fn normalized<'i, S: Spec>(
    table: DeTable<'i>,
    others: &[&'static str],
    misplaced: &Misplaced,
    report: &mut Report<'_>,
) -> DeTable<'i> {
    let definition = S::definition();
    let known: BTreeSet<&str> = definition.get_arguments().filter_map(Arg::get_long).collect();
    let is_known = |name: &str| known.contains(name);
    let mut normalized = DeTable::new();
    let mut settings: Vec<_> = table.into_iter().collect();
    settings.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in settings {
        let with_hyphens = key.get_ref().replace('_', "-");
        let (span, key) = (key.span(), key.into_inner());
        let name = if is_known(&with_hyphens) {
            with_hyphens.into()
        } else if others.contains(&&*key) {
            key
        } else if misplaced.has(&with_hyphens) {
            let text = format!(
                "the setting {} {}; here it is passed over",
                Quoted(&key),
                misplaced.remedy
            );
            report.add_ignored(span.start, || text);
            continue;
        } else {
            report.add_ignored(span.start, || {
                format!(
                    "the setting {} has no meaning here and is passed over; {}",
                    Quoted(&key),
                    keys::suggestion(&key, definition, others)
                )
            });
            continue;
        };
        if normalized.contains_key(&*name) {
            let text = format!("{} is set a second time; keep one of the two", Quoted(&name));
            report.add(span.start, text);
        } else {
            normalized.insert(Spanned::new(span, name), value);
        }
    }
    normalized
}

/// Adds an address, which `place` writes in another form, to the addresses under `key`, as the first one.
pub(super) fn add_address(table: &mut DeTable<'_>, key: &'static str, place: Range<usize>, address: String) {
    let mut addresses = DeArray::new();
    addresses.push(Spanned::new(place.clone(), DeValue::String(address.into())));
    if let Some(others) = table.remove(key) {
        let span = others.span();
        match others.into_inner() {
            DeValue::Array(list) => list.into_iter().for_each(|address| addresses.push(address)),
            one => addresses.push(Spanned::new(span, one)),
        }
    }
    let key = Spanned::new(place.clone(), key.into());
    table.insert(key, Spanned::new(place, DeValue::Array(addresses)));
}

/// Returns the number of a port, which may also be written as text, like every number here.
pub(super) fn port_number(value: &DeValue<'_>) -> Option<u16> {
    match value {
        DeValue::String(text) => text.trim().parse().ok(),
        _ => {
            let number = value.as_integer()?;
            u16::from_str_radix(number.as_str(), number.radix()).ok()
        }
    }
}
