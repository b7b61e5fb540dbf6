//! The loops that read: what comes from a client or a worker is taken piece by piece, and each piece is settled before
//! the next is judged, because what becomes of it may change what the next one means.

use super::clients::intake::Piece;
use super::sessions::session::Running;
use super::workers::output::{NextReply, Outcome, Output, Reading};
use super::workers::process::{Stage, WorkerProcess};
use super::{Pool, PoolSource};
use crate::doors::Door;
use crate::doors::pool::core::WorkerId;
use crate::net::conn::Conn;
use crate::net::origin::Origin;
use crate::process::failure::SpawnError;
use crate::process::watchdog;
use crate::reactor::{Context, Key, Readiness};

/// Reads from one client or worker in one turn; four full buffers.
const READS_PER_TURN: usize = 4;

/// Processes started in one turn: a start takes a few tenths of a millisecond, in which no client is served.
const SPAWNS_PER_TURN: usize = 4;

impl Pool {
    // ---- connections -------------------------------------------------------------------------------------------

    /// Takes in a connection; its request is usually there already.
    pub(super) fn add_connection(&mut self, cx: &mut Context<'_>, conn: Conn, origin: Origin) {
        if let Err(over) = self.base.front.count_in(&origin) {
            return self.turn_away(cx, conn, &origin, over);
        }
        if self.has_sessions() {
            return self.sessions.add(&mut self.base.desk(cx), conn, origin);
        }
        if let Some(key) = self.clients.add(&mut self.base.desk(cx), conn, origin) {
            self.read_client(cx, key);
            if let Some(by) = self.base.front.hastened() {
                self.clients.hasten(key, by);
            }
        }
    }

    // ---- clients -----------------------------------------------------------------------------------------------

    pub(super) fn client_ready(&mut self, cx: &mut Context<'_>, key: Key, readiness: Readiness) {
        if self.clients.handle_ready(&mut self.base.desk(cx), key, readiness) {
            self.read_client(cx, key);
        }
    }

    /// Goes on with a client that had more to be read than one turn was for, or that has room again.
    pub(super) fn resume_client(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.clients.resume(&mut self.base.desk(cx), key) {
            self.take_requests(cx, key, &[]);
            self.clients.expect_input(key);
            self.read_client(cx, key);
            self.clients.close_if_drained(&mut self.base.desk(cx), key);
        }
    }

