//! Routes of a service whose tunnel clients have all left a moment ago, or are still to come after the start of the door:
//! they wait for one. A client that was restarted, or that moves from a process to its successor, is back in a moment, and
//! its visitors need not notice.
//!
//! And routes that a successor has [passed on](Router::pass), whose tunnel clients are still here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::ClientKey;
use super::ending::{Ending, Phase};
use super::event::{Event, RouteId, Side, Step};
use super::life::{Asked, Expecting, Life, Protocol, Routed, State, Times};
use super::router::Router;
use super::secrets::{Secret, Tunnel};
use super::share::Share;
use super::table::{Choice, Rule, Source, Target, Way, Why};
use super::turn::{Turn, connecting_to};

/// The longest time for which a route that was passed on waits for a stream.
const PASSED_PATIENCE: Duration = Duration::from_secs(5);

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

    /// Begins the life of a route that a successor has passed on, for a tunnel client with this secret, and returns its first
    /// step. `None` if there is none any more. The successor has the limits and the log of its client.
    pub fn pass(&mut self, secret: Secret, now: Instant) -> Option<(Life, Step)> {
        let rule = Rule {
            alpn: None,
            tls: None,
            target: Target::Tunnel(Tunnel {
                secret,
                takes_newest_alone: false,
            }),
            acme: None,
            redirects_to_https: false,
            judges_each_request: false,
            connect_timeout: PASSED_PATIENCE,
            idle_timeout: None,
            send_proxy: None,
            check: None,
            program: None,
        };
        let choice = Choice {
            service: "passed on".into(),
            number: 0,
            rule: Arc::new(rule),
            servers: Arc::default(),
            way: Way::Tls,
            why: Why::Exact,
            source: Source::File,
            generation: self.tables.generation(),
        };
        let (session, server) = self.tunnels.choose(choice.tunnel()?, None)?;
        self.counters.passed += 1;
        let (state, step) = connecting_to(Routed { choice, server }, Share::Stream(session), None, None, now);
        self.census.enter(state.stage());
        let life = Life {
            state,
            client: ClientKey(0),
            asked: Asked::new(None, None, Protocol::Plain),
            times: Times {
                accepted: now,
                decided: Some(now),
                connected: None,
            },
        };
        Some((life, step))
    }
}
