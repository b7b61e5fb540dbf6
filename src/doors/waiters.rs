//! A list of waiters for one thing, in the order of their arrival, each of which may leave at any time.
//!
//! The life of a waiter: [`Waiters::push`] gives it a ticket → it is [taken](Waiters::pop) when its turn comes, or
//! [removed](Waiters::remove) by its ticket when it leaves before. Thousands may wait for the same thing, and all may
//! leave in the same moment. So each step costs at most the logarithm of their number, and a search without a ticket is
//! not offered.
//!
//! A list never gives out a ticket twice, so an old ticket finds nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The place of a waiter in its list. A later waiter has a greater ticket.
#[derive(Debug, Clone, Copy)]
pub struct Ticket(u64);

impl Ord for Ticket {
    fn cmp(&self, other: &Self) -> Ordering {
        #[cfg(test)]
        COMPARISONS.with(|count| count.set(count.get() + 1));
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Ticket {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ticket {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ticket {}

#[cfg(test)]
thread_local! {
    static COMPARISONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Returns the number of comparisons of tickets on this thread so far, by which tests measure work.
#[cfg(test)]
pub fn comparisons() -> u64 {
    COMPARISONS.with(std::cell::Cell::get)
}

/// A list of waiters.
#[derive(Debug)]
pub struct Waiters<T> {
    list: BTreeMap<Ticket, T>,
    next: u64,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            list: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> Waiters<T> {
    /// Returns the ticket that the next [`push`](Self::push) will give out, for a waiter that has to know it
    /// beforehand.
    pub fn next_ticket(&self) -> Ticket {
        Ticket(self.next)
    }

    /// Adds a waiter behind all others.
    pub fn push(&mut self, waiter: T) -> Ticket {
        let ticket = self.next_ticket();
        self.next += 1;
        self.list.insert(ticket, waiter);
        ticket
    }

    /// Takes out the waiter that has waited longest.
    pub fn pop(&mut self) -> Option<T> {
        self.list.pop_first().map(|(_, waiter)| waiter)
    }

    /// Takes out the waiter with this ticket. Returns `None` if it had been taken out before.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.list.remove(&ticket)
    }

    /// Returns the waiters in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.values()
    }

    /// Takes out all waiters, in the order of their arrival. Old tickets still find nothing afterwards.
    pub fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.list).into_values()
    }

    /// Returns the number of waiters.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if the list is empty.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiters_are_served_in_the_order_of_their_arrival_and_may_leave_at_any_time() {
        let mut waiters = Waiters::default();
        let tickets: Vec<_> = (0..5).map(|number| waiters.push(number)).collect();
        assert_eq!(waiters.remove(tickets[1]), Some(1));
        assert_eq!(waiters.remove(tickets[1]), None);
        assert_eq!(waiters.pop(), Some(0));
        assert_eq!(waiters.take_all().collect::<Vec<_>>(), [2, 3, 4]);
        assert!(waiters.is_empty());
        waiters.push(5);
        assert_eq!(waiters.remove(tickets[4]), None, "an old ticket finds no later waiter");
        assert_eq!(waiters.len(), 1);
    }

    /// Waiters leave from the beginning, the middle and the end, each for the logarithm of their number.
    #[test]
    fn a_waiter_leaves_without_a_search_among_the_others() {
        const MANY: u64 = 100_000;
        let mut waiters = Waiters::default();
        let mut tickets: Vec<_> = (0..MANY).map(|number| waiters.push(number)).collect();
        tickets.reverse();
        let before = comparisons();
        for (number, ticket) in tickets.into_iter().enumerate() {
            waiters.remove(ticket);
            if number % 3 == 0 {
                waiters.pop();
            }
        }
        let spent = comparisons() - before;
        assert!(spent < 100 * MANY, "{spent} comparisons for {MANY} that went");
    }
}
