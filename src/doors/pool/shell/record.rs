//! Lines of the log about requests: refused ones and slow ones.

use std::time::Instant;

use log::Level;

use super::super::core::{ClientId, Completion, RefusedRequest};
use super::super::options::Disclosure;
use super::super::recorder::Excerpt;
use super::super::report::{self, Topic};
use super::Pool;
use crate::amount;
use crate::net::origin::Origin;
use crate::reactor::Context;

impl Pool {
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
