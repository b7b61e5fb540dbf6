//! Clients: how a request comes to be complete, and how an answer is got rid of.

use std::time::Instant;

use super::super::client::{Request, State};
use super::super::event::{Action, ClientEvent, ClientId, Refusal, RunId};
use super::{Job, Scheduler};
use crate::doors::run::{RunEvent, RunState};
use crate::doors::waiters::Ticket;

/// The name that is answered with those of all commands, where that is switched on.
const LIST: &[u8] = b"list";

impl Scheduler {
    pub(super) fn asking(
        &mut self,
        id: ClientId,
        request: Request,
        (until, quiet_at): (Instant, Option<Instant>),
        event: ClientEvent,
        now: Instant,
    ) {
        let name = request.name.clone().unwrap_or_default();
        match event {
            ClientEvent::Message(message) => self.take(id, request, until, message, now),
            ClientEvent::Pending => {
                let quiet_at = Some(now + self.timing.quiet);
                self.ask_on(id, request, until, quiet_at);
            }
            ClientEvent::Tick if now >= until => {
                let why = if self.closes { Refusal::Stop } else { Refusal::TooSlow };
                self.turn_down(id, name, why, now);
            }
            ClientEvent::Tick if quiet_at.is_some_and(|at| now >= at) => {
                self.ask_on(id, request, until, None);
                self.actions.push(Action::Complete(id));
            }
            ClientEvent::TooLong => self.turn_down(id, name, Refusal::TooLong, now),
            ClientEvent::Left => match self.wanted(&request) {
                None => self.close(id),
                Some(wanted) => {
                    let come = request.arguments.len();
                    self.turn_down(id, name, Refusal::Missing { wanted, come }, now);
                }
            },
            ClientEvent::Gone => self.close(id),
            // Prompts, which may have been read; early.
            ClientEvent::Full
            | ClientEvent::Standstill
            | ClientEvent::Progress
            | ClientEvent::Flushed
            | ClientEvent::Tick => {
                self.ask_on(id, request, until, quiet_at);
            }
        }
    }

    fn ask_on(&mut self, id: ClientId, request: Request, until: Instant, quiet_at: Option<Instant>) {
        let asking = State::Asking {
            request,
            until,
            quiet_at,
        };
        self.enter(id, asking);
    }

    /// How many arguments the command takes that was asked for.
    fn wanted(&self, request: &Request) -> Option<usize> {
        let rule = self.rules.get(request.name.as_ref()?)?;
        Some(rule.arguments.len())
    }

    /// A name or an argument has come.
    pub(super) fn take(&mut self, id: ClientId, mut request: Request, until: Instant, message: Vec<u8>, now: Instant) {
        let Some(name) = request.name.clone() else {
            return self.take_name(id, message, until, now);
        };
        let Some(rule) = self.rules.get(&name) else {
            // The operator has taken it away meanwhile.
            self.counters.not_found += 1;
            return self.refuse(id, name, Refusal::NotFound, now);
        };
        let number = request.arguments.len();
        let judged = rule
            .arguments
            .get(number)
            .map_or(Ok(()), |argument| argument.check(&message));
        if let Err(why) = judged {
            let number = number + 1;
            return self.turn_down(id, name, Refusal::Argument { number, why }, now);
        }
        request.arguments.push(message);
        self.go_on(id, request, until, now);
    }

    fn take_name(&mut self, id: ClientId, name: Vec<u8>, until: Instant, now: Instant) {
        if self.list && name == LIST {
            self.actions.push(Action::List(id));
            return self.answer(id, now);
        }
        let Some(rule) = self.rules.get(&name) else {
            self.counters.not_found += 1;
            return self.refuse(id, name, Refusal::NotFound, now);
        };
        if rule.queue == 0 && !rule.join && self.load(&name).running >= rule.threads {
            // Whatever its arguments are.
            self.counters.busy += 1;
            return self.refuse(id, name, Refusal::Busy, now);
        }
        let request = Request {
            name: Some(name),
            arguments: Vec::new(),
        };
        self.go_on(id, request, until, now);
    }

    /// Asks for the next argument, or does what was asked for.
    fn go_on(&mut self, id: ClientId, request: Request, until: Instant, now: Instant) {
        let wanted = self.wanted(&request).unwrap_or_default();
        if request.arguments.len() < wanted {
            self.ask_on(id, request, until, None);
            return self.actions.push(Action::Prompt(id));
        }
        self.serve(id, request, now);
    }

