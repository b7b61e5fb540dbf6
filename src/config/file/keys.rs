//! The keys of one service's table, read into its spec.
//!
//! The clap definition of the spec tells which keys there are, and if a key is a switch, a list, a text or one of a few
//! words, so a file knows exactly the flags. Each value is first tried alone, as the only key of a table; the good ones
//! are then read together. So one wrong value does not hide the next.

use std::any::TypeId;
use std::collections::HashMap;

use clap::{Arg, ArgAction, Command};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue, Deserializer};

use super::definition::Spec;
use super::report::Report;
use crate::config::advice;
use crate::config::lower::KeyRef;
use crate::config::quote::Quoted;
use crate::config::spec::command::ArgumentSpec;
use crate::config::spec::route::{Hidden, ServerSpec, ServiceTls};
use crate::config::suggest::nearest;

/// One service in the text.
pub(super) struct Section<'t, 'i> {
    /// The name of the service, with the position of its header.
    pub(super) name: &'t Spanned<DeString<'i>>,
    /// The keys of the service.
    pub(super) table: &'t DeTable<'i>,
    /// A text appended to messages about unreadable values, where no header near the value shows the service.
    pub(super) suffix: String,
}

impl<'t, 'i> Section<'t, 'i> {
    /// Creates the section of a service with a header.
    pub(super) const fn new(name: &'t Spanned<DeString<'i>>, table: &'t DeTable<'i>) -> Self {
        let suffix = String::new();
        Self { name, table, suffix }
    }
}

/// The readable keys of a service, and the positions of all keys.
pub(super) struct Keys<'t, 'i> {
    section: &'t Section<'t, 'i>,
    /// The keys whose values, or elements of lists, are in the spec, with their positions.
    readable: DeTable<'i>,
    /// The number of unreadable keys and values.
    unread: usize,
}

impl<'t, 'i> Keys<'t, 'i> {
    /// Reads a section into its spec. Everything unreadable is reported and absent from the spec.
    pub(super) fn read<S>(section: &'t Section<'t, 'i>, report: &mut Report<'_>) -> (S, Self)
    where
        S: Spec + DeserializeOwned + Default,
    {
        Self::read_with_others(section, &[], report)
    }

