//! The routes of services that tunnel clients serve, against clients and visitors that are made of dice.
//!
//! The shadow model keeps the sessions with each secret in the order in which they have come, and the time at which each
//! secret has lost its last one. From that follow the promises: a route is given the best session of its secret (one that is
//! here before one elsewhere, a proved one before a suspect one, then the one with the fewest streams); it waits if there is
//! none and one is expected, and not longer than that; it is refused only if none is expected, or behind a session that has
//! failed; and when a session comes, the routes that wait for it are named once, in their order. A process that is told of
//! changes knows which secrets are served. At the end nothing is left over.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use iotcpd::internals::route::core::balance::ClientKey;
use iotcpd::internals::route::core::ending::Ending;
use iotcpd::internals::route::core::event::{ConnectFault, Event, RouteId, Side, Step};
use iotcpd::internals::route::core::life::{Life, Stage};
use iotcpd::internals::route::core::opening::Entrance;
use iotcpd::internals::route::core::router::Router;
use iotcpd::internals::route::core::secrets::{Secret, Tunnel};
use iotcpd::internals::route::core::table::{Address, Rule, Source, Table, Target};
use iotcpd::internals::route::core::tunnels::SessionId;

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 1500;
const SECRETS: usize = 4;
const MOST_ROUTES: usize = 60;
const MOST_SESSIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A session as the model keeps it.
#[derive(Debug, Clone)]
struct Session {
    secret: usize,
    streams: usize,
    is_suspect: bool,
    is_elsewhere: bool,
    has_gone_away: bool,
}

/// A visitor, and its route.
#[derive(Debug)]
struct Visitor {
    life: Life,
    secret: usize,
    /// The session of which it has a stream.
    session: Option<u64>,
    /// The sessions that have failed it.
    failed: Vec<u64>,
    /// The time until which it waits for a session.
    until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Seen {
    served: u64,
    waited: u64,
    refused: u64,
    again: u64,
}

struct World {
    dice: Dice,
    now: Instant,
    begun: Instant,
    router: Router,
    visitors: BTreeMap<u64, Visitor>,
    /// In the order in which they have come.
    sessions: BTreeMap<u64, Session>,
    left: [Option<Instant>; SECRETS],
    /// The routes that wait for each secret, in their order.
    waiting: [VecDeque<u64>; SECRETS],
    /// The secrets of which another process was told that they are served.
    told: HashSet<usize>,
    next: u64,
    seen: Seen,
}

fn secret(number: usize) -> Secret {
    Secret::new(format!("secret {number}").as_bytes()).expect("a secret")
}

fn rule(number: usize) -> Rule {
    Rule {
        alpn: None,
        tls: None,
        target: Target::Tunnel(Tunnel {
            secret: secret(number),
            takes_newest_alone: false,
        }),
        acme: None,
        redirects_to_https: false,
        judges_each_request: false,
        connect_timeout: CONNECT_TIMEOUT,
        idle_timeout: None,
        send_proxy: None,
        check: None,
        program: None,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let now = Instant::now();
        let mut router = Router::new(Duration::from_secs(10), seed);
        let mut table = Table::default();
        for number in 0..SECRETS {
            let name = format!("s{number}.example").parse().expect("a pattern");
            table.insert(name, [rule(number)]);
        }
        drop(router.replace_table(Source::File, Arc::new(table)));
        router.tunnels_mut().set_patience(PATIENCE);
        router.tunnels_mut().expect_all(now);
        router.tunnels_mut().tell_changes();
        World {
            dice: Dice::new(seed),
            now,
            begun: now,
            router,
            visitors: BTreeMap::new(),
            sessions: BTreeMap::new(),
            left: [None; SECRETS],
            waiting: Default::default(),
            told: HashSet::new(),
            next: 0,
            seen: Seen::default(),
        }
    }

    fn step(&mut self) {
        match self.dice.below(100) {
            0..25 => self.visit(),
            25..55 => self.act(),
            55..67 => self.change_session(),
            67..75 => self.enter(),
            75..82 => self.leave(),
            82..97 => {
                let jump = Duration::from_millis(self.dice.below(800));
                self.pass(jump);
            }
            _ => self.pass(PATIENCE / 2),
        }
        self.hear_changes();
    }

    fn serving(&self, number: usize) -> impl Iterator<Item = (&u64, &Session)> {
        let serves = move |(_, session): &(&u64, &Session)| session.secret == number && !session.has_gone_away;
        self.sessions.iter().filter(serves)
    }

    /// The time until which a route for this secret may wait.
    fn expected_until(&self, number: usize) -> Option<Instant> {
        let until = self.left[number]
            .map(|at| at + PATIENCE)
            .max(Some(self.begun + PATIENCE));
        until.filter(|until| *until > self.now)
    }

    // ---- visitors ----------------------------------------------------------------------------------------------

    fn visit(&mut self) {
        if self.visitors.len() >= MOST_ROUTES {
            return;
        }
        let number = self.dice.index(SECRETS);
        self.next += 1;
        let id = self.next;
        let life = self.router.begin(Entrance::Http, ClientKey(id), self.now);
        let visitor = Visitor {
            life,
            secret: number,
            session: None,
            failed: Vec::new(),
            until: None,
        };
        self.visitors.insert(id, visitor);
        let request = format!("GET / HTTP/1.1\r\nHost: s{number}.example\r\n\r\n");
        self.tell(id, Event::Bytes(request.as_bytes()));
    }

    /// Something happens to a route.
    fn act(&mut self) {
        let ids: Vec<u64> = self.visitors.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids) else { return };
        match self.visitors[&id].life.stage() {
            Stage::Connecting => match self.dice.below(10) {
                0..7 => self.tell(id, Event::Connected),
                7..9 => self.fail(id),
                _ => self.tell(id, Event::Lost(Side::Client)),
            },
            Stage::Relaying => match self.dice.below(3) {
                0 => self.tell(id, Event::Lost(Side::Server)),
                1 => self.tell(id, Event::Ended(Side::Server)),
                _ => self.tell(id, Event::Ended(Side::Client)),
            },
            Stage::Expecting => {
                if self.dice.percent(15) {
                    self.tell(id, Event::Lost(Side::Client));
                }
            }
            Stage::Answering => self.tell(id, Event::Answered),
            stage => panic!("nothing holds a route up in {stage:?}"),
        }
    }

