//! The pool's dispatcher against a shell that is made of dice.
//!
//! The shadow model knows for each client whether it waits, and for each process what it was given, and under which
//! numbers if it answers in any order. From that follow three promises: an answer comes from the worker that holds the
//! client's request and from no other; every request ends, and no later than queue time-out plus busy time-out; a
//! request outlives the death of its worker as often as `retries` says and no oftener. Of a worker that is to be probed
//! it knows whether it has passed, and whether it is being asked: it may be given nothing before, meanwhile, or after a
//! wrong answer. Of every worker it knows since when it has had nothing to do, and so which of the free ones a request
//! goes to ([`Rank`]), and whether it rests. What the operator is told of outages is held against what can be seen of
//! the places: an outage is told once when it begins and once when it ends, never while a worker serves of which it is
//! known that it can, and always while every place waits for another start. At the end everything is let run dry: no
//! request and no worker may be left over or missing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use iotcpd::internals::pool::core::{
    Action, Activity, AfterReply, Assignment, ChannelId, ClientId, Completion, Dispatcher, Event, Fault, Health,
    HealthChange, Inspection, ProbeResult, Refusal, RefusedRequest, ReplyTo, RequestId, Status, StopMode, WorkerId,
};
use iotcpd::internals::pool::options::{Mode, Policy, PoolSize};

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 3000;
/// For how long a worker that has answered is not used again while there are others.
const MOMENT: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Process {
    ready: bool,
    /// The requests that it was given and has not answered, oldest first.
    held: VecDeque<Flight>,
    /// The number of requests that it takes at once, each under a number; `None`: it answers in order.
    concurrency: Option<usize>,
    /// Every number that it was ever told.
    told: BTreeSet<ChannelId>,
    answered: u64,
    told_to_end: bool,
    probe: Probe,
    started: Instant,
    /// When it last answered something, or was watched for a while after that: it has had nothing to do since.
    quiet: Option<Instant>,
    /// It is to rest since then.
    resting: Option<Instant>,
    /// It has written something unasked: it may never be given anything again.
    out_of_step: bool,
}

/// A request with a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flight {
    held: Held,
    channel: Option<ChannelId>,
    /// The worker has begun to answer it: what it writes next is the rest of that.
    reply_begun: bool,
}

/// The fitness of a free worker for the next request: the least is the best. A worker that has answered only just now
/// may yet print a line more; one that has never answered may still be starting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// The one used last, of the workers that have had a moment since: the order is that in which they became free,
    /// turned round.
    Rested(std::cmp::Reverse<Instant>),
    /// It has just answered, as have most of the free ones.
    InTurn(Instant),
    /// It has lived for half as long as others took to their first answer: the one that was started first.
    Up(Instant),
    /// The one that was released longest ago.
    Fresh(Instant),
    Starting(Instant),
}

