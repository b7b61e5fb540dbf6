use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::doors::command::options::Argument;
use crate::doors::run::{EndCause, RunStep};
use crate::doors::waiters::comparisons;

const TIMING: Timing = Timing {
    read_timeout: Duration::from_secs(30),
    write_timeout: Duration::from_secs(20),
    linger: Duration::from_secs(1),
    quiet: Duration::from_millis(50),
};

fn rule(threads: usize, queue: usize, join: bool, arguments: usize) -> Rule {
    Rule {
        threads,
        arguments: vec![Argument::Any; arguments],
        queue,
        max_wait: Duration::from_secs(5),
        join,
        timeout: Some(Duration::from_secs(60)),
    }
}

fn rules() -> Rules {
    let all = [
        ("one", rule(1, 0, false, 0)),
        ("queue", rule(1, 2, false, 1)),
        ("join", rule(1, 1, true, 1)),
        ("many", rule(3, 0, false, 0)),
    ];
    all.map(|(name, rule)| (name.as_bytes().to_vec(), rule)).into()
}

struct Story {
    scheduler: Scheduler,
    now: Instant,
}

impl Story {
    fn begin() -> Self {
        Story {
            scheduler: Scheduler::new(TIMING, true, rules()),
            now: Instant::now(),
        }
    }

    fn client(&mut self, id: u64, event: ClientEvent) -> Vec<Action> {
        self.scheduler.client_event(ClientId(id), event, self.now);
        self.scheduler.take_actions()
    }

    fn run(&mut self, id: u64, event: RunEvent) -> Vec<Action> {
        self.scheduler.run_event(RunId(id), event, self.now);
        self.scheduler.take_actions()
    }

    /// Connects, and sends these messages.
    fn asks(&mut self, id: u64, words: &[&str]) -> Vec<Action> {
        self.scheduler.connect(ClientId(id), self.now);
        let messages = words.iter().map(|word| ClientEvent::Message(word.as_bytes().to_vec()));
        messages
            .collect::<Vec<_>>()
            .into_iter()
            .flat_map(|message| self.client(id, message))
            .collect()
    }

    /// The run exits, its output has ended.
    fn ends(&mut self, id: u64) -> Vec<Action> {
        let mut actions = self.run(id, RunEvent::OutputOver);
        actions.extend(self.run(id, RunEvent::Exited));
        actions
    }
}

fn start(run: u64, name: &str, arguments: &[&str]) -> Action {
    let arguments = arguments.iter().map(|word| word.as_bytes().to_vec()).collect();
    let name = name.as_bytes().to_vec();
    let run = RunId(run);
    Action::Start { run, name, arguments }
}

fn attach(client: u64, run: u64, leads: bool) -> Action {
    let (client, run) = (ClientId(client), RunId(run));
    Action::Attach { client, run, leads }
}

fn refused(client: u64, name: &str, why: Refusal) -> Action {
    let (client, name) = (ClientId(client), name.as_bytes().to_vec());
    Action::Refuse { client, name, why }
}

#[test]
fn a_client_is_prompted_for_each_argument_and_then_served() {
    let mut story = Story::begin();
    assert_eq!(story.asks(1, &["queue"]), [Action::Prompt(ClientId(1))]);
    let then = story.client(1, ClientEvent::Message(b"x".to_vec()));
    assert_eq!(then, [start(0, "queue", &["x"]), attach(1, 0, true)]);
    story.run(0, RunEvent::Started);
    let (client, run) = (ClientId(1), RunId(0));
    let end = [
        Action::Program(run, RunStep::EndInput),
        Action::Program(run, RunStep::Reap),
        Action::Detach { client, run },
        Action::Drop(run),
    ];
    assert_eq!(story.ends(0), end);
    assert_eq!(story.client(1, ClientEvent::Flushed), [Action::BeginClose(client)]);
    assert_eq!(story.client(1, ClientEvent::Left), [Action::Close(client)]);
    assert!(story.scheduler.is_idle());
}

#[test]
fn an_unknown_or_busy_command_is_refused_at_once() {
    let mut story = Story::begin();
    assert_eq!(story.asks(1, &["none"]), [refused(1, "none", Refusal::NotFound)]);
    story.asks(2, &["one"]);
    assert_eq!(story.asks(3, &["one"]), [refused(3, "one", Refusal::Busy)]);
    story.run(0, RunEvent::Started);
    story.ends(0);
    assert_eq!(story.asks(4, &["one"])[0], start(1, "one", &[]));
    assert_eq!(story.asks(5, &["list"]), [Action::List(ClientId(5))]);
}

