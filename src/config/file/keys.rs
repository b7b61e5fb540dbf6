//! The keys of one service's table, read into its spec.
//!
//! Which keys there are, and whether a key is a switch, a list, a text or one of a few words, is asked of the clap
//! definition of the spec, so a file knows exactly the flags. Each value is first tried alone, as the only key of
//! a table; the good ones are then read together. That is how one wrong value does not hide the next.

use std::any::TypeId;

use clap::{Arg, ArgAction, Args, Command};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeString, DeTable, DeValue, Deserializer};

use super::report::Report;
use crate::config::lower::Origin;
use crate::config::suggest::nearest;

/// One service's table in the text.
pub(super) struct Place<'t, 'i> {
    /// The service's name, with the place of its header.
    pub(super) name: &'t Spanned<DeString<'i>>,
    /// Its keys.
    pub(super) table: &'t DeTable<'i>,
}

impl Place<'_, '_> {
    /// Where something was said; the header when it is a default that was not said at all.
    pub(super) fn of(&self, origin: Origin) -> usize {
        let Some(value) = self.table.get(origin.key) else {
            return self.name.span().start;
        };
        let element = origin.index.and_then(|index| value.get_ref().as_array()?.get(index));
        element.unwrap_or(value).span().start
    }
}

/// Reads the table; whatever cannot be read goes into the report and is absent from the spec.
pub(super) fn spec<S: Args + DeserializeOwned + Default>(place: &Place<'_, '_>, report: &mut Report<'_>) -> S {
    let flags = S::augment_args(Command::new("keys"));
    let mut readable = DeTable::new();
    for (key, value) in place.table {
        let name: &str = key.get_ref();
        match flags.get_arguments().find(|flag| flag.get_long() == Some(name)) {
            None => report.add(key.span().start, unknown(name, &flags)),
            Some(flag) => {
                let value = as_list(flag, value.clone());
                let mistakes = mistakes::<S>(flag, key, &value);
                if mistakes.is_empty() {
                    readable.insert(key.clone(), value);
                }
                for (offset, text) in mistakes {
                    report.add(offset, format!("{name}: {text}"));
                }
            }
        }
    }
    read(readable).unwrap_or_else(|error| {
        report.add(place.name.span().start, error);
        S::default()
    })
}

fn unknown(name: &str, flags: &Command) -> String {
    match nearest(name, flags.get_arguments().filter_map(Arg::get_long)) {
        Some(meant) => format!("there is no key `{name}`; did you mean `{meant}`?"),
        None => format!("there is no key `{name}`; see iotcpd.toml(5) for those there are"),
    }
}

/// A key that may be repeated takes a list; one lone value stands for a list of one.
fn as_list<'i>(flag: &Arg, value: Spanned<DeValue<'i>>) -> Spanned<DeValue<'i>> {
    if !is_list(flag) || value.get_ref().is_array() {
        return value;
    }
    let span = value.span();
    let mut list = DeArray::new();
    list.push(value);
    Spanned::new(span, DeValue::Array(list))
}

fn is_list(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Append)
}

/// What is wrong with a value, or with each element of a list.
fn mistakes<S: DeserializeOwned>(
    flag: &Arg,
    key: &Spanned<DeString<'_>>,
    value: &Spanned<DeValue<'_>>,
) -> Vec<(usize, String)> {
    let values: Vec<&Spanned<DeValue<'_>>> = match value.get_ref() {
        DeValue::Array(list) if is_list(flag) => list.iter().collect(),
        _ => vec![value],
    };
    let mistake = |value: &&Spanned<DeValue<'_>>| {
        let wrong = wrong_form(flag, value.get_ref()).or_else(|| {
            let mut alone = DeTable::new();
            alone.insert(key.clone(), as_list(flag, (*value).clone()));
            read::<S>(alone).err()
        });
        wrong.map(|text| (value.span().start, text))
    };
    values.iter().filter_map(mistake).collect()
}

fn read<S: DeserializeOwned>(table: DeTable<'_>) -> Result<S, String> {
    S::deserialize(Deserializer::from(Spanned::new(0..0, table))).map_err(|error| error.message().to_owned())
}

/// What the flag's definition alone says against a single value.
fn wrong_form(flag: &Arg, value: &DeValue<'_>) -> Option<String> {
    let name = flag.get_long().unwrap_or_default();
    let words = flag.get_possible_values();
    let is_text = flag.get_value_parser().type_id() == TypeId::of::<String>();
    match value {
        DeValue::Boolean(_) if is_switch(flag) => None,
        _ if is_switch(flag) => Some("this is switched on or off; write true or false".to_owned()),
        DeValue::Array(_) => Some("this takes one value, not a list; keep one of them".to_owned()),
        DeValue::String(word) if !words.is_empty() && !words.iter().any(|known| known.matches(word, false)) => {
            let known: Vec<_> = words.iter().map(|known| format!("\"{}\"", known.get_name())).collect();
            Some(format!(
                "`{}` is not known here; write {}",
                word.escape_debug(),
                known.join(" or ")
            ))
        }
        DeValue::String(_) => None,
        DeValue::Integer(_) | DeValue::Float(_) if !is_text && words.is_empty() => None,
        other => {
            let example = flag
                .get_value_names()
                .and_then(<[_]>::first)
                .map_or("VALUE", |name| name.as_str());
            Some(format!(
                "{} is not what belongs here; write {name} = \"{example}\"",
                with_article(other.type_str())
            ))
        }
    }
}

fn is_switch(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::SetTrue)
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}