impl Flight {
    fn reply_to(self) -> ReplyTo {
        self.channel.map_or(ReplyTo::Oldest, ReplyTo::Channel)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    RequestOf(ClientId),
    /// Its client has gone.
    Orphan,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probe {
    /// It was started in a time without probes.
    Never,
    Wanted,
    Asked,
    Passed,
    Failed,
}

#[derive(Debug)]
struct Client {
    arrived: Instant,
    request: Option<RequestId>,
    /// When it was last given to a worker.
    given: Instant,
    /// Workers that had answered before and died over it without a byte of reply.
    deaths: u32,
    /// A worker has begun to answer it: no other one will.
    reply_begun: bool,
}

struct World {
    dice: Dice,
    now: Instant,
    policy: Policy,
    dispatcher: Dispatcher,
    processes: BTreeMap<WorkerId, Process>,
    clients: BTreeMap<u64, Client>,
    next_client: u64,
    /// Set while a reply of this worker to this client, if it still waits, is being reported.
    replying: Option<(WorkerId, Held)>,
    /// A request has just come, and nothing has happened since it was decided who gets it.
    has_choice: bool,
    /// The quickest first answer since the last roll.
    start_up: Option<Duration>,
    /// The resting workers, in the order in which they began to rest.
    resting: VecDeque<(Instant, WorkerId)>,
    /// The number of free workers that were rightly passed over.
    choices: u64,
    /// During the final drain nothing breaks any more.
    calm: bool,
    /// Everything that was decided, for the determinism test.
    trace: Vec<Action>,
    answers: u64,
    told: Told,
    /// The number of refused requests.
    refused: u64,
    /// The number of outages that were told, and have ended.
    outages: u64,
    /// The numbers of requests that their clients have abandoned in the queue, and when a worker had them.
    abandoned: [u64; 2],
}

/// The last news that the operator was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nothing,
    Serving,
    Down {
        since: Instant,
        refused_before: u64,
        has_served: bool,
    },
}

fn policy(dice: &mut Dice) -> Policy {
    let maybe = |chance: bool, value: u64| chance.then_some(value);
    let (pipeline, concurrency) = how_many_at_once(dice);
    let one_at_a_time = pipeline == 1 && concurrency.is_none();
    let mode = if one_at_a_time && dice.percent(40) {
        Mode::Session
    } else {
        Mode::Request
    };
    Policy {
        mode,
        workers: size(dice),
        queue_size: dice.below(12) as usize,
        queue_timeout: Duration::from_millis(50 + dice.below(800)),
        busy_timeout: Duration::from_millis(100 + dice.below(3000)),
        retries: dice.below(3) as u32,
        pipeline,
        concurrency,
        single_use: dice.percent(20),
        alarm_interval: Duration::from_millis(100 + dice.below(2000)),
        ready_line: dice.percent(30),
        start_timeout: Duration::from_millis(500 + dice.below(5000)),
        max_requests: maybe(dice.percent(40), 1 + dice.below(30)),
        max_age: maybe(dice.percent(30), 1 + dice.below(20)).map(Duration::from_secs),
        probe_interval: maybe(dice.percent(50), 100 + dice.below(5000)).map(Duration::from_millis),
        rest: rest(dice),
    }
}

/// Most often none, as is the default.
fn rest(dice: &mut Dice) -> Duration {
    let time = Duration::from_millis(1 + dice.below(50));
    if dice.percent(30) { time } else { Duration::ZERO }
}

/// One at a time, several ahead, or several at once.
fn how_many_at_once(dice: &mut Dice) -> (usize, Option<usize>) {
    let number = 1 + dice.below(5) as usize;
    match dice.below(3) {
        0 => (1, None),
        1 => (number, None),
        _ => (1, Some(number)),
    }
}

/// As often of a fixed size as not.
fn size(dice: &mut Dice) -> PoolSize {
    let min = 1 + dice.below(6) as usize;
    if dice.percent(50) {
        return PoolSize::fixed(min);
    }
    let max = min + 1 + dice.below(8) as usize;
    PoolSize {
        min,
        max,
        spare: dice.below(max as u64 + 1) as usize,
        idle_timeout: Duration::from_millis(100 + dice.below(5000)),
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let policy = policy(&mut dice);
        let now = Instant::now();
        let dispatcher = Dispatcher::new(policy.clone(), now, seed);
        let mut world = World {
            dice,
            now,
            policy,
            dispatcher,
            processes: BTreeMap::new(),
            clients: BTreeMap::new(),
            next_client: 0,
            replying: None,
            has_choice: false,
            start_up: None,
            resting: VecDeque::new(),
            choices: 0,
            calm: false,
            trace: Vec::new(),
            answers: 0,
            told: Told::Nothing,
            refused: 0,
            outages: 0,
            abandoned: [0; 2],
        };
        world.act();
        world
    }

    // ---- the shell -------------------------------------------------------------------------------------------

    fn tell(&mut self, event: Event) {
        self.has_choice = matches!(event, Event::Request { .. });
        let ends = matches!(event, Event::Shutdown(_));
        self.dispatcher.handle(self.now, event);
        self.act();
        if !ends && self.dispatcher.places() > 0 {
            self.check_what_is_told();
        }
    }

    /// Held against what can be seen of the places.
    fn check_what_is_told(&self) {
        let slots: Vec<_> = self.dispatcher.slots().collect();
        let can = |worker: &WorkerId| {
            let process = &self.processes[worker];
            process.answered > 0 || process.probe == Probe::Passed
        };
        let mut serving = slots
            .iter()
            .filter(|slot| slot.status == Status::Available || slot.status == Status::Busy);
        let serves = serving.any(|slot| can(&slot.worker));
        let waits = |status| matches!(status, Status::Spawning | Status::Quarantined);
        let all_wait = slots.iter().all(|slot| waits(slot.status));
        let is_down = matches!(self.told, Told::Down { .. });
        assert!(!(serves && is_down), "a worker can serve: {slots:?}");
        assert!(
            is_down || !all_wait,
            "no worker can serve, and the operator is not told: {slots:?}"
        );
        assert_eq!(matches!(self.dispatcher.health(), Health::Down(_)), is_down);
        assert_eq!(self.dispatcher.health() == Health::Starting, self.told == Told::Nothing);
    }

    fn hear(&mut self, news: HealthChange) {
        let down = |has_served| Told::Down {
            since: self.now,
            refused_before: self.refused,
            has_served,
        };
        self.told = match (self.told, news) {
            (Told::Nothing, HealthChange::Ready) => Told::Serving,
            (Told::Nothing, HealthChange::Down { .. }) => down(false),
            (Told::Serving, HealthChange::Down { .. }) => down(true),
            (
                Told::Down {
                    since,
                    refused_before,
                    has_served,
                },
                HealthChange::Over {
                    lasted,
                    failed,
                    first_time,
                },
            ) => {
                let model = (self.now - since, self.refused - refused_before, !has_served);
                assert_eq!((lasted, failed, first_time), model);
                self.outages += 1;
                Told::Serving
            }
            (told, news) => panic!("{news:?} after {told:?}"),
        };
    }

    /// Tells of an event that happens while the shell carries out the actions.
    fn report(&mut self, event: Event) {
        self.has_choice = false;
        self.dispatcher.handle(self.now, event);
    }

    /// A worker has nothing to do any more, and nothing to say: it has answered, or was watched after that.
    fn mark_quiet(&mut self, worker: WorkerId) {
        self.processes.get_mut(&worker).expect("a living worker").quiet = Some(self.now);
    }

    /// The same, and it rests from now on, unless it is watched for longer or says a number with each answer.
    fn begin_rest(&mut self, worker: WorkerId) {
        self.mark_quiet(worker);
        let process = self.processes.get_mut(&worker).expect("a living worker");
        if !self.policy.rest.is_zero() && process.concurrency.is_none() {
            process.resting = Some(self.now);
            self.resting.push_back((self.now, worker));
        }
    }

    /// Those whose rest is over are free from now on.
    fn end_rests(&mut self) {
        while let Some((since, worker)) = self.resting.front().copied() {
            if since + self.policy.rest > self.now {
                return;
            }
            self.resting.pop_front();
            let process = self.processes.get_mut(&worker);
            if let Some(process) = process.filter(|process| process.resting == Some(since)) {
                process.resting = None;
                self.mark_quiet(worker);
            }
        }
    }

    fn has_just_answered(&self, worker: WorkerId) -> bool {
        let quiet = self.processes[&worker].quiet;
        quiet.is_some_and(|at| self.now - at < MOMENT)
    }

    fn rank(&self, worker: WorkerId, take_turns: bool) -> Rank {
        let process = &self.processes[&worker];
        let is_up = self
            .start_up
            .is_some_and(|start_up| 2 * (self.now - process.started) >= start_up);
        match process.quiet {
            Some(at) if self.now - at >= MOMENT => Rank::Rested(std::cmp::Reverse(at)),
            Some(at) if take_turns => Rank::InTurn(at),
            Some(at) => Rank::Fresh(at),
            None if is_up => Rank::Up(process.started),
            None => Rank::Starting(process.started),
        }
    }

    /// A free worker that was given a request must be the best of all that were free. Only a request that has just come
    /// has a choice: for one that waits there is none, and then the one that becomes free.
    fn check_choice(&mut self, chosen: WorkerId) {
        if !std::mem::take(&mut self.has_choice) {
            return;
        }
        let left = self.dispatcher.slots().filter(|slot| slot.status == Status::Available);
        let left: Vec<WorkerId> = left.map(|slot| slot.worker).collect();
        let free = || left.iter().copied().chain([chosen]);
        let take_turns = 2 * free().filter(|worker| self.has_just_answered(*worker)).count() > left.len() + 1;
        let rank = self.rank(chosen, take_turns);
        for other in &left {
            let better = self.rank(*other, take_turns);
            assert!(
                rank <= better,
                "{chosen:?} ({rank:?}) was taken, and not {other:?} ({better:?})"
            );
        }
        self.choices += left.len() as u64;
    }

    fn act(&mut self) {
        while let Some(action) = self.dispatcher.next_action() {
            self.trace.push(action);
            match action {
                Action::Spawn(worker) => self.spawn(worker),
                Action::Assign(Assignment {
                    worker,
                    request,
                    client,
                    channel,
                }) => self.assign(worker, request, client, channel),
                Action::Enqueued { request, client } => self.client(client).request = Some(request),
                Action::Answer(Completion { client, worker, .. }) => self.answer(client, worker),
                Action::Refuse(RefusedRequest { client, reason, .. }) => self.refuse(client, reason),
                Action::Inspect(worker) => self.inspect(worker),
                Action::Stop(worker, ending) => self.stop(worker, ending),
                Action::Probe { worker, .. } => self.probe(worker),
                Action::QuarantineEnded(worker) => {
                    let probe = self.processes[&worker].probe;
                    assert!(matches!(probe, Probe::Never | Probe::Passed), "{worker:?}: {probe:?}");
                }
                Action::Health(news) => self.hear(news),
                Action::Replaced(_) | Action::Grown { .. } | Action::Shrunk { .. } | Action::Rolled => {}
            }
        }
    }

    fn client(&mut self, id: ClientId) -> &mut Client {
        self.clients.get_mut(&id.0).expect("the client still waits")
    }

    fn spawn(&mut self, worker: WorkerId) {
        if !self.dispatcher.awaits_spawn(worker) {
            return;
        }
        if !self.calm && self.dice.percent(10) {
            return self.report(Event::SpawnFailed(worker));
        }
        let clash = self.processes.keys().any(|other| other.index == worker.index);
        assert!(!clash, "an index is given out again while its process lives");
        let ready = self.calm || self.dice.percent(60);
        let process = Process {
            ready,
            held: VecDeque::new(),
            concurrency: self.policy.concurrency,
            told: BTreeSet::new(),
            answered: 0,
            told_to_end: false,
            probe: self.policy.probe_interval.map_or(Probe::Never, |_| Probe::Wanted),
            started: self.now,
            quiet: None,
            resting: None,
            out_of_step: false,
        };
        self.processes.insert(worker, process);
        self.report(Event::Started(worker));
        if ready {
            self.report(Event::Ready(worker));
        }
    }

    fn assign(&mut self, worker: WorkerId, request: RequestId, client: ClientId, channel: Option<ChannelId>) {
        let (retries, now) = (self.policy.retries, self.now);
        let given = self.client(client);
        (given.request, given.given) = (Some(request), now);
        assert!(
            given.deaths <= retries,
            "promise 3: given out again after {} deaths, {retries} retries",
            given.deaths
        );
        assert!(
            !given.reply_begun,
            "promise 3: given out again though a worker had begun to answer"
        );
        self.assert_may_be_given(worker, channel);
        let process = self.processes.get_mut(&worker).expect("a living worker");
        if let Some(channel) = channel {
            process.told.insert(channel);
        }
        let was_free = process.held.is_empty();
        process.held.push_back(Flight {
            held: Held::RequestOf(client),
            channel,
            reply_begun: false,
        });
        if was_free {
            self.check_choice(worker);
        }
        let process = self.processes.get_mut(&worker).expect("a living worker");
        // The client may have gone while it waited, which is found out only now.
        if !self.calm && self.dice.percent(3) {
            process.held.pop_back();
            self.clients.remove(&client.0);
            return self.report(Event::Withdrawn(request));
        }
        // The shell may find when it turns to the worker that it does not listen any more, or, while it was free, it
        // has spoken unasked.
        if !self.calm && self.dice.percent(3) {
            process.out_of_step = true;
            process.held.pop_back();
            let fault = if process.held.is_empty() && channel.is_none() && self.dice.percent(50) {
                Fault::Unasked
            } else {
                Fault::InputClosed(request)
            };
            self.mourn(worker);
            self.report(Event::Broken(worker, fault));
        }
    }

    /// A request may go to this worker, under this number if it is told any.
    fn assert_may_be_given(&self, worker: WorkerId, channel: Option<ChannelId>) {
        let process = self
            .processes
            .get(&worker)
            .expect("only a living worker is given anything");
        assert!(process.ready && !process.told_to_end, "{worker:?} is not in service");
        assert!(
            process.held.len() < process.concurrency.unwrap_or(self.policy.pipeline),
            "{worker:?} has its hands full"
        );
        assert_eq!(
            channel.is_some(),
            process.concurrency.is_some(),
            "{worker:?} was started for the other kind of lines"
        );
        assert!(
            channel.is_none_or(|channel| !process.told.contains(&channel)),
            "promise 1: a second answer to an old request would pass for one to this"
        );
        assert!(
            !process.out_of_step,
            "{worker:?} would answer with the reply to another request"
        );
        assert!(
            matches!(process.probe, Probe::Never | Probe::Passed),
            "{worker:?} serves without having passed its probe: {:?}",
            process.probe
        );
        let rest = self.policy.rest;
        let rests = process.resting.is_some_and(|since| since + rest > self.now);
        assert!(!rests || !process.held.is_empty(), "{worker:?} rests");
    }

    fn probe(&mut self, worker: WorkerId) {
        let process = self
            .processes
            .get_mut(&worker)
            .expect("only a living worker is asked anything");
        assert!(process.ready && !process.told_to_end, "{worker:?} is not in service");
        assert!(process.held.is_empty(), "{worker:?} has something to do");
        assert!(
            matches!(process.probe, Probe::Wanted | Probe::Passed),
            "{worker:?} is asked once more"
        );
        process.probe = Probe::Asked;
        if self.calm {
            process.probe = Probe::Passed;
            self.begin_rest(worker);
            self.report(Event::Probed(worker, ProbeResult::Passed));
        }
    }

    fn answer_probe(&mut self, worker: WorkerId, result: ProbeResult) {
        let process = self.processes.get_mut(&worker).expect("a living worker");
        process.probe = match result {
            ProbeResult::Passed => Probe::Passed,
            ProbeResult::Failed => Probe::Failed,
        };
        self.begin_rest(worker);
        self.tell(Event::Probed(worker, result));
        let gone = self.processes.get(&worker).is_none_or(|process| process.told_to_end);
        assert!(result == ProbeResult::Passed || gone, "{worker:?} is kept");
    }

    fn answer(&mut self, client: ClientId, worker: WorkerId) {
        assert_eq!(
            self.replying.take(),
            Some((worker, Held::RequestOf(client))),
            "promise 1: an answer comes from the worker that just replied, to what it replied to"
        );
        self.clients.remove(&client.0).expect("promise 2: one end per request");
        self.answers += 1;
        // An answer that cannot be written tells that a connection has gone, with all that was asked on it; some of
        // that may have been given out in the same breath, and is not carried out yet.
        if !self.calm && self.dice.percent(10) {
            let named = self
                .clients
                .iter()
                .filter_map(|(id, client)| Some((*id, client.request?)));
            let named: Vec<(u64, RequestId)> = named.collect();
            if let Some((id, request)) = self.dice.pick(&named) {
                self.clients.remove(&id);
                self.orphan(ClientId(id));
                self.report(Event::Abandoned(request));
            }
        }
    }

    fn refuse(&mut self, client: ClientId, reason: Refusal) {
        self.refused += 1;
        let waited = self.clients.remove(&client.0).expect("promise 2: one end per request");
        let took = self.now - waited.arrived;
        assert!(took <= self.longest_wait(), "promise 2: refused only after {took:?}");
        if reason == Refusal::WorkerDied {
            let used_up = waited.deaths > self.policy.retries || waited.reply_begun || took >= self.longest_wait();
            assert!(
                used_up,
                "promise 3: refused after {} deaths, {} retries",
                waited.deaths, self.policy.retries
            );
        }
        if reason == Refusal::BusyTimeout {
            let over = self.now - waited.given >= self.policy.busy_timeout || took >= self.longest_wait();
            assert!(over, "refused for the time that others took");
        }
        self.orphan(client);
    }

    /// The client of a request has gone; the worker that has it goes on with it.
    fn orphan(&mut self, client: ClientId) {
        let held = self.processes.values_mut().flat_map(|process| &mut process.held);
        for flight in held.filter(|flight| flight.held == Held::RequestOf(client)) {
            flight.held = Held::Orphan;
        }
    }

    fn longest_wait(&self) -> Duration {
        self.policy.queue_timeout + self.policy.busy_timeout
    }

    fn inspect(&mut self, worker: WorkerId) {
        let process = self
            .processes
            .get_mut(&worker)
            .expect("only a living worker is looked at");
        let inspection = if self.calm || self.dice.percent(80) {
            Inspection::InStep
        } else {
            Inspection::OutOfStep
        };
        process.out_of_step |= inspection == Inspection::OutOfStep;
        process.resting = None;
        self.mark_quiet(worker);
        self.report(Event::Inspected(worker, inspection));
    }

    fn stop(&mut self, worker: WorkerId, _: StopMode) {
        let process = self.processes.get_mut(&worker).expect("only what lives is told to end");
        process.told_to_end = true;
        // Its requests have been refused, or go to others.
        process.held.clear();
    }

    // ---- what happens ----------------------------------------------------------------------------------------

    fn workers(&self, wanted: impl Fn(&Process) -> bool) -> Vec<WorkerId> {
        self.processes
            .iter()
            .filter(|(_, process)| wanted(process))
            .map(|(id, _)| *id)
            .collect()
    }

    fn request(&mut self) {
        let id = self.next_client;
        self.next_client += 1;
        self.clients.insert(
            id,
            Client {
                arrived: self.now,
                request: None,
                given: self.now,
                deaths: 0,
                reply_begun: false,
            },
        );
        let size = if self.dice.percent(10) { 5000 } else { 80 };
        self.tell(Event::Request {
            client: ClientId(id),
            size,
        });
    }

    /// A client cancels one of its requests, or a connection goes with some of them, wherever they are.
    fn hang_up(&mut self) {
        let requests = if self.dice.percent(50) {
            1
        } else {
            1 + self.dice.below(6)
        };
        for _ in 0..requests {
            let waiting: Vec<u64> = self.clients.keys().copied().collect();
            let Some(id) = self.dice.pick(&waiting) else { break };
            let is_held = |process: &Process| {
                let mut held = process.held.iter();
                held.any(|flight| flight.held == Held::RequestOf(ClientId(id)))
            };
            let is_with_worker = self.processes.values().any(is_held);
            let Some(Client {
                request: Some(request), ..
            }) = self.clients.remove(&id)
            else {
                panic!("{id} was never told")
            };
            self.abandoned[usize::from(is_with_worker)] += 1;
            self.orphan(ClientId(id));
            // All that a connection has asked is abandoned in one breath.
            self.report(Event::Abandoned(request));
        }
        self.act();
        self.check_what_is_told();
    }

    /// The flight that a worker's next output is about: the one that it has begun to answer, else the oldest, or any
    /// where it may answer any; `None` where it has nothing in hand.
    fn next_answered(&mut self, worker: WorkerId) -> Option<usize> {
        let process = &self.processes[&worker];
        let begun = process.held.iter().position(|flight| flight.reply_begun);
        let any: Vec<usize> = (0..process.held.len()).collect();
        match process.concurrency {
            Some(_) if begun.is_none() => self.dice.pick(&any),
            Some(_) => begun,
            None => any.first().copied(),
        }
    }

    /// A number that a worker was told and has answered already, or one that it was never told.
    fn stray_channel(&mut self, worker: WorkerId) -> ChannelId {
        let process = &self.processes[&worker];
        let in_flight = |channel: &ChannelId| process.held.iter().any(|flight| flight.channel == Some(*channel));
        let answered: Vec<ChannelId> = process.told.iter().filter(|told| !in_flight(told)).copied().collect();
        self.dice.pick(&answered).unwrap_or(ChannelId(0))
    }

    fn reply(&mut self, worker: WorkerId, after: AfterReply) {
        // A session is a request like any other, but the last of its worker in any case.
        let after = if self.policy.mode == Mode::Session {
            self.dice.pick(&[AfterReply::Spent, AfterReply::Cut]).unwrap_or(after)
        } else {
            after
        };
        let at = self.next_answered(worker);
        let process = self.processes.get_mut(&worker).expect("a living worker");
        let flight = at.and_then(|at| process.held.remove(at));
        process.out_of_step |= after == AfterReply::OutOfStep || flight.is_none();
        process.answered += u64::from(flight.is_some());
        if process.answered == 1 && flight.is_some() {
            let took = self.now - process.started;
            self.start_up = Some(self.start_up.map_or(took, |known| known.min(took)));
        }
        if flight.is_some() && process.held.is_empty() {
            self.begin_rest(worker);
        }
        let process = self.processes.get_mut(&worker).expect("a living worker");
        let to = match (flight, process.concurrency) {
            (Some(flight), _) => flight.reply_to(),
            (None, None) => ReplyTo::Oldest,
            (None, Some(_)) => ReplyTo::Channel(self.stray_channel(worker)),
        };
        let wanted = flight.map(|flight| flight.held).filter(|held| *held != Held::Orphan);
        self.replying = wanted.map(|held| (worker, held));
        self.tell(Event::Reply { worker, to, after });
        assert_eq!(self.replying, None, "a client that still waited has got the reply");
    }

    /// A second answer to something, or one to nothing: a client with its number in flight would get it.
    fn answer_astray(&mut self, worker: WorkerId) {
        if self.processes[&worker].held.iter().any(|flight| flight.reply_begun) {
            return;
        }
        self.mourn(worker);
        let to = ReplyTo::Channel(self.stray_channel(worker));
        let process = self.processes.get_mut(&worker).expect("a living worker");
        process.out_of_step = true;
        let after = AfterReply::InStep;
        let event = match self.dice.below(3) {
            0 => Event::Reply { worker, to, after },
            1 => Event::ReplyBegun(worker, to),
            _ => Event::Broken(worker, Fault::UnknownChannel),
        };
        self.tell(event);
        let process = &self.processes[&worker];
        assert!(process.told_to_end, "{worker:?} is not believed any more");
    }

    fn reply_begins(&mut self, worker: WorkerId) {
        let at = self.next_answered(worker);
        let process = self.processes.get_mut(&worker).expect("a living worker");
        let begun = at.and_then(|at| process.held.get_mut(at));
        let to = match (begun, process.concurrency) {
            (Some(flight), _) => {
                flight.reply_begun = true;
                if let Held::RequestOf(client) = flight.held {
                    self.clients.get_mut(&client.0).expect("it waits").reply_begun = true;
                }
                flight.reply_to()
            }
            (None, concurrency) => {
                process.out_of_step = true;
                concurrency.map_or(ReplyTo::Oldest, |_| ReplyTo::Channel(ChannelId(0)))
            }
        };
        self.tell(Event::ReplyBegun(worker, to));
    }

    /// The model's half of a worker's loss to the requests that it was working on; the process is as it was before.
    fn mourn(&mut self, worker: WorkerId) {
        let Process {
            held,
            concurrency,
            answered,
            ..
        } = &self.processes[&worker];
        let working = concurrency.map_or(1, |_| held.len());
        let guilty: Vec<Held> = held.iter().take(working).map(|flight| flight.held).collect();
        let proven = *answered > 0 || self.policy.single_use || self.policy.mode == Mode::Session;
        for held in guilty {
            let Held::RequestOf(client) = held else { continue };
            let client = self.client(client);
            client.deaths += u32::from(!client.reply_begun && proven);
        }
    }

    /// A reply over the limit: its request is known by now, and no other is to blame.
    fn reply_too_long(&mut self, worker: WorkerId) {
        let Some(at) = self.next_answered(worker) else { return };
        let process = self.processes.get_mut(&worker).expect("a living worker");
        process.out_of_step = true;
        let to = process.held[at].reply_to();
        self.tell(Event::Broken(worker, Fault::ReplyTooLong(to)));
    }

    /// It does not listen any more, which is found when some of what it was given is to be written: those are not to
    /// blame.
    fn close_input(&mut self, worker: WorkerId) {
        let held = &self.processes[&worker].held;
        let begun = held.iter().rposition(|flight| flight.reply_begun);
        let unwritten: Vec<usize> = (begun.map_or(0, |at| at + 1)..held.len()).collect();
        let Some(at) = self.dice.pick(&unwritten) else { return };
        let Held::RequestOf(client) = held[at].held else { return };
        let request = self.client(client).request.expect("it was given with a name");
        let process = self.processes.get_mut(&worker).expect("a living worker");
        process.out_of_step = true;
        process.held.truncate(at);
        self.mourn(worker);
        self.tell(Event::Broken(worker, Fault::InputClosed(request)));
    }

    fn die(&mut self, worker: WorkerId) {
        self.mourn(worker);
        self.processes.remove(&worker);
        self.tell(Event::Exited(worker));
    }

    fn break_output(&mut self, worker: WorkerId, fault: Fault) {
        self.mourn(worker);
        let process = self.processes.get_mut(&worker).expect("a living worker");
        process.out_of_step = true;
        self.tell(Event::Broken(worker, fault));
    }

    /// Lets time pass, and never past a deadline without a tick: that is the reactor's part.
    fn pass_time(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.dispatcher.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.end_rests();
            self.tell(Event::Tick);
        }
        self.now = end;
    }

