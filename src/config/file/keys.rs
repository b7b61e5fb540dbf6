//! The keys of one service's table, read into its spec.
//!
//! Which keys there are, and whether a key is a switch, a list, a text or one of a few words, is asked of the clap
//! definition of the spec, so a file knows exactly the flags. Each value is first tried alone, as the only key of
//! a table; the good ones are then read together. That is how one wrong value does not hide the next.

use std::any::TypeId;
use std::collections::HashMap;

use clap::{Arg, ArgAction, Command};
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeArray, DeInteger, DeString, DeTable, DeValue, Deserializer};

use super::definition::Spec;
use super::report::Report;
use crate::config::advice;
use crate::config::lower::Origin;
use crate::config::quote::Quoted;
use crate::config::spec::command::ArgumentSpec;
use crate::config::suggest::nearest;

/// One service in the text.
pub(super) struct Section<'t, 'i> {
    /// The service's name, with the place of its header.
    pub(super) name: &'t Spanned<DeString<'i>>,
    /// Its keys.
    pub(super) table: &'t DeTable<'i>,
    /// What stands behind a value that cannot be read, where no header near it tells whose it is.
    pub(super) of: String,
}

impl<'t, 'i> Section<'t, 'i> {
    /// One with a header.
    pub(super) const fn of(name: &'t Spanned<DeString<'i>>, table: &'t DeTable<'i>) -> Self {
        let of = String::new();
        Self { name, table, of }
    }
}

/// What could be read of a service's keys, and where everything stands.
pub(super) struct Keys<'t, 'i> {
    section: &'t Section<'t, 'i>,
    /// Keys with the values, and the elements of lists, that are in the spec; they have kept their places.
    readable: DeTable<'i>,
    /// How many keys or values are not.
    unread: usize,
}

impl<'t, 'i> Keys<'t, 'i> {
    /// Reads a section into its spec; whatever cannot be read goes into the report and is absent from the spec.
    pub(super) fn read<S>(section: &'t Section<'t, 'i>, report: &mut Report<'_>) -> (S, Self)
    where
        S: Spec + DeserializeOwned + Default,
    {
        Self::read_beside(section, &[], report)
    }

    /// The same for a section whose keys stand beside others, which are read elsewhere and are no part of it any more.
    pub(super) fn read_beside<S>(
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
        // In the order of the text, in which they are told, so that only the first unknown ones have to be compared.
        let mut settings: Vec<_> = section.table.iter().collect();
        settings.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in settings {
            let name: &str = key.get_ref();
            let Some(flag) = by_name.get(name) else {
                keys.unread += 1;
                report.add_lazily(key.span().start, || {
                    let instead = instead(name, flags, others);
                    format!("there is no key {}; {instead}", Quoted(name))
                });
                continue;
            };
            let (readable, mistakes) = readable::<S>(flag, key, value);
            keys.readable.extend(readable.map(|value| (key.clone(), value)));
            keys.unread += mistakes.len();
            for (offset, text) in mistakes {
                report.add(offset, format!("{name}: {text}{}", section.of));
            }
        }
        let spec = deserialize(keys.readable.clone()).unwrap_or_else(|error| {
            report.add(section.name.span().start, error);
            S::default()
        });
        (spec, keys)
    }

    /// The service they describe.
    pub(super) fn service(&self) -> &str {
        self.section.name.get_ref()
    }

    /// Whether the spec holds everything that was written.
    pub(super) const fn all_read(&self) -> bool {
        self.unread == 0
    }

    /// Whether a key was read, or has its default because nothing was said.
    pub(super) fn is_read(&self, key: &str) -> bool {
        self.readable.contains_key(key) || !self.section.table.contains_key(key)
    }