    /// As [`read`](Self::read), for a section that had other keys, `others`, which are read elsewhere and have been
    /// removed.
    pub(super) fn read_with_others<S>(
        section: &'t Section<'t, 'i>,
        others: &[&'static str],
        report: &mut Report<'_>,
    ) -> (S, Self)
    where
        S: Spec + DeserializeOwned + Default,
    {
        let flags = S::definition();
        let mut keys = Self {
            section,
            readable: DeTable::new(),
            unread: 0,
        };
        let by_name: HashMap<&str, &Arg> = flags
            .get_arguments()
            .filter_map(|flag| Some((flag.get_long()?, flag)))
            .collect();
        // In the order of the text, which is the order of the reports, so that only the first unknown keys are compared
        // with the known ones.
        let mut settings: Vec<_> = section.table.iter().collect();
        settings.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in settings {
            let name: &str = key.get_ref();
            let Some(flag) = by_name.get(name) else {
                keys.unread += 1;
                report.add_lazily(key.span().start, || {
                    let remedy = remedy(name, flags, others);
                    format!("there is no key {}; {remedy}", Quoted(name))
                });
                continue;
            };
            let (readable, mistakes) = readable::<S>(flag, key, value);
            keys.readable.extend(readable.map(|value| (key.clone(), value)));
            keys.unread += mistakes.len();
            for (offset, text) in mistakes {
                report.add(offset, format!("{name}: {text}{}", section.suffix));
            }
        }
        let spec = deserialize(keys.readable.clone()).unwrap_or_else(|error| {
            report.add(section.name.span().start, error);
            S::default()
        });
        (spec, keys)
    }

    /// Returns the name of the service.
    pub(super) fn service(&self) -> &str {
        self.section.name.get_ref()
    }

    /// Returns true if the spec holds everything that was written.
    pub(super) const fn all_read(&self) -> bool {
        self.unread == 0
    }

    /// Returns true if the key was read, or is absent and has its default.
    pub(super) fn is_read(&self, key: &str) -> bool {
        self.readable.contains_key(key) || !self.section.table.contains_key(key)
    }

    /// Returns the position of a setting, in bytes from the start of the text; that of the header for a default.
    pub(super) fn place(&self, origin: KeyRef) -> usize {
        let Some(value) = self
            .readable
            .get(origin.key)
            .or_else(|| self.section.table.get(origin.key))
        else {
            return self.section.name.span().start;
        };
        let element = origin.index.and_then(|index| value.get_ref().as_array()?.get(index));
        element.unwrap_or(value).span().start
    }
}

/// Returns the remedy for an unknown key, where the keys of `flags` and `others` are known.
pub(super) fn remedy(name: &str, flags: &Command, others: &[&'static str]) -> String {
    let known = || flags.get_arguments().filter_map(Arg::get_long);
    if let Some(advice) = advice::for_key(name, |other| known().any(|known| known == other)) {
        return advice;
    }
    suggestion(name, flags, others)
}

/// Returns the remedy for an unknown key that resembles a known one.
pub(super) fn suggestion(name: &str, flags: &Command, others: &[&'static str]) -> String {
    let known = flags.get_arguments().filter_map(Arg::get_long);
    let meant = long_name_of(name, flags).or_else(|| nearest(name, known.chain(others.iter().copied())));
    meant.map_or_else(
        || "see iotcpd.toml(5) for those there are".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    )
}

/// Returns the key of a short flag. Short names do not exist in a file.
pub(super) fn long_name_of<'f>(name: &str, flags: &'f Command) -> Option<&'f str> {
    let mut letters = name.chars();
    let (Some(letter), None) = (letters.next(), letters.next()) else {
        return None;
    };
    let is_called = |flag: &&Arg| {
        flag.get_short() == Some(letter) || flag.get_all_short_aliases().is_some_and(|all| all.contains(&letter))
    };
    flags.get_arguments().find(is_called)?.get_long()
}

fn is_list(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Append)
}

/// A message about a position.
type Mistake = (usize, String);

/// Returns the readable part of a value (of a list, the good elements) and the mistakes in the rest.
fn readable<'i, S: DeserializeOwned>(
    flag: &Arg,
    key: &Spanned<DeString<'i>>,
    value: &Spanned<DeValue<'i>>,
) -> (Option<Spanned<DeValue<'i>>>, Vec<Mistake>) {
    if !is_list(flag) {
        return match try_alone::<S>(flag, key, value, value.clone()) {
            Ok(()) => (Some(value.clone()), Vec::new()),
            Err(mistake) => (None, vec![mistake]),
        };
    }
    let mut good = DeArray::new();
    let mut mistakes = Vec::new();
    let elements = elements(value);
    // The author of an empty list, or of the program that writes one, means that no client is allowed.
    if elements.is_empty() && flag.get_long().is_some_and(|name| name.starts_with("allow")) {
        let text = "an empty list would allow everything, as none does; name what is allowed, or leave it out";
        mistakes.push((value.span().start, text.to_owned()));
    }
    for element in elements {
        match try_alone::<S>(flag, key, element, list_of(element)) {
            Ok(()) => good.push(element.clone()),
            Err(wrong) => mistakes.push(wrong),
        }
    }
    (Some(Spanned::new(value.span(), DeValue::Array(good))), mistakes)
}

/// Returns the elements of a list. A key that may be repeated also accepts a single value instead of a list.
fn elements<'v, 'i>(value: &'v Spanned<DeValue<'i>>) -> Vec<&'v Spanned<DeValue<'i>>> {
    value
        .get_ref()
        .as_array()
        .map_or_else(|| vec![value], |list| list.iter().collect())
}

fn list_of<'i>(element: &Spanned<DeValue<'i>>) -> Spanned<DeValue<'i>> {
    let mut list = DeArray::new();
    list.push(element.clone());
    Spanned::new(element.span(), DeValue::Array(list))
}