    fn step(&mut self) {
        let in_service = self.workers(|process| process.ready && !process.told_to_end);
        let holding = self.workers(|process| process.ready && !process.held.is_empty());
        let concurrent = self.workers(|process| process.ready && !process.told_to_end && process.concurrency.is_some());
        let starting = self.workers(|process| !process.ready);
        let asked = self.workers(|process| process.probe == Probe::Asked && !process.told_to_end);
        let living = self.workers(|_| true);
        let ending = self.workers(|process| process.told_to_end);
        let span = Duration::from_millis(self.dice.below(60));
        match self.dice.below(1000) {
            0..330 => self.request(),
            330..560 => self.on(&holding, |world, worker| world.reply(worker, AfterReply::InStep)),
            560..600 => self.on(&holding, World::reply_begins),
            600..604 => self.on(&holding, |world, worker| world.reply(worker, AfterReply::Spent)),
            604..607 => self.on(&holding, World::close_input),
            607..615 => self.on(&holding, |world, worker| world.reply(worker, AfterReply::OutOfStep)),
            615..619 => self.on(&holding, World::reply_too_long),
            619..622 => self.on(&in_service, |world, worker| {
                world.break_output(worker, Fault::Malformed)
            }),
            622..629 => self.on(&in_service, |world, worker| {
                world.break_output(worker, Fault::OutputClosed)
            }),
            629..640 => self.on(&in_service, |world, worker| world.reply(worker, AfterReply::InStep)),
            640..648 => self.on(&concurrent, World::answer_astray),
            648..690 => self.on(&living, World::die),
            690..770 => self.on(&ending, World::die),
            770..800 => self.on(&starting, World::become_ready),
            800..820 => self.on(&asked, |world, worker| world.answer_probe(worker, ProbeResult::Passed)),
            820..850 => self.hang_up(),
            850..857 => self.on(&asked, |world, worker| world.answer_probe(worker, ProbeResult::Passed)),
            857..860 => self.on(&asked, |world, worker| world.answer_probe(worker, ProbeResult::Failed)),
            860..980 => self.pass_time(span),
            980..986 => self.pass_time(span * 50),
            986..990 => self.on(&in_service, |world, worker| world.tell(Event::Outgrown(worker))),
            990..996 => {
                self.start_up = None;
                self.tell(Event::Roll);
            }
            _ => self.reconfigure(),
        }
        assert_eq!(
            self.dispatcher.requests_in_hand(),
            self.clients.len(),
            "no request is forgotten"
        );
        self.check_dump();
    }