    fn fail(&mut self, id: u64) {
        let visitor = self.visitors.get_mut(&id).expect("a visitor");
        visitor.failed.extend(visitor.session);
        self.tell(id, Event::ConnectFailed(ConnectFault::Server));
    }

    /// Reports an event, and holds the step against the model.
    fn tell(&mut self, id: u64, event: Event<'_>) {
        let mut visitor = self.visitors.remove(&id).expect("a visitor");
        let before = (visitor.life.stage(), visitor.session);
        let number = visitor.secret;
        let gives_back = !matches!(
            event,
            Event::Bytes(_) | Event::Connected | Event::ClientCame | Event::Deadline
        );
        let step = self.router.advance(RouteId(id), &mut visitor.life, event, self.now);
        let stage = visitor.life.stage();
        // A stream goes back when its route leaves it, before another session is chosen.
        let is_given_back = before.1.is_some()
            && (stage != before.0 && stage != Stage::Relaying || gives_back && stage == Stage::Connecting);
        if is_given_back && let Some(session) = visitor.session.take() {
            self.release(session);
        }
        match &step {
            Step::OpenStream(SessionId(session)) => {
                // The model counts a stream that an attempt before has left.
                if let Some(left) = visitor.session.take() {
                    self.release(left);
                }
                self.choose(&visitor, *session);
                visitor.session = Some(*session);
                visitor.until = None;
                self.waiting[number].retain(|waiting| *waiting != id);
                self.seen.again += u64::from(!visitor.failed.is_empty());
            }
            Step::Hold => {
                assert_eq!(stage, Stage::Expecting);
                assert_eq!(self.serving(number).count(), 0, "there is a session");
                visitor.until = self.expected_until(number);
                assert!(visitor.until.is_some(), "none is expected");
                self.waiting[number].push_back(id);
                self.seen.waited += 1;
            }
            Step::Answer(_) if matches!(event, Event::Bytes(_)) => {
                let is_none = self.serving(number).count() == 0 && self.expected_until(number).is_none();
                assert!(is_none, "it could be served, or wait");
                assert_eq!(visitor.life.ending(), Some(Ending::NoServer));
                self.seen.refused += 1;
            }
            Step::Relay => self.seen.served += 1,
            Step::Answer(_) | Step::Close { .. } | Step::Nothing => {}
            step => panic!("{step:?} for {event:?}"),
        }
        if stage == Stage::Expecting {
            assert_eq!(
                visitor.life.deadline(),
                visitor.until,
                "it waits as long as one is expected"
            );
        } else {
            self.waiting[number].retain(|waiting| *waiting != id);
        }
        if stage != Stage::Over {
            self.visitors.insert(id, visitor);
        }
    }

