//! Standard output of workers: start-up talk, then replies.
//!
//! The pool drives this (`shell::reading`): it reads a piece ([`WorkerProcess::read`]), takes the replies out of it one
//! by one ([`WorkerProcess::next_reply`]), each of which it settles before the next is judged, and lets the rest be
//! kept ([`WorkerProcess::keep_partial`]). The usual reply lies in the piece whole and alone, and goes from there to
//! its client.

use std::io;
use std::time::Instant;

use super::Workers;
use super::process::{Stage, Unread, WorkerProcess};
use super::protocol::Addressee;
use crate::doors::pool::core::{AfterReply, Event, Fault, WorkerId};
use crate::doors::pool::recorder::Excerpt;
use crate::doors::pool::shell::desk::Desk;
use crate::doors::pool::shell::{PoolSource, Reply};
use crate::framing::{Frame, Framing, Progress};
use crate::reactor::READ_BUFFER;

/// A worker that has more requests than this in hand was written far ahead to.
const MANY_IN_HAND: usize = 8;
/// The same while multiplexed clients are served. Each of their answers leaves as soon as it is there, so one that is
/// read alone costs a write and wakes the client, and often the program behind the client, for itself.
const MANY_WITH_MULTIPLEXED: usize = 1;

/// A piece that was read from a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// A number of bytes.
    Bytes(usize),
    Drained,
    Closed,
}

/// The state of a worker's output, or of its standard error, after it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Drained,
    MoreLater,
    Closed,
}

/// The beginning of a worker's output.
#[derive(Default)]
pub(crate) enum NextReply<'b> {
    /// No whole reply, or none that would be listened to.
    #[default]
    None,
    /// Bytes after which no reply can be told from the next: that was reported.
    Broken,
    /// Bytes of this length that are for no client; what they are was reported.
    Taken(usize),
    /// A reply, of which the dispatcher is to decide whose it is; its length in the output.
    Reply(usize, Reply<'b>),
}

/// The place of a worker's output in what it wrote, and what is known of the reading of its input at that time.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The length of what was kept from reads before.
    pub(crate) held: usize,
    /// The length of the last read.
    pub(crate) read: usize,
    /// The part of its input that the worker had read when that was last looked at, behind the read.
    pub(crate) had_read_by_now: Option<Option<u64>>,
}

impl WorkerProcess {
    /// Reads from a worker once.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Output {
        // The output of a worker in a session is its client's.
        if self.child.stdout.is_none() || self.is_for_sessions() && !self.is_starting() {
            return Output::Drained;
        }
        let look = self.look();
        match self.read_output(buffer) {
            Ok(0) => Output::Closed,
            Ok(length) => {
                self.look = look;
                self.has_written = true;
                Output::Bytes(length)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Output::Drained,
            Err(_) => Output::Closed,
        }
    }

    /// Looks for the ready line in the output of a worker that starts. Returns true if the worker serves, so that its
    /// output is replies.
    pub(crate) fn take_start_up(&mut self, desk: &mut Desk<'_>, output: &[u8]) -> bool {
        let ready_line = match &mut self.stage {
            Stage::Ending | Stage::Lost => return false,
            Stage::Serving => return true,
            Stage::Starting(ready_line) => ready_line,
        };
        let Some(taken) = ready_line.advance(output) else {
            return false;
        };
        let said = output.get(taken..).unwrap_or_default();
        if self.is_for_sessions() {
            // Its first words to the client that will come.
            self.reply = said.to_vec();
        } else if !said.is_empty() {
            // Once it is ready it may be given a request, and this would be taken for the answer.
            self.report_fault(desk, Fault::Unasked);
            return false;
        }
        self.stage = Stage::Serving;
        desk.report(Event::Ready(self.id));
        false
    }

