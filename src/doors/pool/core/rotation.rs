//! Replacing workers in good order: one place at a time, each new worker up before its predecessor goes.
//!
//! A successor that cannot start leaves its predecessor in service and is tried again, with the delays of
//! [`respawn`](super::respawn): a broken new configuration costs no answer.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{Action, Restart, WorkerId};
use super::worker::{Phase, Place};
use super::{Dispatcher, Stage};

/// Who is still to be replaced.
#[derive(Debug, Default)]
pub(super) struct Rotation {
    waiting: VecDeque<Turn>,
    current: Option<Turn>,
    /// The operator is to be told when everybody is replaced.
    is_roll: bool,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    slot: usize,
    /// Who serves there; if it is somebody else when the turn comes, the work is done.
    worker: WorkerId,
    reason: Restart,
}

impl Rotation {
    /// Why the successor that starts now was hired.
    pub(super) fn current_reason(&self) -> Restart {
        self.current.map_or(Restart::Asked, |turn| turn.reason)
    }

    /// Somebody is still to be replaced because the operator wants it.
    fn owes_the_operator(&self) -> bool {
        let mut turns = self.current.iter().chain(&self.waiting);
        turns.any(|turn| turn.reason == Restart::Asked)
    }

    fn is_waiting(&self, worker: WorkerId) -> bool {
        self.current
            .iter()
            .chain(&self.waiting)
            .any(|turn| turn.worker == worker)
    }
}

impl Dispatcher {
    /// The operator's word: everybody is replaced, also those that are just starting (they may have read what the
    /// operator has changed since) and successors on their way.
    pub(super) fn roll(&mut self) {
        if self.stage == Stage::Stopping {
            return;
        }
        let successors: Vec<WorkerId> = self.slots.iter_mut().filter_map(|slot| slot.successor.take()).collect();
        successors.into_iter().for_each(|successor| self.drain(successor));
        for slot in self.slots.iter_mut() {
            slot.early_deaths = 0;
        }
        // What is started from now on may take longer.
        self.start_up = None;
        let turns = self.slots.iter();
        let turns = turns
            .map(|(slot, place)| Turn {
                slot,
                worker: place.serving,
                reason: Restart::Asked,
            })
            .collect();
        self.rotation = Rotation {
            waiting: turns,
            current: None,
            is_roll: true,
        };
        self.advance_rotation();
    }

    /// A worker that has served long enough, or grown too large, is put on the list once.
    pub(super) fn recycle_if_due(&mut self, id: WorkerId) {
        if self.worker(id).is_some_and(|worker| worker.is_due(self.now)) {
            self.recycle(id);
        }
    }

    pub(super) fn outgrown(&mut self, id: WorkerId) {
        self.recycle(id);
    }

    fn recycle(&mut self, id: WorkerId) {
        let Some(worker) = self.worker_mut(id) else { return };
        (worker.recycle_after, worker.recycle_at) = (None, None);
        // Successors are young, and who is on its way out needs no second push.
        let Place::Serving(slot) = worker.place else { return };
        if self.stage == Stage::Serving && !self.rotation.is_waiting(id) {
            self.rotation.waiting.push_back(Turn {
                slot,
                worker: id,
                reason: Restart::Recycled,
            });
            self.advance_rotation();
        }
    }

    /// Hires the next successor, unless one is on its way.
    pub(super) fn advance_rotation(&mut self) {
        if self.slots.iter().any(|(_, slot)| slot.successor.is_some()) {
            return;
        }
        self.rotation.current = None;
        while let Some(turn) = self.rotation.waiting.pop_front() {
            if self.begin_turn(turn) {
                break;
            }
        }
        if self.rotation.is_roll && !self.rotation.owes_the_operator() {
            self.rotation.is_roll = false;
            self.actions.push_back(Action::Rolled);
        }
    }

    /// Whether a successor was hired; otherwise there is nothing to wait for.
    fn begin_turn(&mut self, turn: Turn) -> bool {
        if self.slots.get(turn.slot).map(|slot| slot.serving) != Some(turn.worker) {
            return false;
        }
        match self.phase(turn.worker) {
            // The process to come will be of the new kind anyway; only, an operator does not wait for it.
            Some(Phase::Delayed { .. }) => {
                self.enter(turn.worker, Phase::Spawning);
                self.actions.push_back(Action::Spawn(turn.worker));
                return false;
            }
            Some(Phase::Spawning) | None => return false,
            Some(_) => {}
        }
        let Some(successor) = self.add_worker(Place::Successor(turn.slot), Duration::ZERO) else {
            return false;
        };
        if let Some(slot) = self.slots.get_mut(turn.slot) {
            slot.successor = Some(successor);
        }
        self.rotation.current = Some(turn);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::doors::pool::core::ReplyTo;
    use crate::doors::pool::core::{AfterReply, ClientId, Event};
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

    /// Whoever waits for that (the cache keeps nothing meanwhile) waits for nothing else.
    #[test]
    fn the_operator_is_told_that_all_are_replaced_whatever_else_happens_meanwhile() {
        let now = Instant::now();
        let mut dispatcher = Dispatcher::new(Policy::for_tests(1), now, 1);
        // Nobody serves yet: whoever will is of the new kind.
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
        assert_eq!(dispatcher.next_deadline(), Some(now + dispatcher.policy.alarm_interval));
    }
}
