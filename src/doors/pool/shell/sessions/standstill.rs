//! A session whose client sends everything before it reads, and whose worker reads nothing before its output is taken: of what
//! the client sends more is held, within the limits of [`standstill`](crate::doors::standstill).
//!
//! While bytes flow nothing of this is to cost anything: every try of a session makes sure that it is looked at a moment
//! later, and only then, and while it stands still, the kernel is asked whether bytes wait both ways.

use std::time::{Duration, Instant};

use log::Level;

use super::session::{Standstill, Volume};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::doors::standstill::{Advice, Sight};
use crate::reactor::{Context, Key, SourceKind};

/// A session is looked at so long after something was tried.
const MOMENT: Duration = Duration::from_millis(100);

impl Standstill {
    /// Something was tried, and so much has gone.
    pub(in crate::doors::pool::shell) fn note(&mut self, volume: Volume, now: Instant) {
        if volume.down > 0 {
            self.watch.sent(usize::try_from(volume.down).unwrap_or(usize::MAX));
        }
        if volume.up > 0 {
            self.watch.taken();
        }
        self.look_at.get_or_insert(now + MOMENT);
    }

    /// When to look.
    pub(in crate::doors::pool::shell) fn deadline(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.watch.deadline()).min()
    }

    /// Whether it is time to look.
    fn is_due(&self, now: Instant) -> bool {
        !self.watch.is_at_rest() || self.look_at.is_some_and(|at| at <= now)
    }
}

impl Pool {
    /// Sees how much of a session's input may be held.
    pub(in crate::doors::pool::shell) fn let_session_hold(&mut self, key: Key) {
        let usual = self.options.max_buffer;
        if let Some((_, running)) = self.sessions.running(key) {
            let held = running.held();
            let growth = running.standstill.watch.growth(&self.hoard, held, usual);
            running.let_hold(if growth > 0 { held.saturating_add(growth) } else { 0 });
        }
    }

    /// Sees whether a session stands still both ways, after everything was moved that could be.
    pub(in crate::doors::pool::shell) fn look_at_standstill(&mut self, cx: &mut Context<'_>, key: Key) {
        let (usual, doubt, now) = (self.options.max_buffer, self.options.write_timeout, cx.now());
        let Some((stream, running)) = self.sessions.running(key) else {
            return;
        };
        if !running.standstill.is_due(now) {
            return;
        }
        running.standstill.look_at.take_if(|at| *at <= now);
        let sight = Sight {
            is_jammed: running.is_jammed(stream),
            input: running.held(),
            usual,
            doubt,
        };
        match running.standstill.watch.look(&mut self.hoard, stream, sight, now) {
            Advice::Wait => {}
            Advice::Grow => {
                let growth = running.standstill.watch.growth(&self.hoard, sight.input, usual);
                if running.let_hold(sight.input.saturating_add(growth)) {
                    cx.resume_later(PoolSource::Session.at(key));
                }
            }
            Advice::GiveUp => self.give_session_up(cx, key),
        }
    }

    fn give_session_up(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(origin) = self.sessions.origin(key).cloned() else {
            return;
        };
        self.dispatcher.counters_mut().refusals.write_timeout += 1;
        let line = format_args!(
            "ended the session of {origin}: its client has sent more than --max-buffer allows to be held, and reads none of \
             what its worker writes"
        );
        self.note(cx, Level::Warn, Topic::Standstill, line);
        self.end_session(cx, key);
    }
}
