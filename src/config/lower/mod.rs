//! From what was written to what is meant: each door's spec becomes its `Options`.
//!
//! Defaults, ranges and cross-checks live here and nowhere else, one file per door, beside one for each part that doors
//! share. A function of this module never stops at the first mistake: it notes it in `Mistakes`, goes on with a harmless
//! value in its place, and hands out options only when nothing was noted.
//!
//! Names of users and groups are looked up here, once, because a name service may have to ask the network. And paths that
//! a sandbox is to let in are looked at, since one that is not there is a mistake of the one who wrote it. Apart from that nothing here
//! touches the system: whether an address is free or the open-file limit is high enough is the daemon's to find out.

mod argument;
mod cache;
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
mod session;
mod workers;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use command::{Entry, Program, command, entry, program_of_entry, wrong_name};
pub use exec::exec;
pub(super) use listen::clash;
pub use pool::{pool, program_of_pool};

use crate::config::units::{Size, Time, Whole};
use crate::net::addr::ListenAddr;
use crate::process::identity::LookupError;

/// A key, or one element of a list under it, that something was said by. Whoever knows where keys stand turns it into
/// a flag or into a line and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Origin {
    /// The key, which is the flag without its dashes.
    pub key: &'static str,
    /// Which of the values given to a key that may be repeated, from 0.
    pub index: Option<usize>,
}

impl Origin {
    /// A key with one value.
    #[must_use]
    pub const fn key(key: &'static str) -> Self {
        Self { key, index: None }
    }

    /// One of several values of a key.
    #[must_use]
    pub const fn element(key: &'static str, index: usize) -> Self {
        Self {
            key,
            index: Some(index),
        }
    }
}

/// Something written that cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// What it was said by.
    pub origin: Origin,
    /// What is wrong.
    pub text: String,
    /// What to write instead.
    pub remedy: String,
}

/// As it is told of a file; [`Mistake::of_flags`] tells it of flags.
impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = format!("{}: {}; {}", self.origin.key, self.text, self.remedy);
        out.write_str(&in_words_of(Words::File, &said))
    }
}

impl Mistake {
    /// As it is told of flags: with the dashes of those that it names.
    #[must_use]
    pub fn of_flags(&self) -> String {
        let said = format!("--{}: {}; {}", self.origin.key, self.text, self.remedy);
        in_words_of(Words::Flags, &said)
    }
}

/// Stands before each key that is named in the text of a mistake: with flags it is `--key`, in a file `key`. No text of an
/// operator's holds it, for control characters are shown as escapes there.
const KEY: char = '\u{1}';
/// Stands before and behind a value that is to be given to such a key.
const VALUE: char = '\u{2}';

/// A key with a value, as it would be written.
fn setting(key: &str, value: &str) -> String {
    format!("{KEY}{key}{VALUE}{value}{VALUE}")
}

#[derive(Debug, Clone, Copy)]
enum Words {
    Flags,
    File,
}

/// Means nothing to a shell.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',' | '+' | '@')
}

fn in_words_of(words: Words, said: &str) -> String {
    let mut told = String::with_capacity(said.len());
    for (place, piece) in said.split(VALUE).enumerate() {
        let is_value = place % 2 == 1;
        let piece = match words {
            Words::Flags if is_value && piece.chars().all(is_plain) => format!(" {piece}"),
            Words::Flags if is_value => format!(" {}", shell_words::quote(piece)),
            Words::Flags => piece.replace(KEY, "--"),
            Words::File if is_value => format!(" = {piece:?}"),
            Words::File => piece.replace(KEY, ""),
        };
        told.push_str(&piece);
    }
    told
}

/// The options of one service, and what each of its listening addresses was said by.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered<O> {
    /// Ready for the door.
    pub options: O,
    /// Every address it listens on with its origin, in the order of the options.
    pub listen: Vec<(Origin, ListenAddr)>,
}

/// What was found wrong so far.
#[derive(Debug, Default)]
struct Mistakes(Vec<Mistake>);

impl Mistakes {
    fn add(&mut self, origin: Origin, text: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Mistake {
            origin,
            text: text.into(),
            remedy: remedy.into(),
        });
    }

    /// Notes an error of another room. Most end in their remedy; for those that do not, `otherwise` is one.
    fn add_said(&mut self, origin: Origin, said: &str, otherwise: &str) {
        let end = said
            .rsplit_once("; ")
            .or_else(|| said.rsplit_once(": ").filter(|(_, end)| end.starts_with("write ")));
        let (text, remedy) = end.unwrap_or((said, otherwise));
        self.add(origin, text, remedy);
    }

    /// What a name stands for; `None`: nothing, which has been noted.
    fn found<T>(&mut self, key: &'static str, looked_up: Result<T, LookupError>) -> Option<T> {
        looked_up
            .map_err(|error| self.add_said(Origin::key(key), &error.to_string(), "give its number"))
            .ok()
    }

    /// `given` if it is in range; else the mistake is noted and the nearest end of the range stands in.
    fn within<T: Ord + Copy + fmt::Display>(&mut self, key: &'static str, given: T, range: &RangeInclusive<T>) -> T {
        if !range.contains(&given) {
            let text = format!("{given} is out of range");
            self.add(
                Origin::key(key),
                text,
                format!("write a value from {} to {}", range.start(), range.end()),
            );
        }
        given.clamp(*range.start(), *range.end())
    }

    fn time(&mut self, key: &'static str, given: Option<Time>, range: &RangeInclusive<Duration>) -> Option<Duration> {
        let range = Time(*range.start())..=Time(*range.end());
        given.map(|time| self.within(key, time, &range).0)
    }

    fn size(&mut self, key: &'static str, given: Option<Size>, range: &RangeInclusive<u64>) -> Option<u64> {
        let range = Size(*range.start())..=Size(*range.end());
        given.map(|size| self.within(key, size, &range).0)
    }

    /// A count of something; the range is what makes it fit `T`.
    fn count<T>(&mut self, key: &'static str, given: Option<Whole>, range: RangeInclusive<T>) -> Option<T>
    where
        T: TryFrom<i64> + Copy,
        i64: TryFrom<T>,
    {
        let limit = |end: T| Whole(i64::try_from(end).unwrap_or(i64::MAX));
        let (start, end) = range.into_inner();
        let given = self.within(key, given?, &(limit(start)..=limit(end)));
        Some(T::try_from(given.0).unwrap_or(end))
    }

    /// `done` if nothing was wrong, else everything that was.
    fn unless_any<T>(self, done: T) -> Result<T, Vec<Mistake>> {
        if self.0.is_empty() { Ok(done) } else { Err(self.0) }
    }
}

/// The longest time that any option takes. Far beyond use, and far from the end of the clock's range.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// The shortest time-out of anything that happens between processes or over a network.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
