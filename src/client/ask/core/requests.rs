//! The lines in hand: accepted, asked, and ended.
//!
//! [`Asker::enter`] is the only writer of a line's state, and maintains everything that depends on it: the alarm of the
//! line, the number of connections, the load of its address. [`Asker::finish`] is the only end of a line.

use std::time::{Duration, Instant};

use super::addresses::{Choice, HealthChange};
use super::event::{AskAction, AttemptId, Cause, Fault, RequestId};
use super::{Asker, Protocol};
use crate::client::ask::input::Line;
use crate::client::ask::protocol::{self, Question, Reading};
use crate::client::ask::reply;

/// The time that a line rests before its second round; it doubles from round to round.
const FIRST_REST: Duration = Duration::from_millis(25);
/// The number of rests after which the time does not double any more.
const LAST_DOUBLING: u32 = 3;

/// A line in hand.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) question: Question,
    /// The time by which the line is answered in any case.
    pub(super) deadline: Instant,
    /// The time after which no new round begins.
    pub(super) patience: Instant,
    /// The addresses at which the line has failed in this round.
    pub(super) failed: Vec<usize>,
    /// The addresses that must not get the line again, in any round.
    pub(super) spent: Vec<usize>,
    pub(super) rests: u32,
    /// The number of the last attempt.
    pub(super) attempts: u32,
    /// The cause to report if the line were given up now.
    pub(super) cause: Cause,
    pub(super) state: LineState,
    pub(super) id: RequestId,
}

/// The decision about a line that has just been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The line is sent to a pool.
    Asked,
    /// The line is too long for that.
    GivenUp,
    /// The line has a channel-ID where none is expected, or lacks an expected one.
    Contradicted,
}

/// The state of a line, named after the thing that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineState {
    /// Waits for a connection; the line is in the queue.
    Waiting,
    /// Waits until then for the reply of that address.
    Asked { address: usize, until: Instant },
    /// Waits for the next round.
    Resting { until: Instant },
    /// Waits for the lines before it, with its answer.
    Answered(Vec<u8>),
}

impl Request {
    /// Returns the next time at which the line needs attention.
    pub(super) fn alarm(&self) -> Option<Instant> {
        match self.state {
            LineState::Waiting => Some(self.deadline),
            LineState::Asked { until, .. } | LineState::Resting { until } => Some(until.min(self.deadline)),
            LineState::Answered(_) => None,
        }
    }
}

impl Asker {
    pub(super) fn accept(&mut self, line: &Line) {
        let (question, fate) = match (self.protocol.read(line.bytes()), line) {
            (Reading::Question(question), Line::Whole(_)) => (question, Fate::Asked),
            (Reading::Question(question), Line::Cut(_)) => (question, Fate::GivenUp),
            (Reading::Contradiction(channel), _) => {
                let text = Vec::new();
                (Question { channel, text }, Fate::Contradicted)
            }
        };
        let entry = self.requests.vacant_entry();
        let id = RequestId {
            index: entry.key(),
            ticket: self.tickets,
        };
        self.tickets += 1;
        self.counters.lines += 1;
        self.held_bytes += question.text.len() + question.channel.len();
        let deadline = self.now + self.policy.timeout;
        entry.insert(Request {
            question,
            deadline,
            patience: self.now + self.policy.timeout / 2,
            failed: Vec::new(),
            spent: Vec::new(),
            rests: 0,
            attempts: 0,
            cause: match fate {
                Fate::Asked | Fate::Contradicted => Cause::NoConnection,
                Fate::GivenUp => Cause::LineTooLong,
            },
            state: LineState::Waiting,
            id,
        });
        self.alarms.insert((deadline, id));
        if self.protocol != Protocol::Concurrent {
            self.order.push_back(id);
        }
        match fate {
            Fate::Asked => self.waiting.push_back(id),
            Fate::GivenUp => self.give_up(id),
            Fate::Contradicted => {
                self.counters.contradicted += 1;
                self.actions.push_back(AskAction::Contradicted);
                let text = self.policy.on_contradiction.clone();
                self.finish(id, &text);
            }
        }
    }

