//! The store of the door: the thread that follows it, and what becomes of its news.
//!
//! The follower ([`Follower`]) sends a table whenever the believed names have changed. Here it takes the place of the
//! one before, which goes back to the thread to be dropped, and the routes that have waited for the first one go on.
//! Until the first reading or the first failure they wait, also if there is a table of a former run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::Level;

use super::super::core::table::{Source, Table};
use super::super::options::{StoreOptions, TUNNEL};
use super::super::report::{ENTRY, STORE, StoreCounts};
use super::super::stored;
use super::{RouteDoor, RouteSource};
use crate::amount;
use crate::reactor::{Context, Key, SourceKind};
use crate::store::follow::{Follower, Make, News, Report};
use crate::store::keeper::Verdict;

/// The store as the loop sees it.
#[derive(Debug)]
pub(super) struct Stored {
    /// `None` once the store is not followed any more.
    follower: Option<Follower<Arc<Table>>>,
    state: State,
    counts: StoreCounts,
    /// The time of which the table is known to be that of the store.
    as_of: Option<Instant>,
    /// True if it has services for tunnel clients, and none can connect.
    is_unserved: bool,
}

/// The state of the connection to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// The first attempt is under way.
    Awaited,
    Connected,
    /// It is not reached, for this reason, which the log has been told.
    Lost(String),
    /// The door ends.
    Left,
}

impl RouteDoor {
    /// Begins to follow the store, if there is one.
    pub(super) fn follow_store(&mut self, cx: &mut Context<'_>) {
        let Some(options) = &self.options.store else { return };
        let (settings, make) = (options.settings.clone(), maker(options));
        let follower = match Follower::start(cx, settings, make) {
            Ok(follower) => follower,
            Err(error) => {
                let line = format_args!("there is no thread to follow the store: {error}; send HUP to try again");
                self.front.note(cx, Level::Error, STORE, line);
                return;
            }
        };
        self.router.await_store();
        self.store = Some(Stored {
            follower: Some(follower),
            state: State::Awaited,
            counts: StoreCounts::default(),
            as_of: None,
            is_unserved: false,
        });
    }

    /// Follows the store of the present options, which was that of `before`. Its last table stays until the first
    /// reading, or goes if there is no store any more.
    pub(super) fn follow_store_again(&mut self, cx: &mut Context<'_>, before: Option<&StoreOptions>) {
        match (&self.options.store, &self.store) {
            (Some(options), Some(stored)) if Some(options) != before => {
                if let Some(follower) = &stored.follower {
                    follower.change(options.settings.clone(), maker(options));
                }
            }
            (Some(_), Some(_)) | (None, None) => {}
            (Some(_), None) => self.follow_store(cx),
            (None, Some(_)) => {
                self.take_table(Arc::default());
                self.leave_store(cx);
                self.store = None;
            }
        }
    }

    /// Ends the thread. The last table stays.
    pub(super) fn leave_store(&mut self, cx: &mut Context<'_>) {
        if let Some(stored) = &mut self.store {
            stored.follower = None;
            stored.state = State::Left;
        }
        self.await_store_no_longer(cx);
    }

    /// Takes in what the thread has found out.
    pub(super) fn take_news(&mut self, cx: &mut Context<'_>) {
        while let Some(news) = self.next_news() {
            match news {
                News::Cached { table, written } => self.take_cached(cx, table, written),
                News::Connected => self.note_connected(cx),
                News::Failed(why) => self.note_failure(cx, why),
                News::Read(report) => self.take_reading(cx, report),
                News::Remade(table) => self.take_table(table),
                News::Remark(line) => {
                    self.front.note(cx, Level::Warn, STORE, format_args!("{line}"));
                }
                News::Fault(line) => {
                    self.front.note(cx, Level::Warn, ENTRY, format_args!("{line}"));
                }
            }
        }
    }

    fn next_news(&self) -> Option<News<Arc<Table>>> {
        self.store.as_ref()?.follower.as_ref()?.take()
    }

    fn take_cached(&mut self, cx: &mut Context<'_>, table: Arc<Table>, written: Option<Instant>) {
        let names = table.len();
        let age = written.map(|written| amount::span(cx.now().saturating_duration_since(written)));
        let age = age.map(|age| format!(", written {age} ago")).unwrap_or_default();
        let line = format_args!("{names} names of the store from its table-cache{age}, until it is read");
        self.front.note(cx, Level::Info, STORE, line);
        self.take_table(table);
        if let Some(stored) = &mut self.store {
            stored.as_of = written;
        }
    }

    fn note_connected(&mut self, cx: &mut Context<'_>) {
        let (Some(stored), Some(options)) = (&mut self.store, &self.options.store) else {
            return;
        };
        let (place, before) = (&options.settings.place, &stored.state);
        let back = if matches!(before, State::Lost(_)) { "again " } else { "" };
        let line = format!("connected {back}to the store at {place}");
        stored.state = State::Connected;
        self.front.note(cx, Level::Info, STORE, format_args!("{line}"));
    }

