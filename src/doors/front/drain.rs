//! The end of a door: it serves, then it drains, then the rest of its work is stopped.
//!
//! The door knows which clients to hasten and what to stop; this state machine knows when. A door that drains has a
//! deadline, until it is idle or stopped. A door that drains after a hand-over may be told to end: that deadline may be
//! earlier, and never puts the first one off.

use std::time::{Duration, Instant};

use crate::reactor::{Alarm, Context, Source};

/// The progress of a door towards its end.
#[derive(Debug)]
pub(super) struct Drain {
    stage: Stage,
    alarm: Alarm,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// No client is accepted any more; work in hand may end.
    Draining {
        until: Instant,
        /// The flag that has set the deadline.
        flag: &'static str,
    },
    /// Work in hand is stopped.
    Stopping,
}

/// The time that work in hand may take while a door drains, and the flag that sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::doors) struct Allowance {
    pub(super) time: Duration,
    pub(super) flag: &'static str,
}

impl Drain {
    /// A door that serves. `source` is the source of the deadline's alarm.
    pub(super) fn new(source: Source) -> Self {
        Drain {
            stage: Stage::Serving,
            alarm: Alarm::default(),
            source,
        }
    }

    pub(super) fn is_serving(&self) -> bool {
        self.stage == Stage::Serving
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.stage, Stage::Draining { .. })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stage == Stage::Stopping
    }

    /// Begins to drain: work in hand may go on for as long as `allowance` says. A door that drains already gets no more
    /// time than it has.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, allowance: Allowance) {
        let Allowance { time, flag } = allowance;
        let until = cx.now() + time;
        let is_sooner = match self.stage {
            Stage::Serving => true,
            Stage::Draining { until: before, .. } => until < before,
            Stage::Stopping => false,
        };
        if is_sooner {
            self.stage = Stage::Draining { until, flag };
            cx.set_alarm(&mut self.alarm, self.source, Some(until));
        }
    }

    /// Must be called when the alarm has gone off. If the rest of the work is to be stopped now, returns the flag whose
    /// time is over.
    pub(super) fn expire(&mut self, cx: &Context<'_>) -> Option<&'static str> {
        cx.clear_alarm(&mut self.alarm);
        match self.stage {
            Stage::Draining { flag, .. } => {
                self.stage = Stage::Stopping;
                Some(flag)
            }
            Stage::Serving | Stage::Stopping => None,
        }
    }

    /// Stops at once, whatever was waited for.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Stopping;
        cx.set_alarm(&mut self.alarm, self.source, None);
    }
}
