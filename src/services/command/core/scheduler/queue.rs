//! Queues: who waits for a command of which as many run as may.

use std::collections::VecDeque;

use super::super::client::State;
use super::super::event::ClientId;
use super::{Line, Scheduler};

impl Scheduler {
    /// Serves who waits longest, while one more may run. Lets go of a line that is empty.
    pub(super) fn serve_queue(&mut self, name: &[u8]) {
        let Some(rule) = self.rules.get(name) else {
            return self.tidy(name);
        };
        let (threads, join) = (rule.threads, rule.join);
        while self.load(name).running < threads {
            let next = self.lines.get_mut(name).and_then(|line| line.queue.pop_front());
            let Some(id) = next else { break };
            let Some(State::Queued { request, .. }) = self.clients.remove(&id) else {
                continue;
            };
            self.start(id, name.to_vec(), request.arguments.clone());
            if join {
                self.join_from_queue(name, &request.arguments);
            }
        }
        self.tidy(name);
    }

    /// Those who wait for the same as what has just been started share it.
    fn join_from_queue(&mut self, name: &[u8], arguments: &[Vec<u8>]) {
        let Some(run) = self.to_join(name, arguments) else {
            return;
        };
        let waiting = self.leave_queue(name);
        for id in waiting {
            let same = match self.clients.get(&id) {
                Some(State::Queued { request, .. }) => request.arguments == arguments,
                _ => false,
            };
            if same {
                self.join(id, run);
            } else if let Some(line) = self.lines.get_mut(name) {
                line.queue.push_back(id);
            }
        }
    }

    pub(super) fn leave_queue(&mut self, name: &[u8]) -> VecDeque<ClientId> {
        let line = self.lines.get_mut(name);
        line.map(|line| std::mem::take(&mut line.queue)).unwrap_or_default()
    }

    pub(super) fn forget_waiting(&mut self, name: &[u8], id: ClientId) {
        if let Some(line) = self.lines.get_mut(name) {
            line.queue.retain(|other| *other != id);
        }
        self.tidy(name);
    }

    fn tidy(&mut self, name: &[u8]) {
        let empty = |line: &Line| line.running == 0 && line.queue.is_empty();
        if self.lines.get(name).is_some_and(empty) {
            self.lines.remove(name);
        }
    }
}
