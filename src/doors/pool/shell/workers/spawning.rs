//! Workers at work: their processes are started and given requests. What they write is `output`'s, how they end is
//! `endings`'.

use std::collections::VecDeque;
use std::io;

use mio::Interest;

use super::health_check::HealthCheck;
use super::process::{Input, Lines, Look, Sent, Silence, Stage, StdinWatch, Unread, WorkerProcess};
use crate::doors::pool::core::{ChannelId, ClientId, Event, Fault, Inspection, RequestId, WorkerId};
use crate::doors::pool::echoes::Said;
use crate::doors::pool::recorder::Recorder;
use crate::doors::pool::repeats::Words;
use crate::doors::pool::shell::clients::outgoing::Outgoing;
use crate::doors::pool::shell::sessions::session::Running;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::doors::pool::story::Side;
use crate::framing::Framing;
use crate::framing::channel::LONGEST_PREFIX;
use crate::framing::search::LineSearch;
use crate::process::child::Child;
use crate::process::failure::SpawnError;
use crate::process::kill_sequence::KillSequence;
use crate::process::spawn::Stdio;
use crate::process::stderr_log::StderrLog;
use crate::process::watchdog;
use crate::reactor::{Alarm, Context, Key, SourceKind};

/// Processes started in one turn: a start takes a few tenths of a millisecond, in which nobody else is served.
const SPAWNS_PER_TURN: usize = 4;

impl Pool {
    // ---- starting ----------------------------------------------------------------------------------------------

    pub(in crate::doors::pool::shell) fn queue_spawn(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        if self.workers.waiting.is_empty() {
            cx.resume_later(PoolSource::Spawning.only());
        }
        self.workers.waiting.push_back(id);
    }

