//! The addresses of the hosts that servers are named by: how old they are, and which is tried first.
//!
//! The life of a host: the first connection to it [asks](Names::ask) for its addresses, and a look-up begins; connections
//! that come meanwhile wait for the same one. Its outcome is [entered](Names::enter), and is good for the interval. The first
//! connection after that has the host looked up again. A host that was not used for [`IDLE`] is forgotten.
//!
//! The invariants:
//! - Addresses that were found once stay until others are found: an error of a later look-up costs nothing.
//! - A connection waits for a look-up only while there are no addresses, or the look-up is younger than [`PATIENCE`].
//! - A host is asked for at most once at a time, and not again within [`AGAIN`] after an error.
//!
//! The look-up itself does not belong here, nor what an address is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::RouteId;
use crate::doors::waiters::{Ticket, Waiters};

/// The longest time for which connections wait for a look-up although addresses of before are there.
pub const PATIENCE: Duration = Duration::from_millis(500);
/// The time after an error until a host without addresses is looked up again.
pub const AGAIN: Duration = Duration::from_secs(1);
/// The time without a connection after which a host may be forgotten.
pub const IDLE: Duration = Duration::from_secs(60 * 60);
/// The most addresses of a host that are kept.
pub const MOST_ADDRESSES: usize = 16;
/// The number of hosts from which on idle ones are looked for.
const MANY: usize = 64;

/// The reply to a connection that asks for a host.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<A> {
    /// Its addresses, in the order in which they are to be tried; at least one.
    Known(Vec<A>),
    /// Its look-up must begin; then ask again.
    LookUp(Arc<str>),
    /// The look-up is under way: ask again when the route is woken, or at this time.
    Wait(Option<Instant>),
    /// It could not be looked up a moment ago.
    Failed,
}

/// A place among the connections that wait for a host. It must be given back by [`Names::leave`].
#[derive(Debug)]
pub struct Place {
    host: Arc<str>,
    ticket: Ticket,
}

#[derive(Debug)]
struct Host<A> {
    name: Arc<str>,
    /// The addresses of the last look-up that had any.
    addresses: Vec<A>,
    /// The time when the look-up under way began.
    asked: Option<Instant>,
    /// The time from which on the host is looked up again.
    due: Instant,
    used: Instant,
    waiting: Waiters<RouteId>,
}

/// The hosts in use. `A` is an address.
#[derive(Debug)]
pub struct Names<A> {
    hosts: HashMap<Arc<str>, Host<A>>,
    interval: Duration,
    /// The number of hosts at which idle ones are looked for.
    sweep_at: usize,
    /// The look-ups that have ended, and the failed ones among them.
    pub counts: (u64, u64),
}

impl<A: Clone + PartialEq> Names<A> {
    /// No hosts. What is found is good for the interval.
    pub fn new(interval: Duration) -> Self {
        Names {
            hosts: HashMap::new(),
            interval,
            sweep_at: MANY,
            counts: (0, 0),
        }
    }

    /// Sets the time for which addresses are good that are found from now on.
    pub fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// Returns the addresses of a host, or what has to be done for them.
    pub fn ask(&mut self, host: &str, now: Instant) -> Reply<A> {
        if !self.hosts.contains_key(host) {
            self.forget_idle(now);
            let name: Arc<str> = host.into();
            let host = Host {
                name: Arc::clone(&name),
                addresses: Vec::new(),
                asked: None,
                due: now,
                used: now,
                waiting: Waiters::default(),
            };
            self.hosts.insert(name, host);
        }
        match self.hosts.get_mut(host) {
            Some(host) => host.ask(now),
            None => Reply::Failed,
        }
    }

    /// Has a route wait for the look-up of a host that is under way.
    pub fn wait(&mut self, host: &str, route: RouteId) -> Option<Place> {
        let host = self.hosts.get_mut(host)?;
        Some(Place {
            host: Arc::clone(&host.name),
            ticket: host.waiting.push(route),
        })
    }

    /// Gives back the place of a route that waits no longer.
    pub fn leave(&mut self, place: &Place) {
        if let Some(host) = self.hosts.get_mut(&place.host) {
            host.waiting.remove(place.ticket);
        }
    }

    /// Enters the outcome of a look-up: the addresses, or `None` after an error. [`woken`](Self::woken) then names the
    /// routes that have waited. Returns true if the host has addresses.
    pub fn enter(&mut self, host: &str, found: Option<Vec<A>>, now: Instant) -> bool {
        self.counts.0 += 1;
        self.counts.1 += u64::from(found.is_none());
        let Some(host) = self.hosts.get_mut(host) else {
            return false;
        };
        host.asked = None;
        if let Some(found) = found {
            host.take_over(found);
        }
        let is_known = !host.addresses.is_empty();
        host.due = now + if is_known { self.interval } else { AGAIN };
        is_known
    }

    /// Returns the next route that has waited for a host whose look-up is over.
    pub fn woken(&mut self, host: &str) -> Option<RouteId> {
        let host = self.hosts.get_mut(host)?;
        host.waiting.pop()
    }

    /// Takes note of an address that could not be connected to: it is tried last from now on.
    pub fn put_last(&mut self, host: &str, address: &A) {
        let Some(host) = self.hosts.get_mut(host) else { return };
        if let Some(index) = host.addresses.iter().position(|known| known == address) {
            let failed = host.addresses.remove(index);
            host.addresses.push(failed);
        }
    }

