//! The servers that the door connects to: how many connections each has, its health, and which is chosen next.
//!
//! The life of an upstream, which is one list of servers in the table: it is made by the first connection that goes
//! there, so a table of 100,000 names costs nothing here. Each connection [chooses](Upstreams::choose) a server, tells
//! how its attempt went ([`Upstreams::report`]), and gives it back ([`Upstreams::release`]). When a newer table gives
//! other servers to the same service, the next choice takes them over: a server with the same address keeps its
//! connections and its health, and one that is no longer there stays only until its last connection has ended. An
//! upstream that was not used for [`IDLE`] is forgotten, unless checks that are further apart have told of its servers.
//!
//! The invariants:
//! - A connection gets only a server that is in the table by which it was decided, also if a newer one is there.
//! - Every choice is given back exactly once; until then its [`BackendId`] finds the backend.
//! - A choice costs in proportion to the servers of its service, and not to those of others.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use slab::Slab;

use super::balance::{self, ClientKey};
use super::checks::{Subject, Told};
use super::health::{Health, HealthChange, HealthEvent};
use super::table::{Address, Choice, Servers, Way};
use crate::doors::jitter::Jitter;

/// The time without a connection after which an upstream may be forgotten. It is looked at again after that time, so it
/// may last twice as long.
pub const IDLE: Duration = Duration::from_secs(60 * 60);

/// The most upstreams that one choice looks at to forget them.
const LOOKED_AT: usize = 4;

/// A server that was given to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendId {
    upstream: usize,
    /// Never given out twice.
    number: u64,
}

/// One server.
#[derive(Debug)]
pub struct Backend {
    /// A number that no other backend of the door ever has.
    pub(super) number: u64,
    /// The address.
    pub(super) address: Arc<Address>,
    /// The server's share of the connections; 0 for none.
    pub(super) weight: u16,
    /// The connections that have it now.
    pub(super) active: u32,
    /// The turns that round-robin owes it.
    pub(super) credit: i64,
    /// The hash of the address, for sticky balancing.
    pub(super) hash: u64,
    /// The health.
    pub(super) health: Health,
}

impl Backend {
    pub(super) fn new(number: u64, address: Address, weight: u16) -> Backend {
        Backend {
            number,
            hash: balance::hash(address.to_string().as_bytes()),
            address: Arc::new(address),
            weight,
            active: 0,
            credit: 0,
            health: Health::UNTRIED,
        }
    }
}

/// The service, the number of the rule in it, and the way.
type Key = (Arc<str>, usize, Way);

#[derive(Debug)]
struct Upstream {
    key: Key,
    /// The servers in the newest table by which a connection came here.
    servers: Arc<Servers>,
    /// The generation of that table.
    generation: u64,
    /// In the order of `servers`.
    backends: Vec<Backend>,
    /// Backends that are not in `servers`, each with at least one connection.
    leaving: Vec<Backend>,
    used: Instant,
}

/// The state of all servers that are in use. See the module.
#[derive(Debug)]
pub struct Upstreams {
    by_key: HashMap<Key, usize>,
    upstreams: Slab<Upstream>,
    /// Each upstream once, with the time when it is looked at, in the order of that time.
    idle_checks: VecDeque<(usize, Instant)>,
    next_number: u64,
    /// The connections of all backends.
    active: usize,
    jitter: Jitter,
}

impl Upstreams {
    /// `seed` feeds the jitter of delays.
    pub fn new(seed: u64) -> Upstreams {
        Upstreams {
            by_key: HashMap::new(),
            upstreams: Slab::new(),
            idle_checks: VecDeque::new(),
            next_number: 0,
            active: 0,
            jitter: Jitter::new(seed),
        }
    }

