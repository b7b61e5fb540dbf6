//! What the pool does with its workers' processes: starts them, gives them requests, takes their replies, sees them end.

use log::Level;
use mio::Interest;
use nix::sys::signal::Signal;
use std::collections::VecDeque;
use std::io;
use std::io::Read;

use super::super::core::{ClientId, Ending, Event, Fault, RequestId, Step, Verdict, WorkerId};
use super::super::report::Topic;
use super::client::QueuePlace;
use super::process::{Given, Process, Silence, Stage, StdinWatch};
use super::{Of, Pool, Reply};
use crate::framing::Progress;
use crate::framing::line::LineFramer;
use crate::process::child::Child;
use crate::process::failure::SpawnError;
use crate::process::reaper::{self, Manner};
use crate::process::spawn::Stdio;
use crate::process::stderr_log::StderrLog;
use crate::reactor::{Alarm, Context, Key, READ_BUFFER, Readiness};

/// Processes started in one turn: a start takes a few tenths of a millisecond, in which nobody else is served.
const SPAWNS_PER_TURN: usize = 4;
/// Reads from one worker in one turn.
const READS_PER_TURN: usize = 4;

/// All processes, by the index of their worker.
#[derive(Debug, Default)]
pub(super) struct Crew {
    processes: Vec<Option<Process>>,
    /// Workers whose process is still to be started.
    waiting: VecDeque<WorkerId>,
}

impl Crew {
    pub(super) fn get_mut(&mut self, id: WorkerId) -> Option<&mut Process> {
        self.processes
            .get_mut(id.index as usize)?
            .as_mut()
            .filter(|process| process.id == id)
    }

