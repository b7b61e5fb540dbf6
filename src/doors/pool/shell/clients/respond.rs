//! Answers and refusals are written to clients in the order of their requests, and connections are closed.
//!
//! The only answer of a connection is written at once. On one that stays, answers are gathered and leave at the end of
//! the turn in one write, however many workers have given them. Those of a multiplexed connection with more requests
//! under way leave at the end of the next turn: its answers need not be in order, so without that delay each would leave
//! alone, and the client would be woken for each.

use std::rc::Rc;
use std::time::Duration;

use log::Level;

use super::Clients;
use super::client::{After, Flush, Phase};
use super::exchange::{Asker, Bytes, Owed, State};
use super::intake::Line;
use crate::doors::pool::core::{ClientId, Event};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::PoolSource;
use crate::doors::pool::shell::desk::Desk;
use crate::net::conn::{CloseStep, LingerLimits, Sent};
use crate::net::origin::Origin;
use crate::reactor::{Context, Key, SourceKind};

/// The bounds of a client that sends on behind its last answer. Requests are short, and other clients may wait for its
/// place, so it is dropped sooner than one that sends the input of a program.
const LINGER: LingerLimits = LingerLimits {
    time: Duration::from_secs(2),
    bytes: 1024 * 1024,
};

/// The answer to a request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer<'b> {
    /// Bytes that are copied where they have to be kept.
    Of(&'b [u8]),
    /// Bytes of which all requests that wait for their turn keep one copy together.
    Shared(&'b Rc<[u8]>),
}

impl<'b> Answer<'b> {
    fn bytes(self) -> &'b [u8] {
        match self {
            Answer::Of(bytes) => bytes,
            Answer::Shared(bytes) => bytes,
        }
    }
}

impl Clients {
    // ---- answering ---------------------------------------------------------------------------------------------

    pub(crate) fn answer(&mut self, desk: &mut Desk<'_>, id: ClientId, reply: Answer<'_>, served: Duration) {
        if let Err(gone) = self.deliver(desk, id, reply) {
            desk.counters.count_lost_answer(served);
            let line = format_args!("{gone} hung up before its answer");
            desk.note(Level::Debug, Topic::HungUp, line);
        }
    }

    /// Gives a request the refusal for its answer.
    pub(super) fn refuse(&mut self, desk: &mut Desk<'_>, id: ClientId) {
        let options = desk.options;
        if let Some((key, number)) = self.number_of(id) {
            self.end_exchange(key, id);
            return self.write_numbered_refusal(desk, key, number);
        }
        // A client that it does not reach has gone, and its request is counted as refused already.
        let _ = self.deliver(desk, id, Answer::Of(&options.error_reply));
    }

    /// Refuses what has not become a request, behind the answers to the requests before it.
    pub(crate) fn send_refusal(&mut self, desk: &mut Desk<'_>, asker: Asker) {
        if let Some(number) = asker.number {
            return self.write_numbered_refusal(desk, asker.client, number);
        }
        let refusal = self.copy(&desk.options.error_reply);
        self.answer_without_worker(desk, asker, Bytes::Own(refusal));
    }

    /// Writes what no worker has answered: at once behind its number, or behind the answers to the requests before it.
    pub(crate) fn answer_without_worker(&mut self, desk: &mut Desk<'_>, asker: Asker, bytes: Bytes) {
        let key = asker.client;
        if let Some(number) = asker.number {
            self.write_numbered(desk, key, number, &bytes);
            return self.keep_bytes_of(State::Answered(bytes));
        }
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if client.owed.count() == 0 {
            // A client that it does not reach has gone, and is counted already.
            let _ = self.write_answer(desk, key, &bytes);
            self.keep_bytes_of(State::Answered(bytes));
        } else if let Err(state) = self.exchanges.open(&mut client.owed, asker, State::Answered(bytes)) {
            drop(state);
            self.close(desk, key);
        }
    }

    /// Writes an answer, and with it the answers behind it that only waited for it; or keeps it until its turn, or
    /// until its client has taken more of the answers before it. An error names the client that is not there any more.
    fn deliver(&mut self, desk: &mut Desk<'_>, id: ClientId, answer: Answer<'_>) -> Result<(), Origin> {
        if let Some((key, number)) = self.number_of(id) {
            self.end_exchange(key, id);
            self.write_numbered(desk, key, number, answer.bytes());
            return Ok(());
        }
        let Some(key) = self.key_of(id) else {
            return Ok(());
        };
        let Some(client) = self.table.get_mut(key) else {
            return Ok(());
        };
        if client.owed.oldest() != Some(Key::from_bits(id.0)) || !client.takes_more() {
            let early = State::Answered(match answer {
                Answer::Of(bytes) => Bytes::Own(self.copy(bytes)),
                Answer::Shared(bytes) => Bytes::Shared(Rc::clone(bytes)),
            });
            if let Some(exchange) = self.exchanges.get_mut(id) {
                let before = std::mem::replace(&mut exchange.state, early);
                self.keep_bytes_of(before);
            }
            return Ok(());
        }
        if let Some(state) = self.exchanges.close_oldest(&mut client.owed) {
            self.keep_bytes_of(state);
        }
        self.write_answer(desk, key, answer.bytes())?;
        self.write_ready_answers(desk, key);
        Ok(())
    }