    /// The dump tells all there is: every process is told of once, and every client once, with its worker or in the
    /// queue, which is in the order in which they came.
    fn check_dump(&self) {
        let workers = self.dispatcher.workers();
        let told: BTreeSet<WorkerId> = workers.iter().map(|worker| worker.id).collect();
        assert_eq!(told.len(), workers.len());
        assert!(self.processes.keys().all(|worker| told.contains(worker)), "{workers:?}");
        let mut clients = Vec::new();
        for worker in &workers {
            let in_hand: Vec<_> = self.dispatcher.requests_of(worker.id).collect();
            assert_eq!(in_hand.len(), worker.in_hand);
            let works = matches!(worker.activity, Activity::Busy | Activity::Draining);
            assert_eq!(works, !in_hand.is_empty(), "{worker:?}");
            let is_draining = in_hand.iter().all(|request| request.client.is_none());
            assert_eq!(
                worker.activity == Activity::Draining,
                works && is_draining,
                "{worker:?}"
            );
            clients.extend(in_hand.iter().filter_map(|request| request.client));
        }
        let queued: Vec<_> = self.dispatcher.queued().collect();
        assert_eq!(queued.len(), self.dispatcher.queue_length());
        assert!(queued.is_sorted_by_key(|waiting| waiting.arrived), "{queued:?}");
        clients.extend(queued.iter().map(|waiting| waiting.client));
        let mut clients: Vec<u64> = clients.into_iter().map(|client| client.0).collect();
        clients.sort_unstable();
        assert!(clients.iter().eq(self.clients.keys()), "{clients:?}");
        let free = workers
            .iter()
            .filter(|worker| worker.activity == Activity::Idle)
            .count();
        assert_eq!(free as u64, self.dispatcher.status_counts().available);
    }