    /// Keeps what is not a whole reply yet, of which the last read brought `read` bytes.
    pub(crate) fn keep_partial(&mut self, desk: &mut Desk<'_>, partial: Vec<u8>, read: usize) {
        if self.stage != Stage::Serving {
            return;
        }
        self.reply = partial;
        if self.reply.is_empty() {
            return;
        }
        // A probe has its deadline, whatever of its answer has come.
        let is_probe = self.health_check.is_under_way();
        if let Framing::Quiet(pause) = desk.options.framings.worker_reply {
            if !self.look.covers(read) {
                self.look.had_read = self.bytes_read();
            }
            let (source, over) = (PoolSource::WorkerOutput.worker(self.id), desk.cx.now() + pause);
            desk.cx.set_alarm(&mut self.reply_alarm, source, Some(over));
        }
        match self.addressee(&self.reply) {
            Addressee::Request { to, .. } if !is_probe => desk.report(Event::ReplyBegun(self.id, to)),
            Addressee::Request { .. } | Addressee::NotKnownYet => {}
            Addressee::None => {
                self.losing.stray = Some(Excerpt::of(&self.reply, desk.options.disclosure).to_string());
                self.report_fault(desk, Fault::UnknownChannel);
            }
        }
    }

    /// Takes the reply at the beginning of `rest`, which lies `taken` bytes behind the beginning of what is at hand.
    pub(crate) fn next_reply<'b>(
        &mut self,
        desk: &mut Desk<'_>,
        rest: &'b [u8],
        taken: usize,
        reading: &mut Reading,
    ) -> NextReply<'b> {
        if self.stage != Stage::Serving || rest.is_empty() {
            return NextReply::None;
        }
        match self.framer.advance(rest) {
            Progress::NeedMore => NextReply::None,
            Progress::TooLong => {
                self.report_long_reply(desk, rest);
                NextReply::Broken
            }
            Progress::Malformed(reason) => {
                self.report_malformed_reply(desk, reason);
                NextReply::Broken
            }
            Progress::Frame(frame) => {
                let Frame { length, .. } = frame;
                let (bytes, behind) = rest.split_at(length.min(rest.len()));
                let reply = Reply {
                    worker: self.id,
                    bytes,
                    payload: frame.payload_in(bytes),
                    read: reading.read,
                };
                let had_read = if self.look.covers((taken + length).saturating_sub(reading.held)) {
                    self.look.had_read
                } else {
                    // Once a read: what it has not read by now, it had not read when it wrote any of this.
                    *reading.had_read_by_now.get_or_insert_with(|| self.bytes_read())
                };
                match self.judge_reply(desk, reply, behind, had_read) {
                    Some(reply) => NextReply::Reply(length, reply),
                    None => NextReply::Taken(length),
                }
            }
        }
    }

    /// Takes what a worker has written for its reply, because something else than the bytes says that it is over.
    pub(crate) fn end_reply<'b>(&mut self, desk: &mut Desk<'_>, partial: &'b [u8]) -> Option<Reply<'b>> {
        let had_read = match desk.options.framings.worker_reply {
            // The pause came behind the last of it; what was read meanwhile was read too late.
            Framing::Quiet(_) => self.look.had_read,
            _ => self.bytes_read(),
        };
        let frame = self.framer.end(partial)?;
        let reply = Reply {
            worker: self.id,
            bytes: partial,
            payload: frame.payload_in(partial),
            // It is looked at before it is given anything: that it writes nothing more is a guess.
            read: READ_BUFFER,
        };
        self.judge_reply(desk, reply, &[], had_read)
    }

    /// Judges a whole reply, behind which the output goes on with `behind`. Returns it without what its framing adds if
    /// it answers a request, which is reported; anything else is reported as what it is.
    fn judge_reply<'b>(
        &mut self,
        desk: &mut Desk<'_>,
        reply: Reply<'b>,
        behind: &[u8],
        had_read: Option<u64>,
    ) -> Option<Reply<'b>> {
        let Addressee::Request { to, prefix } = self.addressee(reply.bytes) else {
            self.losing.stray = Some(Excerpt::of(reply.bytes, desk.options.disclosure).to_string());
            self.report_fault(desk, Fault::UnknownChannel);
            return None;
        };
        let bytes = reply.bytes.get(prefix..).unwrap_or_default();
        let payload = reply.payload.get(prefix..).unwrap_or_default();
        if self.is_numbered() && bytes.len() > desk.options.max_reply.saturating_add(1) {
            self.report_fault(desk, Fault::ReplyTooLong(to));
            return None;
        }
        let answered = self.take_answered(to);
        let unread = self.unread_input(answered, had_read);
        // Output behind the last reply that is owed answers nothing; of numbered lines each is judged by its number.
        let excess = self.given.is_empty() && !behind.is_empty();
        if self.health_check.is_under_way() {
            self.recorder.answered(to, desk.cx.now());
            let disclosure = desk.options.disclosure;
            let result = self.health_check.judge(payload, unread, excess, disclosure);
            desk.report(Event::Probed(self.id, result));
            return None;
        }
        let excess = excess && !self.is_numbered();
        let after = match unread {
            Unread::Everything => {
                self.report_fault(desk, Fault::Unasked);
                return None;
            }
            // Input that it leaves unread is no sign of anything: it takes one request.
            _ if self.is_for_one_request() && !excess => AfterReply::Spent,
            Unread::Nothing if !excess => AfterReply::InStep,
            Unread::Nothing | Unread::Some => AfterReply::OutOfStep,
        };
        self.recorder.answered(to, desk.cx.now());
        let worker = self.id;
        desk.report(Event::Reply { worker, to, after });
        Some(Reply {
            bytes,
            payload,
            ..reply
        })
    }

    fn report_long_reply(&mut self, desk: &mut Desk<'_>, line: &[u8]) {
        let fault = match self.addressee(line) {
            Addressee::Request { to, .. } => Fault::ReplyTooLong(to),
            Addressee::None | Addressee::NotKnownYet => {
                self.losing.stray = Some(Excerpt::of(line, desk.options.disclosure).to_string());
                Fault::UnknownChannel
            }
        };
        self.report_fault(desk, fault);
    }

    /// Reports output that is not framed as it should be: no end of it can be told.
    fn report_malformed_reply(&mut self, desk: &mut Desk<'_>, reason: &str) {
        if !self.owes_a_reply() {
            return self.report_fault(desk, Fault::Unasked);
        }
        self.losing.complaint = Some(reason.to_owned());
        self.report_fault(desk, Fault::Malformed);
    }

    /// Handles the end of a worker's output.
    pub(crate) fn close_output(&mut self, desk: &mut Desk<'_>) {
        self.child.stdout = None;
        // Where that ends its reply, it counts if the process says so as well, by its exit status.
        if desk.options.framings.worker_reply != Framing::Eof || !self.owes_a_reply() {
            self.report_fault(desk, Fault::OutputClosed);
        }
    }
}

impl Workers {
    /// Calls sched_yield(2), at most once a turn, before the answers of a worker with more than [`MANY_IN_HAND`]
    /// requests (or [`MANY_WITH_MULTIPLEXED`]) are read. A worker writes its answers one at a time, and the first of
    /// them wakes this loop. Where both run on the same processor, the worker then goes on first, and one read takes many
    /// answers instead of one. With fewer requests in hand the call would cost more than it saves: without multiplexed
    /// clients, one request in the place of eight has 0.9 of the rate. Measured: with one squidGuard and 512 requests in
    /// flight half as many reads per request, and 1.08 to 1.13 times the rate (`doc/performance.md`).
    pub(crate) fn yield_to_writer(&mut self, id: WorkerId, now: Instant, has_multiplexed: bool) {
        let many = if has_multiplexed {
            MANY_WITH_MULTIPLEXED
        } else {
            MANY_IN_HAND
        };
        let has_many = self.get(id).is_some_and(|process| process.given.len() > many);
        if has_many && self.stepped_back != Some(now) {
            self.stepped_back = Some(now);
            std::thread::yield_now();
        }
    }
}
