//! Routes whose server is a tunnel client.

use super::*;
use crate::doors::route::core::secrets::{Secret, Tunnel};
use crate::doors::route::core::table::Address;
use crate::doors::route::core::tunnels::SessionId;

const FAILED: Event<'_> = Event::ConnectFailed(ConnectFault::Server);

/// Gives the world one service that tunnel clients serve.
fn with_tunnel(world: &mut World) {
    replace_by(world, vec![("a.example", vec![rule()])]);
}

/// A rule by which tunnel clients serve.
pub(super) fn rule() -> Rule {
    Rule {
        target: Target::Tunnel(Tunnel {
            secret: secret(),
            takes_newest_alone: false,
        }),
        ..rule_both(&[], &[])
    }
}

/// Has tunnel clients expected for [`PATIENCE`] from now on.
pub(super) fn expect(world: &mut World) {
    let now = world.now;
    let tunnels = world.router.tunnels_mut();
    tunnels.set_patience(PATIENCE);
    tunnels.expect_all(now);
}

const PATIENCE: Duration = Duration::from_secs(10);

/// Lets a tunnel client leave, whose routes have given their streams back.
fn leave(world: &mut World, session: SessionId) {
    let now = world.now;
    world.router.tunnels_mut().leave(session, now);
}

fn secret() -> Secret {
    Secret::new(b"secret").expect("a secret")
}

/// A tunnel client that serves the service.
fn enter(world: &mut World, id: u64) -> SessionId {
    let address = Address::Tunnel(id.to_string().into());
    world
        .router
        .tunnels_mut()
        .enter(SessionId(id), secret(), address.into());
    SessionId(id)
}

#[test]
fn a_route_has_a_stream_until_it_ends_and_its_tunnel_counts_it() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    let session = enter(&mut world, 7);
    let (id, step) = world.asking("a.example");
    assert_eq!(
        (step, world.server(id).as_str()),
        (Step::OpenStream(session), "tunnel:7")
    );
    assert_eq!(world.life(id).opens_stream_of(), Some(session));
    assert_eq!(world.tell(id, Event::Connected), Step::Relay);
    assert_eq!(world.life(id).opens_stream_of(), None);
    assert_eq!(world.router.tunnels().streams(), 1);
    world.tell(id, Event::Ended(Side::Client));
    world.tell(id, Event::Ended(Side::Server));
    assert_eq!(world.router.tunnels().streams(), 0);
    assert_eq!(world.router.upstreams().known(), 0);
}

#[test]
fn a_stream_that_cannot_be_opened_is_tried_once_in_another_tunnel() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    let [first, second, third] = [1, 2, 3].map(|id| enter(&mut world, id));
    let (id, step) = world.asking("a.example");
    assert_eq!(step, Step::OpenStream(third));
    assert_eq!(world.tell(id, FAILED), Step::OpenStream(second));
    assert!(matches!(world.tell(id, FAILED), Step::Answer(_)));
    assert_eq!(world.life(id).ending(), Some(Ending::ServerFailed));
    assert_eq!(world.router.counters().connect_failed, 2);
    // Of the tunnels none is out for that.
    for session in [third, second, first] {
        let (id, step) = world.asking("a.example");
        assert_eq!(step, Step::OpenStream(session));
        world.tell(id, Event::Connected);
    }
}

#[test]
fn a_route_without_a_tunnel_client_is_refused() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    let (id, step) = world.asking("a.example");
    assert!(matches!(step, Step::Answer(_)), "{step:?}");
    assert_eq!(world.life(id).ending(), Some(Ending::NoServer));
}

