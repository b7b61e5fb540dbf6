//! The dispatcher under any series of events.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Choices;
use iotcpd::internals::pool::core::{
    Action, AfterReply, Assignment, ChannelId, ClientId, Completion, Dispatcher, Event, Fault, Inspection, ProbeResult,
    RefusedRequest, ReplyTo, RequestId, StopMode, WorkerId,
};
use iotcpd::internals::pool::options::{Mode, Policy, PoolSize};

/// `Dispatcher`: a few bytes are the policy, the rest decides each event, its worker and its request: also workers and
/// requests that are gone, and states in which the event does not happen, for every pair of state and event is decided.
/// The dispatcher's own invariants are checked after each event. Checked here is that an answer comes from the worker
/// that has the request, that every request ends once, and that nothing is left in the end. (`tests/sim/pool.rs` has a
/// model that holds the promises.)
pub fn fuzz_dispatcher(input: &[u8]) {
    let mut world = World::new(Choices::new(input));
    world.act();
    while !world.choices.is_empty() {
        world.step();
    }
    world.tell(Event::Shutdown(StopMode::EndInput));
    while let Some((worker, _)) = world.processes.first_key_value() {
        let worker = *worker;
        world.exit(worker);
    }
    assert!(
        world.clients.is_empty(),
        "every waiting client was refused: {:?}",
        world.clients
    );
    assert!(world.dispatcher.is_finished(), "no worker is forgotten");
}

struct World<'i> {
    choices: Choices<'i>,
    now: Instant,
    policy: Policy,
    dispatcher: Dispatcher,
    /// Every process, and the client whose request it was given last.
    processes: BTreeMap<WorkerId, Process>,
    /// The waiting clients, and the number of each request once it is known.
    clients: BTreeMap<u64, Option<RequestId>>,
    next_client: u64,
    /// The last workers that ever were.
    workers: Vec<WorkerId>,
    requests: Vec<RequestId>,
}

#[derive(Debug, Default)]
struct Process {
    given: Option<ClientId>,
    /// It has not answered its probe.
    asked: bool,
    /// The channel-ID that it was given last.
    channel: Option<ChannelId>,
    is_stopping: bool,
}

fn policy(choices: &mut Choices<'_>) -> Policy {
    let mut time = |unit: u64| Duration::from_millis(unit * (1 + u64::from(choices.byte())));
    let (queue_timeout, busy_timeout) = (time(4), time(16));
    let (alarm_interval, start_timeout, max_age, probe_interval) = (time(8), time(16), time(100), time(20));
    let channels = choices.byte();
    Policy {
        mode: Mode::Request,
        workers: size(choices),
        queue_size: choices.below(6),
        queue_timeout,
        busy_timeout,
        // One at a time; what is written ahead is the simulation's subject.
        pipeline: 1,
        concurrency: (channels >= 128).then_some(1),
        single_use: false,
        retries: choices.pick(&[0, 1, 2]).unwrap_or_default(),
        alarm_interval,
        ready_line: choices.pick(&[false, true]).unwrap_or_default(),
        start_timeout,
        max_requests: choices.pick(&[None, Some(1), Some(5)]).flatten(),
        max_age: choices.pick(&[None, Some(max_age)]).flatten(),
        probe_interval: choices.pick(&[None, Some(probe_interval)]).flatten(),
        rest: choices.pick(&[Duration::ZERO, probe_interval / 8]).unwrap_or_default(),
    }
}

/// As often of a fixed size as not.
fn size(choices: &mut Choices<'_>) -> PoolSize {
    let (min, more) = (1 + choices.below(4), choices.below(8).saturating_sub(4));
    if more == 0 {
        return PoolSize::fixed(min);
    }
    let max = min + more;
    PoolSize {
        min,
        max,
        spare: choices.below(max + 1),
        idle_timeout: Duration::from_millis(8 * (1 + u64::from(choices.byte()))),
    }
}

/// Puts the youngest to the front, where it is picked as often as those before it.
fn remember<T>(items: &mut Vec<T>, item: T) {
    items.insert(0, item);
    items.truncate(12);
}