    /// Chooses a server for a connection, which has it until [`release`](Self::release). `tried` is the server to which
    /// it could not connect before. If no other server is available, one that is out is tried all the same. Returns
    /// `None` if there is none besides `tried`.
    pub fn choose(
        &mut self,
        choice: &Choice,
        client: ClientKey,
        tried: Option<BackendId>,
        now: Instant,
    ) -> Option<(BackendId, Arc<Address>)> {
        self.forget_idle(now);
        let key = (Arc::clone(&choice.service), choice.number, choice.way);
        let id = self.upstream_of(key, choice.generation, now);
        let upstream = self.upstreams.get_mut(id)?;
        let is_stale = upstream.take_over(&choice.servers, choice.generation, &mut self.next_number);
        upstream.used = now;
        let may_have = |backend: &Backend| {
            let is_other = tried.is_none_or(|tried| tried.number != backend.number);
            is_other && (!is_stale || choice.servers.has(&backend.address))
        };
        let is_available = |backend: &Backend| may_have(backend) && backend.health.is_available(now);
        let backends = &mut upstream.backends;
        let available = balance::choose(choice.servers.balance, backends, client, is_available);
        let index = available.or_else(|| last_resort(backends, may_have))?;
        let backend = backends.get_mut(index)?;
        backend.active += 1;
        backend.health.handle(HealthEvent::Tried, now, &mut self.jitter);
        self.active += 1;
        let id = BackendId {
            upstream: id,
            number: backend.number,
        };
        Some((id, Arc::clone(&backend.address)))
    }

    /// Takes note of an event in the life of a server that a connection has. Returns the change that the log tells.
    pub fn report(&mut self, id: BackendId, event: HealthEvent, now: Instant) -> Option<HealthChange> {
        let backend = self.upstreams.get_mut(id.upstream)?.backend_mut(id)?;
        backend.health.handle(event, now, &mut self.jitter)
    }

    /// Takes note of the outcome of a check of a server, which need not be in use so far. `generation` is that of the table
    /// which has the check. Returns the change that the log tells.
    pub fn report_check(
        &mut self,
        subject: &Subject,
        told: &Told,
        generation: u64,
        event: HealthEvent,
        now: Instant,
    ) -> Option<HealthChange> {
        let key = (Arc::clone(&subject.service), subject.number, told.way);
        if event == HealthEvent::Unchecked && !self.by_key.contains_key(&key) {
            return None;
        }
        let id = self.upstream_of(key, generation, now);
        let upstream = self.upstreams.get_mut(id)?;
        if event != HealthEvent::Unchecked {
            upstream.take_over(&told.servers, generation, &mut self.next_number);
            upstream.used = now;
        }
        let mut all = upstream.backends.iter_mut().chain(&mut upstream.leaving);
        let backend = all.find(|backend| *backend.address == *told.address)?;
        backend.health.handle(event, now, &mut self.jitter)
    }

    /// Gives a server back. Must be called once for each server that [`choose`](Self::choose) has returned.
    pub fn release(&mut self, id: BackendId, now: Instant) {
        let Some(upstream) = self.upstreams.get_mut(id.upstream) else {
            return;
        };
        upstream.used = now;
        if let Some(backend) = upstream.backend_mut(id) {
            backend.active = backend.active.saturating_sub(1);
            self.active = self.active.saturating_sub(1);
        }
        upstream.leaving.retain(|backend| backend.active > 0);
    }

    /// Returns the number of connections that have a server.
    pub fn active(&self) -> usize {
        self.active
    }

    /// Returns the number of servers in use; one that is no longer in a table is included.
    pub fn known(&self) -> usize {
        self.views().count()
    }

    /// Returns the number of servers that are out.
    pub fn out(&self) -> usize {
        self.views().filter(|view| view.health.is_out()).count()
    }

