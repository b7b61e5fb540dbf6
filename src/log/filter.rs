//! The choice of the lines that are logged: the least important level for the whole program, and for single modules.
//! Pure.

use std::borrow::Cow;

use log::{Level, LevelFilter};

/// The first segment of the path of every module.
const CRATE: &str = "iotcpd";

/// The room of the modules that the doors share.
const SHARED: &str = "iotcpd::doors";

/// The rooms that the log names, each with the path of its module. `tests/it/house.rs` holds that every room that logs
/// is one of them.
pub const ROOMS: [(&str, &str); 13] = [
    ("pool", "iotcpd::doors::pool"),
    ("exec", "iotcpd::doors::exec"),
    ("command", "iotcpd::doors::command"),
    ("route", "iotcpd::doors::route"),
    ("services", SHARED),
    ("daemon", "iotcpd::daemon"),
    ("config", "iotcpd::config"),
    ("net", "iotcpd::net"),
    ("process", "iotcpd::process"),
    ("reactor", "iotcpd::reactor"),
    ("client", "iotcpd::client"),
    ("cli", "iotcpd::cli"),
    ("log", "iotcpd::log"),
];

/// The path that [`SHARED`] had up to version 2.0.
const FORMER: &str = "iotcpd::services";

/// Returns the path as it is today. A path below [`FORMER`], which older configurations may name, is moved below
/// [`SHARED`].
fn current(path: &str) -> Cow<'_, str> {
    match path.strip_prefix(FORMER) {
        Some(rest) if is_in(path, FORMER) => Cow::Owned(format!("{SHARED}{rest}")),
        _ => Cow::Borrowed(path),
    }
}

/// Returns the room of a module, by the module's path; for a module outside of all rooms the first segment of its path,
/// which is the name of its crate.
#[must_use]
pub fn room(path: &str) -> &str {
    let known = ROOMS.iter().find(|(_, room)| is_in(path, room));
    known.map_or_else(|| path.split("::").next().unwrap_or(path), |(name, _)| name)
}

/// Returns true if the module `path` is `room` or lies inside it.
fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The level from which lines are logged, for the whole program and for single modules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The level for all modules that no entry of `parts` covers.
    base: LevelFilter,
    /// Paths of modules, each with the level for everything inside it; the longest path first, so that the nearest
    /// entry is found first.
    parts: Vec<(String, LevelFilter)>,
}

/// The default: events at `info`, with all warnings and errors.
impl Default for Filter {
    fn default() -> Self {
        Filter {
            base: LevelFilter::Info,
            parts: Vec::new(),
        }
    }
}

impl Filter {
    /// Sets the level of all modules that no call of [`set`](Self::set) covers.
    pub fn set_base(&mut self, level: LevelFilter) {
        self.base = level;
    }

    /// Sets the level of the module `path` and of everything inside it. A second call for the same path replaces the
    /// first.
    pub fn set(&mut self, path: &str, level: LevelFilter) {
        let path = current(path);
        self.parts.retain(|(known, _)| *known != path);
        self.parts.push((path.into_owned(), level));
        self.parts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    }

    /// Returns true if a line of the module `path` at `level` is to be logged.
    #[must_use]
    pub fn wants(&self, path: &str, level: Level) -> bool {
        let part = self.parts.iter().find(|(room, _)| is_in(path, room));
        level <= part.map_or(self.base, |(_, level)| *level)
    }

    /// Returns the least important level that is wanted anywhere.
    #[must_use]
    pub fn max_level(&self) -> LevelFilter {
        let parts = self.parts.iter().map(|(_, level)| *level);
        parts.fold(self.base, |most, level| most.max(level))
    }
}

/// Returns true if `path` can be the path of a module of this program. Only rooms and doors are checked, not the
/// modules inside them.
#[must_use]
pub fn is_known(path: &str) -> bool {
    let path = &*current(path);
    let is_at = |room| {
        if room == SHARED {
            path == SHARED
        } else {
            is_in(path, room)
        }
    };
    path == CRATE || ROOMS.iter().any(|(_, room)| is_at(room))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_of_a_module_is_that_of_its_door_or_its_folder() {
        for (path, name) in [
            ("iotcpd::doors::pool", "pool"),
            ("iotcpd::doors::exec::shell::programs", "exec"),
            ("iotcpd::doors::closing", "services"),
            ("iotcpd::doors::poolside", "services"),
            ("iotcpd::daemon", "daemon"),
            ("iotcpd::client::ask::words", "client"),
            ("mio::poll", "mio"),
            ("", ""),
        ] {
            assert_eq!(room(path), name, "{path}");
        }
    }

    #[test]
    fn the_nearest_part_decides() {
        let mut filter = Filter::default();
        let wants = |filter: &Filter, path: &str| {
            let levels = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];
            levels.into_iter().filter(|level| filter.wants(path, *level)).count()
        };
        assert_eq!(
            (wants(&filter, "iotcpd::net"), filter.max_level()),
            (3, LevelFilter::Info)
        );
        filter.set_base(LevelFilter::Warn);
        filter.set("iotcpd::doors", LevelFilter::Error);
        filter.set("iotcpd::doors::pool", LevelFilter::Off);
        filter.set("iotcpd::doors::pool", LevelFilter::Debug);
        filter.set("iotcpd::doors::pool::shell::probe", LevelFilter::Trace);
        for (path, count) in [
            ("iotcpd::net", 2),
            ("iotcpd::doors::journal", 1),
            ("iotcpd::doors::pool", 4),
            ("iotcpd::doors::pool::shell", 4),
            ("iotcpd::doors::pool::shell::probe", 5),
            ("iotcpd::doors::poolside", 1),
        ] {
            assert_eq!(wants(&filter, path), count, "{path}");
        }
        assert_eq!(filter.max_level(), LevelFilter::Trace);
    }

    #[test]
    fn only_possible_modules_are_known() {
        for path in ["iotcpd", "iotcpd::doors", "iotcpd::doors::pool::x", "iotcpd::net"] {
            assert!(is_known(path), "{path}");
        }
        for path in ["", "net", "hyper", "iotcpd::nets", "iotcpd::doors::pol", "iotcpdx"] {
            assert!(!is_known(path), "{path}");
        }
    }
}
