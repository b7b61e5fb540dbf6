//! The frame of the dispatcher's tests, and a view of its state that they alone have.

use std::time::{Duration, Instant};

use super::Dispatcher;
use crate::doors::pool::core::event::{Event, WorkerId};
use crate::doors::pool::core::workers::Headcount;
use crate::doors::pool::options::Policy;

/// A dispatcher with a clock, and with a shell that notes what it decides.
pub(in super::super) trait World {
    fn dispatcher(&self) -> &Dispatcher;

    fn clock(&mut self) -> &mut Instant;

    /// Tells the dispatcher of an event at the time of the clock, and takes its actions.
    fn tell(&mut self, event: Event);

    /// Lets time pass, with a tick whenever one is wanted.
    fn pass(&mut self, span: Duration) {
        let end = *self.clock() + span;
        while let Some(at) = self.dispatcher().next_deadline().filter(|at| *at <= end) {
            *self.clock() = at.max(*self.clock());
            self.tell(Event::Tick);
        }
        *self.clock() = end;
    }
}

impl Dispatcher {
    pub(in super::super) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(in super::super) fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    pub(in super::super) fn headcount(&self) -> Headcount {
        self.workers.headcount
    }

    /// The time when the next worker's rest ends.
    pub(in super::super) fn next_rest_end(&self) -> Option<Instant> {
        self.workers.next_rest_end()
    }

    /// The time when the load wants a tick.
    pub(in super::super) fn load_deadline(&self) -> Option<Instant> {
        self.elastic.deadline(&self.policy.workers)
    }

    /// The free workers in the order in which they can be missed.
    pub(in super::super) fn free_workers(&self) -> Vec<WorkerId> {
        self.workers.free().collect()
    }
}
