//! The desk: what a room is lent by the pool while it works, and where it leaves what it has found out.
//!
//! The pool owns the [`Base`], and lends a room a [`Desk`] of it, and of the reactor, with each call. A room reports
//! events for the dispatcher here, in the order in which they happen, and never learns what comes of them: the pool
//! hands them over once the room has returned. So no room calls another, and none is called while it works.

use std::collections::VecDeque;
use std::fmt;

use log::Level;
use mio::Interest;

use crate::doors::front::Front;
use crate::doors::pool::core::{Counters, Dispatcher, Event};
use crate::doors::pool::options::Options;
use crate::doors::pool::report::Topic;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::reactor::{Context, Source};

/// The part of a pool that is no room's own.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) options: Options,
    pub(super) front: Front,
    pub(super) dispatcher: Dispatcher,
    pub(super) outbox: Outbox,
}

/// Findings of the rooms that the pool has not acted on yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Events for the dispatcher, oldest first.
    pub(super) events: VecDeque<Event>,
    /// A descriptor was closed, for which accepting may have paused.
    pub(super) has_freed_descriptor: bool,
}

/// The things that a room works with during one call: the reactor, and the pool's part in what the room does.
pub(super) struct Desk<'p> {
    pub(super) cx: Context<'p>,
    pub(super) options: &'p Options,
    pub(super) counters: &'p mut Counters,
    pub(super) front: &'p mut Front,
    pub(super) outbox: &'p mut Outbox,
}

impl Base {
    /// Lends a room its part of this. Of the dispatcher that is the counters: only the pool fetches its decisions.
    pub(super) fn desk<'p>(&'p mut self, cx: &'p mut Context<'_>) -> Desk<'p> {
        Desk {
            cx: cx.reborrow(),
            options: &self.options,
            counters: self.dispatcher.counters_mut(),
            front: &mut self.front,
            outbox: &mut self.outbox,
        }
    }
}

impl Desk<'_> {
    /// Leaves an event for the dispatcher.
    pub(super) fn report(&mut self, event: Event) {
        self.outbox.events.push_back(event);
    }

    /// Takes a connection that is about to be closed off the count.
    pub(super) fn release_connection(&mut self, origin: &Origin) {
        self.front.release(origin);
        self.outbox.has_freed_descriptor = true;
    }

    /// Registers a connection with the poll, once and for all. Returns false if that fails, which is logged: nothing
    /// would be heard of the connection.
    pub(super) fn watch(&mut self, at: Source, conn: &mut Conn, origin: &Origin, is_watched: &mut bool) -> bool {
        if *is_watched {
            return true;
        }
        match self.cx.register(at, conn, Interest::READABLE | Interest::WRITABLE) {
            Ok(()) => *is_watched = true,
            Err(error) => {
                let line = format_args!("closed {origin}: cannot watch its connection: {error}");
                self.note(Level::Error, Topic::System, line);
            }
        }
        *is_watched
    }

    /// Writes one line to the log, unless too many like it came lately.
    pub(super) fn note(&mut self, level: Level, topic: Topic, line: fmt::Arguments<'_>) {
        self.note_at_length(level, topic, line, std::iter::empty());
    }

    /// Writes a line with others below it, which stand or fall with it.
    pub(super) fn note_at_length(
        &mut self,
        level: Level,
        topic: Topic,
        line: fmt::Arguments<'_>,
        below: impl Iterator<Item = String>,
    ) {
        if self.front.note(&mut self.cx, level, topic, line) {
            let name = self.front.name();
            for line in below {
                log::log!(level, service:% = name; "{name}: {line}");
            }
        }
    }
}
