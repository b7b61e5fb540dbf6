//! The choice of one of several servers: by turns, by the fewest connections, or by the client's address.
//!
//! - **Round-robin** is smooth and weighted: in each choice every server gains its weight, the richest is chosen and
//!   pays the sum of all weights. In as many choices as the weights sum up to, each server has exactly its weight, and
//!   those of a heavy one are spread (`a b a c a`, not `a a a b c`).
//! - **Least connections** compares connections per weight; servers that are equal take turns.
//! - **Sticky** is rendezvous hashing: each server has a score for each client, and the highest is chosen. A server
//!   that comes or goes moves its own clients and no others. The hash has no seed, so a successor and a restarted
//!   daemon choose the same.
//!
//! The caller says which servers are eligible; health does not belong here.

use std::cmp::Ordering;

use super::table::Balance;
use super::upstreams::Backend;
use crate::doors::jitter::mix;

/// The part of a client's address that sticky balancing goes by: an IPv4 address, or the first 64 bits of an IPv6
/// address, for a client may change the others at will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(pub u64);

/// Returns the index of the chosen backend, or `None` if none is eligible. A backend without weight never is.
pub(super) fn choose(
    balance: Balance,
    backends: &mut [Backend],
    client: ClientKey,
    is_eligible: impl Fn(&Backend) -> bool,
) -> Option<usize> {
    let is_eligible = |backend: &Backend| backend.weight > 0 && is_eligible(backend);
    match balance {
        Balance::RoundRobin => by_turns(backends, is_eligible),
        Balance::LeastConnections => {
            let eligible = backends.iter().filter(|backend| is_eligible(backend));
            let (active, weight) = eligible
                .min_by(|one, other| load(one, other.active, other.weight))
                .map(|least| (least.active, least.weight))?;
            by_turns(backends, |backend| {
                is_eligible(backend) && load(backend, active, weight).is_eq()
            })
        }
        Balance::Sticky => by_score(backends, client, is_eligible),
    }
}

fn by_turns(backends: &mut [Backend], is_eligible: impl Fn(&Backend) -> bool) -> Option<usize> {
    let mut sum = 0;
    let mut richest: Option<(usize, &mut Backend)> = None;
    for (index, backend) in backends
        .iter_mut()
        .enumerate()
        .filter(|(_, backend)| is_eligible(backend))
    {
        sum += i64::from(backend.weight);
        backend.credit += i64::from(backend.weight);
        if richest
            .as_ref()
            .is_none_or(|(_, richest)| backend.credit > richest.credit)
        {
            richest = Some((index, backend));
        }
    }
    let (index, chosen) = richest?;
    chosen.credit -= sum;
    Some(index)
}

/// Compares the connections per weight of a backend with `active` connections per `weight`.
fn load(backend: &Backend, active: u32, weight: u16) -> Ordering {
    let own = u64::from(backend.active) * u64::from(weight);
    own.cmp(&(u64::from(active) * u64::from(backend.weight)))
}

fn by_score(backends: &[Backend], client: ClientKey, is_eligible: impl Fn(&Backend) -> bool) -> Option<usize> {
    let eligible = backends.iter().enumerate().filter(|(_, backend)| is_eligible(backend));
    eligible
        .map(|(index, backend)| (index, score(backend, client)))
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map(|(index, _)| index)
}

/// Returns the score of a backend for a client. With a number between 0 and 1 that only depends on the two, weight over
/// the negative logarithm makes each backend the highest for a share of clients that is in proportion to its weight.
fn score(backend: &Backend, client: ClientKey) -> f64 {
    let hash = u32::try_from(mix(backend.hash ^ mix(client.0)) >> 32).unwrap_or(u32::MAX);
    let between_0_and_1 = (f64::from(hash) + 0.5) / (f64::from(u32::MAX) + 1.0);
    f64::from(backend.weight) / -between_0_and_1.ln()
}