    pub(super) fn fill_connections(&mut self) {
        while self.in_flight < self.limit {
            let Some(id) = self.waiting.pop_front() else { break };
            if self
                .request(id)
                .is_some_and(|request| request.state == LineState::Waiting)
            {
                self.ask(id);
            }
        }
    }

    /// Sends the line to the next address, or ends the round when all addresses have failed.
    fn ask(&mut self, id: RequestId) {
        let now = self.now;
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let tried = [request.failed.as_slice(), request.spent.as_slice()].concat();
        let Some(choice) = self.addresses.choose(now, &tried) else {
            return self.end_round(id);
        };
        let (Choice::Usual(address) | Choice::Probe(address)) = choice;
        let until = if self.addresses.has_alternative(address, &tried) {
            now + request.deadline.saturating_duration_since(now) / 2
        } else {
            request.deadline
        };
        self.counters.retries += u64::from(request.attempts > 0);
        request.attempts += 1;
        let attempt = AttemptId {
            request: id,
            number: request.attempts,
        };
        if choice == Choice::Probe(address) {
            self.actions.push_back(AskAction::Probe { address });
        }
        self.enter(id, LineState::Asked { address, until });
        self.actions.push_back(AskAction::Connect { attempt, address });
    }

    fn end_round(&mut self, id: RequestId) {
        let long_outage = self
            .addresses
            .all_away_since()
            .is_some_and(|since| self.now.saturating_duration_since(since) > self.policy.timeout);
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let all_spent = request.spent.len() >= self.policy.addresses;
        if all_spent || long_outage || self.now >= request.patience {
            return self.give_up(id);
        }
        request.failed.clear();
        // The last round takes place at the end of the patience, not long after it.
        let patience = request.patience;
        self.rest(id, patience);
    }

    /// Lets the line rest for a time that grows from rest to rest, but not beyond `latest`.
    fn rest(&mut self, id: RequestId, latest: Instant) {
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let until = latest.min(self.now + FIRST_REST * 2u32.pow(request.rests.min(LAST_DOUBLING)));
        request.rests += 1;
        self.enter(id, LineState::Resting { until });
    }

    pub(super) fn take_reply(&mut self, attempt: AttemptId, reply: Vec<u8>) {
        let Some(address) = self.address_of(attempt) else {
            return;
        };
        let Some(request) = self.request(attempt.request) else {
            return;
        };
        let ahead = match request.question.channel.len() {
            0 => 0,
            length => length + 1,
        };
        match reply::result(self.policy.mode, reply, ahead) {
            Err(flaw) => self.fail_attempt(attempt, Fault::Flawed(flaw)),
            Ok(result) => {
                self.limit = self.policy.max_in_flight.min(self.limit + 1);
                if self.addresses.note_answer(address) == HealthChange::Changed {
                    self.actions.push_back(AskAction::Back { address });
                }
                self.counters.answered += 1;
                self.finish(attempt.request, &result);
            }
        }
    }

    pub(super) fn fail_attempt(&mut self, attempt: AttemptId, fault: Fault) {
        let Some(address) = self.address_of(attempt) else {
            return;
        };
        self.note_fault(attempt.request, address, fault);
        let id = attempt.request;
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        if let Fault::Shortage(_) = fault {
            let deadline = request.deadline;
            self.rest(id, deadline);
            self.limit = self.in_flight.max(1);
            return;
        }
        if fault.may_ask_again() {
            request.failed.push(address);
        } else {
            request.spent.push(address);
        }
        // The line has just released its connection, so a place is free.
        self.enter(id, LineState::Waiting);
        self.ask(id);
    }

    fn note_fault(&mut self, id: RequestId, address: usize, fault: Fault) {
        if fault.blames_address() && self.addresses.note_failure(address, self.now) == HealthChange::Changed {
            self.actions.push_back(AskAction::Away { address, fault });
        }
        if let Some(request) = get_mut(&mut self.requests, id) {
            request.cause = Cause::Fault(address, fault);
        }
    }

