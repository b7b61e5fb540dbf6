//! What workers write: replies, start-up talk, and complaints on standard error.

use std::io;
use std::io::Read;

use log::Level;

use super::process::{Addressee, Lines, Stage, Unread, WorkerProcess};
use crate::doors::pool::core::{AfterReply, Event, Fault, WorkerId};
use crate::doors::pool::gist::gist;
use crate::doors::pool::options::Mode;
use crate::doors::pool::recorder::Excerpt;
use crate::doors::pool::repeats::{Repeats, Words};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::sessions::session::Running;
use crate::doors::pool::shell::{Pool, PoolSource, Reply};
use crate::framing::{Frame, Framing, Progress};
use crate::process::stderr_log::StderrLog;
use crate::reactor::{Context, Key, READ_BUFFER, Readiness};

/// Reads from one worker in one turn.
const READS_PER_TURN: usize = 4;

/// A worker with more requests than this is written ahead to, and far.
const MANY_IN_HAND: usize = 8;

/// How far reading from a worker got.
enum Outcome {
    Drained,
    MoreLater,
    Closed,
}

impl Pool {
    pub(in crate::doors::pool::shell) fn output_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        let Some(id) = self.workers.find(key) else { return };
        if self.has_sessions() && self.workers.get(id).is_some_and(|process| !process.is_starting()) {
            return self.session_worker_ready(cx, id, Running::mark_worker_readable);
        }
        let mut buffer = cx.lend_buffer();
        let outcome = self.read_output(cx, id, &mut buffer, readiness.read_closed || readiness.hung_up);
        cx.return_buffer(buffer);
        match outcome {
            Outcome::Drained => {}
            Outcome::MoreLater => cx.resume_later(PoolSource::WorkerOutput.worker(id)),
            Outcome::Closed => {
                let Some(process) = self.workers.get_mut(id) else {
                    return;
                };
                process.child.stdout = None;
                // Where that ends its reply, it counts if the process says so as well, by its exit status.
                if self.options.framings.worker_reply != Framing::Eof || !process.owes_a_reply() {
                    self.report_fault(id, Fault::OutputClosed);
                }
            }
        }
    }

    /// A worker that has many requests in hand writes its answers one by one, and the first of them brings us here. To step
    /// back once before it is read, where others want this processor, makes many reads into one; with few in hand it would
    /// only cost time.
    fn yield_to_writer(&mut self, cx: &Context<'_>, id: WorkerId) {
        let has_many = self
            .workers
            .get(id)
            .is_some_and(|process| process.given.len() > MANY_IN_HAND);
        if has_many && self.stepped_back != Some(cx.now()) {
            self.stepped_back = Some(cx.now());
            std::thread::yield_now();
        }
    }

    /// Reads what a worker has written, a bounded share of it. On epoll a read that does not fill the buffer has drained
    /// a pipe, so the usual reply costs one read; only when the pipe's other end is closed is it read to its end.
    fn read_output(&mut self, cx: &mut Context<'_>, id: WorkerId, buffer: &mut [u8], to_the_end: bool) -> Outcome {
        for _ in 0..READS_PER_TURN {
            let Some(process) = self.workers.get(id).filter(|process| process.child.stdout.is_some()) else {
                return Outcome::Drained;
            };
            if self.has_sessions() && !process.is_starting() {
                // What it says is its client's.
                return Outcome::Drained;
            }
            let look = process.look();
            match process.read_output(buffer) {
                Ok(0) => return Outcome::Closed,
                Ok(length) => {
                    if let Some(process) = self.workers.get_mut(id) {
                        process.look = look;
                    }
                    self.take_output(cx, id, buffer.get(..length).unwrap_or_default());
                    self.settle(cx, None);
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
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        process.has_written = true;
        match &mut process.stage {
            Stage::Ending | Stage::Lost => {}
            Stage::Serving => self.take_replies(cx, id, output),
            Stage::Starting(ready_line) => {
                let Some(taken) = ready_line.advance(output) else {
                    return;
                };
                let said = output.get(taken..).unwrap_or_default();
                if self.options.policy.mode == Mode::Session {
                    // Its first words to the client that will come.
                    process.reply = said.to_vec();
                } else if !said.is_empty() {
                    // Once it is ready it may be given a request, and this would be taken for the answer.
                    return self.report_fault(id, Fault::Unasked);
                }
                process.stage = Stage::Serving;
                self.report(Event::Ready(id));
            }
        }
    }

    /// Output of a worker in service. The usual reply lies in `output` whole and alone, and goes from there to its client.
    fn take_replies(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8]) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let mut held = std::mem::take(&mut process.reply);
        if held.is_empty() {
            let taken = self.take_frames(cx, id, output, output.len());
            held.extend_from_slice(output.get(taken..).unwrap_or_default());
        } else {
            held.extend_from_slice(output);
            let taken = self.take_frames(cx, id, &held, output.len());
            held.drain(..taken);
        }
        let Some(process) = self
            .workers
            .get_mut(id)
            .filter(|process| process.stage == Stage::Serving)
        else {
            return;
        };
        // A probe has its deadline, whatever of its answer has come.
        let is_probe = process.health_check.is_under_way();
        process.reply = held;
        if process.reply.is_empty() {
            return;
        }
        if let Framing::Quiet(pause) = self.options.framings.worker_reply {
            if !process.look.covers(output.len()) {
                process.look.had_read = process.bytes_read();
            }
            let over = cx.now() + pause;
            cx.set_alarm(
                &mut process.reply_alarm,
                PoolSource::WorkerOutput.worker(id),
                Some(over),
            );
        }
        match process.addressee(&process.reply) {
            Addressee::Request { which, .. } if !is_probe => self.report(Event::ReplyBegun(id, which)),
            Addressee::Request { .. } | Addressee::NotKnownYet => {}
            Addressee::Nobody => {
                process.stray = Some(Excerpt::of(&process.reply, self.options.disclosure).to_string());
                self.report_fault(id, Fault::UnknownChannel);
            }
        }
    }

    /// Nothing has come from a worker for as long as it takes a reply to be over.
    pub(in crate::doors::pool::shell) fn reply_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        if let Some(process) = self.workers.get_mut(id) {
            cx.alarm_fired(&mut process.reply_alarm);
        }
        // Or has it, and this loop was late?
        self.output_ready(cx, key, Readiness::default());
        let is_quiet = |process: &&mut WorkerProcess| process.reply_alarm.at().is_none() && !process.reply.is_empty();
        if self.workers.get_mut(id).filter(is_quiet).is_some() {
            self.end_reply(cx, id);
        }
    }

    /// What a worker has written is its reply, because something else than the bytes says that it is over.
    pub(in crate::doors::pool::shell) fn end_reply(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id).filter(|process| process.owes_a_reply()) else {
            return;
        };
        let held = std::mem::take(&mut process.reply);
        let had_read = match self.options.framings.worker_reply {
            // The pause came behind the last of it; what was read meanwhile was read too late.
            Framing::Quiet(_) => process.look.had_read,
            _ => process.bytes_read(),
        };
        let Some(frame) = process.framer.end(&held) else { return };
        let reply = Reply {
            worker: id,
            bytes: &held,
            payload: frame.payload_in(&held),
            // It is looked at before it is given anything: that it writes nothing more is a guess.
            read: READ_BUFFER,
        };
        self.take_reply(cx, reply, &[], had_read);
    }

    /// The replies at the beginning of `bytes`, of which one read has brought the last `read`; how many bytes they are.
    fn take_frames(&mut self, cx: &mut Context<'_>, id: WorkerId, bytes: &[u8], read: usize) -> usize {
        let (mut taken, mut by_now) = (0, None);
        let held_before = bytes.len().saturating_sub(read);
        while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
            let Some(process) = self
                .workers
                .get_mut(id)
                .filter(|process| process.stage == Stage::Serving)
            else {
                break;
            };
            match process.framer.advance(rest) {
                Progress::NeedMore => break,
                Progress::TooLong => {
                    self.report_long_reply(id, rest);
                    self.settle(cx, None);
                    break;
                }
                Progress::Malformed(reason) => {
                    self.report_malformed_reply(id, reason);
                    self.settle(cx, None);
                    break;
                }
                Progress::Frame(frame) => {
                    let Frame { length, .. } = frame;
                    let (reply, behind) = rest.split_at(length.min(rest.len()));
                    let reply = Reply {
                        worker: id,
                        bytes: reply,
                        payload: frame.payload_in(reply),
                        read,
                    };
                    let end = (taken + length).saturating_sub(held_before);
                    let had_read = if process.look.covers(end) {
                        process.look.had_read
                    } else {
                        // Once a read: what it has not read by now, it had not read when it wrote any of this.
                        *by_now.get_or_insert_with(|| process.bytes_read())
                    };
                    self.take_reply(cx, reply, behind, had_read);
                    self.settle(cx, None);
                    taken += length;
                }
            }
        }
        taken
    }

    /// One reply has come, with what its framing adds.
    fn take_reply(&mut self, cx: &mut Context<'_>, reply: Reply<'_>, behind: &[u8], had_read: Option<u64>) {
        let (id, longest) = (reply.worker, self.options.max_reply);
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let Addressee::Request { which, prefix } = process.addressee(reply.bytes) else {
            process.stray = Some(Excerpt::of(reply.bytes, self.options.disclosure).to_string());
            return self.report_fault(id, Fault::UnknownChannel);
        };
        let bytes = reply.bytes.get(prefix..).unwrap_or_default();
        let payload = reply.payload.get(prefix..).unwrap_or_default();
        if process.lines == Lines::Numbered && bytes.len() > longest.saturating_add(1) {
            return self.report_fault(id, Fault::ReplyTooLong(which));
        }
        let take_answered = process.take_answered(which);
        let unread = process.unread_input(take_answered, had_read);
        // What stands behind the last reply that is owed answers nothing; of numbered lines each is judged by its number.
        let excess = process.given.is_empty() && !behind.is_empty();
        if process.health_check.is_under_way() {
            return self.judge_answer(cx, id, payload, which, unread, excess);
        }
        let excess = excess && process.lines == Lines::Plain;
        let after = match unread {
            Unread::Everything => return self.report_fault(id, Fault::Unasked),
            // What it leaves unread is no sign of anything: it takes one request.
            _ if self.options.framings.single_use() && !excess => AfterReply::Spent,
            Unread::Nothing if !excess => AfterReply::InStep,
            Unread::Nothing | Unread::Some => AfterReply::OutOfStep,
        };
        process.recorder.answered(which, cx.now());
        let event = Event::Reply {
            worker: id,
            to: which,
            after,
        };
        self.report(event);
        self.settle(
            cx,
            Some(Reply {
                bytes,
                payload,
                ..reply
            }),
        );
    }

    fn report_long_reply(&mut self, id: WorkerId, line: &[u8]) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let fault = match process.addressee(line) {
            Addressee::Request { which, .. } => Fault::ReplyTooLong(which),
            Addressee::Nobody | Addressee::NotKnownYet => {
                process.stray = Some(Excerpt::of(line, self.options.disclosure).to_string());
                Fault::UnknownChannel
            }
        };
        self.report_fault(id, fault);
    }

    /// What a worker writes is not cut as it should be: where it ends, nobody can tell.
    fn report_malformed_reply(&mut self, id: WorkerId, reason: &str) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        if !process.owes_a_reply() {
            return self.report_fault(id, Fault::Unasked);
        }
        process.complaint = Some(reason.to_owned());
        self.report_fault(id, Fault::Malformed);
    }

    /// What it complains about goes into the log, a line at a time. One read a turn: a buffer full of the shortest lines
    /// takes longer than all else in a turn, and nobody waits for it but the one who complains.
    pub(in crate::doors::pool::shell) fn stderr_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        let mut buffer = cx.lend_buffer();
        let outcome = self.read_stderr(cx, id, &mut buffer);
        cx.return_buffer(buffer);
        match outcome {
            Outcome::MoreLater => cx.resume_later(PoolSource::WorkerErrors.worker(id)),
            Outcome::Drained => {}
            Outcome::Closed => {
                if let Some(process) = self.workers.get_mut(id) {
                    process.child.stderr = None;
                }
            }
        }
    }

    /// It has complained faster than the log takes it, and it is said how many lines are missing; or lines were held back for
    /// too long.
    pub(in crate::doors::pool::shell) fn stderr_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        let now = cx.now();
        if let Some(process) = self.workers.get_mut(id) {
            cx.alarm_fired(&mut process.stderr_alarm);
        }
        self.log_stderr(cx, id, |stderr, hear| stderr.on_deadline(now, hear));
        self.with_words(cx, id, |_, _, words, tell| words.on_deadline(now, tell));
        self.arm_stderr_alarm(cx, id);
    }

    /// Lets the lines that come of something be heard: in the log, or by those who compare the words of workers.
    fn log_stderr(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        come: impl FnOnce(&mut StderrLog, &mut dyn FnMut(&str)),
    ) {
        let Some(process) = self.workers.get(id) else { return };
        let (pid, now) = (process.pid(), cx.now());
        self.with_words(cx, id, |repeats, stderr, words, tell| {
            come(stderr, &mut |line| repeats.hear(words, line, pid, now, tell));
        });
    }

    /// Gives to `with` what young workers of this pool have said, the standard error of this one, what it has said, and what tells
    /// a line of it in the log. Of lines that others have left behind which were lost, few are told.
    pub(in crate::doors::pool::shell) fn with_words<T>(
        &mut self,
        cx: &mut Context<'_>,
        id: WorkerId,
        with: impl FnOnce(&mut Repeats, &mut StderrLog, &mut Words, &mut dyn FnMut(&str)) -> T,
    ) -> Option<T> {
        let Pool {
            workers,
            repeats,
            echoes,
            journal,
            options,
            ..
        } = self;
        let process = workers.get_mut(id)?;
        let (name, who, pid, now) = (&options.front.name, process.label(), process.pid(), cx.now());
        let WorkerProcess {
            stderr, words, said, ..
        } = process;
        let mut is_any_left_out = false;
        let mut tell = |line: &str| {
            let is_echo = echoes.hear(said, gist(line, pid), now);
            if !is_echo {
                log::info!(service:% = name; "{name}: {who}: {line}");
            } else if !journal.write(now, name, Level::Info, Topic::Echo, format_args!("{who}: {line}")) {
                is_any_left_out = true;
            }
        };
        let outcome = with(repeats, stderr, words, &mut tell);
        if is_any_left_out {
            self.journal.plan(cx, None);
        }
        Some(outcome)
    }

    fn arm_stderr_alarm(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let deadlines = [process.stderr.deadline(), process.words.deadline()];
        let next = deadlines.into_iter().flatten().min();
        cx.set_alarm(&mut process.stderr_alarm, PoolSource::WorkerErrors.worker(id), next);
    }

    fn read_stderr(&mut self, cx: &mut Context<'_>, id: WorkerId, buffer: &mut [u8]) -> Outcome {
        let process = self.workers.get_mut(id);
        let Some(stderr) = process.and_then(|process| process.child.stderr.as_mut()) else {
            return Outcome::Drained;
        };
        match stderr.read(buffer) {
            Ok(0) => Outcome::Closed,
            Ok(length) => {
                let (bytes, now) = (buffer.get(..length).unwrap_or_default(), cx.now());
                self.log_stderr(cx, id, |stderr, hear| stderr.feed(bytes, now, hear));
                self.arm_stderr_alarm(cx, id);
                Outcome::MoreLater
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Outcome::Drained,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Outcome::MoreLater,
            Err(_) => Outcome::Closed,
        }
    }

    /// What one has answered that has closed its input since.
    pub(in crate::doors::pool::shell) fn read_after_closed_input(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        self.yield_to_writer(cx, id);
        let mut buffer = cx.lend_buffer();
        let outcome = self.read_output(cx, id, &mut buffer, true);
        cx.return_buffer(buffer);
        if let Outcome::MoreLater = outcome {
            return cx.resume_later(PoolSource::WorkerInput.worker(id));
        }
        if self
            .workers
            .get(id)
            .is_some_and(|process| process.stage == Stage::Serving)
        {
            self.report_closed_input(id);
        }
    }

    /// Reads what a process that has ended has left in its pipes.
    pub(in crate::doors::pool::shell) fn read_to_end(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        // A pipe holds 64 KiB unless its owner has widened it; a grandchild that writes on is not waited for.
        let mut buffer = cx.lend_buffer();
        while let Outcome::MoreLater = self.read_output(cx, id, &mut buffer, true) {
            // A reply that ends with its process may go on, up to the longest that is allowed.
            if !self.workers.get(id).is_some_and(WorkerProcess::owes_a_reply) {
                break;
            }
        }
        cx.return_buffer(buffer);
        self.read_stderr_now(cx, id);
        let now = cx.now();
        self.log_stderr(cx, id, |stderr, hear| stderr.close(now, hear));
    }

    /// Reads what a worker has written to its standard error by now. Must be called before its loss is logged. The buffer is
    /// allocated only if the loop's own one is lent: when the loss was found in a worker's output.
    pub(in crate::doors::pool::shell) fn read_stderr_now(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        if self
            .workers
            .get(id)
            .is_none_or(|process| process.child.stderr.is_none())
        {
            return;
        }
        let mut buffer = cx.lend_buffer();
        for _ in 0..READS_PER_TURN {
            let Outcome::MoreLater = self.read_stderr(cx, id, &mut buffer) else {
                break;
            };
        }
        cx.return_buffer(buffer);
    }
}
