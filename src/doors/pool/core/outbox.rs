//! The actions that were decided and that the shell has not fetched yet, in order.

use std::collections::VecDeque;

use super::event::{Action, Assignment, RequestId, WorkerId};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    actions: VecDeque<Action>,
}

impl Outbox {
    pub(super) fn push(&mut self, action: Action) {
        self.actions.push_back(action);
    }

    pub(super) fn pop(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(super) fn len(&self) -> usize {
        self.actions.len()
    }

    /// Returns true if one of the actions after the first `skip` asks for an inspection.
    pub(super) fn has_inspection_after(&self, skip: usize) -> bool {
        let mut actions = self.actions.iter().skip(skip);
        actions.any(|action| matches!(action, Action::Inspect(_)))
    }

    /// Takes back all that was decided about a request. Returns true if its assignment to a worker was among that: not
    /// a byte of it has reached the worker.
    pub(super) fn cancel(&mut self, id: RequestId) -> bool {
        let mut was_assigned = false;
        self.actions.retain(|action| {
            let is_assignment = matches!(action, Action::Assign(Assignment { request, .. }) if *request == id);
            was_assigned |= is_assignment;
            !is_assignment && !matches!(action, Action::Enqueued { request, .. } if *request == id)
        });
        was_assigned
    }

    /// Takes back the assignments to a lost worker and returns their requests.
    pub(super) fn cancel_assignments(&mut self, id: WorkerId) -> Vec<RequestId> {
        let mut cancelled = Vec::new();
        self.actions.retain(|action| {
            let Action::Assign(Assignment { worker, request, .. }) = action else {
                return true;
            };
            let is_of_worker = *worker == id;
            cancelled.extend(is_of_worker.then_some(*request));
            !is_of_worker
        });
        cancelled
    }
}
