//! The attempts of the asker on their ways: each on a connection of its own, or many on one connection.
//!
//! [`Links`](super::links::Links) decides which of the two it is. An attempt that waits for a connection to open has
//! not been sent anywhere: if the other side turns out not to know the protocol, its line is given back, and is asked
//! again as if nothing had happened. The lines of a connection that breaks or ends have failed, and are asked again
//! like all that fail; an end in good order is not the fault of the address.

use super::Asker;
use super::event::{AskAction, AttemptId, ConnectionId, Fault, Refusal};
use super::links::{Phase, Route, Sign};
use super::requests::Via;
use crate::client::ask::reply::Flaw;
use crate::framing::multiplex::{ServerLine, Welcome};

/// The attempts that a time-out has affected besides its own.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Attempts that were under way on a connection that was closed.
    lost: Vec<AttemptId>,
    /// Attempts that have not been sent.
    unsent: Vec<AttemptId>,
}

impl Asker {
    /// Sends an attempt on its way.
    pub(super) fn begin(&mut self, attempt: AttemptId, address: usize) -> Via {
        match self.links.route(address, self.now, &mut self.actions) {
            Route::Single => {
                self.count_sent(attempt);
                self.actions.push_back(AskAction::Connect { attempt, address });
                Via::Single
            }
            Route::Hold(connection) => {
                self.links.hold(connection, attempt);
                Via::Held(connection)
            }
            Route::Shared(connection) => self.send(connection, attempt),
        }
    }

    fn send(&mut self, connection: ConnectionId, attempt: AttemptId) -> Via {
        self.count_sent(attempt);
        let number = self.links.send(connection, attempt, self.now, &mut self.actions);
        // Not reached without a number: the connection is open.
        let number = number.unwrap_or_default();
        Via::Shared { connection, number }
    }

    fn count_sent(&mut self, attempt: AttemptId) {
        if let Some(request) = self.request_mut(attempt.request) {
            let is_retry = std::mem::replace(&mut request.was_sent, true);
            self.counters.retries += u64::from(is_retry);
        }
    }

    /// Takes back an attempt whose time is over. The attempts that this affects must be passed to
    /// [`settle`](Self::settle) afterwards.
    pub(super) fn cancel(&mut self, attempt: AttemptId, via: Via) -> Aftermath {
        match via {
            Via::Single => self.actions.push_back(AskAction::Cancel(attempt)),
            Via::Held(connection) => {
                if let Some(slow) = self.links.release(connection, attempt, self.now) {
                    let unsent = self.reset(slow);
                    return Aftermath {
                        unsent,
                        ..Aftermath::default()
                    };
                }
            }
            Via::Shared { connection, number } => {
                if self.links.abandon(connection, number, &mut self.actions) == Sign::Silent {
                    let lost = self.reset(connection);
                    return Aftermath {
                        lost,
                        ..Aftermath::default()
                    };
                }
            }
        }
        Aftermath::default()
    }

    /// Goes on with the attempts that a time-out has affected besides its own.
    pub(super) fn settle(&mut self, aftermath: Aftermath) {
        self.fail_all(aftermath.lost, Fault::Ended);
        self.give_back(aftermath.unsent);
    }

    /// Resets a connection and returns the attempts that waited for it or were under way on it.
    fn reset(&mut self, id: ConnectionId) -> Vec<AttemptId> {
        self.actions.push_back(AskAction::Reset { connection: id });
        self.forget(id)
    }

    fn forget(&mut self, id: ConnectionId) -> Vec<AttemptId> {
        let Some(connection) = self.links.remove(id) else {
            return Vec::new();
        };
        let sent = connection.lines().into_iter().flat_map(|lines| lines.attempts());
        connection.held().iter().copied().chain(sent).collect()
    }

    fn fail_all(&mut self, attempts: Vec<AttemptId>, fault: Fault) {
        for attempt in attempts {
            self.fail_attempt(attempt, fault);
        }
    }

    /// Puts lines that were sent nowhere back into the queue.
    fn give_back(&mut self, attempts: Vec<AttemptId>) {
        for attempt in attempts {
            if let Some(address) = self.address_of(attempt) {
                self.addresses.note_unsent(address, self.now);
                self.wait_again(attempt.request);
            }
        }
    }

    // ---- events of connections ---------------------------------------------------------------------------------

    pub(super) fn note_connected(&mut self, id: ConnectionId) {
        self.links.note_connected(id, self.now);
    }

