//! What is told of requests afterwards: the record of a worker that was lost, and requests that were slow.
//!
//! A worker's record is told once, below the line that tells of its loss (`loss`). Workers that are asked to go are not told of.

use std::time::{Duration, Instant};

use log::Level;

use super::super::core::{ClientId, WorkerId};
use super::super::options::Disclosure;
use super::super::recorder::Excerpt;
use super::super::report::Topic;
use super::Pool;
use crate::amount;
use crate::reactor::Context;

impl Pool {
    /// How much may be shown of a request that came at a time, or at one that is not known. One that was confidential when it
    /// came stays so.
    pub(super) fn disclosure_of(&self, arrived: Option<Instant>) -> Disclosure {
        match self.disclosed_from {
            Some(from) if arrived.is_none_or(|arrived| arrived <= from) => Disclosure::Nothing,
            Some(_) | None => self.options.disclosure,
        }
    }

    /// A request whose answer has come, but late; to be told before its client is let go, who has its line.
    pub(super) fn log_if_slow(
        &mut self,
        cx: &mut Context<'_>,
        id: ClientId,
        worker: WorkerId,
        waited: Duration,
        served: Duration,
    ) {
        let Some(limit) = self.options.slow_log.filter(|limit| served > *limit) else {
            return;
        };
        let (Some(client), Some(bytes)) = (self.clients.of(id), self.clients.request_bytes(id)) else {
            return;
        };
        let arrived = cx.now().checked_sub(waited + served);
        let (origin, request) = (
            client.origin.clone(),
            Excerpt::of(bytes, self.disclosure_of(arrived)).to_string(),
        );
        let who = self.workers.describe(worker).unwrap_or_default();
        let (waited, served) = (amount::span(waited), amount::span(served));
        let limit = amount::span(limit);
        let line = format_args!(
            "{who} took {served}, more than --slow-log {limit}, for {origin}, which had waited {waited}: {request}"
        );
        self.note(cx, Level::Warn, Topic::Slow, line);
    }
}