/// Returns the same number for the same bytes on every machine and in every version (FNV-1a).
pub(super) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::Address;
    use super::*;

    fn backends(weights: &[u16]) -> Vec<Backend> {
        let address = |number| Address::Network {
            host: format!("10.0.0.{number}").into(),
            port: 443,
        };
        let all = weights.iter().enumerate();
        all.map(|(number, weight)| Backend::new(number as u64, address(number), *weight))
            .collect()
    }

    const ANY: ClientKey = ClientKey(0);

    /// The choices of round-robin in a row.
    fn turns(backends: &mut [Backend], count: usize) -> Vec<usize> {
        let mut next = || choose(Balance::RoundRobin, backends, ANY, |_| true).unwrap();
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn a_heavy_server_has_its_turns_spread_among_the_others() {
        assert_eq!(turns(&mut backends(&[5, 1, 1]), 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&mut backends(&[1, 1, 1]), 6), [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn no_server_is_chosen_if_none_is_eligible_or_has_weight() {
        for balance in [Balance::RoundRobin, Balance::LeastConnections, Balance::Sticky] {
            assert_eq!(choose(balance, &mut backends(&[0, 0]), ANY, |_| true), None);
            assert_eq!(choose(balance, &mut backends(&[1, 1]), ANY, |_| false), None);
            assert_eq!(choose(balance, &mut [], ANY, |_| true), None);
            let mut one_of_two = backends(&[0, 7]);
            assert_eq!(choose(balance, &mut one_of_two, ANY, |_| true), Some(1));
        }
    }

    #[test]
    fn the_server_with_the_fewest_connections_for_its_weight_is_chosen_and_equal_ones_take_turns() {
        let mut three = backends(&[1, 2, 4]);
        for _ in 0..70 {
            let index = choose(Balance::LeastConnections, &mut three, ANY, |_| true).unwrap();
            three[index].active += 1;
        }
        assert_eq!(
            three.iter().map(|backend| backend.active).collect::<Vec<_>>(),
            [10, 20, 40]
        );
        let mut equal = backends(&[1, 1, 1]);
        let turns: Vec<_> = (0..6)
            .map(|_| choose(Balance::LeastConnections, &mut equal, ANY, |_| true).unwrap())
            .collect();
        assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
        equal[1].active = 1;
        let turns: Vec<_> = (0..4)
            .map(|_| choose(Balance::LeastConnections, &mut equal, ANY, |_| true).unwrap())
            .collect();
        assert!(!turns.contains(&1), "{turns:?}");
    }

    fn home(backends: &mut [Backend], client: u64) -> usize {
        choose(Balance::Sticky, backends, ClientKey(client), |_| true).unwrap()
    }

    #[test]
    fn clients_are_spread_over_sticky_servers_by_weight() {
        let mut servers = backends(&[1, 2, 1]);
        let mut counts = [0_u32; 3];
        for client in 0..10_000 {
            counts[home(&mut servers, client)] += 1;
        }
        for (count, expected) in counts.into_iter().zip([2500, 5000, 2500]) {
            assert!(count.abs_diff(expected) < 250, "{counts:?}");
        }
    }

    /// A restarted daemon, a successor and another machine must choose the same.
    #[test]
    fn a_sticky_choice_is_the_same_in_every_process() {
        let mut servers = backends(&[1, 1, 1, 1]);
        let homes: Vec<_> = (0..16).map(|client| home(&mut servers, client)).collect();
        assert_eq!(homes, [0, 0, 3, 2, 2, 0, 0, 1, 0, 1, 2, 0, 2, 1, 2, 0]);
        // From the reference of FNV.
        assert_eq!(
            (hash(b"a"), hash(b"foobar")),
            (0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8)
        );
    }

    proptest! {
        /// Whatever the weights, and wherever the counting begins.
        #[test]
        fn weights_hold_in_every_cycle(weights in prop::collection::vec(0..20_u16, 1..8), start in 0..50_usize) {
            let cycle: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
            prop_assume!(cycle > 0);
            let mut servers = backends(&weights);
            turns(&mut servers, start);
            let turns = turns(&mut servers, cycle);
            for (index, weight) in weights.iter().enumerate() {
                let counted = turns.iter().filter(|turn| **turn == index).count();
                prop_assert_eq!(counted, usize::from(*weight), "{:?}", turns);
            }
        }

        #[test]
        fn a_sticky_server_that_goes_moves_its_own_clients_and_no_others(
            weights in prop::collection::vec(1..5_u16, 2..8),
            gone in any::<prop::sample::Index>(),
            clients in prop::collection::vec(any::<u64>(), 1..200),
        ) {
            let mut servers = backends(&weights);
            let gone = gone.index(weights.len());
            for client in clients {
                let before = home(&mut servers, client);
                let is_left = |backend: &Backend| backend.number != gone as u64;
                let after = choose(Balance::Sticky, &mut servers, ClientKey(client), is_left).unwrap();
                prop_assert!(after != gone && (before == gone || before == after));
            }
        }
    }

    #[test]
    fn a_sticky_server_that_comes_takes_at_most_its_share_of_the_clients() {
        const CLIENTS: u64 = 10_000;
        for count in 1..10_usize {
            let (mut before, mut after) = (backends(&vec![1; count]), backends(&vec![1; count + 1]));
            let moves = (0..CLIENTS).filter(|client| home(&mut before, *client) != home(&mut after, *client));
            let share = CLIENTS / (count as u64 + 1);
            // Hashing is not exact: a tenth more is within three standard deviations.
            let moved = moves.count() as u64;
            assert!(
                moved <= share + share / 10,
                "{moved} of {CLIENTS} moved to one of {}",
                count + 1
            );
        }
    }
}
