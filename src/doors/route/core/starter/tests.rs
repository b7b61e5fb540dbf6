//! The starter, driven by connections and events of programs alone.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const PLAN: Plan = Plan {
    ready_timeout: Duration::from_secs(30),
    idle: Some(Duration::from_secs(300)),
};

/// A starter and its connections: one that waits has its place, one that connects or is connected has none.
struct World {
    starter: Starter,
    now: Instant,
    program: ProgramId,
    routes: BTreeMap<u64, Option<Place>>,
    next: u64,
    /// The orders that were not looked at yet.
    orders: Vec<Order>,
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Connect,
    Wait,
    Refuse(Failure),
}

impl World {
    fn new() -> World {
        let mut starter = Starter::new(1);
        let now = Instant::now();
        let ids = starter.replace(&[(PLAN, Descent::New)], now);
        World {
            starter,
            now,
            program: ids[0],
            routes: BTreeMap::new(),
            next: 0,
            orders: Vec::new(),
        }
    }

    fn take(&mut self, route: u64, reply: Reply) -> Told {
        while let Some(order) = self.starter.next_order() {
            self.orders.push(order);
        }
        match reply {
            Reply::Connect => {
                self.routes.insert(route, None);
                Told::Connect
            }
            Reply::Wait(place) => {
                self.routes.insert(route, Some(place));
                Told::Wait
            }
            Reply::Refuse(failure) => {
                self.routes.remove(&route);
                Told::Refuse(failure)
            }
        }
    }

    fn ask(&mut self) -> (u64, Told) {
        let route = self.next;
        self.next += 1;
        let reply = self.starter.ask(self.program, RouteId(route), self.now);
        let told = self.take(route, reply);
        (route, told)
    }

    fn missed(&mut self, route: u64) -> Told {
        let reply = self.starter.missed(self.program, RouteId(route), self.now);
        self.take(route, reply)
    }

    fn called(&mut self, route: u64) -> Told {
        let place = self.routes.insert(route, None).flatten().expect("a route that waits");
        let reply = self.starter.called(self.program, &place, RouteId(route), self.now);
        self.take(route, reply)
    }

    fn connected(&mut self, route: u64) {
        assert!(matches!(self.routes.get(&route), Some(None)), "{route} may connect");
        self.starter.connected(self.program, self.now);
        self.drain();
    }

    fn end(&mut self, route: u64) {
        match self.routes.remove(&route).expect("a route") {
            Some(place) => self.starter.leave(self.program, &place, self.now),
            None => self.starter.release(self.program, self.now),
        }
        self.drain();
    }

