//! The router against clients and servers that are made of dice.
//!
//! The shadow model has its own tables, in which it looks names up one by one, and knows for each route what it waits
//! for, which server it holds, and how its attempts have gone. From that follow the promises: a route goes to a server
//! of the service that the tables of that moment have for its name, at most twice, and the second time to another one;
//! it is refused only if they have none, and told of a failure only behind one; a later request on a filtered route
//! passes if and only if it is for the same service; each wait has a deadline, and a served client has waited no longer
//! than all of them together. A server has as many connections as there are routes that hold it. The counters are the
//! number of what has happened. At the end everything runs out by its deadlines, or is stopped: no route, no connection
//! and no place among the waiting may be left over, and a client whose servers are fine again is served at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use iotcpd::internals::route::core::balance::ClientKey;
use iotcpd::internals::route::core::ending::{Ending, Refusal};
use iotcpd::internals::route::core::event::{ConnectFault, Event, RouteId, Side, Step};
use iotcpd::internals::route::core::head;
use iotcpd::internals::route::core::life::{Life, Stage, TABLE_PATIENCE};
use iotcpd::internals::route::core::opening::{Entrance, NoTls, SSL_REQUEST};
use iotcpd::internals::route::core::router::Router;
use iotcpd::internals::route::core::table::{Address, Balance, Rule, Server, Servers, Source, Table, Target, Way};

use crate::random::Dice;
use crate::seeds;

const STEPS: u64 = 2000;
const MOST_ROUTES: usize = 150;
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest jump of the clock, by which a deadline may be noticed late.
const JUMP: Duration = Duration::from_secs(1);

const NAMES: [&str; 7] = [
    "a.example",
    "b.example",
    "x.a.example",
    "y.x.a.example",
    "c.example",
    "d.org",
    "e.net",
];
const PATTERNS: [&str; 7] = [
    "a.example",
    "b.example",
    "*.a.example",
    "*.example",
    "*.org",
    "d.org",
    "CATCH_ALL",
];
const HOSTS: u64 = 8;
const TLS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// A service as the model keeps it.
#[derive(Debug, Clone)]
struct Service {
    pattern: &'static str,
    /// The numbers of the hosts, with their weights.
    hosts: Vec<(u64, u16)>,
    has_tls: bool,
    has_http: bool,
    redirects: bool,
    judges: bool,
}

/// The state of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Fine,
    Refusing,
    Hanging,
}

/// The event that a route waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    Bytes,
    Table,
    Server,
    Reply,
    Relay,
    Answer,
}

/// A client, and its route.
#[derive(Debug)]
struct Client {
    life: Life,
    accepted: Instant,
    way: Way,
    /// The name that it asks for; `None` if it names no host.
    name: Option<&'static str>,
    is_valid: bool,
    /// Its first bytes, of which this number was reported.
    bytes: Vec<u8>,
    sent: usize,
    /// The bytes behind a request of PostgreSQL.
    behind: Option<Vec<u8>>,
    waits: Waits,
    /// The servers that were tried.
    tried: Vec<String>,
    failures: u64,
    /// The server that it holds.
    holds: Option<Held>,
}

/// The service, true for TLS, and the address of a server.
type Held = (String, bool, String);

/// The number of what has happened.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Seen {
    begun: u64,
    connect_failed: u64,
    connect_late: u64,
    connect_again: u64,
    redirected: u64,
    requests: u64,
    misdirected: u64,
    relayed: u64,
    waited: u64,
    refused: u64,
}

struct World {
    dice: Dice,
    now: Instant,
    router: Router,
    clients: BTreeMap<u64, Client>,
    /// The tables of the file and of the store, by pattern.
    tables: [BTreeMap<&'static str, Service>; 2],
    moods: Vec<Mood>,
    is_store_awaited: bool,
    /// The number of routes that hold each server.
    held: BTreeMap<Held, u32>,
    all_held: usize,
    next: u64,
    seen: Seen,
    trace: Vec<String>,
}

fn vector(data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).expect("a short vector").to_be_bytes();
    [&length, data].concat()
}

/// A ClientHello with this name, or without one.
fn hello(name: Option<&str>) -> Vec<u8> {
    let extension = name.map(|name| {
        let host = [&[0][..], &vector(name.as_bytes())].concat();
        [&[0, 0][..], &vector(&vector(&host))].concat()
    });
    let body = [
        b"\x03\x03RRRRRRRRRRRRRRRRRRRRRRRRRRRRRRRR\0\0\x02\x13\x01\x01\0",
        &vector(&extension.unwrap_or_default())[..],
    ];
    let message = [&[1, 0][..], &vector(&body.concat())].concat();
    [b"\x16\x03\x01", &vector(&message)[..]].concat()
}

