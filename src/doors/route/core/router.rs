//! The router: it takes each route from one state to the next, and owns what routes share: the tables, the servers, the
//! list of the routes that wait for a table, and the counters.
//!
//! [`Router::advance`] has a place for every pair of state and event, in one function for each state. The life of a
//! route is in [`life`](super::life); the shell keeps it, reports events, and takes the steps that are returned.
//!
//! The invariants, which `invariants` checks after each event in debug builds:
//! - A server, or the session of a tunnel client, has as many connections as there are routes in Connecting, Asking or
//!   Relaying that were given it.
//! - A route that waits has a place in the list, and no server; no other route has a place.
//! - A route has only ever a server that is in the table by which it was decided.
//! - A program counts each route that waits for it, and each that connects or relays by it.
//! - A route that is over holds nothing. `Router::leave` alone gives back what a state holds.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::balance::ClientKey;
use super::census::Census;
use super::checks::Checker;
use super::counters::Counters;
use super::ending::{Ending, Phase};
use super::event::{Event, Notice, RouteId, Side, Step};
use super::health::HealthEvent;
use super::life::{Answering, Asked, Connecting, Life, Opening, Over, Relaying, Routed, State, Times, Waiting};
use super::opening::{Entrance, Progress};
use super::starter::Starter;
use super::table::{Source, Table, Tables};
use super::tunnels::Tunnels;
use super::turn::{Turn, answering, over};
use super::upstreams::Upstreams;
use crate::doors::waiters::Waiters;

/// The port of https that an address need not name.
pub const HTTPS_PORT: u16 = 443;

/// The state of one door. See the module.
#[derive(Debug)]
pub struct Router {
    pub(super) tables: Tables,
    /// The first reading of the store has not ended yet.
    pub(super) is_store_awaited: bool,
    pub(super) upstreams: Upstreams,
    pub(super) tunnels: Tunnels,
    pub(super) starter: Starter,
    pub(super) checker: Checker,
    /// The routes that wait for the first reading of the store.
    pub(super) waiting: Waiters<RouteId>,
    pub(super) census: Census,
    pub(super) counters: Counters,
    pub(super) notices: VecDeque<Notice>,
    pub(super) hello_timeout: Duration,
    /// The port of the addresses to which requests of HTTP are sent on.
    pub(super) https_port: u16,
    /// The protocols that a client offers are kept, for the log.
    pub(super) keeps_protocols: bool,
}

impl Router {
    /// A router without tables. `hello_timeout` is the longest time for the first bytes of a client; `seed` feeds the
    /// jitter of delays.
    pub fn new(hello_timeout: Duration, seed: u64) -> Router {
        Router {
            tables: Tables::default(),
            is_store_awaited: false,
            upstreams: Upstreams::new(seed),
            tunnels: Tunnels::default(),
            starter: Starter::new(seed),
            checker: Checker::new(seed),
            waiting: Waiters::default(),
            census: Census::default(),
            counters: Counters::default(),
            notices: VecDeque::new(),
            hello_timeout,
            https_port: HTTPS_PORT,
            keeps_protocols: false,
        }
    }

    /// Sets the longest time for the first bytes of a client, for clients that come from now on.
    pub fn set_hello_timeout(&mut self, hello_timeout: Duration) {
        self.hello_timeout = hello_timeout;
    }

    /// Sets the port at which clients reach the door by https, which is 443 at first.
    pub fn set_https_port(&mut self, port: u16) {
        self.https_port = port;
    }

    /// Keeps the protocols that clients offer in [`Asked::protocols`], for clients that come from now on, or does not.
    pub fn keep_protocols(&mut self, keeps: bool) {
        self.keeps_protocols = keeps;
    }

    /// Lets clients wait whose name is not in the file, until [`stop_awaiting_store`](Self::stop_awaiting_store): the
    /// store may have it, or a better match.
    pub fn await_store(&mut self) {
        self.is_store_awaited = true;
    }

    /// Must be called when the first table of the store is there, or is not to be had. [`woken`](Self::woken) then
    /// names the routes that have waited.
    pub fn stop_awaiting_store(&mut self) {
        self.is_store_awaited = false;
    }

    /// Puts a table in the place of the one from the same source, and returns that. Routes that have a server are not
    /// touched. Dropping a large table takes milliseconds, which should not be spent on the loop.
    #[must_use]
    pub fn replace_table(&mut self, source: Source, table: Arc<Table>) -> Arc<Table> {
        self.tables.replace(source, table)
    }