    /// Writes answers whose turn has come, as many as the client is ready to take.
    fn write_ready_answers(&mut self, desk: &mut Desk<'_>, key: Key) {
        while let Some(client) = self.table.get_mut(key) {
            if !client.takes_more() || !self.exchanges.oldest_is_answered(&client.owed) {
                return;
            }
            if let Some(State::Answered(bytes)) = self.exchanges.close_oldest(&mut client.owed) {
                let _ = self.write_answer(desk, key, &bytes);
                self.keep_bytes_of(State::Answered(bytes));
            }
        }
    }

    /// Writes the last words to a client at once; gathers all others until the end of the turn.
    fn write_answer(&mut self, desk: &mut Desk<'_>, key: Key, bytes: &[u8]) -> Result<(), Origin> {
        let Some(client) = self.table.get_mut(key) else {
            return Ok(());
        };
        if let Phase::Finishing(after) = client.phase
            && client.is_idle()
        {
            return self.write_final(desk, key, bytes, after);
        }
        self.gather(desk, key, &[bytes]);
        Ok(())
    }

    /// Adds these pieces to what is written to a client at the end of the turn.
    pub(super) fn gather(&mut self, desk: &mut Desk<'_>, key: Key, pieces: &[&[u8]]) {
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if client.conn.unwritten() == 0 {
            client.write_by = desk.cx.now() + desk.options.write_timeout;
        }
        client.conn.lend_memory(|| self.spare.take());
        for piece in pieces {
            client.conn.output_mut().extend_from_slice(piece);
        }
        if client.flush == Flush::None {
            client.flush = Flush::ThisTurn;
            self.unflushed.push(key);
        }
    }

    fn write_final(&mut self, desk: &mut Desk<'_>, key: Key, bytes: &[u8], after: After) -> Result<(), Origin> {
        let Some(client) = self.get_mut(key) else {
            return Ok(());
        };
        if client.conn.send(bytes) == Sent::Failed {
            let origin = client.origin.clone();
            self.close(desk, key);
            return Err(origin);
        }
        if client.conn.unwritten() == 0 {
            self.lingering_close(desk, key, after);
        } else {
            client.write_by = desk.cx.now() + desk.options.write_timeout;
            self.touch(key);
        }
        Ok(())
    }

    /// Takes a client out of the list of those whose answers are written at the end of the turn. With `holds_back` a
    /// client that expects more answers is passed over once.
    pub(crate) fn next_unflushed(&mut self, holds_back: bool) -> Option<Key> {
        while let Some(key) = self.unflushed.pop() {
            if let Some(client) = self.table.get_mut(key) {
                if holds_back && client.flush == Flush::ThisTurn && client.expects_more_answers() {
                    client.flush = Flush::NextTurn;
                    self.held_back.push(key);
                    continue;
                }
                client.flush = Flush::None;
            }
            return Some(key);
        }
        None
    }

    /// Writes as much as the client takes, and goes on with it from there.
    pub(crate) fn flush(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        match client.conn.flush() {
            Sent::Nothing => {}
            Sent::Bytes(_) => {
                client.active = desk.cx.now();
                client.write_by = client.active + desk.options.write_timeout;
            }
            Sent::Failed => return self.close(desk, key),
        }
        self.continue_after_write(desk, key);
    }

    /// Goes on with a client that has taken some of its answers.
    fn continue_after_write(&mut self, desk: &mut Desk<'_>, key: Key) {
        self.write_ready_answers(desk, key);
        let Some(client) = self.table.get_mut(key) else {
            return;
        };
        if client.conn.unwritten() == 0 {
            self.spare.keep(client.conn.release_memory());
            if client.has_nothing_open() {
                client.read_by = desk.cx.now() + client.kind.idle_timeout(desk.options);
                if client.phase == Phase::Taking && !desk.front.is_serving() && !client.kind.is_multiplexed() {
                    // A request that it has sent meanwhile is served before the connection is closed.
                    desk.cx.resume_later(PoolSource::Client.at(key));
                }
            }
            if let Phase::Finishing(after) = client.phase
                && client.is_idle()
            {
                return self.lingering_close(desk, key, after);
            }
        }
        if client.phase == Phase::Full && client.has_room() {
            desk.cx.resume_later(PoolSource::Client.at(key));
        }
        self.touch(key);
    }

