//! Connections that one door hands over to another: doors do not know each other, so the daemon passes them on.
//!
//! A door leaves such a connection with the name of the other door, which gets it behind the turn of the loop, as if it
//! had accepted it itself. A connection whose door is not there any more, or takes none, goes back to be refused.
//!
//! A door that drains has not finished while another one may still hand connections over to it: a client that was
//! accepted before the end is served, whichever door it is for.

use crate::doors::{Door, HandedConnection};
use crate::reactor::{Context, Reactor, ServiceId};

use super::doors::Doors;

impl Doors {
    /// Passes on every connection that doors have handed over, and tells doors that drain when no more will come. Must be
    /// called after each turn of the loop, before the doors that have finished are removed.
    pub(super) fn pass_on(&mut self, reactor: &mut Reactor<dyn Door>) {
        for giver in self.givers() {
            while let Some(handed) = reactor.with(giver, |door, _| door.next_handed()).flatten() {
                self.give(reactor, giver, handed);
            }
        }
        if self.expects_handed {
            self.expects_handed = self.end_expectations(reactor);
        }
    }

    /// Tells doors that drain, and that no other door can hand a connection to any more. Returns true if some still
    /// expect one.
    fn end_expectations(&self, reactor: &mut Reactor<dyn Door>) -> bool {
        let mut any = false;
        for (name, id) in self.names() {
            if reactor.with(id, |door, _| door.front().expects_handed()) != Some(true) {
                continue;
            }
            if self.may_be_handed(reactor, name) {
                any = true;
            } else {
                reactor.with(id, |door, cx| door.end_handed(cx));
            }
        }
        any
    }

    /// Must be called before all doors drain: tells each of them if others may hand connections over to it.
    pub(super) fn expect_handed(&mut self, reactor: &mut Reactor<dyn Door>) {
        for (name, id) in self.names() {
            let expects = self.may_be_handed(reactor, name);
            reactor.with(id, |door, _| door.front_mut().expect_handed(expects));
        }
        self.expects_handed = true;
    }

    fn may_be_handed(&self, reactor: &mut Reactor<dyn Door>, name: &str) -> bool {
        self.givers().any(|giver| {
            reactor
                .with(giver, |door, _| door.may_hand_to(name))
                .unwrap_or_default()
        })
    }

    /// Gives a connection to the door that it is for.
    fn give(&self, reactor: &mut Reactor<dyn Door>, giver: ServiceId, handed: Box<HandedConnection>) {
        let outcome = match self.id_of(&handed.door) {
            None => Err((handed, "there is no such door any more")),
            Some(id) => {
                let mut handed = Some(handed);
                let take = |door: &mut (dyn Door + 'static), cx: &mut Context<'_>| {
                    handed.take().map(|it| door.take_handed(cx, it))
                };
                match (reactor.with(id, take).flatten(), handed) {
                    (Some(outcome), _) => outcome,
                    // The reactor has no such service.
                    (None, Some(handed)) => Err((handed, "there is no such door any more")),
                    (None, None) => Ok(()),
                }
            }
        };
        if let Err((handed, why)) = outcome {
            reactor.with(giver, |door, cx| door.refuse_handed(cx, handed, why));
        }
    }
}