impl<'i> World<'i> {
    fn new(mut choices: Choices<'i>) -> Self {
        let (policy, now) = (policy(&mut choices), Instant::now());
        Self {
            choices,
            now,
            dispatcher: Dispatcher::new(policy.clone(), now, 1),
            policy,
            processes: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            workers: Vec::new(),
            requests: Vec::new(),
        }
    }

    fn tell(&mut self, event: Event) {
        self.dispatcher.handle(self.now, event);
        self.act();
    }

    // ---- the shell -------------------------------------------------------------------------------------------

    fn act(&mut self) {
        while let Some(action) = self.dispatcher.next_action() {
            match action {
                Action::Spawn(worker) => self.spawn(worker),
                Action::Enqueued { request, client } => self.name(client, request),
                Action::Assign(Assignment {
                    worker,
                    request,
                    client,
                    channel,
                }) => self.assign(worker, request, client, channel),
                Action::Answer(Completion { client, worker, .. }) => {
                    let given = self.processes.get_mut(&worker).and_then(|process| process.given.take());
                    assert_eq!(
                        given,
                        Some(client),
                        "an answer comes from the worker that has the request"
                    );
                    self.end(client);
                }
                Action::Refuse(RefusedRequest { client, .. }) => self.end(client),
                Action::Inspect(worker) => {
                    let inspection = self.choices.pick(&[Inspection::InStep, Inspection::OutOfStep]);
                    let event = inspection.map(|inspection| Event::Inspected(worker, inspection));
                    event
                        .into_iter()
                        .for_each(|event| self.dispatcher.handle(self.now, event));
                }
                Action::Stop(worker, _) => {
                    let process = self.processes.get_mut(&worker);
                    assert!(process.is_some(), "only a living process is stopped");
                    process.into_iter().for_each(|process| process.is_stopping = true);
                }
                Action::Probe { worker, .. } => {
                    let process = self.processes.get_mut(&worker);
                    let process = process.filter(|process| !process.is_stopping && !process.asked);
                    assert!(process.is_some(), "{worker:?} is asked once at a time, in service");
                    process.into_iter().for_each(|process| process.asked = true);
                }
                Action::Replaced(_)
                | Action::Grown { .. }
                | Action::Shrunk { .. }
                | Action::QuarantineEnded(_)
                | Action::Health(_)
                | Action::Rolled => {}
            }
        }
        assert_eq!(
            self.dispatcher.requests_in_hand(),
            self.clients.len(),
            "no request is forgotten"
        );
    }

    fn spawn(&mut self, worker: WorkerId) {
        if !self.dispatcher.awaits_spawn(worker) {
            return;
        }
        remember(&mut self.workers, worker);
        let fate = self.choices.below(8);
        if fate == 7 {
            return self.dispatcher.handle(self.now, Event::SpawnFailed(worker));
        }
        self.processes.insert(worker, Process::default());
        self.dispatcher.handle(self.now, Event::Started(worker));
        if fate < 5 {
            self.dispatcher.handle(self.now, Event::Ready(worker));
        }
    }

    fn name(&mut self, client: ClientId, request: RequestId) {
        remember(&mut self.requests, request);
        let before = self.clients.insert(client.0, Some(request));
        assert!(before.is_some(), "{client:?} waits for nothing");
    }

    fn assign(&mut self, worker: WorkerId, request: RequestId, client: ClientId, channel: Option<ChannelId>) {
        self.name(client, request);
        let process = self.processes.get_mut(&worker).filter(|process| !process.is_stopping);
        let mut process = process.filter(|process| !process.asked);
        assert!(process.is_some(), "{worker:?} is not in service");
        process.iter_mut().for_each(|process| process.channel = channel);
        let before = process.and_then(|process| process.given.replace(client));
        assert!(
            before.is_none_or(|before| before == client || !self.clients.contains_key(&before.0)),
            "{worker:?} has another request already"
        );
    }

    fn end(&mut self, client: ClientId) {
        assert!(self.clients.remove(&client.0).is_some(), "a request ends once");
    }

    // ---- what happens ----------------------------------------------------------------------------------------

