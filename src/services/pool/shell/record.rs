//! What is told of requests afterwards: the record of a worker that was lost, and requests that were slow.
//!
//! A worker's record is told once, at the first sign of its loss: most often the dispatcher gives it up while its process is
//! still there; one whose end is seen before anything else is told of as it is reaped. Workers that are asked to go are not.

use std::time::{Duration, Instant};

use log::Level;

use super::super::core::{ClientId, Restart, WorkerId};
use super::super::options::Disclosure;
use super::super::recorder::Excerpt;
use super::super::report::{self, Topic};
use super::Pool;
use crate::amount;
use crate::reactor::Context;

impl Pool {
    /// Writes down what a worker was working on when it was lost, and what it had worked on before.
    pub(super) fn tell_record(&mut self, cx: &mut Context<'_>, id: WorkerId, reason: Restart) {
        let Some(fate) = report::fate(reason) else { return };
        let Some(who) = self.crew.describe(id) else { return };
        let Some(process) = self.crew.get_mut(id) else { return };
        let record = std::mem::take(&mut process.recorder);
        // A probe that was the first thing it was asked has been told with its loss.
        let is_told = reason == Restart::Quarantined && record.entries().count() == 1;
        if record.is_empty() || is_told {
            return;
        }
        let (now, disclosure) = (cx.now(), self.options.disclosure);
        let lines = record
            .entries()
            .map(|entry| format!("{who}: {}", entry.story(now, disclosure)));
        // Of several it is known which one took too long, and else that it may be any.
        let several = record.at_once() > 1 && reason != Restart::BusyTimeout;
        match record.in_hand() {
            Some(_) if several => {
                let headline = format_args!(
                    "{who} {fate} with {} requests in hand; the last ones were:",
                    record.at_once()
                );
                self.note_at_length(cx, Level::Warn, Topic::Record, headline, lines);
            }
            Some(entry) => {
                let (after, text) = (amount::span(entry.age(now)), entry.text(disclosure));
                let headline = format_args!("{who} {fate} after {after} on: {text}");
                self.note_at_length(cx, Level::Warn, Topic::Record, headline, lines);
            }
            None => {
                let headline = format_args!("{who} {fate} with no request in hand; the last ones were:");
                self.note_at_length(cx, Level::Warn, Topic::Record, headline, lines);
            }
        }
    }

    /// How much may be shown of a request that came at a time, or at one that is not known. One that was confidential when it came
    /// stays so.
    pub(super) fn disclosure_of(&self, arrived: Option<Instant>) -> Disclosure {
        match self.disclosed_from {
            Some(from) if arrived.is_none_or(|arrived| arrived <= from) => Disclosure::Nothing,
            Some(_) | None => self.options.disclosure,
        }
    }

    /// A request whose answer has come, but late; to be told before its client is let go, who has its line.
    pub(super) fn tell_if_slow(
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
        let (Some(client), Some(bytes)) = (self.clients.of(id), self.clients.exchanges.request_bytes(id)) else {
            return;
        };
        let arrived = cx.now().checked_sub(waited + served);
        let (peer, request) = (client.peer, Excerpt::of(bytes, self.disclosure_of(arrived)).to_string());
        let who = self.crew.describe(worker).unwrap_or_default();
        let (waited, served) = (amount::span(waited), amount::span(served));
        let limit = amount::span(limit);
        let line = format_args!(
            "{who} took {served}, more than --slow-log {limit}, for {peer}, which had waited {waited}: {request}"
        );
        self.note(cx, Level::Warn, Topic::Slow, line);
    }
}