    pub(super) fn get(&self, id: WorkerId) -> Option<&Process> {
        self.processes
            .get(id.index as usize)?
            .as_ref()
            .filter(|process| process.id == id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Process> {
        self.processes.iter().flatten()
    }

    /// Whom a source belongs to, if it is still there.
    fn find(&self, key: Key) -> Option<WorkerId> {
        let process = self.processes.get(key.slot())?.as_ref()?;
        (Of::WorkerExit.worker(process.id).key == key).then_some(process.id)
    }

    fn insert(&mut self, process: Process) {
        let index = process.id.index as usize;
        if index >= self.processes.len() {
            self.processes.resize_with(index + 1, || None);
        }
        if let Some(place) = self.processes.get_mut(index) {
            *place = Some(process);
        }
    }

    fn remove(&mut self, id: WorkerId) -> Option<Process> {
        self.get(id)?;
        self.processes.get_mut(id.index as usize)?.take()
    }

    /// What the log calls a worker, while its process is known.
    pub(super) fn describe(&self, id: WorkerId) -> Option<String> {
        self.get(id)
            .map(|process| format!("worker {} (pid {})", process.number, process.pid()))
    }
}

impl Pool {
    // ---- starting ----------------------------------------------------------------------------------------------

    pub(super) fn queue_spawn(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        if self.crew.waiting.is_empty() {
            cx.resume_later(Of::Spawning.only());
        }
        self.crew.waiting.push_back(id);
    }

    /// Starts some of the processes that are to be started; the rest in the next turn.
    pub(super) fn spawn_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..SPAWNS_PER_TURN {
            let Some(id) = self.crew.waiting.pop_front() else {
                return;
            };
            // An error has been logged and reported to the dispatcher, which tries again after a while.
            let _ = self.spawn(cx, id);
        }
        if !self.crew.waiting.is_empty() {
            cx.resume_later(Of::Spawning.only());
        }
    }

    /// Starts the next process right now, for those who must know at once whether it works.
    pub(super) fn spawn_next(&mut self, cx: &mut Context<'_>) -> Result<(), SpawnError> {
        match self.crew.waiting.pop_front() {
            Some(id) => self.spawn(cx, id),
            None => Ok(()),
        }
    }

    fn spawn(&mut self, cx: &mut Context<'_>, id: WorkerId) -> Result<(), SpawnError> {
        if !self.dispatcher.awaits_spawn(id) {
            return Ok(());
        }
        match self.spawner.spawn(Stdio::piped()) {
            Ok(child) => {
                self.started(cx, id, child);
                Ok(())
            }
            Err(error) => {
                self.note(cx, Level::Error, Topic::Spawn, format_args!("{error}"));
                self.tell(cx, Event::SpawnFailed(id));
                Err(error)
            }
        }
    }

    fn started(&mut self, cx: &mut Context<'_>, id: WorkerId, child: Child) {
        self.guard.watch(child.pid());
        let process = Process {
            id,
            number: self.dispatcher.slot_of(id).unwrap_or_default(),
            child,
            stage: if self.options.ready_line.is_some() {
                Stage::Starting
            } else {
                Stage::Serving
            },
            framer: LineFramer::new(self.options.max_reply),
            reply: Vec::new(),
            unsent: VecDeque::new(),
            stdin_watched: StdinWatch::NotYet,
            ending: reaper::Ending::new(self.options.kill_timeout),
            ending_alarm: Alarm::default(),
            stderr: StderrLog::new(cx.now()),
            stderr_alarm: Alarm::default(),
            started: cx.now(),
        };
        log::debug!(
            "{}: worker {} started, pid {}",
            self.options.name,
            process.number,
            process.pid()
        );
        self.crew.insert(process);
        self.dispatcher.handle(cx.now(), Event::Started(id));
        if let Err(error) = self.watch_process(cx, id) {
            self.note(
                cx,
                Level::Error,
                Topic::System,
                format_args!("cannot watch a worker: {error}"),
            );
            return self.tell(cx, Event::Broken(id, Fault::OutputClosed));
        }
        if self.options.ready_line.is_none() {
            self.dispatcher.handle(cx.now(), Event::Ready(id));
        }
        self.act(cx, None);
    }

    fn watch_process(&mut self, cx: &Context<'_>, id: WorkerId) -> io::Result<()> {
        let Some(process) = self.crew.get_mut(id) else {
            return Ok(());
        };
        cx.register(Of::WorkerExit.worker(id), process.child.pidfd(), Interest::READABLE)?;
        if let Some(stdout) = &mut process.child.stdout {
            cx.register(Of::WorkerOutput.worker(id), stdout, Interest::READABLE)?;
        }
        if let Some(stderr) = &mut process.child.stderr {
            cx.register(Of::WorkerErrors.worker(id), stderr, Interest::READABLE)?;
        }
        Ok(())
    }

    // ---- giving ------------------------------------------------------------------------------------------------

    /// Gives a worker a request. `speaking` is the worker whose reply was read this very moment, with nothing behind it;
    /// anybody else is looked at first, for what it has written unasked would be taken for the answer.
    pub(super) fn assign(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        request: RequestId,
        client: ClientId,
        speaking: Option<WorkerId>,
    ) {
        self.set_request(cx, client, request, QueuePlace::WithWorker);
        let Some(process) = self.crew.get_mut(id) else { return };
        if speaking != Some(id) {
            match process.silence() {
                Silence::Kept => {}
                Silence::Broken => return self.fault(cx, id, Fault::Unasked),
                Silence::Closed => return self.fault(cx, id, Fault::InputClosed),
            }
        }
        // A client that vanished in this very turn has been abandoned, or will be.
        let request = self
            .clients
            .get(client)
            .map(|client| client.input.as_slice())
            .unwrap_or_default();
        match process.give(request) {
            Given::Whole => {}
            Given::Partly => self.watch_input(cx, id),
            Given::Refused => self.fault(cx, id, Fault::InputClosed),
        }
    }

    fn watch_input(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.crew.get_mut(id) else { return };
        let Some(stdin) = process
            .child
            .stdin
            .as_mut()
            .filter(|_| process.stdin_watched == StdinWatch::NotYet)
        else {
            return;
        };
        match cx.register(Of::WorkerInput.worker(id), stdin, Interest::WRITABLE) {
            Ok(()) => process.stdin_watched = StdinWatch::Registered,
            Err(error) => {
                self.note(
                    cx,
                    Level::Error,
                    Topic::System,
                    format_args!("cannot watch a worker: {error}"),
                );
                self.fault(cx, id, Fault::OutputClosed);
            }
        }
    }

    pub(super) fn input_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        let Some(process) = self.crew.get_mut(id) else { return };
        if !process.give_rest() {
            // Part of the request has reached it: what becomes of that nobody knows.
            self.fault(cx, id, Fault::OutputClosed);
        }
    }