    fn on(&mut self, candidates: &[WorkerId], act: impl Fn(&mut World, WorkerId)) {
        if let Some(worker) = self.dice.pick(candidates) {
            act(self, worker);
        }
    }

    fn become_ready(&mut self, worker: WorkerId) {
        self.processes.get_mut(&worker).expect("a living worker").ready = true;
        self.tell(Event::Ready(worker));
    }

    /// Only what does not change the deadlines of requests under way, which the model computes from the policy of now.
    fn reconfigure(&mut self) {
        self.policy.workers = size(&mut self.dice);
        self.policy.queue_size = self.dice.below(12) as usize;
        self.policy.rest = rest(&mut self.dice);
        if self.policy.mode == Mode::Request {
            (self.policy.pipeline, self.policy.concurrency) = how_many_at_once(&mut self.dice);
        }
        self.policy.probe_interval = self
            .dice
            .percent(50)
            .then(|| Duration::from_millis(100 + self.dice.below(5000)));
        self.tell(Event::Reconfigure(Box::new(self.policy.clone())));
    }

    /// Nothing breaks any more and every worker does its duty: all requests end and all workers are back.
    fn run_dry(&mut self) {
        self.calm = true;
        // A roll may be going on and replaces the last recycled worker; no new reason to replace a worker comes up.
        (self.policy.max_requests, self.policy.max_age) = (None, None);
        // Nor does a worker rest at the very end.
        self.policy.rest = Duration::ZERO;
        self.tell(Event::Reconfigure(Box::new(self.policy.clone())));
        for worker in self.workers(|process| process.probe == Probe::Asked && !process.told_to_end) {
            self.answer_probe(worker, ProbeResult::Passed);
        }
        for _ in 0..400 {
            for worker in self.workers(|process| !process.ready) {
                self.become_ready(worker);
            }
            for worker in self.workers(|process| process.told_to_end) {
                self.die(worker);
            }
            for worker in self.workers(|process| process.ready && !process.held.is_empty() && !process.told_to_end) {
                self.reply(worker, AfterReply::InStep);
            }
            self.pass_time(Duration::from_millis(500));
        }
        assert!(self.clients.is_empty(), "these were never answered: {:?}", self.clients);
        let counts = self.dispatcher.status_counts();
        // As many as are always there, or as are wanted idle; the others have gone again.
        let size = self.policy.workers;
        let wanted = size.min.max(size.spare);
        assert_eq!(counts.available, wanted as u64, "every worker is back: {counts:?}");
        assert_eq!(self.told, Told::Serving, "the workers serve, and the operator knows");
        let living: BTreeSet<WorkerId> = self.processes.keys().copied().collect();
        assert_eq!(living.len(), wanted, "no process is forgotten");
    }