    /// A session was chosen: it is the best but the one that has failed this route.
    fn choose(&mut self, visitor: &Visitor, chosen: u64) {
        let last = visitor.failed.last();
        let rank = |session: &Session| (session.is_elsewhere, session.is_suspect, session.streams);
        let candidates = self.serving(visitor.secret).filter(|(id, _)| Some(*id) != last);
        let best = candidates.map(|(_, session)| rank(session)).min();
        assert_eq!(best, self.sessions.get(&chosen).map(rank), "the best session");
        let session = self.sessions.get_mut(&chosen).expect("a session");
        assert!(session.secret == visitor.secret && !session.has_gone_away);
        session.streams += 1;
    }

    fn release(&mut self, id: u64) {
        let session = self.sessions.get_mut(&id).expect("a session with a stream");
        session.streams -= 1;
        // One that is elsewhere is forgotten with its last stream.
        if session.is_elsewhere && session.has_gone_away && session.streams == 0 {
            self.sessions.remove(&id);
        }
    }

    // ---- sessions ----------------------------------------------------------------------------------------------

    fn enter(&mut self) {
        if self.sessions.len() >= MOST_SESSIONS {
            return;
        }
        self.next += 1;
        let (id, number, is_elsewhere) = (self.next, self.dice.index(SECRETS), self.dice.percent(25));
        let address = Arc::new(Address::Tunnel(id.to_string().into()));
        let tunnels = self.router.tunnels_mut();
        if is_elsewhere {
            tunnels.enter_elsewhere(SessionId(id), secret(number), address);
        } else {
            tunnels.enter(SessionId(id), secret(number), address);
        }
        let session = Session {
            secret: number,
            streams: 0,
            is_suspect: false,
            is_elsewhere,
            has_gone_away: false,
        };
        self.sessions.insert(id, session);
        self.left[number] = None;
        // All of them are named, and hear of it later, in another order.
        let mut named = Vec::new();
        while let Some(RouteId(route)) = self.router.next_expectant() {
            assert_eq!(self.waiting[number].pop_front(), Some(route), "the first that waits");
            named.push(route);
        }
        assert!(self.waiting[number].is_empty(), "each is named");
        if self.dice.percent(10) {
            // It goes again before they hear of it.
            self.lose(id);
        }
        for route in named {
            let is_there = self.serving(number).count() > 0;
            if !is_there {
                self.waiting[number].push_back(route);
            }
            self.tell(route, Event::ClientCame);
            let is_waiting = self
                .visitors
                .get(&route)
                .is_some_and(|visitor| visitor.life.stage() == Stage::Expecting);
            assert_eq!(is_waiting, !is_there);
        }
    }

