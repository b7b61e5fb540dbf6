//! The router, driven by events alone.

mod programs;
mod tunnels;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::doors::route::core::ending::Refusal;
use crate::doors::route::core::event::ConnectFault;
use crate::doors::route::core::exchange::{self, Given};
use crate::doors::route::core::head::{self, Head};
use crate::doors::route::core::life::{HALF_CLOSED, Stage};
use crate::doors::route::core::opening::{Fault, NoTls, SSL_REQUEST};
use crate::doors::route::core::starter::{Descent, Order, ProgramEvent};
use crate::doors::route::core::table::tests::{rule_to, servers};
use crate::doors::route::core::table::{EndedTls, Pattern, Rule, Target};
use crate::doors::route::core::{answer, body};

const SECOND: Duration = Duration::from_secs(1);
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const CLIENT: ClientKey = ClientKey(1);

fn vector(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    [&length, data].concat()
}

/// A ClientHello with this name.
fn hello(name: &str) -> Vec<u8> {
    let host = [&[0][..], &vector(name.as_bytes())].concat();
    let extension = [&[0, 0][..], &vector(&vector(&host))].concat();
    let body = [
        b"\x03\x03RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR\0\0\x02\x13\x01\x01\0",
        &vector(&extension)[..],
    ];
    let message = [&[1, 0][..], &vector(&body.concat())].concat();
    [b"\x16\x03\x01", &vector(&message)[..]].concat()
}

struct World {
    router: Router,
    now: Instant,
    lives: BTreeMap<u64, Life>,
    next: u64,
}

/// A table of these services, each with these hosts.
fn table(services: &[(&str, &[&str])]) -> Arc<Table> {
    let mut table = Table::default();
    for (name, hosts) in services {
        let rule = Rule {
            idle_timeout: Some(3600 * SECOND),
            // For the test of all events.
            program: (*name == "c.other" && hosts.len() == 1).then_some(0),
            ..rule_to(&servers(hosts))
        };
        table.insert(name.parse().expect(name), [rule]);
    }
    Arc::new(table)
}

impl World {
    fn new(services: &[(&str, &[&str])]) -> World {
        let mut world = World {
            router: Router::new(HELLO_TIMEOUT, 1),
            now: Instant::now(),
            lives: BTreeMap::new(),
            next: 0,
        };
        world.replace(Source::File, services);
        let plan = (programs::PLAN, Descent::New);
        world.router.replace_programs(&[plan], world.now);
        world
    }

    fn replace(&mut self, source: Source, services: &[(&str, &[&str])]) {
        _ = self.router.replace_table(source, table(services));
    }

    fn begin(&mut self) -> u64 {
        self.begin_at(Entrance::Tls)
    }

    fn begin_at(&mut self, entrance: Entrance) -> u64 {
        let id = self.next;
        self.next += 1;
        let life = self.router.begin(entrance, CLIENT, self.now);
        self.lives.insert(id, life);
        id
    }

    fn tell(&mut self, id: u64, event: Event<'_>) -> Step {
        let life = self.lives.get_mut(&id).expect("a route");
        let step = self.router.advance(RouteId(id), life, event, self.now);
        while self.router.next_notice().is_some() {}
        step
    }

    /// A route whose client has asked for this name, and the step that comes of it.
    fn asking(&mut self, name: &str) -> (u64, Step) {
        let id = self.begin();
        let step = self.tell(id, Event::Bytes(&hello(name)));
        (id, step)
    }

    fn relaying(&mut self, name: &str) -> u64 {
        let (id, _) = self.asking(name);
        assert_eq!(self.tell(id, Event::Connected), Step::Relay);
        id
    }

    /// A route whose client has been invited to TLS by PostgreSQL, and then asks for this name.
    fn invited(&mut self, name: &str) -> u64 {
        let id = self.begin();
        assert_eq!(self.tell(id, Event::Bytes(&SSL_REQUEST)), INVITATION);
        assert_eq!(self.tell(id, Event::Bytes(&hello(name))), Step::Connect);
        id
    }

    /// A route whose server is asked for TLS.
    fn asking_server(&mut self, name: &str) -> u64 {
        let id = self.invited(name);
        assert_eq!(self.tell(id, Event::Connected), Step::Ask);
        id
    }

    fn life(&self, id: u64) -> &Life {
        &self.lives[&id]
    }

    fn server(&self, id: u64) -> String {
        self.life(id).routed().expect("a server").server.to_string()
    }

    fn letters(&self, id: u64) -> &'static str {
        self.life(id).ending().expect("an end").letters()
    }

    /// Lets time pass until the deadline of a route.
    fn pass(&mut self, id: u64) -> Step {
        self.now = self.life(id).deadline().expect("a deadline");
        self.tell(id, Event::Deadline)
    }
}

const CLOSE: Step = Step::Close { breaks_off: false };
const BREAK_OFF: Step = Step::Close { breaks_off: true };
const INVITATION: Step = Step::Reply(answer::POSTGRES_TLS);

fn answer_of(bytes: &'static [u8]) -> Step {
    Step::Answer(bytes.into())
}

