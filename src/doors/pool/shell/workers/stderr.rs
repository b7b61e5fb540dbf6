//! Standard error of workers: their complaints, which go into the log a line at a time.

use std::io;
use std::io::Read;

use log::Level;

use super::Workers;
use super::output::Outcome;
use super::process::Complaints;
use crate::doors::pool::core::WorkerId;
use crate::doors::pool::gist::gist;
use crate::doors::pool::repeats::{Repeats, Words};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::process::stderr_log::StderrLog;
use crate::reactor::{Context, Key};

/// Reads from one worker before its loss is logged.
const READS: usize = 4;

impl Workers {
    /// Reads what a worker complains about, for the log. One read a turn: a buffer full of the shortest lines takes
    /// longer than all else in a turn, and no client waits for it.
    pub(crate) fn stderr_ready(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(id) = self.find(key) else { return };
        let mut buffer = desk.cx.lend_buffer();
        let outcome = self.read_stderr(desk, id, &mut buffer);
        desk.cx.return_buffer(buffer);
        match outcome {
            Outcome::MoreLater => desk.cx.resume_later(PoolSource::WorkerErrors.worker(id)),
            Outcome::Drained => {}
            Outcome::Closed => {
                if let Some(process) = self.get_mut(id) {
                    process.child.stderr = None;
                }
            }
        }
    }

    /// Logs what is due of a worker's complaints: how many lines are missing because it wrote faster than the log takes
    /// them, or lines that were held back.
    pub(crate) fn stderr_timeout(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(id) = self.find(key) else { return };
        let now = desk.cx.now();
        if let Some(process) = self.get_mut(id) {
            desk.cx.clear_alarm(&mut process.complaints.alarm);
        }
        self.log_stderr(desk, id, |stderr, hear| stderr.on_deadline(now, hear));
        self.with_words(desk, id, |_, _, words, tell| words.on_deadline(now, tell));
        self.arm_stderr_alarm(&mut desk.cx, id);
    }

    /// Logs the lines that `come` yields, unless the words of young workers are still being compared.
    fn log_stderr(
        &mut self,
        desk: &mut Desk<'_>,
        id: WorkerId,
        come: impl FnOnce(&mut StderrLog, &mut dyn FnMut(&str)),
    ) {
        let Some(process) = self.get(id) else { return };
        let (pid, now) = (process.pid(), desk.cx.now());
        self.with_words(desk, id, |repeats, stderr, words, tell| {
            come(stderr, &mut |line| repeats.hear(words, line, pid, now, tell));
        });
    }

    /// Calls `with` with the words of young workers of this pool, the standard error and the words of this one, and a
    /// function that logs a line of it. Of lines that echo those of workers that were lost, few are logged.
    pub(crate) fn with_words<T>(
        &mut self,
        desk: &mut Desk<'_>,
        id: WorkerId,
        with: impl FnOnce(&mut Repeats, &mut StderrLog, &mut Words, &mut dyn FnMut(&str)) -> T,
    ) -> Option<T> {
        let front = &mut *desk.front;
        let process = self.processes.get_mut(id)?;
        let (label, pid, now) = (process.label(), process.pid(), desk.cx.now());
        let Complaints {
            stderr, words, said, ..
        } = &mut process.complaints;
        let mut is_any_left_out = false;
        let mut tell = |line: &str| {
            let is_echo = self.echoes.hear(said, gist(line, pid), now);
            if !is_echo {
                let name = front.name();
                log::info!(service:% = name; "{name}: {label}: {line}");
            } else if !front.write(now, Level::Info, Topic::Echo, format_args!("{label}: {line}")) {
                is_any_left_out = true;
            }
        };
        let outcome = with(&mut self.repeats, stderr, words, &mut tell);
        if is_any_left_out {
            front.plan_upkeep(&mut desk.cx, None);
        }
        Some(outcome)
    }

    fn arm_stderr_alarm(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.get_mut(id) else {
            return;
        };
        let deadlines = [
            process.complaints.stderr.deadline(),
            process.complaints.words.deadline(),
        ];
        let next = deadlines.into_iter().flatten().min();
        cx.set_alarm(&mut process.complaints.alarm, PoolSource::WorkerErrors.worker(id), next);
    }

    fn read_stderr(&mut self, desk: &mut Desk<'_>, id: WorkerId, buffer: &mut [u8]) -> Outcome {
        let process = self.get_mut(id);
        let Some(stderr) = process.and_then(|process| process.child.stderr.as_mut()) else {
            return Outcome::Drained;
        };
        match stderr.read(buffer) {
            Ok(0) => Outcome::Closed,
            Ok(length) => {
                let (bytes, now) = (buffer.get(..length).unwrap_or_default(), desk.cx.now());
                self.log_stderr(desk, id, |stderr, hear| stderr.feed(bytes, now, hear));
                self.arm_stderr_alarm(&mut desk.cx, id);
                Outcome::MoreLater
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Outcome::MoreLater,
            Err(_) => Outcome::Closed,
        }
    }

    /// Reads the last complaints of a worker whose process has ended.
    pub(crate) fn close_stderr(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        self.read_stderr_now(desk, id);
        let now = desk.cx.now();
        self.log_stderr(desk, id, |stderr, hear| stderr.close(now, hear));
    }

    /// Reads what a worker has written to its standard error by now. Must be called before its loss is logged. The
    /// buffer is allocated only if the loop's own one is lent: when the loss was found in a worker's output.
    pub(crate) fn read_stderr_now(&mut self, desk: &mut Desk<'_>, id: WorkerId) {
        if self.get(id).is_none_or(|process| process.child.stderr.is_none()) {
            return;
        }
        let mut buffer = desk.cx.lend_buffer();
        for _ in 0..READS {
            let Outcome::MoreLater = self.read_stderr(desk, id, &mut buffer) else {
                break;
            };
        }
        desk.cx.return_buffer(buffer);
    }
}
