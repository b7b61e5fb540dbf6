//! Limits on the number of connections: in total, and from one address.
//!
//! A connection is counted from its admission until its release, under the same [`Origin`]. The owner of the connection
//! releases it in the one function that ends connections. Addresses are counted even without a limit for them, so that
//! one can be set while connections are open.
//!
//! **One address** is an IPv4 address, or an IPv6 network of 64 bits, because that is the least that a customer or host
//! is given (RFC 6177, RFC 4291 §2.5.1): a client with one address there has 2^64 of them, and a limit for each would
//! be none. It is the client's address; clients of unknown address are counted under that of the proxy which they came
//! by. While a connection's client is not known yet it counts in the total only. Local processes on UNIX sockets count in the total only.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::origin::Origin;

/// The largest numbers of connections at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// The limit on all connections together.
    pub total: usize,
    /// The limit on those from one IPv4 address or IPv6 /64. `None`: there is none but the total.
    pub per_address: Option<usize>,
}

/// The limit that is reached.
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

/// The number of open connections. An address is remembered only while it has some.
#[derive(Debug)]
pub struct ConnectionCount {
    limits: ConnectionLimits,
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl ConnectionCount {
    /// A count of no connections.
    pub fn new(limits: ConnectionLimits) -> ConnectionCount {
        ConnectionCount {
            limits,
            total: 0,
            by_address: HashMap::new(),
        }
    }

    /// Sets other limits. Connections over a lower limit stay; new ones are refused until enough have ended.
    pub fn set_limits(&mut self, limits: ConnectionLimits) {
        self.limits = limits;
    }

    /// Counts one more connection of this origin, if there is room for it.
    ///
    /// # Errors
    /// The limit that is reached. Nothing is counted then, and nothing must be released.
    pub fn admit(&mut self, origin: &Origin) -> Result<(), Full> {
        if self.total >= self.limits.total {
            return Err(Full::Total);
        }
        if let Some(ip) = counted_as(origin) {
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

    /// Uncounts a connection that has ended. It must have been admitted.
    pub fn release(&mut self, origin: &Origin) {
        debug_assert!(self.total > 0, "released more often than admitted: {origin}");
        self.total = self.total.saturating_sub(1);
        let Some(ip) = counted_as(origin) else { return };
        let Entry::Occupied(mut count) = self.by_address.entry(ip) else {
            debug_assert!(false, "released, but not admitted: {origin}");
            return;
        };
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }

    /// Counts one more connection whose client is not known yet: in the total alone. Must be followed by
    /// [`release_unidentified`](Self::release_unidentified), before the connection is admitted or when it has ended.
    ///
    /// # Errors
    /// The limit that is reached. Nothing is counted then.
    pub fn count_unidentified(&mut self) -> Result<(), Full> {
        if self.total >= self.limits.total {
            return Err(Full::Total);
        }
        self.total += 1;
        Ok(())
    }

    /// Uncounts a connection whose client was not known.
    pub fn release_unidentified(&mut self) {
        debug_assert!(self.total > 0, "released more often than counted");
        self.total = self.total.saturating_sub(1);
    }

    /// The number of connections.
    pub fn total(&self) -> usize {
        self.total
    }
}

/// The address under which an origin is counted; `None` for local processes on UNIX sockets.
fn counted_as(origin: &Origin) -> Option<IpAddr> {
    match origin.ip().or_else(|| origin.peer.ip())? {
        ip @ IpAddr::V4(_) => Some(ip),
        IpAddr::V6(ip) => Some(IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::addr::PeerAddr;
    use super::*;

    fn peer(ip: &str) -> Origin {
        Origin::direct(PeerAddr::tcp((ip.parse::<IpAddr>().expect("an address"), 4711).into()))
    }

    const UNIX: Origin = Origin::direct(PeerAddr::Unix);

    fn count(total: usize, per_address: Option<usize>) -> ConnectionCount {
        ConnectionCount::new(ConnectionLimits { total, per_address })
    }

    #[test]
    fn the_total_is_for_all_and_a_released_place_is_free() {
        let mut count = count(2, None);
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        assert_eq!(count.admit(&UNIX), Ok(()));
        assert_eq!(count.admit(&peer("10.0.0.2")), Err(Full::Total));
        count.release(&UNIX);
        assert_eq!(count.admit(&peer("10.0.0.2")), Ok(()));
    }

    #[test]
    fn a_connection_of_no_known_client_takes_a_place_of_the_total_alone() {
        let mut count = count(2, Some(1));
        assert_eq!(count.count_unidentified(), Ok(()));
        assert_eq!(count.count_unidentified(), Ok(()));
        assert_eq!(count.count_unidentified(), Err(Full::Total));
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Total));
        count.release_unidentified();
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        assert_eq!(count.total(), 2);
    }

    #[test]
    fn one_address_does_not_take_the_places_of_others() {
        let mut count = count(10, Some(1));
        assert_eq!(count.admit(&peer("10.0.0.1")), Ok(()));
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Address));
        assert_eq!(count.admit(&peer("10.0.0.2")), Ok(()));
        assert_eq!(count.admit(&UNIX), Ok(()));
        assert_eq!(count.admit(&UNIX), Ok(()), "UNIX peers have no address");
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
    fn a_limit_of_nothing_admits_no_client_and_remembers_none() {
        let mut count = count(10, Some(0));
        assert_eq!(count.admit(&peer("10.0.0.1")), Err(Full::Address));
        assert!(count.by_address.is_empty());
    }

    proptest! {
        /// Against the plainest of models, a list of the clients that are in.
        #[test]
        fn nothing_is_forgotten_and_nothing_kept(steps in prop::collection::vec((any::<bool>(), 0_usize..4), 0..200)) {
            let peers = [peer("10.0.0.1"), peer("10.0.0.2"), peer("2001:db8::1"), UNIX];
            let mut count = count(5, Some(2));
            let mut inside: Vec<Origin> = Vec::new();
            for (come, client) in steps {
                let client = peers[client].clone();
                let place = inside.iter().position(|one| *one == client);
                if come {
                    let of_its_address = inside.iter().filter(|one| **one == client).count();
                    let expected = match () {
                        () if inside.len() == 5 => Err(Full::Total),
                        () if of_its_address == 2 && client != UNIX => Err(Full::Address),
                        () => Ok(()),
                    };
                    prop_assert_eq!(count.admit(&client), expected);
                    inside.extend(expected.is_ok().then_some(client));
                } else if let Some(place) = place {
                    inside.swap_remove(place);
                    count.release(&client);
                }
                prop_assert_eq!(count.total(), inside.len());
            }
            for client in inside {
                count.release(&client);
            }
            prop_assert!(count.by_address.is_empty());
        }
    }
}
