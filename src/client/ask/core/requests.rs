//! The lines in hand: accepted, asked, and ended.
//!
//! [`Asker::enter`] is the only writer of a line's state, and maintains everything that depends on it: the alarm of the
//! line, the number of lines with a connection of their own, the load of its address. [`Asker::finish`] is the only end
//! of a line.

use std::time::{Duration, Instant};

use super::addresses::{Choice, HealthChange};
use super::event::{AskAction, AttemptId, Cause, ConnectionId, Fault, RequestId};
use super::room::{self, Urgency};
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
    /// True if the line was sent to a pool.
    pub(super) was_sent: bool,
    /// True if a connection has ended in good order before the line was answered. The next such end is a failure.
    was_cut_off: bool,
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
    /// Waits for an address with room; the line is in one of the queues.
    Waiting,
    /// Waits until then for the reply of that address.
    Asked { address: usize, until: Instant, via: Via },
    /// Waits for the next round.
    Resting { until: Instant },
    /// Waits for the lines before it, with its answer.
    Answered(Vec<u8>),
}

/// The way of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    /// It has a connection of its own.
    Single,
    /// It waits for that connection to open, and has not been sent.
    Held(ConnectionId),
    /// It was sent behind that number.
    Shared { connection: ConnectionId, number: u32 },
}

/// The result of an effort to ask a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placement {
    /// No address that may get the line has room; the line stays in its queue.
    Full,
    /// The line is asked, rests or is over.
    Done,
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
            was_sent: false,
            was_cut_off: false,
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

    /// Asks the lines that wait, as far as there is room. Lines that have failed before come first, and may exceed the
    /// capacity of an address: they have been in the queue before, and their number is bounded by that of all lines.
    pub(super) fn ask_waiting(&mut self) {
        while let Some(id) = self.retries.front().copied() {
            if self.is_waiting(id) && self.ask(id, Urgency::Again) == Placement::Full {
                break;
            }
            self.retries.pop_front();
        }
        while let Some(id) = self.waiting.front().copied() {
            if self.is_waiting(id) && self.ask(id, Urgency::First) == Placement::Full {
                break;
            }
            self.waiting.pop_front();
        }
    }

    pub(super) fn is_waiting(&self, id: RequestId) -> bool {
        self.request(id)
            .is_some_and(|request| request.state == LineState::Waiting)
    }

    /// Sends the line to the next address, or ends the round when all addresses have failed.
    fn ask(&mut self, id: RequestId, urgency: Urgency) -> Placement {
        let Some((choice, tried)) = self.choose(id, urgency) else {
            return Placement::Done;
        };
        let address = match choice {
            Choice::Usual(address) => address,
            Choice::Probe(address) => {
                self.actions.push_back(AskAction::Probe { address });
                address
            }
            Choice::Full => return Placement::Full,
            Choice::None => {
                self.end_round(id);
                return Placement::Done;
            }
        };
        let (now, has_alternative) = (self.now, self.addresses.has_alternative(address, &tried));
        let Some(request) = self.request_mut(id) else {
            return Placement::Done;
        };
        request.attempts += 1;
        let attempt = AttemptId {
            request: id,
            number: request.attempts,
        };
        let until = if has_alternative {
            now + request.deadline.saturating_duration_since(now) / 2
        } else {
            request.deadline
        };
        let via = self.begin(attempt, address);
        self.enter(id, LineState::Asked { address, until, via });
        Placement::Done
    }

    /// Chooses the address for a line, and returns the addresses at which it has failed.
    fn choose(&mut self, id: RequestId, urgency: Urgency) -> Option<(Choice, Vec<usize>)> {
        let request = get(&self.requests, id)?;
        let tried = [request.failed.as_slice(), request.spent.as_slice()].concat();
        let has_room = room::test(&self.links, urgency, self.limit, self.singles);
        let choice = self.addresses.choose(self.now, &tried, &has_room);
        Some((choice, tried))
    }

    fn end_round(&mut self, id: RequestId) {
        let long_outage = self.is_long_outage();
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

    pub(super) fn take_reply(&mut self, attempt: AttemptId, reply: &[u8]) {
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
                self.limit = self.policy.max_singles.min(self.limit + 1);
                if self.addresses.note_answer(address) == HealthChange::Changed {
                    self.actions.push_back(AskAction::Back { address });
                    self.links.note_back(address, self.now);
                }
                self.counters.answered += 1;
                self.finish(attempt.request, result);
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
            self.limit = self.singles.max(1);
            return;
        }
        let is_first_end = fault == Fault::Ended && !std::mem::replace(&mut request.was_cut_off, true);
        if !fault.may_ask_again() {
            request.spent.push(address);
        } else if !is_first_end {
            request.failed.push(address);
        }
        self.wait_again(id);
    }

    /// Puts a line that has been asked, or has rested, back into the queue.
    pub(super) fn wait_again(&mut self, id: RequestId) {
        self.enter(id, LineState::Waiting);
        self.retries.push_back(id);
    }

    fn note_fault(&mut self, id: RequestId, address: usize, fault: Fault) {
        if fault.blames_address() && self.addresses.note_failure(address, self.now) == HealthChange::Changed {
            self.actions.push_back(AskAction::Away { address, fault });
        }
        if let Some(request) = self.request_mut(id) {
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
            LineState::Asked { address, via, .. } => {
                let aftermath = self.cancel(attempt, via);
                if over {
                    self.note_fault(id, address, Fault::TimedOut);
                    self.give_up(id);
                } else {
                    self.fail_attempt(attempt, Fault::TimedOut);
                }
                self.settle(aftermath);
            }
            LineState::Waiting | LineState::Resting { .. } if over => self.give_up(id),
            LineState::Resting { .. } => self.wait_again(id),
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

    pub(super) fn enter(&mut self, id: RequestId, state: LineState) {
        let Some(request) = get_mut(&mut self.requests, id) else {
            return;
        };
        let alarm = request.alarm();
        if let LineState::Asked { address, via, .. } = std::mem::replace(&mut request.state, state) {
            self.addresses.end_attempt(address);
            self.singles -= usize::from(via == Via::Single);
        }
        if let LineState::Asked { address, via, .. } = request.state {
            self.addresses.begin_attempt(address);
            self.singles += usize::from(via == Via::Single);
        }
        let next = request.alarm();
        if alarm != next {
            alarm.map(|at| self.alarms.remove(&(at, id)));
            next.map(|at| self.alarms.insert((at, id)));
        }
    }

    /// Notes that an attempt which waited for a connection was sent.
    pub(super) fn note_sent(&mut self, attempt: AttemptId, sent: Via) {
        if let Some(request) = self.request_mut(attempt.request)
            && let LineState::Asked { via, .. } = &mut request.state
        {
            debug_assert!(matches!(via, Via::Held(_)), "it was sent before");
            *via = sent;
        }
    }

    pub(super) fn request(&self, id: RequestId) -> Option<&Request> {
        get(&self.requests, id)
    }

    pub(super) fn request_mut(&mut self, id: RequestId) -> Option<&mut Request> {
        get_mut(&mut self.requests, id)
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
fn get(requests: &slab::Slab<Request>, id: RequestId) -> Option<&Request> {
    requests.get(id.index).filter(|request| request.id == id)
}

/// See [`get`].
fn get_mut(requests: &mut slab::Slab<Request>, id: RequestId) -> Option<&mut Request> {
    requests.get_mut(id.index).filter(|request| request.id == id)
}