    /// Starts some of the processes that are to be started; the rest in the next turn.
    pub(in crate::doors::pool::shell) fn spawn_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..SPAWNS_PER_TURN {
            let Some(id) = self.workers.waiting.pop_front() else {
                return;
            };
            if let Err(error) = self.spawn(cx, id) {
                self.report_failed_spawn(id, &error);
            }
            self.settle(cx, None);
            if cx.now().elapsed() >= watchdog::SLOW {
                break;
            }
        }
        if !self.workers.waiting.is_empty() {
            cx.resume_later(PoolSource::Spawning.only());
        }
    }

    /// Starts the next process right now, for those who must know at once whether it works.
    ///
    /// # Errors
    /// It never will. Whoever asks tells so, and the pool ends.
    pub(in crate::doors::pool::shell) fn spawn_next(&mut self, cx: &mut Context<'_>) -> Result<(), SpawnError> {
        let Some(id) = self.workers.waiting.pop_front() else {
            return Ok(());
        };
        match self.spawn(cx, id) {
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => self.report_failed_spawn(id, &error),
            Ok(()) => {}
        }
        self.settle(cx, None);
        Ok(())
    }

    fn spawn(&mut self, cx: &mut Context<'_>, id: WorkerId) -> Result<(), SpawnError> {
        if !self.dispatcher.awaits_spawn(id) {
            return Ok(());
        }
        match self.program.spawn(Stdio::piped()) {
            Ok(child) => {
                self.started(cx, id, child);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// A start has failed. The dispatcher is told, and tries again after a while.
    fn report_failed_spawn(&mut self, id: WorkerId, error: &SpawnError) {
        self.workers.refusal = Some(error.to_string());
        self.report(Event::SpawnFailed(id));
    }

    /// What is known of a worker whose exec has just succeeded.
    fn process(&self, cx: &Context<'_>, id: WorkerId, child: Child) -> WorkerProcess {
        // So it is for as long as it lives, whatever the policy will be: it was started for it.
        let (lines, longest_prefix) = match self.options.policy.concurrency {
            Some(_) => (Lines::Numbered, LONGEST_PREFIX),
            None => (Lines::Plain, 0),
        };
        let framings = self.options.framings;
        WorkerProcess {
            id,
            number: self.dispatcher.slot_of(id).unwrap_or_default(),
            child,
            stage: match &self.options.ready_line {
                Some(line) => Stage::Starting(LineSearch::new(line)),
                None => Stage::Serving,
            },
            framer: framings.worker_reply.framer(self.options.max_reply + longest_prefix),
            look: Look::default(),
            reply: Vec::new(),
            reply_alarm: Alarm::default(),
            input: match framings.worker_request {
                Framing::Eof => Input::EndsWithRequest,
                _ => Input::Stays,
            },
            lines,
            given: VecDeque::new(),
            given_bytes: 0,
            unsent: Outgoing::default(),
            stdin_watched: StdinWatch::NotYet,
            ending: KillSequence::new(self.options.kill_timeout),
            ending_alarm: Alarm::default(),
            stderr: StderrLog::new(cx.now()),
            stderr_alarm: Alarm::default(),
            words: Words::default(),
            said: Said::default(),
            started: cx.now(),
            has_written: false,
            recorder: Recorder::new(self.recorded()),
            health_check: HealthCheck::new(self.options.probe.clone()),
            stray: None,
            complaint: None,
            closed: None,
            loss: None,
            exit_waits: false,
            end: None,
            session: None,
            had_session: false,
            was_signalled: false,
        }
    }

    fn started(&mut self, cx: &mut Context<'_>, id: WorkerId, child: Child) {
        let process = self.process(cx, id, child);
        log::debug!(service:% = self.options.front.name; "{}: {} is started", self.options.front.name, process.label());
        self.workers.insert(process);
        self.report(Event::Started(id));
        if let Err(error) = self.watch_process(cx, id) {
            return self.report_unwatched(id, &error);
        }
        if self.options.ready_line.is_none() {
            self.report(Event::Ready(id));
        }
    }

    /// How many requests a worker's recorder keeps: what the operator wants, and, where he wants any, no fewer than may be in
    /// flight, or the one to blame would be overwritten by those written behind it.
    fn recorded(&self) -> usize {
        match self.options.record {
            0 => 0,
            wanted => {
                let policy = &self.options.policy;
                wanted.max(policy.concurrency.unwrap_or(policy.pipeline))
            }
        }
    }

    fn watch_process(&mut self, cx: &Context<'_>, id: WorkerId) -> io::Result<()> {
        let Some(process) = self.workers.get_mut(id) else {
            return Ok(());
        };
        cx.register(
            PoolSource::WorkerExit.worker(id),
            process.child.pidfd(),
            Interest::READABLE,
        )?;
        if let Some(stdout) = &mut process.child.stdout {
            cx.register(PoolSource::WorkerOutput.worker(id), stdout, Interest::READABLE)?;
        }
        if let Some(stderr) = &mut process.child.stderr {
            cx.register(PoolSource::WorkerErrors.worker(id), stderr, Interest::READABLE)?;
        }
        Ok(())
    }

    // ---- giving ------------------------------------------------------------------------------------------------

    /// Gives a worker a request. `speaking` is the worker whose reply was read this very moment, with nothing behind it;
    /// anybody else is looked at first, for what it has written unasked would be taken for the answer. Not so where an
    /// answer is known by its number.
    pub(in crate::doors::pool::shell) fn assign(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        request: RequestId,
        client: ClientId,
        channel: Option<ChannelId>,
        speaking: Option<WorkerId>,
    ) {
        if self.has_sessions() {
            return self.begin_session(cx, id, request, client);
        }
        let mut rooms = self.rooms();
        if !rooms.clients.start_request(cx, &mut rooms.desk, client, request) {
            return;
        }
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        // One that has something to do may write at any moment, and by right.
        if speaking != Some(id) && process.given.is_empty() && channel.is_none() {
            match process.check_silence() {
                Silence::Kept => {}
                Silence::Broken => return self.report_fault(id, Fault::Unasked),
                Silence::Closed => {
                    process.closed = Some(Side::Output);
                    return self.report_fault(id, Fault::InputClosed(request));
                }
            }
            // It had read all of its input when it became free, and has been written nothing since; see `core/available.rs`.
            debug_assert!(process.bytes_read().is_none_or(|read| read == process.given_bytes));
        }
        // A client that vanished in this very turn has been abandoned, or will be.
        let bytes = self.clients.request_bytes(client).unwrap_or_default();
        process.queue_request(Some(request), channel, bytes);
        process
            .recorder
            .begin(bytes, channel, cx.now(), self.options.disclosure);
        // One that works on all it has is given it at once: then it is known what has reached it.
        if self.options.policy.pipeline == 1 || channel.is_some() {
            return self.send(cx, id);
        }
        // Others may follow in this turn.
        if process.unsent.list() {
            self.workers.unsent.push(id);
        }
    }

    /// Writes what was gathered for all workers in this turn.
    pub(in crate::doors::pool::shell) fn send_all(&mut self, cx: &mut Context<'_>) {
        while let Some(id) = self.workers.unsent.pop() {
            let Some(process) = self.workers.get_mut(id) else {
                continue;
            };
            process.unsent.unlist();
            if process.stage == Stage::Serving {
                self.send(cx, id);
                self.settle(cx, None);
            }
        }
    }

    pub(in crate::doors::pool::shell) fn send(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        match process.send() {
            Sent::Whole => {}
            Sent::Partly => self.watch_input(cx, id),
            // It has read as much as it wants, or died: its reply or its end tells.
            Sent::Lost if self.options.framings.single_use() => process.end_input(),
            // What it has answered may lie in its output.
            Sent::Nothing(_) | Sent::Lost if process.given.len() > 1 => {
                process.input = Input::Shut;
                cx.resume_later(PoolSource::WorkerInput.worker(id));
            }
            Sent::Nothing(_) | Sent::Lost => self.report_closed_input(id),
        }
    }

    /// A worker that has closed its input, and whose last answers have been read.
    pub(in crate::doors::pool::shell) fn report_closed_input(&mut self, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        process.closed.get_or_insert(Side::Input);
        match process.unsent_outcome() {
            Sent::Nothing(request) => {
                let untouched = process.untouched().count();
                process.recorder.forget_newest(untouched);
                self.report_fault(id, Fault::InputClosed(request));
            }
            Sent::Lost | Sent::Whole | Sent::Partly => self.report_fault(id, Fault::OutputClosed),
        }
    }

    fn watch_input(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let Some(stdin) = process
            .child
            .stdin
            .as_mut()
            .filter(|_| process.stdin_watched == StdinWatch::NotYet)
        else {
            return;
        };
        match cx.register(PoolSource::WorkerInput.worker(id), stdin, Interest::WRITABLE) {
            Ok(()) => process.stdin_watched = StdinWatch::Registered,
            Err(error) => self.report_unwatched(id, &error),
        }
    }

    /// Its process goes on, but nothing would be heard of it.
    fn report_unwatched(&mut self, id: WorkerId, error: &io::Error) {
        if let Some(process) = self.workers.get_mut(id) {
            process.complaint = Some(format!("it cannot be watched: {error}"));
        }
        self.report(Event::Broken(id, Fault::OutputClosed));
    }

    pub(in crate::doors::pool::shell) fn input_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        if self.has_sessions() {
            return self.session_worker_ready(cx, id, Running::mark_worker_writable);
        }
        self.send(cx, id);
    }

    pub(in crate::doors::pool::shell) fn report_fault(&mut self, id: WorkerId, fault: Fault) {
        if let (Some(process), Fault::OutputClosed | Fault::InputClosed(_)) = (self.workers.get_mut(id), fault)
            && process.stage != Stage::Ending
        {
            process.stage = Stage::Lost;
            process.closed.get_or_insert(Side::Output);
        }
        if let Some(process) = self.workers.get_mut(id) {
            process.health_check.cut_short(fault);
        }
        self.report(Event::Broken(id, fault));
    }

    /// After a long request: has the worker read all of it, and answered once?
    pub(in crate::doors::pool::shell) fn inspect(&mut self, id: WorkerId) {
        let clean = self.workers.get_mut(id).is_some_and(|process| {
            process.unread_input(None, process.bytes_read()) == Unread::Nothing
                && process.check_silence() == Silence::Kept
        });
        let verdict = if clean {
            Inspection::InStep
        } else {
            Inspection::OutOfStep
        };
        self.report(Event::Inspected(id, verdict));
    }
}