#[test]
fn the_request_that_has_waited_longest_is_next_and_one_that_waits_too_long_is_refused() {
    let mut story = Story::begin();
    story.asks(1, &["queue", "a"]);
    for (id, word) in [(2, "b"), (3, "c")] {
        assert_eq!(
            story.asks(id, &["queue", word]),
            [Action::Prompt(ClientId(id))],
            "it waits"
        );
    }
    let told = story.asks(4, &["queue", "d"]);
    assert_eq!(told.last(), Some(&refused(4, "queue", Refusal::Busy)));
    story.run(0, RunEvent::Started);
    assert!(story.ends(0).contains(&start(1, "queue", &["b"])));
    story.now += Duration::from_secs(5);
    assert_eq!(story.client(3, ClientEvent::Tick), [refused(3, "queue", Refusal::Busy)]);
    assert_eq!(story.scheduler.load(b"queue"), Load { running: 1, waiting: 0 });
}

#[test]
fn the_same_request_shares_a_run_and_another_one_does_not() {
    let mut story = Story::begin();
    story.asks(1, &["join", "a"]);
    assert_eq!(story.asks(2, &["join", "a"]).last(), Some(&attach(2, 0, false)));
    assert_eq!(story.asks(3, &["join", "b"]), [Action::Prompt(ClientId(3))], "it waits");
    assert_eq!(
        story.asks(4, &["join", "b"]).last(),
        Some(&refused(4, "join", Refusal::Busy))
    );
    story.run(0, RunEvent::Started);
    // The first goes; the program goes on for the second, without input.
    let gone = story.client(1, ClientEvent::Gone);
    assert!(gone.contains(&Action::Program(RunId(0), RunStep::EndInput)), "{gone:?}");
    assert!(
        !gone.contains(&Action::Program(RunId(0), RunStep::End(EndCause::Deserted))),
        "{gone:?}"
    );
    story.scheduler.close_to_joining(RunId(0));
    assert_eq!(
        story.asks(5, &["join", "a"]).last(),
        Some(&refused(5, "join", Refusal::Busy))
    );
    let gone = story.client(2, ClientEvent::Gone);
    assert!(
        gone.contains(&Action::Program(RunId(0), RunStep::End(EndCause::Deserted))),
        "{gone:?}"
    );
    assert_eq!(story.run(0, RunEvent::Exited).last(), Some(&attach(3, 1, true)));
}

#[test]
fn a_client_that_holds_up_a_shared_run_is_closed_and_one_that_holds_up_its_own_is_not() {
    let mut story = Story::begin();
    story.asks(1, &["join", "a"]);
    story.run(0, RunEvent::Started);
    story.client(1, ClientEvent::Full);
    assert_eq!(story.scheduler.client_deadline(ClientId(1)), None);
    story.asks(2, &["join", "a"]);
    story.client(1, ClientEvent::Full);
    let until = story.scheduler.client_deadline(ClientId(1)).unwrap();
    story.now = until;
    let ended = story.client(1, ClientEvent::Tick);
    assert!(ended.contains(&Action::Close(ClientId(1))), "{ended:?}");
    assert_eq!(story.scheduler.counters.unread, 1);
}

#[test]
fn a_wrong_argument_is_told_by_its_number() {
    let mut story = Story::begin();
    story.scheduler.rules.get_mut(&b"queue"[..]).unwrap().arguments = vec![Argument::Integer(1..=9); 2];
    let told = story.asks(1, &["queue", "5", "10"]);
    let why = "has to be a whole number from 1 to 9".to_owned();
    assert_eq!(
        told.last(),
        Some(&refused(1, "queue", Refusal::Argument { number: 2, why }))
    );
    story.asks(2, &["queue", "5"]);
    let missing = Refusal::Missing { wanted: 2, come: 1 };
    assert_eq!(story.client(2, ClientEvent::Left), [refused(2, "queue", missing)]);
}