#[test]
fn a_client_without_tls_is_handed_over_to_the_door_of_its_service() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let mut table = Table::default();
    let rule = Rule {
        target: Target::Door("pool".into()),
        ..rule_to(&servers(&["unused"]))
    };
    table.insert(Pattern::CatchAll, [rule]);
    _ = world.router.replace_table(Source::File, Arc::new(table));
    for (entrance, bytes) in [
        (Entrance::Tls, &b"line\n"[..]),
        (Entrance::Http, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (Entrance::Http, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ] {
        let id = world.begin_at(entrance);
        assert_eq!(world.tell(id, Event::Bytes(bytes)), Step::HandOver("pool".into()));
        assert_eq!((world.letters(id), world.router.census().total()), ("LR", 0));
        assert_eq!(world.tell(id, Event::Abort), Step::Nothing, "it is over");
    }
    let (id, step) = world.asking("a.example");
    assert_eq!(step, answer_of(answer::UNRECOGNIZED_NAME));
    assert_eq!(world.tell(id, Event::Answered), CLOSE);
    assert_eq!(world.router.counters().handed_over, 3);
}

/// A router whose one name leads to a server or a door behind TLS that ends here.
fn world_of_ended_tls(asks_clients: bool, target: Option<&str>) -> World {
    let mut world = World::new(&[]);
    let mut rule = rule_both(&["unused"], &["a"]);
    rule.tls = Some(EndedTls {
        server: "www".into(),
        asks_clients,
    });
    if let Some(door) = target {
        rule.target = Target::Door(door.into());
    }
    let mut table = Table::default();
    table.insert(Pattern::Exact("a.example".into()), [rule]);
    _ = world.router.replace_table(Source::File, Arc::new(table));
    world
}

#[test]
fn a_client_whose_tls_ends_here_goes_on_without_it_when_its_handshake_is_done() {
    let mut world = world_of_ended_tls(false, None);
    let (id, step) = world.asking("a.example");
    assert_eq!(step, Step::Secure("www".into()));
    assert_eq!(world.router.census().securing, 1);
    assert_eq!(world.tell(id, Event::Secured), Step::Connect);
    assert_eq!(world.server(id), "a:443");
    // Nothing is said to it in the clear.
    assert_eq!(world.tell(id, Event::ConnectFailed(ConnectFault::Server)), CLOSE);
    let mut world = world_of_ended_tls(false, Some("pool"));
    let (id, _) = world.asking("a.example");
    assert_eq!(world.tell(id, Event::Secured), Step::HandOver("pool".into()));
    let (id, _) = world.asking("a.example");
    assert_eq!(world.tell(id, Event::NotSecured), CLOSE);
    assert_eq!((world.letters(id), world.router.counters().tls), ("PR", 2));
}

#[test]
fn a_service_that_asks_clients_for_a_certificate_takes_none_without_tls() {
    let request = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
    for door in [None, Some("pool")] {
        for (asks, steps) in [(false, 0), (true, 1)] {
            let mut world = world_of_ended_tls(asks, door);
            let id = world.begin_at(Entrance::Http);
            world.tell(id, Event::Bytes(request));
            assert_eq!(world.router.counters().name_unknown, steps, "{door:?}");
        }
    }
}

#[test]
fn a_route_goes_from_its_hello_to_a_server_and_ends_when_both_sides_have() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let id = world.begin();
    let bytes = hello("A.Example.");
    for end in 1..bytes.len() {
        assert_eq!(world.tell(id, Event::Bytes(&bytes[..end])), Step::Read);
    }
    assert_eq!(world.tell(id, Event::Bytes(&bytes)), Step::Connect);
    assert_eq!(world.server(id), "a:443");
    assert_eq!(world.life(id).asked().name.as_deref(), Some("a.example"));
    assert_eq!(world.tell(id, Event::Connected), Step::Relay);
    assert_eq!(world.router.upstreams().active(), 1);
    assert_eq!(world.tell(id, Event::Ended(Side::Client)), Step::Nothing);
    assert_eq!(world.tell(id, Event::Ended(Side::Client)), Step::Nothing);
    assert_eq!(world.tell(id, Event::Ended(Side::Server)), CLOSE);
    assert_eq!((world.letters(id), world.server(id).as_str()), ("--", "a:443"));
    assert_eq!(
        (world.router.upstreams().active(), world.router.census().total()),
        (0, 0)
    );
    let counters = world.router.counters();
    assert_eq!((counters.total, counters.tls, counters.plain), (1, 1, 0));
}

#[test]
fn a_client_without_a_server_gets_the_alert_for_its_fault_and_is_closed_behind_it() {
    let mut world = World::new(&[("a.example", &["a"]), ("empty.example", &[])]);
    for (bytes, alert, letters) in [
        (hello("b.example"), answer::UNRECOGNIZED_NAME, "PR"),
        (hello("a b"), answer::UNRECOGNIZED_NAME, "PR"),
        (b"\x16\x03\x01\0\0".to_vec(), answer::DECODE_ERROR, "PR"),
        (hello("empty.example"), answer::INTERNAL_ERROR, "SC"),
    ] {
        let id = world.begin();
        assert_eq!(world.tell(id, Event::Bytes(&bytes)), answer_of(alert));
        assert_eq!(world.tell(id, Event::Answered), CLOSE);
        assert_eq!(world.letters(id), letters);
    }
    let counters = *world.router.counters();
    assert_eq!((counters.name_unknown, counters.hello_bad, counters.total), (2, 1, 4));
}

#[test]
fn plain_bytes_go_to_the_port_without_tls_of_the_service_for_all_names_or_are_closed_without_a_word() {
    let mut world = World::new(&[("CATCH_ALL", &["a"])]);
    let id = world.begin();
    assert_eq!(
        world.tell(id, Event::Bytes(b"GET / HTTP/1.1\r\n")),
        CLOSE,
        "it has no such port"
    );
    assert_eq!(world.letters(id), "PR");
    let mut table = Table::default();
    let rule = Rule {
        target: Target::Servers {
            tls: None,
            http: Some(servers(&["b"])),
        },
        ..rule_to(&servers(&[]))
    };
    table.insert(Pattern::CatchAll, [rule]);
    _ = world.router.replace_table(Source::File, Arc::new(table));
    let id = world.begin();
    assert_eq!(world.tell(id, Event::Bytes(b"G")), Step::Connect);
    assert_eq!(world.server(id), "b:443");
    let (_, step) = world.asking("a.example");
    assert_eq!(step, answer_of(answer::UNRECOGNIZED_NAME), "it has no port for TLS");
    let counters = world.router.counters();
    assert_eq!((counters.plain, counters.tls, counters.catch_all), (2, 1, 3));
}

#[test]
fn a_server_that_fails_is_followed_by_one_other() {
    let mut world = World::new(&[("a.example", &["a", "b", "c"])]);
    let failed = Event::ConnectFailed(ConnectFault::Server);
    let (id, _) = world.asking("a.example");
    assert_eq!(world.server(id), "a:443");
    assert_eq!(world.tell(id, failed), Step::Connect);
    assert_eq!(world.server(id), "b:443");
    assert_eq!(world.tell(id, failed), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(world.letters(id), "SC");
    let (id, _) = world.asking("a.example");
    assert_eq!(world.server(id), "c:443");
    assert_eq!(world.pass(id), Step::Connect);
    assert_eq!(world.tell(id, Event::Connected), Step::Relay);
    let counters = world.router.counters();
    assert_eq!(
        (counters.connect_failed, counters.connect_late, counters.connect_again),
        (2, 1, 2)
    );
}

#[test]
fn the_only_server_that_is_late_has_one_attempt() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let (id, _) = world.asking("a.example");
    assert_eq!(world.pass(id), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(world.letters(id), "sC");
}

#[test]
fn a_server_is_not_blamed_for_what_the_daemon_lacks_or_a_client_that_leaves() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let (id, _) = world.asking("a.example");
    let step = world.tell(id, Event::ConnectFailed(ConnectFault::Daemon));
    assert_eq!((step, world.letters(id)), (answer_of(answer::INTERNAL_ERROR), "RC"));
    let (id, _) = world.asking("a.example");
    assert_eq!(world.tell(id, Event::Lost(Side::Client)), CLOSE);
    assert_eq!(world.letters(id), "CC");
    assert_eq!(
        (world.router.upstreams().out(), world.router.upstreams().active()),
        (0, 0)
    );
}

