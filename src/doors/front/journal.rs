//! The event log of a door: a line for each event, with the door's name; of many similar lines a few, and the number of
//! the others.
//!
//! A line belongs to a [`Topic`]. The journal has one source, whose alarm tells when the lines that were left out are
//! to be summed up. Lines of which none may be left out, such as one for each run, do not belong here.

use std::fmt;
use std::time::Instant;

use log::Level;

use crate::reactor::{Alarm, Context, Source};
use crate::stats::throttle::{Throttle, Verdict};

/// The subject of a line in the log. Lines on one topic are throttled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::doors) struct Topic {
    /// The events, in the plural.
    words: &'static str,
    /// Distinguishes topics with the same words.
    variant: u8,
}

impl Topic {
    pub(in crate::doors) const fn new(words: &'static str) -> Self {
        Topic { words, variant: 0 }
    }

    /// One of several topics that are summed up in the same words.
    pub(in crate::doors) const fn variant(words: &'static str, variant: u8) -> Self {
        Topic { words, variant }
    }
}

/// The event log of one door.
#[derive(Debug)]
pub(super) struct Journal {
    /// The module of the door, which is the target of its lines.
    module: &'static str,
    throttle: Throttle<(Topic, Level)>,
    alarm: Alarm,
    upkeep: Source,
}

impl Journal {
    /// The log of a door in `module`. `upkeep` is the source of its alarm.
    pub(super) fn new(module: &'static str, upkeep: Source) -> Self {
        Journal {
            module,
            throttle: Throttle::default(),
            alarm: Alarm::default(),
            upkeep,
        }
    }

    /// Writes one line, unless too many on its topic came lately. Returns true if it was written. A summary of lines
    /// that were left out has to be [planned](Self::plan) afterwards.
    pub(super) fn write(
        &mut self,
        now: Instant,
        door: &str,
        level: Level,
        topic: Topic,
        line: fmt::Arguments<'_>,
    ) -> bool {
        let target = self.module;
        match self.throttle.admit((topic, level), now) {
            Verdict::Log { left_out: 0 } => log::log!(target: target, level, service:% = door; "{door}: {line}"),
            Verdict::Log { left_out } => {
                let more = format_args!("({left_out} more like it were left out)");
                log::log!(target: target, level, service:% = door; "{door}: {line} {more}");
            }
            Verdict::LeaveOut => return false,
        }
        true
    }

    /// Must be called when the alarm has gone off: sums up the lines that were left out, each at its own level.
    pub(super) fn sum_up(&mut self, cx: &mut Context<'_>, door: &str) {
        cx.clear_alarm(&mut self.alarm);
        let left_out = self.throttle.take_overdue(cx.now());
        self.log_left_out(door, left_out);
        self.plan(cx, None);
    }

    /// Disarms the alarm, since the door ends.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        cx.set_alarm(&mut self.alarm, self.upkeep, None);
    }

    /// Sums up all lines that were left out until now, due or not.
    pub(super) fn drain(&mut self, door: &str) {
        let left_out = self.throttle.drain();
        self.log_left_out(door, left_out);
    }

    fn log_left_out(&self, door: &str, left_out: Vec<((Topic, Level), u64)>) {
        for ((topic, level), count) in left_out {
            let topic = topic.words;
            log::log!(target: self.module, level, service:% = door; "{door}: {count} more {topic} were left out of this log");
        }
    }

    /// Arms the alarm for the next summary, or for `tick` if that is earlier. A time that is planned already is never
    /// put off.
    pub(super) fn plan(&mut self, cx: &mut Context<'_>, tick: Option<Instant>) {
        let next = [tick, self.throttle.next_deadline(), self.alarm.at()];
        cx.set_alarm(&mut self.alarm, self.upkeep, next.into_iter().flatten().min());
    }
}