#[test]
fn a_message_without_an_end_is_complete_when_nothing_more_comes() {
    let mut story = Story::begin();
    story.scheduler.connect(ClientId(1), story.now);
    story.client(1, ClientEvent::Pending);
    assert_eq!(
        story.scheduler.client_deadline(ClientId(1)),
        Some(story.now + TIMING.quiet)
    );
    assert_eq!(story.client(1, ClientEvent::Tick), [], "early");
    story.now += TIMING.quiet;
    assert_eq!(story.client(1, ClientEvent::Tick), [Action::Complete(ClientId(1))]);
    story.now += TIMING.read_timeout;
    let told = story.client(1, ClientEvent::Tick);
    assert_eq!(
        told,
        [refused(1, "", Refusal::TooSlow)],
        "the whole request has its time"
    );
}

#[test]
fn a_command_that_is_taken_away_is_not_waited_for() {
    let mut story = Story::begin();
    story.asks(1, &["queue", "a"]);
    story.asks(2, &["queue", "b"]);
    let mut left = rules();
    left.remove(&b"queue"[..]);
    story.scheduler.reconfigure(TIMING, true, left, story.now);
    assert_eq!(story.scheduler.take_actions(), [refused(2, "queue", Refusal::NotFound)]);
    story.run(0, RunEvent::Started);
    assert!(story.ends(0).contains(&Action::Drop(RunId(0))), "what runs goes on");
}

#[test]
fn a_raised_limit_serves_the_requests_that_wait() {
    let mut story = Story::begin();
    story.asks(1, &["queue", "a"]);
    story.asks(2, &["queue", "b"]);
    let mut more = rules();
    more.insert(b"queue".to_vec(), rule(2, 2, false, 1));
    story.scheduler.reconfigure(TIMING, true, more, story.now);
    assert_eq!(
        story.scheduler.take_actions(),
        [start(1, "queue", &["b"]), attach(2, 1, true)]
    );
}

#[test]
fn a_request_is_judged_again_when_the_rules_change() {
    let mut story = Story::begin();
    story.asks(1, &["queue", "a"]);
    story.asks(2, &["queue", "b"]);
    story.asks(3, &["queue", "c"]);
    story.asks(4, &["queue"]);
    let mut stricter = rules();
    let only = |word: &str| Argument::OneOf(vec![word.to_owned()]);
    let arguments = vec![only("c")];
    stricter.insert(
        b"queue".to_vec(),
        Rule {
            arguments,
            ..rule(1, 2, false, 1)
        },
    );
    story.scheduler.reconfigure(TIMING, true, stricter, story.now);
    let told = story.scheduler.take_actions();
    let detached = Action::Detach {
        client: ClientId(1),
        run: RunId(0),
    };
    let expected = [
        refused(2, "queue", Refusal::Changed),
        detached,
        refused(1, "queue", Refusal::Changed),
        Action::Drop(RunId(0)),
        start(1, "queue", &["c"]),
        attach(3, 1, true),
    ];
    assert_eq!(told, expected);
    let mut fewer = rules();
    fewer.insert(b"queue".to_vec(), rule(1, 2, false, 0));
    story.run(1, RunEvent::Started);
    story.scheduler.reconfigure(TIMING, true, fewer, story.now);
    let told = story.scheduler.take_actions();
    assert_eq!(told, [refused(4, "queue", Refusal::Changed)], "what runs goes on");
}

#[test]
fn a_client_that_goes_before_its_program_has_ended_counts_as_vanished() {
    let mut story = Story::begin();
    for client in 1..=3 {
        story.asks(client, &["many"]);
        story.run(client - 1, RunEvent::Started);
    }
    story.client(1, ClientEvent::Gone);
    story.run(1, RunEvent::Exited);
    story.client(2, ClientEvent::Gone);
    assert_eq!(story.scheduler.counters.vanished, 1, "the second had ended");
    story.now += Duration::from_secs(60);
    let ended = story.run(2, RunEvent::Tick);
    assert!(ended.contains(&Action::Program(RunId(2), RunStep::End(EndCause::Timeout))));
    story.client(3, ClientEvent::Gone);
    assert_eq!(story.scheduler.counters.vanished, 2);
}

#[test]
fn a_run_from_before_it_was_allowed_is_not_joined() {
    let mut story = Story::begin();
    story.asks(1, &["queue", "a"]);
    story.run(0, RunEvent::Started);
    let mut shared = rules();
    shared.insert(b"queue".to_vec(), rule(1, 0, true, 1));
    story.scheduler.reconfigure(TIMING, true, shared, story.now);
    let told = story.asks(2, &["queue", "a"]);
    assert_eq!(
        told.last(),
        Some(&refused(2, "queue", Refusal::Busy)),
        "its beginning is gone"
    );
}