    /// Returns every server in use, for the statistics.
    pub fn views(&self) -> impl Iterator<Item = BackendView<'_>> {
        self.upstreams.iter().flat_map(|(_, upstream)| {
            let all = upstream.backends.iter().chain(&upstream.leaving);
            all.map(|backend| BackendView {
                service: &upstream.key.0,
                way: upstream.key.2,
                address: &backend.address,
                weight: backend.weight,
                active: backend.active,
                health: backend.health,
            })
        })
    }

    fn upstream_of(&mut self, key: Key, generation: u64, now: Instant) -> usize {
        if let Some(id) = self.by_key.get(&key) {
            return *id;
        }
        let id = self.upstreams.insert(Upstream {
            key: key.clone(),
            servers: Arc::default(),
            generation,
            backends: Vec::new(),
            leaving: Vec::new(),
            used: now,
        });
        self.by_key.insert(key, id);
        self.idle_checks.push_back((id, now + IDLE));
        id
    }

    /// Looks at a few of the upstreams whose time has come, and forgets the idle ones.
    fn forget_idle(&mut self, now: Instant) {
        for _ in 0..LOOKED_AT {
            let Some((id, _)) = self.idle_checks.front().copied().filter(|(_, time)| *time <= now) else {
                return;
            };
            self.idle_checks.pop_front();
            let is_idle = |upstream: &Upstream| {
                let is_checked = upstream
                    .backends
                    .iter()
                    .any(|backend| backend.health.is_known_by_checks());
                upstream.active() == 0 && !is_checked && upstream.used + IDLE <= now
            };
            if !self.upstreams.get(id).is_some_and(is_idle) {
                self.idle_checks.push_back((id, now + IDLE));
            } else if let Some(upstream) = self.upstreams.try_remove(id) {
                self.by_key.remove(&upstream.key);
            }
        }
    }
}

impl Upstream {
    /// Takes over the servers of a newer table. Returns true if the connection was decided by an older table, whose
    /// servers were others.
    fn take_over(&mut self, servers: &Arc<Servers>, generation: u64, next_number: &mut u64) -> bool {
        let is_same = Arc::ptr_eq(&self.servers, servers) || self.servers == *servers;
        if generation < self.generation {
            return !is_same;
        }
        self.generation = generation;
        if !is_same {
            self.reconcile(servers, next_number);
        }
        // Also if they are the same: the next comparison is then one of two pointers.
        self.servers = Arc::clone(servers);
        false
    }

    /// Makes the backends those of `servers`. One that was there with the same address keeps its state.
    fn reconcile(&mut self, servers: &Servers, next_number: &mut u64) {
        let mut before = std::mem::take(&mut self.backends);
        before.append(&mut self.leaving);
        for server in &servers.list {
            let known = before.iter().position(|backend| *backend.address == server.address);
            self.backends.push(match known {
                Some(index) => Backend {
                    weight: server.weight,
                    ..before.swap_remove(index)
                },
                None => {
                    *next_number += 1;
                    Backend::new(*next_number, server.address.clone(), server.weight)
                }
            });
        }
        before.retain(|backend| backend.active > 0);
        self.leaving = before;
    }

    fn active(&self) -> u64 {
        let all = self.backends.iter().chain(&self.leaving);
        all.map(|backend| u64::from(backend.active)).sum()
    }

    fn backend_mut(&mut self, id: BackendId) -> Option<&mut Backend> {
        let mut all = self.backends.iter_mut().chain(&mut self.leaving);
        all.find(|backend| backend.number == id.number)
    }
}

/// Returns the index of the backend that is tried although it is not available.
fn last_resort(backends: &[Backend], may_have: impl Fn(&Backend) -> bool) -> Option<usize> {
    let candidates = backends.iter().enumerate();
    candidates
        .filter(|(_, backend)| backend.weight > 0 && may_have(backend))
        .min_by_key(|(_, backend)| backend.health.last_resort())
        .map(|(index, _)| index)
}

