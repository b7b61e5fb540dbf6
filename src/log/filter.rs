//! What is logged: the least level of the whole program, and of single rooms. Pure.

use std::borrow::Cow;

use log::{Level, LevelFilter};

/// What each module's path begins with.
const CRATE: &str = "iotcpd";

/// What the doors share is beside them.
const SHARED: &str = "iotcpd::doors";

/// The rooms that may have a level of their own, and where they are in the house. `tests/it/house.rs` holds that each room
/// that logs is one of them.
pub const ROOMS: [(&str, &str); 12] = [
    ("pool", "iotcpd::doors::pool"),
    ("exec", "iotcpd::doors::exec"),
    ("command", "iotcpd::doors::command"),
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

/// What [`SHARED`] was called up to version 2.0.
const FORMER: &str = "iotcpd::services";

/// A path as it is today: one in a former room, as configurations may name it, is that in today's.
fn current(path: &str) -> Cow<'_, str> {
    match path.strip_prefix(FORMER) {
        Some(rest) if is_in(path, FORMER) => Cow::Owned(format!("{SHARED}{rest}")),
        _ => Cow::Borrowed(path),
    }
}

/// The room that a module is in, by its path; for one that is in none, of another crate, the name of that.
#[must_use]
pub fn room(path: &str) -> &str {
    let known = ROOMS.iter().find(|(_, room)| is_in(path, room));
    known.map_or_else(|| path.split("::").next().unwrap_or(path), |(name, _)| name)
}

/// Whether a module is another one, or in it.
fn is_in(path: &str, room: &str) -> bool {
    path.strip_prefix(room)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Of what is in none of the parts.
    base: LevelFilter,
    /// Paths of modules with the levels of all that is in them, the longest first.
    parts: Vec<(String, LevelFilter)>,
}

/// What happens, with all warnings and errors.
impl Default for Filter {
    fn default() -> Self {
        Filter {
            base: LevelFilter::Info,
            parts: Vec::new(),
        }
    }
}

impl Filter {
    /// Of all that no other call is about.
    pub fn set_base(&mut self, level: LevelFilter) {
        self.base = level;
    }

    /// Of a module, by its path, and of all that is in it; said twice, the second counts.
    pub fn set(&mut self, path: &str, level: LevelFilter) {
        let path = current(path);
        self.parts.retain(|(known, _)| *known != path);
        self.parts.push((path.into_owned(), level));
        self.parts.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
    }

    /// Whether a line of a module is wanted.
    #[must_use]
    pub fn wants(&self, path: &str, level: Level) -> bool {
        let part = self.parts.iter().find(|(room, _)| is_in(path, room));
        level <= part.map_or(self.base, |(_, level)| *level)
    }

    /// The least important level that is wanted anywhere.
    #[must_use]
    pub fn most(&self) -> LevelFilter {
        let parts = self.parts.iter().map(|(_, level)| *level);
        parts.fold(self.base, |most, level| most.max(level))
    }
}

/// Whether a path may be that of a module of this program: as far as rooms and doors are concerned.
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
        assert_eq!((wants(&filter, "iotcpd::net"), filter.most()), (3, LevelFilter::Info));
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
        assert_eq!(filter.most(), LevelFilter::Trace);
    }

    #[test]
    fn only_what_can_be_there_is_known() {
        for path in ["iotcpd", "iotcpd::doors", "iotcpd::doors::pool::x", "iotcpd::net"] {
            assert!(is_known(path), "{path}");
        }
        for path in ["", "net", "hyper", "iotcpd::nets", "iotcpd::doors::pol", "iotcpdx"] {
            assert!(!is_known(path), "{path}");
        }
    }
}