#[test]
fn the_log_hears_once_that_a_server_is_out_and_once_that_it_is_back() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let ids = [0; 3].map(|_| world.asking("a.example").0);
    let mut notices = Vec::new();
    let events = [
        Event::ConnectFailed(ConnectFault::Server),
        Event::ConnectFailed(ConnectFault::Server),
        Event::Connected,
    ];
    for (id, event) in ids.into_iter().zip(events) {
        let life = world.lives.get_mut(&id).unwrap();
        world.router.advance(RouteId(id), life, event, world.now);
        notices.extend(std::iter::from_fn(|| world.router.next_notice()));
    }
    let told: Vec<_> = notices
        .iter()
        .map(|notice| (notice.service.to_string(), notice.server.to_string(), notice.change))
        .collect();
    let [(service, server, out), (_, _, back)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((service.as_str(), server.as_str()), ("a.example", "a:443"));
    assert!(matches!(out, super::super::health::HealthChange::Out { .. }));
    assert!(matches!(back, super::super::health::HealthChange::Back { .. }));
}

#[test]
fn a_client_whose_hello_is_late_is_closed_and_a_drain_makes_it_late_earlier() {
    let mut world = World::new(&[]);
    let id = world.begin();
    world.now += HELLO_TIMEOUT - SECOND;
    assert_eq!(world.tell(id, Event::Deadline), Step::Nothing);
    assert_eq!(world.pass(id), CLOSE);
    assert_eq!(world.letters(id), "cR");
    let id = world.begin();
    let soon = world.now + SECOND;
    assert_eq!(world.tell(id, Event::Stop(soon)), Step::Nothing);
    assert_eq!(world.life(id).deadline(), Some(soon));
    assert_eq!(world.pass(id), CLOSE);
    assert_eq!(world.letters(id), "KR");
}

#[test]
fn a_name_that_the_store_may_have_waits_for_its_first_table() {
    let mut world = World::new(&[("a.example", &["a"]), ("*.example", &["b"])]);
    world.router.await_store();
    let (_, step) = world.asking("a.example");
    assert_eq!(step, Step::Connect, "the file goes before the store");
    let (waits, step) = world.asking("b.example");
    assert_eq!(step, Step::Hold);
    let (leaves, _) = world.asking("c.example");
    assert_eq!(world.tell(leaves, Event::Lost(Side::Client)), CLOSE);
    assert_eq!(world.router.woken(), None);
    world.replace(Source::Store, &[("b.example", &["c"])]);
    world.router.stop_awaiting_store();
    assert_eq!(world.router.woken(), Some(RouteId(waits)));
    assert_eq!(world.router.woken(), None);
    assert_eq!(world.tell(waits, Event::TableCame), Step::Judge);
    assert_eq!(world.tell(waits, Event::Bytes(&hello("b.example"))), Step::Connect);
    assert_eq!(world.server(waits), "c:443");
    let counters = world.router.counters();
    assert_eq!(
        (counters.tls, counters.total),
        (2, 3),
        "a client that waited counts once"
    );
}

#[test]
fn a_table_that_does_not_come_costs_a_client_its_patience_and_no_more() {
    let mut world = World::new(&[("CATCH_ALL", &["a"])]);
    world.router.await_store();
    let (id, step) = world.asking("b.example");
    assert_eq!(step, Step::Hold);
    assert_eq!(world.pass(id), Step::Judge);
    assert_eq!(world.tell(id, Event::Bytes(&hello("b.example"))), Step::Connect);
    let plain = world.begin();
    assert_eq!(
        world.tell(plain, Event::Bytes(b"x")),
        CLOSE,
        "without a name the file is final"
    );
}

#[test]
fn a_relay_is_idle_after_its_time_without_a_byte_and_earlier_when_one_side_has_ended() {
    let mut world = World::new(&[("a.example", &["a"])]);
    let id = world.relaying("a.example");
    world.now += 3000 * SECOND;
    let now = world.now;
    world.lives.get_mut(&id).unwrap().note_bytes(Side::Server, now);
    assert_eq!(world.life(id).deadline(), Some(now + 3600 * SECOND));
    assert_eq!(world.pass(id), CLOSE);
    assert_eq!(world.letters(id), "cD", "the client was the next to send");
    let id = world.relaying("a.example");
    world.tell(id, Event::Ended(Side::Client));
    assert_eq!(world.life(id).deadline(), Some(world.now + HALF_CLOSED));
    assert_eq!(world.pass(id), CLOSE);
    assert_eq!(world.letters(id), "sD");
    assert_eq!(world.router.counters().relay_idle, 2);
}

#[test]
fn a_side_that_is_lost_breaks_the_other_off() {
    let mut world = World::new(&[("a.example", &["a"])]);
    for (side, letters) in [(Side::Client, "CD"), (Side::Server, "SD")] {
        let id = world.relaying("a.example");
        assert_eq!(world.tell(id, Event::Lost(side)), BREAK_OFF);
        assert_eq!(world.letters(id), letters);
    }
}

#[test]
fn a_new_table_touches_no_route_that_has_a_server_and_a_retry_stays_within_its_own_table() {
    let mut world = World::new(&[("a.example", &["a", "b"])]);
    let relaying = world.relaying("a.example");
    let (connecting, _) = world.asking("a.example");
    let (alone, _) = world.asking("a.example");
    assert_eq!(
        (world.server(connecting).as_str(), world.server(alone).as_str()),
        ("b:443", "a:443")
    );
    world.replace(Source::File, &[("a.example", &["a", "c"])]);
    let (newer, _) = world.asking("a.example");
    let failed = Event::ConnectFailed(ConnectFault::Server);
    assert_eq!(world.tell(connecting, failed), Step::Connect);
    assert_eq!(world.server(connecting), "a:443");
    assert_eq!(
        world.tell(alone, failed),
        answer_of(answer::INTERNAL_ERROR),
        "b has gone, and c was not its own"
    );
    world.replace(Source::File, &[]);
    assert_eq!(world.tell(relaying, Event::Ended(Side::Client)), Step::Nothing);
    assert_eq!(world.tell(relaying, Event::Ended(Side::Server)), CLOSE);
    assert!(["a:443", "c:443"].contains(&world.server(newer).as_str()));
    assert_eq!(world.asking("a.example").1, answer_of(answer::UNRECOGNIZED_NAME));
}

