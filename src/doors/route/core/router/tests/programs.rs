//! Routes whose server is started by the first of them.

use super::*;
use crate::doors::route::core::life::PROGRAM_SLACK;
use crate::doors::route::core::starter::{Plan, ProgramId, StopCause};

pub(super) const PLAN: Plan = Plan {
    ready_timeout: Duration::from_secs(30),
    idle: Some(Duration::from_secs(300)),
};
const FAILED: Event<'_> = Event::ConnectFailed(ConnectFault::Absent);

/// Gives the world one service with a program.
pub(super) fn with_program(world: &mut World) -> ProgramId {
    let rule = Rule {
        program: Some(0),
        acme: Some(servers(&["r"])),
        ..rule_both(&["t"], &["h"])
    };
    replace_by(world, vec![("a.example", vec![rule])]);
    let program = world.router.replace_programs(&[(PLAN, Descent::New)], world.now)[0];
    // The one of before is forgotten.
    orders(world);
    program
}

fn orders(world: &mut World) -> Vec<Order> {
    let orders: Vec<Order> = std::iter::from_fn(|| world.router.next_order()).collect();
    orders
        .into_iter()
        .filter(|order| !matches!(order, Order::SetAlarm(_)))
        .collect()
}

fn called(world: &mut World, id: u64) -> Step {
    world.tell(id, Event::Called)
}

#[test]
fn the_first_route_that_finds_no_server_has_its_program_started_and_all_others_wait_for_it() {
    let mut world = World::new(&[]);
    let program = with_program(&mut world);
    let (first, step) = world.asking("a.example");
    assert_eq!((step, world.server(first).as_str()), (Step::Connect, "t:443"));
    let (second, _) = world.requesting(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(world.tell(first, FAILED), Step::Hold);
    assert_eq!(world.tell(second, FAILED), Step::Hold);
    let (third, step) = world.asking("a.example");
    assert_eq!((step, world.life(third).stage()), (Step::Hold, Stage::Starting));
    assert_eq!(
        (world.server(third).as_str(), orders(&mut world)),
        ("t:443", vec![Order::Start(program)])
    );
    assert_eq!(world.router.census().starting, 3);
    assert_eq!(world.router.upstreams().active(), 0);
    world.router.handle_program(program, ProgramEvent::Started, world.now);
    world.now += Duration::from_millis(5);
    world.router.handle_program(program, ProgramEvent::Deadline, world.now);
    assert_eq!(orders(&mut world), [Order::Call(RouteId(first))]);
    assert_eq!(called(&mut world, first), Step::Connect);
    assert_eq!(world.tell(first, FAILED), Step::Hold, "it is tried once more");
    assert_eq!(called(&mut world, second), Step::Hold, "its turn has not come");
    world.now += SECOND;
    assert_eq!(called(&mut world, second), Step::Connect);
    assert_eq!(world.tell(second, Event::Connected), Step::Relay);
    let now = orders(&mut world);
    assert!(now.contains(&Order::Call(RouteId(third))) && now.contains(&Order::Call(RouteId(first))));
    assert_eq!(called(&mut world, third), Step::Connect);
    assert_eq!(world.tell(third, Event::Connected), Step::Relay);
    let counters = world.router.counters();
    assert_eq!(
        (counters.connect_failed, counters.connect_again),
        (0, 0),
        "no server was at fault"
    );
    assert_eq!(world.router.upstreams().out(), 0);
    // A server that fails in another way is at fault.
    assert_eq!(called(&mut world, first), Step::Connect);
    assert_eq!(world.pass(first), answer_of(answer::INTERNAL_ERROR));
    let (fourth, step) = world.asking("a.example");
    assert_eq!(step, Step::Connect);
    let broken_off = Event::ConnectFailed(ConnectFault::Server);
    assert_eq!(world.tell(fourth, broken_off), answer_of(answer::INTERNAL_ERROR));
    let counters = *world.router.counters();
    assert_eq!((world.letters(first), world.letters(fourth)), ("sC", "SC"));
    assert_eq!((counters.connect_late, counters.connect_failed), (1, 1));
    for id in [second, third] {
        world.tell(id, Event::Ended(Side::Client));
        assert_eq!(world.tell(id, Event::Ended(Side::Server)), CLOSE);
    }
    world.now += PLAN.idle.unwrap();
    world.router.handle_program(program, ProgramEvent::Deadline, world.now);
    assert_eq!(orders(&mut world), [Order::Stop(program, StopCause::Idle)]);
}

#[test]
fn a_route_is_refused_when_its_program_fails_and_when_its_time_is_over() {
    let mut world = World::new(&[]);
    let program = with_program(&mut world);
    let (first, _) = world.asking("a.example");
    world.tell(first, FAILED);
    let (second, _) = world.requesting(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    world
        .router
        .handle_program(program, ProgramEvent::NotStarted, world.now);
    assert_eq!(called(&mut world, first), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(called(&mut world, second), page(answer::Page::BadGateway));
    assert_eq!((world.letters(first), world.letters(second)), ("SC", "SC"));
    let (third, _) = world.asking("a.example");
    assert_eq!(world.tell(third, FAILED), Step::Hold);
    let begun = world.now;
    assert_eq!(world.pass(third), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(
        (world.letters(third), world.now - begun),
        ("sC", PLAN.ready_timeout + PROGRAM_SLACK)
    );
}

#[test]
fn a_route_that_waits_keeps_its_time_although_it_has_tried_the_server_meanwhile() {
    let mut world = World::new(&[]);
    let program = with_program(&mut world);
    let (first, _) = world.asking("a.example");
    let begun = world.now;
    world.tell(first, FAILED);
    world.router.handle_program(program, ProgramEvent::Started, world.now);
    for _ in 0..3 {
        world.now += SECOND;
        assert_eq!(called(&mut world, first), Step::Connect);
        assert_eq!(world.tell(first, FAILED), Step::Hold);
    }
    assert_eq!(
        world.life(first).deadline(),
        Some(begun + PLAN.ready_timeout + PROGRAM_SLACK)
    );
}

#[test]
fn a_challenge_of_acme_and_a_redirection_start_no_program() {
    let mut world = World::new(&[]);
    with_program(&mut world);
    let id = world.begin();
    assert_eq!(
        world.tell(id, Event::Bytes(&hello_for("a.example", "acme-tls/1"))),
        Step::Connect
    );
    assert_eq!(world.server(id), "r:443");
    assert_eq!(world.tell(id, FAILED), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(orders(&mut world), []);
    assert_eq!(world.router.counters().connect_failed, 1);
}
