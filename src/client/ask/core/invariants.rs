//! The invariants of the core, as assertions: in debug builds after every event, in both directions.

use super::Asker;
#[cfg(debug_assertions)]
use super::requests::LineState;

impl Asker {
    #[cfg(not(debug_assertions))]
    pub(super) fn check_invariants(&self) {}

    #[cfg(debug_assertions)]
    pub(super) fn check_invariants(&self) {
        self.check_connections();
        self.check_alarms();
        self.check_queue();
        self.check_counters();
    }

    #[cfg(debug_assertions)]
    fn check_connections(&self) {
        let asked = |request: &&super::Request| matches!(request.state, LineState::Asked { .. });
        let in_flight = self.requests.iter().map(|(_, request)| request).filter(asked).count();
        assert_eq!(in_flight, self.in_flight, "the number of connections");
        assert_eq!(
            in_flight,
            self.addresses.outstanding().sum::<usize>(),
            "each is at one address"
        );
        assert!(in_flight <= self.policy.max_in_flight, "more connections than allowed");
        assert!(self.limit >= 1 && self.limit <= self.policy.max_in_flight);
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
        let is_waiting = |id: &&super::RequestId| self.request(**id).is_some_and(|it| it.state == LineState::Waiting);
        let queued = self.waiting.iter().filter(is_waiting).count();
        let waiting = self
            .requests
            .iter()
            .filter(|(_, it)| it.state == LineState::Waiting)
            .count();
        assert_eq!(queued, waiting, "each waiting line is in the queue, once");
        assert!(
            waiting == 0 || self.in_flight >= self.limit,
            "a line waits though it could be asked"
        );
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