    pub(super) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.clients.handle_alarm(cx, key) {
            self.clients.expect_input(key);
            self.read_client(cx, key);
        }
        self.clients.end_overdue(&mut self.base.desk(cx), key);
    }

    /// Reads a bounded share of a client's input.
    fn read_client(&mut self, cx: &mut Context<'_>, key: Key) {
        let mut buffer = cx.lend_buffer();
        let mut is_drained = false;
        for _ in 0..READS_PER_TURN {
            match self.clients.read(&mut self.base.desk(cx), key, &mut buffer) {
                Piece::Nothing => is_drained = true,
                Piece::Bytes { length, is_last } => {
                    self.take_requests(cx, key, buffer.get(..length).unwrap_or_default());
                    is_drained = is_last;
                }
            }
            if is_drained {
                break;
            }
        }
        cx.return_buffer(buffer);
        if is_drained {
            self.clients.touch(key);
        } else {
            self.clients.read_later(cx, key);
        }
    }

    /// Takes the requests out of `new`, which was read behind what the client has left unfinished before.
    fn take_requests(&mut self, cx: &mut Context<'_>, key: Key, new: &[u8]) {
        let Some(mut held) = self.clients.take_held(key) else {
            return;
        };
        let had_begun = !held.is_empty();
        if had_begun {
            held.extend_from_slice(new);
        }
        let bytes = if had_begun { held.as_slice() } else { new };
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            match self.clients.take_next(&mut self.base.desk(cx), key, rest) {
                0 => break,
                length => taken += length,
            }
            self.settle(cx, None);
        }
        if had_begun {
            held.drain(..taken);
        } else {
            match bytes.get(taken..).filter(|rest| !rest.is_empty()) {
                Some(rest) => held = self.clients.copy(rest),
                None => return,
            }
        }
        let is_new_request = taken > 0 || !had_begun;
        self.clients
            .keep_rest(&self.base.options, key, held, is_new_request, cx.now());
    }

    /// Writes what was gathered in this turn for all clients, except those clients that expect more in the next.
    pub(super) fn flush_all(&mut self, cx: &mut Context<'_>) {
        // A pool that is to end may have no next turn.
        let holds_back = self.base.front.is_serving();
        while let Some(key) = self.clients.next_unflushed(holds_back) {
            self.clients.flush(&mut self.base.desk(cx), key);
            self.settle(cx, None);
        }
    }

    // ---- workers -----------------------------------------------------------------------------------------------

    /// Starts some of the processes that are to be started; the rest in the next turn.
    pub(super) fn spawn_waiting(&mut self, cx: &mut Context<'_>) {
        for _ in 0..SPAWNS_PER_TURN {
            // A failure is reported, and the worker is started again after a while.
            let _ = self.spawn_next(cx);
            self.settle(cx, None);
            if !self.workers.has_waiting_spawns() {
                return;
            }
            if cx.now().elapsed() >= watchdog::SLOW {
                break;
            }
        }
        self.workers.spawn_later(cx);
    }

    /// Starts the next process right now. What follows from it waits for [`settle`](Self::settle).
    ///
    /// # Errors
    /// Those of starting it. They are reported as an event too, which the log has a line about once that is settled: a
    /// caller that ends the daemon by the error leaves it unsettled, and the error is told once.
    pub(super) fn spawn_next(&mut self, cx: &mut Context<'_>) -> Result<(), SpawnError> {
        let Some(id) = self.workers.next_spawn() else {
            return Ok(());
        };
        if !self.base.dispatcher.awaits_spawn(id) {
            return Ok(());
        }
        let number = self.base.dispatcher.slot_of(id).unwrap_or_default();
        self.workers.spawn(&mut self.base.desk(cx), id, number)
    }

    /// Writes what was gathered for all workers in this turn.
    pub(super) fn send_all(&mut self, cx: &mut Context<'_>) {
        while let Some(id) = self.workers.next_unsent() {
            self.with_process(cx, id, |process, desk| {
                if process.stage == Stage::Serving {
                    process.send(desk);
                }
            });
            self.settle(cx, None);
        }
    }

    /// Writes to a worker whose input has room again.
    pub(super) fn input_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        if self.has_sessions() {
            return self.session_worker_ready(cx, id, Running::mark_worker_writable);
        }
        self.with_process(cx, id, WorkerProcess::send);
    }

    /// Reads what a worker has written.
    pub(super) fn read_worker(&mut self, cx: &mut Context<'_>, key: Key, to_the_end: bool) {
        let Some(id) = self.workers.find(key) else { return };
        let process = self.workers.get(id);
        if process.is_some_and(|process| process.is_for_sessions() && !process.is_starting()) {
            return self.session_worker_ready(cx, id, Running::mark_worker_readable);
        }
        self.workers
            .yield_to_writer(id, cx.now(), self.clients.multiplexed() > 0);
        match self.read_output(cx, id, to_the_end) {
            Outcome::Drained => {}
            Outcome::MoreLater => cx.resume_later(PoolSource::WorkerOutput.worker(id)),
            Outcome::Closed => self.with_process(cx, id, WorkerProcess::close_output),
        }
    }

    /// Reads the last answers of a worker that has closed its input, before it is given up.
    pub(super) fn read_after_closed_input(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        if let Outcome::MoreLater = self.read_output(cx, id, true) {
            return cx.resume_later(PoolSource::WorkerInput.worker(id));
        }
        self.with_process(cx, id, |process, desk| {
            if process.stage == Stage::Serving {
                process.report_closed_input(desk);
            }
        });
    }

    /// Takes a reply for whole because nothing has come behind it for the pause that ends one.
    pub(super) fn reply_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        self.with_process(cx, id, |process, desk| desk.cx.clear_alarm(&mut process.reply_alarm));
        // More of it may have come while this loop was late.
        self.read_worker(cx, key, false);
        if self.workers.get(id).is_some_and(WorkerProcess::is_quiet) {
            self.end_reply(cx, id);
        }
    }

    /// Handles the end of a process. That of workers which were lost before it, and have ended too, is handled first:
    /// their successor may be this one.
    pub(super) fn exit_ready(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(id) = self.workers.find(key) else { return };
        for earlier in self.workers.dead_before(id) {
            self.handle_exit(cx, earlier);
        }
        self.handle_exit(cx, id);
    }

    /// Reads what an ended process has left, and reaps it: a reply that was written counts.
    fn handle_exit(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        // A pipe holds 64 KiB unless its owner has widened it; a grandchild that writes on is not waited for. A reply
        // that ends with its process may go on, up to the longest that is allowed.
        while let Outcome::MoreLater = self.read_output(cx, id, true) {
            if !self.workers.get(id).is_some_and(WorkerProcess::owes_a_reply) {
                break;
            }
        }
        self.workers.close_stderr(&mut self.base.desk(cx), id);
        self.workers.report_exit(&mut self.base.desk(cx), id);
        self.settle(cx, None);
        self.with_process(cx, id, |process, _| process.note_signalled());
        self.end_worker_of_session(cx, id);
        if self.workers.reap_in_order(&mut self.base.desk(cx), id) {
            self.end_reply(cx, id);
        }
        self.settle(cx, None);
    }

    /// Reads what a worker has written, a bounded share of it. On epoll a read that does not fill the buffer has
    /// drained a pipe, so the usual reply costs one read; only when the pipe's other end is closed is it read to its
    /// end.
    fn read_output(&mut self, cx: &mut Context<'_>, id: WorkerId, to_the_end: bool) -> Outcome {
        let mut buffer = cx.lend_buffer();
        let mut outcome = Outcome::MoreLater;
        for _ in 0..READS_PER_TURN {
            let process = self.workers.get_mut(id);
            match process.map_or(Output::Drained, |process| process.read(&mut buffer)) {
                Output::Drained => outcome = Outcome::Drained,
                Output::Closed => outcome = Outcome::Closed,
                Output::Bytes(length) => {
                    self.take_output(cx, id, buffer.get(..length).unwrap_or_default());
                    if length < buffer.len() && !to_the_end {
                        outcome = Outcome::Drained;
                    }
                }
            }
            if outcome != Outcome::MoreLater {
                break;
            }
        }
        cx.return_buffer(buffer);
        outcome
    }

    fn take_output(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8]) {
        if self.with_process(cx, id, |process, desk| process.take_start_up(desk, output)) {
            self.take_replies(cx, id, output);
        }
        self.settle(cx, None);
    }

    /// Takes the replies out of `output`, which was read behind what was unfinished before.
    fn take_replies(&mut self, cx: &mut Context<'_>, id: WorkerId, output: &[u8]) {
        let Some(process) = self.workers.get_mut(id) else {
            return;
        };
        let mut held = std::mem::take(&mut process.reply);
        let mut reading = Reading {
            held: held.len(),
            read: output.len(),
            had_read_by_now: None,
        };
        let had_begun = !held.is_empty();
        if had_begun {
            held.extend_from_slice(output);
        }
        let bytes = if had_begun { held.as_slice() } else { output };
        let mut taken = 0;
        loop {
            let rest = bytes.get(taken..).unwrap_or_default();
            let next = self.with_process(cx, id, |process, desk| {
                process.next_reply(desk, rest, taken, &mut reading)
            });
            let (length, reply) = match next {
                NextReply::None => break,
                NextReply::Broken => {
                    self.settle(cx, None);
                    break;
                }
                NextReply::Taken(length) => (length, None),
                NextReply::Reply(length, reply) => (length, Some(reply)),
            };
            taken += length;
            self.settle(cx, reply);
        }
        if had_begun {
            held.drain(..taken);
        } else {
            held.extend_from_slice(output.get(taken..).unwrap_or_default());
        }
        self.with_process(cx, id, |process, desk| process.keep_partial(desk, held, output.len()));
    }

    /// Takes what a worker has written for its reply, because something else than the bytes says that it is over.
    fn end_reply(&mut self, cx: &mut Context<'_>, id: WorkerId) {
        let Some(process) = self.workers.get_mut(id).filter(|process| process.owes_a_reply()) else {
            return;
        };
        let partial = std::mem::take(&mut process.reply);
        let reply = process.end_reply(&mut self.base.desk(cx), &partial);
        self.settle(cx, reply);
    }
}