/// A rule to a server for each way.
fn rule_both(tls: &[&str], http: &[&str]) -> Rule {
    Rule {
        target: Target::Servers {
            tls: Some(servers(tls)),
            http: Some(servers(http)),
        },
        ..rule_to(&servers(&[]))
    }
}

fn replace_by(world: &mut World, services: Vec<(&str, Vec<Rule>)>) {
    let mut table = Table::default();
    for (name, rules) in services {
        table.insert(name.parse().expect(name), rules);
    }
    _ = world.router.replace_table(Source::File, Arc::new(table));
}

impl World {
    /// A client of the listener for HTTP that has sent this, and the step that comes of it.
    fn requesting(&mut self, bytes: &[u8]) -> (u64, Step) {
        let id = self.begin_at(Entrance::Http);
        let step = self.tell(id, Event::Bytes(bytes));
        (id, step)
    }
}

fn page(page: answer::Page) -> Step {
    answer_of(page.answer(false))
}

#[test]
fn a_request_goes_by_its_host_to_the_port_for_http() {
    let mut world = World::new(&[]);
    let services = vec![
        ("a.example", vec![rule_both(&["t"], &["h"])]),
        ("CATCH_ALL", vec![rule_both(&["t"], &["c"])]),
    ];
    replace_by(&mut world, services);
    let whole: &[u8] = b"GET / HTTP/1.1\r\nHost: A.example.:8080\r\n\r\nand a body";
    let head = whole.len() - b"and a body".len();
    let id = world.begin_at(Entrance::Http);
    for end in 1..head {
        assert_eq!(world.tell(id, Event::Bytes(&whole[..end])), Step::Read);
    }
    assert_eq!(world.tell(id, Event::Bytes(whole)), Step::Connect);
    assert_eq!(world.server(id), "h:443");
    assert_eq!(world.life(id).asked().name.as_deref(), Some("a.example"));
    for other in [
        &b"GET http://b.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n"[..],
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0",
    ] {
        let (id, step) = world.requesting(other);
        assert_eq!((step, world.server(id).as_str()), (Step::Connect, "c:443"));
    }
    let counters = world.router.counters();
    assert_eq!(
        (counters.http, counters.plain, counters.tls, counters.catch_all),
        (5, 0, 0, 4)
    );
}

#[test]
fn a_request_without_a_server_gets_the_page_for_its_fault_and_is_closed_behind_it() {
    let mut world = World::new(&[("tls.example", &["a"])]);
    let mut table = vec![
        ("up.example", vec![rule_both(&[], &["h"])]),
        ("none.example", vec![rule_both(&[], &[])]),
    ];
    table.push(("tls.example", vec![rule_to(&servers(&["a"]))]));
    replace_by(&mut world, table);
    for (bytes, expected) in [
        (
            &b"GET / HTTP/1.1\r\nHost: b.example\r\n\r\n"[..],
            answer::Page::NotFound,
        ),
        (b"GET / HTTP/1.0\r\n\r\n", answer::Page::NotFound),
        (b"GET / HTTP/1.1\r\nHost: tls.example\r\n\r\n", answer::Page::NotFound),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", answer::Page::NotFound),
        (b"GET / HTTP/1.1\r\n\r\n", answer::Page::BadRequest),
        (b"\x16\x03\x01\0\xff\x01", answer::Page::BadRequest),
        (
            b"GET / HTTP/1.1\r\nHost: none.example\r\n\r\n",
            answer::Page::BadGateway,
        ),
    ] {
        let (id, step) = world.requesting(bytes);
        assert_eq!(step, page(expected), "{}", bytes.escape_ascii());
        assert_eq!(world.tell(id, Event::Answered), CLOSE);
    }
    let (id, step) = world.requesting(b"HEAD / HTTP/1.1\r\nHost: b.example\r\n\r\n");
    assert_eq!(step, answer_of(answer::Page::NotFound.answer(true)));
    world.tell(id, Event::Answered);
    let (id, _) = world.requesting(b"GET / HTTP/1.1\r\nHost: up.example\r\n\r\n");
    let failed = Event::ConnectFailed(ConnectFault::Server);
    assert_eq!(world.tell(id, failed), page(answer::Page::BadGateway));
    assert_eq!(world.letters(id), "SC");
    let counters = *world.router.counters();
    assert_eq!(
        (counters.name_unknown, counters.head_bad, counters.hello_bad),
        (5, 2, 0)
    );
}

#[test]
fn a_request_whose_head_is_late_is_told_so_but_not_at_the_end_of_the_door() {
    let mut world = World::new(&[]);
    let (id, step) = world.requesting(b"GET / HTTP/1.1\r\n");
    assert_eq!(step, Step::Read);
    assert_eq!(world.pass(id), page(answer::Page::RequestTimeout));
    assert_eq!((world.letters(id), world.life(id).stage()), ("cR", Stage::Answering));
    assert_eq!(world.tell(id, Event::Stop(world.now)), Step::Nothing);
    assert_eq!(world.pass(id), CLOSE);
    let silent = world.begin_at(Entrance::Http);
    assert_eq!(world.pass(silent), page(answer::Page::RequestTimeout));
    let id = world.begin_at(Entrance::Http);
    world.tell(id, Event::Stop(world.now + SECOND));
    assert_eq!(world.pass(id), CLOSE);
    let id = world.begin_at(Entrance::Http);
    assert_eq!(world.tell(id, Event::Abort), CLOSE);
    let counters = world.router.counters();
    assert_eq!((counters.head_slow, counters.hello_slow), (2, 0));
}

/// The head at the beginning of these bytes.
fn head_of(bytes: &[u8]) -> Head<'_> {
    match head::parse(bytes, &mut head::Progress::default()) {
        head::Parsed::Head(head) => head,
        other => panic!("{other:?}"),
    }
}

