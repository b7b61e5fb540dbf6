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
        for giver in self.ids() {
            while let Some(handed) = reactor.with(giver, |door, _| door.next_handed()).flatten() {
                self.give(reactor, giver, handed);
            }
        }
        for (name, id) in self.names() {
            let expects = |door: &mut (dyn Door + 'static)| door.front().expects_handed();
            if reactor.with(id, |door, _| expects(door)) == Some(true) && !self.may_be_handed(reactor, name) {
                reactor.with(id, |door, cx| door.end_handed(cx));
            }
        }
    }

    /// Must be called before all doors drain: tells each of them if others may hand connections over to it.
    pub(super) fn expect_handed(&self, reactor: &mut Reactor<dyn Door>) {
        for (name, id) in self.names() {
            let expects = self.may_be_handed(reactor, name);
            reactor.with(id, |door, _| door.front_mut().expect_handed(expects));
        }
    }

    fn may_be_handed(&self, reactor: &mut Reactor<dyn Door>, name: &str) -> bool {
        let mut givers = self.ids().into_iter();
        givers.any(|giver| {
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
