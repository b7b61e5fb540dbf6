//! Requests that need no worker of their own: their answer is known, or is being asked for by another.
//!
//! Both ways the request is an exchange like any other, so that its answer stands in its place. To the dispatcher it is
//! unknown; what it counts for is counted here, when it ends.

use std::rc::Rc;
use std::time::Duration;

use super::Clients;
use super::exchange::{Asker, Bytes, State};
use super::respond::Answer;
use crate::doors::pool::cache::{Departure, Found, Shared};
use crate::doors::pool::core::{ClientId, Event};
use crate::doors::pool::options::Options;
use crate::doors::pool::shell::desk::Desk;
use crate::reactor::Context;

/// The way in which a request gets its answer.
pub(crate) enum Route {
    /// By a worker, for itself alone.
    Worker,
    /// By a worker; identical ones may share the answer.
    Leader,
    /// It is taken care of.
    Answered,
}

impl Clients {
    /// Looks whether a request needs a worker.
    pub(crate) fn choose_route(&mut self, desk: &mut Desk<'_>, asker: Asker, bytes: &[u8], payload: &[u8]) -> Route {
        if !self.cache.is_on() || is_skipped(desk.options, payload) {
            return Route::Worker;
        }
        let counters = &mut *desk.counters;
        match self.cache.look_up(bytes, desk.cx.now()) {
            Found::Answer(answer) => {
                counters.cache.hits += 1;
                counters.count_answer_without_worker();
                let answer = Bytes::Shared(Rc::clone(answer));
                self.answer_without_worker(desk, asker, answer);
                Route::Answered
            }
            Found::Asked(place) => {
                let Some(client) = self.table.get_mut(asker.client) else {
                    return Route::Answered;
                };
                match self.exchanges.open(&mut client.owed, asker, State::Coalesced(place)) {
                    Ok(id) => self.cache.add_waiter(place, id),
                    Err(_) => return Route::Worker,
                }
                desk.counters.cache.shared += 1;
                Route::Answered
            }
            Found::Nothing => {
                counters.cache.misses += 1;
                Route::Leader
            }
            Found::Outdated => {
                counters.cache.misses += 1;
                Route::Worker
            }
        }
    }

    /// Others may share the answer to this request from now on.
    pub(crate) fn add_leader(&mut self, id: ClientId) {
        if let Some(Bytes::Shared(bytes)) = self.exchanges.asked(id).map(|asked| &asked.bytes) {
            self.cache.add_leader(bytes, id);
        }
    }

    /// The answer to a request, for all who share it.
    pub(crate) fn answer_all(&mut self, desk: &mut Desk<'_>, id: ClientId, answer: &[u8], served: Duration) {
        let shared = self.end_coalescing(&desk.cx, id, Some(answer));
        self.answer(desk, id, Answer::Of(answer), served);
        self.answer_waiters(desk, shared);
    }

    /// The same for a refusal.
    pub(crate) fn refuse_all(&mut self, desk: &mut Desk<'_>, id: ClientId) {
        let shared = self.end_coalescing(&desk.cx, id, None);
        self.refuse(desk, id);
        self.answer_waiters(desk, shared);
    }

    /// A request that a worker was asked has come to its end.
    fn end_coalescing(&mut self, cx: &Context<'_>, id: ClientId, answer: Option<&[u8]>) -> Shared {
        let Some(asked) = self.exchanges.asked(id) else {
            return Shared::default();
        };
        let shared = self.cache.end_request(&asked.bytes, id, answer, cx.now());
        if shared.is_orphan {
            self.exchanges.forget_orphan(id);
        }
        shared
    }

    /// Answers the waiters of a request. One of them stands for an orphan, which the dispatcher has counted.
    fn answer_waiters(&mut self, desk: &mut Desk<'_>, mut shared: Shared) {
        let mut uncounted = usize::from(shared.is_orphan);
        for waiter in shared.waiters.take_all() {
            if uncounted > 0 {
                uncounted -= 1;
            } else if shared.answer.is_some() {
                desk.counters.count_answer_without_worker();
            } else {
                desk.counters.count_early_refusal();
            }
            match &shared.answer {
                Some(answer) => self.answer(desk, waiter, Answer::Shared(answer), Duration::ZERO),
                None => self.refuse(desk, waiter),
            }
        }
    }

    /// A client has gone that waited for an answer others may wait for too. Whether its exchange is kept for them.
    pub(crate) fn leave_coalesced(&mut self, desk: &mut Desk<'_>, id: ClientId) -> bool {
        let Some(exchange) = self.exchanges.get(id) else {
            return false;
        };
        let (departure, follows) = match &exchange.state {
            State::Asked(asked) => (self.cache.remove_leader(&asked.bytes, id), false),
            State::Coalesced(place) => (self.cache.remove_waiter(*place), true),
            State::Answered(_) => return false,
        };
        match departure {
            // The request that the dispatcher has counted stands for one of the waiters that stay.
            Departure::Shared => {
                desk.counters.count_departure_without_worker();
                !follows
            }
            Departure::Unwanted => false,
            // And now for this one, who is the last.
            Departure::UnwantedOrphan(orphan) => {
                let request = self.exchanges.asked(orphan).and_then(|asked| asked.request);
                self.exchanges.forget_orphan(orphan);
                if let Some(request) = request {
                    desk.report(Event::Abandoned(request));
                }
                false
            }
        }
    }
}

/// Returns true for a request that the operator wants asked every time. A carriage return at its end is not looked at.
fn is_skipped(options: &Options, payload: &[u8]) -> bool {
    let skip = options.cache.as_ref().and_then(|cache| cache.skip.as_ref());
    skip.is_some_and(|skip| skip.is_in(payload.strip_suffix(b"\r").unwrap_or(payload)))
}
