//! Workers that have several requests at once and say with each answer which one it is for (`--concurrency`).
//!
//! The life of a number: it is allotted when the request is given to the worker → it is in flight, also after its
//! client has gone → it lands with the worker's answer, and is never given out again.
//!
//! The invariants:
//! - A number that is not in flight is an answer to nothing, and ends the worker: a second answer to a request meets no
//!   other request that happens to be known by its number now.
//! - The numbers in flight cannot be told from outside. A request is text from anywhere, and a worker that
//!   cuts lines otherwise than at their LF (at a lone CR, at the end of a short buffer) would take part of it for a
//!   request of its own, number and all; a client that could name a number in flight could so have another's request
//!   answered in his way.
//!
//! The form of a number in a line does not belong here (`framing::channel`).

use std::collections::VecDeque;

use super::worker::Flight;
use crate::doors::jitter::Jitter;
use crate::doors::pool::core::event::ChannelId;

/// Numbers have 30 bits: a helper may hold them in any integer, signed ones included, and take 0 for none.
const NUMBERS: u32 = 1 << 30;

/// The numbers that one incarnation of a worker has been told.
#[derive(Debug)]
pub(in super::super) struct Channels {
    /// The number of requests that it may have at a time.
    limit: usize,
    allotted: u32,
    /// Odd, so that `allotted` × `factor` + `offset` takes on every number before it takes on one again.
    factor: u32,
    offset: u32,
}

impl Channels {
    pub(in super::super) fn new(limit: usize, jitter: &mut Jitter) -> Self {
        let mut word = || u32::try_from(jitter.next() >> 32).unwrap_or(u32::MAX);
        Channels {
            limit,
            allotted: 0,
            factor: word() | 1,
            offset: word(),
        }
    }

    /// The number of requests that the worker may have at a time.
    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// One that it has not been told before; or, after a thousand million, not for as long as that, and that is not in
    /// flight.
    pub(super) fn allot(&mut self, flights: &VecDeque<Flight>) -> ChannelId {
        loop {
            let spread = self.allotted.wrapping_mul(self.factor).wrapping_add(self.offset);
            let channel = ChannelId(spread % NUMBERS + 1);
            self.allotted = self.allotted.wrapping_add(1);
            if flights.iter().all(|flight| flight.channel != Some(channel)) {
                return channel;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice_and_none_is_nought() {
        let mut channels = Channels::new(4, &mut Jitter::new(7));
        let flights = VecDeque::new();
        let mut told: Vec<u32> = (0..200_000).map(|_| channels.allot(&flights).0).collect();
        assert!(told.iter().all(|number| (1..=NUMBERS).contains(number)));
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 200_000);
    }

    /// Knowing the program, the time and what was asked is not enough to name a number in flight.
    #[test]
    fn two_workers_are_told_other_numbers() {
        let mut jitter = Jitter::new(7);
        let mut first = || Channels::new(4, &mut jitter).allot(&VecDeque::new());
        assert_ne!(first(), first());
    }

    #[test]
    fn a_number_in_flight_is_passed_over_when_all_have_been_told() {
        let mut channels = Channels::new(4, &mut Jitter::new(7));
        let first = channels.allot(&VecDeque::new());
        let second = channels.allot(&VecDeque::new());
        channels.allotted = NUMBERS;
        let flight = Flight {
            request: None,
            size: 1,
            channel: Some(first),
            began: std::time::Instant::now(),
            give_up: std::time::Instant::now(),
            reply_begun: false,
        };
        assert_eq!(channels.allot(&VecDeque::from([flight])), second);
    }
}