    fn change_session(&mut self) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        let Some(id) = self.dice.pick(&ids) else { return };
        let session = self.sessions.get_mut(&id).expect("a session");
        session.is_suspect = !session.is_suspect;
        let is_suspect = session.is_suspect;
        self.router.tunnels_mut().note_suspect(SessionId(id), is_suspect);
    }

    fn leave(&mut self) {
        let ids: Vec<u64> = self.sessions.keys().copied().collect();
        if let Some(id) = self.dice.pick(&ids) {
            self.lose(id);
        }
    }

    /// A session goes away, or its connection is lost with all of its streams.
    fn lose(&mut self, id: u64) {
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        let (number, was_serving) = (session.secret, !std::mem::replace(&mut session.has_gone_away, true));
        let (is_elsewhere, is_unused) = (session.is_elsewhere, session.streams == 0);
        let goes_at_once = !is_elsewhere && self.dice.percent(60);
        if was_serving && self.serving(number).count() == 0 {
            self.left[number] = Some(self.now);
        }
        if is_elsewhere {
            if is_unused {
                self.sessions.remove(&id);
            }
            return self.router.tunnels_mut().leave_elsewhere(SessionId(id), self.now);
        }
        self.router.tunnels_mut().note_gone_away(SessionId(id), self.now);
        if goes_at_once {
            let of_it = |(_, visitor): &(&u64, &Visitor)| visitor.session == Some(id);
            let routes: Vec<u64> = self.visitors.iter().filter(of_it).map(|(route, _)| *route).collect();
            for route in routes {
                match self.visitors[&route].life.stage() {
                    Stage::Connecting => self.fail(route),
                    _ => self.tell(route, Event::Lost(Side::Server)),
                }
            }
            self.sessions.remove(&id);
            self.router.tunnels_mut().leave(SessionId(id), self.now);
        }
    }

    /// Another process hears of what has changed.
    fn hear_changes(&mut self) {
        while let Some((told, is_served)) = self.router.tunnels_mut().next_change() {
            let number = (0..SECRETS)
                .find(|number| secret(*number) == told)
                .expect("a known secret");
            if is_served {
                self.told.insert(number);
            } else {
                self.told.remove(&number);
            }
        }
        let served = (0..SECRETS).filter(|number| self.serving(*number).count() > 0);
        assert_eq!(served.collect::<HashSet<_>>(), self.told, "what another process knows");
    }

    // ---- time --------------------------------------------------------------------------------------------------

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let is_due = |(_, visitor): &(&u64, &Visitor)| visitor.life.deadline().is_some_and(|at| at <= self.now);
        let due: Vec<u64> = self.visitors.iter().filter(is_due).map(|(id, _)| *id).collect();
        for id in due {
            let visitor = self.visitors.get_mut(&id).expect("a visitor");
            if visitor.life.stage() == Stage::Connecting {
                visitor.failed.extend(visitor.session);
            }
            self.tell(id, Event::Deadline);
        }
    }

    fn drain(mut self) -> Seen {
        for _ in 0..100 {
            self.pass(PATIENCE);
            let relaying: Vec<u64> = self.visitors.keys().copied().collect();
            for id in relaying {
                if self.visitors.contains_key(&id) {
                    self.tell(id, Event::Abort);
                }
            }
        }
        assert!(self.visitors.is_empty(), "{:?}", self.visitors);
        let tunnels = self.router.tunnels();
        assert_eq!((tunnels.streams(), tunnels.expecting()), (0, 0));
        assert_eq!(self.router.census().total(), 0);
        assert!(self.sessions.values().all(|session| session.streams == 0));
        self.seen
    }
}

#[test]
fn visitors_of_tunnels_are_served_or_wait_as_long_as_a_client_is_expected() {
    let seen = seeds::each(|seed| {
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        world.drain()
    });
    let sum = |count: fn(&Seen) -> u64| seen.iter().map(count).sum::<u64>();
    for (what, count) in [
        ("served", sum(|seen| seen.served)),
        ("waited", sum(|seen| seen.waited)),
        ("refused", sum(|seen| seen.refused)),
        ("another session after one that failed", sum(|seen| seen.again)),
    ] {
        assert!(count > 0, "a simulation that shows nothing: {what}");
    }
}
