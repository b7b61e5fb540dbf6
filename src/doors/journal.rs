//! What a door says in the log: a line per event, with the door's name; of a flood of similar ones a few, and how many more
//! there were.
//!
//! A door names its [`Topic`](Journal)s, and gives the journal one source, whose alarm tells when lines that were left out are
//! to be summed up. What does not belong here: lines that are owed to everybody, such as one for each run; those are logged
//! as they are.

use std::fmt;
use std::hash::Hash;
use std::time::Instant;

use log::Level;

use crate::reactor::{Alarm, Context, Source};
use crate::stats::throttle::{Throttle, Verdict};

/// The log of one door.
#[derive(Debug)]
pub(super) struct Journal<Topic> {
    /// The module of the door, which its lines are said to be of.
    module: &'static str,
    throttle: Throttle<(Topic, Level)>,
    alarm: Alarm,
    upkeep: Source,
}

impl<Topic: Eq + Hash + Copy + fmt::Display> Journal<Topic> {
    /// That of a door's `module`, whose alarm is told to it as `upkeep`.
    pub(super) fn new(module: &'static str, upkeep: Source) -> Self {
        Journal {
            module,
            throttle: Throttle::default(),
            alarm: Alarm::default(),
            upkeep,
        }
    }

    /// One line, unless too many on its topic came lately. Whether it was written.
    pub(super) fn note(
        &mut self,
        cx: &mut Context<'_>,
        door: &str,
        level: Level,
        topic: Topic,
        line: fmt::Arguments<'_>,
    ) -> bool {
        let is_written = self.write(cx.now(), door, level, topic, line);
        if !is_written {
            self.plan(cx, None);
        }
        is_written
    }

    /// The same without a summing up being [planned](Self::plan), which has to follow if it was left out.
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

    /// The alarm has gone off: sums up what was left out, as loudly as that would have been said.
    pub(super) fn sum_up(&mut self, cx: &mut Context<'_>, door: &str) {
        cx.alarm_fired(&mut self.alarm);
        let left_out = self.throttle.take_overdue(cx.now());
        self.tell_left_out(door, left_out);
        self.plan(cx, None);
    }

    /// The door ends: no alarm goes off any more.
    pub(super) fn stop(&mut self, cx: &mut Context<'_>) {
        cx.set_alarm(&mut self.alarm, self.upkeep, None);
    }

    /// Sums up all that was left out until now, due or not.
    pub(super) fn drain(&mut self, door: &str) {
        let left_out = self.throttle.drain();
        self.tell_left_out(door, left_out);
    }

    fn tell_left_out(&self, door: &str, left_out: Vec<((Topic, Level), u64)>) {
        for ((topic, level), count) in left_out {
            log::log!(target: self.module, level, service:% = door; "{door}: {count} more {topic} were left out of this log");
        }
    }

    /// The alarm goes off when there is something to be summed up; also at `tick`, for what else the door has to see to. What is
    /// planned already is never put off.
    pub(super) fn plan(&mut self, cx: &mut Context<'_>, tick: Option<Instant>) {
        let next = [tick, self.throttle.next_deadline(), self.alarm.at()];
        cx.set_alarm(&mut self.alarm, self.upkeep, next.into_iter().flatten().min());
    }
}