    /// The end, from whatever state there is; a second one hurries. A worker that still works may yet say anything.
    fn shut_down(&mut self) {
        self.request();
        self.tell(Event::Shutdown(StopMode::EndInput));
        assert!(self.clients.is_empty(), "all that waited were refused");
        self.request();
        assert!(self.clients.is_empty(), "and so is a client that comes late");
        while let Some(worker) = {
            let living = self.workers(|_| true);
            self.dice.pick(&living)
        } {
            assert!(self.processes[&worker].told_to_end, "{worker:?} was not told");
            assert!(!self.dispatcher.is_finished(), "{worker:?} still lives");
            match self.dice.below(8) {
                0 => self.reply(worker, AfterReply::InStep),
                1 => self.reply_begins(worker),
                2 => self.tell(Event::Ready(worker)),
                3 => self.tell(Event::Shutdown(StopMode::Kill)),
                4 => self.tell(Event::Roll),
                5 => self.pass_time(Duration::from_secs(1)),
                _ => self.die(worker),
            }
        }
        assert!(self.dispatcher.is_finished());
    }
}

fn simulate(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    // Half of them end in the middle of their work.
    if world.dice.percent(50) {
        world.run_dry();
    }
    world.shut_down();
    world
}

#[test]
fn promises_hold_over_random_orders_of_events() {
    let worlds = seeds::each(|seed| {
        let world = simulate(seed);
        let [queued, with_worker] = world.abandoned;
        [world.answers, world.choices, world.outages, queued, with_worker]
    });
    let shown = [
        "an answer",
        "a choice between workers",
        "an outage",
        "a request that is abandoned in the queue",
        "one that is abandoned when a worker has it",
    ];
    for (place, what) in shown.iter().enumerate() {
        let count: u64 = worlds.iter().map(|counts| counts[place]).sum();
        assert!(count > 0, "simulations without {what} show nothing");
    }
}

