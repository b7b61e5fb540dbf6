//! The desk: what a room is lent by the pool while it works, and where it leaves what it has found out.
//!
//! A room reports events for the dispatcher here, in the order in which they happen, and never learns what comes of
//! them: the pool hands them over once the room has returned. So no room calls another, and none is called while it
//! works.

use std::collections::VecDeque;
use std::fmt;

use log::Level;

use crate::doors::front::Front;
use crate::doors::pool::core::{Counters, Event};
use crate::doors::pool::options::Options;
use crate::doors::pool::report::Topic;
use crate::net::origin::Origin;
use crate::reactor::Context;

/// Findings of the rooms that the pool has not acted on yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Events for the dispatcher, oldest first.
    pub(super) events: VecDeque<Event>,
    /// A descriptor was closed, for which accepting may have paused.
    pub(super) has_freed_descriptor: bool,
}

/// The pool's part in what a room does.
pub(super) struct Desk<'p> {
    pub(super) options: &'p Options,
    pub(super) counters: &'p mut Counters,
    pub(super) front: &'p mut Front,
    pub(super) outbox: &'p mut Outbox,
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

    /// Writes one line to the log, unless too many like it came lately.
    pub(super) fn note(&mut self, cx: &mut Context<'_>, level: Level, topic: Topic, line: fmt::Arguments<'_>) {
        self.note_at_length(cx, level, topic, line, std::iter::empty());
    }

    /// Writes a line with others below it, which stand or fall with it.
    pub(super) fn note_at_length(
        &mut self,
        cx: &mut Context<'_>,
        level: Level,
        topic: Topic,
        line: fmt::Arguments<'_>,
        below: impl Iterator<Item = String>,
    ) {
        if self.front.note(cx, level, topic, line) {
            let name = self.front.name();
            for line in below {
                log::log!(level, service:% = name; "{name}: {line}");
            }
        }
    }
}