/// An event of the random story.
#[derive(Debug, Clone)]
enum Turn {
    Connect,
    /// Connects and asks.
    Ask(&'static str, &'static str),
    /// A run goes the usual way to its end.
    Finish(usize),
    Client(usize, ClientEvent),
    Run(usize, RunEvent),
    CloseToJoining(usize),
    Reconfigure(usize),
    Stop,
    Abort,
    Wait(u64),
}

fn turn() -> impl Strategy<Value = Turn> {
    let word = prop::sample::select(vec!["one", "queue", "join", "many", "a", "b", "list", "none"]);
    let message = word.prop_map(|word| ClientEvent::Message(word.as_bytes().to_vec()));
    let other = prop::sample::select(vec![
        ClientEvent::Pending,
        ClientEvent::TooLong,
        ClientEvent::Left,
        ClientEvent::Gone,
        ClientEvent::Full,
        ClientEvent::Standstill,
        ClientEvent::Progress,
        ClientEvent::Flushed,
        ClientEvent::Tick,
    ]);
    let run = prop::sample::select(vec![
        RunEvent::Started,
        RunEvent::Started,
        RunEvent::NotStarted,
        RunEvent::OutputOver,
        RunEvent::Exited,
        RunEvent::Unkillable,
        RunEvent::Tick,
    ]);
    prop_oneof![
        4 => Just(Turn::Connect),
        6 => (prop::sample::select(vec!["one", "queue", "join", "many"]), prop::sample::select(vec!["a", "b"]))
            .prop_map(|(name, argument)| Turn::Ask(name, argument)),
        4 => (0usize..4).prop_map(Turn::Finish),
        12 => (0usize..8, message).prop_map(|(client, event)| Turn::Client(client, event)),
        6 => (0usize..8, other).prop_map(|(client, event)| Turn::Client(client, event)),
        10 => (0usize..4, run).prop_map(|(run, event)| Turn::Run(run, event)),
        1 => (0usize..4).prop_map(Turn::CloseToJoining),
        1 => (0usize..3).prop_map(Turn::Reconfigure),
        1 => Just(Turn::Stop),
        1 => Just(Turn::Abort),
        3 => (0u64..20).prop_map(Turn::Wait),
    ]
}

/// A client that shares its program does not cost the others theirs: it is closed instead, for leaving its output
/// unread.
#[test]
fn a_program_that_waits_for_its_only_client_is_ended_and_the_client_told() {
    let mut story = Story::begin();
    story.asks(1, &["join", "x"]);
    assert_eq!(story.client(1, ClientEvent::Standstill), [], "there is no program yet");
    story.run(0, RunEvent::Started);
    story.asks(2, &["join", "x"]);
    story.client(1, ClientEvent::Full);
    assert_eq!(story.client(1, ClientEvent::Standstill), [], "it is shared");
    story.client(2, ClientEvent::Gone);
    let run = RunId(0);
    let end = [
        Action::Program(run, RunStep::End(EndCause::Standstill)),
        Action::Program(run, RunStep::EndInput),
    ];
    assert_eq!(story.client(1, ClientEvent::Standstill), end);
    assert_eq!(story.client(1, ClientEvent::Standstill), [], "once");
    assert!(story.ends(0).contains(&refused(1, "join", Refusal::Standstill)));
    assert_eq!(story.scheduler.counters.refused, 1);
}

/// The knowledge of a shell about a run.
#[derive(Debug, Default)]
struct Shadow {
    name: Vec<u8>,
    started: bool,
    output_over: bool,
    exited: bool,
    signalled: bool,
    reaped: bool,
    given_up: bool,
    audience: Vec<ClientId>,
}

/// A shell that can do what it is told; the promises of `core/mod.rs` are held against what it is told.
#[derive(Debug, Default)]
struct World {
    runs: BTreeMap<RunId, Shadow>,
    clients: Vec<ClientId>,
    told: Vec<ClientId>,
    next: u64,
}