    /// Processes a line from a pool, with its LF. The lines of a connection that is closed already are ignored.
    pub(super) fn take_line(&mut self, id: ConnectionId, line: &[u8]) {
        match self.links.get(id).map(|connection| &connection.phase) {
            None => {}
            Some(Phase::Connecting { .. } | Phase::Greeting { .. }) => match Welcome::parse(line) {
                Some(welcome) => self.welcome(id, welcome),
                None => self.fall_back(id, Refusal::Answered),
            },
            Some(Phase::Open { .. } | Phase::Retiring { .. }) => match ServerLine::parse(line) {
                ServerLine::Answer { number, prefix } => {
                    let text = line.get(prefix..).unwrap_or_default();
                    self.take_answer(id, number, Ok(text.strip_suffix(b"\n").unwrap_or(text)));
                }
                ServerLine::Drain => {
                    self.links.note_sign(id, self.now);
                    self.links.retire(id, &mut self.actions);
                }
                ServerLine::Announcement => self.links.note_sign(id, self.now),
                ServerLine::Unknown => self.break_off(id),
            },
        }
    }

    /// Processes the beginning of a line that is too long for a reply.
    pub(super) fn take_overlong(&mut self, id: ConnectionId, beginning: &[u8]) {
        match self.links.get(id).map(|connection| &connection.phase) {
            None => {}
            Some(Phase::Connecting { .. } | Phase::Greeting { .. }) => self.fall_back(id, Refusal::Answered),
            Some(Phase::Open { .. } | Phase::Retiring { .. }) => match ServerLine::parse(beginning) {
                ServerLine::Answer { number, .. } => self.take_answer(id, number, Err(Flaw::TooLong)),
                ServerLine::Drain | ServerLine::Announcement | ServerLine::Unknown => self.break_off(id),
            },
        }
    }

    fn take_answer(&mut self, id: ConnectionId, number: u32, reply: Result<&[u8], Flaw>) {
        if let Some(attempt) = self.links.take_answered(id, number, self.now, &mut self.actions) {
            match reply {
                Ok(reply) => self.take_reply(attempt, reply),
                Err(flaw) => self.fail_attempt(attempt, Fault::Flawed(flaw)),
            }
        }
    }

    fn welcome(&mut self, id: ConnectionId, welcome: Welcome) {
        for attempt in self.links.welcome(id, welcome, self.now, &mut self.actions) {
            if self.address_of(attempt).is_some() {
                let via = self.send(id, attempt);
                self.note_sent(attempt, via);
            }
        }
    }

    /// Gives up a connection on which something came that has no place there.
    fn break_off(&mut self, id: ConnectionId) {
        let lost = self.reset(id);
        self.fail_all(lost, Fault::Garbled);
    }

    /// Gives up a connection whose other side does not know the protocol.
    fn fall_back(&mut self, id: ConnectionId, why: Refusal) {
        self.actions.push_back(AskAction::Reset { connection: id });
        self.fall_back_from_closed(id, why);
    }

    fn fall_back_from_closed(&mut self, id: ConnectionId, why: Refusal) {
        if let Some(address) = self.links.get(id).map(|connection| connection.address) {
            let unsent = self.forget(id);
            self.links.refuse(address, why, self.now, &mut self.actions);
            self.give_back(unsent);
        }
    }

    pub(super) fn note_closed(&mut self, id: ConnectionId, fault: Fault) {
        let fault = match self.links.get(id).map(|connection| &connection.phase) {
            None => return,
            Some(Phase::Connecting { .. }) => fault,
            // With TLS 1.3, the server judges this side's certificate when the connection is established already.
            Some(Phase::Greeting { .. }) if matches!(fault, Fault::Tls | Fault::Disagreed) => fault,
            Some(Phase::Greeting { .. }) => return self.fall_back_from_closed(id, Refusal::Ended),
            Some(Phase::Retiring { .. }) => Fault::Ended,
            // A pool that has answered may end at any time. One that never did is not asked again and again.
            Some(Phase::Open { lines, .. }) if lines.has_answered() && fault == Fault::Flawed(Flaw::Empty) => {
                Fault::Ended
            }
            Some(Phase::Open { .. }) => fault,
        };
        let lost = self.forget(id);
        self.fail_all(lost, fault);
    }

    /// Handles the connections whose deadlines have come.
    pub(super) fn handle_due_connections(&mut self) {
        while let Some(connection) = self.links.due(self.now) {
            let id = connection.id;
            match connection.phase {
                Phase::Greeting { .. } => self.fall_back(id, Refusal::Silent),
                Phase::Open { .. } => self.links.retire(id, &mut self.actions),
                // Not reached: neither phase has a deadline.
                Phase::Connecting { .. } | Phase::Retiring { .. } => return,
            }
        }
    }
}