    /// Returns the tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Returns the servers in use.
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }

    /// Returns the sessions of tunnel clients.
    pub fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Returns the sessions of tunnel clients, to be changed by the events of these.
    pub fn tunnels_mut(&mut self) -> &mut Tunnels {
        &mut self.tunnels
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the routes by their states.
    pub fn census(&self) -> &Census {
        &self.census
    }

    /// Returns the next change of a server that is to be logged. Must be called until it returns `None` after each
    /// event.
    pub fn next_notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Returns a route that need not wait any longer: [`Event::TableCame`] must be reported for it.
    pub fn woken(&mut self) -> Option<RouteId> {
        if self.is_store_awaited {
            None
        } else {
            self.waiting.pop()
        }
    }

    /// Begins the life of a route whose client was accepted at this time. The first step is to read.
    pub fn begin(&mut self, entrance: Entrance, client: ClientKey, accepted: Instant) -> Life {
        self.counters.total += 1;
        let opening = self.opening(entrance, accepted, true);
        self.census.enter(opening.stage());
        Life {
            state: opening,
            client,
            asked: Asked::at(entrance),
            times: Times {
                accepted,
                decided: None,
                connected: None,
            },
        }
    }

    /// Moves a route on by an event. The returned step must be taken before the next event of the route.
    pub fn advance(&mut self, id: RouteId, life: &mut Life, event: Event<'_>, now: Instant) -> Step {
        let state = std::mem::replace(&mut life.state, State::nothing());
        let before = state.stage();
        let (next, step) = match state {
            State::Opening(opening) => self.after_opening(id, life, opening, event, now),
            State::Waiting(waiting) => self.after_waiting(life, waiting, event, now),
            State::Securing(destination) => self.after_securing(id, life, destination, event, now),
            State::Starting(starting) => self.after_starting(id, life, starting, event, now),
            State::Connecting(connecting) => self.after_connecting(id, life, connecting, event, now),
            State::Asking(connecting) => self.after_asking(id, life, connecting, event, now),
            State::Expecting(expecting) => self.after_expecting(id, life, expecting, event, now),
            State::Relaying(relaying) => self.after_relaying(life, relaying, event, now),
            State::Answering(answering) => after_answering(answering, event, now),
            // An event that was under way when the route ended.
            State::Over(over) => (State::Over(over), Step::Nothing),
        };
        self.census.leave(before);
        self.census.enter(next.stage());
        life.state = next;
        #[cfg(debug_assertions)]
        self.check_invariants(life);
        step
    }

    fn after_opening(
        &mut self,
        id: RouteId,
        life: &mut Life,
        mut opening: Opening,
        event: Event<'_>,
        now: Instant,
    ) -> Turn {
        let ending = match event {
            Event::Bytes(bytes) => return self.judge(id, life, opening, bytes, now),
            Event::Ended(Side::Client) | Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Opening),
            Event::Deadline if opening.until > now => return (State::Opening(opening), Step::Nothing),
            Event::Deadline if opening.is_stopping => Ending::Stopped(Phase::Opening),
            Event::Deadline => Ending::Slow,
            Event::Stop(until) => {
                opening.is_stopping |= until < opening.until;
                opening.until = opening.until.min(until);
                return (State::Opening(opening), Step::Nothing);
            }
            Event::Abort => Ending::Stopped(Phase::Opening),
            // No server and no table was asked for.
            Event::Ended(Side::Server)
            | Event::Lost(Side::Server)
            | Event::Garbled { .. }
            | Event::Secured
            | Event::NotSecured
            | Event::TableCame
            | Event::Called
            | Event::ClientCame
            | Event::Connected
            | Event::ConnectFailed(_)
            | Event::Replied(_)
            | Event::Answered => return (State::Opening(opening), Step::Nothing),
        };
        self.finish(life, State::Opening(opening), ending, now)
    }

    fn after_waiting(&mut self, life: &mut Life, mut waiting: Waiting, event: Event<'_>, now: Instant) -> Turn {
        let ending = match event {
            Event::TableCame => return self.judge_again(waiting, now),
            Event::Deadline if waiting.until <= now => return self.judge_again(waiting, now),
            Event::Lost(Side::Client) => Ending::ClientLeft(Phase::Opening),
            Event::Stop(until) => {
                waiting.until = waiting.until.min(until);
                return (State::Waiting(waiting), Step::Nothing);
            }
            Event::Abort => Ending::Stopped(Phase::Opening),
            // The client is not read, so its bytes and its end keep; and no server was asked for.
            Event::Bytes(_)
            | Event::Garbled { .. }
            | Event::Ended(_)
            | Event::Lost(Side::Server)
            | Event::Secured
            | Event::NotSecured
            | Event::Deadline
            | Event::Called
            | Event::ClientCame
            | Event::Connected
            | Event::ConnectFailed(_)
            | Event::Replied(_)
            | Event::Answered => return (State::Waiting(waiting), Step::Nothing),
        };
        self.finish(life, State::Waiting(waiting), ending, now)
    }

    fn after_relaying(&mut self, life: &mut Life, mut relaying: Relaying, event: Event<'_>, now: Instant) -> Turn {
        let ending = match (event, relaying.ended) {
            (Event::Ended(side), Some((ended, _))) if side != ended => Ending::Done,
            (Event::Ended(side), None) => {
                relaying.ended = Some((side, now));
                return (State::Relaying(relaying), Step::Nothing);
            }
            (Event::Lost(side), _) => Ending::Cut(side),
            // A tunnel client does not reach its server: the client of the route has got nothing yet.
            (Event::ConnectFailed(_), _) if relaying.share.session().is_some() => {
                self.counters.connect_failed += 1;
                Ending::ServerFailed
            }
            (Event::Bytes(bytes), _) if life.asked.is_filtered(&relaying.routed.choice) => {
                return self.judge_next(life, relaying, bytes, now);
            }
            (Event::Garbled { side, fault, given }, _) => Ending::Garbled(side, fault, given),
            (Event::Deadline, _) if relaying.head_until.is_some_and(|until| until <= now) => Ending::Slow,
            (Event::Deadline, _) if relaying.deadline().is_some_and(|time| time <= now) => {
                Ending::Idle(relaying.owing())
            }
            (Event::Abort, _) => Ending::BrokenOff,
            // The end of a side that has ended already; a deadline that bytes have put off; the door drains, and routes
            // have until its end. The others are of the time before there was a server.
            (
                Event::Ended(_)
                | Event::Secured
                | Event::NotSecured
                | Event::Deadline
                | Event::Stop(_)
                | Event::Bytes(_)
                | Event::TableCame
                | Event::Called
                | Event::ClientCame
                | Event::Connected
                | Event::ConnectFailed(_)
                | Event::Replied(_)
                | Event::Answered,
                _,
            ) => return (State::Relaying(relaying), Step::Nothing),
        };
        self.finish(life, State::Relaying(relaying), ending, now)
    }

    pub(super) fn opening(&self, entrance: Entrance, begin: Instant, may_wait: bool) -> State {
        State::Opening(Opening {
            entrance,
            progress: Progress::default(),
            until: begin + self.hello_timeout,
            is_stopping: false,
            may_wait,
        })
    }

    /// Ends a route in any state that is not its last.
    pub(super) fn finish(&mut self, life: &Life, state: State, ending: Ending, now: Instant) -> Turn {
        let routed = self.leave(state, now);
        self.end(life, ending, routed, now)
    }

    /// Ends a route that holds nothing any more.
    pub(super) fn end(&mut self, life: &Life, ending: Ending, routed: Option<Routed>, now: Instant) -> Turn {
        self.counters.count(ending, life.asked.protocol);
        match ending.answer(life.asked.answered_in()) {
            Some(answer) => answering(answer.into(), ending, routed, now),
            None => over(ending, routed),
        }
    }

    /// Sends a client that holds nothing on to https, by this answer.
    pub(super) fn redirect(&mut self, life: &Life, answer: Vec<u8>, now: Instant) -> Turn {
        self.counters.count(Ending::Redirected, life.asked.protocol);
        answering(answer.into(), Ending::Redirected, None, now)
    }

    /// Hands a client that holds nothing over to the door of this name.
    pub(super) fn hand_over(&mut self, life: &Life, door: Arc<str>) -> Turn {
        self.counters.count(Ending::HandedOver, life.asked.protocol);
        let over = Over {
            ending: Ending::HandedOver,
            routed: None,
        };
        (State::Over(over), Step::HandOver(door))
    }

    /// Must be called for each client that was handed over, and that its door could not take.
    pub fn count_failed_hand_over(&mut self) {
        self.counters.hand_over_failed += 1;
    }

    /// Gives back everything that a state holds, and returns what is known of the route's server.
    pub(super) fn leave(&mut self, state: State, now: Instant) -> Option<Routed> {
        match state {
            State::Opening(_) | State::Securing(_) => None,
            State::Waiting(waiting) => {
                // A route that was woken has no place any more.
                self.waiting.remove(waiting.ticket);
                None
            }
            State::Starting(starting) => {
                self.starter.leave(starting.program, &starting.place, now);
                Some(starting.routed)
            }
            State::Expecting(expecting) => {
                self.tunnels.expect_no_longer(&expecting.secret, expecting.ticket);
                None
            }
            State::Connecting(connecting) | State::Asking(connecting) => {
                let Connecting {
                    routed, share, program, ..
                } = connecting;
                // After a verdict about the attempt this changes nothing.
                self.report(&routed, share, HealthEvent::Abandoned, now);
                self.give_back(share, now);
                self.release_program(program, now);
                Some(routed)
            }
            State::Relaying(Relaying {
                routed, share, program, ..
            }) => {
                self.give_back(share, now);
                self.release_program(program, now);
                Some(routed)
            }
            State::Answering(answering) => answering.routed,
            State::Over(over) => over.routed,
        }
    }
}

fn after_answering(answering: Answering, event: Event<'_>, now: Instant) -> Turn {
    match event {
        Event::Answered | Event::Ended(Side::Client) | Event::Lost(Side::Client) | Event::Abort => {
            over(answering.ending, answering.routed)
        }
        Event::Deadline if answering.until <= now => over(answering.ending, answering.routed),
        // The client's bytes are thrown away. There is no server, or none any more.
        Event::Bytes(_)
        | Event::Garbled { .. }
        | Event::Ended(Side::Server)
        | Event::Lost(Side::Server)
        | Event::Secured
        | Event::NotSecured
        | Event::TableCame
        | Event::Called
        | Event::ClientCame
        | Event::Connected
        | Event::ConnectFailed(_)
        | Event::Replied(_)
        | Event::Deadline
        | Event::Stop(_) => (State::Answering(answering), Step::Nothing),
    }
}

#[cfg(test)]
mod tests;