/// Until it is back, in the order in which they have come, and for as long as it may be away.
#[test]
fn routes_wait_for_a_tunnel_client_that_was_there_a_moment_ago() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    world.router.tunnels_mut().set_patience(PATIENCE);
    let session = enter(&mut world, 1);
    leave(&mut world, session);
    world.now += PATIENCE / 2;
    let [first, second, third] = [0, 1, 2].map(|_| {
        let (id, step) = world.asking("a.example");
        assert_eq!((step, world.life(id).stage()), (Step::Hold, Stage::Expecting));
        assert_eq!(world.life(id).deadline(), Some(world.now + PATIENCE / 2));
        id
    });
    assert_eq!(world.router.next_expectant(), None);
    world.tell(second, Event::Lost(Side::Client));
    let session = enter(&mut world, 2);
    for id in [first, third] {
        assert_eq!(world.router.next_expectant(), Some(RouteId(id)));
        assert_eq!(world.tell(id, Event::ClientCame), Step::OpenStream(session));
        assert_eq!(world.tell(id, Event::Connected), Step::Relay);
    }
    assert_eq!(
        (world.router.next_expectant(), world.router.tunnels().expecting()),
        (None, 0)
    );
    assert_eq!(world.router.counters().expected, 3);
}

#[test]
fn a_route_whose_tunnel_client_comes_and_leaves_again_waits_on_to_its_end() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    expect(&mut world);
    let (id, step) = world.asking("a.example");
    assert_eq!(step, Step::Hold);
    let session = enter(&mut world, 1);
    assert_eq!(world.router.next_expectant(), Some(RouteId(id)));
    leave(&mut world, session);
    assert_eq!(world.tell(id, Event::ClientCame), Step::Nothing);
    assert_eq!(world.router.tunnels().expecting(), 1);
    world.now += PATIENCE;
    assert!(matches!(world.tell(id, Event::Deadline), Step::Answer(_)));
    assert_eq!(world.life(id).ending(), Some(Ending::NoServer));
    assert_eq!(world.router.tunnels().expecting(), 0);
    // Nothing is expected any more.
    world.now += PATIENCE;
    let (id, _) = world.asking("a.example");
    assert_eq!(world.life(id).ending(), Some(Ending::NoServer));
}

#[test]
fn a_route_whose_last_tunnel_client_fails_it_waits_for_the_next() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    world.router.tunnels_mut().set_patience(PATIENCE);
    let session = enter(&mut world, 1);
    let (id, step) = world.asking("a.example");
    assert_eq!(step, Step::OpenStream(session));
    let now = world.now;
    world.router.tunnels_mut().note_gone_away(session, now);
    assert_eq!(world.tell(id, FAILED), Step::Hold);
    leave(&mut world, session);
    let next = enter(&mut world, 2);
    assert_eq!(world.router.next_expectant(), Some(RouteId(id)));
    assert_eq!(world.tell(id, Event::ClientCame), Step::OpenStream(next));
    // One that is there and refuses is none that is expected.
    assert!(matches!(world.tell(id, FAILED), Step::Answer(_)));
}

#[test]
fn a_route_that_waits_too_long_for_its_stream_goes_to_another_tunnel() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    let [first, second] = [1, 2].map(|id| enter(&mut world, id));
    let (id, step) = world.asking("a.example");
    assert_eq!(step, Step::OpenStream(second));
    world.now = world.life(id).deadline().expect("a deadline");
    assert_eq!(world.tell(id, Event::Deadline), Step::OpenStream(first));
    assert_eq!(world.router.counters().connect_late, 1);
}

#[test]
fn a_stream_that_is_reset_before_anything_came_is_told_as_a_server_that_is_down() {
    let mut world = World::new(&[]);
    with_tunnel(&mut world);
    enter(&mut world, 1);
    for (event, is_answered) in [(FAILED, true), (Event::Lost(Side::Server), false)] {
        let (id, _) = world.asking("a.example");
        world.tell(id, Event::Connected);
        let step = world.tell(id, event);
        assert_eq!(matches!(step, Step::Answer(_)), is_answered, "{step:?}");
        assert_eq!(world.router.tunnels().streams(), 0);
    }
    // A server that was connected to never fails to be.
    let mut world = World::new(&[("a.example", &["t"])]);
    let (id, _) = world.asking("a.example");
    world.tell(id, Event::Connected);
    assert_eq!(world.tell(id, FAILED), Step::Nothing);
}
