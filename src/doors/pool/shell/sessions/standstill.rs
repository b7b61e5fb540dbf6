//! A session whose client sends everything before it reads, and whose worker reads nothing before its output is taken:
//! of what the client sends more is held, within the limits of [`standstill`](crate::doors::standstill).
//!
//! While bytes flow nothing of this is to cost anything: every try of a session makes sure that it is looked at a
//! moment later, and only then, and while it stands still, the kernel is asked whether bytes wait both ways.

use std::time::{Duration, Instant};

use log::Level;

use super::session::{Session, Stage, Standstill, Volume};
use super::{Outcome, Sessions};
use crate::doors::pool::options::Options;
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::standstill::{Advice, Sight};
use crate::reactor::{Key, SourceKind};

/// A session is looked at so long after something was tried.
const MOMENT: Duration = Duration::from_millis(100);

impl Standstill {
    /// Something was tried, and so much has gone.
    pub(crate) fn note(&mut self, volume: Volume, now: Instant) {
        if volume.down > 0 {
            self.watch.sent(usize::try_from(volume.down).unwrap_or(usize::MAX));
        }
        if volume.up > 0 {
            self.watch.taken();
        }
        self.look_at.get_or_insert(now + MOMENT);
    }

    /// When to look.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.look_at.into_iter().chain(self.watch.deadline()).min()
    }

    /// Returns true if it is time to look.
    fn is_due(&self, now: Instant) -> bool {
        !self.watch.is_at_rest() || self.look_at.is_some_and(|at| at <= now)
    }
}

impl Sessions {
    /// Decides how much of a session's input may be held.
    pub(super) fn let_hold(&mut self, options: &Options, key: Key) {
        let Some(Session {
            stage: Stage::Running(running),
            ..
        }) = self.table.get_mut(key)
        else {
            return;
        };
        let held = running.held();
        let growth = running.standstill.watch.growth(&self.hoard, held, options.max_buffer);
        running.let_hold(if growth > 0 { held.saturating_add(growth) } else { 0 });
    }

    /// Looks whether a session stands still both ways, after everything was moved that could be.
    pub(super) fn look_at_standstill(&mut self, desk: &mut Desk<'_>, key: Key) -> Outcome {
        let (usual, doubt, now) = (desk.options.max_buffer, desk.options.write_timeout, desk.cx.now());
        let Some(Session {
            conn,
            origin,
            stage: Stage::Running(running),
            ..
        }) = self.table.get_mut(key)
        else {
            return Outcome::GoesOn;
        };
        if !running.standstill.is_due(now) {
            return Outcome::GoesOn;
        }
        running.standstill.look_at.take_if(|at| *at <= now);
        let sight = Sight {
            is_jammed: running.is_jammed(conn),
            input: running.held(),
            usual,
            doubt,
        };
        match running.standstill.watch.look(&mut self.hoard, conn, sight, now) {
            Advice::Wait => Outcome::GoesOn,
            Advice::Grow => {
                let growth = running.standstill.watch.growth(&self.hoard, sight.input, usual);
                if running.let_hold(sight.input.saturating_add(growth)) {
                    desk.cx.resume_later(PoolSource::Session.at(key));
                }
                Outcome::GoesOn
            }
            Advice::GiveUp => {
                desk.counters.refusals.write_timeout += 1;
                let line = format_args!(
                    "ended the session of {origin}: its client has sent more than --max-buffer allows to be held, and reads \
                     none of what its worker writes"
                );
                desk.note(Level::Warn, Topic::Standstill, line);
                Outcome::Over
            }
        }
    }
}