#[test]
fn the_same_seed_goes_the_same_way() {
    assert_eq!(simulate(7).trace, simulate(7).trace);
    assert_ne!(simulate(7).trace, simulate(8).trace);
}

/// A stray second reply that comes late passes for the next one's; a worker that never pauses would stay behind for
/// ever.
#[test]
fn a_worker_without_a_pause_is_watched_now_and_then() {
    let policy = Policy {
        workers: PoolSize::fixed(1),
        queue_size: 10_000,
        mode: Mode::Request,
        queue_timeout: Duration::from_secs(60),
        busy_timeout: Duration::from_secs(60),
        pipeline: 1,
        concurrency: None,
        ..policy(&mut Dice::new(1))
    };
    let start = Instant::now();
    let mut dispatcher = Dispatcher::new(
        Policy {
            max_requests: None,
            max_age: None,
            probe_interval: None,
            // One that is not asked to say so would have a moment of its own to be believed in.
            ready_line: true,
            rest: Duration::ZERO,
            ..policy
        },
        start,
        1,
    );
    let actions = |dispatcher: &mut Dispatcher| std::iter::from_fn(|| dispatcher.next_action()).collect::<Vec<_>>();
    let Some(Action::Spawn(worker)) = actions(&mut dispatcher).first().copied() else {
        panic!("a worker is wanted")
    };
    for event in [Event::Started(worker), Event::Ready(worker)] {
        dispatcher.handle(start, event);
    }
    for client in 0..200 {
        let client = ClientId(client);
        dispatcher.handle(start, Event::Request { client, size: 80 });
    }
    let watched = (1..200).find(|replies| {
        let now = start + Duration::from_millis(10) * *replies;
        dispatcher.handle(
            now,
            Event::Reply {
                worker,
                to: ReplyTo::Oldest,
                after: AfterReply::InStep,
            },
        );
        // It is given nothing more before it has been looked at.
        let given = actions(&mut dispatcher)
            .into_iter()
            .filter(|action| matches!(action, Action::Assign(_)));
        *replies > 1 && given.count() == 0
    });
    assert_eq!(watched, Some(100), "after a second at full work");
    let end = dispatcher.next_deadline().expect("the watch has an end");
    dispatcher.handle(end, Event::Tick);
    assert_eq!(actions(&mut dispatcher), [Action::Inspect(worker)]);
    dispatcher.handle(end, Event::Inspected(worker, Inspection::InStep));
    assert!(matches!(actions(&mut dispatcher)[..], [Action::Assign(_)]));
}