    pub(super) fn handle_tick(&mut self) {
        while let Some((at, id)) = self.alarms.first().copied() {
            if at > self.now {
                break;
            }
            self.handle_alarm(id);
        }
    }

    fn handle_alarm(&mut self, id: RequestId) {
        let Some(request) = self.request(id) else { return };
        let over = request.deadline <= self.now;
        let attempt = AttemptId {
            request: id,
            number: request.attempts,
        };
        match request.state {
            LineState::Asked { address, .. } => {
                self.actions.push_back(AskAction::Cancel(attempt));
                if over {
                    self.note_fault(id, address, Fault::TimedOut);
                    self.give_up(id);
                } else {
                    self.fail_attempt(attempt, Fault::TimedOut);
                }
            }
            LineState::Waiting | LineState::Resting { .. } if over => self.give_up(id),
            LineState::Resting { .. } => {
                self.enter(id, LineState::Waiting);
                // At the front, because the line has waited for its turn before.
                self.waiting.push_front(id);
            }
            // Not reached: neither state has an alarm that is due.
            LineState::Waiting | LineState::Answered(_) => {}
        }
    }

    fn give_up(&mut self, id: RequestId) {
        let Some(Request { cause, .. }) = self.request(id) else {
            return;
        };
        let cause = *cause;
        self.counters.failed += 1;
        self.counters.last_cause = Some(cause);
        self.actions.push_back(AskAction::GaveUp { cause });
        let text = self.policy.on_failure.clone();
        self.finish(id, &text);
    }

    fn finish(&mut self, id: RequestId, result: &[u8]) {
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let question = std::mem::take(&mut request.question);
        self.held_bytes -= question.text.len() + question.channel.len();
        let line = protocol::answer(&question.channel, result);
        self.held_bytes += line.len();
        self.enter(id, LineState::Answered(line));
        if self.protocol == Protocol::Concurrent {
            return self.write_answer(id);
        }
        let is_answered = |state: &LineState| matches!(state, LineState::Answered(_));
        while let Some(id) = self.order.front().copied()
            && self.request(id).is_some_and(|first| is_answered(&first.state))
        {
            self.write_answer(id);
            self.order.pop_front();
        }
    }

    fn write_answer(&mut self, id: RequestId) {
        if let Some(LineState::Answered(line)) = self.requests.try_remove(id.index).map(|request| request.state) {
            self.held_bytes -= line.len();
            self.actions.push_back(AskAction::Write(line));
        }
    }

    fn enter(&mut self, id: RequestId, state: LineState) {
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let alarm = request.alarm();
        if let LineState::Asked { address, .. } = std::mem::replace(&mut request.state, state) {
            self.addresses.end_attempt(address);
            self.in_flight -= 1;
        }
        if let LineState::Asked { address, .. } = request.state {
            self.addresses.begin_attempt(address);
            self.in_flight += 1;
        }
        let next = request.alarm();
        if alarm != next {
            alarm.map(|at| self.alarms.remove(&(at, id)));
            next.map(|at| self.alarms.insert((at, id)));
        }
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Request> {
        self.requests.get(id.index).filter(|request| request.id == id)
    }

    /// Returns the address of an attempt under way; `None` for an attempt that is over.
    pub(super) fn address_of(&self, attempt: AttemptId) -> Option<usize> {
        let request = self.request(attempt.request)?;
        match request.state {
            LineState::Asked { address, .. } => (request.attempts == attempt.number).then_some(address),
            LineState::Waiting | LineState::Resting { .. } | LineState::Answered(_) => None,
        }
    }
}

/// A free function, so that the caller can use the other fields of the asker while it holds the line.
fn get_mut(requests: &mut slab::Slab<Request>, id: RequestId) -> Option<&mut Request> {
    requests.get_mut(id.index).filter(|request| request.id == id)
}
