//! Requests that need no worker of their own: their answer is known, or is being asked for by somebody else.
//!
//! Both ways the request is an exchange like any other, so that its answer stands in its place. To the dispatcher it is
//! unknown; what it counts for is counted here, when it ends.

use std::rc::Rc;
use std::time::Duration;

use super::exchange::{Bytes, State};
use super::respond::Answer;
use crate::doors::pool::cache::{Departure, Found, Shared};
use crate::doors::pool::core::{ClientId, Event, Restart, WorkerId};
use crate::doors::pool::shell::Pool;
use crate::reactor::{Context, Key};

/// How a request gets its answer.
pub(in crate::doors::pool::shell) enum Route {
    /// By a worker, for itself alone.
    Worker,
    /// By a worker; identical ones may share the answer.
    Leader,
    /// It is taken care of.
    Answered,
}

impl Pool {
    /// Looks whether a request needs a worker.
    pub(in crate::doors::pool::shell) fn choose_route(
        &mut self,
        cx: &mut Context<'_>,
        key: Key,
        bytes: &[u8],
        payload: &[u8],
    ) -> Route {
        if !self.cache.is_on() || self.is_skipped(payload) {
            return Route::Worker;
        }
        let counters = self.dispatcher.counters_mut();
        match self.cache.look_up(bytes, cx.now()) {
            Found::Answer(answer) => {
                counters.cache.hits += 1;
                counters.answered_elsewhere();
                let answer = Bytes::Shared(Rc::clone(answer));
                self.answer_in_order(cx, key, answer);
                Route::Answered
            }
            Found::Asked(place) => {
                let Some(client) = self.clients.table.get_mut(key) else {
                    return Route::Answered;
                };
                match self
                    .clients
                    .exchanges
                    .open(&mut client.owed, key, State::Coalesced(place))
                {
                    Ok(id) => self.cache.add_waiter(place, id),
                    Err(_) => return Route::Worker,
                }
                self.dispatcher.counters_mut().cache.shared += 1;
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

    /// Whether the operator wants that request asked every time. A carriage return at its end is not looked at.
    fn is_skipped(&self, payload: &[u8]) -> bool {
        let skip = self.options.cache.as_ref().and_then(|cache| cache.skip.as_ref());
        skip.is_some_and(|skip| skip.is_in(payload.strip_suffix(b"\r").unwrap_or(payload)))
    }

    /// What a worker has answered may be wrong for the reason for which it is lost, and which of the answers that are kept are
    /// its own is not known: all of them are forgotten, and so is what is being asked now. One that has never been given
    /// anything has answered nobody.
    pub(in crate::doors::pool::shell) fn forget_doubtful_answers(&mut self, worker: WorkerId, reason: Restart) {
        let Some(process) = self.workers.get(worker) else {
            return;
        };
        let is_doubtful = match reason {
            // Since it passed its last probe it may have answered as wrongly as it has answered this one.
            Restart::Quarantined => process.health_check.has_passed(),
            // What it wrote belongs to no request, and may have belonged to none for a while.
            Restart::Desync | Restart::UnknownChannel | Restart::Malformed => process.given_bytes > 0,
            // It is too slow, too verbose or dead, and what it has said before stands; or it goes in good order.
            Restart::Died
            | Restart::SpawnFailed
            | Restart::StartTimeout
            | Restart::BusyTimeout
            | Restart::Oversize
            | Restart::Recycled
            | Restart::Spent
            | Restart::Asked => false,
        };
        if is_doubtful {
            self.cache.forget_all();
        }
    }

    /// Others may share the answer to this request from now on.
    pub(in crate::doors::pool::shell) fn add_leader(&mut self, id: ClientId) {
        if let Some(State::Asked {
            bytes: Bytes::Shared(bytes),
            ..
        }) = self.clients.exchanges.get(id).map(|exchange| &exchange.state)
        {
            self.cache.add_leader(bytes, id);
        }
    }

    /// The answer to a request, for all who share it.
    pub(in crate::doors::pool::shell) fn answer_all(
        &mut self,
        cx: &mut Context<'_>,
        id: ClientId,
        answer: &[u8],
        served: Duration,
    ) {
        let shared = self.end_coalescing(cx, id, Some(answer));
        self.answer(cx, id, Answer::Of(answer), served);
        self.answer_waiters(cx, shared);
    }

    /// The same for a refusal.
    pub(in crate::doors::pool::shell) fn refuse_all(&mut self, cx: &mut Context<'_>, id: ClientId) {
        let shared = self.end_coalescing(cx, id, None);
        self.refuse(cx, id);
        self.answer_waiters(cx, shared);
    }

    /// A request that a worker was asked has come to its end.
    fn end_coalescing(&mut self, cx: &Context<'_>, id: ClientId, answer: Option<&[u8]>) -> Shared {
        let Some(bytes) = self.clients.exchanges.request_bytes(id) else {
            return Shared::default();
        };
        let shared = self.cache.end_request(bytes, id, answer, cx.now());
        if shared.is_orphan {
            self.clients.exchanges.forget_orphan(id);
        }
        shared
    }

    /// Tells those who share an answer. One of them stands for an orphan, which the dispatcher has counted.
    fn answer_waiters(&mut self, cx: &mut Context<'_>, mut shared: Shared) {
        let mut uncounted = usize::from(shared.is_orphan);
        for waiter in shared.waiters.take_all() {
            if uncounted > 0 {
                uncounted -= 1;
            } else if shared.answer.is_some() {
                self.dispatcher.counters_mut().answered_elsewhere();
            } else {
                self.dispatcher.counters_mut().refused_early();
            }
            match &shared.answer {
                Some(answer) => self.answer(cx, waiter, Answer::Shared(answer), Duration::ZERO),
                None => self.refuse(cx, waiter),
            }
        }
    }

    /// A client has gone that waited for an answer others may wait for too. Whether its exchange is kept for them.
    pub(in crate::doors::pool::shell) fn leave_coalesced(&mut self, id: ClientId) -> bool {
        let Some(exchange) = self.clients.exchanges.get(id) else {
            return false;
        };
        let (departure, follows) = match &exchange.state {
            State::Asked { bytes, .. } => (self.cache.remove_leader(bytes, id), false),
            State::Coalesced(place) => (self.cache.remove_waiter(*place), true),
            State::Answered(_) => return false,
        };
        match departure {
            // What the dispatcher has counted stands for one of those who stay.
            Departure::Shared => {
                self.dispatcher.counters_mut().left_elsewhere();
                !follows
            }
            Departure::Unwanted => false,
            // And now for this one, who is the last.
            Departure::UnwantedOrphan(orphan) => {
                if let Some(State::Asked {
                    request: Some(request), ..
                }) = self.clients.exchanges.forget_orphan(orphan)
                {
                    self.report(Event::Abandoned(request));
                }
                false
            }
        }
    }
}
