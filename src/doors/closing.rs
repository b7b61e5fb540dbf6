//! The end of a door that runs programs on request: it serves, then it drains, then what still runs is ended.
//!
//! The door itself knows what to close, whom to hasten and what to end; this knows when. What holds: a door that drains has a
//! deadline, until it is over or hurried.

use std::time::Duration;

use crate::reactor::{Alarm, Context, Source};

/// How far the end of a door has come.
#[derive(Debug)]
pub(super) struct Closing {
    /// The module of the door, which its lines are said to be of.
    module: &'static str,
    stage: Stage,
    alarm: Alarm,
    source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// Nobody is accepted any more; what runs may end.
    Draining,
    /// What runs is ended.
    Stopping,
}

impl Closing {
    /// A door of that module, which serves. Its deadline is told to it as `source`.
    pub(super) fn new(module: &'static str, source: Source) -> Self {
        Closing {
            module,
            stage: Stage::Serving,
            alarm: Alarm::default(),
            source,
        }
    }

    /// Whether the end has not begun.
    pub(super) fn is_far(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Whether what runs may end by itself.
    pub(super) fn is_patient(&self) -> bool {
        self.stage == Stage::Draining
    }

    /// The end begins: what runs may go on for `stop_timeout`.
    pub(super) fn begin(&mut self, cx: &mut Context<'_>, door: &str, clients: usize, stop_timeout: Duration) {
        self.stage = Stage::Draining;
        log::info!(target: self.module, service:% = door; "{door}: draining, {clients} clients connected");
        let until = cx.now() + stop_timeout;
        cx.set_alarm(&mut self.alarm, self.source, Some(until));
    }

    /// The deadline is there; whether what runs is to be ended now.
    pub(super) fn time_is_up(&mut self, cx: &Context<'_>, door: &str) -> bool {
        cx.alarm_fired(&mut self.alarm);
        let ends = self.is_patient();
        if ends {
            self.stage = Stage::Stopping;
            log::warn!(target: self.module, service:% = door; "{door}: --stop-timeout is over; what still runs is ended");
        }
        ends
    }

    /// What runs is ended at once.
    pub(super) fn hurry(&mut self, cx: &mut Context<'_>) {
        self.stage = Stage::Stopping;
        cx.set_alarm(&mut self.alarm, self.source, None);
    }
}
