//! The invariants of the core, as assertions: in debug builds after every event, in both directions.

use super::Asker;
#[cfg(debug_assertions)]
use super::addresses::Choice;
#[cfg(debug_assertions)]
use super::requests::{LineState, Via};
#[cfg(debug_assertions)]
use super::room::{self, Urgency};

/// The number of lines in hand above which only some events are followed by the checks, whose time is in proportion to
/// the lines.
#[cfg(debug_assertions)]
const MANY: usize = 100;

impl Asker {
    #[cfg(not(debug_assertions))]
    pub(super) fn check_invariants(&self) {}

    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self) {
        if self.requests.len() > MANY && !self.tickets.is_multiple_of(MANY as u64) {
            return;
        }
        self.check_attempts();
        self.check_alarms();
        self.check_queue();
        self.check_counters();
    }

    #[cfg(debug_assertions)]
    fn check_attempts(&self) {
        let (mut asked, mut singles, mut carried) = (0, 0, 0);
        for (_, request) in &self.requests {
            let LineState::Asked { via, .. } = request.state else {
                continue;
            };
            let attempt = super::AttemptId {
                request: request.id,
                number: request.attempts,
            };
            asked += 1;
            match via {
                Via::Single => singles += 1,
                Via::Held(id) => {
                    let held = self.links.get(id).map_or(0, |connection| {
                        connection.held().iter().filter(|other| **other == attempt).count()
                    });
                    assert_eq!(held, 1, "{attempt:?} waits for {id:?}");
                    carried += 1;
                }
                Via::Shared { connection, number } => {
                    let lines = self.links.get(connection).and_then(|connection| connection.lines());
                    let is_there = lines.is_some_and(|lines| lines.get(number) == Some(attempt));
                    assert!(is_there, "{attempt:?} is under way on {connection:?}");
                    carried += 1;
                }
            }
        }
        assert_eq!(
            singles, self.singles,
            "the number of lines with a connection of their own"
        );
        assert!(singles <= self.policy.max_singles, "more connections than allowed");
        assert!(self.limit >= 1 && self.limit <= self.policy.max_singles);
        assert_eq!(
            asked,
            self.addresses.outstanding().sum::<usize>(),
            "each is at one address"
        );
        let known = |connection: &super::links::Connection| {
            connection.held().len() + connection.lines().map_or(0, |lines| lines.len())
        };
        assert_eq!(
            carried,
            self.links.all().map(known).sum::<usize>(),
            "a line that has no place"
        );
    }

    #[cfg(debug_assertions)]
    fn check_alarms(&self) {
        let alarms = self
            .requests
            .iter()
            .filter_map(|(_, request)| request.alarm().map(|at| (at, request.id)));
        assert_eq!(alarms.clone().count(), self.alarms.len(), "an alarm without a line");
        for alarm in alarms {
            assert!(self.alarms.contains(&alarm), "the alarm {alarm:?} is not set");
        }
    }

    #[cfg(debug_assertions)]
    fn check_queue(&self) {
        let queued = |queue: &std::collections::VecDeque<super::RequestId>| {
            queue.iter().filter(|id| self.is_waiting(**id)).count()
        };
        let waiting = self
            .requests
            .iter()
            .filter(|(_, it)| it.state == LineState::Waiting)
            .count();
        assert_eq!(
            queued(&self.waiting) + queued(&self.retries),
            waiting,
            "each waiting line is in a queue, once"
        );
        for (queue, urgency) in [(&self.retries, Urgency::Again), (&self.waiting, Urgency::First)] {
            if let Some(request) = queue.front().and_then(|id| self.request(*id)) {
                let tried = [request.failed.as_slice(), request.spent.as_slice()].concat();
                let has_room = room::test(&self.links, urgency, self.limit, self.singles);
                let choice = self.addresses.find(&tried, &has_room);
                assert_eq!(choice, Choice::Full, "a line waits though it could be asked");
            }
        }
        if let Some(first) = self.order.front().and_then(|id| self.request(*id)) {
            assert!(
                !matches!(first.state, LineState::Answered(_)),
                "the first answer is never held back"
            );
        }
    }

    #[cfg(debug_assertions)]
    fn check_counters(&self) {
        let answered = self
            .requests
            .iter()
            .filter(|(_, it)| matches!(it.state, LineState::Answered(_)))
            .count();
        let unanswered = (self.requests.len() - answered) as u64;
        let counters = &self.counters;
        assert_eq!(
            counters.lines,
            counters.answered + counters.failed + counters.contradicted + unanswered
        );
        let held = |request: &super::Request| match &request.state {
            LineState::Answered(line) => line.len(),
            LineState::Waiting | LineState::Asked { .. } | LineState::Resting { .. } => {
                request.question.text.len() + request.question.channel.len()
            }
        };
        let bytes: usize = self.requests.iter().map(|(_, request)| held(request)).sum();
        assert_eq!(bytes, self.held_bytes, "bytes in hand");
    }
}
