//! How many connections there may be: altogether, and from one peer.
//!
//! A connection is counted once it is admitted and until it is released, by the same [`PeerAddr`]; the owner of the
//! connection releases it in the one function that ends connections. Counting goes on when no limit per address is set,
//! so that one can be set while connections are open.
//!
//! **What one peer is.** An IPv4 address; an IPv6 network of 64 bits, because that is the least that a customer or host is
//! given (RFC 6177, RFC 4291 §2.5.1): whoever has one address there has 2^64 of them, and a limit for each would be none.
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
