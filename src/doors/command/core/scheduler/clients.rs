//! Clients: from their first byte to a complete request, and from the answer to their end.

use std::time::Instant;

use super::super::client::{Asking, ClientState, Queued, Request};
use super::super::event::{Action, ClientEvent, ClientId, Refusal, RunId};
use super::{Job, Scheduler};
use crate::doors::run::{RunEvent, RunState};

/// The name that is answered with the names of all commands, where the operator allows that.
const LIST: &[u8] = b"list";

impl Scheduler {
    pub(super) fn asking(&mut self, id: ClientId, asking: Asking, event: ClientEvent, now: Instant) {
        let name = asking.request.name.clone().unwrap_or_default();
        match event {
            ClientEvent::Message(message) => self.take(id, asking, message, now),
            ClientEvent::Pending => {
                let quiet_at = Some(now + self.timing.quiet);
                self.enter(id, ClientState::Asking(Asking { quiet_at, ..asking }));
            }
            ClientEvent::Tick if now >= asking.until => {
                let why = if self.closes.is_some() {
                    Refusal::Stop
                } else {
                    Refusal::TooSlow
                };
                self.turn_down(id, name, why, now);
            }
            ClientEvent::Tick if asking.quiet_at.is_some_and(|at| now >= at) => {
                self.ask_on(id, asking);
                self.actions.push(Action::Complete(id));
            }
            ClientEvent::TooLong => self.turn_down(id, name, Refusal::TooLong, now),
            ClientEvent::Left => match self.wanted(&asking.request) {
                None => self.close(id),
                Some(wanted) => {
                    let come = asking.request.arguments.len();
                    self.turn_down(id, name, Refusal::Missing { wanted, come }, now);
                }
            },
            ClientEvent::Gone => self.close(id),
            // The client reads prompts, or the tick is early.
            ClientEvent::Full
            | ClientEvent::Standstill
            | ClientEvent::Progress
            | ClientEvent::Flushed
            | ClientEvent::Tick => self.enter(id, ClientState::Asking(asking)),
        }
    }

    /// Waits for the next message, of which nothing has come.
    fn ask_on(&mut self, id: ClientId, asking: Asking) {
        let quiet_at = None;
        self.enter(id, ClientState::Asking(Asking { quiet_at, ..asking }));
    }

    /// The number of arguments that the requested command takes.
    fn wanted(&self, request: &Request) -> Option<usize> {
        let rule = self.rules.get(request.name.as_ref()?)?;
        Some(rule.arguments.len())
    }

    /// Takes a name or an argument.
    fn take(&mut self, id: ClientId, mut asking: Asking, message: Vec<u8>, now: Instant) {
        let Some(name) = asking.request.name.clone() else {
            return self.take_name(id, asking, message, now);
        };
        let Some(rule) = self.rules.get(&name) else {
            // A reload has removed the command.
            self.counters.not_found += 1;
            return self.refuse(id, name, Refusal::NotFound, now);
        };
        let number = asking.request.arguments.len();
        let judged = rule
            .arguments
            .get(number)
            .map_or(Ok(()), |argument| argument.check(&message));
        if let Err(why) = judged {
            let number = number + 1;
            return self.turn_down(id, name, Refusal::Argument { number, why }, now);
        }
        asking.request.arguments.push(message);
        self.go_on(id, asking, now);
    }

    fn take_name(&mut self, id: ClientId, mut asking: Asking, name: Vec<u8>, now: Instant) {
        if self.list && name == LIST {
            self.actions.push(Action::List(id));
            return self.answer(id, now);
        }
        let Some(rule) = self.rules.get(&name) else {
            self.counters.not_found += 1;
            return self.refuse(id, name, Refusal::NotFound, now);
        };
        if rule.queue == 0 && !rule.join && self.load(&name).running >= rule.threads {
            // The request would be refused whatever its arguments are.
            self.counters.busy += 1;
            return self.refuse(id, name, Refusal::Busy, now);
        }
        asking.request.name = Some(name);
        self.go_on(id, asking, now);
    }

    /// Asks for the next argument, or serves the complete request.
    fn go_on(&mut self, id: ClientId, asking: Asking, now: Instant) {
        let wanted = self.wanted(&asking.request).unwrap_or_default();
        if asking.request.arguments.len() < wanted {
            self.ask_on(id, asking);
            return self.actions.push(Action::Prompt(id));
        }
        self.serve(id, asking.request, now);
    }

    /// Serves a complete request.
    fn serve(&mut self, id: ClientId, request: Request, now: Instant) {
        let name = request.name.clone().unwrap_or_default();
        let Some(rule) = self.rules.get(&name) else {
            self.counters.not_found += 1;
            return self.refuse(id, name, Refusal::NotFound, now);
        };
        self.counters.total += 1;
        let (load, queue, until) = (self.load(&name), rule.queue, now + rule.max_wait);
        if load.running < rule.threads && load.waiting == 0 {
            return self.start(id, name, request.arguments);
        }
        if let Some(run) = rule.join.then(|| self.joinable(&name, &request.arguments)).flatten() {
            return self.join(id, run);
        }
        if load.waiting < queue {
            self.counters.queued += 1;
            return self.queue(id, request, (now, until));
        }
        self.counters.busy += 1;
        self.refuse(id, name, Refusal::Busy, now);
    }