    /// A request is complete.
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

    pub(super) fn queued(
        &mut self,
        id: ClientId,
        request: Request,
        (ticket, since, until): (Ticket, Instant, Instant),
        event: ClientEvent,
        now: Instant,
    ) {
        match event {
            ClientEvent::Tick if now >= until => {
                self.forget_waiting(&request, ticket);
                self.counters.busy += 1;
                self.refuse(id, request.name.unwrap_or_default(), Refusal::Busy, now);
            }
            ClientEvent::Gone => {
                self.forget_waiting(&request, ticket);
                self.close(id);
            }
            // What it sends is its program's input; it may half-close; early.
            _ => {
                let stays = State::Queued {
                    request,
                    ticket,
                    since,
                    until,
                };
                self.enter(id, stays);
            }
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
        let stays = State::Following { run, stalled_until };
        match event {
            ClientEvent::Full => {
                let shared = self.jobs.get(&run).is_some_and(|job| job.audience.len() > 1);
                let stalled_until = match stalled_until {
                    None if shared => Some(now + self.timing.write_timeout),
                    until => until.filter(|_| shared),
                };
                self.enter(id, State::Following { run, stalled_until });
            }
            ClientEvent::Progress | ClientEvent::Flushed => {
                self.enter(
                    id,
                    State::Following {
                        run,
                        stalled_until: None,
                    },
                );
            }
            ClientEvent::Tick if stalled_until.is_some_and(|until| now >= until) => {
                self.counters.unread += 1;
                self.actions.push(Action::LeftUnread(id));
                self.desert(id, run, now);
            }
            ClientEvent::Standstill => {
                self.enter(id, stays);
                // One that others share the output with is let go in time, lest they pay for it.
                if self.jobs.get(&run).is_some_and(|job| job.audience.len() == 1) {
                    self.advance_run(run, RunEvent::Standstill, now);
                }
            }
            ClientEvent::Gone => self.desert(id, run, now),
            // Its side has ended, which is its program's to know; early; of what is past.
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
                self.enter(id, State::Parting);
                self.actions.push(Action::Part(id));
            }
            ClientEvent::Progress => self.answer(id, now),
            ClientEvent::Tick if now >= until => {
                self.counters.unread += 1;
                self.actions.push(Action::LeftUnread(id));
                self.close(id);
            }
            ClientEvent::Gone => self.close(id),
            // It may end its side and still read; early; of what is past.
            _ => self.enter(id, State::Answered { until }),
        }
    }

    pub(super) fn enter(&mut self, id: ClientId, state: State) {
        self.clients.insert(id, state);
    }

    /// Everything is said.
    pub(super) fn answer(&mut self, id: ClientId, now: Instant) {
        let until = now + self.timing.write_timeout;
        self.enter(id, State::Answered { until });
    }

    pub(super) fn refuse(&mut self, client: ClientId, name: Vec<u8>, why: Refusal, now: Instant) {
        self.answer(client, now);
        self.actions.push(Action::Refuse { client, name, why });
    }

    /// A refusal for what the client has sent, or has not.
    fn turn_down(&mut self, client: ClientId, name: Vec<u8>, why: Refusal, now: Instant) {
        self.counters.refused += 1;
        self.refuse(client, name, why, now);
    }

    /// What was judged by rules that are past is judged again, as long as no program was started for it.
    pub(super) fn turn_down_outdated(&mut self, now: Instant) {
        let outdated: Vec<_> = self
            .clients
            .iter()
            .filter_map(|(id, state)| Some((*id, self.outdated(state)?)))
            .collect();
        for (id, name) in outdated {
            if let Some(State::Queued { request, ticket, .. }) = self.clients.remove(&id) {
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

    /// The command that was asked for in a way that its rule does not allow any more.
    fn outdated(&self, state: &State) -> Option<Vec<u8>> {
        let (State::Asking { request, .. } | State::Queued { request, .. }) = state else {
            return None;
        };
        let (name, arguments) = (request.name.as_ref()?, &request.arguments);
        let rule = self.rules.get(name)?;
        let fits = match state {
            // It was asked for one more.
            State::Asking { .. } => arguments.len() < rule.arguments.len() && rule.may_begin_with(arguments),
            _ => rule.fits(arguments),
        };
        (!fits).then(|| name.clone())
    }

    pub(super) fn close(&mut self, id: ClientId) {
        self.actions.push(Action::Close(id));
    }
}