    /// Where something was said, in bytes from the start of the text; the header when it is a default that was not
    /// said at all.
    pub(super) fn place(&self, origin: Origin) -> usize {
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

/// What to write in place of a key that there is not, where there are those of `flags` and `others`.
pub(super) fn instead(name: &str, flags: &Command, others: &[&'static str]) -> String {
    let known = || flags.get_arguments().filter_map(Arg::get_long);
    if let Some(advice) = advice::for_key(name, |other| known().any(|known| known == other)) {
        return advice;
    }
    similar(name, flags, others)
}

/// The key that was probably meant by one that there is not.
pub(super) fn similar(name: &str, flags: &Command, others: &[&'static str]) -> String {
    let known = flags.get_arguments().filter_map(Arg::get_long);
    let meant = of_letter(name, flags).or_else(|| nearest(name, known.chain(others.iter().copied())));
    meant.map_or_else(
        || "see iotcpd.toml(5) for those there are".to_owned(),
        |meant| format!("did you mean `{meant}`?"),
    )
}

/// The key that a short flag is, which has no short name in a file.
pub(super) fn of_letter<'f>(name: &str, flags: &'f Command) -> Option<&'f str> {
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

/// A text about a place.
type Misread = (usize, String);

/// As much of a value as can be read (of a list, the good elements) and what is wrong with the rest.
fn readable<'i, S: DeserializeOwned>(
    flag: &Arg,
    key: &Spanned<DeString<'i>>,
    value: &Spanned<DeValue<'i>>,
) -> (Option<Spanned<DeValue<'i>>>, Vec<Misread>) {
    if !is_list(flag) {
        return match try_alone::<S>(flag, key, value, value.clone()) {
            Ok(()) => (Some(value.clone()), Vec::new()),
            Err(misread) => (None, vec![misread]),
        };
    }
    let mut good = DeArray::new();
    let mut misread = Vec::new();
    let elements = elements(value);
    // Whoever writes one, or whose program does, means that nobody is let in.
    if elements.is_empty() && flag.get_long().is_some_and(|name| name.starts_with("allow")) {
        let text = "an empty list would allow everything, as none does; name what is allowed, or leave it out";
        misread.push((value.span().start, text.to_owned()));
    }
    for element in elements {
        match try_alone::<S>(flag, key, element, list_of(element)) {
            Ok(()) => good.push(element.clone()),
            Err(wrong) => misread.push(wrong),
        }
    }
    (Some(Spanned::new(value.span(), DeValue::Array(good))), misread)
}

/// A key that may be repeated takes a list; one lone value stands for a list of one.
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

/// Whether `value`, as the spec takes it, can be read when nothing else is there.
fn try_alone<'i, S: DeserializeOwned>(
    flag: &Arg,
    key: &Spanned<DeString<'i>>,
    written: &Spanned<DeValue<'i>>,
    value: Spanned<DeValue<'i>>,
) -> Result<(), Misread> {
    let wrong = wrong_form(flag, written.get_ref()).or_else(|| {
        let alone = DeTable::from_iter([(key.clone(), value)]);
        deserialize::<S>(alone).err()
    });
    wrong.map_or(Ok(()), |text| Err((written.span().start, text)))
}

fn deserialize<S: DeserializeOwned>(table: DeTable<'_>) -> Result<S, String> {
    S::deserialize(Deserializer::from(Spanned::new(0..0, table))).map_err(|error| error.message().to_owned())
}

/// What the flag's definition alone says against a single value.
fn wrong_form(flag: &Arg, value: &DeValue<'_>) -> Option<String> {
    let name = flag.get_long().unwrap_or_default();
    let words = flag.get_possible_values();
    let quoted = || {
        let known: Vec<_> = words.iter().map(|known| format!("\"{}\"", known.get_name())).collect();
        known.join(" or ")
    };
    let is_text = flag.get_value_parser().type_id() == TypeId::of::<String>();
    match value {
        DeValue::Boolean(_) if is_switch(flag) => None,
        _ if is_switch(flag) => Some("this is switched on or off; write true or false".to_owned()),
        // One of several words, which is a form of its own.
        DeValue::Array(_) if flag.get_value_parser().type_id() == TypeId::of::<ArgumentSpec>() => None,
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

/// Infinity itself is a number in TOML, and refused in other words.
fn is_beyond_floats(number: &str) -> bool {
    !number.contains("inf") && number.parse().is_ok_and(f64::is_infinite)
}

fn too_large(number: &impl ToString) -> String {
    format!(
        "{} is too large, or no number; write a smaller one",
        Quoted(&number.to_string())
    )
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
