//! Requests of workers: they are written to standard input, and what goes wrong with a worker is reported.

use std::io;

use mio::Interest;

use super::Workers;
use super::process::{Input, Sent, Silence, Stage, Unread, WorkerProcess};
use crate::doors::pool::core::{Assignment, Event, Fault, Inspection, WorkerId};
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::story::Side;

impl Workers {
    /// Gives a worker a request with these bytes. `speaking` is the worker whose reply was read this very moment, with
    /// nothing behind it; any other is looked at first, for what it has written unasked would be taken for the answer.
    /// Not so where an answer is known by its number.
    pub(crate) fn give(&mut self, desk: &mut Desk<'_>, given: Assignment, bytes: &[u8], speaking: Option<WorkerId>) {
        let (id, request, channel) = (given.worker, given.request, given.channel);
        let Some(process) = self.processes.get_mut(id) else {
            return;
        };
        // One that has something to do may write at any moment, and by right.
        if speaking != Some(id) && process.given.is_empty() && channel.is_none() {
            match process.check_silence() {
                Silence::Kept => {}
                Silence::Broken => return process.report_fault(desk, Fault::Unasked),
                Silence::Closed => {
                    process.losing.closed = Some(Side::Output);
                    return process.report_fault(desk, Fault::InputClosed(request));
                }
            }
            // It had read all of its input when it became free, and has been written nothing since; see
            // `core/workers/available.rs`.
            debug_assert!(process.bytes_read().is_none_or(|read| read == process.given_bytes));
        }
        process.queue_request(Some(request), channel, bytes);
        process
            .recorder
            .begin(bytes, channel, desk.cx.now(), desk.options.disclosure);
        // One that works on all it has is given it at once: then it is known what has reached it.
        if desk.options.policy.pipeline == 1 || channel.is_some() {
            return process.send(desk);
        }
        // Others may follow in this turn.
        if !std::mem::replace(&mut process.is_listed, true) {
            self.unsent.push(id);
        }
    }

    /// Takes a worker out of the list of those whose requests are written at the end of the turn.
    pub(crate) fn next_unsent(&mut self) -> Option<WorkerId> {
        let id = self.unsent.pop()?;
        if let Some(process) = self.get_mut(id) {
            process.is_listed = false;
        }
        Some(id)
    }
}

impl WorkerProcess {
    /// Writes what the worker was given and the pipe has not taken yet.
    pub(crate) fn send(&mut self, desk: &mut Desk<'_>) {
        match self.write_unsent() {
            Sent::Whole => {}
            Sent::Partly => self.watch_input(desk),
            // It has read as much as it wants, or died: its reply or its end tells.
            Sent::Lost if self.is_for_one_request() => self.end_input(),
            // Its answers may lie in its output.
            Sent::Nothing(_) | Sent::Lost if self.given.len() > 1 => {
                self.input = Input::Shut;
                desk.cx.resume_later(PoolSource::WorkerInput.worker(self.id));
            }
            Sent::Nothing(_) | Sent::Lost => self.report_closed_input(desk),
        }
    }

    /// A worker that has closed its input, and whose last answers have been read.
    pub(crate) fn report_closed_input(&mut self, desk: &mut Desk<'_>) {
        self.losing.closed.get_or_insert(Side::Input);
        match self.unsent_outcome() {
            Sent::Nothing(request) => {
                let untouched = self.untouched().count();
                self.recorder.forget_newest(untouched);
                self.report_fault(desk, Fault::InputClosed(request));
            }
            Sent::Lost | Sent::Whole | Sent::Partly => self.report_fault(desk, Fault::OutputClosed),
        }
    }

    fn watch_input(&mut self, desk: &mut Desk<'_>) {
        let stdin = self.child.stdin.as_mut();
        let Some(stdin) = stdin.filter(|_| !self.is_stdin_watched) else {
            return;
        };
        let source = PoolSource::WorkerInput.worker(self.id);
        match desk.cx.register(source, stdin, Interest::WRITABLE) {
            Ok(()) => self.is_stdin_watched = true,
            Err(error) => self.report_unwatched(desk, &error),
        }
    }

    /// Its process goes on, but nothing would be heard of it.
    pub(super) fn report_unwatched(&mut self, desk: &mut Desk<'_>, error: &io::Error) {
        self.losing.complaint = Some(format!("it cannot be watched: {error}"));
        desk.report(Event::Broken(self.id, Fault::OutputClosed));
    }

    pub(crate) fn report_fault(&mut self, desk: &mut Desk<'_>, fault: Fault) {
        let has_closed = matches!(fault, Fault::OutputClosed | Fault::InputClosed(_));
        if has_closed && self.stage != Stage::Ending {
            self.stage = Stage::Lost;
            self.losing.closed.get_or_insert(Side::Output);
        }
        self.health_check.cut_short(fault);
        desk.report(Event::Broken(self.id, fault));
    }

    /// After a long request: has the worker read all of it, and answered once?
    pub(crate) fn inspect(&mut self, desk: &mut Desk<'_>) {
        let has_read_all = self.unread_input(None, self.bytes_read()) == Unread::Nothing;
        let is_clean = has_read_all && self.check_silence() == Silence::Kept;
        let verdict = if is_clean {
            Inspection::InStep
        } else {
            Inspection::OutOfStep
        };
        desk.report(Event::Inspected(self.id, verdict));
    }
}