    /// Closes, while the pool drains, a client that has been read to the end of what it has sent and is owed nothing.
    pub(crate) fn close_if_drained(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        if client.kind.is_multiplexed() {
            self.end_drained(desk, key);
            return;
        }
        if desk.front.is_serving() {
            return;
        }
        if client.phase == Phase::Taking && client.has_nothing_open() {
            client.phase = Phase::Finishing(After::Linger);
            self.lingering_close(desk, key, After::Linger);
        }
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// Closes a connection whose last answer is written: at once where none of the client's input is left unread.
    pub(crate) fn lingering_close(&mut self, desk: &mut Desk<'_>, key: Key, after: After) {
        let Some(client) = self.get_mut(key) else {
            return;
        };
        client.phase = Phase::Lingering;
        let step = client.conn.begin_close(after == After::Linger, LINGER, desk.cx.now());
        self.follow_close(desk, key, step);
    }

    pub(crate) fn continue_lingering_close(&mut self, desk: &mut Desk<'_>, key: Key) {
        if let Some(client) = self.get_mut(key) {
            let step = client.conn.go_on_closing();
            self.follow_close(desk, key, step);
        }
    }

    fn follow_close(&mut self, desk: &mut Desk<'_>, key: Key, step: CloseStep) {
        match step {
            CloseStep::Waiting => self.touch(key),
            CloseStep::MoreLater => self.read_later(&mut desk.cx, key),
            CloseStep::Done => self.close(desk, key),
        }
    }

    /// Handles the alarm of a client. Returns true if the client is overdue with its request: it is to be read from
    /// once more before [`end_overdue`](Self::end_overdue), because what it sent in time may not have been read in one
    /// turn.
    pub(crate) fn handle_alarm(&mut self, cx: &mut Context<'_>, key: Key) -> bool {
        let Some(client) = self.get_mut(key) else {
            return false;
        };
        cx.clear_alarm(&mut client.alarm);
        if client.is_overdue(cx.now()) {
            return client.phase == Phase::Taking && !client.is_overdue_to_read(cx.now());
        }
        self.touch(key);
        false
    }

    /// Ends a connection whose deadline has passed.
    pub(crate) fn end_overdue(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(client) = self.get_mut(key).filter(|client| client.is_overdue(desk.cx.now())) else {
            return;
        };
        let origin = client.origin.clone();
        let (is_kept, has_unfinished_request) = (client.kind.kept().is_some(), client.has_unfinished_request());
        if client.phase == Phase::Lingering {
            return self.close(desk, key);
        }
        if client.is_overdue_to_read(desk.cx.now()) {
            desk.counters.refusals.write_timeout += 1;
            let line = format_args!("closed {origin}: it took nothing of its answer within --write-timeout");
            desk.note(Level::Warn, Topic::WriteTimeout, line);
            return self.close(desk, key);
        }
        if client.kind.is_multiplexed() && self.end_drained(desk, key) {
            return;
        }
        if has_unfinished_request {
            return self.refuse_unfinished(desk, key, Line::TooSlow);
        }
        if is_kept {
            desk.counters.idle_closed += 1;
            let line = format_args!("closed {origin}: it has asked nothing for --idle-timeout, or the pool drains");
            desk.note(Level::Debug, Topic::Idle, line);
            return self.lingering_close(desk, key, After::Linger);
        }
        desk.counters.refusals.read_timeout += 1;
        let line = format_args!("closed {origin}: it sent nothing within --read-timeout");
        desk.note(Level::Info, Topic::ReadTimeout, line);
        if let Some(client) = self.get_mut(key) {
            client.conn.say_end_before_close();
        }
        self.close(desk, key);
    }

    /// Ends a connection. This is the only way out of the table. Its requests are abandoned, except the requests whose
    /// answers other clients wait for.
    pub(crate) fn close(&mut self, desk: &mut Desk<'_>, key: Key) {
        let Some(mut client) = self.table.remove(key) else {
            return;
        };
        desk.cx.set_alarm(&mut client.alarm, PoolSource::Client.at(key), None);
        self.spare.keep(client.input);
        self.spare.keep(client.conn.release_memory());
        drop(client.conn);
        self.multiplexed -= usize::from(client.kind.is_multiplexed());
        while let Some(oldest) = client.owed.oldest() {
            self.abandon(desk, &mut client.owed, ClientId(oldest.to_bits()));
        }
        desk.release_connection(&client.origin);
    }

    /// Takes an exchange, whose answer is not wanted any more, out of the list of its connection. Others may wait for
    /// the same answer; if none does, its request is abandoned.
    pub(super) fn abandon(&mut self, desk: &mut Desk<'_>, owed: &mut Owed, id: ClientId) {
        if self.leave_coalesced(desk, id) {
            return self.exchanges.orphan(owed, id);
        }
        let Some(state) = self.exchanges.close(owed, id) else {
            return;
        };
        // One without a name yet is withdrawn when the dispatcher's decision about it is carried out.
        let named = match &state {
            State::Asked(asked) => asked.request,
            State::Coalesced(_) | State::Answered(_) => None,
        };
        self.keep_bytes_of(state);
        if let Some(request) = named {
            desk.report(Event::Abandoned(request));
        }
    }
}