    fn fault(&mut self, cx: &mut Context<'_>, id: WorkerId, fault: Fault) {
        self.tell(cx, Event::Broken(id, fault));
    }

    /// After a long request: has the worker read all of it, and answered once?
    pub(super) fn inspect(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let clean = self
            .crew
            .get(id)
            .is_some_and(|process| !process.has_unread_input() && process.silence() == Silence::Kept);
        let verdict = if clean { Verdict::Clean } else { Verdict::OutOfStep };
        self.tell(cx, Event::Inspected(id, verdict));
    }

    // ---- taking ------------------------------------------------------------------------------------------------

    pub(super) fn output_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(id) = self.crew.find(key) else { return };
        let mut buffer = cx.lend_buffer();
        let outcome = self.read_output(cx, id, &mut buffer, readiness.read_closed || readiness.hung_up);
        cx.return_buffer(buffer);
        match outcome {
            Outcome::Drained => {}
            Outcome::MoreLater => cx.resume_later(Of::WorkerOutput.worker(id)),
            Outcome::Closed => {
                if let Some(process) = self.crew.get_mut(id) {
                    process.child.stdout = None;
                    self.fault(cx, id, Fault::OutputClosed);
                }
            }
        }
    }

    /// Reads what a worker has written, a bounded share of it. On epoll a read that does not fill the buffer has drained
    /// a pipe, so the usual reply costs one read; only when the pipe's other end is closed is it read to its end.
    fn read_output(&mut self, cx: &mut Context<'_>, id: WorkerId, buffer: &mut [u8], to_the_end: bool) -> Outcome {
        for _ in 0..READS_PER_TURN {
            let Some(process) = self.crew.get(id).filter(|process| process.child.stdout.is_some()) else {
                return Outcome::Drained;
            };
            match process.read_output(buffer) {
                Ok(0) => return Outcome::Closed,
                Ok(length) => {
                    self.take_output(cx, id, buffer.get(..length).unwrap_or_default());
                    if length < buffer.len() && !to_the_end {
                        return Outcome::Drained;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Outcome::Drained,
                Err(_) => return Outcome::Closed,
            }
        }
        Outcome::MoreLater
    }

    fn take_output(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8]) {
        let Some(process) = self.crew.get_mut(id) else { return };
        match process.stage {
            Stage::Ending => {}
            Stage::Serving => self.take_reply(cx, id, output),
            Stage::Starting => {
                let ready_line = self.options.ready_line.as_deref().unwrap_or_default();
                let Some(taken) = process.find_ready_line(output, ready_line) else {
                    return;
                };
                process.stage = Stage::Serving;
                self.tell(cx, Event::Ready(id));
                let rest = output.get(taken..).unwrap_or_default();
                if !rest.is_empty() {
                    self.take_reply(cx, id, rest);
                }
            }
        }
    }

    /// Output of a worker in service. The usual reply lies in `output` whole and alone, and goes from there to its client.
    fn take_reply(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8]) {
        let Some(process) = self.crew.get_mut(id) else { return };
        if process.reply.is_empty() {
            match process.framer.advance(output) {
                Progress::Frame(length) => return self.reply_is_whole(cx, id, output, length),
                Progress::NeedMore => process.reply.extend_from_slice(output),
                Progress::TooLong => return self.fault(cx, id, Fault::ReplyTooLong),
            }
            return self.tell(cx, Event::ReplyBegun(id));
        }
        process.reply.extend_from_slice(output);
        match process.framer.advance(&process.reply) {
            Progress::NeedMore => {}
            Progress::TooLong => self.fault(cx, id, Fault::ReplyTooLong),
            Progress::Frame(length) => {
                let reply = std::mem::take(&mut process.reply);
                self.reply_is_whole(cx, id, &reply, length);
            }
        }
    }

    fn reply_is_whole(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8], length: usize) {
        let Some(process) = self.crew.get(id) else { return };
        let step = if output.len() > length || !process.unsent.is_empty() {
            Step::Lost
        } else {
            Step::Kept
        };
        self.dispatcher.handle(cx.now(), Event::Reply { worker: id, step });
        self.act(
            cx,
            Some(Reply {
                worker: id,
                bytes: output.get(..length).unwrap_or_default(),
            }),
        );
    }

    /// What it complains about goes into the log, a line at a time.
    pub(super) fn errors_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        let mut buffer = cx.lend_buffer();
        let mut outcome = Outcome::MoreLater;
        for _ in 0..READS_PER_TURN {
            outcome = self.read_errors(cx, id, &mut buffer);
            if !matches!(outcome, Outcome::MoreLater) {
                break;
            }
        }
        cx.return_buffer(buffer);
        match outcome {
            Outcome::MoreLater => cx.resume_later(Of::WorkerErrors.worker(id)),
            Outcome::Drained => {}
            Outcome::Closed => {
                if let Some(process) = self.crew.get_mut(id) {
                    process.child.stderr = None;
                }
            }
        }
    }

    /// It has complained faster than the log takes it: says how many lines are missing.
    pub(super) fn errors_overdue(&mut self, cx: &mut Context<'_>, key: Key) {
        let name = &self.options.name;
        let Some(process) = self.crew.find(key).and_then(|id| self.crew.get_mut(id)) else {
            return;
        };
        cx.alarm_fired(&mut process.stderr_alarm);
        let (number, pid) = (process.number, process.pid());
        process.stderr.on_deadline(cx.now(), &mut |line| {
            log::info!("{name}: worker {number} (pid {pid}): {line}")
        });
    }

    fn read_errors(&mut self, cx: &mut Context<'_>, id: WorkerId, buffer: &mut [u8]) -> Outcome {
        let name = &self.options.name;
        let Some(process) = self.crew.get_mut(id) else {
            return Outcome::Drained;
        };
        let (number, pid) = (process.number, process.pid());
        let Some(stderr) = &mut process.child.stderr else {
            return Outcome::Drained;
        };
        match stderr.read(buffer) {
            Ok(0) => Outcome::Closed,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default();
                process.stderr.feed(bytes, cx.now(), &mut |line| {
                    log::info!("{name}: worker {number} (pid {pid}): {line}")
                });
                let deadline = process.stderr.deadline();
                cx.set_alarm(&mut process.stderr_alarm, Of::WorkerErrors.worker(id), deadline);
                Outcome::MoreLater
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Outcome::MoreLater,
            Err(_) => Outcome::Closed,
        }
    }

    // ---- ending ------------------------------------------------------------------------------------------------

    pub(super) fn end_process(&mut self, cx: &mut Context<'_>, id: WorkerId, ending: Ending) {
        let manner = match ending {
            Ending::Gently => Manner::Gently,
            Ending::Firmly => Manner::Promptly,
            Ending::Now => Manner::AtOnce,
        };
        if let Some(process) = self.crew.get_mut(id) {
            process.stage = Stage::Ending;
            process.reply = Vec::new();
        }
        self.end_on(cx, id, reaper::Event::Stop(manner));
    }

    /// One step on the way out. Everything is done that the step asks for, even if part of it fails.
    fn end_on(&mut self, cx: &mut Context<'_>, id: WorkerId, event: reaper::Event) {
        let Some(process) = self.crew.get_mut(id) else { return };
        let actions = process.ending.handle(event, cx.now());
        let deadline = process.ending.deadline();
        cx.set_alarm(&mut process.ending_alarm, Of::WorkerEnding.worker(id), deadline);
        for action in actions {
            let Some(process) = self.crew.get_mut(id) else { return };
            let outcome = match action {
                reaper::Action::CloseStdin => {
                    process.child.stdin = None;
                    Ok(())
                }
                reaper::Action::Terminate => process.child.terminate_group(),
                reaper::Action::Kill => process.child.kill_group(Signal::SIGKILL),
                reaper::Action::Reap => self.reap(cx, id),
                reaper::Action::GiveUp => {
                    self.give_up_on(cx, id);
                    Ok(())
                }
            };
            if let Err(error) = outcome {
                let who = self.crew.describe(id).unwrap_or_default();
                self.note(
                    cx,
                    Level::Error,
                    Topic::System,
                    format_args!("cannot end {who}: {error}"),
                );
            }
        }
    }

    /// Stuck in the kernel: not even KILL ends it. It is not waited for, or the pool would be stuck as well.
    fn give_up_on(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let who = self.crew.describe(id).unwrap_or_default();
        let line = format_args!("{who} does not end, not even by KILL, and is left behind; see its state in /proc");
        self.note(cx, Level::Error, Topic::System, line);
        self.is_gone(cx, id);
    }

    pub(super) fn ending_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        if let Some(process) = self.crew.get_mut(id) {
            cx.alarm_fired(&mut process.ending_alarm);
        }
        self.end_on(cx, id, reaper::Event::Deadline);
    }

    /// The process has ended. Its last words are heard first: a reply that was written counts.
    pub(super) fn exit_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.crew.find(key) else { return };
        self.hear_last_words(cx, id);
        self.end_on(cx, id, reaper::Event::Exited);
    }

    fn reap(&mut self, cx: &mut Context<'_>, id: WorkerId) -> io::Result<()> {
        let Some(process) = self.crew.get_mut(id) else {
            return Ok(());
        };
        let status = match process.child.reap_with_group(&mut self.guard) {
            Ok(status) => status.map_or_else(|| "status unknown".to_owned(), |status| status.to_string()),
            Err(error) => format!("status unknown, because {error}"),
        };
        self.log_exit(cx, id, &status);
        self.is_gone(cx, id);
        Ok(())
    }

    /// There is no process any more, or none that would be waited for.
    fn is_gone(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        self.dispatcher.handle(cx.now(), Event::Exited(id));
        if let Some(mut process) = self.crew.remove(id) {
            cx.set_alarm(&mut process.ending_alarm, Of::WorkerEnding.worker(id), None);
            cx.set_alarm(&mut process.stderr_alarm, Of::WorkerErrors.worker(id), None);
        }
        self.act(cx, None);
        self.descriptor_freed(cx);
    }

    fn hear_last_words(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        // A pipe holds 64 KiB unless its owner has widened it; whoever writes on (a grandchild) is not waited for.
        let mut buffer = vec![0; READ_BUFFER];
        let _ = self.read_output(cx, id, &mut buffer, true);
        for _ in 0..READS_PER_TURN {
            let Outcome::MoreLater = self.read_errors(cx, id, &mut buffer) else {
                break;
            };
        }
        let name = &self.options.name;
        if let Some(process) = self.crew.get_mut(id) {
            let (number, pid) = (process.number, process.pid());
            process.stderr.close(cx.now(), &mut |line| {
                log::info!("{name}: worker {number} (pid {pid}): {line}")
            });
        }
    }

    fn log_exit(&mut self, cx: &mut Context<'_>, id: WorkerId, status: &str) {
        let Some(process) = self.crew.get(id) else { return };
        let (number, pid, stage) = (process.number, process.pid(), process.stage);
        let lived = cx.now().saturating_duration_since(process.started).as_secs_f64();
        match stage {
            // The words of iotcpd 1.1, for scripts that look for them.
            Stage::Starting | Stage::Serving => {
                let line = format_args!("daemon d[{number}] has died: pid {pid}, {status}, after {lived:.3} s");
                self.note(cx, Level::Warn, Topic::Died, line);
            }
            Stage::Ending => log::debug!("{}: worker {number} (pid {pid}) has ended: {status}", self.options.name),
        }
    }
}

/// How far reading from a worker got.
enum Outcome {
    Drained,
    MoreLater,
    Closed,
}