fn request(name: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes()
}

fn address(host: u64, way: Way) -> Address {
    Address::Network {
        host: format!("h{host}").into(),
        port: if way == Way::Tls { TLS_PORT } else { HTTP_PORT },
    }
}

impl Service {
    fn rule(&self, balance: Balance) -> Rule {
        let servers = |way| {
            let server = |(host, weight): &(u64, u16)| Server {
                address: address(*host, way),
                weight: *weight,
            };
            let list = self.hosts.iter().map(server).collect();
            Arc::new(Servers { list, balance })
        };
        Rule {
            alpn: None,
            tls: None,
            target: Target::Servers {
                tls: self.has_tls.then(|| servers(Way::Tls)),
                http: self.has_http.then(|| servers(Way::Http)),
            },
            acme: None,
            redirects_to_https: self.redirects,
            judges_each_request: self.judges,
            connect_timeout: CONNECT_TIMEOUT,
            idle_timeout: Some(IDLE_TIMEOUT),
            send_proxy: None,
            check: None,
            program: None,
        }
    }

    /// Returns true if clients that come this way, with a request if `is_http`, are given a server, if one can be had.
    fn takes(&self, way: Way, is_http: bool) -> bool {
        match way {
            Way::Tls => self.has_tls,
            Way::Http | Way::Acme => self.has_http && !(is_http && self.redirects),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = World {
            dice: Dice::new(seed),
            now: Instant::now(),
            router: Router::new(HELLO_TIMEOUT, seed),
            clients: BTreeMap::new(),
            tables: Default::default(),
            moods: vec![Mood::Fine; HOSTS as usize],
            is_store_awaited: false,
            held: BTreeMap::new(),
            all_held: 0,
            next: 0,
            seen: Seen::default(),
            trace: Vec::new(),
        };
        world.change_table();
        world
    }

    // ---- the dice ----------------------------------------------------------------------------------------------

    fn step(&mut self) {
        match self.dice.below(100) {
            0..30 => self.begin(),
            30..80 => self.act(),
            80..88 => {
                let jump = self.dice.below(JUMP.as_millis() as u64);
                self.pass(Duration::from_millis(jump));
            }
            88..91 => self.change_table(),
            91..94 => {
                let host = self.dice.index(self.moods.len());
                let moods = [Mood::Fine, Mood::Fine, Mood::Refusing, Mood::Hanging];
                self.moods[host] = self.dice.pick(&moods).expect("a mood");
            }
            94..96 => self.turn_store(),
            _ => self.disturb(),
        }
        while self.router.next_notice().is_some() {}
    }

    fn change_table(&mut self) {
        let source = self.dice.index(2);
        let mut services = BTreeMap::new();
        for pattern in PATTERNS {
            if self.dice.percent(60) {
                let hosts = (0..HOSTS).filter(|_| self.dice.percent(30)).collect::<Vec<_>>();
                let service = Service {
                    pattern,
                    hosts: hosts.iter().map(|host| (*host, self.dice.below(3) as u16)).collect(),
                    has_tls: self.dice.percent(90),
                    has_http: self.dice.percent(80),
                    redirects: self.dice.percent(15),
                    judges: self.dice.percent(50),
                };
                services.insert(pattern, service);
            }
        }
        self.replace(source, services);
    }

    fn replace(&mut self, source: usize, services: BTreeMap<&'static str, Service>) {
        let mut table = Table::default();
        for service in services.values() {
            let balances = [Balance::RoundRobin, Balance::LeastConnections, Balance::Sticky];
            let balance = self.dice.pick(&balances).expect("a balance");
            table.insert(service.pattern.parse().expect("a pattern"), [service.rule(balance)]);
        }
        self.tables[source] = services;
        let source = [Source::File, Source::Store][source];
        drop(self.router.replace_table(source, Arc::new(table)));
    }

    fn turn_store(&mut self) {
        self.is_store_awaited = !self.is_store_awaited;
        if self.is_store_awaited {
            self.router.await_store();
        } else {
            self.router.stop_awaiting_store();
            while let Some(RouteId(id)) = self.router.woken() {
                assert_eq!(self.clients[&id].waits, Waits::Table, "only a waiting route is woken");
                self.tell(id, Event::TableCame);
            }
        }
    }

    fn begin(&mut self) {
        if self.clients.len() >= MOST_ROUTES {
            return;
        }
        let name = self.dice.pick(&NAMES).expect("a name");
        let (entrance, way, name, bytes, behind) = match self.dice.below(12) {
            0..5 => (Entrance::Tls, Way::Tls, Some(name), hello(Some(name)), None),
            5 => (Entrance::Tls, Way::Tls, None, hello(None), None),
            6 => (Entrance::Tls, Way::Http, None, b"SSH-2.0-x\r\n".to_vec(), None),
            7 => {
                let behind = Some(hello(Some(name)));
                (Entrance::Tls, Way::Tls, Some(name), SSL_REQUEST.to_vec(), behind)
            }
            _ => (Entrance::Http, Way::Http, Some(name), request(name), None),
        };
        let is_valid = !self.dice.percent(5);
        let bytes = match (is_valid, entrance) {
            (true, _) => bytes,
            (false, Entrance::Http) => b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            (false, _) => b"\x16\x03\x01\0\0".to_vec(),
        };
        let key = ClientKey(self.dice.below(20));
        let client = Client {
            life: self.router.begin(entrance, key, self.now),
            accepted: self.now,
            way,
            name,
            is_valid,
            bytes,
            sent: 0,
            behind: behind.filter(|_| is_valid),
            waits: Waits::Bytes,
            tried: Vec::new(),
            failures: 0,
            holds: None,
        };
        self.seen.begun += 1;
        self.clients.insert(self.next, client);
        self.next += 1;
    }

    fn any(&mut self) -> Option<u64> {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        self.dice.pick(&ids)
    }

    /// Lets one route have that for which it waits.
    fn act(&mut self) {
        let Some(id) = self.any() else { return };
        match self.clients[&id].waits {
            Waits::Bytes => {
                let client = self.clients.get_mut(&id).expect("a client");
                let rest = (client.bytes.len() - client.sent) as u64;
                client.sent += if self.dice.percent(60) {
                    rest
                } else {
                    self.dice.below(rest + 1)
                } as usize;
                self.judge(id);
            }
            Waits::Table => {}
            Waits::Server => self.meet(id),
            Waits::Reply if self.dice.percent(80) => self.tell(id, Event::Replied(Ok(()))),
            Waits::Reply if self.dice.percent(50) => self.tell(id, Event::Replied(Err(NoTls::Wrong))),
            Waits::Reply => self.tell(id, Event::ConnectFailed(ConnectFault::Server)),
            Waits::Relay => self.converse(id),
            Waits::Answer => self.tell(id, Event::Answered),
        }
    }

    fn judge(&mut self, id: u64) {
        let client = &self.clients[&id];
        let bytes = client.bytes[..client.sent].to_vec();
        self.tell(id, Event::Bytes(&bytes));
    }

    /// The server treats an attempt to connect as its mood is.
    fn meet(&mut self, id: u64) {
        let host = self.clients[&id].tried.last().expect("a server");
        let number: usize = host[1..]
            .split(':')
            .next()
            .and_then(|host| host.parse().ok())
            .expect("a host");
        match self.moods[number] {
            _ if self.dice.percent(2) => self.tell(id, Event::ConnectFailed(ConnectFault::Daemon)),
            Mood::Fine => self.tell(id, Event::Connected),
            Mood::Refusing => self.tell(id, Event::ConnectFailed(ConnectFault::Absent)),
            Mood::Hanging => {}
        }
    }

    /// The two sides of a relay send, or end.
    fn converse(&mut self, id: u64) {
        let now = self.now;
        let side = self.dice.pick(&[Side::Client, Side::Server]).expect("a side");
        let client = self.clients.get_mut(&id).expect("a client");
        if client.life.is_filtered() && self.dice.percent(60) {
            return self.ask_again(id);
        }
        if self.dice.percent(60) {
            client.life.note_bytes(side, now);
        } else {
            self.tell(id, Event::Ended(side));
        }
    }

    /// The client of a filtered route sends its next request.
    fn ask_again(&mut self, id: u64) {
        let name = self.dice.pick(&NAMES).expect("a name");
        let bytes = request(name);
        let head::Parsed::Head(head) = head::parse(&bytes, &mut head::Progress::default()) else {
            panic!("a head");
        };
        let client = &self.clients[&id];
        let service = &client.life.routed().expect("a server").choice.service;
        let may_pass = self
            .find(Some(name))
            .is_some_and(|found| *found.pattern == **service && found.takes(Way::Http, true));
        assert_eq!(
            self.router.admits(&client.life, &head),
            may_pass,
            "{name} behind {service}"
        );
        if may_pass {
            self.seen.requests += 1;
            return;
        }
        self.seen.misdirected += 1;
        self.tell(id, Event::Bytes(&bytes));
        let ending = self.clients[&id].life.ending();
        assert_eq!(ending, Some(Ending::Refused(Refusal::Misdirected)));
    }

    /// Something happens to a route at the wrong time.
    fn disturb(&mut self) {
        let Some(id) = self.any() else { return };
        let until = self.now + Duration::from_secs(self.dice.below(5));
        let is_connected = !matches!(self.clients[&id].waits, Waits::Server | Waits::Reply);
        match self.dice.below(8) {
            0 | 1 => self.tell(id, Event::Lost(Side::Client)),
            2 if is_connected => self.tell(id, Event::Lost(Side::Server)),
            3 => self.tell(id, Event::Ended(Side::Client)),
            4 => self.tell(id, Event::Deadline),
            5 => self.tell(id, Event::Stop(until)),
            6 if self.dice.percent(20) => self.tell(id, Event::Abort),
            // Late, and meaningless by now.
            7 if is_connected => self.tell(id, Event::Connected),
            _ => {}
        }
    }

    /// Lets time pass, and rings the alarms that are due.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        let is_due = |client: &Client| client.life.deadline().is_some_and(|deadline| deadline <= self.now);
        let due: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| is_due(client))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.tell(id, Event::Deadline);
            let deadline = self.clients.get(&id).and_then(|client| client.life.deadline());
            assert!(
                deadline.is_none_or(|deadline| deadline > self.now),
                "a deadline passes without an effect"
            );
        }
    }

    // ---- the model ---------------------------------------------------------------------------------------------

    /// The service that has a name now.
    fn find(&self, name: Option<&str>) -> Option<&Service> {
        let name = name.unwrap_or_default();
        let suffixes = name.match_indices('.').map(|(dot, _)| format!("*{}", &name[dot..]));
        let patterns = std::iter::once(name.to_owned())
            .chain(suffixes)
            .chain(["CATCH_ALL".to_owned()]);
        patterns
            .flat_map(|pattern| self.tables.iter().map(move |table| table.get(&*pattern)))
            .flatten()
            .next()
    }

    fn tell(&mut self, id: u64, event: Event<'_>) {
        let client = self.clients.get_mut(&id).expect("a client");
        let before = client.life.stage();
        let is_attempt = matches!(before, Stage::Connecting | Stage::Asking);
        let is_late = client.life.deadline().is_some_and(|deadline| deadline <= self.now);
        match event {
            Event::ConnectFailed(fault) if is_attempt => {
                client.failures += 1;
                self.seen.connect_failed += u64::from(fault != ConnectFault::Daemon);
            }
            Event::Deadline if is_attempt && is_late => {
                client.failures += 1;
                self.seen.connect_late += 1;
            }
            Event::Replied(Err(_)) if is_attempt => client.failures += 1,
            _ => {}
        }
        let step = self.router.advance(RouteId(id), &mut client.life, event, self.now);
        self.trace.push(format!("{id}: {before:?}: {step:?}"));
        self.count_holders(id);
        self.follow(id, step, before);
    }

    /// Holds the connections of servers against the routes that hold them.
    fn count_holders(&mut self, id: u64) {
        let client = self.clients.get_mut(&id).expect("a client");
        let holds = match client.life.stage() {
            Stage::Connecting | Stage::Asking | Stage::Relaying => client.life.routed().map(|routed| {
                let (choice, server) = (&routed.choice, &routed.server);
                (choice.service.to_string(), choice.way == Way::Tls, server.to_string())
            }),
            Stage::Opening
            | Stage::Waiting
            | Stage::Securing
            | Stage::Starting
            | Stage::Expecting
            | Stage::Answering
            | Stage::Over => None,
        };
        for (held, is_more) in [(&client.holds, false), (&holds, true)] {
            if let Some(held) = held {
                let count = self.held.entry(held.clone()).or_default();
                let all = &mut self.all_held;
                (*count, *all) = if is_more {
                    (*count + 1, *all + 1)
                } else {
                    (*count - 1, *all - 1)
                };
            }
        }
        client.holds = holds;
        let active = self.router.upstreams().active();
        assert_eq!(active, self.all_held, "each holder has one connection");
    }

    /// Compares each server's connections with the model's.
    fn compare_servers(&self) {
        let mut seen: BTreeMap<Held, u32> = BTreeMap::new();
        for view in self.router.upstreams().views().filter(|view| view.active > 0) {
            let held = (view.service.to_owned(), view.way == Way::Tls, view.address.to_string());
            *seen.entry(held).or_default() += view.active;
        }
        let held: BTreeMap<Held, u32> = self
            .held
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(held, count)| (held.clone(), *count))
            .collect();
        assert_eq!(seen, held);
        assert_eq!(self.router.census().total(), self.clients.len());
    }

    fn follow(&mut self, id: u64, step: Step, before: Stage) {
        let client = self.clients.get_mut(&id).expect("a client");
        let deadline = client.life.deadline();
        assert!(
            deadline.is_some() || client.life.stage() == Stage::Over,
            "{:?} waits for ever",
            client.life.stage()
        );
        match step {
            Step::Nothing => {}
            Step::Read => client.waits = Waits::Bytes,
            Step::Judge => self.judge(id),
            Step::Reply(answer) => {
                assert_eq!(answer, b"S");
                client.bytes = client.behind.take().expect("a request for TLS");
                (client.sent, client.waits) = (0, Waits::Bytes);
            }
            Step::Hold => {
                assert!(self.is_store_awaited, "no table is awaited");
                client.waits = Waits::Table;
                self.seen.waited += 1;
            }
            Step::Connect => {
                client.waits = Waits::Server;
                self.check_choice(id, before);
            }
            Step::Ask => client.waits = Waits::Reply,
            Step::Relay => {
                client.waits = Waits::Relay;
                let waits = 3 * HELLO_TIMEOUT + TABLE_PATIENCE + 2 * CONNECT_TIMEOUT + 8 * JUMP;
                assert!(self.now - client.accepted <= waits, "served too late");
                self.seen.relayed += 1;
                self.seen.requests += u64::from(client.life.is_filtered());
            }
            Step::Answer(_) => {
                client.waits = Waits::Answer;
                self.check_end(id, before);
            }
            Step::OpenStream(session) => panic!("there is no tunnel, and no {session:?}"),
            Step::Secure(server) => panic!("no TLS ends here, not even that of {server}"),
            Step::HandOver(door) => panic!("there is no door {door}"),
            Step::Close { .. } => {
                assert_eq!(client.life.stage(), Stage::Over);
                if before != Stage::Answering {
                    self.check_end(id, before);
                }
                self.clients.remove(&id);
            }
        }
    }

    /// The server of an attempt is one of the service that has the name, or another one of the same after a failure.
    fn check_choice(&mut self, id: u64, before: Stage) {
        let client = &self.clients[&id];
        let routed = client.life.routed().expect("a server");
        let server = routed.server.to_string();
        let list = &routed.choice.servers.list;
        let known = list
            .iter()
            .find(|known| known.address == *routed.server)
            .expect("a server of the table");
        if before == Stage::Opening {
            let found = self.find(client.name).expect("a service");
            assert_eq!(*routed.choice.service, *found.pattern);
            assert!(known.weight > 0, "{server} has no weight");
            assert!(found.takes(client.way, client.life.asked().has_head));
            assert!(
                found
                    .hosts
                    .iter()
                    .any(|(host, _)| address(*host, client.way) == *routed.server)
            );
        } else {
            // A newer table may have given it a weight since.
            assert!(client.failures > 0 && client.tried.len() == 1 && client.tried[0] != server);
            self.seen.connect_again += 1;
        }
        let client = self.clients.get_mut(&id).expect("a client");
        client.tried.push(server);
    }

    /// A route ends for a reason that the model knows of.
    fn check_end(&mut self, id: u64, before: Stage) {
        let client = &self.clients[&id];
        let letters = client.life.ending().expect("a reason").letters();
        let found = self.find(client.name);
        let has_head = client.life.asked().has_head;
        match (letters, before) {
            ("PR", Stage::Opening) if client.is_valid => {
                assert!(
                    !found.is_some_and(|found| found.takes(client.way, has_head)),
                    "refused for nothing"
                );
                self.seen.refused += 1;
            }
            ("LR", _) => {
                assert!(found.is_some_and(|found| found.redirects) && has_head);
                self.seen.redirected += 1;
            }
            ("SC", Stage::Opening) => {
                let found = found.expect("a service");
                assert!(
                    found.hosts.iter().all(|(_, weight)| *weight == 0),
                    "{found:?} has servers"
                );
            }
            ("SC" | "sC" | "RC" | "PH", _) => assert!(client.failures > 0, "{letters} without a failure"),
            _ => {}
        }
    }

    // ---- the end -----------------------------------------------------------------------------------------------

    /// Ends all routes: by their deadlines alone, by those behind a word that the door drains, or at once.
    fn run_out(&mut self) {
        let ids: Vec<u64> = self.clients.keys().copied().collect();
        let way = self.dice.below(3);
        for id in ids {
            let until = self.now + Duration::from_secs(1);
            match way {
                0 => {}
                1 => self.tell(id, Event::Stop(until)),
                _ => {
                    self.tell(id, Event::Abort);
                    // The second word ends an answer.
                    if self.clients.contains_key(&id) {
                        self.tell(id, Event::Abort);
                    }
                }
            }
        }
        let mut rings = 0;
        while let Some(next) = self.clients.values().filter_map(|client| client.life.deadline()).min() {
            self.pass(next.saturating_duration_since(self.now));
            rings += 1;
            assert!(rings < 10_000, "it never ends");
        }
        if self.is_store_awaited {
            self.turn_store();
        }
        assert!(self.clients.is_empty(), "a route without a deadline");
        self.compare_servers();
        assert!(self.router.upstreams().views().all(|view| view.active == 0));
        let counters = *self.router.counters();
        let seen = Seen {
            begun: counters.total,
            connect_failed: counters.connect_failed,
            connect_late: counters.connect_late,
            connect_again: counters.connect_again,
            redirected: counters.redirected,
            requests: counters.requests,
            misdirected: counters.misdirected,
            ..self.seen
        };
        assert_eq!(seen, self.seen, "the counters tell what has happened");
    }

    /// Every server is fine again: each client is served at its first attempt.
    fn recover(&mut self) {
        self.moods.fill(Mood::Fine);
        let service = Service {
            pattern: "a.example",
            hosts: (0..HOSTS).map(|host| (host, 1)).collect(),
            has_tls: true,
            has_http: true,
            redirects: false,
            judges: true,
        };
        self.replace(0, BTreeMap::from([("a.example", service)]));
        self.replace(1, BTreeMap::new());
        for _ in 0..40 {
            let id = self.next;
            self.next += 1;
            self.seen.begun += 1;
            let bytes = hello(Some("a.example"));
            let client = Client {
                life: self.router.begin(Entrance::Tls, ClientKey(id), self.now),
                accepted: self.now,
                way: Way::Tls,
                name: Some("a.example"),
                is_valid: true,
                sent: bytes.len(),
                bytes,
                behind: None,
                waits: Waits::Bytes,
                tried: Vec::new(),
                failures: 0,
                holds: None,
            };
            self.clients.insert(id, client);
            self.judge(id);
            self.tell(id, Event::Connected);
            assert_eq!(self.clients[&id].waits, Waits::Relay);
            self.pass(Duration::from_secs(20));
        }
        while self.router.next_notice().is_some() {}
    }
}

fn simulate(seed: u64) -> World {
    let mut world = World::new(seed);
    for step in 0..STEPS {
        world.step();
        if step % 50 == 0 {
            world.compare_servers();
        }
    }
    world.run_out();
    world.recover();
    world.run_out();
    world
}

#[test]
fn every_route_goes_where_its_tables_say_and_ends_whatever_its_sides_do() {
    let seen = seeds::each(|seed| simulate(seed).seen);
    let sum = |of: fn(&Seen) -> u64| seen.iter().map(of).sum::<u64>();
    let sums = [
        sum(|seen| seen.begun),
        sum(|seen| seen.connect_failed),
        sum(|seen| seen.connect_late),
        sum(|seen| seen.connect_again),
        sum(|seen| seen.redirected),
        sum(|seen| seen.requests),
        sum(|seen| seen.misdirected),
        sum(|seen| seen.relayed),
        sum(|seen| seen.waited),
        sum(|seen| seen.refused),
    ];
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}: that shows nothing");
}

#[test]
fn the_same_seed_goes_the_same_way() {
    assert_eq!(simulate(7).trace, simulate(7).trace);
    assert_ne!(simulate(7).trace, simulate(8).trace);
}