    pub(super) fn queued(&mut self, id: ClientId, queued: Queued, event: &ClientEvent, now: Instant) {
        match event {
            ClientEvent::Tick if now >= queued.until => {
                self.forget_waiting(&queued.request, queued.ticket);
                self.counters.busy += 1;
                self.refuse(id, queued.request.name.unwrap_or_default(), Refusal::Busy, now);
            }
            ClientEvent::Gone => {
                self.forget_waiting(&queued.request, queued.ticket);
                self.close(id);
            }
            // The client sends its program's input and may end its side; it was sent prompts alone; the tick is early.
            ClientEvent::Message(_)
            | ClientEvent::Pending
            | ClientEvent::TooLong
            | ClientEvent::Left
            | ClientEvent::Full
            | ClientEvent::Standstill
            | ClientEvent::Progress
            | ClientEvent::Flushed
            | ClientEvent::Tick => self.enter(id, ClientState::Queued(queued)),
        }
    }

    pub(super) fn following(
        &mut self,
        id: ClientId,
        run: RunId,
        stalled_until: Option<Instant>,
        event: ClientEvent,
        now: Instant,
    ) {
        let stays = ClientState::Following { run, stalled_until };
        match event {
            ClientEvent::Full => {
                let shared = self.jobs.get(&run).is_some_and(|job| job.audience.len() > 1);
                let stalled_until = match stalled_until {
                    None if shared => Some(now + self.timing.write_timeout),
                    until => until.filter(|_| shared),
                };
                self.enter(id, ClientState::Following { run, stalled_until });
            }
            ClientEvent::Progress | ClientEvent::Flushed => {
                let stalled_until = None;
                self.enter(id, ClientState::Following { run, stalled_until });
            }
            ClientEvent::Tick if stalled_until.is_some_and(|until| now >= until) => {
                self.counters.unread += 1;
                self.actions.push(Action::LeftUnread(id));
                self.desert(id, run, now);
            }
            ClientEvent::Standstill => {
                self.enter(id, stays);
                // A client that shares the output is closed after the write timeout instead, so that the others keep
                // the program.
                if self.jobs.get(&run).is_some_and(|job| job.audience.len() == 1) {
                    self.advance_run(run, RunEvent::Standstill, now);
                }
            }
            ClientEvent::Gone => self.desert(id, run, now),
            // The shell passes the end of its side on to the program; the request is past; the tick is early.
            ClientEvent::Left
            | ClientEvent::Tick
            | ClientEvent::Message(_)
            | ClientEvent::Pending
            | ClientEvent::TooLong => self.enter(id, stays),
        }
    }

    pub(super) fn answered(&mut self, id: ClientId, until: Instant, event: &ClientEvent, now: Instant) {
        match event {
            ClientEvent::Flushed => {
                self.enter(id, ClientState::Closing);
                self.actions.push(Action::BeginClose(id));
            }
            ClientEvent::Progress => self.answer(id, now),
            ClientEvent::Tick if now >= until => {
                self.counters.unread += 1;
                self.actions.push(Action::LeftUnread(id));
                self.close(id);
            }
            ClientEvent::Gone => self.close(id),
            // A client may end its side and still read; the request is past; the tick is early.
            ClientEvent::Message(_)
            | ClientEvent::Pending
            | ClientEvent::TooLong
            | ClientEvent::Left
            | ClientEvent::Full
            | ClientEvent::Standstill
            | ClientEvent::Tick => self.enter(id, ClientState::Answered { until }),
        }
    }

    pub(super) fn enter(&mut self, id: ClientId, state: ClientState) {
        self.clients.insert(id, state);
    }

    /// Enters the state in which the rest of the answer is sent.
    pub(super) fn answer(&mut self, id: ClientId, now: Instant) {
        let until = now + self.timing.write_timeout;
        self.enter(id, ClientState::Answered { until });
    }

    pub(super) fn refuse(&mut self, client: ClientId, name: Vec<u8>, why: Refusal, now: Instant) {
        self.answer(client, now);
        self.actions.push(Action::Refuse { client, name, why });
    }

    /// Refuses a client for the bytes that it has sent, or has failed to send.
    fn turn_down(&mut self, client: ClientId, name: Vec<u8>, why: Refusal, now: Instant) {
        self.counters.refused += 1;
        self.refuse(client, name, why, now);
    }

    /// Refuses the requests that are not valid by the present rules. Requests whose program was started stay.
    pub(super) fn turn_down_outdated(&mut self, now: Instant) {
        let outdated: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(id, state)| Some((*id, self.outdated(state)?)))
            .collect();
        for (id, name) in outdated {
            if let Some(ClientState::Queued(Queued { request, ticket, .. })) = self.clients.remove(&id) {
                self.forget_waiting(&request, ticket);
            }
            self.turn_down(id, name, Refusal::Changed, now);
        }
        let unfit = |job: &Job| self.rules.get(&job.name).is_some_and(|rule| !rule.fits(&job.arguments));
        let unfit: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.run.state() == RunState::Starting && unfit(job))
            .map(|(id, _)| *id)
            .collect();
        for id in unfit {
            self.advance_run(id, RunEvent::Invalid, now);
        }
    }

    /// Returns the command of a request that its rule does not allow any more.
    fn outdated(&self, state: &ClientState) -> Option<Vec<u8>> {
        let (request, is_complete) = match state {
            ClientState::Asking(Asking { request, .. }) => (request, false),
            ClientState::Queued(Queued { request, .. }) => (request, true),
            ClientState::Following { .. } | ClientState::Answered { .. } | ClientState::Closing => return None,
        };
        let (name, arguments) = (request.name.as_ref()?, &request.arguments);
        let rule = self.rules.get(name)?;
        // A client whose request is not complete was asked for one more argument.
        let fits = match is_complete {
            false => arguments.len() < rule.arguments.len() && rule.may_begin_with(arguments),
            true => rule.fits(arguments),
        };
        (!fits).then(|| name.clone())
    }

    pub(super) fn close(&mut self, id: ClientId) {
        self.actions.push(Action::Close(id));
    }
}
