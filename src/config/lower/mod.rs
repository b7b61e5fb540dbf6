//! The step from the written settings to their meaning: each door's spec becomes its `Options`.
//!
//! Defaults, ranges and cross-checks live here and nowhere else: one file per door, and one for each part that doors
//! share. A function of this module never stops at the first mistake: it adds the mistake to `Mistakes`, goes on with a
//! harmless value in its place, and returns options only when there is no mistake.
//!
//! Names of users and groups are looked up here, once, because a name service may need the network. The paths that a
//! sandbox grants are checked too, because a missing one is a mistake in the configuration. Otherwise nothing here
//! touches the system: the daemon finds out if an address is free and the open-file limit is high enough.

mod active_check;
mod argument;
mod cache;
mod coalescing;
mod command;
mod exec;
mod framing;
mod listen;
pub mod log;
mod no_shell;
mod pattern;
mod permits;
mod pool;
mod probe;
mod process;
mod refusal;
mod route;
mod service;
mod session;
mod start;
mod store;
mod tls;
mod tunnel;
mod workers;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use coalescing::coalescing;
pub use command::{Entry, Program, command, entry, program_of_entry, wrong_name};
pub use exec::exec;
pub(super) use listen::clash;
pub use pool::{pool, program_of_pool};
pub use route::{Services, route, service_defaults};
pub use service::{LoweredService, ServiceDefaults, service, service_name};
pub use start::{Programs, program_of_service, start};
pub use store::store;
pub use tls::{authorities_of, identities_of};
pub use tunnel::tunnel;

use crate::config::units::{Size, Time, Whole};
use crate::net::addr::Listen;
use crate::process::identity::LookupError;

/// The key, or the element of a list under a key, that holds a setting. The caller that knows the positions of the keys
/// turns it into a flag or into a line and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyRef {
    /// The key, which is the flag without its dashes.
    pub key: &'static str,
    /// The index of the value, for a key that may be repeated, from 0.
    pub index: Option<usize>,
}

impl KeyRef {
    /// Creates the origin of a key with one value.
    #[must_use]
    pub const fn key(key: &'static str) -> Self {
        Self { key, index: None }
    }

    /// Creates the origin of one of several values of a key.
    #[must_use]
    pub const fn element(key: &'static str, index: usize) -> Self {
        Self {
            key,
            index: Some(index),
        }
    }
}

/// A setting that cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key of the setting.
    pub origin: KeyRef,
    /// The description of the mistake.
    pub text: String,
    /// The advice what to write instead.
    pub remedy: String,
}

/// The form for a setting in a file; [`Mistake::for_flags`] is the form for a flag.
impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = format!("{}: {}; {}", self.origin.key, self.text, self.remedy);
        out.write_str(&worded(Wording::File, &said))
    }
}

impl Mistake {
    /// Returns the form for a flag: the flags that the text names have their dashes.
    #[must_use]
    pub fn for_flags(&self) -> String {
        let said = format!("--{}: {}; {}", self.origin.key, self.text, self.remedy);
        worded(Wording::Flags, &said)
    }
}

/// A mark before each key in the text of a mistake: a flag is printed as `--key`, a key of a file as `key`. The text of
/// an operator never contains it, because control characters are shown as escapes there.
const KEY: char = '\u{1}';
/// A mark before and after the value that is to be given to such a key.
const VALUE: char = '\u{2}';

/// Returns a key with a value, marked so that it is printed as it would be written.
fn setting(key: &str, value: &str) -> String {
    format!("{KEY}{key}{VALUE}{value}{VALUE}")
}

#[derive(Debug, Clone, Copy)]
enum Wording {
    Flags,
    File,
}

/// Returns true if a shell treats the character literally.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',' | '+' | '@')
}

fn worded(wording: Wording, said: &str) -> String {
    let mut told = String::with_capacity(said.len());
    for (place, piece) in said.split(VALUE).enumerate() {
        let is_value = place % 2 == 1;
        let piece = match wording {
            Wording::Flags if is_value && piece.chars().all(is_plain) => format!(" {piece}"),
            Wording::Flags if is_value => format!(" {}", shell_words::quote(piece)),
            Wording::Flags => piece.replace(KEY, "--"),
            Wording::File if is_value => format!(" = {piece:?}"),
            Wording::File => piece.replace(KEY, ""),
        };
        told.push_str(&piece);
    }
    told
}

