//! Queues: the requests that wait because no further program of their command may run.

use std::time::Instant;

use super::super::client::{ClientState, Queued, Request};
use super::super::event::{ClientId, RunId};
use super::{Line, Scheduler};
use crate::doors::waiters::Ticket;

impl Scheduler {
    /// Adds a request to the queue of its command.
    pub(super) fn queue(&mut self, id: ClientId, request: Request, (since, until): (Instant, Instant)) {
        let name = request.name.clone().unwrap_or_default();
        let line = self.lines.entry(name).or_default();
        let ticket = line.queue.push(id);
        // Kept also where runs are not shared: a reload may change that.
        let alike = line.alike.entry(request.arguments.clone()).or_default();
        alike.insert(ticket);
        let queued = Queued {
            request,
            ticket,
            since,
            until,
        };
        self.enter(id, ClientState::Queued(queued));
    }

    /// The time since which the first request of a queue waits.
    pub fn waiting_since(&self, name: &[u8]) -> Option<Instant> {
        let first = self.lines.get(name)?.queue.iter().next()?;
        match self.clients.get(first)? {
            ClientState::Queued(queued) => Some(queued.since),
            ClientState::Asking(_)
            | ClientState::Following { .. }
            | ClientState::Answered { .. }
            | ClientState::Closing => None,
        }
    }

    /// Serves the requests that have waited longest, while one more program may run. Must be called when a run is over
    /// or the rules change.
    pub(super) fn serve_queue(&mut self, name: &[u8]) {
        let Some(rule) = self.rules.get(name) else {
            return self.tidy(name);
        };
        let (threads, join) = (rule.threads, rule.join);
        while self.load(name).running < threads {
            let next = self.lines.get_mut(name).and_then(|line| line.queue.pop());
            let Some(id) = next else { break };
            let Some(ClientState::Queued(Queued { request, ticket, .. })) = self.clients.remove(&id) else {
                continue;
            };
            if let Some(line) = self.lines.get_mut(name) {
                line.tell_apart(ticket, &request.arguments);
            }
            self.start(id, name.to_vec(), request.arguments.clone());
            if join {
                self.join_from_queue(name, &request.arguments);
            }
        }
        self.tidy(name);
    }

    /// Lets the requests that equal the one just started share its run.
    fn join_from_queue(&mut self, name: &[u8], arguments: &[Vec<u8>]) {
        let Some(run) = self.joinable(name, arguments) else {
            return;
        };
        let Some(line) = self.lines.get_mut(name) else { return };
        let alike = line.alike.remove(arguments).unwrap_or_default();
        let waiting: Vec<_> = alike
            .into_iter()
            .filter_map(|ticket| line.queue.remove(ticket))
            .collect();
        for id in waiting {
            self.join(id, run);
        }
    }

    /// Takes all clients out of the queue of a command.
    pub(super) fn leave_queue(&mut self, name: &[u8]) -> Vec<ClientId> {
        let Some(line) = self.lines.get_mut(name) else {
            return Vec::new();
        };
        line.alike.clear();
        line.queue.take_all().collect()
    }

    /// Takes one request out of its queue.
    pub(super) fn forget_waiting(&mut self, request: &Request, ticket: Ticket) {
        let name = request.name.as_deref().unwrap_or_default();
        if let Some(line) = self.lines.get_mut(name) {
            line.queue.remove(ticket);
            line.tell_apart(ticket, &request.arguments);
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

impl Line {
    /// Removes a request from the index by arguments.
    fn tell_apart(&mut self, ticket: Ticket, arguments: &[Vec<u8>]) {
        if let Some(alike) = self.alike.get_mut(arguments) {
            alike.remove(&ticket);
            if alike.is_empty() {
                self.alike.remove(arguments);
            }
        }
    }

    /// Removes a run that is over from the index of runs that may be joined.
    pub(super) fn unshare(&mut self, run: RunId, arguments: &[Vec<u8>]) {
        if let Some(runs) = self.shared.get_mut(arguments) {
            runs.remove(&run);
            if runs.is_empty() {
                self.shared.remove(arguments);
            }
        }
    }

    /// Empties the queue.
    pub(super) fn forget_queue(&mut self) {
        self.queue.take_all().for_each(drop);
        self.alike.clear();
    }
}