impl World {
    fn obey(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Start { run, name, .. } => {
                    let shadow = Shadow {
                        name,
                        ..Shadow::default()
                    };
                    assert!(self.runs.insert(run, shadow).is_none(), "started once");
                }
                Action::Attach { client, run, .. } => self.run(run).audience.push(client),
                Action::Detach { client, run } => self.run(run).audience.retain(|other| *other != client),
                Action::Refuse { client, .. } | Action::List(client) => {
                    assert!(!self.told.contains(&client), "{client:?} is told twice");
                    self.told.push(client);
                }
                Action::Close(client) => {
                    assert!(self.clients.contains(&client), "{client:?} is closed twice");
                    self.clients.retain(|other| *other != client);
                    assert!(self.runs.values().all(|run| !run.audience.contains(&client)));
                }
                Action::BeginClose(client) | Action::Prompt(client) | Action::Complete(client) => {
                    assert!(self.clients.contains(&client));
                }
                Action::LeftUnread(client) => assert!(self.clients.contains(&client)),
                Action::Program(run, RunStep::End(_) | RunStep::Kill) => {
                    let run = self.run(run);
                    assert!(run.started && !run.reaped);
                    run.signalled = true;
                }
                Action::Program(run, RunStep::CloseStreams) => self.run(run).output_over = true,
                // One that is not started yet is started without.
                Action::Program(run, RunStep::EndInput) => assert!(!self.run(run).reaped),
                Action::Program(run, RunStep::CutOutput) => {
                    let run = self.run(run);
                    assert!(run.reaped && !run.output_over);
                    run.output_over = true;
                }
                Action::Program(run, RunStep::Reap) => {
                    let run = self.run(run);
                    assert!(run.exited && !run.reaped);
                    run.reaped = true;
                }
                Action::Drop(run) => {
                    let run = self.runs.remove(&run).expect("it is over once");
                    assert!(run.audience.is_empty());
                    assert!(!run.started || run.reaped || run.given_up, "nothing is left behind");
                }
            }
        }
    }

    fn run(&mut self, id: RunId) -> &mut Shadow {
        self.runs.get_mut(&id).expect("a run that is there")
    }

    /// Returns true if this event can happen to a run, and notes it.
    fn possible(&mut self, id: RunId, event: RunEvent) -> bool {
        let run = self.run(id);
        let possible = match event {
            RunEvent::Started | RunEvent::NotStarted => !run.started,
            RunEvent::OutputOver => run.started && !run.output_over,
            RunEvent::Exited => run.started && !run.exited,
            RunEvent::Unkillable => run.signalled && !run.exited,
            RunEvent::Tick => true,
            // The scheduler makes these itself.
            RunEvent::Standstill
            | RunEvent::Overflow
            | RunEvent::Invalid
            | RunEvent::Deserted
            | RunEvent::Stop
            | RunEvent::Abort => false,
        };
        if possible {
            run.started |= event == RunEvent::Started;
            run.output_over |= event == RunEvent::OutputOver;
            run.exited |= event == RunEvent::Exited;
            run.given_up |= event == RunEvent::Unkillable;
        }
        possible
    }
}