/// Returns the mistake in `value`, if it cannot be read as the only key of a spec.
fn try_alone<'i, S: DeserializeOwned>(
    flag: &Arg,
    key: &Spanned<DeString<'i>>,
    written: &Spanned<DeValue<'i>>,
    value: Spanned<DeValue<'i>>,
) -> Result<(), Mistake> {
    let wrong = wrong_form(flag, written.get_ref()).or_else(|| {
        let alone = DeTable::from_iter([(key.clone(), value)]);
        deserialize::<S>(alone).err()
    });
    wrong.map_or(Ok(()), |text| Err((written.span().start, text)))
}

fn deserialize<S: DeserializeOwned>(table: DeTable<'_>) -> Result<S, String> {
    S::deserialize(Deserializer::from(Spanned::new(0..0, table))).map_err(|error| error.message().to_owned())
}

/// Returns the mistake in the form of a single value that the flag's definition shows.
fn wrong_form(flag: &Arg, value: &DeValue<'_>) -> Option<String> {
    let name = flag.get_long().unwrap_or_default();
    let words = flag.get_possible_values();
    let quoted = || {
        let known: Vec<_> = words.iter().map(|known| format!("\"{}\"", known.get_name())).collect();
        known.join(" or ")
    };
    let is_of_type = |it: TypeId| flag.get_value_parser().type_id() == it;
    let is_text = is_of_type(TypeId::of::<String>()) || is_of_type(TypeId::of::<Hidden>());
    match value {
        DeValue::Boolean(_) if is_switch(flag) => None,
        _ if is_switch(flag) => Some("this is switched on or off; write true or false".to_owned()),
        // A list of words, and a table with a weight, are among the forms of these types.
        DeValue::Array(_) if is_of_type(TypeId::of::<ArgumentSpec>()) => None,
        DeValue::Table(_) if is_of_type(TypeId::of::<ServerSpec>()) => None,
        DeValue::Table(_) if is_of_type(TypeId::of::<ServiceTls>()) => None,
        _ if is_of_type(TypeId::of::<ServiceTls>()) => {
            let example = "{ cert = \"/etc/iotcpd/www.pem\", key = \"/etc/iotcpd/www.key\" }";
            Some(format!("this is a table; write {name} = {example}"))
        }
        DeValue::Array(_) => Some("this takes one value, not a list; keep one of them".to_owned()),
        DeValue::String(word) if !words.is_empty() && !words.iter().any(|known| known.matches(word, false)) => {
            Some(format!("{} is not known here; write {}", Quoted(word), quoted()))
        }
        DeValue::String(_) => None,
        DeValue::Integer(number) if overflows(number) => Some(too_large(number)),
        DeValue::Float(number) if is_beyond_floats(number.as_str()) => Some(too_large(number)),
        DeValue::Integer(_) | DeValue::Float(_) if !is_text && words.is_empty() => None,
        other if !words.is_empty() => {
            let what = with_article(other.type_str());
            Some(format!("{what} is not what belongs here; write {}", quoted()))
        }
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

fn overflows(number: &DeInteger<'_>) -> bool {
    let (digits, radix) = (number.as_str(), number.radix());
    i64::from_str_radix(digits, radix).is_err() && u64::from_str_radix(digits, radix).is_err()
}

/// Returns true for a finite number beyond the range of floats. Infinity itself is a number in TOML, and refused with
/// another message.
fn is_beyond_floats(number: &str) -> bool {
    !number.contains("inf") && number.parse().is_ok_and(f64::is_infinite)
}

fn too_large(number: &impl ToString) -> String {
    format!(
        "{} is too large, or no number; write a smaller one",
        Quoted(&number.to_string())
    )
}

/// Returns true for a flag without a value, and for a key that may also take back what another one says.
fn is_switch(flag: &Arg) -> bool {
    flag.get_value_parser().type_id() == TypeId::of::<bool>()
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {noun}")
}
