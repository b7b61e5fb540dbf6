//! The end of a door: it serves, then it drains, then the rest of its work is stopped.
//!
//! The door knows which clients to hasten and what to stop; this state machine knows when. A door that drains has a
//! deadline, until it is idle or stopped.

use std::time::Duration;

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
    Draining,
    /// Work in hand is stopped.
    Stopping,
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
        self.stage == Stage::Draining
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stage == Stage::Stopping
    }

    /// Begins to drain: work in hand may go on for `stop_timeout`.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, stop_timeout: Duration) {
        self.stage = Stage::Draining;
        let until = cx.now() + stop_timeout;
        cx.set_alarm(&mut self.alarm, self.source, Some(until));
    }

    /// Must be called when the alarm has gone off. Returns true if the rest of the work is to be stopped now.
    pub(super) fn expire(&mut self, cx: &Context<'_>) -> bool {
        cx.clear_alarm(&mut self.alarm);
        let stops = self.is_draining();
        if stops {
            self.stage = Stage::Stopping;
        }
        stops
    }

    /// Stops at once, whatever was waited for.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Stopping;
        cx.set_alarm(&mut self.alarm, self.source, None);
    }
}
