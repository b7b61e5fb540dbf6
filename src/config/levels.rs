//! The syntax of the log levels: `info`, or `warn,pool=debug`.
//!
//! It is a list of levels, and of levels for single rooms (`pool=debug`), in any order and number, separated by commas.
//! A room may also be written as the path of its module, and so may any module inside it (`iotcpd::doors::pool=debug`),
//! as in `RUST_LOG`, where a path alone stands for all its lines. Everything else stays at `info`.
//!
//! Invariant: a text with a mistake yields no filter but an error with its remedy. No part is ignored, because an
//! ignored level would hide the lines that it was meant to show.

use std::fmt;
use std::str::FromStr;

use log::LevelFilter;
use serde::de::{self, Deserialize, Deserializer, Visitor};

use super::quote::Quoted;
use super::suggest::nearest;
use crate::log::{self as app_log, Filter};

/// The words for the levels, the most important first.
const LEVELS: [(&str, LevelFilter); 6] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    ("off", LevelFilter::Off),
];

/// The levels as a filter of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels(pub Filter);

/// The description of a mistake, with its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelsError(String);

impl fmt::Display for LevelsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for LevelsError {}

impl FromStr for Levels {
    type Err = LevelsError;

    fn from_str(text: &str) -> Result<Self, LevelsError> {
        let mut filter = Filter::default();
        if text.trim().is_empty() {
            return Err(error("it is empty", "write for example info, or warn,pool=debug"));
        }
        for part in text.split(',').map(str::trim) {
            if part.is_empty() {
                let what = format!("nothing stands beside a comma of {}", Quoted(text));
                return Err(error(&what, "write for example warn,pool=debug"));
            }
            if let Some((_, pattern)) = part.split_once('/') {
                let what = format!("lines cannot be chosen by their text, {}", Quoted(pattern));
                return Err(error(&what, "leave out the slash and what is behind it"));
            }
            match part.split_once('=') {
                Some((room, written)) => {
                    let path = path_of(room.trim()).ok_or_else(|| unknown_room(room.trim()))?;
                    let level = level(written.trim()).ok_or_else(|| unknown_level(written.trim()))?;
                    if path == ALL {
                        filter.set_base(level);
                    } else {
                        filter.set(path, level);
                    }
                }
                None => match level(part) {
                    Some(level) => filter.set_base(level),
                    None if part == ALL => filter.set_base(LevelFilter::Trace),
                    None if app_log::is_known(part) => filter.set(part, LevelFilter::Trace),
                    None => return Err(not_a_level(part)),
                },
            }
        }
        Ok(Levels(filter))
    }
}

/// The first segment of all paths.
const ALL: &str = "iotcpd";

fn level(written: &str) -> Option<LevelFilter> {
    let known = LEVELS.iter().find(|(word, _)| word.eq_ignore_ascii_case(written));
    known.map(|(_, level)| *level)
}

fn path_of(written: &str) -> Option<&str> {
    let known = app_log::ROOMS.iter().find(|(name, _)| *name == written);
    known
        .map(|(_, path)| *path)
        .or_else(|| app_log::is_known(written).then_some(written))
}

fn level_words() -> impl Iterator<Item = &'static str> + Clone {
    LEVELS.iter().map(|(word, _)| *word)
}

fn room_names() -> impl Iterator<Item = &'static str> + Clone {
    app_log::ROOMS.iter().map(|(name, _)| *name)
}

/// The words for levels in other programs.
const ELSEWHERE: [(&str, &str); 10] = [
    ("fatal", "error"),
    ("critical", "error"),
    ("err", "error"),
    ("quiet", "error"),
    ("warning", "warn"),
    ("notice", "info"),
    ("normal", "info"),
    ("verbose", "debug"),
    ("all", "trace"),
    ("none", "off"),
];

fn unknown_level(written: &str) -> LevelsError {
    let what = format!("there is no level {}", Quoted(written));
    let elsewhere = ELSEWHERE.iter().find(|(word, _)| word.eq_ignore_ascii_case(written));
    match elsewhere
        .map(|(_, level)| *level)
        .or_else(|| nearest(written, level_words()))
    {
        Some(meant) => suggestion(&what, meant),
        None => error(&what, &format!("write {}", choice(level_words()))),
    }
}

fn unknown_room(written: &str) -> LevelsError {
    let what = format!("there is no room {}", Quoted(written));
    // The wrong part of a path is most often the last.
    match nearest(written.rsplit("::").next().unwrap_or(written), room_names()) {
        Some(meant) => suggestion(&what, meant),
        None => error(&what, &format!("write {}", choice(room_names()))),
    }
}

/// Returns the mistake for a single word that is no level.
fn not_a_level(written: &str) -> LevelsError {
    if path_of(written).is_some() {
        let what = format!("{} is a room, and no level", Quoted(written));
        return error(&what, &format!("write for example {written}=debug"));
    }
    unknown_level(written)
}