    fn note_failure(&mut self, cx: &mut Context<'_>, why: String) {
        let (Some(stored), Some(options)) = (&mut self.store, &self.options.store) else {
            return;
        };
        stored.counts.errors += 1;
        let state = State::Lost(why);
        let (is_told, was_connected) = (stored.state == state, stored.state == State::Connected);
        if let (State::Lost(why), false) = (&state, is_told) {
            let place = &options.settings.place;
            let what = if was_connected { "is lost" } else { "cannot be used" };
            let names = stored.counts.names;
            let stay = if names > 0 {
                format!("; its last {names} names stay")
            } else {
                String::new()
            };
            let line = format!("the store at {place} {what}: {why}{stay}");
            self.front.note(cx, Level::Error, STORE, format_args!("{line}"));
        }
        if let Some(stored) = &mut self.store {
            stored.state = state;
        }
        self.await_store_no_longer(cx);
    }

    fn take_reading(&mut self, cx: &mut Context<'_>, report: Report<Arc<Table>>) {
        let Some(stored) = &mut self.store else { return };
        let is_first = stored.counts.readings == 0;
        stored.counts.readings += 1;
        stored.counts.bad = report.bad;
        match report.verdict {
            Verdict::Take => stored.as_of = Some(report.begun),
            Verdict::Doubt { instead_of, is_new } => {
                stored.counts.doubted += 1;
                if is_new {
                    let names = report.names;
                    let line = format_args!(
                        "the store has {names} names instead of {instead_of}; the last ones stay until it is read a second \
                         time with the same names"
                    );
                    self.front.note(cx, Level::Warn, STORE, line);
                }
            }
        }
        if let Some(table) = report.table {
            let names = table.len();
            self.take_table(table);
            self.note_unserved(cx);
            let line = format_args!("the store has {names} names");
            let level = if is_first { Level::Info } else { Level::Debug };
            self.front.note(cx, level, STORE, line);
        }
        self.await_store_no_longer(cx);
    }

    /// Tells the log once that the store has services for tunnel clients, where none can connect.
    fn note_unserved(&mut self, cx: &mut Context<'_>) {
        let listens = self.options.front.listen.iter().any(|listen| listen.mark == TUNNEL);
        let is_unserved = !listens && !self.router.tables().get(Source::Store).secrets().is_empty();
        let Some(stored) = &mut self.store else { return };
        let was_told = std::mem::replace(&mut stored.is_unserved, is_unserved);
        if is_unserved && !was_told {
            let line = "services of the store have a client-secret, but no tunnel client can connect, so their clients are \
                        refused; write tunnel-listen as well";
            self.front.note(cx, Level::Warn, STORE, format_args!("{line}"));
        }
    }

    /// Puts a table in the place of the last one of the store.
    fn take_table(&mut self, table: Arc<Table>) {
        let names = table.len();
        self.sessions.has_new_secrets = true;
        let before = self.router.replace_table(Source::Store, table);
        if let Some(stored) = &mut self.store {
            stored.counts.names = names;
            if let Some(follower) = &stored.follower {
                follower.discard(before);
            }
        }
    }

    /// Lets the routes go on that have waited for the first table.
    fn await_store_no_longer(&mut self, cx: &mut Context<'_>) {
        self.router.stop_awaiting_store();
        self.judge_undecided_clients(cx);
        self.look_at_secrets(cx);
        while let Some(route) = self.router.woken() {
            cx.resume_later(RouteSource::Route.at(Key::from_bits(route.0)));
        }
    }

    /// Returns the numbers of the store.
    pub(super) fn store_counts(&self, now: Instant) -> StoreCounts {
        let Some(stored) = &self.store else {
            return StoreCounts::default();
        };
        StoreCounts {
            age: stored.age(now).unwrap_or_default(),
            ..stored.counts
        }
    }

    /// Returns the line of the dump.
    pub(super) fn describe_store(&self, now: Instant) -> Option<String> {
        let (stored, options) = (self.store.as_ref()?, self.options.store.as_ref()?);
        let state = match &stored.state {
            State::Awaited => "awaited".to_owned(),
            State::Connected => "connected".to_owned(),
            State::Lost(why) => format!("lost ({why})"),
            State::Left => "left".to_owned(),
        };
        let (place, names, bad) = (&options.settings.place, stored.counts.names, stored.counts.bad);
        let age = stored.age(now).map(amount::span).map(|age| age.to_string());
        let age = age.as_deref().unwrap_or("unknown");
        Some(format!(
            "store: address = {place}, state = {state}, names = {names}, age = {age}, bad = {bad}"
        ))
    }
}

impl Stored {
    fn age(&self, now: Instant) -> Option<Duration> {
        self.as_of.map(|as_of| now.saturating_duration_since(as_of))
    }
}

/// Returns the maker of tables by these options.
fn maker(options: &StoreOptions) -> Make<Arc<Table>> {
    let rule = options.rule.clone();
    Box::new(move |listing| stored::table(listing, &rule))
}
