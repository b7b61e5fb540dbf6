//! The pipes of a door whose bytes go from socket to socket: lent to its carriers, closed when they are idle, and the
//! log's line when the kernel has none.

use std::sync::Arc;

use log::Level;

use super::front::{Front, Topic};
use crate::reactor::{Alarm, Context, Source};
use crate::relay::pipes::{Budget, Pipes, Shortage};

/// The descriptors that they take at most: the two ends of each.
pub(super) const DESCRIPTORS: usize = 2 * 160;

const PIPES: Topic = Topic::new("shortages of pipes");

/// The pipes of one door.
#[derive(Debug)]
pub(super) struct LentPipes {
    /// The pipes that carriers borrow.
    pub(super) pipes: Pipes,
    /// The alarm at which idle ones are closed.
    alarm: Alarm,
    source: Source,
}

impl LentPipes {
    /// No pipe within this budget yet. When the alarm of `source` goes off, [`close_idle`](Self::close_idle) must be called.
    pub(super) fn new(budget: Arc<Budget>, source: Source) -> Self {
        Self {
            pipes: Pipes::new(budget),
            alarm: Alarm::default(),
            source,
        }
    }

    /// Logs a shortage of pipes, and sees to it that idle ones are closed. Must be called behind each run of a relay.
    pub(super) fn tend(&mut self, cx: &mut Context<'_>, front: &mut Front) {
        if let Some(shortage) = self.pipes.take_shortage() {
            let line = line_about(shortage);
            front.note(cx, Level::Warn, PIPES, format_args!("{line}"));
        }
        if self.alarm.at().is_none() {
            self.close_idle(cx);
        }
    }

    /// Closes the pipes that were idle for long enough.
    pub(super) fn close_idle(&mut self, cx: &mut Context<'_>) {
        cx.clear_alarm(&mut self.alarm);
        let next = self.pipes.close_idle(cx.now());
        cx.set_alarm(&mut self.alarm, self.source, next);
    }
}

fn line_about(shortage: Shortage) -> String {
    let copied = "bytes are copied for a while";
    match shortage {
        Shortage::Pages => format!("the pipes of this user are short ({copied}): raise fs.pipe-user-pages-soft"),
        Shortage::Failed(errno) => format!("cannot open a pipe: {errno} ({copied})"),
    }
}