fn choice(words: impl Iterator<Item = &'static str>) -> String {
    let mut words: Vec<_> = words.collect();
    let last = words.pop().unwrap_or_default();
    format!("{} or {last}", words.join(", "))
}

fn error(what: &str, remedy: &str) -> LevelsError {
    LevelsError(format!("{what}; {remedy}"))
}

fn suggestion(what: &str, meant: &str) -> LevelsError {
    error(what, &format!("did you mean `{meant}`?"))
}

impl<'de> Deserialize<'de> for Levels {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Levels;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("levels; write for example \"info\", or \"warn,pool=debug\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Levels, E> {
                text.parse().map_err(E::custom)
            }
        }

        from.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use log::Level;
    use proptest::prelude::*;

    use super::*;

    /// The numbers of levels that are logged, for these modules: pool, exec, net, and one of another crate.
    fn counts(text: &str) -> [usize; 4] {
        let Levels(filter) = text.parse().unwrap();
        [
            "iotcpd::doors::pool::shell",
            "iotcpd::doors::exec",
            "iotcpd::net",
            "mio",
        ]
        .map(|path| {
            let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
            levels.into_iter().filter(|level| filter.wants(path, *level)).count()
        })
    }

    #[test]
    fn a_level_applies_to_all_rooms_without_one_of_their_own() {
        for (text, expected) in [
            ("info", [3, 3, 3, 3]),
            ("ERROR", [1, 1, 1, 1]),
            ("off", [0, 0, 0, 0]),
            ("warn,pool=debug", [4, 2, 2, 2]),
            (" pool = debug , warn ", [4, 2, 2, 2]),
            ("pool=off", [0, 3, 3, 3]),
            ("trace,info", [3, 3, 3, 3]),
            ("pool=debug,exec=error,pool=warn", [2, 1, 3, 3]),
            ("services=error,pool=trace", [5, 1, 3, 3]),
        ] {
            assert_eq!(counts(text), expected, "{text}");
        }
    }

    #[test]
    fn former_values_of_rust_log_still_work() {
        for (text, expected) in [
            ("iotcpd::doors::pool=debug", [4, 3, 3, 3]),
            ("iotcpd::doors::pool::shell::probe=debug", [3, 3, 3, 3]),
            ("warn,iotcpd::net=trace", [2, 2, 5, 2]),
            ("iotcpd=debug", [4, 4, 4, 4]),
            ("iotcpd", [5, 5, 5, 5]),
            ("error,iotcpd::doors", [5, 5, 1, 1]),
            // The path of the doors in version 2.0.
            ("iotcpd::services::pool::shell=debug", [4, 3, 3, 3]),
            ("error,iotcpd::services", [5, 5, 1, 1]),
        ] {
            assert_eq!(counts(text), expected, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_reported_with_its_remedy() {
        let rooms = "pool, exec, command, route, services, daemon, config, net, process, reactor, client, cli or log";
        for (text, told) in [
            ("", "it is empty; write for example info, or warn,pool=debug"),
            (" ", "it is empty; write for example info, or warn,pool=debug"),
            ("inf", "there is no level `inf`; did you mean `info`?"),
            ("warning", "there is no level `warning`; did you mean `warn`?"),
            (
                "loud",
                "there is no level `loud`; write error, warn, info, debug, trace or off",
            ),
            (
                "3",
                "there is no level `3`; write error, warn, info, debug, trace or off",
            ),
            ("pool", "`pool` is a room, and no level; write for example pool=debug"),
            ("pol=debug", "there is no room `pol`; did you mean `pool`?"),
            (
                "iotcpd::doors::pol=debug",
                "there is no room `iotcpd::doors::pol`; did you mean `pool`?",
            ),
            ("pool=debgu", "there is no level `debgu`; did you mean `debug`?"),
            (
                "pool=",
                "there is no level ``; write error, warn, info, debug, trace or off",
            ),
            ("=debug", &format!("there is no room ``; write {rooms}")),
            ("hyper=debug", &format!("there is no room `hyper`; write {rooms}")),
            (
                "warn,,pool=debug",
                "nothing stands beside a comma of `warn,,pool=debug`; write for example warn,pool=debug",
            ),
            (
                "info/up",
                "lines cannot be chosen by their text, `up`; leave out the slash and what is behind it",
            ),
        ] {
            let error = text.parse::<Levels>().unwrap_err().to_string();
            assert_eq!(error, told, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_levels_or_an_error(text in "[a-z=,:/ ]{0,30}") {
            if let Err(error) = text.parse::<Levels>() {
                prop_assert!(error.to_string().contains("; "), "{}", error);
            }
        }
    }
}