/// A server in use, for the statistics.
#[derive(Debug, Clone, Copy)]
pub struct BackendView<'a> {
    /// The service that it belongs to.
    pub service: &'a str,
    /// The way to it.
    pub way: Way,
    /// Its address.
    pub address: &'a Address,
    /// Its weight.
    pub weight: u16,
    /// The connections that have it.
    pub active: u32,
    /// Its health.
    pub health: Health,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::checks::{Check, Question};
    use super::super::health::Trial;
    use super::super::table::tests::{choice, servers};
    use super::*;

    const CLIENT: ClientKey = ClientKey(1);
    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        upstreams: Upstreams,
        now: Instant,
    }

    impl World {
        fn new() -> World {
            World {
                upstreams: Upstreams::new(1),
                now: Instant::now(),
            }
        }

        fn choose(&mut self, choice: &Choice, tried: Option<BackendId>) -> Option<BackendId> {
            let chosen = self.upstreams.choose(choice, CLIENT, tried, self.now);
            chosen.map(|(id, _)| id)
        }

        fn chosen(&mut self, choice: &Choice) -> BackendId {
            self.choose(choice, None).expect("a server")
        }

        fn host(&self, id: BackendId) -> String {
            let address = self.address(id).expect("a server");
            address.strip_suffix(":443").expect("its port").to_owned()
        }

        fn address(&self, id: BackendId) -> Option<String> {
            let upstream = self.upstreams.upstreams.get(id.upstream)?;
            let mut all = upstream.backends.iter().chain(&upstream.leaving);
            let backend = all.find(|backend| backend.number == id.number)?;
            Some(backend.address.to_string())
        }

        fn fail(&mut self, id: BackendId) {
            self.upstreams.report(id, HealthEvent::Failed, self.now);
            self.upstreams.release(id, self.now);
        }

        fn active(&self) -> Vec<(String, u32)> {
            let views = self.upstreams.views();
            views.map(|view| (view.address.to_string(), view.active)).collect()
        }
    }

    #[test]
    fn a_server_that_is_out_gets_no_connection_until_one_client_may_try_it() {
        let mut world = World::new();
        let both = choice(&servers(&["a", "b"]), 1);
        let first = world.chosen(&both);
        assert_eq!(world.host(first), "a");
        world.fail(first);
        for _ in 0..4 {
            let id = world.chosen(&both);
            assert_eq!(world.host(id), "b");
        }
        world.now += 2 * SECOND;
        let next: Vec<_> = (0..4).map(|_| world.chosen(&both)).collect();
        let tries = next.iter().filter(|id| world.host(**id) == "a").count();
        assert_eq!(tries, 1, "one client tries it");
    }

    #[test]
    fn a_retry_goes_to_another_server_and_to_none_if_there_is_no_other() {
        let mut world = World::new();
        let both = choice(&servers(&["a", "b"]), 1);
        let first = world.chosen(&both);
        world.fail(first);
        let second = world.choose(&both, Some(first)).unwrap();
        assert_eq!(world.host(second), "b");
        world.fail(second);
        let again = world.choose(&both, Some(second)).unwrap();
        assert_eq!(world.host(again), "a", "it is out, and still the only other one");
        let alone = choice(&servers(&["c"]), 2);
        let only = world.chosen(&alone);
        assert_eq!(world.choose(&alone, Some(only)), None);
    }

    #[test]
    fn the_only_server_is_tried_although_it_is_out_and_of_several_the_one_whose_time_is_next() {
        let mut world = World::new();
        let alone = choice(&servers(&["a"]), 1);
        for _ in 0..100 {
            let id = world.chosen(&alone);
            world.fail(id);
        }
        let several = choice(&servers(&["b", "c", "d"]), 2);
        for _ in 0..3 {
            let id = world.chosen(&several);
            world.fail(id);
            world.now += SECOND / 100;
        }
        let ids: Vec<_> = (0..4).map(|_| world.chosen(&several)).collect();
        let times = world.upstreams.views().filter_map(|view| match view.health {
            Health::Out(outage) => Some((outage.trial, view.address.to_string())),
            Health::Up { .. } | Health::Failing { .. } => None,
        });
        let next = times.min_by_key(|(trial, _)| match trial {
            Trial::At(time) => *time,
            Trial::Running => world.now,
        });
        let next = next.unwrap().1;
        for id in ids {
            assert_eq!(world.address(id).unwrap(), next);
        }
    }

    #[test]
    fn a_newer_table_keeps_the_state_of_addresses_that_stay() {
        let mut world = World::new();
        let old = choice(&servers(&["a", "b"]), 1);
        let (a, b) = (world.chosen(&old), world.chosen(&old));
        let new = choice(&servers(&["b", "c"]), 2);
        let ids: Vec<_> = (0..2).map(|_| world.chosen(&new)).collect();
        assert!(ids.contains(&b) && !ids.contains(&a));
        let active = |world: &World| {
            let mut all = world.active();
            all.sort();
            all
        };
        let expected = [("a:443", 1), ("b:443", 2), ("c:443", 1)];
        assert_eq!(active(&world), expected.map(|(host, count)| (host.to_owned(), count)));
        assert_eq!(world.host(a), "a", "its connection still finds it");
        world.upstreams.release(a, world.now);
        assert_eq!(world.address(a), None, "it goes with its last connection");
        assert_eq!(world.upstreams.known(), 2);
    }

    #[test]
    fn a_connection_that_an_older_table_has_decided_gets_no_server_of_the_newer_one() {
        let mut world = World::new();
        let old = choice(&servers(&["a", "b"]), 1);
        let first = world.chosen(&old);
        world.chosen(&choice(&servers(&["a", "c"]), 2));
        world.fail(first);
        assert_eq!(
            world.choose(&old, Some(first)),
            None,
            "b is gone, and c was not its own"
        );
        world.chosen(&choice(&servers(&["b", "d"]), 3));
        let again = world.choose(&old, Some(first)).unwrap();
        assert_eq!(world.host(again), "b");
        // The old connection has not brought back the old servers.
        let newest: Vec<_> = (0..4)
            .map(|_| world.chosen(&choice(&servers(&["b", "d"]), 3)))
            .collect();
        assert!(newest.iter().any(|id| world.host(*id) == "d"));
    }

    #[test]
    fn a_new_table_with_the_same_servers_changes_nothing() {
        let mut world = World::new();
        let first = world.chosen(&choice(&servers(&["a", "b"]), 1));
        let second = world.chosen(&choice(&servers(&["a", "b"]), 2));
        assert_eq!(
            (world.host(first), world.host(second)),
            ("a".into(), "b".into()),
            "turns go on"
        );
        assert_eq!(world.upstreams.known(), 2);
    }

    #[test]
    fn an_upstream_without_connections_is_forgotten_after_its_time_and_one_with_a_connection_stays() {
        let mut world = World::new();
        let named = |name: &str| Choice {
            service: name.into(),
            ..choice(&servers(&["a"]), 1)
        };
        let kept = world.chosen(&named("kept"));
        for number in 0..100 {
            let id = world.chosen(&named(&format!("service-{number}")));
            world.upstreams.release(id, world.now);
        }
        assert_eq!(world.upstreams.known(), 101);
        world.now += IDLE;
        for _ in 0..100 {
            let id = world.chosen(&named("new"));
            world.upstreams.release(id, world.now);
        }
        assert_eq!(world.upstreams.known(), 2, "the one with a connection and the new one");
        assert_eq!(world.host(kept), "a");
        assert_eq!(world.upstreams.by_key.len(), 2);
        assert_eq!(world.upstreams.idle_checks.len(), 2);
    }

    #[test]
    fn servers_without_weight_and_services_without_servers_get_nothing() {
        let mut world = World::new();
        assert_eq!(world.choose(&choice(&servers(&[]), 1), None), None);
        let mut none = Servers::clone(&servers(&["a"]));
        none.list[0].weight = 0;
        assert_eq!(world.choose(&choice(&Arc::new(none), 2), None), None);
    }

    #[test]
    fn a_server_that_fails_checks_which_are_far_apart_is_not_forgotten_between_them() {
        let mut world = World::new();
        let servers = servers(&["a", "b"]);
        let both = choice(&servers, 1);
        let subject = subject(&servers, both.way);
        let tell = |world: &mut World, event| {
            let told = &subject.told[0];
            world.upstreams.report_check(&subject, told, 1, event, world.now)
        };
        let other = Choice {
            service: "other".into(),
            ..both.clone()
        };
        for _ in 0..4 {
            tell(&mut world, HealthEvent::Missed);
            world.now += 3 * IDLE;
            let id = world.chosen(&other);
            world.upstreams.release(id, world.now);
        }
        let ids: Vec<_> = (0..4).map(|_| world.chosen(&both)).collect();
        assert!(ids.iter().all(|id| world.host(*id) == "b"));
        ids.into_iter().for_each(|id| world.upstreams.release(id, world.now));
        // Without a check it goes as any other.
        tell(&mut world, HealthEvent::Unchecked);
        world.now += 3 * IDLE;
        let id = world.chosen(&other);
        world.upstreams.release(id, world.now);
        assert_eq!(world.upstreams.by_key.len(), 1);
    }

    /// The first of these servers as it is checked.
    fn subject(servers: &Arc<Servers>, way: Way) -> Subject {
        let address = Arc::new(servers.list[0].address.clone());
        Subject {
            service: choice(servers, 1).service,
            number: 0,
            check: Arc::new(Check {
                question: Question::Tcp,
                port: None,
                interval: 3 * IDLE,
                timeout: SECOND,
            }),
            address: Arc::clone(&address),
            send_proxy: None,
            told: vec![Told {
                way,
                servers: Arc::clone(servers),
                address,
            }],
        }
    }

    #[derive(Debug, Clone)]
    enum Deed {
        Connect { generation: usize, retries: bool },
        Report { held: usize, event: HealthEvent },
        Release { held: usize },
        Wait { seconds: u64 },
    }

    fn deed() -> impl Strategy<Value = Deed> {
        use HealthEvent::{Abandoned, Connected, Failed, Missed, Passed};
        let events = prop::sample::select(vec![Connected, Failed, Abandoned, Passed, Missed]);
        prop_oneof![
            4 => (0..6_usize, any::<bool>()).prop_map(|(generation, retries)| Deed::Connect { generation, retries }),
            2 => (any::<usize>(), events).prop_map(|(held, event)| Deed::Report { held, event }),
            3 => any::<usize>().prop_map(|held| Deed::Release { held }),
            1 => (0..3000_u64).prop_map(|seconds| Deed::Wait { seconds }),
        ]
    }

    proptest! {
        /// In any order of connections, ends, failures and tables: every connection gets a server of its own table, and
        /// the counts are those of the connections that are there.
        #[test]
        fn the_counts_are_those_of_the_connections_and_no_server_is_of_another_table(
            tables in prop::collection::vec(prop::collection::hash_set("[a-e]", 1..5), 6),
            deeds in prop::collection::vec(deed(), 1..200),
        ) {
            let tables: Vec<_> = tables.iter().map(|hosts| {
                let hosts: Vec<_> = hosts.iter().map(String::as_str).collect();
                servers(&hosts)
            }).collect();
            let mut world = World::new();
            let mut held: Vec<BackendId> = Vec::new();
            for deed in deeds {
                match deed {
                    Deed::Connect { generation, retries } => {
                        let choice = choice(&tables[generation], generation as u64);
                        let tried = held.last().copied().filter(|_| retries);
                        match world.upstreams.choose(&choice, CLIENT, tried, world.now) {
                            Some((id, address)) => {
                                prop_assert!(choice.servers.has(&address));
                                prop_assert!(tried != Some(id));
                                held.push(id);
                            }
                            // An older table may have no server left; a retry may have no other.
                            None => prop_assert!(tried.is_some() || generation < 5),
                        }
                    }
                    Deed::Report { held: index, event } if !held.is_empty() => {
                        world.upstreams.report(held[index % held.len()], event, world.now);
                    }
                    Deed::Release { held: index } if !held.is_empty() => {
                        let id = held.swap_remove(index % held.len());
                        world.upstreams.release(id, world.now);
                    }
                    Deed::Report { .. } | Deed::Release { .. } => {}
                    Deed::Wait { seconds } => world.now += SECOND * u32::try_from(seconds).unwrap(),
                }
                let active: u32 = world.upstreams.views().map(|view| view.active).sum();
                prop_assert_eq!((active as usize, world.upstreams.active()), (held.len(), held.len()));
                prop_assert!(held.iter().all(|id| world.address(*id).is_some()));
            }
            for id in held {
                world.upstreams.release(id, world.now);
            }
            prop_assert!(world.upstreams.views().all(|view| view.active == 0));
            prop_assert!(world.upstreams.upstreams.iter().all(|(_, upstream)| upstream.leaving.is_empty()));
        }
    }
}