/// The options of one service, and the origin of each of its listening addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered<O> {
    /// The complete options of the door.
    pub options: O,
    /// Every listener of the door with its origin, in the order of the options.
    pub listen: Vec<(KeyRef, Listen)>,
}

/// The mistakes found so far.
#[derive(Debug, Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, origin: KeyRef, text: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Mistake {
            origin,
            text: text.into(),
            remedy: remedy.into(),
        });
    }

    /// Adds an error of another room. The text of most of them ends with the remedy; `otherwise` is the remedy for the
    /// others.
    fn add_error(&mut self, origin: KeyRef, said: &str, otherwise: &str) {
        let end = said
            .rsplit_once("; ")
            .or_else(|| said.rsplit_once(": ").filter(|(_, end)| end.starts_with("write ")));
        let (text, remedy) = end.unwrap_or((said, otherwise));
        self.add(origin, text, remedy);
    }

    /// Returns the result of looking up a name. Adds a mistake and returns `None` if the name is unknown.
    fn resolve<T>(&mut self, key: &'static str, looked_up: Result<T, LookupError>) -> Option<T> {
        looked_up
            .map_err(|error| self.add_error(KeyRef::key(key), &error.to_string(), "give its number"))
            .ok()
    }

    /// Returns `given` if it is in range; else adds a mistake and returns the nearest end of the range.
    fn check_range<T: Ord + Copy + fmt::Display>(
        &mut self,
        key: &'static str,
        given: T,
        range: &RangeInclusive<T>,
    ) -> T {
        if !range.contains(&given) {
            let text = format!("{given} is out of range");
            self.add(
                KeyRef::key(key),
                text,
                format!("write a value from {} to {}", range.start(), range.end()),
            );
        }
        given.clamp(*range.start(), *range.end())
    }

    fn time(&mut self, key: &'static str, given: Option<Time>, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let range = Time(*range.start())..=Time(*range.end());
        given.map(|time| self.check_range(key, time, &range).0)
    }

    /// Returns a time limit, which 0 takes away, or `default` if none is given.
    fn limit(&mut self, key: &'static str, given: Option<Time>, default: Option<Duration>) -> Option<Duration> {
        match given {
            None => default,
            Some(Time(Duration::ZERO)) => None,
            Some(Time(time)) if time < SHORTEST_TIMEOUT => {
                let text = format!("{} is out of range", Time(time));
                let (shortest, longest) = (Time(SHORTEST_TIMEOUT), Time(LONGEST));
                let remedy = format!("write a value from {shortest} to {longest}, or 0 for no limit");
                self.add(KeyRef::key(key), text, remedy);
                None
            }
            given => self.time(key, given, &(SHORTEST_TIMEOUT..=LONGEST)),
        }
    }

    fn size(&mut self, key: &'static str, given: Option<Size>, range: &RangeInclusive<u64>) -> Option<u64> {
        let range = Size(*range.start())..=Size(*range.end());
        given.map(|size| self.check_range(key, size, &range).0)
    }

    /// Returns a count within a range whose ends fit `T`.
    fn count<T>(&mut self, key: &'static str, given: Option<Whole>, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + Copy,
        i64: TryFrom<T>,
    {
        let limit = |end: T| Whole(i64::try_from(end).unwrap_or(i64::MAX));
        let (start, end) = range.into_inner();
        let given = self.check_range(key, given?, &(limit(start)..=limit(end)));
        Some(T::try_from(given.0).unwrap_or(end))
    }

    /// Returns `done` if there is no mistake, else all mistakes.
    fn into_result<T>(self, done: T) -> Result<T, Vec<Mistake>> {
        if self.0.is_empty() { Ok(done) } else { Err(self.0) }
    }
}

/// The longest time that any option accepts: far beyond use, and far from the end of the clock's range.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The shortest time-out for events between processes or on a network.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
