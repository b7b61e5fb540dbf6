//! How many connections there may be: altogether, and from one peer.
//!
//! A connection is counted once it is admitted and until it is released, by the same [`PeerAddr`]; the owner of the
//! connection releases it in the one function that ends connections. Counting goes on when no limit per address is set,
//! so that one can be set while connections are open.
//!
//! **What one peer is.** An IPv4 address; an IPv6 network of 64 bits, because that is the least that a customer or host is
//! given (RFC 6177, RFC 4291 §2.5.1): a client with one address there has 2^64 of them, and a limit for each would be none.
//! UNIX peers are counted altogether only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::addr::PeerAddr;

/// The most connections at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Altogether.
    pub total: usize,
    /// From one IPv4 address or IPv6 /64. `None`: as many as there may be altogether.
    pub per_address: Option<usize>,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// [`ConnectionLimits::total`].
    Total,
    /// [`ConnectionLimits::per_address`].
    Address,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Full::Total => "too many connections",
            Full::Address => "too many connections from this address",
        })
    }
}

impl Error for Full {}

/// The connections there are. An address is remembered only while it has connections.
#[derive(Debug)]
pub struct ConnectionCount {
    limits: ConnectionLimits,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionCount {
    /// No connections yet.
    pub fn new(limits: ConnectionLimits) -> ConnectionCount {
        ConnectionCount {
            limits,
            total: 0,
            by_address: HashMap::new(),
        }
    }

    /// Other limits from now on. Connections over a lower limit stay; new ones wait until enough have gone.
    pub fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    /// Counts one more connection from `peer`, if there is room for it.
    ///
    /// # Errors
    /// The limit that is reached; then nothing is counted and nothing is to be released.
    pub fn admit(&mut self, peer: &PeerAddr) -> Result<(), Full> {
        if self.total >= self.limits.total {
            return Err(Full::Total);
        }
        if let Some(ip) = counted_as(peer) {
            let limit = self.limits.per_address.unwrap_or(usize::MAX);
            match self.by_address.entry(ip) {
                Entry::Occupied(count) if *count.get() >= limit => return Err(Full::Address),
                Entry::Vacant(_) if limit == 0 => return Err(Full::Address),
                entry => *entry.or_insert(0) += 1,
            }
        }
        self.total += 1;
        Ok(())
    }

    /// A connection that was admitted has ended.
    pub fn release(&mut self, peer: &PeerAddr) {
        debug_assert!(self.total > 0, "released more often than admitted: {peer}");
        self.total = self.total.saturating_sub(1);
        let Some(Entry::Occupied(mut count)) = counted_as(peer).map(|ip| self.by_address.entry(ip)) else {
            debug_assert!(*peer == PeerAddr::Unix, "released, but not admitted: {peer}");
            return;
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }

    /// How many connections there are.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// The key under which a peer is counted; `None` for those that have no address.
fn counted_as(peer: &PeerAddr) -> Option<IpAddr> {
    match peer.ip()? {
        ip @ IpAddr::V4(_) => Some(ip),
        IpAddr::V6(ip) => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(ip: &str) -> PeerAddr {
        PeerAddr::tcp((ip.parse::<IpAddr>().expect("an address"), 4711).into())
    }

    fn count(total: usize, per_address: Option<usize>) -> ConnectionCount {
        ConnectionCount::new(ConnectionLimits { total, per_address })
    }

    #[test]
    fn the_total_is_for_all_and_a_released_place_is_free() {
        let mut count = count(2, None);
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        assert_eq!(count.admit(&PeerAddr::Unix), Ok(()));
        assert_eq!(count.admit(&peer("10.0.0.2")), Err(Full::Total));
        count.release(&PeerAddr::Unix);
        assert_eq!(count.admit(&peer("10.0.0.2")), Ok(()));
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let mut count = count(10, Some(1));
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Address));
        assert_eq!(count.admit(&peer("10.0.0.2")), Ok(()));
        assert_eq!(count.admit(&PeerAddr::Unix), Ok(()));
        assert_eq!(count.admit(&PeerAddr::Unix), Ok(()), "UNIX peers have no address");
        assert_eq!(count.total(), 4);
    }

    #[test]
    fn an_ipv6_network_of_64_bits_is_one_peer() {
        let mut count = count(10, Some(1));
        assert_eq!(count.admit(&peer("2001:db8::1")), Ok(()));
        assert_eq!(count.admit(&peer("2001:db8::ffff:ffff:ffff:ffff")), Err(Full::Address));
        assert_eq!(count.admit(&peer("2001:db8:0:1::1")), Ok(()));
        count.release(&peer("2001:db8::2"));
        assert_eq!(count.admit(&peer("2001:db8::3")), Ok(()));
    }

    #[test]
    fn a_limit_set_later_knows_the_connections_made_before() {
        let mut count = count(10, None);
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        count.set_limits(ConnectionLimits {
            total: 10,
            per_address: Some(1),
        });
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Address));
    }

    #[test]
    fn a_limit_of_nothing_admits_nobody_and_remembers_nobody() {
        let mut count = count(10, Some(0));
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Address));
        assert!(count.by_address.is_empty());
    }

    proptest! {
        /// Against the plainest of models, a list of the clients that are in.
        #[test]
        fn nothing_is_forgotten_and_nothing_kept(steps in prop::collection::vec((any::<bool>(), 0_usize..4), 0..200)) {
            let peers = [peer("10.0.0.1"), peer("10.0.0.2"), peer("2001:db8::1"), PeerAddr::Unix];
            let mut count = count(5, Some(2));
            let mut inside: Vec<PeerAddr> = Vec::new();
            for (come, who) in steps {
                let who = peers[who];
                let place = inside.iter().position(|one| *one == who);
                if come {
                    let of_his = inside.iter().filter(|one| **one == who).count();
                    let expected = match () {
                        () if inside.len() == 5 => Err(Full::Total),
                        () if of_his == 2 && who != PeerAddr::Unix => Err(Full::Address),
                        () => Ok(()),
                    };
                    prop_assert_eq!(count.admit(&who), expected);
                    inside.extend(expected.is_ok().then_some(who));
                } else if let Some(place) = place {
                    inside.swap_remove(place);
                    count.release(&who);
                }
                prop_assert_eq!(count.total(), inside.len());
            }
            for who in inside {
                count.release(&who);
            }
            prop_assert!(count.by_address.is_empty());
        }
    }
}
