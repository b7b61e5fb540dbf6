//! Routes of a service whose tunnel clients have all left a moment ago, or are still to come after the start of the door:
//! they wait for one. A client that was restarted, or that moves from a process to its successor, is back in a moment, and
//! its visitors need not notice.

use std::time::Instant;

use super::ending::{Ending, Phase};
use super::event::{Event, RouteId, Side, Step};
use super::life::{Expecting, Life, Routed, State};
use super::router::Router;
use super::share::Share;
use super::table::Choice;
use super::turn::{Turn, connecting_to};

impl Router {
    /// Lets a route wait for a client with the secret of its service, if one is expected. Returns the choice if not.
    pub(super) fn expect_client(&mut self, id: RouteId, choice: Choice, now: Instant) -> Result<Turn, Choice> {
        let Some(tunnel) = choice.tunnel() else {
            return Err(choice);
        };
        let secret = tunnel.secret.clone();
        let Some((ticket, until)) = self.tunnels.expect(&secret, id, now) else {
            return Err(choice);
        };
        self.counters.expected += 1;
        let expecting = Expecting {
            choice,
            secret,
            ticket,
            until,
        };
        Ok((State::Expecting(Box::new(expecting)), Step::Hold))
    }

    pub(super) fn after_expecting(
        &mut self,
        id: RouteId,
        life: &mut Life,
        expecting: Box<Expecting>,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::ClientCame => return self.go_on_expecting(id, life, expecting, now),
            Event::Deadline if expecting.until <= now => Ending::NoServer,
            Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Connecting),
            Event::Abort => Ending::Stopped(Phase::Connecting),
            // The client is not read, so its bytes and its end keep; there is no server; and a client with a complete
            // wish is served although the door drains.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(Side::Server)
            | Event::Secured
            | Event::NotSecured
            | Event::TableCame
            | Event::Called
            | Event::Connected
            | Event::ConnectFailed(_)
            | Event::Replied(_)
            | Event::Deadline
            | Event::Stop(_)
            | Event::Answered => return (State::Expecting(expecting), Step::Nothing),
        };
        self.finish(life, State::Expecting(expecting), ending, now)
    }

    /// A client has come. It may have left again.
    fn go_on_expecting(&mut self, id: RouteId, life: &Life, mut expecting: Box<Expecting>, now: Instant) -> Turn {
        match self.choose(life, &expecting.choice, None, now) {
            Some((share, server)) => {
                self.tunnels.expect_no_longer(&expecting.secret, expecting.ticket);
                let Expecting { choice, .. } = *expecting;
                connecting_to(Routed { choice, server }, share, None, None, now)
            }
            None => {
                // It has lost its place by that.
                self.tunnels.expect_no_longer(&expecting.secret, expecting.ticket);
                expecting.ticket = self.tunnels.expect_on(&expecting.secret, id);
                (State::Expecting(expecting), Step::Nothing)
            }
        }
    }

    /// Returns the session after which no other is left for a route, if it was one.
    pub(super) fn is_without_clients(&self, choice: &Choice, share: Share) -> bool {
        let serving = choice.tunnel().map(|tunnel| self.tunnels.serving(&tunnel.secret));
        share.session().is_some() && serving == Some(0)
    }

    /// Returns a route for which a tunnel client may have come: [`Event::ClientCame`] must be reported for it.
    pub fn next_expectant(&mut self) -> Option<RouteId> {
        self.tunnels.next_expectant()
    }
}