    fn forget_idle(&mut self, now: Instant) {
        if self.hosts.len() < self.sweep_at {
            return;
        }
        self.hosts
            .retain(|_, host| host.asked.is_some() || host.used + IDLE > now);
        // So the cost of a sweep is spread over as many hosts as there are.
        self.sweep_at = MANY.max(2 * self.hosts.len());
    }
}

impl<A: Clone + PartialEq> Host<A> {
    fn ask(&mut self, now: Instant) -> Reply<A> {
        self.used = now;
        match (self.asked, self.addresses.is_empty()) {
            (Some(_), true) => Reply::Wait(None),
            (Some(asked), false) if now < asked + PATIENCE => Reply::Wait(Some(asked + PATIENCE)),
            (None, _) if self.due <= now => {
                self.asked = Some(now);
                Reply::LookUp(Arc::clone(&self.name))
            }
            (None, true) => Reply::Failed,
            (Some(_) | None, false) => Reply::Known(self.addresses.clone()),
        }
    }

    /// Takes over the addresses that were found. The ones that were there already keep their order, for the first of them
    /// has been connected to.
    fn take_over(&mut self, mut found: Vec<A>) {
        found.truncate(MOST_ADDRESSES);
        self.addresses.retain(|address| found.contains(address));
        for address in found {
            if !self.addresses.contains(&address) {
                self.addresses.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    struct World {
        names: Names<u8>,
        now: Instant,
    }

    impl World {
        fn new() -> World {
            World {
                names: Names::new(INTERVAL),
                now: Instant::now(),
            }
        }

        fn ask(&mut self) -> Reply<u8> {
            self.names.ask("a", self.now)
        }

        fn enter(&mut self, found: Option<&[u8]>) -> bool {
            self.names.enter("a", found.map(<[u8]>::to_vec), self.now)
        }
    }

    fn look_up() -> Reply<u8> {
        Reply::LookUp("a".into())
    }

    #[test]
    fn a_host_is_looked_up_at_its_first_use_and_again_after_the_interval() {
        let mut world = World::new();
        assert_eq!(world.ask(), look_up());
        assert_eq!(world.ask(), Reply::Wait(None));
        assert!(world.enter(Some(&[1, 2])));
        assert_eq!(world.ask(), Reply::Known(vec![1, 2]));
        world.now += INTERVAL - SECOND;
        assert_eq!(world.ask(), Reply::Known(vec![1, 2]));
        world.now += SECOND;
        assert_eq!(world.ask(), look_up());
        assert!(world.enter(Some(&[3])));
        assert_eq!(world.ask(), Reply::Known(vec![3]));
    }

    #[test]
    fn a_host_that_is_not_found_fails_at_once_for_a_second_and_is_then_looked_up_again() {
        let mut world = World::new();
        assert_eq!(world.ask(), look_up());
        assert!(!world.enter(None));
        assert_eq!(world.ask(), Reply::Failed);
        world.now += AGAIN;
        assert_eq!(world.ask(), look_up());
        assert_eq!(world.ask(), Reply::Wait(None));
        assert_eq!(world.names.counts, (1, 1));
    }

    #[test]
    fn addresses_stay_after_an_error_and_while_a_look_up_hangs() {
        let mut world = World::new();
        world.ask();
        world.enter(Some(&[1]));
        world.now += INTERVAL;
        assert_eq!(world.ask(), look_up());
        assert_eq!(world.ask(), Reply::Wait(Some(world.now + PATIENCE)));
        world.now += PATIENCE;
        assert_eq!(world.ask(), Reply::Known(vec![1]), "the look-up hangs");
        assert!(world.enter(None));
        assert_eq!(world.ask(), Reply::Known(vec![1]));
        world.now += INTERVAL;
        assert_eq!(world.ask(), look_up());
    }

    #[test]
    fn an_address_that_failed_is_tried_last_also_after_the_next_look_up() {
        let mut world = World::new();
        world.ask();
        world.enter(Some(&[1, 2, 3]));
        world.names.put_last("a", &1);
        assert_eq!(world.ask(), Reply::Known(vec![2, 3, 1]));
        world.names.put_last("a", &9);
        world.enter(Some(&[1, 4, 2, 1]));
        assert_eq!(world.ask(), Reply::Known(vec![2, 1, 4]));
        let many: Vec<u8> = (0..200).collect();
        world.enter(Some(&many));
        let Reply::Known(addresses) = world.ask() else {
            panic!("it is known");
        };
        assert_eq!(addresses.len(), MOST_ADDRESSES);
    }

    #[test]
    fn the_routes_that_wait_are_woken_and_a_route_that_has_left_is_not() {
        let mut world = World::new();
        world.ask();
        let [first, second, third] = [1, 2, 3].map(|id| world.names.wait("a", RouteId(id)).expect("a place"));
        world.names.leave(&second);
        world.enter(Some(&[1]));
        assert_eq!(world.names.woken("a"), Some(RouteId(1)));
        assert_eq!(world.names.woken("a"), Some(RouteId(3)));
        assert_eq!(world.names.woken("a"), None);
        for place in [first, second, third] {
            world.names.leave(&place);
        }
        assert!(world.names.wait("b", RouteId(4)).is_none());
    }

    #[test]
    fn hosts_that_are_not_used_are_forgotten() {
        let mut world = World::new();
        for number in 0..MANY {
            world.names.ask(&number.to_string(), world.now);
            world.names.enter(&number.to_string(), Some(vec![1]), world.now);
        }
        world.now += IDLE;
        world.ask();
        assert_eq!(world.names.hosts.len(), 1);
    }
}
