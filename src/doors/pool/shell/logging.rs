//! Lines of the log about the pool as a whole (it can serve, or cannot; it grows, or shrinks), and about single
//! requests (refused ones and slow ones). The decisions are the core's. The lines about lost workers are in
//! `workers::loss`.

use std::time::Instant;

use log::Level;

use super::super::core::{ClientId, Completion, HealthChange, RefusedRequest, Status, WorkerId};
use super::super::options::Disclosure;
use super::super::recorder::Excerpt;
use super::super::report::{self, Topic};
use super::Pool;
use crate::amount;
use crate::net::origin::Origin;
use crate::reactor::Context;

impl Pool {
    // ---- the pool ----------------------------------------------------------------------------------------------

    pub(super) fn log_health(&mut self, cx: &mut Context<'_>, change: HealthChange) {
        match change {
            HealthChange::Ready => self.log_ready(),
            HealthChange::Down { reason } => self.workers.begin_outage(&mut self.base.desk(cx), reason),
            HealthChange::Over {
                lasted,
                failed,
                first_time,
            } => {
                self.workers.log_outage(&mut self.base.desk(cx));
                let were = if failed == 1 { "request was" } else { "requests were" };
                let line = format_args!(
                    "a worker can serve again: none could for {}, and {failed} {were} refused",
                    amount::span(lasted)
                );
                self.note(cx, Level::Info, Topic::Recovery, line);
                if first_time {
                    self.log_ready();
                }
            }
        }
    }

    fn log_ready(&self) {
        let serves = |status| matches!(status, Status::Available | Status::Busy);
        let serving = self.base.dispatcher.slots().filter(|slot| serves(slot.status)).count();
        let (name, places) = (self.base.front.name(), self.base.dispatcher.places());
        log::info!(service:% = name; "{name}: ready, {serving} of {places} workers serve");
    }

    pub(super) fn log_growth(&mut self, cx: &mut Context<'_>, slot: usize, places: usize) {
        let most = self.base.options.policy.workers.max;
        let line = format_args!("the load wants more workers: worker {slot} is started, {places} of at most {most}");
        self.note(cx, Level::Info, Topic::Grown, line);
    }

    pub(super) fn log_shrinking(&mut self, cx: &mut Context<'_>, worker: WorkerId, slot: usize, places: usize) {
        let label = self
            .workers
            .describe(worker)
            .unwrap_or_else(|| format!("worker {slot}"));
        let size = self.base.options.policy.workers;
        let line = format_args!(
            "{label} has not been needed for --worker-idle-timeout {} and is let go; {places} are left, of at least {}",
            amount::span(size.idle_timeout),
            size.min
        );
        self.note(cx, Level::Info, Topic::Shrunk, line);
    }

    // ---- requests ----------------------------------------------------------------------------------------------

    /// The part that may be shown of a request which came at this time; `None`: the time is not known. A request that
    /// was confidential when it came stays so.
    pub(super) fn disclosure_of(&self, arrived: Option<Instant>) -> Disclosure {
        match self.disclosed_from {
            Some(from) if arrived.is_none_or(|arrived| arrived <= from) => Disclosure::Nothing,
            Some(_) | None => self.base.options.disclosure,
        }
    }

    /// Logs a request whose answer has come, but late. Must be called before the request is answered, while its bytes
    /// are kept.
    pub(super) fn log_if_slow(&mut self, cx: &mut Context<'_>, completion: Completion) {
        let Completion { waited, served, .. } = completion;
        let Some(limit) = self.base.options.slow_log.filter(|limit| served > *limit) else {
            return;
        };
        let (Some(client), Some(bytes)) = (
            self.clients.of(completion.client),
            self.clients.request_bytes(completion.client),
        ) else {
            return;
        };
        let arrived = cx.now().checked_sub(waited + served);
        let (origin, request) = (
            client.origin.clone(),
            Excerpt::of(bytes, self.disclosure_of(arrived)).to_string(),
        );
        let label = self.workers.describe(completion.worker).unwrap_or_default();
        let (waited, served) = (amount::span(waited), amount::span(served));
        let limit = amount::span(limit);
        let line = format_args!(
            "{label} took {served}, more than --slow-log {limit}, for {origin}, which had waited {waited}: {request}"
        );
        self.note(cx, Level::Warn, Topic::Slow, line);
    }

    /// The name of a request's client in the log.
    pub(super) fn peer_name(&self, client: ClientId) -> String {
        let origin = if self.has_sessions() {
            self.sessions.get(client).map(|session| &session.origin)
        } else {
            self.clients.of(client).map(|client| &client.origin)
        };
        origin.map_or_else(|| "a client that has gone".to_owned(), Origin::to_string)
    }

    /// Logs a refused request: below the loss of its worker, if that is not logged yet.
    pub(super) fn log_refusal(&mut self, cx: &mut Context<'_>, refused: RefusedRequest) {
        let RefusedRequest { reason, worker, .. } = refused;
        let (origin, cause) = (
            self.peer_name(refused.client),
            report::refusal(reason, &self.base.options),
        );
        let at = worker
            .and_then(|worker| self.workers.describe(worker))
            .map(|worker| format!(" at {worker}"))
            .unwrap_or_default();
        let waited = amount::span(refused.waited);
        let (topic, line) = (
            Topic::Refusal(reason),
            format_args!("refused {origin} after {waited}{at}: {cause}"),
        );
        if !self.workers.defer_refusal(worker, topic, line) {
            self.note(cx, Level::Warn, topic, line);
        }
    }
}
