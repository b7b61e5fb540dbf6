//! Replacing workers in good order: one place at a time, each new worker up before its predecessor goes.
//!
//! A successor that cannot start leaves its predecessor in service and is tried again, with the delays of
//! [`respawn`](super::respawn): a broken new configuration costs no answer.

use std::collections::VecDeque;

use crate::doors::pool::core::event::{Restart, WorkerId};

/// The workers that are still to be replaced.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    waiting: VecDeque<Turn>,
    current: Option<Turn>,
    /// The operator is told when all are replaced.
    is_roll: bool,
}

/// A worker that is to be replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) slot: usize,
    /// The worker that serves there; if it is another one when the turn comes, the work is done.
    pub(super) worker: WorkerId,
    reason: Restart,
}

impl Turn {
    pub(super) fn new(slot: usize, worker: WorkerId, reason: Restart) -> Self {
        Turn { slot, worker, reason }
    }
}

impl Rotation {
    /// A rotation of all workers, instead of whatever was planned.
    pub(super) fn roll(turns: VecDeque<Turn>) -> Self {
        Rotation {
            waiting: turns,
            current: None,
            is_roll: true,
        }
    }

    /// Plans a turn. Returns false if the worker has one already.
    pub(super) fn add(&mut self, turn: Turn) -> bool {
        let is_new = self.turns().all(|planned| planned.worker != turn.worker);
        if is_new {
            self.waiting.push_back(turn);
        }
        is_new
    }

    /// The turn before is over. Returns the next one.
    pub(super) fn next(&mut self) -> Option<Turn> {
        self.current = self.waiting.pop_front();
        self.current
    }

    /// The reason for which the successor that starts now was added.
    pub(super) fn current_reason(&self) -> Restart {
        self.current.map_or(Restart::Asked, |turn| turn.reason)
    }

    /// Ends a roll in which no worker is left that the operator wants replaced. Returns true if there was one.
    pub(super) fn end_roll(&mut self) -> bool {
        let is_over = self.is_roll && self.turns().all(|turn| turn.reason != Restart::Asked);
        self.is_roll &= !is_over;
        is_over
    }

    fn turns(&self) -> impl Iterator<Item = &Turn> {
        self.current.iter().chain(&self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::doors::pool::core::{Action, AfterReply, ClientId, Dispatcher, Event, ReplyTo};
    use crate::doors::pool::options::Policy;

    fn spawned(dispatcher: &mut Dispatcher) -> Option<WorkerId> {
        let actions: Vec<_> = std::iter::from_fn(|| dispatcher.next_action()).collect();
        actions.into_iter().find_map(|action| match action {
            Action::Spawn(worker) => Some(worker),
            _ => None,
        })
    }

    fn has_rolled(dispatcher: &mut Dispatcher) -> bool {
        std::iter::from_fn(|| dispatcher.next_action()).any(|action| action == Action::Rolled)
    }

    /// The cache keeps nothing until that is said, and waits for nothing else.
    #[test]
    fn the_operator_is_told_that_all_are_replaced_whatever_else_happens_meanwhile() {
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(Policy::for_tests(1), now, 1);
        // No worker serves yet: the first that will is of the new kind.
        dispatcher.handle(now, Event::Roll);
        assert!(has_rolled(&mut dispatcher));
        let mut dispatcher = Dispatcher::new(Policy::for_tests(2), now, 1);
        let actions: Vec<_> = std::iter::from_fn(|| dispatcher.next_action()).collect();
        let old = actions.into_iter().filter_map(|action| match action {
            Action::Spawn(worker) => Some(worker),
            _ => None,
        });
        for worker in old.collect::<Vec<_>>() {
            dispatcher.handle(now, Event::Started(worker));
            dispatcher.handle(now, Event::Ready(worker));
        }
        dispatcher.handle(now, Event::Roll);
        let first = spawned(&mut dispatcher).unwrap();
        dispatcher.handle(now, Event::Started(first));
        dispatcher.handle(now, Event::Ready(first));
        let second = spawned(&mut dispatcher).unwrap();
        // One of the new ones has grown too large before the last of the old ones is replaced.
        dispatcher.handle(now, Event::Outgrown(first));
        assert!(!has_rolled(&mut dispatcher));
        dispatcher.handle(now, Event::Started(second));
        dispatcher.handle(now, Event::Ready(second));
        assert!(has_rolled(&mut dispatcher));
    }

    /// Or a broken new generation would be started over and over for as long as the old one answers.
    #[test]
    fn successors_that_die_are_delayed_though_their_predecessor_answers() {
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(Policy::for_tests(1), now, 1);
        let old = spawned(&mut dispatcher).unwrap();
        for event in [Event::Started(old), Event::Ready(old), Event::Roll] {
            dispatcher.handle(now, event);
        }
        let mut successor = spawned(&mut dispatcher);
        let mut started = 0;
        while let Some(worker) = successor {
            started += 1;
            assert!(started < 3, "there is a delay from the second death on");
            let (client, size) = (ClientId(1), 80);
            let reply = Event::Reply {
                to: ReplyTo::Oldest,
                worker: old,
                after: AfterReply::InStep,
            };
            let events = [Event::Started(worker), Event::Request { client, size }, reply];
            events.into_iter().for_each(|event| dispatcher.handle(now, event));
            dispatcher.handle(now, Event::Exited(worker));
            successor = spawned(&mut dispatcher);
        }
        assert_eq!(started, 2);
        assert_eq!(
            dispatcher.next_deadline(),
            Some(now + dispatcher.policy().alarm_interval)
        );
    }
}