    fn tell(&mut self, event: ProgramEvent) {
        self.starter.handle(self.program, event, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(order) = self.starter.next_order() {
            self.orders.push(order);
        }
    }

    /// The orders since the last look, but for those about alarms.
    fn orders(&mut self) -> Vec<Order> {
        let orders = std::mem::take(&mut self.orders);
        orders
            .into_iter()
            .filter(|order| !matches!(order, Order::SetAlarm(_)))
            .collect()
    }

    /// Lets the time of the deadline come.
    fn pass(&mut self) {
        self.now = self.starter.deadline(self.program).expect("a deadline");
        self.tell(ProgramEvent::Deadline);
    }

    fn stage(&self) -> Stage {
        self.starter.view(self.program).expect("the program").0
    }

    /// A connection that has found no server, so that the program was started.
    fn starting(&mut self) -> u64 {
        let (first, told) = self.ask();
        assert_eq!(told, Told::Connect);
        assert_eq!(self.missed(first), Told::Wait);
        assert_eq!(self.orders(), [Order::Start(self.program)]);
        self.tell(ProgramEvent::Started);
        first
    }

    /// A program that is up, with one connection.
    fn up(&mut self) -> u64 {
        let first = self.starting();
        self.pass();
        assert_eq!(self.orders(), [Order::Call(RouteId(first))]);
        assert_eq!(self.called(first), Told::Connect);
        self.connected(first);
        assert_eq!(self.orders(), [Order::TellReady(self.program, FIRST_PAUSE)]);
        assert_eq!(self.stage(), Stage::Up);
        first
    }
}

#[test]
fn a_thousand_connections_at_once_start_a_program_once_and_are_called_when_its_server_is_there() {
    let mut world = World::new();
    let all: Vec<u64> = (0..1000).map(|_| world.ask().0).collect();
    for route in &all {
        assert_eq!(world.missed(*route), Told::Wait);
    }
    assert_eq!(world.orders(), [Order::Start(world.program)]);
    world.tell(ProgramEvent::Started);
    // One connection after the other tries the server.
    for tries in 1..=20 {
        world.pass();
        let [Order::Call(RouteId(route))] = world.orders()[..] else {
            panic!("one is called")
        };
        assert_eq!(world.called(route), Told::Connect);
        if tries < 20 {
            assert_eq!(world.missed(route), Told::Wait);
        } else {
            world.connected(route);
        }
    }
    let orders = world.orders();
    let called = orders.iter().filter(|order| matches!(order, Order::Call(_))).count();
    assert_eq!((called, orders.len()), (999, 1000));
    for order in orders {
        if let Order::Call(RouteId(route)) = order {
            assert_eq!(world.called(route), Told::Connect);
            world.connected(route);
        }
    }
    assert_eq!((world.orders(), world.starter.counts().started), (Vec::new(), 1));
}

#[test]
fn the_pauses_between_attempts_grow_and_are_bounded() {
    let mut world = World::new();
    let route = world.starting();
    let (mut before, mut pauses) = (world.now, Vec::new());
    for _ in 0..12 {
        world.pass();
        assert_eq!(world.called(route), Told::Connect);
        assert_eq!(world.missed(route), Told::Wait);
        pauses.push(world.now - before);
        before = world.now;
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    assert_eq!((pauses[0], pauses[11]), (FIRST_PAUSE, LONGEST_PAUSE));
}

#[test]
fn a_server_that_is_there_without_its_program_is_used_and_nothing_is_started() {
    let mut world = World::new();
    for _ in 0..3 {
        let (route, told) = world.ask();
        assert_eq!(told, Told::Connect);
        world.connected(route);
        world.end(route);
    }
    assert_eq!((world.orders(), world.stage()), (Vec::new(), Stage::Stopped));
    assert_eq!(world.starter.deadline(world.program), None);
}

#[test]
fn a_program_that_is_late_is_stopped_and_all_that_wait_are_refused() {
    let mut world = World::new();
    let first = world.starting();
    let second = world.ask().0;
    world.now += PLAN.ready_timeout;
    world.tell(ProgramEvent::Deadline);
    let program = world.program;
    let calls = [first, second].map(|route| Order::Call(RouteId(route)));
    assert_eq!(
        world.orders(),
        [calls[0], calls[1], Order::Stop(program, StopCause::Late)]
    );
    assert_eq!(world.called(first), Told::Refuse(Failure::Late));
    // One that comes meanwhile waits for the end, and for another start.
    let (third, told) = world.ask();
    assert_eq!(told, Told::Wait);
    assert_eq!(world.called(second), Told::Refuse(Failure::Late));
    world.tell(ProgramEvent::Exited);
    assert_eq!(world.orders(), [Order::Call(RouteId(third))]);
    assert_eq!(world.called(third), Told::Connect);
    assert_eq!(world.missed(third), Told::Wait);
    assert_eq!(world.orders(), [Order::Start(program)]);
    assert_eq!(world.starter.counts().failed, 1);
}

#[test]
fn a_program_that_fails_again_and_again_rests_for_longer_each_time() {
    let mut world = World::new();
    let mut rests = Vec::new();
    for failure in 1..=10 {
        let route = world.starting();
        world.tell(ProgramEvent::Exited);
        assert_eq!(world.orders(), [Order::Call(RouteId(route))]);
        assert_eq!(world.called(route), Told::Refuse(Failure::Exited));
        let begin = world.now;
        let mut refused = 0;
        while world.stage() == Stage::Resting {
            match world.ask() {
                (_, Told::Refuse(Failure::Exited)) => refused += 1,
                (route, told) => {
                    assert_eq!(told, Told::Connect, "its rest is over");
                    world.end(route);
                }
            }
            world.now += SECOND / 10;
        }
        assert_eq!(refused > 0, failure > 1);
        rests.push(world.now - begin);
    }
    assert_eq!(rests[0], Duration::ZERO, "one failure costs nothing");
    assert!(rests[1] >= SECOND * 9 / 10 && rests[1] <= SECOND * 13 / 10, "{rests:?}");
    assert!(rests[3] > rests[2] && rests[2] > rests[1], "{rests:?}");
    assert!(
        rests[9] >= LONGEST_REST * 9 / 10 && rests[9] <= LONGEST_REST * 12 / 10,
        "{rests:?}"
    );
    assert_eq!(world.starter.counts().failed, 10);
}

#[test]
fn a_program_that_could_not_be_started_is_a_failure_as_well() {
    let mut world = World::new();
    let (route, _) = world.ask();
    world.missed(route);
    world.orders();
    world.tell(ProgramEvent::NotStarted);
    assert_eq!(world.called(route), Told::Refuse(Failure::Exited));
    let counts = world.starter.counts();
    assert_eq!((counts.started, counts.failed), (0, 1));
}

#[test]
fn a_program_that_nothing_uses_is_stopped_after_its_idle_time_and_started_again() {
    let mut world = World::new();
    let first = world.up();
    assert_eq!(world.starter.deadline(world.program), None, "it is used");
    world.end(first);
    world.now += PLAN.idle.unwrap() / 2;
    let (second, told) = world.ask();
    assert_eq!(told, Told::Connect);
    world.connected(second);
    world.now += PLAN.idle.unwrap();
    world.tell(ProgramEvent::Deadline);
    assert_eq!(world.orders(), [], "it is used again");
    world.end(second);
    let unused = world.now;
    world.pass();
    assert_eq!(world.now - unused, PLAN.idle.unwrap());
    assert_eq!(world.orders(), [Order::Stop(world.program, StopCause::Idle)]);
    let (third, told) = world.ask();
    assert_eq!(told, Told::Wait);
    world.tell(ProgramEvent::Exited);
    assert_eq!(world.called(third), Told::Connect);
    assert_eq!(world.missed(third), Told::Wait);
    world.orders.retain(|order| matches!(order, Order::Start(_)));
    assert_eq!(world.orders(), [Order::Start(world.program)]);
    assert_eq!(world.starter.counts().failed, 0);
}

#[test]
fn a_program_without_an_idle_time_is_never_stopped() {
    let mut world = World::new();
    let plan = Plan { idle: None, ..PLAN };
    world
        .starter
        .replace(&[(plan, Descent::Same(world.program))], world.now);
    let first = world.up();
    world.end(first);
    assert_eq!(
        (world.starter.deadline(world.program), world.stage()),
        (None, Stage::Up)
    );
}

#[test]
fn a_program_that_dies_is_started_again_by_the_next_connection_and_rests_if_it_dies_young_again() {
    let mut world = World::new();
    for death in 1..=3 {
        let first = world.up();
        // It has gone, which a connection sees first.
        let (second, told) = world.ask();
        assert_eq!(told, Told::Connect);
        assert_eq!(world.missed(second), Told::Wait);
        world.end(first);
        world.tell(ProgramEvent::Exited);
        assert_eq!(world.orders(), [Order::Call(RouteId(second))]);
        let told = world.called(second);
        if death == 1 {
            assert_eq!(told, Told::Connect, "it starts the program again");
            world.end(second);
        } else {
            assert_eq!(told, Told::Refuse(Failure::Exited), "{death}");
            world.now += 2 * LONGEST_REST;
        }
    }
    let first = world.up();
    world.now += SETTLED;
    world.tell(ProgramEvent::Exited);
    world.end(first);
    assert_eq!(world.ask().1, Told::Connect, "its life was long");
}

#[test]
fn a_server_that_refuses_for_a_while_keeps_the_connections_that_it_has() {
    let mut world = World::new();
    let first = world.up();
    let (second, _) = world.ask();
    assert_eq!(world.missed(second), Told::Wait);
    assert_eq!(world.stage(), Stage::Starting);
    world.now += PLAN.ready_timeout;
    world.tell(ProgramEvent::Deadline);
    assert_eq!(world.orders(), [Order::Call(RouteId(second))]);
    assert_eq!(world.stage(), Stage::Up);
    world.end(first);
    // Without any, it is late as any other.
    assert_eq!(world.called(second), Told::Connect);
    assert_eq!(world.missed(second), Told::Wait);
    world.now += PLAN.ready_timeout;
    world.tell(ProgramEvent::Deadline);
    assert!(world.orders().contains(&Order::Stop(world.program, StopCause::Late)));
}

#[test]
fn a_program_whose_clients_have_all_left_before_it_was_tried_counts_as_up() {
    let mut world = World::new();
    let first = world.starting();
    world.end(first);
    world.pass();
    assert_eq!((world.orders(), world.stage()), (Vec::new(), Stage::Up));
    world.pass();
    assert_eq!(world.orders(), [Order::Stop(world.program, StopCause::Idle)]);
}

#[test]
fn a_connection_that_was_called_and_has_left_holds_up_no_other() {
    let mut world = World::new();
    let first = world.starting();
    let second = world.ask().0;
    world.pass();
    assert_eq!(world.orders(), [Order::Call(RouteId(first))]);
    world.end(first);
    world.pass();
    assert_eq!(world.orders(), [Order::Call(RouteId(second))]);
    assert_eq!(world.called(second), Told::Connect);
}

#[test]
fn a_changed_program_is_replaced_when_no_connection_has_it() {
    let mut world = World::new();
    let first = world.up();
    let changed = [(PLAN, Descent::Changed(world.program))];
    assert_eq!(world.starter.replace(&changed, world.now), [world.program]);
    world.drain();
    assert_eq!(world.orders(), []);
    let (second, told) = world.ask();
    assert_eq!(told, Told::Connect, "the old one serves as long as it is there");
    world.connected(second);
    world.end(first);
    assert_eq!(world.orders(), []);
    world.end(second);
    assert_eq!(world.orders(), [Order::Stop(world.program, StopCause::Unwanted)]);
    let (third, told) = world.ask();
    assert_eq!(told, Told::Wait);
    world.tell(ProgramEvent::Exited);
    assert_eq!(world.called(third), Told::Connect);
    assert_eq!(world.missed(third), Told::Wait);
    assert!(world.orders().contains(&Order::Start(world.program)));
    world.tell(ProgramEvent::Started);
    world.pass();
    world.called(third);
    world.connected(third);
    world.end(third);
    assert_eq!(world.stage(), Stage::Up, "this is the new one");
}

#[test]
fn a_program_without_a_plan_ends_when_nothing_uses_it_and_is_forgotten() {
    let mut world = World::new();
    let first = world.up();
    let others = world.starter.replace(&[(PLAN, Descent::New)], world.now);
    assert!(!others.contains(&world.program));
    world.drain();
    assert_eq!(world.orders(), []);
    world.end(first);
    assert_eq!(world.orders(), [Order::Stop(world.program, StopCause::Unwanted)]);
    world.tell(ProgramEvent::Exited);
    assert_eq!(world.orders(), [Order::Forget(world.program)]);
    assert_eq!(world.ask().1, Told::Refuse(Failure::Exited));
    // One that never ran is forgotten at once.
    world.starter.replace(&[], world.now);
    world.drain();
    assert_eq!(world.orders(), [Order::Forget(others[0])]);
}

#[test]
fn at_the_end_of_the_door_connections_that_wait_are_served_before_their_program_ends() {
    let mut world = World::new();
    let first = world.starting();
    world.starter.retire_all(world.now);
    world.drain();
    assert_eq!(world.orders(), []);
    world.pass();
    assert_eq!(world.called(first), Told::Connect);
    world.connected(first);
    // A client whose wish was not complete before.
    let (second, told) = world.ask();
    assert_eq!(told, Told::Connect);
    world.connected(second);
    world.orders();
    world.end(first);
    assert_eq!(world.orders(), []);
    world.end(second);
    assert_eq!(world.orders(), [Order::Stop(world.program, StopCause::Unwanted)]);
    world.tell(ProgramEvent::Exited);
    assert_eq!(world.orders(), [], "it has a plan, and may be started again");
    assert_eq!(world.ask().1, Told::Connect);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever happens in whatever order: there is one process at a time, nothing that waits is forgotten, and nothing is
    /// counted that has left.
    #[test]
    fn there_is_one_process_at_a_time_and_nothing_that_waits_is_forgotten(
        acts in prop::collection::vec((0..12u8, any::<prop::sample::Index>(), 0..40_000u64), 1..200)
    ) {
        let mut world = World::new();
        let mut process = Process::None;
        let mut called = BTreeSet::new();
        for (act, which, wait) in acts {
            world.now += Duration::from_millis(wait);
            let keys: Vec<u64> = world.routes.keys().copied().collect();
            let route = (!keys.is_empty()).then(|| keys[which.index(keys.len())]);
            let waits = route.is_some_and(|route| world.routes[&route].is_some());
            match (act, route) {
                (0..=2, _) => { world.ask(); }
                (3, Some(route)) => { world.end(route); called.remove(&route); }
                (4 | 5, Some(route)) if !waits => { world.missed(route); }
                (6, Some(route)) if !waits => world.connected(route),
                (7, Some(_)) => {
                    if let Some(route) = called.pop_first() {
                        world.called(route);
                    }
                }
                (8, _) if process == Process::Ordered => { process = Process::Runs; world.tell(ProgramEvent::Started); }
                (9, _) if process == Process::Ordered => { process = Process::None; world.tell(ProgramEvent::NotStarted); }
                (9, _) if process != Process::None => { process = Process::None; world.tell(ProgramEvent::Exited); }
                (10, _) => { world.starter.replace(&[(PLAN, Descent::Changed(world.program))], world.now); world.drain(); }
                _ => world.tell(ProgramEvent::Deadline),
            }
            for order in world.orders() {
                match order {
                    Order::Start(_) => {
                        prop_assert_eq!(process, Process::None);
                        process = Process::Ordered;
                    }
                    Order::Stop(..) => prop_assert_ne!(process, Process::None),
                    Order::Call(RouteId(route)) => { called.insert(route); }
                    Order::TellReady(..) | Order::SetAlarm(_) => {}
                    Order::Forget(_) => prop_assert!(false, "it has a plan"),
                }
            }
            called.retain(|route| world.routes.get(route).is_some_and(Option::is_some));
            let waiting = world.routes.values().filter(|place| place.is_some()).count();
            let (stage, known, active) = world.starter.view(world.program).expect("the program");
            prop_assert_eq!((known, active), (waiting, world.routes.len() - waiting));
            // A connection that waits was called, or waits for a process that is there and for a time that comes.
            let has_uncalled = world.routes.iter().any(|(route, place)| place.is_some() && !called.contains(route));
            if has_uncalled {
                prop_assert_ne!(process, Process::None, "{:?}", stage);
                if stage == Stage::Starting {
                    prop_assert!(world.starter.deadline(world.program).is_some());
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Process {
    None,
    Ordered,
    Runs,
}