fn play(scheduler: &mut Scheduler, world: &mut World, turn: Turn, now: &mut Instant) {
    match turn {
        Turn::Connect => {
            let id = ClientId(world.next);
            world.next += 1;
            world.clients.push(id);
            scheduler.connect(id, *now);
        }
        Turn::Ask(name, argument) => {
            play(scheduler, world, Turn::Connect, now);
            for word in [name, argument] {
                let message = ClientEvent::Message(word.as_bytes().to_vec());
                play(scheduler, world, Turn::Client(0, message), now);
            }
        }
        Turn::Finish(which) => {
            for event in [RunEvent::Started, RunEvent::OutputOver, RunEvent::Exited] {
                play(scheduler, world, Turn::Run(which, event), now);
            }
        }
        Turn::Client(which, event) => {
            if let Some(id) = world.clients.iter().rev().nth(which).copied() {
                scheduler.client_event(id, event, *now);
            }
        }
        Turn::Run(which, event) => {
            if let Some(id) = world
                .runs
                .keys()
                .nth(which)
                .copied()
                .filter(|id| world.possible(*id, event))
            {
                scheduler.run_event(id, event, *now);
            }
        }
        Turn::CloseToJoining(which) => {
            if let Some(id) = world.runs.keys().nth(which) {
                scheduler.close_to_joining(*id);
            }
        }
        Turn::Reconfigure(threads) => {
            let mut changed = rules();
            match threads {
                0 => drop(changed.remove(&b"queue"[..])),
                threads => drop(changed.insert(b"queue".to_vec(), rule(threads, 1, true, threads % 2))),
            }
            scheduler.reconfigure(TIMING, true, changed, *now);
        }
        Turn::Stop => scheduler.stop(*now),
        Turn::Abort => scheduler.abort(*now),
        Turn::Wait(seconds) => *now += Duration::from_secs(seconds),
    }
    world.obey(scheduler.take_actions());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_promises_hold_and_everything_ends(story in prop::collection::vec(turn(), 0..120)) {
        let mut scheduler = Scheduler::new(TIMING, true, rules());
        let (mut world, mut now) = (World::default(), Instant::now());
        let mut changed = false;
        for turn in story {
            changed |= matches!(turn, Turn::Reconfigure(_));
            play(&mut scheduler, &mut world, turn, &mut now);
            for name in ["one", "queue", "join", "many"].map(str::as_bytes) {
                let running = world.runs.values().filter(|run| run.name == name).count();
                prop_assert_eq!(running, scheduler.load(name).running);
                let threads = rules()[name].threads;
                prop_assert!(changed || running <= threads);
            }
        }
        // All clients leave, and every program ends.
        for _ in 0..world.clients.len() {
            play(&mut scheduler, &mut world, Turn::Client(0, ClientEvent::Gone), &mut now);
        }
        for _ in 0..world.runs.len() {
            for event in [RunEvent::Started, RunEvent::Exited, RunEvent::Unkillable, RunEvent::OutputOver] {
                play(&mut scheduler, &mut world, Turn::Run(0, event), &mut now);
            }
        }
        prop_assert!(world.runs.is_empty(), "{:?}", world.runs);
        prop_assert!(world.clients.is_empty());
        prop_assert!(scheduler.is_idle());
    }
}

/// A story with a command `wide`, of which one runs and a million may wait, without the checks of debug builds, which
/// look at every client after each event.
fn wide() -> Story {
    let mut all = rules();
    all.insert(b"wide".to_vec(), rule(1, 1_000_000, true, 1));
    let mut story = Story {
        scheduler: Scheduler::new(TIMING, false, all),
        now: Instant::now(),
    };
    story.scheduler.is_checked = false;
    story
}

/// All clients in a queue, and all that share a run, go in one moment.
#[test]
fn thousands_that_go_together_cost_each_the_logarithm_of_their_number() {
    const MANY: u64 = 3000;
    let mut story = wide();
    story.asks(0, &["wide", "shared"]);
    for id in 1..=MANY {
        let word = format!("{}", id / 2);
        story.asks(id, &["wide", &word]);
    }
    for id in MANY + 1..=2 * MANY {
        story.asks(id, &["wide", "shared"]);
    }
    let load = story.scheduler.load(b"wide");
    assert_eq!((load.running, load.waiting), (1, 3000));
    let before = comparisons();
    for id in (1..=2 * MANY).rev() {
        assert_eq!(
            story.client(id, ClientEvent::Gone).last(),
            Some(&Action::Close(ClientId(id)))
        );
    }
    let spent = comparisons() - before;
    assert!(spent < 100 * MANY, "{spent} comparisons for {MANY} that went");
    assert_eq!(story.scheduler.load(b"wide").waiting, 0);
}

/// A request that equals the one just started is found by its arguments, not among all that wait.
#[test]
fn a_start_costs_nothing_for_requests_with_other_arguments() {
    const MANY: u64 = 2000;
    let mut story = wide();
    for id in 0..MANY {
        story.asks(id, &["wide", &id.to_string()]);
    }
    let before = comparisons();
    for run in 0..MANY {
        story.run(run, RunEvent::Started);
        story.ends(run);
    }
    let spent = comparisons() - before;
    assert!(spent < 100 * MANY, "{spent} comparisons for {MANY} starts");
}

#[test]
fn a_client_that_connects_while_the_door_closes_has_no_longer_than_the_others() {
    let mut story = Story::begin();
    let by = story.now + Duration::from_secs(2);
    story.scheduler.connect(ClientId(1), story.now);
    story.scheduler.hasten(by);
    story.now += Duration::from_secs(1);
    story.scheduler.connect(ClientId(2), story.now);
    for id in [1, 2] {
        assert_eq!(story.scheduler.client_deadline(ClientId(id)), Some(by), "client {id}");
    }
    story.now = by;
    assert_eq!(story.client(2, ClientEvent::Tick), [refused(2, "", Refusal::Stop)]);
}