/// A door whose services judge each request, and a route to the one of `a.example`.
fn filtered() -> (World, u64) {
    let mut world = World::new(&[]);
    let each = |host: &str| Rule {
        judges_each_request: true,
        idle_timeout: Some(3600 * SECOND),
        ..rule_both(&["t"], &[host])
    };
    let services = vec![("a.example", vec![each("h")]), ("b.example", vec![each("h")])];
    replace_by(&mut world, services);
    let (id, step) = world.requesting(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!((step, world.life(id).is_filtered()), (Step::Connect, true));
    assert_eq!(world.tell(id, Event::Connected), Step::Relay);
    (world, id)
}

#[test]
fn each_request_of_a_filtered_route_is_judged_and_refused_if_it_would_go_elsewhere() {
    let asking = |host: &str, line: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n{line}\r\n").into_bytes();
    let unclear = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n";
    let unclear_fault = exchange::Fault::Body(body::Fault::Ambiguous);
    for (request, page, refusal) in [
        (asking("b.example", ""), answer::Page::Misdirected, Refusal::Misdirected),
        (asking("c.example", ""), answer::Page::Misdirected, Refusal::Misdirected),
        (
            asking("a.example", unclear),
            answer::Page::BadRequest,
            Refusal::Opening(Fault::Request(unclear_fault)),
        ),
        (
            asking("a.example", "Host: a.example\r\n"),
            answer::Page::BadRequest,
            Refusal::Opening(Fault::Head(head::Fault::Hosts)),
        ),
    ] {
        let (mut world, id) = filtered();
        let life = &world.lives[&id];
        assert!(world.router.admits(life, &head_of(&asking("A.example:8080", ""))));
        if page == answer::Page::Misdirected || request.ends_with(b"chunked\r\n\r\n") {
            assert!(!world.router.admits(life, &head_of(&request)));
        }
        assert_eq!(world.tell(id, Event::Bytes(&request)), answer_of(page.answer(false)));
        assert_eq!(world.life(id).ending(), Some(Ending::Refused(refusal)));
        assert_eq!((world.letters(id), world.router.upstreams().active()), ("PR", 0));
        let counters = world.router.counters();
        let misdirected = u64::from(refusal == Refusal::Misdirected);
        assert_eq!(
            (counters.requests, counters.misdirected, counters.head_bad),
            (2, misdirected, 1 - misdirected)
        );
    }
    // A table that has come between the finding and its judgement.
    let (mut world, id) = filtered();
    assert_eq!(world.tell(id, Event::Bytes(&asking("a.example", ""))), Step::Nothing);
    assert_eq!(world.life(id).stage(), Stage::Relaying);
    // The first request of a connection as well.
    let (_, step) = world.requesting(&asking("a.example", unclear));
    assert_eq!(step, answer_of(answer::Page::BadRequest.answer(false)));
}

#[test]
fn the_head_of_a_later_request_has_the_time_of_a_first_one() {
    let (mut world, id) = filtered();
    let idle = world.life(id).deadline();
    world.now += 5 * SECOND;
    let begun = world.now;
    let note = |world: &mut World, is_begun: bool| {
        let now = world.now;
        world.router.note_head(world.lives.get_mut(&id).unwrap(), is_begun, now);
    };
    note(&mut world, true);
    world.now += SECOND;
    note(&mut world, true);
    assert_eq!(world.life(id).deadline(), Some(begun + HELLO_TIMEOUT));
    note(&mut world, false);
    assert_eq!(world.life(id).deadline(), idle);
    note(&mut world, true);
    assert_eq!(world.pass(id), answer_of(answer::Page::RequestTimeout.answer(false)));
    assert_eq!((world.letters(id), world.router.counters().head_slow), ("cR", 1));
}

#[test]
fn bytes_that_are_no_message_end_a_filtered_route_by_what_the_client_has() {
    let fault = exchange::Fault::Unasked;
    for (side, given, step, letters) in [
        (
            Side::Client,
            Given::Nothing,
            answer_of(answer::Page::BadRequest.answer(false)),
            "PR",
        ),
        (
            Side::Server,
            Given::Nothing,
            answer_of(answer::Page::BadGateway.answer(false)),
            "PH",
        ),
        (Side::Client, Given::Part, BREAK_OFF, "PR"),
        (Side::Server, Given::Part, BREAK_OFF, "PH"),
        (Side::Client, Given::Whole, answer_of(b""), "PR"),
        (Side::Server, Given::Whole, answer_of(b""), "PH"),
    ] {
        let (mut world, id) = filtered();
        assert_eq!(world.tell(id, Event::Garbled { side, fault, given }), step);
        assert_eq!(world.letters(id), letters);
        let counters = world.router.counters();
        let is_server = u64::from(side == Side::Server);
        assert_eq!((counters.answers_bad, counters.head_bad), (is_server, 1 - is_server));
    }
}

#[test]
fn a_request_is_sent_on_to_https_where_its_service_says_so() {
    let mut world = World::new(&[]);
    let redirecting = Rule {
        redirects_to_https: true,
        ..rule_both(&["t"], &["h"])
    };
    let with_acme = Rule {
        acme: Some(servers(&["r"])),
        ..redirecting.clone()
    };
    let plain = rule_both(&["t"], &["h"]);
    let services = vec![
        ("a.example", vec![redirecting.clone()]),
        ("b.example", vec![plain]),
        ("acme.example", vec![with_acme]),
        ("CATCH_ALL", vec![redirecting]),
    ];
    replace_by(&mut world, services);
    let request = |target: &str, host: &str| format!("POST {target} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes();
    let mut port = 443;
    for (target, host, location) in [
        ("/x?y", "A.example:80", "https://a.example/x?y"),
        ("http://a.example", "a.example", "https://a.example/"),
        (
            "/.well-known/acme-challenge/t",
            "a.example",
            "https://a.example/.well-known/acme-challenge/t",
        ),
        ("/", "[::1]:80", "https://[::1]/"),
        ("/x", "other.example", "https://other.example:8443/x"),
    ] {
        if location.contains("8443") {
            port = 8443;
        }
        world.router.set_https_port(port);
        let (id, step) = world.requesting(&request(target, host));
        let Step::Answer(answer) = step else { panic!("{step:?}") };
        let text = String::from_utf8(answer.into_owned()).unwrap();
        assert!(
            text.contains(&format!("308 Permanent Redirect\r\nLocation: {location}\r\n")),
            "{text}"
        );
        assert_eq!(world.letters(id), "LR");
        assert_eq!(world.tell(id, Event::Answered), CLOSE);
    }
    let (id, step) = world.requesting(&request("/", "b.example"));
    assert_eq!((step, world.server(id).as_str()), (Step::Connect, "h:443"));
    let (id, step) = world.requesting(&request("/.well-known/acme-challenge/t", "acme.example"));
    assert_eq!((step, world.server(id).as_str()), (Step::Connect, "r:443"));
    let (_, step) = world.requesting(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        step,
        page(answer::Page::BadRequest),
        "there is no host to be sent on to"
    );
    assert_eq!(world.router.counters().redirected, 5);
}

/// A ClientHello with this name and one protocol.
fn hello_for(name: &str, protocol: &str) -> Vec<u8> {
    let host = [&[0][..], &vector(name.as_bytes())].concat();
    let list = [&[u8::try_from(protocol.len()).unwrap()], protocol.as_bytes()].concat();
    let extensions = [&[0, 0][..], &vector(&vector(&host)), &[0, 16], &vector(&vector(&list))].concat();
    let body = [
        b"\x03\x03RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR\0\0\x02\x13\x01\x01\0",
        &vector(&extensions)[..],
    ];
    let message = [&[1, 0][..], &vector(&body.concat())].concat();
    [b"\x16\x03\x01", &vector(&message)[..]].concat()
}

#[test]
fn a_challenge_of_acme_goes_to_the_responder_of_its_service_and_nothing_else_does() {
    let mut world = World::new(&[]);
    let with_acme = |rule: Rule| Rule {
        acme: Some(servers(&["r"])),
        ..rule
    };
    let of = |protocol: &str| Rule {
        alpn: Some(protocol.as_bytes().into()),
        ..rule_to(&servers(&[protocol.split('/').next().unwrap()]))
    };
    let services = vec![
        ("a.example", vec![with_acme(rule_both(&["t"], &["h"]))]),
        ("h2.example", vec![with_acme(of("h2"))]),
        (
            "own.example",
            vec![of("acme-tls/1"), with_acme(rule_to(&servers(&["t"])))],
        ),
        ("none.example", vec![rule_to(&servers(&["t"]))]),
    ];
    replace_by(&mut world, services);
    for (name, protocol, server) in [
        ("a.example", "acme-tls/1", "r:443"),
        ("a.example", "h2", "t:443"),
        ("h2.example", "acme-tls/1", "r:443"),
        ("h2.example", "h2", "h2:443"),
        ("own.example", "acme-tls/1", "acme-tls:443"),
        ("own.example", "http/1.1", "t:443"),
        ("none.example", "acme-tls/1", "t:443"),
    ] {
        let id = world.begin();
        assert_eq!(world.tell(id, Event::Bytes(&hello_for(name, protocol))), Step::Connect);
        assert_eq!(world.server(id), server, "{name}, {protocol}");
    }
    for (path, host, server) in [
        ("/.well-known/acme-challenge/token", "a.example", Some("r:443")),
        ("/.well-known/acme-challenge", "a.example", Some("h:443")),
        ("/x/.well-known/acme-challenge/token", "a.example", Some("h:443")),
        ("/.well-known/acme-challenge/token", "own.example", Some("r:443")),
        ("/.well-known/acme-challenge/token", "none.example", None),
        ("/.well-known/acme-challenge/token", "unknown.example", None),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        let (id, step) = world.requesting(request.as_bytes());
        let found = world.life(id).routed().map(|routed| routed.server.to_string());
        assert_eq!(found.as_deref(), server, "{path} {host}: {step:?}");
    }
}

#[test]
fn a_client_of_postgresql_goes_by_the_name_in_its_hello_and_its_server_is_asked_for_tls() {
    let mut world = World::new(&[("a.example", &["a"]), ("CATCH_ALL", &["c"])]);
    let gss = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
    for with_gss in [false, true] {
        let id = world.begin();
        let until = world.life(id).deadline();
        world.now += SECOND;
        if with_gss {
            assert_eq!(world.tell(id, Event::Bytes(&gss[..7])), Step::Read);
            assert_eq!(world.tell(id, Event::Bytes(&gss)), Step::Reply(answer::POSTGRES_NO_GSS));
        }
        assert_eq!(world.tell(id, Event::Bytes(&SSL_REQUEST)), INVITATION);
        assert_eq!(world.life(id).deadline(), until, "a request is worth no time");
        let bytes = hello("a.example");
        assert_eq!(world.tell(id, Event::Bytes(&bytes[..bytes.len() - 1])), Step::Read);
        assert_eq!(world.tell(id, Event::Bytes(&bytes)), Step::Connect);
        assert!(world.life(id).asked().starts_tls);
        let until = world.life(id).deadline();
        assert_eq!(world.tell(id, Event::Connected), Step::Ask);
        assert_eq!(world.life(id).deadline(), until, "the answer is part of connecting");
        assert_eq!(world.life(id).times().connected, None);
        assert_eq!(world.tell(id, Event::Replied(Ok(()))), Step::Relay);
        assert_eq!(world.server(id), "a:443");
    }
    let counters = world.router.counters();
    assert_eq!((counters.postgres, counters.tls, counters.plain), (2, 2, 0));
}

#[test]
fn a_client_of_postgresql_that_sends_anything_but_a_hello_behind_its_invitation_is_closed() {
    let mut world = World::new(&[("CATCH_ALL", &["c"])]);
    for behind in [&SSL_REQUEST[..], b"\0\0\0\x10", b"G"] {
        let id = world.begin();
        assert_eq!(world.tell(id, Event::Bytes(&SSL_REQUEST)), INVITATION);
        assert_eq!(world.tell(id, Event::Bytes(behind)), CLOSE);
    }
    let id = world.begin();
    let early = [&SSL_REQUEST[..], &hello("a")].concat();
    assert_eq!(world.tell(id, Event::Bytes(&early)), CLOSE, "it did not wait");
    let id = world.begin();
    world.tell(id, Event::Bytes(&SSL_REQUEST));
    assert_eq!(
        world.tell(id, Event::Bytes(b"\x16\x03\x01\0\0")),
        answer_of(answer::DECODE_ERROR)
    );
    assert_eq!(world.router.counters().hello_bad, 5);
}

#[test]
fn a_server_that_declines_tls_ends_the_route_and_stays_in_use_and_one_that_is_silent_or_lost_does_not() {
    let mut world = World::new(&[("a.example", &["a", "b"])]);
    for reason in [NoTls::Declined, NoTls::Wrong] {
        let id = world.asking_server("a.example");
        assert_eq!(
            world.tell(id, Event::Replied(Err(reason))),
            answer_of(answer::INTERNAL_ERROR)
        );
        assert_eq!(world.life(id).ending(), Some(Ending::NoTls(reason)));
    }
    assert_eq!(world.router.upstreams().out(), 0);
    assert_eq!(world.router.counters().connect_no_tls, 2);
    let id = world.asking_server("a.example");
    let first = world.server(id);
    assert_eq!(
        world.tell(id, Event::ConnectFailed(ConnectFault::Server)),
        Step::Connect
    );
    assert_ne!(world.server(id), first);
    assert_eq!(world.router.upstreams().out(), 1);
    assert_eq!(world.tell(id, Event::Connected), Step::Ask, "this one is asked as well");
    assert_eq!(world.pass(id), answer_of(answer::INTERNAL_ERROR));
    assert_eq!(world.letters(id), "sC");
    let counters = world.router.counters();
    assert_eq!(
        (counters.connect_failed, counters.connect_late, counters.connect_again),
        (1, 1, 1)
    );
}

/// All events. A deadline has always come.
fn events(now: Instant, bytes: &[u8]) -> [(&'static str, Event<'_>); 22] {
    [
        ("bytes", Event::Bytes(bytes)),
        (
            "garbled",
            Event::Garbled {
                side: Side::Server,
                fault: exchange::Fault::Unasked,
                given: Given::Nothing,
            },
        ),
        ("client ended", Event::Ended(Side::Client)),
        ("server ended", Event::Ended(Side::Server)),
        ("client lost", Event::Lost(Side::Client)),
        ("server lost", Event::Lost(Side::Server)),
        ("secured", Event::Secured),
        ("not secured", Event::NotSecured),
        ("table came", Event::TableCame),
        ("called", Event::Called),
        ("client came", Event::ClientCame),
        ("connected", Event::Connected),
        ("server failed", Event::ConnectFailed(ConnectFault::Server)),
        ("server absent", Event::ConnectFailed(ConnectFault::Absent)),
        ("daemon failed", Event::ConnectFailed(ConnectFault::Daemon)),
        ("agreed", Event::Replied(Ok(()))),
        ("declined", Event::Replied(Err(NoTls::Declined))),
        ("answered", Event::Answered),
        ("deadline", Event::Deadline),
        ("early deadline", Event::Deadline),
        ("stop", Event::Stop(now)),
        ("abort", Event::Abort),
    ]
}

/// A route in this stage. The service has one server, and the store is awaited.
fn route_in(stage: Stage) -> (World, u64) {
    let mut world = World::new(&[("a.example", &["a"]), ("none.example", &[])]);
    let secure = Rule {
        tls: Some(EndedTls {
            server: "tls".into(),
            asks_clients: false,
        }),
        ..rule_both(&[], &["a"])
    };
    let mut table = Arc::into_inner(table(&[("a.example", &["a"]), ("none.example", &[])])).expect("the only one");
    table.insert(Pattern::Exact("secure.example".into()), [secure]);
    table.insert(Pattern::Exact("tunnel.example".into()), [tunnels::rule()]);
    _ = world.router.replace_table(Source::File, Arc::new(table));
    world.router.await_store();
    let id = match stage {
        Stage::Opening => world.begin(),
        Stage::Waiting => world.asking("b.example").0,
        Stage::Securing => world.asking("secure.example").0,
        Stage::Starting => {
            programs::with_program(&mut world);
            let (id, _) = world.asking("a.example");
            world.tell(id, Event::ConnectFailed(ConnectFault::Absent));
            id
        }
        Stage::Expecting => {
            tunnels::expect(&mut world);
            world.asking("tunnel.example").0
        }
        Stage::Connecting => world.asking("a.example").0,
        Stage::Asking => world.asking_server("a.example"),
        Stage::Relaying => world.relaying("a.example"),
        Stage::Answering => world.asking("none.example").0,
        Stage::Over => {
            let id = world.begin();
            world.tell(id, Event::Abort);
            id
        }
    };
    assert_eq!(world.life(id).stage(), stage);
    (world, id)
}

#[test]
fn every_pair_of_state_and_event_is_decided() {
    let failed = answer_of(answer::INTERNAL_ERROR);
    type Moves = [(&'static str, Step, Stage)];
    let moves: &[(Stage, &Moves)] = &[
        (
            Stage::Opening,
            &[
                ("bytes", Step::Connect, Stage::Connecting),
                ("client ended", CLOSE, Stage::Over),
                ("client lost", CLOSE, Stage::Over),
                ("deadline", CLOSE, Stage::Over),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Waiting,
            &[
                ("client lost", CLOSE, Stage::Over),
                ("table came", Step::Judge, Stage::Opening),
                ("deadline", Step::Judge, Stage::Opening),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Securing,
            &[
                ("secured", Step::Connect, Stage::Connecting),
                ("not secured", CLOSE, Stage::Over),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Starting,
            &[
                ("client lost", CLOSE, Stage::Over),
                // Its program is still awaited.
                ("called", Step::Hold, Stage::Starting),
                ("deadline", failed.clone(), Stage::Answering),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Expecting,
            &[
                ("client lost", CLOSE, Stage::Over),
                ("deadline", failed.clone(), Stage::Answering),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Connecting,
            &[
                ("client lost", CLOSE, Stage::Over),
                ("connected", Step::Relay, Stage::Relaying),
                ("server failed", failed.clone(), Stage::Answering),
                ("server absent", failed.clone(), Stage::Answering),
                ("daemon failed", failed.clone(), Stage::Answering),
                ("deadline", failed.clone(), Stage::Answering),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Asking,
            &[
                ("client lost", CLOSE, Stage::Over),
                ("server failed", failed.clone(), Stage::Answering),
                ("server absent", failed.clone(), Stage::Answering),
                ("daemon failed", failed.clone(), Stage::Answering),
                ("agreed", Step::Relay, Stage::Relaying),
                ("declined", failed.clone(), Stage::Answering),
                ("deadline", failed.clone(), Stage::Answering),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (
            Stage::Relaying,
            &[
                ("garbled", CLOSE, Stage::Over),
                ("client lost", BREAK_OFF, Stage::Over),
                ("server lost", BREAK_OFF, Stage::Over),
                ("deadline", CLOSE, Stage::Over),
                ("abort", BREAK_OFF, Stage::Over),
            ],
        ),
        (
            Stage::Answering,
            &[
                ("client ended", CLOSE, Stage::Over),
                ("client lost", CLOSE, Stage::Over),
                ("answered", CLOSE, Stage::Over),
                ("deadline", CLOSE, Stage::Over),
                ("abort", CLOSE, Stage::Over),
            ],
        ),
        (Stage::Over, &[]),
    ];
    let bytes = hello("a.example");
    for (stage, moves) in moves {
        for (name, event) in events(Instant::now(), &bytes) {
            let (mut world, id) = route_in(*stage);
            if name == "deadline" {
                world.now = world.life(id).deadline().unwrap_or(world.now);
            }
            let step = world.tell(id, event);
            let expected = moves.iter().find(|(moving, ..)| *moving == name);
            let (expected, next) = expected.map_or((Step::Nothing, *stage), |(_, step, next)| (step.clone(), *next));
            assert_eq!((step, world.life(id).stage()), (expected, next), "{stage:?}, {name}");
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Begin,
    Replace {
        source: Source,
        services: Vec<(usize, Vec<usize>)>,
    },
    Store {
        is_awaited: bool,
    },
    Bytes {
        route: usize,
        name: usize,
        is_whole: bool,
    },
    Request {
        route: usize,
    },
    Tell {
        route: usize,
        event: usize,
    },
    Wait {
        milliseconds: u64,
    },
    Program {
        event: ProgramEvent,
    },
}

const NAMES: [&str; 5] = ["a.example", "b.example", "*.example", "c.other", "CATCH_ALL"];
const HOSTS: [&str; 4] = ["k", "l", "m", "n"];

fn deed() -> impl Strategy<Value = Deed> {
    let service = (0..NAMES.len(), prop::collection::vec(0..HOSTS.len(), 0..4));
    let source = prop::sample::select(vec![Source::File, Source::Store]);
    prop_oneof![
        4 => Just(Deed::Begin),
        1 => (source, prop::collection::vec(service, 0..5)).prop_map(|(source, services)| Deed::Replace { source, services }),
        1 => any::<bool>().prop_map(|is_awaited| Deed::Store { is_awaited }),
        4 => (any::<usize>(), 0..NAMES.len(), any::<bool>())
            .prop_map(|(route, name, is_whole)| Deed::Bytes { route, name, is_whole }),
        8 => (any::<usize>(), 1..21_usize).prop_map(|(route, event)| Deed::Tell { route, event }),
        2 => any::<usize>().prop_map(|route| Deed::Request { route }),
        2 => (0..20_000_u64).prop_map(|milliseconds| Deed::Wait { milliseconds }),
        2 => prop::sample::select(vec![
            ProgramEvent::Started,
            ProgramEvent::NotStarted,
            ProgramEvent::Exited,
            ProgramEvent::Deadline,
        ])
        .prop_map(|event| Deed::Program { event }),
    ]
}

fn replace(world: &mut World, source: Source, services: &[(usize, Vec<usize>)]) {
    let services = services.iter().map(|(name, hosts)| {
        let hosts: std::collections::BTreeSet<_> = hosts.iter().map(|host| HOSTS[*host]).collect();
        (NAMES[*name], hosts.into_iter().collect::<Vec<_>>())
    });
    let services: Vec<_> = services.collect();
    let borrowed: Vec<_> = services.iter().map(|(name, hosts)| (*name, &hosts[..])).collect();
    world.replace(source, &borrowed);
}

/// Does a deed. Bytes and events go to a route that is not over, if there is one.
fn perform(world: &mut World, deed: &Deed) {
    let chosen = |world: &World, route: usize| {
        let ids: Vec<_> = world.lives.keys().copied().collect();
        ids.get(route % ids.len().max(1)).copied()
    };
    match deed {
        Deed::Begin => _ = world.begin(),
        Deed::Replace { source, services } => replace(world, *source, services),
        Deed::Store { is_awaited: true } => world.router.await_store(),
        Deed::Store { is_awaited: false } => {
            world.router.stop_awaiting_store();
            while let Some(RouteId(id)) = world.router.woken() {
                assert_eq!(world.tell(id, Event::TableCame), Step::Judge);
            }
        }
        Deed::Bytes { route, name, is_whole } => {
            let bytes = hello(NAMES[*name]);
            let length = if *is_whole { bytes.len() } else { bytes.len() / 2 };
            if let Some(id) = chosen(world, *route) {
                world.tell(id, Event::Bytes(&bytes[..length]));
            }
        }
        Deed::Request { route } => {
            if let Some(id) = chosen(world, *route) {
                world.tell(id, Event::Bytes(&SSL_REQUEST));
            }
        }
        Deed::Tell { route, event } => {
            let (_, event) = events(world.now, &[])[*event];
            if let Some(id) = chosen(world, *route) {
                world.tell(id, event);
            }
        }
        Deed::Wait { milliseconds } => world.now += Duration::from_millis(*milliseconds),
        Deed::Program { event } => {
            let program = world.router.programs().planned(0).expect("it has a plan");
            world.router.handle_program(program, *event, world.now);
        }
    }
    while let Some(order) = world.router.next_order() {
        if let Order::Call(RouteId(id)) = order
            && world.lives.contains_key(&id)
        {
            world.tell(id, Event::Called);
        }
    }
    world.lives.retain(|_, life| life.stage() != Stage::Over);
}

fn assert_empty(world: &World) {
    assert_eq!(world.router.census().total(), 0);
    assert_eq!(world.router.upstreams().active(), 0);
    assert!(world.router.upstreams().views().all(|view| view.active == 0));
    assert!(world.router.waiting.is_empty());
    assert_eq!(world.router.starter.users(), (0, 0));
}

proptest! {
    /// The router checks its invariants after each event. In the end the door is closed, and nothing is held.
    #[test]
    fn events_in_any_order_leave_nothing_behind(deeds in prop::collection::vec(deed(), 1..300)) {
        let mut world = World::new(&[("a.example", &["k", "l"]), ("*.example", &["m"])]);
        for deed in &deeds {
            perform(&mut world, deed);
            prop_assert_eq!(world.router.census().total(), world.lives.len());
            prop_assert_eq!(world.router.census().waiting, world.router.waiting.len());
        }
        for id in world.lives.keys().copied().collect::<Vec<_>>() {
            world.tell(id, Event::Abort);
            // An answer has its time; a second word ends it as well.
            world.tell(id, Event::Abort);
            prop_assert_eq!(world.life(id).stage(), Stage::Over);
        }
        assert_empty(&world);
    }

    /// If nothing more happens but that time passes, each route comes to its end.
    #[test]
    fn every_route_ends_by_its_deadlines_alone(deeds in prop::collection::vec(deed(), 1..100)) {
        let mut world = World::new(&[("a.example", &["k", "l"]), ("*.example", &["m"])]);
        for deed in &deeds {
            perform(&mut world, deed);
        }
        for id in world.lives.keys().copied().collect::<Vec<_>>() {
            let mut deadlines = 0;
            while world.life(id).stage() != Stage::Over {
                world.now = world.now.max(world.life(id).deadline().expect("a deadline"));
                world.tell(id, Event::Deadline);
                deadlines += 1;
                prop_assert!(deadlines < 6, "{:?}", world.life(id));
            }
        }
        assert_empty(&world);
    }
}