    fn step(&mut self) {
        let kind = self.choices.below(36);
        match kind {
            0..8 => self.request(),
            8 | 9 => self.pass_time(),
            10 => self.leave(Event::Abandoned),
            11 => self.leave(Event::Withdrawn),
            12 => self.tell(Event::Roll),
            13 => self.reconfigure(),
            14 | 15 => {
                let living: Vec<WorkerId> = self.processes.keys().copied().collect();
                let worker = self.choices.pick(&living);
                worker.into_iter().for_each(|worker| self.exit(worker));
            }
            // A pool that ends goes on to hear things.
            31 if self.choices.byte() == 255 => self.tell(Event::Shutdown(StopMode::Terminate)),
            _ => {
                let worker = self.choices.pick(&self.workers);
                worker.into_iter().for_each(|worker| self.report(kind, worker));
            }
        }
    }

    /// Something about a worker that is there or was.
    fn report(&mut self, kind: usize, worker: WorkerId) {
        let broken = |fault| Event::Broken(worker, fault);
        let request = self.choices.pick(&self.requests);
        let to = self.reply_to(worker);
        let reply = |after| Event::Reply { worker, to, after };
        let no_reply = match kind {
            29 => self.choices.pick(&[Fault::ReplyTooLong(to), Fault::Malformed]),
            _ => None,
        };
        let no_reply = no_reply.unwrap_or(Fault::ReplyTooLong(to));
        let last = match kind {
            24 => self.choices.pick(&[AfterReply::Spent, AfterReply::Cut]),
            _ => None,
        };
        let event = match kind {
            16..23 => reply(AfterReply::InStep),
            23 => reply(AfterReply::OutOfStep),
            24 => reply(last.unwrap_or(AfterReply::Spent)),
            25 => Event::ReplyBegun(worker, to),
            26 => broken(Fault::OutputClosed),
            27 => request.map_or_else(
                || broken(Fault::OutputClosed),
                |request| broken(Fault::InputClosed(request)),
            ),
            28 => broken(Fault::Unasked),
            29 => broken(no_reply),
            30 => Event::Outgrown(worker),
            32..35 => self.answer_probe(worker, ProbeResult::Passed),
            35 => self.answer_probe(worker, ProbeResult::Failed),
            _ => Event::Ready(worker),
        };
        self.tell(event);
    }

    fn answer_probe(&mut self, worker: WorkerId, result: ProbeResult) -> Event {
        let process = self.processes.get_mut(&worker);
        process.into_iter().for_each(|process| process.asked = false);
        Event::Probed(worker, result)
    }

    /// Returns the request that a worker's output answers: with channel-IDs, most often the last, sometimes any.
    fn reply_to(&mut self, worker: WorkerId) -> ReplyTo {
        let Some(told) = self.processes.get(&worker).and_then(|process| process.channel) else {
            return ReplyTo::Oldest;
        };
        match self.choices.below(8) {
            7 => ReplyTo::Channel(ChannelId(u32::from(self.choices.byte()))),
            6 => ReplyTo::Oldest,
            _ => ReplyTo::Channel(told),
        }
    }

    fn request(&mut self) {
        let client = ClientId(self.next_client);
        self.next_client += 1;
        self.clients.insert(client.0, None);
        let size = self.choices.pick(&[80, 5000]).unwrap_or(80);
        self.tell(Event::Request { client, size });
    }

    fn leave(&mut self, event: fn(RequestId) -> Event) {
        let Some(request) = self.choices.pick(&self.requests) else {
            return;
        };
        self.clients.retain(|_, name| *name != Some(request));
        self.tell(event(request));
    }

    fn exit(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
        self.tell(Event::Exited(worker));
    }

    fn reconfigure(&mut self) {
        self.policy = policy(&mut self.choices);
        self.tell(Event::Reconfigure(Box::new(self.policy.clone())));
    }

    /// A tick at every deadline on the way, and one at the end, which does no harm.
    fn pass_time(&mut self) {
        let end = self.now + Duration::from_millis(8 * u64::from(self.choices.byte()));
        while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.tell(Event::Tick);
        }
        self.now = end;
        self.tell(Event::Tick);
    }
}
