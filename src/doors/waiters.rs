//! Those that wait for one thing, in the order in which they came, each of which may go at any time.
//!
//! The life of a waiter: [`Waiters::push`] gives it a ticket → it is [taken](Waiters::pop) when its turn comes, or
//! [removed](Waiters::remove) by its ticket when it goes before. Thousands may wait for the same, and all may go in the same
//! moment, so each step costs the logarithm of their number at most; to look for a waiter without its ticket is not offered.
//!
//! What holds: a ticket is never given out twice by one list, so an old one finds nothing.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The place of a waiter in its list: the later, the greater.
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

/// How often tickets have been compared by this thread so far: what tests count work by.
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
    /// The ticket that the next [`push`](Self::push) gives out: for a waiter that has to know it beforehand.
    pub fn next_ticket(&self) -> Ticket {
        Ticket(self.next)
    }

    /// One more, behind all others.
    pub fn push(&mut self, waiter: T) -> Ticket {
        let ticket = self.next_ticket();
        self.next += 1;
        self.list.insert(ticket, waiter);
        ticket
    }

    /// Takes out the one that has waited longest.
    pub fn pop(&mut self) -> Option<T> {
        self.list.pop_first().map(|(_, waiter)| waiter)
    }

    /// Takes out one that waits no longer. `None`: it had been taken out before.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.list.remove(&ticket)
    }

    /// In the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.list.values()
    }

    /// Takes out all of them, in the order in which they came. The list stays, and so does what holds of its tickets.
    pub fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        std::mem::take(&mut self.list).into_values()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_served_in_the_order_in_which_they_came_and_may_go_at_any_time() {
        let mut waiters = Waiters::default();
        let tickets: Vec<_> = (0..5).map(|number| waiters.push(number)).collect();
        assert_eq!(waiters.remove(tickets[1]), Some(1));
        assert_eq!(waiters.remove(tickets[1]), None);
        assert_eq!(waiters.pop(), Some(0));
        assert_eq!(waiters.take_all().collect::<Vec<_>>(), [2, 3, 4]);
        assert!(waiters.is_empty());
        waiters.push(5);
        assert_eq!(
            waiters.remove(tickets[4]),
            None,
            "an old ticket finds no one that came later"
        );
        assert_eq!(waiters.len(), 1);
    }

    /// The logarithm, whoever goes: the first, the last, or from the middle.
    #[test]
    fn who_goes_costs_the_others_nothing() {
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
