//! What the pool says to its clients, and how it parts from them: answers and refusals in the order of their requests, what
//! is left unread, the close.
//!
//! The only answer of a connection is written at once. On one that stays, answers are gathered and leave at the end of the
//! turn in one write, however many workers have given them.

use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use log::Level;

use super::Clients;
use super::client::{After, Client, Phase};
use super::exchange::{Bytes, State};
use super::intake::Line;
use super::outgoing::write_some;
use crate::doors::pool::core::{ClientId, Event};
use crate::doors::pool::report::Topic;
use crate::doors::pool::shell::lifecycle::Life;
use crate::doors::pool::shell::{Pool, PoolSource};
use crate::net::origin::Origin;
use crate::net::stream::Unread;
use crate::reactor::{Context, Key, SourceKind};

/// How long, and for how many bytes, a client that has its answer may go on sending.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1024 * 1024;
/// What is thrown away of one client's input in one turn, in system calls.
const DISCARDS_PER_TURN: usize = 4;

/// What a client is told.
#[derive(Debug, Clone, Copy)]
pub(in crate::doors::pool::shell) enum Answer<'b> {
    /// Bytes that are copied where they have to be kept.
    Of(&'b [u8]),
    /// Bytes of which all who have to wait for their turn keep one copy together.
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

impl Pool {
    // ---- answering ---------------------------------------------------------------------------------------------

    pub(in crate::doors::pool::shell) fn answer(
        &mut self,
        cx: &mut Context<'_>,
        id: ClientId,
        reply: Answer<'_>,
        served: Duration,
    ) {
        if let Err(gone) = self.deliver(cx, id, reply) {
            self.dispatcher.counters_mut().answer_was_lost(served);
            let line = format_args!("{gone} hung up before its answer");
            self.note(cx, Level::Debug, Topic::HungUp, line);
        }
    }

    pub(in crate::doors::pool::shell) fn refuse(&mut self, cx: &mut Context<'_>, id: ClientId) {
        if self.has_sessions() {
            return self.refuse_session(cx, id);
        }
        let refusal = std::mem::take(&mut self.options.error_reply);
        // Whom it does not reach has gone, and is counted as refused already.
        let _ = self.deliver(cx, id, Answer::Of(&refusal));
        self.options.error_reply = refusal;
    }

    /// Refuses what has not become a request: behind the answers to those before it.
    pub(in crate::doors::pool::shell) fn send_refusal(&mut self, cx: &mut Context<'_>, key: Key) {
        let refusal = self.clients.copy(&self.options.error_reply);
        self.answer_in_order(cx, key, Bytes::Own(refusal));
    }

    /// Says what no worker has said, behind the answers to what was asked before.
    pub(in crate::doors::pool::shell) fn answer_in_order(&mut self, cx: &mut Context<'_>, key: Key, bytes: Bytes) {
        let Some(client) = self.clients.table.get_mut(key) else {
            return;
        };
        if client.owed.count() == 0 {
            // Whom it does not reach has gone, and is counted already.
            let _ = self.write_answer(cx, key, &bytes);
            self.clients.keep_bytes_of(State::Answered(bytes));
        } else if let Err(state) = self
            .clients
            .exchanges
            .open(&mut client.owed, key, State::Answered(bytes))
        {
            drop(state);
            self.close(cx, key);
        }
    }

    /// An answer has come: it goes out, and with it those behind it that only waited for it; or it is kept until its turn, or
    /// until its client has taken more of those before it. An error names the client that is not there any more.
    fn deliver(&mut self, cx: &mut Context<'_>, id: ClientId, answer: Answer<'_>) -> Result<(), Origin> {
        let Some(key) = self.clients.key_of(id) else {
            return Ok(());
        };
        let Some(client) = self.clients.table.get_mut(key) else {
            return Ok(());
        };
        if client.owed.oldest() != Some(Key::from_bits(id.0)) || !client.takes_more() {
            let early = State::Answered(match answer {
                Answer::Of(bytes) => Bytes::Own(self.clients.copy(bytes)),
                Answer::Shared(bytes) => Bytes::Shared(Rc::clone(bytes)),
            });
            if let Some(exchange) = self.clients.exchanges.get_mut(id) {
                let before = std::mem::replace(&mut exchange.state, early);
                self.clients.keep_bytes_of(before);
            }
            return Ok(());
        }
        if let Some(state) = self.clients.exchanges.close_oldest(&mut client.owed) {
            self.clients.keep_bytes_of(state);
        }
        self.write_answer(cx, key, answer.bytes())?;
        self.write_ready_answers(cx, key);
        Ok(())
    }

    /// Answers whose turn has come, as many as the client is ready to take: what waits may be many times what it is a share of.
    fn write_ready_answers(&mut self, cx: &mut Context<'_>, key: Key) {
        while let Some(client) = self.clients.table.get_mut(key) {
            if !client.takes_more() || !self.clients.exchanges.oldest_is_answered(&client.owed) {
                return;
            }
            if let Some(State::Answered(bytes)) = self.clients.exchanges.close_oldest(&mut client.owed) {
                let _ = self.write_answer(cx, key, &bytes);
                self.clients.keep_bytes_of(State::Answered(bytes));
            }
        }
    }

    /// Writes the last words to a client at once; gathers all others until the end of the turn.
    fn write_answer(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8]) -> Result<(), Origin> {
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        if let Phase::Finishing(after) = client.phase
            && client.is_idle()
        {
            return self.write_final(cx, key, bytes, after);
        }
        self.buffer_answer(cx, key, bytes);
        Ok(())
    }

    fn buffer_answer(&mut self, cx: &Context<'_>, key: Key, bytes: &[u8]) {
        let Clients {
            table,
            spare,
            unflushed,
            ..
        } = &mut self.clients;
        let Some(client) = table.get_mut(key) else { return };
        if client.output.is_empty() {
            client.write_by = cx.now() + self.options.write_timeout;
        }
        client.output.adopt(|| spare.take());
        client.output.push(bytes);
        if client.output.list() {
            unflushed.push(key);
        }
    }

    fn write_final(&mut self, cx: &mut Context<'_>, key: Key, bytes: &[u8], after: After) -> Result<(), Origin> {
        let Some(client) = self.clients.get_mut(key) else {
            return Ok(());
        };
        let written = match write_some(bytes, |bytes| client.stream.write(bytes)) {
            Ok(written) => written,
            Err(_) => {
                let origin = client.origin.clone();
                self.close(cx, key);
                return Err(origin);
            }
        };
        match bytes.get(written..).filter(|unsent| !unsent.is_empty()) {
            None => self.lingering_close(cx, key, after),
            Some(unsent) => {
                client.output.push(unsent);
                client.write_by = cx.now() + self.options.write_timeout;
                self.clients.touch(key);
            }
        }
        Ok(())
    }

    /// Writes what was gathered for all clients in this turn.
    pub(in crate::doors::pool::shell) fn flush_all(&mut self, cx: &mut Context<'_>) {
        while let Some(key) = self.clients.unflushed.pop() {
            if let Some(client) = self.clients.get_mut(key) {
                client.output.unlist();
                self.flush(cx, key);
                self.settle(cx, None);
            }
        }
    }

    /// Writes as much as the client takes, and goes on with it from there.
    pub(in crate::doors::pool::shell) fn flush(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let Client { stream, output, .. } = client;
        match output.write(|bytes| stream.write(bytes)) {
            Ok(0) => {}
            Ok(_) => {
                client.active = cx.now();
                client.write_by = client.active + self.options.write_timeout;
            }
            Err(_) => return self.close(cx, key),
        }
        self.continue_after_write(cx, key);
    }

    /// What follows once a client has taken some of its answers.
    fn continue_after_write(&mut self, cx: &mut Context<'_>, key: Key) {
        self.write_ready_answers(cx, key);
        let idle_until = self.idle_until(cx);
        let limit = self
            .options
            .persistent
            .map_or(1, |persistent| persistent.max_unanswered);
        let drains = self.life != Life::Serving;
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.output.is_empty() {
            let buffer = client.output.release();
            if client.has_nothing_open() {
                client.read_by = idle_until;
                if drains && client.phase == Phase::Taking {
                    // What it has asked meanwhile is served before it is let go.
                    cx.resume_later(PoolSource::Client.at(key));
                }
            }
            let (phase, is_idle) = (client.phase, client.is_idle());
            self.clients.keep_buffer(buffer);
            if let Phase::Finishing(after) = phase
                && is_idle
            {
                return self.lingering_close(cx, key, after);
            }
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.phase == Phase::Full && client.has_room(limit) {
            cx.resume_later(PoolSource::Client.at(key));
        }
        self.clients.touch(key);
    }

    /// While the pool drains, a client that has been read to the end of what it has sent, and is owed nothing, is let go.
    pub(in crate::doors::pool::shell) fn close_if_drained(&mut self, cx: &mut Context<'_>, key: Key) {
        if self.life == Life::Serving {
            return;
        }
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        if client.phase == Phase::Taking && client.has_nothing_open() {
            client.phase = Phase::Finishing(After::Linger);
            self.lingering_close(cx, key, After::Linger);
        }
    }

    // ---- going -------------------------------------------------------------------------------------------------

    /// All is said. The connection is closed, at once where nothing of the client's is left unread.
    pub(in crate::doors::pool::shell) fn lingering_close(&mut self, cx: &mut Context<'_>, key: Key, after: After) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        let unread = match after {
            After::Linger => Ok(Unread::Bytes(0)),
            After::LookForInput => client.stream.discard_unread(),
        };
        match unread {
            Ok(Unread::Bytes(_)) if client.stream.shutdown_write().is_ok() => {
                client.phase = Phase::Lingering {
                    deadline: cx.now() + LINGER,
                    budget: LINGER_BYTES,
                };
                self.continue_lingering_close(cx, key);
            }
            Ok(Unread::Bytes(_) | Unread::None | Unread::End) | Err(_) => self.close(cx, key),
        }
    }

    pub(in crate::doors::pool::shell) fn continue_lingering_close(&mut self, cx: &mut Context<'_>, key: Key) {
        for _ in 0..DISCARDS_PER_TURN {
            let Some(client) = self.clients.get_mut(key) else {
                return;
            };
            let Phase::Lingering { budget, .. } = &mut client.phase else {
                return;
            };
            match client.stream.discard_unread() {
                Ok(Unread::Bytes(count)) if count < *budget => *budget -= count,
                Ok(Unread::None) => return self.clients.touch(key),
                // The end, an error, or a client that never stops.
                Ok(Unread::Bytes(_) | Unread::End) | Err(_) => return self.close(cx, key),
            }
        }
        self.clients.touch(key);
        cx.resume_later(PoolSource::Client.at(key));
    }

    pub(in crate::doors::pool::shell) fn client_timeout(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(client) = self.clients.get_mut(key) else {
            return;
        };
        cx.alarm_fired(&mut client.alarm);
        if !client.is_overdue(cx.now()) {
            return self.clients.touch(key);
        }
        if client.phase == Phase::Taking && client.output.is_empty() {
            // Or has it come in time, and one turn was not enough to hear of everybody?
            self.look_for_input(cx, key);
        }
        let Some(client) = self.clients.get_mut(key).filter(|client| client.is_overdue(cx.now())) else {
            return;
        };
        let origin = client.origin.clone();
        if matches!(client.phase, Phase::Lingering { .. }) {
            return self.close(cx, key);
        }
        if !client.output.is_empty() {
            self.dispatcher.counters_mut().refusals.write_timeout += 1;
            let line = format_args!("closed {origin}: it took nothing of its answer within --write-timeout");
            self.note(cx, Level::Warn, Topic::WriteTimeout, line);
            return self.close(cx, key);
        }
        if !client.input.is_empty() {
            return self.refuse_line(cx, key, Line::TooSlow);
        }
        if self.options.persistent.is_some() {
            self.dispatcher.counters_mut().idle_closed += 1;
            let line = format_args!("closed {origin}: it has asked nothing for --idle-timeout, or the pool drains");
            self.note(cx, Level::Debug, Topic::Idle, line);
            return self.lingering_close(cx, key, After::Linger);
        }
        self.dispatcher.counters_mut().refusals.read_timeout += 1;
        let line = format_args!("closed {origin}: it sent nothing within --read-timeout");
        self.note(cx, Level::Info, Topic::ReadTimeout, line);
        self.close(cx, key);
    }

    /// Ends a connection: the only way out of the table. Nobody waits any more for what it has asked.
    pub(in crate::doors::pool::shell) fn close(&mut self, cx: &mut Context<'_>, key: Key) {
        let Some(mut client) = self.clients.remove(key) else {
            return;
        };
        cx.set_alarm(&mut client.alarm, PoolSource::Client.at(key), None);
        self.clients.keep_buffer(client.input);
        self.clients.keep_buffer(client.output.release());
        drop(client.stream);
        while let Some(oldest) = client.owed.oldest() {
            if self.leave_coalesced(ClientId(oldest.to_bits())) {
                self.clients.exchanges.orphan_oldest(&mut client.owed);
                continue;
            }
            let Some(state) = self.clients.exchanges.close_oldest(&mut client.owed) else {
                break;
            };
            // One without a name yet is withdrawn when the dispatcher's decision about it is carried out.
            let named = match &state {
                State::Asked { request, .. } => *request,
                State::Coalesced(_) | State::Answered(_) => None,
            };
            self.clients.keep_bytes_of(state);
            if let Some(request) = named {
                self.report(Event::Abandoned(request));
            }
        }
        self.descriptor_freed(cx);
    }
}
